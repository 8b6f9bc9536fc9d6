import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.errors import ConfigError, DataErrors

SQUARE = np.zeros((8, 10), np.uint8)
SQUARE[2:5, 3:7] = 255


def save(path, array=SQUARE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "My Set (v2)"
    for patient in range(5):
        for image in range(2):
            save(root / "images" / f"p{patient}_{image}.tif", np.stack([SQUARE] * 3, -1))
            save(root / "masks" / f"p{patient}_{image}.png")
    return root


def problems(dataset):
    return {(problem.file.rpartition("/")[2], problem.problem) for problem in dataset.scan()[1]}


def test_a_folder_is_a_data_set(folder):
    dataset = FolderDataset(str(folder), modality="ultrasound")
    assert dataset.name == dataset.card.name == "my_set_v2"
    assert dataset.card.targets == ("lesion",)
    assert len(dataset.manifest) == 10
    case = dataset.manifest.cases[0]
    assert (case.case_id, case.group_id, case.image, case.mask) == ("p0_0", "p0_0", "images/p0_0.tif", "masks/p0_0.png")
    assert dataset.read_image(case).shape == (8, 10, 3)
    assert np.array_equal(dataset.read_mask(case), SQUARE[None] // 255)
    assert dataset.spacing(case) is None
    assert dataset.check() == []
    assert [len(dataset.manifest.rows(split)) for split in ("train", "val", "test")] == [7, 1, 2]


def test_groups_stay_in_one_split(folder):
    cases = FolderDataset(str(folder), group_pattern="^(p[0-9]+)_", fractions=(0.4, 0.2, 0.4)).manifest.cases
    assert {case.group_id for case in cases} == {f"p{i}" for i in range(5)}
    assert all(len({case.split for case in cases if case.group_id == group}) == 1 for group in {c.group_id for c in cases})
    other = FolderDataset(str(folder), group_pattern="^(p[0-9]+)_", fractions=(0.4, 0.2, 0.4), split_seed=1).manifest
    assert other.sha256 != FolderDataset(str(folder), group_pattern="^(p[0-9]+)_", fractions=(0.4, 0.2, 0.4)).manifest.sha256


def test_several_targets(folder):
    for target, pixels in (("disc", SQUARE), ("cup", SQUARE // 255)):
        for image in (folder / "images").iterdir():
            save(folder / "reference" / target / f"{image.stem}.png", pixels)
    dataset = FolderDataset(str(folder), targets=("disc", "cup"), masks="reference/")
    case = dataset.manifest.cases[0]
    assert case.mask == "reference/disc/p0_0.png;reference/cup/p0_0.png"
    assert dataset.read_mask(case).shape == (2, 8, 10)
    assert dataset.check() == []


def test_jpeg_masks_are_cut(tmp_path):
    big = np.kron(SQUARE, np.ones((7, 7), np.uint8))  # edges inside the blocks of JPEG, which blurs them
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png", big)
        save(tmp_path / "masks" / f"{name}.jpg", big)
    dataset = FolderDataset(str(tmp_path))
    assert np.array_equal(dataset.read_mask(dataset.manifest.cases[0]), big[None] // 255)


def test_split_file(folder):
    rows = [f"p{p}_{i},{'test' if p == 4 else 'train'}" for p in range(5) for i in range(2)]
    (folder / "split.csv").write_text("\n".join(["case_id,split", *rows]), encoding="utf-8-sig")
    dataset = FolderDataset(str(folder), split_file="split.csv", group_pattern="^(p[0-9])")
    assert {case.group_id for case in dataset.manifest if case.split == "test"} == {"p4"}
    assert len(dataset.manifest.rows("train")) == 8


def test_a_split_file_of_another_encoding_is_a_problem(folder):
    (folder / "s.csv").write_bytes("case_id,split\n\xe9,train\n".encode("latin-1"))
    assert problems(FolderDataset(str(folder), split_file="s.csv")) == {
        ("s.csv", "the split file cannot be read (not a CSV in UTF-8)")
    }


def test_bad_split_files(folder):
    assert problems(FolderDataset(str(folder), split_file="no.csv")) == {
        ("no.csv", "the split file cannot be read (No such file or directory)")
    }
    (folder / "s.csv").write_text("name,part\np0_0,train\n")
    assert problems(FolderDataset(str(folder), split_file="s.csv")) == {
        ("s.csv", "the split file has no rows of case_id and split")
    }
    rows = [f"p{p}_{i},train" for p in range(5) for i in range(2)][2:]
    (folder / "s.csv").write_text("\n".join(["case_id,split", "p0_0,dev", *rows, "p4_1,test", "zz,val", "p1_1,test"]))
    assert problems(FolderDataset(str(folder), split_file="s.csv", group_pattern="^(p.)")) == {
        ("s.csv, line 2", "unknown split 'dev'"),
        ("s.csv, line 11", "case 'p4_1' stands twice"),
        ("s.csv, line 12", "no image has the stem 'zz'"),
        ("s.csv, line 13", "case 'p1_1' stands twice"),
        ("s.csv", "no row for case 'p0_1'"),
    }


def test_straddling_groups_are_reported(folder):
    rows = [f"p{p}_{i},{'train' if i else 'test'}" for p in range(5) for i in range(2)]
    (folder / "s.csv").write_text("\n".join(["case_id,split", *rows]))
    found = problems(FolderDataset(str(folder), split_file="s.csv", group_pattern="^(p.)"))
    assert ("s.csv", "group 'p3' is in test and train") in found
    assert len(found) == 5


def test_listing_problems_come_together(folder):
    save(folder / "images" / "lonely.png")
    save(folder / "masks" / "orphan.png")
    save(folder / "images" / "p0_0.bmp")
    save(folder / "images" / "x_0.png")
    save(folder / "masks" / "x_0.png")
    (folder / "images" / "scan.dcm").touch()
    with pytest.raises(DataErrors) as caught:
        FolderDataset(str(folder), group_pattern="^(p[0-9])_").manifest  # noqa: B018
    assert {(problem.file.rpartition("/")[2], problem.problem) for problem in caught.value.problems} == {
        ("lonely.png", "image without a mask in masks/"),
        ("orphan.png", "mask without an image"),
        ("p0_0.tif", "has the same stem as p0_0.bmp"),
        ("scan.dcm", "not one of the image formats .bmp .gif .jpeg .jpg .png .tif .tiff .webp"),
        ("x_0.png", "group_pattern finds no group in the name"),
    }


def test_missing_and_empty_folders(tmp_path):
    assert problems(FolderDataset(str(tmp_path / "no"))) == {("no", "the folder is missing")}
    assert problems(FolderDataset(str(tmp_path))) == {("images", "the folder is missing"), ("masks", "the folder is missing")}
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert problems(FolderDataset(str(tmp_path))) == {("images", "the folder is empty")}
    save(tmp_path / "images" / "a.png")
    assert problems(FolderDataset(str(tmp_path))) == {("masks", "the folder is empty")}


def test_masks_in_target_folders_need_the_targets_named(folder):
    (folder / "masks" / "cup").mkdir()
    dataset = FolderDataset(str(folder))
    assert [problem.fix for problem in dataset.scan()[1]] == ["move its files up; for several targets, name the targets"]


def test_too_few_groups_and_odd_names(tmp_path):
    for name in ("a;b", "c", "d"):
        save(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png")
    found = problems(FolderDataset(str(tmp_path)))
    assert ("a;b.png", "the name holds | or ;") in found
    assert any("2 groups cannot fill 3 splits" in problem for _, problem in found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ()}, "one or more different names"),
        ({"targets": ("cup", "cup")}, "one or more different names"),
        ({"group_pattern": "(p"}, "not a regular expression"),
        ({"group_pattern": "p[0-9]"}, "has no group"),
        ({"fractions": (0.5, 0.1, 0.1)}, "sum to 1"),
    ],
)
def test_wrong_use_is_told_when_built(options, message):
    with pytest.raises(ConfigError, match=message):
        FolderDataset("anywhere", **options)


def test_building_touches_no_file():
    assert FolderDataset("/no/such/Place").name == "place"
