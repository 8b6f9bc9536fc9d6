from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.profile.compare import (
    Profile,
    compare_sets,
    energy_distance,
    intensity_distance,
    read_profile,
    sampling_error,
    spectral_distance,
    to_json,
)
from madgnet_bench.catalog.profile.measure import octave_weights, profile_datasets
from madgnet_bench.errors import ConfigError
from madgnet_bench.records import write_json

MODALITIES = ("dermoscopy", "radiology", "ultrasound")
SHIFTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module", params=MODALITIES)
def shifted(request):
    """A phantom modality at five shifts, and another sample of the first."""
    sets = [PhantomDataset(request.param, shift=shift, cases=60, size=64) for shift in SHIFTS]
    return profile_datasets([*sets, PhantomDataset(request.param, cases=60, size=64, seed=1, name="again")], size=64)


@pytest.fixture(scope="module")
def pair():
    sets = [PhantomDataset("microscopy", shift=shift, cases=12, size=64) for shift in (0, 0.8)]
    return profile_datasets(sets, size=64)


def drawn(profile, samples, *, name="drawn"):
    """A profile with other log spectra."""
    mean, std = samples.mean(axis=0), samples.std(axis=0, ddof=1)
    count = len(samples)
    return replace(profile, name=name, samples=samples, log_power=mean, log_power_std=std, images=count, groups=count)


def test_distances_grow_with_the_shift(shifted):
    distances = [compare_sets(shifted[0], other) for other in shifted[:5]]
    for name in ("spectral", "energy", "intensity"):
        values = [getattr(distance, name) for distance in distances]
        assert values[0] == 0
        assert all(near < far for near, far in pairwise(values)), (name, values)


def test_another_sample_of_a_domain_is_near(shifted):
    again, near = compare_sets(shifted[0], shifted[5]), compare_sets(shifted[0], shifted[2])
    assert again.spectral < 0.5 * near.spectral and again.spectral < 2 * again.sampling_error
    assert again.energy < 0.25 * near.energy
    assert again.intensity < 0.5 * near.intensity


def test_distances_are_symmetric(shifted):
    there, back = compare_sets(shifted[1], shifted[3]), compare_sets(shifted[3], shifted[1])
    assert (there.first, there.second) == (back.second, back.first)
    for name in ("spectral", "sampling_error", "energy", "intensity"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), rel=1e-9)


def test_split_halves_of_one_distribution_are_near_zero_on_average(pair):
    rng = np.random.default_rng(0)
    spectral, energy, expected = [], [], []
    for _ in range(40):
        halves = [drawn(pair[0], rng.normal(0, 3, (20, 32)) + rng.normal(0, 3, (20, 1))) for _ in range(2)]
        spectral.append(spectral_distance(*halves))
        energy.append(energy_distance(*halves))
        expected.append(sampling_error(*halves))
    assert np.median(spectral) < np.mean(expected)
    assert np.mean(expected) == pytest.approx(np.sqrt(2 / 20), rel=0.01)
    assert np.mean(energy) < 0.02


@pytest.mark.parametrize(("count", "expected"), [(5, 1.2), (10, 1.07), (100, 1.0)])
def test_a_difference_of_one_standard_deviation_is_a_distance_of_one(pair, count, expected):
    """A little more with few images, whose spread is poorly known, as the docstring says."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(60):
        first, second = (drawn(pair[0], rng.normal(level, 4, (count, 32))) for level in (0, 4))
        found.append(spectral_distance(first, second))
    assert np.mean(found) == pytest.approx(expected, abs=0.04)


def test_the_spectral_distance_is_its_formula(pair):
    first, second = pair
    weights = octave_weights(64)
    variance = (first.log_power_std**2 + second.log_power_std**2) / 2
    squared = (first.log_power - second.log_power) ** 2
    error = first.log_power_std**2 / first.groups + second.log_power_std**2 / second.groups
    assert spectral_distance(first, second) == pytest.approx(np.sqrt((weights * (squared - error) / variance).sum()))


def test_the_energy_coefficient_in_one_dimension(pair):
    """Against scipy's energy distance, whose square is 2 E|X - Y| - E|X - X'| - E|Y - Y'| with the zeros counted."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1, 30), rng.normal(1, 2, 20)
    first, second = (drawn(pair[0], np.repeat(values[:, None], 32, axis=1)) for values in (x, y))
    between = np.abs(x[:, None] - y).mean()
    within = [np.abs(values[:, None] - values).mean() for values in (x, y)]
    assert stats.energy_distance(x, y) ** 2 == pytest.approx(2 * between - sum(within), rel=1e-9)
    unbiased = within[0] * 30 / 29 + within[1] * 20 / 19
    assert energy_distance(first, second) == pytest.approx(1 - unbiased / (2 * between), rel=1e-9)


