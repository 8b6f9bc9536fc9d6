from __future__ import annotations

import pytest
import torch
from standins import batch_of
from torch import Tensor
from torch.nn import functional

from madgnet_bench.contracts import SegmentationLoss, SegmentationOutput
from madgnet_bench.losses.region import DiceBCELoss, StructureLoss, region_maps

LOSSES = [DiceBCELoss(), StructureLoss(), StructureLoss(weighted_bce=True)]


def example(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 3, (torch.rand(shape, generator=generator) > 0.7).float()


def test_dice_bce_by_hand() -> None:
    logits, mask = torch.tensor([[[[0.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    terms = DiceBCELoss(2.0, 3.0)(SegmentationOutput(logits), batch_of(mask))
    assert terms["region_bce"].item() == pytest.approx(2 * 0.6931472)
    assert terms["region_dice"].item() == pytest.approx(3 * (1 - (2 * 0.5 + 1) / (1 + 1 + 1)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(40, 50), (7, 3), (1, 1)])
def test_structure_loss_equals_the_two_dimensional_formula(weighted: bool, size: tuple[int, int]) -> None:
    logits, mask = example(2, 3, *size)
    weight = 1 + 5 * (functional.avg_pool2d(mask, 31, stride=1, padding=15) - mask).abs()
    bce = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    expected_bce = ((weight * bce).sum((2, 3)) / weight.sum((2, 3))).mean() if weighted else bce.mean()
    p = logits.sigmoid()
    intersection, union = (weight * p * mask).sum((2, 3)), (weight * (p + mask)).sum((2, 3))
    terms = StructureLoss(weighted_bce=weighted)(SegmentationOutput(logits), batch_of(mask))
    assert list(terms) == ["region_bce", "region_iou"]
    torch.testing.assert_close(terms["region_bce"], expected_bce)
    torch.testing.assert_close(terms["region_iou"], (1 - (intersection + 1) / (union - intersection + 1)).mean())


def test_boundary_pixels_weigh_more() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    losses = []
    for column in (2, 31):
        logits = torch.where(mask > 0, 9.0, -9.0)
        logits[..., column] = -9.0
        losses.append(StructureLoss(weighted_bce=True)(SegmentationOutput(logits), batch_of(mask)))
    assert losses[1]["region_iou"] > losses[0]["region_iou"]
    assert losses[1]["region_bce"] > losses[0]["region_bce"]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_every_stage_is_supervised(loss: SegmentationLoss) -> None:
    logits, mask = example(2, 1, 16, 16)
    stages = tuple({"region": logits * factor, "distance": logits * float("nan")} for factor in (0.0, 1.0))
    output = SegmentationOutput(logits, auxiliary=stages)
    assert list(region_maps(output)) == ["_1", "_2"]
    terms, plain = loss(output, batch_of(mask)), loss(SegmentationOutput(logits), batch_of(mask))
    assert list(terms) == [f"{name}_{stage}" for stage in (1, 2) for name in plain]
    for name in plain:
        assert torch.equal(terms[f"{name}_2"], plain[name])
        assert not torch.equal(terms[f"{name}_1"], plain[name])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_absent_targets_count_nothing(loss: SegmentationLoss) -> None:
    logits, mask = example(2, 2, 16, 16)
    logits.requires_grad_()
    present = torch.tensor([[True, False], [False, False]])
    terms = loss(SegmentationOutput(logits), batch_of(mask, present))
    alone = loss(SegmentationOutput(logits[:1, :1]), batch_of(mask[:1, :1]))
    for name, term in terms.items():
        torch.testing.assert_close(term, alone[name])
    sum(terms.values()).backward()
    assert (logits.grad.abs().sum(dim=(2, 3)) > 0).tolist() == present.tolist()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_nothing_present(loss: SegmentationLoss) -> None:
    logits, mask = example(2, 2, 8, 8)
    logits.requires_grad_()
    terms = loss(SegmentationOutput(logits), batch_of(mask, torch.zeros(2, 2, dtype=torch.bool)))
    assert all(term == 0 for term in terms.values())
    sum(terms.values()).backward()
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [6e4, -6e4, 0.0])
@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_extreme_logits(loss: SegmentationLoss, dtype: torch.dtype, value: float, foreground: float) -> None:
    logits = torch.full((1, 1, 40, 40), value, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss(SegmentationOutput(logits), batch_of(torch.full((1, 1, 40, 40), foreground)))
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_better_predictions_cost_less(loss: SegmentationLoss) -> None:
    _, mask = example(2, 1, 32, 32)
    costs = [
        sum(loss(SegmentationOutput((2 * mask - 1) * confidence), batch_of(mask)).values()).item()
        for confidence in (-5.0, 0.0, 5.0, 50.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_volumes(loss: SegmentationLoss) -> None:
    logits, mask = example(1, 2, 6, 7, 8)
    assert all(term.isfinite() for term in loss(SegmentationOutput(logits), batch_of(mask)).values())


def test_shapes_must_agree() -> None:
    logits, mask = example(1, 2, 8, 8)
    with pytest.raises(ValueError, match=r"logits are \(1, 2, 8, 8\), the mask is \(1, 1, 8, 8\)"):
        DiceBCELoss()(SegmentationOutput(logits), batch_of(mask[:, :1]))
