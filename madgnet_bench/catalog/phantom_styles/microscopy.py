"""Microscopy: many nuclei, some touching. Fluorescence up to a shift of 0.5, beyond it stained tissue in transmitted light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from madgnet_bench.catalog.phantom_styles.canvas import Array, Blob, Camera, Scene, blend, edge, field, fractal, ridges

__all__ = ["paint"]

_FLUORESCENCE = Camera(brightness=0.10, contrast=-0.35, gamma=-0.2, blur=1.3, noise=0.03)
_STAINED = Camera(contrast=-0.15, cast=(-0.06, -0.04, 0.06), blur=0.8, noise=0.02)
_STROMA, _NUCLEUS, _BLOOD = (0.90, 0.66, 0.78), (0.36, 0.24, 0.52), (0.80, 0.28, 0.36)


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the target is the union of the nuclei."""
    s = scene.shift
    radius = scene.anatomy.uniform(0.085, 0.115) * (1 + 0.4 * s)
    nuclei = _tissue(scene.anatomy, radius, flat=0.18 + 0.25 * s)
    brightness = np.exp(scene.anatomy.uniform(np.log(0.2), 0, len(nuclei)))
    scene.look(turn=3.14, zoom=0.08, move=0.25)
    level, strength = _stamp(scene, nuclei, brightness)
    image = _stained(scene, level, strength, radius) if s > 0.5 else _fluorescence(scene, level, strength, radius)
    return image, [level]


def _tissue(rng: Generator, radius: float, *, flat: float) -> list[Blob]:
    """Scatter nuclei over more than the field of view: clusters of touching ones and single ones, few overlapping."""
    centers: list[tuple[float, float]] = []
    blobs: list[Blob] = []
    clusters = rng.uniform(-1.5, 1.5, (int(rng.uniform(22, 44)), 2))
    for cluster in clusters:
        for member in range(rng.integers(1, 5)):
            angle = rng.uniform(0, 2 * np.pi)
            center = cluster if member == 0 else cluster + 1.9 * radius * np.array([np.cos(angle), np.sin(angle)])
            if all((x - center[0]) ** 2 + (y - center[1]) ** 2 > (1.5 * radius) ** 2 for x, y in centers):
                centers.append((center[0], center[1]))
                blobs.append(Blob.draw(rng, center, radius * rng.uniform(0.75, 1.2), flat=flat, rough=0.06))
    return blobs


def _stamp(scene: Scene, nuclei: Sequence[Blob], brightness: np.ndarray) -> tuple[Array, Array]:
    """Compose the nuclei, each in its own window: level map, and brightness of the uppermost nucleus."""
    size = scene.size
    level, strength = np.full((size, size), -1, np.float32), np.zeros((size, size), np.float32)
    for blob, bright in zip(nuclei, brightness, strict=True):
        x, y = scene.place(blob.center)
        reach = 1.6 * max(blob.radii)
        (left, right), (top, bottom) = _span(x, reach, size), _span(y, reach, size)
        if left >= right or top >= bottom:
            continue
        window = slice(top, bottom), slice(left, right)
        own = np.maximum(blob.level(scene.u[window], scene.v[window]), -1)
        above = own > level[window]
        strength[window] = np.where(above, np.float32(bright), strength[window])
        level[window] = np.where(above, own, level[window])
    return level, strength


def _span(center: float, reach: float, size: int) -> tuple[int, int]:
    """First pixel within reach of a position, and the first one after."""
    return max(0, int((center - reach + 1) * size / 2)), min(size, int((center + reach + 1) * size / 2) + 1)


def _haze(scene: Scene, radius: float, count: int) -> Array:
    """Blurred nuclei above and below the plane of focus, which are no target; about 1 at their centres."""
    sheet = np.zeros((scene.size, scene.size), np.float32)
    for x, y in scene.view.uniform(-1.1, 1.1, (count, 2)):
        distance = ((scene.x - x) ** 2 + (scene.y - y) ** 2) / np.float32((radius * scene.view.uniform(1.2, 2.2)) ** 2)
        sheet += np.exp(-distance).astype(np.float32) * np.float32(scene.view.uniform(0.4, 1))
    return sheet


def _fluorescence(scene: Scene, level: Array, strength: Array, radius: float) -> Array:
    """Light nuclei before a dark, unevenly lit background."""
    view, size, s = scene.view, scene.size, scene.shift
    angle, slope = view.uniform(0, 2 * np.pi), view.uniform(0.25, 0.6)
    light = 0.75 + slope * (np.cos(angle) * scene.x + np.sin(angle) * scene.y) * 0.7 + 0.16 * field(view, size, 2.5)
    light = np.clip(light, 0.22, 1.4)
    texture = 1 + 0.22 * field(view, size, 26) + 0.10 * field(view, size, 50)
    nuclei = edge(level, 0.22) * ndimage.gaussian_filter(strength, scene.pixels(0.012)) * texture * 0.85
    haze = _haze(scene, radius, int(view.integers(8, 18) * (1 + s))) * np.float32(0.36)
    base = view.uniform(0.05, 0.12) + 0.03 * fractal(view, size, 6)
    image = light * (nuclei * (1 - 0.4 * np.clip(haze, 0, 1)) + haze + base)
    return _FLUORESCENCE.record(image[..., None].astype(np.float32), scene, blur=0.45, noise=0.015)


def _stained(scene: Scene, level: Array, strength: Array, radius: float) -> Array:
    """Dark violet nuclei on bright pink stroma with fibres, gaps and blood cells."""
    view, size = scene.view, scene.size
    image = np.empty((size, size, 3), np.float32)
    image[:] = _STROMA
    fibres = ridges(view, size, 10, width=0.35, stretch=1.8) * 0.5 + ridges(view, size, 18, width=0.35) * 0.3
    image = blend(image, (0.80, 0.48, 0.66), np.clip(fibres + 0.12 * fractal(view, size, 8), 0, 1))
    gaps = edge(fractal(view, size, 5) - 1.0, 0.25)
    image = blend(image, (0.96, 0.94, 0.95), gaps * edge(-level, 0.3))
    image = blend(image, (0.62, 0.42, 0.66), np.clip(_haze(scene, radius, 10) * 0.45, 0, 0.6).astype(np.float32))
    blood = edge(field(view, size, 12) - 1.7, 0.2)
    image = blend(image, _BLOOD, blood * np.float32(0.8))
    opacity = edge(level, 0.2) * np.clip(0.45 + 0.5 * strength + 0.14 * field(view, size, 30), 0.25, 1)
    image = blend(image, _NUCLEUS, opacity)
    tilt = view.uniform(-0.1, 0.1, 2).astype(np.float32)
    image *= (1 + tilt[0] * scene.x + tilt[1] * scene.y)[..., None]
    return _STAINED.record(image, scene)
