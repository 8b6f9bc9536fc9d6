"""2018 Data Science Bowl: nuclei under several stains and microscopes (BBBC038)."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import read_image_file
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Entry, Listing, Reader
from madgnet_bench.errors import Problem

__all__ = ["Dsb2018", "stain_by_colour"]

_DOMAINS = ("fluorescence", "he", "brightfield_gray")


class Dsb2018(Reader):
    """Reads stage1_train; the target is the union of the nuclei."""

    card = DataCard(
        name="dsb2018",
        title="2018 Data Science Bowl, stage 1 training images",
        modality="microscopy",
        targets=("nucleus",),
        domains=_DOMAINS,
        citation="Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
        "Nature Methods 16:1247-1253 (2019); image set BBBC038.",
        licence="CC0 1.0; stated for the data and for the corrected annotations by the copy with corrections",
        url="https://bbbc.broadinstitute.org/BBBC038",
        expected_cases=670,
        layout="stage1_train/<id>/images/<id>.png and stage1_train/<id>/masks/*.png, one file per nucleus; "
        "optional domains.csv (ImageId,domain). A subset of the images is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "The widely used copy with corrected annotations has 664 images.",
            "The 696 x 520 fluorescence images are the assay of bbbc039, 43 of them exact duplicates: leave them out "
            "when bbbc039 is the unseen set.",
            "Domains are not official: they come from domains.csv, or from the colours of the image where it names none.",
            "The patient or slide of an image is not known, so every image is its own group.",
        ),
        links=(
            Link(
                url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
                file="stage1_train.zip",
            ),
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the images; they are decoded only where domains.csv does not name their domain."""
        root = folder / "stage1_train"
        if not root.is_dir():
            return [], [Problem(str(root), "the folder is missing", "unpack the archive of stage1_train there")]
        domains, problems = _read_domains(folder / "domains.csv")
        complete: list[str] = []
        for case_id in sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
            problem = _incomplete(root / case_id)
            if problem:
                problems.append(problem)
            else:
                complete.append(case_id)
        unknown = [case_id for case_id in complete if case_id not in domains]
        with ThreadPoolExecutor() as pool:
            domains |= zip(unknown, pool.map(stain_by_colour, [folder / _image(case_id) for case_id in unknown]), strict=True)
        entries = [
            Entry(case_id, case_id, _image(case_id), f"stage1_train/{case_id}/masks/", domains[case_id]) for case_id in complete
        ]
        return entries, problems


@lru_cache(maxsize=4096)
def stain_by_colour(path: Path) -> str:
    """Guess the stain and microscope of an image from its colours.

    Coloured (the mean over pixels of the largest minus the smallest channel exceeds 5 of 255) is ``he``; grey on a bright
    background (mean above 127) is ``brightfield_gray``; all else is ``fluorescence``, also a file that cannot be decoded,
    which reading reports. The rule is ours; its margins are wide (grey images have spread 0, stained ones above 15).

    Args:
        path: The image file; answers are remembered per path.
    """
    try:
        image = read_image_file(path).astype(np.int16)
    except FileProblem:
        return "fluorescence"
    if (image.max(axis=-1) - image.min(axis=-1)).mean() > 5:
        return "he"
    return "brightfield_gray" if image.mean() > 127 else "fluorescence"


def _image(case_id: str) -> str:
    return f"stage1_train/{case_id}/images/{case_id}.png"


def _incomplete(case: Path) -> Problem | None:
    """What a case's folder lacks."""
    image = case / "images" / f"{case.name}.png"
    if not image.is_file():
        return Problem(str(image), "the image is missing", "restore it, or remove the folder of this case")
    if not any((case / "masks").glob("*.png")):
        return Problem(str(case / "masks"), "image without a mask", "restore the masks, or remove the folder of this case")
    return None


def _read_domains(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """Read domains.csv, where there is one."""
    if not path.is_file():
        return {}, []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"ImageId", "domain"} <= rows[0].keys():
        return {}, [Problem(str(path), "lacks the columns ImageId and domain", "correct it, or remove it")]
    problems = [
        Problem(f"{path}, line {line}", f"unknown domain {row['domain']!r}", f"write one of {', '.join(_DOMAINS)}")
        for line, row in enumerate(rows, start=2)
        if row["domain"] not in _DOMAINS
    ]
    return {row["ImageId"]: row["domain"] for row in rows}, problems
