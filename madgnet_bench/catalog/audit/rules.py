"""What an audit finds, and which findings break a rule.

===========================  ==========  ===================================================================
finding                      severity    when
===========================  ==========  ===================================================================
duplicate, seen and unseen   broken      an image of a seen set is in an unseen set, whatever the split
duplicate, train and test    broken      an image is in training or validation, and in test
duplicate, train and val     warning     an image is in training and in validation
duplicate in one split       note        an image is twice in a split
neighbours of a group        note        two images of one patient, video or volume look the same
group in several splits      broken      of a group, some cases are in another split or in an unseen set;
                                         a warning where the official split does it
faults of files and masks    broken      see `audit.masks`; specks are a warning, a missing target among
                                         several is a note, empty masks are a note where they are allowed
===========================  ==========  ===================================================================

Where several fit, the first counts. An image is *duplicate* where the decoded pixels are equal or `audit.verify` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from madgnet_bench.catalog.audit.masks import EMPTY_MASK, MISSING_TARGET, SPECKS, Fault
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.errors import Problem

__all__ = [
    "SEVERITIES",
    "Finding",
    "Member",
    "Severity",
    "judge_fault",
    "judge_groups",
    "judge_listing",
    "judge_pair",
    "sort_findings",
]

Severity = Literal["broken", "warning", "note"]

SEVERITIES: Sequence[Severity] = ("broken", "warning", "note")
"""From the worst down; a broken rule makes the command exit with 1."""


@dataclass(frozen=True)
class Member:
    """A case in an audit.

    Attributes:
        dataset: Name of its data set, as `SegmentationDataset.name`.
        source: Name on the set's card, which its domains share: groups are groups in a source.
        case: The case.
        unseen: The data set is an unseen one.
        official: Its split is the official one.
    """

    dataset: str
    source: str
    case: Case
    unseen: bool = False
    official: bool = False

    @property
    def group(self) -> tuple[str, str]:
        """What identifies its group over all sets."""
        return self.source, self.case.group_id

    @property
    def place(self) -> str:
        """The split, or ``unseen``: all cases of an unseen set are tested."""
        return "unseen" if self.unseen else self.case.split

    def __str__(self) -> str:
        return f"{self.dataset}: {self.case.case_id} ({self.place})"


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes:
        severity: Whether it breaks a rule.
        kind: A few words, the same for all findings of the kind.
        where: The cases or files concerned, as text.
        detail: What was found.
        fix: What the user can do about it.
        members: The cases concerned: two of a pair, one of a mask; none of a listing.
        similarity: Of a pair, in [-1, 1]; 1 for equal pixels.
    """

    severity: Severity
    kind: str
    where: str
    detail: str
    fix: str
    members: tuple[Member, ...] = ()
    similarity: float | None = None


_TRAINED = ("train", "val")
_REMOVE = "remove one of the two, or put both in one split"


def judge_pair(first: Member, second: Member, similarity: float, *, identical: bool = False) -> Finding:
    """What it means that two images show the same."""
    kind, severity, fix = _pair_rule(first, second)
    detail = "same pixels" if identical else f"similarity {similarity:.2f}"
    return Finding(severity, kind, f"{first} | {second}", detail, fix, (first, second), similarity)


def _pair_rule(first: Member, second: Member) -> tuple[str, Severity, str]:
    """Kind, severity and fix of a pair."""
    if first.unseen != second.unseen:
        return "duplicate, seen and unseen", "broken", "remove it from the seen set or from the unseen one"
    if first.group == second.group:
        return "neighbours of a group", "note", "nothing, as long as the group is in one split"
    splits = {first.case.split, second.case.split}
    if not first.unseen and "test" in splits and splits & {*_TRAINED}:
        return "duplicate, train and test", "broken", _REMOVE
    if not first.unseen and len(splits) > 1:
        return "duplicate, train and val", "warning", _REMOVE
    return "duplicate in one split", "note", "remove one of the two: the image counts twice"


def judge_groups(members: Iterable[Member]) -> list[Finding]:
    """Find the groups of which cases are in several splits, or in seen and unseen sets."""
    groups: dict[tuple[str, str], list[Member]] = {}
    for member in members:
        groups.setdefault(member.group, []).append(member)
    return [_straddling(found) for found in groups.values() if len({member.place for member in found}) > 1]


def _straddling(group: Sequence[Member]) -> Finding:
    """The finding on one group that is in several places."""
    counts: dict[str, int] = {}
    for member in group:
        counts[member.place] = counts.get(member.place, 0) + 1
    shown = ", ".join(f"{counts[place]} {place}" for place in ("train", "val", "test", "unseen") if place in counts)
    official = all(member.official for member in group) and "unseen" not in counts
    names = ", ".join(dict.fromkeys(member.dataset for member in group))
    return Finding(
        "warning" if official else "broken",
        "group in several splits",
        f"{names}: group {group[0].case.group_id}",
        f"{shown}{' (official split)' if official else ''}",
        "the clean split keeps groups together" if official else "put all cases of the group in one split",
    )


def judge_fault(member: Member, fault: Fault, file: str, *, allow_empty: bool = False) -> Finding:
    """What a fault of a case means.

    Args:
        member: The case.
        fault: What is wrong with it.
        file: The file or files at fault, as the user would find them.
        allow_empty: Healthy cases belong to the set: an empty mask breaks no rule.
    """
    severities: Mapping[str, Severity] = {
        EMPTY_MASK: "note" if allow_empty else "broken",
        MISSING_TARGET: "note",
        SPECKS: "warning",
    }
    severity = severities.get(fault.kind, "broken")
    return Finding(severity, fault.kind, f"{member}: {file}", fault.detail, fault.fix, (member,))


def judge_listing(dataset: str, problem: Problem) -> Finding:
    """What was found wrong while listing a data set breaks a rule."""
    return Finding("broken", "listing", f"{dataset}: {problem.file}", problem.problem, problem.fix)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; then by kind, the most similar pairs first."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), one.kind, -(one.similarity or 0), one.where))
