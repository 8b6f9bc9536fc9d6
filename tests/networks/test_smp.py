from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from base import NetworkContract, random_image

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.smp import SMPNetwork, weights_tag


class TestSMPUnet(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_smp as t; print(t.TestSMPUnet().golden_values())"
    """

    onnx_promised = True
    golden = (-0.3169963, -0.5281544, 0.1400478, 0.064378, -0.5698901)

    def build(self, num_targets: int = 1, **options: Any) -> SMPNetwork:
        return SMPNetwork(num_targets, encoder="test_resnet", options={"decoder_channels": (32, 24, 16, 8, 8)}, **options)


class TestSMPTransformer(NetworkContract):
    """DPT of narrow maps on a plain transformer; golden values by the same command with TestSMPTransformer."""

    golden = (-277.1955928, -429.8897489, 95.5315177, 63.1482767, -328.4045633)

    def build(self, num_targets: int = 1, **options: Any) -> SMPNetwork:
        narrow = {"decoder_intermediate_channels": (8, 8, 16, 16), "decoder_fusion_channels": 16}
        return SMPNetwork(num_targets, architecture="DPT", encoder="test_vit", options=narrow, **options)


@pytest.mark.parametrize(
    ("architecture", "encoder", "multiple"),
    [
        ("UnetPlusPlus", "test_resnet", 32),
        ("DeepLabV3Plus", "test_resnet", 16),
        ("FPN", "test_efficientnet", 32),
        ("MAnet", "test_resnet", 32),
        ("UPerNet", "test_convnext", 32),
        ("Segformer", "pvt_v2_b0", 32),
        ("Segformer", "mit_b0", 32),
        ("Linknet", "test_resnet", 32),
    ],
)
def test_architectures(architecture: str, encoder: str, multiple: int) -> None:
    torch.manual_seed(0)
    network = SMPNetwork(2, architecture=architecture, encoder=encoder)
    assert (network.multiple, network.label) == (multiple, f"smp.{architecture} {encoder}")
    network.train()(random_image(2, 3, 64, 64)).logits.square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    with torch.no_grad():
        for size in ((37, 70), (3, 1)):
            logits = network.eval()(random_image(1, 1, *size)).logits
            assert logits.shape == (1, 2, *size) and logits.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_windows_take_other_sizes(encoder: str) -> None:
    network = SMPNetwork(1, encoder=encoder).eval()
    with torch.no_grad():
        assert network(random_image(1, 3, 100, 70)).logits.isfinite().all()


@pytest.mark.parametrize("architecture", ["DeepLabV3Plus", "UPerNet"])
def test_one_image_is_refused_in_training(architecture: str) -> None:
    network = SMPNetwork(architecture=architecture, encoder="test_resnet").train()
    with pytest.raises(
        ValueError, match=r"images \(1, 3, 64, 64\): its batch normalisation needs at least two images per batch"
    ):
        network(random_image(1, 3, 64, 64))


def test_too_small_for_the_poolings() -> None:
    network = SMPNetwork(architecture="PAN", encoder="test_resnet").eval()
    with pytest.raises(ValueError, match="need larger ones, of at least 128 pixels a side"):
        network(random_image(1, 3, 64, 64))
    assert network(random_image(1, 3, 128, 128)).logits.isfinite().all()


def test_normalization_is_the_encoders_own() -> None:
    for encoder in ("test_vit", "resnet10t", "convnext_atto"):
        network = SMPNetwork(architecture="DPT" if encoder == "test_vit" else "Unet", encoder=encoder)
        described = timm.get_pretrained_cfg(encoder)
        assert network.normalize.mean.tolist() == pytest.approx(described.mean)
        assert network.normalize.std.tolist() == pytest.approx(described.std)
    assert SMPNetwork(encoder="mit_b0").normalize.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_other_channels() -> None:
    network = SMPNetwork(1, encoder="resnet10t", in_channels=4).eval()
    assert network.normalize.mean.tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3] * 4)
    assert network(random_image(1, 4, 40, 40)).logits.shape == (1, 1, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "UNet"}, "no architecture 'UNet'; did you mean 'Unet'"),
        ({"architecture": "DeepLab"}, "did you mean 'DeepLabV3'"),
        ({"architecture": "?"}, "valid: DPT, DeepLabV3, DeepLabV3Plus, FPN, Linknet"),
        ({"architecture": "encoders"}, "no architecture 'encoders'"),
        ({"encoder": "resnet43"}, "encoder 'resnet43'; did you mean 'resnet"),
        ({"encoder": "mit_b9"}, "encoder 'mit_b9'; did you mean 'mit_b"),
        ({"encoder": "?"}, "use one such as resnet34"),
        ({"encoder": "vit_tiny_patch16_224"}, "Unet cannot be built on encoder 'vit_tiny_patch16_224'.*use a hierarchical"),
        ({"encoder": "maxvit_tiny_tf_224"}, "takes images of one size only; use one without such a limit"),
        ({"architecture": "DPT", "encoder": "mit_b0"}, "DPT takes encoders of timm, not 'mit_b0'"),
        (
            {"architecture": "DPT", "encoder": "vit_small_patch14_dinov2"},
            "has them at 1/14; use one with patches of 8, 16 or 32",
        ),
        ({"options": {"decoder_channel": (8,)}}, "Unet has no option 'decoder_channel'; did you mean 'decoder_channels'"),
        ({"options": {"classes": 3}}, "no option 'classes'"),
        ({"encoder": "test_resnet", "options": {"decoder_channels": (8, 8)}}, "Unet cannot be built on encoder 'test_resnet'"),
    ],
)
def test_what_does_not_exist_or_fit_is_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SMPNetwork(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("architecture", "encoder"), [("Unet", "test_resnet"), ("DPT", "test_vit")])
@pytest.mark.parametrize("num_classes", [1000, 0])
def test_local_weights(architecture: str, encoder: str, num_classes: int, tmp_path: Path) -> None:
    whole = timm.create_model(encoder, num_classes=num_classes)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = SMPNetwork(architecture=architecture, encoder=encoder, encoder_checkpoint=tmp_path / "weights.pth")
    loaded, state = network.module.encoder.model.state_dict(), whole.state_dict()
    assert loaded and all(torch.equal(value, state[name]) for name, value in loaded.items())
    assert network.label == f"smp.{architecture} {encoder} pretrained"


def test_local_weights_of_the_librarys_own_encoder(tmp_path: Path) -> None:
    other = SMPNetwork(architecture="Segformer", encoder="mit_b0")
    torch.save(other.module.encoder.state_dict(), tmp_path / "mit.pth")
    network = SMPNetwork(architecture="Segformer", encoder="mit_b0", encoder_checkpoint=tmp_path / "mit.pth")
    for name, value in network.module.encoder.state_dict().items():
        assert torch.equal(value, other.module.encoder.state_dict()[name])


def test_local_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; correct encoder_checkpoint"):
        SMPNetwork(encoder="test_resnet", encoder_checkpoint=tmp_path / "absent.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    for encoder in ("test_resnet", "mit_b0"):
        with pytest.raises(ConfigError, match=r"other.pth cannot be loaded into '\w+': .*Missing key"):
            SMPNetwork(encoder=encoder, encoder_checkpoint=tmp_path / "other.pth")


@pytest.mark.parametrize("encoder", ["resnet10t", "mit_b0"])
def test_pretrained_without_a_network_says_what_to_set(encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"set pretrained: false .* or encoder_checkpoint"):
        SMPNetwork(encoder=encoder, pretrained=True)


def test_weights_tag() -> None:
    assert weights_tag("resnet34.tv_in1k") == "tv_in1k"
    assert weights_tag("resnest50d") == "in1k"
    assert weights_tag("mit_b2") == "in1k"
    assert weights_tag("tu-resnest50d") == "in1k"
    assert weights_tag("convnext_tiny") == timm.get_pretrained_cfg("convnext_tiny").tag
