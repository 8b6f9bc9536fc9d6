"""Tables as text for a terminal, as Markdown, and as tidy CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from madgnet_bench.bench.tables import Column, Row, Score, Table
from madgnet_bench.protocol import Measure, Protocol

__all__ = ["to_csv", "to_markdown", "to_text"]

_MISSING = "\N{EN DASH}"
_SUMMARY = "over the columns"
_HEADER_WIDTH = 14
_CSV_COLUMNS = (
    "training_sets protocol network version stale recipe parameters image_size epochs setting dataset target modality "
    "measure mean std seeds cases missing run_ids"
).split()


@dataclass(frozen=True)
class _Field:
    """One printed column: its group, its header, its cells, and whether it names the row."""

    group: str
    header: str
    cells: list[str]
    names_row: bool = False


def to_text(tables: Sequence[Table], *, width: int = 120) -> str:
    """Lay the tables out as aligned plain text.

    Args:
        tables: At least one table.
        width: Columns of the terminal; a wider table is broken into parts that repeat the model.
    """
    parts = []
    for table in tables:
        fields = _fields(table)
        lines = [_heading(table), f"{_title(table)}{_common(table)}", ""]
        for part in _break(fields, width):
            lines += [*_align(part), ""]
        for note in table.notes:
            lines += textwrap.wrap(note, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        parts.append("\n".join(lines))
    legend = "\n".join(line for text in _legend(tables) for line in textwrap.wrap(text, width))
    return "\n\n".join([*parts, legend]) + "\n"


def to_markdown(tables: Sequence[Table]) -> str:
    """Lay the tables out as Markdown, with the notes as lists."""
    parts = []
    for table in tables:
        fields = _fields(table)
        headers = [f"{field.header} ({field.group})" if field.group in ("seen", "unseen") else field.header for field in fields]
        rows = [headers, ["---" if field.names_row else "---:" for field in fields]]
        rows += [[field.cells[position] for field in fields] for position in range(len(table.rows))]
        lines = [f"### {_title(table)}{_common(table)}", "", f"{_heading(table)}.", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        lines += ["", *(f"- {note}" for note in table.notes)]
        parts.append("\n".join(lines))
    legend = "\n".join(f"- {text}" for text in _legend(tables))
    return "\n\n".join([*parts, f"How to read it:\n\n{legend}"]) + "\n"


def to_csv(tables: Sequence[Table]) -> str:
    """Write one line per model, test set, target and measure, with values as fractions to ten significant digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for column, score in zip(table.columns, row.scores, strict=True):
                record = _record(table, row, column, score)
                writer.writerow([record[name] for name in _CSV_COLUMNS])
    return stream.getvalue()


def _record(table: Table, row: Row, column: Column, score: Score) -> dict[str, object]:
    """One line of the tidy table; an incomplete score is an empty field with its reason."""
    shared = ("network", "version", "recipe", "parameters", "image_size", "epochs")
    return {
        **{name: getattr(row, name) for name in shared},
        **{name: getattr(column, name) for name in ("setting", "dataset", "target", "modality", "cases")},
        "training_sets": ";".join(table.training_sets),
        "protocol": table.protocol,
        "stale": str(row.stale).lower(),
        "measure": table.measure.name,
        "mean": "" if score.mean is None else f"{score.mean:.10g}",
        "std": "" if score.std is None else f"{score.std:.10g}",
        "seeds": " ".join(map(str, row.seeds)),
        "missing": score.missing,
        "run_ids": " ".join(row.run_ids),
    }


def _heading(table: Table) -> str:
    """Measure, unit, direction and protocol."""
    direction = "higher" if table.measure.higher_is_better else "lower"
    unit = {"fraction": "%", "nats": "nats", "distance": _distance_unit(table.protocol)}[table.measure.unit]
    return f"{table.measure.title} in {unit}, {direction} is better, protocol {table.protocol}"


def _distance_unit(protocol: str) -> str:
    return {"pixel": "pixels", "mm": "mm"}[Protocol.parse(protocol).unit]


def _title(table: Table) -> str:
    return f"Trained on {', '.join(table.training_sets)}"


def _common(table: Table) -> str:
    """What all rows share, in brackets; what they do not share is a column."""
    facts = []
    for name, unit in (("image_size", "px"), ("epochs", "epochs")):
        values = {getattr(row, name) for row in table.rows}
        if len(values) == 1:
            value = values.pop()
            facts.append(f"{value} {unit if value != 1 else unit.removesuffix('s')}")
    return f" ({', '.join(facts)})" if facts else ""


