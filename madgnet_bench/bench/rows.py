"""Rows of the leaderboard: what the runs of one model, which differ in nothing but the seed, come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.bench.resampling import Replicates, interval
from madgnet_bench.bench.store import Run
from madgnet_bench.protocol import Measure, Protocol

__all__ = [
    "Column",
    "Costs",
    "Row",
    "Score",
    "build_row",
    "contaminated_columns",
    "order",
    "rank_rows",
    "tell_apart",
]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One test set and target.

    Attributes:
        setting: ``"seen"`` or ``"unseen"``.
        dataset: Name of the test set.
        target: Name of the target.
        label: What the header shows: the data set, with the target where the table has several of it.
        modality: Imaging modality.
        cases: Number of cases of a complete cell.
        both_empty: Least and greatest number, over the runs, of cases where reference and prediction are both empty.
    """

    setting: str
    dataset: str
    target: str
    label: str
    modality: str
    cases: int
    both_empty: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One cell of the table, or a mean over some of its cells, in the unit of the measure.

    Attributes:
        mean: Mean over seeds of the mean over cases; None where the cell is incomplete.
        std: Sample standard deviation over seeds; None where it is incomplete or has one seed.
        missing: What an incomplete cell lacks; empty otherwise.
        interval: 95% interval over cases, resampled by group, with the trained networks as they are; None where it was not
            asked for, the cell is incomplete, or a data set has one group.
    """

    mean: float | None
    std: float | None
    missing: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model costs; None where unknown, or where the seeds of a row ran on different hardware.

    Attributes:
        gmac: 1e9 multiply-accumulates of one image.
        milliseconds_per_image: Time of one image, mean over seeds.
        peak_memory_mb: Greatest memory over the seeds, in 1e6 bytes as the run recorded it.
        device_hours: Hours times devices of one training and test, mean over seeds.
        hardware: What time, memory and hours were measured on; of several, all.
    """

    gmac: float | None = None
    milliseconds_per_image: float | None = None
    peak_memory_mb: float | None = None
    device_hours: float | None = None
    hardware: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model: runs that differ in nothing but the seed.

    Attributes:
        label: What the table shows: the network, marked where it is stale or where two rows would read alike.
        network: Label of the network.
        parameters: Its number of parameters.
        image_size: Side in pixels of the training images.
        epochs: Number of epochs.
        version: Version of the package that made the runs.
        stale: True where that is not the present one.
        recipe: Hash of the configuration without the seed.
        seeds: The seeds, sorted.
        run_ids: The runs, in the order of the seeds.
        protocol: Text of the protocol.
        checkpoint: Rules by which the tested checkpoints were chosen, sorted and joined by ", ".
        prompts: Source of the prompts.
        prompted: True where that source reads the reference: such a row stands apart, without rank.
        scores: One per column of the table.
        seen: Mean over the seen columns; without mean where one is missing or there are none.
        unseen: Likewise over the unseen columns.
        difference: ``seen`` minus ``unseen``.
        modality_means: One per `madgnet_bench.bench.tables.Table.modalities`.
        worst: Label of the column with the worst score, and that score; None where the row is incomplete.
        mean_rank: Mean over all columns of the rank among the complete automatic rows; None where the row is not of these.
        costs: What the model costs.
        contaminated: Labels of the columns of which the network has seen images in pretraining.
    """

    label: str
    network: str
    parameters: int
    image_size: int
    epochs: int
    version: str
    stale: bool
    recipe: str
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    protocol: str
    checkpoint: str
    prompts: str
    prompted: bool
    scores: tuple[Score, ...]
    seen: Score
    unseen: Score
    difference: Score
    modality_means: tuple[Score, ...]
    worst: tuple[str, Score] | None
    mean_rank: float | None
    costs: Costs
    contaminated: tuple[str, ...]

    @property
    def title(self) -> str:
        """The label, with prompts that come from the reference: for where no column tells them."""
        return f"{self.label} (told {self.prompts})" if self.prompted else self.label

    @property
    def seen_mean(self) -> float | None:
        """Mean over the seen columns; None where one is missing or there are none."""
        return self.seen.mean

    @property
    def unseen_mean(self) -> float | None:
        """Mean over the unseen columns; None where one is missing or there are none."""
        return self.unseen.mean

    @property
    def gap(self) -> float | None:
        """Seen mean minus unseen mean."""
        return self.difference.mean


_Draws = tuple[NDArray[np.float64], int]
"""Replicates of a score and the least number of groups behind them."""


def build_row(
    runs: Sequence[Run],
    protocol: str,
    values: Sequence[Sequence[float]],
    *,
    lacks: Sequence[str],
    draws: Sequence[Sequence[Replicates]],
    columns: Sequence[Column],
    modalities: Sequence[tuple[str, str]],
    measure: Measure,
    prompted: bool,
    contaminated: tuple[str, ...],
) -> Row:
    """Average the runs of one model over seeds.

    Args:
        runs: One per seed, sorted.
        protocol: Text of the protocol.
        values: By column, one per run; fewer where the cell is incomplete.
        lacks: By column, what an incomplete cell lacks.
        draws: By column, the replicates of each run; empty without intervals.
        columns: The columns of the table.
        modalities: Setting and modality of the means over a modality.
        measure: What is shown.
        prompted: Whether the prompts come from the reference.
        contaminated: Labels of the columns that were seen in pretraining.
    """
    run = runs[0]
    resampled = [_over_seeds(drawn, len(runs)) for drawn in draws]
    scores = [
        Score(mean=None, std=None, missing=lack)
        if lack
        else Score(mean=_mean(column), std=_std(column), interval=_interval(drawn))
        for column, lack, drawn in zip(values, lacks, resampled, strict=True)
    ]

    def mean_over(takes: Callable[[Column], bool]) -> tuple[Score, list[float], _Draws | None]:
        places = [place for place, column in enumerate(columns) if takes(column)]
        if not places or any(lacks[place] for place in places):
            return Score(mean=None, std=None), [], None
        by_seed = [_mean([values[place][seed] for place in places]) for seed in range(len(runs))]
        drawn = _over_columns([resampled[place] for place in places])
        mean = _mean([_mean(values[place]) for place in places])
        return Score(mean=mean, std=_std(by_seed), interval=_interval(drawn)), by_seed, drawn

    seen, unseen = (mean_over(lambda column, setting=setting: column.setting == setting) for setting in ("seen", "unseen"))  # type: ignore[misc]
    groups = [
        mean_over(lambda column, wanted=wanted: (column.setting, column.modality) == wanted)[0]  # type: ignore[misc]
        for wanted in modalities
    ]
    return Row(
        label=f"{run.network} (stale {run.version})" if run.stale else run.network,
        network=run.network,
        parameters=run.parameters,
        image_size=run.image_size,
        epochs=run.epochs,
        version=run.version,
        stale=run.stale,
        recipe=run.recipe,
        seeds=tuple(member.seed for member in runs),
        run_ids=tuple(member.run_id for member in runs),
        protocol=protocol,
        checkpoint=", ".join(sorted({str(member.checkpoint.get("rule", "unknown")) for member in runs})),
        prompts=Protocol.parse(protocol).prompts,
        prompted=prompted,
        scores=tuple(scores),
        seen=seen[0],
        unseen=unseen[0],
        difference=_difference(seen, unseen),
        modality_means=tuple(groups),
        worst=_worst(scores, columns, measure),
        mean_rank=None,
        costs=_costs(runs),
        contaminated=contaminated,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of one value."""
    if len(values) < 2:
        return None
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _over_seeds(draws: Sequence[Replicates], seeds: int) -> _Draws | None:
    """Replicates of the mean over seeds; None unless every seed has those of the same draws."""
    if len(draws) < seeds or len({drawn.key for drawn in draws}) != 1:
        return None
    return sum(drawn.values for drawn in draws) / np.float64(seeds), draws[0].groups  # type: ignore[return-value]


