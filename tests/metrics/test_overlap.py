from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, precision_score, recall_score

from madgnet_bench.metrics.overlap import (
    dice,
    emptiness,
    iou,
    mean_absolute_error,
    precision,
    recall,
    two_class_iou,
)


def planted(shape, *places):
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in places:
        mask[0, 0][place] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        pytest.param(planted((1, 1, 9, 9), (4, 4)), planted((1, 1, 9, 9), (4, 4)), (1, 1, 0), id="one pixel hit"),
        pytest.param(planted((1, 1, 9, 9), (4, 5)), planted((1, 1, 9, 9), (4, 4)), (0, 0, 2 / 81), id="one pixel missed"),
        pytest.param(torch.ones(1, 1, 4, 5).bool(), torch.ones(1, 1, 4, 5).bool(), (1, 1, 0), id="full"),
        pytest.param(torch.ones(1, 1, 4, 4).bool(), planted((1, 1, 4, 4), (0, 0)), (2 / 17, 1 / 16, 15 / 16), id="full on one"),
        pytest.param(
            planted((1, 1, 1, 5), (0, slice(0, 3))), planted((1, 1, 1, 5), (0, slice(2, 4))), (0.4, 0.25, 0.6), id="one row"
        ),
        pytest.param(planted((1, 1, 2, 2, 2), (0, 0)), planted((1, 1, 2, 2, 2), (0,)), (2 / 3, 0.5, 0.25), id="volume"),
    ],
)
def test_known_answers(prediction, reference, expected):
    found = (
        dice(prediction, reference, empty=1.0),
        iou(prediction, reference, empty=1.0),
        mean_absolute_error(prediction, reference),
    )
    assert all(value.shape == (1, 1) and value.dtype == torch.float64 for value in found)
    assert [value.item() for value in found] == pytest.approx(expected)


def test_emptiness_is_by_case_and_target():
    prediction = torch.tensor([[[[True]], [[True]]], [[[False]], [[False]]]])
    reference = torch.tensor([[[[True]], [[False]]], [[[True]], [[False]]]])
    assert emptiness(prediction, reference).tolist() == [[0, 1], [2, 3]]


def test_agreement_with_scikit_learn():
    random = np.random.default_rng(3)
    for _ in range(100):
        shape = tuple(random.integers(1, 9, 2))
        p, r = (random.random(shape) < random.choice([0.0, 0.1, 0.6, 1.0]) for _ in range(2))
        maps = torch.from_numpy(p)[None, None], torch.from_numpy(r)[None, None]
        flat = r.flatten(), p.flatten()
        if p.any() or r.any():
            assert precision(*maps, empty=1.0).item() == pytest.approx(precision_score(*flat, zero_division=0))
            assert recall(*maps, empty=1.0).item() == pytest.approx(recall_score(*flat, zero_division=0))
        expected = np.mean([jaccard_score(r.flatten() == c, p.flatten() == c, zero_division=1) for c in (True, False)])
        assert two_class_iou(*maps, empty=1.0).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], (0.7, 0.7, (0.7 + 1) / 2)),
        ([1, 0, 0, 0], [0, 0, 0, 0], (0, 0, 3 / 8)),
        ([0, 0, 0, 0], [1, 0, 0, 0], (0, 0, 3 / 8)),
        ([1, 1, 0, 0], [1, 0, 0, 0], (1 / 2, 1, (1 / 2 + 2 / 3) / 2)),
        ([1, 1, 1, 1], [1, 1, 1, 1], (1, 1, (1 + 0.7) / 2)),
    ],
    ids=["both", "reference", "prediction", "neither", "full"],
)
def test_precision_recall_and_both_classes_over_the_empty_mask_cases(prediction, reference, expected):
    p, r = (torch.tensor(mask, dtype=torch.bool).view(1, 1, 2, 2) for mask in (prediction, reference))
    found = [measure(p, r, empty=0.7) for measure in (precision, recall, two_class_iou)]
    assert all(value.shape == (1, 1) and value.dtype == torch.float64 for value in found)
    assert [value.item() for value in found] == pytest.approx(expected)


def test_a_boolean_map_has_the_error_of_its_numbers():
    draw = torch.Generator().manual_seed(2)
    p, r = (torch.rand(2, 3, 5, 6, generator=draw) > 0.5 for _ in range(2))
    assert torch.allclose(mean_absolute_error(p, r), mean_absolute_error(p.double(), r), rtol=1e-15)
    assert torch.equal(mean_absolute_error(p, r.float()), mean_absolute_error(p, r))
