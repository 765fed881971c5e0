"""Every practice project: its starter fails with explanations, wrong solutions are caught, its page is whole.

That the reference solutions pass is what ``tests/practice`` itself shows.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tvm_deepdive_helpers import practice

ROOT = practice.ROOT
PROJECTS = practice.projects()
MUTATIONS = [
    pytest.param(name, mutation, id=f"{name}-{number}")
    for name in PROJECTS
    for number, mutation in enumerate(practice.load_project(name).mutations)
]


def page(name: str) -> str:
    return (ROOT / f"book/{practice.load_project(name).page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROJECTS)
def test_the_starter_is_refused_with_explanations(name):
    project = practice.load_project(name)
    outcomes = practice.run_checks(project, project.starter)
    failed = {check: outcome for check, outcome in outcomes.items() if outcome.state == "fails"}
    assert failed, "the starter passes all checks"
    for check, outcome in failed.items():
        assert "cannot be loaded" not in outcome.text, outcome.text
        assert "did not expect" not in outcome.text, f"{check} must explain itself: {outcome.text}"
        assert len(outcome.text) > 20, outcome.text


@pytest.mark.parametrize("name", PROJECTS)
def test_there_are_wrong_solutions(name):
    assert len(practice.load_project(name).mutations) >= 2


@pytest.mark.parametrize(("name", "mutation"), MUTATIONS)
def test_a_wrong_solution_is_caught(name, mutation, tmp_path):
    project = practice.load_project(name)
    text = practice.solution_text(project.reference)
    assert text.count(mutation.old) == 1, f"{mutation.old!r} stands {text.count(mutation.old)} times in the reference"
    mutant = tmp_path / "mutant.py"
    mutant.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    stage = project.checks[mutation.caught].stage
    needed = [check.name for check in project.checks.values() if check.stage <= stage]
    outcome = practice.run_checks(project, mutant, needed)[mutation.caught]
    assert outcome.state == "fails", f"{mutation.mistake}: {outcome}"
    assert re.search(mutation.says, outcome.text, re.S), outcome.text
    assert "did not expect" not in outcome.text, f"{mutation.caught} must explain itself: {outcome.text}"


@pytest.mark.parametrize("name", PROJECTS)
def test_the_page_offers_what_the_reader_needs(name):
    text, project = page(name), practice.load_project(name)
    assert "spoiler" in text.lower(), "warn before the reference solution"
    assert re.search(rf"\{{download\}}`[^`]*starters/{name}\.py>?`", text), "offer the starter: {download}"
    assert f"make practice PROJECT={name} SOLUTION=" in text, "say how to run the checks"
    titles = set(re.findall(r"\{dropdown\} +(.+)", text))
    missing = {check.hint for check in project.checks.values() if check.hint} - titles
    assert not missing, f"the checks name hints that the page lacks: {missing}"
    assert f"practice_{name}" in text, "name the reference solution"


FENCE = re.compile(r"```console\n\$ make practice PROJECT=(\w+) SOLUTION=(tests/\S+)\n(.*?)```", re.S)
SHOWN = [
    pytest.param(*match.groups(), id=f"{path.stem}-{match[1]}")
    for path in sorted((ROOT / "book/7-practice").glob("*.md"))
    for match in FENCE.finditer(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("name", "file", "text"), SHOWN)
def test_what_a_page_shows_of_the_checks_is_what_they_say(name, file, text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        practice.report(name, ROOT / file)
    assert text.strip() == out.getvalue().strip()


def test_no_file_without_a_project():
    """A reference or a starter without checks would never be tried."""
    folder = ROOT / "gallery/7-practice"
    assert {path.stem.removeprefix("practice_") for path in folder.glob("*.py")} == set(PROJECTS)
    assert {path.stem for path in Path(practice.CHECKS, "starters").glob("*.py")} == set(PROJECTS)
