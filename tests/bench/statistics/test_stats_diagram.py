import io

import numpy as np
import pytest

from madgnet_bench.bench.statistics import critical_difference_figure, friedman_test, nemenyi_test
from madgnet_bench.errors import BenchError


def result(models, datasets=13, step=0.15):
    random = np.random.default_rng(models)
    return nemenyi_test(friedman_test(random.random((datasets, models)) + step * np.arange(models), orders=99))


@pytest.mark.parametrize("models", [2, 5, 20])
def test_names_stand_apart_and_inside_the_figure(models):
    names = [f"a network with a long name {number}" for number in range(models)]
    nemenyi = result(models)
    figure = critical_difference_figure(names, nemenyi)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for axis in figure.axes for text in axis.texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    shown = " ".join(text.get_text() for axis in figure.axes for text in axis.texts)
    assert all(f"{name} " in f"{shown} " for name in names)
    assert f"critical difference {nemenyi.critical_difference:.2f}" in shown


def test_one_bar_per_clique_and_none_hides_another():
    nemenyi = result(12, step=0.1)
    figure = critical_difference_figure(list("abcdefghijkl"), nemenyi)
    bars = [line.get_xydata() for line in figure.axes[0].lines if line.get_linewidth() == 4]
    assert len(bars) == len(nemenyi.cliques) > 1
    for place, one in enumerate(bars):
        for other in bars[:place]:
            assert one[0, 1] != other[0, 1] or one[1, 0] < other[0, 0] or other[1, 0] < one[0, 0]


def test_the_best_is_at_the_left_and_the_caution_is_printed():
    figure = critical_difference_figure(["worse", "better"], result(2, datasets=3, step=2))
    places = {text.get_text().strip(" 0123456789."): text.get_position()[0] for text in figure.axes[0].texts}
    assert places["better"] < places["worse"]
    assert any("too few" in text.get_text() for text in figure.axes[0].texts)
    figure.savefig(io.BytesIO(), format="svg")


def test_every_model_needs_a_name():
    with pytest.raises(BenchError, match="2 names for 5 models"):
        critical_difference_figure(["a", "b"], result(5))
