from __future__ import annotations

import re
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from base import random_image
from torch import Tensor, nn

from benchmarks.speed.reference_madgnet import ReferenceMADGNet
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.encoders import timm_encoder
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.released import convert_released_weights, read_released_weights

MAPS = ("region", "distance", "boundary")
TINY = "test_resnet"
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "S4 K32 bot": {"scales": 4, "frequencies": 32, "selection": "bot"},
    "S2 K0": {"scales": 2, "frequencies": 0},
    "S1 K1 low": {"scales": 1, "frequencies": 1, "selection": "low"},
}
FAST_SIZES = [(256, 256), (256, 448)]
SLOW_SIZES = [(288, 288), (352, 352), (448, 448), (352, 256)]


def reference_network(encoder: str = TINY, *, num_classes: int = 1, **options: Any) -> ReferenceMADGNet:
    """Random weights and batch statistics that keep maps at a scale of 1, so that an error of 1e-4 is small."""
    torch.manual_seed(0)
    features, channels = timm_encoder(encoder)
    network = ReferenceMADGNet(features, channels, num_classes=num_classes, **options)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics of the one batch that follows
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if re.search(r"alpha_list|beta_list", name):
                parameter.uniform_(0.3, 1.7)
            elif parameter.dim() == 1:
                parameter += 0.2 * torch.randn_like(parameter)
            elif re.search(r"multi_frequency_branches\.\d\.0\.fc", name):
                parameter *= 5  # its inputs are small: let the gates leave 1/2
        brightness = torch.tensor([0.2, 0.6, 1.0, 1.4]).view(4, 1, 1, 1)
        network.train()(random_image(4, 3, 128, 160, seed=1) * brightness)
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= 0.8 + 0.4 * torch.rand_like(norm.running_var)
            norm.momentum = 0.1
    return network.eval()


def ours_with(reference: ReferenceMADGNet, encoder: str = TINY, *, num_targets: int = 1, **options: Any) -> MADGNet:
    network = MADGNet(num_targets, encoder=encoder, supervision="multi_task", **options)
    network.load_state_dict(convert_released_weights(reference.state_dict(), network), strict=True)
    return network.eval()


