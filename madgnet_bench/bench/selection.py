"""Which runs and which of their cells a table shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from madgnet_bench.bench.store import Cell, Run
from madgnet_bench.errors import RunError

__all__ = ["Selection"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Patterns as of the shell, compared without case; of several of one kind one must match, none of a kind takes all.

    Attributes:
        networks: Patterns of the labels of networks.
        training_sets: Patterns of training sets, one of which a run must have been trained on.
        datasets: Patterns of test sets.
        setting: ``"seen"`` or ``"unseen"``; None for both.
    """

    networks: tuple[str, ...] = ()
    training_sets: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    setting: str | None = None

    def apply(self, runs: Sequence[Run]) -> list[Run]:
        """Keep the chosen runs, with the chosen cells only; a run that has none of these stays, so that this can be shown.

        Raises:
            RunError: Nothing is left; the message names what there is.
        """
        chosen = []
        for run in runs:
            if _match([run.network], self.networks) and _match(run.training_sets, self.training_sets):
                cells = tuple(cell for cell in run.cells if self._takes(cell))
                chosen.append(run if len(cells) == len(run.cells) else replace(run, cells=cells))
        if runs and not any(run.cells for run in chosen):
            kinds = {
                "networks": {run.network for run in runs},
                "training sets": {name for run in runs for name in run.training_sets},
                "test sets": {cell.dataset for run in runs for cell in run.cells},
            }
            there = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items())
            raise RunError(f"no run is left with {self}. The runs hold {there}.")
        return chosen

    def _takes(self, cell: Cell) -> bool:
        return _match([cell.dataset], self.datasets) and self.setting in (None, cell.setting)

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return self != Selection()

    @property
    def columns(self) -> bool:
        """Whether columns may be left out."""
        return bool(self.datasets or self.setting)

    def __str__(self) -> str:
        parts = [
            *(("network " + " or ".join(self.networks),) if self.networks else ()),
            *(("training set " + " or ".join(self.training_sets),) if self.training_sets else ()),
            *(("test set " + " or ".join(self.datasets),) if self.datasets else ()),
            *((f"{self.setting} test sets",) if self.setting else ()),
        ]
        return ", ".join(parts) or "everything"


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name.lower(), pattern.lower()) for name in names for pattern in patterns)
