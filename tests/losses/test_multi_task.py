from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scipy import ndimage
from standins import batch_of, quiet_trainer, tiny_task
from torch import Tensor, nn

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.contracts import SegmentationBatch, SegmentationOutput
from madgnet_bench.data.cases import CaseDataset
from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.errors import ConfigError
from madgnet_bench.losses.multi_task import MultiTaskLoss
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss
from madgnet_bench.losses.targets import distance_map
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.tasks.schedules import Cosine

TASKS = ("region", "distance", "boundary")


def example(*shape: int, stages: int = 4, tasks: tuple[str, ...] = TASKS, seed: int = 0) -> tuple[SegmentationOutput, Tensor]:
    """Random maps of every stage, and masks of blobs."""
    draw = torch.Generator().manual_seed(seed)
    maps = tuple({task: (torch.randn(shape, generator=draw) * 3).requires_grad_() for task in tasks} for _ in range(stages))
    coarse = torch.rand((*shape[:2], 4, 4), generator=draw)
    mask = (nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear") > 0.55).float()
    return SegmentationOutput(maps[-1]["region"], auxiliary=maps), mask


def gradients(output: SegmentationOutput) -> list[set[str]]:
    """Which maps of each stage have a gradient that is not zero."""
    return [{task for task, x in maps.items() if x.grad is not None and x.grad.any()} for maps in output.auxiliary]


# The formulas, in NumPy


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def expected_terms(output: SegmentationOutput, mask: Tensor, present: np.ndarray, *, weighted_bce: bool) -> dict[str, float]:
    terms: dict[str, float] = {}
    count = present.sum()
    for stage, maps in enumerate(output.auxiliary, start=1):
        sums = dict.fromkeys(("region_bce", "region_iou", "distance", "boundary"), 0.0)
        for place in zip(*np.nonzero(present), strict=True):
            m = mask.double().numpy()[place]
            region, distance, boundary = (maps[task].detach().double().numpy()[place] for task in TASKS)
            weight = 1 + 5 * np.abs(ndimage.uniform_filter(m, 31, mode="constant") - m)
            bce = softplus(region) - region * m
            p = 1 / (1 + np.exp(-region))
            sums["region_bce"] += (weight * bce).sum() / weight.sum() if weighted_bce else bce.mean()
            union = (weight * (p + m - p * m)).sum()
            sums["region_iou"] += 1 - ((weight * p * m).sum() + 1) / (union + 1)
            depth = ndimage.distance_transform_edt(m)
            sums["distance"] += ((1 / (1 + np.exp(-distance)) - depth / max(depth.max(), 1)) ** 2).mean()
            edge = np.hypot(*(ndimage.sobel(m, axis, mode="nearest") / 8 for axis in (0, 1))) >= 0.5
            sums["boundary"] += (softplus(boundary) - boundary * edge).mean()
        terms |= {f"{name}_{stage}": value / count for name, value in sums.items()}
    return terms


@pytest.mark.parametrize("weighted_bce", [False, True])
@pytest.mark.parametrize("targets", [1, 3])
def test_terms_equal_the_formulas(weighted_bce: bool, targets: int) -> None:
    output, mask = example(2, targets, 40, 36)
    present = np.ones((2, targets), bool)
    loss = MultiTaskLoss(region=StructureLoss(weighted_bce=True)) if weighted_bce else MultiTaskLoss()
    terms = {name: value.item() for name, value in loss(output, batch_of(mask)).items()}
    expected = expected_terms(output, mask, present, weighted_bce=weighted_bce)
    assert list(terms) == list(expected)
    assert terms == pytest.approx(expected, rel=1e-4)


def test_absent_targets_count_nothing() -> None:
    output, mask = example(2, 3, 24, 24)
    present = torch.tensor([[True, False, True], [False, False, True]])
    terms = MultiTaskLoss()(output, batch_of(mask, present))
    expected = expected_terms(output, mask, present.numpy(), weighted_bce=False)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=1e-4)
    sum(terms.values()).backward()
    for maps in output.auxiliary:
        for logits in maps.values():
            assert (logits.grad.abs().sum((2, 3)) > 0).tolist() == present.tolist()


def test_nothing_present() -> None:
    output, mask = example(2, 2, 8, 8)
    terms = MultiTaskLoss()(output, batch_of(mask, torch.zeros(2, 2, dtype=torch.bool)))
    assert len(terms) == 16 and all(term == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert gradients(output) == [set()] * 4


# Every switch


@pytest.mark.parametrize("task", TASKS)
def test_a_task_weight_scales_its_terms_alone_and_zero_leaves_them_out(task: str) -> None:
    output, mask = example(1, 2, 16, 16)
    plain, scaled, without = (MultiTaskLoss(**{f"{task}_weight": weight})(output, batch_of(mask)) for weight in (1.0, 2.5, 0.0))
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value * (2.5 if name.startswith(task) else 1))
    assert without.keys() == {name for name in plain if not name.startswith(task)}
    sum(without.values()).backward()
    assert gradients(output) == [set(TASKS) - {task}] * 4


