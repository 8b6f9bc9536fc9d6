"""The page of an audit: one HTML file that opens from disk, with the pictures of what it found inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from madgnet_bench.catalog.audit.report import Report
from madgnet_bench.catalog.audit.rules import Finding, Member
from madgnet_bench.catalog.datasets import FileProblem, SegmentationDataset
from madgnet_bench.pictures import draw_outlines, to_rgb

__all__ = ["MAX_BYTES", "MAX_PICTURED", "MAX_ROWS", "render"]

MAX_PICTURED, MAX_ROWS, MAX_BYTES = 80, 1000, 6_000_000
"""Findings with pictures, findings in the list below them, and bytes of all pictures; the worst findings come first."""

_SIDE, _QUALITY, _PER_KIND = 240, 80, 30

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --broken: #b3261e; --warning: #8a5a00; --note: #4a6572; }
@media (prefers-color-scheme: dark) { :root { --broken: #ff8a80; --warning: #ffca6a; --note: #a9c4d0; } }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { min-width: 6rem; }
.scroll { overflow-x: auto; }
.number { text-align: right; white-space: nowrap; }
.broken { color: var(--broken); } .warning { color: var(--warning); } .note { color: var(--note); }
.severity { font-weight: 600; white-space: nowrap; }
.findings { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; background: var(--soft); }
article p { margin: 0 0 .6rem; } article p:last-child { margin: .6rem 0 0; }
.pair { display: flex; gap: .8rem; }
figure { margin: 0; flex: 1 1 0; min-width: 0; }
img { max-width: 100%; height: auto; display: block; background: #000; }
figcaption { font-size: .85rem; margin-top: .3rem; }
"""


def render(report: Report, datasets: Sequence[SegmentationDataset]) -> str:
    """Write the page.

    Pictures show pairs side by side and masks as outlines; at most `MAX_PICTURED` findings and `MAX_BYTES` of them, at most
    30 of a kind, the worst first. All else stands in a list, at most `MAX_ROWS` rows. No file but this page is needed.

    Args:
        report: What the audit found.
        datasets: The sets audited, to read the pictures from.
    """
    by_name = {dataset.name: dataset for dataset in datasets}
    pictured, rest = _choose(report.findings)
    articles, too_many = _articles(pictured, by_name)
    rest = sorted([*too_many, *rest], key=report.findings.index)
    verdict = f"Broken rules: {report.broken}." if report.broken else "No rule is broken."
    counts = ", ".join(f"{escape(name)} ({count} cases)" for name, count in report.cases.items())
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Audit of {escape(', '.join(report.cases))}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Audit of data sets</h1><p>{counts}</p><p><strong>{verdict}</strong></p>",
            _summary(report),
            _section("What it found", f'<div class="findings">{"".join(articles)}</div>' if articles else ""),
            _section("Also found", _table(rest[:MAX_ROWS]) if rest else ""),
            f"<p>{len(rest) - MAX_ROWS} more are left out.</p>" if len(rest) > MAX_ROWS else "",
            "</body></html>\n",
        ]
    )


def _choose(findings: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Divide findings into those to be shown with pictures and the others."""
    pictured: list[Finding] = []
    rest: list[Finding] = []
    kinds: dict[str, int] = {}
    for finding in findings:
        enough = len(pictured) >= MAX_PICTURED or kinds.get(finding.kind, 0) >= _PER_KIND
        if not finding.members or enough:
            rest.append(finding)
        else:
            kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
            pictured.append(finding)
    return pictured, rest


def _articles(findings: Sequence[Finding], datasets: Mapping[str, SegmentationDataset]) -> tuple[list[str], list[Finding]]:
    """The findings with their pictures, until these take too much room, and the findings left."""
    articles: list[str] = []
    room = MAX_BYTES
    for position, finding in enumerate(findings):
        figures = [_figure(member, datasets[member.dataset], pair=len(finding.members) > 1) for member in finding.members]
        room -= sum(map(len, figures))
        if room < 0:
            return articles, list(findings[position:])
        head = f"<p>{_severity(finding)} <strong>{escape(finding.kind)}</strong>, {escape(finding.detail)}</p>"
        where = "" if len(finding.members) > 1 else f"<p>{escape(finding.where)}</p>"
        pictures = f'<div class="pair">{"".join(figures)}</div>'
        articles.append(f"<article>{head}{pictures}{where}<p>Fix: {escape(finding.fix)}.</p></article>")
    return articles, []


def _figure(member: Member, dataset: SegmentationDataset, *, pair: bool) -> str:
    """A picture with its caption; of a case that cannot be read the caption alone."""
    caption = f"<figcaption>{escape(str(member))}<br>{escape(dataset.file(member.case.image))}</figcaption>"
    try:
        pixels = _pixels(dataset, member, pair)
    except FileProblem as error:
        return f"<figure><p>No picture: {escape(error.problem.problem)}.</p>{caption}</figure>"
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    picture.save(stream, "JPEG", quality=_QUALITY)
    source = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    text = escape(f"Image of {member}" if pair else f"Image of {member} with the outline of its reference")
    return f'<figure><img src="{source}" alt="{text}" width="{picture.width}" height="{picture.height}">{caption}</figure>'


def _pixels(dataset: SegmentationDataset, member: Member, pair: bool) -> NDArray[np.uint8]:
    """The image, small; outside pairs with the outlines of the reference where that has the image's size."""
    image = _plane(dataset.read_image(member.case))
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    if pair:
        return small
    try:
        mask = dataset.read_mask(member.case)
    except FileProblem:
        return small
    while mask.ndim > 3:
        mask = mask[:, mask.shape[1] // 2]
    if mask.shape[1:] != image.shape[:2]:
        return small
    areas = [Image.fromarray((area > 0).astype(np.uint8) * 255).resize(size, Image.Resampling.BOX) for area in mask]
    return draw_outlines(small, np.stack([np.asarray(area) > 0 for area in areas]).astype(np.uint8))


def _plane(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8; the middle slice of a volume, the first channel where there are neither one nor three."""
    while image.ndim > 3:
        image = image[len(image) // 2]
    if image.dtype != np.uint8:
        image = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    return to_rgb(image if image.shape[-1] in (1, 3) else image[..., :1])


def _summary(report: Report) -> str:
    """The table of kinds and how often each was found."""
    if not report.findings:
        return ""
    rows = (
        f'<tr><td class="severity {severity}">{severity}</td><td>{escape(kind)}</td><td class="number">{count}</td></tr>'
        for (severity, kind), count in report.counts().items()
    )
    return _rows(("severity", "finding", "how often"), rows)


def _table(findings: Iterable[Finding]) -> str:
    """Findings without pictures."""
    rows = (
        f"<tr><td>{_severity(one)}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(one)) + "</tr>"
        for one in findings
    )
    return _rows(("severity", "finding", "where", "detail", "fix"), rows)


def _cells(finding: Finding) -> tuple[str, ...]:
    return finding.kind, finding.where, finding.detail, finding.fix


def _rows(header: Sequence[str], rows: Iterable[str]) -> str:
    """A table that scrolls by itself on a narrow screen."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _severity(finding: Finding) -> str:
    return f'<span class="severity {finding.severity}">{finding.severity}</span>'


def _section(title: str, content: str) -> str:
    """A heading and what stands under it; nothing where there is nothing."""
    return f"<h2>{escape(title)}</h2>{content}" if content else ""
