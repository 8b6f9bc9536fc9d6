from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.attention import (
    MultiFrequencyChannelAttention,
    MultiFrequencyMultiScaleAttention,
    MultiScaleSpatialAttention,
)
from madgnet_bench.layers.frequency import FREQUENCIES, FrequencyStatistics


def plain_channel_attention(x: Tensor, fc: nn.Module, grid: int, frequencies: int, selection: str) -> Tensor:
    """MFCA written out: full planes, one product per basis and channel."""
    pooled = functional.adaptive_avg_pool2d(x, (grid, grid))
    mean, largest, smallest = 0.0, 0.0, 0.0
    for u, v in FREQUENCIES[selection][:frequencies]:  # type: ignore[index]
        plane = torch.zeros(grid, grid)
        for row in range(grid):
            for column in range(grid):
                vertical = math.cos(math.pi * u * (grid // 7) * (row + 0.5) / grid) * math.sqrt((2 if u else 1) / grid)
                horizontal = math.cos(math.pi * v * (grid // 7) * (column + 0.5) / grid) * math.sqrt((2 if v else 1) / grid)
                plane[row, column] = vertical * horizontal
        product = pooled * plane
        mean = mean + product.mean(dim=(2, 3), keepdim=True) / frequencies
        largest = largest + product.amax(dim=(2, 3), keepdim=True) / frequencies
        smallest = smallest + product.amin(dim=(2, 3), keepdim=True) / frequencies
    return x * torch.sigmoid(fc(mean) + fc(largest) + fc(smallest))


def plain_block(block: MultiFrequencyMultiScaleAttention, x: Tensor, grid: int, frequencies: int, selection: str) -> Tensor:
    """MFMSA written out, scale by scale, for sides that the scales divide."""
    total = torch.zeros_like(x)
    scales = len(block.multi_scale_branches)
    for scale in range(scales):
        is_pooled = x.shape[2] // 2**scale >= 8
        feature = functional.avg_pool2d(x, 2**scale) if is_pooled else x
        feature = block.multi_scale_branches[scale](feature)
        if frequencies:
            fc = block.multi_frequency_branches[scale].fc
            feature = plain_channel_attention(feature, fc, grid, frequencies, selection)
        spatial = block.multi_spatial_branches[scale]
        foreground = torch.sigmoid(functional.conv2d(feature, spatial.attention[0].weight))
        feature = spatial.alpha * feature * (1 - foreground) + spatial.beta * feature * foreground
        feature = block.expansions[scale](feature)
        if is_pooled and scale:
            feature = functional.interpolate(feature, scale_factor=2**scale, mode="bilinear", align_corners=False)
        total = total + feature
    return total / scales + x


def trained_block(channels: int, **options: object) -> MultiFrequencyMultiScaleAttention:
    """Build a block in which every part matters: gates away from 1/2, alpha and beta away from 1."""
    torch.manual_seed(0)
    block = MultiFrequencyMultiScaleAttention(channels, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if ".fc." in name:
                parameter.mul_(8)
            elif name.endswith(("alpha", "beta")) or parameter.dim() == 1:
                parameter.uniform_(0.3, 2)
    return block.eval()


@pytest.mark.parametrize(
    ("size", "scales", "frequencies", "selection"),
    [
        ((32, 32), 3, 16, "top"),
        ((32, 48), 3, 4, "low"),
        ((8, 64), 3, 2, "bot"),  # no scale is pooled, however wide the map
        ((16, 8), 2, 2, "top"),
        ((22, 22), 3, 16, "top"),  # the third scale is not pooled
        ((16, 16), 1, 1, "top"),
        ((16, 16), 2, 0, "top"),
    ],
)
@pytest.mark.parametrize("grid", [14, 21])
def test_block_equals_the_plain_formulation(
    grid: int, size: tuple[int, int], scales: int, frequencies: int, selection: str
) -> None:
    block = trained_block(32, grid=grid, scales=scales, frequencies=frequencies, selection=selection)
    x = torch.randn(2, 32, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_block(block, x, grid, frequencies, selection), atol=1e-5, rtol=1e-5)


def test_every_part_of_the_trained_block_matters() -> None:
    x = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    for part in (".fc.", "attention.0", "alpha", "beta", "multi_scale_branches", "expansions"):
        block = trained_block(32, grid=14, frequencies=4)
        before = block(x)
        for name, parameter in block.named_parameters():
            if part in name:
                parameter.data.mul_(1.5)
        assert (block(x) - before).abs().max() > 1e-3, part


def test_widths_of_the_scales() -> None:
    for channels, widths in {256: [256, 128, 64], 128: [128, 64, 32], 64: [64, 32, 32], 32: [32, 32, 32]}.items():
        with torch.device("meta"):
            block = MultiFrequencyMultiScaleAttention(channels, grid=3584 // channels)
        assert [branch[3].out_channels for branch in block.multi_scale_branches] == widths
        assert [branch.fc[0].out_channels for branch in block.multi_frequency_branches] == [w // 16 for w in widths]
        assert [branch[0].dilation for branch in block.multi_scale_branches] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 1), (16, 2), (64, 3)])
def test_any_size(size: tuple[int, int]) -> None:
    block = trained_block(32, grid=14, scales=4, frequencies=2)
    assert block(torch.rand(1, 32, *size)).shape == (1, 32, *size)


def test_alpha_weighs_the_background() -> None:
    attention = MultiScaleSpatialAttention(2)
    x = torch.rand(1, 2, 4, 4)
    assert torch.allclose(attention(x), x)
    attention.attention[0].weight.data.fill_(1e3)  # everything is foreground
    attention.alpha.data.fill_(5.0)
    torch.testing.assert_close(attention(x), x)
    attention.beta.data.fill_(2.0)
    torch.testing.assert_close(attention(x), 2 * x)


def test_channel_gate_is_half_without_evidence() -> None:
    attention = MultiFrequencyChannelAttention(16)
    statistics = FrequencyStatistics(14)
    assert attention(torch.zeros(1, 16, 5, 9), statistics).shape == (1, 16, 5, 9)
    attention.fc[2].weight.data.zero_()
    x = torch.rand(1, 16, 5, 9)
    torch.testing.assert_close(attention(x, statistics), x / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 40, "grid": 14}, "multiple of groups"),
        ({"channels": 32, "grid": 14, "scales": 0}, "scales=0"),
        ({"channels": 32, "grid": 14, "reduction": 64}, "smaller reduction"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiFrequencyMultiScaleAttention(**options)
