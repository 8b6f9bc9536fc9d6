import time

import pytest
from fake_jobs import fake_plan

from madgnet_bench.bench.ledger import Attempt, JobFolder
from madgnet_bench.bench.locks import unlock
from madgnet_bench.bench.status import JobStatus, count, read_status, seconds_left


@pytest.fixture
def plan(tmp_path):
    return fake_plan(tmp_path, dict.fromkeys("abc", ""), epochs=10)


def train(plan, name, epochs, *, result=False):
    folder = next(plan.run_folder(job) for job in plan.jobs if job.name == name)
    for epoch in range(epochs):
        folder.append_history(epoch, {"val/dsc": [0.5, 0.9, 0.7][epoch % 3]})
    if result:
        folder.result_file.write_text("{}")


def begin(plan, name, **settings):
    job = JobFolder(plan.folder / ".jobs" / f"key_{name}")
    job.begin(name, f"fit {name}", Attempt(where="here:1", **settings))
    return job


def by_name(plan, **options):
    return {row.job.name: row for row in read_status(plan, **options)}


def test_nothing_has_happened_yet(plan):
    rows = read_status(plan)
    assert count(rows) == {"waiting": 3}
    assert (rows[0].epoch, rows[0].best, rows[0].seconds, rows[0].left, rows[0].reason) == (0, None, 0, None, "")
    assert seconds_left(rows) is None


def test_a_running_job_shows_epochs_best_and_time_left(plan):
    train(plan, "a", 4)
    job = begin(plan, "a", started=time.time() - 60, epochs_before=2)
    lock = job.claim()
    row = by_name(plan)["a"]
    unlock(lock)
    assert (row.state, row.epoch, row.best) == ("running", 4, 0.9)
    assert row.seconds == pytest.approx(60, abs=2)
    assert row.left == pytest.approx(30 * 6, abs=6)


def test_a_finished_job_counts_the_time_of_all_its_attempts(plan):
    train(plan, "b", 10, result=True)
    job = begin(plan, "b", started=time.time() - 100)
    job.end("b", "", outcome="stopped")
    job = begin(plan, "b", started=time.time() - 20)
    job.end("b", "", outcome="done")
    row = by_name(plan)["b"]
    assert (row.state, row.attempts, row.left) == ("done", 2, None)
    assert row.seconds == pytest.approx(120, abs=3)


def test_what_was_done_while_no_runner_looked_took_until_its_result(plan):
    job = begin(plan, "b", started=time.time() - 50)
    train(plan, "b", 10, result=True)
    assert by_name(plan)["b"].seconds == pytest.approx(50, abs=3)
    assert job.attempts()[-1].ended is None


def test_a_job_in_a_queue_has_taken_no_time(plan):
    begin(plan, "a", started=time.time() - 50)
    job = JobFolder(plan.folder / ".jobs" / "key_a")
    job.change("a", "", where="slurm:3", queued=True)
    row = by_name(plan)["a"]
    assert (row.state, row.seconds, row.left) == ("queued", 0, None)
    assert count(read_status(plan)) == {"queued": 1, "waiting": 2}


def test_a_failed_job_shows_its_reason_and_the_end_of_its_log(plan):
    job = begin(plan, "c", started=time.time())
    job.end("c", "", outcome="failed", reason="exit 1: broken")
    job.log_file.write_text("one\ntwo\nthree\n")
    row = by_name(plan, lines=2)["c"]
    assert (row.state, row.reason, row.last_lines) == ("failed", "exit 1: broken", ("two", "three"))


def test_an_attempt_whose_runner_is_gone_is_interrupted(plan):
    begin(plan, "c", started=time.time() - 5)
    row = by_name(plan)["c"]
    assert (row.state, row.reason, row.seconds) == ("interrupted", "its runner was gone when it ended", 0)


def test_jobs_done_before_are_not_read_again(plan):
    train(plan, "b", 10, result=True)
    before = read_status(plan)
    plan.run_folder(plan.jobs[1]).result_file.unlink()
    assert by_name(plan, before=before)["b"].state == "done"
    assert by_name(plan)["b"].state == "interrupted"


def row(job, state, seconds=0.0, left=None):
    return JobStatus(job=job, state=state, attempts=1, epoch=0, best=None, seconds=seconds, left=left, reason="", last_lines=())


def test_the_time_left_counts_what_waits_at_the_pace_of_what_is_done(plan):
    job = plan.jobs[0]
    done, waiting = [row(job, "done", 100.0)], [row(job, "waiting")] * 4
    running = [row(job, "running", 50.0, 30.0), row(job, "running", 20.0, 70.0)]
    assert seconds_left([*done, *running, *waiting]) == pytest.approx((100 + 4 * 100) / 2)
    assert seconds_left([*running, *waiting]) == pytest.approx((100 + 4 * 85) / 2)
    assert seconds_left([*done, *running]) == 70
    assert seconds_left([*running, row(job, "running", 5.0)]) is None
    assert seconds_left([*done, *waiting]) is None
