"""Runs for the tests of tables: in memory, and small ones on disk."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from madgnet_bench import __version__
from madgnet_bench.bench.store import Cell, Run
from madgnet_bench.records import CaseRow, RunFolder, summarize, write_atomically

PROTOCOL = "madgnet[size=64]"
SETTINGS = {"near": "seen", "far": "unseen", "further": "unseen"}


def cell(
    dataset: str,
    value: float,
    *,
    target: str = "lesion",
    protocol: str = PROTOCOL,
    cases: int = 10,
    both: int = 0,
    modality: str = "ultrasound",
    setting: str = "",
) -> Cell:
    return Cell(
        setting=setting or SETTINGS[dataset],
        dataset=dataset,
        target=target,
        protocol=protocol,
        modality=modality,
        domain="",
        cases=cases,
        empty={"neither": cases - both, "reference": 0, "prediction": 0, "both": both},
        measures={"dsc": value, "iou": value / 2, "mae": 1 - value},
    )


def run(
    network: str = "UNet",
    seed: int = 1,
    *,
    near: float | None = 0.9,
    far: float | None = 0.6,
    further: float | None = 0.3,
    cells: tuple[Cell, ...] | None = None,
    training_sets: tuple[str, ...] = ("near",),
    image_size: int = 64,
    epochs: int = 5,
    version: str = __version__,
    recipe: str = "",
    parameters: int = 1_234_567,
    manifests: dict[str, str] | None = None,
    deviations: tuple[str, ...] = (),
    **more: Any,
) -> Run:
    given_cells = [
        cell(name, value) for name, value in (("near", near), ("far", far), ("further", further)) if value is not None
    ]
    run_id = f"{network}-{seed}-{image_size}-{epochs}-{version}-{recipe}-{'+'.join(training_sets)}"
    return Run(
        folder=RunFolder(Path("runs") / run_id),
        run_id=run_id,
        suite="adhoc",
        network=network,
        parameters=parameters,
        seed=seed,
        epochs=epochs,
        image_size=image_size,
        protocol=PROTOCOL,
        training_sets=training_sets,
        checkpoint=more.pop("checkpoint", {}),
        manifests=manifests or {name: "00" for name in SETTINGS},
        cells=tuple(given_cells) if cells is None else cells,
        version=version,
        commit=None,
        hardware=more.pop("hardware", {}),
        seconds=1.0,
        deviations=deviations,
        recipe=recipe or network,
        **more,
    )


def case_rows(
    seed: int = 1,
    *,
    cases: Mapping[str, int] = {"near": 6, "far": 8},
    per_group: int = 2,
    measures: Sequence[str] = ("dsc", "mae"),
    protocol: str = PROTOCOL,
) -> list[CaseRow]:
    draw = random.Random(seed)
    return [
        CaseRow(
            case_id=f"case-{case:02d}",
            group_id=f"patient-{case // per_group:02d}",
            dataset=dataset,
            modality="ultrasound",
            domain="",
            setting=SETTINGS[dataset],
            target="lesion",
            protocol=protocol,
            empty_case="neither",
            measures={name: round(draw.random(), 6) for name in measures},
        )
        for dataset, count in cases.items()
        for case in range(count)
    ]


def write_run(root: Path, rows: Sequence[CaseRow], *, network: str = "UNet", seed: int = 1, **more: Any) -> RunFolder:
    folder = RunFolder(root / f"{network}-{seed}")
    write_atomically(folder.config_file, f"seed_everything: {seed}\nnetwork: {network}\n")
    folder.write_cases(rows)
    write_result(folder, rows, network=network, seed=seed, **more)
    return folder


def write_result(folder: RunFolder, rows: Sequence[CaseRow], *, network: str = "UNet", seed: int = 1, **more: Any) -> None:
    """Write a summary that names the present case table, whatever that holds."""
    folder.write_result(
        {
            "run_id": f"{network}-{seed}",
            "suite": "adhoc",
            "network": network,
            "parameters": 1_000,
            "seed": seed,
            "epochs": 1,
            "image_size": 64,
            "protocol": rows[0].protocol,
            "checkpoint": {"rule": "best", "epoch": 0, "monitor": "val/dsc", "value": 0.5},
            "training_sets": ["near"],
            "manifests": {name: "00" for name in SETTINGS},
            "cells": summarize(rows),
            "package": {"version": __version__, "commit": None},
            "hardware": {"machine": "none", "accelerator": "cpu", "threads": 1},
            "seconds": 1.0,
            "deviations": [],
            **more,
        }
    )
