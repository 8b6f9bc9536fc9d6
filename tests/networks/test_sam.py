from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from base import NetworkContract, fill_with_waves, random_image
from torch import Tensor

from madgnet_bench.contracts import Context, Prompts
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam import EMPTY_LOGIT, SAM

_DECODER = r"iou_prediction_head|output_hypernetworks_mlps\.[123]\."


def prompts_of(image: Tensor, targets: int) -> Prompts:
    """A point and a box for every target, within images of any size."""
    height, width = image.shape[2:]
    points = torch.tensor([width // 2, height // 2]).to(image).expand(len(image), targets, 1, 2)
    shift = torch.arange(targets)[:, None] / targets
    boxes = torch.tensor([0, 0, width - 1, height - 1]).to(image) * (1 - shift / 2)
    labels = torch.ones(len(image), targets, 1, dtype=torch.long)
    return Prompts(points=points, labels=labels, boxes=boxes.expand(len(image), -1, -1))


class PromptedContract(NetworkContract):
    """Told prompts in every test; what is exported or compiled is not told anything, and tested below."""

    takes_embedding = True
    onnx_promised = False  # prompts are checked by their values
    unmoved = r"\.k_proj\.bias$"  # what is added to all keys cancels in the softmax
    compile_promised = False  # for the same reason; without prompts see test_it_compiles_without_prompts
    options: dict[str, Any]

    def build(self, num_targets: int = 1, **options: Any) -> SAM:
        self.targets = num_targets
        return SAM(num_targets, size="tiny", image_size=64, **(self.options | options))

    def context(self, image: Tensor) -> Context:
        return Context(prompts=prompts_of(image, self.targets))

    def composed(self, network: Any, image: Tensor) -> Tensor:
        prompts = self.context(image).prompts
        return network.decode(network.encode(image), image.shape[2:], prompts=prompts).logits


class TestSAM(PromptedContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_sam as t; print(t.TestSAM().golden_values())"
    """

    options: dict[str, Any] = {"train": "decoder"}  # noqa: RUF012
    frozen = rf"^vision_encoder\.|^prompt_encoder\.|{_DECODER}"
    golden = (-1.105233, 0.1157869, -0.0711083, 0.248471, -0.19771)

    def plain(self, network: Any, image: Tensor) -> Tensor:
        return plain_sam(network, image, prompts_of(image, 2))


class TestSAMWithLoRA(PromptedContract):
    options: dict[str, Any] = {"train": "lora", "rank": 2}  # noqa: RUF012
    frozen = rf"^vision_encoder\.(?!.*\.qkv\.(down|up)\.)|^prompt_encoder\.|{_DECODER}"
    golden = (-0.9110473, -0.0216103, 0.2690548, -0.1152049, -0.600857)


class TestSAMWithAdapters(PromptedContract):
    options: dict[str, Any] = {"train": "adapter", "bottleneck": 5}  # noqa: RUF012
    frozen = rf"^vision_encoder\.(?!.*\.adapter\.)|^prompt_encoder\.|{_DECODER}"
    golden = (-0.9168196, 0.3449346, -0.3984075, -0.1192082, -0.3726612)


class TestSAMFull(PromptedContract):
    options: dict[str, Any] = {"train": "full"}  # noqa: RUF012
    frozen = rf"^prompt_encoder\.|{_DECODER}"
    golden = TestSAM.golden


def plain_sam(network: SAM, image: Tensor, prompts: Prompts) -> Tensor:
    """The weights in transformers' own model, target by target, with resizing written out."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config=network.vision_encoder.config.to_dict(),
        prompt_encoder_config={"hidden_size": 32, "image_size": 64},
        mask_decoder_config=network.mask_decoder.config.to_dict(),
    )
    model = SamModel(config).double().eval()
    state = dict(network.state_dict())
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    model.load_state_dict(state)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of 123.675 / 255 and so on
    height, width = image.shape[2:]
    scale = 64 / max(height, width)
    inner = round(height * scale), round(width * scale)
    small = torch.nn.functional.interpolate(image, size=inner, mode="bilinear", antialias=True)
    pixels = image.new_zeros(len(image), 3, 64, 64)
    pixels[..., : inner[0], : inner[1]] = (small - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    stretch = torch.tensor([inner[1] / width, inner[0] / height], dtype=torch.float64)
    maps = []
    for target in range(network.num_targets):
        answer = model(
            pixel_values=pixels,
            input_points=prompts.points[:, target : target + 1].double() * stretch,
            input_labels=prompts.labels[:, target : target + 1],
            input_boxes=prompts.boxes[:, target : target + 1].double() * stretch.repeat(2),
            multimask_output=False,
        )
        large = torch.nn.functional.interpolate(answer.pred_masks[:, 0], size=(64, 64), mode="bilinear")
        cut = large[..., : inner[0], : inner[1]]
        maps.append(torch.nn.functional.interpolate(cut, size=(height, width), mode="bilinear"))
    return torch.cat(maps, 1)


@pytest.fixture(scope="module")
def network():
    """Two targets, with weights that make a difference."""
    torch.manual_seed(0)
    built = SAM(2, size="tiny", image_size=64).eval()
    fill_with_waves(built)
    return built


def told(network, image, **prompts):
    with torch.no_grad():
        return network(image, context=Context(prompts=Prompts(**prompts))).logits


def test_without_prompts_all_targets_are_what_transformers_says(network):
    image = random_image(2, 3, 40, 64)
    with torch.no_grad():
        logits = network(image).logits
    assert torch.equal(logits[:, 0], logits[:, 1])
    nothing = Prompts(points=torch.zeros(2, 2, 0, 2), labels=torch.zeros(2, 2, 0, dtype=torch.long), mask=None)
    with torch.no_grad():
        assert (network(image, context=Context(prompts=nothing)).logits == EMPTY_LOGIT).all()


def test_every_target_has_its_own_prompts(network):
    image = random_image(3, 3, 40, 56)
    prompts = prompts_of(image, 2)
    both = told(network, image, **prompts._asdict())
    swapped = told(network, image, **{k: v if v is None else v.flip(1) for k, v in prompts._asdict().items()})
    torch.testing.assert_close(both, swapped.flip(1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[:, 0], both[:, 1], atol=1e-3)


def test_a_target_that_nothing_is_said_about_is_empty(network):
    image = random_image(2, 3, 40, 56)
    prompts = prompts_of(image, 2)
    labels, boxes = prompts.labels.clone(), prompts.boxes.clone()
    labels[1, 0], boxes[1, 0] = -1, torch.nan
    found = told(network, image, points=prompts.points, labels=labels, boxes=boxes)
    assert (found[1, 0] == EMPTY_LOGIT).all()
    expected = told(network, image, **prompts._asdict())
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, 1], expected[1, 1])


def test_a_point_without_its_box_is_more_than_nothing(network):
    image = random_image(1, 3, 40, 56)
    prompts = prompts_of(image, 2)
    boxes = torch.full((1, 2, 4), torch.nan)
    with_nan = told(network, image, points=prompts.points, labels=prompts.labels, boxes=boxes)
    assert (with_nan != EMPTY_LOGIT).all() and with_nan.isfinite().all()
    padded = told(network, image, points=prompts.points.repeat(1, 1, 3, 1), labels=torch.tensor([[[1, -1, -1]] * 2]))
    assert with_nan.shape == padded.shape


def test_padding_points_have_no_place(network):
    image = random_image(1, 3, 40, 56)
    points, labels = torch.full((1, 2, 2, 2), 9.0), torch.tensor([[[1, -1]] * 2])
    one = told(network, image, points=points, labels=labels)
    points[..., 1, :] = -500.0  # outside, but nobody asks
    assert torch.equal(one, told(network, image, points=points, labels=labels))


def test_a_coarse_mask_is_heard(network):
    image = random_image(1, 3, 40, 56)
    mask = torch.full((1, 2, 10, 14), -5.0)
    mask[0, 1, 3:7, 3:9] = 5
    found = told(network, image, mask=mask)
    assert found.isfinite().all() and not torch.allclose(found[:, 0], found[:, 1], atol=1e-3)


def test_multimask_takes_the_mask_of_the_highest_predicted_quality():
    torch.manual_seed(0)
    network = SAM(1, size="tiny", image_size=64, train="frozen", multimask=True).eval()
    fill_with_waves(network)
    image = random_image(2, 3, 64, 64)
    seen = {}
    network.mask_decoder.register_forward_hook(lambda module, inputs, output: seen.update(masks=output[0], quality=output[1]))
    found = told(network, image, **prompts_of(image, 1)._asdict())
    best = seen["quality"][:, 0].argmax(1)
    assert seen["masks"].shape[2] == 3
    chosen = torch.stack([seen["masks"][case, 0, best[case]] for case in range(2)])[:, None]
    torch.testing.assert_close(found, torch.nn.functional.interpolate(chosen, size=(64, 64), mode="bilinear"))


def test_a_frozen_sam_trains_nothing():
    network = SAM(size="tiny", image_size=64, train="frozen").train()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for name, module in network.named_modules() if name and list(module.parameters()))


@pytest.mark.parametrize(("size", "parameters"), [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)])
def test_parameters_at_full_size(size, parameters):
    with torch.device("meta"):
        network = SAM(size=size)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
        assert network.eval()(torch.empty(1, 3, 352, 352)).logits.shape == (1, 1, 352, 352)


