"""The bibliography: what every entry must have, and that entries stay at their place in HTML and in print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pybtex.database import parse_file

from tvm_deepdive_helpers.sphinxext.bibliography import address, mark

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = parse_file(ROOT / "gallery/data/references.bib").entries.values()
LIST = (ROOT / "book/8-appendix/reading-list.md").read_text(encoding="utf-8")
LEVELS = {"introductory", "intermediate", "research"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_an_entry_is_whole(entry) -> None:
    assert entry.persons["author"]
    for name in ("title", "year", "topic", "level", "annotation"):
        assert entry.fields.get(name, "").strip(), name
    assert entry.fields["level"] in LEVELS
    assert re.fullmatch(r"(19|20)\d\d", entry.fields["year"])
    assert f'topic % "{entry.fields["topic"]}"' in LIST, "no bibliography of the reading list shows this topic"
    assert re.match(r"https://[\w.-]+\.\w+(/|$)", address(entry))
    assert re.search(r"[.?]$", entry.fields["annotation"])
    assert "\\" not in entry.fields["annotation"]


def test_marks_and_addresses_are_unique() -> None:
    for values in ([mark(entry) for entry in ENTRIES], [address(entry) for entry in ENTRIES]):
        assert [value for value, number in Counter(values).items() if number > 1] == []


def test_every_topic_of_the_list_has_entries() -> None:
    topics = {entry.fields["topic"] for entry in ENTRIES}
    assert set(re.findall(r'topic % "(\w+)"', LIST)) == topics


def test_citations_name_entries() -> None:
    keys = {entry.key for entry in ENTRIES}
    for path in sorted((ROOT / "book").glob("*/*.md")):
        for names in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text(encoding="utf-8")):
            assert set(re.split(r"\s*,\s*", names)) <= keys, f"{path.name}: {names}"


BIB = """
@misc{a, author = {Doe, Jane and others}, title = {Zebra: An IR}, year = {2020}, url = {https://example.org/z},
  topic = {one}, level = {research}, annotation = {Stripes.}}
@article{b, author = {Roe, Rick}, title = {A {GPU}}, journal = {TOG}, year = {2021}, doi = {10.1/x},
  topic = {two}, level = {research}, annotation = {Dots.}}
"""
PAGE = """# Title

See {cite}`b`.

## First

```{bibliography}
:filter: topic % "one"
```

## Second

```{bibliography}
:filter: topic % "two"
```
"""
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
extensions = ["myst_parser", "sphinxcontrib.bibtex", "tvm_deepdive_helpers.sphinxext.bibliography"]
bibtex_bibfiles = ["a.bib"]
bibtex_default_style = "book"
"""


@pytest.mark.parametrize("builder", ["html", "latex", "gettext"])
def test_entries_stand_under_their_topic(tmp_path: Path, builder: str) -> None:
    for name, text in {"conf.py": CONF, "index.md": PAGE, "a.bib": BIB}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", builder, str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    if builder == "gettext":
        return
    name = "index.html" if builder == "html" else next((tmp_path / "out").glob("*.tex")).name
    text = (tmp_path / "out" / name).read_text(encoding="utf-8")
    places = [text.rindex(word) for word in ("First", "Stripes", "Second", "Dots")]
    assert places == sorted(places), "an entry left its section"
    assert "Zebra 2020" in text and "Roe 2021" in text and "Jane Doe and others" in text
    if builder == "latex":
        assert r"\bibitem" not in text
        link = re.search(r"\\hyperlink\{([^}]+)\}\{Roe 2021\}", text)
        assert link and rf"\hypertarget{{{link[1]}}}" in text, text[-3000:]


def test_the_citation_file_on_the_page_is_the_present_one() -> None:
    """A script does not run again when a file changes that is not in gallery/data."""
    accepted = (ROOT / "tests/snapshots/8-appendix/colophon.txt").read_text(encoding="utf-8")
    assert (ROOT / "CITATION.cff").read_text(encoding="utf-8").strip() in accepted
