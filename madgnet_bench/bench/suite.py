"""Suite files: a grid of experiments in YAML, expanded into jobs for `madgnet-bench fit`.

A suite file looks like this; ``networks``, ``training_sets`` and ``seeds`` are needed, all else is optional::

    configs: [../configs/trainer/madgnet.yaml]             # files shared by every job
    set: {trainer.max_epochs: 100}                         # dotted keys of the configuration, shared
    networks:                                              # an axis: names, and what each adds
      scales1: {configs: [../configs/network/madgnet.yaml], set: {model.init_args.network.init_args.scales: 1}}
      unet: ../configs/network/unet.yaml                   # short for {configs: [...]}
    training_sets:
      dsb2018: ../configs/madgnet/dsb2018.yaml
    protocols: [madgnet, native]
    seeds: [0, 1, 2]
    sweep:                                                 # any further axes
      rate: {slow: {set: {model.init_args.optimizer.init_args.lr: 0.0001}}, as_is: {}}
    include: [{network: [scales1, unet]}]                  # keep only jobs that fit one of these
    exclude: [{network: unet, seed: [1, 2]}]               # then leave out those that fit one of these
    overrides: [{where: {network: unet}, set: {trainer.max_epochs: 20}}]

Three rules:
    - In ``include``, ``exclude`` and ``where`` the axes are called ``network``, ``training_set``, ``protocol``, ``seed``, and
      by their names in ``sweep``.
    - Paths are relative to the folder of the suite file.
    - A job's command names all files, then all settings: every ``set`` beats every file. Among files, and among settings, the
      order is shared, network, training set, protocol, sweeps as written, seed, overrides as written; the later one wins.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from madgnet_bench.errors import ConfigError, nearest
from madgnet_bench.protocol import Protocol

__all__ = ["Job", "Suite"]

_KEYS = ("configs", "set", "networks", "training_sets", "protocols", "seeds", "sweep", "include", "exclude", "overrides")
_NEEDED = ("networks", "training_sets", "seeds")
_CELL_KEYS = ("configs", "set")
_AXES = ("network", "training_set", "protocol", "seed")

_RESERVED = {
    "config": "list files under configs",
    "run.suite": "the name of the file is the name of the suite",
    "seed_everything": "list seeds under seeds",
}
"""Keys that a suite sets itself, and where their values come from."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One experiment of a suite.

    Attributes:
        suite: Name of the suite.
        key: Twelve hexadecimal digits made from the job's files and settings: the same wherever the project lies, and another
            one for every job of a suite. What the files say is not in it; `records.run_id` knows that.
        cells: Name per axis: ``network``, ``training_set``, ``protocol`` where the suite lists some, the sweeps, ``seed``.
        arguments: What follows ``madgnet-bench fit``. Files are relative to the working folder in which the suite was read.
    """

    suite: str
    key: str
    cells: Mapping[str, str] = field(hash=False)
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """The names of its cells, such as ``unet/dsb2018/0``; unique in the suite."""
        return "/".join(self.cells.values())

    @property
    def command(self) -> str:
        """The line for a shell that runs this job alone."""
        return f"madgnet-bench fit {shlex.join(self.arguments)}"


@dataclass(frozen=True)
class _Layer:
    """What one place of the file adds to a job.

    Attributes:
        configs: Paths relative to the suite's folder.
        settings: Values as text, by dotted key.
    """

    configs: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Override:
    """A layer for the jobs that fit a condition."""

    key: str
    where: Mapping[str, tuple[str, ...]]
    layer: _Layer


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite file, read and checked.

    Attributes:
        name: Name of the file without its ending; also the folder in ``runs/``.
        path: The file.
        axes: Names along each axis, in order.
    """

    name: str
    path: Path
    axes: Mapping[str, tuple[str, ...]]
    _jobs: tuple[Job, ...] = field(repr=False)

    @classmethod
    def read(cls, path: str | Path, *, seeds: Sequence[int] | None = None) -> Suite:
        """Read a suite file and expand it. Configurations are only looked for, not opened.

        Args:
            path: The file.
            seeds: Seeds in the place of the file's.

        Raises:
            ConfigError: The file cannot be read, a key, name, file or value in it is wrong, two names make the same job, or no
                job is left; the message names the file, the key and, where there is one, the nearest valid name.
        """
        return _Reader(Path(path), seeds).read()

    def jobs(self) -> tuple[Job, ...]:
        """The jobs, the first axis varying slowest and the seed fastest."""
        return self._jobs


