from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.profile.measure import (
    ROUNDING,
    band_limits,
    octave_weights,
    profile_case,
    profile_datasets,
    radial_power,
    slope_range,
)
from madgnet_bench.errors import ConfigError, DataErrors
from madgnet_bench.pictures import to_rgb

SIZE = 128


class Arrays(SegmentationDataset):
    """Given images, and masks that are the same for all where none are given; each image is a group."""

    def __init__(self, images, masks=None, *, name="arrays", targets=("lesion",)):
        self.name, self.images = name, list(images)
        self.card = DataCard(name=name, title=name, modality="test", targets=targets)
        shape = self.images[0].shape[:-1]
        self.masks = list(masks) if masks is not None else [np.zeros((len(targets), *shape), np.uint8)] * len(self.images)

    def scan(self):
        return [Case(f"{n:03d}", f"g{n}", str(n), str(n), "train" if n % 2 else "test") for n in range(len(self.images))], []

    def read_image(self, case):
        return self.images[int(case.image)]

    def read_mask(self, case):
        return self.masks[int(case.mask)]


def noise(rng, *, std=0.1, slope=0.0, size=SIZE):
    """White noise around 0.5, or noise whose power falls as f ** slope."""
    spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
    radius = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)[None])
    radius[0, 0] = 1
    image = np.fft.irfft2(spectrum * radius ** (slope / 2), s=(size, size))
    return (0.5 + std * (image - image.mean()) / image.std())[..., None].astype(np.float32)


@pytest.mark.parametrize("frequency", [3, 10, 31, 60])
@pytest.mark.parametrize("turned", [False, True])
def test_a_sinusoid_lands_in_its_bin(frequency, turned):
    wave = np.tile(0.5 + 0.3 * np.cos(2 * np.pi * frequency * np.arange(SIZE) / SIZE + 0.4), (SIZE, 1))
    power = radial_power(wave.T if turned else wave)
    assert power.argmax() + 1 == frequency
    near = power[frequency - 2 : frequency + 1].sum()  # the window spreads it by one
    assert near / power.sum() > 0.999


def test_white_noise_is_flat_and_its_power_is_its_variance():
    rng = np.random.default_rng(0)
    power = np.mean([radial_power(noise(rng)[..., 0]) for _ in range(20)], axis=0)
    assert np.abs(power[3:] / 0.01 - 1).max() < 0.2
    assert power.mean() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("slope", [-1.0, -2.0, -3.0])
def test_power_laws_have_their_slope(slope):
    rng = np.random.default_rng(1)
    found = profile_datasets([Arrays(noise(rng, slope=slope) for _ in range(12))], size=SIZE)[0]
    assert found.slope == pytest.approx(slope, abs=0.08)
    assert 0 < found.slope_std < 0.3


def test_the_borders_do_not_leak():
    ramp = np.tile(np.linspace(0, 1, SIZE), (SIZE, 1))  # jumps where the image is repeated
    power = radial_power(ramp)
    low, middle = band_limits(SIZE)
    assert power[middle:].max() < 1e-6 * power[:low].max() + ROUNDING


def test_a_constant_image_has_the_power_of_rounding():
    profile = profile_case(np.full((40, 30, 1), 77, np.uint8), np.zeros((1, 40, 30), np.uint8), size=64)
    assert np.allclose(profile.log_power, 10 * np.log10(ROUNDING), atol=1e-3)
    assert profile.contrast == pytest.approx(0, abs=1e-6)
    assert sum(profile.bands) == pytest.approx(1)


def test_band_shares_follow_the_definition():
    rng = np.random.default_rng(2)
    low, middle = band_limits(SIZE)
    assert (low, middle) == (4, 16) and band_limits(352) == (11, 44) and slope_range(352) == (4, 88)
    white = profile_datasets([Arrays(noise(rng) for _ in range(8))], size=SIZE)[0]
    discs = np.array([0.5, low + 0.5, middle + 0.5, SIZE / 2 + 0.5]) ** 2
    assert white.bands == pytest.approx(np.diff(discs) / (discs[-1] - discs[0]), abs=0.01)
    waves = [np.sin(2 * np.pi * f * np.arange(SIZE) / SIZE) for f in (2, 10, 40)]
    for number, wave in enumerate(waves):
        image = np.tile(0.5 + 0.4 * wave, (SIZE, 1))[..., None].astype(np.float32)
        assert profile_case(image, np.zeros((1, SIZE, SIZE), np.uint8), size=SIZE).bands[number] > 0.99


