"""``madgnet-bench data audit``: leaks between data sets and splits, and faults of images and masks. No torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from madgnet_bench.catalog.datasets import SegmentationDataset
from madgnet_bench.cli.text import align
from madgnet_bench.errors import ConfigError

if TYPE_CHECKING:
    from madgnet_bench.catalog.audit.report import Progress, Report
    from madgnet_bench.catalog.audit.rules import Finding

__all__ = ["SHOWN", "SUMMARY", "add_options", "run"]

SUMMARY = "find leaks between sets and splits, and faulty masks; exit with 1 where a rule is broken"

SHOWN = 50
"""How many broken rules the screen shows one by one; all findings are on the page."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the audit has beside the names of data sets."""
    parser.add_argument("--unseen", nargs="+", default=[], metavar="NAME", help="data sets that are only tested on")
    parser.add_argument(
        "--split", choices=["clean", "official"], default="clean", help="which split of the catalog's sets (default: clean)"
    )
    parser.add_argument("--output", type=Path, metavar="PAGE.html", help="write a page that shows what was found")
    parser.add_argument(
        "--allow_empty", action="store_true", help="healthy cases belong to the sets: an empty mask is no fault"
    )


def run(options: argparse.Namespace, build: Callable[[str], SegmentationDataset]) -> int:
    """Audit, print one table and write the page where asked.

    Args:
        options: ``name``, and those of `add_options`.
        build: Makes the data set of a name.

    Returns:
        0, or 1 where a rule is broken.

    Raises:
        BenchError: A name is unknown or named twice, or a set is missing or empty.
    """
    from madgnet_bench.catalog.audit.page import render  # scipy, which the other actions do without
    from madgnet_bench.catalog.audit.report import audit
    from madgnet_bench.records import write_atomically

    output: Path | None = options.output
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output must end in .html, not {output.name!r}.")
    seen, unseen = [build(name) for name in options.name], [build(name) for name in options.unseen]
    with ExitStack() as stack:
        report = audit(seen, unseen, allow_empty=options.allow_empty, progress=_progress(stack))
    sys.stdout.write(_table(report))
    if output is not None:
        write_atomically(output, render(report, [*seen, *unseen]))
        sys.stdout.write(f"Written: {output}\n")
    return 1 if report.broken else 0


def _table(report: Report) -> str:
    """Broken rules one by one, the rest counted by kind and data set, and a last line."""
    broken = [finding for finding in report.findings if finding.severity == "broken"]
    rows: list[tuple[str, str, str, str]] = [
        (finding.severity, finding.kind, finding.where, finding.detail) for finding in broken[:SHOWN]
    ]
    if len(broken) > SHOWN:
        rows.append(("broken", "", f"and {len(broken) - SHOWN} more", ""))
    rows += _counted([finding for finding in report.findings if finding.severity != "broken"])
    fixes = dict.fromkeys(f"{finding.kind}: {finding.fix}." for finding in broken)
    lines = [align([("severity", "finding", "where", "detail"), *rows])] if rows else []
    lines += [*(f"Fix for {fix}" for fix in fixes)]
    cases = ", ".join(f"{name} {count}" for name, count in report.cases.items())
    verdict = f"broken rules: {len(broken)}" if broken else "no rule is broken"
    lines.append(f"{sum(report.cases.values())} cases ({cases}), {report.seconds:.1f} s; {verdict}.")
    return "\n".join(lines) + "\n"


def _counted(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    """One row per severity, kind and data sets."""
    counts: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        names = " | ".join(dict.fromkeys(member.dataset for member in finding.members))
        counts.setdefault((finding.severity, finding.kind, names or finding.where), []).append(finding)
    return [(*key, f"{len(found)}, as {_short(found[0])}") for key, found in counts.items()]


def _short(finding: Finding) -> str:
    """An example: the cases of a pair, or what is wrong with which case."""
    if len(finding.members) == 2 and finding.similarity is not None:
        return " and ".join(f"{member.case.case_id} ({member.place})" for member in finding.members)
    if len(finding.members) == 1:
        return f"{finding.members[0].case.case_id}: {finding.detail}"
    return f"{finding.where}: {finding.detail}"


def _progress(stack: ExitStack) -> Progress:
    """A bar per stage with an estimate, on a terminal only."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = stack.enter_context(tqdm(desc=stage, total=total, leave=False, disable=None, file=sys.stderr))
        bars[stage].update(done - bars[stage].n)

    return show
