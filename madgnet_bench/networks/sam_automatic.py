"""A SAM-style network without prompts: SAM's image encoder and a convolutional decoder of our own.

The encoder is that of Segment Anything (A. Kirillov et al., ICCV 2023, arXiv 2304.02643). The decoder upsamples its embedding
step by step, as the head "PUP" of SETR does (S. Zheng et al., CVPR 2021, arXiv 2012.15840): four times a transposed convolution
that doubles the side, then a 3x3 convolution, each followed by a normalisation over channels and GELU. It is no method of a
paper under this name, and its label says "SAM-style".

The decoder sees the embedding only, no map of higher resolution, so that nothing but the embedding has to be kept of an image
when the encoder is frozen. Normalisation is per pixel: no statistic depends on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from madgnet_bench.contracts import Context, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam_encoder import EncoderTraining, SAMEncoderNetwork, SAMSize, build_parts, checkpoint_title
from madgnet_bench.networks.sam_weights import load_strictly, read_sam_weights, resize_positions

__all__ = ["SAMAutomatic"]


class SAMAutomatic(SAMEncoderNetwork):
    """SAM's image encoder with an automatic decoder.

    Args:
        num_targets: Number of binary target channels.
        size: Which SAM.
        image_size: Side of the square that images are brought to (see `SAMEncoderNetwork`); the position tables of an
            ``encoder_checkpoint`` are interpolated.
        encoder_checkpoint: Weights of a SAM, of which the image encoder is taken: a hub id such as ``facebook/sam-vit-base``, a
            folder of transformers, or a file of the ``segment-anything`` code. Random where not given.
        train_encoder: What of the encoder is trained; the decoder always is.
        rank: Rank of LoRA.
        bottleneck: Width of adapters.
        widths: Channels of the decoder after each doubling, four.

    Raises:
        ConfigError: A size does not fit, or the checkpoint cannot be read or does not fit.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        size: SAMSize = "vit_b",
        image_size: int = 1024,
        encoder_checkpoint: str | None = None,
        train_encoder: EncoderTraining = "frozen",
        rank: int = 4,
        bottleneck: int = 64,
        widths: Sequence[int] = (128, 64, 32, 16),
    ) -> None:
        super().__init__(num_targets, size=size, image_size=image_size)
        if len(widths) != 4 or min(widths) < 1:
            raise ConfigError(f"widths of SAMAutomatic must be four positive numbers, not {list(widths)}.")
        self._encoder_checkpoint = encoder_checkpoint
        self.vision_encoder, _, _ = build_parts(self.architecture, image_size=image_size)
        if encoder_checkpoint is not None:
            self._load(encoder_checkpoint)
        self.train_encoder(train_encoder, rank=rank, bottleneck=bottleneck)
        channels = [self.architecture.embedding, *widths]
        self.decoder = nn.Sequential(*(_double(inner, outer) for inner, outer in zip(channels, widths, strict=False)))
        self.head = nn.Conv2d(widths[-1], num_targets, kernel_size=1)

    @property
    def label(self) -> str:
        """Name in tables: encoder, what of it is trained, and the weights it starts from."""
        weights = checkpoint_title(self._encoder_checkpoint)
        return f"SAM-style {self.architecture.title} {self._encoder_training}{weights}"

    def decode(self, embedding: Tensor, size: Sequence[int]) -> SegmentationOutput:
        """Turn the embedding of `encode` into logits.

        Args:
            embedding: (N, channels, grid, grid).
            size: Height and width of the images.
        """
        return SegmentationOutput(self.from_square(self.head(self.decoder(embedding)), size))

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1]; of the context, only the embedding is used."""
        embedding = self.encode(image) if context is None or context.embedding is None else context.embedding
        assert isinstance(embedding, Tensor)
        return self.decode(embedding, image.shape[2:])

    def _load(self, checkpoint: str) -> None:
        """Load the encoder of a whole SAM."""
        prefix = "vision_encoder."
        weights = {name: value for name, value in read_sam_weights(checkpoint).items() if name.startswith(prefix)}
        weights = resize_positions(weights, grid=self.grid, global_layers=self.architecture.global_layers)
        fix = "Set the network's size to that of the checkpoint (vit_b, vit_l or vit_h)."
        where = f"encoder_checkpoint {checkpoint} of SAM {self.architecture.title}"
        encoder = {name.removeprefix(prefix): value for name, value in weights.items()}
        load_strictly(self.vision_encoder, encoder, where=where, fix=fix)


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice the side, other channels."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2),
        _ChannelNorm(out_channels),
        nn.GELU(),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        _ChannelNorm(out_channels),
        nn.GELU(),
    )
