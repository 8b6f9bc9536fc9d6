import csv
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog import download
from madgnet_bench.catalog.cards import Link
from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS, CatalogDataset
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS, OfficialList
from madgnet_bench.cli import main
from madgnet_bench.errors import ConfigError
from madgnet_bench.protocol import Protocol

CHILD = (
    "import sys; from madgnet_bench.cli.data import main; status = main(['list']);"
    "sys.exit(status or bool({'torch', 'lightning', 'pandas', 'scipy', 'requests', 'pooch', 'tqdm'} & set(sys.modules)))"
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    picture = Image.fromarray(np.kron(np.eye(2, dtype=np.uint8) * 255, np.ones((16, 16), np.uint8)))
    for number in range(10):
        for kind in ("images", "masks"):
            path = tmp_path / "shenzhen_lung_512" / kind / f"CHNCXR_000{number}_{number // 5}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return tmp_path


def test_list_shows_what_is_here(root, capsys):
    assert main(["data", "list", "--data_root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1 : 1 + len(READERS)]}
    assert rows.keys() == READERS.keys()
    assert rows["shenzhen_lung_512"].endswith("have it")
    assert rows["busi"].endswith("missing")
    assert rows["covid19_1"].endswith("missing, unverified")
    assert "- / 647" in rows["busi"]
    assert "aorta, gallbladder +6" in rows["synapse"]
    assert {row.index(READERS[name].card.licence[:5]) for name, row in rows.items()} == {lines[0].index("terms")}
    assert max(map(len, lines[: 1 + len(READERS)])) <= 120
    assert f"Data root: {root}" in lines
    assert any(line.startswith("data download NAME gets: bbbc039, busi,") for line in lines)


def test_list_shows_what_is_prepared_without_listing_a_file(root, capsys, monkeypatch):
    assert main(["data", "prepare", "shenzhen_lung_512", "--data_root", str(root)]) == 0
    monkeypatch.setattr(CatalogDataset, "scan", lambda self: pytest.fail("listed files"))
    capsys.readouterr()
    assert main(["data", "list", "--data_root", str(root)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("shenzhen"))
    assert "10 / 566" in row
    assert row.endswith("prepared")
    shutil.rmtree(root / "shenzhen_lung_512")
    assert main(["data", "list", "--data_root", str(root)]) == 0
    assert "10 / 566" not in capsys.readouterr().out


@pytest.mark.parametrize("name", READERS)
def test_list_prints_a_whole_card(name, capsys, monkeypatch):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    assert main(["data", "list", name]) == 0
    text = capsys.readouterr().out
    card = READERS[name].card
    assert max(map(len, text.splitlines())) <= 120
    words = " ".join(text.split())
    for part in (card.title, card.url, card.licence, card.citation, card.split_rule, *card.traps):
        assert " ".join(part.split()) in words
    assert ("unverified" in words) != card.verified
    assert ("by hand" in words) != bool(card.links)
    assert ("released" in words and "data download splits" in words) or name not in OFFICIAL_LISTS


def test_list_knows_where_a_set_is(root, capsys):
    assert main(["data", "list", "shenzhen_lung_512", "--data_root", str(root)]) == 0
    assert f"have it: {root / 'shenzhen_lung_512'}" in capsys.readouterr().out
    assert main(["data", "list", "shenzen"]) == 2


def test_list_works_without_a_data_root_and_without_torch():
    environment = {key: value for key, value in os.environ.items() if key != DATA_ROOT_VARIABLE}
    child = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert "No data root" in child.stdout
    assert child.stdout.count("missing") == len(READERS)


def test_check_says_one_line_per_sound_set(root, capsys, monkeypatch):
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root))
    assert main(["data", "check", "shenzhen_lung_512", "shenzhen_lung_512/normal"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shenzhen_lung_512: 10 cases (6 train, 2 val, 2 test), all sound")
    assert lines[1].startswith("shenzhen_lung_512/normal: 5 cases (3 train, 1 val, 1 test), all sound")


def test_check_tabulates_problems_and_fails(root, capsys):
    masks = root / "shenzhen_lung_512" / "masks"
    (masks / "CHNCXR_0003_0.jpg").write_bytes(b"")
    Image.new("L", (5, 5)).save(masks / "CHNCXR_0004_0.jpg")
    assert main(["data", "check", "shenzhen_lung_512", "busi", "--data_root", str(root)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "shenzhen_lung_512, busi: 3 problems" in captured.err
    assert f"{masks / 'CHNCXR_0003_0.jpg'}" in captured.err
    assert "mask is 5 x 5, image is 32 x 32" in captured.err
    assert "the folder is missing" in captured.err


def test_sheet_is_written(root, capsys):
    output = root / "new" / "sheet.png"
    names = ["shenzhen_lung_512/normal", "shenzhen_lung_512/tuberculosis"]
    assert main(["data", "sheet", *names, "--output", str(output), "--data_root", str(root)]) == 0
    assert capsys.readouterr().out == f"Written: {output}\n"
    with Image.open(output) as picture:
        assert picture.width > 5 * 128
        assert picture.height > 2 * 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "dsb2081"], "did you mean 'dsb2018'"),
        (["check", "dsb2018/hee"], "did you mean 'he'"),
        (["check", "dsb2018"], "no data root"),
        (["sheet", "busi", "--output", "sheet.pdf"], "must end in .png"),
        (["prepare", "dsb2081"], "did you mean 'dsb2018'"),
        (["prepare", "dsb2018"], "no data root"),
        (["prepare", "dsb2018", "--data_root", "/nowhere"], "dsb2018 is not in /nowhere: pass --source"),
        (["download", "dsb2081"], "did you mean 'dsb2018'"),
        (["download", "dsb2018"], "no data root"),
        (["download", "busi", "--source", "x.zip"], "--source belongs to `data download splits`"),
    ],
)
def test_wrong_use_is_told(arguments, message, capsys, monkeypatch):
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    assert main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_action_and_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["data"])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["data", "--help"])
    assert caught.value.code == 0
    assert "usage: madgnet-bench data" in capsys.readouterr().out


