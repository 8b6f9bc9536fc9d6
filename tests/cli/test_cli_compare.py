from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench import __version__
from madgnet_bench.bench.store import load_runs
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.cli import main
from madgnet_bench.records import CaseRow, RunFolder, summarize, write_atomically

CONFIG = """seed_everything: {seed}
data:
  init_args:
    seen:
    - class_path: madgnet_bench.catalog.phantoms.PhantomDataset
      init_args: {{modality: fundus, size: 32, cases: 20}}
    unseen: []
"""
_MANIFEST = PhantomDataset("fundus", size=32, cases=20).manifest
CASES = [_MANIFEST.cases[row] for row in _MANIFEST.rows("test")]


def write_run(root: Path, seed: int, *, level: float = 0.8, targets: tuple[str, ...] = ("disc", "cup")) -> Path:
    """Write a finished run on fundus phantoms whose scores lie around a level."""
    random = np.random.default_rng(seed)
    folder = RunFolder(root / f"run{seed}")
    rows = [
        CaseRow(
            case_id=case.case_id,
            group_id=case.group_id,
            dataset="phantom_fundus",
            modality="fundus",
            domain="source",
            setting="seen",
            target=target,
            protocol="madgnet[size=32]",
            empty_case="neither",
            measures={"dsc": level + 0.01 * random.standard_normal(), "mae": 0.1 - level / 10 + 0.001 * random.random()},
        )
        for case in CASES
        for target in targets
    ]
    write_atomically(folder.config_file, CONFIG.format(seed=seed))
    folder.write_cases(rows)
    result = {
        **{"run_id": f"run{seed}", "suite": "s", "network": "UNet", "parameters": 1, "seed": seed, "epochs": 1},
        **{"image_size": 32, "protocol": "madgnet[size=32]", "training_sets": ["phantom_fundus"], "seconds": 1.0},
        **{"checkpoint": {}, "manifests": {"phantom_fundus": "00"}, "hardware": {}, "deviations": []},
        "cells": summarize(folder.read_cases()),
        "package": {"version": __version__, "commit": None},
    }
    folder.write_result(result)
    return folder.path


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    for seed in range(5):
        write_run(tmp_path / "baseline", seed)
    return tmp_path / "baseline"


def test_nothing_fell(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "new", 9)
    page = tmp_path / "out" / "table.md"
    assert main(["compare", str(baseline), str(tmp_path / "new"), "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("4 cells, protocol madgnet[size=32]: 4 held.")
    assert "Nothing fell." in printed
    assert "| held | UNet | phantom_fundus | seen phantom_fundus:cup | DSC |" in page.read_text()


def test_a_fall_exits_with_1_and_names_cells_cases_and_tolerance(
    baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "new", 9, level=0.5)
    assert main(["compare", str(baseline), str(tmp_path / "new"), "--measures", "dsc"]) == 1
    printed = capsys.readouterr().out
    assert "2 cells, protocol madgnet[size=32]: 2 fell." in printed
    assert re.search(
        r"FELL: UNet, trained on phantom_fundus, seen phantom_fundus:disc: DSC (79|80)\.\d\d -> (49|50)\.", printed
    )
    assert "The check failed." in printed
    assert any(f"    {case.case_id}  8" in printed or f"    {case.case_id}  7" in printed for case in CASES)


def test_a_missing_cell_exits_with_1(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "new", 9, targets=("disc",))
    assert main(["compare", str(baseline), str(tmp_path / "new")]) == 1
    assert "MISSING: UNet, trained on phantom_fundus, seen phantom_fundus:cup: DSC" in capsys.readouterr().out


def test_overlays_of_what_fell(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "new", 9, level=0.5)
    words = ["compare", str(baseline), str(tmp_path / "new"), "--measures", "dsc", "--overlays", str(tmp_path / "pictures")]
    assert main(words) == 2
    assert f"madgnet-bench test {run} --run.predictions all" in capsys.readouterr().err
    for case in CASES:
        for target in ("disc", "cup"):
            path = run / "predictions" / "phantom_fundus" / "masks" / target / f"{case.case_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24), 255, np.uint8)).save(path)
    assert main(words) == 1
    drawn = sorted((tmp_path / "pictures").glob("*.png"))
    assert len(drawn) == 2 * len(CASES) == capsys.readouterr().out.count("picture: ")
    with Image.open(drawn[0]) as picture:
        assert picture.size == (4 * 24, 24)


def test_update_makes_the_candidate_the_baseline(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (baseline / "README.md").write_text("what it is")
    write_run(tmp_path / "few", 9)
    assert main(["compare", str(baseline), str(tmp_path / "few"), "--update"]) == 2
    assert "UNet on phantom_fundus (1)" in capsys.readouterr().err
    assert {run.seed for run in load_runs([baseline]).runs} == set(range(5))
    for seed in range(20, 25):
        write_run(tmp_path / "new", seed, level=0.5)
    assert main(["compare", str(baseline), str(tmp_path / "new"), "--update"]) == 0
    assert "New baseline" in capsys.readouterr().out
    assert {run.seed for run in load_runs([baseline]).runs} == set(range(20, 25))
    assert (baseline / "README.md").read_text() == "what it is"
    assert main(["compare", str(baseline), str(tmp_path / "new")]) == 0


def test_no_torch(baseline: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "new", 9)
    code = (
        "import sys; from madgnet_bench.cli import main; "
        f"status = main(['compare', {str(baseline)!r}, {str(tmp_path / 'new')!r}]); "
        "assert not {'torch', 'lightning'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
