import itertools
import math

import numpy as np
import pytest
from scipy import stats

from madgnet_bench.bench.statistics import (
    PairedScores,
    compare,
    seed_permutation_test,
    seed_test,
    sign_flip_test,
    two_way_test,
    wilcoxon_test,
)
from madgnet_bench.errors import BenchError


def drawn(seed=0, *, runs=(3, 3), sizes=(3, 1, 4, 2, 5, 1), shift=0.0):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    shared = random.normal(0.8, 0.1, len(sizes))[groups]
    a, b = (shared + random.normal(0, 0.05, (count, len(groups))) for count in runs)
    return PairedScores(a, b - shift, groups)


def by_definition(scores):
    """Difference, its variance and degrees of freedom, by leaving out groups in earnest."""
    a, b, groups = scores.a, scores.b, scores.groups
    names = np.unique(groups)

    def jackknife(values):
        left_out = [np.mean(values[groups != name]) for name in names]
        return (len(names) - 1) / len(names) * sum((mean - np.mean(values)) ** 2 for mean in left_out)

    parts, interaction = [], 0.0
    for model in (a, b):
        parts.append((stats.sem(model.mean(1)) ** 2, len(model) - 1))
        interaction += sum(jackknife(run - model.mean(0)) for run in model) / (len(model) * (len(model) - 1))
    parts.append((max(0.0, jackknife(a.mean(0) - b.mean(0)) - interaction), len(names) - 1))
    variance = sum(part for part, _ in parts)
    return a.mean() - b.mean(), variance, variance**2 / sum(part**2 / free for part, free in parts)


@pytest.mark.parametrize("runs", [(2, 2), (3, 5), (5, 2)])
def test_two_way_t_is_what_its_docstring_says(runs):
    scores = drawn(runs=runs, shift=0.03)
    difference, variance, degrees = by_definition(scores)
    found = two_way_test(scores, level=0.9)
    assert found.difference == pytest.approx(difference)
    assert found.degrees == pytest.approx(degrees)
    assert found.pvalue == pytest.approx(2 * stats.t.sf(abs(difference) / math.sqrt(variance), degrees))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.9, degrees, difference, math.sqrt(variance)))


def test_where_all_cases_agree_only_runs_count():
    a, b = np.array([0.80, 0.84, 0.81]), np.array([0.78, 0.79])
    scores = PairedScores(a[:, None] + np.zeros(6), b[:, None] + np.zeros(6), [0, 0, 1, 1, 2, 2])
    welch = stats.ttest_ind(a, b, equal_var=False)
    for found in (two_way_test(scores), seed_test(scores, equal_spread=False)):
        assert found.pvalue == pytest.approx(welch.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval()))


def test_where_all_runs_agree_only_groups_count():
    scores = drawn(runs=(1, 1), sizes=(2,) * 9, shift=0.02)
    repeated = PairedScores(np.repeat(scores.a, 3, axis=0), np.repeat(scores.b, 2, axis=0), scores.groups)
    expected = stats.ttest_1samp(scores.group_means, 0)
    found = two_way_test(repeated)
    assert found.pvalue == pytest.approx(expected.pvalue)
    assert found.degrees == pytest.approx(8)
    flips = sign_flip_test(scores)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (flips.low, flips.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_seed_tests_agree_with_scipy():
    scores = drawn(runs=(4, 3), shift=0.02)
    a, b = scores.a.mean(1), scores.b.mean(1)
    student, welch = stats.ttest_ind(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert seed_test(scores).pvalue == pytest.approx(student.pvalue)
    assert (seed_test(scores).low, seed_test(scores).high) == pytest.approx(tuple(student.confidence_interval()))
    assert seed_test(scores, equal_spread=False).pvalue == pytest.approx(welch.pvalue)


@pytest.mark.parametrize("runs", [(2, 2), (3, 3), (5, 5), (2, 4)])
@pytest.mark.parametrize("shift", [0.0, 0.05, 1.0])
def test_dealing_runs_agrees_with_scipy_and_knows_its_smallest_p(runs, shift):
    scores = drawn(runs=runs, shift=shift)

    def difference(a, b, axis):
        return np.mean(a, axis=axis) - np.mean(b, axis=axis)

    with np.errstate(all="ignore"):
        data = (scores.a.mean(1), scores.b.mean(1))
        distances = [
            abs(np.mean(np.concatenate(data)[list(c)]) - np.mean(np.delete(np.concatenate(data), list(c))))
            for c in itertools.combinations(range(sum(runs)), runs[0])
        ]
        if runs[0] == runs[1]:  # scipy doubles the smaller tail, which is the same where the distribution is symmetric
            assert seed_permutation_test(scores).pvalue == pytest.approx(stats.permutation_test(data, difference).pvalue)
    found = seed_permutation_test(scores)
    assert found.pvalue == pytest.approx(np.mean(np.array(distances) >= abs(scores.difference) - 1e-12))
    assert found.pvalue >= found.attainable - 1e-12
    smallest = {(2, 2): 1 / 3, (3, 3): 1 / 10, (5, 5): 1 / 126, (2, 4): 1 / 15}[runs]
    assert found.attainable == pytest.approx(smallest)
    assert bool(found.note) == (smallest > 0.05)
    if shift == 1.0:
        assert found.pvalue == pytest.approx(smallest)


def test_few_groups_are_flipped_exactly_as_scipy_does():
    scores = drawn(runs=(2, 3), sizes=(3,) * 8, shift=0.03)
    pairs = (scores.group_means, np.zeros(8))

    def difference(a, b, axis):
        return np.mean(a - b, axis=axis)

    expected = stats.permutation_test(pairs, difference, permutation_type="samples")
    found = sign_flip_test(scores)
    assert found.pvalue == pytest.approx(expected.pvalue)
    assert found.attainable == 2**-7


def test_unequal_groups_are_flipped_with_all_their_cases():
    scores = drawn(sizes=(1, 7, 2, 3, 1), shift=0.03)
    difference = scores.a.mean(0) - scores.b.mean(0)
    signs = np.array(list(itertools.product((1, -1), repeat=5)))
    means = np.mean(signs[:, scores.groups] * difference, axis=1)
    assert sign_flip_test(scores).pvalue == pytest.approx(np.mean(np.abs(means) >= abs(difference.mean()) - 1e-12))


def test_many_groups_are_flipped_at_random_and_close_to_exact():
    scores = drawn(sizes=(2,) * 15, shift=0.02)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=15)))
    exact = np.mean(np.abs(signs @ scores.group_sums) >= abs(scores.group_sums.sum()) - 1e-12)
    found = sign_flip_test(scores)
    assert found.pvalue == pytest.approx(exact, abs=4 * math.sqrt(exact / 9999))
    assert found == sign_flip_test(scores, seed=0)
    assert found.pvalue != sign_flip_test(scores, seed=1).pvalue
    assert sign_flip_test(drawn(sizes=(2,) * 15, shift=1.0)).pvalue == found.attainable == 1e-4