def test_an_own_folder_is_checked_and_shown_like_a_data_set(tmp_path, capsys):
    folder = tmp_path / "mine"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(10):
        pixels = np.zeros((20, 24), np.uint8)
        pixels[5:9, number : number + 6] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(pixels).save(folder / "masks" / f"{number}.png")
    assert main(["data", "check", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("mine: 10 cases (7 train, 1 val, 2 test), all sound")
    assert main(["data", "sheet", str(folder), "--output", str(tmp_path / "sheet.png")]) == 0
    assert Image.open(tmp_path / "sheet.png").width > 6 * 128
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(folder / "masks" / "3.png")
    assert main(["data", "check", str(folder)]) == 2
    assert "3.png" in capsys.readouterr().err


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.jpg")):
            archive.write(file, f"Shenzhen/{file.relative_to(folder).as_posix()}")
    return path


def test_prepare_unpacks_checks_and_writes_the_manifest(root, tmp_path, capsys):
    archive = zipped(root / "shenzhen_lung_512", tmp_path / "films.zip")
    target = tmp_path / "root"
    arguments = ["data", "prepare", "shenzhen_lung_512", "--source", str(archive), "--data_root", str(target)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("To unpack: 20 files, ")
    assert lines[1:] == [
        f"Unpacked: {target / 'shenzhen_lung_512'}",
        "shenzhen_lung_512: 10 cases (a complete copy has 566: this is a part), every file is sound",
        "domain        train  val  test  all",
        "normal            3    1     1    5",
        "tuberculosis      3    1     1    5",
        "Clean split: 6 train, 2 val, 2 test",
        "Official split: none",
        "Layout: confirmed against the official archive",
        f"Manifest: {target / 'manifests' / 'shenzhen_lung_512.csv'}",
        "Next: madgnet-bench data sheet shenzhen_lung_512 --output shenzhen_lung_512.png",
    ]
    assert captured.err == ""  # no bar where there is no terminal
    manifest = (target / "manifests" / "shenzhen_lung_512.csv").read_text()
    assert manifest == CatalogDataset("shenzhen_lung_512", data_root=str(target)).manifest.to_csv()
    assert len(list(csv.DictReader(manifest.splitlines()))) == 10
    assert main(arguments) == 0
    again = capsys.readouterr().out
    assert "is there already and stays as it is" in again
    assert "Changed" not in again
    for kind in ("images", "masks"):
        (target / "shenzhen_lung_512" / kind / "CHNCXR_0000_0.jpg").unlink()
    assert main(["data", "prepare", "shenzhen_lung_512", "--data_root", str(target)]) == 0
    assert "Changed since the last preparation: 0 cases are new, 1 are gone, " in capsys.readouterr().out


def test_prepare_reports_every_problem_and_writes_no_manifest(root, tmp_path, capsys):
    folder = root / "shenzhen_lung_512"
    (folder / "masks" / "CHNCXR_0003_0.jpg").write_bytes(b"")
    (folder / "images" / "CHNCXR_0004_0.jpg").unlink()
    target = tmp_path / "root"
    assert main(["data", "prepare", "shenzhen_lung_512", "--source", str(folder), "--data_root", str(target)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"Linked: {target / 'shenzhen_lung_512'} -> {folder}\n"
    assert "2 problems; no manifest was written." in captured.err
    assert "0 bytes" in captured.err
    assert "mask without an image" in captured.err
    assert not (target / "manifests").exists()


def test_prepare_refuses_a_rar_file_with_advice(tmp_path, capsys):
    (tmp_path / "PH2Dataset.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    assert (
        main(["data", "prepare", "ph2", "--source", str(tmp_path / "PH2Dataset.rar"), "--data_root", str(tmp_path / "r")]) == 2
    )
    assert (
        "unpack it (`unar PH2Dataset.rar` or `7z x PH2Dataset.rar`) and pass the folder as --source" in capsys.readouterr().err
    )


def test_a_manifest_that_cannot_be_written_is_told(root, capsys):
    (root / "manifests").write_text("a file")
    assert main(["data", "prepare", "shenzhen_lung_512", "--data_root", str(root)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_download_says_where_to_get_what_has_no_link(tmp_path, capsys):
    assert main(["data", "download", "refuge", "--data_root", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert "https://refuge.grand-challenge.org/" in text
    assert READERS["refuge"].card.licence in text
    assert f"madgnet-bench data prepare refuge --source FOLDER_OR_ARCHIVE --data_root {tmp_path}" in text
    assert list(tmp_path.iterdir()) == []


def test_download_fetches_and_prepares(root, tmp_path, capsys, monkeypatch):
    archive = zipped(root / "shenzhen_lung_512", tmp_path / "films.zip")
    reader = READERS["shenzhen_lung_512"]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    link = Link(url="https://example.invalid/films.zip", file="films.zip", sha256=digest)
    monkeypatch.setattr(type(reader), "card", replace(reader.card, links=(link,)))

    def copy(self, url, output_file, pooch, check_only=False):
        shutil.copy(archive, output_file)

    monkeypatch.setattr(download._Fetch, "__call__", copy)
    target = tmp_path / "root"
    assert main(["data", "download", "shenzhen_lung_512", "--data_root", str(target)]) == 0
    text = capsys.readouterr().out
    assert f"Terms: {reader.card.licence}" in text
    assert f"Downloaded: {target / 'downloads' / 'shenzhen_lung_512' / 'films.zip'}" in text
    assert "10 cases" in text
    assert "are not needed any more" in text
    assert main(["data", "download", "shenzhen_lung_512", "--data_root", str(target)]) == 0
    assert "is there already; nothing is downloaded" in capsys.readouterr().out


@pytest.fixture
def covid(tmp_path):
    """A tiny COVID19-1 in a data root, and a checkout with lists of it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "catalog" / "readers"))
    import tiny_madgnet

    tiny_madgnet.make_covid19_1(tmp_path / "covid19_1")
    items = []
    for split in ("train", "test"):
        stems = sorted(path.stem for path in (tmp_path / "covid19_1" / split / "images").iterdir())
        text = "Image_Id,image_path,mask_path\n" + "".join(f"0,{stem}.jpg,{stem}.png\n" for stem in stems)
        digest = hashlib.sha256(text.encode()).hexdigest()
        items.append(OfficialList(path=f"dataset/COVID19/{split}_frame.csv", rows=len(stems), sha256=digest, split=split))
        path = tmp_path / "checkout" / items[-1].path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kept = dict(OFFICIAL_LISTS)
    OFFICIAL_LISTS.clear()
    OFFICIAL_LISTS["covid19_1"] = tuple(items)
    yield tmp_path
    OFFICIAL_LISTS.clear()
    OFFICIAL_LISTS.update(kept)


def test_download_splits_from_a_checkout_makes_the_official_split(covid, capsys):
    arguments = ["data", "download", "splits", "--source", str(covid / "checkout"), "--data_root", str(covid)]
    assert main(["data", "prepare", "covid19_1", "--data_root", str(covid)]) == 0
    text = capsys.readouterr().out
    assert "Official split: 10 of 1277 cases are here" in text
    assert "  the official split divides 3 groups; the clean split is by group instead" in text
    assert "Layout: not confirmed" in text
    assert main(arguments) == 0
    assert f"2 lists, each as released, in {covid / 'splits'}" in capsys.readouterr().out
    assert main(["data", "prepare", "covid19_1", "--data_root", str(covid)]) == 0
    assert "Official split: 6 train, 0 val, 4 test" in capsys.readouterr().out


def test_an_official_split_without_validation_demands_the_last_checkpoint(covid):
    from madgnet_bench.cli.training import BenchCLI

    main(["data", "download", "splits", "--source", str(covid / "checkout"), "--data_root", str(covid)])
    dataset = CatalogDataset("covid19_1", split="official", data_root=str(covid))
    data = SimpleNamespace(seen=[dataset], protocol=Protocol.parse("madgnet"))
    with pytest.raises(ConfigError, match=r"no seen set has validation cases; use the protocol madgnet\[checkpoint=last\]"):
        BenchCLI._checkpoint_rule(SimpleNamespace(datamodule=data))
    data.protocol = Protocol.parse("madgnet[checkpoint=last]")
    assert BenchCLI._checkpoint_rule(SimpleNamespace(datamodule=data)) == "last"
