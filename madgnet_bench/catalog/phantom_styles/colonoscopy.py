"""Colonoscopy: a polyp on folded mucosa of its own colour, beside the dark lumen, with specular highlights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from madgnet_bench.catalog.phantom_styles.canvas import (
    Array,
    Blob,
    Camera,
    Scene,
    Warp,
    blend,
    edge,
    field,
    fractal,
    mix,
    ridges,
)

__all__ = ["paint"]

_CAMERA = Camera(brightness=-0.06, contrast=-0.12, gamma=0.15, cast=(-0.30, 0.05, 0.05), blur=0.8, noise=0.022)


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the target is the polyp. The unseen domain has greener light, finer folds and smaller polyps."""
    anatomy, view, s, size = scene.anatomy, scene.view, scene.shift, scene.size
    angle = anatomy.uniform(0, 2 * np.pi)
    toward = np.array([np.cos(angle), np.sin(angle)])
    lumen = toward * anatomy.uniform(0.25, 0.7)
    radius = anatomy.uniform(0.24, 0.40) * (1 - 0.35 * s)
    turn = angle + np.pi + anatomy.uniform(-1.0, 1.0)
    center = lumen + np.array([np.cos(turn), np.sin(turn)]) * anatomy.uniform(0.55, 0.85)
    polyp = Blob.draw(anatomy, np.clip(center, -0.6, 0.6), radius, flat=0.25, rough=0.06)
    warp = Warp(anatomy, amplitude=0.05, frequency=1.6)
    edge_warp = Warp(anatomy, amplitude=0.02, frequency=4)
    folds, phase = anatomy.uniform(3.0, 5.0) * (1 + 0.6 * s), anatomy.uniform(0, 2 * np.pi)
    height, tint = anatomy.uniform(0.55, 0.9), anatomy.choice([-1, 1, 1]) * anatomy.uniform(0.4, 1.0)
    scene.look(turn=0.5, zoom=0.08, move=0.10)

    level = polyp.level(*edge_warp(scene.u, scene.v))
    u, v = warp(scene.u, scene.v)
    away = np.hypot(u - np.float32(lumen[0]), v - np.float32(lumen[1]))
    swing = np.float32(0.9) * field(view, size, 2.5)
    wave = np.sin(np.float32(folds) * 2 * np.log(away + 0.25) * 2 + np.float32(phase) + swing)
    q = np.clip(level + 0.08, 0, 1)
    dome = q * q / (q + 0.15) * (2 - q) * np.float32(height * radius)
    relief = 0.055 * np.maximum(wave, -0.2) * (0.4 + away) * (1 - 0.8 * edge(level, 0.3)) + dome
    relief = relief + 0.004 * fractal(view, size, 16)
    shade, gloss = _shade(scene, relief.astype(np.float32))

    mucosa = mix((0.86, 0.50, 0.42), (0.80, 0.40, 0.36), anatomy.uniform(0, 1))
    image = np.empty((size, size, 3), np.float32)
    image[:] = mucosa
    image *= 1 + 0.07 * fractal(view, size, 5)[..., None]
    vessels = ridges(view, size, 7, width=0.07) * edge(field(view, size, 3), 0.8) * (1 - edge(level, 0.3))
    image = blend(image, mucosa * np.array([0.85, 0.55, 0.55], np.float32), vessels * np.float32(0.6))
    redder, paler = np.array([1.0, 0.80, 0.82], np.float32), np.array([1.06, 1.14, 1.14], np.float32)
    patch = edge(level, 0.15) * (0.75 + 0.25 * field(view, size, 12))
    image = blend(image, image * (redder if tint > 0 else paler), patch * np.float32(abs(tint)))
    dark = np.exp(-((away / np.float32(view.uniform(0.30, 0.42))) ** 2)) * (1 - edge(level, 0.2))
    image *= (shade * (1 - 0.93 * dark))[..., None]
    image = blend(image, (1.0, 0.98, 0.96), gloss * (1 - dark))
    return _CAMERA.record(image * _frame(scene)[..., None], scene), [level]


def _shade(scene: Scene, relief: Array) -> tuple[Array, Array]:
    """Light the relief from beside the camera: diffuse shading, and the opacity of wet highlights."""
    view, size = scene.view, scene.size
    slope = ndimage.gaussian_filter(relief, 0.5 * size / 96)
    dy, dx = np.gradient(slope, 2 / size)
    x, y = view.uniform(-0.35, 0.35, 2).astype(np.float32)
    length = np.sqrt(1 + dx**2 + dy**2)
    facing = (1 - x * dx - y * dy) / (length * np.float32(np.sqrt(1 + x**2 + y**2)))
    fade = 1.05 - 0.28 * (scene.x**2 + scene.y**2) + 0.10 * field(view, size, 2)
    shade = np.clip(facing, 0.15, 1.1) * fade
    wet = field(view, size, 26) + 0.9 * field(view, size, 6)
    gloss = edge(facing - 0.93, 0.06) * edge(wet - np.float32(2.1 - 0.5 * scene.shift), 0.3)
    return shade.astype(np.float32), gloss.astype(np.float32)


def _frame(scene: Scene) -> Array:
    """Black corners of the video frame."""
    corner = np.float32(scene.view.uniform(1.55, 1.8)) - np.abs(scene.x) - np.abs(scene.y)
    return np.float32(0.03) + np.float32(0.97) * edge(corner, 0.02)
