"""Is one model better than another on a data set? Tests that know what was sampled.

A difference between two models varies for two reasons: other patients would have been in the test set, and other seeds would
have trained other networks. Each test here answers for one of the reasons, or for both:

- `two_way_test`: new patients and new trainings. The default of reports.
- `sign_flip_test`, `wilcoxon_test`: new patients, these trained networks.
- `seed_test`, `seed_permutation_test`: new trainings, these test cases.

docs/statistics.md tells how often each is wrong, measured by ``benchmarks/statistics_check.py``.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special, stats

from madgnet_bench.bench.statistics.scores import Floats, PairedScores, PairedTest
from madgnet_bench.errors import BenchError

__all__ = [
    "Comparison",
    "compare",
    "seed_permutation_test",
    "seed_test",
    "sign_flip_test",
    "two_way_test",
    "wilcoxon_test",
]

_ENUMERATED_GROUPS = 14
_ENUMERATED_SPLITS = 200_000
_CHUNK = 2_000_000
"""Signs that are held in memory at once."""

_BOTH = "Would the difference be there again with new patients and newly trained networks?"
_CASES = "Would the difference be there again with new patients, for these trained networks?"
_RUNS = "Would the difference be there again with newly trained networks, on these test cases?"
_NO_DIFFERENCE = "every difference is zero"


def two_way_test(scores: PairedScores, *, level: float = 0.95) -> PairedTest:
    """t-test that counts groups of cases and training runs, both as samples.

    Null: over patients and trainings, both models have the same expected mean score. Sampled independently: groups of cases,
    runs of the first model, runs of the second. The variance of the difference is::

        s_a^2 / S_a + s_b^2 / S_b + max(0, V_groups - V_interaction)

    with ``s^2`` the variance over the S runs of the mean over cases, ``V_groups`` the jackknife variance over groups of the
    difference of run means, and ``V_interaction`` the part of the latter that is already in the former two: what a run has of
    its own in each group. It is the unbiased variance of the crossed design of readers and cases, with runs in the place of
    readers that are nested in a model, and Satterthwaite's degrees of freedom (Hillis 2007, Statistics in Medicine 26:596).

    Raises:
        BenchError: A model has one run, there is one group, or nothing varies although the models differ.
    """
    _need_groups(scores)
    _need_runs(scores, "the other tests of cases answer for these trained networks alone")
    groups = len(scores.group_sizes)
    parts, interaction = [], 0.0
    for by_run in scores.sums_by_run():
        runs = len(by_run)
        parts.append((float(np.var(by_run.sum(1) / scores.a.shape[1], ddof=1)) / runs, runs - 1))
        interaction += float(_jackknife(by_run - by_run.mean(0), scores).sum()) / (runs * (runs - 1))
    parts.append((max(0.0, float(_jackknife(scores.group_sums, scores)) - interaction), groups - 1))
    return _t_test(scores, parts, _untested("two-way t", _BOTH, scores), level)


def sign_flip_test(scores: PairedScores, *, flips: int = 9999, seed: int = 0, level: float = 0.95) -> PairedTest:
    """Permutation test that swaps the two models in whole groups.

    Null: in each group the difference of run means is as likely to be of one sign as of the other; so it is where the names of
    the models are exchangeable within a group. The statistic is the difference of the means over cases. Up to 14 groups all
    swaps are enumerated and the test is exact; above, it draws ``flips`` of them, and remains valid. The interval is that of
    the jackknife over groups, with Student's t.

    Args:
        scores: What is compared.
        flips: Swaps that are drawn where they are too many to enumerate.
        seed: Of the drawing.
        level: Coverage of the interval.

    Raises:
        BenchError: There is one group.
    """
    _need_groups(scores)
    sums = scores.group_sums
    groups = len(sums)
    limit = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # swaps that tie up to rounding count as ties
    if groups <= _ENUMERATED_GROUPS:
        bits = np.arange(2 ** (groups - 1))[:, None] >> np.arange(groups - 1) & 1
        totals = sums[-1] + (1.0 - 2.0 * bits) @ sums[:-1]  # the other half mirrors this one
        pvalue, attainable = float(np.mean(np.abs(totals) >= limit)), 2.0 ** (1 - groups)
    else:
        count = sum(int(np.sum(np.abs(totals) >= limit)) for totals in _random_swaps(sums, flips, seed))
        pvalue, attainable = (1 + count) / (1 + flips), 1 / (1 + flips)
    variance = float(_jackknife(sums, scores))
    half = float(special.stdtrit(groups - 1, (1 + level) / 2)) * math.sqrt(variance)
    return PairedTest(
        method="sign flips of groups",
        question=_CASES,
        difference=scores.difference,
        pvalue=pvalue,
        low=scores.difference - half,
        high=scores.difference + half,
        level=level,
        attainable=attainable,
        note="" if np.any(sums) else _NO_DIFFERENCE,
    )


def wilcoxon_test(scores: PairedScores) -> PairedTest:
    """Wilcoxon's signed ranks of the group means, the usual test of the field (`scipy.stats.wilcoxon`).

    Null: the group means of the difference are symmetric about zero; every group counts the same, however many cases it has.
    Groups without a difference are dropped, as Wilcoxon did. Exact up to 50 groups without ties.

    Raises:
        BenchError: There is one group.
    """
    _need_groups(scores)
    means = scores.group_means
    kept = int(np.count_nonzero(means))
    found = _untested("Wilcoxon on group means", _CASES, scores)
    if not kept:
        return replace(found, attainable=1.0, note=_NO_DIFFERENCE)
    dropped = len(means) - kept
    note = f"{dropped} of {len(means)} groups without a difference are left out" if dropped else ""
    pvalue = float(stats.wilcoxon(means[means != 0]).pvalue)
    return replace(found, pvalue=pvalue, attainable=2.0 ** (1 - kept), note=note)


def seed_test(scores: PairedScores, *, equal_spread: bool = True, level: float = 0.95) -> PairedTest:
    """t-test over training runs of their mean scores on these cases.

    Null: the runs of both models draw their mean score on these cases from one normal distribution. It says nothing about
    other patients.

    Args:
        scores: What is compared.
        equal_spread: Pool the variances (Student), which the null allows and a handful of runs needs; else Welch's test, for
            models whose seeds spread differently.
        level: Coverage of the interval.

    Raises:
        BenchError: A model has one run, or all runs of each model agree although the models differ.
    """
    _need_runs(scores, "a test over cases answers for these trained networks alone")
    means = scores.a.mean(1), scores.b.mean(1)
    if equal_spread:
        degrees = sum(scores.runs) - 2
        pooled = sum(float(np.sum((m - m.mean()) ** 2)) for m in means) / degrees
        parts = [(pooled * sum(1 / runs for runs in scores.runs), degrees)]
    else:
        parts = [(float(np.var(m, ddof=1)) / len(m), len(m) - 1) for m in means]
    method = "Student's t over runs" if equal_spread else "Welch's t over runs"
    return _t_test(scores, parts, _untested(method, _RUNS, scores), level)


def seed_permutation_test(scores: PairedScores) -> PairedTest:
    """Exact permutation test over training runs of their mean scores on these cases.

    Null: the runs of both models are exchangeable. All ways to deal the runs to two models are enumerated. With two runs of
    each the smallest p-value is 1/3, with three 1/10, with four 1/35, with five 1/126: only four and more can reach 5 %.

    Raises:
        BenchError: A model has one run, or there are more than 200,000 ways (use `seed_test`).
    """
    _need_runs(scores, "a test over cases answers for these trained networks alone")
    first, second = scores.runs
    ways = math.comb(first + second, first)
    if ways > _ENUMERATED_SPLITS:
        raise BenchError(f"{first} and {second} runs can be dealt in {ways} ways, too many to enumerate; use seed_test.")
    means = np.concatenate([scores.a.mean(1), scores.b.mean(1)])
    chosen = np.array(list(itertools.combinations(range(first + second), first)))
    sums = means[chosen].sum(1)
    distances = np.abs(sums / first - (means.sum() - sums) / second)
    limit = abs(scores.difference) - 1e-9 * np.ptp(means)
    attainable = (2 if first == second else 1) / ways
    return PairedTest(
        method="permutation of runs",
        question=_RUNS,
        difference=scores.difference,
        pvalue=float(np.mean(distances >= limit)),
        attainable=attainable,
        note=f"cannot fall below {attainable:.2g} with {first} and {second} runs" if attainable > 0.05 else "",
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything a report says about two models on one data set.

    Attributes:
        difference: First model minus second, in the unit of the scores.
        groups: Number of groups.
        cases: Number of cases.
        runs: Number of training runs of each model.
        both: `two_way_test`, None where a model has one run.
        cases_only: `sign_flip_test`.
        wilcoxon: `wilcoxon_test`.
        runs_only: `seed_test`, None where a model has one run.
        notes: What the reader must know.
    """

    difference: float
    groups: int
    cases: int
    runs: tuple[int, int]
    both: PairedTest | None
    cases_only: PairedTest
    wilcoxon: PairedTest
    runs_only: PairedTest | None
    notes: tuple[str, ...]

    @property
    def default(self) -> PairedTest:
        """The test to report: for patients and trainings where there are several runs, else for patients alone."""
        return self.both or self.cases_only