def test_weights_give_every_octave_the_same():
    weights = octave_weights(512)
    frequency = np.arange(1, 257)
    octaves = [weights[(frequency >= start) & (frequency < 2 * start)].sum() for start in (16, 32, 64, 128)]
    assert weights.sum() == pytest.approx(1)
    assert max(octaves) / min(octaves) < 1.05


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_flips_change_nothing(axes):
    source = PhantomDataset("dermoscopy", cases=5, size=96)
    for case in source.manifest.cases[:2]:
        image, mask = source.read_image(case), source.read_mask(case)
        flipped = profile_case(np.flip(image, axes), np.flip(mask, [axis + 1 for axis in axes]), size=128)
        found = profile_case(image, mask, size=128)
        assert np.allclose(flipped.log_power, found.log_power, atol=1e-3)
        assert np.abs(flipped.histograms - found.histograms).sum(axis=1).max() < 1e-3
        assert (flipped.foreground, flipped.objects) == (found.foreground, found.objects)


def test_a_negative_has_the_same_spectrum_and_other_intensities():
    image = noise(np.random.default_rng(3), slope=-2)
    mask = np.zeros((1, SIZE, SIZE), np.uint8)
    positive, negative = profile_case(image, mask, size=SIZE), profile_case(1 - image, mask, size=SIZE)
    assert np.allclose(positive.log_power, negative.log_power, atol=1e-3)
    assert np.array_equal(positive.histograms[0][:100] > 0, negative.histograms[0][::-1][:100] > 0)


def test_grey_saved_as_colour_counts_as_grey():
    source = PhantomDataset("ultrasound", cases=6, size=64)
    greys = [source.read_image(case) for case in source.manifest]
    one, three = profile_datasets([Arrays(greys), Arrays(map(to_rgb, greys), name="three")], size=64)
    assert list(one.channels) == list(three.channels) == ["grey"]
    assert np.allclose(one.log_power, three.log_power, atol=1e-6)
    assert np.array_equal(one.histograms, three.histograms)


def test_intensities_are_those_of_the_pixels():
    rng = np.random.default_rng(4)
    images = [rng.integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8) // [1, 2, 4] for _ in range(3)]
    images = [image.astype(np.uint8) for image in images]
    found = profile_datasets([Arrays(images)], size=SIZE)[0]
    pixels = np.stack(images).reshape(-1, 3) / 255
    assert list(found.channels) == ["grey", "red", "green", "blue"]
    for channel, name in enumerate(("red", "green", "blue")):
        values = found.channels[name]
        assert values.mean == pytest.approx(pixels[:, channel].mean(), abs=1e-6)
        assert values.std == pytest.approx(pixels[:, channel].std(), abs=1e-6)
        expected = np.percentile(pixels[:, channel], [5, 50, 95], method="inverted_cdf")
        assert [values.p5, values.p50, values.p95] == pytest.approx(expected, abs=1e-6)
    luma = pixels @ [0.299, 0.587, 0.114]
    assert found.channels["grey"].mean == pytest.approx(luma.mean(), abs=1e-3)
    assert found.contrast == pytest.approx(luma.std(), rel=0.01)


def test_references_are_counted_at_native_size():
    mask = np.zeros((2, 100, 50), np.uint8)
    mask[0, 10:20, 10:20] = 1
    mask[0, 20:30, 20:30] = 1  # touches at a corner: one object
    mask[0, 60:80, 5:10] = 1
    mask[0, 95, 45:48] = 1  # a speck
    images = [np.zeros((100, 50, 1), np.uint8)] * 2
    found = profile_datasets([Arrays(images, [mask, np.zeros_like(mask)], targets=("disc", "cup"))], size=64)[0]
    disc, cup = found.references["disc"], found.references["cup"]
    assert disc.foreground == pytest.approx(303 / 5000 / 2)
    assert (disc.empty, disc.objects) == (0.5, 1.0)
    assert disc.object_area == pytest.approx(150 / 5000)
    assert cup == (0, 1, 0, 0)


