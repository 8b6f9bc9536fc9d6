import json
import os
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from madgnet_bench.cli import main
from madgnet_bench.cli.planning import Planner
from madgnet_bench.cli.planning import main as answer
from madgnet_bench.contracts import SegmentationNetwork
from madgnet_bench.inference.whole_image import WholeImage
from madgnet_bench.records import find_runs

CONFIG = """
protocol: madgnet[size=32]
trainer: {max_epochs: 1, accelerator: cpu}
model:
  class_path: SupervisedTask
  init_args:
    network: {class_path: UNet, init_args: {widths: [4, 8]}}
    loss: {class_path: DiceBCELoss}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.02}}
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 10}}
    unseen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 5, shift: 0.5, seed: 1}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 2}}
"""
NETWORK = "--model.init_args.network"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def resolve(config, tmp_path):
    planner = Planner(tmp_path / "runs" / "tiny")
    words = ("--config", str(config), "--run.root", str(tmp_path / "runs"), "--run.suite", "tiny")
    return lambda *more: planner.resolve([*words, *more])


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
        for case in range(10):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(path / name / f"{case}.png")
    return path


def folder_data(folder):
    source = {"class_path": "FolderDataset", "init_args": {"path": str(folder)}}
    return ("--data.init_args.seen", json.dumps([source]), "--data.init_args.unseen", "[]")


def test_the_planned_run_is_the_one_that_fit_writes(resolve, config, tmp_path):
    planned = resolve("--seed_everything", "3", "--run.predictions", "none")
    words = ["--config", str(config), "--run.root", str(tmp_path / "runs"), "--run.suite", "tiny", "--seed_everything", "3"]
    assert main(["fit", *words, "--run.predictions", "none"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    assert run.path == tmp_path / "runs" / "tiny" / planned["run_id"]
    assert planned == {"run_id": run.path.name, "epochs": 1, "devices": 1, "accelerator": "cpu"}


def test_what_makes_another_result_makes_another_run(resolve):
    runs = [resolve(*words)["run_id"] for words in ((), ("--seed_everything", "1"), (f"{NETWORK}.init_args.widths", "[4,4]"))]
    assert len(set(runs)) == 3
    assert resolve("--data.init_args.num_workers", "2")["run_id"] == runs[0]
    assert resolve()["run_id"] == runs[0]


class Refusing(WholeImage):
    def __init__(self):
        raise ValueError("Refusing wants nothing")


class Counting(SegmentationNetwork):
    """Needs values while it is built, as networks with a drawn depth do."""

    built: ClassVar[list[str]] = []

    def __init__(self, num_targets=1, *, width=4, pretrained=False):
        super().__init__(num_targets)
        self.layer = nn.Conv2d(3, num_targets, 1)
        self.built.append(f"{num_targets} {width} {pretrained} {self.layer.weight.device}")
        self.rates = [rate.item() for rate in torch.linspace(0, 1, width)]


def test_every_network_is_built_once_without_initial_weights(resolve):
    Counting.built.clear()
    words = (NETWORK, "test_cli_planning.Counting", f"{NETWORK}.init_args.pretrained", "true")
    for more in ((), ("--seed_everything", "1"), ("--trainer.max_epochs", "2"), (f"{NETWORK}.init_args.width", "5")):
        assert "run_id" in resolve(*words, *more)
    assert Counting.built == [f"2 {width} False {device}" for width in (4, 5) for device in ("meta", "cpu")]


def test_a_refused_network_is_told_for_every_job_that_has_it(resolve):
    words = (f"{NETWORK}.init_args.widths", "[0, 4]")
    problems = [resolve(*words, "--seed_everything", seed)["problem"] for seed in ("0", "1")]
    assert problems == ["widths must be at least two positive numbers, not [0, 4]"] * 2
    assert "run_id" in resolve()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((f"{NETWORK}.init_args.widhts", "[4]"), "unknown key 'widhts' of UNet; did you mean 'widths'?"),
        ((NETWORK, "UNnet"), "unknown class 'UNnet'"),
        (("--trainer.epochs", "3"), "unknown key 'trainer.epochs'"),
        (("--trainer.max_epochs", "many"), "trainer.max_epochs"),
        (("--protocol", "madgnt"), "madgnt"),
        (("--config", "absent.yaml"), "absent.yaml"),
        (("--data.init_args.image_size", "48"), "image_size 48 is not the size of protocol"),
        (("--data.init_args.seen", "[]"), "data.seen is empty"),
        (("--trainer.fast_dev_run", "true"), "trainer.fast_dev_run writes no run"),
        (("--trainer.devices", "[0,2]"), "give a number, the runner chooses which"),
        (("--trainer.num_nodes", "2"), "a suite's job trains on one machine"),
        (("--run.root", "/elsewhere"), "run.root is /elsewhere; leave it out and pass --root /elsewhere to run."),
        ((NETWORK, "MADGNet", f"{NETWORK}.init_args.checkpoint", "gone.pth"), "checkpoint: no file gone.pth"),
        ((f"{NETWORK}.init_args.widths", "[4]"), "widths must be at least two positive numbers, not [4]"),
        ((NETWORK, "MADGNet", f"{NETWORK}.init_args.encoder", "resnot50"), "timm has no encoder 'resnot50'; did you mean"),
        (("--model.init_args.inferer", "test_cli_planning.Refusing"), "Refusing wants nothing"),
    ],
)
def test_problems_are_answers(resolve, words, problem):
    answered = resolve(*words)
    assert problem in answered["problem"]
    assert len(answered["problem"].splitlines()) <= 3


