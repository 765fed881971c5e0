"""``pytest tests/practice [--solution FILE -k PROJECT]``: the checks on a reader's file, or on the reference solutions.

How a project is made: see ``tvm_deepdive_helpers.practice``. The checks of a project run in a process of its own,
one for all of them; here each becomes a test with its own result.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_deepdive_helpers import practice

OUTCOMES = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--solution", metavar="FILE", help="check this file; without it, the reference solutions")


def given(config) -> Path | None:
    """The reader's file; this option exists only when the folder is named on the command line."""
    name = config.getoption("--solution", default=None)
    return (config.invocation_params.dir / name) if name else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Find out which checks of which project run, after ``-k`` has chosen."""
    wanted: dict[str, tuple[practice.Project, list[str]]] = {}
    for item in items:
        if found := getattr(getattr(item, "function", None), "practice", None):
            wanted.setdefault(found[0].name, (found[0], []))[1].append(found[1].name)
    config.stash[OUTCOMES] = {"wanted": wanted}
    solution = given(config)
    if solution is None:
        return
    names = ", ".join(practice.projects())
    if len(wanted) != 1:
        problem = "no project is chosen" if not wanted else f"these were chosen: {', '.join(wanted)}"
        raise pytest.UsageError(f"--solution needs one project, -k NAME, and {problem}; the projects are: {names}")
    if not solution.is_file():
        raise pytest.UsageError(f"--solution: there is no file {str(solution)!r}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Take the outcome of the check from the process that ran it; start that process for the first one."""
    found = getattr(pyfuncitem.function, "practice", None)
    if found is None:
        return None
    (project, check), stash = found, pyfuncitem.config.stash[OUTCOMES]
    if project.name not in stash:
        path = given(pyfuncitem.config) or project.reference
        stash[project.name] = practice.run_checks(project, path, stash["wanted"][project.name][1])
    outcome = stash[project.name][check.name]
    if outcome.state == "waits":
        pytest.skip(outcome.text)
    if outcome.state == "fails":
        text = practice.explanation(project, check.name, outcome)
        pytest.fail(f"Stage {check.stage}, {check.topic}: {check.title}\n\n{text}", pytrace=False)
    return True


@pytest.fixture
def solution():
    """What the checks get in their own process; in this one nobody looks at it."""
