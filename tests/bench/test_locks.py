import os
import signal
import subprocess
import sys
import time

from madgnet_bench.bench.locks import is_locked, try_lock, unlock

LOOK = """
import sys, time
from pathlib import Path
from madgnet_bench.bench.locks import is_locked
while True:
    is_locked(Path(sys.argv[1]))
    time.sleep(0.002)
"""


def test_a_lock_is_held_once_and_can_be_had_again(tmp_path):
    path = tmp_path / "folder" / "lock"
    assert not is_locked(path)
    assert not path.exists()
    lock = try_lock(path)
    assert lock is not None
    assert is_locked(path)
    assert try_lock(path) is None
    unlock(lock)
    assert not is_locked(path)
    again = try_lock(path)
    assert again is not None
    unlock(again)


def test_a_look_at_a_lock_does_not_keep_others_from_it(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    looking = subprocess.Popen([sys.executable, "-c", LOOK, str(path)])
    for _ in range(400):
        lock = try_lock(path)
        assert lock is not None
        unlock(lock)
    looking.kill()
    looking.wait()


def test_a_lock_lasts_as_long_as_a_child_that_inherited_it_however_that_ends(tmp_path):
    path = tmp_path / "lock"
    lock = try_lock(path)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], pass_fds=(lock,))
    unlock(lock)
    assert is_locked(path)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not is_locked(path)


def test_a_child_that_was_not_given_the_lock_does_not_keep_it(tmp_path):
    path = tmp_path / "lock"
    lock = try_lock(path)
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    time.sleep(0.05)
    unlock(lock)
    assert not is_locked(path)
    child.kill()
    child.wait()
