from __future__ import annotations

import torch
from torch.nn import functional

from madgnet_bench.layers.sub_decoder import EnsembleSubDecoder


def test_region_alone() -> None:
    decoder = EnsembleSubDecoder(4, 2, supervision="region")
    x = torch.randn(1, 4, 3, 5)
    maps = decoder(x, (12, 20))
    assert list(maps) == ["region"]
    expected = functional.interpolate(decoder.output_map_conv(x), scale_factor=4, mode="bilinear", align_corners=True)
    torch.testing.assert_close(maps["region"], expected)
    assert [name for name, _ in decoder.named_parameters()] == ["output_map_conv.weight", "output_map_conv.bias"]


def test_streams() -> None:
    decoder = EnsembleSubDecoder(1, 1)
    for convolution, bias in (
        (decoder.output_map_conv, 0.5),
        (decoder.output_distance_conv, -1),
        (decoder.output_boundary_conv, 2),
    ):
        convolution.weight.data.zero_()
        convolution.bias.data.fill_(bias)
    maps = decoder(torch.rand(1, 1, 2, 2), (4, 4))
    distance = -1 * torch.tensor(0.5).sigmoid()
    boundary = 2 * distance.sigmoid()
    full_distance = distance + boundary.sigmoid()
    full_region = 0.5 + full_distance.sigmoid()
    for name, value in (("boundary", boundary), ("distance", full_distance), ("region", full_region)):
        torch.testing.assert_close(maps[name], value.expand(1, 1, 4, 4))


def test_corners_are_aligned() -> None:
    decoder = EnsembleSubDecoder(1, 1, supervision="region")
    decoder.output_map_conv.weight.data.fill_(1)
    decoder.output_map_conv.bias.data.zero_()
    x = torch.tensor([[[[0.0, 3.0]]]]).expand(1, 1, 2, 2)
    assert decoder(x, (2, 4))["region"][0, 0, 0].tolist() == [0, 1, 2, 3]


def test_every_task_gets_a_gradient_from_the_region() -> None:
    decoder = EnsembleSubDecoder(3, 2)
    decoder(torch.randn(1, 3, 4, 4), (8, 8))["region"].sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in decoder.parameters())
