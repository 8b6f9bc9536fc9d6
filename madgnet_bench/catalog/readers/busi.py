"""BUSI: breast ultrasound with benign and malignant lesions."""

from __future__ import annotations

import re
from pathlib import Path

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.listing import files_by_stem
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Entry, Listing, Reader
from madgnet_bench.errors import Problem

__all__ = ["Busi"]

_ROOT = "Dataset_BUSI_with_GT"
_MASK = re.compile(r"^(?P<case>.+)_mask(_\d+)?$")


class Busi(Reader):
    """Reads the classes benign and malignant; several masks of one image are united."""

    card = DataCard(
        name="busi",
        title="Breast ultrasound images (BUSI)",
        modality="ultrasound",
        targets=("lesion",),
        domains=("benign", "malignant"),
        citation="Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863 (2020).",
        licence="CC0 1.0 (not confirmed); stated by a public mirror; the authors' page states none, and the article's own "
        "licence is not confirmed",
        url="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
        expected_cases=647,
        layout=f"{_ROOT}/{{benign,malignant}}/<class> (<n>).png with _mask.png, _mask_1.png and so on. A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "The 133 images of the class normal have no lesion and are not read.",
            "Patients are not named and near-duplicates are known, so a random split may leak: every image is its own group.",
            "The audit finds the same image, slightly rescaled, as malignant (4) and (5), (7), (8) and (9), (39) and (42).",
            "Some images carry callipers and text.",
        ),
        links=(
            Link(
                url="https://scholar.cu.edu.eg/Dataset_BUSI.zip",
                file="Dataset_BUSI.zip",
                sha256="b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
            ),
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List both classes; a class may be absent."""
        entries: list[Entry] = []
        problems: list[Problem] = []
        present = [domain for domain in self.card.domains if (folder / _ROOT / domain).is_dir()]
        for domain in present:
            more_entries, more_problems = _list_class(folder, domain)
            entries += more_entries
            problems += more_problems
        if not present:
            problems.append(Problem(str(folder / _ROOT), "holds neither benign nor malignant", "unpack the archive there"))
        return entries, problems


def _list_class(folder: Path, domain: str) -> Listing:
    """List the images of one class and unite their masks."""
    files, problems = files_by_stem(folder, f"{_ROOT}/{domain}")
    masks: dict[str, list[str]] = {}
    for stem in list(files):
        match = _MASK.match(stem)
        if match:
            masks.setdefault(match["case"], []).append(files.pop(stem))
    for case_id in [case_id for case_id in files if case_id not in masks]:
        problem = "image without a mask"
        problems.append(Problem(str(folder / files.pop(case_id)), problem, f"add {case_id}_mask.png or remove the image"))
    for case_id in [case_id for case_id in masks if case_id not in files]:
        problem = "mask without an image"
        problems += [Problem(str(folder / mask), problem, f"add {case_id}.png") for mask in masks.pop(case_id)]
    entries = [
        Entry(case_id, case_id, image, "|".join(sorted(masks[case_id])), domain)
        for case_id, image in files.items()
        if case_id in masks
    ]
    return entries, problems
