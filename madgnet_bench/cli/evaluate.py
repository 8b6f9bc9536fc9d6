"""``madgnet-bench evaluate``: score the masks or probability maps of any framework. Torch is imported once files are sound."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from madgnet_bench.catalog.maps import MapTarget
from madgnet_bench.catalog.pairs import Pair, PairMaps, PairRules, list_pairs, read_pair, read_pairs_file
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, DataErrors, Problem
from madgnet_bench.protocol import MEASURES, PROTOCOLS, Protocol
from madgnet_bench.records import EMPTY_CASES, CaseRow, CaseTable, RunFolder, summarize, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check_pairs", "main", "measure_pairs"]

_WHERE, _OUTCOME = "predictions and references", "nothing was measured or written"

_LEAST_LEVELS = (float(np.float32(1 / 255)), float(np.float32(1 / 65535)))
"""Level 1 of grey images, as probability: a set of masks of 0 and 1 that is read as probabilities has no more."""

_RULES = """\
pairing
  Files pair by name, subfolders included: PREDICTIONS/a/c1.png with REFERENCES/a/c1.npy. --prediction_ending _pred.png
  lists only names that end so and takes the case from what stands before. Files of the kinds .csv .json .log .md .pkl
  .txt .yaml are passed over; anything else that does not pair is an error. --pairs names a CSV instead, with the columns
  case_id, prediction, reference and, where wanted, group_id, dataset, domain; paths are relative to it.

what files hold
  references         masks: 0 and 255, 0 and 1, or bool; JPEG is cut at 127
  predictions        the same, but no JPEG; with --maps probability, values in [0, 1]: floats, or grey images, whose 8 bits
                     are divided by 255 and whose 16 bits by 65535
  images             .png .bmp .tif and others; .npy, .npz with one array: (H, W); for 3D protocols .nii, .nii.gz, or
                     arrays (D, H, W); nothing is unpickled

targets
  none named         one target, foreground: everything that is not 0
  --target disc cup  a map per target: folders disc/ and cup/ in PREDICTIONS (or REFERENCES), or arrays (2, H, W) in this
                     order; in a CSV also two files, separated by ;
  --target disc=1,2 cup=2
                     label maps, in both folders (with --maps probability only in REFERENCES). A value that no target has is
                     an error; --background names those that count as none

