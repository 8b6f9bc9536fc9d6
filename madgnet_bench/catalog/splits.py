"""Splits: by group, so that a patient, video or volume is in one split only; and the official ones, as they were published.

The *clean* split needs no download; `CLEAN_RULE` states it. An official split that divides groups cannot be kept without
leaking, and to take the divided groups out of training would leave little of it (the sequences of CVC-ClinicDB, the volumes
of COVID19-1): there the clean split is ours. An official validation set is training material like the rest.

The *official* split is the authors' own lists, or what the layout of the set states where they published none.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS, OfficialList, case_ids
from madgnet_bench.errors import ConfigError, DataErrors, Problem

if TYPE_CHECKING:
    from madgnet_bench.catalog.readers.base import Entry

__all__ = [
    "CLEAN_RULE",
    "LISTS_FOLDER",
    "check_fractions",
    "clean_splits",
    "layout_splits",
    "list_file",
    "listed_splits",
    "split_by_group",
]

CLEAN_RULE = (
    "Official test cases stay test, and 10 % of the groups of all other cases are val. In a set without official test cases, "
    "and in a domain whose official split divides groups: by group, within each domain, 70 % train, 10 % val, 20 % test; a "
    "domain of fewer than three groups is all test. Seed 0."
)
"""The clean split of a set that has an official one, in words."""

LISTS_FOLDER = "splits"
"""Folder in the data root that holds the downloaded lists."""

_SEED = 0
_FRACTIONS = (0.7, 0.1, 0.2)
_VALIDATION_GROUPS = 0.1
_LISTS_REPEAT_LAYOUT = frozenset({"covid19_1", "polyp_pranet"})  # their lists name the same cases as their folders


def split_by_group(groups: Mapping[str, str], *, fractions: tuple[float, float, float], seed: int) -> dict[str, Split]:
    """Divide cases into train, val and test so that no group straddles.

    The groups are put in the order of the sha256 of ``seed/group``, and this row is cut twice, where the number of
    cases before the cut comes nearest to the wanted one; every split with a fraction above 0 gets at least one group.
    The order depends on nothing but the seed and the names: neither on the order of the input, nor on the platform or a
    library's random stream; and cases added later leave the order of the others as it is. Where every group is one case
    the counts are exact up to rounding.

    Args:
        groups: From case_id to group_id.
        fractions: Shares of train, val and test among the cases: not negative, summing to 1.
        seed: Chooses the order.

    Returns:
        From case_id to split.

    Raises:
        ConfigError: The fractions do not fit, or there are fewer groups than splits to fill.

    Example:
        >>> split_by_group({"a1": "a", "a2": "a", "b1": "b"}, fractions=(0.7, 0.0, 0.3), seed=1)
        {'a1': 'train', 'a2': 'train', 'b1': 'test'}
    """
    check_fractions(fractions)
    sizes = Counter(groups.values())
    splits: tuple[Split, ...] = ("train", "val", "test")
    wanted = [(split, fraction) for split, fraction in zip(splits, fractions, strict=True) if fraction > 0]
    if len(sizes) < len(wanted):
        needed = ", ".join(split for split, _ in wanted)
        raise ConfigError(
            f"{len(sizes)} groups cannot fill {len(wanted)} splits ({needed}): add groups, or set a fraction to 0."
        )
    order = sorted(sizes, key=lambda group: (hashlib.sha256(f"{seed}/{group}".encode()).digest(), group))
    before = [0, *accumulate(sizes[group] for group in order)]
    split_of: dict[str, Split] = {}
    start, share = 0, 0.0
    for position, (split, fraction) in enumerate(wanted):
        share += fraction
        stop = _nearest_cut(before, share * len(groups), start + 1, len(order) - (len(wanted) - 1 - position))
        stop = len(order) if position == len(wanted) - 1 else stop
        split_of |= dict.fromkeys(order[start:stop], split)
        start = stop
    return {case_id: split_of[group] for case_id, group in groups.items()}


def check_fractions(fractions: tuple[float, float, float]) -> None:
    """Refuse fractions that are not three shares of a whole.

    Raises:
        ConfigError: They are not three, one is negative, or they do not sum to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions of train, val and test must be three shares that sum to 1, not {tuple(fractions)}.")


def _nearest_cut(before: list[int], cases: float, first: int, last: int) -> int:
    """Where to cut the row of groups, between two positions, to have nearest to so many cases before the cut."""
    return min(range(first, last + 1), key=lambda cut: (abs(before[cut] - cases), cut))


