from __future__ import annotations

import pytest
import torch
from base import NetworkContract, random_image
from torch import Tensor
from torch.nn import functional

from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.attention_unet import AttentionGate, AttentionUNet


class TestAttentionUNet(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_attention_unet as t;
               print(t.TestAttentionUNet().golden_values())"
    """

    losses = (DiceBCELoss(), StructureLoss())
    unmoved = r"(down|merge)\.\d\.[03]\.bias|up\.\d\.1\.bias|gate\.\d\.(signal|skip|psi)\.0\.bias"  # before batch normalisation
    onnx_promised = True
    golden = (-0.0316166, -0.0976944, -0.1761781, -0.1882787, -0.1125807)

    def build(self, num_targets: int = 1, **options: object) -> AttentionUNet:
        return AttentionUNet(num_targets, widths=(4, 6, 8, 10), **options)

    def plain(self, network: AttentionUNet, image: Tensor) -> Tensor:
        return plain_attention_unet(network.state_dict(), image, levels=4)


def convolve(values: dict[str, Tensor], name: str, norm: str, x: Tensor) -> Tensor:
    """A convolution that keeps the size, then batch normalisation by running statistics, in one affine map."""
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    scale = values[f"{norm}.weight"] / (values[f"{norm}.running_var"] + 1e-5).sqrt()
    x = functional.conv2d(x, weight * scale[:, None, None, None], padding=weight.shape[-1] // 2)
    return x + ((bias - values[f"{norm}.running_mean"]) * scale + values[f"{norm}.bias"])[:, None, None]


def twice(values: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = convolve(values, f"{name}.0", f"{name}.1", x).clamp(min=0)
    return convolve(values, f"{name}.3", f"{name}.4", x).clamp(min=0)


def plain_attention_unet(values: dict[str, Tensor], x: Tensor, *, levels: int) -> Tensor:
    skips = []
    for level in range(levels):
        if level:
            n, c, h, w = x.shape
            x = x.view(n, c, h // 2, 2, w // 2, 2).amax(dim=(3, 5))
        x = twice(values, f"down.{level}", x)
        skips.append(x)
    for stage in range(levels - 1):
        skip = skips[levels - 2 - stage]
        g = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        g = convolve(values, f"up.{stage}.1", f"up.{stage}.2", g).clamp(min=0)
        gate = f"gate.{stage}"
        both = convolve(values, f"{gate}.signal.0", f"{gate}.signal.1", g)
        both = both + convolve(values, f"{gate}.skip.0", f"{gate}.skip.1", skip)
        attention = 1 / (1 + torch.exp(-convolve(values, f"{gate}.psi.0", f"{gate}.psi.1", both.clamp(min=0))))
        x = twice(values, f"merge.{stage}", torch.cat([attention * skip, g], dim=1))
    return torch.einsum("nchw,kc->nkhw", x, values["head.weight"][:, :, 0, 0]) + values["head.bias"][:, None, None]


def test_label() -> None:
    assert AttentionUNet(widths=(4, 8)).label == "AttentionUNet 4-8"


def test_gate_weighs_all_channels_alike_and_never_amplifies() -> None:
    torch.manual_seed(0)
    skip, signal = random_image(2, 6, 5, 7), random_image(2, 6, 5, 7, seed=1)
    weighed = AttentionGate(6).eval()(skip, signal)
    ratio = weighed / skip
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert ratio[:, 0].std() > 0


def test_a_gate_of_one_channel() -> None:
    assert AttentionGate(1)(random_image(2, 1, 3, 3), random_image(2, 1, 3, 3)).shape == (2, 1, 3, 3)


@pytest.mark.parametrize("widths", [(64,), (4, 0)])
def test_bad_widths(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="widths"):
        AttentionUNet(widths=widths)
