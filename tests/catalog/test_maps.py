"""Files of every kind become maps by rules, or a problem that says what to do."""

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.maps import MapTarget, map_suffixes, read_maps, suffix_of
from madgnet_bench.errors import ConfigError

ONE = (MapTarget("lesion"),)
TWO = (MapTarget("disc"), MapTarget("cup"))
LABELS = (MapTarget("disc", (1, 2)), MapTarget("cup", (2,)))
MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)


def image(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def array(path, values):
    np.save(path, values)
    return path


def read(*files, targets=ONE, content="masks", dimensions=2, **options):
    return read_maps(files, targets=targets, content=content, dimensions=dimensions, **options)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("top", [1, 255])
def test_binary_images(tmp_path, suffix, top):
    found = read(image(tmp_path / f"m{suffix}", MASK.astype(np.uint8) * top))
    assert found.dtype == bool and np.array_equal(found, MASK[None])


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32, np.float16])
def test_binary_arrays(tmp_path, kind):
    assert np.array_equal(read(array(tmp_path / "m.npy", MASK.astype(kind))), MASK[None])
    assert np.array_equal(read(array(tmp_path / "k.npy", MASK[None].astype(kind))), MASK[None])
    np.savez_compressed(tmp_path / "m.npz", MASK.astype(kind))
    assert np.array_equal(read(tmp_path / "m.npz"), MASK[None])


def test_a_map_for_each_target(tmp_path):
    both = np.stack([MASK, ~MASK])
    files = [image(tmp_path / f"{n}.png", channel.astype(np.uint8) * 255) for n, channel in enumerate(both)]
    assert np.array_equal(read(*files, targets=TWO), both)
    assert np.array_equal(read(array(tmp_path / "b.npy", both), targets=TWO), both)
    other = image(tmp_path / "2.png", np.zeros((2, 4), np.uint8))
    with pytest.raises(FileProblem, match=r"is 4 x 2, 0.png of another target is 3 x 2; save the maps of all targets"):
        read(files[0], other, targets=TWO)


def test_labels_overlap_and_none_is_forgotten(tmp_path):
    values = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)
    path = image(tmp_path / "m.png", values)
    found = read(path, targets=LABELS, content="labels", background=(3,))
    assert np.array_equal(found, np.stack([(values == 1) | (values == 2), values == 2]))
    with pytest.raises(FileProblem, match="label that no target has: it holds 3; name it with --target"):
        read(path, targets=LABELS, content="labels")
    scaled = array(tmp_path / "m.npy", np.array([[0.0, 1.0, 1.5]]))
    with pytest.raises(FileProblem, match=r"it holds 1.5;"):
        read(scaled, targets=LABELS, content="labels")


def test_probabilities_by_depth(tmp_path):
    eight = image(tmp_path / "a.png", np.array([[0, 51, 255]], np.uint8))
    sixteen = image(tmp_path / "b.png", np.array([[0, 13107, 65535]], np.uint16))
    for path in (eight, sixteen):
        assert read(path, content="probability").tolist() == [[[0, np.float32(0.2), 1]]]
    exact = np.array([[0.1, 0.5 - 1e-12]])
    found = read(array(tmp_path / "c.npy", exact), content="probability")
    assert found.dtype == np.float64 and np.array_equal(found[0], exact)
    half = read(array(tmp_path / "d.npy", exact.astype(np.float16)), content="probability")
    assert half.dtype == np.float32
    assert read(array(tmp_path / "e.npy", MASK), content="probability").tolist() == [MASK.tolist()]


def test_volumes_keep_the_order_of_their_file(tmp_path):
    volume = np.zeros((2, 3, 4), np.uint8)
    volume[1, 2, 0] = 1
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1, 1, 3, 1])), tmp_path / "v.nii.gz")
    assert np.array_equal(read(tmp_path / "v.nii.gz", dimensions=3)[0], volume)
    assert np.array_equal(read(array(tmp_path / "v.npy", volume), dimensions=3)[0], volume)


def test_jpeg_only_where_it_is_taken(tmp_path):
    path = image(tmp_path / "m.jpg", np.kron(MASK, np.ones((8, 8))).astype(np.uint8) * 255)
    assert np.array_equal(read(path, jpeg=True)[0], np.kron(MASK, np.ones((8, 8))))
    for content, jpeg in (("masks", False), ("probability", True), ("labels", True)):
        with pytest.raises(FileProblem, match="JPEG changes the values"):
            read(path, targets=LABELS[:1], content=content, jpeg=jpeg)


def damage(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


@pytest.mark.parametrize(
    ("make", "content", "message"),
    [
        (
            lambda d: image(d / "m.png", np.array([[0, 7, 200]], np.uint8)),
            "masks",
            r"not binary: it holds 0, 7, 200; .*--target",
        ),
        (lambda d: array(d / "m.npy", np.array([[0.2, 0.9]])), "masks", "--maps probability"),
        (lambda d: array(d / "m.npy", np.array([[0.2, np.nan]])), "probability", "NaN"),
        (lambda d: array(d / "m.npy", np.array([[-2.0, 3.5]])), "probability", r"from -2 to 3.5, outside \[0, 1\]; .*sigmoid"),
        (lambda d: array(d / "m.npy", np.array([[0, 1]])), "probability", "holds integers"),
        (lambda d: array(d / "m.npy", np.array([["a"]])), "masks", "holds <U1"),
        (lambda d: array(d / "m.npy", np.zeros((0, 2))), "masks", "holds no number"),
        (lambda d: array(d / "m.npy", np.zeros((2, 3, 1))), "masks", r"has the shape \(2, 3, 1\), not \(H, W\)"),
        (lambda d: damage(array(d / "m.npy", MASK)), "masks", "truncated or damaged"),
        (lambda d: damage(image(d / "m.png", np.eye(64, dtype=np.uint8))), "masks", "truncated or damaged"),
        (lambda d: d / "gone.npy", "masks", "missing"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, make, content, message):
    with pytest.raises(FileProblem, match=message):
        read(make(tmp_path), content=content)


def test_archives_hold_one_array(tmp_path):
    np.savez(tmp_path / "m.npz", a=MASK, b=MASK)
    with pytest.raises(FileProblem, match=r"holds 2 arrays \(a, b\)"):
        read(tmp_path / "m.npz")
    with pytest.raises(FileProblem, match=r"has the shape \(2, 3\), not \(2, H, W\); .*a folder per target"):
        read(array(tmp_path / "m.npy", MASK), targets=TWO)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_nothing_is_unpickled(tmp_path):
    bomb = Bomb()
    bomb.path = str(tmp_path / "exploded")
    objects = np.empty((1, 1), object)
    objects[0, 0] = bomb
    np.save(tmp_path / "m.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "m.npz", objects)
    (tmp_path / "p.npy").write_bytes(pickle.dumps(bomb))
    for name in ("m.npy", "m.npz", "p.npy"):
        with pytest.raises(FileProblem, match="not opened, since that may run code"):
            read(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("text", ["", "a/b", "disc=", "disc=a", "disc=1,", "disc=0", "two words"])
def test_targets_that_cannot_be_read(text):
    with pytest.raises(ConfigError):
        MapTarget.parse(text)


def test_targets_and_endings():
    assert MapTarget.parse("cup") == MapTarget("cup") and MapTarget.parse("v=-1,12").values == (-1, 12)
    assert suffix_of(Path("a.seg.nii.gz")) == ".nii.gz" and suffix_of(Path("a")) == ""
    assert ".png" in map_suffixes(2) and ".nii.gz" in map_suffixes(3) and ".png" not in map_suffixes(3)
