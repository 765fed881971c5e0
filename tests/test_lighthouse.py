"""What is kept of Lighthouse's reports."""

from __future__ import annotations

import gzip
import urllib.request
from pathlib import Path

from tvm_deepdive_helpers.maintain import lighthouse


def report(score: float) -> dict:
    numbers = ("largest-contentful-paint", "total-blocking-time", "cumulative-layout-shift", "total-byte-weight")
    audits = {name: {"numericValue": 1000.0} for name in numbers}
    audits["image-alt"] = {"score": 0, "title": "Images lack text"}
    categories = {name: {"score": score, "auditRefs": [{"id": "image-alt"}]} for name in lighthouse.WANTED}
    return {"categories": categories, "audits": audits, "lighthouseVersion": "12.8.2"}


def test_the_middle_report_counts() -> None:
    made = lighthouse.row("chapter", "a.html", [report(0.9), report(1.0), report(0.2)])
    assert (made["performance"], made["best_practices"], made["kilobytes"]) == (90, 90, "1")
    assert lighthouse.failing(report(1.0)) == ["image-alt: Images lack text"]
    lines = lighthouse.table([made]).splitlines()
    assert lines[0].startswith("# .venv/bin/python -m") and lines[1].startswith("kind,page,performance")


def test_pages_are_served_compressed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello " * 100, encoding="utf-8")
    with lighthouse.serve(tmp_path) as base, urllib.request.urlopen(base) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(answer.read()) == b"hello " * 100
