"""Ultrasound: a hypoechoic mass of blurred border in layered breast-like tissue, with speckle, attenuation and shadows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from madgnet_bench.catalog.phantom_styles.canvas import Array, Blob, Camera, Scene, Warp, edge, field, fractal, ridges

__all__ = ["paint"]

_CAMERA = Camera(brightness=0.10, contrast=-0.30, gamma=-0.15, blur=0.5, noise=0.02)


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the target is the mass. The unseen domain has a convex probe, coarser speckle and smaller, paler masses."""
    anatomy, view, s, size = scene.anatomy, scene.view, scene.shift, scene.size
    center = anatomy.uniform((-0.35, -0.25), (0.35, 0.30))
    mass = Blob.draw(anatomy, center, anatomy.uniform(0.26, 0.42) * (1 - 0.3 * s), flat=0.35, rough=0.10)
    mass = Blob(mass.center, mass.radii, anatomy.uniform(-0.35, 0.35), mass.harmonics)
    warp = Warp(anatomy, amplitude=0.03, frequency=4)
    depth = anatomy.uniform(0.7, 1.6) * (1 - 0.5 * s)
    behind = anatomy.choice([-1.1, -0.6, 0.45])
    lobules = _lobules(anatomy, center)
    borders = anatomy.uniform((-0.86, -0.55, 0.42), (-0.80, -0.25, 0.72))
    scene.look(turn=0.12, zoom=0.10, move=0.12)
    u, v = warp(scene.u, scene.v)
    level = mass.level(u, v)

    echo = _layers(scene, v, borders)
    for lobule in lobules:
        echo -= edge(lobule.level(u, v), 0.35) * np.float32(0.85)
    body = edge(level + 0.10 * field(view, size, 12), 0.34)
    echo += body * (np.float32(depth * -0.62) + 0.30 * fractal(view, size, 10) - echo - np.float32(0.55))
    below = edge(v - np.float32(mass.center[1]), 0.3) * (1 - body)
    column = edge(1 - np.abs(u - np.float32(mass.center[0])) / np.float32(0.8 * mass.radii[0]), 0.35)
    echo += below * column * np.float32(behind)
    for x in view.uniform(-1, 1, view.integers(1, 4)):
        start, width = view.uniform(-0.9, 0.1), view.uniform(0.05, 0.14)
        echo -= edge(1 - np.abs(scene.x - x) / width, 0.6) * edge(scene.y - start, 0.2) * view.uniform(0.4, 1.1)
    echo -= (scene.y + 1) * np.float32(view.uniform(0.25, 0.65)) + 0.22 * field(view, size, 3)
    image = np.clip(0.46 + 0.21 * (echo + _speckle(scene)), 0, 1)
    image = image * _probe(scene)
    return _CAMERA.record(image[..., None].astype(np.float32), scene, blur=0.25, noise=0.01), [level]


def _lobules(rng: Generator, mass: Array) -> list[Blob]:
    """Draw fat lobules, dark like the mass but small and shallow, which are no target."""
    lobules = []
    for x in (-0.7, -0.2, 0.3, 0.8):
        center = (x + rng.uniform(-0.2, 0.2), rng.uniform(-0.72, -0.42))
        lobules.append(Blob.draw(rng, center, rng.uniform(0.09, 0.17), flat=0.6, rough=0.1))
    return [lobule for lobule in lobules if np.hypot(*(np.asarray(lobule.center) - mass)) > 0.35]


def _layers(scene: Scene, v: Array, borders: Array) -> Array:
    """Paint log echogenicity of skin, fat, gland and muscle, from top to bottom."""
    view, size = scene.view, scene.size
    wavy = v + 0.05 * field(view, size, 3)
    skin, fat, muscle = (np.float32(border) for border in borders)
    echo = 0.9 - edge(wavy - skin, 0.05) * np.float32(1.15)
    echo = echo + edge(wavy - fat, 0.12) * np.float32(0.95)
    echo = echo - edge(wavy - muscle, 0.10) * np.float32(0.75)
    septa = ridges(view, size, 9, width=0.2, stretch=2.2)
    fibres = ridges(view, size, 26, width=0.5, stretch=5.0) * edge(wavy - muscle, 0.1)
    return (echo + 0.7 * septa + 0.7 * fibres + 0.25 * fractal(view, size, 6)).astype(np.float32)


def _speckle(scene: Scene) -> Array:
    """Log amplitude of fully developed speckle: the modulus of a complex Gaussian field."""
    cells = 84 - 40 * scene.shift
    real, imaginary = (field(scene.view, scene.size, cells, stretch=1.6) for _ in range(2))
    return np.log(np.sqrt(real**2 + imaginary**2) + np.float32(0.3))


def _probe(scene: Scene) -> Array:
    """Field of view: the whole image for a linear probe, a sector that narrows with the shift for a convex one."""
    s = scene.shift
    if s == 0:
        return np.ones_like(scene.x)
    slope = 0.75 * s
    side = 1 + 0.02 - slope * (1 - scene.y) * 0.5 - np.abs(scene.x)
    bow = scene.y + 1 - 0.25 * s * (1 - scene.x**2 * 2.2) * 0.5
    foot = 1.02 - 0.2 * s * scene.x**2 - scene.y
    return edge(side, 0.02) * edge(bow, 0.02) * edge(foot, 0.02)
