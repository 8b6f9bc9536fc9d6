"""Statistics of feature maps under orthonormal wavelet packets, in the place of those under cosine bases.

A wavelet packet of depth d splits a line into 2^d bands of equal width by a pair of filters, low pass and high pass, applied d
times with every second value kept. In two dimensions that is done along columns and rows: 4^d subbands, each of a frequency
(u, v) with u and v from 0 to 2^d - 1, vertical first.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError

__all__ = ["Wavelet", "WaveletStatistics", "lowest_subbands", "packet_analysis", "scaling_filter"]

Wavelet = Literal["haar", "db2"]
"""Names of the wavelets: Haar's, and Daubechies' with two vanishing moments."""


def scaling_filter(wavelet: Wavelet) -> tuple[float, ...]:
    """Compute the low-pass filter h of an orthonormal wavelet; the high pass is ``g[t] = (-1)^t h[L - 1 - t]``.

    Args:
        wavelet: ``"haar"``: (1, 1) / sqrt(2). ``"db2"``: (1 + sqrt(3), 3 + sqrt(3), 3 - sqrt(3), 1 - sqrt(3)) / (4 sqrt(2)),
            the filter of length four of Daubechies, Communications on Pure and Applied Mathematics 41, 1988.

    Returns:
        L values of unit norm and sum sqrt(2).

    Raises:
        ConfigError: The name is unknown.
    """
    if wavelet == "haar":
        return (math.sqrt(0.5),) * 2
    if wavelet == "db2":
        root = math.sqrt(3)
        return tuple(value / (4 * math.sqrt(2)) for value in (1 + root, 3 + root, 3 - root, 1 - root))
    raise ConfigError(f"wavelet {wavelet!r} is unknown; choose one of {', '.join(get_args(Wavelet))}.")


def packet_analysis(length: int, *, depth: int, wavelet: Wavelet) -> Tensor:
    """Build the matrix that turns a periodic line into the coefficients of its wavelet packet.

    One level takes x to ``sum_t h[t] x[2 k + t]`` (low) and ``sum_t g[t] x[2 k + t]`` (high), indices modulo the length.
    Keeping every second value mirrors the spectrum of a high band, so below one the two halves change places: bands are in
    the order of their frequency (sequency; for Haar the number of sign changes of the Walsh function), not in that of the
    filters.

    A length that 2^depth does not divide is first extended to the next multiple by repetition: its beginning follows its end.
    Otherwise the matrix is orthogonal.

    Args:
        length: Of the line, at least 2^depth.
        depth: How often each band is halved; 0 gives the line itself.
        wavelet: Which filters.

    Returns:
        (2^depth, ceil(length / 2^depth), length) float64: band, position in the band, position on the line.

    Raises:
        ConfigError: The line is too short, or the wavelet unknown.
    """
    if length < 2**depth:
        raise ConfigError(f"a line of {length} values cannot be split into {2**depth} bands; use a smaller depth.")
    low = scaling_filter(wavelet)
    high = tuple((-1) ** t * value for t, value in enumerate(reversed(low)))
    extended = length + -length % 2**depth
    bands = [torch.eye(extended, dtype=torch.float64)]
    for _ in range(depth):
        halves = [(_every_second(low, band), _every_second(high, band)) for band in bands]
        bands = [half for place, pair in enumerate(halves) for half in (pair[::-1] if place % 2 else pair)]
    matrix = torch.stack(bands)
    folded = matrix[..., :length].clone()
    folded[..., : extended - length] += matrix[..., length:]
    return folded


def _every_second(taps: tuple[float, ...], band: Tensor) -> Tensor:
    """Filter the rows of a band, as functions of the row, periodically, and keep every second one."""
    return sum((tap * band.roll(-t, dims=0)[::2] for t, tap in enumerate(taps)), start=torch.zeros_like(band[::2]))


def lowest_subbands(count: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Choose subbands, lowest frequency first.

    Ordered by u + v, then by the larger of the two, then by u: (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2) ...

    Args:
        count: K, how many.

    Returns:
        The smallest depth with ``4^depth >= K``, and K pairs (u, v), vertical first.

    >>> lowest_subbands(3)
    (1, ((0, 0), (0, 1), (1, 0)))
    """
    depth = 0
    while 4**depth < count:
        depth += 1
    pairs = [(u, v) for u in range(2**depth) for v in range(2**depth)]
    return depth, tuple(sorted(pairs, key=lambda pair: (sum(pair), max(pair), pair))[:count])


