from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from base import NetworkContract, disc_batch, random_image

from benchmarks.speed.reference_madgnet import ReferenceMADGNet
from madgnet_bench.errors import ConfigError
from madgnet_bench.losses.multi_task import MultiTaskLoss
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.networks.encoders import timm_encoder
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.released import convert_released_weights

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


class TestAblatedMADGNet(NetworkContract):
    """A wavelet, no spatial attention, sub-decoders in parallel; golden values by the same command with TestAblatedMADGNet."""

    losses = (MultiTaskLoss(),)
    unmoved = BIAS_BEFORE_BATCH_NORM
    golden = (0.2935626, 0.2626211, 0.2379932, 0.3409586, 0.3970045)

    def build(self, num_targets: int = 1, **options: Any) -> MADGNet:
        ablations = {"basis": "haar", "spatial_attention": False, "supervision": "parallel"}
        return MADGNet(num_targets, encoder="test_resnet", **ablations, **options)


class TestPaperMADGNet(NetworkContract):
    """The golden values are printed by the same command with TestPaperMADGNet."""

    trains_on_one_image = False
    unmoved = BIAS_BEFORE_BATCH_NORM
    golden = (-0.1373749, -0.2434117, -0.5336576, -0.6208925, -0.3899704)

    def build(self, num_targets: int = 1, **options: Any) -> MADGNet:
        paper = {"formulation": "paper", "supervision": "multi_task"}
        return MADGNet(num_targets, encoder="test_resnet", frequencies=4, **paper, **options)


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
    assert parameter_count(network) == parameters
    parts = {"feature_encoding": 25_434_240, "skip_connection": 119_552, "sub_decoder_stage": 1_452}
    for name, expected in parts.items():
        assert parameter_count(network.get_submodule(name)) == expected