def test_stage_weights_scale_their_stage_and_zero_leaves_it_out() -> None:
    output, mask = example(1, 1, 16, 16)
    plain = MultiTaskLoss()(output, batch_of(mask))
    scaled = MultiTaskLoss(stage_weights=(0.5, 0, 1, 3))(output, batch_of(mask))
    assert scaled.keys() == {name for name in plain if not name.endswith("2")}
    for name, value in scaled.items():
        torch.testing.assert_close(value, plain[name] * {"1": 0.5, "3": 1, "4": 3}[name[-1]])
    sum(scaled.values()).backward()
    assert gradients(output) == [set(TASKS), set(), set(TASKS), set(TASKS)]


def test_the_region_loss_is_injected() -> None:
    output, mask = example(1, 1, 16, 16)
    terms = MultiTaskLoss(region=DiceBCELoss(2.0, 0.5), region_weight=3.0)(output, batch_of(mask))
    alone = DiceBCELoss(2.0, 0.5)(output, batch_of(mask))
    assert [name for name in terms if name.startswith("region")] == list(alone)
    for name, value in alone.items():
        torch.testing.assert_close(terms[name], 3 * value)


def test_the_boundary_threshold_widens_the_boundary() -> None:
    output, mask = example(1, 1, 16, 16)
    sure = SegmentationOutput(
        output.logits, auxiliary=tuple(maps | {"boundary": maps["boundary"] * 0 + 9} for maps in output[1])
    )
    narrow, wide = (MultiTaskLoss(boundary_threshold=t)(sure, batch_of(mask)) for t in (0.5, 0.1))
    assert wide["boundary_1"] < narrow["boundary_1"]
    assert wide["distance_1"] == narrow["distance_1"]


def test_without_activation_the_target_itself_costs_nothing() -> None:
    output, mask = example(2, 1, 40, 36)
    perfect = SegmentationOutput(output.logits, tuple(maps | {"distance": distance_map(mask)} for maps in output.auxiliary))
    costs = {
        activation: MultiTaskLoss(distance_activation=activation)(perfect, batch_of(mask))["distance_4"].item()
        for activation in ("identity", "sigmoid")
    }
    assert costs["identity"] == 0
    assert costs["sigmoid"] > 0.1


