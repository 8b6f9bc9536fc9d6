"""The notes below a table: what is missing, stale, ambiguous, prompted, contaminated, or seen from few groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from madgnet_bench.bench.resampling import CellKey, Replicates
from madgnet_bench.bench.rows import Column, Row
from madgnet_bench.bench.selection import Selection
from madgnet_bench.bench.store import Run
from madgnet_bench.catalog.models import UNKNOWN
from madgnet_bench.protocol import Measure

__all__ = ["DAGGER", "table_notes"]

DAGGER = "\N{DAGGER}"
"""Marks a score on a data set that the network has seen in pretraining."""


def table_notes(
    columns: Sequence[Column],
    rows: Sequence[Row],
    measure: Measure,
    *,
    runs: Mapping[str, Run],
    selection: Selection,
    resampled: Mapping[str, Mapping[CellKey, Replicates]] | None,
) -> list[str]:
    """Write what a reader must know of single cells, rows and columns.

    Args:
        columns: The columns of the table.
        rows: Its rows.
        measure: What it shows.
        runs: The runs by their id.
        selection: What was left out.
        resampled: Replicates by run and cell; None where intervals were not asked for.
    """
    notes = _column_notes(columns)
    if selection:
        over = "; means, gap and ranks are over what is shown" if selection.columns else "; ranks are among what is shown"
        notes.append(f"Selected: {selection}{over}.")
    if resampled is not None:
        notes += _interval_notes(columns, measure, resampled)
    prompted = [row.title for row in rows if row.prompted]
    if prompted:
        notes.append(f"Prompted with the reference, and so apart and without rank: {', '.join(prompted)}.")
    for row in rows:
        notes += _row_notes(row, columns, runs)
    return notes


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


def _interval_notes(
    columns: Sequence[Column], measure: Measure, resampled: Mapping[str, Mapping[CellKey, Replicates]]
) -> list[str]:
    """How many groups were resampled in each column."""
    if measure.pooled:
        return [f"No intervals: {measure.title} of a data set is no mean over its cases."]
    groups: dict[tuple[str, ...], int] = {}
    for table in resampled.values():
        for key, drawn in table.items():
            groups[key[:3]] = max(groups.get(key[:3], 0), drawn.groups)
    counts = {column.label: groups[column.setting, column.dataset, column.target] for column in columns}
    notes = []
    if any(counts[column.label] != column.cases for column in columns):
        listed = ", ".join(f"{label} {count}" for label, count in counts.items())
        notes.append(f"Groups (patients, videos, volumes), which the intervals resample: {listed}.")
    single = [label for label, count in counts.items() if count < 2]
    if single:
        notes.append(f"No interval, for lack of a second group: {', '.join(single)}, and the means over it.")
    few = [label for label, count in counts.items() if 2 <= count < 10]
    if few:
        notes.append(f"Intervals from fewer than ten groups are rough, and rather too narrow: {', '.join(few)}.")
    return notes


def _row_notes(row: Row, columns: Sequence[Column], runs: Mapping[str, Run]) -> list[str]:
    """What is missing, stale, ambiguous, contaminated or deviating in one row."""
    notes = [
        f"Missing (\N{EN DASH}): {row.label} on {column.label}: {score.missing}."
        for column, score in zip(columns, row.scores, strict=True)
        if score.missing
    ]
    if row.stale:
        notes.append(f"Stale: {row.label} was made by version {row.version} of madgnet-bench. Run it again before comparing.")
    if row.label.endswith(f"#{row.recipe[:4]}"):
        notes.append(f"{row.label}: one network, another configuration; see the config.yaml of run {row.run_ids[0]}.")
    if row.contaminated:
        where = ", ".join(row.contaminated)
        notes.append(
            f"Seen in pretraining ({DAGGER}): {row.label} on {where}. These scores count in its means and ranks all the same."
        )
    if any(UNKNOWN in runs[run].pretraining for run in row.run_ids):
        notes.append(f"{row.label} may have seen test images in pretraining: what its weights were trained on is not known.")
    if ";" in row.costs.hardware:
        notes.append(f"Costs of {row.label} are of several machines and not averaged: {row.costs.hardware}.")
    deviations = dict.fromkeys(text for run in row.run_ids for text in runs[run].deviations)
    return notes + [f"Deviation: {row.label}: {text}" for text in deviations]
