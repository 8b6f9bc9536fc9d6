"""MADGNet written plainly, with the parameter names of the released network: what ours is compared with.

Both the tests (outputs equal) and the speed comparison (how much faster) use it. Written for the eye: every cosine basis is a
whole plane repeated over the channels and kept as a buffer, every branch of the attention makes one product map per basis, and
each map is pooled on its own. It shares no code with `madgnet_bench`, tables included.

As in the released network, the sides of an image must be multiples of 32, stage 1 is the deepest, the output in training mode
is ``[region, distance, boundary]`` for each of the four stages, and otherwise the region map of stage 4 alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ReferenceMADGNet"]

TABLES = {
    "top": ("00600114513000324635526553342261", "01052020060463526333511242113053"),
    "low": ("00110221203401301234501234561234", "01012012230043154321065432106543"),
    "bot": ("61332412445146256162243355625536", "64466314456522514350311242115333"),
}
"""Frequencies on a 7 x 7 grid, one digit each: down the rows, then along the columns."""

WIDTHS = (256, 128, 64, 32)
GRIDS = {256: 14, 128: 28, 64: 56, 32: 112}
SKIP_CHANNELS = 64


class ReferenceMADGNet(nn.Module):
    """The released network over any encoder of five levels.

    Args:
        encoder: Maps an image to five maps at 1/2 to 1/32 of its sides, deepest last.
        channels: Channels of those maps.
        num_classes: Channels of every output map.
        scales: S.
        frequencies: K, 0 to 32.
        selection: ``top``, ``low`` or ``bot``.
        min_channels: Fewest channels of a scale.
        min_resolution: Fewest rows of a pooled map.
    """

    def __init__(
        self,
        encoder: nn.Module,
        channels: Sequence[int],
        *,
        num_classes: int = 1,
        scales: int = 3,
        frequencies: int = 16,
        selection: str = "top",
        min_channels: int = 32,
        min_resolution: int = 8,
    ) -> None:
        super().__init__()
        attention = {
            "scales": scales,
            "frequencies": frequencies,
            "selection": selection,
            "min_channels": min_channels,
            "min_resolution": min_resolution,
        }
        self.feature_encoding = encoder
        skips = channels[-2::-1]
        inputs = (channels[-1], *WIDTHS)
        for stage, (skip, before, width) in enumerate(zip(skips, inputs, WIDTHS, strict=False), start=1):
            setattr(self, f"skip_connection{stage}", conv_norm_relu(skip, SKIP_CHANNELS, kernel_size=1))
            setattr(self, f"decoder_stage{stage}", DecoderStage(before + SKIP_CHANNELS, width, attention))
            setattr(self, f"sub_decoder_stage{stage}", SubDecoder(width, num_classes, scale_factor=2 ** (5 - stage)))

    def forward(self, image: Tensor) -> Any:
        """Segment images (N, 3, H, W); the sides are multiples of 32."""
        *skips, x = self.feature_encoding(image)
        maps = []
        for stage in range(1, 5):
            skip = getattr(self, f"skip_connection{stage}")(skips[-stage])
            x = getattr(self, f"decoder_stage{stage}")(x, skip)
            if self.training or stage == 4:
                maps.append(getattr(self, f"sub_decoder_stage{stage}")(x))
        return maps if self.training else maps[-1][0]


class DecoderStage(nn.Module):
    """Twice the size, joined with a skip connection; convolution, attention, convolution."""

    def __init__(self, inputs: int, width: int, attention: dict[str, Any]) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(inputs, width, kernel_size=3)
        self.attention_layer = MultiFrequencyMultiScale(width, **attention)
        self.conv2 = conv_norm_relu(width, width, kernel_size=3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join ``x`` with ``skip``, of twice its size."""
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv2(self.attention_layer(self.conv1(torch.cat([x, skip], dim=1))))


