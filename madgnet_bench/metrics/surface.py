"""Distances between surfaces per case: HD95, average symmetric surface distance and normalised surface Dice, in 2D and 3D.

Masks are (N, K, *spatial) bool; every measure is (N, K) float64. The conventions are MONAI's:

- The surface is the mask without its erosion by the cross (4 neighbours in 2D, 6 in 3D); outside the image is background, so a
  mask that touches the border has a surface there. It is a set of pixels, each counted once, whatever their spacing.
- HD95 is the larger of the two directed 95th percentiles, with linear interpolation, not the percentile of both together.
- The average symmetric distance is the mean over the pixels of both surfaces together.
- The surface Dice is the share of the pixels of both surfaces that lie at most ``tolerance`` from the other.

Where MONAI returns NaN or infinity a value is fixed, so that no lesion drops out of a mean and a missed one never improves it:

| measure | both empty | only reference empty | only prediction empty | neither |
|---|---|---|---|---|
| HD95, average distance | 0 | image diagonal | image diagonal | distance in the unit of the spacing |
| surface Dice | 1 | 0 | 0 | share |

The image diagonal is the square root of the sum of (side x spacing)^2, which no distance between two pixels reaches. Which case
was which, `madgnet_bench.metrics.overlap.emptiness` tells.

Distances are exact and double; MONAI's are rounded to single. A distance that exceeds the tolerance by less than a millionth of
it counts as within, so that 3 x 0.7 lies within 2.1.

References: S. Nikolov et al., arXiv 1809.04430 (surface Dice); A. Reinke et al., arXiv 2302.01790 (which measure says what).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.layers.distance import Backend, distance_to_foreground

__all__ = ["SURFACE_MEASURES", "surface", "surface_measures"]

SURFACE_MEASURES = ("hd95", "assd", "nsd")
"""Names of the measures of `surface_measures`, in order."""


def surface(mask: Tensor) -> Tensor:
    """Foreground pixels with a background neighbour along some axis, or on the image's border.

    Args:
        mask: (N, K, *spatial) bool.

    >>> surface(torch.ones(1, 1, 3, 4, dtype=torch.bool)).int().tolist()
    [[[[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]]]
    """
    axes = range(2, mask.dim())
    padded = functional.pad(mask.bool(), (1, 1) * len(axes))
    inner = mask.bool()
    for axis in axes:
        for start in (0, 2):
            part = padded
            for other in axes:
                part = part.narrow(other, start if other == axis else 1, mask.shape[other])
            inner = inner & part
    return mask.bool() & ~inner


def surface_measures(
    prediction: Tensor,
    reference: Tensor,
    *,
    tolerance: float | Sequence[float],
    spacing: Tensor | Sequence[float] | None = None,
    backend: Backend | None = None,
) -> dict[str, Tensor]:
    """HD95, average symmetric surface distance and normalised surface Dice from the same distance transforms.

    Each case is cropped to both surfaces. On another device than the CPU only the crop's bounds leave it.

    Args:
        prediction: (N, K, *spatial) bool.
        reference: (N, K, *spatial) bool.
        tolerance: Distance up to which a surface is right, in the unit of the spacing; one for all targets or one for each.
        spacing: (axes) or (N, axes) distance between pixels along each spatial axis; 1 where None.
        backend: Distance transform, see `madgnet_bench.layers.distance`.

    Returns:
        ``hd95``, ``assd`` and ``nsd``, (N, K) each; never NaN.

    Raises:
        ValueError: The shapes differ, or spacing or tolerance does not fit them.

    >>> p = torch.zeros(1, 1, 1, 9, dtype=torch.bool); r = p.clone(); p[..., 2] = True; r[..., 5] = True
    >>> {name: value.item() for name, value in surface_measures(p, r, tolerance=2, spacing=(1, 0.5)).items()}
    {'hd95': 1.5, 'assd': 1.5, 'nsd': 1.0}
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction is {tuple(prediction.shape)}, reference is {tuple(reference.shape)}")
    n, k = prediction.shape[:2]
    spacings = _spacings(spacing, prediction)
    tolerances = [float(tolerance)] * k if isinstance(tolerance, (int, float)) else [float(value) for value in tolerance]
    if len(tolerances) != k or min(tolerances, default=0.0) < 0:
        raise ValueError(f"tolerance {tolerances} does not fit {k} targets; give one number, 0 or more, or one for each target")
    edges = torch.stack([surface(prediction), surface(reference)], 2)
    found = torch.zeros(n, k, len(SURFACE_MEASURES), dtype=torch.float64, device=prediction.device)
    for i in range(n):
        for j in range(k):
            found[i, j] = _measure_case(edges[i, j], spacings[i], tolerances[j], backend)
    return dict(zip(SURFACE_MEASURES, found.unbind(-1), strict=True))


def _spacings(spacing: Tensor | Sequence[float] | None, mask: Tensor) -> list[list[float] | None]:
    """The spacing of each case; None where all are 1."""
    n, axes = mask.shape[0], mask.dim() - 2
    if spacing is None:
        return [None] * n
    table = torch.as_tensor(spacing, dtype=torch.float64).cpu()
    if table.shape not in ((axes,), (n, axes)) or not bool((table > 0).all()):
        raise ValueError(f"spacing {spacing} does not fit {n} cases; give {axes} positive numbers, for all or for each")
    return [None if row == [1.0] * axes else row for row in table.expand(n, axes).tolist()]


def _measure_case(edges: Tensor, spacing: list[float] | None, tolerance: float, backend: Backend | None) -> Tensor:
    """The measures of one case from the surfaces of prediction and reference (2, *spatial)."""
    spatial = edges.shape[1:]
    present = edges.flatten(1).any(-1).tolist()
    if not any(present):
        return torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    if not all(present):
        sides = [side * step for side, step in zip(spatial, spacing or [1.0] * len(spatial), strict=True)]
        diagonal = sum(side * side for side in sides) ** 0.5
        return torch.tensor([diagonal, diagonal, 0.0], dtype=torch.float64)
    edges = _crop(edges)
    to_prediction, to_reference = distance_to_foreground(edges[None], spacing=spacing, backend=backend)[0]
    from_prediction, from_reference = to_reference[edges[0]], to_prediction[edges[1]]
    both = torch.cat([from_prediction, from_reference])
    return torch.stack(
        [
            torch.maximum(_percentile_95(from_prediction), _percentile_95(from_reference)),
            both.mean(),
            (both <= tolerance * (1 + 1e-6)).double().mean(),
        ]
    )


def _crop(edges: Tensor) -> Tensor:
    """Crop (2, *spatial) to the box around all of it."""
    occupied = edges.any(0)
    for axis in range(occupied.dim()):
        others = [other for other in range(occupied.dim()) if other != axis]
        places = (occupied.any(others) if others else occupied).nonzero().flatten()
        first, last = int(places[0]), int(places[-1])
        edges = edges.narrow(axis + 1, first, last + 1 - first)
        occupied = occupied.narrow(axis, first, last + 1 - first)
    return edges.contiguous()


def _percentile_95(values: Tensor) -> Tensor:
    """The 95th percentile of a list, interpolated linearly."""
    place = 0.95 * (len(values) - 1)
    ordered = values.sort().values
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)
