"""``madgnet-bench compare``: the gate that fails when a measure fell, without torch."""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from madgnet_bench.bench.compare import LEVEL, CellChange, Comparison, compare
from madgnet_bench.bench.store import Run, Store, load_runs
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.pictures import case_panel, to_rgb
from madgnet_bench.protocol import MEASURES, Measure
from madgnet_bench.records import write_atomically

__all__ = ["main"]

_KEPT = ("config.yaml", "cases.csv", "result.json")
"""The files of a run that a baseline keeps."""

_MEANING = {"fell": "FELL", "missing": "MISSING", "rose": "rose", "new": "new", "held": "held"}


def main(arguments: list[str]) -> int:
    """Compare two folders of runs.

    Returns:
        0 where nothing fell and nothing is missing, or a new baseline was written; else 1.

    Raises:
        BenchError: The runs cannot be read or do not compare.
    """
    options = _parser().parse_args(arguments)
    if options.data_root is not None:
        os.environ["MADGNET_BENCH_DATA"] = str(options.data_root.expanduser().resolve())
    baseline, candidate = load_runs([options.baseline]), load_runs([options.candidate])
    found = compare(baseline.runs, candidate.runs, measures=options.measures, protocol=options.protocol, level=options.level)
    report = _report(found, overlays=_overlays(found, candidate.runs, options.overlays) if options.overlays else {})
    sys.stdout.write(report)
    for name, store in (("baseline", baseline), ("candidate", candidate)):
        sys.stdout.write("".join(f"{name}: {line}\n" for line in store.remarks()))
    if options.markdown:
        write_atomically(options.markdown, _markdown(found))
    if options.update:
        written = _update(options.baseline, baseline, candidate)
        sys.stdout.write(f"\nNew baseline in {options.baseline}: {written} runs. Read what changed above, then commit it.\n")
        return 0
    return 1 if found.failed else 0


def _report(found: Comparison, *, overlays: Mapping[int, Sequence[Path]]) -> str:
    """The comparison as text: what failed with its cases, what rose, then all cells."""
    counts = {verdict: sum(cell.verdict == verdict for cell in found.cells) for verdict in _MEANING}
    lines = [f"{len(found.cells)} cells, protocol {found.protocol}: {', '.join(f'{n} {v}' for v, n in counts.items() if n)}."]
    for place, cell in enumerate(found.cells):
        if cell.verdict in ("fell", "rose") and cell.change is not None and cell.tolerance is not None:
            lines += ["", f"{_MEANING[cell.verdict]}: {_name(cell)}: {cell.measure.title} {_change(cell)}"]
            lines += [f"  tolerance {_show(cell.measure, cell.tolerance)}, corrected p {_p(cell.p)}; cases that moved most:"]
            lines += [
                f"    {case.case_id}  {_show(cell.measure, case.baseline)} -> {_show(cell.measure, case.candidate)}"
                for case in cell.cases
            ]
            lines += [f"    picture: {path}" for path in overlays.get(place, ())]
        elif cell.verdict == "missing":
            lines += ["", f"MISSING: {_name(cell)}: {cell.measure.title}: in the baseline, not in the candidate."]
    lines += ["", _table(found), "", *found.notes, *([""] if found.notes else [])]
    lines.append(
        f"A cell falls when it is worse by more than its tolerance: a one-sided {100 * (1 - found.level):g} % bound from the "
        "baseline's spread over\nseeds and from the cases, Holm's correction over all cells and measures, at least "
        f"{100 * found.floor:g} points. Negative changes are worse."
    )
    lines.append("Nothing fell." if not found.failed else "The check failed.")
    return "\n".join(lines) + "\n"


def _rows(found: Comparison) -> list[list[str]]:
    rows = [["", "network", "trained on", "test set", "measure", "baseline", "n", "candidate", "n", "change", "tolerance", "p"]]
    for cell in found.cells:
        show = cell.measure
        base = "-" if cell.baseline is None else f"{_show(show, cell.baseline)} ± {_show(show, cell.spread or 0.0)}"
        rows.append(
            [
                _MEANING[cell.verdict],
                cell.network,
                cell.training_sets,
                f"{cell.setting} {cell.dataset}:{cell.target}",
                show.title,
                base,
                str(cell.baseline_seeds),
                "-" if cell.candidate is None else _show(show, cell.candidate),
                str(cell.candidate_seeds),
                "-" if cell.change is None else f"{_scaled(show, cell.change):+.2f}",
                "-" if cell.tolerance is None else _show(show, cell.tolerance),
                _p(cell.p),
            ]
        )
    return rows


def _table(found: Comparison) -> str:
    return align(_rows(found), left=5)


def _markdown(found: Comparison) -> str:
    """The table of all cells for a page of a pull request."""
    header, *body = _rows(found)
    lines = [f"### Comparison with the baseline: {'failed' if found.failed else 'nothing fell'}", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * 5 + ["---:"] * 7, *body)]
    return "\n".join([*lines, "", *(f"- {note}" for note in found.notes)]) + "\n"


def _name(cell: CellChange) -> str:
    return f"{cell.network}, trained on {cell.training_sets}, {cell.setting} {cell.dataset}:{cell.target}"


def _change(cell: CellChange) -> str:
    assert cell.baseline is not None and cell.candidate is not None
    return f"{_show(cell.measure, cell.baseline)} -> {_show(cell.measure, cell.candidate)}"


def _scaled(measure: Measure, value: float) -> float:
    return 100 * value if measure.unit == "fraction" else value


def _show(measure: Measure, value: float) -> str:
    return f"{_scaled(measure, value):.2f}"


def _p(p: float | None) -> str:
    return "-" if p is None else ("< 0.0001" if p < 0.0001 else f"{p:.4f}")


