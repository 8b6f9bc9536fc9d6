"""How many planted copies the audit finds, and how many images it reports falsely, per data set.

    python benchmarks/audit_recall.py [NAME ...] [--copies 200] [--seed 1]

Real images are read at MADGNET_BENCH_DATA; all that are there by default. A copy is an image in one of 8 flips and quarter
turns, with 0 to 4 % cropped off each side, gamma 0.8 to 1.25, coded as JPEG of quality 70 to 95, half of them resized to the
size of the source: all at once, each drawn evenly (gamma on a logarithmic scale). The audit gets a set together with at most
one copy of every image at a time, in as many rounds as needed. Found is a copy reported with its source. False is a reported
pair of two images that are neither copy and source, nor neighbours of a group, nor in `SAME`: pairs of the sets themselves
that we looked at and that do show one image. At last, all sets are audited together, without copies.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from madgnet_bench.catalog.audit.report import Report, audit
from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset
from madgnet_bench.errors import Problem

SAME = (
    {"malignant (39)", "malignant (42)"},
    {"malignant (4)", "malignant (5)"},
    {"malignant (7)", "malignant (8)"},
    {"malignant (7)", "malignant (9)"},
    {"malignant (8)", "malignant (9)"},
    {"cjyzl833ndne80838pzuq6ila", "cju5jx7jzf7c90871c2i9aiov"},
    {"cju5ddda9bkkt0850enzwatb1", "cjyzkpsbjdsjq07211dfi4sru"},
    {"cju7fnfv02tt90801djnix9m8", "cjyzuio1qgh040763k56deohv"},
)
"""Pairs of the sets themselves that show one image: breast lesions in BUSI, polyps in Kvasir-SEG with and without a frame."""


def transformed(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A copy as somebody might have made it: flipped or turned, cropped, gamma, JPEG."""
    height, width = image.shape[:2]
    top, bottom, left, right = random.uniform(0, 0.04, 4)
    copy = image[round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)]
    turns, mirrored = random.integers(4), random.integers(2)
    copy = np.rot90(copy[:, ::-1] if mirrored else copy, turns)
    gamma = np.exp(random.uniform(np.log(0.8), np.log(1.25)))
    copy = np.rint(255 * (copy / 255) ** gamma).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(copy[..., 0] if copy.shape[-1] == 1 else copy))
    if random.random() < 0.5:
        picture = picture.resize((height, width) if turns % 2 else (width, height), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(random.integers(70, 96)))
    decoded = np.asarray(Image.open(stream))
    return decoded if decoded.ndim == 3 else decoded[..., None]


class Copies(SegmentationDataset):
    """Copies of some cases of a data set, in memory."""

    card = DataCard(name="copies", title="Planted copies", modality="", targets=("none",))
    name = "copies"

    def __init__(self, dataset: SegmentationDataset, sources: Sequence[Case], random: np.random.Generator) -> None:
        self._images = {f"copy of {case.case_id}": transformed(dataset.read_image(case), random) for case in sources}

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List the copies, each its own group."""
        return [Case(name, name, name, name, "test") for name in self._images], []

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        """The copy."""
        return self._images[case.case_id]

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """Some mask."""
        return np.eye(*self._images[case.case_id].shape[:2], dtype=np.uint8)[None]


def pairs(report: Report) -> list[tuple[str, str]]:
    """The case_ids of the reported pairs, but for neighbours of a group."""
    return [
        (finding.members[0].case.case_id, finding.members[1].case.case_id)
        for finding in report.findings
        if finding.kind.startswith("duplicate")
    ]


def is_false(pair: tuple[str, str], groups: dict[str, str]) -> bool:
    """Neither copy and source, nor of one group, nor known to show one image."""
    sources = [case_id.removeprefix("copy of ") for case_id in pair]
    return groups[sources[0]] != groups[sources[1]] and set(sources) not in SAME


def measure(name: str, copies: int, seed: int) -> tuple[str, ...]:
    """One row of the table."""
    dataset = CatalogDataset(name)
    cases = dataset.manifest.cases
    groups = {case.case_id: case.group_id for case in cases}
    start = time.perf_counter()
    alone = audit([dataset])
    seconds = time.perf_counter() - start
    random = np.random.default_rng(seed)
    found, planted, looked_at = 0, 0, len(cases)
    false = {case_id for pair in pairs(alone) if is_false(pair, groups) for case_id in pair}
    count = len(false)
    while planted < copies:
        sources = [cases[row] for row in random.permutation(len(cases))[: copies - planted]]
        reported = pairs(audit([dataset], [Copies(dataset, sources, random)]))
        found += len({frozenset(pair) for pair in reported} & {frozenset((c.case_id, f"copy of {c.case_id}")) for c in sources})
        count += len({case_id for pair in reported if is_false(pair, groups) for case_id in pair})
        planted += len(sources)
        looked_at += len(cases) + len(sources)
    real = len(pairs(alone)) - len([pair for pair in pairs(alone) if is_false(pair, groups)])
    rate = f"{100 * count / looked_at:.2f}"
    return name, str(len(cases)), f"{found} / {planted}", f"{found / planted:.1%}", str(real), rate, f"{seconds:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help="data sets (default: all that are there)")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    root = os.environ.get(DATA_ROOT_VARIABLE)
    if not root:
        sys.exit(f"set {DATA_ROOT_VARIABLE} to the folder that holds the data sets")
    names = options.name or [name for name in sorted(READERS) if (Path(root) / name).is_dir()]
    print("set | images | found | recall | true pairs in the set | false alarms per 100 images | seconds for the set alone")
    print("--- | --: | --: | --: | --: | --: | --:")
    for name in names:
        print(" | ".join(measure(name, options.copies, options.seed)), flush=True)
    if len(names) > 1:
        datasets = [CatalogDataset(name) for name in names]
        report = audit(datasets)
        groups = {case.case_id: case.group_id for dataset in datasets for case in dataset.manifest}
        false = {case_id for pair in pairs(report) if is_false(pair, groups) for case_id in pair}
        total = sum(report.cases.values())
        real = len([pair for pair in pairs(report) if not is_false(pair, groups)])
        print(f"all together | {total} | | | {real} | {100 * len(false) / total:.2f} | {report.seconds:.1f}")


if __name__ == "__main__":
    main()
