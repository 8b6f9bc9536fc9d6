from collections import Counter

import numpy as np
import pytest
import scipy.io
from tiny_others import (
    BLOB,
    COLOUR,
    CUP,
    DISC,
    MAKERS,
    fundus_labels,
    organs,
    save,
    save_volume,
    tumour,
    ventricles,
)

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import split_part
from madgnet_bench.catalog.official import READERS, CatalogDataset

# cases, cases per domain, groups, cases per official split
EXPECTED = {
    "acdc": (18, {"": 18}, 3, {"train": 12, "test": 6}),
    "brats2021": (12, {"t1": 3, "t1ce": 3, "t2": 3, "flair": 3}, 3, {None: 12}),
    "drishti_gs": (4, {"": 4}, 4, {"train": 2, "test": 2}),
    "isic2017": (6, {"": 6}, 6, {"train": 3, "val": 1, "test": 2}),
    "origa": (3, {"": 3}, 3, {"train": 2, "test": 1}),
    "polypgen": (15, {"C1": 3, "C2": 2, "C3": 2, "C4": 3, "C5": 1, "C6": 1, "sequences": 3}, 12, {None: 15}),
    "refuge": (7, {"zeiss": 3, "canon": 4}, 7, {"train": 3, "val": 2, "test": 2}),
    "synapse": (12, {"": 12}, 3, {"train": 8, "test": 4}),
    "tn3k": (5, {"": 5}, 5, {"train": 3, "test": 2}),
}
VOLUMES = ("acdc", "brats2021", "synapse")


@pytest.fixture
def copy_of(tmp_path):
    def make(name):
        MAKERS[name](tmp_path / name)
        return CatalogDataset(name, data_root=str(tmp_path)), tmp_path / name

    return make


def case_named(dataset, case_id):
    return next(case for case in dataset.manifest if case.case_id == case_id)


def files_of(root, mask):
    return list(dict.fromkeys(split_part(root / part)[0] for part in mask.split(";")))


def faults(problems):
    return {(problem.file.rpartition("/")[2], problem.problem) for problem in problems}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def test_every_set_is_expected():
    assert MAKERS.keys() == EXPECTED.keys() <= READERS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_tiny_copy_reads(copy_of, name):
    dataset, root = copy_of(name)
    count, domains, groups, official = EXPECTED[name]
    cases = dataset.manifest.cases
    assert len(cases) == count
    assert Counter(case.domain for case in cases) == domains
    assert set(domains) == set(dataset.card.domains or [""])
    assert len({case.group_id for case in cases}) == groups
    assert Counter(entry.official for entry in READERS[name].list_entries(root)[0]) == official
    assert dataset.check() == []
    for case in cases:
        image, mask = dataset.read_image(case), dataset.read_mask(case)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape[-1] in (1, 3)
        assert mask.shape == (len(dataset.card.targets), *image.shape[:-1])
        assert set(np.unique(mask)) <= {0, 1}
        spacing = dataset.spacing(case)
        assert spacing is None if name not in VOLUMES else len(spacing) == mask.ndim - 1
        for inner, outer in dataset.card.containment:
            channels = {target: mask[channel] for channel, target in enumerate(dataset.card.targets)}
            assert channels[inner].sum() < channels[outer].sum()
            assert (channels[inner] <= channels[outer]).all()


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_mask_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[-1]
    for path in files_of(root, case.mask):
        path.unlink()
    entries, problems = READERS[name].list_entries(root)
    assert ["without a mask" in problem.problem for problem in problems] == [True]
    assert case.case_id not in {entry.case_id for entry in entries}


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_image_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[-1]
    lost = split_part(root / case.image)[0]
    sharing = [other for other in dataset.manifest if split_part(root / other.image)[0] == lost]
    lost.unlink()
    entries, problems = READERS[name].list_entries(root)
    assert len(problems) == 1
    assert "without an image" in problems[0].problem or "image is missing" in problems[0].problem
    assert len(entries) == EXPECTED[name][0] - len(sharing)


@pytest.mark.parametrize("name", MAKERS)
def test_an_empty_folder_is_reported(tmp_path, name):
    (tmp_path / name).mkdir()
    assert CatalogDataset(name, data_root=str(tmp_path)).scan()[1]


