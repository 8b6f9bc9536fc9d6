"""What a run was made with: versions, commit, hardware, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from madgnet_bench import __version__, records

if TYPE_CHECKING:
    from lightning.pytorch import Trainer  # costs seconds, and `evaluate` does without

__all__ = ["describe_environment", "describe_hardware", "describe_package"]

_PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations", "jsonargparse", "numpy", "pillow")


def describe_package() -> dict[str, str | None]:
    """Version of the suite, and the commit where it runs from a checkout."""
    home = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False) if (home / ".git").exists() else None
    return {"version": __version__, "commit": found.stdout.strip() if found and found.returncode == 0 else None}


def describe_hardware(trainer: Trainer) -> dict[str, Any]:
    """Name of the processor or GPU, devices and threads that a trainer used."""
    on_gpu = trainer.strategy.root_device.type == "cuda"
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "accelerator": torch.cuda.get_device_name(trainer.strategy.root_device) if on_gpu else "CPU",
        "devices": trainer.world_size,
        "threads": torch.get_num_threads(),
        "precision": str(trainer.precision),
    }


def describe_environment() -> dict[str, Any]:
    """Versions and command, without paths of the machine's owner beyond the command itself."""
    return {
        "schema_version": records.SCHEMA_VERSION,
        "package": describe_package(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "command": ["madgnet-bench", *sys.argv[1:]],
    }
