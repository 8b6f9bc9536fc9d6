from __future__ import annotations

import pytest
from made_runs import run

from madgnet_bench.bench.selection import Selection
from madgnet_bench.errors import RunError

RUNS = [run("UNet 4-32"), run("MADGNet resnet50"), run("MADGNet mit_b2", training_sets=("far", "near"))]


@pytest.mark.parametrize(
    ("selection", "networks"),
    [
        (Selection(), ["UNet 4-32", "MADGNet resnet50", "MADGNet mit_b2"]),
        (Selection(networks=("madgnet*",)), ["MADGNet resnet50", "MADGNet mit_b2"]),
        (Selection(networks=("unet*", "*mit*")), ["UNet 4-32", "MADGNet mit_b2"]),
        (Selection(training_sets=("FAR",)), ["MADGNet mit_b2"]),
        (Selection(training_sets=("far",), networks=("*mit*",)), ["MADGNet mit_b2"]),
    ],
)
def test_patterns_choose_runs(selection: Selection, networks: list[str]) -> None:
    assert [chosen.network for chosen in selection.apply(RUNS)] == networks
    assert bool(selection) == (selection != Selection())


@pytest.mark.parametrize(
    ("selection", "datasets"),
    [
        (Selection(datasets=("f*",)), ["far", "further"]),
        (Selection(datasets=("near", "far")), ["near", "far"]),
        (Selection(setting="seen"), ["near"]),
        (Selection(setting="unseen", datasets=("*r",)), ["far", "further"]),
    ],
)
def test_patterns_choose_cells(selection: Selection, datasets: list[str]) -> None:
    assert [cell.dataset for cell in selection.apply(RUNS)[0].cells] == datasets
    assert selection.columns


def test_nothing_left_says_what_there_is() -> None:
    with pytest.raises(
        RunError, match=r"with network vit\*, seen test sets\. .*networks: MADGNet mit_b2, .*test sets: far, fur"
    ):
        Selection(networks=("vit*",), setting="seen").apply(RUNS)
