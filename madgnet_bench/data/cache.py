"""Decoded and resized cases on disk, memory-mapped: a file is decoded once, not once per epoch or run.

A cache is a file per data set, manifest, size and mask resampling: one entry behind the other, each a header (row, sizes, a
stamp of the case's files, checksums), the image (H, W, C) and the masks as bits. What is written is never changed; a case whose
files have changed is appended anew. What follows from that:

- Processes that fill it at once take turns at a lock, and leave alone what another has stored meanwhile.
- The header is written after what it describes, so a process that is killed leaves no entry behind, never a wrong one. What a
  power failure may leave is found by its checksum, at the first use in each process, and stored again.
- A full disk, a folder that may not be written and the limit of size end the storing, with one message. What is there is still
  used; all else is decoded as without a cache.
- The file is held open. Folders can be removed at any time, also during a training.

The values that a training sees do not depend on it: with and without a cache, cases are 8-bit and resized before anything
random happens. A multi-scale training resizes them again afterwards (see `CaseDataset`), so one cache serves all its rates.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import mmap
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from io import FileIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray

import madgnet_bench.catalog
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.data import transforms
from madgnet_bench.data.transforms import resize_image, resize_mask
from madgnet_bench.errors import DataErrors

try:
    import fcntl
except ModuleNotFoundError:  # no POSIX system: nothing is stored
    fcntl = None  # type: ignore[assignment]

__all__ = ["CACHE_VARIABLE", "SCHEMA_VERSION", "DecodedCache", "DecodedCase", "cache_root", "decode_case"]

CACHE_VARIABLE = "MADGNET_BENCH_CACHE"
"""Environment variable that names the folder of all caches where no argument does."""

SCHEMA_VERSION = 1
"""Version of the layout of the file; caches of another version are left alone."""

_log = logging.getLogger(__name__)

_HEADER = struct.Struct("<4sIIIII32s")
_CHECK = struct.Struct("<I")
_HEADER_BYTES = 64
_MAGIC = b"MBC\x01"


class DecodedCase(NamedTuple):
    """One case at the size of the experiment; the arrays are the receiver's own.

    Attributes:
        image: (H, W, C) uint8.
        mask: (K, H, W) uint8 in {0, 1}, in the order of the card's targets.
        original_size: Size of the reference before it was resized.
        in_order: Whether image and mask had one size, and the image neither NaN nor infinite values.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    original_size: tuple[int, ...]
    in_order: bool = True


class _Entry(NamedTuple):
    """What the header of an entry says, and where its content begins."""

    channels: int
    height: int
    width: int
    checksum: int
    stamp: bytes
    offset: int


