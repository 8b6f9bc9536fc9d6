from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from base import NetworkContract, disc_batch, random_image
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam import EMPTY_LOGIT
from madgnet_bench.networks.self_prompt_sam import SelfPromptSAM, fit_logistic_regression


def tiny(num_targets: int = 1, **options: Any) -> SelfPromptSAM:
    torch.manual_seed(0)
    return SelfPromptSAM(num_targets, size="tiny", image_size=128, **options).eval()


class TestSelfPromptSAM(NetworkContract):
    """The golden values are printed by

    python -c "import sys; sys.path.insert(0, 'tests/networks'); import test_self_prompt_sam as t; print(t.TestSelfPromptSAM().golden_values())"
    """  # noqa: E501

    takes_embedding = True
    frozen = "."  # no gradient reaches anything
    onnx_promised = False  # point and box are found outside torch
    compile_promised = False
    golden = (0.7542752, 0.024045, 0.2762275, 0.1039355, -0.3993752)

    def build(self, num_targets: int = 1, **options: Any) -> SelfPromptSAM:
        network = SelfPromptSAM(num_targets, size="tiny", image_size=64, **options)
        network.regression_weight.copy_(torch.sin(torch.arange(network.regression_weight.numel())).view(num_targets, -1))
        return network

    def test_training_on_one_image(self) -> None:
        assert not self.run(self.seeded().train(), random_image(1, 3, 64, 64)).logits.requires_grad

    def test_every_trainable_parameter_has_a_gradient(self) -> None:
        assert not any(parameter.requires_grad for parameter in self.seeded(2).parameters())

    def test_two_steps_change_what_is_trainable_and_nothing_else(self) -> None:
        """There is nothing to step with; what `learn` changes stands below."""
        assert not any(parameter.requires_grad for parameter in self.seeded(2).train().parameters())

    def test_bfloat16_is_finite(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = self.losses[0](self.run(network, image), disc_batch(image, 1))
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())

    def composed(self, network: Any, image: Tensor) -> Tensor:
        embedding, size = network.encode(image), image.shape[2:]
        return network.decode(embedding, size, prompts=network.find_prompts(embedding, size)).logits


@pytest.mark.parametrize("c", [1.0, 0.05])
def test_the_regression_is_that_of_scikit_learn(c):
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(600, 12, generator=draw).double()
    labels = features[:, 0] - 0.5 * features[:, 3] + torch.randn(600, generator=draw) > 1
    weight, bias = fit_logistic_regression(features, labels, c=c)
    expected = LogisticRegression(C=c, max_iter=1000, tol=1e-10).fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(weight.numpy(), expected.coef_[0], atol=1e-6)
    assert bias.item() == pytest.approx(expected.intercept_[0], abs=1e-6)


def shown(height: int = 96, width: int = 128) -> tuple[Tensor, Tensor]:
    """Images with bright rectangles, and those."""
    mask = torch.zeros(3, 1, height, width)
    for case, (top, left) in enumerate(((0, 0), (16, 48), (32, 64))):
        mask[case, :, top : top + 48, left : left + 48] = 1
    return (0.2 + 0.7 * mask).expand(-1, 3, -1, -1), mask


def test_it_learns_coarse_masks_where_the_images_lie_and_prompts_itself():
    network, (image, mask) = tiny(), shown()
    assert (network(image).logits == EMPTY_LOGIT).all() and not network.learned
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.learn(image, mask, present=torch.ones(3, 1, dtype=torch.bool))
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"regression_weight", "regression_bias", "learned"}
    coarse = network.coarse_masks(network.encode(image), (96, 128)).float()
    overlap = (coarse * mask).sum() / torch.maximum(coarse, mask).sum()
    assert overlap > 0.8
    prompts = network.find_prompts(network.encode(image), (96, 128))
    for case in range(3):
        depth = ndimage.distance_transform_edt(np.pad(coarse[case, 0].numpy(), 1))[1:-1, 1:-1]
        x, y = prompts.points[case, 0, 0].int().tolist()
        assert depth[y, x] == depth.max() and prompts.labels[case, 0] == 1
        rows, columns = torch.nonzero(coarse[case, 0]).T
        margin = 9.5 * 128 / 1024
        sides = (columns.min() - margin, rows.min() - margin, columns.max() + margin, rows.max() + margin)
        tight = [min(max(float(side), 0), last) for side, last in zip(sides, (127, 95, 127, 95), strict=True)]
        assert prompts.boxes[case, 0].tolist() == pytest.approx(tight, abs=1e-4)
    assert (network(image).logits != EMPTY_LOGIT).all()


@pytest.mark.parametrize(("options", "told"), [({"box": False}, "point"), ({"point": False}, "box"), ({}, "point+box")])
def test_point_box_or_both(options, told):
    network = tiny(**options)
    prompts = network.find_prompts(network.encode(shown()[0]), (96, 128))
    assert (prompts.points is not None, prompts.boxes is not None) == ("point" in told, "box" in told)
    assert network.label == f"Self-prompt SAM tiny {told}"


def test_specks_do_not_widen_the_box():
    network = SelfPromptSAM(size="tiny", image_size=1024)
    mask = np.zeros((1024, 1024), bool)
    mask[300:400, 500:600] = True
    mask[10:14, 10:14] = True
    point, label, box = network._prompt(mask)
    grown = 4  # five dilations by two pixels after three erosions by two
    assert box.tolist() == [500 - grown - 9.5, 300 - grown - 9.5, 599 + grown + 9.5, 399 + grown + 9.5]
    assert label.tolist() == [1] and math.dist(point[0].tolist(), (549.5, 349.5)) < 1
    only_specks = network._prompt(np.pad(np.ones((4, 4), bool), 100))[2]
    assert only_specks.tolist()[:2] == pytest.approx([100 - 9.5 * 204 / 1024] * 2, abs=4)


def test_targets_that_are_not_annotated_are_left_out():
    network, (image, mask) = tiny(2), shown()
    both = torch.cat([mask, 1 - mask], 1)
    both[0, 1] = 0
    present = torch.ones(3, 2, dtype=torch.bool)
    present[0, 1] = False
    network.learn(image, both, present=present)
    assert (network.regression_weight[0] * network.regression_weight[1]).sum() < 0


def test_images_that_show_nothing_are_refused():
    network, (image, mask) = tiny(), shown()
    present = torch.ones(3, 1, dtype=torch.bool)
    with pytest.raises(ConfigError, match="hold no pixels of target 1 at the 8 x 8"):
        network.learn(image, 0 * mask, present=present)
    with pytest.raises(ConfigError, match="hold only pixels"):
        network.learn(image, torch.ones_like(mask), present=present)


@pytest.mark.parametrize("options", [{"point": False, "box": False}, {"margin": -1.0}])
def test_bad_arguments(options):
    with pytest.raises(ConfigError, match="point, box or both"):
        tiny(**options)
