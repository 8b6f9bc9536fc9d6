"""What several tests share: data sets made in memory, a tiny network, a quiet trainer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.contracts import Context, SegmentationBatch, SegmentationNetwork, SegmentationOutput
from madgnet_bench.errors import Problem
from madgnet_bench.losses.region import DiceBCELoss
from madgnet_bench.tasks.supervised import SupervisedTask

SPLITS = {"t": "train", "v": "val", "e": "test"}
LETTERS = {name: letter for letter, name in SPLITS.items()}


class Boxes(SegmentationDataset):
    """A bright box on dark noise per case; further targets are boxes inside it. One letter of ``splits`` per case."""

    def __init__(
        self,
        name: str = "boxes",
        *,
        splits: str = "ttttttvvee",
        size: tuple[int, int] = (24, 20),
        channels: int = 1,
        targets: Sequence[str] = ("lesion",),
        modality: str = "ultrasound",
        unreadable: str = "",
        first_case: int = 0,
        card: str | None = None,
    ) -> None:
        self.name = name
        self.card = DataCard(name=card or name, title=name, modality=modality, targets=tuple(targets))
        self.splits, self.size, self.channels, self.unreadable = splits, size, channels, unreadable
        self.first_case = first_case

    def scan(self) -> tuple[list[Case], list[Problem]]:
        numbers = range(self.first_case, self.first_case + len(self.splits))
        cases = [
            Case(f"c{n:02d}", f"g{n}", f"{n}.png", f"{n}_mask.png", SPLITS[letter], "near")  # type: ignore[arg-type]
            for n, letter in zip(numbers, self.splits, strict=True)
        ]
        return cases, []

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        draw, box = self._draw(case)
        image = draw.integers(0, 80, (*self.size, self.channels), dtype=np.uint8)
        image[box] += 120
        return image

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        _, (rows, columns) = self._draw(case)
        mask = np.zeros((len(self.card.targets), *self.size), np.uint8)
        for target in range(len(mask)):
            mask[target, rows.start + target : rows.stop - target, columns.start + target : columns.stop - target] = 1
        return mask

    def _draw(self, case: Case) -> tuple[np.random.Generator, tuple[slice, slice]]:
        if LETTERS[case.split] in self.unreadable:
            raise AssertionError(f"{self.name}: {case.case_id} of {case.split} was read")
        draw = np.random.default_rng([zlib.crc32(self.name.encode()), int(case.case_id[1:])])
        box = []
        for side in self.size:
            length = int(draw.integers(side // 3, side // 2))
            start = int(draw.integers(0, side - length))
            box.append(slice(start, start + length))
        return draw, (box[0], box[1])


class TinyNetwork(SegmentationNetwork):
    """Two convolutions, with or without batch normalisation and dropout; the same weights every time.

    Without batch normalisation it starts as a noisy threshold of brightness, so that its predictions are neither all empty
    nor all right.
    """

    def __init__(self, num_targets: int = 1, *, width: int = 6, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__(num_targets)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout)
        )
        self.head = nn.Conv2d(width, num_targets, 1)
        draw = torch.Generator().manual_seed(width)
        for weight, mean, spread in ((self.encoder[0].weight, 1 / 27, 0.02), (self.head.weight, 20 / width, 1.0)):
            nn.init.normal_(weight, mean, spread, generator=draw)
        nn.init.zeros_(self.encoder[0].bias)
        nn.init.constant_(self.head.bias, -8.0)

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        return SegmentationOutput(self.head(self.encoder(image.expand(-1, 3, -1, -1))))


class LeftHalf(SegmentationNetwork):
    """Predicts the left half of every image, whatever it shows; its one parameter changes nothing."""

    def __init__(self, num_targets: int = 1) -> None:
        super().__init__(num_targets)
        self.scale = nn.Parameter(torch.tensor(50.0))

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        n, _, height, width = image.shape
        side = torch.where(torch.arange(width) < width // 2, 1.0, -1.0)
        return SegmentationOutput(self.scale * side.expand(n, self.num_targets, height, width))


def tiny_task(network: SegmentationNetwork | None = None, **options: Any) -> SupervisedTask:
    """A task at 16 pixels."""
    defaults = {"optimizer": partial(torch.optim.Adam, lr=0.02), "protocol": "madgnet[size=16]"}
    loss = options.pop("loss", None) or DiceBCELoss()
    return SupervisedTask(network or TinyNetwork(), loss, **(defaults | options))  # type: ignore[arg-type]


def quiet_trainer(**options: Any) -> Trainer:
    """A trainer on the CPU that writes and shows nothing; the suite's own settings otherwise."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "deterministic": "warn",
    }
    return Trainer(**(defaults | options))


def batch_of(mask: Tensor, present: Tensor | None = None) -> SegmentationBatch:
    """A batch of blank images with the given masks (N, K, *spatial)."""
    cases, targets = mask.shape[:2]
    names = ["a"] * cases
    return SegmentationBatch(
        image=torch.zeros(cases, 1, *mask.shape[2:]),
        mask=mask,
        target_present=torch.ones(cases, targets, dtype=torch.bool) if present is None else present,
        domain_index=torch.zeros(cases, dtype=torch.long),
        case_index=torch.arange(cases),
        spacing=torch.ones(cases, mask.dim() - 2),
        original_size=torch.ones(cases, mask.dim() - 2, dtype=torch.long),
        case_id=names,
        group_id=names,
        dataset=names,
        modality=names,
        domain=names,
    )
