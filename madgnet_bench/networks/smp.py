"""Any architecture of segmentation-models-pytorch with any encoder of timm, under the contract of this suite.

P. Iakubovskii, segmentation-models-pytorch, 2019, MIT licence. Papers of the architectures:
Unet, arXiv 1505.04597; UnetPlusPlus, 1807.10165; DeepLabV3Plus, 1802.02611; FPN, 1612.03144; MAnet, DOI
10.1109/ACCESS.2020.3025372; UPerNet, 1807.10221; Segformer, 2105.15203; DPT, 2103.13413.

Changes from the papers: those of the library, above all timm's encoders in the place of the papers' own.

Changes from the library:
    - Encoders are timm's wherever timm has one of that name, also where the library has its own, and their images are
      normalised as the encoder's weights expect it.
    - Images of any size: sides are padded to multiples of the encoder's coarsest stride inside, and logits cropped.
      Transformers built for one size take others: their position embeddings are interpolated, or their windows padded.
    - A transformer's classifier and last normalisation, which no decoder sees, are removed: they would never be trained.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from madgnet_bench.contracts import Context, SegmentationOutput
from madgnet_bench.errors import ConfigError, InputError, nearest
from madgnet_bench.layers.normalization import IMAGENET_MEAN, IMAGENET_STD, InputNormalization
from madgnet_bench.networks.encoders import file_source, loading_weights
from madgnet_bench.networks.wrapper import WrappedNetwork

__all__ = ["SMPNetwork", "weights_tag"]

_OWN = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs")
"""Arguments of an architecture that the wrapper sets, or that would break the contract."""

_SIZE_OPTIONS: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True})
"""How transformers of timm that are built for one image size are told to take others."""


_REMEDIES = {
    "more than 1 value per channel": "its batch normalisation needs at least two images per batch; drop a last batch of one",
    "Output size is too small": "its poolings need larger ones, of at least 128 pixels a side",
}
"""What to do, by what an architecture complains of."""


class SMPNetwork(WrappedNetwork):
    """An architecture of segmentation-models-pytorch.

    Args:
        num_targets: Number of binary target channels.
        architecture: Name of the class, such as ``Unet``, ``UnetPlusPlus``, ``DeepLabV3Plus``, ``FPN``, ``MAnet``, ``UPerNet``,
            ``Segformer`` or ``DPT``. Most need a hierarchical encoder, with maps at 1/4 to 1/32; DPT needs a plain transformer.
        encoder: A model of timm, with or without the tag of its weights (``convnext_tiny.fb_in1k``), or one that only the
            library has: the Mix Transformers ``mit_b0`` to ``mit_b5``, whose licence is non-commercial.
        pretrained: Start from the encoder's published weights.
        encoder_checkpoint: Local file of those weights, instead of downloading them.
        in_channels: Image channels; an image of one channel is repeated. At another number than three, all channels are
            normalised by the average of the encoder's means and deviations.
        options: Further arguments of the architecture, such as ``decoder_channels`` or ``encoder_output_stride``.

    Raises:
        ConfigError: There is no such architecture, encoder or option, they do not fit together, the encoder takes images of one
            size only, or its weights cannot be loaded.
    """

    def __init__(
        self,
        num_targets: int = 1,
        *,
        architecture: str = "Unet",
        encoder: str = "resnet34",
        pretrained: bool = False,
        encoder_checkpoint: str | Path | None = None,
        in_channels: int = 3,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if in_channels < 1:
            raise ConfigError(f"in_channels must be at least 1, not {in_channels}.")
        build = _architecture(architecture)
        chosen = _check_options(build, dict(options or {}))
        name = _encoder_name(encoder)
        arguments = {"in_channels": in_channels, "classes": max(num_targets, 1), **chosen}  # the base refuses 0
        module = _build(build, name, arguments, pretrained=pretrained, checkpoint=encoder_checkpoint)
        super().__init__(num_targets, module=module, in_channels=in_channels, multiple=_multiple(module))
        self.normalize = _normalization(name, in_channels)
        weights = " pretrained" if pretrained or encoder_checkpoint is not None else ""
        changes = "".join(f" {key}={value}" for key, value in sorted(chosen.items()))
        self.name = f"smp.{architecture} {encoder}{weights}{changes}"

    def forward(self, image: Tensor, *, context: Context | None = None) -> SegmentationOutput:
        """Segment images (N, C, H, W) in [0, 1]; the context is ignored.

        Raises:
            InputError: In training mode, batch normalisation finds one value per channel; or a pooling leaves none (PAN below
                128 pixels a side).
        """
        try:
            return super().forward(image)
        except (RuntimeError, ValueError) as error:
            remedy = next((remedy for part, remedy in _REMEDIES.items() if part in str(error)), None)
            if remedy is None:
                raise
            raise InputError(f"{self.name} cannot be applied to images {tuple(image.shape)}: {remedy}") from error


def weights_tag(encoder: str) -> str:
    """Tell the tag of the weights that ``pretrained`` would load for an encoder of timm or of the library.

    Args:
        encoder: Its name; one with a tag keeps it.

    Returns:
        Such as ``a1_in1k``; empty where there are no published weights. The library's own encoders were trained on ImageNet.
    """
    import timm

    name, _, tag = encoder.removeprefix("tu-").partition(".")
    if tag:
        return tag
    if not timm.is_model(name):
        return "in1k"
    described = _described(f"tu-{name}")
    return (described.tag or "") if described is not None else ""


def _architecture(name: str) -> type[nn.Module]:
    """Find a class of the library."""
    import segmentation_models_pytorch as smp  # costs seconds

    base = smp.base.SegmentationModel
    known = {key: value for key, value in vars(smp).items() if isinstance(value, type) and issubclass(value, base)}
    if name not in known:
        raise ConfigError(f"segmentation-models-pytorch has no architecture {name!r}; {nearest(name, sorted(known))}")
    return known[name]


def _check_options(build: type[nn.Module], options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that the architecture does not have, or that the wrapper sets."""
    known = [name for name in inspect.signature(build).parameters if name not in _OWN]
    for name in options:
        if name not in known:
            raise ConfigError(f"{build.__name__} has no option {name!r}; {nearest(name, known)}")
    return options


