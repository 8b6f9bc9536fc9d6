"""Figures as files and as part of the page, where they take its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from madgnet_bench.bench.figures import COLOURS, GRID, INK, MUTED, PAPER, style

__all__ = ["Drawing", "draw"]

_VARIABLES = {
    **{
        PAPER: "--paper",
        "#fff": "--paper",
        INK: "--ink",
        "#000000": "--ink",
        "#000": "--ink",
        MUTED: "--muted",
        GRID: "--line",
    },
    "#1a1a1a": "--ink",
    "#0b5394": "--accent",
    "#9c2a00": "--unseen",
    **{colour: f"--c{number}" for number, colour in enumerate(COLOURS, start=1)},
}
"""Colours of a figure and the variables of the page that stand for them."""

_COLOUR = re.compile(r"(fill|stroke): (#[0-9a-f]{3,6})\b")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure of the report.

    Attributes:
        name: Name of its files without ending.
        svg: For the page: colours are its variables, ids begin with the name.
    """

    name: str
    svg: str


def draw(figure: Callable[[], Figure], folder: Path, name: str) -> Drawing:
    """Draw a figure, write it as ``<name>.svg`` and ``<name>.png``, and prepare it for the page.

    Args:
        figure: Makes the figure; called in the report's style.
        folder: Where the files go.
        name: Unique on the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        drawn = figure()
        stream = io.StringIO()
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        drawn.set_layout_engine("none")  # it is laid out, and that is half of the work
        drawn.savefig(folder / f"{name}.png", dpi=144)
    text = _with_tips(stream.getvalue())
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return Drawing(name=name, svg=_inline(text, name))


def _with_tips(svg: str) -> str:
    """Turn the ids of marked shapes, ``tip:<text>``, into titles, which browsers show on hovering."""
    return re.sub(r'<g id="tip:([^"]*)">', lambda found: f"<g><title>{found[1]}</title>", svg)


def _inline(svg: str, name: str) -> str:
    """Leave only the svg element, with ids of its own and the colours of the page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\n?", "", body, flags=re.DOTALL)
    prefix = escape(name, quote=True)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-")
    body = _COLOUR.sub(lambda found: f"{found[1]}: {_themed(found[2])}", body)
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    width, height = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', body).groups()  # type: ignore[union-attr]
    head = re.compile(r"<svg [^>]*>")
    opening = f'<svg viewBox="0 0 {width} {height}" style="max-width:{float(width) * 1.45:.0f}px" aria-hidden="true">'
    body = head.sub(opening, body, count=1)
    return re.sub(r"\s*\n\s*", "\n", body)


def _themed(colour: str) -> str:
    variable = _VARIABLES.get(colour)
    return f"var({variable})" if variable else colour
