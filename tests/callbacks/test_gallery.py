from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image
from standins import Boxes, LeftHalf, TinyNetwork, quiet_trainer, tiny_task

from madgnet_bench.bench.report.gallery import read_gallery
from madgnet_bench.callbacks.gallery import MaskWriter, TestGallery, _choose
from madgnet_bench.data.image_folder import ImageFolderDataModule
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.pictures import draw_outlines, error_overlay, target_colours, to_rgb
from madgnet_bench.protocol import Protocol

PROTOCOL = Protocol.parse("madgnet[size=16]")


def test_of(folder, *, network=None, seen=None, unseen=None, eval_batch_size=3, **options):
    data = SeenUnseenDataModule(
        [seen or Boxes("near", splits="tveeeeeee")],
        [unseen or Boxes("far/he", splits="eeee")],
        protocol=str(PROTOCOL),
        eval_batch_size=eval_batch_size,
    )
    task = tiny_task(network or LeftHalf(data.num_targets))
    gallery = TestGallery(folder, protocol=PROTOCOL, **options)
    quiet_trainer(callbacks=[gallery]).test(task, datamodule=data, verbose=False)
    return task, data


test_of.__test__ = False


def kept(folder):
    pattern = re.compile(r"(worst|median|best)(\d)_dsc(\d{3}\.\d)_(.*)\.png")
    return sorted(pattern.fullmatch(path.name).groups() for path in folder.glob("*.png"))


def expected(task, dataset, count):
    scores = {}
    for row in task.test_rows:
        if row.dataset == dataset:
            scores.setdefault(row.case_id, []).append(row.measures["dsc"])
    means = {case: np.mean(values) for case, values in scores.items()}
    rising = sorted(means, key=lambda c: (means[c], c))
    middle = (len(rising) - 1) / 2
    ordered = {
        "worst": rising,
        "median": sorted(rising, key=lambda c: abs(rising.index(c) - middle)),
        "best": sorted(means, key=lambda c: (-means[c], c)),
    }
    return sorted(
        (which, str(rank), f"{100 * means[case]:05.1f}", case)
        for which, cases in ordered.items()
        for rank, case in enumerate(cases[:count], start=1)
    )


@pytest.mark.parametrize("eval_batch_size", [1, 3, 8])
def test_worst_median_and_best_of_each_set_are_kept(tmp_path, eval_batch_size):
    task, _ = test_of(tmp_path, eval_batch_size=eval_batch_size)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far_he", "near"]
    assert kept(tmp_path / "near") == expected(task, "near", 3)
    assert kept(tmp_path / "far_he") == expected(task, "far/he", 3)
    assert len({score for _, _, score, _ in kept(tmp_path / "near")}) > 3


def test_the_score_of_several_targets_is_their_mean_over_present_ones(tmp_path):
    unseen = Boxes("far/he", splits="eeee", targets=("cup",))
    task, _ = test_of(tmp_path, seen=Boxes("near", splits="tveee", targets=("disc", "cup")), unseen=unseen, count=1)
    for folder, name in (("near", "near"), ("far_he", "far/he")):
        assert kept(tmp_path / folder) == expected(task, name, 1)


