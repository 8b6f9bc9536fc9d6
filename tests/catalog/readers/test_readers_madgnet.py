from collections import Counter

import numpy as np
import pytest
from tiny_madgnet import COLOUR, LEFT, MAKERS, annotation, make_covid19_1, make_isic2018, outline, save

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.official import READERS, CatalogDataset
from madgnet_bench.catalog.readers.monuseg2018 import fill_outlines, read_outlines
from madgnet_bench.catalog.readers.places import find_place

EXPECTED = {
    "covid19_1": (10, {"": 10}, {"train": 6, "test": 4}, 6),
    "covid19_2": (3, {"": 3}, {None: 3}, 3),
    "isic2018": (4, {"": 4}, {"train": 4}, 4),
    "monuseg2018": (5, {"": 5}, {"train": 3, "test": 2}, 4),
    "monuseg2018_mixture": (5, {"": 5}, {None: 5}, 4),
    "ph2": (4, {"": 4}, {None: 4}, 4),
    "polyp_pranet": (
        15,
        {"cvc_clinicdb": 6, "kvasir": 3, "cvc_300": 2, "cvc_colondb": 2, "etis": 2},
        {"train": 6, "test": 9},
        12,
    ),
    "stu": (3, {"": 3}, {None: 3}, 3),
}


@pytest.fixture
def copy_of(tmp_path):
    def make(name, maker=None, **options):
        (maker or MAKERS[name])(tmp_path / name, **options)
        return CatalogDataset(name, data_root=str(tmp_path)), tmp_path / name

    return make


def faults(dataset):
    return {(problem.file.rpartition("/")[2], problem.problem) for problem in dataset.check()}


def ids(dataset):
    return {case.case_id: case for case in dataset.manifest}


def test_every_maker_is_tested():
    assert MAKERS.keys() == EXPECTED.keys() <= READERS.keys()


@pytest.mark.parametrize("name", MAKERS)
def test_tiny_copy_reads(copy_of, name):
    dataset, root = copy_of(name)
    count, domains, splits, groups = EXPECTED[name]
    entries, problems = READERS[name].list_entries(root)
    assert problems == []
    assert Counter(entry.official for entry in entries) == splits
    cases = dataset.manifest.cases
    assert len(cases) == count
    assert Counter(case.domain for case in cases) == domains
    assert len({case.group_id for case in cases}) == groups
    assert dataset.check() == []
    for case in cases:
        image, mask = dataset.read_image(case), dataset.read_mask(case)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape[-1] in (1, 3)
        assert np.array_equal(mask[0], LEFT // 255)
        assert "/" not in case.case_id  # names files of predictions


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_mask_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[-1]
    (root / case.mask).unlink()
    again, problems = dataset.scan()
    assert ["without a mask" in problem.problem for problem in problems] == [True]
    assert case.case_id not in {other.case_id for other in again}


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_image_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[-1]
    (root / case.image).unlink()
    again, problems = dataset.scan()
    assert len(problems) == 1
    assert "without an image" in problems[0].problem or "image is missing" in problems[0].problem
    assert len(again) == EXPECTED[name][0] - 1


@pytest.mark.parametrize("name", MAKERS)
def test_an_empty_folder_is_reported(tmp_path, name):
    (tmp_path / name).mkdir()
    cases, problems = CatalogDataset(name, data_root=str(tmp_path)).scan()
    assert cases == []
    assert {problem.problem for problem in problems} == {"the folder is missing"}


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "monuseg2018"])
def test_a_mask_of_another_size_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[0]
    save(root / case.mask, LEFT[:, :-2])
    assert [problem for _, problem in faults(dataset)] == ["mask is 18 x 16, image is 20 x 16"]


def test_unconfirmed_layouts_say_so():
    unconfirmed = {name for name in MAKERS if not READERS[name].card.verified}
    assert unconfirmed == {"covid19_1", "covid19_2", "monuseg2018_mixture"}
    assert all("not confirmed" in " ".join(READERS[name].card.traps) for name in unconfirmed)


