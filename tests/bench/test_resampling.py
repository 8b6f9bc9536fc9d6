from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import PROTOCOL, case_rows, write_result, write_run
from scipy import stats

from madgnet_bench.bench import resampling
from madgnet_bench.bench.resampling import (
    REPLICATES,
    interval,
    read_all_replicates,
    read_replicates,
    replicates,
    weights_key,
    write_replicates,
)
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder

FAR = ("unseen", "far", "lesion", PROTOCOL)


def test_the_draws_are_the_same_on_every_machine_and_version() -> None:
    """Whoever changes the draws must name the scheme anew, or stored replicates no longer pair."""
    key = weights_key("busi", ["b", "a", "c"])
    assert key == "ace1ce55b31670e49c9758c7edb72f51"
    values = replicates(np.array([1.0, 10.0, 100.0]), np.array([1, 1, 1]), key)
    assert [round(3 * value) for value in values[:6]] == [120, 12, 201, 111, 201, 111]
    stream = iter(np.random.PCG64(int(key, 16)).random_raw(3 * REPLICATES).tolist())
    drawn = [sum((1, 10, 100)[(next(stream) >> 32) * 3 >> 32] for _ in range(3)) / 3 for _ in range(REPLICATES)]
    assert values == pytest.approx(drawn)


def test_the_key_names_data_set_and_groups_in_any_order() -> None:
    assert weights_key("x", ["b", "a", "a"]) == weights_key("x", ["a", "b"])
    assert len({weights_key("x", ["a", "b"]), weights_key("y", ["a", "b"]), weights_key("x", ["a", "c"])}) == 3


def test_a_constant_stays_and_a_mean_is_met() -> None:
    key = weights_key("x", "abcdefg")
    counts = np.array([1, 2, 3, 4, 5, 6, 7])
    assert replicates(0.25 * counts, counts, key) == pytest.approx(0.25)
    sums = np.array([0.1, 0.5, 2.0, 1.0, 4.0, 3.0, 1.0])
    drawn = replicates(sums, counts, key)
    assert drawn.shape == (REPLICATES,)
    assert drawn.mean() == pytest.approx(sums.sum() / counts.sum(), abs=0.01)


def test_whole_groups_are_drawn_as_many_as_there_are() -> None:
    groups = 5
    weights = groups * replicates(np.eye(groups), np.ones(groups, dtype=int), weights_key("x", map(str, range(groups))))
    assert np.allclose(weights, weights.round())
    assert np.allclose(weights.sum(axis=1), groups)
    expected = stats.binom.pmf(range(groups + 1), groups, 1 / groups)
    found = np.bincount(weights[:, 2].round().astype(int), minlength=groups + 1) / REPLICATES
    assert found == pytest.approx(expected, abs=0.04)


