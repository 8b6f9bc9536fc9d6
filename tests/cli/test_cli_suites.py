"""`run` and `status`: the table on stand-ins for `fit`, kills and resumes on real trainings of 32 pixels."""

import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from fake_jobs import FAKE, fake_plan, starts, wait_for

from madgnet_bench.bench.ledger import JobFolder
from madgnet_bench.bench.plan import PlanErrors, read_plan
from madgnet_bench.bench.runner import Runner
from madgnet_bench.cli import main, suites

SUITE = """
configs: [tiny.yaml]
networks: {unet: {}}
training_sets: {phantoms: {}}
seeds: [0, 1]
"""

CONFIG = """
protocol: madgnet[size=32]
run: {predictions: none}
trainer: {max_epochs: 6, accelerator: cpu}
model:
  class_path: SupervisedTask
  init_args:
    network: {class_path: UNet, init_args: {widths: [8, 16]}}
    loss: {class_path: DiceBCELoss}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.02}}
    schedule: {class_path: Cosine}
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 40}}
    unseen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 5, shift: 0.5, seed: 1}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 2}}
    augmentation: {class_path: FlipRotate}
"""

FAKE_RUN = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_jobs import FAKE, fake_plan
from madgnet_bench.cli import main, suites
plan = fake_plan(Path(sys.argv[2]), {"a": "", "b": "hang"}, epochs=3)
suites.Suite.read, suites.make_plan = (lambda path, seeds=None: None), (lambda *_, **__: plan)
suites.Runner = partial(suites.Runner, fit=FAKE)
sys.exit(main(["run", "any.yaml", "--slots", "2", "--root", sys.argv[2]]))
"""
"""`run` on stand-ins, in a process of its own: the folder of the tests and the root."""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """`run` and `status` with stand-ins for planner and fit."""

    def make(jobs, **options):
        plan = fake_plan(tmp_path, jobs, **options)
        monkeypatch.setattr(suites.Suite, "read", lambda path, seeds=None: None)
        monkeypatch.setattr(suites, "make_plan", lambda *_, **__: plan)
        monkeypatch.setattr(suites, "read_plan", lambda *_: plan)
        monkeypatch.setattr(suites, "Runner", partial(Runner, fit=FAKE))
        (plan.folder / ".jobs").mkdir(parents=True)
        (plan.folder / ".jobs" / "plan.json").touch()
        return plan

    return make


def test_run_prints_lines_then_the_table_and_what_failed(fake, capsys, tmp_path):
    plan = fake({"a": "", "b": "raise"})
    assert main(["run", "any.yaml", "--slots", "1", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"\d\d:\d\d:\d\d  a  started on .*cpu0\n\S+  a  done\n", shown)
    assert "b  failed: exit 1: RuntimeError: the loss is sad" in shown
    assert re.search(r"^a +done +2/2 +60\.00 ", shown, re.MULTILINE)
    assert "2 jobs: 1 done, 1 failed" in shown
    assert f"  {plan.jobs[1].command}\n" in shown
    assert main(["run", "any.yaml", "--slots", "1", "--root", str(tmp_path)]) == 1
    assert [words[0] for words in starts(plan)] == ["a", "b", "b"]


def test_status_names_reason_last_lines_and_command(fake, capsys, tmp_path):
    plan = fake({"a": "raise", "b": ""})
    main(["run", "any.yaml", "--root", str(tmp_path)])
    capsys.readouterr()
    for name in ("suite", str(tmp_path / "suite"), "anywhere/suite.yaml"):
        assert main(["status", name, "--root", str(tmp_path), "--lines", "2"]) == 0
        shown = capsys.readouterr().out
        assert "a: failed: exit 1: RuntimeError: the loss is sad\n" in shown
        assert shown.count("  | ") == 2
        assert "  | RuntimeError: the loss is sad\n" in shown
        assert f"  {plan.jobs[0].command}\n" in shown


def test_status_of_an_unknown_suite_names_the_known_ones(fake, capsys, tmp_path):
    fake({"a": ""})
    assert main(["status", "sweet", "--root", str(tmp_path)]) == 2
    assert "no plan of a suite 'sweet'" in capsys.readouterr().err
    assert main(["status", "sweet", "--root", str(tmp_path / "none")]) == 2
    assert "`madgnet-bench run sweet` makes one" in capsys.readouterr().err


def test_a_terminal_sees_one_table_redrawn(fake, monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    fake({"a": "", "b": ""}, epochs=60)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(suites, "_REDRAW", 0.1)
    assert main(["run", "any.yaml", "--slots", "1", "--root", str(tmp_path)]) == 0
    shown = terminal.getvalue()
    frames = shown.split("\x1b[5F\x1b[J")
    assert len(frames) > 4
    assert any(re.search(r"^a +running +[1-9]\d?/60 .* s\n^b +waiting +0/60 +- +- +-$", f, re.MULTILINE) for f in frames)
    assert any("about" in frame and "left, until" in frame for frame in frames)
    assert "started" not in shown


def test_many_jobs_are_cut_to_the_height_of_the_terminal(fake, monkeypatch, capsys, tmp_path):
    plan = fake({f"job{i}": "" for i in range(50)})
    monkeypatch.setattr(suites.shutil, "get_terminal_size", lambda: os.terminal_size((40, 12)))
    live = suites._Live(plan)
    live.tick()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 12
    assert max(map(len, lines)) < 40
    assert lines[-1] == "50 jobs: 50 waiting"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_jobs_and_says_how_to_go_on(tmp_path, number):
    words = [sys.executable, "-c", FAKE_RUN, str(Path(__file__).parents[1]), str(tmp_path)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    plan = fake_plan(tmp_path, {"a": "", "b": "hang"})
    folders = [JobFolder(plan.job_path(job)) for job in plan.jobs]
    wait_for(lambda: plan.run_folder(plan.jobs[0]).state == "done" and len(plan.run_folder(plan.jobs[1]).read_history()) == 3)
    child.send_signal(number)
    shown, _ = child.communicate(timeout=120)
    assert child.returncode == 1
    assert f"Stopped. `madgnet-bench run any.yaml --slots 2 --root {tmp_path}` goes on from here." in shown
    assert "b: interrupted: its runner was stopped" in shown
    assert not any(folder.running for folder in folders)


def test_problems_of_a_plan_are_shown_and_nothing_starts(fake, monkeypatch, capsys, tmp_path):
    plan = fake({"a": ""})

    def refuse(*_, **__):
        raise PlanErrors(Path("any.yaml"), 2, {"a": "unknown key 'x'", "b": "unknown class 'Y'"})

    monkeypatch.setattr(suites, "make_plan", refuse)
    assert main(["run", "any.yaml", "--root", str(tmp_path)]) == 2
    shown = capsys.readouterr().err
    assert "2 of 2 jobs cannot run; nothing was started" in shown
    assert "unknown key 'x'" in shown and "unknown class 'Y'" in shown
    assert not starts(plan)


@pytest.mark.parametrize("words", [["--slots", "0"], ["--retries", "-1"], ["--time-limit", "9"], ["--time-limit", "0s"]])
def test_wrong_options_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(["run", "any.yaml", *words])
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launcher", "slurm", "--slurm", "tiem=3"], "unknown key 'tiem'; did you mean 'time'?"),
        (["--slurm", "time=3"], "--slurm goes with --launcher slurm"),
    ],
)
def test_wrong_settings_of_a_cluster_are_refused_before_anything_is_planned(words, message, capsys):
    assert main(["run", "any.yaml", *words]) == 2
    assert message in capsys.readouterr().err


def test_without_slurm_nothing_starts(fake, monkeypatch, capsys, tmp_path):
    plan = fake({"a": ""})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", "any.yaml", "--launcher", "slurm", "--root", str(tmp_path)]) == 2
    assert "no SLURM here" in capsys.readouterr().err
    assert not starts(plan)


def test_durations():
    assert [suites._seconds(text) for text in ("90s", "30m", "1.5h", "2d")] == [90, 1800, 5400, 172800]
    assert [suites._duration(seconds) for seconds in (0.2, 99, 100, 7201)] == ["0 s", "99 s", "2 min", "2 h 00 min"]


def test_status_imports_nothing_heavy():
    heavy = ("torch", "pandas", "numpy", "lightning")
    code = f"import sys, madgnet_bench.cli.suites; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite of two real trainings, planned."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tiny.yaml").write_text(CONFIG)
    (folder / "grid.yaml").write_text(SUITE)
    return folder / "grid.yaml"


@pytest.fixture(scope="module")
def undisturbed(suite, tmp_path_factory):
    """Bytes of the tables of both runs, made without a runner: by run id and name."""
    root = tmp_path_factory.mktemp("undisturbed")
    for seed in "01":
        words = ["--run.suite", "grid", "--run.root", str(root), "--seed_everything", seed]
        assert main(["fit", "--config", str(suite.parent / "tiny.yaml"), *words]) == 0
    return tables(root / "grid")


def tables(folder):
    return {(run.name, f): (run / f).read_bytes() for run in folder.glob("[!.]*") for f in ("cases.csv", "history.csv")}


def start_runner(suite, root, *words):
    command = [sys.executable, "-m", "madgnet_bench", "run", str(suite), "--root", str(root), "--slots", "2", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def attempts(plan, index):
    return JobFolder(plan.job_path(plan.jobs[index])).attempts()


def epochs(plan, index):
    return len(plan.run_folder(plan.jobs[index]).read_history())


def kill(plan, index):
    os.kill(int(attempts(plan, index)[-1].where.split(":")[1].split()[0]), signal.SIGKILL)


def test_kills_of_jobs_and_runner_leave_no_trace_in_the_tables(suite, undisturbed, tmp_path, capsys):
    assert main(["run", str(suite), "--root", str(tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^unet/phantoms/1 +waiting +[0-9a-f]{12}$", shown, re.MULTILINE)
    assert shown.count("\nmadgnet-bench fit --config ") == 2
    plan = read_plan(tmp_path / "grid")
    assert {job.run_id for job in plan.jobs} == {name for name, _ in undisturbed}
    runner = start_runner(suite, tmp_path, "--retries", "1")
    wait_for(lambda: epochs(plan, 0) >= 2)
    kill(plan, 0)
    wait_for(lambda: len(attempts(plan, 0)) == 2 and epochs(plan, 1) >= 2)
    runner.kill()
    runner.wait()
    assert main(["status", "grid", "--root", str(tmp_path)]) == 0
    assert "running (2)" in capsys.readouterr().out
    assert main(["run", str(suite), "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 jobs: 2 done" in shown
    assert "Trained on phantom_fundus" in shown
    assert "unseen mean" in shown
    assert [one.outcome for one in attempts(plan, 0)] == ["failed", "done"]  # the second outlived its runner
    assert attempts(plan, 0)[1].epochs_before >= 2
    assert tables(tmp_path / "grid") == undisturbed


@pytest.mark.slow
def test_twenty_disturbances_leave_no_trace_in_the_tables(suite, undisturbed, tmp_path):
    chance = random.Random(int(os.environ.get("KILL_SEED", "0")))
    for _ in range(20):
        runner = start_runner(suite, tmp_path)
        time.sleep(chance.uniform(0.5, 14))
        what = chance.choice(["runner", "job", "both", "stop"])
        if what in ("runner", "both"):
            runner.kill()
        if what in ("job", "both") and (tmp_path / "grid" / ".jobs" / "plan.json").exists():
            plan = read_plan(tmp_path / "grid")
            for index in range(2):
                if JobFolder(plan.job_path(plan.jobs[index])).running and attempts(plan, index):
                    kill(plan, index)
        if what == "stop":
            runner.send_signal(signal.SIGINT)
        if what != "job":
            runner.wait()
        else:
            runner.kill()
            runner.wait()
        if (tmp_path / "grid").exists() and chance.random() < 0.3:  # else nothing is left to disturb
            for result in (tmp_path / "grid").glob("*/result.json"):
                result.unlink()
    assert start_runner(suite, tmp_path, "--retries", "2").wait() == 0
    assert tables(tmp_path / "grid") == undisturbed
