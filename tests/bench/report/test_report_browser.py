"""The report in a real Chromium: Debian's, or the one that MADGNET_BENCH_CHROMIUM names."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from phantom_runs import NETWORKS, write_runs

from madgnet_bench.bench.report import write_report
from madgnet_bench.bench.store import load_runs

CHROMIUM = os.environ.get("MADGNET_BENCH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium; apt-get install chromium")]

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
GOLDEN = Path(__file__).parents[2] / "golden" / "runs"
COLUMN = "mean rank"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The pages of runs with pictures, and of the golden runs, which have none."""
    folder = tmp_path_factory.mktemp("reports")
    runs = write_runs(folder / "runs", cases=6, size=64, count=2)
    return {
        "phantoms": write_report(load_runs([runs]), folder / "phantoms"),
        "golden": write_report(load_runs([GOLDEN]), folder / "golden"),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with playwright.sync_playwright() as driver:
        options = {"executable_path": CHROMIUM, "headless": True, "args": list(QUIET)}
        context = driver.chromium.launch_persistent_context(str(tmp_path_factory.mktemp("profile")), **options)
        yield context
        context.close()


@pytest.fixture
def open_page(browser, reports):
    """Open a report; at the end nothing was asked of a network and nothing complained."""
    pages, wrong = [], []

    def opened(name="phantoms", *, width=1280, height=900, scheme="light"):
        page = browser.new_page()
        pages.append(page)
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda request: None if request.url.startswith(("file://", "data:")) else wrong.append(request.url))
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.goto(reports[name].as_uri())
        page.wait_for_selector("html[data-ready]")
        page.evaluate("localStorage.clear()")
        return page

    yield opened
    for page in pages:
        page.close()
    assert wrong == []


