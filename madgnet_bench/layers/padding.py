"""Padding to sides that an encoder can halve, and cropping back: with it a network takes images of any size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

__all__ = ["crop_to_size", "pad_to_multiple"]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Extend every spatial side, at its end, to the next multiple; a side that is one already is left alone.

    A side is continued by its mirror image; where it is too short for that (the padding must be smaller than the side),
    its last row, column or slice is repeated.

    Args:
        image: (N, C, *spatial) of two or three spatial axes, each at least 1 long.
        multiple: At least 1.

    Raises:
        ValueError: A side is empty.
    """
    if 0 in image.shape[2:]:
        raise ValueError(f"an image of size {tuple(image.shape[2:])} has no pixels")
    axes = image.dim() - 2
    for axis in range(axes):
        side = image.shape[2 + axis]
        missing = -side % multiple
        if missing:
            amounts = [0] * (2 * axes)
            amounts[2 * (axes - 1 - axis) + 1] = missing
            image = functional.pad(image, amounts, mode="reflect" if missing < side else "replicate")
    return image


def crop_to_size(image: Tensor, size: Sequence[int]) -> Tensor:
    """Undo `pad_to_multiple`: keep the first ``size`` positions of every spatial axis.

    Args:
        image: (N, C, *spatial).
        size: One length per spatial axis, none longer than the image's.
    """
    for axis, side in enumerate(size, start=2):
        if image.shape[axis] != side:
            image = image.narrow(axis, 0, side)
    return image
