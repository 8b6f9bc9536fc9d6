"""The pictures of tested cases that run folders hold, read by their index and copied beside the report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madgnet_bench.errors import RunError
from madgnet_bench.pictures import KINDS, PARTS
from madgnet_bench.records import RunFolder

__all__ = ["Gallery", "GalleryCase", "copy_picture", "find_galleries", "read_gallery"]

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class GalleryCase:
    """One pictured case.

    Attributes:
        case_id: Its name.
        kind: One of `madgnet_bench.pictures.KINDS`.
        rank: Its place among its kind, from 1.
        dsc: Its score, as a fraction, by which it was chosen.
        file: Name of the panel in the gallery's folder.
        width: Width of one part of the panel, in pixels.
        height: Its height.
    """

    case_id: str
    kind: str
    rank: int
    dsc: float
    file: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictured cases of one run and test set.

    Attributes:
        folder: Where the panels lie.
        dataset: Name of the test set.
        targets: Names of the targets, in the order of the colours of their outlines.
        cases: Worst, median and best cases.
    """

    folder: Path
    dataset: str
    targets: tuple[str, ...]
    cases: tuple[GalleryCase, ...]


def read_gallery(folder: Path) -> Gallery:
    """Read the index of one test set's pictures.

    Raises:
        RunError: It is missing, damaged or of a newer schema, or a picture that it lists is not there.
    """
    path = folder / "gallery.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = int(content["schema_version"])
        if version > _SCHEMA:
            raise RunError(f"{path}: schema {version} is newer than this version reads ({_SCHEMA}). Upgrade madgnet-bench.")
        if tuple(content["parts"]) != PARTS:
            raise ValueError(f"parts are {content['parts']}, not {list(PARTS)}")
        gallery = Gallery(
            folder=folder,
            dataset=str(content["dataset"]),
            targets=tuple(map(str, content["targets"])),
            cases=tuple(_read_case(entry) for entry in content["cases"]),
        )
    except FileNotFoundError:
        raise RunError(f"{path}: no index of the pictures. Test the run again to draw them.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(f"{path}: not the index of a gallery ({what}). Test the run again.") from None
    lost = [case.file for case in gallery.cases if not (folder / case.file).is_file()]
    if lost:
        raise RunError(f"{folder}: {len(lost)} of {len(gallery.cases)} pictures are gone, first {lost[0]}. Test the run again.")
    return gallery


def _read_case(entry: dict[str, Any]) -> GalleryCase:
    """Check one entry."""
    case = GalleryCase(
        case_id=str(entry["case_id"]),
        kind=str(entry["kind"]),
        rank=int(entry["rank"]),
        dsc=float(entry["dsc"]),
        file=str(entry["file"]),
        width=int(entry["width"]),
        height=int(entry["height"]),
    )
    if case.kind not in KINDS:
        raise ValueError(f"kind {case.kind!r} is not one of {', '.join(KINDS)}")
    if Path(case.file).name != case.file:
        raise ValueError(f"file {case.file!r} is not a name in this folder")
    if min(case.width, case.height, case.rank) < 1:
        raise ValueError(f"a size or rank of {case.case_id} is not positive")
    return case


def find_galleries(run: RunFolder) -> tuple[list[Gallery], list[str]]:
    """Read all galleries of a run.

    Returns:
        The galleries by the name of their folder, and a message for each that cannot be read.
    """
    galleries, problems = [], []
    for index in sorted((run.path / "predictions").glob("*/gallery.json")):
        try:
            galleries.append(read_gallery(index.parent))
        except RunError as error:
            problems.append(str(error))
    return galleries, problems


def copy_picture(source: Path, folder: Path) -> str:
    """Copy a picture into a folder under a name made of its content, so that equal pictures are there once.

    Returns:
        The name.
    """
    content = source.read_bytes()
    name = f"{hashlib.sha256(content).hexdigest()[:20]}{source.suffix}"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return name
