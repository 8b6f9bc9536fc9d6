"""Trackers of experiments by configuration: Weights & Biases and TensorBoard, completed by what a run knows of itself.

``--trainer.logger WandbLogger`` and ``--trainer.logger TensorBoardLogger`` are enough. What the configuration leaves open is
filled in: both write inside the run folder; in Weights & Biases the suite is the group and the run's id the id, with which a
resumed run continues the same tracker run; TensorBoard appends to one folder. Other loggers are used as they are configured.
Loggers are no part of a run's identity.
"""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from madgnet_bench.cli.console import is_first_process
from madgnet_bench.errors import ConfigError
from madgnet_bench.protocol import VALIDATION_MEASURES
from madgnet_bench.records import RunFolder

__all__ = ["TrackRun", "TrackedRun", "check_loggers", "complete_loggers", "with_folder"]

_log = logging.getLogger("madgnet_bench")

_KEY = "--trainer.logger"
_PROJECT = "madgnet-bench"
_LEFT_OPEN = (None, "", ".", "lightning_logs")
"""Values that stand in the loggers' signatures, or in ours for what they demand."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a run knows of itself.

    Attributes:
        folder: Its folder, called like the run, in the folder of its suite.
        name: Network, training sets and seed, in words.
    """

    folder: RunFolder
    name: str

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.path.name

    @property
    def suite(self) -> str:
        """The suite that it belongs to."""
        return self.folder.path.parent.name


def with_folder(arguments: Sequence[str]) -> list[str]:
    """Give a TensorBoardLogger named on the command line the folder that its signature demands: empty, to be filled in.

    >>> with_folder(["--trainer.logger", "TensorBoardLogger", "--trainer.max_epochs", "3"])[1:3]
    ['TensorBoardLogger', '--trainer.logger.init_args.save_dir=']
    """
    words: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        words.append(word)
        key, _, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if key in (_KEY, f"{_KEY}.class_path") and value.rpartition(".")[2] == TensorBoardLogger.__name__:
            words.append(f"{_KEY}.init_args.save_dir=")
    return words


def check_loggers(described: Any) -> None:
    """Make sure that the packages of the configured trackers are installed.

    Args:
        described: ``trainer.logger`` as parsed.

    Raises:
        ConfigError: One is missing; the message holds the command that installs it.
    """
    needed = {
        WandbLogger.__name__: (("wandb",), "wandb"),
        TensorBoardLogger.__name__: (("tensorboard", "tensorboardX"), "'madgnet-bench[tensorboard]'"),
    }
    for one in _each(described):
        name = one.class_path.rpartition(".")[2]
        packages, install = needed.get(name, ((), ""))
        if packages and not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(f"trainer.logger {name} needs {packages[0]}: pip install {install}")


def complete_loggers(described: Any, built: Any, run: TrackedRun) -> list[Logger] | bool:
    """Fill in what the configuration of loggers leaves open.

    Args:
        described: ``trainer.logger`` as parsed: a logger or several, by class and arguments, or nothing.
        built: The same, as the parser has built it.
        run: What it is filled in with.

    Returns:
        The loggers, which have opened nothing yet; False where there are none.
    """
    if not _each(described):
        return bool(built)
    objects = list(built) if isinstance(built, list | tuple) else [built]
    return [_complete(one, logger, run) for one, logger in zip(_each(described), objects, strict=True)]


class SafeWandbLogger(WandbLogger):
    """A WandbLogger that keeps its run offline where the server cannot be reached or refuses the key; arguments as there."""

    @property
    def experiment(self) -> Any:
        """The run; started when first asked for, on the first process."""
        import wandb  # costs seconds

        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)  # its mere presence is warned of
        try:
            return super().experiment
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())[:200]
            _log.warning("wandb: no connection, so this run is kept offline (%s).", reason)
            wandb.teardown()  # its service still holds the run's id
            self._wandb_init.update(mode="offline", **_silent())
            return super().experiment