def test_find_place(tmp_path):
    assert find_place(tmp_path, "A/b", "C") == "A/b"
    (tmp_path / "C").mkdir()
    assert find_place(tmp_path, "A/b", "C") == "C"
    (tmp_path / "A" / "A" / "b").mkdir(parents=True)
    assert find_place(tmp_path, "A/b", "C") == "A/A/b"


def test_isic2018_reads_the_parts_that_are_there(copy_of):
    dataset, root = copy_of("isic2018", make_isic2018, parts=("Training", "Validation", "Test"))
    assert len(dataset.manifest) == 12
    assert Counter(entry.official for entry in READERS["isic2018"].list_entries(root)[0]) == {"train": 4, "val": 4, "test": 4}
    assert ids(dataset)["ISIC_0000000"].mask.endswith("ISIC_0000000_segmentation.png")
    for folder in root.iterdir():  # unpacked into folders of their own names
        inner = root / "aside" / folder.name
        folder.rename(root / "moving")
        inner.mkdir(parents=True)
        (root / "moving").rename(inner / folder.name)
        inner.rename(root / folder.name)
        (root / "aside").rmdir()
    assert len(CatalogDataset("isic2018", data_root=str(root.parent)).manifest) == 12


def test_ph2_reads_without_the_outer_folder(copy_of):
    dataset, root = copy_of("ph2")
    before = [case.case_id for case in dataset.manifest]
    (root / "PH2Dataset" / "PH2 Dataset images").rename(root / "PH2 Dataset images")
    again = CatalogDataset("ph2", data_root=str(root.parent))
    assert [case.case_id for case in again.manifest] == before == ["IMD002", "IMD003", "IMD421", "IMD437"]
    assert again.check() == []


def test_covid19_1_groups_by_volume_not_by_number(copy_of):
    dataset, _ = copy_of("covid19_1")
    groups = {key: case.group_id for key, case in ids(dataset).items()}
    assert groups["001_0"] == groups["001_6"] == "001"
    assert (groups["7_6"], groups["7_tiny"], groups["0_tiny"]) == ("7", "7_tiny", "0_tiny")
    assert groups["10_3"] == groups["11_0"] == "10"
    assert groups["29_0"] == groups["30_3"] == "29"


def test_covid19_1_reads_the_names_of_the_release(copy_of):
    dataset, root = copy_of("covid19_1")
    before = list(ids(dataset))
    for part in ("train", "test"):
        (root / part).rename(root / f"COVID-19_Lung_Infection_{part}")
    again = CatalogDataset("covid19_1", data_root=str(root.parent))
    assert list(ids(again)) == before
    assert again.check() == []


def make_nifti(root):
    nibabel = pytest.importorskip("nibabel")
    for folder in ("rp_im", "rp_msk"):
        (root / folder).mkdir(parents=True)
    image = np.full((20, 16, 3), -1250, np.int16)  # columns, rows, slices
    image[:, 0], image[:, 1] = 250, 900
    labels = np.zeros((20, 16, 3), np.uint8)
    labels[:4], labels[4:8], labels[8:12] = 1, 2, 3
    for name in ("tr_im", "rp_im/1", "rp_im/9"):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), root / f"{name}.nii.gz")
    for name in ("tr_mask", "rp_msk/1", "rp_msk/9"):
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), root / f"{name}.nii.gz")
    return nibabel


