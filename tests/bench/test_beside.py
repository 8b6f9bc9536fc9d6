from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from madgnet_bench import __version__
from madgnet_bench.bench.beside import BesideTable, Circumstances, Comparison, read_circumstances, set_beside
from madgnet_bench.bench.published import PublishedModel, PublishedScore
from madgnet_bench.bench.store import Cell, Run, load_runs
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.catalog.manifest import Case, Manifest
from madgnet_bench.errors import RunError
from madgnet_bench.records import CaseRow, RunFolder, summarize

PROTOCOL = "madgnet[checkpoint=last]"
LABEL = "MADGNet resnest50d pretrained multi-task"
FACTS = Circumstances(pretrained=True, train_cases=485, splits={"busi": "official"})
MODEL = PublishedModel(source="S", model="MADGNet", network=LABEL, family="MADGNet", pretrained=True, origin="own", note="")
PUBLISHED = PublishedScore(
    source="S",
    table="Table 1",
    setting="seen",
    modality="Ultrasound",
    dataset="BUSI",
    target="lesion",
    model=MODEL,
    metric="DSC",
    mean=0.813,
    std=0.004,
    std_ddof=0,
    decimals=1,
    unit="percent",
    trainings=3,
    training_set="BUSI",
    train_cases=485,
    test_cases=162,
    split="official",
    image_size=352,
    epochs=100,
    protocol={"size": 352, "threshold": 0.5, "empty": 1.0, "checkpoint": "last"},
    our_dataset="busi",
    our_target="lesion",
    our_measure="dsc",
    our_training_sets=("busi",),
    note="",
)


def cell(dataset: str, value: float, *, cases: int, setting: str, protocol: str, target: str = "lesion") -> Cell:
    empty = {"neither": cases, "reference": 0, "prediction": 0, "both": 0}
    return Cell(
        setting=setting,
        dataset=dataset,
        target=target,
        protocol=protocol,
        modality="ultrasound",
        domain="",
        cases=cases,
        empty=empty,
        measures={"dsc": value, "iou": value},
    )


def run(
    value: float | None = 0.82,
    seed: int = 0,
    *,
    network: str = LABEL,
    protocol: str = PROTOCOL,
    cases: int = 162,
    dataset: str = "busi",
    target: str = "lesion",
    training_sets: tuple[str, ...] = ("busi",),
    image_size: int = 352,
    epochs: int = 100,
    version: str = __version__,
    pretraining: tuple[str, ...] = (),
) -> Run:
    cells = [cell("stu", 0.7, cases=42, setting="unseen", protocol=protocol)]
    if value is not None:
        cells.insert(0, cell(dataset, value, cases=cases, setting="seen", protocol=protocol, target=target))
    run_id = f"{network}-{seed}"
    return Run(
        folder=RunFolder(Path("runs") / run_id),
        run_id=run_id,
        suite="adhoc",
        network=network,
        parameters=33_366_372,
        seed=seed,
        epochs=epochs,
        image_size=image_size,
        protocol=protocol,
        training_sets=training_sets,
        checkpoint={"rule": "last"},
        manifests={},
        cells=tuple(cells),
        version=version,
        commit=None,
        hardware={},
        seconds=1.0,
        deviations=(),
        recipe=network,
        pretraining=pretraining,
    )


def beside(
    runs: list[Run] | None = None,
    *published: PublishedScore,
    facts: Circumstances = FACTS,
    interval: tuple[float, float] | None = None,
    measure: str = "dsc",
) -> BesideTable:
    (table,) = build_tables(runs or [run(0.82, 0), run(0.83, 1)], measure)
    if interval:
        rows = [replace(row, scores=tuple(replace(score, interval=interval) for score in row.scores)) for row in table.rows]
        table = replace(table, rows=tuple(rows))
    return set_beside(table, published or (PUBLISHED,), {row.run_ids[0]: facts for row in table.rows})


def only(table: BesideTable) -> Comparison:
    (comparison,) = table.comparisons
    return comparison


def refused(table: BesideTable) -> tuple[str, ...]:
    """The reasons, of a comparison that shows no difference."""
    comparison = only(table)
    assert comparison.reasons
    assert (comparison.difference, comparison.within_spread, comparison.within_interval) == (None, None, None)
    assert comparison.remarks == ()
    return comparison.reasons


