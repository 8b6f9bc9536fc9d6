"""Overlap and error per case, as plain functions of tensors.

Probabilities and references are (N, K, *spatial); every measure is (N, K) float64, one value per case and target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from madgnet_bench.protocol import Protocol

__all__ = ["MEASURES", "dice", "emptiness", "iou", "mean_absolute_error", "measure_cases"]

MEASURES = ("dsc", "iou", "mae")
"""Names of the measures of `measure_cases`, in order."""


def dice(prediction: Tensor, reference: Tensor, *, empty: float) -> Tensor:
    """Dice similarity coefficient 2|P and R| / (|P| + |R|).

    Args:
        prediction: (N, K, *spatial) bool.
        reference: (N, K, *spatial) bool.
        empty: Value where both are empty.

    >>> p = torch.tensor([[[[True, True, False]]]]); r = torch.tensor([[[[True, False, False]]]])
    >>> round(dice(p, r, empty=1.0).item(), 4)
    0.6667
    """
    intersection, predicted, referred = _counts(prediction, reference)
    return _ratio(2 * intersection, predicted + referred, empty)


def iou(prediction: Tensor, reference: Tensor, *, empty: float) -> Tensor:
    """Intersection over union of the foreground |P and R| / |P or R|; arguments as `dice`."""
    intersection, predicted, referred = _counts(prediction, reference)
    return _ratio(intersection, predicted + referred - intersection, empty)


def mean_absolute_error(probability: Tensor, reference: Tensor) -> Tensor:
    """Mean of |p - r| over pixels; of a thresholded map where ``probability`` is bool."""
    return (probability.double() - reference.double()).abs().flatten(2).mean(-1)


def emptiness(prediction: Tensor, reference: Tensor) -> Tensor:
    """Which of both holds no foreground: (N, K) long index into `records.EMPTY_CASES`.

    0 neither, 1 the reference only, 2 the prediction only, 3 both.
    """
    _, predicted, referred = _counts(prediction, reference)
    return (referred == 0).long() + 2 * (predicted == 0).long()


def measure_cases(probability: Tensor, reference: Tensor, *, protocol: Protocol) -> dict[str, Tensor]:
    """All measures of a batch under a protocol, and ``empty_case`` by `emptiness`.

    Args:
        probability: (N, K, *spatial) float in [0, 1].
        reference: (N, K, *spatial) in {0, 1}.
        protocol: Threshold, empty-mask policy, hard or soft MAE.

    Raises:
        ValueError: The shapes differ, or a probability is NaN.
    """
    if probability.shape != reference.shape:
        raise ValueError(f"prediction is {tuple(probability.shape)}, reference is {tuple(reference.shape)}")
    if torch.isnan(probability).any():
        raise ValueError("the prediction holds NaN; look at the training loss and the learning rate")
    predicted, referred = probability >= protocol.threshold, reference > 0.5
    return {
        "dsc": dice(predicted, referred, empty=protocol.empty),
        "iou": iou(predicted, referred, empty=protocol.empty),
        "mae": mean_absolute_error(predicted if protocol.mae == "hard" else probability, referred),
        "empty_case": emptiness(predicted, referred),
    }


def _counts(prediction: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in both, in the prediction and in the reference, (N, K) each."""
    p, r = prediction.flatten(2), reference.flatten(2)
    return (p & r).sum(-1), p.sum(-1), r.sum(-1)


def _ratio(numerator: Tensor, denominator: Tensor, empty: float) -> Tensor:
    """Divide, with a fixed value where the denominator is zero."""
    value = numerator.double() / denominator.clamp_min(1).double()
    return torch.where(denominator == 0, torch.full_like(value, empty), value)
