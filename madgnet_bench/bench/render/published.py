"""Published scores beside ours as text for a terminal, Markdown, LaTeX, tidy CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from madgnet_bench.bench.beside import BesideTable, Comparison
from madgnet_bench.bench.render.latex import escape
from madgnet_bench.protocol import Measure

__all__ = [
    "PUBLISHED_SCHEMA_VERSION",
    "published_to_csv",
    "published_to_json",
    "published_to_latex",
    "published_to_markdown",
    "published_to_text",
]

PUBLISHED_SCHEMA_VERSION = 1
"""Grows when a key of the JSON changes its meaning or goes; new keys may come without."""

_NONE = "\N{EN DASH}"
_SPREAD = " \N{PLUS-MINUS SIGN} "
_CSV_COLUMNS = (
    "training_sets protocol measure network version recipe seeds setting dataset target cases ours_mean ours_std ours_low "
    "ours_high source table model metric theirs_mean theirs_std std_ddof trainings theirs_cases comparable difference "
    "within_spread within_interval reasons remarks run_ids"
).split()
_HEADER = ("test set", "ours", "theirs", "difference", "within spread", "within interval")


@dataclass(frozen=True)
class _Block:
    """One printed table: what stands above it, its header and rows, and what stands below it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def published_to_text(tables: Sequence[BesideTable], *, width: int = 120) -> str:
    """Lay the comparisons out as aligned plain text.

    Args:
        tables: At least one table.
        width: Columns of the terminal, for notes.
    """
    parts = []
    for beside in tables:
        lines = [_heading(beside)]
        for block in _blocks(beside):
            lines += ["", *textwrap.wrap(block.title, width), *_align(block)]
            for note in block.notes:
                lines += textwrap.wrap(note, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        parts.append("\n".join(lines))
    legend = "\n".join(line for text in _LEGEND for line in textwrap.wrap(text, width))
    return "\n\n".join([*parts, legend]) + "\n"


def published_to_markdown(tables: Sequence[BesideTable]) -> str:
    """Lay the comparisons out as Markdown, with reasons and remarks as lists."""
    parts = []
    for beside in tables:
        parts.append(f"### {_heading(beside)}")
        for block in _blocks(beside):
            parts.append(block.title)
            rule = ["---", *["---:"] * (len(block.header) - 1)]
            rows = [block.header, rule, *block.rows] if block.rows else []
            table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
            parts += [text for text in (table, "\n".join(f"- {note}" for note in block.notes)) if text]
    legend = "\n".join(f"- {text}" for text in _LEGEND)
    return "\n\n".join([*parts, f"How to read it:\n\n{legend}"]) + "\n"


def published_to_csv(tables: Sequence[BesideTable]) -> str:
    """Write one line per published score, with values as fractions to ten significant digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for record in _records(tables):
        writer.writerow([_field(record[name]) for name in _CSV_COLUMNS])
    return stream.getvalue()


def published_to_latex(tables: Sequence[BesideTable]) -> str:
    r"""Lay the comparisons out with the rules of booktabs, for ``\usepackage{booktabs,graphicx}``."""
    parts = ["% madgnet-bench leaderboard --published; needs \\usepackage{booktabs,graphicx}\n"]
    parts += [_latex_block(block, _heading(beside)) for beside in tables for block in _blocks(beside)]
    below = " ".join(escape(text) for text in _LEGEND)
    return "\n".join([*parts, f"\\noindent{{\\footnotesize {below}\\par}}"]) + "\n"


def _latex_block(block: _Block, heading: str) -> str:
    """One floating table, or a paragraph where the block has no rows."""
    if not block.rows:
        return f"\\noindent {escape(f'{heading}. {block.title}')}\\par\n"
    rows = [" & ".join(map(escape, row)) + " \\\\" for row in block.rows]
    notes = " ".join(escape(f"{note.rstrip('.')}.") for note in block.notes)
    return "\n".join(
        [
            "\\begin{table}[tp]",
            "\\centering",
            f"\\caption{{{escape(f'{heading}. {block.title}')}}}",
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (len(block.header) - 1)}}}",
            "\\toprule",
            " & ".join(map(escape, block.header)) + " \\\\",
            "\\midrule",
            *rows,
            "\\bottomrule",
            "\\end{tabular}}",
            f"\\par\\smallskip{{\\footnotesize\\raggedright {notes}\\par}}",
            "\\end{table}",
            "",
        ]
    )


def published_to_json(tables: Sequence[BesideTable]) -> str:
    """Write ``schema_version`` and ``comparisons``, the lines of `published_to_csv` as objects; what is not known is null."""
    content = {"schema_version": PUBLISHED_SCHEMA_VERSION, "comparisons": _records(tables)}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _records(tables: Sequence[BesideTable]) -> list[dict[str, object]]:
    return [_record(beside, comparison) for beside in tables for comparison in (*beside.comparisons, *beside.published_only)]


def _record(beside: BesideTable, comparison: Comparison) -> dict[str, object]:
    """One published score with everything known of the comparison."""
    theirs, row, score, column = comparison.published, comparison.row, comparison.score, comparison.column
    low, high = (score.interval or (None, None)) if score else (None, None)
    return {
        "training_sets": list(beside.table.training_sets),
        "protocol": row.protocol if row else beside.table.protocol,
        "measure": beside.table.measure.name,
        **{name: getattr(row, name) if row else None for name in ("network", "version", "recipe")},
        "seeds": list(row.seeds) if row else None,
        **{name: getattr(column, name) for name in ("setting", "dataset", "target", "cases")},
        "ours_mean": score.mean if score else None,
        "ours_std": score.std if score else None,
        "ours_low": low,
        "ours_high": high,
        **{name: getattr(theirs, name) for name in ("source", "table", "metric", "std_ddof", "trainings")},
        "model": theirs.model.model,
        "theirs_mean": theirs.mean,
        "theirs_std": theirs.std,
        "theirs_cases": theirs.test_cases,
        "comparable": not comparison.reasons,
        **{name: getattr(comparison, name) for name in ("difference", "within_spread", "within_interval")},
        "reasons": list(comparison.reasons),
        "remarks": list(comparison.remarks),
        "run_ids": list(row.run_ids) if row else None,
    }


def _field(value: object) -> str:
    """A value as a CSV field: nothing where it is not known."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _heading(beside: BesideTable) -> str:
    table = beside.table
    unit = {"fraction": " in %", "nats": " in nats", "distance": ""}[table.measure.unit]
    return (
        f"Beside published results: {table.measure.title}{unit}, trained on {', '.join(table.training_sets)}, {table.protocol}"
    )


def _blocks(beside: BesideTable) -> list[_Block]:
    """One block per model of ours and published model, one for what is only published, one for what is only ours."""
    measure = beside.table.measure
    groups: dict[object, list[Comparison]] = {}
    for comparison in beside.comparisons:
        assert comparison.row is not None
        key = (comparison.row.run_ids, comparison.row.protocol, comparison.published.source, comparison.published.model.model)
        groups.setdefault(key, []).append(comparison)
    blocks = [_compared(group, measure) for group in groups.values()]
    sources = {comparison.published.source: None for comparison in beside.published_only}
    for source in sources:
        blocks.append(_only_published([c for c in beside.published_only if c.published.source == source], source, measure))
    if beside.unpublished:
        blocks.append(_Block(f"Nothing is published here for: {', '.join(beside.unpublished)}.", (), (), ()))
    if not blocks:
        blocks.append(_Block("Nothing is published here for these test sets and this measure.", (), (), ()))
    return blocks


def _compared(comparisons: Sequence[Comparison], measure: Measure) -> _Block:
    """One model of ours beside one published model; reasons are numbered below, each once."""
    first = comparisons[0]
    assert first.row is not None
    numbers: dict[str, int] = {}
    rows = []
    for comparison in comparisons:
        marks = [numbers.setdefault(reason, len(numbers) + 1) for reason in comparison.reasons]
        verdict = (f"not comparable: {', '.join(map(str, sorted(marks)))}", "", "") if marks else _verdict(comparison, measure)
        rows.append((comparison.column.label, _ours(comparison, measure), _theirs(comparison, measure), *verdict))
    tables = ", ".join(dict.fromkeys(comparison.published.table for comparison in comparisons))
    title = (
        f"{first.row.label} ({_count(len(first.row.seeds))}) beside {first.published.model.model} of {first.published.source}"
    )
    remarks = dict.fromkeys(text for comparison in comparisons for text in comparison.remarks)
    return _Block(f"{title} ({tables}).", _HEADER, rows, [*(f"{n}: {text}" for text, n in numbers.items()), *remarks])


def _only_published(comparisons: Sequence[Comparison], source: str, measure: Measure) -> _Block:
    """Models x test sets of one source for which there is no run here."""
    columns = list(dict.fromkeys(_printed_test(comparison) for comparison in comparisons))
    models = list(dict.fromkeys(comparison.published.model.model for comparison in comparisons))
    cells = {(c.published.model.model, _printed_test(c)): _theirs(c, measure) for c in comparisons}
    rows = [(model, *(cells.get((model, column), _NONE) for column in columns)) for model in models]
    return _Block(f"Published in {source}, with no run here.", ("model", *columns), rows, ())


def _printed_test(comparison: Comparison) -> str:
    """The test set as the source prints it, with the target where our column has it."""
    dataset = comparison.published.dataset
    return f"{dataset}: {comparison.published.target}" if ":" in comparison.column.label else dataset


def _verdict(comparison: Comparison, measure: Measure) -> tuple[str, str, str]:
    """Difference, within spread, within interval."""
    assert comparison.difference is not None
    words = {True: "yes", False: "no", None: _NONE}
    difference = _number(comparison.difference, measure, 2)
    sign = "" if difference.startswith("-") else "+"
    return sign + difference, words[comparison.within_spread], words[comparison.within_interval]


def _ours(comparison: Comparison, measure: Measure) -> str:
    """Our mean with its deviation over seeds and its interval over cases."""
    score = comparison.score
    if score is None or score.mean is None:
        return _NONE
    spread = "" if score.std is None else _SPREAD + _number(score.std, measure, 2)
    low, high = score.interval or (None, None)
    interval = "" if low is None or high is None else f" [{_number(low, measure, 2)}, {_number(high, measure, 2)}]"
    return _number(score.mean, measure, 2) + spread + interval


def _theirs(comparison: Comparison, measure: Measure) -> str:
    """The published mean and deviation as printed, fractions in percent."""
    theirs = comparison.published
    spread = "" if theirs.std is None else _SPREAD + _number(theirs.std, measure, theirs.decimals)
    return _number(theirs.mean, measure, theirs.decimals) + spread


def _number(value: float, measure: Measure, decimals: int) -> str:
    return f"{100 * value if measure.unit == 'fraction' else value:.{decimals}f}"


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _align(block: _Block) -> list[str]:
    """Print a block's rows side by side, the first column to the left; a verdict in words runs over the last columns."""
    if not block.rows:
        return []
    lines = [block.header, *block.rows]
    widths = [max(len(line[n]) for line in lines if line[-1] or n < 3) for n in range(len(block.header))]
    rule = "  ".join("-" * width for width in widths)
    shown = [_line(line, widths) for line in lines]
    return [f"  {text}".rstrip() for text in (shown[0], rule, *shown[1:])]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(cells, widths, strict=True))]
    if not cells[-1]:
        padded[3:] = [cells[3]]
    return "  ".join(padded)


_LEGEND = (
    "Ours: mean over cases, then over seeds, \N{PLUS-MINUS SIGN} standard deviation over seeds (n - 1), [95% interval over "
    "cases]. Theirs: as printed. Difference: ours minus theirs.",
    "Within spread: the difference is no greater than the root of the summed squares of both deviations (n - 1). Within "
    "interval: the published mean lies in our interval over cases. Neither is a test.",
    "Scores that are not comparable are not compared: the numbers name the reasons below each table.",
)