def test_two_scores_of_one_kind_are_compared():
    comparison = only(beside(interval=(0.80, 0.85)))
    assert comparison.reasons == ()
    assert comparison.difference == pytest.approx(0.012)
    assert comparison.within_interval is True


def test_the_spread_is_that_of_the_difference_of_two_trainings():
    ours, theirs = 0.01 / 2**0.5, 0.004 * (3 / 2) ** 0.5
    spread = (ours**2 + theirs**2) ** 0.5
    for excess, within in ((-1e-6, True), (1e-6, False)):
        middle = PUBLISHED.mean + spread + excess
        assert only(beside([run(middle - 0.005, 0), run(middle + 0.005, 1)])).within_spread is within
        middle = PUBLISHED.mean - spread - excess
        assert only(beside([run(middle - 0.005, 0), run(middle + 0.005, 1)])).within_spread is within


def test_a_source_without_deviation_leaves_ours():
    published = replace(PUBLISHED, std=None, std_ddof=None)
    assert only(beside([run(0.812, 0), run(0.816, 1)], published)).within_spread is True
    assert only(beside([run(0.819, 0), run(0.821, 1)], published)).within_spread is False


def test_spread_and_interval_are_answered_apart():
    far = [run(0.85, 0), run(0.851, 1)]
    comparison = only(beside(far, interval=(0.80, 0.90)))
    assert (comparison.within_spread, comparison.within_interval) == (False, True)
    comparison = only(beside([run(0.80, 0), run(0.83, 1)], interval=(0.814, 0.816)))
    assert (comparison.within_spread, comparison.within_interval) == (True, False)


def test_one_seed_has_no_spread_and_says_so():
    comparison = only(beside([run(0.813)]))
    assert comparison.difference == pytest.approx(0)
    assert comparison.within_spread is None
    assert comparison.within_interval is None
    assert any("one seed" in text for text in comparison.remarks)


@pytest.mark.parametrize(
    ("protocol", "reason"),
    [
        ("madgnet[size=192,checkpoint=last]", "other protocol: size 192, published 352"),
        ("native[checkpoint=last]", "other protocol: size native, published 352"),
        ("madgnet[threshold=0.4,checkpoint=last]", "other protocol: threshold 0.4, published 0.5"),
        ("madgnet[empty=0,checkpoint=last]", "other protocol: empty 0, published 1"),
        ("madgnet", "other protocol: checkpoint best, published last"),
    ],
)
def test_another_protocol_is_refused(protocol, reason):
    assert refused(beside([run(protocol=protocol)])) == (reason,)


def test_what_the_measure_does_not_read_may_differ():
    protocol = "madgnet[maps=soft,tolerance=3.0,checkpoint=last]"
    assert only(beside([run(protocol=protocol)])).reasons == ()


def test_a_measure_or_unit_that_is_not_stated_is_refused():
    published = replace(PUBLISHED, metric="unstated (DSC assumed)", unit="unstated")
    assert refused(beside(None, published)) == (
        "the source does not state its measure",
        "the source does not state its unit",
    )


def test_a_part_of_the_test_set_is_refused():
    assert refused(beside([run(cases=30)])) == ("a part of the data: 30 test cases of busi, published 162",)
    assert refused(beside([run(cases=163)])) == ("other data: 163 test cases of busi, published 162",)


def test_an_unknown_number_of_test_cases_is_refused():
    published = replace(PUBLISHED, test_cases=None)
    assert refused(beside(None, published)) == ("the source does not state how many cases it tested",)


def test_a_domain_of_the_test_set_is_refused():
    runs = [run(dataset="busi/benign", cases=107, training_sets=("busi/benign",))]
    facts = replace(FACTS, splits={"busi/benign": "official"})
    assert refused(beside(runs, facts=facts)) == (
        "a part of the data: 107 test cases of busi/benign, published 162 of busi",
        "other training set: busi/benign, published busi",
    )


def test_another_training_set_is_refused():
    assert refused(beside([run(training_sets=("busi", "isic2018"))])) == ("other training set: busi, isic2018, published busi",)


@pytest.mark.parametrize(("count", "shown"), [(120, "120"), (None, "not known")])
def test_other_training_cases_are_refused(count, shown):
    facts = replace(FACTS, train_cases=count)
    assert refused(beside(facts=facts)) == (f"other training cases: {shown}, published 485",)


