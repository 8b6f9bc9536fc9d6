"""The sub-decoders of MADGNet (arXiv 2405.06284): maps of region, distance and boundary that inform one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.layers.attention import Formulation

__all__ = ["EnsembleSubDecoder", "Supervision"]

Supervision = Literal["region", "parallel", "multi_task"]
"""What a sub-decoder predicts: the region alone, or region, distance and boundary, in parallel or each informing the others."""


class EnsembleSubDecoder(nn.Module):
    """E-SDM of one decoder stage, and what it is compared with.

    Forward stream, at the stage's resolution: region r, distance d gated by r, boundary b gated by d. Backward stream, at full
    resolution: b informs d, and d informs r.

    Released: ``d = conv(x) sigmoid(r)`` and ``b = conv(x) sigmoid(d)``, the gate multiplies the convolution's output, bias
    included; ``b' = up(b)``, ``d' = up(d) + sigmoid(b')``, ``r' = up(r) + sigmoid(d')``; ``up`` is bilinear with corners
    aligned. Paper (its figure): ``d = conv(x sigmoid(r))`` and ``b = conv(x sigmoid(d))``, the gate of each target multiplies
    the convolution's input; ``b' = up(b)``, ``d' = up(d) + b'``, ``r' = up(r) + d'``, the maps themselves are added; corners
    are not aligned. (The sums are taken in float32 or wider.)

    Two ablations have nothing between the maps, and keep the formulation's ``up`` alone: ``supervision="parallel"``, where
    each of the three maps is its convolution, upsampled (as many parameters as E-SDM; the loss must ask for all three, or two
    get no gradient), and ``supervision="region"``, where only the region's convolution exists.

    Args:
        channels: Channels of the stage's map.
        num_targets: Number of binary target channels, each with its own three maps.
        supervision: What is predicted; ``"multi_task"`` is E-SDM.
        formulation: The released code's, or the paper's.
    """

    def __init__(
        self,
        channels: int,
        num_targets: int,
        *,
        supervision: Supervision = "multi_task",
        formulation: Formulation = "released",
    ) -> None:
        super().__init__()
        self.supervision = supervision
        self.formulation = formulation
        self.output_map_conv = nn.Conv2d(channels, num_targets, kernel_size=1)
        if supervision != "region":
            self.output_distance_conv = nn.Conv2d(channels, num_targets, kernel_size=1)
            self.output_boundary_conv = nn.Conv2d(channels, num_targets, kernel_size=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
        """Predict the maps of a stage.

        Args:
            x: (N, C, h, w).
            size: Height and width of the maps to return.

        Returns:
            Logits (N, K, *size) of ``region``, and of ``distance`` and ``boundary`` unless the region alone is supervised.
        """
        region = self.output_map_conv(x)
        if self.supervision == "region":
            return {"region": self._upsample(region, size)}
        if self.supervision == "parallel":
            maps = {"region": region, "distance": self.output_distance_conv(x), "boundary": self.output_boundary_conv(x)}
            return {name: self._upsample(logits, size) for name, logits in maps.items()}
        if self.formulation == "paper":
            distance = _gated_input(self.output_distance_conv, x, region.sigmoid())
            boundary = _gated_input(self.output_boundary_conv, x, distance.sigmoid())
            wide = torch.promote_types(x.dtype, torch.float32)  # sums of float16 maps can leave its range
            boundary = self._upsample(boundary, size).to(wide)
            distance = self._upsample(distance, size).to(wide) + boundary
            region = self._upsample(region, size).to(wide) + distance
            return {"region": region, "distance": distance, "boundary": boundary}
        distance = self.output_distance_conv(x) * region.sigmoid()
        boundary = self.output_boundary_conv(x) * distance.sigmoid()
        boundary = self._upsample(boundary, size)
        distance = self._upsample(distance, size) + boundary.sigmoid()
        region = self._upsample(region, size) + distance.sigmoid()
        return {"region": region, "distance": distance, "boundary": boundary}

    def _upsample(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Resize bilinearly, with corners aligned in the released formulation."""
        aligned = self.formulation == "released"
        return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=aligned)


def _gated_input(conv: nn.Conv2d, x: Tensor, gate: Tensor) -> Tensor:
    """Convolve ``x`` times each target's gate (N, K, h, w): a 1x1 convolution lets the gate pass, its bias does not."""
    assert conv.bias is not None
    return functional.conv2d(x, conv.weight) * gate + conv.bias[:, None, None].to(gate.dtype)
