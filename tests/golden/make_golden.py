"""Write tests/golden/runs and the tables that the leaderboard prints over them.

Run from the top of the repository, then look at the difference before committing it:

    python tests/golden/make_golden.py
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from madgnet_bench.bench.render import to_csv, to_markdown, to_text
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.tables import build_tables, common_measures
from madgnet_bench.records import CaseRow, RunFolder, run_id, summarize, write_atomically

HERE = Path(__file__).parent
PROTOCOL = "madgnet[size=64]"
VERSION = "0.1.0"
# setting, dataset, modality, targets, cases, level of the DSC
TESTS = (
    ("seen", "phantoms/fundus-near", "fundus", ("disc", "cup"), 4, 0.9),
    ("unseen", "phantoms/fundus-far", "fundus", ("disc", "cup"), 5, 0.7),
    ("unseen", "phantoms/ultrasound", "ultrasound", ("disc",), 3, 0.5),
)
NETWORKS = (("UNet 4-32", 123_456, 0.0), ("MADGNet resnet10t", 5_432_100, 0.04))


def main() -> None:
    shutil.rmtree(HERE / "runs", ignore_errors=True)
    for label, parameters, bonus in NETWORKS:
        for seed in (1, 2):
            write_run(label, parameters, bonus, seed)
    runs = load_runs([HERE / "runs"]).runs
    tables = [table for measure in common_measures(runs) for table in build_tables(runs, measure)]
    for name, render in (("txt", to_text), ("md", to_markdown), ("csv", to_csv)):
        write_atomically(HERE / f"leaderboard.{name}", render(tables))


def write_run(label: str, parameters: int, bonus: float, seed: int) -> None:
    manifests = {test[1]: f"{number:064x}" for number, test in enumerate(TESTS)}
    config = {"seed_everything": seed, "model": {"network": label}}
    name = run_id(config, manifests, PROTOCOL)
    folder = RunFolder(HERE / "runs" / name)
    rows = case_rows(bonus, random.Random(f"{label} {seed}"))
    write_atomically(folder.config_file, f"seed_everything: {seed}\nmodel:\n  network: {label}\n")
    folder.write_cases(rows)
    folder.write_result(
        {
            "run_id": name,
            "suite": "golden",
            "network": label,
            "parameters": parameters,
            "seed": seed,
            "epochs": 2,
            "image_size": 64,
            "protocol": PROTOCOL,
            "checkpoint": {"rule": "best", "epoch": 1, "monitor": "val/dsc", "value": 0.5},
            "training_sets": ["phantoms/fundus-near"],
            "manifests": manifests,
            "cells": summarize(rows),
            "package": {"version": VERSION, "commit": None},
            "hardware": {"machine": "none", "accelerator": "cpu", "threads": 1},
            "seconds": 1.5,
            "deviations": ["numbers are drawn, not measured"] if bonus else [],
        }
    )


def case_rows(bonus: float, draw: random.Random) -> list[CaseRow]:
    rows = []
    for setting, dataset, modality, targets, cases, level in TESTS:
        for case in range(cases):
            for target in targets:
                both = setting == "unseen" and target == "cup" and case == 0
                dsc = 1.0 if both else min(1.0, max(0.0, draw.gauss(level + bonus, 0.05)))
                measures = {"dsc": dsc, "iou": dsc / (2 - dsc), "mae": 0.0 if both else (1 - dsc) / 4}
                rows.append(
                    CaseRow(
                        case_id=f"case-{case}",
                        group_id=f"eye-{case // 2}",
                        dataset=dataset,
                        modality=modality,
                        domain=dataset.rpartition("-")[2],
                        setting=setting,
                        target=target,
                        protocol=PROTOCOL,
                        empty_case="both" if both else "neither",
                        measures=measures,
                    )
                )
    return rows


if __name__ == "__main__":
    main()
