import pytest

from madgnet_bench.catalog.manifest import Case, Manifest
from madgnet_bench.errors import DataErrors

CASES = [
    Case("b", "p1", "images/b.png", "masks/b.png", "test", "he"),
    Case("a", "p1", "images/a, b.png", "masks/a/;masks/c.png|masks/d.png", "train"),
    Case("c", "p2", "images/é.png", 'masks/"c".png', "val"),
]


def test_cases_are_sorted_and_picked_by_split():
    manifest = Manifest("set", CASES)
    assert [case.case_id for case in manifest] == ["a", "b", "c"]
    assert manifest.rows() == [0, 1, 2]
    assert manifest.rows("train", "val") == [0, 2]
    assert len(manifest) == 3


def test_csv_round_trip(tmp_path):
    manifest = Manifest("set", CASES)
    (tmp_path / "m.csv").write_text(manifest.to_csv(), encoding="utf-8")
    again = Manifest.from_csv(tmp_path / "m.csv", "set")
    assert again == manifest
    assert again.sha256 == manifest.sha256


def test_hash_ignores_order_and_sees_every_column():
    manifest = Manifest("set", CASES)
    assert Manifest("other name", CASES[::-1]).sha256 == manifest.sha256
    moved = [*CASES[:2], Case("c", "p2", "images/é.png", 'masks/"c".png', "test")]
    assert Manifest("set", moved).sha256 != manifest.sha256


def test_empty_and_double_cases_are_refused():
    with pytest.raises(DataErrors, match="the data set is empty"):
        Manifest("set", [])
    with pytest.raises(DataErrors, match="case a stands twice"):
        Manifest("set", [CASES[1], Case("a", "p9", "images/z.png", "masks/z.png", "test")])


@pytest.mark.parametrize("row", ["a,p,i.png,m.png,dev,", "a,p,i.png"])
def test_bad_rows_are_named_by_line(tmp_path, row):
    (tmp_path / "m.csv").write_text(f"case_id,group_id,image,mask,split,domain\nz,p,i.png,m.png,test,\n{row}\n")
    with pytest.raises(DataErrors, match="line 3"):
        Manifest.from_csv(tmp_path / "m.csv", "set")
