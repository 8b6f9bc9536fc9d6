"""Dermoscopy: one pigmented lesion of irregular border and colour on skin, under hairs and in a dermoscope's vignette."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from madgnet_bench.catalog.phantom_styles.canvas import (
    Array,
    Blob,
    Camera,
    Scene,
    Stroke,
    Warp,
    blend,
    edge,
    field,
    fractal,
    ink,
    mix,
    ridges,
)

__all__ = ["paint"]

_CAMERA = Camera(brightness=-0.06, contrast=-0.25, cast=(-0.12, 0.0, 0.16), saturation=-0.35, blur=0.9, noise=0.022)
_FAIR, _TAN, _DARK = (0.90, 0.73, 0.66), (0.72, 0.52, 0.42), (0.50, 0.34, 0.27)
_PIGMENTS = np.array([(0.40, 0.24, 0.15), (0.22, 0.13, 0.10), (0.56, 0.33, 0.24), (0.36, 0.31, 0.33)])


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the target is the lesion. The unseen domain has darker skin, smaller and paler lesions, more hair."""
    anatomy, view, s, size = scene.anatomy, scene.view, scene.shift, scene.size
    skin = mix(mix(_FAIR, _TAN, anatomy.uniform(0, 1)), _DARK, 0.75 * s)
    radius = anatomy.uniform(0.36, 0.60) * (1 - 0.35 * s)
    lesion = Blob.draw(anatomy, anatomy.uniform(-0.2, 0.2, 2), radius, flat=0.3, rough=0.13)
    spot = Blob.draw(anatomy, np.asarray(lesion.center) + anatomy.uniform(-0.5, 0.5, 2) * radius, radius * 0.55, rough=0.3)
    warp = Warp(anatomy, amplitude=0.03, frequency=5)
    main, second = _PIGMENTS[anatomy.permutation(4)[:2]]
    depth = anatomy.uniform(0.45, 1.0) * (1 - 0.2 * s)
    freckles = anatomy.uniform(-1.3, 1.3, (anatomy.integers(0, 14), 2))
    scene.look(turn=0.6, zoom=0.12, move=0.14)
    u, v = warp(scene.u, scene.v)
    level = lesion.level(u, v)

    image = np.empty((size, size, 3), np.float32)
    image[:] = skin
    image *= 1 + (0.05 * fractal(view, size, 10) + (0.03 + 0.03 * s) * field(view, size, 44 - 22 * s))[..., None]
    blush = edge(level + 0.35 + 0.2 * field(view, size, 4), 0.5) * np.float32(view.uniform(0, 0.5))
    image = blend(image, skin * np.array([1.0, 0.74, 0.72], np.float32), blush)
    image = _freckles(image, scene, freckles, skin)
    patch = fractal(view, size, 5)
    opacity = edge(level, 0.16) * np.float32(depth) * np.clip(0.72 + 0.26 * patch, 0.12, 1)
    colours = blend(np.broadcast_to(main.astype(np.float32), image.shape), second, edge(spot.level(u, v), 0.4))
    image = blend(image, colours * np.float32(skin.mean() + 0.2), opacity)
    network = ridges(view, size, 30, width=0.5) * edge(level - 0.1, 0.3) * edge(field(view, size, 4), 1.0)
    image *= 1 - np.float32(0.26 * depth) * network[..., None]
    globules = edge(field(view, size, 20) - 1.3, 0.4) * edge(level - 0.1, 0.2)
    image *= 1 - np.float32(0.4 * depth) * globules[..., None]
    return _CAMERA.record(_light(_hairs(image, scene), scene), scene), [level]


def _freckles(image: Array, scene: Scene, centers: np.ndarray, skin: Array) -> Array:
    """Add small pigmented spots beside the lesion, which are no target."""
    opacity = np.zeros_like(scene.x)
    for x, y in centers:
        square = (scene.u - np.float32(x)) ** 2 + (scene.v - np.float32(y)) ** 2
        np.maximum(opacity, 1 - square / np.float32(0.075**2), out=opacity)
    return blend(image, skin * np.array([0.62, 0.5, 0.45], np.float32), opacity * np.float32(0.8))


def _hairs(image: Array, scene: Scene) -> Array:
    """Lay dark curved hairs over everything."""
    view, strokes = scene.view, []
    for _ in range(view.integers(0, 9 + int(14 * scene.shift))):
        start, angle, bend = view.uniform(-1.2, 1.2, 2), view.uniform(0, 2 * np.pi), view.uniform(-1, 1)
        t = np.linspace(0, view.uniform(0.7, 1.9), 14)
        path = np.stack([np.cos(angle + bend * t), np.sin(angle + bend * t)], axis=-1)
        strokes.append(Stroke(start + t[:, None] * path, view.uniform(0.012, 0.028), view.uniform(0.55, 0.95)))
    return blend(image, (0.16, 0.11, 0.09), ink(scene.size, strokes))


def _light(image: Array, scene: Scene) -> Array:
    """Darken towards the corners and to one side."""
    view = scene.view
    side = view.uniform(-0.16, 0.16, 2).astype(np.float32)
    radius = np.hypot(scene.x, scene.y)
    vignette = 1 - np.float32(view.uniform(0.12, 0.42)) * np.clip(radius - 0.25, 0, None) ** 2
    image = image * (vignette + side[0] * scene.x + side[1] * scene.y)[..., None]
    if view.random() < 0.35:
        image = image * (0.08 + 0.92 * edge(np.float32(view.uniform(1.08, 1.25)) - radius, 0.05))[..., None]
    return image
