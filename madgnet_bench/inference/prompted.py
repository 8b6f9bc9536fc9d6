"""How an inferer, which knows images only, applies a network that is told more than the image."""

from __future__ import annotations

from torch import Tensor

from madgnet_bench.contracts import Context, SegmentationNetwork, SegmentationOutput
from madgnet_bench.errors import ConfigError

__all__ = ["ToldNetwork"]


class ToldNetwork(SegmentationNetwork):
    """A network that is told the same whenever it is applied to one batch of images.

    Args:
        network: The network.
        image: The images that the context belongs to.
        context: What it is told about them.
    """

    def __init__(self, network: SegmentationNetwork, *, image: Tensor, context: Context) -> None:
        super().__init__(network.num_targets)
        self.network = network
        self.training = network.training
        self._image = image
        self._context = context

    @property
    def label(self) -> str:
        """The network's."""
        return self.network.label

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment the images.

        Raises:
            ConfigError: These are other images than the context belongs to, as parts or flipped ones are.
        """
        if image is not self._image:
            raise ConfigError(
                "this inferer changes the images (crops, flips, scales), to which prompts and cached embeddings would not fit; "
                "use the inferer WholeImage."
            )
        return self.network(image, context=self._context)