def test_many_groups_are_drawn_in_chunks_with_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts, key = np.arange(40.0), np.ones(40, dtype=int), weights_key("x", "y")
    whole = replicates(sums, counts, key)
    monkeypatch.setattr(resampling, "_DRAWS", 97)
    assert np.allclose(replicates(sums, counts, key), whole, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_means_and_differences_of_replicates_are_replicates_of_them(groups: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    counts = draw.integers(1, 4, groups)
    one, two = draw.random((2, groups))
    key = weights_key("x", map(str, range(groups)))
    a, b = replicates(one, counts, key), replicates(two, counts, key)
    assert np.allclose(replicates((one + two) / 2, counts, key), (a + b) / 2)
    assert np.allclose(replicates(one - two, counts, key), a - b)
    assert np.allclose(replicates(np.stack([one, two], axis=1), counts, key), np.stack([a, b], axis=1))


@pytest.mark.parametrize("groups", [2, 3, 4, 10, 51, 1000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_reads_the_expanded_percentiles(groups: int, level: float) -> None:
    values = np.random.default_rng(0).normal(size=REPLICATES)
    t = stats.t.ppf(1 - (1 - level) / 2, groups - 1)
    tail = stats.norm.cdf(-math.sqrt(groups / (groups - 1)) * t)
    assert interval(values, groups, level=level) == pytest.approx(tuple(np.quantile(values, [tail, 1 - tail])), abs=1e-6)


def test_one_group_has_no_interval() -> None:
    assert interval(np.zeros(REPLICATES), 1) is None
    assert interval(np.full(REPLICATES, 0.5), 2) == (0.5, 0.5)


def _normal(draw: np.random.Generator, counts: np.ndarray, times: int) -> tuple[np.ndarray, float]:
    return draw.normal(0.8, 0.05, (len(counts), times)) * counts[:, None], 0.8


def _skewed(draw: np.random.Generator, counts: np.ndarray, times: int) -> tuple[np.ndarray, float]:
    return draw.beta(9, 1, (len(counts), times)) * counts[:, None], 0.9


def _clustered(draw: np.random.Generator, counts: np.ndarray, times: int) -> tuple[np.ndarray, float]:
    patients = draw.beta(9, 2, (len(counts), times))
    cases = [draw.beta(20 * p, 20 * (1 - p), (n, times)).sum(axis=0) for p, n in zip(patients, counts, strict=True)]
    return np.stack(cases), 9 / 11


@pytest.mark.parametrize("scores", [_normal, _skewed, _clustered])
def test_intervals_cover_the_truth_with_fifty_groups(scores) -> None:  # type: ignore[no-untyped-def]
    """4,000 simulations, so the standard error is 0.35 percentage points."""
    draw = np.random.default_rng(20240611)
    counts = draw.integers(1, 6, 50)
    sums, truth = scores(draw, counts, 4000)
    drawn = replicates(sums, counts, weights_key("coverage", map(str, range(50))))
    ends = [interval(column, 50) for column in drawn.T]
    covered = np.mean([low <= truth <= high for low, high in ends])  # type: ignore[misc]
    assert 0.93 <= covered <= 0.97


def test_what_is_stored_is_what_is_computed(tmp_path: Path) -> None:
    folder = write_run(tmp_path, case_rows())
    computed = read_replicates(folder, "dsc")
    path = write_replicates(folder)
    assert path == folder.path / "replicates.npz"
    stored = read_replicates(folder, "dsc")
    assert stored.keys() == computed.keys() == {("seen", "near", "lesion", PROTOCOL), FAR}
    for key, drawn in stored.items():
        assert np.array_equal(drawn.values, computed[key].values)
        assert (drawn.mean, drawn.groups, drawn.key) == (computed[key].mean, computed[key].groups, computed[key].key)
    assert stored[FAR].groups == 4
    values = [row.measures["dsc"] for row in folder.read_cases() if row.dataset == "far"]
    assert stored[FAR].mean == pytest.approx(np.mean(values), abs=1e-7)


def test_stored_replicates_are_read_without_the_case_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path, case_rows())
    write_replicates(folder)
    monkeypatch.setattr(resampling, "read_table", lambda *_: pytest.fail("was read"))
    assert read_replicates(folder, "mae")[FAR].groups == 4


@pytest.mark.parametrize("damage", ["changed table", "cut file", "other scheme", "other measures"])
def test_stale_or_damaged_replicates_are_computed_anew(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path, case_rows(measures=("mae",)) if damage == "other measures" else case_rows())
    path = write_replicates(folder)
    rows = case_rows(seed=2)
    if damage in ("changed table", "other measures"):
        folder.write_cases(rows)
        write_result(folder, rows)
    elif damage == "cut file":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        stored = dict(np.load(path))
        np.savez(path, **{**stored, "scheme": "older", "dsc": stored["dsc"] * 0})
    expected = read_replicates(write_run(tmp_path / "fresh", folder.read_cases()), "dsc")
    assert np.array_equal(read_replicates(folder, "dsc")[FAR].values, expected[FAR].values)


def test_several_runs_at_once_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, case_rows(seed), seed=seed) for seed in (1, 2)]
    folders.append(write_run(tmp_path, case_rows(3, cases={"near": 6, "far": 5}), seed=3))
    write_replicates(folders[1])
    together = read_all_replicates(folders, "dsc")
    for folder, table in zip(folders, together, strict=True):
        alone = read_replicates(folder, "dsc")
        assert all(np.allclose(table[key].values, alone[key].values, rtol=0, atol=1e-7) for key in alone)
    assert together[0][FAR].key == together[1][FAR].key != together[2][FAR].key


def test_pooled_measures_have_no_replicates(tmp_path: Path) -> None:
    assert read_replicates(RunFolder(tmp_path / "nowhere"), "ece") == {}


def test_a_damaged_case_table_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, case_rows())
    folder.cases_file.write_text(folder.cases_file.read_text().replace("case-01", "case-00", 1))
    with pytest.raises(RunError, match=r"cases\.csv, line 3: case .* stands twice"):
        write_replicates(folder)
    with pytest.raises(RunError, match="no case table"):
        read_replicates(RunFolder(tmp_path / "nowhere"), "dsc")


def test_reading_takes_neither_pandas_nor_scipy_nor_torch(tmp_path: Path) -> None:
    folder = write_run(tmp_path, case_rows())
    write_replicates(folder)
    code = f"""
import sys
from pathlib import Path
from madgnet_bench.bench.resampling import interval, read_replicates
from madgnet_bench.records import RunFolder
for drawn in read_replicates(RunFolder(Path({str(folder.path)!r})), "dsc").values():
    assert interval(drawn.values, drawn.groups)
assert not [name for name in ("pandas", "scipy", "torch") if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
