"""How long a leaderboard takes: 50 runs of 10,000 case rows each, in a fresh process with warm files.

    python benchmarks/speed/leaderboard.py [--runs 50] [--cases 10000] [--repeats 5] [--profile]

The runs are made in a temporary folder: ten models with five seeds, ten test sets, three cases per patient, twenty measures.
Printed are the elapsed and the processor time of the whole command, interpreter and imports included, with the replicates
beside the case tables, without intervals, and with replicates computed from the case tables; `--profile` adds where the time
goes. On a shared machine the elapsed time says little.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from madgnet_bench import __version__
from madgnet_bench.bench.resampling import write_replicates
from madgnet_bench.cli import main as command_line
from madgnet_bench.protocol import MEASURES, Protocol
from madgnet_bench.records import CaseRow, RunFolder, run_id, summarize, write_atomically

PROTOCOL = Protocol.parse("pranet[released=on]")  # twenty measures of a case
SETS = [("seen" if number < 3 else "unseen", f"hospital_{number}") for number in range(10)]


def main() -> None:
    """Make the runs, then time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = [make_run(root, number, options.cases) for number in range(options.runs)]
        size = sum(run.cases_file.stat().st_size for run in made) / 1e6
        print(f"{options.runs} runs x {options.cases} case rows x {len(PROTOCOL.measures)} measures, {size:.0f} MB of CSV")
        for run in made:
            write_replicates(run)
        measure("with intervals, replicates stored", [str(root)], options.repeats)
        measure("without intervals", [str(root), "--no-intervals"], options.repeats)
        if options.profile:
            profile([str(root)])
        for run in made:
            (run.path / "replicates.npz").unlink()
        measure("with intervals, replicates computed", [str(root)], 1)


def make_run(root: Path, number: int, cases: int) -> RunFolder:
    """Write one run with scores that are drawn."""
    model, seed = divmod(number, 5)
    draw = random.Random(number)
    names = PROTOCOL.measures
    rows = [case_row(place, draw, names) for place in range(cases)]
    manifests = {name: f"{place:064x}" for place, (_, name) in enumerate(SETS)}
    config = {"seed_everything": seed, "model": {"network": f"network {model}"}}
    identity = run_id(config, manifests, str(PROTOCOL))
    folder = RunFolder(root / identity)
    write_atomically(folder.config_file, f"seed_everything: {seed}\nmodel:\n  network: network {model}\n")
    folder.write_cases(rows)
    folder.write_result(
        {
            "run_id": identity,
            "suite": "speed",
            "network": f"network {model}",
            "parameters": 1_000_000 * (model + 1),
            "seed": seed,
            "epochs": 100,
            "image_size": 352,
            "protocol": str(PROTOCOL),
            "checkpoint": {"rule": "best", "epoch": 1, "monitor": "val/dsc", "value": 0.5},
            "training_sets": [name for setting, name in SETS if setting == "seen"],
            "manifests": manifests,
            "cells": summarize(rows),
            "package": {"version": __version__, "commit": None},
            "hardware": {"machine": "none", "accelerator": "cpu", "threads": 1},
            "seconds": 1.0,
            "deviations": [],
        }
    )
    return folder


def case_row(place: int, draw: random.Random, names: tuple[str, ...]) -> CaseRow:
    """One case: three per patient."""
    setting, dataset = SETS[place % len(SETS)]
    return CaseRow(
        case_id=f"case_{place:05d}",
        group_id=f"patient_{place // (3 * len(SETS)):04d}",
        dataset=dataset,
        modality="ultrasound",
        domain=dataset,
        setting=setting,
        target="lesion",
        protocol=str(PROTOCOL),
        empty_case="neither",
        measures={name: draw.random() * (1 if MEASURES[name].unit == "fraction" else 20) for name in names},
    )


def measure(title: str, arguments: list[str], repeats: int) -> None:
    """Time the command in processes of their own; the first warms the files up."""
    line = [sys.executable, "-m", "madgnet_bench", "leaderboard", *arguments]
    elapsed, processor = [], []
    for _ in range(repeats + 1):
        before, start = cpu_seconds(), time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
        elapsed.append(time.perf_counter() - start)
        processor.append(cpu_seconds() - before)
    times = [f"{statistics.median(values[1:]):.2f} s (least {min(values[1:]):.2f})" for values in (elapsed, processor)]
    print(f"{title}: elapsed {times[0]}, processor {times[1]}")


def cpu_seconds() -> float:
    """Processor time of the finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def profile(arguments: list[str]) -> None:
    """Run the command in this process and print where the time goes."""
    profiler = cProfile.Profile()
    output, sys.stdout = sys.stdout, open(os.devnull, "w", encoding="utf-8")
    try:
        profiler.runcall(command_line, ["leaderboard", *arguments])
    finally:
        sys.stdout.close()
        sys.stdout = output
    pstats.Stats(profiler, stream=sys.stdout).strip_dirs().sort_stats("cumulative").print_stats(25)


if __name__ == "__main__":
    main()
