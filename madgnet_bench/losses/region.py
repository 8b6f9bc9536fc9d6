"""Losses of the region alone: how well the predicted area covers the reference.

Both supervise ``output.logits``, or, where a network in training returns auxiliary maps, the ``region`` map of every stage
(deep supervision, equal weights; the deepest stage is number 1). Terms are averaged over the present targets of a batch: a
target that a case's data set does not annotate counts nothing. Everything is computed in float32, whatever the network's
precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import SegmentationBatch, SegmentationLoss, SegmentationOutput

__all__ = ["DiceBCELoss", "RegionLoss", "StructureLoss", "mean_over_present", "region_maps"]


def region_maps(output: SegmentationOutput) -> dict[str, Tensor]:
    """Name the region logits to supervise.

    Returns:
        The logits under the empty name where there are no auxiliary maps; else each stage's region map under ``_1``
        (deepest), ``_2`` and so on: endings of the names of loss terms.
    """
    if not output.auxiliary:
        return {"": output.logits}
    return {f"_{stage}": maps["region"] for stage, maps in enumerate(output.auxiliary, start=1)}


def mean_over_present(values: Tensor, present: Tensor) -> Tensor:
    """Average over the annotated targets of a batch; zero, with zero gradients, where nothing is annotated.

    Args:
        values: (N, K) loss per case and target.
        present: (N, K) bool.
    """
    return torch.where(present, values, 0.0).sum() / present.sum().clamp(min=1)


class RegionLoss(SegmentationLoss):
    """Base of losses that compare every supervised region map with the mask, by case and target."""

    def compare(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare one map with the mask.

        Args:
            logits: (N, K, *spatial) float32.
            mask: (N, K, *spatial) float32 in {0, 1}.

        Returns:
            Weighted terms by name, each (N, K).
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement compare")  # abstract, as in nn.Module

    def forward(self, output: SegmentationOutput, batch: SegmentationBatch) -> dict[str, Tensor]:
        """Return one scalar per term and supervised map.

        Raises:
            ValueError: A map and the mask differ in shape.
        """
        mask = batch.mask.float()
        terms = {}
        for ending, logits in region_maps(output).items():
            if logits.shape != mask.shape:
                raise ValueError(
                    f"logits{ending} are {tuple(logits.shape)}, the mask is {tuple(mask.shape)}; "
                    "the network's num_targets must be the data's, and its output as large as its input"
                )
            for name, values in self.compare(logits.float(), mask).items():
                terms[name + ending] = mean_over_present(values, batch.target_present)
        return terms


class DiceBCELoss(RegionLoss):
    """Binary cross entropy plus soft Dice loss (Milletari et al., arXiv 1606.04797, with p instead of p squared).

    Per case and target: ``BCE`` averaged over pixels, and ``1 - (2 sum(p m) + s) / (sum(p) + sum(m) + s)``. Terms:
    ``region_bce``, ``region_dice``.

    Args:
        bce_weight: Factor of the cross entropy.
        dice_weight: Factor of the Dice loss.
        smoothing: s, in pixels; it makes an empty mask under an empty prediction cost nothing.
    """

    def __init__(self, bce_weight: float = 1.0, dice_weight: float = 1.0, *, smoothing: float = 1.0) -> None:
        super().__init__()
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.smoothing = smoothing

    def compare(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return ``region_bce`` and ``region_dice``, each (N, K)."""
        bce = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none").flatten(2).mean(dim=2)
        probability, mask = logits.sigmoid().flatten(2), mask.flatten(2)
        overlap = 2 * (probability * mask).sum(dim=2) + self.smoothing
        total = probability.sum(dim=2) + mask.sum(dim=2) + self.smoothing
        return {"region_bce": self.bce_weight * bce, "region_dice": self.dice_weight * (1 - overlap / total)}


class StructureLoss(RegionLoss):
    """Cross entropy plus IoU loss in which pixels near the boundary weigh up to six times as much.

    From F3Net (Wei, Wang, Huang, arXiv 1911.11445) by way of PraNet (arXiv 2006.11392). With the weight
    ``w = 1 + 5 |mean of the mask over 31x31 - mask|`` (zeros outside the image), per case and target:
    ``iou = 1 - (sum(w p m) + 1) / (sum(w (p + m - p m)) + 1)`` and ``bce``, either weighted likewise,
    ``sum(w BCE) / sum(w)``, or not. Terms: ``region_bce``, ``region_iou``.

    Args:
        weighted_bce: False (default), as in the released code of PraNet and MADGNet: there an argument makes the cross
            entropy a plain mean, so that only the IoU term is weighted. True: as the papers intend.
    """

    def __init__(self, *, weighted_bce: bool = False) -> None:
        super().__init__()
        self.weighted_bce = weighted_bce

    def compare(self, logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return ``region_bce`` and ``region_iou``, each (N, K)."""
        weight = _boundary_weight(mask).flatten(2)
        bce = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none").flatten(2)
        if self.weighted_bce:
            bce_term = (weight * bce).sum(dim=2) / weight.sum(dim=2)
        else:
            bce_term = bce.mean(dim=2)
        probability, mask = logits.sigmoid().flatten(2), mask.flatten(2)
        intersection = (weight * probability * mask).sum(dim=2)
        union = (weight * (probability + mask)).sum(dim=2) - intersection
        return {"region_bce": bce_term, "region_iou": 1 - (intersection + 1) / (union + 1)}


def _boundary_weight(mask: Tensor) -> Tensor:
    """Weigh pixels by the contrast of the mask with its mean over 31 pixels a side; (N, K, *spatial), from 1 to 6.

    The mean over a window is the mean along one axis after the other, which is much faster than one large window.
    """
    mean = mask
    for axis in range(2, mask.dim()):
        rows = mean.movedim(axis, -1)
        pooled = functional.avg_pool1d(rows.flatten(0, -2).unsqueeze(1), kernel_size=31, stride=1, padding=15)
        mean = pooled.view(rows.shape).movedim(-1, axis)
    return 1 + 5 * (mean - mask).abs()
