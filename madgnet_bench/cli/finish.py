"""What `fit` and `test` write at the end of a run: the case table and the result, and the table that they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer

from madgnet_bench import records
from madgnet_bench.bench.resampling import write_replicates
from madgnet_bench.callbacks.history import Effort
from madgnet_bench.catalog.models import pretraining_of
from madgnet_bench.cli.checkpoints import epoch_and_effort
from madgnet_bench.cli.costs import measure_costs
from madgnet_bench.cli.environment import describe_hardware, describe_package
from madgnet_bench.cli.text import align
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.networks.smp import weights_tag
from madgnet_bench.protocol import MEASURES, VALIDATION_MEASURES
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.supervised import SegmentationTask

__all__ = ["Tested", "show_cells", "write_run"]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A run whose chosen checkpoint was tested: all that its files are made of.

    Attributes:
        trainer: The trainer that tested it.
        model: The task, with the test's table.
        datamodule: Its data.
        checkpoint: The checkpoint that was tested.
        label: The network's name in tables.
        seed: Seed of the run.
        costs: Whether the network's costs are measured.
        deviations: Where the run departs from its configuration, in words.
    """

    trainer: Trainer
    model: SegmentationTask
    datamodule: SeenUnseenDataModule
    checkpoint: Path
    label: str
    seed: int
    costs: bool = True
    deviations: Sequence[str] = field(default=())


def write_run(folder: RunFolder, tested: Tested) -> dict[str, Any]:
    """Write the case table, its curves and replicates, and last the result.

    Returns:
        The result.
    """
    folder.result_file.unlink(missing_ok=True)
    folder.write_cases(tested.model.test_rows, curves=tested.model.test_table.curves)
    write_replicates(folder)
    result = _result(folder, tested)
    folder.write_result(result)
    return result


def show_cells(rows: Sequence[records.CaseRow]) -> str:
    """One run's cells as aligned text, the measures that are watched in training in percent; the result holds all."""
    titles = [f"{MEASURES[name].title} %" for name in VALIDATION_MEASURES]
    body = [
        [c["setting"], c["dataset"], c["target"], str(c["cases"])]
        + [f"{100 * c['measures'][name]:.2f}" for name in VALIDATION_MEASURES]
        for c in records.summarize(rows)
    ]
    protocol = f"protocol {rows[0].protocol}" if rows else "no test cases"
    return f"{align([['setting', 'test set', 'target', 'cases', *titles], *body], left=3)}\n{protocol}"


def _result(folder: RunFolder, tested: Tested) -> dict[str, Any]:
    """Everything about the run that stands in result.json."""
    model, datamodule = tested.model, tested.datamodule
    rows = folder.read_cases()  # what the file says is the truth, to the last digit
    last_epoch, effort = epoch_and_effort(folder.checkpoints / "last.ckpt")
    sources = (*datamodule.seen, *datamodule.unseen)
    return {
        "run_id": folder.path.name,
        "suite": folder.path.parent.name,
        "network": tested.label,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "seed": tested.seed,
        "epochs": last_epoch + 1,
        "image_size": datamodule.image_size,
        "protocol": str(model.protocol),
        "checkpoint": _checkpoint(folder, tested),
        "training_sets": [source.name for source in datamodule.seen],
        "manifests": {source.name: source.manifest.sha256 for source in sources},
        "splits": {source.name: source.split_name for source in sources},
        "cells": records.summarize(rows, model.test_table.pooled),
        "package": describe_package(),
        "hardware": describe_hardware(tested.trainer),
        "seconds": round(effort.seconds, 1),
        **({"costs": _costs(tested, effort)} if tested.costs else {}),
        "pretraining": _pretraining(folder),
        "deviations": list(tested.deviations),
    }


def _pretraining(folder: RunFolder) -> list[str]:
    """The data sets that the network's initial weights were trained on, as its card and the run's configuration tell."""
    config = yaml.safe_load(folder.config_file.read_text(encoding="utf-8"))
    network = config["model"]["init_args"]["network"]
    return list(pretraining_of(network["class_path"], network.get("init_args") or {}, tag_of=weights_tag))


def _checkpoint(folder: RunFolder, tested: Tested) -> dict[str, Any]:
    """Which checkpoint was tested, and by what it was chosen."""
    epoch, _ = epoch_and_effort(tested.checkpoint)
    history = {int(row["epoch"]): row for row in folder.read_history()}
    chosen = history.get(epoch, {}).get("val/dsc")
    return {"rule": tested.model.protocol.checkpoint, "epoch": epoch, "monitor": "val/dsc", "value": chosen}


def _costs(tested: Tested, effort: Effort) -> Mapping[str, Any]:
    """What the run took, and what its network takes."""
    hours = round(effort.device_seconds / 3600, 6)
    on_gpu = effort.peak_memory_of == "gpu"
    return {
        **asdict(measure_costs(tested.trainer, tested.model, tested.datamodule)),
        "peak_memory_mb": None if effort.peak_memory_mb is None else round(effort.peak_memory_mb, 1),
        "peak_memory_of": effort.peak_memory_of,
        "device_hours": hours,
        "gpu_hours": hours if on_gpu else None,
    }
