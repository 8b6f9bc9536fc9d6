"""Published figures: read from ``results/published``, checked, and tied to our names of data sets, measures and networks.

Every file there but ``models.csv`` holds figures, one per line, with what is known of how they came about; an empty field is a
fact that the source does not state. ``models.csv`` says for every printed model which network of ours it is. How a figure is
set beside a score of ours stands in `madgnet_bench.bench.beside`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from madgnet_bench.catalog.official import READERS
from madgnet_bench.errors import ConfigError, DataErrors, Problem, nearest
from madgnet_bench.protocol import MEASURES, Protocol

__all__ = ["FIGURE_COLUMNS", "MODELS_FILE", "MODEL_COLUMNS", "PublishedModel", "PublishedScore", "read_published"]

MODELS_FILE = "models.csv"
"""The file that ties printed models to our networks."""

FIGURE_COLUMNS = (
    "source table setting modality dataset target model metric mean std unit std_ddof trainings training_set train_cases "
    "test_cases split image_size epochs size threshold averaging empty mask_resampling range prompts checkpoint our_dataset "
    "our_target our_measure our_training_sets note"
).split()
"""The columns of a file of figures, in order."""

MODEL_COLUMNS = "source model network family pretrained origin note".split()
"""The columns of `MODELS_FILE`, in order."""

_NEEDED = ("source", "table", "modality", "dataset", "target", "model", "metric", "mean", "training_set")
_KEY = ("source", "table", "setting", "dataset", "target", "model", "metric", "training_set")
_COUNTS = ("trainings", "train_cases", "test_cases", "image_size", "epochs")
_PROTOCOL_FIELDS = ("size", "threshold", "averaging", "empty", "mask_resampling", "range", "prompts", "checkpoint")
_CHOICES = {
    "setting": ("seen", "unseen"),
    "unit": ("percent", "fraction", "unstated"),
    "std_ddof": ("", "0", "1"),
    "split": ("", "official"),
}
_GREATEST = {"percent": 100.0, "fraction": 1.0}
_COPY = "copy the file again from the repository, or correct it"

Record = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model as a source prints it, and what it is here.

    Attributes:
        source: Where it is printed.
        model: Its printed name.
        network: Label of our network in the configuration that comes nearest; empty where there is none here.
        family: First word of the labels of our networks that are this model in other configurations; empty where none is.
        pretrained: Whether the source started from pretrained weights; None where that is not known.
        origin: Who trained it: the source's own method, trained by the source's authors, or quoted.
        note: What a reader must know of it.
    """

    source: str
    model: str
    network: str
    family: str
    pretrained: bool | None
    origin: str
    note: str


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """One printed figure. What the source does not state is None, or empty for text.

    Attributes:
        source: arXiv id, DOI or repository.
        table: Which table of it.
        setting: ``"seen"`` or ``"unseen"``, as the source has it.
        modality: As printed.
        dataset: Test set as printed.
        target: As printed.
        model: Model as printed, and what it is here.
        metric: As printed.
        mean: In the unit of our measures: fractions, not percent.
        std: Standard deviation over trainings, as printed, likewise.
        std_ddof: 0 where that is divided by the number of trainings, 1 where by one less.
        decimals: Decimals as printed, once fractions are written in percent.
        unit: Unit as printed: ``"percent"``, ``"fraction"`` or ``"unstated"``.
        trainings: Number of trainings behind mean and std.
        training_set: As printed.
        train_cases: Number of training cases, over all training sets.
        test_cases: Number of test cases.
        split: ``"official"`` where train and test are lists that the source released.
        image_size: Side in pixels of the training images.
        epochs: Number of epochs.
        protocol: Fields of `madgnet_bench.protocol.Protocol` that are known of the evaluation, with their values.
        our_dataset: Our name of the test set; empty where we have none.
        our_target: Our name of the target; empty where we have none, or it is in doubt.
        our_measure: Our name of the measure; empty where we have none.
        our_training_sets: Our names of the training sets, sorted.
        note: What a reader must know of this figure.
    """

    source: str
    table: str
    setting: Literal["seen", "unseen"]
    modality: str
    dataset: str
    target: str
    model: PublishedModel
    metric: str
    mean: float
    std: float | None
    std_ddof: int | None
    decimals: int
    unit: str
    trainings: int | None
    training_set: str
    train_cases: int | None
    test_cases: int | None
    split: str
    image_size: int | None
    epochs: int | None
    protocol: Mapping[str, Any]
    our_dataset: str
    our_target: str
    our_measure: str
    our_training_sets: tuple[str, ...]
    note: str

    @property
    def sample_std(self) -> float | None:
        """The standard deviation over trainings with n - 1, as ours are."""
        if self.std is None or self.std_ddof != 0 or self.trainings is None:
            return self.std
        return self.std * math.sqrt(self.trainings / (self.trainings - 1))


