"""The page of the report and the files beside it."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from madgnet_bench import __version__
from madgnet_bench.bench.render import to_csv, to_json, to_latex, to_markdown
from madgnet_bench.bench.report import views
from madgnet_bench.bench.report.cards import add_gallery
from madgnet_bench.bench.report.content import Block, build_block, measures_to_show, tables_by_block
from madgnet_bench.bench.report.scores import ALL_PAIRS
from madgnet_bench.bench.report.text import MISSING, count, pvalue, summary
from madgnet_bench.bench.store import Run, Store
from madgnet_bench.bench.tables import Table, common_measures
from madgnet_bench.errors import RunError
from madgnet_bench.pictures import KINDS, PARTS
from madgnet_bench.protocol import MEASURES, Protocol
from madgnet_bench.records import write_atomically

__all__ = ["write_report"]

_GENERATOR = '<meta name="generator" content="madgnet-bench'
_SECTIONS = (
    ("summary", "Summary"),
    ("scores", "Scores"),
    ("generalization", "Seen and unseen"),
    ("cases", "Cases"),
    ("ranks", "Ranks and tests"),
    ("cost", "Cost"),
    ("training", "Training"),
    ("gallery", "Pictures"),
    ("provenance", "Provenance"),
    ("reading", "How to read it"),
)
_DOWNLOADS: tuple[tuple[str, str, Callable[[Sequence[Table]], str]], ...] = (
    ("leaderboard.csv", "CSV", to_csv),
    ("leaderboard.md", "Markdown", to_markdown),
    ("leaderboard.tex", "LaTeX", to_latex),
    ("leaderboard.json", "JSON", to_json),
)


def write_report(
    store: Store,
    folder: Path,
    *,
    measure: str = "dsc",
    protocol: str | None = None,
    step: Callable[[str], None] = lambda what: None,
) -> Path:
    """Write the report of some runs.

    Args:
        store: At least one finished run.
        folder: Where ``index.html``, ``figures/``, ``tables/`` and ``pictures/`` go; an earlier report there is deleted.
        measure: What figures and tests are about; tables show all measures that the runs share.
        protocol: Text of the protocol to show, needed where the runs hold several.
        step: Told what is done next.

    Returns:
        The page.

    Raises:
        BenchError: As `madgnet_bench.bench.tables.build_tables`, or the folder holds something else than a report.
    """
    runs = list(store.runs)
    step("tables")
    names = measures_to_show(measure, common_measures(runs))
    by_block, problems = tables_by_block(runs, names, protocol)
    _make_room(folder)
    blocks: list[Block] = []
    for number, (sets, tables) in enumerate(by_block.items(), start=1):
        members = {run for row in tables[0].rows for run in row.run_ids}
        chosen = [run for run in runs if run.run_id in members]
        title = f"trained on {', '.join(sets)}: " if len(by_block) > 1 else ""
        block = build_block(
            f"b{number}",
            chosen,
            tables,
            folder / "figures",
            step=lambda what, title=title: step(f"{title}{what}"),  # type: ignore[misc]
        )
        step(f"{title}pictures")
        problems += add_gallery(block, folder / "pictures")
        blocks.append(block)
    step("page")
    _write_tables(blocks, folder / "tables")
    page = folder / "index.html"
    write_atomically(page, _render(blocks, store, problems))
    return page


def _make_room(folder: Path) -> None:
    """Delete an earlier report; refuse a folder that holds anything else.

    From here on a page says what the folder is, so that a report that was interrupted can be written again.
    """
    page = folder / "index.html"
    if page.is_file() and _GENERATOR in page.read_text(encoding="utf-8", errors="replace")[:100_000]:
        for name in ("figures", "tables", "pictures"):
            shutil.rmtree(folder / name, ignore_errors=True)
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} holds something else than a report; name a new folder with --output.")
    write_atomically(page, f'<!doctype html>{_GENERATOR} {__version__}"><title>Report</title><p>This report is not complete.\n')


def _write_tables(blocks: Sequence[Block], folder: Path) -> None:
    """Write what can be downloaded."""
    everything = [table for block in blocks for table in block.tables]
    for name, _, render in _DOWNLOADS:
        write_atomically(folder / name, render(everything))
    for block in blocks:
        if block.pairs:
            write_atomically(folder / f"{block.key}-tests.csv", _tests_csv(block))


def _tests_csv(block: Block) -> str:
    """The paired tests, with values as stored."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ("difference", "low", "high", "pvalue", "adjusted", "cohen_dz", "superiority", "groups", "method")
    writer.writerow(["measure", "first", "second", "setting", "dataset", "target", *names])
    for pair in block.pairs:
        rows, column = block.table.rows, block.table.columns[pair.column]
        values = [getattr(pair, name) for name in names]
        shown = ["" if value is None else f"{value:.10g}" if isinstance(value, float) else value for value in values]
        models = [rows[pair.first].label, rows[pair.second].label]
        writer.writerow([block.table.measure.name, *models, column.setting, column.dataset, column.target, *shown])
    return stream.getvalue()


def _render(blocks: Sequence[Block], store: Store, problems: Sequence[str]) -> str:
    """Fill the template."""
    environment = Environment(
        loader=PackageLoader("madgnet_bench.bench.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p"] = lambda value: f"p = {pvalue(value)}".replace("= <", "< ")
    runs = [run for block in blocks for run in block.runs]
    first = blocks[0].table
    return environment.get_template("page.html").render(
        title="Benchmark report",
        subtitle=f"{first.measure.title}, protocol {first.protocol}, {count(len({run.run_id for run in runs}), 'run')}",
        version=__version__,
        created=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        css=_asset("report.css"),
        early=_asset("early.js"),
        js=_asset("report.js"),
        sections=_SECTIONS,
        blocks=blocks,
        measures=[MEASURES[name] for name in dict.fromkeys(table.measure.name for block in blocks for table in block.tables)],
        datasets=sorted({column.dataset for block in blocks for column in block.table.columns}),
        summaries={block.key: summary(block.table) for block in blocks},
        boards={block.key: [views.leaderboard_view(table) for table in block.tables] for block in blocks},
        notes={block.key: [table.notes for table in block.tables] for block in blocks},
        hards={block.key: views.hard_view(block) for block in blocks},
        spreads={block.key: views.spread_view(block) for block in blocks},
        pairs={block.key: views.pairs_view(block) for block in blocks},
        ranks={block.key: views.ranks_view(block) for block in blocks},
        runs=views.runs_view(runs),
        downloads=[(name, label) for name, label, _ in _DOWNLOADS],
        remarks=[*store.remarks(shown=50), *problems],
        protocol=first.protocol,
        protocol_facts=_protocol_facts(first.protocol),
        manifests=_manifests(runs),
        all_pairs=ALL_PAIRS,
        parts=PARTS,
        kinds=KINDS,
        dash=MISSING,
    )


def _asset(name: str) -> str:
    return (files("madgnet_bench.bench.report") / "templates" / name).read_text(encoding="utf-8")


def _protocol_facts(text: str) -> list[tuple[str, str]]:
    """Every rule of the protocol."""
    protocol = Protocol.parse(text)
    return [
        (field.name.replace("_", " "), str(getattr(protocol, field.name)))
        for field in dataclasses.fields(protocol)
        if field.name != "name"
    ]


def _manifests(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """The data sets by name, with the hash of their list of cases."""
    return sorted({(name, sha256) for run in runs for name, sha256 in run.manifests.items()})
