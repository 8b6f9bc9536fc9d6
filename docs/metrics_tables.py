"""Write the tables of docs/metrics.md that the code decides: which protocol takes which measure, and empty masks.

python docs/metrics_tables.py
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import torch
from torch import Tensor

from madgnet_bench.metrics.measures import curve_shapes, measure_cases, pool_curves
from madgnet_bench.protocol import MEASURES, PROTOCOLS, Protocol
from madgnet_bench.records import EMPTY_CASES

__all__ = ["PAGE", "fill"]

PAGE = Path(__file__).with_name("metrics.md")

_COLUMNS = {"neither": "neither", "reference": "only reference", "prediction": "only prediction", "both": "both"}
_SPACING = (3.0, 1.0, 1.0)


def main() -> None:
    """Fill the page."""
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def fill(page: str) -> str:
    """Replace everything between the markers of the page by what the code says now."""
    tables = {"measures": _measures_table(), "empty": "\n\n".join(_empty_table(each) for each in PROTOCOLS.values())}
    for name, table in tables.items():
        pattern = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda found, text=table: f"{found[1]}\n{text}\n\n{found[2]}", page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} places for {name}")
    return page


def _measures_table() -> str:
    """Every measure: its name, and what it reads under each protocol."""
    rows = [["name", "in tables", "unit", "better", "taken", *PROTOCOLS], ["---"] * (5 + len(PROTOCOLS))]
    reads = {name: _reads(protocol) for name, protocol in PROTOCOLS.items()}
    for measure in MEASURES.values():
        unit = "pixel or mm" if measure.unit == "distance" else measure.unit
        better, taken = "higher" if measure.higher_is_better else "lower", "data set" if measure.pooled else "case"
        cells = [reads[name].get(measure.name, "") for name in PROTOCOLS]
        rows.append([f"`{measure.name}`", measure.title, unit, better, taken, *cells])
    return "\n".join(f"| {' | '.join(row)} |".replace("  ", " ") for row in rows)


def _reads(protocol: Protocol) -> dict[str, str]:
    """For each measure, whether it changes with the probabilities while the thresholded mask stays; * where optional."""
    reference, predicted = _object(protocol, shift=0), _object(protocol, shift=1)
    right, wrong = predicted * reference, predicted * (1 - reference)
    ramp = torch.linspace(0, 1, reference.numel(), dtype=torch.float64).view_as(reference)
    unsure = right * (0.8 + 0.2 * ramp / (right * ramp).max()) + 0.55 * wrong + (1 - predicted) * 0.4 * ramp
    sure_and_unsure = [_all_measures(each, reference, _whole(protocol)) for each in (predicted, unsure)]
    default = {*protocol.measures, *protocol.pooled_measures}
    return {
        name: ("mask" if value == sure_and_unsure[1][name] else "map") + ("" if name in default else "*")
        for name, value in sure_and_unsure[0].items()
    }


def _empty_table(protocol: Protocol) -> str:
    """What each measure says in the four cases."""
    whole = _whole(protocol)
    full = _object(protocol, shift=0)
    found = {
        case: _all_measures(
            0.9 * _object(protocol, shift=1) * (case in ("neither", "reference")),
            full * (case in ("neither", "prediction")),
            whole,
        )
        for case in EMPTY_CASES
    }
    unit = f", distances in {protocol.unit}"
    rows = [[f"`{protocol.name}`{unit}", *(_COLUMNS[case] for case in EMPTY_CASES)], ["---"] + ["--:"] * len(EMPTY_CASES)]
    for name in found["both"]:
        digits = 3 if MEASURES[name].unit == "distance" else 4
        rows.append([f"`{name}`", *(f"{found[case][name] + 0.0:.{digits}f}" for case in EMPTY_CASES)])  # no -0
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _whole(protocol: Protocol) -> Protocol:
    """The protocol with its optional measures."""
    return dataclasses.replace(protocol, dice_curves="on", released="on")


def _object(protocol: Protocol, *, shift: int) -> Tensor:
    """An object of 8 x 8 in 20 x 20 pixels, in two of four slices where the protocol is for volumes; float64."""
    plane = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    plane[..., 6:14, 6 + shift : 14 + shift] = 1
    if protocol.dimensions == 2:
        return plane
    return torch.stack([0 * plane, plane, plane, 0 * plane], dim=2)


def _all_measures(probability: Tensor, reference: Tensor, protocol: Protocol) -> dict[str, float]:
    """The measures of one case, and the pooled ones of a data set that is this case alone."""
    spacing = _SPACING if protocol.unit == "mm" else None
    found = measure_cases(probability, reference, protocol=protocol, spacing=spacing, curves=True)
    pooled = pool_curves({name: found[name][:, 0] for name in curve_shapes(protocol)}, protocol=protocol)
    values = {name: found[name].item() for name in protocol.measures} | pooled
    return {name: values[name] for name in MEASURES if name in values}


if __name__ == "__main__":
    main()
