"""``madgnet-bench leaderboard``: tables from run folders, without torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from madgnet_bench.bench.render import to_csv, to_markdown, to_text
from madgnet_bench.bench.store import Store, load_runs
from madgnet_bench.bench.tables import build_tables, common_measures
from madgnet_bench.errors import RunError
from madgnet_bench.protocol import MEASURES
from madgnet_bench.records import write_atomically

__all__ = ["main"]

_DEFAULT = Path("runs")


def main(arguments: list[str]) -> int:
    """Print the leaderboard of the named run folders and write it to files where asked.

    Raises:
        BenchError: There is no finished run, or the runs do not compare.
    """
    options = _parser().parse_args(arguments)
    store = _load(options.runs)
    names = common_measures(store.runs) if options.measure == "all" else [options.measure]
    tables = [table for name in names for table in build_tables(store.runs, name, protocol=options.protocol)]
    lines = [to_text(tables)]
    for path, content in ((options.csv, to_csv), (options.markdown, to_markdown)):
        if path:
            write_atomically(path, content(tables))
            lines.append(f"Written: {path}\n")
    remarks = store.remarks()
    sys.stdout.write("\n".join([*lines, *(["\n".join(remarks) + "\n"] if remarks else [])]))
    return 0


def _load(paths: list[Path]) -> Store:
    """Read the runs.

    Raises:
        RunError: There is no finished run; the message says where it was looked and how to make one.
    """
    if not paths and not _DEFAULT.is_dir():
        raise RunError(f"no runs: there is no folder {_DEFAULT.resolve()}. {_HOW}")
    store = load_runs(paths or [_DEFAULT])
    if not store.runs:
        where = ", ".join(str(path.resolve()) for path in store.searched)
        raise RunError("\n".join([f"no finished run in {where}.", *store.remarks(), _HOW]))
    return store


_MEASURES = f"what to show: all, or one of {', '.join(MEASURES)} (default: dsc)"
_HOW = "Make one with `madgnet-bench fit --config ...`, or name the folders where your runs lie."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench leaderboard",
        description="Print models x test sets from run folders: seen and unseen apart, their gap, the mean rank.",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", help="run folders, or folders of them (default: runs)")
    parser.add_argument("--measure", choices=[*MEASURES, "all"], default="dsc", metavar="M", help=_MEASURES)
    parser.add_argument("--protocol", metavar="P", help="which protocol to show, where the runs hold several")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line per score, as exact fractions")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    return parser
