from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from monai.metrics.utils import get_mask_edges

from madgnet_bench.metrics.surface import SURFACE_MEASURES, surface, surface_measures


def pairs(number, *, axes, seed=0):
    """Pairs of masks that are not empty: noise, blobs, single pixels, full ones; sides from 1."""
    random = np.random.default_rng(seed)
    largest = {2: 24, 3: 10}[axes]
    for _ in range(number):
        shape = tuple(random.integers(1, largest, axes))
        masks = []
        for _ in range(2):
            mask = random.random(shape) < random.choice([0.0, 0.05, 0.4, 0.9, 1.0])
            corner = [random.integers(0, side) for side in shape]
            mask[tuple(slice(at, at + random.integers(1, largest)) for at in corner)] = True
            masks.append(torch.from_numpy(mask)[None, None])
        yield masks


def monai(prediction, reference, spacing, tolerance):
    p, r = prediction.float(), reference.float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "hd95": compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=spacing),
            "assd": compute_average_surface_distance(p, r, include_background=True, symmetric=True, spacing=spacing),
            "nsd": compute_surface_dice(p, r, [tolerance] * p.shape[1], include_background=True, spacing=spacing),
        }


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("spaced", [False, True])
def test_agreement_with_monai(axes, spaced):
    random = np.random.default_rng(4)
    for prediction, reference in pairs(60, axes=axes, seed=axes):
        spacing = random.uniform(0.4, 3, axes).tolist() if spaced else None
        expected = monai(prediction, reference, spacing, 1.3)
        found = surface_measures(prediction, reference, tolerance=1.3, spacing=spacing)
        assert tuple(found) == SURFACE_MEASURES
        for name, value in found.items():
            assert value.shape == (1, 1) and value.dtype == torch.float64
            assert value.item() == pytest.approx(expected[name].item(), abs=1e-5), name


def test_the_surface_is_monais():
    for axes in (2, 3):
        for mask, _ in pairs(40, axes=axes, seed=9):
            expected = get_mask_edges(mask[0, 0].numpy(), mask[0, 0].numpy(), crop=False)[0]
            assert np.array_equal(surface(mask)[0, 0], expected)


@pytest.mark.parametrize("backend", ["scipy", "torch"])
def test_backends_agree(backend):
    for axes, spacing in ((2, None), (2, (0.7, 1.9)), (3, (3.0, 0.8, 0.8))):
        for prediction, reference in pairs(15, axes=axes, seed=21):
            default = surface_measures(prediction, reference, tolerance=1, spacing=spacing)
            found = surface_measures(prediction, reference, tolerance=1, spacing=spacing, backend=backend)
            assert all(torch.allclose(found[name], default[name], rtol=1e-6) for name in SURFACE_MEASURES)


def test_known_answers():
    reference = torch.zeros(1, 1, 11, 11, dtype=torch.bool)
    reference[..., 3:8, 3:8] = True
    shifted = reference.roll(2, -1)
    found = surface_measures(shifted, reference, tolerance=1)
    distances = [min(np.hypot(a - c, b - d) for c, d in _ring(3)) for a, b in _ring(5)]
    assert found["assd"].item() == pytest.approx(np.mean(distances))
    assert found["nsd"].item() == pytest.approx(np.mean(np.array(distances) <= 1))
    assert found["hd95"].item() == pytest.approx(np.percentile(distances, 95))


def _ring(left):
    return [
        (row, column) for row in range(3, 8) for column in range(left, left + 5) if row in (3, 7) or column in (left, left + 4)
    ]


def test_the_four_empty_mask_cases():
    empty, spot = torch.zeros(1, 1, 30, 40, dtype=torch.bool), torch.zeros(1, 1, 30, 40, dtype=torch.bool)
    spot[..., 4, 5] = True
    cases = {
        "both": (empty, empty, (0, 0, 1)),
        "reference": (spot, empty, (50, 50, 0)),
        "prediction": (empty, spot, (50, 50, 0)),
        "neither": (spot, spot, (0, 0, 1)),
    }
    for name, (prediction, reference, expected) in cases.items():
        found = surface_measures(prediction, reference, tolerance=1)
        assert tuple(value.item() for value in found.values()) == expected, name
    spaced = surface_measures(empty, spot, tolerance=1, spacing=(0.5, 2))
    assert spaced["hd95"].item() == pytest.approx(np.hypot(15, 80))