def read_published(folder: Path) -> tuple[PublishedScore, ...]:
    """Read and check every file of published figures in a folder.

    Raises:
        ConfigError: The folder does not exist, or holds no figures.
        DataErrors: Everything that is wrong with the files, by file and line.
    """
    files = sorted(path for path in folder.glob("*.csv") if path.name != MODELS_FILE)
    if not files or not (folder / MODELS_FILE).is_file():
        raise ConfigError(
            f"{folder.resolve()} holds no published figures (CSV files beside {MODELS_FILE}). "
            "Name the folder results/published of a checkout of madgnet-bench."
        )
    problems: list[Problem] = []
    models = _read_models(folder / MODELS_FILE, problems)
    known = {(model.source, model.model): model for model in models}
    scores: list[PublishedScore] = []
    first: dict[tuple[str, ...], str] = {}
    for path in files:
        for where, record in _read_rows(path, FIGURE_COLUMNS, problems):
            found = [*_check_figure(record), *_check_model(record, known), *_check_key(where, record, _KEY, first)]
            problems += [Problem(where, problem, fix) for problem, fix in found]
            if not found:
                scores.append(_score(record, known[record["source"], record["model"]]))
    if problems:
        raise DataErrors(str(folder), problems, outcome="nothing was compared")
    return tuple(scores)


def _read_models(path: Path, problems: list[Problem]) -> list[PublishedModel]:
    """Read `MODELS_FILE`."""
    models = []
    first: dict[tuple[str, ...], str] = {}
    for where, record in _read_rows(path, MODEL_COLUMNS, problems):
        found = list(_check_key(where, record, ("source", "model"), first))
        found += [(f"{name} is empty", "fill it in") for name in ("source", "model", "origin") if not record[name]]
        if record["pretrained"] not in ("yes", "no", ""):
            found.append((f"pretrained is {record['pretrained']!r}", "write yes or no, or leave it empty"))
        if record["family"] and record["network"].partition(" ")[0] != record["family"]:
            found.append((f"family {record['family']!r} does not begin {record['network']!r}", "write the label's first word"))
        problems += [Problem(where, problem, fix) for problem, fix in found]
        pretrained = {"yes": True, "no": False}.get(record["pretrained"])
        models.append(PublishedModel(**{**record, "pretrained": pretrained}))  # type: ignore[arg-type]
    return models


def _read_rows(path: Path, columns: Sequence[str], problems: list[Problem]) -> list[tuple[str, dict[str, str]]]:
    """The lines of a CSV file with their places; lines that are no rows of it are problems."""
    rows: list[tuple[str, dict[str, str]]] = []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            if header != list(columns):
                absent, extra = [c for c in columns if c not in header], [c for c in header if c not in columns]
                what = f"lacks {', '.join(absent)}" if absent else f"unknown: {', '.join(extra)}" if extra else "another order"
                fix = f"the columns are {', '.join(columns)}"
                problems.append(Problem(f"{path}, line 1", f"other columns ({what})", fix))
                return rows
            for fields in reader:
                where = f"{path}, line {reader.line_num}"
                if len(fields) == len(columns):
                    rows.append((where, dict(zip(columns, (field.strip() for field in fields), strict=True))))
                else:
                    problems.append(Problem(where, f"{len(fields)} of {len(columns)} fields", _COPY))
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(Problem(str(path), f"not CSV text ({error})", _COPY))
    if not rows and not problems:
        problems.append(Problem(str(path), "holds no figure", _COPY))
    return rows


def _check_key(
    where: str, record: Record, columns: Sequence[str], first: dict[tuple[str, ...], str]
) -> Iterable[tuple[str, str]]:
    """A line that repeats the key of an earlier one."""
    key = tuple(record[name] for name in columns)
    earlier = first.setdefault(key, where)
    if earlier != where:
        yield f"the same {', '.join(columns)} as in {earlier}", "delete one of them"


def _check_model(record: Record, known: Mapping[tuple[str, str], PublishedModel]) -> Iterable[tuple[str, str]]:
    """A model that `MODELS_FILE` does not declare."""
    if (record["source"], record["model"]) not in known:
        fix = f"add it to {MODELS_FILE}, with a network of ours or without"
        yield f"model {record['model']!r} of {record['source']} is not declared", fix


