"""Contact sheets: a picture of several data sets, one row each, with the outlines of the references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.errors import ConfigError, DataErrors, Problem
from madgnet_bench.pictures import draw_outlines, target_colours

__all__ = ["contact_sheet"]

_INK, _PAPER, _GAP = (30, 30, 30), (255, 255, 255), 4


def contact_sheet(datasets: Sequence[SegmentationDataset], *, cases: int = 6, side: int = 128) -> Image.Image:
    """Draw one row per data set: its name, modality and targets, then cases spread evenly over its manifest.

    Images keep their aspect ratio on black. A volume shows the slice on which the reference is largest. The same call
    draws the same sheet.

    Args:
        datasets: At least one data set.
        cases: Most cases per row.
        side: Side of each picture in pixels, at least 32.

    Raises:
        ConfigError: There is no data set, or ``cases`` or ``side`` is too small.
        DataErrors: A chosen case cannot be read.
    """
    if not datasets:
        raise ConfigError("a contact sheet needs at least one data set; name one.")
    for key, value, least in (("cases", cases, 1), ("side", side, 32)):
        if value < least:
            raise ConfigError(f"contact sheet {key}={value} is too small; the smallest valid value is {least}.")
    font = ImageFont.load_default(size=max(10, side // 9))
    margin = 3 * _GAP + round(max(font.getlength(line) for dataset in datasets for line, _ in _label(dataset)))
    columns = max(min(cases, len(dataset.manifest)) for dataset in datasets)
    sheet = Image.new("RGB", (margin + columns * (side + _GAP), len(datasets) * (side + _GAP) + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for row, dataset in enumerate(datasets):
        top = _GAP + row * (side + _GAP)
        _write(pen, dataset, (_GAP, top), side, font)
        for column, case in enumerate(_spread(dataset.manifest.cases, cases)):
            sheet.paste(_picture(dataset, case, side), (margin + column * (side + _GAP), top))
    return sheet


def _label(dataset: SegmentationDataset) -> list[tuple[str, tuple[int, int, int]]]:
    """Lines of a row's label with their marker colours; black where a line has no marker."""
    colours = target_colours(len(dataset.card.targets))
    targets = [(f"    {target}", colour) for target, colour in zip(dataset.card.targets, colours, strict=True)]
    return [*((part, _INK) for part in dataset.name.split("/")), (dataset.card.modality, _INK), *targets]


def _write(
    pen: ImageDraw.ImageDraw,
    dataset: SegmentationDataset,
    corner: tuple[int, int],
    side: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write a row's label from its upper left corner, as many lines as fit."""
    left, top = corner
    step = max(10, side // 9) + _GAP
    for line, colour in _label(dataset)[: max(1, side // step)]:
        pen.text((left, top), line, fill=_INK, font=font)
        if colour != _INK:
            pen.rectangle((left + 1, top + step // 4, left + step // 2, top + 3 * step // 4), fill=colour, outline=_INK)
        top += step


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """Choose cases spread evenly over a manifest."""
    count = min(count, len(cases))
    return [cases[(2 * position + 1) * len(cases) // (2 * count)] for position in range(count)]


def _picture(dataset: SegmentationDataset, case: Case, side: int) -> Image.Image:
    """Draw one case on a black square."""
    try:
        image, mask = dataset.read_image(case), dataset.read_mask(case)
    except FileProblem as error:
        raise DataErrors(dataset.name, [error.problem]) from None
    if image.shape[:-1] != mask.shape[1:]:
        sizes = f"mask is {mask.shape[1:]}, image is {image.shape[:-1]}"
        raise DataErrors(dataset.name, [Problem(dataset.file(case.mask), sizes, "export the mask at the image's size")])
    while mask.ndim > 3:
        fullest = int(np.argmax(mask.sum(axis=(0, *range(2, mask.ndim)))))
        image, mask = image[fullest], mask[:, fullest]
    height, width = mask.shape[1:]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = np.asarray(_photo(image).resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX))
    areas = [Image.fromarray((area > 0).astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR) for area in mask]
    drawn = draw_outlines(pixels, np.stack([np.asarray(area) >= 128 for area in areas]).astype(np.uint8))
    square = Image.new("RGB", (side, side))
    square.paste(Image.fromarray(drawn), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _photo(image: NDArray[np.uint8] | NDArray[np.float32]) -> Image.Image:
    """Turn a case's image, uint8 or float32 in [0, 1], one or three channels, into a picture."""
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(image, (*image.shape[:-1], 3)).copy())
