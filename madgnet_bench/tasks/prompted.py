"""Training and evaluation of networks that are told where to look, or whose frozen encoder is computed once."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from madgnet_bench.contracts import (
    Context,
    Embeddings,
    Inferer,
    Prediction,
    Prompts,
    SegmentationBatch,
    SegmentationLoss,
    SegmentationNetwork,
)
from madgnet_bench.errors import ConfigError
from madgnet_bench.inference.prompted import ToldNetwork
from madgnet_bench.layers.prompts import NoPrompts, PromptSource, TargetPrompt
from madgnet_bench.protocol import Protocol
from madgnet_bench.tasks.schedules import Schedule
from madgnet_bench.tasks.supervised import SupervisedTask

__all__ = ["PromptedTask"]


class PromptedTask(SupervisedTask):
    """Tells the network prompts that are drawn from the reference of each target, and where they come from in every result.

    The source becomes the field ``prompts`` of the protocol, so that each row names it. Inferers still see images only: they
    are given a network that has been told already (`ToldNetwork`).

    A network of which nothing is trained is only evaluated: the steps of its epochs move a number that nothing depends on.

    Args:
        network: What is trained or tested.
        loss: Named, weighted terms.
        prompts: Where prompts come from; nothing is told where not given.
        embeddings: Store for the outputs of the network's frozen encoder; computed in every step where not given. Only without
            augmentation, or with one of few variants.
        inferer: As in `SegmentationTask`; one that changes the images cannot be used.
        optimizer: As there.
        schedule: As there.
        protocol: As there; its ``prompts`` may be left out.
        seed: As there; with the source's own seed, it gives the prompts of training.

    Raises:
        ConfigError: The protocol names another source, or the network listens to none.
    """

    nothing: nn.Parameter | None
    """What the steps of an epoch move where nothing of the network is trained; the trainer, and several processes, need one."""

    def __init__(
        self,
        network: SegmentationNetwork,
        loss: SegmentationLoss,
        *,
        prompts: PromptSource | None = None,
        embeddings: Embeddings | None = None,
        inferer: Inferer | None = None,
        optimizer: Callable[[Any], Optimizer] = torch.optim.Adam,
        schedule: Schedule | None = None,
        protocol: str = "madgnet",
        seed: int = 0,
    ) -> None:
        self.prompts = prompts or NoPrompts()
        if not network.takes_prompts and not isinstance(self.prompts, NoPrompts):
            raise ConfigError(
                f"{network.label} listens to no prompts, and results would name prompts={self.prompts.name}; leave out "
                "model.prompts. A network of your own that listens says so by takes_prompts = True."
            )
        super().__init__(
            network,
            loss,
            inferer=inferer,
            optimizer=optimizer,
            schedule=schedule,
            protocol=_with_prompts(protocol, self.prompts),
            seed=seed,
        )
        self.embeddings = embeddings
        is_trained = any(parameter.requires_grad for parameter in network.parameters())
        self.register_parameter("nothing", None if is_trained else nn.Parameter(torch.zeros(())))

    def setup(self, stage: str) -> None:
        """Refuse to keep embeddings of images that never come again.

        Raises:
            ConfigError: The augmentation of the data has no few variants.
        """
        augmentation = getattr(self.trainer.datamodule, "augmentation", None)  # type: ignore[attr-defined]
        if stage == "fit" and self.embeddings is not None and augmentation is not None and augmentation.variants is None:
            raise ConfigError(
                f"embeddings are kept for images that come again, and {type(augmentation).__name__} never repeats one: leave "
                "out data.augmentation, choose one of few variants (FlipRotate with degrees: 0), or leave out model.embeddings."
            )

    def on_test_epoch_start(self) -> None:
        """As in `SegmentationTask`.

        Raises:
            ConfigError: The network learns from images shown to it, and has seen none.
        """
        super().on_test_epoch_start()
        if not getattr(self.network, "learned", True):
            raise ConfigError(f"{self.network.label} has learned from no image: train it with FewShotTask, then test that run.")

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> Tensor:
        """As in `SupervisedTask`; zero where nothing is trained."""
        return super().training_step(batch, batch_idx) if self.nothing is None else 0 * self.nothing

    def context(self, batch: SegmentationBatch) -> Context:
        """Draw prompts for one step of training; of a source of several rounds, a random number per case and target."""
        masks = _masks(batch)
        streams = [[self._stream(name, target, training=True) for target in range(len(masks[0]))] for name in _names(batch)]
        told = self._draw(masks, streams)
        embedding = self._embed(batch.image)
        rounds = [[int(stream.integers(1, self.prompts.rounds + 1)) for stream in row] for row in streams]
        last = max(map(max, rounds))
        for done in range(1, last):
            with torch.no_grad():
                logits = self.network(batch.image, context=self._tell(told, batch.image, embedding, rounds=done)).logits
            corrected = self._correct(told, masks, logits.float().sigmoid())
            told = [
                [new if done < wanted else old for new, old, wanted in zip(*row, strict=True)]
                for row in zip(corrected, told, rounds, strict=True)
            ]
        return self._tell(told, batch.image, embedding, rounds=last)

    def predict_step(self, batch: SegmentationBatch, batch_idx: int, dataloader_idx: int = 0) -> Prediction:
        """Predict images that have no reference.

        Raises:
            ConfigError: The prompts would come from the reference.
        """
        if self.protocol.oracle:
            raise ConfigError(
                f"prompts={self.prompts.name} are taken from references, which a folder of images does not have; set "
                "model.prompts to WholeImageBox or NoPrompts."
            )
        return super().predict_step(batch, batch_idx, dataloader_idx)

    def _infer(self, batch: SegmentationBatch) -> Prediction:
        """Draw the prompts of each case, and apply the inferer once per round."""
        masks = _masks(batch)
        streams = [[self._stream(name, target, training=False) for target in range(len(masks[0]))] for name in _names(batch)]
        told = self._draw(masks, streams)
        embedding = self._embed(batch.image)
        prediction = self._infer_told(batch, self._tell(told, batch.image, embedding, rounds=1))
        for done in range(1, self.prompts.rounds):
            told = self._correct(told, masks, prediction.probability)
            prediction = self._infer_told(batch, self._tell(told, batch.image, embedding, rounds=done + 1))
        return prediction

    def _infer_told(self, batch: SegmentationBatch, context: Context) -> Prediction:
        """Apply the inferer to a network that knows the context."""
        return self._apply_inferer(ToldNetwork(self.network, image=batch.image, context=context), batch)

    def _embed(self, image: Tensor) -> Tensor | None:
        """The images' embedding from the store, or from the network once for all rounds of an evaluation."""
        if self.embeddings is not None:
            return self.embeddings.embed(self.network, image)
        if getattr(self.network, "frozen_encoder", None) is not None:
            with torch.no_grad():
                embedding: Tensor = self.network.encode(image)  # type: ignore[operator]
            return embedding
        return None

    def _tell(self, told: list[list[TargetPrompt]], image: Tensor, embedding: Tensor | None, *, rounds: int) -> Context:
        """What the network is told after some rounds; places for the points of later rounds are cut off."""
        slots = rounds if self.prompts.rounds > 1 else None
        return Context(_stack(told, image, slots=slots), embedding=embedding)

    def _stream(self, name: str, target: int, *, training: bool) -> np.random.Generator:
        """The random stream of one target of one case."""
        moment = (1, self.seed, self.current_epoch) if training else (0,)
        return np.random.default_rng((self.prompts.seed, *moment, zlib.crc32(name.encode()), target))

    def _draw(self, masks: NDArray[np.bool_], streams: list[list[np.random.Generator]]) -> list[list[TargetPrompt]]:
        """The first prompts of every target of every case."""
        return [
            [self.prompts.draw(mask, stream=stream) for mask, stream in zip(*row, strict=True)]
            for row in zip(masks, streams, strict=True)
        ]

    def _correct(
        self, told: list[list[TargetPrompt]], masks: NDArray[np.bool_], probability: Tensor
    ) -> list[list[TargetPrompt]]:
        """The prompts after one more look at the predictions."""
        predicted = (probability >= self.protocol.threshold).cpu().numpy()
        return [
            [self.prompts.correct(*target) for target in zip(*row, strict=True)]
            for row in zip(told, masks, predicted, strict=True)
        ]


