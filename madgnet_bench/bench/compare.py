"""Has anything got worse? Two sets of runs compared cell by cell, with tolerances that the runs themselves give.

The question is whether the candidate's mean could come from new trainings of what made the baseline. For a cell with n
baseline seeds and k candidate seeds on the same cases, the fall of the mean has the squared error

    s^2 (1/n + 1/k) + v

where s is the baseline's sample deviation over seeds: the prediction error of the mean of k further trainings. v is the
variance, over the groups of cases, of the mean difference between the candidate's and the baseline's scores of a case: a
fall that a few cases make must be larger to count. Degrees of freedom are Satterthwaite's for this sum, of n - 1 and G - 1
with G groups. One-sided p-values of all cells and measures pass Holm's correction. The tolerance of a cell is the fall at
which it would have been reported, at its place in Holm's order, and is never less than the floor below which machines differ.

F. E. Satterthwaite, Biometrics Bulletin 2(6), 1946; S. Holm, Scandinavian Journal of Statistics 6(2), 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from madgnet_bench.bench.cases import read_frame
from madgnet_bench.bench.statistics.multiple import holm
from madgnet_bench.bench.store import Run
from madgnet_bench.errors import ConfigError, RunError, nearest
from madgnet_bench.protocol import MEASURES, Measure

__all__ = ["FLOOR", "LEVEL", "CaseChange", "CellChange", "Comparison", "Verdict", "compare"]

LEVEL = 0.005
"""Chance that any cell of a comparison is reported as fallen although nothing changed: one-sided 99.5 % bounds."""

FLOOR = 0.002
"""Least tolerance, as a fraction: one configuration and seed differ by this much and more from machine to machine."""

Verdict = Literal["fell", "held", "rose", "missing", "new"]

_CELL = ["network", "training_sets", "setting", "dataset", "target"]


@dataclass(frozen=True, kw_only=True)
class CaseChange:
    """A case that moved.

    Attributes:
        case_id: Its identifier.
        baseline: Mean score over the baseline's seeds.
        candidate: Mean score over the candidate's seeds.
    """

    case_id: str
    baseline: float
    candidate: float


@dataclass(frozen=True, kw_only=True)
class CellChange:
    """One measure of one network on one test set.

    Attributes:
        network: Label of the network.
        training_sets: Names of the training sets, joined.
        setting: ``seen`` or ``unseen``.
        dataset: The test set.
        target: The target.
        measure: What was measured.
        baseline: Mean over seeds of the mean over cases; None where the cell is new.
        spread: Sample standard deviation of the baseline over seeds.
        baseline_seeds: Seeds of the baseline.
        candidate: As ``baseline``; None where the cell is missing.
        candidate_seeds: Seeds of the candidate.
        tolerance: Fall up to which the cell counts as held, in the unit of the measure.
        p: One-sided p-value of the fall, corrected by Holm over all cells and measures.
        verdict: ``fell`` and ``missing`` fail a comparison.
        cases: The cases that moved most: the greatest falls first where the cell fell, the greatest rises where it rose.
    """

    network: str
    training_sets: str
    setting: str
    dataset: str
    target: str
    measure: Measure
    baseline: float | None = None
    spread: float | None = None
    baseline_seeds: int = 0
    candidate: float | None = None
    candidate_seeds: int = 0
    tolerance: float | None = None
    p: float | None = None
    verdict: Verdict
    cases: tuple[CaseChange, ...] = ()

    @property
    def change(self) -> float | None:
        """Candidate minus baseline, with the sign turned where lower is better: negative is worse."""
        if self.baseline is None or self.candidate is None:
            return None
        return (self.candidate - self.baseline) * _sign(self.measure)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        protocol: Text of the protocol.
        level: Chance of a false alarm in any cell.
        floor: Least tolerance.
        cells: In the order fell, missing, rose, new, held.
        notes: What a reader must know of the runs.
    """

    protocol: str
    level: float
    floor: float
    cells: tuple[CellChange, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether a cell fell or is missing."""
        return any(cell.verdict in ("fell", "missing") for cell in self.cells)


@dataclass(frozen=True)
class _Test:
    """The two one-sided tests of one cell, before correction."""

    change: float
    error: float
    freedom: float


def compare(
    baseline: Sequence[Run],
    candidate: Sequence[Run],
    *,
    measures: Sequence[str] = ("dsc", "mae"),
    protocol: str | None = None,
    level: float = LEVEL,
    floor: float = FLOOR,
    shown: int = 5,
) -> Comparison:
    """Compare a candidate with a baseline.

    Args:
        baseline: At least two seeds per network and training set; five or more give tolerances of use.
        candidate: Any number of seeds.
        measures: Keys of `madgnet_bench.protocol.MEASURES` that are means over cases.
        protocol: Text of the protocol, needed where the baseline holds several.
        level: Chance, over all cells, that an unchanged candidate fails; in (0, 0.5).
        floor: Least tolerance as a fraction; distances and nats have none.
        shown: How many cases are named per moved cell.

    Raises:
        ConfigError: A measure is unknown or no mean over cases, or the level is out of range.
        RunError: There is nothing to compare, one network has several configurations on one side, a set holds other cases on
            one side than on the other, or the baseline has one seed only.
    """
    if not 0 < level < 0.5:
        raise ConfigError(f"level={level:g} is out of range; use a chance between 0 and 0.5, such as {LEVEL:g}.")
    for name in measures:
        if name not in MEASURES:
            raise ConfigError(f"unknown measure {name!r}; {nearest(name, MEASURES)}")
    if not baseline or not candidate:
        raise RunError(f"no finished run in the {'candidate' if baseline else 'baseline'}; nothing was compared.")
    chosen = _protocol(baseline, protocol)
    frames = []
    for side, runs in (("baseline", baseline), ("candidate", candidate)):
        holding = [run for run in runs if any(cell.protocol == chosen for cell in run.cells)]
        _check_recipes(side, holding)
        if not holding:
            raise RunError(f"no run of the {side} holds protocol {chosen}; nothing was compared.")
        frames.append(read_frame(holding, protocol=chosen, measures=list(measures)))
    _check_manifests(baseline, candidate)
    before, after = (_cells(frame) for frame in frames)
    cells = [
        _cell(key, MEASURES[name], before.get(key), after.get(key), floor=floor)
        for key in {**before, **after}
        for name in measures
    ]
    judged = _judge(cells, level=level, floor=floor, shown=shown)
    order: dict[Verdict, int] = {"fell": 0, "missing": 1, "rose": 2, "new": 3, "held": 4}
    return Comparison(
        protocol=chosen,
        level=level,
        floor=floor,
        cells=tuple(sorted(judged, key=lambda cell: order[cell.verdict])),
        notes=tuple(_notes(baseline, candidate)),
    )


def _sign(measure: Measure) -> int:
    return 1 if measure.higher_is_better else -1


def _protocol(baseline: Sequence[Run], wanted: str | None) -> str:
    """The protocol that is compared."""
    found = sorted({cell.protocol for run in baseline for cell in run.cells})
    if wanted is not None and wanted not in found:
        raise RunError(f"no run of the baseline holds protocol {wanted}; it holds {', '.join(found)}.")
    if wanted is None and len(found) > 1:
        raise RunError(f"the baseline holds several protocols: {', '.join(found)}. Choose with --protocol.")
    return wanted or found[0]


def _check_recipes(side: str, runs: Sequence[Run]) -> None:
    """Refuse what would be averaged as one network and is not, and a seed that stands twice."""
    first: dict[tuple[str, tuple[str, ...]], Run] = {}
    seeds: dict[tuple[str, tuple[str, ...], int], Run] = {}
    for run in runs:
        other = first.setdefault((run.network, run.training_sets), run)
        if other.recipe != run.recipe:
            raise RunError(
                f"the {side} holds {run.network} on {', '.join(run.training_sets)} in two configurations: {other} and {run}. "
                "Name the runs of one of them only."
            )
        same = seeds.setdefault((run.network, run.training_sets, run.seed), run)
        if same is not run:
            raise RunError(f"the {side} holds seed {run.seed} of {run.network} twice: {same} and {run}. Name one of them.")


def _check_manifests(baseline: Sequence[Run], candidate: Sequence[Run]) -> None:
    known = {name: (sha256, run) for run in baseline for name, sha256 in run.manifests.items()}
    for run in candidate:
        for name, sha256 in run.manifests.items():
            if name in known and known[name][0] != sha256:
                raise RunError(
                    f"data set {name} does not hold the same cases in {known[name][1]} and in {run}, so their scores do not "
                    "compare. If the change is meant, make a new baseline with --update."
                )


def _cells(frame: pd.DataFrame) -> dict[tuple[Any, ...], pd.DataFrame]:
    return {tuple(key): group for key, group in frame.groupby(_CELL)}


def _cell(
    key: tuple[Any, ...], measure: Measure, before: pd.DataFrame | None, after: pd.DataFrame | None, *, floor: float
) -> tuple[CellChange, _Test | None, pd.DataFrame | None]:
    """Describe a cell, and test it where both sides have it."""
    names: dict[str, Any] = dict(zip(_CELL, map(str, key), strict=True))
    cell = CellChange(**names, measure=measure, verdict="held")
    table_before, table_after = (None if frame is None else _by_case(frame, measure) for frame in (before, after))
    if table_before is not None:
        means = table_before.mean(axis=0)
        spread = float(means.std(ddof=1)) if len(means) > 1 else None
        cell = replace(cell, baseline=float(means.mean()), spread=spread, baseline_seeds=len(means), verdict="missing")
    if table_after is not None:
        means = table_after.mean(axis=0)
        cell = replace(cell, candidate=float(means.mean()), candidate_seeds=len(means), verdict="new")
    if before is None or table_before is None or table_after is None:
        return cell, None, None
    if cell.spread is None:
        raise RunError(
            f"the baseline has one seed of {cell.network} on {cell.training_sets}: without a spread over seeds there is no "
            "tolerance. Train at least two seeds, better five."
        )
    differ = table_before.index.symmetric_difference(table_after.index)
    if len(differ):
        raise RunError(
            f"{cell.network} on {cell.dataset}, {cell.target}: baseline and candidate do not hold the same cases "
            f"({len(table_before)} and {len(table_after)}; case {differ[0]} is in one alone). Test these runs again."
        )
    groups = before.drop_duplicates("case_id").set_index("case_id")["group_id"]
    cases = pd.DataFrame({"baseline": table_before.mean(axis=1), "candidate": table_after.mean(axis=1)})
    cases["change"] = (cases["candidate"] - cases["baseline"]) * _sign(measure)
    return replace(cell, verdict="held"), _test(cell, cases["change"], groups), cases


def _by_case(frame: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Scores as cases x seeds.

    Raises:
        RunError: A seed lacks a case that another has.
    """
    table = frame.pivot(index="case_id", columns="seed", values=measure.name)
    if table.isna().to_numpy().any():
        case = str(table.index[table.isna().any(axis=1)][0])
        where = ", ".join(str(frame[name].iloc[0]) for name in ("network", "dataset", "target"))
        raise RunError(f"{where}: case {case} is in the results of some seeds only. Test these runs again.")
    return table


def _test(cell: CellChange, change: pd.Series, groups: pd.Series) -> _Test:
    """The error of a cell's change and its degrees of freedom."""
    assert cell.spread is not None
    n, k = cell.baseline_seeds, cell.candidate_seeds
    seeds = cell.spread**2 * (1 / n + 1 / k)
    sums = (change - change.mean()).groupby(groups.reindex(change.index)).sum()
    count = len(sums)
    cases = float((sums**2).sum()) / len(change) ** 2 * count / (count - 1) if count > 1 else 0.0
    total = seeds + cases
    parts = seeds**2 / (n - 1) + (cases**2 / (count - 1) if count > 1 else 0.0)
    return _Test(float(change.mean()), math.sqrt(total), total**2 / parts if parts else math.inf)


def _judge(
    cells: Sequence[tuple[CellChange, _Test | None, pd.DataFrame | None]], *, level: float, floor: float, shown: int
) -> list[CellChange]:
    """Correct the p-values, in each direction for itself, and give verdicts."""
    tests = [test for _, test, _ in cells if test is not None]
    falls = _holm([_p(-test.change, test) for test in tests], level)
    rises = _holm([_p(test.change, test) for test in tests], level)
    judged = []
    place = 0
    for cell, test, cases in cells:
        if test is None or cases is None:
            judged.append(cell)
            continue
        (p, alpha), (p_rise, _) = falls[place], rises[place]
        place += 1
        least = floor if cell.measure.unit == "fraction" else 0.0
        bound = test.error * float(stats.t.isf(alpha, test.freedom)) if test.error else 0.0
        verdict: Verdict = "held"
        if p < level and -test.change > least:
            verdict = "fell"
        elif p_rise < level and test.change > least:
            verdict = "rose"
        moved = _moved(cases, verdict, shown)
        judged.append(replace(cell, tolerance=max(bound, least), p=p, verdict=verdict, cases=moved))
    return judged


def _p(fall: float, test: _Test) -> float:
    """One-sided p-value of a fall."""
    if test.error == 0:
        return 0.0 if fall > 0 else 1.0
    return float(stats.t.sf(fall / test.error, test.freedom))


def _holm(p_values: Sequence[float], level: float) -> list[tuple[float, float]]:
    """Corrected p-value and the level that each raw one had to be below, in the given order."""
    if not p_values:
        return []
    count, adjusted = len(p_values), holm(p_values, level=level).adjusted
    first_kept = int((adjusted < level).sum())
    levels = [0.0] * count
    for rank, position in enumerate(np.argsort(p_values, kind="stable").tolist()):
        levels[position] = level / (count - min(rank, first_kept, count - 1))
    return [(float(p), one) for p, one in zip(adjusted, levels, strict=True)]


def _moved(cases: pd.DataFrame, verdict: Verdict, shown: int) -> tuple[CaseChange, ...]:
    """The cases that moved most in the direction of the verdict."""
    if verdict == "held":
        return ()
    ordered = cases.sort_values("change", ascending=verdict == "fell", kind="stable").head(shown)
    return tuple(
        CaseChange(case_id=str(name), baseline=float(row["baseline"]), candidate=float(row["candidate"]))
        for name, row in ordered.iterrows()
    )


def _notes(baseline: Sequence[Run], candidate: Sequence[Run]) -> Iterable[str]:
    """Few seeds, and configurations or versions that differ between the sides."""
    seeds: dict[tuple[str, str], int] = {}
    recipes: dict[tuple[str, str], str] = {}
    for run in baseline:
        key = (run.network, ", ".join(run.training_sets))
        seeds[key] = seeds.get(key, 0) + 1
        recipes[key] = run.recipe
    for (network, sets), count in seeds.items():
        if count < 5:
            yield f"The baseline has {count} seeds of {network} on {sets}; with fewer than five its tolerances are wide."
    changed: Mapping[tuple[str, str], Run] = {(run.network, ", ".join(run.training_sets)): run for run in candidate}
    for key, run in changed.items():
        if key in recipes and recipes[key] != run.recipe:
            yield f"{key[0]} on {key[1]} has another configuration than in the baseline; see {run.folder.config_file}."
    for text in dict.fromkeys(text for run in candidate for text in run.deviations):
        yield f"Deviation of the candidate: {text}"
