"""Case tables of runs as one frame, checked row by row: what statistics, reports and comparisons work on."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from madgnet_bench.bench.store import Run
from madgnet_bench.errors import ConfigError, RunError, nearest
from madgnet_bench.protocol import MEASURES
from madgnet_bench.records import SCHEMA_VERSION, RunFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "GREATEST", "read_frame", "read_table"]

COLUMNS = (
    *("run_id", "network", "recipe", "seed", "training_sets"),
    *("setting", "dataset", "target", "case_id", "group_id", "modality", "domain", "empty_case"),
)
"""The columns of `read_frame` before the measures."""

GREATEST = {"fraction": 1.02, "distance": sys.float_info.max, "nats": sys.float_info.max}
"""Greatest value by unit: an E-measure is divided by the pixels less one, and so exceeds 1 by a hair."""

_IDENTITY = ("case_id", "group_id", "dataset", "modality", "domain", "setting", "target", "protocol", "empty_case")
_KEY = ["setting", "dataset", "target", "case_id", "protocol"]
_CELL = ["setting", "dataset", "target"]
_AGAIN = "Test the run again"


def read_frame(runs: Sequence[Run], *, protocol: str, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the case tables of runs into one frame: one row per run and case.

    Args:
        runs: At least one run.
        protocol: Text of the protocol whose rows are kept.
        measures: Names of the measures to read; those that all the tables hold where not given.

    Returns:
        `COLUMNS`, of which ``network`` is the label and ``training_sets`` are joined by ", ", then the measures as fractions,
        in the protocol's unit of distance, or in nats. Rows are in the order of the runs and of their tables.

    Raises:
        ConfigError: A measure is unknown.
        RunError: See `read_table`; or a run has no row of the protocol; or it lacks cases, or holds them in other groups,
            which another run has on the same manifest.
    """
    import pandas as pd  # half a second, which the leaderboard does without

    if not runs:
        raise RunError("no finished run to read cases from.")
    names = _common(runs) if measures is None else list(measures)
    frames = []
    for run in runs:
        table = read_table(run.folder, names)
        table = table[table["protocol"] == protocol].drop(columns="protocol")
        if table.empty:
            raise RunError(f"{run.folder.cases_file}: no case under protocol {protocol}. Name runs tested under it only.")
        constants: dict[str, Any] = {
            "run_id": run.run_id,
            "network": run.network,
            "recipe": run.recipe,
            "seed": run.seed,
            "training_sets": ", ".join(run.training_sets),
        }
        frames.append(table.assign(**constants)[[*COLUMNS, *names]])
    _check_same_cases(runs, frames)
    return pd.concat(frames, ignore_index=True)


def read_table(folder: RunFolder, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """Read one case table.

    Args:
        folder: The run folder.
        measures: Names of the measures to read; all where not given.

    Returns:
        The columns of `madgnet_bench.records.CaseRow`, its measures as columns.

    Raises:
        ConfigError: A measure is unknown.
        RunError: The file is missing, no UTF-8, truncated or of a newer schema; a column is unknown or stands twice; a
            measure was not taken; a case stands twice; a value is no number, infinite, or outside the measure's range, as
            percent in the place of fractions are. The message names file, line, problem and fix.
    """
    path = folder.cases_file
    header = _header(folder)
    held = header[1 + len(_IDENTITY) :]
    names = held if measures is None else list(measures)
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"unknown measure {name!r}; {nearest(name, MEASURES)}")
        if name not in held:
            raise RunError(f"{path}: no measure {name}; it has {', '.join(held)}. Choose one of these, or {_AGAIN.lower()}.")
    frame = _parse(folder, header, names)
    _check_rows(folder, frame, names)
    return frame[[*_IDENTITY, *names]]


def _common(runs: Sequence[Run]) -> list[str]:
    """The measures that every table holds, in the order of `MEASURES`."""
    headers = [set(_header(run.folder)) for run in runs]
    return [name for name in MEASURES if all(name in header for header in headers)]


def _header(folder: RunFolder) -> list[str]:
    """The names of the columns, checked."""
    path = folder.cases_file
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header = next(csv.reader(stream), [])
    except FileNotFoundError:
        raise RunError(f"{path}: no case table; the run was interrupted. Start it again to finish it.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path}: not a case table ({error}). {_AGAIN}.") from None
    expected = ["schema_version", *_IDENTITY]
    if header[: len(expected)] != expected:
        raise RunError(f"{path}, line 1: the columns must open with {', '.join(expected)}; not a case table. {_AGAIN}.")
    held = header[len(expected) :]
    unknown = [name for name in held if name not in MEASURES]
    if unknown:
        what = f"column {unknown[0]!r} is" if len(unknown) == 1 else f"{len(unknown)} columns, first {unknown[0]!r}, are"
        raise RunError(f"{path}, line 1: {what} no measure of this version. Remove, or upgrade madgnet-bench.")
    if len(set(held)) < len(held) or not held:
        what = "a measure stands twice" if held else "no measure"
        raise RunError(f"{path}, line 1: {what}; damaged. {_AGAIN}.")
    return header


