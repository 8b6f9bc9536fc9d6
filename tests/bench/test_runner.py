"""The runner on stand-ins for `fit`; real trainings are in tests/cli/test_cli_suites.py."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_jobs import FAKE, fake_plan, starts, wait_for

from madgnet_bench.bench.launch import LocalLauncher, Slot
from madgnet_bench.bench.ledger import JobFolder
from madgnet_bench.bench.locks import try_lock, unlock
from madgnet_bench.bench.runner import Policy, Runner
from madgnet_bench.errors import RunError

SLOTS = [Slot("cpu0", None, 1), Slot("cpu1", None, 1)]

OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fake_jobs import FAKE, fake_plan
from madgnet_bench.bench.launch import LocalLauncher, Slot
from madgnet_bench.bench.runner import Runner
root = Path(sys.argv[2])
slots = [Slot(f"cpu{i}", None, 1) for i in range(int(sys.argv[4]))]
plan = fake_plan(root, dict(word.split("=") for word in sys.argv[5:]), epochs=int(sys.argv[3]))
states = Runner(plan, LocalLauncher(slots, root / ".slots"), fit=FAKE).run()
sys.exit(0 if set(states.values()) == {"done"} else 1)
"""
"""A runner in a process of its own: the folder of the tests, the root, epochs, slots, and jobs."""


def runner(plan, *, slots=SLOTS, grace=5.0, **options):
    return Runner(plan, LocalLauncher(slots, plan.root / ".slots", grace=grace), fit=FAKE, **options)


def other_runner(root, jobs, *, epochs=2, slots=2):
    words = [f"{name}={how}" for name, how in jobs.items()]
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen([sys.executable, "-c", OTHER, tests, str(root), str(epochs), str(slots), *words])


def folder(plan, name):
    return JobFolder(plan.folder / ".jobs" / f"key_{name}")


def outcomes(plan, name):
    return [one.outcome for one in folder(plan, name).attempts()]


def names(plan):
    return [words[0] for words in starts(plan)]


def pid(plan, name):
    return int(folder(plan, name).attempts()[-1].where.split(":")[1].split()[0])


def test_all_jobs_run_in_order_and_a_second_run_starts_nothing(tmp_path):
    plan = fake_plan(tmp_path, dict.fromkeys("abcd", ""))
    told = []
    states = runner(plan, slots=SLOTS[:1], tell=lambda job, event: told.append((job.name, event.split()[0]))).run()
    assert states == dict.fromkeys("abcd", "done")
    assert names(plan) == list("abcd")
    assert told[:4] == [("a", "started"), ("a", "done"), ("b", "started"), ("b", "done")]
    assert runner(plan).run() == states
    assert names(plan) == list("abcd")


def test_as_many_run_at_once_as_there_are_slots(tmp_path):
    plan = fake_plan(tmp_path, dict.fromkeys("abcdef", ""), epochs=4)
    most = []
    runner(plan, tick=lambda: most.append(sum(folder(plan, name).running for name in "abcdef"))).run()
    assert max(most) == 2


def test_a_job_that_fails_costs_only_itself_and_says_why(tmp_path):
    plan = fake_plan(tmp_path, {"a": "raise", "b": "", "c": "refuse", "d": "nothing"})
    assert runner(plan).run() == {"a": "failed", "b": "done", "c": "failed", "d": "failed"}
    reasons = {name: folder(plan, name).attempts()[-1].reason for name in "acd"}
    assert reasons["a"] == "exit 1: RuntimeError: the loss is sad"
    assert reasons["c"] == "exit 2: madgnet-bench fit: no such folder."
    assert reasons["d"] == "ended without a result in the planned run folder"
    assert runner(plan).run()["a"] == "failed"
    assert names(plan).count("a") == 2
    assert names(plan).count("b") == 1


def test_retries_go_on_where_the_killed_attempt_was(tmp_path):
    plan = fake_plan(tmp_path, {"a": "flaky"}, epochs=3)
    assert runner(plan).run() == {"a": "failed"}
    assert runner(plan, policy=Policy(retries=1)).run() == {"a": "failed"}
    assert outcomes(plan, "a") == ["failed"] * 3
    assert runner(plan, policy=Policy(retries=5)).run() == {"a": "done"}
    attempts = folder(plan, "a").attempts()
    assert [one.epochs_before for one in attempts] == [0, 1, 2, 3]
    assert attempts[0].reason.startswith("killed by SIGKILL")


def test_a_time_limit_ends_a_job_and_its_reason_is_kept(tmp_path):
    plan = fake_plan(tmp_path, {"a": "hang stubborn", "b": ""})
    assert runner(plan, grace=0.1, policy=Policy(time_limit=0.4)).run() == {"a": "failed", "b": "done"}
    (attempt,) = folder(plan, "a").attempts()
    assert attempt.reason == "took longer than the time limit of 0.4 s"
    assert attempt.ended - attempt.started < 3


def test_out_of_memory_cuts_batches_only_when_asked(tmp_path):
    plan = fake_plan(tmp_path, {"a": "memory"})
    assert runner(plan, policy=Policy(retries=1)).run() == {"a": "failed"}
    assert [one.parts for one in folder(plan, "a").attempts()] == [1, 1]
    assert runner(plan, policy=Policy(halve_batch=True)).run() == {"a": "done"}
    assert [one.parts for one in folder(plan, "a").attempts()] == [1, 1, 2, 4]


