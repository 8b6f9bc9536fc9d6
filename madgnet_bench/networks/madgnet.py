"""Modality-agnostic Domain Generalizable Medical Image Segmentation by Multi-Frequency in Multi-Scale Attention.

J.-H. Nam, N. S. Syazwany, S. J. Kim, S.-C. Lee, CVPR 2024, pp. 11480-11491, arXiv 2405.06284.

Changes from the paper: where its figures and the released code differ, the code is followed by default, so that released
weights keep their meaning; ``formulation="paper"`` follows the figures in all of these (see `layers.attention` and
`layers.sub_decoder`):
    - alpha weighs the background and beta the foreground; the figure has them the other way round.
    - Dilated 3x3 convolutions stand for the figure's 3x3, 5x5 and 7x7.
    - A scale whose pooled map has fewer than 8 rows works on the full map; the figure pools every scale.
    - The sub-decoders' gates multiply the convolutions' outputs; the figure draws them on the inputs.
    - The sub-decoders' backward stream adds sigmoids; the figure adds the maps.
    - The sub-decoders upsample with corners aligned; in the decoder they are not, and ``"paper"`` does as the decoder.

The paper's ablations are options too: SFSS, MFSS, SFMS and MFMS are ``scales`` 1 or 3 with ``frequencies`` 1 or 16;
``frequencies=0`` leaves MFCA out, ``spatial_attention=False`` MSSA; ``supervision`` compares the ensemble with sub-decoders in
parallel and with the region alone. Ours: ``basis`` puts a wavelet in the cosines' place.

Changes from the released code:
    - ``supervision="region"`` (default) has neither distance nor boundary maps; ``"multi_task"`` is the released network.
    - Any timm encoder with five levels; the released code has ResNeSt-50 (timm's ``resnest50d``, equal weight by weight),
      ResNet-50 (timm's ``resnet50``) and Res2Net-50 v1b (timm's ``res2net50d``).
    - Images of any size: sides are padded to multiples of 32 inside, and logits cropped. The released code fails on others.
    - The cosine bases are stored once per decoder stage as one-dimensional factors (6,720 values at K = 16), not as planes
      repeated over channels (29.9 million).
    - Lists of stages and of branches are numbered from 0: ``skip_connection.0`` is the released ``skip_connection1``.
      Released weights are renamed when they are loaded (``checkpoint``, see `networks.released`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor, nn

from madgnet_bench.contracts import Context, SegmentationNetwork, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.attention import Basis, Formulation, MultiFrequencyMultiScaleAttention
from madgnet_bench.layers.frequency import FrequencySelection
from madgnet_bench.layers.normalization import Normalization, input_normalization
from madgnet_bench.layers.padding import crop_to_size, pad_to_multiple
from madgnet_bench.layers.sub_decoder import EnsembleSubDecoder, Supervision
from madgnet_bench.layers.upsampling import convolve_upsampled
from madgnet_bench.networks.encoders import REDUCTIONS, timm_encoder
from madgnet_bench.networks.released import convert_released_weights, read_released_weights

__all__ = ["MADGNet"]

_WIDTHS = (256, 128, 64, 32)
"""Channels of the decoder's stages, deepest first."""

_GRIDS = (14, 28, 56, 112)
"""Sides of the cosine bases of the stages."""

_SKIP_CHANNELS = 64
"""Channels to which every skip connection is reduced."""

_ONE_VALUE = "more than 1 value per channel"
"""What batch normalisation complains of."""

_SCALAR = re.compile(r"decoder_stage\.(\d+)\.attention_layer\.multi_spatial_branches\.(\d+)\.(alpha|beta)$")
"""Parameters that a training log shows."""


