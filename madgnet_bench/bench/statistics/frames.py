"""From case tables to the arrays that the tests take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from madgnet_bench.bench.statistics.scores import PairedScores
from madgnet_bench.errors import ConfigError, RunError, nearest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Selection", "paired_scores"]

Selection = str | Mapping[str, object]
"""A model: its label in the column ``network``, or the values of several columns."""

_CELL = ("setting", "dataset", "target")
_MODEL = ("network", "recipe", "training_sets")
_SHOWN = 3


def paired_scores(frame: pd.DataFrame, a: Selection, b: Selection, measure: str) -> PairedScores:
    """Take the scores of two models on one data set and target out of a frame of cases.

    Args:
        frame: What `madgnet_bench.bench.cases.read_frame` returns, narrowed down to one setting, data set and target.
        a: The first model.
        b: The second model.
        measure: A column of the frame.

    Raises:
        ConfigError: A column or model is unknown, or a name fits several models.
        RunError: The frame holds several cells, or a run lacks cases that another has, has some twice or in another group;
            the message names them.
    """
    if measure not in frame:
        raise ConfigError(f"no measure {measure!r} in the case tables; {nearest(measure, map(str, frame.columns))}")
    cells = frame[list(_CELL)].drop_duplicates()
    if len(cells) > 1:
        shown = "; ".join(" ".join(map(str, cell)) for cell in cells.head(_SHOWN).itertuples(index=False))
        raise RunError(f"{len(cells)} test sets in one frame ({shown}); narrow it down to one setting, data set and target.")
    first, second = _select(frame, a), _select(frame, b)
    common = set(first["run_id"]) & set(second["run_id"])
    if common:
        raise ConfigError(f"run {min(common)} belongs to both models; compare two different ones.")
    tables = [_pivot(table, measure) for table in (first, second)]
    cases = tables[0].index.union(tables[1].index)
    for table, selection in zip(tables, (a, b), strict=True):
        for run in table.columns:
            missing = cases.difference(table[run].dropna().index)
            if len(missing):
                raise RunError(
                    f"run {run} of {_name(selection)} has no {measure} for {len(missing)} of {len(cases)} cases, "
                    f"{_list(missing)}; test it again on the same cases, or leave these cases out of every run."
                )
    groups = frame[frame["run_id"].isin([*tables[0].columns, *tables[1].columns])].drop_duplicates(["case_id", "group_id"])
    twice = groups["case_id"][groups["case_id"].duplicated()]
    if len(twice):
        raise RunError(f"{len(twice)} cases are in several groups, {_list(twice)}; the runs used different manifests.")
    names = groups.set_index("case_id")["group_id"]
    a_scores, b_scores = (table.loc[cases].to_numpy().T for table in tables)
    return PairedScores(a_scores, b_scores, names.loc[cases].to_numpy(str))


def _select(frame: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The rows of one model."""
    wanted = {"network": selection} if isinstance(selection, str) else dict(selection)
    found = frame
    for column, value in wanted.items():
        if column not in frame:
            raise ConfigError(f"no column {column!r} in the case tables; {nearest(column, map(str, frame.columns))}")
        found = found[found[column] == value]
        if found.empty:
            known = [str(other) for other in frame[column].drop_duplicates()]
            raise ConfigError(f"no case of a model with {column} {value!r}; {nearest(str(value), known)}")
    models = found[[column for column in _MODEL if column in found]].drop_duplicates()
    if len(models) > 1:
        shown = "; ".join(", ".join(map(str, model)) for model in models.head(_SHOWN).itertuples(index=False))
        raise ConfigError(f"{_name(selection)} fits {len(models)} models ({shown}); say which by their columns too.")
    return found


def _pivot(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Cases by runs."""
    twice = table[table.duplicated(["run_id", "case_id"])]
    if len(twice):
        run = twice["run_id"].iloc[0]
        raise RunError(f"run {run} has {len(twice)} cases twice, {_list(twice['case_id'])}; test it again.")
    return table.pivot(index="case_id", columns="run_id", values=measure)


def _name(selection: Selection) -> str:
    return selection if isinstance(selection, str) else ", ".join(f"{key} {value}" for key, value in selection.items())


def _list(cases: pd.Index | pd.Series) -> str:
    names = ", ".join(map(str, cases[:_SHOWN]))
    return f"{names} and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else names