def test_what_is_trained_at_full_size():
    with torch.device("meta"):
        lora = SAM(train="lora", rank=4, image_size=512)
        decoder = SAM()
    count = {name: value.numel() for name, value in lora.named_parameters() if value.requires_grad}
    assert sum(value for name, value in count.items() if name.startswith("vision_encoder")) == 147_456  # as SAMed
    frozen_heads = 3 * (2 * (256 * 256 + 256) + 256 * 32 + 32) + 2 * (256 * 256 + 256) + 256 * 4 + 4
    assert sum(value.numel() for value in decoder.parameters() if value.requires_grad) == 4_058_340 - frozen_heads


@pytest.mark.slow
def test_it_compiles_without_prompts(network):
    image = random_image(2, 3, 40, 64)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(image).logits, network(image).logits, rtol=1e-4, atol=1e-4)


def test_labels():
    assert SAM(size="tiny", image_size=64, train="lora").label == "SAM tiny lora"
    assert SAM(size="tiny", image_size=64, train="frozen", multimask=True).label == "SAM tiny frozen multimask"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "vit_x"}, "no size 'vit_x'; did you mean 'vit_"),
        ({"image_size": 8}, "image_size 8 .*multiple of its patch of 16"),
        ({"image_size": 100}, "image_size 100"),
        ({"train": "decoder", "multimask": True}, "multimask is for a frozen SAM"),
        ({"train": "decodr"}, "train 'decodr': did you mean 'decoder'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        SAM(**({"size": "tiny", "image_size": 64} | options))


POINTS, LABELS = torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, dtype=torch.long)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"points": POINTS + torch.tensor([56.0, 3.0]), "labels": LABELS}, r"a point .* x 56, y 3 lies outside .* 55, 39"),
        ({"points": POINTS - 1, "labels": LABELS}, "outside the image"),
        ({"points": POINTS * torch.nan, "labels": LABELS}, "outside the image"),
        ({"boxes": torch.tensor([[[0.0, 0, 10, 40]] * 2])}, "a box .* x 10, y 40 lies outside"),
        ({"boxes": torch.tensor([[[9.0, 0, 8, 4]] * 2])}, "left, top, right, bottom"),
        (
            {"points": POINTS[:, :1], "labels": LABELS[:, :1]},
            r"points are 1 x 1 x 1 x 2; 1 images of 2 targets need 1 x 2 x any x 2",
        ),
        ({"points": POINTS.expand(3, -1, -1, -1), "labels": LABELS}, "points are 3 x 2 x 1 x 2"),
        ({"points": POINTS}, "one label"),
        ({"points": POINTS, "labels": LABELS.expand(-1, -1, 2)}, "one label"),
        ({"points": POINTS, "labels": 2 * LABELS}, r"labels are \[2\]"),
        ({"boxes": torch.zeros(1, 2, 1, 4)}, "boxes are 1 x 2 x 1 x 4"),
        ({"mask": torch.zeros(1, 1, 8, 8)}, "mask are 1 x 1 x 8 x 8"),
        ({"mask": torch.full((1, 2, 8, 8), torch.nan)}, "mask holds values that are not finite"),
        ({"boxes": torch.tensor([[[0.0, torch.nan, 8, 4]] * 2])}, "only some sides are NaN"),
    ],
)
def test_prompts_that_do_not_fit(prompts, message, network):
    with pytest.raises(ConfigError, match=message):
        told(network, random_image(1, 3, 40, 56), **prompts)


