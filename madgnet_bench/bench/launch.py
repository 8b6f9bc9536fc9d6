"""Launchers start the processes of jobs: one interface, and the one for this machine.

A launcher for other machines hands tasks to a queue. No process there can inherit a lock from here, so that three things keep
a job from running twice: the runner adopts what an earlier one has submitted, a task that begins looks whether it still stands
on record (`Task.record`), and a training locks its run folder.

On this machine a launcher has slots: one per GPU, or parts of the processor. A slot is a lock file that the job's processes
inherit, so that what a killed runner left behind still takes its place, and several runners share the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from madgnet_bench.bench.locks import try_lock, unlock

__all__ = [
    "Handle",
    "Launcher",
    "LocalLauncher",
    "Slot",
    "Task",
    "cpu_slots",
    "gpu_slots",
    "task_environment",
    "visible_gpus",
]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a launcher starts.

    Attributes:
        words: The command.
        log: File to which its output is appended.
        record: Folder of the job's record, see `madgnet_bench.bench.ledger.JobFolder`. Once `Launcher.submit` has returned, the
            caller writes `Handle.where` there; what was in a queue runs only while that is the last word.
        devices: Devices that it needs at once.
        gpu: Whether these are to be GPUs where there are some.
        lock: Descriptor of a lock that lasts as long as the task: processes inherit it where they can, and the caller holds it
            until `Launcher.poll` has told the end.
    """

    words: tuple[str, ...]
    log: Path
    record: Path
    devices: int
    gpu: bool
    lock: int


class Handle(Protocol):
    """A task that was started."""

    @property
    def where(self) -> str:
        """Where it runs, for the record; from this an equal launcher can adopt it."""
        ...


class Launcher(Protocol):
    """Starts tasks and tells when they end. All calls return at once.

    Attributes:
        batch: How many tasks to hand over at once, where there are as many.
        queues: Whether tasks may wait after `submit`. Such a launcher writes a line to the log when one begins.
    """

    batch: int
    queues: bool

    def refusal(self, devices: int) -> str | None:
        """Why a task of so many devices can never start; None where it can."""
        ...

    def submit(self, tasks: Sequence[Task]) -> Sequence[Handle]:
        """Start tasks in order, as many as there is room for now.

        Returns:
            A handle of each that was started: of the first task, of the second, and so on.

        Raises:
            RunError: None could be started, and waiting does not help.
        """
        ...

    def adopt(self, where: str) -> Handle | None:
        """Take over what an earlier launcher has started; None where that has ended, or was started by one of another kind.

        Raises:
            RunError: It cannot be told now.
        """
        ...

    def poll(self, handle: Handle) -> int | None:
        """The exit status, negative where a signal ended it; None while it runs. Once told, all its processes are gone."""
        ...

    def running_seconds(self, handle: Handle) -> float:
        """How long a task has run so far, without the time that it waited; 0 before it has begun."""
        ...

    def cancel(self, handle: Handle) -> None:
        """Ask a task to end; one that does not within a time of grace, or is asked again, is killed. `poll` tells the end."""
        ...


@dataclass(frozen=True)
class Slot:
    """A place for one device of a job.

    Attributes:
        name: Names its lock file.
        gpu: What CUDA_VISIBLE_DEVICES calls the GPU; None for a part of the processor.
        threads: Threads of a process.
    """

    name: str
    gpu: str | None
    threads: int


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    slots: list[int]
    where: str
    started: float = field(default_factory=time.monotonic)
    deadline: float | None = None


