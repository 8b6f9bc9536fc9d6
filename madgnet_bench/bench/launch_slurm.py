"""Starts the jobs of a suite on a SLURM cluster, through submitit.

Jobs that need the same resources are submitted together, as one array. On the node, a small process of ours starts the job's
command and gives its exit status back in a file. Before the time limit it ends the command and puts the job in the queue again,
where it goes on from its last checkpoint. How jobs stand is asked with one `squeue` for all, so that a cluster need not keep
accounts.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madgnet_bench.bench.launch import Handle, Task, task_environment
from madgnet_bench.bench.ledger import JobFolder
from madgnet_bench.errors import ConfigError, RunError, nearest

if TYPE_CHECKING:
    import submitit

__all__ = ["SlurmLauncher", "SlurmOptions", "SlurmTask"]

_ACTIVE = frozenset(
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED SIGNALING RESIZING STAGE_OUT SPECIAL_EXIT"
    " REQUEUED REQUEUE_FED REQUEUE_HOLD RESV_DEL_HOLD".split()
)
"""States of a job that has not ended for good."""

_UNCLEAR = ("COMPLETED", "FAILED", "UNKNOWN")
"""States that do not tell why there is no result."""

_NOTICE = 90
"""Seconds before the time limit at which SLURM tells a job of it."""

_LATE = 8.0
"""For how many seconds the result of an ended job may be missing: file systems of networks show files late, and a job that is
put in the queue again counts as failed for a moment."""

_STEP = re.compile(r"SLURM_(NTASKS|NPROCS|PROCID|LOCALID|NODEID|GTIDS|TASKS_PER_NODE|TASK_PID|STEP.*)")
"""What tells a process that srun has started it as one of several tasks."""


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What is asked of the cluster for each job.

    Attributes:
        time: Minutes until a job is stopped and put in the queue again.
        cpus: Cores per device.
        mem_gb: Memory per device, in GB; None for the cluster's default.
        gpu: Type of the GPUs, as the cluster calls it; empty for any.
        partition: As `sbatch` has it, and so are the next seven; empty for the cluster's default.
        account: See `partition`.
        qos: See `partition`.
        constraint: See `partition`.
        reservation: See `partition`.
        nodelist: See `partition`.
        exclude: See `partition`.
        wckey: See `partition`.
        at_once: Most jobs of an array that run at once.
        requeues: How often a job may reach its time limit.
        setup: Lines of shell that run before a job, such as ``module load python``.
    """

    time: int = 240
    cpus: int = 4
    mem_gb: int | None = None
    gpu: str = ""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    nodelist: str = ""
    exclude: str = ""
    wckey: str = ""
    at_once: int = 256
    requeues: int = 20
    setup: tuple[str, ...] = ()

    @classmethod
    def read(cls, words: Sequence[str]) -> SlurmOptions:
        """Read words such as ``time=240``; ``setup=`` may stand several times.

        Raises:
            ConfigError: A word is no such pair, its key unknown, or its value no whole number where one is needed.
        """
        types = {one.name: str(one.type) for one in fields(cls)}
        settings: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not value.strip():
                raise ConfigError(f"--slurm {word!r}: write KEY=VALUE, such as time=240 for minutes.")
            if key not in types:
                raise ConfigError(f"--slurm {word!r}: unknown key {key!r}; {nearest(key, types)}")
            if key == "setup":
                settings[key] = (*settings.get(key, ()), value)
            elif "int" in types[key]:
                if not value.isdigit() or int(value) < 1:
                    raise ConfigError(f"--slurm {word!r}: {value!r} is not a whole number of at least 1.")
                settings[key] = int(value)
            else:
                settings[key] = value
        return cls(**settings)

    def parameters(self, devices: int, *, gpu: bool) -> dict[str, Any]:
        """What submitit is given for a job on so many devices."""
        cpus = self.cpus * devices
        chosen = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint", "nodelist", "exclude")}
        chosen["wckey"] = self.wckey
        further: dict[str, Any] = {"requeue": True, **({"reservation": self.reservation} if self.reservation else {})}
        if gpu:
            chosen["gres"] = ":".join(["gpu", *([self.gpu] if self.gpu else []), str(devices)])
        if self.mem_gb is not None:
            chosen["mem"] = f"{self.mem_gb * devices}GB"
        return {
            "job_name": "madgnet-bench",
            "time": self.time,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": cpus,
            "srun_args": [f"--cpus-per-task={cpus}"],  # since SLURM 22.05 srun does not take it from sbatch
            "signal_delay_s": _NOTICE,
            "stderr_to_stdout": True,
            "array_parallelism": self.at_once,
            "additional_parameters": further,
            **({"setup": list(self.setup)} if self.setup else {}),
            **{name: value for name, value in chosen.items() if value},
        }


