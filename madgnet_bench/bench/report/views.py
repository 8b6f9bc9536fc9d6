"""Tables as the templates take them: plain cells with a text, a second line, and a value to sort by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from madgnet_bench.bench.notes import DAGGER
from madgnet_bench.bench.report.content import Block
from madgnet_bench.bench.report.text import MISSING, amount, hours, number, pvalue, span, unit
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Column, Row, Score, Table
from madgnet_bench.protocol import Measure

__all__ = ["Cell", "Header", "View", "hard_view", "leaderboard_view", "pairs_view", "ranks_view", "runs_view", "spread_view"]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The head of a column.

    Attributes:
        text: Its title.
        note: A second, smaller line.
        setting: ``seen`` or ``unseen`` where the column belongs to a test set.
        dataset: Name of that test set.
        numeric: Whether its cells are numbers.
    """

    text: str
    note: str = ""
    setting: str = ""
    dataset: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: What it shows.
        notes: Smaller lines below it.
        value: What it is sorted by; None where it is missing, which comes last.
        mark: ``best``, ``second``, or nothing.
        title: Why it is missing.
    """

    text: str
    notes: tuple[str, ...] = ()
    value: float | str | None = None
    mark: str = ""
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row: what the filters look at, its cells, of which the first names it, and whether it stands below all others."""

    network: str
    cells: tuple[Cell, ...]
    apart: bool = False
    setting: str = ""
    dataset: str = ""


@dataclass(frozen=True, kw_only=True)
class View:
    """One table.

    Attributes:
        caption: What it is.
        headers: Its columns.
        lines: Its rows.
        name: Name of the measure, where the page shows one of several tables.
        sorted_by: Position of the column that it is sorted by, -1 for none.
    """

    caption: str
    headers: tuple[Header, ...]
    lines: tuple[Line, ...]
    name: str = ""
    sorted_by: int = -1


def leaderboard_view(table: Table) -> View:
    """Models by test sets, with means, gap, rank and costs."""
    measure = table.measure
    places = range(len(table.columns))
    marks = [_marks([row.scores[place].mean for row in table.rows], table) for place in places]
    overall = [_marks([row.seen_mean for row in table.rows], table), _marks([row.unseen_mean for row in table.rows], table)]
    priced = _costs(table.rows)
    headers = [
        Header(text="Model", numeric=False),
        *(Header(text=text) for text in ("mean rank", "unseen mean", "seen mean", "gap")),
        *(_header(column) for column in table.columns),
        Header(text="worst set", note="score and name"),
        *(header for header, _ in priced),
    ]
    lines = []
    for position, row in enumerate(table.rows):
        cells = [_model(row, table), _rank(row)]
        cells += [_score(row.unseen, measure, overall[1][position]), _score(row.seen, measure, overall[0][position])]
        cells.append(_score(row.difference, measure))
        cells += [_score(row.scores[place], measure, marks[place][position], row, table.columns[place]) for place in places]
        cells += [_worst(row, measure), *(costs[position] for _, costs in priced)]
        lines.append(Line(network=row.title, cells=tuple(cells), apart=row.prompted))
    return View(
        caption=f"{measure.title} in {unit(measure, table.protocol)}, trained on {', '.join(table.training_sets)}",
        headers=tuple(headers),
        lines=tuple(lines),
        name=measure.name,
        sorted_by=1 if len(table.rows) > 1 and table.rows[0].mean_rank is not None else -1,
    )


def _header(column: Column) -> Header:
    target = "" if column.label.endswith(f":{column.target}") else column.target
    return Header(text=column.label, note=target, setting=column.setting, dataset=column.dataset)


def _marks(means: Sequence[float | None], table: Table) -> list[str]:
    """Mark the best and the second among the automatic rows, by what is shown; ties share their mark."""
    shown = [
        None if mean is None or row.prompted else float(number(mean, table.measure).replace("\N{MINUS SIGN}", "-"))
        for mean, row in zip(means, table.rows, strict=True)
    ]
    ordered = sorted({value for value in shown if value is not None}, reverse=table.measure.higher_is_better)
    names = dict(zip(ordered, ("best", "second"), strict=False)) if len(ordered) > 1 else {}
    return ["" if value is None else names.get(value, "") for value in shown]


