"""The pages in a real browser: what they say, what they do, and that nothing leaves them."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from atlases import HOSTILE, POPULATIONS, atlas_of, hostile, qwen_shaped, token_frame
from histories import BY_HAND, write_run
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright
from scans import TOUCHING

from darkvocab import evolve, report, sweep
from darkvocab.reports.atlas import LISTED_TOKENS, write_page
from darkvocab.runs.records import csv_bytes, read_records

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ASKED = "Qwen/Qwen3-4B"
TOKENS = 4_000


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. Where there is none these tests are skipped; continuous integration insists."""
    result = next(filter(None, map(shutil.which, BROWSERS)), None)
    if result is None:
        missing = "no Chromium here: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("DARKVOCAB_BROWSER") == "required" else pytest.skip(missing)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=result)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind: its file by name."""
    folder = tmp_path_factory.mktemp("pages")
    result = {"scan": qwen_shaped(TOKENS), "hostile": hostile()}
    for name, scanned in result.items():
        write_page(scanned, folder / f"{name}.html", command="darkvocab scan")
    list(sweep([1e-9, 3e-9, 9e-9], n_tokens=60, trials=3, out=folder / "sweep"))
    write_run(folder / "evolution", BY_HAND, [3, 4, 5], record_every="10")
    evolve(folder / "evolution", out=folder / "evolution")
    files = {name: folder / f"{name}.html" for name in result}
    for name in ("sweep", "evolution"):
        files[name] = report(folder / name)[0]
    return files, result


