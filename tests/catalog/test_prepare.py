import fcntl
import os
import shutil
import sys
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from told import Told

from madgnet_bench.catalog.official import READERS, CatalogDataset
from madgnet_bench.catalog.prepare import check_copy, find_layout, install, manifest_file
from madgnet_bench.errors import ConfigError, DataErrors

TINY = Path(__file__).parent / "readers"
sys.path.insert(0, str(TINY))
MAKERS = {
    name: maker
    for module in ("test_readers", "tiny_madgnet", "tiny_others")
    for name, maker in import_module(module).MAKERS.items()
}


@pytest.fixture
def source(tmp_path):
    """Tiny copies as a user has them, outside of the data root."""

    def make(name, folder="downloaded"):
        place = tmp_path / "home" / folder
        MAKERS[name](place)
        return place

    return make


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def zipped(folder, path, *, outer=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{outer}{file.relative_to(folder).as_posix()}")
    return path


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_set_is_prepared_from_a_zip_of_its_folder(name, source, root, tmp_path):
    folder = source(name)
    archive = zipped(folder, tmp_path / "home" / f"{name}.zip", outer="some folder/")
    target = install(name, [archive], data_root=str(root))
    assert target == root / name
    assert not target.is_symlink()
    prepared = check_copy(name, data_root=str(root))
    install(name, [folder], data_root=str(root / "other"))
    assert check_copy(name, data_root=str(root / "other")).manifest == prepared.manifest
    assert [path.name for path in root.iterdir() if path.name != "other"] == [name]


def test_a_folder_is_linked_and_left_alone(source, root):
    folder = source("busi", "a/b/c")
    before = tree(folder)
    told = Told()
    target = install("busi", [folder.parents[1]], data_root=str(root), progress=told)
    assert target.is_symlink()
    assert target.resolve() == folder.resolve()
    assert told.lines == [f"Linked: {target} -> {folder.resolve()}"]
    assert len(check_copy("busi", data_root=str(root), progress=told).manifest) == 8
    assert told.bars == [("check busi", 8, 0, 8)]
    assert tree(folder) == before
    assert install("busi", [folder.parents[1]], data_root=str(root), progress=told) == target
    assert len(told.lines) == 1


def test_what_is_there_is_never_touched(source, root, tmp_path):
    MAKERS["busi"](root / "busi")
    (root / "busi" / "mine.txt").write_text("mine")
    before = tree(root)
    archive = zipped(source("busi"), tmp_path / "home" / "busi.zip")
    told = Told()
    install("busi", [archive], data_root=str(root), progress=told)
    install("busi", [], data_root=str(root), progress=told)
    assert tree(root) == before
    assert [line.partition(";")[0] for line in told.lines] == [f"{root / 'busi'} is there already and stays as it is"]
    (root / "stu").write_text("a file")
    (root / "ph2").symlink_to(tmp_path / "nowhere")
    for name in ("stu", "ph2"):
        with pytest.raises(ConfigError, match="not a folder, or a link to nowhere: move it away"):
            install(name, [archive], data_root=str(root))


def test_parts_in_several_archives(source, root, tmp_path):
    folder = source("isic2017")
    parts = [zipped(part, tmp_path / "home" / f"{part.name}.zip") for part in sorted(folder.iterdir())]
    assert len(parts) == 6
    told = Told()
    install("isic2017", parts, data_root=str(root), progress=told)
    assert len(check_copy("isic2017", data_root=str(root)).manifest) == 6
    assert tree(root / "isic2017") == tree(folder)
    size = sum(map(len, tree(folder).values()))
    assert told.bars == [("unpack isic2017", size, 0, size)]
    assert told.lines[0].startswith(f"To unpack: 18 files, {size / 2**20:,.1f} MiB; free in {root}: ")
    assert told.lines[1:] == [f"Unpacked: {root / 'isic2017'}"]


def test_parts_in_folders_are_linked_side_by_side_also_with_archives(source, root, tmp_path):
    folder = source("isic2018")
    images, masks = folder / "ISIC2018_Task1-2_Training_Input", folder / "ISIC2018_Task1_Training_GroundTruth"
    shutil.move(masks, tmp_path / "home" / masks.name)
    masks = tmp_path / "home" / masks.name
    install("isic2018", [images, masks], data_root=str(root))
    assert {path.name: path.resolve() for path in (root / "isic2018").iterdir()} == {
        p.name: p.resolve() for p in (images, masks)
    }
    assert len(check_copy("isic2018", data_root=str(root)).manifest) == 4
    install("isic2018", [images, zipped(masks, tmp_path / f"{masks.name}.zip")], data_root=str(root / "mixed"))
    assert len(check_copy("isic2018", data_root=str(root / "mixed")).manifest) == 4
    assert len(list(images.iterdir())) == 6


def test_official_archives_without_an_outer_folder(source, root, tmp_path):
    nuclei = zipped(source("dsb2018") / "stage1_train", tmp_path / "stage1_train.zip")
    vessels = zipped(source("chasedb1", "chase") / "CHASEDB1", tmp_path / "CHASEDB1.zip")
    for name, archive in (("dsb2018", nuclei), ("chasedb1", vessels)):
        install(name, [archive], data_root=str(root))
        assert len(check_copy(name, data_root=str(root)).manifest) in (5, 10)


def test_what_lies_beside_the_layout_is_left_out_and_told(source, root, tmp_path):
    folder = source("kvasir_seg", "Kvasir-SEG").parent
    (folder / "boxes.json").write_text("{}")
    with tarfile.open(tmp_path / "kvasir.tar.gz", "w:gz") as archive:
        archive.add(folder, "kvasir")
    told = Told()
    install("kvasir_seg", [tmp_path / "kvasir.tar.gz"], data_root=str(root), progress=told)
    assert sorted(path.name for path in (root / "kvasir_seg").iterdir()) == ["images", "masks"]
    assert told.lines[-1] == "Left out: 1 files that lie outside of Kvasir-SEG/ in the archive"


def test_a_wrong_source_leaves_nothing_behind(source, root, tmp_path):
    archive = zipped(source("stu"), tmp_path / "home" / "busi.zip", outer="x/")
    with pytest.raises(DataErrors, match=r"busi\.zip/Dataset_BUSI_with_GT .*holds neither benign nor malignant") as caught:
        install("busi", [archive], data_root=str(root))
    assert "layout: Dataset_BUSI_with_GT/{benign,malignant}" in str(caught.value)
    assert list(root.iterdir()) == []
    zipped(tmp_path / "home" / "downloaded", tmp_path / "home" / "downloaded" / "inner.zip")
    with pytest.raises(DataErrors, match=r"inner\.zip +an archive inside the source +unpack it"):
        install("busi", [tmp_path / "home" / "downloaded"], data_root=str(root))
    assert list(root.iterdir()) == []


def test_sources_that_cannot_be_meant(source, root, tmp_path):
    with pytest.raises(ConfigError, match=r"busi is not in .*: pass --source"):
        install("busi", [], data_root=str(root))
    with pytest.raises(ConfigError, match="there is no such file or folder"):
        install("busi", [tmp_path / "nothing.zip"], data_root=str(root))
    source("busi", "one")
    source("busi", "two")
    with pytest.raises(ConfigError, match=r"one and .*two are both a copy of busi: pass one"):
        install("busi", [tmp_path / "home"], data_root=str(root))
    source("busi", "other/one")
    with pytest.raises(ConfigError, match="two sources are named one"):
        install("busi", [tmp_path / "home" / "one", tmp_path / "home" / "other" / "one"], data_root=str(root))
    with pytest.raises(ConfigError, match="one alone is in the official layout: pass it as the only --source"):
        install("busi", [tmp_path / "home" / "one", source("stu", "three")], data_root=str(root))
    assert list(root.iterdir()) == []
    assert len(tree(tmp_path / "home" / "one")) == 25


def test_a_full_disk_is_told_before(source, root, tmp_path, monkeypatch):
    archive = zipped(source("busi"), tmp_path / "busi.zip")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 10))
    with pytest.raises(ConfigError, match="has room for 0 MiB"):
        install("busi", [archive], data_root=str(root))
    assert list(root.iterdir()) == []