def clean_splits(entries: Sequence[Entry], *, test_only: bool = False) -> tuple[dict[str, Split], list[str]]:
    """Split the cases of a set by `CLEAN_RULE`, so that no group straddles.

    Every domain is split on its own, so that choosing one domain does not move a case of another.

    Args:
        entries: The cases of the whole set, all domains.
        test_only: All cases are test.

    Returns:
        From case_id to split, and a note for every domain whose official split divides groups.
    """
    splits: dict[str, Split] = {entry.case_id: "test" for entry in entries}
    notes: list[str] = []
    if test_only:
        return splits, notes
    has_test = any(entry.official == "test" for entry in entries)
    for domain in sorted({entry.domain for entry in entries}):
        cases = [entry for entry in entries if entry.domain == domain]
        others = {entry.case_id: entry.group_id for entry in cases if entry.official != "test"}
        test_groups = {entry.group_id for entry in cases if entry.official == "test"}
        divided = test_groups & set(others.values())
        if has_test and not divided:
            splits |= _hold_out_validation(others)
            continue
        if divided:
            where = f"{domain}: " if domain else ""
            groups = "1 group" if len(divided) == 1 else f"{len(divided)} groups"
            notes.append(f"{where}the official split divides {groups}; the clean split is by group instead, 70/10/20 %")
        groups_of = {entry.case_id: entry.group_id for entry in cases}
        if len(set(groups_of.values())) >= 3:
            splits |= split_by_group(groups_of, fractions=_FRACTIONS, seed=_SEED)
    return splits, notes


def _hold_out_validation(groups: Mapping[str, str]) -> dict[str, Split]:
    """Divide the training cases: a tenth of the groups, at least one, is for validation; a single group is all train."""
    names = {group: group for group in groups.values()}
    if len(names) < 2:
        return dict.fromkeys(groups, "train")
    shares = (1 - _VALIDATION_GROUPS, _VALIDATION_GROUPS, 0.0)
    split_of = split_by_group(names, fractions=shares, seed=_SEED)
    return {case_id: split_of[group] for case_id, group in groups.items()}


def list_file(item: OfficialList) -> str:
    """Where a released list lies in the folder of the lists: its folder and file name in the repository.

    Example:
        >>> list_file(OFFICIAL_LISTS["stu"][0])
        'STU/test_frame.csv'
    """
    return "/".join(PurePosixPath(item.path).parts[-2:])


def listed_splits(name: str, folder: Path) -> dict[str, Split] | None:
    """Read the official split of a set from the authors' lists.

    Args:
        name: Name of the data set.
        folder: Folder of the downloaded lists.

    Returns:
        From case_id to split, in the order of the lists; None where the authors released none, or where they are not there.

    Raises:
        DataErrors: A list is missing while others of the set are there, is not the released file, names another number of
            cases than was released, or a case stands in two lists.
    """
    items = OFFICIAL_LISTS.get(name, ())
    if not any((folder / list_file(item)).is_file() for item in items):
        return None
    splits: dict[str, Split] = {}
    problems: list[Problem] = []
    for item in items:
        path = folder / list_file(item)
        again = "run `madgnet-bench data download splits`"
        if not path.is_file():
            problems.append(Problem(str(path), "the list is missing", again))
            continue
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != item.sha256:
            problems.append(Problem(str(path), "is not the file that the authors released", f"move it away and {again}"))
            continue
        ids = case_ids(name, item.split, content.decode(), domain=item.domain)
        if len(ids) != item.rows:
            problems.append(Problem(str(path), f"names {len(ids)} cases, released were {item.rows}", again))
        twice = [case_id for case_id in ids if case_id in splits]
        if twice:
            problems.append(Problem(str(path), f"{len(twice)} cases are in another list too, first {twice[0]}", again))
        splits |= dict.fromkeys(ids, item.split)
    if problems:
        raise DataErrors(f"{name}, official split", problems)
    return splits


def layout_splits(name: str, entries: Sequence[Entry], *, test_only: bool = False) -> dict[str, Split]:
    """The official split that the layout of a set states.

    Args:
        name: Name of the data set.
        entries: Its cases, all domains.
        test_only: All cases are test.

    Returns:
        From case_id to split; cases to which the layout gives none are left out.

    Raises:
        ConfigError: The authors' lists decide and are not there, or the set has no official split.
    """
    if test_only:
        return {entry.case_id: "test" for entry in entries}
    found = {entry.case_id: entry.official for entry in entries if entry.official is not None}
    if name in OFFICIAL_LISTS and not (name in _LISTS_REPEAT_LAYOUT and found):
        raise ConfigError(
            f"{name}: the official split is the authors' own list, which is not in the data root: run `madgnet-bench data "
            "download splits` (with --source CHECKOUT where you have their repository), or set split to clean."
        )
    if entries and not found:
        raise ConfigError(f"{name} has no official split; leave split out, or set it to clean.")
    return found
