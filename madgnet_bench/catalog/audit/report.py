"""The audit itself: decode every case once, look for faults, compare all images, judge by the rules."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.audit.fingerprints import FREQUENCIES, Array, fingerprint, propose
from madgnet_bench.catalog.audit.masks import Fault, find_faults
from madgnet_bench.catalog.audit.rules import (
    Finding,
    Member,
    judge_fault,
    judge_groups,
    judge_listing,
    judge_pair,
    sort_findings,
)
from madgnet_bench.catalog.audit.verify import SAME_IMAGE, verify
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case, Manifest
from madgnet_bench.errors import ConfigError, DataErrors

__all__ = ["Progress", "Report", "audit"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how many steps of it are done, and how many it has."""


@dataclass(frozen=True)
class Report:
    """What an audit found.

    Attributes:
        findings: Sorted, the worst first.
        cases: Number of cases per data set.
        candidates: How many pairs were registered.
        seconds: How long it took.
    """

    findings: tuple[Finding, ...]
    cases: dict[str, int]
    candidates: int
    seconds: float

    @property
    def broken(self) -> int:
        """How many findings break a rule."""
        return sum(finding.severity == "broken" for finding in self.findings)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many findings there are of every severity and kind, in the order of the findings."""
        return dict(Counter((finding.severity, finding.kind) for finding in self.findings))


@dataclass(frozen=True)
class _Look:
    """What is kept of a case after decoding it once.

    Attributes:
        digest: Hash of its pixels; empty where the image cannot be compared.
        fingerprint: As of `fingerprints.fingerprint`.
        faults: What is wrong, with the files concerned.
    """

    digest: str
    fingerprint: Array
    faults: tuple[tuple[str, Fault], ...]


_NOTHING: Array = np.zeros((FREQUENCIES, FREQUENCIES), np.float32)


def audit(
    seen: Sequence[SegmentationDataset],
    unseen: Sequence[SegmentationDataset] = (),
    *,
    allow_empty: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Audit data sets that are used together.

    Every image is compared with every other, over all sets. Memory: 16 KB per image.

    Args:
        seen: Data sets to train on, or to look at alone.
        unseen: Data sets that are only tested on.
        allow_empty: Healthy cases belong to the sets: empty masks break no rule.
        workers: Threads; None takes one per processor.
        progress: Told of every stage.

    Raises:
        ConfigError: Two sets have one name.
        DataErrors: A set has no case, or a case_id twice.
    """
    start = time.perf_counter()
    datasets = [*seen, *unseen]
    _check_names(datasets)
    workers = workers or os.cpu_count() or 1
    report = progress or (lambda stage, done, total: None)
    findings: list[Finding] = []
    members: list[Member] = []
    owners: list[SegmentationDataset] = []
    for position, dataset in enumerate(datasets):
        cases, listed = _cases(dataset)
        findings += listed
        official = getattr(dataset, "split_name", "") == "official"
        members += [Member(dataset.name, dataset.card.name, case, position >= len(seen), official) for case in cases]
        owners += [dataset] * len(cases)
    looks = _look_at_all(owners, members, workers, report)
    for member, look in zip(members, looks, strict=True):
        findings += [judge_fault(member, fault, file, allow_empty=allow_empty) for file, fault in look.faults]
    findings += judge_groups(members)
    pairs, candidates = _duplicates(members, looks, workers, report)
    return Report(
        tuple(sort_findings(findings + pairs)),
        dict(Counter(member.dataset for member in members)),
        candidates,
        time.perf_counter() - start,
    )


def _check_names(datasets: Sequence[SegmentationDataset]) -> None:
    """Names tell the sets of an audit apart."""
    if not datasets:
        raise ConfigError("an audit needs at least one data set; name one.")
    twice = [name for name, count in Counter(dataset.name for dataset in datasets).items() if count > 1]
    if twice:
        raise ConfigError(f"{', '.join(twice)}: named twice; name every data set once, as seen or as unseen.")


