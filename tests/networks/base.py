"""What every network must keep to; a network's test inherits it and says how to build a small one."""

from __future__ import annotations

import io
import re
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from madgnet_bench.contracts import SegmentationBatch, SegmentationLoss, SegmentationNetwork
from madgnet_bench.losses.region import DiceBCELoss


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def disc_batch(image: Tensor, num_targets: int) -> SegmentationBatch:
    """Wrap images with masks of discs, one radius per target."""
    cases, (height, width) = len(image), image.shape[2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    mask = torch.stack([(x**2 + y**2 < 0.7 / (target + 1)).float() for target in range(num_targets)])
    names = [f"case{row}" for row in range(cases)]
    return SegmentationBatch(
        image=image,
        mask=mask.expand(cases, -1, -1, -1).clone(),
        target_present=torch.ones(cases, num_targets, dtype=torch.bool),
        domain_index=torch.zeros(cases, dtype=torch.long),
        case_index=torch.arange(cases),
        spacing=torch.ones(cases, 2),
        original_size=torch.tensor([[height, width]] * cases),
        case_id=names,
        group_id=names,
        dataset=["phantoms"] * cases,
        modality=["none"] * cases,
        domain=[""] * cases,
    )


def fill_with_waves(network: torch.nn.Module) -> None:
    """Give every parameter and statistic a value that depends on no random generator."""
    with torch.no_grad():
        for position, (name, value) in enumerate(network.state_dict().items()):
            if not value.is_floating_point():
                continue
            wave = torch.sin(0.61 * (torch.arange(value.numel(), dtype=torch.float64) + position) ** 2).view(value.shape)
            if name.endswith("running_var"):
                wave = 1 + 0.5 * wave.abs()
            elif value.dim() > 1:
                wave = wave * (4 / value[0].numel()) ** 0.5
            else:
                wave = 0.1 * wave + (0.0 if name.endswith(("bias", "running_mean")) else 1.0)
            value.copy_(wave)


class NetworkContract:
    losses: ClassVar[tuple[SegmentationLoss, ...]] = (DiceBCELoss(),)
    trains_on_one_image = True
    unmoved = "^$"
    """Parameters that two steps need not change, as a regular expression; the subclass says why."""
    golden: ClassVar[tuple[float, ...]]

    def build(self, num_targets: int = 1, **options: Any) -> SegmentationNetwork:
        raise NotImplementedError("the test class of each network builds it")

    def seeded(self, num_targets: int = 1, **options: Any) -> SegmentationNetwork:
        torch.manual_seed(0)
        return self.build(num_targets, **options)

    @pytest.mark.parametrize("num_targets", [1, 3])
    def test_output_contract(self, num_targets: int) -> None:
        network, image = self.seeded(num_targets), random_image(2, 3, 64, 96)
        for training in (False, True):
            output = network.train(training)(image)
            assert output.logits.shape == (2, num_targets, 64, 96)
            assert output.logits.isfinite().all()
            assert output.features == ()
            assert training or output.auxiliary == ()
            for maps in output.auxiliary:
                assert all(logits.shape == output.logits.shape for logits in maps.values())
        assert network.num_targets == num_targets

    @pytest.mark.parametrize("size", [(37, 53), (64, 32), (1, 1), (1, 70), (65, 2)])
    def test_any_size_one_channel_one_image(self, size: tuple[int, int]) -> None:
        network = self.seeded().eval()
        with torch.no_grad():
            logits = network(random_image(1, 1, *size)).logits
        assert logits.shape == (1, 1, *size)
        assert logits.isfinite().all()

    def test_grey_is_repeated(self) -> None:
        network, image = self.seeded().eval(), random_image(1, 1, 32, 32)
        with torch.no_grad():
            assert torch.equal(network(image).logits, network(image.repeat(1, 3, 1, 1)).logits)

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 channels, the network takes 3"):
            self.seeded().eval()(random_image(1, 2, 32, 32))

    def test_no_target_is_refused(self) -> None:
        with pytest.raises(ValueError, match="num_targets"):
            self.build(0)

    def test_training_on_one_image(self) -> None:
        if not self.trains_on_one_image:
            pytest.skip("its batch normalisation needs two images")
        network = self.seeded().train()
        network(random_image(1, 3, 64, 64)).logits.sum().backward()

    def test_every_parameter_has_a_gradient(self) -> None:
        for loss in self.losses:
            network = self.seeded(2).train()
            image = random_image(2, 3, 64, 64)
            sum(loss(network(image), disc_batch(image, 2)).values()).backward()
            bad = [
                n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
            ]
            assert not bad, f"under {loss}"

    def test_two_steps_change_every_parameter(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            sum(self.losses[0](network(image), disc_batch(image, 1)).values()).backward()
            optimizer.step()
        same = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
        assert [name for name in same if not re.search(self.unmoved, name)] == []

    def test_save_and_load(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        network(image)  # so that batch statistics have moved
        stream = io.BytesIO()
        torch.save(network.state_dict(), stream)
        stream.seek(0)
        torch.manual_seed(1)
        other = self.build()
        other.load_state_dict(torch.load(stream, weights_only=True))
        with torch.no_grad():
            assert torch.equal(network.eval()(image).logits, other.eval()(image).logits)

    def test_evaluation_is_deterministic_and_by_image(self) -> None:
        network, image = self.seeded().eval(), random_image(3, 3, 64, 64)
        with torch.no_grad():
            logits = network(image).logits
            assert torch.equal(logits, network(image).logits)
            torch.testing.assert_close(logits[1:2], network(image[1:2]).logits, rtol=1e-4, atol=1e-5)

    def test_bfloat16_is_finite(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = self.losses[0](network(image), disc_batch(image, 1))
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
        sum(terms.values()).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters())

    def test_forward_composes_encode_and_decode(self) -> None:
        network, image = self.seeded().eval(), random_image(1, 3, 37, 53)
        if not hasattr(network, "encode"):
            pytest.skip("no separable encoder")
        with torch.no_grad():
            assert torch.equal(network(image).logits, network.decode(network.encode(image), (37, 53)).logits)

    def test_features_are_deepest_last(self) -> None:
        if not hasattr(self.build(), "encode"):
            pytest.skip("returns no features")
        output = self.seeded(return_features=True).eval()(random_image(1, 3, 64, 64))
        sides = [feature.shape[-1] for feature in output.features]
        assert len(sides) > 1 and sides == sorted(sides, reverse=True)

    def golden_values(self) -> tuple[float, ...]:
        """Compute five logits, in float64, of a network and an image that depend on no random generator."""
        network = self.build(2)
        fill_with_waves(network)
        image = torch.sin(torch.arange(3 * 40 * 56, dtype=torch.float64) * 0.01).view(1, 3, 40, 56) / 2 + 0.5
        with torch.no_grad():
            logits = network.double().eval()(image).logits
        places = ((0, 0, 0), (0, 20, 30), (1, 10, 50), (1, 39, 55), (0, 33, 7))
        return tuple(round(logits[0][place].item(), 7) for place in places)

    def test_golden(self) -> None:
        assert self.golden_values() == pytest.approx(self.golden, abs=1e-5)

    @pytest.mark.slow
    def test_compiles_without_a_graph_break(self) -> None:
        network, image = self.seeded().eval(), random_image(2, 3, 64, 64)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")  # traced as for any backend, not generated
        with torch.no_grad():
            torch.testing.assert_close(compiled(image).logits, network(image).logits, rtol=1e-4, atol=1e-4)