class MultiFrequencyMultiScale(nn.Module):
    """MFMSA: channel attention by frequency, then spatial attention, at each of S scales, with a residual connection."""

    def __init__(
        self, channels: int, *, scales: int, frequencies: int, selection: str, min_channels: int, min_resolution: int
    ) -> None:
        super().__init__()
        self.min_resolution = min_resolution
        widths = [max(channels // 2**scale, min_channels) for scale in range(scales)]
        self.multi_scale_branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1 + scale, dilation=1 + scale, groups=32, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for scale, width in enumerate(widths)
        )
        self.multi_frequency_branches = nn.ModuleList(
            nn.Sequential(MultiFrequencyChannel(width, GRIDS[channels], frequencies, selection))
            for width in widths
            if frequencies
        )
        self.multi_frequency_branches_conv1 = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, 1, 1, bias=False), nn.Sigmoid()) for width in widths
        )
        self.multi_frequency_branches_conv2 = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            for width in widths
        )
        self.alpha_list = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in widths)
        self.beta_list = nn.ParameterList(nn.Parameter(torch.ones(1)) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to ``x`` (N, C, H, W); a scale is pooled only if enough rows are left, whatever the columns."""
        total = torch.zeros_like(x)
        scales = len(self.multi_scale_branches)
        for scale in range(scales):
            factor = 2**scale
            feature = functional.avg_pool2d(x, factor) if x.shape[2] // factor >= self.min_resolution else x
            feature = self.multi_scale_branches[scale](feature)
            if len(self.multi_frequency_branches):
                feature = self.multi_frequency_branches[scale](feature)
            foreground = self.multi_frequency_branches_conv1[scale](feature)
            background = 1 - foreground
            feature = self.alpha_list[scale] * feature * background + self.beta_list[scale] * feature * foreground
            feature = self.multi_frequency_branches_conv2[scale](feature)
            if feature.shape[2:] != x.shape[2:]:
                feature = functional.interpolate(feature, scale_factor=factor, mode="bilinear", align_corners=False)
            total = total + feature
        return total / scales + x


class MultiFrequencyChannel(nn.Module):
    """MFCA: a gate per channel from the global average, maximum and minimum of the map times each basis."""

    def __init__(self, channels: int, grid: int, frequencies: int, selection: str) -> None:
        super().__init__()
        self.grid, self.frequencies = grid, frequencies
        down, along = TABLES[selection]
        for index in range(frequencies):
            plane = cosine_plane(int(down[index]) * (grid // 7), int(along[index]) * (grid // 7), grid)
            self.register_buffer(f"dct_weight_{index}", plane.repeat(channels, 1, 1))
        hidden = channels // 16
        self.fc = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Gate the channels of ``x`` (N, C, H, W)."""
        pooled = x
        if x.shape[2:] != (self.grid, self.grid):
            pooled = functional.adaptive_avg_pool2d(x, self.grid)
        products = [pooled * getattr(self, f"dct_weight_{index}") for index in range(self.frequencies)]
        average = sum(functional.adaptive_avg_pool2d(product, 1) for product in products) / self.frequencies
        largest = sum(functional.adaptive_max_pool2d(product, 1) for product in products) / self.frequencies
        smallest = sum(-functional.adaptive_max_pool2d(-product, 1) for product in products) / self.frequencies
        return x * torch.sigmoid(self.fc(average) + self.fc(largest) + self.fc(smallest))


class SubDecoder(nn.Module):
    """E-SDM: region, distance and boundary inform one another at low resolution, and back at full resolution."""

    def __init__(self, channels: int, num_classes: int, *, scale_factor: int) -> None:
        super().__init__()
        self.output_map_conv = nn.Conv2d(channels, num_classes, 1)
        self.output_distance_conv = nn.Conv2d(channels, num_classes, 1)
        self.output_boundary_conv = nn.Conv2d(channels, num_classes, 1)
        self.upsample = nn.Upsample(scale_factor=scale_factor, mode="bilinear", align_corners=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predict region, distance and boundary."""
        region = self.output_map_conv(x)
        distance = self.output_distance_conv(x) * torch.sigmoid(region)
        boundary = self.output_boundary_conv(x) * torch.sigmoid(distance)
        boundary = self.upsample(boundary)
        distance = self.upsample(distance) + torch.sigmoid(boundary)
        region = self.upsample(region) + torch.sigmoid(distance)
        return [region, distance, boundary]


def cosine_plane(down: int, along: int, size: int) -> Tensor:
    """The two-dimensional orthonormal DCT-II basis of one pair of frequencies, (size, size)."""

    def wave(frequency: int) -> Tensor:
        norm = math.sqrt((2 if frequency else 1) / size)
        positions = torch.arange(size, dtype=torch.float64) + 0.5
        return norm * torch.cos(math.pi * frequency * positions / size)

    return torch.outer(wave(down), wave(along)).float()


def conv_norm_relu(inputs: int, outputs: int, *, kernel_size: int) -> nn.Sequential:
    """A convolution with bias that keeps the size, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
