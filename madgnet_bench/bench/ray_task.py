"""What a job of the ray launcher is on its node: a worker of Ray runs the command beside itself and waits for its end.

The command has a keeper, see `madgnet_bench.bench.keeper`, that ends it when the worker is gone, and Ray ends the workers of a
runner that is gone. The lock of an attempt keeps the next one waiting until the command and its keeper have ended.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from madgnet_bench import __version__
from madgnet_bench.bench import keeper
from madgnet_bench.bench.ledger import JobFolder

__all__ = ["OF_THE_NODE", "PATIENCE", "RayTask", "problem_here", "run_task"]

PATIENCE = 60.0
"""Seconds that a node has to answer, and that a record may lag behind the submission."""

OF_THE_NODE = re.compile(r".*_VISIBLE_DEVICES|HOSTNAME")
"""Variables that a command has from its node; the others come from the runner, as with `sbatch`."""


@dataclass(frozen=True, kw_only=True)
class RayTask:
    """What runs on the node: a worker of Ray calls it.

    Attributes:
        id: Names the attempt.
        words: The command.
        log: File to which its output is appended.
        record: Folder of the job's record.
        place: Folder in which the command runs.
        environment: Variables of the command, but for those that it has from the node.
        hide_gpus: Whether the command sees no GPU; else it sees those that Ray gives it.
        grace: Seconds that the command has to end before it is killed.
        patience: Seconds that the record may lag behind the submission.
    """

    id: str
    words: tuple[str, ...]
    log: Path
    record: Path
    place: Path
    environment: Mapping[str, str] = field(repr=False)
    hide_gpus: bool
    grace: float
    patience: float = PATIENCE

    @property
    def lock(self) -> Path:
        """File whose lock the processes of an attempt hold."""
        return self.record / "attempt.lock"

    @property
    def first_line(self) -> str:
        """What it writes to the log when it begins; the name of the node follows."""
        return f"ray: job {self.id.removeprefix('ray:')} begins on "

    def __call__(self) -> int:
        """Run the command; returns its exit status, negative where a signal ended it."""
        asked: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))  # what ray.cancel sends
        try:
            if not self._is_on_record(asked):
                return 1
            environment = self._environment()
            gpus = environment.get("CUDA_VISIBLE_DEVICES")
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{self.first_line}{socket.gethostname()}" + (f" with GPU {gpus}\n" if gpus else "\n"))
            return self._keep(environment, asked)
        finally:
            signal.signal(signal.SIGINT, before)

    def _environment(self) -> dict[str, str]:
        """The variables of the command."""
        here = {name: value for name, value in os.environ.items() if OF_THE_NODE.fullmatch(name)}
        return {**self.environment, **here, **({"CUDA_VISIBLE_DEVICES": ""} if self.hide_gpus else {})}

    def _keep(self, environment: Mapping[str, str], asked: Sequence[int]) -> int:
        """Have the command kept, and wait for its end."""
        words = [sys.executable, "-I", "-S", keeper.__file__, str(self.log), str(self.lock), str(self.grace), *self.words]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self.place,
                start_new_session=True,
            )
        assert process.stdin is not None and process.stdout is not None
        told, said = b"", False
        with process.stdin, process.stdout:
            while True:
                if asked and not said:
                    said = True
                    with suppress(BrokenPipeError):
                        os.write(process.stdin.fileno(), b"e")
                if select.select([process.stdout], [], [], 0.1)[0]:
                    news = os.read(process.stdout.fileno(), 100)
                    told += news
                    if not news:
                        break
        process.wait()
        numbers = [int(line) for line in told.split()]
        if len(numbers) == 1:  # the keeper was killed, and the command with it
            with suppress(ProcessLookupError):
                os.killpg(numbers[0], signal.SIGKILL)
            return -signal.SIGKILL
        return numbers[1] if numbers else 1

    def _is_on_record(self, asked: Sequence[int]) -> bool:
        """Whether the record names this attempt as the one that runs, which the runner writes right after it has submitted."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline and not asked:
            attempts = JobFolder(self.record).attempts()
            named = [attempt.where.split(" ")[0] == self.id for attempt in attempts]
            if any(named):
                return named[-1] and not attempts[-1].outcome
            time.sleep(0.05)
        return False


def problem_here(sign: Path, token: str, executable: str, place: Path, version: str) -> str:
    """On a node: what jobs would miss there; nothing where they miss nothing."""
    if __version__ != version:
        return f"has madgnet-bench {__version__}, and the runner {version}"
    if not os.access(executable, os.X_OK):
        return f"has no {executable}, the Python of the runner; install the same environment at the same place"
    if not place.is_dir():
        return f"has no folder {place}, where the runner was started"
    try:
        same = sign.read_text(encoding="utf-8") == token
    except OSError:
        same = False
    return "" if same else f"does not see {sign.parent}; choose a --root on a file system that all nodes share"


def run_task(task: RayTask) -> int:
    """On a node: run a task."""
    return task()
