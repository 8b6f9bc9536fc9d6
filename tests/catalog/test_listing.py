from madgnet_bench.catalog.listing import files_by_stem, unmatched


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_only_images_are_listed_in_order(tmp_path):
    touch(tmp_path / "images", "b.PNG", "a.jpg", ".hidden.png", "notes.txt", "Thumbs.db")
    (tmp_path / "images" / "folder.png").mkdir()
    found, problems = files_by_stem(tmp_path, "images")
    assert found == {"a": "images/a.jpg", "b": "images/b.PNG"}
    assert list(found) == ["a", "b"]
    assert problems == []


def test_strict_reports_the_rest(tmp_path):
    touch(tmp_path / "images", "a.png", ".hidden.png", "notes.txt", "Thumbs.db", "scan.dcm")
    (tmp_path / "images" / "more").mkdir()
    found, problems = files_by_stem(tmp_path, "images", strict=True)
    assert list(found) == ["a"]
    assert [problem.file.rpartition("/")[2] for problem in problems] == ["more", "notes.txt", "scan.dcm"]


def test_endings_and_suffixes_select(tmp_path):
    touch(tmp_path / "m", "a_mask.png", "a.png", "b_mask.jpg", "c_mask.png")
    found, problems = files_by_stem(tmp_path, "m", ending="_mask", suffixes=frozenset({".png"}))
    assert found == {"a": "m/a_mask.png", "c": "m/c_mask.png"}
    assert problems == []


def test_one_stem_twice_and_a_missing_folder(tmp_path):
    touch(tmp_path / "images", "a.png", "a.jpg")
    found, problems = files_by_stem(tmp_path, "images")
    assert found == {"a": "images/a.jpg"}
    assert problems[0].problem == "has the same stem as a.jpg"
    found, problems = files_by_stem(tmp_path, "masks")
    assert found == {}
    assert problems[0].problem == "the folder is missing"


def test_unmatched_names_both_sides(tmp_path):
    problems = unmatched(tmp_path, {"a": "i/a.png", "b": "i/b.png"}, {"b": "m/b.png", "c": "m/c.png"}, masks_folder="m")
    assert [(problem.file, problem.problem) for problem in problems] == [
        (str(tmp_path / "i/a.png"), "image without a mask in m/"),
        (str(tmp_path / "m/c.png"), "mask without an image"),
    ]
