from __future__ import annotations

import pytest

from madgnet_bench.catalog.audit.masks import Fault
from madgnet_bench.catalog.audit.pretraining import SOURCES, pretraining_contamination
from madgnet_bench.catalog.audit.rules import Finding, Member, judge_fault, judge_groups, judge_pair, sort_findings
from madgnet_bench.catalog.manifest import Case, Split
from madgnet_bench.catalog.official import READERS


def member(
    case: str, split: Split, *, group: str = "", unseen: bool = False, official: bool = False, name: str = "a", source: str = ""
) -> Member:
    return Member(name, source or name, Case(case, group or case, case, case, split), unseen, official)


@pytest.mark.parametrize(
    ("first", "second", "kind", "severity"),
    [
        (member("1", "train"), member("2", "test"), "duplicate, train and test", "broken"),
        (member("1", "test"), member("2", "val"), "duplicate, train and test", "broken"),
        (member("1", "train"), member("2", "test", name="b"), "duplicate, train and test", "broken"),
        (member("1", "train"), member("2", "val"), "duplicate, train and val", "warning"),
        (member("1", "train"), member("2", "train"), "duplicate in one split", "note"),
        (member("1", "test"), member("2", "test", name="b"), "duplicate in one split", "note"),
        (member("1", "train"), member("2", "train", name="b", unseen=True), "duplicate, seen and unseen", "broken"),
        (member("1", "test"), member("2", "test", name="b", unseen=True), "duplicate, seen and unseen", "broken"),
        (
            member("1", "train", unseen=True),
            member("2", "test", name="b", unseen=True),
            "duplicate in one split",
            "note",
        ),
        (member("1", "train", group="g"), member("2", "test", group="g"), "neighbours of a group", "note"),
        (member("1", "train", group="g"), member("2", "test", group="g", name="b"), "duplicate, train and test", "broken"),
        (
            member("1", "train", group="g"),
            member("1", "train", group="g", name="a/x", source="a", unseen=True),
            "duplicate, seen and unseen",
            "broken",
        ),
    ],
)
def test_pairs(first: Member, second: Member, kind: str, severity: str) -> None:
    for pair in ((first, second), (second, first)):
        finding = judge_pair(*pair, 0.912)
        assert (finding.kind, finding.severity, finding.detail) == (kind, severity, "similarity 0.91")
    assert judge_pair(first, second, 1, identical=True).detail == "same pixels"


def test_groups_in_several_splits() -> None:
    whole = [member("1", "train", group="p1"), member("2", "train", group="p1"), member("3", "test", group="p2")]
    assert judge_groups(whole) == []
    (found,) = judge_groups([*whole, member("4", "test", group="p1"), member("5", "val", group="p1")])
    assert (found.severity, found.where, found.detail) == ("broken", "a: group p1", "2 train, 1 val, 1 test")
    (official,) = judge_groups([member("1", "train", group="p", official=True), member("2", "test", group="p", official=True)])
    assert (official.severity, official.detail) == ("warning", "1 train, 1 test (official split)")


def test_groups_of_domains_are_of_one_source_and_those_of_other_sets_are_not() -> None:
    seen = member("1", "train", group="p", name="a/x", source="a")
    (found,) = judge_groups([seen, member("2", "test", group="p", name="a/y", source="a", unseen=True)])
    assert (found.severity, found.detail, found.where) == ("broken", "1 train, 1 unseen", "a/x, a/y: group p")
    assert judge_groups([seen, member("2", "test", group="p", name="b")]) == []


@pytest.mark.parametrize(
    ("kind", "allow_empty", "severity"),
    [
        ("empty mask", False, "broken"),
        ("empty mask", True, "note"),
        ("specks in the mask", False, "warning"),
        ("target without foreground", False, "note"),
        ("tiny mask", True, "broken"),
        ("mask refused", False, "broken"),
    ],
)
def test_faults(kind: str, allow_empty: bool, severity: str) -> None:
    finding = judge_fault(member("7", "val"), Fault(kind, "what", "how"), "7_mask.png", allow_empty=allow_empty)
    assert (finding.severity, finding.where) == (severity, "a: 7 (val): 7_mask.png")


def test_the_worst_come_first() -> None:
    findings = [
        judge_pair(member("1", "train"), member("2", "train"), 0.99),
        judge_pair(member("1", "train"), member("2", "test"), 0.85),
        Finding("broken", "listing", "a", "missing", "restore it"),
        judge_pair(member("1", "train"), member("3", "test"), 0.95),
        judge_pair(member("1", "train"), member("2", "val"), 0.9),
    ]
    ordered = sort_findings(findings)
    assert [(one.severity, one.similarity) for one in ordered] == [
        ("broken", 0.95),
        ("broken", 0.85),
        ("broken", None),
        ("warning", 0.9),
        ("note", 0.99),
    ]


@pytest.mark.parametrize(
    ("pretraining", "test_set", "met"),
    [
        ("Kvasir-SEG", "kvasir_seg_256", True),
        ("HyperKvasir", "polyp_pranet/kvasir", True),
        ("HyperKvasir", "polyp_pranet", True),
        ("HyperKvasir", "polyp_pranet/etis", False),
        ("BUSI", "busi/malignant", True),
        ("ISIC 2017", "isic2018", True),
        ("ImageNet-1k", "busi", False),
        ("bbbc039", "dsb2018/fluorescence", True),
    ],
)
def test_pretraining_on_a_test_set(pretraining: str, test_set: str, met: bool) -> None:
    found = pretraining_contamination(["SA-1B", pretraining], [test_set])
    assert [(one.severity, one.where) for one in found] == ([("broken", test_set)] if met else [])
    assert all(one.detail == f"the network was pretrained on {pretraining}" for one in found)


def test_every_domain_of_the_polyp_pool_has_sources() -> None:
    domains = {f"polyp_pranet/{domain}" for domain in READERS["polyp_pranet"].card.domains}
    assert domains <= set(SOURCES)
    assert set.union(*(set(SOURCES[domain]) for domain in domains)) == SOURCES["polyp_pranet"]
