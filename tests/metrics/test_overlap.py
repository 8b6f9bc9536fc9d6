from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from madgnet_bench.metrics.overlap import MEASURES, dice, emptiness, iou, mean_absolute_error, measure_cases
from madgnet_bench.protocol import PROTOCOLS, Protocol
from madgnet_bench.records import EMPTY_CASES

HARD = PROTOCOLS["madgnet"]
SOFT = dataclasses.replace(HARD, mae="soft")


def by_hand(probability, reference, protocol):
    """The measures of one map from sets of pixel positions."""
    predicted = {tuple(place) for place in np.argwhere(probability >= protocol.threshold)}
    referred = {tuple(place) for place in np.argwhere(reference == 1)}
    both, either = len(predicted & referred), len(predicted | referred)
    map_ = probability if protocol.mae == "soft" else probability >= protocol.threshold
    return {
        "dsc": 2 * both / (len(predicted) + len(referred)) if either else protocol.empty,
        "iou": both / either if either else protocol.empty,
        "mae": np.abs(map_.astype(np.float64) - reference.astype(np.float64)).mean(),
        "empty_case": EMPTY_CASES.index(
            {(False, False): "neither", (False, True): "reference", (True, False): "prediction", (True, True): "both"}[
                (not predicted, not referred)
            ]
        ),
    }


@st.composite
def maps(draw):
    """Probabilities in eighths, so that the threshold is often met exactly, and references from empty to full."""
    shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=3))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), *shape)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    highest = draw(st.sampled_from([0, 3, 4, 8]))
    reference = random.random(shape) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    return random.integers(0, highest + 1, shape).astype(np.float32) / 8, reference.astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(maps(), st.sampled_from([0.25, 0.5]), st.sampled_from(["soft", "hard"]), st.sampled_from([0.0, 1.0]))
def test_measures_are_those_of_an_independent_implementation(drawn, threshold, mae, empty):
    probability, reference = drawn
    protocol = dataclasses.replace(HARD, threshold=threshold, mae=mae, empty=empty)
    found = measure_cases(torch.from_numpy(probability), torch.from_numpy(reference), protocol=protocol)
    assert tuple(found) == (*MEASURES, "empty_case")
    for place in np.ndindex(probability.shape[:2]):
        expected = by_hand(probability[place], reference[place], protocol)
        for name, value in expected.items():
            assert found[name][place].item() == pytest.approx(value, abs=1e-12), name


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


def test_a_probability_at_the_threshold_is_foreground():
    probability = torch.tensor([[[[0.5, 0.5 - 2**-25, 0.0]]]])
    reference = torch.tensor([[[[1.0, 0.0, 0.0]]]])
    found = measure_cases(probability, reference, protocol=HARD)
    assert found["dsc"].item() == 1 and found["mae"].item() == 0


@pytest.mark.parametrize(
    ("empty_case", "prediction", "reference", "expected"),
    [
        ("neither", [0.9, 0.9, 0.1, 0.1], [1, 0, 0, 0], {"dsc": 2 / 3, "iou": 1 / 2, "hard": 1 / 4, "soft": 1.2 / 4}),
        ("reference", [0.9, 0.1, 0.1, 0.1], [0, 0, 0, 0], {"dsc": 0, "iou": 0, "hard": 1 / 4, "soft": 1.2 / 4}),
        ("prediction", [0.1, 0.1, 0.1, 0.1], [1, 0, 0, 0], {"dsc": 0, "iou": 0, "hard": 1 / 4, "soft": 1.2 / 4}),
        ("both", [0.1, 0.1, 0.1, 0.1], [0, 0, 0, 0], {"dsc": 1, "iou": 1, "hard": 0, "soft": 0.4 / 4}),
    ],
)
def test_the_four_empty_mask_cases(empty_case, prediction, reference, expected):
    p, r = torch.tensor(prediction).view(1, 1, 2, 2), torch.tensor(reference).view(1, 1, 2, 2)
    for protocol, mae in ((HARD, "hard"), (SOFT, "soft")):
        found = measure_cases(p, r, protocol=protocol)
        assert EMPTY_CASES[found["empty_case"].item()] == empty_case
        assert [found[name].item() for name in MEASURES] == pytest.approx(
            [expected["dsc"], expected["iou"], expected[mae]], abs=1e-7
        )
    zero = measure_cases(p, r, protocol=dataclasses.replace(HARD, empty=0.0))
    assert zero["dsc"].item() == pytest.approx(0 if empty_case == "both" else expected["dsc"])


def test_emptiness_is_by_case_and_target():
    prediction = torch.tensor([[[[True]], [[True]]], [[[False]], [[False]]]])
    reference = torch.tensor([[[[True]], [[False]]], [[[True]], [[False]]]])
    assert emptiness(prediction, reference).tolist() == [[0, 1], [2, 3]]


def test_a_nan_and_another_shape_are_refused():
    good = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="NaN"):
        measure_cases(torch.full_like(good, torch.nan), good, protocol=HARD)
    with pytest.raises(ValueError, match=r"prediction is \(1, 1, 2, 2\), reference is \(1, 2, 2, 2\)"):
        measure_cases(good, torch.zeros(1, 2, 2, 2), protocol=HARD)


def test_agreement_with_torchmetrics():
    draw = torch.Generator().manual_seed(0)
    probability, mask = torch.rand(6, 2, 11, 13, generator=draw), torch.rand(6, 2, 11, 13, generator=draw) > 0.7
    found = measure_cases(probability, mask.float(), protocol=Protocol.parse("madgnet"))
    for n in range(6):
        for k in range(2):
            flat = (probability[n, k] >= 0.5).int().flatten(), mask[n, k].int().flatten()
            assert found["dsc"][n, k].item() == pytest.approx(binary_f1_score(*flat).item(), abs=1e-6)
            assert found["iou"][n, k].item() == pytest.approx(binary_jaccard_index(*flat).item(), abs=1e-6)
