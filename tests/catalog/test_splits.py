import hashlib
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS, OfficialList
from madgnet_bench.catalog.readers.base import Entry
from madgnet_bench.catalog.splits import (
    check_fractions,
    clean_splits,
    layout_splits,
    list_file,
    listed_splits,
    split_by_group,
)
from madgnet_bench.errors import ConfigError, DataErrors

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


def entries(domain="", *, count, official=None, size=3, start=0):
    """Made-up cases in groups of so many."""
    numbers = range(start, start + count)
    return [Entry(f"{domain}{n:03}", f"{domain}-{n // size}", "", "", domain, official) for n in numbers]


def by_split(splits):
    found = {"train": set(), "val": set(), "test": set()}
    for case_id, split in splits.items():
        found[split].add(case_id)
    return found


def test_without_official_test_cases_the_split_is_what_it_always_was():
    cases = [*entries("a", count=40, size=1), *entries("b", count=2, size=1), *entries("c", count=30)]
    splits, notes = clean_splits(cases)
    text = "\n".join(f"{case_id} {split}" for case_id, split in sorted(splits.items()))
    assert notes == []
    # committed results stand on it; no change of this hash is harmless
    assert hashlib.sha256(text.encode()).hexdigest() == "42648b630f711f9daaa21086f5a3ad1619780f1886d8efbd8ae786d3ac168ae2"
    assert {splits[f"b{number:03}"] for number in range(2)} == {"test"}
    expected = split_by_group({e.case_id: e.group_id for e in cases if e.domain == "c"}, fractions=SHARES, seed=0)
    assert {key: split for key, split in splits.items() if key[0] == "c"} == expected


def test_official_test_cases_stay_and_a_tenth_of_the_other_groups_is_for_validation():
    cases = [*entries(count=90, official="train"), *entries(count=30, official="val", start=90)]
    cases += entries(count=60, official="test", start=120)
    splits, notes = clean_splits(cases)
    found = by_split(splits)
    assert notes == []
    assert found["test"] == {entry.case_id for entry in cases if entry.official == "test"}
    assert (len(found["train"]), len(found["val"])) == (108, 12)  # 36 and 4 of the 40 groups of three
    group = {entry.case_id: entry.group_id for entry in cases}
    groups = [{group[case_id] for case_id in found[split]} for split in found]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert clean_splits(cases[::-1]) == (splits, [])


def test_a_domain_that_only_trains_keeps_its_cases_and_one_that_only_tests_is_all_test():
    cases = [*entries("a", count=30, official="train"), *entries("b", count=6, official="test")]
    found = by_split(clean_splits(cases)[0])
    assert found["test"] == {f"b{number:03}" for number in range(6)}
    assert (len(found["train"]), len(found["val"])) == (27, 3)
    alone = [*entries(count=3, official="train"), *entries(count=3, official="test", start=3)]
    assert [len(part) for part in by_split(clean_splits(alone)[0]).values()] == [3, 0, 3]


def test_a_domain_whose_official_split_divides_groups_is_split_anew():
    leaky = [
        replace(entry, official="test" if int(entry.case_id[-3:]) % 3 == 0 else "train") for entry in entries("a", count=30)
    ]
    sound = [*entries("b", count=30, official="train"), *entries("b", count=6, official="test", start=30)]
    splits, notes = clean_splits([*leaky, *sound])
    assert notes == ["a: the official split divides 10 groups; the clean split is by group instead, 70/10/20 %"]
    assert {k: v for k, v in splits.items() if k[0] == "a"} == split_by_group(
        {entry.case_id: entry.group_id for entry in leaky}, fractions=SHARES, seed=0
    )
    assert {k for k, v in splits.items() if k[0] == "b" and v == "test"} == {f"b{number:03}" for number in range(30, 36)}


