"""Torch data sets, in which a case is a batch of one, and their loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.cache import DecodedCache, DecodedCase, decode_case
from madgnet_bench.data.samplers import Draw, side_at_rate
from madgnet_bench.data.transforms import Augmentation, channels_first, resize_image, resize_mask

__all__ = ["ByteCases", "CaseDataset", "CaseLoader", "JoinedDataset"]


class CaseDataset(Dataset[SegmentationBatch]):
    """Some cases of one data set at one size.

    Decoded and resized cases (uint8) come from a cache on disk; those that it does not hold are kept in memory, up to a limit.
    Augmentation comes after, from the random stream (seed, epoch, case, repeat) of the draw, so that a resumed run sees what
    an undisturbed one does. A draw at another rate than 1 is resized last, after augmentation, as in PraNet's multi-scale
    training (arXiv 2006.11392); unlike there, shrinking antialiases and the mask follows ``mask_resampling``, so that it stays
    binary.

    Args:
        source: The data set.
        rows: Rows of its manifest.
        size: Side in pixels to which image and mask are brought.
        targets: Names of the experiment's targets; the mask has one channel for each.
        domain_index: Index of this data set among the training domains, -1 where it is not one of them.
        mask_resampling: A protocol's ``mask_resampling``.
        augmentation: Applied to draws (training) and never to plain positions (evaluation).
        seed: Seed of the experiment.
        cache: The data set's cache of this size and mask resampling; None decodes anew in every process.
        memory_mb: Megabytes of decoded cases to keep that are not in the cache.
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
        cache: DecodedCache | None = None,
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
        self._cache = cache
        self._room = memory_mb * 2**20
        self._kept: dict[int, DecodedCase] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, draw: int | Draw) -> SegmentationBatch:
        return _to_float(self.as_bytes(draw))

    def as_bytes(self, draw: int | Draw) -> SegmentationBatch:
        """One case as `CaseLoader` carries it: image uint8 in 0 .. 255, mask uint8 in {0, 1}."""
        position = draw.position if isinstance(draw, Draw) else draw
        row = self._rows[position]
        case = self.source.manifest.cases[row]
        image, mask, original_size, _ = self._decoded(row)
        mask = self._ordered(mask)
        if isinstance(draw, Draw):
            image, mask = self._varied(image, mask, row=row, draw=draw)
        present = torch.tensor([[name in self.source.card.targets for name in self._targets]])
        spacing = self.source.spacing(case) or (1.0,) * len(original_size)
        return SegmentationBatch(
            image=torch.from_numpy(channels_first(image))[None],
            mask=torch.from_numpy(np.ascontiguousarray(mask))[None],
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
            domain = (self.domain_index,) if self.domain_index > 0 else ()  # else equal rows of two sets would turn alike
            stream = np.random.SeedSequence((self._seed, draw.epoch, row, draw.repeat, *domain)).generate_state(1)
            image, mask = self._augmentation(image, mask, seed=int(stream[0]))
        if draw.rate == 1:
            return image, mask
        height, width = (side_at_rate(side, draw.rate) for side in self._size)
        return resize_image(image, (height, width)), resize_mask(mask, (height, width), resampling=self._resampling)

    def _decoded(self, row: int) -> DecodedCase:
        """One case at the size of the experiment: from memory, from the cache, or from its files."""
        if row in self._kept:
            return self._kept[row]
        if self._cache is not None:
            entry, stored = self._cache.read(row)
            if stored:
                return entry
        else:
            case = self.source.manifest.cases[row]
            entry = decode_case(self.source, case, size=self._size, mask_resampling=self._resampling)
        weight = entry.image.nbytes + entry.mask.nbytes
        if weight <= self._room:
            self._room -= weight
            self._kept[row] = entry
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
        return _to_float(self.as_bytes(draw))

    def as_bytes(self, draw: int | Draw) -> SegmentationBatch:
        """As `CaseDataset.as_bytes`."""
        part, position = self._places[draw.position if isinstance(draw, Draw) else draw]
        return part.as_bytes(draw._replace(position=position) if isinstance(draw, Draw) else position)


class ByteCases(Dataset[SegmentationBatch]):
    """Cases with pixels as bytes, for `CaseLoader`.

    Args:
        cases: The cases.
    """

    def __init__(self, cases: CaseDataset | JoinedDataset) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, draw: int | Draw) -> SegmentationBatch:
        return self._cases.as_bytes(draw)


class CaseLoader(DataLoader[SegmentationBatch]):
    """A loader of `ByteCases` whose batches are float, as every batch is that leaves this package.

    Worker processes send bytes, a quarter of the size: the way through shared memory would else cost more than reading and
    augmenting a case. Where there is a GPU, the float batch lies in page-locked memory, for a faster transfer. Takes the
    arguments of a torch loader, of which ``pin_memory`` is not needed.
    """

    def __iter__(self) -> Iterator[SegmentationBatch]:  # type: ignore[override]
        pinned = torch.cuda.is_available()
        return (_to_float(batch, pinned=pinned) for batch in super().__iter__())


def _to_float(batch: SegmentationBatch, *, pinned: bool = False) -> SegmentationBatch:
    """Turn bytes into the float image and mask of the contract."""
    image, mask = (_new_float(tensor.shape, pinned=pinned) for tensor in (batch.image, batch.mask))
    return replace(batch, image=torch.div(batch.image, 255, out=image), mask=mask.copy_(batch.mask))


def _new_float(shape: torch.Size, *, pinned: bool) -> torch.Tensor:
    """Memory for a float tensor, in the large pages that NumPy asks for: small ones take longer than the conversion."""
    return torch.empty(shape, pin_memory=True) if pinned else torch.from_numpy(np.empty(shape, np.float32))
