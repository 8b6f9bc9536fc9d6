"""Plain-text tables of the commands."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["align"]


def align(rows: Sequence[Sequence[str]], *, left: int | None = None) -> str:
    """Lay rows out in columns.

    Args:
        rows: Rows of equally many cells, the header first.
        left: How many columns from the left are flush left, the others being flush right; all where not given.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    flush_left = len(widths) if left is None else left

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if position < flush_left else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, rows))
