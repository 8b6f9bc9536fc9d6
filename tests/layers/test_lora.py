from __future__ import annotations

import pytest
import torch
from torch import nn

from madgnet_bench.layers.lora import LoRALinear


def lora(**options):
    torch.manual_seed(0)
    return LoRALinear(nn.Linear(8, 24), **({"rank": 2, "parts": [(16, 24), (0, 8)]} | options))


def test_it_starts_as_the_layer_it_wraps():
    layer, x = lora(), torch.rand(3, 5, 8)
    assert torch.equal(layer(x), layer.linear(x))


@pytest.mark.parametrize("parts", [None, [(16, 24), (0, 8)], [(4, 12)]])
def test_it_equals_a_layer_with_the_product_added(parts):
    layer, x = lora(parts=parts, alpha=6.0), torch.rand(3, 5, 8)
    for up in layer.up:
        nn.init.normal_(up)
    weight = layer.linear.weight.clone()
    for (start, stop), down, up in zip(layer.parts, layer.down, layer.up, strict=True):
        weight[start:stop] += 6.0 / 2 * up @ down
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.linear.bias))


def test_only_the_update_learns():
    layer = lora()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        layer(torch.rand(4, 8)).square().sum().backward()
        optimizer.step()
    moved = {name for name, value in layer.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"down.0", "down.1", "up.0", "up.1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0"),
        ({"rank": 8}, "rank 8"),
        ({"parts": [(20, 25)]}, "part 20:25"),
        ({"parts": [(8, 8)]}, "part 8:8"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        lora(**options)


def test_parts_that_overlap_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        LoRALinear(nn.Linear(8, 24), rank=2, parts=[(0, 12), (8, 24)])
