from dataclasses import replace
from pathlib import Path

import pytest

from madgnet_bench.bench import figures
from madgnet_bench.bench.figures import Quantiles, learning_curves
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder

NUCLEI = Path(__file__).parents[2] / "results" / "real" / "nuclei"


@pytest.fixture(scope="module")
def runs():
    return load_runs([NUCLEI]).runs


@pytest.fixture(scope="module")
def table(runs):
    return build_tables(runs, "dsc")[0]


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def tips(axis):
    return [line.get_gid().removeprefix("tip:") for line in axis.lines if line.get_gid()]


def test_terms_of_several_stages_share_a_panel(tmp_path):
    run = RunFolder(tmp_path)
    names = ["train/distance_1", "train/distance_2", "train/loss", "val/dsc", "val/mae", "network/alpha/stage1/scale1"]
    for epoch in range(3):
        run.append_history(epoch, {name: 1.0 / (epoch + 1) for name in names} | {"learning_rate": 1e-3})
    axes = learning_curves(run).axes
    assert [axis.get_title() for axis in axes] == ["distance", "loss", "seen validation", "alpha"]
    assert [len(axis.lines) for axis in axes] == [2, 1, 2, 1]
    assert axes[0].lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5], [3, pytest.approx(1 / 3)]]


def test_a_run_without_a_complete_epoch_is_refused(tmp_path):
    with pytest.raises(RunError, match="no epoch is complete"):
        learning_curves(RunFolder(tmp_path))


def test_the_scatter_shows_both_means_of_every_model(table):
    figure = figures.seen_unseen(table, shown=3)
    (axis,) = figure.axes
    expected = [f"{row.label}: seen {100 * row.seen_mean:.2f}, unseen {100 * row.unseen_mean:.2f}" for row in table.rows]
    assert tips(axis) == expected
    assert labels(figure) == [row.label for row in table.rows]
    assert labels(figures.seen_unseen(table, shown=2)) == [row.label for row in table.rows[:2]]
    gaps = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert gaps and all(
        line.get_ydata()[1] - line.get_ydata()[0] == pytest.approx(line.get_xdata()[1] - line.get_xdata()[0]) for line in gaps
    )


def test_gaps_are_losses_sorted_by_their_mean(table):
    axis = figures.domain_gaps(table, shown=3).axes[0]
    unseen = [column for column in table.columns if column.setting == "unseen"]
    place = table.columns.index(unseen[0])
    row = table.rows[0]
    loss = 100 * (row.seen_mean - row.scores[place].mean)
    assert f"{row.label} on {unseen[0].label}: {loss:+.2f}" in tips(axis)
    means = {
        column.label: sum(r.seen_mean - r.scores[table.columns.index(column)].mean for r in table.rows) for column in unseen
    }
    assert [text.get_text() for text in axis.get_yticklabels()] == sorted(means, key=lambda label: means[label])


def test_a_loss_is_positive_where_lower_is_better(runs):
    table = build_tables(runs, "mae")[0]
    row, place = table.rows[0], next(n for n, column in enumerate(table.columns) if column.setting == "unseen")
    loss = 100 * (row.scores[place].mean - row.seen_mean)
    axis = figures.domain_gaps(table, shown=3).axes[0]
    assert f"{row.label} on {table.columns[place].label}: {loss:+.2f}" in tips(axis)


def test_boxes_show_the_quantiles(table):
    box = Quantiles(row=1, column=0, cases=9, mean=0.75, levels=(0.5, 0.6, 0.7, 0.8, 0.9))
    axis = figures.case_distributions(table, [box], shown=3).axes[0]
    (bar,) = axis.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((60, 80))
    assert [line.get_xdata()[0] for line in axis.lines] == pytest.approx([70, 75])
    assert axis.collections[0].get_segments()[0].tolist() == [[50, 1], [90, 1]]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first model on top


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 5)], [0]),
        ([(2, 5), (1, 5)], [1]),
        ([(1, 5), (1, 6), (2, 6)], [1]),
        ([(3, 9), (1, 1), (2, 0), (2, 4)], [1, 3, 0]),
    ],
)
def test_the_front_is_what_no_point_beats(points, front):
    assert figures.pareto_front(points) == front


def test_costs_have_an_axis_each_and_unknown_ones_no_mark(table):
    costs = {"parameters (millions)": [row.parameters / 1e6 for row in table.rows], "GMAC": [None, 3.0, 1.0]}
    first, second = figures.cost_accuracy(table, costs, shown=3).axes
    assert (first.get_xlabel(), second.get_xlabel()) == ("parameters (millions)", "GMAC")
    assert (len(tips(first)), len(tips(second))) == (3, 2)
    assert first.get_xscale() == "log"


def test_every_run_has_a_training_curve_in_the_colour_of_its_model(table, runs):
    histories = {run.run_id: run.folder.read_history() for run in runs}
    loss, validation = figures.training_curves(table, histories, shown=3).axes
    marks = figures.palette(3)
    expected = [mark.colour for mark, row in zip(marks, table.rows, strict=True) for _ in row.run_ids]
    assert [line.get_color() for line in loss.lines] == [line.get_color() for line in validation.lines] == expected
    first = histories[table.rows[0].run_ids[0]]
    assert list(validation.lines[0].get_ydata()) == pytest.approx([100 * row["val/dsc"] for row in first])
    with pytest.raises(RunError, match="no run has a history"):
        figures.training_curves(table, {}, shown=3)


def test_figures_stay_small_with_many_test_sets(table):
    unseen = next(place for place, column in enumerate(table.columns) if column.setting == "unseen")
    columns = [replace(table.columns[unseen], label=f"set {number}", dataset=f"set {number}") for number in range(200)]
    rows = [replace(row, scores=(row.scores[0], *[row.scores[unseen]] * 200)) for row in table.rows]
    many = replace(table, columns=(table.columns[0], *columns), rows=tuple(rows))
    assert len(figures.domain_gaps(many, shown=3).axes[0].get_yticks()) == figures.MOST_SETS
    assert len(figures.case_distributions(many, [], shown=3).axes) == figures.MOST_SETS


def test_marks_differ_up_to_twenty_four_models():
    assert len(set(figures.palette(24))) == 24
    assert figures.palette(30)[24:] == figures.palette(6)


def test_a_history_that_begins_late_or_has_gaps_is_drawn(tmp_path):
    run = RunFolder(tmp_path)
    for epoch, values in enumerate(({"train/loss": 1.0}, {"train/loss": 0.5, "val/dsc": 0.7}, {"train/loss": 0.4})):
        run.append_history(epoch, values)
    training, validation = learning_curves(run).axes
    assert list(training.lines[0].get_xdata()) == [1, 2, 3] and list(validation.lines[0].get_xdata()) == [2]
    other = RunFolder(tmp_path / "other")
    other.append_history(0, {"learning_rate": 0.1})
    with pytest.raises(RunError, match="without losses or measures"):
        learning_curves(other)
