"""What one image costs a network: multiplications, and milliseconds on the device at hand."""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.flop_counter import FlopCounterMode

from madgnet_bench.contracts import SegmentationBatch, SegmentationNetwork
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.tasks.supervised import SegmentationTask

__all__ = ["Costs", "measure_costs"]

_WARM_UP = {"cuda": 5}
_REPEATS = {"cuda": 30}
_SECONDS = 2.0
"""No repeat begins after so long."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of one image at the size of training.

    Attributes:
        gmac: 1e9 multiply-accumulates of one forward pass of the network in eval mode: half of what
            `torch.utils.flop_counter` counts, which are convolutions, matrix products and attention; additions, activations,
            normalisations, resizing and transforms other than by matrices are left out. None where it cannot be counted.
        milliseconds_per_image: Time to predict one image as in the test (inferer, prompts, precision; no stored embeddings),
            in a batch of its own that is on the device already; median of several after a warm-up. None where it failed.
        milliseconds_repeats: How many times were taken.
        reasons: Why a figure is missing, by its name.
    """

    gmac: float | None = None
    milliseconds_per_image: float | None = None
    milliseconds_repeats: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def measure_costs(
    trainer: Trainer, model: SegmentationTask, datamodule: SeenUnseenDataModule, *, seconds: float = _SECONDS
) -> Costs:
    """Measure on the first test case, with a copy of the network: an inferer may adapt it.

    Weights, statistics, modes and random streams stay as they are, and so does every setting of torch. What fails is left out
    with its reason: costs never cost a run its result.

    Args:
        trainer: Whose device and precision are used; it has tested.
        model: The task, with the tested weights.
        datamodule: Its data, set up for the test.
        seconds: No repeat begins after so long.
    """
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    device = trainer.strategy.root_device
    with _random_streams_kept(device):
        try:
            batch = trainer.precision_plugin.convert_input(_first_case(datamodule).to(device))
            network = copy.deepcopy(model.network).to(device).eval()
        except Exception as error:
            reason = _reason(error)
            return Costs(reasons={"gmac": reason, "milliseconds_per_image": reason})

        def infer() -> None:
            with trainer.precision_plugin.forward_context():
                model._infer(batch)

        def count() -> float:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                told = model.context(batch)
                context = told if told is None else told._replace(embedding=None)
                with FlopCounterMode(display=False) as counter:
                    network(batch.image, context=context)
            return counter.get_total_flops() / 2e9

        with _in_place(model, network):
            try:
                found["gmac"] = count() or None
                if found["gmac"] is None:
                    reasons["gmac"] = "nothing that torch counts"
            except Exception as error:
                reasons["gmac"] = _reason(error)
            try:
                times = _times(infer, device, seconds=seconds)
                found["milliseconds_per_image"] = round(1000 * statistics.median(times), 4)
                found["milliseconds_repeats"] = len(times)
            except Exception as error:
                reasons["milliseconds_per_image"] = _reason(error)
    return Costs(**found, reasons=reasons)


def _first_case(datamodule: SeenUnseenDataModule) -> SegmentationBatch:
    """The first case of the first test set that has one."""
    cases = next(test_set.cases for test_set in datamodule.test_sets if len(test_set.cases))
    return SegmentationBatch.collate([cases[0]])


def _times(way: Callable[[], None], device: torch.device, *, seconds: float) -> list[float]:
    """Seconds of every repeat, at least one, after the warm-up."""
    warm_up, repeats = _WARM_UP.get(device.type, 1), _REPEATS.get(device.type, 7)
    end = time.perf_counter() + seconds
    times: list[float] = []
    for turn in range(warm_up + repeats):
        _wait(device)
        began = time.perf_counter()
        if times and began > end:
            break
        way()
        _wait(device)
        if turn >= warm_up:
            times.append(time.perf_counter() - began)
    return times


@contextmanager
def _in_place(model: SegmentationTask, network: SegmentationNetwork) -> Iterator[None]:
    """Let a task predict with another network for a while, and without embeddings that were computed before."""
    kept, store = model.network, getattr(model, "embeddings", None)
    try:
        model.network = network
        if store is not None:
            vars(model)["embeddings"] = None
        yield
    finally:
        model.network = kept
        if store is not None:
            vars(model)["embeddings"] = store


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _random_streams_kept(device: torch.device) -> Iterator[None]:
    """Leave the random streams of Python, NumPy and torch as they were found."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