def _parse(folder: RunFolder, header: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Read the needed columns fast; where that fails, find the line at which it does."""
    import pandas as pd

    content = folder.cases_file.read_bytes()
    if not content.endswith(b"\n") or b'"' in content or content.count(b",") != content.count(b"\n") * (len(header) - 1):
        _check_lines(folder, header)  # pandas passes over fields too many in columns that are not read
    read = list(dict.fromkeys(["schema_version", *_IDENTITY, *names, header[-1]]))  # a short row lacks the last one
    types = {name: "float64" if name in MEASURES else "str" for name in read}
    try:
        frame = pd.read_csv(io.BytesIO(content), usecols=read, dtype=types, na_filter=False, skip_blank_lines=False)
    except (ValueError, OverflowError) as error:  # of which the errors of pandas and of UTF-8 are
        _check_lines(folder, header)
        raise RunError(f"{folder.cases_file}: not a case table ({error}). {_AGAIN}.") from None
    if frame.empty:
        raise RunError(f"{folder.cases_file}: no case. {_AGAIN}.")
    return frame


def _check_lines(folder: RunFolder, header: Sequence[str]) -> None:
    """Refuse the first line that is damaged, and say which it is."""
    path = folder.cases_file
    first = 1 + len(_IDENTITY)
    line = 1
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            next(reader)
            for row in reader:
                line = reader.line_num
                if len(row) != len(header):
                    what = "truncated or damaged row" if len(row) < len(header) else "more fields than columns"
                    raise RunError(f"{path}, line {line}: {what} ({len(row)} of {len(header)} fields). {_AGAIN}.")
                for name, text in zip(header[first:], row[first:], strict=True):
                    _check_number(f"{path}, line {line}, case {row[1]}", name, text)
    except (UnicodeDecodeError, csv.Error) as problem:
        raise RunError(f"{path}, after line {line}: not a case table ({problem}). {_AGAIN}.") from None
    with path.open("rb") as stream:
        stream.seek(-1, 2)
        if stream.read(1) != b"\n":
            raise RunError(f"{path}, line {line}: the last row is cut off. {_AGAIN}.")


def _check_number(where: str, name: str, text: str) -> None:
    """Refuse what is no number, or none of the measure's."""
    try:
        value = float(text)
    except ValueError:
        raise RunError(f"{where}: {name} is {text!r}, not a number. {_AGAIN}.") from None
    if not 0 <= value <= GREATEST[MEASURES[name].unit]:
        raise RunError(f"{where}: {name} is {value:g}, not {_range(name, value)} {_AGAIN}.")


def _check_rows(folder: RunFolder, frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse rows of another schema, values out of range and cases that stand twice."""
    path = folder.cases_file
    for version in frame["schema_version"].unique():
        if not str(version).isdigit() or int(version) > SCHEMA_VERSION:
            line = 2 + int(np.argmax(frame["schema_version"] == version))
            fix = f"this version reads up to {SCHEMA_VERSION}. Upgrade madgnet-bench, or {_AGAIN.lower()}"
            raise RunError(f"{path}, line {line}: schema version {version!r}; {fix}.")
    for name in names:
        values = frame[name].to_numpy()
        with np.errstate(invalid="ignore"):
            wrong = ~((values >= 0) & (values <= GREATEST[MEASURES[name].unit]))
        if wrong.any():
            row = int(np.argmax(wrong))
            _check_number(f"{path}, line {row + 2}, case {frame['case_id'].iloc[row]}", name, str(values[row]))
    twice = frame.duplicated(_KEY).to_numpy()
    if twice.any():
        row = int(np.argmax(twice))
        case = " ".join(str(frame[name].iloc[row]) for name in _KEY)
        raise RunError(f"{path}, line {row + 2}: case {case} stands twice ({int(twice.sum())} rows in all). {_AGAIN}.")


def _range(name: str, value: float) -> str:
    """What a value should have been."""
    if MEASURES[name].unit != "fraction":
        return "a finite number of at least 0."
    return "a fraction in [0, 1]" + ("; percent are not read." if 1 < value <= 100 else ".")


def _check_same_cases(runs: Sequence[Run], frames: Sequence[pd.DataFrame]) -> None:
    """Refuse runs that lack cases which another run has on the same manifest."""
    fullest: dict[tuple[object, ...], tuple[Run, dict[str, str]]] = {}
    tables = []
    for run, frame in zip(runs, frames, strict=True):
        for cell, group in frame.groupby(_CELL, sort=False):
            key = (run.manifests.get(str(cell[1])), *cell)
            cases = dict(zip(group["case_id"], group["group_id"], strict=True))
            tables.append((run, key, cases))
            if key not in fullest or len(cases) > len(fullest[key][1]):
                fullest[key] = (run, cases)
    for run, key, cases in tables:
        other, expected = fullest[key]
        if cases == expected:
            continue
        where = f"{run.folder.cases_file}: {' '.join(map(str, key[1:]))}"
        lacks = sorted(expected.keys() - cases.keys())
        if lacks:
            which = f"lacks {len(lacks)} of {len(expected)} cases, first {lacks[0]}, which {other} has"
            raise RunError(f"{where} {which}. {_AGAIN}, or leave one of the two out.")
        moved = sorted(case for case in expected if cases[case] != expected[case])
        what = f"case {moved[0]} is of group {cases[moved[0]]!r}, in {other} of group {expected[moved[0]]!r}"
        raise RunError(f"{where}: {what}. {_AGAIN}, or leave one of the two out.")
