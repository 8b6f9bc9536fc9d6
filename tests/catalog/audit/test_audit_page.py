from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from memory_sets import Memory, changed, scenes
from PIL import Image

from madgnet_bench.catalog.audit import page
from madgnet_bench.catalog.audit.page import render
from madgnet_bench.catalog.audit.report import audit

SCENES = scenes("fundus", 3)


class Tags(HTMLParser):
    """Collects images and looks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


@pytest.fixture(scope="module")
def dataset() -> Memory:
    copy = changed(SCENES[0], np.random.default_rng(0), orientation=1)
    images = {"c0": SCENES[0], "c<1>": SCENES[1], "copy": copy, "torn": None}
    return Memory("a&b", images, splits={"copy": "test"}, masks={"c<1>": np.zeros((1, 96, 96), np.uint8)})


def test_the_page_needs_nothing_else(dataset: Memory) -> None:
    text = render(audit([dataset]), [dataset])
    tags = parsed(text)
    assert not re.search(r"https?:|=\"//|<script|<link|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text and "Broken rules: 3." in text
    assert "a&amp;b" in text and "c&lt;1&gt;" in text and "c<1>" not in text
    assert "No picture: the file is truncated or damaged." in text
    assert [image["alt"] for image in tags.images] == [
        "Image of a&b: c0 (train)",
        "Image of a&b: copy (test)",
        "Image of a&b: c<1> (train) with the outline of its reference",
    ]
    for image in tags.images:
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))))
        assert (str(picture.width), str(picture.height)) == (image["width"], image["height"]) and max(picture.size) <= 240
    assert text.index("duplicate, train and test") < text.index("empty mask") < text.index("image unreadable")


def test_pictures_and_rows_are_bounded(dataset: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    many = Memory("m", {f"n{number}": SCENES[0] for number in range(50)})
    report = audit([many])
    assert len(report.findings) == 49
    assert len(parsed(render(report, [many])).images) == 60
    monkeypatch.setattr(page, "MAX_PICTURED", 4)
    monkeypatch.setattr(page, "MAX_ROWS", 5)
    text = render(report, [many])
    assert len(parsed(text).images) == 8 and "40 more are left out" in text and text.count("<article>") == 4
    monkeypatch.setattr(page, "MAX_BYTES", 25_000)
    assert 0 < len(render(report, [many])) < 45_000


def test_a_clean_page() -> None:
    clean = Memory("clean", {"c0": SCENES[0], "c1": SCENES[1]})
    text = render(audit([clean]), [clean])
    assert "No rule is broken." in text and parsed(text).images == []
