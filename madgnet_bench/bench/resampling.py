"""Bootstrap intervals over cases, resampled by group, paired over runs, and kept beside the case table. No pandas.

Cases of one patient, video or volume are not independent, so whole groups are drawn, with replacement, as many as there are.
A replicate is the mean over the cases of the drawn groups. Which groups replicate b draws depends on nothing but the name of
the data set and the identifiers of its groups. All runs on the same cases share their draws, so that

- the mean over seeds of the replicates is the replicate of the mean over seeds,
- the difference of two models' replicates is the replicate of their difference, and
- targets of one data set, which share their cases, are resampled together.

The replicates of a run stand in ``replicates.npz`` beside ``cases.csv``, whose sha256 it names. It only saves time: where it
is absent or stale, the same numbers are computed from the case table.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.bench.cases import read_table
from madgnet_bench.errors import RunError
from madgnet_bench.protocol import MEASURES
from madgnet_bench.records import RunFolder, write_atomically

__all__ = [
    "REPLICATES",
    "CellKey",
    "Replicates",
    "interval",
    "read_all_replicates",
    "read_replicates",
    "replicates",
    "weights_key",
    "write_replicates",
]

REPLICATES = 2000
"""Number of replicates B."""

CellKey = tuple[str, str, str, str]
"""Setting, data set, target and protocol of a cell."""

_SCHEME = "groups-pcg64-2000-1"
"""Names how the draws are made; stored replicates of another scheme are stale."""

_DRAWS = 1 << 20
"""Draws that are held in memory at once."""

_FILE = "replicates.npz"


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """The bootstrap of one cell.

    Attributes:
        mean: The mean over its cases.
        values: (`REPLICATES`,) float64, the means over the cases of the drawn groups.
        groups: Number of groups.
        key: Names the draws; equal keys are paired replicate by replicate.
    """

    mean: float
    values: NDArray[np.float64]
    groups: int
    key: str


def weights_key(dataset: str, groups: Iterable[str]) -> str:
    """Name the draws of a data set: a hash of its name and the sorted identifiers of its groups."""
    text = "\0".join([_SCHEME, dataset, *sorted(set(groups))])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def replicates(sums: NDArray[np.float64], counts: NDArray[np.int64], key: str) -> NDArray[np.float64]:
    """Resample groups and average.

    Raw 64-bit integers of PCG64, seeded with the key, are scaled to group indices by their upper halves (u * G >> 32; the
    bias is below G / 2^32). NumPy keeps that stream between versions, which it does not promise of its distributions.

    Args:
        sums: (G,) or (G, M) sums over the cases of each group, in the order of the sorted group identifiers.
        counts: (G,) numbers of cases of each group, at least 1.
        key: What `weights_key` returns.

    Returns:
        (B,) or (B, M): sum over the drawn groups of ``sums``, divided by that of ``counts``.
    """
    columns = np.column_stack([sums, counts]).astype(np.float64)
    groups = len(columns)
    stream = np.random.PCG64(int(key, 16))
    at_once = max(1, _DRAWS // groups)
    parts = []
    for start in range(0, REPLICATES, at_once):
        drawn = min(at_once, REPLICATES - start)
        raw = stream.random_raw(drawn * groups).astype(np.uint64)
        index = (((raw >> np.uint64(32)) * np.uint64(groups)) >> np.uint64(32)).astype(np.int64)
        index += np.repeat(np.arange(drawn) * groups, groups)
        weights = np.bincount(index, minlength=drawn * groups).reshape(drawn, groups)
        parts.append(weights.astype(np.float64) @ columns)
    totals = np.concatenate(parts)
    means: NDArray[np.float64] = totals[:, :-1] / totals[:, -1:]
    return means[:, 0] if sums.ndim == 1 else means


def interval(replicates: NDArray[np.float64], groups: int, *, level: float = 0.95) -> tuple[float, float] | None:
    """The expanded percentile interval of a bootstrap distribution.

    The percentile interval is too narrow for few groups: the bootstrap's variance is short of the factor n / (n - 1), and it
    reads normal in place of t quantiles. Both are mended by reading the percentiles alpha' and 1 - alpha' with
    ``alpha' = Phi(-sqrt(n / (n - 1)) * t)``, where t is the 1 - (1 - level) / 2 quantile of Student's t with n - 1 degrees
    of freedom (Hesterberg 2015, What Teachers Should Know About the Bootstrap, The American Statistician 69(4), 371-386).
    With two or three groups these are the least and the greatest replicate, which is as wide as a bootstrap gets, and still
    too narrow.

    Args:
        replicates: (B,) float64.
        groups: Number n of groups that were resampled; of a combination, the least of them, which is cautious.
        level: Wanted coverage.

    Returns:
        Lower and upper end; None below two groups, whose spread is unknown.

    >>> low, high = interval(np.arange(2001) / 2000, 50)
    >>> f"{low:.4f} {high:.4f}"
    '0.0212 0.9788'
    """
    if groups < 2:
        return None
    tail = _tail(groups, level)
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=1024)
def _tail(groups: int, level: float) -> float:
    """The level alpha' of `interval`."""
    quantile = _student_quantile(1 - (1 - level) / 2, groups - 1)
    return 0.5 * math.erfc(math.sqrt(groups / (groups - 1)) * quantile / math.sqrt(2))


