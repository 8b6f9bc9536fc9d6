"""Fingerprints of images, and which pairs of images might show the same: candidates, which `audit.verify` then checks.

A fingerprint is the cosine transform (DCT-II) of the grey image at 128 x 128, its 64 x 64 lowest frequencies. Flips and
quarter turns only change signs and transpose it, and it can be evaluated between pixels, so everything that follows works
on it. Candidates compare its lowest frequencies alone, weighted by frequency (images have about as much less amplitude at
higher frequency, so that layout, which all images of a set share, does not prevail), in 8 orientations, as they are and
zoomed as if 2 % or 6 % were cropped off every side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

__all__ = ["FLIPS", "FREQUENCIES", "SIDE", "Candidates", "basis", "fingerprint", "flip", "frequency_weights", "propose"]

SIDE = 128
"""Side of the square grey image of which the cosine transform is taken."""

FREQUENCIES = 64
"""Frequencies per axis in a fingerprint: details down to two pixels of `SIDE`."""

FLIPS = 8
"""Orientations: bit 0 mirrors left and right, bit 1 top and bottom, bit 2 transposes before."""

NEAREST, NEAREST_IN_GROUP, LEAST_SIMILARITY = 8, 4, 0.45
"""Per image, how many candidates in other groups and in its own group, and their least similarity in [-1, 1].

Measured on ten sets together: the source of a copy was never below rank 3, its similarity in 99 of 100 above 0.75."""

_COARSE, _ZOOMS, _BLOCK = 16, (0.96, 0.88), 256

Array = NDArray[np.float32]


class Candidates(NamedTuple):
    """Pairs of images that might show the same.

    Attributes:
        first: (P,) positions; less than ``second``.
        second: (P,) positions.
        flip: (P,) orientation that turns the second's fingerprint like the first.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    flip: NDArray[np.intp]


def fingerprint(image: NDArray[Any]) -> Array:
    """Describe an image by its low frequencies.

    Args:
        image: (*spatial, C), uint8, or float32 in [0, 1]. Of a volume the middle slice counts; colour becomes luma, other
            numbers of channels their mean.

    Returns:
        (`FREQUENCIES`, `FREQUENCIES`) float32; zero for a constant image.
    """
    while image.ndim > 3:
        image = image[len(image) // 2]
    grey = _grey(image).resize((SIDE, SIDE), Image.Resampling.BOX)
    found: Array = dctn(np.asarray(grey), type=2, norm="ortho")[:FREQUENCIES, :FREQUENCIES].astype(np.float32)
    found[0, 0] = 0
    return found


def flip(fingerprints: Array, orientation: int) -> Array:
    """Turn fingerprints as if their images were flipped or turned.

    Args:
        fingerprints: (..., K, K).
        orientation: One of `FLIPS`.
    """
    if orientation & 4:
        fingerprints = np.swapaxes(fingerprints, -1, -2)
    signs = np.where(np.arange(fingerprints.shape[-1]) % 2, -1, 1).astype(np.float32)
    if orientation & 2:
        fingerprints = fingerprints * signs[:, None]
    return fingerprints * signs if orientation & 1 else fingerprints


def basis(positions: NDArray[Any], count: int) -> tuple[Array, Array]:
    """The cosines of a fingerprint at any positions, and their slopes.

    Args:
        positions: (..., M) in [0, 1] along an axis of the image.
        count: How many frequencies.

    Returns:
        (..., M, count) each; the second is the derivative by the position.
    """
    orders = np.arange(count, dtype=np.float32)
    angles = np.pi * positions[..., None].astype(np.float32) * orders
    scale = np.where(orders == 0, 1, np.sqrt(2)).astype(np.float32) / np.float32(np.sqrt(SIDE))
    return np.cos(angles) * scale, -np.sin(angles) * scale * np.float32(np.pi) * orders


def frequency_weights(count: int, lowest: int) -> Array:
    """Weights (count, count) that grow with the radial frequency, from ``lowest`` to where they fall to 0 at ``count``."""
    orders = np.arange(count, dtype=np.float32)
    radius = np.hypot(orders[:, None], orders)
    return (radius * (radius >= lowest) * np.clip((count - radius) / (count / 4), 0, 1)).astype(np.float32)


def propose(fingerprints: Array, groups: NDArray[np.intp], *, progress: Callable[[int, int], None] | None = None) -> Candidates:
    """Find the pairs of images that are worth a close look.

    Args:
        fingerprints: (N, `FREQUENCIES`, `FREQUENCIES`).
        groups: (N,) the number of the group of each image: its nearest neighbours inside and outside it are sought apart.
        progress: Called with rows done and all rows.
    """
    plain = _descriptors(fingerprints)
    zoomed = [_descriptors(_zoom(fingerprints, zoom)) for zoom in _ZOOMS]
    pairs: dict[tuple[int, int], int] = {}
    for start in range(0, len(plain), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(plain)))
        similarity, orientation = _best_orientation(plain, zoomed, rows)
        similarity[np.arange(len(rows)), rows] = -1
        own = groups[rows][:, None] == groups
        for wanted, count in ((~own, NEAREST), (own, NEAREST_IN_GROUP)):
            for row, column in _nearest(np.where(wanted, similarity, -1), count):
                _add(pairs, rows[row], column, int(orientation[row, column]))
        if progress:
            progress(int(rows[-1]) + 1, len(plain))
    ordered = np.array([(*pair, pairs[pair]) for pair in sorted(pairs)], np.intp).reshape(-1, 3)
    return Candidates(ordered[:, 0], ordered[:, 1], ordered[:, 2])


