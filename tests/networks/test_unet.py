from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract
from torch import Tensor
from torch.nn import functional

from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.unet import UNet


class TestUNet(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_unet as t; print(t.TestUNet().golden_values())"
    """

    losses = (DiceBCELoss(), StructureLoss(), StructureLoss(weighted_bce=True))
    onnx_promised = True
    golden = (0.0291559, -0.0063231, -0.0882722, -0.0888985, 0.0425148)

    def build(self, num_targets: int = 1, **options: Any) -> UNet:
        return UNet(num_targets, widths=(4, 8, 12, 16, 20), **options)

    def plain(self, network: UNet, image: Tensor) -> Tensor:
        return plain_unet(network.state_dict(), image, levels=5)


def twice(values: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Two convolutions with batch normalisation by running statistics and ReLU; each is one affine map."""
    for convolution, norm in ((f"{name}.0", f"{name}.1"), (f"{name}.3", f"{name}.4")):
        scale = values[f"{norm}.weight"] / (values[f"{norm}.running_var"] + 1e-5).sqrt()
        offset = values[f"{norm}.bias"] - values[f"{norm}.running_mean"] * scale
        weight = values[f"{convolution}.weight"] * scale[:, None, None, None]
        x = functional.conv2d(x, weight, offset, padding=1).clamp(min=0)
    return x


def plain_unet(values: dict[str, Tensor], x: Tensor, *, levels: int) -> Tensor:
    skips = []
    for level in range(levels):
        if level:
            n, c, h, w = x.shape
            x = x.view(n, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5))
        x = twice(values, f"down.{level}", x)
        skips.append(x)
    for stage in range(levels - 1):
        n, _, h, w = x.shape
        blocks = torch.einsum("nchw,ckij->nkhiwj", x, values[f"up.{stage}.weight"])  # each pixel becomes a 2 x 2 block
        x = blocks.reshape(n, -1, 2 * h, 2 * w) + values[f"up.{stage}.bias"][:, None, None]
        x = twice(values, f"merge.{stage}", torch.cat([skips[levels - 2 - stage], x], dim=1))
    return torch.einsum("nchw,kc->nkhw", x, values["head.weight"][:, :, 0, 0]) + values["head.bias"][:, None, None]


@pytest.mark.parametrize(("first", "parameters"), [(64, 31_037_633), (32, 7_763_041)])
def test_parameter_count(first: int, parameters: int) -> None:
    with torch.device("meta"):
        network = UNet(1, in_channels=3, widths=[first * 2**level for level in range(5)])
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_label() -> None:
    assert UNet(widths=(4, 8)).label == "UNet 4-8"


def test_other_depths_and_channels() -> None:
    network = UNet(widths=(4, 8, 16), in_channels=2).eval()
    assert network(torch.rand(1, 2, 9, 10)).logits.shape == (1, 1, 9, 10)


@pytest.mark.parametrize("widths", [(64,), (4, 0)])
def test_bad_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths"):
        UNet(widths=widths)
