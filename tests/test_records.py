from __future__ import annotations

import json
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madgnet_bench import records
from madgnet_bench.errors import RunError
from madgnet_bench.records import EMPTY_CASES, CaseRow, RunFolder, find_runs, hash_weights, run_id, summarize, write_atomically

TEXT = st.text("aé,;'\"\n |\U0001f600=", max_size=6)
MEASURES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda values: dict(zip(("dsc", "mae"), values, strict=True)))


def case_row(case_id: str = "a", **changes: object) -> CaseRow:
    values: dict[str, object] = {
        "group_id": "g",
        "dataset": "busi",
        "modality": "ultrasound",
        "domain": "",
        "setting": "seen",
        "target": "tumour",
        "protocol": "madgnet",
        "empty_case": "neither",
        "measures": {"dsc": 0.5, "iou": 1 / 3, "mae": 0.25},
    }
    return CaseRow(case_id=case_id, **{**values, **changes})  # type: ignore[arg-type]


def finished(path: Path, rows: list[CaseRow] | None = None) -> RunFolder:
    folder = RunFolder(path)
    write_atomically(folder.config_file, "seed_everything: 1\n")
    folder.write_cases(rows or [case_row("a"), case_row("b")])
    folder.write_result({"run_id": "x", "cells": summarize(folder.read_cases())})
    return folder


@given(
    st.lists(
        st.builds(
            case_row,
            TEXT,
            group_id=TEXT,
            dataset=TEXT,
            domain=TEXT,
            target=TEXT,
            setting=st.sampled_from(["seen", "unseen"]),
            empty_case=st.sampled_from(EMPTY_CASES),
            measures=MEASURES,
        ),
        max_size=6,
        unique_by=lambda row: row.key,
    )
)
def test_cases_are_read_back_as_written(tmp_path_factory: pytest.TempPathFactory, rows: list[CaseRow]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_cases(rows)
    read = folder.read_cases()
    assert [row.key for row in read] == sorted(row.key for row in rows)
    for row, original in zip(read, sorted(rows, key=lambda row: row.key), strict=True):
        assert row.group_id == original.group_id
        assert row.empty_case == original.empty_case
        assert row.measures == pytest.approx(original.measures, rel=1e-7)


def test_cases_are_written_sorted_and_the_same_whatever_the_order(tmp_path: Path) -> None:
    rows = [case_row("b"), case_row("a"), case_row("a", setting="unseen")]
    for name, order in (("one", rows), ("two", rows[::-1])):
        RunFolder(tmp_path / name).write_cases(order)
    assert (tmp_path / "one/cases.csv").read_bytes() == (tmp_path / "two/cases.csv").read_bytes()
    assert (tmp_path / "one/cases.csv").read_text().startswith("schema_version,case_id,group_id,")


def test_duplicated_rows_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="1 cases stand twice"):
        folder.write_cases([case_row("a"), case_row("a", measures={"dsc": 0.1, "iou": 0.1, "mae": 0.1})])
    assert not folder.cases_file.exists()


def test_rows_with_other_measures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has measures"):
        RunFolder(tmp_path).write_cases([case_row("a"), case_row("b", measures={"dsc": 1.0})])


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    file = tmp_path / "result.json"
    write_atomically(file, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_missing_case_table_says_that_the_run_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="interrupted"):
        RunFolder(tmp_path).read_cases()