def _encoder_name(encoder: str) -> str:
    """Name an encoder as the library does: timm's begin with ``tu-``."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    plain = encoder.removeprefix("tu-")
    name, _, tag = plain.partition(".")
    if timm.is_model(name):
        tags = [known.partition(".")[2] for known in timm.list_models(f"{name}.*", pretrained=True)]
        if tag and tag not in tags:
            raise ConfigError(f"timm has no weights {tag!r} of encoder {name!r}; {nearest(tag, tags)}")
        return f"tu-{plain}"
    own = [name for name in get_encoder_names() if name.startswith("mit_b")]
    if plain in own:
        return plain
    hint = nearest(plain, [*timm.list_models(), *own])
    hint = hint if hint.startswith("did") else "use one such as resnet34, convnext_tiny, pvt_v2_b2 or mit_b2."
    raise ConfigError(f"neither timm nor segmentation-models-pytorch has an encoder {encoder!r}; {hint}")


def _build(
    build: type[nn.Module], name: str, arguments: dict[str, Any], *, pretrained: bool, checkpoint: str | Path | None
) -> Any:
    """Build an architecture, with the encoder's weights where they are asked for.

    Raises:
        ConfigError: It cannot be built on this encoder, or the weights cannot be loaded.
    """
    plain = name.removeprefix("tu-")
    is_dpt = build.__name__ == "DPT"
    if is_dpt and plain == name:
        raise ConfigError(f"DPT takes encoders of timm, not {name!r}; use a plain transformer such as vit_base_patch16_224.")
    extra = {**_size_option(name), **({"num_classes": 0} if is_dpt else {})}
    arguments = {"encoder_name": name, **arguments, **extra}
    try:
        module: Any = _construct(build, arguments)
    except _MISFITS as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{build.__name__} cannot be built on encoder {plain!r} ({reason}); use a hierarchical encoder such as resnet34, "
            "convnext_tiny or pvt_v2_b2 (for DPT a plain transformer such as vit_base_patch16_224), or correct the options."
        ) from error
    if not pretrained and checkpoint is None:
        return module
    with loading_weights(plain, checkpoint):
        if checkpoint is None:
            return _construct(build, arguments, weights="imagenet" if plain == name else True)
        if plain != name:
            return _construct(build, {**arguments, "pretrained_cfg_overlay": file_source(plain, checkpoint)}, weights=True)
        from timm.models import load_state_dict

        module.encoder.load_state_dict(load_state_dict(str(checkpoint), weights_only=True))
        return module


_MISFITS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What the library and timm raise about what does not fit together."""