@dataclass
class SlurmTask:
    """What runs on the node: submitit unpickles and calls it there.

    Attributes:
        words: The command.
        log: File to which its output is appended.
        record: Folder of the job's record.
        threads: Threads of each process.
        patience: Seconds that the record may lag behind the submission.
        grace: Seconds that the command has to end before it is killed.
    """

    words: tuple[str, ...]
    log: Path
    record: Path
    threads: int
    patience: float = 180.0
    grace: float = 60.0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> int:
        """Run the command; returns its exit status, negative where a signal ended it."""
        import submitit

        here = submitit.JobEnvironment()
        here.paths.result_pickle.unlink(missing_ok=True)  # of a time before it was put in the queue again
        if not self._is_on_record(f"slurm:{here.job_id}"):
            sys.stdout.write(f"{self.record} does not name job {here.job_id} as the attempt that runs, so that it must not.\n")
            return 1
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._say(f"job {here.job_id} begins on {socket.gethostname()}" + (f", GPU {gpus}" if gpus else ""))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=node_environment(self.threads),
                start_new_session=True,
                preexec_fn=_ignore_notice,
            )
        try:
            while not self._has_ended():
                time.sleep(0.1)
        finally:
            self._signal(signal.SIGKILL)  # what is left of its group
        return self._process.wait()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """End the command and tell submitit what to put in the queue; submitit calls it on the notice, in the main thread."""
        from submitit.helpers import DelayedSubmission

        deadline = time.monotonic() + self.grace
        self._signal(signal.SIGTERM)
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)
        self._say("requeued before the time limit, or to make room")
        return DelayedSubmission(replace(self))

    def _is_on_record(self, where: str) -> bool:
        """Whether the record names this job as the attempt that runs, which the runner writes right after it has submitted."""
        deadline = time.monotonic() + self.patience
        while True:
            attempts = JobFolder(self.record).attempts()
            named = [attempt.where.split(" ")[0] == where for attempt in attempts]
            if any(named):
                return named[-1] and not attempts[-1].outcome
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)

    def _has_ended(self) -> bool:
        """Whether the command has ended; it is not reaped, and a handler may ask in the middle of another asking."""
        if self._process is None or self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _say(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"slurm: {text}\n")


@dataclass(eq=False)
class _Job:
    """A job of the cluster."""

    id: str
    node: str = ""
    seconds: float = 0.0
    earlier: float = 0.0
    """Seconds that it ran before it was put in the queue again."""
    code: int | None = None
    late: float | None = None
    """Since when it is ended without a result, by the clock of this process."""
    asked: int = 0
    """How often it was asked to end."""

    @property
    def where(self) -> str:
        """Its number, as `squeue` has it, and the node once that is known."""
        return f"slurm:{self.id}" + (f" on {self.node}" if self.node else "")


@dataclass(frozen=True)
class _Row:
    """What `squeue` knows of a job."""

    state: str
    seconds: float
    node: str


