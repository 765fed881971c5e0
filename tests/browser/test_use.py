"""What a reader does with a page: keyboard, phone, dark mode, paper, search, no script."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tour

PAGE = "8-appendix/template.html"
FOCUS = """() => {
  const at = document.activeElement, style = getComputedStyle(at);
  return {text: (at.innerText.slice(0, 60) || at.getAttribute("aria-label") || at.title || "").trim(),
          tag: at.localName, classes: at.className, href: at.getAttribute("href"),
          shown: style.outlineStyle !== "none" || style.boxShadow !== "none" || style.borderStyle !== "none"};
}"""


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    opened = browser.new_page(viewport=tour.DESKTOP)
    opened.goto(address + PAGE)
    yield opened
    opened.close()


def test_the_first_key_leads_to_the_text(page: Any) -> None:
    page.keyboard.press("Tab")
    first = page.evaluate(FOCUS)
    assert first["href"] == "#main-content", first
    # It slides into the page.
    page.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0", timeout=5000)
    box = page.locator(":focus").bounding_box()
    assert box and box["height"] > 10, "the link is not seen when it has the focus"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"


def test_all_controls_are_reached_and_show_the_focus(page: Any) -> None:
    seen = []
    for _ in range(25):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(FOCUS))
    hidden = [at for at in seen if not at["shown"]]
    assert not hidden, hidden
    classes = " ".join(str(at["classes"]) for at in seen)
    assert "search-button" in classes and "navbar-brand" in classes, seen
    assert any(at["tag"] == "summary" for at in seen), "the parts in the sidebar cannot be unfolded by keys"


def test_a_part_unfolds_by_key(page: Any) -> None:
    summary = page.locator("nav.bd-docs-nav details:not([open]) > summary").first
    name = summary.get_attribute("aria-label")
    assert name, "the arrow has no name"
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator(f'nav.bd-docs-nav details[open] > summary[aria-label="{name}"]').count() == 1


def test_dark_mode_is_dark_and_is_kept(page: Any, address: str) -> None:
    shade = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert min(page.evaluate(shade)) > 240
    page.locator(".theme-switch-button").click()
    page.locator('.theme-change-button[data-mode="dark"]').click()
    assert max(page.evaluate(shade)) < 60
    light, dark = (page.locator(f"article img.only-{mode}").first for mode in ("light", "dark"))
    assert dark.is_visible() and not light.is_visible()
    page.goto(address + PAGE)
    assert max(page.evaluate(shade)) < 60


def test_a_phone_has_the_list_of_pages(browser: Any, address: str) -> None:
    page = browser.new_page(viewport=tour.PHONE)
    page.goto(address + PAGE)
    assert not page.locator("#pst-primary-sidebar").is_visible()
    page.locator("button.primary-toggle").first.click()
    page.locator("#pst-primary-sidebar-modal nav.bd-docs-nav").wait_for(state="visible")
    page.keyboard.press("Escape")
    page.locator("#pst-primary-sidebar-modal nav.bd-docs-nav").wait_for(state="hidden")
    page.close()


def test_paper_has_the_text_and_no_controls(page: Any) -> None:
    page.emulate_media(media="print")
    for gone in ("#pst-primary-sidebar", ".bd-header-article", ".prev-next-footer", ".cell-origin", ".page-forms"):
        assert not any(found.is_visible() for found in page.locator(gone).all()), gone
    assert page.locator("article .gallery-cell").first.is_visible()
    cut = page.evaluate(
        "() => [...document.querySelectorAll('article pre')].filter((p) => p.checkVisibility() && "
        "(p.scrollHeight > p.clientHeight + 2 || p.scrollWidth > p.clientWidth + 2)).length"
    )
    assert cut == 0, f"{cut} blocks of code or output are cut off on paper"
    assert page.locator("details.solution .gallery-cell, details .gallery-cell").first.is_visible(), (
        "solutions are folded"
    )


def test_without_scripts_the_page_is_whole(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + PAGE)
    assert page.locator("article .gallery-cell").first.is_visible()
    assert page.locator("nav.bd-docs-nav a").first.is_visible()
    assert not page.locator(".theme-switch-button").is_visible()
    context.close()


def test_the_search_button_leads_to_results(page: Any) -> None:
    page.keyboard.press("Control+K")
    page.locator("#pst-search-dialog input").fill("PrimFunc")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.locator("#search-results li").first.wait_for()


def test_formulas_need_no_script(page: Any) -> None:
    from tvm_deepdive_helpers.sphinxext.web import mathml

    formula = mathml(r"\frac{a_i}{2} + \sum_{k=0}^{n} x_k", block=False)
    page.set_content(f"<p>{formula}</p>")
    box = page.locator("math").bounding_box()
    assert box and box["width"] > 40 and box["height"] > 15
