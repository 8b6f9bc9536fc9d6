"""The exact Euclidean distance to the foreground and its nearest pixel: one transform for all measures that need it.

Ties are part of the result, because the weighted F reads the error at the nearest pixel. Every backend follows one rule: of
several nearest pixels, the one with the smallest last coordinate is taken, then the smallest last but one, and so on (in an
image: the leftmost, then the topmost). It is the rule of ``scipy.ndimage.distance_transform_edt``. With a spacing, two
distances may be equal in one backend and differ in the last bit in another; then only the distances agree.

| backend | where | what |
|---|---|---|
| ``scipy`` | CPU; any number of axes, any spacing | distances and indices |
| ``opencv`` | CPU; images of at most about 1024 x 1024, no spacing | distances |
| ``torch`` | any device, on which all stays; any number of axes, any spacing | distances and indices |

OpenCV's exact transform gives no indices, and its transform that does is only approximate (its distances are off by pixels far
from the foreground). `nearest_within` finds the nearest pixels of those near the foreground from any backend's distances.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

__all__ = ["Backend", "choose_backend", "distance_to_foreground", "nearest_foreground", "nearest_within"]

Backend = Literal["scipy", "opencv", "torch"]

OPENCV_LIMIT = 2**21
"""Largest sum of squared sides at which distances in single precision still tell their squares, whole numbers, apart."""

CHUNK = 2**22
"""Candidates that the torch backend looks at in one step: 16 MiB in single precision."""


def choose_backend(mask: Tensor, *, spacing: Sequence[float] | None = None, indices: bool = True) -> Backend:
    """Name the backend that is taken where none is asked for.

    ``torch`` off the CPU; on it ``opencv`` where it can do the work, which takes about a third of the time of ``scipy``, and
    ``scipy`` otherwise.

    Args:
        mask: (N, K, *spatial).
        spacing: Distance between pixels along each spatial axis.
        indices: Whether the nearest pixels are needed beside the distances.
    """
    if mask.device.type != "cpu":
        return "torch"
    return "opencv" if not indices and _fits_opencv(mask, spacing) else "scipy"


def distance_to_foreground(mask: Tensor, *, spacing: Sequence[float] | None = None, backend: Backend | None = None) -> Tensor:
    """Distance of every pixel to the nearest foreground pixel; arguments and errors as `nearest_foreground`.

    Returns:
        (N, K, *spatial) float64 on the device of the mask; infinite where the mask is empty.

    >>> distance_to_foreground(torch.tensor([[[[False, True, False, False]]]])).tolist()
    [[[[1.0, 0.0, 1.0, 2.0]]]]
    """
    backend = backend or choose_backend(mask, spacing=spacing, indices=False)
    mask = _checked(mask, spacing, backend)
    if backend == "opencv":
        return _opencv(mask)
    return _scipy(mask, spacing)[0] if backend == "scipy" else _torch(mask, spacing)[0]


def nearest_foreground(
    mask: Tensor, *, spacing: Sequence[float] | None = None, backend: Backend | None = None
) -> tuple[Tensor, Tensor]:
    """Distance of every pixel to the nearest foreground pixel, and where that pixel lies.

    Args:
        mask: (N, K, *spatial) bool.
        spacing: Distance between pixels along each spatial axis; 1 where None.
        backend: See the module; None for `choose_backend`.

    Returns:
        (N, K, *spatial) float64 distances, infinite where the mask is empty, and (N, K, *spatial) int64 indices into the
        flattened spatial axes, -1 where the mask is empty. Both lie on the device of the mask.

    Raises:
        ValueError: The spacing does not fit the mask, or the backend cannot do what is asked.
    """
    backend = backend or choose_backend(mask, spacing=spacing, indices=True)
    if backend == "opencv":
        raise ValueError(
            "backend 'opencv' finds no nearest pixels; take 'scipy' or 'torch', or nearest_within near the foreground"
        )
    mask = _checked(mask, spacing, backend)
    return _scipy(mask, spacing) if backend == "scipy" else _torch(mask, spacing)


def nearest_within(mask: Tensor, distances: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Where the nearest foreground pixel lies for the background pixels near the foreground, from exact distances.

    The squared distance of a pixel leaves few places where its nearest foreground pixel can lie; the first that holds one, in
    the order of the rule of ties, is it.

    Args:
        mask: (N, K, H, W) bool.
        distances: (N, K, H, W) of `distance_to_foreground` without spacing.
        reach: Background pixels at most so far from a foreground pixel along both axes are near it.

    Returns:
        Two int64 lists of one length, positions in the flattened mask: background pixels, all that are near among them, and the
        nearest foreground pixel of each. They are the same whatever the backend of the distances.
    """
    (height, width), margin = mask.shape[-2:], math.isqrt(2 * reach * reach)
    padded = functional.pad(mask.view(torch.uint8), (margin,) * 4)
    pixels = ((distances > 0) & (distances < (2 * reach * reach + 0.5) ** 0.5)).flatten().nonzero().flatten()
    squared = distances.flatten()[pixels].square().round().long()
    down, right = _places(reach, mask.device).index_select(1, squared)
    line, column = pixels // width, pixels % width
    line += line // height * 2 * margin + margin
    candidates = (line[:, None] + down) * padded.shape[-1] + column[:, None] + margin + right
    first = padded.flatten()[candidates].argmax(1, keepdim=True)
    return pixels, pixels + (down * width + right).gather(1, first)[:, 0]


