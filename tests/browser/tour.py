"""One browser goes through all pages of a built edition, with a few tabs, and notes what it sees.

Contrast is the dear part of axe: it looks at every piece of text. But colours come from style sheets, so two pieces of
text with the same tags and classes all the way up look the same. Each such kind of text is judged once in each mode, on
the first page that has it; all other rules run on every page.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import http.server
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
#: What a server sends compressed already.
PACKED = {".png", ".jpg", ".webp", ".woff2", ".zip", ".gz"}
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

#: Rows of long tables, folded links, and words of code with the colour of an earlier one teach axe nothing new.
PRUNE = """() => {
  const REPEATED = "tbody tr:nth-child(n+30), dl > :nth-child(n+60), details:not([open]) > ul > li:nth-child(n+4)";
  for (const row of document.querySelectorAll(REPEATED)) row.remove();
  const seen = new Set();
  for (const span of document.querySelectorAll("pre span")) {
    if (span.closest("a")) continue;
    const key = span.className + signature(span.closest("pre"));
    if (seen.has(key)) span.replaceWith(...span.childNodes); else seen.add(key);
  }
}"""
SIGNATURE = """
window.known = new WeakMap();
window.signature = (node) => {
  if (!node || node === document.documentElement) return "";
  if (!known.has(node)) {
    const own = `${node.localName}.${node.className}[${node.getAttribute("style") || ""}]`;
    known.set(node, `${signature(node.parentElement)}>${own}`);
  }
  return known.get(node);
};
window.kinds = () => {
  window.kept = {};
  for (const node of document.body.querySelectorAll("*")) {
    if (![...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) continue;
    if (!node.checkVisibility()) continue;
    const key = signature(node);
    if (!(key in window.kept)) window.kept[key] = node;
  }
  return Object.keys(window.kept);
};
window.contrast = (keys) => axe.run({include: keys.map((key) => window.kept[key])},
  {preload: false, resultTypes: ["violations"], runOnly: {type: "rule", values: ["color-contrast"]}});
"""
SETTLED = """() => [...document.querySelectorAll("pre")].every((box) =>
  (box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight) || box.tabIndex >= 0)"""
RULES_RUN = f"""() => axe.run(document, {{preload: false, resultTypes: ["violations"],
  runOnly: {{type: "tag", values: {RULES}}}, rules: {{"color-contrast": {{enabled: false}}}}}})"""
SET_MODE = "(mode) => { for (const key of ['theme', 'mode']) document.documentElement.dataset[key] = mode; }"
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"
#: Texts of tables that run into the next column.
CROWDED = """() => [...document.querySelectorAll("article :is(th, td)")]
  .filter((cell) => cell.checkVisibility() && cell.scrollWidth > cell.clientWidth + 1)
  .map((cell) => cell.textContent.trim().slice(0, 80))"""
SEEN_PICTURES = "() => [...document.images].filter((i) => i.checkVisibility()).map((i) => i.currentSrc || i.src)"


@dataclass
class Visit:
    """What the browser saw on one page."""

    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    overhang: int = 0
    crowded: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """Bytes that a server sends for the page and all that it shows in the light mode, text compressed by gzip."""
        return sum(self.files.values())


def find_chromium() -> str | None:
    """The browser of this machine."""
    return next((path for name in CHROMIUM if (path := shutil.which(name))), None)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine; gives the address, which ends in a slash."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@functools.cache
def sent(path: Path) -> int:
    """Bytes of a file on its way to the reader."""
    data = path.read_bytes() if path.is_file() else b""
    return len(data) if path.suffix in PACKED else len(gzip.compress(data, 6))


def told(found: dict[str, Any], mode: str) -> list[str]:
    """The serious violations in a result of axe, a line each."""
    return [
        f"{mode}: {violation['id']} ({violation['impact']}, {len(violation['nodes'])} times): "
        f"{violation['nodes'][0]['html'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


class Tour:
    """The visit of all pages of a folder; `axe` is the text of axe-core."""

    def __init__(self, folder: Path, axe: str) -> None:
        self.folder = folder
        self.axe = axe
        self.visits: dict[str, Visit] = {}
        self.judged: dict[str, set[str]] = {"light": set(), "dark": set()}

    async def run(self, names: Iterable[str], executable: str, tabs: int = 3) -> dict[str, Visit]:
        from playwright.async_api import async_playwright

        queue = list(names)[::-1]
        with serve(self.folder) as base:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
                context = await browser.new_context(viewport=DESKTOP, color_scheme="light")
                await asyncio.gather(*(self._tab(context, base, queue) for _ in range(tabs)))
                await browser.close()
        return self.visits

    async def _tab(self, context: Any, base: str, queue: list[str]) -> None:
        page = await context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        while queue:
            name = queue.pop()
            asked.clear()
            complaints.clear()
            visit = self.visits[name] = Visit()
            await page.goto(base + name, wait_until="load")
            urls = {url.split("#")[0] for url in [*asked, *await page.evaluate(SEEN_PICTURES)]}
            urls = {url for url in urls if not url.startswith(("data:", "blob:"))}
            visit.foreign = sorted(url for url in urls if not url.startswith(base))
            names = {unquote(urlsplit(url).path[1:]) for url in urls if url.startswith(base)}
            visit.files = {file: sent(self.folder / file) for file in names if file != "favicon.ico"}
            await page.set_viewport_size(PHONE)
            visit.overhang = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            await page.set_viewport_size(DESKTOP)
            visit.crowded = await page.evaluate(CROWDED)
            visit.complaints = [text for text in complaints if "favicon.ico" not in text]
            await page.add_style_tag(content=STILL)
            await page.evaluate(f"{self.axe}\n{SIGNATURE}\n0")
            await page.evaluate(PRUNE)
            for mode in self.judged:
                await page.evaluate(SET_MODE, mode)
                new = [key for key in await page.evaluate("kinds()") if key not in self.judged[mode]]
                self.judged[mode].update(new)
                if new:
                    visit.violations += told(await page.evaluate("(keys) => contrast(keys)", new), mode)
            # The theme makes boxes that scroll reachable by keys a moment after the window got another size.
            with contextlib.suppress(Exception):  # if it does not, the rules say which box it is
                await page.wait_for_function(SETTLED, timeout=5000)
            visit.violations += told(await page.evaluate(RULES_RUN), "both modes")
        await page.close()