def _model(row: Row, table: Table) -> Cell:
    seeds = f"{len(row.seeds)} seeds" if len(row.seeds) > 1 else f"seed {row.seeds[0]}"
    facts = [seeds]
    for name, text in (("image_size", f"{row.image_size} px"), ("epochs", f"{row.epochs} epochs")):
        if len({getattr(other, name) for other in table.rows}) > 1:
            facts.append(text)
    if row.prompted:
        facts.append(f"told {row.prompts} by the reference")
    return Cell(text=row.label, notes=(", ".join(facts),), value=row.label)


def _score(score: Score, measure: Measure, mark: str = "", row: Row | None = None, column: Column | None = None) -> Cell:
    """A score; below it the spread over seeds and the interval over cases."""
    if score.mean is None:
        return Cell(text=MISSING, title=score.missing or "incomplete")
    parts = [] if score.std is None else [f"\N{PLUS-MINUS SIGN} {number(score.std, measure)}"]
    if score.interval:
        parts.append(f"[{number(score.interval[0], measure)}, {number(score.interval[1], measure)}]")
    dagger = DAGGER if row and column and column.label in row.contaminated else ""
    return Cell(text=number(score.mean, measure) + dagger, notes=tuple(parts), value=score.mean, mark=mark)


def _rank(row: Row) -> Cell:
    return Cell(text=MISSING if row.mean_rank is None else f"{row.mean_rank:.2f}", value=row.mean_rank)


def _worst(row: Row, measure: Measure) -> Cell:
    if row.worst is None or row.worst[1].mean is None:
        return Cell(text=MISSING)
    return Cell(text=number(row.worst[1].mean, measure), notes=(row.worst[0],), value=row.worst[1].mean)


def _costs(rows: Sequence[Row]) -> list[tuple[Header, list[Cell]]]:
    """The columns of costs that any row has."""
    columns = [(Header(text="parameters"), [Cell(text=amount(row.parameters), value=row.parameters) for row in rows])]
    hardware = sorted({row.costs.hardware for row in rows if row.costs.hardware})
    on = f"on {hardware[0]}" if len(hardware) == 1 else ""
    for name, text, note in (
        ("gmac", "GMAC", "per image"),
        ("milliseconds_per_image", "ms", f"per image {on}".strip()),
        ("peak_memory_mb", "peak MB", on),
        ("device_hours", "device hours", on),
    ):
        values = [getattr(row.costs, name) for row in rows]
        if any(value is not None for value in values):
            own = not on and name != "gmac"
            cells = []
            for row, value in zip(rows, values, strict=True):
                places = (row.costs.hardware,) if own and row.costs.hardware else ()
                cells.append(Cell(text=MISSING if value is None else f"{value:.3g}", notes=places, value=value))
            columns.append((Header(text=text, note=note), cells))
    return columns


def spread_view(block: Block) -> View:
    """Quantiles of every model on every test set."""
    table = block.table
    lines = []
    for box in block.quantiles:
        row, column = table.rows[box.row], table.columns[box.column]
        values = (box.mean, *box.levels)
        cells = [Cell(text=row.title, value=row.title), Cell(text=column.label, value=column.label)]
        cells.append(Cell(text=f"{box.cases:,}", value=box.cases))
        cells += [Cell(text=number(value, table.measure), value=value) for value in values]
        place = {"setting": column.setting, "dataset": column.dataset}
        lines.append(Line(network=row.title, cells=tuple(cells), apart=row.prompted, **place))
    texts = ("mean", "5%", "25%", "median", "75%", "95%")
    headers = [Header(text="Model", numeric=False), Header(text="test set", numeric=False), Header(text="cases")]
    return View(
        caption=f"{table.measure.title} over cases in {unit(table.measure, table.protocol)}",
        headers=(*headers, *(Header(text=text) for text in texts)),
        lines=tuple(lines),
    )


def hard_view(block: Block) -> View:
    """The hardest cases of every test set."""
    table = block.table
    lines = []
    for case in block.hard:
        column = table.columns[case.column]
        ends = [
            Cell(text=number(value, table.measure), notes=(label,), value=value) for value, label in (case.worst, case.best)
        ]
        mean = Cell(text=number(case.mean, table.measure), value=case.mean)
        names = (Cell(text=case.case_id, value=case.case_id), Cell(text=column.label, value=column.label))
        lines.append(Line(network="", cells=(*names, mean, *ends), setting=column.setting, dataset=column.dataset))
    texts = ("mean over models", "worst model", "best model")
    headers = (Header(text="Case", numeric=False), Header(text="test set", numeric=False))
    return View(
        caption=f"The hardest cases of each test set, {table.measure.title} in {unit(table.measure, table.protocol)}",
        headers=(*headers, *(Header(text=text) for text in texts)),
        lines=tuple(lines),
    )


