"""Published scores beside ours: the difference where the two compare, the reasons where they do not.

Two scores compare where nothing that is known of them tells them apart: measure, evaluation, test cases, training sets and
cases, split, image size, epochs, network, pretraining. What a source does not state is named beside a comparison; a source
that does not state how many cases it tested is not compared, for its test set may be another one.

Two questions are answered apart. *Within the spread*: the difference is no greater than the standard deviation, over trainings,
of the difference of two single trainings, sqrt(ours^2 + theirs^2), both with n - 1; a source without a deviation counts as 0.
*Within the interval*: the published mean lies in our interval over cases. Neither is a test. Both scores are of the same cases,
so one within the interval may still differ for good; one outside it differs by more than other cases of the kind would explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from madgnet_bench.bench.published import PublishedScore
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Column, Row, Score, Table
from madgnet_bench.catalog.manifest import Manifest
from madgnet_bench.errors import DataErrors, RunError
from madgnet_bench.protocol import Protocol

__all__ = ["BesideTable", "Circumstances", "Comparison", "read_circumstances", "set_beside"]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WEIGHTS = ("pretrained", "encoder_checkpoint", "checkpoint")
_LIMITS = ("limit_train_batches", "limit_test_batches", "max_time", "max_steps", "overfit_batches", "fast_dev_run")
_UNLIMITED = ("None", "False", "0", "0.0", "-1", "1.0")  # as text, which tells one batch (1) from all of them (1.0)
_UNSTATED = {"epochs": "epochs", "image_size": "image size", "trainings": "number of trainings"}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the run folders of a row tell that its table does not.

    Attributes:
        pretrained: Whether the network started from weights of another training.
        train_cases: Number of training cases over all training sets; None where the run folders do not hold the manifests.
        splits: From each training set to its rule, ``official`` or ``clean``; empty where the runs do not record it.
        limits: Settings that cut training or testing short, as text.
        deviations: Where the runs depart from their method, in words.
    """

    pretrained: bool
    train_cases: int | None
    splits: Mapping[str, str]
    limits: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published score, and ours of the same test set and target.

    Attributes:
        published: The published score.
        row: Our row; None where no run here is of that model.
        column: Our column.
        score: Our score; None where there is no row.
        difference: Ours minus theirs, in the unit of the measure; None where they do not compare.
        within_spread: Whether it lies within the spread over trainings; None where they do not compare or we have one seed.
        within_interval: Whether the published mean lies in our interval over cases; None where they do not compare or there is
            no interval.
        reasons: Why they do not compare; empty where they do.
        remarks: What a reader of a comparison must know; empty where they do not compare.
    """

    published: PublishedScore
    row: Row | None
    column: Column
    score: Score | None
    difference: float | None = None
    within_spread: bool | None = None
    within_interval: bool | None = None
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BesideTable:
    """One of our tables with what is published of its columns.

    Attributes:
        table: Our table.
        comparisons: Where a run here is of the published model: in the order of our rows, then of our columns.
        published_only: Where none is: in the order of our columns, and only of sources that trained on the table's sets.
        unpublished: Labels of our rows for which nothing is published.
    """

    table: Table
    comparisons: tuple[Comparison, ...]
    published_only: tuple[Comparison, ...]
    unpublished: tuple[str, ...]


def set_beside(table: Table, published: Sequence[PublishedScore], circumstances: Mapping[str, Circumstances]) -> BesideTable:
    """Set what is published beside one of our tables.

    Args:
        table: Our table.
        published: All published scores.
        circumstances: What `read_circumstances` found, by the first run id of each row.
    """
    here = [(column, score) for column in table.columns for score in published if _same_test(score, column, table)]
    comparisons: list[Comparison] = []
    unpublished: list[str] = []
    met: set[tuple[str, str]] = set()
    for row in table.rows:
        models = _models(row, [score for _, score in here])
        met |= models
        scores = dict(zip(table.columns, row.scores, strict=True))
        found = [(column, theirs) for column, theirs in here if (theirs.source, theirs.model.model) in models]
        facts = circumstances[row.run_ids[0]]
        comparisons += [_compare(table, row, column, scores[column], theirs, facts) for column, theirs in found]
        unpublished += [] if found else [row.label]
    only = [
        Comparison(published=theirs, row=None, column=column, score=None, reasons=("no run here is of this model",))
        for column, theirs in here
        if (theirs.source, theirs.model.model) not in met and _same_sets(theirs, table)
    ]
    return BesideTable(table=table, comparisons=tuple(comparisons), published_only=tuple(only), unpublished=tuple(unpublished))


def read_circumstances(runs: Sequence[Run]) -> Circumstances:
    """Read what the run folders of one row tell beside their results: configuration, manifests, splits.

    Args:
        runs: The runs of the row, which differ in nothing but the seed.

    Raises:
        RunError: A manifest in a run folder is damaged, or not the one that the run was made with.
    """
    run = runs[0]
    config = yaml.load(run.folder.config_file.read_text(encoding="utf-8"), Loader=_LOADER)  # a safe loader, see above
    trainer = config.get("trainer") or {}
    limits = {name: trainer.get(name) for name in _LIMITS if str(trainer.get(name)) not in _UNLIMITED}
    splits = run.folder.read_result().get("splits") or {}
    return Circumstances(
        pretrained=bool(run.pretraining) or _starts_from_weights(config),
        train_cases=_count_training_cases(run),
        splits={name: splits[name] for name in run.training_sets if name in splits},
        limits=tuple(f"trainer.{name}={value}" for name, value in limits.items()),
        deviations=tuple(dict.fromkeys(text for run in runs for text in run.deviations)),
    )


def _starts_from_weights(config: Mapping[str, Any]) -> bool:
    """Whether the configuration of the network names weights of another training."""
    node: Any = config
    for key in ("model", "init_args", "network", "init_args"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping) and any(node.get(name) for name in _WEIGHTS)


def _count_training_cases(run: Run) -> int | None:
    """Training cases over all training sets, or None where a manifest is not kept."""
    total = 0
    for name in run.training_sets:
        path = run.folder.path / "manifests" / f"{name.replace('/', '_')}.csv"
        if not path.is_file():
            return None
        try:
            manifest = Manifest.from_csv(path, name)
        except DataErrors as error:
            raise RunError(f"{run}: {error}") from None
        if manifest.sha256 != run.manifests.get(name):
            raise RunError(f"{path}: not the manifest that the run was made with. Restore it, or run again.")
        total += len(manifest.rows("train"))
    return total


def _same_test(theirs: PublishedScore, column: Column, table: Table) -> bool:
    """Whether a published score is of a column's test set, or of the set of which that is a domain."""
    names = (column.dataset, column.dataset.partition("/")[0])
    return (theirs.our_measure, theirs.our_target) == (table.measure.name, column.target) and theirs.our_dataset in names


