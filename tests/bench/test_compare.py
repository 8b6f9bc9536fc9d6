from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from madgnet_bench import __version__
from madgnet_bench.bench.compare import LEVEL, Comparison, compare
from madgnet_bench.bench.store import Run, load_runs
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.records import CaseRow, RunFolder, summarize, write_atomically

PROTOCOL = "madgnet[size=64]"
GROUPS = 10


def write_run(
    root: Path,
    seed: int,
    scores: dict[str, Sequence[float]],
    *,
    network: str = "UNet 8-16",
    manifests: dict[str, str] | None = None,
    config: str = "lr: 0.1",
    deviations: Sequence[str] = (),
) -> Run:
    """Write a finished run by hand: per test set one DSC per case, two cases to a group; MAE is a tenth of what DSC lacks."""
    folder = RunFolder(root / f"{network.split()[0]}-{config[-1]}-{seed}")
    rows = [
        CaseRow(
            case_id=f"c{place:02d}",
            group_id=f"g{place // 2}",
            dataset=dataset,
            modality="ultrasound",
            domain="",
            setting="seen" if dataset == "near" else "unseen",
            target="lesion",
            protocol=PROTOCOL,
            empty_case="neither",
            measures={"dsc": float(score), "mae": (1 - float(score)) / 10},
        )
        for dataset, values in scores.items()
        for place, score in enumerate(values)
    ]
    write_atomically(folder.config_file, f"seed_everything: {seed}\n{config}\n")
    folder.write_cases(rows)
    folder.write_result(
        {
            "run_id": folder.path.name,
            "suite": "s",
            "network": network,
            "parameters": 10,
            "seed": seed,
            "epochs": 2,
            "image_size": 64,
            "protocol": PROTOCOL,
            "checkpoint": {"rule": "best", "epoch": 1, "monitor": "val/dsc", "value": 0.5},
            "training_sets": ["near"],
            "manifests": manifests or dict.fromkeys(scores, "00"),
            "splits": {},
            "cells": summarize(folder.read_cases()),
            "package": {"version": __version__, "commit": None},
            "hardware": {},
            "seconds": 1.0,
            "deviations": list(deviations),
        }
    )
    return load_runs([folder.path]).runs[0]


def draw(seed: int, mean: float, *, spread: float = 0.01, noise: float = 0.02, cases: int = 2 * GROUPS) -> np.ndarray:
    """Scores of one training: its own level and noise per case, both drawn from the seed."""
    random = np.random.default_rng(seed)
    return np.clip(mean + spread * random.standard_normal() + noise * random.standard_normal(cases), 0, 1)


def sides(tmp_path: Path, *, fall: float = 0.0, seeds: int = 2, baseline_seeds: int = 6) -> tuple[list[Run], list[Run]]:
    before = [write_run(tmp_path / "a", s, {"near": draw(s, 0.8), "far": draw(s + 50, 0.6)}) for s in range(baseline_seeds)]
    after = [
        write_run(tmp_path / "b", s, {"near": draw(s, 0.8), "far": draw(s + 50, 0.6 - fall)}) for s in range(10, 10 + seeds)
    ]
    return before, after


def verdicts(found: Comparison) -> dict[tuple[str, str], str]:
    return {(cell.dataset, cell.measure.name): cell.verdict for cell in found.cells}


def test_an_unchanged_candidate_holds(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path))
    assert not found.failed
    assert set(verdicts(found).values()) == {"held"}
    assert all(cell.cases == () and cell.p is not None and cell.p > LEVEL for cell in found.cells)


def test_a_fall_is_found_in_both_measures_with_its_worst_cases_first(tmp_path: Path) -> None:
    before, after = sides(tmp_path, fall=0.3)
    found = compare(before, after, shown=3)
    assert found.failed
    assert verdicts(found) == {("far", "dsc"): "fell", ("far", "mae"): "fell", ("near", "dsc"): "held", ("near", "mae"): "held"}
    cell = found.cells[0]
    assert cell.measure.name == "dsc"
    assert cell.change == pytest.approx(cell.candidate - cell.baseline)
    assert cell.tolerance is not None and 0 < cell.tolerance < -cell.change
    assert len(cell.cases) == 3
    falls = [case.baseline - case.candidate for case in cell.cases]
    assert falls == sorted(falls, reverse=True)
    mae = found.cells[1]
    assert mae.candidate > mae.baseline and mae.change < 0  # lower is better, and a negative change is worse


def test_a_rise_does_not_fail(tmp_path: Path) -> None:
    found = compare(*sides(tmp_path, fall=-0.3))
    assert not found.failed
    assert verdicts(found)["far", "dsc"] == "rose"


def test_the_tolerance_is_the_bound_computed_by_hand(tmp_path: Path) -> None:
    before, after = sides(tmp_path)
    found = compare(before, after, measures=["dsc"], level=0.01)
    for cell in found.cells:
        tables = []
        for runs in (before, after):
            rows = [[row for row in run.folder.read_cases() if row.dataset == cell.dataset] for run in runs]
            tables.append(np.array([[row.measures["dsc"] for row in one] for one in rows]))
        change = tables[1].mean(0) - tables[0].mean(0)
        seeds = tables[0].mean(1).var(ddof=1) * (1 / 6 + 1 / 2)
        groups = change.reshape(GROUPS, 2).mean(1)
        cases = groups.var(ddof=1) / GROUPS
        freedom = (seeds + cases) ** 2 / (seeds**2 / 5 + cases**2 / (GROUPS - 1))
        error = math.sqrt(seeds + cases)
        # both cells are held, so that both face the level of the first place in Holm's order
        assert cell.tolerance == pytest.approx(error * stats.t.isf(0.01 / 2, freedom), rel=1e-6)
        raw = stats.t.sf(-change.mean() / error, freedom)
        assert raw <= cell.p <= min(1, 2 * raw) + 1e-9 or cell.p == 1