def test_every_truncation_of_a_finished_run_is_noticed(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    content = folder.cases_file.read_bytes()
    for length in range(len(content)):
        folder.cases_file.write_bytes(content[:length])
        with pytest.raises(RunError, match="changed since"):
            folder.read_result()


def test_a_truncated_row_is_named_by_its_line(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    lines = folder.cases_file.read_text().splitlines(keepends=True)
    folder.cases_file.write_text("".join(lines[:2]) + lines[2][:40])
    with pytest.raises(RunError, match="line 3: truncated"):
        folder.read_cases()


def test_a_value_that_is_no_number_is_named_by_its_line(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.cases_file.write_text(folder.cases_file.read_text().replace("0.5", "half", 1))
    with pytest.raises(RunError, match=r"line 2: .*half"):
        folder.read_cases()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.cases_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="not a case table"):
        folder.read_cases()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_result_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = finished(tmp_path)
    folder.result_file.write_bytes(content)
    with pytest.raises(RunError, match=r"result\.json: not "):
        folder.read_result()


def test_a_newer_schema_is_refused_everywhere(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.append_history(0, {"loss": 1.0})
    for file, read in (
        (folder.cases_file, folder.read_cases),
        (folder.history_file, folder.read_history),
        (folder.result_file, folder.read_result),
    ):
        newer = str(records.SCHEMA_VERSION + 1)
        text = file.read_text()
        file.write_text(text.replace("\n1,", f"\n{newer},").replace('"schema_version": 1', f'"schema_version": {newer}'))
        with pytest.raises(RunError, match="newer than this version reads"):
            read()


def test_a_result_without_schema_is_refused(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    folder.result_file.write_text("{}")
    with pytest.raises(RunError, match="no schema version"):
        folder.read_result()


def test_result_round_trip_and_no_nan(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    result = folder.read_result()
    assert result["schema_version"] == records.SCHEMA_VERSION
    assert result["cells"][0]["measures"]["dsc"] == 0.5
    with pytest.raises(ValueError):
        folder.write_result({"value": float("nan")})
    assert folder.read_result() == result


def test_states_of_a_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.state == "new"
    folder.path.mkdir()
    assert folder.state == "new"
    write_atomically(folder.config_file, "a: 1\n")
    assert folder.state == "interrupted"
    assert finished(folder.path).state == "done"


def test_history_drops_the_rows_that_an_interrupted_run_left(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_history() == []
    for epoch in range(4):
        folder.append_history(epoch, {"loss": 1.0 / (epoch + 1)})
    folder.append_history(2, {"loss": 9.0, "val": 0.5})
    assert folder.read_history() == [
        {"epoch": 0, "loss": 1.0},
        {"epoch": 1, "loss": 0.5},
        {"epoch": 2, "loss": 9.0, "val": 0.5},
    ]


def test_summary_averages_cells_and_counts_empty_cases() -> None:
    rows = [
        case_row("a", measures={"dsc": 0.2}),
        case_row("b", measures={"dsc": 0.4}, empty_case="both"),
        case_row("a", measures={"dsc": 1.0}, dataset="kvasir", setting="unseen"),
    ]
    seen, unseen = summarize(rows)
    assert (seen["setting"], seen["dataset"], seen["cases"]) == ("seen", "busi", 2)
    assert seen["measures"] == {"dsc": pytest.approx(0.3)}
    assert seen["empty"] == {"neither": 1, "reference": 0, "prediction": 0, "both": 1}
    assert unseen["measures"] == {"dsc": 1.0}


def test_runs_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("b/run", "a/deep/run", "run"):
        finished(tmp_path / name)
    found = [folder.path.relative_to(tmp_path).as_posix() for folder in find_runs(tmp_path)]
    assert found == ["a/deep/run", "b/run", "run"]


# Golden: a changed value orphans every run on disk. To regenerate, print run_id(CONFIG, MANIFESTS, "madgnet").
CONFIG = {"seed_everything": 1, "model": {"lr": 0.001, "widths": [16, 32]}, "trainer": {"max_epochs": 3}}
MANIFESTS = {"busi": "ab" * 32}


def test_run_id_golden_values() -> None:
    assert run_id(CONFIG, MANIFESTS, "madgnet") == "896116ee0a9f"
    assert run_id({}, {}, "madgnet") == "8aba998d610e"


@pytest.mark.parametrize(
    "extra",
    [
        {"data_root": "/somewhere"},
        {"config": ["a.yaml"], "ckpt_path": "last"},
        {"run": {"folder": "runs", "verbose": True}},
        {"data": {"init_args": {"num_workers": 4}}},
        {
            "trainer": {
                "max_epochs": 3,
                "devices": [0, 1],
                "accelerator": "gpu",
                "strategy": {"class_path": "D"},
                "logger": {"name": "w"},
            }
        },
    ],
)
def test_run_id_ignores_what_makes_no_other_experiment(extra: dict[str, object]) -> None:
    assert run_id({**CONFIG, **extra}, MANIFESTS, "madgnet") == run_id(CONFIG, MANIFESTS, "madgnet")


@pytest.mark.parametrize(
    "other",
    [
        {**CONFIG, "seed_everything": 2},
        {**CONFIG, "model": {"lr": 0.001, "widths": [16]}},
        {**CONFIG, "model": {"lr": 0.001, "widths": [32, 16]}},
        {**CONFIG, "trainer": {"max_epochs": 4}},
        {**CONFIG, "data": {"init_args": {"batch_size": 4}}},
    ],
)
def test_run_id_tells_experiments_apart(other: dict[str, object]) -> None:
    assert run_id(other, MANIFESTS, "madgnet") != run_id(CONFIG, MANIFESTS, "madgnet")


def test_run_id_depends_on_data_and_protocol() -> None:
    ids = {run_id(CONFIG, data, protocol) for data in (MANIFESTS, {"busi": "00"}) for protocol in ("madgnet", "native")}
    assert len(ids) == 4


@given(st.dictionaries(st.sampled_from("abcdefg"), st.integers() | TEXT, max_size=5))
def test_run_id_does_not_depend_on_the_order_of_keys(config: dict[str, object]) -> None:
    name = run_id(config, {}, "madgnet")
    assert (
        name == run_id(dict(reversed(config.items())), {}, "madgnet") == run_id(json.loads(json.dumps(config)), {}, "madgnet")
    )
    assert len(name) == 12 and set(name) <= set(string.hexdigits.lower())


def with_weights(**files: object) -> dict[str, object]:
    return {**CONFIG, "model": {"init_args": {"network": {"init_args": {"pretrained": False, **files}}}}}


def identity(config: dict[str, object]) -> str:
    return run_id(config, MANIFESTS, "madgnet", weights=hash_weights(config))


@pytest.mark.parametrize("key", ["checkpoint", "encoder_checkpoint"])
def test_run_id_knows_files_of_weights_by_content_not_by_path(tmp_path: Path, key: str) -> None:
    for name, content in {"here.pth": b"a", "there.pth": b"a", "other.pth": b"b"}.items():
        (tmp_path / name).write_bytes(content)
    here, there, other = (with_weights(**{key: str(tmp_path / f"{name}.pth")}) for name in ("here", "there", "other"))
    sha256 = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of one letter a
    assert hash_weights(here) == {f"model.init_args.network.init_args.{key}": sha256}
    assert identity(here) == identity(there) != identity(other)
    assert identity(here) != identity(with_weights(**{key: None}))


def test_run_id_without_files_of_weights_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a")
    plain = with_weights(checkpoint=None, encoder_checkpoint="a-name-of-the-hub")
    elsewhere = {**plain, "trainer": {"checkpoint": str(tmp_path / "file")}}
    for config in (plain, elsewhere):
        assert hash_weights(config) == {}
        assert identity(config) == run_id(config, MANIFESTS, "madgnet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe", "not a history"),
        (b"epoch,train/loss\n0,1\n", "schema"),
        (b"schema_version,epoch,train/loss\n1,0,x\n", "not a history"),
        (b"schema_version,train/loss\n1,2\n", "names no epoch"),
    ],
)
def test_a_damaged_history_is_named(text: bytes, message: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.history_file.write_bytes(text)
    with pytest.raises(RunError, match=message) as caught:
        folder.read_history()
    assert str(folder.history_file) in str(caught.value)
