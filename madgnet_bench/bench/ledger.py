"""What became of each job: its attempts, kept in files so that any process can tell, whoever was killed.

The folder of a job holds::

    lock        held while an attempt runs or waits in a queue, by the runner, and by the attempt where that can inherit it
    job.json    name, command and attempts
    log.txt     what all attempts printed

A training also locks its run folder, see `madgnet_bench.records`, which tells that it runs where no runner is left and on other
machines. A job is done once its run folder holds a result. Only who holds the lock starts an attempt or writes `job.json`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from madgnet_bench.bench.locks import is_locked, try_lock
from madgnet_bench.errors import RunError
from madgnet_bench.records import SCHEMA_VERSION, RunFolder, write_json

__all__ = ["Attempt", "JobFolder", "State", "state_of"]

State = Literal["waiting", "queued", "running", "done", "failed", "interrupted"]

_TAIL = 20_000
"""Bytes at the end of a log that are looked at."""

_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|MPS backend out of memory|can't allocate memory|std::bad_alloc|^MemoryError"
    r"|^slurm: OUT_OF_MEMORY|oom[-_]kill",
    re.MULTILINE,
)
_ABROAD = re.compile(r"(slurm|ray):")
"""How every place on another machine begins, and every line that its launcher writes to the log."""
_FROM_QUEUE = re.compile(r"(?:slurm|ray): (?:(job .* begins)|requeued)")
"""The line with which a job begins that was in a queue, until it prints something itself, and the one when it is back there."""
_DECORATION = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a job.

    Attributes:
        started: When it began, or while it is queued when it was submitted, in seconds since the epoch of the clock.
        where: Host and process, or what else a launcher calls it.
        epochs_before: Epochs that earlier attempts had finished.
        log_start: Where its part of the log begins, in bytes.
        parts: Into how many parts each batch was cut, after running out of memory.
        ended: Seconds since the epoch of the clock; None while it runs, or where nobody saw it end.
        outcome: ``done``, ``failed``, ``stopped`` by the runner, or ``lost`` with its runner.
        reason: Why it failed, in a few words.
        out_of_memory: Whether it failed for want of memory.
        queued: Whether it was put in a queue, and no runner has seen it begin.
    """

    started: float
    where: str
    epochs_before: int = 0
    log_start: int = 0
    parts: int = 1
    ended: float | None = None
    outcome: Literal["", "done", "failed", "stopped", "lost"] = ""
    reason: str = ""
    out_of_memory: bool = False
    queued: bool = False


@dataclass(frozen=True)
class JobFolder:
    """The record of one job.

    Args:
        path: The folder; need not exist yet.
    """

    path: Path

    @property
    def log_file(self) -> Path:
        """What all attempts printed."""
        return self.path / "log.txt"

    @property
    def log_size(self) -> int:
        """Bytes in the log."""
        return self.log_file.stat().st_size if self.log_file.is_file() else 0

    @property
    def running(self) -> bool:
        """Whether a runner, or an attempt that outlived one, has this job in hand."""
        return is_locked(self._lock_file)

    @property
    def _lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def _file(self) -> Path:
        return self.path / "job.json"

    def claim(self) -> int | None:
        """Lock the job; None where another runner, or an attempt that outlived its runner, holds it.

        Raises:
            RunError: The file system has no locks.
        """
        try:
            return try_lock(self._lock_file)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"{self._lock_file}: cannot be locked ({reason}). Choose another --root.") from None

    def attempts(self) -> list[Attempt]:
        """The attempts so far, first to last.

        Raises:
            RunError: The record is damaged.
        """
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return [Attempt(**attempt) for attempt in content["attempts"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self._file}: not the record of a job ({error}). Delete it; finished runs are kept.") from None

    def begin(self, name: str, command: str, attempt: Attempt) -> None:
        """Record that an attempt starts; the lock must be held."""
        self._write(name, command, [*self._closed(), attempt])

    def end(self, name: str, command: str, **how: Any) -> Attempt:
        """Record how the last attempt ended, by default now; the lock must be held."""
        return self.change(name, command, **{"ended": time.time(), "queued": False, **how})

    def change(self, name: str, command: str, **what: Any) -> Attempt:
        """Record something else about the last attempt; the lock must be held."""
        *earlier, last = self.attempts()
        changed = replace(last, **what)
        self._write(name, command, [*earlier, changed])
        return changed

    def told(self, attempt: Attempt) -> Literal["queued", "running"] | None:
        """How an attempt stands that has not ended and was put in a queue, as its log tells; None where that tells nothing."""
        if _ABROAD.match(attempt.where) is None or (attempt.where.startswith("ray:") and not self.running):
            return None  # what waits in Ray ends with its runner
        if self.log_size <= attempt.log_start:
            return "queued" if attempt.queued else "running"
        found = _FROM_QUEUE.match("".join(self.last_lines(1)))
        return None if found is None else ("running" if found[1] else "queued")

    def tail(self, attempt: Attempt | None = None) -> str:
        """The end of the log, or of the log from an attempt on, without the codes that colour it."""
        try:
            with self.log_file.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(attempt.log_start if attempt else 0, size - _TAIL))
                text = stream.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = (line.rsplit("\r", 1)[-1].rstrip() for line in _DECORATION.sub("", text).split("\n"))
        return "\n".join(line for line in lines if line)

    def last_lines(self, count: int) -> list[str]:
        """The last lines of the log that are not empty."""
        return self.tail().splitlines()[-count:]

    def explain(self, attempt: Attempt, code: int) -> tuple[str, bool]:
        """Why an attempt ended without a result: in words, and whether for want of memory.

        Args:
            attempt: The attempt.
            code: Its exit status, negative where a signal ended it.
        """
        text = self.tail(attempt)
        lines = [line for line in text.splitlines() if not _FROM_QUEUE.match(line)] or ["it printed nothing"]
        last = next((line for line in reversed(lines) if line.startswith("madgnet-bench ")), lines[-1]).strip()
        memory = code != 0 and _OUT_OF_MEMORY.search(text) is not None
        if _ABROAD.match(lines[-1]):
            return lines[-1][:300], memory
        if code < 0:
            return f"killed by {_signal_name(-code)}", memory
        if code == 0:
            return "ended without a result in the planned run folder", False
        return f"exit {code}: {last[:300]}", memory

    def _closed(self) -> list[Attempt]:
        """The attempts, where the last may have been lost with its runner."""
        attempts = self.attempts()
        if attempts and not attempts[-1].outcome:
            attempts[-1] = replace(attempts[-1], outcome="lost", reason="its runner was gone when it ended")
        return attempts

    def _write(self, name: str, command: str, attempts: Sequence[Attempt]) -> None:
        content = {"schema_version": SCHEMA_VERSION, "name": name, "command": command}
        write_json(self._file, {**content, "attempts": [asdict(attempt) for attempt in attempts]})


def state_of(run: RunFolder, job: JobFolder) -> State:
    """The state of a job, from files alone."""
    if run.state == "done":
        return "done"
    attempts = job.attempts()
    if is_locked(run.lock_file):
        return "running"
    if attempts and not attempts[-1].outcome:
        return job.told(attempts[-1]) or ("running" if job.running else "interrupted")
    if attempts:
        return "failed" if attempts[-1].outcome in ("failed", "done") else "interrupted"
    return "interrupted" if run.state == "interrupted" else "waiting"


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (by hand, or by the system for want of memory)" if name == "SIGKILL" else name
