from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract, random_image
from official_sam import official_state
from torch import Tensor
from torch.nn import functional

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_automatic import SAMAutomatic


class AutomaticContract(NetworkContract):
    takes_embedding = True
    options: dict[str, Any]

    def build(self, num_targets: int = 1, **options: Any) -> SAMAutomatic:
        return SAMAutomatic(num_targets, size="tiny", image_size=64, **({"widths": (12, 10, 8, 6)} | self.options | options))

    def plain(self, network: Any, image: Tensor) -> Tensor:
        """The decoder with functions of torch; SAM's encoder is compared in test_sam."""
        x = network.encode(image)
        for block in network.decoder:
            up, first, _, conv, second, _ = block
            x = functional.conv_transpose2d(x, up.weight, up.bias, stride=2)
            for norm in (first, second):
                x = functional.conv2d(x, conv.weight, conv.bias, padding=1) if norm is second else x
                mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
                x = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
                x = functional.gelu(x)
        logits = functional.conv2d(x, network.head.weight, network.head.bias)[..., :43, :]
        return functional.interpolate(logits, size=(64, 96), mode="bilinear")


class TestSAMAutomatic(AutomaticContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_sam_automatic as t; print(t.TestSAMAutomatic().golden_values())"
    """  # noqa: E501

    options: dict[str, Any] = {}  # noqa: RUF012
    onnx_promised = True
    frozen = r"^vision_encoder\."
    golden = (-1.3562835, -0.7175488, 0.6974367, 1.0530553, 1.4436284)


class TestSAMAutomaticWithLoRA(AutomaticContract):
    options: dict[str, Any] = {"train_encoder": "lora", "rank": 2}  # noqa: RUF012
    frozen = r"^vision_encoder\.(?!.*\.qkv\.(down|up)\.)"
    golden = (0.0432172, 0.0931557, -0.6982893, -1.1309169, -1.3878668)


class TestSAMAutomaticFull(AutomaticContract):
    options: dict[str, Any] = {"train_encoder": "full"}  # noqa: RUF012
    golden = TestSAMAutomatic.golden


def test_the_encoder_of_a_whole_sam(tmp_path):
    torch.manual_seed(0)
    sam = SAM(size="tiny", image_size=96)
    torch.save(official_state(sam), tmp_path / "sam.pth")
    network = SAMAutomatic(size="tiny", image_size=96, encoder_checkpoint=str(tmp_path / "sam.pth")).eval()
    same = SAM(size="tiny", image_size=96, checkpoint=str(tmp_path / "sam.pth")).eval()
    image = random_image(2, 3, 50, 80)
    assert torch.equal(network.encode(image), same.encode(image))
    assert network.label == "SAM-style tiny frozen [sam.pth]"
    smaller = SAMAutomatic(size="tiny", image_size=48, encoder_checkpoint=str(tmp_path / "sam.pth"))
    assert smaller.vision_encoder.pos_embed.shape == (1, 3, 3, 32)


def test_weights_of_another_sam_are_refused(tmp_path):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 6, 6, 32)}, tmp_path / "part.pth")
    with pytest.raises(
        ConfigError, match=r"encoder_checkpoint .*part\.pth of SAM tiny does not fit: of \d+ tensors, \d+ missing"
    ):
        SAMAutomatic(size="tiny", image_size=96, encoder_checkpoint=str(tmp_path / "part.pth"))


@pytest.mark.parametrize("widths", [(8, 8, 8), (8, 8, 8, 0)])
def test_bad_widths(widths):
    with pytest.raises(ConfigError, match="four positive numbers"):
        SAMAutomatic(size="tiny", image_size=64, widths=widths)
