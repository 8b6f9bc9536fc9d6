"""Plans: every job of a suite resolved and validated before the first one starts.

One child process reads the arguments of all jobs with the parser of `madgnet-bench fit`, lists their data sets and answers,
per job, with the run folder that it will write, or with what is wrong. It also answers with the files and folders that it read.
While those, the package and the suite are unchanged, the plan of an earlier time is taken.

A suite writes below ``<root>/<suite>/``::

    <run_id>/          run folders, see `madgnet_bench.records`
    .jobs/plan.json    the plan
    .jobs/<key>/       what became of each job, see `madgnet_bench.bench.ledger`
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import madgnet_bench
from madgnet_bench.bench.suite import Suite
from madgnet_bench.errors import BenchError, RunError
from madgnet_bench.records import SCHEMA_VERSION, RunFolder, write_json

__all__ = ["PLANNER", "Plan", "PlanErrors", "PlannedJob", "make_plan", "read_plan", "stat_of"]

PLANNER = (sys.executable, "-m", "madgnet_bench.cli.planning")
"""The command that resolves jobs; it is given a file with the question and one for the answer."""

_PACKAGES = ("torch", "lightning", "jsonargparse")
_ENVIRONMENT = ("MADGNET_BENCH_DATA", "PYTHONPATH")


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job that can start.

    Attributes:
        name: Names of its cells.
        key: Its key in the suite; names the folder of its attempts.
        arguments: What follows ``madgnet-bench fit``, relative to the working folder of the plan.
        run_id: Name of the run folder that it writes.
        epochs: Epochs that it trains; None where it is limited otherwise.
        devices: Devices that it trains on at once.
        accelerator: As configured, such as ``auto`` or ``cpu``.
    """

    name: str
    key: str
    arguments: tuple[str, ...] = field(hash=False)
    run_id: str
    epochs: int | None
    devices: int
    accelerator: str

    @property
    def command(self) -> str:
        """The line for a shell that runs this job alone."""
        return f"madgnet-bench fit {shlex.join(self.arguments)}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of a suite, all of which can start.

    Attributes:
        suite: Name of the suite.
        root: Folder of all runs.
        jobs: In the order of the suite.
    """

    suite: str
    root: Path
    jobs: tuple[PlannedJob, ...]

    @property
    def folder(self) -> Path:
        """Where the suite's runs lie."""
        return self.root / self.suite

    def run_folder(self, job: PlannedJob) -> RunFolder:
        """What a job writes."""
        return RunFolder(self.folder / job.run_id)

    def job_path(self, job: PlannedJob) -> Path:
        """Where the attempts at a job are recorded."""
        return self.folder / ".jobs" / job.key


