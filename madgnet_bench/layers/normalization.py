"""What a network does to an image before its first convolution: the channel rule, then mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from madgnet_bench.errors import ConfigError, InputError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "InputNormalization", "Normalization", "input_normalization"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of the ImageNet training images per channel (red, green, blue), in [0, 1]."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of the ImageNet training images per channel, in [0, 1]."""

Normalization = Literal["none", "imagenet"]
"""Choices of a network: images in [0, 1] as they are, or less ImageNet's mean and over its standard deviation."""


class InputNormalization(nn.Module):
    """Bring an image in [0, 1] to what a network expects; every network owns one.

    The channel rule: an image of one channel is repeated to ``in_channels``; any other number but ``in_channels`` is an
    error. Mean and standard deviation are constants of the configuration, so they stay out of the state dict.

    Args:
        in_channels: Channels of the network's first layer.
        mean: One value per channel, or a single value for all.
        std: One positive value per channel, or a single value for all.

    Raises:
        ConfigError: ``in_channels`` is below 1.
        ValueError: There are neither one nor ``in_channels`` values, or a standard deviation is not positive.

    >>> InputNormalization(3, mean=[0.5], std=[0.25])(torch.ones(1, 1, 2, 2)).unique().tolist()
    [2.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int = 3, *, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if in_channels < 1:
            raise ConfigError(f"in_channels must be at least 1, not {in_channels}.")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, in_channels):
                raise ValueError(f"{name} has {len(values)} values for {in_channels} channels; give 1 or {in_channels}")
        if min(std) <= 0:
            raise ValueError(f"std must be positive, not {list(std)}")
        self.in_channels = in_channels
        self.identity = set(mean) == {0.0} and set(std) == {1.0}
        self.register_buffer("mean", torch.tensor(list(mean) * (in_channels // len(mean))), persistent=False)
        self.register_buffer("std", torch.tensor(list(std) * (in_channels // len(std))), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise a batch.

        Args:
            image: (N, C, *spatial), C is 1 or ``in_channels``.

        Returns:
            (N, in_channels, *spatial).

        Raises:
            InputError: The number of channels does not fit.
        """
        channels = image.shape[1]
        if channels != self.in_channels:
            if channels != 1:
                also = "" if self.in_channels == 1 else " (or 1, which is repeated)"
                raise InputError(
                    f"the image has {channels} channels, the network takes {self.in_channels}{also}; "
                    f"convert the images, or build the network with in_channels={channels} where it has that argument"
                )
            image = image.expand(-1, self.in_channels, *image.shape[2:])
        if self.identity:
            return image
        shape = (1, -1, *(1,) * (image.dim() - 2))
        return (image - self.mean.view(shape)) / self.std.view(shape)

    def extra_repr(self) -> str:
        """Show the constants when printed."""
        return f"{self.in_channels}, mean={self.mean.tolist()}, std={self.std.tolist()}"


def input_normalization(name: Normalization, in_channels: int = 3) -> InputNormalization:
    """Build the input normalisation of a configuration.

    Args:
        name: ``"none"`` or ``"imagenet"``; the latter is for three channels.
        in_channels: Channels of the network's first layer.

    Raises:
        ValueError: The name is unknown, or ``"imagenet"`` meets another number of channels.
    """
    if name == "none":
        return InputNormalization(in_channels)
    if name == "imagenet":
        return InputNormalization(in_channels, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    raise ValueError(f"unknown normalization {name!r}; choose 'none' or 'imagenet'")
