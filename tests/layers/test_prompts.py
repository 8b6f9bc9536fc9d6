from __future__ import annotations

import numpy as np
import pytest

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.prompts import (
    Clicks,
    JitteredBox,
    NoPrompts,
    RandomPoint,
    TightBox,
    WholeImageBox,
    deepest_point,
    tight_box,
)
from madgnet_bench.protocol import Protocol

SOURCES = [NoPrompts(), RandomPoint(), Clicks(3), TightBox(), JitteredBox(20), WholeImageBox()]


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rectangle(top: int = 2, bottom: int = 6, left: int = 3, right: int = 10) -> np.ndarray:
    mask = np.zeros((12, 16), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_names_are_those_of_protocols_and_draws_repeat(source):
    protocol = Protocol.parse(f"madgnet[prompts={source.name}]")
    reads_mask = source.name not in ("none", "image_box")
    assert protocol.oracle == reads_mask
    one, other = (source.draw(rectangle(), stream=stream(5)) for _ in range(2))
    assert one.points.dtype == np.float32 and one.labels.dtype == np.int64
    for a, b in zip(one, other, strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_what_an_oracle_says_about_an_empty_mask(source):
    prompt = source.draw(np.zeros((12, 16), bool), stream=stream())
    assert (prompt.labels == -1).all()
    if prompt.box is not None:
        assert np.isnan(prompt.box).all() == (source.name != "image_box")
    assert source.correct(prompt, np.zeros((12, 16), bool), rectangle()) is prompt


def test_a_random_point_is_anywhere_inside():
    mask = rectangle() | rectangle(8, 9, 0, 1)
    drawn = [RandomPoint().draw(mask, stream=stream(seed)).points[0] for seed in range(600)]
    found = {(int(y), int(x)) for x, y in drawn}
    assert found == set(zip(*map(tuple, np.nonzero(mask)), strict=True))


def test_boxes():
    mask = rectangle() | rectangle(8, 9, 0, 1)
    assert TightBox().draw(mask, stream=stream()).box.tolist() == [0, 2, 9, 8]
    assert WholeImageBox().draw(mask, stream=stream()).box.tolist() == [0, 0, 15, 11]
    jittered = np.array([JitteredBox(20).draw(mask, stream=stream(seed)).box for seed in range(300)])
    assert jittered[:, [0, 2]].min() >= 0 and jittered[:, [0, 2]].max() <= 15
    moved = np.abs(jittered - [0, 2, 9, 8])
    assert (moved <= np.array([2, 1.4, 2, 1.4]) + 1e-5).all() and (moved.max(0) > 0.8 * np.array([2, 1.4, 2, 1.4])).all()
    assert len(np.unique(jittered[:, 3])) > 200


def test_a_jittered_box_of_one_pixel_keeps_its_order():
    mask = rectangle(0, 1, 0, 1)
    boxes = np.array([JitteredBox(50).draw(mask, stream=stream(seed)).box for seed in range(100)])
    assert (boxes[:, :2] <= boxes[:, 2:]).all() and boxes.min() >= 0


def test_clicks_go_where_the_largest_error_is():
    mask, source = rectangle(2, 7, 3, 10), Clicks(4)
    prompt = source.draw(mask, stream=stream())
    assert prompt.labels.tolist() == [1, -1, -1, -1]
    missing = mask.copy()
    missing[:, 8:] = False  # two columns of five are missing: 10 pixels
    missing[9:12, 12:15] = True  # nine pixels too many
    prompt = source.correct(prompt, mask, missing)
    assert prompt.labels.tolist() == [1, 1, -1, -1] and prompt.points[1].tolist() == [8, 2]
    missing[9:12, 12:16] = True  # now twelve
    prompt = source.correct(prompt, mask, missing)
    assert prompt.labels.tolist() == [1, 1, 0, -1] and prompt.points[2].tolist() == [13, 10]
    assert source.correct(prompt, mask, mask).labels.tolist() == [1, 1, 0, -1]
    full = source.correct(prompt, mask, ~mask)
    assert (full.labels >= 0).all() and source.correct(full, mask, ~mask) is full


def test_regions_connect_by_their_corners():
    mask = np.eye(9, dtype=bool)[:, ::-1]
    other = np.zeros_like(mask)
    other[:2, :4] = True  # eight surplus pixels against nine missing ones on a diagonal
    prompt = Clicks(2).correct(Clicks(2).draw(mask, stream=stream()), mask, other)
    assert prompt.labels.tolist() == [1, 1]


def test_the_deepest_point_counts_the_border_of_the_image():
    assert deepest_point(np.ones((5, 7), bool)).tolist() == [2, 2]
    assert deepest_point(rectangle(2, 7, 3, 8)).tolist() == [5, 4]
    assert np.isnan(tight_box(np.zeros((3, 3), bool))).all()


@pytest.mark.parametrize("build", [lambda: Clicks(1), lambda: JitteredBox(0), lambda: JitteredBox(51)])
def test_bad_arguments(build):
    with pytest.raises(ConfigError, match="use"):
        build()


@pytest.mark.parametrize("text", ["oracle", "clicks", "clicks0", "point3", "box_jitter", "Box"])
def test_unknown_sources_are_no_protocol(text):
    with pytest.raises(ConfigError, match="no source of prompts"):
        Protocol.parse(f"madgnet[prompts={text}]")
