"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from madgnet_bench.bench.render.fields import PROMPTED, SUMMARY, Field, common, heading, legend, make_fields, title
from madgnet_bench.bench.tables import Table

__all__ = ["to_markdown"]

_MARKED = {"best": ("**", "**"), "second": ("<u>", "</u>"), "": ("", "")}
_LEGEND = "Bold: best of the column as printed. Underlined: second best. Equal ones share."


def to_markdown(tables: Sequence[Table], *, costs: bool = False) -> str:
    """Lay the tables out as Markdown: best bold, second underlined, intervals behind the scores, the notes as lists."""
    parts = []
    for table in tables:
        fields = make_fields(table, costs=costs)
        rows = [[_header(field) for field in fields], ["---" if field.names_row else "---:" for field in fields]]
        for place, row in enumerate(table.rows):
            if row.prompted and not (place and table.rows[place - 1].prompted):
                rows.append([f"*{PROMPTED}*", *[""] * (len(fields) - 1)])
            rows.append([_cell(field, place) for field in fields])
        lines = [f"### {title(table)}{common(table)}", "", f"{heading(table)}.", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        lines += ["", *(f"- {note}" for note in table.notes)]
        parts.append("\n".join(lines))
    below = "\n".join(f"- {text}" for text in legend(tables, costs=costs, marked=_LEGEND))
    return "\n\n".join([*parts, f"How to read it:\n\n{below}"]) + "\n"


def _header(field: Field) -> str:
    return field.header if field.group in ("", SUMMARY, "costs") else f"{field.header} ({field.group})"


def _cell(field: Field, place: int) -> str:
    before, after = _MARKED[field.marks[place]]
    interval = f" {field.below[place]}" if field.below[place] else ""
    return f"{before}{field.cells[place]}{after}{interval}"
