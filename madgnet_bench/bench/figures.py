"""Figures made from run folders and tables alone. No torch.

Models keep their colour and marker through all figures of a table: its `palette`. The colours are told apart by
colour-blind readers too (Okabe and Ito, without yellow, which is too light for lines), and every mark also has a shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from madgnet_bench.bench.tables import Column, Row, Table
from madgnet_bench.errors import RunError
from madgnet_bench.protocol import Measure, Protocol
from madgnet_bench.records import RunFolder

__all__ = [
    "COLOURS",
    "GRID",
    "INK",
    "MOST_SETS",
    "MUTED",
    "PAPER",
    "Mark",
    "Quantiles",
    "axis_label",
    "case_distributions",
    "cost_accuracy",
    "domain_gaps",
    "learning_curves",
    "palette",
    "pareto_front",
    "scale",
    "seen_unseen",
    "style",
    "training_curves",
]

PAPER, INK, MUTED, GRID = "#ffffff", "#1b2129", "#5a6572", "#dfe3e8"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D")

MOST_SETS = 30
"""How many test sets a figure with a line or panel for each of them shows."""


@dataclass(frozen=True)
class Mark:
    """How a model is drawn."""

    colour: str
    marker: str


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """How the scores of a model spread over the cases of one test set, as the measure is stored.

    Attributes:
        row: Position of the model in the table.
        column: Position of the test set in the table.
        cases: Number of cases.
        mean: Their mean.
        levels: Quantiles 0.05, 0.25, 0.5, 0.75 and 0.95.
    """

    row: int
    column: int
    cases: int
    mean: float
    levels: tuple[float, float, float, float, float]


@contextmanager
def style() -> Iterator[None]:
    """Draw figures in the manner of the report: quiet axes, sizes for a width of 5 to 9 inches, text kept as text in SVG."""
    settings: dict[str, Any] = {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": "madgnet-bench",
        "axes.prop_cycle": cycler(color=COLOURS),
        "figure.facecolor": PAPER,
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        yield


def palette(count: int) -> list[Mark]:
    """Colour and marker of each model, in the order of the table; 24, then repeated."""
    kinds = len(COLOURS)
    return [Mark(COLOURS[index % kinds], _MARKERS[index // kinds % len(_MARKERS)]) for index in range(count)]


def scale(measure: Measure) -> float:
    """What stored values are multiplied with to be shown: fractions are shown in percent."""
    return 100.0 if measure.unit == "fraction" else 1.0


def axis_label(measure: Measure, protocol: str) -> str:
    """Name and unit of a measure, such as ``DSC (%)``."""
    unit = {"fraction": "%", "nats": "nats", "distance": "mm" if Protocol.parse(protocol).unit == "mm" else "pixels"}
    return f"{measure.title} ({unit[measure.unit]})"


def seen_unseen(table: Table, *, shown: int) -> Figure:
    """Draw the seen mean of the first ``shown`` models against their unseen mean, with each unseen set as a small mark.

    Dashed lines join points of equal gap. Rows without both means are left out.
    """
    factor, marks = scale(table.measure), palette(shown)
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axis = figure.subplots()
    xs: list[float] = []
    ys: list[float] = []
    for position, row in enumerate(table.rows[:shown]):
        if row.seen_mean is None or row.unseen_mean is None:
            continue
        x, mark = factor * row.seen_mean, marks[position]
        each = [factor * score.mean for _, score in _scores(table, row, "unseen") if score.mean is not None]
        axis.plot([x, x], [min(each), max(each)], color=mark.colour, linewidth=0.8, alpha=0.45)
        axis.plot([x] * len(each), each, mark.marker, color=mark.colour, markersize=3, alpha=0.45)
        main = axis.plot([x], [factor * row.unseen_mean], mark.marker, color=mark.colour, markersize=8, fillstyle=_fill(row))
        main[0].set_gid(f"tip:{row.title}: seen {x:.2f}, unseen {factor * row.unseen_mean:.2f}")
        xs, ys = [*xs, x], [*ys, *each]
    (left, right), (low, high) = _limits(xs, 0.15), _limits(ys, 0.06)
    _draw_gaps(axis, (left, right), (low, high))
    axis.set_xlim(left, right)
    axis.set_ylim(low, high)
    axis.set_xlabel(f"seen mean, {axis_label(table.measure, table.protocol)}")
    axis.set_ylabel(f"unseen mean, {axis_label(table.measure, table.protocol)}")
    _legend(figure, table, shown)
    return figure


def domain_gaps(table: Table, *, shown: int) -> Figure:
    """Draw how far each model falls from its seen mean to every unseen set, the sets with the largest fall on top.

    A set is compared with the seen sets of the same target where there are any, else with all of them. Right is worse. Of more
    than `MOST_SETS`, those with the largest fall are shown.
    """
    factor, marks = scale(table.measure), palette(shown)
    gaps = {column: _gaps(table, column, shown) for column in table.columns if column.setting == "unseen"}
    ordered = sorted(gaps, key=lambda column: (_average(gaps[column]), column.label))[-MOST_SETS:]
    figure = Figure(figsize=(5.2, 1.1 + 0.42 * len(ordered) + 0.2 * math.ceil(shown / 2)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=MUTED, linewidth=0.8)
    for line, column in enumerate(ordered):
        present = [gap for gap in gaps[column] if gap is not None]
        if present:
            axis.plot([factor * min(present), factor * max(present)], [line, line], color=GRID, linewidth=4, zorder=1)
        for position, gap in enumerate(gaps[column]):
            if gap is not None:
                mark = marks[position]
                row = table.rows[position]
                dot = axis.plot(
                    [factor * gap], [line], mark.marker, color=mark.colour, markersize=6, zorder=3, fillstyle=_fill(row)
                )
                dot[0].set_gid(f"tip:{row.title} on {column.label}: {factor * gap:+.2f}")
    axis.set_yticks(range(len(ordered)), [_wrapped(column.label) for column in ordered])
    axis.set_ylim(-0.6, len(ordered) - 0.4)
    axis.grid(axis="y", visible=False)
    unit = " (points)" if table.measure.unit == "fraction" else ""
    axis.set_xlabel(f"loss of {table.measure.title} against seen sets{unit}")
    _legend(figure, table, shown)
    return figure


def case_distributions(table: Table, quantiles: Sequence[Quantiles], *, shown: int) -> Figure:
    """Draw boxes of the scores of all cases: quartiles, whiskers from 5% to 95%, the median as a bar, the mean as a dot.

    Of more than `MOST_SETS` test sets, the first are shown.
    """
    columns = table.columns[:MOST_SETS]
    factor, marks = scale(table.measure), palette(shown)
    rows = min(shown, len(table.rows))
    across = 2 if len(columns) == 4 else min(3, len(columns))
    down = math.ceil(len(columns) / across)
    names = [_wrapped(row.title, 22) for row in table.rows[:rows]]
    height = 0.38 if any("\n" in name for name in names) else 0.27
    figure = Figure(figsize=(2.2 + 2.2 * across, down * (0.7 + height * rows)), layout="constrained")
    axes: list[Axes] = list(figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel())
    for place, (axis, column) in enumerate(zip(axes, columns, strict=False)):
        for box in (box for box in quantiles if box.column == place and box.row < shown):
            low, first, median, third, high = (factor * level for level in box.levels)
            colour, line = marks[box.row].colour, box.row
            axis.hlines([line], [low], [high], color=colour, linewidth=1)
            bar = axis.barh([line], [third - first], 0.55, left=[first], color=colour, alpha=0.3, linewidth=0)
            bar[0].set_gid(f"tip:{table.rows[line].title} on {column.label}: median {median:.2f}, mean {factor * box.mean:.2f}")
            axis.plot([median], [line], "|", color=colour, markersize=9, markeredgewidth=2)
            axis.plot([factor * box.mean], [line], "o", color=INK, markersize=2.5)
        axis.set_title(f"{column.setting}: {_wrapped(column.label)}", loc="left", fontsize=9)
        axis.grid(axis="y", visible=False)
        axis.set_yticks(range(rows), names)
        if place + across >= len(columns):
            axis.set_xlabel(axis_label(table.measure, table.protocol))
            axis.tick_params(labelbottom=True)
    axes[0].set_ylim(rows - 0.4, -0.6)
    for axis in axes[len(columns) :]:
        axis.remove()
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Positions of the points (cost, quality) that no other beats: none is as cheap and better, or cheaper and as good.

    >>> pareto_front([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.8)])
    [0, 2]
    """
    front: list[int] = []
    best = -math.inf
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if points[place][1] > best:
            front.append(place)
            best = points[place][1]
    return front


