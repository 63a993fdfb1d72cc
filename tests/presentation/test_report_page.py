"""The page in a real browser (headless Chromium), opened from its file: what people do with it, and what they rely on."""

from pathlib import Path

import debian
import pytest
import report_study
from playwright import sync_api

# No sandbox, because tests may run as root; nothing of Chromium's own may go to the network.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE, PHONE = (1400, 900), (390, 844)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    return report_study.write(tmp_path_factory.mktemp("reported") / "study")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=debian.chromium(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, reported):
    """Open the page; at the end nothing may have been complained of or asked for."""
    complaints, requests, contexts = [], [], []

    def visit(size=WIDE, scheme="light", fragment="", **options):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda fault: complaints.append(str(fault)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{reported[0].as_uri()}{fragment}")
        return page

    yield visit
    harmed = [page.evaluate("window.harmed") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert complaints == []
    fetched = {address.partition("#")[0] for address in requests if not address.startswith(("data:", "blob:"))}
    assert fetched == {reported[0].as_uri()}
    assert not any(harmed)


def ids(page):
    return page.locator("#cell-table tbody tr:visible").evaluate_all("rows => rows.map(row => row.dataset.id)")


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, size, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(size, scheme)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    states = [lambda: None, page.locator("#cell-table button.link").first.click]
    states += [lambda: (page.keyboard.press("Escape"), page.locator("button.zoom").first.click())]
    for reach in states:
        reach()
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in {"serious", "critical"}]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in serious] == []


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_page_is_no_wider_than_the_window(visit, size):
    assert visit(size).evaluate("document.documentElement.scrollWidth") <= size[0]


def test_sorting(visit, reported):
    page, summary = visit(), reported[1].cells.set_index("id")
    head = page.locator('th[data-key="accuracy"]')
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    order = ids(page)
    accuracy = summary.accuracy.reindex(order)
    present = accuracy.dropna()
    assert present.is_monotonic_increasing
    assert accuracy[len(present) :].isna().all()  # what is missing comes last
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    accuracy = summary.accuracy.reindex(ids(page))
    assert accuracy.dropna().is_monotonic_decreasing
    assert accuracy[len(present) :].isna().all()
    page.locator('th[data-key="r"]').get_by_role("button").click()
    assert summary.r.reindex(ids(page)).is_monotonic_increasing  # as numbers: 16 after 4
    assert head.get_attribute("aria-sort") is None


def test_filtering(visit, reported):
    page, cells = visit(), reported[1].cells
    page.locator("#filters").get_by_label("Method").select_option("qlora")
    page.locator("#filters").get_by_label("Alpha").select_option("16.0")
    wanted = cells[(cells.method == "qlora") & (cells.alpha == 16)].id.tolist()
    assert ids(page) == wanted
    assert page.locator("#shown").inner_text() == f"{len(wanted)} of {len(cells)} cells"
    page.get_by_role("button", name="Clear").click()
    sync_api.expect(page.locator("#shown")).to_have_text(f"{len(cells)} of {len(cells)} cells")
    page.get_by_label("Name contains").fill("ALL-linear_r8")
    assert ids(page) == cells[cells.id.str.contains("all-linear_r8")].id.tolist()
    page.get_by_label("Name contains").fill("")
    page.locator("#filters").get_by_label("Status").select_option("diverged")
    assert ids(page) == [report_study.DIVERGED]


def test_the_panel_shows_the_cell(visit, reported):
    cell = "qlora_all-linear_r16_a32_s0"
    page, row = visit(), reported[1].summary.set_index("id").loc["qlora_all-linear_r16_a32_s0"]
    page.get_by_role("button", name=cell, exact=True).click()
    panel = page.locator("#panel")
    assert panel.get_by_role("heading", level=2).inner_text() == cell
    assert f"{row.accuracy:.3f}" in panel.locator("table").first.inner_text()
    assert "from 1.6 at step 2 to 1 at step 10" in panel.locator("svg.curve").get_attribute("aria-label")
    matrix = panel.get_by_role("region", name="Confusion matrix")
    counts = [
        [int(text) for text in line.locator("td").all_inner_texts()[:-1]] for line in matrix.locator("tbody tr").all()
    ]
    assert counts == reported[1].confusion[cell]
    assert "4 <i>stars</i>" in matrix.inner_text()
    shown = panel.locator(".errors li")
    assert shown.count() == 10
    text = panel.locator(".errors").text_content()
    assert any(hostile in text for hostile in report_study.HOSTILE[:2])
    panel.get_by_text("Settings", exact=True).click()
    assert "learning_rate" in panel.inner_text()
    assert page.url.endswith(f"#cell={cell}")


