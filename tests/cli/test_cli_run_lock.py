import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from madgnet_bench.bench.locks import is_locked
from madgnet_bench.cli import main, run_lock
from madgnet_bench.cli.run_lock import hold_run
from madgnet_bench.errors import RunError
from madgnet_bench.records import RunFolder, find_runs

TINY = Path(__file__).with_name("tiny.yaml")
HOLDER = """
import os, sys, time, types
from pathlib import Path
console = sys.modules["madgnet_bench.cli.console"] = types.ModuleType("console")  # the real one imports lightning
console.is_first_process = lambda: True
from madgnet_bench.cli.run_lock import hold_run
from madgnet_bench.records import RunFolder
with hold_run(RunFolder(Path(sys.argv[1]))):
    if os.fork() == 0:  # as a worker of a loader, which outlives a killed parent for seconds
        time.sleep(60)
    print("held", os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the run folder ``tmp_path/run``, and a child of it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline().startswith("held")
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=rf"{folder.path}: another process trains this run now"), hold_run(folder):
        pytest.fail("held twice")
    assert folder.state == "new"  # a lock alone is no run
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with hold_run(folder):
        assert is_locked(folder.lock_file)
    assert not is_locked(folder.lock_file)


def test_an_error_lets_go(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), hold_run(folder):
        raise ZeroDivisionError
    assert not is_locked(folder.lock_file)


def test_only_the_first_process_of_a_training_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "is_first_process", lambda: False)
    folder = RunFolder(tmp_path / "run")
    with hold_run(folder), hold_run(folder):
        assert not folder.path.exists()


def test_where_there_are_no_locks_one_line_says_so(tmp_path, monkeypatch, caplog):
    def refuse(path):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_lock, "try_lock", refuse)
    with caplog.at_level("WARNING", "madgnet_bench"), hold_run(RunFolder(tmp_path / "run")):
        pass
    (record,) = caplog.records
    assert "its file system has no locks (Function not implemented)" in record.getMessage()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), hold_run(RunFolder(tmp_path / "file" / "run")):
        pytest.fail("held")


@pytest.mark.slow
def test_two_trainings_of_one_run_do_not_meet(tmp_path, capsys):
    root = tmp_path / "runs"
    words = ["fit", "--config", str(TINY), "--trainer.max_epochs", "30", "--run.root", str(root)]
    first = subprocess.Popen([sys.executable, "-m", "madgnet_bench", *words], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not (root.is_dir() and find_runs(root) and find_runs(root)[0].read_history()):
            assert time.monotonic() < end and first.poll() is None, "the first training does not start"
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        (run,) = find_runs(root)
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        assert main(words) == 2
        assert f"{run.path}: another process trains this run now" in capsys.readouterr().err
        last = run.checkpoints / "last.ckpt"
        if last.is_file():  # `test` refuses a run without a checkpoint in any case
            assert main(["test", str(run.path)]) == 2
            assert "another process trains this run now" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    finally:
        first.kill()
        first.wait()
    assert main(words) == 0
    assert run.state == "done"
    assert len(run.read_history()) == 30
