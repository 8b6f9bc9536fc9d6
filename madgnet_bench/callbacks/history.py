"""One row per epoch, in the run folder and in the log."""

from __future__ import annotations

import logging
import time

from lightning.pytorch import Callback, LightningModule, Trainer

from madgnet_bench.records import RunFolder

__all__ = ["History"]

_log = logging.getLogger(__name__)


class History(Callback):
    """Writes ``history.csv`` after each epoch; a resumed run replaces the rows from its first epoch on.

    Checkpoints keep the seconds of training so far, validation and resumes included, under ``seconds``.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._started = 0.0
        self._first_epoch = 0
        self._seconds_before = 0.0

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"seconds": self._seconds_before + time.monotonic() - self._started}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Continue the count of a resumed run."""
        self._seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started, self._first_epoch = time.monotonic(), trainer.current_epoch

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
