import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset, check_datasets
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.errors import DataErrors

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = np.zeros((40, 50), np.uint8)
MASK[5:20, 5:20] = 255


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def broken(tmp_path):
    """A folder in which each case but the first has its own fault."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("fine.png", "cut_png.png", "cut_jpeg.jpg", "size.png", "soft.png", "lonely.png", "both.png"):
        save(images / name, NOISE)
    save(images / "nan.tif", np.full((40, 50), np.nan, np.float32))
    for stem in ("fine", "cut_png", "cut_jpeg", "nan"):
        save(masks / f"{stem}.png", MASK)
    save(masks / "size.png", MASK[:, :30])
    save(masks / "soft.png", MASK // 2)
    (images / "both.png").write_bytes(b"")
    (masks / "both.png").write_bytes(b"text")
    cut(images / "cut_png.png")
    cut(images / "cut_jpeg.jpg")
    return FolderDataset(str(tmp_path), name="broken")


def test_every_fault_is_in_one_table(broken, tmp_path):
    with pytest.raises(DataErrors) as caught:
        check_datasets([broken, FolderDataset(str(tmp_path / "nowhere"), name="nowhere")])
    found = {problem.file.removeprefix(f"{tmp_path}/"): problem for problem in caught.value.problems}
    assert found.keys() == {
        *("images/lonely.png", "images/cut_png.png", "images/cut_jpeg.jpg", "images/nan.tif", "images/both.png"),
        *("masks/both.png", "masks/size.png", "masks/soft.png", "nowhere"),
    }
    assert "without a mask" in found["images/lonely.png"].problem
    assert "truncated" in found["images/cut_png.png"].problem
    assert "truncated" in found["images/cut_jpeg.jpg"].problem
    assert "NaN" in found["images/nan.tif"].problem
    assert "0 bytes" in found["images/both.png"].problem
    assert "not an image" in found["masks/both.png"].problem
    assert found["masks/size.png"].problem == "mask is 30 x 40, image is 50 x 40"
    assert "0, 127" in found["masks/soft.png"].problem
    assert all(problem.fix for problem in found.values())
    assert str(caught.value).startswith("broken, nowhere: 9 problems")


def test_a_file_lost_after_listing_is_reported(broken, tmp_path):
    case = next(case for case in broken.scan()[0] if case.case_id == "fine")
    (tmp_path / "masks" / "fine.png").unlink()
    with pytest.raises(FileProblem, match="the file is missing"):
        broken.read_mask(case)


def test_a_sound_set_passes(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}.png", NOISE)
        save(tmp_path / "masks" / f"{name}.png", MASK)
    dataset = FolderDataset(str(tmp_path))
    assert dataset.check() == []
    check_datasets([dataset])


class Listed(SegmentationDataset):
    """Cases and arrays given in the test."""

    name = "listed"
    card = DataCard(name="listed", title="Listed", modality="unknown", targets=("lesion",))

    def __init__(self, cases, image=None):
        self.cases, self.image = cases, image

    def scan(self):
        return self.cases, []

    def read_image(self, case):
        return self.image

    def read_mask(self, case):
        return np.zeros((1, 4, 4), np.uint8)


def test_an_empty_set_is_a_problem_by_check_and_by_manifest():
    assert [problem.problem for problem in Listed([]).check()] == ["the data set is empty"]
    with pytest.raises(DataErrors, match="the data set is empty"):
        Listed([]).manifest  # noqa: B018


def test_infinite_pixels_of_any_reader_are_found():
    image = np.zeros((4, 4, 1), np.float32)
    image[0, 0] = np.inf
    problems = Listed([Case("a", "a", "a.npy", "b.npy", "test")], image).check()
    assert [(problem.file, problem.problem) for problem in problems] == [("a.npy", "holds NaN or infinite values")]
