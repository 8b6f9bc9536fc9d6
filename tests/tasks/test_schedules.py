from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from standins import Boxes, quiet_trainer, tiny_task

from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.tasks.schedules import Cosine, Schedule


def rates(steps, **options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = Cosine(**options)(optimizer, steps)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_cosine_falls_from_the_rate_to_its_minimum():
    found = rates(10, minimum=0.001)
    assert found[0] == 0.1 and found[-1] == pytest.approx(0.001)
    assert found[5] == pytest.approx((0.1 + 0.001) / 2)
    assert found == sorted(found, reverse=True)
    assert rates(4)[-1] == pytest.approx(1e-6)


def test_no_steps_are_no_error():
    assert rates(0) == [0.1]


def test_a_schedule_must_build():
    with pytest.raises(TypeError, match="__call__"):
        Schedule()


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_a_fit_ends_at_the_minimum():
    data = SeenUnseenDataModule([Boxes()], batches=ShuffledBatches(2), protocol="madgnet[size=16]")
    task = tiny_task(schedule=Cosine(minimum=1e-5), optimizer=partial(torch.optim.SGD, lr=0.01))
    watch = Rates()
    trainer = quiet_trainer(max_epochs=3, callbacks=[watch])
    trainer.fit(task, datamodule=data)
    assert len(watch.seen) == trainer.global_step == 9
    assert watch.seen == pytest.approx(rates_of(9))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)


def rates_of(steps):
    return [1e-5 + (0.01 - 1e-5) * (1 + torch.cos(torch.tensor(torch.pi * n / steps)).item()) / 2 for n in range(steps)]
