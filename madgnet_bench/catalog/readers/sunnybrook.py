"""Sunnybrook Cardiac Data: left-ventricular endocardium in cine MRI, slices as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import read_grey_file, stretch
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Listing, Reader, paired_entries

__all__ = ["Sunnybrook"]


class Sunnybrook(Reader):
    """Reads slices of three parts of 15 patients each; a patient is a group."""

    card = DataCard(
        name="sunnybrook",
        title="Sunnybrook Cardiac Data, left ventricle",
        modality="mri",
        targets=("lv_endocardium",),
        domains=("Part1", "Part2", "Part3"),
        citation="Radau et al., Evaluation framework for algorithms segmenting short axis cardiac MRI, MIDAS Journal (2009).",
        licence="CC0 1.0; stated by the Cardiac Atlas Project",
        url="https://www.cardiacatlas.org/sunnybrook-cardiac-data/",
        expected_cases=805,
        layout="images/Sunnybrook_Part<1..3>/<patient>-IM-<series>-<slice>.dcm.png and the same names in masks/: PNG files "
        "made from the official DICOM files. A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "The files are dark: each image is stretched between its own 0.5 and 99.5 percentiles, as MRI has no common scale.",
            "The parts are three groups of patients from one hospital, not three scanners: a mild shift at most.",
            "Slices without a contour are not among the files, so every mask has foreground.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the parts that are present; all of them where none is, so that the missing folders are named."""
        present = [part for part in self.card.domains if (folder / _part(part)).is_dir()]
        listings = [_list_part(folder, part) for part in present or self.card.domains]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a slice, stretched between its 0.5 and 99.5 percentiles: (H, W, 1) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        return stretch(read_grey_file(path))[..., None]


def _part(part: str) -> str:
    return f"images/Sunnybrook_{part}"


def _list_part(folder: Path, part: str) -> Listing:
    """List one part; what stands before -IM- in a name is the patient."""
    masks = f"masks/Sunnybrook_{part}"
    return paired_entries(folder, _part(part), masks, group=lambda stem: stem.split("-IM-")[0], domain=lambda stem: part)
