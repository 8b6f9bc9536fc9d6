"""Check that the gate sees damage and stays quiet without.

``python -m benchmarks.regression results/regression RUNS [--output DIR]``, where RUNS are clean, finished runs with checkpoints
of the grid that the baseline was made from, with other seeds. Every seed alone is compared with the baseline (a false alarm
where it fails), and so is every seed after each damage: the checkpoints are tested again in copies of the run folders with an
inferer that does harm. Printed are counts of the seeds that fail, and on how many cells each fell.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from madgnet_bench.bench.compare import Comparison, compare
from madgnet_bench.bench.store import Run, load_runs
from madgnet_bench.cli import main as bench
from madgnet_bench.contracts import Prediction, SegmentationBatch, SegmentationNetwork
from madgnet_bench.inference.whole_image import WholeImage

__all__ = ["CoarseResize", "FlippedPixels", "SwappedTargets", "ZeroedStage", "main"]


class ZeroedStage(WholeImage):
    """The shallowest decoder stage yields zeros."""

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict with the stage silenced."""
        with _silenced(_last_stage(network)):
            return super().infer(network, batch)


class SwappedTargets(WholeImage):
    """The target channels come in reversed order; no damage where there is one target."""

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict, then reverse the channels."""
        return Prediction(super().infer(network, batch).probability.flip(1))


class FlippedPixels(WholeImage):
    """A share of the predicted pixels is turned from foreground to background or back, drawn anew for each batch.

    Args:
        share: Share of the pixels, in [0, 1].
    """

    def __init__(self, share: float = 0.02) -> None:
        self._share = share
        self._random = torch.Generator().manual_seed(0)

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict, then flip."""
        probability = super().infer(network, batch).probability
        chosen = torch.rand(probability.shape, generator=self._random).to(probability.device) < self._share
        return Prediction(torch.where(chosen, 1 - probability, probability))


class CoarseResize(WholeImage):
    """Images reach the network at half their size, and its output is enlarged by repeating pixels, off by one pixel."""

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict at half size."""
        small = interpolate(batch.image, scale_factor=0.5, mode="nearest")
        probability = network(small).logits.float().sigmoid()
        return Prediction(interpolate(probability, size=batch.image.shape[2:], mode="nearest").roll(1, dims=-1))


DAMAGES = (ZeroedStage, SwappedTargets, FlippedPixels, CoarseResize)


def main() -> None:
    """Print how often the gate fails: on clean seeds, and after each damage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("baseline", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--damaged", type=int, default=3, help="how many of the seeds are damaged (default: 3)")
    parser.add_argument("--output", type=Path, help="keep the damaged runs here")
    options = parser.parse_args()
    baseline, runs = load_runs([options.baseline]).runs, load_runs([options.runs]).runs
    used = {run.seed for run in baseline}
    seeds = sorted({run.seed for run in runs} - used)
    print(f"baseline: {len(baseline)} runs, seeds {sorted(used)}; clean reruns: seeds {seeds}\n")
    clean = {seed: compare(baseline, [run for run in runs if run.seed == seed]) for seed in seeds}
    _line("clean", clean)
    for network in sorted({run.network for run in runs}):
        several = any(len({cell.target for cell in run.cells}) > 1 for run in runs if run.network == network)
        for damage in DAMAGES:
            if damage is SwappedTargets and not several:
                continue
            found = {}
            for seed in seeds[: options.damaged]:
                members = [run for run in runs if run.seed == seed]
                with _folder(options.output) as folder:
                    damaged = [_test_again(run, damage, folder) if run.network == network else run for run in members]
                    found[seed] = compare(baseline, damaged)
            _line(f"{damage.__name__} of {network}", found)


def _line(what: str, found: dict[int, Comparison]) -> None:
    """How many seeds failed, and on how many cells each."""
    failed = sum(one.failed for one in found.values())
    cells = ", ".join(str(sum(cell.verdict == "fell" for cell in one.cells)) for one in found.values())
    print(f"{what}: {failed}/{len(found)} fail; fallen of {len(next(iter(found.values())).cells)} cells: {cells}", flush=True)


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _test_again(run: Run, damage: type[WholeImage], folder: Path) -> Run:
    """Test a run's checkpoint with damage, in a copy of its folder."""
    copy = folder / damage.__name__ / run.run_id
    shutil.copytree(run.folder.path, copy, dirs_exist_ok=True)
    words = ["--model.init_args.inferer", f"benchmarks.regression.{damage.__name__}", "--run.costs", "false"]
    words += ["--run.predictions", "none"]
    with redirect_stdout(StringIO()) as printed:
        status = bench(["test", str(copy), *words])
    if status:
        raise SystemExit(f"testing {copy} failed:\n{printed.getvalue()}")
    return load_runs([copy]).runs[0]


def _last_stage(network: SegmentationNetwork) -> nn.Module:
    """The shallowest stage of the decoder."""
    for name in ("decoder_stage", "merge"):
        stages = getattr(network, name, None)
        if isinstance(stages, nn.ModuleList):
            return stages[-1]
    raise ValueError(f"{type(network).__name__} has no list of decoder stages by a known name")


@contextmanager
def _silenced(module: nn.Module) -> Iterator[None]:
    def zero(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    handle = module.register_forward_hook(zero)
    try:
        yield
    finally:
        handle.remove()


if __name__ == "__main__":
    main()