class LocalLauncher:
    """Starts tasks as child processes, each in a process group of its own.

    Args:
        slots: At least one.
        folder: Where the lock files of the slots lie: launchers with the same folder share them.
        grace: Seconds between the request to end and the kill.
    """

    batch = 1
    queues = False

    def __init__(self, slots: Sequence[Slot], folder: Path, *, grace: float = 15.0) -> None:
        self._slots = list(slots)
        self._folder = folder
        self._grace = grace

    def refusal(self, devices: int) -> str | None:
        """See `Launcher`."""
        gpus = {slot.gpu for slot in self._slots}
        most = len(self._slots) if gpus == {None} else len(gpus)
        return None if devices <= most else f"needs {devices} devices at once, and there are {most} here."

    def submit(self, tasks: Sequence[Task]) -> list[_Process]:
        """See `Launcher`."""
        started: list[_Process] = []
        for task in tasks:
            process = self._start(task)
            if process is None:
                break
            started.append(process)
        return started

    def adopt(self, where: str) -> None:
        """See `Launcher`: who outlived its runner still holds its lock, and nobody but its parent can tell how it ends."""

    def running_seconds(self, handle: Handle) -> float:
        """See `Launcher`."""
        assert isinstance(handle, _Process)
        return time.monotonic() - handle.started

    def _start(self, task: Task) -> _Process | None:
        """Start one task; None where there is no room."""
        taken = self._take(task.devices)
        if taken is None:
            return None
        slots, locks = [slot for slot, _ in taken], [lock for _, lock in taken]
        with ExitStack() as undo:
            for lock in locks:
                undo.callback(unlock, lock)
            with task.log.open("ab") as log:
                process = subprocess.Popen(
                    task.words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=_environment(slots),
                    pass_fds=(task.lock, *locks),
                    start_new_session=True,
                )
            undo.pop_all()
        return _Process(process, locks, f"{socket.gethostname()}:{process.pid} {'+'.join(slot.name for slot in slots)}")

    def poll(self, handle: Handle) -> int | None:
        """See `Launcher`."""
        assert isinstance(handle, _Process)
        process = handle.process
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if handle.deadline is not None and time.monotonic() > handle.deadline:
                _signal(process, signal.SIGKILL)
            return None
        _signal(process, signal.SIGKILL)  # what is left of its group; the group's number is its own until wait() below
        code = process.wait()
        for lock in handle.slots:
            unlock(lock)
        return code

    def cancel(self, handle: Handle) -> None:
        """See `Launcher`."""
        assert isinstance(handle, _Process)
        again = handle.deadline is not None
        handle.deadline = time.monotonic() + (0 if again else self._grace)
        _signal(handle.process, signal.SIGKILL if again else signal.SIGTERM)

    def _take(self, devices: int) -> list[tuple[Slot, int]] | None:
        """Lock as many slots, on different GPUs; all or none."""
        taken: list[tuple[Slot, int]] = []
        for slot in self._slots:
            if len(taken) == devices:
                break
            if slot.gpu is not None and slot.gpu in [other.gpu for other, _ in taken]:
                continue
            path = self._folder / f"{socket.gethostname()}-{slot.name}.lock"
            lock = try_lock(path)
            if lock is not None:
                taken.append((slot, lock))
        if len(taken) == devices:
            return taken
        for _, lock in taken:
            unlock(lock)
        return None


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that jobs may use, as CUDA_VISIBLE_DEVICES calls them: those that it names where it is set, else all."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.split() if found.returncode == 0 else []


def gpu_slots(gpus: Sequence[str], number: int | None = None) -> list[Slot]:
    """One slot per GPU, or ``number`` of them in turn over the GPUs."""
    count = number or len(gpus)
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    return [Slot(f"gpu{gpus[i % len(gpus)]}.{i // len(gpus)}", gpus[i % len(gpus)], threads) for i in range(count)]


def cpu_slots(number: int | None = None) -> list[Slot]:
    """Parts of the processor: ``number`` of them, or one per four cores."""
    cores = len(os.sched_getaffinity(0))
    count = number or max(1, cores // 4)
    return [Slot(f"cpu{i}", None, max(1, cores // count)) for i in range(count)]


def task_environment(threads: int) -> dict[str, str]:
    """The environment of a task whose processes have so many threads each; a number that the user has set stays.

    A user's OMP_NUM_THREADS stands for all libraries: torch takes the number of MKL's threads over that of OpenMP's.
    """
    number = os.environ.get("OMP_NUM_THREADS", str(threads))
    return {**dict.fromkeys(_THREADS, number), **os.environ, "PYTHONUNBUFFERED": "1"}


def _environment(slots: Sequence[Slot]) -> dict[str, str]:
    """The environment of a task on some slots."""
    gpus = [slot.gpu for slot in slots if slot.gpu is not None]
    chosen = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    return {**task_environment(slots[0].threads), **chosen}


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
