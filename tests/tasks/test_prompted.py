from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from standins import Boxes, TinyNetwork, quiet_trainer
from torch import nn

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.cli import main
from madgnet_bench.contracts import Context, Inferer, Prediction, SegmentationNetwork, SegmentationOutput
from madgnet_bench.data.embeddings import EmbeddingCache
from madgnet_bench.data.samplers import ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.data.transforms import FlipRotate
from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.prompts import Clicks, JitteredBox, NoPrompts, RandomPoint, TightBox, WholeImageBox
from madgnet_bench.losses.region import DiceBCELoss
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_automatic import SAMAutomatic
from madgnet_bench.networks.self_prompt_sam import SelfPromptSAM
from madgnet_bench.records import RunFolder
from madgnet_bench.tasks.prompted import PromptedTask


def module(seen=None, unseen=(), **options):
    options = {"protocol": "madgnet[size=16]", "batches": ShuffledBatches(3), "eval_batch_size": 2} | options
    return SeenUnseenDataModule([Boxes()] if seen is None else seen, list(unseen), **options)


class Listener(TinyNetwork):
    """Notes what it is told, by the content of the image."""

    takes_prompts = True

    def __init__(self, num_targets=1):
        super().__init__(num_targets)
        self.heard = []

    def forward(self, image, *, context=None):
        self.heard.append((self.training, image.detach().clone(), context))
        return super().forward(image)

    def by_image(self, training, skip=0):
        """Points, labels and boxes of every image, by its sum."""
        found = {}
        for was_training, image, context in self.heard[skip:]:
            if was_training == training:
                for case in range(len(image)):
                    parts = [part[case].tolist() for part in context.prompts if part is not None]
                    found.setdefault(round(image[case].sum().item(), 4), []).append(parts)
        return found


def task(prompts=None, network=None, **options):
    network = network or Listener()
    options = {"optimizer": partial(torch.optim.Adam, lr=0.01), "protocol": "madgnet[size=16]"} | options
    return PromptedTask(network, DiceBCELoss(), prompts=prompts, **options)


def heard_in_test(source, *, batch_size=2, seed=0, targets=("lesion",)):
    network = Listener(len(targets))
    chosen = task(source, network, seed=seed)
    data = module([Boxes(targets=targets, splits="tttvveeeee")], eval_batch_size=batch_size, seed=seed)
    quiet_trainer().test(chosen, datamodule=data, verbose=False)
    return chosen, network.by_image(False)


# Where prompts come from stands in every row


@pytest.mark.parametrize(
    "source", [RandomPoint(), Clicks(3), TightBox(), JitteredBox(5), WholeImageBox()], ids=lambda s: s.name
)
def test_every_row_names_the_source(source):
    chosen, _ = heard_in_test(source)
    assert {row.protocol for row in chosen.test_rows} == {f"madgnet[size=16,prompts={source.name}]"}
    assert len(chosen.test_rows) == 5


def test_without_prompts_nothing_is_told_and_nothing_named():
    chosen = task()
    quiet_trainer().test(chosen, datamodule=module(), verbose=False)
    assert {row.protocol for row in chosen.test_rows} == {"madgnet[size=16]"}
    assert all(context.prompts is None for _, _, context in chosen.network.heard)


def test_a_protocol_that_names_the_source_is_fine_and_another_one_is_refused():
    assert str(task(TightBox(), protocol="madgnet[size=16,prompts=box]").protocol) == "madgnet[size=16,prompts=box]"
    for source in (RandomPoint(), NoPrompts()):
        with pytest.raises(ConfigError, match=f"says prompts=box, and the task draws prompts={source.name}"):
            task(source, protocol="madgnet[size=16,prompts=box]")


# Which prompts


def test_prompts_of_the_test_depend_on_case_and_source_seed_only():
    _, alone = heard_in_test(RandomPoint(), batch_size=1)
    _, together = heard_in_test(RandomPoint(), batch_size=4, seed=7)
    _, other = heard_in_test(RandomPoint(seed=1), batch_size=4)
    assert alone == together and len(alone) == 5
    assert alone != other and alone.keys() == other.keys()


def test_every_target_has_a_point_inside_itself():
    source = Boxes(targets=("lesion", "core"), splits="tttvveeeee")
    _, heard = heard_in_test(RandomPoint(), targets=("lesion", "core"))
    data = module([source])
    data.setup("test")
    for item in (data.test_sets[0].cases[position] for position in range(5)):
        ((points, labels),) = heard[round(item.image.sum().item(), 4)]
        for target in range(2):
            (x, y), (label,) = map(int, points[target][0]), labels[target]
            assert (label == 1 and item.mask[0, target, y, x] == 1) or (label == -1 and not item.mask[0, target].any())


