"""ISIC 2017 challenge, validation set: skin lesions in dermoscopy, at most 400 pixels wide."""

from __future__ import annotations

from pathlib import Path

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Listing, Reader, paired_entries

__all__ = ["Isic2017Val400"]


class Isic2017Val400(Reader):
    """Reads the official folders of part 1, segmentation."""

    card = DataCard(
        name="isic2017_val_400",
        title="ISIC 2017 challenge, validation set, long side 400",
        modality="dermoscopy",
        targets=("lesion",),
        citation="Codella et al., Skin lesion analysis toward melanoma detection: a challenge at ISBI 2017, "
        "ISBI 2018, arXiv:1710.05006.",
        licence="CC0 1.0 (not confirmed); as the data page of the challenge is said to state",
        url="https://challenge.isic-archive.com/data/",
        expected_cases=150,
        layout="ISIC-2017_Validation_Data/<id>.jpg and ISIC-2017_Validation_Part1_GroundTruth/<id>_segmentation.png. "
        "A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "Meant for copies resized to a long side of 400; the official files, up to 4288 x 2848, are read as well.",
            "The patient of an image is not known, so every image is its own group.",
            "ISIC 2016, 2017 and 2018 share images.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the JPEG images, passing over the superpixel files beside them, and their masks."""
        return paired_entries(
            folder,
            "ISIC-2017_Validation_Data",
            "ISIC-2017_Validation_Part1_GroundTruth",
            mask_ending="_segmentation",
            image_suffixes=frozenset({".jpg"}),
            mask_suffixes=frozenset({".png"}),
        )
