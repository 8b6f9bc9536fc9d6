"""The base of every data set: it lists its cases and reads them as arrays."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.manifest import Case, Manifest
from madgnet_bench.errors import DataErrors, Problem

__all__ = ["FileProblem", "SegmentationDataset", "check_datasets"]


class FileProblem(Exception):
    """A file cannot be used as it is; carries the `Problem` that a table shows."""

    def __init__(self, file: str, problem: str, fix: str) -> None:
        self.problem = Problem(file, problem, fix)
        super().__init__(f"{file}: {problem}; {fix}")


class SegmentationDataset(ABC):
    """A data set, or one domain of it. Building one touches no file; `manifest` lists the files; readers decode them.

    Attributes:
        name: Its name in tables, such as ``dsb2018/he``; unique in an experiment.
        card: What it is.
        split_name: By which rule its cases are train, val and test: ``clean`` or ``official`` for a set known by name,
            ``own`` for a user's folder, ``generated`` for phantoms.
    """

    name: str
    card: DataCard
    split_name: str = "own"

    @abstractmethod
    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List the cases, and everything found wrong while listing, without decoding any image."""

    @abstractmethod
    def read_image(self, case: Case) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Decode a case's image: (*spatial, C), uint8, or float32 in [0, 1]; C is 1 or 3.

        Raises:
            FileProblem: The file is missing, damaged or not an image.
        """

    @abstractmethod
    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """Decode a case's reference: (K, *spatial) uint8 in {0, 1}, in the order of the card's targets.

        Raises:
            FileProblem: The file is missing, damaged, or not a mask by the rule of this set.
        """

    def file(self, path: str) -> str:
        """Where a path of a case lies, as the user would find it."""
        return path

    def spacing(self, case: Case) -> tuple[float, ...] | None:
        """Millimetres per pixel or voxel along the spatial axes, or None where unknown."""
        return None

    @cached_property
    def manifest(self) -> Manifest:
        """The cases.

        Raises:
            DataErrors: The folder is missing or empty, or files do not pair.
        """
        cases, problems = self.scan()
        if problems:
            raise DataErrors(self.name, problems)
        return Manifest(self.name, cases)

    def check(self, *, step: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
        """Decode every file and report everything wrong with it, listing included; once where several cases share a file.

        Args:
            step: Called after every case with how many are done and how many there are.
        """
        cases, problems = self.scan()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for done, found in enumerate(pool.map(self._check_case, cases), start=1):
                problems += found
                step(done, len(cases))
        problems = list(dict.fromkeys(problems))
        if not cases and not problems:
            problems.append(Problem(self.name, "the data set is empty", "check the folder and the chosen domain"))
        return problems

    def _check_case(self, case: Case) -> Sequence[Problem]:
        problems: list[Problem] = []
        arrays: list[NDArray[np.generic]] = []
        for read in (self.read_image, self.read_mask):
            try:
                arrays.append(read(case))
            except FileProblem as error:
                problems.append(error.problem)
        if len(arrays) == 2:
            image, mask = arrays
            if image.shape[:-1] != mask.shape[1:]:
                sizes = f"mask is {_size(mask.shape[1:])}, image is {_size(image.shape[:-1])}"
                problems.append(Problem(self.file(case.mask), sizes, "export the mask at the image's size"))
            if not np.isfinite(image).all():
                fix = "export the image again without them"
                problems.append(Problem(self.file(case.image), "holds NaN or infinite values", fix))
        return problems


def check_datasets(datasets: Iterable[SegmentationDataset]) -> None:
    """Decode every file of several data sets and raise everything wrong with them in one table.

    Raises:
        DataErrors: With one row per problem, over all the sets.
    """
    problems = [(dataset.name, problem) for dataset in datasets for problem in dataset.check()]
    if problems:
        raise DataErrors(", ".join(dict.fromkeys(name for name, _ in problems)), [problem for _, problem in problems])


def _size(shape: tuple[int, ...]) -> str:
    """Write a size as width x height."""
    return " x ".join(str(side) for side in reversed(shape))
