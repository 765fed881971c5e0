"""Read what `make drift` recorded: which cell of the book runs on which release of TVM, and why another does not.

The record is ``gallery/data/drift.json``. Why outputs differ is an author's knowledge: the file
``gallery/data/drift_causes.toml`` holds patterns and explanations, and :func:`explain` puts the two together.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

__all__ = ["STATUSES", "Cause", "Drift", "Outcome", "explain", "load", "read_causes"]

#: What may become of a cell, from best to worst.
STATUSES = {
    "same": "the output is the same",
    "ran": "it runs; its output differs from run to run and is not compared",
    "renamed": "the same, once a thing stands under today's name",
    "changed": "it runs, and prints something else",
    "failed": "it raises",
    "blocked": "it needs a cell that raises",
    "lost": "the process ended before it",
}


@dataclass(frozen=True)
class Outcome:
    """What became of one cell on one release.

    Attributes
    ----------
    script, cell
        Where it stands.
    status
        One of `STATUSES`.
    detail
        The difference, the last line of the exception, the cell that it needs, or the names; may be empty.
    """

    script: str
    cell: str
    status: str
    detail: str = ""

    @property
    def part(self) -> str:
        """Folder of the script."""
        return self.script.split("/")[0]


@dataclass(frozen=True)
class Drift:
    """The record.

    Attributes
    ----------
    reference
        The release that the others are compared with.
    releases
        Release of ``apache-tvm`` -> release of ``apache-tvm-ffi``, the reference first.
    date
        Day of the last run.
    outcomes
        Release -> what became of every cell. The reference is not among them.
    citations
        How cited sources differ; see :mod:`.maintain.citation_drift`.
    """

    reference: str
    releases: dict[str, str]
    date: str
    outcomes: dict[str, list[Outcome]]
    citations: dict[str, Any] = field(default_factory=dict)

    def counts(self, release: str, part: str | None = None) -> Counter[str]:
        """How many cells have which status, in one part or in all."""
        return Counter(one.status for one in self.outcomes[release] if part in (None, one.part))

    @property
    def parts(self) -> list[str]:
        """Folders of the scripts."""
        return sorted({one.part for outcomes in self.outcomes.values() for one in outcomes})

    def differences(self, release: str) -> list[Outcome]:
        """The cells that came out differently, were renamed, or did not run."""
        return [one for one in self.outcomes[release] if one.status not in ("same", "ran")]


def _detail(entry: dict[str, Any]) -> str:
    if "diff" in entry:
        return "\n".join(entry["diff"])
    if "names" in entry:
        return "\n".join(f"{new} was {old}" for new, old in entry["names"].items())
    return entry.get("why") or entry.get("needs") or ""


def load(path: Path) -> Drift:
    """Read a record.

    Parameters
    ----------
    path
        ``gallery/data/drift.json``.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    names = [release["tvm"] for release in content["releases"]]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names[1:]}
    for script, entry in sorted(content["scripts"].items()):
        for head in entry["cells"]:
            cell, comma, _ = head.partition(", ")
            for name, found in outcomes.items():
                differs = entry[name].get(cell)
                if differs:
                    found.append(Outcome(script, cell, differs["status"], _detail(differs)))
                else:
                    found.append(Outcome(script, cell, "ran" if comma else "same"))
    return Drift(
        names[0],
        {release["tvm"]: release["ffi"] for release in content["releases"]},
        content["date"],
        outcomes,
        content.get("citations", {}),
    )


@dataclass(frozen=True)
class Cause:
    """Why cells differ.

    Attributes
    ----------
    name
        Short, for tables.
    why
        What differs between the releases, in a sentence.
    match
        Regular expression; it is searched in the detail of a cell that changed or failed. Empty: it fits none.
    cells
        Cells that were looked at one by one: ``script cell`` with a regular expression that must be found in the
        detail, so that an explanation ends when the difference becomes another one. Cells without a name are numbered,
        and numbers move: ``block *`` stands for any.
    proof
        Where it is seen: changes of TVM, files, or what was run.
    """

    name: str
    why: str
    match: str = ""
    cells: tuple[tuple[str, str], ...] = ()
    proof: str = ""

    def names(self, outcome: Outcome) -> bool:
        """Whether the cell stands in `cells`, and differs as it says."""
        return any(
            fnmatchcase(f"{outcome.script} {outcome.cell}", cell) and re.search(text, outcome.detail, re.M)
            for cell, text in self.cells
        )

    def fits(self, outcome: Outcome) -> bool:
        """Whether the pattern is found in what differs."""
        return bool(self.match) and bool(re.search(self.match, outcome.detail, re.M))


def read_causes(path: Path) -> list[Cause]:
    """The causes, in the order in which they are tried.

    Raises
    ------
    ValueError
        A row lacks a field, has an unknown one, holds a bad pattern, or repeats a name.
    """
    found: list[Cause] = []
    for number, row in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("cause", []), 1):
        try:
            cause = Cause(**{**row, "cells": tuple(row.get("cells", {}).items())})
            for pattern in (cause.match, *dict(cause.cells).values()):
                re.compile(pattern)
        except (TypeError, AttributeError, re.error) as err:
            raise ValueError(f"{path.name}: row {number}: {err}") from None
        if not cause.match and not cause.cells:
            raise ValueError(f"{path.name}: row {number}: {cause.name!r} has neither match nor cells")
        if cause.name in {other.name for other in found}:
            raise ValueError(f"{path.name}: row {number}: {cause.name!r} stands there twice")
        found.append(cause)
    return found


def explain(outcomes: Iterable[Outcome], causes: Iterable[Cause]) -> dict[Outcome, Cause | None]:
    """The cause of each cell that changed, failed, or was renamed; None if none fits.

    A cause that names the cell comes first, then the first one whose pattern fits. A cell that is blocked or lost has
    no cause of its own and is left out.
    """
    causes = list(causes)

    def cause_of(one: Outcome) -> Cause | None:
        named = (cause for cause in causes if cause.names(one))
        return next(named, None) or next((cause for cause in causes if cause.fits(one)), None)

    return {one: cause_of(one) for one in outcomes if one.status in ("changed", "failed", "renamed")}
