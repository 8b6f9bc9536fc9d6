"""Files of any framework to maps of targets: masks, label maps, and probabilities as images, arrays or volumes. No torch.

A map is (K, *spatial), one channel per target. What a file may hold is chosen by the caller and never guessed:

- A mask is strictly binary: 0 and 255, 0 and 1, or bool. A JPEG mask, which is blurred at edges, is cut at 127 where the caller
  takes JPEG at all.
- A label map holds whole numbers, each of a target or of the background; a target may have several, and targets may overlap.
- A probability map is float in [0, 1], or an image in grey: 8 bits are divided by 255, 16 bits by 65535.

Arrays (.npy, or .npz with one array) are (*spatial), or (K, *spatial) with the targets in order; they are never unpickled.
Volumes keep the order of axes of their file, reversed: D, H, W. Nothing is resized or turned here.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.images import IMAGE_SUFFIXES, JPEG_THRESHOLD, read_values_file
from madgnet_bench.catalog.volumes import read_volume
from madgnet_bench.errors import ConfigError

__all__ = ["Content", "MapTarget", "map_suffixes", "read_maps", "show_size", "suffix_of"]

Content = Literal["masks", "labels", "probability"]
"""What files hold."""

_ARRAYS = frozenset({".npy", ".npz"})
_VOLUMES = frozenset({".nii", ".nii.gz"})
_JPEG = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class MapTarget:
    """A target, and how it is found in label maps.

    Attributes:
        name: Its name in tables.
        values: Its values in label maps; empty where every target has a map of its own.

    >>> MapTarget.parse("disc=1,2")
    MapTarget(name='disc', values=(1, 2))
    """

    name: str
    values: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> MapTarget:
        """Read ``NAME`` or ``NAME=VALUE,VALUE``.

        Raises:
            ConfigError: The name is empty or holds a slash, or a value is no whole number or 0, which is background.
        """
        match = re.fullmatch(r"([^=/\\\s]+)(?:=(-?\d+(?:,-?\d+)*))?", text)
        if not match:
            raise ConfigError(f"target {text!r} cannot be read; write NAME, or NAME=VALUE,VALUE with whole numbers.")
        values = tuple(int(value) for value in match[2].split(",")) if match[2] else ()
        if 0 in values:
            raise ConfigError(f"target {text!r}: the label 0 is background.")
        return cls(match[1], values)


def map_suffixes(dimensions: int) -> frozenset[str]:
    """Endings, in lower case, of the files that hold maps of 2 or 3 dimensions."""
    return _ARRAYS | (IMAGE_SUFFIXES if dimensions == 2 else _VOLUMES)


def suffix_of(path: Path) -> str:
    """The ending of a file's name as it stands there; ``.nii.gz`` counts as one.

    >>> suffix_of(Path("a.b.NII.GZ")), suffix_of(Path("a.b.png"))
    ('.NII.GZ', '.png')
    """
    return path.name[-7:] if path.name.lower().endswith(".nii.gz") else path.suffix


def read_maps(
    files: Sequence[Path],
    *,
    targets: Sequence[MapTarget],
    content: Content,
    dimensions: int,
    background: Sequence[int] = (),
    jpeg: bool = False,
) -> NDArray[Any]:
    """Read the maps of one case.

    Args:
        files: One file per target, or one for all: a label map, or an array with a channel per target.
        targets: At least one.
        content: What the files hold.
        dimensions: 2 or 3.
        background: Values of label maps that are background, beside 0.
        jpeg: Masks may be JPEG.

    Returns:
        (K, *spatial): bool, or float32 or float64 in [0, 1] where the content is probability.

    Raises:
        FileProblem: A file cannot be used as it is.
        ConfigError: nibabel is not installed.
    """
    arrays = []
    for file in files:
        values = _decode(file, content, jpeg=jpeg)
        channels = len(targets) if len(files) == 1 and content != "labels" else 1
        arrays.append(_with_channels(file, values, channels=channels, dimensions=dimensions))
    for file, values in zip(files, arrays, strict=True):
        if values.shape[1:] != arrays[0].shape[1:]:
            sizes = f"is {show_size(values.shape[1:])}, {files[0].name} of another target is {show_size(arrays[0].shape[1:])}"
            raise FileProblem(str(file), sizes, "save the maps of all targets of a case at one size")
    if content == "labels":
        return _split_labels(files[0], arrays[0][0], targets, background)
    convert = _probability if content == "probability" else _binary
    return np.concatenate([convert(file, values) for file, values in zip(files, arrays, strict=True)])


def show_size(shape: Sequence[int]) -> str:
    """Write a size as width x height (x depth)."""
    return " x ".join(str(side) for side in reversed(shape))


def _decode(file: Path, content: Content, *, jpeg: bool) -> NDArray[Any]:
    """The numbers of a file, of any shape, finite."""
    suffix = suffix_of(file).lower()
    if suffix in _ARRAYS:
        return _array(file)
    if suffix in _VOLUMES:
        return read_volume(file, axes=None)
    if suffix in _JPEG and not (jpeg and content == "masks"):
        raise FileProblem(str(file), "JPEG changes the values", "save it without loss, as PNG")
    values = read_values_file(file)
    return values > JPEG_THRESHOLD if suffix in _JPEG else values


def _array(file: Path) -> NDArray[Any]:
    """Load an array without running code of the file."""
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded as members:
                if len(members.files) != 1:
                    held = ", ".join(members.files[:6]) or "none"
                    raise FileProblem(str(file), f"holds {len(members.files)} arrays ({held})", "save one array per file")
                loaded = members[members.files[0]]
    except FileNotFoundError:
        raise FileProblem(str(file), "the file is missing", "restore it, or remove its partner as well") from None
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            problem = "holds pickled Python objects, or is no array: not opened, since that may run code"
            raise FileProblem(str(file), problem, "save a plain array of numbers") from None
        reason = " ".join(str(error).split())[:100]
        raise FileProblem(str(file), f"the file is truncated or damaged ({reason})", "save or copy the file again") from None
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "biuf" or loaded.size == 0:
        kind = loaded.dtype if isinstance(loaded, np.ndarray) and loaded.size else "no number"
        raise FileProblem(str(file), f"holds {kind}", "save an array of bool, integers or floats")
    if loaded.dtype.kind == "f" and not np.isfinite(loaded).all():
        raise FileProblem(str(file), "holds NaN or infinite values", "look for where they come from; then predict again")
    return loaded


def _with_channels(file: Path, values: NDArray[Any], *, channels: int, dimensions: int) -> NDArray[Any]:
    """Values as (channels, *spatial)."""
    if values.ndim == dimensions and channels == 1:
        return values[None]
    if values.ndim == dimensions + 1 and values.shape[0] == channels:
        return values
    sides = ("H, W", "D, H, W")[dimensions - 2]
    expected = f"({sides})" if channels == 1 else f"({channels}, {sides})"
    if channels == 1:
        fix = f"save {expected}; for several targets or label values, name them with --target"
    else:
        fix = f"save {expected}, or a folder per target, or a label map with --target NAME=VALUE"
    raise FileProblem(str(file), f"has the shape {values.shape}, not {expected}", fix)


def _binary(file: Path, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Strictly binary values as bool."""
    if values.dtype == bool:
        return values
    top = values.max()
    if top in (0, 1, 255) and ((values == 0) | (values == top)).all():
        return values > 0
    fix = "for a label map: --target NAME=VALUE; for predicted probabilities: --maps probability; else save 0 and 255"
    raise FileProblem(str(file), f"is not binary: {_some(np.unique(values))}", fix)


