"""Many models over many data sets: average ranks, whether they differ, and how stable they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from madgnet_bench.bench.statistics.scores import Floats
from madgnet_bench.errors import BenchError

__all__ = [
    "Friedman",
    "Nemenyi",
    "RankStability",
    "friedman_test",
    "nemenyi_difference",
    "nemenyi_test",
    "rank_stability",
]

_FEWEST_DATASETS = 3
_FEW_DATASETS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Friedman:
    """Whether models differ over data sets.

    Attributes:
        average_ranks: (models,) mean over data sets of the rank, 1 for the best; ties share their ranks.
        datasets: Number of data sets.
        chi_square: Friedman's statistic, corrected for ties; 0 where all models are tied everywhere.
        pvalue: Of it, by random orders of the models within each data set: holds for any number of data sets.
        f_statistic: F of Iman and Davenport (1980), infinite where all data sets agree.
        degrees: Numerator and denominator degrees of freedom of F.
        f_pvalue: Of F, the usual one: rejects too often with three data sets.
        caution: Why the result means little, empty otherwise.
    """

    average_ranks: Floats
    datasets: int
    chi_square: float
    pvalue: float
    f_statistic: float
    degrees: tuple[int, int]
    f_pvalue: float
    caution: str


def friedman_test(scores: ArrayLike, *, higher_is_better: bool = True, orders: int = 9999, seed: int = 0) -> Friedman:
    """Compare several models over several data sets by their ranks.

    Null: on each data set every order of the models is equally likely. The data sets are the sample, so they must be
    independent: several test sets of one modality on which the same trained networks are tested are not quite. What
    varies within a data set, cases and seeds, does not enter.

    Args:
        scores: (data sets, models), one number each.
        higher_is_better: Direction of the measure.
        orders: Random orders that the p-value is made of; it is at least 1 / (1 + orders).
        seed: Of them.

    Raises:
        BenchError: A score is not finite, or there are fewer than 3 data sets or 2 models.
    """
    table = _table(scores, "(data sets, models)", 2)
    datasets, models = table.shape
    if datasets < _FEWEST_DATASETS or models < 2:
        raise BenchError(
            f"{datasets} data sets and {models} models: ranks over data sets need at least {_FEWEST_DATASETS} data sets and 2 "
            "models. Compare pairs of models within each data set instead."
        )
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    average = ranks.mean(0)
    deviations = ranks - (models + 1) / 2
    total = float(np.sum(deviations**2))  # datasets * (k^3 - k) / 12 without ties
    observed = float(np.sum(deviations.sum(0) ** 2))
    random = np.random.default_rng(seed)
    sums = np.zeros((orders, models))
    for row in deviations:
        sums += random.permuted(np.broadcast_to(row, (orders, models)), axis=1)
    count = int(np.sum(np.sum(sums**2, axis=1) >= observed - 1e-9 * total))
    chi_square = (models - 1) * observed / total if total else 0.0
    degrees = (models - 1, (models - 1) * (datasets - 1))
    rest = datasets * (models - 1) - chi_square
    f_statistic = math.inf if rest <= 1e-9 * datasets * models else (datasets - 1) * chi_square / rest
    caution = f"{datasets} data sets are few: only large differences can be found" if datasets < _FEW_DATASETS else ""
    return Friedman(
        average_ranks=average,
        datasets=datasets,
        chi_square=chi_square,
        pvalue=(1 + count) / (1 + orders),
        f_statistic=f_statistic,
        degrees=degrees,
        f_pvalue=float(stats.f.sf(f_statistic, *degrees)),
        caution=caution,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Nemenyi:
    """Which models differ over data sets.

    Attributes:
        average_ranks: (models,) as in `Friedman`.
        datasets: Number of data sets.
        critical_difference: Two models differ where their average ranks are at least this far apart.
        pvalues: (models, models) p-value of each pair, already for all pairs at once; 1 on the diagonal.
        cliques: Largest sets of neighbouring models of which no two differ, best first; indices of models, sets of one left
            out. The bars of a critical-difference diagram.
        level: Probability that any two models are said to differ where none do.
        caution: Why the result means little, empty otherwise.
    """

    average_ranks: Floats
    datasets: int
    critical_difference: float
    pvalues: Floats
    cliques: tuple[tuple[int, ...], ...]
    level: float
    caution: str


def nemenyi_difference(models: int, datasets: int, *, level: float = 0.05) -> float:
    """Critical difference of average ranks: q sqrt(k (k + 1) / (6 N)) for k models and N data sets (Demsar 2006, JMLR 7:1).

    q is a quantile of the studentised range with infinite degrees of freedom, over the square root of 2.

    >>> round(nemenyi_difference(5, 30), 2)
    1.11
    """
    q = float(stats.studentized_range.ppf(1 - level, models, np.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * datasets))


def nemenyi_test(friedman: Friedman, *, level: float = 0.05) -> Nemenyi:
    """Compare all pairs of models after a Friedman test, which should have rejected.

    Null: as there. The level holds for all pairs together.
    """
    ranks, models = friedman.average_ranks, len(friedman.average_ranks)
    difference = nemenyi_difference(models, friedman.datasets, level=level)
    error = math.sqrt(models * (models + 1) / (12 * friedman.datasets))
    distances = np.abs(ranks[:, None] - ranks[None, :]) / error
    rows, columns = np.triu_indices(models, 1)
    pvalues = np.ones((models, models))
    pvalues[rows, columns] = pvalues[columns, rows] = stats.studentized_range.sf(distances[rows, columns], models, np.inf)
    caution = friedman.caution
    if difference > models - 1:
        caution = f"{friedman.datasets} data sets are too few: no difference between {models} models could be found at all"
    elif friedman.pvalue > level:
        caution = "; ".join(filter(None, ["Friedman's test does not reject, so pairs should not be told apart", caution]))
    return Nemenyi(
        average_ranks=ranks,
        datasets=friedman.datasets,
        critical_difference=difference,
        pvalues=np.clip(pvalues, 0.0, 1.0),
        cliques=_cliques(ranks, difference),
        level=level,
        caution=caution,
    )


def _cliques(ranks: Floats, difference: float) -> tuple[tuple[int, ...], ...]:
    """Largest runs of models in rank order whose ends are less than ``difference`` apart."""
    order = np.argsort(ranks, kind="stable")
    ordered = ranks[order]
    cliques: list[tuple[int, ...]] = []
    reached = 0
    for first in range(len(order)):
        last = int(np.searchsorted(ordered, ordered[first] + difference, side="left"))
        if last > reached and last - first > 1:
            cliques.append(tuple(int(model) for model in order[first:last]))
        reached = max(reached, last)
    return tuple(cliques)


@dataclass(frozen=True, kw_only=True, eq=False)
class RankStability:
    """How the ranking would have come out with other cases.

    Attributes:
        probability: (models, models) share of the replicates in which a model (row) takes a place (column, best first). Models
            that tie share their places.
        best: (models,) the first column of it.
        mean_rank: (models,) average rank over data sets, averaged over replicates.
        low: (models,) lower end of the interval of the average rank.
        high: (models,) upper end.
        level: Share of the replicates within the interval.
    """

    probability: Floats
    best: Floats
    mean_rank: Floats
    low: Floats
    high: Floats
    level: float


def rank_stability(replicates: ArrayLike, *, higher_is_better: bool = True, level: float = 0.95) -> RankStability:
    """Rank the models in every bootstrap replicate by their average rank over data sets.

    The replicates must be aligned: replicate b has resampled the same groups for every model, or the differences between
    models are lost in the noise that they share. The shares are descriptive: no p-values, and biased towards the order that
    was observed.

    Args:
        replicates: (models, data sets, replicates) means over cases.
        higher_is_better: Direction of the measure.
        level: Share of the replicates within the intervals.

    Raises:
        BenchError: A mean is not finite.
    """
    values = _table(replicates, "(models, data sets, replicates)", 3)
    models = len(values)
    average = stats.rankdata(-values if higher_is_better else values, axis=0).mean(1)
    rounded = np.round(average, 9)  # sums of equal ranks in another order must tie
    first, last = (stats.rankdata(rounded, method=method, axis=0) for method in ("min", "max"))
    probability = np.stack(
        [np.mean(((first <= place) & (place <= last)) / (last - first + 1), axis=1) for place in range(1, models + 1)], axis=1
    )
    low, high = np.quantile(average, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return RankStability(
        probability=probability, best=probability[:, 0], mean_rank=average.mean(1), low=low, high=high, level=level
    )


def _table(values: ArrayLike, axes: str, dimensions: int) -> Floats:
    """An array of finite numbers of the right number of dimensions."""
    table: NDArray[np.float64] = np.asarray(values, np.float64)
    if table.ndim != dimensions or 0 in table.shape:
        raise BenchError(f"scores have shape {table.shape}; give {axes}, each at least 1.")
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        raise BenchError(
            f"{len(bad)} of {table.size} scores are not finite, first at {axes} = {tuple(bad[0].tolist())}; "
            "leave out the models or data sets that are not complete."
        )
    return table
