"""Torch data sets: a case becomes a batch of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.samplers import Draw, side_at_rate
from madgnet_bench.data.transforms import Augmentation, resize_image, resize_mask

__all__ = ["CaseDataset", "JoinedDataset"]


class CaseDataset(Dataset[SegmentationBatch]):
    """Some cases of one data set at one size.

    Decoded and resized cases are kept in memory (uint8) up to a limit; augmentation comes after, from the random stream
    (seed, epoch, case, repeat) of the draw, so that a resumed run sees what an undisturbed one does. A draw at another rate
    than 1 is resized last, after augmentation, as in PraNet's multi-scale training (arXiv 2006.11392); unlike there, shrinking
    antialiases and the mask follows ``mask_resampling``, so that it stays binary.

    Args:
        source: The data set.
        rows: Rows of its manifest.
        size: Side in pixels to which image and mask are brought.
        targets: Names of the experiment's targets; the mask has one channel for each.
        domain_index: Index of this data set among the training domains, -1 where it is not one of them.
        mask_resampling: A protocol's ``mask_resampling``.
        augmentation: Applied to draws (training) and never to plain positions (evaluation).
        seed: Seed of the experiment.
        memory_mb: Megabytes of decoded cases to keep.
    """

    def __init__(
        self,
        source: SegmentationDataset,
        rows: Sequence[int],
        *,
        size: int,
        targets: Sequence[str],
        domain_index: int = -1,
        mask_resampling: Literal["bilinear", "nearest"] = "bilinear",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        memory_mb: int = 1024,
    ) -> None:
        self.source = source
        self.domain_index = domain_index
        self._rows = list(rows)
        self._size = (size, size)
        self._targets = list(targets)
        self._resampling = mask_resampling
        self._augmentation = augmentation
        self._seed = seed
        self._room = memory_mb * 2**20
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, draw: int | Draw) -> SegmentationBatch:
        position = draw.position if isinstance(draw, Draw) else draw
        row = self._rows[position]
        case = self.source.manifest.cases[row]
        image, mask, original_size = self._decoded(position)
        if isinstance(draw, Draw):
            image, mask = self._varied(image, mask, row=row, draw=draw)
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
        present = torch.tensor([[name in self.source.card.targets for name in self._targets]])
        spacing = self.source.spacing(case) or (1.0,) * len(original_size)
        return SegmentationBatch(
            image=torch.from_numpy(pixels)[None].float() / 255,
            mask=torch.from_numpy(np.ascontiguousarray(mask))[None].float(),
            target_present=present,
            domain_index=torch.tensor([self.domain_index]),
            case_index=torch.tensor([row]),
            spacing=torch.tensor([spacing], dtype=torch.float32),
            original_size=torch.tensor([original_size]),
            case_id=[case.case_id],
            group_id=[case.group_id],
            dataset=[self.source.name],
            modality=[self.source.card.modality],
            domain=[case.domain],
        )

    def native_mask(self, row: int) -> NDArray[np.uint8]:
        """The reference of one manifest row at its own size, (K, H, W), in the order of the experiment's targets."""
        return self._ordered(self.source.read_mask(self.source.manifest.cases[row]))

    def _varied(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8], *, row: int, draw: Draw
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Augment a case for training and bring it to the size of the draw."""
        if self._augmentation is not None:
            stream = np.random.SeedSequence((self._seed, draw.epoch, row, draw.repeat)).generate_state(1)
            image, mask = self._augmentation(image, mask, seed=int(stream[0]))
        if draw.rate == 1:
            return image, mask
        height, width = (side_at_rate(side, draw.rate) for side in self._size)
        return resize_image(image, (height, width)), resize_mask(mask, (height, width), resampling=self._resampling)

    def _decoded(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, ...]]:
        """Decode and resize one case, or take it from memory."""
        if position in self._kept:
            return self._kept[position]
        case = self.source.manifest.cases[self._rows[position]]
        image = _to_uint8(self.source.read_image(case))
        mask = self._ordered(self.source.read_mask(case))
        original_size = mask.shape[1:]
        entry = (
            resize_image(image, self._size),
            resize_mask(mask, self._size, resampling=self._resampling),
            original_size,
        )
        weight = entry[0].nbytes + entry[1].nbytes
        if weight <= self._room:
            self._room -= weight
            self._kept[position] = entry
        return entry

    def _ordered(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring the channels into the experiment's order; a target that the set does not annotate is zeros."""
        known = {name: mask[channel] for channel, name in enumerate(self.source.card.targets)}
        return np.stack([known.get(name, np.zeros(mask.shape[1:], np.uint8)) for name in self._targets])


class JoinedDataset(Dataset[SegmentationBatch]):
    """Several case data sets one after the other, each with its own domain index.

    Args:
        parts: The data sets.
    """

    def __init__(self, parts: Sequence[CaseDataset]) -> None:
        self._parts = list(parts)
        self._places = [(part, position) for part in self._parts for position in range(len(part))]

    @property
    def domains(self) -> list[int]:
        """Domain index of every case, by position."""
        return [part.domain_index for part, _ in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: int | Draw) -> SegmentationBatch:
        part, position = self._places[draw.position if isinstance(draw, Draw) else draw]
        return part[draw._replace(position=position) if isinstance(draw, Draw) else position]


def _to_uint8(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bring a float image in [0, 1] to 8 bits; pass an 8-bit image on."""
    return (
        np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
        if image.dtype != np.uint8
        else image.astype(np.uint8, copy=False)
    )
