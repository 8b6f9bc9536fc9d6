"""The keeper of a command, without Ray: what ends when whom is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fake_jobs import wait_for

from madgnet_bench.bench import keeper
from madgnet_bench.bench.locks import is_locked

FAMILY = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
"""
"""A command with a child of its own, as a training on several GPUs has; both may outlive a request to end."""


@pytest.fixture
def start(tmp_path):
    """Starts a keeper as a client does: returns the client's end."""
    started = []

    def make(*words, grace=20.0, log="log.txt"):
        files = [str(tmp_path / log), str(tmp_path / "lock"), str(grace)]
        command = [sys.executable, "-I", "-S", keeper.__file__, *files, *words]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        started.append(client)
        return client

    yield make
    for client in started:
        client.stdin.close()
        client.stdout.read()
        client.wait()
        client.stdout.close()


def python(code, *arguments):
    return [sys.executable, "-S", "-c", code, *arguments]


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def family(tmp_path):
    """Process ids of the command and its child, once both are there."""
    log = tmp_path / "log.txt"
    wait_for(lambda: log.exists() and log.read_text().endswith("\n"))
    return [int(word) for word in log.read_text().split()]


def all_gone(tmp_path, pids, *, seconds=20):
    wait_for(lambda: not any(map(lives, pids)), seconds=seconds)
    wait_for(lambda: not is_locked(tmp_path / "lock"))
    return True


@pytest.mark.parametrize(
    ("code", "status"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_the_exit_status_is_told_and_the_output_appended(start, tmp_path, code, status):
    (tmp_path / "log.txt").write_text("before\n")
    client = start(*python(f"print('now', flush=True); {code}"))
    pid, told = (int(line) for line in client.stdout.read().split())
    assert (told, pid > 1) == (status, True)
    assert (tmp_path / "log.txt").read_text() == "before\nnow\n"


def test_it_is_no_child_of_its_client(start, tmp_path):
    client = start(*python("import os; print(os.getpid(), os.getppid(), os.getpgid(os.getppid()), flush=True)"))
    assert client.wait(timeout=20) == 0
    client.stdout.read()
    _, _, group = family(tmp_path)
    assert group == client.pid


def test_ctrl_c_is_heard_by_the_command(start):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray does for all its processes
    try:
        client = start(
            *python("import signal; raise SystemExit(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))")
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert client.stdout.read().split()[1:] == [b"0"]


def test_a_client_that_is_gone_ends_the_command_and_its_children(start, tmp_path):
    client = start(*python(FAMILY))
    pids = family(tmp_path)
    client.stdin.close()
    assert client.stdout.read().split() == [str(pids[0]).encode(), b"-15"]
    assert all_gone(tmp_path, pids)


def test_a_request_to_end_leaves_time_and_then_kills(start, tmp_path):
    client = start(*python(FAMILY, "stubborn"), grace=0.6)
    pids = family(tmp_path)
    began = time.monotonic()
    os.write(client.stdin.fileno(), b"e")
    assert client.stdout.read().split()[1] == b"-9"
    assert 0.5 < time.monotonic() - began < 15
    assert all_gone(tmp_path, pids)


def test_a_client_that_goes_after_it_has_asked_does_not_wait(start, tmp_path):
    client = start(*python(FAMILY, "stubborn"), grace=600)
    pids = family(tmp_path)
    os.write(client.stdin.fileno(), b"e")
    time.sleep(0.5)
    assert lives(pids[0])
    client.stdin.close()
    assert client.stdout.read().split()[1] == b"-9"
    assert all_gone(tmp_path, pids)


def test_a_killed_keeper_takes_the_command_with_it(start, tmp_path):
    client = start(*python("import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(60)"))
    pids = family(tmp_path)
    os.kill(pids[1], signal.SIGKILL)
    assert client.stdout.read().split() == [str(pids[0]).encode()]
    assert all_gone(tmp_path, pids)


def test_the_next_command_waits_for_the_end_of_the_one_before(start, tmp_path):
    first = start(*python("import time; time.sleep(0.5); print('first', flush=True)"))
    wait_for(lambda: is_locked(tmp_path / "lock"))
    second = start(*python("print('second', flush=True)"))
    assert second.stdout.read().split()[1:] == [b"0"]
    assert (tmp_path / "log.txt").read_text() == "first\nsecond\n"
    first.stdout.read()


def test_one_that_waits_in_vain_never_starts(start, tmp_path):
    start(*python("import time; time.sleep(60)"))
    wait_for(lambda: is_locked(tmp_path / "lock"))
    second = start(*python("pass"))
    second.stdin.close()
    assert second.stdout.read() == b""
