from __future__ import annotations

import io

import numpy as np
import pytest

from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.profile.compare import Profile
from madgnet_bench.catalog.profile.figure import draw_profile
from madgnet_bench.catalog.profile.measure import profile_datasets


@pytest.fixture(scope="module")
def sets():
    found = [PhantomDataset("radiology", shift=number / 10, cases=5, size=48) for number in range(9)]
    return profile_datasets(found, size=64)


def test_every_set_has_a_line_and_a_band(sets):
    figure = draw_profile(Profile.of(sets[:1], sets[1:3]))
    axis = figure.axes[0]
    lines = [line for line in axis.get_lines() if len(line.get_xdata()) == 32]
    assert [str(line.get_label()).partition("\n")[0] for line in lines] == [item.name for item in sets[:3]]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "--"]
    for line, item, band in zip(lines, sets, axis.collections, strict=False):
        assert np.array_equal(np.asarray(line.get_ydata()), item.log_power)
        corners = band.get_paths()[0].vertices
        assert corners[:, 1].max() == pytest.approx((item.log_power + item.log_power_std).max())
    assert axis.get_xscale() == "log" and axis.get_xlim() == (1, 32)
    assert "64 x 64" in axis.get_xlabel() and "dB" in axis.get_ylabel()


def test_nine_sets_are_told_apart(sets):
    lines = [line for line in draw_profile(Profile.of(sets)).axes[0].get_lines() if len(line.get_xdata()) == 32]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 9


def test_it_can_be_written(sets):
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        stream = io.BytesIO()
        draw_profile(Profile.of(sets[:2])).savefig(stream, format=kind)
        assert stream.getvalue().startswith(start)
