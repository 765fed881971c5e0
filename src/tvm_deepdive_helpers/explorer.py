"""The steps of a build or of a schedule, in the form that the explorer of the book reads.

``record_steps`` makes `Step` objects, with the module on both sides of each. `pack` turns them into a small object
of JSON: each line of text stands in it once, and a step holds only what it changes. The differences that a reader sees
are these same hunks, so nothing has to be computed again in the browser. `unpack` is the inverse.

TVM is not imported here: Sphinx reads packed steps too.

>>> steps = record_steps.build_steps(lambda: tvm.compile(mod))      # doctest: +SKIP
>>> packed = pack("mlp", steps)              # doctest: +SKIP
>>> glue("mlp", dumps(packed), varies=True)                         # doctest: +SKIP
"""

from __future__ import annotations

import base64
import difflib
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Step", "changed_lines", "dumps", "loads", "pack", "summary", "unpack"]

#: Above so many pairs of lines, the lines of a hunk are not paired by likeness.
_MOST_PAIRS = 12_000


@dataclass(frozen=True)
class Step:
    """One pass, or one instruction of a schedule.

    Attributes
    ----------
    name : str
        Name of the pass or kind of the instruction; empty for what happens between two passes.
    before, after : str
        Text of the module.
    phase : str
        Where it stands: ``relax``, ``tir`` or ``finish``; empty in a schedule.
    ms : float or None
        Wall time in milliseconds.
    changed : bool
        The module is structurally different afterwards.
    code : str
        The instruction as a line of Python.
    decision : str
        What was drawn, for an instruction that samples.
    """

    name: str
    before: str
    after: str
    phase: str = ""
    ms: float | None = None
    changed: bool = True
    code: str = ""
    decision: str = ""


# --------------------------------------------------------------------------------------------------- packing

Hunk = list[Any]  # [place in the old lines, number of lines taken out, [indices of the lines put in]]


def _sections(text: str) -> dict[str, list[str]]:
    """The lines of each function of a module's text; those that come before, under the empty name."""
    found: dict[str, list[str]] = {"": []}
    held: list[str] = []
    name = ""
    for line in text.split("\n"):
        if re.match(r"    @", line):
            held.append(line)
            continue
        if held and (match := re.match(r"    def (\w+)", line)):
            name = match[1]
        found.setdefault(name, []).extend([*held, line])
        held = []
    found[name].extend(held)
    return found


def _words(line: str) -> Counter[str]:
    return Counter(re.findall(r"\w+|[^\w\s]", line))


