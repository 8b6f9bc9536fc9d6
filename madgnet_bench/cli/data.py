"""``madgnet-bench data``: which data sets are known, which are here, whether every file is sound, how they look. No torch.

Getting a data set, `data prepare` and `data download`, stands in `cli.data_prepare`.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset, find_data_root
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS
from madgnet_bench.catalog.prepare import manifest_file
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, TEST_ONLY
from madgnet_bench.catalog.splits import CLEAN_RULE
from madgnet_bench.cli import audit, profile
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, DataErrors, Problem

__all__ = ["main"]

_COLUMNS = ("name", "modality", "targets", "cases", "terms", "state")
_TERMS_WIDTH = 32


def main(arguments: list[str]) -> int:
    """Run one of list, download, prepare, check, audit, profile and sheet.

    Returns:
        0, or 1 where an audit finds a rule broken; wrong data or wrong use raises.

    Raises:
        BenchError: A name is unknown, there is no data root, files have problems, which the message tabulates, or a set must
            be downloaded by hand, which the message explains.
    """
    options = _parser().parse_args(arguments)
    if options.action == "list":
        return _list(options.data_root) if options.name is None else _card(options.name, options.data_root)
    if options.action in ("download", "prepare"):
        from madgnet_bench.cli import data_prepare  # draws bars with tqdm, which list does without

        if options.action == "prepare":
            return data_prepare.prepare(options.name, options.source, data_root=options.data_root)
        return data_prepare.download(options.name, source=options.source, data_root=options.data_root)
    if options.action == "audit":
        return audit.run(options, lambda name: _dataset(name, options.data_root, options.targets, split=options.split))
    if options.action == "profile":
        return profile.run(options, lambda name: _dataset(name, options.data_root, options.targets))
    datasets = [_dataset(name, options.data_root, options.targets) for name in options.name]
    if options.action == "check":
        return _check(datasets)
    return _sheet(datasets, options.output)


def _parser() -> argparse.ArgumentParser:
    """The options of all actions."""
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--data_root", help=f"folder that holds a folder per data set (default: ${DATA_ROOT_VARIABLE})")
    parser = argparse.ArgumentParser(prog="madgnet-bench data", description="List, get, check and show data sets.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_list(actions, root)
    _add_download(actions, root)
    _add_prepare(actions, root)
    check = actions.add_parser("check", parents=[root], help="decode every file and report all that is wrong")
    sheet = actions.add_parser("sheet", parents=[root], help="draw a contact sheet with the outlines of the references")
    auditing = actions.add_parser("audit", parents=[root], help=audit.SUMMARY, description=audit.SUMMARY)
    audit.add_options(auditing)
    profiling = actions.add_parser("profile", parents=[root], help=profile.SUMMARY, description=profile.SUMMARY)
    profile.add_options(profiling)
    for action in (check, sheet, auditing, profiling):
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


def _add_list(actions: Any, root: argparse.ArgumentParser) -> None:
    action = actions.add_parser(
        "list", parents=[root], help="what is known of every data set, or of one, and whether it is here"
    )
    action.add_argument("name", nargs="?", metavar="NAME", help="print the whole card of this data set")


def _add_download(actions: Any, root: argparse.ArgumentParser) -> None:
    summary = "download a data set and prepare it, or say where to get it; `splits` gets the authors' split lists"
    action = actions.add_parser("download", parents=[root], help=summary, description=summary)
    action.add_argument("name", metavar="NAME", help="a data set, or splits")
    checkout = "for splits: a checkout of the authors' repository, instead of the network"
    action.add_argument("--source", type=Path, metavar="CHECKOUT", help=checkout)


def _add_prepare(actions: Any, root: argparse.ArgumentParser) -> None:
    summary = "unpack or link a data set as downloaded, check every file, write its manifest"
    action = actions.add_parser("prepare", parents=[root], help=summary, description=summary)
    action.add_argument("name", metavar="NAME", help="a data set")
    sources = "archive or folder; several where a set comes in parts; none where it is in the data root already"
    action.add_argument("--source", type=Path, nargs="+", action="extend", default=[], metavar="PATH", help=sources)


def _dataset(
    name: str, data_root: str | None, targets: Sequence[str], *, split: Literal["clean", "official"] = "clean"
) -> SegmentationDataset:
    """The data set that a name with an optional domain, or a folder, stands for."""
    dataset, _, domain = name.partition("/")
    if dataset not in READERS and Path(name).is_dir():
        return FolderDataset(name, targets=tuple(targets))
    return CatalogDataset(dataset, domain=domain or None, split=split, data_root=data_root)


def _list(data_root: str | None) -> int:
    """Print one row per known data set."""
    root, footer = _find_root(data_root)
    cards = [reader.card for _, reader in sorted(READERS.items())]
    direct = ", ".join(card.name for card in cards if card.links)
    lines = [
        align([_COLUMNS, *(_row(card, root) for card in cards)]),
        "",
        footer,
        *textwrap.wrap(f"data download NAME gets: {direct}; for the others it says where.", 120),
        "data list NAME prints a whole card. Cases are prepared / in the full set; a subset is fine.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _find_root(data_root: str | None) -> tuple[Path | None, str]:
    """The data root, if there is one, and a line that tells it."""
    try:
        root = find_data_root(data_root)
    except ConfigError:
        return None, f"No data root: pass --data_root FOLDER, or set {DATA_ROOT_VARIABLE}."
    return root, f"Data root: {root}" + ("" if root.is_dir() else " (there is no such folder)")


def _row(card: DataCard, root: Path | None) -> tuple[str, ...]:
    """What the list shows of one data set."""
    found, state = _state(card.name, root)
    expected = "?" if card.expected_cases is None else str(card.expected_cases)
    more = f" +{len(card.targets) - 2}" if len(card.targets) > 2 else ""
    targets = ", ".join(card.targets[:2]) + more
    terms = textwrap.shorten(card.licence.partition(";")[0], _TERMS_WIDTH, placeholder=" ...")
    return card.name, card.modality, targets, f"{found} / {expected}", terms, state + ("" if card.verified else ", unverified")


def _state(name: str, root: Path | None) -> tuple[str, str]:
    """How many cases are prepared, and whether a data set is missing, here, or prepared. Nothing is listed or decoded."""
    if root is None or not (root / name).is_dir():
        return "-", "missing"
    file = manifest_file(name, data_root=str(root))
    if not file.is_file():
        return "-", "have it"
    return str(file.read_bytes().count(b"\n") - 1), "prepared"


def _card(name: str, data_root: str | None) -> int:
    """Print everything that is known of one data set."""
    card = CatalogDataset(name).card
    rows = [*_fields(card, _find_root(data_root)[0]), *_split_fields(card)]
    rows += [("beware" if number == 0 else "", trap) for number, trap in enumerate(card.traps)]
    for label, text in rows:
        lines = textwrap.wrap(text, 108, break_long_words=False, break_on_hyphens=False)
        sys.stdout.write(f"{label:<10}" + f"\n{'':<10}".join(lines) + "\n")
    return 0


def _fields(card: DataCard, root: Path | None) -> list[tuple[str, str]]:
    """What a set is and where it is, as labels and texts."""
    found, state = _state(card.name, root)
    verified = "confirmed against the official archive" if card.verified else "unverified: not confirmed against the archive"
    nested = "".join(f"; {inner} lies in {outer}" for inner, outer in card.containment)
    expected = "?" if card.expected_cases is None else str(card.expected_cases)
    return [
        ("title", card.title),
        ("state", state if root is None or state == "missing" else f"{state}: {root / card.name}"),
        ("modality", card.modality),
        ("targets", ", ".join(card.targets) + nested),
        ("domains", ", ".join(card.domains) or "-"),
        ("cases", f"{found} / {expected} (prepared / in the full set)"),
        ("page", card.url),
        ("download", f"madgnet-bench data download {card.name}" if card.links else "by hand, from the page"),
        ("terms", card.licence),
        ("cite", card.citation),
        ("layout", f"{card.layout} ({verified})"),
    ]


def _split_fields(card: DataCard) -> list[tuple[str, str]]:
    """How a set is split, as labels and texts."""
    rows = [("splits", card.split_rule)]
    if card.name in OFFICIAL_LISTS:
        cases: Counter[str] = Counter()
        for item in OFFICIAL_LISTS[card.name]:
            cases[item.split] += item.rows
        counts = ", ".join(f"{count:,} {split}" for split, count in cases.items())
        rows.append(("official", f"the lists that MADGNet released (data download splits): {counts}"))
    if not card.split_rule.startswith((SPLIT_BY_GROUP, TEST_ONLY)):
        rows.append(("clean", CLEAN_RULE))
    return rows


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
