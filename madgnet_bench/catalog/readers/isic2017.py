"""ISIC 2017 challenge, part 1: skin lesions in dermoscopy, with the official three splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Isic2017"]

_PARTS: tuple[tuple[str, Split], ...] = (("Training", "train"), ("Validation", "val"), ("Test_v2", "test"))
_BUCKET = "https://isic-challenge-data.s3.amazonaws.com/2017"


class Isic2017(Reader):
    """Reads the official folders of part 1, segmentation."""

    card = DataCard(
        name="isic2017",
        title="ISIC 2017 challenge, skin lesion segmentation",
        modality="dermoscopy",
        targets=("lesion",),
        citation="Codella et al., Skin lesion analysis toward melanoma detection: a challenge at ISBI 2017, "
        "ISBI 2018, arXiv:1710.05006.",
        licence="CC0 1.0 (not confirmed); as the data page of the challenge is said to state",
        url="https://challenge.isic-archive.com/data/",
        expected_cases=2750,
        layout="ISIC-2017_<part>_Data/<id>.jpg and ISIC-2017_<part>_Part1_GroundTruth/<id>_segmentation.png, where <part> is "
        "Training, Validation or Test_v2. A subset is fine.",
        split_rule="Official: 2,000 train, 150 val and 600 test, by folder.",
        traps=(
            "ISIC 2016, 2017 and 2018 share images: audit before this is the unseen set of a network trained on another.",
            "The patient of an image is not known, so every image is its own group.",
            "Files differ in size, up to several thousand pixels a side.",
        ),
        links=tuple(
            Link(url=f"{_BUCKET}/ISIC-2017_{part}_{kind}.zip", file=f"ISIC-2017_{part}_{kind}.zip")
            for part, _ in _PARTS
            for kind in ("Data", "Part1_GroundTruth")
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the parts that are present, passing over the superpixel files; all of them where none is."""
        present = [part for part in _PARTS if any((folder / place).is_dir() for place in _places(folder, part[0]))]
        listings = [_list_part(folder, part, official) for part, official in present or _PARTS]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]


def _places(folder: Path, part: str) -> tuple[str, str]:
    """Where the images and the masks of a part lie."""
    return find_place(folder, f"ISIC-2017_{part}_Data"), find_place(folder, f"ISIC-2017_{part}_Part1_GroundTruth")


def _list_part(folder: Path, part: str, official: Split) -> Listing:
    """List one part."""
    entries, problems = paired_entries(
        folder,
        *_places(folder, part),
        mask_ending="_segmentation",
        image_suffixes=frozenset({".jpg"}),
        mask_suffixes=frozenset({".png"}),
    )
    return [replace(entry, official=official) for entry in entries], problems
