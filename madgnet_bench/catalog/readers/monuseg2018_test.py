"""MoNuSeg 2018 challenge, test set: nuclei in H&E tissue of several organs."""

from __future__ import annotations

from pathlib import Path

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.readers.base import TEST_ONLY, Listing, Reader, paired_entries

__all__ = ["Monuseg2018Test"]


class Monuseg2018Test(Reader):
    """Reads tissue tiles and rendered nucleus masks (grey with opacity, 0 and 255)."""

    card = DataCard(
        name="monuseg2018_test",
        title="MoNuSeg 2018 challenge, test set",
        modality="microscopy",
        targets=("nucleus",),
        citation="Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology, "
        "IEEE TMI 36:1550-1560 (2017); Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39:1380-1391 "
        "(2020).",
        licence="CC BY-NC-SA 4.0; as a data card and the page of the sister challenge state",
        url="https://monuseg.grand-challenge.org/Data/",
        expected_cases=14,
        layout="images/<name>.tif and masks/<name>.png rendered from the official XML outlines. A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "The official archive holds outlines in XML; masks rendered elsewhere may differ by a pixel at borders.",
            "Lists named MoNuSeg2018 in other papers mix in images of other sets.",
        ),
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List images/ and masks/; the first three parts of a TCGA name are the patient."""
        return paired_entries(folder, "images", "masks", group=lambda stem: "-".join(stem.split("-")[:3]))