def test_a_volume_shows_its_fullest_slice():
    rng = np.random.default_rng(5)
    slices = np.stack([noise(rng, slope=-k, size=64) for k in range(5)])
    mask = np.zeros((1, 5, 64, 64), np.uint8)
    empty = profile_case(slices, mask, size=64)
    assert np.array_equal(empty.log_power, profile_case(slices[2], mask[:, 2], size=64).log_power)
    mask[0, 3, :9], mask[0, 4, :2] = 1, 1
    full = profile_case(slices, mask, size=64)
    assert np.array_equal(full.log_power, profile_case(slices[3], mask[:, 3], size=64).log_power)
    assert full.foreground == pytest.approx((9 / 64,))


def test_the_order_of_images_does_not_matter():
    rng = np.random.default_rng(6)
    images = [noise(rng, slope=-k % 3) for k in range(8)]
    first, second = profile_datasets([Arrays(images), Arrays(images[::-1], name="reversed")], size=SIZE)
    assert np.allclose(first.log_power, second.log_power) and np.allclose(first.log_power_std, second.log_power_std)
    assert (first.slope, first.contrast) == pytest.approx((second.slope, second.contrast))


def test_threads_change_nothing_and_progress_is_told():
    told: list[tuple[int, int]] = []
    sets = [PhantomDataset("radiology", cases=5, size=48), PhantomDataset("fundus", cases=6, size=48)]
    one = profile_datasets(sets, size=64, workers=1, step=lambda done, total: told.append((done, total)))
    two = profile_datasets(sets, size=64, workers=3)
    assert told == [(number, 11) for number in range(1, 12)]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(one, two, strict=True))
    assert [profile.groups for profile in one] == [3, 3]
    assert list(one[1].references) == ["disc", "cup"]


def test_only_training_cases_where_asked():
    rng = np.random.default_rng(7)
    source = Arrays(noise(rng, std=0.2 if number % 2 else 0.02) for number in range(10))
    train = profile_datasets([source], size=SIZE, splits=["train"])[0]
    assert (train.images, train.split) == (5, "train")
    assert train.contrast == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("size", [62, 353, 1026])
def test_sizes_out_of_range(size):
    with pytest.raises(ConfigError, match="even number from 64 to 1024"):
        profile_datasets([PhantomDataset("fundus", cases=5)], size=size)


def test_sets_that_cannot_be_profiled():
    with pytest.raises(ConfigError, match="phantom_fundus: named twice"):
        profile_datasets([PhantomDataset("fundus")] * 2)
    with pytest.raises(ConfigError, match="arrays has 1 cases: a profile needs at least two"):
        profile_datasets([Arrays([np.zeros((9, 9, 1), np.uint8)])])
    with pytest.raises(ConfigError, match="arrays has 1 train cases: name it with --unseen"):
        profile_datasets([Arrays([np.zeros((9, 9, 1), np.uint8)] * 3)], splits=["train"])


def test_problems_of_all_sets_stand_in_one_table(tmp_path: Path):
    for name in ("one", "two"):
        for kind in ("images", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
            for number in range(10):
                Image.fromarray(np.eye(20, dtype=np.uint8) * 255).save(tmp_path / name / kind / f"{number}.png")
    (tmp_path / "one" / "images" / "3.png").write_bytes(b"")
    (tmp_path / "one" / "masks" / "4.png").unlink()
    Image.new("L", (5, 4)).save(tmp_path / "two" / "masks" / "6.png")
    with pytest.raises(DataErrors, match="one, two: 3 problems; nothing was written") as caught:
        profile_datasets([FolderDataset(str(tmp_path / name)) for name in ("one", "two")], size=64)
    message = str(caught.value)
    assert "3.png" in message and "4.png" in message and "mask is 5 x 4, image is 20 x 20" in message


def test_values_that_are_no_numbers_are_a_problem():
    images = [np.full((9, 9, 1), value, np.float32) for value in (0.5, np.nan)]
    with pytest.raises(DataErrors, match="NaN or infinite"):
        profile_datasets([Arrays(images)], size=64)
