"""U-Net: Convolutional Networks for Biomedical Image Segmentation.

O. Ronneberger, P. Fischer, T. Brox, MICCAI 2015, arXiv 1505.04597.

Changes from the paper:
    - Padded convolutions, so that the output has the size of the input; no overlap tiles.
    - Batch normalisation after every 3x3 convolution (which then has no bias); no dropout at the end of the encoder.
    - One sigmoid channel per target instead of a softmax over classes.
    - Weights start as torch's layers do by default; the paper draws them with a deviation of sqrt(2 / inputs).
    - Sides that the four poolings cannot halve are padded inside and cropped back.

Changes from the released code: none taken over. The paper's code is for Caffe; this is written from the paper, with the
changes above, which are those of the PyTorch versions in common use (31,037,633 parameters at 64..1024).
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.contracts import Context, SegmentationNetwork, SegmentationOutput
from madgnet_bench.layers.normalization import Normalization, input_normalization
from madgnet_bench.layers.padding import crop_to_size, pad_to_multiple

__all__ = ["UNet", "UNetFamily", "double_conv"]


class UNetFamily(SegmentationNetwork):
    """Base of U-Net and its relatives: an encoder of two convolutions per level, and logits decoded from all its maps.

    Args:
        num_targets: Number of binary target channels.
        in_channels: Image channels; an image of one channel is repeated.
        widths: Channels per level, from full resolution down; each further level halves the resolution once more.
        normalization: How images in [0, 1] are normalised.
        return_features: Also return the encoder's map of every level.
        bias: As of `double_conv`.

    Raises:
        ValueError: There are fewer than two widths, or one is not positive.
    """

    def __init__(
        self,
        num_targets: int,
        *,
        in_channels: int,
        widths: Sequence[int],
        normalization: Normalization,
        return_features: bool,
        bias: bool,
    ) -> None:
        super().__init__(num_targets)
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"widths must be at least two positive numbers, not {list(widths)}")
        self.widths = tuple(widths)
        self.return_features = return_features
        self.normalize = input_normalization(normalization, in_channels)
        self.down = nn.ModuleList(
            double_conv(inner, outer, bias=bias) for inner, outer in zip((in_channels, *widths), widths, strict=False)
        )

    @abstractmethod
    def decode(self, embedding: Sequence[Tensor], size: Sequence[int]) -> SegmentationOutput:
        """Turn the maps of `encode` into logits.

        Args:
            embedding: What `encode` returned.
            size: Height and width of the image.
        """

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of all levels, with 2x2 max pooling between.

        Args:
            image: (N, C, H, W) in [0, 1].

        Returns:
            One map per width, deepest last; sides are those of the image padded to a multiple of 2^(levels - 1), halved
            once per level.
        """
        x = pad_to_multiple(self.normalize(image), 2 ** (len(self.down) - 1))
        features = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            features.append(x)
        return tuple(features)

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1]; the context is ignored."""
        return self.decode(self.encode(image), image.shape[2:])


class UNet(UNetFamily):
    """U-Net with batch normalisation, for images of any size.

    Args:
        num_targets: Number of binary target channels.
        in_channels: Image channels; an image of one channel is repeated.
        widths: Channels per level, from full resolution down; each further level halves the resolution once more.
        normalization: ``"none"`` (default) passes images in [0, 1] as they are: the first convolution is followed by batch
            normalisation, which absorbs any fixed scale and offset except at the zero-padded border.
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
            bias=False,
        )
        pairs = list(itertools.pairwise(self.widths[::-1]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, kernel_size=2, stride=2) for deep, shallow in pairs)
        self.merge = nn.ModuleList(double_conv(2 * shallow, shallow) for _, shallow in pairs)
        self.head = nn.Conv2d(widths[0], num_targets, kernel_size=1)

    @property
    def label(self) -> str:
        """Name in tables, with the first and last width."""
        return f"UNet {self.widths[0]}-{self.widths[-1]}"

    def decode(self, embedding: Sequence[Tensor], size: Sequence[int]) -> SegmentationOutput:
        """See `UNetFamily`."""
        *skips, x = embedding
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        logits = crop_to_size(self.head(x), size)
        return SegmentationOutput(logits, features=tuple(embedding) if self.return_features else ())


def double_conv(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by batch normalisation and ReLU.

    Args:
        in_channels: Channels of its input.
        out_channels: Channels of its output, and between the convolutions.
        bias: Give the convolutions a bias, which batch normalisation subtracts again, as networks in common use have it.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
