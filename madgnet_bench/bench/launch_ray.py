"""Starts the jobs of a suite on a Ray cluster, or on one that is brought up here for as long as the runner lives.

Each job is a Ray task that asks for the GPUs and cores it needs; which waits and which runs is Ray's to say. Ray ends what the
tasks of a runner do when the runner is gone, see `madgnet_bench.bench.ray_task` for how. So nothing is left to be adopted: the
next runner starts the jobs from their last checkpoints, once the last process of the earlier attempts has ended.

What the nodes need: this environment at the same place, and at the same paths the folder of runs, the configurations and the
data. The first two are looked at before anything is submitted.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from madgnet_bench import __version__
from madgnet_bench.bench.launch import Handle, Task, task_environment
from madgnet_bench.bench.locks import is_locked
from madgnet_bench.bench.ray_task import OF_THE_NODE, PATIENCE, RayTask, problem_here, run_task
from madgnet_bench.errors import ConfigError, RunError, nearest

__all__ = ["RayLauncher", "RayOptions"]

_STORE = 100_000_000
"""Bytes of the object store of a cluster that is started here: nothing but exit statuses passes through it."""

_CORES = 4
"""Cores per device where nothing else is asked for, or fewer where a node has fewer."""

_LAST = 30.0
"""Seconds within which the processes of a task that Ray has ended must be gone, beyond the time of grace."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What is asked of Ray.

    Attributes:
        address: Of a cluster, as `ray.init` has it: auto for the one on this machine, host:port, or ray://host:port. Empty to
            start one here.
        cpus: Cores per device of a job; None for four, or fewer where a node has fewer for each of its GPUs.
        gpus: How much of a GPU a job on one device takes; 0.5 lets two share one. 0 for none, although the cluster has some.
        temp: Folder for the files of a cluster that is started here; empty for Ray's own choice.
    """

    address: str = ""
    cpus: int | None = None
    gpus: float = 1.0
    temp: str = ""

    @classmethod
    def read(cls, words: Sequence[str]) -> RayOptions:
        """Read words such as ``address=auto``.

        Raises:
            ConfigError: A word is no such pair, its key unknown, or its value no number where one is needed.
        """
        settings: dict[str, Any] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals or not value.strip():
                raise ConfigError(f"--ray {word!r}: write KEY=VALUE, such as address=auto.")
            known = [one.name for one in fields(cls)]
            if key not in known:
                raise ConfigError(f"--ray {word!r}: unknown key {key!r}; {nearest(key, known)}")
            settings[key] = _value(word, key, value)
        if settings.get("address") and settings.get("temp"):
            raise ConfigError("--ray temp=...: is for a cluster that is started here; the one at an address has its own.")
        return cls(**settings)


def _value(word: str, key: str, value: str) -> Any:
    if key == "cpus":
        if not value.isdigit() or int(value) < 1:
            raise ConfigError(f"--ray {word!r}: {value!r} is not a whole number of at least 1.")
        return int(value)
    if key == "gpus":
        if re.fullmatch(r"\d*\.?\d+", value) is None or float(value) > 1:
            raise ConfigError(f"--ray {word!r}: {value!r} is not a part of a GPU, from 0 to 1; trainer.devices says how many.")
        return float(value)
    if key == "temp":
        return str(Path(value).absolute())
    return value


@dataclass(eq=False)
class _Job:
    """A task that was submitted."""

    task: RayTask
    reference: Any
    log_start: int
    node: str = ""
    began: float | None = None
    asked: int = 0
    ended: float | None = None
    """When Ray told the end."""
    result: int = 1
    reason: str = ""
    code: int | None = None

    @property
    def where(self) -> str:
        """Its id, and the node once that is known."""
        return self.task.id + (f" on {self.node}" if self.node else "")

    def look_for_start(self) -> None:
        """See in the log whether the task has begun, and where."""
        if self.began is not None:
            return
        with suppress(FileNotFoundError), self.task.log.open("rb") as log:
            log.seek(self.log_start)
            found = re.search(rf"{self.task.first_line}(\S+).*\n", log.read(1000).decode(errors="replace"))
            if found is not None:
                self.node, self.began = found[1], time.monotonic()


class RayLauncher:
    """Submits tasks to a Ray cluster.

    Args:
        options: What is asked for.
        folder: Where the nodes are asked to find a file, to see that they share the file system.
        interval: Seconds between two looks at the jobs.
        grace: Seconds between the request to end and the kill.
        here: What else `ray.init` is given where it starts a cluster, such as ``num_gpus``.

    Raises:
        RunError: Ray is not installed, the cluster does not answer or has another version of Python or Ray, or a node does not
            have what jobs need.
    """

    batch = 500
    queues = True

    def __init__(
        self,
        options: RayOptions,
        folder: Path,
        *,
        interval: float = 0.25,
        grace: float = 15.0,
        here: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = options
        self._interval = interval
        self._grace = grace
        self._ray = _connect(options, here or {})
        self._jobs: list[_Job] = []
        self._looked = 0.0
        try:
            self._nodes = _nodes(self._ray)
            _check(self._ray, self._nodes, folder)
        except BaseException:
            self.close()
            raise
        self._cores = options.cpus or min(_cores(node) for node in self._nodes)
        self._gpus = options.gpus if any(node.gpus for node in self._nodes) else 0.0
        self._remote = self._ray.remote(max_retries=0, max_calls=0)(run_task)

    def close(self) -> None:
        """Leave the cluster, and shut it down where it was started here; so does the end of the process. Jobs end with that."""
        self._ray.shutdown()

    def refusal(self, devices: int) -> str | None:
        """See `Launcher`; what needs GPUs is looked at when it is submitted."""
        return self._lack(self._cores * devices, 0)

    def submit(self, tasks: Sequence[Task]) -> list[_Job]:
        """See `Launcher`."""
        started: list[_Job] = []
        for task in tasks:
            cores, gpus = self._cores * task.devices, self._gpus_of(task)
            lack = self._lack(cores, gpus)
            if lack is not None:
                if not started:
                    raise RunError(f"a job {lack}")
                break  # said when it is submitted again
            started.append(self._submit(task, cores, gpus))
        self._jobs += started
        return started

    def adopt(self, where: str) -> None:
        """See `Launcher`: jobs end with the runner that submitted them."""

    def poll(self, handle: Handle) -> int | None:
        """See `Launcher`."""
        assert isinstance(handle, _Job)
        if handle.code is None and time.monotonic() - self._looked > self._interval:
            self._look()
        return handle.code

    def running_seconds(self, handle: Handle) -> float:
        """See `Launcher`."""
        assert isinstance(handle, _Job)
        return 0.0 if handle.began is None else max(0.001, time.monotonic() - handle.began)

    def cancel(self, handle: Handle) -> None:
        """See `Launcher`: the keeper of the command kills it after the time of grace, or when Ray's worker is gone, too."""
        assert isinstance(handle, _Job)
        handle.asked += 1
        if handle.ended is None:
            self._ray.cancel(handle.reference, force=handle.asked > 1, recursive=False)

    def _gpus_of(self, task: Task) -> float:
        """How many GPUs a task takes: whole ones where it is distributed over several."""
        if not task.gpu:
            return 0.0
        return self._gpus if task.devices == 1 else task.devices * float(math.ceil(self._gpus))

    def _lack(self, cores: int, gpus: float) -> str | None:
        """What no node has; None where one has all."""
        if any(node.cores >= cores and node.gpus >= gpus for node in self._nodes):
            return None
        wanted = f"{cores} cores" + (f" and {gpus:g} GPUs" if gpus else "")
        largest = "; ".join(sorted({f"{node.cores:g} cores, {node.gpus:g} GPUs" for node in self._nodes}))
        return (
            f"needs {wanted} at once, and no node of the Ray cluster has them (there: {largest}). `--ray cpus=N` asks for less."
        )

    def _submit(self, task: Task, cores: int, gpus: float) -> _Job:
        environment = {name: value for name, value in task_environment(self._cores).items() if not name.startswith("RAY_")}
        job = RayTask(
            id=f"ray:{uuid.uuid4().hex[:8]}",
            words=task.words,
            log=task.log.absolute(),
            record=task.record.absolute(),
            place=Path.cwd(),
            environment={name: value for name, value in environment.items() if not OF_THE_NODE.fullmatch(name)},
            hide_gpus=not gpus,
            grace=self._grace,
        )
        start = task.log.stat().st_size if task.log.is_file() else 0
        wanted = {"num_cpus": cores, "num_gpus": int(gpus) if gpus >= 1 else gpus}
        return _Job(job, self._remote.options(name="madgnet-bench", **wanted).remote(job), start)

    def _look(self) -> None:
        """See which jobs have begun, and which have ended."""
        self._looked = time.monotonic()
        for job in self._jobs:
            if job.began is None:
                job.look_for_start()
        running = [job for job in self._jobs if job.ended is None]
        if running:
            for job in self._ready(running):
                job.ended = time.monotonic()
                job.result, job.reason = self._result(job)
        for job in [job for job in self._jobs if job.ended is not None and self._is_gone(job)]:
            self._jobs.remove(job)
            job.look_for_start()
            if job.reason and not job.asked:
                with job.task.log.open("a", encoding="utf-8") as log:
                    log.write(f"\nray: {job.reason}, {job.where}\n")
            job.code = job.result

    def _ready(self, jobs: Sequence[_Job]) -> list[_Job]:
        """The jobs that Ray has ended; all of them where the cluster has gone."""
        try:
            references = [job.reference for job in jobs]
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        except ConnectionError:
            return list(jobs)
        return [job for job in jobs if job.reference in ready]

    def _result(self, job: _Job) -> tuple[int, str]:
        """The exit status of a job that Ray has ended, and in words why Ray has ended it, where it has."""
        try:
            return int(self._ray.get(job.reference)), ""
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            cause = getattr(error, "cause", None) or error
            sentence = re.split(r"\. |\n", str(cause).strip())[0][:150]
            return 1, type(cause).__name__ + (f": {sentence}" if sentence else "")

    def _is_gone(self, job: _Job) -> bool:
        """Whether the processes of a job that Ray has ended are gone, or have had long enough."""
        assert job.ended is not None
        return not is_locked(job.task.lock) or time.monotonic() > job.ended + self._grace + _LAST