class MADGNet(SegmentationNetwork):
    """MADGNet: a pretrained encoder, four decoder stages with MFMSA attention, and a sub-decoder per stage.

    In training mode the output has four auxiliary mappings, deepest stage first; its logits are the region map of the last
    stage, in training as in evaluation. Training needs at least two images per batch with encoders of split attention, such as
    ResNeSt: they normalise pooled values over the batch.

    Args:
        num_targets: Number of binary target channels.
        encoder: Name of a timm model with maps at 1/2 to 1/32.
        pretrained: Start from timm's published weights of the encoder.
        encoder_checkpoint: Local file of those weights, instead of downloading them.
        scales: S, scales of the attention.
        frequencies: K, cosine bases of the channel attention, up to 32, or subbands, up to 64; 0 leaves it out.
        selection: Which frequencies are used: the table's ``top``, ``low`` or ``bot``.
        basis: ``"cosine"``, or a wavelet in its place: ``"haar"`` or ``"db2"``, of which the K subbands of lowest frequency are
            used; ``selection`` then stays at its default.
        spatial_attention: False leaves MSSA out: scales and channel attention only.
        min_channels: Fewest channels of a scale of the attention.
        min_resolution: Fewest rows that a pooled map of the attention may have; it stays at its default in the paper's
            formulation, which pools every scale.
        supervision: ``"region"``: one map per stage; ``"multi_task"``: region, distance and boundary, which inform one another;
            ``"parallel"``: the same three maps, which do not (train it with a loss of all three).
        formulation: ``"released"``, or ``"paper"``: the figures' places listed above. Where images are so small that
            the paper's pooling leaves one pixel (S = 3: up to 64 x 64), training needs at least two images per batch.
        normalization: ``"none"`` (default): images in [0, 1] as they are, as the released inference does although its encoder
            was pretrained with ImageNet's mean and standard deviation; ``"imagenet"`` applies those.
        checkpoint: Local file of the released weights of the whole network, which replace those of ``pretrained`` and
            ``encoder_checkpoint`` (nothing is downloaded). They need ``supervision="multi_task"`` (the released region map
            is made from the distance and boundary maps too), and ``basis``, ``spatial_attention`` and ``formulation`` at
            their defaults. Loaded strictly; ``frequencies``, ``selection``, ``min_resolution`` and ``normalization`` must be
            set as in training.
        return_features: Also return the encoder's five maps.

    Raises:
        ConfigError: The encoder, its weights, the checkpoint, a name or a number cannot be used, or an option is set that the
            others leave without effect; the message says which and why.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        encoder: str = "resnest50d",
        pretrained: bool = False,
        encoder_checkpoint: str | Path | None = None,
        scales: int = 3,
        frequencies: int = 16,
        selection: FrequencySelection = "top",
        basis: Basis = "cosine",
        spatial_attention: bool = True,
        min_channels: int = 32,
        min_resolution: int = 8,
        supervision: Supervision = "region",
        formulation: Formulation = "released",
        normalization: Normalization = "none",
        checkpoint: str | Path | None = None,
        return_features: bool = False,
    ) -> None:
        super().__init__(num_targets)
        if supervision not in get_args(Supervision):
            raise ConfigError(f"unknown supervision {supervision!r}; choose one of {', '.join(get_args(Supervision))}.")
        if checkpoint is not None:
            _check_released(supervision, basis, spatial_attention, formulation)
            pretrained, encoder_checkpoint = False, None
        self.return_features = return_features
        departures = {
            "released-weights": checkpoint is not None,
            "pretrained": pretrained or encoder_checkpoint is not None,
            f"S{scales}": scales != 3,
            f"K{frequencies}": frequencies != 16,
            selection: selection != "top",
            basis: basis != "cosine",
            "no-MSSA": not spatial_attention,
            f"Cmin{min_channels}": min_channels != 32,
            f"Rmin{min_resolution}": min_resolution != 8,
            supervision.replace("_", "-"): supervision != "region",
            formulation: formulation != "released",
            normalization: normalization != "none",
        }
        self._label = " ".join(("MADGNet", encoder, *(text for text, departs in departures.items() if departs)))
        self.normalize = input_normalization(normalization)
        self.feature_encoding, channels = timm_encoder(encoder, pretrained=pretrained, checkpoint=encoder_checkpoint)
        *skip_channels, deepest = channels
        self.skip_connection = nn.ModuleList(
            _conv_norm_relu(skip, _SKIP_CHANNELS, kernel_size=1) for skip in reversed(skip_channels)
        )
        self.decoder_stage = nn.ModuleList()
        for inner, width, grid in zip((deepest, *_WIDTHS), _WIDTHS, _GRIDS, strict=False):
            attention = MultiFrequencyMultiScaleAttention(
                width,
                grid=grid,
                scales=scales,
                frequencies=frequencies,
                selection=selection,
                basis=basis,
                spatial_attention=spatial_attention,
                formulation=formulation,
                min_channels=min_channels,
                min_resolution=min_resolution,
            )
            self.decoder_stage.append(_DecoderStage(inner + _SKIP_CHANNELS, attention, width))
        self.sub_decoder_stage = nn.ModuleList(
            EnsembleSubDecoder(width, num_targets, supervision=supervision, formulation=formulation) for width in _WIDTHS
        )
        if checkpoint is not None:
            released = read_released_weights(checkpoint)
            self.load_state_dict(convert_released_weights(released, self, where=f"released weights {checkpoint}"))

    @property
    def label(self) -> str:
        """Name in tables: the encoder, and what departs from the defaults."""
        return self._label

    def scalars(self) -> dict[str, Tensor]:
        """Look at the learned weights of foreground and background, for a training log.

        Returns:
            ``alpha/stage1/scale1`` and so on, ``beta/...`` alike: copies without gradient or dimensions, on the network's
            device. Stage 1 is the deepest, scale 1 the full map. Released: alpha weighs the background; paper: the foreground.
            Empty without MSSA.
        """
        values: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            found = _SCALAR.match(name)
            if found:
                stage, scale, which = found.groups()
                values[f"{which}/stage{int(stage) + 1}/scale{int(scale) + 1}"] = parameter.detach()[0].clone()
        return values

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the encoder's maps.

        Args:
            image: (N, 3 or 1, H, W) in [0, 1].

        Returns:
            Five maps at 1/2 to 1/32 of the image padded to multiples of 32, deepest last.

        Raises:
            ValueError: In training mode, batch normalisation finds one value per channel.
        """
        padded = pad_to_multiple(self.normalize(image), REDUCTIONS[-1])
        try:
            return tuple(self.feature_encoding(padded))
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise ValueError(_needs_two_images("encoder", image.shape)) from error

    def decode(self, embedding: Sequence[Tensor], size: Sequence[int]) -> SegmentationOutput:
        """Turn the maps of `encode` into logits, and in training mode into the maps of every stage.

        Args:
            embedding: What `encode` returned.
            size: Height and width of the image.

        Raises:
            ValueError: In training mode, batch normalisation finds one value per channel (paper's formulation only).
        """
        padded = [REDUCTIONS[0] * side for side in embedding[0].shape[2:]]
        *skips, x = embedding
        stages = []
        try:
            for stage, reduce, skip in zip(self.decoder_stage, self.skip_connection, reversed(skips), strict=True):
                x = stage(x, reduce(skip))
                stages.append(x)
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise ValueError(_needs_two_images("decoder", (len(x), 3, *size))) from error
        supervised = list(zip(self.sub_decoder_stage, stages, strict=True))
        maps = [
            {name: crop_to_size(logits, size) for name, logits in sub_decoder(x, padded).items()}
            for sub_decoder, x in (supervised if self.training else supervised[-1:])
        ]
        return SegmentationOutput(
            logits=maps[-1]["region"],
            auxiliary=tuple(maps) if self.training else (),
            features=tuple(embedding) if self.return_features else (),
        )

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1]; the context is ignored."""
        return self.decode(self.encode(image), image.shape[2:])


def _check_released(supervision: Supervision, basis: Basis, spatial_attention: bool, formulation: Formulation) -> None:
    """Refuse released weights for another network than the released one."""
    demands = (
        ("supervision", supervision, "multi_task", "the released region map is made from the distance and boundary maps too"),
        ("basis", basis, "cosine", "the released channel attention was trained on cosine bases"),
        ("spatial_attention", str(spatial_attention).lower(), "true", "the released weights hold the spatial attention"),
        ("formulation", formulation, "released", "the released weights were trained in the released code's formulation"),
    )
    for name, value, needed, reason in demands:
        if value != needed:
            raise ConfigError(f"checkpoint needs {name}: {needed}, not {value}: {reason}.")


def _needs_two_images(part: str, shape: Sequence[int]) -> str:
    """What to do where batch normalisation finds one value per channel."""
    return (
        f"the {part}'s batch normalisation cannot train on images {tuple(shape)}; "
        "use at least two images per batch, and drop a last batch of one"
    )


class _DecoderStage(nn.Module):
    """Twice the resolution, joined with a skip connection: convolution, attention, convolution."""

    def __init__(self, in_channels: int, attention: nn.Module, width: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm_relu(in_channels, width, kernel_size=3)
        self.attention_layer = attention
        self.conv2 = _conv_norm_relu(width, width, kernel_size=3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join ``x`` (N, C, h, w) with ``skip`` (N, 64, 2h, 2w)."""
        convolution, norm, relu = self.conv1
        assert isinstance(convolution, nn.Conv2d)  # the first layer of _conv_norm_relu
        x = relu(norm(convolve_upsampled(x, skip, convolution)))
        return self.conv2(self.attention_layer(x))


def _conv_norm_relu(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Sequential:
    """A size-preserving convolution (with bias, as released), batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
