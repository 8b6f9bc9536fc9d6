"""The weights of MADGNet (arXiv 2405.06284) as its authors release them, for our `MADGNet`.

A released file holds, under ``model_state_dict``, the weights by the names of the released code. They are read with torch's
restricted unpickler and never otherwise: a pickle can run any code. A file that holds more than tensors and plain values is
refused, with what it holds; convert such a file once, where you trust it (its classes must be importable there)::

    import torch

    everything = torch.load("model_weight(EPOCH 200).pth.tar", map_location="cpu", weights_only=False)  # runs the file's code
    torch.save({"model_state_dict": everything["model_state_dict"]}, "converted.pth")

The released encoders bear timm's names and shapes, parameter by parameter: ResNeSt-50 those of ``resnest50d``, ResNet-50 those
of ``resnet50`` and Res2Net-50 v1b those of ``res2net50d``. That is read in the released code; which of the released files hold
another encoder than ResNeSt-50, if any, is not known to us.

The weights do not tell the network's ``min_resolution`` and ``normalization``, nor, without their ``dct_weight_*`` buffers,
its ``frequencies`` (above 0) and ``selection``: these must be set as they were in training.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from madgnet_bench.errors import ConfigError
from madgnet_bench.layers.frequency import FrequencyStatistics

__all__ = ["convert_released_weights", "read_released_weights"]

_KEY = "model_state_dict"

_BASIS = re.compile(r"(^|\.)dct_weight_\d+$")

_RELEASED_NAMES = (
    (re.compile(r"^(skip_connection|decoder_stage|sub_decoder_stage)\.(\d+)"), lambda m: f"{m[1]}{int(m[2]) + 1}"),
    (re.compile(r"(\.attention_layer\.multi_frequency_branches\.\d+)\."), r"\1.0."),
    (re.compile(r"(\.attention_layer)\.multi_spatial_branches\.(\d+)\.attention\."), r"\1.multi_frequency_branches_conv1.\2."),
    (re.compile(r"(\.attention_layer)\.multi_spatial_branches\.(\d+)\.(alpha|beta)$"), r"\1.\3_list.\2"),
    (re.compile(r"(\.attention_layer)\.expansions\."), r"\1.multi_frequency_branches_conv2."),
)
"""From our names to the released ones, applied one after the other."""

_OTHER_ENCODER = "another encoder: set encoder (released: resnest50d, resnet50 or res2net50d)"

_CAUSES = (
    (r"^feature_encoding\.", _OTHER_ENCODER),
    (r"\.multi_scale_branches\.", "another S: set scales"),
    (r"\.multi_frequency_branches\.0\.", "attention with or without frequencies: set frequencies (0, or 1 to 32)"),
    (r"\.multi_frequency_branches_conv1\.0\.", "attention without MSSA: released weights need spatial_attention: true"),
    (r"\.output_(distance|boundary)_conv\.", "region maps only on one side: released weights need supervision: multi_task"),
)
"""Parts of the names of parameters that are missing or too many, and the likely cause."""

_CAUSES_OF_SHAPES = (
    (r"^feature_encoding\.", _OTHER_ENCODER),
    (r"\.attention_layer\.", "other channels per scale: set min_channels"),
    (r"\.output_\w+_conv\.", "another number of classes: set num_targets"),
)


def read_released_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the ``model_state_dict`` of a released file, without ever running code of the file.

    Args:
        path: The file, such as ``model_weight(EPOCH 200).pth.tar``.

    Returns:
        The weights as they are named in the file, on the CPU.

    Raises:
        ConfigError: There is no such file; it is no checkpoint or damaged; it holds objects that are not loaded (named in the
            message); it lacks ``model_state_dict``, or that holds something else than tensors.
    """
    where = f"released weights {path}"
    if not Path(path).is_file():
        raise ConfigError(f"{where}: no such file; correct checkpoint, or leave it out.")
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch lets through whatever its readers of zip, tar and pickle files raise
        refused = _refused_globals(path, error)
        if refused:
            raise ConfigError(
                f"{where} are not loaded, as the file holds {', '.join(refused)}: more than tensors and plain values, and such "
                f"objects can run code. If you trust the file, convert it once: torch.load it with weights_only=False, and "
                f"torch.save only {{'{_KEY}': ...}} (docs/released_checkpoints.md)."
            ) from error
        raise ConfigError(
            f"{where} cannot be read ({_first_reason(error)}): the file is truncated, damaged or no checkpoint of torch.save "
            "(a web page saved in its place?); get it again."
        ) from error
    if not isinstance(content, Mapping) or _KEY not in content:
        found = f"the keys {_first(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise ConfigError(
            f"{where} hold {found}, not {_KEY!r}: not a file of the released code. "
            "A run of this suite is loaded by naming its run folder, or with --ckpt_path; "
            f"save a bare state dict as {{'{_KEY}': state_dict}}."
        )
    weights = content[_KEY]
    named = isinstance(weights, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items())
    if not named:
        raise ConfigError(f"{where}: {_KEY!r} must hold tensors by name, and holds something else; convert the file again.")
    return dict(weights)


