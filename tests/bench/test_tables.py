from __future__ import annotations

import csv
import io
import re
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madgnet_bench import __version__
from madgnet_bench.bench.render import to_csv, to_markdown, to_text
from madgnet_bench.bench.store import Cell, Run
from madgnet_bench.bench.tables import Table, build_tables
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.records import RunFolder

PROTOCOL = "madgnet[size=64]"
SETTINGS = {"near": "seen", "far": "unseen", "further": "unseen"}


def cell(
    dataset: str, value: float, *, target: str = "lesion", protocol: str = PROTOCOL, cases: int = 10, both: int = 0
) -> Cell:
    return Cell(
        setting=SETTINGS[dataset],
        dataset=dataset,
        target=target,
        protocol=protocol,
        modality="ultrasound",
        domain="",
        cases=cases,
        empty={"neither": cases - both, "reference": 0, "prediction": 0, "both": both},
        measures={"dsc": value, "iou": value / 2, "mae": 1 - value},
    )


def run(
    network: str = "UNet",
    seed: int = 1,
    *,
    near: float | None = 0.9,
    far: float | None = 0.6,
    further: float | None = 0.3,
    cells: tuple[Cell, ...] | None = None,
    training_sets: tuple[str, ...] = ("near",),
    image_size: int = 64,
    epochs: int = 5,
    version: str = __version__,
    recipe: str = "",
    manifests: dict[str, str] | None = None,
    deviations: tuple[str, ...] = (),
) -> Run:
    given_cells = [
        cell(name, value) for name, value in (("near", near), ("far", far), ("further", further)) if value is not None
    ]
    run_id = f"{network}-{seed}-{image_size}-{epochs}-{version}-{recipe}-{'+'.join(training_sets)}"
    return Run(
        folder=RunFolder(Path("runs") / run_id),
        run_id=run_id,
        suite="adhoc",
        network=network,
        parameters=1_234_567,
        seed=seed,
        epochs=epochs,
        image_size=image_size,
        protocol=PROTOCOL,
        training_sets=training_sets,
        checkpoint={},
        manifests=manifests or {name: "00" for name in SETTINGS},
        cells=tuple(given_cells) if cells is None else cells,
        version=version,
        commit=None,
        hardware={},
        seconds=1.0,
        deviations=deviations,
        recipe=recipe or network,
    )


def single(runs: list[Run], measure: str = "dsc") -> Table:
    (table,) = build_tables(runs, measure)
    return table


def test_score_is_mean_over_seeds_with_sample_deviation() -> None:
    table = single([run(seed=1, near=0.8), run(seed=2, near=0.9), run(seed=3, near=0.85)])
    (row,) = table.rows
    assert row.seeds == (1, 2, 3)
    assert row.scores[0].mean == pytest.approx(0.85)
    assert row.scores[0].std == pytest.approx(statistics.stdev([0.8, 0.9, 0.85]))


def test_one_seed_has_no_spread() -> None:
    table = single([run()])
    assert table.rows[0].scores[0].std is None
    assert "\u00b1" not in to_text([table]).split("Cases:")[0]


def test_means_gap_and_column_order() -> None:
    table = single([run(near=0.9, far=0.6, further=0.3)])
    assert [(column.setting, column.dataset) for column in table.columns] == [
        ("seen", "near"),
        ("unseen", "far"),
        ("unseen", "further"),
    ]
    (row,) = table.rows
    assert row.seen_mean == pytest.approx(0.9)
    assert row.unseen_mean == pytest.approx(0.45)
    assert row.gap == pytest.approx(0.45)
    assert row.mean_rank == 1


def test_without_unseen_sets_there_is_no_gap() -> None:
    (row,) = single([run(far=None, further=None)]).rows
    assert (row.seen_mean, row.unseen_mean, row.gap) == (0.9, None, None)


def test_ranks_average_over_columns_and_ties() -> None:
    table = single(
        [
            run("A", near=0.9, far=0.5, further=0.5),
            run("B", near=0.8, far=0.5, further=0.6),
            run("C", near=0.7, far=0.4, further=0.1),
        ]
    )
    ranks = {row.label: row.mean_rank for row in table.rows}
    assert ranks == {
        "A": pytest.approx((1 + 1.5 + 2) / 3),
        "B": pytest.approx((2 + 1.5 + 1) / 3),
        "C": pytest.approx(3),
    }
    assert [row.label for row in table.rows] == ["B", "A", "C"]  # equal ranks: the greater unseen mean first


def test_lower_mae_is_better() -> None:
    table = single([run("A", near=0.9), run("B", near=0.8)], "mae")
    assert [row.label for row in table.rows] == ["A", "B"]
    assert table.rows[0].scores[0].mean == pytest.approx(0.1)
    assert "MAE in %, lower is better" in to_text([table])


def test_a_seed_without_result_makes_the_cell_missing() -> None:
    table = single([run("A", 1), run("A", 2, far=None), run("B", 1), run("B", 2)])
    best, incomplete = table.rows
    assert (best.label, best.mean_rank) == ("B", 1)
    assert incomplete.scores[1].mean is None
    assert incomplete.scores[1].missing == "seed 2 has no result"
    assert incomplete.scores[0].mean == pytest.approx(0.9)
    assert incomplete.seen_mean == pytest.approx(0.9)
    assert (incomplete.unseen_mean, incomplete.gap, incomplete.mean_rank) == (None, None, None)
    text = to_text([table])
    assert "Missing (\u2013): A on far: seed 2 has no result." in text


def test_fewer_cases_than_the_column_make_the_cell_missing() -> None:
    short = tuple(cell(name, 0.9, cases=7 if name == "near" else 10) for name in SETTINGS)
    table = single([run("A", cells=short), run("B")])
    row = next(row for row in table.rows if row.label == "A")
    assert row.scores[0].missing == "seed 1 has 7 of 10 cases"
    assert row.seen_mean is None
    assert row.unseen_mean == pytest.approx(0.9)
    assert table.columns[0].cases == 10


def test_a_network_that_was_not_tested_on_a_set_is_not_ranked() -> None:
    table = single([run("A", further=None), run("B")])
    assert [row.mean_rank for row in table.rows] == [1, None]


def test_several_targets_are_columns_of_their_own() -> None:
    cells = (cell("near", 0.9, target="disc"), cell("near", 0.7, target="cup"), cell("far", 0.5, target="disc"))
    table = single([run(cells=cells)])
    assert [column.label for column in table.columns] == ["near:cup", "near:disc", "far"]
    assert table.rows[0].seen_mean == pytest.approx(0.8)


def test_both_empty_cases_are_a_footnote() -> None:
    seeds = [run(seed=seed, cells=(cell("near", 0.9, both=both), cell("far", 0.5))) for seed, both in ((1, 2), (2, 4))]
    notes = "\n".join(single(seeds).notes)
    assert re.search(r"both empty.*near 2 to 4 of 10 cases", notes)
    assert "both empty" not in "\n".join(single([run()]).notes)


def test_training_sets_make_tables_of_their_own() -> None:
    tables = build_tables([run("A"), run("B", training_sets=("far", "near")), run("B")])
    assert [(table.training_sets, len(table.rows)) for table in tables] == [(("far", "near"), 1), (("near",), 2)]
    assert "Trained on far, near" in to_text(tables)


def test_two_protocols_need_a_choice() -> None:
    other = run("B", cells=(cell("near", 0.5, protocol="native"),))
    with pytest.raises(RunError, match=r"madgnet\[size=64\] \(2 runs\), native \(1 run\).*--protocol"):
        build_tables([run("A"), run("A", 2), other])
    (table,) = build_tables([run("A"), other], protocol="native")
    assert [row.label for row in table.rows] == ["B"]
    (table,) = build_tables([run("A"), other], protocol="madgnet[size=64,checkpoint=best]")
    assert (table.protocol, [row.label for row in table.rows]) == (PROTOCOL, ["A"])


def test_a_protocol_that_no_run_holds_or_that_does_not_exist() -> None:
    with pytest.raises(RunError, match=r"no run holds protocol native; the runs hold madgnet\[size=64\] \(1 run\)"):
        build_tables([run()], protocol="native")
    with pytest.raises(ConfigError, match="did you mean 'native'"):
        build_tables([run()], protocol="nativ")


def test_an_unknown_measure_or_no_run() -> None:
    with pytest.raises(ConfigError, match="valid: dsc, iou, miou"):
        build_tables([run()], "accuracy")
    with pytest.raises(RunError, match="no finished run"):
        build_tables([])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 91.2, -0.1])
def test_values_that_are_no_fractions_name_run_and_cell(value: float) -> None:
    with pytest.raises(RunError, match=r"run UNet-1.*unseen far:lesion .*dsc is .*not a fraction"):
        build_tables([run(far=value)])


def test_a_measure_that_was_not_taken() -> None:
    bare = cell("near", 0.5)
    without = Cell(**{**bare.__dict__, "measures": {"dsc": 0.5}})
    with pytest.raises(RunError, match=r"no measure iou; it has dsc"):
        build_tables([run(cells=(without,))], "iou")


def test_other_cases_under_one_name_do_not_compare() -> None:
    with pytest.raises(RunError, match=r"data set near does not hold the same cases in run A-1.* and in run B-1"):
        build_tables([run("A", manifests={"near": "00"}), run("B", manifests={"near": "11"})])


