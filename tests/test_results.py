"""The committed results print exactly the committed tables.

Regenerate with: madgnet-bench leaderboard results/real/nuclei --measure all --csv results/real/nuclei/leaderboard.csv
--markdown results/real/nuclei/leaderboard.md
"""

from pathlib import Path

import pytest

from madgnet_bench.cli import main
from madgnet_bench.records import RunFolder, find_runs, summarize

RESULTS = Path(__file__).parents[1] / "results"
SUITES = sorted({run.path.parent for run in find_runs(RESULTS)})


def test_there_are_results():
    assert [suite.relative_to(RESULTS).as_posix() for suite in SUITES] == ["real/nuclei"]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_leaderboard_is_what_the_runs_say(suite, tmp_path):
    csv, markdown = tmp_path / "leaderboard.csv", tmp_path / "leaderboard.md"
    assert main(["leaderboard", str(suite), "--measure", "all", "--csv", str(csv), "--markdown", str(markdown)]) == 0
    assert csv.read_text() == (suite / "leaderboard.csv").read_text()
    assert markdown.read_text() == (suite / "leaderboard.md").read_text()


@pytest.mark.parametrize("run", find_runs(RESULTS), ids=lambda run: run.path.name)
def test_every_summary_is_that_of_its_cases(run):
    result, cells = run.read_result(), summarize(run.read_cases())
    assert [cell["measures"] for cell in result["cells"]] == [pytest.approx(cell["measures"], rel=1e-7) for cell in cells]


def test_no_image_is_committed():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    plots = [path for path in files if path.suffix == ".png"]
    assert {path.suffix for path in files} <= {".md", ".csv", ".json", ".yaml", ".png"}
    assert all(path.name.startswith("curves_") and path.stat().st_size < 200_000 for path in plots)


def test_the_readme_names_every_folder():
    folders = {path.name for path in RESULTS.iterdir() if path.is_dir()}
    assert "published" in folders
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert [name for name in sorted(folders) if f"`{name}/`" not in text] == []


def test_every_term_of_the_multi_task_training_falls():
    history = RunFolder(RESULTS / "real/nuclei/5f64b1883eab").read_history()
    terms = [name for name in history[0] if name.startswith("train/")]
    assert len(terms) == 1 + 4 * 4
    assert all(history[-1][name] < 0.8 * history[0][name] for name in terms)
