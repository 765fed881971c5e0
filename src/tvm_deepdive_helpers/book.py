"""The two things by which a script speaks to the book: `glue` and `expect_error`.

A script that runs by itself needs neither the book nor Sphinx: `glue` only appends to the list `GLUED`, and
`expect_error` only prints. The runner of the book, which executes each script in a process of its own, reads

* `GLUED`, the values in the order in which they were given, and
* `EXPECTED_ERRORS`, the number of errors that were expected and came. Read it as ``book.EXPECTED_ERRORS`` before and
  after a cell (a name imported with ``from`` would keep the old number): a cell that raised it is meant to fail.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .ir import cut

__all__ = [
    "EXPECTED_ERRORS",
    "GLUED",
    "Glued",
    "clean_message",
    "expect_error",
    "glue",
    "strip_paths",
]

Value = str | int | float | bool


@dataclass(frozen=True)
class Glued:
    """One value that a script hands to the prose.

    Attributes
    ----------
    name : str
        What the ``glue`` role asks for.
    value : str, int, float or bool
        Always of exactly one of these types.
    varies : bool
        Whether the value differs from run to run, so that no snapshot may hold it.
    """

    name: str
    value: Value
    varies: bool


GLUED: list[Glued] = []
EXPECTED_ERRORS: int = 0

_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")


def _plain(name: str, value: Any) -> Value:
    """The value as a str, int, float or bool of Python, or TypeError."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        value = value.item()
    elif type(value).__name__ in ("IntImm", "FloatImm", "StringImm") and hasattr(value, "value"):
        # TVM 0.27 calls the type of an expression `ty`, 0.26 `dtype`.
        is_bool = str(getattr(value, "ty", None) or getattr(value, "dtype", "")) == "bool"
        value = bool(value.value) if is_bool else value.value
    # Subclasses (tvm_ffi.String, IntEnum) become the plain type; bool is tried before int, whose subclass it is.
    for plain in (bool, str, int, float):
        if isinstance(value, plain):
            value = plain(value)
            break
    else:
        raise TypeError(
            f"glue({name!r}, …) got a {type(value).__module__}.{type(value).__qualname__}; the prose takes only str, "
            "int, float and bool: convert the value, or glue the number that the sentence is about"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"glue({name!r}, {value!r}): not a number that a sentence can carry")
    return value