def training_mode_with_running_statistics(network: nn.Module) -> None:
    """All maps are returned, and batch normalisation uses its running statistics: both networks see the same ones."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def assert_equal_outputs(reference: ReferenceMADGNet, ours: MADGNet, image: Tensor) -> None:
    with torch.no_grad():
        expected, found = reference.eval()(image), ours.eval()(image)
        torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-4)
        assert found.auxiliary == ()
        assert expected.std() > 0.05
        training_mode_with_running_statistics(reference)
        training_mode_with_running_statistics(ours)
        expected, found = reference(image), ours(image)
    torch.testing.assert_close(found.logits, expected[3][0], rtol=0, atol=1e-4)
    assert len(found.auxiliary) == len(expected) == 4
    for stage, maps in zip(expected, found.auxiliary, strict=True):
        for name, value in zip(MAPS, stage, strict=True):
            torch.testing.assert_close(maps[name], value, rtol=0, atol=1e-4)
            assert value.shape[2:] == image.shape[2:]
            assert value.std() > 0.05


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def pair(request: pytest.FixtureRequest) -> tuple[ReferenceMADGNet, MADGNet]:
    options = CONFIGURATIONS[request.param]
    reference = reference_network(**options)
    return reference, ours_with(reference, **options)


@pytest.mark.parametrize(
    "size", [*FAST_SIZES, *(pytest.param(size, marks=pytest.mark.slow) for size in SLOW_SIZES)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_equal_outputs(pair: tuple[ReferenceMADGNet, MADGNet], size: tuple[int, int]) -> None:
    assert_equal_outputs(*pair, random_image(1, 3, *size))


@pytest.mark.slow
def test_equal_outputs_of_the_released_configuration(tmp_path: Path) -> None:
    reference = reference_network("resnest50d")
    assert sum(parameter.numel() for parameter in reference.parameters()) == 33_366_372
    bases = [buffer.numel() for name, buffer in reference.named_buffers() if "dct_weight_" in name]
    assert 29.8e6 < sum(bases) < 30e6
    torch.save({"model_state_dict": reference.state_dict()}, tmp_path / "released.pth.tar")
    ours = MADGNet(checkpoint=tmp_path / "released.pth.tar", pretrained=True, supervision="multi_task")
    assert ours.label == "MADGNet resnest50d released-weights multi-task"
    assert_equal_outputs(reference, ours, random_image(1, 3, 352, 256))


def test_equal_gradients_and_batch_statistics() -> None:
    reference = reference_network(scales=2, frequencies=3, num_classes=2)
    ours = ours_with(reference, scales=2, frequencies=3, num_targets=2)
    image = random_image(2, 3, 64, 96)
    stages = reference.double().train()(image.double())
    output = ours.double().train()(image.double())
    sum((0.1 * value).tanh().mean() for stage in stages for value in stage).backward()
    sum((0.1 * value).tanh().mean() for maps in output.auxiliary for value in maps.values()).backward()
    gradients = {name: value.grad for name, value in reference.named_parameters()}
    converted = convert_released_weights({**reference.state_dict(), **gradients}, ours)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, converted[name], rtol=1e-6, atol=1e-9, msg=name)
    for name, buffer in ours.named_buffers():
        if name in converted:
            torch.testing.assert_close(buffer, converted[name], msg=name)


@pytest.fixture(scope="module")
def small() -> ReferenceMADGNet:
    return reference_network(scales=2, frequencies=2)


@pytest.fixture()
def saved(small: ReferenceMADGNet, tmp_path: Path) -> Path:
    path = tmp_path / "model_weight(EPOCH 200).pth.tar"
    torch.save({"model_state_dict": small.state_dict(), "epoch": 200, "note": "plain values load"}, path)
    return path


def small_network(**options: Any) -> MADGNet:
    return MADGNet(**{"encoder": TINY, "scales": 2, "frequencies": 2, "supervision": "multi_task", **options})


def test_names_are_the_released_ones(small: ReferenceMADGNet) -> None:
    part = "decoder_stage1.attention_layer."
    released = {name.removeprefix(part) for name in small.state_dict() if name.startswith(part)}
    branches = [f"multi_scale_branches.{scale}." for scale in (0, 1)]
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{branch}{layer}.weight" for branch in branches for layer in (0, 3)}
    expected |= {f"{branch}{layer}.{name}" for branch in branches for layer in (1, 4) for name in statistics}
    expected |= {f"multi_frequency_branches.{scale}.0.fc.{layer}.weight" for scale in (0, 1) for layer in (0, 2)}
    expected |= {f"multi_frequency_branches.{scale}.0.dct_weight_{index}" for scale in (0, 1) for index in (0, 1)}
    expected |= {f"multi_frequency_branches_conv1.{scale}.0.weight" for scale in (0, 1)}
    expected |= {f"multi_frequency_branches_conv2.{scale}.0.weight" for scale in (0, 1)}
    expected |= {f"multi_frequency_branches_conv2.{scale}.1.{name}" for scale in (0, 1) for name in statistics}
    expected |= {f"{name}_list.{scale}" for name in ("alpha", "beta") for scale in (0, 1)}
    assert released == expected
    tops = {re.sub(r"\d", "", name.partition(".")[0]) for name in small.state_dict()}
    assert tops == {"feature_encoding", "skip_connection", "decoder_stage", "sub_decoder_stage"}
    assert small.decoder_stage1.conv1[0].in_channels == 96 + 64  # stage 1 is the deepest


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bases", [True, False])
def test_every_tensor_arrives(small: ReferenceMADGNet, prefix: str, bases: bool) -> None:
    weights = {prefix + name: value for name, value in small.state_dict().items() if bases or "dct_weight_" not in name}
    network = small_network()
    converted = convert_released_weights(weights, network)
    assert list(converted) == list(network.state_dict())
    kept = [value for name, value in weights.items() if "dct_weight_" not in name]
    assert {id(value) for value in converted.values()} == {id(value) for value in kept}
    spatial = converted["decoder_stage.2.attention_layer.multi_spatial_branches.1.beta"]
    assert spatial is weights[f"{prefix}decoder_stage3.attention_layer.beta_list.1"]


def test_checkpoint_of_a_file(small: ReferenceMADGNet, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("madgnet_bench.networks.encoders._with_weights", lambda *_: pytest.fail("looked for other weights"))
    network = small_network(checkpoint=saved, pretrained=True, encoder_checkpoint="nowhere.pth")
    assert network.label == f"MADGNet {TINY} released-weights S2 K2 multi-task"
    image = random_image(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image).logits, small.eval()(image), rtol=0, atol=1e-4)


def test_checkpoint_needs_all_maps(saved: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint needs supervision: multi_task, not region"):
        small_network(checkpoint=saved, supervision="region")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scales": 3},
            r"\d+ missing: decoder_stage1\.attention_layer\.\S*\.2\..* more\. Likely cause: another S: set scales\.",
        ),
        ({"scales": 1}, r"\d+ unexpected: decoder_stage1\.attention_layer\..* more\. Likely cause: another S: set scales\."),
        (
            {"frequencies": 0},
            r"16 unexpected: .*multi_frequency_branches\.0\.0\.fc\.0.* Likely cause: attention with or without",
        ),
        (
            {"num_targets": 2},
            r"24 of another shape: .*\(1, 256, 1, 1\) \(network: \(2, 256, 1, 1\)\).* cause: another number of classes",
        ),
        ({"encoder": "resnet10t"}, r"unexpected: feature_encoding.*of another shape: .*Likely cause: another encoder.*\)\.$"),
        ({"supervision": "region"}, r"16 unexpected: sub_decoder_stage1\.output_distance_conv.*supervision: multi_task\.$"),
        ({"min_channels": 64}, r"of another shape: .*attention_layer.*Likely cause: .*min_channels\.$"),
    ],
)
def test_strictness_names_weights_and_cause(small: ReferenceMADGNet, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        convert_released_weights(small.state_dict(), small_network(**options), where="weights x")
    assert str(caught.value).startswith("weights x do not fit the network")
    assert len(str(caught.value)) < 1000


def test_strictness_over_single_names(small: ReferenceMADGNet) -> None:
    network, weights = small_network(), small.state_dict()
    name = "skip_connection2.1.num_batches_tracked"
    less = {key: value for key, value in weights.items() if key != name}
    with pytest.raises(ConfigError, match=rf"1 missing: {re.escape(name)}\. Likely cause: not the weights of a released"):
        convert_released_weights(less, network)
    with pytest.raises(ConfigError, match=r"1 unexpected: head\.weight\."):
        convert_released_weights({**weights, "head.weight": torch.ones(1)}, network)
    with pytest.raises(ConfigError, match=r"1 unexpected: my_dct_weight_1\."):
        convert_released_weights({**weights, "my_dct_weight_1": torch.ones(1)}, network)
    with pytest.raises(ConfigError, match="with and without a leading 'module"):
        convert_released_weights({**weights, f"module.{name}": torch.ones(1)}, network)
    with pytest.raises(ConfigError, match="Likely cause: not the weights of a released MADGNet"):
        convert_released_weights(nn.Linear(1, 1).state_dict(), network)
    with pytest.raises(ConfigError, match="do not fit the network"):  # our own names are not the released ones
        convert_released_weights(network.state_dict(), network)


@pytest.mark.parametrize("options", [{"frequencies": 3}, {"frequencies": 1}, {"selection": "low", "frequencies": 3}])
def test_other_bases_are_told_by_a_warning_and_by_the_outputs(options: dict[str, Any]) -> None:
    reference = reference_network(scales=1, frequencies=3 if "selection" in options else 2)
    network = MADGNet(encoder=TINY, scales=1, supervision="multi_task", **options)
    with pytest.warns(UserWarning, match="set frequencies and selection as in training"):
        network.load_state_dict(convert_released_weights(reference.state_dict(), network))
    image = random_image(1, 3, 64, 64)
    with torch.no_grad():
        assert (network.eval()(image).logits - reference(image)).abs().max() > 1e-3


def test_refused_objects_are_named_with_the_conversion(small: ReferenceMADGNet, tmp_path: Path) -> None:
    content = {"model_state_dict": small.state_dict(), "args": types.SimpleNamespace(lr=1e-4), "where": Path("x")}
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ConfigError, match=r"types\.SimpleNamespace") as caught:
            read_released_weights(path)
        assert "\n" not in str(caught.value)
        assert all(part in str(caught.value) for part in (str(path), "docs/released_checkpoints.md", "model_state_dict"))
        assert not zipped or "pathlib." in str(caught.value)  # all of them, where the file allows
        everything = torch.load(path, map_location="cpu", weights_only=False)  # the documented conversion
        torch.save({"model_state_dict": everything["model_state_dict"]}, tmp_path / "converted.pth")
        assert small_network(checkpoint=tmp_path / "converted.pth").label


def test_nothing_of_a_file_is_executed(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"model_state_dict": Touch()}, tmp_path / "bad.pth")
    with pytest.raises(ConfigError, match="can run code"):
        read_released_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "touched").exists()


def test_files_that_are_no_checkpoints(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    for name, content in {
        "cut": whole[:-100],
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "page": b"<!DOCTYPE html>",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{name} cannot be read \(.+\): the file is truncated, damaged or no") as caught:
            read_released_weights(tmp_path / name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    for missing in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(ConfigError, match="no such file; correct checkpoint"):
            small_network(checkpoint=missing)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "epoch": 1}, "hold the keys state_dict, epoch, not 'model_state_dict'.*--ckpt_path"),
        ([torch.ones(1)], "hold a list, not 'model_state_dict'"),
        ({"model_state_dict": [1]}, "must hold tensors by name"),
        ({"model_state_dict": OrderedDict(a=1)}, "must hold tensors by name"),
        ({"model_state_dict": {1: torch.ones(1)}}, "must hold tensors by name"),
    ],
)
def test_checkpoints_of_another_layout(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=message):
        read_released_weights(tmp_path / "other.pth")
