import numpy as np
import pytest

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.single_target import SingleTarget
from madgnet_bench.errors import ConfigError


def fundus():
    return PhantomDataset("fundus", size=32, cases=5)


def test_the_union_of_all_targets_keeps_the_name():
    source = fundus()
    united = SingleTarget(source)
    assert (united.name, united.card.targets, united.split_name) == (source.name, ("foreground",), "generated")
    assert united.manifest.sha256 == source.manifest.sha256
    case = source.manifest.cases[0]
    assert np.array_equal(united.read_mask(case), source.read_mask(case).max(0, keepdims=True))
    assert np.array_equal(united.read_image(case), source.read_image(case))
    assert united.check() == []


def test_a_chosen_target_stands_in_the_name():
    source = fundus()
    cup = SingleTarget(source, target="cup", name="structure")
    assert (cup.name, cup.card.targets, cup.card.containment) == (f"{source.name}:cup", ("structure",), ())
    case = source.manifest.cases[0]
    assert np.array_equal(cup.read_mask(case)[0], source.read_mask(case)[source.card.targets.index("cup")])


def test_an_unknown_target_is_refused():
    with pytest.raises(ConfigError, match="no target 'rim'; it has disc, cup"):
        SingleTarget(fundus(), target="rim")
