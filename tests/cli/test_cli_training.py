"""The command line end to end, on phantoms of 32 pixels."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.reference_madgnet import ReferenceMADGNet
from madgnet_bench.bench.store import load_runs
from madgnet_bench.bench.tables import build_tables
from madgnet_bench.cli import main
from madgnet_bench.metrics.calibration import calibration_error
from madgnet_bench.networks.encoders import timm_encoder
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.protocol import Protocol
from madgnet_bench.records import RunFolder, find_runs, summarize

CONFIG = """
protocol: madgnet[size=32]
trainer:
  max_epochs: 3
model:
  class_path: SupervisedTask
  init_args:
    network: {class_path: UNet, init_args: {widths: [8, 16, 32]}}
    loss: {class_path: DiceBCELoss}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.02}}
    schedule: {class_path: Cosine}
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 40}}
    unseen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 32, cases: 6, shift: 0.5, seed: 1}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 2}}
    augmentation: {class_path: FlipRotate}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def done(config, tmp_path_factory) -> RunFolder:
    root = tmp_path_factory.mktemp("done")
    assert main(["fit", "--config", str(config), "--run.root", str(root), "--run.predictions", "all"]) == 0
    (folder,) = find_runs(root)
    return folder


def test_fit_leaves_a_complete_run_folder(done):
    assert done.state == "done"
    names = {path.name for path in done.path.iterdir()}
    expected = {"config.yaml", "environment.json", "manifests", "history.csv", "checkpoints", "cases.csv", "curves.npz"}
    assert names == expected | {"predictions", "result.json", "replicates.npz", "log.txt", ".lock"}
    assert {path.name for path in done.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert [row["epoch"] for row in done.read_history()] == [0, 1, 2]
    assert "epoch 3/3" in (done.path / "log.txt").read_text()


def test_the_result_tells_what_made_it(done):
    result = done.read_result()
    assert result["run_id"] == done.path.name
    assert result["network"] == "UNet 8-32"
    assert result["training_sets"] == ["phantom_fundus"]
    assert (result["seed"], result["epochs"], result["image_size"]) == (0, 3, 32)
    assert result["protocol"] == "madgnet[size=32]"
    assert result["checkpoint"]["rule"] == "best"
    best = max(done.read_history(), key=lambda row: row["val/dsc"])
    assert result["checkpoint"]["value"] == best["val/dsc"]
    for cell, from_cases in zip(result["cells"], summarize(done.read_cases()), strict=True):
        pooled = {name: cell["measures"].pop(name) for name in Protocol.parse(cell["protocol"]).pooled_measures}
        assert cell == from_cases
        chosen = [(row.dataset, row.target) == (cell["dataset"], cell["target"]) for row in done.read_cases()]
        counts = done.read_curves()["calibration"][chosen]
        assert pooled == {"ece": calibration_error(torch.from_numpy(counts.sum(0))).item()}
    assert set(result["manifests"]) == {"phantom_fundus", "phantom_fundus/shift0.5"}


def test_training_learns_and_the_shift_costs(done):
    cells = {(cell["setting"], cell["target"]): cell["measures"]["dsc"] for cell in done.read_result()["cells"]}
    assert cells["seen", "disc"] > 0.6
    assert cells["unseen", "disc"] < cells["seen", "disc"]


def test_every_test_case_and_target_has_one_row(done):
    rows = done.read_cases()
    cells = {(row.setting, row.dataset, row.target) for row in rows}
    assert cells == {
        (setting, dataset, target)
        for setting, dataset in (("seen", "phantom_fundus"), ("unseen", "phantom_fundus/shift0.5"))
        for target in ("disc", "cup")
    }
    with (done.path / "manifests" / "phantom_fundus.csv").open() as stream:
        test = {record["case_id"] for record in csv.DictReader(stream) if record["split"] == "test"}
    assert {row.case_id for row in rows if row.setting == "seen"} == test
    assert sum(row.setting == "unseen" for row in rows) == 2 * 6


def test_predictions_are_kept_for_every_case_and_agree_with_the_table(done):
    rows = {(r.dataset, r.target, r.case_id): r for r in done.read_cases() if r.target == "disc"}
    for (dataset, target, case_id), row in rows.items():
        mask = Image.open(done.path / "predictions" / dataset.replace("/", "_") / "masks" / target / f"{case_id}.png")
        assert mask.size == (32, 32)
        predicts_nothing = not np.asarray(mask).any()
        assert predicts_nothing == (row.empty_case in ("prediction", "both"))


def test_a_finished_run_is_not_repeated(done, config, capsys):
    before = {path: path.stat().st_mtime_ns for path in done.path.rglob("*")}
    assert main(["fit", "--config", str(done.config_file)]) == 0
    assert "already done" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in done.path.rglob("*")} == before


