"""CHASE_DB1: retinal vessels in fundus photographs of children's eyes."""

from __future__ import annotations

import re
from pathlib import Path

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Entry, Listing, Reader

__all__ = ["Chasedb1"]

_FOLDER = "CHASEDB1"


class Chasedb1(Reader):
    """Reads the first observer's vessels; both eyes of a child are one group."""

    card = DataCard(
        name="chasedb1",
        title="CHASE_DB1 retinal vessel reference set",
        modality="fundus",
        targets=("vessel",),
        citation="Fraz et al., An ensemble classification-based approach applied to retinal blood vessel segmentation, "
        "IEEE TBME 59:2538-2548 (2012).",
        licence="CC BY 4.0 (not confirmed); as the university's data page is said to state",
        url="https://researchdata.kingston.ac.uk/96/",
        expected_cases=28,
        layout=f"{_FOLDER}/Image_<nn><L|R>.jpg with _1stHO.png and _2ndHO.png. A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "Two observers: _1stHO is the usual reference and the one read here.",
            "14 children, two eyes each: a random split by image would separate the eyes of a child.",
        ),
        links=(
            Link(
                url="https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip",
                file="CHASEDB1.zip",
            ),
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the photographs and the first observer's files, which lie in one folder."""
        images, problems = files_by_stem(folder, _FOLDER, suffixes=frozenset({".jpg"}))
        if problems:
            return [], problems
        masks, problems = files_by_stem(folder, _FOLDER, suffixes=frozenset({".png"}), ending="_1stHO")
        problems += unmatched(folder, images, masks, masks_folder=_FOLDER)
        entries = [Entry(stem, _child(stem), path, masks[stem]) for stem, path in images.items() if stem in masks]
        return entries, problems


def _child(stem: str) -> str:
    """The number in a name such as Image_01L."""
    match = re.search(r"\d+", stem)
    return match.group() if match else stem
