"""``madgnet-bench leaderboard``: tables from run folders, without torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from madgnet_bench.bench.render import to_csv, to_json, to_latex, to_markdown, to_text
from madgnet_bench.bench.selection import Selection
from madgnet_bench.bench.store import Store, load_runs
from madgnet_bench.bench.tables import SORTS, Table, build_tables, common_measures
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
    selection = Selection(
        networks=tuple(options.network),
        training_sets=tuple(options.training_set),
        datasets=tuple(options.dataset),
        setting=options.setting,
    )
    tables = [
        table
        for name in names
        for table in build_tables(
            store.runs,
            name,
            protocol=options.protocol,
            selection=selection,
            group_by=options.group_by,
            sort=options.sort,
            intervals=options.intervals,
        )
    ]
    text, files = _show(options, tables, store)
    lines = [text]
    for path, content in files.items():
        write_atomically(path, content())
        lines.append(f"Written: {path}\n")
    remarks = store.remarks()
    _print("\n".join([*lines, *(["\n".join(remarks) + "\n"] if remarks else [])]))
    return 0


_Files = dict[Path, Callable[[], str]]


def _show(options: argparse.Namespace, tables: Sequence[Table], store: Store) -> tuple[str, _Files]:
    """What to print, and what to write where."""
    if options.published:
        from madgnet_bench.cli.published import beside_published, published_files, published_to_text

        beside = beside_published(tables, store.runs, folder=options.published_figures)
        return published_to_text(beside), published_files(options, beside)
    wanted: list[tuple[Path | None, Callable[[], str]]] = [
        (options.csv, lambda: to_csv(tables)),
        (options.markdown, lambda: to_markdown(tables, costs=options.costs)),
        (options.latex, lambda: to_latex(tables, costs=options.costs)),
        (options.json, lambda: to_json(tables)),
    ]
    return to_text(tables, costs=options.costs), {path: content for path, content in wanted if path}


def _print(text: str) -> None:
    """Write to the terminal; a reader such as ``head`` may close it early."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more on its way out


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
_EPILOG = """\
GLOB is a pattern as of the shell, compared without case; its flag may be repeated, and one of them must match. Means, gap
and ranks are over what is shown, and a note says what was selected. An incomplete cell is a dash, and a note says what it
lacks; nothing incomplete is averaged. Rows that were prompted with the reference stand apart and are not ranked."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench leaderboard",
        description="Print models x test sets from run folders: seen and unseen apart, their gap, worst domain and mean rank.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", help="run folders, or folders of them (default: runs)")
    show = parser.add_argument_group("what is shown")
    show.add_argument("--measure", choices=[*MEASURES, "all"], default="dsc", metavar="M", help=_MEASURES)
    show.add_argument("--protocol", metavar="P", help="which protocol to show, where the runs hold several")
    help_text = "show 95%% intervals over cases; leave them out to save time on runs without replicates.npz (default: show)"
    show.add_argument("--intervals", action=argparse.BooleanOptionalAction, default=True, help=help_text)
    show.add_argument("--costs", action="store_true", help="show GMAC, time per image, memory, device hours and hardware")
    help_text = "show published figures beside ours instead, with the difference, or why they are not comparable"
    show.add_argument("--published", action="store_true", help=help_text)
    help_text = "where those lie (default: results/published here or in the checkout of the package)"
    show.add_argument("--published-figures", type=Path, metavar="FOLDER", help=help_text)
    choose = parser.add_argument_group("filters")
    for flag, what in (
        ("--network", "labels of networks"),
        ("--training-set", "training sets, one of which a run must have"),
        ("--dataset", "test sets"),
    ):
        choose.add_argument(flag, action="append", default=[], metavar="GLOB", help=f"only {what}")
    choose.add_argument("--setting", choices=["seen", "unseen"], help="only the seen, or only the unseen test sets")
    order = parser.add_argument_group("order")
    sorts = f"{', '.join(SORTS)}, or the header of a test set; best, or least, first (default: rank)"
    order.add_argument("--sort", default="rank", metavar="KEY", help=sorts)
    groups = "one table per training sets (default), or per training sets and modality of the test sets"
    order.add_argument("--group-by", choices=["training_sets", "modality"], default="training_sets", help=groups)
    files = parser.add_argument_group("files")
    for name, what in (
        ("csv", "one line per score, as exact fractions"),
        ("json", "everything, as exact fractions, with a schema version"),
        ("markdown", "the tables as Markdown, best bold, second underlined"),
        ("latex", "the tables as LaTeX (booktabs), best bold, second underlined"),
    ):
        files.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write {what}")
    return parser
