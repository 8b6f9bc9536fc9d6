from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.frequency import FrequencyStatistics
from madgnet_bench.layers.wavelet import WaveletStatistics, lowest_subbands, packet_analysis, scaling_filter

GRIDS = (14, 28, 56, 112)
WAVELETS = ("haar", "db2")


def high_pass(wavelet: str) -> np.ndarray:
    low = np.array(scaling_filter(wavelet))  # type: ignore[arg-type]
    return (-1.0) ** np.arange(len(low)) * low[::-1]


@pytest.mark.parametrize(("wavelet", "moments"), [("haar", 1), ("db2", 2)])
def test_filters_are_orthonormal_with_vanishing_moments(wavelet: str, moments: int) -> None:
    low, high = np.array(scaling_filter(wavelet)), high_pass(wavelet)  # type: ignore[arg-type]
    assert len(low) == 2 * moments
    np.testing.assert_allclose(low.sum(), math.sqrt(2))
    for shift in range(0, len(low), 2):
        expected = float(shift == 0)
        np.testing.assert_allclose(low[shift:] @ low[: len(low) - shift], expected, atol=1e-15)
        np.testing.assert_allclose(high[shift:] @ high[: len(low) - shift], expected, atol=1e-15)
    for shift in range(2 - len(low), len(low), 2):
        inner = sum(low[t] * high[t + shift] for t in range(len(low)) if 0 <= t + shift < len(low))
        np.testing.assert_allclose(inner, 0, atol=1e-15)
    powers = [(high * np.arange(len(high)) ** power).sum() for power in range(moments + 1)]
    np.testing.assert_allclose(powers[:moments], 0, atol=1e-14)
    assert abs(powers[moments]) > 0.1


def test_filters_equal_pywavelets() -> None:
    pywt = pytest.importorskip("pywt")
    for wavelet in WAVELETS:
        np.testing.assert_allclose(scaling_filter(wavelet), pywt.Wavelet(wavelet).rec_lo, atol=1e-10)  # type: ignore[arg-type]


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize(("length", "depth"), [(7, 0), (2, 1), (16, 2), (28, 2), (8, 3), (112, 3)])
def test_packets_are_orthonormal(length: int, depth: int, wavelet: str) -> None:
    matrix = packet_analysis(length, depth=depth, wavelet=wavelet)  # type: ignore[arg-type]
    assert matrix.shape == (2**depth, length // 2**depth, length)
    np.testing.assert_allclose(matrix.flatten(0, 1) @ matrix.flatten(0, 1).T, np.eye(length), atol=1e-12)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_packets_equal_pywavelets(depth: int, wavelet: str) -> None:
    pywt = pytest.importorskip("pywt")
    x = np.random.default_rng(0).normal(size=(40, 24))
    vertical, horizontal = (packet_analysis(side, depth=depth, wavelet=wavelet) for side in x.shape)  # type: ignore[arg-type]
    ours = torch.einsum("uix,vjy,xy->uvij", vertical, horizontal, torch.tensor(x))
    late = (len(scaling_filter(wavelet)) // 2 - 1) * (2**depth - 1)  # type: ignore[arg-type]
    moved = np.roll(x, (-late, -late), axis=(0, 1))  # its filters begin earlier
    packet = pywt.WaveletPacket2D(moved, wavelet, mode="periodization", maxlevel=depth)
    theirs = np.stack([[node.data for node in row] for row in packet.get_level(depth, order="freq")])
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_haar_bands_are_walsh_functions_in_sequency_order(depth: int) -> None:
    functions = packet_analysis(2**depth, depth=depth, wavelet="haar").squeeze(1)
    np.testing.assert_allclose(functions.abs(), 2 ** (-depth / 2), atol=1e-12)
    assert (functions.sign().diff(dim=1) != 0).sum(1).tolist() == list(range(2**depth))


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_bands_rise_in_frequency(wavelet: str) -> None:
    bands = packet_analysis(64, depth=3, wavelet=wavelet)  # type: ignore[arg-type]
    power = np.abs(np.fft.rfft(bands[:, 0], axis=1)) ** 2
    centres = (power * np.arange(33)).sum(1) / power.sum(1)
    assert np.all(np.diff(centres) > 0)
    assert np.all(np.abs(power.argmax(1) - (4 * np.arange(8) + 2)) <= 4)


def test_order_of_subbands() -> None:
    depth, pairs = lowest_subbands(16)
    assert (depth, len(set(pairs))) == (2, 16)
    assert pairs[:8] == ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1))
    assert [u + v for u, v in pairs] == sorted(u + v for u, v in pairs)
    assert [lowest_subbands(count)[0] for count in (1, 2, 4, 5, 16, 17, 32, 64)] == [0, 1, 1, 2, 2, 3, 3, 3]
    assert lowest_subbands(8) == (2, pairs[:8])


