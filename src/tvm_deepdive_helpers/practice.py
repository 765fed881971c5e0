"""The checks of the practice projects: run them on a reader's file, and say in plain words what is still wrong.

::

    python -m tvm_deepdive_helpers.practice PROJECT FILE

A project has three files that share its name: ``tests/practice/test_NAME.py`` holds the checks, and
``tests/practice/starters/NAME.py`` is what the reader copies; ``gallery/7-practice/practice_NAME.py`` is the reference
solution. The checks are test functions in stages, and stage 2 is only tried when stage 1 is passed.

>>> PROJECT = Project("loops", title="Loops", page="7-practice/loops", wants={"twice(n)": "two times `n`"})
>>> @PROJECT.check(1, "Numbers", hint="Hint 1: doubling")
... def test_five(solution):
...     "Five is doubled"
...     require(solution.twice(5) == 10, "twice(5) must be 10.")

The file that is checked is loaded in a process of its own, which may crash, hang, print and register what it likes. It
is run from the top down to a line that begins with ``# The solution ends here``, if there is one: a script of the
gallery shows and measures below that line what it defined above.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import re
import signal as signals
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .book import clean_message, strip_paths

__all__ = ["Check", "Mutation", "Outcome", "Project", "UsageError", "doing", "load_project", "projects", "report",
           "require", "run_checks"]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ROOT / "tests/practice"

END = "# The solution ends here"
"""A line that begins so ends the part of a file that the checks run."""

_WIDTH = 78
# numpy's BLAS in the checks: its threads spin, which costs more than the small products of a check, and disturbs times.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class UsageError(ValueError):
    """The command cannot be carried out: no such project, no such file."""


class Unmet(AssertionError):
    """A demand that the file does not meet; the message explains it to the reader."""


def require(condition: object, text: str) -> None:
    """Fail the running check with an explanation, unless `condition` is true.

    Parameters
    ----------
    condition : object
        What must hold.
    text : str
        What is wrong and what was expected, in full sentences for the reader of the page.
    """
    if not condition:
        raise Unmet(textwrap.dedent(text).strip())


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Name a step, so that an error in it is explained as one of this step.

    Parameters
    ----------
    what : str
        Continues "while", such as ``compiling a program with your operator``.
    """
    try:
        yield
    except Unmet:
        raise
    except Exception as error:
        if not hasattr(error, "_practice_step"):
            with contextlib.suppress(AttributeError, TypeError):
                error._practice_step = what  # type: ignore[attr-defined]
        raise


@dataclass(frozen=True)
class Check:
    """One check of a project.

    Attributes
    ----------
    name : str
        Name of the test function.
    stage : int
        From 1; a stage is tried when all before it are passed.
    topic : str
        Title of the stage.
    title : str
        What is checked: the first line of the function's docstring.
    hint : str or None
        Title of the hint on the project's page that helps.
    limit : float
        Seconds that it may take.
    """

    name: str
    stage: int
    topic: str
    title: str
    hint: str | None
    limit: float


@dataclass(frozen=True)
class Mutation:
    """A plausible wrong solution: the reference with one text replaced by another.

    Attributes
    ----------
    mistake : str
        What the author of such a solution got wrong.
    old, new : str
        A text that stands once in the reference solution, and what replaces it.
    caught : str
        Name of the check that must fail.
    says : str
        Regular expression that the explanation must match.
    """

    mistake: str
    old: str
    new: str
    caught: str
    says: str = "."