def convert_released_weights(
    weights: Mapping[str, Tensor], network: nn.Module, *, where: str = "released weights"
) -> dict[str, Tensor]:
    """Give released weights the names of our network, strictly.

    A leading ``module.`` and the ``dct_weight_*`` buffers are dropped; all else must correspond one to one, with equal shapes.

    Args:
        weights: A released state dict.
        network: The `MADGNet` that is to have them, built as its ``checkpoint`` demands; it is not changed.
        where: What the messages call the weights.

    Returns:
        A state dict that ``network.load_state_dict`` takes, of the same tensors.

    Raises:
        ConfigError: Weights are missing, too many or of other shapes; the message names the first and the likely cause.

    Warns:
        UserWarning: The file's cosine bases are not those of the network: the outputs will differ from the released network's.
    """
    bare = {name.removeprefix("module."): value for name, value in weights.items()}
    if len(bare) != len(weights):
        raise ConfigError(f"{where} hold the same name with and without a leading 'module.'; save one network's state dict.")
    bases = {name: value for name, value in bare.items() if _BASIS.search(name)}
    given = {name: value for name, value in bare.items() if name not in bases}
    ours = network.state_dict()
    released = {_released_name(name): name for name in ours}
    missing = [name for name in released if name not in given]
    unexpected = [name for name in given if name not in released]
    shapes = {
        name: f"{name} {tuple(given[name].shape)} (network: {tuple(ours[own].shape)})"
        for name, own in released.items()
        if name in given and given[name].shape != ours[own].shape
    }
    if missing or unexpected or shapes:
        found = {"missing": missing, "unexpected": unexpected, "of another shape": list(shapes.values())}
        lines = [f"{len(names)} {what}: {_first(names)}" for what, names in found.items() if names]
        causes = _likely_causes([*missing, *unexpected], _CAUSES) + _likely_causes(shapes, _CAUSES_OF_SHAPES)
        causes = list(dict.fromkeys(causes))
        if not causes or len(missing) == len(released):
            causes = ["not the weights of a released MADGNet"]
        raise ConfigError(f"{where} do not fit the network: {'; '.join(lines)}. Likely cause: {'; or '.join(causes)}.")
    _warn_of_other_bases(bases, network, where)
    return {own: given[name] for name, own in released.items()}


def _released_name(name: str) -> str:
    """The released name of one of our parameters or buffers."""
    for pattern, replacement in _RELEASED_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _likely_causes(names: Collection[str], table: Collection[tuple[str, str]]) -> list[str]:
    """Every cause of the table that a name speaks for, once."""
    return [cause for pattern, cause in table if any(re.search(pattern, name) for name in names)]


def _warn_of_other_bases(bases: Mapping[str, Tensor], network: nn.Module, where: str) -> None:
    """Compare the file's bases, where it has them, with the network's: no parameter's shape depends on K or the selection."""
    modules = {_released_name(name): module for name, module in network.named_modules()}
    planes_of: dict[str, dict[int, Tensor]] = {}
    for name, planes in bases.items():
        branch, _, number = name.rpartition(".dct_weight_")
        planes_of.setdefault(branch, {})[int(number)] = planes
    for branch, numbered in planes_of.items():
        statistics = getattr(modules.get(branch.partition(".multi_frequency_branches.")[0]), "statistics", None)
        if not _are_bases(numbered, statistics):
            warnings.warn(
                f"{where} were trained with other cosine bases ({len(numbered)} per scale) than the network has: "
                "set frequencies and selection as in training, or the outputs will not be the released network's.",
                stacklevel=3,
            )
            return


def _are_bases(planes: Mapping[int, Tensor], statistics: nn.Module | None) -> bool:
    """Whether planes (channels, grid, grid), by number, are all the bases of the network's statistics."""
    if not isinstance(statistics, FrequencyStatistics) or set(planes) != set(range(statistics.frequencies)):
        return False
    vertical, horizontal = statistics.cosines
    for number, plane in planes.items():
        basis = torch.outer(vertical[number], horizontal[number])
        if plane.shape[1:] != basis.shape:
            return False
        if not (basis.is_meta or plane.is_meta or torch.allclose(plane[0].to(basis), basis, atol=1e-3 / statistics.grid)):
            return False
    return True


def _refused_globals(path: str | Path, error: Exception) -> list[str]:
    """Name the classes and functions for which torch has refused a file; none if it failed for another reason."""
    named = re.search(r"\bGLOBAL (\S+)", str(error))
    if not isinstance(error, UnpicklingError) or named is None:
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path))) or [named[1]]
    except Exception:  # it reads zip files only; older ones are refused at the first global
        return [named[1]]


def _first_reason(error: Exception) -> str:
    """What torch says in one sentence, without its advice to load the file unsafely."""
    _, found, reason = str(error).partition("WeightsUnpickler error:")
    text = " ".join((reason if found else str(error)).split())
    sentence = re.split(r"\. |Check the documentation", text, maxsplit=1)[0].strip()
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__


def _first(names: Collection[Any], shown: int = 4) -> str:
    """The first names, and how many more there are."""
    text = ", ".join(str(name) for name in list(names)[:shown]) or "none"
    return f"{text} and {len(names) - shown} more" if len(names) > shown else text