def test_one_seed_twice_is_an_error() -> None:
    twin = Run(**{**run().__dict__, "run_id": "twin"})
    with pytest.raises(RunError, match="both seed 1 of UNet"):
        build_tables([run(), twin])


def test_other_configurations_are_never_averaged() -> None:
    table = single([run(seed=1, recipe="aaaa11", near=0.9), run(seed=2, recipe="bbbb22", near=0.1)])
    assert [row.label for row in table.rows] == ["UNet #aaaa", "UNet #bbbb"]
    assert [row.seeds for row in table.rows] == [(1,), (2,)]
    assert any("another configuration" in note for note in table.notes)


@pytest.mark.parametrize(("change", "header"), [({"image_size": 128}, "px"), ({"epochs": 9}, "epochs")])
def test_what_differs_is_a_column_and_what_does_not_is_in_the_title(change: dict[str, int], header: str) -> None:
    text = to_text([single([run("A", recipe="one"), run("A", recipe="two", **change)])])  # type: ignore[arg-type]
    lines = text.splitlines()
    assert header in next(line for line in lines if line.startswith("model")).split()
    assert "#" not in text
    assert lines[1].startswith("Trained on near (")
    assert "(64 px, 5 epochs)" in to_text([single([run()])])


def test_stale_rows_are_apart_and_marked() -> None:
    table = single([run(seed=1), run(seed=2, version="0.0.1")])
    labels = {row.label: row.stale for row in table.rows}
    assert labels == {"UNet": False, "UNet (stale 0.0.1)": True}
    assert any(note.startswith("Stale: UNet (stale 0.0.1)") for note in table.notes)


def test_deviations_stand_below_the_table_once() -> None:
    table = single([run(seed=seed, deviations=("one stage only",)) for seed in (1, 2)])
    assert [note for note in table.notes if "Deviation" in note] == ["Deviation: UNet: one stage only"]


@settings(max_examples=30, deadline=None)
@given(st.permutations([run(name, seed) for name in "AB" for seed in (1, 2)]))
def test_the_order_of_runs_does_not_matter(runs: list[Run]) -> None:
    assert to_csv(build_tables(runs)) == to_csv(build_tables(sorted(runs, key=lambda run: run.run_id)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=4))
def test_numbers_agree_with_a_plain_computation(values: list[tuple[float, float, float]]) -> None:
    runs = [run(f"N{number}", near=near, far=far, further=further) for number, (near, far, further) in enumerate(values)]
    rows = {row.label: row for row in single(runs).rows}
    for number, scores in enumerate(values):
        ranks = []
        for column in range(3):
            rounded = [round(other[column], 12) for other in values]
            mine = rounded[number]
            ranks.append(1 + sum(v > mine for v in rounded) + (sum(v == mine for v in rounded) - 1) / 2)
        row = rows[f"N{number}"]
        assert row.mean_rank == pytest.approx(statistics.fmean(ranks))
        assert row.unseen_mean == pytest.approx(statistics.fmean(scores[1:]))


def test_text_fits_the_width_and_keeps_the_summary_together() -> None:
    many = tuple(cell(name, 0.5, target=f"target-{number}") for name in SETTINGS for number in range(5))
    table = single([run("A" * 30, cells=many), run("B", cells=many)])
    text = to_text([table], width=120)
    assert max(map(len, text.splitlines())) <= 120
    headers = [line for line in text.splitlines() if line.startswith("model")]
    assert len(headers) > 1
    assert [("mean rank" in header, "seen mean  unseen mean" in header) for header in headers[-2:]] == [
        (False,) * 2,
        (True,) * 2,
    ]


def test_markdown_is_a_well_formed_table() -> None:
    markdown = to_markdown([single([run("A|B"), run("C", far=None)])])
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "far (unseen)" in rows[0]
    assert "A\\|B" in markdown
    assert "- Missing" in markdown


def test_csv_is_tidy_and_exact() -> None:
    runs = [run(seed=1, near=1 / 3), run(seed=2, near=2 / 3), run("B", 1, far=None)]
    rows = list(csv.DictReader(io.StringIO(to_csv(build_tables(runs)))))
    assert len(rows) == 6
    by_key = {(row["network"], row["dataset"]): row for row in rows}
    assert float(by_key["UNet", "near"]["mean"]) == pytest.approx(0.5, abs=1e-10)
    assert float(by_key["UNet", "near"]["std"]) == pytest.approx(statistics.stdev([1 / 3, 2 / 3]), abs=1e-10)
    assert by_key["UNet", "near"]["seeds"] == "1 2"
    assert by_key["UNet", "near"]["protocol"] == PROTOCOL
    missing = by_key["B", "far"]
    assert (missing["mean"], missing["std"], missing["missing"]) == ("", "", "seed 1 has no result")
    assert {row["stale"] for row in rows} == {"false"}
