"""Drishti-GS1: optic disc and cup in fundus photographs, marked by four experts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import read_mask_file
from madgnet_bench.catalog.listing import files_by_stem
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.errors import Problem

__all__ = ["DrishtiGs"]

_ROOT = "Drishti-GS1_files"
_PARTS: tuple[tuple[str, str, Split], ...] = (("Training", "GT", "train"), ("Test", "Test_GT", "test"))
_ENDINGS = ("_ODsegSoftmap.png", "_cupsegSoftmap.png")  # in the order of the targets
_BELOW_HALF = 126  # two experts of four are 127 or 128, as the file was rounded; one is 64, three are 191


class DrishtiGs(Reader):
    """Reads soft maps, the mean of four experts' masks; foreground is where at least half of them agree."""

    card = DataCard(
        name="drishti_gs",
        title="Drishti-GS1, optic disc and cup",
        modality="fundus",
        targets=("disc", "cup"),
        containment=(("cup", "disc"),),
        citation="Sivaswamy et al., Drishti-GS: retinal image dataset for optic nerve head segmentation, ISBI 2014; "
        "Sivaswamy et al., A comprehensive retinal image dataset for the assessment of glaucoma from the optic nerve head "
        "analysis, JSM Biomedical Imaging Data Papers 2:1004 (2015).",
        licence="Research use, after registration (not confirmed)",
        url="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
        expected_cases=101,
        layout=f"{_ROOT}/Training/Images/<id>.png and {_ROOT}/Test/Images/<id>.png (in copies also in a folder per "
        "diagnosis), with GT/<id>/SoftMap/ and Test_GT/<id>/SoftMap/, which hold <id>_ODsegSoftmap.png and "
        "<id>_cupsegSoftmap.png. A subset is fine.",
        split_rule="Official: 50 train and 51 test, by folder; there is no validation set.",
        traps=(
            "Masks are the mean of four experts: a pixel is foreground where the mean is at least one half, so a tie counts. "
            "Stricter and laxer rules are in use elsewhere, up to all or any of the experts.",
            "The cup of the experts need not lie inside their disc in every pixel.",
            "Images differ in size, from 2045 x 1749 to 2468 x 1845.",
            "The patient of an image is not known, so every image is its own group.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the parts that are present; both of them where none is, so that the missing folders are named."""
        places = [(find_place(folder, f"{_ROOT}/{part}", part), truth, official) for part, truth, official in _PARTS]
        present = [place for place in places if (folder / place[0]).is_dir()]
        listings = [_list_part(folder, part, truth, official) for part, truth, official in present or places]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is where the mean of the experts is at least one half: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=_BELOW_HALF)


def _list_part(folder: Path, part: str, truth: str, official: Split) -> Listing:
    """List the images of one part, and find their two soft maps."""
    images, problems = _list_images(folder, f"{part}/Images")
    entries: list[Entry] = []
    for stem, image in images.items():
        masks = [f"{part}/{truth}/{stem}/SoftMap/{stem}{ending}" for ending in _ENDINGS]
        lost = [mask for mask in masks if not (folder / mask).is_file()]
        if lost:
            problem = f"image without a mask: {' and '.join(mask.rpartition('/')[2] for mask in lost)}"
            problems.append(Problem(str(folder / image), problem, f"add it in {truth}/{stem}/SoftMap/ or remove the image"))
        else:
            entries.append(Entry(stem, stem, image, ";".join(masks), official=official))
    if images:
        lonely = [path for path in sorted((folder / part / truth).glob("*/SoftMap")) if path.parent.name not in images]
        fix = "add its image (same name) or remove the folder"
        problems += [Problem(str(path.parent), "mask without an image", fix) for path in lonely]
    return entries, problems


def _list_images(folder: Path, images: str) -> tuple[dict[str, str], list[Problem]]:
    """List the images of a folder and of the folders in it, which some copies have for the diagnoses."""
    found, problems = files_by_stem(folder, images)
    if problems:
        return found, problems
    for name in sorted(path.name for path in (folder / images).iterdir() if path.is_dir() and path.name[0] != "."):
        more, more_problems = files_by_stem(folder, f"{images}/{name}")
        problems += more_problems
        problems += [
            Problem(str(folder / more[stem]), "the image stands twice", "remove one") for stem in more if stem in found
        ]
        found = more | found
    return found, problems