def test_an_embedding_of_other_images_is_refused(network):
    image = random_image(2, 3, 40, 56)
    with pytest.raises(ConfigError, match="embeddings of 1 images, and there are 2"):
        network(image, context=Context(embedding=network.encode(image[:1])))


@pytest.mark.parametrize("size", [(20, 28), (40, 56), (100, 140)])
def test_mixed_precision_takes_images_of_any_size(network, size):
    """Prompts are embedded in full: bfloat16 cannot tell neighbouring pixels of a large image."""
    image = random_image(1, 3, *size)
    seen = []
    hook = network.mask_decoder.register_forward_pre_hook(lambda module, words, named: seen.append(named), with_kwargs=True)
    full = told(network, image, **prompts_of(image, 2)._asdict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = told(network, image, **prompts_of(image, 2)._asdict())
        assert told(network, image, mask=torch.zeros(1, 2, 8, 8)).isfinite().all()
    hook.remove()
    for name in ("sparse_prompt_embeddings", "image_positional_embeddings"):
        assert torch.equal(seen[0][name], seen[1][name])
    assert half.isfinite().all() and (half - full).abs().mean() < 0.1 * full.abs().mean()


@pytest.mark.skipif(
    "MADGNET_BENCH_SAM" not in os.environ, reason="MADGNET_BENCH_SAM names no SAM ViT-B (folder, file or hub id)"
)
def test_real_weights_segment_a_disc():
    """Run with MADGNET_BENCH_SAM=facebook/sam-vit-base where there is a network, or a folder or file of those weights."""
    checkpoint = os.environ["MADGNET_BENCH_SAM"]
    network = SAM(checkpoint=checkpoint, image_size=512, train="frozen").eval()
    assert network.label.endswith(f"[{Path(checkpoint).name}]")
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    disc = ((x - 50) ** 2 + (y - 40) ** 2 < 20**2).float()
    image = (0.2 + 0.6 * disc).expand(1, 3, -1, -1)
    points, labels = torch.tensor([[[[50.0, 40.0]]]]), torch.ones(1, 1, 1, dtype=torch.long)
    found = told(network, image, points=points, labels=labels)[0, 0] > 0
    overlap = (found & (disc > 0)).sum() / (found | (disc > 0)).sum()
    assert overlap > 0.9
