import os
import signal
import sys
import time

import pytest
from fake_jobs import wait_for

from madgnet_bench.bench.launch import LocalLauncher, Slot, Task, cpu_slots, gpu_slots, visible_gpus
from madgnet_bench.bench.locks import is_locked, try_lock, unlock

SHOW = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS'])"
SHOW_MKL = "import os; print(os.environ['MKL_NUM_THREADS'])"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PARENT = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-S', '-c', {SLEEP!r}]).pid, flush=True)"


class Tasks:
    """Starts lines of Python through a launcher and waits for their end."""

    def __init__(self, folder, slots, **options):
        self.folder = folder
        self.launcher = LocalLauncher(slots, folder / "slots", **options)
        self.started = {}

    def start(self, code, *, devices=1):
        number = len(list(self.folder.glob("*.txt")))
        lock = try_lock(self.folder / f"{number}.lock")
        words = (sys.executable, "-S", "-c", code)
        log = self.folder / f"{number}.txt"
        log.touch()
        task = Task(words=words, log=log, record=self.folder, devices=devices, gpu=True, lock=lock)
        for handle in self.launcher.submit([task]):
            self.started[id(handle)] = (handle, lock, log)
            return handle
        unlock(lock)
        log.unlink()
        return None

    def log(self, handle):
        return self.started[id(handle)][2].read_text()

    def end(self, handle):
        codes = []
        wait_for(lambda: codes.append(self.launcher.poll(handle)) or codes[-1] is not None)
        unlock(self.started.pop(id(handle))[1])
        return codes[-1]


@pytest.fixture
def tasks(tmp_path):
    made = []

    def make(slots, **options):
        made.append(Tasks(tmp_path, slots, **options))
        return made[-1]

    yield make
    for one in made:
        for handle, _, _ in list(one.started.values()):
            os.killpg(handle.process.pid, signal.SIGKILL)
            one.end(handle)


CPU = [Slot("cpu0", None, 3), Slot("cpu1", None, 3)]
GPU = [Slot("gpu4.0", "4", 2), Slot("gpu7.0", "7", 2)]


def test_output_goes_to_the_log_and_the_status_is_told(tasks, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    local = tasks(CPU)
    handle = local.start(f"{SHOW}; import sys; sys.exit(3)")
    path = local.started[id(handle)][2]
    assert local.end(handle) == 3
    assert path.read_text() == "None 3\n"
    assert str(os.uname().nodename) in handle.where and "cpu0" in handle.where


def test_a_number_of_threads_that_the_user_chose_stays(tasks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    local = tasks(CPU)
    handle = local.start(SHOW)
    path = local.started[id(handle)][2]
    local.end(handle)
    assert path.read_text().endswith(" 1\n")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)  # torch would take MKL's number over OpenMP's
    handle = local.start(SHOW_MKL)
    path = local.started[id(handle)][2]
    local.end(handle)
    assert path.read_text() == "1\n"


def test_each_job_has_gpus_of_its_own(tasks):
    local = tasks(GPU)
    both = local.start(SHOW, devices=2)
    path = local.started[id(both)][2]
    assert local.start(SHOW) is None
    local.end(both)
    assert path.read_text().startswith("4,7 ")
    first, second = local.start(SLEEP), local.start(SHOW)
    path = local.started[id(second)][2]
    local.end(second)
    assert path.read_text().startswith("7 ")
    assert local.start(SHOW, devices=2) is None
    local.launcher.cancel(first)
    assert local.end(first) == -signal.SIGTERM


def test_what_can_never_start_is_refused():
    assert LocalLauncher(GPU, None).refusal(2) is None
    assert "needs 3 devices at once, and there are 2" in LocalLauncher(GPU, None).refusal(3)
    assert "there are 2" in LocalLauncher(gpu_slots(["0", "1"], 4), None).refusal(3)
    assert LocalLauncher(CPU, None).refusal(2) is None


def test_launchers_of_one_folder_share_its_slots(tasks):
    one, other = tasks(CPU), tasks(CPU)
    first = one.start(SLEEP)
    assert other.start(SLEEP) is not None
    assert other.start(SLEEP) is None
    one.launcher.cancel(first)
    one.end(first)
    assert other.start(SLEEP) is not None


def test_who_does_not_end_when_asked_is_killed(tasks):
    local = tasks(CPU, grace=0.1)
    handle = local.start(STUBBORN)
    wait_for(lambda: "up" in local.log(handle))
    local.launcher.cancel(handle)
    assert local.end(handle) == -signal.SIGKILL
    patient = tasks(CPU, grace=60)
    handle = patient.start(STUBBORN)
    wait_for(lambda: "up" in patient.log(handle))
    patient.launcher.cancel(handle)
    time.sleep(0.05)
    assert patient.launcher.poll(handle) is None
    patient.launcher.cancel(handle)
    assert patient.end(handle) == -signal.SIGKILL


def test_no_process_of_an_ended_job_is_left(tasks, tmp_path):
    local = tasks(CPU)
    handle = local.start(PARENT)
    path = local.started[id(handle)][2]
    lock = path.with_suffix(".lock")
    assert local.end(handle) == 0
    child = int(path.read_text().splitlines()[0])
    wait_for(lambda: not os.path.exists(f"/proc/{child}") or "State:\tZ" in open(f"/proc/{child}/status").read())
    assert not is_locked(lock)


def test_slots_of_the_processor_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert [(slot.name, slot.threads) for slot in cpu_slots(3)] == [("cpu0", 5), ("cpu1", 5), ("cpu2", 5)]
    assert len(cpu_slots()) == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert [slot.threads for slot in cpu_slots()] == [2]
    assert [slot.threads for slot in cpu_slots(4)] == [1] * 4


def test_slots_of_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert [(slot.name, slot.gpu, slot.threads) for slot in gpu_slots(["2", "5"])] == [("gpu2.0", "2", 8), ("gpu5.0", "5", 8)]
    assert [slot.name for slot in gpu_slots(["2", "5"], 3)] == ["gpu2.0", "gpu5.0", "gpu2.1"]
    assert len(gpu_slots(["2", "5"], 1)) == 1


def test_visible_gpus_are_those_that_the_environment_names(tmp_path, monkeypatch):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3,GPU-1f"}) == ["3", "GPU-1f"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ["0", "1"]
    tool.write_text("#!/bin/sh\necho 'no driver'; exit 9\n")
    assert visible_gpus({}) == []
