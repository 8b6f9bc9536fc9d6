"""COVID19-2 of the MADGNet paper: lung infection in CT slices, the unseen test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.readers.base import TEST_ONLY, Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Covid19Two"]


class Covid19Two(Reader):
    """Reads numbered slices and their masks."""

    card = DataCard(
        name="covid19_2",
        title="COVID19-2, lung CT slices of a Kaggle collection",
        modality="radiology",
        targets=("infection",),
        citation="Samant, pidata-new-names, Kaggle; used as COVID19-2 by Nam et al., CVPR 2024, arXiv:2405.06284.",
        licence="not known (not confirmed); the collection names no source of its images",
        url="https://www.kaggle.com/datasets/piyushsamant11/pidata-new-names",
        expected_cases=2534,
        layout="images/<n>.png and masks/<n>.png, as the code of the MADGNet paper reads them. A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "The layout of the archive is not confirmed: the folders may have other names there, the files have not.",
            "Names are plain numbers that tell no volume or patient: every slice is its own group, though many are neighbours.",
            "Kaggle describes it as lung nodules and lesions; which patients it holds, and whether COVID19-1 has them too, is "
            "not known.",
            "Masks are cut at 127, as in the code of the MADGNet paper.",
        ),
        verified=False,
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List images/ and masks/."""
        return paired_entries(folder, find_place(folder, "images"), find_place(folder, "masks"))

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)
