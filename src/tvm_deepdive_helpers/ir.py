"""Print, cut, compare and count IR.

A listing in a book must be short, and it must say what it leaves out. Everything here works on IR objects of TVM
(modules, functions, expressions, statements) and on plain text alike. TVM is imported only when it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Count", "Stripped", "count", "cut", "diff", "diff_text", "script", "show", "strip_llvm"]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_IMPORT = re.compile(r"# (from \S+ import \S+( as \S+)?|import \S+( as \S+)?)")


def script(obj: Any, *, header: bool = False) -> str:
    """Text of an IR object.

    Parameters
    ----------
    obj : IRModule, PrimFunc, relax.Function, expression, statement, or str
        What to print. An object that has no method ``script`` is printed with ``str``.
    header : bool
        Keep the comment lines ``# from tvm.script import …`` that TVM's printer puts first.

    Returns
    -------
    str
        The text without ANSI colours, blanks at line ends, and blank lines at either end.

    Notes
    -----
    The printer is ``tvm.runtime.script_printer.Scriptable.script``; the objects that ``show_meta`` would print
    (large constants) stay out.
    """
    if isinstance(obj, str):
        text = str(obj)
    elif callable(method := getattr(obj, "script", None)):
        text = str(method())
    else:
        text = str(obj)
    lines = [line.rstrip() for line in _ANSI.sub("", text).splitlines()]
    if not header:
        while lines and (not lines[0] or _IMPORT.fullmatch(lines[0])):
            del lines[0]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    return "\n".join(lines)


def _marker(number: int, indent: str, comment: str) -> str:
    return f"{indent}{comment} ... {number} line{'s' if number != 1 else ''}"


def cut(
    text: str,
    *,
    lines: int | tuple[int, int] | None = None,
    keep: str | re.Pattern[str] | None = None,
    context: int = 2,
    start: str | re.Pattern[str] | None = None,
    comment: str = "#",
) -> str:
    """Cut a text, and say at each cut how many lines were left out.

    Parameters
    ----------
    text : str
        The whole text.
    lines : int or (int, int), optional
        Keep the first so many lines, or the lines from the first to the last number (counted from 1, both
        included; a last number beyond the end means the end).
    keep : regular expression, optional
        Keep only lines in which it is found, and `context` lines around each. A gap of one line is not cut.
    context : int
        Lines to keep on both sides of a line that `keep` finds.
    start : regular expression, optional
        Begin with the first line in which it is found.
    comment : str
        What begins a comment in this language (``;`` in LLVM IR).

    Returns
    -------
    str
        The kept lines, with a line such as ``# ... 23 lines`` in place of each gap, indented like the line after it.

    Raises
    ------
    ValueError
        If nothing would be left: a listing that lost its subject must not go unnoticed.

    Examples
    --------
    >>> print(cut("a\\nb\\nc\\nd", lines=(2, 3)))
    # ... 1 line
    b
    c
    # ... 1 line
    """
    every = text.splitlines()
    chosen = set(range(len(every)))
    if lines is not None:
        first, last = (1, lines) if isinstance(lines, int) else lines
        if first < 1 or last < first:
            raise ValueError(f"lines={lines!r} is not a range of lines counted from 1")
        chosen &= set(range(first - 1, last))
        if not chosen:
            raise ValueError(f"lines={lines!r} lies outside of a text of {len(every)} lines")
    if start is not None:
        begin = next((i for i, line in enumerate(every) if re.search(start, line)), None)
        if begin is None:
            raise ValueError(f"no line of the text matches start={start!r}")
        chosen &= set(range(begin, len(every)))
    if keep is not None:
        found = [i for i in sorted(chosen) if re.search(keep, every[i])]
        if not found:
            raise ValueError(f"no line of the text matches keep={keep!r}")
        near = {i + d for i in found for d in range(-context, context + 1)}
        # A marker takes one line itself, so a gap of one line inside the listing is shown, not announced.
        near |= {i for i in chosen if i - 1 in near and i + 1 in near}
        chosen &= near
    out: list[str] = []
    gap = 0
    for i, line in enumerate(every):
        if i not in chosen:
            gap += 1
            continue
        if gap:
            out.append(_marker(gap, line[: len(line) - len(line.lstrip())], comment))
            gap = 0
        out.append(line)
    if gap:
        last_line = out[-1] if out else ""
        out.append(_marker(gap, last_line[: len(last_line) - len(last_line.lstrip())], comment))
    return "\n".join(out)


def show(
    obj: Any,
    *,
    lines: int | tuple[int, int] | None = None,
    keep: str | re.Pattern[str] | None = None,
    context: int = 2,
    header: bool = False,
    comment: str = "#",
) -> None:
    """Print an IR object, or a part of its text.

    Parameters
    ----------
    obj : IR object or str
        See `script`.
    lines, keep, context, comment
        See `cut`.
    header : bool
        Also print the import comments that stand first (they are no part of the count).
    """
    print(cut(script(obj, header=header), lines=lines, keep=keep, context=context, comment=comment))


def diff_text(before: Any, after: Any, context: int = 2) -> str:
    """Unified difference of two IR objects or texts, without file headers.

    Returns
    -------
    str
        The lines of the difference, or a sentence that begins with ``no difference``. Two objects can print alike
        and still differ (in annotations that are not printed); that is said.
    """
    old, new = script(before), script(after)
    if old == new:
        if _differ(before, after):
            return "no difference in the text, but tvm.ir.structural_equal says that the two differ"
        return "no difference"
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=context, lineterm="")
    return "\n".join(list(lines)[2:])  # The first two lines are the file headers.


def _differ(before: Any, after: Any) -> bool:
    """Whether both are IR and structurally different."""
    if isinstance(before, str) or isinstance(after, str):
        return False
    import tvm_ffi

    if not (isinstance(before, tvm_ffi.Object) and isinstance(after, tvm_ffi.Object)):
        return False
    return not tvm_ffi.structural_equal(before, after, map_free_vars=True)


def diff(before: Any, after: Any, context: int = 2) -> None:
    """Print what changed between two IR objects or texts (see `diff_text`)."""
    print(diff_text(before, after, context))


@dataclass(frozen=True)
class Count:
    """Size of an IR object.

    Attributes
    ----------
    lines : int
        Lines of its text, import comments not counted.
    functions : int
        Functions of a module; 1 for a single function; 0 for anything else.
    kinds : dict of str to int
        Number of functions of each kind: ``{"Function": 1, "PrimFunc": 5}``.
    """

    lines: int
    functions: int
    kinds: dict[str, int] = field(default_factory=dict)


def count(obj: Any) -> Count:
    """Count the lines and functions of an IR object or a text."""
    kinds: Counter[str] = Counter()
    if not isinstance(obj, str):
        import tvm

        if isinstance(obj, tvm.IRModule):
            kinds.update(type(func).__name__ for func in obj.functions.values())
        elif isinstance(obj, tvm.ir.BaseFunc):
            kinds[type(obj).__name__] = 1
    return Count(len(script(obj).splitlines()), kinds.total(), dict(sorted(kinds.items())))


@dataclass(frozen=True)
class Stripped:
    """LLVM IR without its debug information, and what was taken out.

    Attributes
    ----------
    text : str
        What is left.
    removed : dict of str to int
        Number of lines removed by kind (``metadata``, ``debug records``, ``attributes``) and the number of
        ``references`` cut from the ends of lines that stay.
    """

    text: str
    removed: dict[str, int]

    @property
    def removed_lines(self) -> int:
        """Whole lines that were removed."""
        return sum(n for kind, n in self.removed.items() if kind != "references")


_LLVM_LINES = {
    "metadata": re.compile(r"^!(\d+|[\w.]+) = "),
    "debug records": re.compile(r"^\s*(#dbg_\w+\(|(tail )?call void @llvm\.dbg\.|declare void @llvm\.dbg\.)"),
    "attributes": re.compile(r"^(attributes #\d+ = |; Function Attrs:)"),
}
_LLVM_REFERENCE = re.compile(r",? ![a-zA-Z][\w.]* !\d+")


def strip_llvm(text: str) -> Stripped:
    """Take debug information, metadata and attribute groups out of LLVM IR.

    TVM writes DWARF for every kernel, so most of a ``.ll`` file is not code.

    Parameters
    ----------
    text : str
        LLVM IR, for example of ``lib.inspect_source("ll")``.

    Returns
    -------
    Stripped
    """
    removed = dict.fromkeys([*_LLVM_LINES, "references"], 0)
    out: list[str] = []
    for line in text.splitlines():
        kind = next((kind for kind, pattern in _LLVM_LINES.items() if pattern.search(line)), None)
        if kind:
            removed[kind] += 1
            continue
        line, number = _LLVM_REFERENCE.subn("", line)
        removed["references"] += number
        out.append(line.rstrip())
    joined = re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip("\n")
    return Stripped(joined, removed)
