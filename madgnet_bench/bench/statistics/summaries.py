"""Tests from printed means and standard deviations, where no case is at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from madgnet_bench.bench.statistics.scores import Floats
from madgnet_bench.errors import BenchError

__all__ = ["WelchSummary", "welch_from_summaries"]


@dataclass(frozen=True, kw_only=True, eq=False)
class WelchSummary:
    """One-sided Welch tests: is the mean of the first larger?

    Attributes:
        statistic: t of each comparison; positive where the first is larger.
        degrees: Degrees of freedom by Welch and Satterthwaite.
        pvalue: Small where the first is larger beyond the spread over runs; 1/2 where neither mean nor spread tells them apart.
        reading: What these numbers are.
    """

    statistic: Floats
    degrees: Floats
    pvalue: Floats
    reading: str = (
        "our reading of the P values that the MADGNet tables print: one-sided Welch t-tests from mean, standard deviation and "
        "number of trials. The tables do not define them."
    )

    @property
    def mean_pvalue(self) -> float:
        """Mean of the p-values, which the tables may print over data sets. Not itself a p-value; twice it is a valid one."""
        return float(np.mean(self.pvalue))


def welch_from_summaries(
    mean_a: ArrayLike, std_a: ArrayLike, n_a: ArrayLike, mean_b: ArrayLike, std_b: ArrayLike, n_b: ArrayLike, *, ddof: int = 1
) -> WelchSummary:
    """One-sided Welch t-tests from summaries; the arguments are broadcast against one another.

    Only the spread over trained runs is in it, not that over patients.

    Args:
        mean_a: Means of the first model.
        std_a: Its standard deviations, at least 0.
        n_a: Its numbers of runs, at least 2.
        mean_b: Means of the second model.
        std_b: Its standard deviations.
        n_b: Its numbers of runs.
        ddof: 1 where the deviations divide by n - 1, 0 where they divide by n; then they are scaled up.

    Raises:
        BenchError: A number is not finite, a deviation negative, or a number of runs below 2.
    """
    given = (mean_a, std_a, n_a, mean_b, std_b, n_b)
    try:
        values = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in given))
    except ValueError as error:
        raise BenchError(f"means, deviations and numbers of runs do not fit together: {error}.") from None
    first, std_first, n_first, second, std_second, n_second = values
    if not all(np.all(np.isfinite(value)) for value in values):
        raise BenchError("a mean, deviation or number of runs is not a number; leave out the rows that do not state all three.")
    if np.any(std_first < 0) or np.any(std_second < 0):
        raise BenchError("a standard deviation is negative.")
    if np.any(n_first < 2) or np.any(n_second < 2):
        raise BenchError("a standard deviation over fewer than 2 runs says nothing; leave those rows out.")
    if ddof not in (0, 1):
        raise BenchError(f"ddof is {ddof}; it is 0 (deviations divide by n) or 1 (by n - 1).")
    part_a, part_b = std_first**2 / (n_first - 1 + ddof), std_second**2 / (n_second - 1 + ddof)
    variance = part_a + part_b
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(variance > 0, (first - second) / np.sqrt(variance), np.sign(first - second) * np.inf)
        statistic = np.where(first == second, 0.0, statistic)
        degrees = variance**2 / (part_a**2 / (n_first - 1) + part_b**2 / (n_second - 1))
    degrees = np.where(variance > 0, degrees, n_first + n_second - 2)
    return WelchSummary(statistic=statistic, degrees=degrees, pvalue=special.stdtr(degrees, -statistic))
