"""How large a difference is, beside whether it is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from madgnet_bench.bench.statistics.paired import sign_flip_test, two_way_test
from madgnet_bench.bench.statistics.scores import PairedScores
from madgnet_bench.errors import BenchError

__all__ = ["EffectSizes", "effect_sizes"]


@dataclass(frozen=True, kw_only=True)
class EffectSizes:
    """Sizes of the difference between two models, first minus second.

    All but the difference itself are taken over groups, each counting the same, of run means.

    Attributes:
        difference: In the unit of the scores, over cases as tables show it.
        low: Lower end of its interval: of `two_way_test` where both models have several runs, else of `sign_flip_test`.
        high: Upper end.
        over_trainings: Whether the interval counts the training runs as a sample, too.
        cohen_dz: Mean over standard deviation of the group means of the difference; 0 where all are zero, infinite where all
            are equal otherwise. 0.2, 0.5 and 0.8 are called small, medium and large.
        superiority: Part of the groups in which the first model is better, ties counted as one half; in [0, 1].
        rank_biserial: Of matched pairs (Kerby 2014): the sum of ranks in favour minus the sum against, over all ranks; in
            [-1, 1]. Groups without a difference are left out; 0 where none is left.
    """

    difference: float
    low: float
    high: float
    over_trainings: bool
    cohen_dz: float
    superiority: float
    rank_biserial: float


def effect_sizes(scores: PairedScores, *, higher_is_better: bool = True, level: float = 0.95) -> EffectSizes:
    """Measure the difference between two models.

    Args:
        scores: What is compared.
        higher_is_better: Direction of the measure: decides what superiority and the sign of the rank-biserial correlation mean.
        level: Coverage of the interval.

    Raises:
        BenchError: There is one group.
    """
    over_trainings = min(scores.runs) > 1
    test = two_way_test(scores, level=level) if over_trainings else sign_flip_test(scores, level=level, flips=1)
    if test.low is None or test.high is None:
        raise BenchError(f"{test.method} has no interval.")
    means = scores.group_means
    spread = float(np.std(means, ddof=1))
    if spread <= 1e-12 * np.abs(means).max(initial=0):  # equal up to rounding
        cohen = float(np.sign(means.mean())) * np.inf if np.any(means) else 0.0
    else:
        cohen = float(means.mean()) / spread
    gains = means if higher_is_better else -means
    return EffectSizes(
        difference=scores.difference,
        low=test.low,
        high=test.high,
        over_trainings=over_trainings,
        cohen_dz=cohen,
        superiority=float(np.mean((gains > 0) + 0.5 * (gains == 0))),
        rank_biserial=_rank_biserial(gains[gains != 0]),
    )


def _rank_biserial(gains: np.ndarray) -> float:
    if not len(gains):
        return 0.0
    ranks = stats.rankdata(np.abs(gains))
    return float(np.sum(ranks * np.sign(gains)) / np.sum(ranks))
