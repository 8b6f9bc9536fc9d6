"""The leaderboard: models x test sets, seen and unseen apart, their gap, the worst domain and the mean rank.

A score is the mean over the seeds of the mean over the cases. Nothing incomplete is averaged: a cell that lacks a seed or
cases is missing, a row with a missing cell has no mean over the columns that it stands in and no rank, and runs that do
not compare (another protocol, other cases under one name, one seed twice) are an error. The spread over seeds and the
interval over cases answer two questions, what another training and what other patients would have given, and are never mixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from madgnet_bench.bench.cases import GREATEST
from madgnet_bench.bench.notes import table_notes
from madgnet_bench.bench.resampling import CellKey, Replicates, read_all_replicates
from madgnet_bench.bench.rows import (
    Column,
    Costs,
    Row,
    Score,
    build_row,
    contaminated_columns,
    order,
    rank_rows,
    tell_apart,
)
from madgnet_bench.bench.selection import Selection
from madgnet_bench.bench.store import Cell, Run
from madgnet_bench.errors import ConfigError, RunError, nearest
from madgnet_bench.protocol import MEASURES, Measure, Protocol

__all__ = [
    "SORTS",
    "Column",
    "Costs",
    "Row",
    "Score",
    "Table",
    "build_tables",
    "common_measures",
]

SORTS = ("rank", "seen", "unseen", "gap", "worst", "name", "parameters", "gmac", "time", "memory", "hours")
"""What rows are sorted by, best, least or first first; any label of a column is another way."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The models that share training sets and protocol.

    Attributes:
        measure: What is shown.
        protocol: Text of the protocol, of the automatic rows where there are any.
        training_sets: Names of the training sets.
        modality: Modality of the test sets where tables are grouped by it, else empty.
        columns: Seen test sets, then unseen ones; those of one modality together where the training sets have several.
        modalities: Setting and modality of each of `Row.modality_means`; none where the training sets have one modality.
        rows: The automatic ones as sorted, incomplete rows last; then those that were prompted with the reference.
        intervals: True where intervals over cases were asked for and the measure is a mean over cases.
        notes: What a reader must know of single cells, rows and columns.
    """

    measure: Measure
    protocol: str
    training_sets: tuple[str, ...]
    modality: str = ""
    columns: tuple[Column, ...]
    modalities: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...]
    intervals: bool = False
    notes: tuple[str, ...]


def build_tables(
    runs: Sequence[Run],
    measure: str = "dsc",
    *,
    protocol: str | None = None,
    selection: Selection | None = None,
    group_by: Literal["training_sets", "modality"] = "training_sets",
    sort: str = "rank",
    intervals: bool = False,
) -> list[Table]:
    """Build one table per set of training sets.

    Args:
        runs: At least one run.
        measure: A key of `madgnet_bench.protocol.MEASURES`.
        protocol: Text of the protocol to show, needed where the runs hold several that differ in more than their prompts.
        selection: Which runs and cells to show; all where not given.
        group_by: ``"modality"`` makes one table per training sets and modality of the test sets.
        sort: One of `SORTS`, or the label of a column.
        intervals: Whether to add intervals over cases, for which replicates are read or computed from the case tables.

    Raises:
        ConfigError: The measure, the text of the protocol or the key to sort by is unknown.
        RunError: The runs hold several protocols and none is chosen, or not the chosen one; a value is no fraction; nothing is
            selected; or runs that would share a column or a row do not compare. The message names the runs.
    """
    if measure not in MEASURES:
        raise ConfigError(f"unknown measure {measure!r}; valid: {', '.join(MEASURES)}.")
    if not runs:
        raise RunError("no finished run to tabulate.")
    chosen = selection or Selection()
    kept = chosen.apply(runs)
    protocols = _choose_protocols(kept, protocol)
    tested = {run.run_id: {cell.protocol for cell in run.cells} & set(protocols) for run in runs}
    blocks: dict[tuple[tuple[str, ...], str], list[_Result]] = {}
    for run in kept:
        for cell in run.cells:
            if cell.protocol in protocols:
                key = (run.training_sets, cell.modality if group_by == "modality" else "")
                blocks.setdefault(key, []).append(_result(run, cell, MEASURES[measure]))
    resampled = _resample(kept, measure) if intervals else None
    tables = [
        _build_table(
            block,
            MEASURES[measure],
            protocols[0],
            modality=key[1],
            tested=[(run, name) for run in kept if run.training_sets == key[0] for name in tested[run.run_id]],
            selection=chosen,
            resampled=resampled,
            sort=sort,
        )
        for key, block in sorted(blocks.items())
    ]
    labels = {column.label for table in tables for column in table.columns}
    if sort not in (*SORTS, *labels):
        raise ConfigError(f"cannot sort by {sort!r}; {nearest(sort, [*SORTS, *sorted(labels)])}")
    return tables


def common_measures(runs: Sequence[Run]) -> list[str]:
    """The measures that every cell of the runs holds, in the order of `madgnet_bench.protocol.MEASURES`."""
    cells = [cell for run in runs for cell in run.cells]
    return [name for name in MEASURES if all(name in cell.measures for cell in cells)]


@dataclass(frozen=True, kw_only=True)
class _Result:
    """One cell of one run, its value checked."""

    run: Run
    cell: Cell
    value: float


def _result(run: Run, cell: Cell, measure: Measure) -> _Result:
    """Read the measure of a cell.

    Raises:
        RunError: It was not taken, or is out of range.
    """
    if measure.name not in cell.measures:
        raise RunError(f"{run}, {cell}: no measure {measure.name}; it has {', '.join(cell.measures)}.")
    value = cell.measures[measure.name]
    if not isinstance(value, int | float) or not 0 <= value <= GREATEST[measure.unit]:
        what = "a fraction in [0, 1]" if measure.unit == "fraction" else "a number that is not negative"
        raise RunError(f"{run}, {cell}: {measure.name} is {value}, not {what}. Test the run again.")
    return _Result(run=run, cell=cell, value=float(value))


def _choose_protocols(runs: Sequence[Run], wanted: str | None) -> list[str]:
    """The protocol of the table, then those that differ from it in the source of prompts alone."""
    found: dict[str, int] = {}
    for run in runs:
        for name in {cell.protocol for cell in run.cells}:
            found[name] = found.get(name, 0) + 1
    counts = ", ".join(f"{name} ({count} run{'s' * (count > 1)})" for name, count in sorted(found.items()))
    if wanted is None:
        families = {_without_prompts(name) for name in found}
        if len(families) > 1:
            raise RunError(f"the runs hold several protocols, whose scores do not compare: {counts}. Choose with --protocol.")
        chosen = families.pop()
    else:
        chosen = wanted if wanted in found else str(Protocol.parse(wanted))
    members = sorted(name for name in found if name == chosen or _without_prompts(name) == chosen)
    if not members:
        raise RunError(f"no run holds protocol {chosen}; the runs hold {counts}.")
    return sorted(members, key=lambda name: Protocol.parse(name).oracle)


def _without_prompts(protocol: str) -> str:
    """The protocol as it is for automatic methods."""
    if "prompts=" not in protocol:
        return protocol
    name, _, inside = protocol.rstrip("]").partition("[")
    kept = ",".join(part for part in inside.split(",") if not part.startswith("prompts="))
    return str(Protocol.parse(f"{name}[{kept}]"))


def _resample(runs: Sequence[Run], measure: str) -> dict[str, dict[CellKey, Replicates]]:
    """The replicates of every run by its id; none where the measure is pooled."""
    if MEASURES[measure].pooled:
        return {}
    hashes = [run.cases_sha256 for run in runs]
    tables = read_all_replicates([run.folder for run in runs], measure, sha256=hashes)
    return {run.run_id: table for run, table in zip(runs, tables, strict=True)}


def _build_table(
    results: Sequence[_Result],
    measure: Measure,
    protocol: str,
    *,
    modality: str,
    tested: Sequence[tuple[Run, str]],
    selection: Selection,
    resampled: Mapping[str, Mapping[CellKey, Replicates]] | None,
    sort: str,
) -> Table:
    """Build the table of runs that share their training sets; what was ``tested`` may have no result in it."""
    runs = {run.run_id: run for run, _ in tested}
    drawn = resampled or {}
    _check_manifests(list(runs.values()))
    columns = _columns(results)
    values: dict[tuple[str, str], dict[int, _Result]] = {(run.run_id, name): {} for run, name in tested}
    places = {(column.setting, column.dataset, column.target): place for place, column in enumerate(columns)}
    for result in results:
        cell = result.cell
        place = places[cell.setting, cell.dataset, cell.target]
        values[result.run.run_id, cell.protocol][place] = result
    _check_replicates(results, columns, measure, drawn)
    groups: dict[tuple[object, ...], list[tuple[Run, str]]] = {}
    for run_id, name in values:
        run = runs[run_id]
        key = (run.network, run.image_size, run.epochs, run.version, run.recipe, name)
        groups.setdefault(key, []).append((run, name))
    modalities = _modalities(columns)
    rows = []
    for group in groups.values():
        group.sort(key=lambda member: (member[0].seed, member[0].run_id))
        rows.append(_row([run for run, _ in group], group[0][1], values, columns, modalities, measure, drawn))
    rows = rank_rows(tell_apart(rows), measure)
    rows.sort(key=lambda row: order(row, columns, measure, sort))
    notes = table_notes(columns, rows, measure, runs=runs, selection=selection, resampled=resampled)
    return Table(
        measure=measure,
        protocol=protocol,
        training_sets=results[0].run.training_sets,
        modality=modality,
        columns=tuple(columns),
        modalities=modalities,
        rows=tuple(rows),
        intervals=bool(drawn),
        notes=tuple(notes),
    )


def _row(
    runs: Sequence[Run],
    protocol: str,
    values: Mapping[tuple[str, str], Mapping[int, _Result]],
    columns: Sequence[Column],
    modalities: Sequence[tuple[str, str]],
    measure: Measure,
    resampled: Mapping[str, Mapping[CellKey, Replicates]],
) -> Row:
    """Gather the values and replicates of one model, seed by seed."""
    for before, run in itertools.pairwise(runs):
        if run.seed == before.seed:
            raise RunError(f"{before} and {run} are both seed {run.seed} of {run.network}. Name only one of them.")
    found, lacks, draws = [], [], []
    for place, column in enumerate(columns):
        here = [values[run.run_id, protocol].get(place) for run in runs]
        found.append([result.value for result in here if result and result.cell.cases == column.cases])
        lacks.append(
            ", ".join(
                f"seed {run.seed} has {f'{result.cell.cases} of {column.cases} cases' if result else 'no result'}"
                for run, result in zip(runs, here, strict=True)
                if result is None or result.cell.cases != column.cases
            )
        )
        key = (column.setting, column.dataset, column.target, protocol)
        draws.append([resampled[run.run_id][key] for run in runs if key in resampled.get(run.run_id, {})])
    return build_row(
        runs,
        protocol,
        found,
        lacks=lacks,
        draws=draws,
        columns=columns,
        modalities=modalities,
        measure=measure,
        prompted=Protocol.parse(protocol).oracle,
        contaminated=contaminated_columns(runs, columns),
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


def _check_replicates(
    results: Sequence[_Result],
    columns: Sequence[Column],
    measure: Measure,
    resampled: Mapping[str, Mapping[CellKey, Replicates]],
) -> None:
    """Refuse summaries that do not follow from their case tables, and columns whose complete cells hold other groups."""
    complete = {(column.setting, column.dataset, column.target): column.cases for column in columns}
    first: dict[tuple[str, str, str], tuple[Run, str]] = {}
    for result in results if resampled else ():
        run, cell = result.run, result.cell
        drawn = resampled[run.run_id].get((cell.setting, cell.dataset, cell.target, cell.protocol))
        if drawn is None:
            raise RunError(f"{run}, {cell}: in result.json, and not in {run.folder.cases_file}. Test the run again.")
        if abs(drawn.mean - result.value) > 1e-5 * max(1.0, abs(result.value)):
            raise RunError(
                f"{run}, {cell}: {measure.name} is {result.value:.6g} in result.json, and {drawn.mean:.6g} is the mean of "
                f"{run.folder.cases_file}. Test the run again."
            )
        key = (cell.setting, cell.dataset, cell.target)
        if cell.cases == complete[key]:
            other, groups = first.setdefault(key, (run, drawn.key))
            if groups != drawn.key:
                raise RunError(
                    f"{cell} holds cases of other groups in {other} and in {run}, and so their scores do not compare. "
                    "Name the runs of one of them only."
                )


def _columns(results: Sequence[_Result]) -> list[Column]:
    """The columns: seen before unseen, then by modality where the training sets have several, then by name."""
    targets: dict[str, set[str]] = {}
    cells: dict[tuple[str, str, str], list[Cell]] = {}
    for result in results:
        cell = result.cell
        targets.setdefault(cell.dataset, set()).add(cell.target)
        cells.setdefault((cell.setting, cell.dataset, cell.target), []).append(cell)
    columns = []
    for (setting, dataset, target), group in sorted(cells.items()):
        both = [cell.empty.get("both", 0) for cell in group]
        columns.append(
            Column(
                setting=setting,
                dataset=dataset,
                target=target,
                label=f"{dataset}:{target}" if len(targets[dataset]) > 1 else dataset,
                modality=min(cell.modality for cell in group),
                cases=max(cell.cases for cell in group),
                both_empty=(min(both), max(both)),
            )
        )
    if _modalities(columns):
        columns.sort(key=lambda column: (column.setting, column.modality))
    return columns


def _modalities(columns: Sequence[Column]) -> tuple[tuple[str, str], ...]:
    """Setting and modality of every mean over a modality; none where all training sets are of one modality."""
    if len({column.modality for column in columns if column.setting == "seen"}) < 2:
        return ()
    return tuple(sorted({(column.setting, column.modality) for column in columns}))
