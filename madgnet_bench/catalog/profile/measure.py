"""Frequency profile: what tells data sets and domains apart in spectrum, intensity and reference, as numbers. No torch.

Every image is looked at as a network gets it: squeezed to a square of one size, bilinearly, with antialiasing where it shrinks.
An image that was smaller has no detail beyond its own Nyquist frequency then, and that is part of its profile.

**Spectrum.** From the grey image g (ITU-R 601 luma, in [0, 1]) its mean under the window is subtracted, a Hann window w keeps
the image's borders from leaking into all frequencies, and the periodogram is averaged over rings of radius f = 1 .. size / 2
cycles per image side (the corners beyond are left out)::

    P(f) = mean over the ring of |DFT(w (g - mean))|^2 / sum(w^2)  +  1 / (12 * 255^2)

so that white noise of variance v has P(f) = v everywhere. The last term is the variance of rounding to 8 bits: below it an
image holds nothing, and a black image has a logarithm. L(f) = 10 log10 P(f), in dB, is averaged over the images; its standard
deviation over the images is the set's own variability. A spectrum knows no signs: an image and its negative have the same one,
which is why the intensities are compared too.

**Volumes** are looked at in the slice with the largest reference, the middle one where there is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import rfft2
from scipy.ndimage import label

from madgnet_bench.catalog.audit.masks import SPECK_PIXELS
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.errors import ConfigError, DataErrors, Problem

__all__ = [
    "ROUNDING",
    "SIZES",
    "Array",
    "CaseProfile",
    "Intensity",
    "Reference",
    "SetProfile",
    "band_limits",
    "octave_weights",
    "profile_case",
    "profile_datasets",
    "radial_power",
    "slope_range",
]

SIZES = (64, 1024)
"""Least and largest side of the square that images are brought to."""

ROUNDING = 1 / (12 * 255**2)
"""Variance of rounding to 8 bits, which is added to every power."""

Array = NDArray[np.float64]

_LUMA = np.array([0.299, 0.587, 0.114])
_LEVELS = 256
_CHANNELS = ("red", "green", "blue")


class Intensity(NamedTuple):
    """Distribution of one channel over all pixels of all images, in [0, 1].

    Attributes:
        mean: Mean.
        std: Standard deviation.
        p5: 5 percentile.
        p50: Median.
        p95: 95 percentile.
    """

    mean: float
    std: float
    p5: float
    p50: float
    p95: float


class Reference(NamedTuple):
    """How one target is spread over the images of a set, at their own size.

    Attributes:
        foreground: Mean over the images of the share of their pixels.
        empty: Share of the images without any.
        objects: Mean number of connected objects per image (pixels that touch, also at corners), without specks of fewer than
            4 pixels. Nuclei that touch are one object.
        object_area: Median over all objects of their share of the image; 0 where there is none.
    """

    foreground: float
    empty: float
    objects: float
    object_area: float


@dataclass(frozen=True, eq=False)
class CaseProfile:
    """What is kept of one case.

    Attributes:
        log_power: (size / 2,), dB.
        bands: Shares of the energy in the low, middle and high band.
        histograms: (3, 256) shares of the values 0 .. 255 in red, green and blue, all the same for a grey image.
        grey_histogram: (256,) shares of the values in the grey image.
        brightness: Mean of the grey image in [0, 1].
        contrast: Its standard deviation, in [0, 1] (RMS contrast: Peli, J. Opt. Soc. Am. A 7:2032, 1990).
        foreground: Share of the pixels, per target.
        objects: Areas of the objects as shares of the image, per target.
    """

    log_power: Array
    bands: tuple[float, float, float]
    histograms: Array
    grey_histogram: Array
    brightness: float
    contrast: float
    foreground: tuple[float, ...]
    objects: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class SetProfile:
    """The profile of a data set or domain.

    Attributes:
        name: Its name.
        modality: Its modality.
        split: ``train`` where only training cases were looked at, else ``all``.
        manifest: The sha256 of its manifest.
        images: Number of images.
        groups: Number of patients, videos or volumes.
        size: Side in pixels that images were brought to.
        log_power: (size / 2,): mean over the images of L(f), dB, for f = 1, 2, ... cycles per image side.
        log_power_std: (size / 2,): standard deviation (n - 1) over the images, dB.
        slope: Exponent a of P(f) ~ f^a: least squares of log P over log f from `slope_range`, where every octave counts the
            same (weights 1 / f). Natural images have about -2 (Field, J. Opt. Soc. Am. A 4:2379, 1987).
        slope_std: Standard deviation over the images.
        bands: Mean over the images of the shares of the energy (power summed over the plane of frequencies) in the low,
            middle and high band, whose limits are `band_limits`.
        contrast: Mean RMS contrast of the images.
        brightness_std: Standard deviation over the images of their mean grey value.
        channels: Intensities of ``grey`` and, where an image has colour, of ``red``, ``green`` and ``blue``.
        references: By target.
        histograms: (3, 256): mean over the images of the shares of the values 0 .. 255 in red, green and blue.
        samples: (images, size / 2): L(f) of every image; None where the profile was read from a file.
    """

    name: str
    modality: str
    split: str
    manifest: str
    images: int
    groups: int
    size: int
    log_power: Array
    log_power_std: Array
    slope: float
    slope_std: float
    bands: tuple[float, float, float]
    contrast: float
    brightness_std: float
    channels: Mapping[str, Intensity]
    references: Mapping[str, Reference]
    histograms: Array
    samples: Array | None = None

    @property
    def variability(self) -> float:
        """Root mean square of ``log_power_std`` where every octave counts the same, dB: the spread inside the set."""
        return float(np.sqrt(np.sum(octave_weights(self.size) * self.log_power_std**2)))


def octave_weights(size: int) -> Array:
    """Weights of the frequencies 1 .. size / 2, proportional to 1 / f, so that every octave counts the same; their sum is 1."""
    weights = 1 / np.arange(1, size // 2 + 1)
    return weights / weights.sum()


def band_limits(size: int) -> tuple[int, int]:
    """Highest frequency of the low and of the middle band: 1/16 and 1/4 of the Nyquist frequency; 11 and 44 for 352 pixels."""
    return size // 32, size // 8


def slope_range(size: int) -> tuple[int, int]:
    """Frequencies of the slope's fit: from 4, where the window blurs no more, to half of Nyquist, where resizing does not."""
    return 4, size // 4


