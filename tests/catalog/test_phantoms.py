from __future__ import annotations

import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.phantoms import GENERATOR_VERSION, PHANTOM_CARDS, PhantomDataset
from madgnet_bench.errors import ConfigError

MODALITIES = list(PHANTOM_CARDS)
COLOUR = ("dermoscopy", "colonoscopy", "fundus")


def arrays(dataset: PhantomDataset) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    return [(np.asarray(dataset.read_image(case)), dataset.read_mask(case)) for case in dataset.manifest]


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


@pytest.mark.parametrize("size", [32, 77, 512])
@pytest.mark.parametrize("shift", [0.0, 0.5, 0.501, 1.0])
@pytest.mark.parametrize("modality", MODALITIES)
def test_arrays_follow_the_contract(modality: str, shift: float, size: int) -> None:
    dataset = PhantomDataset(modality, shift=shift, size=size)
    case = dataset.manifest.cases[7]
    image, mask = dataset.read_image(case), dataset.read_mask(case)
    colour = modality in COLOUR or (modality == "microscopy" and shift > 0.5)
    assert image.shape == (size, size, 3 if colour else 1)
    assert mask.shape == (len(dataset.card.targets), size, size)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert image.max() - image.min() > 80


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_case_depends_on_its_address_alone(modality: str) -> None:
    few, many = PhantomDataset(modality, shift=0.3, cases=6, size=48), PhantomDataset(modality, shift=0.3, cases=40, size=48)
    forward = arrays(few)
    with ThreadPoolExecutor(4) as pool:
        backward = list(pool.map(lambda case: (many.read_image(case), many.read_mask(case)), many.manifest.cases[5::-1]))[::-1]
    for (image, mask), (other_image, other_mask) in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(mask, other_mask)
    assert many.manifest.cases[:6] == few.manifest.cases


def test_readers_give_copies_and_the_cache_does_not_travel() -> None:
    dataset = PhantomDataset("fundus", size=32, cases=5)
    case = dataset.manifest.cases[0]
    before = dataset.read_image(case)
    dataset.read_image(case)[:] = 0
    np.testing.assert_array_equal(dataset.read_image(case), before)
    travelled = pickle.loads(pickle.dumps(dataset))
    assert not travelled._cache
    np.testing.assert_array_equal(travelled.read_image(case), before)


