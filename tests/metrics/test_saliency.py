from __future__ import annotations

import math
import warnings

import numpy as np
import py_sod_metrics
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from madgnet_bench.metrics.overlap import mean_absolute_error
from madgnet_bench.metrics.saliency import (
    e_adaptive,
    e_curve,
    e_measure,
    mean_and_max,
    overlap_curves,
    released_e,
    released_s,
    s_measure,
    stretch,
    threshold_counts,
    weighted_f,
)

BACKENDS = ("scipy", "opencv", "torch")


def one(array):
    return torch.from_numpy(np.ascontiguousarray(array))[None, None]


def reference_of(measure, p, g):
    """A measure of PySODMetrics for one map; it warns where it divides by nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        meter = getattr(py_sod_metrics, measure)()
        meter.step(p, g, normalize=False)
    return meter


def drawn_map(random, shape, kind):
    """One map and its mask. Two-valued and constant maps hold binary fractions, so that their means are exact in any order."""
    g = random.random(shape) < random.choice([0.0, 0.02, 0.3, 0.7, 1.0])
    p = random.random(shape)
    if kind == "steps":
        p = random.integers(0, 257, shape) / 256
    elif kind == "binary":
        p = (random.random(shape) < random.choice([0.05, 0.5])).astype(float)
    elif kind == "constant":
        p = np.full(shape, random.integers(0, 9) / 8)
    elif kind == "one pixel":
        g = np.zeros(shape, bool)
        g[tuple(random.integers(0, side) for side in shape)] = True
    elif kind == "nearly right":
        p = np.where(random.random(shape) < 0.9, g, p).astype(float)
    elif kind == "thresholds":
        p = random.integers(0, 256, shape) / 255
    elif kind == "block":
        g = np.zeros(shape, bool)
        g[shape[0] // 4 : shape[0] // 2 + 1, shape[1] // 3 : shape[1] // 2 + 2] = True
        p = np.clip(g * 0.8 + 0.2 * random.random(shape), 0, 1)
    elif kind == "almost full":
        g = np.ones(shape, bool)
        g[random.integers(shape[0]), random.integers(shape[1])] = False
    return p, g


KINDS = ("noise", "steps", "binary", "constant", "one pixel", "nearly right", "thresholds", "block", "almost full")


def seeded_maps(number, *, seed=0, largest=40):
    random = np.random.default_rng(seed)
    for index in range(number):
        shape = tuple(random.integers(1, largest, 2))
        if index % 10 == 0:
            shape = (1, 1 + shape[1]) if index % 20 else (1 + shape[0], 1)
        yield drawn_map(random, shape if np.prod(shape) > 1 else (2, 3), KINDS[index % len(KINDS)])


def assert_agreement(p, g, *, backends=BACKENDS):
    """All measures of one map against PySODMetrics to 1e-6, but for the two differences that the module tells."""
    ours, mask = one(p), one(g)
    expected = reference_of("WeightedFmeasure", p, g).weighted_fms[0]
    for backend in backends:
        assert weighted_f(ours, mask, empty=0.0, backend=backend).item() == pytest.approx(expected, abs=1e-6), backend
    found, expected = s_measure(ours, mask).item(), reference_of("Smeasure", p, g).sms[0]
    if math.isnan(expected):
        row, column = np.argwhere(g).mean(0).round()
        assert row + 1 == g.shape[0] or column + 1 == g.shape[1]
        assert 0 <= found <= 1
    else:
        assert found == pytest.approx(expected, abs=1e-6)
    meter = reference_of("Emeasure", p, g)
    assert e_curve(threshold_counts(ours, mask))[0, 0].numpy()[::-1] == pytest.approx(meter.changeable_ems[0], abs=1e-6)
    if p.any():
        assert e_adaptive(ours, mask).item() == pytest.approx(meter.adaptive_ems[0], abs=1e-6)
    assert mean_absolute_error(ours, mask).item() == pytest.approx(reference_of("MAE", p, g).maes[0], abs=1e-12)


def test_agreement_with_pysodmetrics_on_hundreds_of_maps():
    for p, g in seeded_maps(450):
        assert_agreement(p, g)


def test_agreement_with_pysodmetrics_on_large_smooth_maps():
    row, column = np.mgrid[:150, :190]
    for centre, radius, sharpness in (((70, 80), 30, 4), ((0, 100), 40, 2), ((140, 185), 25, 9), ((75, 95), 3, 1)):
        depth = radius - np.hypot(row - centre[0], column - centre[1])
        p = 1 / (1 + np.exp(-depth / sharpness + np.sin(row / 7) + np.cos(column / 11)))
        assert_agreement(p, depth > 0, backends=("scipy", "opencv"))
        assert_agreement((p >= 0.5).astype(float), depth > 0, backends=("scipy", "opencv"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(2, 12), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_agreement_with_pysodmetrics_on_degenerate_maps(height, width, kind, seed):
    assert_agreement(*drawn_map(np.random.default_rng(seed), (height, width), kind))


def test_s_measure_without_an_empty_block_is_the_formula_over_the_others():
    """Objects whose centroid lies in the last row, where PySODMetrics has no number: the image with a row repeated has one."""
    p = np.array([[0.9, 0.2, 0.4, 0.1]])
    g = np.array([[True, False, True, False]])
    object_score = 0.5 * sum(2 * x.mean() / (x.mean() ** 2 + 1 + x.std(ddof=1)) for x in (p[g], 1 - p[~g]))
    left, right = (p[0, :2], g[0, :2]), (p[0, 2:], g[0, 2:])
    blocks = [
        4 * x.mean() * y.mean() * np.cov(x, y)[0, 1] / ((x.mean() ** 2 + y.mean() ** 2) * (x.var(ddof=1) + y.var(ddof=1)))
        for x, y in ((p, g.astype(float)) for p, g in (left, right))
    ]
    assert s_measure(one(p), one(g)).item() == pytest.approx(0.5 * object_score + 0.5 * np.mean(blocks))


def test_other_backends_give_the_weighted_f_of_scipy():
    """Equal far beyond 2e-4, because ties of the nearest pixel fall by one rule."""
    for p, g in seeded_maps(100, seed=7):
        values = [weighted_f(one(p), one(g), empty=0.0, backend=backend).item() for backend in BACKENDS]
        assert values[1] == pytest.approx(values[0], abs=1e-7) and values[2] == pytest.approx(values[0], abs=1e-12)


def batch(n=7, k=2, height=21, width=17):
    random = np.random.default_rng(11)
    maps = [drawn_map(random, (height, width), KINDS[i % len(KINDS)]) for i in range(n * k)]
    p, g = (torch.from_numpy(np.stack(part)).view(n, k, height, width) for part in zip(*maps, strict=True))
    return p, g


MEASURES = {
    "weighted F": lambda p, g: weighted_f(p, g, empty=math.nan),
    "S": s_measure,
    "adaptive E": e_adaptive,
    "E": lambda p, g: e_measure(p >= 0.5, g),
    "E curve": lambda p, g: e_curve(threshold_counts(p, g)),
    "released E": lambda p, g: released_e(p >= 0.5, g),
    "released S": lambda p, g: released_s(p >= 0.5, g),
    "IoU curve": lambda p, g: overlap_curves(threshold_counts(p, g), empty=0.0)["iou"],
}


@pytest.mark.parametrize("name", MEASURES)
def test_the_batch_does_not_matter(name):
    p, g = batch()
    whole = MEASURES[name](p, g)
    assert whole.shape[:2] == (7, 2) and whole.dtype == torch.float64
    alone = [MEASURES[name](p[n : n + 1, k : k + 1], g[n : n + 1, k : k + 1]) for n in range(7) for k in range(2)]
    assert torch.equal(torch.cat(alone).view_as(whole).nan_to_num(-1), whole.nan_to_num(-1))
    assert torch.equal(MEASURES[name](p.flip(0), g.flip(0)).flip(0).nan_to_num(-1), whole.nan_to_num(-1))
    none = MEASURES[name](p[:0], g[:0])
    assert none.shape == (0, *whole.shape[1:])


def test_the_number_of_threads_does_not_matter():
    p, g = batch()
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append({name: measure(p, g) for name, measure in MEASURES.items()})
            assert torch.get_num_threads() == threads
        with pytest.raises(ValueError, match="after the sigmoid"):
            s_measure(p + 1, g)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0][name].nan_to_num(-1), found[1][name].nan_to_num(-1)) for name in MEASURES)


def test_what_runs_on_a_gpu_gives_the_same(monkeypatch):
    """Off the CPU all cases go at once, without crops, and the transform is torch's: that path, taken here on the CPU."""
    p, g = batch()
    expected = weighted_f(p, g, empty=0.0), s_measure(p, g), threshold_counts(p, g), e_adaptive(p, g)
    monkeypatch.setattr("madgnet_bench.metrics.saliency._by_case", lambda measure, p, g: measure(p, g))
    found = weighted_f(p, g, empty=0.0, backend="torch"), s_measure(p, g), threshold_counts(p, g), e_adaptive(p, g)
    for one_by_one, at_once in zip(expected, found, strict=True):
        assert torch.allclose(one_by_one.double(), at_once.double(), atol=1e-7)