def test_false_alarms_are_rarer_than_the_level_says(tmp_path: Path) -> None:
    """2,000 unchanged candidates of two cells at a level of 10 %: more than 12 % would be a chance of one in a thousand."""
    from madgnet_bench.bench import compare as module

    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        p_values = []
        for _ in range(2):
            before = random.normal(0, 1, 5)
            after = random.normal(0, 1, 2)
            error = before.std(ddof=1) * math.sqrt(1 / 5 + 1 / 2)
            p_values.append(module._p(before.mean() - after.mean(), module._Test(0.0, error, 4)))
        alarms += min(p for p, _ in module._holm(p_values, 0.1)) < 0.1
    assert 0.06 < alarms / 2000 < 0.12


def test_holm_by_hand() -> None:
    from madgnet_bench.bench.compare import _holm

    corrected = _holm([0.04, 0.001, 0.03], 0.05)
    assert [p for p, _ in corrected] == pytest.approx([0.06, 0.003, 0.06])
    assert [level for _, level in corrected] == pytest.approx([0.025, 0.05 / 3, 0.025])


def test_few_cases_that_make_a_fall_must_fall_further(tmp_path: Path) -> None:
    before = [write_run(tmp_path / "a", s, {"near": np.full(20, 0.8 + 0.001 * s)}) for s in range(6)]
    everywhere = [write_run(tmp_path / "b", s, {"near": np.full(20, 0.75)}) for s in range(2)]
    one = np.full(20, 0.8)
    one[0] = 0.0
    single = [write_run(tmp_path / "c", s, {"near": one}) for s in range(2)]
    assert compare(before, everywhere).failed
    assert not compare(before, single).failed


def test_a_missing_cell_fails_and_a_new_one_does_not(tmp_path: Path) -> None:
    before, _ = sides(tmp_path)
    less = [write_run(tmp_path / "c", 1, {"near": draw(1, 0.8)})]
    found = compare(before, less)
    assert found.failed
    assert verdicts(found)["far", "dsc"] == "missing"
    more = [
        write_run(tmp_path / "d", s, {"near": draw(s, 0.8), "far": draw(s, 0.6), "further": draw(s, 0.4)}) for s in range(2)
    ]
    found = compare(before, more)
    assert not found.failed
    assert verdicts(found)["further", "dsc"] == "new"


def test_differences_below_the_floor_are_no_fall(tmp_path: Path) -> None:
    before = [write_run(tmp_path / "a", s, {"near": np.full(20, 0.8)}) for s in range(5)]
    just = [write_run(tmp_path / "b", 1, {"near": np.full(20, 0.7985)})]
    below = [write_run(tmp_path / "c", 1, {"near": np.full(20, 0.79)})]
    assert not compare(before, just, measures=["dsc"]).failed
    assert compare(before, below, measures=["dsc"]).failed


def test_what_differs_between_the_sides_is_noted(tmp_path: Path) -> None:
    before, _ = sides(tmp_path, baseline_seeds=3)
    after = [
        write_run(tmp_path / "c", 7, {"near": draw(7, 0.8), "far": draw(7, 0.6)}, config="lr: 0.2", deviations=["in parts."])
    ]
    notes = " ".join(compare(before, after).notes)
    assert "3 seeds" in notes
    assert "another configuration" in notes
    assert "in parts" in notes


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    before, after = sides(tmp_path)
    scores = {"near": draw(1, 0.8), "far": draw(1, 0.6)}
    other_cases = [write_run(tmp_path / "c", 1, scores, manifests={"near": "00", "far": "11"})]
    two_recipes = [*after, write_run(tmp_path / "d", 1, scores, config="lr: 0.2")]
    twice = [*after, write_run(tmp_path / "e" / "again", 10, scores)]
    with pytest.raises(RunError, match="far does not hold the same cases"):
        compare(before, other_cases)
    with pytest.raises(RunError, match="in two configurations"):
        compare(before, two_recipes)
    with pytest.raises(RunError, match="seed 10 of UNet 8-16 twice"):
        compare(before, twice)
    with pytest.raises(RunError, match="one seed"):
        compare(before[:1], after)
    with pytest.raises(RunError, match="no finished run in the candidate"):
        compare(before, [])
    with pytest.raises(ConfigError, match="did you mean 'dsc'"):
        compare(before, after, measures=["dscc"])
    with pytest.raises(ConfigError, match="level=2"):
        compare(before, after, level=2)
    with pytest.raises(RunError, match=r"no run of the baseline holds protocol native; it holds madgnet\[size=64\]"):
        compare(before, after, protocol="native")


def test_sides_of_other_cases_are_refused(tmp_path: Path) -> None:
    before, _ = sides(tmp_path)
    after = [write_run(tmp_path / "c", s, {"near": draw(s, 0.8), "far": draw(s + 50, 0.6)[:6]}) for s in (20, 21)]
    with pytest.raises(
        RunError, match=r"on far, lesion: baseline and candidate do not hold the same cases \(\d+ and 6; case c"
    ):
        compare(before, after)