def test_region_alone_needs_no_other_map() -> None:
    output, mask = example(1, 1, 16, 16, tasks=("region",))
    terms = MultiTaskLoss(distance_weight=0, boundary_weight=0)(output, batch_of(mask))
    alone = StructureLoss()(output, batch_of(mask))
    assert list(terms) == list(alone) and all(torch.equal(terms[name], alone[name]) for name in alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region_weight": -1.0}, r"task weights of MultiTaskLoss are \(-1.0, 1.0, 1.0\)"),
        ({"distance_weight": float("nan")}, "must not be negative"),
        ({"region_weight": 0, "distance_weight": 0, "boundary_weight": 0}, "one must be positive"),
        ({"stage_weights": (0, 0)}, "stage weights"),
        ({"stage_weights": ()}, "stage weights"),
    ],
)
def test_bad_weights(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultiTaskLoss(**options)


# Outputs that do not fit


def test_a_network_without_the_maps_is_told_which_flag_to_set() -> None:
    output, mask = example(1, 1, 16, 16, tasks=("region",))
    with pytest.raises(ConfigError, match=r"distance and boundary, and stage 1 .* only region; set .* supervision: multi_task"):
        MultiTaskLoss()(output, batch_of(mask))
    with pytest.raises(ConfigError, match="boundary_weight to 0"):
        MultiTaskLoss(distance_weight=0)(output, batch_of(mask))
    with pytest.raises(ConfigError, match=r"returns none; choose .* MADGNet with supervision: multi_task"):
        MultiTaskLoss()(SegmentationOutput(output.logits), batch_of(mask))


def test_stages_and_shapes_must_agree() -> None:
    output, mask = example(1, 2, 16, 16, stages=3)
    with pytest.raises(ConfigError, match="4 stage_weights, the network 3 stages"):
        MultiTaskLoss()(output, batch_of(mask))
    assert "boundary_3" in MultiTaskLoss(stage_weights=(1, 1, 1))(output, batch_of(mask))
    with pytest.raises(ValueError, match=r"region map 1 is \(1, 2, 16, 16\), the mask is \(1, 1, 16, 16\)"):
        MultiTaskLoss(stage_weights=(1, 1, 1))(output, batch_of(mask[:, :1]))


# Numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [6e4, -6e4, 0.0])
@pytest.mark.parametrize("kind", ["empty", "full", "one pixel"])
def test_extreme_logits(dtype: torch.dtype, value: float, kind: str) -> None:
    mask = torch.full((1, 1, 12, 12), float(kind == "full"))
    mask[0, 0, 5, 6] = float(kind != "empty")
    maps = tuple({task: torch.full(mask.shape, value, dtype=dtype, requires_grad=True) for task in TASKS} for _ in range(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = MultiTaskLoss()(SegmentationOutput(maps[-1]["region"], auxiliary=maps), batch_of(mask))
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert all(logits.grad.isfinite().all() for stage in maps for logits in stage.values())


@pytest.mark.parametrize("kind", ["empty", "full", "one pixel"])
def test_the_best_answer_to_a_degenerate_mask_costs_least(kind: str) -> None:
    mask = torch.full((1, 1, 12, 12), float(kind == "full"))
    mask[0, 0, 5, 6] = float(kind != "empty")
    right = {"region": 50 * (2 * mask - 1), "distance": 50 * (2 * mask - 1), "boundary": torch.full_like(mask, -50)}
    wrong = {task: -logits for task, logits in right.items()}
    costs = [MultiTaskLoss()(SegmentationOutput(mask, auxiliary=(maps,) * 4), batch_of(mask)) for maps in (right, wrong)]
    assert sum(costs[0].values()).item() == pytest.approx(0, abs=1e-4)
    assert all(costs[1][name] > value + 0.3 for name, value in costs[0].items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_term(dtype: torch.dtype) -> None:
    output, mask = example(2, 2, 40, 40)
    plain = MultiTaskLoss()(output, batch_of(mask))
    with torch.autocast("cpu", dtype=dtype):
        cast = MultiTaskLoss()(output, batch_of(mask))
    assert all(torch.equal(cast[name], plain[name]) for name in plain)


# With the network


def tiny() -> MADGNet:
    torch.manual_seed(0)
    return MADGNet(1, encoder="resnet10t", frequencies=2, scales=2, supervision="multi_task").train()


def phantoms(number: int, size: int = 64) -> SegmentationBatch:
    data = CaseDataset(PhantomDataset("microscopy", size=size, cases=5), range(number), size=size, targets=("nuclei",))
    return SegmentationBatch.collate([data[row] for row in range(number)])


def test_two_steps_change_every_parameter() -> None:
    network, batch, loss = tiny(), phantoms(2), MultiTaskLoss()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        sum(loss(network(batch.image), batch).values()).backward()
        optimizer.step()
    same = [name for name, parameter in network.named_parameters() if torch.equal(parameter, before[name])]
    # batch normalisation subtracts these biases again: their gradient is zero but for rounding
    assert [n for n in same if not re.search(r"skip_connection\.\d\.0\.bias|decoder_stage\.\d\.conv[12]\.0\.bias", n)] == []


def test_every_parameter_has_a_finite_gradient_in_bfloat16() -> None:
    network, batch = tiny(), phantoms(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = MultiTaskLoss()(network(batch.image), batch)
    assert len(terms) == 16 and all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


class Curves(Callback):
    """Keeps the logged mean of every term, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logged = trainer.callback_metrics.items()
        self.epochs.append({name: value.item() for name, value in logged if name.startswith("train/")})


def test_every_term_falls_in_a_small_fit_at_two_rates() -> None:
    protocol = "madgnet[size=64]"
    data = SeenUnseenDataModule(
        [PhantomDataset("dermoscopy", size=64, cases=10)], batches=ShuffledBatches(4), rates=(1, 1.5), protocol=protocol
    )
    adam = partial(torch.optim.Adam, lr=3e-3)
    task = tiny_task(tiny(), loss=MultiTaskLoss(), optimizer=adam, schedule=Cosine(), protocol=protocol)
    curves = Curves()
    trainer = quiet_trainer(max_epochs=6, limit_val_batches=0, callbacks=[curves])
    trainer.fit(task, datamodule=data)
    first, *_, last = curves.epochs
    assert trainer.global_step == 6 * len(data.train_dataloader())
    assert len(first) == 17  # four terms of four stages, and their sum
    assert all(last[name] < 0.95 * first[name] for name in first), {name: (first[name], last[name]) for name in first}
    assert last["train/loss"] < 0.8 * first["train/loss"]
