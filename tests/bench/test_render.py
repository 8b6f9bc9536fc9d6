from __future__ import annotations

import csv
import io
import json
import re
import statistics
from dataclasses import replace
from typing import Any

import pytest
from made_runs import PROTOCOL, SETTINGS, cell, run

from madgnet_bench.bench.render import to_csv, to_json, to_latex, to_markdown, to_text
from madgnet_bench.bench.render.fields import make_fields
from madgnet_bench.bench.render.latex import escape
from madgnet_bench.bench.store import Run
from madgnet_bench.bench.tables import Row, Score, Table, build_tables

COSTS = {"gmac": 12.345678, "milliseconds_per_image": 3.21, "peak_memory_mb": 12345.6, "device_hours": 0.0125}


def single(runs: list[Run], measure: str = "dsc") -> Table:
    (table,) = build_tables(runs, measure)
    return table


def with_intervals(table: Table) -> Table:
    def add(score: Score) -> Score:
        return score if score.mean is None else replace(score, interval=(score.mean - 0.01234567, score.mean + 0.02))

    def widen(row: Row) -> Row:
        changes: dict[str, Any] = {name: add(getattr(row, name)) for name in ("seen", "unseen", "difference")}
        return replace(row, scores=tuple(map(add, row.scores)), **changes)

    return replace(table, rows=tuple(map(widen, table.rows)), intervals=True)


def prompted() -> Run:
    protocol = "madgnet[size=64,prompts=box]"
    return run("SAM", cells=tuple(cell(name, 0.99, protocol=protocol) for name in SETTINGS))


def test_text_fits_the_width_and_keeps_the_summary_together() -> None:
    many = tuple(cell(name, 0.5, target=f"target-{number}") for name in SETTINGS for number in range(5))
    table = single([run("A" * 30, cells=many), run("B", cells=many)])
    text = to_text([with_intervals(table)], width=120)
    assert max(map(len, text.splitlines())) <= 120
    headers = [line for line in text.splitlines() if line.startswith("model")]
    assert len(headers) > 1
    assert [("mean rank" in header, bool(re.search("seen mean +unseen mean", header))) for header in headers[-2:]] == [
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
    assert {(row["interval_low"], row["checkpoint"], row["prompts"]) for row in rows} == {("", "unknown", "none")}
    assert {(row["seen_in_pretraining"], row["gmac"], row["hardware"]) for row in rows} == {("false", "", "")}


def test_csv_has_intervals_and_costs_of_every_score() -> None:
    table = with_intervals(single([run(near=0.5, costs=COSTS, hardware={"accelerator": "H200"})]))
    row = next(csv.DictReader(io.StringIO(to_csv([table]))))
    assert (row["interval_low"], row["interval_high"]) == ("0.487654", "0.52")
    assert (row["gmac"], row["peak_memory_mb"], row["hardware"]) == ("12.345678", "12345.6", "H200")


def test_intervals_stand_below_the_scores() -> None:
    lines = to_text([with_intervals(single([run(near=0.5), run("B", near=None)]))]).splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("UNet"))
    assert "[48.77, 52.00]" in lines[at + 1]
    assert lines[at].index("50.00") + 5 == lines[at + 1].index("[48.77, 52.00]") + 14
    assert "95% interval over cases" in " ".join(lines)
    assert "95%" not in to_text([single([run()])])


def test_costs_are_shown_where_asked_for() -> None:
    table = single([run(costs=COSTS, hardware={"accelerator": "H200"}), run("B")])
    text = to_text([table], costs=True)
    assert re.search(r"UNet +12\.35 +3\.21 +12346 +0\.0125 +H200", text)
    assert re.search(r"B +\u2013 +\u2013 +\u2013 +\u2013 +\u2013\n", text)
    assert "GMAC" not in to_text([table])
    assert "GMAC" in to_markdown([table], costs=True) and "GMAC" in to_latex([table], costs=True)


@pytest.mark.parametrize("show", [to_text, to_markdown, to_latex])
def test_prompted_rows_stand_below_a_line_of_their_own(show) -> None:  # type: ignore[no-untyped-def]
    text = show([single([prompted(), run("A"), run("B")])])
    assert text.count("prompted with the reference, apart from the others") >= 1
    lines = text.splitlines()
    line = next(place for place, line in enumerate(lines) if "prompted with the reference" in line)
    first = {name: next(n for n, row in enumerate(lines) if re.match(rf"(\| )?{name} ", row)) for name in ("A", "B", "SAM")}
    assert max(first["A"], first["B"]) < line < first["SAM"]
    assert "99.00**" not in text and "textbf{99.00}" not in text


def marks(table: Table) -> dict[str, list[str]]:
    return {field.header: list(field.marks) for field in make_fields(table)}


