from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from madgnet_bench.metrics.calibration import (
    brier_score,
    calibration_counts,
    calibration_error,
    negative_log_likelihood,
    reliability_curve,
)


def batch(n=5, k=2, shape=(13, 9), seed=0):
    """Probabilities of several shapes of distribution, with references drawn from a bent version of them."""
    random = np.random.default_rng(seed)
    p = random.beta(random.choice([0.3, 1, 4], (n, k, 1, 1)), 1, (n, k, *shape))
    return torch.from_numpy(p), torch.from_numpy(random.random(p.shape) < p**1.5)


def test_agreement_with_torchmetrics():
    for seed in range(12):
        p, g = batch(seed=seed)
        for bins in (1, 10, 15, 40):
            counts = calibration_counts(p, g, bins=bins)
            assert counts.shape == (5, 2, 3, bins) and counts.dtype == torch.float64
            found = calibration_error(counts)
            for n, k in np.ndindex(5, 2):
                expected = binary_calibration_error(p[n, k].flatten(), g[n, k].flatten().int(), n_bins=bins, norm="l1")
                assert found[n, k].item() == pytest.approx(expected.item(), abs=1e-6)
            pooled = calibration_error(counts.sum((0, 1)))
            assert pooled.item() == pytest.approx(
                binary_calibration_error(p.flatten(), g.flatten().int(), n_bins=bins, norm="l1").item(), abs=1e-6
            )


def test_agreement_with_scikit_learn():
    for seed in range(12):
        p, g = batch(n=2, k=1, seed=seed)
        brier, likelihood = brier_score(p, g), negative_log_likelihood(p, g, clip=1e-15)
        for n in range(2):
            flat = g[n].flatten().int().numpy(), p[n].flatten().numpy()
            assert brier[n, 0].item() == pytest.approx(brier_score_loss(*flat), abs=1e-12)
            assert likelihood[n, 0].item() == pytest.approx(log_loss(*flat, labels=[0, 1]), abs=1e-9)
        confidence, frequency, share = reliability_curve(calibration_counts(p, g, bins=10).sum((0, 1)))
        expected = calibration_curve(g.flatten().int().numpy(), p.flatten().numpy(), n_bins=10)
        filled = ~confidence.isnan()
        assert frequency[filled].numpy() == pytest.approx(expected[0], abs=1e-12)
        assert confidence[filled].numpy() == pytest.approx(expected[1], abs=1e-12)
        assert share.sum().item() == pytest.approx(1) and (share[~filled] == 0).all()


def test_the_confidence_of_the_predicted_class():
    p = torch.tensor([[[0.1, 0.3, 0.5, 0.8]]], dtype=torch.float64)
    g = torch.tensor([[[False, True, False, True]]])
    counts = calibration_counts(p, g, bins=10, confidence="predicted")[0, 0]
    # confidences 0.9, 0.7, 0.5 (foreground is predicted from 0.5 on) and 0.8; right, wrong, wrong, right
    assert counts[0].tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 1, 1]
    assert counts[2].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert calibration_error(counts).item() == pytest.approx((0.1 + 0.7 + 0.5 + 0.2) / 4)


def test_bins_hold_their_lower_edge_and_the_last_holds_one():
    p = torch.tensor([[[0.0, 0.25, 0.5, 0.75, 1.0]]])
    counts = calibration_counts(p, torch.ones_like(p).bool(), bins=4)[0, 0]
    assert counts[0].tolist() == [1, 1, 1, 2] and counts[1].tolist() == [0, 0.25, 0.5, 1.75]


def test_the_error_of_a_data_set_is_not_the_mean_over_its_cases():
    p = torch.full((2, 1, 4, 4), 0.5)
    g = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)]).bool()
    counts = calibration_counts(p, g)
    assert calibration_error(counts).tolist() == [[0.5], [0.5]]
    assert calibration_error(counts.sum(0)).tolist() == [0]


def test_the_four_empty_mask_cases():
    empty, spot = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    spot[..., 0, 0] = 1
    worst = -math.log(1e-7)
    cases = {
        "both": (empty, empty, 0),
        "reference": (spot, empty, 1 / 4),
        "prediction": (empty, spot, 1 / 4),
        "neither": (spot, spot, 0),
    }
    for name, (p, g, wrong) in cases.items():
        assert calibration_error(calibration_counts(p, g.bool())).item() == wrong, name
        assert brier_score(p, g.bool()).item() == wrong, name
        assert negative_log_likelihood(p, g.bool()).item() == pytest.approx(wrong * worst, abs=1e-6), name


def test_the_likelihood_is_bounded():
    p, g = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[True, False]]])
    assert negative_log_likelihood(p, g).item() == pytest.approx(-math.log(1e-7))
    assert negative_log_likelihood(p, g, clip=0.01).item() == pytest.approx(-math.log(0.01))


def test_the_batch_and_the_place_do_not_matter():
    p, g = batch(n=6, shape=(4, 5))
    measures = {
        "counts": calibration_counts,
        "brier": brier_score,
        "likelihood": negative_log_likelihood,
    }
    for name, measure in measures.items():
        whole = measure(p, g)
        assert torch.equal(torch.cat([measure(p[n : n + 1], g[n : n + 1]) for n in range(6)]), whole), name
        assert torch.allclose(measure(p.flip(-1), g.flip(-1)), whole, rtol=1e-12), name
        assert torch.allclose(measure(p.mT, g.mT), whole, rtol=1e-12), name
        assert torch.allclose(measure(p[:, :, None], g[:, :, None]), whole, rtol=1e-12), name
        assert measure(p[:0], g[:0]).shape == (0, *whole.shape[1:]), name


def test_what_does_not_fit_is_refused():
    p, g = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    for measure in (calibration_counts, brier_score, negative_log_likelihood):
        with pytest.raises(ValueError, match="after the sigmoid"):
            measure(p + math.nan, g)
        with pytest.raises(ValueError, match="after the sigmoid"):
            measure(p + 1.5, g)
        with pytest.raises(ValueError, match="reference is"):
            measure(p, g[..., :1])
    with pytest.raises(ValueError, match="at least 1"):
        calibration_counts(p, g, bins=0)
    with pytest.raises(ValueError, match="no pixel"):
        calibration_error(torch.zeros(3, 15))
