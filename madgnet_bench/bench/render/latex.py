r"""Tables as LaTeX, for ``\usepackage{booktabs,graphicx}``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from madgnet_bench.bench.render.fields import (
    PROMPTED,
    Field,
    break_fields,
    common,
    heading,
    legend,
    make_fields,
    spans,
    title,
    wrap,
)
from madgnet_bench.bench.tables import Table

__all__ = ["escape", "to_latex"]

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
    "\N{DAGGER}": r"$^\dagger$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MICRO SIGN}": r"$\mu$",
}
_WIDTH = 140
"""Letters beside each other, which a page shows at about half of its size."""

_LEGEND = "Bold: best of the column as printed. Underlined: second best. Equal ones share."


def to_latex(tables: Sequence[Table], *, costs: bool = False) -> str:
    r"""Lay the tables out with the rules of booktabs: best bold, second underlined, intervals below the scores.

    Each is a ``table`` no wider than the text, with a caption and notes; input the file in a document that loads booktabs
    and graphicx.
    """
    intro = "% madgnet-bench leaderboard; needs \\usepackage{booktabs,graphicx}\n"
    below = " ".join(escape(text) for text in legend(tables, costs=costs, marked=_LEGEND))
    parts = [_table(table, number, costs=costs) for number, table in enumerate(tables, start=1)]
    return "\n".join([intro, *parts, f"\\noindent{{\\footnotesize {below}\\par}}"]) + "\n"


def escape(text: str) -> str:
    r"""Write plain text so that LaTeX prints it; characters outside Latin-1 that it may not know become a question mark.

    >>> escape("a_b & 5%")
    'a\\_b \\& 5\\%'
    """
    written = (_ESCAPES.get(letter, letter if ord(letter) < 256 else "?") for letter in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", "".join(written))


def _table(table: Table, number: int, *, costs: bool) -> str:
    """One floating table with its notes; a wide one is broken into parts, one below the other."""
    parts = break_fields(make_fields(table, costs=costs), _WIDTH)
    notes = "\\par\n".join(escape(note) for note in table.notes)
    return "\n".join(
        [
            "\\begin{table}[tp]",
            "\\centering",
            f"\\caption{{{escape(f'{title(table)}{common(table)}. {heading(table)}.')}}}",
            f"\\label{{tab:leaderboard-{number}}}",
            "\n\\par\\medskip\n".join(_tabular(part, table) for part in parts),
            f"\\par\\smallskip{{\\footnotesize\\raggedright\n{notes}\\par}}",
            "\\end{table}",
            "",
        ]
    )


def _tabular(fields: Sequence[Field], table: Table) -> str:
    """One part, no wider than the line."""
    return "\n".join(
        [
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{{''.join('l' if field.names_row else 'r' for field in fields)}}}",
            "\\toprule",
            *_head(fields),
            "\\midrule",
            *_body(fields, table),
            "\\bottomrule",
            "\\end{tabular}}",
        ]
    )


def _head(fields: Sequence[Field]) -> list[str]:
    """The groups with their rules, then the headers."""
    cells, rules, first = [], [], 1
    for group, members in spans(fields):
        span = len(members)
        cells.append(f"\\multicolumn{{{span}}}{{c}}{{{escape(group)}}}")
        if group:
            rules.append(f"\\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    headers = ["\\shortstack{" + "\\\\".join(map(escape, wrap(field.header))) + "}" for field in fields]
    return [" & ".join(cells) + " \\\\", "".join(rules), " & ".join(headers) + " \\\\"]


def _body(fields: Sequence[Field], table: Table) -> list[str]:
    """The rows; the prompted ones below a rule of their own."""
    lines = []
    for place, row in enumerate(table.rows):
        if row.prompted and not (place and table.rows[place - 1].prompted):
            lines += ["\\midrule", f"\\multicolumn{{{len(fields)}}}{{l}}{{\\emph{{{escape(PROMPTED)}}}}} \\\\"]
        lines.append(" & ".join(_cell(field, place) for field in fields) + " \\\\")
        if any(field.below[place] for field in fields):
            below = (f"{{\\scriptsize {escape(field.below[place])}}}" if field.below[place] else "" for field in fields)
            lines.append(" & ".join(below) + " \\\\")
    return lines


def _cell(field: Field, place: int) -> str:
    text = escape(field.cells[place])
    command = {"best": "\\textbf", "second": "\\underline", "": ""}[field.marks[place]]
    return f"{command}{{{text}}}" if command else text