class SlurmLauncher:
    """Submits tasks to a SLURM cluster.

    Args:
        options: What is asked for.
        folder: Where submitit keeps its files; nodes must see it, and all launchers of a suite must have the same.
        interval: Seconds between two questions to the cluster.

    Raises:
        RunError: There is no SLURM here, or no submitit.
    """

    batch = 500
    queues = True

    def __init__(self, options: SlurmOptions, folder: Path, *, interval: float = 2.0) -> None:
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise RunError("the slurm launcher needs submitit: pip install 'madgnet-bench[slurm]'") from None
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
        if missing:
            raise RunError(
                f"no SLURM here: {missing[0]} is not found. Start the runner where jobs are submitted, such as a login node."
            )
        self._options = options
        self._folder = folder.absolute()
        self._interval = interval
        self._jobs: list[_Job] = []
        self._ending: list[_Job] = []
        self._rows: dict[str, _Row] = {}
        self._asked = float("-inf")

    def refusal(self, devices: int) -> None:
        """See `Launcher`: the cluster itself tells, when a job is submitted."""

    def submit(self, tasks: Sequence[Task]) -> list[_Job]:
        """See `Launcher`."""
        started: list[_Job] = []
        for (devices, gpu), alike in groupby(tasks, key=lambda task: (task.devices, task.gpu)):
            try:
                started += self._submit(list(alike), devices, gpu)
            except RunError:
                if not started:
                    raise
                break  # said when the rest is submitted again
        return started

    def adopt(self, where: str) -> _Job | None:
        """See `Launcher`.

        Raises:
            RunError: The cluster does not answer.
        """
        found = re.match(r"slurm:(\d+(?:_\d+)?)\b", where)
        if found is None:
            return None
        if time.monotonic() - self._asked > self._interval:
            problem = self._ask()
            if problem:
                raise RunError(f"the SLURM cluster does not tell which jobs there are ({problem}); nothing was submitted.")
        row = self._rows.get(found[1])
        if row is None or row.state not in _ACTIVE:
            return None
        job = _Job(found[1], node=row.node)
        self._jobs.append(job)
        return job

    def poll(self, handle: Handle) -> int | None:
        """See `Launcher`."""
        assert isinstance(handle, _Job)
        self._cancel_now()
        if handle.code is None and time.monotonic() - self._asked > self._interval and not self._ask():
            for job in list(self._jobs):
                self._look_at(job)
        return handle.code

    def running_seconds(self, handle: Handle) -> float:
        """See `Launcher`; without what a job ran under an earlier runner before it was put in the queue again."""
        assert isinstance(handle, _Job)
        return handle.earlier + handle.seconds

    def cancel(self, handle: Handle) -> None:
        """See `Launcher`: the time of grace is the cluster's KillWait. The next `poll` asks for all at once."""
        assert isinstance(handle, _Job)
        handle.asked += 1
        self._ending.append(handle)

    def _submit(self, tasks: Sequence[Task], devices: int, gpu: bool) -> list[_Job]:
        """Submit tasks that need the same, as one array."""
        import submitit

        executor = submitit.SlurmExecutor(folder=self._folder, max_num_timeout=self._options.requeues)
        executor.update_parameters(**self._options.parameters(devices, gpu=gpu))
        functions = [
            SlurmTask(words=task.words, log=task.log.absolute(), record=task.record.absolute(), threads=self._options.cpus)
            for task in tasks
        ]
        try:
            submitted = executor.submit_array(functions)
        except submitit.core.utils.UncompletedJobError as error:
            wanted = f"on {devices} GPU (trainer.accelerator: cpu asks for none)" if gpu else "without GPU"
            raise RunError(f"sbatch refuses jobs {wanted}: {str(error).strip()}") from None
        jobs = [_Job(job.job_id) for job in submitted]
        self._jobs += jobs
        return jobs

    def _ask(self) -> str:
        """Ask the cluster for the state of all own jobs; returns why it did not answer."""
        self._asked = time.monotonic()
        words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%M|%N"]
        done = _run(words)
        if done.returncode:
            return done.stderr.strip() or f"squeue ended with {done.returncode}"
        rows = (line.split("|") for line in done.stdout.splitlines() if line.count("|") == 3)
        self._rows = {number: _Row(state, _seconds(used), node) for number, state, used, node in rows}
        return ""

    def _look_at(self, job: _Job) -> None:
        """Take in what the cluster said of a job."""
        row = self._rows.get(job.id)
        if row is not None:
            seconds = max(row.seconds, 0.01) if row.state == "RUNNING" else row.seconds
            if seconds < job.seconds:
                job.earlier += job.seconds
            job.seconds, job.node = seconds, row.node or job.node
            if row.state in _ACTIVE:
                job.late = None
                return
        state = row.state if row is not None else _last_state(job.id)
        result = self._result(job)
        if result is None and state in _UNCLEAR:
            job.late = job.late or time.monotonic()
            if time.monotonic() - job.late < _LATE:
                return
        self._jobs.remove(job)
        job.code = self._close(job, state, result)

    def _paths(self, job: _Job) -> submitit.core.utils.JobPaths:
        from submitit.core.utils import JobPaths

        return JobPaths(self._folder, job_id=job.id)

    def _result(self, job: _Job) -> tuple[str, Any] | None:
        """What submitit wrote when the job ended: ``success`` and the exit status, or ``error`` and a traceback."""
        try:
            result: tuple[str, Any] = pickle.loads(self._paths(job).result_pickle.read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return result

    def _close(self, job: _Job, state: str, result: tuple[str, Any] | None) -> int:
        """Write to the log how a job ended that did not end by itself; returns its exit status."""
        succeeded = result is not None and result[0] == "success"
        if result is not None and succeeded and state in ("COMPLETED", "UNKNOWN"):
            return int(result[1])
        with suppress(OSError, EOFError, pickle.UnpicklingError, AttributeError):
            log: Path = pickle.loads(self._paths(job).submitted_pickle.read_bytes()).function.log
            with log.open("a", encoding="utf-8") as stream:
                if not succeeded and state in _UNCLEAR:
                    stream.writelines(f"{line}\n" for line in self._last_words(job, result))
                stream.write(f"slurm: {state}, job {job.id}" + (f" on {job.node}" if job.node else "") + "\n")
        return int(result[1]) or 1 if result is not None and succeeded else 1

    def _last_words(self, job: _Job, result: tuple[str, Any] | None) -> list[str]:
        """The end of the traceback, or of what was printed around the command."""
        if result is not None:
            return str(result[1]).strip().splitlines()[-3:]
        try:
            lines = self._paths(job).stdout.read_text(errors="replace").strip().splitlines()
        except OSError:
            return []
        return [line for line in lines if not line.startswith("submitit ")][-20:]

    def _cancel_now(self) -> None:
        """Ask for the end of the jobs that are to end."""
        ending, self._ending = [job for job in self._ending if job.code is None], []
        again = {job.id for job in ending if job.asked > 1}
        for words, numbers in (
            (["scancel"], {job.id for job in ending} - again),
            (["scancel", "--full", "--signal=KILL"], again),
            (["scancel"], again),  # those in the queue
        ):
            ordered = sorted(numbers)
            for first in range(0, len(ordered), 200):
                _run([*words, *ordered[first : first + 200]])


def node_environment(threads: int) -> Mapping[str, str]:
    """The environment of the command on a node.

    Lightning takes what srun has set for a sign that srun starts all processes of a distributed training, and then starts none
    itself. A job of ours is one task of srun with all GPUs, in which Lightning has to start them, so these variables go.
    """
    return {name: value for name, value in task_environment(threads).items() if _STEP.fullmatch(name) is None}


def _ignore_notice() -> None:
    """SLURM sends its notice to all processes of a job; only the one of submitit is to hear it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM; one that does not answer counts as failed."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"{words[0]} did not answer within a minute")


def _last_state(number: str) -> str:
    """The state of a job that `squeue` no longer lists."""
    found = re.search(r"JobState=(\w+)", _run(["scontrol", "show", "job", number]).stdout)
    if found is None and shutil.which("sacct") is not None:
        found = re.search(r"(\w+)", _run(["sacct", "--noheader", "--allocations", "--format=State", f"--jobs={number}"]).stdout)
    return found[1] if found is not None else "UNKNOWN"


def _seconds(text: str) -> float:
    """Read a time as `squeue` writes it.

    >>> _seconds("0:07"), _seconds("1:02:03"), _seconds("1-00:00:10"), _seconds("INVALID")
    (7.0, 3723.0, 86410.0, 0.0)
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
