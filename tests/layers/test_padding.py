from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madgnet_bench.layers.padding import crop_to_size, pad_to_multiple


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.sampled_from([1, 2, 16, 32]))
def test_pad_then_crop_is_nothing(size: list[int], multiple: int) -> None:
    image = torch.rand(1, 2, *size)
    padded = pad_to_multiple(image, multiple)
    assert all(new % multiple == 0 and old <= new < old + multiple for old, new in zip(size, padded.shape[2:], strict=True))
    assert torch.equal(crop_to_size(padded, size), image)


def test_mirrors_where_it_can_and_repeats_where_not() -> None:
    image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None]
    padded = pad_to_multiple(image, 5)[0, 0]
    assert padded[0].tolist() == [1, 2, 3, 2, 1]
    assert padded[:, 0].tolist() == [1, 4, 4, 4, 4]


def test_fitting_image_is_returned_itself() -> None:
    image = torch.rand(1, 1, 32, 64)
    assert pad_to_multiple(image, 32) is image
    assert crop_to_size(image, (32, 64)) is image


def test_no_pixels() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        pad_to_multiple(torch.rand(1, 1, 0, 4), 32)
