"""Fundus: a retina with vessels, fovea and an optic disc that holds a cup: two nested targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from madgnet_bench.catalog.phantom_styles.canvas import (
    Array,
    Blob,
    Camera,
    Scene,
    Stroke,
    blend,
    edge,
    field,
    fractal,
    ink,
    mix,
    ridges,
)

__all__ = ["paint"]

_CAMERA = Camera(brightness=0.05, contrast=-0.20, cast=(-0.25, 0.12, 0.30), saturation=-0.25, blur=0.8, noise=0.022)


def paint(scene: Scene) -> tuple[Array, Sequence[Array]]:
    """Paint a case; the targets are disc and cup. The unseen domain has another camera's colours and smaller, paler discs."""
    anatomy, view, s, size = scene.anatomy, scene.view, scene.shift, scene.size
    side = int(anatomy.choice([-1, 1]))
    center = np.array([side * anatomy.uniform(0.18, 0.42), anatomy.uniform(-0.15, 0.15)])
    radius = anatomy.uniform(0.24, 0.32) * (1 - 0.3 * s)
    disc = Blob.draw(anatomy, center, radius, flat=0.08, rough=0.03)
    share = anatomy.uniform(0.42, 0.72)
    cup = Blob.draw(anatomy, center + anatomy.uniform(-0.12, 0.12, 2) * radius, radius * share, flat=0.1, rough=0.04)
    tree = _tree(anatomy, center, side)
    tone = anatomy.uniform(0, 1)
    pale = anatomy.uniform(0.35, 0.85) * (1 - 0.3 * s)
    atrophy = Blob.draw(anatomy, center - np.array([side, 0]) * radius * 0.25, radius * anatomy.uniform(1.0, 1.35), rough=0.05)
    spots = anatomy.uniform(-0.9, 0.9, (anatomy.integers(0, 9), 2))
    scene.look(turn=0.2, zoom=0.06, move=0.10)
    u, v = scene.u, scene.v
    disc_level = disc.level(u, v)
    cup_level = np.minimum(cup.level(u, v), disc_level - 0.03)

    retina = mix((0.78, 0.36, 0.16), (0.58, 0.22, 0.10), tone)
    image = np.empty((size, size, 3), np.float32)
    image[:] = retina
    choroid = 0.10 * fractal(view, size, 5) + 0.12 * (ridges(view, size, 8 + 4 * s, width=0.4) - 0.35)
    image *= 1 + choroid[..., None]
    fovea = np.hypot(u - np.float32(center[0] - side * 0.85), v - np.float32(center[1] + 0.08))
    image *= (1 - 0.45 * np.exp(-((fovea / np.float32(0.2)) ** 2)))[..., None]
    image = _spots(image, scene, spots)
    image = blend(image, (0.88, 0.60, 0.36), edge(atrophy.level(u, v), 0.12) * np.float32(0.5))
    image = blend(image, (0.93, 0.66, 0.38), edge(disc_level, 0.10) * np.float32(pale))
    image = blend(image, (0.98, 0.88, 0.66), edge(cup_level, 0.22) * np.float32(min(1, pale + 0.05)))
    image = _vessels(image, scene, tree)
    return _CAMERA.record(_lens(image, scene), scene), [disc_level, cup_level]


def _tree(rng: Generator, root: np.ndarray, side: int) -> list[tuple[np.ndarray, float, bool]]:
    """Grow vessels from the disc: four arcades that bend towards the fovea, with branches; points, width, artery."""
    tree = []
    for up in (-1, 1):
        for artery in (True, False):
            lean = rng.uniform(-0.25, 0.25)
            path = _grow(rng, root, up * (np.pi / 2 - 0.15 + lean), bend=side * up * rng.uniform(0.3, 1.0), length=1.9)
            width = 0.042 if not artery else 0.032
            tree.append((path, width, artery))
            for joint in rng.integers(4, 18, rng.integers(4, 8)):
                start = path[joint]
                heading = np.arctan2(*(path[joint + 1] - start)[::-1]) + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
                branch = _grow(rng, start, heading, bend=rng.uniform(-0.8, 0.8), length=rng.uniform(0.5, 1.1))
                tree.append((branch, width * rng.uniform(0.4, 0.65), artery))
    return tree


def _grow(rng: Generator, start: np.ndarray, heading: float, *, bend: float, length: float) -> np.ndarray:
    """Walk a winding path of 24 points."""
    turns = heading + bend * np.linspace(0, length, 24) + np.cumsum(rng.normal(0, 0.06, 24))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=-1) * (length / 24)
    return start + np.vstack([np.zeros(2), np.cumsum(steps, axis=0)])


def _vessels(image: Array, scene: Scene, tree: Sequence[tuple[np.ndarray, float, bool]]) -> Array:
    """Draw veins, then arteries over them."""
    for wanted, colour, strength in ((False, (0.36, 0.07, 0.06), 0.85), (True, (0.50, 0.12, 0.08), 0.7)):
        strokes = [Stroke(scene.place(path), width, strength) for path, width, artery in tree if artery is wanted]
        image = blend(image, colour, ink(scene.size, strokes))
    return image


def _spots(image: Array, scene: Scene, centers: np.ndarray) -> Array:
    """Add bright exudates and drusen, which are no target."""
    opacity = np.zeros_like(scene.x)
    for number, (x, y) in enumerate(centers):
        square = (scene.u - np.float32(x)) ** 2 + (scene.v - np.float32(y)) ** 2
        np.maximum(opacity, 1 - square / np.float32((0.05 + 0.015 * (number % 4)) ** 2), out=opacity)
    return blend(image, (0.92, 0.76, 0.42), opacity * np.float32(0.75))


def _lens(image: Array, scene: Scene) -> Array:
    """Light the retina unevenly, with a reflex at the border, and cut the round field of view."""
    view, size = scene.view, scene.size
    radius = np.hypot(scene.x, scene.y)
    side = view.uniform(-0.28, 0.28, 2).astype(np.float32)
    light = np.float32(view.uniform(0.5, 1.12)) * (1.08 - 0.3 * radius**2) + side[0] * scene.x + side[1] * scene.y
    image = image * (light + 0.08 * field(view, size, 2.5))[..., None]
    angle, strength = view.uniform(0, 2 * np.pi), np.float32(view.uniform(0, 0.9))
    flare = np.hypot(scene.x - np.float32(0.95 * np.cos(angle)), scene.y - np.float32(0.95 * np.sin(angle)))
    image = blend(image, (0.98, 0.78, 0.55), np.exp(-((flare / np.float32(0.32)) ** 2)) * strength)
    return image * (0.02 + 0.98 * edge(np.float32(0.97) - radius, 0.015))[..., None]
