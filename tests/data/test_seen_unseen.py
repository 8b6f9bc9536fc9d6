from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from standins import Boxes, TinyNetwork, quiet_trainer, tiny_task

from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.single_target import SingleTarget
from madgnet_bench.data.cache import DecodedCache
from madgnet_bench.data.samplers import DomainBatches, PlannedBatchSampler, ShuffledBatches
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule, check_unseen
from madgnet_bench.data.transforms import FlipRotate
from madgnet_bench.errors import ConfigError, DataErrors
from madgnet_bench.tasks.schedules import Cosine

PROTOCOL = "madgnet[size=16]"


def module(seen=None, unseen=None, **options):
    options = {"protocol": PROTOCOL, "batches": ShuffledBatches(3), "eval_batch_size": 2} | options
    return SeenUnseenDataModule([Boxes()] if seen is None else seen, [Boxes("far")] if unseen is None else unseen, **options)


def ids(loader):
    return [case_id for batch in loader for case_id in batch.case_id]


def test_building_touches_no_file(monkeypatch):
    def touched(*arguments):
        raise AssertionError("a file was touched")

    for name in ("scan", "read_image", "read_mask"):
        monkeypatch.setattr(Boxes, name, touched)
    data = module(seen=[Boxes(targets=("disc", "cup"))], unseen=[Boxes("far", targets=("cup",))])
    assert (data.num_targets, data.targets, data.image_size) == (2, ("disc", "cup"), 16)
    assert data.test_sets == data.val_sets == []
    with pytest.raises(RuntimeError, match=r"setup\('test'\)"):
        data.test_dataloader()
    with pytest.raises(RuntimeError, match=r"setup\('fit'\)"):
        data.train_dataloader()


def test_each_stage_lists_its_cases():
    data = module(seen=[Boxes("near", splits="ttttvvve"), Boxes("other", splits="tttte")])
    data.setup("fit")
    assert sorted(ids(data.train_dataloader())) != [] and len(ids(data.train_dataloader())) == 6  # 8 cases, batches of 3
    assert [ids(loader) for loader in data.val_dataloader()] == [["c04", "c05", "c06"]]
    assert [(s.name, s.setting) for s in data.val_sets] == [("near", "seen")]
    with pytest.raises(RuntimeError, match="test loaders"):
        data.test_dataloader()
    data.setup("test")
    assert [(s.name, s.setting) for s in data.test_sets] == [("near", "seen"), ("other", "seen"), ("far", "unseen")]
    assert [ids(loader) for loader in data.test_dataloader()] == [["c07"], ["c04"], [f"c{n:02d}" for n in range(10)]]
    assert [len(batch) for batch in data.test_dataloader()[2]] == [2, 2, 2, 2, 2]


def test_a_fit_never_opens_a_test_file():
    seen = Boxes("near", unreadable="e")
    unseen = Boxes("far", unreadable="tve")
    data = module(seen=[seen], unseen=[unseen])
    task = tiny_task()
    trainer = quiet_trainer()
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 2
    assert "val/dsc" in trainer.callback_metrics
    with pytest.raises(AssertionError, match="near: c08 of test was read"):  # the stand-in does refuse
        trainer.test(task, datamodule=data, verbose=False)


def test_an_unseen_set_is_not_even_listed_by_a_fit(monkeypatch):
    unseen = Boxes("far")
    monkeypatch.setattr(unseen, "scan", lambda: pytest.fail("listed"))
    data = module(unseen=[unseen])
    for stage in ("fit", "validate"):
        data.setup(stage)
    assert len(data.val_dataloader()) == 1


def test_only_training_cases_are_augmented():
    data = module(augmentation=FlipRotate(degrees=45), seed=3)
    plain = module(seed=3)
    for one in (data, plain):
        one.setup("fit")
        one.setup("test")
    pairs = [(a.image, b.image) for a, b in zip(data.train_dataloader(), plain.train_dataloader(), strict=True)]
    assert not any(torch.equal(a, b) for a, b in pairs)
    for loaders in ("val_dataloader", "test_dataloader"):
        for one, other in zip(getattr(data, loaders)(), getattr(plain, loaders)(), strict=True):
            assert all(torch.equal(a.image, b.image) for a, b in zip(one, other, strict=True))


def test_training_batches_are_planned():
    data = module(seen=[Boxes("a"), Boxes("b")], batches=DomainBatches(domains_per_batch=2, samples_per_domain=2))
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader.batch_sampler, PlannedBatchSampler)
    for batch in loader:
        assert sorted(batch.domain_index.tolist()) == [0, 0, 1, 1]
        assert [["a", "b"][index] for index in batch.domain_index] == batch.dataset


