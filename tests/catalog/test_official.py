import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset, find_data_root
from madgnet_bench.catalog.readers.base import TEST_ONLY
from madgnet_bench.errors import ConfigError, DataErrors

MODALITIES = {"dermoscopy", "radiology", "ultrasound", "microscopy", "colonoscopy", "fundus", "mri"}


def make_shenzhen(root, *, normal, tuberculosis):
    for kind in ("images", "masks"):
        (root / "shenzhen_lung_512" / kind).mkdir(parents=True, exist_ok=True)
        for digit, count in ((0, normal), (1, tuberculosis)):
            for number in range(count):
                path = root / "shenzhen_lung_512" / kind / f"CHNCXR_{number:04}_{digit}.jpg"
                Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


@pytest.mark.parametrize("name", READERS)
def test_cards_are_complete(name):
    card = READERS[name].card
    assert card.name == name
    assert card.modality in MODALITIES
    assert all((card.title, card.targets, card.citation, card.licence, card.split_rule, card.traps))
    assert card.url.startswith("https://")
    assert card.expected_cases and card.expected_cases > 0
    assert "subset" in card.layout


@pytest.mark.parametrize(
    ("name", "domain", "message"),
    [
        ("dsb2081", None, "unknown data set 'dsb2081': did you mean 'dsb2018'"),
        ("zzz", None, "Valid: .*bbbc039, .*busi, chasedb1"),
        ("dsb2018", "flourescence", "did you mean 'fluorescence'"),
        ("chasedb1", "left", "leave the domain out"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, domain, message):
    with pytest.raises(ConfigError, match=message):
        CatalogDataset(name, domain=domain)


def test_names_and_building_touch_nothing(monkeypatch):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    assert CatalogDataset("dsb2018").name == "dsb2018"
    assert CatalogDataset("dsb2018", domain="he").name == "dsb2018/he"


def test_data_root_by_argument_then_by_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=f"pass --data_root FOLDER, or set {DATA_ROOT_VARIABLE}"):
        CatalogDataset("busi").manifest  # noqa: B018
    monkeypatch.setenv(DATA_ROOT_VARIABLE, "/elsewhere")
    assert str(CatalogDataset("busi").folder) == "/elsewhere/busi"
    assert find_data_root(str(tmp_path)) == tmp_path
    with pytest.raises(DataErrors, match="the folder is missing") as caught:
        CatalogDataset("busi", data_root=str(tmp_path)).manifest  # noqa: B018
    assert "Dataset_BUSI_with_GT" in caught.value.problems[0].fix


def test_one_domain_is_split_as_in_the_whole(tmp_path):
    make_shenzhen(tmp_path, normal=20, tuberculosis=10)
    whole = CatalogDataset("shenzhen_lung_512", data_root=str(tmp_path)).manifest
    parts = [
        CatalogDataset("shenzhen_lung_512", domain=d, data_root=str(tmp_path)).manifest for d in ("normal", "tuberculosis")
    ]
    assert sorted(case for part in parts for case in part) == list(whole.cases)
    assert [[len(part.rows(split)) for split in ("train", "val", "test")] for part in parts] == [[14, 2, 4], [7, 1, 2]]
    assert {case.domain for case in parts[0]} == {"normal"}


def test_a_domain_too_small_to_split_is_all_test(tmp_path):
    make_shenzhen(tmp_path, normal=5, tuberculosis=2)
    manifest = CatalogDataset("shenzhen_lung_512", data_root=str(tmp_path)).manifest
    assert {case.split for case in manifest if case.domain == "tuberculosis"} == {"test"}
    assert {case.split for case in manifest if case.domain == "normal"} == {"train", "val", "test"}


def test_test_only_sets():
    test_only = {name for name, reader in READERS.items() if reader.test_only}
    assert {"bbbc039", "kvasir_seg", "monuseg2018_test", "ph2", "stu"} <= test_only
    assert test_only == {name for name, reader in READERS.items() if reader.card.split_rule.startswith(TEST_ONLY)}


def test_an_absent_domain_is_an_empty_set(tmp_path):
    make_shenzhen(tmp_path, normal=5, tuberculosis=0)
    dataset = CatalogDataset("shenzhen_lung_512", domain="tuberculosis", data_root=str(tmp_path))
    assert [problem.problem for problem in dataset.check()] == ["the data set is empty"]
    with pytest.raises(DataErrors, match="the data set is empty"):
        dataset.manifest  # noqa: B018
