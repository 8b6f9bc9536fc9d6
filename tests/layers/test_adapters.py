from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from madgnet_bench.layers.adapters import AdaptedMLP, BottleneckAdapter, SpatialChannelAdapter


def test_a_bottleneck_adapter_starts_at_zero_and_is_parallel():
    torch.manual_seed(0)
    mlp, adapter = nn.Linear(8, 8), BottleneckAdapter(8, bottleneck=3)
    block, x = AdaptedMLP(mlp, adapter), torch.rand(2, 4, 4, 8)
    assert torch.equal(block(x), mlp(x))
    nn.init.normal_(adapter.up.weight)
    torch.testing.assert_close(block(x) - mlp(x), 0.1 * functional.linear(adapter.down(x).relu(), adapter.up.weight))


def test_the_adapter_of_sam_med2d_by_its_definition():
    torch.manual_seed(0)
    adapter, x = SpatialChannelAdapter(8), torch.rand(2, 4, 6, 8)
    found = adapter(x)
    for case in range(2):
        mean = x[case].reshape(24, 8).mean(0)
        gate = torch.sigmoid(adapter.channel[2].weight @ torch.relu(adapter.channel[0].weight @ mean))
        planes = (x[case] * gate).permute(2, 0, 1)[None]
        planes = functional.relu(functional.conv2d(planes, adapter.spatial[0].weight, stride=2, padding=1))
        planes = functional.relu(functional.conv_transpose2d(planes, adapter.spatial[2].weight, stride=2, padding=1))
        expected = functional.layer_norm(x[case] + planes[0].permute(1, 2, 0), (8,))
        torch.testing.assert_close(found[case], expected)
    assert found.std().item() == pytest.approx(1, abs=0.05)


def test_its_number_of_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in SpatialChannelAdapter(768).parameters()) == 15_042_048


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="multiple of 4"):
        SpatialChannelAdapter(6)
    with pytest.raises(ValueError, match="3 x 4 tokens is odd"):
        SpatialChannelAdapter(8)(torch.rand(1, 3, 4, 8))
    with pytest.raises(ValueError, match="bottleneck"):
        BottleneckAdapter(8, bottleneck=0)