def _check_figure(record: Record) -> Iterable[tuple[str, str]]:
    """What is wrong with one line: problem and fix."""
    for name in _NEEDED:
        if not record[name]:
            yield f"{name} is empty", "fill it in"
    for name, valid in _CHOICES.items():
        if record[name] not in valid:
            yield f"{name} is {record[name]!r}", f"write {', '.join(value or 'nothing' for value in valid)}"
    for name in _COUNTS:
        if record[name] and not (record[name].isascii() and record[name].isdecimal() and int(record[name]) > 0):
            yield f"{name} is {record[name]!r}", "write a positive whole number, or nothing where the source states none"
    yield from _check_values(record)
    for name in _PROTOCOL_FIELDS:
        try:
            _protocol_value(name, record[name])
        except ConfigError as error:
            yield f"{name} is {record[name]!r}", str(error)
    yield from _check_names(record)


def _check_values(record: Record) -> Iterable[tuple[str, str]]:
    """Mean and standard deviation: numbers in range, a deviation with what it is over."""
    greatest = _GREATEST.get(record["unit"], math.inf)
    for name in ("mean", "std"):
        value = _number(record[name])
        if record[name] and (value is None or not 0 <= value <= greatest or value == math.inf):
            end = "not negative" if greatest == math.inf else f"from 0 to {greatest:g}, the unit being {record['unit']}"
            yield f"{name} is {record[name]!r}", f"write a number {end}"
    if record["std"] and not (record["std_ddof"] and record["trainings"]):
        yield "std without std_ddof or trainings", "say over how many trainings it is, and whether with n (0) or n - 1 (1)"
    if record["std"] and record["trainings"] == "1":
        yield "a std over one training", "leave it empty"


def _check_names(record: Record) -> Iterable[tuple[str, str]]:
    """Our names: of data sets, domains, targets and measures that exist."""
    if record["our_measure"] and record["our_measure"] not in MEASURES:
        yield f"unknown our_measure {record['our_measure']!r}", nearest(record["our_measure"], MEASURES)
    for column in ("our_dataset", "our_training_sets"):
        for name in filter(None, record[column].split(";")):
            card = READERS[name.partition("/")[0]].card if name.partition("/")[0] in READERS else None
            domain = name.partition("/")[2]
            if card is None:
                yield f"unknown data set {name!r} in {column}", nearest(name, READERS)
            elif domain and domain not in card.domains:
                yield f"unknown domain {name!r} in {column}", nearest(domain, card.domains)
            elif column == "our_dataset" and record["our_target"] and record["our_target"] not in card.targets:
                yield f"{name} has no target {record['our_target']!r}", nearest(record["our_target"], card.targets)
    if record["our_target"] and not record["our_dataset"]:
        yield "our_target without our_dataset", "name the data set, or leave the target empty"


def _score(record: Record, model: PublishedModel) -> PublishedScore:
    """Give a checked line its types and our unit."""

    def optional(name: str, read: Callable[[str], Any]) -> Any:
        return read(record[name]) if record[name] else None

    scale = 0.01 if record["unit"] == "percent" else 1.0
    std = optional("std", float)
    decimals = len(record["mean"].partition(".")[2]) - (2 if record["unit"] == "fraction" else 0)
    text = ("source", "table", "modality", "dataset", "target", "metric", "unit", "training_set", "split")
    ours = ("our_dataset", "our_target", "our_measure", "note")
    plain: dict[str, Any] = {name: record[name] for name in (*text, *ours)}
    return PublishedScore(
        **plain,
        **{name: optional(name, int) for name in (*_COUNTS, "std_ddof")},
        setting="seen" if record["setting"] == "seen" else "unseen",
        model=model,
        mean=round(float(record["mean"]) * scale, 12),
        std=None if std is None else round(std * scale, 12),
        decimals=max(0, decimals),
        protocol={name: _protocol_value(name, record[name]) for name in _PROTOCOL_FIELDS if record[name]},
        our_training_sets=tuple(sorted(filter(None, record["our_training_sets"].split(";")))),
    )


def _protocol_value(name: str, text: str) -> Any:
    """The value of a protocol's field, or None where there is no text.

    Raises:
        ConfigError: The field takes no such value.
    """
    return getattr(Protocol.parse(f"madgnet[{name}={text}]"), name) if text else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
