"""How far the jobs of a plan are, from files alone: any shell, and any machine that sees the files, can tell."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from madgnet_bench.bench.ledger import Attempt, JobFolder, State, state_of
from madgnet_bench.bench.plan import Plan, PlannedJob

__all__ = ["JobStatus", "count", "read_status", "seconds_left"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far one job is.

    Attributes:
        job: The job.
        state: Its state.
        attempts: How often it was started.
        epoch: Epochs done.
        best: Greatest DSC in seen validation so far, as a fraction; None before the first, or without validation.
        seconds: Time that its attempts took so far, without waiting in queues; one whose end nobody saw does not count.
        left: Estimated seconds until it has trained; None where it does not run, or has not finished an epoch since it began.
        reason: Why the last attempt did not finish.
        last_lines: The end of the log of a job that failed.
    """

    job: PlannedJob
    state: State
    attempts: int
    epoch: int
    best: float | None
    seconds: float
    left: float | None
    reason: str
    last_lines: tuple[str, ...]


def read_status(plan: Plan, *, before: Sequence[JobStatus] = (), lines: int = 5) -> list[JobStatus]:
    """Read the status of every job.

    Args:
        plan: The jobs.
        before: An earlier status of the same plan: jobs done then are not read again.
        lines: How many last lines of the log of a failed job are shown.

    Raises:
        RunError: The record of a job is damaged.
    """
    known = {status.job.key: status for status in before if status.state == "done"}
    return [known.get(job.key) or _read(plan, job, lines) for job in plan.jobs]


def count(rows: Sequence[JobStatus]) -> dict[State, int]:
    """Number of jobs per state, of the states that there are."""
    found = Counter(row.state for row in rows)
    order: tuple[State, ...] = ("done", "running", "queued", "waiting", "interrupted", "failed")
    return {state: found[state] for state in order if found[state]}


def seconds_left(rows: Sequence[JobStatus]) -> float | None:
    """Estimate when all jobs that run or wait have ended, as many at once as run now; None while nothing is known.

    A job that waits is taken to last as long as the mean of those that are done, or where none is, of those that run.
    """
    running = [row for row in rows if row.state == "running"]
    waiting = [row for row in rows if row.state in ("queued", "waiting", "interrupted")]
    left = [row.left for row in running if row.left is not None]
    if not running or len(left) < len(running):
        return None
    whole = [row.seconds for row in rows if row.state == "done" and row.seconds] or [r.seconds + (r.left or 0) for r in running]
    return max(max(left), (sum(left) + len(waiting) * fmean(whole)) / len(running))


def _read(plan: Plan, job: PlannedJob, lines: int) -> JobStatus:
    run, folder = plan.run_folder(job), JobFolder(plan.job_path(job))
    state = state_of(run, folder)
    attempts = folder.attempts()
    history = run.read_history()
    now = time.time()
    last = attempts[-1] if attempts else None
    if last is not None and last.ended is None and state == "done":  # its runner was gone by then
        attempts[-1] = last = replace(last, ended=run.result_file.stat().st_mtime)
    seconds = sum(one.ended - one.started for one in attempts if one.ended is not None)
    begun = state == "running" and last is not None and last.ended is None and not last.queued
    if begun and last is not None:
        seconds += now - last.started
    reason = last.reason if last is not None and state in ("failed", "interrupted") else ""
    if state == "interrupted" and not reason:
        reason = "its runner was gone when it ended" if last else "started outside of the suite's runner, and not finished"
    return JobStatus(
        job=job,
        state=state,
        attempts=len(attempts),
        epoch=len(history),
        best=max((row["val/dsc"] for row in history if "val/dsc" in row), default=None),
        seconds=max(0.0, seconds),
        left=_left(last, len(history), job.epochs, now) if begun else None,
        reason=reason,
        last_lines=tuple(folder.last_lines(lines)) if state == "failed" else (),
    )


def _left(attempt: Attempt | None, epoch: int, epochs: int | None, now: float) -> float | None:
    """The time that the remaining epochs take at the pace of this attempt."""
    if attempt is None or epochs is None or epoch <= attempt.epochs_before:
        return None
    return (now - attempt.started) / (epoch - attempt.epochs_before) * max(0, epochs - epoch)
