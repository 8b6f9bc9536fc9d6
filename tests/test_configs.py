"""Every shipped YAML is read and run: on phantoms, one batch of training and validation through the real command line."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from madgnet_bench.cli import main
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.unet import UNet

ROOT = Path(__file__).parents[1]
PHANTOMS = ROOT / "configs/data/phantoms_microscopy.yaml"
SMALL = ROOT / "configs/network/unet_16_256.yaml"

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SUITES = sorted((ROOT / "benchmarks").rglob("*.yaml"))

COMPANIONS = {"data": [SMALL], "network": [PHANTOMS], "trainer": [PHANTOMS, SMALL], "demo": []}
"""What a configuration of each folder needs beside it to be whole."""

FAST = """
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: microscopy, size: 64, cases: 10}}
    unseen:
      - {class_path: PhantomDataset, init_args: {modality: microscopy, size: 64, cases: 5, shift: 0.5, seed: 1}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 2}}
trainer:
  accelerator: cpu
  fast_dev_run: true
"""
"""Phantoms for the images, small batches, no GPU: everything else is the file's own."""

PARAMETERS = {
    "unet.yaml": 31_037_633,
    "unet_16_256.yaml": 1_942_577,
    "madgnet.yaml": 33_366_372 - 2 * (256 + 128 + 64 + 32 + 4),  # without the distance and boundary maps of four stages
    "madgnet_multi_task.yaml": 33_366_372,
    "madgnet_resnet18.yaml": 15_482_716,
    "madgnet_resnet18_multi_task.yaml": 15_482_716 + 2 * (256 + 128 + 64 + 32 + 4),
}
"""Parameters with one target."""


def test_every_configuration_is_found():
    assert len(CONFIGS) == 11
    assert SUITES == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_first_line_is_a_comment_with_a_command_that_names_real_files(path):
    comment = path.read_text().splitlines()[0]
    assert comment.startswith("# ")
    command = comment.split("madgnet-bench ", 1)[1]
    assert command.startswith("fit ")
    files = re.findall(r"--config (\S+)", command)
    assert str(path.relative_to(ROOT)) in files
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_runs(path, tmp_path, capsys):
    fast = tmp_path / "fast.yaml"
    fast.write_text(FAST)
    files = [*COMPANIONS[path.parent.name], path, fast]
    arguments = ["fit", *(word for file in files for word in ("--config", str(file))), "--protocol", "madgnet[size=64]"]
    network = yaml.safe_load(path.read_text()).get("model", {}).get("init_args", {}).get("network", {})
    if network.get("init_args", {}).get("pretrained"):
        arguments += ["--model.init_args.network.init_args.pretrained", "false"]
    assert main([*arguments, "--run.root", str(tmp_path / "runs")]) == 0, capsys.readouterr().err
    assert "fast_dev_run" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.parent.name == "network"], ids=lambda path: path.name)
def test_networks_are_built_at_full_size(path):
    described = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
    network_class = {"UNet": UNet, "MADGNet": MADGNet}[described["class_path"]]
    with torch.device("meta"):
        network = network_class(1, **{name: value for name, value in described["init_args"].items() if name != "pretrained"})
        logits = network.eval()(torch.empty(1, 3, 352, 352)).logits
    assert logits.shape == (1, 1, 352, 352)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[path.name]
