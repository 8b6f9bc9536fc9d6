from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract, disc_batch, random_image

from madgnet_bench.errors import ConfigError
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.madgnet import MADGNet

BIAS_BEFORE_BATCH_NORM = r"skip_connection\.\d\.0\.bias|decoder_stage\.\d\.conv[12]\.0\.bias"
"""Batch normalisation subtracts these again: their gradient is zero but for rounding."""


class TestMADGNet(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_madgnet as t;
               print(t.TestMADGNet().golden_values())"
    """

    losses = (StructureLoss(), DiceBCELoss())
    unmoved = BIAS_BEFORE_BATCH_NORM
    golden = (-0.1383313, -0.3034175, 0.6694436, 0.64262, -0.3904916)

    def build(self, num_targets: int = 1, **options: Any) -> MADGNet:
        return MADGNet(num_targets, encoder="resnet10t", frequencies=4, **options)


class TestMultiTaskMADGNet(TestMADGNet):
    """A stage's distance and boundary reach its region map, so the region loss alone moves every parameter.

    The golden values are printed by the same command with TestMultiTaskMADGNet.
    """

    golden = (0.7070251, 0.5417263, 0.6335666, 0.3350836, 0.502177)

    def build(self, num_targets: int = 1, **options: Any) -> MADGNet:
        return super().build(num_targets, supervision="multi_task", **options)


class TestSplitAttentionMADGNet(NetworkContract):
    """The golden values are printed by the same command with TestSplitAttentionMADGNet."""

    trains_on_one_image = False
    unmoved = BIAS_BEFORE_BATCH_NORM + r"|feature_encoding\..*\.fc1\.bias"
    golden = (-0.122651, 0.6128655, 0.3574148, 0.4309781, 0.8521083)

    def build(self, num_targets: int = 1, **options: Any) -> MADGNet:
        return MADGNet(num_targets, encoder="resnest14d", frequencies=2, scales=2, **options)


@pytest.mark.parametrize(("scales", "parameters"), [(1, 32_632_756), (2, 33_103_068), (3, 33_366_372), (4, 33_547_276)])
def test_released_parameter_count(scales: int, parameters: int) -> None:
    with torch.device("meta"):
        network = MADGNet(1, encoder="resnest50d", scales=scales, frequencies=16, supervision="multi_task")
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    parts = {"feature_encoding": 25_434_240, "skip_connection": 119_552, "sub_decoder_stage": 1_452}
    for name, expected in parts.items():
        assert sum(parameter.numel() for parameter in network.get_submodule(name).parameters()) == expected


def test_region_supervision_owns_no_other_head() -> None:
    with torch.device("meta"):
        network = MADGNet(1)
    assert sum(parameter.numel() for parameter in network.parameters()) == 33_366_372 - 2 * 1_452 // 3
    assert network.label == "MADGNet resnest50d"


def test_bases_are_small_and_not_saved() -> None:
    with torch.device("meta"):
        network = MADGNet(1, encoder="resnet10t")
    bases = {name: buffer.numel() for name, buffer in network.named_buffers() if name.endswith("cosines")}
    assert sum(bases.values()) == 6_720
    assert not set(bases) & set(network.state_dict())


@pytest.mark.parametrize(("supervision", "names"), [("region", ["region"]), ("multi_task", ["region", "distance", "boundary"])])
def test_auxiliary_maps(supervision: Any, names: list[str]) -> None:
    network = MADGNet(2, encoder="resnet10t", frequencies=1, supervision=supervision).train()
    output = network(random_image(2, 3, 40, 64))
    assert [list(maps) for maps in output.auxiliary] == [names] * 4
    assert all(logits.shape == (2, 2, 40, 64) for maps in output.auxiliary for logits in maps.values())
    assert torch.equal(output.logits, output.auxiliary[-1]["region"])
    roughness = [maps["region"].diff(dim=-1).diff(dim=-1).abs().mean() for maps in output.auxiliary]
    assert min(roughness) == roughness[0]  # the deepest stage, the coarsest map, comes first


def test_attention_learns_once_alpha_and_beta_differ() -> None:
    network, image = MADGNet(1, encoder="resnet10t", frequencies=1).train(), random_image(2, 3, 64, 64)
    spatial = network.decoder_stage[0].attention_layer.multi_spatial_branches[0]
    DiceBCELoss()(network(image), disc_batch(image, 1))["region_bce_4"].backward()
    assert spatial.attention[0].weight.grad.abs().max() == 0
    assert spatial.alpha.grad != 0
    spatial.alpha.data.fill_(0.5)
    DiceBCELoss()(network(image), disc_batch(image, 1))["region_bce_4"].backward()
    assert spatial.attention[0].weight.grad.abs().max() > 0


def test_split_attention_says_that_it_needs_two_images() -> None:
    network = MADGNet(1, encoder="resnest14d", frequencies=0, scales=1).train()
    with pytest.raises(ValueError, match="at least two images per batch"):
        network(random_image(1, 3, 64, 64))


def test_label_names_departures() -> None:
    network = MADGNet(1, encoder="resnet10t", scales=1, frequencies=0, selection="low", supervision="multi_task")
    assert network.label == "MADGNet resnet10t S1 K0 low multi-task"


def test_imagenet_normalization() -> None:
    network = MADGNet(1, encoder="resnet10t", frequencies=0, scales=1, normalization="imagenet")
    torch.testing.assert_close(network.normalize(torch.full((1, 1, 1, 1), 0.485)).flatten()[0], torch.tensor(0.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supervision": "all"}, "supervision"),
        ({"scales": 0}, "scales=0"),
        ({"frequencies": 33}, "frequencies=33"),
        ({"selection": "high"}, "'high'"),
        ({"min_channels": 8}, "reduction"),
        ({"encoder": "resnest50dd"}, "resnest50d"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MADGNet(1, **{"encoder": "resnet10t", "frequencies": 1, **options})
