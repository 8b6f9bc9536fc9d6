from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from madgnet_bench import __version__
from madgnet_bench.catalog.manifest import Case, Manifest
from madgnet_bench.cli.published import beside_published
from madgnet_bench.cli.tables import main
from madgnet_bench.errors import ConfigError, DataErrors
from madgnet_bench.records import CaseRow, RunFolder, summarize

ROOT = Path(__file__).parents[2]
NUCLEI = str(ROOT / "results" / "real" / "nuclei")
FIGURES = ROOT / "results" / "published"


def make_run(folder: Path, seed: int, dsc: float) -> None:
    """A finished run of U-Net as on the paper's BUSI lists; its masks are made up."""
    sets = {"busi": ("seen", 485, 162), "stu": ("unseen", 0, 42)}
    made, rows, manifests = RunFolder(folder / f"run{seed}"), [], {}
    (made.path / "manifests").mkdir(parents=True)
    made.config_file.write_text(f"seed_everything: {seed}\n")
    for name, (setting, train, test) in sets.items():
        cases = [Case(str(i), str(i), "i.png", "m.png", "train" if i < train else "test") for i in range(train + test)]
        manifest = Manifest(name, cases)
        (made.path / "manifests" / f"{name}.csv").write_text(manifest.to_csv())
        manifests[name] = manifest.sha256
        for case in cases[train:]:
            identity = (case.case_id, case.group_id, name, "ultrasound", "", setting, "lesion", "madgnet[checkpoint=last]")
            value = dsc + 0.02 * (-1) ** int(case.case_id)
            rows.append(CaseRow(*identity, "neither", {"dsc": value}))
    made.write_cases(rows)
    made.write_result(
        {
            **{"run_id": f"run{seed}", "suite": "adhoc", "network": "UNet 64-1024", "parameters": 1, "seed": seed},
            **{"epochs": 100, "image_size": 352, "protocol": "madgnet[checkpoint=last]", "checkpoint": {"rule": "last"}},
            **{"training_sets": ["busi"], "manifests": manifests, "splits": {"busi": "official", "stu": "clean"}},
            **{"cells": summarize(rows), "package": {"version": __version__}, "hardware": {}, "seconds": 1.0, "deviations": []},
        }
    )


def test_whole_runs_by_the_paper_are_compared(tmp_path, capsys):
    for seed, dsc in enumerate((0.69, 0.70)):
        make_run(tmp_path / "runs", seed, dsc)
    assert main([str(tmp_path / "runs"), "--published", "--csv", str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr().out
    assert "UNet 64-1024 (2 seeds) beside UNet of arXiv:2405.06284 (Table 1, Table 2)." in printed
    with (tmp_path / "out.csv").open(newline="") as stream:
        tied = {row["dataset"]: row for row in csv.DictReader(stream) if row["network"]}
    assert {name: (row["comparable"], row["within_spread"], row["within_interval"]) for name, row in tied.items()} == {
        "busi": ("true", "true", "true"),  # 69.5, published 69.5
        "stu": ("true", "false", "false"),  # 69.5, published 71.6
    }
    assert float(tied["busi"]["difference"]) == pytest.approx(0, abs=1e-3)
    assert float(tied["stu"]["difference"]) == pytest.approx(0.695 - 0.716, abs=1e-3)
    assert "Which U-Net the source trained is not known" in tied["stu"]["remarks"]


def test_runs_on_a_part_of_the_images_are_not_compared(tmp_path, capsys):
    files = {name: tmp_path / name for name in ("csv", "json", "markdown", "latex")}
    flags = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    assert main([NUCLEI, "--published", *flags]) == 0
    printed = capsys.readouterr().out
    assert "beside MADGNet of arXiv:2405.06284 (Table 1)." in printed
    assert "a part of the data: 30 test cases of dsb2018/fluorescence, published 67 of dsb2018" in printed
    assert "not pretrained, published pretrained" in printed
    assert "other protocol: size 192, published 352" in printed
    rows = list(csv.DictReader(files["csv"].open(newline="")))
    tied = [row for row in rows if row["network"]]
    assert {(row["network"], row["model"]) for row in tied} == {
        ("UNet 16-256", "UNet"),
        ("MADGNet resnet18", "MADGNet"),
        ("MADGNet resnet18 multi-task", "MADGNet"),
    }
    assert {(row["comparable"], row["difference"], row["within_spread"], row["within_interval"]) for row in rows} == {
        ("false", "", "", "")
    }
    assert all(row["reasons"] for row in rows)
    assert len(json.loads(files["json"].read_text())["comparisons"]) == len(rows)
    assert "not comparable" in files["markdown"].read_text()
    assert r"\begin{table}" in files["latex"].read_text()


def test_figures_from_another_folder_are_checked(tmp_path):
    shutil.copytree(FIGURES, tmp_path / "figures")
    path = tmp_path / "figures" / "madgnet.csv"
    path.write_text(path.read_text().replace(",92.0,", ",920,", 1))
    with pytest.raises(DataErrors, match=r"madgnet\.csv, line \d+ +mean is '920' +write a number from 0 to 100"):
        main([NUCLEI, "--published", "--published-figures", str(tmp_path / "figures")])


def test_a_folder_without_figures_is_named(tmp_path):
    with pytest.raises(ConfigError, match="holds no published figures"):
        main([NUCLEI, "--published", "--published-figures", str(tmp_path)])


def test_a_package_without_figures_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("madgnet_bench.__file__", str(tmp_path / "site" / "madgnet_bench" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"--published-figures"):
        beside_published([], [])


def test_published_needs_no_torch():
    code = (
        "import sys; from madgnet_bench.cli.tables import main; "
        f"main([{NUCLEI!r}, '--published']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'albumentations')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