def cost_accuracy(table: Table, costs: Mapping[str, Sequence[float | None]], *, shown: int) -> Figure:
    """Draw the unseen mean of the models against each cost, on logarithmic axes, and the front that no other model beats.

    Models that are prompted with the reference have hollow marks and take no part in the front.

    Args:
        table: The table.
        costs: Per cost, by the label of its axis, one positive value per row of the table; None where it is not known.
        shown: How many models are drawn in colour; the front is that of all rows.
    """
    factor, marks = scale(table.measure), palette(shown)
    sign = 1 if table.measure.higher_is_better else -1
    figure = Figure(figsize=(5.2 if len(costs) == 1 else 3.6 * len(costs), 4.2), layout="constrained")
    axes = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    for axis, (label, values) in zip(axes, costs.items(), strict=True):
        places = [
            place
            for place, (row, cost) in enumerate(zip(table.rows, values, strict=True))
            if row.unseen_mean is not None and cost is not None and cost > 0
        ]
        points = [(float(values[place] or 0), sign * factor * (table.rows[place].unseen_mean or 0.0)) for place in places]
        competing = [point for place, point in zip(places, points, strict=True) if not table.rows[place].prompted]
        axis.plot(
            *_steps([competing[at] for at in pareto_front(competing)], sign), color=MUTED, linewidth=1, linestyle=(0, (4, 3))
        )
        for place, (x, y) in zip(places, points, strict=True):
            mark = marks[place] if place < shown else Mark(MUTED, "o")
            row, width = table.rows[place], 8 if place < shown else 4
            dot = axis.plot([x], [sign * y], mark.marker, color=mark.colour, markersize=width, fillstyle=_fill(row))
            dot[0].set_gid(f"tip:{row.title}: {x:.3g}, {sign * y:.2f}")
        axis.set_xscale("log")
        wide = not points or max(x for x, _ in points) > 30 * min(x for x, _ in points)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(x=0.12)
        axis.set_xlabel(label)
    axes[0].set_ylabel(f"unseen mean, {axis_label(table.measure, table.protocol)}")
    _legend(figure, table, shown)
    return figure


