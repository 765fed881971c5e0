"""The built book in a real browser; skipped where no Chromium is installed, but never in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tour


@pytest.fixture(scope="session")
def chromium() -> str:
    """The program of the browser."""
    found = tour.find_chromium()
    if found is None:
        message = "no Chromium on the PATH: install the package 'chromium' (Debian, Fedora) or Google Chrome"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser for tests that act on single pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=tour.ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(edition_folder: Path) -> Iterator[str]:
    """Where the edition is served."""
    with tour.serve(edition_folder) as base:
        yield base
