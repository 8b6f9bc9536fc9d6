from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from madgnet_bench.data.transforms import Augmentation, FlipRotate, channels_first, resize_image, resize_mask

RANDOM = np.random.default_rng(0)


def disc(size, centre, radius):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_channels_and_mean(channels):
    image = RANDOM.integers(0, 256, (40, 30, channels), dtype=np.uint8)
    for size in ((10, 20), (64, 50), (1, 1)):
        resized = resize_image(image, size)
        assert resized.shape == (*size, channels) and resized.dtype == np.uint8
        assert resized.mean() == pytest.approx(image.mean(), abs=3)
    assert resize_image(image, (40, 30)) is image
    assert (resize_image(np.full((9, 7, channels), 77, np.uint8), (16, 5)) == 77).all()


def test_colour_is_resized_channel_by_channel():
    for size, target in (((40, 30), (64, 20)), ((11, 97), (31, 31)), ((200, 300), (35, 46))):
        image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
        channels = [resize_image(np.ascontiguousarray(image[..., c : c + 1]), target) for c in range(3)]
        assert np.array_equal(resize_image(image, target), np.concatenate(channels, axis=-1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_first_is_a_copy(channels):
    image = RANDOM.integers(0, 256, (7, 9, channels), dtype=np.uint8)
    for view in (image, image[::-1, ::2], image[1:, :, :channels]):
        moved = channels_first(view)
        assert np.array_equal(moved, view.transpose(2, 0, 1)) and moved.flags.c_contiguous
        assert not np.shares_memory(moved, image)


def test_shrinking_averages_and_does_not_drop_lines():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[::2] = 255
    assert np.abs(resize_image(stripes, (8, 8)).astype(int) - 127).max() <= 8


@pytest.mark.parametrize(("size", "target"), [((40, 30), (16, 16)), ((12, 9), (31, 40)), ((50, 50), (25, 70))])
def test_bilinear_masks_are_cut_at_one_half(size, target):
    mask = np.stack([disc(size, (size[0] / 2, size[1] / 3), size[0] / 4), disc(size, (5, 5), 3.3)])
    soft = interpolate(torch.from_numpy(mask)[None].float(), size=target, mode="bilinear", antialias=True)[0].numpy()
    clear = np.abs(soft - 0.5) > 1e-3
    resized = resize_mask(mask, target, resampling="bilinear")
    assert resized.dtype == np.uint8 and resized.shape == (2, *target)
    assert ((resized == (soft >= 0.5)) | ~clear).all()
    assert clear.mean() > 0.98 and resized.any(axis=(1, 2)).all()


def test_one_half_is_foreground():
    assert resize_mask(np.array([[[1, 0]]], np.uint8), (1, 1), resampling="bilinear").item() == 1


def test_nearest_masks_repeat_pixels():
    mask = (RANDOM.random((2, 5, 6)) > 0.5).astype(np.uint8)
    assert np.array_equal(resize_mask(mask, (15, 12), resampling="nearest"), mask.repeat(3, axis=1).repeat(2, axis=2))
    for resampling in ("nearest", "bilinear"):
        assert resize_mask(mask, (5, 6), resampling=resampling) is mask


def case(channels=3, targets=2, size=(32, 40)):
    """A marked area that is bright in the image and foreground in every target."""
    marker = disc(size, (9, 12), 6)
    image = np.repeat(marker[..., None] * 200 + 20, channels, axis=-1).astype(np.uint8)
    return image, np.stack([marker] * targets)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("targets", [1, 2, 3])
def test_image_and_mask_move_together_and_keep_their_axes(channels, targets):
    image, mask = case(channels, targets)
    before = image.copy(), mask.copy()
    change = FlipRotate(degrees=30)
    assert isinstance(change, Augmentation)
    moved = 0
    for seed in range(12):
        new_image, new_mask = change(image, mask, seed=seed)
        assert new_image.shape == image.shape and new_image.dtype == np.uint8
        assert new_mask.shape == mask.shape and set(np.unique(new_mask)) == {0, 1}
        bright = new_image[..., 0] > 120
        for target in new_mask.astype(bool):
            assert (bright & target).sum() / (bright | target).sum() > 0.85
        moved += not np.array_equal(new_mask, mask)
    assert moved > 6
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


def test_a_seed_is_a_change():
    image, mask = RANDOM.integers(0, 256, (24, 24, 3), dtype=np.uint8), case(size=(24, 24))[1]
    one, other = FlipRotate(), FlipRotate()
    results = []
    for seed in (3, 2**32 - 1, 0, 5, 6, 7):
        first = one(image, mask, seed=seed)
        other(image, mask, seed=99)  # no memory of earlier calls
        second = other(image, mask, seed=seed)
        assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
        results.append(first[0].tobytes())
    assert len(set(results)) == 6


def test_it_does_to_every_channel_what_albumentations_does_to_the_image():
    for channels in (1, 3):
        image, mask = RANDOM.integers(0, 256, (61, 50, channels), dtype=np.uint8), case(size=(61, 50))[1]
        for seed in range(6):
            change = FlipRotate()
            turned, moved = change(image, mask, seed=seed)
            change._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
            plain = change._compose(image=image, mask=np.ascontiguousarray(mask.transpose(1, 2, 0)))
            assert np.array_equal(turned, plain["image"].reshape(image.shape))
            assert np.array_equal(moved, plain["mask"].transpose(2, 0, 1))


def test_flips_without_rotation_are_the_four_flips():
    image, mask = RANDOM.integers(0, 256, (8, 9, 1), dtype=np.uint8), (RANDOM.random((2, 8, 9)) > 0.5).astype(np.uint8)
    change = FlipRotate(degrees=0)
    flips = {
        image[::rows, ::columns].tobytes(): mask[:, ::rows, ::columns] for rows, columns in itertools.product((1, -1), (1, -1))
    }
    seen = set()
    for seed in range(40):
        new_image, new_mask = change(image, mask, seed=seed)
        assert np.array_equal(new_mask, flips[new_image.tobytes()])
        seen.add(new_image.tobytes())
    assert len(seen) == 4


def test_flips_and_rotation_are_drawn_independently():
    image, mask = case(size=(33, 33))
    flips = FlipRotate(degrees=0)
    both = FlipRotate(degrees=15)
    found = set()
    for seed in range(80):
        flipped, _ = flips(image, mask, seed=seed)
        turned, _ = both(image, mask, seed=seed)
        places = [np.argwhere(picture[..., 0] > 120).mean(0) - 16 for picture in (flipped, turned)]
        before, after = (np.arctan2(*place) for place in places)
        turn = np.sin(after - before)
        if abs(turn) > 0.02:
            found.add((*np.sign(places[0]), np.sign(turn)))
    assert len(found) == 8  # four flips, each turned either way


def test_nothing_at_probability_zero_and_mirrored_corners():
    image, mask = case()
    same = FlipRotate(horizontal=0, vertical=0, degrees=0)(image, mask, seed=1)
    assert np.array_equal(same[0], image) and np.array_equal(same[1], mask)
    full = FlipRotate(degrees=45)(np.full_like(image, 90), np.ones_like(mask), seed=1)
    assert (full[0] == 90).all() and full[1].all()
