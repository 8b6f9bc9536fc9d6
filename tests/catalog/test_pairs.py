"""Files pair by name or by a CSV, and everything that does not pair or fit is told."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from madgnet_bench.catalog.maps import MapTarget
from madgnet_bench.catalog.pairs import PairRules, list_pairs, read_pair, read_pairs_file
from madgnet_bench.errors import ConfigError
from madgnet_bench.protocol import Protocol

NATIVE = Protocol.parse("native")
VOLUME = Protocol.parse("volume")
RULES = PairRules(protocol=NATIVE)
TWO = PairRules(protocol=NATIVE, targets=(MapTarget("disc"), MapTarget("cup")))
LABELS = PairRules(protocol=NATIVE, targets=(MapTarget("disc", (1, 2)), MapTarget("cup", (2,))))


def mask(path, *, size=(4, 5), value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[1:3, 1:4] = value
    Image.fromarray(values).save(path)
    return path


def volume(path, values, *, spacing=(3.0, 1.0, 1.0), flip=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([flip * spacing[2], spacing[1], spacing[0], 1.0])
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
    return path


def listed(folder, rules=RULES, **options):
    return list_pairs(folder / "p", folder / "r", rules=rules, dataset="own", **options)


def test_folders_pair_by_stem_with_subfolders_and_formats_mixed(tmp_path):
    for name in ("p/a/c1.png", "p/a/b/c1.tif", "r/a/c1.bmp", "r/a/b/c1.png"):
        mask(tmp_path / name)
    for name in ("p/plans.json", "p/.hidden.png", "r/Thumbs.db"):
        (tmp_path / name).touch()
    pairs, problems = listed(tmp_path)
    assert problems == []
    assert [(pair.case_id, pair.group_id, pair.dataset) for pair in pairs] == [
        ("a/b/c1", "a/b/c1", "own"),
        ("a/c1", "a/c1", "own"),
    ]
    assert pairs[1].prediction == (tmp_path / "p/a/c1.png",) and pairs[1].reference == (tmp_path / "r/a/c1.bmp",)


def test_endings_choose_files_and_leave_the_case(tmp_path):
    for name in ("p/c1_pred.png", "p/c1_overlay.png", "r/c1_mask.png"):
        mask(tmp_path / name)
    pairs, problems = listed(tmp_path, prediction_ending="_pred.png", reference_ending="_mask.png")
    assert problems == [] and [pair.case_id for pair in pairs] == ["c1"]
    _, problems = listed(tmp_path)
    assert len(problems) == 3 and all("--prediction_ending" in problem.fix for problem in problems)
    _, problems = listed(tmp_path, prediction_ending="_pred")
    assert "write ending and suffix" in problems[0].fix


def test_everything_that_does_not_pair_is_told_at_once(tmp_path):
    for name in ("p/both.png", "p/extra.png", "p/twice.png", "p/twice.bmp", "r/both.png", "r/lonely.png", "r/twice.png"):
        mask(tmp_path / name)
    (tmp_path / "p" / "scan.mha").touch()
    pairs, problems = listed(tmp_path)
    assert [pair.case_id for pair in pairs] == ["both", "twice"]
    told = {(problem.file.rpartition("/")[2], problem.problem) for problem in problems}
    assert told == {
        ("scan.mha", "no format of protocol native"),
        ("twice.png", "is of the same case as twice.bmp"),
        ("extra.png", "prediction without a reference"),
        ("lonely.png", "reference without a prediction"),
    }
    pairs, problems = list_pairs(tmp_path / "p", tmp_path / "gone", rules=RULES, dataset="own")
    assert pairs == [] and "no such folder" in [problem.problem for problem in problems]
    (tmp_path / "empty").mkdir()
    _, problems = list_pairs(tmp_path / "empty", tmp_path / "empty", rules=RULES, dataset="own")
    assert {problem.problem for problem in problems} == {"holds no map"}


def test_a_folder_for_each_target(tmp_path):
    for name in ("p/disc/c1.png", "p/cup/c1.png", "r/disc/c1.png", "r/cup/c1.png"):
        mask(tmp_path / name)
    pairs, problems = listed(tmp_path, TWO)
    assert problems == []
    assert pairs[0].prediction == (tmp_path / "p/disc/c1.png", tmp_path / "p/cup/c1.png")
    maps, problems = read_pair(pairs[0], TWO)
    assert problems == [] and maps.prediction.shape == maps.reference.shape == (2, 4, 5)
    mask(tmp_path / "p/disc/c2.png")
    mask(tmp_path / "p/vessel/c1.png")
    _, problems = listed(tmp_path, TWO)
    assert [problem.problem for problem in problems] == ["lies beside the folders of the targets", "no map of case c2"]
    (pair,), _ = list_pairs(tmp_path / "p/vessel", tmp_path / "r", rules=TWO, dataset="own")
    assert read_pair(pair, TWO)[1][0].problem == "has the shape (4, 5), not (2, H, W)"


def test_channels_on_one_side_and_folders_on_the_other(tmp_path):
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p/c1.npy", np.zeros((2, 4, 5)))
    for name in ("r/disc/c1.png", "r/cup/c1.png"):
        mask(tmp_path / name)
    pairs, problems = listed(tmp_path, TWO)
    assert problems == [] and read_pair(pairs[0], TWO)[1] == []


def test_probabilities_beside_label_maps(tmp_path):
    rules = PairRules(protocol=NATIVE, targets=LABELS.targets, maps="probability")
    (tmp_path / "p").mkdir()
    np.save(tmp_path / "p/c1.npy", np.full((2, 4, 5), 0.5))
    mask(tmp_path / "r/c1.png", value=2)
    pairs, _ = listed(tmp_path, rules)
    maps, problems = read_pair(pairs[0], rules)
    assert problems == [] and maps.prediction.dtype == np.float64 and maps.reference.sum() == 12


def test_problems_of_both_files_are_told(tmp_path):
    mask(tmp_path / "p/c1.png", value=3)
    (tmp_path / "r").mkdir()
    (tmp_path / "r/c1.png").write_text("no image")
    (pair,), _ = listed(tmp_path)
    maps, problems = read_pair(pair, RULES)
    assert maps is None and len(problems) == 2


@pytest.mark.parametrize(
    ("protocol", "size", "allowed"),
    [
        ("native", (4, 5), True),
        ("native", (8, 8), False),
        ("native", (5, 4), False),
        ("madgnet[size=8]", (4, 5), True),
        ("madgnet[size=8]", (8, 8), True),
        ("madgnet[size=8]", (5, 4), False),
    ],
)
def test_a_wrong_size_takes_a_word(tmp_path, protocol, size, allowed):
    mask(tmp_path / "p/c1.png", size=size)
    mask(tmp_path / "r/c1.png")
    (pair,), _ = listed(tmp_path)
    _, problems = read_pair(pair, PairRules(protocol=Protocol.parse(protocol)))
    assert (problems == []) == allowed
    assert allowed or (
        problems[0].problem == f"is {size[1]} x {size[0]}, its reference 5 x 4" and "--resize" in problems[0].fix
    )
    assert read_pair(pair, PairRules(protocol=Protocol.parse(protocol), resize=True))[1] == []


def test_volumes_bring_their_spacing_and_must_lie_at_one_place(tmp_path):
    rules = PairRules(protocol=VOLUME)
    values = np.zeros((2, 3, 4), np.uint8)
    values[0, 1, 1:3] = 1
    reference = volume(tmp_path / "r/c1.nii.gz", values)
    volume(tmp_path / "p/c1.nii", values)
    (pair,), problems = listed(tmp_path, rules)
    maps, more = read_pair(pair, rules)
    assert problems == more == [] and maps.spacing == (3.0, 1.0, 1.0)
    for options in ({"flip": -1}, {"spacing": (1.0, 1.0, 1.0)}):
        volume(tmp_path / "p/c1.nii", values, **options)
        maps, problems = read_pair(pair, rules)
        assert maps is None and problems[0].problem.startswith("lies elsewhere than c1.nii.gz: corners are up to")
    (tmp_path / "p/c1.nii").unlink()
    np.save(tmp_path / "p/c1.npy", values)
    (pair,), _ = listed(tmp_path, rules)
    assert read_pair(pair, rules)[0].spacing == (3.0, 1.0, 1.0)
    reference.unlink()
    np.save(tmp_path / "r/c1.npy", values)
    (pair,), _ = listed(tmp_path, rules)
    assert [problem.problem for problem in read_pair(pair, rules)[1]] == ["tells no spacing, and distances are in mm"]
    assert read_pair(pair, PairRules(protocol=Protocol.parse("volume[unit=pixel]")))[1] == []


def write_csv(folder, text):
    (folder / "pairs.csv").write_text(text)
    return folder / "pairs.csv"


def test_a_csv_names_pairs_groups_and_domains(tmp_path):
    for name in ("one.png", "two.png", "disc.png", "cup.png"):
        mask(tmp_path / name)
    text = "case_id,prediction,reference,group_id,dataset,domain\nb,one.png,two.png,patient,refuge,zeiss\n"
    (pair,), problems = read_pairs_file(write_csv(tmp_path, text), rules=RULES, dataset="own")
    assert problems == []
    assert (pair.dataset, pair.case_id, pair.group_id, pair.domain) == ("refuge/zeiss", "b", "patient", "zeiss")
    assert pair.prediction == (tmp_path / "one.png",)
    text = f"case_id,prediction,reference\nb,disc.png;cup.png,{tmp_path / 'one.png'};two.png\n"
    (pair,), problems = read_pairs_file(write_csv(tmp_path, text), rules=TWO, dataset="own")
    assert problems == [] and (pair.dataset, pair.group_id) == ("own", "b")
    assert pair.reference == (tmp_path / "one.png", tmp_path / "two.png")


def test_every_bad_row_of_a_csv_is_told(tmp_path):
    for name in ("one.png", "two.png"):
        mask(tmp_path / name)
    rows = ["a,one.png,two.png", "a,one.png,two.png", "c,gone.png,two.png", "d,one.png", "e,,two.png", "f,one.png,pairs.csv"]
    rows += ["g,one.png;two.png,two.png", "h,one.png,one.png"]
    pairs, problems = read_pairs_file(
        write_csv(tmp_path, "case_id,prediction,reference\n" + "\n".join(rows)), rules=RULES, dataset="own"
    )
    assert len(pairs) == 2
    told = {problem.file.rpartition("/")[2]: problem.problem.partition(":")[0] for problem in problems}
    assert told == {
        "pairs.csv": "case 'a' of own stands 2 times",
        "pairs.csv, line 4": "no such file",
        "pairs.csv, line 5": "more or fewer fields than columns",
        "pairs.csv, line 6": "prediction is empty",
        "pairs.csv, line 7": "no format of protocol native",
        "pairs.csv, line 8": "prediction names 2 files",
        "pairs.csv, line 9": "prediction and reference are one file",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("case_id,prediction\na,b\n", "no column reference"),
        ("case_id,prediction,reference,grup\na,b,c,d\n", "unknown column 'grup'"),
        ("case_id,prediction,reference\n", "no row"),
        ("", "no column case_id"),
    ],
)
def test_a_csv_of_other_columns(tmp_path, text, problem):
    pairs, problems = read_pairs_file(write_csv(tmp_path, text), rules=RULES, dataset="own")
    assert pairs == [] and [found.problem for found in problems] == [problem]
    _, (missing,) = read_pairs_file(tmp_path / "gone.csv", rules=RULES, dataset="own")
    assert missing.problem.startswith("cannot be read")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ()}, "one or more different names"),
        ({"targets": (MapTarget("a"), MapTarget("a"))}, "different names"),
        ({"targets": (MapTarget("a", (1,)), MapTarget("b"))}, "for every target, or for none"),
        ({"background": (3,)}, "--background belongs to label maps"),
        ({"targets": (MapTarget("a", (1,)),), "background": (1,)}, "names a value of a target"),
        ({"protocol": VOLUME, "resize": True}, "in the grid of their reference"),
        ({"protocol": Protocol.parse("volume[size=64]")}, "in the grid of their reference"),
        ({"protocol": Protocol.parse("native[unit=mm]")}, "images do not tell their spacing"),
    ],
)
def test_rules_that_do_not_fit_together(options, message):
    with pytest.raises(ConfigError, match=message):
        PairRules(**({"protocol": NATIVE} | options))
