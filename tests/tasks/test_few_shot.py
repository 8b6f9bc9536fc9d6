from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from standins import Boxes, TinyNetwork, quiet_trainer

from madgnet_bench.contracts import SegmentationOutput
from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.self_prompt_sam import SelfPromptSAM
from madgnet_bench.tasks.few_shot import FewShotTask


class Pupil(TinyNetwork):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)
        self.shown = []

    def learn(self, image, mask, *, present):
        assert len(image) == len(mask) == len(present)
        self.shown.append([round(one.sum().item(), 4) for one in image])


class Guess(SelfPromptSAM):
    """Its coarse masks as the answer: the mask decoder has random weights."""

    def forward(self, image, *, context=None):
        coarse = self.coarse_masks(self.encode(image), image.shape[2:])
        return SegmentationOutput(torch.where(coarse, 5.0, -5.0))


def module(**options):
    return SeenUnseenDataModule([Boxes()], protocol="madgnet[size=16]", batches=ShuffledBatches(2), **options)


def shown(shots, *, seed=0, epochs=1):
    task = FewShotTask(Pupil(), shots=shots, protocol="madgnet[size=16]", seed=seed)
    quiet_trainer(max_epochs=epochs).fit(task, datamodule=module(seed=seed))
    return task.network.shown


@pytest.mark.parametrize(("shots", "count"), [(1, 1), (2, 2), (3, 3), (100, 6)])
def test_so_many_different_cases_are_shown_at_once(shots, count):
    (cases,) = shown(shots)
    assert len(cases) == len(set(cases)) == count


def test_a_seed_is_a_choice_of_cases():
    assert shown(3) == shown(3) != shown(3, seed=1)
    first, second = shown(3, epochs=2)
    assert first != second


def test_self_prompt_sam_learns_before_it_is_validated_and_its_checkpoint_keeps_it(tmp_path):
    torch.manual_seed(0)
    task = FewShotTask(Guess(size="tiny", image_size=128), shots=4, protocol="madgnet[size=16]")
    trainer = quiet_trainer()
    trainer.fit(task, datamodule=module())
    assert task.network.learned and trainer.callback_metrics["val/dsc"] > 0.2
    trainer.save_checkpoint(tmp_path / "few.ckpt", weights_only=True)
    other = FewShotTask(Guess(size="tiny", image_size=128), protocol="madgnet[size=16]")
    (measured,) = quiet_trainer().validate(
        other, datamodule=module(), ckpt_path=str(tmp_path / "few.ckpt"), weights_only=True, verbose=False
    )
    assert measured["val/dsc"] == pytest.approx(trainer.callback_metrics["val/dsc"].item())
    assert str(task.protocol) == "madgnet[size=16]"  # it is automatic


def test_bad_arguments():
    with pytest.raises(ConfigError, match="TinyNetwork has no method learn"):
        FewShotTask(TinyNetwork())
    with pytest.raises(ConfigError, match="shots=0"):
        FewShotTask(Pupil(), shots=0)


def test_several_processes_are_refused():
    task = FewShotTask(Pupil(), protocol="madgnet[size=16]")
    task.trainer = SimpleNamespace(world_size=2, datamodule=module())
    with pytest.raises(ConfigError, match="in one process, not in 2"):
        task.setup("fit")
