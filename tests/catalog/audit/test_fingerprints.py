from __future__ import annotations

import numpy as np
import pytest
from memory_sets import changed, scenes, turned

from madgnet_bench.catalog.audit.fingerprints import (
    FLIPS,
    FREQUENCIES,
    NEAREST,
    SIDE,
    basis,
    fingerprint,
    flip,
    propose,
)

(SCENE,) = scenes("dermoscopy", 1)


@pytest.mark.parametrize("orientation", range(FLIPS))
def test_flipping_a_fingerprint_is_flipping_the_image(orientation: int) -> None:
    direct = fingerprint(np.ascontiguousarray(turned(SCENE, orientation)))
    np.testing.assert_allclose(flip(fingerprint(SCENE), orientation), direct, atol=0.02)


def test_the_basis_gives_the_image_back_and_its_slopes_are_derivatives() -> None:
    smooth = np.cos(np.linspace(0, 3, SIDE))[:, None] * np.linspace(0, 1, SIDE) ** 2 * 100
    found = fingerprint(smooth[..., None].astype(np.float32))
    positions = (np.arange(SIDE) + 0.5) / SIDE
    cosines, slopes = basis(positions, FREQUENCIES)
    rebuilt = cosines @ found @ cosines.T
    np.testing.assert_allclose(rebuilt[8:-8, 8:-8], (smooth - smooth.mean())[8:-8, 8:-8], atol=0.05)
    ahead, behind = basis(positions + 1e-3, 8)[0], basis(positions - 1e-3, 8)[0]
    np.testing.assert_allclose(slopes[:, :8], (ahead - behind) / 2e-3, atol=2e-3)


def test_grey_and_colour_and_depth_agree() -> None:
    grey = SCENE[..., :1]
    expected = fingerprint(grey)
    np.testing.assert_allclose(fingerprint(np.repeat(grey, 3, axis=-1)), expected, atol=1e-3)
    np.testing.assert_allclose(fingerprint(np.repeat(grey, 4, axis=-1)), expected, atol=1e-3)
    np.testing.assert_allclose(255 * fingerprint(grey.astype(np.float32) / 255), expected, rtol=1e-3, atol=1e-2)
    volume = np.stack([np.zeros_like(grey), grey, np.zeros_like(grey)])
    np.testing.assert_array_equal(fingerprint(volume), expected)
    assert not fingerprint(np.full((20, 30, 3), 9, np.uint8)).any()


def test_every_copy_is_proposed_with_its_orientation() -> None:
    random = np.random.default_rng(0)
    sources = scenes("microscopy", 12)
    copies = [changed(source, random, orientation=row % FLIPS) for row, source in enumerate(sources)]
    found = propose(np.stack([fingerprint(image) for image in [*sources, *copies]]), np.arange(24))
    orientations = {(a, b): o for a, b, o in zip(*(part.tolist() for part in found), strict=True)}
    inverse = {5: 6, 6: 5}
    for row in range(12):
        expected = row % FLIPS
        assert orientations[row, row + 12] == inverse.get(expected, expected)
    assert (found.first < found.second).all()


def test_neighbours_of_a_group_leave_room_for_others() -> None:
    random = np.random.default_rng(0)
    (source,) = scenes("dermoscopy", 1)
    copies = [changed(source, random) for _ in range(2 * NEAREST)]
    prints = np.stack([fingerprint(image) for image in [source, *copies, changed(source, random)]])
    groups = np.array([0] * (len(copies) + 1) + [1])
    found = propose(prints, groups)
    assert (0, len(prints) - 1) in set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def test_constant_images_are_never_proposed() -> None:
    prints = np.zeros((3, FREQUENCIES, FREQUENCIES), np.float32)
    seen: list[tuple[int, int]] = []
    assert len(propose(prints, np.arange(3), progress=lambda done, total: seen.append((done, total))).first) == 0
    assert seen == [(3, 3)]
