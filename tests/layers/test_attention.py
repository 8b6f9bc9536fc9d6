from __future__ import annotations

import math
from typing import Any

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
from madgnet_bench.layers.wavelet import Wavelet, WaveletStatistics


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


def plain_paper_block(block: MultiFrequencyMultiScaleAttention, x: Tensor) -> Tensor:
    """MFMSA as the paper's figures draw it, with Haar subbands of K = 4 and without MSSA where the block has none."""
    total = torch.zeros_like(x)
    for scale, branch in enumerate(block.multi_scale_branches):
        feature = functional.avg_pool2d(x, 2**scale) if scale else x
        kernel = branch[0].weight
        assert kernel.shape[2:] == (3 + 2 * scale, 3 + 2 * scale)
        feature = branch[1:](functional.conv2d(feature, kernel, padding=1 + scale, groups=32))
        pooled = functional.adaptive_avg_pool2d(feature, (14, 14))
        corners = [pooled[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        signs = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
        planes = [sum(s * corner for s, corner in zip(row, corners, strict=True)) / 2 / 14 for row in signs]
        mean = sum(plane.mean(dim=(2, 3), keepdim=True) / 2 for plane in planes) / 4
        largest = sum(plane.amax(dim=(2, 3), keepdim=True) for plane in planes) / 4
        smallest = sum(plane.amin(dim=(2, 3), keepdim=True) for plane in planes) / 4
        fc = block.multi_frequency_branches[scale].fc
        feature = feature * torch.sigmoid(fc(mean) + fc(largest) + fc(smallest))
        if block.multi_spatial_branches is not None:
            spatial = block.multi_spatial_branches[scale]
            foreground = torch.sigmoid(functional.conv2d(feature, spatial.attention[0].weight))
            feature = spatial.alpha * feature * foreground + spatial.beta * feature * (1 - foreground)
        feature = block.expansions[scale](feature)
        total = total + functional.interpolate(feature, size=x.shape[2:], mode="bilinear", align_corners=False)
    return total / len(block.multi_scale_branches) + x


def trained_block(channels: int, **options: Any) -> MultiFrequencyMultiScaleAttention:
    """Build a block in which every part matters: gates away from 1/2, alpha and beta away from 1."""
    torch.manual_seed(0)
    block = MultiFrequencyMultiScaleAttention(channels, **options)
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


@pytest.mark.parametrize("spatial_attention", [True, False])
@pytest.mark.parametrize(("size", "scales"), [((32, 32), 3), ((16, 8), 4), ((8, 24), 1)])
def test_paper_block_equals_the_plain_formulation(size: tuple[int, int], scales: int, spatial_attention: bool) -> None:
    options = {"scales": scales, "spatial_attention": spatial_attention}
    block = trained_block(32, grid=14, frequencies=4, basis="haar", formulation="paper", **options)
    x = torch.randn(2, 32, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(block(x), plain_paper_block(block, x), atol=1e-5, rtol=1e-5)


def test_without_spatial_attention_is_the_rest() -> None:
    full = MultiFrequencyMultiScaleAttention(32, grid=14, frequencies=2).eval()  # untrained MSSA changes nothing
    block = MultiFrequencyMultiScaleAttention(32, grid=14, frequencies=2, spatial_attention=False).eval()
    missing = block.load_state_dict(full.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all(name.startswith("multi_spatial_branches.") for name in missing.unexpected_keys)
    assert len(missing.unexpected_keys) == 3 * 3
    x = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x), full(x))


def test_bases_differ_only_in_their_statistics() -> None:
    x = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    blocks = {basis: trained_block(32, grid=14, basis=basis).eval() for basis in ("cosine", "haar", "db2")}
    states = [block.state_dict() for block in blocks.values()]
    assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in states[0])
    assert len({frozenset(state) for state in states}) == 1
    outputs = [block(x) for block in blocks.values()]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[first] - outputs[second]).abs().max() > 1e-3


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


