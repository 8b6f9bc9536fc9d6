"""Phantoms: seeded synthetic data sets of six modalities with a domain shift, for tests, examples and dry runs.

They are drawn, not simulated, and stand in for no real image: they exercise every path of the suite (one and three
channels, one and nested targets, groups, empty masks, seen and unseen domains) without a download. The painters stand in
`madgnet_bench.catalog.phantom_styles`, one file per modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case, Split
from madgnet_bench.catalog.phantom_styles import colonoscopy, dermoscopy, fundus, microscopy, radiology, ultrasound
from madgnet_bench.catalog.phantom_styles.canvas import Painter, Scene
from madgnet_bench.errors import ConfigError, Problem, nearest

__all__ = ["GENERATOR_VERSION", "PHANTOM_CARDS", "PhantomDataset"]

GENERATOR_VERSION = 1
"""Raised whenever the same address would yield other pixels; part of every address and so of every manifest's hash."""

_SIZES, _CASES, _SEEDS = (32, 512), (5, 99_999), (0, 2**32 - 1)

_SPLITS: tuple[Split, ...] = tuple({"t": "train", "v": "val", "e": "test"}[letter] for letter in "tevttetttvetttetvtet")  # type: ignore[misc]
"""Split of the groups in order, repeated: 12 train, 3 val and 5 test of 20, all three among the first three."""

_CACHE_BYTES = 64 * 2**20


def _card(modality: str, title: str, *targets: str, traps: tuple[str, ...] = ()) -> DataCard:
    """Build the card of one modality."""
    return DataCard(
        name=f"phantom_{modality}",
        title=title,
        modality=modality,
        targets=targets,
        containment=(("cup", "disc"),) if "cup" in targets else (),
        citation="Drawn by madgnet-bench; cite the suite.",
        licence="Generated; no restriction.",
        layout="No files: each case is drawn from its address in the manifest.",
        split_rule="By group (two views of one anatomy), 60 % train, 15 % val, 25 % test, fixed by the group's number.",
        traps=("Synthetic: scores on phantoms say that software works, nothing about patients.", *traps),
    )


_HEALTHY = f"About {radiology.HEALTHY_SHARE:.0%} of the cases are healthy: their mask is empty."
_STAIN = "One grey channel up to shift 0.5 (fluorescence), RGB beyond (stained tissue)."

PHANTOM_CARDS: Mapping[str, DataCard] = {
    "dermoscopy": _card("dermoscopy", "Phantom skin lesions", "lesion"),
    "radiology": _card("radiology", "Phantom chest slices with infection", "infection", traps=(_HEALTHY,)),
    "ultrasound": _card("ultrasound", "Phantom ultrasound masses", "mass"),
    "microscopy": _card("microscopy", "Phantom cell nuclei", "nuclei", traps=(_STAIN,)),
    "colonoscopy": _card("colonoscopy", "Phantom colon polyps", "polyp"),
    "fundus": _card("fundus", "Phantom optic discs and cups", "disc", "cup"),
}
"""The card of each phantom modality; the order is part of the random streams and only grows at its end."""

_PAINTERS: Mapping[str, Painter] = {
    "dermoscopy": dermoscopy.paint,
    "radiology": radiology.paint,
    "ultrasound": ultrasound.paint,
    "microscopy": microscopy.paint,
    "colonoscopy": colonoscopy.paint,
    "fundus": fundus.paint,
}


