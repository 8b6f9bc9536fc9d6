"""Numbers and sentences of the report."""

from __future__ import annotations

from collections.abc import Sequence

from madgnet_bench.bench.figures import scale
from madgnet_bench.bench.tables import Table
from madgnet_bench.protocol import Measure, Protocol

__all__ = ["MISSING", "amount", "count", "direction", "hours", "number", "pvalue", "span", "summary", "unit"]

MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def number(value: float | None, measure: Measure, *, sign: bool = False) -> str:
    """A value in the unit in which it is shown, with two digits.

    >>> from madgnet_bench.protocol import MEASURES
    >>> number(0.93756, MEASURES["dsc"]), number(0.021, MEASURES["dsc"], sign=True), number(3.5, MEASURES["hd95"])
    ('93.76', '+2.10', '3.50')
    """
    if value is None:
        return MISSING
    text = f"{scale(measure) * value:{'+' if sign else ''}.2f}"
    return text.replace("-", _MINUS)


def span(low: float | None, high: float | None, measure: Measure) -> str:
    """An interval, such as ``91.20 to 94.05``; empty where it is not known."""
    return "" if low is None or high is None else f"{number(low, measure)} to {number(high, measure)}"


def pvalue(value: float | None) -> str:
    """A p-value with two significant digits.

    >>> [pvalue(p) for p in (0.00004, 0.0123, 0.5, 1.0)]
    ['<0.001', '0.012', '0.50', '1.00']
    """
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def amount(value: float) -> str:
    """A large number, such as ``5.43 M``."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f} {letter}"
    return f"{value:g}"


def hours(seconds: float) -> str:
    """A duration, such as ``3 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def count(value: int, noun: str) -> str:
    """A number of things, such as ``1 run``, ``1,200 cases``."""
    return f"{value:,} {noun if value == 1 else noun + 's'}"


def unit(measure: Measure, protocol: str) -> str:
    """What numbers of a measure are in."""
    distance = "mm" if Protocol.parse(protocol).unit == "mm" else "pixels"
    return {"fraction": "percent", "nats": "nats", "distance": distance}[measure.unit]


def direction(measure: Measure) -> str:
    """Which values are better."""
    return "higher is better" if measure.higher_is_better else "lower is better"


def summary(table: Table) -> list[str]:
    """What a table says, in sentences."""
    measure = table.measure
    sets = len({(column.setting, column.dataset) for column in table.columns})
    cases = sum({(column.setting, column.dataset): column.cases for column in table.columns}.values())
    runs = sum(len(row.run_ids) for row in table.rows)
    sentences = [
        f"{count(len(table.rows), 'model')} ({count(runs, 'run')}) trained on {', '.join(table.training_sets)} and tested on "
        f"{count(sets, 'set')} with {count(cases, 'case')}. "
        f"Shown is {measure.title} in {unit(measure, table.protocol)}; {direction(measure)}."
    ]
    percent, points = ("%", " points") if measure.unit == "fraction" else ("", "")
    sign = -1 if measure.higher_is_better else 1
    competing = [row for row in table.rows if not row.prompted] or table.rows
    apart = len(table.rows) - len(competing)
    known = sorted((row for row in competing if row.unseen_mean is not None), key=lambda row: sign * (row.unseen_mean or 0.0))
    if known:
        best = known[0]
        seen = " (seen in part in pretraining)" if best.contaminated else ""
        text = f"Best on unseen sets: {best.title}{seen}, {number(best.unseen_mean, measure)}{percent}"
        if len(known) > 1:
            away = number(abs((best.unseen_mean or 0.0) - (known[1].unseen_mean or 0.0)), measure)
            ahead = f"{away}{points} ahead of" if away != number(0.0, measure) else "level with"
            text += f", {ahead} {known[1].title}"
        sentences.append(f"{text}.")
    gaps = [sign * -row.gap for row in competing if row.gap is not None]
    if gaps:
        low, high = min(gaps), max(gaps)
        between = number(low, measure) if low == high else f"{number(low, measure)} to {number(high, measure)}"
        who = "the model loses" if len(gaps) == 1 else "the models lose"
        sentences.append(f"From seen to unseen sets {who} {between}{points}.")
    if apart:
        sentences.append(
            f"{count(apart, 'model')} told where to look by the reference {'stands' if apart == 1 else 'stand'} apart."
        )
    incomplete = [row.title for row in table.rows if any(score.missing for score in row.scores)]
    if incomplete:
        sentences.append(f"Incomplete, and so not ranked: {_few(incomplete)}.")
    return sentences


def _few(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
