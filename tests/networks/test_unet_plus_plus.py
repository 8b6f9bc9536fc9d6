from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract, disc_batch, random_image
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError
from madgnet_bench.losses.multi_task import MultiTaskLoss
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.unet_plus_plus import UNetPlusPlus

BIAS_BEFORE_BATCH_NORM = r"down\.\d\.[03]\.bias|nested\.\d\.\d\.[03]\.bias"

MEAN_OF_HEADS = MultiTaskLoss(region=DiceBCELoss(), distance_weight=0, boundary_weight=0, stage_weights=(1 / 3, 1 / 3, 1 / 3))


class TestUNetPlusPlus(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_unet_plus_plus as t;
               print(t.TestUNetPlusPlus().golden_values())"
    """

    losses = (DiceBCELoss(), StructureLoss())
    unmoved = BIAS_BEFORE_BATCH_NORM
    onnx_promised = True
    golden = (0.2631392, 0.2579986, -0.1438109, -0.1465572, 0.275502)

    def build(self, num_targets: int = 1, **options: Any) -> UNetPlusPlus:
        return UNetPlusPlus(num_targets, widths=(6, 8, 10, 12), **options)

    def plain(self, network: Any, image: Tensor) -> Tensor:
        return plain_nodes(network, image)[0, 3]


class TestDeepUNetPlusPlus(TestUNetPlusPlus):
    """The golden values are printed by the same command with TestDeepUNetPlusPlus."""

    losses = (MEAN_OF_HEADS, DiceBCELoss())
    golden = (0.2520767, 0.2320701, -0.0234142, -0.0532378, 0.2491106)

    def build(self, num_targets: int = 1, **options: Any) -> UNetPlusPlus:
        return super().build(num_targets, deep_supervision=True, **options)

    def plain(self, network: Any, image: Tensor) -> Tensor:
        heads = plain_nodes(network, image)
        mean = sum(heads[0, column].sigmoid() for column in (1, 2, 3)) / 3
        return (mean / (1 - mean)).log()


def plain_nodes(network: UNetPlusPlus, image: Tensor) -> dict[tuple[int, int], Tensor]:
    """Logits of node (0, j) by j: the recursion of the paper, node by node, with the network's own convolutions."""

    def node(level: int, column: int) -> Tensor:
        if column == 0:
            x = functional.max_pool2d(node(level - 1, 0), 2) if level else image
            return network.down[level](x)
        earlier = [node(level, before) for before in range(column)]
        return network.nested[column - 1][level](torch.cat([*earlier, corners_aligned(node(level + 1, column - 1))], dim=1))

    columns = range(1, len(network.widths))
    heads: list[Any] = list(network.heads) if len(network.heads) > 1 else [None] * (len(columns) - 1) + [network.heads[0]]
    return {(0, column): head(node(0, column)) for column, head in zip(columns, heads, strict=True) if head is not None}


def corners_aligned(x: Tensor) -> Tensor:
    """Twice the sides by linear interpolation, written as a matrix per axis."""

    def matrix(side: int) -> Tensor:
        places = torch.arange(2 * side, dtype=x.dtype) * (side - 1) / (2 * side - 1)
        return (1 - (places[:, None] - torch.arange(side, dtype=x.dtype)).abs()).clamp(min=0)

    return matrix(x.shape[2]) @ x @ matrix(x.shape[3]).T


def parameters(**options: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNetPlusPlus(1, **options).parameters())


def test_parameter_counts() -> None:
    assert parameters(deep_supervision=True) == 9_163_428
    assert parameters(widths=(64, 128, 256, 512, 1024)) == 36_629_633


def test_node_channels_are_those_of_the_paper() -> None:
    network = UNetPlusPlus(1, widths=(2, 3, 4, 5, 6))
    blocks = {(level, 1 + column): b for column, nodes in enumerate(network.nested) for level, b in enumerate(nodes)}
    assert set(blocks) == {(i, j) for j in range(1, 5) for i in range(5 - j)}
    for (level, column), block in blocks.items():
        assert isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv2d)
        assert block[0].in_channels == column * network.widths[level] + network.widths[level + 1]
        assert block[0].out_channels == network.widths[level]


def test_heads_are_supervised_from_the_deepest_to_the_shallowest() -> None:
    torch.manual_seed(0)
    network, image = UNetPlusPlus(2, widths=(4, 6, 8, 10), deep_supervision=True).train(), random_image(2, 3, 32, 48)
    output = network(image)
    assert [list(maps) for maps in output.auxiliary] == [["region"]] * 3
    terms = MEAN_OF_HEADS(output, disc_batch(image, 2))
    assert sorted(terms) == [f"region_{name}_{head}" for name in ("bce", "dice") for head in (1, 2, 3)]
    one = DiceBCELoss()(output._replace(logits=output.auxiliary[2]["region"], auxiliary=()), disc_batch(image, 2))
    torch.testing.assert_close(terms["region_bce_3"], one["region_bce"] / 3)
    terms["region_bce_3"].backward()  # the last head is that of a U-Net of two levels
    assert [level for level, block in enumerate(network.down) if block[0].weight.grad is not None] == [0, 1]


def test_the_average_is_of_probabilities_and_stays_finite() -> None:
    torch.manual_seed(0)
    network = UNetPlusPlus(1, widths=(2, 2, 2), deep_supervision=True).eval()
    for head, bias in zip(network.heads, (300.0, -300.0), strict=True):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, bias)
    image = random_image(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(image).logits, torch.zeros(1, 1, 8, 8))  # one half
        nn.init.constant_(network.heads[0].bias, -200.0)
        assert network(image).logits.isfinite().all()
        assert network(image).logits.max() < -100


def test_the_last_head_alone() -> None:
    torch.manual_seed(0)
    network = UNetPlusPlus(1, widths=(2, 3, 4), deep_supervision=True, inference="last")
    output = network.train()(random_image(2, 3, 16, 16))
    assert torch.equal(output.logits, output.auxiliary[0]["region"])
    assert len(output.auxiliary) == 2
    assert network.eval()(random_image(1, 3, 16, 16)).auxiliary == ()


def test_labels() -> None:
    widths = (4, 8)
    assert UNetPlusPlus(widths=widths).label == "UNet++ 4-8"
    assert UNetPlusPlus(widths=widths, deep_supervision=True).label == "UNet++ 4-8 deep"
    assert UNetPlusPlus(widths=widths, deep_supervision=True, inference="last").label == "UNet++ 4-8 deep last-head"


def test_bad_options() -> None:
    for widths in ((64,), (4, 0)):
        with pytest.raises(ValueError, match="widths"):
            UNetPlusPlus(widths=widths)
    with pytest.raises(ConfigError, match="unknown inference 'mean'; choose one of average, last"):
        UNetPlusPlus(inference="mean", deep_supervision=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no effect on a single head"):
        UNetPlusPlus(inference="last")
