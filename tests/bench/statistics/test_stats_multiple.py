import numpy as np
import pytest

from madgnet_bench.bench.statistics import holm
from madgnet_bench.errors import BenchError


def test_by_hand():
    found = holm([0.01, 0.04, 0.03, 0.005])
    assert found.adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert found.rejected.tolist() == [True, False, False, True]
    assert holm([0.01, 0.04, 0.03, 0.005], level=0.025).rejected.tolist() == [False, False, False, True]


def test_never_decreasing_never_above_one_and_in_the_shape_given():
    found = holm([[0.02, 0.021], [0.9, 0.6]])
    assert found.adjusted == pytest.approx(np.array([[0.08, 0.08], [1.0, 1.0]]))
    assert holm([0.3]).adjusted == [0.3]
    assert holm([]).adjusted.shape == (0,)


def test_rejects_what_stepping_down_rejects():
    random = np.random.default_rng(0)
    for _ in range(200):
        pvalues = random.random(6) ** 3
        rejected = np.zeros(6, bool)
        for step, place in enumerate(np.argsort(pvalues)):
            if pvalues[place] > 0.05 / (6 - step):
                break
            rejected[place] = True
        assert holm(pvalues).rejected.tolist() == rejected.tolist()


@pytest.mark.parametrize(
    ("pvalues", "message"), [([0.1, np.nan], "p-value 1 is nan"), ([1.2], "p-value 0 is 1.2"), ([-0.1], "-0.1")]
)
def test_what_is_no_probability_is_refused(pvalues, message):
    with pytest.raises(BenchError, match=message):
        holm(pvalues)