@pytest.mark.parametrize("name", MAKERS)
def test_a_truncated_file_is_one_clear_problem(copy_of, name):
    dataset, root = copy_of(name)
    path = files_of(root, dataset.manifest.cases[0].mask)[0]
    cut(path)
    problems = dataset.check()
    assert [problem.file for problem in problems] == [str(path)]
    assert "damaged" in problems[0].problem or "can be read" in problems[0].problem


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(VOLUMES)))
def test_a_mask_of_another_size_is_reported_once(copy_of, name):
    dataset, root = copy_of(name)
    files = files_of(root, dataset.manifest.cases[0].mask)
    labels = {"refuge": fundus_labels(0, 128, 255), "origa": fundus_labels(2, 1, 0)}.get(name, BLOB)
    for path in files:
        save(path, labels[:, :16])
    assert [(p.file, p.problem) for p in dataset.check()] == [(", ".join(map(str, files)), "mask is 16 x 32, image is 40 x 32")]


def test_refuge_cameras_and_values(copy_of):
    dataset, root = copy_of("refuge")
    assert {case.case_id: case.domain for case in dataset.manifest} == {
        "T0001": "canon",
        "T0002": "canon",
        "V0001": "canon",
        "V0002": "canon",
        "g0001": "zeiss",
        "g0002": "zeiss",
        "n0001": "zeiss",
    }
    case = case_named(dataset, "g0001")
    assert np.array_equal(dataset.read_mask(case), [DISC, CUP])
    save(root / "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001.bmp", fundus_labels(2, 1, 0))
    assert faults(dataset.check()) == {("g0001.bmp", "holds the label values 1, 2; only 0, 128, 255 are defined")}


def test_refuge_reads_the_parts_that_are_there(tmp_path):
    save(tmp_path / "refuge/REFUGE-Test400/T0009.jpg", COLOUR)
    save(tmp_path / "refuge/REFUGE-Test-GT/Disc_Cup_Masks/N/T0009.bmp", fundus_labels(0, 128, 255))
    dataset = CatalogDataset("refuge", data_root=str(tmp_path))
    assert [case.case_id for case in dataset.manifest] == ["T0009"]


def test_drishti_counts_a_tie_of_experts_however_it_is_rounded(copy_of):
    dataset, root = copy_of("drishti_gs")
    ties = [dataset.read_mask(case)[0] for case in dataset.manifest]
    assert all(not mask[:, :16].any() and mask[:, 16:].all() for mask in ties)
    lost = files_of(root, case_named(dataset, "drishtiGS_001").mask)[1]
    lost.unlink()
    assert faults(dataset.scan()[1]) == {("drishtiGS_001.png", "image without a mask: drishtiGS_001_cupsegSoftmap.png")}


def test_drishti_reports_an_image_that_stands_twice(copy_of):
    dataset, root = copy_of("drishti_gs")
    save(root / "Drishti-GS1_files/Test/Images/drishtiGS_001.png", COLOUR)
    assert faults(dataset.scan()[1]) == {("drishtiGS_001.png", "the image stands twice")}


def test_origa_reads_matlab_files_where_there_are_no_others(copy_of):
    dataset, root = copy_of("origa")
    assert np.array_equal(dataset.read_mask(dataset.manifest.cases[0]), [DISC, CUP])
    for path in sorted((root / "Masks").iterdir()):
        (root / "Semi-automatic-annotations").mkdir(exist_ok=True)
        scipy.io.savemat(root / "Semi-automatic-annotations" / f"{path.stem}.mat", {"mask": fundus_labels(2, 1, 0)})
        path.unlink()
    (root / "Masks").rmdir()
    dataset = CatalogDataset("origa", data_root=str(root.parent))
    assert np.array_equal(dataset.read_mask(dataset.manifest.cases[0]), [DISC, CUP])
    assert dataset.check() == []
    first, second, third = sorted((root / "Semi-automatic-annotations").iterdir())
    scipy.io.savemat(first, {"other": np.zeros((2, 2))})
    second.write_bytes(b"")
    cut(third)
    problems = dataset.check()
    assert [problem.file for problem in problems] == [str(first), str(second), str(third)]
    assert problems[0].problem == "holds no image named mask"
    assert all("not a MATLAB file" in problem.problem for problem in problems[1:])


