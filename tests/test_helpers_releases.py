"""The record of cells on other releases, read and explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tvm_deepdive_helpers import releases
from tvm_deepdive_helpers.releases import Cause, Outcome

ROOT = Path(__file__).resolve().parents[1]
RECORD = {
    "date": "2026-11-28",
    "releases": [{"tvm": "2", "ffi": "b"}, {"tvm": "1", "ffi": "a"}],
    "scripts": {
        "1-part/x": {
            "cells": ["a", "b, varies", "c", "d", "e", "f"],
            "1": {
                "c": {"status": "changed", "diff": ["-new", "+old"]},
                "d": {"status": "failed", "why": "ValueError: no"},
                "e": {"status": "blocked", "needs": "d"},
                "f": {"status": "renamed", "names": {"tvm.sym": "tvm.arith"}},
            },
        },
        "2-part/y": {"cells": ["a"], "1": {}},
    },
}


@pytest.fixture
def drift(tmp_path: Path) -> releases.Drift:
    path = tmp_path / "drift.json"
    path.write_text(json.dumps(RECORD))
    return releases.load(path)


def test_every_cell_has_an_outcome(drift: releases.Drift) -> None:
    assert drift.reference == "2" and list(drift.outcomes) == ["1"] and drift.releases == {"2": "b", "1": "a"}
    assert [(one.cell, one.status) for one in drift.outcomes["1"]] == [
        ("a", "same"), ("b", "ran"), ("c", "changed"), ("d", "failed"),
        ("e", "blocked"), ("f", "renamed"), ("a", "same"),
    ]  # fmt: skip
    assert drift.parts == ["1-part", "2-part"]
    assert drift.counts("1", "2-part") == {"same": 1}
    assert sum(drift.counts("1").values()) == 7
    assert [one.detail for one in drift.differences("1")] == [
        "-new\n+old",
        "ValueError: no",
        "d",
        "tvm.sym was tvm.arith",
    ]
    assert {one.status for one in drift.outcomes["1"]} <= releases.STATUSES.keys()


def test_the_first_cause_that_fits_explains(drift: releases.Drift) -> None:
    words, errors = Cause("words", "Other words.", r"^\+old$"), Cause("errors", "It raises.", "Error")
    found = releases.explain(drift.outcomes["1"], [words, errors, Cause("all", "All.", ".")])
    assert [(one.cell, cause and cause.name) for one, cause in found.items()] == [
        ("c", "words"), ("d", "errors"), ("f", "all"),
    ]  # fmt: skip
    named = Cause("named", "These cells only.", cells=(("1-part/x d*", "no$"), ("1-part/x c", "another difference")))
    assert [
        cause and cause.name for cause in releases.explain(drift.outcomes["1"], [words, errors, named]).values()
    ] == [
        "words",
        "named",
        None,
    ]
    assert releases.explain([Outcome("p/x", "a", "failed", "?")], [words]) == {Outcome("p/x", "a", "failed", "?"): None}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[cause]]\nname = "a"\nwhy = "b"', "match"),
        ('[[cause]]\nname = "a"\nwhy = "b"\nmatch = "("', "row 1"),
        ('[[cause]]\nname = "a"\nwhy = "b"\nmatch = "c"\n' * 2, "twice"),
        ('[[cause]]\nname = "a"\nwhy = "b"\ncells = {"p/x a" = "("}', "row 1"),
        ('[[cause]]\nname = "a"\nwhy = "b"\ncells = ["p/x a"]', "row 1"),
    ],
)
def test_a_wrong_cause_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "causes.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=word):
        releases.read_causes(path)


def test_the_causes_of_the_book_are_well_formed_and_used() -> None:
    causes = releases.read_causes(ROOT / "gallery/data/drift_causes.toml")
    drift = releases.load(ROOT / "gallery/data/drift.json")
    used = {cause for outcomes in drift.outcomes.values() for cause in releases.explain(outcomes, causes).values()}
    assert set(causes) <= used, f"no cell needs these causes: {[c.name for c in set(causes) - used]}"
    assert all(cause.why.endswith(".") for cause in causes)
    differ = [one for release in drift.outcomes for one in drift.differences(release)]
    single = [replace(cause, cells=(pair,)) for cause in causes for pair in cause.cells]
    unneeded = [cause.cells[0][0] for cause in single if not any(map(cause.names, differ))]
    assert not unneeded, f"these cells do not differ as drift_causes.toml says: {unneeded}"
