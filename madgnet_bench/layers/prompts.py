"""Where the prompts of promptable networks come from: named sources of points and boxes for one target of one case.

A source that reads the reference is an oracle: what it gives to a network no automatic method has. The name of a source is the
value of a protocol's field ``prompts``.

Coordinates are in pixels, x then y, and name pixel centres: the first pixel is (0, 0), the last (W - 1, H - 1). A box holds the
coordinates of its first and last pixels.

An empty mask gives an oracle nothing to show: its points have the label -1 and its box is NaN. A network told so predicts an
empty mask (see `madgnet_bench.contracts.Prompts`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from madgnet_bench.errors import ConfigError

__all__ = [
    "Clicks",
    "JitteredBox",
    "NoPrompts",
    "PromptSource",
    "RandomPoint",
    "TargetPrompt",
    "TightBox",
    "WholeImageBox",
    "deepest_point",
    "tight_box",
]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


class TargetPrompt(NamedTuple):
    """What a network is told about one target of one case.

    Attributes:
        points: (P, 2) x and y.
        labels: (P,) 1 foreground, 0 background, -1 no point.
        box: (4,) left, top, right, bottom, NaN where there is none; None for a source that gives no boxes at all.
    """

    points: Floats
    labels: NDArray[np.int64]
    box: Floats | None = None


class PromptSource(ABC):
    """A named way to draw prompts.

    Args:
        seed: Seed of the prompts of validation and test, drawn from (seed, case, target): they are the same for every network,
            training seed and batch size. The prompts of training are drawn from (seed, training seed, epoch, case, target).
    """

    rounds: int = 1
    """Prompts in a row: the first is drawn, each further one is a correction of a prediction."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in protocols."""

    @abstractmethod
    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Draw the first prompt.

        Args:
            mask: (H, W), the reference of one target.
            stream: Where all chance comes from.
        """

    def correct(self, prompt: TargetPrompt, mask: Mask, predicted: Mask) -> TargetPrompt:
        """Add what a prediction lacks; sources of one round return the prompt as it is."""
        return prompt


class NoPrompts(PromptSource):
    """Nothing is told; the network decides alone."""

    @property
    def name(self) -> str:
        """``none``."""
        return "none"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Return no point and no box."""
        return _points()


class RandomPoint(PromptSource):
    """One pixel of the mask, each as likely as any other: the setting of MMSNet's comparison with SAM."""

    @property
    def name(self) -> str:
        """``point``."""
        return "point"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Draw one foreground pixel."""
        return _points(*_random_pixel(mask, stream), count=1)


class Clicks(PromptSource):
    """Several points as a user would click them: a random pixel of the mask, then one correction after another.

    A correction is the point deepest inside the largest connected region (by pixels, diagonals connect) of missing or surplus
    pixels; it depends on no chance. In training, each batch stops after a random number of clicks, so that the network learns
    from all of them.

    Args:
        count: Number of points, at least 2.
        seed: See `PromptSource`.

    Raises:
        ConfigError: ``count`` is below 2.
    """

    def __init__(self, count: int = 5, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if count < 2:
            raise ConfigError(f"Clicks with count={count}: use RandomPoint for a single point, or at least 2.")
        self.rounds = count

    @property
    def name(self) -> str:
        """``clicks`` and their number."""
        return f"clicks{self.rounds}"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Draw the first click; the others are padding."""
        return _points(*_random_pixel(mask, stream), count=self.rounds)

    def correct(self, prompt: TargetPrompt, mask: Mask, predicted: Mask) -> TargetPrompt:
        """Replace the first padding by a click in the largest error; a perfect prediction gets none."""
        free = np.flatnonzero(prompt.labels < 0)
        if not mask.any() or not len(free):
            return prompt
        region, label = _largest_error(mask, predicted)
        if region is None:
            return prompt
        points, labels = prompt.points.copy(), prompt.labels.copy()
        points[free[0]], labels[free[0]] = deepest_point(region), label
        return prompt._replace(points=points, labels=labels)


class TightBox(PromptSource):
    """The box around all of the mask, however many parts it has."""

    @property
    def name(self) -> str:
        """``box``."""
        return "box"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Return the box from the first to the last foreground pixel."""
        return _points()._replace(box=tight_box(mask))


class JitteredBox(PromptSource):
    """The box around the mask, each of its four sides moved at random.

    Args:
        percent: A side moves by a uniform draw in plus or minus this share of the box's width (left, right) or height (top,
            bottom); it stays in the image, and right of or below the opposite one.
        seed: See `PromptSource`.

    Raises:
        ConfigError: ``percent`` is not within 1 and 50.
    """

    def __init__(self, percent: int = 10, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if not 1 <= percent <= 50:
            raise ConfigError(f"JitteredBox with percent={percent}: use TightBox for 0, or a whole number from 1 to 50.")
        self.percent = percent

    @property
    def name(self) -> str:
        """``box_jitter`` and the percentage."""
        return f"box_jitter{self.percent}"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Return a box near the tight one."""
        box = tight_box(mask)
        sides = np.tile(box[2:] - box[:2] + 1, 2)
        moved = box + stream.uniform(-1, 1, 4).astype(np.float32) * sides * self.percent / 100
        last = np.array(mask.shape[::-1], np.float32) - 1
        low, high = moved[:2].clip(0, last), moved[2:].clip(0, last)
        return _points()._replace(box=np.concatenate([np.minimum(low, high), np.maximum(low, high)]))


class WholeImageBox(PromptSource):
    """The box of the whole image, the same for every mask, empty ones too: no oracle."""

    @property
    def name(self) -> str:
        """``image_box``."""
        return "image_box"

    def draw(self, mask: Mask, *, stream: np.random.Generator) -> TargetPrompt:
        """Return the image's first and last pixel."""
        height, width = mask.shape
        return _points()._replace(box=np.array([0, 0, width - 1, height - 1], np.float32))


def deepest_point(mask: Mask) -> Floats:
    """The foreground pixel farthest from the background, (x, y); what lies outside the image counts as background.

    Of several such pixels, the first in reading order is taken.

    Args:
        mask: (H, W) with at least one foreground pixel.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array([x, y], np.float32)


def tight_box(mask: Mask) -> Floats:
    """Left, top, right and bottom of the foreground of (H, W), NaN where there is none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.full(4, np.nan, np.float32)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)


def _points(*points: Floats, count: int = 0) -> TargetPrompt:
    """Foreground points, padded to ``count``."""
    places, labels = np.zeros((count, 2), np.float32), np.full(count, -1, np.int64)
    for number, point in enumerate(points):
        places[number], labels[number] = point, 1
    return TargetPrompt(places, labels)


def _random_pixel(mask: Mask, stream: np.random.Generator) -> list[Floats]:
    """One foreground pixel, or none."""
    places = np.flatnonzero(mask)
    if not len(places):
        return []
    y, x = divmod(int(places[stream.integers(len(places))]), mask.shape[1])
    return [np.array([x, y], np.float32)]


def _largest_error(mask: Mask, predicted: Mask) -> tuple[Mask | None, int]:
    """The largest connected region of one kind of error, and the label of a click there; None where there is no error."""
    best: tuple[int, Mask | None, int] = (0, None, -1)
    for errors, label in ((mask & ~predicted, 1), (predicted & ~mask, 0)):
        regions, count = ndimage.label(errors, structure=np.ones((3, 3)))
        if count:
            sizes = np.bincount(regions.ravel())[1:]
            if sizes.max() > best[0]:
                best = (int(sizes.max()), regions == sizes.argmax() + 1, label)
    return best[1], best[2]
