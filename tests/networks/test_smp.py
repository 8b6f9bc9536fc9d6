from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

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

    onnx_promised = True
    golden = (-277.1955928, -429.8897489, 95.5315177, 63.1482767, -328.4045633)

    def build(self, num_targets: int = 1, **options: Any) -> SMPNetwork:
        narrow = {"decoder_intermediate_channels": (8, 8, 16, 16), "decoder_fusion_channels": 16}
        return SMPNetwork(num_targets, architecture="DPT", encoder="test_vit", options=narrow, **options)


class SMPContract(NetworkContract):
    """Golden values by the same command with the class's name."""

    architecture: str
    encoder = "test_resnet"
    options: ClassVar[dict[str, Any]] = {}

    def build(self, num_targets: int = 1, **options: Any) -> SMPNetwork:
        return SMPNetwork(num_targets, architecture=self.architecture, encoder=self.encoder, options=self.options, **options)


class TestSMPUnetPlusPlus(SMPContract):
    architecture = "UnetPlusPlus"
    options: ClassVar[dict[str, Any]] = {"decoder_channels": (24, 16, 12, 8, 8)}
    golden = (0.0483184, 0.7085934, 0.5404578, 0.3707736, 0.546223)


class TestSMPDeepLabV3Plus(SMPContract):
    architecture = "DeepLabV3Plus"
    options: ClassVar[dict[str, Any]] = {"decoder_channels": 16}
    trains_on_one_image = False  # the pooled branch is one pixel, which it normalises over the batch
    golden = (-0.0284085, 0.2877283, 0.8307254, 0.3304659, 0.3393562)


class TestSMPFPN(SMPContract):
    architecture, encoder = "FPN", "test_efficientnet"
    options: ClassVar[dict[str, Any]] = {"decoder_pyramid_channels": 32, "decoder_segmentation_channels": 64}
    golden = (-2.2135825, -0.7674061, -5.4746284, -4.4326723, -3.1429279)


class TestSMPMAnet(SMPContract):
    architecture = "MAnet"
    options: ClassVar[dict[str, Any]] = {"decoder_channels": (32, 24, 16, 8, 8), "decoder_pab_channels": 8}
    golden = (-0.0253138, -0.0426156, 0.0242644, 0.0353422, -0.071155)


class TestSMPUPerNet(SMPContract):
    architecture, encoder = "UPerNet", "test_convnext"
    options: ClassVar[dict[str, Any]] = {"decoder_channels": 16}
    trains_on_one_image = False  # as DeepLabV3Plus
    unmoved = r"blocks\.\d\.norm\.weight$"  # ConvNeXt's blocks start scaled by 1e-6: steps are below the last digit of 1
    golden = (-0.8956081, -1.5748491, 3.000787, 2.6842847, -1.9009399)


class TestSMPSegformer(SMPContract):
    architecture, encoder = "Segformer", "pvt_v2_b0"
    options: ClassVar[dict[str, Any]] = {"decoder_segmentation_channels": 16}
    golden = (-0.5668602, -1.7966833, 1.0934342, 1.1482053, -1.277902)


@pytest.mark.parametrize(
    ("architecture", "encoder", "multiple", "options"),
    [
        ("DeepLabV3Plus", "test_resnet", 16, {}),
        ("Segformer", "mit_b0", 32, {}),
        ("Linknet", "test_resnet", 32, {}),
        ("Unet", "test_resnet", 32, {"decoder_attention_type": "scse"}),
        ("UnetPlusPlus", "test_resnet", 32, {"decoder_attention_type": "scse"}),
    ],
)
def test_other_architectures_and_options(architecture: str, encoder: str, multiple: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = SMPNetwork(2, architecture=architecture, encoder=encoder, options=options)
    changes = "".join(f" {key}={value}" for key, value in options.items())
    assert (network.multiple, network.label) == (multiple, f"smp.{architecture} {encoder}{changes}")
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
        ({"encoder": "resnet34.a1_in2k"}, "no weights 'a1_in2k' of encoder 'resnet34'; did you mean 'a1_in1k'"),
        ({"encoder": "se_resnet50"}, "encoder 'se_resnet50'"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
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
