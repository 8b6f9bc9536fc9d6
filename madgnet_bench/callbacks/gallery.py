"""Pictures of predictions: of tested cases beside their references, and of a user's own images."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

from madgnet_bench.contracts import Prediction, SegmentationBatch
from madgnet_bench.metrics.overlap import dice
from madgnet_bench.pictures import KINDS, PARTS, case_panel, draw_outlines
from madgnet_bench.protocol import Protocol
from madgnet_bench.records import write_json

__all__ = ["GALLERY_SCHEMA", "MaskWriter", "TestGallery"]


GALLERY_SCHEMA = 1
"""Version of the layout of ``gallery.json``."""


class _Tested(NamedTuple):
    """A tested case: its score, and what is needed to draw it later.

    Attributes:
        score: DSC, as a fraction.
        case_id: Its name.
        place: Its position in the test set.
        mask: The predicted mask (K, H, W), packed to bits and compressed.
        shape: (K, H, W).
    """

    score: float
    case_id: str
    place: int
    mask: bytes
    shape: tuple[int, ...]


class TestGallery(Callback):
    """After a test, draws image, reference, prediction and errors of each test set's worst, median and best cases.

    They stand side by side in one file per case, ``<folder>/<data set>/{worst,median,best}<rank>_dsc<percent>_<case>.png``, and
    ``gallery.json`` beside them lists the files with their cases and scores::

        {"schema_version": 1, "dataset": ..., "parts": ["image", "reference", "prediction", "errors"], "targets": [...],
         "cases": [{"case_id": ..., "kind": "worst", "rank": 1, "dsc": 0.12, "file": ..., "width": 352, "height": 352}, ...]}

    where width and height are those of one part. ``median1`` is the case in the middle of the scores, the others lie beside it.
    ``all`` also writes the predicted mask of every case and target as ``<folder>/<data set>/masks/<target>/<case>.png``.
    Pictures and scores are at the network's size, also where the protocol measures at another. Pictures of an earlier test are
    deleted.

    The median is known only at the end, so the mask of every case is kept till then as compressed bits, about 1 to 5 KB for a
    target of 352 x 352 pixels; images and references of the chosen cases are read again from the data module.

    Args:
        folder: Where pictures go.
        protocol: Threshold and empty-mask policy of the scores.
        keep: ``selected`` or ``all``.
        count: How many worst, median and best cases of each test set.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __init__(
        self, folder: Path, *, protocol: Protocol, keep: Literal["selected", "all"] = "selected", count: int = 3
    ) -> None:
        self._folder, self._protocol, self._keep, self._count = folder, protocol, keep, count
        self._tested: dict[int, list[_Tested]] = {}
        self._places: list[Iterator[int]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the cases of an earlier test."""
        self._tested = {}
        loaders: Any = trainer.test_dataloaders
        self._places = [iter(loader.sampler) for loader in loaders]

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SegmentationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep score and mask of the batch's cases."""
        predicted = outputs["prediction"].probability.cpu() >= self._protocol.threshold
        scores = dice(predicted, batch.mask.cpu() > 0.5, empty=self._protocol.empty)
        present = batch.target_present.cpu()
        for position, case_id in enumerate(batch.case_id):
            mask = predicted[position].numpy()
            entry = _Tested(
                score=float(scores[position][present[position]].mean()),
                case_id=case_id,
                place=next(self._places[dataloader_idx]),
                mask=zlib.compress(np.packbits(mask).tobytes(), 1),
                shape=mask.shape,
            )
            self._tested.setdefault(dataloader_idx, []).append(entry)
            if self._keep == "all":
                datamodule = trainer.datamodule  # type: ignore[attr-defined]
                folder = self._folder / _file_name(datamodule.test_sets[dataloader_idx].name) / "masks"
                _write_masks(folder, datamodule.targets, mask.astype(np.uint8), case_id)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the chosen cases, over all processes."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        names = [test_set.name for test_set in datamodule.test_sets]
        scores = _gathered([[entry[:2] for entry in self._tested.get(index, [])] for index in range(len(names))])
        chosen = [
            _choose([entry for process in scores for entry in process[index]], self._count) for index in range(len(names))
        ]
        wanted = [{case_id for _, _, case_id in entries} for entries in chosen]
        masks = _gathered(
            [[entry for entry in self._tested.get(index, []) if entry.case_id in ids] for index, ids in enumerate(wanted)]
        )
        self._tested = {}
        if not trainer.is_global_zero:
            return
        for index, name in enumerate(names):
            found = {entry.case_id: entry for process in masks for entry in process[index]}
            pictured = [(kind, rank, found[case_id]) for kind, rank, case_id in chosen[index]]
            self._draw(self._folder / _file_name(name), name, pictured, datamodule.test_sets[index].cases, datamodule.targets)

    def _draw(
        self, folder: Path, name: str, pictured: Sequence[tuple[str, int, _Tested]], cases: Any, targets: Sequence[str]
    ) -> None:
        """Write the panels of one test set and their index, in place of those of an earlier test."""
        for kind in KINDS:
            for old in folder.glob(f"{kind}*_dsc*.png"):
                old.unlink()
        (folder / "gallery.json").unlink(missing_ok=True)
        entries = []
        for kind, rank, tested in pictured:
            batch = cases[tested.place]
            if list(batch.case_id) != [tested.case_id]:
                raise RuntimeError(f"{name}: position {tested.place} holds {batch.case_id}, not the tested {tested.case_id}")
            file = f"{kind}{rank}_dsc{100 * tested.score:05.1f}_{_file_name(tested.case_id)}.png"
            reference = batch.mask[0].numpy().astype(np.uint8)
            _save(folder / file, case_panel(_pixels(batch.image[0]), _unpacked(tested), reference))
            about = {"case_id": tested.case_id, "kind": kind, "rank": rank, "dsc": round(tested.score, 6), "file": file}
            entries.append({**about, "width": tested.shape[2], "height": tested.shape[1]})
        if entries:
            index = {"dataset": name, "parts": list(PARTS), "targets": list(targets), "cases": entries}
            write_json(folder / "gallery.json", {"schema_version": GALLERY_SCHEMA, **index})


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


def _gathered(mine: Any) -> list[Any]:
    """What every process has, in their order."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


def _choose(scores: Sequence[tuple[float, str]], count: int) -> list[tuple[str, int, str]]:
    """Kind, rank from 1 and case_id of the worst, median and best cases; ties go to the smaller case_id."""
    rising = sorted(scores)
    middle = (len(rising) - 1) / 2
    around = sorted(range(len(rising)), key=lambda place: abs(place - middle))
    ordered = {
        "worst": rising,
        "median": [rising[place] for place in around],
        "best": sorted(scores, key=lambda entry: (-entry[0], entry[1])),
    }
    return [(kind, rank, case) for kind in KINDS for rank, (_, case) in enumerate(ordered[kind][:count], start=1)]


def _unpacked(tested: _Tested) -> NDArray[np.uint8]:
    """The predicted mask (K, H, W) in {0, 1}."""
    bits = np.frombuffer(zlib.decompress(tested.mask), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(tested.shape))).reshape(tested.shape)


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
