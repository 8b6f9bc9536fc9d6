"""docs/statistics.md names what exists, and its conclusions are those of its tables."""

import re
from pathlib import Path

import pytest

from benchmarks.statistics_check import NAIVE, TESTS, WORLDS
from madgnet_bench.bench import statistics

TEXT = (Path(__file__).parents[3] / "docs" / "statistics.md").read_text(encoding="utf-8")
RECORDS = {"Comparison", "EffectSizes", "Friedman", "Holm", "Nemenyi", "RankStability", "WelchSummary", "nemenyi_difference"}


def table(heading):
    """The rows of the first table after a heading, by their first cells up to the first number."""
    lines = TEXT.partition(heading)[2].partition("\n|")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def numbers(row):
    return [float(cell) for cell in row if re.fullmatch(r"[\d.]+", cell)]


def test_every_method_is_documented_and_every_name_exists():
    named = set(re.findall(r"`(\w+)[`(.]", TEXT))
    assert set(statistics.__all__) - RECORDS <= named | {"PairedScores"}
    for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)[`(]", TEXT):
        assert hasattr(statistics, name) or name == "equal_spread", name


def test_own_nulls():
    _, rows = table("### False positives under each test's own null")
    assert {row[0].strip("`") for row in rows} == set(TESTS)
    for row in rows:
        groups, *shares = numbers(row)
        if row[0] in ("`sign_flip_test`", "`wilcoxon_test`", "`seed_test`") or (row[0] == "`two_way_test`" and groups == 50):
            assert all(4 <= share <= 6 for share in shares), row
        assert max(shares) <= 6, row


def test_all_worlds_and_tests_are_in_the_table_of_runs():
    header, rows = table("### What 2, 3 and 5 runs buy")
    assert header[2:] == [*TESTS, *NAIVE]
    assert {(row[0], row[1]) for row in rows} == {(world, runs) for world in WORLDS for runs in "235"}
    two_way = {(row[0], row[1]): float(row[2]) for row in rows}
    for (world, runs), share in two_way.items():
        if world == "one model spreads 4 x as much":
            assert (share > 6) == (runs == "2")
        elif world == "models differ in no case":
            assert share < 3.8
        else:
            assert 3.8 <= share <= 5.5, (world, runs)
    naive = [float(cell) for row in rows for cell in row[-3:]]
    assert min(naive) > 15


def test_intervals_cover_with_fifty_groups():
    _, rows = table("### Intervals")
    for world, groups, _, two_way, jackknife, bootstrap in rows:
        if groups == "50":
            shares = [two_way, jackknife, bootstrap] if world == "runs agree" else [two_way]
            assert all(93 <= float(share) <= 97 for share in shares), world


@pytest.mark.parametrize("heading", ["in the typical world", "of Nemenyi, whether any pair"])
def test_the_other_tables_stand_there(heading):
    assert len(table(heading)[1]) >= 3


def test_friedman_holds_its_level():
    _, rows = table("of Nemenyi, whether any pair")
    for row in rows:
        _, _, friedman, _, _, nemenyi = numbers(row)
        assert friedman <= 6 and nemenyi <= 6
