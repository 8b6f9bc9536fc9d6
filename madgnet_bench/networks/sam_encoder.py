"""SAM's image encoder (arXiv 2304.02643), its input rule and the ways to train it: what SAM's relatives share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePath
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.contracts import SegmentationNetwork
from madgnet_bench.errors import ConfigError, nearest
from madgnet_bench.layers.adapters import AdaptedMLP, BottleneckAdapter
from madgnet_bench.layers.lora import LoRALinear
from madgnet_bench.layers.normalization import IMAGENET_MEAN, IMAGENET_STD, InputNormalization

__all__ = [
    "PATCH",
    "SIZES",
    "Architecture",
    "EncoderTraining",
    "Frame",
    "SAMEncoderNetwork",
    "SAMSize",
    "build_parts",
    "check_choice",
    "checkpoint_title",
    "in_full",
]

SAMSize = Literal["vit_b", "vit_l", "vit_h", "tiny"]
"""SAM's three encoders; ``tiny`` has random weights only and is for tests and demonstrations."""

EncoderTraining = Literal["frozen", "lora", "adapter", "full"]
"""What of the encoder is trained: nothing; low-rank updates of queries and values; adapters beside the MLPs; everything."""

PATCH = 16
"""Pixels per side of a patch."""


class Architecture(NamedTuple):
    """Sizes of one SAM.

    Attributes:
        title: Its name in tables.
        width: Channels of the encoder's tokens.
        layers: Number of its blocks.
        heads: Attention heads of each.
        global_layers: Blocks whose attention sees the whole image; that of the others sees windows.
        window: Patches per side of a window.
        embedding: Channels of the embedding, the prompts and the mask decoder.
        decoder_mlp: Inner channels of the mask decoder's MLPs.
    """

    title: str
    width: int
    layers: int
    heads: int
    global_layers: tuple[int, ...]
    window: int = 14
    embedding: int = 256
    decoder_mlp: int = 2048


SIZES: Mapping[str, Architecture] = {
    "vit_b": Architecture("ViT-B", 768, 12, 12, (2, 5, 8, 11)),
    "vit_l": Architecture("ViT-L", 1024, 24, 16, (5, 11, 17, 23)),
    "vit_h": Architecture("ViT-H", 1280, 32, 16, (7, 15, 23, 31)),
    "tiny": Architecture("tiny", 32, 2, 2, (1,), window=3, embedding=32, decoder_mlp=64),
}


class Frame(NamedTuple):
    """Where an image lies in the square that the encoder sees, in pixels of the square."""

    height: int
    width: int
    top: int = 0
    left: int = 0


