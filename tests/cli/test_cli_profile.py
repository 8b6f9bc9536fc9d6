from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.profile.compare import read_profile
from madgnet_bench.cli import main

CHILD = (
    "import sys; from madgnet_bench.cli import main; status = main(sys.argv[1:]);"
    "sys.exit(status or bool({'torch', 'lightning', 'matplotlib.pyplot'} & set(sys.modules)))"
)


def folder(root: Path, name: str, *, shift: float) -> str:
    """A user's folder of ten phantoms."""
    source = PhantomDataset("dermoscopy", shift=shift, cases=10, size=48)
    for kind in ("images", "masks"):
        (root / name / kind).mkdir(parents=True)
    for case in source.manifest:
        Image.fromarray(source.read_image(case)).save(root / name / "images" / f"{case.case_id}.png")
        Image.fromarray(source.read_mask(case)[0] * 255).save(root / name / "masks" / f"{case.case_id}.png")
    return str(root / name)


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [folder(tmp_path, name, shift=shift) for name, shift in (("near", 0), ("far", 0.4), ("farther", 1))]


def table(lines: list[str], first: str) -> list[list[str]]:
    """The cells of the rows below the header that starts with these words."""
    words = first.split()
    start = next(number for number, line in enumerate(lines) if line.split()[: len(words)] == words)
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith(("near", "far")):
            break
        rows.append(line.split())
    return rows


def test_tables_numbers_and_plot(folders, tmp_path, capsys):
    output, plot = tmp_path / "new" / "profile.json", tmp_path / "new" / "profile.svg"
    words = [folders[0], "--unseen", *folders[1:], "--size", "64", "--output", str(output), "--plot", str(plot)]
    assert main(["data", "profile", *words]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert max(map(len, lines[:-2])) <= 120
    profile = read_profile(output)
    spectra = table(lines, "set images")
    assert [row[:2] for row in spectra] == [["near", "10"], ["far", "10"], ["farther", "10"]]
    assert spectra[0][3] == f"{profile.seen[0].slope:.2f}"
    assert len(table(lines, "set grey")) == 3
    distances = table(lines, "set to")
    assert [row[:2] for row in distances] == [["near", "far"], ["near", "farther"]]
    assert [row[2] for row in distances] == [f"{distance.spectral:.2f}" for distance in profile.distances]
    assert float(distances[0][5]) < float(distances[1][5])
    assert lines[-2:] == [f"Written: {output}", f"Written: {plot}"]
    assert "<svg" in plot.read_text(encoding="utf-8")


def test_all_pairs_of_the_training_images(folders, tmp_path, capsys):
    plot = tmp_path / "profile.PNG"
    assert main(["data", "profile", *folders, "--size", "64", "--split", "train", "--plot", str(plot)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row[1] for row in table(lines, "set images")] == ["7", "7", "7"]
    assert len(table(lines, "set to")) == 3
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_unseen_sets_are_whole_and_one_set_has_no_distance(folders, capsys):
    assert main(["data", "profile", folders[0], "--unseen", folders[1], "--size", "64", "--split", "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row[1] for row in table(lines, "set images")] == ["7", "10"]
    assert main(["data", "profile", folders[0], "--size", "64"]) == 0
    assert "spectral" not in capsys.readouterr().out


def test_it_needs_no_torch(folders, tmp_path):
    words = ["data", "profile", folders[0], "--size", "64", "--plot", str(tmp_path / "p.png")]
    child = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{own}", "--output", "profile.csv"], "--output must end in .json, not 'profile.csv'"),
        (["{own}", "--plot", "profile.pdf"], "--plot must end in .png or .svg"),
        (["{own}", "--size", "65"], "the side must be an even number from 64 to 1024"),
        (["{own}", "--unseen", "{own}"], "near: named twice"),
        (["bussi", "--data_root", "nowhere"], "did you mean 'busi'?"),
        (["{own}", "busi", "--data_root", "nowhere"], "the folder is missing"),
    ],
)
def test_wrong_use(folders, capsys, words, message):
    assert main(["data", "profile", *(word.format(own=folders[0]) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert message in err and out == ""


def test_problems_are_tabulated_and_nothing_is_written(folders, tmp_path, capsys):
    (Path(folders[0]) / "images" / "00003.png").write_bytes(b"broken")
    Image.fromarray(np.full((48, 48), 7, np.uint8)).save(Path(folders[1]) / "masks" / "00004.png")
    output = tmp_path / "profile.json"
    assert main(["data", "profile", *folders, "--size", "64", "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert "near, far: 2 problems; nothing was written." in err and "00003.png" in err and "00004.png" in err
    assert out == "" and not output.exists()
