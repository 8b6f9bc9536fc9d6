from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from standins import Boxes, LeftHalf, TinyNetwork, quiet_trainer, tiny_task
from torch import nn
from torch.nn.functional import interpolate

from madgnet_bench.callbacks.history import History
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.contracts import Context, Inferer, Prediction, Prompts, SegmentationLoss, SegmentationOutput
from madgnet_bench.data.samplers import DomainBatches, ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.data.transforms import FlipRotate, resize_image
from madgnet_bench.errors import TrainingError
from madgnet_bench.losses.region import DiceBCELoss
from madgnet_bench.metrics.measures import measure_cases
from madgnet_bench.networks.unet import UNet
from madgnet_bench.protocol import VALIDATION_MEASURES, Protocol
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.schedules import Cosine
from madgnet_bench.tasks.supervised import SupervisedTask, freeze_eval


def module(seen=None, unseen=(), **options):
    options = {"protocol": "madgnet[size=16]", "batches": ShuffledBatches(3), "eval_batch_size": 2} | options
    return SeenUnseenDataModule([Boxes()] if seen is None else seen, list(unseen), **options)


class Watch(Callback):
    """Keeps what passes by."""

    def __init__(self):
        self.losses, self.scores, self.domains, self.outputs, self.modes = [], [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.domains.append(batch.domain_index.tolist())
        self.modes.append({name: module.training for name, module in pl_module.network.named_modules()})

    def on_train_epoch_end(self, trainer, pl_module):
        self.losses.append(trainer.callback_metrics["train/loss"].item())
        self.scores.append(trainer.callback_metrics["val/dsc"].item())

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.outputs.append((batch, outputs["prediction"]))


def weights(task):
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Training


def test_a_small_fit_learns():
    nuclei = PhantomDataset("microscopy", size=32, cases=20)
    data = module([nuclei], batches=ShuffledBatches(2), augmentation=FlipRotate(), protocol="madgnet[size=32]")
    torch.manual_seed(0)
    task = tiny_task(UNet(1, widths=(8, 16)), protocol="madgnet[size=32]", schedule=Cosine())
    watch = Watch()
    quiet_trainer(max_epochs=8, callbacks=[watch]).fit(task, datamodule=data)
    assert watch.losses[-1] < 0.7 * watch.losses[0]
    assert watch.scores[-1] > max(0.6, watch.scores[0] + 0.2)


def test_every_term_is_logged_and_they_sum_to_the_loss():
    trainer = quiet_trainer()
    trainer.fit(tiny_task(), datamodule=module())
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert metrics.keys() == {"train/region_bce", "train/region_dice", "train/loss", "val/dsc", "val/iou", "val/mae"}
    assert metrics["train/loss"] == pytest.approx(metrics["train/region_bce"] + metrics["train/region_dice"], rel=1e-5)


def test_the_scalars_of_a_network_are_logged_as_the_epoch_leaves_them():
    class Watched(LeftHalf):
        def scalars(self):
            return {"scale": self.scale.detach()}

    network, trainer = Watched(), quiet_trainer()
    trainer.fit(tiny_task(network), datamodule=module())
    assert network.scale.item() != 50
    assert trainer.callback_metrics["network/scale"].item() == network.scale.item()


def test_validation_is_the_mean_over_cases_and_not_over_batches():
    data, task = module([Boxes(splits="tttvvvvv")]), tiny_task()
    trainer = quiet_trainer()
    (logged,) = trainer.validate(task, datamodule=data, verbose=False)
    scores = []
    for position in range(5):
        item = data.val_sets[0].cases[position]
        with torch.no_grad():
            probability = task.network(item.image).logits.sigmoid()
        scores.append(measure_cases(probability, item.mask, protocol=task.protocol)["dsc"].item())
    assert logged["val/dsc"] == pytest.approx(np.mean(scores), abs=1e-6)


class NaNLoss(SegmentationLoss):
    def forward(self, output, batch):
        broken = "c02" in batch.case_id
        return {"good": output.logits.mean(), "bad": output.logits.mean() * (torch.nan if broken else 1)}


def test_a_loss_that_is_not_finite_names_term_and_cases():
    with pytest.raises(TrainingError, match=r"not finite \(good .*, bad nan\) in epoch 1 on .*c02"):
        quiet_trainer().fit(tiny_task(loss=NaNLoss()), datamodule=module())


def test_the_number_of_workers_changes_nothing():
    found = []
    for workers in (0, 1):
        task = tiny_task(TinyNetwork(norm=True, dropout=0.5))
        quiet_trainer(max_epochs=3).fit(task, datamodule=module(augmentation=FlipRotate(), num_workers=workers))
        found.append(weights(task))
    assert equal(*found)


def test_seeds_change_dropout():
    found = []
    for seed in (0, 0, 1):
        task = tiny_task(TinyNetwork(dropout=0.5), seed=seed)
        quiet_trainer().fit(task, datamodule=module())
        found.append(weights(task))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])


