from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from madgnet_bench.bench.published import FIGURE_COLUMNS, MODEL_COLUMNS, MODELS_FILE, PublishedScore, read_published
from madgnet_bench.catalog.official import READERS
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS
from madgnet_bench.errors import ConfigError, DataErrors
from madgnet_bench.networks.attention_unet import AttentionUNet
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.unet import UNet
from madgnet_bench.networks.unet_plus_plus import UNetPlusPlus
from madgnet_bench.protocol import MEASURES

FOLDER = Path(__file__).parents[2] / "results" / "published"
MADGNET, BRATS = "arXiv:2405.06284", "DillanImans/brats_grl_vffc, informal write-up (Imans 2025)"
FIGURE = dict.fromkeys(FIGURE_COLUMNS, "") | {
    **{"source": "S", "table": "T", "setting": "seen", "modality": "M", "dataset": "D", "target": "lesion", "model": "A"},
    **{"metric": "DSC", "mean": "90.2", "std": "0.1", "unit": "percent", "std_ddof": "0", "trainings": "3"},
    **{"training_set": "D", "our_dataset": "busi", "our_target": "lesion", "our_measure": "dsc", "our_training_sets": "busi"},
}
MODEL = {
    "source": "S",
    "model": "A",
    "network": "UNet 64-1024",
    "family": "UNet",
    "pretrained": "no",
    "origin": "own",
    "note": "",
}


@pytest.fixture(scope="module")
def scores() -> tuple[PublishedScore, ...]:
    return read_published(FOLDER)


def write(folder: Path, *figures: dict[str, str], models: tuple[dict[str, str], ...] = (MODEL,)) -> Path:
    for name, columns, records in (("a.csv", FIGURE_COLUMNS, figures), (MODELS_FILE, MODEL_COLUMNS, models)):
        with (folder / name).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(records)
    return folder


def message(folder: Path) -> str:
    with pytest.raises(DataErrors) as caught:
        read_published(folder)
    return str(caught.value)


def test_every_file_is_read_whole(scores):
    lines = {path.name: len(path.read_text().splitlines()) - 1 for path in FOLDER.glob("*.csv")}
    assert lines == {"madgnet.csv": 408, "brats_vffc.csv": 104, "hiformer_synapse.csv": 8, "models.csv": 23}
    assert len(scores) == 408 + 104 + 8


