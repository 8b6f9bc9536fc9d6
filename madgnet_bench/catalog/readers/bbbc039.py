"""BBBC039: nuclei of U2OS cells in a chemical screen, fluorescence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.images import read_image_file, read_mask_file
from madgnet_bench.catalog.readers.base import TEST_ONLY, Listing, Reader, paired_entries

__all__ = ["Bbbc039"]

_WINDOW = (110.0, 1500.0)  # background is about 115 to 145; 1 pixel in 1000 of a typical image lies above 1500


class Bbbc039(Reader):
    """Reads 16-bit images in a fixed window, and label images whose red channel is the object number."""

    card = DataCard(
        name="bbbc039",
        title="BBBC039v1, nuclei of U2OS cells in a chemical screen",
        modality="microscopy",
        targets=("nucleus",),
        citation="Caicedo et al., Evaluation of deep learning strategies for nucleus segmentation in fluorescence images, "
        "Cytometry A 95:952-965 (2019); Ljosa et al., Nature Methods 9:637 (2012).",
        licence="CC0 1.0; stated by the README of a copy",
        url="https://bbbc.broadinstitute.org/BBBC039",
        expected_cases=200,
        layout="images/<name>.tif (16 bits) and masks/<name>.png (RGBA, red is the object number). A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "43 of the 200 images are also in dsb2018, among its 696 x 520 images.",
            "Images are shown in the fixed window 110 to 1500, so that brightness stays comparable between them.",
            "The group is the well of the plate.",
        ),
        links=(
            Link(
                url="https://data.broadinstitute.org/bbbc/BBBC039/images.zip",
                file="images.zip",
                sha256="6f30a5d4fe38c928ded972704f085975f8dc0d65d9aa366df00e5a9d449fddd7",
            ),
            Link(
                url="https://data.broadinstitute.org/bbbc/BBBC039/masks.zip",
                file="masks.zip",
                sha256="f9e6043d8ca56344a4886f96a700d804d6ee982f31e2b2cd3194af2a053c2710",
            ),
        ),
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List images/ and masks/; a name such as IXMtest_A24_s9_w1... has the well second."""
        return paired_entries(folder, "images", "masks", group=_well)

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a 16-bit image in the window: (H, W, 1) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_image_file(path, window=_WINDOW)

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is where the red channel exceeds 0: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=0, channel=0)


def _well(stem: str) -> str:
    parts = stem.split("_")
    return parts[1] if len(parts) > 2 else stem