def test_covid19_1_reads_the_volumes_of_the_source(copy_of):
    dataset, root = copy_of("covid19_1", make_nifti)
    cases = ids(dataset)
    assert Counter(case.group_id for case in cases.values()) == {"tr_000": 1, "tr_001": 1, "tr_002": 1, "rp_1": 3, "rp_9": 3}
    assert cases["rp_1_002"].image == "rp_im/1.nii.gz::2"
    assert dataset.check() == []
    image, mask = dataset.read_image(cases["tr_001"]), dataset.read_mask(cases["tr_001"])
    assert image.shape == (16, 20, 1)
    assert image[:3, 0, 0].tolist() == [255, 255, 0]
    assert np.array_equal(mask[0], LEFT // 255)
    (root / "rp_msk" / "9.nii.gz").unlink()
    assert faults(dataset) == {("9.nii.gz", "image without a mask")}


def test_covid19_1_reports_damaged_volumes(copy_of):
    dataset, root = copy_of("covid19_1", make_nifti)
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 16, 2), np.uint8), np.eye(4)), root / "rp_msk" / "1.nii.gz")
    (root / "rp_im" / "9.nii.gz").write_bytes(b"")
    problems = [problem.problem for problem in dataset.scan()[1]]
    assert problems == ["mask has 2 slices, image has 3", "the file is empty (0 bytes)"]


def test_slices_come_before_volumes(copy_of):
    dataset, root = copy_of("covid19_1", make_covid19_1)
    (root / "tr_im.nii.gz").touch()
    assert len(dataset.manifest) == 10


def test_stu_reads_folders_apart(tmp_path):
    for number in (1, 42):
        save(tmp_path / "stu" / "image" / f"Test_Image_{number}.png", COLOUR)
        save(tmp_path / "stu" / "mask" / f"mask_{number}.png", LEFT)
    dataset = CatalogDataset("stu", data_root=str(tmp_path))
    assert list(ids(dataset)) == ["Test_Image_1", "Test_Image_42"]
    assert dataset.check() == []
    (tmp_path / "stu" / "mask").rename(tmp_path / "stu" / "masks")
    assert {(problem.file.rpartition("/")[2], problem.problem) for problem in dataset.scan()[1]} == {
        ("mask", "the folder is missing")
    }


def test_monuseg2018_groups_patients_and_reads_one_archive(copy_of):
    dataset, root = copy_of("monuseg2018")
    assert Counter(case.group_id for case in dataset.manifest)["TCGA-G9-6336"] == 2
    (root / "MoNuSeg 2018 Training Data").rename(root.parent / "elsewhere")
    assert len(CatalogDataset("monuseg2018", data_root=str(root.parent)).manifest) == 2


def test_monuseg2018_needs_the_image_for_its_size(copy_of):
    dataset, root = copy_of("monuseg2018")
    case = dataset.manifest.cases[0]
    (root / case.image).write_bytes(b"no image")
    assert faults(dataset) == {(case.image.rpartition("/")[2], "not an image that can be read")}
    (root / case.image).unlink()
    with pytest.raises(FileProblem, match="mask without an image"):
        dataset.read_mask(case)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid XML"),
        ("<Annotations><Region>", "not valid XML"),
        (annotation(outline((1, 1), (2, 2))), "no outline of three or more points"),
        ("<Annotations/>", "no outline of three or more points"),
        ('<A><Region><Vertex X="1"/></Region></A>', "no numbers X and Y"),
        ('<A><Region><Vertex X="1" Y="here"/></Region></A>', "no numbers X and Y"),
        ('<A><Region><Vertex X="1" Y="nan"/></Region></A>', "no numbers X and Y"),
        (f"{BOMB}<A>&a;&b;</A>", "declares a document type"),
    ],
)
def test_bad_annotations_are_reported(copy_of, text, message):
    dataset, root = copy_of("monuseg2018")
    (root / dataset.manifest.cases[0].mask).write_text(text)
    assert len(dataset.check()) == 1
    assert message in dataset.check()[0].problem


def test_outlines_keep_their_fractions(tmp_path):
    (tmp_path / "a.xml").write_text(annotation(outline((1.25, 2), (3, 4.5), (0, 1)), outline()))
    first, empty = read_outlines(tmp_path / "a.xml")
    assert first.tolist() == [[1.25, 2], [3, 4.5], [0, 1]]
    assert empty.shape == (0, 2)


