"""Runs the jobs of a plan: starts what is not done, watches it, tries again, and stops cleanly.

The runner keeps nothing that another could not read from files: when it is killed, the next one goes on. Each runner gives
every job one attempt and as many more as it has retries; what another runner has tried meanwhile counts, too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from madgnet_bench.bench.launch import Handle, Launcher, Task
from madgnet_bench.bench.ledger import Attempt, JobFolder, State, state_of
from madgnet_bench.bench.locks import unlock
from madgnet_bench.bench.plan import Plan, PlannedJob
from madgnet_bench.errors import RunError

__all__ = ["FIT", "Policy", "Runner"]

FIT = (sys.executable, "-m", "madgnet_bench", "fit")
"""The command that a job's arguments are given to."""

_POLL = 0.05
"""Seconds between two looks at the running jobs."""

_SEARCH = 1.0
"""Seconds after which to look again for jobs and slots that others held, where none of the own jobs ended."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a runner does about faults.

    Attributes:
        retries: How often a job that failed is started again.
        time_limit: Seconds that an attempt may take; None without limit.
        halve_batch: Whether a job that ran out of memory is started again with its batches cut into twice as many parts, whose
            gradients are accumulated. Such attempts do not count as retries.
    """

    retries: int = 0
    time_limit: float | None = None
    halve_batch: bool = False


@dataclass
class _Active:
    """A job that this runner has started."""

    job: PlannedJob
    folder: JobFolder
    handle: Handle
    lock: int
    started: float
    ending: tuple[str, str] | None = None
    """Outcome and reason of a job that this runner has told to end."""