def test_single_precision_is_read_exactly():
    p, g = batch()
    assert torch.equal(weighted_f(p.float(), g, empty=0.0), weighted_f(p.float().double(), g, empty=0.0))
    assert torch.equal(threshold_counts(p.float(), g), threshold_counts(p.float().double(), g))


def test_flips_and_transposition():
    """E-measures do not see places. Weighted F moves only where ties fall otherwise, S where the centroid is rounded."""
    row, column = np.mgrid[:40, :40]
    g = np.hypot(row - 19.3, column - 17.2) < 9
    p = np.clip(0.9 * np.exp(-np.square(np.hypot(row - 21, column - 16) / 12)) + 0.05 * np.sin(row) ** 2, 0, 1)
    values = {name: [] for name in ("weighted F", "S", "adaptive E", "E", "E curve")}
    for turn in (lambda x: x, np.fliplr, np.flipud, np.transpose):
        for name, found in values.items():
            found.append(MEASURES[name](one(turn(p)), one(turn(g))))
    for name, (first, *others) in values.items():
        tolerance = {"weighted F": 2e-4, "S": 0.02}.get(name, 1e-12)
        assert all(torch.allclose(first, other, rtol=0, atol=tolerance) for other in others), name
    assert torch.allclose(values["S"][0], values["S"][3], atol=1e-12)


