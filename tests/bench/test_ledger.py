import json
import time

import pytest

from madgnet_bench.bench.ledger import Attempt, JobFolder, state_of
from madgnet_bench.bench.locks import try_lock, unlock
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder


@pytest.fixture
def job(tmp_path) -> JobFolder:
    return JobFolder(tmp_path / ".jobs" / "key")


def begin(job, **settings):
    job.begin("unet/0", "madgnet-bench fit --seed 0", Attempt(started=time.time(), where="here:1", **settings))


def test_attempts_are_kept_in_a_file_that_says_what_the_job_is(job):
    lock = job.claim()
    assert job.claim() is None
    begin(job)
    job.end("unet/0", "madgnet-bench fit --seed 0", outcome="failed", reason="exit 1: it broke")
    begin(job, epochs_before=3)
    unlock(lock)
    first, second = job.attempts()
    assert (first.outcome, first.reason, second.outcome, second.epochs_before) == ("failed", "exit 1: it broke", "", 3)
    assert first.ended >= first.started
    content = json.loads((job.path / "job.json").read_text())
    assert (content["name"], content["command"]) == ("unet/0", "madgnet-bench fit --seed 0")


def test_an_attempt_whose_end_nobody_saw_is_lost(job):
    begin(job)
    begin(job)
    assert [one.outcome for one in job.attempts()] == ["lost", ""]


def test_the_state_follows_from_files_and_the_lock(job, tmp_path):
    run = RunFolder(tmp_path / "run")
    assert state_of(run, job) == "waiting"
    lock = job.claim()
    begin(job)
    assert state_of(run, job) == "running"
    unlock(lock)
    assert state_of(run, job) == "interrupted"
    job.end("", "", outcome="stopped")
    assert state_of(run, job) == "interrupted"
    job.end("", "", outcome="failed")
    assert state_of(run, job) == "failed"
    run.path.mkdir()
    run.result_file.write_text("{}")
    assert state_of(run, job) == "done"


def test_what_another_process_trains_is_running_whoever_started_it(job, tmp_path):
    run = RunFolder(tmp_path / "run")
    lock = try_lock(run.lock_file)
    assert state_of(run, job) == "running"
    begin(job)
    job.end("", "", outcome="failed")
    assert state_of(run, job) == "running"
    unlock(lock)
    assert state_of(run, job) == "failed"


def test_a_job_in_hand_that_was_not_started_yet_waits(job, tmp_path):
    lock = job.claim()
    assert state_of(RunFolder(tmp_path / "run"), job) == "waiting"
    unlock(lock)


def test_the_log_tells_whether_a_job_of_a_cluster_waits_or_runs(job, tmp_path):
    run = RunFolder(tmp_path / "run")
    job.path.mkdir(parents=True)
    job.log_file.write_text("earlier\n")
    job.begin("a", "", Attempt(started=0.0, where="slurm:5_0", log_start=8, queued=True))
    assert state_of(run, job) == "queued"
    for line, state in (
        ("slurm: job 5_0 begins on node1, GPU 0", "running"),
        ("slurm: requeued before the time limit", "queued"),
        ("slurm: job 5_0 begins on node2, GPU 0", "running"),
        ("epoch 3", "interrupted"),  # it holds its run folder's lock since long
    ):
        with job.log_file.open("a") as log:
            log.write(f"{line}\n")
        assert state_of(run, job) == state
    job.begin("a", "", Attempt(started=0.0, where="slurm:6_0", log_start=job.log_size, queued=True))
    assert state_of(run, job) == "queued"
    job.change("a", "", queued=False)
    assert state_of(run, job) == "running"
    job.end("a", "", outcome="stopped")
    assert state_of(run, job) == "interrupted"


def test_a_run_started_by_hand_and_not_finished_is_interrupted(job, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config_file.write_text("")
    assert state_of(run, job) == "interrupted"


@pytest.mark.parametrize(
    ("code", "log", "reason", "memory"),
    [
        (1, "Traceback\nRuntimeError: broken", "exit 1: RuntimeError: broken", False),
        (2, "x\nmadgnet-bench fit: a: 2 problems.\n  a.png  damaged\n", "exit 2: madgnet-bench fit: a: 2 problems.", False),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "exit 1: torch.OutOfMemoryError: CUDA out of memory.", True),
        (1, "a\nMemoryError\n", "exit 1: MemoryError", True),
        (1, "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", None, True),
        (-9, "epoch 1", "killed by SIGKILL (by hand, or by the system for want of memory)", False),
        (-15, "", "killed by SIGTERM", False),
        (-40, "", "killed by signal 40", False),
        (0, "", "ended without a result in the planned run folder", False),
        (1, "", "exit 1: it printed nothing", False),
        (-9, "epoch 1\nslurm: OUT_OF_MEMORY, job 5 on n", "slurm: OUT_OF_MEMORY, job 5 on n", True),
        (1, "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0.\nslurm: FAILED, job 5", "slurm: FAILED, job 5", True),
        (1, "epoch 1\nslurm: TIMEOUT, job 5", "slurm: TIMEOUT, job 5", False),
        (1, "slurm: job 5 begins on n", "exit 1: it printed nothing", False),
    ],
)
def test_why_an_attempt_ended(job, code, log, reason, memory):
    job.path.mkdir(parents=True)
    job.log_file.write_text("earlier: CUDA out of memory\n" + log)
    attempt = Attempt(started=0.0, where="", log_start=len("earlier: CUDA out of memory\n"))
    found = job.explain(attempt, code)
    assert found[1] == memory
    assert reason in (None, found[0])


def test_the_last_lines_are_plain_text(job):
    job.path.mkdir(parents=True)
    job.log_file.write_bytes(b"old\n" * 9000 + b"one\r\x1b[2Ktwo\n\n\x1b[31mred\x1b[0m \xff\n")
    assert job.last_lines(2) == ["two", "red \N{REPLACEMENT CHARACTER}"]
    assert JobFolder(job.path / "none").last_lines(3) == []


def test_a_damaged_record_says_so(job):
    job.path.mkdir(parents=True)
    (job.path / "job.json").write_text('{"attempts": [{"began": 1}]}')
    with pytest.raises(RunError, match=r"not the record of a job .* Delete it"):
        job.attempts()
