"""Encoders from timm: five feature maps, at 1/2 to 1/32 of the image's sides."""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from madgnet_bench.errors import ConfigError

__all__ = ["REDUCTIONS", "file_source", "loading_weights", "timm_encoder"]

_log = logging.getLogger(__name__)

REDUCTIONS = (2, 4, 8, 16, 32)
"""By how much each level of an encoder divides the sides of the image."""

_EXAMPLES = "resnest50d, resnet50, res2net50d, efficientnet_b0, densenet121, regnetx_002"


def timm_encoder(name: str, *, pretrained: bool = False, checkpoint: str | Path | None = None) -> tuple[nn.Module, list[int]]:
    """Build a convolutional encoder of three input channels.

    For ResNet-like encoders the first map is the stem after its last activation, before the max-pooling.

    Args:
        name: A model of timm that gives maps at the five `REDUCTIONS`, such as ``resnest50d``.
        pretrained: Load timm's published weights (most are of ImageNet), from its cache or the network.
        checkpoint: A local file of the timm model's weights (``.safetensors``, ``.pth``), with or without its classifier,
            loaded instead of downloading. It must hold every other parameter, and no more.

    Returns:
        The encoder, which maps an image (N, 3, H, W) to a list of five maps, deepest last, and the channels of those maps.
        Parameters are named as timm names them.

    Raises:
        ConfigError: The name is unknown, the encoder lacks a level, or the weights cannot be loaded.
    """
    import timm  # costs seconds

    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one such as {_EXAMPLES}."
        raise ConfigError(f"timm has no encoder {name!r}; {hint}")
    encoder = _without_weights(name)
    reductions = list(encoder.feature_info.reduction())
    missing = [str(reduction) for reduction in REDUCTIONS if reduction not in reductions]
    if missing:
        raise ConfigError(
            f"encoder {name!r} has no feature map at 1/{', 1/'.join(missing)} of the image's sides; "
            f"use one with maps at 1/2, 1/4, 1/8, 1/16 and 1/32, such as {_EXAMPLES}."
        )
    levels = tuple(reductions.index(reduction) for reduction in REDUCTIONS)
    if pretrained or checkpoint is not None:
        encoder = _with_weights(name, levels, checkpoint)
    elif len(reductions) > len(levels):
        encoder = timm.create_model(name, features_only=True, out_indices=levels)
    return encoder, list(encoder.feature_info.channels())


def _without_weights(name: str) -> Any:
    """Build an encoder of untrained weights with all the maps it offers."""
    import timm

    try:
        return timm.create_model(name, features_only=True)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"encoder {name!r} cannot give feature maps ({error}); use one such as {_EXAMPLES}.") from error


def _with_weights(name: str, levels: tuple[int, ...], checkpoint: str | Path | None) -> Any:
    """Build an encoder and load its weights, from a file or as timm finds them."""
    import timm

    with loading_weights(name, checkpoint):
        source: Any = {} if checkpoint is None else {"pretrained_cfg_overlay": file_source(name, checkpoint)}
        return timm.create_model(name, pretrained=True, features_only=True, out_indices=levels, **source)


@contextlib.contextmanager
def loading_weights(name: str, checkpoint: str | Path | None) -> Iterator[None]:
    """Load an encoder's weights inside: the hub's attempts are not reported one by one, and any failure is a `ConfigError`.

    Args:
        name: The encoder.
        checkpoint: A local file; None where the weights are downloaded or cached.

    Raises:
        ConfigError: The file is missing, or the weights cannot be loaded.
    """
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise ConfigError(f"encoder weights {checkpoint}: no such file; correct encoder_checkpoint, or leave it out.")
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    if checkpoint is None:
        _log.info("loading the pretrained weights of %s; without a network it takes a minute until the attempt ends", name)
    try:
        hub.setLevel(logging.ERROR)  # it would report each of a dozen attempts
        yield
    except Exception as error:  # of many libraries: hub, http, safetensors, pickle, torch
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 300 else f"{reason[:300]} ..."
        if checkpoint is not None:
            raise ConfigError(f"encoder weights {checkpoint} cannot be loaded into {name!r}: {reason}") from error
        raise ConfigError(
            f"the pretrained weights of encoder {name!r} cannot be loaded ({reason}); "
            "set pretrained: false for random weights, or encoder_checkpoint to a local file of these weights."
        ) from error
    finally:
        hub.setLevel(level)


def file_source(name: str, checkpoint: str | Path) -> dict[str, Any]:
    """Read a file of weights and tell timm to load them strictly, but for the classifier, which an encoder lacks."""
    from timm.models import get_pretrained_cfg, load_state_dict

    weights = load_state_dict(str(checkpoint), weights_only=True)
    described = get_pretrained_cfg(name)
    classifiers = described.classifier if described is not None else None
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers or ())
    kept = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in heads}
    return {"state_dict": kept, "num_classes": 0, "classifier": None}
