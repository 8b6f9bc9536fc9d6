"""The canvas of the phantom painters: coordinates, seeded fields, blobs, strokes and the camera.

Positions and lengths are fractions of half the image's side (the image spans [-1, 1] along x to the right and y downwards)
and fields are drawn on lattices of a fixed number of cells, so that a case shows the same scene at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

__all__ = [
    "Array",
    "Blob",
    "Camera",
    "Painter",
    "Scene",
    "Stroke",
    "Warp",
    "blend",
    "edge",
    "field",
    "fractal",
    "ink",
    "mix",
    "ridges",
]

Array = NDArray[Any]
"""A map (H, W) or an image (H, W, C) of floats, float32 except where a painter mixes in a double."""


class Scene:
    """What one case is painted from.

    Args:
        size: Side of the image in pixels.
        shift: Distance from the source domain, in [0, 1].
        anatomy: Random stream of what the cases of a group share.
        view: Random stream of this case alone.

    Attributes:
        x: (size, size) horizontal position of each pixel's centre.
        y: (size, size) vertical position.
        u: (size, size) horizontal position in the anatomy, once `look` chose a view; equal to ``x`` before.
        v: (size, size) vertical position in the anatomy.
    """

    def __init__(self, size: int, shift: float, anatomy: Generator, view: Generator) -> None:
        self.size, self.shift, self.anatomy, self.view = size, shift, anatomy, view
        line = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
        self.x, self.y = (np.ascontiguousarray(grid) for grid in np.meshgrid(line, line))
        self.u, self.v = self.x, self.y
        self._matrix, self._move = np.eye(2), np.zeros(2)

    def look(self, *, turn: float, zoom: float, move: float) -> None:
        """Choose this case's view of the anatomy at random.

        Args:
            turn: Largest rotation, in radians.
            zoom: Largest relative change of scale.
            move: Largest translation along each axis.
        """
        angle, scale = self.view.uniform(-turn, turn), np.exp(self.view.uniform(-zoom, zoom))
        self._move = self.view.uniform(-move, move, 2)
        self._matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        inverse = np.linalg.inv(self._matrix).astype(np.float32)
        x, y = self.x - np.float32(self._move[0]), self.y - np.float32(self._move[1])
        self.u, self.v = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y

    def place(self, points: ArrayLike) -> NDArray[np.float64]:
        """Bring anatomy positions (..., 2) to where this view shows them."""
        points = np.asarray(points, dtype=np.float64)
        x, y = points[..., 0], points[..., 1]
        m = self._matrix
        return np.stack([m[0, 0] * x + m[0, 1] * y, m[1, 0] * x + m[1, 1] * y], axis=-1) + self._move

    def pixels(self, length: float) -> float:
        """Convert a length to pixels."""
        return length * self.size / 2


Painter = Callable[[Scene], tuple[Array, Sequence[Array]]]


def mix(a: ArrayLike, b: ArrayLike, t: float) -> Array:
    """Interpolate from ``a`` (t = 0) to ``b`` (t = 1); t is clipped to that range."""
    t = min(max(t, 0.0), 1.0)
    return (np.asarray(a) * (1 - t) + np.asarray(b) * t).astype(np.float32)


def blend(image: Array, paint: ArrayLike, alpha: Array) -> Array:
    """Lay paint, a colour (C,) or an image (H, W, C), over an image (H, W, C) with opacity (H, W)."""
    return image + alpha[..., None] * (np.asarray(paint, dtype=np.float32) - image)


def edge(level: Array, softness: float) -> Array:
    """Turn a level map into opacity: 0 below -softness, 1 above +softness, one half at level 0, smooth between."""
    t = np.clip(level * np.float32(0.5 / softness) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def field(rng: Generator, size: int, cells: float, *, stretch: float = 1.0) -> Array:
    """Draw a smooth random field (size, size) of mean 0 and variance 1: a cubic B-spline over white noise.

    Args:
        rng: Its random stream; the draw does not depend on ``size``.
        size: Side in pixels.
        cells: Lattice cells across the image along y: the more, the finer.
        stretch: Cells along y for each cell along x; above 1 the texture is elongated along x.
    """
    down, across = max(cells, 1.0), max(cells / stretch, 1.0)
    knots = rng.standard_normal((int(down) + 4, int(across) + 4), dtype=np.float32)
    rows, row_weights = _spline(size, down)
    columns, column_weights = _spline(size, across)
    tall = sum(row_weights[tap][:, None] * knots[rows + tap] for tap in range(4))
    return sum(column_weights[tap] * tall[:, columns + tap] for tap in range(4)) / np.float32(151 / 315)


def _spline(size: int, cells: float) -> tuple[NDArray[np.intp], Array]:
    """First knot (size,) and weights (4, size) of a cubic B-spline at each pixel centre."""
    position = (np.arange(size) + 0.5) * (cells / size)
    first = position.astype(np.intp)
    t = position - first
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    return first, (np.stack(weights) / 6).astype(np.float32)


def fractal(rng: Generator, size: int, cells: float, *, octaves: int = 3, decay: float = 0.5) -> Array:
    """Sum fields of doubling fineness and decaying amplitude; mean 0, variance 1."""
    amplitudes = decay ** np.arange(octaves, dtype=np.float32)
    total = sum(a * field(rng, size, cells * 2**octave) for octave, a in enumerate(amplitudes))
    return total / np.sqrt((amplitudes**2).sum())


def ridges(rng: Generator, size: int, cells: float, *, width: float = 0.15, stretch: float = 1.0) -> Array:
    """Draw thin winding lines, 1 on the line and 0 away from it: the zero crossings of a field."""
    return np.exp(-((field(rng, size, cells, stretch=stretch) / np.float32(width)) ** 2))


class Warp:
    """A smooth displacement in anatomy coordinates, equal in all views of a group.

    Args:
        rng: Its random stream.
        amplitude: Standard deviation of the displacement along each axis.
        frequency: About how many periods it has across the image.
        count: Number of plane waves.
    """

    def __init__(self, rng: Generator, *, amplitude: float, frequency: float, count: int = 5) -> None:
        angle = rng.uniform(0, 2 * np.pi, (2, count))
        turns = np.pi * frequency * rng.uniform(0.5, 1.5, (2, count))
        self._waves = np.stack([turns * np.cos(angle), turns * np.sin(angle), rng.uniform(0, 2 * np.pi, (2, count))], axis=-1)
        self._waves = self._waves.astype(np.float32)
        self._amplitude = np.float32(amplitude * np.sqrt(2 / count))

    def __call__(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Displace positions."""
        dx, dy = (sum(np.sin(a * u + b * v + c) for a, b, c in waves) for waves in self._waves)
        return u + self._amplitude * dx, v + self._amplitude * dy


