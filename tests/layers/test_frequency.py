from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.frequency import FREQUENCIES, FrequencyStatistics, cosine_basis


@pytest.mark.parametrize("size", [7, 14, 56, 112])
def test_basis_is_the_orthonormal_dct(size: int) -> None:
    basis = torch.stack([cosine_basis(frequency, size) for frequency in range(size)])
    np.testing.assert_allclose(basis, scipy.fft.dct(np.eye(size), norm="ortho", axis=0), atol=1e-6)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-5)


def test_tables() -> None:
    assert list(FREQUENCIES) == ["top", "low", "bot"]
    for table in FREQUENCIES.values():
        assert len(table) == len(set(table)) == 32
        assert all(0 <= row < 7 and 0 <= column < 7 for row, column in table)
    assert FREQUENCIES["top"][:4] == ((0, 0), (0, 1), (6, 0), (0, 5))
    assert FREQUENCIES["top"][-1] == (1, 3)
    assert sum(row + column for row, column in FREQUENCIES["low"]) < sum(r + c for r, c in FREQUENCIES["bot"])


def planes(statistics: FrequencyStatistics) -> list[Tensor]:
    """Build every basis as a full plane, vertical frequency first."""
    grid, step = statistics.grid, statistics.grid // 7
    eye = scipy.fft.dct(np.eye(grid), norm="ortho", axis=0)
    pairs = FREQUENCIES[statistics.selection][: statistics.frequencies]
    return [torch.tensor(np.outer(eye[row * step], eye[column * step])) for row, column in pairs]


@pytest.mark.parametrize(
    ("grid", "frequencies", "selection"), [(7, 32, "bot"), (14, 16, "top"), (28, 3, "low"), (16, 1, "top")]
)
def test_statistics_and_gradients_equal_the_plain_formulation(grid: int, frequencies: int, selection: str) -> None:
    statistics = FrequencyStatistics(grid, frequencies=frequencies, selection=selection).double()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, grid, grid, generator=generator, dtype=torch.float64, requires_grad=True)
    products = torch.stack([x * plane for plane in planes(statistics)])
    plain = products.mean(dim=(3, 4)).mean(0), products.amax(dim=(3, 4)).mean(0), products.amin(dim=(3, 4)).mean(0)
    ours = statistics(x)
    weights = torch.randn(3, 2, 3, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
    gradients = [
        torch.autograd.grad(sum((w * s).sum() for w, s in zip(weights, streams, strict=True)), x, retain_graph=True)[0]
        for streams in (ours, plain)
    ]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_vertical_frequency_comes_first() -> None:
    statistics = FrequencyStatistics(7, frequencies=2)  # (0, 0) and (0, 1): constant along rows
    columns = torch.arange(7.0).expand(1, 1, 7, 7)
    mean, _, _ = statistics(columns)
    turned, _, _ = statistics(columns.mT)
    assert mean < turned  # the second function falls from left to right: it counts against values that rise that way


def test_keeps_no_product_for_the_backward_pass() -> None:
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    x = torch.randn(2, 8, 28, 28, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        FrequencyStatistics(28, frequencies=16)(x)
    assert saved < 2 * x.numel()


def test_state_and_size() -> None:
    statistics = FrequencyStatistics(112, frequencies=16)
    assert statistics.state_dict() == {}
    assert statistics.cosines.shape == (2, 16, 112)


def test_half_precision_is_finite() -> None:
    x = torch.full((1, 2, 14, 14), 6e4, dtype=torch.float16)
    assert all(stream.isfinite().all() for stream in FrequencyStatistics(14)(x))


@pytest.mark.parametrize(
    ("grid", "frequencies", "selection", "message"),
    [(7, 0, "top", "frequencies=0"), (7, 33, "top", "1 to 32"), (6, 1, "top", "at least 7"), (7, 1, "mid", "top, low, bot")],
)
def test_bad_options(grid: int, frequencies: int, selection: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FrequencyStatistics(grid, frequencies=frequencies, selection=selection)  # type: ignore[arg-type]
