"""The machinery of the practice projects, on a small project."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tvm_deepdive_helpers import practice

ROOT = Path(__file__).resolve().parent.parent

CHECKS = '''
import time
from tvm_deepdive_helpers.practice import Project, doing, require

PROJECT = Project(
    "loops", title="Loops", page="7-practice/loops", limit=20,
    wants={"twice(n)": "two times `n`", "LIMIT": "a number", "kind()": "a string"},
)

@PROJECT.check(1, "Numbers", hint="Hint 1: doubling")
def test_five(solution):
    """Five is doubled."""
    require(solution.twice(5) == 10, f"`twice(5)` must be 10, and is {solution.twice(5)}.")

@PROJECT.check(1, "Numbers", limit=2)
def test_zero(solution):
    """Zero stays."""
    require(solution.twice(0) == 0, "`twice(0)` must be 0.")

@PROJECT.check(2, "Kinds")
def test_kind(solution):
    """The kind is known."""
    with doing("asking for the kind"):
        int(solution.kind())
    require(solution.LIMIT > 0, "`LIMIT` must be positive.")
    return f"The limit is {solution.LIMIT}."
'''
GOOD = "LIMIT = 1\ndef twice(n):\n    return 2 * n\ndef kind():\n    return '7'\n"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Run the checks of the small project on a text."""
    monkeypatch.setattr(practice, "CHECKS", tmp_path)
    (tmp_path / "test_loops.py").write_text(CHECKS, encoding="utf-8")
    project = practice.load_project("loops")

    def run(text, names=None):
        path = tmp_path / "mine.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return practice.run_checks(project, path, names)

    run.path = tmp_path / "mine.py"
    return run


def states(outcomes):
    return [outcome.state for outcome in outcomes.values()]


def test_a_right_solution(check, capsys):
    assert states(check(GOOD)) == ["ok", "ok", "ok"]
    assert practice.report("loops", check.path)
    out = capsys.readouterr().out
    assert out.endswith("  ok     The kind is known\n         The limit is 1.\n\n3 of 3 checks passed. Well done.\n")


def test_an_explanation_with_its_hint(check, capsys):
    outcomes = check(GOOD.replace("2 * n", "3 * n"))
    assert states(outcomes) == ["fails", "ok", "waits"]
    assert outcomes["test_five"].text == "`twice(5)` must be 10, and is 15."
    assert not practice.report("loops", check.path)
    assert capsys.readouterr().out == textwrap.dedent("""\
        Loops: mine.py

        Stage 1: Numbers
          fails  Five is doubled
                 `twice(5)` must be 10, and is 15.
                 Help: "Hint 1: doubling" on the page 7-practice/loops
          ok     Zero stays

        Stage 2: Kinds
          waits  The kind is known

        1 of 3 checks passed.
        """)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"has no `twice`. The brief asks for `twice\(n\)`. It must return two times `n`"),
        ("twice = 2", "`twice` is int, and not a function"),
        ("def twice():\n    pass", r"`twice\(\)` cannot be called as the brief says, `twice\(n\)`"),
        (
            "def twice(n):\n    raise NotImplementedError",
            r"`twice` is not written yet \(mine.py, line 2\). It must return two times",
        ),
        ("def twice(n):\n    return n / 0", r"raised an error.*line 2, in twice:\n    return n / 0\nZeroDiv"),
        ("def twice(n):\n    assert False, 'me'", "mine.py, line 2, in twice.*AssertionError: me"),
        ("import nothing_such", "cannot be loaded.*mine.py, line 1:\n    import nothing_such\nModuleNotFoundError"),
        ("def twice(n:\n    return 1", "mine.py, line 1: SyntaxError: .*\n    def twice"),
        ("raise SystemExit(3)", "cannot be loaded.*SystemExit: 3"),
        ("print('here'); import os; os.abort()", r"died \(SIGABRT\) during loading your file.*    here"),
        ("def twice(n):\n    import os; os._exit(4)", r"died \(status 4\) during this check"),
    ],
)
def test_what_is_wrong_is_said(check, text, says):
    assert re.search(says, check(text)["test_five"].text, re.S)


def test_a_process_that_dies_takes_no_other_check_along(check):
    outcomes = check("def twice(n):\n    import os\n    return 2 * n or os.abort()")
    assert states(outcomes) == ["ok", "fails", "waits"]
    outcomes = check("def twice(n):\n    import os\n    return 2 * n if n == 0 else os.abort()")
    assert states(outcomes) == ["fails", "ok", "waits"]


def test_a_check_that_never_ends(check):
    began = time.monotonic()
    outcomes = check("def twice(n):\n    while n == 0: pass\n    return 2 * n")
    assert states(outcomes) == ["ok", "fails", "waits"]
    assert "longer than 2 s" in outcomes["test_zero"].text
    assert time.monotonic() - began < 15


def test_a_step_is_named(check):
    text = check(GOOD.replace("'7'", "'x'"))["test_kind"].text
    assert text.startswith("This failed while asking for the kind:\nValueError")
    text = check(GOOD.replace("return '7'", "raise KeyError(3)"))["test_kind"].text
    assert text.startswith("Your code raised an error while asking for the kind.\nmine.py, line 5, in kind:")


def test_what_stands_below_the_end_is_not_run(check):
    assert states(check(GOOD + f"{practice.END}; the rest measures\nraise ValueError\n")) == ["ok", "ok", "ok"]


def test_only_the_named_checks(check):
    assert list(check(GOOD, ["test_zero"])) == ["test_zero"]


def test_the_command(check, capsys, tmp_path):
    assert practice.main(["loop", "mine.py"]) == 2
    assert "no project 'loop'; the projects are: loops" in capsys.readouterr().err
    assert practice.main(["loops", str(tmp_path / "absent.py")]) == 2
    assert re.search("there is no file .*absent.py", capsys.readouterr().err)
    check(GOOD)
    assert practice.main(["loops", str(check.path)]) == 0


def pytest_on(folder, *options):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)


def test_the_options_of_pytest():
    done = pytest_on(ROOT, "tests/practice", "--solution", "absent.py", "-k", "no_such")
    assert done.returncode == 4 and "no project is chosen; the projects are:" in done.stdout, done.stdout
