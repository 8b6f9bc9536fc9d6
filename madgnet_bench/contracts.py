"""The types that pass from room to room: what the data yields, what a network takes and gives, what an inferer returns.

Sizes: N cases, C image channels, K targets, ``*spatial`` is (H, W) or (D, H, W).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

__all__ = [
    "Context",
    "Embeddings",
    "Inferer",
    "Prediction",
    "Prompts",
    "SegmentationBatch",
    "SegmentationLoss",
    "SegmentationNetwork",
    "SegmentationOutput",
]


@dataclass
class SegmentationBatch:
    """One or several cases, of one or several domains. A data set's item is a batch of one.

    Attributes:
        image: (N, C, *spatial) float32 in [0, 1], not normalised: each network owns its normalisation and channel rule.
        mask: (N, K, *spatial) float32 in {0, 1}, one binary channel per target, possibly nested.
        target_present: (N, K) bool, False where the set does not annotate that target (its mask is zeros then).
        domain_index: (N,) long, position of the case's domain among the training domains; -1 for an unseen domain.
        case_index: (N,) long, row of the case in its data set's manifest.
        spacing: (N, len(spatial)) float32, millimetres per pixel or voxel of the original; 1 where unknown.
        original_size: (N, len(spatial)) long, size of the original reference.
        case_id: Identifier of each case in its manifest.
        group_id: Patient, video or volume that a case belongs to.
        dataset: Name of each case's data set.
        modality: Imaging modality of each case.
        domain: Domain of each case.
    """

    image: Tensor
    mask: Tensor
    target_present: Tensor
    domain_index: Tensor
    case_index: Tensor
    spacing: Tensor
    original_size: Tensor
    case_id: list[str]
    group_id: list[str]
    dataset: list[str]
    modality: list[str]
    domain: list[str]

    def __len__(self) -> int:
        return len(self.case_id)

    @classmethod
    def collate(cls, batches: Sequence[Self]) -> Self:
        """Join batches of equal image size along N; where some images have one channel, it is repeated to the others' number.

        Raises:
            ValueError: The batches differ in channels (other than one), targets or size; the message names the cases.
        """
        channels = max(batch.image.shape[1] for batch in batches)
        images = [b.image.expand(-1, channels, *b.image.shape[2:]) if b.image.shape[1] == 1 else b.image for b in batches]
        shapes = {(tuple(i.shape[1:]), tuple(b.mask.shape[1:])) for i, b in zip(images, batches, strict=True)}
        if len(shapes) > 1:
            cases = ", ".join(f"{b.dataset[0]}:{b.case_id[0]} {tuple(b.image.shape[1:])}" for b in batches)
            raise ValueError(f"cases of different shapes cannot share a batch: {cases}")
        values: dict[str, Any] = {}
        for field in fields(cls):
            parts = images if field.name == "image" else [getattr(batch, field.name) for batch in batches]
            is_tensor = isinstance(parts[0], Tensor)
            values[field.name] = torch.cat(parts) if is_tensor else [item for part in parts for item in part]
        return cls(**values)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Move every tensor to ``device``; page-locked ones go without the processor waiting for them."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking or tensor.is_pinned()))

    def pin_memory(self) -> Self:
        """Copy every tensor to page-locked memory, for faster transfer to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        return type(self)(**(values | moved))


class Prompts(NamedTuple):
    """What a promptable network is told about each target of each case, in pixels of the network's input.

    Pixel centres have whole coordinates: places go from (0, 0) to (W - 1, H - 1). A target with neither point nor box nor mask
    was shown nothing, and its prediction is empty.

    Attributes:
        points: (N, K, P, 2) float32, x then y.
        labels: (N, K, P) long: 1 foreground, 0 background, -1 padding.
        boxes: (N, K, 4) float32: left, top, right, bottom; NaN where a target has none.
        mask: (N, K, h, w) float32 logits of a coarse mask that covers the image.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    mask: Tensor | None = None


class Context(NamedTuple):
    """What a network may be told beside the image.

    Attributes:
        prompts: Points, boxes or a coarse mask.
        domain_index: (N,) long domain labels of the cases.
        embedding: Cached output of the network's own ``encode`` for these images.
    """

    prompts: Prompts | None = None
    domain_index: Tensor | None = None
    embedding: object | None = None


class Embeddings(ABC):
    """Where embeddings come from instead of a network's `encode`: a store of what a frozen encoder has computed before."""

    @abstractmethod
    def embed(self, network: SegmentationNetwork, image: Tensor) -> Tensor:
        """The network's embedding of images (N, C, H, W).

        Raises:
            ConfigError: The network has no frozen encoder.
        """


class SegmentationOutput(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (N, K, *spatial) at the size of the input; a probability is the sigmoid.
        auxiliary: In training mode, one mapping per supervised stage, deepest first, from ``region``, ``distance`` or
            ``boundary`` to a map of logits at the size of the input; empty otherwise.
        features: Feature maps, deepest last, where the network was built with ``return_features``.
    """

    logits: Tensor
    auxiliary: tuple[Mapping[str, Tensor], ...] = ()
    features: tuple[Tensor, ...] = ()


class SegmentationNetwork(nn.Module):
    """Base of every network of the suite.

    A subclass takes ``num_targets`` as its first argument and implements `forward`. Arguments named ``pretrained``,
    ``encoder_checkpoint`` and ``checkpoint`` set initial values only; ``checkpoint`` names weights of the whole network, with
    which it counts as trained. A network with a separable encoder
    also has ``encode(image)`` and ``decode(embedding, ...)``, and its forward is their composition.

    Args:
        num_targets: Number of binary target channels K, at least 1.

    Attributes:
        takes_prompts: True where the network listens to ``Context.prompts``; others are never told any.
        encoding: What, beside its weights and its code, decides what ``encode`` makes of an image, such as an input size.
    """

    takes_prompts: bool = False
    encoding: str = ""

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        if num_targets < 1:
            raise ValueError(f"num_targets must be at least 1, not {num_targets}")
        self.num_targets = num_targets

    @property
    def label(self) -> str:
        """Name of this configuration in tables; a subclass adds what makes it another row (widths, encoder)."""
        return type(self).__name__

    def scalars(self) -> dict[str, Tensor]:
        """Single learned numbers worth watching, by name, which the task logs after each epoch; a subclass may have some."""
        return {}

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment a batch of images.

        Args:
            image: (N, C, *spatial) float in [0, 1], any side lengths.
            context: Prompts, domain labels or a cached embedding; automatic networks ignore it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")  # abstract, as in nn.Module


class Prediction(NamedTuple):
    """What an inferer returns; all that metrics, ``predict`` and run folders ever see of a network.

    Attributes:
        probability: (N, K, *spatial) float32 in [0, 1], at the size of the input.
        uncertainty: (N, K, *spatial) float32, not negative, or None; its unit is the inferer's to state.
    """

    probability: Tensor
    uncertainty: Tensor | None = None


class Inferer(ABC):
    """How a trained network is applied to cases. Inferers use the images of a batch, never its masks.

    Attributes:
        adapts: True where inference changes the network's parameters or needs gradients (test-time adaptation); the trainer
            then runs without inference mode.
    """

    adapts: bool = False

    @abstractmethod
    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        """Predict every case of the batch."""


class SegmentationLoss(nn.Module):
    """Base of every loss: named, already weighted terms; the task sums and logs them."""

    def forward(self, output: SegmentationOutput, batch: SegmentationBatch) -> dict[str, Tensor]:
        """Return the terms of the loss as scalars by name."""
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")  # abstract, as in nn.Module
