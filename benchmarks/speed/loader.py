"""Images per second of the training loader, cold and warm, against reading the files each time with Pillow.

    python benchmarks/speed/loader.py                                      # the data sets at MADGNET_BENCH_DATA
    python benchmarks/speed/loader.py --sets busi --workers 0 --profile    # where the time of a warm epoch goes

All three yield batches of float images and masks at one size, with the same augmentation (`FlipRotate`) from the same random
streams, and take turns. "Pillow" opens image and mask files, converts, resizes (bilinear, masks to the nearest pixel), turns to
float and stacks. "Cold" begins with an empty cache: it decodes by the rules of the suite (masks bilinear, cut at one half) and
stores; it starts its worker processes anew, the other two keep theirs. "Warm" reads what was stored. The files are in the
system's memory for all of them: what a slow disk adds is not measured. Rates are medians over epochs of all cases of a set,
whatever their split.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.timing import hardware, in_turn, medians
from madgnet_bench.catalog.official import CatalogDataset, find_data_root
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.cache import DecodedCache
from madgnet_bench.data.cases import ByteCases, CaseDataset, CaseLoader, JoinedDataset
from madgnet_bench.data.samplers import Draw, PlannedBatchSampler, ShuffledBatches
from madgnet_bench.data.transforms import FlipRotate

SETS = ("busi", "kvasir_seg", "kvasir_seg_256", "dsb2018", "isic2017_val_400", "shenzhen_lung_512")
"""Sets whose files Pillow reads as they are: 8-bit images, one binary mask file (or several to unite) per image."""


class PillowCases(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What one writes first: open, resize, augment, to a tensor; every time."""

    def __init__(self, source: CatalogDataset, size: int, seed: int) -> None:
        self._files = []
        for case in source.manifest:
            masks = [Path(source.file(part)) for part in case.mask.split("|")]
            self._files.append(
                (source.file(case.image), [f for m in masks for f in (sorted(m.iterdir()) if m.is_dir() else [m])])
            )
        self._size, self._seed = (size, size), seed
        self._augmentation = FlipRotate()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        image_file, mask_files = self._files[draw.position]
        with Image.open(image_file) as picture:
            colour = picture.mode not in ("1", "L", "LA")
            image = np.asarray(picture.convert("RGB" if colour else "L").resize(self._size, Image.Resampling.BILINEAR))
        mask = np.zeros(self._size, np.uint8)
        for file in mask_files:
            with Image.open(file) as picture:
                mask |= np.asarray(picture.convert("L").resize(self._size, Image.Resampling.NEAREST)) > 127
        stream = np.random.SeedSequence((self._seed, draw.epoch, draw.position, draw.repeat)).generate_state(1)
        image, masks = self._augmentation(image.reshape(*self._size, -1), mask[None], seed=int(stream[0]))
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        return pixels, torch.from_numpy(np.ascontiguousarray(masks)).float()


def stack(items: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Join cases; grey ones among coloured ones get three channels."""
    channels = max(image.shape[0] for image, _ in items)
    return torch.stack([image.expand(channels, -1, -1) for image, _ in items]), torch.stack([mask for _, mask in items])


def main() -> None:
    """Parse the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=None, metavar="NAME", help="data sets (default: those that are there)")
    parser.add_argument("--size", type=int, default=352, help="side of the images (default: 352)")
    parser.add_argument("--batch", type=int, default=16, help="cases per batch (default: 16)")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="worker processes (default: 0 2)")
    parser.add_argument("--repeats", type=int, default=5, help="measured epochs of each (default: 5)")
    parser.add_argument("--cache", default=None, help="where to put the cache, which is removed (default: a temporary folder)")
    parser.add_argument("--profile", action="store_true", help="only show where the time of a warm epoch goes, in one process")
    options = parser.parse_args()
    names = options.sets or [name for name in SETS if (find_data_root() / name).is_dir()]
    print(f"{options.size} x {options.size}, batches of {options.batch}, torch {torch.__version__}, {hardware()}")
    print(f"{'set':<20}{'cases':>6}{'workers':>9}{'Pillow/s':>10}{'cold/s':>9}{'warm/s':>9}{'cold':>8}{'warm':>8}", flush=True)
    for name in names:
        for workers in options.workers:
            with tempfile.TemporaryDirectory(dir=options.cache) as folder:
                _measure(CatalogDataset(name), Path(folder), workers, options)


def _measure(source: CatalogDataset, folder: Path, workers: int, options: argparse.Namespace) -> None:
    """Print one row, or the profile."""
    plain = PillowCases(source, options.size, seed=0)

    def cached(root: Path) -> Callable[[], None]:
        cache = DecodedCache(source, root, size=options.size)
        rows, targets = range(len(source.manifest)), source.card.targets
        cases = CaseDataset(source, rows, size=options.size, targets=targets, augmentation=FlipRotate(), cache=cache)
        return _epochs(CaseLoader, ByteCases(JoinedDataset([cases])), SegmentationBatch.collate, workers, options)

    def cold() -> None:
        shutil.rmtree(folder / "cold", ignore_errors=True)
        cached(folder / "cold")()

    warm = cached(folder / "warm")
    if options.profile:
        warm()
        with cProfile.Profile() as profile:
            warm()
        pstats.Stats(profile).sort_stats("tottime").print_stats(20)
        return
    ways = {"pillow": _epochs(DataLoader, plain, stack, workers, options), "cold": cold, "warm": warm}
    seconds = medians(in_turn(ways, repeats=options.repeats, warm_up=2))
    count = max(1, len(plain) // options.batch) * min(options.batch, len(plain))
    rates = [count / seconds[name] for name in ways]
    ratios = [f"{rate / rates[0]:.2f}x" for rate in rates[1:]]
    row = f"{source.name:<20}{len(plain):>6}{workers:>9}{rates[0]:>10.0f}{rates[1]:>9.0f}{rates[2]:>9.0f}"
    print(row + "".join(f"{ratio:>8}" for ratio in ratios), flush=True)


def _epochs(
    loader_class: type[DataLoader], data: Dataset, collate: Callable, workers: int, options: argparse.Namespace
) -> Callable[[], None]:
    """A function that loads one more epoch each time it is called."""
    sampler = PlannedBatchSampler(ShuffledBatches(options.batch), [0] * len(data), seed=0)  # type: ignore[arg-type]
    loader = loader_class(data, batch_sampler=sampler, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0)
    epoch = 0

    def load() -> None:
        nonlocal epoch
        sampler.set_epoch(epoch)
        epoch += 1
        for _ in loader:
            pass

    return load


if __name__ == "__main__":
    main()
