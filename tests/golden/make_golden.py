"""Write tests/golden/runs and the tables that the leaderboard prints over them.

Run from the top of the repository, then look at the difference before committing it:

    python tests/golden/make_golden.py
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from madgnet_bench.bench import store
from madgnet_bench.bench.render import to_csv, to_json, to_latex, to_markdown, to_text
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.records import CaseRow, RunFolder, run_id, summarize, write_atomically

HERE = Path(__file__).parent
PROTOCOL = "madgnet[size=64]"
VERSION = "0.1.0"
MEASURES = ("dsc", "mae")
# setting, dataset, modality, targets, cases, level of the DSC
ONE_MODALITY = (
    ("seen", "phantoms/fundus-near", "fundus", ("disc", "cup"), 6, 0.9),
    ("unseen", "phantoms/fundus-far", "fundus", ("disc", "cup"), 9, 0.7),
    ("unseen", "clinic_ultrasound", "ultrasound", ("disc",), 3, 0.5),
)
TWO_MODALITIES = (
    ("seen", "phantoms/fundus-near", "fundus", ("disc",), 6, 0.85),
    ("seen", "clinic_ultrasound", "ultrasound", ("disc",), 4, 0.8),
    ("unseen", "phantoms/fundus-far", "fundus", ("disc",), 5, 0.6),
    ("unseen", "phantoms/fundus-farther", "fundus", ("disc",), 5, 0.5),
    ("unseen", "other_ultrasound", "ultrasound", ("disc",), 21, 0.7),
)
COSTS = {"gmac": 12.345, "milliseconds_per_image": 3.21, "peak_memory_mb": 1234.5, "device_hours": 0.0125}


def main() -> None:
    """Write everything."""
    shutil.rmtree(HERE / "runs", ignore_errors=True)
    for seed in (1, 2):
        write_run("UNet 4-32", 123_456, 0.0, seed, tests=ONE_MODALITY)
        costs = {**COSTS, "milliseconds_per_image": 3.0 + seed}
        write_run("MADGNet resnet10t", 5_432_100, 0.04, seed, tests=ONE_MODALITY, costs=costs)
    prompted = {"protocol": "madgnet[size=64,prompts=box]", "pretraining": ["Clinic Ultrasound"]}
    write_run("SAM tiny", 9_100_000, 0.1, 1, tests=ONE_MODALITY, **prompted)
    write_run("UNet 4-32", 123_456, 0.0, 1, tests=TWO_MODALITIES)
    write_run("UNet 4-32", 123_456, 0.0, 2, tests=TWO_MODALITIES[:-1])
    write_run("MADGNet resnet10t", 5_432_100, 0.04, 1, tests=TWO_MODALITIES, pretraining=["other-ultrasound"])
    for name, content in tables().items():
        write_atomically(HERE / f"leaderboard.{name}", content)


def tables() -> dict[str, str]:
    """The tables in every format, by ending."""
    store.__version__ = VERSION
    runs = store.load_runs([HERE / "runs"]).runs
    made = [table for measure in MEASURES for table in build_tables(runs, measure, intervals=True)]
    shown = {"txt": to_text, "md": to_markdown, "tex": to_latex}
    return {name: show(made, costs=True) for name, show in shown.items()} | {"csv": to_csv(made), "json": to_json(made)}


def write_run(
    label: str,
    parameters: int,
    bonus: float,
    seed: int,
    *,
    tests: tuple[Any, ...],
    protocol: str = PROTOCOL,
    **more: Any,
) -> None:
    """Write one run folder with drawn numbers."""
    manifests = {test[1]: f"{test[4]:064x}" for test in tests}
    training_sets = [test[1] for test in tests if test[0] == "seen"]
    config = {"seed_everything": seed, "model": {"network": label}, "data": training_sets}
    name = run_id(config, {}, protocol)
    folder = RunFolder(HERE / "runs" / name)
    rows = case_rows(tests, bonus, random.Random(f"{label} {seed}"), protocol)
    data = "".join(f"- {name}\n" for name in training_sets)
    write_atomically(folder.config_file, f"seed_everything: {seed}\nmodel:\n  network: {label}\ndata:\n{data}")
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
            "protocol": protocol,
            "checkpoint": {"rule": "best", "epoch": 1, "monitor": "val/dsc", "value": 0.5},
            "training_sets": training_sets,
            "manifests": manifests,
            "cells": summarize(rows),
            "package": {"version": VERSION, "commit": None},
            "hardware": {"machine": "none", "accelerator": "cpu", "threads": 1},
            "seconds": 1.5,
            "deviations": ["numbers are drawn, not measured"] if bonus else [],
            **more,
        }
    )


def case_rows(tests: tuple[Any, ...], bonus: float, draw: random.Random, protocol: str) -> list[CaseRow]:
    """Draw the scores of every case, two cases to a patient."""
    rows = []
    for setting, dataset, modality, targets, cases, level in tests:
        for case in range(cases):
            for target in targets:
                both = setting == "unseen" and target == "cup" and case == 0
                dsc = 1.0 if both else min(1.0, max(0.0, draw.gauss(level + bonus, 0.05)))
                rows.append(
                    CaseRow(
                        case_id=f"case-{case}",
                        group_id=f"patient-{case // 2}",
                        dataset=dataset,
                        modality=modality,
                        domain=dataset.rpartition("-")[2],
                        setting=setting,
                        target=target,
                        protocol=protocol,
                        empty_case="both" if both else "neither",
                        measures={"dsc": dsc, "mae": 0.0 if both else (1 - dsc) / 4},
                    )
                )
    return rows


if __name__ == "__main__":
    main()
