from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from madgnet_bench.bench import store
from madgnet_bench.cli.tables import main
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.records import RunFolder

GOLDEN = Path(__file__).parents[1] / "golden"
HEAVY = ("torch", "torchvision", "lightning", "pytorch_lightning", "timm", "albumentations")


@pytest.fixture(autouse=True)
def version_of_the_golden_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "__version__", "0.1.0")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "runs", tmp_path / "runs")
    return tmp_path / "runs"


def test_the_golden_runs_print_exactly_the_golden_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Regenerate with `python tests/golden/make_golden.py`, and look at the difference before committing it."""
    files = {"csv": tmp_path / "deep" / "table.csv", "markdown": tmp_path / "table.md"}
    options = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    assert main([str(GOLDEN / "runs"), "--measure", "all", *options]) == 0
    printed = capsys.readouterr().out
    expected = (GOLDEN / "leaderboard.txt").read_text(encoding="utf-8")
    assert printed == expected + "".join(f"\nWritten: {file}\n" for file in files.values())
    assert files["csv"].read_bytes() == (GOLDEN / "leaderboard.csv").read_bytes()
    assert files["markdown"].read_bytes() == (GOLDEN / "leaderboard.md").read_bytes()


def test_golden_scores_follow_from_the_case_tables() -> None:
    with (GOLDEN / "leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 5 * 3
    for row in rows:
        means = []
        for run_id in row["run_ids"].split():
            values = [
                case.measures[row["measure"]]
                for case in RunFolder(GOLDEN / "runs" / run_id).read_cases()
                if (case.setting, case.dataset, case.target) == (row["setting"], row["dataset"], row["target"])
            ]
            assert len(values) == int(row["cases"])
            means.append(sum(values) / len(values))
        assert float(row["mean"]) == pytest.approx(sum(means) / 2, abs=1e-7)
        assert float(row["std"]) == pytest.approx(abs(means[0] - means[1]) / 2**0.5, abs=1e-7)


def test_dsc_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(GOLDEN / "runs")])
    printed = capsys.readouterr().out
    assert "DSC in %" in printed and "IoU" not in printed and "MAE" not in printed
    main([str(GOLDEN / "runs"), "--measure", "mae"])
    assert capsys.readouterr().out.startswith("MAE in %, lower is better")


def test_unfinished_and_damaged_runs_are_named_below(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = sorted(runs.iterdir())
    (first / "result.json").unlink()
    (second / "cases.csv").write_text("cut")
    assert main([str(runs)]) == 0
    printed = capsys.readouterr().out
    assert "1 run is unfinished, or still running, and not in the tables; start them again with `madgnet-bench fit" in printed
    assert f"madgnet-bench fit --config {first / 'config.yaml'}" in printed
    assert f"1 run is damaged and not in the tables:\n  {second / 'cases.csv'}: changed since" in printed


def test_the_default_folder_is_runs(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(runs.parent)
    assert main([]) == 0
    assert "UNet 4-32" in capsys.readouterr().out


def test_no_runs_says_where_it_looked_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"no folder .*runs.*\n?.*madgnet-bench fit"):
        main([])
    with pytest.raises(RunError, match=r"nowhere: no such folder"):
        main(["nowhere"])
    (tmp_path / "runs").mkdir()
    with pytest.raises(RunError, match=rf"(?s)no finished run in {tmp_path / 'runs'}.*madgnet-bench fit"):
        main([])


def test_only_unfinished_runs_are_named_in_the_error(runs: Path) -> None:
    for folder in runs.iterdir():
        (folder / "result.json").unlink()
    with pytest.raises(RunError, match=r"(?s)no finished run.*4 runs are unfinished"):
        main([str(runs)])


def test_two_protocols_need_the_flag(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sorted(runs.iterdir())[0] / "result.json"
    file.write_text(file.read_text().replace("madgnet[size=64]", "native"))
    with pytest.raises(RunError, match=r"madgnet\[size=64\] \(3 runs\), native \(1 run\)\. Choose with --protocol"):
        main([str(runs)])
    assert main([str(runs), "--protocol", "native"]) == 0
    assert "protocol native" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="unknown protocol"):
        main([str(runs), "--protocol", "none-such"])


def test_nan_names_run_and_cell_and_nothing_is_written(runs: Path, tmp_path: Path) -> None:
    file = sorted(runs.iterdir())[0] / "result.json"
    result = json.loads(file.read_text())
    result["cells"][1]["measures"]["dsc"] = float("nan")
    file.write_text(json.dumps(result))
    with pytest.raises(RunError, match=rf"run {file.parent.name} .*seen phantoms/fundus-near:disc.*dsc is nan"):
        main([str(runs), "--csv", str(tmp_path / "table.csv")])
    assert not (tmp_path / "table.csv").exists()


def test_wrong_use_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--measure", "hausdorff"])
    assert caught.value.code == 2
    assert "dsc" in capsys.readouterr().err


def test_the_leaderboard_takes_no_torch_and_little_time() -> None:
    code = f"""
import sys
from madgnet_bench.cli import main
status = main(["leaderboard", {str(GOLDEN / "runs")!r}])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
raise SystemExit(status)
"""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "UNet 4-32" in done.stdout
    assert time.perf_counter() - start < 20  # about 0.6 s; a machine under load may take longer, torch would take more


@pytest.mark.parametrize("arguments", [["--help"], ["leaderboard", "--help"], ["doctor", "--help"]])
def test_help_takes_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from madgnet_bench.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert not stop.code
assert not [name for name in {HEAVY!r} if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: madgnet-bench" in done.stdout
