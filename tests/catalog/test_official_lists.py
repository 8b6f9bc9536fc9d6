import re
from collections import Counter

import pytest

from madgnet_bench.catalog.official import READERS
from madgnet_bench.catalog.official_lists import COMMIT, OFFICIAL_LISTS, case_ids
from madgnet_bench.errors import ConfigError, DataErrors

# rows of made-up cases under the columns of the released files
TEXTS = {
    ("busi", "train", ""): (",image_path,mask_path", "0,benign (999).png,benign (999)_mask.png", "benign (999)"),
    ("covid19_1", "test", ""): ("Image_Id,image_path,mask_path", "0,099_3.jpg,099_3.png", "099_3"),
    ("covid19_2", "test", ""): ("Image_Id,image_path,mask_path", "0,99999.png,99999.png", "99999"),
    ("dsb2018", "val", ""): (",ImageId", "0,00ff", "00ff"),
    ("isic2018", "train", ""): (
        ",image_path,mask_path,new_mask_path",
        "0,ISIC_9999991.jpg,ISIC_9999992_segmentation.png,ISIC_9999991_segmentation.png",
        "ISIC_9999991",
    ),
    ("monuseg2018_mixture", "test", ""): ("Image_Id,image_path,mask_path", "0,TCGA-ZZ-1.tif,TCGA-ZZ-1.png", "TCGA-ZZ-1"),
    ("ph2", "test", ""): ("Image_Id,image_path,mask_path", "0,IMD999.bmp,IMD999_lesion.bmp", "IMD999"),
    ("polyp_pranet", "test", "etis"): ("Image_Id,image_path,mask_path", "0,999.png,999.png", "etis_999"),
    ("polyp_pranet", "train", ""): ("Image_Id,image_path,mask_path", "0,999.png,999.png", "cvc_clinicdb_999"),
    ("stu", "test", ""): ("Image_Id,image_path,mask_path", "0,Test_Image_99.png,mask_99.png", "Test_Image_99"),
}


def test_the_table_holds_every_released_list():
    lists = [item for items in OFFICIAL_LISTS.values() for item in items]
    assert len(lists) == len({item.path for item in lists}) == len({item.sha256 for item in lists}) == 20
    assert OFFICIAL_LISTS.keys() <= READERS.keys()
    assert all(re.fullmatch("[0-9a-f]{64}", item.sha256) and item.commit == COMMIT for item in lists)
    rows = {name: Counter() for name in OFFICIAL_LISTS}
    for name, items in OFFICIAL_LISTS.items():
        for item in items:
            rows[name][item.split, item.domain] += item.rows
            assert item.domain in ("", *READERS[name].card.domains)
    assert rows["isic2018"] == {("train", ""): 2077, ("val", ""): 257, ("test", ""): 260}
    assert rows["covid19_1"] == {("train", ""): 894, ("test", ""): 383}
    assert rows["busi"] == {("train", ""): 485, ("test", ""): 162}
    assert rows["dsb2018"] == {("train", ""): 536, ("val", ""): 67, ("test", ""): 67}
    tests = {"cvc_clinicdb": 62, "kvasir": 100, "cvc_300": 60, "cvc_colondb": 380, "etis": 196}
    assert rows["polyp_pranet"] == {("train", ""): 1450, **{("test", domain): count for domain, count in tests.items()}}
    assert [rows[name]["test", ""] for name in ("ph2", "stu", "covid19_2", "monuseg2018_mixture")] == [200, 42, 2534, 82]


@pytest.mark.parametrize("name", OFFICIAL_LISTS)
def test_lists_and_cards_agree_on_the_number_of_cases(name):
    assert sum(item.rows for item in OFFICIAL_LISTS[name]) == READERS[name].card.expected_cases


@pytest.mark.parametrize("key", TEXTS, ids=lambda key: "-".join(key))
def test_rows_become_case_ids(key):
    (name, split, domain), (header, row, expected) = key, TEXTS[key]
    assert case_ids(name, split, f"{header}\n{row}\n", domain=domain) == [expected]
    assert case_ids(name, split, f"{header}\r\n{row}\r\n", domain=domain) == [expected]


def test_every_set_is_tested():
    assert {name for name, _, _ in TEXTS} == OFFICIAL_LISTS.keys()


def test_polyps_of_the_training_list_are_told_apart():
    text = "Image_Id,image_path,mask_path\n0,7.png,7.png\n1,cju0zzz.png,cju0zzz.png\n"
    assert case_ids("polyp_pranet", "train", text) == ["cvc_clinicdb_7", "kvasir_cju0zzz"]


@pytest.mark.parametrize(
    ("name", "split", "domain"), [("busi", "val", ""), ("bbbc039", "test", ""), ("polyp_pranet", "test", "")]
)
def test_lists_that_do_not_exist(name, split, domain):
    with pytest.raises(ConfigError, match=f"no list '{name} {split}'; the lists are: busi train, busi test"):
        case_ids(name, split, "", domain=domain)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("busi", "", "lacks the column image_path"),
        ("busi", "image,mask_path\nx,y\n", "lacks the column image_path"),
        ("isic2018", ",image_path,mask_path\n0,a.jpg,a_segmentation.png\n", "lacks the column new_mask_path"),
        ("busi", ",image_path,mask_path\n0,,\n", "train list, line 2 .*names no case"),
        ("busi", ",image_path,mask_path\n0,a (1).png,a (2)_mask.png\n", r"a \(1\).png has the mask a \(2\)_mask.png"),
        ("busi", ",image_path,mask_path\n0,a.png\n", "a.png has the mask None"),
        ("dsb2018", ",ImageId\n0,ff\n1,ff\n", "case ff stands twice"),
    ],
)
def test_damaged_lists_are_refused(name, text, message):
    with pytest.raises(DataErrors, match=message):
        case_ids(name, "train", text)


def test_all_problems_of_a_list_are_told_at_once():
    with pytest.raises(DataErrors) as caught:
        case_ids("busi", "train", ",image_path,mask_path\n0,,\n1,a.png,b.png\n2,c.png,c_mask.png\n3,c.png,c_mask.png\n")
    assert [problem.problem for problem in caught.value.problems] == [
        "names no case",
        "a.png has the mask b.png",
        "case c stands twice",
    ]