def fitted(seed=0, epochs=2, source=None, **options):
    chosen = task(source or RandomPoint(), seed=seed)
    quiet_trainer(max_epochs=epochs, limit_val_batches=0).fit(chosen, datamodule=module(**options))
    return chosen.network.by_image(True)


def test_prompts_of_the_training_change_with_epoch_and_seed_and_repeat_themselves():
    first, again, other = fitted(), fitted(), fitted(seed=1)
    assert first == again and len(first) == 6
    assert sum(one != two for one, two in first.values()) >= 3
    assert first.keys() == other.keys() and first != other
    assert fitted(batches=ShuffledBatches(2)) == first  # whatever the batch


def test_clicks_correct_the_predictions_of_the_rounds_before():
    chosen, heard = heard_in_test(Clicks(3))
    assert all(len(rounds) == 3 for rounds in heard.values())
    for rounds in heard.values():
        given = [sum(label >= 0 for label in labels[0]) for _, labels in rounds]
        assert given[0] == 1 and given == sorted(given) and given[2] > 1
        assert rounds[0][0][0][0] == rounds[2][0][0][0]
    batch = next(iter(chosen.trainer.test_dataloaders[0]))
    points, labels = heard[round(batch.image[0].sum().item(), 4)][1]
    with torch.no_grad():
        predicted = TinyNetwork.forward(chosen.network, batch.image).logits.sigmoid() >= chosen.protocol.threshold
    x, y = map(int, points[0][1])
    assert batch.mask[0, 0, y, x].item() == labels[0][1] != predicted[0, 0, y, x].item()


def test_training_stops_after_a_random_number_of_clicks():
    chosen = task(Clicks(4))
    quiet_trainer(max_epochs=6, limit_val_batches=0).fit(chosen, datamodule=module())
    last = [context for training, _, context in chosen.network.heard if training and context.prompts is not None]
    counts = torch.cat([(context.prompts.labels >= 0).sum(-1).flatten() for context in last])
    assert set(counts.tolist()) == {1, 2, 3, 4}


class Empty(Boxes):
    def read_mask(self, case):
        return 0 * super().read_mask(case)


def test_an_empty_reference_gives_an_empty_prediction():
    torch.manual_seed(0)
    chosen = task(RandomPoint(), SAM(size="tiny", image_size=32))
    data = module([Boxes(splits="tttvvee"), Empty("empty", splits="tttvvee")])
    quiet_trainer(limit_val_batches=0).fit(chosen, datamodule=data)
    quiet_trainer().test(chosen, datamodule=data, verbose=False)
    rows = {row.dataset: [] for row in chosen.test_rows}
    for row in chosen.test_rows:
        rows[row.dataset].append(row)
    assert {row.empty_case for row in rows["empty"]} == {"both"}
    assert all(row.measures["dsc"] == 1 for row in rows["empty"])


class Flipped(Inferer):
    def infer(self, network, batch):
        return Prediction(network(batch.image.flip(3)).logits.sigmoid().flip(3))


def test_an_inferer_that_changes_images_is_refused():
    with pytest.raises(ConfigError, match="use the inferer WholeImage"):
        quiet_trainer().test(task(TightBox(), inferer=Flipped()), datamodule=module(), verbose=False)


def test_a_folder_of_images_has_no_reference_to_prompt_from():
    chosen = task(RandomPoint())
    with pytest.raises(ConfigError, match="prompts=point are taken from references"):
        chosen.predict_step(next(iter(_test_batches())), 0)
    with torch.no_grad():
        found = task(WholeImageBox(), Listener().eval()).predict_step(next(iter(_test_batches())), 0)
    assert found.probability.shape == (2, 1, 16, 16)


def _test_batches():
    data = module()
    data.setup("test")
    return data.test_dataloader()[0]


# Frozen networks and kept embeddings


class Split(SegmentationNetwork):
    """A frozen encoder and a head."""

    def __init__(self):
        super().__init__(1)
        draw = torch.Generator().manual_seed(0)
        self.encoder = nn.Conv2d(3, 6, 3, padding=1).requires_grad_(False)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 1, 1))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=draw)
        self.encodings = 0

    @property
    def frozen_encoder(self):
        return self.encoder

    def encode(self, image):
        self.encodings += len(image)
        return self.encoder(image.expand(-1, 3, -1, -1))

    def forward(self, image, *, context=None):
        context = context or Context()
        return SegmentationOutput(self.head(self.encode(image) if context.embedding is None else context.embedding))


def weights(network):
    return torch.cat([value.flatten() for value in network.state_dict().values()])


