import itertools
import math

import numpy as np
import pytest
from scipy import stats

from madgnet_bench.bench.resampling import replicates, weights_key
from madgnet_bench.bench.statistics import friedman_test, nemenyi_difference, nemenyi_test, rank_stability
from madgnet_bench.errors import BenchError

Q_05 = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
Q_10 = {2: 1.645, 3: 2.052, 4: 2.291, 5: 2.459, 6: 2.589, 7: 2.693, 8: 2.780, 9: 2.855, 10: 2.920}
"""Table 5 of Demsar 2006."""


def table(datasets=13, models=5, *, step=0.3, seed=0):
    return np.random.default_rng(seed).random((datasets, models)) + step * np.arange(models)


def test_friedman_agrees_with_scipy_with_and_without_ties():
    for scores in (table(), np.round(table(step=0.05), 1)):
        found = friedman_test(scores)
        assert found.chi_square == pytest.approx(stats.friedmanchisquare(*scores.T).statistic)
        expected = 12 * found.chi_square / (13 * 4 - found.chi_square)
        assert found.f_statistic == pytest.approx(expected)
        assert found.f_pvalue == pytest.approx(stats.f.sf(expected, 4, 48))
        assert found.degrees == (4, 48)


def test_ranks_follow_the_direction_and_share_ties():
    scores = [[0.9, 0.8, 0.8], [0.7, 0.9, 0.1], [0.5, 0.6, 0.4]]
    assert friedman_test(scores).average_ranks == pytest.approx([5 / 3, 4.5 / 3, 8.5 / 3])
    assert friedman_test(scores, higher_is_better=False).average_ranks == pytest.approx([7 / 3, 7.5 / 3, 3.5 / 3])


def test_its_p_is_that_of_all_orders():
    scores = table(4, 3, step=0.5)
    orders = list(itertools.permutations(range(1, 4)))
    sums = np.array([np.sum(ranks, axis=0) for ranks in itertools.product(orders, repeat=4)])
    found = friedman_test(scores)
    exact = np.mean(np.sum((sums - 8.0) ** 2, axis=1) >= np.sum((4 * found.average_ranks - 8) ** 2) - 1e-9)
    assert 0.01 < exact < 0.9
    assert found.pvalue == pytest.approx(exact, abs=4 * math.sqrt(exact / 9999))
    assert found.pvalue == friedman_test(scores).pvalue != friedman_test(scores, seed=1).pvalue


def test_agreement_and_ties_everywhere():
    agreed = friedman_test(table(8, 4, step=2))
    assert (agreed.f_statistic, agreed.f_pvalue, agreed.pvalue) == (math.inf, 0.0, 1e-4)
    tied = friedman_test(np.ones((8, 4)))
    assert (tied.chi_square, tied.f_statistic, tied.pvalue, tied.f_pvalue) == (0, 0, 1, 1)


@pytest.mark.parametrize("models", Q_05)
def test_quantiles_are_those_of_the_published_table(models):
    scale = math.sqrt(models * (models + 1) / (6 * 14))
    assert nemenyi_difference(models, 14) / scale == pytest.approx(Q_05[models], abs=1.01e-3)
    assert nemenyi_difference(models, 14, level=0.1) / scale == pytest.approx(Q_10[models], abs=1.01e-3)


def test_the_example_of_the_paper():
    # four algorithms on fourteen data sets: average ranks, F and critical difference as printed there
    ranks = np.array([3.143, 2.000, 2.893, 1.964])
    chi_square = 12 * 14 / 20 * (np.sum(ranks**2) - 25)
    assert chi_square == pytest.approx(9.28, abs=0.02)
    assert nemenyi_difference(4, 14, level=0.10) == pytest.approx(1.12, abs=0.005)
    assert nemenyi_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_pairs_differ_where_their_p_is_below_the_level():
    found = nemenyi_test(friedman_test(table(12, 6)))
    apart = np.abs(found.average_ranks[:, None] - found.average_ranks) >= found.critical_difference
    assert apart.any() and not apart.all()
    assert (apart == (found.pvalues <= 0.05)).all()
    assert np.diag(found.pvalues).tolist() == [1] * 6
    assert found.caution == ""


