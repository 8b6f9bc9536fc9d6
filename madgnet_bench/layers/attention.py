"""Attention of MADGNet (arXiv 2405.06284): over channels by frequency, over space by scale, and the block of both.

Where paper and released code differ, the code is followed, so that its weights keep their meaning; each such place is named.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.frequency import FrequencySelection, FrequencyStatistics

__all__ = ["MultiFrequencyChannelAttention", "MultiFrequencyMultiScaleAttention", "MultiScaleSpatialAttention"]


class MultiFrequencyChannelAttention(nn.Module):
    """MFCA: gate channels by what they hold at several frequencies.

    The map, brought to the grid of the bases by adaptive average pooling, gives each channel three statistics (mean, maximum,
    minimum; see `FrequencyStatistics`). All three go through the same bottleneck; the sigmoid of the sum gates the channel.
    Unlike FcaNet's, every channel sees every basis.

    Args:
        channels: Channels of the map, at least ``reduction``.
        reduction: The bottleneck has ``channels // reduction`` channels.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        if hidden < 1:
            raise ConfigError(f"{channels} channels cannot be reduced {reduction} times; use a smaller reduction.")
        self.fc = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, kernel_size=1, bias=False),
        )

    def forward(self, x: Tensor, statistics: FrequencyStatistics) -> Tensor:
        """Gate the channels of ``x`` (N, C, H, W); the statistics are the block's, shared by its scales."""
        grid = (statistics.grid, statistics.grid)
        pooled = x if x.shape[2:] == grid else functional.adaptive_avg_pool2d(x, grid)
        streams = torch.stack(statistics(pooled), dim=2).unsqueeze(3)
        gate = self.fc(streams).sum(dim=2, keepdim=True).sigmoid()
        return x * gate.to(x.dtype)


class MultiScaleSpatialAttention(nn.Module):
    """MSSA of one scale: weigh foreground and background, told apart by a learned attention map A.

    ``alpha x (1 - A) + beta x A``. As in the released code alpha belongs to the background and beta to the foreground (the
    paper's figure has them the other way round). Both start at 1, where the result is x and A has no gradient yet: A starts
    to learn once alpha and beta differ.

    Args:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Conv2d(channels, 1, kernel_size=1, bias=False), nn.Sigmoid())
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh ``x`` (N, C, H, W)."""
        foreground = self.attention(x)
        # alpha (1 - A) + beta A, written so that the gradient of A is not the difference of two rounded numbers in bfloat16
        return x * (self.alpha + (self.beta - self.alpha) * foreground).to(x.dtype)


class MultiFrequencyMultiScaleAttention(nn.Module):
    """MFMSA: the attention of a decoder stage, over S scales, with a residual connection.

    Scale s averages the map over 2^s pixels, applies a grouped 3x3 convolution of dilation 1 + s and a 1x1 convolution to
    ``max(channels / 2^s, min_channels)`` channels, then MFCA and MSSA, and a 3x3 convolution back to ``channels``. The scales
    are brought back to the map's size and averaged.

    As in the released code, a scale is averaged only if the pooled *height* is at least ``min_resolution``; otherwise it works
    on the full map. Other choices of the released code: dilated 3x3 convolutions where the paper's figure has 3x3, 5x5 and
    7x7; the grid of the bases follows the channels of the block, not those of the scale. Ours: sides that 2^s does not divide
    are pooled with a smaller last window, and resized to the map's exact size (the released code fails on them).

    Args:
        channels: Channels C of the map, a multiple of ``groups``.
        grid: Side of the cosine bases.
        scales: S, at least 1.
        frequencies: K, number of cosine bases, up to 32; 0 leaves MFCA out.
        selection: Which frequencies.
        min_channels: Fewest channels of a scale.
        min_resolution: Fewest rows that a pooled map may have.
        groups: Groups of the 3x3 convolution.
        reduction: Of MFCA's bottleneck.

    Raises:
        ConfigError: ``scales`` is below 1, or a number does not fit another.
    """

    def __init__(
        self,
        channels: int,
        *,
        grid: int,
        scales: int = 3,
        frequencies: int = 16,
        selection: FrequencySelection = "top",
        min_channels: int = 32,
        min_resolution: int = 8,
        groups: int = 32,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        if scales < 1:
            raise ConfigError(f"scales={scales} is out of range; use at least 1.")
        if channels % groups:
            raise ConfigError(f"{channels} channels are not a multiple of groups={groups}.")
        self.min_resolution = min_resolution
        inner = [max(channels // 2**scale, min_channels) for scale in range(scales)]
        self.multi_scale_branches = nn.ModuleList(
            _reduce(channels, width, dilation=1 + scale, groups=groups) for scale, width in enumerate(inner)
        )
        self.statistics: FrequencyStatistics | None = None
        if frequencies:
            self.statistics = FrequencyStatistics(grid, frequencies=frequencies, selection=selection)
            self.multi_frequency_branches = nn.ModuleList(
                MultiFrequencyChannelAttention(width, reduction=reduction) for width in inner
            )
        self.multi_spatial_branches = nn.ModuleList(MultiScaleSpatialAttention(width) for width in inner)
        self.expansions = nn.ModuleList(_expand(width, channels) for width in inner)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to ``x`` (N, C, H, W)."""
        total: Tensor | None = None
        for scale_map in self._scales(x):
            total = scale_map if total is None else total + scale_map
        assert total is not None  # there is at least one scale
        return total / len(self.multi_scale_branches) + x

    def _scales(self, x: Tensor) -> Iterator[Tensor]:
        """Yield what each scale makes of ``x``, at the size of ``x``."""
        for scale, branch in enumerate(self.multi_scale_branches):
            window = 2**scale
            pooled = x
            if scale and x.shape[2] // window >= self.min_resolution:
                pooled = functional.avg_pool2d(x, window, ceil_mode=True)
            feature = branch(pooled)
            if self.statistics is not None:
                feature = self.multi_frequency_branches[scale](feature, self.statistics)
            feature = self.expansions[scale](self.multi_spatial_branches[scale](feature))
            if feature.shape != x.shape:
                feature = functional.interpolate(feature, size=x.shape[2:], mode="bilinear", align_corners=False)
            yield feature


def _reduce(channels: int, width: int, *, dilation: int, groups: int) -> nn.Sequential:
    """A dilated grouped 3x3 convolution, then a 1x1 convolution to ``width`` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=dilation, dilation=dilation, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, width, kernel_size=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _expand(width: int, channels: int) -> nn.Sequential:
    """A 3x3 convolution back to the channels of the block."""
    return nn.Sequential(
        nn.Conv2d(width, channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
