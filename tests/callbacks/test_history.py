from __future__ import annotations

import logging

from standins import Boxes, quiet_trainer, tiny_task

from madgnet_bench.callbacks.history import Effort, History
from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.records import RunFolder


def fit(folder, splits="ttttvvee", **options):
    data = SeenUnseenDataModule([Boxes(splits=splits)], batches=ShuffledBatches(2), protocol="madgnet[size=16]")
    trainer = quiet_trainer(callbacks=[History(folder)], **options)
    trainer.fit(tiny_task(), datamodule=data)
    return trainer


def test_every_epoch_is_a_row(tmp_path):
    folder = RunFolder(tmp_path)
    trainer = fit(folder, max_epochs=3)
    rows = folder.read_history()
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    names = {"train/loss", "train/region_bce", "train/region_dice", "val/dsc", "val/iou", "val/mae", "learning_rate"}
    assert all(row.keys() == names | {"epoch"} for row in rows)
    assert {row["learning_rate"] for row in rows} == {0.02}
    assert abs(rows[-1]["val/dsc"] - trainer.callback_metrics["val/dsc"].item()) < 1e-6
    assert len({row["train/loss"] for row in rows}) == 3


def test_rows_of_an_earlier_attempt_are_replaced(tmp_path):
    folder = RunFolder(tmp_path)
    for epoch in range(5):
        folder.append_history(epoch, {"train/loss": 99.0})
    fit(folder, max_epochs=2)
    rows = folder.read_history()
    assert [row["epoch"] for row in rows] == [0, 1]
    assert all(row["train/loss"] < 99 for row in rows)


def test_each_epoch_is_logged_with_the_time_left(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="madgnet_bench"):
        fit(RunFolder(tmp_path), max_epochs=2)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("madgnet_bench")]
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "seen validation DSC" in lines[0] and "loss" in lines[0]
    assert lines[1].endswith(" 0 s left")


def test_a_training_without_validation_has_rows_too(tmp_path):
    folder = RunFolder(tmp_path)
    fit(folder, splits="ttttee", max_epochs=1)
    (row,) = folder.read_history()
    assert row.keys() == {"epoch", "train/loss", "train/region_bce", "train/region_dice", "learning_rate"}


def test_a_checkpoint_keeps_what_the_training_took(tmp_path):
    trainer = fit(RunFolder(tmp_path), max_epochs=1)
    (history,) = (callback for callback in trainer.callbacks if isinstance(callback, History))
    first = history.state_dict()
    assert first["device_seconds"] == first["seconds"] > 0
    assert first["peak_memory_of"] == "process" and first["peak_memory_mb"] > 50
    history.load_state_dict({**first, "seconds": 100.0, "device_seconds": 400.0, "peak_memory_mb": 1e9})
    resumed = Effort.of_state(history.state_dict())
    assert 100 < resumed.seconds < 200 and resumed.device_seconds == 300 + resumed.seconds
    assert resumed.peak_memory_mb == 1e9
    history.load_state_dict({**first, "peak_memory_of": "gpu", "peak_memory_mb": 1e9})
    assert history.state_dict()["peak_memory_mb"] < 1e9  # another thing's memory is no part of it


def test_checkpoints_of_earlier_versions_know_the_seconds_only():
    assert Effort.of_state({"seconds": 3.0}) == Effort(seconds=3.0, device_seconds=3.0)
