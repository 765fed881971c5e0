"""From one language to the other, on a small screen, and without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tour

HTML = Path(__file__).resolve().parents[2] / "_build/html"
PAGE = "1-architecture/what-is-tvm.html"

pytestmark = pytest.mark.skipif(not (HTML / "zh_CN" / PAGE).is_file(), reason="run `make html` first")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with tour.serve(HTML) as base:
        yield base


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("screen", [tour.PHONE, tour.DESKTOP], ids=["phone", "desktop"])
def test_the_switch_leads_to_the_same_page(browser: Any, site: str, screen: dict[str, int], scripts: bool) -> None:
    context = browser.new_context(viewport=screen, java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"{site}en/{PAGE}")
    link = page.locator(".language-switch a", has_text="简体中文")
    box = link.bounding_box()
    assert box and box["x"] >= 0 and box["x"] + box["width"] <= screen["width"], "the switch is seen"
    assert box["height"] >= 24, "and a finger can hit it"
    link.click()
    assert page.url == f"{site}zh_CN/{PAGE}"
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.locator(".language-switch a", has_text="English").click()
    assert page.url == f"{site}en/{PAGE}"
    context.close()


def test_every_page_has_the_switch_and_says_where_the_others_are() -> None:
    missing = []
    for edition in ("en", "zh_CN"):
        for path in (HTML / edition).rglob("*.html"):
            text = path.read_text(encoding="utf-8")
            if 'class="bd-article' not in text or path.name == "404.html":
                continue  # a page that only leads on
            named = re.findall(r"<(?:link|a)[^>]*\bhreflang=", text)
            if text.count('class="language-switch"') != 1 or len(named) < 4:
                missing.append(path.relative_to(HTML).as_posix())
    assert not missing, missing


@pytest.mark.parametrize(("languages", "edition"), [("zh-TW", "zh_CN"), ("zh-CN", "zh_CN"), ("en-GB", "en")])
def test_the_first_page_goes_to_the_language_of_the_browser(
    browser: Any, site: str, languages: str, edition: str
) -> None:
    context = browser.new_context(locale=languages)
    page = context.new_page()
    page.goto(site)
    page.wait_for_url(f"{site}{edition}/index.html")
    context.close()


def test_the_first_page_works_without_scripts_and_in_other_languages(browser: Any, site: str) -> None:
    for options in ({"java_script_enabled": False}, {"locale": "fr-FR"}):
        context = browser.new_context(**options)
        page = context.new_page()
        page.goto(site)
        page.locator("a", has_text="简体中文").click()
        assert page.url == f"{site}zh_CN/index.html"
        context.close()