def test_origa_table_is_checked_and_may_be_absent(copy_of):
    dataset, root = copy_of("origa")
    table = root / "OrigaList.csv"
    table.write_text("Filename,Set\n001.jpg,C\n")
    assert faults(dataset.scan()[1]) == {("OrigaList.csv, line 2", "unknown set 'C'")}
    table.write_text("Name\n001.jpg\n")
    assert faults(dataset.scan()[1]) == {("OrigaList.csv", "lacks the columns Filename and Set")}
    table.unlink()
    assert {entry.official for entry in READERS["origa"].list_entries(root)[0]} == {None}


def test_tn3k_tells_equal_names_apart(copy_of):
    dataset, _ = copy_of("tn3k")
    assert {case.case_id: case.image for case in dataset.manifest if case.case_id.endswith("_0000")} == {
        "trainval_0000": "trainval-image/0000.jpg",
        "test_0000": "test-image/0000.jpg",
    }


def test_polypgen_groups_and_quirks(copy_of):
    dataset, root = copy_of("polypgen")
    groups = {case.case_id: case.group_id for case in dataset.manifest}
    assert groups["C1_957OLCV1_100H0002"] == groups["C1_957OLC1_100H0003"] == "C1_957"
    assert groups["C4_4_endocv2021_positive_34"] == groups["C4_4_endocv2021_positive_954"] == "C4_4"
    assert groups["C2_EndoCV2021_001000"] != groups["C2_EndoCV2021_001001"]
    assert groups["seq1_0_endocv2021_positive_0"] == groups["seq1_0_endocv2021_positive_1"] == "seq1"
    assert case_named(dataset, "C3_C3_EndoCV2021_00489").image.endswith("C3_EndoCV2021_00489_.jpg")
    assert not any("seq1_neg" in case.image for case in dataset.manifest)
    save(root / "PolypGen2021_MultiCenterData_v3/data_C3/images_C3/C3_EndoCV2021_00489.jpg", COLOUR)
    assert faults(dataset.scan()[1]) == {("C3_EndoCV2021_00489_.jpg", "the image stands twice")}


def test_acdc_slices(copy_of):
    dataset, root = copy_of("acdc")
    case = case_named(dataset, "patient090_frame11_01")
    assert case.group_id == "patient090"
    assert dataset.spacing(case) == (1.25, 1.5)
    assert np.array_equal(dataset.read_mask(case), [ventricles()[1] == label for label in (1, 2, 3)])
    assert not dataset.read_mask(case_named(dataset, "patient090_frame11_00")).any()
    (root / "database/training/patient001/Info.cfg").write_text("ED: one\n")
    (root / "database/training/patient090/Info.cfg").unlink()
    assert {problem.problem for problem in dataset.scan()[1]} == {"does not name the frames ED and ES", "the file is missing"}


def test_acdc_stretches_by_volume(copy_of):
    dataset, root = copy_of("acdc")
    path = root / "database/testing/patient101/patient101_frame01.nii.gz"
    volume = np.full((3, 32, 40), 100, np.int16)
    volume[1], volume[2] = 300, 500
    save_volume(path, volume)
    found = [dataset.read_image(case_named(dataset, f"patient101_frame01_0{index}")) for index in range(3)]
    assert [set(np.unique(image)) for image in found] == [{0}, {128}, {255}]


@pytest.mark.parametrize("name", ["acdc", "synapse"])
def test_volumes_of_another_size_are_reported_when_listed(copy_of, name):
    dataset, root = copy_of(name)
    path = files_of(root, dataset.manifest.cases[0].mask)[0]
    save_volume(path, np.zeros((2, 32, 40), np.uint8))
    depth = 3 if name == "acdc" else 4
    assert faults(dataset.scan()[1]) == {(path.name, f"mask is 40 x 32 x 2, image is 40 x 32 x {depth}")}


