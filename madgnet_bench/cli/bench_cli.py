"""The LightningCLI of the suite: from a configuration to a run folder."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from madgnet_bench import records
from madgnet_bench.callbacks.gallery import TestGallery
from madgnet_bench.callbacks.history import History
from madgnet_bench.cli.checkpoints import KeptCheckpoint, NetworkLabel, epoch_and_effort, read_checkpoint
from madgnet_bench.cli.console import is_first_process, logging_to
from madgnet_bench.cli.environment import describe_environment
from madgnet_bench.cli.finish import Tested, show_cells, write_run
from madgnet_bench.cli.loggers import TrackedRun, TrackRun, check_loggers, complete_loggers, with_folder
from madgnet_bench.cli.run_lock import hold_run
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule, check_unseen
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.protocol import Protocol
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.supervised import SegmentationTask

__all__ = ["INITIAL_WEIGHTS", "BenchCLI", "RunOptions"]

_log = logging.getLogger("madgnet_bench")

INITIAL_WEIGHTS = {"checkpoint": None, "encoder_checkpoint": None, "pretrained": False}
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
        costs: Measure what one image costs the network, which takes some seconds at the end.
    """

    suite: str = "adhoc"
    root: str = "runs"
    predictions: Literal["none", "selected", "all"] = "selected"
    overwrite: bool = False
    batch_parts: int = 1
    costs: bool = True


