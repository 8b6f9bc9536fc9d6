import pytest

from madgnet_bench.errors import BenchError, ConfigError, DataErrors, Problem, RunError


def test_every_error_is_a_bench_error():
    assert all(issubclass(error, BenchError) for error in (ConfigError, DataErrors, RunError))


def test_problems_are_an_aligned_table():
    problems = [Problem("a.png", "missing", "restore it"), Problem("longer/b.png", "not binary", "save it again")]
    lines = str(DataErrors("my_set", problems)).splitlines()
    assert lines[0].startswith("my_set: 2 problems")
    assert [line.index(word) for line, word in zip(lines[1:], ["problem", "missing", "not binary"], strict=True)] == [16] * 3
    assert [line.index(word) for line, word in zip(lines[1:], ["fix", "restore", "save"], strict=True)] == [28] * 3


def test_one_problem_is_singular_and_kept():
    error = DataErrors("my_set", [Problem("a.png", "missing", "restore it")])
    assert "1 problem;" in str(error)
    assert error.where == "my_set"
    assert error.problems == (Problem("a.png", "missing", "restore it"),)


@pytest.mark.parametrize(("count", "rest"), [(3, None), (5, "and 2 more")])
def test_long_tables_are_cut_and_counted(count, rest):
    message = str(DataErrors("s", [Problem(f"{i}.png", "missing", "restore it") for i in range(count)], shown=3))
    assert f"{count} problems" in message
    assert message.count("restore it") == 3
    assert (rest in message) if rest else ("more" not in message)
