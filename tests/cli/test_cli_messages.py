import pytest

from madgnet_bench.cli import main
from madgnet_bench.cli.classes import fitting

FIT = ["fit", "--config", "configs/data/phantoms_microscopy.yaml", "--config", "configs/network/unet_16_256.yaml"]

WRONG = {
    "unknown key": ([*FIT, "--protocl", "x"], "unknown key 'protocl'; did you mean 'protocol'?"),
    "unknown key of a class": (
        [*FIT, "--model.init_args.network.init_args.widhts", "[1, 2]"],
        "unknown key 'widhts' of UNet; did you mean 'widths'?",
    ),
    "unknown class": ([*FIT, "--model.init_args.network", "UNt"], "unknown class 'UNt' for 'network'; did you mean 'UNet'?"),
    "class of another kind": (
        [*FIT, "--model.init_args.network", "DiceBCELoss"],
        f"class DiceBCELoss does not fit for 'network'; valid: {', '.join(fitting('network'))}, or your own by its module.",
    ),
    "unknown class in its module": (
        [*FIT, "--model.init_args.network", "madgnet_bench.networks.unet.UNett"],
        "module madgnet_bench.networks.unet has no 'UNett'; did you mean 'UNet'?",
    ),
    "wrong value": ([*FIT, "--trainer.max_epochs", "three"], "trainer.max_epochs: wrong value 'three'; expected int."),
    "wrong value in a class": (
        [*FIT, "--model.init_args.network.init_args.widths", "abc"],
        "widths: wrong value 'abc'; expected Sequence.",
    ),
    "no data": (FIT[:1] + FIT[3:], "'data' of the configuration lacks seen;"),
    "no network": (FIT[:3], "'model' of the configuration lacks network, loss;"),
    "no such file": (["fit", "--config", "nope.yaml"], "File does not exist"),
    "unknown protocol": ([*FIT, "--protocol", "madgnt"], "unknown protocol 'madgnt'; did you mean 'madgnet'?"),
    "two sizes": (
        [*FIT, "--data.init_args.image_size", "32"],
        "image_size 32 is not the size of protocol madgnet[size=64]; leave it out, or choose the protocol madgnet[size=32].",
    ),
    "unknown encoder": (
        [*FIT, "--config", "configs/network/madgnet_resnet18.yaml", "--model.init_args.network.init_args.encoder", "resnet81"],
        "timm has no encoder 'resnet81'; did you mean 'resnet18'?",
    ),
    "no validation cases": (
        [*FIT, "--data.init_args.seen", '[{"class_path": "CatalogDataset", "init_args": {"name": "bbbc038"}}]'],
        "unknown data set 'bbbc038'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_explained_in_at_most_three_lines(name, capsys, tmp_path):
    arguments, expected = WRONG[name]
    assert main([*arguments, "--run.root", str(tmp_path / "runs")] if "--config" in arguments[1:] else arguments) == 2
    shown = capsys.readouterr().err.strip()
    assert expected in shown
    assert len(shown.splitlines()) <= 3
    assert not (tmp_path / "runs").exists()


def test_own_class_that_is_not_importable(capsys):
    assert main([*FIT, "--model.init_args.network", "my_package.my_file.MyNet"]) == 2
    shown = capsys.readouterr().err.strip()
    assert "my_package" in shown
    assert len(shown.splitlines()) <= 3
