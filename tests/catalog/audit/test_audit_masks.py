from __future__ import annotations

import numpy as np
import pytest

from madgnet_bench.catalog.audit.masks import SPECK_PIXELS, TINY_PIXELS, find_faults

IMAGE = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)


def box(*sizes: tuple[int, int]) -> np.ndarray:
    """A mask of objects of these heights and widths, side by side."""
    mask = np.zeros((1, 32, 40), np.uint8)
    left = 1
    for height, width in sizes:
        mask[0, 1 : 1 + height, left : left + width] = 1
        left += width + 2
    return mask


@pytest.mark.parametrize(
    ("mask", "kind", "detail"),
    [
        (box(), "empty mask", "no foreground in any target"),
        (np.ones((1, 32, 40), np.uint8), "full mask", "every pixel is foreground"),
        (box((1, TINY_PIXELS - 1)), "tiny mask", "8 foreground pixels"),
        (box((9, 9), (1, SPECK_PIXELS - 1)), "specks in the mask", "1 object of fewer than 4 pixels beside 1 larger"),
        (box((9, 9)) * 255, "mask not binary", "holds the values 0, 255"),
        (box((9, 9))[:, :30], "mask of another size", "mask is 40 x 30, image is 40 x 32"),
    ],
)
def test_a_faulty_mask(mask: np.ndarray, kind: str, detail: str) -> None:
    (fault,) = find_faults(IMAGE, mask, ("lesion",))
    assert (fault.kind, fault.detail, fault.in_image) == (kind, detail, False)
    assert fault.fix


@pytest.mark.parametrize("mask", [box((3, 3)), box((9, 9), (2, 2)), 1 - box((3, 3))])
def test_a_sound_mask(mask: np.ndarray) -> None:
    assert find_faults(IMAGE, mask, ("lesion",)) == []


def test_objects_that_touch_at_a_corner_are_one() -> None:
    mask = box((9, 9))
    mask[0, 10, 10] = 1
    assert find_faults(IMAGE, mask, ("lesion",)) == []


def test_several_targets_are_named() -> None:
    faults = find_faults(IMAGE, np.concatenate([box((9, 9)), box(), box((1, 2))]), ("disc", "cup", "rim"))
    assert [(fault.kind, fault.detail) for fault in faults] == [
        ("target without foreground", "cup: no foreground"),
        ("tiny mask", "rim: 2 foreground pixels"),
    ]


def test_faults_of_the_image() -> None:
    (constant,) = find_faults(np.full_like(IMAGE, 7), box((9, 9)), ("lesion",))
    assert (constant.kind, constant.detail, constant.in_image) == ("constant image", "every value is 7", True)
    broken = IMAGE.astype(np.float32)
    broken[3, 3] = np.nan
    (fault,) = find_faults(broken, box((9, 9)), ("lesion",))
    assert fault.kind == "image with NaN" and fault.in_image


def test_a_volume() -> None:
    volume = np.random.default_rng(0).random((6, 32, 40, 4), np.float32)
    mask = np.zeros((1, 6, 32, 40), np.uint8)
    assert [fault.kind for fault in find_faults(volume, mask, ("tumour",))] == ["empty mask"]
    mask[0, 2:4, 5:9, 5:9] = 1
    assert find_faults(volume, mask, ("tumour",)) == []
