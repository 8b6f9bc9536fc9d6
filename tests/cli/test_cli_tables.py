from __future__ import annotations

import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from made_runs import case_rows, write_result, write_run

from benchmarks.speed.leaderboard import make_run
from madgnet_bench import __version__
from madgnet_bench.bench import store
from madgnet_bench.bench.resampling import write_replicates
from madgnet_bench.cli import main as command_line
from madgnet_bench.cli.tables import main
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.records import CaseRow, RunFolder

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
    files = {"csv": "csv", "json": "json", "markdown": "md", "latex": "tex"}
    written = {flag: tmp_path / "deep" / f"table.{ending}" for flag, ending in files.items()}
    options = [text for flag, file in written.items() for text in (f"--{flag}", str(file))]
    assert main([str(GOLDEN / "runs"), "--measure", "all", "--costs", *options]) == 0
    printed = capsys.readouterr().out
    expected = (GOLDEN / "leaderboard.txt").read_text(encoding="utf-8")
    order = ("csv", "markdown", "latex", "json")
    assert printed == expected + "".join(f"\nWritten: {written[flag]}\n" for flag in order)
    for flag, ending in files.items():
        assert written[flag].read_bytes() == (GOLDEN / f"leaderboard.{ending}").read_bytes()


def test_stored_replicates_print_the_same_tables(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in runs.iterdir():
        write_replicates(RunFolder(folder))
    assert main([str(runs), "--measure", "all", "--costs"]) == 0
    assert capsys.readouterr().out == (GOLDEN / "leaderboard.txt").read_text(encoding="utf-8")


def test_golden_scores_follow_from_the_case_tables() -> None:
    with (GOLDEN / "leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == (3 * 5 + 2 * 5) * 2
    for row in rows:
        if row["missing"]:
            continue
        means = []
        for run_id in row["run_ids"].split():
            values = [
                case.measures[row["measure"]]
                for case in RunFolder(GOLDEN / "runs" / run_id).read_cases()
                if (case.setting, case.dataset, case.target) == (row["setting"], row["dataset"], row["target"])
            ]
            assert len(values) == int(row["cases"])
            means.append(sum(values) / len(values))
        assert float(row["mean"]) == pytest.approx(statistics.fmean(means), abs=1e-7)
        if len(means) > 1:
            assert float(row["std"]) == pytest.approx(statistics.stdev(means), abs=1e-7)
        assert float(row["interval_low"]) <= float(row["mean"]) <= float(row["interval_high"])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_golden_latex_compiles(tmp_path: Path) -> None:
    table = (GOLDEN / "leaderboard.tex").as_posix()
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{" + table + "}\\end{document}"
    )
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 10_000
    assert "Overfull" not in done.stdout


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
    with pytest.raises(RunError, match=r"(?s)no finished run.*8 runs are unfinished"):
        main([str(runs)])


def test_two_protocols_need_the_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, case_rows())
    write_run(tmp_path, case_rows(2, protocol="native"), seed=2)
    with pytest.raises(RunError, match=r"madgnet\[size=64\] \(1 run\), native \(1 run\)\. Choose with --protocol"):
        main([str(tmp_path)])
    assert main([str(tmp_path), "--protocol", "native"]) == 0
    assert "protocol native" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="unknown protocol"):
        main([str(tmp_path), "--protocol", "none-such"])


def test_nan_names_run_and_cell_and_nothing_is_written(tmp_path: Path) -> None:
    file = write_run(tmp_path, case_rows()).result_file
    result = json.loads(file.read_text())
    result["cells"][0]["measures"]["dsc"] = float("nan")
    file.write_text(json.dumps(result))
    with pytest.raises(RunError, match=r"run UNet-1 .*seen near:lesion.*dsc is nan"):
        main([str(tmp_path), "--csv", str(tmp_path / "table.csv")])
    assert not (tmp_path / "table.csv").exists()


def percent(rows: list[CaseRow]) -> list[CaseRow]:
    return [replace(row, measures={name: 100 * value for name, value in row.measures.items()}) for row in rows]


@pytest.mark.parametrize("flag", ["--intervals", "--no-intervals"])
def test_percent_in_the_place_of_fractions_are_refused(tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, percent(case_rows()))
    assert command_line(["leaderboard", str(tmp_path), flag]) == 2
    assert re.search(r"run UNet-1 .*near:lesion.*dsc is \d\d\.\d+, not a fraction", capsys.readouterr().err)


