"""What a change does to the book, as a list for its reviewer: ``make changes BASE=origin/main``.

::

    python -m tvm_deepdive_helpers.maintain.changes BASE

Compares the files here with the commit from which the change departed (the merge base of ``BASE`` and ``HEAD``) and
prints Markdown: scripts that run again and why, pages that read differently, outputs that changed (from the snapshots,
cell by cell), translations. CI puts it on the page of the run. Nothing is built or executed.
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tvm_deepdive_helpers.sphinxext import gallery_run, scripts

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "src/tvm_deepdive_helpers"
PINS = "constraints.txt"
#: Modules that are part of every script's key, see `gallery_run.inputs`.
ALWAYS = ("figures.py", "book.py", *(f"sphinxext/{name}" for name in gallery_run.OWN_FILES))
MOST_LINES = 12


class GitError(RuntimeError):
    """git could not answer; the message has its words."""


@dataclass
class Changes:
    """What a change touches.

    Attributes
    ----------
    scripts : dict
        Name of a script that runs again, such as ``2-tir/tir_overview``: why (the files).
    pages : dict
        Page below ``book/``: why (its text, or the scripts that it shows whose text or output changed).
    outputs : dict
        Name of a script: the changed cells, each with its lines ``- old`` and ``+ new``.
    translations : list
        Files of messages that changed.
    other : list
        Changed files that are none of that.
    """

    scripts: dict[str, list[str]] = field(default_factory=dict)
    pages: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    translations: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


def git(root: Path, *args: str) -> str:
    """Output of a git command."""
    done = subprocess.run(["git", *args], cwd=root, text=True, encoding="utf-8", capture_output=True, check=False)
    if done.returncode:
        raise GitError(done.stderr.strip() or f"git {args[0]} ended with {done.returncode}")
    return done.stdout


def changed_files(root: Path, base: str) -> tuple[str, list[str]]:
    """The commit that the change departed from, and the files that differ from it, not committed ones included."""
    start = git(root, "merge-base", base, "HEAD").strip()
    names = git(root, "diff", "--name-only", "-z", "--no-renames", start).split("\0")
    names += git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return start, sorted(set(filter(None, names)))


def shown_scripts(text: str, known: set[str]) -> set[str]:
    """Scripts that a page shows or takes numbers from: its front matter's, and those named in full."""
    found = set(re.findall(r"^gallery:\s*([\w/-]+)", text, re.M))
    found |= set(re.findall(r"\b(\d-[\w-]+/\w+):", text))
    return found & known


def cells(snapshot: str) -> dict[str, list[str]]:
    """The sections of a snapshot: heading to lines."""
    parts: dict[str, list[str]] = {}
    for line in snapshot.splitlines()[1:]:
        if line.startswith("== "):
            parts[line[3:]] = lines = []
        elif parts:
            lines.append(line)
    return parts


def changed_cells(old: str, new: str) -> dict[str, list[str]]:
    """Lines that went (``- ``) and came (``+ ``), for each cell whose output differs."""
    before, after = cells(old), cells(new)
    found = {}
    for name in [*after, *(name for name in before if name not in after)]:
        lines = [
            f"{line[0]} {line[1:]}"
            for line in difflib.unified_diff(before.get(name, []), after.get(name, []), lineterm="", n=0)
            if line[0] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()
        ]
        if lines:
            found[name] = lines
    return found


def changes(root: Path, base: str) -> Changes:
    """What the change since ``base`` touches; see :class:`Changes`.

    Raises
    ------
    GitError
        ``base`` is no commit that is known here, or this is no repository.
    """
    start, files = changed_files(root, base)
    made = Changes()
    changed = set(files)
    gallery = root / "gallery"
    names = {path.relative_to(gallery).with_suffix("").as_posix(): path for path in gallery.glob("*/*.py")}
    always = {f"{PACKAGE}/{name}" for name in ALWAYS}
    every = {PINS} if PINS in changed and _pins(_before(root, start, PINS)) != _pins(_now(root, PINS)) else set()
    for name, path in names.items():
        helpers = {h.relative_to(root).as_posix() for h in scripts.imported_helpers(path, root / PACKAGE)}
        data = {f"gallery/data/{file}" for file in re.findall(r"""data\(["']([^"']+)""", path.read_text("utf-8"))}
        why = sorted(changed & {f"gallery/{name}.py", *helpers, *data, *always} | every)
        if why:
            made.scripts[name] = why
    for file in files:
        if match := re.fullmatch(r"tests/snapshots/(.+)\.txt", file):
            if difference := changed_cells(_before(root, start, file), _now(root, file)):
                made.outputs[match[1]] = difference
        elif file.endswith(".po"):
            made.translations.append(file)
        elif not re.match(r"(book/[^_].*\.md|gallery/.*\.py)$", file):
            made.other.append(file)
    for path in sorted((root / "book").glob("*/*.md")):
        page = path.relative_to(root).as_posix()
        if path.parts[-2] in ("gallery", "_data"):
            continue
        shown = shown_scripts(path.read_text(encoding="utf-8"), set(names))
        why = [page] if page in changed else []
        why += sorted(f"gallery/{name}.py" for name in shown if f"gallery/{name}.py" in changed or name in made.outputs)
        if why:
            made.pages[page] = why
    return made


def _before(root: Path, start: str, file: str) -> str:
    try:
        return git(root, "show", f"{start}:{file}")
    except GitError:
        return ""  # the file is new


def _now(root: Path, file: str) -> str:
    return (root / file).read_text(encoding="utf-8") if (root / file).exists() else ""  # it may have gone


def _pins(constraints: str) -> list[str]:
    """The lines of packages that every script's key holds."""
    return [line for line in constraints.splitlines() if line.split("==")[0].lower() in gallery_run.VERSIONS]


def report(made: Changes) -> str:
    """The list as Markdown."""
    lines = ["## What this change does to the book", ""]
    lines += _section(
        "Pages that read differently", [f"`{page}`: {_why(why, page)}" for page, why in made.pages.items()]
    )
    lines += _section(
        "Scripts that run again", [f"`{name}`: {_why(why, f'gallery/{name}.py')}" for name, why in made.scripts.items()]
    )
    lines += [f"### Outputs that changed ({sum(map(len, made.outputs.values()))} cells)", ""]
    for name, found in made.outputs.items():
        for cell, text in found.items():
            more = [f"… {len(text) - MOST_LINES} more lines"] if len(text) > MOST_LINES else []
            lines += [f"`{name}`, {cell}", "", "```diff", *text[:MOST_LINES], *more, "```", ""]
    if not made.outputs:
        lines += ["None.", ""]
    lines += _section("Translations", [f"`{file}`" for file in made.translations])
    lines += _section("Other files", [f"`{file}`" for file in made.other])
    return "\n".join(lines)


def _section(title: str, items: list[str]) -> list[str]:
    return [f"### {title} ({len(items)})", "", *(f"- {item}" for item in items), *(["None."] if not items else []), ""]


def _why(files: list[str], own: str) -> str:
    words = ["its text" if file == own else f"`{file}`" for file in files]
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="changes", description="List what a change does to the book.")
    parser.add_argument("base", help="the branch or commit that the change is for, such as origin/main")
    arguments = parser.parse_args(argv)
    try:
        print(report(changes(ROOT, arguments.base)))
    except GitError as error:
        print(f"make changes: {error} (name a branch or commit that is here: make changes BASE=main)", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
