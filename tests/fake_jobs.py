"""A stand-in for `madgnet-bench fit` that needs no torch, and plans of jobs for it.

It locks its run folder as `fit` does, "trains" epochs of 20 ms into it, goes on where an earlier attempt left off, and
misbehaves as its arguments say.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from madgnet_bench.bench.plan import Plan, PlannedJob

__all__ = ["FAKE", "fake_plan", "starts", "wait_for"]

_SCRIPT = """
import fcntl, os, signal, sys, time
folder, name, epochs, *how = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
lock = open(os.path.join(folder, ".lock"), "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("another process trains this run now")
with open(os.path.join(os.path.dirname(folder), "starts.txt"), "a") as stream:
    stream.write(f"{name} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ['OMP_NUM_THREADS']} {time.time()}\\\\n")
parts = int(how[how.index("--run.batch_parts") + 1]) if "--run.batch_parts" in how else 1
history = os.path.join(folder, "history.csv")
done = len(open(history).read().splitlines()) - 1 if os.path.exists(history) else 0
print(f"{name} starts at epoch {done}", flush=True)
if "stubborn" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "raise" in how:
    raise RuntimeError("the loss is sad")
if "refuse" in how:
    sys.stderr.write("madgnet-bench fit: no such folder.\\\\n  second line\\\\n")
    sys.exit(2)
if "memory" in how and parts < 4:
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
for epoch in range(done, int(epochs)):
    time.sleep(0.02)
    rows = open(history).read() if os.path.exists(history) else "schema_version,epoch,val/dsc\\\\n"
    open(history + ".new", "w").write(rows + f"1,{epoch},0.{5 + epoch % 4}\\\\n")
    os.replace(history + ".new", history)
    if "flaky" in how and epoch == done:
        os.kill(os.getpid(), signal.SIGKILL)
while "hang" in how or "gate" in how and not os.path.exists(os.path.join(os.path.dirname(folder), "open")):
    time.sleep(0.02)
if "nothing" not in how:
    open(os.path.join(folder, "result.json"), "w").write("{}")
""".replace("\\\\n", "\\n")

FAKE = (sys.executable, "-S", "-E", "-c", _SCRIPT)


def fake_plan(root: Path, jobs: dict[str, str], *, epochs: int = 2, devices: int = 1) -> Plan:
    """A plan whose jobs behave as the words by their names say."""
    planned = []
    for name, how in jobs.items():
        arguments = (str(root / "suite" / f"run_{name}"), name, str(epochs), *how.split())
        planned.append(
            PlannedJob(
                name=name,
                key=f"key_{name}",
                arguments=arguments,
                run_id=f"run_{name}",
                epochs=epochs,
                devices=devices,
                accelerator="cpu",
            )
        )
    return Plan(suite="suite", root=root, jobs=tuple(planned))


def starts(plan: Plan) -> list[list[str]]:
    """Name, GPUs, threads and time of every start, in order."""
    path = plan.folder / "starts.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
