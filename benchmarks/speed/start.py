"""From the start of a training to its first batch, against a bare import of what it needs by then.

    OMP_NUM_THREADS=1 python benchmarks/speed/start.py

The modules that a job has at its first batch are imported in a fresh interpreter, in the same order, and both take turns. The
ratio of their times is what the suite adds to its libraries: reading the configuration, building, looking at the data, writing
the run folder, and the first batch. Processor time is told too: on a busy machine it is the steadier of the two. The breakdown
is that of the job with the median time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import hardware

CONFIGS = ("configs/demo/unet.yaml", "configs/demo/madgnet.yaml")

JOB = """# of benchmarks/speed/start.py
import json, os, sys, time
marks = {"interpreter": time.monotonic()}
from madgnet_bench.cli import main, training
from madgnet_bench.tasks.supervised import SupervisedTask
marks["imports of the command line"] = time.monotonic()

def marked(owner, name, label, after=False):
    real = getattr(owner, name)
    def wrapper(*args, **options):
        if not after:
            marks[label] = time.monotonic()
        found = real(*args, **options)
        if after:
            marks[label] = time.monotonic()
        return found
    setattr(owner, name, wrapper)

def first_batch(*args, **options):
    marks["trainer and first batch"] = time.monotonic()
    with open(sys.argv[1], "w") as stream:
        json.dump({"marks": marks, "processor": time.process_time(), "modules": list(sys.modules)}, stream)
    os._exit(0)

cli = training.BenchCLI
marked(cli, "before_instantiate_classes", "parsers and arguments")
marked(cli, "instantiate_trainer", "data, network and loss")
marked(cli, "_run_folder", "look at the data")
marked(cli, "fit", "trainer and name of the run")
marked(cli, "_prepare_folder", "run folder", after=True)
SupervisedTask.training_step = first_batch
main(sys.argv[2:])
sys.exit("no batch came")
"""

IMPORTS = """# of benchmarks/speed/start.py
import importlib, json, sys, time
with open(sys.argv[1]) as stream:
    names = json.load(stream)["modules"]
for name in names:
    if name not in sys.modules:
        try:
            importlib.import_module(name)
        except Exception:
            pass  # made by other modules, not found by its name
print(json.dumps({"end": time.monotonic(), "processor": time.process_time(), "missing": len(set(names) - set(sys.modules))}))
"""


def run_job(config: str, folder: Path, number: int) -> dict[str, Any]:
    """Start a training and stop it at its first batch.

    Returns:
        ``wall`` and ``processor`` seconds, and ``marks``: when it passed what, in seconds from its start.
    """
    found = folder / "found.json"
    words = [str(found), "fit", "--config", config, "--run.root", str(folder / f"runs{number}"), "--trainer.accelerator", "cpu"]
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", JOB, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answer: dict[str, Any] = json.loads(found.read_text())
    marks = {name: at - began for name, at in answer["marks"].items()}
    return {"wall": max(marks.values()), "processor": answer["processor"], "marks": marks}


def run_imports(folder: Path) -> dict[str, float]:
    """Import what the job before had; ``wall`` and ``processor`` seconds."""
    began = time.monotonic()
    command = [sys.executable, "-c", IMPORTS, str(folder / "found.json")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["missing"] < 100, f"{answer['missing']} modules cannot be imported by their names"
    return {"wall": answer["end"] - began, "processor": answer["processor"]}


def main() -> None:
    """Measure every configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS, help=f"configurations (default: {', '.join(CONFIGS)})")
    parser.add_argument("--repeats", type=int, default=3, help="how often each is started after one warm-up (default: 3)")
    options = parser.parse_args()
    os.chdir(Path(__file__).parents[2])
    print(hardware())
    for config in options.configs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            turns = [(run_job(config, folder, turn), run_imports(folder)) for turn in range(1 + options.repeats)][1:]
        print(f"\n{config}")
        for kind, label in (("wall", "by the clock"), ("processor", "of processor")):
            jobs, imports = ([one[kind] for one in ways] for ways in zip(*turns, strict=True))
            print(
                f"seconds {label}: start to first batch {statistics.median(jobs):.2f}, from {min(jobs):.2f} to {max(jobs):.2f}"
            )
            print(f"  bare imports {statistics.median(imports):.2f}, from {min(imports):.2f} to {max(imports):.2f}")
            print(f"  ratio {statistics.median(jobs) / statistics.median(imports):.3f}")
        before = 0.0
        middle = sorted((job for job, _ in turns), key=lambda job: float(job["wall"]))[(len(turns) - 1) // 2]
        for label, at in middle["marks"].items():
            print(f"  {at - before:6.2f} s  {label}")
            before = at


if __name__ == "__main__":
    main()
