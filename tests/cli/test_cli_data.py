import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.official import DATA_ROOT_VARIABLE, READERS
from madgnet_bench.cli import main

CHILD = (
    "import sys; from madgnet_bench.cli.data import main; status = main(['list']);"
    "sys.exit(status or bool({'torch', 'lightning', 'pandas', 'scipy'} & set(sys.modules)))"
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
    assert "10 / 566" in rows["shenzhen_lung_512"]
    assert rows["busi"].endswith("missing")
    assert "- / 647" in rows["busi"]
    assert {row.index(READERS[name].card.licence[:5]) for name, row in rows.items()} == {lines[0].index("licence")}
    assert str(root) in lines[-2]


def test_list_marks_an_incomplete_copy(root, capsys):
    (root / "shenzhen_lung_512" / "masks" / "CHNCXR_0003_0.jpg").unlink()
    assert main(["data", "list", "--data_root", str(root)]) == 0
    assert "incomplete: see data check shenzhen_lung_512" in capsys.readouterr().out


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
