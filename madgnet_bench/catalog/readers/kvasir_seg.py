"""Kvasir-SEG: polyps in colonoscopy; a native-size test part, and a 256 x 256 part to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, TEST_ONLY, Listing, Reader, paired_entries

__all__ = ["KvasirSeg", "KvasirSeg256"]

_LAYOUT = "images/<id>.jpg and masks/<id>.jpg. A subset is fine."
_MASK_TRAP = "Masks are JPEG files: they are cut at 127."
_GROUP_TRAP = "The patient of an image is not known, so every image is its own group."


class KvasirSeg(Reader):
    """Reads the test part: all cases are test."""

    card = DataCard(
        name="kvasir_seg",
        title="Kvasir-SEG, native size, as a test set",
        modality="colonoscopy",
        targets=("polyp",),
        citation="Jha et al., Kvasir-SEG: a segmented polyp dataset, MMM 2020; Borgli et al., HyperKvasir, "
        "Scientific Data 7:283 (2020).",
        licence="CC BY 4.0; through HyperKvasir, whose segmented images these are; "
        "Kvasir-SEG's own page: free for research and education, commercial use by permission",
        url="https://datasets.simula.no/kvasir-seg/",
        expected_cases=1000,
        layout=_LAYOUT,
        split_rule=TEST_ONLY,
        traps=(
            _MASK_TRAP,
            "The audit finds frames that come twice with other borders: cju5ddda... and cjyzkpsb..., cju7fnfv... and "
            "cjyzuio1..., cju5jx7j... and cjyzl833....",
            "With a subset of 100 images that is disjoint from kvasir_seg_256 the two make a train and test pair; the full "
            "1000 images contain those of kvasir_seg_256 and must not be its test set.",
            _GROUP_TRAP,
        ),
        links=(
            Link(
                url="https://datasets.simula.no/downloads/kvasir-seg.zip",
                file="kvasir-seg.zip",
                sha256="03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
                bytes=46227172,
            ),
        ),
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List images/ and masks/."""
        return paired_entries(folder, "images", "masks")

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)


class KvasirSeg256(KvasirSeg):
    """Reads the part to train on, which a public copy holds at 256 x 256."""

    card = replace(
        KvasirSeg.card,
        name="kvasir_seg_256",
        title="Kvasir-SEG without the images of kvasir_seg, at 256 x 256",
        expected_cases=900,
        links=(),
        split_rule=SPLIT_BY_GROUP,
        traps=(_MASK_TRAP, "Resized by the copy, which changes the shape of polyps.", _GROUP_TRAP),
    )
    test_only = False
