from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import PROTOCOL, case_rows, write_result, write_run

from madgnet_bench.bench.cases import COLUMNS, read_frame, read_table
from madgnet_bench.bench.store import Run, load_runs
from madgnet_bench.errors import ConfigError, RunError
from madgnet_bench.records import RunFolder


def runs_of(root: Path) -> tuple[Run, ...]:
    store = load_runs([root])
    assert store.damaged == ()
    return store.runs


def test_one_row_per_run_and_case(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, case_rows(seed), seed=seed, training_sets=["near", "a"])
    frame = read_frame(runs_of(tmp_path), protocol=PROTOCOL)
    assert tuple(frame.columns) == (*COLUMNS, "dsc", "mae")
    assert len(frame) == 2 * 14
    assert set(frame["training_sets"]) == {"a, near"}
    assert list(frame["seed"].unique()) == [1, 2]
    first = frame.iloc[0]
    row = next(row for row in case_rows(1) if (row.case_id, row.dataset) == (first["case_id"], first["dataset"]))
    assert (first["group_id"], first["setting"], first["dsc"]) == (row.group_id, row.setting, row.measures["dsc"])


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows(measures=("dsc", "iou", "mae")))
    write_run(tmp_path, case_rows(2, measures=("dsc", "mae")), seed=2)
    runs = runs_of(tmp_path)
    assert list(read_frame(runs, protocol=PROTOCOL).columns)[-2:] == ["dsc", "mae"]
    assert list(read_frame(runs, protocol=PROTOCOL, measures=["mae"]).columns)[-1:] == ["mae"]
    with pytest.raises(RunError, match=r"UNet-2.*no measure iou; it has dsc, mae"):
        read_frame(runs, protocol=PROTOCOL, measures=["iou"])
    with pytest.raises(ConfigError, match="did you mean 'dsc'"):
        read_frame(runs, protocol=PROTOCOL, measures=["dcs"])


def test_another_protocol_or_no_run(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows())
    with pytest.raises(RunError, match=r"no case under protocol native"):
        read_frame(runs_of(tmp_path), protocol="native")
    with pytest.raises(RunError, match="no finished run"):
        read_frame([], protocol="native")


def test_names_stay_text(tmp_path: Path) -> None:
    rows = [replace(row, case_id=f"00{place}", group_id="NA") for place, row in enumerate(case_rows())]
    frame = read_table(write_run(tmp_path, rows))
    assert set(frame["case_id"]) == {row.case_id for row in rows}
    assert set(frame["group_id"]) == {"NA"}


def test_commas_and_letters_of_all_kinds_in_names(tmp_path: Path) -> None:
    rows = [replace(row, case_id=f'fall {place}, "ü"') for place, row in enumerate(case_rows())]
    assert set(read_table(write_run(tmp_path, rows))["case_id"]) == {row.case_id for row in rows}


