"""Run folders: what a training leaves behind, how it is named, written atomically and read back. No torch.

A run folder ``runs/<suite>/<run_id>/`` holds::

    config.yaml        the resolved configuration; `fit --config` on it repeats the run
    environment.json   versions, hardware, command
    manifests/         the cases of every data set used, as CSV
    history.csv        one row per epoch
    checkpoints/       last.ckpt and, where the protocol chooses by validation, best.ckpt
    cases.csv          one row per tested case and target
    curves.npz         in the order of its rows, the counts behind measures that are no means over cases
    replicates.npz     bootstrap replicates of every cell, made from cases.csv; only saves time
    predictions/       overlays and masks: none, selected or all
    result.json        summary per data set and target, keyed by the sha256 of cases.csv; written last
    log.txt            what was printed
    .lock              locked by the process that trains or tests this run, as long as it lives

A folder without ``result.json`` is an interrupted run, and starting the same configuration again resumes it.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
import itertools
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from madgnet_bench.errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EMPTY_CASES",
    "SCHEMA_VERSION",
    "UNIDENTIFYING_KEYS",
    "WEIGHT_FILES",
    "CaseRow",
    "CaseTable",
    "RunFolder",
    "find_runs",
    "hash_weights",
    "run_id",
    "summarize",
    "write_atomically",
    "write_json",
]

SCHEMA_VERSION = 1
"""Version of the layout of every file written here; a reader refuses a newer one."""

UNIDENTIFYING_KEYS = (
    "config",
    "ckpt_path",
    "data_root",
    "run",
    "run.*",
    "trainer.accelerator",
    "trainer.default_root_dir",
    "trainer.devices",
    "trainer.enable_checkpointing",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.logger.*",
    "trainer.num_nodes",
    "trainer.profiler",
    "trainer.strategy",
    "trainer.use_distributed_sampler",
    "data.init_args.cache",
    "data.init_args.cache_gb",
    "data.init_args.eval_batch_size",
    "data.init_args.num_workers",
    "model.init_args.embeddings.init_args.folder",
    "model.init_args.embeddings.init_args.limit_gb",
)
"""Configuration keys that do not make another experiment (paths, devices, workers, loggers, verbosity) and so stay out of
`run_id`. ``data.init_args.batch_size`` is the batch over all devices, so the effective batch and the seed are in."""

WEIGHT_FILES = ("model.*.checkpoint", "model.*.encoder_checkpoint")
"""Configuration keys that hold paths of files of initial weights. Their content is part of `run_id`, not where they lie."""

EMPTY_CASES = ("neither", "reference", "prediction", "both")
"""The four empty-mask cases: which of reference and prediction holds no foreground."""

_IDENTITY = ("case_id", "group_id", "dataset", "modality", "domain", "setting", "target", "protocol", "empty_case")


@dataclass(frozen=True)
class CaseRow:
    """One tested case and target.

    Attributes:
        case_id: Identifier in the data set's manifest.
        group_id: Patient, video or volume.
        dataset: Name of the data set.
        modality: Imaging modality.
        domain: Domain inside the data set.
        setting: ``"seen"`` or ``"unseen"``; ``"evaluated"`` where predictions came from elsewhere, so that this is unknown.
        target: Name of the target.
        protocol: Text of the protocol, its departures included.
        empty_case: One of `EMPTY_CASES`.
        measures: Value per measure, in the units of `madgnet_bench.protocol.MEASURES`.
    """

    case_id: str
    group_id: str
    dataset: str
    modality: str
    domain: str
    setting: Literal["seen", "unseen", "evaluated"]
    target: str
    protocol: str
    empty_case: str
    measures: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What must be unique in a table, and by which it is sorted."""
        return (self.setting, self.dataset, self.target, self.case_id, self.protocol)


def hash_weights(config: Mapping[str, Any]) -> dict[str, str]:
    """Hash the files of weights that a configuration names.

    Returns:
        The sha256 of every file at a key of `WEIGHT_FILES`, by that key; what is no file, such as a name, is left out.
    """
    paths = {
        key: Path(value)
        for key, value in _flatten(config)
        if isinstance(value, str) and any(fnmatch.fnmatch(key, name) for name in WEIGHT_FILES)
    }
    return {key: _sha256(path) for key, path in paths.items() if path.is_file()}


def run_id(
    config: Mapping[str, Any], manifests: Mapping[str, str], protocol: str, *, weights: Mapping[str, str] | None = None
) -> str:
    """Name a run by what makes its result: twelve hexadecimal digits.

    Args:
        config: Resolved configuration, nested mappings of plain values; `UNIDENTIFYING_KEYS` and all below them are ignored.
        manifests: The sha256 of the manifest of every data set, by its name.
        protocol: Text of the protocol.
        weights: What `hash_weights` finds; these hashes stand for the paths in ``config``.

    >>> a = run_id({"seed_everything": 1, "data_root": "/a"}, {"x": "00"}, "madgnet")
    >>> b = run_id({"data_root": "/b", "seed_everything": 1}, {"x": "00"}, "madgnet")
    >>> a == b, a == run_id({"seed_everything": 2}, {"x": "00"}, "madgnet")
    (True, False)
    """
    ignored = [name for key in UNIDENTIFYING_KEYS for name in (key, f"{key}.*")]
    kept = {key: value for key, value in _flatten(config) if not any(fnmatch.fnmatch(key, name) for name in ignored)}
    kept.update(weights or {})
    identity = {"config": kept, "manifests": dict(manifests), "protocol": protocol}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield dotted keys and leaves; list positions are keys too."""
    if isinstance(value, Mapping):
        for key in value:
            yield from _flatten(value[key], f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple):
        yield f"{prefix}.length", len(value)
        for position, item in enumerate(value):
            yield from _flatten(item, f"{prefix}.{position}")
    else:
        yield prefix, value


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, atomically; NaN is refused."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


@dataclass(frozen=True)
class CaseTable:
    """What a test measured.

    Attributes:
        rows: One per case and target.
        pooled: Measures that are no means over cases, by setting, data set and target.
        curves: What those are made of: arrays whose first axis is that of the rows.
    """

    rows: Sequence[CaseRow] = ()
    pooled: Mapping[tuple[str, str, str], Mapping[str, float]] = field(default_factory=dict)
    curves: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    Args:
        path: The folder; need not exist yet.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def cases_file(self) -> Path:
        """One row per tested case and target."""
        return self.path / "cases.csv"

    @property
    def curves_file(self) -> Path:
        """The counts behind the pooled measures."""
        return self.path / "curves.npz"

    @property
    def history_file(self) -> Path:
        """One row per epoch."""
        return self.path / "history.csv"

    @property
    def result_file(self) -> Path:
        """The summary, written last."""
        return self.path / "result.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the process that writes the run; its presence means nothing."""
        return self.path / ".lock"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def state(self) -> Literal["new", "interrupted", "done"]:
        """``done`` once the result is written, ``interrupted`` while only other files are there, but for the lock file."""
        if self.result_file.is_file():
            return "done"
        written = self.path.is_dir() and any(path != self.lock_file for path in self.path.iterdir())
        return "interrupted" if written else "new"

    def write_cases(self, rows: Sequence[CaseRow], *, curves: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Write the case table, sorted, and beside it the curves.

        Args:
            rows: One per case and target, in any order.
            curves: Arrays whose first axis is that of the rows; they are written in the order of the table.

        Raises:
            RunError: Two rows are of the same case, target and protocol, or rows differ in their measures.
        """
        order = sorted(range(len(rows)), key=lambda place: rows[place].key)
        ordered = [rows[place] for place in order]
        keys = [row.key for row in ordered]
        twice = sorted({key for before, key in itertools.pairwise(keys) if before == key})
        if twice:
            raise RunError(f"{self.cases_file}: {len(twice)} cases stand twice, first {twice[0]}; nothing was written.")
        names = list(ordered[0].measures) if ordered else []
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["schema_version", *_IDENTITY, *names])
        for row in ordered:
            if list(row.measures) != names:
                raise RunError(f"{self.cases_file}: {row.key} has measures {list(row.measures)}, the others {names}.")
            identity = [getattr(row, name) for name in _IDENTITY]
            writer.writerow([SCHEMA_VERSION, *identity, *(f"{row.measures[name]:.8g}" for name in names)])
        self.curves_file.unlink(missing_ok=True)  # it never stands beside a table that it does not belong to
        write_atomically(self.cases_file, stream.getvalue())
        if curves:
            self._write_curves({name: curve[order] for name, curve in curves.items()})

    def _write_curves(self, curves: Mapping[str, NDArray[Any]]) -> None:
        import numpy as np  # no other part of this module needs it

        stream = io.BytesIO()
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **curves}
        np.savez_compressed(stream, **content)
        write_atomically(self.curves_file, stream.getvalue())

    def read_curves(self) -> dict[str, NDArray[Any]]:
        """Read the curves, whose first axis is that of `read_cases`.

        Raises:
            RunError: The file is missing, damaged or of a newer schema.
        """
        import numpy as np

        try:
            with np.load(self.curves_file, allow_pickle=False) as stored:
                curves = {name: stored[name] for name in stored.files}
            _check_schema(self.curves_file, curves.pop("schema_version"))
        except FileNotFoundError:
            raise RunError(f"{self.curves_file}: no curves; test the run again to make them.") from None
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise RunError(f"{self.curves_file}: not the curves of a run ({error}). Test the run again.") from None
        return curves

    def read_cases(self) -> list[CaseRow]:
        """Read the case table back.

        Raises:
            RunError: The file is missing, truncated or of a newer schema; the message says which.
        """
        try:
            with self.cases_file.open(encoding="utf-8", newline="") as stream:
                table = list(csv.DictReader(stream))
        except FileNotFoundError:
            raise RunError(f"{self.cases_file}: no case table; the run was interrupted. Start it again to finish it.") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise RunError(f"{self.cases_file}: not a case table ({error}). Test the run again.") from None
        rows = []
        for line, record in enumerate(table, start=2):
            missing = [name for name in ("schema_version", *_IDENTITY) if record.get(name) is None]
            if missing or None in record.values() or None in record:
                raise RunError(f"{self.cases_file}, line {line}: truncated or damaged row. Test the run again.")
            _check_schema(self.cases_file, record.pop("schema_version"))
            identity = {name: record.pop(name) for name in _IDENTITY}
            try:
                measures = {name: float(value) for name, value in record.items()}
            except ValueError as error:
                raise RunError(f"{self.cases_file}, line {line}: {error}. Test the run again.") from None
            rows.append(CaseRow(**identity, measures=measures))  # type: ignore[arg-type]
        return rows

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the summary last and atomically; it adds the schema version and the sha256 of the case table."""
        content = {"schema_version": SCHEMA_VERSION, "cases_sha256": _sha256(self.cases_file), **result}
        write_json(self.result_file, content)

    def read_result(self) -> dict[str, Any]:
        """Read the summary.

        Raises:
            RunError: It is missing, not JSON, of a newer schema, or the case table changed since it was written.
        """
        try:
            result = json.loads(self.result_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.path}: no result.json; the run was interrupted. Start it again to finish it.") from None
        except (ValueError, RecursionError) as error:  # not JSON, or not even text
            raise RunError(f"{self.result_file}: not JSON ({error}). Delete it and start the run again.") from None
        if not isinstance(result, dict):
            raise RunError(f"{self.result_file}: not a result. Delete it and start the run again.")
        _check_schema(self.result_file, result.get("schema_version"))
        if result.get("cases_sha256") != _sha256(self.cases_file):
            raise RunError(f"{self.cases_file}: changed since result.json was written. Delete both and test the run again.")
        return result

    def append_history(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write one epoch's row and drop rows of this and later epochs, which an interrupted run may have left."""
        rows = [row for row in self.read_history() if row["epoch"] < epoch] + [{"epoch": epoch, **values}]
        names = list(dict.fromkeys(name for row in rows for name in row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, ["schema_version", *names], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            shown = {name: f"{value:.8g}" for name, value in row.items()}
            writer.writerow({"schema_version": SCHEMA_VERSION, **shown})
        write_atomically(self.history_file, stream.getvalue())

    def read_history(self) -> list[dict[str, float]]:
        """Read the epochs' rows; an absent file has none.

        Raises:
            RunError: The file is damaged or of a newer schema.
        """
        if not self.history_file.is_file():
            return []
        try:
            with self.history_file.open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
            for row in rows:
                _check_schema(self.history_file, row.pop("schema_version", None))
            history = [{name: float(value) for name, value in row.items() if value} for row in rows]
        except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
            raise RunError(f"{self.history_file}: not a history ({error}). Delete it, or start the run again.") from None
        if any("epoch" not in row for row in history):
            raise RunError(f"{self.history_file}: a row names no epoch. Delete it, or start the run again.")
        return history


def summarize(
    rows: Sequence[CaseRow], pooled: Mapping[tuple[str, str, str], Mapping[str, float]] | None = None
) -> list[dict[str, Any]]:
    """Average the case rows into cells of one setting, data set, target and protocol.

    Args:
        rows: The case table.
        pooled: Measures that are no means over cases, by setting, data set and target; see `CaseTable`.

    Returns:
        One mapping per cell: ``setting, dataset, target, protocol, modality, domain, cases``, ``empty`` (how many cases of
        each of `EMPTY_CASES`) and ``measures`` (mean over cases, then the pooled ones).
    """
    cells: dict[tuple[str, ...], list[CaseRow]] = {}
    for row in rows:
        cells.setdefault((row.setting, row.dataset, row.target, row.protocol), []).append(row)
    return [
        {
            "setting": setting,
            "dataset": dataset,
            "target": target,
            "protocol": protocol,
            "modality": group[0].modality,
            "domain": group[0].domain,
            "cases": len(group),
            "empty": {name: sum(row.empty_case == name for row in group) for name in EMPTY_CASES},
            "measures": {name: fmean(row.measures[name] for row in group) for name in group[0].measures}
            | dict((pooled or {}).get((setting, dataset, target), {})),
        }
        for (setting, dataset, target, protocol), group in sorted(cells.items())
    ]


def find_runs(root: Path, *, unreadable: Callable[[OSError], None] | None = None) -> list[RunFolder]:
    """Find the run folders in ``root``, at any depth, sorted by path; a run folder is one that holds a config.yaml.

    Args:
        root: Where to look; links are followed, and a folder is looked at once.
        unreadable: Told of each folder that cannot be read; these are passed over where not given.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort()
        if "config.yaml" in files:
            found.append(Path(folder))
    return [RunFolder(path) for path in sorted(found)]


def _check_schema(path: Path, version: object) -> None:
    """Refuse a file of another schema version."""
    if not re.fullmatch(r"\d+", str(version)):
        raise RunError(f"{path}: no schema version; not written by madgnet-bench, or damaged.")
    if int(str(version)) > SCHEMA_VERSION:
        raise RunError(f"{path}: schema {version} is newer than this version reads ({SCHEMA_VERSION}). Upgrade madgnet-bench.")


def _sha256(path: Path) -> str:
    """Hash a file; an absent one hashes to nothing."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
