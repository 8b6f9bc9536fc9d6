"""Exported files compute what their networks do, say what they are, and are kept only if both are so."""

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.speed.reference_madgnet import ReferenceMADGNet
from madgnet_bench import __version__
from madgnet_bench.cli import export, main
from madgnet_bench.contracts import SegmentationNetwork, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.encoders import timm_encoder
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.unet import UNet
from madgnet_bench.records import RunFolder, find_runs

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CONFIG = """
protocol: madgnet[size=32,threshold=0.4]
trainer: {max_epochs: 1}
model:
  class_path: SupervisedTask
  init_args:
    network: {class_path: UNet, init_args: {widths: [4, 8]}}
    loss: DiceBCELoss
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 8}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 4}}
"""
ARGUMENT = "--model.init_args.network.init_args"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> RunFolder:
    root = tmp_path_factory.mktemp("runs")
    assert main(["fit", "--config", str(config), "--run.root", str(root), "--run.predictions", "none"]) == 0
    (folder,) = find_runs(root)
    return folder


def run_onnx(file: Path, image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    probability, logits = session.run(["probability", "logits"], {"image": image.numpy()})
    return probability, logits


def assert_equal(file: Path, network: SegmentationNetwork, image: torch.Tensor) -> None:
    probability, logits = run_onnx(file, image)
    with torch.no_grad():
        expected = network.eval()(image).logits
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(probability, expected.sigmoid().numpy(), rtol=0, atol=1e-4)


def test_a_run_becomes_one_file_that_computes_and_says_the_same(run, tmp_path, capsys):
    file = tmp_path / "new" / "model.onnx"
    assert main(["export", str(run.path), "--output", str(file), "--size", "32x48"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("UNet 4-8\nonnxruntime ")
    assert sorted(path.name for path in file.parent.iterdir()) == ["model.json", "model.onnx"]
    network = UNet(2, widths=(4, 8))
    state = torch.load(run.checkpoints / "best.ckpt", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    for cases in (1, 2, 5):
        assert_equal(file, network, torch.rand(cases, 3, 32, 48))
    described = json.loads(file.with_suffix(".json").read_text())
    check = described.pop("check")
    assert check["batches"] == [1, 3]
    assert 0 < check["probability"] <= 1e-4 and 0 < check["logits"] <= 1e-4
    assert (described["network"], described["run_id"]) == ("UNet 4-8", run.path.name)
    assert (described["targets"], described["image_size"]) == (["disc", "cup"], [32, 48])
    assert (described["threshold"], described["protocol"]) == (0.4, "madgnet[size=32,threshold=0.4]")
    assert described["package"]["version"] == __version__
    assert described["outputs"]["probability"] == ["batch", 2, 32, 48]
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    embedded = {entry.key: entry.value for entry in model.metadata_props}
    assert embedded == {name: value if isinstance(value, str) else json.dumps(value) for name, value in described.items()}
    assert described["opset"] == model.opset_import[0].version == 18


def test_nothing_of_this_machine_is_in_the_file(run, tmp_path):
    file = tmp_path / "model.onnx"
    assert main(["export", str(run.path), "--output", str(file), "--batch", "1", "--opset", "20"]) == 0
    content = file.read_bytes()
    for path in (Path(export.__file__).parents[1], Path(torch.__file__).parent, run.path):
        assert str(path).encode() not in content
    assert onnx.load(file).opset_import[0].version == 20
    with pytest.raises(Exception, match="Got: 2 Expected: 1"):
        run_onnx(file, torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("supervision", ["multi_task", pytest.param("region", marks=pytest.mark.slow)])
def test_madgnet(supervision, config, tmp_path):
    """With released weights, which need no run, or untrained."""
    torch.manual_seed(0)
    options = {"encoder": "resnet10t", "scales": 1, "frequencies": 1, "supervision": supervision}
    file = tmp_path / "madgnet.onnx"
    if supervision == "multi_task":
        released = ReferenceMADGNet(*timm_encoder("resnet10t"), num_classes=2, scales=1, frequencies=1)
        options["checkpoint"] = str(tmp_path / "released.pth")
        torch.save({"model_state_dict": released.state_dict()}, options["checkpoint"])
        network = ["--model.init_args.network", json.dumps({"class_path": "MADGNet", "init_args": options})]
        assert main(["export", "--config", str(config), *network, "--output", str(file), "--size", "64"]) == 0
        described = json.loads(file.with_suffix(".json").read_text())
        assert described["network"] == "MADGNet resnet10t released-weights S1 K1 multi-task"
        assert described["run_id"] is None
    shape = export._Shape(None, 3, 64, 64)
    built = MADGNet(2, **options).eval()
    if supervision == "region":
        export._write(built, file, shape=shape, description={"opset": 18})
    for cases in (1, 3):
        assert_equal(file, built, torch.rand(cases, 3, 64, 64))


def test_a_file_that_computes_something_else_is_not_kept(run, tmp_path, capsys, monkeypatch):
    def trace(network, *arguments, original=export._trace, **options):
        other = copy.deepcopy(network)
        other.head.bias += 1e-3
        return original(other, *arguments, **options)

    monkeypatch.setattr(export, "_trace", trace)
    file = tmp_path / "model.onnx"
    for path in (file, file.with_suffix(".json")):
        path.write_text("old")
    arguments = ["export", str(run.path), "--output", str(file), "--batch", "1", "--overwrite"]
    assert main(arguments) == 1
    assert "No file was kept" in capsys.readouterr().err
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["old", "old"]
    assert main([*arguments, "--tolerance", "0.01"]) == 0
    assert json.loads(file.with_suffix(".json").read_text())["check"]["logits"] == pytest.approx(1e-3, abs=1e-5)


def test_values_that_are_not_finite_differ_infinitely(tmp_path):
    network, shape = UNet(1, widths=(4, 8)).eval().requires_grad_(False), export._Shape(1, 3, 16, 16)
    export._write(network, tmp_path / "a.onnx", shape=shape, description={"opset": 18})
    assert export._compare(network, tmp_path / "a.onnx", shape=shape)["logits"] < 1e-4
    network.head.bias.fill_(float("nan"))
    assert export._compare(network, tmp_path / "a.onnx", shape=shape)["logits"] == float("inf")


class Branching(SegmentationNetwork):
    def forward(self, image, *, context=None):
        logits = image.mean(1, keepdim=True)
        return SegmentationOutput(-logits if logits.sum() > 0 else logits)


def test_what_cannot_be_traced_ends_in_a_sentence(tmp_path):
    shape = export._Shape(None, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"cannot be exported \(.*\); try --batch 1") as caught:
        export._write(Branching(1), tmp_path / "a.onnx", shape=shape, description={"opset": 18})
    assert "\n" not in str(caught.value)
    network = UNet(1, widths=(4, 8)).eval()
    with pytest.raises(ConfigError, match=r"applied to images \(2, 2, 16, 16\): the image has 2 channels"):
        export._write(network, tmp_path / "a.onnx", shape=shape._replace(channels=2), description={"opset": 18})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("existing", "output", "message"),
    [
        ("model.onnx", "model.onnx", "model.onnx exists; pass --overwrite"),
        ("model.json", "model.onnx", "model.json exists; pass --overwrite"),
        ("other", "model.pt", "ends in .onnx"),
    ],
)
def test_the_output_is_checked_first(existing, output, message, tmp_path, capsys):
    (tmp_path / existing).write_text("mine")
    assert main(["export", "no-such-run", "--output", str(tmp_path / output)]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / existing).read_text() == "mine"


def test_a_missing_library_names_the_extra(tmp_path, capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    assert main(["export", "no-such-run", "--output", str(tmp_path / "a.onnx")]) == 2
    assert "export needs onnxscript: pip install 'madgnet-bench[export]'" in capsys.readouterr().err


def test_untrained_and_foreign_weights_are_refused(run, config, tmp_path, capsys):
    output = ["--output", str(tmp_path / "a.onnx")]
    assert main(["export", "--config", str(config), *output]) == 2
    assert "no trained network" in capsys.readouterr().err
    assert main(["export", str(run.path), *output, f"{ARGUMENT}.widths", "[8, 8]"]) == 2
    assert "best.ckpt is of another configuration" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", [["--size", "0"], ["--size", "32x"], ["--batch", "0"], ["--batch", "any"]])
def test_bad_numbers_are_refused(option, tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["export", "run", "--output", str(tmp_path / "a.onnx"), *option])
    assert caught.value.code == 2


def test_images_have_the_asked_shape_and_range():
    for channels in (1, 3, 4):
        for image in export._images(export._Shape(2, channels, 20, 600)):
            assert image.shape == (2, channels, 20, 600) and image.dtype == torch.float32
            assert 0 <= image.min() < image.max() <= 1


def test_other_inference_is_remarked(capsys):
    export._remark_on_inference(SimpleNamespace(model=SimpleNamespace(inferer=SimpleNamespace())))
    assert "SimpleNamespace) is not part of the file" in capsys.readouterr().out


def test_help_imports_no_torch():
    code = (
        "import sys\nfrom madgnet_bench.cli import main\n"
        "try: main(['export', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'lightning', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--overwrite" in shown and "fixed in the file" in shown
    assert shown.splitlines()[-1] == "[]"
