"""The slurm launcher: on a cluster of one node where there is one to be had, and on stand-ins for its commands."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.one_node_slurm import Missing, one_node
from fake_jobs import FAKE, fake_plan, starts, wait_for

from madgnet_bench.bench.launch import LocalLauncher, Slot, Task
from madgnet_bench.bench.launch_slurm import SlurmLauncher, SlurmOptions, SlurmTask, node_environment
from madgnet_bench.bench.ledger import Attempt, JobFolder, state_of
from madgnet_bench.bench.locks import unlock
from madgnet_bench.bench.plan import read_plan
from madgnet_bench.bench.runner import Policy, Runner
from madgnet_bench.bench.status import read_status
from madgnet_bench.errors import ConfigError, RunError

TESTS = Path(__file__).parents[1]

OTHER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from fake_jobs import FAKE
from test_launch_slurm import gpu_plan, runner
runner(gpu_plan(Path(sys.argv[3]), dict(word.split("=") for word in sys.argv[4:]))).run()
"""
"""A runner in a process of its own: the folder of the tests, that of this file, the root, and jobs."""

SUITE = """
set: {trainer.max_epochs: 1, trainer.accelerator: cpu, run.predictions: none}
networks: {unet: CONFIG}
training_sets: {phantoms: {}}
seeds: [0, 1]
overrides: [{where: {seed: 1}, set: {trainer.devices: 2, trainer.strategy: ddp}}]
"""


@pytest.fixture(scope="module")
def cluster():
    """The environment of a cluster with two GPUs and four cores."""
    try:
        with one_node() as environment, pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            yield environment
    except Missing as reason:
        pytest.skip(str(reason))


def gpu_plan(root, names, *, how="", epochs=2):
    plan = fake_plan(root, dict.fromkeys(names, how) if isinstance(names, str) else names, epochs=epochs)
    return replace(plan, jobs=tuple(replace(job, accelerator="gpu") for job in plan.jobs))


def runner(plan, *, options=(), **settings):
    asked = SlurmOptions.read(["cpus=1", "time=10", *options])
    launcher = SlurmLauncher(asked, plan.folder / ".jobs" / "slurm", interval=0.25)
    return Runner(plan, launcher, fit=FAKE, **settings)


def folder(plan, name):
    return JobFolder(plan.folder / ".jobs" / f"key_{name}")


def last(plan, name):
    return folder(plan, name).attempts()[-1]


def number(plan, name):
    return last(plan, name).where.removeprefix("slurm:").split()[0]


def states(plan):
    return {job.name: state_of(plan.run_folder(job), JobFolder(plan.job_path(job))) for job in plan.jobs}


def names(plan):
    return [words[0] for words in starts(plan)]


