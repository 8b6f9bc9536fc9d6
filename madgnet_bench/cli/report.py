"""``madgnet-bench report``: a page of tables, figures and pictures from run folders, without torch."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from madgnet_bench.bench.store import Store, load_runs
from madgnet_bench.errors import RunError
from madgnet_bench.protocol import MEASURES

__all__ = ["main"]

_DEFAULT = Path("runs")
_HOW = "Make one with `madgnet-bench fit --config ...`, or name the folders where your runs lie."
_MEASURES = f"what figures and tests are about, one of {', '.join(MEASURES)} (default: dsc); tables show all"


def main(arguments: list[str]) -> int:
    """Write the report of the named run folders and print where it is.

    Raises:
        BenchError: There is no finished run, the runs do not compare, or the folder is a file.
    """
    options = _parser().parse_args(arguments)
    store = _load(options.runs)
    if options.output.exists() and not options.output.is_dir():
        raise RunError(f"{options.output} is a file; name a folder with --output.")
    from madgnet_bench.bench.report import write_report  # matplotlib and jinja2, which a wrong path need not wait for

    start = time.monotonic()
    progress = _Progress()
    page = write_report(store, options.output, measure=options.measure, protocol=options.protocol, step=progress.show)
    progress.clear()
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    sys.stdout.write(
        f"Report of {len(store.runs)} {'run' if len(store.runs) == 1 else 'runs'}: {page}\n"
        f"Page {page.stat().st_size / 1e6:.1f} MB, all files {size / 1e6:.1f} MB, {time.monotonic() - start:.0f} s.\n"
    )
    remarks = store.remarks()
    if remarks:
        sys.stdout.write("\n" + "\n".join(remarks) + "\n")
    return 0


class _Progress:
    """One line on a terminal that says what is being done; nothing elsewhere."""

    def __init__(self) -> None:
        self._width = 0

    def show(self, what: str) -> None:
        """Replace the line."""
        if sys.stderr.isatty():
            self.clear()
            sys.stderr.write(f"{what} ...")
            sys.stderr.flush()
            self._width = len(what) + 4

    def clear(self) -> None:
        """Remove the line."""
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            self._width = 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench report",
        description="Write a page of tables, figures, tests and pictures of cases from run folders. It opens from disk, "
        "without a server or a network.",
    )
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUNS", help="run folders, or folders of them (default: runs)")
    parser.add_argument("--output", type=Path, default=Path("report"), metavar="DIR", help="where to write (default: report)")
    parser.add_argument("--measure", choices=list(MEASURES), default="dsc", metavar="M", help=_MEASURES)
    parser.add_argument("--protocol", metavar="P", help="which protocol to show, where the runs hold several")
    return parser