def test_a_panel_shows_image_reference_prediction_and_errors(tmp_path):
    _, data = test_of(tmp_path, count=1)
    (path,) = (tmp_path / "near").glob("best1*.png")
    panel = np.asarray(Image.open(path))
    assert panel.shape == (16, 64, 3)
    case_id = next(case for kind, _, _, case in kept(tmp_path / "near") if kind == "best")
    cases = data.test_sets[0].cases
    item = next(cases[n] for n in range(len(cases)) if cases[n].case_id == [case_id])
    image = (item.image[0].numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    reference = item.mask[0].numpy().astype(np.uint8)
    prediction = np.zeros((1, 16, 16), np.uint8)
    prediction[..., :8] = 1
    parts = [
        to_rgb(image),
        draw_outlines(image, reference),
        draw_outlines(image, prediction),
        error_overlay(image, prediction, reference),
    ]
    assert np.array_equal(panel, np.concatenate(parts, axis=1))


def test_pictures_of_an_earlier_test_make_room_and_other_files_stay(tmp_path):
    test_of(tmp_path)
    (tmp_path / "near" / "notes.png").write_bytes(b"mine")
    task, _ = test_of(tmp_path, network=TinyNetwork(), count=2)
    (tmp_path / "near" / "notes.png").unlink()
    assert kept(tmp_path / "near") == expected(task, "near", 2)


def test_the_first_median_case_has_the_median_score(tmp_path):
    task, _ = test_of(tmp_path, count=1)
    scores = sorted(row.measures["dsc"] for row in task.test_rows if row.dataset == "near")
    assert len(scores) == 7
    (median,) = [entry for entry in read_gallery(tmp_path / "near").cases if entry.kind == "median"]
    assert median.dsc == pytest.approx(scores[3], abs=1e-6)


def test_the_report_reads_the_index_that_is_written(tmp_path):
    _, data = test_of(tmp_path)
    for folder, name in (("near", "near"), ("far_he", "far/he")):
        gallery = read_gallery(tmp_path / folder)
        assert (gallery.dataset, gallery.targets) == (name, tuple(data.targets))
        listed = [(entry.kind, str(entry.rank), f"{100 * entry.dsc:05.1f}", entry.case_id) for entry in gallery.cases]
        assert sorted(listed) == kept(tmp_path / folder) and len(listed) == 9
        for entry in gallery.cases:
            with Image.open(tmp_path / folder / entry.file) as picture:
                assert picture.size == (4 * entry.width, entry.height) == (64, 16)


def test_a_test_set_without_cases_has_no_pictures():
    assert _choose([], 3) == []
    assert _choose([(0.5, "a")], 2) == [("worst", 1, "a"), ("median", 1, "a"), ("best", 1, "a")]
    four = [(0.1, "d"), (0.2, "c"), (0.2, "b"), (0.9, "a")]
    assert _choose(four, 2)[2:4] == [("median", 1, "b"), ("median", 2, "c")]


@pytest.mark.parametrize("targets", [("lesion",), ("disc", "cup")])
def test_all_writes_every_mask(tmp_path, targets):
    seen, unseen = Boxes("near", splits="tveeeee", targets=targets), Boxes("far/he", splits="ee", targets=targets)
    test_of(tmp_path, seen=seen, unseen=unseen, keep="all")
    places = [f"masks/{name}" for name in targets] if len(targets) > 1 else ["masks"]
    left = np.zeros((16, 16), np.uint8)
    left[:, :8] = 255
    for folder, names in (("near", ["c02", "c03", "c04", "c05", "c06"]), ("far_he", ["c00", "c01"])):
        for place in places:
            files = sorted((tmp_path / folder / place).glob("*.png"))
            assert [path.stem for path in files] == names
            assert all(np.array_equal(np.asarray(Image.open(path)), left) for path in files)
    test_of(tmp_path / "few", seen=seen, unseen=unseen)
    assert not list((tmp_path / "few").rglob("masks"))


def save(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 100, np.uint8)).save(path)


def predict(tmp_path, targets, threshold=0.5):
    images = tmp_path / "images"
    save(images / "a.png", (30, 40, 3))
    save(images / "deep" / "b.tif", (21, 11))
    data = ImageFolderDataModule(images, image_size=16, num_targets=len(targets))
    writer = MaskWriter(tmp_path / "out", data.read, targets=targets, threshold=threshold)
    quiet_trainer(callbacks=[writer]).predict(tiny_task(LeftHalf(len(targets))), datamodule=data, return_predictions=False)
    return writer, tmp_path / "out"


def test_predicted_masks_have_the_images_own_size(tmp_path):
    writer, out = predict(tmp_path, ["lesion"])
    assert writer.written == 2
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert files == ["masks/a.png", "masks/deep/b.png", "overlays/a.png", "overlays/deep/b.png"]
    mask = np.asarray(Image.open(out / "masks/a.png"))
    assert mask.shape == (30, 40) and mask.dtype == np.uint8
    assert (mask[:, :20] == 255).all() and (mask[:, 20:] == 0).all()
    narrow = np.asarray(Image.open(out / "masks/deep/b.png"))
    assert narrow.shape == (21, 11) and set(np.unique(narrow)) == {0, 255}
    assert (narrow[:, :5] == 255).all() and (narrow[:, 6:] == 0).all()


def test_overlays_outline_the_mask_on_the_image(tmp_path):
    _, out = predict(tmp_path, ["lesion"])
    overlay = np.asarray(Image.open(out / "overlays/a.png"))
    assert overlay.shape == (30, 40, 3)
    outline = (overlay == target_colours(1)[0]).all(-1)
    border = np.zeros((30, 40), bool)
    border[:, :20] = True
    border[1:-1, 1:19] = False
    assert np.array_equal(outline, border)
    assert (overlay[~outline] == 100).all()


def test_several_targets_have_folders(tmp_path):
    _, out = predict(tmp_path, ["disc", "cup"])
    assert sorted(path.relative_to(out).as_posix() for path in (out / "masks").rglob("*.png")) == [
        "masks/cup/a.png",
        "masks/cup/deep/b.png",
        "masks/disc/a.png",
        "masks/disc/deep/b.png",
    ]


def test_the_threshold_is_met_by_equality(tmp_path):
    _, out = predict(tmp_path, ["lesion"], threshold=0.0)
    assert (np.asarray(Image.open(out / "masks/a.png")) == 255).all()