def plain_statistics(x: np.ndarray, frequencies: int, wavelet: str) -> np.ndarray:
    """Written out for one plane: extend, filter and halve along columns, then rows, and take each subband's statistics."""
    low, high = np.array(scaling_filter(wavelet)), high_pass(wavelet)  # type: ignore[arg-type]
    depth, pairs = lowest_subbands(frequencies)
    grid = len(x)
    while len(x) % 2**depth:
        row = len(x) - grid
        x = np.concatenate([x, x[row : row + 1]])
        x = np.concatenate([x, x[:, row : row + 1]], axis=1)
    subbands = {(0, 0): x}
    for _ in range(depth):
        for axis in (0, 1):
            finer = {}
            for pair, plane in subbands.items():
                for half, taps in enumerate((low, high)):
                    filtered = sum(tap * np.roll(plane, -t, axis=axis) for t, tap in enumerate(taps))
                    place = 2 * pair[axis] + (half if pair[axis] % 2 == 0 else 1 - half)
                    finer[(place, pair[1]) if axis == 0 else (pair[0], place)] = filtered.take(
                        range(0, filtered.shape[axis], 2), axis=axis
                    )
            subbands = finer
    chosen = [subbands[pair] / grid for pair in pairs]
    mean = np.mean([plane.mean() / 2**depth for plane in chosen])
    return np.array([mean, np.mean([plane.max() for plane in chosen]), np.mean([plane.min() for plane in chosen])])


@pytest.mark.parametrize(
    ("grid", "frequencies", "wavelet"),
    [(14, 16, "haar"), (14, 16, "db2"), (28, 7, "haar"), (28, 32, "db2"), (56, 16, "db2"), (112, 4, "haar"), (15, 3, "db2")],
)
def test_statistics_equal_the_plain_formulation(grid: int, frequencies: int, wavelet: str) -> None:
    statistics = WaveletStatistics(grid, frequencies=frequencies, wavelet=wavelet)  # type: ignore[arg-type]
    x = torch.randn(2, 3, grid, grid, generator=torch.Generator().manual_seed(0))
    streams = statistics(x)
    assert [stream.shape for stream in streams] == [(2, 3)] * 3
    for n in range(2):
        for c in range(3):
            expected = plain_statistics(x[n, c].double().numpy(), frequencies, wavelet)
            np.testing.assert_allclose([stream[n, c] for stream in streams], expected, atol=1e-5)


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("grid", GRIDS)
def test_scale_is_that_of_the_cosines(grid: int, wavelet: str) -> None:
    x = torch.randn(1, 2, grid, grid, generator=torch.Generator().manual_seed(0))
    one = WaveletStatistics(grid, frequencies=1, wavelet=wavelet)(x)  # type: ignore[arg-type]
    for ours, cosines in zip(one, FrequencyStatistics(grid, frequencies=1)(x), strict=True):
        torch.testing.assert_close(ours, cosines, atol=1e-6, rtol=1e-5)
    statistics = WaveletStatistics(grid, frequencies=16, wavelet=wavelet)  # type: ignore[arg-type]
    constant = torch.full((1, 1, grid, grid), 3.0)
    mean, largest, smallest = (float(stream) for stream in statistics(constant))
    assert mean == pytest.approx(float(FrequencyStatistics(grid)(constant)[0]), abs=1e-6)
    assert largest == pytest.approx(4 * 3 / grid / 16, abs=1e-6)  # of the lowest subband alone
    assert smallest == pytest.approx(4 * 3 / grid / 16, abs=1e-6)
    if grid % 4 == 0:
        energy = (statistics.analysis @ x @ statistics.analysis.T).square().mean()
        torch.testing.assert_close(energy, x.square().mean() / grid**2)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_mean_is_of_the_map_times_functions_of_unit_norm(wavelet: str) -> None:
    statistics = WaveletStatistics(28, frequencies=16, wavelet=wavelet)  # type: ignore[arg-type]
    combs = packet_analysis(28, depth=2, wavelet=wavelet).sum(1) / math.sqrt(7)  # type: ignore[arg-type]
    torch.testing.assert_close(combs.norm(dim=1), torch.ones(4, dtype=torch.float64))
    planes = torch.einsum("ux,vy->uvxy", combs, combs).flatten(0, 1)
    x = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(statistics(x)[0].double(), (planes * x[0].double()).mean().view(1, 1), atol=1e-7, rtol=1e-4)


