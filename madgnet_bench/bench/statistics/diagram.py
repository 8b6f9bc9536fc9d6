"""The critical-difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from madgnet_bench.bench.statistics.ranks import Nemenyi
from madgnet_bench.errors import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["critical_difference_figure"]

_INK = "#1a1a1a"
_BAR = "#0b5394"
_CAUTION = "#9c2a00"
_STEP = 0.22
"""Inches between two lines of names, and two bars."""


def critical_difference_figure(names: Sequence[str], result: Nemenyi, *, width: float = 8.0) -> Figure:
    """Draw average ranks on an axis, best at the left, and join models that do not differ by a bar (Demsar 2006).

    Nothing depends on colour alone. The height follows the number of models, so that 2 to 20 of them can be read.

    Args:
        names: Of the models, in the order of the result.
        result: Average ranks and critical difference.
        width: In inches; long names may need more and get it.

    Raises:
        BenchError: There is not one name per model.
    """
    from matplotlib.figure import Figure  # a third of a second, which those who test without drawing do without

    models = len(result.average_ranks)
    if len(names) != models:
        raise BenchError(f"{len(names)} names for {models} models.")
    order = [int(model) for model in np.argsort(result.average_ranks, kind="stable")]
    margin = max(0.27 * width, 0.7 + 0.085 * max(map(len, names)))  # inches, as are all units of the plot
    width = max(width, 2 * margin + 3)
    left, right = margin, width - margin
    half = (models + 1) // 2
    bars = _levels(result)
    depth = 0.18 + _STEP * (max(bars, default=-1) + 1)
    below = depth + 0.1 + _STEP * half
    above = 0.95
    figure = Figure(figsize=(width, above + below + 0.35))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(-below - 0.35, above)
    scale = (right - left) / max(models - 1, 1)
    places = [left + (float(rank) - 1) * scale for rank in result.average_ranks]
    _draw_axis(axes, left, scale, models)
    _draw_difference(axes, left, scale, result, width)
    for clique, bar in zip(result.cliques, bars, strict=True):
        ends = [places[model] for model in clique]
        height = -0.18 - _STEP * bar
        axes.plot([min(ends) - 0.05, max(ends) + 0.05], [height, height], color=_BAR, linewidth=4, solid_capstyle="butt")
    for line, model in enumerate(order[:half]):
        _draw_name(axes, names[model], result.average_ranks[model], places[model], left - 0.15, -depth - _STEP * (line + 0.5))
    for line, model in enumerate(reversed(order[half:])):
        _draw_name(axes, names[model], result.average_ranks[model], places[model], right + 0.15, -depth - _STEP * (line + 0.5))
    if result.caution:
        axes.text(width / 2, -below - 0.2, result.caution, ha="center", va="center", fontsize=8, style="italic", color=_CAUTION)
    return figure


def _levels(result: Nemenyi) -> list[int]:
    """On which line each bar lies, so that bars that overlap lie below one another."""
    ends: list[float] = []
    levels = []
    for clique in result.cliques:
        ranks = result.average_ranks[list(clique)]
        free = next((level for level, end in enumerate(ends) if end < ranks.min()), len(ends))
        ends[free : free + 1] = [float(ranks.max())]
        levels.append(free)
    return levels


def _draw_axis(axes: Axes, left: float, scale: float, models: int) -> None:
    axes.plot([left, left + scale * (models - 1)], [0, 0], color=_INK, linewidth=1)
    for rank in range(1, models + 1):
        place = left + (rank - 1) * scale
        axes.plot([place, place], [0, 0.08], color=_INK, linewidth=1)
        axes.text(place, 0.12, str(rank), ha="center", va="bottom", fontsize=8, color=_INK)
    axes.text(left - 0.15, 0.12, "better", ha="right", va="bottom", fontsize=8, style="italic", color=_INK)
    axes.text(left + scale * (models - 1) + 0.15, 0.12, "average rank", va="bottom", fontsize=8, style="italic", color=_INK)


def _draw_difference(axes: Axes, left: float, scale: float, result: Nemenyi, width: float) -> None:
    """The critical difference as a ruler above the axis, no longer than the figure."""
    end = min(left + scale * result.critical_difference, 0.97 * width)
    axes.plot([left, end], [0.48, 0.48], color=_INK, linewidth=1.5)
    for place in (left, end):
        axes.plot([place, place], [0.43, 0.53], color=_INK, linewidth=1.5)
    text = f"critical difference {result.critical_difference:.2f} ({100 * result.level:g} %, {result.datasets} data sets)"
    axes.text(left, 0.6, text, va="bottom", fontsize=8, color=_INK)


def _draw_name(axes: Axes, name: str, rank: float, place: float, side: float, height: float) -> None:
    """A model's name at one side, joined with its place on the axis."""
    axes.plot([place, place, side], [0, height, height], color=_INK, linewidth=0.8)
    outwards = -1 if side < place else 1
    axes.text(
        side + 0.05 * outwards,
        height,
        f"{name}   {rank:.2f}" if outwards < 0 else f"{rank:.2f}   {name}",
        ha="right" if outwards < 0 else "left",
        va="center",
        fontsize=9,
        color=_INK,
    )
