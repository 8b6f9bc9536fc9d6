from madgnet_bench.cli.text import align


def test_columns_are_aligned_and_lines_have_no_trailing_blanks():
    rows = [["name", "set", "DSC"], ["a", "far away", "7.5"], ["longer", "b", "100.0"]]
    assert align(rows, left=2) == "name    set         DSC\na       far away    7.5\nlonger  b         100.0"
    assert align([["a", "b"], ["ccc", "d"]]) == "a    b\nccc  d"