def test_a_missed_lesion_is_worse_than_the_farthest_hit():
    there, farthest = torch.zeros(1, 1, 8, 9, dtype=torch.bool), torch.zeros(1, 1, 8, 9, dtype=torch.bool)
    there[..., 0, 0], farthest[..., 7, 8] = True, True
    miss = surface_measures(torch.zeros_like(there), there, tolerance=0)
    hit = surface_measures(farthest, there, tolerance=0)
    assert miss["hd95"] > hit["hd95"] and miss["assd"] > hit["assd"] and miss["nsd"] <= hit["nsd"]


def test_each_case_has_its_spacing_and_each_target_its_tolerance():
    random = np.random.default_rng(2)
    prediction, reference = (torch.from_numpy(random.random((3, 2, 6, 7, 5)) < 0.2) for _ in range(2))
    prediction[1, 1] = False
    spacing = torch.tensor([[1, 1, 1], [2.5, 1, 0.7], [3, 3, 3]])
    whole = surface_measures(prediction, reference, tolerance=(1.0, 2.0), spacing=spacing)
    for n, k in np.ndindex(3, 2):
        one = prediction[n : n + 1, k : k + 1], reference[n : n + 1, k : k + 1]
        alone = surface_measures(*one, tolerance=(1.0, 2.0)[k], spacing=spacing[n].tolist())
        assert all(alone[name].item() == whole[name][n, k].item() for name in SURFACE_MEASURES)


def test_invariances():
    for prediction, reference in pairs(25, axes=2, seed=5):
        first = surface_measures(prediction, reference, tolerance=2, spacing=(1.0, 1.5))
        scaled = surface_measures(prediction, reference, tolerance=6, spacing=(3.0, 4.5))
        others = {
            "swapped": surface_measures(reference, prediction, tolerance=2, spacing=(1.0, 1.5)),
            "flipped": surface_measures(prediction.flip(2), reference.flip(2), tolerance=2, spacing=(1.0, 1.5)),
            "transposed": surface_measures(prediction.mT, reference.mT, tolerance=2, spacing=(1.5, 1.0)),
            "padded": surface_measures(*(_pad(mask) for mask in (prediction, reference)), tolerance=2, spacing=(1.0, 1.5)),
        }
        for name in SURFACE_MEASURES:
            for change, other in others.items():
                assert torch.allclose(first[name], other[name], rtol=1e-12, atol=1e-12), (name, change)
            assert torch.allclose(first[name] * (1 if name == "nsd" else 3), scaled[name], rtol=1e-12, atol=1e-12), name


def _pad(mask):
    return torch.nn.functional.pad(mask, (4, 0, 7, 2))


def test_a_distance_at_the_tolerance_is_within():
    there, found = torch.zeros(1, 1, 1, 9, dtype=torch.bool), torch.zeros(1, 1, 1, 9, dtype=torch.bool)
    there[..., 1], found[..., 4] = True, True
    assert 3 * 0.7 != 2.1
    assert surface_measures(found, there, tolerance=2.1, spacing=(1.0, 0.7))["nsd"].item() == 1
    assert surface_measures(found, there, tolerance=2.09, spacing=(1.0, 0.7))["nsd"].item() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": (1, 2)}, "does not fit 1 targets"),
        ({"tolerance": -1}, "0 or more"),
        ({"tolerance": 1, "spacing": (1.0,)}, "give 2 positive numbers"),
        ({"tolerance": 1, "spacing": (1.0, -1.0)}, "give 2 positive numbers"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    mask = torch.ones(3, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        surface_measures(mask, mask, **arguments)
    with pytest.raises(ValueError, match="reference is"):
        surface_measures(mask, mask[:1], tolerance=1)
