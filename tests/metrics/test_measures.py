from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, binary_jaccard_index

from madgnet_bench.metrics.measures import curve_shapes, measure_cases, pool_curves
from madgnet_bench.protocol import MEASURES, PROTOCOLS, VALIDATION_MEASURES, Protocol
from madgnet_bench.records import EMPTY_CASES

HARD = PROTOCOLS["madgnet"]
SOFT = dataclasses.replace(HARD, maps="soft")


def by_hand(probability, reference, protocol):
    """The measures of one map from sets of pixel positions."""
    predicted = {tuple(place) for place in np.argwhere(probability >= protocol.threshold)}
    referred = {tuple(place) for place in np.argwhere(reference == 1)}
    both, either = len(predicted & referred), len(predicted | referred)
    map_ = probability if protocol.maps == "soft" else probability >= protocol.threshold
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
    protocol = dataclasses.replace(HARD, threshold=threshold, maps=mae, empty=empty, dimensions=probability.ndim - 2)
    maps = torch.from_numpy(probability), torch.from_numpy(reference)
    found = measure_cases(*maps, protocol=protocol, measures=VALIDATION_MEASURES)
    assert tuple(found) == (*VALIDATION_MEASURES, "empty_case")
    for place in np.ndindex(probability.shape[:2]):
        expected = by_hand(probability[place], reference[place], protocol)
        for name, value in expected.items():
            assert found[name][place].item() == pytest.approx(value, abs=1e-12), name


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
        assert [found[name].item() for name in VALIDATION_MEASURES] == pytest.approx(
            [expected["dsc"], expected["iou"], expected[mae]], abs=1e-7
        )
    zero = measure_cases(p, r, protocol=dataclasses.replace(HARD, empty=0.0))
    assert zero["dsc"].item() == pytest.approx(0 if empty_case == "both" else expected["dsc"])


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


def random_maps(protocol, *, n=5, k=2):
    """Blobs and noisy probabilities of them; one case and target of each empty kind."""
    draw = np.random.default_rng(0)
    shape = (n, k, 12, 15) if protocol.dimensions == 2 else (n, k, 6, 7, 8)
    reference = draw.random(shape) < 0.3
    probability = np.clip(0.7 * reference + 0.5 * draw.random(shape), 0, 1)
    reference[0] = False
    probability[1] = 0
    reference[2, 0], probability[2, 0] = False, 0
    return torch.from_numpy(probability), torch.from_numpy(reference).float()


ALL = [*PROTOCOLS.values(), Protocol.parse("madgnet[released=on]"), Protocol.parse("native[dice_curves=on,released=on]")]


@pytest.mark.parametrize("protocol", ALL, ids=str)
def test_every_protocol_gives_its_measures_for_every_case(protocol):
    maps = random_maps(protocol)
    spacing = (1.0, 0.5, 0.5) if protocol.unit == "mm" else None
    found = measure_cases(*maps, protocol=protocol, spacing=spacing, curves=True)
    assert tuple(found) == (*protocol.measures, "empty_case", *curve_shapes(protocol))
    for name in protocol.measures:
        assert found[name].shape == (5, 2) and found[name].dtype == torch.float64
        highest = 1 + 1 / 150 if MEASURES[name].unit == "fraction" else torch.inf
        assert ((found[name] >= 0) & (found[name] <= highest)).all(), name
    for name, shape in curve_shapes(protocol).items():
        assert found[name].shape == (5, 2, *shape)
    pooled = pool_curves({name: found[name][:, 0] for name in curve_shapes(protocol)}, protocol=protocol)
    assert tuple(pooled) == protocol.pooled_measures
    assert all(0 <= value <= 1.01 for value in pooled.values())


@pytest.mark.parametrize("protocol", ALL, ids=str)
def test_a_case_is_measured_alike_in_every_batch(protocol):
    probability, reference = random_maps(protocol)
    options = {"protocol": protocol, "spacing": (2.0, 0.5, 0.5) if protocol.unit == "mm" else None, "curves": True}
    whole = measure_cases(probability, reference, **options)
    for n in range(len(probability)):
        alone = measure_cases(probability[n : n + 1], reference[n : n + 1], **options)
        assert all(torch.equal(alone[name][0], whole[name][n]) for name in whole)


@pytest.mark.parametrize("name", [name for protocol in ALL for name in protocol.measures if protocol.name != "volume"])
def test_a_missed_lesion_never_beats_a_found_one(name):
    protocol = Protocol.parse("native[dice_curves=on,released=on]")
    reference = torch.zeros(1, 1, 24, 24)
    reference[..., 8:16, 6:15] = 1
    values = measure_cases(torch.cat([0.9 * reference, 0 * reference]), reference.expand(2, 1, -1, -1), protocol=protocol)[name]
    found, missed = values.flatten().tolist()
    assert found > missed if MEASURES[name].higher_is_better else found < missed


def test_a_maximum_over_thresholds_is_that_of_the_mean_curve():
    protocol = PROTOCOLS["pranet"]
    reference = torch.zeros(2, 1, 4, 8)
    reference[..., :4] = 1
    probability = 0.1 + 0.8 * reference
    probability[0, 0, 0, 0], probability[1, 0, 0, 7] = 0.4, 0.6  # best cut below 0.4 in one case, above 0.6 in the other
    found = measure_cases(probability, reference, protocol=protocol, curves=True)

    def pooled(cases):
        return pool_curves({name: found[name][cases, 0] for name in ("thresholds", "calibration")}, protocol=protocol)

    assert pooled([0])["dsc_max"] == pooled([1])["dsc_max"] == 1
    assert pooled([0, 1])["dsc_max"] < 1


def test_stretching_changes_what_is_predicted():
    probability = torch.tensor([[[[0.0, 0.2, 0.4]]]])
    reference = torch.tensor([[[[0.0, 1.0, 1.0]]]])
    assert measure_cases(probability, reference, protocol=PROTOCOLS["native"])["dsc"].item() == 0
    assert measure_cases(probability, reference, protocol=PROTOCOLS["pranet"])["dsc"].item() == 1


def test_distances_are_in_the_unit_of_the_protocol():
    prediction, reference = torch.zeros(2, 1, 1, 4, 4), torch.zeros(2, 1, 1, 4, 4)
    prediction[..., 0, 0], reference[..., 0, 3] = 1, 1
    spacing = torch.tensor([[5.0, 1.0, 0.5], [5.0, 1.0, 2.0]])
    values = measure_cases(prediction, reference, protocol=PROTOCOLS["volume"], spacing=spacing)
    assert values["hd95"].flatten().tolist() == [1.5, 6.0]
    with pytest.raises(ValueError, match="no spacing is given"):
        measure_cases(prediction, reference, protocol=PROTOCOLS["volume"])


def test_images_and_volumes_need_their_own_protocol():
    volume = torch.zeros(1, 1, 2, 2, 2)
    with pytest.raises(ValueError, match="use the protocol volume"):
        measure_cases(volume, volume, protocol=PROTOCOLS["madgnet"])


def test_calibration_is_of_the_probabilities_as_given():
    probability, reference = torch.linspace(0, 0.05, 256).view(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    found = [measure_cases(probability, reference, protocol=Protocol.parse(name), curves=True) for name in ("native", "pranet")]
    for name in ("brier", "nll", "calibration"):
        assert torch.equal(found[0][name], found[1][name])
    assert found[0]["mae"] != found[1]["mae"] and found[1]["brier"] < 0.003
