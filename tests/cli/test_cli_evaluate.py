"""`evaluate` gives the suite's own numbers for masks and maps of any framework, or one table of all that is wrong."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from madgnet_bench.bench.store import load_runs
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.cli import main
from madgnet_bench.metrics.measures import measure_cases
from madgnet_bench.protocol import Protocol
from madgnet_bench.records import RunFolder, find_runs

CONFIG = """
protocol: madgnet[size=32]
trainer: {max_epochs: 2}
model:
  class_path: SupervisedTask
  init_args:
    network: {class_path: UNet, init_args: {widths: [8, 16]}}
    loss: DiceBCELoss
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.02}}
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 48, cases: 20}}
    unseen:
      - {class_path: PhantomDataset, init_args: {modality: fundus, size: 48, cases: 6, shift: 0.5}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 4}}
"""


def save(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix in (".nii", ".gz"):
        nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([0.5, 0.5, 3.0, 1.0])), path)
    else:
        Image.fromarray(values).save(path)
    return path


def shapes(count=3, *, size=(20, 24), seed=0):
    """References, and probabilities that miss some of them."""
    draw = np.random.default_rng(seed)
    reference = np.zeros((count, *size), bool)
    for case in reference:
        case[
            tuple(slice(start, start + side // 2) for start, side in zip(draw.integers(1, 8, len(size)), size, strict=True))
        ] = True
    probability = np.clip(0.6 * reference + 0.6 * draw.random(reference.shape), 0, 1).astype(np.float32)
    return probability, reference


def evaluate(*arguments):
    return main(["evaluate", *map(str, arguments)])


def cells(folder: Path):
    return RunFolder(folder).read_result()["cells"]


def expected(probability, reference, protocol, **options):
    """Means over the cases, straight from the per-case functions."""
    maps = (torch.from_numpy(np.asarray(values, np.float32))[:, None] for values in (probability, reference))
    found = measure_cases(*maps, protocol=Protocol.parse(protocol), **options)
    return {name: found[name].mean().item() for name in Protocol.parse(protocol).measures}


def test_masks_of_a_fit_score_as_the_fit_says(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    arguments = ["--config", str(tmp_path / "tiny.yaml"), "--run.root", str(tmp_path / "runs"), "--run.predictions", "all"]
    assert main(["fit", *arguments]) == 0
    (run,) = find_runs(tmp_path / "runs")
    rows = {(row.dataset, row.target, row.case_id): row for row in run.read_cases()}
    dataset = PhantomDataset("fundus", size=48, cases=6, shift=0.5)
    for case in dataset.manifest:
        for target, mask in zip(dataset.card.targets, dataset.read_mask(case), strict=True):
            save(tmp_path / "masks" / target / f"{case.case_id}.png", mask * 255)
    predictions = run.path / "predictions" / dataset.name.replace("/", "_") / "masks"
    options = ["--protocol", "madgnet[size=32]", "--target", "disc", "cup", "--name", dataset.name]
    assert evaluate(predictions, tmp_path / "masks", *options, "--output", tmp_path / "scores") == 0
    scored = RunFolder(tmp_path / "scores").read_cases()
    assert len(scored) == 12
    for row in scored:
        of_fit = rows[row.dataset, row.target, row.case_id]
        assert row.setting == "evaluated" and row.empty_case == of_fit.empty_case
        hard = ("dsc", "iou", "miou", "precision", "recall", "mae", "wf", "sm", "em", "hd95", "assd", "nsd")
        assert {name: row.measures[name] for name in hard} == {name: of_fit.measures[name] for name in hard}
    assert len({row.measures["dsc"] for row in scored}) > 6  # no table of zeros
    assert load_runs([tmp_path]).runs == load_runs([run.path]).runs  # scores are no run of the leaderboard


@pytest.mark.parametrize("protocol", ["native", "pranet", "madgnet[size=24,maps=soft]"])
def test_probabilities_of_npy_and_png(tmp_path, protocol):
    probability, reference = shapes()
    levels = np.round(probability * 255).astype(np.uint8)
    deep = np.round(probability * 65535).astype(np.uint16)
    for case in range(3):
        save(tmp_path / "npy" / f"c{case}.npy", probability[case])
        save(tmp_path / "png" / f"c{case}.png", levels[case])
        save(tmp_path / "deep" / f"c{case}.png", deep[case])
        save(tmp_path / "masks" / f"c{case}.png", reference[case].astype(np.uint8) * 255)
    for kind, maps in (("npy", probability), ("png", levels / np.float32(255)), ("deep", deep / np.float32(65535))):
        arguments = (tmp_path / kind, tmp_path / "masks", "--protocol", protocol, "--maps", "probability")
        assert evaluate(*arguments, "--output", tmp_path / f"{kind}.out") == 0
        (cell,) = cells(tmp_path / f"{kind}.out")
        assert (cell["dataset"], cell["target"], cell["cases"]) == ("masks", "foreground", 3)
        if not protocol.startswith("madgnet"):
            known = expected(maps, reference, protocol)
            assert {name: cell["measures"][name] for name in known} == pytest.approx(known, abs=1e-7)
        assert set(cell["measures"]) == {*Protocol.parse(protocol).measures, *Protocol.parse(protocol).pooled_measures}


def test_volumes_with_their_spacing(tmp_path, capsys):
    probability, reference = shapes(2, size=(6, 10, 12))
    for case in range(2):
        save(tmp_path / "p" / f"c{case}.nii.gz", probability[case])
        save(tmp_path / "hard" / f"c{case}.nii.gz", (probability[case] >= 0.5).astype(np.uint8))
        save(tmp_path / "r" / f"c{case}.nii.gz", reference[case].astype(np.uint8))
    soft = (tmp_path / "p", tmp_path / "r", "--protocol", "volume", "--maps", "probability", "--output", tmp_path / "soft")
    assert evaluate(*soft) == 0 and "mm" in capsys.readouterr().out
    known = expected(probability, reference, "volume", spacing=(3.0, 0.5, 0.5))
    found = cells(tmp_path / "soft")[0]["measures"]
    assert {name: found[name] for name in known} == pytest.approx(known, abs=1e-7)
    assert evaluate(tmp_path / "hard", tmp_path / "r", "--protocol", "volume", "--output", tmp_path / "out") == 0
    hard = cells(tmp_path / "out")[0]["measures"]
    assert [hard[name] for name in ("dsc", "hd95", "nsd")] == [found[name] for name in ("dsc", "hd95", "nsd")]


def test_two_targets_of_label_maps(tmp_path, capsys):
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0, 1:7, 1:7], labels[0, 3:5, 3:5] = 1, 2
    labels[1, 1:7, 1:7] = 1
    predicted = labels.copy()
    predicted[0, 3:5, 3:5] = 1  # the cup is missed, the disc around it is right
    predicted[1, 7, 7] = 4
    for case in range(2):
        save(tmp_path / "p" / f"c{case}.png", predicted[case])
        save(tmp_path / "r" / f"c{case}.png", labels[case])
    arguments = (tmp_path / "p", tmp_path / "r", "--protocol", "native", "--target", "disc=1,2", "cup=2")
    assert evaluate(*arguments) == 2
    assert "label that no target has: it holds 4" in capsys.readouterr().err
    assert evaluate(*arguments, "--background", "4", "--csv", tmp_path / "scores.csv") == 0
    shown = capsys.readouterr().out
    assert "r: cup, 2 cases, protocol native\nempty masks: neither 0, reference 0, prediction 1, both 1" in shown
    with (tmp_path / "scores.csv").open() as stream:
        cup, disc = csv.DictReader(stream)
    assert (disc["target"], float(disc["dsc"]), float(disc["hd95"])) == ("disc", 1, 0)
    assert (cup["target"], float(cup["dsc"]), cup["empty_both"]) == ("cup", 0.5, "1")


def test_known_answers_of_pranet_and_native(tmp_path):
    reference = np.zeros((4, 8), np.uint8)
    reference[:, :4] = 255
    save(tmp_path / "r/c.png", reference)
    save(tmp_path / "p/c.npy", np.where(reference, 0.75, 0.25))
    arguments = (tmp_path / "p", tmp_path / "r", "--maps", "probability", "--protocol")
    assert evaluate(*arguments, "native", "--output", tmp_path / "native") == 0
    assert evaluate(*arguments, "pranet", "--output", tmp_path / "pranet") == 0
    native, pranet = (cells(tmp_path / name)[0]["measures"] for name in ("native", "pranet"))
    assert (native["dsc"], native["mae"], native["brier"], native["hd95"]) == pytest.approx((1, 0.25, 0.0625, 0))
    assert native["nll"] == pytest.approx(-np.log(0.75)) and native["ece"] == pytest.approx(0.25)
    assert (pranet["dsc"], pranet["mae"], pranet["dsc_max"]) == pytest.approx((1, 0, 1))  # stretched to 0 and 1
    assert pranet["dsc_mean"] == pytest.approx((255 + 2 / 3) / 256)  # at threshold 0 all is foreground
    assert pranet["iou_mean"] == pytest.approx((255 + 1 / 2) / 256)
    save(tmp_path / "r/c.png", 0 * reference)
    save(tmp_path / "p/c.npy", 0.0 * reference)
    for protocol, dsc in (("native", 1), ("pranet", 0)):
        assert evaluate(*arguments, protocol, "--output", tmp_path / f"empty {protocol}") == 0
        (cell,) = cells(tmp_path / f"empty {protocol}")
        assert cell["measures"]["dsc"] == dsc and cell["empty"]["both"] == 1


def test_other_sizes_are_resized_where_asked(tmp_path, capsys):
    reference = np.zeros((16, 24), np.uint8)
    reference[4:12, 6:18] = 255
    save(tmp_path / "r/c.png", reference)
    save(tmp_path / "p/c.png", reference[::2, ::2])
    save(tmp_path / "soft/c.npy", (reference[::2, ::2] > 0).astype(np.float32))
    for folder, maps in (("p", "masks"), ("soft", "probability")):
        for protocol in ("native", "madgnet[size=32]"):
            arguments = (tmp_path / folder, tmp_path / "r", "--maps", maps, "--protocol", protocol)
            assert evaluate(*arguments) == 2 and "is 12 x 8, its reference 24 x 16" in capsys.readouterr().err
            assert evaluate(*arguments, "--resize", "--output", tmp_path / "o", "--overwrite") == 0
            assert cells(tmp_path / "o")[0]["measures"]["dsc"] > 0.93
    perfect = (tmp_path / "r", tmp_path / "copy", "--protocol", "madgnet[size=11]", "--output", tmp_path / "o", "--overwrite")
    save(tmp_path / "copy/c.npy", reference > 0)
    assert evaluate(*perfect) == 0
    assert cells(tmp_path / "o")[0]["measures"]["dsc"] == 1
    save(tmp_path / "float/c.npy", (reference > 0).astype(np.float32))
    assert evaluate(tmp_path / "float", *perfect[1:], "--maps", "probability") == 0
    assert cells(tmp_path / "o")[0]["measures"]["dsc"] == 1  # the filter of the references, cut at the same place


def test_masks_of_0_and_1_are_not_taken_for_probabilities(tmp_path, capsys):
    mask = np.eye(6, dtype=np.uint8)
    for name in ("p/a.png", "r/a.png", "p/b.png", "r/b.png"):
        save(tmp_path / name, mask)
    arguments = (tmp_path / "p", tmp_path / "r", "--protocol", "native")
    assert evaluate(*arguments, "--maps", "probability") == 2
    assert "leave --maps out for masks of 0 and 1" in capsys.readouterr().err
    assert evaluate(*arguments) == 0
    save(tmp_path / "p/b.png", mask * 2)
    assert evaluate(*arguments, "--maps", "probability") == 0


def test_a_measure_that_maps_do_not_have(tmp_path, capsys):
    for name in ("p/a.png", "r/a.png"):
        save(tmp_path / name, np.ones((1, 6), np.uint8))
    assert evaluate(tmp_path / "p", tmp_path / "r", "--protocol", "native[released=on]") == 2
    assert "case a: the released S-measure reads two rows" in capsys.readouterr().err


def test_every_error_in_one_table_and_nothing_written(tmp_path, capsys):
    blank = np.zeros((4, 4), np.float32)
    for name in ("ok", "nan", "range", "shape", "damaged", "grey", "missing"):
        save(tmp_path / "r" / f"{name}.npy", blank)
    save(tmp_path / "r/unbinary.npy", blank + 0.5)
    for name in ("ok", "grey", "extra", "unbinary"):
        save(tmp_path / "p" / f"{name}.npy", blank)
    save(tmp_path / "p/nan.npy", blank + np.nan)
    save(tmp_path / "p/range.npy", blank + 7)
    save(tmp_path / "p/shape.npy", np.zeros((4, 5)))
    (tmp_path / "p/damaged.npy").write_bytes(b"nothing of an array")
    (tmp_path / "p/grey.npy").unlink()
    save(tmp_path / "p/grey.png", np.zeros((4, 4, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    arguments = (tmp_path / "p", tmp_path / "r", "--protocol", "native", "--maps", "probability")
    assert evaluate(*arguments, "--output", tmp_path / "out", "--csv", tmp_path / "out.csv") == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "8 problems; nothing was measured or written." in shown.err
    for line in (
        "missing.npy.*reference without a prediction",
        "extra.npy.*prediction without a reference",
        "p/nan.npy.*NaN",
        "p/range.npy.*outside",
        "p/shape.npy.*is 5 x 4, its reference 4 x 4",
        "p/damaged.npy.*not opened",
        "p/grey.png.*in colour",
        "r/unbinary.npy.*not binary",
    ):
        first, _, second = line.partition(".*")
        assert any(first in row and second in row for row in shown.err.splitlines()), line
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.csv").exists()


def test_outputs_are_complete_hold_no_path_and_are_not_replaced_unasked(tmp_path, capsys):
    probability, reference = shapes()
    rows = []
    for case in range(3):
        save(tmp_path / "p" / f"c{case}.npy", probability[case] >= 0.5)
        save(tmp_path / "r" / f"c{case}.npy", reference[case])
        rows.append(f"c{case},p/c{case}.npy,r/c{case}.npy,patient{case % 2},{'one' if case else 'two'}")
    (tmp_path / "pairs.csv").write_text("\n".join(["case_id,prediction,reference,group_id,dataset", *rows]))
    arguments = (
        "--pairs",
        tmp_path / "pairs.csv",
        "--protocol",
        "native",
        "--output",
        tmp_path / "out",
        "--csv",
        tmp_path / "o.csv",
    )
    assert evaluate(*arguments) == 0
    shown = capsys.readouterr()
    assert "one: foreground, 2 cases," in shown.out and "two: foreground, 1 case," in shown.out and shown.err == ""
    assert "Predictions are masks" in shown.out
    folder = RunFolder(tmp_path / "out")
    assert {path.name for path in folder.path.iterdir()} == {"cases.csv", "curves.npz", "result.json"}
    assert [(row.dataset, row.case_id, row.group_id) for row in folder.read_cases()] == [
        ("one", "c1", "patient1"),
        ("one", "c2", "patient0"),
        ("two", "c0", "patient0"),
    ]
    assert len(folder.read_curves()["thresholds"]) == 3
    result = folder.read_result()
    assert (result["kind"], result["maps"], result["targets"]) == ("evaluation", "masks", {"foreground": []})
    assert str(tmp_path) not in json.dumps(result) and str(tmp_path) not in folder.cases_file.read_text()
    before = {path: path.read_bytes() for path in [*folder.path.iterdir(), tmp_path / "o.csv"]}
    assert evaluate(*arguments) == 2 and "pass --overwrite" in capsys.readouterr().err
    assert evaluate(*arguments, "--overwrite") == 0
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "out" / "config.yaml").touch()
    assert evaluate(*arguments, "--overwrite") == 2 and "holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["p", "--protocol", "native"], "name the folders first"),
        (["p", "p/../p", "--protocol", "native"], "every score would be perfect"),
        (["p", "r", "--protocol", "nativ"], "did you mean 'native'?"),
        (["p", "r", "--protocol", "native", "--pairs", "a.csv"], "leave out the folders"),
        (["p", "r", "--protocol", "native", "--target", "a=x"], "cannot be read"),
        (["p", "r", "--protocol", "native", "--device", "nonsense"], "--device nonsense cannot be used"),
        (["p", "r", "--protocol", "native"], "no such folder"),
        (["p", "r", "--protocol", "native", "--csv", "p"], "p exists"),
    ],
)
def test_wrong_use(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    assert evaluate(*arguments) == 2
    assert message in capsys.readouterr().err


def test_help_and_unusable_files_need_no_torch(tmp_path):
    code = (
        "import sys\nfrom madgnet_bench.cli import main\n"
        f"assert main(['evaluate', {str(tmp_path)!r}, 'gone', '--protocol', 'native']) == 2\n"
        "try: main(['evaluate', '--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'lightning', 'timm', 'albumentations', 'cv2', 'scipy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--prediction_ending" in done.stdout
