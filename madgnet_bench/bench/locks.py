"""Locks on files that are given back when their holder ends, however it ends.

A lock belongs to the opened file, not to a process: who opens and locks it may hand the descriptor to a child process, and
the lock lasts until the last of them has ended. A process killed with SIGKILL gives its locks back, and the lock of a child
that outlives its parent stays. Works on local file systems, and on those of networks that carry flock.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

__all__ = ["is_locked", "try_lock", "unlock"]

_LOOK = 0.001
"""Seconds within which `is_locked` has long let go of what it looked at."""


def try_lock(path: Path) -> int | None:
    """Lock a file, which is made where it does not exist.

    Returns:
        The descriptor that holds the lock, or None where another holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _try_lock(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
    if descriptor is None:
        time.sleep(_LOOK)
        descriptor = _try_lock(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file; makes and changes nothing."""
    try:
        descriptor = _try_lock(path, os.O_RDONLY, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    unlock(descriptor)
    return False


def unlock(descriptor: int) -> None:
    """Let go of a lock; children that hold the same descriptor keep it."""
    os.close(descriptor)


def _try_lock(path: Path, flags: int, kind: int) -> int | None:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
