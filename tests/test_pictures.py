from __future__ import annotations

import numpy as np
import pytest

from madgnet_bench.pictures import PARTS, case_panel, draw_outlines, error_overlay, target_colours, to_rgb


def square(side, low, high, targets=1):
    mask = np.zeros((targets, side, side), np.uint8)
    mask[:, low:high, low:high] = 1
    return mask


def coloured(picture, colour):
    return (picture == colour).all(-1)


def test_colours_differ_and_start_over():
    colours = target_colours(7)
    assert len(set(colours)) == 7
    assert target_colours(9)[7:] == colours[:2]
    assert target_colours(0) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_one_channel_becomes_three_and_nothing_is_shared(channels):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    picture = to_rgb(image)
    assert picture.shape == (4, 5, 3) and (picture[..., 0] == image[..., 0]).all() and (picture[..., 2] == image[..., -1]).all()
    picture[:] = 0
    assert image.any()


def test_an_outline_is_the_inner_border():
    image = np.full((20, 20, 1), 9, np.uint8)
    picture = draw_outlines(image, square(20, 5, 15))
    drawn = coloured(picture, target_colours(1)[0])
    border = square(20, 5, 15)[0] - square(20, 6, 14)[0]
    assert np.array_equal(drawn, border.astype(bool))
    assert (picture[~drawn] == 9).all() and (image == 9).all()


def test_large_pictures_get_two_pixels():
    picture = draw_outlines(np.zeros((256, 40, 3), np.uint8), np.pad(square(40, 5, 35), ((0, 0), (0, 216), (0, 0))))
    assert coloured(picture, target_colours(1)[0]).sum() == 30**2 - 26**2


def test_a_mask_up_to_the_edge_is_closed_there_and_an_empty_one_draws_nothing():
    image = np.zeros((10, 10, 3), np.uint8)
    assert coloured(draw_outlines(image, square(10, 0, 10)), target_colours(1)[0]).sum() == 36
    assert not draw_outlines(image, square(10, 0, 0)).any()


def test_every_target_has_its_colour_the_later_on_top():
    masks = np.concatenate([square(20, 2, 18), square(20, 6, 14), square(20, 6, 10)])
    picture = draw_outlines(np.zeros((20, 20, 3), np.uint8), masks)
    assert [coloured(picture, colour).sum() for colour in target_colours(3)] == [60, 28 - 7, 12]


def test_errors_are_told_apart():
    image = np.full((2, 2, 3), 100, np.uint8)
    prediction, reference = np.array([[[1, 1], [0, 0]]]), np.array([[[1, 0], [1, 0]]])
    picture = error_overlay(image, prediction.astype(np.uint8), reference.astype(np.uint8))
    agreed, false, missed, neither = picture.reshape(4, 3).tolist()
    assert neither == [100, 100, 100]
    assert len({tuple(agreed), tuple(false), tuple(missed), tuple(neither)}) == 4
    assert agreed[2] > agreed[0] and missed[0] > missed[1] and false[1] > false[2]  # blue, pink, yellow


def test_errors_of_several_targets_are_united():
    inner, outer = square(8, 3, 5), square(8, 1, 7)
    nested = np.concatenate([outer, inner])
    assert np.array_equal(
        error_overlay(np.zeros((8, 8, 1), np.uint8), nested, nested), error_overlay(np.zeros((8, 8, 1), np.uint8), outer, outer)
    )


def test_a_panel_is_its_parts_side_by_side():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    prediction, reference = square(8, 2, 6), square(8, 3, 7)
    panel = case_panel(image, prediction, reference)
    parts = np.split(panel, len(PARTS), axis=1)
    expected = [to_rgb(image), draw_outlines(image, reference), draw_outlines(image, prediction)]
    assert all(
        np.array_equal(*pair) for pair in zip(parts, [*expected, error_overlay(image, prediction, reference)], strict=True)
    )