def _over_columns(draws: Sequence[_Draws | None]) -> _Draws | None:
    """Replicates of the mean over columns; None where one has none, or one group only."""
    known = [drawn for drawn in draws if drawn is not None]
    if len(known) < len(draws):
        return None
    return sum(values for values, _ in known) / np.float64(len(known)), min(groups for _, groups in known)  # type: ignore[return-value]


def _interval(drawn: _Draws | None) -> tuple[float, float] | None:
    return None if drawn is None else interval(*drawn)


def _difference(seen: tuple[Score, list[float], _Draws | None], unseen: tuple[Score, list[float], _Draws | None]) -> Score:
    """The gap, seed by seed and replicate by replicate."""
    if seen[0].mean is None or unseen[0].mean is None:
        return Score(mean=None, std=None)
    by_seed = [a - b for a, b in zip(seen[1], unseen[1], strict=True)]
    drawn = None
    if seen[2] is not None and unseen[2] is not None:
        drawn = (seen[2][0] - unseen[2][0], min(seen[2][1], unseen[2][1]))
    return Score(mean=seen[0].mean - unseen[0].mean, std=_std(by_seed), interval=_interval(drawn))


def _worst(scores: Sequence[Score], columns: Sequence[Column], measure: Measure) -> tuple[str, Score] | None:
    """The column with the worst score, the first of several; None where a cell is missing."""
    means = [score.mean for score in scores if score.mean is not None]
    if not means or len(means) < len(scores):
        return None
    place = means.index(min(means) if measure.higher_is_better else max(means))
    return columns[place].label, scores[place]


