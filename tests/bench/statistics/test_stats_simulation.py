"""Small versions of benchmarks/statistics_check.py, with fixed seeds; docs/statistics.md holds the large ones.

A share counted over so many simulations must be one that a true rate inside the promised band gives with more than one
chance in a thousand.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.statistics_check import (
    FIXED_CASES,
    FIXED_NETWORKS,
    NAIVE,
    TESTS,
    TYPICAL,
    World,
    coverage,
    fixed_case_rejections,
    rank_rejections,
    rejections,
)

SIMULATIONS = 1200


def assert_within(share, low, high, simulations=SIMULATIONS):
    """Whether a true rate in the band explains the share."""
    count = round(share * simulations)
    assert stats.binom.ppf(0.001, simulations, low) <= count <= stats.binom.isf(0.001, simulations, high)


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_the_default_holds_its_level_over_patients_and_trainings(runs):
    found = rejections(replace(TYPICAL, runs=runs), {"two_way_test": TESTS["two_way_test"]}, simulations=SIMULATIONS)
    assert_within(found["two_way_test"], 0.04, 0.06)


def test_tests_over_cases_hold_it_for_given_networks_and_not_for_new_ones():
    tests = {name: TESTS[name] for name in ("sign_flip_test", "wilcoxon_test")}
    for share in rejections(replace(FIXED_NETWORKS, groups=20), tests, simulations=SIMULATIONS).values():
        assert_within(share, 0.04, 0.06)
    for share in rejections(World(model=0.0, run=(0.3, 0.3), groups=20), tests, simulations=200).values():
        assert share > 0.3


def test_tests_over_runs_hold_it_for_given_cases():
    tests = {name: TESTS[name] for name in ("seed_test", "seed_permutation_test")}
    found = fixed_case_rejections(replace(FIXED_CASES, groups=10, runs=5), tests, simulations=SIMULATIONS)
    for share in found.values():
        assert_within(share, 0.04, 0.06)
    few = fixed_case_rejections(replace(FIXED_CASES, groups=10, runs=3), tests, simulations=300)
    assert few["seed_permutation_test"] == 0


def test_what_ignores_groups_and_runs_fails():
    found = rejections(TYPICAL, NAIVE, simulations=150)
    assert min(found.values()) > 0.15


def test_intervals_cover_with_fifty_groups():
    agreeing = coverage(replace(FIXED_NETWORKS, shift=0.25), simulations=1000)
    for share in agreeing.values():
        assert_within(share, 0.93, 0.97, 1000)
    typical = coverage(replace(TYPICAL, shift=0.25), simulations=1000)
    assert_within(typical["two_way_test"], 0.93, 0.97, 1000)
    assert typical["bootstrap over groups"] < 0.93


def test_the_truth_of_the_simulation_is_its_mean():
    world = World(groups=30, runs=2, run=(0.1, 0.3), shift=0.4)
    differences = [scores.difference for scores in world.draw(1000, seed=5)]
    assert np.mean(differences) == pytest.approx(world.truth(), abs=4 * float(stats.sem(differences)))
    assert TYPICAL.truth() == 0


def test_ranks_hold_their_level():
    found = rank_rejections(5, 4, simulations=600)
    assert stats.binom.ppf(0.001, 600, 0.03) <= 600 * found["friedman_test"] <= stats.binom.isf(0.001, 600, 0.06)
    assert found["nemenyi_test"] <= 0.08