DAMAGE = {
    "a row is cut": (lambda text: text[:-12], "line 15: truncated or damaged row"),
    "a case stands twice": (lambda text: text.replace("case-01", "case-00", 1), "line 3: case .* stands twice"),
    "a score is NaN": (lambda text: re.sub(r"neither,[^,]*", "neither,nan", text, count=1), "line 2.*dsc is nan"),
    "a score is a word": (lambda text: re.sub(r"neither,[^,]*", "neither,good", text, count=1), "line 2.*dsc is 'good'"),
    "a score is in percent": (lambda text: re.sub(r"neither,[^,]*", "neither,91.2", text, count=1), "line 2.*dsc is 91.2"),
    "a thousand columns": (
        lambda text: text.replace("dsc,mae\n", "dsc,mae," + ",".join(map(str, range(1000))) + "\n"),
        "1000 columns, first '0', are no measure",
    ),
    "a case is missing": (lambda text: re.sub(r"1,case-03,.*\n", "", text, count=1), "0 is the mean of|is the mean of"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_case_table_is_never_averaged(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, message = DAMAGE[what]
    folder = write_run(tmp_path, case_rows())
    write_run(tmp_path, case_rows(2), seed=2)
    folder.cases_file.write_text(damage(folder.cases_file.read_text()))
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"1 run is damaged and not in the tables:\n  {folder.cases_file}: changed since" in printed
    assert re.search(r"^UNet +1\.0 k +1 ", printed, flags=re.M)  # one seed is left
    write_result(folder, case_rows())  # as if the summary had been made from the damaged table
    assert command_line(["leaderboard", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(folder.cases_file) in error and re.search(message, error)


def test_a_table_that_is_no_text_is_never_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, case_rows())
    folder.cases_file.write_bytes(folder.cases_file.read_bytes().replace(b"case-03", b"case-\xff3"))
    write_result(folder, case_rows())
    assert command_line(["leaderboard", str(tmp_path)]) == 2
    assert re.search(r"cases\.csv.*not a case table \(.*utf-8", capsys.readouterr().err)


@pytest.mark.parametrize("missing", ["cases.csv", "result.json", "config.yaml"])
def test_a_run_folder_without_one_of_its_files(tmp_path: Path, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    (write_run(tmp_path, case_rows()).path / missing).unlink()
    write_run(tmp_path, case_rows(2), seed=2)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    reasons = {"cases.csv": "1 run is damaged", "result.json": "1 run is unfinished"}
    assert re.search(r"^UNet +1\.0 k +1 ", printed, flags=re.M)
    assert reasons.get(missing, "") in printed


def test_a_thousand_measures_in_a_result_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_run(tmp_path, case_rows()).result_file
    result = json.loads(file.read_text())
    for cell in result["cells"]:
        cell["measures"].update({f"m{number}": 0.5 for number in range(1000)})
    file.write_text(json.dumps(result))
    write_run(tmp_path, case_rows(2), seed=2)
    assert main([str(tmp_path), "--measure", "all"]) == 0
    assert re.search(
        r"1 run is damaged.*\n.*1000 measures that this version does not know, first 'm0'", capsys.readouterr().out
    )


def test_the_runs_of_the_speed_script_make_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1, 5):
        write_replicates(make_run(tmp_path, number, 60))
    with patch.object(store, "__version__", __version__):
        assert main([str(tmp_path), "--measure", "hd95"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^network 0 +1\.00 M +2 ", printed, flags=re.M) and re.search(
        r"^network 1 +2\.00 M +1 ", printed, flags=re.M
    )


def test_filters_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--network", "unet*", "--network", "mad*", "--setting", "unseen", "--training-set", "clinic*", "--sort", "name"]
    assert main([*options, str(GOLDEN / "runs"), "--no-intervals"]) == 0
    printed = capsys.readouterr().out
    assert "[" not in printed.split("Cases:")[0].split("params")[1]
    assert "fundus-far" in printed and "fundus-near " not in printed.split("params")[1]
    assert printed.count("Trained on") == 1
    assert "Selected: network unet* or mad*, training set clinic*, unseen test sets; means, gap and ranks" in printed
    with pytest.raises(RunError, match="no run is left with network vit"):
        main([str(GOLDEN / "runs"), "--network", "vit"])
    with pytest.raises(ConfigError, match="cannot sort by 'speed'"):
        main([str(GOLDEN / "runs"), "--sort", "speed"])


def test_grouping_by_modality(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOLDEN / "runs"), "--group-by", "modality", "--no-intervals"]) == 0
    printed = capsys.readouterr().out
    assert "Trained on phantoms/fundus-near, tested on ultrasound" in printed
    assert printed.count("Trained on") == 4


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m madgnet_bench leaderboard {GOLDEN / 'runs'} --measure all | head -1"
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, encoding="utf-8", check=False, env=environment
    )
    assert (done.stdout, done.stderr, done.returncode) == ("DSC in %, higher is better, protocol madgnet[size=64]\n", "", 0)


def test_wrong_use_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--measure", "hausdorff"])
    assert caught.value.code == 2
    assert "dsc" in capsys.readouterr().err


def test_the_leaderboard_takes_no_torch_and_little_time(runs: Path) -> None:
    for folder in runs.iterdir():
        write_replicates(RunFolder(folder))
    code = f"""
import sys
from madgnet_bench.cli import main
status = main(["leaderboard", {str(runs)!r}])
heavy = [name for name in {(*HEAVY, "pandas")!r} if name in sys.modules]
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
