"""Overlap and error per case, as plain functions of tensors.

Probabilities and references are (N, K, *spatial); every measure is (N, K) float64, one value per case and target.

| measure | both empty | only reference empty | only prediction empty | neither |
|---|---|---|---|---|
| `dice`, `iou`, `precision`, `recall` | ``empty`` | 0 | 0 | counts |
| `two_class_iou` | half of ``empty`` + 1 | half the background's IoU | half the background's IoU | mean of both classes |
| `mean_absolute_error` | mean of p | mean of p | mean of abs(p - g) | mean of abs(p - g) |

``empty`` has no default. Precision without a prediction and recall without a reference are 0 / 0; here they are 0 unless both
are empty, so that neither a missed lesion nor a false alarm improves a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "dice",
    "emptiness",
    "iou",
    "mean_absolute_error",
    "precision",
    "recall",
    "two_class_iou",
]


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


def two_class_iou(prediction: Tensor, reference: Tensor, *, empty: float) -> Tensor:
    """Mean of the IoU of the foreground and the IoU of the background; arguments as `dice`.

    This is what "mIoU" says for one target, though papers also write mIoU for the mean of `iou` over images. A class that
    neither map holds scores ``empty``: the background of two full masks, too.
    """
    return (iou(prediction, reference, empty=empty) + iou(~prediction, ~reference, empty=empty)) / 2


def precision(prediction: Tensor, reference: Tensor, *, empty: float) -> Tensor:
    """Share of the prediction that is right |P and R| / |P|; 0 where only the prediction is empty; arguments as `dice`."""
    intersection, predicted, referred = _counts(prediction, reference)
    return torch.where(predicted + referred == 0, empty, _ratio(intersection, predicted, 0.0))


def recall(prediction: Tensor, reference: Tensor, *, empty: float) -> Tensor:
    """Share of the reference that is found |P and R| / |R|; 0 where only the reference is empty; arguments as `dice`."""
    return precision(reference, prediction, empty=empty)


def mean_absolute_error(probability: Tensor, reference: Tensor) -> Tensor:
    """Mean of |p - r| over pixels; of a thresholded map where ``probability`` is bool."""
    if probability.dtype == torch.bool:
        return (probability ^ reference.bool()).flatten(2).double().mean(-1)
    return (probability.double() - reference.double()).abs_().flatten(2).mean(-1)


def emptiness(prediction: Tensor, reference: Tensor) -> Tensor:
    """Which of both holds no foreground: (N, K) long index into `records.EMPTY_CASES`.

    0 neither, 1 the reference only, 2 the prediction only, 3 both.
    """
    _, predicted, referred = _counts(prediction, reference)
    return (referred == 0).long() + 2 * (predicted == 0).long()


def _counts(prediction: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in both, in the prediction and in the reference, (N, K) each."""
    p, r = prediction.flatten(2), reference.flatten(2)
    both, predicted, referred = (mask.sum(-1, dtype=torch.int32).long() for mask in (p & r, p, r))
    return both, predicted, referred


def _ratio(numerator: Tensor, denominator: Tensor, empty: float) -> Tensor:
    """Divide, with a fixed value where the denominator is zero."""
    value = numerator.double() / denominator.clamp_min(1).double()
    return torch.where(denominator == 0, torch.full_like(value, empty), value)
