from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.contact_sheet import contact_sheet
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.catalog.phantoms import PHANTOM_CARDS, PhantomDataset
from madgnet_bench.errors import ConfigError, DataErrors, Problem
from madgnet_bench.pictures import target_colours

FIRST, SECOND = target_colours(2)


class Block(SegmentationDataset):
    """Grey images of any shape with a box in the middle as each target."""

    def __init__(self, shape: tuple[int, ...], *, targets: int = 1, floating: bool = False, broken: str = "") -> None:
        self.name, self.shape, self.floating, self.broken = "block", shape, floating, broken
        self.card = DataCard(name="block", title="Block", modality="mri", targets=tuple(f"t{n}" for n in range(targets)))

    def scan(self) -> tuple[list[Case], list[Problem]]:
        return [Case(f"c{n}", f"g{n}", f"{n}.png", f"{n}_mask.png", "train") for n in range(3)], []

    def read_image(self, case: Case) -> NDArray[np.uint8] | NDArray[np.float32]:
        if self.broken == "image":
            raise FileProblem(case.image, "is truncated", "download it again")
        grey = np.full((*self.shape, 1), 0.5, np.float32)
        return grey if self.floating else np.rint(grey * 255).astype(np.uint8)

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        shape = tuple(side + 1 for side in self.shape) if self.broken == "size" else self.shape
        mask = np.zeros((len(self.card.targets), *shape), np.uint8)
        for target in range(len(self.card.targets)):
            inner = tuple(slice((2 + target) * side // 8, -((2 + target) * side // 8)) for side in shape)
            mask[(target, *inner)] = 1
        return mask


def tiles(sheet: NDArray[np.uint8], side: int, count: int) -> list[NDArray[np.uint8]]:
    left = sheet.shape[1] - count * (side + 4)
    return [sheet[4 : 4 + side, left + n * (side + 4) : left + n * (side + 4) + side] for n in range(count)]


def shows(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def test_one_row_per_data_set_and_the_same_sheet_again() -> None:
    datasets = [PhantomDataset(modality, size=32, cases=8) for modality in PHANTOM_CARDS]
    sheet = contact_sheet(datasets, cases=4, side=40)
    assert sheet.mode == "RGB"
    assert sheet.height == 6 * 44 + 4
    assert sheet.width > 4 * 44
    again = contact_sheet([PhantomDataset(modality, size=32, cases=8) for modality in PHANTOM_CARDS], cases=4, side=40)
    assert sheet.tobytes() == again.tobytes()


def test_every_target_is_outlined_in_its_own_colour() -> None:
    sheet = np.asarray(contact_sheet([Block((60, 60), targets=2)], cases=3, side=64))
    for picture in tiles(sheet, 64, 3):
        first = np.argwhere((picture == FIRST).all(axis=-1))
        second = np.argwhere((picture == SECOND).all(axis=-1))
        assert first.min() == pytest.approx(16, abs=1)
        assert second.min() == pytest.approx(24, abs=1)
        assert tuple(picture[32, 32]) == (128, 128, 128)
    label = sheet[:, : sheet.shape[1] - 3 * 68]
    assert shows(label, FIRST)
    assert shows(label, SECOND)


def test_aspect_ratio_is_kept_on_black() -> None:
    picture = tiles(np.asarray(contact_sheet([Block((30, 90), floating=True)], cases=1, side=60)), 60, 1)[0]
    rows = np.nonzero(picture.any(axis=(1, 2)))[0]
    assert (rows[0], rows[-1]) == (20, 39)
    assert tuple(picture[21, 1]) == (128, 128, 128)


def test_volumes_show_a_slice_with_reference() -> None:
    picture = tiles(np.asarray(contact_sheet([Block((9, 40, 40), floating=True)], cases=1, side=40)), 40, 1)[0]
    assert shows(picture, FIRST)


def test_more_targets_than_colours_and_more_cases_than_the_set_has() -> None:
    sheet = contact_sheet([Block((128, 128), targets=2), Block((80, 40), targets=3)], cases=50, side=32)
    assert sheet.height == 2 * 36 + 4
    assert len(tiles(np.asarray(sheet), 32, 3)) == 3


def test_bad_arguments_and_unreadable_cases() -> None:
    with pytest.raises(ConfigError, match="at least one data set"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="cases=0 is too small; the smallest valid value is 1"):
        contact_sheet([Block((8, 8))], cases=0)
    with pytest.raises(ConfigError, match="side=8 is too small"):
        contact_sheet([Block((8, 8))], side=8)
    with pytest.raises(DataErrors, match=r"is truncated\s+download it again"):
        contact_sheet([Block((8, 8), broken="image")])
    with pytest.raises(DataErrors, match="mask is"):
        contact_sheet([Block((8, 8), broken="size")])
