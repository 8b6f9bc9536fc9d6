"""``madgnet-bench data``: which data sets are known, which are here, whether every file is sound, how they look. No torch."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset, find_data_root
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, DataErrors, Problem

__all__ = ["main"]

_COLUMNS = ("name", "modality", "targets", "domains", "cases", "licence", "state")


def main(arguments: list[str]) -> int:
    """Run one of list, check and sheet.

    Returns:
        0; wrong data or wrong use raises.

    Raises:
        BenchError: A name is unknown, there is no data root, or files have problems, which the message tabulates.
    """
    options = _parser().parse_args(arguments)
    if options.action == "list":
        return _list(options.data_root)
    datasets = [_dataset(name, options.data_root, options.targets) for name in options.name]
    if options.action == "check":
        return _check(datasets)
    return _sheet(datasets, options.output)


def _parser() -> argparse.ArgumentParser:
    """The options of the three actions."""
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--data_root", help=f"folder that holds a folder per data set (default: ${DATA_ROOT_VARIABLE})")
    parser = argparse.ArgumentParser(prog="madgnet-bench data", description="List, check and show data sets.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", parents=[root], help="what is known of every data set, and whether it is here")
    check = actions.add_parser("check", parents=[root], help="decode every file and report all that is wrong")
    sheet = actions.add_parser("sheet", parents=[root], help="draw a contact sheet with the outlines of the references")
    for action in (check, sheet):
        action.add_argument(
            "name",
            nargs="+",
            metavar="NAME",
            help="a data set, such as dsb2018, a domain, such as dsb2018/he, or your own folder of images/ and masks/",
        )
        action.add_argument(
            "--targets", nargs="+", default=["lesion"], metavar="T", help="targets of an own folder (default: lesion)"
        )
    sheet.add_argument("--output", type=Path, required=True, metavar="FILE.png", help="where to write the sheet")
    return parser


def _dataset(name: str, data_root: str | None, targets: Sequence[str]) -> SegmentationDataset:
    """The data set that a name with an optional domain, or a folder, stands for."""
    dataset, _, domain = name.partition("/")
    if dataset not in READERS and Path(name).is_dir():
        return FolderDataset(name, targets=tuple(targets))
    return CatalogDataset(dataset, domain=domain or None, data_root=data_root)


def _list(data_root: str | None) -> int:
    """Print one row per known data set."""
    try:
        root = find_data_root(data_root)
        footer = f"Data root: {root}" + ("" if root.is_dir() else " (there is no such folder)")
    except ConfigError:
        root, footer = None, f"No data root: pass --data_root FOLDER, or set {DATA_ROOT_VARIABLE}."
    rows = [_row(reader.card, root) for _, reader in sorted(READERS.items())]
    sys.stdout.write(f"{align([_COLUMNS, *rows])}\n{footer}\nCases are found / in the full set; a subset is fine.\n")
    return 0


def _row(card: DataCard, root: Path | None) -> tuple[str, ...]:
    """What the list shows of one data set."""
    found, state = "-", "missing"
    if root is not None and (root / card.name).is_dir():
        cases, problems = CatalogDataset(card.name, data_root=str(root)).scan()
        found = str(len(cases))
        state = f"incomplete: see data check {card.name}" if problems or not cases else "have it"
    expected = "?" if card.expected_cases is None else str(card.expected_cases)
    licence = card.licence.partition(";")[0]
    domains = ", ".join(card.domains) or "-"
    return card.name, card.modality, ", ".join(card.targets), domains, f"{found} / {expected}", licence, state


def _check(datasets: Sequence[SegmentationDataset]) -> int:
    """Decode everything; one line per sound data set, one table of all problems."""
    problems: list[Problem] = []
    unsound: list[str] = []
    for dataset in datasets:
        start = time.perf_counter()
        found = dataset.check()
        if found:
            problems += found
            unsound.append(dataset.name)
            continue
        splits = Counter(case.split for case in dataset.manifest)
        counts = ", ".join(f"{splits[split]} {split}" for split in ("train", "val", "test"))
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{dataset.name}: {len(dataset.manifest)} cases ({counts}), all sound, {seconds:.1f} s\n")
    if problems:
        raise DataErrors(", ".join(unsound), problems)
    return 0


def _sheet(datasets: Sequence[SegmentationDataset], output: Path) -> int:
    """Draw and write a contact sheet."""
    from madgnet_bench.catalog.contact_sheet import contact_sheet  # draws with scipy, which list and check do without

    if output.suffix.lower() != ".png":
        raise ConfigError(f"--output must end in .png, not {output.name!r}.")
    picture = contact_sheet(datasets, cases=6, side=128)
    output.parent.mkdir(parents=True, exist_ok=True)
    picture.save(output)
    sys.stdout.write(f"Written: {output}\n")
    return 0
