"""The committed results print exactly the committed tables.

Regenerate with, for each folder NAME of results/real: madgnet-bench leaderboard results/real/NAME --measure all
--csv results/real/NAME/leaderboard.csv --markdown results/real/NAME/leaderboard.md
"""

from pathlib import Path

import pytest

from madgnet_bench.bench.compare import compare
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.suite import Suite
from madgnet_bench.cli import main
from madgnet_bench.records import RunFolder, find_runs, summarize

RESULTS = Path(__file__).parents[1] / "results"
REAL = RESULTS / "real"
SUITES = sorted({run.path.parent for run in find_runs(REAL)})


def test_there_are_results():
    assert [suite.relative_to(RESULTS).as_posix() for suite in SUITES] == ["real/nuclei", "real/real_subsets"]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_leaderboard_is_what_the_runs_say(suite, tmp_path):
    csv, markdown = tmp_path / "leaderboard.csv", tmp_path / "leaderboard.md"
    assert main(["leaderboard", str(suite), "--measure", "all", "--csv", str(csv), "--markdown", str(markdown)]) == 0
    assert csv.read_text() == (suite / "leaderboard.csv").read_text()
    assert markdown.read_text() == (suite / "leaderboard.md").read_text()


@pytest.mark.parametrize("run", find_runs(RESULTS), ids=lambda run: run.path.name)
def test_every_summary_is_that_of_its_cases(run):
    result, cells = run.read_result(), summarize(run.read_cases())
    for written, cell in zip(result["cells"], cells, strict=True):  # which also holds measures that are no means over cases
        assert {name: written["measures"][name] for name in cell["measures"]} == pytest.approx(cell["measures"], rel=1e-7)


def test_no_image_is_committed():
    files = [path for path in RESULTS.rglob("*") if path.is_file()]
    plots = [path for path in files if path.suffix == ".png"]
    assert {path.suffix for path in files} <= {".md", ".csv", ".json", ".yaml", ".png"}
    assert all(path.name.startswith("curves_") and path.stat().st_size < 200_000 for path in plots)


def test_the_regression_baseline_holds_what_the_gate_needs():
    baseline = load_runs([RESULTS / "regression"])
    assert not baseline.damaged and not baseline.unfinished
    seeds = {}
    for run in baseline.runs:
        seeds.setdefault((run.network, run.training_sets, run.recipe), set()).add(run.seed)
    assert set(map(frozenset, seeds.values())) == {frozenset(range(10))}
    jobs = Suite.read(RESULTS.parent / "benchmarks/smoke.yaml").jobs()
    assert len(seeds) == len({job.name.rpartition("/")[0] for job in jobs})  # one recipe per cell of the suite


def test_one_seed_of_the_baseline_fails_against_the_nine_others_as_its_readme_says():
    runs = load_runs([RESULTS / "regression"]).runs
    sides = {seed: ([run for run in runs if run.seed != seed], [run for run in runs if run.seed == seed]) for seed in range(10)}
    assert [seed for seed, (others, one) in sides.items() if compare(others, one).failed] == [6]


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
