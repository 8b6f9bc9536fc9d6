"""What became of each job: its attempts, kept in files so that any process can tell, whoever was killed.

The folder of a job holds::

    lock        held while an attempt runs, by the runner and by the attempt itself
    job.json    name, command and attempts
    log.txt     what all attempts printed

A job is done once its run folder holds a result. Only who holds the lock starts an attempt or writes `job.json`.
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

State = Literal["waiting", "running", "done", "failed", "interrupted"]

_TAIL = 20_000
"""Bytes at the end of a log that are looked at."""

_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|MPS backend out of memory|can't allocate memory|std::bad_alloc|^MemoryError",
    re.MULTILINE,
)
_DECORATION = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of a job.

    Attributes:
        started: Seconds since the epoch of the clock.
        where: Host and process, or what else a launcher calls it.
        epochs_before: Epochs that earlier attempts had finished.
        log_start: Where its part of the log begins, in bytes.
        parts: Into how many parts each batch was cut, after running out of memory.
        ended: Seconds since the epoch of the clock; None while it runs, or where nobody saw it end.
        outcome: ``done``, ``failed``, ``stopped`` by the runner, or ``lost`` with its runner.
        reason: Why it failed, in a few words.
        out_of_memory: Whether it failed for want of memory.
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
    def running(self) -> bool:
        """Whether an attempt runs now, or is just being started or recorded, on this machine or another."""
        return is_locked(self._lock_file)

    @property
    def _lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def _file(self) -> Path:
        return self.path / "job.json"

    def claim(self) -> int | None:
        """Lock the job; None where another runner, or an attempt that outlived its runner, holds it."""
        return try_lock(self._lock_file)

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
        *earlier, last = self.attempts()
        ended = replace(last, **{"ended": time.time(), **how})
        self._write(name, command, [*earlier, ended])
        return ended

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
        lines = text.splitlines() or ["it printed nothing"]
        last = next((line for line in reversed(lines) if line.startswith("madgnet-bench ")), lines[-1]).strip()
        memory = code != 0 and _OUT_OF_MEMORY.search(text) is not None
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
    if not (attempts and attempts[-1].outcome) and job.running:
        return "running"
    if attempts:
        return "failed" if attempts[-1].outcome in ("failed", "done") else "interrupted"
    return "interrupted" if run.state == "interrupted" else "waiting"


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (by hand, or by the system for want of memory)" if name == "SIGKILL" else name