def _same_sets(theirs: PublishedScore, table: Table) -> bool:
    """Whether the training sets are the same, or domains of the same."""
    return {name.partition("/")[0] for name in theirs.our_training_sets} == {
        name.partition("/")[0] for name in table.training_sets
    }


def _models(row: Row, scores: Sequence[PublishedScore]) -> set[tuple[str, str]]:
    """The published models that a row is: by its label, else by the label's first word."""
    found: set[tuple[str, str]] = set()
    for source in {score.source for score in scores}:
        models = {score.model for score in scores if score.source == source}
        exact = {model for model in models if model.network == row.network}
        alike = {model for model in models if model.family and model.family == row.network.partition(" ")[0]}
        found |= {(source, model.model) for model in exact or alike}
    return found


def _compare(table: Table, row: Row, column: Column, score: Score, theirs: PublishedScore, facts: Circumstances) -> Comparison:
    """Compare two scores, or say why not."""
    ours = _Ours(table=table, row=row, column=column, score=score, facts=facts)
    reasons = tuple(reason for rule in _RULES for reason in rule(ours, theirs))
    common: dict[str, Any] = {"published": theirs, "row": row, "column": column, "score": score}
    if reasons or score.mean is None:
        return Comparison(**common, reasons=reasons)
    difference = score.mean - theirs.mean
    spread = None if score.std is None else math.hypot(score.std, theirs.sample_std or 0.0)
    interval = score.interval
    return Comparison(
        **common,
        difference=difference,
        within_spread=None if spread is None else abs(difference) <= spread,
        within_interval=None if interval is None else interval[0] <= theirs.mean <= interval[1],
        remarks=tuple(_remarks(ours, theirs)),
    )


@dataclass(frozen=True, kw_only=True)
class _Ours:
    """Our score with everything that a rule may ask for."""

    table: Table
    row: Row
    column: Column
    score: Score
    facts: Circumstances


