"""What the command line writes into checkpoints, and reads from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from madgnet_bench.callbacks.history import Effort, History
from madgnet_bench.errors import RunError

__all__ = ["KeptCheckpoint", "NetworkLabel", "epoch_and_effort", "read_checkpoint"]


class NetworkLabel(Callback):
    """Keeps the network's name in every checkpoint: built without its initial weights, it would not tell them.

    Args:
        label: The name in tables.
    """

    def __init__(self, label: str) -> None:
        self._label = label

    def state_dict(self) -> dict[str, str]:
        """What a checkpoint keeps."""
        return {"label": self._label}


class KeptCheckpoint(ModelCheckpoint):
    """Knows its best score also in a run folder that was moved: Lightning forgets it where the folder's path has changed."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over an earlier state, its files in the folder of today."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": models, "dirpath": self.dirpath})


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of the trainer, on the CPU, without running code of the file.

    Raises:
        RunError: There is no such file, it is damaged, or it is something else.
    """
    if not Path(path).is_file():
        raise RunError(f"{path}: no such checkpoint; correct --ckpt_path.")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # torch lets through whatever its readers raise
        raise RunError(f"{path}: not a checkpoint of a run, or damaged ({type(error).__name__}).") from error
    if not isinstance(state, dict) or not {"state_dict", "callbacks"} <= set(state):
        raise RunError(
            f"{path}: not a checkpoint of a run. Released weights are not named with --ckpt_path but with "
            "--model.init_args.network.init_args.checkpoint."
        )
    return state


def epoch_and_effort(checkpoint: Path) -> tuple[int, Effort]:
    """The epoch (from 0) that a checkpoint was written after, and what the training until then took, resumes included."""
    state = read_checkpoint(checkpoint)
    return int(state["epoch"]), Effort.of_state(state["callbacks"][History.__qualname__])
