"""MonuSeg2018 as the MADGNet paper uses it: tiles of MoNuSeg and of a breast cancer set, mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.readers.base import TEST_ONLY, Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Monuseg2018Mixture"]

_PLACES = ("images", "kmms_training/images", "kmms_test/images")


class Monuseg2018Mixture(Reader):
    """Reads the Kaggle collection of the paper, or its files in one pair of folders."""

    card = DataCard(
        name="monuseg2018_mixture",
        title="MonuSeg2018 of the MADGNet paper: MoNuSeg and TNBC tiles",
        modality="microscopy",
        targets=("nucleus",),
        citation="Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology, "
        "IEEE TMI 36:1550-1560 (2017); Naylor et al., Segmentation of nuclei in histopathology images by deep regression "
        "of the distance map, IEEE TMI 38:448-459 (2019).",
        licence="CC BY-NC-SA 4.0 (MoNuSeg) and CC BY 4.0 (TNBC), as lists of licences state; of the Kaggle copy not confirmed",
        url="https://www.kaggle.com/datasets/tuanledinh/monuseg2018",
        expected_cases=82,
        layout="kmms_training/{images,masks} and kmms_test/{images,masks}, or images/ and masks/; <name>.tif or .png with "
        "<name>.png. A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "Not plain MoNuSeg: 32 tiles have TCGA names, 50 have the names of the TNBC set (11 patients, 01_1 to 11_3).",
            "Of the TCGA tiles, TCGA-AC-A2FO and TCGA-AO-A0J2 are in the official MoNuSeg test set, 30 in its training set.",
            "Which images lie in which folder of the archive is not confirmed; some mask names there end in a space.",
            "Masks are cut at 127, as in the code of the MADGNet paper.",
            "That code inverts bright images of dsb2018 in training, but not these; its low scores may partly come from that.",
        ),
        verified=False,
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List the pairs of folders that are present; a patient is a group."""
        places = [find_place(folder, place) for place in _PLACES]
        present = [place for place in places if (folder / place).is_dir()]
        listings = [_list_place(folder, place) for place in present or places[:1]]
        entries = [entry for place_entries, _ in listings for entry in place_entries]
        return entries, [problem for _, place_problems in listings for problem in place_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)


def _list_place(folder: Path, place: str) -> Listing:
    """List one pair of folders."""
    masks_at = f"{place.removesuffix('images')}masks"
    images, problems = files_by_stem(folder, place)
    masks, mask_problems = files_by_stem(folder, masks_at)
    images, masks = ({stem.strip(): path for stem, path in files.items()} for files in (images, masks))
    if not problems and not mask_problems:
        mask_problems = unmatched(folder, images, masks, masks_folder=masks_at)
    entries = [Entry(stem, _patient(stem), path, masks[stem]) for stem, path in images.items() if stem in masks]
    return entries, problems + mask_problems


def _patient(stem: str) -> str:
    """The first three parts of a TCGA name; what stands before the underscore in a TNBC name."""
    return "-".join(stem.split("-")[:3]) if stem.startswith("TCGA") else f"tnbc_{stem.partition('_')[0]}"
