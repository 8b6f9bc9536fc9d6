"""``madgnet-bench data profile``: spectra, intensities and references of data sets, and how far sets are apart. No torch."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError

if TYPE_CHECKING:
    from madgnet_bench.catalog.profile.compare import Profile
    from madgnet_bench.catalog.profile.measure import SetProfile

__all__ = ["SUMMARY", "add_options", "run"]

SUMMARY = "measure spectra, intensities and references, and how far sets are apart"

_SPECTRUM = ("set", "images", "groups", "slope", "low", "middle", "high", "spread")
_CONTENT = ("set", "grey", "5%", "50%", "95%", "contrast", "red", "green", "blue", "target", "foreground", "objects", "size")
_DISTANCES = ("set", "to", "spectral", "+-", "energy", "intensity")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the profile has beside the names of data sets."""
    parser.add_argument("--unseen", nargs="+", default=[], metavar="NAME", help="data sets that are only tested on")
    parser.add_argument("--size", type=int, default=352, metavar="N", help="side that images are brought to (default: 352)")
    parser.add_argument(
        "--split",
        choices=["train", "all"],
        default="all",
        help="which cases of the sets that are not unseen; of unseen ones always all (default: all)",
    )
    parser.add_argument("--output", type=Path, metavar="PROFILE.json", help="write all numbers")
    parser.add_argument("--plot", type=Path, metavar="PROFILE.png|svg", help="draw the spectra")


def run(options: argparse.Namespace, build: Callable[[str], SegmentationDataset]) -> int:
    """Profile, print the tables, and write numbers and plot where asked.

    Args:
        options: ``name``, and those of `add_options`.
        build: Makes the data set of a name.

    Returns:
        0.

    Raises:
        BenchError: A name is unknown or named twice, a set is missing or too small, or files of the sets have problems.
    """
    from tqdm import tqdm

    from madgnet_bench.catalog.profile.compare import Profile, to_json  # scipy, which the other actions do without
    from madgnet_bench.catalog.profile.measure import profile_datasets
    from madgnet_bench.records import write_json

    _check_outputs(options)
    datasets = [build(name) for name in (*options.name, *options.unseen)]
    count = len(options.name)
    with tqdm(desc="profile", unit=" images", leave=False, disable=None, file=sys.stderr) as bar:

        def step(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        splits = [options.split] * count + ["all"] * (len(datasets) - count)
        sets = profile_datasets(datasets, size=options.size, splits=splits, step=step)
    profile = Profile.of(sets[:count], sets[count:])
    sys.stdout.write(_report(profile))
    if options.output is not None:
        write_json(options.output, to_json(profile))
        sys.stdout.write(f"Written: {options.output}\n")
    if options.plot is not None:
        _write_plot(profile, options.plot)
        sys.stdout.write(f"Written: {options.plot}\n")
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuse file names of other kinds before anything is read."""
    for option, path, endings in (("--output", options.output, (".json",)), ("--plot", options.plot, (".png", ".svg"))):
        if path is not None and path.suffix.lower() not in endings:
            raise ConfigError(f"{option} must end in {' or '.join(endings)}, not {path.name!r}.")


def _write_plot(profile: Profile, path: Path) -> None:
    """Draw the spectra and write them as the ending says."""
    from madgnet_bench.catalog.profile.figure import draw_profile  # matplotlib: half a second
    from madgnet_bench.records import write_atomically

    stream = io.BytesIO()
    draw_profile(profile).savefig(stream, format=path.suffix[1:].lower(), dpi=150)
    write_atomically(path, stream.getvalue())


def _report(profile: Profile) -> str:
    """The tables, each with a line that says how to read it."""
    from madgnet_bench.catalog.profile.measure import band_limits, slope_range

    sets = [*profile.seen, *profile.unseen]
    low, middle = band_limits(sets[0].size)
    first, last = slope_range(sets[0].size)
    lines = [
        align([_SPECTRUM, *map(_spectrum_row, sets)], left=1),
        f"Slope of log power over log frequency, {first} to {last} cycles per image side. Shares of the energy: low up to",
        f"{low} cycles, middle up to {middle}, high up to {sets[0].size // 2}. Spread: standard deviation over the images.",
        "",
        align([_CONTENT, *(row for item in sets for row in _content_rows(item))], left=1),
        "Intensities in 0 .. 1. Foreground: share of the pixels. Objects: connected ones per image. Size: their median area.",
    ]
    if profile.distances:
        rows = [
            (d.first, d.second, f"{d.spectral:.2f}", f"{d.sampling_error:.2f}", f"{d.energy:.3f}", f"{d.intensity:.3f}")
            for d in profile.distances
        ]
        lines += [
            "",
            align([_DISTANCES, *rows], left=2),
            "Spectral: difference of the mean log spectra in standard deviations inside the sets; +-: what two samples of one",
            "set would differ by, which is taken off. Energy: of the log spectra of single images, 0 the same to 1.",
            "Intensity: how far intensities must move, as a share of their range.",
        ]
    return "\n".join(lines) + "\n"


def _spectrum_row(item: SetProfile) -> tuple[str, ...]:
    slope = f"{item.slope:.2f} +- {item.slope_std:.2f}"
    shares = (f"{100 * share:.1f}%" for share in item.bands)
    return item.name, str(item.images), str(item.groups), slope, *shares, f"{item.variability:.1f} dB"


def _content_rows(item: SetProfile) -> list[tuple[str, ...]]:
    """One row per target; what is of the whole set stands in the first."""
    grey = item.channels["grey"]
    colours = (f"{item.channels[name].mean:.2f}" if name in item.channels else "-" for name in ("red", "green", "blue"))
    values = (grey.mean, grey.p5, grey.p50, grey.p95, item.contrast)
    whole = (item.name, *(f"{value:.2f}" for value in values), *colours)
    rows: list[tuple[str, ...]] = []
    for name, found in item.references.items():
        cells = (f"{100 * found.foreground:.1f}%", f"{found.objects:.1f}", f"{100 * found.object_area:.2f}%")
        rows.append((*(whole if not rows else ("",) * len(whole)), name, *cells))
    return rows
