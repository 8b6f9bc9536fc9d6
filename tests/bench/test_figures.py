import pytest

from madgnet_bench.bench.figures import learning_curves
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder


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