def test_synapse_slices_whatever_the_orientation_of_the_file(copy_of):
    dataset, _ = copy_of("synapse")
    labels = organs()[2]
    expected = [labels == label for label in (8, 4, 3, 2, 6, 11, 1, 7)]
    images = []
    for number in ("0001", "0005", "0021"):
        case = case_named(dataset, f"img{number}_002")
        assert np.array_equal(dataset.read_mask(case), expected)
        assert dataset.spacing(case) == (0.75, 0.5)
        images.append(dataset.read_image(case))
    assert all(np.array_equal(image, images[0]) for image in images)
    official = {entry.case_id: entry.official for entry in READERS["synapse"].list_entries(dataset.folder)[0]}
    assert (official["img0001_000"], official["img0005_000"], official["img0021_000"]) == ("test", "train", "train")


def test_synapse_window(copy_of):
    dataset, root = copy_of("synapse")
    volume = np.full((1, 32, 40), -1000, np.int16)
    volume[0, 0, :4] = (-125, 75, 275, 900)
    for kind, values in (("img", volume), ("label", np.zeros(volume.shape, np.uint8))):
        save_volume(root / f"RawData/Training/{kind}/{kind}0040.nii.gz", values)
    image = dataset.read_image(case_named(dataset, "img0040_000"))
    assert image[0, :5, 0].tolist() == [0, 128, 255, 255, 0]


def test_brats_targets_are_nested_and_in_order(copy_of):
    dataset, root = copy_of("brats2021")
    case = case_named(dataset, "BraTS2021_00002_t2")
    assert (case.group_id, case.domain) == ("BraTS2021_00002", "t2")
    labels = tumour()
    assert np.array_equal(dataset.read_mask(case), [labels == 4, np.isin(labels, (1, 4)), labels > 0])
    assert dataset.read_image(case).shape == (6, 8, 10, 1)
    assert not any("00001" in other.case_id for other in dataset.manifest)
    save_volume(files_of(root, case.mask)[0], np.where(labels == 4, 3, labels).astype(np.uint8))
    assert faults(dataset.check()) == {("BraTS2021_00002_seg.nii.gz", "holds the label values 3; only 0, 1, 2, 4 are defined")}


def test_brats_intensities_follow_the_positive_values(copy_of):
    dataset, root = copy_of("brats2021")
    case = case_named(dataset, "BraTS2021_00000_flair")
    volume = np.zeros((6, 8, 10), np.float32)
    volume.reshape(-1)[:101] = np.arange(1000, 1101)
    save_volume(root / case.image, volume)
    image = dataset.read_image(case).reshape(-1)
    assert image[[0, 1, 50, 99, 100, 101]].tolist() == [0, 0, 128, 255, 255, 0]
    save_volume(root / case.image, np.zeros((6, 8, 10), np.int16))
    assert not dataset.read_image(case).any()


def test_brats_a_sequence_may_be_absent_but_not_for_some_patients(copy_of):
    dataset, root = copy_of("brats2021")
    (root / "BraTS2021_Training_Data/BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz").unlink()
    assert faults(dataset.scan()[1]) == {("BraTS2021_00000_t1ce.nii.gz", "the image is missing")}
    for path in root.glob("*/*/*_t1ce.nii.gz"):
        path.unlink()
    assert len(dataset.manifest) == 9
    assert {case.domain for case in dataset.manifest} == {"t1", "t2", "flair"}


def test_brats_keeps_a_patient_in_one_split_over_all_sequences(copy_of):
    dataset, _ = copy_of("brats2021")
    splits = {
        case.group_id: {other.split for other in dataset.manifest if other.group_id == case.group_id}
        for case in dataset.manifest
    }
    assert sorted(map(len, splits.values())) == [1, 1, 1]
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_a_mask_of_volumes_in_another_size_names_its_file_once(copy_of):
    dataset, root = copy_of("brats2021")
    path = files_of(root, dataset.manifest.cases[0].mask)[0]
    save_volume(path, tumour()[1:])
    assert [(p.file, p.problem) for p in dataset.check()] == [(str(path), "mask is 10 x 8 x 5, image is 10 x 8 x 6")]


def test_a_slice_that_is_gone_is_named(copy_of):
    dataset, root = copy_of("synapse")
    case = case_named(dataset, "img0001_003")
    save_volume(split_part(root / case.image)[0], np.zeros((2, 32, 40), np.int16))
    with pytest.raises(FileProblem, match="has 2 slices, slice 3 is asked for"):
        dataset.read_image(case)
