"""Preparing a data set: from the archive or folder that a user has to a checked copy in the data root, and its manifest.

An archive is unpacked into the data root, first under another name, so that a copy that is there is complete. A folder stays
where it is, and the data root gets a symbolic link to it. What is in the data root already is never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madgnet_bench.catalog.archives import Archive, open_archive
from madgnet_bench.catalog.manifest import Manifest
from madgnet_bench.catalog.official import READERS, CatalogDataset, find_data_root
from madgnet_bench.catalog.readers.base import Reader
from madgnet_bench.errors import ConfigError, DataErrors, Problem

__all__ = ["Prepared", "Progress", "check_copy", "find_layout", "install", "locked", "manifest_file"]

_DEPTH = 3
_MOST_FOLDERS = 2000
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")


class Progress:
    """Where long work tells how far it is; this one is silent."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def bar(self, label: str, total: int | None, *, unit: str, start: int = 0) -> AbstractContextManager[Callable[[int], Any]]:
        """Show a bar while the context is open.

        Args:
            label: What is done.
            total: How many units there are, where that is known.
            unit: ``B`` for bytes, or a noun.
            start: How many are done already.

        Returns:
            The context gives a function that takes how many units were done since the last call.
        """
        return nullcontext(lambda count: None)


@dataclass(frozen=True)
class Prepared:
    """A checked copy.

    Attributes:
        manifest: Its cases, with the clean split.
        folder: Where it lies.
        notes: What is remarkable about its split.
    """

    manifest: Manifest
    folder: Path
    notes: tuple[str, ...]


def manifest_file(name: str, *, data_root: str | None) -> Path:
    """Where the manifest of a prepared data set lies: ``manifests/<name>.csv`` in the data root.

    Raises:
        ConfigError: No data root is given.
    """
    return find_data_root(data_root) / "manifests" / f"{name}.csv"


def install(name: str, sources: Sequence[Path], *, data_root: str | None, progress: Progress | None = None) -> Path:
    """Put a data set into the data root, unless it is there.

    Args:
        name: Name of the data set.
        sources: Archives as downloaded, or folders; several where a set comes in parts. None where it is there already.
        data_root: As in `CatalogDataset`.
        progress: Told what is done.

    Returns:
        The folder of the data set in the data root.

    Raises:
        ConfigError: There is neither a copy nor a source, a source is missing or cannot be unpacked, the disk is too small,
            or the official layout is found in no folder of them, or in several.
        DataErrors: The layout is not there; the problems say what it lacks.
    """
    progress = progress or Progress()
    root = find_data_root(data_root)
    target = root / name
    if os.path.lexists(target):
        if not target.is_dir():
            raise ConfigError(f"{target} is not a folder, or a link to nowhere: move it away, then prepare again.")
        if sources and not _is_link_into(target, sources):
            progress.say(f"{target} is there already and stays as it is; to unpack the source again, move it away first.")
        return target
    if not sources:
        raise ConfigError(
            f"{name} is not in {root}: pass --source FOLDER_OR_ARCHIVE (more than one where it comes in parts), "
            f"or see `madgnet-bench data download {name}`."
        )
    for source in sources:
        if not source.exists():
            raise ConfigError(f"{source}: there is no such file or folder.")
    root.mkdir(parents=True, exist_ok=True)
    reader = READERS[name]
    if len(sources) == 1 and sources[0].is_dir():
        found = find_layout(reader, sources[0])
        _link(target, found)
        progress.say(f"Linked: {target} -> {found.resolve()}")
    else:
        _assemble(reader, sources, target, progress=progress)
    return target


def find_layout(reader: Reader, folder: Path) -> Path:
    """Find the folder that is in the official layout: a given one, or one at most three levels below it.

    Raises:
        ConfigError: Several folders of one level are.
        DataErrors: None is; the problems are those of the given folder.
    """
    level = [folder]
    for _ in range(_DEPTH + 1):
        found = [place for place in level if reader.list_entries(place)[0]]
        if len(found) > 1:
            raise ConfigError(f"{found[0]} and {found[1]} are both a copy of {reader.card.name}: pass one as --source.")
        if found:
            return found[0]
        level = [inner for place in level for inner in _folders(place)][:_MOST_FOLDERS]
    problems = reader.list_entries(folder)[1] or [Problem(str(folder), "holds no case", f"layout: {reader.card.layout}")]
    inner = [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(_ARCHIVES)][:5]
    problems += [Problem(str(path), "an archive inside the source", "unpack it and pass it as --source too") for path in inner]
    raise DataErrors(f"{reader.card.name} (layout: {reader.card.layout})", problems)


