from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from madgnet_bench.bench.suite import Job, Suite
from madgnet_bench.errors import ConfigError

FILES = ("shared", "net_a", "net_b", "set_x", "set_y", "extra")

GRID = """
configs: [../configs/shared.yaml]
set: {trainer.max_epochs: 100}
networks:
  a: {configs: [../configs/net_a.yaml], set: {model.init_args.network.init_args.scales: 1}}
  b: ../configs/net_b.yaml
training_sets:
  x: ../configs/set_x.yaml
  y: ../configs/set_y.yaml
seeds: [0, 1]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a suite file beside a folder of configurations; the working folder is the one that holds both."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "suites").mkdir()
    for name in FILES:
        (tmp_path / "configs" / f"{name}.yaml").write_text("seed_everything: true\n")
    monkeypatch.chdir(tmp_path)

    def write_suite(text: str, name: str = "grid.yaml") -> Path:
        path = tmp_path / "suites" / name
        path.write_text(text)
        return path

    return write_suite


def options(job: Job) -> dict[str, str]:
    """The settings of a job; files apart."""
    words = list(job.arguments)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return {name.removeprefix("--"): value for name, value in pairs if name != "--config"}


def files(job: Job) -> list[str]:
    return [Path(value).stem for name, value in zip(job.arguments, job.arguments[1:], strict=False) if name == "--config"]


def chosen(jobs: tuple[Job, ...], **cells: str) -> list[Job]:
    return [job for job in jobs if cells.items() <= job.cells.items()]


def test_a_grid_is_the_product_of_its_axes(write: Write):
    suite = Suite.read(write(GRID))
    assert suite.name == "grid"
    assert suite.axes == {"network": ("a", "b"), "training_set": ("x", "y"), "seed": ("0", "1")}
    names = [job.name for job in suite.jobs()]
    assert names == ["a/x/0", "a/x/1", "a/y/0", "a/y/1", "b/x/0", "b/x/1", "b/y/0", "b/y/1"]
    assert len({job.key for job in suite.jobs()}) == 8


def test_other_seeds_can_take_the_place_of_the_files_and_common_jobs_keep_their_keys(write: Write):
    path = write(GRID)
    ours, theirs = Suite.read(path).jobs(), Suite.read(path, seeds=[1, 7]).jobs()
    assert [job.name for job in theirs] == ["a/x/1", "a/x/7", "a/y/1", "a/y/7", "b/x/1", "b/x/7", "b/y/1", "b/y/7"]
    assert {job.name: job.key for job in theirs if job.name.endswith("/1")} == {
        job.name: job.key for job in ours if job.name.endswith("/1")
    }
    with pytest.raises(ConfigError, match="seeds"):
        Suite.read(path, seeds=[1, 1])


def test_a_job_is_a_command_that_runs_it_alone(write: Write):
    first, *_ = Suite.read(write(GRID)).jobs()
    assert first.suite == "grid"
    assert first.cells == {"network": "a", "training_set": "x", "seed": "0"}
    assert first.command == (
        "madgnet-bench fit --config configs/shared.yaml --config configs/net_a.yaml --config configs/set_x.yaml "
        "--trainer.max_epochs 100 --model.init_args.network.init_args.scales 1 --seed_everything 0 --run.suite grid"
    )
    assert shlex.split(first.command) == ["madgnet-bench", "fit", *first.arguments]
    assert len({first, Suite.read("suites/grid.yaml").jobs()[0]}) == 1


def test_values_of_every_type_reach_the_command_line(write: Write):
    text = GRID + "sweep:\n  one:\n    cell:\n      set:\n        a: -1\n        b: 1.0e-4\n        c: true\n        d: null\n"
    text += "        e: [0.75, 1]\n        f: {class_path: L, init_args: {k: 2}}\n        g: two words; $x\n        h: ''\n"
    (job, *_) = Suite.read(write(text)).jobs()
    assert "--a=-1" in job.arguments
    assert options_of(job, "b", "c", "d") == ["0.0001", "true", "null"]
    assert options_of(job, "e", "f") == ["[0.75, 1]", '{"class_path": "L", "init_args": {"k": 2}}']
    assert options_of(job, "g", "h") == ["two words; $x", ""]
    assert shlex.split(job.command)[2:] == list(job.arguments)


def options_of(job: Job, *names: str) -> list[str]:
    return [job.arguments[job.arguments.index(f"--{name}") + 1] for name in names]


def test_protocols_and_sweeps_are_axes_before_the_seed(write: Write):
    text = GRID + "protocols: [madgnet, 'madgnet[size=64]']\n"
    text += "sweep:\n  rate: {slow: {set: {lr: 0.1}}, fast: {set: {lr: 0.2}}}\n  1: {2: {}}\n"
    suite = Suite.read(write(text))
    assert list(suite.axes) == ["network", "training_set", "protocol", "rate", "1", "seed"]
    assert len(suite.jobs()) == 2 * 2 * 2 * 2 * 1 * 2
    job = suite.jobs()[-1]
    assert job.name == "b/y/madgnet[size=64]/fast/2/1"
    expected = {"protocol": "madgnet[size=64]", "lr": "0.2", "seed_everything": "1", "trainer.max_epochs": "100"}
    assert options(job) == {**expected, "run.suite": "grid"}


def test_later_places_win_and_settings_beat_files(write: Write):
    text = GRID.replace("  y: ../configs/set_y.yaml", "  y: {configs: [../configs/set_y.yaml], set: {trainer.max_epochs: 3}}")
    text += """
