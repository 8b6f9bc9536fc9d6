from __future__ import annotations

from typing import Any

import pytest
import torch
from base import NetworkContract, random_image
from official_sam import official_names, official_state
from test_sam import prompts_of
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import Context
from madgnet_bench.data.embeddings import EmbeddingCache
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam_med2d import SAMMed2D


def tiny(num_targets: int = 1, **options: Any) -> SAMMed2D:
    return SAMMed2D(num_targets, size="tiny", image_size=64, **options)


class TestSAMMed2D(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_sam_med2d as t; print(t.TestSAMMed2D().golden_values())"
    """  # noqa: E501

    takes_embedding = True
    onnx_promised = False  # prompts are checked by their values
    compile_promised = False  # for the same reason
    frozen = r"^vision_encoder\.(?!.*\.adapter\.)|^prompt_encoder\.|iou_prediction_head|output_hypernetworks_mlps\.[123]\."
    unmoved = r"\.k_proj\.bias$"  # what is added to all keys cancels in the softmax
    golden = (-0.213961, 0.6047673, 0.4190156, 0.5851007, 0.1107998)

    def build(self, num_targets: int = 1, **options: Any) -> SAMMed2D:
        self.targets = num_targets
        return tiny(num_targets, **options)

    def context(self, image: Tensor) -> Context:
        return Context(prompts=prompts_of(image, self.targets))

    def composed(self, network: Any, image: Tensor) -> Tensor:
        prompts = self.context(image).prompts
        return network.decode(network.encode(image), image.shape[2:], prompts=prompts).logits


def test_parameters_at_full_size():
    with torch.device("meta"):
        network = SAMMed2D()
        count = {name: value.numel() for name, value in network.named_parameters()}
        assert network.eval()(torch.empty(1, 3, 352, 352)).logits.shape == (1, 1, 352, 352)
    assert sum(count.values()) == 271_241_776
    assert sum(value for name, value in count.items() if ".adapter." in name) == 180_504_576
    assert sum(value for name, value in count.items() if name.startswith("vision_encoder.")) == 267_177_216
    assert len(network.state_dict()) == len(official_names(12, adapters=True)) == 386


def test_a_block_adds_mlp_and_adapter_of_the_same_tokens():
    torch.manual_seed(0)
    network = tiny().eval()
    layer, x = network.vision_encoder.layers[1], torch.rand(2, 4, 4, 32)
    seen = {}
    layer.attn.register_forward_hook(lambda module, inputs, output: seen.update(attention=output[0]))
    with torch.no_grad():
        found = layer(x)
        middle = x + seen["attention"]
        tokens = layer.layer_norm2(middle)
        mlp, adapter = layer.mlp.mlp, layer.mlp.adapter
        expected = middle + mlp.lin2(functional.gelu(mlp.lin1(tokens))) + adapter(tokens)
    torch.testing.assert_close(found, expected)


def test_the_released_file_is_loaded_by_its_names(tmp_path):
    torch.manual_seed(0)
    network = tiny()
    state = official_state(network, adapters=True)
    optimizer = torch.optim.Adam(network.parameters())  # the released training saves the object beside the weights
    torch.save({"model": state, "optimizer": optimizer}, tmp_path / "sam-med2d_b.pth")
    loaded = tiny(checkpoint=str(tmp_path / "sam-med2d_b.pth"))
    adapter = loaded.vision_encoder.layers[1].mlp.adapter
    assert torch.equal(adapter.spatial[2].weight, state["image_encoder.blocks.1.Adapter.spatial.2.weight"])
    assert torch.equal(loaded.vision_encoder.layers[0].mlp.mlp.lin2.bias, state["image_encoder.blocks.0.mlp.lin2.bias"])
    assert torch.equal(
        loaded.mask_decoder.transformer.layers[1].mlp.lin1.bias, state["mask_decoder.transformer.layers.1.mlp.lin1.bias"]
    )
    assert loaded.label == "SAM-Med2D tiny adapter [sam-med2d_b.pth]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("image_encoder.blocks.1.Adapter.norm.bias"),
            r"1 missing \(vision_encoder.layers.1.mlp.adapter.norm.bias\)",
        ),
        (lambda s: s.update(more=torch.zeros(1)), r"1 unexpected \(more\)"),
        (
            lambda s: s.update({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 32)}),
            "1 of another size .*pos_embed is 1x64x64x32 in the file and 1x4x4x32",
        ),
        (lambda s: [s.pop(name) for name in list(s) if "Adapter" in name], "12 missing .*lack the adapters"),
    ],
)
def test_other_files_are_refused(change, message, tmp_path):
    state = official_state(tiny(), adapters=True)
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=message):
        tiny(checkpoint=str(tmp_path / "other.pth"))


def test_small_images_lie_in_the_middle_and_large_ones_fill_the_square():
    network = tiny()
    image = random_image(1, 3, 20, 31)
    square = network.to_square(image)
    assert torch.equal(square[..., 22:42, 16:47], image) and square.count_nonzero() == image.count_nonzero()
    assert torch.equal(network.from_square(square, (20, 31)), image)
    assert network.frame((64, 10)) == network.frame((500, 70)) == (64, 64, 0, 0)


def test_points_of_small_images_are_moved_with_them():
    network = tiny()
    places = network._to_square(torch.tensor([[0.0, 0.0], [30.0, 19.0]]), (20, 31))
    assert places.tolist() == [[16, 22], [46, 41]]
    assert network._to_square(torch.tensor([[64.0, 32.0]]), (64, 128)).tolist() == [[32, 32]]


def test_colours_are_given_blue_first():
    torch.manual_seed(0)
    network = tiny().eval()
    image = random_image(1, 3, 64, 64)
    bgr = network.encode(image)
    network._reverse = False
    assert torch.equal(bgr, network.encode(image.flip(1)))
    assert not torch.equal(bgr, network.encode(image))


@pytest.mark.parametrize(("train", "frozen"), [("frozen", True), ("decoder", True), ("adapter", False)])
def test_what_is_trained(train, frozen):
    network = tiny(train=train)
    assert (network.frozen_encoder is not None) == frozen
    trained = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {"frozen": set(), "decoder": {"mask_decoder"}, "adapter": {"mask_decoder", "vision_encoder"}}[train]


def test_the_order_of_colours_is_told_and_makes_another_embedding(tmp_path):
    torch.manual_seed(0)
    bgr = tiny(train="frozen")
    rgb = tiny(train="frozen", channel_order="rgb")
    rgb.load_state_dict(bgr.state_dict())
    assert (bgr.label, rgb.label) == ("SAM-Med2D tiny frozen", "SAM-Med2D tiny frozen rgb")
    image, cache = random_image(1, 3, 64, 64), EmbeddingCache(folder=str(tmp_path))
    cache.embed(bgr, image)
    assert torch.equal(cache.embed(rgb, image), rgb.encode(image)) and cache.found == 0
    with pytest.raises(ConfigError, match="channel_order 'BGR'"):
        tiny(channel_order="BGR")


def test_a_frozen_one_takes_the_best_of_three_masks_as_the_released_test():
    assert tiny(train="frozen").multimask and not tiny(train="adapter").multimask


def test_an_odd_grid_is_refused():
    with pytest.raises(ConfigError, match="5 patches per side"):
        SAMMed2D(size="tiny", image_size=80)
