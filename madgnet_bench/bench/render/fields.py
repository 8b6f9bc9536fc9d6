"""What the readable formats share: the printed columns of a table, its titles and the definitions below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from madgnet_bench.bench.notes import DAGGER
from madgnet_bench.bench.tables import Row, Score, Table
from madgnet_bench.protocol import Measure, Protocol

__all__ = [
    "MISSING",
    "PROMPTED",
    "SUMMARY",
    "Field",
    "Mark",
    "break_fields",
    "common",
    "field_widths",
    "heading",
    "legend",
    "make_fields",
    "spans",
    "title",
    "wrap",
]

MISSING = "\N{EN DASH}"
SUMMARY = "over the columns"
_COSTS = "costs"
PROMPTED = "prompted with the reference, apart from the others"
"""Heads the rows that do not compete."""

Mark = Literal["", "best", "second"]

_HEADER_WIDTH = 14


@dataclass(frozen=True, kw_only=True)
class Field:
    """One printed column.

    Attributes:
        group: What stands above it and its neighbours.
        header: Its name.
        cells: Its text in every row.
        below: A second line of every row, the intervals; empty strings where there are none.
        marks: Which cells are the best and second best of the competing rows, as printed; equal ones share.
        names_row: True where it says which row it is.
    """

    group: str
    header: str
    cells: Sequence[str]
    below: Sequence[str]
    marks: Sequence[Mark]
    names_row: bool = False


def make_fields(table: Table, *, costs: bool = False) -> list[Field]:
    """The printed columns of a table; costs where asked for."""
    fields = [_plain(table, "", "model", lambda row: row.label)]
    fields[0] = replace(fields[0], names_row=True)
    fields.append(_plain(table, "", "params", lambda row: _amount(row.parameters)))
    for header, show in _FACTS.items():
        if len({show(row) for row in table.rows}) > 1:
            fields.append(_plain(table, "", header, show))
    fields.append(_plain(table, "", "seeds", lambda row: str(len(row.seeds))))
    return fields + _score_fields(table) + _summary_fields(table) + (_cost_fields(table) if costs else [])


_FACTS: dict[str, Callable[[Row], str]] = {
    "px": lambda row: str(row.image_size),
    "epochs": lambda row: str(row.epochs),
    "checkpoint": lambda row: row.checkpoint,
    "prompts": lambda row: row.prompts,
}
"""What is a column only where rows differ in it."""


def _plain(table: Table, group: str, header: str, show: Callable[[Row], str]) -> Field:
    blank: list[Mark] = [""] * len(table.rows)
    return Field(group=group, header=header, cells=[show(row) for row in table.rows], below=blank, marks=blank)


def _scores(table: Table, group: str, header: str, pick: Callable[[Row], Score], *, spread: bool = True) -> Field:
    """A column of scores, with intervals below and marks."""
    scores = [pick(row) for row in table.rows]
    spreads = [
        "" if score.std is None or not spread else f" \N{PLUS-MINUS SIGN} {_number(score.std, table.measure)}"
        for score in scores
    ]
    numbers = [_number(score.mean, table.measure) for score in scores]
    below = ["" if score.interval is None else _interval(score.interval, table.measure) for score in scores]
    return Field(
        group=group,
        header=header,
        cells=[number + more for number, more in zip(numbers, spreads, strict=True)],
        below=below,
        marks=_marks(numbers, table, higher=table.measure.higher_is_better),
    )


def _score_fields(table: Table) -> list[Field]:
    """The test sets, those of one modality followed by their mean where the training sets have several modalities."""
    fields = []
    for place, column in enumerate(table.columns):
        group = f"{column.setting} {column.modality}" if table.modalities else column.setting
        made = _scores(table, group, column.label, lambda row, place=place: row.scores[place])  # type: ignore[misc]
        cells = [
            f"{cell} {DAGGER}" if column.label in row.contaminated else cell
            for cell, row in zip(made.cells, table.rows, strict=True)
        ]
        fields.append(replace(made, cells=cells))
        kind = (column.setting, column.modality)
        members = [other for other in table.columns if (other.setting, other.modality) == kind]
        if kind in table.modalities and column == members[-1] and len(members) > 1:
            which = table.modalities.index(kind)
            mean = lambda row, which=which: row.modality_means[which]  # noqa: E731
            fields.append(_scores(table, group, f"{column.modality} mean", mean, spread=False))
    return fields


def _summary_fields(table: Table) -> list[Field]:
    nothing = Score(mean=None, std=None)
    ranks = ["" if row.mean_rank is None else f"{row.mean_rank:.2f}" for row in table.rows]
    rank = _plain(table, SUMMARY, "mean rank", lambda row: MISSING if row.mean_rank is None else f"{row.mean_rank:.2f}")
    gap = _scores(table, SUMMARY, "gap", lambda row: row.difference, spread=False)
    worst = _scores(table, SUMMARY, "worst", lambda row: row.worst[1] if row.worst else nothing, spread=False)
    return [
        _scores(table, SUMMARY, "seen mean", lambda row: row.seen, spread=False),
        _scores(table, SUMMARY, "unseen mean", lambda row: row.unseen, spread=False),
        replace(gap, marks=[""] * len(table.rows)),  # a small gap is no merit of its own
        replace(worst, below=[""] * len(table.rows)),  # it stands below the column itself
        _plain(table, SUMMARY, "worst on", lambda row: row.worst[0] if row.worst else MISSING),
        replace(rank, marks=_marks(ranks, table, higher=False)),
    ]


def _cost_fields(table: Table) -> list[Field]:
    def amount(value: float | None) -> str:
        return MISSING if value is None else f"{value:.4g}" if value < 1000 else f"{value:.0f}"

    return [
        _plain(table, _COSTS, "GMAC", lambda row: amount(row.costs.gmac)),
        _plain(table, _COSTS, "ms per image", lambda row: amount(row.costs.milliseconds_per_image)),
        _plain(table, _COSTS, "peak MB", lambda row: amount(row.costs.peak_memory_mb)),
        _plain(table, _COSTS, "device hours", lambda row: amount(row.costs.device_hours)),
        _plain(table, _COSTS, "hardware", lambda row: row.costs.hardware or MISSING),
    ]


def _marks(numbers: Sequence[str], table: Table, *, higher: bool) -> list[Mark]:
    """Mark the best and second best printed numbers of the competing rows; a lone one has nothing to beat."""
    values = [
        None if row.prompted or text in ("", MISSING) else float(text) * (-1 if higher else 1)
        for text, row in zip(numbers, table.rows, strict=True)
    ]
    known = sorted({value for value in values if value is not None})
    if sum(value is not None for value in values) < 2:
        return [""] * len(values)
    names: dict[float | None, Mark] = dict(zip(known[:2], ("best", "second"), strict=False))
    return [names.get(value, "") for value in values]


def heading(table: Table) -> str:
    """Measure, unit, direction and protocol."""
    direction = "higher" if table.measure.higher_is_better else "lower"
    distance = {"pixel": "pixels", "mm": "mm"}
    unit = {"fraction": "%", "nats": "nats"}.get(table.measure.unit) or distance[Protocol.parse(table.protocol).unit]
    return f"{table.measure.title} in {unit}, {direction} is better, protocol {table.protocol}"


def title(table: Table) -> str:
    """Training sets, and the modality of the test sets where that is another table's business."""
    tested = f", tested on {table.modality}" if table.modality else ""
    return f"Trained on {', '.join(table.training_sets)}{tested}"


