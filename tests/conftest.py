"""Fixtures of all tests: a small book in a temporary folder, and the real one, built."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from books import Book, build_edition


@pytest.fixture(scope="session")
def english_book() -> Path:
    """The folder of the English edition, built."""
    return build_edition("en")


@pytest.fixture(scope="session")
def edition_folder() -> Path:
    """The folder of the edition that `make test EDITION=…` names, built."""
    return build_edition(os.environ.get("EDITION", "en"))


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)
