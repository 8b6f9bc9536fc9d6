from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from madgnet_bench import __version__
from madgnet_bench.bench.store import load_runs
from madgnet_bench.errors import RunError
from madgnet_bench.records import CaseRow, RunFolder, summarize, write_atomically

REQUIRED = (
    *("run_id", "suite", "network", "parameters", "seed", "epochs", "image_size", "protocol", "checkpoint"),
    *("training_sets", "manifests", "cells", "package", "hardware", "seconds", "deviations"),
)


CELL = {
    **{"setting": "seen", "dataset": "a", "target": "tumour", "protocol": "madgnet[size=64]", "modality": "m", "domain": ""},
    **{"cases": 2, "empty": {}, "measures": {"dsc": 0.5}},
}


def content(**changes: Any) -> dict[str, Any]:
    result = {
        "run_id": "0123456789ab",
        "suite": "adhoc",
        "network": "UNet 16-256",
        "parameters": 1_900_000,
        "seed": 1,
        "epochs": 3,
        "image_size": 64,
        "protocol": "madgnet[size=64]",
        "checkpoint": {"rule": "best", "epoch": 2, "monitor": "val/dsc", "value": 0.9},
        "training_sets": ["b", "a"],
        "manifests": {"a": "00", "b": "11"},
        "package": {"version": __version__, "commit": None},
        "hardware": {"machine": "x86_64", "accelerator": "CPU", "threads": 1},
        "seconds": 12.5,
        "deviations": [],
    }
    return {**result, **changes}


def write_run(path: Path, *, config: str = "seed_everything: 1\nlr: 0.1\n", **changes: Any) -> RunFolder:
    folder = RunFolder(path)
    rows = [
        CaseRow(case, "g", "a", "ultrasound", "", "seen", "tumour", "madgnet[size=64]", "neither", {"dsc": dsc})
        for case, dsc in (("one", 0.25), ("two", 0.75))
    ]
    write_atomically(folder.config_file, config)
    folder.write_cases(rows)
    folder.write_result(content(**{"cells": summarize(rows), **changes}))
    return folder


def rewrite(folder: RunFolder, **changes: Any) -> None:
    result = json.loads(folder.result_file.read_text())
    result.update(changes)
    folder.result_file.write_text(json.dumps({key: value for key, value in result.items() if value is not ...}))


def test_a_run_is_read_with_types(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "adhoc/0123456789ab")
    (run,) = load_runs([tmp_path]).runs
    assert (run.network, run.seed, run.epochs, run.image_size, run.parameters) == ("UNet 16-256", 1, 3, 64, 1_900_000)
    assert run.training_sets == ("a", "b")
    assert run.checkpoint["epoch"] == 2
    assert run.folder == folder
    assert run.cells[0].measures == {"dsc": 0.5}
    assert run.cells[0].cases == 2
    assert not run.stale


@pytest.mark.parametrize("below", ["", "suite", "suite/0123456789ab"])
def test_runs_are_found_from_any_height(tmp_path: Path, below: str) -> None:
    write_run(tmp_path / "suite/0123456789ab")
    assert [run.run_id for run in load_runs([tmp_path / below]).runs] == ["0123456789ab"]


def test_paths_may_overlap(tmp_path: Path) -> None:
    write_run(tmp_path / "one", run_id="one")
    write_run(tmp_path / "two", run_id="two")
    assert [run.run_id for run in load_runs([tmp_path / "two", tmp_path, tmp_path / "one"]).runs] == ["two", "one"]


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: no such folder"):
        load_runs([tmp_path / "nowhere"])


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    store = load_runs([tmp_path])
    assert store.runs == store.unfinished == store.damaged == ()
    assert store.remarks() == []
    assert store.searched == (tmp_path,)


def test_unfinished_runs_are_reported_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    for name in ("killed-1", "killed-2"):
        write_atomically(tmp_path / name / "config.yaml", "a: 1\n")
    store = load_runs([tmp_path])
    assert len(store.runs) == 1
    assert [folder.path.name for folder in store.unfinished] == ["killed-1", "killed-2"]
    remarks = "\n".join(store.remarks())
    assert "2 runs are unfinished" in remarks
    assert f"madgnet-bench fit --config {tmp_path / 'killed-1' / 'config.yaml'}" in remarks


def test_many_unfinished_runs_are_counted(tmp_path: Path) -> None:
    for number in range(14):
        write_atomically(tmp_path / f"{number:02}" / "config.yaml", "a: 1\n")
    remarks = load_runs([tmp_path]).remarks()
    assert len(remarks) == 12
    assert remarks[-1] == "  ... and 4 more"


def test_configurations_inside_a_run_folder_are_no_runs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_atomically(folder.path / "wandb/files/config.yaml", "a: 1\n")
    store = load_runs([tmp_path])
    assert (len(store.runs), store.unfinished) == (1, ())


