"""Data sets in memory for the tests of the audit."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case, Split
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.errors import Problem

Pixels = NDArray[np.uint8]


class Memory(SegmentationDataset):
    """Images by case_id; splits and groups where they are not train and the case alone; None cannot be read."""

    def __init__(
        self,
        name: str,
        images: Mapping[str, Pixels | None],
        *,
        splits: Mapping[str, Split] | None = None,
        groups: Mapping[str, str] | None = None,
        masks: Mapping[str, Pixels | None] | None = None,
        source: str | None = None,
        split_name: str = "clean",
        problems: Sequence[Problem] = (),
    ) -> None:
        self.name, self.images, self.split_name = name, images, split_name
        self.card = DataCard(name=source or name, title=name, modality="dermoscopy", targets=("lesion",))
        self.splits, self.groups, self.masks, self.problems = splits or {}, groups or {}, masks or {}, list(problems)

    def scan(self) -> tuple[list[Case], list[Problem]]:
        return [
            Case(one, self.groups.get(one, one), f"{one}.png", f"{one}_mask.png", self.splits.get(one, "train"))
            for one in self.images
        ], self.problems

    def read_image(self, case: Case) -> Pixels:
        return _there(self.images[case.case_id], case.image)

    def read_mask(self, case: Case) -> Pixels:
        image = self.images[case.case_id]
        sides = (64, 64) if image is None else image.shape[:2]
        box = np.zeros((1, *sides), np.uint8)
        box[:, 8:24, 8:24] = 1
        return _there(self.masks.get(case.case_id, box), case.mask)


def _there(array: Pixels | None, file: str) -> Pixels:
    if array is None:
        raise FileProblem(file, "the file is truncated or damaged", "copy it again")
    return array


def scenes(modality: str, count: int, *, seed: int = 0) -> list[Pixels]:
    """Different anatomies of one kind."""
    drawn = PhantomDataset(modality, cases=max(2 * count, 5), size=96, seed=seed)
    return [drawn.read_image(case) for case in drawn.manifest.cases[: 2 * count : 2]]


def changed(image: Pixels, random: np.random.Generator, *, orientation: int = 0) -> Pixels:
    """A copy: cropped up to 4 % a side, turned, gamma, JPEG."""
    sides = image.shape[:2]
    before, after = random.uniform(0, 0.04, (2, 2)) * sides
    rows, columns = (slice(round(a), side - round(b)) for a, b, side in zip(before, after, sides, strict=True))
    copy = turned(image[rows, columns], orientation)
    copy = np.rint(255 * (copy / 255) ** random.uniform(0.8, 1.25)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(copy.squeeze())).save(stream, "JPEG", quality=int(random.integers(70, 96)))
    decoded = np.asarray(Image.open(stream))
    return decoded if decoded.ndim == 3 else decoded[..., None]


def turned(image: Pixels, orientation: int) -> Pixels:
    """One of the 8 flips and turns, numbered as in the fingerprints."""
    image = image.swapaxes(0, 1) if orientation & 4 else image
    image = image[::-1] if orientation & 2 else image
    return image[:, ::-1] if orientation & 1 else image
