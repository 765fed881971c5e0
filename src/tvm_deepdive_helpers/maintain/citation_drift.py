"""Compare what the book cites between releases of TVM: the same, moved, changed, or gone.

Python, and the C++ that the wheels ship, is read in the environments that :mod:`.drift` made. Other C++ is compared by
`make symbols`, between tags of a clone; its answers stand in ``book/_data/cpp_symbols.json`` and are only counted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..sources import places, symbol_index, wheel
from ..sources.common import SourceError, digest, split_title
from . import symbols

_ROLE = re.compile(r"\{tvm-(py|cpp)\}(`+)(?!`)(.+?)(?<!`)\2(?!`)", re.S)
_QUOTE = re.compile(r"^[`:]{3,}\{quote\}[ \t]+(\S.*?)[ \t]*$", re.M)


def targets(pages: Iterable[Path]) -> list[str]:
    """Everything that pages cite or quote, once."""
    found: set[str] = set()
    for page in pages:
        text = symbols._without_examples(page.read_text(encoding="utf-8"))
        found |= {split_title(match[3])[1] for match in _ROLE.finditer(text)}
        found |= {match[1] for match in _QUOTE.finditer(text)}
    return sorted(found)


def release_places(packages: Path, tvm: str, ffi: str, index: Path) -> places.Places:
    """The sources of a release that is installed in a folder of packages."""
    versions = {"tvm": tvm, "tvm_ffi": ffi}
    return places.Places(
        wheel.Wheels({name: wheel.Package(name, packages / name, versions[name], "") for name in versions}), index
    )


def _found(source: places.Places, target: str) -> tuple[str, str] | None:
    """File and hash of what a release has under a name; None for C++ that no wheel ships."""
    if not places.is_cpp(target):
        place = source.python(target, with_text=True)
    elif source.wheels.cpp_file(target.partition(":")[0]) is None:
        return None
    else:
        place = source.cpp(target, with_text=True)
    return place.path, place.sha256 or digest(place.text or "")


def compare(cited: Iterable[str], reference: places.Places, others: Mapping[str, places.Places]) -> dict[str, Any]:
    """What became of each citation in other releases.

    Returns
    -------
    dict
        ``count``: how many citations were compared; ``differ``: citation -> release -> ``moved`` (the same text in
        another file), ``changed`` or ``gone``. What is not named is the same.
    """
    differ: dict[str, dict[str, str]] = {}
    count = 0
    for target in cited:
        try:
            now = _found(reference, target)
        except SourceError:
            continue  # the build says so
        if now is None:
            continue
        count += 1
        for release, source in others.items():
            try:
                then = _found(source, target)
            except SourceError:
                then = None
            if then is None:
                answer = "gone"
            elif then[1] != now[1]:
                answer = "changed"
            else:
                answer = "same" if then[0] == now[0] else "moved"
            if answer != "same":
                differ.setdefault(target, {})[release] = answer
    return {"count": count, "differ": differ}


def count_index(path: Path) -> dict[str, Any]:
    """How many entries of the index are the same, changed or absent in each ref that was compared with its tag."""
    index = symbol_index.load(path)
    words = {True: "same", False: "changed", "absent": "gone"}
    refs: dict[str, dict[str, int]] = {}
    for entry in index:
        for ref, same in entry.same_in.items():
            counts = refs.setdefault(ref, {"same": 0, "changed": 0, "gone": 0})
            counts[words[same]] += 1
    dates = {ref: facts.get("date", "") for ref, facts in index.refs.items()}
    return {"tag": index.tag, "count": len(index), "dates": dates, "refs": refs}
