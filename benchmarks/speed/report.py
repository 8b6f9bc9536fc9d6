"""How large a report is, how long it takes to write, and how soon its page can be used in Chromium.

    python benchmarks/speed/report.py [--runs 50] [--cases 10000] [--chromium PATH]

The runs are those of ``leaderboard.py``, made in a temporary folder: ten models with five seeds, ten test sets, three cases per
patient, twenty measures; every run gets a gallery of pictures and a history. Interactive is when the page has sorted, filtered
and drawn itself once: its last script has run and two frames were painted since. The budget: a page below 10 MB, interactive
within 2 seconds, no picture loaded that is not near the window.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from leaderboard import SETS, make_run
from PIL import Image
from playwright.sync_api import sync_playwright

from madgnet_bench.bench.report import write_report
from madgnet_bench.bench.store import load_runs
from madgnet_bench.pictures import KINDS, PARTS, case_panel
from madgnet_bench.records import RunFolder

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
LOADED = "[...document.querySelectorAll('.case img')].filter(image => image.complete && image.naturalWidth).length"


def main() -> None:
    """Make the runs, write the report, open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of a Chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(options.runs):
            add_extras(make_run(root / "runs", number, options.cases), number)
        start, processor = time.perf_counter(), time.process_time()
        page = write_report(load_runs([root / "runs"]), root / "report")
        elapsed, used = time.perf_counter() - start, time.process_time() - processor
        files = [path for path in page.parent.rglob("*") if path.is_file()]
        print(f"{options.runs} runs x {options.cases} case rows: written in {elapsed:.1f} s, {used:.1f} s of processor time")
        size = sum(path.stat().st_size for path in files) / 1e6
        print(f"page {page.stat().st_size / 1e6:.2f} MB, {len(files)} files of {size:.0f} MB")
        if options.chromium:
            open_page(page, options.chromium, options.repeats)


def add_extras(run: RunFolder, number: int) -> None:
    """Give a run the pictures and the history that training leaves behind."""
    draw = np.random.default_rng(number)
    for _, dataset in SETS:
        folder = run.path / "predictions" / dataset
        folder.mkdir(parents=True)
        image = draw.integers(0, 256, (352, 352, 1), dtype=np.uint8)
        mask = np.zeros((1, 352, 352), np.uint8)
        mask[:, 100:200, 100:200] = 1
        Image.fromarray(case_panel(image, np.roll(mask, 20, 1), mask)).save(folder / "panel.png")
        entries = [
            {
                "case_id": f"case_{rank:05d}",
                "kind": kind,
                "rank": rank,
                "dsc": 0.5,
                "file": "panel.png",
                "width": 352,
                "height": 352,
            }
            for kind in KINDS
            for rank in (1, 2, 3)
        ]
        index = {"schema_version": 1, "dataset": dataset, "parts": list(PARTS), "targets": ["lesion"], "cases": entries}
        (folder / "gallery.json").write_text(json.dumps(index))
    values = draw.random((100, 2))
    header = "schema_version,epoch,train/loss,val/dsc\n"
    lines = [f"1,{epoch},{loss:.6f},{dsc:.6f}\n" for epoch, (loss, dsc) in enumerate(values)]
    run.history_file.write_text(header + "".join(lines))


def open_page(page: Path, chromium: str, repeats: int) -> None:
    """Time how soon the page can be used, and how long a sort and a filter take."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, headless=True, args=list(QUIET))
        ready, sort, hide = [], [], []
        for _ in range(repeats + 1):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("html[data-ready]", state="attached")
            tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            ready.append(time.perf_counter() - start)
            loaded = tab.evaluate(LOADED)
            sort.append(tab.evaluate(timed("document.querySelector('.board.current thead button').click()")))
            act = "const box = document.querySelector('#f-network'); box.value = '3';"
            hide.append(tab.evaluate(timed(f"{act} box.dispatchEvent(new Event('input', {{bubbles: true}}))")))
            total = tab.locator(".case").count()
            tab.close()
        browser.close()
    middle = [sorted(times[1:])[len(times[1:]) // 2] for times in (ready, sort, hide)]
    print(f"interactive after {middle[0]:.2f} s (median of {repeats}; first {ready[0]:.2f} s)")
    print(f"sort {middle[1]:.0f} ms, filter {middle[2]:.0f} ms; {loaded} of {total} pictures loaded at the start")


def timed(action: str) -> str:
    """A script that returns the milliseconds from an action to the next painted frame."""
    frames = "await new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
    return f"(async () => {{ const start = performance.now(); {action}; {frames} return performance.now() - start; }})()"


if __name__ == "__main__":
    main()