def test_the_same_configuration_gives_the_same_bytes(done, config, tmp_path):
    assert main(["fit", "--config", str(config), "--run.root", str(tmp_path), "--run.predictions", "none"]) == 0
    (again,) = find_runs(tmp_path)
    assert again.path.name == done.path.name
    assert again.cases_file.read_bytes() == done.cases_file.read_bytes()
    assert again.history_file.read_bytes() == done.history_file.read_bytes()
    assert not (again.path / "predictions").exists()


def test_another_seed_is_another_run(done, config, tmp_path):
    arguments = ["fit", "--config", str(config), "--run.root", str(tmp_path), "--seed_everything", "1"]
    assert main([*arguments, "--trainer.max_epochs", "1"]) == 0
    (other,) = find_runs(tmp_path)
    assert other.path.name != done.path.name
    assert other.read_result()["seed"] == 1


def test_a_killed_run_is_resumed_and_ends_as_an_undisturbed_one(config, tmp_path):
    arguments = ["fit", "--config", str(config), "--trainer.max_epochs", "6", "--run.predictions", "none", "--run.root"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "madgnet_bench", *arguments, str(tmp_path / "killed")]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    killed = None
    while time.monotonic() < deadline and child.poll() is None:
        found = find_runs(tmp_path / "killed") if (tmp_path / "killed").exists() else []
        if found and len(found[0].read_history()) >= 2:
            child.send_signal(signal.SIGKILL)
            killed = found[0]
            break
        time.sleep(0.01)
    child.wait()
    assert killed is not None, child.stderr.read().decode()
    assert killed.state == "interrupted"
    assert main([*arguments, str(tmp_path / "killed")]) == 0
    assert killed.state == "done"
    assert "resuming the interrupted run" in (killed.path / "log.txt").read_text()
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    (whole,) = find_runs(tmp_path / "whole")
    assert killed.history_file.read_bytes() == whole.history_file.read_bytes()
    assert killed.cases_file.read_bytes() == whole.cases_file.read_bytes()


def test_a_run_killed_while_testing_is_tested_without_training_again(done, tmp_path, capsys):
    copy = RunFolder(tmp_path / "adhoc" / done.path.name)
    shutil.copytree(done.path, copy.path)
    copy.result_file.unlink()
    copy.cases_file.write_text("a table that was cut off")
    last = (copy.checkpoints / "last.ckpt").read_bytes()
    assert main(["fit", "--config", str(copy.config_file), "--run.root", str(tmp_path)]) == 0
    assert "epoch" not in capsys.readouterr().out.split("tested best.ckpt")[0]
    assert copy.cases_file.read_bytes() == done.cases_file.read_bytes()
    assert (copy.checkpoints / "last.ckpt").read_bytes() == last


def test_overwrite_trains_again_to_the_same_numbers(done, tmp_path):
    copy = RunFolder(tmp_path / "adhoc" / done.path.name)
    shutil.copytree(done.path, copy.path)
    arguments = ["fit", "--config", str(copy.config_file), "--run.root", str(tmp_path), "--run.overwrite", "true"]
    assert main(arguments) == 0
    assert copy.cases_file.read_bytes() == done.cases_file.read_bytes()
    assert [row["epoch"] for row in copy.read_history()] == [0, 1, 2]
    assert "overwrite: false" in copy.config_file.read_text()  # who repeats it later need not mean that


def test_a_batch_in_parts_is_the_same_run_with_a_recorded_deviation(done, config, tmp_path):
    arguments = ["fit", "--config", str(config), "--run.root", str(tmp_path), "--run.predictions", "none"]
    assert main([*arguments, "--run.batch_parts", "2"]) == 0
    (cut,) = find_runs(tmp_path)
    assert cut.path.name == done.path.name
    assert done.read_result()["deviations"] == []
    assert cut.read_result()["deviations"] == ["each batch was trained in 2 parts with accumulated gradients."]
    steps = [torch.load(run.checkpoints / "last.ckpt", weights_only=True)["global_step"] for run in (cut, done)]
    assert steps[0] == steps[1]
    (run,) = load_runs([cut.path]).runs
    assert any("trained in 2 parts" in note for table in build_tables([run]) for note in table.notes)
    assert main([*arguments, "--run.overwrite", "true", "--run.batch_parts", "3"]) == 2


