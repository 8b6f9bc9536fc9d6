"""How often the tests of `madgnet_bench.bench.statistics` are wrong: the tables of docs/statistics.md, by simulation.

    python benchmarks/statistics_check.py [--simulations 10000] [--tables size seeds coverage ranks]

Scores look like Dice coefficients: bounded, skewed to the left, mean 0.83, median 0.88. A case's score is the logistic
function of a normal sum of

- the difficulty of its group and its own, which both models share,
- what a model has of its own in each group and case, whatever the run,
- what a run has of its own on all cases, in each group, and in each case.

50 groups hold 1 to 13 cases each, 140 together. Under the null both models draw every part from the same distributions, so
that their expected scores are equal (to 0.11 points in the world where their runs spread differently); `World.shift` makes the
second worse. On one core the tables take about half an hour.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from madgnet_bench.bench.resampling import interval, replicates, weights_key
from madgnet_bench.bench.statistics import (
    PairedScores,
    friedman_test,
    nemenyi_difference,
    seed_permutation_test,
    seed_test,
    sign_flip_test,
    two_way_test,
    wilcoxon_test,
)

Array = NDArray[np.float64]
FLIPS = 999
RANK_TESTS = ("friedman_test", "its F", "its chi-square", "nemenyi_test")


@dataclass(frozen=True, kw_only=True)
class World:
    """Where scores come from. Standard deviations are those of logits; around a score of 0.88, 0.1 is one point.

    Attributes:
        groups: Number of groups.
        equal_groups: All groups hold four cases, in place of unequal numbers.
        runs: Training runs of each model.
        model: What a model has of its own in each group and in each case.
        run: What a run has of its own on all cases, of the first and the second model.
        run_case: What a run has of its own in each group and in each case.
        shift: Subtracted from the second model's logits.
    """

    groups: int = 50
    equal_groups: bool = False
    runs: int = 3
    model: float = 0.3
    run: tuple[float, float] = (0.08, 0.08)
    run_case: float = 0.3
    shift: float = 0.0

    def sizes(self) -> NDArray[np.intp]:
        """Cases of each group: the same in every simulation."""
        if self.equal_groups:
            return np.full(self.groups, 4)
        drawn = np.random.default_rng(7).normal(1.0, 0.8, self.groups)
        return np.maximum(1, np.rint(np.exp(drawn))).astype(np.intp)

    def draw(self, simulations: int, seed: int) -> Iterator[PairedScores]:
        """Simulate as many data sets, in parts that fit into memory."""
        random = np.random.default_rng(seed)
        groups = np.repeat(np.arange(self.groups), self.sizes())
        for begin in range(0, simulations, 500):
            first, second = self._scores(random, min(500, simulations - begin), groups)
            for a, b in zip(first, second, strict=True):
                yield PairedScores(a, b, groups)

    def _scores(self, random: np.random.Generator, count: int, groups: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        cases, runs = len(groups), self.runs

        def normal(*shape: int) -> NDArray[np.float32]:
            return random.standard_normal((count, *shape), dtype=np.float32)

        shared = 2 + 0.8 * normal(self.groups)[:, groups] + 0.6 * normal(cases)
        scores = []
        for run, shift in zip(self.run, (0.0, self.shift), strict=True):
            own = shared - shift + self.model * (normal(self.groups)[:, groups] + normal(cases))
            each = run * normal(runs, 1) + self.run_case * (normal(runs, self.groups)[:, :, groups] + normal(runs, cases))
            scores.append(special.expit(own[:, None, :] + each))
        return scores

    def truth(self) -> float:
        """Expected difference of the scores, first minus second, by quadrature over the normal logits."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        means = []
        for run, shift in zip(self.run, (0.0, self.shift), strict=True):
            spread = np.sqrt(0.8**2 + 0.6**2 + 2 * self.model**2 + run**2 + 2 * self.run_case**2)
            means.append(float(weights @ special.expit(2 - shift + spread * nodes) / weights.sum()))
        return means[0] - means[1]


Test = Callable[[PairedScores], float]

TESTS: dict[str, Test] = {
    "two_way_test": lambda scores: two_way_test(scores).pvalue,
    "sign_flip_test": lambda scores: sign_flip_test(scores, flips=FLIPS).pvalue,
    "wilcoxon_test": lambda scores: wilcoxon_test(scores).pvalue,
    "seed_test": lambda scores: seed_test(scores).pvalue,
    "seed_test(equal_spread=False)": lambda scores: seed_test(scores, equal_spread=False).pvalue,
    "seed_permutation_test": lambda scores: seed_permutation_test(scores).pvalue,
}