@pytest.mark.parametrize("key", REQUIRED)
def test_a_result_without_a_key_is_damaged(tmp_path: Path, key: str) -> None:
    rewrite(write_run(tmp_path), **{key: ...})
    store = load_runs([tmp_path])
    assert store.runs == ()
    assert f"no key '{key}'" in store.damaged[0] and str(tmp_path) in store.damaged[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "first"},
        {"cells": [{"setting": "seen"}]},
        {"cells": 3},
        {"cells": []},
        {"cells": [{**CELL, "measures": [1]}]},
        {"cells": [{**CELL, "dataset": 3}]},
        {"training_sets": "near"},
        {"training_sets": [1]},
        {"seed": float("inf")},
        {"package": "0.1.0"},
        {"manifests": None},
        {"schema_version": 99},
        {"schema_version": None},
        {"cases_sha256": "00"},
    ],
)
def test_a_damaged_result_is_listed_not_raised(tmp_path: Path, changes: dict[str, Any]) -> None:
    rewrite(write_run(tmp_path / "bad"), **changes)
    write_run(tmp_path / "good", run_id="good")
    store = load_runs([tmp_path])
    assert [run.run_id for run in store.runs] == ["good"]
    assert len(store.damaged) == 1 and "bad" in store.damaged[0]
    assert "1 run is damaged" in store.remarks()[0]


def test_a_cell_that_stands_twice_is_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (cell,) = folder.read_result()["cells"]
    rewrite(folder, cells=[cell, cell])
    assert "a cell stands twice" in load_runs([tmp_path]).damaged[0]


def test_a_changed_case_table_is_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    folder.cases_file.write_text(folder.cases_file.read_text()[:-20])
    assert "changed since" in load_runs([tmp_path]).damaged[0]


@pytest.mark.parametrize("config", ["", "a: [1", "- 1\n"])
def test_a_damaged_configuration_is_listed(tmp_path: Path, config: str) -> None:
    write_run(tmp_path, config=config)
    assert "config.yaml" in load_runs([tmp_path]).damaged[0]


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs/x")
    (tmp_path / "results").mkdir()
    shutil.copytree(folder.path, tmp_path / "results/x")
    assert len(load_runs([tmp_path]).runs) == 1


def test_two_results_under_one_id_are_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "x")
    write_run(tmp_path / "y", seconds=99.0)
    with pytest.raises(RunError, match=r"0123456789ab stands twice .*x and .*y"):
        load_runs([tmp_path])


def test_another_version_is_stale(tmp_path: Path) -> None:
    write_run(tmp_path, package={"version": "0.0.1", "commit": "abc"})
    (run,) = load_runs([tmp_path]).runs
    assert run.stale and run.commit == "abc"


def test_a_recipe_is_the_configuration_without_the_seed(tmp_path: Path) -> None:
    for name, config in (
        ("a", "seed_everything: 1\nlr: 0.1\ndata_root: /x\n"),
        ("b", "lr: 0.1\nseed_everything: 2\ndata_root: /y\n"),
        ("c", "seed_everything: 1\nlr: 0.2\n"),
    ):
        write_run(tmp_path / name, run_id=name, config=config)
    a, b, c = load_runs([tmp_path]).runs
    assert a.recipe == b.recipe != c.recipe


def test_costs_and_pretraining_may_be_missing(tmp_path: Path) -> None:
    write_run(tmp_path / "old")
    write_run(tmp_path / "new", run_id="new", costs={"gmac": 1.5}, pretraining=["Kvasir-SEG"])
    new, old = load_runs([tmp_path]).runs
    assert (old.costs, old.pretraining) == ({}, ())
    assert (new.costs, new.pretraining) == ({"gmac": 1.5}, ("Kvasir-SEG",))
    assert new.cases_sha256 == new.folder.read_result()["cases_sha256"]


def test_a_measure_of_another_version_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    (cell,) = folder.read_result()["cells"]
    rewrite(folder, cells=[{**cell, "measures": {"dsc": 0.5, "boundary_iou": 0.5}}])
    assert "a measure that this version does not know, first 'boundary_iou'" in load_runs([tmp_path]).damaged[0]


@pytest.mark.parametrize("changes", [{"costs": 3}, {"pretraining": 5}])
def test_costs_of_another_type_are_damage(tmp_path: Path, changes: dict[str, Any]) -> None:
    rewrite(write_run(tmp_path), **changes)
    assert "damaged" in load_runs([tmp_path]).damaged[0]


def test_a_stray_configuration_above_the_runs_hides_none(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_atomically(tmp_path / "config.yaml", "a: 1\n")
    store = load_runs([tmp_path])
    assert [run.folder.path.name for run in store.runs] == ["run"]
    assert [folder.path for folder in store.unfinished] == [tmp_path]


def test_links_are_followed_once(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere" / "run")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "here")
    assert len(load_runs([tmp_path / "here"]).runs) == 1


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "closed").mkdir()
    real = os.scandir

    def scan(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    store = load_runs([tmp_path])
    assert len(store.runs) == 1 and store.damaged == (f"{tmp_path / 'closed'}: cannot be read (Permission denied).",)


def test_a_result_of_endless_brackets_is_damage(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    folder.result_file.write_text("[" * 100_000)
    assert "not JSON" in load_runs([tmp_path]).damaged[0]
