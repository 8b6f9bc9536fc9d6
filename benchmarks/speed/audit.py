"""How long an audit takes: images per second, and minutes for 5,000 images.

    python benchmarks/speed/audit.py [FOLDER-OR-NAME] [--images 5000] [--workers 2]

Without a name the images are those of BUSI, at native size, else phantoms. They are repeated up to the wished number, each
time cropped, flipped and darkened or brightened at random, so that no fingerprint is free and many pairs are registered. The
files are decoded every time, as in a real audit; the changes cost extra. Both the elapsed time and the processor time are
printed: on a shared machine the first says little.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.audit.report import audit
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, CatalogDataset
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.errors import Problem


class Repeated(SegmentationDataset):
    """A data set repeated with changes; every repetition has its own groups."""

    def __init__(self, dataset: SegmentationDataset, images: int) -> None:
        self._dataset, self._images = dataset, images
        self.card, self.name = dataset.card, f"{dataset.name}, repeated"

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List as many cases as wished."""
        cases = self._dataset.manifest.cases
        repeated = [(position // len(cases), cases[position % len(cases)]) for position in range(self._images)]
        return [
            replace(case, case_id=f"{turn:04d} {case.case_id}", group_id=f"{turn:04d} {case.group_id}")
            for turn, case in repeated
        ], []

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        """The image, changed in a way that only its case_id decides."""
        image = self._dataset.read_image(self._original(case))
        random = np.random.default_rng(list(case.case_id.encode()))
        top, left = (int(random.integers(0, side // 4)) for side in image.shape[:2])
        cropped = image[top : top + image.shape[0] * 3 // 4, left : left + image.shape[1] * 3 // 4]
        flipped = cropped[:, ::-1] if random.random() < 0.5 else cropped
        table = np.rint(255 * (np.arange(256) / 255) ** random.uniform(0.7, 1.4)).astype(np.uint8)
        padded: NDArray[np.uint8] = np.zeros_like(image)
        padded[: flipped.shape[0], : flipped.shape[1]] = table[flipped]
        return padded

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """The mask as it is."""
        return self._dataset.read_mask(self._original(case))

    def _original(self, case: Case) -> Case:
        return replace(case, case_id=case.case_id[5:], group_id=case.group_id[5:])


def _dataset(name: str | None) -> SegmentationDataset:
    root = os.environ.get(DATA_ROOT_VARIABLE, "")
    if name is None and not (Path(root) / "busi").is_dir():
        return PhantomDataset("ultrasound", cases=100, size=512)
    return FolderDataset(name) if name and Path(name).is_dir() else CatalogDataset(name or "busi")


def main() -> None:
    """Audit and print the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    repeated = Repeated(_dataset(options.name), options.images)
    start, ends = (time.perf_counter(), time.process_time()), {}

    def note(stage: str, done: int, total: int) -> None:
        ends[stage] = (time.perf_counter() - start[0], time.process_time() - start[1])

    report = audit([repeated], workers=options.workers, progress=note)
    before = (0.0, 0.0)
    for stage, end in ends.items():
        print(f"{stage:12s} {end[0] - before[0]:7.1f} s elapsed, {end[1] - before[1]:7.1f} s of processor")
        before = end
    rate = options.images / report.seconds
    print(
        f"{repeated.name}: {options.images} images, {options.workers} workers, {report.candidates} pairs registered, ", end=""
    )
    print(f"{report.seconds:.1f} s, {rate:.1f} images per second")
    if options.images != 5000:
        print(f"5000 images at this rate: {5000 / rate / 60:.1f} minutes; comparing grows with the square of their number")


if __name__ == "__main__":
    sys.exit(main())