FULL, EMPTY = np.ones((6, 8), bool), np.zeros((6, 8), bool)
SPOT = EMPTY.copy()
SPOT[2:4, 3:6] = True
WHOLE = 48 / 47  # the E-measure divides by the number of pixels less one


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (EMPTY, EMPTY, {"weighted F": math.nan, "S": 1, "E": WHOLE, "adaptive E": WHOLE, "released E": 0, "released S": 1}),
        (
            SPOT,
            EMPTY,
            {"weighted F": math.nan, "S": 7 / 8, "E": WHOLE * 7 / 8, "adaptive E": WHOLE * 7 / 8}
            | {"released E": WHOLE * 7 / 8, "released S": 7 / 8},
        ),
        (EMPTY, SPOT, {"E": WHOLE / 4, "adaptive E": WHOLE / 4, "released E": WHOLE / 4}),
        (EMPTY, FULL, {"S": 0, "E": 0, "adaptive E": 0, "released E": WHOLE, "released S": 0}),
        (SPOT, SPOT, {"weighted F": 1, "S": 1, "E": WHOLE, "adaptive E": WHOLE, "released E": WHOLE}),
        (FULL, FULL, {"weighted F": 1, "S": 1, "E": WHOLE, "adaptive E": WHOLE, "released E": WHOLE, "released S": 1}),
    ],
    ids=["both empty", "only reference empty", "only prediction empty", "missed a full one", "right", "full"],
)
def test_the_four_empty_mask_cases(prediction, reference, expected):
    for name, value in expected.items():
        found = MEASURES[name](one(prediction.astype(float)), one(reference)).item()
        assert found == pytest.approx(value, abs=1e-7, nan_ok=True), name
    curves = overlap_curves(threshold_counts(one(prediction.astype(float)), one(reference)), empty=0.5)
    for name, curve in curves.items():
        if not reference.any():
            assert curve[0, 0, 255] == (0.5 if not prediction.any() else 0), name
        else:
            assert curve[0, 0, 255] == float(prediction.any()), name


