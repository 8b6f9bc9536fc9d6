"""The loss of MADGNet's ensemble sub-decoders (arXiv 2405.06284): region, distance and boundary of every decoder stage.

What is known, and how:
    - The paper trains every stage on three tasks, region first, then distance, then boundary; the released network returns
      their maps. The training code was not released.
    - The region term: the released model file holds the structure loss, whose cross entropy is by a slip a plain mean.
    - Targets, the other terms and their weights were not found. They follow M3FPolypSegNet, released code of the same first
      author: distance is the mean squared error between a sigmoid and the scaled distance transform of the mask, boundary the
      cross entropy against its thresholded Sobel magnitude, all weights 1, summed over four scales at full size.

A finding: in the released sub-decoders a distance logit is a gated convolution plus a sigmoid. Where the region's gate is shut,
on the background, it cannot fall below 0, nor its sigmoid below 1/2, so the sibling's distance error has a floor there that no
training removes. ``distance_activation="identity"`` compares the map itself, which can reach the target.

Our choice: the exact distance transform (theirs is OpenCV's 5 x 5 approximation), the targets of full masks (`losses.targets`),
and averages by case and target, so that targets that a data set does not annotate count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import SegmentationBatch, SegmentationLoss, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.losses.region import StructureLoss, mean_over_present
from madgnet_bench.losses.targets import boundary_map, distance_map

__all__ = ["MultiTaskLoss"]


class MultiTaskLoss(SegmentationLoss):
    """Region, distance and boundary losses of every stage, the deepest being number 1.

    Terms of stage 2, with the default region loss: ``region_bce_2``, ``region_iou_2``, ``distance_2``, ``boundary_2``. Each is
    averaged over the present targets of the batch and multiplied by its task's weight and its stage's. A weight of 0 leaves its
    terms out; a stage left out leaves its sub-decoder without gradients. Everything is computed in float32.

    Args:
        region: Compares region logits with the mask: `StructureLoss` as released where not given,
            ``StructureLoss(weighted_bce=True)`` as its papers intend, or any other loss of logits.
        region_weight: Factor of the region terms.
        distance_weight: Factor of the mean squared error between the activated distance map and `distance_map`.
        boundary_weight: Factor of the cross entropy between the boundary map and `boundary_map`.
        stage_weights: Factor of each stage, deepest first.
        distance_activation: ``"sigmoid"``, as in the sibling's code, or ``"identity"``; see above.
        boundary_threshold: Least Sobel magnitude of a boundary pixel; see `boundary_map`.

    Raises:
        ConfigError: A weight is negative, all tasks or all stages weigh nothing, or the activation is unknown.

    Example: see ``configs/network/madgnet_multi_task.yaml``.
    """

    def __init__(
        self,
        *,
        region: SegmentationLoss | None = None,
        region_weight: float = 1.0,
        distance_weight: float = 1.0,
        boundary_weight: float = 1.0,
        stage_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        boundary_threshold: float = 0.5,
        distance_activation: Literal["sigmoid", "identity"] = "sigmoid",
    ) -> None:
        super().__init__()
        self.region = region or StructureLoss()
        self.task_weights = {"region": region_weight, "distance": distance_weight, "boundary": boundary_weight}
        self.stage_weights = tuple(stage_weights)
        self.boundary_threshold = boundary_threshold
        if distance_activation not in ("sigmoid", "identity"):
            raise ConfigError(f"distance_activation {distance_activation!r} is unknown; choose 'sigmoid' or 'identity'.")
        self.distance_activation = distance_activation
        for name, weights in (("task", tuple(self.task_weights.values())), ("stage", self.stage_weights)):
            if not all(weight >= 0 for weight in weights) or not any(weights):
                raise ConfigError(
                    f"the {name} weights of MultiTaskLoss are {weights}; they must not be negative, and one must be positive."
                )

    def forward(self, output: SegmentationOutput, batch: SegmentationBatch) -> dict[str, Tensor]:
        """Return one scalar per term and stage.

        Raises:
            ConfigError: The network does not return the maps that have a weight, or has another number of stages.
            ValueError: A map and the mask differ in shape.
        """
        self._check(output, batch)
        terms: dict[str, Tensor] = {}
        with torch.autocast(batch.mask.device.type, enabled=False):
            distance = distance_map(batch.mask) if self.task_weights["distance"] else None
            boundary = boundary_map(batch.mask, threshold=self.boundary_threshold) if self.task_weights["boundary"] else None
            for stage, (weight, maps) in enumerate(zip(self.stage_weights, output.auxiliary, strict=True), start=1):
                if not weight:
                    continue
                if self.task_weights["region"]:
                    for name, value in self.region(SegmentationOutput(maps["region"].float()), batch).items():
                        terms[f"{name}_{stage}"] = weight * self.task_weights["region"] * value
                if distance is not None:
                    depth = maps["distance"].float()
                    errors = ((depth.sigmoid() if self.distance_activation == "sigmoid" else depth) - distance).square()
                    terms[f"distance_{stage}"] = weight * self.task_weights["distance"] * _mean(errors, batch)
                if boundary is not None:
                    logits = maps["boundary"].float()
                    errors = functional.binary_cross_entropy_with_logits(logits, boundary, reduction="none")
                    terms[f"boundary_{stage}"] = weight * self.task_weights["boundary"] * _mean(errors, batch)
        return terms

    def _check(self, output: SegmentationOutput, batch: SegmentationBatch) -> None:
        """Refuse an output that lacks what the weights ask for."""
        if not output.auxiliary:
            raise ConfigError(
                "MultiTaskLoss needs the maps of every decoder stage, and the network returns none; "
                "choose one that has them, such as MADGNet with supervision: multi_task or parallel, or UNetPlusPlus with "
                "deep_supervision: true and the weights of distance and boundary at 0, or another loss. "
                "Networks return them in training mode only."
            )
        if len(output.auxiliary) != len(self.stage_weights):
            raise ConfigError(
                f"MultiTaskLoss has {len(self.stage_weights)} stage_weights, the network {len(output.auxiliary)} stages; "
                "give one weight per stage, deepest first."
            )
        needed = [task for task, weight in self.task_weights.items() if weight]
        for stage, maps in enumerate(output.auxiliary, start=1):
            missing = [task for task in needed if task not in maps]
            if missing:
                raise ConfigError(
                    f"MultiTaskLoss needs maps of {' and '.join(missing)}, and stage {stage} of the network has only "
                    f"{', '.join(maps)}; set the network's supervision: multi_task, or the loss's "
                    f"{' and '.join(f'{task}_weight' for task in missing)} to 0."
                )
            for task in needed:
                if maps[task].shape != batch.mask.shape:
                    raise ValueError(
                        f"{task} map {stage} is {tuple(maps[task].shape)}, the mask is {tuple(batch.mask.shape)}; "
                        "the network's num_targets must be the data's, and its maps as large as its input"
                    )


def _mean(errors: Tensor, batch: SegmentationBatch) -> Tensor:
    """Average errors (N, K, *spatial) over pixels, then over the annotated targets."""
    return mean_over_present(errors.flatten(2).mean(dim=2), batch.target_present)
