"""The data sets known by name: one table of readers, and the data set that a name, a domain and a data root make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.images import read_masks, split_part
from madgnet_bench.catalog.manifest import Case, Split
from madgnet_bench.catalog.readers.acdc import Acdc
from madgnet_bench.catalog.readers.base import Entry, Reader
from madgnet_bench.catalog.readers.bbbc039 import Bbbc039
from madgnet_bench.catalog.readers.brats2021 import Brats2021
from madgnet_bench.catalog.readers.busi import Busi
from madgnet_bench.catalog.readers.chasedb1 import Chasedb1
from madgnet_bench.catalog.readers.covid19_1 import Covid19One
from madgnet_bench.catalog.readers.covid19_2 import Covid19Two
from madgnet_bench.catalog.readers.drishti_gs import DrishtiGs
from madgnet_bench.catalog.readers.dsb2018 import Dsb2018
from madgnet_bench.catalog.readers.isic2017 import Isic2017
from madgnet_bench.catalog.readers.isic2017_val_400 import Isic2017Val400
from madgnet_bench.catalog.readers.isic2018 import Isic2018
from madgnet_bench.catalog.readers.kvasir_seg import KvasirSeg, KvasirSeg256
from madgnet_bench.catalog.readers.monuseg2018 import Monuseg2018
from madgnet_bench.catalog.readers.monuseg2018_mixture import Monuseg2018Mixture
from madgnet_bench.catalog.readers.monuseg2018_test import Monuseg2018Test
from madgnet_bench.catalog.readers.origa import Origa
from madgnet_bench.catalog.readers.ph2 import Ph2
from madgnet_bench.catalog.readers.polyp_pranet import PolypPranet
from madgnet_bench.catalog.readers.polypgen import Polypgen
from madgnet_bench.catalog.readers.refuge import Refuge
from madgnet_bench.catalog.readers.shenzhen_lung_512 import ShenzhenLung512
from madgnet_bench.catalog.readers.stu import Stu
from madgnet_bench.catalog.readers.sunnybrook import Sunnybrook
from madgnet_bench.catalog.readers.synapse import Synapse
from madgnet_bench.catalog.readers.tn3k import Tn3k
from madgnet_bench.catalog.splits import LISTS_FOLDER, clean_splits, layout_splits, listed_splits
from madgnet_bench.errors import ConfigError, Problem

__all__ = ["DATA_ROOT_VARIABLE", "READERS", "CatalogDataset", "find_data_root"]

DATA_ROOT_VARIABLE = "MADGNET_BENCH_DATA"
"""Environment variable that names the data root where no argument does."""

READERS: dict[str, Reader] = {
    reader.card.name: reader
    for reader in (
        Acdc(),
        Bbbc039(),
        Brats2021(),
        Busi(),
        Chasedb1(),
        Covid19One(),
        Covid19Two(),
        DrishtiGs(),
        Dsb2018(),
        Isic2017(),
        Isic2017Val400(),
        Isic2018(),
        KvasirSeg(),
        KvasirSeg256(),
        Monuseg2018(),
        Monuseg2018Mixture(),
        Monuseg2018Test(),
        Origa(),
        Ph2(),
        PolypPranet(),
        Polypgen(),
        Refuge(),
        ShenzhenLung512(),
        Stu(),
        Sunnybrook(),
        Synapse(),
        Tn3k(),
    )
}
"""Every data set that can be named, by name."""

_SPLITS = ("clean", "official")


class CatalogDataset(SegmentationDataset):
    """A public data set in its official layout, or one domain of it. Building one touches no file.

    Two splits, whose rules stand in `catalog.splits`: ``clean`` keeps patients, videos and volumes together and needs no
    download; ``official`` is what was published, also where it divides them. Cases that the official split does not name are
    left out of it. An incomplete copy has an official split only where its number of cases is stated, so that a table never
    compares a part with published numbers unawares, and a copy that loses files is noticed.

    Args:
        name: Name of the data set; ``madgnet-bench data list`` shows them.
        domain: Only this domain of it.
        split: ``clean`` or ``official``.
        cases: With the official split of an incomplete copy: how many cases it has, in the chosen domain and all splits.
        data_root: Folder that holds a folder per data set; None takes the environment variable ``MADGNET_BENCH_DATA``.

    Attributes:
        notes: What the last listing found remarkable of the split, as sentences.

    Raises:
        ConfigError: The name, the domain or the split is unknown (the message gives the nearest valid one), or ``cases`` is
            given without the official split.
    """

    def __init__(
        self,
        name: str,
        *,
        domain: str | None = None,
        split: Literal["clean", "official"] = "clean",
        cases: int | None = None,
        data_root: str | None = None,
    ) -> None:
        if name not in READERS:
            raise ConfigError(f"unknown data set {name!r}: {_advice(name, sorted(READERS))}")
        self._reader = READERS[name]
        self.card = self._reader.card
        if domain is not None and domain not in self.card.domains:
            raise ConfigError(f"{name} has no domain {domain!r}: {_advice(domain, self.card.domains)}")
        if split not in _SPLITS:
            raise ConfigError(f"{name}: unknown split {split!r}: {_advice(split, _SPLITS)}")
        if cases is not None and split != "official":
            raise ConfigError(f"{name}: cases states the size of a copy for the official split; leave it out, or add split.")
        self.name = name if domain is None else f"{name}/{domain}"
        self.split_name = split
        self.notes: tuple[str, ...] = ()
        self._domain = domain
        self._cases = cases
        self._data_root = data_root

    @property
    def folder(self) -> Path:
        """Where this data set lies.

        Raises:
            ConfigError: No data root is given.
        """
        return find_data_root(self._data_root) / self.card.name

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List the cases of the chosen domain, or of all, with their splits."""
        folder = self.folder
        if not folder.is_dir():
            command = f"madgnet-bench data download {self.card.name}"
            fix = f"run `{command}`, or data prepare with --source (layout: {self.card.layout})"
            return [], [Problem(str(folder), "the folder is missing", fix)]
        entries, problems = self._reader.list_entries(folder)
        splits, more_problems = self._official(entries) if self.split_name == "official" else (self._clean(entries), [])
        cases = [
            Case(
                case_id=entry.case_id,
                group_id=entry.group_id,
                image=entry.image,
                mask=entry.mask,
                split=splits[entry.case_id],
                domain=entry.domain,
            )
            for entry in entries
            if self._domain in (None, entry.domain) and entry.case_id in splits
        ]
        return cases, problems + more_problems

    def file(self, path: str) -> str:
        """Where a path of a case lies, without the parts of the file that it names; several files of it one after the other."""
        parts = path.replace("|", ";").split(";")
        return ", ".join(dict.fromkeys(str(split_part(self.folder / part)[0]) for part in parts))

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        """Decode an image by the rule of this set: (H, W, C) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        return self._reader.read_image(self.folder / case.image)

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """Decode a reference by the rule of this set: (K, H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: A file cannot be used, or is not a mask by that rule.
        """
        return read_masks(self.folder, case.mask, read=self._reader.read_mask)

    def spacing(self, case: Case) -> tuple[float, ...] | None:
        """Millimetres per pixel or voxel of a case along its spatial axes; None where the set does not tell.

        Raises:
            FileProblem: The file cannot be used.
        """
        return self._reader.spacing(self.folder / case.image)

    def _clean(self, entries: Sequence[Entry]) -> dict[str, Split]:
        """The clean split of each case."""
        splits, notes = clean_splits(entries, test_only=self._reader.test_only)
        self.notes = tuple(note for note in notes if self._domain is None or note.startswith(f"{self._domain}: "))
        return splits

    def _official(self, entries: Sequence[Entry]) -> tuple[dict[str, Split], list[Problem]]:
        """The official split of the cases that it names, and whether they are as many as they must be.

        Raises:
            ConfigError: There is no official split, or its lists are missing.
            DataErrors: Its lists are damaged.
        """
        name = self.card.name
        listed = listed_splits(name, find_data_root(self._data_root) / LISTS_FOLDER)
        here = {entry.case_id: entry.domain for entry in entries}
        found = layout_splits(name, entries, test_only=self._reader.test_only) if listed is None else listed
        splits = {case_id: split for case_id, split in found.items() if case_id in here}
        lost = [case_id for case_id in found if case_id not in here and not self._of_another_domain(case_id)]
        count = sum(self._domain in (None, here[case_id]) for case_id in splits)
        left_out = sum(self._domain in (None, domain) for case_id, domain in here.items() if case_id not in splits)
        missing = ""
        if lost:
            missing = f"{len(lost)} cases of the official split are not here, first {lost[0]}"
        elif listed is None and len(entries) < (self.card.expected_cases or 0):
            missing = f"{len(entries)} of {self.card.expected_cases} cases are here"
        self.notes = (missing,) * bool(missing)
        if left_out:
            self.notes += (f"{left_out} cases that the official split does not name are left out",)
        problem = f"cases is {self._cases}, found {count}" if self._cases is not None else missing
        if not problem or self._cases == count:
            return splits, []
        fix = f"complete the copy, or state its size (cases: {count}): a part is not comparable with published results"
        return splits, [Problem(str(self.folder), problem, fix)]

    def _of_another_domain(self, case_id: str) -> bool:
        """Whether a name starts with a domain that was not chosen."""
        others = [domain for domain in self.card.domains if self._domain not in (None, domain)]
        return any(case_id.startswith(domain) for domain in others)


def find_data_root(data_root: str | None = None) -> Path:
    """The folder that holds a folder per data set: the argument, else what the environment variable names.

    Raises:
        ConfigError: Neither is given.
    """
    found = data_root or os.environ.get(DATA_ROOT_VARIABLE)
    if not found:
        raise ConfigError(f"no data root: pass --data_root FOLDER, or set {DATA_ROOT_VARIABLE} to the folder of the data sets.")
    return Path(found).expanduser()


def _advice(word: str, valid: Sequence[str]) -> str:
    """Name the nearest valid word, and all of them."""
    if not valid:
        return "it is one domain; leave the domain out."
    near = get_close_matches(word, valid, n=1, cutoff=0.5)
    return (f"did you mean {near[0]!r}? " if near else "") + f"Valid: {', '.join(valid)}."
