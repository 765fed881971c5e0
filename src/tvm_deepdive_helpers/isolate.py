"""Run a small program in a process of its own, so that a script can show a crash and go on."""

from __future__ import annotations

import inspect
import os
import signal as signals
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .book import strip_paths

__all__ = ["IsolatedResult", "run_isolated"]


@dataclass(frozen=True)
class IsolatedResult:
    """How a program ended.

    Attributes
    ----------
    returncode : int
        Its exit status; the negative number of the signal if a signal killed it.
    signal : str or None
        Name of that signal, such as ``SIGSEGV``.
    stdout, stderr : str
        What it wrote, with absolute paths shortened to their last part.
    timed_out : float or None
        The time limit in seconds, if it was hit; the program was killed then.
    """

    returncode: int
    signal: str | None
    stdout: str
    stderr: str
    timed_out: float | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.returncode == 0 and self.timed_out is None

    def describe(self) -> str:
        """How it ended, in words: ``killed by SIGSEGV``."""
        if self.timed_out is not None:
            return f"stopped after {self.timed_out:g} s"
        if self.signal:
            return f"killed by {self.signal}"
        return "ended normally" if self.returncode == 0 else f"ended with status {self.returncode}"


def run_isolated(
    source_or_function: str | Callable[[], object],
    *,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> IsolatedResult:
    """Run a program in a new Python interpreter and wait for its end.

    Parameters
    ----------
    source_or_function : str or function
        The program's text, or a function without parameters whose text is taken and called. The function sees
        nothing of the script around it, so that it must import what it needs. The program is written to a real
        file because TVMScript reads the source of what it parses.
    timeout : float
        Seconds after which the program and its children are killed.
    env : mapping, optional
        Environment variables to add to those of this process.

    Returns
    -------
    IsolatedResult

    Raises
    ------
    TypeError
        If a function wants arguments, or has no name to call it by (a lambda).
    """
    if callable(source_or_function):
        if source_or_function.__name__ == "<lambda>":
            raise TypeError("a lambda has no name to call it by: define a function")
        if inspect.signature(source_or_function).parameters:
            raise TypeError(f"{source_or_function.__name__} must have no parameters: it runs in another process")
        source = textwrap.dedent(inspect.getsource(source_or_function))
        source += f"\n\n{source_or_function.__name__}()\n"
    else:
        source = textwrap.dedent(source_or_function)
    # Names of modules that this process can import, the other one can import as well.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, **(env or {})}
    with tempfile.TemporaryDirectory(prefix="isolated-") as folder:
        program = Path(folder, "program.py")
        program.write_text(source, encoding="utf-8")
        # A session of its own, so that the time limit also reaches its children; the folder also takes core files.
        child = subprocess.Popen(
            [sys.executable, str(program)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        late: float | None = None
        try:
            out, err = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            late = timeout
            os.killpg(child.pid, signals.SIGKILL)
            out, err = child.communicate()
    code = child.returncode
    known = {int(number): number.name for number in signals.Signals}
    name = known.get(-code, f"signal {-code}") if code < 0 else None
    return IsolatedResult(code, name, strip_paths(out), strip_paths(err), late)
