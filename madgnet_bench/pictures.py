"""Small pictures of cases for people to look at: outlines and error colours on an image. No torch.

Images are (H, W, C) uint8 with one or three channels, masks (K, H, W) in {0, 1}.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

__all__ = ["TARGET_COLOURS", "draw_outlines", "error_overlay", "to_rgb"]

TARGET_COLOURS = ((255, 176, 0), (0, 190, 255), (220, 38, 127), (100, 255, 100), (254, 97, 0), (120, 94, 240))
"""Outline colour by target, told apart by colour-blind readers too; repeated beyond six."""

_AGREED, _MISSED, _FALSE = (60, 200, 255), (255, 60, 140), (255, 210, 0)


def to_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a single channel to three; a copy."""
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()


def draw_outlines(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the inner border of each target in its colour, one pixel wide."""
    drawn = to_rgb(image)
    for target, colour in zip(mask.astype(bool), _cycle(len(mask)), strict=True):
        drawn[target & ~binary_erosion(target, border_value=0)] = colour
    return drawn


def error_overlay(image: NDArray[np.uint8], prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint agreement blue, missed foreground pink and false foreground yellow, targets united."""
    predicted, referred = prediction.astype(bool).any(0), reference.astype(bool).any(0)
    drawn = to_rgb(image).astype(np.float32)
    for area, colour in ((predicted & referred, _AGREED), (referred & ~predicted, _MISSED), (predicted & ~referred, _FALSE)):
        drawn[area] = 0.5 * drawn[area] + 0.5 * np.array(colour, np.float32)
    return drawn.round().astype(np.uint8)


def _cycle(count: int) -> list[tuple[int, int, int]]:
    """The first colours, repeated where there are more targets than colours."""
    return [TARGET_COLOURS[index % len(TARGET_COLOURS)] for index in range(count)]
