"""Resolves the jobs of a suite in a process of its own: ``python -m madgnet_bench.cli.planning QUESTION ANSWER``.

Every job's arguments are read by the parser of `madgnet-bench fit`; its data module is built, which opens no file, and its
data sets are listed, once each. Every task with its network, loss and inferer is built once, without values.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from madgnet_bench import records
from madgnet_bench.bench.plan import stat_of
from madgnet_bench.catalog.manifest import Manifest
from madgnet_bench.cli.bench_cli import INITIAL_WEIGHTS, BenchCLI
from madgnet_bench.cli.loggers import check_loggers, with_folder
from madgnet_bench.cli.messages import condense, find_cause
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule, check_unseen
from madgnet_bench.errors import BenchError, ConfigError
from madgnet_bench.tasks.supervised import SegmentationTask

__all__ = ["Planner", "main"]

_WRITING = os.O_WRONLY | os.O_RDWR


class Planner(BenchCLI):
    """The command line without its building and running: it resolves arguments, one job after the other.

    Args:
        folder: Folder to which all jobs must write their runs.
    """

    def __init__(self, folder: Path) -> None:
        self._runs = folder
        self._listed: dict[str, Manifest] = {}
        self._built: dict[str, Exception | None] = {}
        self._data_root = os.environ.get("MADGNET_BENCH_DATA")
        super().__init__([])
        self._parts = ArgumentParser(exit_on_error=False)
        self._parts.add_subclass_arguments(SeenUnseenDataModule, "data")
        self._parts.add_subclass_arguments(SegmentationTask, "model")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Leave the arguments to `resolve`."""
        self.config = Namespace(subcommand=None, seed_everything=False)

    def before_instantiate_classes(self) -> None:
        """Nothing is built."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def resolve(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Resolve one job.

        Returns:
            ``run_id``, ``epochs``, ``devices`` and ``accelerator``; or ``problem``, in words.
        """
        try:
            return self._resolve(arguments)
        except BenchError as error:
            return {"problem": str(error)}
        except (ArgumentError, ValueError) as error:
            return {"problem": str(find_cause(error) or condense(str(error), BenchCLI.known_keys))}
        except Exception as error:  # a class of the user's own may raise anything; the other jobs are still looked at
            return {"problem": f"{type(error).__name__}: {error}"}

    def _resolve(self, arguments: Sequence[str]) -> dict[str, Any]:
        self.config = self.parser.parse_args(["fit", *with_folder(arguments)])
        self.subcommand = "fit"
        config = self.config["fit"]
        self._find_data(config.data_root)
        _check_weights(self._resolved())
        check_loggers(config.trainer.logger)
        self.datamodule = self._parts.instantiate(Namespace(data=config.data)).data
        self._share_manifests(config)
        check_unseen(self.datamodule.seen, self.datamodule.unseen)
        self._checkpoint_rule()
        folder = self._run_folder()
        if folder.path.parent.resolve() != self._runs.resolve():
            raise ConfigError(f"run.root is {config.run.root}; leave it out and pass --root {config.run.root} to run.")
        if config.trainer.fast_dev_run:
            raise ConfigError("trainer.fast_dev_run writes no run; leave it out.")
        self._check_model(config.model)
        return {
            "run_id": folder.path.name,
            "epochs": config.trainer.max_epochs if (config.trainer.max_epochs or -1) > 0 else None,
            "devices": _devices(config.trainer),
            "accelerator": str(config.trainer.accelerator),
        }

    def _check_model(self, model: Namespace) -> None:
        """Build the task, once for all jobs that describe the same, so that what its parts refuse is known before any starts.

        It is built without values, and where something in it needs values, once more with them. Initial weights are left out.
        """
        described = model.clone()
        described.init_args.pop("seed", None)
        network = described.init_args.network
        network.init_args["num_targets"] = self.datamodule.num_targets
        for name in INITIAL_WEIGHTS.keys() & vars(network.init_args).keys():
            network.init_args[name] = INITIAL_WEIGHTS[name]
        key = repr(described)
        if key not in self._built:
            self._built[key] = self._problem(described)
        problem = self._built[key]
        if problem is not None:
            raise problem

    def _problem(self, model: Namespace) -> Exception | None:
        """What keeps a task from being built."""
        problem: Exception | None = None
        for device in ("meta", "cpu"):
            try:
                with torch.device(device):
                    self._parts.instantiate(Namespace(model=model.clone()))
            except Exception as error:
                problem = error
            else:
                return None
        return problem

    def _find_data(self, root: str | None) -> None:
        """Tell the catalog where this job's data lie, and nothing of the job before."""
        os.environ.pop("MADGNET_BENCH_DATA", None)
        if root is not None:
            os.environ["MADGNET_BENCH_DATA"] = str(Path(root).expanduser().resolve())
        elif self._data_root is not None:
            os.environ["MADGNET_BENCH_DATA"] = self._data_root

    def _share_manifests(self, config: Namespace) -> None:
        """List every data set once, however many jobs use it."""
        for setting in ("seen", "unseen"):
            sources = getattr(self.datamodule, setting)
            described = config.data.init_args.get(setting) or []
            if len(described) != len(sources):  # a data module of the user's own, with arguments of other names
                continue
            for source, one in zip(sources, described, strict=True):
                key = f"{os.environ.get('MADGNET_BENCH_DATA')} {one}"
                if key in self._listed:
                    source.__dict__["manifest"] = self._listed[key]
                else:
                    self._listed[key] = source.manifest


