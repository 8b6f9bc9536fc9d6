"""UNet++: A Nested U-Net Architecture for Medical Image Segmentation.

Z. Zhou, M. M. R. Siddiquee, N. Tajbakhsh, J. Liang, DLMIA 2018, arXiv 1807.10165; extended in IEEE TMI 39, 2020,
arXiv 1912.05074.

Node (i, j) stands at level i, of 1/2^i of the sides, in column j. Column 0 is the encoder. Every other node convolves all
earlier nodes of its level and the upsampled node (i + 1, j - 1), so the nodes of level 0 are the outputs of U-Nets of growing
depth.

Changes from the paper:
    - Batch normalisation after every 3x3 convolution; no dropout.
    - Upsampling is bilinear (corners aligned) and has no parameters: 9,163,329 in all at 32..512, 36,629,633 at 64..1024. This
      is the network in common use.
    - Deep supervision is an option, off by default. Its heads are averaged as probabilities, and returned as the logit of that
      average. A trained network cannot be pruned to its shallower U-Nets.
    - Weights start as torch's layers do by default; the authors' code starts from He's values.
    - One sigmoid channel per target. Sides that the poolings cannot halve are padded inside and cropped back.

Changes from the released code: the authors' is for Keras, without batch normalisation, with dropout and transposed
convolutions; nothing of it is taken over. Beside the PyTorch code in common use (4uiiurz1/pytorch-nested-unet), which has the
same nodes: images of any size, widths are an argument, and heads are averaged, as in the paper, where it takes the last one
(``inference="last"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.contracts import SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.normalization import Normalization
from madgnet_bench.layers.padding import crop_to_size
from madgnet_bench.networks.unet import UNetFamily, double_conv

__all__ = ["HeadInference", "UNetPlusPlus"]

HeadInference = Literal["average", "last"]
"""What deep supervision predicts: the mean of all heads' probabilities, or the deepest U-Net's head alone."""


class UNetPlusPlus(UNetFamily):
    """UNet++, with or without deep supervision, for images of any size.

    With deep supervision the output in training mode has one auxiliary mapping per head, the deepest U-Net's first, the
    shallowest's last: the region losses supervise all of them alike; `losses.multi_task.MultiTaskLoss`, with the weights of
    distance and boundary at 0, weighs them one by one.

    Args:
        num_targets: Number of binary target channels.
        in_channels: Image channels; an image of one channel is repeated.
        widths: Channels per level, from full resolution down; each further level halves the resolution once more.
        deep_supervision: Give every node of level 0 but the first a head, and supervise all of them.
        inference: ``"average"`` (default) of all heads, or the ``"last"``; in effect with deep supervision only.
        normalization: ``"none"`` (default) passes images in [0, 1] as they are: the first convolution is followed by batch
            normalisation.
        return_features: Also return the encoder's map of every level.

    Raises:
        ConfigError: ``inference`` is unknown, or set without deep supervision.
        ValueError: There are fewer than two widths, or one is not positive.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        in_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        deep_supervision: bool = False,
        inference: HeadInference = "average",
        normalization: Normalization = "none",
        return_features: bool = False,
    ) -> None:
        if inference not in get_args(HeadInference):
            raise ConfigError(f"unknown inference {inference!r}; choose one of {', '.join(get_args(HeadInference))}.")
        if inference != "average" and not deep_supervision:
            raise ConfigError(
                f"inference: {inference} has no effect on a single head; set deep_supervision: true or leave it out."
            )
        super().__init__(
            num_targets,
            in_channels=in_channels,
            widths=widths,
            normalization=normalization,
            return_features=return_features,
            bias=True,
        )
        self.deep_supervision = deep_supervision
        self.inference = inference
        self.nested = nn.ModuleList()
        for column in range(1, len(widths)):
            pairs = zip(self.widths[:-column], self.widths[1:], strict=False)
            self.nested.append(nn.ModuleList(double_conv(column * width + deeper, width, bias=True) for width, deeper in pairs))
        heads = len(widths) - 1 if deep_supervision else 1
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], num_targets, kernel_size=1) for _ in range(heads))

    @property
    def label(self) -> str:
        """Name in tables, with the first and last width, and whether it is deeply supervised."""
        supervision = {"average": " deep", "last": " deep last-head"}[self.inference] if self.deep_supervision else ""
        return f"UNet++ {self.widths[0]}-{self.widths[-1]}{supervision}"

    def decode(self, embedding: Sequence[Tensor], size: Sequence[int]) -> SegmentationOutput:
        """Compute the other columns, and logits from level 0.

        Args:
            embedding: What `encode` returned.
            size: Height and width of the image.
        """
        levels = [[x] for x in embedding]
        for column in self.nested:
            assert isinstance(column, nn.ModuleList)
            below = [nodes[-1] for nodes in levels[1:]]  # of the column before
            for block, nodes, deeper in zip(column, levels, below, strict=False):
                nodes.append(block(torch.cat([*nodes, _upsample(deeper)], dim=1)))
        outputs = levels[0][1:] if self.deep_supervision else levels[0][-1:]
        maps = [crop_to_size(head(x), size) for head, x in zip(self.heads, outputs, strict=True)]
        return SegmentationOutput(
            logits=_average(maps) if self.inference == "average" else maps[-1],
            auxiliary=tuple({"region": logits} for logits in reversed(maps)) if self.training and self.deep_supervision else (),
            features=tuple(embedding) if self.return_features else (),
        )


def _upsample(x: Tensor) -> Tensor:
    """Twice the sides."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _average(maps: Sequence[Tensor]) -> Tensor:
    """Logit of the mean of the maps' probabilities, without leaving logarithms, so that it stays finite."""
    if len(maps) == 1:
        return maps[0]
    logits = torch.stack(list(maps))
    return functional.logsigmoid(logits).logsumexp(dim=0) - functional.logsigmoid(-logits).logsumexp(dim=0)