@pytest.mark.parametrize(
    ("build", "source"),
    [
        (Split, None),
        (lambda: SAM(size="tiny", image_size=32), RandomPoint()),
        (lambda: SAM(size="tiny", image_size=32), Clicks(2)),
    ],
    ids=["split", "sam-point", "sam-clicks"],
)
def test_training_with_and_without_kept_embeddings_agrees(build, source, tmp_path):
    found = []
    for embeddings in (None, EmbeddingCache(folder=str(tmp_path)), EmbeddingCache(folder=str(tmp_path))):
        torch.manual_seed(0)
        chosen = task(source, build(), embeddings=embeddings, optimizer=partial(torch.optim.SGD, lr=0.1))
        quiet_trainer(max_epochs=2).fit(chosen, datamodule=module())
        found.append(weights(chosen.network))
    assert torch.equal(found[1], found[2])  # computed in this training, or by one before
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert embeddings.computed == 0


def test_every_image_is_encoded_once(tmp_path):
    network = Split()
    chosen = task(network=network, embeddings=EmbeddingCache(folder=str(tmp_path)))
    data = module(augmentation=FlipRotate(degrees=0), seed=3)
    quiet_trainer(max_epochs=30).fit(chosen, datamodule=data)
    assert 6 + 2 < network.encodings <= 6 * 4 + 2  # at most four variants of six training cases, and two of validation


def test_augmentation_without_end_is_refused(tmp_path):
    chosen = task(network=Split(), embeddings=EmbeddingCache(folder=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"FlipRotate never repeats one.*degrees: 0"):
        quiet_trainer().fit(chosen, datamodule=module(augmentation=FlipRotate()))
    assert not any(tmp_path.iterdir())


def test_a_frozen_network_is_evaluated_and_stays_as_it_is():
    torch.manual_seed(0)
    network = SAM(size="tiny", image_size=32, train="frozen")
    before = weights(network)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(task(TightBox(), network), datamodule=module())
    assert torch.equal(before, weights(network)) and trainer.callback_metrics["val/dsc"] >= 0


def test_prompts_teach_a_small_sam():
    """Told where the nuclei are, it learns faster than it could guess: the loss falls and the prompted score rises."""
    torch.manual_seed(0)
    chosen = task(TightBox(), SAM(size="tiny", image_size=32, train="full"), protocol="madgnet[size=32]")
    data = module([PhantomDataset("microscopy", size=32, cases=16)], protocol="madgnet[size=32]", batches=ShuffledBatches(4))
    losses = []
    for _ in range(2):
        trainer = quiet_trainer(max_epochs=6)
        trainer.fit(chosen, datamodule=data)
        losses.append(trainer.callback_metrics["train/loss"].item())
    assert losses[1] < losses[0] < 1.5


# Through the command line


def test_a_tiny_sam_trains_through_the_command_line(tmp_path, capsys):
    files = ["configs/data/phantoms_microscopy.yaml", "configs/network/sam_tiny_point.yaml"]
    root = Path(__file__).parents[2]
    arguments = ["fit", *(word for file in files for word in ("--config", str(root / file)))]
    arguments += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.accelerator", "cpu"]
    assert main([*arguments, "--run.root", str(tmp_path)]) == 0, capsys.readouterr().err
    assert "prompts=point" in capsys.readouterr().out
    (folder,) = (tmp_path / "adhoc").iterdir()
    rows = RunFolder(folder).read_cases()
    assert {row.protocol for row in rows} == {"madgnet[size=64,prompts=point]"}
    assert RunFolder(folder).read_result()["protocol"] == "madgnet[size=64,prompts=point]"


def test_a_network_that_listens_to_no_prompts_is_not_told_any():
    with pytest.raises(ConfigError, match="TinyNetwork listens to no prompts, and results would name prompts=box"):
        task(TightBox(), TinyNetwork())
    for network in (SAMAutomatic(size="tiny", image_size=32), SelfPromptSAM(size="tiny", image_size=32)):
        with pytest.raises(ConfigError, match="listens to no prompts"):
            task(RandomPoint(), network)


def test_a_network_that_has_learned_nothing_is_not_tested():
    chosen = PromptedTask(SelfPromptSAM(size="tiny", image_size=32), DiceBCELoss(), protocol="madgnet[size=16]")
    with pytest.raises(ConfigError, match="has learned from no image: train it with FewShotTask"):
        quiet_trainer().test(chosen, datamodule=module(), verbose=False)


def test_clicks_of_later_rounds_leave_no_place():
    _, heard = heard_in_test(Clicks(3))
    assert [[len(points[0]) for points, _ in rounds] for rounds in heard.values()] == [[1, 2, 3]] * 5
