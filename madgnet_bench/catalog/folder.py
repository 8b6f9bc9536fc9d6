"""A user's own folder of images and masks as a data set, without a line of code."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.images import JPEG_THRESHOLD, read_image_file, read_mask_file, read_masks
from madgnet_bench.catalog.listing import files_by_stem, unmatched
from madgnet_bench.catalog.manifest import Case, Split
from madgnet_bench.catalog.splits import check_fractions, split_by_group
from madgnet_bench.errors import ConfigError, Problem

__all__ = ["FolderDataset"]

_SPLITS = ("train", "val", "test")


class FolderDataset(SegmentationDataset):
    """Images and masks with the same stems, in two folders.

    ``images/case7.png`` belongs with ``masks/case7.png``; with several targets, with ``masks/<target>/case7.png`` for
    each. Formats may differ (``.tif`` with ``.png``). Masks are strictly binary (0 and 255, or 0 and 1); JPEG masks are
    cut at 127. Images deeper than 8 bits are stretched by their own 0.5 and 99.5 percentiles.

    Args:
        path: The folder.
        targets: Names of the targets, in the order of the mask's channels.
        name: Name in tables; None takes the folder's name, in lower case with underscores.
        modality: Imaging modality, for tables.
        images: Folder of the images inside ``path``.
        masks: Folder of the masks inside ``path``.
        group_pattern: Regular expression that is searched in the stem; its first group is the patient, video or volume,
            as in ``^(p[0-9]+)_``. None makes every image its own group.
        split_file: CSV with the columns case_id and split (train, val, test), relative to ``path`` or absolute; case_id
            is the stem. None splits by group, at random.
        fractions: Shares of train, val and test, where there is no ``split_file``.
        split_seed: Chooses the random split.

    Raises:
        ConfigError: There is no target or one twice, the pattern is no regular expression with a group, or the fractions
            do not sum to 1.
    """

    def __init__(
        self,
        path: str,
        *,
        targets: tuple[str, ...] = ("lesion",),
        name: str | None = None,
        modality: str = "unknown",
        images: str = "images",
        masks: str = "masks",
        group_pattern: str | None = None,
        split_file: str | None = None,
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
        split_seed: int = 0,
    ) -> None:
        targets = tuple(targets)
        if not targets or len(set(targets)) < len(targets):
            raise ConfigError(f"targets of {path} must be one or more different names, not {list(targets)}.")
        check_fractions(fractions)
        self.folder = Path(path).expanduser()
        self.name = name or _plain(path)
        self._images = images.strip("/")
        masks = masks.strip("/")
        self._mask_folders = (masks,) if len(targets) == 1 else tuple(f"{masks}/{target}" for target in targets)
        self._group_pattern = None if group_pattern is None else _compile(group_pattern)
        self._split_file = None if split_file is None else self.folder / split_file
        self._fractions = fractions
        self._split_seed = split_seed
        self.card = DataCard(
            name=self.name,
            title=f"Images and masks of the folder {self.folder.name or path}",
            modality=modality,
            targets=targets,
            layout=" with ".join(f"{folder}/<stem>" for folder in (self._images, *self._mask_folders)),
            split_rule=f"as {split_file} says" if split_file else f"by group, shares {fractions}, seed {split_seed}",
        )

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List the cases, and every file that does not pair, group or split, in one go."""
        if not self.folder.is_dir():
            return [], [Problem(str(self.folder), "the folder is missing", "name the folder that holds images and masks")]
        images, masks, problems = self._list_files()
        stems = [stem for stem in images if all(stem in files for files in masks)]
        groups, group_problems = self._groups({stem: images[stem] for stem in stems})
        splits, split_problems = self._splits(groups, listed=frozenset(images))
        cases = [
            Case(
                case_id=stem,
                group_id=groups[stem],
                image=images[stem],
                mask=";".join(files[stem] for files in masks),
                split=splits.get(stem, "train"),  # without a split there is a problem, and no manifest
            )
            for stem in stems
        ]
        return cases, problems + group_problems + split_problems

    def file(self, path: str) -> str:
        """Where a path of a case lies."""
        return str(self.folder / path)

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        """Decode an image: (H, W, C) uint8.

        Raises:
            FileProblem: The file cannot be used.
        """
        return read_image_file(self.folder / case.image)

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """Decode the masks of all targets: (K, H, W) uint8 in {0, 1}.

        Raises:
            FileProblem: A file cannot be used, is not binary, or the targets' files differ in size.
        """
        return read_masks(self.folder, case.mask, read=_read_user_mask)

    def _list_files(self) -> tuple[dict[str, str], list[dict[str, str]], list[Problem]]:
        """Images by stem, masks by stem for each target, and what does not pair."""
        images, problems = files_by_stem(self.folder, self._images, strict=True)
        if not images and not problems:
            problems.append(Problem(self.file(self._images), "the folder is empty", "put the images there"))
        masks: list[dict[str, str]] = []
        for folder in self._mask_folders:
            found, mask_problems = files_by_stem(self.folder, folder, strict=True)
            if images and not found and not mask_problems:
                mask_problems = [Problem(self.file(folder), "the folder is empty", "put the masks there")]
            elif images and found:
                mask_problems += unmatched(self.folder, images, found, masks_folder=folder)
            masks.append(found)
            problems += mask_problems
        for stem in [stem for stem in images if "|" in stem or ";" in stem]:
            problems.append(Problem(self.file(images.pop(stem)), "the name holds | or ;", "rename image and mask"))
        return images, masks, problems

    def _groups(self, images: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
        """The group of each stem; a stem without one by the pattern is its own, and a problem."""
        groups = {stem: stem for stem in images}
        problems: list[Problem] = []
        if self._group_pattern is None:
            return groups, problems
        for stem, path in images.items():
            match = self._group_pattern.search(stem)
            if match and match.group(1):
                groups[stem] = match.group(1)
            else:
                fix = "rename the file or change group_pattern"
                problems.append(Problem(self.file(path), "group_pattern finds no group in the name", fix))
        return groups, problems

    def _splits(self, groups: dict[str, str], *, listed: frozenset[str]) -> tuple[dict[str, Split], list[Problem]]:
        """The split of each stem, from the split file or at random by group."""
        if self._split_file is not None:
            return _read_splits(self._split_file, groups, listed)
        if not groups:
            return {}, []
        try:
            return split_by_group(groups, fractions=self._fractions, seed=self._split_seed), []
        except ConfigError as error:
            return {}, [Problem(str(self.folder), str(error), "or give a split_file")]


def _read_user_mask(path: Path) -> NDArray[np.uint8]:
    """Strict, except for JPEG."""
    return read_mask_file(path, threshold=JPEG_THRESHOLD if path.suffix.lower() in (".jpg", ".jpeg") else None)


def _plain(path: str) -> str:
    """A folder's name in lower case, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", Path(os.path.abspath(path)).name.lower()).strip("_") or "folder"


def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a group pattern, or say what is wrong with it."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"group_pattern {pattern!r} is not a regular expression: {error}.") from None
    if compiled.groups == 0:
        raise ConfigError(f"group_pattern {pattern!r} has no group: put parentheses around the patient, as in ^(p[0-9]+)_.")
    return compiled


def _read_splits(path: Path, groups: Mapping[str, str], listed: frozenset[str]) -> tuple[dict[str, Split], list[Problem]]:
    """Read a split file, and report each row and each case that does not fit.

    Args:
        path: The CSV.
        groups: From stem to group, of the complete cases.
        listed: Stems of all images, also of those without a mask, which are reported elsewhere.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a CSV in UTF-8"
        return {}, [Problem(str(path), f"the split file cannot be read ({reason})", "name a CSV of case_id and split")]
    if not rows or not {"case_id", "split"} <= rows[0].keys():
        return {}, [Problem(str(path), "the split file has no rows of case_id and split", "its first line is case_id,split")]
    splits: dict[str, Split] = {}
    problems: list[Problem] = []
    for line, row in enumerate(rows, start=2):
        case_id, split, where = row["case_id"], row["split"], f"{path}, line {line}"
        if split not in _SPLITS:
            problems.append(Problem(where, f"unknown split {split!r}", f"write one of {', '.join(_SPLITS)}"))
        elif case_id not in listed:
            problems.append(Problem(where, f"no image has the stem {case_id!r}", "correct the row or remove it"))
        elif case_id in splits:
            problems.append(Problem(where, f"case {case_id!r} stands twice", "remove one of the rows"))
        if case_id not in splits:
            splits[case_id] = cast(Split, split)
    problems += [Problem(str(path), f"no row for case {stem!r}", "add it") for stem in groups if stem not in splits]
    return splits, problems + _straddling(path, groups, splits)


def _straddling(path: Path, groups: Mapping[str, str], splits: Mapping[str, Split]) -> list[Problem]:
    """Report groups with cases in several splits."""
    where: dict[str, set[str]] = {}
    for stem, group in groups.items():
        if stem in splits:
            where.setdefault(group, set()).add(splits[stem])
    return [
        Problem(str(path), f"group {group!r} is in {' and '.join(sorted(found))}", "put all its cases in one split")
        for group, found in where.items()
        if len(found) > 1
    ]