class PlanErrors(BenchError):
    """Everything that is wrong with the jobs of a suite, collected and raised once.

    Args:
        suite: The suite file.
        jobs: Number of jobs in the suite.
        problems: What is wrong, by name of the job; at least one.
    """

    def __init__(self, suite: Path, jobs: int, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        alike: dict[str, list[str]] = {}
        for name, problem in problems.items():
            alike.setdefault(problem, []).append(name)
        lines = [f"{suite}: {len(problems)} of {jobs} jobs cannot run; nothing was started."]
        width = max(len(name) for name in ("job", *(names[0] for names in alike.values())))
        lines.append(f"  {'job':<{width}}  problem")
        for problem, names in alike.items():
            rest = textwrap.wrap(f"likewise {', '.join(names[1:])}", 100, break_on_hyphens=False) if names[1:] else []
            shown = itertools.zip_longest(names[:1], [*problem.splitlines(), *rest], fillvalue="")
            lines += [f"  {name:<{width}}  {text}" for name, text in shown]
        super().__init__("\n".join(lines))


def make_plan(suite: Suite, root: Path, *, planner: Sequence[str] = PLANNER, keep: bool = True) -> Plan:
    """Plan a suite, or take the plan of an earlier time where nothing that it depends on has changed.

    Args:
        suite: The suite.
        root: Folder of all runs.
        planner: The command that resolves jobs.
        keep: Write the plan, for those who ask later, such as `read_plan`, also where there is an earlier one.

    Raises:
        PlanErrors: A job names an unknown key, class, file or data set, or two jobs lead to one run; nothing is written.
        RunError: The planner itself failed.
    """
    question = _question(suite, root)
    kept = _read(root / suite.name)
    if kept is not None and kept["question"] == question and _unchanged(kept["read"]):
        return _plan(suite.name, root, kept["jobs"])
    answer = _ask(planner, question)
    jobs, problems = [], {}
    for job, resolved in zip(suite.jobs(), answer["jobs"], strict=True):
        if "problem" in resolved:
            problems[job.name] = resolved["problem"]
        else:
            arguments = _arguments(job.arguments, root)
            jobs.append(PlannedJob(name=job.name, key=job.key, **{**resolved, "arguments": arguments}))
    problems |= _duplicates(jobs)
    if problems:
        in_order = {job.name: problems[job.name] for job in suite.jobs() if job.name in problems}
        raise PlanErrors(suite.path, len(suite.jobs()), in_order)
    content = {"schema_version": SCHEMA_VERSION, "question": question, "read": answer["read"]}
    if keep or kept is None:
        write_json(_file(root / suite.name), {**content, "jobs": [asdict(job) for job in jobs]})
    return Plan(suite=suite.name, root=root, jobs=tuple(jobs))


def read_plan(folder: Path) -> Plan:
    """Read the plan that was made last for the suite that writes to ``folder``.

    Raises:
        RunError: There is none.
    """
    kept = _read(folder)
    if kept is None:
        raise RunError(f"{folder}: no plan of a suite; `madgnet-bench run SUITE.yaml` makes one.")
    return _plan(folder.name, folder.parent, kept["jobs"])


def stat_of(path: str) -> list[int] | None:
    """What changes when a file or the list of files in a folder does; None for what is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size]


def _file(folder: Path) -> Path:
    return folder / ".jobs" / "plan.json"


def _read(folder: Path) -> dict[str, Any] | None:
    """The kept plan; None where there is none that this version reads."""
    try:
        kept = json.loads(_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and kept.get("schema_version") == SCHEMA_VERSION else None


def _plan(name: str, root: Path, jobs: Iterable[Mapping[str, Any]]) -> Plan:
    planned = (PlannedJob(**{**job, "arguments": tuple(job["arguments"])}) for job in jobs)
    return Plan(suite=name, root=root, jobs=tuple(planned))


def _arguments(arguments: Sequence[str], root: Path) -> tuple[str, ...]:
    """The arguments of a job that writes below ``root``."""
    return (*arguments, *(() if root == Path("runs") else ("--run.root", str(root))))


def _question(suite: Suite, root: Path) -> dict[str, Any]:
    """All that the planner is asked, and what its answer depends on but for the files that it reads."""
    home = Path(madgnet_bench.__file__).parent
    sources = {str(file.relative_to(home)): stat_of(str(file)) for file in sorted(home.rglob("*.py"))}
    return {
        "folder": os.getcwd(),
        "environment": {name: os.environ.get(name) for name in _ENVIRONMENT},
        "versions": {name: metadata.version(name) for name in _PACKAGES} | {"madgnet_bench": madgnet_bench.__version__},
        "sources": sources,
        "runs": str(root / suite.name),
        "jobs": [[job.name, job.key, list(_arguments(job.arguments, root))] for job in suite.jobs()],
    }


def _unchanged(read: Mapping[str, list[int] | None]) -> bool:
    return all(stat_of(path) == before for path, before in read.items())


def _ask(planner: Sequence[str], question: Mapping[str, Any]) -> dict[str, Any]:
    """Run the planner.

    Raises:
        RunError: It failed; the message holds the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "question.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(question), encoding="utf-8")
        done = subprocess.run([*planner, str(asked), str(answered)], capture_output=True, text=True, check=False)
        if done.returncode or not answered.is_file():
            shown = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
            raise RunError(f"the jobs could not be planned: the planner ended with {done.returncode}.\n{shown}")
        answer: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return answer


def _duplicates(jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Jobs that would write the run folder of an earlier one."""
    first: dict[str, str] = {}
    problems = {}
    for job in jobs:
        other = first.setdefault(job.run_id, job.name)
        if other != job.name:
            problems[job.name] = f"resolves to the same experiment as {other}; remove one, or let them differ."
    return problems
