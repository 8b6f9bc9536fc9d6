"""What every network must keep to; a network's test inherits it and says how to build a small one."""

from __future__ import annotations

import inspect
import io
import re
import warnings
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from madgnet_bench.catalog.models import MODELS
from madgnet_bench.contracts import Context, SegmentationBatch, SegmentationLoss, SegmentationNetwork, SegmentationOutput
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
    """Inherited by the test of a network, in about five lines: `build` a tiny one, name its losses and its golden values.

    A promptable network says with `context` what it is told; one that owns a separable encoder of another kind than
    ``decode(encode(image), size)`` overrides `composed`. What a network cannot promise is said by an attribute, beside which
    the subclass gives the reason.
    """

    losses: ClassVar[tuple[SegmentationLoss, ...]] = (DiceBCELoss(),)
    """Losses that it is trained with; the first is its default."""
    trains_on_one_image = True
    """False where batch normalisation meets one value per channel."""
    unmoved = "^$"
    """Trainable parameters that two steps need not change, as a regular expression; the subclass says why."""
    frozen = "^$"
    """Parameters that are never trained, as a regular expression: exactly these take no gradient and never change."""
    sizes: ClassVar[tuple[tuple[int, int], ...]] = ((37, 53), (64, 32), (1, 1), (1, 70), (65, 2))
    """Heights and widths that it takes beside even ones."""
    takes_embedding = False
    """True where ``Context.embedding`` may stand for the image's own ``encode``."""
    onnx_promised = False
    """True where an exported file is promised, and the tests of the command ``export`` do not write one already."""
    compile_promised = True
    """False where it cannot be traced as one graph."""
    card_options: ClassVar[dict[str, Any]] = {}
    """Arguments at which the card counts parameters, beside one target: none but for what has no default."""
    golden: ClassVar[tuple[float, ...]]

    def build(self, num_targets: int = 1, **options: Any) -> SegmentationNetwork:
        raise NotImplementedError("the test class of each network builds it")

    def context(self, image: Tensor) -> Context | None:
        """What the network is told about these images; the same for every image of one size."""
        return None

    def plain(self, network: SegmentationNetwork, image: Tensor) -> Tensor | None:
        """Logits of an independent formulation in eval mode, for a network of our own."""
        return None

    def composed(self, network: Any, image: Tensor) -> Tensor:
        """Logits by encoding, then decoding."""
        logits: Tensor = network.decode(network.encode(image), image.shape[2:]).logits
        return logits

    def seeded(self, num_targets: int = 1, **options: Any) -> SegmentationNetwork:
        torch.manual_seed(0)
        return self.build(num_targets, **options)

    def run(self, network: SegmentationNetwork, image: Tensor) -> SegmentationOutput:
        return network(image, context=self.context(image))

    @pytest.mark.parametrize("num_targets", [1, 3])
    def test_output_contract(self, num_targets: int) -> None:
        network, image = self.seeded(num_targets), random_image(2, 3, 64, 96)
        for training in (False, True):
            output = self.run(network.train(training), image)
            assert output.logits.shape == (2, num_targets, 64, 96)
            assert output.logits.isfinite().all()
            assert output.features == ()
            assert training or output.auxiliary == ()
            for maps in output.auxiliary:
                assert all(logits.shape == output.logits.shape for logits in maps.values())
        assert network.num_targets == num_targets
        assert network.label and "\n" not in network.label

    def test_any_size_one_channel_one_image(self) -> None:
        network = self.seeded().eval()
        for size in self.sizes:
            with torch.no_grad():
                logits = self.run(network, random_image(1, 1, *size)).logits
            assert logits.shape == (1, 1, *size)
            assert logits.isfinite().all(), size

    def test_grey_is_repeated(self) -> None:
        network, image = self.seeded().eval(), random_image(1, 1, 32, 32)
        with torch.no_grad():
            assert torch.equal(self.run(network, image).logits, self.run(network, image.repeat(1, 3, 1, 1)).logits)

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="2 channels, the network takes 3"):
            self.run(self.seeded().eval(), random_image(1, 2, 32, 32))

    def test_no_target_is_refused(self) -> None:
        with pytest.raises(ValueError, match="num_targets"):
            self.build(0)

    def test_training_on_one_image(self) -> None:
        network, image = self.seeded().train(), random_image(1, 3, 64, 64)
        if self.trains_on_one_image:
            self.run(network, image).logits.sum().backward()
        else:  # and says so
            with pytest.raises(ValueError, match="at least two images per batch"):
                self.run(network, image)

    def test_every_trainable_parameter_has_a_gradient(self) -> None:
        for loss in self.losses:
            network = self.seeded(2).train()
            image = random_image(2, 3, 64, 64)
            sum(loss(self.run(network, image), disc_batch(image, 2)).values()).backward()
            bad = [
                n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
            ]
            assert not bad, f"under {loss}"

    def test_two_steps_change_what_is_trainable_and_nothing_else(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
        trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert {name for name in before if name not in trainable} == {name for name in before if re.search(self.frozen, name)}
        optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            sum(self.losses[0](self.run(network, image), disc_batch(image, 1)).values()).backward()
            optimizer.step()
        same = {name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])}
        assert sorted(name for name in same & trainable if not re.search(self.unmoved, name)) == []
        assert same >= before.keys() - trainable

    def test_frozen_parts_stay_in_eval_mode(self) -> None:
        network = self.seeded().train()
        for name, module in network.named_modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                assert not module.training, name

    def test_save_and_load(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        self.run(network, image)  # so that batch statistics have moved
        stream = io.BytesIO()
        torch.save(network.state_dict(), stream)
        stream.seek(0)
        torch.manual_seed(1)
        other = self.build()
        other.load_state_dict(torch.load(stream, weights_only=True))
        with torch.no_grad():
            assert torch.equal(self.run(network.eval(), image).logits, self.run(other.eval(), image).logits)

    def test_evaluation_is_deterministic_and_by_image(self) -> None:
        network, image = self.seeded().eval(), random_image(3, 3, 64, 64)
        with torch.no_grad():
            logits = self.run(network, image).logits
            assert torch.equal(logits, self.run(network, image).logits)
            torch.testing.assert_close(logits[1:2], self.run(network, image[1:2]).logits, rtol=1e-4, atol=1e-5)

    def test_bfloat16_is_finite(self) -> None:
        network, image = self.seeded().train(), random_image(2, 3, 64, 64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = self.losses[0](self.run(network, image), disc_batch(image, 1))
        assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
        sum(terms.values()).backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)

    def test_forward_composes_encode_and_decode(self) -> None:
        network, image = self.seeded().eval(), random_image(1, 3, 37, 53)
        if not hasattr(network, "encode"):
            pytest.skip("no separable encoder")
        with torch.no_grad():
            expected = self.run(network, image).logits
            assert torch.equal(expected, self.composed(network, image))
            if self.takes_embedding:
                context = (self.context(image) or Context())._replace(embedding=network.encode(image))
                assert torch.equal(expected, network(image, context=context).logits)

    def test_features_are_deepest_last(self) -> None:
        if "return_features" not in inspect.signature(type(self.build())).parameters:
            pytest.skip("returns no features")
        output = self.run(self.seeded(return_features=True).eval(), random_image(1, 3, 64, 64))
        sides = [feature.shape[-1] for feature in output.features]
        assert len(sides) > 1 and sides == sorted(sides, reverse=True)

    def test_parameters_are_those_of_the_card(self) -> None:
        network_class = type(self.build())
        card = MODELS[network_class.__name__]
        if card.parameters is None:
            pytest.skip("its card gives no number")
        with torch.device("meta"):
            network = network_class(1, **self.card_options)
        assert sum(parameter.numel() for parameter in network.parameters()) == card.parameters

    def test_plain_formulation(self) -> None:
        """In float64, on values and an image that depend on no random generator, at a size that needs no padding."""
        network = self.build(2).double().eval()
        fill_with_waves(network)
        image = random_image(2, 3, 64, 96).double()
        with torch.no_grad():
            expected = self.plain(network, image)
            if expected is None:
                pytest.skip("has no plain formulation here")
            torch.testing.assert_close(self.run(network, image).logits, expected, rtol=1e-9, atol=1e-9)

    def golden_values(self) -> tuple[float, ...]:
        """Compute five logits, in float64, of a network and an image that depend on no random generator."""
        network = self.build(2)
        fill_with_waves(network)
        image = torch.sin(torch.arange(3 * 40 * 56, dtype=torch.float64) * 0.01).view(1, 3, 40, 56) / 2 + 0.5
        with torch.no_grad():
            logits = self.run(network.double().eval(), image).logits
        places = ((0, 0, 0), (0, 20, 30), (1, 10, 50), (1, 39, 55), (0, 33, 7))
        return tuple(round(logits[0][place].item(), 7) for place in places)

    def test_golden(self) -> None:
        assert self.golden_values() == pytest.approx(self.golden, abs=1e-5)

    @pytest.mark.slow
    def test_compiles_without_a_graph_break(self) -> None:
        """With the backend "aot_eager": traced as for any backend, but not generated, which takes inductor a minute."""
        if not self.compile_promised:
            pytest.skip("not promised")
        network, image = self.seeded().eval(), random_image(2, 3, 64, 64)
        context = self.context(image)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            found, expected = compiled(image, context=context).logits, network(image, context=context).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    def test_exported_file_computes_the_same(self) -> None:
        if not self.onnx_promised:
            pytest.skip("not promised")
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        network, image = self.seeded().eval(), random_image(1, 3, 64, 64)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.onnx about itself
            program = torch.onnx.export(LogitsOnly(network), (image,), dynamo=True, verbose=False)
            expected = network(image).logits
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)


class LogitsOnly(torch.nn.Module):
    """A network as it is exported: logits without context."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image, context=None).logits