@pytest.mark.parametrize("modality", MODALITIES)
def test_sizes_show_the_same_scene(modality: str) -> None:
    small, large = PhantomDataset(modality, size=64), PhantomDataset(modality, size=192)
    for case, other in zip(small.manifest.cases[:4], large.manifest.cases[:4], strict=True):
        mask = small.read_mask(case).astype(bool)
        central = large.read_mask(other).astype(bool)[:, 1::3, 1::3]
        assert dice(mask, central) > 0.99
        image = large.read_image(other).astype(float).mean(-1).reshape(64, 3, 64, 3).mean((1, 3))
        assert np.corrcoef(image.ravel(), small.read_image(case).astype(float).mean(-1).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("modality", MODALITIES)
def test_seeds_and_shifts_share_no_geometry(modality: str) -> None:
    sets = [
        PhantomDataset(modality, size=48, cases=6, seed=seed, shift=shift)
        for seed, shift in ((0, 0), (1, 0), (0, 0.001), (0, 0.4))
    ]
    for first in range(4):
        for second in range(first):
            pairs = zip(arrays(sets[first]), arrays(sets[second]), strict=True)
            assert all(dice(a.astype(bool), b.astype(bool)) < 0.97 for (_, a), (_, b) in pairs if a.any() or b.any())


@pytest.mark.parametrize("modality", ["dermoscopy", "radiology", "ultrasound", "colonoscopy", "fundus"])
def test_a_group_is_two_views_of_one_anatomy(modality: str) -> None:
    areas = np.array([mask.sum(axis=(1, 2)) for _, mask in arrays(PhantomDataset(modality, cases=60, size=48))], float)[:, 0]
    pairs = areas.reshape(-1, 2)
    pairs = pairs[pairs.min(axis=1) > 0]
    assert np.corrcoef(pairs.T)[0, 1] > 0.6
    images = [image for image, _ in arrays(PhantomDataset(modality, cases=6, size=48))]
    assert all(np.abs(a.astype(int) - b).mean() > 3 for a, b in zip(images[::2], images[1::2], strict=True))


@pytest.mark.parametrize("cases", [5, 6, 21, 60, 240])
def test_groups_do_not_straddle_and_every_split_is_filled(cases: int) -> None:
    manifest = PhantomDataset("radiology", cases=cases).manifest
    splits: dict[str, set[str]] = {}
    for case in manifest:
        splits.setdefault(case.group_id, set()).add(case.split)
    assert len(splits) == (cases + 1) // 2
    assert all(len(found) == 1 for found in splits.values())
    counts = Counter(case.split for case in manifest)
    assert min(counts[split] for split in ("train", "val", "test")) > 0
    if cases >= 60:
        assert [counts[split] / cases for split in ("train", "val", "test")] == pytest.approx([0.60, 0.15, 0.25], abs=0.04)


def test_manifests_tell_parameters_apart() -> None:
    base = {"shift": 0.3, "cases": 10, "size": 64, "seed": 3}
    changed = [{}, {"shift": 0.301}, {"cases": 11}, {"size": 65}, {"seed": 4}]
    hashes = [PhantomDataset("fundus", **{**base, **change}, name="same").manifest.sha256 for change in changed]
    hashes.append(PhantomDataset("ultrasound", **base, name="same").manifest.sha256)
    assert len(set(hashes)) == len(hashes)
    assert PhantomDataset("fundus", **base).manifest.sha256 == hashes[0]
    case = PhantomDataset("fundus", **base).manifest.cases[4]
    assert case.image == "phantom:fundus?v=1&shift=0.3&size=64&seed=3&index=4"
    assert case.mask == f"{case.image}&target=disc;{case.image}&target=cup"


def test_names_and_domains() -> None:
    source, target = PhantomDataset("microscopy"), PhantomDataset("microscopy", shift=0.6)
    assert (source.name, source.manifest.cases[0].domain) == ("phantom_microscopy", "source")
    assert (target.name, target.manifest.cases[0].domain) == ("phantom_microscopy/shift0.6", "shift0.6")
    assert PhantomDataset("microscopy", shift=0.0004).name == "phantom_microscopy"
    assert PhantomDataset("microscopy", shift=1, name="mine").name == "mine"
    assert source.card is target.card is PHANTOM_CARDS["microscopy"]


def test_cards_name_modality_and_nested_targets() -> None:
    targets = {modality: card.targets for modality, card in PHANTOM_CARDS.items()}
    assert targets == {
        "dermoscopy": ("lesion",),
        "radiology": ("infection",),
        "ultrasound": ("mass",),
        "microscopy": ("nuclei",),
        "colonoscopy": ("polyp",),
        "fundus": ("disc", "cup"),
    }
    assert all(card.name == f"phantom_{modality}" and card.modality == modality for modality, card in PHANTOM_CARDS.items())
    assert {card.containment for card in PHANTOM_CARDS.values()} == {(), (("cup", "disc"),)}


def test_check_finds_nothing_and_foreign_cases_are_refused() -> None:
    dataset, other = PhantomDataset("colonoscopy", cases=6, size=32), PhantomDataset("colonoscopy", cases=6, size=33)
    assert dataset.check() == []
    with pytest.raises(FileProblem, match=r"size=33.*is no case of phantom_colonoscopy"):
        dataset.read_image(other.manifest.cases[0])
    with pytest.raises(FileProblem, match="own manifest"):
        dataset.read_mask(PhantomDataset("colonoscopy", cases=8, size=32).manifest.cases[7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "fundas"}, r"unknown phantom modality 'fundas'; did you mean 'fundus'\?"),
        ({"modality": "xyz"}, "valid: dermoscopy, radiology"),
        ({"shift": 1.5}, r"shift=1.5 is not a number from 0 to 1; the nearest valid value is 1\."),
        ({"shift": -0.1}, r"nearest valid value is 0\."),
        ({"shift": float("nan")}, "shift=nan is not a number"),
        ({"shift": "0.5"}, "shift='0.5' is not a number"),
        ({"cases": 4}, r"cases=4 is not a whole number from 5 to .*; the nearest valid value is 5\."),
        ({"cases": 20.5}, r"nearest valid value is 20\."),
        ({"cases": True}, "cases=True is not a whole number"),
        ({"size": 1024}, r"size=1024 is not .*; the nearest valid value is 512\."),
        ({"size": 16}, r"nearest valid value is 32\."),
        ({"seed": -1}, r"seed=-1 .* nearest valid value is 0\."),
    ],
)
def test_bad_arguments_name_the_nearest_valid_value(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhantomDataset(**{"modality": "fundus", **arguments})


GOLDEN = {
    "dermoscopy": (119.29, 641, 115.66, 491),
    "radiology": (55.13, 133, 87.41, 142),
    "ultrasound": (104.32, 476, 116.41, 214),
    "microscopy": (42.77, 783, 162.73, 1363),
    "colonoscopy": (77.02, 432, 64.49, 202),
    "fundus": (44.2, 390, 64.61, 149),
}


@pytest.mark.parametrize("modality", MODALITIES)
def test_pixels_change_only_with_the_generator_version(modality: str) -> None:
    found: list[float] = []
    for shift in (0.0, 0.6):
        dataset = PhantomDataset(modality, shift=shift, size=64, seed=2)
        case = dataset.manifest.cases[3]
        found += [float(dataset.read_image(case).mean()), int(dataset.read_mask(case).sum())]
    assert GENERATOR_VERSION == 1
    assert found == pytest.approx(GOLDEN[modality], abs=1.5, rel=0.005), "raise GENERATOR_VERSION and update GOLDEN"