@functools.cache
def _places(reach: int, device: torch.device) -> Tensor:
    """All places at each squared distance up to 2 reach^2, in the order of the rule of ties.

    Returns:
        (2, 2 reach^2 + 1, most places) int64: rows down and columns right; a shorter list repeats its last place.
    """
    steps = range(-math.isqrt(2 * reach * reach), math.isqrt(2 * reach * reach) + 1)
    places: list[list[tuple[int, int]]] = [[] for _ in range(2 * reach * reach + 1)]
    for right in steps:
        for down in steps:
            if down * down + right * right < len(places):
                places[down * down + right * right].append((down, right))
    most = max(len(group) for group in places)
    full = [(group + (group or [(0, 0)])[-1:] * most)[:most] for group in places]
    return torch.tensor(full, device=device).permute(2, 0, 1)


def _checked(mask: Tensor, spacing: Sequence[float] | None, backend: Backend) -> Tensor:
    """The mask as bool, if the backend can do the work."""
    axes = mask.dim() - 2
    if axes < 1:
        raise ValueError(f"a mask is (N, K, *spatial), got {tuple(mask.shape)}")
    if spacing is not None and (len(spacing) != axes or min(spacing) <= 0):
        raise ValueError(f"spacing {tuple(spacing)} does not fit {axes} spatial axes; give one positive number for each")
    if backend not in ("scipy", "opencv", "torch"):
        raise ValueError(f"unknown backend {backend!r}; take 'scipy', 'opencv' or 'torch'")
    if backend == "opencv" and not _fits_opencv(mask, spacing):
        raise ValueError(
            f"backend 'opencv' takes images without spacing up to about 1024 x 1024 on the CPU, got {tuple(mask.shape)}, "
            f"spacing {spacing}, {mask.device}; take 'scipy' or 'torch'"
        )
    return mask.bool()


def _fits_opencv(mask: Tensor, spacing: Sequence[float] | None) -> bool:
    """Whether OpenCV's transform applies and is exact."""
    exact = mask.dim() == 4 and mask.shape[-1] ** 2 + mask.shape[-2] ** 2 <= OPENCV_LIMIT
    return exact and spacing is None and mask.device.type == "cpu"


