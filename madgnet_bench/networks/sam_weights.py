"""Weights of SAM and its descendants from files, folders and the Hugging Face hub, strictly.

Two families of names are read. Files of the ``segment-anything`` code (``sam_vit_b_01ec64.pth``, SAM-Med2D's checkpoint) hold
``image_encoder``, ``prompt_encoder`` and ``mask_decoder``; the hub's ``facebook/sam-vit-*`` hold transformers' names, which are
ours. The table of both is `_OFFICIAL_NAMES`. Files are read as safetensors, or unpickled to tensors and plain values alone: no
code of a file is ever run, and what else it holds, such as the optimiser beside SAM-Med2D's released weights, is not built.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from madgnet_bench.errors import ConfigError

__all__ = ["load_strictly", "ours_from_official", "read_sam_weights", "resize_positions"]

_FILES = ("model.safetensors", "pytorch_model.bin")

_OFFICIAL_NAMES = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"^(vision_encoder|mask_decoder\.transformer)\.layers\.(\d+)\.norm(\d)\.", r"\1.layers.\2.layer_norm\3."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(\.output_hypernetworks_mlps\.\d+|\.iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(\.output_hypernetworks_mlps\.\d+|\.iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(\.output_hypernetworks_mlps\.\d+|\.iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
)
"""From the names of the ``segment-anything`` code to ours, applied one after the other."""

_MATRIX = "prompt_encoder.shared_embedding.positional_embedding"
_SAME_MATRIX = "shared_image_embedding.positional_embedding"


def read_sam_weights(checkpoint: str) -> dict[str, Tensor]:
    """Read weights under our names.

    Args:
        checkpoint: A file (``.safetensors``, or one of torch.save: a state dict, alone or under ``model`` or ``state_dict``), a
            folder of transformers, or the id of one on the hub, which is then downloaded.

    Raises:
        ConfigError: There is no such thing, it cannot be downloaded or read, or it holds no tensors.
    """
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        found = [path / name for name in _FILES if (path / name).is_file()]
        if not found:
            raise ConfigError(f"checkpoint {checkpoint}: the folder holds none of {', '.join(_FILES)}.")
        path = found[0]
    elif not path.is_file():
        path = _download(checkpoint)
    weights = _read(path)
    if any(name.startswith("image_encoder.") for name in weights):
        weights = {ours_from_official(name): value for name, value in weights.items()}
    if _MATRIX not in weights and _SAME_MATRIX in weights:  # two names of one matrix, of which safetensors keep one
        weights[_MATRIX] = weights[_SAME_MATRIX]
    weights.pop(_SAME_MATRIX, None)
    return weights


def ours_from_official(name: str) -> str:
    """Turn a name of the ``segment-anything`` code into ours.

    >>> ours_from_official("image_encoder.blocks.3.norm1.weight")
    'vision_encoder.layers.3.layer_norm1.weight'
    """
    for pattern, replacement in _OFFICIAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def resize_positions(weights: Mapping[str, Tensor], *, grid: int, global_layers: tuple[int, ...]) -> dict[str, Tensor]:
    """Bring the position tables of an encoder to another number of patches.

    The absolute table is interpolated bilinearly. The relative tables of the layers with global attention, of length
    2 * side - 1, are interpolated linearly, which is what SAM's code does with a table of another length.

    Args:
        weights: Weights under our names.
        grid: Patches per side.
        global_layers: Numbers of the layers with global attention.
    """
    resized = dict(weights)
    table = weights.get("vision_encoder.pos_embed")
    if table is not None and table.dim() == 4 and table.shape[1:3] != (grid, grid):
        planes = functional.interpolate(table.permute(0, 3, 1, 2).float(), size=(grid, grid), mode="bilinear")
        resized["vision_encoder.pos_embed"] = planes.permute(0, 2, 3, 1).to(table.dtype)
    for layer in global_layers:
        for axis in "hw":
            name = f"vision_encoder.layers.{layer}.attn.rel_pos_{axis}"
            relative = weights.get(name)
            if relative is not None and relative.dim() == 2 and len(relative) != 2 * grid - 1:
                line = functional.interpolate(relative.T[None].float(), size=2 * grid - 1, mode="linear")
                resized[name] = line[0].T.to(relative.dtype)
    return resized


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], *, where: str, fix: str) -> None:
    """Load weights that fit name by name and size by size.

    Args:
        module: What is loaded.
        weights: By the names of the module's state dict.
        where: Where the weights come from, for the message.
        fix: What the user can do about weights that do not fit.

    Raises:
        ConfigError: Names are missing or too many, or sizes differ; the message names the first of each.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    sizes = [
        f"{name} is {_size(weights[name])} in the file and {_size(value)} in the network"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    parts = [
        f"{len(names)} {title} ({_first(names)})"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("of another size", sizes))
        if names
    ]
    if parts:
        raise ConfigError(f"{where} does not fit: of {len(expected)} tensors, {'; '.join(parts)}. {fix}")
    module.load_state_dict(dict(weights))


def _download(checkpoint: str) -> Path:
    """Fetch the weights of a hub id, or find them in the hub's cache."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint):
        raise ConfigError(
            f"checkpoint {checkpoint}: no such file or folder, nor an id of the hub such as facebook/sam-vit-base."
        )
    from huggingface_hub import hf_hub_download

    reason: Exception | None = None
    for name in _FILES:
        try:
            return Path(hf_hub_download(checkpoint, name))
        except Exception as error:  # of the network, the hub and the disk, all of one meaning here
            reason = error
    raise ConfigError(
        f"checkpoint {checkpoint}: no such file or folder here, and the hub gives none ({type(reason).__name__}); check the "
        "name and the network, or name a local folder."
    ) from reason


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors by name."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
        except UnpicklingError:
            content = torch.load(path, weights_only=False, pickle_module=_tensors_only(), map_location="cpu")
    except Exception as error:  # torch and safetensors let through whatever their readers raise
        raise ConfigError(
            f"checkpoint {path} cannot be read ({type(error).__name__}): it is damaged, or no checkpoint (a web page saved in "
            "its place?); get it again."
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(f"checkpoint {path} holds no tensors by name, neither alone nor under 'model' or 'state_dict'.")
    return dict(content)


class _NotBuilt:
    """Stands where a file has an object that is neither a tensor nor a plain value; whatever it is given is dropped."""

    def __new__(cls, *args: Any, **options: Any) -> Self:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = append


class _TensorUnpickler(pickle.Unpickler):
    """Finds what tensors are made of, and `_NotBuilt` in the place of every other class and function."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in _TENSOR_PARTS else _NotBuilt


_TENSOR_PARTS = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
"""All that may be called; torch itself resolves the types of storages."""


def _tensors_only() -> ModuleType:
    """The unpickler in the form that torch.load takes."""
    module = ModuleType("tensors_only")
    module.Unpickler = _TensorUnpickler  # type: ignore[attr-defined]
    module.load = lambda file, **options: _TensorUnpickler(file, **options).load()  # type: ignore[attr-defined]
    return module


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
