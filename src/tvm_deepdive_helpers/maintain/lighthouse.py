"""Measure pages of the built book with Lighthouse, and keep the results in ``gallery/data/lighthouse.csv``.

Lighthouse comes from npm and drives a Chromium, so this is no part of the tests: run it when the theme changes.

    .venv/bin/python -m tvm_deepdive_helpers.maintain.lighthouse

The pages are served from this machine, with text compressed as servers do. Each page is measured several times as
Lighthouse does by default, on a simulated phone of the middle class with a slow network; the middle result counts.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import http.server
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "gallery/data/lighthouse.csv"
#: The kinds of pages: a chapter with figures and code, the page of a script, the first page.
PAGES = {
    "chapter": "2-tir/analysis.html",
    "script": "gallery/2-tir/tir_analysis.html",
    "first page": "index.html",
}
WANTED = {"performance": 90, "accessibility": 95, "best-practices": 95}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TEXT = (".html", ".css", ".js", ".svg", ".md", ".txt", ".json", "/")


class _Compressing(http.server.SimpleHTTPRequestHandler):
    """Serves files, text compressed and with a time to live, as a server of pages does."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        if path.name.endswith(TEXT):
            data = gzip.compress(data, 6)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "max-age=31536000" if path.suffix != ".html" else "no-cache")
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder, compressed; gives the address."""
    handler = functools.partial(_Compressing, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def measure(url: str, browser: str) -> dict[str, Any]:
    """One report of Lighthouse."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.json")
        categories = ",".join(WANTED)
        done = subprocess.run(
            [
                "npx", "--yes", "lighthouse@12", url, "--quiet", "--output=json", f"--output-path={out}",
                f"--only-categories={categories}",
                "--chrome-flags=--headless=new --no-sandbox --disable-gpu --disable-quic",
            ],
            env={**os.environ, "CHROME_PATH": browser, "HOME": folder},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not out.is_file():
            raise SystemExit(f"lighthouse: no report for {url}\n{(done.stdout + done.stderr)[-2000:]}")
        return json.loads(out.read_text(encoding="utf-8"))


def row(kind: str, page: str, reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The middle of several reports on one page, scores out of 100."""
    scores = {
        name.replace("-", "_"): round(
            100 * statistics.median(report["categories"][name]["score"] for report in reports)
        )
        for name in WANTED
    }
    audits = [report["audits"] for report in reports]

    def middle(name: str) -> float:
        return statistics.median(audit[name]["numericValue"] for audit in audits)

    return {
        "kind": kind,
        "page": page,
        **scores,
        "largest_contentful_paint_s": f"{middle('largest-contentful-paint') / 1000:.1f}",
        "total_blocking_time_ms": f"{middle('total-blocking-time'):.0f}",
        "layout_shift": f"{middle('cumulative-layout-shift'):.3f}",
        "kilobytes": f"{middle('total-byte-weight') / 1000:.0f}",
        "lighthouse": reports[0]["lighthouseVersion"],
    }


def failing(report: dict[str, Any]) -> list[str]:
    """Audits of a report that are not passed, a line each."""
    refs = {
        ref["id"] for name in ("accessibility", "best-practices") for ref in report["categories"][name]["auditRefs"]
    }
    return [
        f"{name}: {report['audits'][name]['title']}"
        for name in sorted(refs)
        if report["audits"][name].get("score") not in (None, 1)
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The text of the data file; its first line is the command that wrote it."""
    out = io.StringIO()
    out.write("# .venv/bin/python -m tvm_deepdive_helpers.maintain.lighthouse\n")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="lighthouse", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="reports a page (default: 3)")
    parser.add_argument("--folder", type=Path, default=ROOT / "_build/html/en", help="a built edition")
    arguments = parser.parse_args(argv)
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None or shutil.which("npx") is None:
        raise SystemExit("lighthouse: needs a Chromium and npx (Debian: packages chromium and npm)")
    rows, status = [], 0
    with serve(arguments.folder) as base:
        for kind, page in PAGES.items():
            reports = [measure(base + page, browser) for _ in range(arguments.runs)]
            rows.append(row(kind, page, reports))
            print(rows[-1])
            for text in failing(reports[0]):
                print(f"  {text}")
            status |= any(rows[-1][name.replace("-", "_")] < least for name, least in WANTED.items())
    DATA.write_text(table(rows), encoding="utf-8")
    print(f"written: {DATA.relative_to(ROOT)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