def test_wilcoxon_is_scipys_on_group_means():
    scores = drawn(shift=0.02)
    assert wilcoxon_test(scores).pvalue == stats.wilcoxon(scores.group_means).pvalue
    equal = PairedScores(
        np.where(scores.groups == 0, scores.b.mean(0), scores.a.mean(0))[None], scores.b.mean(0)[None], scores.groups
    )
    found = wilcoxon_test(equal)
    assert found.note == "1 of 6 groups without a difference are left out"
    assert found.attainable == 2.0**-4


def test_tests_do_not_care_which_model_is_first_or_how_cases_are_ordered():
    scores = drawn(runs=(3, 2), shift=0.02)
    order = np.random.default_rng(1).permutation(scores.a.shape[1])
    shuffled = PairedScores(scores.a[:, order], scores.b[:, order], np.array(list("fedcba"))[scores.groups[order]])
    swapped = PairedScores(scores.b, scores.a, scores.groups)
    for test in (two_way_test, sign_flip_test, wilcoxon_test, seed_test, seed_permutation_test):
        assert test(shuffled).pvalue == pytest.approx(test(scores).pvalue)
        assert test(swapped).pvalue == pytest.approx(test(scores).pvalue)
        assert test(swapped).difference == pytest.approx(-test(scores).difference)


def test_one_run_allows_statements_on_cases_only():
    found = compare(drawn(runs=(1, 3)))
    assert found.both is None and found.runs_only is None
    assert found.default is found.cases_only
    assert found.notes[0].startswith("One training run")
    for test in (two_way_test, seed_test, seed_permutation_test):
        with pytest.raises(BenchError, match=r"1 and 3 training runs.*Train more seeds"):
            test(drawn(runs=(1, 3)))


def test_one_group_allows_statements_on_runs_only():
    scores = drawn(sizes=(9,))
    assert seed_test(scores).pvalue > 0
    for test in (two_way_test, sign_flip_test, wilcoxon_test, compare):
        with pytest.raises(BenchError, match="all 9 cases are of one group"):
            test(scores)


def test_equal_models_have_a_p_of_one_and_say_why():
    scores = PairedScores(drawn().a, drawn().a, drawn().groups)
    assert sign_flip_test(scores).pvalue == wilcoxon_test(scores).pvalue == 1.0
    assert "every difference is zero" in wilcoxon_test(scores).note
    assert "every difference is zero" in sign_flip_test(scores).note
    copies = PairedScores(np.tile(scores.a[:1], (2, 1)), np.tile(scores.a[:1], (3, 1)), scores.groups)
    for found in (two_way_test(copies), seed_test(copies)):
        assert (found.pvalue, found.low, found.high, found.note) == (1.0, 0.0, 0.0, "every difference is zero")


def test_a_difference_without_any_variation_is_refused():
    copies = np.tile(drawn().a[:1], (2, 1))
    scores = PairedScores(copies + 0.1, copies, drawn().groups)
    for test in (two_way_test, seed_test, compare):
        with pytest.raises(BenchError, match=r"difference is 0\.1 and nothing varies"):
            test(scores)
    assert sign_flip_test(scores).pvalue == sign_flip_test(scores).attainable


def test_too_many_ways_to_deal_are_refused():
    with pytest.raises(BenchError, match="too many to enumerate; use seed_test"):
        seed_permutation_test(drawn(runs=(12, 12)))


def test_a_comparison_holds_every_test_and_warns():
    scores = drawn(runs=(2, 2), sizes=(9, 1, 1, 1))
    found = compare(scores)
    assert found.default is found.both == two_way_test(scores)
    assert found.cases_only == sign_flip_test(scores)
    assert found.runs_only == seed_test(scores)
    assert (found.groups, found.cases, found.runs) == (4, 12, (2, 2))
    assert [note.split(":")[0] for note in found.notes] == ["Two runs of a model", "4 groups", "One group holds 9 of 12 cases."]
    assert compare(drawn(runs=(3, 3), sizes=(1,) * 12)).notes == ()