def _opencv(mask: Tensor) -> Tensor:
    """Distances by OpenCV, made exact: its last bits change with the place of the image in memory, but squares are whole."""
    background = (~mask).contiguous().numpy().view(np.uint8)
    distances = np.full(mask.shape, np.inf, np.float32)
    for place in np.ndindex(mask.shape[:2]):
        if not background[place].all():
            cv2.distanceTransform(background[place], cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dst=distances[place])
    return torch.from_numpy(np.sqrt(np.rint(np.square(distances, out=distances), out=distances), dtype=np.float64))


def _scipy(mask: Tensor, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Distances and indices by scipy, one case and target after the other."""
    background, spatial = (~mask).numpy(), mask.shape[2:]
    indices, squared = np.full(mask.shape, -1, np.int64), np.full(mask.shape, np.inf)
    for place in np.ndindex(mask.shape[:2]):
        if background[place].all():
            continue
        nearest = ndimage.distance_transform_edt(
            background[place], sampling=spacing, return_distances=False, return_indices=True
        )
        flat, total = np.zeros(spatial, np.int64), np.zeros(spatial)
        for axis, here in enumerate(np.ogrid[tuple(slice(side) for side in spatial)]):
            flat = flat * spatial[axis] + nearest[axis]
            total += np.square((nearest[axis] - here) * (1.0 if spacing is None else spacing[axis]))
        indices[place], squared[place] = flat, total
    return torch.from_numpy(np.sqrt(squared)), torch.from_numpy(indices)


def _torch(mask: Tensor, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Distances and indices by torch: the nearest along the first axis, then along each other the best of all candidates.

    A squared distance is the sum over the axes, so the nearest pixel of a line is the best of the nearest pixels of its
    places. Whole numbers below 2**24 are exact in single precision; other distances are taken in double.
    """
    shape, spatial = mask.shape, mask.shape[2:]
    whole = spacing is None and sum(side * side for side in spatial) < 2**24
    dtype = torch.float32 if whole else torch.float64
    squared = torch.where(mask.flatten(0, 1), 0.0, torch.inf).to(dtype)
    indices = torch.arange(spatial.numel(), device=mask.device).view(1, *spatial).expand_as(squared)
    for axis in range(len(spatial)):
        steps = torch.arange(spatial[axis], device=mask.device, dtype=dtype)
        steps = steps if spacing is None else steps * spacing[axis]
        cost = (steps[:, None] - steps).square()
        line = squared.movedim(axis + 1, -1)
        best = _best_of_line(line.reshape(-1, spatial[axis]), cost, axis == 0).view(line.shape)
        squared = (line.gather(-1, best) + cost.flatten()[_pairs(best)]).movedim(-1, axis + 1)
        indices = indices.movedim(axis + 1, -1).gather(-1, best).movedim(-1, axis + 1)
    return squared.double().sqrt_().view(shape), torch.where(squared.isinf(), -1, indices).view(shape)


def _pairs(best: Tensor) -> Tensor:
    """Position of (place, best place) in a flattened square table; best is (..., length)."""
    length = best.shape[-1]
    return torch.arange(length, device=best.device) * length + best


def _best_of_line(squared: Tensor, cost: Tensor, first: bool) -> Tensor:
    """For each place of each line, the place with the least sum of its squared distance and the cost to go there.

    Args:
        squared: (lines, length) squared distance of the candidate at each place.
        cost: (length, length) squared distance between two places.
        first: The candidates cost 0 or infinity, so that the nearest on either side is enough.
    """
    lines, length = squared.shape
    if first:
        places = torch.arange(length, device=squared.device)
        here = squared == 0
        before = torch.where(here, places, -1).cummax(-1).values
        after = torch.where(here, places, 2 * length).flip(-1).cummin(-1).values.flip(-1)
        take_after = (before < 0) | (after - places < places - before)
        return torch.where(take_after, after, before).clamp_max_(length - 1)
    best = torch.empty(lines, length, dtype=torch.int64, device=squared.device)
    step = max(1, CHUNK // (length * length))
    for start in range(0, lines, step):
        best[start : start + step] = (squared[start : start + step, None, :] + cost).argmin(-1)
    return best
