"""`run` and `status`: the jobs of a suite, without torch: planning and training happen in processes of their own."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from madgnet_bench.bench.launch import Launcher, LocalLauncher, Slot, cpu_slots, gpu_slots, visible_gpus
from madgnet_bench.bench.plan import Plan, PlannedJob, make_plan, read_plan
from madgnet_bench.bench.runner import Policy, Runner
from madgnet_bench.bench.status import JobStatus, count, read_status, seconds_left
from madgnet_bench.bench.suite import Suite
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError, RunError

__all__ = ["run", "status"]

_REDRAW = 1.0
"""Seconds between two pictures of the live table."""

_SUMMARY = 60.0
"""Seconds between two summaries where the output is no terminal."""


def run(arguments: Sequence[str]) -> int:
    """`madgnet-bench run`: run what is not done, then print the tables.

    Returns:
        0 where all jobs are done, else 1.
    """
    options = _run_parser().parse_args(arguments)
    make_launcher = _launcher(options)
    suite = Suite.read(options.suite, seeds=options.seeds)
    try:
        plan = make_plan(suite, options.root, keep=not options.dry_run)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped while the jobs were checked; nothing was started.\n")
        return 1
    if options.dry_run:
        sys.stdout.write(_dry_run(read_status(plan)))
        return 0
    launcher = make_launcher(plan)
    policy = Policy(retries=options.retries, time_limit=options.time_limit, halve_batch=options.halve_batch_on_oom)
    show = _Live(plan) if sys.stdout.isatty() else _Lines(plan)
    runner = Runner(plan, launcher, policy=policy, tell=show.tell, tick=show.tick)
    with _stopping_on_signals(runner.stop) as stopped:
        runner.run()
    show.finish()
    rows = read_status(plan)
    sys.stdout.write(_details(rows))
    if stopped:
        sys.stdout.write(f"\nStopped. `madgnet-bench run {shlex.join(arguments)}` goes on from here.\n")
    _print_leaderboard(plan, rows)
    return 0 if all(row.state == "done" for row in rows) else 1


def status(arguments: Sequence[str]) -> int:
    """`madgnet-bench status`: how far the jobs are, from files alone."""
    options = _status_parser().parse_args(arguments)
    rows = read_status(read_plan(_suite_folder(options.suite, options.root)), lines=options.lines)
    sys.stdout.write(f"{_table(rows)}\n\n{_summary(rows)}\n{_details(rows)}")
    return 0


class _Lines:
    """Prints a line when something happens, and now and then a summary."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rows: list[JobStatus] = []
        self._next = time.monotonic() + _SUMMARY

    def tell(self, job: PlannedJob, event: str) -> None:
        """Print what happened to a job."""
        sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {job.name}  {event}\n")
        sys.stdout.flush()

    def tick(self) -> None:
        """Print a summary when it is time."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SUMMARY
            self._rows = read_status(self._plan, before=self._rows)
            sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {_summary(self._rows)}\n")
            sys.stdout.flush()

    def finish(self) -> None:
        """Print the last state."""
        rows = read_status(self._plan, before=self._rows)
        sys.stdout.write(f"\n{_table(rows)}\n\n{_summary(rows)}\n")


class _Live:
    """Redraws the table in place on a terminal."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rows: list[JobStatus] = []
        self._drawn = 0
        self._next = 0.0

    def tell(self, job: PlannedJob, event: str) -> None:
        """Draw soon."""
        self._next = 0.0

    def tick(self) -> None:
        """Draw the table when it is time, with as many jobs as fit: those that run and failed first."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _REDRAW
        self._rows = read_status(self._plan, before=self._rows)
        size = shutil.get_terminal_size()
        room = max(1, size.lines - 5)
        rows = self._rows
        if len(rows) > room:
            rank = {"running": 0, "failed": 1, "interrupted": 2, "queued": 3, "waiting": 4, "done": 5}
            chosen = {id(row) for row in sorted(rows, key=lambda row: rank[row.state])[:room]}
            rows = [row for row in rows if id(row) in chosen]
        self._draw([line[: size.columns - 1] for line in (*_table(rows).splitlines(), "", _summary(self._rows))])

    def finish(self) -> None:
        """Leave the whole table on the screen."""
        rows = read_status(self._plan, before=self._rows)
        self._draw([*_table(rows).splitlines(), "", _summary(rows)])

    def _draw(self, lines: Sequence[str]) -> None:
        back = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        sys.stdout.write(back + "\n".join(lines) + "\n")
        sys.stdout.flush()
        self._drawn = len(lines)


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Stop cleanly on Ctrl-C, SIGTERM and a closed terminal; yields the signals that came."""
    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        came.append(number)
        stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handle)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _launcher(options: argparse.Namespace) -> Callable[[Plan], Launcher]:
    """What makes the launcher that the options name; the options themselves are read at once.

    Raises:
        ConfigError: They are wrong.
    """
    if options.slurm and options.launcher != "slurm":
        raise ConfigError("--slurm goes with --launcher slurm.")
    if options.ray and options.launcher != "ray":
        raise ConfigError("--ray goes with --launcher ray.")
    if options.launcher == "ray":
        from madgnet_bench.bench.launch_ray import RayLauncher, RayOptions

        wanted = RayOptions.read(options.ray)
        return lambda plan: RayLauncher(wanted, plan.folder / ".jobs")
    if options.launcher == "slurm":
        from madgnet_bench.bench.launch_slurm import SlurmLauncher, SlurmOptions

        asked = SlurmOptions.read(options.slurm)
        return lambda plan: SlurmLauncher(asked, plan.folder / ".jobs" / "slurm")
    return lambda plan: LocalLauncher(_slots(plan.jobs, options.slots), plan.root / ".slots")