class WaveletStatistics(nn.Module):
    """Mean, maximum and minimum over the coefficients of each subband of a map, averaged over the subbands.

    Takes the place of `FrequencyStatistics` in an ablation of MADGNet; the choice of wavelet packets is ours. The map is
    split just deep enough for K subbands (K = 16: depth 2, exactly 16), and the K lowest of `lowest_subbands` are used. A grid
    that 2^depth does not divide is continued periodically to the next multiple (14 to 16 at depth 2): shapes agree at any
    grid, and a constant map stays constant, but the first rows and columns count twice.

    Each stream has the scale of its counterpart under cosines, where the map is multiplied by a basis of unit norm:

    - Mean: the mean coefficient divided by ``2^depth grid``. The sum of a subband's n x n atoms, divided by n, has unit norm,
      and this is the mean of the map times that function, for a grid that 2^depth divides. A constant map c gives c / grid in
      the lowest subband and 0 in the others, as under cosines.
    - Maximum and minimum: coefficients divided by ``grid``. Their mean square over all subbands is then that of the map times
      a cosine basis over all bases: the map's own, divided by grid^2.

    With K = 1 (depth 0) the three are those of the constant cosine basis.

    Args:
        grid: Side N of the maps, at least 2^depth.
        frequencies: K, at least 1: how many subbands.
        wavelet: ``"haar"`` or ``"db2"``.

    Attributes:
        depth: Depth of the packet.
        subbands: The K pairs (u, v) in use, vertical first.
        analysis: (2^depth n, grid): `packet_analysis` of one axis, divided by sqrt(grid); not in the state dict.
        shares: (2^depth, 2^depth): 1 / K where a subband (u, v) is used, else 0; not in the state dict.

    Raises:
        ConfigError: The wavelet is unknown, K is below 1, or the grid is too small for K.
    """

    analysis: Tensor
    shares: Tensor

    def __init__(self, grid: int, *, frequencies: int = 16, wavelet: Wavelet = "haar") -> None:
        super().__init__()
        if frequencies < 1:
            raise ConfigError(f"frequencies={frequencies} is out of range; choose at least 1.")
        self.depth, self.subbands = lowest_subbands(frequencies)
        if 2**self.depth > grid:
            raise ConfigError(f"a grid of {grid} is too small for frequencies={frequencies} subbands; use fewer.")
        self.grid = grid
        self.frequencies = frequencies
        self.wavelet = wavelet
        analysis = packet_analysis(grid, depth=self.depth, wavelet=wavelet).flatten(0, 1) / math.sqrt(grid)
        shares = torch.zeros(2**self.depth, 2**self.depth)
        for u, v in self.subbands:
            shares[u, v] = 1 / frequencies
        self.register_buffer("analysis", analysis.float(), persistent=False)
        self.register_buffer("shares", shares, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the statistics.

        Args:
            x: (N, C, grid, grid).

        Returns:
            Mean, maximum and minimum, each (N, C).
        """
        with _full_precision(x):
            rows = functional.linear(x.to(self.analysis.dtype), self.analysis)
            coefficients = functional.linear(rows.mT, self.analysis).mT
        bands = 2**self.depth
        split = coefficients.unflatten(3, (bands, -1)).unflatten(2, (bands, -1))
        streams = split.mean(dim=(3, 5)) / bands, split.amax(dim=(3, 5)), split.amin(dim=(3, 5))
        mean, largest, smallest = ((stream * self.shares).sum(dim=(2, 3)) for stream in streams)
        return mean, largest, smallest

    def extra_repr(self) -> str:
        """Show the configuration when printed."""
        return f"{self.grid}, frequencies={self.frequencies}, wavelet={self.wavelet!r}"


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Keep autocast from rounding matrix products: differences of neighbours are small beside their values."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