@given(
    marks=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["train", "val", "test", None]), st.booleans()), max_size=40)
)
@settings(max_examples=80, deadline=None)
def test_no_group_ever_straddles_in_the_clean_split(marks):
    cases = [Entry(f"{n}", f"{d}{g}", "", "", f"{d}", official) for n, (g, official, d) in enumerate(marks)]
    splits, _ = clean_splits(cases)
    assert splits.keys() == {entry.case_id for entry in cases}
    for group in {entry.group_id for entry in cases}:
        assert len({splits[entry.case_id] for entry in cases if entry.group_id == group}) == 1


def test_test_only_sets_are_all_test():
    assert set(clean_splits(entries(count=30, official="train"), test_only=True)[0].values()) == {"test"}
    assert set(layout_splits("stu", entries(count=3), test_only=True).values()) == {"test"}


def test_the_layout_states_the_official_split_where_nothing_else_does():
    cases = [*entries(count=3, official="train"), *entries(count=2, start=3)]
    assert layout_splits("isic2017", cases) == dict.fromkeys(["000", "001", "002"], "train")
    assert layout_splits("polyp_pranet", cases) == dict.fromkeys(["000", "001", "002"], "train")
    for name in ("isic2018", "busi"):
        with pytest.raises(ConfigError, match="run `madgnet-bench data download splits`"):
            layout_splits(name, cases)
    with pytest.raises(ConfigError, match="covid19_1: the official split is the authors' own list"):
        layout_splits("covid19_1", entries(count=3))
    with pytest.raises(ConfigError, match="sunnybrook has no official split"):
        layout_splits("sunnybrook", entries(count=3))


def made_up(folder, monkeypatch, name, parts):
    """Released lists of made-up cases."""
    items = []
    for file, (split, rows) in parts.items():
        text = "Image_Id,image_path,mask_path\n" + "".join(f"0,{row}.jpg,{row}.png\n" for row in rows)
        digest = hashlib.sha256(text.encode()).hexdigest()
        items.append(OfficialList(path=f"dataset/X/{file}", rows=len(rows), sha256=digest, split=split))
        path = folder / list_file(items[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setitem(OFFICIAL_LISTS, name, tuple(items))
    return items


def test_lists_are_read_and_checked(tmp_path, monkeypatch):
    made_up(tmp_path, monkeypatch, "covid19_1", {"train.csv": ("train", ["1_0", "1_1"]), "test.csv": ("test", ["1_2"])})
    assert listed_splits("covid19_1", tmp_path) == {"1_0": "train", "1_1": "train", "1_2": "test"}
    assert listed_splits("sunnybrook", tmp_path) is None
    assert listed_splits("covid19_1", tmp_path / "elsewhere") is None


def test_lists_that_are_not_the_released_ones_are_refused(tmp_path, monkeypatch):
    parts = {"train.csv": ("train", ["1_0", "1_1"]), "test.csv": ("test", ["1_2"])}
    items = made_up(tmp_path, monkeypatch, "covid19_1", parts)
    (tmp_path / list_file(items[0])).write_text("changed")
    (tmp_path / list_file(items[1])).unlink()
    with pytest.raises(DataErrors) as caught:
        listed_splits("covid19_1", tmp_path)
    found = [problem.problem for problem in caught.value.problems]
    assert found == ["is not the file that the authors released", "the list is missing"]
    made_up(tmp_path, monkeypatch, "covid19_1", {"train.csv": ("train", ["1_0", "1_1"]), "test.csv": ("test", ["1_1"])})
    with pytest.raises(DataErrors, match="1 cases are in another list too, first 1_1"):
        listed_splits("covid19_1", tmp_path)
    items = made_up(tmp_path, monkeypatch, "covid19_1", parts)
    monkeypatch.setitem(OFFICIAL_LISTS, "covid19_1", (replace(items[0], rows=3), items[1]))
    with pytest.raises(DataErrors, match="names 2 cases, released were 3"):
        listed_splits("covid19_1", tmp_path)
