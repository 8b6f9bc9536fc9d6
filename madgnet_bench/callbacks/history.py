"""One row per epoch, in the run folder and in the log, and what the training took."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from madgnet_bench.records import RunFolder

__all__ = ["Effort", "History"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a training took, validation and resumes included.

    Attributes:
        seconds: Of wall clock.
        device_seconds: Those, times the devices at work.
        peak_memory_mb: Most memory in use at once, in 1e6 bytes; of one device where there are several. None where unknown.
        peak_memory_of: ``"gpu"``: what torch had allocated on the first GPU in training; ``"process"``: resident memory of
            the first process from its start, libraries included; None where unknown.
    """

    seconds: float
    device_seconds: float
    peak_memory_mb: float | None = None
    peak_memory_of: str | None = None

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Read what a checkpoint keeps; those of earlier versions know the seconds only, of one device."""
        seconds = float(state["seconds"])
        devices = float(state.get("device_seconds", seconds))
        memory = state.get("peak_memory_mb")
        return cls(seconds=seconds, device_seconds=devices, peak_memory_mb=memory, peak_memory_of=state.get("peak_memory_of"))


class History(Callback):
    """Writes ``history.csv`` after each epoch; a resumed run replaces the rows from its first epoch on.

    Checkpoints keep the fields of `Effort`.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._started = 0.0
        self._first_epoch = 0
        self._before = Effort(seconds=0.0, device_seconds=0.0)
        self._devices = 1
        self._device = torch.device("cpu")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        seconds = time.monotonic() - self._started
        memory, of = _peak_memory(self._device)
        before = self._before
        return {
            "seconds": before.seconds + seconds,
            "device_seconds": before.device_seconds + seconds * self._devices,
            "peak_memory_mb": max(memory, (before.peak_memory_mb or 0.0) if before.peak_memory_of == of else 0.0),
            "peak_memory_of": of,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the count of a resumed run."""
        self._before = Effort.of_state(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch
        self._devices, self._device = trainer.world_size, trainer.strategy.root_device
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log the epoch's losses, seen validation measures and learning rate."""
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}  # reduced over processes
        if not trainer.is_global_zero:
            return
        values["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self._folder.append_history(trainer.current_epoch, values)
        self._report(trainer, values)

    def _report(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Log one line with the time left."""
        epochs = trainer.max_epochs or 0
        done = trainer.current_epoch + 1
        spent = time.monotonic() - self._started
        left = spent / (done - self._first_epoch) * max(epochs - done, 0)
        shown = [f"loss {values['train/loss']:.4f}"] if "train/loss" in values else []
        shown += [f"seen validation DSC {100 * values['val/dsc']:.2f}"] if "val/dsc" in values else []
        _log.info("epoch %d/%d  %s  %.0f s left", done, epochs, "  ".join(shown), left)


def _peak_memory(device: torch.device) -> tuple[float, str]:
    """The most memory in use at once so far, in 1e6 bytes, and whose; see `Effort`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6, "gpu"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, "process"