@dataclass
class Project:
    """A practice project, and what its checks need to know of it.

    Attributes
    ----------
    name : str
        As in the names of its three files.
    title : str
        Title for people.
    page : str
        Its page in the book, such as ``7-practice/custom-operator``.
    wants : mapping of str to str
        What the file must define: a signature such as ``legalise(builder, call)``, or only a name, and what it must
        return or be ("the type of the result, a `relax.TensorType`").
    mutations : sequence of Mutation
        Wrong solutions that the checks must catch.
    limit : float
        Seconds that a check may take, unless the check says otherwise.
    """

    name: str
    title: str
    page: str
    wants: Mapping[str, str]
    mutations: Sequence[Mutation] = ()
    limit: float = 120.0
    checks: dict[str, Check] = field(default_factory=dict)

    @property
    def reference(self) -> Path:
        """The script of the gallery that solves it."""
        return ROOT / f"gallery/7-practice/practice_{self.name}.py"

    @property
    def starter(self) -> Path:
        """The file that readers begin with."""
        return CHECKS / f"starters/{self.name}.py"

    @property
    def tests(self) -> Path:
        """The file of the checks."""
        return CHECKS / f"test_{self.name}.py"

    def check(
        self, stage: int, topic: str, *, hint: str | None = None, limit: float | None = None
    ) -> Callable[[Callable[[Any], str | None]], Callable[[Any], str | None]]:
        """Make a check of a test function that takes `solution`; its docstring's first line is the title.

        `solution` has what the file defines as attributes, and explains what is missing. A function that passes may
        return a sentence, such as a measured value, which the report shows.
        """

        def register(function: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
            title = (inspect.getdoc(function) or function.__name__).splitlines()[0].rstrip(".")
            check = Check(function.__name__, stage, topic, title, hint, limit or self.limit)
            self.checks[check.name] = check
            function.practice = (self, check)  # type: ignore[attr-defined]
            return function

        return register


@dataclass(frozen=True)
class Outcome:
    """How a check went.

    Attributes
    ----------
    state : str
        ``ok``, ``fails``, or ``waits``: a stage before it is not passed.
    text : str
        The explanation, if it fails; what it waits for; a remark, if it passes.
    """

    state: str
    text: str = ""


# ------------------------------------------------------------------------------------------ finding the files


def projects() -> list[str]:
    """Names of all projects."""
    return sorted(path.stem.removeprefix("test_") for path in CHECKS.glob("test_*.py"))


def load_project(name: str) -> Project:
    """The project of this name; `UsageError` lists those that there are."""
    if name not in projects():
        raise UsageError(f"there is no project {name!r}; the projects are: {', '.join(projects())}")
    return _project_of(CHECKS / f"test_{name}.py")


def _project_of(path: Path) -> Project:
    module = _module(f"practice_checks_{path.stem}", path, path.read_text(encoding="utf-8"))
    return module.PROJECT


def _module(name: str, path: Path, text: str) -> types.ModuleType:
    """A module made of a text; `path` is where TVMScript and tracebacks read it again."""
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    return module


def solution_text(path: Path) -> str:
    """The part of a file that the checks run."""
    text = path.read_text(encoding="utf-8")
    match = re.search(rf"^{END}", text, re.M)
    return text[: match.start()] if match else text


# ----------------------------------------------------------------------------- in the process of the solution


class Solution:
    """What a file defines; a name that is missing, or takes other arguments, is explained."""

    def __init__(self, module: types.ModuleType, project: Project) -> None:
        self._module, self._project = module, project

    def __getattr__(self, name: str) -> Any:
        wants = {signature.partition("(")[0].strip(): signature for signature in self._project.wants}
        if name not in wants:
            return getattr(self._module, name)
        signature, returns = wants[name], self._project.wants[wants[name]]
        if not hasattr(self._module, name):
            verb = "It must return" if "(" in signature else "It must be"
            raise Unmet(f"Your file has no `{name}`. The brief asks for `{signature}`. {verb} {returns}.")
        value = getattr(self._module, name)
        if "(" in signature:
            _check_signature(name, value, signature, returns)
        return value


def _check_signature(name: str, value: Any, signature: str, returns: str) -> None:
    if not callable(value):
        raise Unmet(
            f"`{name}` is {type(value).__name__}, and not a function. The brief asks for `{signature}`. "
            f"It must return {returns}."
        )
    wanted = inspect.signature(eval(f"lambda {signature.partition('(')[2].rstrip().removesuffix(')')}: 0"))
    try:
        mine = inspect.signature(value)
    except (TypeError, ValueError):
        return
    try:
        mine.bind(*wanted.parameters)
    except TypeError:
        raise Unmet(f"`{name}{mine}` cannot be called as the brief says, `{signature}`.") from None


def _explain(error: BaseException, path: Path, project: Project, loading: bool = False) -> str:
    """What an exception means to the reader: where in the file, or in which step of the check."""
    if isinstance(error, Unmet) or (type(error) is AssertionError and error.args and not _frames(error, path)):
        return str(error)
    kind, message = type(error).__name__, clean_message(str(error)).strip()
    said = f"{kind}: {message}" if message else kind
    lines = said.splitlines()
    if len(lines) > 8:
        said = "\n".join([*lines[:6], f"… ({len(lines) - 7} lines)", lines[-1]])
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path.name}, line {error.lineno}: {kind}: {error.msg}\n    {(error.text or '').strip()}"
    frames = _frames(error, path)
    step = getattr(error, "_practice_step", None)
    if frames:
        frame = frames[-1]
        where = f"{path.name}, line {frame.lineno}" + ("" if frame.name == "<module>" else f", in {frame.name}")
        if type(error) is NotImplementedError and not message:
            returns = {sig.partition("(")[0].strip(): text for sig, text in project.wants.items()}.get(frame.name)
            text = f"`{frame.name}` is not written yet ({path.name}, line {frame.lineno})."
            return f"{text} It must return {returns}." if returns else text
        begin = (
            "Your file cannot be loaded."
            if loading
            else f"Your code raised an error{f' while {step}' if step else ''}."
        )
        return f"{begin}\n{where}:\n    {frame.line}\n{said}"
    if step:
        return f"This failed while {step}:\n{said}"
    return f"The check met an error that it did not expect:\n{said}\n{_last_frame(error)}"