def test_vertical_frequency_comes_first() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)  # horizontal frequency 3, vertical 0
    largest = {}
    for name, x in {"horizontal": stripes, "vertical": stripes.mT}.items():
        statistics = WaveletStatistics(16, frequencies=16)
        planes = (statistics.analysis @ x @ statistics.analysis.T).view(4, 4, 4, 4).abs().amax(dim=(1, 3))
        largest[name] = divmod(int(planes.argmax()), 4)
        used = [WaveletStatistics(16, frequencies=k)(x)[1].abs().item() > 1e-6 for k in (9, 16)]
        assert used == [statistics.subbands.index(largest[name]) < 9, True]
    assert largest == {"horizontal": (0, 3), "vertical": (3, 0)}


def test_gradients() -> None:
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(WaveletStatistics(6, frequencies=5, wavelet="db2").double(), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_low_precision_of_extreme_values(wavelet: str, dtype: torch.dtype) -> None:
    extreme = torch.full((1, 4, 14, 14), 6e4)
    extreme[:, 1] = -6e4
    extreme[:, 2, ::2] = -6e4
    extreme[:, 3] *= torch.randn(14, 14, generator=torch.Generator().manual_seed(0)).sign()
    for frequencies in (16, 32):
        statistics = WaveletStatistics(14, frequencies=frequencies, wavelet=wavelet)  # type: ignore[arg-type]
        expected = statistics(extreme.to(dtype).float())
        with torch.autocast("cpu", dtype=dtype):
            found = statistics(extreme.to(dtype).requires_grad_())
        for stream, value in zip(found, expected, strict=True):
            torch.testing.assert_close(stream, value)  # as exact as in float32
        half: tuple[Tensor, ...] = statistics.to(dtype)(extreme.to(dtype))
        assert all(stream.isfinite().all() and stream.dtype == dtype for stream in half)


def test_state_and_size() -> None:
    statistics = WaveletStatistics(112, frequencies=16)
    assert statistics.state_dict() == {}
    assert statistics.analysis.shape == (112, 112)
    assert WaveletStatistics(14, frequencies=16).analysis.shape == (16, 14)
    with torch.device("meta"):
        assert WaveletStatistics(28)(torch.rand(2, 3, 28, 28))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("grid", "frequencies", "wavelet", "message"),
    [
        (14, 0, "haar", "frequencies=0"),
        (3, 16, "haar", "grid of 3 is too small for frequencies=16"),
        (14, 65, "haar", "grid of 14 is too small for frequencies=65"),
        (14, 16, "db3", "'db3' is unknown; choose one of haar, db2"),
    ],
)
def test_bad_options(grid: int, frequencies: int, wavelet: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WaveletStatistics(grid, frequencies=frequencies, wavelet=wavelet)  # type: ignore[arg-type]


def test_line_shorter_than_its_bands() -> None:
    with pytest.raises(ConfigError, match="a line of 3 values cannot be split into 4 bands"):
        packet_analysis(3, depth=2, wavelet="haar")