def _overlays(found: Comparison, runs: Sequence[Run], folder: Path) -> dict[int, list[Path]]:
    """Draw the cases of every cell that fell, from the masks of the candidate's first run that keeps them.

    Raises:
        RunError: No run keeps the masks of a cell that fell; the message says how to keep them.
    """
    written: dict[int, list[Path]] = {}
    for place, cell in enumerate(found.cells):
        if cell.verdict != "fell":
            continue
        members = [run for run in runs if run.network == cell.network and ", ".join(run.training_sets) == cell.training_sets]
        for run in members:
            dataset = _dataset(run, cell.dataset)
            masks = run.folder.path / "predictions" / cell.dataset.replace("/", "_").replace(" ", "_") / "masks"
            masks = masks / cell.target if len(dataset.card.targets) > 1 else masks
            if masks.is_dir():
                break
        else:
            fix = f"madgnet-bench test {members[0].folder.path} --run.predictions all"
            raise RunError(f"no masks of {cell.dataset} are kept by the candidate; `{fix}` writes them. Nothing was drawn.")
        known = {case.case_id: case for case in dataset.manifest.cases}
        for case in cell.cases:
            path = folder / f"{place:02d}_{run.run_id}_{cell.measure.name}_{cell.target}_{case.case_id.replace('/', '_')}.png"
            try:
                panel = _panel(dataset, known[case.case_id], masks / f"{case.case_id}.png", cell.target)
            except (FileProblem, OSError, KeyError) as error:
                raise RunError(f"case {case.case_id} of {cell.dataset} cannot be drawn: {error}.") from None
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(panel).save(path)
            written.setdefault(place, []).append(path)
    return written


def _panel(dataset: SegmentationDataset, case: Any, mask: Path, target: str) -> Any:
    """Image, reference, prediction and errors of one case, side by side at the size of the prediction."""
    with Image.open(mask) as stored:
        predicted = (np.asarray(stored.convert("L")) > 127).astype(np.uint8)
    size = (predicted.shape[1], predicted.shape[0])
    pixels = dataset.read_image(case)
    levels = (pixels * 255).round().astype(np.uint8) if pixels.dtype == np.float32 else pixels.astype(np.uint8)
    image = np.asarray(Image.fromarray(to_rgb(levels)).resize(size, Image.Resampling.BILINEAR))
    channel = dataset.read_mask(case)[dataset.card.targets.index(target)]
    reference = np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.NEAREST))
    return case_panel(image, predicted[None], reference[None])


def _dataset(run: Run, name: str) -> SegmentationDataset:
    """Build a data set of a run as its configuration describes it.

    Raises:
        RunError: The configuration holds no such set.
    """
    config = yaml.safe_load(run.folder.config_file.read_text(encoding="utf-8"))
    settings = config["data"]["init_args"]
    for spec in [*settings["seen"], *settings["unseen"]]:
        dataset = _build(spec)
        if dataset.name == name:
            return dataset
    raise RunError(f"{run.folder.config_file}: no data set {name}, whose results are in {run.folder.cases_file}.")


def _build(spec: Any) -> Any:
    """Turn a class path and its arguments into an object, and whatever they contain."""
    if not (isinstance(spec, Mapping) and "class_path" in spec):
        return spec
    module, _, name = spec["class_path"].rpartition(".")
    arguments = {key: _build(value) for key, value in (spec.get("init_args") or {}).items()}
    try:
        return getattr(importlib.import_module(module), name)(**arguments)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{spec['class_path']}: cannot be built ({error}); is its module on the Python path?") from None


def _update(folder: Path, baseline: Store, candidate: Store) -> int:
    """Put the candidate's runs in the place of the baseline's.

    Raises:
        RunError: A network has too few seeds for a baseline.
    """
    seeds: dict[tuple[str, tuple[str, ...]], int] = {}
    for run in candidate.runs:
        key = (run.network, run.training_sets)
        seeds[key] = seeds.get(key, 0) + 1
    few = [f"{network} on {', '.join(sets)} ({count})" for (network, sets), count in seeds.items() if count < 5]
    if few:
        raise RunError(
            f"a baseline needs five seeds or more, and the candidate has fewer of {'; '.join(few)}. It stays as it was."
        )
    folder = folder.resolve()
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    for run in baseline.runs:
        shutil.rmtree(new / run.folder.path.relative_to(folder))
    for run in candidate.runs:
        place = new / run.run_id
        place.mkdir()
        for name in _KEPT:
            shutil.copyfile(run.folder.path / name, place / name)
    old = folder.with_name(f".{folder.name}.old")
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
    return len(candidate.runs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench compare",
        description=(
            "Fail (exit 1) where a measure of the candidate is worse than in the baseline by more than the seeds and cases "
            "explain, or where a cell of the baseline is missing."
        ),
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help="folder of runs, at least two seeds each, better five")
    default = Path("runs")
    parser.add_argument("candidate", type=Path, nargs="?", default=default, metavar="CANDIDATE", help="default: runs")
    names = ", ".join(MEASURES)
    parser.add_argument("--measures", nargs="+", default=["dsc", "mae"], metavar="M", help=f"of {names} (default: dsc mae)")
    parser.add_argument("--protocol", metavar="P", help="which protocol to compare, where the baseline holds several")
    parser.add_argument(
        "--level", type=float, default=LEVEL, metavar="A", help=f"chance of a false alarm in any cell (default: {LEVEL:g})"
    )
    parser.add_argument(
        "--overlays", type=Path, metavar="DIR", help="draw the cases that fell most; needs the masks of the runs"
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of the data sets, for --overlays")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table of all cells as Markdown")
    parser.add_argument("--update", action="store_true", help="make the candidate the new baseline, and say what changed")
    return parser
