"""PolypGen: polyps in colonoscopy from six centres, single frames and sequences."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.errors import Problem

__all__ = ["Polypgen"]

_ROOT = "PolypGen2021_MultiCenterData_v3"
_CENTRES = ("C1", "C2", "C3", "C4", "C5", "C6")
_SEQUENCES = "sequenceData/positive"
_NAMED_PATIENT = ("C1", "C4")  # in these centres the number that a name starts with is the patient
_JPEG = frozenset({".jpg"})


class Polypgen(Reader):
    """Reads the single frames of each centre and the positive sequences; a sequence is a group."""

    card = DataCard(
        name="polypgen",
        title="PolypGen, multi-centre polyps",
        modality="colonoscopy",
        targets=("polyp",),
        domains=(*_CENTRES, "sequences"),
        citation="Ali et al., A multi-centre polyp detection and segmentation dataset for generalisability assessment, "
        "Scientific Data 10:75 (2023), arXiv:2106.04463.",
        licence="CC BY 4.0; as the licence file of the archive is said to state",
        url="https://www.synapse.org/Synapse:syn26376615",
        expected_cases=3762,
        layout=f"{_ROOT}/data_C<n>/images_C<n>/<id>.jpg with masks_C<n>/<id>_mask.jpg, and {_SEQUENCES}/seq<n>/images_seq<n>/ "
        "with masks_seq<n>/ likewise. A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "Single frames: 256, 301, 457, 227, 208 and 88 of C1 to C6; 2,225 frames in 23 positive sequences. The 4,275 "
            "frames of the negative sequences have no masks and are not read.",
            "The centres of the sequences are not confirmed: they are a domain of their own, and may share patients with the "
            "single frames.",
            "Some frames show no polyp: their masks are empty.",
            "Masks are JPEG files: they are cut at 127.",
            "C1 and C4 have the patient at the start of the name (C4: the video); in C2, C3, C5 and C6 it is not known, and "
            "every frame is its own group: a random split may leak.",
            "One image of C3 has an underscore at the end of its name that its mask lacks; folders of masks hold stray text "
            "files.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the centres and sequences that are present; the centres where none is, so that the missing are named."""
        centres = [(find_place(folder, f"{_ROOT}/data_{centre}", f"data_{centre}"), centre) for centre in _CENTRES]
        present = [part for part in centres if (folder / part[0]).is_dir()]
        place = find_place(folder, f"{_ROOT}/{_SEQUENCES}", _SEQUENCES)
        present += [(f"{place}/{path.name}", path.name) for path in sorted((folder / place).glob("seq*")) if path.is_dir()]
        listings = [_list_folder(folder, part, name) for part, name in present or centres]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)


def _list_folder(folder: Path, part: str, name: str) -> Listing:
    """List the frames of a centre or of a sequence, by stems without an underscore at their end."""
    found, problems = files_by_stem(folder, f"{part}/images_{name}", suffixes=_JPEG)
    masks, mask_problems = files_by_stem(folder, f"{part}/masks_{name}", suffixes=_JPEG, ending="_mask")
    images: dict[str, str] = {}
    for stem, path in found.items():
        if stem.rstrip("_") in images:
            problems.append(Problem(str(folder / path), "the image stands twice", "remove the one whose name ends in _"))
        images.setdefault(stem.rstrip("_"), path)
    problems += mask_problems
    if not problems:
        problems = unmatched(folder, images, masks, masks_folder=f"masks_{name}")
    domain = name if name in _CENTRES else "sequences"
    entries = [
        Entry(f"{name}_{stem}", _group(name, stem), image, masks[stem], domain)
        for stem, image in images.items()
        if stem in masks
    ]
    return entries, problems


def _group(name: str, stem: str) -> str:
    """The patient where the name tells it, the sequence, or else the frame itself."""
    if name not in _CENTRES:
        return name
    number = re.match(r"\d+", stem) if name in _NAMED_PATIENT else None
    return f"{name}_{number.group() if number else stem}"
