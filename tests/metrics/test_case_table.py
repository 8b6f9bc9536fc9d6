from __future__ import annotations

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from madgnet_bench.metrics.case_table import CaseMeasures
from madgnet_bench.metrics.measures import curve_shapes, measure_cases
from madgnet_bench.protocol import PROTOCOLS, VALIDATION_MEASURES

CASES, TARGETS = 37, 3
PROTOCOL = PROTOCOLS["native"]  # soft maps: values of every bit
MEASURES = PROTOCOL.measures


def tables():
    draw = torch.Generator().manual_seed(0)
    probability = torch.rand(CASES, TARGETS, 6, 7, generator=draw)
    mask = (torch.rand(CASES, TARGETS, 6, 7, generator=draw) > 0.6).float()
    present = torch.rand(CASES, TARGETS, generator=draw) > 0.3
    return probability, mask, present


def feed(metric, positions, *, batch_size):
    """Cases up to 20 are of data set 1, the others of data set 0."""
    probability, mask, present = tables()
    for dataset_index, chosen in ((1, [p for p in positions if p < 20]), (0, [p for p in positions if p >= 20])):
        for start in range(0, len(chosen), batch_size):
            part = torch.tensor(chosen[start : start + batch_size])
            metric.update(probability[part], mask[part], present=present[part], case_index=part, dataset_index=dataset_index)


def computed(metric):
    """Index, values and curves side by side."""
    table = metric.compute()
    assert table.places.dtype == torch.long
    assert {name: curve.shape[1:] for name, curve in table.curves.items()} == curve_shapes(PROTOCOL)
    return torch.cat([table.places.double(), table.values, *(curve.flatten(1) for curve in table.curves.values())], dim=1)


def collector():
    return CaseMeasures(PROTOCOL, curves=True)


def whole():
    metric = collector()
    feed(metric, range(CASES), batch_size=5)
    return computed(metric)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_rows_do_not_depend_on_the_batch_size(batch_size):
    metric = collector()
    feed(metric, range(CASES), batch_size=batch_size)
    assert torch.equal(computed(metric), whole())


def test_rows_are_sorted_complete_and_right():
    probability, mask, present = tables()
    rows = whole()
    keys = [tuple(row[:3]) for row in rows.tolist()]
    assert keys == sorted(keys)
    assert keys == [
        (dataset, case, target)
        for dataset, cases in ((0, range(20, CASES)), (1, range(20)))
        for case in cases
        for target in range(TARGETS)
        if present[case, target]
    ]
    values = measure_cases(probability, mask, protocol=PROTOCOL, curves=True)
    assert list(values) == [*MEASURES, "empty_case", *curve_shapes(PROTOCOL)]
    for _, case, target, empty_case, *numbers in rows.tolist():
        place = int(case), int(target)
        assert empty_case == values["empty_case"][place]
        assert numbers[: len(MEASURES)] == [values[name][place].item() for name in MEASURES]
        curves = torch.cat([values[name][place].flatten() for name in curve_shapes(PROTOCOL)])
        assert numbers[len(MEASURES) :] == curves.tolist()


def test_the_order_of_the_batches_does_not_matter():
    metric = collector()
    feed(metric, list(reversed(range(CASES))), batch_size=4)
    assert torch.equal(computed(metric), whole())


def test_absent_targets_leave_no_row():
    metric = CaseMeasures(PROTOCOL, measures=VALIDATION_MEASURES)
    zeros = torch.zeros(2, 2, 3, 3)
    present = torch.tensor([[True, False], [False, False]])
    metric.update(zeros, zeros, present=present, case_index=torch.tensor([4, 5]), dataset_index=0)
    table = metric.compute()
    assert (table.places.tolist(), table.values.tolist(), table.curves) == ([[0, 4, 0, 3]], [[1, 1, 0]], {})


def test_reset_forgets():
    metric = CaseMeasures(PROTOCOL)
    feed(metric, range(3), batch_size=3)
    metric.reset()
    feed(metric, [7], batch_size=1)
    assert metric.compute().places[:, 1].unique().tolist() == [7]
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute().values.shape == (0, len(MEASURES))


SHARES = {
    "uneven": [range(0, CASES, 2), range(1, CASES, 2)],
    "very uneven": [range(3), range(3, CASES)],
    "none on the second": [range(CASES), range(0)],
    "none on the first": [range(0), range(CASES)],
}


def _gather(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name, shares in SHARES.items():
        metric = collector()
        feed(metric, shares[rank], batch_size=4)
        found[name] = computed(metric)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_rows_of_one(tmp_path):
    torch.multiprocessing.spawn(_gather, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == SHARES.keys()
        assert all(torch.equal(rows, whole()) for rows in found.values())
