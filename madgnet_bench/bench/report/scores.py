"""What the report says about single cases: how they spread, which are hardest, and which models differ on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.bench.cases import read_frame
from madgnet_bench.bench.figures import Quantiles
from madgnet_bench.bench.resampling import read_all_replicates
from madgnet_bench.bench.statistics import (
    Friedman,
    Nemenyi,
    PairedScores,
    effect_sizes,
    friedman_test,
    holm,
    nemenyi_test,
    rank_stability,
    sign_flip_test,
    two_way_test,
)
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Row, Table
from madgnet_bench.errors import BenchError

__all__ = [
    "ALL_PAIRS",
    "CellScores",
    "HardCase",
    "Pair",
    "Ranks",
    "Standing",
    "cell_scores",
    "compare_pairs",
    "compare_ranks",
    "hardest_cases",
    "spread",
]

ALL_PAIRS = 5
"""Up to so many models every pair is tested; of more, the first against each other one."""

_MANY_GROUPS = 500
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellScores:
    """The scores of every run on one column of the table.

    Attributes:
        column: Position of the column.
        cases: (cases,) their names, sorted.
        groups: (cases,) their groups, as numbers.
        runs: (cases,) scores by run id and protocol.
    """

    column: int
    cases: NDArray[Any]
    groups: NDArray[np.intp]
    runs: dict[tuple[str, str], NDArray[np.float64]]

    def of(self, row: Row) -> NDArray[np.float64] | None:
        """(runs, cases) scores of a model; None where one of its runs has none here."""
        keys = [(run, row.protocol) for run in row.run_ids]
        return np.stack([self.runs[key] for key in keys]) if all(key in self.runs for key in keys) else None


def cell_scores(table: Table, runs: Sequence[Run]) -> list[CellScores]:
    """Read the scores of single cases, column by column of a table.

    Args:
        table: Its measure is a mean over cases.
        runs: Those of the table.

    Raises:
        RunError: A case table is damaged, or runs do not hold the same cases.
    """
    import pandas as pd

    name = table.measure.name
    frames = []
    for protocol in dict.fromkeys(row.protocol for row in table.rows):
        members = {run for row in table.rows if row.protocol == protocol for run in row.run_ids}
        frame = read_frame([run for run in runs if run.run_id in members], protocol=protocol, measures=[name])
        wanted = ["run_id", "setting", "dataset", "target", "case_id", "group_id", name]
        frames.append(frame[wanted].assign(protocol=protocol))
    parts = dict(list(pd.concat(frames).groupby(["setting", "dataset", "target"], sort=False)))
    cells = []
    for place, column in enumerate(table.columns):
        part = parts[(column.setting, column.dataset, column.target)]
        wide = part.pivot(index="case_id", columns=["run_id", "protocol"], values=name).sort_index()
        names = part.drop_duplicates("case_id").set_index("case_id")["group_id"].loc[wide.index]
        keys = [(str(key[0]), str(key[1])) for key in wide.columns]
        found = {key: wide.iloc[:, at].to_numpy(np.float64) for at, key in enumerate(keys)}
        complete = {key: values for key, values in found.items() if np.isfinite(values).all()}
        groups = pd.factorize(names, sort=True)[0].astype(np.intp)
        cells.append(CellScores(column=place, cases=wide.index.to_numpy(), groups=groups, runs=complete))
    return cells


def spread(table: Table, cells: Sequence[CellScores]) -> list[Quantiles]:
    """Quantiles over cases of the mean over seeds, per model and test set; incomplete ones are left out."""
    found = []
    for position, row in enumerate(table.rows):
        for cell in cells:
            scores = cell.of(row)
            if scores is not None:
                means = scores.mean(0)
                levels = tuple(float(level) for level in np.quantile(means, _LEVELS))
                found.append(
                    Quantiles(
                        row=position,
                        column=cell.column,
                        cases=len(means),
                        mean=float(means.mean()),
                        levels=levels,  # type: ignore[arg-type]
                    )
                )
    return found


@dataclass(frozen=True, kw_only=True)
class HardCase:
    """A case that all models find hard.

    Attributes:
        column: Position of the test set.
        case_id: Its name.
        mean: Mean score over the models.
        worst: Score and label of the model that is worst on it.
        best: Likewise of the best.
    """

    column: int
    case_id: str
    mean: float
    worst: tuple[float, str]
    best: tuple[float, str]


def hardest_cases(table: Table, cells: Sequence[CellScores], *, count: int = 3) -> list[HardCase]:
    """The cases of every test set with the worst mean over models, each model being the mean over its seeds.

    Models that are prompted with the reference count only where there are no others.
    """
    sign = 1 if table.measure.higher_is_better else -1
    rows = [row for row in table.rows if not row.prompted] or table.rows
    hard = []
    for cell in cells:
        scored = [(row.title, scores.mean(0)) for row in rows if (scores := cell.of(row)) is not None]
        if not scored:
            continue
        stacked = np.stack([values for _, values in scored])
        means = stacked.mean(0)
        for place in np.argsort(sign * means, kind="stable")[:count]:
            order = np.argsort(sign * stacked[:, place], kind="stable")
            worst, best = ((float(stacked[model, place]), scored[model][0]) for model in (int(order[0]), int(order[-1])))
            case = str(cell.cases[place])
            hard.append(HardCase(column=cell.column, case_id=case, mean=float(means[place]), worst=worst, best=best))
    return hard


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models on one test set. Differences are first minus second, in the unit in which the measure is stored.

    Attributes:
        first: Position of the first model.
        second: Position of the second.
        column: Position of the test set.
        difference: Over cases and runs.
        groups: Number of groups of cases.
        low: Lower end of the 95% interval; None where the test cannot be made.
        high: Its upper end.
        pvalue: Two-sided; None where the test cannot be made.
        adjusted: After Holm's correction over all tests of the list.
        cohen_dz: Mean over standard deviation of the differences of groups.
        superiority: Part of the groups in which the first model is better.
        method: Name of the test, or why there is none.
    """

    first: int
    second: int
    column: int
    difference: float
    groups: int
    low: float | None = None
    high: float | None = None
    pvalue: float | None = None
    adjusted: float | None = None
    cohen_dz: float | None = None
    superiority: float | None = None
    method: str = ""