def pairs_view(block: Block) -> View:
    """Tests of models against each other."""
    table, measure = block.table, block.table.measure
    lines = []
    for pair in block.pairs:
        first, second, column = table.rows[pair.first].label, table.rows[pair.second].label, table.columns[pair.column]
        different = pair.adjusted is not None and pair.adjusted < 0.05
        between = span(pair.low, pair.high, measure)
        cells = (
            Cell(text=f"{first} \N{MINUS SIGN} {second}", value=f"{first} {second}"),
            Cell(text=column.label, value=column.label),
            Cell(text=number(pair.difference, measure, sign=True), notes=(between,) if between else (), value=pair.difference),
            Cell(text=pvalue(pair.pvalue), value=pair.pvalue, title=pair.method if pair.pvalue is None else ""),
            Cell(text=pvalue(pair.adjusted), value=pair.adjusted, mark="best" if different else ""),
            _plain(pair.cohen_dz),
            Cell(text=MISSING if pair.superiority is None else f"{100 * pair.superiority:.0f}%", value=pair.superiority),
            Cell(text=f"{pair.groups:,}", value=pair.groups),
            Cell(text=pair.method, value=pair.method),
        )
        lines.append(Line(network=f"{first} {second}", cells=cells, setting=column.setting, dataset=column.dataset))
    headers = (
        Header(text="Models", numeric=False),
        Header(text="test set", numeric=False),
        Header(text="difference", note="95% interval"),
        Header(text="p"),
        Header(text="p, Holm"),
        Header(text="d", note="of groups"),
        Header(text="first better", note="of groups"),
        Header(text="groups"),
        Header(text="test", numeric=False),
    )
    return View(caption=f"Paired tests of {measure.title}, first model minus second", headers=headers, lines=tuple(lines))


def _plain(value: float | None) -> Cell:
    text = MISSING if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    return Cell(text=text, value=value)


def ranks_view(block: Block) -> View:
    """How firm the places of the models are."""
    lines = []
    for standing in block.ranks.standings if block.ranks else ():
        known = standing.low is not None and standing.high is not None
        cells = (
            Cell(text=standing.label, value=standing.label),
            Cell(text=f"{standing.rank:.2f}", value=standing.rank),
            Cell(text=f"{standing.low:.2f} to {standing.high:.2f}" if known else MISSING, value=standing.low),
            Cell(text=MISSING if standing.best is None else f"{100 * standing.best:.0f}%", value=standing.best),
        )
        lines.append(Line(network=standing.label, cells=cells))
    headers = (
        Header(text="Model", numeric=False),
        Header(text="average rank"),
        Header(text="95% interval", note="cases resampled"),
        Header(text="first in", note="of resamples"),
    )
    return View(caption="Average ranks and how firm they are", headers=headers, lines=tuple(lines), sorted_by=1)


def runs_view(runs: Sequence[Run]) -> View:
    """Where every number comes from."""
    lines = []
    for run in runs:
        hardware = run.hardware
        device = f"{hardware.get('accelerator', '')} {hardware.get('machine', '')}".strip() or MISSING
        epoch = run.checkpoint.get("epoch")
        chosen = f"epoch {epoch + 1} of {run.epochs}" if isinstance(epoch, int) else MISSING
        made = f"{run.version}{' (stale)' if run.stale else ''}"
        cells = (
            Cell(text=run.run_id, value=run.run_id),
            Cell(text=run.network, value=run.network),
            Cell(text=str(run.seed), value=run.seed),
            Cell(text=", ".join(run.training_sets), value=", ".join(run.training_sets)),
            Cell(
                text=chosen,
                notes=(f"{run.checkpoint.get('rule', '')} checkpoint",),
                value=epoch if isinstance(epoch, int) else None,
            ),
            Cell(text=run.protocol, value=run.protocol),
            Cell(text=made, notes=(run.commit,) if run.commit else (), value=run.version),
            Cell(text=device, value=device),
            Cell(text=hours(run.seconds), value=run.seconds),
        )
        lines.append(Line(network=run.network, cells=cells))
    titles = ("Run", "network", "seed", "trained on", "tested checkpoint", "protocol", "version", "hardware", "time")
    numeric = ("seed", "time")
    headers = tuple(Header(text=title, numeric=title in numeric) for title in titles)
    return View(caption="The runs behind this report", headers=headers, lines=tuple(lines))
