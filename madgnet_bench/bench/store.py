"""Runs as tables see them: the summaries of the run folders below some paths, checked and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from madgnet_bench import __version__
from madgnet_bench.errors import RunError
from madgnet_bench.protocol import MEASURES
from madgnet_bench.records import RunFolder, find_runs, run_id

__all__ = ["Cell", "Run", "Store", "load_runs"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times faster, and not in every build


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The mean over the cases of one setting, data set, target and protocol in one run.

    Attributes:
        setting: ``"seen"`` or ``"unseen"``.
        dataset: Name of the test set.
        target: Name of the target.
        protocol: Text of the protocol.
        modality: Imaging modality.
        domain: Domain inside the data set.
        cases: Number of cases.
        empty: How many cases are of each of `madgnet_bench.records.EMPTY_CASES`.
        measures: Mean over cases per measure, as fractions.
    """

    setting: str
    dataset: str
    target: str
    protocol: str
    modality: str
    domain: str
    cases: int
    empty: Mapping[str, int]
    measures: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.setting} {self.dataset}:{self.target} [{self.protocol}]"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run.

    Attributes:
        folder: Where it lies; case rows are read from there when they are needed.
        run_id: Its name, a hash of what makes its result.
        suite: The suite that it belongs to.
        network: Label of the network's configuration, such as ``UNet 16-256``.
        parameters: Number of parameters of the network.
        seed: Seed of the training.
        epochs: Number of epochs that were asked for.
        image_size: Side in pixels of the training images.
        protocol: Text of the protocol that the run was tested under.
        training_sets: Names of the training sets, sorted.
        checkpoint: Which checkpoint was tested: ``rule``, ``epoch``, ``monitor``, ``value``.
        manifests: The sha256 of the manifest of every data set, by its name.
        cells: The results.
        version: Version of the package that made the run.
        commit: Its commit, where known.
        hardware: ``machine``, ``accelerator``, ``threads``.
        seconds: Wall-clock time of training and testing.
        deviations: Where the run departs from its method, in words.
        recipe: Hash of the configuration without the seed: only runs of one recipe are repetitions of each other.
        costs: What the network and the run cost, as `madgnet_bench.cli.costs` measures it; empty in older results.
        pretraining: Names of the data sets that the network's initial weights were trained on; empty where none is known.
        cases_sha256: The sha256 of the case table, which was checked when the run was read.
    """

    folder: RunFolder
    run_id: str
    suite: str
    network: str
    parameters: int
    seed: int
    epochs: int
    image_size: int
    protocol: str
    training_sets: tuple[str, ...]
    checkpoint: Mapping[str, Any]
    manifests: Mapping[str, str]
    cells: tuple[Cell, ...]
    version: str
    commit: str | None
    hardware: Mapping[str, Any]
    seconds: float
    deviations: tuple[str, ...]
    recipe: str
    costs: Mapping[str, Any] = field(default_factory=dict)
    pretraining: tuple[str, ...] = ()
    cases_sha256: str = ""

    @property
    def stale(self) -> bool:
        """True where another version of the package made the run."""
        return self.version != __version__

    def __str__(self) -> str:
        return f"run {self.run_id} ({self.folder.path})"


@dataclass(frozen=True, kw_only=True)
class Store:
    """What was found below some paths.

    Attributes:
        searched: Where it was looked.
        runs: The finished runs, in the order of their paths.
        unfinished: Run folders without a result: killed, or still running.
        damaged: One message per run folder that cannot be read.
    """

    searched: tuple[Path, ...]
    runs: tuple[Run, ...]
    unfinished: tuple[RunFolder, ...]
    damaged: tuple[str, ...]

    def remarks(self, *, shown: int = 10) -> list[str]:
        """Lines on the run folders that are not in the tables; at most ``shown`` of them are named."""
        lines: list[str] = []
        if self.unfinished:
            fix = "start them again with `madgnet-bench fit --config ...`, which resumes them"
            lines.append(f"{_count(len(self.unfinished))} unfinished, or still running, and not in the tables; {fix}:")
            lines += _first([f"  madgnet-bench fit --config {folder.config_file}" for folder in self.unfinished], shown)
        if self.damaged:
            lines.append(f"{_count(len(self.damaged))} damaged and not in the tables:")
            lines += _first([f"  {message}" for message in self.damaged], shown)
        return lines


def load_runs(paths: Sequence[Path]) -> Store:
    """Read every run folder at or below ``paths``.

    Args:
        paths: Run folders, or folders that hold run folders at any depth, committed ones without checkpoints included.

    Raises:
        RunError: A path does not exist, or two different runs bear the same run id.
    """
    runs: dict[str, tuple[Run, dict[str, Any]]] = {}
    unfinished: list[RunFolder] = []
    damaged: list[str] = []
    for folder in _run_folders(paths, damaged):
        try:
            if folder.state != "done":
                unfinished.append(folder)
                continue
            result = folder.read_result()
            run = _read_run(folder, result)
        except RunError as error:
            damaged.append(str(error))
            continue
        except OSError as error:
            damaged.append(_cannot_read(error))
            continue
        known, content = runs.setdefault(run.run_id, (run, result))
        if content != result:
            raise RunError(
                f"run {run.run_id} stands twice with different results: {known.folder.path} and {folder.path}. "
                "Pass only the one that counts, or delete the other."
            )
    return Store(
        searched=tuple(paths),
        runs=tuple(run for run, _ in runs.values()),
        unfinished=tuple(unfinished),
        damaged=tuple(damaged),
    )


def _run_folders(paths: Iterable[Path], damaged: list[str]) -> list[RunFolder]:
    """The run folders below the paths, each once.

    Configurations kept inside a finished run (by a tracker, say) are not runs; a stray one above finished runs does not hide
    them.
    """
    folders: dict[Path, RunFolder] = {}
    for path in paths:
        if not path.is_dir():
            raise RunError(f"{path}: no such folder. Name a run folder, or a folder that holds run folders.")
        found = find_runs(path, unreadable=lambda error: damaged.append(_cannot_read(error)))
        folders.update({folder.path.resolve(): folder for folder in found})

    def is_inside(path: Path, folder: RunFolder) -> bool:
        above = [folders[parent] for parent in path.parents if parent in folders]
        return any(parent.result_file.is_file() or not folder.result_file.is_file() for parent in above)

    return [folder for path, folder in folders.items() if not is_inside(path, folder)]


def _cannot_read(error: OSError) -> str:
    return f"{error.filename}: cannot be read ({error.strerror})."


def _read_run(folder: RunFolder, result: Mapping[str, Any]) -> Run:
    """Check a result's content and give it types."""
    try:
        cells = tuple(_read_cell(cell) for cell in result["cells"])
        run = Run(
            folder=folder,
            run_id=str(result["run_id"]),
            suite=str(result["suite"]),
            network=str(result["network"]),
            parameters=int(result["parameters"]),
            seed=int(result["seed"]),
            epochs=int(result["epochs"]),
            image_size=int(result["image_size"]),
            protocol=str(result["protocol"]),
            training_sets=tuple(sorted(_names(result, "training_sets"))),
            checkpoint=dict(result["checkpoint"]),
            manifests=dict(result["manifests"]),
            cells=cells,
            version=str(result["package"]["version"]),
            commit=result["package"].get("commit"),
            hardware=dict(result["hardware"]),
            seconds=float(result["seconds"]),
            deviations=tuple(result["deviations"]),
            recipe=_recipe(folder, str(result["protocol"])),
            costs=dict(result.get("costs") or {}),
            pretraining=tuple(map(str, result.get("pretraining") or ())),
            cases_sha256=str(result["cases_sha256"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{folder.result_file}: {what}; damaged. Delete it and start the run again.") from None
    unknown = sorted({name for cell in cells for name in cell.measures} - MEASURES.keys())
    if unknown:
        what = f"{len(unknown)} measures" if len(unknown) > 1 else "a measure"
        raise RunError(
            f"{folder.result_file}: {what} that this version does not know, first {unknown[0]!r}. Upgrade madgnet-bench, or "
            "delete it and start the run again."
        )
    names = [str(cell) for cell in cells]
    if not names or len(set(names)) < len(names):
        what = "a cell stands twice" if names else "no cell"
        raise RunError(f"{folder.result_file}: {what}; damaged. Delete it and start the run again.")
    return run


def _read_cell(content: Mapping[str, Any]) -> Cell:
    """Check the types of a cell."""
    cell = Cell(**content)
    texts = (cell.setting, cell.dataset, cell.target, cell.protocol, cell.modality, cell.domain)
    if not all(isinstance(text, str) for text in texts) or not isinstance(cell.cases, int):
        raise ValueError("a cell whose names are not text, or whose number of cases is none")
    if not isinstance(cell.measures, dict) or not isinstance(cell.empty, dict):
        raise ValueError("a cell whose measures or empty cases have no names")
    return cell


def _names(result: Mapping[str, Any], key: str) -> list[str]:
    """A list of names."""
    value = result[key]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} is no list of names")
    return value


def _recipe(folder: RunFolder, protocol: str) -> str:
    """Hash the configuration without its seed.

    Raises:
        RunError: The configuration is not YAML.
    """
    try:
        config = yaml.load(folder.config_file.read_text(encoding="utf-8"), Loader=_LOADER)  # a safe loader, see above
    except (yaml.YAMLError, UnicodeDecodeError):
        raise RunError(f"{folder.config_file}: not YAML; damaged. Start the run again.") from None
    if not isinstance(config, dict):
        raise RunError(f"{folder.config_file}: holds no configuration; damaged. Start the run again.")
    return run_id({key: value for key, value in config.items() if key != "seed_everything"}, {}, protocol)


def _count(number: int) -> str:
    return "1 run is" if number == 1 else f"{number} runs are"


def _first(lines: list[str], shown: int) -> list[str]:
    """The first lines and how many more there are."""
    return lines if len(lines) <= shown else [*lines[:shown], f"  ... and {len(lines) - shown} more"]
