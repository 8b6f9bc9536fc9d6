"""A data set seen as one target, so that sets with targets of other names can be trained together."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.errors import ConfigError, Problem

__all__ = ["SingleTarget"]


class SingleTarget(SegmentationDataset):
    """Another data set with one target of a common name: its own only one, a chosen one, or the union of all.

    Networks of mixed-modality training have one foreground channel for polyps, lesions and discs alike. Without this, sets with
    other target names get channels of their own.

    Args:
        source: The data set.
        target: Which of its targets; the union of all where None.
        name: What the target is called, alike for all sets that are trained together.

    Raises:
        ConfigError: The data set has no such target.
    """

    def __init__(self, source: SegmentationDataset, *, target: str | None = None, name: str = "foreground") -> None:
        if target is not None and target not in source.card.targets:
            raise ConfigError(f"{source.name} has no target {target!r}; it has {', '.join(source.card.targets)}.")
        self.name = source.name if target is None else f"{source.name}:{target}"
        self.card = dataclasses.replace(source.card, targets=(name,), containment=())
        self.split_name = source.split_name
        self._source = source
        self._target = target
        self._channel = None if target is None else source.card.targets.index(target)

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """The cases of the data set."""
        return self._source.scan()

    def file(self, path: str) -> str:
        """Where a path of a case lies."""
        return self._source.file(path)

    def spacing(self, case: Case) -> tuple[float, ...] | None:
        """As the data set has it."""
        return self._source.spacing(case)

    def read_image(self, case: Case) -> NDArray[np.uint8] | NDArray[np.float32]:
        """As the data set decodes it.

        Raises:
            FileProblem: The file cannot be used.
        """
        return self._source.read_image(case)

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """The target: (1, *spatial) uint8 in {0, 1}.

        Raises:
            FileProblem: The file cannot be used.
        """
        mask = self._source.read_mask(case)
        return mask.max(axis=0, keepdims=True) if self._channel is None else mask[self._channel : self._channel + 1]