def inside(outline, x, y):
    """Even-odd rule for one point, edge by edge."""
    odd = False
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


def test_outlines_are_filled_by_the_even_odd_rule():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shapes = [rng.uniform(-4, 18, (rng.integers(3, 8), 2)) for _ in range(2)]
        shapes.append(np.round(shapes[0]))  # corners on pixel centres
        expected = [[any(inside(shape, x, y) for shape in shapes) for x in range(14)] for y in range(11)]
        assert np.array_equal(fill_outlines(shapes, (11, 14)), np.array(expected))


def test_outlines_that_share_a_border_share_no_pixel():
    left, right = (np.array([[a, 2], [b, 2], [b, 6], [a, 6]], float) for a, b in ((1, 5), (5, 9)))
    first, second = (fill_outlines([shape], (8, 10)) for shape in (left, right))
    assert (first.sum(), second.sum()) == (16, 16)
    assert not (first & second).any()
    assert not fill_outlines([left + 100], (8, 10)).any()


def test_area_of_a_disc_has_no_bias():
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    disc = np.stack([30 + 20 * np.cos(angle), 30 + 20 * np.sin(angle)], axis=-1)
    assert abs(fill_outlines([disc], (60, 60)).sum() / (np.pi * 400) - 1) < 0.01


def test_monuseg2018_mixture_reads_one_pair_of_folders(copy_of):
    dataset, root = copy_of("monuseg2018_mixture")
    groups = {case.case_id: case.group_id for case in dataset.manifest}
    assert groups == {
        "01_1": "tnbc_01",
        "01_7": "tnbc_01",
        "11_3": "tnbc_11",
        "TCGA-18-5592-01Z-00-DX1": "TCGA-18-5592",
        "TCGA-AC-A2FO-01A-01-TS1": "TCGA-AC-A2FO",
    }
    for kind in ("images", "masks"):
        (root / kind).mkdir()
        for path in root.glob(f"kmms_*/{kind}/*"):
            path.rename(root / kind / path.name)
    for place in ("kmms_training", "kmms_test"):
        for kind in ("images", "masks"):
            (root / place / kind).rmdir()
    assert {case.case_id: case.group_id for case in dataset.scan()[0]} == groups


def test_polyp_pranet_tells_sequences_and_sources(copy_of):
    dataset, root = copy_of("polyp_pranet")
    cases = ids(dataset)
    groups = {key: case.group_id for key, case in cases.items() if case.domain == "cvc_clinicdb"}
    assert groups == {
        "cvc_clinicdb_1": "cvc_clinicdb_sequence01",
        "cvc_clinicdb_14": "cvc_clinicdb_sequence01",
        "cvc_clinicdb_25": "cvc_clinicdb_sequence01",
        "cvc_clinicdb_26": "cvc_clinicdb_sequence02",
        "cvc_clinicdb_27": "cvc_clinicdb_sequence02",
        "cvc_clinicdb_612": "cvc_clinicdb_sequence29",
    }
    assert {"etis_25", "cvc_colondb_25", "kvasir_cju5x00l6m5j608503k78ptee"} <= cases.keys()
    assert cases["etis_25"].group_id == "etis_25"
    assert len(CatalogDataset("polyp_pranet", domain="etis", data_root=str(root.parent)).manifest) == 2


def test_polyp_pranet_reads_what_is_there(copy_of):
    dataset, root = copy_of("polyp_pranet")
    (root / "TestDataset").rename(root / "outer")
    (root / "TestDataset").mkdir()
    (root / "outer").rename(root / "TestDataset" / "TestDataset")
    assert len(dataset.scan()[0]) == 15
    (root / "TrainDataset").rename(root.parent / "elsewhere")
    cases, problems = dataset.scan()
    assert (len(cases), problems) == (9, [])
