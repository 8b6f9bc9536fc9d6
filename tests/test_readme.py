"""The README's files are written out and run as it says."""

import re
from pathlib import Path

import pytest

from madgnet_bench.cli import main
from madgnet_bench.records import find_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

SQUARES = """
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen: [my_data.Squares]
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 4}}
"""
ADAM = '{"class_path": "torch.optim.Adam", "init_args": {"lr": 0.02}}'


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write every code block that opens with a comment naming its file."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+\.(?:py|yaml))\n(.*?)```", README, flags=re.DOTALL)
    for name, content in blocks:
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    return {name for name, _ in blocks}


def test_own_network_and_own_data_set_train(files, tmp_path):
    assert files == {"mine.yaml", "my_network.py", "my_network.yaml", "my_data.py"}
    (tmp_path / "squares.yaml").write_text(SQUARES)
    arguments = ["fit", "--config", "squares.yaml", "--config", "my_network.yaml", "--protocol", "madgnet[size=64]"]
    assert main([*arguments, "--trainer.max_epochs", "20", "--model.init_args.optimizer", ADAM]) == 0
    (run,) = find_runs(tmp_path / "runs")
    (cell,) = run.read_result()["cells"]
    assert (cell["dataset"], cell["target"], cell["cases"]) == ("squares", "square", 4)
    assert cell["measures"]["dsc"] > 0.95


def test_own_folders_train(files, tmp_path, capsys):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for folder in ("mine", "other_hospital"):
        for number in range(12):
            mask = np.zeros((40, 50), np.uint8)
            mask[10:25, 5 + number : 25 + number] = 255
            image = np.clip(mask // 2 + random.integers(0, 60, mask.shape), 0, 255).astype(np.uint8)
            for part, pixels in (("images", image), ("masks", mask)):
                (tmp_path / folder / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / folder / part / f"p{number // 2:02d}_{number}.png")
    assert main(["data", "check", "mine"]) == 0
    network = ROOT / "configs/network/unet_16_256.yaml"
    arguments = ["fit", "--config", "mine.yaml", "--config", str(network), "--protocol", "madgnet[size=64]"]
    assert main([*arguments, "--trainer.fast_dev_run", "true"]) == 0, capsys.readouterr().err


def test_every_file_that_it_links_to_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_configuration_that_it_names_is_there():
    named = re.findall(r"configs/\S+?\.yaml", README)
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_placeholders_of_measured_text_are_filled():
    assert "@@" not in README
