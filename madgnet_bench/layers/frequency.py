"""Statistics of feature maps under two-dimensional cosine bases.

The basis of frequency (u, v) on an N x N grid is the outer product of two one-dimensional orthonormal DCT-II functions, so
only those are stored: K x 2 x N values for K frequencies, not one plane per frequency and channel.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from madgnet_bench.errors import ConfigError

__all__ = ["FREQUENCIES", "FrequencySelection", "FrequencyStatistics", "cosine_basis"]

FrequencySelection = Literal["top", "low", "bot"]
"""Names of the frequency tables."""

_DIGITS: dict[FrequencySelection, str] = {
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
    "bot": "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63",
}

FREQUENCIES: dict[FrequencySelection, tuple[tuple[int, int], ...]] = {
    name: tuple((int(pair[0]), int(pair[1])) for pair in digits.split()) for name, digits in _DIGITS.items()
}
"""Frequencies on a 7 x 7 grid, (vertical, horizontal), best first: the 32 that FcaNet (Qin et al., arXiv 2012.11879) found
the most useful each alone on ImageNet (``top``), the 32 lowest (``low``) and the least useful (``bot``)."""


def cosine_basis(frequency: int, size: int) -> Tensor:
    """Sample one function of the orthonormal DCT-II: ``c cos(pi u (t + 1/2) / N)``, c = sqrt(1/N), or sqrt(2/N) for u > 0.

    Args:
        frequency: u, from 0 to size - 1.
        size: N.

    Returns:
        (size,) float32, computed in float64, of unit norm.

    >>> cosine_basis(0, 4).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    scale = math.sqrt((1 if frequency == 0 else 2) / size)
    return torch.tensor([scale * math.cos(math.pi * frequency * (t + 0.5) / size) for t in range(size)])


class FrequencyStatistics(nn.Module):
    """Mean, maximum and minimum over space of a map times each cosine basis, averaged over the bases.

    The statistics of MADGNet's multi-frequency channel attention (arXiv 2405.06284). The mean stream is linear, so it is one
    weighted mean under the average basis. For the maximum and minimum only the positions are kept for the backward pass,
    never a product with a basis.

    Args:
        grid: Side N of the bases; maps must be grid x grid. Frequencies of the tables are multiplied by ``grid // 7``.
        frequencies: K, from 1 to 32: how many of the table are used, the first ones.
        selection: Which table.

    Attributes:
        cosines: (2, K, grid): vertical, then horizontal functions; not in the state dict.

    Raises:
        ConfigError: The number of frequencies or the table's name is out of range, or the grid is below 7.
    """

    cosines: Tensor

    def __init__(self, grid: int, *, frequencies: int = 16, selection: FrequencySelection = "top") -> None:
        super().__init__()
        if selection not in FREQUENCIES:
            raise ConfigError(f"frequency selection {selection!r} is unknown; choose one of {', '.join(FREQUENCIES)}.")
        if not 1 <= frequencies <= len(FREQUENCIES[selection]):
            raise ConfigError(f"frequencies={frequencies} is out of range; choose 1 to {len(FREQUENCIES[selection])}.")
        if grid < 7:
            raise ConfigError(f"a frequency grid of {grid} is too small for the 7 x 7 table; use at least 7.")
        self.grid = grid
        self.frequencies = frequencies
        self.selection = selection
        step = grid // 7
        chosen = FREQUENCIES[selection][:frequencies]
        rows = [torch.stack([cosine_basis(pair[axis] * step, grid) for pair in chosen]) for axis in (0, 1)]
        self.register_buffer("cosines", torch.stack(rows), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the statistics.

        Args:
            x: (N, C, grid, grid).

        Returns:
            Mean, maximum and minimum, each (N, C).
        """
        vertical, horizontal = self.cosines
        average_basis = vertical.T @ horizontal / self.frequencies
        mean = (x * average_basis).mean(dim=(2, 3))
        with torch.no_grad():
            positions = [_extreme_positions(x, v, h) for v, h in zip(vertical, horizontal, strict=True)]
        index = torch.stack([position for pair in positions for position in pair], dim=2)
        row, column = index.div(self.grid, rounding_mode="floor"), index % self.grid
        basis = torch.arange(self.frequencies, device=x.device).repeat_interleave(2)
        values = x.flatten(2).gather(2, index) * vertical[basis, row] * horizontal[basis, column]
        return mean, values[..., 0::2].mean(dim=2), values[..., 1::2].mean(dim=2)

    def extra_repr(self) -> str:
        """Show the configuration when printed."""
        return f"{self.grid}, frequencies={self.frequencies}, selection={self.selection!r}"


def _extreme_positions(x: Tensor, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the product of each plane with one basis is largest and smallest.

    The best row is found by the rows' extremes, then the column inside it: much faster than the position in the flat plane.

    Args:
        x: (N, C, grid, grid).
        vertical: (grid,) factor along rows.
        horizontal: (grid,) factor along columns.

    Returns:
        Flat positions of the maximum and of the minimum, (N, C) long.
    """
    product = x * (vertical[:, None] * horizontal)
    best_rows = product.amax(dim=3).argmax(dim=2), product.amin(dim=3).argmin(dim=2)
    positions = []
    for sign, row in zip((1, -1), best_rows, strict=True):
        line = product.gather(2, row[..., None, None].expand(-1, -1, 1, x.shape[3])).squeeze(2)
        positions.append(row * x.shape[3] + (sign * line).argmax(dim=2))
    return positions[0], positions[1]
