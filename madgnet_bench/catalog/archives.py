"""Unpacking the archives of data sets: nothing is written outside the folder, nothing is overwritten, nothing is run.

Zip and tar files (also compressed) are read. An archive whose files lie in one outer folder keeps it; any other is unpacked
into a folder of its own name, as most desktops do, so that ``images/`` of two archives do not mix. What macOS and Windows
leave in archives is passed over.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from madgnet_bench.errors import ConfigError

__all__ = ["Archive", "open_archive"]

_CLUTTER = frozenset({"__macosx", ".ds_store", "thumbs.db", "desktop.ini"})
_CHUNK = 2**20
_DAMAGES = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
_UNREADABLE = {
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it (`unar {0}` or `7z x {0}`) and pass the folder as --source"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it (`7z x {0}`) and pass the folder as --source"),
    b"<": ("a web page, not an archive", "download the file itself: log in or accept the terms on the page first"),
}


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its checked path, its size in bytes, and its name as the archive has it."""

    path: PurePosixPath
    size: int
    name: str


@dataclass(frozen=True)
class Archive:
    """What is in an archive, checked and not yet unpacked.

    Attributes:
        path: The archive.
        members: Its files, with the paths that they will have.
    """

    path: Path
    members: tuple[_Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(member.size for member in self.members)

    def unpack(self, folder: Path, *, step: Callable[[int], None] = lambda count: None) -> None:
        """Write the files below a folder.

        Args:
            folder: An existing folder.
            step: Called with the number of bytes written since the last call.

        Raises:
            ConfigError: The archive is damaged, or a file is there already.
        """
        paths = {member.name: member.path for member in self.members}
        with _reading(self.path):
            for name, stream in _contents(self.path, paths.keys()):
                target = folder / paths[name]
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(stream, target, archive=self.path, step=step)


def open_archive(path: Path) -> Archive:
    """List an archive and make sure that it can be unpacked safely.

    Args:
        path: The file.

    Raises:
        ConfigError: It is no zip or tar file, is damaged or encrypted, or holds a link, a device, two files of one name, or a
            name that leads out of the folder.
    """
    with path.open("rb") as stream:
        start = stream.read(512).lstrip()
    for magic, (kind, advice) in _UNREADABLE.items():
        if start.startswith(magic):
            raise ConfigError(f"{path} is {kind}: {advice.format(path.name)}.")
    with _reading(path):
        if _is_zip(path):
            members = list(_zip_members(path))
        elif tarfile.is_tarfile(path):
            members = list(_tar_members(path))
        else:
            raise ConfigError(f"{path} is not a zip or tar archive: download it again, or unpack it and pass the folder.")
    if not members:
        raise ConfigError(f"{path} is empty: download it again.")
    placed = _placed(path, members)
    if len({member.path for member in placed}) < len(placed):
        raise ConfigError(f"{path} holds two files of one name: unpack it yourself and pass the folder as --source.")
    return Archive(path, tuple(placed))


def _is_zip(path: Path) -> bool:
    """Whether a file starts as zip files do; what `zipfile` looks for at the end, a tar file that holds one has too."""
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def _zip_members(path: Path) -> Iterator[_Member]:
    """The files of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir() or _is_clutter(info.filename):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _refusal(path, info.filename, "is a link or a device")
            if info.flag_bits & 1:
                raise _refusal(path, info.filename, "is encrypted")
            yield _Member(_checked(path, info.filename), info.file_size, info.filename)


def _tar_members(path: Path) -> Iterator[_Member]:
    """The files of a tar archive."""
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isdir() or _is_clutter(info.name):
                continue
            if not info.isreg():
                raise _refusal(path, info.name, "is a link or a device")
            yield _Member(_checked(path, info.name), info.size, info.name)


def _is_clutter(name: str) -> bool:
    """Whether an operating system left this file behind."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.lower() in _CLUTTER for part in parts) or (bool(parts) and parts[-1].startswith("._"))


def _checked(archive: Path, name: str) -> PurePosixPath:
    """The path of a file in an archive, which must lie inside of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or not path.parts or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name:
        raise _refusal(archive, name, "leads out of the folder")
    return path


def _refusal(archive: Path, name: str, what: str) -> ConfigError:
    return ConfigError(f"{archive}: {name!r} {what}, so the archive is not unpacked; unpack it yourself and pass the folder.")


def _placed(path: Path, members: list[_Member]) -> list[_Member]:
    """Put the files into a folder of the archive's name, unless they lie in one already."""
    if len({member.path.parts[0] for member in members}) == 1 and all(len(member.path.parts) > 1 for member in members):
        return members
    stem = path.name
    for suffix in (".zip", ".gz", ".tgz", ".bz2", ".xz", ".tar"):
        stem = stem[: -len(suffix)] if stem.lower().endswith(suffix) else stem
    return [_Member(stem / member.path, member.size, member.name) for member in members]


def _contents(path: Path, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Open the named files of an archive one after the other, in its own order."""
    if _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename in names:
                    with archive.open(info) as stream:
                        yield info.filename, stream
        return
    with tarfile.open(path) as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.name in names else None
            if opened is not None:
                yield member.name, opened


def _copy(stream: IO[bytes], target: Path, *, archive: Path, step: Callable[[int], None]) -> None:
    """Write one file, which must be new."""
    try:
        with target.open("xb") as output:
            while chunk := stream.read(_CHUNK):
                output.write(chunk)
                step(len(chunk))
    except FileExistsError:
        raise ConfigError(f"{archive}: {target.name} is in another archive too; pass only one of them.") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged files into one sentence."""
    try:
        yield
    except _DAMAGES as error:
        if isinstance(error, OSError) and error.errno is not None:  # not of the archive, but of the disk
            raise ConfigError(f"{error.filename or path}: {error.strerror}; make room or choose another data root.") from None
        raise ConfigError(f"{path} is truncated or damaged ({error}): download it again.") from None