class _Rings(NamedTuple):
    """The window; of every coefficient of a real transform its ring and how often it stands in the full one; sums by ring."""

    window: Array
    ring: NDArray[np.intp]
    weight: Array
    total: Array


@lru_cache(maxsize=4)
def _rings(size: int) -> _Rings:
    hann = np.hanning(size)
    rows, columns = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)[None]
    ring = np.rint(np.hypot(rows, columns)).astype(np.intp).ravel()
    twice = np.where((columns == 0) | (2 * columns == size), 1.0, 2.0)
    weight: Array = np.broadcast_to(twice, (size, size // 2 + 1)).astype(np.float64).ravel()
    return _Rings(np.outer(hann, hann), ring, weight, np.bincount(ring, weight)[1 : size // 2 + 1].astype(np.float64))


def radial_power(grey: Array) -> Array:
    """The power P(f) of a grey image as the module defines it.

    Args:
        grey: (size, size) in [0, 1].

    Returns:
        (size / 2,): P(1), P(2), ... at 1, 2, ... cycles per image side.

    >>> side = np.arange(64)
    >>> waves = 0.5 + 0.4 * np.sin(2 * np.pi * 9 * side / 64)
    >>> int(radial_power(np.tile(waves, (64, 1))).argmax()) + 1
    9
    """
    size = len(grey)
    window, ring, weight, total = _rings(size)
    centred = grey - np.sum(window * grey) / np.sum(window)
    power = np.abs(rfft2(window * centred)).ravel() ** 2 / np.sum(window**2)
    summed = np.bincount(ring, weight * power)[1 : size // 2 + 1]
    return summed / total + ROUNDING


def profile_case(image: NDArray[Any], mask: NDArray[np.uint8], *, size: int) -> CaseProfile:
    """Measure one case.

    Args:
        image: (*spatial, C), uint8, or float in [0, 1]; C is 1 or 3.
        mask: (K, *spatial) in {0, 1}.
        size: Side in pixels that the image is brought to; even.
    """
    while mask.ndim > 3:
        areas = mask.sum(axis=(0, *range(2, mask.ndim)))
        position = int(areas.argmax()) if areas.any() else len(areas) // 2
        image, mask = image[position], mask[:, position]
    pixels = _resize(image, size)
    grey = pixels[..., 0] if pixels.shape[-1] == 1 else pixels @ _LUMA
    power = radial_power(grey)
    objects = tuple(tuple(_objects(target)) for target in mask)
    return CaseProfile(
        log_power=10 * np.log10(power),
        bands=_band_shares(power, size),
        histograms=np.broadcast_to(_histograms(pixels), (3, _LEVELS)),
        grey_histogram=_histograms(grey[..., None])[0],
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        foreground=tuple(float(target.mean()) for target in mask),
        objects=objects,
    )


def _resize(image: NDArray[Any], size: int) -> Array:
    """Bring an image to (size, size, C) in [0, 1]."""
    values = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    planes = [Image.fromarray(np.ascontiguousarray(values[..., channel])) for channel in range(values.shape[-1])]
    resized = [np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes]
    return np.clip(np.stack(resized, axis=-1), 0, 1).astype(np.float64)


def _band_shares(power: Array, size: int) -> tuple[float, float, float]:
    """Shares of the energy in the low, middle and high band."""
    energy = power * _rings(size).total
    low, middle, high = (float(part.sum()) for part in np.split(energy, band_limits(size)))
    total = low + middle + high
    return low / total, middle / total, high / total


def _histograms(pixels: Array) -> Array:
    """Shares of the values 0 .. 255 in every channel: (C, 256)."""
    levels = np.rint(pixels * (_LEVELS - 1)).astype(np.intp)
    counts = [np.bincount(levels[..., channel].ravel(), minlength=_LEVELS) for channel in range(levels.shape[-1])]
    return np.stack(counts) / levels[..., 0].size


def _objects(target: NDArray[np.uint8]) -> Iterator[float]:
    """Areas of the connected objects of a target (H, W), without specks, as shares of the image."""
    found, _ = label(target, structure=np.ones((3, 3)))
    areas = np.bincount(found.ravel())[1:]
    yield from (float(area / target.size) for area in areas if area >= SPECK_PIXELS)


def profile_datasets(
    datasets: Sequence[SegmentationDataset],
    *,
    size: int = 352,
    splits: Sequence[Literal["train", "all"]] = (),
    workers: int | None = None,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> list[SetProfile]:
    """Profile data sets.

    Args:
        datasets: At least one.
        size: Side in pixels that images are brought to; even, within `SIZES`.
        splits: For every set, which cases are looked at; all of every set where not given.
        workers: Threads; None takes one per processor.
        step: Called after every case with how many are done and how many there are.

    Raises:
        ConfigError: The size is not valid, two sets have one name, or a set has fewer than two cases to look at.
        DataErrors: Files of any of the sets cannot be used; all of them in one table.
    """
    _check_use(datasets, size)
    chosen = list(splits) or ["all"] * len(datasets)
    listed = [_list(dataset, split) for dataset, split in zip(datasets, chosen, strict=True)]
    jobs = [(dataset, case) for dataset, (cases, _) in zip(datasets, listed, strict=True) for case in cases]
    problems = [(dataset.name, problem) for dataset, (_, wrong) in zip(datasets, listed, strict=True) for problem in wrong]
    profiles: list[CaseProfile] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(lambda job: _read(*job, size=size), jobs)
        for done, ((dataset, _), result) in enumerate(zip(jobs, results, strict=True), start=1):
            if isinstance(result, CaseProfile):
                profiles.append(result)
            else:
                problems += [(dataset.name, problem) for problem in result]
            step(done, len(jobs))
    if problems:
        where = ", ".join(dict.fromkeys(name for name, _ in problems))
        raise DataErrors(where, list(dict.fromkeys(problem for _, problem in problems)), outcome="nothing was written")
    remaining = iter(profiles)
    return [
        _summarize(dataset, split, cases, [next(remaining) for _ in cases], size)
        for dataset, split, (cases, _) in zip(datasets, chosen, listed, strict=True)
    ]


def _check_use(datasets: Sequence[SegmentationDataset], size: int) -> None:
    """Refuse a size that is no even number in range, and names that do not tell sets apart."""
    low, high = SIZES
    if not low <= size <= high or size % 2:
        raise ConfigError(f"profile size={size}: the side must be an even number from {low} to {high} pixels, such as 352.")
    names = [dataset.name for dataset in datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)}: named twice; name every data set once, as seen or as unseen.")


def _list(dataset: SegmentationDataset, split: str) -> tuple[list[Case], list[Problem]]:
    """The cases of a set to look at, and what is wrong with its listing.

    Raises:
        ConfigError: There are fewer than two, so that there is no spread.
    """
    cases, problems = dataset.scan()
    chosen = sorted(case for case in cases if split == "all" or case.split == split)
    if len(chosen) < 2 and not problems:
        kind = f"{split} cases" if split != "all" else "cases"
        hint = "name it with --unseen, or profile all splits" if len(cases) > 1 else "a profile needs at least two"
        raise ConfigError(f"{dataset.name} has {len(chosen)} {kind}: {hint}.")
    return chosen, problems


def _read(dataset: SegmentationDataset, case: Case, *, size: int) -> CaseProfile | list[Problem]:
    """Decode and measure a case, or tell what is wrong with it."""
    problems: list[Problem] = []
    arrays: list[NDArray[Any]] = []
    for read in (dataset.read_image, dataset.read_mask):
        try:
            arrays.append(read(case))
        except FileProblem as error:
            problems.append(error.problem)
    if problems:
        return problems
    image, mask = arrays
    if image.shape[:-1] != mask.shape[1:]:
        mask_size, image_size = (" x ".join(map(str, reversed(shape))) for shape in (mask.shape[1:], image.shape[:-1]))
        problem = f"mask is {mask_size}, image is {image_size}"
        return [Problem(dataset.file(case.mask), problem, "export the mask at the image's size")]
    if not np.isfinite(image).all():
        return [Problem(dataset.file(case.image), "holds NaN or infinite values", "export the image again without them")]
    return profile_case(image, mask, size=size)


def _summarize(
    dataset: SegmentationDataset, split: str, cases: Sequence[Case], profiles: Sequence[CaseProfile], size: int
) -> SetProfile:
    """Averages and spreads over the cases of a set."""
    samples = np.stack([profile.log_power for profile in profiles])
    slopes = _slopes(samples, size)
    low, middle, high = np.mean([profile.bands for profile in profiles], axis=0)
    histograms = np.mean([profile.histograms for profile in profiles], axis=0)
    greys = np.mean([profile.grey_histogram for profile in profiles], axis=0)
    has_colour = any((profile.histograms != profile.histograms[0]).any() for profile in profiles)
    colours = dict(zip(_CHANNELS, map(_intensity, histograms), strict=True)) if has_colour else {}
    return SetProfile(
        name=dataset.name,
        modality=dataset.card.modality,
        split=split,
        manifest=dataset.manifest.sha256,
        images=len(cases),
        groups=len({case.group_id for case in cases}),
        size=size,
        log_power=samples.mean(axis=0),
        log_power_std=samples.std(axis=0, ddof=1),
        slope=float(slopes.mean()),
        slope_std=float(slopes.std(ddof=1)),
        bands=(float(low), float(middle), float(high)),
        contrast=float(np.mean([profile.contrast for profile in profiles])),
        brightness_std=float(np.std([profile.brightness for profile in profiles], ddof=1)),
        channels={"grey": _intensity(greys), **colours},
        references={name: _reference(profiles, row) for row, name in enumerate(dataset.card.targets)},
        histograms=histograms,
        samples=samples,
    )


def _slopes(samples: Array, size: int) -> Array:
    """The slope of every log spectrum (images, size / 2), in dB, by weighted least squares."""
    first, last = slope_range(size)
    frequency = np.arange(first, last + 1)
    powers = samples[:, first - 1 : last] / 10
    return np.asarray(np.polyfit(np.log10(frequency), powers.T, 1, w=frequency**-0.5)[0], np.float64)


def _intensity(histogram: Array) -> Intensity:
    """Mean, spread and percentiles of a histogram of the values 0 .. 255."""
    values = np.arange(_LEVELS) / (_LEVELS - 1)
    mean = float(histogram @ values)
    std = float(np.sqrt(histogram @ (values - mean) ** 2))
    cumulated = np.cumsum(histogram)
    low, median, high = (float(values[np.searchsorted(cumulated, share - 1e-9)]) for share in (0.05, 0.5, 0.95))
    return Intensity(mean, std, low, median, high)


def _reference(profiles: Sequence[CaseProfile], row: int) -> Reference:
    """One target over the cases of a set."""
    foreground = [profile.foreground[row] for profile in profiles]
    objects = [area for profile in profiles for area in profile.objects[row]]
    return Reference(
        foreground=float(np.mean(foreground)),
        empty=float(np.mean(np.array(foreground) == 0)),
        objects=len(objects) / len(profiles),
        object_area=float(np.median(objects)) if objects else 0.0,
    )
