from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from madgnet_bench.catalog.phantom_styles.canvas import Blob, Scene, Stroke, edge, field, fractal, ink
from madgnet_bench.catalog.phantom_styles.radiology import HEALTHY_SHARE
from madgnet_bench.catalog.phantoms import PHANTOM_CARDS, PhantomDataset

MODALITIES = list(PHANTOM_CARDS)


@cache
def case_arrays(modality: str, shift: float, cases: int, seed: int = 0) -> tuple[list[NDArray[np.uint8]], NDArray[np.bool_]]:
    """Images with the grey mean as last channel, and masks (cases, K, 96, 96)."""
    dataset = PhantomDataset(modality, shift=shift, cases=cases, seed=seed)
    images = [np.asarray(dataset.read_image(case)) for case in dataset.manifest]
    grey = [np.rint(image.mean(axis=-1, keepdims=True)).astype(np.uint8) for image in images]
    images = [np.concatenate([image, mean], axis=-1) for image, mean in zip(images, grey, strict=True)]
    return images, np.stack([dataset.read_mask(case) for case in dataset.manifest]).astype(bool)


def threshold_dice(channel: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice of "value at least t", t = 0 ... 256, and of its opposite: (2, 257)."""
    inside = np.bincount(channel[mask], minlength=257)[::-1].cumsum()[::-1]
    total = np.bincount(channel.ravel(), minlength=257)[::-1].cumsum()[::-1]
    area = mask.sum()
    above = 2 * inside / np.maximum(total + area, 1)
    below = 2 * (area - inside) / np.maximum(channel.size - total + area, 1)
    return np.stack([above, below])


def otsu(channel: NDArray[np.uint8]) -> int:
    counts = np.bincount(channel.ravel(), minlength=256).astype(float)
    weight, moment = counts.cumsum(), (counts * np.arange(256)).cumsum()
    rest = np.maximum(weight[-1] - weight, 1e-9)
    between = (moment[-1] * weight / weight[-1] - moment) ** 2 / np.maximum(weight, 1e-9) / rest
    return int(np.argmax(between)) + 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_threshold_solves_the_source_domain(modality: str) -> None:
    images, masks = case_arrays(modality, 0.0, 20)
    for target in range(masks.shape[1]):
        for channel in range(images[0].shape[-1]):
            views = [np.ascontiguousarray(image[..., channel]) for image in images]
            curves = np.stack([threshold_dice(view, mask[target]) for view, mask in zip(views, masks, strict=True)])
            assert curves.mean(axis=0).max() <= 0.75
            own = [curve[:, otsu(view)] for curve, view in zip(curves, views, strict=True)]
            assert np.mean(own, axis=0).max() < (0.85 if modality == "microscopy" else 0.75)


@pytest.mark.parametrize("modality", MODALITIES)
def test_targets_are_neither_tiny_nor_dominant(modality: str) -> None:
    _, masks = case_arrays(modality, 0.0, 20)
    area = masks.mean(axis=(0, 2, 3))
    assert (area > 0.01).all()
    assert (area < 0.4).all()


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_cup_lies_inside_the_disc(shift: float) -> None:
    _, masks = case_arrays("fundus", shift, 20)
    disc, cup = masks[:, 0], masks[:, 1]
    assert not (cup & ~disc).any()
    assert (cup.sum(axis=(1, 2)) > 0).all()
    assert (disc & ~cup).any(axis=(1, 2)).all()


def test_only_radiology_has_empty_masks_and_few() -> None:
    for modality in MODALITIES:
        cases = 200 if modality == "radiology" else 30
        dataset = PhantomDataset(modality, size=32, cases=cases)
        empty = np.mean([not dataset.read_mask(case).any() for case in dataset.manifest])
        assert empty == pytest.approx(HEALTHY_SHARE, abs=0.03) if modality == "radiology" else empty == 0


def cumulative_histogram(modality: str, shift: float, seed: int = 0) -> NDArray[np.float64]:
    grey = np.stack([image[..., -1] for image in case_arrays(modality, shift, 12, seed)[0]])
    return np.bincount(grey.ravel(), minlength=256).cumsum() / grey.size


def log_power(modality: str, shift: float, seed: int = 0) -> NDArray[np.float64]:
    """Logarithm of the mean power in five octaves of radial frequency."""
    grey = np.stack([image[..., -1] for image in case_arrays(modality, shift, 12, seed)[0]]).astype(float)
    window = np.hanning(96)
    centred = (grey - grey.mean(axis=(1, 2), keepdims=True)) * window * window[:, None]
    power = (np.abs(np.fft.fft2(centred)) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(96) * 96
    radius = np.hypot(frequency, frequency[:, None])
    octaves = ((1, 3), (3, 6), (6, 12), (12, 24), (24, 48))
    return np.log([power[(radius >= low) & (radius < high)].mean() for low, high in octaves])


@pytest.mark.parametrize("measure", [cumulative_histogram, log_power])
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_domain_moves_away_with_the_shift(modality: str, measure: object) -> None:
    source = measure(modality, 0.0)  # type: ignore[operator]
    near, middle, far = (np.abs(measure(modality, shift) - source).mean() for shift in (0.25, 0.6, 1.0))  # type: ignore[operator]
    assert near < middle * 1.05
    assert middle < far * 1.35
    assert far > 1.4 * near


@pytest.mark.parametrize("size", [48, 352])
def test_fields_are_standardised_and_show_the_same_at_every_size(size: int) -> None:
    for cells in (5, 24):
        drawn = np.stack([field(np.random.default_rng(seed), size, cells) for seed in range(40)])
        assert drawn.mean() == pytest.approx(0, abs=0.15)
        assert drawn.std() == pytest.approx(1, abs=0.1)
    coarse = fractal(np.random.default_rng(1), size, 4)
    fine = fractal(np.random.default_rng(1), size * 3, 4)[1::3, 1::3]
    np.testing.assert_allclose(coarse, fine, atol=1e-4)


def test_views_bring_points_where_pixels_show_them() -> None:
    scene = Scene(64, 0.0, np.random.default_rng(0), np.random.default_rng(1))
    scene.look(turn=1.0, zoom=0.3, move=0.4)
    shown = scene.place(np.stack([scene.u, scene.v], axis=-1))
    np.testing.assert_allclose(shown, np.stack([scene.x, scene.y], axis=-1), atol=1e-5)


def test_a_smooth_blob_is_an_ellipse() -> None:
    scene = Scene(200, 0.0, np.random.default_rng(0), np.random.default_rng(1))
    level = Blob((0.1, -0.2), (0.5, 0.3), 0.4, ()).level(scene.u, scene.v)
    assert (level > 0).mean() * 4 == pytest.approx(np.pi * 0.5 * 0.3, rel=0.01)
    assert edge(level, 0.1).min() == 0
    assert edge(level, 0.1).max() == 1


def test_strokes_are_drawn_where_they_are_said_to_be() -> None:
    line = Stroke(np.array([[-1.0, 0.5], [1.0, 0.5]]), 0.1, 0.8)
    for size in (40, 200):
        sheet = ink(size, [line])
        assert sheet.max() == pytest.approx(0.8, abs=0.01)
        rows = np.nonzero(sheet.mean(axis=1) > 0.4)[0]
        assert (rows.mean() + 0.5) * 2 / size - 1 == pytest.approx(0.5, abs=0.02)
        assert sheet.mean() == pytest.approx(0.8 * 0.05, rel=0.3)
