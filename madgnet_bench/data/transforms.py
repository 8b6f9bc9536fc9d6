"""Resizing and augmentation of one case. The only file that knows albumentations and OpenCV.

Images are (H, W, C) uint8, masks (K, H, W) uint8 in {0, 1}.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Augmentation", "FlipRotate", "channels_first", "resize_image", "resize_mask"]

Bytes = NDArray[np.uint8]


def resize_image(image: Bytes, size: tuple[int, int]) -> Bytes:
    """Resize bilinearly, with antialiasing where it shrinks.

    Args:
        image: (H, W, C).
        size: Height and width of the result.
    """
    if image.shape[:2] == size:
        return image
    if image.shape[2] == 3:  # the same values as channel by channel, in half the time
        return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    channels = [Image.fromarray(image[..., c]).resize(size[::-1], Image.Resampling.BILINEAR) for c in range(image.shape[2])]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def resize_mask(mask: Bytes, size: tuple[int, int], *, resampling: Literal["bilinear", "nearest"]) -> Bytes:
    """Resize a binary mask: ``bilinear`` with antialiasing and then cut at 0.5, or ``nearest``.

    Args:
        mask: (K, H, W) in {0, 1}.
        size: Height and width of the result.
        resampling: A protocol's ``mask_resampling``.
    """
    if mask.shape[1:] == size:
        return mask
    method = Image.Resampling.BILINEAR if resampling == "bilinear" else Image.Resampling.NEAREST
    resized = [np.asarray(Image.fromarray(target.astype(np.float32)).resize(size[::-1], method)) for target in mask]
    return (np.stack(resized) >= 0.5).astype(np.uint8)


def channels_first(image: Bytes) -> Bytes:
    """Copy an (H, W, C) image to (C, H, W)."""
    planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
    cv2.split(image, list(planes))  # four times as fast as a transposed copy
    return planes


class Augmentation(ABC):
    """A random change of an image together with its mask; a pure function of its arguments."""

    variants: int | None = None
    """How many different results one case can have; None where they are too many to be met again."""

    @abstractmethod
    def __call__(self, image: Bytes, mask: Bytes, *, seed: int) -> tuple[Bytes, Bytes]:
        """Change one case.

        Args:
            image: (H, W, C).
            mask: (K, H, W) in {0, 1}.
            seed: Seed of every random choice made here.
        """


class FlipRotate(Augmentation):
    """Flips and a small rotation: what is known of the augmentation of MADGNet (arXiv 2405.06284).

    The paper names flips and rotation; probabilities and range are not stated anywhere found, so these are our choice.

    Args:
        horizontal: Probability of a left-right flip.
        vertical: Probability of an up-down flip.
        degrees: The rotation is uniform in plus or minus this many degrees; what it uncovers is mirrored.
    """

    def __init__(self, *, horizontal: float = 0.5, vertical: float = 0.5, degrees: float = 15.0) -> None:
        import albumentations  # seconds to import: paid by trainings only

        self.variants = 4 if degrees == 0 else None
        cv2.setNumThreads(0)  # processes, not threads, share the work; OpenCV's threads would not survive a fork
        self._compose = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=horizontal),
                albumentations.VerticalFlip(p=vertical),
                albumentations.Rotate(limit=(-degrees, degrees), border_mode=4, p=1.0 if degrees else 0.0),
            ]
        )

    def __call__(self, image: Bytes, mask: Bytes, *, seed: int) -> tuple[Bytes, Bytes]:
        """Flip and rotate one case; masks are resampled to the nearest pixel and stay binary."""
        # One stream for all: set_random_seed would start each transform's own from the same seed, and so tie them together.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        colour = image.shape[2] == 3
        given = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if colour else image  # OpenCV turns four channels faster than three
        changed = self._compose(image=given, mask=np.ascontiguousarray(mask.transpose(1, 2, 0)))
        turned, stacked = changed["image"], changed["mask"]
        image = cv2.cvtColor(turned, cv2.COLOR_RGBA2RGB) if colour else turned.reshape(*turned.shape[:2], -1)
        return image, stacked.reshape(*stacked.shape[:2], -1).transpose(2, 0, 1)
