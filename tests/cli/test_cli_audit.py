from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.cli import main


def folder(root: Path, name: str, *, seed: int, copy_from: Path | None = None) -> Path:
    """A user's folder of four different images; the last is a mirrored image of another folder where one is given."""
    scenes = PhantomDataset("dermoscopy", cases=8, size=64, seed=seed)
    for kind in ("images", "masks"):
        (root / name / kind).mkdir(parents=True)
    for number, case in enumerate(scenes.manifest.cases[::2]):
        image, mask = scenes.read_image(case), scenes.read_mask(case)[0]
        if copy_from is not None and number == 3:
            image = np.asarray(Image.open(copy_from / "images" / "n0.png"))[:, ::-1]
        Image.fromarray(image).save(root / name / "images" / f"n{number}.png")
        Image.fromarray(mask * 255).save(root / name / "masks" / f"n{number}.png")
    return root / name


def test_a_clean_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", str(folder(tmp_path, "own", seed=1))]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("4 cases (own 4), ") and out.endswith("s; no rule is broken.\n")
    assert err == ""


def test_a_leak_breaks_a_rule_and_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder(tmp_path, "own", seed=1)
    other = folder(tmp_path, "other", seed=2, copy_from=own)
    page = tmp_path / "new" / "page.html"
    assert main(["data", "audit", str(own), "--unseen", str(other), "--output", str(page)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["severity", "finding", "where", "detail"]
    assert "duplicate, seen and unseen" in lines[1] and "own: n0 (" in lines[1] and "| other: n3 (unseen)" in lines[1]
    assert lines[2] == "Fix for duplicate, seen and unseen: remove it from the seen set or from the unseen one."
    assert lines[3].endswith("; broken rules: 1.") and lines[4] == f"Written: {page}"
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 2


def test_empty_masks_can_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder(tmp_path, "own", seed=1)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(own / "masks" / "n2.png")
    assert main(["data", "audit", str(own)]) == 1
    assert "empty mask" in capsys.readouterr().out
    assert main(["data", "audit", str(own), "--allow_empty"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("note"))
    assert row.split(maxsplit=1)[1].startswith("empty mask  own") and "1, as n2: no foreground" in row


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{own}", "--output", "page.png"], "--output must end in .html"),
        (["{own}", "--unseen", "{own}"], "own: named twice"),
        (["bussi", "--data_root", "nowhere"], "did you mean 'busi'?"),
    ],
)
def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    own = folder(tmp_path, "own", seed=1)
    assert main(["data", "audit", *(word.format(own=own) for word in words)]) == 2
    assert message in capsys.readouterr().err
