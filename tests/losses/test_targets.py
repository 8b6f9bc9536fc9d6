from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from madgnet_bench.losses.targets import boundary_map, distance_map


def blobs(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=draw) > 0.3).float()


def disc(side: int, radius: float) -> Tensor:
    axis = torch.arange(side) - (side - 1) / 2
    return (axis[:, None] ** 2 + axis**2 <= radius**2).float()[None, None]


def slow_distance(foreground: np.ndarray) -> np.ndarray:
    """The definition: for every foreground pixel the nearest of all background pixels."""
    depth = np.zeros(foreground.shape)
    background = np.argwhere(~foreground)
    for place in np.argwhere(foreground):
        depth[tuple(place)] = np.sqrt(((background - place) ** 2).sum(1).min())
    return depth / depth.max()


def slow_sobel(foreground: np.ndarray) -> np.ndarray:
    """Correlation with the two 3 x 3 kernels, pixel by pixel."""
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = np.pad(foreground.astype(float), 1, mode="edge")
    magnitude = np.zeros(foreground.shape)
    for y, x in np.ndindex(foreground.shape):
        window = padded[y : y + 3, x : x + 3]
        magnitude[y, x] = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
    return magnitude


@pytest.mark.parametrize("size", [(12, 9), (1, 7), (7, 1)])
def test_distance_equals_the_definition(size: tuple[int, int]) -> None:
    mask = blobs(2, 3, *size)
    expected = [[slow_distance(target.numpy() > 0) for target in case] for case in mask]
    np.testing.assert_allclose(distance_map(mask).numpy(), np.array(expected), atol=1e-6)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.53])
def test_boundary_equals_the_definition(threshold: float) -> None:
    mask = blobs(2, 3, 13, 11, seed=1)
    expected = [[slow_sobel(target.numpy() > 0) >= threshold - 1e-9 for target in case] for case in mask]
    found = boundary_map(mask, threshold=threshold)
    np.testing.assert_array_equal(found.numpy(), np.array(expected))
    assert 0 < found.mean() < 1


@pytest.mark.parametrize(("value", "distance"), [(0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [(16, 12), (1, 1)])
def test_empty_and_full_masks(value: float, distance: float, size: tuple[int, int]) -> None:
    mask = torch.full((1, 2, *size), value)
    assert torch.equal(distance_map(mask), torch.full_like(mask, distance))
    assert not boundary_map(mask).any()


@pytest.mark.parametrize("place", [(4, 5), (0, 0), (8, 3)])
def test_one_pixel(place: tuple[int, int]) -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0][place] = 1
    assert torch.equal(distance_map(mask), mask)
    if place == (4, 5):
        assert not boundary_map(mask).any()
        assert boundary_map(mask, threshold=0.25).sum() == 4
    assert boundary_map(mask, threshold=0.1).sum() > 2


def test_every_case_and_target_has_its_own_scale() -> None:
    mask = torch.cat([disc(33, 4), disc(33, 12), torch.zeros(1, 1, 33, 33)]).view(1, 3, 33, 33)
    depth = distance_map(mask)
    assert depth.amax((2, 3)).tolist() == [[1, 1, 0]]
    assert depth[0, 0, 16, 16] == depth[0, 1, 16, 16] == 1
    for target in range(3):
        assert torch.equal(distance_map(mask[:, target : target + 1]), depth[:, target : target + 1])
        assert torch.equal(boundary_map(mask[:, target : target + 1]), boundary_map(mask)[:, target : target + 1])


def test_the_boundary_of_a_disc_is_a_ring_on_both_sides_of_its_edge() -> None:
    mask = disc(65, 20)
    boundary = boundary_map(mask).bool()
    axis = torch.arange(65) - 32.0
    radius = (axis[:, None] ** 2 + axis**2).sqrt()[None, None]
    assert radius[boundary].min() > 18 and radius[boundary].max() < 22
    assert 0.3 < mask[boundary].mean() < 0.8
    assert boundary.sum() > 2 * torch.pi * 20  # closed, and more than a pixel wide


def test_the_border_of_the_image_is_neither_background_nor_edge() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    assert torch.equal(distance_map(mask)[0, 0, 3], torch.tensor([1, 0.75, 0.5, 0.25, 0, 0, 0, 0]))
    assert torch.equal(boundary_map(mask)[0, 0], torch.tensor([0.0, 0, 0, 1, 1, 0, 0, 0]).expand(8, 8))


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_volumes(axis: int) -> None:
    mask = torch.zeros(1, 1, 8, 8, 8)
    mask.narrow(axis, 0, 4).fill_(1)
    profile = torch.zeros(8).scatter(0, torch.tensor([3, 4]), 1.0)
    assert torch.equal(boundary_map(mask).movedim(axis, -1)[0, 0], profile.expand(8, 8, 8))
    assert torch.equal(distance_map(mask).movedim(axis, -1)[0, 0, 2, 5, :5], torch.tensor([1, 0.75, 0.5, 0.25, 0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.bool])
def test_every_type_of_mask_gives_float32(dtype: torch.dtype) -> None:
    mask = disc(15, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for make in (distance_map, boundary_map):
            found = make(mask.to(dtype))
            assert found.dtype == torch.float32
            assert torch.equal(found, make(mask))


def test_the_mask_is_left_as_it_was() -> None:
    mask = disc(15, 5)
    before = mask.clone()
    distance_map(mask).fill_(7)
    boundary_map(mask).fill_(7)
    assert torch.equal(mask, before)
