"""Pictures of predictions: of tested cases beside their references, and of a user's own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

from madgnet_bench.contracts import Prediction, SegmentationBatch
from madgnet_bench.metrics.overlap import dice
from madgnet_bench.pictures import draw_outlines, error_overlay, to_rgb
from madgnet_bench.protocol import Protocol

__all__ = ["MaskWriter", "TestGallery"]


class _Picture(NamedTuple):
    """A tested case, kept for drawing; ordered by its score."""

    score: float
    case_id: str
    image: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    reference: NDArray[np.uint8]


class TestGallery(Callback):
    """After a test, draws image, reference, prediction and errors of each test set's best and worst cases, side by side.

    Files are ``<folder>/<data set>/{worst,best}<rank>_dsc<percent>_<case>.png``; ``all`` also writes the predicted mask of
    every case and target as ``<folder>/<data set>/masks/<target>/<case>.png``. Pictures and scores are at the network's
    size, also where the protocol measures at another. Pictures of an earlier test are deleted.

    Args:
        folder: Where pictures go.
        protocol: Threshold and empty-mask policy of the scores.
        keep: ``selected`` or ``all``.
        count: How many best and worst cases of each test set.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __init__(
        self, folder: Path, *, protocol: Protocol, keep: Literal["selected", "all"] = "selected", count: int = 3
    ) -> None:
        self._folder, self._protocol, self._keep, self._count = folder, protocol, keep, count
        self._worst: dict[int, list[tuple[float, _Picture]]] = {}
        self._best: dict[int, list[tuple[float, _Picture]]] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the cases of an earlier test."""
        self._worst, self._best = {}, {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's cases that are among the best or worst so far."""
        probability = outputs["prediction"].probability.cpu()
        predicted = probability >= self._protocol.threshold
        scores = dice(predicted, batch.mask.cpu() > 0.5, empty=self._protocol.empty)
        present = batch.target_present.cpu()
        for position, case_id in enumerate(batch.case_id):
            picture = _Picture(
                score=float(scores[position][present[position]].mean()),
                case_id=case_id,
                image=_pixels(batch.image[position]),
                prediction=(probability[position] >= self._protocol.threshold).numpy().astype(np.uint8),
                reference=batch.mask[position].cpu().numpy().astype(np.uint8),
            )
            self._keep_extreme(self._worst.setdefault(dataloader_idx, []), -picture.score, picture)
            self._keep_extreme(self._best.setdefault(dataloader_idx, []), picture.score, picture)
            if self._keep == "all":
                datamodule = trainer.datamodule  # type: ignore[attr-defined]
                folder = self._folder / _file_name(datamodule.test_sets[dataloader_idx].name) / "masks"
                _write_masks(folder, datamodule.targets, picture.prediction, case_id)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what was kept, over all processes."""
        names = [test_set.name for test_set in trainer.datamodule.test_sets]  # type: ignore[attr-defined]
        kept: list[Any] = [(self._worst, self._best)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            kept = [None] * trainer.world_size
            torch.distributed.all_gather_object(kept, (self._worst, self._best))
        if not trainer.is_global_zero:
            return
        for index, name in enumerate(names):
            folder = self._folder / _file_name(name)
            for old in [*folder.glob("worst*_dsc*.png"), *folder.glob("best*_dsc*.png")]:
                old.unlink()  # of an earlier test
            for which, side in (("worst", 0), ("best", 1)):
                found = [entry for process in kept for entry in process[side].get(index, [])]
                ordered = sorted(found, key=lambda entry: (-entry[0], entry[1].case_id))[: self._count]
                for rank, (_, picture) in enumerate(ordered, start=1):
                    file = f"{which}{rank}_dsc{100 * picture.score:05.1f}_{_file_name(picture.case_id)}.png"
                    _save(folder / file, _panel(picture))

    def _keep_extreme(self, heap: list[tuple[float, _Picture]], priority: float, picture: _Picture) -> None:
        """Push into a heap of at most ``count`` highest priorities; ties go to the smaller case_id."""
        heap.append((priority, picture))
        heap.sort(key=lambda entry: (-entry[0], entry[1].case_id))
        del heap[self._count :]


class MaskWriter(Callback):
    """Writes a predicted mask per image and target, and an overlay per image, at the image's own size.

    Files are ``<folder>/masks/<image>.png`` (with several targets ``<folder>/masks/<target>/<image>.png``), 0 or 255, and
    ``<folder>/overlays/<image>.png``. Images in subfolders keep them.

    Args:
        folder: Where files go.
        read: From an image's name (its case_id) to its pixels, (H, W, C) at its own size.
        targets: Names of the target channels.
        threshold: A probability of at least this value is foreground.
    """

    def __init__(
        self, folder: Path, read: Callable[[str], NDArray[np.uint8]], *, targets: Sequence[str], threshold: float
    ) -> None:
        self._folder, self._read, self._targets, self._threshold = folder, read, list(targets), threshold
        self.written = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Prediction,
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the files of one batch."""
        for position, case_id in enumerate(batch.case_id):
            size = tuple(batch.original_size[position].tolist())
            probability = torch.nn.functional.interpolate(
                outputs.probability[position : position + 1].cpu(), size=size, mode="bilinear", align_corners=False
            )[0]
            mask = (probability >= self._threshold).numpy().astype(np.uint8)
            _write_masks(self._folder / "masks", self._targets, mask, case_id)
            _save(self._folder / "overlays" / f"{case_id}.png", draw_outlines(self._read(case_id), mask))
            self.written += 1


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """Turn (C, H, W) in [0, 1] into (H, W, C) bytes."""
    return (image.detach().cpu().float().numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)


def _panel(picture: _Picture) -> NDArray[np.uint8]:
    """Image, reference outline, prediction outline and errors, side by side."""
    return np.concatenate(
        [
            to_rgb(picture.image),
            draw_outlines(picture.image, picture.reference),
            draw_outlines(picture.image, picture.prediction),
            error_overlay(picture.image, picture.prediction, picture.reference),
        ],
        axis=1,
    )


def _write_masks(folder: Path, targets: Sequence[str], mask: NDArray[np.uint8], case_id: str) -> None:
    """Write each target as a PNG of 0 and 255; a folder per target where there are several."""
    for target, channel in zip(targets, mask, strict=True):
        place = folder / target if len(targets) > 1 else folder
        _save(place / f"{case_id}.png", channel * 255)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _file_name(name: str) -> str:
    """Make a name safe for one file or folder."""
    return name.replace("/", "_").replace(" ", "_")
