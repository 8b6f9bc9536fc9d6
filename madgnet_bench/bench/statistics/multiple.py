"""Many tests at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from madgnet_bench.bench.statistics.scores import Floats
from madgnet_bench.errors import BenchError

__all__ = ["Holm", "holm"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Holm:
    """Adjusted p-values.

    Attributes:
        adjusted: In the order and shape of the input; to be compared with the level as they are.
        rejected: Where the null is rejected.
        level: Probability of rejecting any true null, whichever of them are true and however the tests depend.
    """

    adjusted: Floats
    rejected: NDArray[np.bool_]
    level: float


def holm(pvalues: ArrayLike, *, level: float = 0.05) -> Holm:
    """Correct p-values for their number (Holm 1979): the smallest of m times m, the next times m - 1, and never decreasing.

    >>> [round(float(p), 3) for p in holm([0.01, 0.04, 0.03]).adjusted]
    [0.03, 0.06, 0.06]

    Raises:
        BenchError: A value is not in [0, 1] or not a number.
    """
    values = np.asarray(pvalues, np.float64)
    flat = values.ravel()
    bad = np.flatnonzero(~((flat >= 0) & (flat <= 1)))
    if len(bad):
        raise BenchError(f"p-value {bad[0]} is {flat[bad[0]]}, not in [0, 1]; leave out the tests that could not be made.")
    order = np.argsort(flat, kind="stable")
    factors = np.arange(len(flat), 0, -1)
    corrected = np.empty_like(flat)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(flat[order] * factors))
    adjusted: Floats = corrected.reshape(values.shape)
    return Holm(adjusted=adjusted, rejected=adjusted <= level, level=level)
