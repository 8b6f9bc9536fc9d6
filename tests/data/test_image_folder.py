from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from madgnet_bench.data.image_folder import ImageFolderDataModule, find_images
from madgnet_bench.errors import DataErrors


def save(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_every_image_is_one_batch_with_an_absent_reference(tmp_path):
    save(tmp_path / "b.png", (20, 30, 3))
    save(tmp_path / "deep" / "a.tif", (11, 7))
    (tmp_path / "notes.txt").write_text("no image")
    batches = list(ImageFolderDataModule(tmp_path, image_size=16, num_targets=2).predict_dataloader())
    assert [batch.case_id for batch in batches] == [["b"], ["deep/a"]]
    assert [tuple(batch.image.shape) for batch in batches] == [(1, 3, 16, 16), (1, 1, 16, 16)]
    assert [batch.original_size.tolist() for batch in batches] == [[[20, 30]], [[11, 7]]]
    for batch in batches:
        assert batch.mask.shape == (1, 2, 16, 16) and not batch.mask.any()
        assert not batch.target_present.any() and batch.target_present.shape == (1, 2)
        assert 0 <= batch.image.min() < batch.image.max() <= 1
        assert batch.domain_index.tolist() == [-1]


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    path = save(tmp_path / "a.png", (8, 8, 3))
    (batch,) = ImageFolderDataModule(tmp_path, image_size=8, num_targets=1).predict_dataloader()
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)
    assert torch.equal((batch.image[0] * 255).round().byte(), pixels)


def test_every_problem_is_named_at_once(tmp_path):
    save(tmp_path / "a.png", (8, 8))
    save(tmp_path / "a.jpg", (8, 8))
    broken = save(tmp_path / "b.png", (40, 40, 3))
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(DataErrors) as caught:
        find_images(tmp_path)
    found = {problem.file.rsplit("/")[-1]: problem.problem for problem in caught.value.problems}
    assert found.keys() == {"a.jpg", "a.png", "b.png"}
    assert "differs from it only in its suffix" in found["a.jpg"]
    assert "truncated" in found["b.png"]


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataErrors, match="no such folder"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DataErrors, match="holds no image"):
        ImageFolderDataModule(tmp_path, image_size=8, num_targets=1)