def test_best_and_second_are_of_the_printed_numbers_and_ties_share() -> None:
    table = single([run("A", near=0.90001), run("B", near=0.90004), run("C", near=0.8), run("D", near=0.7)])
    by_label = dict(zip([row.label for row in table.rows], marks(table)["near"], strict=True))
    assert by_label == {"A": "best", "B": "best", "C": "second", "D": ""}
    table = single([run("A", near=0.9), run("B", near=0.8)], "mae")
    assert dict(zip([row.label for row in table.rows], marks(table)["near"], strict=True)) == {"A": "best", "B": "second"}


def test_a_lone_prompted_or_missing_score_is_never_the_best() -> None:
    assert set(marks(single([run("A"), prompted()]))["near"]) == {""}
    table = single([run("A", near=None), run("B", near=0.5), run("C", near=0.4), prompted()])
    by_label = dict(zip([row.label for row in table.rows], marks(table)["near"], strict=True))
    assert by_label == {"A": "", "B": "best", "C": "second", "SAM": ""}
    assert set(marks(table)["gap"]) == {""}


def test_markdown_marks_best_and_second() -> None:
    text = to_markdown([with_intervals(single([run("A", near=0.9), run("B", near=0.8)]))])
    assert "**90.00** [88.77, 92.00]" in text
    assert "<u>80.00</u> [78.77, 82.00]" in text


def test_a_score_seen_in_pretraining_has_a_dagger() -> None:
    cells = (cell("busi", 0.9, setting="seen"), cell("kvasir", 0.5, setting="unseen"))
    table = single([run("A", cells=cells, pretraining=("kvasir",)), run("B", cells=cells)])
    assert re.search(r"^A .* 50\.00 \u2020", to_text([table]), flags=re.M)
    assert "50.00 $^\\dagger$" in to_latex([table])
    assert [row["seen_in_pretraining"] for row in csv.DictReader(io.StringIO(to_csv([table])))] == ["false", "true"] + [
        "false"
    ] * 2


def test_modality_means_stand_behind_their_columns() -> None:
    cells = tuple(
        cell(name, 0.5, setting=setting, modality=modality)
        for name, setting, modality in (
            ("a", "seen", "ct"),
            ("b", "seen", "us"),
            ("c", "unseen", "ct"),
            ("d", "unseen", "ct"),
            ("e", "unseen", "us"),
        )
    )
    table = single([run("A", cells=cells, training_sets=("a", "b"))])
    headers = [(field.group, field.header) for field in make_fields(table)]
    assert headers[3:9] == [
        ("seen ct", "a"),
        ("seen us", "b"),
        ("unseen ct", "c"),
        ("unseen ct", "d"),
        ("unseen ct", "ct mean"),
        ("unseen us", "e"),
    ]


@pytest.mark.parametrize(
    "text", ["a & b", "50% $5 #1 a_b {x} ~ ^ \\", "x < y > z | w", "1 \u00b1 2 \u2013 \u2020", "caf\u00e9 \u6f22"]
)
def test_latex_escapes_every_special_letter(text: str) -> None:
    written = escape(text)
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}", "", written)
    bare = re.sub(r"\$(\^\\dagger|\\pm)\$", "", bare)
    assert not re.search(r"(?<!\\)[&%$#_{}~^<>|]", bare)
    assert all(ord(letter) < 256 for letter in written)


def test_latex_is_well_formed() -> None:
    table = with_intervals(single([run("A_1 & co", near=0.9, far=None), run("B", near=0.8), prompted()]))
    text = to_latex([table, table], costs=True)
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended)
    assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
    assert text.count("\\toprule") == text.count("\\bottomrule") == text.count("\\begin{tabular}") >= 2
    assert "A\\_1 \\& co" in text
    assert "\\textbf{90.00}" in text and "\\underline{80.00}" in text
    for tabular in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, flags=re.S):
        columns, body = len(tabular[0]), tabular[1]
        body = re.sub(r"\\shortstack\{.*?\}(?= [&\\])", "x", body)
        for line in re.findall(r"^(?!\\multicolumn|\\cmidrule)(.*&.*) \\\\$", body, flags=re.M):
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1


def test_json_says_all_and_reads_back() -> None:
    table = with_intervals(single([run("A", near=1 / 3, costs=COSTS), run("B", far=None), prompted()]))
    content = json.loads(to_json([table]))
    assert content["schema_version"] == 1
    (found,) = content["tables"]
    assert found["measure"] == {"name": "dsc", "title": "DSC", "unit": "fraction", "higher_is_better": True, "pooled": False}
    assert (found["protocol"], found["training_sets"], found["intervals"]) == (PROTOCOL, ["near"], True)
    a, b, sam = found["rows"]
    assert a["scores"][0] == {"mean": 0.3333333333, "std": None, "missing": "", "interval": [0.320988, 0.353333]}
    assert a["worst"]["column"] == "further"
    assert a["costs"]["gmac"] == COSTS["gmac"]
    assert (b["scores"][1]["mean"], b["scores"][1]["missing"], b["mean_rank"]) == (None, "seed 1 has no result", None)
    assert (sam["prompted"], sam["prompts"], sam["mean_rank"]) == (True, "box", None)
    assert len(found["columns"]) == len(a["scores"]) == 3