class _Reader:
    """Reads one suite file; every message names the file and the key."""

    def __init__(self, path: Path, seeds: Sequence[int] | None) -> None:
        self._path = path
        self._other_seeds = seeds
        self._checked: set[str] = set()
        self._reserved = dict(_RESERVED)

    def read(self) -> Suite:
        """Read the axes, then make the jobs."""
        if not re.fullmatch(r"\w[\w.-]*", self._path.stem):
            self._fail("name", f"{self._path.stem!r} becomes a folder name; use letters, digits, '.', '_' and '-'")
        document = self._document()
        if "protocols" in document:
            self._reserved["protocol"] = "list protocols under protocols"
        shared = self._layer({key: document[key] for key in _CELL_KEYS if key in document}, "")
        axes = self._axes(document)
        jobs = self._expand(shared, axes, document)
        return Suite(name=self._path.stem, path=self._path, axes={a: tuple(cells) for a, cells in axes.items()}, _jobs=jobs)

    def _fail(self, key: str, message: str) -> NoReturn:
        raise ConfigError(f"{self._path}: {key + ': ' if key else ''}{message}")

    def _document(self) -> dict[str, Any]:
        """The file as a mapping with the needed keys."""
        try:
            document = yaml.load(self._path.read_text(encoding="utf-8"), _UniqueKeyLoader)
        except OSError:
            self._fail("", f"no such suite file{self._similar_file(self._path)}")
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self._fail("", f"not YAML: {error}")
        self._mapping(document, "", _KEYS)
        for key in _NEEDED:
            if key not in document:
                self._fail(key, f"missing; a suite needs {', '.join(_NEEDED)}")
        return {**document, "seeds": document["seeds"] if self._other_seeds is None else list(self._other_seeds)}

    def _axes(self, document: Mapping[str, Any]) -> dict[str, dict[str, _Layer]]:
        """The cells along every axis, in the order in which the axes vary, slowest first."""
        axes = {"network": self._cells(document["networks"], "networks")}
        axes["training_set"] = self._cells(document["training_sets"], "training_sets")
        if "protocols" in document:
            axes["protocol"] = self._protocols(document["protocols"])
        for name, cells in self._named(document.get("sweep", {}), "sweep"):
            if name in _AXES:
                self._fail(f"sweep.{name}", f"the suite has such an axis already; not {', '.join(_AXES)}")
            axes[name] = self._cells(cells, f"sweep.{name}")
        axes["seed"] = self._seeds(document["seeds"])
        return axes

    def _cells(self, value: Any, key: str) -> dict[str, _Layer]:
        """The cells of an axis by name."""
        cells = {name: self._layer(cell, f"{key}.{name}") for name, cell in self._named(value, key)}
        if not cells:
            self._fail(key, "empty; name at least one")
        return cells

    def _protocols(self, value: Any) -> dict[str, _Layer]:
        cells: dict[str, _Layer] = {}
        for position, text in enumerate(self._list(value, "protocols")):
            key = f"protocols[{position}]"
            if not isinstance(text, str):
                self._fail(key, f"expected the text of a protocol, found {_describe(text)}")
            try:
                name = str(Protocol.parse(text))
            except ConfigError as error:
                self._fail(key, str(error))
            if name in cells:
                self._fail(key, f"{name} is listed twice")
            cells[name] = _Layer(settings={"protocol": name})
        return cells

    def _seeds(self, value: Any) -> dict[str, _Layer]:
        cells: dict[str, _Layer] = {}
        for position, seed in enumerate(self._list(value, "seeds")):
            key = f"seeds[{position}]"
            if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
                self._fail(key, f"expected a whole number of at least 0, found {_describe(seed)}")
            if str(seed) in cells:
                self._fail(key, f"{seed} is listed twice")
            cells[str(seed)] = _Layer(settings={"seed_everything": str(seed)})
        return cells

    def _layer(self, value: Any, key: str) -> _Layer:
        """A cell: a mapping of configs and set, or one path."""
        if isinstance(value, str):
            return _Layer((self._config(value, key),))
        prefix = f"{key}." if key else ""
        cell = self._mapping(
            value, key, _CELL_KEYS, "a path, or a mapping of configs and set ({} for a cell that adds nothing)"
        )
        configs = self._list(cell["configs"], f"{prefix}configs") if "configs" in cell else []
        return _Layer(
            tuple(self._config(path, f"{prefix}configs[{position}]") for position, path in enumerate(configs)),
            self._settings(cell.get("set", {}), f"{prefix}set"),
        )

    def _config(self, text: Any, key: str) -> str:
        """A path to an existing file, normalised, relative to the suite's folder or absolute."""
        if not isinstance(text, str):
            self._fail(key, f"expected a path, found {_describe(text)}")
        path = os.path.normpath(text)
        if path not in self._checked:
            full = self._path.parent / path
            if not full.is_file():
                hint = self._similar_file(full)
                if Path(text).is_file():
                    hint = f"; did you mean {os.path.relpath(text, self._path.parent)!r}?"
                self._fail(key, f"no file {text!r} from the suite file's folder, to which paths are relative{hint}")
            self._checked.add(path)
        return path

    @staticmethod
    def _similar_file(path: Path) -> str:
        """Name a file beside ``path`` with a similar name."""
        names = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _settings(self, value: Any, key: str) -> dict[str, str]:
        """Dotted keys and their values as the command line takes them."""
        settings = {}
        for name, item in self._mapping(value, key, expected="a mapping of dotted keys").items():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name):
                self._fail(key, f"{name!r} is not a dotted key such as trainer.max_epochs")
            if name in self._reserved:
                self._fail(f"{key}.{name}", f"cannot be set; {self._reserved[name]}")
            try:
                settings[name] = item if isinstance(item, str) else json.dumps(item, allow_nan=False)
            except (TypeError, ValueError):
                self._fail(f"{key}.{name}", f"expected a number, text, true, false, null, list or mapping, found {item!r}")
        return settings

    def _expand(self, shared: _Layer, axes: Mapping[str, Mapping[str, _Layer]], document: Mapping[str, Any]) -> tuple[Job, ...]:
        """Make the jobs of the grid that are included and not excluded."""
        include = self._conditions(document.get("include"), "include", axes)
        exclude = self._conditions(document.get("exclude"), "exclude", axes)
        overrides = self._overrides(document.get("overrides"), axes)
        jobs: dict[str, Job] = {}
        used: set[str] = set()
        for names in itertools.product(*axes.values()):
            cells = dict(zip(axes, names, strict=True))
            if (include and not _fits_any(cells, include)) or _fits_any(cells, exclude):
                continue
            chosen = [override for override in overrides if _fits(cells, override.where)]
            used.update(override.key for override in chosen)
            layers = [shared, *(axes[axis][name] for axis, name in cells.items()), *(override.layer for override in chosen)]
            job = self._job(cells, layers)
            if job.key in jobs:
                self._fail("", f"{jobs[job.key].name} and {job.name} are the same job; remove one, or let them differ")
            jobs[job.key] = job
        if not jobs:
            self._fail("", "no job is left; let include and exclude leave some")
        for override in overrides:
            if override.key not in used:
                self._fail(f"{override.key}.where", "no job that is left fits it; change or remove it")
        return tuple(jobs.values())

    def _job(self, cells: Mapping[str, str], layers: Iterable[_Layer]) -> Job:
        """Join layers into one job: files in order, then settings, each once with its last value."""
        configs: list[str] = []
        settings: dict[str, str] = {}
        for layer in layers:
            configs += layer.configs
            for name, value in layer.settings.items():
                settings.pop(name, None)
                settings[name] = value
        key = hashlib.sha256(json.dumps([configs, settings], sort_keys=True).encode()).hexdigest()[:12]
        files = [word for path in configs for word in ("--config", _shown(self._path.parent / path))]
        words = [word for name, value in settings.items() for word in _option(name, value)]
        suite = self._path.stem
        return Job(suite=suite, key=key, cells=cells, arguments=(*files, *words, *_option("run.suite", suite)))

    def _overrides(self, value: Any, axes: Mapping[str, Mapping[str, _Layer]]) -> list[_Override]:
        overrides = []
        for position, item in enumerate(self._list(value, "overrides") if value is not None else []):
            key = f"overrides[{position}]"
            entry = self._mapping(item, key, ("where", *_CELL_KEYS))
            if "where" not in entry or len(entry) < 2:
                self._fail(key, "an override needs where, and configs or set")
            where = self._condition(entry["where"], f"{key}.where", axes)
            layer = self._layer({name: entry[name] for name in _CELL_KEYS if name in entry}, key)
            overrides.append(_Override(key, where, layer))
        return overrides

    def _conditions(
        self, value: Any, key: str, axes: Mapping[str, Mapping[str, _Layer]]
    ) -> list[Mapping[str, tuple[str, ...]]]:
        items = self._list(value, key) if value is not None else []
        return [self._condition(item, f"{key}[{position}]", axes) for position, item in enumerate(items)]

    def _condition(self, value: Any, key: str, axes: Mapping[str, Mapping[str, _Layer]]) -> dict[str, tuple[str, ...]]:
        """The names that an entry of include, exclude or where accepts, by axis."""
        condition = {}
        for axis, names in self._mapping(value, key, tuple(axes), "a mapping from axis to name or names").items():
            given = names if isinstance(names, list) else [names]
            known = axes[axis]
            accepted = tuple(self._name(name, f"{key}.{axis}") for name in given)
            if axis == "protocol":
                accepted = tuple(self._protocol_name(name, known) for name in accepted)
            for name in accepted:
                if name not in known:
                    self._fail(f"{key}.{axis}", f"unknown name {name!r}; {nearest(name, known)}")
            condition[axis] = accepted
        if not condition or not all(condition.values()):
            self._fail(key, "empty; name at least one axis and a name on it")
        return condition

    @staticmethod
    def _protocol_name(text: str, known: Mapping[str, _Layer]) -> str:
        """A protocol's text as the axis spells it."""
        try:
            name = str(Protocol.parse(text))
        except ConfigError:
            return text
        return name if name in known else text

    def _named(self, value: Any, key: str) -> Iterator[tuple[str, Any]]:
        """The items of a mapping whose keys are names."""
        seen: set[str] = set()
        for raw, item in self._mapping(value, key, expected="a mapping of names").items():
            name = self._name(raw, key)
            if name in seen:
                self._fail(key, f"the name {name} stands twice")
            seen.add(name)
            yield name, item

    def _name(self, value: Any, key: str) -> str:
        """A name on an axis; YAML reads on, off, yes and no as truth values, which are none."""
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            self._fail(key, f"{value!r} is not a name; put the name in quotes")
        if "/" in str(value):
            self._fail(key, f"the name {value!r} holds a '/', which separates names; leave it out")
        return str(value)

    def _mapping(self, value: Any, key: str, known: Sequence[str] = (), expected: str = "a mapping") -> Mapping[Any, Any]:
        """A mapping with none but the known keys."""
        if not isinstance(value, dict):
            self._fail(key, f"expected {expected}, found {_describe(value)}")
        for name in value if known else ():
            if name not in known:
                self._fail(f"{key}.{name}" if key else str(name), f"unknown key; {nearest(str(name), known)}")
        return value

    def _list(self, value: Any, key: str) -> list[Any]:
        """A list with something in it."""
        if not isinstance(value, list):
            self._fail(key, f"expected a list, found {_describe(value)}")
        if not value:
            self._fail(key, "the list is empty; name at least one")
        return value


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping in which a key stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping."""
        seen = set()
        for key_node in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key_node.value!r} stands twice", key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _fits(cells: Mapping[str, str], condition: Mapping[str, tuple[str, ...]]) -> bool:
    return all(cells[axis] in names for axis, names in condition.items())


def _fits_any(cells: Mapping[str, str], conditions: Iterable[Mapping[str, tuple[str, ...]]]) -> bool:
    return any(_fits(cells, condition) for condition in conditions)


def _option(name: str, value: str) -> tuple[str, ...]:
    """An option as words; in one word where its value would be taken for another option."""
    return (f"--{name}={value}",) if value.startswith("-") else (f"--{name}", value)


def _shown(path: Path) -> str:
    """A path from the working folder where it lies inside, else absolute."""
    full, here = os.path.abspath(path), os.getcwd()
    return os.path.relpath(full, here) if full.startswith(here + os.sep) else full


def _describe(value: Any) -> str:
    """A value and what YAML took it for."""
    kinds = {str: "text", bool: "truth value", int: "number", float: "number", list: "list", dict: "mapping"}
    return "nothing" if value is None else f"the {kinds.get(type(value), type(value).__name__)} {value!r}"
