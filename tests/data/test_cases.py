from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from standins import Boxes
from torch.utils.data import DataLoader

from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.cache import DecodedCache
from madgnet_bench.data.cases import ByteCases, CaseDataset, CaseLoader, JoinedDataset
from madgnet_bench.data.samplers import Draw, PlannedBatchSampler, ShuffledBatches
from madgnet_bench.data.transforms import Augmentation, FlipRotate


def same(one, other):
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def cases(source=None, rows=(0, 1, 2, 3), **options):
    return CaseDataset(source or Boxes(), rows, **({"size": 16, "targets": ("lesion",)} | options))


def test_an_item_is_a_batch_of_one():
    source = Boxes(size=(24, 20))
    item = cases(source, rows=[3, 7], domain_index=2)[1]
    assert isinstance(item, SegmentationBatch) and len(item) == 1
    assert item.image.shape == (1, 1, 16, 16) and item.image.dtype == torch.float32
    assert 0 <= item.image.min() and item.image.max() <= 1
    assert item.mask.shape == (1, 1, 16, 16) and set(item.mask.unique().tolist()) == {0, 1}
    assert item.original_size.tolist() == [[24, 20]]
    assert item.case_index.tolist() == [7] and item.domain_index.tolist() == [2]
    assert (item.case_id, item.group_id, item.dataset) == (["c07"], ["g7"], ["boxes"])
    assert (item.modality, item.domain) == (["ultrasound"], ["near"])
    assert item.spacing.tolist() == [[1, 1]]
    assert cases(source)[0].domain_index.tolist() == [-1]


def test_pixels_at_their_own_size_are_those_of_the_reader():
    source = Boxes(size=(16, 16), channels=3)
    item = cases(source)[2]
    case = source.manifest.cases[2]
    assert np.array_equal((item.image[0] * 255).round().byte().numpy().transpose(1, 2, 0), source.read_image(case))
    assert np.array_equal(item.mask[0].byte().numpy(), source.read_mask(case))


def test_float_images_become_bytes_once():
    class Floats(Boxes):
        def read_image(self, case):
            return np.linspace(0, 1, 16 * 16, dtype=np.float32).reshape(16, 16, 1)

    image = cases(Floats(size=(16, 16)))[0].image.flatten()
    assert (image - torch.linspace(0, 1, 256)).abs().max() < 1 / 255


def test_targets_come_in_the_order_of_the_experiment_and_absent_ones_are_zeros():
    source = Boxes(size=(16, 16), targets=("disc", "cup"))
    item = cases(source, targets=("cup", "vessel", "disc"))[0]
    mask = torch.from_numpy(source.read_mask(source.manifest.cases[0])).float()
    assert item.target_present.tolist() == [[True, False, True]]
    assert torch.equal(item.mask[0, 0], mask[1]) and torch.equal(item.mask[0, 2], mask[0])
    assert not item.mask[0, 1].any()
    assert np.array_equal(cases(source, targets=("cup", "vessel", "disc")).native_mask(0)[0], mask[1].numpy())


def test_native_masks_keep_their_size():
    source = Boxes(size=(24, 20))
    assert np.array_equal(cases(source).native_mask(9), source.read_mask(source.manifest.cases[9]))


def test_spacing_is_that_of_the_source(monkeypatch):
    monkeypatch.setattr(Boxes, "spacing", lambda self, case: (0.5, 0.25))
    assert cases()[0].spacing.tolist() == [[0.5, 0.25]]


def test_mask_resampling_is_the_protocols():
    source = Boxes(size=(37, 41), targets=("a", "b"))
    soft, hard = (cases(source, targets=("a", "b"), mask_resampling=rule) for rule in ("bilinear", "nearest"))
    assert any(not torch.equal(soft[n].mask, hard[n].mask) for n in range(4))


class Count(Augmentation):
    """Writes its seed into the image."""

    def __call__(self, image, mask, *, seed):
        return np.full_like(image, seed % 251), 1 - mask