def _frames(error: BaseException, path: Path) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]


def _last_frame(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"({Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line})" if frames else ""


def _work(checks: Path, path: Path, results: Path, names: Sequence[str]) -> None:
    """Run checks in this process; write a line before and after each. The first check is the loading, ``""``."""
    with results.open("a", encoding="utf-8") as stream:

        def say(name: str, state: str, text: str = "") -> None:
            sys.stdout.flush()
            print(json.dumps([name, state, text]), file=stream, flush=True)

        project = _project_of(checks)
        functions = vars(sys.modules[f"practice_checks_{checks.stem}"])
        sys.path.append(str(path.parent))
        say("", "begin")
        try:
            module = _module("solution", path, solution_text(path))
        except BaseException as error:
            say("", "fails", _explain(error, path, project, loading=True))
            return
        say("", "ok")
        failed = None
        for name in names:
            check = project.checks[name]
            if failed is not None and check.stage > failed:
                return
            say(name, "begin")
            try:
                note = functions[name](Solution(module, project))
            except BaseException as error:
                failed = check.stage
                say(name, "fails", _explain(error, path, project))
            else:
                say(name, "ok", note or "")


# ------------------------------------------------------------------------------------------ around the process


def run_checks(project: Project, path: Path, names: Sequence[str] | None = None) -> dict[str, Outcome]:
    """Run checks on a file.

    Parameters
    ----------
    project : Project
        Whose checks.
    path : Path
        The file.
    names : sequence of str, optional
        Which checks; all, if not given.

    Returns
    -------
    dict of str to Outcome
        For each check, in the order of the stages.

    Raises
    ------
    UsageError
        If the file does not exist or is no Python file.
    """
    if not path.is_file():
        starter = f"{CHECKS.relative_to(CHECKS.parents[1]).as_posix()}/starters/{project.starter.name}"
        raise UsageError(f"there is no file {str(path)!r}; begin with a copy of {starter}")
    path = path.resolve()
    order = sorted(project.checks.values(), key=lambda check: check.stage)
    left = [check.name for check in order if names is None or check.name in names]
    wanted, found = list(left), {}
    while left:
        done, died = _one_process(project, path, left)
        loading = done.pop("", None)
        if loading is not None and loading.state == "fails":
            return {**dict.fromkeys(wanted, Outcome("waits", "Your file cannot be loaded.")), wanted[0]: loading}
        found.update(done)
        left = [name for name in left if name not in done]
        worst = min((project.checks[name].stage for name, o in found.items() if o.state == "fails"), default=None)
        if worst is not None:
            left = [name for name in left if project.checks[name].stage == worst] if died else []
    return {name: found.get(name) or Outcome("waits", f"This waits for stage {worst}.") for name in wanted}


def _one_process(project: Project, path: Path, names: Sequence[str]) -> tuple[dict[str, Outcome], bool]:
    """Outcomes of the checks that were tried, and whether the process died of the last."""
    with tempfile.TemporaryDirectory(prefix="practice-") as folder:
        results, printed = Path(folder, "results"), Path(folder, "printed")
        results.touch()
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else "tvm_deepdive_helpers.practice"]
        search = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        with printed.open("wb") as stream:
            child = subprocess.Popen(
                [*command, "--worker", str(project.tests), str(path), str(results), *names],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1", **_ONE_THREAD},
                start_new_session=True,
            )
            late = None
            try:
                late = _watch(child, results, project)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signals.SIGKILL)
                child.wait()
        said = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        done = {name: Outcome(state, text) for name, state, text in said if state != "begin"}
        last = said[-1] if said else None
        if last is not None and last[1] != "begin":
            return done, False
        tail = strip_paths(printed.read_bytes().decode("utf-8", "replace")).splitlines()[-12:]
        if last is None:
            raise RuntimeError("the checks could not be started:\n" + "\n".join(tail))
        what = "loading your file" if last[0] == "" else "this check"
        if late is not None:
            text = f"Stopped: {what} took longer than {late:g} s. Does a loop never end?"
        else:
            known = {int(number): number.name for number in signals.Signals}
            how = known.get(-child.returncode, f"status {child.returncode}")
            text = f"The process died ({how}) during {what}: an error in native code, which Python cannot catch."
        if tail:
            text += "\nThe last it printed:\n" + "\n".join(f"    {line}" for line in tail)
        return {**done, last[0]: Outcome("fails", text)}, True