@pytest.mark.parametrize("options", [{}, {"formulation": "paper", "basis": "db2"}], ids=["released", "paper"])
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (64, 1), (16, 2), (64, 3)])
def test_any_size(size: tuple[int, int], options: dict[str, Any]) -> None:
    block = trained_block(32, grid=14, scales=4, frequencies=2, **options)
    output = block(torch.rand(1, 32, *size))
    assert output.shape == (1, 32, *size)
    assert output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [{"basis": "haar"}, {"basis": "db2"}, {"spatial_attention": False}, {"formulation": "paper"}],
    ids=["haar", "db2", "no-MSSA", "paper"],
)
def test_extreme_values_in_low_precision(options: dict[str, Any], dtype: torch.dtype) -> None:
    block = trained_block(32, grid=14, **options).train()
    x = (3e4 * torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1)).sign()).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        output = block(x)
    assert output.isfinite().all()
    output.float().mean().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_channel_gate_of_extreme_half_precision(wavelet: Wavelet) -> None:
    torch.manual_seed(0)
    attention, statistics = MultiFrequencyChannelAttention(32), WaveletStatistics(14, wavelet=wavelet)
    x = (6e4 * torch.randn(2, 32, 14, 14).sign()).half().requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        gated = attention(x, statistics)
    gated.float().mean().backward()
    assert gated.dtype == torch.float16 and gated.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()


def test_wavelet_block_compiles_without_a_graph_break() -> None:
    block = trained_block(32, grid=14, scales=2, basis="haar", spatial_attention=False)
    x = torch.randn(2, 32, 16, 16, generator=torch.Generator().manual_seed(1))
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), block(x), atol=1e-5, rtol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(compiled(x), block(x), atol=0.05, rtol=0.05)


def test_alpha_weighs_the_background() -> None:
    attention = MultiScaleSpatialAttention(2)
    x = torch.rand(1, 2, 4, 4)
    assert torch.allclose(attention(x), x)
    attention.attention[0].weight.data.fill_(1e3)  # everything is foreground
    attention.alpha.data.fill_(5.0)
    torch.testing.assert_close(attention(x), x)
    attention.beta.data.fill_(2.0)
    torch.testing.assert_close(attention(x), 2 * x)


def test_alpha_weighs_the_foreground_in_the_paper() -> None:
    attention = MultiScaleSpatialAttention(2, formulation="paper")
    x = torch.rand(1, 2, 4, 4)
    assert torch.allclose(attention(x), x)
    attention.attention[0].weight.data.fill_(1e3)
    attention.beta.data.fill_(5.0)
    torch.testing.assert_close(attention(x), x)
    attention.alpha.data.fill_(2.0)
    torch.testing.assert_close(attention(x), 2 * x)


def test_channel_gate_is_half_without_evidence() -> None:
    attention = MultiFrequencyChannelAttention(16)
    attention.fc[2].weight.data.zero_()
    x = torch.rand(1, 16, 5, 9)
    for statistics in (FrequencyStatistics(14), WaveletStatistics(14)):
        assert attention(torch.zeros(1, 16, 5, 9), statistics).shape == (1, 16, 5, 9)
        torch.testing.assert_close(attention(x, statistics), x / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 40, "grid": 14}, "multiple of groups"),
        ({"channels": 32, "grid": 14, "scales": 0}, "scales=0"),
        ({"channels": 32, "grid": 14, "reduction": 64}, "smaller reduction"),
        ({"channels": 32, "grid": 14, "basis": "sym4"}, "unknown basis 'sym4'; choose one of cosine, haar, db2"),
        ({"channels": 32, "grid": 14, "basis": "haar", "selection": "low"}, "selection: low is of cosine .* basis: cosine"),
        ({"channels": 32, "grid": 14, "basis": "db2", "frequencies": 0}, "basis: db2 has no effect with frequencies: 0"),
        ({"channels": 32, "grid": 14, "formulation": "mine"}, "unknown formulation 'mine'; choose one of released, paper"),
        ({"channels": 32, "grid": 14, "formulation": "paper", "min_resolution": 4}, "min_resolution: 4 has no effect"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiFrequencyMultiScaleAttention(**options)
