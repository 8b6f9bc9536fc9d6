import numpy as np
import pandas as pd
import pytest

from madgnet_bench.bench.cases import COLUMNS
from madgnet_bench.bench.statistics import paired_scores
from madgnet_bench.errors import ConfigError, RunError

CASES = {"c1": "p1", "c2": "p1", "c3": "p2"}


def rows(run, network, seed, values, *, recipe="r", cases=CASES, **other):
    shared = {"run_id": run, "network": network, "recipe": recipe, "seed": seed, "training_sets": "busi"}
    shared |= {"setting": "unseen", "dataset": "stu", "target": "lesion", "modality": "ultrasound", "domain": "stu"}
    return [
        {**shared, "empty_case": "neither", "case_id": case, "group_id": group, "dsc": value, **other}
        for (case, group), value in zip(cases.items(), values, strict=True)
    ]


BASE = [
    *rows("run1", "UNet", 0, [0.1, 0.2, 0.3]),
    *rows("run2", "UNet", 1, [0.4, 0.5, 0.6]),
    *reversed(rows("run3", "MADGNet", 0, [0.7, 0.8, 0.9])),
]


def frame(*extra):
    return pd.DataFrame([*BASE, *extra])


def test_cases_are_paired_whatever_their_order():
    found = paired_scores(frame(), "UNet", "MADGNet", "dsc")
    assert found.a.tolist() == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]
    assert found.b.tolist() == [[0.7, 0.8, 0.9]]
    assert found.groups.tolist() == ["p1", "p1", "p2"]
    assert set(COLUMNS) <= set(frame().columns)


def test_a_model_is_chosen_by_several_columns_where_its_name_is_not_enough():
    table = frame(*rows("run4", "UNet", 0, [0.5, 0.5, 0.5], recipe="other"))
    with pytest.raises(ConfigError, match=r"UNet fits 2 models \(UNet, r, busi; UNet, other, busi\)"):
        paired_scores(table, "UNet", "MADGNet", "dsc")
    found = paired_scores(table, {"network": "UNet", "recipe": "other"}, {"network": "UNet", "recipe": "r"}, "dsc")
    assert found.runs == (1, 2)


@pytest.mark.parametrize(
    ("a", "b", "measure", "message"),
    [
        ("UNett", "MADGNet", "dsc", "no case of a model with network 'UNett'; did you mean 'UNet'"),
        ("UNet", {"netwrk": "MADGNet"}, "dsc", "no column 'netwrk'.*did you mean 'network'"),
        ("UNet", "MADGNet", "dcs", "no measure 'dcs'.*did you mean 'dsc'"),
        ("UNet", "UNet", "dsc", "run run1 belongs to both models"),
    ],
)
def test_wrong_names_are_answered_with_right_ones(a, b, measure, message):
    with pytest.raises(ConfigError, match=message):
        paired_scores(frame(), a, b, measure)


def test_unpaired_cases_are_named():
    more = {"c4": "p3", "c5": "p3", "c6": "p3", "c7": "p3"}
    with pytest.raises(RunError, match=r"run run1 of UNet has no dsc for 4 of 7 cases, c4, c5, c6 and 1 more"):
        paired_scores(frame(*rows("run3", "MADGNet", 0, [0.5] * 4, cases=more)), "UNet", "MADGNet", "dsc")
    with pytest.raises(RunError, match=r"run run3 of MADGNet has no dsc for 1 of 3 cases, c2;"):
        paired_scores(frame().query("run_id != 'run3' or case_id != 'c2'"), "UNet", "MADGNet", "dsc")
    nan = frame()
    nan.loc[(nan["run_id"] == "run2") & (nan["case_id"] == "c3"), "dsc"] = np.nan
    with pytest.raises(RunError, match=r"run run2 of UNet has no dsc for 1 of 3 cases, c3;"):
        paired_scores(nan, "UNet", "MADGNet", "dsc")


def test_other_confusions_are_named():
    with pytest.raises(RunError, match=r"run run3 has 3 cases twice, c1, c2, c3"):
        paired_scores(frame(*rows("run3", "MADGNet", 0, [0.1, 0.2, 0.3])), "UNet", "MADGNet", "dsc")
    with pytest.raises(RunError, match=r"2 test sets in one frame \(unseen stu lesion; seen busi lesion\)"):
        paired_scores(frame(*rows("run1", "UNet", 0, [1, 1, 1], dataset="busi", setting="seen")), "UNet", "MADGNet", "dsc")
    moved = frame()
    moved.loc[(moved["run_id"] == "run3") & (moved["case_id"] == "c3"), "group_id"] = "p9"
    with pytest.raises(RunError, match="1 cases are in several groups, c3; the runs used different manifests"):
        paired_scores(moved, "UNet", "MADGNet", "dsc")