size
  A prediction has the size of its reference, or that of the protocol; else --resize must say that this is meant.
  madgnet, and any size=N: references and predicted masks are brought to N x N as a fit brings references there (bilinear
  with antialiasing, cut at 0.5; or nearest, by the protocol's mask_resampling), probabilities with the same filter, uncut.
  native, pranet: a resized prediction is brought to its reference's size bilinearly, as a test does; masks are cut at 0.5.
  volume: never resized. Prediction and reference must lie at one place (affine); the spacing is the reference's.

exit codes: 0 measured, 2 wrong use or unusable files, all of which one table names; nothing is written then.
docs/metrics.md says what each measure is."""


def main(arguments: Sequence[str]) -> int:
    """Measure predictions against references, print a table per target, and write it where asked.

    Returns:
        0; wrong use and unusable files raise.

    Raises:
        BenchError: The options do not fit together, an output exists, or files cannot be used, which the message tabulates.
    """
    options = _parser().parse_args(arguments)
    rules = PairRules(
        protocol=Protocol.parse(options.protocol),
        targets=tuple(MapTarget.parse(text) for text in options.target or ["foreground"]),
        maps=options.maps,
        background=tuple(options.background),
        resize=options.resize,
    )
    _check_outputs(options)
    if options.device != "cpu":
        _check_device(options.device)
    pairs, problems = _list(options, rules)
    check_pairs(pairs, rules, problems=problems, step=_bar("checking", len(pairs)))
    table = measure_pairs(pairs, rules, device=options.device, step=_bar("measuring", len(pairs)))
    written = _write(options, rules, table)
    sys.stdout.write("\n".join([_text(summarize(table.rows, table.pooled), rules), *written]) + "\n")
    return 0


def check_pairs(
    pairs: Sequence[Pair],
    rules: PairRules,
    *,
    problems: Sequence[Problem] = (),
    step: Callable[[], object] = lambda: None,
) -> None:
    """Decode every file, one case at a time.

    Args:
        pairs: The cases.
        rules: How they are read.
        problems: What was found while listing them.
        step: Called after every case.

    Raises:
        DataErrors: With everything that is wrong.
    """
    found, greatest = list(problems), 0.0
    for pair in pairs:
        maps, wrong = read_pair(pair, rules)
        found += wrong
        greatest = max(greatest, 0.0 if maps is None else float(maps.prediction.max()))
        step()
    if rules.maps == "probability" and greatest in _LEAST_LEVELS:
        file = str(pairs[0].prediction[0])
        found.append(Problem(file, "no pixel of any prediction exceeds level 1", "leave --maps out for masks of 0 and 1"))
    if found:
        raise DataErrors(_WHERE, list(dict.fromkeys(found)), outcome=_OUTCOME)


def measure_pairs(
    pairs: Sequence[Pair], rules: PairRules, *, device: str = "cpu", step: Callable[[], object] = lambda: None
) -> CaseTable:
    """Measure cases one by one, with the state that tests of a training use.

    Args:
        pairs: The cases, which `check_pairs` has found sound.
        rules: How they are read, and the protocol.
        device: A torch device.
        step: Called after every case.

    Returns:
        One row per case and target, in the setting ``evaluated``, with the pooled measures and their curves.

    Raises:
        DataErrors: A file has changed since it was checked.
        ConfigError: A measure of the protocol does not exist for maps of this size.
    """
    import torch  # seconds, paid once the files are known to be sound

    from madgnet_bench.metrics.case_table import CaseMeasures

    measures = CaseMeasures(rules.protocol, curves=True).to(device)
    datasets = list(dict.fromkeys(pair.dataset for pair in pairs))
    for index, pair in enumerate(pairs):
        maps, problems = read_pair(pair, rules)
        if maps is None:
            raise DataErrors(_WHERE, problems, outcome=_OUTCOME)
        prediction, reference = (tensor.to(device) for tensor in _on_one_grid(maps, rules))
        try:
            measures.update(
                prediction,
                reference,
                present=torch.ones(1, len(rules.targets), dtype=torch.bool, device=device),
                case_index=torch.tensor([index], device=device),
                dataset_index=datasets.index(pair.dataset),
                spacing=torch.tensor([maps.spacing]) if maps.spacing else None,
            )
        except ValueError as error:  # a measure that these maps do not have, as the released S-measure of one row
            raise ConfigError(f"case {pair.case_id}: {error}.") from None
        step()
    return _named(pairs, rules, measures.compute(), measures.measures)


def _on_one_grid(maps: PairMaps, rules: PairRules) -> tuple[Tensor, Tensor]:
    """Bring a case to the size at which the protocol compares: (1, K, *spatial), float in [0, 1] and uint8 in {0, 1}."""
    import torch
    from PIL import Image
    from torch.nn import functional

    from madgnet_bench.data.transforms import resize_mask

    size, masks = rules.protocol.size, rules.maps == "masks"
    prediction, reference = maps.prediction, maps.reference.astype(np.uint8)
    if size != "native":
        square, resampling = (size, size), rules.protocol.mask_resampling
        reference = resize_mask(reference, square, resampling=resampling)
        if masks:
            prediction = resize_mask(prediction.astype(np.uint8), square, resampling=resampling)
        elif prediction.shape[1:] != square:
            planes = [Image.fromarray(plane.astype(np.float32)) for plane in prediction]
            resized = [np.asarray(plane.resize(square, Image.Resampling.BILINEAR)) for plane in planes]
            prediction = np.clip(np.stack(resized), 0, 1)
    given = torch.from_numpy(prediction.astype(np.float32) if masks else prediction)[None]
    if given.shape[2:] != reference.shape[1:]:
        given = functional.interpolate(given, size=reference.shape[1:], mode="bilinear", align_corners=False).clamp(0, 1)
        given = (given >= 0.5).float() if masks else given
    return given, torch.from_numpy(reference)[None]


def _named(pairs: Sequence[Pair], rules: PairRules, measured: Any, names: Sequence[str]) -> CaseTable:
    """Turn measured numbers into named rows, and make the measures that are no means over cases."""
    from madgnet_bench.metrics.measures import pool_curves

    rows: list[CaseRow] = []
    places: dict[tuple[str, str, str], list[int]] = {}
    for (_, case, target, empty), values in zip(measured.places.tolist(), measured.values.tolist(), strict=True):
        pair = pairs[case]
        row = CaseRow(
            case_id=pair.case_id,
            group_id=pair.group_id,
            dataset=pair.dataset,
            modality="unknown",
            domain=pair.domain,
            setting="evaluated",
            target=rules.targets[target].name,
            protocol=str(rules.protocol),
            empty_case=EMPTY_CASES[empty],
            measures=dict(zip(names, values, strict=True)),
        )
        places.setdefault((row.setting, row.dataset, row.target), []).append(len(rows))
        rows.append(row)
    pooled = {
        cell: pool_curves({name: curve[chosen] for name, curve in measured.curves.items()}, protocol=rules.protocol)
        for cell, chosen in places.items()
    }
    return CaseTable(rows, pooled, {name: curve.numpy() for name, curve in measured.curves.items()})


def _list(options: argparse.Namespace, rules: PairRules) -> tuple[list[Pair], list[Problem]]:
    """The cases that the options name.

    Raises:
        ConfigError: They name none, or too many things.
    """
    folders = [folder for folder in (options.predictions, options.references) if folder is not None]
    if options.pairs is not None:
        if folders or options.prediction_ending or options.reference_ending:
            raise ConfigError("--pairs names every file itself: leave out the folders and their endings.")
        return read_pairs_file(options.pairs, rules=rules, dataset=options.name or options.pairs.stem)
    if len(folders) < 2:
        raise ConfigError("name the folders first: evaluate PREDICTIONS REFERENCES --protocol P; or pass --pairs FILE.csv.")
    predictions, references = folders
    if predictions.resolve() == references.resolve():
        raise ConfigError(f"{predictions} is given as predictions and as references; every score would be perfect.")
    return list_pairs(
        predictions,
        references,
        rules=rules,
        dataset=options.name or references.resolve().name,
        prediction_ending=options.prediction_ending,
        reference_ending=options.reference_ending,
    )


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse to replace what was not asked to be, before any work.

    Raises:
        ConfigError: A file or a run is there.
    """
    files = [] if options.csv is None else [options.csv]
    if options.output is not None:
        folder = RunFolder(options.output)
        if folder.config_file.exists():
            raise ConfigError(f"{options.output} holds a run; choose another --output.")
        if options.output.exists() and not options.output.is_dir():
            raise ConfigError(f"{options.output} is no folder; choose another --output.")
        files += [folder.cases_file, folder.curves_file, folder.result_file]
    for file in files:
        if file.is_dir() or (file.exists() and not options.overwrite):
            raise ConfigError(f"{file} exists; pass --overwrite to replace it, or write elsewhere.")


def _check_device(device: str) -> None:
    """Make sure that torch has a device and that it knows double precision.

    Raises:
        ConfigError: It does not.
    """
    import torch

    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device} cannot be used ({reason}); leave it out to measure on the CPU.") from None


