"""Radiology: an axial chest slice as in computed tomography, with pale infection patches inside the lungs.

In 6 of 100 cases the slice misses the patches and the mask is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from madgnet_bench.catalog.phantom_styles.canvas import Array, Blob, Camera, Scene, Warp, edge, field, fractal, ridges

__all__ = ["HEALTHY_SHARE", "paint"]

HEALTHY_SHARE = 0.06
"""Probability that a slice shows no infection."""

_CAMERA = Camera(brightness=0.07, contrast=-0.28, gamma=-0.25, blur=0.25, noise=0.045, grain=80)


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the target is the infection. The unseen domain has another window, more noise and smaller patches."""
    anatomy, view, s, size = scene.anatomy, scene.view, scene.shift, scene.size
    wide, tall = anatomy.uniform(0.84, 0.95) * (1 - 0.1 * s), anatomy.uniform(0.64, 0.74) * (1 - 0.1 * s)
    body = Blob((0.0, 0.0), (wide, tall), 0.0, (0j, 0j, -0.035 + 0j))
    lungs = [_lung(anatomy, wide, tall, side) for side in (-1, 1)]
    heart = Blob.draw(anatomy, (wide * anatomy.uniform(0.08, 0.18), -0.1), anatomy.uniform(0.22, 0.29) * wide, rough=0.08)
    warp = Warp(anatomy, amplitude=0.02, frequency=3)
    patches = _patches(anatomy, lungs, scale=1 - 0.3 * s)
    density, lung_level = anatomy.uniform(0.32, 0.55), anatomy.uniform(0.11, 0.17) + 0.10 * s
    fat = anatomy.uniform(0.05, 0.10) + 0.05 * s
    scene.look(turn=0.07, zoom=0.05, move=0.05)
    healthy, shrink = view.random() < HEALTHY_SHARE, view.uniform(0, 0.18)
    u, v = warp(scene.u, scene.v)

    inside = body.level(scene.u, scene.v)
    image = _trunk(scene, inside, fat, wide, tall)
    center = edge(heart.level(u, v), 0.06)
    air = np.maximum(*(lung.level(u, v) for lung in lungs))
    air = np.minimum(air, 0.02 - heart.level(u, v) * 0.6)
    lung = edge(air, 0.05)
    tissue = lung_level + 0.025 * fractal(view, size, 14)
    vessels = ridges(view, size, 9, width=0.2) * 0.34 + ridges(view, size, 17 + 8 * s, width=0.25) * 0.28
    vessels *= edge(field(view, size, 10), 0.8)
    tissue = tissue + vessels * np.clip(1.25 - 1.4 * air, 0.1, 1)
    ragged = 0.16 * field(view, size, 14) + 0.10 * field(view, size, 30)
    level = np.max([patch.level(u, v) - shrink + ragged * 0.8 for patch in patches], axis=0)
    level = np.minimum(level, (air - 0.02) * 4)
    if healthy:
        level = np.full_like(level, -1)
    dense = density * (1 + 0.12 * field(view, size, 18)) + 0.10 * ridges(view, size, 22, width=0.3)
    opacity = edge(level, 0.22) * np.float32(0.86)
    tissue = tissue + opacity * (np.maximum(dense, tissue) - tissue)
    image += lung * (tissue - image)
    image += center * (1 - lung) * (0.64 + 0.02 * field(view, size, 6) - image)
    return _CAMERA.record(image[..., None].astype(np.float32), scene, blur=0.35, noise=0.022), [level.astype(np.float32)]


def _lung(rng: Generator, wide: float, tall: float, side: int) -> Blob:
    """Draw the outline of one lung."""
    x, y = side * wide * rng.uniform(0.44, 0.48), rng.uniform(-0.06, 0.02)
    return Blob(
        (x, y), (wide * rng.uniform(0.34, 0.38), tall * rng.uniform(0.68, 0.76)), side * rng.uniform(0.0, 0.14), _bent(rng)
    )


def _bent(rng: Generator) -> tuple[complex, ...]:
    """Draw the harmonics of a lung."""
    return tuple(0.05 * rng.standard_normal(3) + 0.03j * rng.standard_normal(3))


def _patches(rng: Generator, lungs: Sequence[Blob], *, scale: float) -> list[Blob]:
    """Draw the infection patches, centred inside the lungs towards their outer side."""
    patches = []
    for _ in range(rng.integers(1, 5)):
        lung = lungs[int(rng.integers(2))]
        side = np.sign(lung.center[0])
        angle, reach = rng.uniform(-1.3, 1.3), rng.uniform(0.25, 0.75)
        x = lung.center[0] + side * reach * lung.radii[0] * np.cos(angle)
        y = lung.center[1] + reach * lung.radii[1] * np.sin(angle)
        patches.append(Blob.draw(rng, (x, y), rng.uniform(0.13, 0.26) * scale, flat=0.4, rough=0.25))
    return patches


def _trunk(scene: Scene, inside: Array, fat: float, wide: float, tall: float) -> Array:
    """Paint the body without lungs and heart: fat, muscle, ribs, spine and the table beneath."""
    view, size, u, v = scene.view, scene.size, scene.u, scene.v
    image = 0.03 + edge(inside, 0.02) * np.float32(0.40)
    image += edge(inside - fat, 0.03) * (np.float32(0.19) + 0.02 * field(view, size, 10))
    turns, phase = view.uniform(9, 12), view.uniform(0, 6)
    angle = np.arctan2(v / tall, u / wide)
    rib = edge(0.035 - np.abs(inside - fat - 0.075), 0.02) * edge(np.sin(turns * angle + phase), 0.5)
    spine = 1 - np.hypot(u / 0.15, (v - 0.68 * tall) / 0.13)
    canal = 1 - np.hypot(u / 0.055, (v - 0.78 * tall) / 0.05)
    bone = np.maximum(rib, edge(spine, 0.15) * (1 - 0.7 * edge(canal, 0.3)))
    image += bone * (np.float32(0.94) + 0.05 * field(view, size, 30) - image)
    table = np.abs(v - tall - 0.08 - 0.10 * u**2)
    return image + edge(0.012 - table, 0.012) * np.float32(0.45)
