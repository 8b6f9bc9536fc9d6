"""Tables as aligned plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from madgnet_bench.bench.render.fields import (
    PROMPTED,
    Field,
    break_fields,
    common,
    field_widths,
    heading,
    legend,
    make_fields,
    spans,
    title,
    wrap,
)
from madgnet_bench.bench.tables import Table

__all__ = ["to_text"]


def to_text(tables: Sequence[Table], *, width: int = 120, costs: bool = False) -> str:
    """Lay the tables out as aligned plain text, intervals below the scores.

    Args:
        tables: At least one table.
        width: Columns of the terminal; a wider table is broken into parts that repeat the model.
        costs: Whether to show what the models cost.
    """
    parts = []
    for table in tables:
        lines = [heading(table), f"{title(table)}{common(table)}", ""]
        for part in break_fields(make_fields(table, costs=costs), width):
            lines += [*_align(part, table), ""]
        for note in table.notes:
            lines += textwrap.wrap(note, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        parts.append("\n".join(lines))
    below = "\n".join(line for text in legend(tables, costs=costs) for line in textwrap.wrap(text, width))
    return "\n\n".join([*parts, below]) + "\n"


def _align(fields: Sequence[Field], table: Table) -> list[str]:
    """Print the columns side by side: group line, wrapped headers, a rule, the rows."""
    widths = field_widths(fields)
    headers = [wrap(field.header) for field in fields]
    height = max(map(len, headers))
    padded = [[""] * (height - len(header)) + header for header in headers]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.ljust(w) if field.names_row else cell.rjust(w) for cell, w, field in zip(cells, widths, fields, strict=True)
        )
        return "  ".join(placed).rstrip()

    lines = [_groups(fields, widths), *(line([header[row] for header in padded]) for row in range(height))]
    lines.append("  ".join("-" * w for w in widths))
    for place, row in enumerate(table.rows):
        if row.prompted and not (place and table.rows[place - 1].prompted):
            lines.append(f"-- {PROMPTED} --")
        lines.append(line([field.cells[place] for field in fields]))
        if any(field.below[place] for field in fields):
            lines.append(line([field.below[place] for field in fields]))
    return lines


def _groups(fields: Sequence[Field], widths: Sequence[int]) -> str:
    """The line above the headers that names the groups of neighbouring columns."""
    texts, first = [], 0
    for group, members in spans(fields):
        width = sum(widths[first : first + len(members)]) + 2 * (len(members) - 1)
        texts.append(f" {group} ".center(width, "-") if group else " " * width)
        first += len(members)
    return "  ".join(texts).rstrip()