def test_stopping_ends_the_running_jobs_and_running_again_goes_on(tmp_path):
    plan = fake_plan(tmp_path, {"a": "", "b": "", "c": ""}, epochs=40)
    stopped = runner(plan)
    threading.Timer(0.5, stopped.stop).start()
    states = stopped.run()
    assert states == {"a": "interrupted", "b": "interrupted", "c": "waiting"}
    assert outcomes(plan, "a") == ["stopped"]
    assert set(runner(plan).run().values()) == {"done"}
    before = folder(plan, "a").attempts()[1].epochs_before
    assert 0 < before < 40
    assert f"a starts at epoch {before}" in folder(plan, "a").log_file.read_text()


def test_stopping_twice_kills_who_does_not_end(tmp_path):
    plan = fake_plan(tmp_path, {"a": "hang stubborn"})
    stopped = runner(plan, grace=60)
    for seconds in (0.4, 0.8):
        threading.Timer(seconds, stopped.stop).start()
    assert stopped.run() == {"a": "interrupted"}


def test_two_runners_start_no_job_twice(tmp_path):
    jobs = dict.fromkeys("abcdefgh", "")
    plan = fake_plan(tmp_path, jobs, epochs=4)
    others = [other_runner(tmp_path, jobs, epochs=4) for _ in range(2)]
    assert set(runner(plan).run().values()) == {"done"}
    assert [other.wait() for other in others] == [0, 0]
    assert sorted(names(plan)) == list("abcdefgh")


def test_a_job_that_failed_under_another_runner_meanwhile_is_not_tried_again(tmp_path):
    jobs = {"a": "hang"}
    plan = fake_plan(tmp_path, jobs)
    other = other_runner(tmp_path, jobs)
    wait_for(lambda: outcomes(plan, "a") == [""])
    threading.Timer(0.3, lambda: os.kill(pid(plan, "a"), signal.SIGKILL)).start()
    assert runner(plan).run() == {"a": "failed"}
    assert other.wait() == 1
    assert names(plan) == ["a"]


def test_a_killed_runner_leaves_jobs_that_the_next_one_waits_for(tmp_path):
    jobs = {"a": "", "b": ""}
    plan = fake_plan(tmp_path, jobs, epochs=40)
    first = other_runner(tmp_path, jobs, epochs=40, slots=1)
    wait_for(lambda: outcomes(plan, "a") == [""])
    first.kill()
    first.wait()
    assert folder(plan, "a").running
    began = time.monotonic()
    assert runner(plan, slots=SLOTS[:1]).run() == {"a": "done", "b": "done"}  # one slot, which the orphan has
    assert names(plan) == ["a", "b"]
    assert outcomes(plan, "a") == ["done"]
    assert float(starts(plan)[1][3]) - float(starts(plan)[0][3]) > 0.7
    assert time.monotonic() - began < 20


def test_what_was_done_while_no_runner_looked_is_recorded(tmp_path):
    jobs = {"a": ""}
    plan = fake_plan(tmp_path, jobs, epochs=20)
    first = other_runner(tmp_path, jobs, epochs=20)
    wait_for(lambda: outcomes(plan, "a") == [""])
    first.kill()
    first.wait()
    wait_for(lambda: plan.run_folder(plan.jobs[0]).state == "done")
    assert runner(plan).run() == {"a": "done"}
    (attempt,) = folder(plan, "a").attempts()
    assert attempt.outcome == "done"
    assert attempt.ended == pytest.approx(plan.run_folder(plan.jobs[0]).result_file.stat().st_mtime, abs=0.1)
    assert names(plan) == ["a"]


def test_a_job_killed_with_its_runner_is_started_again(tmp_path):
    jobs = {"a": ""}
    plan = fake_plan(tmp_path, jobs, epochs=40)
    first = other_runner(tmp_path, jobs, epochs=40)
    wait_for(lambda: outcomes(plan, "a") == [""] and plan.run_folder(plan.jobs[0]).read_history())
    first.kill()
    first.wait()
    os.kill(pid(plan, "a"), signal.SIGKILL)
    assert runner(plan).run() == {"a": "done"}
    assert outcomes(plan, "a") == ["lost", "done"]


def test_what_was_started_by_hand_is_waited_for(tmp_path):
    plan = fake_plan(tmp_path, {"a": "", "b": ""})
    lock = try_lock(plan.run_folder(plan.jobs[0]).lock_file)
    threading.Timer(1.5, unlock, [lock]).start()
    assert runner(plan, slots=SLOTS[:1]).run() == {"a": "done", "b": "done"}
    assert names(plan) == ["b", "a"]
    assert len(folder(plan, "a").attempts()) == 1


def test_what_needs_more_devices_than_there_are_stops_before_anything_starts(tmp_path):
    plan = fake_plan(tmp_path, {"a": ""}, devices=3)
    with pytest.raises(RunError, match=r"a needs 3 devices at once, and there are 2 here\. Nothing was started"):
        runner(plan)
