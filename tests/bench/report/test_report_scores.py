from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from phantom_runs import NETWORKS, write_runs
from scipy.stats import rankdata

from madgnet_bench.bench.cases import read_frame
from madgnet_bench.bench.report.scores import cell_scores, compare_pairs, compare_ranks, hardest_cases, spread
from madgnet_bench.bench.statistics import holm, paired_scores, two_way_test
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.errors import BenchError


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    runs = load_runs([write_runs(tmp_path_factory.mktemp("runs"), cases=8, size=64, count=1)]).runs
    table = build_tables(runs, "dsc")[0]
    return SimpleNamespace(runs=runs, table=table, cells=cell_scores(table, runs))


def test_scores_of_cases_average_to_the_table(found):
    assert [cell.column for cell in found.cells] == list(range(len(found.table.columns)))
    for row in found.table.rows:
        for cell, score in zip(found.cells, row.scores, strict=True):
            scores = cell.of(row)
            assert scores.shape == (2, found.table.columns[cell.column].cases)
            assert scores.mean() == pytest.approx(score.mean)


def test_cases_of_a_group_have_one_number(found):
    seen = found.cells[0]
    rows = found.runs[0].folder.read_cases()
    groups = {row.case_id: row.group_id for row in rows if row.dataset == found.table.columns[0].dataset}
    by_number = {number: {groups[case] for case in seen.cases[seen.groups == number]} for number in set(seen.groups)}
    assert all(len(names) == 1 for names in by_number.values())
    assert len(by_number) == len(set(groups.values()))


def test_quantiles_are_over_cases_of_the_mean_over_seeds(found):
    boxes = spread(found.table, found.cells)
    assert len(boxes) == len(found.table.rows) * len(found.table.columns)
    box = next(box for box in boxes if (box.row, box.column) == (1, 2))
    means = found.cells[2].of(found.table.rows[1]).mean(0)
    assert box.levels == pytest.approx(np.quantile(means, [0.05, 0.25, 0.5, 0.75, 0.95]))
    assert (box.cases, box.mean) == (len(means), pytest.approx(means.mean()))


def test_the_hardest_cases_have_the_lowest_mean_over_models(found):
    hard = [case for case in hardest_cases(found.table, found.cells, count=2) if case.column == 3]
    stacked = np.stack([found.cells[3].of(row).mean(0) for row in found.table.rows])
    order = np.argsort(stacked.mean(0))
    assert [case.case_id for case in hard] == [found.cells[3].cases[place] for place in order[:2]]
    assert hard[0].worst[0] == pytest.approx(stacked[:, order[0]].min())
    assert hard[0].best[1] == found.table.rows[int(stacked[:, order[0]].argmax())].label


def test_all_pairs_are_tested_and_corrected_together(found):
    pairs = compare_pairs(found.table, found.cells)
    columns = len(found.table.columns)
    assert len(pairs) == 3 * columns
    assert {(pair.first, pair.second) for pair in pairs} == {(0, 1), (0, 2), (1, 2)}
    assert [pair.adjusted for pair in pairs] == pytest.approx(list(holm([pair.pvalue for pair in pairs]).adjusted))
    frame = read_frame(found.runs, protocol=found.table.protocol, measures=["dsc"])
    column = found.table.columns[0]
    cell = frame[(frame["dataset"] == column.dataset) & (frame["target"] == column.target)]
    first, second = (found.table.rows[place].network for place in (0, 1))
    expected = two_way_test(paired_scores(cell, first, second, "dsc"))
    assert pairs[0].pvalue == pytest.approx(expected.pvalue)
    assert (pairs[0].low, pairs[0].high) == pytest.approx((expected.low, expected.high))
    assert pairs[0].method == expected.method


def test_a_pair_that_cannot_be_tested_says_why(found):
    one = found.cells[0].__class__(
        column=0, cases=found.cells[0].cases, groups=np.zeros_like(found.cells[0].groups), runs=found.cells[0].runs
    )
    pairs = compare_pairs(found.table, [one])
    assert all(pair.pvalue is None and pair.adjusted is None and "one group" in pair.method for pair in pairs)
    assert all(np.isfinite(pair.difference) for pair in pairs)


def test_ranks_are_over_test_sets_not_over_their_targets(found):
    ranks = compare_ranks(found.table, found.runs, shown=20)
    assert ranks.friedman.datasets == 3  # of two targets each: the six columns are no six data sets
    scores = {row.label: np.reshape([score.mean for score in row.scores], (3, 2)).mean(1) for row in found.table.rows}
    places = rankdata(-np.array(list(scores.values())), axis=0).mean(1)
    by_label = dict(zip(scores, places, strict=True))
    assert [standing.rank for standing in ranks.standings] == pytest.approx(sorted(by_label.values()))
    assert all(standing.rank == pytest.approx(by_label[standing.label]) for standing in ranks.standings)
    assert sum(standing.best for standing in ranks.standings) == pytest.approx(1)
    assert all(standing.low <= standing.high for standing in ranks.standings)
    assert set(ranks.labels) == {name for name, _, _ in NETWORKS}


def test_one_model_has_no_ranks(found):
    alone = [run for run in found.runs if run.network == NETWORKS[0][0]]
    with pytest.raises(BenchError):
        compare_ranks(build_tables(alone, "dsc")[0], alone, shown=20)
