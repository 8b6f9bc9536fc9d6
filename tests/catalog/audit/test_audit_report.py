from __future__ import annotations

import numpy as np
import pytest
from memory_sets import Memory, changed, scenes

from madgnet_bench.catalog.audit.report import audit
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.errors import ConfigError, DataErrors, Problem

SCENES = scenes("dermoscopy", 6)
IMAGES = {f"c{number}": scene for number, scene in enumerate(SCENES)}


def test_phantoms_are_clean_and_stages_are_told() -> None:
    told: dict[str, tuple[int, int]] = {}
    sets = [PhantomDataset("colonoscopy", cases=12), PhantomDataset("ultrasound", cases=12)]
    report = audit(sets[:1], sets[1:], progress=lambda stage, done, total: told.update({stage: (done, total)}))
    assert [finding for finding in report.findings if finding.kind != "neighbours of a group"] == []
    assert report.cases == {"phantom_colonoscopy": 12, "phantom_ultrasound": 12} and report.broken == 0
    assert told["reading"] == told["comparing"] == (24, 24)
    assert told.get("registering", (0, 0)) == (report.candidates, report.candidates)


def test_leaks_inside_a_set_and_across_sets() -> None:
    random = np.random.default_rng(0)
    inside = Memory(
        "a",
        {**IMAGES, "copy0": changed(SCENES[0], random, orientation=5), "same1": SCENES[1], "copy2": changed(SCENES[2], random)},
        splits={"copy0": "test", "same1": "val"},
    )
    outside = Memory("b", {"copy3": changed(SCENES[3], random, orientation=3), "own": scenes("dermoscopy", 1, seed=9)[0]})
    report = audit([inside], [outside])
    found = [(one.severity, one.kind, *(m.case.case_id for m in one.members)) for one in report.findings]
    assert found == [
        ("broken", "duplicate, seen and unseen", "c3", "copy3"),
        ("broken", "duplicate, train and test", "c0", "copy0"),
        ("warning", "duplicate, train and val", "c1", "same1"),
        ("note", "duplicate in one split", "c2", "copy2"),
    ]
    assert report.broken == 2
    details = {one.kind: one.detail for one in report.findings}
    assert details["duplicate, train and val"] == "same pixels"
    assert details["duplicate, train and test"].startswith("similarity 0.9")


def test_neighbours_are_no_leak_but_their_group_is_when_it_straddles() -> None:
    random = np.random.default_rng(0)
    images = {**IMAGES, "next0": changed(SCENES[0], random)}
    groups = {"c0": "video", "next0": "video"}
    report = audit([Memory("a", images, groups=groups)])
    assert [(one.severity, one.kind) for one in report.findings] == [("note", "neighbours of a group")]
    for split_name, severity in (("clean", "broken"), ("official", "warning")):
        straddling = Memory("a", images, groups=groups, splits={"next0": "test"}, split_name=split_name)
        kinds = [(one.severity, one.kind) for one in audit([straddling]).findings]
        assert kinds == [(severity, "group in several splits"), ("note", "neighbours of a group")]


def test_equal_images_in_many_places_are_each_reported_once_per_split() -> None:
    images = {f"{split}{number}": SCENES[0] for split in ("train", "test") for number in range(3)}
    splits = {name: name[:-1] for name in images}
    report = audit([Memory("a", images, splits=splits)])  # type: ignore[arg-type]
    counts = report.counts()
    assert set(counts) == {("broken", "duplicate, train and test"), ("note", "duplicate in one split")}
    involved = {m.case.case_id for one in report.findings if one.severity == "broken" for m in one.members}
    assert involved == set(images)


def test_grey_saved_as_colour_has_the_same_pixels() -> None:
    grey = scenes("ultrasound", 1)[0]
    (finding,) = audit([Memory("a", {"grey": grey, "colour": np.repeat(grey, 3, axis=-1)})]).findings
    assert finding.detail == "same pixels"


def test_faults_are_collected_and_do_not_stop_the_audit() -> None:
    empty = np.zeros((1, *SCENES[1].shape[:2]), np.uint8)
    dataset = Memory(
        "a",
        {"torn": None, "flat": np.full((64, 64, 1), 3, np.uint8), **IMAGES},
        masks={"c1": empty, "c2": None},
        problems=[Problem("a/extra.png", "mask without an image", "remove it")],
    )
    report = audit([dataset])
    assert [(one.kind, one.where) for one in report.findings] == [
        ("constant image", "a: flat (train): flat.png"),
        ("empty mask", "a: c1 (train): c1_mask.png"),
        ("image unreadable", "a: torn (train): torn.png"),
        ("listing", "a: a/extra.png"),
        ("mask refused", "a: c2 (train): c2_mask.png"),
    ]
    assert report.broken == 5
    assert audit([dataset], allow_empty=True).broken == 4


def test_wrong_use() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        audit([])
    with pytest.raises(ConfigError, match="a: named twice"):
        audit([Memory("a", IMAGES)], [Memory("a", IMAGES)])
    with pytest.raises(DataErrors, match="folder is missing"):
        audit([Memory("a", {}, problems=[Problem("a", "the folder is missing", "copy it")])])


def test_a_single_image_has_nothing_to_compare() -> None:
    report = audit([Memory("a", {"c0": SCENES[0]})])
    assert report.findings == () and report.candidates == 0
