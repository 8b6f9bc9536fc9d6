"""Targets that are made from a mask: how deep inside a pixel lies, and whether it lies on the edge."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.layers.distance import distance_to_foreground

__all__ = ["boundary_map", "distance_map"]


def distance_map(mask: Tensor) -> Tensor:
    """Measure how deep inside the foreground each pixel lies: 0 on the background, 1 at the deepest place.

    The Euclidean distance, in pixels, to the nearest background pixel, divided by its maximum, for each case and target on its
    own. The image's border is no background. An empty mask is 0 everywhere; a full one, which has no background to measure
    from, is 1 everywhere; a single pixel is 1 there.

    Args:
        mask: (N, K, *spatial) in {0, 1}.

    Returns:
        float32 in [0, 1], of the shape and on the device of the mask.

    >>> distance_map(torch.tensor([[[[0, 1, 1, 1, 1]]]])).flatten().tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    foreground = mask > 0.5
    depth = distance_to_foreground(~foreground)  # infinite where there is no background
    deepest = depth.flatten(2).amax(dim=2).clamp_min(1).view(*depth.shape[:2], *[1] * (depth.dim() - 2))
    return torch.where(depth.isinf(), 1.0, depth / deepest).float()


def boundary_map(mask: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Mark the pixels on either side of the mask's edge, where the Sobel magnitude reaches ``threshold``.

    The magnitude is that of normalised Sobel filters (their absolute weights sum to 1), with the image's border repeated
    outwards, so that it is no edge: 0.5 beside a straight edge, at most 0.56, and less beyond corners. At the default threshold
    the boundary is about two pixels wide; empty and full masks have none, and neither has a single pixel, beside which the
    magnitude is only 0.25.

    Args:
        mask: (N, K, *spatial) in {0, 1}.
        threshold: Least magnitude of a boundary pixel.

    Returns:
        float32 in {0, 1}, of the shape and on the device of the mask.

    >>> boundary_map(torch.tensor([[[[0, 0, 0, 1, 1, 1]]]])).flatten().tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    """
    return (_sobel_magnitude((mask > 0.5).float()) >= threshold).float()


def _sobel_magnitude(x: Tensor) -> Tensor:
    """Length of the gradient of (N, K, *spatial): along each axis a difference, smoothed by 1, 2, 1 along the others."""
    axes = range(2, x.dim())
    padded = functional.pad(x, (1, 1) * len(axes), mode="replicate")
    total = torch.zeros_like(x)
    for direction in axes:
        gradient = padded
        for axis in axes:
            before, here, after = (gradient.narrow(axis, start, x.shape[axis]) for start in range(3))
            gradient = after - before if axis == direction else before + 2 * here + after
        total += gradient.square()
    return total.sqrt() / (2 * 4 ** (len(axes) - 1))
