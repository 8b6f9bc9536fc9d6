"""What every reader of an official layout offers, and the common case of two folders with matching names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.images import IMAGE_SUFFIXES, read_image_file, read_mask_file
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.errors import Problem

__all__ = ["SPLIT_BY_GROUP", "TEST_ONLY", "Entry", "Listing", "Reader", "paired_entries"]

SPLIT_BY_GROUP = (
    "Ours: by group, within each domain, 70 % train, 10 % val, 20 % test, seed 0; "
    "a domain of fewer than three groups is all test."
)
TEST_ONLY = "All cases are test."


@dataclass(frozen=True)
class Entry:
    """A case before it has a split; the attributes are those of `Case`.

    Attributes:
        official: The split that the set's own layout or lists give it; None where they give none.
    """

    case_id: str
    group_id: str
    image: str
    mask: str
    domain: str = ""
    official: Split | None = None


Listing = tuple[list[Entry], list[Problem]]


class Reader(ABC):
    """Knows how one data set lies on disk and how its files are decoded; holds no path and no state.

    Attributes:
        card: What the data set is.
        test_only: All cases are test.
    """

    card: DataCard
    test_only: bool = False

    @abstractmethod
    def list_entries(self, folder: Path) -> Listing:
        """List the cases in a copy of the set, and what is wrong with it, without decoding images.

        Args:
            folder: An existing folder in the official layout.
        """

    def read_image(self, path: Path) -> NDArray[np.uint8]:
        """Decode an image file: (H, W, C) uint8; a volume is (D, H, W, C).

        Args:
            path: The file; where `Entry.image` names a part of it, ``FILE::PART`` (see `images.split_part`).

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_image_file(path)

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Decode one mask file: (H, W) uint8 in {0, 1}; several files of a case are united afterwards.

        Args:
            path: The file; where `Entry.mask` names a part of it, ``FILE::PART``, as the target of a label map.

        Raises:
            FileProblem: The file cannot be used, or is not a mask by the rule of this set.
        """
        return read_mask_file(path)

    def spacing(self, path: Path) -> tuple[float, ...] | None:
        """Millimetres per pixel or voxel of an image along its spatial axes; None where the set does not tell.

        Args:
            path: As in `read_image`.

        Raises:
            FileProblem: The file cannot be used.
        """
        return None


def paired_entries(
    folder: Path,
    images: str,
    masks: str,
    *,
    mask_ending: str = "",
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    mask_suffixes: frozenset[str] = IMAGE_SUFFIXES,
    group: Callable[[str], str] = str,
    domain: Callable[[str], str] = lambda stem: "",
) -> Listing:
    """List two folders in which image and mask have the same stem; files of other kinds are passed over.

    Args:
        folder: Folder of the data set.
        images: Folder of the images inside it.
        masks: Folder of the masks inside it.
        mask_ending: What stems of masks have behind the stem of their image.
        image_suffixes: Endings of the images, in lower case.
        mask_suffixes: Endings of the masks, in lower case.
        group: From a stem, which is the case_id, to the group_id.
        domain: From a stem to the domain.
    """
    found_images, problems = files_by_stem(folder, images, suffixes=image_suffixes)
    found_masks, mask_problems = files_by_stem(folder, masks, suffixes=mask_suffixes, ending=mask_ending)
    if not problems and not mask_problems:
        mask_problems = unmatched(folder, found_images, found_masks, masks_folder=masks)
    entries = [
        Entry(case_id=stem, group_id=group(stem), image=image, mask=found_masks[stem], domain=domain(stem))
        for stem, image in found_images.items()
        if stem in found_masks
    ]
    return entries, problems + mask_problems