def _cases(dataset: SegmentationDataset) -> tuple[tuple[Case, ...], list[Finding]]:
    """The cases of a set, and what was wrong while listing them."""
    cases, problems = dataset.scan()
    if problems and not cases:
        raise DataErrors(dataset.name, problems)
    return Manifest(dataset.name, cases).cases, [judge_listing(dataset.name, problem) for problem in problems]


def _look_at_all(
    owners: Sequence[SegmentationDataset], members: Sequence[Member], workers: int, progress: Progress
) -> list[_Look]:
    """Decode every case, in threads: decoders leave the interpreter free."""
    looks = []
    with ThreadPoolExecutor(workers) as pool:
        for look in pool.map(_look, owners, [member.case for member in members]):
            looks.append(look)
            progress("reading", len(looks), len(members))
    return looks


def _look(dataset: SegmentationDataset, case: Case) -> _Look:
    """Decode a case and keep what the audit needs of it."""
    faults: list[tuple[str, Fault]] = []
    image, mask = None, None
    try:
        image = dataset.read_image(case)
    except FileProblem as error:
        faults.append((error.problem.file, Fault("image unreadable", error.problem.problem, error.problem.fix, True)))
    try:
        mask = dataset.read_mask(case)
    except FileProblem as error:
        faults.append((error.problem.file, Fault("mask refused", error.problem.problem, error.problem.fix)))
    if image is None:
        return _Look("", _NOTHING, tuple(faults))
    found = find_faults(image, mask, dataset.card.targets) if mask is not None else []
    faults += [(dataset.file(case.image if fault.in_image else case.mask), fault) for fault in found]
    if image.max() == image.min() or not np.isfinite(image).all():
        return _Look("", _NOTHING, tuple(faults))
    return _Look(_digest(image), fingerprint(image), tuple(faults))


def _digest(image: NDArray[Any]) -> str:
    """Hash of the decoded pixels; grey saved as colour counts as grey."""
    if image.shape[-1] == 3 and all(np.array_equal(image[..., 0], image[..., channel]) for channel in (1, 2)):
        image = image[..., :1]
    found = hashlib.blake2b(f"{image.dtype} {image.shape}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    return found.hexdigest()


def _duplicates(
    members: Sequence[Member], looks: Sequence[_Look], workers: int, progress: Progress
) -> tuple[list[Finding], int]:
    """Pairs of equal images by hash, then pairs that registration finds the same; and how many were registered."""
    equal = _equal_pairs(members, looks)
    usable = [row for row, look in enumerate(looks) if look.digest]
    if len(usable) < 2:
        return [], 0
    numbers: dict[tuple[str, str], int] = {}
    groups = np.array([numbers.setdefault(members[row].group, len(numbers)) for row in usable])
    fingerprints = np.stack([looks[row].fingerprint for row in usable])
    candidates = propose(fingerprints, groups, progress=lambda done, total: progress("comparing", done, total))
    similarity = verify(
        fingerprints, candidates, workers=workers, progress=lambda done, total: progress("registering", done, total)
    )
    found = [judge_pair(members[a], members[b], 1.0, identical=True) for a, b in sorted(equal)]
    for first, second, value in zip(candidates.first, candidates.second, similarity, strict=True):
        a, b = usable[first], usable[second]
        if value >= SAME_IMAGE and looks[a].digest != looks[b].digest:
            found.append(judge_pair(members[a], members[b], float(value)))
    return found, len(candidates.first)


def _equal_pairs(members: Sequence[Member], looks: Sequence[_Look]) -> set[tuple[int, int]]:
    """Positions of pairs of equal pixels: each case with the first of its kind in every data set and split."""
    kinds: dict[str, list[int]] = {}
    for row, look in enumerate(looks):
        if look.digest:
            kinds.setdefault(look.digest, []).append(row)
    pairs = set()
    for rows in kinds.values():
        firsts: dict[tuple[str, str], int] = {}
        for row in rows:
            firsts.setdefault((members[row].dataset, members[row].place), row)
        pairs |= {(min(a, b), max(a, b)) for a in rows for b in firsts.values() if a != b}
    return pairs