def test_test_writes_the_tables_of_a_run_again(done, tmp_path):
    copy = RunFolder(tmp_path / done.path.name)
    shutil.copytree(done.path, copy.path)
    cases = copy.cases_file.read_bytes()
    copy.cases_file.unlink()
    copy.result_file.unlink()
    assert copy.state == "interrupted"
    assert main(["test", str(copy.path)]) == 0
    assert copy.cases_file.read_bytes() == cases
    before, after = done.read_result(), copy.read_result()
    assert before["cells"] == after["cells"]
    assert before["seconds"] == after["seconds"]


def test_test_of_a_checkpoint_prints_and_writes_nothing(done, capsys, tmp_path, monkeypatch):
    before = sorted(done.path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    arguments = ["test", "--config", str(done.config_file), "--ckpt_path", str(done.checkpoints / "last.ckpt")]
    assert main(arguments) == 0
    assert "phantom_fundus/shift0.5" in capsys.readouterr().out
    assert sorted(done.path.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_validate_prints_the_measures_of_the_chosen_checkpoint(done, capsys):
    assert main(["validate", str(done.path)]) == 0
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(shown["val/dsc"]) == pytest.approx(done.read_result()["checkpoint"]["value"], abs=1e-4)


def test_predict_writes_masks_and_overlays_at_native_size(done, tmp_path):
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(images / "colour.png")
    Image.fromarray(random.integers(0, 255, (50, 30), np.uint8)).save(images / "more" / "grey.jpg")
    assert main(["predict", str(done.path), "--images", str(images), "--output", str(tmp_path / "out")]) == 0
    for name, size in (("colour", (60, 40)), ("more/grey", (30, 50))):
        for target in ("disc", "cup"):
            mask = Image.open(tmp_path / "out" / "masks" / target / f"{name}.png")
            assert mask.size == size
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
        assert Image.open(tmp_path / "out" / "overlays" / f"{name}.png").size == size


def test_predict_neither_writes_over_files_nor_reads_its_own(done, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save("a.png")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(".hidden.png")
    words = ["predict", str(done.path), "--images", "."]
    assert main(words) == 0 and "1 images" in capsys.readouterr().out
    before = Path("predictions/overlays/a.png").stat().st_mtime_ns
    assert main(words) == 2
    assert "predictions/masks holds files already" in capsys.readouterr().err
    assert Path("predictions/overlays/a.png").stat().st_mtime_ns == before
    assert main([*words, "--overwrite"]) == 0 and "1 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--trainer.limit_test_batches", "1"], "not all batches were tested"),
        (["--protocol", "madgnet[size=32,threshold=0.9]"], "its protocol is madgnet[size=32], and this was"),
        (["--ckpt_path", "LAST"], "it is tested by its best checkpoint, and this was"),
    ],
)
def test_another_test_of_a_run_is_printed_and_not_kept(words, reason, done, capsys):
    before = {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in (done.path / "predictions").rglob("*")}
    words = [str(done.checkpoints / "last.ckpt") if word == "LAST" else word for word in words]
    assert main(["test", str(done.path), *words, "--run.predictions", "all"]) == 0
    shown = capsys.readouterr()
    assert f"nothing was written to {done.path}: {reason}" in shown.out + shown.err
    assert {path: path.read_bytes() for path in done.path.rglob("*") if path.is_file()} == before
    assert times and {path: path.stat().st_mtime_ns for path in times} == times


def test_an_interrupted_run_is_not_ended_by_a_test_and_may_be_moved(done, tmp_path, capsys):
    """As after two of three epochs, the first of which was the best; then the folder is moved, and the run resumed."""
    moved = RunFolder(shutil.copytree(done.path, tmp_path / "moved" / "adhoc" / done.path.name))
    moved.result_file.unlink()
    state = torch.load(moved.checkpoints / "last.ckpt", weights_only=True)
    best = next(value for key, value in state["callbacks"].items() if "val/dsc" in key)
    path, score = best["best_model_path"], torch.tensor(2.0)  # no later epoch can reach it
    best.update(best_model_score=score, kth_value=score, best_k_models={path: score}, kth_best_model_path=path)
    state["epoch"] = 1
    torch.save(state, moved.checkpoints / "last.ckpt")
    first = (moved.checkpoints / "best.ckpt").read_bytes()
    assert main(["test", str(moved.path), "--run.predictions", "none"]) == 0
    shown = capsys.readouterr()
    assert "its training ended after 2 of 3 epochs" in shown.out + shown.err and not moved.result_file.exists()
    words = ["--config", str(moved.config_file), "--run.root", str(tmp_path / "moved"), "--run.predictions", "none"]
    assert main(["fit", *words]) == 0
    assert moved.state == "done" and (moved.checkpoints / "best.ckpt").read_bytes() == first