class PhantomDataset(SegmentationDataset):
    """One domain of one phantom modality.

    A case is a pure function of ``(modality, shift, size, seed, index)``: neither ``cases`` nor the order of reading
    changes it, and a larger ``cases`` only adds cases. Cases 2 g and 2 g + 1 are two views of one anatomy and form a group.
    The same case at another ``size`` shows the same scene. Images are uint8 with three channels for dermoscopy,
    colonoscopy and fundus, one for radiology and ultrasound, and for microscopy one up to shift 0.5 (fluorescence) and
    three beyond (stained tissue). Repetition is exact on one machine; on another processor or numerical library single
    grey levels can differ.

    Args:
        modality: A key of `PHANTOM_CARDS`.
        shift: Distance from the source domain in [0, 1], kept to three decimals: intensity, contrast, colour, texture,
            noise, blur, object scale and frequency content change in proportion. No two shifts share an anatomy.
        cases: Number of cases, at least 5, so that every split holds a case.
        size: Side of the square images in pixels, 32 to 512.
        seed: Seed of all anatomies and views, at least 0.
        name: Name in tables; ``phantom_<modality>`` for the source and ``phantom_<modality>/shift<shift>`` otherwise
            unless given.

    Raises:
        ConfigError: An argument is out of range; the message names the nearest valid value.

    >>> target = PhantomDataset("fundus", shift=0.6, cases=20)
    >>> target.name, target.card.targets, target.manifest.cases[3].image
    ('phantom_fundus/shift0.6', ('disc', 'cup'), 'phantom:fundus?v=1&shift=0.6&size=96&seed=0&index=3')
    """

    split_name = "generated"

    def __init__(
        self,
        modality: str,
        *,
        shift: float = 0.0,
        cases: int = 60,
        size: int = 96,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        self.modality = _known(modality)
        self.shift = round(_within("shift", shift, (0, 1)), 3) + 0.0
        self.cases = _whole("cases", cases, _CASES)
        self.size = _whole("size", size, _SIZES)
        self.seed = _whole("seed", seed, _SEEDS)
        self.card = PHANTOM_CARDS[modality]
        self.domain = f"shift{self.shift:g}" if self.shift else "source"
        self.name = name or (f"{self.card.name}/{self.domain}" if self.shift else self.card.name)
        self._cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def scan(self) -> tuple[list[Case], list[Problem]]:
        """List the cases; a phantom has no problems."""
        return [self._case(index) for index in range(self.cases)], []

    def check(self, *, step: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
        """Nothing is wrong: there is no file that could be damaged, and a drawing takes longer than its use."""
        step(self.cases, self.cases)
        return []

    def read_image(self, case: Case) -> NDArray[np.uint8]:
        """Draw a case's image: (size, size, C) uint8.

        Raises:
            FileProblem: The case is of another data set.
        """
        return self._draw(case)[0].copy()

    def read_mask(self, case: Case) -> NDArray[np.uint8]:
        """Draw a case's reference: (K, size, size) uint8 in {0, 1}.

        Raises:
            FileProblem: The case is of another data set.
        """
        return self._draw(case)[1].copy()

    def _case(self, index: int) -> Case:
        group = index // 2
        address = f"phantom:{self.modality}?v={GENERATOR_VERSION}&shift={self.shift:g}&size={self.size}&seed={self.seed}"
        image = f"{address}&index={index}"
        mask = ";".join(f"{image}&target={target}" for target in self.card.targets)
        return Case(f"{index:05d}", f"group{group:05d}", image, mask, _SPLITS[group % len(_SPLITS)], self.domain)

    def _draw(self, case: Case) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        index = int(case.case_id) if case.case_id.isdecimal() else -1
        if not 0 <= index < self.cases or case != self._case(index):
            raise FileProblem(case.image, f"is no case of {self.name}", "pass cases of this data set's own manifest")
        if index in self._cache:
            return self._cache[index]
        drawn = self._paint(index)
        if (len(self._cache) + 1) * sum(part.nbytes for part in drawn) <= _CACHE_BYTES:
            self._cache[index] = drawn
        return drawn

    def _paint(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        domain = [self.seed, list(PHANTOM_CARDS).index(self.modality), round(self.shift * 1000)]
        anatomy, view = np.random.default_rng([*domain, 0, index // 2]), np.random.default_rng([*domain, 1, index])
        image, levels = _PAINTERS[self.modality](Scene(self.size, self.shift, anatomy, view))
        pixels = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
        return pixels, np.stack([level > 0 for level in levels]).astype(np.uint8)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}}


def _known(modality: str) -> str:
    """Check the name of a modality."""
    if modality not in PHANTOM_CARDS:
        raise ConfigError(f"unknown phantom modality {modality!r}; {nearest(str(modality), PHANTOM_CARDS)}")
    return modality


def _within(key: str, value: float, bounds: tuple[int, int]) -> float:
    """Check a number against its range."""
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        try:
            near = f"{min(max(float(value), low), high):g}"
        except (TypeError, ValueError):
            near = "a number"
        raise ConfigError(f"phantom {key}={value!r} is not a number from {low} to {high}; the nearest valid value is {near}.")
    return float(value)


def _whole(key: str, value: int, bounds: tuple[int, int]) -> int:
    """Check a whole number against its range."""
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        try:
            near = f"{round(min(max(float(value), low), high))}"
        except (TypeError, ValueError):
            near = f"{low}"
        raise ConfigError(
            f"phantom {key}={value!r} is not a whole number from {low} to {high}; the nearest valid value is {near}."
        )
    return int(value)
