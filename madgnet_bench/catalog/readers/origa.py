"""ORIGA-light: optic disc and cup in fundus photographs."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import read_grey_file, split_part
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.catalog.volumes import check_labels
from madgnet_bench.errors import Problem

__all__ = ["Origa"]

_MASKS = "Masks"
_MAT_MASKS = "Semi-automatic-annotations"
_LABELS = (0, 1, 2)
_SETS: dict[str, Split] = {"A": "train", "B": "test"}


class Origa(Reader):
    """Reads label maps in which 1 is the rim of the disc and 2 the cup, from PNG or MATLAB files."""

    card = DataCard(
        name="origa",
        title="ORIGA-light, optic disc and cup",
        modality="fundus",
        targets=("disc", "cup"),
        containment=(("cup", "disc"),),
        citation="Zhang et al., ORIGA-light: an online retinal fundus image database for glaucoma analysis and research, "
        "EMBC 2010, 3065-3068.",
        licence="On request from the authors (not confirmed); the terms of the public copies are not known",
        url="https://doi.org/10.1109/IEMBS.2010.5626137",
        expected_cases=650,
        layout="Images/<nnn>.jpg and Masks/<nnn>.png (0, 1 rim, 2 cup), or Semi-automatic-annotations/<nnn>.mat with a "
        "variable mask of the same values, and OrigaList.csv: as in the public copy (Kaggle, arnavjain1/glaucoma-datasets, "
        "folder ORIGA). The layout of the authors' own archive could not be confirmed. A subset is fine.",
        split_rule="Official, from the column Set of OrigaList.csv: A is train (325), B is test (325); there is no "
        "validation set.",
        traps=(
            "The public copy also holds Images_Cropped and Images_Square with masks of their own: they are not read.",
            "Its Images/ are cut in width, so that the 3072 x 2048 maps of the MATLAB files do not fit them: those are read "
            "only where there is no folder Masks.",
            "A copy of 10 MB without masks is also named ORIGA.",
            "MMSNet lists 500 train and 150 test: another split. Which structure is its target is not known.",
            "The patient of an image is not known, so every image is its own group.",
        ),
        verified=False,
    )

    def list_entries(self, folder: Path) -> Listing:
        """List Images/ and Masks/, or the MATLAB files where there is no Masks/, and read the sets of OrigaList.csv."""
        place = find_place(folder, "Images", "ORIGA/Images")
        root = place.removesuffix("Images")
        images, problems = files_by_stem(folder, place, suffixes=frozenset({".jpg"}))
        mat = not (folder / f"{root}{_MASKS}").is_dir() and (folder / f"{root}{_MAT_MASKS}").is_dir()
        name, suffix = (_MAT_MASKS, ".mat") if mat else (_MASKS, ".png")
        masks, mask_problems = files_by_stem(folder, f"{root}{name}", suffixes=frozenset({suffix}))
        problems += mask_problems or ([] if problems else unmatched(folder, images, masks, masks_folder=name))
        official, table_problems = _read_sets(folder / f"{root}OrigaList.csv")
        entries = [
            Entry(stem, stem, image, f"{masks[stem]}::disc;{masks[stem]}::cup", official=official.get(stem))
            for stem, image in images.items()
            if stem in masks
        ]
        return entries, problems + table_problems

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one target of a label map, ``FILE::disc`` or ``FILE::cup``: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used, or holds other values than 0, 1 and 2.
        """
        file, target = split_part(path)
        values = _read_mat(file) if file.suffix == ".mat" else read_grey_file(file)
        labels = check_labels(file, values, known=_LABELS)
        return (labels == 2 if target == "cup" else labels > 0).astype(np.uint8)


def _read_sets(path: Path) -> tuple[dict[str, Split], list[Problem]]:
    """Read the official sets from OrigaList.csv, where there is one."""
    if not path.is_file():
        return {}, []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"Filename", "Set"} <= rows[0].keys():
        return {}, [Problem(str(path), "lacks the columns Filename and Set", "copy it again, or remove it")]
    problems = [
        Problem(f"{path}, line {line}", f"unknown set {row['Set']!r}", "write A or B")
        for line, row in enumerate(rows, start=2)
        if row["Set"] not in _SETS
    ]
    return {Path(row["Filename"]).stem: _SETS[row["Set"]] for row in rows if row["Set"] in _SETS}, problems


def _read_mat(path: Path) -> NDArray[Any]:
    """The variable ``mask`` of a MATLAB file; nothing else in it is read, and no object of it is ever called."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        values = loadmat(path, variable_names=["mask"]).get("mask")
    except FileNotFoundError:
        raise FileProblem(str(path), "the file is missing", "restore it, or remove its partner as well") from None
    except (MatReadError, OSError, ValueError, TypeError, KeyError, NotImplementedError, zlib.error) as error:
        fix = "copy or download the file again"
        raise FileProblem(str(path), f"not a MATLAB file that can be read ({error})", fix) from None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "uifb":
        raise FileProblem(str(path), "holds no image named mask", "copy the file again as published")
    return values
