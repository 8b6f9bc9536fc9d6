"""The manifest: which cases a data set has, where their files lie, and to which split and domain they belong."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from madgnet_bench.errors import DataErrors, Problem

__all__ = ["Case", "Manifest", "Split"]

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, order=True)
class Case:
    """One image with its reference.

    Attributes:
        case_id: Unique in its manifest.
        group_id: Patient, video or volume; groups never straddle splits unless the official split does.
        image: Path of the image, relative to the data set's folder, with forward slashes.
        mask: Path or paths of the reference, relative likewise: several, separated by ``|``, are united; one that ends in
            ``/`` is a folder whose images are united; several targets are separated by ``;`` in the card's order. Behind
            ``::`` stands the part of a file that is meant, as a target of a label map; for images too, as a slice.
        split: ``train``, ``val`` or ``test``.
        domain: Domain inside the data set; empty where it is one domain.
    """

    case_id: str
    group_id: str
    image: str
    mask: str
    split: Split
    domain: str = ""


_COLUMNS = [field.name for field in fields(Case)]


@dataclass(frozen=True)
class Manifest:
    """The cases of one data set, sorted by case_id.

    Args:
        name: Name of the data set.
        cases: Its cases; sorted here.

    Raises:
        DataErrors: There is no case, or a case_id stands twice.
    """

    name: str
    cases: tuple[Case, ...]

    def __init__(self, name: str, cases: Sequence[Case]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "cases", tuple(sorted(cases)))
        if not self.cases:
            raise DataErrors(name, [Problem(name, "the data set is empty", "check the folder and the chosen domain")])
        seen: set[str] = set()
        twice = [c for c in self.cases if c.case_id in seen or seen.add(c.case_id)]  # type: ignore[func-returns-value]
        if twice:
            raise DataErrors(name, [Problem(c.image, f"case {c.case_id} stands twice", "rename one file") for c in twice])

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def rows(self, *splits: Split) -> list[int]:
        """Positions of the cases of the named splits, or of all cases where none is named."""
        return [row for row, case in enumerate(self.cases) if not splits or case.split in splits]

    def to_csv(self) -> str:
        """The manifest as CSV text: the columns of `Case`, one row per case."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(astuple(case) for case in self.cases)
        return stream.getvalue()

    @classmethod
    def from_csv(cls, path: Path, name: str) -> Manifest:
        """Read a manifest that `to_csv` wrote.

        Raises:
            DataErrors: A column is missing, or a row names no split.
        """
        with path.open(encoding="utf-8", newline="") as stream:
            records = list(csv.DictReader(stream))
        problems = [
            Problem(f"{path}, line {line}", "not a manifest row", f"the columns are {', '.join(_COLUMNS)}")
            for line, record in enumerate(records, start=2)
            if any(record.get(column) is None for column in _COLUMNS) or record["split"] not in ("train", "val", "test")
        ]
        if problems:
            raise DataErrors(name, problems)
        return cls(name, [Case(**{column: record[column] for column in _COLUMNS}) for record in records])  # type: ignore[arg-type]

    @property
    def sha256(self) -> str:
        """Hash of the CSV text: the identity of the data set in run ids and results."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()