def check_copy(name: str, *, data_root: str | None, progress: Progress | None = None) -> Prepared:
    """Decode every file of a copy in the data root.

    Args:
        name: Name of the data set.
        data_root: As in `CatalogDataset`.
        progress: Told what is done.

    Raises:
        DataErrors: With one row for everything that is wrong.
    """
    dataset = CatalogDataset(name, data_root=data_root)
    with ExitStack() as stack:
        bars: list[Callable[[int], Any]] = []

        def step(done: int, total: int) -> None:
            if not bars:  # the number of cases is known once they are listed
                bars.append(stack.enter_context((progress or Progress()).bar(f"check {name}", total, unit="case")))
            bars[0](1)

        problems = dataset.check(step=step)
    if problems:
        raise DataErrors(f"{name} in {dataset.folder}", problems, outcome="no manifest was written")
    return Prepared(dataset.manifest, dataset.folder, dataset.notes)


def _assemble(reader: Reader, sources: Sequence[Path], target: Path, *, progress: Progress) -> None:
    """Unpack archives and link folders side by side, and give the folder its name once it is complete."""
    archives = [open_archive(source) for source in sources if not source.is_dir()]
    _check_room(archives, target.parent, progress)
    with _partial_folder(target.with_name(f"{target.name}.partial")) as partial:
        for folder in [source for source in sources if source.is_dir()]:
            _link(partial / folder.resolve().name, folder)
        with progress.bar(f"unpack {target.name}", sum(a.size for a in archives), unit="B") as bar:
            for archive in archives:
                archive.unpack(partial, step=bar)
        found = _find_in_partial(reader, partial, label=" + ".join(source.name for source in sources))
        if not found.resolve().is_relative_to(partial.resolve()):
            raise ConfigError(f"{found.resolve()} alone is in the official layout: pass it as the only --source.")
        left_out = sum(len(files) for _, _, files in os.walk(partial)) - sum(len(files) for _, _, files in os.walk(found))
        os.rename(found, target)
    progress.say(f"Unpacked: {target}")
    if left_out:
        progress.say(f"Left out: {left_out} files that lie outside of {found.name}/ in the archive")


def _find_in_partial(reader: Reader, partial: Path, *, label: str) -> Path:
    """`find_layout` in a folder that is going to be removed: messages name the sources instead."""
    try:
        return find_layout(reader, partial)
    except DataErrors as error:
        problems = [Problem(p.file.replace(str(partial), label), p.problem, p.fix) for p in error.problems]
        raise DataErrors(error.where, problems) from None
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(partial), label)) from None


def _check_room(archives: Sequence[Archive], root: Path, progress: Progress) -> None:
    """State the size of what will be unpacked, and refuse it where the disk is too small."""
    files, size, free = sum(len(a.members) for a in archives), sum(a.size for a in archives), shutil.disk_usage(root).free
    progress.say(f"To unpack: {files} files, {size / 2**20:,.1f} MiB; free in {root}: {free / 2**20:,.0f} MiB")
    if size > free:
        raise ConfigError(f"{root} has room for {free / 2**20:,.0f} MiB, needed are {size / 2**20:,.0f} MiB: make room.")


@contextmanager
def _partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder for one process, removed afterwards; what a killed process left in it goes first.

    Raises:
        ConfigError: Another process is at it.
    """
    path.mkdir(exist_ok=True)
    with locked(path):
        try:
            for leftover in path.iterdir():
                _remove(leftover)
            yield path
        finally:
            if path.exists():
                _remove(path)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes; where the file system knows no locks, nothing is locked.

    Raises:
        ConfigError: Another process has locked it.
    """
    import fcntl  # not on Windows; only here, so that all else runs there

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(f"{folder}: another process is working on it; wait until it is done.") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link without what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _link(link: Path, folder: Path) -> None:
    """Link to a folder."""
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except FileExistsError:
        raise ConfigError(f"two sources are named {link.name}: rename one of them.") from None
    except OSError as error:
        raise ConfigError(
            f"{link}: no link to {folder} can be made ({error.strerror}); move or copy the folder there yourself."
        ) from None


def _is_link_into(target: Path, sources: Sequence[Path]) -> bool:
    """Whether the data root already points to the one source."""
    return len(sources) == 1 and sources[0].is_dir() and target.resolve().is_relative_to(sources[0].resolve())


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that may hold the data set."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