def _costs(runs: Sequence[Run]) -> Costs:
    """What the runs cost; figures of other hardware are not averaged."""
    if not any(run.costs for run in runs):
        return Costs()
    hardware = list(dict.fromkeys(_hardware(run) for run in runs if run.costs))

    def known(name: str) -> list[float]:
        found = [run.costs.get(name) for run in runs]
        return [float(value) for value in found if isinstance(value, int | float) and math.isfinite(value)]

    def on_one(name: str, combine: Callable[[list[float]], float]) -> float | None:
        return combine(known(name)) if known(name) and len(hardware) == 1 else None

    return Costs(
        gmac=next(iter(known("gmac")), None),
        milliseconds_per_image=on_one("milliseconds_per_image", _mean),
        peak_memory_mb=on_one("peak_memory_mb", max),
        device_hours=on_one("device_hours", _mean),
        hardware="; ".join(hardware),
    )


def _hardware(run: Run) -> str:
    """The device and, where it is a processor, its threads."""
    device = str(run.hardware.get("accelerator", "unknown"))
    threads = run.hardware.get("threads")
    if device.lower() != "cpu" or not threads:
        return device
    return f"{device} ({run.hardware.get('machine')}, {threads} thread{'s' * (threads != 1)})"


def contaminated_columns(runs: Sequence[Run], columns: Sequence[Column]) -> tuple[str, ...]:
    """Labels of the columns of which the network has seen images in pretraining, by `Run.pretraining`."""
    names = list(dict.fromkeys(name for run in runs for name in run.pretraining))
    if not names:
        return ()
    from madgnet_bench.catalog.audit.pretraining import pretraining_contamination  # only where a card names sets

    found = {finding.where for finding in pretraining_contamination(names, [column.dataset for column in columns])}
    return tuple(column.label for column in columns if column.dataset in found)


def rank_rows(rows: Sequence[Row], measure: Measure) -> list[Row]:
    """Add the mean rank of every complete automatic row, ties averaged; 1 is best.

    Values are rounded to twelve digits first, so that equal scores tie whatever the order of their sum.
    """
    ranked = [row for row in rows if not row.prompted and all(score.mean is not None for score in row.scores)]
    ranks: dict[int, list[float]] = {id(row): [] for row in ranked}
    for place in range(len(ranked[0].scores) if ranked else 0):
        sign = -1 if measure.higher_is_better else 1
        values = [sign * round(row.scores[place].mean or 0.0, 12) for row in ranked]
        for row, value in zip(ranked, values, strict=True):
            better = sum(other < value for other in values)
            ranks[id(row)].append(better + (values.count(value) + 1) / 2)
    return [replace(row, mean_rank=_mean(ranks[id(row)])) if id(row) in ranks else row for row in rows]


def tell_apart(rows: Sequence[Row]) -> list[Row]:
    """Mark rows that would read alike: one network, of several sizes or epochs, or else trained in two ways."""
    named = []
    for row in rows:
        alike = [other for other in rows if (other.label, other.prompts) == (row.label, row.prompts)]
        label = row.label
        if len({other.image_size for other in alike}) > 1:
            label += f" {row.image_size} px"
        if len({other.epochs for other in alike}) > 1:
            label += f" {row.epochs} epochs"
        named.append(replace(row, label=label))
    rows = named
    seen: dict[tuple[object, ...], int] = {}
    for row in rows:
        key = (row.label, row.prompts)
        seen[key] = seen.get(key, 0) + 1
    return [replace(row, label=f"{row.label} #{row.recipe[:4]}") if seen[row.label, row.prompts] > 1 else row for row in rows]


def order(row: Row, columns: Iterable[Column], measure: Measure, sort: str) -> tuple[object, ...]:
    """Sort key of a row: automatic before prompted, then what was asked for, then mean rank, unseen mean and name."""
    sign = -1 if measure.higher_is_better else 1
    scores = dict(zip((column.label for column in columns), row.scores, strict=True))

    def best(value: float | None) -> float:
        return math.inf if value is None else sign * value

    def least(value: float | None) -> float:
        return math.inf if value is None else value

    gap = None if row.gap is None else -sign * row.gap
    keys: dict[str, float | str] = {
        "rank": least(row.mean_rank),
        "seen": best(row.seen_mean),
        "unseen": best(row.unseen_mean),
        "gap": least(gap),
        "worst": best(row.worst[1].mean if row.worst else None),
        "name": row.label.lower(),
        "parameters": row.parameters,
        "gmac": least(row.costs.gmac),
        "time": least(row.costs.milliseconds_per_image),
        "memory": least(row.costs.peak_memory_mb),
        "hours": least(row.costs.device_hours),
    }
    first = best(scores[sort].mean) if sort in scores else keys.get(sort, 0.0)
    rest = (keys["rank"], keys["unseen"], row.label, row.image_size, row.epochs, row.recipe)
    return (row.prompted, first, *rest)
