"""A real fit and test in two processes, joined by gloo on the CPU as Lightning's ``ddp`` joins them."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.multiprocessing
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from standins import Boxes, TinyNetwork, quiet_trainer, tiny_task

from madgnet_bench.callbacks.gallery import TestGallery
from madgnet_bench.callbacks.history import History
from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.data.transforms import FlipRotate
from madgnet_bench.layers.prompts import Clicks, TightBox
from madgnet_bench.losses.region import DiceBCELoss
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.unet import UNet
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.prompted import PromptedTask

pytestmark = pytest.mark.slow

NETWORKS = {
    "tiny": TinyNetwork,
    "unet": partial(UNet, widths=(4, 8)),
    "madgnet": partial(MADGNet, encoder="resnet10t", frequencies=2, scales=1),
    "sam": partial(SAM, size="tiny", image_size=32),
    "frozen": partial(SAM, size="tiny", image_size=32, train="frozen"),
}
SIZES = {"tiny": 16, "unet": 16, "madgnet": 32, "sam": 32, "frozen": 32}
PROMPTS = {"sam": Clicks(2), "frozen": TightBox()}


def protocol_for(name):
    prompts = f",prompts={PROMPTS[name].name}" if name in PROMPTS else ""
    return f"madgnet[size={SIZES[name]},maps=soft{prompts}]"  # a soft error shows every bit of a prediction


def data_for(name):
    """Five validation and test cases in batches of two, and a test set of one case: the processes differ in their batches."""
    return SeenUnseenDataModule(
        [Boxes("near", splits="tttttttt" + "vvvvv" + "eeeee")],
        [Boxes("far", splits="e"), Boxes("other", splits="eee")],
        batches=ShuffledBatches(4),
        augmentation=FlipRotate(),
        eval_batch_size=2,
        protocol=protocol_for(name),
    )


def task_for(name):
    torch.manual_seed(0)
    network, optimizer = NETWORKS[name](1), partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    if name in PROMPTS:
        protocol = protocol_for(name)
        return PromptedTask(network, DiceBCELoss(), prompts=PROMPTS[name], protocol=protocol, optimizer=optimizer)
    return tiny_task(network, protocol=protocol_for(name), optimizer=optimizer)


class Scores(Callback):
    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        self.seen.append(trainer.callback_metrics["val/dsc"].item())


def train_and_test(name, folder, **options):
    task, data, scores = task_for(name), data_for(name), Scores()
    callbacks = [History(RunFolder(folder / name)), TestGallery(folder / name, protocol=task.protocol), scores]
    trainer = quiet_trainer(max_epochs=2, callbacks=callbacks, **options)
    trainer.fit(task, datamodule=data)
    batches = trainer.fit_loop.epoch_loop.val_loop.max_batches
    trainer.test(task, datamodule=data, verbose=False)
    return {
        "rows": [(row.key, row.empty_case, dict(row.measures)) for row in task.test_rows],
        "scores": scores.seen,
        "val_batches": batches,
        "history": RunFolder(folder / name).read_history(),
        "weights": {key: value.clone() for key, value in task.network.state_dict().items()},
    }


def _process(rank, port, folder):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0", LOCAL_RANK=str(rank), OMP_NUM_THREADS="1"
    )
    torch.set_num_threads(1)
    found = {}
    for name in NETWORKS:
        strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=300))
        found[name] = train_and_test(name, folder, strategy=strategy, devices=2)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes found; stopped after ten minutes if they wait for one another."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = torch.multiprocessing.spawn(_process, args=(port, folder), nprocs=2, join=False)
    end = time.monotonic() + 600
    try:
        while not processes.join(timeout=5):
            assert time.monotonic() < end, "the processes hang"
    finally:
        for process in processes.processes:
            process.kill()
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_case_is_tested_once_and_both_processes_know(both, name):
    first, second = (found[name] for found in both[1])
    assert (first["val_batches"], second["val_batches"]) == ([2], [1])
    keys = [key for key, _, _ in first["rows"]]
    assert keys == [
        *(("seen", "near", "lesion", f"c{n:02d}", protocol_for(name)) for n in range(13, 18)),
        ("unseen", "far", "lesion", "c00", protocol_for(name)),
        *(("unseen", "other", "lesion", f"c{n:02d}", protocol_for(name)) for n in range(3)),
    ]
    assert first["rows"] == second["rows"]


@pytest.mark.parametrize("name", NETWORKS)
def test_both_processes_hold_the_same_weights_and_statistics_and_validation(both, name):
    first, second = (found[name] for found in both[1])
    assert all(torch.equal(value, second["weights"][key]) for key, value in first["weights"].items())
    assert first["scores"] == second["scores"] and len(first["scores"]) == 2
    start = task_for(name).network.state_dict()
    learned = [key for key, _ in task_for(name).network.named_parameters()]
    assert any(not torch.equal(start[key], first["weights"][key]) for key in learned) == (name != "frozen")


@pytest.mark.parametrize("name", NETWORKS)
def test_one_process_finds_the_same_rows_for_these_weights(both, name):
    task, data = task_for(name), data_for(name)
    task.network.load_state_dict(both[1][0][name]["weights"])
    trainer = quiet_trainer()
    trainer.test(task, datamodule=data, verbose=False)
    for row, (key, empty_case, measures) in zip(task.test_rows, both[1][0][name]["rows"], strict=True):
        assert (row.key, row.empty_case) == (key, empty_case)
        assert row.measures == pytest.approx(measures, abs=1e-6)
    (validated,) = trainer.validate(task, datamodule=data, verbose=False)
    assert validated["val/dsc"] == pytest.approx(both[1][0][name]["scores"][-1], abs=1e-6)


def test_two_processes_train_as_one_with_the_same_batch(both, tmp_path):
    """Without batch normalisation, by SGD: weights within 1e-5, losses and scores within 1e-5 (another order of additions)."""
    alone, joint = train_and_test("tiny", tmp_path), both[1][0]["tiny"]
    for key, value in alone["weights"].items():
        assert torch.allclose(value, joint["weights"][key], atol=1e-5, rtol=0), key
    assert joint["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    for row, other in zip(alone["history"], joint["history"], strict=True):
        assert other == pytest.approx(row, abs=1e-5)


def test_pictures_and_history_are_written_once_for_all(both):
    folder = both[0] / "unet"
    assert len(list((folder / "near").glob("*.png"))) == 3 * 3  # worst, median and best
    assert len(list((folder / "far").glob("*.png"))) == 3 * 1
    assert [row["epoch"] for row in RunFolder(folder).read_history()] == [0, 1]