def parameter_count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"frequencies": 1}, 33_366_372),
        ({"frequencies": 32}, 33_366_372),
        ({"basis": "haar"}, 33_366_372),
        ({"supervision": "parallel"}, 33_366_372),
        ({"spatial_attention": False}, 33_366_372 - 2 * 12 - (448 + 224 + 128 + 96)),  # scalars and attention maps
        ({"formulation": "paper"}, 33_366_372 + (16 + 40) * (256**2 + 128**2 + 64**2 + 32**2) // 32),  # 5x5 and 7x7
        ({"encoder": "resnet50"}, 31_440_164),
        ({"encoder": "res2net50d"}, 31_601_484),
    ],
    ids=str,
)
def test_parameter_count_of_ablations(options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        network = MADGNet(1, **{"supervision": "multi_task", **options})
    assert parameter_count(network) == parameters


def test_region_supervision_owns_no_other_head() -> None:
    with torch.device("meta"):
        network = MADGNet(1)
    assert parameter_count(network) == 33_366_372 - 2 * 1_452 // 3
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
    labels = {
        "haar": {"basis": "haar"},
        "K4 db2 no-MSSA parallel paper": {
            "basis": "db2",
            "frequencies": 4,
            "spatial_attention": False,
            "supervision": "parallel",
            "formulation": "paper",
        },
    }
    for label, options in labels.items():
        assert MADGNet(1, encoder="test_resnet", **options).label == f"MADGNet test_resnet {label}"


def test_scalars_are_alpha_and_beta() -> None:
    network = MADGNet(1, encoder="test_resnet", frequencies=0)
    scalars = network.scalars()
    names = [f"{n}/stage{stage}/scale{scale}" for stage in range(1, 5) for scale in range(1, 4) for n in ("alpha", "beta")]
    assert list(scalars) == names
    assert all(value.shape == () and not value.requires_grad and value == 1 for value in scalars.values())
    deepest = network.decoder_stage[0].attention_layer.multi_spatial_branches[2]
    deepest.beta.data.fill_(0.25)
    changed = network.scalars()
    assert {name for name in names if changed[name] != 1} == {"beta/stage1/scale3"}
    assert scalars["beta/stage1/scale3"] == 1  # values, not views
    assert MADGNet(1, encoder="test_resnet", frequencies=1, spatial_attention=False).scalars() == {}


def test_paper_says_that_it_needs_two_images() -> None:
    network = MADGNet(1, encoder="test_resnet", frequencies=0, formulation="paper").train()
    with pytest.raises(ValueError, match=r"the decoder's batch .* images \(1, 3, 64, 64\); use at least two images per batch"):
        network(random_image(1, 3, 64, 64))
    assert network(random_image(1, 3, 80, 64)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supervision": "parallel"}, "checkpoint needs supervision: multi_task, not parallel"),
        ({"basis": "haar"}, "checkpoint needs basis: cosine, not haar"),
        ({"spatial_attention": False}, "checkpoint needs spatial_attention: true, not false"),
        ({"formulation": "paper"}, "checkpoint needs formulation: released, not paper"),
    ],
)
def test_released_weights_are_for_the_released_network(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        MADGNet(1, **{"encoder": "test_resnet", "supervision": "multi_task", "checkpoint": tmp_path / "no.pth", **options})


def test_released_weights_tell_what_an_ablation_lacks() -> None:
    options = {"scales": 1, "frequencies": 1}
    released = ReferenceMADGNet(*timm_encoder("test_resnet"), **options).state_dict()
    ours = {"encoder": "test_resnet", "supervision": "multi_task", **options}
    with pytest.raises(ConfigError, match=r"Likely cause: attention without MSSA: .* spatial_attention: true\.$"):
        convert_released_weights(released, MADGNet(1, spatial_attention=False, **ours))
    with pytest.warns(UserWarning, match="trained with other cosine bases"):
        convert_released_weights(released, MADGNet(1, basis="haar", **ours))


def test_resnet50_is_the_released_encoder() -> None:
    """The released ResNet-50 is torchvision's, name by name."""
    encoder, _ = timm_encoder("resnet50")
    torch.manual_seed(0)
    other = torchvision.models.resnet50().eval()
    encoder.load_state_dict({name: value for name, value in other.state_dict().items() if not name.startswith("fc.")})
    with torch.no_grad():
        x = other.relu(other.bn1(other.conv1(random_image(1, 3, 64, 64))))
        maps, x = [x], other.maxpool(x)
        for layer in (other.layer1, other.layer2, other.layer3, other.layer4):
            x = layer(x)
            maps.append(x)
        for found, expected in zip(encoder.eval()(random_image(1, 3, 64, 64)), maps, strict=True):
            torch.testing.assert_close(found, expected)


def test_res2net50d_has_the_names_of_the_released_encoder() -> None:
    with torch.device("meta"):
        encoder, _ = timm_encoder("res2net50d")
    expected = {f"conv1.{layer}.weight" for layer in (0, 1, 3, 4, 6)} | {f"conv1.{layer}.bias" for layer in (1, 4)}
    expected |= {f"bn1.{part}" for part in ("weight", "bias")}
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            place = f"layer{layer}.{block}"
            norms = ["bn1", *(f"bns.{chunk}" for chunk in range(3)), "bn3"]
            convolutions = ["conv1", *(f"convs.{chunk}" for chunk in range(3)), "conv3"]
            if block == 0:  # place 0 of the shortcut is a pooling
                norms, convolutions = [*norms, "downsample.2"], [*convolutions, "downsample.1"]
            expected |= {f"{place}.{name}.weight" for name in convolutions}
            expected |= {f"{place}.{name}.{part}" for name in norms for part in ("weight", "bias")}
    assert {name for name, _ in encoder.named_parameters()} == expected


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
        ({"basis": "sym4"}, "unknown basis 'sym4'"),
        ({"basis": "haar", "selection": "low"}, "leave selection at its default"),
        ({"basis": "haar", "frequencies": 65}, "frequencies=65"),
        ({"formulation": "mine"}, "unknown formulation 'mine'"),
        ({"formulation": "paper", "min_resolution": 4}, "min_resolution: 4 has no effect"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MADGNet(1, **{"encoder": "resnet10t", "frequencies": 1, **options})
