"""Time several ways of doing one thing in turn, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["hardware", "in_turn", "medians"]


def in_turn(ways: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run every way once per round, ``warm_up`` rounds unmeasured, and return the seconds of each measured round.

    Work that a way leaves running on a GPU is waited for.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + repeats):
        for name, way in ways.items():
            _wait()
            start = time.perf_counter()
            way()
            _wait()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median seconds of every way."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def hardware(device: str = "cpu") -> str:
    """Name the device, and for a processor the threads that torch uses."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _wait() -> None:
    """Wait for the GPU, where there is one in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
