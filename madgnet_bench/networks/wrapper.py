"""Any `torch.nn.Module` that maps an image to logits, under the contract of this suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.contracts import Context, SegmentationNetwork, SegmentationOutput
from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.normalization import Normalization, input_normalization
from madgnet_bench.layers.padding import crop_to_size, pad_to_multiple

__all__ = ["WrappedNetwork"]


class WrappedNetwork(SegmentationNetwork):
    """A third-party network.

    In a configuration the module is a class path and its arguments; the number of targets, its first argument, comes from the
    data::

        class_path: WrappedNetwork
        init_args:
          module:
            class_path: my_package.MyNetwork
            init_args: {width: 32}

    A function, too, can be named, alone (``module: my_package.build``, called with the number of targets) or with arguments; in
    the latter case it is called at once and must be told its number of channels there, which is checked against the data.

    Args:
        num_targets: Number of binary target channels.
        module: Builds the network from the number of targets, or is the network. The network maps (N, in_channels, *spatial) to
            logits (N, num_targets, ...): a tensor, a mapping that holds it under ``out`` or ``logits``, or a sequence or tuple
            whose first item it is. Smaller or larger maps are resized (linearly).
        in_channels: Image channels that the module takes; an image of one channel is repeated.
        normalization: ``"none"`` (default): images in [0, 1] as they are; ``"imagenet"``: ImageNet's mean and deviation.
        multiple: Sides are padded to multiples of this, and logits cropped.
        name: Name in tables; the module's class by default.

    Raises:
        ConfigError: ``module`` builds something else than a module, or ``multiple`` is below 1.
    """

    def __init__(
        self,
        num_targets: int,
        *,
        module: Callable[[int], nn.Module],
        in_channels: int = 3,
        normalization: Normalization = "none",
        multiple: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(num_targets)
        if multiple < 1:
            raise ConfigError(f"multiple={multiple} is out of range; use at least 1.")
        self.normalize = input_normalization(normalization, in_channels)
        self.module = module if isinstance(module, nn.Module) else _build(module, num_targets)
        self.multiple = multiple
        self.name = name or type(self.module).__name__

    @property
    def label(self) -> str:
        """Name in tables."""
        return self.name

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, *spatial) in [0, 1]; the context is ignored.

        Raises:
            ConfigError: The module's output holds no logits, or logits of another number of channels.
        """
        padded = pad_to_multiple(self.normalize(image), self.multiple)
        logits = _find_logits(self.module(padded), self.name)
        if logits.dim() != image.dim() or logits.shape[1] != self.num_targets:
            raise ConfigError(
                f"{self.name} turned an image of shape {tuple(image.shape)} into an output of shape {tuple(logits.shape)}; "
                f"it must be (N, {self.num_targets}, *spatial): build it with {self.num_targets} output channels."
            )
        if logits.shape[2:] != padded.shape[2:]:
            mode = "bilinear" if image.dim() == 4 else "trilinear"
            logits = functional.interpolate(logits, size=padded.shape[2:], mode=mode, align_corners=False)
        return SegmentationOutput(crop_to_size(logits, image.shape[2:]))


def _build(factory: Callable[[int], nn.Module], num_targets: int) -> nn.Module:
    """Call a factory and check what it builds."""
    module = factory(num_targets)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"module must build a torch.nn.Module, but {factory!r} built a {type(module).__name__}.")
    return module


def _find_logits(output: Any, name: str) -> Tensor:
    """Take the logits out of what a module returned."""
    found = output
    if isinstance(output, Mapping):
        found = next((output[key] for key in ("out", "logits") if key in output), None)
    elif isinstance(output, Sequence) and output:
        found = output[0]
    if not isinstance(found, Tensor):
        keys = f" with the keys {list(output)}" if isinstance(output, Mapping) else ""
        raise ConfigError(
            f"{name} returned a {type(output).__name__}{keys}; "
            "it must be a tensor of logits, a mapping with 'out' or 'logits', or a sequence that starts with it."
        )
    return found
