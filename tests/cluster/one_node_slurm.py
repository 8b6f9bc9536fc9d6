"""A real SLURM of one node with two pretend GPUs on this computer, for tests of the slurm launcher.

    python tests/cluster/one_node_slurm.py              run it until Ctrl-C; prints the line that a shell needs to use it
    python tests/cluster/one_node_slurm.py --install    install Debian's packages slurm-wlm and munge where they are missing

It needs root. All that it writes lies in one temporary folder, it listens on free ports of this computer only, and its daemons
end with the process that started them. A job that asks for a GPU gets a CUDA_VISIBLE_DEVICES of its own, and no real GPU is
touched. It keeps no accounts, as many small clusters do.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Missing", "install", "one_node"]

_CONF = """
ClusterName=one_node
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldParameters=disable_triggers
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_min_interval=100000
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=3
MinJobAge=60
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""

_GRES = "NodeName={host} Name=gpu File=/dev/null\nNodeName={host} Name=gpu File=/dev/zero\n"


class Missing(Exception):
    """Why there can be no cluster here."""


def install() -> None:
    """Install SLURM and munge where they are missing.

    Raises:
        Missing: They cannot be had here.
    """
    try:
        _check()
        return
    except Missing:
        if os.getuid() != 0:
            raise
    if shutil.which("apt-get") is None:
        raise Missing("no SLURM here, and no apt-get to install slurm-wlm and munge with")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]):
        done = subprocess.run(["apt-get", "--quiet=2", *words], env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise Missing(f"apt-get {' '.join(words)} failed: {(done.stdout + done.stderr).strip()[-300:]}")


def _check() -> None:
    if os.getuid() != 0:
        raise Missing("a SLURM of one's own needs root")
    if "/usr/sbin" not in os.environ["PATH"].split(os.pathsep):  # where Debian keeps daemons
        os.environ["PATH"] += f"{os.pathsep}/usr/sbin"
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        raise Missing("no SLURM here; `python tests/cluster/one_node_slurm.py --install` installs it on Debian")


@contextmanager
def one_node() -> Iterator[dict[str, str]]:
    """Run a cluster.

    Yields:
        The environment that its commands need, besides the usual.

    Raises:
        Missing: It cannot be had here.
    """
    _check()
    folder = Path(tempfile.mkdtemp(prefix="one_node_slurm_"))
    daemons: list[subprocess.Popen[bytes]] = []
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    try:
        _configure(folder)
        key, munge_socket = folder / "munge.key", folder / "munge.socket"
        munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge_socket}"]
        munge += [f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munge.seed", f"--log-file={folder}/munged.log"]
        _start(daemons, munge, folder, environment)
        _wait_for(munge_socket.exists, daemons, folder)
        _start(daemons, ["slurmctld", "-D", "-f", environment["SLURM_CONF"]], folder, environment)
        _start(daemons, ["slurmd", "-D", "-f", environment["SLURM_CONF"]], folder, environment)
        _wait_for(lambda: "idle" in _ask(["sinfo", "--noheader", "--format=%t"], environment), daemons, folder)
        yield environment
        _ask(["scancel", "--full", "--signal=KILL", "--user=root"], environment)
        _ask(["scancel", "--user=root"], environment)
        with suppress(Missing):
            _wait_for(lambda: not _ask(["squeue", "--noheader"], environment), daemons, folder, seconds=15)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    host = socket.gethostname().split(".")[0]
    control_port, node_port = _free_ports(2)
    conf = _CONF.format(host=host, folder=folder, control_port=control_port, node_port=node_port)
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(_GRES.format(host=host))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()


def _free_ports(number: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _start(daemons: list[subprocess.Popen[bytes]], words: list[str], folder: Path, environment: dict[str, str]) -> None:
    libc = ctypes.CDLL(None)

    def end_with_parent() -> None:
        libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    with (folder / f"{words[0]}.out").open("wb") as log:
        everything = {**os.environ, **environment}
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=everything,
            preexec_fn=end_with_parent,
            start_new_session=True,
        )
    daemons.append(process)


def _wait_for(condition, daemons: list[subprocess.Popen[bytes]], folder: Path, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        ended = any(daemon.poll() is not None for daemon in daemons)
        if ended or time.monotonic() > deadline:
            shown = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-600:]}" for log in sorted(folder.glob("*.out")))
            raise Missing(f"SLURM did not come up.\n{shown}")
        time.sleep(0.1)


def _ask(words: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> None:
    """Run a cluster until Ctrl-C."""
    with one_node() as environment:
        settings = " ".join(f"{name}={value}" for name, value in environment.items())
        sys.stdout.write(f"export {settings}\n")
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    try:
        install() if "--install" in sys.argv[1:] else main()
    except Missing as reason:
        sys.exit(str(reason))
