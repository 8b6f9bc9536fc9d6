"""ISIC 2018 challenge, task 1: outlines of skin lesions in dermoscopy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Isic2018"]

_PARTS: dict[str, Split] = {"Training": "train", "Validation": "val", "Test": "test"}


class Isic2018(Reader):
    """Reads the official folders of task 1; those of validation and test may be absent."""

    card = DataCard(
        name="isic2018",
        title="ISIC 2018 challenge, task 1, lesion boundaries",
        modality="dermoscopy",
        targets=("lesion",),
        citation="Codella et al., Skin lesion analysis toward melanoma detection 2018: a challenge hosted by the ISIC, "
        "arXiv:1902.03368; Tschandl et al., The HAM10000 dataset, Scientific Data 5:180161 (2018).",
        licence="CC0 1.0 (not confirmed); the images of HAM10000 are also published as CC BY-NC 4.0",
        url="https://challenge.isic-archive.com/data/",
        expected_cases=2594,
        layout="ISIC2018_Task1-2_Training_Input/<id>.jpg and ISIC2018_Task1_Training_GroundTruth/<id>_segmentation.png; "
        "the folders of Validation (100) and Test (1000) are read where present. A subset is fine.",
        split_rule="Official: the folders of the challenge are train, val and test. The MADGNet paper divides the 2,594 "
        "training images again by its own lists: 2,077, 257 and 260.",
        traps=(
            "Papers differ: some test on images of the training part (260 in MADGNet), others on the official 1,000.",
            "ISIC 2016, 2017 and 2018 share images.",
            "The patient of an image is not known, so every image is its own group.",
            "In the lists of the MADGNet paper the column mask_path belongs to other images; new_mask_path is right.",
        ),
        links=(
            Link(
                url="https://isic-challenge-data.s3.amazonaws.com/2018/ISIC2018_Task1-2_Training_Input.zip",
                file="ISIC2018_Task1-2_Training_Input.zip",
                sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
            ),
            Link(
                url="https://isic-challenge-data.s3.amazonaws.com/2018/ISIC2018_Task1_Training_GroundTruth.zip",
                file="ISIC2018_Task1_Training_GroundTruth.zip",
                sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
            ),
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the JPEG images of the parts that are present; the part is the official split."""
        places = {
            part: (
                find_place(folder, f"ISIC2018_Task1-2_{part}_Input"),
                find_place(folder, f"ISIC2018_Task1_{part}_GroundTruth"),
            )
            for part in _PARTS
        }
        present = [part for part, pair in places.items() if any((folder / place).is_dir() for place in pair)]
        listings = [_list_part(folder, *places[part], _PARTS[part]) for part in present or ["Training"]]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]


def _list_part(folder: Path, images: str, masks: str, split: Split) -> Listing:
    """List one part, passing over licence and attribution files."""
    entries, problems = paired_entries(
        folder,
        images,
        masks,
        mask_ending="_segmentation",
        image_suffixes=frozenset({".jpg"}),
        mask_suffixes=frozenset({".png"}),
    )
    return [replace(entry, official=split) for entry in entries], problems