@pytest.mark.parametrize(("splits", "shown"), [({"busi": "clean"}, "clean"), ({}, "not recorded")])
def test_another_split_is_refused(splits, shown):
    assert refused(beside(facts=replace(FACTS, splits=splits))) == (f"other split: {shown}, published official",)


def test_another_configuration_of_the_network_is_refused():
    assert refused(beside([run(network="MADGNet resnet18 pretrained")])) == (
        f"other configuration: MADGNet resnet18 pretrained, nearest to the published is {LABEL}",
    )


def test_another_start_is_refused():
    assert refused(beside(facts=replace(FACTS, pretrained=False))) == ("not pretrained, published pretrained",)
    scratch = replace(PUBLISHED, model=replace(MODEL, pretrained=False))
    assert refused(beside(None, scratch)) == ("pretrained, published not",)


def test_a_start_that_the_source_does_not_state_is_remarked():
    comparison = only(beside(None, replace(PUBLISHED, model=replace(MODEL, pretrained=None))))
    assert comparison.reasons == ()
    assert comparison.remarks == ("Not stated for MADGNet on BUSI: pretraining.",)


def test_a_test_set_seen_in_pretraining_is_refused():
    reasons = refused(beside([run(pretraining=("busi",))]))
    assert reasons == ("pretrained on images of busi",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_size": 256}, "other image size: 256, published 352"),
        ({"epochs": 1}, "other epochs: 1, published 100"),
        ({"version": "0.0.1"}, "stale: made by version 0.0.1"),
    ],
)
def test_another_training_is_refused(change, reason):
    assert refused(beside([run(**change)])) == (reason,)


def test_a_training_cut_short_or_deviating_is_refused():
    facts = replace(FACTS, limits=("trainer.limit_train_batches=2",), deviations=("each batch was trained in 2 parts.",))
    assert refused(beside(facts=facts)) == (
        "cut short: trainer.limit_train_batches=2",
        "deviation: each batch was trained in 2 parts",
    )


def test_a_seed_that_is_missing_is_refused():
    assert refused(beside([run(0.82, 0), run(None, 1)])) == ("incomplete: seed 1 has no result",)


def test_all_reasons_are_given():
    facts = Circumstances(pretrained=False, train_cases=12, splits={"busi": "clean"})
    reasons = refused(beside([run(cases=30, epochs=1, protocol="madgnet[size=64]")], facts=facts))
    kinds = [reason.partition(":")[0] for reason in reasons]
    assert kinds == [
        *("other protocol", "other protocol", "a part of the data", "other training cases", "other split"),
        *("not pretrained, published pretrained", "other epochs"),
    ]


def test_what_the_source_does_not_state_is_remarked():
    published = replace(
        PUBLISHED,
        epochs=None,
        image_size=None,
        trainings=None,
        std=None,
        std_ddof=None,
        protocol={"size": 352},
        note="A trap.",
        model=replace(MODEL, note="Of a model."),
    )
    comparison = only(beside(None, published))
    assert comparison.remarks == (
        "Not stated for MADGNet on BUSI: epochs, image size, number of trainings, choice of the checkpoint.",
        "BUSI: A trap.",
        "Of a model.",
    )


def test_only_the_measure_and_target_of_the_column_are_met():
    assert beside(measure="iou").comparisons == ()
    assert beside(None, replace(PUBLISHED, our_target="polyp")).comparisons == ()
    assert beside(None, replace(PUBLISHED, our_dataset="")).comparisons == ()


def test_an_exact_label_goes_before_the_family():
    ablation = replace(MODEL, model="SFSSNet", network="MADGNet resnest50d pretrained S1 K1 multi-task", family="")
    published = (PUBLISHED, replace(PUBLISHED, model=ablation))
    found = beside([run(network=ablation.network)], *published)
    assert [comparison.published.model.model for comparison in found.comparisons] == ["SFSSNet"]
    assert [comparison.published.model.model for comparison in found.published_only] == ["MADGNet"]


def test_models_without_a_run_and_rows_without_a_figure_are_listed():
    other = replace(PUBLISHED, model=replace(MODEL, model="CENet", network="", family=""))
    elsewhere = replace(other, our_training_sets=("isic2018",))
    found = beside([run(), run(network="UNet 16-256")], PUBLISHED, other, elsewhere)
    assert [comparison.published for comparison in found.published_only] == [other]
    assert found.published_only[0].row is None
    assert found.published_only[0].reasons == ("no run here is of this model",)
    assert found.unpublished == ("UNet 16-256",)