sweep:
  kind: {plain: {}, other: {configs: [../configs/extra.yaml], set: {trainer.max_epochs: 4}}}
overrides:
  - {where: {network: a, kind: other}, configs: [../configs/net_b.yaml], set: {trainer.max_epochs: 5}}
  - {where: {network: a, kind: other, seed: 1}, set: {trainer.max_epochs: 6}}
"""
    jobs = Suite.read(write(text)).jobs()
    epochs = {job.name: options(job)["trainer.max_epochs"] for job in jobs}
    assert epochs["b/x/plain/0"] == "100"  # shared
    assert epochs["b/y/plain/0"] == "3"  # the training set's
    assert epochs["b/y/other/0"] == "4"  # the sweep's
    assert epochs["a/y/other/0"] == "5"  # the first override's
    assert epochs["a/y/other/1"] == "6"  # the second's
    (job,) = chosen(jobs, network="a", training_set="y", kind="other", seed="1")
    assert files(job) == ["shared", "net_a", "set_y", "extra", "net_b"]
    words = list(job.arguments)
    assert max(i for i, w in enumerate(words) if w == "--config") < words.index("--trainer.max_epochs")
    assert words.count("--trainer.max_epochs") == 1


def test_include_keeps_and_exclude_leaves_out(write: Write):
    text = GRID + "include: [{network: a}, {network: b, seed: 0}]\nexclude: [{network: b, training_set: [y]}]\n"
    assert [job.name for job in Suite.read(write(text)).jobs()] == ["a/x/0", "a/x/1", "a/y/0", "a/y/1", "b/x/0"]


def test_conditions_name_protocols_in_any_spelling(write: Write):
    text = (
        GRID
        + "protocols: ['madgnet[size=352]', native]\nexclude: [{protocol: madgnet}, {protocol: 'native[maps=soft]', seed: 1}]\n"
    )
    assert [job.name for job in Suite.read(write(text)).jobs()] == [
        f"{network}/{data}/native/0" for network in "ab" for data in "xy"
    ]


def test_keys_depend_on_the_job_alone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(GRID)
    before = {job.name: job.key for job in Suite.read(path).jobs()}
    monkeypatch.chdir(tmp_path / "suites")
    elsewhere = Suite.read("grid.yaml").jobs()
    assert {job.name: job.key for job in elsewhere} == before
    assert Path(elsewhere[0].arguments[1]).is_absolute()  # not below the working folder
    more = Suite.read(write(GRID.replace("[0, 1]", "[1, 0, 7]"), "renamed.yaml")).jobs()
    assert before.items() <= {job.name: job.key for job in more}.items()
    assert all(len(key) == 12 for key in before.values())


@pytest.mark.parametrize(
    ("old", "new", "key", "advice"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "seed", "unknown key; did you mean 'seeds'?"),
        ("seeds: [0, 1]", "", "seeds", "missing"),
        ("seeds: [0, 1]", "seeds: []", "seeds", "empty"),
        ("seeds: [0, 1]", "seeds: 3", "seeds", "expected a list, found the number 3"),
        ("seeds: [0, 1]", "seeds: [0, 1, 0]", "seeds[2]", "0 is listed twice"),
        ("seeds: [0, 1]", "seeds: [0, true]", "seeds[1]", "truth value"),
        ("seeds: [0, 1]", "seeds: [-1]", "seeds[0]", "whole number"),
        ("seeds: [0, 1]", "seeds: [0]\nprotocols: [madgnets]", "protocols[0]", "did you mean 'madgnet'?"),
        ("seeds: [0, 1]", "seeds: [0]\nprotocols: [native, native]", "protocols[1]", "twice"),
        ("seeds: [0, 1]", "seeds: [0]\nprotocols: [1]", "protocols[0]", "found the number 1"),
        ("set: {trainer.max_epochs: 100}", "set: [trainer]", "set", "expected a mapping of dotted keys, found the list"),
        ("set: {trainer.max_epochs: 100}", "set: {max epochs: 1}", "set", "'max epochs' is not a dotted key"),
        ("set: {trainer.max_epochs: 100}", "set: {seed_everything: 1}", "set.seed_everything", "list seeds under seeds"),
        ("set: {trainer.max_epochs: 100}", "set: {run.suite: x}", "set.run.suite", "the name of the file"),
        ("set: {trainer.max_epochs: 100}", "set: {d: 2024-01-01}", "set.d", "expected a number, text"),
        ("set: {trainer.max_epochs: 100}", "set: {d: .nan}", "set.d", "expected a number, text"),
        ("set: {trainer.max_epochs: 100}", "set: {protocol: madgnet}\nprotocols: [native]", "set.protocol", "under protocols"),
        ("../configs/shared.yaml", "../configs/shard.yaml", "configs[0]", "did you mean 'shared.yaml'?"),
        ("../configs/shared.yaml", "configs/shared.yaml", "configs[0]", "did you mean '../configs/shared.yaml'?"),
        ("[../configs/shared.yaml]", "../configs/shared.yaml", "configs", "expected a list, found the text"),
        ("[../configs/shared.yaml]", "[1]", "configs[0]", "expected a path, found the number 1"),
        ("{configs: [../configs/net_a.yaml], set", "{config: [], set", "networks.a.config", "did you mean 'configs'?"),
        ("b: ../configs/net_b.yaml", "b:", "networks.b", "expected a path, or a mapping of configs and set"),
        ("b: ../configs/net_b.yaml", "b: ../configs/net_c.yaml", "networks.b", "no file '../configs/net_c.yaml'"),
        ("b: ../configs/net_b.yaml", "on: ../configs/net_b.yaml", "networks", "put the name in quotes"),
        ("b: ../configs/net_b.yaml", "b/c: ../configs/net_b.yaml", "networks", "leave it out"),
        ("b: ../configs/net_b.yaml", "a: ../configs/net_b.yaml", "", "'a' stands twice"),
        ("y: ../configs/set_y.yaml", "y: ../configs/set_x.yaml", "", "a/x/0 and a/y/0 are the same job"),
    ],
)
def test_mistakes_name_the_file_the_key_and_what_to_write(write: Write, old: str, new: str, key: str, advice: str):
    assert old in GRID
    path = write(GRID.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Suite.read(path)
    assert str(caught.value).startswith(f"{path}: {key}{':' if key else ''}")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("more", "key", "advice"),
    [
        ("sweep: {network: {a: {}}}", "sweep.network", "has such an axis already"),
        ("sweep: {rate: {}}", "sweep.rate", "empty; name at least one"),
        ("sweep: [rate]", "sweep", "expected a mapping of names, found the list"),
        ("exclude: [{networks: a}]", "exclude[0].networks", "unknown key; did you mean 'network'?"),
        ("exclude: [{protocol: native}]", "exclude[0].protocol", "valid: network, training_set, seed."),
        ("exclude: [{training_set: z}]", "exclude[0].training_set", "unknown name 'z'; valid: x, y."),
        ("include: [{seed: [0, 2]}]", "include[0].seed", "unknown name '2'; valid: 0, 1."),
        ("include: [{seed: []}]", "include[0]", "empty"),
        ("include: {seed: 1}", "include", "expected a list, found the mapping"),
        ("exclude: [{seed: [0, 1]}]", "", "no job is left"),
        ("overrides: [{set: {a: 1}}]", "overrides[0]", "needs where"),
        ("overrides: [{where: {seed: 0}}]", "overrides[0]", "needs where, and configs or set"),
        ("overrides: [{where: {}, set: {a: 1}}]", "overrides[0].where", "empty"),
        ("overrides: [{where: {seed: 0}, sets: {}}]", "overrides[0].sets", "did you mean 'set'?"),
        ("overrides: [{where: {seed: 0}, configs: [no.yaml]}]", "overrides[0].configs[0]", "no file 'no.yaml'"),
        ("exclude: [{seed: 1}]\noverrides: [{where: {seed: 1}, set: {a: 1}}]", "overrides[0].where", "no job that is left"),
    ],
)
def test_mistakes_about_axes_name_the_nearest_name(write: Write, more: str, key: str, advice: str):
    path = write(GRID + more + "\n")
    with pytest.raises(ConfigError) as caught:
        Suite.read(path)
    assert str(caught.value).startswith(f"{path}: {key}{':' if key else ''}")
    assert advice in str(caught.value)


def test_two_names_for_one_job_may_be_told_apart_by_an_override(write: Write):
    same = GRID.replace("y: ../configs/set_y.yaml", "y: ../configs/set_x.yaml")
    path = write(same + "overrides: [{where: {training_set: y}, set: {a: 1}}]\n")
    assert len(Suite.read(path).jobs()) == 8


@pytest.mark.parametrize(
    ("text", "advice"),
    [("networks: [", "not YAML"), ("", "expected a mapping, found nothing"), ("- 1", "expected a mapping, found the list")],
)
def test_files_that_are_no_suites_are_refused(write: Write, text: str, advice: str):
    with pytest.raises(ConfigError, match=advice):
        Suite.read(write(text))


def test_a_missing_suite_names_a_similar_one(write: Write):
    write(GRID)
    with pytest.raises(ConfigError, match=r"no such suite file; did you mean 'grid.yaml'\?"):
        Suite.read("suites/gird.yaml")


def test_a_suite_is_named_like_a_folder(write: Write):
    with pytest.raises(ConfigError, match="becomes a folder name"):
        Suite.read(write(GRID, "my grid.yaml"))


def test_a_thousand_jobs_are_read_in_well_under_a_second(write: Write):
    cells = "".join(f"  n{i}: {{configs: [../configs/net_a.yaml], set: {{a: {i}}}}}\n" for i in range(25))
    text = GRID.replace(GRID[GRID.index("  a: ") : GRID.index("training_sets")], cells).replace("[0, 1]", str(list(range(20))))
    path = write(text + "overrides: [{where: {network: [n1, n2]}, set: {b: 1}}]\n")
    start = time.process_time()
    assert len(Suite.read(path).jobs()) == 1000
    assert time.process_time() - start < 0.5


def test_neither_torch_nor_lightning_is_imported():
    code = "import sys, madgnet_bench.bench.suite; sys.exit(bool({'torch', 'lightning', 'jsonargparse'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
