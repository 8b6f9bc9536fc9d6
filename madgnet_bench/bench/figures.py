"""Figures made from run folders alone. No torch."""

from __future__ import annotations

import re

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder

__all__ = ["learning_curves"]


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
    for name in rows[0]:
        if name.startswith(("train/", "val/", "network/")):
            groups.setdefault(_panel(name), []).append(name)
    columns = min(len(groups), 4)
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.5 * lines), layout="constrained")
    axes: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).ravel())
    epochs = [int(row["epoch"]) + 1 for row in rows]
    for axis, (panel, names) in zip(axes, groups.items(), strict=False):
        for name in names:
            label = name.partition("/")[2].removeprefix(f"{panel}/")
            axis.plot(epochs, [row[name] for row in rows], linewidth=1.2, label=label)
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
