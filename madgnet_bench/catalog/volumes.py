"""NIfTI files to arrays: volumes, slices, their sizes and spacings, and one clear sentence for every file that cannot be used.

A volume is (D, H, W). With ``axes="LPS"`` its axes run towards superior, posterior and left, as radiologists look at it,
whatever the order in the file: the header's affine decides. With ``axes=None`` the order of the file is kept, reversed: D is
the third axis of the file. That is for stacks whose slices are oblique to the body, as in cardiac imaging.

The volumes decoded last are remembered, because their slices are asked for one by one. This module needs nibabel, which is
imported only when a file is read.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.errors import ConfigError

__all__ = ["VolumeHeader", "check_labels", "find_volume", "read_affine", "read_header", "read_slice", "read_volume"]

_SUFFIXES = (".nii.gz", ".nii")
_COPY_AGAIN = "copy or download the file again"
_DECODING = threading.Lock()  # threads that ask for slices of one volume wait for the first to decode it


class VolumeHeader(NamedTuple):
    """What the header of a volume says.

    Attributes:
        shape: Voxels along D, H and W.
        spacing: Millimetres per voxel along D, H and W.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


def find_volume(root: Path, stem: str) -> str | None:
    """The path, relative to a folder, of the NIfTI file with this stem, compressed or not; None where there is none."""
    return next((stem + suffix for suffix in _SUFFIXES if (root / (stem + suffix)).is_file()), None)


def read_header(path: Path, *, axes: str | None = "LPS") -> VolumeHeader:
    """Read the size and the spacing of a volume; its voxels are not decoded.

    Args:
        path: The file.
        axes: See the module.

    Raises:
        FileProblem: The file is missing, empty, damaged, or not one volume.
        ConfigError: nibabel is not installed.
    """
    return _header(path, *_stamp(path), axes)


def read_affine(path: Path) -> NDArray[np.float64]:
    """Read where a volume lies: (4, 4), from its voxels, in the order of the file, to millimetres.

    Raises:
        FileProblem: As in `read_header`.
        ConfigError: nibabel is not installed.
    """
    _stamp(path)
    return np.asarray(_open(path).affine, np.float64)


def read_volume(path: Path, *, axes: str | None = "LPS") -> NDArray[Any]:
    """Decode a volume: (D, H, W), read-only, of the file's own type, or float32 where it is scaled.

    Args:
        path: The file.
        axes: See the module.

    Raises:
        FileProblem: The file is missing, empty, truncated, not one volume, or holds NaN or infinite values.
        ConfigError: nibabel is not installed.
    """
    stamp = _stamp(path)
    with _DECODING:
        return _decoded(path, *stamp, axes)


def read_slice(path: Path, index: int, *, axes: str | None = "LPS") -> NDArray[Any]:
    """Decode one slice of a volume: (H, W), read-only.

    Args:
        path: The file.
        index: Position along D, from 0.
        axes: See the module.

    Raises:
        FileProblem: As in `read_volume`, or the volume has no such slice.
        ConfigError: nibabel is not installed.
    """
    volume = read_volume(path, axes=axes)
    if not 0 <= index < len(volume):
        raise FileProblem(str(path), f"has {len(volume)} slices, slice {index} is asked for", "list the data set again")
    return volume[index]


def check_labels(path: Path, values: NDArray[Any], *, known: Sequence[int]) -> NDArray[Any]:
    """Return a label map, refusing values that its data set does not define.

    Args:
        path: Its file, for the message.
        values: Any shape.
        known: The values that it may hold.

    Raises:
        FileProblem: It holds another value; the problem names the first ones.
    """
    strange = ~np.isin(values, known)
    if strange.any():
        found = np.unique(values[strange])
        shown = ", ".join(f"{value:g}" for value in found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")
        defined = ", ".join(map(str, known))
        fix = "copy the label map again as published: no smoothing, no JPEG, no renumbering"
        raise FileProblem(str(path), f"holds the label values {shown}; only {defined} are defined", fix)
    return values


def _stamp(path: Path) -> tuple[int, int]:
    """Time of change and size, so that a file that was replaced is read again."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileProblem(str(path), "the file is missing", "restore it, or remove its partner as well") from None
    if status.st_size == 0:
        raise FileProblem(str(path), "the file is empty (0 bytes)", _COPY_AGAIN)
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _header(path: Path, changed: int, size: int, axes: str | None) -> VolumeHeader:
    image = _open(path)
    order = _order(path, image, axes)
    shape = [0, 0, 0]
    spacing = [0.0, 0.0, 0.0]
    for axis in range(3):
        shape[2 - int(order[axis, 0])] = int(image.shape[axis])
        spacing[2 - int(order[axis, 0])] = float(image.header.get_zooms()[axis])
    return VolumeHeader((shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2]))


@lru_cache(maxsize=4)
def _decoded(path: Path, changed: int, size: int, axes: str | None) -> NDArray[Any]:
    from nibabel.orientations import apply_orientation

    image = _open(path)
    order = _order(path, image, axes)
    try:
        values = np.asarray(image.dataobj).reshape(image.shape[:3])
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FileProblem(str(path), f"the file is truncated or damaged ({error})", _COPY_AGAIN) from None
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise FileProblem(str(path), "holds NaN or infinite values", "export the file again without them")
    volume = np.ascontiguousarray(apply_orientation(values, order).transpose(2, 1, 0))
    volume.flags.writeable = False
    return volume


def _open(path: Path) -> Any:
    """Open a file of one volume; voxels are read later."""
    try:
        import nibabel
    except ModuleNotFoundError:
        raise ConfigError("NIfTI volumes need nibabel: pip install 'madgnet-bench[volumes]'.") from None
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path, mmap=False)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise FileProblem(str(path), f"not a NIfTI file that can be read ({error})", _COPY_AGAIN) from None
    if len(image.shape) < 3 or any(side != 1 for side in image.shape[3:]) or 0 in image.shape:
        sizes = " x ".join(map(str, image.shape))
        raise FileProblem(str(path), f"is not one volume but {sizes}", "keep the files of single frames, not the series")
    return image


def _order(path: Path, image: Any, axes: str | None) -> NDArray[Any]:
    """Which axis of the result each axis of the file becomes, and in which direction: (3, 2), as nibabel writes it."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    if axes is None:
        return np.array([[0, 1], [1, 1], [2, 1]])
    stored = io_orientation(image.affine)
    if np.isnan(stored).any():
        raise FileProblem(str(path), "its affine does not tell the orientation", _COPY_AGAIN)
    return ornt_transform(stored, axcodes2ornt(tuple(axes)))