def test_the_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{path.name}`" in text for path in FOLDER.glob("*.csv"))
    assert all(f"`{column}`" in text or column in ("table", "note", "family") for column in FIGURE_COLUMNS)


def test_some_figures_as_printed(scores):
    found = {
        (score.model.model, score.dataset, score.target, score.metric): (score.mean, score.std)
        for score in scores
        if score.source == MADGNET
    }
    assert found["MADGNet", "ISIC2018", "lesion", "DSC"] == (0.902, 0.001)
    assert found["MADGNet", "MonuSeg2018", "lesion", "mIoU"] == (0.32, 0.029)
    assert found["M2SNet", "CVC-300", "lesion", "DSC"][0] == 0.899 > found["MADGNet", "CVC-300", "lesion", "DSC"][0] == 0.874
    assert found["MSRFNet", "REFUGE", "optic cup", "unstated (DSC assumed)"] == (0.813, 0.007)


def test_the_grid_of_the_paper_is_full(scores):
    counts = defaultdict(set)
    for score in scores:
        if score.source == MADGNET:
            counts[score.table, score.dataset, score.target, score.metric].add(score.model.model)
    assert len(counts) == 13 * 2 + 4
    assert {len(models) for (table, *_), models in counts.items() if table != "Table 3"} == {14}
    assert {len(models) for (table, *_), models in counts.items() if table == "Table 3"} == {11}


@pytest.mark.parametrize(
    ("model", "means"),
    [
        ("MADGNet", (88.63, 82.37, 77.21, 68.34)),
        ("M2SNet", (87.65, 81.50, 73.66, 64.90)),
        ("FRCUNet", (86.47, 80.18, 69.57, 61.50)),
    ],
)
def test_means_over_the_sets_are_those_of_the_first_reading(scores, model, means):
    kept = [score for score in scores if score.source == MADGNET and score.model.model == model]
    cells = [("seen", "DSC"), ("seen", "mIoU"), ("unseen", "DSC"), ("unseen", "mIoU")]
    found = [statistics.fmean(100 * score.mean for score in kept if (score.setting, score.metric) == cell) for cell in cells]
    assert found == pytest.approx(means, abs=0.0051)


def test_dsc_is_above_iou_and_below_what_its_mean_allows(scores):
    """In an image DSC = 2 IoU / (1 + IoU), which is concave: the mean of one bounds the mean of the other."""
    kept = [score for score in scores if score.source == MADGNET and score.table != "Table 3"]
    cells = {(score.model.model, score.dataset, score.metric): score for score in kept}
    beyond = []
    for (model, dataset, metric), score in cells.items():
        if metric == "mIoU":
            dsc, greatest_iou = cells[model, dataset, "DSC"].mean, score.mean + 0.0005
            assert score.mean < dsc
            if dsc - 0.0005 > 2 * greatest_iou / (1 + greatest_iou):
                beyond.append((model, dataset, "not possible" in score.note))
    assert beyond == [("SFSSNet", "DSB2018", True)]


def test_the_write_up_prints_the_means_of_its_columns(scores):
    cells = defaultdict(dict)
    for score in scores:
        if score.source == BRATS:
            cells[score.model.model, score.training_set, score.dataset][score.target.partition(" ")[0]] = score.mean
    assert len(cells) == 26
    for values in cells.values():
        mean = values.pop("mean")
        assert len(values) == 3
        assert mean == pytest.approx(statistics.fmean(values.values()), abs=0.01)


def test_facts_of_a_test_set_are_the_same_in_every_line():
    own = {"model", "metric", "mean", "std", "our_measure", "note"}  # a note may be of one figure
    with (FOLDER / "madgnet.csv").open(newline="") as stream:
        records = list(csv.DictReader(stream))
    for dataset in {record["dataset"] for record in records}:
        facts = {
            tuple((k, v) for k, v in record.items() if k not in own | {"target", "our_target"})
            for record in records
            if record["dataset"] == dataset
        }
        assert len(facts) == 1, dataset


def test_numbers_of_cases_are_those_of_the_released_lists(scores):
    for score in scores:
        if score.split != "official":
            continue
        name, _, domain = score.our_dataset.partition("/")
        test = [each.rows for each in OFFICIAL_LISTS[name] if each.split == "test" and each.domain == domain]
        train = [
            each.rows
            for training_set in {name.partition("/")[0] for name in score.our_training_sets}
            for each in OFFICIAL_LISTS[training_set]
            if each.split == "train"
        ]
        assert ([score.test_cases], [score.train_cases]) == (test, train)


def test_the_settings_are_those_of_the_training_sets(scores):
    for score in scores:
        if score.source == MADGNET:
            assert (score.our_dataset in score.our_training_sets) == (score.setting == "seen")


def test_our_names_exist(scores):
    for score in scores:
        assert score.our_measure in MEASURES
        assert not score.our_dataset or score.our_dataset.partition("/")[0] in READERS
        if score.source == MADGNET:
            assert score.our_target in READERS[score.our_dataset.partition("/")[0]].card.targets
    assert {(score.metric, score.our_measure) for score in scores if score.source == MADGNET} == {
        ("DSC", "dsc"),
        ("mIoU", "iou"),
        ("unstated (DSC assumed)", "dsc"),
    }


def test_mapped_models_are_our_networks_and_the_others_are_declared(scores):
    tied = {score.model.model: score.model.network for score in scores if score.model.network}
    with torch.device("meta"):
        labels = {
            "UNet": UNet().label,
            "AttUNet": AttentionUNet().label,
            "UNet++": UNetPlusPlus().label,
            "MADGNet": MADGNet(supervision="multi_task").label,
            "SFSSNet": MADGNet(supervision="multi_task", scales=1, frequencies=1).label,
            "MFSSNet": MADGNet(supervision="multi_task", scales=1).label,
            "SFMSNet": MADGNet(supervision="multi_task", frequencies=1).label,
        }
    assert {model: label.replace(" pretrained", "") for model, label in tied.items()} == labels
    assert all((" pretrained" in label) == label.startswith("MADGNet") for label in tied.values())


def test_the_published_deviation_is_brought_to_n_minus_one(scores):
    score = next(score for score in scores if score.source == MADGNET)
    assert (score.std_ddof, score.trainings) == (0, 3)
    assert score.sample_std == pytest.approx(score.std * (3 / 2) ** 0.5)


def test_a_good_file_is_read(tmp_path):
    (score,) = read_published(write(tmp_path, FIGURE))
    assert (score.mean, score.std, score.decimals, score.trainings) == (0.902, 0.001, 1, 3)
    assert (score.test_cases, score.epochs, score.protocol, score.our_training_sets) == (None, None, {}, ("busi",))
    assert score.model.pretrained is False


def test_fractions_keep_their_decimals_in_percent(tmp_path):
    figure = FIGURE | {"mean": "0.90", "std": "", "std_ddof": "", "unit": "fraction", "size": "352", "threshold": "0.5"}
    (score,) = read_published(write(tmp_path, figure))
    assert (score.mean, score.std, score.decimals, score.protocol) == (0.9, None, 0, {"size": 352, "threshold": 0.5})


@pytest.mark.parametrize(
    ("change", "problem", "fix"),
    [
        ({"mean": "190.2"}, "mean is '190.2'", "from 0 to 100, the unit being percent"),
        ({"mean": "1.5", "std": "", "unit": "fraction"}, "mean is '1.5'", "from 0 to 1"),
        ({"mean": "nan"}, "mean is 'nan'", "write a number"),
        ({"mean": "9O.2"}, "mean is '9O.2'", "write a number"),
        ({"mean": "inf", "std": "", "unit": "unstated"}, "mean is 'inf'", "not negative"),
        ({"mean": ""}, "mean is empty", "fill it in"),
        ({"std": "-0.1"}, "std is '-0.1'", "from 0 to 100"),
        ({"std_ddof": ""}, "std without std_ddof", "with n (0) or n - 1 (1)"),
        ({"trainings": "1"}, "a std over one training", "leave it empty"),
        ({"trainings": "three"}, "trainings is 'three'", "positive whole number"),
        ({"test_cases": "0"}, "test_cases is '0'", "positive whole number"),
        ({"setting": "both"}, "setting is 'both'", "seen, unseen"),
        ({"unit": "%"}, "unit is '%'", "percent, fraction, unstated"),
        ({"checkpoint": "first"}, "checkpoint is 'first'", "best, last"),
        ({"threshold": "2"}, "threshold is '2'", "out of range"),
        ({"our_dataset": "buzi"}, "unknown data set 'buzi'", "did you mean 'busi'?"),
        ({"our_dataset": "busi/bening"}, "unknown domain 'busi/bening'", "did you mean 'benign'?"),
        ({"our_training_sets": "busi;stew"}, "unknown data set 'stew'", "valid: "),
        ({"our_target": "polyp"}, "busi has no target 'polyp'", "lesion"),
        ({"our_dataset": ""}, "our_target without our_dataset", "name the data set"),
        ({"our_measure": "dice"}, "unknown our_measure 'dice'", "dsc"),
        ({"model": "B"}, "model 'B' of S is not declared", "add it to models.csv"),
    ],
)
def test_a_bad_line_is_named_with_its_fix(tmp_path, change, problem, fix):
    text = message(write(tmp_path, FIGURE, FIGURE | {"dataset": "E"} | change))
    assert f"{tmp_path / 'a.csv'}, line 3" in text
    assert problem in text
    assert fix in text
    assert "nothing was compared" in text


def test_all_problems_are_collected(tmp_path):
    text = message(write(tmp_path, FIGURE | {"mean": ""}, FIGURE | {"dataset": "E", "unit": "x"}))
    assert "2 problems" in text
    assert "line 2" in text
    assert "line 3" in text


def test_a_repeated_figure_is_refused(tmp_path):
    text = message(write(tmp_path, FIGURE, FIGURE | {"mean": "80"}))
    assert "a.csv, line 3" in text
    assert "as in" in text
    assert "delete one of them" in text


def test_a_bad_line_of_models_is_named(tmp_path):
    text = message(write(tmp_path, FIGURE, models=(MODEL | {"pretrained": "maybe", "family": "Net"}, MODEL)))
    assert f"{tmp_path / MODELS_FILE}, line 2" in text
    assert "pretrained is 'maybe'" in text
    assert "family 'Net' does not begin 'UNet 64-1024'" in text
    assert "the same source, model as in" in text


def test_other_columns_and_torn_lines_are_named(tmp_path):
    path = write(tmp_path, FIGURE) / "a.csv"
    whole = path.read_text()
    path.write_text(whole.replace("std_ddof", "ddof", 1))
    assert "lacks std_ddof" in message(tmp_path)
    path.write_text(whole[:-30])
    assert "line 2" in message(tmp_path)
    path.write_text(whole.partition("\n")[0] + "\n")
    assert "holds no figure" in message(tmp_path)
    path.write_bytes(b"\xff\xfe")
    assert "not CSV text" in message(tmp_path)


def test_a_folder_without_figures_says_where_they_are(tmp_path):
    with pytest.raises(ConfigError, match="results/published"):
        read_published(tmp_path)