def _bar(label: str, total: int) -> Callable[[], object]:
    """A progress bar with an estimate on standard error, where that is a terminal: what advances it."""
    from tqdm import tqdm

    bar = tqdm(desc=label, total=total, unit=" case", disable=None if total else True, leave=False)

    def step() -> None:
        bar.update()
        if bar.n >= total:
            bar.close()

    return step


def _write(options: argparse.Namespace, rules: PairRules, table: CaseTable) -> list[str]:
    """Write the files that were asked for; return a line for each."""
    lines = []
    if options.output is not None:
        from madgnet_bench.cli.environment import describe_package

        folder = RunFolder(options.output)
        folder.result_file.unlink(missing_ok=True)
        folder.write_cases(table.rows, curves=table.curves)
        folder.write_result(
            {
                "kind": "evaluation",
                "protocol": str(rules.protocol),
                "maps": rules.maps,
                "resize": rules.resize,
                "targets": {target.name: list(target.values) for target in rules.targets},
                "background": list(rules.background),
                "cells": summarize(folder.read_cases(), table.pooled),
                "package": describe_package(),
            }
        )
        lines.append(f"Written: {options.output}")
    if options.csv is not None:
        write_atomically(options.csv, _csv(summarize(table.rows, table.pooled), rules.protocol))
        lines.append(f"Written: {options.csv}")
    return lines


def _names(protocol: Protocol) -> list[str]:
    """Every measure of a protocol, those of cases first."""
    return [*protocol.measures, *protocol.pooled_measures]


