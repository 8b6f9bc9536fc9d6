"""Tiny stand-ins for what is still to come: each proves that a seam carries it without a change of the contracts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from madgnet_bench.contracts import (
    Context,
    Inferer,
    Prediction,
    Prompts,
    SegmentationBatch,
    SegmentationLoss,
    SegmentationNetwork,
    SegmentationOutput,
)


def case(
    name: str = "a",
    *,
    size: tuple[int, ...] = (6, 8),
    channels: int = 3,
    targets: int = 1,
    dataset: str = "busi",
    domain_index: int = 0,
    present: tuple[bool, ...] | None = None,
) -> SegmentationBatch:
    draw = torch.Generator().manual_seed(sum(map(ord, name)))
    return SegmentationBatch(
        image=torch.rand(1, channels, *size, generator=draw),
        mask=(torch.rand(1, targets, *size, generator=draw) > 0.5).float(),
        target_present=torch.tensor([present or (True,) * targets]),
        domain_index=torch.tensor([domain_index]),
        case_index=torch.tensor([7]),
        spacing=torch.ones(1, len(size)),
        original_size=torch.tensor([size]),
        case_id=[name],
        group_id=[f"patient-{name}"],
        dataset=[dataset],
        modality=["ultrasound"],
        domain=["near"],
    )


class PixelNetwork(SegmentationNetwork):
    """A linear map over channels, in two or three dimensions."""

    def __init__(self, num_targets: int, *, channels: int = 3) -> None:
        super().__init__(num_targets)
        self.weight = nn.Parameter(torch.linspace(-1, 1, num_targets * channels).reshape(num_targets, channels))

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        return SegmentationOutput(torch.einsum("nc...,kc->nk...", image, self.weight))


# Batches


def test_several_domains_share_a_batch_in_order() -> None:
    batch = SegmentationBatch.collate([case("a", domain_index=0), case("b", dataset="kvasir", domain_index=1), case("c")])
    assert len(batch) == 3 == len(batch.image)
    assert batch.domain_index.tolist() == [0, 1, 0]
    assert batch.dataset == ["busi", "kvasir", "busi"]
    assert torch.equal(batch.image[1:2], case("b").image)


def test_collating_batches_of_batches_is_collating_all() -> None:
    cases = [case(name) for name in "abcd"]
    pairs = [SegmentationBatch.collate(cases[:2]), SegmentationBatch.collate(cases[2:])]
    nested, flat = SegmentationBatch.collate(pairs), SegmentationBatch.collate(cases)
    for field in dataclasses.fields(flat):
        one, other = getattr(nested, field.name), getattr(flat, field.name)
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_collate_leaves_its_parts_alone() -> None:
    part = case("a")
    batch = SegmentationBatch.collate([part, case("b")])
    batch.case_id.append("c")
    batch.image.zero_()
    assert part.case_id == ["a"]
    assert part.image.sum() > 0


def test_volumes_collate_and_pass_a_network() -> None:
    batch = SegmentationBatch.collate([case(name, size=(4, 6, 8), channels=1, targets=2) for name in "ab"])
    assert batch.image.shape == (2, 1, 4, 6, 8)
    assert batch.spacing.shape == batch.original_size.shape == (2, 3)
    assert PixelNetwork(2, channels=1)(batch.image).logits.shape == batch.mask.shape == (2, 2, 4, 6, 8)


def test_nested_targets_keep_their_channels_and_absent_ones_are_marked() -> None:
    cup_in_disc, only_disc = case("a", targets=2), case("b", targets=2, present=(True, False))
    cup_in_disc.mask[:, 1] *= cup_in_disc.mask[:, 0]
    batch = SegmentationBatch.collate([cup_in_disc, only_disc])
    assert (batch.mask[0, 1] <= batch.mask[0, 0]).all()
    assert batch.target_present.tolist() == [[True, True], [True, False]]


def test_a_grey_image_joins_colour_images() -> None:
    batch = SegmentationBatch.collate([case("a", channels=1), case("b", channels=3)])
    assert batch.image.shape[:2] == (2, 3)
    assert torch.equal(batch.image[0, 0], batch.image[0, 2])


@pytest.mark.parametrize("other", [{"size": (6, 9)}, {"targets": 2}, {"channels": 2}])
def test_cases_of_other_shapes_are_named(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"busi:a .*busi:odd"):
        SegmentationBatch.collate([case("a"), case("odd", **other)])  # type: ignore[arg-type]


def test_to_moves_every_tensor_and_nothing_else() -> None:
    batch = SegmentationBatch.collate([case("a"), case("b")])
    moved = batch.to("meta")
    for field in dataclasses.fields(batch):
        before, after = getattr(batch, field.name), getattr(moved, field.name)
        if isinstance(before, Tensor):
            assert after.device.type == "meta" and after.shape == before.shape and before.device.type == "cpu"
        else:
            assert after == before


def test_pin_memory_asks_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor.clone())  # page-locking needs an accelerator
    batch = case()
    pinned = batch.pin_memory()
    assert torch.equal(pinned.image, batch.image)
    assert pinned.image.data_ptr() != batch.image.data_ptr()
    assert pinned.case_id == batch.case_id


def test_the_loader_pins_and_carries_batches_unchanged() -> None:
    cases = [case(name) for name in "abc"]
    loader = torch.utils.data.DataLoader(cases, batch_size=2, collate_fn=SegmentationBatch.collate)  # type: ignore[arg-type]
    assert [batch.case_id for batch in loader] == [["a", "b"], ["c"]]


# Networks


class PromptedNetwork(PixelNetwork):
    """Adds a constant inside the box that it is told."""

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        logits = super().forward(image).logits
        if context is not None and context.prompts is not None and context.prompts.boxes is not None:
            for number, ((left, top, right, bottom),) in enumerate(context.prompts.boxes.long().tolist()):
                logits[number, :, top:bottom, left:right] += 100
        return SegmentationOutput(logits)


def test_prompts_reach_the_network() -> None:
    batch = SegmentationBatch.collate([case("a"), case("b")])
    boxes = torch.tensor([[[1.0, 2.0, 4.0, 5.0]], [[0.0, 0.0, 8.0, 6.0]]])
    logits = PromptedNetwork(1)(batch.image, context=Context(prompts=Prompts(boxes=boxes))).logits
    assert (logits > 50).sum(dim=(1, 2, 3)).tolist() == [9, 48]
    assert (PromptedNetwork(1)(batch.image).logits < 50).all()


class DomainNetwork(PixelNetwork):
    """Has one bias per training domain; an unseen domain (-1) gets their mean."""

    def __init__(self, num_targets: int) -> None:
        super().__init__(num_targets)
        self.bias = nn.Parameter(torch.tensor([1.0, 3.0]))

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        index = context.domain_index if context is not None else None
        if index is None:
            index = image.new_full((len(image),), -1, dtype=torch.long)
        bias = torch.where(index < 0, self.bias.mean(), self.bias[index.clamp(min=0)])
        return SegmentationOutput(super().forward(image).logits + bias[:, None, None, None])


def test_domain_labels_reach_the_network() -> None:
    network, image = DomainNetwork(1), torch.zeros(3, 3, 2, 2)
    told = network(image, context=Context(domain_index=torch.tensor([0, 1, -1]))).logits
    assert told[:, 0, 0, 0].tolist() == [1, 3, 2]
    assert (network(image).logits == 2).all()


class WrappedNetwork(SegmentationNetwork):
    """Brings an encoder and a head from elsewhere under the contract; the frozen encoder stays in eval mode."""

    def __init__(self, num_targets: int, *, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__(num_targets)
        self.encoder, self.head = encoder.requires_grad_(False), head
        self.encodings = 0

    def train(self, mode: bool = True) -> WrappedNetwork:
        super().train(mode)
        self.encoder.eval()
        return self

    def encode(self, image: Tensor) -> Tensor:
        self.encodings += 1
        embedding: Tensor = self.encoder(image)
        return embedding

    def decode(self, embedding: Tensor, *, prompts: Prompts | None = None) -> Tensor:
        logits: Tensor = self.head(embedding)
        return logits if prompts is None or prompts.mask is None else logits + prompts.mask

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        context = context or Context()
        embedding = self.encode(image) if context.embedding is None else context.embedding
        assert isinstance(embedding, Tensor)
        return SegmentationOutput(self.decode(embedding, prompts=context.prompts), features=(embedding,))


@pytest.fixture
def wrapped() -> WrappedNetwork:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    return WrappedNetwork(2, encoder=encoder, head=nn.Conv2d(4, 2, 1)).train()


def test_a_cached_embedding_replaces_the_encoder(wrapped: WrappedNetwork) -> None:
    image = case().image
    cached = wrapped.encode(image)
    fresh = wrapped(image)
    again = wrapped(image, context=Context(embedding=cached))
    assert torch.equal(fresh.logits, again.logits)
    assert wrapped.encodings == 2
    coarse = torch.full((1, 1, 6, 8), 5.0)
    told = wrapped(image, context=Context(embedding=cached, prompts=Prompts(mask=coarse)))
    assert torch.allclose(told.logits, fresh.logits + 5)


def test_a_frozen_encoder_does_not_learn(wrapped: WrappedNetwork) -> None:
    before = {name: value.clone() for name, value in wrapped.state_dict().items()}
    wrapped(case().image).logits.sum().backward()
    torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name for name, value in wrapped.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}


@pytest.mark.parametrize("number", [0, -1])
def test_a_network_needs_a_target(number: int) -> None:
    with pytest.raises(ValueError, match="num_targets"):
        PixelNetwork(number)


def test_a_network_is_named_after_its_class_and_must_have_a_forward() -> None:
    class Unfinished(SegmentationNetwork):
        pass

    assert Unfinished(1).label == "Unfinished"
    with pytest.raises(NotImplementedError, match="Unfinished"):
        Unfinished(1)(case().image)


# Losses


class DomainVarianceLoss(SegmentationLoss):
    """A term per target that is annotated, and a penalty over domains."""

    def forward(self, output: SegmentationOutput, batch: SegmentationBatch) -> dict[str, Tensor]:
        error = (output.logits.sigmoid() - batch.mask).square().mean(dim=(2, 3))
        per_case = (error * batch.target_present).sum(1) / batch.target_present.sum(1)
        domains = torch.stack([per_case[batch.domain_index == d].mean() for d in batch.domain_index.unique()])
        return {"region": per_case.mean(), "domains": domains.var(unbiased=False)}


def test_a_loss_sees_domains_and_present_targets() -> None:
    cases = [case("a", targets=2), case("b", targets=2, domain_index=1, present=(True, False))]
    batch = SegmentationBatch.collate(cases)
    network = PixelNetwork(2)
    terms = DomainVarianceLoss()(network(batch.image), batch)
    assert set(terms) == {"region", "domains"} and terms["domains"] > 0
    batch.mask[1, 1] = 1 - batch.mask[1, 1]  # not annotated, so it must not count
    assert torch.equal(DomainVarianceLoss()(network(batch.image), batch)["region"], terms["region"])
    torch.stack(list(terms.values())).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.abs().sum() > 0


# Inferers


class MonteCarlo(Inferer):
    """Mean and standard deviation over passes with noise on the input, in place of dropout."""

    def __init__(self, *, samples: int) -> None:
        self.samples = samples

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        draw = torch.Generator().manual_seed(0)
        passes = []
        with torch.inference_mode():
            for _ in range(self.samples):
                noise = torch.randn(batch.image.shape, generator=draw) / 10
                passes.append(network(batch.image + noise).logits.sigmoid())
        stack = torch.stack(passes)
        return Prediction(stack.mean(0), stack.std(0))


class EntropyDescent(Inferer):
    """One step of entropy minimisation per batch, undone afterwards: test-time adaptation in small."""

    adapts = True

    def infer(self, network: SegmentationNetwork, batch: SegmentationBatch) -> Prediction:
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        optimizer = torch.optim.SGD(network.parameters(), lr=10.0)
        probability = network(batch.image).logits.sigmoid()
        (-(probability * probability.log())).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        adapted = network(batch.image).logits.sigmoid().detach()
        network.load_state_dict(kept)
        return Prediction(adapted)


def plain(network: SegmentationNetwork, batch: SegmentationBatch) -> Tensor:
    with torch.no_grad():
        return network(batch.image).logits.sigmoid()


def test_monte_carlo_returns_uncertainty() -> None:
    batch, network = SegmentationBatch.collate([case("a"), case("b")]), PixelNetwork(1)
    inferer = MonteCarlo(samples=8)
    assert isinstance(inferer, Inferer) and not inferer.adapts
    prediction = inferer.infer(network, batch)
    assert prediction.uncertainty is not None
    assert prediction.uncertainty.shape == prediction.probability.shape == batch.mask.shape
    assert (prediction.uncertainty > 0).all()
    assert torch.allclose(prediction.probability, plain(network, batch), atol=0.2)


def test_an_adapting_inferer_says_so_needs_gradients_and_leaves_the_network_as_it_was() -> None:
    batch, network = case(), PixelNetwork(1)
    before = network.weight.detach().clone()
    inferer = EntropyDescent()
    assert inferer.adapts
    prediction = inferer.infer(network, batch)
    assert not torch.equal(prediction.probability, plain(network, batch))
    assert torch.equal(network.weight, before)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        inferer.infer(network, batch)


def test_inferers_do_not_see_masks() -> None:
    batch = case()
    other = dataclasses.replace(batch, mask=1 - batch.mask)
    for inferer in (MonteCarlo(samples=2), EntropyDescent()):
        results = [inferer.infer(PixelNetwork(1), b).probability for b in (batch, other)]
        assert torch.equal(*results)


def test_an_inferer_must_infer() -> None:
    with pytest.raises(TypeError, match="infer"):
        Inferer()  # type: ignore[abstract]