class Killed(Exception):
    pass


class Kill(Callback):
    """Stops a training in the middle of an epoch, as a crash would."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 1):
            raise Killed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_training_repeats_the_undisturbed_one(tmp_path, workers):
    def fit(folder, *callbacks, resume=None):
        task = tiny_task(TinyNetwork(norm=True, dropout=0.5), schedule=Cosine())
        data = module(augmentation=FlipRotate(), num_workers=workers, unseen=[Boxes("far")])
        last = ModelCheckpoint(
            dirpath=folder.checkpoints, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        trainer = quiet_trainer(max_epochs=4, enable_checkpointing=True, callbacks=[History(folder), last, *callbacks])
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        return task

    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    undisturbed = fit(whole)
    with pytest.raises(Killed):
        fit(broken, Kill())
    assert [row["epoch"] for row in broken.read_history()] == [0, 1]
    resumed = fit(broken, resume=str(broken.checkpoints / "last.ckpt"))
    assert equal(weights(undisturbed), weights(resumed))
    assert [row["epoch"] for row in whole.read_history()] == [0, 1, 2, 3]
    assert whole.history_file.read_text() == broken.history_file.read_text()


class FrozenEncoder(TinyNetwork):
    def __init__(self):
        super().__init__(norm=True, dropout=0.5)
        self.encoder.requires_grad_(False)


def test_a_frozen_encoder_stays_in_eval_mode():
    task, watch = tiny_task(FrozenEncoder()), Watch()
    before = weights(task)
    quiet_trainer(max_epochs=3, callbacks=[watch]).fit(task, datamodule=module())
    assert len(watch.modes) == 6
    for modes in watch.modes:
        assert modes["head"] and modes[""]
        assert not any(training for name, training in modes.items() if name.startswith("encoder"))
    changed = {name for name, value in weights(task).items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_only_wholly_frozen_parts_are_put_in_eval_mode():
    parts = nn.ModuleDict({"mixed": nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)), "drop": nn.Dropout()})
    parts["mixed"][1].requires_grad_(False)
    freeze_eval(parts.train())
    assert parts["mixed"].training and parts["mixed"][0].training and parts["drop"].training
    assert not parts["mixed"][1].training


# Stand-ins for tasks, losses and inferers to come


class PromptedNetwork(TinyNetwork):
    def __init__(self):
        super().__init__()
        self.told = []

    def forward(self, image, *, context=None):
        self.told.append(context)
        return super().forward(image)


class TaskWithPrompts(SupervisedTask):
    """Tells the network a box around everything that is foreground."""

    def context(self, batch):
        boxes = [[[x.min(), y.min(), x.max(), y.max()]] for y, x in (torch.where(mask[0] > 0) for mask in batch.mask)]
        return Context(prompts=Prompts(boxes=torch.tensor(boxes).float()))


def test_a_prompted_task_passes_prompts():
    network = PromptedNetwork()
    task = TaskWithPrompts(network, DiceBCELoss(), protocol="madgnet[size=16]")
    trainer = quiet_trainer(limit_val_batches=0)
    trainer.fit(task, datamodule=module())
    assert len(network.told) == 2
    for context in network.told:
        assert context.prompts.boxes.shape == (3, 1, 4)
        assert (context.prompts.boxes[..., 2:] > context.prompts.boxes[..., :2]).all()


class DomainPenalty(SegmentationLoss):
    """The variance of the error between the domains of a batch."""

    def forward(self, output, batch):
        error = (output.logits.sigmoid() - batch.mask).square().mean(dim=(1, 2, 3))
        domains = batch.domain_index.unique()
        assert len(domains) == 2
        return {"error": error.mean(), "domains": torch.stack([error[batch.domain_index == d].mean() for d in domains]).var()}


def test_a_penalty_over_domains_sees_several_in_every_batch():
    seen = [Boxes("a"), Boxes("b", channels=3), Boxes("c")]
    data = module(seen, batches=DomainBatches(domains_per_batch=2, samples_per_domain=2))
    trainer, watch = quiet_trainer(max_epochs=2, callbacks=[watch := Watch()]), watch
    trainer.fit(tiny_task(loss=DomainPenalty()), datamodule=data)
    assert trainer.callback_metrics["train/domains"] > 0
    assert {index for batch in watch.domains for index in batch} == {0, 1, 2}


class EntropyDescent(Inferer):
    """One step of entropy minimisation per batch, undone afterwards."""

    adapts = True

    def infer(self, network, batch):
        kept = {name: value.clone() for name, value in network.state_dict().items()}
        probability = network(batch.image).logits.sigmoid()
        optimizer = torch.optim.SGD(network.parameters(), lr=5.0)
        (-(probability * probability.log())).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        adapted = network(batch.image).logits.sigmoid()
        network.load_state_dict(kept)
        return Prediction(adapted)


def test_an_inferer_may_adapt_in_validation_and_test():
    data = module(unseen=[Boxes("far")])
    task, plain = tiny_task(inferer=EntropyDescent()), tiny_task()
    watch = Watch()
    trainer = quiet_trainer(inference_mode=not task.inferer.adapts, callbacks=[watch])
    trainer.fit(task, datamodule=data)
    quiet_trainer().fit(plain, datamodule=data)
    assert equal(weights(task), weights(plain))  # adapting in validation leaves no trace
    trainer.test(task, datamodule=data, verbose=False)
    assert len(task.test_rows) == 12
    assert equal(weights(task), weights(plain))
    for batch, prediction in watch.outputs:
        assert not prediction.probability.requires_grad
        with torch.no_grad():
            assert not torch.allclose(prediction.probability, plain.network.eval()(batch.image).logits.sigmoid(), atol=1e-4)


class MonteCarloDropout(Inferer):
    """Mean and standard deviation over passes with dropout."""

    def infer(self, network, batch):
        drops = [part for part in network.modules() if isinstance(part, nn.Dropout)]
        for part in drops:
            part.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            passes = torch.stack([network(batch.image).logits.sigmoid() for _ in range(4)])
        for part in drops:
            part.eval()
        return Prediction(passes.mean(0), passes.std(0))


def test_uncertainty_goes_through_a_test():
    task, watch = tiny_task(TinyNetwork(dropout=0.5), inferer=MonteCarloDropout()), Watch()
    quiet_trainer(callbacks=[watch]).test(task, datamodule=module(), verbose=False)
    assert len(task.test_rows) == 2
    for batch, prediction in watch.outputs:
        assert prediction.uncertainty.shape == batch.mask.shape
        assert prediction.uncertainty.max() > 0.01


# Test rows


def test_rows_are_complete_sorted_and_named():
    seen = [Boxes("z", targets=("disc", "cup")), Boxes("b", targets=("cup",), splits="ttvee")]
    unseen = [Boxes("y", targets=("cup",), splits="tve"), Boxes("a", targets=("disc",), splits="ee")]
    data, task = module(seen, unseen), tiny_task(TinyNetwork(2))
    assert not task.test_rows
    for _ in range(2):  # a second test replaces the first
        quiet_trainer().test(task, datamodule=data, verbose=False)
        found = [(row.setting, row.dataset, row.case_id, row.target) for row in task.test_rows]
        assert found == [
            *(("seen", "z", case, target) for case in ("c08", "c09") for target in ("disc", "cup")),
            *(("seen", "b", case, "cup") for case in ("c03", "c04")),
            *(("unseen", "y", case, "cup") for case in ("c00", "c01", "c02")),
            *(("unseen", "a", case, "disc") for case in ("c00", "c01")),
        ]
    row = task.test_rows[0]
    assert (row.group_id, row.modality, row.domain, row.protocol) == ("g8", "ultrasound", "near", "madgnet[size=16]")
    assert tuple(row.measures) == task.protocol.measures
    assert all(0 <= row.measures[name] <= 1 for row in task.test_rows for name in VALIDATION_MEASURES)


@pytest.mark.parametrize("eval_batch_size", [1, 3])
def test_rows_do_not_depend_on_the_batch(eval_batch_size):
    found = []
    for size in (2, eval_batch_size):
        task = tiny_task()
        quiet_trainer().test(task, datamodule=module(unseen=[Boxes("far")], eval_batch_size=size), verbose=False)
        found.append(task.test_rows)
    assert len(found[0]) == 12 and len({row.measures["dsc"] for row in found[0]}) > 6
    for one, other in zip(*found, strict=True):
        assert one.key == other.key and one.measures == pytest.approx(other.measures, abs=1e-6)


def test_an_empty_prediction_says_so():
    network = TinyNetwork()
    nn.init.constant_(network.head.weight, 0.0)
    nn.init.constant_(network.head.bias, -9.0)
    task = tiny_task(network)
    quiet_trainer().test(task, datamodule=module(), verbose=False)
    assert {row.empty_case for row in task.test_rows} == {"prediction"}
    assert {row.measures["dsc"] for row in task.test_rows} == {0}


class Bars(Boxes):
    """References of 29 of 40 columns, from the left."""

    def read_mask(self, case):
        mask = np.zeros((1, *self.size), np.uint8)
        mask[..., :29] = 1
        return mask


def test_native_measures_are_taken_at_the_references_size():
    source = Bars(size=(32, 40))
    data = module([source], protocol="native", image_size=16)
    task = tiny_task(LeftHalf(), protocol="native")
    quiet_trainer().test(task, datamodule=data, verbose=False)
    # The left 8 of 16 columns become 20 of 40, with 0.7 and 0.3 in columns 19 and 20; soft errors: 0.3 + 0.7 + 8 columns.
    for row in task.test_rows:
        assert row.protocol == "native"
        expected = {"dsc": 40 / 49, "iou": 20 / 29, "mae": 9 / 40}
        assert {name: row.measures[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_native_measures_of_any_prediction():
    source = Boxes(size=(37, 23), targets=("a", "b"))
    data = module([source], protocol="native", image_size=16, eval_batch_size=4)
    task = tiny_task(TinyNetwork(2), protocol="native")
    quiet_trainer().test(task, datamodule=data, verbose=False)
    rows = {(row.case_id, row.target): row.measures for row in task.test_rows}
    assert len(rows) == 4
    for case in source.manifest.cases[8:]:
        image = torch.from_numpy(resize_image(source.read_image(case), (16, 16)).transpose(2, 0, 1).copy())[None] / 255
        with torch.no_grad():
            probability = task.network(image).logits.sigmoid()
        large = interpolate(probability, size=(37, 23), mode="bilinear", align_corners=False)
        values = measure_cases(large, torch.from_numpy(source.read_mask(case))[None], protocol=Protocol.parse("native"))
        for index, target in enumerate(("a", "b")):
            expected = {name: values[name][0, index].item() for name in task.protocol.measures}
            assert rows[case.case_id, target] == pytest.approx(expected, abs=1e-6)


def test_a_prediction_that_is_nan_stops_the_evaluation():
    network = TinyNetwork()
    nn.init.constant_(network.head.bias, torch.nan)
    with pytest.raises(ValueError, match="the prediction holds NaN"):
        quiet_trainer().test(tiny_task(network), datamodule=module(), verbose=False)


def test_defaults_are_adam_and_one_pass():
    task = SupervisedTask(TinyNetwork(), DiceBCELoss())
    optimizer = task.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 1e-3
    assert str(task.protocol) == "madgnet" and type(task.inferer).__name__ == "WholeImage"
    frozen = SupervisedTask(FrozenEncoder(), DiceBCELoss(), optimizer=partial(torch.optim.SGD, lr=1.0))
    assert len(frozen.configure_optimizers().param_groups[0]["params"]) == 2


def test_features_and_auxiliary_maps_do_not_disturb_evaluation():
    class Deep(TinyNetwork):
        def forward(self, image, *, context=None):
            logits = super().forward(image).logits
            return SegmentationOutput(logits, ({"region": logits + 1}, {"region": logits}) if self.training else ())

    trainer = quiet_trainer()
    trainer.fit(tiny_task(Deep()), datamodule=module())
    assert {"train/region_bce_1", "train/region_dice_2"} <= trainer.callback_metrics.keys()