def test_the_energy_coefficient_sees_two_kinds_in_a_set(pair):
    rng = np.random.default_rng(3)
    kinds = np.repeat([[-6.0], [6.0]], 20, axis=0) + rng.normal(0, 0.5, (40, 32))
    one_kind = rng.normal(0, 6, (40, 1)) + rng.normal(0, 0.5, (40, 32))
    first, second = drawn(pair[0], kinds), drawn(pair[0], one_kind - one_kind.mean(axis=0))
    assert spectral_distance(first, second) == 0
    assert energy_distance(first, second) > 0.02


def test_the_energy_coefficient_of_single_points(pair):
    first, second = (drawn(pair[0], np.full((3, 32), level)) for level in (0.0, 5.0))
    assert energy_distance(first, second) == 1
    assert energy_distance(first, first) == 0
    assert spectral_distance(first, second) == pytest.approx(50)  # a spread of nothing counts as 0.1 dB


def test_the_intensity_distance_is_scipys(pair):
    first, second = pair
    values = np.arange(256) / 255
    expected = [
        stats.wasserstein_distance(values, values, a, b) for a, b in zip(first.histograms, second.histograms, strict=True)
    ]
    assert intensity_distance(first, second) == pytest.approx(np.mean(expected), rel=1e-9)


def test_sizes_must_agree(pair):
    other = profile_datasets([PhantomDataset("microscopy", cases=5, size=64)], size=96)[0]
    with pytest.raises(ConfigError, match=r"was profiled at 64 pixels, .* at 96: profile both at one --size"):
        spectral_distance(pair[0], other)


def test_pairs(shifted):
    assert len(Profile.of(shifted[:4]).distances) == 6
    assert [(d.first, d.second) for d in Profile.of(shifted[:1], shifted[1:3]).distances] == [
        (shifted[0].name, shifted[1].name),
        (shifted[0].name, shifted[2].name),
    ]


def test_a_profile_is_written_and_read(pair, tmp_path):
    profile = Profile.of(pair[:1], pair[1:])
    write_json(tmp_path / "profile.json", to_json(profile))
    found = read_profile(tmp_path / "profile.json")
    assert found.seen[0].name == "phantom_microscopy" and found.unseen[0].name == "phantom_microscopy/shift0.8"
    assert spectral_distance(found.seen[0], found.unseen[0]) == pytest.approx(profile.distances[0].spectral, rel=1e-3)
    assert intensity_distance(found.seen[0], found.unseen[0]) == pytest.approx(profile.distances[0].intensity, rel=1e-4)
    assert found.distances[0].energy == pytest.approx(profile.distances[0].energy, rel=1e-5)
    assert found.seen[0].channels == {"grey": pytest.approx(tuple(pair[0].channels["grey"]), rel=1e-5)}
    assert found.seen[0].references["nuclei"].objects == pytest.approx(pair[0].references["nuclei"].objects, rel=1e-5)
    assert found.seen[0].manifest == PhantomDataset("microscopy", cases=12, size=64).manifest.sha256
    assert found.seen[0].samples is None
    assert to_json(found) == to_json(profile)
    with pytest.raises(ConfigError, match="keeps no single images"):
        energy_distance(found.seen[0], found.unseen[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "[1]", "is no profile"),
        (lambda content: content[:40], "cannot be read as JSON"),
        (
            lambda content: content.replace('"schema_version": 1', '"schema_version": 2'),
            "schema version 2, this package reads 1",
        ),
        (lambda content: content.replace('"slope":', '"slop":'), "is damaged"),
        (lambda content: json.dumps({**json.loads(content), "seen": [5]}), "is damaged"),
        (lambda content: content.replace('"size": 64,\n   "log_power"', '"size": 66,\n   "log_power"'), "is damaged"),
    ],
)
def test_damaged_files_are_refused(pair, tmp_path, change, message):
    path = tmp_path / "profile.json"
    with pytest.raises(ConfigError, match="there is no such file; write it again"):
        read_profile(path)
    write_json(path, to_json(Profile.of(pair)))
    content = path.read_text()
    changed = change(content)
    assert changed != content
    path.write_text(changed)
    with pytest.raises(ConfigError, match=message):
        read_profile(path)
