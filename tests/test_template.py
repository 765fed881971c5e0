"""The page template uses all of the vocabulary that CONTRIBUTING.md teaches, so that neither can go stale alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGE = (ROOT / "book/8-appendix/template.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "gallery/8-appendix/template.py").read_text(encoding="utf-8")

DIRECTIVES = sorted(set(re.findall(r"^`{3,}\{([\w-]+)\}", REFERENCE, re.M)))
ROLES = sorted(set(re.findall(r"\{([a-z-]+)\}`", REFERENCE)))
OPTIONS = sorted(set(re.findall(r"(?:^|`):([a-z]+):", REFERENCE, re.M)))


def test_the_reference_names_the_vocabulary() -> None:
    """Guards the patterns above: an empty list would test nothing."""
    assert {"question", "gallery-cell", "quote", "exercise", "solution-cell", "summary"} <= set(DIRECTIVES)
    assert {"glue", "tvm-py", "tvm-cpp"} <= set(ROLES)
    assert {"show", "caption", "alt", "language", "lines", "label"} <= set(OPTIONS)


@pytest.mark.parametrize("name", DIRECTIVES)
def test_directive(name: str) -> None:
    assert re.search(rf"^```\{{{name}\}}", PAGE, re.M)


@pytest.mark.parametrize("name", ROLES)
def test_role(name: str) -> None:
    assert re.search(rf"(?<!`` )\{{{name}\}}`[^`]+`", PAGE)


@pytest.mark.parametrize("name", OPTIONS)
def test_option(name: str) -> None:
    assert re.search(rf"^:{name}:", PAGE, re.M)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\{glue\}`[^`:|]+`",  # a value of the page's script
        r"\{glue\}`[^`]+/[^`]+:[^`]+`",  # of a script named in full
        r"\{glue\}`[^`]+\|[^`]+`",  # with a format
        r"\{tvm-py\}`[\w.]+`",  # a symbol
        r"\{tvm-py\}`[\w/]+\.py`",  # a file
        r"\{tvm-py\}`[^`<]+ <[\w.]+>`",  # with its own text
        r"\{tvm-cpp\}`[\w/]+\.cc:\w+`",  # symbol in a file
        r"\{tvm-cpp\}`[\w/]+\.cc`",  # file
    ],
)
def test_form_of_a_role(pattern: str) -> None:
    assert re.search(pattern, PAGE)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^# %% cell: [a-z-]+$",
        r"^# %% cell: [a-z-]+, varies$",
        r"^# %% check$",
        r"^# gallery: timeout=\d+$",
        r"^glue\(.*varies=True\)$",
        r"^with expect_error\(\w+, match=",
        r"^assert ",
    ],
)
def test_mark_of_a_script(pattern: str) -> None:
    assert re.search(pattern, SCRIPT, re.M)
