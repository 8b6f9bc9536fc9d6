"""Which files of a folder are images, and which mask belongs to which image. Nothing is decoded here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from madgnet_bench.catalog.images import IMAGE_SUFFIXES
from madgnet_bench.errors import Problem

__all__ = ["files_by_stem", "unmatched"]

_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})


def files_by_stem(
    root: Path,
    folder: str,
    *,
    ending: str = "",
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    strict: bool = False,
) -> tuple[dict[str, str], list[Problem]]:
    """List the images of a folder by the stem of their names. Hidden files are ignored.

    Args:
        root: Folder of the data set.
        folder: Folder to list, relative to it, with forward slashes.
        ending: Only names whose stem ends so are listed, and it is cut from the stem.
        suffixes: Only names with one of these suffixes, in lower case, are listed.
        strict: Also report everything else in the folder, instead of passing over it.

    Returns:
        From stem to path relative to ``root``, in the order of the names; and the problems: a missing folder, two files
        with one stem, and what ``strict`` reports.
    """
    try:
        paths = sorted((root / folder).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        fix = "create it, or name the right folder"
        return {}, [Problem(str(root / folder), "the folder is missing", fix)]
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for path in paths:
        if path.name.startswith(".") or path.name.lower() in _CLUTTER:
            continue
        stem = path.stem.removesuffix(ending)
        if path.suffix.lower() not in suffixes or not path.stem.endswith(ending) or not path.is_file():
            problems += [_stray(path)] if strict else []
        elif stem in found:
            other = found[stem].rpartition("/")[2]
            problems.append(Problem(str(path), f"has the same stem as {other}", "rename or remove one of the two"))
        else:
            found[stem] = f"{folder}/{path.name}"
    return found, problems


def unmatched(root: Path, images: Mapping[str, str], masks: Mapping[str, str], *, masks_folder: str) -> list[Problem]:
    """Report images without a mask and masks without an image.

    Args:
        root: Folder of the data set.
        images: From stem to path relative to it.
        masks: Likewise.
        masks_folder: Where the masks lie, for the message.
    """
    lonely_images = [
        Problem(str(root / path), f"image without a mask in {masks_folder}/", "add its mask (same stem) or remove the image")
        for stem, path in images.items()
        if stem not in masks
    ]
    lonely_masks = [
        Problem(str(root / path), "mask without an image", "add its image (same stem) or remove the mask")
        for stem, path in masks.items()
        if stem not in images
    ]
    return lonely_images + lonely_masks


def _stray(path: Path) -> Problem:
    """A folder or a file of another kind where only images are expected."""
    if path.is_dir():
        return Problem(str(path), "a folder among the files", "move its files up; for several targets, name the targets")
    kinds = " ".join(sorted(IMAGE_SUFFIXES))
    return Problem(str(path), f"not one of the image formats {kinds}", "convert it to PNG, or move it away")
