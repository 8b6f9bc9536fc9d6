"""How far data sets are apart, and the file that keeps their profiles. No torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from madgnet_bench.catalog.profile.measure import (
    Array,
    Intensity,
    Reference,
    SetProfile,
    band_limits,
    octave_weights,
    slope_range,
)
from madgnet_bench.errors import ConfigError

__all__ = [
    "SCHEMA_VERSION",
    "Distance",
    "Profile",
    "compare_sets",
    "energy_distance",
    "intensity_distance",
    "read_profile",
    "sampling_error",
    "spectral_distance",
    "to_json",
]

SCHEMA_VERSION = 1
"""Version of the layout of the file; `read_profile` refuses another one."""

LEAST_SPREAD = 0.1
"""Decibels: a smaller spread inside two sets counts as this (images that are all the same have none)."""

_ROWS = 512


@dataclass(frozen=True)
class Distance:
    """How far two sets are apart.

    Attributes:
        first: Name of one.
        second: Name of the other.
        spectral: As of `spectral_distance`.
        sampling_error: As of `sampling_error`: a smaller spectral distance is no evidence of a difference.
        energy: As of `energy_distance`.
        intensity: As of `intensity_distance`.
    """

    first: str
    second: str
    spectral: float
    sampling_error: float
    energy: float
    intensity: float


@dataclass(frozen=True)
class Profile:
    """Profiles of sets, and their distances.

    Attributes:
        seen: Sets to train on, or just sets.
        unseen: Sets that are only tested on.
        distances: Every seen set with every unseen one; all pairs of the seen ones where there is no unseen one.
    """

    seen: tuple[SetProfile, ...]
    unseen: tuple[SetProfile, ...]
    distances: tuple[Distance, ...]

    @classmethod
    def of(cls, seen: Sequence[SetProfile], unseen: Sequence[SetProfile] = ()) -> Profile:
        """Compare sets that were just measured."""
        pairs = itertools.product(seen, unseen) if unseen else itertools.combinations(seen, 2)
        return cls(tuple(seen), tuple(unseen), tuple(compare_sets(a, b) for a, b in pairs))


def compare_sets(a: SetProfile, b: SetProfile) -> Distance:
    """All distances of two sets that were just measured.

    Raises:
        ConfigError: They were measured at different sizes, or were read from a file.
    """
    return Distance(
        a.name, b.name, spectral_distance(a, b), sampling_error(a, b), energy_distance(a, b), intensity_distance(a, b)
    )


def spectral_distance(a: SetProfile, b: SetProfile) -> float:
    """How many within-set standard deviations the mean log spectra are apart, as a root mean square over the frequencies.

    With mean m and standard deviation s of L(f) over a set's images, n groups of images (patients, videos), and weights w(f)
    of sum 1 by which every octave counts the same::

        d^2 = sum of w(f) [(m_a - m_b)^2 - s_a^2 / n_a - s_b^2 / n_b] / [(s_a^2 + s_b^2) / 2],   d = 0 where d^2 < 0

    That is Cohen's standardised difference (Statistical Power Analysis for the Behavioral Sciences, 1988) per frequency, less
    what two finite samples of one distribution would differ by, so that small sets are not far from everything. It is ours,
    symmetric, 0 of a set to itself, and a rule of thumb is Cohen's: 0.2 is small, 0.8 large. It sees the averages alone. Of few
    images the spread is poorly known: between two sets of 5 the distance comes out a fifth too large on average.

    Raises:
        ConfigError: The sets were measured at different sizes.
    """
    weights, variance = _pooled(a, b)
    squared = np.sum(weights * (a.log_power - b.log_power) ** 2 / variance) - sampling_error(a, b) ** 2
    return float(np.sqrt(max(squared, 0.0)))


def sampling_error(a: SetProfile, b: SetProfile) -> float:
    """The part that `spectral_distance` takes off: the distance of two samples of one distribution, of these sizes.

    Raises:
        ConfigError: The sets were measured at different sizes.
    """
    weights, variance = _pooled(a, b)
    expected = a.log_power_std**2 / a.groups + b.log_power_std**2 / b.groups
    return float(np.sqrt(np.sum(weights * expected / variance)))


def _pooled(a: SetProfile, b: SetProfile) -> tuple[Array, Array]:
    """Weights of the frequencies, and the mean of the two variances at each."""
    if a.size != b.size:
        raise ConfigError(f"{a.name} was profiled at {a.size} pixels, {b.name} at {b.size}: profile both at one --size.")
    variance = (a.log_power_std**2 + b.log_power_std**2) / 2
    return octave_weights(a.size), np.maximum(variance, LEAST_SPREAD**2)


def energy_distance(a: SetProfile, b: SetProfile) -> float:
    """Energy coefficient of the two distributions of log spectra, in [0, 1].

    Szekely and Rizzo, J. Stat. Plan. Inference 143:1249 (2013); Rizzo and Szekely, WIREs Comput. Stat. 8:27 (2016)::

        H = (2 E|X - Y| - E|X - X'| - E|Y - Y'|) / (2 E|X - Y|)

    X and X' are L of different images of one set, Y and Y' of the other; |.| is the root mean square over the frequencies, in
    dB, where every octave counts the same. 0 where the distributions are the same, 1 where each is a single point. Unlike
    `spectral_distance` it sees whole distributions (several kinds of images in a set, another spread), and unlike a Frechet
    distance it needs no covariance of more frequencies than there are images. Expectations leave out an image's distance to
    itself, so that small sets are not far from everything; below 0, as it may come out for samples of one distribution, is 0.

    Raises:
        ConfigError: A set was read from a file, which keeps no single images, or the sets were measured at different sizes.
    """
    weights, _ = _pooled(a, b)
    if a.samples is None or b.samples is None:
        raise ConfigError(f"{a.name}, {b.name}: read from a file, which keeps no single images; profile them together.")
    first, second = a.samples * np.sqrt(weights), b.samples * np.sqrt(weights)
    between = _sum_of_distances(first, second) / (len(first) * len(second))
    if between == 0:
        return 0.0
    within = sum(_sum_of_distances(own, own) / (len(own) * (len(own) - 1)) for own in (first, second))
    return float(max(1 - within / (2 * between), 0.0))


def _sum_of_distances(first: Array, second: Array) -> float:
    """Sum over all pairs of rows of their Euclidean distance, in parts that fit into memory."""
    return float(sum(cdist(first[row : row + _ROWS], second).sum() for row in range(0, len(first), _ROWS)))


def intensity_distance(a: SetProfile, b: SetProfile) -> float:
    """Mean over red, green and blue of the Wasserstein-1 distance of the intensity histograms, in [0, 1].

    The integral of the absolute difference of the cumulated histograms (Vallender, Theory Probab. Appl. 18:784, 1974): how
    far, as a share of the range, intensities must move to turn one set's histogram into the other's. A grey image counts as
    three equal channels.
    """
    difference = np.cumsum(a.histograms, axis=1) - np.cumsum(b.histograms, axis=1)
    return float(np.abs(difference[:, :-1]).mean())


def to_json(profile: Profile) -> dict[str, Any]:
    """A profile as plain values for a JSON file, six digits each; single images are left out."""
    size = profile.seen[0].size
    content = {
        "schema_version": SCHEMA_VERSION,
        "size": size,
        "band_limits": list(band_limits(size)),
        "slope_range": list(slope_range(size)),
        "seen": [_set_to_json(item) for item in profile.seen],
        "unseen": [_set_to_json(item) for item in profile.unseen],
        "distances": [asdict(distance) for distance in profile.distances],
    }
    return {key: _rounded(value) for key, value in content.items()}


def _set_to_json(profile: SetProfile) -> dict[str, Any]:
    names = [name for name in SetProfile.__dataclass_fields__ if name != "samples"]
    content = {name: getattr(profile, name) for name in names}
    for name in ("channels", "references"):
        content[name] = {key: value._asdict() for key, value in content[name].items()}
    return content


def _rounded(value: Any) -> Any:
    """Arrays as lists, floats with six digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read_profile(path: Path) -> Profile:
    """Read the file that ``data profile --output`` wrote.

    Raises:
        ConfigError: It is missing, no profile, or of another schema version.
    """
    again = "write it again with `madgnet-bench data profile NAME --output FILE.json`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; {again}.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); {again}.") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        found = "is no profile" if version is None else f"has schema version {version}, this package reads {SCHEMA_VERSION}"
        raise ConfigError(f"{path}: {found}; {again}.")
    try:
        seen, unseen = (tuple(map(_set_from_json, content[role])) for role in ("seen", "unseen"))
        return Profile(seen, unseen, tuple(Distance(**row) for row in content["distances"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: is damaged ({type(error).__name__}: {error}); {again}.") from None


def _set_from_json(content: dict[str, Any]) -> SetProfile:
    values = dict(content)
    for name in ("log_power", "log_power_std", "histograms"):
        values[name] = np.array(values[name], np.float64)
    if any(values[name].shape != (values["size"] // 2,) for name in ("log_power", "log_power_std")):
        raise ValueError(f"the spectrum of {values['name']} is not of size {values['size']}")
    low, middle, high = values["bands"]
    values["bands"] = (low, middle, high)
    values["channels"] = {key: Intensity(**item) for key, item in values["channels"].items()}
    values["references"] = {key: Reference(**item) for key, item in values["references"].items()}
    return SetProfile(**values)