class SAMEncoderNetwork(SegmentationNetwork):
    """Base of the networks around SAM's image encoder.

    The longest side of an image is brought to ``image_size``, its aspect kept, and the image is padded with zeros at the bottom
    and right to a square, after normalisation. An image smaller than a patch is enlarged like any other.

    Args:
        num_targets: Number of binary target channels.
        size: Which SAM.
        image_size: Side of the square, a multiple of 16.

    Raises:
        ConfigError: The size is unknown, or ``image_size`` is no multiple of the patch.
    """

    vision_encoder: Any

    def __init__(self, num_targets: int, *, size: str, image_size: int) -> None:
        super().__init__(num_targets)
        if size not in SIZES:
            raise ConfigError(f"SAM has no size {size!r}; {nearest(size, SIZES)}")
        if image_size < PATCH or image_size % PATCH:
            raise ConfigError(f"image_size {image_size} of SAM must be a positive multiple of its patch of {PATCH} pixels.")
        self.architecture = SIZES[size]
        self.image_size = image_size
        self.encoding = f"{image_size}px"
        self.normalize = InputNormalization(mean=IMAGENET_MEAN, std=IMAGENET_STD)  # SAM's, too
        self._encoder_training: EncoderTraining = "frozen"

    @property
    def frozen_encoder(self) -> nn.Module | None:
        """The module whose output is `encode`'s, if nothing of it is trained: then embeddings can be kept."""
        encoder: nn.Module = self.vision_encoder
        return encoder if self._encoder_training == "frozen" else None

    @property
    def grid(self) -> int:
        """Patches per side of the square."""
        return self.image_size // PATCH

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; frozen parts stay in eval mode."""
        super().train(mode)
        if mode:
            for child in self.modules():
                parameters = list(child.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    child.eval()
        return self

    def encode(self, image: Tensor) -> Tensor:
        """Embed images (N, C, H, W) in [0, 1] to (N, channels, grid, grid); without gradients where the encoder is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._encoder_training != "frozen"):
            return self._tokens_to_embedding(self.to_square(self.normalize(image)))

    def frame(self, size: Sequence[int]) -> Frame:
        """Where an image of height and width ``size`` lies in the square."""
        scale = self.image_size / max(size)
        return Frame(max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))

    def to_square(self, image: Tensor) -> Tensor:
        """Bring images (N, C, H, W) into the square; zeros around them."""
        height, width, top, left = self.frame(image.shape[2:])
        shrinks = height < image.shape[2] or width < image.shape[3]
        image = functional.interpolate(image, size=(height, width), mode="bilinear", antialias=shrinks)
        right, bottom = self.image_size - left - width, self.image_size - top - height
        return functional.pad(image, (left, right, top, bottom))

    def from_square(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Bring maps of the square (N, K, side, side), of any side, to images of height and width ``size``."""
        height, width, top, left = self.frame(size)
        square = functional.interpolate(maps, size=(self.image_size, self.image_size), mode="bilinear")
        content = square[..., top : top + height, left : left + width]
        return functional.interpolate(content, size=(int(size[0]), int(size[1])), mode="bilinear")

    def train_encoder(self, training: EncoderTraining, *, rank: int, bottleneck: int) -> None:
        """Freeze the encoder, but for what is trained of it. Weights are loaded before, under the names of the plain encoder.

        Args:
            training: What is trained.
            rank: Of LoRA.
            bottleneck: Width of adapters.
        """
        check_choice("train_encoder", training, EncoderTraining)
        self._encoder_training = training
        self.vision_encoder.requires_grad_(training == "full")
        width = self.architecture.width
        for layer in self.vision_encoder.layers:
            if training == "lora":
                parts = [(0, width), (2 * width, 3 * width)]  # queries and values
                layer.attn.qkv = LoRALinear(layer.attn.qkv, rank=rank, parts=parts)
            elif training == "adapter":
                layer.mlp = AdaptedMLP(layer.mlp, BottleneckAdapter(width, bottleneck=bottleneck))

    def _tokens_to_embedding(self, square: Tensor) -> Tensor:
        """Run patch embedding, positions, blocks and neck."""
        vision = self.vision_encoder
        x = vision.patch_embed.projection(square).permute(0, 2, 3, 1) + vision.pos_embed
        for layer in vision.layers:
            x = layer(x)
        embedding: Tensor = vision.neck(x)
        return embedding


def build_parts(architecture: Architecture, *, image_size: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Build image encoder, prompt encoder and mask decoder with random weights: torch's defaults, as in the released code.

    The matrix of the positional encoding, a parameter in transformers, becomes a buffer.
    """
    from transformers import SamConfig, SamModel  # seconds to import: paid by this network only

    vision = {
        "hidden_size": architecture.width,
        "output_channels": architecture.embedding,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "image_size": image_size,
        "patch_size": PATCH,
        "window_size": architecture.window,
        "global_attn_indexes": list(architecture.global_layers),
        "num_pos_feats": architecture.embedding // 2,
    }
    prompt = {"hidden_size": architecture.embedding, "image_size": image_size, "patch_size": PATCH}
    decoder = {
        "hidden_size": architecture.embedding,
        "mlp_dim": architecture.decoder_mlp,
        "iou_head_hidden_dim": architecture.embedding,
    }
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    for module in model.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    encoding = model.prompt_encoder.shared_embedding
    matrix = torch.randn_like(encoding.positional_embedding)  # SAM's own deviation is 1
    del encoding.positional_embedding
    encoding.register_buffer("positional_embedding", matrix)
    return model.vision_encoder, model.prompt_encoder, model.mask_decoder


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse what is none of the values of a Literal, which a configuration checks and a call from Python does not.

    Raises:
        ConfigError: It is none of them.
    """
    if value not in get_args(choices):
        raise ConfigError(f"{name} {value!r}: {nearest(value, get_args(choices))}")


def in_full(like: Tensor) -> AbstractContextManager[object]:
    """Compute in the given precision on the tensor's device, whatever autocast says."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def checkpoint_title(checkpoint: str | None) -> str:
    """The end of a network's name: which weights it starts from."""
    return f" [{PurePath(checkpoint).name}]" if checkpoint else ""