def test_bars_join_exactly_what_does_not_differ():
    for seed in range(30):
        found = nemenyi_test(friedman_test(table(9, 7, step=0.15, seed=seed)))
        alike = np.abs(found.average_ranks[:, None] - found.average_ranks) < found.critical_difference
        joined = {pair for clique in found.cliques for pair in itertools.permutations(clique, 2)}
        assert joined == {pair for pair in itertools.permutations(range(7), 2) if alike[pair]}
        sets = [set(clique) for clique in found.cliques]
        assert not any(one < other for one, other in itertools.permutations(sets, 2))


def test_few_data_sets_are_refused_or_said_to_be_few():
    with pytest.raises(BenchError, match=r"2 data sets and 5 models.*at least 3"):
        friedman_test(table(2))
    with pytest.raises(BenchError, match="13 data sets and 1 models"):
        friedman_test(table(13, 1))
    assert friedman_test(table(5)).caution == "5 data sets are few: only large differences can be found"
    assert "no difference between 2 models could be found" in nemenyi_test(friedman_test(table(3, 2))).caution
    same = nemenyi_test(friedman_test(np.ones((20, 4))))
    assert same.cliques == ((0, 1, 2, 3),)
    assert "does not reject" in same.caution


def test_missing_scores_are_named():
    scores = table()
    scores[2, 3] = np.nan
    with pytest.raises(BenchError, match=r"1 of 65 scores are not finite, first at \(data sets, models\) = \(2, 3\)"):
        friedman_test(scores)
    with pytest.raises(BenchError, match=r"shape \(13, 5\); give \(models, data sets, replicates\)"):
        rank_stability(table())


def test_stability_by_hand():
    # two data sets; the replicates rank the three models 1 2 3, 1 2 3, 2 1 3, and once 1.5 1.5 3 on average
    one = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.9, 0.8, 0.7]]
    two = [[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.8, 0.9, 0.7], [0.8, 0.9, 0.7]]
    replicates = np.stack([np.array(one).T, np.array(two).T], axis=1)
    found = rank_stability(replicates)
    assert found.probability == pytest.approx(np.array([[0.625, 0.375, 0], [0.375, 0.625, 0], [0, 0, 1]]))
    assert found.best.tolist() == [0.625, 0.375, 0]
    assert found.mean_rank == pytest.approx([1.375, 1.625, 3])
    turned = rank_stability(-replicates, higher_is_better=False)
    assert turned.probability == pytest.approx(found.probability)


def test_stability_of_many_replicates():
    random = np.random.default_rng(0)
    replicates = random.normal(0, 1, (4, 6, 1500)) + np.array([1.0, 0.5, 0.5, -2])[:, None, None]
    found = rank_stability(replicates)
    assert found.probability.sum(0) == pytest.approx(np.ones(4))
    assert found.probability.sum(1) == pytest.approx(np.ones(4))
    assert found.best[0] > found.best[1] == pytest.approx(found.best[2], abs=0.06)
    assert (found.low <= found.mean_rank).all() and (found.mean_rank <= found.high).all()
    assert found.low[3] > 3


def test_stability_takes_the_replicates_of_the_leaderboard():
    random = np.random.default_rng(0)
    counts = random.integers(1, 6, 20)
    shared = random.normal(0, 0.3, 20) * counts  # hard patients are hard for every model
    means = np.array([0.80, 0.79, 0.60])
    sums = shared[:, None] + counts[:, None] * (means + random.normal(0, 0.01, (20, 3)))
    values = [replicates(sums, counts, weights_key(name, map(str, range(20)))).T for name in ("one", "two")]
    found = rank_stability(np.stack(values, axis=1))
    assert found.probability[2].tolist() == [0, 0, 1]
    assert found.best[0] > 0.9
