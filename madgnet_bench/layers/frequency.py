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

    The statistics of MADGNet's multi-frequency channel attention (arXiv 2405.06284), without a product per basis:
        - The mean stream is linear, so it is one weighted mean under the average basis.
        - A basis is vertical times horizontal function. The largest product in a column is the horizontal value times the
          column's largest (or, where that value is negative, smallest) product with the vertical function alone. So only
          the *distinct* vertical frequencies (at most 7 in the tables) go over the map; the rest works on rows of extremes.
        - Only the positions of the extremes are kept for the backward pass.

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
    _distinct_of: Tensor

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
        verticals = [pair[0] for pair in chosen]
        distinct = list(dict.fromkeys(verticals))
        self._first_of = [verticals.index(frequency) for frequency in distinct]
        self.register_buffer("_distinct_of", torch.tensor([distinct.index(v) for v in verticals]), persistent=False)

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
            columns = self._extremes_by_column(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return mean, columns.amax(dim=(3, 4)).mean(dim=2), columns.amin(dim=(3, 4)).mean(dim=2)
        with torch.no_grad():
            row, column = self._positions(x, columns)
        basis = torch.arange(self.frequencies, device=x.device).repeat(2)
        values = x.flatten(2).gather(2, row * self.grid + column) * vertical[basis, row] * horizontal[basis, column]
        largest, smallest = values.unflatten(2, (2, self.frequencies)).mean(dim=3).unbind(2)
        return mean, largest, smallest

    def _extremes_by_column(self, x: Tensor) -> Tensor:
        """The largest and the smallest product with each basis in each column, in either order.

        Args:
            x: (N, C, grid, grid).

        Returns:
            (N, C, K, 2, grid).
        """
        vertical, horizontal = self.cosines
        extremes: list[Tensor] = []
        for index in self._first_of:
            product = x * vertical[index, :, None]
            extremes += product.amax(dim=2), product.amin(dim=2)
        by_frequency = torch.stack(extremes, dim=2).unflatten(2, (-1, 2))
        return by_frequency.index_select(2, self._distinct_of) * horizontal[:, None]

    def _positions(self, x: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Find where each product of the map with a basis is largest and smallest.

        Args:
            x: (N, C, grid, grid).
            columns: What `_extremes_by_column` made of it.

        Returns:
            Rows and columns, each (N, C, 2K) long: of the largest product with every basis, then of the smallest.
        """
        vertical, horizontal = self.cosines
        column = torch.cat([columns.amax(dim=3).argmax(dim=3), columns.amin(dim=3).argmin(dim=3)], dim=2)
        basis = torch.arange(self.frequencies, device=x.device).repeat(2)
        lines = x.gather(3, column[:, :, None].expand(-1, -1, self.grid, -1)).mT * vertical[basis]
        lines = lines * horizontal[basis, column][..., None]
        row = torch.cat([lines[:, :, : self.frequencies].argmax(dim=3), lines[:, :, self.frequencies :].argmin(dim=3)], dim=2)
        return row, column

    def extra_repr(self) -> str:
        """Show the configuration when printed."""
        return f"{self.grid}, frequencies={self.frequencies}, selection={self.selection!r}"
