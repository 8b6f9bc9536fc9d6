import builtins
import gzip

import nibabel
import numpy as np
import pytest

from madgnet_bench.catalog import volumes
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.volumes import VolumeHeader, check_labels, find_volume, read_header, read_slice, read_volume
from madgnet_bench.errors import ConfigError

VOLUME = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # D, H, W
AFFINE = np.diag([-0.5, -0.75, 3.0, 1.0])  # the file's axes run left, posterior, superior


def write(path, array, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "v.nii.gz", VOLUME.transpose(2, 1, 0))


def test_reads_depth_height_width(path):
    assert np.array_equal(read_volume(path), VOLUME)
    assert read_volume(path).dtype == np.int16
    assert np.array_equal(read_slice(path, 1), VOLUME[1])
    assert read_header(path) == VolumeHeader((2, 3, 4), (3.0, 0.75, 0.5))


@pytest.mark.parametrize("axes", ["RAS", "LAS", "RPI", "SLP", "PSR", "AIL"])
def test_every_orientation_reads_alike(path, tmp_path, axes):
    ornt = nibabel.orientations
    image = nibabel.load(path)
    turn = ornt.ornt_transform(ornt.io_orientation(image.affine), ornt.axcodes2ornt(tuple(axes)))
    turned = tmp_path / "turned.nii"
    nibabel.save(image.as_reoriented(turn), turned)
    assert np.array_equal(read_volume(turned), VOLUME)
    assert read_header(turned) == read_header(path)
    stored = np.asarray(nibabel.load(turned).dataobj).transpose(2, 1, 0)
    assert np.array_equal(read_volume(turned, axes=None), stored)
    assert read_header(turned, axes=None).shape == stored.shape


def test_oblique_files_keep_their_slices(tmp_path):
    oblique = AFFINE[:, [2, 0, 1, 3]]  # the third axis of the file runs to posterior
    path = write(tmp_path / "oblique.nii.gz", VOLUME.transpose(2, 1, 0), oblique)
    assert np.array_equal(read_volume(path, axes=None), VOLUME)
    assert read_header(path, axes=None).spacing == (0.75, 0.5, 3.0)
    assert read_volume(path).shape == (4, 2, 3)


def test_scaled_files_become_float32_and_a_single_frame_is_a_volume(tmp_path):
    scaled = nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0)[..., None], AFFINE)
    scaled.header.set_slope_inter(2, -1)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    found = read_volume(tmp_path / "scaled.nii.gz")
    assert found.dtype == np.float32
    stored = nibabel.load(tmp_path / "scaled.nii.gz").get_fdata()[..., 0]
    assert np.array_equal(found, stored.transpose(2, 1, 0))


def test_volumes_are_decoded_once_and_again_when_they_change(path, monkeypatch):
    first = read_volume(path)
    assert read_volume(path) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1
    write(path, np.zeros((4, 3, 5), np.int16))
    assert read_volume(path).shape == (5, 3, 4)
    assert read_header(path).shape == (5, 3, 4)


def test_headers_need_no_voxels(path):
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:380]))
    assert read_header(path).shape == (2, 3, 4)
    with pytest.raises(FileProblem, match="truncated or damaged"):
        read_volume(path)


def test_damaged_files_are_one_clear_problem(tmp_path):
    noise = np.random.default_rng(0).integers(0, 9999, (20, 20, 20)).astype(np.int16)
    path = write(tmp_path / "noise.nii.gz", noise)
    whole = path.read_bytes()
    for content, message in (
        (b"", r"the file is empty \(0 bytes\)"),
        (b"no image at all" * 100, "not a NIfTI file that can be read"),
        (whole[:40], "not a NIfTI file that can be read"),
        (whole[:-20], "truncated or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(FileProblem, match=message) as caught:
            read_volume(path)
        assert caught.value.problem.file == str(path)
    with pytest.raises(FileProblem, match="the file is missing"):
        read_header(tmp_path / "absent.nii.gz")
    plain = write(tmp_path / "plain.nii", VOLUME)
    plain.write_bytes(plain.read_bytes()[:-10])
    with pytest.raises(FileProblem, match="truncated or damaged"):
        read_volume(plain)


def test_series_flat_images_and_infinite_values_are_refused(tmp_path):
    with pytest.raises(FileProblem, match="not one volume but 4 x 3 x 2 x 5"):
        read_volume(write(tmp_path / "series.nii.gz", np.zeros((4, 3, 2, 5), np.int16)))
    with pytest.raises(FileProblem, match="not one volume but 4 x 3"):
        read_header(write(tmp_path / "flat.nii.gz", np.zeros((4, 3), np.int16)))
    with pytest.raises(FileProblem, match="NaN or infinite"):
        read_volume(write(tmp_path / "nan.nii.gz", np.full((4, 3, 2), np.nan, np.float32)))


def test_a_slice_outside_is_refused(path):
    for index in (-1, 2):
        with pytest.raises(FileProblem, match=f"has 2 slices, slice {index} is asked for"):
            read_slice(path, index)


def test_find_volume_prefers_the_compressed_file(path, tmp_path):
    assert find_volume(tmp_path, "v") == "v.nii.gz"
    write(tmp_path / "w.nii", VOLUME)
    assert find_volume(tmp_path, "w") == "w.nii"
    assert find_volume(tmp_path, "x") is None


def test_check_labels(path):
    labels = np.array([[0, 1], [4, 4]])
    assert check_labels(path, labels, known=(0, 1, 4)) is labels
    with pytest.raises(FileProblem, match=r"holds the label values 1, 4; only 0, 2 are defined"):
        check_labels(path, labels, known=(0, 2))
    with pytest.raises(FileProblem, match=r"0\.5; only 0, 1"):
        check_labels(path, np.array([0.5, 1.0]), known=(0, 1))


def test_without_nibabel_the_extra_is_named(path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "nibabel":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    volumes._header.cache_clear()
    with pytest.raises(ConfigError, match=r"madgnet-bench\[volumes\]"):
        read_header(path)