def compare_pairs(table: Table, cells: Sequence[CellScores], *, step: Callable[[], None] = lambda: None) -> list[Pair]:
    """Test models against each other on every test set: all pairs of up to `ALL_PAIRS`, else the first against the others.

    Models that are prompted with the reference take no part.

    For patients and trainings where both models have several runs, else for patients alone, as
    `madgnet_bench.bench.statistics.compare` chooses; p-values are corrected for the number of all tests in the list.

    Args:
        table: The table.
        cells: The scores of its cases.
        step: Called after each test set.
    """
    count = sum(not row.prompted for row in table.rows)  # these stand first
    chosen = list(itertools.combinations(range(count), 2)) if count <= ALL_PAIRS else [(0, other) for other in range(1, count)]
    pairs = []
    for cell in cells:
        scores = {position: cell.of(row) for position, row in enumerate(table.rows)}
        for first, second in chosen:
            a, b = scores[first], scores[second]
            if a is not None and b is not None:
                paired = PairedScores(a, b, cell.groups)
                pairs.append(_test(first, second, cell.column, paired, higher=table.measure.higher_is_better))
        step()
    tested = [place for place, pair in enumerate(pairs) if pair.pvalue is not None]
    if tested:
        adjusted = holm([pairs[place].pvalue for place in tested]).adjusted  # type: ignore[arg-type]
        for place, value in zip(tested, adjusted, strict=True):
            pairs[place] = Pair(**pairs[place].__dict__ | {"adjusted": float(value)})
    return pairs