NAIVE: dict[str, Test] = {
    "t-test on cases": lambda scores: float(stats.ttest_1samp(scores.a.mean(0) - scores.b.mean(0), 0).pvalue),
    "Wilcoxon on cases": lambda scores: float(stats.wilcoxon(scores.a.mean(0) - scores.b.mean(0)).pvalue),
    "t-test on all runs x cases": lambda scores: float(stats.ttest_rel(scores.a.ravel(), scores.b.ravel()).pvalue),
}
"""What is often done: cases taken for independent, runs averaged or taken for more cases."""

TYPICAL = World()
FIXED_NETWORKS = World(run=(0.0, 0.0))
FIXED_CASES = World(model=0.0, run=(0.15, 0.15), run_case=0.15)

WORLDS = {
    "typical": TYPICAL,
    "runs agree": FIXED_NETWORKS,
    "runs dominate": World(model=0.0, run=(0.3, 0.3)),
    "models differ in no case": World(model=0.0, run=(0.0, 0.0)),
    "one model spreads 4 x as much": World(run=(0.05, 0.2)),
}


def rejections(world: World, tests: Mapping[str, Test], *, simulations: int, seed: int = 1) -> dict[str, float]:
    """Share of simulations in which each test finds a difference at 5 %."""
    counts = dict.fromkeys(tests, 0)
    for scores in world.draw(simulations, seed):
        for name, test in tests.items():
            counts[name] += test(scores) <= 0.05
    return {name: count / simulations for name, count in counts.items()}


def fixed_case_rejections(world: World, tests: Mapping[str, Test], *, simulations: int, seed: int = 1) -> dict[str, float]:
    """As `rejections`, where all simulations share one set of cases and only trainings differ."""
    random = np.random.default_rng(seed)
    sizes = world.sizes()
    groups = np.repeat(np.arange(world.groups), sizes)
    difficulty = 2 + 0.8 * random.standard_normal(world.groups)[groups] + 0.6 * random.standard_normal(len(groups))
    counts = dict.fromkeys(tests, 0)
    for _ in range(simulations):
        both = []
        for run in world.run:
            each = run * random.standard_normal((world.runs, 1)) + world.run_case * (
                random.standard_normal((world.runs, world.groups))[:, groups]
                + random.standard_normal((world.runs, len(groups)))
            )
            both.append(special.expit(difficulty + each))
        scores = PairedScores(both[0], both[1], groups)
        for name, test in tests.items():
            counts[name] += test(scores) <= 0.05
    return {name: count / simulations for name, count in counts.items()}


def coverage(world: World, *, simulations: int, seed: int = 2) -> dict[str, float]:
    """Share of simulations whose 95 % interval holds the true difference."""
    truth = world.truth()
    counts = {"two_way_test": 0, "sign_flip_test": 0, "bootstrap over groups": 0}
    part: list[PairedScores] = []
    for number, scores in enumerate(world.draw(simulations, seed), start=1):
        for name, test in (("two_way_test", two_way_test(scores)), ("sign_flip_test", sign_flip_test(scores, flips=1))):
            assert test.low is not None and test.high is not None
            counts[name] += test.low <= truth <= test.high
        part.append(scores)
        if len(part) == 250 or number == simulations:
            counts["bootstrap over groups"] += _bootstrap_hits(part, truth, number)
            part = []
    return {name: count / simulations for name, count in counts.items()}


def _bootstrap_hits(part: list[PairedScores], truth: float, number: int) -> int:
    """How many bootstrap intervals of the leaderboard hold the truth; the draws differ from part to part."""
    sizes = part[0].group_sizes
    sums = np.stack([scores.group_sums for scores in part], axis=1)
    key = weights_key(f"simulation {number}", map(str, range(len(sizes))))
    ends = [interval(column, len(sizes)) for column in replicates(sums, sizes.astype(np.int64), key).T]
    return sum(end is not None and end[0] <= truth <= end[1] for end in ends)