class BenchCLI(LightningCLI):
    """Parses a configuration, builds what it names and runs one subcommand.

    Args:
        arguments: Subcommand and options.
        folder: The run folder that `test` writes to; `fit` finds its own.
    """

    known_keys: ClassVar[list[str]] = []
    """Keys of the configuration, for messages about unknown ones."""

    _label: str | None = None
    _plain: tuple[Namespace, dict[str, Any]] | None = None
    _tracking: TrackRun | None = None
    _apart: str | None = None

    def __init__(self, arguments: Sequence[str], *, folder: RunFolder | None = None) -> None:
        self.folder = folder
        self._command = arguments[0] if arguments else "fit"
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
            args=with_folder(arguments),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that was chosen: a parser takes a tenth of a second."""
        return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name == self._command}

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
        if self.subcommand == "fit":
            check_loggers(self.config["fit"].trainer.logger)
        else:
            self.config[self.subcommand].trainer.logger = False  # trackers follow trainings
            self._choose_weights()
        root = self._get(self.config, "data_root")
        if root is not None:
            os.environ["MADGNET_BENCH_DATA"] = str(Path(root).expanduser().resolve())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer around the run folder."""
        callbacks: list[Callback] = []
        if self.subcommand == "fit":
            if is_first_process():
                self.datamodule.check_files()
                check_unseen(self.datamodule.seen, self.datamodule.unseen)
            self.folder = self._run_folder()
            if not self._trainer_option("fast_dev_run"):
                callbacks += [NetworkLabel(self.model.network.label), History(self.folder), *self._checkpoints(self.folder)]
                kwargs["logger"] = self._loggers(self.folder)
                callbacks += [self._tracking] if self._tracking is not None else []
            parts = self._get(self.config_init, "run").batch_parts
            self.datamodule.batch_parts = parts
            kwargs["accumulate_grad_batches"] = self._trainer_option("accumulate_grad_batches") * parts
        if self.subcommand == "test" and self.folder is not None:
            self._apart = self._departure(self.folder, Path(self._get(self.config, "ckpt_path")))
        keep = self._get(self.config_init, "run").predictions
        if self.folder is not None and self._apart is None and keep != "none":
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
        if self._is_done(folder):
            return
        with hold_run(folder), logging_to(folder.path / "log.txt"):
            if not self._is_done(folder):  # another process may have ended it since
                self._train_and_test(folder, **options)

    def _is_done(self, folder: RunFolder) -> bool:
        """Whether nothing is left to do; says so."""
        if folder.state != "done" or self._get(self.config_init, "run").overwrite:
            return False
        folder.read_result()
        cells = show_cells(folder.read_cases())
        _log.info("%s: already done; --run.overwrite true trains it again.\n%s", folder.path, cells)
        return True

    def _train_and_test(self, folder: RunFolder, **options: Any) -> None:
        """Train from where an earlier attempt ended, test, and write what was found."""
        resume = self._prepare_folder(folder, trained=folder.state == "done")
        options["ckpt_path"] = options.get("ckpt_path") or resume
        cells: list[dict[str, Any]] | None = None
        try:
            self.trainer.fit(self.model, datamodule=self.datamodule, **options)
            chosen = folder.checkpoints / f"{self.model.protocol.checkpoint}.ckpt"
            if not chosen.is_file():
                raise RunError(f"{chosen}: the training left no checkpoint; train at least one epoch (trainer.max_epochs).")
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=str(chosen), weights_only=True, verbose=False)
            cells = self._finish(folder, chosen)
        finally:
            if self._tracking is not None:
                self._tracking.finish(self.trainer, cells or [], failed=cells is None)

    def validate(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Print the seen validation measures of a checkpoint."""
        (measures, *_) = self.trainer.validate(model, datamodule=datamodule, **_quiet(options)) or [{}]
        for name, value in measures.items():
            _log.info("%s  %.4f", name, value)

    def test(self, model: SegmentationTask, datamodule: SeenUnseenDataModule, **options: Any) -> None:
        """Test trained weights; write the tables to the run folder where one was named and this is its test."""
        with hold_run(self.folder) if self.folder is not None else nullcontext():
            self.trainer.test(model, datamodule=datamodule, **_quiet(options))
            if self.folder is not None and self._apart is None:
                self._finish(self.folder, Path(options["ckpt_path"]))
            elif self.trainer.is_global_zero:
                _log.info("%s\n%s", self.label, show_cells(model.test_rows))
                if self.folder is not None:
                    _log.warning("nothing was written to %s: %s.", self.folder.path, self._apart)

    def _departure(self, folder: RunFolder, checkpoint: Path) -> str | None:
        """Why a test is not that of the run in the folder; None where it is."""
        config = yaml.safe_load(folder.config_file.read_text(encoding="utf-8"))
        own = Protocol.parse(str(config["protocol"]))
        epochs, wanted = epoch_and_effort(folder.checkpoints / "last.ckpt")[0] + 1, config["trainer"]["max_epochs"]
        if folder.state != "done" and wanted is not None and epochs < wanted:
            return f"its training ended after {epochs} of {wanted} epochs; `fit --config {folder.config_file}` resumes it"
        if self.datamodule.protocol != own:
            return f"its protocol is {own}, and this was {self.datamodule.protocol}"
        if checkpoint.resolve() != (folder.checkpoints / f"{own.checkpoint}.ckpt").resolve():
            return f"it is tested by its {own.checkpoint} checkpoint, and this was {checkpoint}"
        share = self._trainer_option("limit_test_batches")  # a whole number is one of batches
        if self._trainer_option("fast_dev_run") or not (share is None or (isinstance(share, float) and share == 1)):
            return "not all batches were tested"
        for source in (*self.datamodule.seen, *self.datamodule.unseen):
            listed = _manifest_file(folder, source.name)
            if not listed.is_file() or listed.read_text(encoding="utf-8") != source.manifest.to_csv():
                return f"data set {source.name} has other cases than when it was trained"
        return None

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
        initial = [name for name, none in INITIAL_WEIGHTS.items() if arguments.get(name, none) != none]
        if kept and initial:
            self._label = kept["label"]
            for name in initial:
                arguments[name] = INITIAL_WEIGHTS[name]

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
        if is_first_process():
            if trained:  # nothing of the earlier training may be taken for this one's, however soon it is interrupted
                folder.result_file.unlink()
                folder.history_file.unlink(missing_ok=True)
                shutil.rmtree(folder.checkpoints)
            _log.info("%s: %s", folder.path, f"resuming the interrupted run from {last.name}" if resume else "starting")
            config = self._resolved()
            config = config | {"run": config["run"] | {"overwrite": False}}  # who repeats it later need not mean that
            comment = f"# Repeat with: madgnet-bench fit --config {folder.config_file}\n"
            comment += "".join(f"# {key}: sha256 {digest}\n" for key, digest in records.hash_weights(config).items())
            records.write_atomically(folder.config_file, comment + yaml.safe_dump(config, sort_keys=False))
            records.write_json(folder.path / "environment.json", describe_environment())
            for source in (*self.datamodule.seen, *self.datamodule.unseen):
                records.write_atomically(_manifest_file(folder, source.name), source.manifest.to_csv())
        return resume

    def _finish(self, folder: RunFolder, checkpoint: Path) -> list[dict[str, Any]]:
        """Write what the test found, on the first process only, print the table and return its cells."""
        if not self.trainer.is_global_zero:
            return []
        tested = Tested(
            trainer=self.trainer,
            model=self.model,
            datamodule=self.datamodule,
            checkpoint=checkpoint,
            label=self.label,
            seed=int(self._get(self.config, "seed_everything")),
            costs=self._get(self.config_init, "run").costs,
            deviations=self._deviations(),
        )
        result = write_run(folder, tested)
        epoch, shown = result["checkpoint"]["epoch"] + 1, show_cells(folder.read_cases())
        _log.info("tested %s of epoch %d\n%s\nrun folder: %s", checkpoint.name, epoch, shown, folder.path)
        cells: list[dict[str, Any]] = result["cells"]
        return cells

    def _loggers(self, folder: RunFolder) -> list[Logger] | bool:
        """The configured trackers, with what they leave open filled in from the run."""
        described = self.config["fit"].trainer.logger
        sets = " + ".join(source.name for source in self.datamodule.seen)
        name = f"{self.model.network.label}, {sets}, seed {int(self._get(self.config, 'seed_everything'))}"
        loggers = complete_loggers(described, self._trainer_option("logger"), TrackedRun(folder=folder, name=name))
        self._tracking = TrackRun(self._resolved()) if loggers else None
        return loggers

    def _checkpoints(self, folder: RunFolder) -> list[ModelCheckpoint]:
        """The last epoch, to resume from, and the best by seen validation where the protocol chooses by it."""
        common: dict[str, Any] = {
            "dirpath": folder.checkpoints,
            "auto_insert_metric_name": False,
            "enable_version_counter": False,
            "save_on_train_epoch_end": True,
        }
        callbacks: list[ModelCheckpoint] = [KeptCheckpoint(filename="last", monitor=None, save_top_k=1, **common)]
        if self._checkpoint_rule() == "best":
            callbacks.insert(0, KeptCheckpoint(filename="best", monitor="val/dsc", mode="max", save_top_k=1, **common))
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
        config = self.config[self.subcommand]
        if self._plain is None or self._plain[0] is not config:
            plain = yaml.safe_load(self._parser(self.subcommand).dump(config, skip_unset=False))
            left_out = ("config", "ckpt_path", "weights_only")
            self._plain = config, {key: value for key, value in plain.items() if key not in left_out}
        return self._plain[1]

    def _manifests(self) -> dict[str, str]:
        return {source.name: source.manifest.sha256 for source in (*self.datamodule.seen, *self.datamodule.unseen)}


def _manifest_file(folder: RunFolder, name: str) -> Path:
    return folder.path / "manifests" / f"{name.replace('/', '_')}.csv"


def _quiet(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a trainer method, without its own output and without running code of a checkpoint."""
    return options | {"verbose": False, "weights_only": True}