def test_only_draws_are_augmented_each_from_its_own_stream():
    data = cases(augmentation=Count(), seed=5)
    assert same(data[1], cases()[1])
    draws = [Draw(0, 0), Draw(1, 0), Draw(0, 1), Draw(0, 0, 1)]
    assert len({data[draw].image[0, 0, 0, 0].item() for draw in draws}) == 4
    assert same(data[draws[0]], cases(augmentation=Count(), seed=5)[draws[0]])
    assert not same(data[draws[0]], cases(augmentation=Count(), seed=6)[draws[0]])
    assert torch.equal(data[draws[0]].mask, 1 - data[0].mask)
    # the stream follows the row of the manifest, not the position among the chosen
    assert torch.equal(
        cases(rows=[2, 3], augmentation=Count())[Draw(1, 0)].image, cases(augmentation=Count())[Draw(3, 0)].image
    )


def test_equal_rows_of_two_sets_are_augmented_each_in_its_own_way():
    sets = [cases(augmentation=Count(), domain_index=index) for index in (-1, 0, 1, 2)]
    images = [data[Draw(1, 0)].image for data in sets]
    assert torch.equal(images[0], images[1])  # a single set has no index to tell
    assert len({image[0, 0, 0, 0].item() for image in images[1:]}) == 3


@pytest.mark.parametrize(("rate", "side"), [(0.75, 64), (1.0, 96), (1.25, 128)])
@pytest.mark.parametrize("rule", ["bilinear", "nearest"])
def test_a_draw_comes_at_its_rate_with_a_binary_mask(rate, side, rule):
    data = cases(Boxes(size=(96, 80), targets=("a", "b")), size=96, targets=("a", "b"), mask_resampling=rule)
    item = data[Draw(1, 0, rate=rate)]
    assert item.image.shape == (1, 1, side, side) and item.mask.shape == (1, 2, side, side)
    assert set(item.mask.unique().tolist()) == {0, 1}
    assert item.original_size.tolist() == [[96, 80]]
    assert data[1].image.shape == (1, 1, 96, 96)  # evaluation has one size
    assert (item.mask.mean((2, 3)) - data[1].mask.mean((2, 3))).abs().max() < 0.02  # the same boxes


class Stripes(Augmentation):
    """Image and mask from the seed alone."""

    def __call__(self, image, mask, *, seed):
        wide = np.random.default_rng(seed).integers(0, 2, (4, 1))
        mask = np.repeat(np.broadcast_to(wide, (4, 96)), 24, axis=0).astype(np.uint8)
        return mask[..., None] * 255, mask[None]


