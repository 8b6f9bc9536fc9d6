"""Attention of MADGNet (arXiv 2405.06284): over channels by frequency, over space by scale, and the block of both.

Paper and released code differ; `Formulation` says which is followed, and each block names the places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.frequency import FrequencySelection, FrequencyStatistics
from madgnet_bench.layers.wavelet import WaveletStatistics

__all__ = [
    "Basis",
    "Formulation",
    "MultiFrequencyChannelAttention",
    "MultiFrequencyMultiScaleAttention",
    "MultiScaleSpatialAttention",
]

Basis = Literal["cosine", "haar", "db2"]
"""What the channel attention measures a map with: MADGNet's cosine bases, or in their place the subbands of a wavelet."""

Formulation = Literal["released", "paper"]
"""Which is followed where they differ: the released code, whose weights then keep their meaning, or the paper's figures."""

_MIN_RESOLUTION = 8


class MultiFrequencyChannelAttention(nn.Module):
    """MFCA: gate channels by what they hold at several frequencies.

    The map, brought to the grid of the bases by adaptive average pooling, gives each channel three statistics (mean, maximum,
    minimum; see `FrequencyStatistics`). All three go through the same bottleneck; the sigmoid of the sum gates the channel.
    Unlike FcaNet's, every channel sees every basis. A wavelet's statistics can stand for those of the cosines.

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

    def forward(self, x: Tensor, statistics: FrequencyStatistics | WaveletStatistics) -> Tensor:
        """Gate the channels of ``x`` (N, C, H, W); the statistics are the block's, shared by its scales."""
        grid = (statistics.grid, statistics.grid)
        pooled = x if x.shape[2:] == grid else functional.adaptive_avg_pool2d(x, grid)
        streams = torch.stack(statistics(pooled), dim=2).unsqueeze(3)
        gate = self.fc(streams).sum(dim=2, keepdim=True).sigmoid()
        return x * gate.to(x.dtype)


