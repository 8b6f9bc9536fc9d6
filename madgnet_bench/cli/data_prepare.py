"""``data prepare`` and ``data download``: from the publisher's page to a checked copy in the data root. No torch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.manifest import Manifest, Split
from madgnet_bench.catalog.official import CatalogDataset, find_data_root
from madgnet_bench.catalog.prepare import Prepared, Progress, check_copy, install, manifest_file
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, DataErrors
from madgnet_bench.records import write_atomically

__all__ = ["download", "prepare"]

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Bars(Progress):
    """Lines on standard output; bars on standard error, where that is a terminal."""

    def say(self, text: str) -> None:
        """Print one line."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def bar(self, label: str, total: int | None, *, unit: str, start: int = 0) -> AbstractContextManager[Callable[[int], Any]]:
        """Show a bar; see `Progress.bar`."""
        return _Bar(label, total, unit, start)


class _Bar(AbstractContextManager[Callable[[int], Any]]):
    """A tqdm bar as a context that gives its update function."""

    def __init__(self, label: str, total: int | None, unit: str, start: int) -> None:
        self._options = {"desc": label, "total": total, "initial": start, "unit": unit if unit == "B" else f" {unit}"}
        self._is_bytes = unit == "B"

    def __enter__(self) -> Callable[[int], Any]:
        self._bar = tqdm(**self._options, unit_scale=self._is_bytes, unit_divisor=1024, disable=None, leave=False)
        return self._bar.update

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def prepare(name: str, sources: Sequence[Path], *, data_root: str | None) -> int:
    """Put a data set into the data root, check all of it and write its manifest.

    Raises:
        BenchError: It cannot be used; the message says what to do.
    """
    card = CatalogDataset(name, data_root=data_root).card
    progress = Bars()
    install(name, sources, data_root=data_root, progress=progress)
    prepared = check_copy(name, data_root=data_root, progress=progress)
    file = manifest_file(name, data_root=data_root)
    before = Manifest.from_csv(file, name) if file.is_file() else None
    try:
        write_atomically(file, prepared.manifest.to_csv())
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): make the data root writable.") from None
    sys.stdout.write(_report(card, prepared, before, file, _official(name, data_root)))
    return 0


def download(name: str, *, source: Path | None, data_root: str | None) -> int:
    """Download a data set and prepare it, or tell where to get it; or store the authors' split lists.

    Raises:
        BenchError: The download failed, or there is no direct link: the message names the page, the terms and the next command.
    """
    from madgnet_bench.catalog.download import download_links, download_lists  # `data list` does without requests

    if name == "splits":
        files = download_lists(data_root=data_root, source=source, progress=Bars())
        sys.stdout.write(f"{len(files)} lists, each as released, in {files[0].parents[1]}\n")
        sys.stdout.write("Next: choose `split: official` for a data set of an experiment.\n")
        return 0
    card = CatalogDataset(name, data_root=data_root).card
    if source is not None:
        raise ConfigError(f"--source belongs to `data download splits`; for an archive: `madgnet-bench data prepare {name}`.")
    folder = find_data_root(data_root) / name
    if folder.is_dir():
        sys.stdout.write(f"{folder} is there already; nothing is downloaded.\n")
        return prepare(name, [], data_root=data_root)
    if not card.links:
        raise ConfigError(_by_hand(card, data_root))
    sys.stdout.write(f"{card.title}\nTerms: {card.licence}\nCite: {card.citation}\n")
    files = download_links(card, data_root=data_root, progress=Bars())
    status = prepare(name, files, data_root=data_root)
    sys.stdout.write(f"The archives in {files[0].parent} are not needed any more.\n")
    return status


def _by_hand(card: DataCard, data_root: str | None) -> str:
    """What to do for a set that cannot be downloaded directly."""
    root = f" --data_root {data_root}" if data_root else ""
    verified = "" if card.verified else " (not confirmed against the official archive)"
    return (
        f"{card.name} has no direct download; nothing was downloaded.\n"
        f"  1. visit   {card.url}\n"
        f"  2. terms   {card.licence}\n"
        f"  3. layout  {card.layout}{verified}\n"
        f"  4. run     madgnet-bench data prepare {card.name} --source FOLDER_OR_ARCHIVE{root}"
    )


def _official(name: str, data_root: str | None) -> str:
    """The official split of the copy in one line, or why it has none."""
    dataset = CatalogDataset(name, split="official", data_root=data_root)
    try:
        return _counts(dataset.manifest)
    except DataErrors as error:
        return error.problems[0].problem
    except ConfigError as error:
        return "none" if "has no official split" in str(error) else str(error).removeprefix(f"{name}: ")


def _counts(manifest: Manifest) -> str:
    """Cases per split, as ``7 train, 1 val, 2 test``."""
    splits = Counter(case.split for case in manifest)
    return ", ".join(f"{splits[split]} {split}" for split in _SPLITS)


def _report(card: DataCard, prepared: Prepared, before: Manifest | None, file: Path, official: str) -> str:
    """What a preparation has found, and the next command."""
    manifest, count = prepared.manifest, len(prepared.manifest)
    rows: list[tuple[str, ...]] = [("domain", *_SPLITS, "all")]
    for domain in dict.fromkeys(case.domain for case in manifest):
        splits = Counter(case.split for case in manifest if case.domain == domain)
        rows.append((domain or "-", *(str(splits[split]) for split in _SPLITS), str(splits.total())))
    expected = card.expected_cases
    complete = "complete" if expected is None or count == expected else f"a complete copy has {expected}"
    if expected is not None and count < expected:
        complete += ": this is a part"
    lines = [f"{card.name}: {count} cases ({complete}), every file is sound", align(rows, left=1)]
    lines += [f"Clean split: {_counts(manifest)}", *(f"  {note}" for note in prepared.notes), f"Official split: {official}"]
    lines += [f"Layout: {'' if card.verified else 'not '}confirmed against the official archive", *_changes(before, manifest)]
    lines += [f"Manifest: {file}", f"Next: madgnet-bench data sheet {card.name} --output {card.name}.png"]
    return "\n".join(lines) + "\n"


def _changes(before: Manifest | None, now: Manifest) -> list[str]:
    """What differs from the manifest of an earlier preparation."""
    if before is None or before.sha256 == now.sha256:
        return []
    old, new = ({case.case_id: case for case in manifest} for manifest in (before, now))
    moved = sum(old[key] != new[key] for key in old.keys() & new.keys())
    gone, added = len(old.keys() - new.keys()), len(new.keys() - old.keys())
    return [f"Changed since the last preparation: {added} cases are new, {gone} are gone, {moved} differ in file or split"]
