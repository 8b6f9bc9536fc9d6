"""Splits by group: a patient, video or volume is in one split only."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

from madgnet_bench.catalog.manifest import Split
from madgnet_bench.errors import ConfigError

__all__ = ["check_fractions", "split_by_group"]


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