def folder(tmp_path: Path, *, config: str = "", splits: dict[str, str] | None = None, manifest: bool = True) -> Run:
    cases = [Case(str(i), str(i), f"{i}.png", f"{i}_mask.png", "train" if i < 3 else "test") for i in range(5)]
    busi = Manifest("busi", cases)
    made = RunFolder(tmp_path / "runs" / "a")
    made.path.mkdir(parents=True)
    made.config_file.write_text(config or "seed_everything: 0\n")
    if manifest:
        (made.path / "manifests").mkdir()
        (made.path / "manifests" / "busi.csv").write_text(busi.to_csv())
    rows = [
        CaseRow(str(i), str(i), "busi", "ultrasound", "", "seen", "lesion", PROTOCOL, "neither", {"dsc": 0.5}) for i in (3, 4)
    ]
    made.write_cases(rows)
    result = {
        **{"run_id": "a", "suite": "adhoc", "network": "UNet 16-256", "parameters": 1, "seed": 0, "epochs": 1},
        **{"image_size": 64, "protocol": PROTOCOL, "checkpoint": {}, "training_sets": ["busi"]},
        **{"manifests": {"busi": busi.sha256}, "cells": summarize(rows), "package": {"version": __version__}},
        **{"hardware": {}, "seconds": 1.0, "deviations": ["a departure."]},
    }
    made.write_result(result | ({} if splits is None else {"splits": splits}))
    (run,) = load_runs([tmp_path / "runs"]).runs
    return run


def network(arguments: str) -> str:
    return "model: {init_args: {network: {class_path: N, init_args: {" + arguments + "}}}}\n"


def test_the_run_folder_tells_the_circumstances(tmp_path):
    config = (
        network("pretrained: true") + "trainer: {limit_train_batches: 2, max_steps: -1, fast_dev_run: false, max_time: null}\n"
    )
    facts = read_circumstances([folder(tmp_path, config=config, splits={"busi": "official", "stu": "clean"})])
    assert facts == Circumstances(
        pretrained=True,
        train_cases=3,
        splits={"busi": "official"},
        limits=("trainer.limit_train_batches=2",),
        deviations=("a departure.",),
    )


@pytest.mark.parametrize(
    ("setting", "limit"),
    [
        ("limit_train_batches: 1.0", ()),
        ("overfit_batches: 0.0", ()),
        ("limit_train_batches: 1", ("trainer.limit_train_batches=1",)),
        ("limit_test_batches: 0.5", ("trainer.limit_test_batches=0.5",)),
        ("fast_dev_run: true", ("trainer.fast_dev_run=True",)),
        ("max_steps: 100", ("trainer.max_steps=100",)),
    ],
)
def test_a_part_of_the_batches_is_a_limit_all_of_them_is_none(tmp_path, setting, limit):
    assert read_circumstances([folder(tmp_path, config=f"trainer: {{{setting}}}\n")]).limits == limit


@pytest.mark.parametrize(
    ("arguments", "pretrained"),
    [
        ("widths: [16, 32]", False),
        ("pretrained: false, encoder_checkpoint: null", False),
        ("pretrained: false, encoder_checkpoint: w.pth", True),
        ("pretrained: false, checkpoint: w.pth", True),
    ],
)
def test_pretraining_is_read_from_the_configuration(tmp_path, arguments, pretrained):
    assert read_circumstances([folder(tmp_path, config=network(arguments))]).pretrained is pretrained


def test_an_older_run_folder_leaves_facts_unknown(tmp_path):
    facts = read_circumstances([folder(tmp_path, manifest=False)])
    assert (facts.train_cases, facts.splits, facts.pretrained) == (None, {}, False)


def test_a_manifest_of_other_cases_is_an_error(tmp_path):
    run = folder(tmp_path)
    path = run.folder.path / "manifests" / "busi.csv"
    path.write_text(path.read_text().replace("train", "val", 1))
    with pytest.raises(RunError, match=r"busi\.csv: not the manifest that the run was made with"):
        read_circumstances([run])
    path.write_text("case_id\n1\n")
    with pytest.raises(RunError, match="not a manifest row"):
        read_circumstances([run])
