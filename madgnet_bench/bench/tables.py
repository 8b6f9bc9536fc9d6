"""The leaderboard: models x test sets, seen and unseen apart, their gap and the mean rank.

A score is the mean over the seeds of the mean over the cases. Nothing incomplete is averaged: a cell that lacks a seed or
cases is missing, a row with a missing cell has no mean over the columns that it stands in and no rank, and runs that do
not compare (another protocol, other cases under one name, one seed twice) are an error.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from madgnet_bench.bench.store import Run
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.protocol import MEASURES, Measure, Protocol

__all__ = ["Column", "Row", "Score", "Table", "build_tables", "common_measures"]

_ROW = ["network", "image_size", "epochs", "version", "recipe"]
_COLUMN = ["setting", "dataset", "target"]
_GREATEST = {"fraction": 1.02, "distance": sys.float_info.max, "nats": sys.float_info.max}
"""Greatest value by unit: an E-measure is divided by the pixels less one, and so exceeds 1 by a hair."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One test set and target.

    Attributes:
        setting: ``"seen"`` or ``"unseen"``.
        dataset: Name of the test set.
        target: Name of the target.
        label: What the header shows: the data set, with the target where the table has several of it.
        modality: Imaging modality.
        cases: Number of cases of a complete cell.
        both_empty: Least and greatest number, over the runs, of cases where reference and prediction are both empty.
    """

    setting: str
    dataset: str
    target: str
    label: str
    modality: str
    cases: int
    both_empty: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One cell of the table, in the unit of the measure.

    Attributes:
        mean: Mean over seeds of the mean over cases; None where the cell is incomplete.
        std: Sample standard deviation over seeds; None where it is incomplete or has one seed.
        missing: What an incomplete cell lacks; empty otherwise.
    """

    mean: float | None
    std: float | None
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model: runs that differ in nothing but the seed.

    Attributes:
        label: What the table shows: the network, marked where it is stale or where two rows would read alike.
        network: Label of the network.
        parameters: Its number of parameters.
        image_size: Side in pixels of the training images.
        epochs: Number of epochs.
        version: Version of the package that made the runs.
        stale: True where that is not the present one.
        recipe: Hash of the configuration without the seed.
        seeds: The seeds, sorted.
        run_ids: The runs, in the order of the seeds.
        scores: One per column of the table.
        seen_mean: Mean over the seen columns; None where one is missing or there are none.
        unseen_mean: Likewise over the unseen columns.
        mean_rank: Mean over all columns of the rank among the complete rows; None where the row is incomplete.
    """

    label: str
    network: str
    parameters: int
    image_size: int
    epochs: int
    version: str
    stale: bool
    recipe: str
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    scores: tuple[Score, ...]
    seen_mean: float | None
    unseen_mean: float | None
    mean_rank: float | None

    @property
    def gap(self) -> float | None:
        """Seen mean minus unseen mean."""
        return None if self.seen_mean is None or self.unseen_mean is None else self.seen_mean - self.unseen_mean


@dataclass(frozen=True, kw_only=True)
class Table:
    """The models that share training sets and protocol, best first.

    Attributes:
        measure: What is shown.
        protocol: Text of the protocol.
        training_sets: Names of the training sets.
        columns: Seen test sets, then unseen ones.
        rows: By mean rank, then unseen mean; incomplete rows last.
        notes: What a reader must know of single cells, rows and columns.
    """

    measure: Measure
    protocol: str
    training_sets: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_tables(runs: Sequence[Run], measure: str = "dsc", *, protocol: str | None = None) -> list[Table]:
    """Build one table per set of training sets.

    Args:
        runs: At least one run.
        measure: A key of `madgnet_bench.protocol.MEASURES`.
        protocol: Text of the protocol to show, needed where the runs hold several.

    Raises:
        ConfigError: The measure or the text of the protocol is unknown.
        RunError: The runs hold several protocols and none is chosen, or not the chosen one; a value is no fraction; or runs
            that would share a column or a row do not compare. The message names the runs.
    """
    if measure not in MEASURES:
        raise ConfigError(f"unknown measure {measure!r}; valid: {', '.join(MEASURES)}.")
    if not runs:
        raise RunError("no finished run to tabulate.")
    chosen = _choose_protocol(runs, protocol)
    blocks: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if any(cell.protocol == chosen for cell in run.cells):
            blocks.setdefault(run.training_sets, []).append(run)
    return [_build_table(block, MEASURES[measure], chosen) for _, block in sorted(blocks.items())]


def common_measures(runs: Sequence[Run]) -> list[str]:
    """The measures that every cell of the runs holds, in the order of `madgnet_bench.protocol.MEASURES`."""
    cells = [cell for run in runs for cell in run.cells]
    return [name for name in MEASURES if all(name in cell.measures for cell in cells)]


def _choose_protocol(runs: Sequence[Run], wanted: str | None) -> str:
    """The one protocol of the table."""
    found: dict[str, int] = {}
    for run in runs:
        for name in {cell.protocol for cell in run.cells}:
            found[name] = found.get(name, 0) + 1
    counts = ", ".join(f"{name} ({count} run{'s' * (count > 1)})" for name, count in sorted(found.items()))
    if wanted is None:
        if len(found) > 1:
            raise RunError(f"the runs hold several protocols, whose scores do not compare: {counts}. Choose with --protocol.")
        return next(iter(found))
    chosen = wanted if wanted in found else str(Protocol.parse(wanted))
    if chosen not in found:
        raise RunError(f"no run holds protocol {chosen}; the runs hold {counts}.")
    return chosen


def _build_table(runs: Sequence[Run], measure: Measure, protocol: str) -> Table:
    """Build the table of runs that share their training sets."""
    _check_manifests(runs)
    frame = _frame(runs, measure, protocol)
    columns = _columns(frame)
    complete = frame["cases"] == frame.groupby(_COLUMN)["cases"].transform("max")
    values = frame[complete].pivot(index=[*_ROW, "seed", "run_id"], columns=_COLUMN, values="value")
    keys = [(column.setting, column.dataset, column.target) for column in columns]
    index = pd.MultiIndex.from_frame(frame[[*_ROW, "seed", "run_id"]].drop_duplicates())
    values = values.reindex(index=index, columns=pd.MultiIndex.from_tuples(keys, names=_COLUMN)).sort_index()
    ranks = _mean_ranks(values, measure)
    by_id = {run.run_id: run for run in runs}
    rows = []
    for key, group in values.groupby(level=_ROW):
        members = [by_id[run] for run in group.index.get_level_values("run_id")]
        rows.append(_row(members, group, frame, columns, ranks.get(key)))
    rows = sorted(_mark(rows), key=lambda row: _order(row, measure))
    notes = [note for row in rows for note in _row_notes(row, columns, by_id)]
    return Table(
        measure=measure,
        protocol=protocol,
        training_sets=runs[0].training_sets,
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple([*_column_notes(columns), *notes]),
    )


def _check_manifests(runs: Sequence[Run]) -> None:
    """Refuse data sets that hold other cases in other runs."""
    first: dict[str, Run] = {}
    for run in runs:
        for name, sha256 in run.manifests.items():
            other = first.setdefault(name, run)
            if other.manifests[name] != sha256:
                raise RunError(
                    f"data set {name} does not hold the same cases in {other} and in {run}: their manifests differ, "
                    "and so their scores do not compare. Name the runs of one of them only."
                )


def _frame(runs: Sequence[Run], measure: Measure, protocol: str) -> pd.DataFrame:
    """One row per run and cell."""
    records = []
    for run in runs:
        for cell in run.cells:
            if cell.protocol != protocol:
                continue
            if measure.name not in cell.measures:
                raise RunError(f"{run}, {cell}: no measure {measure.name}; it has {', '.join(cell.measures)}.")
            value = cell.measures[measure.name]
            if not 0 <= value <= _GREATEST[measure.unit]:
                what = "a fraction in [0, 1]" if measure.unit == "fraction" else "a number that is not negative"
                raise RunError(f"{run}, {cell}: {measure.name} is {value}, not {what}. Test the run again.")
            record = {name: getattr(run, name) for name in (*_ROW, "seed", "run_id")}
            record |= {name: getattr(cell, name) for name in (*_COLUMN, "modality", "cases")}
            records.append({**record, "both": cell.empty.get("both", 0), "value": value})
    return pd.DataFrame.from_records(records)


def _columns(frame: pd.DataFrame) -> list[Column]:
    """The columns: seen before unseen, then by name."""
    targets = frame.groupby("dataset")["target"].nunique().to_dict()
    columns = []
    for key, group in frame.groupby(_COLUMN):
        setting, dataset, target = map(str, key)
        columns.append(
            Column(
                setting=setting,
                dataset=dataset,
                target=target,
                label=f"{dataset}:{target}" if targets[dataset] > 1 else dataset,
                modality=str(group["modality"].iloc[0]),
                cases=int(group["cases"].max()),
                both_empty=(int(group["both"].min()), int(group["both"].max())),
            )
        )
    return columns


def _mean_ranks(values: pd.DataFrame, measure: Measure) -> dict[tuple[object, ...], float]:
    """Mean rank of every complete row, ties averaged; 1 is best.

    Values are rounded to twelve digits first, so that equal scores tie whatever the order of their sum.
    """
    means = values.groupby(level=_ROW).mean().round(12)
    incomplete = values.isna().groupby(level=_ROW).any().any(axis=1)
    ranks = means[~incomplete].rank(method="average", ascending=not measure.higher_is_better).mean(axis=1)
    return {tuple(key): float(rank) for key, rank in zip(ranks.index, ranks, strict=True)}


def _row(
    members: Sequence[Run], group: pd.DataFrame, frame: pd.DataFrame, columns: Sequence[Column], rank: float | None
) -> Row:
    """Average the runs of one model over seeds."""
    seeds = [run.seed for run in members]
    for position, run in enumerate(members[1:]):
        if run.seed == seeds[position]:
            raise RunError(f"{members[position]} and {run} are both seed {run.seed} of {run.network}. Name only one of them.")
    scores = []
    for position, column in enumerate(columns):
        series = group.iloc[:, position]
        if series.isna().any():
            scores.append(Score(mean=None, std=None, missing=_missing(series, frame, column)))
        else:
            std = float(series.std(ddof=1)) if len(series) > 1 else None
            scores.append(Score(mean=float(series.mean()), std=std))
    run = members[0]
    return Row(
        label=f"{run.network} (stale {run.version})" if run.stale else run.network,
        network=run.network,
        parameters=run.parameters,
        image_size=run.image_size,
        epochs=run.epochs,
        version=run.version,
        stale=run.stale,
        recipe=run.recipe,
        seeds=tuple(seeds),
        run_ids=tuple(member.run_id for member in members),
        scores=tuple(scores),
        seen_mean=_mean(score.mean for score, column in zip(scores, columns, strict=True) if column.setting == "seen"),
        unseen_mean=_mean(score.mean for score, column in zip(scores, columns, strict=True) if column.setting == "unseen"),
        mean_rank=rank,
    )


def _missing(series: pd.Series, frame: pd.DataFrame, column: Column) -> str:
    """Say what an incomplete cell lacks, seed by seed."""
    here = frame[
        (frame["setting"] == column.setting) & (frame["dataset"] == column.dataset) & (frame["target"] == column.target)
    ]
    found = dict(zip(here["run_id"], here["cases"], strict=True))
    lacks = []
    for key in series[series.isna()].index:
        seed, run = key[-2:]
        cases = f"{found[run]} of {column.cases} cases" if run in found else "no result"
        lacks.append(f"seed {seed} has {cases}")
    return ", ".join(lacks)


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean, or None where one value is None or there is none."""
    present = list(values)
    known = [value for value in present if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(present) else None


def _mark(rows: Sequence[Row]) -> list[Row]:
    """Tell rows apart that would read alike: one network, trained in two ways."""
    alike = pd.Series([(row.label, row.image_size, row.epochs) for row in rows], dtype=object).duplicated(keep=False)
    return [
        Row(**{**row.__dict__, "label": f"{row.label} #{row.recipe[:4]}"}) if twice else row
        for row, twice in zip(rows, alike, strict=True)
    ]


def _order(row: Row, measure: Measure) -> tuple[float, float, str, int, int]:
    """Sort by mean rank, then unseen mean, then name."""
    unseen = math.inf if row.unseen_mean is None else row.unseen_mean * (-1 if measure.higher_is_better else 1)
    return (math.inf if row.mean_rank is None else row.mean_rank, unseen, row.label, row.image_size, row.epochs)


def _column_notes(columns: Sequence[Column]) -> list[str]:
    """The number of cases of each column, and how many were empty on both sides."""
    notes = ["Cases: " + ", ".join(f"{column.label} {column.cases}" for column in columns) + "."]
    empty = []
    for column in columns:
        low, high = column.both_empty
        if high:
            empty.append(f"{column.label} {low if low == high else f'{low} to {high}'} of {column.cases}")
    if empty:
        rule = "scored by the protocol's rule for empty masks"
        notes.append(f"Reference and prediction both empty in a run, {rule}: {', '.join(empty)} cases.")
    return notes


def _row_notes(row: Row, columns: Sequence[Column], runs: dict[str, Run]) -> list[str]:
    """What is missing, stale, ambiguous or deviating in one row."""
    notes = [
        f"Missing (\N{EN DASH}): {row.label} on {column.label}: {score.missing}."
        for column, score in zip(columns, row.scores, strict=True)
        if score.missing
    ]
    if row.stale:
        notes.append(f"Stale: {row.label} was made by version {row.version} of madgnet-bench. Run it again before comparing.")
    if row.label.endswith(f"#{row.recipe[:4]}"):
        notes.append(f"{row.label}: one network, another configuration; see the config.yaml of run {row.run_ids[0]}.")
    deviations = dict.fromkeys(text for run in row.run_ids for text in runs[run].deviations)
    return notes + [f"Deviation: {row.label}: {text}" for text in deviations]