def wait_for(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def board(page):
    return page.locator(".block.current .board.current table")


def column(page, position):
    cells = board(page).locator(f"tbody tr:not([hidden]) > :nth-child({position})")
    return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


def header(page, text):
    return board(page).locator("th").filter(has_text=text).first


def test_a_header_sorts_by_mouse_and_back(open_page):
    page = open_page()
    ranks = header(page, COLUMN)
    assert ranks.get_attribute("aria-sort") == "ascending"
    first = column(page, 1)
    assert column(page, 2) == sorted(column(page, 2), key=float)
    ranks.get_by_role("button").click()
    assert ranks.get_attribute("aria-sort") == "descending"
    assert column(page, 1) == first[::-1]
    ranks.get_by_role("button").click()
    assert (ranks.get_attribute("aria-sort"), column(page, 1)) == ("ascending", first)


def test_a_header_sorts_by_keyboard_and_only_one_is_sorted(open_page):
    page = open_page()
    gap = header(page, "gap")
    gap.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert gap.get_attribute("aria-sort") == "ascending"
    assert column(page, 5) == sorted(column(page, 5), key=float)
    page.keyboard.press("Space")
    assert gap.get_attribute("aria-sort") == "descending"
    sorts = [cell.get_attribute("aria-sort") for cell in board(page).locator("thead th").all()]
    assert sorts.count("none") == len(sorts) - 1
    header(page, "Model").get_by_role("button").click()
    assert column(page, 1) == sorted((name for name, _, _ in NETWORKS), key=str.lower)


def test_who_was_told_by_the_reference_stays_below_all_others(open_page):
    page = open_page("golden")
    chooser = page.locator("#f-block")
    chooser.select_option(index=1)
    seen = header(page, "unseen mean")
    for _ in range(2):
        seen.get_by_role("button").click()
        names = column(page, 1)
        assert names[-1] == "SAM tiny" and names.count("SAM tiny") == 1 and len(names) > 2


def test_filters_hide_rows_columns_and_pictures(open_page):
    page = open_page()
    status = page.locator("#filter-status")
    assert status.inner_text() == "3 of 3 models, 6 of 6 columns"
    page.get_by_role("searchbox", name="Network").fill("madgnet")
    page.get_by_role("combobox", name="Setting").select_option("unseen")
    assert status.inner_text() == "1 of 3 models, 4 of 6 columns"
    assert column(page, 1) == ["MADGNet resnet18"]
    assert not board(page).locator("th", has_text="phantom_fundus:cup").first.is_visible()
    shown = page.locator(".gallery article:not([hidden]) h3").all_text_contents()
    assert len(shown) == 2 and all("MADGNet" in text and "unseen" in text for text in shown)
    page.get_by_role("combobox", name="Data set").select_option("phantom_fundus/shift0.9")
    assert status.inner_text() == "1 of 3 models, 2 of 6 columns"
    page.get_by_role("button", name="Show all").click()
    playwright.expect(status).to_contain_text("3 of 3 models")
    assert status.inner_text() == "3 of 3 models, 6 of 6 columns"


def test_another_measure_has_its_own_table(open_page):
    page = open_page()
    before = column(page, 3)
    page.get_by_role("combobox", name="Measure").select_option("iou")
    assert "IoU in percent" in board(page).locator("caption").inner_text()
    assert board(page).count() == 1 and column(page, 3) != before
    page.get_by_role("combobox", name="Setting").select_option("seen")
    assert page.locator("#filter-status").inner_text() == "3 of 3 models, 2 of 6 columns"


def test_a_case_opens_moves_on_and_closes_with_the_keyboard(open_page):
    page = open_page()
    card = page.locator(".case").first
    card.focus()
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog")
    assert viewer.is_visible()
    first = page.locator("#v-where").inner_text()
    assert first.startswith("MADGNet resnet18 on phantom_fundus (seen), worst 1; 1 of 54")
    assert page.locator("#v-title").inner_text() == card.locator(".id").text_content()
    assert [image.get_attribute("alt").split(" of ")[0] for image in viewer.locator("img").all()] == [
        "image",
        "reference",
        "prediction",
        "errors",
    ]
    for picture in viewer.locator("img").all():  # asked from here: the page forbids what would ask inside it
        wait_for(lambda picture=picture: picture.evaluate("i => i.complete && i.naturalWidth") == 256)
    facts = viewer.locator("dl").inner_text()
    assert "group" in facts and "DSC of disc" in facts and "IoU of cup" in facts
    page.keyboard.press("ArrowRight")
    assert "worst 2; 2 of 54" in page.locator("#v-where").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "54 of 54" in page.locator("#v-where").inner_text()
    page.keyboard.press("Escape")
    assert not viewer.is_visible()
    assert page.evaluate("document.activeElement === [...document.querySelectorAll('.case')].at(-1)")


def test_a_case_opens_and_closes_with_the_mouse_and_filters_bound_the_walk(open_page):
    page = open_page()
    page.get_by_role("searchbox", name="Network").fill("UNet 16")
    page.get_by_role("checkbox", name="median").uncheck()
    card = page.locator(".case:visible").nth(1)
    card.click()
    assert page.locator("#v-where").inner_text().endswith("worst 2; 2 of 12")
    page.get_by_role("button", name="Next case").click()
    assert "best 1" in page.locator("#v-where").inner_text()
    page.get_by_role("button", name="Close").click()
    assert not page.get_by_role("dialog").is_visible()


def test_pictures_are_files_beside_the_page_and_load_when_they_are_needed(open_page, reports):
    page = open_page(height=600)
    loaded = "[...document.querySelectorAll('.case img')].filter(i => i.complete && i.naturalWidth).length"
    total = page.locator(".case").count()
    assert page.evaluate(loaded) < total
    sources = {image.get_attribute("src") for image in page.locator(".case img").all()}
    assert all((reports["phantoms"].parent / source).is_file() for source in sources)
    assert len(list((reports["phantoms"].parent / "pictures").iterdir())) == len(sources)
    page.get_by_role("radio", name="reference").check()
    position = "getComputedStyle(document.querySelector('.case img')).objectPosition"
    assert page.evaluate(position).startswith("33.3")


def colours(page, selector):
    script = """selector => {
        const solid = element => {
            for (let node = element; node; node = node.parentElement) {
                const colour = getComputedStyle(node).backgroundColor;
                if (!/, 0\\)$|transparent/.test(colour)) return colour;
            }
            return 'rgb(255, 255, 255)';
        };
        const element = document.querySelector(selector);
        return [getComputedStyle(element).color, solid(element)];
    }"""
    return page.evaluate(script, selector)


def contrast(pair):
    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted(map(luminance, pair), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(open_page, scheme):
    page = open_page(scheme=scheme)
    places = [
        "body",
        ".hint",
        "nav a",
        ".tag.seen",
        ".tag.unseen",
        "caption",
        "td small",
        "#theme",
        "figcaption",
        ".about span",
    ]
    low = {place: round(contrast(colours(page, place)), 1) for place in places if contrast(colours(page, place)) < 4.5}
    assert low == {}


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_kept(open_page):
    page = open_page(scheme="dark")
    button = page.get_by_role("button", name="Dark theme")
    dark = colours(page, "body")
    assert button.get_attribute("aria-pressed") == "true"
    assert contrast(("rgb(0, 0, 0)", dark[1])) < 2
    button.click()
    light = colours(page, "body")
    assert button.get_attribute("aria-pressed") == "false" and light[1] == "rgb(255, 255, 255)"
    chart = page.evaluate("getComputedStyle(document.querySelector('.canvas svg text')).fill")
    button.click()
    assert colours(page, "body") == dark
    assert page.evaluate("getComputedStyle(document.querySelector('.canvas svg text')).fill") != chart
    button.click()
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert colours(page, "body") == light


@pytest.mark.parametrize("name", ["phantoms", "golden"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways_and_tables_keep_their_first_column(open_page, name, width):
    page = open_page(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator(".block.current .board.current .scroll")
    before = box.locator("tbody th").first.bounding_box()["x"]
    box.evaluate("element => { element.scrollLeft = 10000; }")
    assert width > 390 or box.evaluate("element => element.scrollLeft") > 100
    assert box.locator("tbody th").first.bounding_box()["x"] == pytest.approx(before, abs=2)
    if name == "phantoms":
        page.locator(".case").first.click()
        assert page.get_by_role("dialog").evaluate("element => element.scrollWidth <= element.clientWidth")


CHECKS = """() => {
    const wrong = [], all = (selector) => [...document.querySelectorAll(selector)];
    const named = (element) => (element.getAttribute('aria-label') || element.textContent || '').trim();
    if (all('h1').length !== 1) wrong.push('h1');
    if (!document.documentElement.lang || !document.title) wrong.push('lang or title');
    for (const tag of ['header', 'nav', 'main']) if (!all(tag).length) wrong.push('no ' + tag);
    const ids = all('[id]').map((element) => element.id);
    wrong.push(...ids.filter((id, place) => ids.indexOf(id) !== place).map((id) => 'id twice: ' + id));
    for (const element of all('img')) if (!element.hasAttribute('alt')) wrong.push('img without alt');
    for (const element of all('.case img')) if (!element.alt) wrong.push('case without alt');
    for (const element of all('input, select')) if (!element.labels.length) wrong.push('no label: ' + element.id);
    for (const element of all('button, a')) if (!named(element)) wrong.push('no name: ' + element.outerHTML.slice(0, 80));
    for (const table of all('table')) {
        if (!table.caption || !table.caption.textContent.trim()) wrong.push('table without caption');
        for (const cell of table.querySelectorAll('th')) if (!cell.scope) wrong.push('th without scope');
    }
    for (const element of all('[role=img]')) if (!named(element)) wrong.push('figure without description');
    for (const element of all('[aria-labelledby]')) {
        const label = document.getElementById(element.getAttribute('aria-labelledby'));
        if (!label) wrong.push('label lost: ' + element.getAttribute('aria-labelledby'));
    }
    const lost = all('a[href^="#"]').filter((link) => !document.getElementById(link.hash.slice(1)));
    wrong.push(...lost.map((link) => 'dead link ' + link.hash));
    let level = 1;
    for (const heading of all('h1, h2, h3')) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1) wrong.push('heading skips: ' + heading.textContent);
        level = next;
    }
    return wrong;
}"""


@pytest.mark.parametrize("name", ["phantoms", "golden"])
def test_names_labels_and_landmarks_are_there(open_page, name):
    assert open_page(name).evaluate(CHECKS) == []


def test_the_keyboard_reaches_the_content_first_and_sees_where_it_is(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.locator(".skip").bounding_box()["width"] > 50
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("thead button").first.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_markup_in_a_name_stays_text(open_page):
    page = open_page()
    name = NETWORKS[2][0]
    assert name in column(page, 1)
    assert page.locator("tbody th small small").count() == 0


def test_downloads_and_figure_files_are_there(open_page, reports):
    page = open_page()
    links = [link.get_attribute("href") for link in page.locator("a[download]").all()]
    folder = reports["phantoms"].parent
    assert all((folder / link).stat().st_size > 100 for link in links)
    endings = {Path(link).suffix for link in links}
    assert endings == {".svg", ".png", ".csv", ".md", ".tex", ".json"}
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {Path(link).name for link in links if link.startswith("figures/")}


def test_other_training_sets_have_their_own_tables_and_figures(open_page):
    page = open_page("golden")
    choice = page.get_by_role("combobox", name="Trained on")
    keys = [option.get_attribute("value") for option in choice.locator("option").all()]
    assert len(keys) > 1 and page.locator(".block:visible").count() == 1
    before = board(page).locator("caption").inner_text()
    choice.select_option(keys[-1])
    assert page.locator(".block:visible").get_attribute("data-block") == keys[-1]
    assert board(page).locator("caption").inner_text() != before
    page.get_by_role("link", name="Cases", exact=True).click()
    assert page.evaluate("location.hash") == f"#{keys[-1]}-cases"


def test_a_report_without_pictures_says_so(open_page):
    page = open_page("golden")
    assert "no run holds pictures" in page.locator("#gallery").inner_text()
    assert page.locator(".case").count() == 0
