"""The ray launcher on a real Ray of one machine with two pretend GPUs, with stand-ins for `fit`."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from fake_jobs import FAKE, fake_plan, starts, wait_for

from madgnet_bench.bench.launch_ray import RayLauncher, RayOptions
from madgnet_bench.bench.ledger import JobFolder, state_of
from madgnet_bench.bench.locks import is_locked
from madgnet_bench.bench.plan import read_plan
from madgnet_bench.bench.runner import Policy, Runner
from madgnet_bench.cli import main
from madgnet_bench.errors import ConfigError, RunError

TESTS = Path(__file__).parents[1]

with_ray = [
    pytest.mark.ray,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'madgnet-bench[ray]'"
    ),
]

CLUSTER = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
here = ray.init(
    address="local", num_cpus=4, num_gpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
    logging_level="ERROR", _temp_dir=sys.argv[1],
)
print(here.address_info["gcs_address"], flush=True)
sys.stdin.read()
ray.shutdown()
"""
"""A cluster that ends with the standard input: the folder for its files."""

OTHER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from test_launch_ray import gpu_plan, runner
with runner(gpu_plan(Path(sys.argv[3]), sys.argv[5], epochs=int(sys.argv[4])), sys.argv[6]) as one:
    one.run()
"""
"""A runner in a process of its own: the folder of the tests, that of this file, the root, epochs, names of jobs, address."""

SUITE = """
set: {trainer.max_epochs: 1, trainer.accelerator: cpu, run.predictions: none}
networks: {unet: CONFIG}
training_sets: {phantoms: {}}
seeds: [0, 1]
overrides: [{where: {seed: 1}, set: {trainer.devices: 2, trainer.strategy: ddp}}]
"""


class runner:
    """A runner on a cluster, which is left at the end."""

    def __init__(self, plan, address, *, options=(), grace=5.0, **settings):
        asked = RayOptions.read([f"address={address}", "cpus=1", *options])
        self._launcher = RayLauncher(asked, plan.folder / ".jobs", interval=0.05, grace=grace)
        try:
            self._runner = Runner(plan, self._launcher, fit=FAKE, **settings)
        except RunError:
            self._launcher.close()
            raise

    def __enter__(self):
        return self._runner

    def __exit__(self, *_):
        self._launcher.close()


@pytest.fixture(scope="module")
def ray_folder():
    """A folder with a short path, for the names of sockets; and settings that keep these clusters apart from the user's."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("RAY_", "CUDA_", "OMP_"))]:
            patch.delenv(name)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(ray_folder):
    """The process of a cluster with two GPUs and four cores."""
    words = [sys.executable, "-c", CLUSTER, str(ray_folder)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.address = process.stdout.readline().strip()
    assert process.address
    yield process
    process.communicate()
    assert process.returncode == 0


@pytest.fixture(autouse=True)
def left_cluster():
    """No test leaves its process connected."""
    yield
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()


def gpu_plan(root, names, *, how="", epochs=2, devices=1):
    plan = fake_plan(root, dict.fromkeys(names, how) if isinstance(names, str) else names, epochs=epochs, devices=devices)
    return replace(plan, jobs=tuple(replace(job, accelerator="gpu") for job in plan.jobs))


def folder(plan, name):
    return JobFolder(plan.folder / ".jobs" / f"key_{name}")


def last(plan, name):
    return folder(plan, name).attempts()[-1]


def states(plan):
    return {job.name: state_of(plan.run_folder(job), JobFolder(plan.job_path(job))) for job in plan.jobs}


def names(plan):
    return [words[0] for words in starts(plan)]


def trains(plan, name):
    """Whether a process of a job lives, told from its locks."""
    return is_locked(plan.folder / f"run_{name}" / ".lock") or is_locked(folder(plan, name).path / "attempt.lock")


def processes():
    """Of all processes: process id, its parent's, and the command line."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), int(parent), args) for pid, parent, args in (line.split(maxsplit=2) for line in listed.splitlines())]


def workers(cluster):
    """Process ids of the workers of the cluster that run a job."""
    table = {pid: parent for pid, parent, _ in processes()}

    def ours(pid):
        while pid not in (0, 1, cluster.pid):
            pid = table.get(pid, 0)
        return pid == cluster.pid

    return [pid for pid, _, args in processes() if args.startswith("ray::madgnet-bench") and ours(pid)]


def fits(word):
    """Of the running processes of `fit` with this word in their command: devices of the job, and rank."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = process.joinpath("cmdline").read_text().split("\0")
            variables = dict(line.split("=", 1) for line in process.joinpath("environ").read_text().split("\0") if "=" in line)
        except (OSError, UnicodeDecodeError):
            continue
        if "fit" in command and "keeper.py" not in command[3] and word in command:
            devices = command[command.index("--trainer.devices") + 1] if "--trainer.devices" in command else "1"
            found.add((devices, variables.get("LOCAL_RANK")))
    return found


def in_background(run):
    thread = threading.Thread(target=run.run)
    thread.start()
    return thread


class TestOnACluster:
    pytestmark = with_ray

    def test_jobs_have_gpus_of_their_own_and_the_third_waits(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, "abc", epochs=60)
        seen, told = [], []
        settings = {"tick": lambda: seen.append(states(plan)), "tell": lambda job, event: told.append(f"{job.name} {event}")}
        with runner(plan, cluster.address, **settings) as run:
            assert run.run() == dict.fromkeys("abc", "done")
        (first, gpu, threads, at), (second, other, _, _), (third, _, _, later) = starts(plan)
        assert ({first, second}, third, {gpu, other}, threads) == ({"a", "b"}, "c", {"0", "1"}, "1")
        assert float(later) > float(at) + 60 * 0.02
        assert {"a": "running", "b": "running", "c": "queued"} in seen
        host = os.uname().nodename
        assert re.fullmatch(rf"ray:[0-9a-f]{{8}} on {host}", last(plan, "c").where)
        assert f"c queued on {last(plan, 'c').where.split()[0]}" in told
        assert f"c started on {last(plan, 'c').where}" in told
        assert last(plan, "c").started > float(at)
        assert re.match(rf"ray: job \w+ begins on {host} with GPU [01]\n", folder(plan, "a").tail())

    def test_what_fails_costs_only_itself_and_says_why(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, {"a": "raise", "b": "flaky", "c": "", "d": "memory"}, epochs=2)
        with runner(plan, cluster.address, options=["gpus=0.5"], policy=Policy(halve_batch=True)) as run:
            assert run.run() == {"a": "failed", "b": "failed", "c": "done", "d": "done"}
            assert last(plan, "a").reason == "exit 1: RuntimeError: the loss is sad"
            assert last(plan, "b").reason.startswith("killed by SIGKILL")
            assert [(one.parts, one.out_of_memory) for one in folder(plan, "d").attempts()] == [
                (1, True),
                (2, True),
                (4, False),
            ]
        assert [len(folder(plan, name).attempts()) for name in "abc"] == [1, 1, 1]

    @pytest.mark.slow
    def test_a_job_on_two_gpus_waits_for_both_and_one_without_sees_none(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, "ab", devices=2)
        cpu = tuple(replace(job, accelerator="cpu", devices=1) for job in fake_plan(tmp_path, {"c": ""}).jobs)
        plan = replace(plan, jobs=plan.jobs + cpu)
        with runner(plan, cluster.address, options=["cpus=2"]) as run:
            assert set(run.run().values()) == {"done"}
        seen = {words[0]: words[1:-1] for words in starts(plan)}
        assert [sorted(seen[name][0].split(",")) for name in "ab"] == [["0", "1"]] * 2
        assert [seen[name][1] for name in "ab"] == ["2", "2"]
        assert seen["c"] == ["2"]  # CUDA_VISIBLE_DEVICES is empty

    @pytest.mark.slow
    def test_two_share_a_gpu_when_asked(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, "abcd", epochs=100)
        seen = []
        with runner(plan, cluster.address, options=["gpus=0.5"], tick=lambda: seen.append(states(plan))) as run:
            assert set(run.run().values()) == {"done"}
        assert sorted(gpu for _, gpu, _, _ in starts(plan)) == ["0", "0", "1", "1"]
        assert max(sum(state == "running" for state in one.values()) for one in seen) > 2

    def test_a_killed_worker_costs_its_job_and_ends_the_training(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, {"a": "hang", "b": ""}, epochs=50)
        with runner(replace(plan, jobs=plan.jobs[:1]), cluster.address, grace=2.0) as run:
            thread = in_background(run)
            wait_for(lambda: plan.run_folder(plan.jobs[0]).read_history() and trains(plan, "a"))
            (worker,) = workers(cluster)
            os.kill(worker, signal.SIGKILL)
            thread.join()
        assert states(plan)["a"] == "failed"
        assert not trains(plan, "a")
        assert last(plan, "a").reason.startswith("ray: WorkerCrashedError: The worker died unexpectedly")
        assert last(plan, "a").reason.endswith(f", {last(plan, 'a').where}")
        with runner(replace(plan, jobs=plan.jobs[1:]), cluster.address) as run:
            assert run.run() == {"b": "done"}

    def test_what_runs_too_long_is_ended_and_killed_after_the_grace(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, {"a": "hang", "b": "hang stubborn", "c": ""})
        with runner(plan, cluster.address, grace=1.0, policy=Policy(time_limit=1.5)) as run:
            assert run.run() == {"a": "failed", "b": "failed", "c": "done"}
        assert {last(plan, name).reason for name in "ab"} == {"took longer than the time limit of 1.5 s"}
        assert not any(trains(plan, name) for name in "abc")

    @pytest.mark.slow
    def test_stopping_empties_the_queue_and_running_again_goes_on(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, "abc", epochs=150)
        with runner(plan, cluster.address) as stopped:
            thread = in_background(stopped)
            wait_for(lambda: sum(len(plan.run_folder(job).read_history()) > 0 for job in plan.jobs) == 2)
            stopped.stop()
            thread.join()
        assert states(plan) == dict.fromkeys("abc", "interrupted")
        assert {last(plan, name).outcome for name in "abc"} == {"stopped"}
        assert not any(trains(plan, name) for name in "abc")
        with runner(replace(plan, jobs=plan.jobs[:1]), cluster.address) as run:
            assert run.run() == {"a": "done"}
        assert last(plan, "a").epochs_before > 0

    @pytest.mark.slow
    def test_stopping_twice_kills_at_once(self, cluster, tmp_path):
        plan = gpu_plan(tmp_path, {"a": "hang stubborn"})
        with runner(plan, cluster.address, grace=600.0) as run:
            thread = in_background(run)
            wait_for(lambda: plan.run_folder(plan.jobs[0]).read_history())
            run.stop()
            thread.join(timeout=1.5)
            assert thread.is_alive() and trains(plan, "a")
            run.stop()
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert not trains(plan, "a")

    def test_a_killed_runner_leaves_nothing_that_trains_and_the_next_one_goes_on(self, cluster, tmp_path):
        words = [sys.executable, "-c", OTHER, str(TESTS), str(TESTS / "bench"), str(tmp_path), "200", "abc", cluster.address]
        first = subprocess.Popen(words)
        plan = gpu_plan(tmp_path, "abc", epochs=200)
        wait_for(lambda: sorted(states(plan).values()) == ["queued", "running", "running"])
        wait_for(lambda: sum(len(plan.run_folder(job).read_history()) > 3 for job in plan.jobs) == 2)
        first.send_signal(signal.SIGKILL)
        first.wait()
        wait_for(lambda: not any(trains(plan, name) for name in "abc"), seconds=30)
        begun = [job for job in plan.jobs if plan.run_folder(job).read_history()]
        assert all(len(plan.run_folder(job).read_history()) < 200 for job in begun)
        plan = replace(plan, jobs=tuple(begun))
        with runner(plan, cluster.address) as run:
            assert set(run.run().values()) == {"done"}
        for job in begun:
            assert [one.outcome for one in folder(plan, job.name).attempts()] == ["lost", "done"]
            assert last(plan, job.name).epochs_before > 3

    def test_what_no_node_has_is_refused_before_anything_starts(self, cluster, tmp_path):
        with pytest.raises(RunError, match=r"a needs 5 cores at once, .*\(there: 4 cores, 2 GPUs\)"):
            runner(gpu_plan(tmp_path, "a"), cluster.address, options=["cpus=5"])
        plan = gpu_plan(tmp_path, "a", devices=3)
        with pytest.raises(RunError, match="a job needs 3 cores and 3 GPUs at once"), runner(plan, cluster.address) as run:
            run.run()
        assert folder(plan, "a").attempts() == []

    def test_nodes_without_the_package_or_the_folder_are_named(self, cluster, tmp_path, monkeypatch):
        monkeypatch.setattr("madgnet_bench.bench.launch_ray.__version__", "0.0.0")
        with pytest.raises(RunError, match=r"(?s)nothing was started\..*: has madgnet-bench .*, and the runner 0\.0\.0"):
            runner(gpu_plan(tmp_path, "a"), cluster.address)
        assert list((tmp_path / "suite" / ".jobs").iterdir()) == []

    def test_another_python_is_told(self, cluster, tmp_path, monkeypatch):
        import ray

        monkeypatch.setattr("ray._private.utils.compute_version_info", lambda: (ray.__version__, "3.9.1"))
        with pytest.raises(RunError, match=r"no connection to a Ray cluster at .*Version mismatch: .* Python: 3\.9\.1"):
            runner(gpu_plan(tmp_path, "a"), cluster.address)

    @pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
    def test_a_cluster_that_is_not_there(self, address, tmp_path):
        with pytest.raises(RunError, match=rf"no connection to a Ray cluster at {address}: .*refused\. .*RAY_AUTH_MODE=token"):
            runner(gpu_plan(tmp_path, "a"), address)

    @pytest.mark.slow
    def test_real_trainings_on_one_and_two_processes_on_a_cluster_started_for_them(self, ray_folder, tmp_path):
        suite = tmp_path / "short.yaml"
        suite.write_text(SUITE.replace("CONFIG", str(TESTS.parent / "configs" / "demo" / "unet.yaml")))
        words = ["run", str(suite), "--root", str(tmp_path), "--launcher", "ray", "--ray", "cpus=1", f"temp={ray_folder}/own"]
        command, seen = [sys.executable, "-m", "madgnet_bench", *words], set()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            while run.poll() is None:
                seen |= fits(str(tmp_path))
                time.sleep(0.3)
            shown = run.stdout.read()
        assert run.returncode == 0, shown
        assert "2 jobs: 2 done" in shown and "unseen mean" in shown
        assert re.sub(r"ray:\w{8}|\bon \S+", "", shown).count("ray") == 0  # nothing of its own talk
        assert [job.devices for job in read_plan(tmp_path / "short").jobs] == [1, 2]
        assert seen == {("1", None), ("2", None), ("2", "1")}  # Lightning started the second process itself
        assert [args for _, _, args in processes() if f"{ray_folder}/own" in args] == []


def test_options():
    options = RayOptions.read(["address=ray://head:10001", "cpus=2", "gpus=0.5"])
    assert options == RayOptions(address="ray://head:10001", cpus=2, gpus=0.5)
    assert RayOptions.read([]) == RayOptions()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adress=auto"], "unknown key 'adress'; did you mean 'address'"),
        (["auto"], "write KEY=VALUE, such as address=auto"),
        (["cpus=0"], "'0' is not a whole number of at least 1"),
        (["gpus=2"], "'2' is not a part of a GPU, from 0 to 1; trainer.devices says how many"),
        (["gpus=all"], "not a part of a GPU"),
        (["address=auto", "temp=/x"], "for a cluster that is started here"),
    ],
)
def test_wrong_options_say_what_is_right(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        RayOptions.read(words)


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=re.escape("pip install 'madgnet-bench[ray]'")):
        RayLauncher(RayOptions(), tmp_path)


def test_the_module_and_status_do_without_ray():
    code = "import sys, madgnet_bench.bench.launch_ray, madgnet_bench.cli.suites; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_settings_of_another_launcher_are_refused_before_anything_is_planned(capsys):
    assert main(["run", "any.yaml", "--ray", "cpus=2"]) == 2
    assert "--ray goes with --launcher ray" in capsys.readouterr().err
    assert main(["run", "any.yaml", "--launcher", "ray", "--ray", "cpu=2"]) == 2
    assert "unknown key 'cpu'; did you mean 'cpus'?" in capsys.readouterr().err