class TrackRun(Callback):
    """Gives the trackers of a training the configuration once, the tested measures, and an end.

    Args:
        config: The resolved configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = {key: value for key, value in config.items() if key not in ("run", "data_root")}
        self._config["trainer"] = {key: value for key, value in self._config["trainer"].items() if key != "logger"}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the configuration; a resumed run has it there already."""
        if trainer.is_global_zero and trainer.ckpt_path is None:
            for logger in trainer.loggers:
                logger.log_hyperparams(self._config)

    def finish(self, trainer: Trainer, cells: Sequence[Mapping[str, Any]], *, failed: bool = False) -> None:
        """Log the tested measures and close every tracker.

        Args:
            trainer: The trainer that tested.
            cells: What `madgnet_bench.records.summarize` returns.
            failed: Whether the run ended before its time; it can be resumed.
        """
        if not trainer.is_global_zero:
            return
        measures = {
            f"test/{cell['setting']}/{cell['dataset']}/{cell['target']}/{name}": cell["measures"][name]
            for cell in cells
            for name in VALIDATION_MEASURES
        }
        for logger in trainer.loggers:
            try:
                if measures:
                    logger.log_metrics(measures, step=trainer.global_step)
                logger.finalize("failed" if failed else "success")
                if isinstance(logger, WandbLogger) and logger._experiment is not None:
                    logger.experiment.finish(exit_code=int(failed))
            except Exception as error:  # of a server or a full disk: the run itself is written
                _log.warning("%s could not be closed: %s", type(logger).__name__, " ".join(str(error).split())[:200])


def _each(described: Any) -> list[Namespace]:
    """The loggers that a configuration describes."""
    several = described if isinstance(described, list | tuple) else [described]
    return [one for one in several if isinstance(one, Namespace) and "class_path" in one]


def _complete(described: Namespace, built: Logger, run: TrackedRun) -> Logger:
    """Build one logger anew with what was left open, where we know how."""
    given = {**vars(described.get("init_args") or Namespace()), **(described.get("dict_kwargs") or {})}
    if isinstance(built, WandbLogger):
        kind = SafeWandbLogger if type(built) is WandbLogger else type(built)
        return kind(**_fill(given, _for_wandb(given, run)))
    if isinstance(built, TensorBoardLogger):
        return type(built)(**_fill(given, _for_tensorboard(given, run)))
    return built


def _fill(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, **{name: value for name, value in values.items() if given.get(name) in _LEFT_OPEN}}


def _for_wandb(given: Mapping[str, Any], run: TrackedRun) -> dict[str, Any]:
    """One run per job: in the group of its suite, under the run's own id."""
    values: dict[str, Any] = {"save_dir": str(run.folder.path), "name": run.name, "group": run.suite, "resume": "allow"}
    values["project"] = os.environ.get("WANDB_PROJECT", _PROJECT)
    if given.get("version") is None:
        values["id"] = run.id
    mode = "offline" if given.get("offline") else given.get("mode") or os.environ.get("WANDB_MODE")
    if mode is None and not _has_key():
        mode = values["mode"] = "offline"
        if is_first_process():
            kept = f"{run.folder.path}/wandb/offline-run-*"
            _log.info("wandb: no API key is configured, so this run is kept offline; `wandb sync %s` uploads it.", kept)
    return {**values, **(_silent() if mode == "offline" else {})}


def _for_tensorboard(given: Mapping[str, Any], run: TrackedRun) -> dict[str, Any]:
    """One folder per run: inside the run folder, or by suite and id inside the folder that was given."""
    if given.get("save_dir") in _LEFT_OPEN:
        named = {"version": "tensorboard"} if given.get("version") is None else {}
        return {"save_dir": str(run.folder.path), "name": "", **named}
    return {"name": run.suite, "version": run.id}


def _silent() -> dict[str, Any]:
    """Settings under which a run prints nothing of its own."""
    import wandb  # costs seconds

    return {"settings": wandb.Settings(silent=True)}


def _has_key() -> bool:
    """Whether Weights & Biases would find credentials without asking for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    places = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for place in places:
        try:
            if netrc.netrc(Path(place).expanduser()).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
