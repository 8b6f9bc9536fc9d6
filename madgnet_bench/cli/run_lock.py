"""One process writes a run folder at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from madgnet_bench.bench.locks import try_lock, unlock
from madgnet_bench.cli.console import is_first_process
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder

__all__ = ["hold_run"]

_log = logging.getLogger("madgnet_bench")


@contextmanager
def hold_run(folder: RunFolder) -> Iterator[None]:
    """Hold a run folder's lock, on the first of a training's processes; it ends with the process, however that ends.

    A file system that has no locks (some of clusters) is told of in one line, and the run goes on without.

    Raises:
        RunError: Another process holds it, or the folder cannot be written.
    """
    descriptor = _take(folder) if is_first_process() else None
    if descriptor is None:
        yield
        return
    held = [descriptor]
    os.register_at_fork(after_in_child=lambda: _close_in_child(held))  # a worker that outlives us would hold the run
    try:
        yield
    finally:
        unlock(held.pop())


def _take(folder: RunFolder) -> int | None:
    try:
        descriptor = try_lock(folder.lock_file)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise RunError(f"{folder.path}: cannot be written ({error.strerror}); choose another --run.root.") from None
    except OSError as error:
        reason = error.strerror or error
        _log.warning("%s: its file system has no locks (%s); see that no other process trains this run.", folder.path, reason)
        return None
    if descriptor is None:
        raise RunError(f"{folder.path}: another process trains this run now; wait for its end, or stop it first.")
    return descriptor


def _close_in_child(held: list[int]) -> None:
    with suppress(OSError):
        while held:
            os.close(held.pop())
