"""The scores that two models are compared by, checked once, and what every test says about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from madgnet_bench.errors import BenchError

__all__ = ["Floats", "PairedScores", "PairedTest"]

Floats = NDArray[np.float64]


class PairedScores:
    """One measure of two models on the same cases of one data set and target.

    Runs of the two models are not paired: seed 1 of one has nothing to do with seed 1 of the other.

    Args:
        a: (runs, cases) scores of the first model, one row per training run; rows are averaged with equal weight.
        b: (runs, cases) scores of the second model on the same cases in the same order; it may have another number of runs.
        groups: (cases,) group of each case: patient, video or volume. Cases of one group are not independent.

    Raises:
        BenchError: Shapes do not fit, a score is not finite, or there is no case.
    """

    def __init__(self, a: ArrayLike, b: ArrayLike, groups: ArrayLike) -> None:
        self.a: Floats = np.asarray(a, np.float64)
        self.b: Floats = np.asarray(b, np.float64)
        self.groups: NDArray[Any] = np.asarray(groups)
        for name, scores in (("a", self.a), ("b", self.b)):
            if scores.ndim != 2 or 0 in scores.shape:
                raise BenchError(f"scores of model {name} have shape {scores.shape}; give (runs, cases), both at least 1.")
            bad = np.argwhere(~np.isfinite(scores))
            if len(bad):
                run, case = bad[0]
                raise BenchError(
                    f"scores of model {name}: {len(bad)} of {scores.size} are not finite, first run {run}, case {case} "
                    f"({scores[run, case]}); leave the case out for both models, or choose a measure that is always defined."
                )
        if self.a.shape[1] != self.b.shape[1] or self.groups.shape != self.a.shape[1:]:
            raise BenchError(
                f"model a has {self.a.shape[1]} cases, model b {self.b.shape[1]}, and there are {self.groups.size} names of "
                "groups; a paired comparison needs the same cases in the same order."
            )

    @cached_property
    def _group_index(self) -> NDArray[np.intp]:
        return np.unique(self.groups, return_inverse=True)[1].reshape(-1)

    @cached_property
    def group_sizes(self) -> NDArray[np.intp]:
        """(groups,) cases in each group, groups in sorted order."""
        return np.bincount(self._group_index).astype(np.intp)

    @property
    def runs(self) -> tuple[int, int]:
        """Training runs of the two models."""
        return len(self.a), len(self.b)

    @property
    def difference(self) -> float:
        """Mean over runs and cases of the first model minus that of the second: the difference that tables show."""
        return float(self.a.mean() - self.b.mean())

    @cached_property
    def group_sums(self) -> Floats:
        """(groups,) sum over the cases of each group of the difference of run means."""
        return self._sums(self.a.mean(0) - self.b.mean(0))

    @property
    def group_means(self) -> Floats:
        """(groups,) mean over the cases of each group of the difference of run means."""
        means: Floats = self.group_sums / self.group_sizes
        return means

    def sums_by_run(self) -> tuple[Floats, Floats]:
        """(runs, groups) sums of the scores of each model over the cases of each group."""
        return np.stack([self._sums(run) for run in self.a]), np.stack([self._sums(run) for run in self.b])

    def _sums(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(self._group_index, weights=values).astype(np.float64)
        return sums


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """What a test says. Two-sided.

    Attributes:
        method: Its name.
        question: What it asks, in one sentence.
        difference: First model minus second, in the unit of the scores.
        pvalue: Probability, under the null, of a difference at least as large in either direction.
        low: Lower end of an interval of the difference for the same question; None where the method has none.
        high: Upper end.
        level: Coverage that the interval aims at.
        degrees: Degrees of freedom; None for tests without.
        attainable: The smallest p-value that the method can give with so many groups or runs; 0 where there is no bound.
        note: What the reader must know, such as that all differences are zero; empty otherwise.
    """

    method: str
    question: str
    difference: float
    pvalue: float
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    degrees: float | None = None
    attainable: float = 0.0
    note: str = ""