def test_a_training_of_no_epoch_is_named(config, tmp_path, capsys):
    words = ["fit", "--config", str(config), "--run.root", str(tmp_path), "--trainer.max_epochs", "0"]
    assert main(words) == 2
    assert "the training left no checkpoint; train at least one epoch" in capsys.readouterr().err


def test_predict_names_everything_wrong_with_the_images(done, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("not an image")
    assert main(["predict", str(done.path), "--images", str(images), "--output", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert "empty.png" in shown
    assert "text.jpg" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_what_is_not_a_run_folder_is_refused(command, tmp_path, capsys):
    extra = ["--images", str(tmp_path)] if command == "predict" else []
    assert main([command, str(tmp_path), *extra]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_bad_folder_is_reported_whole_before_anything_is_written(config, tmp_path, capsys):
    folder = tmp_path / "mine"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    pixels = np.zeros((16, 16, 3), np.uint8)
    for stem in "abcdefghij":
        Image.fromarray(pixels).save(folder / "images" / f"{stem}.png")
        Image.fromarray(pixels[..., 0]).save(folder / "masks" / f"{stem}.png")
    Image.fromarray(pixels[..., 0] + 77).save(folder / "masks" / "a.png")
    Image.fromarray(pixels[:8, :, 0]).save(folder / "masks" / "b.png")
    (folder / "masks" / "c.png").unlink()
    whole = (folder / "images" / "d.png").read_bytes()
    (folder / "images" / "d.png").write_bytes(whole[: len(whole) // 2])
    override = tmp_path / "data.yaml"
    override.write_text(
        f"data:\n  class_path: SeenUnseenDataModule\n  init_args:\n    unseen: []\n    seen:\n"
        f"      - {{class_path: FolderDataset, init_args: {{path: {json.dumps(str(folder))}}}}}\n"
    )
    arguments = ["fit", "--config", str(config), "--config", str(override), "--run.root", str(tmp_path / "runs")]
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert "4 problems" in shown
    assert all(f"{stem}.png" in shown for stem in "abcd")
    assert not (tmp_path / "runs").exists()


def test_pretrained_weights_that_cannot_be_had_end_in_one_sentence(config, tmp_path, capsys, monkeypatch):
    import timm

    def offline(*args, pretrained=False, create=timm.create_model, **kwargs):
        if pretrained:
            raise OSError("no route to host")
        return create(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    network = ["--model.init_args.network", "MADGNet", "--model.init_args.network.init_args.encoder", "resnet10t"]
    arguments = ["fit", "--config", str(config), "--run.root", str(tmp_path / "runs"), *network]
    assert main([*arguments, "--model.init_args.network.init_args.pretrained", "true"]) == 2
    shown = capsys.readouterr().err.strip()
    assert len(shown.splitlines()) == 1
    assert "set pretrained: false" in shown


MADGNET = {"encoder": "test_resnet", "scales": 1, "frequencies": 1, "supervision": "multi_task"}
ARGUMENT = "--model.init_args.network.init_args"


@pytest.fixture(scope="module")
def madgnet_config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "madgnet.yaml"
    shorter = CONFIG.replace("max_epochs: 3", "max_epochs: 1").replace("cases: 40", "cases: 10")
    network = json.dumps({"class_path": "MADGNet", "init_args": MADGNET})
    path.write_text(shorter.replace("{class_path: UNet, init_args: {widths: [8, 16, 32]}}", network))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    features, channels = timm_encoder("test_resnet")
    torch.save(features.state_dict(), folder / "encoder.pth")
    released = ReferenceMADGNet(features, channels, num_classes=2, scales=1, frequencies=1)
    torch.save({"model_state_dict": released.state_dict()}, folder / "released.pth")
    return {"checkpoint": folder / "released.pth", "encoder_checkpoint": folder / "encoder.pth"}


@pytest.fixture
def no_downloads(monkeypatch):
    monkeypatch.setattr("madgnet_bench.networks.encoders._with_weights", lambda *_: pytest.fail("looked for other weights"))


def test_released_weights_are_tested_and_predict_without_a_run(madgnet_config, weights, no_downloads, tmp_path, capsys):
    released = [f"{ARGUMENT}.checkpoint", str(weights["checkpoint"]), f"{ARGUMENT}.pretrained", "true"]
    assert main(["test", "--config", str(madgnet_config), *released]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "MADGNet test_resnet released-weights S1 K1 multi-task"
    assert any(line.startswith("unseen") for line in shown)
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "one.png")
    folders = ["--images", str(tmp_path / "images"), "--output", str(tmp_path / "out")]
    assert main(["predict", "--config", str(madgnet_config), *released, *folders]) == 0
    network = MADGNet(2, checkpoint=weights["checkpoint"], **MADGNET).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).logits[0]
    sure = logits.abs().numpy() > 1e-4
    for target, expected, counted in zip(("disc", "cup"), logits.numpy() >= 0, sure, strict=True):
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / target / "one.png")) > 0
        assert (mask == expected)[counted].all()
        assert counted.mean() > 0.9


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_a_network_without_trained_weights_is_refused_before_it_is_built(
    command, madgnet_config, weights, no_downloads, tmp_path, capsys
):
    extra = ["--images", str(tmp_path)] if command == "predict" else []
    encoder = [f"{ARGUMENT}.encoder_checkpoint", str(weights["encoder_checkpoint"]), f"{ARGUMENT}.pretrained", "true"]
    assert main([command, "--config", str(madgnet_config), *encoder, *extra]) == 2
    assert "no trained network: name a run folder" in capsys.readouterr().err


def test_what_is_no_checkpoint_of_a_run_is_refused(madgnet_config, weights, tmp_path, capsys):
    (tmp_path / "page.ckpt").write_text("<!DOCTYPE html>")
    for path, message in (
        (weights["checkpoint"], f"Released weights are not named with --ckpt_path but with {ARGUMENT}.checkpoint"),
        (tmp_path / "page.ckpt", "not a checkpoint of a run, or damaged"),
        (tmp_path / "absent.ckpt", "no such checkpoint"),
    ):
        assert main(["test", "--config", str(madgnet_config), "--ckpt_path", str(path)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["checkpoint", "encoder_checkpoint"])
def test_a_run_outlives_the_file_that_it_started_from(argument, madgnet_config, weights, tmp_path, capsys, request):
    file, elsewhere = tmp_path / "first.pth", tmp_path / "second.pth"
    for path in (file, elsewhere):
        shutil.copy(weights[argument], path)
    fit = ["fit", "--config", str(madgnet_config), "--run.root", str(tmp_path / "runs"), "--run.predictions", "none"]
    assert main([*fit, f"{ARGUMENT}.{argument}", str(file)]) == 0
    (run,) = find_runs(tmp_path / "runs")
    assert main([*fit, f"{ARGUMENT}.{argument}", str(elsewhere)]) == 0
    assert f"{run.path}: already done" in capsys.readouterr().out  # the same content elsewhere is the same run
    before, cases = run.read_result(), run.cases_file.read_bytes()
    word = {"checkpoint": "released-weights", "encoder_checkpoint": "pretrained"}[argument]
    assert before["network"] == f"MADGNet test_resnet {word} S1 K1 multi-task"
    assert f"{argument}: sha256 " in run.config_file.read_text()
    file.unlink()
    elsewhere.unlink()
    request.getfixturevalue("no_downloads")
    assert main(["test", str(run.path)]) == 0
    assert run.cases_file.read_bytes() == cases
    assert run.read_result()["network"] == before["network"]


def test_a_checkpoint_names_its_network_but_for_those_of_earlier_versions(madgnet_config, weights, tmp_path, capsys):
    file = tmp_path / "weights.pth"
    shutil.copy(weights["checkpoint"], file)
    configured = ["--config", str(madgnet_config), f"{ARGUMENT}.checkpoint", str(file)]
    assert main(["fit", *configured, "--run.root", str(tmp_path / "runs"), "--run.predictions", "none"]) == 0
    (run,) = find_runs(tmp_path / "runs")
    file.unlink()
    best = run.checkpoints / "best.ckpt"
    capsys.readouterr()
    assert main(["validate", *configured, "--ckpt_path", str(best)]) == 0
    state = torch.load(best, weights_only=True)
    assert state["callbacks"].pop("NetworkLabel") == {"label": run.read_result()["network"]}
    torch.save(state, best)
    assert main(["validate", *configured, "--ckpt_path", str(best)]) == 2
    assert f"{file}: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("joined", [False, True])
def test_null_on_the_command_line_takes_weights_away(joined, capsys):
    root = Path(__file__).parents[2] / "configs"
    words = ["--model.init_args.network.init_args.checkpoint", "null"]
    files = [root / "data" / "phantoms_microscopy.yaml", root / "network" / "sam_point.yaml"]
    options = [word for file in files for word in ("--config", str(file))]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *options, *(["=".join(words)] if joined else words), "--print_config"])
    assert ended.value.code in (0, None)
    assert "checkpoint: null" in capsys.readouterr().out
