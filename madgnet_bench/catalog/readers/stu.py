"""STU-Hospital: breast lesions in ultrasound, from Shantou."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.readers.base import TEST_ONLY, Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Stu"]

_IMAGE, _MASK = "Test_Image_", "mask_"


class Stu(Reader):
    """Reads images and masks that lie in one folder, or apart in image/ and mask/."""

    card = DataCard(
        name="stu",
        title="STU-Hospital, breast ultrasound of the Shantou University hospital",
        modality="ultrasound",
        targets=("lesion",),
        citation="Zhuang et al., An RDAU-NET model for lesion segmentation in breast ultrasound images, "
        "PLOS ONE 14:e0221535 (2019).",
        licence="none is stated",
        url="https://github.com/xbhlk/STU-Hospital",
        expected_cases=42,
        layout="Hospital/Test_Image_<n>.png and Hospital/mask_<n>.png, or image/Test_Image_<n>.png and mask/mask_<n>.png. "
        "A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "Small cut-outs, about 128 x 128 pixels: they are enlarged where other sets are reduced.",
            "Masks are cut at 127, as in the code of the MADGNet paper; whether the files are strictly binary is not known.",
            "The patient of an image is not known, so every image is its own group.",
        ),
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List the images; the number pairs Test_Image_<n> with mask_<n>."""
        images_at = find_place(folder, "Hospital", "STU-Hospital-master/Hospital", "STU-Hospital/Hospital", "image")
        masks_at = find_place(folder, "mask") if images_at.endswith("image") else images_at
        found, problems = files_by_stem(folder, images_at)
        found_masks = found
        if masks_at != images_at:
            found_masks, mask_problems = files_by_stem(folder, masks_at)
            problems += mask_problems
        images = {stem.removeprefix(_IMAGE): path for stem, path in found.items() if stem.startswith(_IMAGE)}
        masks = {stem.removeprefix(_MASK): path for stem, path in found_masks.items() if stem.startswith(_MASK)}
        if not problems:
            problems = unmatched(folder, images, masks, masks_folder=masks_at)
        names = {number: f"{_IMAGE}{number}" for number in images if number in masks}
        return [Entry(name, name, images[number], masks[number]) for number, name in names.items()], problems

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)