def line(number: int, change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    def apply(content: bytes) -> bytes:
        lines = content.decode().splitlines(keepends=True)
        lines[number - 1] = change(lines[number - 1])
        return "".join(lines).encode()

    return apply


def last_value(text: str) -> Callable[[str], str]:
    return lambda row: row.rpartition(",")[0] + f",{text}\n"


DAMAGE: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("cut in a row", lambda content: content[:-12], r"line 15: truncated or damaged row \(11 of 12 fields\)"),
    ("cut in the last number", lambda content: content[:-2], r"line 15: the last row is cut off"),
    ("a short row inside", line(4, lambda row: row.rpartition(",")[0] + "\n"), r"line 4: truncated.*\(11 of 12 fields\)"),
    ("a row too long", line(4, lambda row: row.rstrip() + ",1\n"), r"line 4: more fields than columns \(13 of 12"),
    ("an empty line", line(4, lambda row: "\n" + row), r"line 4: truncated or damaged row \(0 of 12"),
    ("only the header", lambda content: content.splitlines(keepends=True)[0], r"cases\.csv: no case"),
    ("nothing", lambda content: b"", r"line 1: the columns must open with schema_version"),
    ("a word", line(4, last_value("many")), r"line 4, case case-\d\d: mae is 'many', not a number"),
    ("nothing where a number was", line(4, last_value("")), r"line 4, case case-\d\d: mae is '', not a number"),
    ("NaN", line(4, last_value("nan")), r"line 4, case case-\d\d: mae is nan, not a fraction"),
    ("infinite", line(4, last_value("inf")), r"line 4, case case-\d\d: mae is inf, not a fraction"),
    ("negative", line(4, last_value("-0.1")), r"line 4, case case-\d\d: mae is -0.1, not a fraction"),
    ("percent", line(4, last_value("91.2")), r"line 4, case case-\d\d: mae is 91.2, not a fraction.*percent are not read"),
    ("a case twice", lambda content: content + content.splitlines(keepends=True)[-1], r"line 16: case .* stands twice \(1 row"),
    ("newer schema", line(4, lambda row: "99" + row[1:]), r"line 4: schema version '99'; .*Upgrade"),
    ("no UTF-8", lambda content: content.replace(b"case-03", b"case-\xff3", 1), r"not a case table \(.*utf-8"),
    ("no UTF-8 in the header", lambda content: b"\xff" + content, r"not a case table \(.*utf-8"),
    ("an unknown column", line(1, lambda row: row.replace("mae", "accuracy")), r"line 1: column 'accuracy' is no measure"),
    ("a measure twice", line(1, lambda row: row.replace("mae", "dsc")), r"line 1: a measure stands twice"),
    ("another first column", line(1, lambda row: row.replace("case_id", "id")), r"line 1: the columns must open with"),
    (
        "a thousand columns",
        lambda content: b"\n".join(
            row + b"".join(b",c%d" % n if not place else b",0" for n in range(1000))
            for place, row in enumerate(content.splitlines())
        ),
        r"line 1: 1000 columns, first 'c0', are no measure of this version",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_damage_is_named_with_its_line(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    folder = write_run(tmp_path, case_rows())
    folder.cases_file.write_bytes(damage(folder.cases_file.read_bytes()))
    with pytest.raises(RunError, match=message):
        read_table(folder, None if "measure" in message else ["mae"])


def test_a_quoted_name_does_not_hide_damage(tmp_path: Path) -> None:
    rows = [replace(row, case_id=f"{row.case_id}, left") for row in case_rows()]
    folder = write_run(tmp_path, rows)
    folder.cases_file.write_bytes(line(4, lambda row: row.rstrip() + ",1\n")(folder.cases_file.read_bytes()))
    with pytest.raises(RunError, match="line 4: more fields than columns"):
        read_table(folder, ["dsc"])


def test_damage_outside_of_the_asked_measure_is_found_where_a_row_is_short(tmp_path: Path) -> None:
    folder = write_run(tmp_path, case_rows())
    folder.cases_file.write_bytes(line(4, lambda row: row.rpartition(",")[0] + "\n")(folder.cases_file.read_bytes()))
    with pytest.raises(RunError, match="line 4: truncated"):
        read_table(folder, ["dsc"])


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cases\.csv: no case table; the run was interrupted"):
        read_table(RunFolder(tmp_path))


def test_a_case_that_another_run_has_is_missed(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows())
    write_run(tmp_path, [row for row in case_rows(2) if row.case_id != "case-03"], seed=2)
    with pytest.raises(RunError, match=r"UNet-2.*: seen near lesion lacks 1 of 6 cases, first case-03, which run UNet-1"):
        read_frame(runs_of(tmp_path), protocol=PROTOCOL)


def test_a_case_in_another_group_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows())
    rows = [replace(row, group_id="other") if row.case_id == "case-03" else row for row in case_rows(2)]
    write_run(tmp_path, rows, seed=2)
    with pytest.raises(RunError, match=r"UNet-2.*case case-03 is of group 'other', in run UNet-1 .* of group 'patient-01'"):
        read_frame(runs_of(tmp_path), protocol=PROTOCOL)


def test_other_manifests_may_hold_other_cases(tmp_path: Path) -> None:
    write_run(tmp_path, case_rows())
    rows = case_rows(2, cases={"near": 4})
    folder = write_run(tmp_path, rows, seed=2)
    write_result(folder, rows, seed=2, manifests={"near": "11"})
    assert len(read_frame(runs_of(tmp_path), protocol=PROTOCOL)) == 14 + 4
