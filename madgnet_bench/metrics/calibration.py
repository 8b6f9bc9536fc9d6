"""Calibration per case and target: whether a probability of 0.7 is right in 7 of 10 pixels.

Each target is a binary question of its own. Probabilities and references are (N, K, *spatial). The expected calibration error
is no mean over cases: `calibration_counts` keeps for each case what its reliability diagram is drawn from, and these counts are
summed over the cases before `calibration_error` and `reliability_curve` read them. Brier score and likelihood are plain means.

Empty masks need no rule here: every pixel is a question with an answer, so the measures are defined in all four cases.

| measure | both empty | only reference empty | only prediction empty | neither |
|---|---|---|---|---|
| calibration error | mean of p within each bin | as on the left | frequency against p within each bin | as on the left |
| Brier score | mean of p^2 | mean of p^2 | mean of (p - g)^2 | mean of (p - g)^2 |
| negative log-likelihood | mean of -log(1 - p) | as on the left | by its formula | by its formula |

References: G. Brier, 1950; M. Naeini, G. Cooper, M. Hauskrecht, AAAI 2015; C. Guo et al., arXiv 1706.04599.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["brier_score", "calibration_counts", "calibration_error", "negative_log_likelihood", "reliability_curve"]


def calibration_counts(
    probability: Tensor, reference: Tensor, *, bins: int = 15, confidence: Literal["foreground", "predicted"] = "foreground"
) -> Tensor:
    """Sort the pixels of each case by their confidence into bins of equal width.

    Bin b of B holds the confidences from b / B up to, but without, (b + 1) / B; the last holds 1 too.

    Args:
        probability: (N, K, *spatial) float in [0, 1].
        reference: (N, K, *spatial) bool.
        bins: Number of bins over [0, 1].
        confidence: ``"foreground"``: the confidence is p and the outcome the reference. ``"predicted"``: the confidence is that
            of the predicted class, max(p, 1 - p), and the outcome whether that class, foreground from p = 0.5 on, is right.

    Returns:
        (N, K, 3, bins) float64: number of pixels, sum of their confidences, number of their positive outcomes.

    Raises:
        ValueError: The shapes differ, there is no bin, or a probability is NaN or outside [0, 1].

    >>> p = torch.tensor([[[0.1, 0.2, 0.9, 1.0]]]); g = torch.tensor([[[False, True, True, True]]])
    >>> calibration_counts(p, g, bins=2)[0, 0, [0, 2]].tolist()
    [[2.0, 2.0], [1.0, 2.0]]
    """
    p, g = _checked(probability, reference)
    if bins < 1:
        raise ValueError(f"{bins} bins; take at least 1")
    outcome = g
    if confidence == "predicted":
        p, outcome = torch.maximum(p, 1 - p), (p >= 0.5) == g
    index = (p * bins).long().clamp_max_(bins - 1)
    values = torch.stack([torch.ones_like(p), p, outcome.double()], 2)
    sums = torch.zeros(*values.shape[:3], bins, dtype=torch.float64, device=p.device)
    return sums.scatter_add_(-1, index.unsqueeze(2).expand_as(values), values)


def calibration_error(counts: Tensor) -> Tensor:
    """Expected calibration error: the gap between confidence and frequency in each bin, weighted by its pixels.

    Args:
        counts: (..., 3, bins) of `calibration_counts`: of each case, or summed over the cases of a data set.

    Raises:
        ValueError: The counts hold no pixel.

    >>> counts = torch.tensor([[4.0, 6.0], [1.0, 5.4], [1.0, 6.0]])
    >>> round(calibration_error(counts).item(), 4)
    0.06
    """
    number, confidence, positives = counts.double().unbind(-2)
    pixels = number.sum(-1)
    if not bool((pixels > 0).all()):
        raise ValueError("no pixel was counted; sum the counts of at least one case")
    return (confidence - positives).abs().sum(-1) / pixels


def reliability_curve(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The points of the reliability diagram.

    Args:
        counts: (..., 3, bins) of `calibration_counts`, summed as wanted.

    Returns:
        Mean confidence, frequency of the positive outcome and share of the pixels, (..., bins) each. Confidence and frequency
        of a bin without pixels are undefined: NaN.
    """
    number, confidence, positives = counts.double().unbind(-2)
    share = number / number.sum(-1, keepdim=True).clamp_min(1)
    filled = torch.where(number > 0, number, torch.nan)
    return confidence / filled, positives / filled, share


def brier_score(probability: Tensor, reference: Tensor) -> Tensor:
    """Mean over the pixels of (p - g)^2, (N, K) float64; arguments and errors as `calibration_counts`."""
    p, g = _checked(probability, reference)
    return (p - g.double()).square_().mean(-1)


def negative_log_likelihood(probability: Tensor, reference: Tensor, *, clip: float = 1e-7) -> Tensor:
    """Mean over the pixels of -log of the probability given to what is there, (N, K) float64, in nats.

    Args:
        probability: (N, K, *spatial) float in [0, 1].
        reference: (N, K, *spatial) bool.
        clip: That probability is taken as at least so much, and so a pixel costs at most -log(clip), 16.1 by default. Single
            precision cannot hold a number nearer to 1 than 6e-8, so a smaller bound would measure the number format.

    Raises:
        ValueError: As `calibration_counts`.
    """
    p, g = _checked(probability, reference)
    return torch.where(g, p, 1 - p).clamp_min_(clip).log_().mean(-1).neg_().add_(0.0)  # and no -0


def _checked(probability: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Map and reference flattened to (N, K, pixels), float64 and bool.

    Raises:
        ValueError: The shapes differ, or a probability is NaN or outside [0, 1].
    """
    if probability.shape != reference.shape:
        raise ValueError(f"prediction is {tuple(probability.shape)}, reference is {tuple(reference.shape)}")
    p = probability.double().flatten(2)
    if p.numel() and not bool((p.amin() >= 0) & (p.amax() <= 1)):
        raise ValueError("probabilities lie in [0, 1], and this map holds NaN or other values; give it after the sigmoid")
    return p, reference.bool().flatten(2)
