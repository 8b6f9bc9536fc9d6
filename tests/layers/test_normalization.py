from __future__ import annotations

import pytest
import torch

from madgnet_bench.layers.normalization import IMAGENET_MEAN, IMAGENET_STD, InputNormalization, input_normalization


def test_values_and_state_dict() -> None:
    layer = InputNormalization(3, mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    normalized = layer(torch.full((2, 3, 4, 5), 0.6))
    expected = torch.tensor([1.0, 0.4, 0.15]).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    torch.testing.assert_close(normalized, expected)
    assert layer.state_dict() == {}


def test_identity_by_default() -> None:
    image = torch.rand(1, 3, 4, 5)
    assert InputNormalization(3)(image) is image


@pytest.mark.parametrize("spatial", [(4, 5), (2, 3, 4)])
def test_one_channel_is_repeated(spatial: tuple[int, ...]) -> None:
    image = torch.rand(2, 1, *spatial)
    repeated = InputNormalization(3, mean=[0.5], std=[2.0])(image)
    assert repeated.shape == (2, 3, *spatial)
    assert all(torch.equal(repeated[:, channel : channel + 1], (image - 0.5) / 2) for channel in range(3))


@pytest.mark.parametrize(("channels", "takes"), [(2, 3), (4, 3), (3, 1)])
def test_other_channels_are_refused(channels: int, takes: int) -> None:
    with pytest.raises(ValueError, match=f"the image has {channels} channels, the network takes {takes}"):
        InputNormalization(takes)(torch.rand(1, channels, 4, 4))


def test_bad_constants() -> None:
    with pytest.raises(ValueError, match="mean has 2 values for 3 channels"):
        InputNormalization(3, mean=[0.1, 0.2])
    with pytest.raises(ValueError, match="std must be positive"):
        InputNormalization(3, std=[0.0])


def test_by_name() -> None:
    layer = input_normalization("imagenet")
    torch.testing.assert_close(layer.mean, torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(layer.std, torch.tensor(IMAGENET_STD))
    assert input_normalization("none", 2).in_channels == 2
    with pytest.raises(ValueError, match="3 values for 1 channels"):
        input_normalization("imagenet", 1)
    with pytest.raises(ValueError, match="'zscore'"):
        input_normalization("zscore")  # type: ignore[arg-type]
