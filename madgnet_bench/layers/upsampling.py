"""Upsampling, joining and convolving in the cheaper order."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["convolve_upsampled"]

_MANY_CHANNELS = 512
"""From so many upsampled channels on, mixing them before upsampling is faster (on a CPU, both are equal at about 250)."""


def convolve_upsampled(x: Tensor, skip: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Upsample a map bilinearly to the size of another, join both, and convolve.

    The two are convolved apart and added, so that they are never copied into one. Where the upsampled map has many channels,
    its part is computed the other way round: each of the nine taps mixes the channels at the low resolution, which commutes
    with upsampling; the nine results are upsampled, shifted and added. That is the same sum in another order, with a quarter of
    the multiplications when the sides double.

    Args:
        x: (N, C, h, w).
        skip: (N, D, H, W).
        convolution: From C + D channels, 3 x 3 with padding 1, stride 1 and no groups.

    Returns:
        What ``convolution(cat([upsampled x, skip]))`` is, up to rounding.
    """
    size, channels = skip.shape[2:], x.shape[1]
    weight = convolution.weight
    part = functional.conv2d(skip, weight[:, channels:], convolution.bias, padding=1)
    if channels < _MANY_CHANNELS:
        upsampled = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return part + functional.conv2d(upsampled, weight[:, :channels], padding=1)
    taps = weight[:, :channels].permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    mixed = functional.conv2d(x.flip(2, 3), taps).float()
    mixed = functional.interpolate(mixed, size=size, mode="bilinear", align_corners=False)
    shifted = functional.fold(mixed.flatten(2), size, kernel_size=3, padding=1)  # adds against the taps' order, hence the flips
    return part + shifted.flip(2, 3).to(part.dtype)
