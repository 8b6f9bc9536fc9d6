"""ACDC: right ventricle, myocardium and left ventricle in short-axis cine MRI; slices of the two labelled frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import split_part, stretch
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader
from madgnet_bench.catalog.volumes import check_labels, find_volume, read_header, read_slice, read_volume
from madgnet_bench.errors import Problem

__all__ = ["Acdc"]

_PREFIXES = ("", "database/", "ACDC/database/")
_PARTS: tuple[tuple[str, Split], ...] = (("training", "train"), ("testing", "test"))
_LABELS = {"rv": 1, "myo": 2, "lv": 3}


class Acdc(Reader):
    """Reads the frames at end-diastole and end-systole slice by slice, along the third axis of the files."""

    card = DataCard(
        name="acdc",
        title="Automated Cardiac Diagnosis Challenge (ACDC), slices",
        modality="mri",
        targets=tuple(_LABELS),
        citation="Bernard et al., Deep learning techniques for automatic MRI cardiac multi-structures segmentation and "
        "diagnosis: is the problem solved?, IEEE TMI 37:2514-2525 (2018).",
        licence="CC BY-NC-SA 4.0 (not confirmed)",
        url="https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
        expected_cases=2978,
        layout="database/training/patient<001..100>/ and database/testing/patient<101..150>/, each with Info.cfg, "
        "patient<nnn>_frame<ff>.nii.gz and patient<nnn>_frame<ff>_gt.nii.gz. A subset of the patients is fine.",
        split_rule="Official: 100 patients (1,902 slices) train and 50 patients (1,076 slices) test, by folder; there is no "
        "validation set.",
        traps=(
            "Only the frames at end-diastole and end-systole, named in Info.cfg, are labelled; patient<nnn>_4d is not read.",
            "Slices are 5 to 10 mm apart: volumes are read as slices, each with its spacing in the plane.",
            "Brightness is stretched between the 0.5 and 99.5 percentiles of its volume, as MRI has no common scale.",
            "Slices at the ends of the heart may hold no structure: their masks are empty.",
            "The group is the patient: its two frames and all their slices.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the slices of the labelled frames; only the headers of the files are read."""
        prefix = next((p for p in _PREFIXES if any((folder / f"{p}{part}").is_dir() for part, _ in _PARTS)), None)
        if prefix is None:
            fix = "unpack the archive there"
            return [], [Problem(str(folder / name), "the folder is missing", fix) for name, _ in _PARTS]
        entries: list[Entry] = []
        problems: list[Problem] = []
        for part, official in _PARTS:
            for path in sorted((folder / f"{prefix}{part}").glob("patient*")):
                if path.is_dir():
                    more, more_problems = _list_patient(folder, f"{prefix}{part}/{path.name}", official)
                    entries += more
                    problems += more_problems
        if not entries and not problems:
            problems.append(Problem(str(folder), "holds no patient", "unpack the archive there"))
        return entries, problems

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a slice, ``FILE::INDEX``, stretched between percentiles of its volume: (H, W, 1) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        file, index = split_part(path)
        image = read_slice(file, int(index), axes=None)
        low, high = np.percentile(read_volume(file, axes=None), (0.5, 99.5))
        return stretch(image, window=(float(low), float(high)))[..., None]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one structure of a slice, ``FILE::INDEX:TARGET``: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used, or holds other values than 0 to 3.
        """
        file, part = split_part(path)
        index, _, target = part.partition(":")
        labels = check_labels(file, read_slice(file, int(index), axes=None), known=(0, *_LABELS.values()))
        return (labels == _LABELS[target]).astype(np.uint8)

    def spacing(self, path: Path) -> tuple[float, ...]:
        """Millimetres per pixel of a slice along H and W.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_header(split_part(path)[0], axes=None).spacing[1:]


def _list_patient(folder: Path, patient: str, official: Split) -> Listing:
    """List the slices of one patient's labelled frames."""
    frames, problem = _read_frames(folder / patient / "Info.cfg")
    if problem:
        return [], [problem]
    entries: list[Entry] = []
    problems: list[Problem] = []
    for frame in frames:
        try:
            entries += _list_frame(folder, f"{patient}/{patient.rpartition('/')[2]}_frame{frame:02}", official)
        except FileProblem as error:
            problems.append(error.problem)
    return entries, problems


def _read_frames(path: Path) -> tuple[list[int], Problem | None]:
    """The numbers of the frames at end-diastole and end-systole, which Info.cfg holds in the lines ED and ES."""
    try:
        lines = [line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except FileNotFoundError:
        return [], Problem(str(path), "the file is missing", "restore it: it names the labelled frames")
    found = {key.strip(): value.strip() for key, _, value in lines}
    numbers = [found.get(key, "") for key in ("ED", "ES")]
    if not all(number.isdecimal() for number in numbers):
        return [], Problem(str(path), "does not name the frames ED and ES", "copy it again as published")
    return sorted({int(number) for number in numbers}), None


def _list_frame(folder: Path, stem: str, official: Split) -> list[Entry]:
    """List the slices of one frame, after its image and labels were found to have one size.

    Raises:
        FileProblem: A file is missing or cannot be used, or the sizes differ.
    """
    image, mask = find_volume(folder, stem), find_volume(folder, f"{stem}_gt")
    if image is None:
        problem = "the image is missing" if mask is None else "mask without an image"
        raise FileProblem(str(folder / (mask or f"{stem}.nii.gz")), problem, "restore the files of this frame")
    if mask is None:
        fix = f"add {stem.rpartition('/')[2]}_gt.nii.gz or remove the patient"
        raise FileProblem(str(folder / image), "image without a mask", fix)
    sizes = [read_header(folder / path, axes=None).shape for path in (image, mask)]
    if sizes[0] != sizes[1]:
        shown = [" x ".join(map(str, reversed(size))) for size in sizes]
        raise FileProblem(str(folder / mask), f"mask is {shown[1]}, image is {shown[0]}", "copy both files again as published")
    name, group = stem.rpartition("/")[2], stem.split("/")[-2]
    return [
        Entry(
            case_id=f"{name}_{index:02}",
            group_id=group,
            image=f"{image}::{index}",
            mask=";".join(f"{mask}::{index}:{target}" for target in _LABELS),
            official=official,
        )
        for index in range(sizes[0][0])
    ]
