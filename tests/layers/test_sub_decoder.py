from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from madgnet_bench.layers.attention import Formulation
from madgnet_bench.layers.sub_decoder import EnsembleSubDecoder, Supervision


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


@pytest.mark.parametrize("formulation", ["released", "paper"])
def test_parallel_maps_are_three_upsampled_convolutions(formulation: Formulation) -> None:
    decoder = EnsembleSubDecoder(4, 2, supervision="parallel", formulation=formulation)
    ensemble = EnsembleSubDecoder(4, 2)
    assert {n: p.shape for n, p in decoder.named_parameters()} == {n: p.shape for n, p in ensemble.named_parameters()}
    x = torch.randn(1, 4, 3, 5)
    maps = decoder(x, (12, 20))
    convolutions = (decoder.output_map_conv, decoder.output_distance_conv, decoder.output_boundary_conv)
    assert list(maps) == ["region", "distance", "boundary"]
    for logits, convolution in zip(maps.values(), convolutions, strict=True):
        aligned = formulation == "released"
        expected = functional.interpolate(convolution(x), size=(12, 20), mode="bilinear", align_corners=aligned)
        assert torch.equal(logits, expected)
        (gradient,) = torch.autograd.grad(logits.sum(), convolution.weight, retain_graph=True)
        assert gradient.abs().max() > 0
    maps["region"].sum().backward()
    assert decoder.output_distance_conv.weight.grad is None  # nothing is passed between the maps


def test_paper_streams_gate_the_input_and_add_the_maps() -> None:
    decoder = EnsembleSubDecoder(4, 2, formulation="paper")
    x = 3 * torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    maps = decoder(x, (6, 10))
    for target in range(2):

        def convolve(convolution: torch.nn.Conv2d, gated: torch.Tensor, target: int = target) -> torch.Tensor:
            one = slice(target, target + 1)
            return functional.conv2d(gated, convolution.weight[one], convolution.bias[one])

        region = convolve(decoder.output_map_conv, x)
        distance = convolve(decoder.output_distance_conv, x * region.sigmoid())
        boundary = convolve(decoder.output_boundary_conv, x * distance.sigmoid())
        boundary, distance, region = (
            functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            for logits in (boundary, distance, region)
        )
        expected = {"region": region + distance + boundary, "distance": distance + boundary, "boundary": boundary}
        for name, logits in expected.items():
            torch.testing.assert_close(maps[name][:, target : target + 1], logits)
    maps["region"].sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in decoder.parameters())


def test_paper_region_alone_is_not_aligned() -> None:
    decoder = EnsembleSubDecoder(1, 1, supervision="region", formulation="paper")
    decoder.output_map_conv.weight.data.fill_(1)
    decoder.output_map_conv.bias.data.zero_()
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert decoder(x, (1, 4))["region"].flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("supervision", "formulation"), [("parallel", "released"), ("multi_task", "paper"), ("parallel", "paper")]
)
def test_extreme_values_in_low_precision(supervision: Supervision, formulation: Formulation, dtype: torch.dtype) -> None:
    decoder = EnsembleSubDecoder(2, 1, supervision=supervision, formulation=formulation)
    for parameter in decoder.parameters():
        parameter.data.fill_(0.25)
    x = torch.tensor([[6e4, -6e4], [6e4, 0.0]]).expand(1, 2, 2, 2).clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        maps = decoder(x, (4, 4))
    assert all(logits.isfinite().all() for logits in maps.values())
    assert {logits.dtype for logits in maps.values()} == {torch.float32 if supervision == "multi_task" else dtype}
    sum(logits.float().sigmoid().mean() for logits in maps.values()).backward()
    assert x.grad is not None and x.grad.isfinite().all()
