"""Attention U-Net: Learning Where to Look for the Pancreas.

O. Oktay, J. Schlemper, L. Le Folgoc, M. Lee, M. Heinrich, K. Misawa, K. Mori, S. McDonagh, N. Y. Hammerla, B. Kainz,
B. Glocker, D. Rueckert, MIDL 2018, arXiv 1804.03999.

This is the network that tables of 2D segmentation call Attention U-Net, with 34,878,573 parameters at 64..1024: a U-Net whose
skip connections are weighed, pixel by pixel, by an additive gate.

Changes from the paper:
    - 2D instead of 3D; five levels of twice the widths each.
    - The gate compares maps of one resolution: the signal is the decoder's map after its upsampling, at the skip's own level.
      The paper takes the signal one level coarser, and brings the skip down to it by strided convolutions.
    - Gates stand at all levels, the finest included; batch normalisation follows every convolution inside them.
    - Upsampling repeats pixels, then convolves. No deep supervision.
    - Weights start as torch's layers do by default; the authors' code starts from Kaiming's values.
    - One sigmoid channel per target. Sides that the poolings cannot halve are padded inside and cropped back.

Changes from the released code: the authors' is 3D, with the paper's gates followed by a convolution, and four levels of deep
supervision merged inside; nothing of it is taken over. Beside the 2D code in common use (LeeJunHyun/Image_Segmentation), whose
structure this follows: images of any size, and widths are an argument.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.contracts import SegmentationOutput
from madgnet_bench.layers.normalization import Normalization
from madgnet_bench.layers.padding import crop_to_size
from madgnet_bench.networks.unet import UNetFamily, double_conv

__all__ = ["AttentionGate", "AttentionUNet"]


class AttentionGate(nn.Module):
    """Weighs a skip connection by how well it agrees with what the decoder is looking at.

    ``sigmoid(psi(relu(signal' + skip')))``, with 1x1 convolutions and batch normalisation: both maps are brought to ``inner``
    channels, and their sum to one, which weighs all channels of the skip alike.

    Args:
        channels: Channels of the skip, and of the signal.
        inner: Channels of the comparison; half of ``channels`` by default.
    """

    def __init__(self, channels: int, *, inner: int | None = None) -> None:
        super().__init__()
        inner = max(1, channels // 2) if inner is None else inner
        self.signal = _pointwise(channels, inner)
        self.skip = _pointwise(channels, inner)
        self.psi = _pointwise(inner, 1)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Return the skip (N, C, h, w), weighed; the signal has its shape."""
        attention = self.psi(functional.relu(self.signal(signal) + self.skip(skip))).sigmoid()
        return skip * attention


class AttentionUNet(UNetFamily):
    """Attention U-Net with gates at every level, for images of any size.

    Args:
        num_targets: Number of binary target channels.
        in_channels: Image channels; an image of one channel is repeated.
        widths: Channels per level, from full resolution down; each further level halves the resolution once more.
        normalization: ``"none"`` (default) passes images in [0, 1] as they are: the first convolution is followed by batch
            normalisation.
        return_features: Also return the encoder's map of every level.

    Raises:
        ValueError: There are fewer than two widths, or one is not positive.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        normalization: Normalization = "none",
        return_features: bool = False,
    ) -> None:
        super().__init__(
            num_targets,
            in_channels=in_channels,
            widths=widths,
            normalization=normalization,
            return_features=return_features,
            bias=True,
        )
        pairs = list(itertools.pairwise(self.widths[::-1]))
        self.up = nn.ModuleList(_up_convolution(deep, shallow) for deep, shallow in pairs)
        self.gate = nn.ModuleList(AttentionGate(shallow) for _, shallow in pairs)
        self.merge = nn.ModuleList(double_conv(2 * shallow, shallow, bias=True) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], num_targets, kernel_size=1)

    @property
    def label(self) -> str:
        """Name in tables, with the first and last width."""
        return f"AttentionUNet {self.widths[0]}-{self.widths[-1]}"

    def decode(self, embedding: Sequence[Tensor], size: Sequence[int]) -> SegmentationOutput:
        """Turn the maps of `encode` into logits.

        Args:
            embedding: What `encode` returned.
            size: Height and width of the image.
        """
        *skips, x = embedding
        for up, gate, merge, skip in zip(self.up, self.gate, self.merge, reversed(skips), strict=True):
            signal = up(x)
            x = merge(torch.cat([gate(skip, signal), signal], dim=1))
        logits = crop_to_size(self.head(x), size)
        return SegmentationOutput(logits, features=tuple(embedding) if self.return_features else ())


def _up_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice the sides by repeating pixels, then a 3x3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution and batch normalisation."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.BatchNorm2d(out_channels))