@dataclass(frozen=True)
class _Node:
    """A machine of the cluster that runs tasks."""

    id: str
    name: str
    cores: float
    gpus: float


def _connect(options: RayOptions, here: Mapping[str, Any]) -> Any:
    """Import Ray, and connect to a cluster or start one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what it would print is in the logs of the jobs
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise RunError("the ray launcher needs Ray: pip install 'madgnet-bench[ray]'") from None
    if ray.is_initialized():
        raise RunError("this process is connected to a Ray cluster already; close that first.")
    settings: dict[str, Any] = {"address": options.address, "log_to_driver": False, "logging_level": logging.ERROR}
    if not options.address:
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15, for the jobs, too
        settings |= {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
        settings |= {"num_cpus": len(os.sched_getaffinity(0)), "_temp_dir": options.temp or None, **here}
    try:
        _look_for_port(options.address)
        ray.init(**settings)
    except Exception as error:  # of any kind, down to Exception itself
        ray.shutdown()
        what = f"no connection to a Ray cluster at {options.address}" if options.address else "Ray does not start here"
        hint = " Where the cluster asks for a token, RAY_AUTH_MODE=token must be set here, too." if options.address else ""
        raise RunError(f"{what}: {' '.join(str(error).split())[:500].rstrip('.')}.{hint}") from None
    return ray


def _look_for_port(address: str) -> None:
    """See whether anything listens at an address that has a port; Ray itself would wait for it without end.

    Raises:
        OSError: Nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _nodes(ray: Any) -> list[_Node]:
    """The machines that run tasks.

    Raises:
        RunError: There is none.
    """
    alive = [(node, node["Resources"]) for node in ray.nodes() if node["Alive"]]
    found = [
        _Node(node["NodeID"], node["NodeManagerHostname"], resources["CPU"], resources.get("GPU", 0.0))
        for node, resources in alive
        if resources.get("CPU", 0) >= 1
    ]
    if not found:
        raise RunError(
            f"the Ray cluster has {len(alive)} nodes, and none with cores for jobs; start one (`ray start --num-cpus N`)."
        )
    return found