def test_each_batch_is_trained_once_per_rate():
    protocol = "madgnet[size=96]"
    data, plain = (module(rates=rates, augmentation=FlipRotate(), protocol=protocol) for rates in ((0.75, 1, 1.25), (1.0,)))
    data.setup("fit")
    plain.setup("fit")
    batches, single = list(data.train_dataloader()), list(plain.train_dataloader())
    assert len(data.train_dataloader()) == len(batches) == 3 * len(single) == 6
    for step, batch in enumerate(batches):
        assert batch.image.shape[2:] == batch.mask.shape[2:] == ((64, 64), (96, 96), (128, 128))[step % 3]
        assert batch.case_id == single[step // 3].case_id
        assert set(batch.mask.unique().tolist()) == {0, 1}
    assert all(torch.equal(a.image, b.image) for a, b in zip(batches[1::3], single, strict=True))
    assert {batch.image.shape[2:] for batch in data.val_dataloader()[0]} == {(96, 96)}


def test_schedules_count_the_steps_of_every_rate():
    data = module(rates=(0.5, 1, 2), protocol="madgnet[size=64]")
    task = tiny_task(protocol="madgnet[size=64]", schedule=Cosine(minimum=1e-6))
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == trainer.estimated_stepping_batches == 2 * 2 * 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_at_several_rates_resumes_as_if_undisturbed(tmp_path, workers):
    def fit(epochs, resume=None):
        data = module(rates=(0.5, 1), augmentation=FlipRotate(), num_workers=workers, protocol="madgnet[size=64]")
        task = tiny_task(TinyNetwork(norm=True, dropout=0.5), protocol="madgnet[size=64]")
        trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0)
        trainer.fit(task, datamodule=data, ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return task.network.state_dict()

    undisturbed = fit(3)
    fit(1)
    resumed = fit(3, resume=tmp_path / "last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in undisturbed.items())


def test_rates_that_cannot_be_trained_are_refused():
    for rates in ((), (0.75, 0), (1, -1), (float("nan"),)):
        with pytest.raises(ConfigError, match="give one or more positive numbers"):
            module(rates=rates)
    with pytest.raises(ConfigError, match=r"of image size 64 give sides \[64, 64, 64\] .*choose a larger size"):
        module(rates=(0.75, 1, 1.25), protocol="madgnet[size=64]")
    assert module(rates=[0.75, 1, 1.25], protocol="madgnet").image_size == 352


def test_one_and_three_channels_share_a_batch_and_a_training():
    seen = [Boxes("grey", channels=1), Boxes("colour", channels=3, modality="dermoscopy")]
    data = module(seen=seen, batches=DomainBatches(domains_per_batch=2, samples_per_domain=2))
    data.setup("fit")
    for batch in data.train_dataloader():
        assert batch.image.shape == (4, 3, 16, 16)
        grey = batch.image[batch.domain_index == 0]
        assert torch.equal(grey[:, 0], grey[:, 2])
        assert set(batch.modality) == {"ultrasound", "dermoscopy"}
    trainer = quiet_trainer()
    trainer.fit(tiny_task(), datamodule=data)
    assert trainer.global_step == 3


def test_sets_with_different_targets_mark_what_they_annotate():
    seen = [Boxes("fundus", targets=("disc", "cup")), Boxes("discs", targets=("disc",)), Boxes("vessels", targets=("vessel",))]
    data = module(seen=seen, unseen=[Boxes("far", targets=("cup", "lens"))], batches=ShuffledBatches(18))
    assert data.targets == ("disc", "cup", "vessel")
    data.setup("fit")
    (batch,) = data.train_dataloader()
    present = {name: batch.target_present[n].tolist() for n, name in enumerate(batch.dataset)}
    assert present == {"fundus": [True, True, False], "discs": [True, False, False], "vessels": [False, False, True]}
    assert not batch.mask[~batch.target_present].any()
    task = tiny_task(TinyNetwork(3))
    trainer = quiet_trainer()
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    found = {(row.dataset, row.target) for row in task.test_rows}
    assert found == {("fundus", "disc"), ("fundus", "cup"), ("discs", "disc"), ("vessels", "vessel"), ("far", "cup")}


def test_one_folder_under_two_names_is_found_by_its_files(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "d" / part).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.full((8, 8), number, np.uint8) * (part == "images")).save(
                tmp_path / "d" / part / f"{number}.png"
            )
    (tmp_path / "link").symlink_to(tmp_path / "d")
    seen = FolderDataset(str(tmp_path / "d"), name="hospital_a")
    with pytest.raises(ConfigError, match="unseen set hospital_b shares 10 cases with seen set hospital_a"):
        check_unseen([seen], [FolderDataset(str(tmp_path / "link"), name="hospital_b")])
    shutil.copytree(tmp_path / "d", tmp_path / "other")
    check_unseen([seen], [FolderDataset(str(tmp_path / "other"), name="hospital_a")])


def test_an_unseen_set_that_shares_files_is_refused():
    seen, unseen = Boxes("near", card="set"), Boxes("near/again", card="set", splits="eeee", first_case=8)
    with pytest.raises(ConfigError, match=r"unseen set near/again shares 2 cases with seen set near, first 8\.png"):
        check_unseen([seen], [unseen])
    data = module(seen=[seen], unseen=[unseen])
    data.setup("fit")  # does not look at unseen sets
    with pytest.raises(ConfigError, match="shares 2 cases"):
        data.setup("test")
    check_unseen([seen], [Boxes("near/later", card="set", first_case=10), Boxes("stranger")])


@pytest.mark.parametrize(
    ("seen", "unseen", "message"),
    [
        ([], ["a"], "data.seen is empty"),
        (["a", "b"], ["a"], "data set a is named twice"),
        (["a", "a"], [], "data set a is named twice"),
    ],
)
def test_sets_that_do_not_make_an_experiment_are_refused(seen, unseen, message):
    with pytest.raises(ConfigError, match=message):
        module(seen=[Boxes(name) for name in seen], unseen=[Boxes(name) for name in unseen])


def test_an_unseen_set_needs_a_target_that_was_trained():
    with pytest.raises(ConfigError, match=r"unseen set far has targets \['lens'\], training has \['lesion'\]"):
        module(unseen=[Boxes("far", targets=("lens",))])


def test_an_empty_set_and_one_without_training_cases_are_refused():
    with pytest.raises(DataErrors, match="the data set is empty"):
        module(seen=[Boxes(splits="")]).setup("fit")
    with pytest.raises(ConfigError, match="no training cases in boxes"):
        module(seen=[Boxes(splits="vvee")]).setup("fit")


def test_the_size_is_the_protocols():
    assert module(protocol="madgnet").image_size == 352
    assert module(image_size=16).image_size == 16
    with pytest.raises(ConfigError, match=r"choose the protocol madgnet\[size=64\]"):
        module(image_size=64)
    with pytest.raises(ConfigError, match=r"set data\.image_size"):
        module(protocol="native")
    native = module(protocol="native", image_size=32)
    assert native.image_size == 32
    native.setup("test")
    (batch, *_) = native.test_dataloader()[1]
    assert batch.image.shape[2:] == batch.mask.shape[2:] == (32, 32)
    assert batch.original_size.tolist() == [[24, 20], [24, 20]]
    far = native.test_sets[1].cases.source
    assert np.array_equal(native.native_mask(1, 6), far.read_mask(far.manifest.cases[6]))


def test_fewer_evaluation_cases_than_processes_are_refused(monkeypatch):
    data = module(seen=[Boxes(splits="tttttve")], unseen=[Boxes("far", splits="ee")])
    data.setup("fit")
    data.setup("test")
    monkeypatch.setattr(SeenUnseenDataModule, "_process", lambda self: (1, 2))
    with pytest.raises(ConfigError, match="the largest evaluation set has 1 cases for 2 processes"):
        data.val_dataloader()
    assert [ids(loader) for loader in data.test_dataloader()] == [[], ["c01"]]


def folder_of(path, *, cases=12, seed=0):
    draw = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
        for number in range(cases):
            pixels = draw.integers(0, 256, (20, 24), dtype=np.uint8)
            Image.fromarray(pixels if name == "images" else (pixels > 150) * np.uint8(255)).save(path / name / f"{number}.png")
    return FolderDataset(str(path), modality="ultrasound")


def pixels_of(data):
    data.setup("fit")
    data.setup("test")
    loaders = [data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()]
    return [(batch.case_id, batch.image, batch.mask) for loader in loaders for batch in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_the_cache(tmp_path, workers):
    near, far = folder_of(tmp_path / "near"), folder_of(tmp_path / "far", cases=5, seed=1)
    options = {"rates": (0.5, 1), "protocol": "madgnet[size=64]", "augmentation": FlipRotate(), "num_workers": workers}
    folder = tmp_path / "cache"
    plain = pixels_of(module([near], [far], cache=str(folder), cache_gb=0, **options))
    assert not folder.exists()
    for _ in range(2):  # cold and warm
        cached = pixels_of(module([near], [far], cache=str(folder), **options))
        for (ids_1, *tensors_1), (ids_2, *tensors_2) in zip(plain, cached, strict=True):
            assert ids_1 == ids_2 and all(torch.equal(a, b) for a, b in zip(tensors_1, tensors_2, strict=True))
    assert len(list(folder.glob("*/cases.bin"))) == 2


def test_a_fit_caches_no_test_case(tmp_path):
    near, far = folder_of(tmp_path / "near"), folder_of(tmp_path / "far")
    data = module([near], [far], cache=str(tmp_path / "cache"))
    quiet_trainer().fit(tiny_task(), datamodule=data)
    cache = DecodedCache(near, tmp_path / "cache", size=16)
    held = {case.split for row, case in enumerate(near.manifest) if cache.holds(row)}
    assert held == {"train", "val"}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_files_are_checked_once(tmp_path, monkeypatch):
    near, far = folder_of(tmp_path / "near"), folder_of(tmp_path / "far", cases=5)
    steps = []
    data = module([near], [far, Boxes("boxes")], cache=str(tmp_path / "cache"))
    data.check_files(step=lambda done, total: steps.append((done, total)))
    assert steps[11] == (12, 12) and steps[-1] == (5, 5)
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: pytest.fail(f"{case.case_id} was decoded again"))
    module([near], [far], cache=str(tmp_path / "cache")).check_files(step=lambda done, total: pytest.fail("decoded again"))


@pytest.mark.parametrize("gigabytes", [0, 1e-6, 20])
def test_everything_wrong_with_the_files_is_told_at_once(tmp_path, gigabytes):
    near, far, third = (folder_of(tmp_path / name, cases=5) for name in ("near", "far", "third"))
    data = module([near], [far, third], cache=str(tmp_path / "cache"), cache_gb=gigabytes)
    data.check_files()
    Image.fromarray(np.full((20, 24), 77, np.uint8)).save(tmp_path / "near" / "masks" / "0.png")
    Image.fromarray(np.zeros((20, 25), np.uint8)).save(tmp_path / "near" / "masks" / "1.png")
    (tmp_path / "far" / "images" / "3.png").write_bytes(b"")
    (tmp_path / "far" / "images" / "4.png").write_bytes(b"text")
    data = module([near], [far, third], cache=str(tmp_path / "cache"), cache_gb=gigabytes)
    with pytest.raises(DataErrors, match="near, far: 4 problems") as error:
        data.check_files()
    shown = str(error.value)
    assert all(file in shown for file in ("near/masks/0.png", "near/masks/1.png", "far/images/3.png", "far/images/4.png"))
    (tmp_path / "near" / "masks" / "2.png").unlink()  # found while listing
    again = module([FolderDataset(str(tmp_path / "near"))], [far], cache=str(tmp_path / "cache"), cache_gb=gigabytes)
    with pytest.raises(DataErrors, match=r"near/images/2\.png"):
        again.check_files()


def test_phantoms_of_all_modalities_go_through_one_module():
    names = ("dermoscopy", "radiology", "fundus")
    seen = [PhantomDataset(name, size=32, cases=6) for name in names]
    data = module(seen=seen, unseen=[PhantomDataset("fundus", size=32, cases=5, shift=0.5)])
    assert data.targets == ("lesion", "infection", "disc", "cup")
    data.setup("fit")
    assert {name for batch in data.train_dataloader() for name in batch.modality} <= set(names)
    data.setup("test")
    assert [len(s.cases) for s in data.test_sets][-1] == 5


def test_sets_are_left_out_by_name_or_modality():
    def modalities(*leave_out):
        sets = [PhantomDataset(modality, size=32, cases=10) for modality in ("dermoscopy", "ultrasound", "colonoscopy")]
        module = SeenUnseenDataModule(
            [SingleTarget(source) for source in sets], leave_out=leave_out, protocol="madgnet[size=32]"
        )
        return [source.card.modality for source in module.seen], [source.card.modality for source in module.unseen]

    assert modalities() == (["dermoscopy", "ultrasound", "colonoscopy"], [])
    assert modalities("ultrasound") == (["dermoscopy", "colonoscopy"], ["ultrasound"])
    assert modalities("phantom_dermoscopy", "colonoscopy") == (["ultrasound"], ["dermoscopy", "colonoscopy"])
    with pytest.raises(ConfigError, match=r"leave_out names 'mri'.*valid: phantom_dermoscopy, dermoscopy, phantom_ultrasound"):
        modalities("mri")
    with pytest.raises(ConfigError, match="name at least one data set to train on"):
        modalities("dermoscopy", "ultrasound", "colonoscopy")


def test_a_set_left_out_is_tested_on_all_its_cases():
    sets = [SingleTarget(PhantomDataset(modality, size=32, cases=10)) for modality in ("dermoscopy", "ultrasound")]
    module = SeenUnseenDataModule(sets, leave_out=["ultrasound"], protocol="madgnet[size=32]")
    module.setup("test")
    assert [(test.setting, len(test.cases)) for test in module.test_sets] == [("seen", 2), ("unseen", 10)]
