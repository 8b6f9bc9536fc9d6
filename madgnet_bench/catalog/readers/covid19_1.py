"""COVID19-1 of the MADGNet paper: lung infection in CT slices; and the NIfTI files that part of it comes from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_image_file, read_mask_file, split_part, stretch
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.catalog.volumes import check_labels, find_volume, read_header, read_slice
from madgnet_bench.errors import Problem

__all__ = ["Covid19One"]

_PARTS: dict[str, Split] = {"train": "train", "test": "test"}
_SLICE = re.compile(r"^(?P<volume>\d+)_\d+$")
_SAME_PATIENT = {"11": "10", "30": "29"}  # two scans of one case each, as their lengths and the source's names tell
_WINDOW = (-1250.0, 250.0)  # Hounsfield units; the usual lung window, level -500 and width 1500
_LABELS = (0, 1, 2, 3)
_INFECTION = (1, 2)  # ground glass and consolidation; 3 is pleural effusion, outside the lung


class Covid19One(Reader):
    """Reads the slices of the M2SNet release; where there are none, the NIfTI files of medicalsegmentation.com."""

    card = DataCard(
        name="covid19_1",
        title="COVID19-1, lung CT slices of the M2SNet release",
        modality="radiology",
        targets=("infection",),
        citation="Ma et al., Toward data-efficient learning: a benchmark for COVID-19 CT lung and infection segmentation, "
        "Medical Physics 48:1197-1210 (2021); COVID-19 CT segmentation dataset, medicalsegmentation.com (2020); release: Zhao "
        "et al., M2SNet, arXiv:2303.10894.",
        licence="not known for the release; its sources: CC BY-NC-SA 4.0 and CC0 1.0 (not confirmed)",
        url="https://github.com/Xiaoqi-Zhao-DLUT/MSNet-M2SNet",
        expected_cases=1277,
        layout="train/{images,masks} and test/{images,masks}, or COVID-19_Lung_Infection_train/ and _test/ likewise; "
        "<volume>_<slice>.jpg with .png masks. Else, of medicalsegmentation.com, tr_im.nii.gz with tr_mask.nii.gz, and rp_im/ "
        "with rp_msk/. A subset is fine.",
        split_rule="Official: the folders train (894) and test (383) of the release; there is no validation set.",
        traps=(
            "The official split divides by slice: all 20 volumes of the test part are also in training, 354 of its 383 slices.",
            "The first part of a name is the volume: 001 is not 1, and 7_tiny is no slice of volume 7 but one of 100 single "
            "slices (0_tiny to 99_tiny) of unnamed patients, each its own group.",
            "Volumes 10 and 11, and 29 and 30, are two scans of one case and one group; this follows from their lengths.",
            "Every third slice of 20 volumes, so neighbours are alike; masks at its ends may be empty (not confirmed).",
            "The layout of the test archive is not confirmed. Masks are cut at 127, as in the code of the MADGNet paper.",
            "In the NIfTI files infection is ground glass or consolidation, our choice; the lists do not name their slices.",
        ),
        verified=False,
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the slices, with the folder as the official split; or the slices of the NIfTI files."""
        roots = {part: find_place(folder, part, f"COVID-19_Lung_Infection_{part}") for part in _PARTS}
        present = [part for part in _PARTS if (folder / roots[part]).is_dir()]
        if not present:
            pairs = _nifti_pairs(folder)
            if pairs:
                return _list_nifti(folder, pairs)
        listings = [_list_part(folder, roots[part], _PARTS[part]) for part in present or ["train"]]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a slice: (H, W, C) uint8; of NIfTI files in the window -1250 to 250.

        Raises:
            FileProblem: The file cannot be used.
        """
        file, part = split_part(path)
        return stretch(read_slice(file, int(part), axes=None), window=_WINDOW)[..., None] if part else read_image_file(file)

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127, in NIfTI files label 1 or 2: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        file, part = split_part(path)
        if not part:
            return read_mask_file(file, threshold=JPEG_THRESHOLD)
        labels = check_labels(file, read_slice(file, int(part), axes=None), known=_LABELS)
        return np.isin(labels, _INFECTION).astype(np.uint8)


def _list_part(folder: Path, root: str, split: Split) -> Listing:
    """List one part of the release."""
    entries, problems = paired_entries(folder, f"{root}/images", f"{root}/masks", group=_volume)
    return [replace(entry, official=split) for entry in entries], problems


def _volume(stem: str) -> str:
    """The case that a slice is of; a single slice is its own."""
    match = _SLICE.match(stem)
    return _SAME_PATIENT.get(match["volume"], match["volume"]) if match else stem


def _nifti_pairs(folder: Path) -> dict[str, tuple[str, str]]:
    """From a prefix of case_ids to image and mask: the stack of single slices, and the volumes of rp_im/."""
    pairs: dict[str, tuple[str, str]] = {}
    stack = find_volume(folder, "tr_im")
    if stack:
        pairs["tr"] = (stack, find_volume(folder, "tr_mask") or "tr_mask.nii.gz")
    for path in sorted((folder / "rp_im").glob("*.nii*")):
        stem = path.name.partition(".")[0]
        pairs[f"rp_{stem}"] = (f"rp_im/{path.name}", find_volume(folder, f"rp_msk/{stem}") or f"rp_msk/{stem}.nii.gz")
    return pairs


def _list_nifti(folder: Path, pairs: dict[str, tuple[str, str]]) -> Listing:
    """List every slice; a volume is a group, a slice of the stack its own."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for prefix, (image, mask) in pairs.items():
        if not (folder / mask).is_file():
            problems.append(Problem(str(folder / image), "image without a mask", f"add {mask}"))
            continue
        try:
            count, mask_count = (read_header(folder / file, axes=None).shape[0] for file in (image, mask))
        except FileProblem as error:
            problems.append(error.problem)
            continue
        if count != mask_count:
            problem = f"mask has {mask_count} slices, image has {count}"
            problems.append(Problem(str(folder / mask), problem, "copy or download both files again"))
            continue
        for index in range(count):
            case_id = f"{prefix}_{index:03}"
            group = case_id if prefix == "tr" else prefix
            entries.append(Entry(case_id, group, f"{image}::{index}", f"{mask}::{index}"))
    return entries, problems