def _student_quantile(probability: float, freedom: int) -> float:
    """Invert Student's distribution function by bisection; ``probability`` lies in (0.5, 1).

    SciPy has it too, at a third of the time that a leaderboard takes.
    """
    low, high = 0.0, 1.0
    while _student(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _student(t: float, freedom: int) -> float:
    """Student's distribution function at t >= 0 for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    square = math.cos(angle) ** 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for number in range(freedom // 2):
        total += term
        term *= square * (2 * number + 1 + odd) / (2 * number + 2 + odd)
    area = (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
    return 0.5 + area / 2


def write_replicates(folder: RunFolder) -> Path:
    """Compute the replicates of every cell and measure of a run and keep them beside its case table.

    Returns:
        The file: a ``.npz`` without compression, of which `read_replicates` reads the member of one measure. Members:
        ``scheme``, ``cases_sha256``; ``cells`` (C, 4), ``groups`` (C,) and ``keys`` (C,); and by measure (C, 1 + B) float32,
        the mean, then the replicates.

    Raises:
        RunError: The case table is missing or damaged; see `madgnet_bench.bench.cases.read_table`.
    """
    sha256 = _sha256(folder)
    cells = _sums(folder, None)
    names = list(next(iter(cells.values())).names)
    table = [_resample(cell) for cell in cells.values()]
    content: dict[str, Any] = {
        "scheme": _SCHEME,
        "cases_sha256": sha256,
        "cells": np.array(list(cells), dtype=np.str_),
        "groups": np.array([len(cell.counts) for cell in cells.values()]),
        "keys": np.array([cell.key for cell in cells.values()]),
        **{name: np.stack([values[:, place] for values in table]) for place, name in enumerate(names)},
    }
    stream = io.BytesIO()
    np.savez(stream, **content)
    path = folder.path / _FILE
    write_atomically(path, stream.getvalue())
    return path


def read_replicates(folder: RunFolder, measure: str) -> dict[CellKey, Replicates]:
    """Read, or compute where there are none that belong to the case table, the replicates of every cell of a run.

    Args:
        folder: The run folder.
        measure: A key of `madgnet_bench.protocol.MEASURES`.

    Returns:
        By cell; nothing where the measure is pooled and so no mean over cases.

    Raises:
        RunError: The case table is missing or damaged, or does not hold the measure.
    """
    return read_all_replicates([folder], measure)[0]


def read_all_replicates(
    folders: Sequence[RunFolder], measure: str, *, sha256: Sequence[str] = ()
) -> list[dict[CellKey, Replicates]]:
    """`read_replicates` of several runs; what must be computed is drawn once per data set.

    Args:
        folders: The run folders.
        measure: A key of `madgnet_bench.protocol.MEASURES`.
        sha256: Of the case tables, in the same order, where they have just been hashed.
    """
    if MEASURES[measure].pooled:
        return [{} for _ in folders]
    hashes = sha256 or [_sha256(folder) for folder in folders]
    found = [_stored(folder, measure, known) for folder, known in zip(folders, hashes, strict=True)]
    missing = [_sums(folder, measure) if known is None else {} for folder, known in zip(folders, found, strict=True)]
    computed = iter(_compute(missing))
    return [next(computed) | (known or {}) for known in found]


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Sums over the cases of each group of a cell: (G, M), and their numbers (G,)."""

    names: Sequence[str]
    sums: NDArray[np.float64]
    counts: NDArray[np.int64]
    key: str


def _sums(folder: RunFolder, measure: str | None) -> dict[CellKey, _Sums]:
    """Add up the cases of each group of every cell."""
    table = read_table(folder, None if measure is None else [measure])
    names = [name for name in table.columns if name in MEASURES]
    cells: dict[CellKey, _Sums] = {}
    for cell, rows in table.groupby(["setting", "dataset", "target", "protocol"]):
        values = rows[names].to_numpy(dtype=np.float64)
        groups, place = np.unique(rows["group_id"].to_numpy(dtype=object), return_inverse=True)
        sums = np.zeros((len(groups), len(names)))
        np.add.at(sums, place, values)
        setting, dataset, target, protocol = map(str, cell)
        key = weights_key(dataset, groups)
        cells[setting, dataset, target, protocol] = _Sums(names=names, sums=sums, counts=np.bincount(place), key=key)
    return cells


def _resample(cell: _Sums) -> NDArray[np.float32]:
    """The mean, then the replicates: (1 + B, M)."""
    mean = cell.sums.sum(axis=0, keepdims=True) / cell.counts.sum()
    return np.concatenate([mean, replicates(cell.sums, cell.counts, cell.key)]).astype(np.float32)


def _compute(tables: Sequence[Mapping[CellKey, _Sums]]) -> list[dict[CellKey, Replicates]]:
    """Resample the cells of several runs, those that share their groups at once."""
    shared: dict[tuple[str, bytes], list[tuple[int, CellKey, _Sums]]] = {}
    for run, table in enumerate(tables):
        for name, cell in table.items():
            shared.setdefault((cell.key, cell.counts.tobytes()), []).append((run, name, cell))
    found: list[dict[CellKey, Replicates]] = [{} for _ in tables]
    for members in shared.values():
        first = members[0][2]
        together = _Sums(
            names=first.names,
            sums=np.concatenate([cell.sums for _, _, cell in members], axis=1),
            counts=first.counts,
            key=first.key,
        )
        for (run, name, cell), column in zip(members, _resample(together).T, strict=True):
            found[run][name] = _replicates(column, len(cell.counts), cell.key)
    return found


def _replicates(column: NDArray[np.float32], groups: int, key: str) -> Replicates:
    values = column.astype(np.float64)
    return Replicates(mean=float(values[0]), values=values[1:], groups=groups, key=key)


def _stored(folder: RunFolder, measure: str, sha256: str) -> dict[CellKey, Replicates] | None:
    """What `write_replicates` wrote; None where it is absent, damaged or stale."""
    try:
        with np.load(folder.path / _FILE, allow_pickle=False) as stored:
            if str(stored["scheme"]) != _SCHEME or str(stored["cases_sha256"]) != sha256:
                return None
            table = stored[measure]
            cells, groups, keys = (stored[name] for name in ("cells", "groups", "keys"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # the case table is the truth, and is read then
    return {
        (str(cell[0]), str(cell[1]), str(cell[2]), str(cell[3])): _replicates(column, int(number), str(key))
        for cell, number, key, column in zip(cells, groups, keys, table, strict=True)
    }


def _sha256(folder: RunFolder) -> str:
    try:
        with folder.cases_file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise RunError(f"{folder.cases_file}: no case table; the run was interrupted. Start it again to finish it.") from None
