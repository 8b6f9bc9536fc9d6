"""Files to arrays: images as uint8, masks as 0 and 1, and one clear sentence for every file that cannot be used.

Rules for images: palettes are resolved, transparency is ignored (exports write it opaque, or by mistake), the EXIF
orientation is applied, colour stays colour and grey stays grey. Deeper than 8 bits (16-bit and float files), values are
stretched linearly to 0 .. 255 and clipped: between the two ends of a ``window`` where the data set has a fixed one, else
between the image's own 0.5 and 99.5 percentiles, as is usual for images without a common scale.

Rules for masks: without a threshold the file must be strictly binary; JPEG, which blurs edges, needs a threshold (127).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from madgnet_bench.catalog.datasets import FileProblem

__all__ = [
    "IMAGE_SUFFIXES",
    "JPEG_THRESHOLD",
    "read_grey_file",
    "read_image_file",
    "read_mask_file",
    "read_masks",
    "read_values_file",
    "split_part",
    "stretch",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of the files that count as images, in lower case."""

JPEG_THRESHOLD = 127
"""Above this grey value a pixel of a JPEG mask is foreground."""

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_COPY_AGAIN = "copy or download the file again"


def read_image_file(path: Path, *, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Decode an image by the rules above.

    Args:
        path: The file.
        window: Values that become 0 and 255, for files deeper than 8 bits; None stretches by percentiles.

    Returns:
        (H, W, C) uint8; C is 1 for grey files and 3 for colour files.

    Raises:
        FileProblem: The file is missing, empty, damaged, animated, 16-bit colour, or holds NaN or infinite values.
    """
    picture = _load(path)
    if picture.mode in _DEEP_MODES:
        return stretch(_finite(path, np.asarray(picture)), window=window)[..., None]
    if picture.mode in ("1", "L", "LA", "La"):
        return _values(path, picture, "L")[..., None]
    return _values(path, picture, "RGB")


def read_grey_file(path: Path, *, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Decode an image as grey: (H, W) uint8. Colour becomes luma (ITU-R 601); all else is as in `read_image_file`."""
    picture = _load(path)
    if picture.mode in _DEEP_MODES:
        return stretch(_finite(path, np.asarray(picture)), window=window)
    if picture.mode in ("1", "L", "LA", "La"):
        return _values(path, picture, "L")
    return np.asarray(Image.fromarray(_values(path, picture, "RGB")).convert("L"))


def stretch(
    values: NDArray[Any],
    *,
    window: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> NDArray[np.uint8]:
    """Map values linearly to 0 .. 255, rounded and clipped; an image of one value becomes 0.

    Args:
        values: Any shape, finite.
        window: Values that become 0 and 255.
        percentiles: Used where there is no window: the percentiles of the values that become 0 and 255.

    Example:
        >>> stretch(np.array([100, 110, 805, 1500, 4000]), window=(110, 1500)).tolist()
        [0, 0, 128, 255, 255]
    """
    scaled = values.astype(np.float64)
    low, high = window if window is not None else np.percentile(scaled, percentiles)
    if high <= low:  # one value, up to rare outliers: the full range, which shows the outliers at least
        low, high = scaled.min(), scaled.max()
    if high == low:
        return np.zeros(values.shape, np.uint8)
    return np.rint(np.clip((scaled - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def read_mask_file(path: Path, *, threshold: int | None = None, channel: int | None = None) -> NDArray[np.uint8]:
    """Decode one binary mask.

    Transparency is ignored. A grey palette counts by its colours, a coloured palette by its indices, as in label maps.

    Args:
        path: The file.
        threshold: A pixel is foreground where its value exceeds this. None demands a strictly binary file: only the
            values 0 and 1, only 0 and 255, or one of these alone.
        channel: The channel of a colour file that is the mask. None demands equal channels of a strictly binary colour
            file, and takes the luma where there is a threshold.

    Returns:
        (H, W) uint8 in {0, 1}.

    Raises:
        FileProblem: The file cannot be decoded, or is not binary by this rule; the problem names the values found.
    """
    values = _mask_values(path, _load(path), channel, exact=threshold is None)
    if threshold is not None:
        return (values > threshold).astype(np.uint8)
    top = values.max()
    if top in (0, 1, 255) and ((values == 0) | (values == top)).all():
        return (values > 0).astype(np.uint8)
    found = np.unique(values)
    shown = ", ".join(f"{value:g}" for value in found[:6])
    more = f" and {len(found) - 6} more" if len(found) > 6 else ""
    raise FileProblem(
        str(path),
        f"the mask is not binary: it holds the values {shown}{more}",
        "save it with 0 and 255 only (no smoothing, no JPEG); a map of several labels needs one file per target",
    )


def read_values_file(path: Path) -> NDArray[Any]:
    """Decode one plane of values as they are stored: a label map, or a map of 8 or 16 bits or of floats.

    Transparency and palettes as in `read_mask_file`; a colour file must have equal channels.

    Returns:
        (H, W) uint8, or of the deeper type of the file.

    Raises:
        FileProblem: The file cannot be decoded, is in colour, or holds NaN or infinite values.
    """
    return _mask_values(path, _load(path), None, exact=True)


def read_masks(root: Path, mask: str, *, read: Callable[[Path], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Decode the mask entry of a case: ``;`` separates targets, ``|`` files to unite, a final ``/`` marks a folder to unite.

    Args:
        root: Folder that the paths are relative to.
        mask: `Case.mask`.
        read: Decodes one file to (H, W) in {0, 1}.

    Returns:
        (K, H, W) uint8 in {0, 1}.

    Raises:
        FileProblem: A file cannot be used, a folder holds no image, or the files differ in size.
    """
    channels: list[NDArray[np.uint8]] = []
    for target in mask.split(";"):
        union: NDArray[np.uint8] | None = None
        for path in [path for part in target.split("|") for path in _mask_files(root, part)]:
            values = read(path)
            expected = union if union is not None else (channels[0] if channels else values)
            if values.shape != expected.shape:
                sizes = [f"{array.shape[1]} x {array.shape[0]}" for array in (values, expected)]
                problem = f"mask is {sizes[0]}, the other masks of this case are {sizes[1]}"
                raise FileProblem(str(path), problem, "export all masks of a case at the image's size")
            union = values if union is None else union | values
        assert union is not None  # _mask_files gives at least one file
        channels.append(union)
    return np.stack(channels)


def split_part(path: Path) -> tuple[Path, str]:
    """Take apart a path that names a part of a file: a target of a label map, a slice of a volume.

    Args:
        path: ``FILE::PART``, or a whole file.

    Returns:
        The file and the part; the part is empty for a whole file.

    Example:
        >>> split_part(Path("masks/n0007.bmp::cup"))[1]
        'cup'
    """
    name, _, part = path.name.partition("::")
    return path.with_name(name), part


def _mask_files(root: Path, part: str) -> list[Path]:
    """The file that a part of a mask entry names, or every image in the folder that it names."""
    if not part.endswith("/"):
        return [root / part]
    folder = root / part
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != ".")
    if not files:
        raise FileProblem(str(folder), "the folder is missing or holds no mask", "copy the masks of this case there again")
    return files


def _load(path: Path) -> Image.Image:
    """Open and decode a file, upright."""
    try:
        if path.stat().st_size == 0:
            raise FileProblem(str(path), "the file is empty (0 bytes)", _COPY_AGAIN)
        with path.open("rb") as stream, Image.open(stream) as picture:  # by path, Pillow 13 garbles TIFF files on their side
            _refuse_unsupported(path, picture)
            picture.load()
            if picture.format == "TIFF" or picture.getexif().get(0x0112, 1) == 1:  # Pillow itself turns TIFF files upright
                return picture
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise FileProblem(str(path), "the file is missing", "restore it, or remove its partner as well") from None
    except PermissionError:
        raise FileProblem(str(path), "the file may not be read", "give yourself permission to read it") from None
    except UnidentifiedImageError:
        fix = "export it as PNG, JPEG or TIFF, or copy it again"
        raise FileProblem(str(path), "not an image that can be read", fix) from None
    except Image.DecompressionBombError:
        raise FileProblem(str(path), "the image is too large to decode safely", "cut it into tiles") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise FileProblem(str(path), f"the file is truncated or damaged ({error})", _COPY_AGAIN) from None


def _refuse_unsupported(path: Path, picture: ImageFile.ImageFile) -> None:
    """Refuse what would be decoded to something else than the user sees."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a phone's MPO is a JPEG with a preview behind it
        raise FileProblem(str(path), f"holds {frames} frames or pages", "save the one that belongs to the case as a file")
    if picture.format == "BMP" and picture.mode == "1" and path.read_bytes()[28:30] != b"\1\0":
        problem = "a BMP of two colours with more than one bit per pixel, which Pillow misreads"
        raise FileProblem(str(path), problem, "save it as PNG with another program")
    deep = any(";16" in str(argument) for tile in picture.tile for argument in _arguments(tile))
    if deep and picture.mode not in _DEEP_MODES:  # Pillow would keep the upper byte only
        raise FileProblem(str(path), "16-bit colour is not supported", "save it as 8-bit colour or as 16-bit grey")


def _arguments(tile: tuple[object, ...]) -> tuple[object, ...]:
    """The decoder arguments of a Pillow tile: its last item, alone or in a tuple."""
    return tile[-1] if isinstance(tile[-1], tuple) else (tile[-1],)


def _values(path: Path, picture: Image.Image, mode: str) -> NDArray[np.uint8]:
    """The pixels, converted to a mode of 8 bits per channel."""
    try:
        return np.asarray(picture if picture.mode == mode else picture.convert(mode))
    except ValueError:
        fix = "export it as 8-bit grey or colour"
        raise FileProblem(str(path), f"colour mode {picture.mode} is not supported", fix) from None


def _mask_values(path: Path, picture: Image.Image, channel: int | None, *, exact: bool) -> NDArray[Any]:
    """The plane of a picture that is its mask, (H, W)."""
    if picture.mode in _DEEP_MODES:
        return _finite(path, np.asarray(picture))
    if picture.mode in ("1", "L", "LA", "La"):
        return _values(path, picture, "L")
    if channel is not None:
        return _values(path, picture, "RGB")[..., channel]
    colours = _values(path, picture, "RGB")
    if (colours[..., :1] == colours).all():
        return colours[..., 0]
    if picture.mode == "P":
        return np.asarray(picture)
    if exact:
        raise FileProblem(str(path), "the mask is in colour", "save it as a grey file with 0 and 255")
    return np.asarray(Image.fromarray(colours).convert("L"))


def _finite(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Refuse NaN and infinity."""
    if not np.isfinite(values).all():
        raise FileProblem(str(path), "holds NaN or infinite values", "export the file again without them")
    return values