def test_the_weighted_f_of_an_empty_reference_is_what_the_caller_says():
    for prediction in (EMPTY, SPOT, FULL):
        for empty in (0.0, 1.0):
            assert weighted_f(one(prediction.astype(float)), one(EMPTY), empty=empty).item() == empty


def test_the_weighted_f_of_a_miss_is_zero_but_at_the_border():
    nothing = np.zeros((20, 20))
    inside, at_border = nothing.astype(bool), nothing.astype(bool)
    inside[3:17, 3:17], at_border[2:17, 3:17] = True, True
    assert weighted_f(one(nothing), one(inside), empty=0.0).item() == pytest.approx(0, abs=1e-12)
    assert 0.001 < weighted_f(one(nothing), one(at_border), empty=0.0).item() < 0.02


def test_a_missed_pixel_hardly_shows_in_the_s_measure():
    g = np.zeros((64, 64), bool)
    g[0, 0] = True
    assert s_measure(one(np.zeros((64, 64))), one(g)).item() > 0.99


def test_curves_are_the_measures_of_the_cut_map():
    p, g = batch(n=3)
    counts = threshold_counts(p, g)
    curves = overlap_curves(counts, empty=0.0) | {"e": e_curve(counts)}
    assert counts.shape == (3, 2, 2, 256) and torch.equal(counts[..., 0].sum(-1), torch.full((3, 2), 21 * 17))
    for threshold in (0, 1, 100, 254, 255):
        cut = np.floor(255 * p.numpy()) >= threshold
        hits = (cut & g.numpy()).sum((2, 3))
        found, there = cut.sum((2, 3)), g.numpy().sum((2, 3))
        expected = {
            "dsc": 2 * hits / np.maximum(found + there, 1),
            "iou": hits / np.maximum(found + there - hits, 1),
            "precision": hits / np.maximum(found, 1),
            "recall": hits / np.maximum(there, 1),
            "e": e_measure(torch.from_numpy(cut), g).numpy(),
        }
        for name, value in expected.items():
            assert curves[name][..., threshold].numpy() == pytest.approx(value, abs=1e-12), name


def test_curves_of_pysodmetrics():
    handlers = {"dsc": "DICEHandler", "iou": "IOUHandler", "precision": "PrecisionHandler", "recall": "RecallHandler"}
    for p, g in seeded_maps(60, seed=5, largest=20):
        if not g.any():
            continue
        curves = overlap_curves(threshold_counts(one(p), one(g)), empty=0.0)
        for name, handler in handlers.items():
            meter = py_sod_metrics.FmeasureV2(
                {name: getattr(py_sod_metrics, handler)(with_dynamic=True, with_adaptive=False, sample_based=True)}
            )
            meter.step(p, g, normalize=False)
            expected = np.asarray(meter.get_results()[name]["dynamic"])
            assert curves[name][0, 0].numpy()[::-1] == pytest.approx(expected, abs=1e-9), name


def test_the_maximum_is_that_of_the_mean_curve():
    curves = torch.zeros(2, 1, 256, dtype=torch.float64)
    curves[0, 0, 10], curves[1, 0, 20] = 1.0, 1.0
    mean, highest = mean_and_max(curves)
    assert mean.tolist() == [1 / 256] and highest.tolist() == [0.5]


def test_stretching():
    p = torch.tensor([[[[0.2, 0.3, 0.4]], [[0.7, 0.7, 0.7]]]], dtype=torch.float64)
    assert stretch(p).flatten().tolist() == pytest.approx([0, 0.5, 1, 0.7, 0.7, 0.7])
    for map_, g in seeded_maps(30, seed=9):
        grey = np.floor(255 * map_).astype(np.uint8)
        meter = py_sod_metrics.MAE()
        meter.step(grey, (g * 255).astype(np.uint8))
        assert mean_absolute_error(stretch(one(grey / 255)), one(g)).item() == pytest.approx(meter.maes[0], abs=1e-12)


