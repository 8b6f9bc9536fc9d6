import numpy as np
import pytest
from scipy import stats

from madgnet_bench.bench.statistics import PairedScores, effect_sizes, sign_flip_test, two_way_test

BASE = np.full((1, 8), 0.5)
GAINS = np.array([0.1, 0.2, -0.05, 0.3, 0.0, 0.02, -0.01, 0.15])
SCORES = PairedScores(BASE + GAINS, BASE, np.arange(8))


def test_sizes_by_hand():
    found = effect_sizes(SCORES)
    assert found.difference == pytest.approx(GAINS.mean())
    assert found.cohen_dz == pytest.approx(stats.ttest_1samp(GAINS, 0).statistic / np.sqrt(8))
    assert found.superiority == pytest.approx((5 + 0.5) / 8)
    # ranks of 0.01 0.02 0.05 0.1 0.15 0.2 0.3 are 1 to 7; those of -0.01 and -0.05 are 1 and 3
    assert found.rank_biserial == pytest.approx((28 - 2 * 4) / 28)
    assert stats.wilcoxon(GAINS).statistic == 4


def test_direction_turns_what_says_better():
    found, turned = effect_sizes(SCORES), effect_sizes(SCORES, higher_is_better=False)
    assert turned.superiority == pytest.approx(1 - found.superiority)
    assert turned.rank_biserial == pytest.approx(-found.rank_biserial)
    assert (turned.difference, turned.cohen_dz) == (found.difference, found.cohen_dz)


def test_interval_counts_the_runs_where_there_are_several():
    one = effect_sizes(SCORES)
    flips = sign_flip_test(SCORES)
    assert (one.low, one.high, one.over_trainings) == (flips.low, flips.high, False)
    random = np.random.default_rng(0)
    several = PairedScores(SCORES.a + random.normal(0, 0.05, (3, 1)), SCORES.b + random.normal(0, 0.05, (3, 1)), SCORES.groups)
    both, found = two_way_test(several), effect_sizes(several)
    assert (found.low, found.high, found.over_trainings) == (both.low, both.high, True)


def test_constant_differences():
    same = effect_sizes(PairedScores(BASE, BASE, np.arange(8)))
    assert (same.cohen_dz, same.superiority, same.rank_biserial, same.low, same.high) == (0, 0.5, 0, 0, 0)
    shifted = effect_sizes(PairedScores(BASE - 0.1, BASE, np.arange(8)))
    assert (shifted.cohen_dz, shifted.superiority, shifted.rank_biserial) == (-np.inf, 0, -1)
