import hashlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset, find_data_root
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS, OfficialList
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.readers.base import TEST_ONLY
from madgnet_bench.catalog.splits import list_file
from madgnet_bench.errors import ConfigError, DataErrors

sys.path.insert(0, str(Path(__file__).parent / "readers"))
import tiny_madgnet
import tiny_others

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


def splits_of(dataset):
    return {case.case_id: case.split for case in dataset.manifest}


def counts(dataset):
    return Counter(case.split for case in dataset.manifest)


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Replaces the released lists of a set by made-up ones, and stores them in the data root."""

    def make(name, rows, *, mask="{}.png", domains=()):
        items = []
        for number, (split, stems) in enumerate(rows):
            lines = ["Image_Id,ImageId,image_path,mask_path,new_mask_path"]
            lines += [f"0,{stem},{stem}.png,{mask.format(stem)},{mask.format(stem)}" for stem in stems]
            text = "\n".join(lines) + "\n"
            domain = domains[number] if domains else ""
            digest = hashlib.sha256(text.encode()).hexdigest()
            items.append(
                OfficialList(path=f"x/{name}/{number}.csv", rows=len(stems), sha256=digest, split=split, domain=domain)
            )
            path = tmp_path / "splits" / list_file(items[-1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setitem(OFFICIAL_LISTS, name, tuple(items))

    return make


def test_split_names():
    assert CatalogDataset("busi").split_name == "clean"
    assert CatalogDataset("busi", split="official").split_name == "official"
    assert FolderDataset("mine").split_name == "own"
    assert PhantomDataset("fundus").split_name == "generated"
    with pytest.raises(ConfigError, match="unknown split 'offical': did you mean 'official'"):
        CatalogDataset("busi", split="offical")
    with pytest.raises(ConfigError, match="cases states the size of a copy for the official split"):
        CatalogDataset("busi", cases=5)


def test_the_counts_of_the_official_splits():
    cases = {name: Counter() for name in OFFICIAL_LISTS}
    for name, items in OFFICIAL_LISTS.items():
        for item in items:
            cases[name][(item.split, item.domain) if name == "polyp_pranet" else item.split] += item.rows
    assert cases["isic2018"] == {"train": 2077, "val": 257, "test": 260}
    assert cases["covid19_1"] == {"train": 894, "test": 383}
    assert cases["busi"] == {"train": 485, "test": 162}
    assert cases["dsb2018"] == {"train": 536, "val": 67, "test": 67}
    test = {"cvc_clinicdb": 62, "kvasir": 100, "cvc_300": 60, "cvc_colondb": 380, "etis": 196}
    assert cases["polyp_pranet"] == {("train", ""): 1450, **{("test", domain): count for domain, count in test.items()}}
    totals = {name: sum(rows.values()) for name, rows in cases.items()}
    assert totals == {name: READERS[name].card.expected_cases for name in OFFICIAL_LISTS}


def test_the_official_split_is_that_of_the_lists_whatever_the_layout_says(released, tmp_path):
    tiny_madgnet.make_isic2018(tmp_path / "isic2018", parts=("Training", "Test"))
    dataset = CatalogDataset("isic2018", split="official", data_root=str(tmp_path))
    with pytest.raises(ConfigError, match="run `madgnet-bench data download splits`"):
        dataset.scan()
    names = [f"ISIC_000{number}000" for number in range(4)]
    rows = [("train", names[:2]), ("val", names[2:3]), ("test", names[3:])]
    released("isic2018", rows, mask="{}_segmentation.png")
    assert splits_of(dataset) == dict(zip(names, ["train", "train", "val", "test"], strict=True))
    assert dataset.notes == ("4 cases that the official split does not name are left out",)


def test_cases_that_are_not_here_must_be_stated(released, tmp_path):
    tiny_madgnet.make_covid19_1(tmp_path / "covid19_1")
    rows = [("train", ["001_0", "001_3", "7_6", "gone_1"]), ("test", ["001_6", "gone_2"])]
    released("covid19_1", rows)
    with pytest.raises(DataErrors, match=r"2 cases of the official split are not here, first gone_1 .*\(cases: 4\)"):
        CatalogDataset("covid19_1", split="official", data_root=str(tmp_path)).manifest  # noqa: B018
    stated = CatalogDataset("covid19_1", split="official", cases=4, data_root=str(tmp_path))
    assert counts(stated) == {"train": 3, "test": 1}
    assert stated.notes == (
        "2 cases of the official split are not here, first gone_1",
        "6 cases that the official split does not name are left out",
    )
    with pytest.raises(DataErrors, match="cases is 5, found 4"):
        CatalogDataset("covid19_1", split="official", cases=5, data_root=str(tmp_path)).manifest  # noqa: B018


def test_the_lists_of_the_polyp_pool_and_its_domains(released, tmp_path):
    tiny_madgnet.make_polyp_pranet(tmp_path / "polyp_pranet")
    layout = CatalogDataset("polyp_pranet", split="official", cases=15, data_root=str(tmp_path))
    assert counts(layout) == {"train": 6, "test": 9}
    assert layout.notes == ("15 of 2248 cases are here",)
    rows = [("train", ["1", "25", "26", "612", "cju0qkwl35piu0993l0dewei2", "ck2395w2mb4vu07480otsu6tw"])]
    rows += [("test", ["25", "196"]), ("test", ["cju5x00l6m5j608503k78ptee", "other"])]
    released("polyp_pranet", rows, domains=("", "etis", "kvasir"))
    etis = CatalogDataset("polyp_pranet", domain="etis", split="official", data_root=str(tmp_path))
    assert splits_of(etis) == {"etis_25": "test", "etis_196": "test"}
    kvasir = CatalogDataset("polyp_pranet", domain="kvasir", split="official", data_root=str(tmp_path))
    with pytest.raises(DataErrors, match=r"1 cases of the official split are not here, first kvasir_other .*\(cases: 3\)"):
        kvasir.manifest  # noqa: B018


def test_layouts_that_state_the_official_split(tmp_path):
    tiny_others.make_isic2017(tmp_path / "isic2017")
    tiny_others.make_refuge(tmp_path / "refuge")
    with pytest.raises(DataErrors, match=r"6 of 2750 cases are here .*state its size \(cases: 6\)"):
        CatalogDataset("isic2017", split="official", data_root=str(tmp_path)).manifest  # noqa: B018
    isic = CatalogDataset("isic2017", split="official", cases=6, data_root=str(tmp_path))
    assert counts(isic) == {"train": 3, "val": 1, "test": 2}
    canon = CatalogDataset("refuge", domain="canon", split="official", cases=4, data_root=str(tmp_path))
    assert counts(canon) == {"val": 2, "test": 2}
    assert counts(CatalogDataset("refuge", data_root=str(tmp_path)))["test"] == 2


def test_sets_without_an_official_split_say_so(tmp_path):
    make_shenzhen(tmp_path, normal=5, tuberculosis=0)
    with pytest.raises(ConfigError, match="shenzhen_lung_512 has no official split"):
        CatalogDataset("shenzhen_lung_512", split="official", data_root=str(tmp_path)).scan()


def test_the_clean_split_of_the_polyp_pool_keeps_sequences_together(tmp_path):
    tiny_madgnet.make_polyp_pranet(tmp_path / "polyp_pranet")
    dataset = CatalogDataset("polyp_pranet", data_root=str(tmp_path))
    for domain in ("cvc_300", "cvc_colondb", "etis"):
        assert {case.split for case in dataset.manifest if case.domain == domain} == {"test"}
    kvasir = [case for case in dataset.manifest if case.domain == "kvasir" and case.split == "test"]
    assert [case.case_id for case in kvasir] == ["kvasir_cju5x00l6m5j608503k78ptee"]
    assert dataset.notes[0].startswith("cvc_clinicdb: the official split divides 2 groups")
    where = {}
    for case in dataset.manifest:
        where.setdefault(case.group_id, set()).add(case.split)
    assert all(len(found) == 1 for found in where.values())
    alone = CatalogDataset("polyp_pranet", domain="kvasir", data_root=str(tmp_path))
    assert set(alone.manifest.cases) <= set(dataset.manifest.cases)
    assert alone.notes == ()
