"""Learning-rate schedules that know how many optimiser steps a training has."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

__all__ = ["Cosine", "Schedule"]


class Schedule(ABC):
    """From an optimiser and the number of optimiser steps to a scheduler that is stepped after each of them."""

    @abstractmethod
    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Build the scheduler.

        Args:
            optimizer: What it drives.
            steps: Optimiser steps of the whole training.
        """


class Cosine(Schedule):
    """Half a cosine from the optimiser's rate to ``minimum`` over the whole training.

    Args:
        minimum: Learning rate at the end.
    """

    def __init__(self, *, minimum: float = 1e-6) -> None:
        self._minimum = minimum

    def __call__(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """Build the cosine."""
        return CosineAnnealingLR(optimizer, T_max=max(1, steps), eta_min=self._minimum)