def _fields(table: Table) -> list[_Field]:
    """The printed columns of a table."""

    def cells(show: Callable[[Row], str]) -> list[str]:
        return [show(row) for row in table.rows]

    def number(value: float | None) -> str:
        return _number(value, table.measure)

    fields = [_Field("", "model", cells(lambda row: row.label), names_row=True)]
    fields.append(_Field("", "params", cells(lambda row: _amount(row.parameters))))
    for name, header in (("image_size", "px"), ("epochs", "epochs")):
        if len({getattr(row, name) for row in table.rows}) > 1:
            fields.append(_Field("", header, [str(getattr(row, name)) for row in table.rows]))
    fields.append(_Field("", "seeds", cells(lambda row: str(len(row.seeds)))))
    for position, column in enumerate(table.columns):
        fields.append(_Field(column.setting, column.label, [_score(row.scores[position], table.measure) for row in table.rows]))
    fields.append(_Field(_SUMMARY, "seen mean", cells(lambda row: number(row.seen_mean))))
    fields.append(_Field(_SUMMARY, "unseen mean", cells(lambda row: number(row.unseen_mean))))
    fields.append(_Field(_SUMMARY, "gap", cells(lambda row: number(row.gap))))
    ranks = cells(lambda row: _MISSING if row.mean_rank is None else f"{row.mean_rank:.2f}")
    return [*fields, _Field(_SUMMARY, "mean rank", ranks)]


def _number(value: float | None, measure: Measure) -> str:
    """Write a value in the unit of tables: percent, pixels or millimetres, nats."""
    if value is None:
        return _MISSING
    return f"{value:.4f}" if measure.unit == "nats" else f"{100 * value if measure.unit == 'fraction' else value:.2f}"


def _score(score: Score, measure: Measure) -> str:
    spread = "" if score.std is None else f" \N{PLUS-MINUS SIGN} {_number(score.std, measure)}"
    return f"{_number(score.mean, measure)}{spread}"


def _amount(parameters: int) -> str:
    """Write a number of parameters in millions, or in thousands below 100,000."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 100_000 else f"{parameters / 1e3:.1f} k"


def _wrap(header: str) -> list[str]:
    """Break a long header after the separators of data set names and between words."""
    lines = [""]
    for piece in re.findall(r"[^/:_ ]*[/:_ ]?", header):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > _HEADER_WIDTH:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _width(field: _Field) -> int:
    return max(len(text) for text in [*_wrap(field.header), *field.cells])


def _break(fields: Sequence[_Field], width: int) -> list[list[_Field]]:
    """Distribute the printed columns over as many parts as the width asks for; each starts with the model.

    The columns of the summary stay together.
    """
    summary = [field for field in fields if field.group == _SUMMARY]
    pieces = [[field] for field in fields[1:] if field.group != _SUMMARY] + [summary]
    parts = [[fields[0]]]
    for piece in pieces:
        if sum(2 + _width(field) for field in [*parts[-1], *piece]) - 2 > width and len(parts[-1]) > 1:
            parts.append([fields[0]])
        parts[-1] += piece
    return parts


def _align(fields: Sequence[_Field]) -> list[str]:
    """Print the columns side by side: group line, wrapped headers, a rule, the rows."""
    widths = [_width(field) for field in fields]
    headers = [_wrap(field.header) for field in fields]
    height = max(map(len, headers))
    lines = [[""] * (height - len(header)) + header for header in headers]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(w) if field.names_row else cell.rjust(w) for cell, w, field in zip(cells, widths, fields, strict=True)
        )
        return "  ".join(padded).rstrip()

    rows = [line([header[row] for header in lines]) for row in range(height)]
    rows.append("  ".join("-" * w for w in widths))
    rows += [line([field.cells[row] for field in fields]) for row in range(len(fields[0].cells))]
    return [_groups(fields, widths), *rows]


def _groups(fields: Sequence[_Field], widths: Sequence[int]) -> str:
    """The line above the headers that names the groups of neighbouring columns."""
    spans: list[tuple[str, int]] = []
    for field, w in zip(fields, widths, strict=True):
        if spans and field.group and spans[-1][0] == field.group:
            spans[-1] = (field.group, spans[-1][1] + 2 + w)
        else:
            spans.append((field.group, w))
    return "  ".join(f" {group} ".center(w, "-") if group else " " * w for group, w in spans).rstrip()


def _legend(tables: Sequence[Table]) -> list[str]:
    """The definitions behind every number, once for all tables."""
    negative = " Where lower is better, a negative gap is worse on unseen sets."
    with_lower = any(not table.measure.higher_is_better for table in tables)
    in_points = ", in percentage points" * all(table.measure.unit == "fraction" for table in tables)
    return [
        "Score: mean over cases, then over seeds; \N{PLUS-MINUS SIGN} is the sample standard deviation over seeds "
        "(n - 1), left out where there is one seed (n=1).",
        f"Seen mean, unseen mean: mean over the columns. Gap: seen mean minus unseen mean{in_points}." + negative * with_lower,
        "Mean rank: mean over all columns of the rank among the complete rows of the table, ties averaged; lower is better.",
    ]
