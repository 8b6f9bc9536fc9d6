"""Tables as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from madgnet_bench.bench.tables import Row, Score, Table

__all__ = ["JSON_SCHEMA_VERSION", "to_json"]

JSON_SCHEMA_VERSION = 1
"""Grows when a key changes its meaning or goes; new keys may come without."""


def to_json(tables: Sequence[Table]) -> str:
    """Write the tables as one object.

    Keys: ``schema_version``, and ``tables``, a list of objects with

    - ``measure``: name, title, unit (fraction, distance or nats), higher_is_better, pooled;
    - ``protocol``, ``training_sets``; ``modality`` of the test sets, empty where the table holds all;
    - ``columns``: setting, dataset, target, label, modality, cases, both_empty (least and greatest number over the runs);
    - ``modalities``: setting and modality of each of a row's ``modality_means``;
    - ``rows``: the attributes of `madgnet_bench.bench.tables.Row`: label, network, ..., ``scores`` (one per column),
      ``seen``, ``unseen``, ``difference``, ``modality_means``, ``worst`` (column and score, or null), ``mean_rank``,
      ``costs``, ``contaminated``. A score is an object of mean, std, missing and interval (two ends, or null); fractions stay
      fractions, to ten significant digits, ends of intervals to six;
    - ``intervals``: whether intervals were computed; ``notes``: sentences.

    What is unknown or incomplete is null; there is no NaN.
    """
    content = {"schema_version": JSON_SCHEMA_VERSION, "tables": [_table(table) for table in tables]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "measure": asdict(table.measure),
        "protocol": table.protocol,
        "training_sets": list(table.training_sets),
        "modality": table.modality,
        "columns": [asdict(column) for column in table.columns],
        "modalities": [{"setting": setting, "modality": modality} for setting, modality in table.modalities],
        "rows": [_row(row) for row in table.rows],
        "intervals": table.intervals,
        "notes": list(table.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    content = {name: value for name, value in row.__dict__.items() if not isinstance(value, Score)}
    content["scores"] = [_score(score) for score in row.scores]
    content["modality_means"] = [_score(score) for score in row.modality_means]
    for name in ("seen", "unseen", "difference"):
        content[name] = _score(getattr(row, name))
    content["worst"] = row.worst and {"column": row.worst[0], "score": _score(row.worst[1])}
    content["mean_rank"] = _digits(row.mean_rank)
    content["costs"] = asdict(row.costs)
    return content


def _score(score: Score) -> dict[str, Any]:
    ends = score.interval and [_digits(end, 6) for end in score.interval]
    return {"mean": _digits(score.mean), "std": _digits(score.std), "missing": score.missing, "interval": ends}


def _digits(value: float | None, digits: int = 10) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")
