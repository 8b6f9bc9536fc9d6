"""MoNuSeg 2018 challenge: nuclei in H&E tissue, outlined in XML files of Aperio ImageScope."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from madgnet_bench.catalog.cards import DataCard
from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.base import Listing, Reader, paired_entries
from madgnet_bench.catalog.readers.places import find_place

__all__ = ["Monuseg2018", "fill_outlines", "read_outlines"]

_TRAINING, _TEST = "MoNuSeg 2018 Training Data", "MoNuSegTestData"
_IMAGES, _OUTLINES = "Tissue Images", "Annotations"
_SUFFIXES = (".tif", ".tiff", ".png")


class Monuseg2018(Reader):
    """Reads the official archives; masks are drawn from the outlines, all nuclei united."""

    card = DataCard(
        name="monuseg2018",
        title="MoNuSeg 2018 challenge, training and test set",
        modality="microscopy",
        targets=("nucleus",),
        citation="Kumar et al., A dataset and a technique for generalized nuclear segmentation for computational pathology, "
        "IEEE TMI 36:1550-1560 (2017); Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39:1380-1391 "
        "(2020).",
        licence="CC BY-NC-SA 4.0; as a data card and the page of the sister challenge state",
        url="https://monuseg.grand-challenge.org/Data/",
        expected_cases=51,
        layout=f"{_TRAINING}/{_IMAGES}/<name>.tif with {_TRAINING}/{_OUTLINES}/<name>.xml, and {_TEST}/<name>.tif with "
        "<name>.xml. A subset is fine.",
        split_rule="Official: the training archive is train, the test archive is test.",
        traps=(
            "The challenge trained on 30 images; today's training archive holds 37. The test set has 14.",
            "A pixel is nucleus where its centre lies inside an outline; tools that draw the border as well give masks that "
            "are half a pixel wider.",
            "Outlines of fewer than three points occur and are left out.",
            "monuseg2018_test has images of the test set, with masks that were rendered elsewhere.",
            "Lists named MoNuSeg2018 in other papers mix in images of other sets: see monuseg2018_mixture.",
        ),
    )

    def list_entries(self, folder: Path) -> Listing:
        """List the archives that are present; the first three parts of a TCGA name are the patient."""
        training = [find_place(folder, f"{_TRAINING}/{kind}", kind) for kind in (_IMAGES, _OUTLINES)]
        test = find_place(folder, _TEST)
        parts: list[tuple[str, str, Split]] = []
        if any((folder / place).is_dir() for place in training) or not (folder / test).is_dir():
            parts.append((training[0], training[1], "train"))
        if (folder / test).is_dir():
            parts.append((test, test, "test"))
        listings = [_list_part(folder, *part) for part in parts]
        entries = [entry for part_entries, _ in listings for entry in part_entries]
        return entries, [problem for _, part_problems in listings for problem in part_problems]

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Draw the outlines of an XML file at the size of its image: (H, W) uint8 in {0, 1}; see `fill_outlines`.

        Raises:
            FileProblem: The file or its image cannot be used, or there is no outline.
        """
        outlines = [outline for outline in read_outlines(path) if len(outline) >= 3]
        if not outlines:
            raise FileProblem(str(path), "holds no outline of three or more points", "download the annotation again")
        return fill_outlines(outlines, _image_size(path))


def read_outlines(path: Path) -> list[NDArray[np.float64]]:
    """The vertices of every Region of an annotation file of Aperio ImageScope.

    Document types are refused, and with them every entity, so that a file can neither name other files nor grow.

    Args:
        path: XML with Region elements that hold Vertex elements with the attributes X and Y, in pixels.

    Returns:
        Per Region (n, 2): X and Y of its vertices; n may be 0.

    Raises:
        FileProblem: The file is missing, is not XML, declares a document type, or a vertex has no two finite coordinates.
    """
    regions: list[list[tuple[float, float]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Region":
            regions.append([])
        elif name == "Vertex" and regions:
            regions[-1].append((float(attributes["X"]), float(attributes["Y"])))

    def refuse(*_: object) -> None:
        raise FileProblem(str(path), "declares a document type, which annotations do not need", "download the file again")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
        outlines = [np.array(region, np.float64).reshape(-1, 2) for region in regions]
        if not all(np.isfinite(outline).all() for outline in outlines):
            raise ValueError("a coordinate is not finite")
    except FileNotFoundError:
        raise FileProblem(str(path), "the file is missing", "restore it, or remove its image as well") from None
    except OSError as error:
        raise FileProblem(str(path), f"the file may not be read ({error})", "give yourself permission to read it") from None
    except expat.ExpatError as error:
        raise FileProblem(str(path), f"not valid XML ({error})", "copy or download the file again") from None
    except (KeyError, ValueError) as error:
        problem = f"a vertex has no numbers X and Y ({error})"
        raise FileProblem(str(path), problem, "copy or download the file again") from None
    return outlines


def fill_outlines(outlines: list[NDArray[np.float64]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Unite closed outlines to a mask.

    A pixel belongs to an outline where its centre, which has integer coordinates, lies inside by the even-odd rule; of
    centres on the border those at the left and the top belong, so that two outlines that share a border share no pixel.

    Args:
        outlines: (n, 2) each, X to the right and Y down, in pixels; parts outside the image are cut off.
        size: Height and width.

    Returns:
        (H, W) uint8 in {0, 1}.

    Example:
        >>> fill_outlines([np.array([[1, 0], [3, 0], [3, 2], [1, 2]], float)], (3, 4)).tolist()
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros(size, np.uint8)
    for outline in outlines:
        left, top = np.maximum(np.ceil(outline.min(axis=0)), 0).astype(int)
        right, bottom = np.minimum(np.floor(outline.max(axis=0)), (size[1] - 1, size[0] - 1)).astype(int)
        if right < left or bottom < top:
            continue
        (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
        rows = np.arange(top, bottom + 1)[:, None]
        row, edge = np.nonzero((y0 <= rows) != (y1 <= rows))  # the edges that the line through a row's centres crosses
        crossing = x0[edge] + (row + top - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        first = np.clip(np.ceil(crossing), left, right + 1).astype(int) - left  # the first centre behind a crossing
        changes = np.zeros((bottom + 1 - top, right + 2 - left), np.int64)
        np.add.at(changes, (row, first), 1)
        mask[top : bottom + 1, left : right + 1] |= (changes.cumsum(axis=1)[:, :-1] % 2).astype(np.uint8)
    return mask


def _list_part(folder: Path, images: str, masks: str, split: Split) -> Listing:
    """List one archive."""
    entries, problems = paired_entries(
        folder,
        images,
        masks,
        image_suffixes=frozenset(_SUFFIXES),
        mask_suffixes=frozenset({".xml"}),
        group=lambda stem: "-".join(stem.split("-")[:3]),
    )
    return [replace(entry, official=split) for entry in entries], problems


def _image_size(path: Path) -> tuple[int, int]:
    """Height and width of the image of an annotation, which lies beside it or in the folder of the images."""
    for folder in (path.parent, path.parent.parent / _IMAGES):
        for image in (folder / f"{path.stem}{suffix}" for suffix in _SUFFIXES):
            if image.is_file():
                try:
                    with Image.open(image) as picture:
                        return picture.height, picture.width
                except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
                    raise FileProblem(str(image), "not an image that can be read", "copy it again") from None
    raise FileProblem(str(path), "mask without an image", f"add {path.stem}.tif")
