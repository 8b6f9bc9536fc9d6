"""PH2: dermoscopic images of melanocytic lesions from one hospital."""

from __future__ import annotations

from pathlib import Path

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.readers.base import TEST_ONLY, Entry, Listing, Reader
from madgnet_bench.catalog.readers.places import find_place
from madgnet_bench.errors import Problem

__all__ = ["Ph2"]

_ROOT = "PH2 Dataset images"


class Ph2(Reader):
    """Reads the lesion masks; the masks of colours and of structures are passed over."""

    card = DataCard(
        name="ph2",
        title="PH2, dermoscopic images of the Hospital Pedro Hispano",
        modality="dermoscopy",
        targets=("lesion",),
        citation="Mendonca et al., PH2, a dermoscopic image database for research and benchmarking, EMBC 2013, 5437-5440.",
        licence="research and education only (not confirmed); the page asks for registration",
        url="https://www.fc.up.pt/addi/ph2%20database.html",
        expected_cases=200,
        layout=f"{_ROOT}/<id>/<id>_Dermoscopic_Image/<id>.bmp and {_ROOT}/<id>/<id>_lesion/<id>_lesion.bmp, with or without "
        "the folder PH2Dataset around it. A subset is fine.",
        split_rule=TEST_ONLY,
        traps=(
            "The official archive is a RAR file: unpack it with 7-Zip or unar.",
            "One hospital, one device, 200 lesions: easier than ISIC, so scores here may exceed those on the seen set.",
            "The patient of an image is not known, so every image is its own group.",
        ),
    )
    test_only = True

    def list_entries(self, folder: Path) -> Listing:
        """List the folders of the lesions; the official lists of the MADGNet paper name them by the same ids."""
        root = find_place(folder, _ROOT, f"PH2Dataset/{_ROOT}")
        if not (folder / root).is_dir():
            return [], [Problem(str(folder / root), "the folder is missing", "unpack the archive there")]
        entries: list[Entry] = []
        problems: list[Problem] = []
        for case_id in sorted(path.name for path in (folder / root).iterdir() if path.is_dir() and path.name[0] != "."):
            image = f"{root}/{case_id}/{case_id}_Dermoscopic_Image/{case_id}.bmp"
            mask = f"{root}/{case_id}/{case_id}_lesion/{case_id}_lesion.bmp"
            if not (folder / image).is_file():
                problems.append(Problem(str(folder / image), "the image is missing", "restore it, or remove the folder"))
            elif not (folder / mask).is_file():
                problems.append(Problem(str(folder / image), "image without a mask", f"restore {case_id}_lesion.bmp"))
            else:
                entries.append(Entry(case_id, case_id, image, mask))
        return entries, problems
