from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract, random_image
from torch import Tensor, nn

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.wrapper import WrappedNetwork


class Foreign(nn.Module):
    """A third party's network: strided, so that it returns a smaller map, in one of several containers."""

    def __init__(self, classes: int, container: str = "tensor") -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, classes, 3, padding=1)
        self.container = container

    def forward(self, x: Tensor) -> Any:
        logits = self.second(self.first(x).relu())
        containers = {"out": {"aux": 0, "out": logits}, "logits": {"logits": logits}, "tuple": (logits, 0), "bad": {"a": 1}}
        return containers.get(self.container, logits)


class TestWrappedNetwork(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_wrapper as t;
               print(t.TestWrappedNetwork().golden_values())"
    """

    golden = (0.0694559, -0.5420061, -0.4821056, -0.2385155, -0.416161)

    def build(self, num_targets: int = 1, **options: Any) -> WrappedNetwork:
        return WrappedNetwork(num_targets, module=Foreign, multiple=8, **options)


@pytest.mark.parametrize("container", ["tensor", "out", "logits", "tuple"])
def test_containers(container: str) -> None:
    network = WrappedNetwork(2, module=lambda classes: Foreign(classes, container)).eval()
    assert network(random_image(1, 1, 9, 7)).logits.shape == (1, 2, 9, 7)


def test_label() -> None:
    assert WrappedNetwork(1, module=Foreign).label == "Foreign"
    assert WrappedNetwork(1, module=Foreign, name="Mine").label == "Mine"


def test_unfit_modules_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"returned a dict with the keys \['a'\]"):
        WrappedNetwork(1, module=lambda classes: Foreign(classes, "bad"))(random_image(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="build it with 2 output channels"):
        WrappedNetwork(2, module=Foreign(3))(random_image(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="built a int"):
        WrappedNetwork(2, module=lambda classes: classes)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="multiple=0"):
        WrappedNetwork(2, module=Foreign, multiple=0)


def test_volumes() -> None:
    network = WrappedNetwork(2, module=lambda classes: nn.Conv3d(1, classes, 2, stride=2), in_channels=1, multiple=2)
    assert network(random_image(1, 1, 5, 6, 7)).logits.shape == (1, 2, 5, 6, 7)


def test_torchvision() -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    network = WrappedNetwork(
        2, module=lambda classes: segmentation.lraspp_mobilenet_v3_large(num_classes=classes, weights_backbone=None)
    ).eval()
    with torch.no_grad():
        assert network(random_image(1, 3, 45, 70)).logits.shape == (1, 2, 45, 70)


@pytest.mark.parametrize(
    ("module", "label"),
    [
        ({"class_path": "test_wrapper.Foreign", "init_args": {"container": "out"}}, "Foreign"),
        (
            {
                "class_path": "torchvision.models.segmentation.lraspp_mobilenet_v3_large",
                "init_args": {"num_classes": 2, "weights_backbone": None},
            },
            "LRASPP",
        ),
    ],
)
def test_configured_by_class_path(module: dict[str, Any], label: str) -> None:
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WrappedNetwork, "network")
    config = parser.parse_object({"network": {"num_targets": 2, "module": module}})
    network = parser.instantiate(config).network.eval()
    assert network.label == label
    with torch.no_grad():
        assert network(random_image(1, 3, 64, 64)).logits.shape == (1, 2, 64, 64)
