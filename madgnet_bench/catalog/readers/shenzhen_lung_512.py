"""Shenzhen chest X-rays with lung masks, 512 x 512."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_mask_file
from madgnet_bench.catalog.readers.base import SPLIT_BY_GROUP, Listing, Reader, paired_entries
from madgnet_bench.errors import Problem

__all__ = ["ShenzhenLung512"]

_DOMAINS = {"0": "normal", "1": "tuberculosis"}


class ShenzhenLung512(Reader):
    """Reads films of healthy and tuberculous lungs; the last digit of a name tells them apart."""

    card = DataCard(
        name="shenzhen_lung_512",
        title="Shenzhen Hospital chest X-rays with lung masks, 512 x 512",
        modality="radiology",
        targets=("lung",),
        domains=("normal", "tuberculosis"),
        citation="Jaeger et al., Automatic tuberculosis screening using chest radiographs, IEEE TMI 33:233-245 (2014); "
        "Candemir et al., IEEE TMI 33:577-590 (2014); masks: Stirenko et al., arXiv:1803.01199.",
        licence="CC BY-NC-SA 4.0 (masks); images of the US National Library of Medicine, to be cited",
        url="https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/Shenzhen-Hospital-CXR-Set/index.html",
        expected_cases=566,
        layout="images/CHNCXR_<nnnn>_<0|1>.jpg and masks/ with the same names, resized to 512 x 512. A subset is fine.",
        split_rule=SPLIT_BY_GROUP,
        traps=(
            "Masks are JPEG files: they are cut at 127.",
            "The films are not square: the copy at 512 x 512 changes their shape.",
            "Masks leave out the part of the lung behind the heart.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List images/ and masks/, and report names without a known last digit."""
        entries, problems = paired_entries(folder, "images", "masks", domain=lambda stem: _DOMAINS.get(stem[-1], ""))
        for entry in entries:
            if not entry.domain:
                fix = "end the stem with _0 (normal) or _1 (tuberculosis)"
                problems.append(Problem(str(folder / entry.image), "the name tells no domain", fix))
        return entries, problems

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Foreground is above 127: (H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_mask_file(path, threshold=JPEG_THRESHOLD)
