from __future__ import annotations

import json

import pytest
from PIL import Image

from madgnet_bench.bench.report.gallery import copy_picture, find_galleries, read_gallery
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder

CASE = {"case_id": "a/b", "kind": "worst", "rank": 1, "dsc": 0.25, "file": "worst1.png", "width": 8, "height": 6}
INDEX = {
    "schema_version": 1,
    "dataset": "far/he",
    "parts": ["image", "reference", "prediction", "errors"],
    "targets": ["disc", "cup"],
    "cases": [CASE],
}


def write(folder, index=INDEX):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 6)).save(folder / "worst1.png")
    (folder / "gallery.json").write_text(index if isinstance(index, str) else json.dumps(index))
    return folder


def test_an_index_reads_back(tmp_path):
    gallery = read_gallery(write(tmp_path))
    assert (gallery.dataset, gallery.targets, len(gallery.cases)) == ("far/he", ("disc", "cup"), 1)
    assert gallery.cases[0].__dict__ == CASE


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not the index of a gallery"),
        ("[]", "not the index of a gallery"),
        ({**INDEX, "schema_version": 2}, "schema 2 is newer than this version reads"),
        ({name: INDEX[name] for name in INDEX if name != "dataset"}, "no key 'dataset'"),
        ({**INDEX, "parts": ["image"]}, "parts are"),
        ({**INDEX, "cases": [{**CASE, "kind": "odd"}]}, "kind 'odd' is not one of worst, median, best"),
        ({**INDEX, "cases": [{**CASE, "file": "../secret.png"}]}, "is not a name in this folder"),
        ({**INDEX, "cases": [{**CASE, "width": 0}]}, "not positive"),
        ({**INDEX, "cases": [{**CASE, "dsc": None}]}, "not the index of a gallery"),
        ({**INDEX, "cases": [CASE, {**CASE, "file": "gone.png"}]}, "1 of 2 pictures are gone, first gone.png"),
    ],
)
def test_a_damaged_index_is_named(tmp_path, index, message):
    with pytest.raises(RunError, match=message):
        read_gallery(write(tmp_path, index))


def test_galleries_of_a_run_are_found_and_damaged_ones_reported(tmp_path):
    write(tmp_path / "predictions" / "far_he")
    write(tmp_path / "predictions" / "near", "{")
    galleries, problems = find_galleries(RunFolder(tmp_path))
    assert [gallery.dataset for gallery in galleries] == ["far/he"]
    assert len(problems) == 1 and "near" in problems[0]
    assert find_galleries(RunFolder(tmp_path / "none")) == ([], [])


def test_equal_pictures_are_copied_once(tmp_path):
    source = write(tmp_path / "a") / "worst1.png"
    other = write(tmp_path / "b") / "worst1.png"
    names = {copy_picture(path, tmp_path / "out") for path in (source, other)}
    assert [path.name for path in (tmp_path / "out").iterdir()] == list(names)
    assert (tmp_path / "out" / names.pop()).read_bytes() == source.read_bytes()
