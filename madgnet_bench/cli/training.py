"""`fit`, `validate`, `test` and `predict`: the LightningCLI of the suite."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from madgnet_bench import records
from madgnet_bench.callbacks.gallery import MaskWriter, TestGallery
from madgnet_bench.callbacks.history import History
from madgnet_bench.cli.environment import describe_environment, describe_hardware, describe_package
from madgnet_bench.cli.messages import condense, find_cause
from madgnet_bench.cli.runs import arguments_of_run, split_arguments
from madgnet_bench.cli.text import align
from madgnet_bench.data.image_folder import ImageFolderDataModule
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule, check_unseen
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.protocol import MEASURES, VALIDATION_MEASURES
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.supervised import SegmentationTask

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
    ".*callbacks used to create the checkpoint.*",  # what trains is not there when a checkpoint is only tested
)
"""What the libraries warn about and the suite means."""

_INITIAL_WEIGHTS = {"checkpoint": None, "encoder_checkpoint": None, "pretrained": False}
"""Arguments of networks that choose initial weights, with the values that leave them out."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written; no part of its identity.

    Attributes:
        suite: Folder inside ``root`` that holds the run.
        root: Folder of all runs.
        predictions: Which tested cases are kept as pictures: the best and worst of each set, all masks too, or none.
        overwrite: Train again where the same run is already done.
        batch_parts: Train each batch in so many equal parts with accumulated gradients, for want of memory. Statistics that
            layers take over a batch are those of the parts, so the result records it as a deviation.
    """

    suite: str = "adhoc"
    root: str = "runs"
    predictions: Literal["none", "selected", "all"] = "selected"
    overwrite: bool = False
    batch_parts: int = 1


class BenchCLI(LightningCLI):
    """Parses a configuration, builds what it names and runs one subcommand.

    Args:
        arguments: Subcommand and options.
        folder: The run folder that `test` writes to; `fit` finds its own.
    """

    known_keys: ClassVar[list[str]] = []
    """Keys of the configuration, for messages about unknown ones."""

    _label: str | None = None

    def __init__(self, arguments: Sequence[str], *, folder: RunFolder | None = None) -> None:
        self.folder = folder
        quiet = {"exit_on_error": False}
        super().__init__(
            SegmentationTask,
            SeenUnseenDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_defaults={
                "max_epochs": 50,
                "logger": False,
                "deterministic": "warn",
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,
                "enable_model_summary": False,
                "enable_progress_bar": sys.stderr.isatty(),
            },
            parser_kwargs={name: dict(quiet) for name in self.subcommands()} | quiet,
            args=list(arguments),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what belongs to no class, and give shared values to every class that needs them."""
        parser.add_argument("--protocol", type=str, default="madgnet", help="evaluation protocol, such as madgnet[size=192]")
        parser.add_argument(
            "--data_root", type=str | None, default=None, help="folder of the data sets; sets MADGNET_BENCH_DATA"
        )
        parser.add_class_arguments(RunOptions, "run")
        parser.set_defaults({"model": {"class_path": "SupervisedTask"}, "data": {"class_path": "SeenUnseenDataModule"}})
        for part in ("model", "data"):
            parser.link_arguments("protocol", f"{part}.init_args.protocol")
            parser.link_arguments("seed_everything", f"{part}.init_args.seed", compute_fn=int)
        BenchCLI.known_keys = [action.dest for action in parser._actions if action.dest != "help"]
        parser.link_arguments("data.num_targets", "model.init_args.network.init_args.num_targets", apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint to `read_checkpoint`: lightning would look for hyperparameters, which ours do not have."""

    def before_instantiate_classes(self) -> None:
        """Choose the weights; tell the catalog where data lie: processes started from here inherit it."""
        if self.subcommand != "fit":
            self._choose_weights()
        root = self._get(self.config, "data_root")
        if root is not None:
            os.environ["MADGNET_BENCH_DATA"] = str(Path(root).expanduser().resolve())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer around the run folder."""
        callbacks: list[Callback] = []
        if self.subcommand == "fit":
            if _is_first_process():
                self.datamodule.check_files()
                check_unseen(self.datamodule.seen, self.datamodule.unseen)
            self.folder = self._run_folder()
            if not self._trainer_option("fast_dev_run"):
                callbacks += [NetworkLabel(self.model.network.label), History(self.folder), *self._checkpoints(self.folder)]
            parts = self._get(self.config_init, "run").batch_parts
            self.datamodule.batch_parts = parts
            kwargs["accumulate_grad_batches"] = self._trainer_option("accumulate_grad_batches") * parts
        keep = self._get(self.config_init, "run").predictions
        if self.folder is not None and keep != "none":
            callbacks.append(TestGallery(self.folder.path / "predictions", protocol=self.model.protocol, keep=keep))
        if self.folder is not None:
            kwargs["default_root_dir"] = str(self.folder.path)
        kwargs["enable_checkpointing"] = self.subcommand == "fit"
        kwargs["inference_mode"] = not self.model.inferer.adapts
        trainer_config = {**self._get(self.config_init, "trainer"), **kwargs}
        return self._instantiate_trainer(trainer_config, callbacks)

    def fit(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Train, test the chosen checkpoint everywhere and write the run folder; resume a run that was interrupted."""
        folder = self.folder
        assert folder is not None  # set with the trainer
        if self._trainer_option("fast_dev_run"):
            self.trainer.fit(model, datamodule=datamodule, **options)
            _log.info("fast_dev_run: one batch went through training and validation; nothing was written.")
            return
        if folder.state == "done" and not self._get(self.config_init, "run").overwrite:
            folder.read_result()
            _log.info("%s: already done; --run.overwrite true trains it again.\n%s", folder.path, _table(folder.read_cases()))
            return
        state = folder.state
        with _logging_to(folder.path / "log.txt"):
            resume = self._prepare_folder(folder, trained=state == "done")
            options["ckpt_path"] = options.get("ckpt_path") or resume
            self.trainer.fit(model, datamodule=datamodule, **options)
            chosen = folder.checkpoints / f"{model.protocol.checkpoint}.ckpt"
            self.trainer.test(model, datamodule=datamodule, ckpt_path=str(chosen), weights_only=True, verbose=False)
            self._finish(folder, chosen)

    def validate(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Print the seen validation measures of a checkpoint."""
        (measures, *_) = self.trainer.validate(model, datamodule=datamodule, **_quiet(options)) or [{}]
        for name, value in measures.items():
            _log.info("%s  %.4f", name, value)

    def test(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Test trained weights; write the tables to the run folder where one was named."""
        self.trainer.test(model, datamodule=datamodule, **_quiet(options))
        if self.folder is not None:
            self._finish(self.folder, Path(options["ckpt_path"]))
        elif self.trainer.is_global_zero:
            _log.info("%s\n%s", self.label, _table(model.test_rows))

    def predict(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Predict the loaders that the caller of `predict` puts in place; see there."""

    @property
    def label(self) -> str:
        """The network's name in tables, as it was trained."""
        return self._label or self.model.network.label

    def _choose_weights(self) -> None:
        """Take the weights from the checkpoint, or from the network's own file of the whole network.

        A checkpoint replaces all weights, so the network is built without initial ones: their files may be gone, and nothing is
        downloaded. They are part of its name, which the checkpoint keeps; with a checkpoint of an earlier version, which does
        not, the network is built as configured.

        Raises:
            ConfigError: There is neither.
            RunError: The checkpoint cannot be read.
        """
        arguments = self._get(self.config, "model").get("init_args.network.init_args") or Namespace()
        checkpoint = self._get(self.config, "ckpt_path")
        if checkpoint is None:
            if self.folder is not None or arguments.get("checkpoint") is None:
                raise ConfigError(
                    "no trained network: name a run folder, pass --ckpt_path, or set the network's argument checkpoint to a "
                    "file of the weights of the whole network."
                )
            return
        kept = read_checkpoint(checkpoint)["callbacks"].get(NetworkLabel.__qualname__)
        initial = [name for name, none in _INITIAL_WEIGHTS.items() if arguments.get(name, none) != none]
        if kept and initial:
            self._label = kept["label"]
            for name in initial:
                arguments[name] = _INITIAL_WEIGHTS[name]

    def _trainer_option(self, name: str) -> Any:
        return self._get(self.config_init, "trainer")[name]

    def _run_folder(self) -> RunFolder:
        """The folder that this configuration, data and protocol lead to."""
        options = self._get(self.config, "run")
        config = self._resolved()
        weights = records.hash_weights(config)
        identity = records.run_id(config, self._manifests(), str(self.datamodule.protocol), weights=weights)
        return RunFolder(Path(options.root) / options.suite / identity)

    def _prepare_folder(self, folder: RunFolder, *, trained: bool) -> str | None:
        """Write what is known before training; return the checkpoint to resume from, if there is one."""
        last = folder.checkpoints / "last.ckpt"
        resume = str(last) if last.is_file() and not trained else None
        if _is_first_process():
            if trained:  # nothing of the earlier training may be taken for this one's, however soon it is interrupted
                folder.result_file.unlink()
                folder.history_file.unlink(missing_ok=True)
                shutil.rmtree(folder.checkpoints)
            _log.info("%s: %s", folder.path, f"resuming the interrupted run from {last.name}" if resume else "starting")
            config = self._resolved()
            comment = f"# Repeat with: madgnet-bench fit --config {folder.config_file}\n"
            comment += "".join(f"# {key}: sha256 {digest}\n" for key, digest in records.hash_weights(config).items())
            records.write_atomically(folder.config_file, comment + yaml.safe_dump(config, sort_keys=False))
            records.write_json(folder.path / "environment.json", describe_environment())
            for source in (*self.datamodule.seen, *self.datamodule.unseen):
                path = folder.path / "manifests" / f"{source.name.replace('/', '_')}.csv"
                records.write_atomically(path, source.manifest.to_csv())
        return resume

    def _finish(self, folder: RunFolder, checkpoint: Path) -> None:
        """Write case table and result, on the first process only, and print the table."""
        if not self.trainer.is_global_zero:
            return
        folder.result_file.unlink(missing_ok=True)
        folder.write_cases(self.model.test_rows, curves=self.model.test_table.curves)
        rows = folder.read_cases()  # what the file says is the truth, to the last digit
        epoch, _ = _epoch_and_seconds(checkpoint)
        last_epoch, seconds = _epoch_and_seconds(folder.checkpoints / "last.ckpt")
        history = {int(row["epoch"]): row for row in folder.read_history()}
        folder.write_result(
            {
                "run_id": folder.path.name,
                "suite": folder.path.parent.name,
                "network": self.label,
                "parameters": sum(parameter.numel() for parameter in self.model.network.parameters()),
                "seed": int(self._get(self.config, "seed_everything")),
                "epochs": last_epoch + 1,
                "image_size": self.datamodule.image_size,
                "protocol": str(self.model.protocol),
                "checkpoint": {
                    "rule": self.model.protocol.checkpoint,
                    "epoch": epoch,
                    "monitor": "val/dsc",
                    "value": history.get(epoch, {}).get("val/dsc"),
                },
                "training_sets": [source.name for source in self.datamodule.seen],
                "manifests": self._manifests(),
                "splits": {source.name: source.split_name for source in (*self.datamodule.seen, *self.datamodule.unseen)},
                "cells": records.summarize(rows, self.model.test_table.pooled),
                "package": describe_package(),
                "hardware": describe_hardware(self.trainer),
                "seconds": seconds,
                "deviations": self._deviations(),
            }
        )
        _log.info("tested %s of epoch %d\n%s\nrun folder: %s", checkpoint.name, epoch + 1, _table(rows), folder.path)

    def _checkpoints(self, folder: RunFolder) -> list[ModelCheckpoint]:
        """The last epoch, to resume from, and the best by seen validation where the protocol chooses by it."""
        common: dict[str, Any] = {
            "dirpath": folder.checkpoints,
            "auto_insert_metric_name": False,
            "enable_version_counter": False,
            "save_on_train_epoch_end": True,
        }
        callbacks = [ModelCheckpoint(filename="last", monitor=None, save_top_k=1, **common)]
        if self._checkpoint_rule() == "best":
            callbacks.insert(0, ModelCheckpoint(filename="best", monitor="val/dsc", mode="max", save_top_k=1, **common))
        return callbacks

    def _checkpoint_rule(self) -> str:
        """Which checkpoint is tested: ``best`` or ``last``.

        Raises:
            ConfigError: The rule asks for validation cases, and there are none.
        """
        protocol = self.datamodule.protocol
        if protocol.checkpoint == "best" and not any(source.manifest.rows("val") for source in self.datamodule.seen):
            raise ConfigError(
                f"protocol {protocol} chooses the checkpoint by validation, but no seen set has validation "
                f"cases; use the protocol {protocol.name}[checkpoint=last]."
            )
        return protocol.checkpoint

    def _deviations(self) -> list[str]:
        """Where the run departs from its configuration, in words."""
        parts = self._get(self.config_init, "run").batch_parts
        return [f"each batch was trained in {parts} parts with accumulated gradients."] if parts > 1 else []

    def _resolved(self) -> dict[str, Any]:
        """The whole configuration as plain values, defaults included, without what only `fit` takes."""
        assert self.subcommand is not None
        text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_unset=False)
        plain = yaml.safe_load(text)
        return {key: value for key, value in plain.items() if key not in ("config", "ckpt_path", "weights_only")}

    def _manifests(self) -> dict[str, str]:
        return {source.name: source.manifest.sha256 for source in (*self.datamodule.seen, *self.datamodule.unseen)}


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
    }
    summary = "write a mask (0 and 255) and an overlay for every image of a folder"
    run, known, rest = split_arguments("predict", summary, arguments, options)
    cli = run_cli(["predict", *arguments_of_run(run), *rest])
    checkpoint = cli.config["predict"].get("ckpt_path")
    model, data, folder = cli.model, cli.datamodule, Path(known.images)
    images = ImageFolderDataModule(folder, image_size=data.image_size, num_targets=data.num_targets)
    writer = MaskWriter(Path(known.output), images.read, targets=data.targets, threshold=model.protocol.threshold)
    cli.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    cli.trainer.predict(model, datamodule=images, ckpt_path=checkpoint, weights_only=True, return_predictions=False)
    _log.info("%d images: masks and overlays are in %s", writer.written, known.output)
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
    _log.handlers = [_Console() if _is_first_process() else logging.NullHandler()]
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    try:
        return BenchCLI(arguments, folder=folder)
    except (ArgumentError, ValueError) as error:
        cause = find_cause(error)
        if cause is not None:
            raise cause from None
        if isinstance(error, ArgumentError):
            raise ConfigError(condense(str(error), BenchCLI.known_keys)) from None
        raise


class NetworkLabel(Callback):
    """Keeps the network's name in every checkpoint: built without its initial weights, it would not tell them.

    Args:
        label: The name in tables.
    """

    def __init__(self, label: str) -> None:
        self._label = label

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint keeps."""
        return {"label": self._label}


class _Console(logging.Handler):
    """Prints messages above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        tqdm.write(self.format(record), file=sys.stdout)


class _logging_to:  # a context manager that reads like a function
    """Copy the log of the suite and of the trainer into a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(path, encoding="utf-8") if _is_first_process() else logging.NullHandler()
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def __enter__(self) -> None:
        for name in ("madgnet_bench", "lightning.pytorch"):
            logging.getLogger(name).addHandler(self._handler)

    def __exit__(self, *error: object) -> None:
        if error[1] is not None:
            _log.error("stopped by %r", error[1])
        for name in ("madgnet_bench", "lightning.pytorch"):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of the trainer, on the CPU, without running code of the file.

    Raises:
        RunError: There is no such file, it is damaged, or it is something else.
    """
    if not Path(path).is_file():
        raise RunError(f"{path}: no such checkpoint; correct --ckpt_path.")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # torch lets through whatever its readers raise
        raise RunError(f"{path}: not a checkpoint of a run, or damaged ({type(error).__name__}).") from error
    if not isinstance(state, dict) or not {"state_dict", "callbacks"} <= set(state):
        raise RunError(
            f"{path}: not a checkpoint of a run. Released weights are not named with --ckpt_path but with "
            "--model.init_args.network.init_args.checkpoint."
        )
    return state


def _epoch_and_seconds(checkpoint: Path) -> tuple[int, float]:
    """The epoch (from 0) that a checkpoint was written after, and the seconds of training until then, resumes included."""
    state = read_checkpoint(checkpoint)
    return int(state["epoch"]), round(state["callbacks"][History.__qualname__]["seconds"], 1)


def _is_first_process() -> bool:
    """Whether this is the process that writes and prints; true before any other is started."""
    return getattr(rank_zero_only, "rank", 0) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def _quiet(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a trainer method, without its own output and without running code of a checkpoint."""
    return options | {"verbose": False, "weights_only": True}


def _table(rows: Sequence[records.CaseRow]) -> str:
    """One run's cells as aligned text, the measures that are watched in training in percent; the result holds all."""
    titles = [f"{MEASURES[name].title} %" for name in VALIDATION_MEASURES]
    body = [
        [c["setting"], c["dataset"], c["target"], str(c["cases"])]
        + [f"{100 * c['measures'][name]:.2f}" for name in VALIDATION_MEASURES]
        for c in records.summarize(rows)
    ]
    protocol = f"protocol {rows[0].protocol}" if rows else "no test cases"
    return f"{align([['setting', 'test set', 'target', 'cases', *titles], *body], left=3)}\n{protocol}"
