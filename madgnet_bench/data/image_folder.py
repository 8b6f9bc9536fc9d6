"""Images without references, for prediction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import IMAGE_SUFFIXES, read_image_file
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.samplers import ShardSampler
from madgnet_bench.data.transforms import resize_image
from madgnet_bench.errors import DataErrors, Problem

__all__ = ["ImageFolderDataModule", "find_images"]


def find_images(folder: Path, *, skip: Path | None = None) -> list[Path]:
    """List the images of a folder and its subfolders, sorted; hidden ones are passed over.

    Args:
        folder: Where to look.
        skip: A folder inside it where not to look, such as that of earlier predictions.

    Raises:
        DataErrors: The folder is missing, holds no image, or holds some that cannot be read; all are named at once.
    """
    if not folder.is_dir():
        raise DataErrors(str(folder), [Problem(str(folder), "no such folder", "check --images")])
    out = None if skip is None or skip.resolve() == folder.resolve() else skip.resolve()
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (out is None or out not in path.resolve().parents)
    )
    problems = [] if files else [Problem(str(folder), "holds no image", f"put {', '.join(sorted(IMAGE_SUFFIXES))} files there")]
    stems = Counter(path.with_suffix("") for path in files)
    for path in files:
        if stems[path.with_suffix("")] > 1:
            problems.append(Problem(str(path), "another image differs from it only in its suffix", "rename one of them"))
        try:
            read_image_file(path)
        except FileProblem as error:
            problems.append(error.problem)
    if problems:
        raise DataErrors(str(folder), problems)
    return files


class _Images(Dataset[SegmentationBatch]):
    """Each image as a batch of one, with an absent reference."""

    def __init__(self, files: list[Path], folder: Path, size: int, num_targets: int) -> None:
        self._names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
        self._order = list(self._names)
        self._folder, self._size, self._num_targets = folder, size, num_targets

    def __len__(self) -> int:
        return len(self._names)

    def read(self, case_id: str) -> NDArray[np.uint8]:
        return read_image_file(self._names[case_id])

    def __getitem__(self, position: int) -> SegmentationBatch:
        name = self._order[position]
        image = self.read(name)
        pixels = resize_image(image, (self._size, self._size)).transpose(2, 0, 1)
        return SegmentationBatch(
            image=torch.from_numpy(np.ascontiguousarray(pixels))[None].float() / 255,
            mask=torch.zeros(1, self._num_targets, self._size, self._size),
            target_present=torch.zeros(1, self._num_targets, dtype=torch.bool),
            domain_index=torch.tensor([-1]),
            case_index=torch.tensor([position]),
            spacing=torch.ones(1, 2),
            original_size=torch.tensor([image.shape[:2]]),
            case_id=[name],
            group_id=[name],
            dataset=[self._folder.name],
            modality=[""],
            domain=[""],
        )


class ImageFolderDataModule(LightningDataModule):
    """Feeds every image of a folder to prediction, one at a time, since they may differ in channels.

    Args:
        folder: Folder of images; subfolders are included.
        image_size: Side in pixels of the network's input.
        num_targets: Number of target channels.
        skip: See `find_images`.

    Raises:
        DataErrors: See `find_images`.
    """

    def __init__(self, folder: Path, *, image_size: int, num_targets: int, skip: Path | None = None) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images than processes
        self._images = _Images(find_images(folder, skip=skip), folder, image_size, num_targets)

    def read(self, case_id: str) -> NDArray[np.uint8]:
        """The pixels of one image, (H, W, C) at its own size, by the case_id of its batch."""
        return self._images.read(case_id)

    def predict_dataloader(self) -> DataLoader[SegmentationBatch]:
        """One image per batch."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        sampler = ShardSampler(len(self._images), rank=rank, world_size=world_size)
        return DataLoader(self._images, batch_size=1, sampler=sampler, collate_fn=SegmentationBatch.collate)
