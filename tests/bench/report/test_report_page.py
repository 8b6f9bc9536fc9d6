from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from phantom_runs import NETWORKS, write_runs

from madgnet_bench.bench.figures import COLOURS
from madgnet_bench.bench.report import views
from madgnet_bench.bench.report.cards import add_gallery
from madgnet_bench.bench.report.content import Block, build_block, measures_to_show, tables_by_block
from madgnet_bench.bench.report.drawing import draw
from madgnet_bench.bench.report.text import amount, count, hours, number, pvalue, span, summary
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.protocol import MEASURES

GOLDEN = Path(__file__).parents[2] / "golden" / "runs"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return load_runs([write_runs(tmp_path_factory.mktemp("runs"), seeds=(0,), cases=6, size=64, count=1)]).runs


def dot():
    figure = Figure()
    axis = figure.subplots()
    axis.plot([1], [2], "o", color=COLOURS[1])[0].set_gid("tip:a < b")
    axis.set_title("cost in $ and $")
    return figure


def test_a_figure_is_written_and_takes_the_colours_of_the_page(tmp_path):
    drawing = draw(dot, tmp_path, "b1-dot")
    assert {path.name for path in tmp_path.iterdir()} == {"b1-dot.svg", "b1-dot.png"}
    assert COLOURS[1] in (tmp_path / "b1-dot.svg").read_text()
    assert COLOURS[1] not in drawing.svg and "var(--c2)" in drawing.svg and "var(--ink)" in drawing.svg
    assert not re.search(r"(fill|stroke): #", drawing.svg)
    assert "<title>a &lt; b</title>" in drawing.svg
    assert "cost in $ and $" in drawing.svg
    assert "font-family" not in drawing.svg and "<style" not in drawing.svg


def test_ids_of_two_figures_differ_and_their_references_hold(tmp_path):
    first, second = (draw(dot, tmp_path, name).svg for name in ("a", "b"))
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg)) <= known


def test_the_leaderboard_marks_best_and_second_as_shown(runs):
    table = build_tables(runs, "dsc")[0]
    view = views.leaderboard_view(table)
    assert [header.text for header in view.headers[:5]] == ["Model", "mean rank", "unseen mean", "seen mean", "gap"]
    shown = [(line.cells[2].value, line.cells[2].mark) for line in view.lines]
    assert [mark for _, mark in sorted(shown, reverse=True)] == ["best", "second", ""]
    lower = views.leaderboard_view(build_tables(runs, "mae")[0])
    shown = [(line.cells[2].value, line.cells[2].mark) for line in lower.lines]
    assert [mark for _, mark in sorted(shown)] == ["best", "second", ""]


def test_an_incomplete_cell_says_what_is_missing(tmp_path):
    root = write_runs(tmp_path, seeds=(0,), cases=6, size=64, count=1)
    store = load_runs([root])
    cut = [replace(run, cells=run.cells[1:]) if run.network == NETWORKS[0][0] else run for run in store.runs]
    table = build_tables(cut, "dsc")[0]
    line = next(line for line in views.leaderboard_view(table).lines if line.network == NETWORKS[0][0])
    missing = [cell for cell in line.cells if cell.value is None]
    assert {cell.text for cell in missing} == {"\N{EN DASH}"} and any("seed 0 has no result" in cell.title for cell in missing)
    assert summary(table)[-1] == f"Incomplete, and so not ranked: {NETWORKS[0][0]}."


def test_the_chosen_measure_comes_first_and_the_others_follow(runs):
    assert measures_to_show("mae", ["dsc", "iou", "mae"]) == ["mae", "dsc", "iou"]
    blocks, problems = tables_by_block(runs, ["mae", "dsc", "hd95"], None)
    (tables,) = blocks.values()
    assert [table.measure.name for table in tables] == ["mae", "dsc"]
    assert tables[0].intervals and not tables[1].intervals
    assert len(problems) == 1 and problems[0].startswith("No table of HD95: ")


def test_the_gallery_shows_one_run_per_model_and_set_with_its_scores(runs, tmp_path):
    table = build_tables(runs, "dsc")[0]
    block = Block(key="b1", tables=[table], runs=list(runs))
    assert add_gallery(block, tmp_path) == []
    assert [(group.dataset, group.network) for group in block.gallery] == [
        (dataset, row.label) for dataset in dict.fromkeys(column.dataset for column in table.columns) for row in table.rows
    ]
    group = block.gallery[0]
    assert [card.kind for card in group.cases] == ["worst", "median", "best"]
    assert "DSC of disc" in group.cases[0].scores and '"group"' in group.cases[0].scores
    assert all((tmp_path / card.file).is_file() for group in block.gallery for card in group.cases)