def _slots(jobs: Sequence[PlannedJob], number: int | None) -> list[Slot]:
    """A slot per GPU, where there are some and the jobs want them, else parts of the processor."""
    gpus = visible_gpus()
    if gpus and any(job.accelerator not in ("cpu", "mps") for job in jobs):
        return gpu_slots(gpus, number)
    return cpu_slots(number)


def _suite_folder(suite: str, root: Path) -> Path:
    """The folder of a suite that is named by its file, its folder or its name.

    Raises:
        RunError: It has no plan; the message names those that have.
    """
    named = Path(suite)
    folders = [named, root / (named.stem if named.suffix in (".yaml", ".yml") else named.name)]
    for folder in folders:
        if (folder / ".jobs" / "plan.json").is_file():
            return folder
    planned = sorted(path.parents[1].name for path in root.glob("*/.jobs/plan.json"))
    hint = f"suites in {root}: {', '.join(planned)}." if planned else f"`madgnet-bench run {suite}` makes one."
    raise RunError(f"no plan of a suite {suite!r} in {root}; {hint}")


def _dry_run(rows: Sequence[JobStatus]) -> str:
    """The jobs with state, run folder and command."""
    table = align([["job", "state", "run"], *([row.job.name, row.state, row.job.run_id] for row in rows)])
    commands = "\n".join(row.job.command for row in rows)
    return f"{table}\n\n{_summary(rows)}\n\n{commands}\n"


def _table(rows: Sequence[JobStatus]) -> str:
    header = ["job", "state", "epoch", "val DSC %", "time", "left"]
    body = [
        [
            row.job.name,
            row.state + (f" ({row.attempts})" if row.attempts > 1 else ""),
            f"{row.epoch}/{row.job.epochs or '?'}",
            "-" if row.best is None else f"{100 * row.best:.2f}",
            _duration(row.seconds) if row.attempts else "-",
            "-" if row.left is None else _duration(row.left),
        ]
        for row in rows
    ]
    return align([header, *body], left=2)


def _summary(rows: Sequence[JobStatus]) -> str:
    """One line: how many jobs are in which state, and when they end."""
    left = seconds_left(rows)
    states = ", ".join(f"{number} {state}" for state, number in count(rows).items())
    if left is None:
        return f"{len(rows)} jobs: {states}"
    end = time.strftime("%a %H:%M", time.localtime(time.time() + left))
    return f"{len(rows)} jobs: {states}; about {_duration(left)} left, until {end}"