def _probability(file: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Values in [0, 1], by the depth of the file."""
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype.kind in "iu":
        if suffix_of(file).lower() not in IMAGE_SUFFIXES:
            raise FileProblem(str(file), f"holds integers ({values.dtype}), not probabilities", "save floats in [0, 1]")
        values = values / np.float32(255 if values.dtype == np.uint8 else 65535)
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        fix = "save probabilities: apply the sigmoid or softmax first, and clip what rounding adds"
        raise FileProblem(str(file), f"holds values from {low:g} to {high:g}, outside [0, 1]", fix)
    return values.astype(np.float64 if values.dtype.itemsize > 4 else np.float32)


def _split_labels(
    file: Path, values: NDArray[Any], targets: Sequence[MapTarget], background: Sequence[int]
) -> NDArray[np.bool_]:
    """One channel per target of a label map, (K, *spatial)."""
    known = [0, *background, *(value for target in targets for value in target.values)]
    strange = np.unique(values[~np.isin(values, known)])
    if strange.size:
        fix = "name it with --target NAME=VALUE, or with --background VALUE where it counts as none"
        raise FileProblem(str(file), f"label that no target has: {_some(strange)}", fix)
    return np.stack([np.isin(values, target.values) for target in targets])


def _some(values: NDArray[Any]) -> str:
    """The first of some values, in words."""
    more = f" and {len(values) - 6} more" if len(values) > 6 else ""
    return "it holds " + ", ".join(f"{value:g}" for value in values[:6]) + more
