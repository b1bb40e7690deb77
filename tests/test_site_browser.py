"""The site in a real browser: no errors, the controls work, axe finds no serious fault.

Needs Chromium, Playwright and axe (`pip install zfcore[browser]`); skipped without them. ZFCORE_SCREENSHOTS
names a folder for pictures of the pages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

PAGES = ["index.html", "about.html", "layer/conv1/index.html", "layer/block_a/1.html", "layer/fc/0.html",
         "occlusion/hidden/index.html", "evolution/grown/index.html", "invariance/moved/index.html",
         "correspondence/parts/index.html", "architecture/first/index.html", "explanation/why/index.html",
         "run/trained/index.html", "embedding/space_fc/index.html", "something/else/index.html"]
DARK = ["index.html", "layer/conv1/index.html", "layer/block_a/1.html", "occlusion/hidden/index.html",
        "invariance/moved/index.html"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test for anything on the console and for requests outside the site."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    faults: list[str] = []
    found.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("requestfailed", lambda request: None if request.failure == "net::ERR_ABORTED" else  # by leaving the page
             faults.append(f"failed: {request.url} {request.failure}"))
    found.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
    yield found
    context.close()
    assert not faults, faults


def go(page: Any, site: Path, path: str) -> None:
    page.goto((site / path).as_uri())


@pytest.mark.parametrize(("path", "scheme"), [(path, "light") for path in PAGES] + [(path, "dark") for path in DARK])
def test_pages_load_and_axe_finds_no_serious_fault(page: Any, site: Path, path: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    go(page, site, path)
    assert page.title()
    found = axe_playwright.Axe().run(page, options={"preload": False})  # files may not be fetched
    serious = [(each["id"], each["nodes"][0]["html"][:200]) for each in found.response["violations"]
               if each["impact"] in ("serious", "critical")]
    assert not serious
    if folder := os.environ.get("ZFCORE_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{path.replace('/', '-')}-{scheme}.png"), full_page=True)


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_wider_than_a_phone(page: Any, site: Path, path: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    go(page, site, path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_search_by_unit_number_and_class(page: Any, site: Path) -> None:
    go(page, site, "index.html")
    page.keyboard.press("/")
    page.keyboard.type("block/a 1")
    page.wait_for_selector("#found li")
    page.keyboard.press("Enter")
    page.wait_for_url("**/layer/block_a/1.html")
    page.keyboard.press("/")
    page.keyboard.type("3")  # on a layer's page a number is enough
    page.wait_for_selector("#found li")
    page.keyboard.press("Enter")
    page.wait_for_url("**/layer/block_a/3.html")
    page.fill("#find", "conv1:99")
    page.wait_for_selector("#find.unknown")
    page.fill("#find", "<script>alert")
    page.wait_for_selector("#found li small")
    assert "of its images" in page.inner_text("#found li small")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#find", "aria-activedescendant") in ("found-0", "found-1")
    page.keyboard.press("Escape")
    assert not page.is_visible("#found")


def test_arrow_keys_turn_units(page: Any, site: Path) -> None:
    go(page, site, "layer/block_a/1.html")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/layer/block_a/3.html")  # map 2 is dead
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/layer/block_a/1.html")


def test_everything_is_reached_by_the_keyboard(page: Any, site: Path) -> None:
    go(page, site, "layer/conv1/index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.name || "
                                  "document.activeElement.id"))
    assert {"0.html", "3.html", "show", "order", "find"} <= reached


def test_a_layers_units_in_another_order_and_as_patches(page: Any, site: Path) -> None:
    go(page, site, "layer/conv1/index.html")
    page.select_option("select[name=order]", "value")
    values = page.eval_on_selector_all("#units li", "items => items.map((item) => Number(item.dataset.value))")
    assert values == sorted(values, reverse=True) and len(values) == 4
    before = page.eval_on_selector(".thumbs .thumb", "item => getComputedStyle(item).backgroundImage")
    page.check("input[value=patches]")
    assert before != page.eval_on_selector(".thumbs .thumb", "item => getComputedStyle(item).backgroundImage")


def test_the_occlusion_slider(page: Any, site: Path) -> None:
    go(page, site, "occlusion/hidden/index.html")
    assert page.eval_on_selector(".over", "item => item.style.opacity") == "0.6"
    page.focus("#strength")
    page.keyboard.press("End")
    assert page.eval_on_selector(".over", "item => item.style.opacity") == "1"
    page.check("input[value='1']")
    assert page.is_visible(".over[data-map='1']") and not page.is_visible(".over[data-map='0']")
    assert page.is_visible(".legend[data-map='1']")


def test_the_epoch_scrubber(page: Any, site: Path) -> None:
    go(page, site, "evolution/grown/index.html")
    assert page.inner_text("#epoch-now") == "2" and page.is_visible("[data-epoch='1']")
    page.focus("#epoch")
    page.keyboard.press("Home")
    assert page.inner_text("#epoch-now") == "1"
    assert page.is_visible("[data-epoch='0']") and not page.is_visible("[data-epoch='1']")


def test_explanations_columns(page: Any, site: Path) -> None:
    go(page, site, "explanation/why/index.html")
    assert page.is_visible("td[data-column='1']")
    page.uncheck("input[value='1']")
    assert not page.is_visible("td[data-column='1']")


def test_it_reads_without_scripts(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    go(page, site, "layer/conv1/0.html")
    assert page.is_visible("text=Where it fired") and page.is_visible(".pair img")
    context.close()