def test_next_follows_the_order_of_the_table(visit):
    page = visit()
    page.locator('th[data-key="accuracy"]').get_by_role("button").click()
    order = ids(page)
    page.get_by_role("button", name=order[0], exact=True).click()
    page.get_by_role("button", name="Next").click()
    assert page.locator("#panel-title").inner_text() == order[1]
    page.get_by_role("button", name="Previous").click()
    page.get_by_role("button", name="Previous").click()
    assert page.locator("#panel-title").inner_text() == "prompt"  # round to the baselines, which come last


def test_a_link_opens_a_cell(visit):
    page = visit(fragment=f"#cell={report_study.DIVERGED}")
    assert "diverged at step 4" in page.locator("#panel").inner_text()


def test_a_cell_that_has_not_run_says_why(visit):
    page = visit(fragment=f"#cell={report_study.MISSING}")
    assert "missing: not run yet" in page.locator("#panel").inner_text()


def test_by_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = []
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.dataset.open ?? document.activeElement.className"))
        if reached[-1] == "lora_attention_r4_a32_s0":
            break
    assert reached[-1] == "lora_attention_r4_a32_s0"
    assert {"zoom", "sort", "scroll"} <= set(reached)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    assert page.locator("#panel").is_visible()
    inside = []
    for _ in range(40):  # the focus does not leave the panel for the page behind it
        page.keyboard.press("Tab")
        inside.append(
            page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#panel')")
        )
    assert all(inside)
    page.keyboard.press("Escape")
    assert not page.locator("#panel").is_visible()
    assert page.evaluate("document.activeElement.dataset.open") == "lora_attention_r4_a32_s0"


def test_sorting_by_keyboard(visit):
    page = visit()
    page.locator('th[data-key="seconds"] button').focus()
    page.keyboard.press("Space")
    assert page.locator('th[data-key="seconds"]').get_attribute("aria-sort") == "ascending"


def test_dark_mode(visit):
    def ground(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, page = ground(visit()), visit(scheme="dark")
    dark = ground(page)
    assert light != dark
    theme = page.locator("#theme")
    theme.click()
    assert (theme.get_attribute("aria-label"), ground(page)) == ("Theme: light", light)
    theme.click()
    assert (theme.get_attribute("aria-label"), ground(page)) == ("Theme: dark", dark)
    page.reload()
    assert (theme.get_attribute("aria-label"), ground(page)) == ("Theme: dark", dark)


def test_a_figure_is_enlarged(visit):
    page = visit()
    page.locator('button[data-zoom="r_trend"]').click()
    image = page.locator("#lightbox-image")
    before = image.bounding_box()["width"]
    assert before > 1000
    page.get_by_role("button", name="Larger").click()
    assert image.bounding_box()["width"] == pytest.approx(1.25 * before, rel=0.01)
    page.keyboard.press("0")
    assert image.bounding_box()["width"] == pytest.approx(before, rel=0.01)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.zoom") == "r_trend"


def test_a_download_is_the_file(visit, reported, tmp_path):
    page = visit(accept_downloads=True)
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download summary.csv").first.click()
    begun.value.save_as(tmp_path / "summary.csv")
    assert begun.value.suggested_filename == "summary.csv"
    assert (tmp_path / "summary.csv").read_bytes() == (
        Path(reported[0]).parent / "results" / "summary.csv"
    ).read_bytes()


def test_without_javascript_the_numbers_are_there(browser, reported):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reported[0].as_uri())
    assert page.locator("#cell-table tbody tr").count() == len(reported[1].cells)
    assert not page.locator("#filters").is_visible()
    context.close()
