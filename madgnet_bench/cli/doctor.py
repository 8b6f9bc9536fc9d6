"""``madgnet-bench doctor``: what this machine has, what is missing, and how to fix it."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Check", "main"]

_PACKAGES = (
    *("torch", "torchvision", "lightning", "timm", "torchmetrics", "albumentations", "jsonargparse"),
    *("numpy", "scipy", "pillow", "pandas", "wandb"),
)
_MALICIOUS = ("lightning", "pytorch-lightning"), ("2.6.2", "2.6.3")  # GHSA-w37p-236h-pfx3
_GIB = 2**30
_PROBE = """
import json, sys
found = {"errors": {}, "devices": []}
try:
    import torch
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found["devices"].append([device.name, device.total_memory])
    found["mps"] = torch.backends.mps.is_available()
except BaseException as error:
    found["errors"]["torch"] = f"{type(error).__name__}: {error}"
else:
    try:
        import torchvision
    except BaseException as error:
        found["errors"]["torchvision"] = f"{type(error).__name__}: {error}"
sys.stdout.write("\\n" + json.dumps(found))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        status: ``ok``; ``warn``: something is missing that not everyone needs; ``fail``: training will not work.
        name: What was looked at.
        found: What was found.
        fix: What to do about it; empty where all is well.
    """

    status: Literal["ok", "warn", "fail"]
    name: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<4}  {self.name:<15} {self.found}"
        return f"{line}\n      {'':<15} -> {self.fix}" if self.fix else line


def main(arguments: list[str]) -> int:
    """Print one line per check; return 0 where nothing fails, otherwise 1."""
    parser = argparse.ArgumentParser(prog="madgnet-bench doctor", description="Check this machine and the data root.")
    parser.add_argument("--data_root", type=Path, help="folder of the data sets (default: MADGNET_BENCH_DATA)")
    options = parser.parse_args(arguments)
    failed = 0
    for check in _checks(options.data_root):
        sys.stdout.write(f"{check}\n")
        sys.stdout.flush()
        failed += check.status == "fail"
    problems = "1 problem" if failed == 1 else f"{failed} problems"
    sys.stdout.write(f"\n{problems} to fix before training.\n" if failed else "\nReady to train.\n")
    return 1 if failed else 0


def _checks(data_root: Path | None) -> Iterator[Check]:
    yield _python(sys.version_info[:3])
    yield _own_package()
    for name in _PACKAGES:
        yield _package(name)
    yield from _devices(_probe_torch())
    yield _processor()
    yield _memory()
    yield _data_root(data_root)
    yield _writable(Path("runs"))
    yield _disk(Path.cwd())


def _python(version: tuple[int, ...]) -> Check:
    found = ".".join(map(str, version))
    if (3, 11) <= version[:2] <= (3, 13):
        return Check("ok", "python", f"{found} on {platform.platform()}")
    return Check("fail", "python", found, "use Python 3.11, 3.12 or 3.13")


def _own_package() -> Check:
    from madgnet_bench import __version__

    version = _version("madgnet-bench")
    if version == __version__:
        return Check("ok", "madgnet-bench", version)
    found = f"{__version__}, installed as {version or 'nothing'}"
    return Check("warn", "madgnet-bench", found, "run `pip install -e .` in the repository, so that the two agree")


def _package(name: str) -> Check:
    version = _version(name)
    if version is None:
        return Check("fail", name, "not installed", "run `pip install -e .` in the repository")
    for inner in (name, f"pytorch-{name}"):
        if inner in _MALICIOUS[0] and _version(inner) in _MALICIOUS[1]:
            fix = "malicious release (GHSA-w37p-236h-pfx3): remove it, replace this machine's secrets, install a later one"
            return Check("fail", name, f"{inner} {_version(inner)}", fix)
    return Check("ok", name, version)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _probe_torch() -> dict[str, Any]:
    """Import torch and torchvision in a child process, whose crash would tell us something too."""
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=300, check=False)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"errors": {"torch": "import takes longer than 5 minutes"}, "devices": []}
    except (IndexError, json.JSONDecodeError):
        return {"errors": {"torch": f"the import killed the process (exit code {done.returncode})"}, "devices": []}
    return found


def _devices(probe: dict[str, Any]) -> Iterator[Check]:
    errors = probe["errors"]
    if "torch" in errors:
        yield Check(
            "fail", "import torch", _short(errors["torch"]), "reinstall it: `pip install --force-reinstall torch torchvision`"
        )
        return
    if "torchvision" in errors:
        fix = "it fits another torch; install the pair together: `pip install --upgrade torch torchvision`"
        yield Check("fail", "import vision", _short(errors["torchvision"]), fix)
    for index, (name, size) in enumerate(probe["devices"]):
        yield Check("ok", f"gpu {index}", f"{name}, {size / _GIB:.0f} GiB")
    if not probe["devices"]:
        if probe.get("mps"):
            yield Check("ok", "gpu", "Apple GPU (mps)")
        else:
            fix = "small configurations train on the CPU; with an NVIDIA GPU, check `nvidia-smi` and torch's CUDA build"
            yield Check("warn", "gpu", "none that torch sees", fix)


def _short(text: str, length: int = 200) -> str:
    """The first line of an error."""
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    return line if len(line) <= length else f"{line[:length]} ..."


def _processor() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("ok", "processor", f"{count} CPU core{'s' * (count > 1)} for this process ({platform.machine()})")


def _memory() -> Check:
    """Physical memory, or the limit of the container that we are in."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return Check("warn", "memory", "unknown on this system", "have at least 4 GiB free")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        size = min(size, int(text))
    found = f"{size / _GIB:.1f} GiB"
    if size < 3.5 * _GIB:
        return Check("warn", "memory", found, "use small images and batches, and num_workers: 0; 4 GiB is comfortable")
    return Check("ok", "memory", found)


def _data_root(root: Path | None) -> Check:
    """Which of the known data sets lie in the data root."""
    from madgnet_bench.catalog.official import READERS

    where = root or (Path(text) if (text := os.environ.get("MADGNET_BENCH_DATA")) else None)
    if where is None:
        fix = "phantoms need none; for real images set MADGNET_BENCH_DATA or give --data_root"
        return Check("warn", "data root", "not set", fix)
    if not where.is_dir():
        return Check("fail", "data root", f"{where} does not exist", "correct --data_root or MADGNET_BENCH_DATA")
    present = [name for name in READERS if (where / name).is_dir()]
    absent = [name for name in READERS if name not in present]
    if not present:
        return Check(
            "warn", "data root", f"{where} holds none of {', '.join(absent)}", "put a data set there, in a folder of its name"
        )
    missing = f"; not there: {', '.join(absent)}" if absent else ""
    return Check("ok", "data root", f"{where}: {', '.join(present)}{missing}")


def _writable(folder: Path) -> Check:
    """Whether runs can be written; nothing is left behind."""
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return Check("ok", "runs folder", f"{folder.resolve()} can be written")
    except OSError as error:
        fix = "start from a folder that you may write to"
        return Check("fail", "runs folder", f"{folder.resolve()}: {error.strerror or error}", fix)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free in {folder}"
    if free < _GIB / 2:
        return Check("fail", "disk", found, "free some space: checkpoints and predictions need at least 0.5 GiB")
    if free < 5 * _GIB:
        return Check("warn", "disk", found, "large networks write checkpoints of some 100 MB per run")
    return Check("ok", "disk", found)