def _text(cells: Sequence[dict[str, Any]], rules: PairRules) -> str:
    """One table per data set and target."""
    protocol, parts = rules.protocol, []
    for cell in cells:
        empty = ", ".join(f"{name} {cell['empty'][name]}" for name in EMPTY_CASES)
        rows: list[tuple[str, ...]] = [("measure", "value", "unit", "better", "taken")]
        rows += [_line(name, cell["measures"][name], protocol) for name in _names(protocol)]
        cases = "1 case" if cell["cases"] == 1 else f"{cell['cases']} cases"
        heading = f"{cell['dataset']}: {cell['target']}, {cases}, protocol {protocol}"
        parts.append(f"{heading}\nempty masks: {empty}\n\n{_flush_values(rows)}\n")
    if rules.maps == "masks":
        parts.append(_MASKS)
    return "\n".join(parts)


_MASKS = """\
Predictions are masks: Brier score, NLL and ECE, and with soft maps all but the overlap and the distances, read 0 and 1
as if they were probabilities. Pass --maps probability where there are any.
"""


def _line(name: str, value: float, protocol: Protocol) -> tuple[str, ...]:
    """One measure, in percent where it is a fraction."""
    measure, value = MEASURES[name], value + 0.0  # which makes -0 a 0
    shown, unit = {
        "fraction": (f"{100 * value:.2f}", "%"),
        "distance": (f"{value:.3f}", protocol.unit),
        "nats": (f"{value:.4f}", "nats"),
    }[measure.unit]
    direction = "higher" if measure.higher_is_better else "lower"
    return measure.title, shown, unit, direction, "over the data set" if measure.pooled else "mean over cases"


def _flush_values(rows: Sequence[tuple[str, ...]]) -> str:
    """Align rows, the values to the right."""
    width = max(len(row[1]) for row in rows)
    return align([(row[0], row[1].rjust(width), *row[2:]) for row in rows])


def _csv(cells: Sequence[dict[str, Any]], protocol: Protocol) -> str:
    """One line per data set and target; fractions as fractions."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    shared = ("dataset", "domain", "target", "protocol", "cases")
    writer.writerow([*shared, *(f"empty_{name}" for name in EMPTY_CASES), *_names(protocol)])
    for cell in cells:
        counts = [cell["empty"][name] for name in EMPTY_CASES]
        values = [f"{cell['measures'][name]:.10g}" for name in _names(protocol)]
        writer.writerow([*(cell[name] for name in shared), *counts, *values])
    return stream.getvalue()


def _integers(text: str) -> list[int]:
    """Read ``VALUE,VALUE``."""
    try:
        return [int(value) for value in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 3,4") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench evaluate",
        usage="madgnet-bench evaluate (PREDICTIONS REFERENCES | --pairs FILE.csv) --protocol P [options]",
        description="Score the masks or probability maps of any framework against references, under a named protocol.",
        epilog=_RULES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("predictions", nargs="?", type=Path, metavar="PREDICTIONS", help="folder of the predictions")
    parser.add_argument("references", nargs="?", type=Path, metavar="REFERENCES", help="folder of the references")
    protocols = f"{', '.join(PROTOCOLS)}, or with departures, as madgnet[size=256]"
    parser.add_argument("--protocol", required=True, metavar="P", help=protocols)
    parser.add_argument("--pairs", type=Path, metavar="FILE.csv", help="CSV of the pairs, instead of two folders")
    parser.add_argument(
        "--maps", choices=("masks", "probability"), default="masks", help="what predictions hold (default: masks)"
    )
    parser.add_argument("--target", nargs="+", action="extend", metavar="NAME[=VALUES]", help="targets, in order; see below")
    values = "values of label maps that are background, beside 0"
    parser.add_argument("--background", type=_integers, default=[], metavar="VALUES", help=values)
    parser.add_argument("--resize", action="store_true", help="accept predictions of other sizes; see below")
    for side in ("prediction", "reference"):
        ending = f"what names of {side}s have behind the case, as _mask.png"
        parser.add_argument(f"--{side}_ending", default="", metavar="TEXT", help=ending)
    name = "name of the data set in tables (default: name of the folder REFERENCES, or of the CSV)"
    parser.add_argument("--name", metavar="NAME", help=name)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write cases.csv, curves.npz and result.json there")
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="write one line per data set and target; exact fractions")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--device", default="cpu", metavar="D", help="where to measure, such as cuda (default: cpu)")
    return parser
