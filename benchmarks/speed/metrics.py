"""The six measures of the MADGNet paper against PySODMetrics on the same maps: time, as ratios from one run.

    python benchmarks/speed/metrics.py                     # a CPU
    python benchmarks/speed/metrics.py --device cuda       # a GPU, on which the maps already lie

Measured are DSC, IoU, weighted F, S, E (adaptive and at 256 thresholds) and MAE of a batch of synthetic maps, once as smooth
probabilities and once cut at 0.5, as the protocol madgnet cuts them. PySODMetrics runs as it is (``normalize=False``), in one
process and shared among several, whose start is not counted. The results are compared first. Times are medians of rounds in
which all take turns; the second table says what the suite's time is spent on.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.timing import hardware, in_turn, medians
from madgnet_bench.layers.distance import distance_to_foreground
from madgnet_bench.metrics.overlap import dice, iou, mean_absolute_error
from madgnet_bench.metrics.saliency import e_adaptive, e_curve, s_measure, threshold_counts, weighted_f

MEASURES = ("DSC", "IoU", "weighted F", "S", "E adaptive", "E mean", "MAE")

Maps = tuple[NDArray[np.float64], NDArray[np.bool_]]


def main() -> None:
    """Parse the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32, help="maps (default: 32)")
    parser.add_argument("--size", type=int, default=352, help="side of the maps (default: 352)")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--processes", type=int, default=2, help="processes of PySODMetrics beside the one (default: 2)")
    options = parser.parse_args()
    print(f"{options.batch} maps of {options.size} x {options.size}, torch {torch.__version__}, {hardware(options.device)}")
    several = f"pysodmetrics x {options.processes}"
    context = get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        for kind, maps in _kinds(options.batch, options.size).items():
            p, g = (torch.from_numpy(part)[:, None].to(options.device) for part in maps)
            shares = [
                (maps[0][start :: options.processes], maps[1][start :: options.processes]) for start in range(options.processes)
            ]
            _compare(suite(p, g), pysodmetrics(maps))
            ways: dict[str, Callable[[], object]] = {
                "pysodmetrics": lambda maps=maps: pysodmetrics(maps),
                several: lambda shares=shares: list(pool.map(pysodmetrics, shares)),
                "suite": lambda p=p, g=g: suite(p, g),
            }
            seconds = medians(in_turn(ways, repeats=options.repeats))
            print(f"\n{kind:<44}{'ms per map':>12}{'suite / it':>12}")
            for name, value in seconds.items():
                print(f"  {name:<42}{1e3 * value / options.batch:>12.2f}{seconds['suite'] / value:>12.2f}", flush=True)
            _print_shares(p, g, options)


def suite(p: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The six measures of this package, (N, 1) each."""
    cut = p >= 0.5
    return {
        "DSC": dice(cut, g, empty=1.0),
        "IoU": iou(cut, g, empty=1.0),
        "weighted F": weighted_f(p, g, empty=0.0),
        "S": s_measure(p, g),
        "E adaptive": e_adaptive(p, g),
        "E mean": e_curve(threshold_counts(p, g)).mean(-1),
        "MAE": mean_absolute_error(p, g),
    }


def pysodmetrics(maps: Maps) -> dict[str, NDArray[np.float64]]:
    """The same measures by PySODMetrics, one map after the other."""
    import py_sod_metrics

    handlers = {
        "dice": py_sod_metrics.DICEHandler(with_dynamic=False, with_adaptive=False, with_binary=True, sample_based=True),
        "iou": py_sod_metrics.IOUHandler(with_dynamic=False, with_adaptive=False, with_binary=True, sample_based=True),
    }
    overlap = py_sod_metrics.FmeasureV2(handlers)
    weighted, structure = py_sod_metrics.WeightedFmeasure(), py_sod_metrics.Smeasure()
    alignment, error = py_sod_metrics.Emeasure(), py_sod_metrics.MAE()
    for p, g in zip(*maps, strict=True):
        overlap.step((p >= 0.5).astype(np.float64), g, normalize=False)
        for meter in (weighted, structure, alignment, error):
            meter.step(p, g, normalize=False)
    values = (
        *(handlers["dice"].binary_results, handlers["iou"].binary_results, weighted.weighted_fms, structure.sms),
        *(alignment.adaptive_ems, np.mean(alignment.changeable_ems, -1), error.maes),
    )
    return {name: np.asarray(value, np.float64).ravel() for name, value in zip(MEASURES, values, strict=True)}


def _kinds(batch: int, size: int) -> dict[str, Maps]:
    """Blobs as references; the maps are their depth with smooth noise through a sigmoid, and the same cut at 0.5."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size] / size
    p, g = np.empty((batch, size, size)), np.empty((batch, size, size), bool)
    for index in range(batch):
        centre, radius = random.uniform(0.25, 0.75, 2), random.uniform(0.04, 0.25)
        noise = ndimage.gaussian_filter(random.normal(size=(size, size)), size / 44)
        depth = radius - np.hypot(row - centre[0], (column - centre[1]) * random.uniform(0.7, 1.3))
        g[index] = depth > 0
        p[index] = 1 / (1 + np.exp(-88 * depth - 2 * noise / noise.std()))
    return {"probabilities": (p, g), "cut at 0.5": ((p >= 0.5).astype(np.float64), g)}


def _compare(found: dict[str, Tensor], expected: dict[str, NDArray[np.float64]]) -> None:
    """Stop where the two disagree."""
    for name, values in expected.items():
        gap = np.abs(found[name].flatten().cpu().numpy() - values).max()
        if not gap < 1e-6:
            raise SystemExit(f"{name} differs from PySODMetrics by {gap}")


def _print_shares(p: Tensor, g: Tensor, options: argparse.Namespace) -> None:
    """Print what the suite's time is spent on."""
    cut = p >= 0.5
    parts: dict[str, Callable[[], object]] = {
        "weighted F": lambda: weighted_f(p, g, empty=0.0),
        "  of which a distance transform at full size": lambda: distance_to_foreground(g),
        "S": lambda: s_measure(p, g),
        "E at 256 thresholds": lambda: e_curve(threshold_counts(p, g)),
        "E adaptive": lambda: e_adaptive(p, g),
        "DSC, IoU": lambda: (p >= 0.5, dice(cut, g, empty=1.0), iou(cut, g, empty=1.0)),
        "MAE": lambda: mean_absolute_error(p, g),
    }
    seconds = medians(in_turn(parts, repeats=options.repeats))
    total = math.fsum(value for name, value in seconds.items() if not name.startswith(" "))
    for name, value in seconds.items():
        print(f"    {name:<40}{1e3 * value / options.batch:>12.2f}{100 * value / total:>10.0f} %", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    main()
