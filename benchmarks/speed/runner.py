"""Overhead of the runner: eight short trainings on two slots against the best packing of their own wall times.

    python benchmarks/speed/runner.py

Prints the seconds that planning takes, at first and from the kept plan, and the ratio of the runner's time to the best packing
of the same processes on as many slots: what the runner adds between jobs. Every process times itself, in the same run and with
the same threads.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from timing import hardware

from madgnet_bench.bench.launch import LocalLauncher, cpu_slots
from madgnet_bench.bench.plan import make_plan
from madgnet_bench.bench.runner import FIT, Runner
from madgnet_bench.bench.suite import Suite

SUITE = """
set: {trainer.max_epochs: 2, trainer.accelerator: cpu, run.predictions: none}
networks: {unet: CONFIG}
training_sets: {phantoms: {}}
seeds: SEEDS
"""

TIMED = """
import subprocess, sys, time
began = time.time()
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "a") as stream:
    stream.write(f"{time.time() - began}\\n")
sys.exit(code)
"""


def best_packing(seconds: Sequence[float], slots: int) -> float:
    """The least time in which so many slots can do jobs that take these times, by trying every assignment."""
    return min(
        max(sum(job for job, slot in zip(seconds, chosen, strict=True) if slot == one) for one in range(slots))
        for chosen in itertools.product(range(slots), repeat=len(seconds))
    )


def main() -> None:
    """Plan, run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8, help="number of jobs (default: 8)")
    parser.add_argument("--slots", type=int, default=2, help="jobs at once (default: 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = Path(__file__).parents[2] / "configs/demo/unet.yaml"
        path = folder / "short.yaml"
        path.write_text(SUITE.replace("CONFIG", str(config)).replace("SEEDS", str(list(range(options.jobs)))))
        planning = []
        for _ in range(2):
            began = time.perf_counter()
            plan = make_plan(Suite.read(path), folder / "runs")
            planning.append(time.perf_counter() - began)
        times = folder / "times.txt"
        timed = (sys.executable, "-S", "-E", "-c", TIMED, str(times), *FIT)
        began = time.perf_counter()
        states = Runner(plan, LocalLauncher(cpu_slots(options.slots), folder / "slots"), fit=timed).run()
        total = time.perf_counter() - began
        assert set(states.values()) == {"done"}, states
        own = [float(line) for line in times.read_text().split()]
    best = best_packing(own, options.slots)
    print(f"{hardware()}; {options.jobs} jobs on {options.slots} slots, each by itself {min(own):.1f} to {max(own):.1f} s")
    print(f"planning      {planning[0]:8.2f} s, from the kept plan {planning[1]:.3f} s")
    print(f"runner        {total:8.2f} s")
    print(f"best packing  {best:8.2f} s")
    print(f"ratio         {total / best:8.3f}")


if __name__ == "__main__":
    main()