def _with_prompts(protocol: str, source: PromptSource) -> str:
    """The protocol with its source of prompts."""
    given = Protocol.parse(protocol)
    if given.prompts not in ("none", source.name):
        raise ConfigError(
            f"protocol {given} says prompts={given.prompts}, and the task draws prompts={source.name}; leave the field "
            "out of the protocol: the task adds it."
        )
    return str(Protocol.parse(str(dataclasses.replace(given, prompts=source.name))))


def _names(batch: SegmentationBatch) -> list[str]:
    """What tells every case from all others."""
    return [f"{dataset}/{case}" for dataset, case in zip(batch.dataset, batch.case_id, strict=True)]


def _masks(batch: SegmentationBatch) -> NDArray[np.bool_]:
    """The references (N, K, H, W)."""
    return (batch.mask >= 0.5).cpu().numpy()


def _stack(told: list[list[TargetPrompt]], like: Tensor, *, slots: int | None) -> Prompts | None:
    """The prompts of all targets as tensors beside the images, of points the first ``slots``; None where nothing is told."""
    first = told[0][0]

    def tensor(values: list[list[Any]]) -> Tensor:
        return torch.from_numpy(np.array(values)).to(like.device)

    points = labels = boxes = None
    if len(first.points):
        points = tensor([[target.points[:slots] for target in row] for row in told])
        labels = tensor([[target.labels[:slots] for target in row] for row in told])
    if first.box is not None:
        boxes = tensor([[target.box for target in row] for row in told])
    return None if points is None and boxes is None else Prompts(points=points, labels=labels, boxes=boxes)