def _grey(image: NDArray[Any]) -> Image.Image:
    """A picture of mode F of (H, W, C)."""
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return Image.fromarray(np.ascontiguousarray(image)).convert("L").convert("F")
    if image.shape[-1] == 1:
        return Image.fromarray(np.ascontiguousarray(image[..., 0], dtype=np.float32))
    return Image.fromarray(image.mean(axis=-1, dtype=np.float32))


def _zoom(fingerprints: Array, zoom: float) -> Array:
    """Fingerprints, as far as descriptors need them, of the middle of the images: ``zoom`` of either side."""
    used = _COARSE + 8
    grid = (np.arange(SIDE) + 0.5) / SIDE
    there, here = basis(grid, _COARSE)[0], basis((1 - zoom) / 2 + zoom * grid, used)[0]
    change = there.T @ here
    return change @ fingerprints[:, :used, :used] @ change.T


def _descriptors(fingerprints: Array) -> Array:
    """(N, K, K) lowest frequencies, weighted, of norm 1; 0 for a constant image."""
    orders = np.arange(_COARSE, dtype=np.float32)
    radius = np.hypot(orders[:, None], orders)
    weighted = fingerprints[:, :_COARSE, :_COARSE] * (radius * (radius < _COARSE)).astype(np.float32)
    norms = np.linalg.norm(weighted.reshape(len(weighted), -1), axis=1)
    return weighted / np.maximum(norms, 1e-6)[:, None, None]


def _best_orientation(plain: Array, zoomed: Sequence[Array], rows: NDArray[np.intp]) -> tuple[Array, NDArray[np.int8]]:
    """Similarity (R, N) of some images to all, and the orientation of the others that gives it."""
    best = np.full((len(rows), len(plain)), -1, np.float32)
    which = np.zeros(best.shape, np.int8)
    pairs = [(plain, plain), *((one, plain) for one in zoomed), *((plain, one) for one in zoomed)]
    for orientation in range(FLIPS):
        for ours, theirs in pairs:
            found = ours[rows].reshape(len(rows), -1) @ flip(theirs, orientation).reshape(len(theirs), -1).T
            better = found > best
            np.copyto(best, found, where=better)
            which[better] = orientation
    return best, which


def _nearest(similarity: Array, count: int) -> list[tuple[int, int]]:
    """Rows and columns of the ``count`` most similar per row, as far as they are similar at all."""
    count = min(count, similarity.shape[1])
    columns = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(similarity, columns, axis=1) >= LEAST_SIMILARITY
    return [(int(row), int(columns[row, rank])) for row, rank in np.argwhere(near)]


def _add(pairs: dict[tuple[int, int], int], first: int, second: int, orientation: int) -> None:
    """Note a pair, smaller position first; the inverse of a quarter turn is the other quarter turn."""
    if first < second:
        pairs.setdefault((int(first), int(second)), orientation)
    else:
        inverse = {5: 6, 6: 5}.get(orientation, orientation)
        pairs.setdefault((int(second), int(first)), inverse)