def cache_root(folder: str | None = None) -> Path:
    """The folder of all caches: the argument, else what ``MADGNET_BENCH_CACHE`` names, else the user's folder for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(folder or os.environ.get(CACHE_VARIABLE) or os.path.join(base, "madgnet_bench")).expanduser()


def decode_case(
    source: SegmentationDataset, case: Case, *, size: tuple[int, int], mask_resampling: Literal["bilinear", "nearest"]
) -> DecodedCase:
    """Read one case and bring it to a size: the one rule, with a cache and without.

    A float image becomes 8-bit before it is resized.

    Args:
        source: The data set.
        case: A case of its manifest.
        size: Height and width of the result.
        mask_resampling: A protocol's ``mask_resampling``.

    Raises:
        FileProblem: A file cannot be used.
    """
    image, mask = source.read_image(case), source.read_mask(case)
    in_order = image.shape[:-1] == mask.shape[1:] and bool(np.isfinite(image).all())
    resized = resize_mask(mask, size, resampling=mask_resampling)
    return DecodedCase(resize_image(_to_uint8(image), size), resized, mask.shape[1:], in_order)


class DecodedCache:
    """The decoded cases of one data set at one size. Building it touches no file; cases are stored as they are asked for.

    Cases without files, as those of phantoms, are never stored, and neither are cases that are not in order: every stored
    case has passed `SegmentationDataset.check`.

    The files of a case are known by path, size and times of change. Attributes of the data set that are plain values (texts,
    numbers, lists and mappings of these), the code of its class, of the catalog and of the resizing, and the version of Pillow
    are part of a cache's name, also of a data set that it wraps: when one of them changes, another cache is begun.

    Args:
        source: The data set.
        root: Folder of all caches.
        size: Side in pixels to which cases are brought.
        mask_resampling: A protocol's ``mask_resampling``.
        limit_gb: Gigabytes (1e9 bytes) that all caches in ``root`` may fill together; storing ends there.
    """

    def __init__(
        self,
        source: SegmentationDataset,
        root: Path,
        *,
        size: int,
        mask_resampling: Literal["bilinear", "nearest"] = "bilinear",
        limit_gb: float = 20.0,
    ) -> None:
        self.source = source
        self.root = root
        self._size = (size, size)
        self._resampling = mask_resampling
        self._limit = limit_gb * 1e9
        self._stopped = False
        self._lock = threading.RLock()  # of the threads of a process; processes have a lock in the file system
        self._forget()

    @cached_property
    def folder(self) -> Path:
        """Where this cache lies; known with the manifest."""
        digest = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        return self.root / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.source.name)}-{self._size[0]}-{digest[:16]}"

    def read(self, row: int) -> tuple[DecodedCase, bool]:
        """One case, from the cache, or decoded and stored.

        Args:
            row: Row of the data set's manifest.

        Returns:
            The case, and whether the cache holds it now.

        Raises:
            FileProblem: It is not stored, and a file cannot be used.
        """
        if row in self._trusted:
            return self._unpack(self._trusted[row]), True
        case = self.source.manifest.cases[row]
        stamp = self._stamp(case)
        entry = self._find(row, stamp)
        if entry is not None and self._is_sound(entry):
            self._trusted[row] = entry
            return self._unpack(entry), True
        decoded = decode_case(self.source, case, size=self._size, mask_resampling=self._resampling)
        unchanged = stamp is not None and stamp == self._stamp(case)  # else a file was replaced while it was read
        return decoded, unchanged and decoded.in_order and self._store(row, stamp or b"", decoded)

    def holds(self, row: int) -> bool:
        """Whether a case is stored and its files have not changed since; nothing is decoded."""
        return self._find(row, self._stamp(self.source.manifest.cases[row])) is not None

    def fill(self, *, step: Callable[[int, int], None] = lambda done, total: None) -> bool:
        """Decode and store what is missing, on all processors.

        Args:
            step: Called after every missing case with how many are done and how many there are.

        Returns:
            Whether every case is stored, and so is in order. Where that is False, `SegmentationDataset.check` tells what is
            wrong with the files, if it was not the cache.
        """
        try:
            cases = self.source.manifest.cases
        except DataErrors:
            return False
        if self._stamp(cases[0]) is None:
            return False
        missing = [row for row in range(len(cases)) if not self.holds(row)]
        complete = True
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for done, stored in enumerate(pool.map(self._try, missing), start=1):
                complete &= stored
                step(done, len(missing))
        return complete

    def _try(self, row: int) -> bool:
        """Store one case, unless storing has ended or something is wrong with it."""
        try:
            return not self._stopped and self.read(row)[1]
        except FileProblem:
            return False

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What makes this cache another one."""
        manifest = self.source.manifest
        return {
            "schema": SCHEMA_VERSION,
            "dataset": self.source.name,
            "card": self.source.card.name,
            "targets": list(self.source.card.targets),
            "manifest": manifest.sha256,
            "size": list(self._size),
            "mask_resampling": self._resampling,
            "first_file": os.path.abspath(self.source.file(manifest.cases[0].image)),
            **_options(self.source),
            "pillow": PIL.__version__,
        }

    def _stamp(self, case: Case) -> bytes | None:
        """Digest of the paths, sizes and times of change of a case's files; None where it is not made of files."""
        if None in _codes(self._identity):
            return None
        digest = hashlib.sha256(f"{case.image}\n{case.mask}".encode())
        try:
            for part in re.split(r"[;|]", f"{case.image}|{case.mask}"):
                path = Path(self.source.file(part))
                for file in sorted(path.iterdir()) if part.endswith("/") else [path]:
                    status = file.stat()
                    digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
        except OSError:
            return None
        return digest.digest()

    def _forget(self) -> None:
        """Know nothing of the file; it is opened at the next use."""
        self._file: FileIO | None = None
        self._map: mmap.mmap | None = None
        self._end = 0
        self._entries: dict[int, _Entry] = {}
        self._trusted: dict[int, _Entry] = {}
        self._damaged: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        twin = DecodedCache.__new__(DecodedCache)
        twin.__dict__.update(self.__dict__)
        twin._forget()
        del twin._lock
        return twin.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def _find(self, row: int, stamp: bytes | None) -> _Entry | None:
        """The newest entry of a case, if it is of these very files and not known to be damaged."""
        if stamp is None:
            return None
        with self._lock:
            if not self._fits(row, stamp):
                self._look_again()
            return self._entries[row] if self._fits(row, stamp) else None

    def _fits(self, row: int, stamp: bytes) -> bool:
        entry = self._entries.get(row)
        return entry is not None and entry.stamp == stamp and entry.offset not in self._damaged

    def _look_again(self) -> None:
        """Read the headers that were added, by whichever process."""
        try:
            if self._file is None:
                self._file = FileIO(self.folder / "cases.bin")
            end = self._end
            while len(header := os.pread(self._file.fileno(), _HEADER_BYTES, end)) == _HEADER_BYTES:
                magic, row, channels, height, width, checksum, stamp = _HEADER.unpack_from(header)
                if magic != _MAGIC or _CHECK.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
                    break  # not yet written, or the remains of a process that was killed
                entry = _Entry(channels, height, width, checksum, stamp, end + _HEADER_BYTES)
                self._entries[row] = entry
                end = entry.offset + sum(self._lengths(entry))
            self._end = end
        except FileNotFoundError:
            pass
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _lengths(self, entry: _Entry) -> tuple[int, int]:
        """Bytes of image and mask."""
        pixels = math.prod(self._size)
        return pixels * entry.channels, -(-pixels * len(self.source.card.targets) // 8)

    def _content(self, entry: _Entry) -> NDArray[np.uint8]:
        """The bytes of an entry in the memory map; none where the file ends too early."""
        assert self._file is not None  # the entry was read from it
        end = entry.offset + sum(self._lengths(entry))
        if self._map is None or len(self._map) < end:
            size = os.fstat(self._file.fileno()).st_size
            if size < end:
                return np.empty(0, np.uint8)
            self._map = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        return np.frombuffer(self._map, np.uint8, end - entry.offset, entry.offset)

    def _is_sound(self, entry: _Entry) -> bool:
        """Whether the bytes of an entry are those that were written."""
        content = self._content(entry)
        if content.size and zlib.crc32(content.data) == entry.checksum:
            return True
        self._damaged.add(entry.offset)
        return False

    def _unpack(self, entry: _Entry) -> DecodedCase:
        """Copy a case out of the memory map."""
        content, (split, _) = self._content(entry), self._lengths(entry)
        shape = (len(self.source.card.targets), *self._size)
        image = content[:split].reshape(*self._size, entry.channels).copy()
        mask = np.unpackbits(content[split:], count=math.prod(shape)).reshape(shape)
        return DecodedCase(image, mask, (entry.height, entry.width))

    def _store(self, row: int, stamp: bytes, decoded: DecodedCase) -> bool:
        """Append a case, unless storing has ended or ends with it; return whether it is stored."""
        if self._stopped:
            return False
        if fcntl is None:
            self._stop("this system has no file locks")
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileIO(self.folder / "cases.bin", "r+", opener=_create) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                with self._lock:
                    return self._append(file, row, stamp, decoded)
        except OSError as error:
            self._stop(error.strerror or str(error))
            return False

    def _append(self, file: FileIO, row: int, stamp: bytes, decoded: DecodedCase) -> bool:
        """Append a case to the locked file, unless another process has done so."""
        if self._file is not None and not _same(file, self._file):
            self._forget()  # someone has removed the folder, and it begins anew
        found = self._find(row, stamp) is not None
        if found or self._file is None or self._stopped or not _same(file, self._file):
            return found
        if self._end == 0:
            (self.folder / "cache.json").write_text(json.dumps(self._identity, indent=1) + "\n", encoding="utf-8")
        content = decoded.image.tobytes() + np.packbits(decoded.mask).tobytes()
        used = sum(other.stat().st_size for other in self.root.glob("*/cases.bin"))
        if used + _HEADER_BYTES + len(content) > self._limit:
            self._stop(f"its limit of {self._limit / 1e9:g} GB is reached; raise data.cache_gb")
            return False
        sizes = (decoded.image.shape[2], *decoded.original_size)
        header = _HEADER.pack(_MAGIC, row, *sizes, zlib.crc32(content), stamp)
        _write(file, content, self._end + _HEADER_BYTES)
        _write(file, (header + _CHECK.pack(zlib.crc32(header))).ljust(_HEADER_BYTES, b"\0"), self._end)
        return True

    def _stop(self, reason: str) -> None:
        """End the storing, and say so once."""
        if not self._stopped:
            self._stopped = True
            _log.warning(
                "the cache of decoded images takes no more of %s: %s. All goes on without, slower. Folders in %s that are not "
                "needed can be removed; data.cache or %s names another place, data.cache_gb: 0 turns it off.",
                *(self.source.name, reason, self.root, CACHE_VARIABLE),
            )


def _to_uint8(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bring a float image in [0, 1] to 8 bits; pass an 8-bit image on."""
    return (
        np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
        if image.dtype != np.uint8
        else image.astype(np.uint8, copy=False)
    )


def _create(path: str, flags: int) -> int:
    """Open for reading and writing; create what is not there, and keep what is."""
    return os.open(path, flags | os.O_CREAT, 0o644)


def _same(one: FileIO, other: FileIO) -> bool:
    """Whether two open files are one on disk."""
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))


def _write(file: FileIO, content: bytes, offset: int) -> None:
    """Write all of it, or raise what the system says."""
    while content:
        written = os.pwrite(file.fileno(), content, offset)
        content, offset = content[written:], offset + written


def _options(source: SegmentationDataset) -> dict[str, Any]:
    """The plain values and the code of a data set, and those of the data sets that it wraps."""
    attributes = vars(source).items()
    return {
        "options": {name: repr(value) for name, value in attributes if _is_plain(value)},
        "code": _code(type(source)),
        "wrapped": {name: _options(value) for name, value in attributes if isinstance(value, SegmentationDataset)},
    }


def _is_plain(value: object) -> bool:
    """Whether a value says all of itself: None, texts, numbers, and lists, tuples and mappings of these."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _codes(options: dict[str, Any]) -> list[str | None]:
    """The hashes of the code of a data set and of those that it wraps."""
    return [options["code"], *(code for inner in options["wrapped"].values() for code in _codes(inner))]


@cache
def _code(source: type) -> str | None:
    """Hash of the code that decides about pixels: the class of a data set and its bases, the catalog, the resizing.

    None where a class has no file, as one that is written into a notebook: what it does could change unnoticed.
    """
    files = {Path(transforms.__file__), Path(__file__)}
    for folder in madgnet_bench.catalog.__path__:
        files.update(Path(folder).rglob("*.py"))
    digest = hashlib.sha256()
    try:
        files.update(Path(inspect.getfile(base)) for base in source.__mro__ if base.__module__ not in ("builtins", "abc"))
        for file in sorted(files):
            digest.update(file.read_bytes())
    except (TypeError, OSError):
        return None
    return digest.hexdigest()