def compare(scores: PairedScores, *, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compare two models by every test that their runs allow.

    Args:
        scores: What is compared.
        level: Coverage of the intervals.
        seed: Of the random sign flips.

    Raises:
        BenchError: There is one group, or nothing varies although the models differ.
    """
    several = min(scores.runs) > 1
    sizes = scores.group_sizes
    notes = []
    if not several:
        notes.append("One training run per model at least: nothing is said about newly trained networks.")
    elif min(scores.runs) == 2:
        notes.append("Two runs of a model: its spread over runs is hardly known, so only large differences can be found.")
    if len(sizes) < 10:
        notes.append(f"{len(sizes)} groups: intervals over cases are rough.")
    if 2 * sizes.max() > sizes.sum():
        notes.append(f"One group holds {sizes.max()} of {sizes.sum()} cases.")
    return Comparison(
        difference=scores.difference,
        groups=len(sizes),
        cases=int(sizes.sum()),
        runs=scores.runs,
        both=two_way_test(scores, level=level) if several else None,
        cases_only=sign_flip_test(scores, level=level, seed=seed),
        wilcoxon=wilcoxon_test(scores),
        runs_only=seed_test(scores, level=level) if several else None,
        notes=tuple(notes),
    )


def _untested(method: str, question: str, scores: PairedScores) -> PairedTest:
    return PairedTest(method=method, question=question, difference=scores.difference, pvalue=1.0)


def _jackknife(sums: Floats, scores: PairedScores) -> Floats:
    """Variance of the mean over cases, leaving out one group after the other.

    Args:
        sums: (..., groups) sums over the cases of each group.
        scores: Has the sizes of the groups.
    """
    sizes = scores.group_sizes
    cases = sizes.sum()
    shifts = (sums - sums.sum(-1, keepdims=True) / cases * sizes) / (cases - sizes)
    variance: Floats = (len(sizes) - 1) / len(sizes) * np.sum(shifts**2, axis=-1)
    return variance


def _t_test(scores: PairedScores, parts: list[tuple[float, int]], found: PairedTest, level: float) -> PairedTest:
    """A t-test from independent parts of the variance with their degrees of freedom, which it joins as Satterthwaite did."""
    difference, variance = scores.difference, sum(part for part, _ in parts)
    rounding = 1e-12 * max(float(np.abs(scores.a).max()), float(np.abs(scores.b).max()))
    if math.sqrt(variance) <= rounding:
        if abs(difference) > rounding:
            raise BenchError(
                f"{found.method}: the difference is {difference:.6g} and nothing varies, so that there is nothing to test; "
                "look whether the runs or cases are copies of one another."
            )
        return replace(found, difference=0.0, low=0.0, high=0.0, level=level, note=_NO_DIFFERENCE)
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    error = math.sqrt(variance)
    half = float(special.stdtrit(degrees, (1 + level) / 2)) * error
    pvalue = 2 * float(special.stdtr(degrees, -abs(difference) / error))
    return replace(found, pvalue=pvalue, low=difference - half, high=difference + half, level=level, degrees=degrees)


def _random_swaps(sums: Floats, flips: int, seed: int) -> list[Floats]:
    """The total difference after each of ``flips`` random swaps, in parts."""
    random = np.random.default_rng(seed)
    size = max(1, min(flips, _CHUNK // len(sums)))
    counts = [min(size, flips - begin) for begin in range(0, flips, size)]
    return [(1.0 - 2.0 * random.integers(0, 2, (count, len(sums)), dtype=np.int8)) @ sums for count in counts]


def _need_groups(scores: PairedScores) -> None:
    if len(scores.group_sizes) < 2:
        raise BenchError(
            f"all {scores.a.shape[1]} cases are of one group ({scores.groups[0]!r}); a statement about other patients needs "
            "at least two groups. seed_test answers for these cases alone."
        )


def _need_runs(scores: PairedScores, otherwise: str) -> None:
    if min(scores.runs) < 2:
        raise BenchError(
            f"the models have {scores.runs[0]} and {scores.runs[1]} training runs; a statement about newly trained networks "
            f"needs at least two of each. Train more seeds; {otherwise}."
        )
