"""The gallery of the report: pictured cases of one run per model and test set, with their scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from madgnet_bench.bench.report.content import Block
from madgnet_bench.bench.report.gallery import Gallery, copy_picture, find_galleries
from madgnet_bench.bench.report.text import number
from madgnet_bench.bench.store import Run
from madgnet_bench.errors import BenchError
from madgnet_bench.pictures import target_colours
from madgnet_bench.protocol import MEASURES
from madgnet_bench.records import CaseRow

__all__ = ["Card", "Group", "add_gallery"]

_ABSENT = "no run holds pictures. Train or test with --run.predictions selected to keep some."


@dataclass(frozen=True, kw_only=True)
class Card:
    """One pictured case as the page shows it."""

    case_id: str
    kind: str
    rank: int
    dsc: str
    file: str
    width: int
    height: int
    scores: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """The pictured cases of one model on one test set."""

    network: str
    dataset: str
    setting: str
    seed: int
    targets: str
    cases: tuple[Card, ...]


def add_gallery(block: Block, folder: Path) -> list[str]:
    """Copy the pictures of the first run of each model that has any, and add them to the block, test set by test set.

    Args:
        block: Its galleries are set.
        folder: Where the pictures go.

    Returns:
        Why galleries are left out.
    """
    problems: list[str] = []
    groups: list[tuple[int, int, Group]] = []
    places = {column.dataset: place for place, column in reversed(list(enumerate(block.table.columns)))}
    by_id = {run.run_id: run for run in block.runs}
    for position, row in enumerate(block.table.rows):
        for run in (by_id[run_id] for run_id in row.run_ids):
            galleries, unread = find_galleries(run.folder)
            problems += unread
            known = [gallery for gallery in galleries if gallery.dataset in places and gallery.cases]
            if known:
                scores = _scores(run, row.protocol, problems)
                for gallery in known:
                    place = places[gallery.dataset]
                    setting = block.table.columns[place].setting
                    groups.append((place, position, _group(gallery, row.title, setting, run, scores, folder)))
                break
    block.gallery = [group for _, _, group in sorted(groups, key=lambda entry: entry[:2])]
    if not block.gallery:
        block.problems.setdefault("gallery", []).append(_ABSENT)
    return list(dict.fromkeys(problems))


def _scores(run: Run, protocol: str, problems: list[str]) -> dict[tuple[str, str], list[CaseRow]]:
    """The rows of the case table by data set and case."""
    found: dict[tuple[str, str], list[CaseRow]] = {}
    try:
        for row in run.folder.read_cases():
            if row.protocol == protocol:
                found.setdefault((row.dataset, row.case_id), []).append(row)
    except BenchError as error:
        problems.append(str(error))
    return found


def _group(
    gallery: Gallery, label: str, setting: str, run: Run, scores: dict[tuple[str, str], list[CaseRow]], folder: Path
) -> Group:
    cards = []
    for case in gallery.cases:
        rows = scores.get((gallery.dataset, case.case_id), [])
        cards.append(
            Card(
                case_id=case.case_id,
                kind=case.kind,
                rank=case.rank,
                dsc=number(case.dsc, MEASURES["dsc"]),
                file=copy_picture(gallery.folder / case.file, folder),
                width=case.width,
                height=case.height,
                scores=json.dumps(_facts(rows), ensure_ascii=False),
            )
        )
    colours = zip(gallery.targets, target_colours(len(gallery.targets)), strict=True)
    targets = {name: f"rgb({red}, {green}, {blue})" for name, (red, green, blue) in colours}
    return Group(
        network=label,
        dataset=gallery.dataset,
        setting=setting,
        seed=run.seed,
        targets=json.dumps(targets, ensure_ascii=False),
        cases=tuple(cards),
    )


def _facts(rows: list[CaseRow]) -> dict[str, str]:
    """What the dialog lists of a case: its group, and its measures, target by target."""
    facts = {"group": rows[0].group_id} if rows else {}
    for row in rows:
        for name, value in row.measures.items():
            if name in MEASURES:
                measure = MEASURES[name]
                target = f" of {row.target}" if len(rows) > 1 else ""
                facts[f"{measure.title}{target}"] = number(value, measure) + ("%" if measure.unit == "fraction" else "")
    return facts
