import io
import stat
import tarfile
import zipfile

import pytest

from madgnet_bench.catalog.archives import open_archive
from madgnet_bench.errors import ConfigError


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def unpacked(archive, folder):
    folder.mkdir()
    open_archive(archive).unpack(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("make", "name"), [(make_zip, "set.zip"), (make_tar, "set.tar.gz"), (make_tar, "set.tgz")])
def test_an_outer_folder_is_kept_and_a_missing_one_is_added(make, name, tmp_path):
    (tmp_path / "flat").mkdir()
    inner = make(tmp_path / name, {"outer/images/1.png": b"one", "outer/readme.txt": b""})
    assert unpacked(inner, tmp_path / "a") == {"outer/images/1.png": b"one", "outer/readme.txt": b""}
    flat = make(tmp_path / "flat" / name, {"images/1.png": b"one", "masks/1.png": b"two"})
    assert unpacked(flat, tmp_path / "b") == {"set/images/1.png": b"one", "set/masks/1.png": b"two"}
    assert open_archive(flat).size == 6


def test_a_plain_tar_that_holds_a_zip_is_a_tar(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"a.txt": b"a"}).read_bytes()
    assert unpacked(make_tar(tmp_path / "x.tar", {"o/inner.zip": inner}, "w"), tmp_path / "a") == {"o/inner.zip": inner}


def test_clutter_is_passed_over_and_backslashes_are_folders(tmp_path):
    files = {
        "o\\images\\1.png": b"one",
        "__MACOSX/o/._1.png": b"x",
        "o/.DS_Store": b"x",
        "o/._1.png": b"x",
        "o/Thumbs.db": b"x",
    }
    assert unpacked(make_zip(tmp_path / "x.zip", files), tmp_path / "a") == {"o/images/1.png": b"one"}


def test_every_byte_is_counted(tmp_path):
    archive = open_archive(make_zip(tmp_path / "x.zip", {"o/1": b"x" * 3_000_000, "o/2": b"y"}))
    steps = []
    (tmp_path / "a").mkdir()
    archive.unpack(tmp_path / "a", step=steps.append)
    assert sum(steps) == archive.size == 3_000_001
    assert len(steps) > 2


@pytest.mark.parametrize("name", ["../out.txt", "o/../../out.txt", "/out.txt", "C:\\out.txt", "..\\out.txt"])
@pytest.mark.parametrize(("make", "file"), [(make_zip, "x.zip"), (make_tar, "x.tar.gz")])
def test_names_that_lead_out_are_refused(make, file, name, tmp_path):
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in" / file, {"o/1.png": b"1", name: b"2"})
    with pytest.raises(ConfigError, match=r"leads out of the folder.*unpack it yourself"):
        open_archive(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_links_devices_and_doubles_are_refused(tmp_path):
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)):
        path = make_tar(tmp_path / f"{number}.tar", {"o/1.png": b"1"}, "w")
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo("o/link")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(ConfigError, match="'o/link' is a link or a device"):
            open_archive(path)
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        info = zipfile.ZipInfo("o/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ConfigError, match="'o/link' is a link or a device"):
        open_archive(tmp_path / "link.zip")
    double = make_tar(tmp_path / "double.tar", {"o/1.png": b"1", "o/./1.png": b"2"}, "w")
    with pytest.raises(ConfigError, match="two files of one name"):
        open_archive(double)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Rar!\x1a\x07\x01\x00rest", r"is a RAR archive: unpack it \(`unar x\.zip` or `7z x x\.zip`\)"),
        (b"7z\xbc\xaf\x27\x1crest", "is a 7z archive"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not an archive: .*log in"),
        (b"PK\x03\x04 but no more", "truncated or damaged"),
        (b"\x1f\x8b\x08 no gzip", "truncated or damaged"),
        (b"", "not a zip or tar archive"),
    ],
)
def test_what_is_no_archive_is_told_with_advice(content, message, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        open_archive(path)


def test_an_empty_and_an_encrypted_archive(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.zip is empty"):
        open_archive(make_zip(tmp_path / "x.zip", {"__MACOSX/a": b"1"}))
    path = make_zip(tmp_path / "y.zip", {"o/1": b"1"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="'o/1' is encrypted"):
        open_archive(path)


def test_a_damaged_member_is_told(tmp_path):
    path = make_zip(tmp_path / "x.zip", {"o/1": b"good bytes"})
    path.write_bytes(path.read_bytes().replace(b"good", b"evil", 1))
    archive = open_archive(path)
    with pytest.raises(ConfigError, match=r"x\.zip is truncated or damaged.*download it again"):
        archive.unpack(tmp_path)


def test_nothing_is_overwritten(tmp_path):
    archive = open_archive(make_zip(tmp_path / "x.zip", {"o/1": b"new"}))
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "1").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="1 is in another archive too"):
        archive.unpack(tmp_path)
    assert (tmp_path / "o" / "1").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_not_called_a_damaged_archive(tmp_path):
    archive = open_archive(make_zip(tmp_path / "x.zip", {"o/1": b"new"}))
    (tmp_path / "o").write_bytes(b"a file")
    with pytest.raises(ConfigError, match="File exists; make room or choose another data root"):
        archive.unpack(tmp_path)
