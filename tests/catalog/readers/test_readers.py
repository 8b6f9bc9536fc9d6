import os
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset
from madgnet_bench.catalog.readers.dsb2018 import stain_by_colour

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 20), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (16, 20, 3), dtype=np.uint8)
LEFT = np.zeros((16, 20), np.uint8)
LEFT[:, :8] = 255
RIGHT = np.zeros((16, 20), np.uint8)
RIGHT[:, 16:] = 255


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)


def opaque(array):
    return np.concatenate([array, np.full((*array.shape[:2], 1), 255, np.uint8)], axis=-1)


def make_dsb2018(root, domains=True):
    images = {"f0": GREY // 8, "f1": GREY // 8, "f2": GREY // 8, "h0": COLOUR, "b0": 200 + GREY // 8}
    for name, image in images.items():
        rgb = image if image.ndim == 3 else np.stack([image] * 3, -1)
        save(root / "stage1_train" / name / "images" / f"{name}.png", opaque(rgb))
        save(root / "stage1_train" / name / "masks" / "n1.png", LEFT)
        save(root / "stage1_train" / name / "masks" / "n2.png", RIGHT)
    if domains:
        names = {"f": "fluorescence", "h": "he", "b": "brightfield_gray"}
        rows = [f"{name},{names[name[0]]},20,16" for name in images]
        (root / "domains.csv").write_text("\n".join(["ImageId,domain,width,height", *rows]))


def make_pairs(root, images, masks, stems, *, image=COLOUR, mask=LEFT, image_mode=None, mask_mode=None):
    for stem in stems:
        save(root / images.format(stem), image, image_mode)
        save(root / masks.format(stem), mask, mask_mode)


def make_bbbc039(root):
    labels = np.zeros((16, 20, 4), np.uint8)
    labels[..., 3] = 255
    labels[:, :4, 0], labels[:, 4:8, 0] = 1, 2
    deep = np.full((16, 20), 110, np.uint16)
    deep[0, 0], deep[0, 1] = 1500, 40000
    stems = ["IXMtest_A24_s9_w1AB", "IXMtest_A24_s8_w1CD", "IXMtest_B01_s1_w1EF"]
    make_pairs(root, "images/{}.tif", "masks/{}.png", stems, image=deep, mask=labels)


def make_busi(root):
    base = "Dataset_BUSI_with_GT"
    for label in ("benign", "malignant", "normal"):
        stems = [f"{label} ({i})" for i in range(1, 5)]
        make_pairs(root, f"{base}/{label}/{{}}.png", f"{base}/{label}/{{}}_mask.png", stems, mask_mode="1")
    save(root / base / "benign" / "benign (1)_mask_1.png", RIGHT)


def make_kvasir(root):
    big = np.kron(LEFT, np.ones((8, 8), np.uint8))
    make_pairs(root, "images/{}.jpg", "masks/{}.jpg", [f"cju{i}" for i in range(10)], image=np.stack([big] * 3, -1), mask=big)


def make_monuseg(root):
    stems = ["TCGA-2Z-A9J9-01A-01-TS1", "TCGA-AC-A2FO-01A-01-TS1", "TCGA-AC-A2FO-01A-02-TS1"]
    make_pairs(root, "images/{}.tif", "masks/{}.png", stems, mask_mode="LA")


def make_isic(root):
    data, truth = "ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"
    make_pairs(root, f"{data}/{{}}.jpg", f"{truth}/{{}}_segmentation.png", [f"ISIC_000{i}" for i in range(4)])
    save(root / data / "ISIC_0001_superpixels.png", COLOUR)
    (root / data / "ISIC-2017_Validation_Data_metadata.csv").touch()


def make_sunnybrook(root):
    for part in (1, 2, 3):
        stems = [f"SC-HF-I-{part}{p}-IM-0001-00{s}.dcm" for p in range(4) for s in range(2)]
        folder = f"Sunnybrook_Part{part}/{{}}.png"
        dark = np.linspace(0, 100, 320).astype(np.uint8).reshape(16, 20)
        make_pairs(root, f"images/{folder}", f"masks/{folder}", stems, image=dark, image_mode="RGB", mask_mode="RGB")


def make_chasedb1(root):
    stems = [f"Image_{child:02}{eye}" for child in range(1, 6) for eye in "LR"]
    make_pairs(root, "CHASEDB1/{}.jpg", "CHASEDB1/{}_1stHO.png", stems, mask_mode="1")
    for stem in stems:
        save(root / "CHASEDB1" / f"{stem}_2ndHO.png", RIGHT)


def make_shenzhen(root):
    big = np.kron(LEFT, np.ones((8, 8), np.uint8))
    stems = [f"CHNCXR_000{i}_{i % 2}" for i in range(8)]
    make_pairs(root, "images/{}.jpg", "masks/{}.jpg", stems, image=big, mask=big, image_mode="RGB", mask_mode="RGB")


MAKERS = {
    "bbbc039": make_bbbc039,
    "busi": make_busi,
    "chasedb1": make_chasedb1,
    "dsb2018": make_dsb2018,
    "isic2017_val_400": make_isic,
    "kvasir_seg": make_kvasir,
    "kvasir_seg_256": make_kvasir,
    "monuseg2018_test": make_monuseg,
    "shenzhen_lung_512": make_shenzhen,
    "sunnybrook": make_sunnybrook,
}
EXPECTED = {
    "bbbc039": (3, {"": 3}, 2),
    "busi": (8, {"benign": 4, "malignant": 4}, 8),
    "chasedb1": (10, {"": 10}, 5),
    "dsb2018": (5, {"fluorescence": 3, "he": 1, "brightfield_gray": 1}, 5),
    "isic2017_val_400": (4, {"": 4}, 4),
    "kvasir_seg": (10, {"": 10}, 10),
    "kvasir_seg_256": (10, {"": 10}, 10),
    "monuseg2018_test": (3, {"": 3}, 2),
    "shenzhen_lung_512": (8, {"normal": 4, "tuberculosis": 4}, 8),
    "sunnybrook": (24, {"Part1": 8, "Part2": 8, "Part3": 8}, 12),
}


@pytest.fixture
def copy_of(tmp_path):
    def make(name):
        MAKERS[name](tmp_path / name)
        return CatalogDataset(name, data_root=str(tmp_path)), tmp_path / name

    return make


def faults(dataset):
    return {(problem.file.rpartition("/")[2], problem.problem) for problem in dataset.scan()[1]}


def test_every_reader_has_a_tiny_copy():
    assert MAKERS.keys() == EXPECTED.keys()
    made = [*MAKERS]
    for path in Path(__file__).parent.glob("tiny_*.py"):
        made += import_module(path.stem).MAKERS
    assert sorted(made) == sorted(READERS)


@pytest.mark.parametrize("name", MAKERS)
def test_tiny_copy_reads(copy_of, name):
    dataset, _ = copy_of(name)
    count, domains, groups = EXPECTED[name]
    cases = dataset.manifest.cases
    assert len(cases) == count
    assert Counter(case.domain for case in cases) == domains
    assert len({case.group_id for case in cases}) == groups
    assert dataset.check() == []
    for case in cases:
        image, mask = dataset.read_image(case), dataset.read_mask(case)
        assert image.dtype == mask.dtype == np.uint8
        assert image.shape[-1] in (1, 3)
        assert mask.shape == (1, *image.shape[:2])
        assert mask[..., : image.shape[1] * 8 // 20].all()  # the left part is foreground in every copy


@pytest.mark.parametrize("name", MAKERS)
def test_a_lost_mask_is_reported(copy_of, name):
    dataset, root = copy_of(name)
    case = dataset.manifest.cases[-1]
    lost = [root / case.mask] if not case.mask.endswith("/") else list((root / case.mask).iterdir())
    for path in lost:
        path.unlink()
    again, problems = dataset.scan()
    assert len(problems) == 1
    assert "without a mask" in problems[0].problem
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
    assert CatalogDataset(name, data_root=str(tmp_path)).scan()[1]


def test_dsb2018_unites_nuclei_and_finds_stains_without_the_table(tmp_path):
    make_dsb2018(tmp_path / "dsb2018", domains=False)
    dataset = CatalogDataset("dsb2018", data_root=str(tmp_path))
    cases = {case.case_id: case for case in dataset.manifest}
    assert {key: case.domain for key, case in cases.items() if key[1] == "0"} == {
        "f0": "fluorescence",
        "h0": "he",
        "b0": "brightfield_gray",
    }
    assert cases["f0"].mask == "stage1_train/f0/masks/"
    assert np.array_equal(dataset.read_mask(cases["f0"])[0], (LEFT | RIGHT) // 255)


def test_dsb2018_lists_without_decoding(tmp_path, monkeypatch):
    make_dsb2018(tmp_path / "dsb2018")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded while listing"))
    assert len(CatalogDataset("dsb2018", data_root=str(tmp_path)).manifest) == 5


def test_dsb2018_bad_domain_tables(copy_of):
    dataset, root = copy_of("dsb2018")
    (root / "domains.csv").write_text("ImageId,domain\nf0,fluorescent\n")
    assert faults(dataset) == {("domains.csv, line 2", "unknown domain 'fluorescent'")}
    (root / "domains.csv").write_text("name,stain\nf0,he\n")
    assert faults(dataset) == {("domains.csv", "lacks the columns ImageId and domain")}


def test_a_damaged_image_has_some_stain_and_is_reported_when_read(tmp_path):
    make_dsb2018(tmp_path / "dsb2018", domains=False)
    image = tmp_path / "dsb2018" / "stage1_train" / "f0" / "images" / "f0.png"
    image.write_bytes(b"")
    assert stain_by_colour(image) == "fluorescence"
    assert ["0 bytes" in problem.problem for problem in CatalogDataset("dsb2018", data_root=str(tmp_path)).check()] == [True]


def test_bbbc039_window_and_labels(copy_of):
    dataset, _ = copy_of("bbbc039")
    case = dataset.manifest.cases[0]
    image = dataset.read_image(case)
    assert image[0, :3, 0].tolist() == [255, 255, 0]
    assert np.array_equal(dataset.read_mask(case)[0], LEFT // 255)
    assert {case.group_id for case in dataset.manifest} == {"A24", "B01"}


def test_busi_unites_masks_and_skips_normal(copy_of):
    dataset, root = copy_of("busi")
    case = next(case for case in dataset.manifest if case.case_id == "benign (1)")
    assert case.mask.count("|") == 1
    assert np.array_equal(dataset.read_mask(case)[0], (LEFT | RIGHT) // 255)
    (root / "Dataset_BUSI_with_GT" / "benign" / "benign (1)_mask.png").unlink()
    (root / "Dataset_BUSI_with_GT" / "benign" / "benign (1)_mask_1.png").unlink()
    assert faults(dataset) == {("benign (1).png", "image without a mask")}


def test_chasedb1_reads_the_first_observer_and_keeps_children_together(copy_of):
    dataset, _ = copy_of("chasedb1")
    assert all(case.mask.endswith("_1stHO.png") for case in dataset.manifest)
    assert len({(case.group_id, case.split) for case in dataset.manifest}) == 5


def test_sunnybrook_stretches_dark_slices(copy_of):
    dataset, _ = copy_of("sunnybrook")
    case = dataset.manifest.cases[0]
    image = dataset.read_image(case)
    assert (image.min(), image.max(), image.shape[-1]) == (0, 255, 1)
    assert (case.group_id, case.domain) == ("SC-HF-I-10", "Part1")


def test_shenzhen_names_must_tell_the_class(copy_of):
    dataset, root = copy_of("shenzhen_lung_512")
    for kind in ("images", "masks"):
        (root / kind / "CHNCXR_0000_0.jpg").rename(root / kind / "CHNCXR_0000_7.jpg")
    assert faults(dataset) == {("CHNCXR_0000_7.jpg", "the name tells no domain")}


REAL = {
    "bbbc039": {"": 12},
    "busi": {"benign": 35, "malignant": 50},
    "chasedb1": {"": 28},
    "dsb2018": {"fluorescence": 150, "he": 50, "brightfield_gray": 3},
    "isic2017_val_400": {"": 98},
    "kvasir_seg": {"": 100},
    "kvasir_seg_256": {"": 400},
    "monuseg2018_test": {"": 5},
    "shenzhen_lung_512": {"normal": 59, "tuberculosis": 61},
    "sunnybrook": {"Part1": 65, "Part2": 65, "Part3": 70},
}


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_copy(name):
    root = os.environ.get(DATA_ROOT_VARIABLE)
    if not root:
        pytest.skip(f"{DATA_ROOT_VARIABLE} is not set")
    if not (Path(root) / name).is_dir():
        pytest.skip(f"{Path(root) / name} is absent")
    dataset = CatalogDataset(name)
    cases = dataset.manifest.cases
    assert Counter(case.domain for case in cases) == REAL[name]
    splits_of = {}
    for case in cases:
        splits_of.setdefault(case.group_id, set()).add(case.split)
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert dataset.check() == []
    fractions = [dataset.read_mask(case).mean() for case in cases[:: max(1, len(cases) // 40)]]
    assert 0.001 < np.mean(fractions) < 0.7
    assert min(fractions) > 0


@pytest.mark.real
def test_real_stains_follow_from_the_colours():
    root = os.environ.get(DATA_ROOT_VARIABLE)
    if not root or not (Path(root) / "dsb2018").is_dir():
        pytest.skip(f"{DATA_ROOT_VARIABLE} is not set, or holds no dsb2018")
    for case in CatalogDataset("dsb2018").manifest:
        assert stain_by_colour(Path(root) / "dsb2018" / case.image) == case.domain