def test_a_missing_folder_of_images_is_a_problem(resolve, folder):
    assert "run_id" in resolve(*folder_data(folder))
    assert "gone" in resolve(*folder_data(folder / "gone"))["problem"]


def test_devices_and_epochs_are_those_configured(resolve):
    answered = resolve("--trainer.devices", "2", "--trainer.max_epochs", "-1", "--trainer.accelerator", "gpu")
    assert (answered["devices"], answered["epochs"], answered["accelerator"]) == (2, None, "gpu")
    assert resolve("--trainer.devices", "auto")["devices"] == 1


def test_the_data_root_of_one_job_is_not_that_of_the_next(resolve, monkeypatch, tmp_path):
    sets = json.dumps([{"class_path": "CatalogDataset", "init_args": {"name": "busi", "cases": None}}])
    words = ("--data.init_args.seen", sets, "--data.init_args.unseen", "[]")
    assert str(tmp_path / "here") in resolve(*words, "--data_root", str(tmp_path / "here"))["problem"]
    assert "no data root" in resolve(*words)["problem"]


def test_data_sets_are_listed_once_and_all_that_was_read_is_told(config, folder, tmp_path, monkeypatch):
    from madgnet_bench.catalog.folder import FolderDataset

    scans = []
    scan = FolderDataset.scan
    monkeypatch.setattr(FolderDataset, "scan", lambda self: scans.append(1) or scan(self))
    words = ["--config", str(config), "--run.root", str(tmp_path / "runs"), "--run.suite", "tiny", *folder_data(folder)]
    jobs = [[str(seed), f"key{seed}", [*words, "--seed_everything", str(seed)]] for seed in range(3)]
    asked, answered = tmp_path / "asked.json", tmp_path / "answered.json"
    asked.write_text(json.dumps({"runs": str(tmp_path / "runs" / "tiny"), "jobs": jobs}))
    assert answer([str(asked), str(answered)]) == 0
    content = json.loads(answered.read_text())
    assert len({job["run_id"] for job in content["jobs"]}) == 3
    assert len(scans) == 1
    read = content["read"]
    assert {str(config), str(folder / "images"), str(folder / "masks")} <= set(read)
    assert all(path.startswith(str(tmp_path)) or "config" in path or "egg-info" in path for path in read), list(read)
    time.sleep(0.01)
    (folder / "images" / "0.png").unlink()
    assert os.stat(folder / "images").st_mtime_ns != read[str(folder / "images")][0]