def common(table: Table) -> str:
    """What all rows share, in brackets; what they do not share is a column."""
    facts = []
    for name, unit in (("image_size", "px"), ("epochs", "epochs"), ("checkpoint", "checkpoint")):
        values = {getattr(row, name) for row in table.rows}
        value = values.pop()
        if not values and value != "unknown":
            facts.append(f"{value} {unit if value != 1 else unit.removesuffix('s')}")
    return f" ({', '.join(facts)})" if facts else ""


def legend(tables: Sequence[Table], *, costs: bool = False, marked: str = "") -> list[str]:
    """The definitions behind every number, once for all tables.

    Args:
        tables: At least one.
        costs: Whether costs are shown.
        marked: How best and second best are marked, if they are.
    """
    negative = " Where lower is better, a negative gap is worse on unseen sets."
    with_lower = any(not table.measure.higher_is_better for table in tables)
    in_points = ", in percentage points" * all(table.measure.unit == "fraction" for table in tables)
    lines = [
        "Score: mean over cases, then over seeds; \N{PLUS-MINUS SIGN} is the sample standard deviation over seeds "
        "(n - 1), left out where there is one seed (n=1)."
    ]
    if any(table.intervals for table in tables):
        lines.append(
            "[low, high]: 95% interval over cases for the networks as trained: groups drawn 2000 times with replacement, "
            "percentiles widened for few groups (Hesterberg 2015). It knows nothing of other seeds."
        )
    lines += [
        f"Seen mean, unseen mean: mean over the columns. Gap: seen mean minus unseen mean{in_points}." + negative * with_lower,
        "Worst: the worst column.",
        "Mean rank: mean over all columns of the rank among the complete rows of the table, ties averaged; lower is better.",
    ]
    if marked:
        lines.append(marked)
    if costs:
        lines.append(
            "Costs: GMAC (1e9 multiply-accumulates) and time of one image; greatest memory; hours times devices of one "
            "training and test, mean over seeds. Times of different hardware do not compare."
        )
    return lines


