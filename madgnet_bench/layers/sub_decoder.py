"""The sub-decoders of MADGNet (arXiv 2405.06284): maps of region, distance and boundary that inform one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["EnsembleSubDecoder", "Supervision"]

Supervision = Literal["region", "multi_task"]
"""What a sub-decoder predicts: the region alone, or region, distance and boundary."""


class EnsembleSubDecoder(nn.Module):
    """E-SDM of one decoder stage.

    Forward stream, at the stage's resolution: region r, distance ``d = conv(x) sigmoid(r)``, boundary
    ``b = conv(x) sigmoid(d)``. Backward stream, at full resolution (bilinear, corners aligned): ``b' = up(b)``,
    ``d' = up(d) + sigmoid(b')``, ``r' = up(r) + sigmoid(d')``. As in the released code the gate multiplies the convolution's
    output (bias included), and sigmoids are added where the paper's figure adds the maps themselves.

    With ``supervision="region"`` only ``r' = up(r)`` is left, and only its convolution exists, so that every parameter has a
    gradient.

    Args:
        channels: Channels of the stage's map.
        num_targets: Number of binary target channels, each with its own three maps.
        supervision: What is predicted.
    """

    def __init__(self, channels: int, num_targets: int, *, supervision: Supervision = "multi_task") -> None:
        super().__init__()
        self.supervision = supervision
        self.output_map_conv = nn.Conv2d(channels, num_targets, kernel_size=1)
        if supervision == "multi_task":
            self.output_distance_conv = nn.Conv2d(channels, num_targets, kernel_size=1)
            self.output_boundary_conv = nn.Conv2d(channels, num_targets, kernel_size=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> dict[str, Tensor]:
        """Predict the maps of a stage.

        Args:
            x: (N, C, h, w).
            size: Height and width of the maps to return.

        Returns:
            Logits (N, K, *size) of ``region``, and of ``distance`` and ``boundary`` in multi-task supervision.
        """
        region = self.output_map_conv(x)
        if self.supervision == "region":
            return {"region": _upsample(region, size)}
        distance = self.output_distance_conv(x) * region.sigmoid()
        boundary = self.output_boundary_conv(x) * distance.sigmoid()
        boundary = _upsample(boundary, size)
        distance = _upsample(distance, size) + boundary.sigmoid()
        region = _upsample(region, size) + distance.sigmoid()
        return {"region": region, "distance": distance, "boundary": boundary}


def _upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly with aligned corners."""
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