def rank_rejections(models: int, datasets: int, *, simulations: int, seed: int = 3) -> dict[str, float]:
    """Share of simulations without any difference in which Friedman's tests reject, and Nemenyi's tells any pair apart."""
    random = np.random.default_rng(seed)
    difference = nemenyi_difference(models, datasets)
    counts = dict.fromkeys(RANK_TESTS, 0)
    for number in range(simulations):
        result = friedman_test(random.standard_normal((datasets, models)), orders=FLIPS, seed=number)
        apart = bool(np.ptp(result.average_ranks) >= difference)
        counts["friedman_test"] += result.pvalue <= 0.05
        counts["its F"] += result.f_pvalue <= 0.05
        counts["its chi-square"] += float(stats.chi2.sf(result.chi_square, models - 1)) <= 0.05
        counts["nemenyi_test"] += apart
    return {name: count / simulations for name, count in counts.items()}


def _row(name: str, values: Mapping[str, float] | list[str]) -> str:
    cells = values if isinstance(values, list) else [f"{100 * value:.1f}" for value in values.values()]
    return f"| {name} | " + " | ".join(cells) + " |"


def _head(first: str, names: list[str]) -> str:
    return _row(first, names) + "\n" + "|---|" + "---:|" * len(names)


def print_size(simulations: int) -> None:
    """Each test under its own null, with 10 and 50 groups."""
    print("\n## size\n\n" + _head("test, null", ["groups", "2 runs", "3 runs", "5 runs"]))
    over_cases = {name: TESTS[name] for name in ("sign_flip_test", "wilcoxon_test")}
    over_runs = {name: TESTS[name] for name in ("seed_test", "seed_test(equal_spread=False)", "seed_permutation_test")}
    both = {"two_way_test": TESTS["two_way_test"]}
    cells: dict[tuple[str, int], list[str]] = {}
    for groups in (10, 50):
        for runs in (2, 3, 5):
            typical, agreeing, fixed = (replace(w, groups=groups, runs=runs) for w in (TYPICAL, FIXED_NETWORKS, FIXED_CASES))
            found = rejections(typical, both, simulations=simulations)
            found |= rejections(agreeing, over_cases, simulations=simulations)
            found |= fixed_case_rejections(fixed, over_runs, simulations=simulations)
            for name, value in found.items():
                cells.setdefault((name, groups), []).append(f"{100 * value:.1f}")
    for (name, groups), values in sorted(cells.items(), key=lambda item: list(TESTS).index(item[0][0])):
        print(_row(f"`{name}`", [str(groups), *values]), flush=True)


def print_seeds(simulations: int) -> None:
    """What every test does in every world: false positives, and in the typical one power where the second model is worse."""
    for title, worlds, shift in (("false positives", WORLDS, 0.0), ("power", {"typical": TYPICAL}, 0.25)):
        truth = 100 * replace(TYPICAL, shift=shift).truth()
        print(f"\n## {title}: true difference {truth:.2f} points\n\n" + _head("world", ["runs", *TESTS, *NAIVE]))
        for name, world in worlds.items():
            for runs in (2, 3, 5):
                found = rejections(replace(world, runs=runs, shift=shift), TESTS | NAIVE, simulations=simulations)
                print(_row(name, [str(runs), *(f"{100 * value:.1f}" for value in found.values())]), flush=True)


def print_coverage(simulations: int) -> None:
    """Coverage of the 95 % intervals."""
    print(
        "\n## coverage\n\n" + _head("world", ["groups", "runs", "two-way t", "jackknife over groups", "bootstrap over groups"])
    )
    for name, world in (("runs agree", FIXED_NETWORKS), ("typical", TYPICAL)):
        for groups in (10, 50):
            for runs in (2, 3, 5):
                found = coverage(replace(world, groups=groups, runs=runs, shift=0.25), simulations=simulations)
                print(_row(name, [str(groups), str(runs), *(f"{100 * value:.1f}" for value in found.values())]), flush=True)


def print_ranks(simulations: int) -> None:
    """Friedman and Nemenyi without differences."""
    print("\n## ranks\n\n" + _head("models", ["data sets", *RANK_TESTS]))
    for models in (3, 5, 10):
        for datasets in (3, 5, 7, 13):
            found = rank_rejections(models, datasets, simulations=simulations)
            print(_row(str(models), [str(datasets), *(f"{100 * value:.1f}" for value in found.values())]), flush=True)


TABLES = {"size": print_size, "seeds": print_seeds, "coverage": print_coverage, "ranks": print_ranks}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    options = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    for name in options.tables:
        TABLES[name](options.simulations)


if __name__ == "__main__":
    main()
