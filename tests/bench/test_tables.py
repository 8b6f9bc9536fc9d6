from __future__ import annotations

import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import PROTOCOL, SETTINGS, case_rows, cell, run, write_result, write_run

from madgnet_bench.bench.render import to_csv, to_text
from madgnet_bench.bench.resampling import interval, read_replicates, write_replicates
from madgnet_bench.bench.selection import Selection
from madgnet_bench.bench.store import Cell, Run, load_runs
from madgnet_bench.bench.tables import Table, build_tables
from madgnet_bench.errors import ConfigError, RunError


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


def test_the_worst_column_by_the_direction_of_the_measure() -> None:
    runs = [run("A", near=0.9, far=0.2, further=0.3)]
    (row,) = single(runs).rows
    assert row.worst is not None
    assert (row.worst[0], row.worst[1].mean) == ("far", 0.2)
    (row,) = single(runs, "mae").rows
    assert row.worst is not None
    assert (row.worst[0], row.worst[1].mean) == ("far", pytest.approx(0.8))
    assert single([run("A", further=None), run("B")]).rows[-1].worst is None


def test_means_have_a_spread_over_seeds_of_their_own() -> None:
    (row,) = single([run(seed=1, far=0.6, further=0.2), run(seed=2, far=0.4, further=0.5)]).rows
    assert row.unseen.std == pytest.approx(statistics.stdev([0.4, 0.45]))
    assert row.seen.std == 0
    assert row.difference.std == pytest.approx(statistics.stdev([0.5, 0.45]))


def prompted(network: str = "SAM", prompts: str = "box", value: float = 0.99) -> Run:
    protocol = f"madgnet[size=64,prompts={prompts}]"
    return run(network, cells=tuple(cell(name, value, protocol=protocol) for name in SETTINGS))


def test_rows_that_were_prompted_with_the_reference_stand_apart() -> None:
    table = single([prompted(), run("A"), run("B", near=0.8)])
    assert table.protocol == PROTOCOL
    assert [(row.label, row.prompted, row.mean_rank, row.prompts) for row in table.rows] == [
        ("A", False, pytest.approx(4 / 3), "none"),
        ("B", False, pytest.approx(5 / 3), "none"),
        ("SAM", True, None, "box"),
    ]
    assert table.rows[-1].unseen_mean == pytest.approx(0.99)
    assert any(note == "Prompted with the reference, and so apart and without rank: SAM (told box)." for note in table.notes)


def test_a_prompt_that_reads_no_reference_competes() -> None:
    table = single([prompted(prompts="image_box"), run("A")])
    assert [(row.label, row.mean_rank) for row in table.rows] == [("SAM", 1), ("A", 2)]


def test_prompted_runs_alone_and_by_their_protocol() -> None:
    assert [row.label for row in single([prompted()]).rows] == ["SAM"]
    (table,) = build_tables([prompted(), run("A")], protocol="madgnet[size=64,prompts=box]")
    assert [row.label for row in table.rows] == ["SAM"]
    other = prompted("B", "point")
    assert [row.prompts for row in single([prompted(), other]).rows] == ["point", "box"]


def test_an_automatic_and_a_prompted_test_of_one_run_are_two_rows() -> None:
    both = run("A", cells=(*run().cells, *prompted().cells))
    assert [(row.label, row.prompted) for row in single([both]).rows] == [("A", False), ("A", True)]


def test_sets_seen_in_pretraining_are_marked_and_counted() -> None:
    cells = (cell("busi", 0.9, setting="seen"), cell("kvasir", 0.5, setting="unseen"))
    table = single([run("A", cells=cells, pretraining=("Kvasir-SEG", "ImageNet")), run("B", cells=cells)])
    a, b = table.rows
    assert (a.contaminated, b.contaminated) == (("kvasir",), ())
    assert a.unseen_mean == b.unseen_mean == 0.5
    assert any("Seen in pretraining (\u2020): A on kvasir. These scores count" in note for note in table.notes)


def mixed(network: str, **changes: float) -> Run:
    values = {"a": 0.9, "b": 0.8, "c": 0.5, "d": 0.7, "e": 0.3} | changes
    kinds = {"a": "seen ct", "b": "seen us", "c": "unseen ct", "d": "unseen us", "e": "unseen ct"}
    cells = [
        cell(name, value, setting=kinds[name].split()[0], modality=kinds[name].split()[1]) for name, value in values.items()
    ]
    return run(network, cells=tuple(cells), training_sets=("a", "b"))


def test_mixed_modality_training_has_a_mean_per_modality() -> None:
    table = single([mixed("A"), mixed("B", c=0.6)])
    assert [column.label for column in table.columns] == ["a", "b", "c", "e", "d"]
    assert table.modalities == (("seen", "ct"), ("seen", "us"), ("unseen", "ct"), ("unseen", "us"))
    assert [score.mean for score in table.rows[-1].modality_means] == pytest.approx([0.9, 0.8, 0.4, 0.7])
    assert table.rows[-1].unseen_mean == pytest.approx((0.5 + 0.7 + 0.3) / 3)
    assert single([run()]).modalities == ()


def test_tables_by_modality() -> None:
    tables = build_tables([mixed("A"), mixed("B")], group_by="modality")
    assert [(table.modality, [column.label for column in table.columns]) for table in tables] == [
        ("ct", ["a", "c", "e"]),
        ("us", ["b", "d"]),
    ]
    assert tables[0].rows[0].unseen_mean == pytest.approx(0.4)


def test_a_selection_is_noted_with_what_it_does_to_means() -> None:
    (table,) = build_tables([run("A"), run("B")], selection=Selection(datasets=("near", "far"), networks=("a",)))
    assert [column.label for column in table.columns] == ["near", "far"]
    assert [row.label for row in table.rows] == ["A"]
    assert "Selected: network a, test set near or far; means, gap and ranks are over what is shown." in table.notes
    assert not any(note.startswith("Selected") for note in single([run()]).notes)


@pytest.mark.parametrize(
    ("sort", "labels"),
    [
        ("rank", ["C", "B", "A"]),
        ("seen", ["A", "B", "C"]),
        ("unseen", ["C", "B", "A"]),
        ("gap", ["C", "B", "A"]),
        ("worst", ["C", "B", "A"]),
        ("name", ["A", "B", "C"]),
        ("parameters", ["B", "C", "A"]),
        ("gmac", ["C", "B", "A"]),
        ("time", ["B", "C", "A"]),
        ("near", ["A", "B", "C"]),
        ("far", ["C", "B", "A"]),
    ],
)
def test_sorting(sort: str, labels: list[str]) -> None:
    runs = [
        run("A", near=0.9, far=0.4, further=0.1, parameters=30, costs={"gmac": 3.0}),
        run("B", near=0.8, far=0.5, further=0.2, parameters=10, costs={"gmac": 2.0, "milliseconds_per_image": 1.0}),
        run("C", near=0.7, far=0.6, further=0.3, parameters=20, costs={"gmac": 1.0, "milliseconds_per_image": 2.0}),
    ]
    for order in (runs, runs[::-1]):
        (table,) = build_tables(order, sort=sort)
        assert [row.label for row in table.rows] == labels


def test_an_unknown_key_to_sort_by() -> None:
    with pytest.raises(ConfigError, match="cannot sort by 'unsen'; did you mean 'unseen'"):
        build_tables([run()], sort="unsen")


def from_disk(root: Path) -> Table:
    (table,) = build_tables(load_runs([root]).runs, intervals=True)
    return table


@pytest.mark.parametrize("stored", [False, True])
def test_intervals_over_cases_are_of_the_mean_over_seeds(tmp_path: Path, stored: bool) -> None:
    folders = [write_run(tmp_path, case_rows(seed), seed=seed) for seed in (1, 2)]
    if stored:
        write_replicates(folders[0])
    table = from_disk(tmp_path)
    (row,) = table.rows
    draws = {
        name: np.mean([read_replicates(folder, "dsc")[setting, name, "lesion", PROTOCOL].values for folder in folders], axis=0)
        for name, setting in (("near", "seen"), ("far", "unseen"))
    }
    assert table.intervals
    assert row.scores[0].interval == pytest.approx(interval(draws["near"], 3), abs=1e-6)
    assert row.seen.interval == row.scores[0].interval
    assert row.unseen.interval == pytest.approx(interval(draws["far"], 4), abs=1e-6)
    assert row.difference.interval == pytest.approx(interval(draws["near"] - draws["far"], 3), abs=1e-6)
    notes = "\n".join(table.notes)
    assert "which the intervals resample: near 3, far 4." in notes
    assert "fewer than ten groups are rough, and rather too narrow: near, far." in notes


def test_one_group_and_pooled_measures_have_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows(per_group=6))
    table = from_disk(tmp_path)
    assert [score.interval is None for score in table.rows[0].scores] == [True, False]
    assert (table.rows[0].seen.interval, table.rows[0].difference.interval) == (None, None)
    assert "No interval, for lack of a second group: near, and the means over it." in table.notes
    runs = [
        replace(one, cells=tuple(replace(c, measures={"ece": 0.1}) for c in one.cells)) for one in load_runs([tmp_path]).runs
    ]
    (table,) = build_tables(runs, "ece", intervals=True)
    assert table.rows[0].scores[0].interval is None
    assert "No intervals: ECE of a data set is no mean over its cases." in table.notes


def test_incomplete_cells_have_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows(), network="A")
    write_run(tmp_path, case_rows(2, cases={"near": 6, "far": 5}), network="B")
    table = from_disk(tmp_path)
    row = next(row for row in table.rows if row.label == "B")
    assert (row.scores[1].missing, row.scores[1].interval) == ("seed 1 has 5 of 8 cases", None)
    assert row.scores[0].interval is not None


def test_other_groups_under_one_name_do_not_compare(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows(), network="A")
    write_run(tmp_path, case_rows(2, per_group=3), network="B")
    with pytest.raises(RunError, match=r"seen near:lesion .* holds cases of other groups in run A-1 .* and in run B-1"):
        from_disk(tmp_path)


def test_a_summary_that_does_not_follow_from_its_cases(tmp_path: Path) -> None:
    rows = case_rows()
    folder = write_run(tmp_path, rows)
    write_result(folder, case_rows(2))
    with pytest.raises(RunError, match=r"dsc is 0\.\d+ in result\.json, and 0\.\d+ is the mean of .*cases\.csv"):
        from_disk(tmp_path)
    folder.write_cases([row for row in rows if row.dataset == "near"])
    write_result(folder, rows)
    with pytest.raises(RunError, match=r"unseen far:lesion .*: in result.json, and not in .*cases\.csv"):
        from_disk(tmp_path)


def test_a_cell_that_is_missing_is_missing_in_a_selection_too() -> None:
    runs = [run("A", seed=0), run("A", seed=1, far=None), run("B", far=None)]
    (table,) = build_tables(runs, selection=Selection(datasets=("far",)))
    assert {row.label: row.scores[0].missing for row in table.rows} == {
        "A": "seed 1 has no result",
        "B": "seed 1 has no result",
    }
    assert [row.mean_rank for row in table.rows] == [None, None]


def test_one_network_of_several_sizes_has_several_names() -> None:
    sizes = [run("A", image_size=size, recipe=str(size)) for size in (64, 128)]
    assert {row.label for row in single([*sizes, run("B")]).rows} == {"A 64 px", "A 128 px", "B"}
    epochs = [run("A", epochs=number, recipe=str(number)) for number in (5, 50)]
    assert {row.label for row in single(epochs).rows} == {"A 5 epochs", "A 50 epochs"}