def _watch(child: subprocess.Popen[bytes], results: Path, project: Project) -> float | None:
    """Wait for the end; the limit in seconds, if a check went on for longer."""
    size, since = -1, time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.1)
            return None
        if size != (size := results.stat().st_size):
            since = time.monotonic()
            lines = results.read_text(encoding="utf-8").splitlines()
            name = json.loads(lines[-1])[0] if lines else ""
            limit = project.checks[name].limit if name in project.checks else project.limit
        if time.monotonic() - since > limit:
            return limit


# ------------------------------------------------------------------------------------------------- the command


def explanation(project: Project, name: str, outcome: Outcome) -> str:
    """The text of a failure, and where help stands."""
    hint = project.checks[name].hint
    paragraphs = [
        line if line.startswith("    ") else textwrap.fill(line, _WIDTH - 9, break_long_words=False)
        for line in outcome.text.splitlines()
    ]
    if outcome.state == "fails":
        paragraphs.append(f'Help: "{hint}" on the page {project.page}' if hint else f"Help: the page {project.page}")
    return "\n".join(paragraphs)


def report(name: str, path: Path) -> bool:
    """Print how the checks of a project went on a file, stage by stage; whether all were passed."""
    project = load_project(name)
    outcomes = run_checks(project, path)
    print(f"{project.title}: {path.name}")
    stage, before = None, ""
    for check_name, outcome in outcomes.items():
        check = project.checks[check_name]
        if check.stage != stage:
            stage = check.stage
            print(f"\nStage {stage}: {check.topic}")
        print(f"  {outcome.state:5}  {check.title}")
        if outcome.state == "ok" and outcome.text:
            print(textwrap.indent(textwrap.fill(outcome.text, _WIDTH - 9), " " * 9))
        if outcome.state == "fails":
            text = "As above." if outcome.text == before else explanation(project, check_name, outcome)
            print(textwrap.indent(text, " " * 9))
            before = outcome.text
    passed = sum(outcome.state == "ok" for outcome in outcomes.values())
    print(f"\n{passed} of {len(outcomes)} checks passed." + (" Well done." if passed == len(outcomes) else ""))
    return passed == len(outcomes)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0 if all checks pass, 1 if not, 2 if it cannot be carried out."""
    parser = argparse.ArgumentParser(prog="practice", description="Check a solution of a practice project.")
    parser.add_argument("project", help=f"one of: {', '.join(projects())}")
    parser.add_argument("file", type=Path, help="your file")
    args = parser.parse_args(argv)
    try:
        return 0 if report(args.project, args.file) else 1
    except UsageError as error:
        print(f"practice: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        # The checks import this module by its name; classes must be those of that one.
        from tvm_deepdive_helpers import practice

        practice._work(*map(Path, sys.argv[2:5]), sys.argv[5:])
        sys.stdout.flush()
        os._exit(0)  # what the file left behind need not be torn down
    sys.exit(main())
