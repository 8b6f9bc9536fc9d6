"""SAM-Med2D.

J. Cheng, J. Ye, Z. Deng et al., arXiv 2308.16184.

SAM ViT-B at 256 pixels with a convolutional adapter parallel to the MLP of every block.

Changes from the paper:
    - Adapters and mask decoder are trained, with the task's loss and prompts, one step per batch; the paper alternates eight
      further steps of the decoder with more points and the last mask. The prompt encoder stays as it is: of its vectors, a
      source of prompts uses only some.
    - In training, one mask per prompt set, SAM's for clear prompts, whose head the released weights have not adapted. The
      released training and test pick the best of three by predicted quality; so does ``train: frozen`` here.

Changes from the released code:
    - Images are resized bilinearly, with antialiasing where they shrink, not by the nearest pixel.
    - Weights are loaded strictly. The released code loads what fits and leaves the rest as it is.

Taken over from the released code: an image of which both sides are below 256 pixels is padded with zeros on all sides; any
other is squeezed to 256 x 256, without keeping its aspect. The released weights were trained on images whose colours are in
the order blue, green, red, with the statistics of red, green, blue: see ``channel_order``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.adapters import AdaptedMLP, SpatialChannelAdapter
from madgnet_bench.networks.sam import SAM
from madgnet_bench.networks.sam_encoder import Frame, SAMSize, check_choice, checkpoint_title
from madgnet_bench.networks.sam_weights import load_strictly, read_sam_weights

__all__ = ["SAMMed2D"]

_ADAPTER = ".Adapter."

_Training = Literal["frozen", "decoder", "adapter"]
_ChannelOrder = Literal["bgr", "rgb"]


class SAMMed2D(SAM):
    """SAM-Med2D, told by prompts what to segment; without prompts it decides alone.

    The names of its released checkpoint are those of ``segment-anything`` (see `sam_weights`) and, for the adapters,
    ``image_encoder.blocks.<n>.Adapter.{norm.weight, norm.bias, channel.0.weight, channel.2.weight, spatial.0.weight,
    spatial.2.weight}``, which become ``vision_encoder.layers.<n>.mlp.adapter.*`` here.

    Args:
        num_targets: Number of binary target channels.
        checkpoint: The released file (``sam-med2d_b.pth``, which holds the weights under ``model``), or other weights of SAM
            ViT-B at 256 pixels with adapters. Random where not given; random adapters are no neutral start.
        train: What is trained: nothing (then the mask is the best of three by predicted quality); the mask decoder; it and the
            adapters, as in the paper.
        channel_order: Order in which the encoder is given the colours: ``"bgr"``, as the released weights were trained, or
            ``"rgb"``.
        size: ``vit_b``, or ``tiny`` for tests.
        image_size: Side of the square; of the released weights, 256.

    Raises:
        ConfigError: ``image_size`` has an odd number of patches, or the checkpoint cannot be read or does not fit.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        checkpoint: str | None = None,
        train: _Training = "adapter",
        channel_order: _ChannelOrder = "bgr",
        size: SAMSize = "vit_b",
        image_size: int = 256,
    ) -> None:
        check_choice("train", train, _Training)
        check_choice("channel_order", channel_order, _ChannelOrder)
        frozen = train == "frozen"
        super().__init__(
            num_targets, size=size, image_size=image_size, train="frozen" if frozen else "decoder", multimask=frozen
        )
        if self.grid % 2:
            raise ConfigError(f"image_size {image_size} has {self.grid} patches per side; the adapters need an even number.")
        self._training = train
        self._checkpoint = checkpoint
        self._reverse = channel_order == "bgr"
        self.encoding = f"{self.encoding}-{channel_order}"
        weights = {} if checkpoint is None else read_sam_weights(checkpoint)
        where = f"checkpoint {checkpoint} of SAM-Med2D at {image_size} pixels"
        fix = "Use the released checkpoint, or leave it out; weights of SAM alone lack the adapters and have another size."
        if weights:
            weights = {_our_name(name): value for name, value in weights.items()}
        for layer in self.vision_encoder.layers:
            adapter = SpatialChannelAdapter(self.architecture.width).requires_grad_(train == "adapter")
            layer.mlp = AdaptedMLP(layer.mlp, adapter)
        if weights:
            load_strictly(self, weights, where=where, fix=fix)
        self._encoder_training = "adapter" if train == "adapter" else "frozen"

    @property
    def label(self) -> str:
        """Name in tables: what is trained, and the weights it starts from."""
        tiny = "" if self.architecture.title == "ViT-B" else f" {self.architecture.title}"
        order = "" if self._reverse else " rgb"
        return f"SAM-Med2D{tiny} {self._training}{order}{checkpoint_title(self._checkpoint)}"

    def frame(self, size: Sequence[int]) -> Frame:
        """Small images lie in the middle of the square, others fill it."""
        height, width = int(size[0]), int(size[1])
        if max(height, width) >= self.image_size:
            return Frame(self.image_size, self.image_size)
        return Frame(height, width, top=(self.image_size - height) // 2, left=(self.image_size - width) // 2)

    def encode(self, image: Tensor) -> Tensor:
        """Embed images (N, C, H, W) in [0, 1], red first, to (N, channels, grid, grid)."""
        return super().encode(image.flip(1) if self._reverse else image)


def _our_name(name: str) -> str:
    """The name of a weight once every block's MLP has an adapter beside it."""
    if _ADAPTER in name:
        return name.replace(_ADAPTER, ".mlp.adapter.")
    return name.replace(".mlp.", ".mlp.mlp.") if name.startswith("vision_encoder.layers.") else name
