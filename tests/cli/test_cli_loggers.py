from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from madgnet_bench.cli import loggers, main
from madgnet_bench.cli.loggers import TrackedRun, complete_loggers, with_folder
from madgnet_bench.records import RunFolder, find_runs

TINY = Path(__file__).with_name("tiny.yaml")
BOTH = json.dumps([{"class_path": "WandbLogger"}, {"class_path": "TensorBoardLogger", "init_args": {"save_dir": ""}}])


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def run(tmp_path):
    return TrackedRun(folder=RunFolder(tmp_path / "mine" / "0123456789ab"), name="UNet 4-8, phantom_fundus, seed 0")


def completed(kind, run, **arguments):
    described = Namespace(class_path=f"lightning.pytorch.loggers.{kind.__name__}", init_args=Namespace(**arguments))
    (logger,) = complete_loggers(described, kind(**arguments), run)
    return logger


def test_wandb_is_filled_in_with_the_run(run, no_key):
    logger = completed(WandbLogger, run, save_dir=".", name=None)
    assert isinstance(logger, WandbLogger)
    chosen = logger._wandb_init
    assert (chosen["id"], chosen["group"], chosen["name"]) == (run.id, "mine", run.name)
    assert (chosen["project"], chosen["resume"], chosen["mode"]) == ("madgnet-bench", "allow", "offline")
    assert logger.save_dir == str(run.folder.path)


def test_what_was_chosen_stays(run, no_key, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    assert completed(WandbLogger, run)._wandb_init["project"] == "theirs"
    chosen = completed(WandbLogger, run, project="p", name="n", group="g", save_dir=str(tmp_path), version="v")._wandb_init
    assert [chosen[name] for name in ("project", "name", "group", "dir", "id")] == ["p", "n", "g", str(tmp_path), "v"]
    assert completed(TensorBoardLogger, run, save_dir=str(tmp_path)).log_dir == str(tmp_path / "mine" / run.id)
    assert completed(TensorBoardLogger, run, save_dir="", version="v").log_dir == str(run.folder.path / "v")


def test_a_key_or_a_mode_decides_whether_it_is_offline(run, no_key, monkeypatch, tmp_path):
    assert "mode" not in completed(WandbLogger, run, offline=True)._wandb_init
    assert completed(WandbLogger, run, mode="disabled")._wandb_init["mode"] == "disabled"
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert "mode" not in completed(WandbLogger, run)._wandb_init
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert completed(WandbLogger, run)._wandb_init["mode"] == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert "mode" not in completed(WandbLogger, run)._wandb_init


def test_tensorboard_has_one_folder_and_other_loggers_stay_as_they_are(run, tmp_path):
    assert completed(TensorBoardLogger, run, save_dir="").log_dir == str(run.folder.path / "tensorboard")
    assert completed(CSVLogger, run, save_dir=str(tmp_path)).root_dir == str(tmp_path / "lightning_logs")
    assert complete_loggers(False, False, run) is False
    assert complete_loggers(None, None, run) is False


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["--trainer.logger", "TensorBoardLogger"], 1),
        (["--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger"], 1),
        (["--trainer.logger", "WandbLogger"], 0),
        (["--other", "TensorBoardLogger"], 0),
    ],
)
def test_tensorboard_may_be_named_without_a_folder(words, more):
    assert with_folder(words) == [*words, *["--trainer.logger.init_args.save_dir="] * more]


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    words = ["fit", "--config", str(TINY), "--run.root", str(tmp_path), "--trainer.logger", "TensorBoardLogger"]
    assert main(words) == 2
    assert "needs tensorboard: pip install 'madgnet-bench[tensorboard]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_tracked_runs_are_the_same_runs_and_resumed_ones_go_on(tmp_path, no_key, capsys):
    pytest.importorskip("tensorboard")
    words = ["fit", "--config", str(TINY), "--run.costs", "false", "--run.root"]
    assert main([*words, str(tmp_path / "plain")]) == 0
    capsys.readouterr()
    assert main([*words, str(tmp_path / "tracked"), "--trainer.logger", BOTH]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "wandb" in line]
    assert len(said) == 1 and "no API key is configured, so this run is kept offline" in said[0]
    (plain,), (tracked,) = find_runs(tmp_path / "plain"), find_runs(tmp_path / "tracked")
    assert plain.path.name == tracked.path.name
    assert plain.cases_file.read_bytes() == tracked.cases_file.read_bytes()
    assert plain.history_file.read_bytes() == tracked.history_file.read_bytes()
    (offline,) = tracked.path.glob("wandb/offline-run-*")
    assert offline.name.endswith(f"-{tracked.path.name}")
    scalars = read_scalars(tracked.path / "tensorboard")
    (loss, _) = (row["train/loss"] for row in tracked.read_history())
    assert scalars["train/loss"][0] == pytest.approx(loss)
    cell = tracked.read_result()["cells"][0]
    assert scalars[f"test/seen/phantom_fundus/{cell['target']}/dsc"] == [pytest.approx(cell["measures"]["dsc"])]
    assert len(scalars["hp_metric"]) == 1

    tracked.result_file.unlink()  # as if it had been killed while testing
    assert main(["fit", "--config", str(tracked.config_file), "--run.root", str(tmp_path / "tracked")]) == 0
    assert {path.name.rpartition("-")[2] for path in tracked.path.glob("wandb/offline-run-*")} == {tracked.path.name}
    assert len(read_scalars(tracked.path / "tensorboard")["hp_metric"]) == 1
    assert [path.name for path in tracked.path.iterdir() if "tensorboard" in path.name] == ["tensorboard"]
    before = sorted(tracked.path.rglob("*"))
    assert main(["test", str(tracked.path)]) == 0  # trackers follow trainings only
    assert [path for path in sorted(tracked.path.rglob("*")) if path not in before and "predictions" not in str(path)] == []


def read_scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_two_processes_are_one_tracked_run(tmp_path, no_key):
    pytest.importorskip("tensorboard")
    words = ["fit", "--config", str(TINY), "--run.root", str(tmp_path)]
    words += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.logger", BOTH]
    environment = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "madgnet_bench", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = find_runs(tmp_path)
    assert len(list(run.path.glob("wandb/offline-run-*"))) == 1
    assert len({path.parent for path in tmp_path.rglob("*tfevents*")}) == 1
    assert len(read_scalars(run.path / "tensorboard")["train/loss"]) == 2
    costs, hardware = run.read_result()["costs"], run.read_result()["hardware"]
    assert hardware["devices"] == 2
    assert costs["device_hours"] == pytest.approx(2 * run.read_result()["seconds"] / 3600, abs=1e-4)
