from __future__ import annotations

import importlib.metadata
import itertools
import shutil
import subprocess
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from madgnet_bench.cli import doctor
from madgnet_bench.cli.doctor import Check, main

HEALTHY = {"errors": {}, "devices": [["Some GPU", 80 * 2**30]], "mps": False}


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(doctor, "_probe_torch", lambda: HEALTHY)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(1, 0, 2**40))
    monkeypatch.setattr(doctor, "_package", lambda name: Check("ok", name, "1.0"))
    monkeypatch.delenv("MADGNET_BENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    status = main(list(arguments))
    lines = [line for line in capsys.readouterr().out.splitlines() if line[:4] in ("ok  ", "warn", "fail")]
    return status, {line[6:21].strip(): line for line in lines}


def fake_versions(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_a_healthy_machine(healthy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = report(capsys)
    assert status == 0
    assert not [line for line in lines.values() if line.startswith("fail")]
    assert lines["gpu 0"] == "ok    gpu 0           Some GPU, 80 GiB"
    assert lines["data root"].startswith("warn")
    assert {"python", "madgnet-bench", "torch", "wandb", "processor", "memory", "runs folder", "disk"} <= set(lines)


def test_one_failure_is_exit_code_1(healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        doctor, "_probe_torch", lambda: {"errors": {"torchvision": "RuntimeError: no nms\nmore"}, "devices": []}
    )
    assert main([]) == 1
    printed = capsys.readouterr().out
    assert "fail  import vision   RuntimeError: no nms\n" in printed
    assert "-> it fits another torch; install the pair together" in printed
    assert printed.endswith("1 problem to fix before training.\n")


def test_a_torch_that_does_not_import() -> None:
    (check,) = doctor._devices({"errors": {"torch": "OSError: " + "x" * 500}, "devices": []})
    assert check.status == "fail"
    assert len(check.found) < 250


@pytest.mark.parametrize(("mps", "status"), [(False, "warn"), (True, "ok")])
def test_a_machine_without_nvidia_gpu(mps: bool, status: str) -> None:
    (check,) = doctor._devices({"errors": {}, "devices": [], "mps": mps})
    assert check.status == status


def test_the_probe_really_imports_torch() -> None:
    probe = doctor._probe_torch()
    assert probe["errors"] == {}
    assert isinstance(probe["devices"], list)


@pytest.mark.parametrize(
    ("stdout", "what"), [("", "killed the process"), ("no json", "killed the process"), (None, "5 minutes")]
)
def test_a_probe_that_dies(monkeypatch: pytest.MonkeyPatch, stdout: str | None, what: str) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        if stdout is None:
            raise subprocess.TimeoutExpired("python", 300)
        return subprocess.CompletedProcess([], -11, stdout, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert what in doctor._probe_torch()["errors"]["torch"]


@pytest.mark.parametrize(
    "versions",
    [{"lightning": "2.6.2"}, {"lightning": "2.6.3"}, {"lightning": "2.6.4", "pytorch-lightning": "2.6.3"}],
)
def test_malicious_releases_fail(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    fake_versions(monkeypatch, versions)
    check = doctor._package("lightning")
    assert check.status == "fail" and "malicious" in check.fix


def test_missing_and_present_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, {"timm": "1.0.20", "lightning": "2.6.6", "madgnet-bench": "0.0.0"})
    assert doctor._package("timm") == Check("ok", "timm", "1.0.20")
    assert doctor._package("lightning").status == "ok"
    assert doctor._package("wandb").status == "fail"
    assert doctor._own_package().status == "warn"


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 1), "fail"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "fail")]
)
def test_python_versions(version: tuple[int, ...], status: str) -> None:
    assert doctor._python(version).status == status


def test_data_root_by_argument_and_by_environment(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (healthy / "data" / "busi").mkdir(parents=True)
    _, lines = report(capsys, "--data_root", str(healthy / "data"))
    assert lines["data root"].startswith(f"ok    data root       {healthy / 'data'}: busi; not there: ")
    monkeypatch.setenv("MADGNET_BENCH_DATA", str(healthy / "empty"))
    status, lines = report(capsys)
    assert status == 1 and "does not exist" in lines["data root"]
    (healthy / "empty").mkdir()
    status, lines = report(capsys)
    assert status == 0 and lines["data root"].startswith("warn") and "holds none of" in lines["data root"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    assert doctor._writable(tmp_path / "runs").status == "ok"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor._writable(tmp_path / "runs")
    assert check.status == "fail" and "Permission denied" in check.found


@pytest.mark.parametrize(("gib", "status"), [(0.1, "fail"), (2, "warn"), (50, "ok")])
def test_free_disk(monkeypatch: pytest.MonkeyPatch, gib: float, status: str) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 0, int(gib * 2**30)))
    assert doctor._disk(Path.cwd()).status == status


def test_every_warning_and_failure_says_what_to_do(
    healthy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_probe_torch", lambda: {"errors": {"torchvision": "x"}, "devices": []})
    main(["--data_root", "nowhere"])
    lines = capsys.readouterr().out.splitlines()
    for line, following in itertools.pairwise(lines):
        if line.startswith(("warn", "fail")):
            assert following.strip().startswith("-> ")
