"""Faults of one case: what makes an image or its reference unfit to train or to test on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

__all__ = ["EMPTY_MASK", "MISSING_TARGET", "SPECKS", "SPECK_PIXELS", "TINY_PIXELS", "Fault", "find_faults"]

TINY_PIXELS = 9
"""A target with some foreground, but fewer pixels, is tiny. The smallest target in ten public sets has 49."""

SPECK_PIXELS = 4
"""An object (pixels that touch, also at corners) with fewer pixels, beside larger ones, is a speck."""

EMPTY_MASK = "empty mask"
MISSING_TARGET = "target without foreground"
SPECKS = "specks in the mask"


@dataclass(frozen=True)
class Fault:
    """What is wrong with an image or its reference.

    Attributes:
        kind: A few words, the same for all faults of the kind.
        detail: What was found.
        fix: What the user can do about it.
        in_image: The fault is of the image's file, not of the mask's.
    """

    kind: str
    detail: str
    fix: str
    in_image: bool = False


def find_faults(image: NDArray[Any], mask: NDArray[Any], targets: tuple[str, ...]) -> list[Fault]:
    """Look at a decoded case.

    Args:
        image: (*spatial, C).
        mask: (K, *spatial).
        targets: Names of the K targets.
    """
    faults = _image_faults(image)
    if image.shape[:-1] != mask.shape[1:]:
        sizes = f"mask is {_size(mask.shape[1:])}, image is {_size(image.shape[:-1])}"
        return [*faults, Fault("mask of another size", sizes, "export the mask at the image's size")]
    top = mask.max(initial=0)
    if top > 1 or mask.min(initial=0) < 0:
        found = ", ".join(f"{value:g}" for value in np.unique(mask)[:6])
        return [*faults, Fault("mask not binary", f"holds the values {found}", "save it with 0 and 1, or 0 and 255")]
    if top == 0:
        fix = "draw the reference, or allow empty masks if healthy cases belong to the set"
        return [*faults, Fault(EMPTY_MASK, "no foreground in any target", fix)]
    for target, area in zip(targets, mask, strict=True):
        faults += _target_faults(target if len(targets) > 1 else "", area)
    return faults


def _image_faults(image: NDArray[Any]) -> list[Fault]:
    """Faults that the image alone shows."""
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        return [Fault("image with NaN", "holds NaN or infinite values", "export the image again without them", True)]
    if (image == image.flat[0]).all():
        return [Fault("constant image", f"every value is {image.flat[0]:g}", "copy or export the image again", True)]
    return []


def _target_faults(target: str, area: NDArray[Any]) -> list[Fault]:
    """Faults of one binary channel; ``target`` names it where there are several."""
    of = f"{target}: " if target else ""
    pixels = int(np.count_nonzero(area))
    if pixels == 0:
        return [Fault(MISSING_TARGET, f"{of}no foreground", "check that the target is absent in this case")]
    if pixels == area.size:
        return [Fault("full mask", f"{of}every pixel is foreground", "draw the reference again")]
    if pixels < TINY_PIXELS:
        return [Fault("tiny mask", f"{of}{pixels} foreground pixels", "draw the reference again, or remove the stray pixels")]
    objects, count = label(area, np.ones((3,) * area.ndim))
    sizes = np.bincount(objects.ravel(), minlength=count + 1)[1:]
    specks = int((sizes < SPECK_PIXELS).sum())
    if specks:
        plural = "s" if specks > 1 else ""
        detail = f"{of}{specks} object{plural} of fewer than {SPECK_PIXELS} pixels beside {count - specks} larger"
        return [Fault(SPECKS, detail, "remove stray pixels, unless they are meant")]
    return []


def _size(shape: tuple[int, ...]) -> str:
    """Write a size as width x height."""
    return " x ".join(str(side) for side in reversed(shape))