def training_curves(table: Table, histories: Mapping[str, Sequence[Mapping[str, float]]], *, shown: int) -> Figure:
    """Draw training loss and seen validation DSC over the epochs: one line per run, in the colour of its model.

    Args:
        table: The table.
        histories: Rows of `RunFolder.read_history` by run id; runs without are left out.
        shown: How many models are drawn.

    Raises:
        RunError: No run has a history.
    """
    marks = palette(shown)
    panels = {"train/loss": "training loss", "val/dsc": "seen validation DSC (%)"}
    known = {name for rows in histories.values() for row in rows for name in row}
    names = [name for name in panels if name in known]
    if not names:
        raise RunError("no run has a history of its training.")
    figure = Figure(figsize=(3.6 * len(names) if len(names) > 1 else 5.2, 3.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for position, row in enumerate(table.rows[:shown]):
            for run in row.run_ids:
                epochs = [entry for entry in histories.get(run, ()) if name in entry]
                values = [entry[name] * (100 if name == "val/dsc" else 1) for entry in epochs]
                steps = [entry["epoch"] + 1 for entry in epochs]
                dot = marks[position].marker if len(epochs) == 1 else None
                axis.plot(steps, values, marker=dot, color=marks[position].colour, linewidth=1.1)
        axis.set_title(panels[name], loc="left")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend(figure, table, shown, lines=True)
    return figure


def learning_curves(run: RunFolder) -> Figure:
    """Draw the history of a run: loss terms, seen validation measures, and the network's own scalars where it logs any.

    Terms of several stages, such as ``distance_1`` to ``distance_4``, share a panel; the scalars share one each by their first
    word.

    Raises:
        RunError: The run has no history yet.
    """
    rows = run.read_history()
    if not rows:
        raise RunError(f"{run.path} has no history: no epoch is complete.")
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        if name.startswith(("train/", "val/", "network/")):
            groups.setdefault(_panel(name), []).append(name)
    if not groups:
        raise RunError(f"{run.path} has a history without losses or measures.")
    columns = min(len(groups), 4)
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * lines), layout="constrained")
    axes: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
    for axis, (panel, names) in zip(axes, groups.items(), strict=False):
        for name in names:
            label = name.partition("/")[2].removeprefix(f"{panel}/")
            known = [row for row in rows if name in row]
            axis.plot([int(row["epoch"]) + 1 for row in known], [row[name] for row in known], linewidth=1.2, label=label)
        axis.set_title(panel, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("epoch", fontsize=7)
        if len(names) > 1:
            axis.legend(fontsize=6, ncols=2 if len(names) > 6 else 1)
    for axis in axes[len(groups) :]:
        axis.remove()
    return figure


def _panel(name: str) -> str:
    """The panel of one column of the history: its name without stage numbers, or the first word of a scalar."""
    part, _, rest = name.partition("/")
    if part == "network":
        return rest.partition("/")[0]
    return "seen validation" if part == "val" else re.sub(r"_\d+$", "", rest)


def _scores(table: Table, row: Row, setting: str) -> list[tuple[Column, Any]]:
    """The columns of one setting with the scores of a row."""
    return [pair for pair in zip(table.columns, row.scores, strict=True) if pair[0].setting == setting]


def _gaps(table: Table, column: Column, shown: int) -> list[float | None]:
    """How much worse each model is on an unseen column than on the seen ones of its target; positive is worse."""
    sign = 1 if table.measure.higher_is_better else -1
    gaps: list[float | None] = []
    for row in table.rows[:shown]:
        seen = _scores(table, row, "seen")
        seen = [pair for pair in seen if pair[0].target == column.target] or seen
        means = [score.mean for _, score in seen]
        there = row.scores[table.columns.index(column)].mean
        known = [mean for mean in means if mean is not None]
        complete = there is not None and known and len(known) == len(means)
        gaps.append(sign * (sum(known) / len(known) - there) if complete and there is not None else None)
    return gaps


def _average(gaps: Sequence[float | None]) -> float:
    present = [gap for gap in gaps if gap is not None]
    return sum(present) / len(present) if present else -math.inf


def _limits(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Limits of an axis around the values, with a margin in parts of their range."""
    if not values:
        return 0.0, 1.0
    space = margin * (max(values) - min(values)) or max(0.02 * abs(values[0]), 0.5)
    return min(values) - space, max(values) + space


def _draw_gaps(axis: Axes, across: tuple[float, float], along: tuple[float, float]) -> None:
    """Draw dashed lines of equal gap, labelled at the right edge."""
    for gap in MaxNLocator(5).tick_values(across[0] - along[1], across[1] - along[0]):
        ends = [side - gap for side in across]
        if max(ends) < along[0] or min(ends) > along[1]:
            continue
        axis.plot(across, ends, color=MUTED, linewidth=0.7, linestyle=(0, (4, 4)), alpha=0.8, zorder=0)
        if along[0] <= ends[1] <= along[1]:
            text = f"gap {gap:g}" if gap else "no gap"
            axis.annotate(text, (across[1], ends[1]), (3, 0), textcoords="offset points", color=MUTED, fontsize=9, va="center")


def _steps(front: Sequence[tuple[float, float]], sign: int) -> tuple[list[float], list[float]]:
    """Corners of the staircase through the points of a front."""
    xs, ys = [], []
    for place, (x, y) in enumerate(front):
        xs += [x, x] if place else [x]
        ys += [sign * front[place - 1][1], sign * y] if place else [sign * y]
    return xs, ys


def _fill(row: Row) -> Literal["full", "none"]:
    """Marks of models that are prompted with the reference are hollow."""
    return "none" if row.prompted else "full"


def _legend(figure: Figure, table: Table, shown: int, *, lines: bool = False) -> None:
    """The models below the axes, in the order of the table."""
    rows = table.rows[:shown]
    handles = [
        Line2D([], [], color=mark.colour, linewidth=2)
        if lines
        else Line2D([], [], color=mark.colour, marker=mark.marker, linestyle="none", fillstyle=_fill(row))
        for row, mark in zip(rows, palette(len(rows)), strict=True)
    ]
    longest = max((len(row.title) for row in rows), default=0)
    ncols = 1 if longest > 34 else 2 if longest > 18 else 3
    figure.legend(handles, [row.title for row in rows], loc="outside lower left", ncols=ncols)


def _wrapped(text: str, width: int = 26) -> str:
    """Break a long label after a slash, colon or blank."""
    if len(text) <= width:
        return text
    places = [place + 1 for place, letter in enumerate(text) if letter in "/: "]
    if not places:
        return f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
    middle = min(places, key=lambda place: abs(place - len(text) / 2))
    return f"{text[:middle].rstrip()}\n{text[middle:]}"
