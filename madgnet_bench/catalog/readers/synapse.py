"""Synapse multi-organ (BTCV abdomen): eight organs in abdominal CT, axial slices."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import split_part, stretch
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader
from madgnet_bench.catalog.volumes import check_labels, find_volume, read_header, read_slice
from madgnet_bench.errors import Problem

__all__ = ["Synapse"]

_PREFIXES = ("RawData/Training/", "Abdomen/RawData/Training/", "Training/", "")
_NAME = re.compile(r"(?P<kind>img|label)(?P<number>\d{4})\.nii(\.gz)?")
_WINDOW = (-125.0, 275.0)  # Hounsfield units, as in TransUNet
_LABELS = {
    "aorta": 8,
    "gallbladder": 4,
    "left_kidney": 3,
    "right_kidney": 2,
    "liver": 6,
    "pancreas": 11,
    "spleen": 1,
    "stomach": 7,
}
_KNOWN = tuple(range(14))
_TEST = frozenset({"0001", "0002", "0003", "0004", "0008", "0022", "0025", "0029", "0032", "0035", "0036", "0038"})


class Synapse(Reader):
    """Reads the labelled volumes of the challenge slice by slice, from below upwards."""

    card = DataCard(
        name="synapse",
        title="Synapse multi-organ (BTCV abdomen), slices",
        modality="radiology",
        targets=tuple(_LABELS),
        citation="Landman et al., MICCAI multi-atlas labeling beyond the cranial vault: workshop and challenge (2015); "
        "split and organs: Chen et al., TransUNet, arXiv:2102.04306.",
        licence="Terms of the challenge, after registration (not confirmed)",
        url="https://www.synapse.org/Synapse:syn3193805/wiki/217789",
        expected_cases=3779,
        layout="RawData/Training/img/img<nnnn>.nii.gz and RawData/Training/label/label<nnnn>.nii.gz (0001 to 0010 and 0021 to "
        "0040). The preprocessed npz and h5 files of TransUNet are not read. A subset of the volumes is fine.",
        split_rule="By volume, as in TransUNet's lists: 18 train, 12 test; there is no validation set. It is not the "
        "challenge's own split, whose test volumes have no public labels.",
        traps=(
            "The 8 organs that are usually reported, of 13 labelled ones: the oesophagus, both large veins and the adrenal "
            "glands are background here.",
            "Values are Hounsfield units, shown in the window -125 to 275.",
            "Slices are turned to one orientation by the headers: rows run from front to back, columns from right to left.",
            "Slices are 2.5 to 5 mm apart, and some hold no organ: their masks are empty.",
            "Published results mostly measure whole volumes; here every slice is a case, and its volume is the group.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the slices of the labelled volumes; only the headers of the files are read."""
        prefix = next((p for p in _PREFIXES if any((folder / f"{p}{kind}").is_dir() for kind in ("img", "label"))), None)
        if prefix is None:
            names = [f"{_PREFIXES[0]}{kind}" for kind in ("img", "label")]
            return [], [Problem(str(folder / name), "the folder is missing", "unpack RawData.zip there") for name in names]
        entries: list[Entry] = []
        problems: list[Problem] = []
        numbers = {match["number"] for path in (folder / prefix).glob("*/*.nii*") if (match := _NAME.fullmatch(path.name))}
        for number in sorted(numbers):
            try:
                entries += _list_volume(folder, prefix, number)
            except FileProblem as error:
                problems.append(error.problem)
        if not numbers:
            problems.append(Problem(str(folder / prefix), "holds no img<nnnn>.nii.gz", "unpack RawData.zip there"))
        return entries, problems

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a slice, ``FILE::INDEX``, in the window: (H, W, 1) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        file, index = split_part(path)
        return stretch(read_slice(file, int(index)), window=_WINDOW)[..., None]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one organ of a slice, ``FILE::INDEX:TARGET``: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used, or holds other values than 0 to 13.
        """
        file, part = split_part(path)
        index, _, target = part.partition(":")
        labels = check_labels(file, read_slice(file, int(index)), known=_KNOWN)
        return (labels == _LABELS[target]).astype(np.uint8)

    def spacing(self, path: Path) -> tuple[float, ...]:
        """Millimetres per pixel of a slice along H and W.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_header(split_part(path)[0]).spacing[1:]


def _list_volume(folder: Path, prefix: str, number: str) -> list[Entry]:
    """List the slices of one volume, after its image and labels were found to have one size.

    Raises:
        FileProblem: A file is missing or cannot be used, or the sizes differ.
    """
    image, mask = (find_volume(folder, f"{prefix}{kind}/{kind}{number}") for kind in ("img", "label"))
    if image is None or mask is None:
        lost, problem = ("img", "mask without an image") if image is None else ("label", "image without a mask")
        fix = f"add {lost}/{lost}{number}.nii.gz or remove this file"
        raise FileProblem(str(folder / (image or mask or prefix)), problem, fix)
    sizes = [read_header(folder / path).shape for path in (image, mask)]
    if sizes[0] != sizes[1]:
        shown = [" x ".join(map(str, reversed(size))) for size in sizes]
        raise FileProblem(str(folder / mask), f"mask is {shown[1]}, image is {shown[0]}", "copy both files again as published")
    return [
        Entry(
            case_id=f"img{number}_{index:03}",
            group_id=f"img{number}",
            image=f"{image}::{index}",
            mask=";".join(f"{mask}::{index}:{target}" for target in _LABELS),
            official="test" if number in _TEST else "train",
        )
        for index in range(sizes[0][0])
    ]
