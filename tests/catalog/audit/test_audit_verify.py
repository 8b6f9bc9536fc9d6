from __future__ import annotations

import numpy as np
import pytest
from memory_sets import changed, scenes

from madgnet_bench.catalog.audit.fingerprints import Candidates, fingerprint, flip, propose
from madgnet_bench.catalog.audit.verify import SAME_IMAGE, compare, verify
from madgnet_bench.catalog.phantoms import PHANTOM_CARDS


def test_a_crop_is_found_where_it_was_taken() -> None:
    (scene,) = scenes("colonoscopy", 1)
    large = scene.repeat(4, axis=0).repeat(4, axis=1)
    height, width = large.shape[:2]
    crop = large[12 : height - 4, 8 : width - 15]
    placements, similarity = compare(fingerprint(large)[None], fingerprint(crop)[None])
    expected = [12 / height, (height - 16) / height, 8 / width, (width - 23) / width]
    np.testing.assert_allclose(placements[0], expected, atol=0.002)
    assert similarity[0] > 0.95
    inverse, _ = compare(fingerprint(crop)[None], fingerprint(large)[None])
    assert inverse[0, 1] == pytest.approx(1 / expected[1], abs=0.005)


@pytest.mark.parametrize("modality", PHANTOM_CARDS)
def test_copies_are_the_same_and_other_scenes_are_not(modality: str) -> None:
    random = np.random.default_rng(3)
    sources = scenes(modality, 6)
    copies = [changed(source, random, orientation=row) for row, source in enumerate(sources)]
    prints = np.stack([fingerprint(image) for image in [*sources, *copies]])
    found = propose(prints, np.arange(12))
    similarity = verify(prints, found)
    for first, second, value in zip(found.first, found.second, similarity, strict=True):
        assert (value >= SAME_IMAGE) == (second - first == 6), (first, second, value)
    assert (found.second - found.first == 6).sum() == 6


def test_gain_and_offset_do_not_matter_and_inversion_is_no_copy() -> None:
    one = np.stack([fingerprint(image) for image in scenes("ultrasound", 2)])
    np.testing.assert_allclose(compare(one, 0.4 * one)[1], compare(one, one)[1], atol=1e-3)
    assert compare(one, one)[1].min() > 0.99
    assert compare(one, -one)[1].max() < 0.5


def test_a_shared_frame_is_not_enough() -> None:
    images = []
    for scene in scenes("dermoscopy", 2):
        framed = np.zeros((140, 140, 3), np.uint8)
        framed[22:118, 22:118] = scene
        framed[4:18, 10:60] = 255
        images.append(framed)
    assert compare(fingerprint(images[0])[None], fingerprint(images[1])[None])[1][0] < SAME_IMAGE


def test_batches_and_threads_change_nothing() -> None:
    prints = np.stack([fingerprint(image) for image in scenes("fundus", 4)])
    rows, columns = np.triu_indices(4, 1)
    rows, columns = np.tile(rows, 12), np.tile(columns, 12)
    flips = np.arange(len(rows)) % 8
    done: list[int] = []
    several = verify(prints, Candidates(rows, columns, flips), workers=2, progress=lambda now, total: done.append(now))
    alone = [compare(prints[[a]], flip(prints[[b]], int(o)))[1][0] for a, b, o in zip(rows, columns, flips, strict=True)]
    np.testing.assert_allclose(several, alone, atol=1e-3)
    assert done == [64, 72]