def test_the_rates_of_a_draw_share_its_augmentation():
    data = cases(Boxes(size=(96, 96)), size=96, augmentation=Stripes(), seed=3)
    seen = set()
    for epoch in range(8):
        items = [data[Draw(0, epoch, rate=rate)] for rate in (0.75, 1.0, 1.25)]
        columns = [
            tuple(item.mask[0, 0, side // 8 :: side // 4, 0].tolist()) for item, side in zip(items, (64, 96, 128), strict=True)
        ]
        assert len(set(columns)) == 1
        assert all(((item.image - item.mask).abs() < 0.5).all() for item in items)  # image and mask lie on each other
        seen.add(columns[0])
    assert len(seen) > 1


def test_rate_1_changes_nothing():
    data = cases(size=50, augmentation=FlipRotate())
    assert data[Draw(0, 0, rate=1)].image.shape[2:] == (50, 50)
    assert same(data[Draw(2, 3, rate=1)], data[Draw(2, 3)])


@pytest.mark.parametrize("augmentation", [None, FlipRotate()])
def test_memory_changes_no_value_and_saves_reading(monkeypatch, augmentation):
    reads = []
    read = Boxes.read_image
    monkeypatch.setattr(Boxes, "read_image", lambda self, case: reads.append(case.case_id) or read(self, case))
    kept, forgetful = (cases(augmentation=augmentation, memory_mb=mb) for mb in (64, 0))
    for epoch in range(3):
        for position in range(4):
            assert same(kept[Draw(position, epoch)], forgetful[Draw(position, epoch)])
            assert same(kept[position], forgetful[position])
    assert len(reads) == 4 + 4 * 3 * 2


def test_memory_is_bounded():
    # a colour image and a mask of 512 x 512 fill a megabyte
    data = cases(Boxes(channels=3), rows=range(10), size=512, memory_mb=2)
    for position in range(10):
        data[position]
    assert len(data._kept) == 2


def test_a_cache_changes_no_value_and_saves_reading(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    for name, shape in (("images", (30, 40, 3)), ("masks", (30, 40))):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            pixels = draw.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels if name == "images" else (pixels > 99) * np.uint8(255)).save(
                tmp_path / "set" / name / f"{number}.png"
            )
    source = FolderDataset(str(tmp_path / "set"))
    options = {
        "size": 64,
        "targets": ("other", "lesion"),
        "augmentation": FlipRotate(),
        "seed": 2,
        "mask_resampling": "nearest",
    }
    draws = [1, Draw(0, 0), Draw(1, 3), Draw(2, 1, 1), Draw(1, 1, rate=0.5), Draw(3, 2, rate=1.25)]
    plain = [cases(source, **options)[draw] for draw in draws]
    cache = DecodedCache(source, tmp_path / "cache", size=64, mask_resampling="nearest")
    cold, warm = (cases(source, cache=cache, **options) for _ in range(2))
    for draw, item in zip(draws, plain, strict=True):
        assert same(cold[draw], item)
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: pytest.fail("decoded again"))
    for draw, item in zip(draws, plain, strict=True):
        assert same(warm[draw], item)
        warm[draw].image.zero_()  # its receiver's own
        assert same(warm[draw], item)
    assert warm._kept == {}  # the system keeps the pages of the file


def test_what_a_cache_does_not_hold_is_kept_in_memory(tmp_path):
    source = Boxes()  # without files
    data = cases(source, cache=DecodedCache(source, tmp_path / "cache", size=16))
    assert same(data[1], cases(source)[1]) and list(data._kept) == [1]


def test_what_is_returned_can_be_changed_freely():
    data = cases()
    before = data[0].image.clone()
    data[0].image.zero_()
    assert torch.equal(data[0].image, before)


def test_joined_sets_know_their_domains():
    near, far = cases(rows=[0, 1], domain_index=0), cases(Boxes("far", channels=1), rows=[4, 5, 6], domain_index=1)
    joined = JoinedDataset([near, far])
    assert len(joined) == 5 and joined.domains == [0, 0, 1, 1, 1]
    assert same(joined[3], far[1])
    assert joined[Draw(3, 2)].case_id == ["c05"]
    augmented = JoinedDataset([near, cases(Boxes("far"), rows=[4, 5, 6], augmentation=Count())])
    assert not same(augmented[Draw(4, 1)], augmented[4])


def test_workers_yield_the_same_batches():
    def batches(workers):
        data = JoinedDataset([cases(Boxes(channels=3), rows=range(10), augmentation=FlipRotate(), seed=1)])
        sampler = PlannedBatchSampler(ShuffledBatches(4), data.domains, seed=1)
        loader = DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=SegmentationBatch.collate,
            persistent_workers=workers > 0,
        )
        found = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found

    pairs = list(zip(batches(0), batches(2), strict=True))
    assert len(pairs) == 4 and all(same(one, other) for one, other in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_bytes_yields_the_float_batches_of_the_contract(workers):
    parts = [cases(Boxes(channels=3), rows=range(6), augmentation=FlipRotate()), cases(Boxes("grey"), rows=[0, 1])]
    data = JoinedDataset(parts)
    assert len(ByteCases(data)) == 8 and ByteCases(data)[0].image.dtype == ByteCases(data)[0].mask.dtype == torch.uint8
    sampler = PlannedBatchSampler(ShuffledBatches(3), data.domains, seed=1)
    options = {"batch_sampler": sampler, "num_workers": workers, "collate_fn": SegmentationBatch.collate}
    loader = CaseLoader(ByteCases(data), **options)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        pairs = list(zip(loader, sampler, strict=True))
        assert len(loader) == len(pairs) == 2
        for batch, draws in pairs:
            assert batch.image.dtype == batch.mask.dtype == torch.float32
            assert same(batch, SegmentationBatch.collate([data[draw] for draw in draws]))


def test_every_byte_becomes_its_255th():
    class Levels(Boxes):
        def read_image(self, case):
            return np.arange(256, dtype=np.uint8).reshape(16, 16, 1)

    image = cases(Levels(size=(16, 16)))[0].image
    assert torch.equal(image.flatten(), torch.arange(256).float() / 255)
