"""What the readers of Python and of C++ source share: places, errors, hashes.

Nothing here knows Sphinx, and nothing here imports TVM.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass


class SourceError(LookupError):
    """A cited place cannot be found, or is found more than once.

    Parameters
    ----------
    message : str
        One line: what is wrong.
    hints : iterable of str
        What exists instead (close matches, candidates), best first.
    """

    def __init__(self, message: str, hints: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hints = tuple(hints)

    def __reduce__(self):  # exceptions cross process borders in parallel builds
        return type(self), (self.message, self.hints)

    def __str__(self) -> str:
        if not self.hints:
            return self.message
        return f"{self.message}; {self.lead}: {', '.join(self.hints)}"

    lead = "did you mean"


class AmbiguousSymbol(SourceError):
    """A symbol names several definitions; the hints list one spelling for each."""

    lead = "write one of"


@dataclass(frozen=True)
class Span:
    """Lines ``first`` to ``last`` of a file, counted from 1, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


def cut_lines(text: str, first: int, last: int) -> str:
    """Return lines `first` to `last` (from 1, both included), without a final newline."""
    return "\n".join(text.split("\n")[first - 1 : last])


def digest(text: str | bytes) -> str:
    """SHA-256 of a text, in hexadecimal."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()


def similar(wanted: str, known: Iterable[str], limit: int = 5, cutoff: float = 0.7) -> list[str]:
    """Known names that look like `wanted`, best first.

    Letters are compared without case, and the last part of a dotted or ``::`` name also by
    itself, so that a name in the wrong class or module is still found.
    """

    def parts(name: str) -> list[str]:
        return name.lower().replace("::", ".").split(".")

    whole: dict[str, list[str]] = {}
    tails: dict[str, list[str]] = {}
    for name in sorted(set(known)):
        if len(parts(name)) == len(parts(wanted)):
            whole.setdefault(name.lower(), []).append(name)
        tails.setdefault(parts(name)[-1], []).append(name)
    found: list[str] = []
    for query, names in ((wanted.lower(), whole), (parts(wanted)[-1], tails)):
        for match in difflib.get_close_matches(query, names, n=limit, cutoff=cutoff):
            found += names[match]
    return list(dict.fromkeys(found))[:limit]


def split_title(text: str) -> tuple[str | None, str]:
    """Split the text of a role into an explicit title and its target.

    ``the fuser <path:Symbol>`` has both. White space before ``<`` is required, because C++ names
    may end in template arguments. Line breaks in the source of a page count as spaces.
    """
    text = " ".join(text.split())
    match = re.fullmatch(r"(.+?) <(.+)>", text)
    return (match.group(1), match.group(2).strip()) if match else (None, text)


def split_target(target: str) -> tuple[str, str]:
    """Split ``path:Symbol``; the symbol is empty if only a path is given."""
    path, _, symbol = target.partition(":")
    return path.strip().removeprefix("./"), symbol.strip()
