"""Plans with a stand-in for the planner; the real one is in tests/cli/test_cli_planning.py."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from madgnet_bench.bench.plan import PlanErrors, make_plan, read_plan
from madgnet_bench.bench.suite import Suite
from madgnet_bench.errors import RunError

PLANNER = """
import json, os, sys
folder, asked, answered = sys.argv[1:]
question = json.load(open(asked))
with open(os.path.join(folder, "asked.txt"), "a") as stream:
    stream.write("x")
jobs, read = [], {}
for name, key, words in question["jobs"]:
    problem = [word for word in words if word.startswith("bad")]
    run = "same" if "same" in words else "run_" + key
    jobs.append({"problem": problem[0] + "\\nsecond line"} if problem else
                {"run_id": run, "epochs": 3, "devices": 1, "accelerator": "cpu"})
for path in [os.path.join(folder, "data"), os.path.join(folder, "config.yaml"), os.path.join(folder, "absent")]:
    found = os.stat(path) if os.path.exists(path) else None
    read[path] = None if found is None else [found.st_mtime_ns, found.st_size]
json.dump({"jobs": jobs, "read": read}, open(answered, "w"))
"""

SUITE = """
networks:
  a: config.yaml
  b: {configs: [config.yaml], set: {x: B}}
training_sets: {t: config.yaml}
seeds: [0, 1]
"""


@pytest.fixture
def planner(tmp_path):
    script = tmp_path / "planner.py"
    script.write_text(PLANNER)
    (tmp_path / "config.yaml").write_text("trainer: {}\n")
    (tmp_path / "data").mkdir()
    return (sys.executable, "-S", "-E", str(script), str(tmp_path))


def plan(tmp_path, planner, suite=SUITE, **options):
    path = tmp_path / "tiny.yaml"
    path.write_text(suite)
    return make_plan(Suite.read(path), tmp_path / "runs", planner=planner, **options)


def asked(tmp_path):
    return len((tmp_path / "asked.txt").read_text())


def test_every_job_knows_its_run_folder_and_its_command(tmp_path, planner):
    made = plan(tmp_path, planner)
    assert [job.name for job in made.jobs] == ["a/t/0", "a/t/1", "b/t/0", "b/t/1"]
    job = made.jobs[2]
    assert made.run_folder(job).path == tmp_path / "runs" / "tiny" / f"run_{job.key}"
    assert job.command.startswith("madgnet-bench fit --config ")
    assert job.command.endswith(f"--x B --seed_everything 0 --run.suite tiny --run.root {tmp_path / 'runs'}")
    assert read_plan(tmp_path / "runs" / "tiny") == made


def test_the_default_root_is_not_repeated_in_commands(tmp_path, planner, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SUITE)
    made = make_plan(Suite.read("tiny.yaml"), Path("runs"), planner=planner)
    assert all("--run.root" not in job.arguments for job in made.jobs)


@pytest.mark.parametrize("change", ["suite", "config", "data", "absent", "environment", "folder", "plan", "nothing"])
def test_a_plan_is_made_again_when_something_it_depends_on_has_changed(tmp_path, planner, monkeypatch, change):
    first = plan(tmp_path, planner)
    suite = SUITE
    time.sleep(0.01)
    if change == "suite":
        suite = SUITE.replace("x: B", "x: C")
    elif change == "config":
        (tmp_path / "config.yaml").write_text("trainer: {a: 1}\n")
    elif change == "data":
        (tmp_path / "data" / "new.png").touch()
    elif change == "absent":
        (tmp_path / "absent").touch()
    elif change == "environment":
        monkeypatch.setenv("MADGNET_BENCH_DATA", "/elsewhere")
    elif change == "folder":
        monkeypatch.chdir(tmp_path)
    elif change == "plan":
        (first.folder / ".jobs" / "plan.json").write_text("{")
    again = plan(tmp_path, planner, suite)
    assert asked(tmp_path) == (1 if change == "nothing" else 2)
    assert [job.run_id for job in again.jobs][:2] == [job.run_id for job in first.jobs][:2]


def test_all_problems_are_shown_together_and_nothing_is_written(tmp_path, planner):
    suite = SUITE.replace("x: B", "x: bad1").replace("a: config.yaml", "a: {configs: [config.yaml], set: {y: bad2}}")
    suite += "sweep: {s: {one: {}, two: {set: {z: 1}}}}\nexclude: [{network: b, s: two}]\n"
    suite = suite.replace("networks:", "networks:\n  fine: config.yaml")
    with pytest.raises(PlanErrors) as caught:
        plan(tmp_path, planner, suite)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("tiny.yaml: 6 of 10 jobs cannot run; nothing was started.")
    assert lines[1:5] == [
        "  job        problem",
        "  a/t/one/0  bad2",
        "             second line",
        "             likewise a/t/one/1, a/t/two/0, a/t/two/1",
    ]
    assert len(caught.value.problems) == 6
    assert "fine" not in str(caught.value)
    assert lines[5:] == ["  b/t/one/0  bad1", "             second line", "             likewise b/t/one/1"]
    assert not (tmp_path / "runs").exists()


def test_two_jobs_of_one_run_are_a_problem(tmp_path, planner):
    with pytest.raises(PlanErrors, match=r"b/t/1 +resolves to the same experiment as b/t/0; remove one"):
        plan(tmp_path, planner, SUITE.replace("x: B", "x: same"))


def test_a_planner_that_fails_is_quoted(tmp_path):
    (tmp_path / "config.yaml").touch()
    broken = (sys.executable, "-c", "raise RuntimeError('no torch here')")
    with pytest.raises(RunError, match=r"(?s)could not be planned: the planner ended with 1.*no torch here"):
        plan(tmp_path, broken)


def test_a_folder_without_a_plan_says_how_to_make_one(tmp_path):
    with pytest.raises(RunError, match=r"no plan of a suite; `madgnet-bench run SUITE\.yaml` makes one"):
        read_plan(tmp_path)


def test_a_plan_of_a_newer_schema_is_made_again(tmp_path, planner):
    made = plan(tmp_path, planner)
    path = made.folder / ".jobs" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    assert plan(tmp_path, planner) == made
    assert asked(tmp_path) == 2
    assert os.path.getsize(path) > 100


def test_a_dry_run_leaves_the_stored_plan(tmp_path, planner):
    first = plan(tmp_path, planner, keep=False)  # there was none
    other = plan(tmp_path, planner, SUITE.replace("[0, 1]", "[7]"), keep=False)
    assert len(other.jobs) == 2 != len(first.jobs)
    assert read_plan(tmp_path / "runs" / first.suite).jobs == first.jobs