class MultiScaleSpatialAttention(nn.Module):
    """MSSA of one scale: weigh foreground and background, told apart by a learned attention map A.

    Released: ``alpha x (1 - A) + beta x A``, alpha belongs to the background and beta to the foreground. Paper (its figure):
    ``alpha x A + beta x (1 - A)``, the other way round. Both start at 1, where the result is x and A has no gradient yet: A
    starts to learn once alpha and beta differ.

    Args:
        channels: Channels of the map.
        formulation: Which of the two.
    """

    def __init__(self, channels: int, *, formulation: Formulation = "released") -> None:
        super().__init__()
        self.formulation = formulation
        self.attention = nn.Sequential(nn.Conv2d(channels, 1, kernel_size=1, bias=False), nn.Sigmoid())
        self.alpha = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh ``x`` (N, C, H, W)."""
        foreground = self.attention(x)
        outside, inside = (self.alpha, self.beta) if self.formulation == "released" else (self.beta, self.alpha)
        # outside (1 - A) + inside A, written so that the gradient of A is not the difference of two rounded bfloat16 numbers
        return x * (outside + (inside - outside) * foreground).to(x.dtype)


class MultiFrequencyMultiScaleAttention(nn.Module):
    """MFMSA: the attention of a decoder stage, over S scales, with a residual connection.

    Scale s averages the map over 2^s pixels, applies a grouped convolution and a 1x1 convolution to
    ``max(channels / 2^s, min_channels)`` channels, then MFCA and MSSA, and a 3x3 convolution back to ``channels``. The scales
    are brought back to the map's size and averaged.

    Released: the grouped convolution is 3x3 with dilation 1 + s; a scale is averaged only if the pooled *height* is at least
    ``min_resolution``, otherwise it works on the full map; MSSA gives alpha to the background. Paper (its figures): the
    grouped convolution has 3 + 2s pixels a side (3x3, 5x5, 7x7, ...) and no dilation, so each scale past the first has more
    parameters; every scale is averaged, if need be to a single pixel; MSSA gives alpha to the foreground.

    In both, as in the released code, the grid of the bases follows the channels of the block, not those of the scale. Ours:
    sides that 2^s does not divide are pooled with a smaller last window, and resized to the map's exact size (the released
    code fails on them).

    Args:
        channels: Channels C of the map, a multiple of ``groups``.
        grid: Side of the bases.
        scales: S, at least 1.
        frequencies: K, number of cosine bases, up to 32, or of subbands; 0 leaves MFCA out.
        selection: Which frequencies of the cosines; a wavelet takes its lowest subbands.
        basis: Cosines, or a wavelet (an ablation).
        spatial_attention: False leaves MSSA out (an ablation).
        formulation: The released code's, or the paper's.
        min_channels: Fewest channels of a scale.
        min_resolution: Fewest rows that a pooled map may have; released formulation only.
        groups: Groups of the grouped convolution.
        reduction: Of MFCA's bottleneck.

    Raises:
        ConfigError: ``scales`` is below 1, a number does not fit another, a name is unknown, or an option that the others
            leave without effect is not at its default: a selection or K = 0 with a wavelet, ``min_resolution`` with the
            paper's formulation.
    """

    def __init__(
        self,
        channels: int,
        *,
        grid: int,
        scales: int = 3,
        frequencies: int = 16,
        selection: FrequencySelection = "top",
        basis: Basis = "cosine",
        spatial_attention: bool = True,
        formulation: Formulation = "released",
        min_channels: int = 32,
        min_resolution: int = _MIN_RESOLUTION,
        groups: int = 32,
        reduction: int = 16,
    ) -> None:
        super().__init__()
        _check_names(frequencies, selection, basis, formulation, min_resolution)
        if scales < 1:
            raise ConfigError(f"scales={scales} is out of range; use at least 1.")
        if channels % groups:
            raise ConfigError(f"{channels} channels are not a multiple of groups={groups}.")
        is_released = formulation == "released"
        self.min_resolution = min_resolution if is_released else 0
        inner = [max(channels // 2**scale, min_channels) for scale in range(scales)]
        self.multi_scale_branches = nn.ModuleList(
            _reduce(channels, width, scale=scale, dilated=is_released, groups=groups) for scale, width in enumerate(inner)
        )
        self.statistics: FrequencyStatistics | WaveletStatistics | None = None
        if frequencies:
            if basis == "cosine":
                self.statistics = FrequencyStatistics(grid, frequencies=frequencies, selection=selection)
            else:
                self.statistics = WaveletStatistics(grid, frequencies=frequencies, wavelet=basis)
            self.multi_frequency_branches = nn.ModuleList(
                MultiFrequencyChannelAttention(width, reduction=reduction) for width in inner
            )
        self.multi_spatial_branches: nn.ModuleList | None = None
        if spatial_attention:
            self.multi_spatial_branches = nn.ModuleList(
                MultiScaleSpatialAttention(width, formulation=formulation) for width in inner
            )
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
            if self.multi_spatial_branches is not None:
                feature = self.multi_spatial_branches[scale](feature)
            feature = self.expansions[scale](feature)
            if feature.shape != x.shape:
                feature = functional.interpolate(feature, size=x.shape[2:], mode="bilinear", align_corners=False)
            yield feature


def _check_names(
    frequencies: int, selection: FrequencySelection, basis: Basis, formulation: Formulation, min_resolution: int
) -> None:
    """Refuse unknown names, and options that others leave without effect."""
    if basis not in get_args(Basis):
        raise ConfigError(f"unknown basis {basis!r}; choose one of {', '.join(get_args(Basis))}.")
    if basis != "cosine" and selection != "top":
        raise ConfigError(
            f"selection: {selection} is of cosine frequencies, and basis: {basis} uses its lowest subbands; "
            "leave selection at its default, or set basis: cosine."
        )
    if basis != "cosine" and not frequencies:
        raise ConfigError(f"basis: {basis} has no effect with frequencies: 0; leave basis at its default, or set frequencies.")
    if formulation not in get_args(Formulation):
        raise ConfigError(f"unknown formulation {formulation!r}; choose one of {', '.join(get_args(Formulation))}.")
    if formulation == "paper" and min_resolution != _MIN_RESOLUTION:
        raise ConfigError(
            f"min_resolution: {min_resolution} has no effect with formulation: paper, which pools every scale; "
            "leave min_resolution at its default, or set formulation: released."
        )


def _reduce(channels: int, width: int, *, scale: int, dilated: bool, groups: int) -> nn.Sequential:
    """A grouped convolution of receptive field 3 + 2 scale, then a 1x1 convolution to ``width`` channels."""
    kernel, dilation = (3, 1 + scale) if dilated else (3 + 2 * scale, 1)
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=1 + scale, dilation=dilation, groups=groups, bias=False),
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
