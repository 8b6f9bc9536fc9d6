from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from madgnet_bench.layers.distance import choose_backend, distance_to_foreground, nearest_foreground, nearest_within


def masks(number, *, axes, largest, seed=0):
    """Random masks of several densities, among them empty and full ones, single pixels and sides of 1."""
    random = np.random.default_rng(seed)
    for _ in range(number):
        shape = tuple(random.integers(1, largest + 1, axes))
        mask = random.random(shape) < random.choice([0.0, 0.03, 0.1, 0.4, 0.9, 1.0])
        if random.random() < 0.3:
            mask[:] = False
            mask[tuple(random.integers(0, side) for side in shape)] = True
        yield torch.from_numpy(mask)[None, None]


def by_hand(mask, spacing):
    """All pairs: the nearest foreground pixel, of several the one with the smallest last coordinate, then the next."""
    places = np.argwhere(mask)
    places = places[np.lexsort(tuple(places.T))]
    here = np.argwhere(np.ones_like(mask))
    squared = np.square((here[:, None] - places) * np.asarray(spacing)).sum(-1)
    nearest = places[squared.argmin(1)]
    return np.sqrt(squared.min(1)).reshape(mask.shape), np.ravel_multi_index(tuple(nearest.T), mask.shape).reshape(mask.shape)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_scipy_and_torch_find_the_nearest_pixel_by_the_rule_of_ties(axes):
    for mask in masks(60, axes=axes, largest={1: 20, 2: 11, 3: 6}[axes]):
        for backend in ("scipy", "torch"):
            distances, indices = nearest_foreground(mask, backend=backend)
            assert distances.shape == indices.shape == mask.shape
            assert (distances.dtype, indices.dtype) == (torch.float64, torch.int64)
            if not mask.any():
                assert distances.isinf().all() and (indices == -1).all()
                continue
            expected, places = by_hand(mask[0, 0].numpy(), [1] * axes)
            assert np.allclose(distances[0, 0], expected, rtol=1e-12) and np.array_equal(indices[0, 0], places)


def test_a_spacing_stretches_the_axes():
    random = np.random.default_rng(1)
    for axes in (2, 3):
        for mask in masks(40, axes=axes, largest=7, seed=axes):
            spacing = random.uniform(0.3, 4, axes).tolist()
            if not mask.any():
                continue
            expected, _ = by_hand(mask[0, 0].numpy(), spacing)
            for backend in ("scipy", "torch"):
                distances, indices = nearest_foreground(mask, spacing=spacing, backend=backend)
                assert np.allclose(distances[0, 0], expected, rtol=1e-12, atol=1e-12)
                assert mask.flatten()[indices].all()
                steps = np.stack(np.unravel_index(indices[0, 0].numpy(), mask.shape[2:])) - np.indices(mask.shape[2:])
                there = np.sqrt(np.square(steps.T * np.asarray(spacing)).sum(-1).T)
                assert np.allclose(there, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.0005, 0.01, 0.3, 1.0]), st.integers(0, 2**32 - 1))
def test_torch_and_opencv_have_the_distances_of_scipy(height, width, density, seed):
    mask = torch.from_numpy(np.random.default_rng(seed).random((1, 1, height, width)) < density)
    mask[0, 0, seed % height, seed % width] = True
    expected = ndimage.distance_transform_edt(~mask[0, 0].numpy())
    assert np.abs(distance_to_foreground(mask, backend="torch")[0, 0].numpy() - expected).max() < 1e-6
    assert np.array_equal(distance_to_foreground(mask, backend="opencv")[0, 0].numpy(), expected)


def test_opencv_is_exact_up_to_its_limit():
    mask = torch.zeros(1, 1, 1000, 1040, dtype=torch.bool)
    random = np.random.default_rng(0)
    mask[0, 0, random.integers(0, 1000, 6), random.integers(0, 1040, 6)] = True
    found = distance_to_foreground(mask, backend="opencv")
    expected = distance_to_foreground(mask, backend="scipy")
    assert torch.equal(found, expected)


def test_distances_do_not_depend_on_the_place_in_memory():
    mask = torch.rand(60, 61, generator=torch.Generator().manual_seed(0)) > 0.99
    expected = distance_to_foreground(mask[None, None], backend="scipy")
    for offset in range(16):
        moved = torch.empty(mask.numel() + 16, dtype=torch.bool)[offset : offset + mask.numel()].view(1, 1, *mask.shape)
        assert torch.equal(distance_to_foreground(moved.copy_(mask), backend="opencv"), expected)


def test_within_a_reach_every_backend_finds_the_same_pixels():
    for mask in masks(80, axes=2, largest=24, seed=3):
        batch = torch.stack([mask[0], mask[0].flip(-1), mask[0].flip(-2)])
        distances, indices = nearest_foreground(batch, backend="scipy")
        whole = indices + torch.arange(3).view(3, 1, 1, 1) * mask[0, 0].numel()
        for reach in (1, 3):
            window = torch.nn.functional.max_pool2d(batch.float(), 2 * reach + 1, stride=1, padding=reach) > 0
            needed = set((window & ~batch).flatten().nonzero().flatten().tolist())
            for backend in ("scipy", "opencv", "torch"):
                far = distance_to_foreground(batch, backend=backend)
                assert torch.allclose(far, distances, rtol=1e-12)
                pixels, nearest = nearest_within(batch, far, reach)
                assert needed <= set(pixels.tolist()) and not batch.flatten()[pixels].any()
                assert torch.equal(nearest, whole.flatten()[pixels])


def test_a_batch_is_its_cases():
    batch = torch.from_numpy(np.random.default_rng(5).random((3, 2, 9, 14)) < 0.05)
    batch[1, 1] = False
    for backend in ("scipy", "torch"):
        distances, indices = nearest_foreground(batch, backend=backend)
        for n, k in np.ndindex(3, 2):
            alone = nearest_foreground(batch[n, k][None, None], backend=backend)
            assert torch.equal(distances[n, k], alone[0][0, 0]) and torch.equal(indices[n, k], alone[1][0, 0])
    assert torch.allclose(distance_to_foreground(batch), distances, rtol=1e-12)


def test_the_backend_is_chosen_by_what_is_asked():
    image, volume = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, 8)
    assert choose_backend(image) == "scipy"
    assert choose_backend(image, indices=False) == "opencv"
    assert choose_backend(image, spacing=(1, 2), indices=False) == choose_backend(volume, indices=False) == "scipy"
    assert choose_backend(torch.zeros(1, 1, 2000, 8), indices=False) == "scipy"
    assert choose_backend(image.to("meta"), indices=False) == "torch"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spacing": (1.0,)}, "does not fit 2 spatial axes"),
        ({"spacing": (1.0, 0.0)}, "positive"),
        ({"backend": "edt"}, "unknown backend 'edt'"),
        ({"backend": "opencv", "spacing": (1.0, 1.0)}, "without spacing"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        distance_to_foreground(torch.ones(1, 1, 3, 3, dtype=torch.bool), **arguments)


def test_opencv_gives_no_indices_everywhere():
    with pytest.raises(ValueError, match="finds no nearest pixels"):
        nearest_foreground(torch.ones(1, 1, 3, 3, dtype=torch.bool), backend="opencv")