def _details(rows: Sequence[JobStatus]) -> str:
    """Of every job that did not finish: why, the last lines of its log and its command."""
    lines = []
    for row in rows:
        if row.state in ("failed", "interrupted"):
            lines += ["", f"{row.job.name}: {row.state}: {row.reason}"]
            lines += [f"  | {line}" for line in row.last_lines]
            lines.append(f"  {row.job.command}")
    return "".join(f"{line}\n" for line in lines)


def _print_leaderboard(plan: Plan, rows: Sequence[JobStatus]) -> None:
    """Print the tables of the finished runs, one set per protocol."""
    folders = [plan.run_folder(row.job).path for row in rows if row.state == "done"]
    if not folders:
        return
    from madgnet_bench.bench.render import to_text  # pandas, which status does without
    from madgnet_bench.bench.store import load_runs
    from madgnet_bench.bench.tables import build_tables

    try:
        store = load_runs(folders)
        for protocol in sorted({cell.protocol for one in store.runs for cell in one.cells}):
            sys.stdout.write("\n" + to_text(build_tables(store.runs, protocol=protocol)))
    except RunError as error:  # the jobs are done all the same
        sys.stdout.write(f"\nNo tables: {error}\n")
        return
    sys.stdout.write("".join(f"{line}\n" for line in store.remarks()))


def _duration(seconds: float) -> str:
    """A time as people say it.

    >>> _duration(42.4), _duration(754), _duration(8000)
    ('42 s', '13 min', '2 h 13 min')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _seconds(text: str) -> float:
    """Read a duration such as 90s, 30m, 2h or 1.5d."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 30m, 2h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _add_root(parser: argparse.ArgumentParser) -> None:
    help_text = "folder of all runs (default: runs)"
    parser.add_argument("--root", type=Path, default=Path("runs"), metavar="DIR", help=help_text)


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="madgnet-bench run",
        description=(
            "Run the jobs of a suite that are not done: one per GPU, or several at once on the processor, or on a cluster. All "
            "jobs are checked before the first starts. Ctrl-C stops them; the same command again goes on where they were."
        ),
    )
    parser.add_argument("suite", metavar="SUITE.yaml", help="a suite file, such as those in benchmarks/")
    parser.add_argument("--dry-run", action="store_true", help="check and print the jobs with their commands; start nothing")
    where = "where jobs run: child processes here, or a cluster of SLURM or Ray (default: local)"
    seeds = "run these seeds instead of the suite's"
    parser.add_argument("--seeds", nargs="+", type=_natural, metavar="N", help=seeds)
    parser.add_argument("--launcher", choices=["local", "slurm", "ray"], default="local", help=where)
    keys = (
        "what a job asks of SLURM: time (minutes), cpus, mem_gb (both per device), gpu (a type), partition, account, qos, "
        "constraint, reservation, nodelist, exclude, wckey, at_once, requeues, and setup='LINE OF SHELL' (several)"
    )
    parser.add_argument("--slurm", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=keys)
    keys = (
        "address of a Ray cluster (auto, HOST:PORT, ray://HOST:PORT; without, one is started here), cpus (per device), gpus (0 "
        "to 1: how much of one a job takes), temp (folder for the files of one started here)"
    )
    parser.add_argument("--ray", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=keys)
    parser.add_argument("--slots", type=_positive, metavar="N", help="jobs at once (default: one per GPU, or per four cores)")
    parser.add_argument("--retries", type=_natural, default=0, metavar="N", help="start a job that failed again, up to N times")
    parser.add_argument(
        "--time-limit", type=_seconds, metavar="T", help="stop a job that has run for this time, such as 90s, 30m or 2h"
    )
    oom = "start a job that ran out of memory again with batches in half, gradients accumulated; recorded as a deviation"
    parser.add_argument("--halve-batch-on-oom", action="store_true", help=oom)
    _add_root(parser)
    return parser


def _status_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="madgnet-bench status", description="Show how far the jobs of a suite are.")
    parser.add_argument("suite", metavar="SUITE", help="its file, its name, or its folder of runs")
    parser.add_argument("--lines", type=_natural, default=5, metavar="N", help="last log lines per failed job (default: 5)")
    _add_root(parser)
    return parser
