"""What the commands that train print, and where it is kept."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

__all__ = ["Console", "is_first_process", "logging_to"]

_log = logging.getLogger("madgnet_bench")


class Console(logging.Handler):
    """Prints messages above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        tqdm.write(self.format(record), file=sys.stdout)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Copy the log of the suite and of the trainer into a file, on the first process; an error is logged, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8") if is_first_process() else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("madgnet_bench", "lightning.pytorch")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        _log.error("stopped by %r", error)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def is_first_process() -> bool:
    """Whether this is the process that writes and prints; true before any other is started."""
    return getattr(rank_zero_only, "rank", 0) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