def disc(centre, radius, side):
    row, column = np.mgrid[:side, :side]
    return np.square(row - centre[0]) + np.square(column - centre[1]) <= radius**2


def plain_released_s(prediction, reference):
    """The slip, spelled out: numbers of a mask as row indices."""

    def object_score(values, mask):
        gathered = values[mask]
        return 2 * gathered.mean() / (gathered.mean() ** 2 + 1 + gathered.std() + 1e-8)

    def block_score(p, g):
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = p.mean(), g.mean()
            above = 4 * x * y * np.float64(((p - x) * (g - y)).sum()) / (p.size - 1)
            below = (x * x + y * y) * (p.var() + g.var())
        return above / (below + 1e-8) if above != 0 else float(below == 0)

    p, g = prediction.astype(int), reference.astype(int)
    share = g.mean()
    if share in (0, 1):
        return p.mean() if share else 1 - p.mean()
    row, column = (int(place) + 1 for place in np.argwhere(g).mean(0).round())
    rows, columns = (slice(0, row), slice(row, None)), (slice(0, column), slice(column, None))
    parts = [(above, beside) for above in rows for beside in columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        region = sum(p[part].size / p.size * block_score(p[part], g[part]) for part in parts)
    value = share * object_score(p * g, g) + (1 - share) * object_score((1 - p) * (1 - g), 1 - g)
    return float(np.nan_to_num(0.5 * value + 0.5 * region, nan=1e-6))


def test_the_released_s_measure_has_its_slip():
    for p, g in seeded_maps(200, seed=13, largest=14):
        if g.shape[0] < 2:
            with pytest.raises(ValueError, match="two rows"):
                released_s(one(p >= 0.5), one(g))
            continue
        assert released_s(one(p >= 0.5), one(g)).item() == pytest.approx(plain_released_s(p >= 0.5, g), abs=1e-6)


def test_the_released_measures_on_discs():
    """Values measured on the released code, here on discs chosen to have them: a miss, a false alarm, nothing at all, a hit."""
    nothing, found, there = np.zeros((352, 352), bool), disc((170, 160), 60, 352), disc((180, 175), 58, 352)
    expected = {"miss": (0.457, 0.25), "false alarm": (0.909, 0.909), "nothing": (1.0, 0.0)}
    for name, (p, g) in {"miss": (nothing, there), "false alarm": (found, nothing), "nothing": (nothing, nothing)}.items():
        assert released_s(one(p), one(g)).item() == pytest.approx(expected[name][0], abs=6e-4), name
        assert released_e(one(p), one(g)).item() == pytest.approx(expected[name][1], abs=6e-4), name
    assert released_e(one(found), one(there)).item() == e_measure(one(found), one(there)).item()
    found, there = disc((131, 131), 41, 256), disc((128, 128), 41, 256)
    assert released_s(one(found), one(there)).item() == pytest.approx(0.921, abs=6e-4)
    assert s_measure(one(found.astype(float)), one(there)).item() == pytest.approx(0.939, abs=6e-4)
    found, there = disc((18, 131), 41, 256), disc((15, 128), 41, 256)  # in the first rows the slip sees the object
    assert released_s(one(found), one(there)).item() < s_measure(one(found.astype(float)), one(there)).item() - 0.1


def test_maps_that_are_no_probabilities_are_refused():
    g = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    for value in (math.nan, -0.1, 1.1):
        p = torch.full((1, 1, 3, 3), value)
        for measure in (s_measure, e_adaptive, threshold_counts, MEASURES["weighted F"]):
            with pytest.raises(ValueError, match="after the sigmoid"):
                measure(p, g)
    with pytest.raises(ValueError, match=r"images \(N, K, H, W\)"):
        s_measure(torch.zeros(1, 1, 3, 3, 3), torch.zeros(1, 1, 3, 3, 3))
