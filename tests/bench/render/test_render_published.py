from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from madgnet_bench.bench.beside import BesideTable, Comparison
from madgnet_bench.bench.published import PublishedModel, PublishedScore
from madgnet_bench.bench.render.published import (
    PUBLISHED_SCHEMA_VERSION,
    published_to_csv,
    published_to_json,
    published_to_latex,
    published_to_markdown,
    published_to_text,
)
from madgnet_bench.bench.tables import Column, Costs, Row, Score, Table
from madgnet_bench.protocol import MEASURES

REASON, REMARK = "other protocol: size 192, published 352", "Not stated for A on Far_Set: epochs."
NOTHING = Score(mean=None, std=None)


def column(name: str, setting: str) -> Column:
    facts = {"target": "lesion", "modality": "ultrasound", "cases": 42, "both_empty": (0, 0)}
    return Column(setting=setting, dataset=name, label=name, **facts)


NEAR, FAR = column("near", "seen"), column("far_set", "unseen")
SCORES = (Score(mean=0.8123, std=0.0051, interval=(0.79, 0.835)), Score(mean=0.7, std=None))
ROW = Row(
    label="Net 16-256",
    network="Net 16-256",
    parameters=10,
    image_size=352,
    epochs=1,
    version="0.1.0",
    stale=False,
    recipe="abc",
    seeds=(0, 1),
    run_ids=("r0", "r1"),
    protocol="madgnet",
    checkpoint="best",
    prompts="none",
    prompted=False,
    scores=SCORES,
    seen=NOTHING,
    unseen=NOTHING,
    difference=NOTHING,
    modality_means=(),
    worst=None,
    mean_rank=None,
    costs=Costs(),
    contaminated=(),
)


def figure(model: str, dataset: str, mean: float, std: float | None) -> PublishedScore:
    tied = PublishedModel(source="arXiv:1", model=model, network="", family="", pretrained=None, origin="own", note="")
    return PublishedScore(
        source="arXiv:1",
        table="Table 1",
        setting="seen",
        modality="U",
        dataset=dataset,
        target="lesion",
        model=tied,
        metric="DSC",
        mean=mean,
        std=std,
        std_ddof=None if std is None else 0,
        decimals=1,
        unit="percent",
        trainings=3,
        training_set="Near",
        train_cases=None,
        test_cases=42,
        split="",
        image_size=None,
        epochs=None,
        protocol={},
        our_dataset="",
        our_target="",
        our_measure="dsc",
        our_training_sets=("near",),
        note="",
    )


def table(measure: str = "dsc") -> BesideTable:
    ours = Table(
        measure=MEASURES[measure],
        protocol="madgnet",
        training_sets=("near",),
        columns=(NEAR, FAR),
        rows=(ROW,),
        notes=(),
    )
    compared = Comparison(
        published=figure("A", "Near", 0.8, 0.004),
        row=ROW,
        column=NEAR,
        score=SCORES[0],
        difference=0.0123,
        within_spread=False,
        within_interval=True,
        remarks=(REMARK,),
    )
    refused = Comparison(published=figure("A", "Far_Set", 0.65, None), row=ROW, column=FAR, score=SCORES[1], reasons=(REASON,))
    only = Comparison(published=figure("B", "Near", 0.9, 0.0), row=None, column=NEAR, score=None, reasons=("no run",))
    return BesideTable(table=ours, comparisons=(compared, refused), published_only=(only,), unpublished=("Own 8",))


def test_the_terminal_shows_difference_or_reasons():
    lines = published_to_text([table()]).splitlines()
    assert lines[:10] == [
        "Beside published results: DSC in %, trained on near, madgnet",
        "",
        "Net 16-256 (2 seeds) beside A of arXiv:1 (Table 1).",
        "  test set                         ours      theirs  difference  within spread  within interval",
        "  --------  ---------------------------  ----------  ----------  -------------  ---------------",
        "  near      81.23 ± 0.51 [79.00, 83.50]  80.0 ± 0.4       +1.23             no              yes",
        "  far_set                         70.00        65.0  not comparable: 1",
        f"  1: {REASON}",
        f"  {REMARK}",
        "",
    ]
    assert lines[10:15] == [
        "Published in arXiv:1, with no run here.",
        "  model        Near",
        "  -----  ----------",
        "  B      90.0 ± 0.0",
        "",
    ]
    assert "Nothing is published here for: Own 8." in lines


def test_text_is_no_wider_than_the_terminal_but_for_tables():
    long = replace(table(), unpublished=tuple(f"Network {number}" for number in range(40)))
    assert max(map(len, published_to_text([long], width=100).splitlines())) <= 100


def test_markdown_has_the_same_cells():
    text = published_to_markdown([table()])
    assert "### Beside published results: DSC in %, trained on near, madgnet" in text
    assert "| near | 81.23 ± 0.51 [79.00, 83.50] | 80.0 ± 0.4 | +1.23 | no | yes |" in text
    assert "| far_set | 70.00 | 65.0 | not comparable: 1 |  |  |" in text
    assert f"- 1: {REASON}" in text
    assert f"- {REMARK}" in text


def test_latex_is_escaped_and_balanced():
    text = published_to_latex([table()])
    assert r"near & 81.23 $\pm$ 0.51 [79.00, 83.50] & 80.0 $\pm$ 0.4 & +1.23 & no & yes \\" in text
    assert r"far\_set & 70.00 & 65.0 & not comparable: 1 &  &  \\" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count("{") == text.count("}")


def test_csv_and_json_tell_the_same():
    rows = list(csv.DictReader(io.StringIO(published_to_csv([table()]))))
    content = json.loads(published_to_json([table()]))
    assert content["schema_version"] == PUBLISHED_SCHEMA_VERSION
    assert [row["comparable"] for row in rows] == ["true", "false", "false"]
    assert [each["comparable"] for each in content["comparisons"]] == [True, False, False]
    assert [each["difference"] for each in content["comparisons"]] == [0.0123, None, None]
    assert (rows[0]["difference"], rows[0]["ours_low"], rows[0]["within_spread"]) == ("0.0123", "0.79", "false")
    assert (rows[0]["theirs_mean"], rows[0]["theirs_std"], rows[0]["std_ddof"]) == ("0.8", "0.004", "0")
    assert (rows[1]["difference"], rows[1]["ours_std"], rows[1]["reasons"]) == ("", "", REASON)
    assert (rows[2]["network"], rows[2]["ours_mean"], rows[2]["run_ids"]) == ("", "", "")


@pytest.mark.parametrize(("measure", "unit", "difference"), [("nll", " in nats", "+0.01"), ("hd95", "", "+0.01")])
def test_other_units_are_not_turned_into_percent(measure, unit, difference):
    text = published_to_text([table(measure)])
    assert f"{MEASURES[measure].title}{unit}, trained on near" in text
    assert difference in text


def test_nothing_published_is_said():
    empty = replace(table(), comparisons=(), published_only=(), unpublished=())
    assert "Nothing is published here for these test sets and this measure." in published_to_text([empty])
    assert "Nothing is published" in published_to_latex([empty])
