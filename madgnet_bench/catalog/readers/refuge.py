"""REFUGE: optic disc and cup in fundus photographs of two cameras."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import read_grey_file, split_part
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.catalog.volumes import check_labels

__all__ = ["Refuge"]

_CUP, _RIM, _BACKGROUND = 0, 128, 255


class _Part(NamedTuple):
    """One folder of photographs, under the names it goes by, and the folders that hold their masks."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    official: Split
    domain: str


_TRAINING = ("Training400/{}", "REFUGE-Training400/Training400/{}")
_TRAINING_MASKS = "Annotation-Training400/Disc_Cup_Masks/{}"
_TEST = ("Test400", "REFUGE-Test400/Test400", "REFUGE-Test400")
_TEST_MASKS = ("REFUGE-Test-GT/Disc_Cup_Masks/G", "REFUGE-Test-GT/Disc_Cup_Masks/N")
_PARTS = (
    *(
        _Part(tuple(name.format(label) for name in _TRAINING), (_TRAINING_MASKS.format(label),), "train", "zeiss")
        for label in ("Glaucoma", "Non-Glaucoma")
    ),
    _Part(("REFUGE-Validation400",), ("REFUGE-Validation400-GT/Disc_Cup_Masks",), "val", "canon"),
    _Part(_TEST, _TEST_MASKS, "test", "canon"),
)


class Refuge(Reader):
    """Reads label maps in which 0 is the cup, 128 the rim of the disc and 255 the rest; the disc is cup and rim."""

    card = DataCard(
        name="refuge",
        title="REFUGE challenge 2018, optic disc and cup",
        modality="fundus",
        targets=("disc", "cup"),
        containment=(("cup", "disc"),),
        domains=("zeiss", "canon"),
        citation="Orlando et al., REFUGE challenge: a unified framework for evaluating automated methods for glaucoma "
        "assessment from fundus photographs, Medical Image Analysis 59:101570 (2020), arXiv:1910.03667.",
        licence="Terms of the challenge, after registration, for research (not confirmed)",
        url="https://refuge.grand-challenge.org/",
        expected_cases=1200,
        layout="Training400/{Glaucoma,Non-Glaucoma}/<id>.jpg with Annotation-Training400/Disc_Cup_Masks/ likewise, "
        "REFUGE-Validation400/<id>.jpg with REFUGE-Validation400-GT/Disc_Cup_Masks/<id>.bmp, and Test400/<id>.jpg with "
        "REFUGE-Test-GT/Disc_Cup_Masks/{G,N}/<id>.bmp. A subset is fine.",
        split_rule="Official: 400 train, 400 val and 400 test, by folder.",
        traps=(
            "The official training images are from a Zeiss Visucam 500, all others from a Canon CR-2: the official test is "
            "a shift of camera.",
            "Label values: 0 cup, 128 rim, 255 background; the disc is cup and rim together.",
            "Other images in Training400, as of the folder AMD, are not part of the segmentation task and are not read.",
            "Copies that renumber the labels or store them as PNG, as on Kaggle, are not the official layout.",
            "MMSNet lists 320 and 80 images: a split of the official training images. Which structure is its target is not "
            "known.",
            "The patient of an image is not known, so every image is its own group.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the parts that are present; all of them where none is, so that the missing folders are named."""
        present = [part for part in _PARTS if any((folder / place).is_dir() for place in _places(folder, part))]
        listings = [_list_part(folder, part) for part in present or _PARTS]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one target of a label map, ``FILE::disc`` or ``FILE::cup``: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used, or holds other values than 0, 128 and 255.
        """
        file, target = split_part(path)
        labels = check_labels(file, read_grey_file(file), known=(_CUP, _RIM, _BACKGROUND))
        return (labels == _CUP if target == "cup" else labels != _BACKGROUND).astype(np.uint8)


def _places(folder: Path, part: _Part) -> list[str]:
    """Where the photographs of a part lie, and then its masks."""
    return [find_place(folder, *part.images), *(find_place(folder, name) for name in part.masks)]


def _list_part(folder: Path, part: _Part) -> Listing:
    """List one folder of photographs; its masks lie in one or two folders."""
    photographs, *mask_folders = _places(folder, part)
    images, problems = files_by_stem(folder, photographs, suffixes=frozenset({".jpg"}))
    masks: dict[str, str] = {}
    for name in [name for name in mask_folders if (folder / name).is_dir()] or mask_folders[:1]:
        found, mask_problems = files_by_stem(folder, name, suffixes=frozenset({".bmp"}))
        masks |= found
        problems += mask_problems
    if not problems:
        problems = unmatched(folder, images, masks, masks_folder=part.masks[0])
    entries = [
        Entry(stem, stem, image, f"{masks[stem]}::disc;{masks[stem]}::cup", part.domain, part.official)
        for stem, image in images.items()
        if stem in masks
    ]
    return entries, problems