@dataclass(frozen=True)
class Blob:
    """A closed star-shaped outline: an ellipse with random harmonics.

    Attributes:
        center: Its centre in anatomy coordinates.
        radii: Its two half axes.
        angle: Direction of the first axis, in radians.
        harmonics: Complex amplitudes of the relative radius at the orders 2, 3, ...
    """

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    harmonics: tuple[complex, ...]

    @classmethod
    def draw(cls, rng: Generator, center: ArrayLike, radius: float, *, flat: float = 0.2, rough: float = 0.1) -> Self:
        """Draw an outline.

        Args:
            rng: Its random stream.
            center: Its centre (2,).
            radius: Its mean radius.
            flat: Largest relative difference of an axis from the mean radius.
            rough: Size of the harmonics relative to the radius.
        """
        stretch = 1 + rng.uniform(0, flat)
        orders = np.arange(2, 8)
        waves = rough / orders * rng.standard_normal(6) * np.exp(1j * rng.uniform(0, 2 * np.pi, 6)) * 2
        x, y = (float(value) for value in np.asarray(center, dtype=np.float64))
        return cls((x, y), (radius * stretch, radius / stretch), rng.uniform(0, np.pi), tuple(waves))

    def level(self, u: Array, v: Array) -> Array:
        """Level at positions: 1 at the centre, 0 on the outline, negative outside; times the radius, about a distance."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = u - np.float32(self.center[0]), v - np.float32(self.center[1])
        along, across = (cos * dx + sin * dy) / np.float32(self.radii[0]), (cos * dy - sin * dx) / np.float32(self.radii[1])
        distance = np.sqrt(along**2 + across**2) + np.float32(1e-6)
        unit = (along + 1j * across).astype(np.complex64) / distance
        power, radius = unit, np.ones_like(distance)
        for amplitude in self.harmonics:
            power = power * unit
            radius += (np.complex64(amplitude) * power).real
        return 1 - distance / np.maximum(radius, np.float32(0.45))


@dataclass(frozen=True)
class Stroke:
    """A line in image coordinates.

    Attributes:
        points: (n, 2) positions.
        width: Its width.
        strength: Its opacity, in [0, 1].
    """

    points: NDArray[np.float64]
    width: float
    strength: float = 1.0


def ink(size: int, strokes: Iterable[Stroke]) -> Array:
    """Draw strokes with smooth edges; (size, size) opacity in [0, 1], the strongest stroke where several cross."""
    fine = 4 if size <= 192 else 2
    sheet = Image.new("L", (size * fine, size * fine))
    pen = ImageDraw.Draw(sheet)
    for stroke in sorted(strokes, key=lambda stroke: stroke.strength):
        corners = [tuple(point) for point in (stroke.points + 1) * (size * fine / 2)]
        width = stroke.width * size * fine / 2
        fade = min(width, 1.0)
        pen.line(corners, fill=round(255 * stroke.strength * fade), width=max(1, round(width)), joint="curve")
    return np.asarray(sheet.reduce(fine), dtype=np.float32) / 255


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How the target domain's device records a scene; a shift s applies each difference in proportion to s.

    Attributes:
        brightness: Added to the intensity.
        contrast: Relative change of the contrast about 0.5, above -1.
        gamma: Natural logarithm of the exponent of the tone curve; positive darkens.
        cast: Relative change of each channel's gain.
        saturation: Relative change of the distance from grey.
        blur: Added standard deviation of the blur, in 1/96 of the side.
        noise: Added standard deviation of the noise.
        grain: Lattice cells of the noise across the image.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    cast: tuple[float, ...] = (0.0,)
    saturation: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    grain: int = 96

    def record(self, image: Array, scene: Scene, *, blur: float = 0.3, noise: float = 0.015) -> Array:
        """Record an image (H, W, C) with the exposure, blur and noise of the source and this camera's differences."""
        s, rng, size = scene.shift, scene.view, scene.size
        sigma = (blur + s * self.blur) * size / 96
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
        grey = image.mean(axis=-1, keepdims=True)
        image = grey + (image - grey) * np.float32(1 + s * self.saturation)
        gain = rng.uniform(0.92, 1.08) * (1 + s * np.asarray(self.cast))
        image = image * gain.astype(np.float32)
        image = (image - np.float32(0.5)) * np.float32(1 + s * self.contrast) + np.float32(0.5 + s * self.brightness)
        image = np.clip(image, 0, 1) ** np.float32(np.exp(s * self.gamma))
        grains = [field(rng, size, self.grain) for _ in range(image.shape[-1])]
        return image + np.float32(noise + s * self.noise) * np.stack(grains, axis=-1)
