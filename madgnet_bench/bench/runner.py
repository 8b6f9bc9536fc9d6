"""Runs the jobs of a plan: starts what is not done, watches it, tries again, and stops cleanly.

The runner keeps nothing that another could not read from files: when it is killed, the next one goes on. Each runner gives
every job one attempt and as many more as it has retries; what another runner has tried meanwhile counts, too. What an earlier
runner has put in a queue, or started on another machine, is taken over.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from madgnet_bench.bench.launch import Handle, Launcher, Task
from madgnet_bench.bench.ledger import Attempt, JobFolder, State, state_of
from madgnet_bench.bench.locks import is_locked, unlock
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
        time_limit: Seconds that an attempt may run, not counting what it waits in a queue; None without limit.
        halve_batch: Whether a job that ran out of memory is started again with its batches cut into twice as many parts, whose
            gradients are accumulated. Such attempts do not count as retries.
    """

    retries: int = 0
    time_limit: float | None = None
    halve_batch: bool = False


@dataclass
class _Active:
    """A job that this runner has started, or taken over."""

    job: PlannedJob
    folder: JobFolder
    handle: Handle
    lock: int
    queued: bool
    ending: tuple[str, str] | None = None
    """Outcome and reason of a job that this runner has told to end."""


@dataclass(frozen=True)
class _Claimed:
    """A job that is to be started, its lock held."""

    job: PlannedJob
    folder: JobFolder
    lock: int
    earlier: list[Attempt]


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
        self._refused = ""
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
        waiting = [job for job in self._plan.jobs if not self._is_settled(job)]
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

    def _is_settled(self, job: PlannedJob) -> bool:
        """Whether a job is done and so recorded; one that was done while no runner looked is not."""
        attempts = JobFolder(self._plan.job_path(job)).attempts()
        return self._plan.run_folder(job).state == "done" and not (attempts and not attempts[-1].outcome)

    def _start(self, waiting: Sequence[PlannedJob]) -> list[PlannedJob]:
        """Start jobs in order until there is no room; return those that still wait."""
        left: list[PlannedJob] = []
        rest = list(waiting)
        while rest:
            claimed: list[_Claimed] = []
            try:
                while rest and len(claimed) < self._launcher.batch:
                    job = rest.pop(0)
                    one = self._claim(job)
                    if isinstance(one, _Claimed):
                        claimed.append(one)
                    elif one:
                        left.append(job)
                started = self._submit(claimed)
            finally:
                kept = {active.lock for active in self._active}
                for one in claimed:
                    if one.lock not in kept:
                        unlock(one.lock)
            if len(started) < len(claimed):  # a job behind may need less room, but then these might never get their own
                return [*left, *(one.job for one in claimed[len(started) :]), *rest]
        return left

    def _claim(self, job: PlannedJob) -> _Claimed | bool:
        """Lock a job that is to be started; else whether it is to be looked at again."""
        folder = JobFolder(self._plan.job_path(job))
        lock = folder.claim()
        if lock is None:  # another runner has it, or it has outlived one
            return True
        kept = False
        try:
            if self._is_over(job, folder):
                return False
            attempts = folder.attempts()
            if attempts and not attempts[-1].outcome:
                handle = self._launcher.adopt(attempts[-1].where)
                if handle is not None:
                    kept = True
                    self._active.append(_Active(job, folder, handle, lock, attempts[-1].queued))
                    self._tell(job, f"taken over from an earlier runner: {handle.where}")
                    return False
            if is_locked(self._plan.run_folder(job).lock_file):  # it was started by hand, or runs on another machine
                return True
            kept = True
            return _Claimed(job, folder, lock, attempts)
        except RunError as error:
            self._put_up_with(error, job)
            return True
        finally:
            if not kept:
                unlock(lock)

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

    def _submit(self, claimed: Sequence[_Claimed]) -> list[_Active]:
        """Start attempts and record them; fewer where there is no room.

        Raises:
            RunError: The launcher refuses, and no other job runs whose end could change that.
        """
        tasks = []
        for one in claimed:
            parts = self._parts(one.earlier)
            words = (*self._fit, *one.job.arguments, *(("--run.batch_parts", str(parts)) if parts > 1 else ()))
            folder, job = one.folder, one.job
            gpu = job.accelerator not in ("cpu", "mps")
            tasks.append(
                Task(words=words, log=folder.log_file, record=folder.path, devices=job.devices, gpu=gpu, lock=one.lock)
            )
        sizes = [one.folder.log_size for one in claimed]
        try:
            handles = self._launcher.submit(tasks) if tasks else []
        except RunError as error:
            self._put_up_with(error, claimed[0].job)
            return []
        started = []
        for one, handle, size in zip(claimed, handles, sizes, strict=False):
            active = _Active(one.job, one.folder, handle, one.lock, self._launcher.queues)
            self._active.append(active)
            self._begin(active, one.earlier, size)
            started.append(active)
        return started

    def _put_up_with(self, error: RunError, job: PlannedJob) -> None:
        """Say what hinders a job, once; raise it where no other job runs whose end could change that."""
        if not self._active:
            raise error
        if str(error) != self._refused:
            self._refused = str(error)
            self._tell(job, f"not started for now: {error}")

    def _begin(self, active: _Active, earlier: Sequence[Attempt], log_start: int) -> None:
        """Record an attempt that was started."""
        job, parts = active.job, self._parts(earlier)
        attempt = Attempt(
            started=round(time.time(), 2),
            where=active.handle.where,
            epochs_before=len(self._plan.run_folder(job).read_history()),
            log_start=log_start,
            parts=parts,
            queued=active.queued,
        )
        active.folder.begin(job.name, job.command, attempt)
        again = f", attempt {len(earlier) + 1}" if earlier else ""
        how = f"{'queued' if active.queued else 'started'}{again}"
        self._tell(job, f"{how} on {active.handle.where}" + (f", batches in {parts} parts" if parts > 1 else ""))

    def _note_start(self, active: _Active, seconds: float) -> None:
        """Record that an attempt has left its queue."""
        if not active.queued or seconds <= 0:
            return
        active.queued = False
        started = round(time.time() - seconds, 2)
        active.folder.change(active.job.name, active.job.command, queued=False, started=started, where=active.handle.where)
        self._tell(active.job, f"started on {active.handle.where}")

    def _reap(self) -> list[PlannedJob]:
        """Record what has ended, and end what takes too long; return the jobs whose attempt ended."""
        ended = []
        for active in list(self._active):
            code = self._launcher.poll(active.handle)
            seconds = self._launcher.running_seconds(active.handle)
            self._note_start(active, seconds)
            if code is not None:
                self._active.remove(active)
                self._record(active, code)
                unlock(active.lock)
                ended.append(active.job)
                continue
            limit = self._policy.time_limit
            if limit is not None and active.ending is None and seconds > limit:
                active.ending = ("failed", f"took longer than the time limit of {limit:g} s")
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
