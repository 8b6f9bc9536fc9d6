"""Where a folder of an archive lies: archives are unpacked with and without a folder around them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["find_place"]


def find_place(folder: Path, *candidates: str) -> str:
    """The first of several folders that exists; unpacking that doubles the outermost folder (``A/A/b``) is tolerated.

    Args:
        folder: Folder of the data set.
        candidates: Folders relative to it, with forward slashes; at least one.

    Returns:
        The path that exists, relative to ``folder``; the first candidate where none does, so that messages name it.
    """
    for candidate in candidates:
        for place in (f"{candidate.split('/')[0]}/{candidate}", candidate):
            if (folder / place).is_dir():
                return place
    return candidates[0]
