"""Tables as tidy CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from madgnet_bench.bench.tables import Column, Row, Score, Table

__all__ = ["to_csv"]

_ROW = ("network", "version", "recipe", "parameters", "image_size", "epochs", "protocol", "checkpoint", "prompts")
_COLUMN = ("setting", "dataset", "target", "modality", "cases")
_COSTS = ("gmac", "milliseconds_per_image", "peak_memory_mb", "device_hours", "hardware")
_CSV_COLUMNS = (
    "training_sets protocol network version stale recipe parameters image_size epochs setting dataset target modality "
    "measure mean std seeds cases missing run_ids interval_low interval_high checkpoint prompts seen_in_pretraining "
    "gmac milliseconds_per_image peak_memory_mb device_hours hardware"
).split()


def to_csv(tables: Sequence[Table]) -> str:
    """Write one line per model, test set, target and measure.

    Fractions stay fractions. Means and deviations have ten significant digits, ends of intervals six, which is more than a
    bootstrap knows. An incomplete score is an empty field with its reason; what is unknown is empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for column, score in zip(table.columns, row.scores, strict=True):
                record = _record(table, row, column, score)
                writer.writerow([record[name] for name in _CSV_COLUMNS])
    return stream.getvalue()


def _record(table: Table, row: Row, column: Column, score: Score) -> dict[str, object]:
    """One line of the tidy table."""
    low, high = score.interval or (None, None)
    costs = {name: getattr(row.costs, name) for name in _COSTS}
    return {
        **{name: getattr(row, name) for name in _ROW},
        **{name: getattr(column, name) for name in _COLUMN},
        **{name: value if isinstance(value, str) else _digits(value) for name, value in costs.items()},
        "training_sets": ";".join(table.training_sets),
        "stale": _boolean(row.stale),
        "measure": table.measure.name,
        "mean": _digits(score.mean),
        "std": _digits(score.std),
        "interval_low": _digits(low, 6),
        "interval_high": _digits(high, 6),
        "seeds": " ".join(map(str, row.seeds)),
        "missing": score.missing,
        "run_ids": " ".join(row.run_ids),
        "seen_in_pretraining": _boolean(column.label in row.contaminated),
    }


def _digits(value: float | None, digits: int = 10) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _boolean(value: bool) -> str:
    return str(value).lower()