def _pairs(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Which old line became which new one: the pairing in order with most words in common."""
    if len(old) * len(new) > _MOST_PAIRS:
        return []
    olds, news = [_words(line) for line in old], [_words(line) for line in new]
    sizes_old, sizes_new = [sum(words.values()) for words in olds], [sum(words.values()) for words in news]
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    like = [[0.0] * len(new) for _ in old]
    for i in range(len(old) - 1, -1, -1):
        for j in range(len(new) - 1, -1, -1):
            total = sizes_old[i] + sizes_new[j]
            ratio = 2 * (olds[i] & news[j]).total() / total if total else 1.0
            like[i][j] = ratio if ratio > 0.5 else 0.0
            best[i][j] = max(best[i + 1][j], best[i][j + 1], best[i + 1][j + 1] + like[i][j])
    found, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if like[i][j] and best[i][j] == best[i + 1][j + 1] + like[i][j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return found


def _hunks(old: list[str], new: list[str], index: Callable[[str], int]) -> list[Hunk]:
    """What turns the old lines into the new ones; a line and its successor are a hunk of their own."""
    found: list[Hunk] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        i, j = a, c
        for left, right in [*_pairs(old[a:b], new[c:d]), (b - a, d - c)]:
            left, right = left + a, right + c
            if left > i or right > j:
                found.append([i, left - i, [index(line) for line in new[j:right]]])
            if left < b and right < d:
                found.append([left, 1, [index(new[right])]])
            i, j = left + 1, right + 1
    return found


def pack(key: str, steps: Sequence[Step], kind: str = "passes") -> dict[str, Any]:
    """Steps as an object of JSON.

    Parameters
    ----------
    key : str
        Name in the address of the page.
    steps : sequence of Step
        In order.
    kind : str
        ``passes`` or ``trace``.

    Returns
    -------
    dict
        ``lines``: every line of text, once. ``start``: for each function, its name and the indices of its lines.
        ``steps``: for each step its name ``n``, phase ``p``, time ``t``, mark ``c`` (1:
        structurally changed), code ``s`` and decision ``v`` where there are any; ``f``, the number of states before
        the one that it starts from, if that is not the latest; ``o``, the names of the functions, if they change;
        ``d``, the hunks by function.
    """
    table: dict[str, int] = {}

    def index(line: str) -> int:
        return table.setdefault(line, len(table))

    start = _sections(steps[0].before)
    packed: list[dict[str, Any]] = []
    states = [(steps[0].before, start)]
    first = [[name, [index(line) for line in lines]] for name, lines in start.items()]
    for step in steps:
        back = next((n for n, (text, _) in enumerate(reversed(states)) if text == step.before), None)
        if back is None:
            raise ValueError(f"{step.name}: no earlier step left the module that it starts from")
        old = states[-1 - back][1]
        new = old if step.after == step.before else _sections(step.after)
        item: dict[str, Any] = {"n": step.name}
        if step.phase:
            item["p"] = step.phase
        if step.ms is not None:
            item["t"] = round(step.ms, 3)
        if step.changed:
            item["c"] = 1
        if step.code:
            item["s"] = step.code
        if step.decision:
            item["v"] = step.decision
        if back:
            item["f"] = back
        if list(old) != list(new):
            item["o"] = list(new)
        names = list(dict.fromkeys([*new, *old]))
        hunks = {n: _hunks(old.get(n, []), new.get(n, []), index) for n in names if old.get(n) != new.get(n)}
        if hunks:
            item["d"] = hunks
        packed.append(item)
        states.append((step.after, new))
    return {"key": key, "kind": kind, "lines": list(table), "start": first, "steps": packed}


def unpack(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Text before and after each step, from what `pack` made: what the explorer does in the browser."""
    lines = data["lines"]
    states = [{name: [lines[i] for i in indices] for name, indices in data["start"]}]
    texts = []
    for step in data["steps"]:
        old = states[-1 - step.get("f", 0)]
        new = {name: old.get(name, []) for name in step.get("o", old)}
        for name, hunks in step.get("d", {}).items():
            text = list(old.get(name, []))
            for place, out, put in reversed(hunks):
                text[place : place + out] = [lines[i] for i in put]
            if name in new:
                new[name] = text
        states.append(new)
        texts.append((_joined(old), _joined(new)))
    return texts


def _joined(state: dict[str, list[str]]) -> str:
    return "\n".join(line for part in state.values() for line in part)


def changed_lines(step: dict[str, Any]) -> tuple[int, int]:
    """Number of lines that a packed step puts in and takes out."""
    hunks = [hunk for part in step.get("d", {}).values() for hunk in part]
    return sum(len(put) for _, _, put in hunks), sum(out for _, out, _ in hunks)


def dumps(data: dict[str, Any]) -> str:
    """The object as text for a page: JSON, compressed (raw deflate), in base 64.

    Neighbouring steps repeat each other's words, so that about a tenth is left; browsers unpack it themselves
    (``DecompressionStream``).
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9, wbits=-15)).decode()


def loads(text: str) -> dict[str, Any]:
    """The object that `dumps` wrote.

    Raises
    ------
    ValueError
        The text is something else.
    """
    try:
        return json.loads(zlib.decompress(base64.b64decode(text), wbits=-15))
    except (TypeError, ValueError, zlib.error) as err:
        raise ValueError(str(err)) from None


def summary(data: dict[str, Any]) -> str:
    """The steps that change the text, a line each, without times: for a snapshot."""
    rows = []
    for number, step in enumerate(data["steps"], start=1):
        if "d" in step:
            put, out = changed_lines(step)
            rows.append(f"{number:3d}  {step['n'] or '(no pass)':45s} +{put:<4d} -{out}")
    return "\n".join(rows)
