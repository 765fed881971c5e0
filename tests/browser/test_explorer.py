"""The explorer in a real browser, from the file system: keys, links to steps, filters, no JavaScript, narrow, print."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HTML = Path(__file__).resolve().parents[2] / "_build/html/en/8-appendix"
PASSES, SCHEDULES = HTML / "pass-explorer.html", HTML / "schedule-explorer.html"
CURRENT = ".explorer-steps [aria-selected=true]"


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """``visit(path, fragment)`` opens a page; what the console says is an error of the test."""
    for path in (PASSES, SCHEDULES):
        if not path.is_file():
            pytest.skip("the book is not built: make html")
    said: list[str] = []
    contexts = []

    def go(path: Path, fragment: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto(path.as_uri() + fragment)
        if options.get("java_script_enabled", True):
            page.wait_for_selector(CURRENT)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not said


def number(page: Any) -> int:
    return int(page.locator(f"{CURRENT} .explorer-number").inner_text())


def test_keys_step_through_the_passes(visit: Any) -> None:
    page = visit(PASSES)
    page.locator(".explorer-steps").focus()
    assert number(page) == 1
    for key, expected in [
        ("j", 2), ("ArrowDown", 3), ("ArrowRight", 4), ("k", 3), ("ArrowUp", 2), ("ArrowLeft", 1), ("ArrowLeft", 1),
    ]:  # fmt: skip
        page.keyboard.press(key)
        assert number(page) == expected
    page.keyboard.press("End")
    last = number(page)
    assert last == page.locator(".explorer-steps [role=option]").count() > 60
    page.keyboard.press("Home")
    page.keyboard.press("?")
    assert page.locator(".explorer-help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".explorer-help").is_visible()
    page.keyboard.press("f")
    box = page.locator(".explorer-ui").bounding_box()
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 1280, 900)
    page.keyboard.press("Escape")
    assert page.locator(".explorer-ui").bounding_box()["width"] < 1280


def test_keys_do_nothing_outside(visit: Any) -> None:
    page = visit(PASSES)
    page.locator("h1").last.click()
    page.keyboard.press("j")
    assert number(page) == 1


def test_a_link_leads_to_a_step_and_back(visit: Any) -> None:
    page = visit(PASSES, "#module=gpu&pass=FuseOps")
    assert page.locator(f"{CURRENT} .explorer-name").inner_text() == "FuseOps"
    assert page.locator(".explorer-bar select").first.input_value() == "gpu"
    assert page.evaluate("document.activeElement.className") == "explorer-steps"
    page.keyboard.press("j")
    assert page.evaluate("location.hash") == f"#module=gpu&pass={number(page)}"
    address = page.url
    here = number(page)
    again = visit(PASSES, address.partition("#")[1] + address.partition("#")[2])
    assert number(again) == here
    again.evaluate("location.hash = '#module=mlp&pass=3'")
    again.wait_for_function(f"document.querySelector('{CURRENT}').textContent.includes('LegalizeOps')")


def test_the_difference_is_that_of_the_pass(visit: Any) -> None:
    page = visit(PASSES, "#module=mlp&pass=s_tir.LowerInitBlock")
    gone = page.locator(".explorer-text del, del.explorer-text").all_inner_texts()
    come = page.locator(".explorer-text ins, ins.explorer-text").all_inner_texts()
    assert any("init" in text for text in gone) and any("if" in text for text in come)
    assert page.locator(".explorer-what").inner_text().endswith("+2 −2")
    # The links are those of the table below.
    assert page.locator(".explorer-said a").nth(0).get_attribute("href").startswith("../1-architecture/pipeline.html#")
    assert "lower_init_block.cc" in page.locator(".explorer-said a").nth(1).get_attribute("href")
    # All text of a module can be opened.
    for _ in range(40):
        if not page.locator(".explorer-more").count():
            break
        page.locator(".explorer-more").first.click()
    after = "\n".join(page.locator(".explorer-row > :last-child .explorer-text").all_inner_texts())
    assert "def main" not in after and "def matmul1" in after and "with T.init" not in after


def test_filters(visit: Any) -> None:
    page = visit(PASSES)
    every = page.locator(".explorer-steps [role=option]").count()
    page.locator(".explorer-bar input").check()
    changing = page.locator(".explorer-steps [role=option]").count()
    assert 0 < changing < every
    page.locator(".explorer-bar select").nth(1).select_option("=relu")
    of_relu = page.locator(".explorer-steps [role=option]").count()
    assert 0 < of_relu < changing
    page.locator(".explorer-steps").focus()
    page.keyboard.press("Home")
    functions = page.locator(".explorer-function").all_inner_texts()
    assert functions == ["relu"]
    page.keyboard.press("c")
    assert page.locator(".explorer-steps [role=option]").count() == every


def test_steps_of_a_schedule(visit: Any) -> None:
    page = visit(SCHEDULES, "#module=tuned&pass=SamplePerfectTile")
    assert "Decision" in page.locator(".explorer-said").inner_text()
    assert "sample_perfect_tile" in page.locator(".explorer-what").inner_text()
    page.locator(".explorer-steps").focus()
    page.keyboard.press("j")
    assert "split" in page.locator(".explorer-what").inner_text()
    assert page.locator(".explorer-both, .explorer-come").count() > 0


@pytest.mark.parametrize("path", [PASSES, SCHEDULES], ids=["passes", "schedules"])
def test_without_javascript_a_list_remains(visit: Any, path: Path) -> None:
    page = visit(path, java_script_enabled=False)
    assert page.locator(".explorer-ui").count() == 0
    table = page.locator("table.explorer-list").first
    assert table.is_visible()
    text = table.inner_text()
    assert "unchanged" in text and "+" in text and "−" in text
    assert ("LegalizeOps" in text) if path is PASSES else ("sch.split" in text)


def test_print_shows_the_list(visit: Any) -> None:
    page = visit(PASSES)
    assert not page.locator("table.explorer-list").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator("table.explorer-list").first.is_visible() and not page.locator(".explorer-ui").is_visible()


def test_narrow(visit: Any) -> None:
    page = visit(PASSES, "#module=mlp&pass=tirx.FlattenBuffer", viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator(".explorer-diff").evaluate("node => node.scrollWidth <= node.clientWidth")
    changed = page.locator(".explorer-both").first
    before, after = (changed.locator("> div").nth(at).bounding_box() for at in (0, 1))
    assert after["y"] >= before["y"] + before["height"] - 1, "before and after stand one above the other"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", [PASSES, SCHEDULES], ids=["passes", "schedules"])
def test_accessible(visit: Any, path: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    fragment = "#module=mlp&pass=tirx.FlattenBuffer" if path is PASSES else "#module=ladder&pass=Split"
    page = visit(path, fragment, color_scheme=scheme)
    page.keyboard.press("?")
    found = axe.Axe().run(page, context=".explorer", options={"preload": False}).response["violations"]
    assert not [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