def _cores(node: _Node) -> int:
    """Cores per device that leave none of a node's GPUs idle."""
    return max(1, min(_CORES, int(node.cores // max(1, node.gpus))))


def _check(ray: Any, nodes: Sequence[_Node], folder: Path) -> None:
    """Ask every node whether jobs find what they need.

    Raises:
        RunError: They do not; the message has a line for each node.
    """
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    sign = folder / f"ray-{token[:8]}"
    sign.write_text(token, encoding="utf-8")
    try:
        remote = ray.remote(max_retries=0, num_cpus=0)(problem_here)
        asked = {}
        for node in nodes:
            there = strategies.NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
            question = remote.options(scheduling_strategy=there)
            asked[question.remote(sign, token, sys.executable, Path.cwd(), __version__)] = node
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
        problems = [f"  {node.name}: {text}" for one, node in asked.items() if (text := _answer(ray, one, one in ready))]
    finally:
        sign.unlink()
    if problems:
        raise RunError("\n".join(["jobs cannot run on these nodes of the Ray cluster; nothing was started.", *problems]))


def _answer(ray: Any, reference: Any, ready: bool) -> str:
    """What a node has said; nothing where all is well."""
    if not ready:
        return f"does not answer within {PATIENCE:.0f} s"
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayError as error:
        missing = re.search(r"ModuleNotFoundError: .*", str(error))
        if missing is not None:
            return f"{missing[0]}; it needs the runner's environment, with madgnet-bench {__version__}"
        return " ".join(str(error).split())[-300:]