def _construct(build: type[nn.Module], arguments: dict[str, Any], *, weights: str | bool | None = None) -> nn.Module:
    """Call an architecture's class; a plain transformer loses what no decoder sees, a decoder what it does not apply."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Encoder does not have prefix tokens")  # it falls back by itself
        module: Any = build(encoder_weights=weights, **arguments)
    if arguments.get("decoder_attention_type"):  # of a block without a skip it is never applied, so it could not be trained
        blocks = module.decoder.blocks
        (list(blocks.values()) if isinstance(blocks, nn.ModuleDict) else blocks)[-1].attention1 = nn.Identity()
    if "num_classes" in arguments:
        module.encoder.model.prune_intermediate_layers(module.encoder._output_indices, prune_norm=True, prune_head=True)
    return module


def _multiple(module: Any) -> int:
    """Of what the sides must be multiples.

    Raises:
        ConfigError: DPT meets a transformer whose maps it cannot bring to 1/4, 1/8 and so on.
    """
    strides: list[int] | None = getattr(module.encoder, "output_strides", None)
    if strides is None:
        return module.encoder.output_stride
    wanted = [2 ** (level + 2) for level in range(len(strides))]
    if any(max(pair) % min(pair) for pair in zip(strides, wanted, strict=True)):
        raise ConfigError(
            f"DPT needs maps at a power of two of the image's sides, and encoder {module.encoder.name!r} has them at "
            f"1/{strides[0]}; use one with patches of 8, 16 or 32 pixels, such as vit_base_patch16_224."
        )
    return max(*strides, *wanted)


def _size_option(name: str) -> dict[str, Any]:
    """What a transformer of timm that is built for one image size must be told to take others; empty for other encoders.

    Raises:
        ConfigError: It cannot take others.
    """
    described = _described(name)
    if described is None or not described.fixed_input_size:
        return {}
    import timm
    import torch

    plain = name.removeprefix("tu-")
    for option in _SIZE_OPTIONS:
        try:
            with torch.device("meta"):
                timm.create_model(plain, **option)
            return option
        except TypeError:  # it has no such option
            continue
    raise ConfigError(
        f"encoder {plain!r} takes images of one size only; use one without such a limit: resnet34, convnext_tiny, pvt_v2_b2, "
        "swin_tiny_patch4_window7_224, or for DPT vit_base_patch16_224."
    )


def _described(name: str) -> Any:
    """What timm knows of its weights of an encoder; None for the library's own encoders, and where there are none."""
    import timm

    return timm.models.get_pretrained_cfg(name.removeprefix("tu-")) if name.startswith("tu-") else None


def _normalization(name: str, in_channels: int) -> InputNormalization:
    """Normalise images as the weights of an encoder expect it; ImageNet's values where timm tells none."""
    described = _described(name)
    mean, std = (described.mean, described.std) if described is not None else (IMAGENET_MEAN, IMAGENET_STD)
    if in_channels != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return InputNormalization(in_channels, mean=mean, std=std)
