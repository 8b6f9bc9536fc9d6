"""Supervised training of an injected network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from madgnet_bench.contracts import Context, Inferer, Prediction, SegmentationBatch, SegmentationLoss, SegmentationNetwork
from madgnet_bench.errors import TrainingError
from madgnet_bench.inference.whole_image import WholeImage
from madgnet_bench.metrics.case_table import CaseMeasures
from madgnet_bench.metrics.measures import pool_curves
from madgnet_bench.protocol import VALIDATION_MEASURES, Protocol
from madgnet_bench.records import EMPTY_CASES, CaseRow, CaseTable
from madgnet_bench.tasks.schedules import Schedule

__all__ = ["SegmentationTask", "SupervisedTask"]


class SegmentationTask(LightningModule):
    """Base of every task: how predictions are evaluated, whatever the training.

    A subclass implements ``training_step``. Validation and test apply the inferer, never the network directly, and keep one
    row per case and target, gathered over all processes once at the end; there is no collective inside the loops, since the
    processes may hold different numbers of batches.

    Args:
        network: What is trained.
        loss: Named, weighted terms.
        inferer: How the trained network is applied to cases; one pass over the whole image where not given.
        optimizer: From parameters to an optimiser; Adam at 1e-3 where not given.
        schedule: Learning-rate schedule over the optimiser steps of the whole training; constant where not given.
        protocol: Text of the protocol.
        seed: Seed of the random streams of training (dropout and the like), drawn from (seed, epoch, rank).
    """

    test_table: CaseTable
    """What the last test measured, complete; on every process."""

    def __init__(
        self,
        network: SegmentationNetwork,
        loss: SegmentationLoss,
        *,
        inferer: Inferer | None = None,
        optimizer: Callable[[Any], Optimizer] = torch.optim.Adam,
        schedule: Schedule | None = None,
        protocol: str = "madgnet",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.inferer = inferer or WholeImage()
        self.protocol = Protocol.parse(protocol)
        self.seed = seed
        self.test_table = CaseTable()
        self._optimizer = optimizer
        self._schedule = schedule
        self._validation = CaseMeasures(self.protocol, measures=VALIDATION_MEASURES)
        self._test = CaseMeasures(self.protocol, curves=True)

    @property
    def test_rows(self) -> Sequence[CaseRow]:
        """Rows of the last test."""
        return self.test_table.rows

    def context(self, batch: SegmentationBatch) -> Context | None:
        """What the network is told beside the image in training; a subclass adds prompts or domain labels."""
        return None

    def configure_optimizers(self) -> Any:
        """One optimiser over the trainable parameters, and the schedule."""
        optimizer = self._optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        if self._schedule is None:
            return optimizer
        scheduler = self._schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random stream, so that a resumed run repeats the undisturbed one; keep frozen parts in eval."""
        entropy = np.random.SeedSequence((self.seed, self.current_epoch, self.global_rank))
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        freeze_eval(self.network)

    def on_train_batch_end(self, outputs: Any, batch: SegmentationBatch, batch_idx: int) -> None:
        """Log the network's own scalars as the epoch leaves them."""
        if self.trainer.is_last_batch:
            scalars = {f"network/{name}": value.float() for name, value in self.network.scalars().items()}
            self.log_dict(scalars, on_step=False, on_epoch=True, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        """Empty the case table and let every process evaluate the same weights and statistics."""
        self._validation.reset()
        self._share_buffers()

    def on_test_epoch_start(self) -> None:
        """As before a validation."""
        self._test.reset()
        self._share_buffers()

    def validation_step(self, batch: SegmentationBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Prediction]:
        """Predict and measure one batch of a seen validation set."""
        prediction = self._infer(batch)
        self._measure(self._validation, prediction.probability, batch, dataset_index=dataloader_idx)
        return {"prediction": prediction}

    def test_step(self, batch: SegmentationBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Prediction]:
        """Predict and measure one batch of a test set, at the protocol's size."""
        prediction = self._infer(batch)
        if self.protocol.size == "native":
            self._measure_native(prediction.probability, batch, dataset_index=dataloader_idx)
        else:
            self._measure(self._test, prediction.probability, batch, dataset_index=dataloader_idx)
        return {"prediction": prediction}

    def predict_step(self, batch: SegmentationBatch, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """Predict one batch of images that have no reference."""
        return self._infer(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the mean of each measure over all cases and targets of the seen validation sets."""
        values = self._validation.compute().values
        if not len(values):
            return
        for name, value in zip(VALIDATION_MEASURES, values.mean(0).tolist(), strict=True):
            self.log(f"val/{name}", value, rank_zero_only=False, sync_dist=False)

    def on_test_epoch_end(self) -> None:
        """Name the gathered rows by their manifests, and make the measures that are no means over cases."""
        table = self._test.compute()
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = [
            self._row(datamodule.test_sets[index[0]], datamodule.targets[index[2]], index, values)
            for index, values in zip(table.places.tolist(), table.values.tolist(), strict=True)
        ]
        places: dict[tuple[str, str, str], list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault((row.setting, row.dataset, row.target), []).append(place)
        pooled = {
            cell: pool_curves({name: curve[chosen] for name, curve in table.curves.items()}, protocol=self.protocol)
            for cell, chosen in places.items()
        }
        self.test_table = CaseTable(rows, pooled, {name: curve.numpy() for name, curve in table.curves.items()})

    def _infer(self, batch: SegmentationBatch) -> Prediction:
        """Predict a batch; a subclass may tell the network more than the images."""
        return self._apply_inferer(self.network, batch)

    def _apply_inferer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Apply the inferer; with gradients where it adapts, since the trainer switches them off for every evaluation."""
        with torch.set_grad_enabled(self.inferer.adapts):
            prediction = self.inferer.infer(network, batch)
        uncertainty = prediction.uncertainty
        return Prediction(prediction.probability.detach(), uncertainty if uncertainty is None else uncertainty.detach())

    def _row(self, test_set: Any, target: str, index: list[int], values: list[float]) -> CaseRow:
        """Turn one numeric row into a named one."""
        source = test_set.cases.source
        case = source.manifest.cases[index[1]]
        return CaseRow(
            case_id=case.case_id,
            group_id=case.group_id,
            dataset=test_set.name,
            modality=source.card.modality,
            domain=case.domain,
            setting=test_set.setting,
            target=target,
            protocol=str(self.protocol),
            empty_case=EMPTY_CASES[index[3]],
            measures=dict(zip(self._test.measures, values, strict=True)),
        )

    def _measure(self, measures: CaseMeasures, probability: Tensor, batch: SegmentationBatch, *, dataset_index: int) -> None:
        """Measure a batch at the network's size."""
        sides = torch.tensor(batch.mask.shape[2:], device=batch.spacing.device)
        measures.update(
            probability,
            batch.mask,
            present=batch.target_present,
            case_index=batch.case_index,
            dataset_index=dataset_index,
            spacing=batch.spacing * batch.original_size / sides,
        )

    def _measure_native(self, probability: Tensor, batch: SegmentationBatch, *, dataset_index: int) -> None:
        """Measure case by case at the reference's own size."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        for position in range(len(batch)):
            one = slice(position, position + 1)
            mask = torch.from_numpy(datamodule.native_mask(dataset_index, int(batch.case_index[position])))
            resized = F.interpolate(probability[one], size=mask.shape[1:], mode="bilinear", align_corners=False)
            self._test.update(
                resized.clamp(0, 1),
                mask[None].to(resized.device),
                present=batch.target_present[one],
                case_index=batch.case_index[one],
                dataset_index=dataset_index,
                spacing=batch.spacing[one],
            )

    def _share_buffers(self) -> None:
        """Give every process the buffers of the first (batch-norm statistics); they differ between processes in training.

        During a fit every validation batch passes the trainer's wrapper, which would broadcast them again before the first
        batch: a collective inside the loop, for which a process without cases would not be there.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
            wrapper = self.trainer.strategy.model
            if isinstance(wrapper, DistributedDataParallel):
                wrapper.require_forward_param_sync = False


class SupervisedTask(SegmentationTask):
    """Trains a network on images and references with one loss; arguments as `SegmentationTask`.

    Example: see ``configs/demo/unet.yaml``.
    """

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """Sum the terms of the loss and log each.

        Raises:
            TrainingError: The loss is not finite.
        """
        output = self.network(batch.image, context=self.context(batch))
        terms = self.loss(output, batch)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise TrainingError(
                f"the training loss is not finite ({values}) in epoch {self.current_epoch + 1} on {', '.join(batch.case_id)}; "
                "lower the learning rate, or train in float32."
            )
        logged = {f"train/{name}": value.detach() for name, value in terms.items()} | {"train/loss": total.detach()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch), sync_dist=True)
        return total


def freeze_eval(module: nn.Module) -> None:
    """Put every submodule whose parameters are all frozen into eval mode, so that its statistics stay as they are."""
    for child in module.modules():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