def _other_measure(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """A measure or unit that the source does not state."""
    if theirs.metric.startswith("unstated"):
        yield "the source does not state its measure"
    if theirs.unit == "unstated":
        yield "the source does not state its unit"


def _other_protocol(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """An evaluation that differs in what is known of the published one."""
    protocol = Protocol.parse(ours.row.protocol)
    for name, value in theirs.protocol.items():
        if getattr(protocol, name) != value:
            yield f"other protocol: {name.replace('_', ' ')} {_plain(getattr(protocol, name))}, published {_plain(value)}"


def _other_test(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """A part of the test set, more than it, or another one."""
    column = ours.column
    here = f"{column.cases} test cases of {column.dataset}"
    if theirs.our_dataset != column.dataset:
        yield f"a part of the data: {here}, published {theirs.test_cases or 'all'} of {theirs.our_dataset}"
    elif theirs.test_cases is None:
        yield "the source does not state how many cases it tested"
    elif column.cases != theirs.test_cases:
        part = "a part of the data" if column.cases < theirs.test_cases else "other data"
        yield f"{part}: {here}, published {theirs.test_cases}"


def _other_training_set(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """Other training sets, or others of their cases."""
    sets = ours.table.training_sets
    if sets != theirs.our_training_sets:
        published = ", ".join(theirs.our_training_sets) or theirs.training_set
        yield f"other training set: {', '.join(sets)}, published {published}"
        return
    count = ours.facts.train_cases
    if theirs.train_cases is not None and count != theirs.train_cases:
        known = "not known" if count is None else str(count)
        yield f"other training cases: {known}, published {theirs.train_cases}"
    if theirs.split:
        rules = {ours.facts.splits.get(name, "not recorded") for name in sets} - {theirs.split}
        if rules:
            yield f"other split: {', '.join(sorted(rules))}, published {theirs.split}"


def _other_network(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """Another configuration of the network, or another start."""
    if ours.row.network != theirs.model.network:
        yield f"other configuration: {ours.row.network}, nearest to the published is {theirs.model.network}"
    if theirs.model.pretrained is not None and ours.facts.pretrained != theirs.model.pretrained:
        yield "not pretrained, published pretrained" if theirs.model.pretrained else "pretrained, published not"


def _contaminated(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """A test set of which the network has seen images in pretraining."""
    if ours.column.label in ours.row.contaminated:
        yield f"pretrained on images of {ours.column.label}"


def _other_training(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """Other image size or epochs, a training cut short, deviations, another version of the package."""
    row = ours.row
    if theirs.image_size is not None and row.image_size != theirs.image_size:
        yield f"other image size: {row.image_size}, published {theirs.image_size}"
    if theirs.epochs is not None and row.epochs != theirs.epochs:
        yield f"other epochs: {row.epochs}, published {theirs.epochs}"
    for limit in ours.facts.limits:
        yield f"cut short: {limit}"
    for deviation in ours.facts.deviations:
        yield f"deviation: {deviation.rstrip('.')}"
    if row.stale:
        yield f"stale: made by version {row.version}"


def _incomplete(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """A cell without a mean."""
    if ours.score.mean is None:
        yield f"incomplete: {ours.score.missing}"


_RULES: tuple[Callable[[_Ours, PublishedScore], Iterator[str]], ...] = (
    _other_measure,
    _other_protocol,
    _other_test,
    _other_training_set,
    _other_network,
    _contaminated,
    _other_training,
    _incomplete,
)


def _remarks(ours: _Ours, theirs: PublishedScore) -> Iterator[str]:
    """What is not known of a published score that is compared, and what its files remark."""
    unknown = [text for name, text in _UNSTATED.items() if getattr(theirs, name) is None]
    unknown += ["choice of the checkpoint"] if "checkpoint" not in theirs.protocol else []
    unknown += ["pretraining"] if theirs.model.pretrained is None else []
    if unknown:
        yield f"Not stated for {theirs.model.model} on {theirs.dataset}: {', '.join(unknown)}."
    if len(ours.row.seeds) == 1:
        yield f"{ours.row.label} has one seed, so there is no spread."
    yield from filter(None, (theirs.note and f"{theirs.dataset}: {theirs.note}", theirs.model.note))


def _plain(value: object) -> str:
    """A protocol's value as text: 1 rather than 1.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
