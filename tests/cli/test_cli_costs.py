import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from standins import Boxes, TinyNetwork, quiet_trainer, tiny_task
from torch import nn

from madgnet_bench.bench.store import load_runs
from madgnet_bench.cli import main
from madgnet_bench.cli.costs import measure_costs
from madgnet_bench.contracts import Inferer, Prediction, SegmentationOutput
from madgnet_bench.data.seen_unseen import SeenUnseenDataModule
from madgnet_bench.records import find_runs

TINY = Path(__file__).with_name("tiny.yaml")


class Adapting(Inferer):
    """Changes the network and draws from every random stream, as test-time adaptation with dropout may."""

    adapts = True

    def infer(self, network, batch):
        random.random(), np.random.rand(), torch.rand(1)
        logits = network.train()(batch.image).logits
        logits.sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad
        return Prediction(logits.sigmoid())


class Refusing(TinyNetwork):
    def forward(self, image, *, context=None):
        raise RuntimeError("out of  memory\nsomewhere")


class Elementwise(TinyNetwork):
    def forward(self, image, *, context=None):
        return SegmentationOutput(self.head.weight.sum() * image[:, :1])


def setting(network, **options):
    task, trainer = tiny_task(network, **options), quiet_trainer()
    data = SeenUnseenDataModule([Boxes(channels=3)], protocol="madgnet[size=16]")
    data.setup("test")
    return trainer, task, data


def test_multiply_accumulates_are_those_counted_by_hand():
    costs = measure_costs(*setting(TinyNetwork()))
    assert costs.gmac == pytest.approx(16 * 16 * (6 * 3 * 9 + 6) / 1e9)
    assert costs.milliseconds_per_image > 0
    assert 1 <= costs.milliseconds_repeats <= 7
    assert costs.reasons == {}


def test_a_slow_network_is_timed_once():
    assert measure_costs(*setting(TinyNetwork()), seconds=0).milliseconds_repeats == 1


def test_nothing_that_a_result_could_depend_on_is_touched():
    trainer, task, data = setting(TinyNetwork(norm=True, dropout=0.5), inferer=Adapting())
    task.train()
    task.network.head.eval()
    weights = {key: value.clone() for key, value in task.state_dict().items()}
    modes = [module.training for module in task.modules()]

    def streams():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def settings():
        cudnn = torch.backends.cudnn
        return cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()

    before = streams(), settings()
    costs = measure_costs(trainer, task, data)
    assert costs.milliseconds_per_image is not None
    assert (streams(), settings()) == before
    assert [module.training for module in task.modules()] == modes
    assert all(torch.equal(weights[key], value) for key, value in task.state_dict().items())
    assert not any(parameter.grad is not None for parameter in task.parameters())


def test_what_cannot_be_measured_has_a_reason():
    costs = measure_costs(*setting(Refusing()))
    assert (costs.gmac, costs.milliseconds_per_image) == (None, None)
    assert costs.reasons == dict.fromkeys(("gmac", "milliseconds_per_image"), "RuntimeError: out of memory somewhere")
    costs = measure_costs(*setting(Elementwise()))
    assert costs.gmac is None and costs.reasons == {"gmac": "nothing that torch counts"}
    assert costs.milliseconds_per_image > 0


def test_a_network_that_cannot_be_copied_has_a_reason():
    network = TinyNetwork()
    network.register_buffer("part", nn.Parameter(torch.ones(1)) * 2)  # not a leaf
    assert "deepcopy" in measure_costs(*setting(network)).reasons["gmac"]


def test_a_run_has_costs_and_the_same_tables_without(tmp_path):
    runs = []
    for name, more in (("with", []), ("without", ["--run.costs", "false"])):
        words = ["--config", str(TINY), "--run.root", str(tmp_path / name)]
        assert main(["fit", *words, *more]) == 0
        runs += find_runs(tmp_path / name)
    measured, bare = (run.read_result() for run in runs)
    costs = measured.pop("costs")
    assert "costs" not in bare
    assert measured["run_id"] == bare["run_id"]
    for name in ("cases_file", "curves_file", "history_file"):
        assert getattr(runs[0], name).read_bytes() == getattr(runs[1], name).read_bytes()
    assert costs["gmac"] > 0 and costs["milliseconds_per_image"] > 0
    assert costs["peak_memory_of"] == "process" and 50 < costs["peak_memory_mb"] < 50_000
    assert costs["device_hours"] == pytest.approx(measured["seconds"] / 3600, abs=1e-4)
    assert costs["gpu_hours"] is None
    again = json.loads(runs[0].result_file.read_text())["costs"]
    assert main(["test", str(runs[0].path)]) == 0
    kept = runs[0].read_result()["costs"]
    assert {**kept, "milliseconds_per_image": 0} == {**again, "milliseconds_per_image": 0}
    assert [len(load_runs([run.path]).runs) for run in runs] == [1, 1]
