"""The polyp pool of PraNet: one training set from two sources, and five test sets."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Entry, Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["TEST_DOMAINS", "PolypPranet", "polyp_case_id", "train_domain"]

TEST_DOMAINS = {
    "CVC-ClinicDB": "cvc_clinicdb",
    "Kvasir": "kvasir",
    "CVC-300": "cvc_300",
    "CVC-ColonDB": "cvc_colondb",
    "ETIS-LaribPolypDB": "etis",
}
"""From the folder of a test set to its domain."""

# First frames of the 29 sequences of CVC-ClinicDB, from the table in the set's own readme; its last frame is 612.
_SEQUENCE_STARTS = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298),
    *(318, 343, 364, 384, 409, 429, 448, 467, 479, 504, 529, 547, 572, 592),
)
_LAST_FRAME = 612


class PolypPranet(Reader):
    """Reads TrainDataset and TestDataset; a name of digits in TrainDataset is a frame of CVC-ClinicDB."""

    card = DataCard(
        name="polyp_pranet",
        title="Polyp pool of PraNet: Kvasir-SEG and CVC-ClinicDB, with five test sets",
        modality="colonoscopy",
        targets=("polyp",),
        domains=tuple(TEST_DOMAINS.values()),
        citation="Fan et al., PraNet: parallel reverse attention network for polyp segmentation, MICCAI 2020; Bernal et al., "
        "WM-DOVA maps, CMIG 43:99-111 (2015) (CVC-ClinicDB); Jha et al., MMM 2020 (Kvasir-SEG); Vazquez et al., J Healthc Eng "
        "2017:4037190 (CVC-300); Tajbakhsh et al., IEEE TMI 35:630-644 (2016) (CVC-ColonDB); Silva et al., IJCARS 9:283-293 "
        "(2014) (ETIS-Larib).",
        licence="per source: CVC-ClinicDB for research and education only, commercial use forbidden (its readme); Kvasir-SEG "
        "as kvasir_seg; the other three: not confirmed",
        url="https://github.com/DengPingFan/PraNet",
        expected_cases=2248,
        layout="TrainDataset/{images,masks} (or image, mask) and TestDataset/<set>/{images,masks} with the sets CVC-ClinicDB, "
        "Kvasir, CVC-300, CVC-ColonDB and ETIS-LaribPolypDB; names match. A subset is fine.",
        split_rule="Official: TrainDataset (900 of kvasir, 550 of cvc_clinicdb) is train, TestDataset (62 cvc_clinicdb, "
        "100 kvasir, 60 cvc_300, 380 cvc_colondb, 196 etis) is test; there is no validation set.",
        traps=(
            "The official split divides CVC-ClinicDB by frame: its 62 test frames are of the sequences that are trained on. "
            "Sequences are groups here.",
            "Numbers repeat between the sets (25.png stands in three), so a case_id starts with the domain.",
            "Masks hold grey values at edges: they are cut at 127.",
            "CVC-300 and CVC-ColonDB come from one hospital's recordings and may share frames; the audit looks for them.",
            "The video of a frame of cvc_300, cvc_colondb and etis is not known here, nor the patient of a Kvasir image: each "
            "is its own group.",
            "The Kvasir images are those of kvasir_seg and kvasir_seg_256.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the folders that are present; the folder is the official split."""
        train = [find_place(folder, f"TrainDataset/{kind}s", f"TrainDataset/{kind}") for kind in ("image", "mask")]
        listings: list[Listing] = []
        for name, domain in TEST_DOMAINS.items():
            images, masks = (find_place(folder, f"TestDataset/{name}/{kind}") for kind in ("images", "masks"))
            if (folder / images).is_dir() or (folder / masks).is_dir():
                listings.append(_list_pair(folder, images, masks, split="test", domain=domain))
        if not listings or any((folder / place).is_dir() for place in train):
            listings.insert(0, _list_pair(folder, *train, split="train", domain=None))
        entries = [entry for pair_entries, _ in listings for entry in pair_entries]
        return entries, [problem for _, pair_problems in listings for problem in pair_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)


def polyp_case_id(domain: str, stem: str) -> str:
    """The case_id of an image, which is unique over all folders.

    Example:
        >>> polyp_case_id("etis", "25")
        'etis_25'
    """
    return f"{domain}_{stem}"


def train_domain(stem: str) -> str:
    """Where an image of TrainDataset comes from: a frame number is of CVC-ClinicDB, any other name of Kvasir-SEG."""
    return "cvc_clinicdb" if stem.isdecimal() else "kvasir"


def _list_pair(folder: Path, images: str, masks: str, *, split: Split, domain: str | None) -> Listing:
    """List two folders of one domain, or of the domains that the names tell."""
    entries, problems = paired_entries(folder, images, masks)
    return [_placed(entry, split, domain or train_domain(entry.case_id)) for entry in entries], problems


def _placed(entry: Entry, split: Split, domain: str) -> Entry:
    """Add split, domain and group to an entry whose case_id is the stem."""
    stem = entry.case_id
    group = _sequence(stem) if domain == "cvc_clinicdb" else stem
    return replace(
        entry, case_id=polyp_case_id(domain, stem), group_id=polyp_case_id(domain, group), domain=domain, official=split
    )


def _sequence(stem: str) -> str:
    """The sequence of a frame of CVC-ClinicDB, such as ``sequence03``; the stem where it is no frame number."""
    if not stem.isdecimal() or not 1 <= int(stem) <= _LAST_FRAME:
        return stem
    return f"sequence{bisect_right(_SEQUENCE_STARTS, int(stem)):02}"