def main(arguments: Sequence[str]) -> int:
    """Read the question from one file and write the answer to another; see `madgnet_bench.bench.plan`."""
    asked, answered = map(Path, arguments)
    question = json.loads(asked.read_text(encoding="utf-8"))
    warnings.simplefilter("ignore")
    sys.path.append(os.getcwd())  # where `fit` finds classes of the user's own, too
    planner = Planner(Path(question["runs"]))
    with _reads() as read:
        jobs = [planner.resolve(words) for _, _, words in question["jobs"]]
    answered.write_text(json.dumps({"jobs": jobs, "read": read}), encoding="utf-8")
    return 0


@contextmanager
def _reads() -> Iterator[dict[str, list[int] | None]]:
    """Note every file that is opened and every folder that is listed, with `stat_of` it, but for those of libraries.

    Libraries and the package are known by their versions and sources.
    """
    noted: dict[str, list[int] | None] = {}
    elsewhere = (sys.prefix, sys.base_prefix, os.path.dirname(records.__file__), "/proc", "/sys", "/dev")
    installed = tuple({os.path.join(os.path.realpath(path), "") for path in elsewhere})
    active = True

    def note(event: str, details: tuple[Any, ...]) -> None:
        if not active or event not in ("open", "os.listdir", "os.scandir") or (event == "open" and details[2] & _WRITING):
            return
        path = "." if details[0] is None else details[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        full = os.path.abspath(os.fsdecode(path))
        if full not in noted and "__pycache__" not in full and not os.path.realpath(full).startswith(installed):
            noted[full] = stat_of(full)

    sys.addaudithook(note)
    try:
        yield noted
    finally:
        active = False


def _check_weights(config: Mapping[str, Any]) -> None:
    """Look for the files of initial weights, which are opened when the network is built.

    Raises:
        ConfigError: One is missing.
    """
    for key, value in _leaves(config):
        named = any(fnmatch.fnmatch(key, pattern) for pattern in records.WEIGHT_FILES) and isinstance(value, str)
        if named and (os.sep in value or Path(value).suffix) and not Path(value).is_file():
            raise ConfigError(f"{key}: no file {value}; correct it, or leave it out.")


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _devices(trainer: Namespace) -> int:
    """How many devices a job trains on; what says "all" means the one that it is given.

    Raises:
        ConfigError: Devices are chosen by their place, which the runner does, or several machines are asked for.
    """
    text = str(trainer.devices)
    if trainer.num_nodes != 1:
        raise ConfigError(f"trainer.num_nodes is {trainer.num_nodes}; a suite's job trains on one machine.")
    if text in ("auto", "-1"):
        return 1
    if not text.isdigit() or text == "0":
        raise ConfigError(f"trainer.devices is {text}; give a number, the runner chooses which.")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
