from __future__ import annotations

import pytest
from made_runs import run

from madgnet_bench.bench.rows import Costs
from madgnet_bench.bench.tables import build_tables

GPU = {"machine": "x86_64", "accelerator": "NVIDIA H200", "threads": 8}
CPU = {"machine": "x86_64", "accelerator": "CPU", "threads": 1}


def costs(*runs) -> Costs:  # type: ignore[no-untyped-def]
    (table,) = build_tables(list(runs))
    return table.rows[0].costs


def test_costs_are_means_over_seeds_and_the_greatest_memory() -> None:
    given = [
        {"gmac": 5.5, "milliseconds_per_image": 2.0, "peak_memory_mb": 100.0, "device_hours": 1.0, "reasons": {}},
        {"gmac": 5.5, "milliseconds_per_image": 4.0, "peak_memory_mb": 300.0, "device_hours": 2.0, "reasons": {}},
    ]
    found = costs(*(run(seed=seed, costs=content, hardware=GPU) for seed, content in enumerate(given)))
    assert found == Costs(gmac=5.5, milliseconds_per_image=3.0, peak_memory_mb=300.0, device_hours=1.5, hardware="NVIDIA H200")


def test_times_of_other_hardware_are_not_averaged() -> None:
    content = {"gmac": 5.5, "milliseconds_per_image": 2.0, "peak_memory_mb": 100.0, "device_hours": 1.0}
    runs = [run(seed=seed, costs=content, hardware=hardware) for seed, hardware in enumerate((GPU, CPU))]
    assert costs(*runs) == Costs(gmac=5.5, hardware="NVIDIA H200; CPU (x86_64, 1 thread)")
    (table,) = build_tables(runs)
    assert any("several machines and not averaged: NVIDIA H200; CPU" in note for note in table.notes)


@pytest.mark.parametrize("content", [{}, {"gmac": None}, {"gmac": "many"}, {"gmac": float("nan")}])
def test_unknown_costs_are_none(content: dict[str, object]) -> None:
    found = costs(run(costs=content, hardware=CPU))
    assert (found.gmac, found.milliseconds_per_image, found.device_hours) == (None, None, None)


def test_a_cost_that_one_seed_lacks_is_of_the_others() -> None:
    runs = [run(seed=1, costs={"device_hours": 2.0}, hardware=CPU), run(seed=2, costs={"device_hours": None}, hardware=CPU)]
    assert costs(*runs).device_hours == 2.0


def test_checkpoint_rules_are_named() -> None:
    rules = [run(seed=1, checkpoint={"rule": "last"}), run(seed=2, checkpoint={"rule": "best"})]
    (table,) = build_tables(rules)
    assert table.rows[0].checkpoint == "best, last"
    (table,) = build_tables([run()])
    assert table.rows[0].checkpoint == "unknown"
