"""What the report shows of the models that share their training sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from madgnet_bench.bench import figures
from madgnet_bench.bench.report.drawing import Drawing, draw
from madgnet_bench.bench.report.scores import (
    CellScores,
    HardCase,
    Pair,
    Ranks,
    cell_scores,
    compare_pairs,
    compare_ranks,
    hardest_cases,
    spread,
)
from madgnet_bench.bench.report.text import number
from madgnet_bench.bench.statistics import critical_difference_figure
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Table, build_tables
from madgnet_bench.errors import BenchError
from madgnet_bench.protocol import MEASURES

__all__ = ["SHOWN", "Block", "Picture", "build_block", "measures_to_show", "tables_by_block"]

SHOWN = 12
"""How many models, from the top of the table, figures show; more cannot be told apart."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words.

    Attributes:
        title: What it is.
        drawing: The figure.
        words: What it shows, for those who do not see it, and how to read it.
        wide: Whether it needs more room than a phone has.
    """

    title: str
    drawing: Drawing
    words: str
    wide: bool = False


@dataclass(kw_only=True)
class Block:
    """Everything about the models that share their training sets.

    Attributes:
        key: Its name on the page.
        tables: One per measure; the first is the chosen one, which all else is about.
        runs: Its runs.
        pictures: Figures by section.
        quantiles: How the scores of cases spread.
        hard: The hardest cases of each set.
        pairs: Tests of models against each other.
        ranks: Models ranked over test sets; None where that cannot be done.
        problems: Why something is not shown, by section.
        gallery: Pictured cases, by test set and model.
    """

    key: str
    tables: list[Table]
    runs: list[Run]
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    quantiles: list[figures.Quantiles] = field(default_factory=list)
    hard: list[HardCase] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    ranks: Ranks | None = None
    problems: dict[str, list[str]] = field(default_factory=dict)
    gallery: list[Any] = field(default_factory=list)

    @property
    def table(self) -> Table:
        """The table of the chosen measure."""
        return self.tables[0]

    @property
    def shown(self) -> int:
        """How many models figures show."""
        return min(SHOWN, len(self.table.rows))

    def trouble(self, section: str, error: BenchError) -> None:
        """Note why a part of a section is not shown."""
        self.problems.setdefault(section, []).append(str(error))


def build_block(
    key: str, runs: Sequence[Run], tables: Sequence[Table], folder: Path, *, step: Callable[[str], None] = lambda what: None
) -> Block:
    """Compute and draw everything but the gallery.

    Args:
        key: Name of the block on the page; begins the names of its files.
        runs: Those of the tables.
        tables: One per measure, the chosen one first.
        folder: Where figures go.
        step: Told what is done next.
    """
    block = Block(key=key, tables=list(tables), runs=list(runs))
    table = block.table
    step("case tables")
    cells = _read_cells(block)
    step("figures")
    _draw_scores(block, folder)
    _draw_costs(block, folder)
    _draw_training(block, folder)
    if cells:
        block.quantiles = spread(table, cells)
        block.hard = hardest_cases(table, cells)
        _draw_cases(block, folder)
        step("tests")
        block.pairs = compare_pairs(table, cells)
    step("ranks")
    _draw_ranks(block, folder)
    return block


def _read_cells(block: Block) -> list[CellScores]:
    """The scores of single cases, where the measure has any."""
    table = block.table
    if table.measure.pooled:
        block.problems["cases"] = [f"{table.measure.title} belongs to a whole data set: single cases have none."]
        return []
    try:
        return cell_scores(table, block.runs)
    except BenchError as error:
        block.trouble("cases", error)
        return []


def _add(
    block: Block,
    section: str,
    folder: Path,
    name: str,
    make: Callable[[], Figure],
    *,
    title: str,
    words: str,
    wide: bool = False,
) -> None:
    """Draw a figure into a section, or note why it cannot be drawn."""
    try:
        drawing = draw(make, folder, f"{block.key}-{name}")
    except BenchError as error:
        block.trouble(section, error)
        return
    block.pictures.setdefault(section, []).append(Picture(title=title, drawing=drawing, words=words, wide=wide))


def _draw_scores(block: Block, folder: Path) -> None:
    table, shown = block.table, block.shown
    both = [row for row in table.rows[:shown] if row.seen_mean is not None and row.unseen_mean is not None]
    if not both:
        block.problems["generalization"] = ["No model has both a seen and an unseen mean."]
        return
    means = "; ".join(
        f"{row.title}: seen {number(row.seen_mean, table.measure)}, unseen {number(row.unseen_mean, table.measure)}"
        for row in both
    )
    _add(
        block,
        "generalization",
        folder,
        "seen-unseen",
        lambda: figures.seen_unseen(table, shown=shown),
        title="Seen against unseen",
        words="Large marks: means over the sets, hollow where the reference told the model where to look. Small marks: single "
        "unseen sets. Dashed lines: points of equal gap. " + means + ".",
    )
    _add(
        block,
        "generalization",
        folder,
        "gap",
        lambda: figures.domain_gaps(table, shown=shown),
        title="Gap per domain",
        words=_first_of(sum(column.setting == "unseen" for column in table.columns), "worst")
        + "How much worse each model is on an unseen set than on the seen sets, of the same target where there are any. "
        "Sets with the largest loss stand on top; further to the right is worse.",
    )


def _first_of(sets: int, which: str) -> str:
    """Say that not all test sets are shown, where there are too many."""
    return f"The {which} {figures.MOST_SETS} of {sets} test sets. " if sets > figures.MOST_SETS else ""


def _draw_cases(block: Block, folder: Path) -> None:
    _add(
        block,
        "cases",
        folder,
        "cases",
        lambda: figures.case_distributions(block.table, block.quantiles, shown=block.shown),
        title="Scores of single cases",
        words=_first_of(len(block.table.columns), "first")
        + "Each case is the mean over the seeds. Box: the middle half of the cases; line: 5% to 95%; bar: median; dot: "
        "mean. The numbers stand in the table below.",
        wide=True,
    )


def _draw_costs(block: Block, folder: Path) -> None:
    table = block.table
    known = {label: values for label, values in costs(table).items() if any(values)}
    if all(row.unseen_mean is None for row in table.rows):
        block.problems["cost"] = ["No model has an unseen mean."]
        return
    sign = 1 if table.measure.higher_is_better else -1
    sentences = []
    for label, values in known.items():
        priced = [(row, value) for row, value in zip(table.rows, values, strict=True) if value and row.unseen_mean is not None]
        rows = [(row, value) for row, value in priced if not row.prompted]
        front = figures.pareto_front([(value, sign * (row.unseen_mean or 0.0)) for row, value in rows])
        if front:
            sentences.append(f"On it by {label}: {', '.join(rows[place][0].label for place in front)}.")
    _add(
        block,
        "cost",
        folder,
        "cost",
        lambda: figures.cost_accuracy(table, known, shown=block.shown),
        title="Cost against accuracy",
        words=" ".join(["The dashed line joins the models that no other beats: none is as cheap and better.", *sentences]),
    )


def costs(table: Table) -> dict[str, list[float | None]]:
    """Every cost of every row, by the label of its axis."""
    return {
        "parameters (millions)": [row.parameters / 1e6 for row in table.rows],
        "GMAC per image": [row.costs.gmac for row in table.rows],
        "milliseconds per image": [row.costs.milliseconds_per_image for row in table.rows],
    }


def _draw_training(block: Block, folder: Path) -> None:
    table = block.table
    histories: dict[str, list[dict[str, float]]] = {}
    for run in block.runs:
        try:
            histories[run.run_id] = run.folder.read_history()
        except BenchError as error:
            block.trouble("training", error)
    _add(
        block,
        "training",
        folder,
        "training",
        lambda: figures.training_curves(table, histories, shown=block.shown),
        title="Learning curves",
        words="One line per run. Losses of different kinds do not compare; the validation cases are those of the seen sets.",
    )
    for row in table.rows[: block.shown]:
        run_id = next((run_id for run_id in row.run_ids if histories.get(run_id)), None)
        if run_id is not None:
            run = next(run for run in block.runs if run.run_id == run_id)
            folder_of_run = run.folder
            _add(
                block,
                "histories",
                folder,
                f"history-{run.run_id}",
                lambda folder_of_run=folder_of_run: figures.learning_curves(folder_of_run),  # type: ignore[misc]
                title=f"{row.title}, seed {run.seed}",
                words="Over the epochs: loss terms of the training, measures of the seen validation, and what the network logs "
                "of itself.",
                wide=True,
            )


def _draw_ranks(block: Block, folder: Path) -> None:
    try:
        ranks = compare_ranks(block.table, block.runs, shown=20)
    except BenchError as error:
        block.trouble("ranks", error)
        return
    block.ranks = ranks
    joined = [" and ".join(ranks.labels[model] for model in clique) for clique in ranks.nemenyi.cliques]
    told = f"Not told apart: {'; '.join(joined)}." if joined else "All pairs are told apart."
    caution = f" Caution: {ranks.nemenyi.caution}." if ranks.nemenyi.caution else ""
    _add(
        block,
        "ranks",
        folder,
        "critical-difference",
        lambda: critical_difference_figure(ranks.labels, ranks.nemenyi),
        title="Critical-difference diagram",
        words=f"Average ranks over {ranks.friedman.datasets} test sets, 1 is best; models joined by a bar do not differ at the "
        f"5% level by Nemenyi's test. {told}{caution}",
        wide=True,
    )


def tables_by_block(
    runs: Sequence[Run], measures: Sequence[str], protocol: str | None
) -> tuple[dict[tuple[str, ...], list[Table]], list[str]]:
    """The tables of every measure, by training sets.

    Args:
        runs: At least one.
        measures: The chosen measure, whose tables have intervals, then the others.
        protocol: As of `build_tables`.

    Returns:
        The tables, and why other measures are left out.

    Raises:
        BenchError: As `build_tables`, for the chosen measure.
    """
    blocks: dict[tuple[str, ...], list[Table]] = {}
    problems = []
    for place, measure in enumerate(measures):
        try:
            tables = build_tables(runs, measure, protocol=protocol, intervals=not place)
        except BenchError as error:
            if not place:
                raise
            problems.append(f"No table of {MEASURES[measure].title}: {error}")
            continue
        for table in tables:
            blocks.setdefault(table.training_sets, []).append(table)
    return blocks, problems


def measures_to_show(wanted: str, common: Sequence[str]) -> list[str]:
    """The chosen measure, then the others that all runs hold."""
    return [wanted, *(name for name in MEASURES if name in common and name != wanted)]