def squeue():
    words = ["squeue", "--noheader", "--array", "--format=%i %T"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def ranks(word):
    """Job of the cluster and rank of the running processes of `fit` with this word in their command."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = process.joinpath("cmdline").read_text()
            variables = dict(line.split("=", 1) for line in process.joinpath("environ").read_text().split("\0") if "=" in line)
        except (OSError, UnicodeDecodeError):
            continue
        if "\0fit\0" in command and word in command:
            found.add((variables.get("SLURM_JOB_ID"), variables.get("LOCAL_RANK")))
    return found


def in_background(run):
    thread = threading.Thread(target=run.run, daemon=True)
    thread.start()
    return thread


@pytest.mark.slurm
def test_jobs_are_one_array_with_gpus_of_their_own_and_the_third_waits(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "abc", epochs=60)
    seen, told = [], []

    def look():
        rows = {row.job.name: row for row in read_status(plan)}
        seen.append({name: row.state for name, row in rows.items()})
        if rows["c"].state == "queued":
            assert (rows["c"].seconds, rows["c"].left) == (0, None)

    run = runner(plan, tick=look, tell=lambda job, event: told.append(f"{job.name} {event}"))
    assert run.run() == dict.fromkeys("abc", "done")
    (first, gpu, threads, at), (second, other, _, _), (third, _, _, later) = starts(plan)
    assert ({first, second}, third, {gpu, other}, threads) == ({"a", "b"}, "c", {"0", "1"}, "1")
    assert float(later) > float(at) + 60 * 0.02
    assert len({number(plan, name).split("_")[0] for name in "abc"}) == 1
    assert {"a": "running", "b": "running", "c": "queued"} in seen
    assert told[0] == f"a queued on slurm:{number(plan, 'a')}"
    assert f"c started on {last(plan, 'c').where}" in told
    assert last(plan, "c").started > float(at)
    assert folder(plan, "a").tail().startswith(f"slurm: job {number(plan, 'a')} begins on ")


@pytest.mark.slurm
def test_what_fails_costs_only_itself_and_says_why(cluster, tmp_path):
    plan = gpu_plan(tmp_path, {"a": "raise", "b": "flaky", "c": ""}, epochs=2)
    ended = runner(plan, policy=Policy(retries=1)).run()
    assert ended == {"a": "failed", "b": "failed", "c": "done"}
    assert [one.reason for one in folder(plan, "a").attempts()] == ["exit 1: RuntimeError: the loss is sad"] * 2
    assert last(plan, "b").reason.startswith("killed by SIGKILL")
    assert runner(plan).run()["b"] == "done"
    assert [one.epochs_before for one in folder(plan, "b").attempts()] == [0, 1, 2]
    assert names(plan).count("c") == 1


@pytest.mark.slurm
def test_what_others_cancel_and_what_runs_too_long_is_told_apart(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "abc", how="hang")
    run = in_background(runner(plan, policy=Policy(time_limit=6)))
    wait_for(lambda: sorted(names(plan)) == ["a", "b"])
    assert states(plan)["c"] == "queued"
    subprocess.run(["scancel", number(plan, "c"), number(plan, "a")], check=True)
    run.join()
    assert states(plan) == dict.fromkeys("abc", "failed")
    assert last(plan, "a").reason == f"slurm: CANCELLED, job {last(plan, 'a').where.removeprefix('slurm:')}"
    assert last(plan, "c").reason == f"slurm: CANCELLED, job {number(plan, 'c')}"
    assert last(plan, "b").reason == "took longer than the time limit of 6 s"
    assert sorted(names(plan)) == ["a", "b"]


@pytest.mark.slurm
def test_stopping_empties_the_queue_and_running_again_goes_on(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "abc", epochs=200)
    stopped = runner(plan)
    run = in_background(stopped)
    wait_for(lambda: sum(len(plan.run_folder(job).read_history()) > 0 for job in plan.jobs) == 2)
    stopped.stop()
    run.join()
    assert states(plan) == {"a": "interrupted", "b": "interrupted", "c": "interrupted"}
    assert squeue() == []
    assert {last(plan, name).outcome for name in "abc"} == {"stopped"}
    assert set(runner(replace(plan, jobs=plan.jobs[:1])).run().values()) == {"done"}
    assert last(plan, "a").epochs_before > 0


@pytest.mark.slurm
def test_a_killed_runner_leaves_jobs_that_the_next_one_takes_over(cluster, tmp_path):
    jobs = {"a": "gate", "b": "gate", "c": "gate", "d": ""}
    words = [sys.executable, "-c", OTHER, str(TESTS), str(TESTS / "bench"), str(tmp_path)]
    first = subprocess.Popen([*words, *(f"{name}={how}" for name, how in jobs.items())])
    plan = gpu_plan(tmp_path, jobs)
    wait_for(lambda: sorted(states(plan).values()) == ["queued", "queued", "running", "running"])
    where = {name: number(plan, name) for name in "abcd"}
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert sorted(states(plan).values()) == ["queued", "queued", "running", "running"]  # from files alone
    local = LocalLauncher([Slot("cpu0", None, 1)], tmp_path / ".slots")
    assert Runner(replace(plan, jobs=plan.jobs[3:]), local, fit=FAKE).run() == {"d": "done"}
    assert f"{where['d']} PENDING" in squeue()
    told = []

    def tell(job, event):
        told.append(f"{job.name} {event}".split(" on ")[0])
        if len(told) == 3:  # all are taken over, and may end
            (plan.folder / "open").touch()

    assert set(runner(plan, tell=tell).run().values()) == {"done"}
    wait_for(lambda: not squeue())
    assert told[:3] == [f"{name} taken over from an earlier runner: slurm:{where[name]}" for name in "abc"]
    assert sorted(names(plan)) == list("abcd")  # d begins in the queue, too, and sees that it need not
    assert [one.outcome for one in folder(plan, "d").attempts()] == ["lost", "done"]
    assert {name: number(plan, name) for name in "abc"} == {name: where[name] for name in "abc"}


@pytest.mark.slurm
def test_the_notice_before_the_time_limit_puts_a_job_in_the_queue_again(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "a", epochs=150)
    run = in_background(runner(plan))
    wait_for(lambda: len(plan.run_folder(plan.jobs[0]).read_history()) > 5)
    subprocess.run(["scancel", "--signal=USR2", number(plan, "a")], check=True)
    wait_for(lambda: squeue() == [f"{number(plan, 'a')} PENDING"])
    assert states(plan)["a"] == "queued"
    time.sleep(6)  # SLURM waits for two minutes here, and has heard by then how the first script ended
    subprocess.run(["scontrol", "update", f"JobId={number(plan, 'a')}", "StartTime=now"], check=True)
    run.join()
    assert [(one.outcome, one.reason) for one in folder(plan, "a").attempts()] == [("done", "")], folder(plan, "a").tail()
    assert names(plan) == ["a", "a"]
    began = [int(epoch) for epoch in re.findall(r"a starts at epoch (\d+)", folder(plan, "a").tail())]
    assert began[0] == 0 < 5 < began[1] < 150


@pytest.mark.slurm
def test_what_the_cluster_refuses_stops_before_anything_is_recorded(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "a")
    with pytest.raises(RunError, match=r"(?s)sbatch refuses jobs on 1 GPU .*invalid partition"):
        runner(plan, options=["partition=nowhere"]).run()
    assert folder(plan, "a").attempts() == []
    assert not folder(plan, "a").running
    with pytest.raises(RunError, match="node configuration is not available"):
        runner(gpu_plan(tmp_path, "a"), options=["gpu=a100"]).run()


@pytest.mark.slurm
def test_a_job_whose_setup_fails_shows_what_was_printed(cluster, tmp_path):
    plan = gpu_plan(tmp_path, "a")
    run = runner(plan, options=["setup=echo no such module >&2; exit 3", "setup=echo not reached"])
    assert run.run() == {"a": "failed"}
    assert "no such module" in folder(plan, "a").tail()
    assert last(plan, "a").reason.startswith("slurm: FAILED, job ")


@pytest.mark.slurm
@pytest.mark.slow
def test_real_trainings_on_one_and_two_processes(cluster, tmp_path):
    suite = tmp_path / "short.yaml"
    suite.write_text(SUITE.replace("CONFIG", str(TESTS.parent / "configs" / "demo" / "unet.yaml")))
    words = ["run", str(suite), "--root", str(tmp_path), "--launcher", "slurm", "--slurm", "cpus=1", "time=10"]
    command = [sys.executable, "-m", "madgnet_bench", *words]
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while run.poll() is None:
            seen |= ranks(str(tmp_path))
            time.sleep(0.3)
        shown = run.stdout.read()
    assert run.returncode == 0, shown
    assert "2 jobs: 2 done" in shown and "unseen mean" in shown
    plan = read_plan(tmp_path / "short")
    assert [job.devices for job in plan.jobs] == [1, 2]
    alone, both = (JobFolder(plan.job_path(job)).attempts()[-1].where.removeprefix("slurm:").split()[0] for job in plan.jobs)
    assert {(alone, None), (both, None), (both, "1")} <= seen  # Lightning started the second process itself
    assert (alone, "1") not in seen


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Stand-ins for the commands of SLURM, which print what is in a file, or fail where there is none."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol", "sacct"):
        path = programs / name
        path.write_text(f"#!/bin/sh\necho $0 $* >> {programs}/calls.txt\ncat {programs}/{name}.out\n")
        path.chmod(0o755)
    (programs / "scancel.out").touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


def adopted(commands, folder, *, job="7_0", result=None):
    """A launcher with a job that runs, and what it left behind at its end."""
    from submitit.core.utils import DelayedSubmission, JobPaths, cloudpickle_dump

    (folder / "slurm").mkdir()
    paths = JobPaths(folder / "slurm", job_id=job)
    task = SlurmTask(words=("true",), log=folder / "log.txt", record=folder, threads=1)
    DelayedSubmission(task).dump(paths.submitted_pickle)
    (commands / "squeue.out").write_text(f"{job}|RUNNING|1:05|node3\n")
    launcher = SlurmLauncher(SlurmOptions(), folder / "slurm", interval=0)
    handle = launcher.adopt(f"slurm:{job} on node3")
    assert launcher.poll(handle) is None
    if result is not None:
        cloudpickle_dump(result, paths.result_pickle)
    return launcher, handle


def slurm_tasks(folder, devices):
    return [
        Task(words=("true",), log=folder / "log.txt", record=folder, devices=number, gpu=number > 0, lock=-1)
        for number in devices
    ]


def test_jobs_that_need_the_same_are_one_array_and_the_order_stays(commands, tmp_path):
    (commands / "sbatch.out").write_text("Submitted batch job 7\n")
    launcher = SlurmLauncher(SlurmOptions(cpus=3), tmp_path / "slurm")
    started = launcher.submit(slurm_tasks(tmp_path, [1, 1, 2]))
    assert [job.where for job in started] == ["slurm:7_0", "slurm:7_1", "slurm:7"]
    array = (tmp_path / "slurm" / "7_submission.sh").read_text()
    assert "--gres=gpu:2" in array and "--cpus-per-task=6" in array and "--requeue" in array
    assert [Path(line.split()[0]).name for line in (commands / "calls.txt").read_text().splitlines()] == ["sbatch"] * 2


def test_what_the_cluster_took_before_it_refused_is_kept(commands, tmp_path):
    once = f"#!/bin/sh\ntest -e {commands}/again && {{ echo QOSMaxSubmitJob >&2; exit 1; }}\ntouch {commands}/again\n"
    (commands / "sbatch").write_text(f"{once}echo Submitted batch job 7\n")
    launcher = SlurmLauncher(SlurmOptions(), tmp_path / "slurm")
    tasks = slurm_tasks(tmp_path, [1, 2, 2])
    assert [job.where for job in launcher.submit(tasks)] == ["slurm:7"]
    with pytest.raises(RunError, match=r"sbatch refuses jobs on 2 GPU .*QOSMaxSubmitJob"):
        launcher.submit(tasks[1:])


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "CANCELLED", "PREEMPTED"])
def test_how_the_cluster_ended_a_job_is_its_reason(commands, tmp_path, state):
    launcher, handle = adopted(commands, tmp_path)
    assert launcher.running_seconds(handle) == 65
    (commands / "squeue.out").write_text(f"7_0|{state}|1:07|node3\n")
    code = launcher.poll(handle)
    job = JobFolder(tmp_path)
    reason, memory = job.explain(Attempt(started=0, where=handle.where), code)
    assert reason == f"slurm: {state}, job 7_0 on node3"
    assert memory == (state == "OUT_OF_MEMORY")


def test_a_command_killed_for_want_of_memory_is_known_from_the_state(commands, tmp_path):
    launcher, handle = adopted(commands, tmp_path, result=("success", -9))
    (commands / "squeue.out").write_text("7_0|OUT_OF_MEMORY|1:07|node3\n")
    assert launcher.poll(handle) == -9
    assert JobFolder(tmp_path).explain(Attempt(started=0, where=""), -9) == ("slurm: OUT_OF_MEMORY, job 7_0 on node3", True)


def test_a_job_that_the_cluster_forgot_is_known_by_its_result(commands, tmp_path):
    launcher, handle = adopted(commands, tmp_path, result=("success", 3))
    (commands / "squeue.out").write_text("")
    assert launcher.poll(handle) == 3
    assert not (tmp_path / "log.txt").exists()


def test_a_job_of_which_nothing_is_left_has_ended(commands, tmp_path, monkeypatch):
    launcher, handle = adopted(commands, tmp_path)
    (commands / "squeue.out").write_text("")
    assert [launcher.poll(handle) for _ in range(6)] == [None] * 6
    monkeypatch.setattr("madgnet_bench.bench.launch_slurm._LATE", 0.0)
    assert launcher.poll(handle) == 1
    assert JobFolder(tmp_path).tail() == "slurm: UNKNOWN, job 7_0 on node3"


def test_accounts_are_asked_where_there_are_some(commands, tmp_path):
    launcher, handle = adopted(commands, tmp_path)
    (commands / "squeue.out").write_text("")
    (commands / "sacct.out").write_text("CANCELLED by 0\n")
    assert launcher.poll(handle) == 1
    assert "slurm: CANCELLED, job 7_0" in JobFolder(tmp_path).tail()


def test_the_end_of_a_traceback_around_the_command_is_kept(commands, tmp_path):
    error = "Traceback\nsubmitit.UncompletedJobError: Job not requeued because: timed-out too many times.\n"
    launcher, handle = adopted(commands, tmp_path, result=("error", error))
    (commands / "squeue.out").write_text("7_0|COMPLETED|1:07|node3\n")
    assert launcher.poll(handle) == 1
    assert "timed-out too many times" in JobFolder(tmp_path).tail()


def test_a_cluster_that_does_not_answer_ends_no_job_and_starts_none(commands, tmp_path):
    launcher, handle = adopted(commands, tmp_path)
    (commands / "squeue.out").unlink()
    assert [launcher.poll(handle) for _ in range(8)] == [None] * 8
    with pytest.raises(RunError, match=r"does not tell which jobs there are .*nothing was submitted"):
        launcher.adopt("slurm:8")
    assert launcher.adopt("elsewhere:12 cpu0") is None


def test_many_jobs_are_asked_for_and_cancelled_with_one_command(commands, tmp_path):
    (commands / "squeue.out").write_text("".join(f"7_{i}|PENDING|0:00|\n" for i in range(40)))
    launcher = SlurmLauncher(SlurmOptions(), tmp_path, interval=60)
    handles = [launcher.adopt(f"slurm:7_{i}") for i in range(40)]
    for handle in handles:
        launcher.cancel(handle)
    assert [launcher.poll(handle) for handle in handles] == [None] * 40
    calls = (commands / "calls.txt").read_text().splitlines()
    assert [Path(call.split()[0]).name for call in calls] == ["squeue", "scancel"]
    assert len(calls[1].split()) == 41


def test_time_before_a_job_was_put_in_the_queue_again_counts(commands, tmp_path):
    launcher, handle = adopted(commands, tmp_path)
    for row, seconds in (("PENDING|0:00|", 65), ("RUNNING|0:10|node4", 75), ("RUNNING|0:20|node4", 85)):
        (commands / "squeue.out").write_text(f"7_0|{row}\n")
        launcher.poll(handle)
        assert launcher.running_seconds(handle) == seconds
    assert handle.where == "slurm:7_0 on node4"


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="no SLURM here: sbatch is not found"):
        SlurmLauncher(SlurmOptions(), tmp_path)


def test_a_job_runs_only_while_it_is_on_record(tmp_path):
    task = SlurmTask(words=("true",), log=tmp_path / "log.txt", record=tmp_path, threads=1, patience=0)
    job = JobFolder(tmp_path)
    assert not task._is_on_record("slurm:5_0")
    lock = job.claim()
    job.begin("a", "", Attempt(started=time.time(), where="slurm:4_0 on x"))
    assert not task._is_on_record("slurm:5_0")
    job.begin("a", "", Attempt(started=time.time(), where="slurm:5_0"))
    assert task._is_on_record("slurm:5_0")
    assert not task._is_on_record("slurm:4_0")
    job.end("a", "", outcome="stopped")
    assert not task._is_on_record("slurm:5_0")
    unlock(lock)


def test_options():
    words = ["time=30", "mem_gb=8", "cpus=2", "gpu=a100", "setup=module load a=b", "setup=ulimit -n 9", "reservation=r"]
    options = SlurmOptions.read(words)
    assert options.setup == ("module load a=b", "ulimit -n 9")
    asked = options.parameters(2, gpu=True)
    assert (asked["time"], asked["mem"], asked["cpus_per_task"], asked["gres"]) == (30, "16GB", 4, "gpu:a100:2")
    assert asked["additional_parameters"] == {"requeue": True, "reservation": "r"}
    assert "gres" not in options.parameters(2, gpu=False)
    assert "partition" not in asked


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("tiem=3", "unknown key 'tiem'; did you mean 'time'"),
        ("time", "write KEY=VALUE"),
        ("time=", "write KEY=VALUE"),
        ("time=4h", "'4h' is not a whole number of at least 1"),
        ("cpus=0", "not a whole number"),
    ],
)
def test_wrong_options_say_what_is_right(word, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SlurmOptions.read([word])


def test_lightning_does_not_take_the_job_for_one_process_of_many(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "1")
    kept = node_environment(3)
    assert [name for name in kept if name.startswith("SLURM")].count("SLURM_JOB_ID") == 1
    assert not {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"} & set(kept)