def test_what_a_killed_process_left_is_cleaned_up(source, root, tmp_path):
    folder = source("busi")
    archive = zipped(folder, tmp_path / "Dataset.zip")
    (root / "busi.partial" / "Dataset_BUSI_with_GT" / "benign").mkdir(parents=True)
    (root / "busi.partial" / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png").write_bytes(b"half")
    (root / "busi.partial" / "link").symlink_to(folder)
    before = tree(folder)
    install("busi", [archive], data_root=str(root))
    assert tree(root) == {Path("busi") / path: content for path, content in before.items()}
    assert tree(folder) == before


def test_two_processes_do_not_work_on_one_set(source, root, tmp_path):
    archive = zipped(source("busi"), tmp_path / "Dataset.zip")
    (root / "busi.partial").mkdir(parents=True)
    handle = os.open(root / "busi.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another process is working on it"):
        install("busi", [archive], data_root=str(root))
    os.close(handle)
    install("busi", [archive], data_root=str(root))


def test_a_link_that_cannot_be_made_is_told(source, root, monkeypatch):
    def fail(self, target, target_is_directory=False):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", fail)
    with pytest.raises(ConfigError, match=r"no link to .* can be made \(Operation not permitted\); move or copy"):
        install("busi", [source("busi")], data_root=str(root))


def test_the_layout_is_found_at_most_three_levels_down(source):
    folder = source("busi", "1/2/3")
    reader = READERS["busi"]
    assert find_layout(reader, folder.parents[2]) == folder
    assert find_layout(reader, folder) == folder
    deeper = source("stu", "4/5/6/7").parents[3]
    with pytest.raises(DataErrors):
        find_layout(READERS["stu"], deeper)


def test_a_check_reports_everything_and_says_that_no_manifest_is_written(source, root):
    folder = source("busi")
    (folder / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png").write_bytes(b"")
    (folder / "Dataset_BUSI_with_GT" / "malignant" / "malignant (2)_mask.png").unlink()
    install("busi", [folder], data_root=str(root))
    with pytest.raises(DataErrors, match="2 problems; no manifest was written") as caught:
        check_copy("busi", data_root=str(root))
    assert [problem.problem for problem in caught.value.problems] == ["image without a mask", "the file is empty (0 bytes)"]
    assert not manifest_file("busi", data_root=str(root)).exists()


def test_notes_of_the_split_come_along(root):
    MAKERS["covid19_1"](root / "covid19_1")
    prepared = check_copy("covid19_1", data_root=str(root))
    assert prepared.notes == ("the official split divides 3 groups; the clean split is by group instead, 70/10/20 %",)
    assert prepared.manifest == CatalogDataset("covid19_1", data_root=str(root)).manifest
