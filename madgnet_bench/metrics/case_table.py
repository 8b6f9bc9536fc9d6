"""Torchmetrics state that collects one row per case and target, gathered once over all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from madgnet_bench.metrics.overlap import MEASURES, measure_cases
from madgnet_bench.protocol import Protocol

__all__ = ["CaseMeasures"]


class CaseMeasures(Metric):
    """The measures of every case and target, whatever the batch size and the number of processes.

    `compute` returns a float64 matrix, sorted by its first three columns: data set index, case index, target index, empty
    case (index into `records.EMPTY_CASES`), then one column per name in `MEASURES`.

    Args:
        protocol: How predictions become numbers.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, protocol: Protocol, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.reset()

    def update(
        self, probability: Tensor, reference: Tensor, *, present: Tensor, case_index: Tensor, dataset_index: int
    ) -> None:
        """Measure a batch of one data set.

        Args:
            probability: (N, K, *spatial) float in [0, 1].
            reference: (N, K, *spatial) in {0, 1}.
            present: (N, K) bool; targets that the set does not annotate leave no row.
            case_index: (N,) row of each case in its manifest.
            dataset_index: Index of the data set among the loaders.
        """
        values = measure_cases(probability, reference, protocol=self.protocol)
        n, k = present.shape
        index = torch.stack(
            [
                torch.full((n, k), dataset_index, device=present.device),
                case_index[:, None].expand(n, k),
                torch.arange(k, device=present.device).expand(n, k),
            ],
            dim=-1,
        )
        columns = [index, values["empty_case"][..., None], *(values[name][..., None] for name in MEASURES)]
        self.rows.append(torch.cat([column.double() for column in columns], dim=-1)[present])

    def reset(self) -> None:
        """Forget every row; an empty matrix stays, so that a process without cases can be gathered from."""
        super().reset()
        self.rows.append(torch.zeros(0, 4 + len(MEASURES), dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """All rows of all processes, (cases x targets, 4 + measures) on the CPU, sorted."""
        rows = self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)
        return torch.tensor(sorted(rows.tolist()), dtype=torch.float64).reshape(-1, 4 + len(MEASURES))
