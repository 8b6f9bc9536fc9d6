"""Small pictures of cases for people to look at: outlines and error colours on an image. No torch.

Images are (H, W, C) uint8 with one or three channels, masks (K, H, W) in {0, 1}.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

__all__ = ["KINDS", "PARTS", "case_panel", "draw_outlines", "error_overlay", "target_colours", "to_rgb"]

PARTS = ("image", "reference", "prediction", "errors")
"""What a panel of a case shows, from left to right."""

KINDS = ("worst", "median", "best")
"""Which tested cases a gallery shows."""

_PALETTE = ((86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167), (230, 159, 0), (213, 94, 0), (0, 114, 178))
"""Told apart by colour-blind readers too (the palette of Okabe and Ito)."""

_AGREED, _MISSED, _FALSE = (60, 200, 255), (255, 60, 140), (255, 210, 0)


def target_colours(count: int) -> list[tuple[int, int, int]]:
    """Outline colour of each target, in order; seven, then repeated."""
    return [_PALETTE[index % len(_PALETTE)] for index in range(count)]


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a single channel to three; a copy."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()


def draw_outlines(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the inner border of each target in its colour: one pixel wide, two on images from 256 pixels."""
    drawn = to_rgb(image)
    thickness = 1 if max(image.shape[:2]) < 256 else 2
    for target, colour in zip(mask.astype(bool), target_colours(len(mask)), strict=True):
        drawn[target & ~binary_erosion(target, iterations=thickness)] = colour
    return drawn


def error_overlay(image: NDArray[np.uint8], prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint agreement blue, missed foreground pink and false foreground yellow, targets united."""
    predicted, referred = prediction.astype(bool).any(0), reference.astype(bool).any(0)
    drawn = to_rgb(image).astype(np.float32)
    for area, colour in ((predicted & referred, _AGREED), (referred & ~predicted, _MISSED), (predicted & ~referred, _FALSE)):
        drawn[area] = 0.5 * drawn[area] + 0.5 * np.array(colour, np.float32)
    return drawn.round().astype(np.uint8)


def case_panel(image: NDArray[np.uint8], prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay `PARTS` side by side: image, outline of the reference, outline of the prediction, and errors.

    Returns:
        (H, 4 W, 3) uint8. As PNG it is little larger than the image alone: the parts share most of their rows.
    """
    parts = (to_rgb(image), draw_outlines(image, reference), draw_outlines(image, prediction))
    return np.concatenate([*parts, error_overlay(image, prediction, reference)], axis=1)