@contextlib.contextmanager
def visiting(browser, pages):
    """A function that opens a page. At the end: no error was told, and nothing but the page itself was asked for."""
    contexts, reports, asked = [], [], []

    def open_page(name="scan", **settings):
        script = settings.pop("script", None)
        plain = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**plain | settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: reports.append(message.text))
        page.on("pageerror", lambda error: reports.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        if script:
            page.add_init_script(script)
        url = pages[0][name].as_uri()
        page.goto(url)
        asked.remove(url)
        if settings.get("java_script_enabled", True) and not script:
            page.locator("html[data-ready]").wait_for(state="attached")
        return page

    open_page.told, open_page.asked = reports, asked
    yield open_page
    for context in contexts:
        context.close()
    assert not reports
    assert not [url for url in asked if not url.startswith(("data:", "blob:"))]


@pytest.fixture
def visit(browser, pages):
    with visiting(browser, pages) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def opened(browser, pages):
    """The page of the scan, open for several tests."""
    with visiting(browser, pages) as open_page:
        yield open_page()


@pytest.fixture
def scan(opened):
    """The same, with every token in the list, by falling score."""
    yield opened
    opened.get_by_role("button", name="Clear").click()
    if opened.locator('#list th[data-key="score"]').get_attribute("aria-sort") != "descending":
        opened.locator('#list th[data-key="score"] button').click()
    counted(opened, TOKENS)
    opened.get_by_role("button", name="First page").click(force=True)


def ids(page):
    """Token ids of the rows that the list shows."""
    texts = page.locator("#list tbody button[data-row]").all_inner_texts()
    return [int(text.replace(",", "").split()[0]) for text in texts]


def soon(true, seconds=10):
    """Wait a little for something to come true; return whether it did."""
    end = time.monotonic() + seconds
    while not (result := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return result


def counted(page, n):
    """Wait until the list has so many tokens."""
    assert soon(lambda: re.match(rf"(all )?{n:,} ", page.locator("#count").inner_text())), n


def column(page, title):
    heads = page.locator("#list thead th").all_inner_texts()
    place = next(place for place, head in enumerate(heads) if head.startswith(title)) + 1
    return page.locator(f"#list tbody tr > :nth-child({place})").all_inner_texts()


# What it says --------------------------------------------------------------------------------------------------------


def test_the_finding_is_the_first_sentence(scan, pages):
    page = scan
    tokens = pages[1]["scan"].tokens
    reports = page.locator(".finding").inner_text()
    assert f"{tokens['dark'].sum():,} of {TOKENS:,} tokens" in reports
    assert "267 beyond the tokenizer" in reports
    assert reports.endswith("2,100 tokens share only 13 rows (black holes), 814 of them the same one.")
    assert page.locator("h1").inner_text() == ASKED
    assert ASKED in page.title()


def test_each_kind_is_in_the_legend_with_its_number(scan, pages):
    page = scan
    legend = page.locator("#legend button").all_inner_texts()
    counts = dict(text.strip().rsplit(maxsplit=1) for text in legend)
    tokens = pages[1]["scan"].tokens
    assert counts["beyond the tokenizer"] == "267"
    assert counts["partial UTF-8"] == str((tokens["category"] == "partial_utf8").sum())
    assert sum(int(n.replace(",", "")) for n in counts.values()) == TOKENS


def test_every_black_hole_is_in_its_table_with_its_members(scan, pages):
    page = scan
    populations = page.locator("#hole-list tbody tr > :nth-child(2)").all_inner_texts()
    assert populations == [f"{n:,}" for n in POPULATIONS]
    last = page.locator("#hole-list tbody tr").last
    last.locator("summary").click()
    assert [int(text) for text in last.locator(".members .id").all_inner_texts()] == list(
        pages[1]["scan"].black_holes[-1].token_ids
    )


def test_formulas_provenance_and_command_are_told(scan):
    text = scan.locator("main").inner_text()
    for said in (
        "1 - cos(r, mean(ref))",
        "0.40% are expected",
        "0" * 64,
        "darkvocab scan",
        "each text was encoded alone",
    ):
        assert said in text


def test_without_a_script_the_finding_the_list_and_the_black_holes_are_there(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#list tbody tr").count() == LISTED_TOKENS
    assert page.locator("#hole-list tbody tr").count() == 13
    assert page.get_by_text("Scripts are off").is_visible()
    assert not page.locator("#filters").is_visible()
    assert not page.locator("#scatter").is_visible()


def test_a_browser_that_cannot_unpack_says_so_and_keeps_the_list(visit):
    page = visit(script="delete window.DecompressionStream")
    page.locator("#trouble").get_by_text("did not open in this browser").wait_for()
    assert page.locator("#list tbody tr").count() == LISTED_TOKENS
    assert [reports for reports in visit.told if "DecompressionStream" in reports]
    visit.told.clear()


# What it does --------------------------------------------------------------------------------------------------------


def test_the_list_begins_with_the_highest_scores(scan, pages):
    scores = [float(text) for text in column(scan, "score")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(pages[1]["scan"].tokens["score"].max(), rel=1e-3)


def test_the_list_has_the_surest_first_where_scores_differ_by_less_than_it_shows(tmp_path, browser):
    score = [1 - 2e-9, 1.0, 1 - 1e-9, 1.0, 1.0]
    scanned = atlas_of(token_frame(5, score=score, euclidean=[0.1, 0.3, 0.1, 0.2, 0.3], dark=[True] * 5))
    write_page(scanned, tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("html[data-ready]").wait_for(state="attached")
    assert ids(page) == [3, 1, 4, 2, 0]
    page.locator('#list th[data-key="score"] button').click()
    assert ids(page) == [0, 2, 4, 1, 3]
    page.close()


def test_a_column_sorts_up_and_down_and_says_which(scan):
    page = scan
    head = page.locator('#list th[data-key="norm"]')
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [float(text) for text in column(page, "norm")]
    assert rising == sorted(rising)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    falling = [float(text) for text in column(page, "norm")]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > rising[-1]
    assert page.locator("#list th[aria-sort]").count() == 1


def test_search_finds_texts_and_ids(scan, pages):
    page = scan
    tokens = pages[1]["scan"].tokens
    wanted = tokens.filter(pl.col("text").str.to_lowercase().str.contains("con", literal=True))
    page.locator("#search").fill("CON")
    counted(page, len(wanted))
    assert set(ids(page)) <= set(wanted["id"])
    page.locator("#search").fill("#3999")
    counted(page, 1)
    assert ids(page) == [3999]
    page.get_by_role("button", name="Clear").click()
    counted(page, TOKENS)


def test_filters_are_those_of_the_frame(scan, pages):
    page = scan
    tokens = pages[1]["scan"].tokens
    page.locator("#which").select_option("dark")
    counted(page, tokens["dark"].sum())
    page.locator("#script").select_option("Han")
    counted(page, len(tokens.filter((pl.col("script") == "Han") & pl.col("dark"))))
    page.get_by_role("button", name="Clear").click()
    page.locator("#hole").fill("9")
    counted(page, 4)
    assert ids(page) == tokens.filter(pl.col("black_hole") == 9).sort("score", descending=True)["id"].to_list()


def test_a_kind_in_the_legend_can_be_put_out(scan):
    page = scan
    button = page.locator('#legend [data-kind="beyond_tokenizer"]')
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    counted(page, TOKENS - 267)
    button.click()
    counted(page, TOKENS)


def test_pages_of_the_list_follow_each_other(scan):
    page = scan
    first = ids(page)
    page.get_by_role("button", name="Next page").click()
    assert not set(first) & set(ids(page))
    page.get_by_role("button", name="Last page").click()
    assert page.get_by_text(f"page {TOKENS // 25} of {TOKENS // 25}").is_visible()
    assert page.get_by_role("button", name="Next page").is_disabled()


def test_a_row_opens_and_tells_everything(scan):
    page = scan
    page.locator("#search").fill("#3999")
    counted(page, 1)
    page.locator("#list tbody button").first.click()
    card = page.locator(".card").inner_text()
    for said in ("beyond the tokenizer", "cosine distance, mean removed", "black hole", "beyond_tokenizer"):
        assert said in card
    page.get_by_role("button", name="List its black hole").click()
    counted(page, 814)


def ring(page, figure):
    box = page.locator(f"#{figure} .ring").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_pointing_at_a_mark_tells_its_token_and_a_click_finds_it(visit, pages):
    page = visit()
    tip = page.locator("#scatter .tip")
    page.locator("#scatter").focus()
    page.keyboard.press("End")  # the token of the lowest score
    x, y = ring(page, "scatter")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.mouse.move(x + 1, y)
    tip.wait_for()
    assert np.hypot(*np.subtract(ring(page, "scatter"), (x + 1, y))) < 4
    text, *lines = tip.inner_text().splitlines()
    tokens = pages[1]["scan"].tokens
    token = tokens.row(int(lines[0].removeprefix("id ").replace(",", "")), named=True)
    assert text == token["text"]
    assert lines[1] == "kind reachable"
    assert float(lines[2].removeprefix("score ")) == pytest.approx(token["score"], rel=1e-3)
    assert float(lines[3].removeprefix("norm ")) == pytest.approx(token["norm"], rel=1e-3)
    assert float(lines[4].rsplit(" ", 1)[1]) == pytest.approx(token["euclidean"], rel=1e-3)
    page.mouse.click(x + 1, y)
    chosen = page.locator("#list tr.chosen button")
    assert chosen.inner_text().replace(",", "").split()[0] == str(token["id"])
    assert chosen.get_attribute("aria-expanded") == "true"


def test_the_indicator_of_the_axis_can_be_chosen(visit, pages):
    page = visit()
    page.locator("#indicator").select_option("cosine_pc_removed")
    assert "cosine distance, first component removed" in page.locator("#scatter .title").first.inner_html()
    tokens = pages[1]["scan"].tokens
    shown = dict(zip(ids(page), column(page, "cosine distance, first"), strict=True))
    for token, text in shown.items():
        assert float(text) == pytest.approx(tokens["cosine_pc_removed"][token], rel=1e-3)
    assert page.locator("#scatter .threshold-name").count() == 0  # what is dark is not told by this one
    for axis, title in (("score", "dark from here"), ("euclidean", "dark up to here")):
        page.locator("#indicator").select_option(axis)
        page.locator("#scatter .threshold-name", has_text=title).wait_for()
        assert page.locator("#scatter .threshold-name").count() == 1


def test_figures_zoom_by_key_and_button(scan):
    page = scan
    ticks = page.locator("#scatter .tick text")
    before = ticks.all_text_contents()
    page.locator("#scatter").focus()
    page.keyboard.press("+")
    assert soon(lambda: ticks.all_text_contents() != before)
    page.locator("#scatter").get_by_role("button", name="Show all").click()
    assert soon(lambda: ticks.all_text_contents() == before)


def test_the_spectrum_the_graph_and_the_map_tell_their_rows(scan):
    page = scan
    page.locator("#spectrum").scroll_into_view_if_needed()
    page.locator("#spectrum .ring").wait_for(state="attached")
    page.locator("#spectrum").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#spectrum .tip").inner_text().startswith("black hole 1\n814 tokens")
    page.keyboard.press("Enter")
    counted(page, 814)
    for figure in ("graph", "map"):
        page.locator(f"#{figure}").scroll_into_view_if_needed()
        page.locator(f"#{figure} .ring").wait_for(state="attached")
        page.locator(f"#{figure}").focus()
        page.keyboard.press("ArrowRight")
        assert "black hole 1, with 814 tokens" in page.locator(f"#{figure} .tip").inner_text()
    assert "edges" in page.locator("#graph").get_attribute("aria-label")


def test_without_edges_and_map_the_figures_are_left_out(tmp_path, browser):
    tokens = token_frame(30)
    neighbours = replace(TOUCHING, n_pairs=9, n_components=3, degrees=((0, 30, 30),))
    unscored = {"by": None, "score": None, "threshold": None, "columns": ()}
    scanned = atlas_of(tokens, neighbours=neighbours, indicators=unscored, vocabulary=None)
    write_page(scanned, tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("html[data-ready]").wait_for(state="attached")
    assert page.locator("#graph").is_hidden()
    assert page.locator("#map").is_hidden()
    assert page.get_by_text("too many edges to draw").is_visible()
    assert page.locator(".finding").inner_text() == "None of 30 tokens stands out as dark; no two tokens share a row."
    page.close()


# To take along -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scan", "hostile"])
def test_what_is_copied_is_what_the_scan_found(visit, pages, name):
    page = visit(name, permissions=["clipboard-read", "clipboard-write"])
    tokens = pages[1][name].tokens
    page.get_by_role("button", name="Copy CSV").click()
    page.get_by_text("copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    inside = {int(row["id"]): row for row in csv.DictReader(io.StringIO(copied, newline=""))}
    outside = {int(row["id"]): row for row in csv.DictReader(io.StringIO(csv_bytes(tokens).decode(), newline=""))}
    assert inside.keys() == outside.keys()
    exact = [name for name, dtype in tokens.schema.items() if not dtype.is_float()]
    for token, row in outside.items():
        assert {key: inside[token][key] for key in exact} == {key: row[key] for key in exact}
        assert float(inside[token]["norm"]) == pytest.approx(float(row["norm"]), rel=2e-4)
    page.get_by_role("button", name="Copy JSON").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('['))")
    rows = {row["id"]: row for row in json.loads(page.evaluate("navigator.clipboard.readText()"))}
    for row in tokens.iter_rows(named=True):
        assert {key: rows[row["id"]][key] for key in exact} == {key: row[key] for key in exact}


def test_what_is_saved_is_what_the_filter_left(scan, pages):
    page = scan
    page.locator("#hole").fill("9")
    counted(page, 4)
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save CSV").click()
    assert saving.value.suggested_filename == "Qwen3-4B-tokens.csv"
    frame = pl.read_csv(saving.value.path().read_bytes())
    assert frame.columns == pages[1]["scan"].tokens.columns
    assert frame["black_hole"].to_list() == [9] * 4
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save the report as JSON").click()
    assert json.loads(saving.value.path().read_text()) == pages[1]["scan"].to_json()


# For everyone --------------------------------------------------------------------------------------------------------


def test_texts_that_would_be_something_else_stay_texts(visit):
    page = visit("hostile")
    page.locator("#list tbody button").first.click()
    page.locator("#search").fill("script")
    page.locator("#count", has_text="6 of 22 tokens").wait_for()
    for key in ("ArrowRight",) * 4:
        page.locator("#scatter").press(key)
    page.locator("#search").fill("")
    counted(page, 22)
    assert page.evaluate("window.owned") is None
    assert page.locator("main script, main img, main iframe, main b, main i").count() == page.locator(".tip b").count()
    shown = page.locator("#list tbody tr > td:nth-child(2)").all_inner_texts()
    assert "<script>window.owned=1</script>" in shown
    assert "a\\u202eb" in shown
    assert "{{ 7 * 7 }}" in shown
    assert max(map(len, shown)) < 200 < max(map(len, HOSTILE))


def test_no_script_but_its_own_runs_even_if_one_gets_in(visit, pages):
    good = pages[0]["hostile"].read_text()
    let_in = "<script>window.owned = 7</script><img src=x onerror='window.owned = 8'><style>h1 {display: none}</style>"
    pages[0]["broken"] = pages[0]["hostile"].with_name("broken.html")
    pages[0]["broken"].write_text(good.replace("</main>", f"{let_in}</main>"))
    page = visit("broken")
    with pytest.raises(PlaywrightError, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<img src=x onerror=window.owned=9>'")
    page.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/owned'}))")
    assert soon(lambda: len(visit.told) >= 5)  # script, handler, style, and two images
    assert page.evaluate("window.owned") is None
    assert page.locator("h1").is_visible()
    assert all("Content Security Policy" in reports or "Trusted" in reports for reports in visit.told)
    visit.told.clear()
    visit.asked.clear()  # asked for, and refused


def test_everything_can_be_reached_and_done_by_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#search").focus()
    reached = set()
    for _ in range(45):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.id || e.textContent.trim() || e.className)(document.activeElement)"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"which", "hole", "script", "Clear", "Copy CSV", "Save JSON", "norm"} <= reached
    page.locator('#list th[data-key="id"] button').focus()
    page.keyboard.press("Enter")
    assert page.locator('#list th[data-key="id"]').get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.parentElement.dataset.key") == "id"
    page.locator("#list tbody button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#list .card").count() == 1


@pytest.mark.parametrize("name", ["scan", "sweep", "evolution"])
def test_landmarks_headings_and_names_are_there_for_a_screen_reader(visit, name):
    page = visit(name)
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("navigation", name="Sections").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, [role=application], section, [role=region]')]
            .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim()))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []
    targets = page.evaluate(
        "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)).length"
    )
    assert targets == 0
    assert page.evaluate("[...document.images].filter(image => !image.alt).length") == 0
    assert page.locator("th:not([scope])").count() == 0


@pytest.mark.parametrize("name", ["scan", "hostile", "sweep", "evolution"])
def test_a_phone_shows_it_without_scrolling_sideways(visit, name):
    page = visit(name, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_tap_tells_and_the_next_one_goes(visit):
    page = visit(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page.locator("#scatter").scroll_into_view_if_needed()
    page.locator("#scatter").focus()
    page.keyboard.press("End")
    x, y = ring(page, "scatter")
    page.keyboard.press("Escape")
    page.touchscreen.tap(x, y)
    page.locator("#scatter .tip").wait_for()
    assert page.locator("#list tr.chosen").count() == 0
    page.touchscreen.tap(x, y)
    page.locator("#list tr.chosen").wait_for()


def luminance(colour):
    channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["scan", "sweep"])
def test_texts_stand_out_by_day_and_by_night(visit, name, scheme):
    page = visit(name, color_scheme=scheme)
    paper = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (paper < 0.05) == (scheme == "dark")
    for place in ("body", "h1", "nav a", "figcaption", "footer", "th"):
        ink = luminance(page.locator(place).first.evaluate("e => getComputedStyle(e).color"))
        lighter, darker = max(ink, paper), min(ink, paper)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, place  # WCAG 2.2, 1.4.3


def test_print_has_the_first_dark_tokens_and_no_controls(visit):
    page = visit(color_scheme="dark")
    page.evaluate(
        """addEventListener('beforeprint', () => {
            window.printed = [document.querySelectorAll('#list tbody tr').length,
                              getComputedStyle(document.querySelector('#filters')).display,
                              document.querySelector('#graph .ring') !== null];
        })"""
    )
    content = page.pdf()
    assert content.startswith(b"%PDF")
    assert len(content) > 100_000
    assert page.evaluate("window.printed") == [LISTED_TOKENS, "flex", True]
    assert page.locator("#list tbody tr").count() == 25
    page.emulate_media(media="print")
    for control in ("#filters", "#pager", "nav", "#axes", ".zoom >> nth=0"):
        assert page.locator(control).is_hidden()
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.9


def test_curves_of_a_run_can_be_read_off(visit, pages):
    page = visit("sweep")
    records = read_records(pages[0]["sweep"].parent)
    panel = page.locator(".panel").first
    panel.focus()
    page.keyboard.press("End")
    said = panel.locator(".tip").inner_text()
    at_last = records.filter(pl.col("sigma") == 9e-9)["n_black_holes"]
    assert said.startswith("sigma 9e-9\n")
    expected = pl.read_parquet(pages[0]["sweep"].parent / "expected.parquet").filter(pl.col("sigma") == 9e-9)
    reports = dict(line.split(": ") for line in said.splitlines()[1:])
    assert float(reports["simulated"].split()[0]) == pytest.approx(at_last.mean(), rel=1e-4)
    assert float(reports["expected"].split()[0]) == pytest.approx(expected["n_black_holes"].item(), rel=1e-4)
    page.mouse.move(*(panel.bounding_box()[key] + 70 for key in ("x", "y")))
    assert panel.locator(".tip").inner_text().startswith("sigma 1e-9")
    page.mouse.move(panel.bounding_box()["x"] + panel.bounding_box()["width"] - 20, panel.bounding_box()["y"] + 70)
    assert panel.locator(".tip").inner_text().startswith("sigma 9e-9")
    assert page.locator("img.still").first.is_hidden()
    page.emulate_media(media="print")
    assert page.locator("img.still").first.is_visible()
    assert panel.is_hidden()


def test_an_evolution_tells_its_events(visit):
    page = visit("evolution")
    text = page.locator("main").inner_text()
    assert "step 30: #2 gains 1 token from #1: 5" in text
    assert page.locator("figure").count() == 4
    assert page.locator(".panel").count() == 6


def test_the_page_of_a_whole_vocabulary_is_small(tmp_path):
    write_page(qwen_shaped(), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 6_000_000
