"""Torchmetrics state that collects one row per case and target, gathered once over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from madgnet_bench.metrics.measures import curve_shapes, measure_cases
from madgnet_bench.protocol import Protocol

__all__ = ["CaseMeasures", "MeasuredCases"]


class MeasuredCases(NamedTuple):
    """The measured cases, sorted by data set, case and target.

    Attributes:
        places: (R, 4) long: data set index, case index, target index, empty case (index into `records.EMPTY_CASES`).
        values: (R, M) float64, one column per measure.
        curves: What the pooled measures are made of, (R, *shape) each by `measures.curve_shapes`; empty where not kept.
    """

    places: Tensor
    values: Tensor
    curves: dict[str, Tensor]


class CaseMeasures(Metric):
    """The measures of every case and target, whatever the batch size and the number of processes.

    Args:
        protocol: How predictions become numbers.
        measures: Names of the measures, in the protocol's order; all of the protocol's where None.
        curves: Also keep what the pooled measures are made of.

    Attributes:
        measures: Names of the columns of `MeasuredCases.values`.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self, protocol: Protocol, *, measures: Sequence[str] | None = None, curves: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        self.measures = protocol.measures if measures is None else tuple(measures)
        self._shapes = curve_shapes(protocol) if curves else {}
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.reset()

    def update(
        self,
        probability: Tensor,
        reference: Tensor,
        *,
        present: Tensor,
        case_index: Tensor,
        dataset_index: int,
        spacing: Tensor | None = None,
    ) -> None:
        """Measure a batch of one data set.

        Args:
            probability: (N, K, *spatial) float in [0, 1].
            reference: (N, K, *spatial) in {0, 1}.
            present: (N, K) bool; targets that the set does not annotate leave no row.
            case_index: (N,) row of each case in its manifest.
            dataset_index: Index of the data set among the loaders.
            spacing: (N, len(spatial)) millimetres between the pixels of these maps.
        """
        values = measure_cases(
            probability,
            reference,
            protocol=self.protocol,
            measures=self.measures,
            spacing=spacing,
            curves=bool(self._shapes),
        )
        n, k = present.shape
        columns = [
            torch.full((n, k), dataset_index, device=present.device),
            case_index[:, None].expand(n, k),
            torch.arange(k, device=present.device).expand(n, k),
            values["empty_case"],
            *(values[name] for name in self.measures),
        ]
        curves = [values[name].double().flatten(2) for name in self._shapes]
        table = torch.cat([torch.stack([column.double() for column in columns], dim=-1), *curves], dim=-1)
        self.rows.append(table[present])

    def reset(self) -> None:
        """Forget every row; an empty matrix stays, so that a process without cases can be gathered from."""
        super().reset()
        self.rows.append(torch.zeros(0, self._width, dtype=torch.float64, device=self.device))

    def compute(self) -> MeasuredCases:
        """All rows of all processes, on the CPU, sorted."""
        rows = (self.rows if isinstance(self.rows, Tensor) else torch.cat(self.rows)).cpu()
        order = np.lexsort([rows[:, column].numpy() for column in (2, 1, 0)])
        rows = rows[torch.from_numpy(order)]
        sizes = [4, len(self.measures), *(prod(shape) for shape in self._shapes.values())]
        index, values, *curves = rows.split(sizes, dim=1)
        by_name = zip(self._shapes.items(), curves, strict=True)
        return MeasuredCases(index.long(), values, {name: curve.reshape(-1, *shape) for (name, shape), curve in by_name})

    @property
    def _width(self) -> int:
        return 4 + len(self.measures) + sum(prod(shape) for shape in self._shapes.values())