class Runner:
    """Runs a plan once.

    Args:
        plan: The jobs.
        launcher: Where they are started.
        policy: What is done about faults.
        fit: The command that a job's arguments are given to.
        tell: Called with a job and what happened to it, in words.
        tick: Called between two looks at the running jobs, several times a second.

    Raises:
        RunError: A job needs more devices than the launcher has.
    """

    def __init__(
        self,
        plan: Plan,
        launcher: Launcher,
        *,
        policy: Policy | None = None,
        fit: Sequence[str] = FIT,
        tell: Callable[[PlannedJob, str], None] = lambda job, event: None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._policy = policy or Policy()
        self._fit = tuple(fit)
        self._tell = tell
        self._tick = tick
        self._active: list[_Active] = []
        self._stopping = threading.Event()
        self._began = time.time()
        for job in plan.jobs:
            refusal = launcher.refusal(job.devices)
            if refusal is not None:
                raise RunError(f"{job.name} {refusal} Nothing was started.")

    def stop(self) -> None:
        """Make `run` end the running jobs and return; the second time, kill them. A handler of signals may call it."""
        if self._stopping.is_set():
            for active in self._active:
                self._launcher.cancel(active.handle)
        self._stopping.set()

    def run(self) -> dict[str, State]:
        """Run until every job is done or given up, or `stop` is called.

        Returns:
            The state of every job, by its name.
        """
        waiting = [job for job in self._plan.jobs if self._state(job) != "done"]
        next_look = 0.0
        while (waiting or self._active) and not self._stopping.is_set():
            ended = self._reap()
            waiting += [job for job in ended if self._state(job) != "done"]
            if ended or time.monotonic() >= next_look:
                waiting, next_look = self._start(waiting), time.monotonic() + _SEARCH
            self._tick()
            self._stopping.wait(_POLL)
        self._end_all()
        return {job.name: self._state(job) for job in self._plan.jobs}

    def _state(self, job: PlannedJob) -> State:
        return state_of(self._plan.run_folder(job), JobFolder(self._plan.job_path(job)))

    def _start(self, waiting: Sequence[PlannedJob]) -> list[PlannedJob]:
        """Start jobs in order until there is no room; return those that still wait."""
        left: list[PlannedJob] = []
        for position, job in enumerate(waiting):
            folder = JobFolder(self._plan.job_path(job))
            lock = folder.claim()
            if lock is None:  # runs already: under another runner, or it has outlived one
                left.append(job)
                continue
            kept = False
            try:
                if self._is_over(job, folder):
                    continue
                active = self._submit(job, folder, lock)
                if active is None:  # a job behind it may need less room, but then this one might never get its own
                    return [*left, *waiting[position:]]
                kept = True
                self._active.append(active)
            finally:
                if not kept:
                    unlock(lock)
        return left

    def _is_over(self, job: PlannedJob, folder: JobFolder) -> bool:
        """Whether a job is done, or has failed as often as it may since this runner began."""
        attempts = folder.attempts()
        if self._plan.run_folder(job).state == "done":
            if attempts and not attempts[-1].outcome:  # it outlived its runner
                ended = self._plan.run_folder(job).result_file.stat().st_mtime
                folder.end(job.name, job.command, outcome="done", ended=round(ended, 2))
            self._tell(job, "done")
            return True
        failed = [one for one in attempts if one.outcome == "failed" and (one.ended or 0) >= self._began]
        if not failed or self._parts(attempts) > attempts[-1].parts:
            return False
        return len([one for one in failed if one.parts == attempts[-1].parts]) > self._policy.retries

    def _parts(self, attempts: Sequence[Attempt]) -> int:
        """Into how many parts the next attempt cuts its batches."""
        if not attempts:
            return 1
        double = self._policy.halve_batch and attempts[-1].outcome == "failed" and attempts[-1].out_of_memory
        return attempts[-1].parts * (2 if double else 1)

    def _submit(self, job: PlannedJob, folder: JobFolder, lock: int) -> _Active | None:
        """Start an attempt and record it; None where there is no room."""
        earlier = folder.attempts()
        parts = self._parts(earlier)
        words = (*self._fit, *job.arguments, *(("--run.batch_parts", str(parts)) if parts > 1 else ()))
        log_start = folder.log_file.stat().st_size if folder.log_file.is_file() else 0
        handle = self._launcher.submit(Task(words=words, log=folder.log_file, devices=job.devices, lock=lock))
        if handle is None:
            return None
        attempt = Attempt(
            started=round(time.time(), 2),
            where=handle.where,
            epochs_before=len(self._plan.run_folder(job).read_history()),
            log_start=log_start,
            parts=parts,
        )
        folder.begin(job.name, job.command, attempt)
        again = f", attempt {len(earlier) + 1}" if earlier else ""
        self._tell(job, f"started{again} on {handle.where}" + (f", batches in {parts} parts" if parts > 1 else ""))
        return _Active(job, folder, handle, lock, time.monotonic())

    def _reap(self) -> list[PlannedJob]:
        """Record what has ended, and end what takes too long; return the jobs whose attempt ended."""
        ended = []
        for active in list(self._active):
            code = self._launcher.poll(active.handle)
            if code is not None:
                self._active.remove(active)
                self._record(active, code)
                unlock(active.lock)
                ended.append(active.job)
            elif self._policy.time_limit is not None and active.ending is None:
                if time.monotonic() - active.started > self._policy.time_limit:
                    active.ending = ("failed", f"took longer than the time limit of {self._policy.time_limit:g} s")
                    self._launcher.cancel(active.handle)
        return ended

    def _record(self, active: _Active, code: int) -> None:
        """Write down how an attempt ended."""
        job, folder = active.job, active.folder
        memory = False
        if self._plan.run_folder(job).state == "done":
            outcome, reason = "done", ""
        elif active.ending is not None:
            outcome, reason = active.ending
        else:
            outcome = "failed"
            reason, memory = folder.explain(folder.attempts()[-1], code)
        folder.end(job.name, job.command, outcome=outcome, reason=reason, out_of_memory=memory)
        self._tell(job, f"{outcome}: {reason}" if reason else outcome)

    def _end_all(self) -> None:
        """Ask the running jobs to end, and wait until they have."""
        for active in self._active:
            active.ending = active.ending or ("stopped", "its runner was stopped")
            self._launcher.cancel(active.handle)
        while self._active:
            self._reap()
            self._tick()
            time.sleep(_POLL)
