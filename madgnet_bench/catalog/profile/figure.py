"""The radial spectra of data sets as one plot."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from madgnet_bench.catalog.profile.compare import Profile
from madgnet_bench.catalog.profile.measure import SetProfile, band_limits

__all__ = ["draw_profile"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Told apart by colour-blind readers too (the palette of Okabe and Ito, without its yellow, which is faint on white)."""

_SEEN = ("-", (0, (1, 1)), (0, (3, 1, 1, 1)))
_UNSEEN = ("--", "-.", (0, (6, 1, 1, 1, 1, 1)))


def draw_profile(profile: Profile) -> Figure:
    """Draw the mean log spectra of sets, each with a band of one standard deviation over its images.

    Frequency is logarithmic and power in dB, so a power law is a straight line. Unseen sets are dashed. From the eighth set on
    colours come again with another dash.
    """
    sets = [*profile.seen, *profile.unseen]
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axis = figure.subplots()
    for number, item in enumerate(sets):
        dashes = _SEEN if number < len(profile.seen) else _UNSEEN
        _draw_set(axis, item, number, dashes[(number // len(_COLOURS)) % len(dashes)], len(sets))
    _draw_bands(axis, sets[0].size)
    axis.set_xlabel(f"frequency, cycles per image side (images brought to {sets[0].size} x {sets[0].size} pixels)")
    axis.set_ylabel("power, dB (white noise of variance 1: 0 dB)")
    axis.grid(alpha=0.3, linewidth=0.6)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=9, handlelength=3.2, frameon=False)
    return figure


def _draw_set(axis: Axes, item: SetProfile, number: int, dash: str | tuple[int, tuple[int, ...]], count: int) -> None:
    """Line and band of one set; bands are fainter where there are many."""
    colour = _COLOURS[number % len(_COLOURS)]
    frequency = np.arange(1, item.size // 2 + 1)
    low, high = item.log_power - item.log_power_std, item.log_power + item.log_power_std
    axis.fill_between(frequency, low, high, color=colour, alpha=0.18 if count <= 4 else 0.08, linewidth=0)
    label = f"{item.name}\n{item.images} images, slope {item.slope:.2f}"
    axis.plot(frequency, item.log_power, color=colour, linestyle=dash, linewidth=1.8, label=label)


def _draw_bands(axis: Axes, size: int) -> None:
    """Logarithmic frequencies from 1 to Nyquist, and the limits of the bands with their names."""
    nyquist = size // 2
    low, middle = band_limits(size)
    axis.set_xscale("log")
    axis.set_xlim(1, nyquist)
    octaves = [2**power for power in range(12) if 2**power <= nyquist]
    axis.xaxis.set_major_locator(FixedLocator(octaves))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    edges = (1.0, low + 0.5, middle + 0.5, float(nyquist))
    for edge in edges[1:3]:
        axis.axvline(edge, color="0.45", linewidth=0.9, linestyle=":")
    for name, left, right in zip(("low", "middle", "high"), edges[:-1], edges[1:], strict=True):
        place = float(np.sqrt(left * right))
        axis.text(place, 1.01, name, transform=axis.get_xaxis_transform(), ha="center", va="bottom", fontsize=9, color="0.35")