def _test(first: int, second: int, column: int, scores: PairedScores, *, higher: bool) -> Pair:
    """Test one pair; where that cannot be done, say why."""
    groups = len(scores.group_sizes)
    known: dict[str, Any] = {"first": first, "second": second, "column": column, "groups": groups}
    known["difference"] = scores.difference
    try:
        flips = 1999 if groups > _MANY_GROUPS else 9999
        test = two_way_test(scores) if min(scores.runs) > 1 else sign_flip_test(scores, flips=flips)
        sizes = effect_sizes(scores, higher_is_better=higher)
    except BenchError as error:
        return Pair(**known, method=str(error))
    return Pair(
        **known,
        low=test.low,
        high=test.high,
        pvalue=test.pvalue,
        cohen_dz=sizes.cohen_dz,
        superiority=sizes.superiority,
        method=test.method,
    )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How firm the place of a model is.

    Attributes:
        label: The model.
        rank: Its average rank over the test sets.
        low: Lower end of the 95% interval of the average rank when cases are resampled; None where it cannot be done.
        high: Its upper end.
        best: Share of the resamples in which it is first.
    """

    label: str
    rank: float
    low: float | None = None
    high: float | None = None
    best: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranks:
    """The models compared by their ranks over test sets.

    Attributes:
        labels: The models that are complete, in the order of the table.
        friedman: Whether any differ.
        nemenyi: Which do.
        standings: By average rank.
    """

    labels: tuple[str, ...]
    friedman: Friedman
    nemenyi: Nemenyi
    standings: tuple[Standing, ...]


def compare_ranks(table: Table, runs: Sequence[Run], *, shown: int) -> Ranks:
    """Rank the first ``shown`` complete models over all test sets; of a set of several targets, by the mean over these.

    Targets of one set are of the same images: ranked one by one, the tests would take them for sets of their own.

    Args:
        table: The table.
        runs: Those of the table.
        shown: How many models take part.

    Raises:
        BenchError: There are fewer than 3 test sets or 2 complete models.
    """
    rows = [row for row in table.rows if not row.prompted and all(score.mean is not None for score in row.scores)][:shown]
    means = [[np.mean([row.scores[place].mean for place in places]) for row in rows] for places in _by_set(table)]
    friedman = friedman_test(np.round(np.array(means, np.float64), 12), higher_is_better=table.measure.higher_is_better)
    nemenyi = nemenyi_test(friedman)
    firm = _stability(table, rows, runs)
    standings = [
        Standing(label=row.label, rank=float(friedman.average_ranks[place]), **(firm[place] if firm else {}))
        for place, row in enumerate(rows)
    ]
    labels = tuple(row.label for row in rows)
    ordered = tuple(sorted(standings, key=lambda standing: standing.rank))
    return Ranks(labels=labels, friedman=friedman, nemenyi=nemenyi, standings=ordered)


def _by_set(table: Table) -> list[list[int]]:
    """Positions of the columns of each test set."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, column in enumerate(table.columns):
        places.setdefault((column.setting, column.dataset), []).append(place)
    return list(places.values())


def _stability(table: Table, rows: Sequence[Row], runs: Sequence[Run]) -> list[dict[str, float]]:
    """Interval of the average rank and share of first places, per model; nothing for measures that are no means over cases."""
    by_id = {run.run_id: run for run in runs}
    members = [by_id[run] for row in rows for run in row.run_ids]
    found = read_all_replicates([run.folder for run in members], table.measure.name)
    if not all(found):
        return []
    replicates = dict(zip((run.run_id for run in members), found, strict=True))
    keys = [(column.setting, column.dataset, column.target) for column in table.columns]

    def draws(row: Row, places: Sequence[int]) -> NDArray[np.float64]:
        """Replicates of a model's mean over seeds and targets."""
        found = [replicates[run][(*keys[place], row.protocol)].values for place in places for run in row.run_ids]
        return np.asarray(np.mean(found, axis=0))

    values = [[draws(row, places) for places in _by_set(table)] for row in rows]
    firm = rank_stability(values, higher_is_better=table.measure.higher_is_better)
    return [
        {"low": float(low), "high": float(high), "best": float(best)}
        for low, high, best in zip(firm.low, firm.high, firm.best, strict=True)
    ]
