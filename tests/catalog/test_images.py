import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import read_grey_file, read_image_file, read_mask_file, read_masks, stretch

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def deep_colour_png(path):
    """Write a 2 x 1 PNG of 16-bit colour by hand: Pillow cannot."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(12))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def problem_of(reader, *arguments, **options):
    with pytest.raises(FileProblem) as caught:
        reader(*arguments, **options)
    assert caught.value.problem.fix
    return caught.value.problem


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_and_colour_survive(tmp_path, suffix):
    assert np.array_equal(read_image_file(save(tmp_path / f"g.{suffix}", GREY)), GREY[..., None])
    assert np.array_equal(read_image_file(save(tmp_path / f"c.{suffix}", COLOUR)), COLOUR)


def test_transparency_is_ignored_not_blended(tmp_path):
    alpha = np.full((3, 4, 1), 7, np.uint8)
    assert np.array_equal(read_image_file(save(tmp_path / "rgba.png", np.concatenate([COLOUR, alpha], -1))), COLOUR)
    grey_alpha = save(tmp_path / "la.png", np.concatenate([GREY[..., None], alpha], -1))
    assert Image.open(grey_alpha).mode == "LA"
    assert np.array_equal(read_image_file(grey_alpha), GREY[..., None])


def test_palettes_and_bits_are_resolved(tmp_path):
    flat = np.zeros((3, 4, 3), np.uint8)
    flat[0] = (200, 10, 60)
    palette = save(tmp_path / "p.png", flat, "P")
    assert Image.open(palette).mode == "P"
    assert read_image_file(palette).shape == (3, 4, 3)
    assert np.array_equal(
        read_image_file(save(tmp_path / "1.png", (GREY > 100).astype(np.uint8) * 255, "1"))[..., 0], (GREY > 100) * 255
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation_is_applied_once(tmp_path, suffix, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"e.{suffix}", GREY, exif=exif, **lossless)
    assert np.array_equal(read_grey_file(path), np.rot90(GREY, k=turns))
    assert np.array_equal(read_mask_file(path, threshold=100), np.rot90(GREY > 100, k=turns))


def test_sixteen_bits_in_a_window(tmp_path):
    values = np.array([[100, 110, 805], [1499, 1500, 60000]], np.uint16)
    for suffix in ("tif", "png"):
        image = read_image_file(save(tmp_path / f"d.{suffix}", values), window=(110, 1500))
        assert image[..., 0].tolist() == [[0, 0, 128], [255, 255, 255]]
        assert image.shape == (2, 3, 1)


def test_without_window_percentiles_stretch(tmp_path):
    values = np.linspace(200, 1200, 10_000).round().astype(np.uint16).reshape(100, 100)
    values[0, 0], values[-1, -1] = 0, 65535  # outliers do not flatten the rest
    image = read_image_file(save(tmp_path / "d.tif", values))[..., 0]
    assert image.min() == 0
    assert image.max() == 255
    assert abs(int(image[50, 0]) - 128) <= 1
    floats = read_image_file(save(tmp_path / "f.tif", (values / 65535).astype(np.float32)))[..., 0]
    assert np.abs(floats.astype(int) - image).max() <= 1


def test_stretch_of_flat_and_nearly_flat_images():
    assert stretch(np.full((4, 4), 9.0)).max() == 0
    spike = np.zeros(10_000)
    spike[3] = 5
    assert stretch(spike)[3] == 255


def test_grey_reading_takes_luma(tmp_path):
    path = save(tmp_path / "c.png", COLOUR)
    assert np.array_equal(read_grey_file(path), np.asarray(Image.open(path).convert("L")))
    assert read_grey_file(save(tmp_path / "g.png", GREY)).shape == (3, 4)
    assert read_grey_file(save(tmp_path / "d.tif", GREY.astype(np.uint16)), window=(0, 255)).tolist() == GREY.tolist()


def test_missing_empty_and_foreign_files(tmp_path):
    assert "missing" in problem_of(read_image_file, tmp_path / "no.png").problem
    (tmp_path / "empty.png").touch()
    assert "0 bytes" in problem_of(read_image_file, tmp_path / "empty.png").problem
    (tmp_path / "text.png").write_text("not an image")
    problem = problem_of(read_mask_file, tmp_path / "text.png")
    assert "not an image" in problem.problem
    assert problem.file == str(tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    assert problem_of(read_image_file, tmp_path / "folder.png").file.endswith("folder.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_truncated_files(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"t.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    problem = problem_of(read_image_file, path)
    assert "truncated" in problem.problem or "not an image" in problem.problem


def test_animation_deep_colour_and_nan_are_refused(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "2 frames" in problem_of(read_image_file, tmp_path / "a.gif").problem
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert "2 frames" in problem_of(read_image_file, tmp_path / "a.tif").problem
    assert "16-bit colour" in problem_of(read_image_file, deep_colour_png(tmp_path / "d.png")).problem
    bad = save(tmp_path / "n.tif", np.array([[0, np.nan], [1, 2]], np.float32))
    assert "NaN" in problem_of(read_image_file, bad).problem
    assert "NaN" in problem_of(read_mask_file, bad).problem


@pytest.mark.parametrize("foreground", [1, 255])
@pytest.mark.parametrize("values", [(0, 1), (0, 0), (1, 1)])
def test_strictly_binary_masks(tmp_path, foreground, values):
    array = np.array([values, values], np.uint8)
    mask = read_mask_file(save(tmp_path / "m.png", array * np.uint8(foreground)))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_binary_masks_of_every_mode(tmp_path, mode):
    array = np.array([[0, 255], [255, 255]], np.uint8)
    path = save(tmp_path / "m.png", array, mode)
    assert Image.open(path).mode == mode
    assert read_mask_file(path).tolist() == [[0, 1], [1, 1]]


def test_coloured_palette_masks_count_by_index(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    picture.save(tmp_path / "m.png")
    assert read_mask_file(tmp_path / "m.png").tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("values", "named"), [((0, 128, 255), "0, 128, 255"), ((0, 7), "0, 7"), ((1, 255), "1, 255"), (range(9), "and 3 more")]
)
def test_other_masks_are_refused_by_their_values(tmp_path, values, named):
    problem = problem_of(read_mask_file, save(tmp_path / "m.png", np.array([list(values)], np.uint8)))
    assert named in problem.problem
    assert "0 and 255" in problem.fix


def test_colour_masks_need_a_channel_or_threshold(tmp_path):
    labels = np.zeros((2, 2, 3), np.uint8)
    labels[0, 1] = (3, 0, 0)
    path = save(tmp_path / "m.png", labels)
    assert "colour" in problem_of(read_mask_file, path).problem
    assert read_mask_file(path, threshold=0, channel=0).tolist() == [[0, 1], [0, 0]]
    assert read_mask_file(path, threshold=0, channel=1).max() == 0


def test_jpeg_masks_are_cut_at_the_threshold(tmp_path):
    square = np.zeros((32, 32), np.uint8)
    square[8:24, 8:24] = 255
    for mode in ("L", "RGB"):
        path = save(tmp_path / f"{mode}.jpg", square, mode, quality=70)
        assert "not binary" in problem_of(read_mask_file, path).problem or mode == "RGB"
        assert np.array_equal(read_mask_file(path, threshold=127), square // 255)
    assert read_mask_file(save(tmp_path / "t.png", np.array([[127, 128]], np.uint8)), threshold=127).tolist() == [[0, 1]]


def test_mask_entries_unite_and_stack(tmp_path):
    for index, name in enumerate(["a.png", "b.png", "d/0.png", "d/1.png"]):
        array = np.zeros((1, 4), np.uint8)
        array[0, index] = 255
        save(tmp_path / name, array)
    assert read_masks(tmp_path, "a.png", read=read_mask_file).tolist() == [[[1, 0, 0, 0]]]
    assert read_masks(tmp_path, "a.png|b.png", read=read_mask_file).tolist() == [[[1, 1, 0, 0]]]
    assert read_masks(tmp_path, "d/", read=read_mask_file).tolist() == [[[0, 0, 1, 1]]]
    assert read_masks(tmp_path, "d/;a.png", read=read_mask_file).tolist() == [[[0, 0, 1, 1]], [[1, 0, 0, 0]]]


@pytest.mark.parametrize("entry", ["a.png|b.png", "a.png;b.png"])
def test_masks_of_one_case_must_agree_in_size(tmp_path, entry):
    save(tmp_path / "a.png", np.zeros((2, 3), np.uint8))
    save(tmp_path / "b.png", np.zeros((2, 5), np.uint8))
    problem = problem_of(read_masks, tmp_path, entry, read=read_mask_file)
    assert problem.problem == "mask is 5 x 2, the other masks of this case are 3 x 2"


def test_empty_mask_folder_is_a_problem(tmp_path):
    (tmp_path / "d").mkdir()
    for folder in ("d/", "no/"):
        assert "no mask" in problem_of(read_masks, tmp_path, folder, read=read_mask_file).problem


def write_bmp(path, values, *, bits):
    """A BMP with the palette black, white and one row alignment of four bytes."""
    height, width = values.shape
    rows = np.packbits(values, axis=1) if bits == 1 else values
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))[::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 2835, 2835, 2, 0)
    palette = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    path.write_bytes(b"BM" + struct.pack("<IHHI", 62 + len(rows), 0, 0, 62) + header + palette + rows)


def test_a_two_colour_bmp_is_read_right_or_refused(tmp_path):
    values = np.zeros((8, 10), np.uint8)
    values[2:5, 3:7] = 1
    write_bmp(tmp_path / "one.bmp", values, bits=1)
    assert np.array_equal(read_mask_file(tmp_path / "one.bmp"), values)
    write_bmp(tmp_path / "eight.bmp", values, bits=8)
    assert "Pillow misreads" in problem_of(read_mask_file, tmp_path / "eight.bmp").problem