def wrap(header: str) -> list[str]:
    """Break a long header after the separators of data set names and between words."""
    lines = [""]
    for piece in re.findall(r"[^/:_ ]*[/:_ ]?", header):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > _HEADER_WIDTH:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def spans(fields: Sequence[Field]) -> list[tuple[str, list[Field]]]:
    """Neighbours of one group; fields without a group stand alone."""
    found: list[tuple[str, list[Field]]] = []
    for field in fields:
        if found and field.group and found[-1][0] == field.group:
            found[-1][1].append(field)
        else:
            found.append((field.group, [field]))
    return found


def field_widths(fields: Sequence[Field]) -> list[int]:
    """Letters that each printed column takes; the last of a group makes room for the group's name."""
    widths = []
    for group, members in spans(fields):
        inner = [max(len(text) for text in [*wrap(field.header), *field.cells, *field.below]) for field in members]
        lacking = len(group) + 2 - sum(inner) - 2 * (len(inner) - 1) if group else 0
        inner[-1] += max(0, lacking)
        widths += inner
    return widths


def break_fields(fields: Sequence[Field], width: int) -> list[list[Field]]:
    """Distribute the printed columns over as many parts as the width asks for; each starts with the model.

    The columns of the summary stay together, and so do the costs.
    """
    pieces = [[field] for field in fields[1:] if field.group not in (SUMMARY, _COSTS)]
    pieces += [piece for group in (SUMMARY, _COSTS) if (piece := [field for field in fields if field.group == group])]
    parts = [[fields[0]]]
    for piece in pieces:
        if sum(2 + width for width in field_widths([*parts[-1], *piece])) - 2 > width and len(parts[-1]) > 1:
            parts.append([fields[0]])
        parts[-1] += piece
    return parts


def _number(value: float | None, measure: Measure) -> str:
    """Write a value in the unit of tables: percent, pixels or millimetres, nats."""
    if value is None:
        return MISSING
    return f"{value:.4f}" if measure.unit == "nats" else f"{100 * value if measure.unit == 'fraction' else value:.2f}"


def _interval(ends: tuple[float, float], measure: Measure) -> str:
    return f"[{_number(ends[0], measure)}, {_number(ends[1], measure)}]"


def _amount(parameters: int) -> str:
    """Write a number of parameters in millions, or in thousands below 100,000."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 100_000 else f"{parameters / 1e3:.1f} k"
