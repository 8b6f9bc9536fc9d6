from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract

from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.unet import UNet


class TestUNet(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_unet as t; print(t.TestUNet().golden_values())"
    """

    losses = (DiceBCELoss(), StructureLoss(), StructureLoss(weighted_bce=True))
    golden = (0.0291559, -0.0063231, -0.0882722, -0.0888985, 0.0425148)

    def build(self, num_targets: int = 1, **options: Any) -> UNet:
        return UNet(num_targets, widths=(4, 8, 12, 16, 20), **options)


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
