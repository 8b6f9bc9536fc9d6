import pytest
import torch
from torch import nn
from torch.nn import functional

from madgnet_bench.layers.upsampling import convolve_upsampled

MANY, FEW = 520, 24


def plainly(x, skip, convolution):
    upsampled = functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
    return convolution(torch.cat([upsampled, skip], dim=1))


def case(channels, small, large, *, batch=2):
    torch.manual_seed(0)
    x = torch.randn(batch, channels, *small, requires_grad=True)
    skip = torch.randn(batch, 8, *large, requires_grad=True)
    return x, skip, nn.Conv2d(channels + 8, 5, 3, padding=1)


@pytest.mark.parametrize("channels", [MANY, FEW])
@pytest.mark.parametrize(
    ("small", "large"), [((4, 4), (8, 8)), ((3, 5), (6, 10)), ((1, 1), (2, 2)), ((2, 3), (5, 7)), ((4, 4), (4, 4))]
)
def test_it_is_the_convolution_of_the_joined_maps(channels, small, large):
    x, skip, convolution = case(channels, small, large)
    torch.testing.assert_close(convolve_upsampled(x, skip, convolution), plainly(x, skip, convolution), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [MANY, FEW])
def test_the_gradients_are_those_of_the_plain_form(channels):
    x, skip, convolution = case(channels, (3, 4), (6, 8))
    wanted = [x, skip, convolution.weight, convolution.bias]
    weigh = torch.randn(2, 5, 6, 8)
    ours = torch.autograd.grad((convolve_upsampled(x, skip, convolution) * weigh).sum(), wanted)
    plain = torch.autograd.grad((plainly(x, skip, convolution) * weigh).sum(), wanted)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_under_autocast_the_error_stays_that_of_bfloat16():
    x, skip, convolution = case(MANY, (4, 4), (8, 8))
    exact = plainly(x, skip, convolution)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [(form(x, skip, convolution) - exact).abs().mean().item() for form in (convolve_upsampled, plainly)]
    assert errors[0] < 2 * errors[1]
