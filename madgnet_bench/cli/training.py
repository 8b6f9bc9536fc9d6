"""`fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from madgnet_bench.callbacks.gallery import MaskWriter
from madgnet_bench.cli.bench_cli import BenchCLI, RunOptions
from madgnet_bench.cli.checkpoints import NetworkLabel, read_checkpoint
from madgnet_bench.cli.console import Console, is_first_process
from madgnet_bench.cli.messages import condense, find_cause
from madgnet_bench.cli.runs import arguments_of_run, keep_nulls, split_arguments
from madgnet_bench.data.image_folder import ImageFolderDataModule
from madgnet_bench.errors import ConfigError
from madgnet_bench.records import RunFolder

__all__ = ["BenchCLI", "NetworkLabel", "RunOptions", "fit", "predict", "read_checkpoint", "run_cli", "test", "validate"]

_log = logging.getLogger("madgnet_bench")

_EXPECTED_WARNINGS = (
    ".*args parameter is intended to run.*",  # main() passes its arguments on, wherever they come from
    "(?s).*instantiate_classes.* was deprecated.*",  # a call inside lightning
    "(?s).*only one JsonargparseDeprecationWarning.*",  # about the same
    ".*isinstance.treespec, LeafSpec.*",  # a call inside lightning
    ".*does not have many workers.*",  # small data are faster without
    ".*number of training batches.*",  # nothing is logged by step
    ".*exists and is not empty.*",  # the checkpoints of the run that is resumed
    ".*sync_dist=True.*",  # validation measures are taken from rows that are gathered already
    ".*srun. command is available.*",  # the runner submits jobs, not the job itself
    ".*callbacks used to create the checkpoint.*",  # what trains is not there when a checkpoint is only tested
)
"""What the libraries warn about and the suite means."""


def fit(arguments: Sequence[str]) -> int:
    """`madgnet-bench fit`; see `BenchCLI.fit`."""
    run_cli(["fit", *arguments])
    return 0


def validate(arguments: Sequence[str]) -> int:
    """`madgnet-bench validate`; see `BenchCLI.validate`."""
    run, _, rest = split_arguments("validate", "measure a checkpoint on the seen validation sets", arguments)
    run_cli(["validate", *arguments_of_run(run), *rest])
    return 0


def test(arguments: Sequence[str]) -> int:
    """`madgnet-bench test`; see `BenchCLI.test`."""
    run, _, rest = split_arguments("test", "test a checkpoint; with RUN, write the run's tables again", arguments)
    run_cli(["test", *arguments_of_run(run), *rest], folder=RunFolder(Path(run)) if run else None)
    return 0


def predict(arguments: Sequence[str]) -> int:
    """`madgnet-bench predict`: masks and overlays for a folder of images, at the images' own size."""
    options: dict[str, dict[str, Any]] = {
        "--images": {"required": True, "help": "folder of images; subfolders are included"},
        "--output": {"default": "predictions", "help": "folder to write to (default: predictions)"},
        "--overwrite": {"action": "store_true", "help": "write where masks or overlays are already"},
    }
    summary = "write a mask (0 and 255) and an overlay for every image of a folder"
    run, known, rest = split_arguments("predict", summary, arguments, options)
    output = Path(known.output)
    for part in ("masks", "overlays"):
        if not known.overwrite and (output / part).is_dir() and any((output / part).iterdir()):
            raise ConfigError(f"{output / part} holds files already; name a new folder with --output, or add --overwrite.")
    cli = run_cli(["predict", *arguments_of_run(run), *rest])
    checkpoint = cli.config["predict"].get("ckpt_path")
    model, data, folder = cli.model, cli.datamodule, Path(known.images)
    images = ImageFolderDataModule(folder, image_size=data.image_size, num_targets=data.num_targets, skip=output)
    writer = MaskWriter(output, images.read, targets=data.targets, threshold=model.protocol.threshold)
    cli.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    cli.trainer.predict(model, datamodule=images, ckpt_path=checkpoint, weights_only=True, return_predictions=False)
    _log.info("%d images: masks and overlays are in %s", writer.written, output)
    return 0


def run_cli(arguments: list[str], *, folder: RunFolder | None = None) -> BenchCLI:
    """Run one subcommand, with errors of the configuration turned into a few lines.

    A class of the user's own is found in the working folder too, as it is with ``python -m``.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)
    _log.handlers = [Console() if is_first_process() else logging.NullHandler()]
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    try:
        return BenchCLI(keep_nulls(arguments), folder=folder)
    except (ArgumentError, ValueError) as error:
        cause = find_cause(error)
        if cause is not None:
            raise cause from None
        if isinstance(error, ArgumentError) or str(error).startswith("Does not validate"):  # what a constructor refused
            raise ConfigError(condense(str(error), BenchCLI.known_keys)) from None
        raise
