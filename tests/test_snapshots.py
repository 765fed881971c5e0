"""Snapshots: what stands in them, and that a change is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import snapshots
from tvm_deepdive_helpers.sphinxext import records

RECORD = records.Record(
    script="1-part/story",
    title="Story",
    cells=(
        records.Cell("shown", 8, "print(1)", "1\ntwo  "),
        records.Cell("quiet", 12, "x = 1"),
        records.Cell("timed", 15, "print(t)", "0.123 ms", varies=True),
        records.Cell(None, 18, "print(2)", "2", images=("a.png",)),
    ),
    glued={"n": {"value": 5, "varies": False}, "ms": {"value": 0.123, "varies": True}},
    seconds=1.0,
    cpu_seconds=1.0,
    date="2026-01-01",
    versions={},
)


def test_what_stands_in_a_snapshot() -> None:
    assert snapshots.snapshot(RECORD) == (
        "gallery/1-part/story.py\n\n== glued\nn = 5\nms (varies)\n\n== cell shown\n1\ntwo\n\n"
        "== cell timed\n(varies)\n\n== block 4\n2\n(figure)\n"
    )


def test_accept_then_compare_then_change(tmp_path: Path) -> None:
    built, kept = tmp_path / "gallery", tmp_path / "snapshots"
    records.write(RECORD, built / "1-part/story.cells.json")
    assert "has no snapshot" in snapshots.compare(built, kept)[0]
    assert snapshots.accept(built, kept) == (1, 0)
    assert snapshots.compare(built, kept) == []
    path = kept / "1-part/story.txt"
    path.write_text(path.read_text().replace("two", "three"))
    [problem] = snapshots.compare(built, kept)
    assert "-three" in problem
    assert "+two" in problem
    assert snapshots.accept(built, kept) == (1, 0)
    assert snapshots.accept(built, kept) == (0, 0)


def test_a_snapshot_without_a_script_is_reported_and_removed(tmp_path: Path) -> None:
    built, kept = tmp_path / "gallery", tmp_path / "snapshots"
    records.write(RECORD, built / "1-part/story.cells.json")
    (kept / "1-part").mkdir(parents=True)
    (kept / "1-part/gone.txt").write_text("x")
    assert any("no record of gallery/1-part/gone.py" in text for text in snapshots.compare(built, kept))
    assert snapshots.accept(built, kept) == (1, 1)
    assert not (kept / "1-part/gone.txt").exists()


def test_accept_without_a_build_says_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="build the book first"):
        snapshots.accept(tmp_path / "none", tmp_path / "kept")