def glue(name: str, value: Any, *, varies: bool = False) -> None:
    """Hand a value to the prose, where the role ``{glue}`name``` shows it.

    Parameters
    ----------
    name : str
        Lower-case words joined by ``-`` or ``_``, unique in the script.
    value : str, int, float, bool, numpy scalar, tvm.tirx.IntImm
        Numpy's scalars and TVM's literals become values of Python.
    varies : bool
        The value differs from run to run (a time, an address): it is kept out of the snapshot.

    Raises
    ------
    TypeError
        If the value is of another type.
    ValueError
        If the name is not well formed, was given before, or the value is infinite or not a number.

    Notes
    -----
    Outside of the book nothing else happens: the value stands in `GLUED`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"glue name {name!r}: use lower-case words joined by '-' or '_'")
    if any(old.name == name for old in GLUED):
        raise ValueError(f"glue name {name!r} is given twice in this script")
    GLUED.append(Glued(name, _plain(name, value), bool(varies)))


_POSIX_PATH = re.compile(r"(?<![\w.:/~<])/(?:[\w.+@-]+/)+([\w.+@-]+)|(?<=:)/(?:[\w.+@-]+/)+([\w.+@-]+)")
_WINDOWS_PATH = re.compile(r"\b[A-Za-z]:\\(?:[^\s\\:\"']+\\)+([^\s\\:\"']+)")
_BACKTRACE = re.compile(
    r"""^\s*(
        \[bt\]\s .*                                        # dmlc style
      | \d+:\s+ .* (\(|\bat\b|0x[0-9a-f]+|\.so\b|::) .*    # "  0: tvm::…" of a stack trace
      | File\s"[^"]*\.(cc|cpp|h|hpp|c|so|pyx|pxi)[^"]*",\sline\s\d+ .*
      | File\s"<unknown>",\sline\s\d+ .*
      | Stack\strace:\s*
      )$""",
    re.VERBOSE,
)


_PROJECT = str(Path(__file__).resolve().parents[2])


def _working_folder() -> list[str]:
    """The working folder, unless it is the root or was removed."""
    with contextlib.suppress(OSError):
        return [folder for folder in [os.getcwd()] if folder != "/"]
    return []


def strip_paths(text: str) -> str:
    """Shorten every absolute path of a text to its last part.

    Examples
    --------
    >>> strip_paths("error at /home/me/book/gallery/loops.py:12:5, see https://a.org/b/c")
    'error at loops.py:12:5, see https://a.org/b/c'
    """
    # A name with a space is not recognised as part of a path; the folders that are known may have one.
    for known in (_PROJECT, *_working_folder()):
        text = text.replace(f"{known}/", "/known/")
    text = _POSIX_PATH.sub(lambda found: found.group(1) or found.group(2), text)
    return _WINDOWS_PATH.sub(r"\1", text)


def clean_message(text: str) -> str:
    """A message of TVM without absolute paths, lines of C++ backtraces, ANSI colours and blank lines at its ends."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [line.rstrip() for line in text.splitlines() if not _BACKTRACE.match(line)]
    return strip_paths("\n".join(lines).strip("\n"))


class expect_error:  # (a context manager reads like a function)
    """Context manager for an error that is meant to happen.

    It prints ``TypeName: message`` and goes on. Absolute paths and lines of C++ backtraces are taken out of the
    message, and a long message is cut with a line that says by how much.

    Parameters
    ----------
    exc_type : type or tuple of types
        The expected exception. Another exception passes through.
    match : str, optional
        Regular expression that must be found (``re.search``) in the whole message.
    max_lines : int
        Print at most so many lines of the message.
    show : bool
        False prints nothing.
    from_line : str, optional
        Regular expression: print from the first line in which it is found. TVM's schedule errors print the
        whole module first; ``from_line="Error message:"`` shows the reason.
    keep : str, optional
        Regular expression: print only the lines in which it is found.

    Attributes
    ----------
    exception : BaseException or None
        The error, after the block.

    Raises
    ------
    AssertionError
        If nothing was raised, or if the message does not match.

    Notes
    -----
    TVM's hook for uncaught exceptions (``tvm.tvm_wrap_excepthook``) swallows the message of a
    ``tvm.error.DiagnosticError``. The exception itself carries it, so a caught one is printed in full.

    Examples
    --------
    >>> with expect_error(ZeroDivisionError, match="division") as caught:
    ...     _ = 1 // 0
    ZeroDivisionError: integer division or modulo by zero
    >>> type(caught.exception).__name__
    'ZeroDivisionError'
    """

    def __init__(
        self,
        exc_type: type[BaseException] | tuple[type[BaseException], ...],
        match: str | None = None,
        *,
        max_lines: int = 12,
        show: bool = True,
        from_line: str | None = None,
        keep: str | None = None,
    ) -> None:
        self.exc_type = exc_type
        self.match = match
        self.max_lines = max_lines
        self.show = show
        self.from_line = from_line
        self.keep = keep
        self.exception: BaseException | None = None

    def __enter__(self) -> expect_error:
        return self

    def _names(self) -> str:
        types = self.exc_type if isinstance(self.exc_type, tuple) else (self.exc_type,)
        return " or ".join(kind.__name__ for kind in types)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        global EXPECTED_ERRORS
        if value is None:
            raise AssertionError(f"expected {self._names()}, but nothing was raised")
        if not isinstance(value, self.exc_type):
            return False
        message = str(value)
        if self.match is not None and not re.search(self.match, message):
            raise AssertionError(
                f"{type(value).__name__} came as expected, but its message does not match {self.match!r}:\n{message}"
            ) from value
        self.exception = value
        EXPECTED_ERRORS += 1
        if self.show:
            print(self.text())
        return True

    def text(self) -> str:
        """What is printed: the type's name and the message, cleaned and cut."""
        name = type(self.exception).__name__
        message = clean_message(str(self.exception))
        # Some of TVM's messages begin with the name of their type.
        if not message.startswith(f"{name}:"):
            message = f"{name}: {message}" if message else name
        if self.from_line is None and self.keep is None:
            return cut(message, lines=self.max_lines)
        first, _, rest = message.partition("\n")
        if rest and not (self.from_line and re.search(self.from_line, first)):
            rest = cut(rest, start=self.from_line, keep=self.keep, context=0)
        kept = rest.splitlines()
        # The marker that `cut` puts first does not count: it stands for what the caller chose to leave out.
        room = self.max_lines + bool(kept and kept[0].startswith("# ..."))
        return "\n".join([first, *([cut(rest, lines=room)] if rest else [])])
