"""Runs a command for a process that may be killed at any moment, and then ends the command: nothing is left training unseen.

Started as a file by a bare interpreter, so that it needs nothing but the standard library::

    python keeper.py LOG LOCK GRACE COMMAND...

Its standard input comes from its client. The end of that input, which comes however the client ends, asks the command to end,
as does a byte; the end after that request kills it at once. To its output it writes the process id of the command, and then the
exit status. It is no child of its client, which thus cannot take it down with itself; if it is killed, so is the command.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

__all__ = ["keep"]

_LOOK = 0.1
"""Seconds between two looks at the command."""

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


class _Client:
    """What the client asks for on the standard input."""

    def __init__(self) -> None:
        self.asked = False
        self._gone = False
        self._again = False

    @property
    def impatient(self) -> bool:
        """Whether it has gone after it had asked for the end."""
        return self._again

    def listen(self) -> None:
        """Wait for a word of it, for a moment."""
        if self._gone:
            time.sleep(_LOOK)
        elif select.select([0], [], [], _LOOK)[0]:
            self._gone = not os.read(0, 100)
            self._again = self._gone and self.asked
            self.asked = True


def keep(log: str, lock: str, grace: float, words: Sequence[str]) -> None:
    """Run a command and tell its process id and exit status.

    Args:
        log: File to which its output is appended.
        lock: File whose lock is held meanwhile: a command of an earlier client that still runs is waited for.
        grace: Seconds that the command has to end before it is killed.
        words: The command.
    """
    client = _Client()
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    while not _locked(descriptor):
        client.listen()
        if client.asked:
            return
    here = os.getpid()
    with open(log, "ab") as stream:
        command = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
            process_group=0,
            preexec_fn=lambda: _end_with(here),
        )
    _tell(command.pid)
    deadline = float("inf")
    while os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        client.listen()
        if client.asked and deadline == float("inf"):
            deadline = time.monotonic() + grace
            _signal(command.pid, signal.SIGTERM)
        if client.impatient or time.monotonic() > deadline:
            _signal(command.pid, signal.SIGKILL)
    _signal(command.pid, signal.SIGKILL)  # what is left of its group; the group's number is its own until wait() below
    _tell(command.wait())


def _locked(descriptor: int) -> bool:
    """Lock a file; one of a file system that has no locks counts as locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _end_with(parent: int) -> None:
    """In the command, before it begins: be killed when the keeper is, and hear Ctrl-C as any process does."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _tell(number: int) -> None:
    """Write a line to the client, if there is one left."""
    with suppress(BrokenPipeError):
        os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    keep(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])
