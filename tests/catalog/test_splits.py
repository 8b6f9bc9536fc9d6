import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madgnet_bench.catalog.splits import check_fractions, split_by_group
from madgnet_bench.errors import ConfigError

SHARES = (0.7, 0.1, 0.2)


def singles(count):
    return {f"c{i:03}": f"c{i:03}" for i in range(count)}


@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=30), seed=st.integers(0, 5), shuffle=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_groups_stay_together_whatever_the_order(sizes, seed, shuffle):
    cases = [(f"g{g}-{i}", f"g{g}") for g, size in enumerate(sizes) for i in range(size)]
    splits = split_by_group(dict(cases), fractions=SHARES, seed=seed)
    random.Random(shuffle).shuffle(cases)
    assert split_by_group(dict(cases), fractions=SHARES, seed=seed) == splits
    assert all(len({splits[case] for case, group in cases if group == one}) == 1 for one in {group for _, group in cases})
    assert set(splits.values()) == {"train", "val", "test"}
    assert splits.keys() == dict(cases).keys()


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (10, (7, 1, 2)), (50, (35, 5, 10)), (98, (69, 9, 20))])
def test_counts_are_exact_for_single_cases(count, expected):
    counts = Counter(split_by_group(singles(count), fractions=SHARES, seed=0).values())
    assert (counts["train"], counts["val"], counts["test"]) == expected


def test_counts_come_within_half_a_group():
    groups = {f"{g}-{i}": f"{g}" for g in range(20) for i in range(5)}
    counts = Counter(split_by_group(groups, fractions=(0.72, 0.08, 0.2), seed=3).values())
    assert counts == {"train": 70, "val": 10, "test": 20}


def test_seed_chooses_and_golden_order_holds():
    one, two = (split_by_group(singles(40), fractions=SHARES, seed=seed) for seed in (0, 1))
    assert one != two
    tests = sorted(case for case, split in split_by_group(singles(10), fractions=SHARES, seed=0).items() if split == "test")
    assert tests == GOLDEN


GOLDEN = ["c002", "c005"]


def test_later_cases_move_few_of_the_others():
    before = split_by_group(singles(100), fractions=SHARES, seed=0)
    after = split_by_group(singles(110), fractions=SHARES, seed=0)
    assert sum(before[case] != after[case] for case in before) <= 10


def test_a_split_of_no_share_stays_empty():
    assert set(split_by_group(singles(5), fractions=(0.5, 0.0, 0.5), seed=0).values()) == {"train", "test"}
    assert set(split_by_group(singles(1), fractions=(0.0, 0.0, 1.0), seed=0).values()) == {"test"}


def test_one_huge_group_leaves_room_for_the_other_splits():
    groups = {f"a{i}": "a" for i in range(90)} | {"b": "b", "c": "c"}
    assert set(split_by_group(groups, fractions=SHARES, seed=0).values()) == {"train", "val", "test"}


def test_too_few_groups():
    with pytest.raises(ConfigError, match=r"2 groups cannot fill 3 splits \(train, val, test\)"):
        split_by_group({"a1": "a", "a2": "a", "b": "b"}, fractions=SHARES, seed=0)


@pytest.mark.parametrize("fractions", [(0.7, 0.3), (0.7, 0.1, 0.1), (1.2, -0.2, 0.0)])
def test_fractions_must_be_shares_of_a_whole(fractions):
    with pytest.raises(ConfigError, match="sum to 1"):
        check_fractions(fractions)
