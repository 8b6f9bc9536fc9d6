"""BraTS 2021: brain tumours in four MRI sequences, as volumes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import split_part, stretch
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Entry, Listing, Reader
from madgnet_bench.catalog.volumes import check_labels, find_volume, read_header, read_volume
from madgnet_bench.errors import Problem

__all__ = ["Brats2021"]

_MODALITIES = ("t1", "t1ce", "t2", "flair")
_PATIENT = re.compile(r"BraTS2021_\d{5}")
_LABELS = {"et": (4,), "tc": (1, 4), "wt": (1, 2, 4)}
_KNOWN = (0, 1, 2, 4)


class Brats2021(Reader):
    """Reads one case per patient and sequence; the sequence is the domain, and the three nested targets are the same."""

    card = DataCard(
        name="brats2021",
        title="BraTS 2021 challenge, brain tumours, volumes",
        modality="mri",
        targets=tuple(_LABELS),
        containment=(("et", "tc"), ("tc", "wt")),
        domains=_MODALITIES,
        citation="Baid et al., The RSNA-ASNR-MICCAI BraTS 2021 benchmark on brain tumor segmentation and radiogenomic "
        "classification, arXiv:2107.02314 (2021); Menze et al., IEEE TMI 34:1993-2024 (2015); Bakas et al., Scientific Data "
        "4:170117 (2017).",
        licence="Terms of the challenge, after registration (not confirmed); the later public release is said to be CC BY 4.0",
        url="https://www.synapse.org/Synapse:syn25829067/wiki/610863",
        expected_cases=5004,
        layout="BraTS2021_<nnnnn>/BraTS2021_<nnnnn>_{t1,t1ce,t2,flair,seg}.nii.gz, directly or in one folder. A subset of the "
        "patients, or of the sequences, is fine.",
        split_rule=SPLIT_BY_GROUP + " The split of a patient is the same in all sequences if each has the same patients.",
        traps=(
            "1,251 patients with labels, four cases each: those of a patient share one segmentation. The patients of the "
            "official validation set have no labels and are not read.",
            "Label values: 1 necrotic core, 2 oedema, 4 enhancing tumour; there is no 3, unlike in BraTS 2023. "
            "ET is 4, TC is 1 and 4, WT is 1, 2 and 4.",
            "Each volume is clipped between the 1 and 99 percentiles of its positive values and scaled to 0 .. 255: the "
            "background becomes 0. Cropping to the brain is a transform.",
            "Some patients have no enhancing tumour: that mask is empty.",
            "The patients come from many hospitals, which are not named; some are in earlier BraTS sets.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the patients; a sequence that some patients have and others lack is reported where it lacks."""
        patients = _patients(folder)
        if not patients:
            fix = "unpack the training archive there"
            return [], [Problem(str(folder), "holds no folder named BraTS2021_<nnnnn>", fix)]
        found = {patient: {m: find_volume(folder, _stem(patient, m)) for m in (*_MODALITIES, "seg")} for patient in patients}
        used = [m for m in _MODALITIES if any(files[m] for files in found.values())] or list(_MODALITIES)
        entries: list[Entry] = []
        problems: list[Problem] = []
        for patient, files in found.items():
            images = {modality: path for modality in used if (path := files[modality])}
            problems += _problems(folder, patient, used, files)
            if mask := files["seg"]:
                entries += [_entry(patient, modality, image, mask) for modality, image in images.items()]
        return entries, problems

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode a volume, clipped between the 1 and 99 percentiles of its positive values: (D, H, W, 1) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        volume = read_volume(path)
        positive = volume[volume > 0]
        if not positive.size:
            return np.zeros((*volume.shape, 1), np.uint8)
        low, high = np.percentile(positive, (1, 99))
        return stretch(volume, window=(float(low), float(high)))[..., None]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one target of a segmentation, ``FILE::TARGET``: (D, H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used, or holds other values than 0, 1, 2 and 4.
        """
        file, target = split_part(path)
        labels = check_labels(file, read_volume(file), known=_KNOWN)
        return np.isin(labels, _LABELS[target]).astype(np.uint8)

    def spacing(self, path: Path) -> tuple[float, ...]:
        """Millimetres per voxel along D, H and W.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_header(path).spacing


def _patients(folder: Path) -> list[str]:
    """The patients' folders, relative to the set's: in it, or in folders of it that are not the validation set's."""
    inner = [path for path in folder.iterdir() if path.is_dir() and "validation" not in path.name.lower()]
    roots = [folder, *(path for path in inner if not _PATIENT.fullmatch(path.name))]
    found = [path for root in roots for path in root.iterdir() if _PATIENT.fullmatch(path.name) and path.is_dir()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _stem(patient: str, modality: str) -> str:
    return f"{patient}/{patient.rpartition('/')[2]}_{modality}"


def _entry(patient: str, modality: str, image: str, mask: str) -> Entry:
    """The case of one patient and sequence."""
    name = patient.rpartition("/")[2]
    return Entry(f"{name}_{modality}", name, image, ";".join(f"{mask}::{target}" for target in _LABELS), modality)


def _problems(folder: Path, patient: str, used: list[str], files: dict[str, str | None]) -> list[Problem]:
    """What a patient lacks: sequences that other patients have, or the segmentation."""
    problems = [
        Problem(str(folder / f"{_stem(patient, modality)}.nii.gz"), "the image is missing", "restore it, or remove the patient")
        for modality in used
        if not files[modality]
    ]
    if not files["seg"]:
        name = f"{_stem(patient, 'seg').rpartition('/')[2]}.nii.gz"
        problems.append(Problem(str(folder / patient), "image without a mask", f"add {name} or remove the patient"))
    return problems
