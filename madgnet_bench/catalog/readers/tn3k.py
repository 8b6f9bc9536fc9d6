"""TN3K: thyroid nodules in ultrasound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Tn3k"]

_ROOTS = ("", "tn3k/", "Thyroid Dataset/tn3k/")
_PARTS: tuple[tuple[str, Split], ...] = (("trainval", "train"), ("test", "test"))


class Tn3k(Reader):
    """Reads the folders trainval and test, which use the same names for different images."""

    card = DataCard(
        name="tn3k",
        title="TN3K, thyroid nodules",
        modality="ultrasound",
        targets=("nodule",),
        citation="Gong et al., Multi-task learning for thyroid nodule segmentation with thyroid region prior, ISBI 2021; "
        "Gong et al., Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules, "
        "Computers in Biology and Medicine 155:106389 (2023).",
        licence="Research use (not confirmed)",
        url="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
        expected_cases=3493,
        layout="trainval-image/<nnnn>.jpg with trainval-mask/<nnnn>.jpg, and test-image/ with test-mask/ likewise. "
        "A subset is fine.",
        split_rule="Official: 2,879 train and 614 test, by folder; there is no validation set.",
        traps=(
            "The numbers start anew in the test folder: 0000.jpg is another image there. Case names start with the folder.",
            "Masks are JPEG files: they are cut at 127.",
            "The authors' five folds (tn3k-trainval-fold<n>.json) of the training images are not read.",
            "2,421 patients are said to have given the 3,493 images, but the files do not name them: every image is its own "
            "group, and a random split may leak.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the parts that are present; both of them where none is, so that the missing folders are named."""
        present = [part for part in _PARTS if any((folder / place).is_dir() for place in _places(folder, part[0]))]
        listings = [_list_part(folder, part, official) for part, official in present or _PARTS]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)


def _places(folder: Path, part: str) -> tuple[str, str]:
    """Where the images and the masks of a part lie."""
    images, masks = (find_place(folder, *(f"{root}{part}-{kind}" for root in _ROOTS)) for kind in ("image", "mask"))
    return images, masks


def _list_part(folder: Path, part: str, official: Split) -> Listing:
    """List one part and put its name before the numbers."""
    entries, problems = paired_entries(folder, *_places(folder, part))
    renamed = [
        replace(entry, case_id=f"{part}_{entry.case_id}", group_id=f"{part}_{entry.case_id}", official=official)
        for entry in entries
    ]
    return renamed, problems
