from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from madgnet_bench.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "runs"


@pytest.fixture(scope="module")
def one_block(tmp_path_factory):
    """Some golden runs that share their training sets, and a damaged and an unfinished one beside them."""
    root = tmp_path_factory.mktemp("runs")
    results = {path.parent: json.loads(path.read_text()) for path in sorted(GOLDEN.rglob("result.json"))}
    sets = min(result["training_sets"] for result in results.values())
    for folder, result in results.items():
        if result["training_sets"] == sets:
            shutil.copytree(folder, root / folder.name)
    some = next(root.iterdir())
    shutil.copytree(some, root / "damaged")
    (root / "damaged" / "result.json").write_text("{")
    shutil.copytree(some, root / "unfinished")
    (root / "unfinished" / "result.json").unlink()
    return root


def test_a_report_is_written_and_says_where_and_what_is_left_out(one_block, tmp_path, capsys):
    assert main(["report", str(one_block), "--output", str(tmp_path / "out"), "--measure", "mae"]) == 0
    told = capsys.readouterr()
    assert f"{tmp_path / 'out' / 'index.html'}" in told.out and "MB" in told.out
    assert "unfinished" in told.out and "damaged" in told.out and told.err == ""
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "MAE in percent" in page and "DSC in percent" in page
    assert page.index("MAE in percent") < page.index("DSC in percent")
    assert page.count("damaged and not in the tables") == 1
    assert not {"http://", "https://"} & {word[: word.find("//") + 2] for word in page.split('"') if word.startswith("http")}
    endings = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert endings == {".html", ".svg", ".png", ".csv", ".md", ".tex", ".json"}


def test_a_report_replaces_an_earlier_one_and_nothing_else(one_block, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "b9-gap.svg").write_text("old")
    assert main(["report", str(one_block), "--output", str(out)]) == 2
    assert "holds something else than a report" in capsys.readouterr().err
    assert (out / "figures" / "b9-gap.svg").read_text() == "old"
    (out / "index.html").write_text('<meta name="generator" content="madgnet-bench 0.0.1">')
    (out / "mine.txt").write_text("mine")
    assert main(["report", str(one_block), "--output", str(out)]) == 0
    assert not (out / "figures" / "b9-gap.svg").exists()
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder"),
        ([str(GOLDEN), "--protocol", "pranet"], "no run holds protocol pranet"),
        ([str(GOLDEN), "--measure", "hd95"], "no measure hd95"),
    ],
)
def test_bad_input_is_named(arguments, message, tmp_path, capsys):
    assert main(["report", *arguments, "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_folder_without_a_finished_run_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "no finished run" in capsys.readouterr().err


def test_an_interrupted_report_is_written_again(one_block, tmp_path, monkeypatch, capsys):
    output = tmp_path / "report"
    with monkeypatch.context() as patched:
        patched.setattr("madgnet_bench.bench.report.page._render", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(["report", str(one_block), "--output", str(output)])
    assert "not complete" in (output / "index.html").read_text() and (output / "figures").is_dir()
    assert main(["report", str(one_block), "--output", str(output)]) == 0, capsys.readouterr().err
    assert "not complete" not in (output / "index.html").read_text()


def test_the_output_may_not_be_a_file(one_block, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert main(["report", str(one_block), "--output", str(tmp_path / "out")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_neither_torch_nor_matplotlib_is_imported_before_they_are_needed():
    code = (
        "import sys; from madgnet_bench.cli import report; "
        "assert not {'torch', 'lightning', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "import madgnet_bench.bench.report; assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
