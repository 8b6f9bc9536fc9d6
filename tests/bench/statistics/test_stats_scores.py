import numpy as np
import pytest

from madgnet_bench.bench.statistics import PairedScores
from madgnet_bench.errors import BenchError

A = np.array([[0.9, 0.8, 0.4], [0.7, 0.8, 0.6]])
B = np.array([[0.5, 0.5, 0.5]])


def test_groups_are_summed_over_their_cases_and_runs_are_averaged():
    scores = PairedScores(A, B, ["p2", "p1", "p2"])
    assert scores.group_sizes.tolist() == [1, 2]
    assert scores.group_sums == pytest.approx([0.3, 0.3 + 0.0])
    assert scores.group_means == pytest.approx([0.3, 0.15])
    assert scores.difference == pytest.approx(0.2)
    assert scores.runs == (2, 1)
    first, second = scores.sums_by_run()
    assert first == pytest.approx(np.array([[0.8, 1.3], [0.8, 1.3]]))
    assert second == pytest.approx(np.array([[0.5, 1.0]]))


@pytest.mark.parametrize(
    ("a", "b", "groups", "message"),
    [
        (A[0], B, [0, 0, 1], r"model a have shape \(3,\)"),
        (A, np.empty((0, 3)), [0, 0, 1], r"model b have shape \(0, 3\)"),
        (A, B[:, :2], [0, 0, 1], "model a has 3 cases, model b 2"),
        (A, B, [0, 1], "2 names of groups"),
        (np.where(A == 0.6, np.nan, A), B, [0, 0, 1], r"model a: 1 of 6 are not finite, first run 1, case 2 \(nan\)"),
        (A, B * np.inf, [0, 0, 1], "model b: 3 of 3 are not finite, first run 0, case 0"),
    ],
)
def test_what_cannot_be_compared_is_named(a, b, groups, message):
    with pytest.raises(BenchError, match=message):
        PairedScores(a, b, groups)
