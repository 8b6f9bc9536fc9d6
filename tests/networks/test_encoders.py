from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.encoders import REDUCTIONS, timm_encoder


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnest14d", [64, 256, 512, 1024, 2048]),
        ("resnet10t", [64, 64, 128, 256, 512]),
        ("mobilenetv2_035", [8, 8, 16, 32, 112]),
        pytest.param("vgg11", [128, 256, 512, 512, 512], marks=pytest.mark.slow),  # its map at full size is left out
    ],
)
def test_levels(name: str, channels: list[int]) -> None:
    encoder, found = timm_encoder(name)
    assert found == channels
    with torch.no_grad():
        maps = encoder.eval()(torch.zeros(1, 3, 64, 64))
    assert [tuple(feature.shape[1:]) for feature in maps] == [
        (width, 64 // reduction, 64 // reduction) for width, reduction in zip(channels, REDUCTIONS, strict=True)
    ]


def test_first_map_is_before_the_max_pooling() -> None:
    encoder, channels = timm_encoder("resnest50d")
    assert channels == [64, 256, 512, 1024, 2048]
    assert encoder.feature_info.module_name()[0] == "act1"


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnest50d'"):
        timm_encoder("resnest50dx")
    with pytest.raises(ConfigError, match="use one such as resnest50d"):
        timm_encoder("?")


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_missing_level_is_explained(name: str) -> None:
    with pytest.raises(ConfigError, match="no feature map at 1/2"):
        timm_encoder(name)


def test_pretrained_without_a_network_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"set pretrained: false .* or encoder_checkpoint") as caught:
        timm_encoder("resnet10t", pretrained=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("num_classes", [1000, 0])
def test_local_weights(name: str, num_classes: int, tmp_path: Path) -> None:
    import timm

    whole = timm.create_model(name, num_classes=num_classes)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    encoder, _ = timm_encoder(name, checkpoint=tmp_path / "weights.pth")
    state = whole.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_local_weights_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        timm_encoder("resnet10t", checkpoint=tmp_path / "absent.pth")
    other, code = tmp_path / "other.pth", tmp_path / "code.pth"
    torch.save({"a": torch.zeros(1)}, other)
    torch.save(inspect.signature, code)
    for path, reason in ((other, "Missing key"), (code, "weights_only|Weights only")):
        with pytest.raises(ConfigError, match=f"{path} cannot be loaded into 'resnet10t': .*({reason})"):
            timm_encoder("resnet10t", checkpoint=path)


def test_importing_networks_does_not_import_timm() -> None:
    code = """
import sys, madgnet_bench.networks.madgnet, madgnet_bench.networks.smp, madgnet_bench.networks.unet_plus_plus
sys.exit(bool({"timm", "segmentation_models_pytorch"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
