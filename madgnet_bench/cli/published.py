"""``madgnet-bench leaderboard --published``: what is published, set beside the tables of runs, without torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import madgnet_bench
from madgnet_bench.bench.beside import BesideTable, read_circumstances, set_beside
from madgnet_bench.bench.published import read_published
from madgnet_bench.bench.render.published import (
    published_to_csv,
    published_to_json,
    published_to_latex,
    published_to_markdown,
    published_to_text,
)
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Table
from madgnet_bench.errors import ConfigError

__all__ = ["beside_published", "published_files", "published_to_text"]

_FIGURES = Path("results", "published")


def beside_published(tables: Sequence[Table], runs: Sequence[Run], *, folder: Path | None = None) -> list[BesideTable]:
    """Set what is published beside tables of runs.

    Args:
        tables: The tables.
        runs: At least the runs that they were built from.
        folder: Where the figures lie; by default ``results/published`` here, or in the checkout of this package.

    Raises:
        BenchError: There are no figures, they are damaged, or a run folder is.
    """
    published = read_published(folder or _find_figures())
    by_id = {run.run_id: run for run in runs}
    members = {row.run_ids[0]: [by_id[name] for name in row.run_ids] for table in tables for row in table.rows}
    circumstances = {name: read_circumstances(group) for name, group in members.items()}
    return [set_beside(table, published, circumstances) for table in tables]


def published_files(options: argparse.Namespace, beside: Sequence[BesideTable]) -> dict[Path, Callable[[], str]]:
    """What to write where: ``options.csv``, ``markdown``, ``latex`` and ``json`` are paths or None."""
    wanted: list[tuple[Path | None, Callable[[], str]]] = [
        (options.csv, lambda: published_to_csv(beside)),
        (options.markdown, lambda: published_to_markdown(beside)),
        (options.latex, lambda: published_to_latex(beside)),
        (options.json, lambda: published_to_json(beside)),
    ]
    return {path: content for path, content in wanted if path}


def _find_figures() -> Path:
    """Where the figures lie: below the current folder, or in the checkout that the package is run from.

    Raises:
        ConfigError: In neither.
    """
    places = [Path.cwd() / _FIGURES, Path(madgnet_bench.__file__).parents[1] / _FIGURES]
    for place in places:
        if place.is_dir():
            return place
    looked = " or ".join(dict.fromkeys(str(place) for place in places))
    raise ConfigError(
        f"no published figures: there is no {looked}. Name the folder results/published of a checkout of madgnet-bench "
        "with --published-figures."
    )
