"""A small book in a temporary folder, built by a real ``sphinx-build``: what the extension tests stand on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CONF = """
import os, sys
sys.path.insert(0, {src!r})
extensions = [
    "myst_parser", "sphinx_design", "sphinx_exercise", "sphinx_gallery.gen_gallery", "tvm_deepdive_helpers.sphinxext",
]
myst_enable_extensions = ["colon_fence"]
project = "Mini"
html_theme = "basic"
nitpicky = True
suppress_warnings = ["config.cache"]
sphinx_gallery_conf = dict(
    examples_dirs="../gallery", gallery_dirs="gallery", filename_pattern=r"\\.py$", nested_sections=True,
    within_subsection_order="FileNameSortKey", capture_repr=(),
    image_scrapers=("tvm_deepdive_helpers.sphinxext.scraper.scraper",),
    write_computation_times=False, min_reported_time=1e9, download_all_examples=False, show_signature=False,
    reset_modules=(),
)
"""

INDEX = """
# Mini

```{toctree}
:glob:
*
gallery/index
```
"""


class Book:
    """One small book: ``write`` files, ``build``, look at ``html``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "_build" / "html"
        self.write("conf.py", CONF.format(src=str(ROOT / "src")))
        self.write("book/index.md", INDEX)
        self.page("always", "A page that every small book has.")
        self.write("gallery/GALLERY_HEADER.rst", "Scripts\n=======\n")
        self.write("gallery/1-part/GALLERY_HEADER.rst", "Part\n====\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def script(self, name: str, body: str) -> Path:
        """A script of the one part; a title is put before ``body``."""
        return self.write(
            f"gallery/1-part/{name}.py",
            f'"""\n{name}\n{"=" * len(name)}\n\nA script.\n"""\n' + textwrap.dedent(body).lstrip("\n"),
        )

    def page(self, name: str, body: str, front: str = "") -> Path:
        head = f"---\n{textwrap.dedent(front).strip()}\n---\n" if front else ""
        return self.write(f"book/{name}.md", f"{head}# Page {name}\n\n" + textwrap.dedent(body).lstrip("\n"))

    def command(self, *args: str, builder: str = "html") -> list[str]:
        out = self.root / "_build" / builder
        return [
            sys.executable, "-m", "sphinx", "-c", str(self.root), "-b", builder, "-d", str(self.root / "_build" /
            "doctrees" / builder), str(self.root / "book"), str(out), "-W", "--keep-going", *args,
        ]  # fmt: skip

    def env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}

    def build(self, *args: str, builder: str = "html", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``sphinx-build``; the result's ``stdout`` holds both streams."""
        return subprocess.run(
            self.command(*args, builder=builder), cwd=self.root, env=self.env(), text=True, timeout=timeout,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def good_build(self, *args: str, builder: str = "html") -> str:
        done = self.build(*args, builder=builder)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def bad_build(self, *args: str, builder: str = "html") -> str:
        done = self.build(*args, builder=builder)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def html(self, page: str) -> str:
        return (self.out / f"{page}.html").read_text(encoding="utf-8")

    def text(self, page: str) -> str:
        """The page without its tags."""
        return (
            re.sub(r"<[^>]+>", "", self.html(page))
            .replace("&gt;", ">")
            .replace("&lt;", "<")
            .replace("&#39;", "'")
            .replace("&quot;", '"')
        )

    def kill_after(self, seconds: float, *args: str, signum: int = signal.SIGKILL) -> str:
        """Start a build, send it a signal after a while, and return what it had said."""
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.root,
            env=self.env(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        time.sleep(seconds)
        process.send_signal(signum)
        return process.communicate(timeout=60)[0]

    def executed(self, log: str) -> set[str]:
        """Names of the scripts that a build ran, from its log."""
        return set(re.findall(r"gallery/1-part/(\w+)\.py +\d", log))

    def read_pages(self, log: str) -> set[str]:
        """Names of the pages that a build with ``-v`` read."""
        return set(re.findall(r"reading sources\.\.\. \[ *\d+%\] (\S+)", log))


def build_edition(edition: str) -> Path:
    """Build the real book as `make html` does, and give its folder; one that is up to date costs nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "tvm_deepdive_helpers.maintain.html", edition],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SPHINXOPTS"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return ROOT / "_build/html" / edition
