"""All measures of a batch under a protocol: which are taken, on which map, and by which rule for empty masks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from madgnet_bench.metrics.calibration import brier_score, calibration_counts, calibration_error, negative_log_likelihood
from madgnet_bench.metrics.overlap import dice, emptiness, iou, mean_absolute_error, precision, recall, two_class_iou
from madgnet_bench.metrics.saliency import (
    THRESHOLDS,
    e_adaptive,
    e_curve,
    e_measure,
    mean_and_max,
    overlap_curves,
    released_e,
    released_s,
    s_measure,
    stretch,
    threshold_counts,
    weighted_f,
)
from madgnet_bench.metrics.surface import surface_measures
from madgnet_bench.protocol import Protocol

__all__ = ["CALIBRATION_BINS", "curve_shapes", "measure_cases", "pool_curves"]

CALIBRATION_BINS = 15
"""Bins of the reliability diagrams."""


def measure_cases(
    probability: Tensor,
    reference: Tensor,
    *,
    protocol: Protocol,
    measures: Collection[str] | None = None,
    spacing: Tensor | Sequence[float] | None = None,
    curves: bool = False,
) -> dict[str, Tensor]:
    """Measure a batch under a protocol.

    Args:
        probability: (N, K, *spatial) float in [0, 1].
        reference: (N, K, *spatial) in {0, 1}.
        protocol: How predictions become numbers.
        measures: Only these of the protocol's measures; all where None.
        spacing: (axes) or (N, axes) millimetres between pixels; needed where the protocol's unit of distances is ``"mm"``.
        curves: Also give what the pooled measures are made of; see `curve_shapes`.

    Returns:
        One (N, K) float64 tensor per measure, in the protocol's order; ``empty_case`` by `overlap.emptiness`; and the curves.

    Raises:
        ValueError: The shapes differ or do not fit the protocol's dimensions, a probability is NaN, or spacing is missing.
    """
    case = _Case(probability, reference, protocol, spacing)
    wanted = protocol.measures if measures is None else measures
    values = {name: case.measure(name) for name in protocol.measures if name in wanted}
    values["empty_case"] = emptiness(case.predicted, case.referred)
    if curves:
        values |= {name: getattr(case, name) for name in curve_shapes(protocol)}
    return values


def curve_shapes(protocol: Protocol) -> dict[str, tuple[int, int]]:
    """What is kept of each case for the pooled measures, and its shape beside (N, K).

    ``calibration`` is that of `calibration.calibration_counts`, ``thresholds`` that of `saliency.threshold_counts`.
    """
    shapes = {"calibration": (3, CALIBRATION_BINS)}
    over_thresholds = {"em_max", "dsc_max", "iou_max"}
    return shapes | ({"thresholds": (2, THRESHOLDS)} if over_thresholds & set(protocol.pooled_measures) else {})


def pool_curves(curves: Mapping[str, Tensor], *, protocol: Protocol) -> dict[str, float]:
    """The pooled measures of one target of a data set.

    Args:
        curves: What `measure_cases` kept, for the cases of one target: each (cases, ...) of `curve_shapes`.
        protocol: The protocol that they were measured under.

    Returns:
        One number per name in ``protocol.pooled_measures``.
    """
    values: dict[str, float] = {"ece": calibration_error(curves["calibration"].sum(0)).item()}
    if "thresholds" in curves:
        counts = curves["thresholds"][:, None]
        by_name = {"em": e_curve(counts), **overlap_curves(counts, empty=protocol.empty)}
        for name in ("em", "dsc", "iou"):
            values[f"{name}_max"] = mean_and_max(by_name[name])[1].item()
    return {name: values[name] for name in protocol.pooled_measures}


class _Case:
    """A batch and what several measures share, each computed when first asked for."""

    def __init__(
        self, probability: Tensor, reference: Tensor, protocol: Protocol, spacing: Tensor | Sequence[float] | None
    ) -> None:
        if probability.shape != reference.shape:
            raise ValueError(f"prediction is {tuple(probability.shape)}, reference is {tuple(reference.shape)}")
        if probability.dim() != 2 + protocol.dimensions:
            raise ValueError(
                f"prediction is {tuple(probability.shape)}, and protocol {protocol} compares {protocol.dimensions}D maps; "
                "use the protocol volume for volumes, and another for images"
            )
        if torch.isnan(probability).any():
            raise ValueError("the prediction holds NaN; look at the training loss and the learning rate")
        if protocol.unit == "mm" and spacing is None:
            raise ValueError(f"protocol {protocol} measures distances in mm, and no spacing is given")
        self.protocol = protocol
        self.spacing = spacing if protocol.unit == "mm" else None
        self.given = probability  # what calibration is about, whatever the protocol makes of it for the other measures
        self.probability = stretch(probability) if protocol.range == "stretched" else probability
        self.predicted = self.probability >= protocol.threshold
        self.referred = reference > 0.5

    def measure(self, name: str) -> Tensor:
        """One measure, (N, K) float64."""
        if name in _OVERLAPS:
            return _OVERLAPS[name](self.predicted, self.referred, empty=self.protocol.empty)
        if name in ("hd95", "assd", "nsd"):
            return self.surfaces[name]
        if name.endswith("_mean"):
            return self.threshold_curves[name.removesuffix("_mean")].mean(-1)
        return _OTHERS[name](self)

    @cached_property
    def map(self) -> Tensor:
        """What the protocol's measures of maps read, float64."""
        return (self.predicted if self.protocol.maps == "hard" else self.probability).double()

    @cached_property
    def surfaces(self) -> dict[str, Tensor]:
        """The surface distances, which share their distance transforms."""
        return surface_measures(self.predicted, self.referred, tolerance=self.protocol.tolerance, spacing=self.spacing)

    @cached_property
    def calibration(self) -> Tensor:
        """The bins of the reliability diagrams."""
        return calibration_counts(self.given, self.referred, bins=CALIBRATION_BINS)

    @cached_property
    def thresholds(self) -> Tensor:
        """The counts at 256 thresholds."""
        return threshold_counts(self.probability, self.referred)

    @cached_property
    def threshold_curves(self) -> dict[str, Tensor]:
        """Measures at each of the 256 thresholds, (N, K, 256) each."""
        return {"em": e_curve(self.thresholds), **overlap_curves(self.thresholds, empty=self.protocol.empty)}


_OVERLAPS: dict[str, Callable[..., Tensor]] = {
    "dsc": dice,
    "iou": iou,
    "miou": two_class_iou,
    "precision": precision,
    "recall": recall,
}

_OTHERS: dict[str, Callable[[_Case], Tensor]] = {
    "mae": lambda case: mean_absolute_error(
        case.predicted if case.protocol.maps == "hard" else case.probability, case.referred
    ),
    "wf": lambda case: weighted_f(case.map, case.referred, empty=case.protocol.empty_wf),
    "sm": lambda case: s_measure(case.map, case.referred),
    "em": lambda case: e_measure(case.predicted, case.referred),
    "em_adaptive": lambda case: e_adaptive(case.probability, case.referred),
    "brier": lambda case: brier_score(case.given, case.referred),
    "nll": lambda case: negative_log_likelihood(case.given, case.referred),
    "sm_released": lambda case: released_s(case.predicted, case.referred),
    "em_released": lambda case: released_e(case.predicted, case.referred),
}