def test_a_gallery_that_cannot_be_read_is_named_and_the_next_seed_shown(tmp_path):
    runs = load_runs([write_runs(tmp_path / "runs", seeds=(0, 1), cases=6, size=64, count=1)]).runs
    broken = next(run for run in runs if run.seed == 0)
    for index in (broken.folder.path / "predictions").glob("*/gallery.json"):
        index.write_text("{")
    block = Block(key="b1", tables=build_tables(runs, "dsc"), runs=list(runs))
    problems = add_gallery(block, tmp_path / "out")
    assert len(problems) == 3 and all("not the index of a gallery" in problem for problem in problems)
    assert {group.seed for group in block.gallery if group.network == broken.network} == {1}


def test_numbers_read_alike_everywhere():
    dsc, hd95 = MEASURES["dsc"], MEASURES["hd95"]
    assert number(None, dsc) == "\N{EN DASH}" and number(-0.021, dsc, sign=True) == "\N{MINUS SIGN}2.10"
    assert (number(0.5, dsc), number(0.5, hd95), span(0.1, 0.2, dsc), span(None, 0.2, dsc)) == (
        "50.00",
        "0.50",
        "10.00 to 20.00",
        "",
    )
    assert [pvalue(value) for value in (None, 0.0004, 0.1)] == ["\N{EN DASH}", "<0.001", "0.10"]
    assert (amount(5_432_100), amount(999), count(1, "run"), count(1200, "case")) == ("5.43 M", "999", "1 run", "1,200 cases")
    assert [hours(value) for value in (61.5, 600, 7200)] == ["62 s", "10 min", "2.0 h"]


def test_the_summary_names_the_best_model_and_the_gap(runs):
    table = build_tables(runs, "dsc")[0]
    text = summary(table)
    best = max(table.rows, key=lambda row: row.unseen_mean)
    assert text[0].startswith("3 models (3 runs) trained on phantom_fundus and tested on 3 sets with")
    assert f"Best on unseen sets: {best.label}, {100 * best.unseen_mean:.2f}%" in text[1]
    assert text[2].startswith("From seen to unseen sets the models lose ")


def test_templates_are_part_of_the_package():
    folder = Path(views.__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {"page.html", "table.html", "report.css", "report.js", "early.js"}


@pytest.fixture(scope="module")
def told():
    """The golden table whose highest scores are those of a SAM that the reference told where to look."""
    runs = load_runs([GOLDEN]).runs
    table = next(table for table in build_tables(runs, "dsc") if any(row.prompted for row in table.rows))
    members = {run for row in table.rows for run in row.run_ids}
    assert max(table.rows, key=lambda row: row.unseen_mean or 0).prompted
    return table, [run for run in runs if run.run_id in members]


def test_who_was_told_by_the_reference_wins_nothing(told, tmp_path):
    table, runs = told
    automatic = [row.label for row in table.rows if not row.prompted]
    sentences = summary(table)
    assert any(re.match(rf"Best on unseen sets: ({'|'.join(automatic)}), ", sentence) for sentence in sentences)
    assert "1 model told where to look by the reference stands apart." in sentences
    assert all("SAM" not in sentence for sentence in sentences)
    block = build_block("b1", runs, [table], tmp_path)
    assert {label for case in block.hard for _, label in (case.worst, case.best)} <= set(automatic)
    (cost,) = block.pictures["cost"]
    assert "On it by parameters" in cost.words and "SAM" not in cost.words
    assert any("SAM tiny (told box)" in (tmp_path / f"{block.key}-{name}.svg").read_text() for name in ("seen-unseen", "gap"))


def test_who_was_told_by_the_reference_is_listed_below_and_by_name(told):
    table, _ = told
    view = views.leaderboard_view(table)
    assert (
        [line.apart for line in view.lines] == [row.prompted for row in table.rows] == sorted(line.apart for line in view.lines)
    )
    (line,) = (line for line in view.lines if line.apart)
    assert line.network == "SAM tiny (told box)" and line.cells[0].notes[0].endswith("told box by the reference")
    assert not any(cell.mark for cell in line.cells)


def test_the_best_model_that_has_seen_test_images_is_called_so(runs):
    table = build_tables(runs, "dsc")[0]
    rows = tuple(replace(row, contaminated=(table.columns[-1].label,)) for row in table.rows)
    assert "(seen in part in pretraining), " in summary(replace(table, rows=rows))[1]
    assert "pretraining" not in summary(table)[1]
