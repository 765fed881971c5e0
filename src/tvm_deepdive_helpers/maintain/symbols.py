"""Write and check the index of cited C++ places against a checkout of TVM.

::

    python -m tvm_deepdive_helpers.maintain.symbols update --checkout ~/tvm    (or only: symbols ~/tvm)
    python -m tvm_deepdive_helpers.maintain.symbols check  --checkout ~/tvm
    python -m tvm_deepdive_helpers.maintain.symbols show   --checkout ~/tvm "src/ir/op.cc:OpRegEntry::RegisterOrGet"
    python -m tvm_deepdive_helpers.maintain.symbols add    --checkout ~/tvm "src/ir/op.cc:OpRegEntry::RegisterOrGet"

``update`` collects every ``tvm-cpp`` role of the book and of the gallery, leaves out files that the
installed wheel ships (the build checks those itself), finds each symbol at the tag, compares its text
with other releases, and rewrites the index; entries that no page uses any more are dropped. ``check``
changes nothing and exits with 1 if ``update`` would. ``show`` prints the lines of a symbol; ``add``
writes a single entry, for an author who wants to build a page at once.

The checkout is only read with ``git cat-file``: nothing is checked out, and nothing is downloaded.
Exit status: 0 done, 1 differences or symbols that were not found, 2 wrong use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..sources.common import SourceError, cut_lines, digest, split_target, split_title
from ..sources.cpp_source import CppFile
from ..sources.symbol_index import Entry, SymbolIndex, load
from ..sources.wheel import Wheels

try:
    import fcntl
except ImportError:  # not on Windows; there two authors must not write at the same moment
    fcntl = None

DEFAULT_TAG = "v0.26.0"
DEFAULT_COMPARE = ("v0.24.0", "v0.25.0.post1", "main")
DEFAULT_INDEX = Path("book/_data/cpp_symbols.json")
DEFAULT_BOOK = Path("book")
DEFAULT_GALLERY = Path("gallery")


_COMMANDS = ("update", "check", "show", "add")


class UsageError(Exception):
    """Wrong input: one line for the user, exit status 2."""


# -- what the book cites ---------------------------------------------------------------------------

_MYST_ROLE = re.compile(r"\{tvm-cpp\}(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
_REST_ROLE = re.compile(r":tvm-cpp:`([^`]+)`")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,}|:{3,})\s*(\S*)")


@dataclass(frozen=True)
class Use:
    """A role in a page."""

    path: str
    symbol: str
    file: Path
    line: int

    @property
    def key(self) -> str:
        return f"{self.path}:{self.symbol}" if self.symbol else self.path

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _without_examples(text: str) -> str:
    """Blank fenced blocks that are not directives: a role in them is an example of its syntax."""
    kept: list[str] = []
    directives: list[str] = []  # open fences, outermost first
    example = ""
    for line in text.split("\n"):
        fence, info = match.groups() if (match := _FENCE.match(line)) else ("", "")
        if example:
            if fence.startswith(example) and not info:
                example = ""
            line = ""
        elif info.startswith("{"):
            directives.append(fence)
        elif fence and not info and any(fence.startswith(one) for one in directives):
            while not fence.startswith(directives.pop()):
                pass
        elif fence and (info or fence[0] != ":"):
            example, line = fence, ""
        kept.append(line)
    return "\n".join(kept)


def roles_in(text: str, file: Path) -> Iterator[Use]:
    """Every ``tvm-cpp`` role of a Markdown page, table or script."""
    # In a script, comment signs stand in front of continued lines.
    text = re.sub(r"^#[ \t]?", "", text, flags=re.M) if file.suffix == ".py" else _without_examples(text)
    found = [(m.start(), m.group(2)) for m in _MYST_ROLE.finditer(text)]
    found += [(m.start(), m.group(1)) for m in _REST_ROLE.finditer(text)]
    for start, content in sorted(found):
        path, symbol = split_target(split_title(content)[1])
        yield Use(path, symbol, file, text.count("\n", 0, start) + 1)


def collect(book: Path, gallery: Path) -> list[Use]:
    """Every ``tvm-cpp`` role of the book and of the gallery's scripts.

    Raises
    ------
    UsageError
        If there is no such book.
    """
    if not book.is_dir():
        raise UsageError(f"there is no folder {book}; run this in the root of the book")
    generated = book / "gallery"
    files = [
        path
        for pattern in ("*.md", "*.rst", "*.csv", "*.yml", "*.yaml", "*.toml")
        for path in sorted(book.rglob(pattern))
        if generated not in path.parents
    ]
    files += sorted(gallery.rglob("*.py"))
    uses: list[Use] = []
    for path in files:
        uses += roles_in(path.read_text("utf-8"), path)
    return uses


# -- the checkout ----------------------------------------------------------------------------------


class Checkout:
    """A git repository of TVM, read object by object.

    Parameters
    ----------
    path
        Work tree or bare repository.

    Raises
    ------
    UsageError
        If it is not a git repository.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder")
        # A work tree that lies in the repository of this book is not a checkout of TVM.
        inside = self._git("rev-parse", "--absolute-git-dir")
        if inside.returncode:
            raise UsageError(f"{path} is not a git repository")
        self._blobs: dict[tuple[str, str], bytes | None] = {}
        self._files: dict[tuple[str, str], CppFile] = {}

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = ["git", "--no-optional-locks", "-C", str(self.path), *arguments]
        return subprocess.run(command, capture_output=True, check=False)

    def commit(self, ref: str) -> str:
        """The commit of a tag, or else of a branch or commit.

        Tags go first: TVM has branches and tags of the same name.

        Raises
        ------
        UsageError
            If there is none.
        """
        for name in (f"refs/tags/{ref}", f"refs/heads/{ref}", f"refs/remotes/origin/{ref}", ref):
            done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
            if done.returncode == 0:
                return done.stdout.decode().strip()
        raise UsageError(f"{self.path} has no tag, branch or commit {ref}")

    def date(self, commit: str) -> str:
        """Date of a commit, ``YYYY-MM-DD`` in UTC."""
        done = subprocess.run(
            ["git", "-C", str(self.path), "log", "-1", "--format=%cd",
             "--date=format-local:%Y-%m-%d", commit],
            capture_output=True, check=True, env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip
        return done.stdout.decode().strip()

    def blob(self, commit: str, path: str) -> bytes | None:
        """A file's bytes at a commit; None if there is no such file."""
        key = (commit, path)
        if key not in self._blobs:
            done = self._git("cat-file", "blob", f"{commit}:{path}")
            self._blobs[key] = done.stdout if done.returncode == 0 else None
        return self._blobs[key]

    def names(self, commit: str, folder: str) -> list[str] | None:
        """Names in a folder at a commit; None if there is no such folder."""
        done = self._git("ls-tree", "--name-only", "-z", f"{commit}:{folder.rstrip('/')}")
        return done.stdout.decode().rstrip("\0").split("\0") if done.returncode == 0 else None

    def similar_path(self, commit: str, path: str) -> list[str]:
        """Files of the same name elsewhere."""
        listing = self._git("ls-tree", "-r", "--name-only", commit).stdout.decode().split("\n")
        name = path.rstrip("/").rpartition("/")[2]
        return [f"`{one}`" for one in listing if one.rpartition("/")[2] == name][:5]

    def resolve(self, commit: str, path: str, symbol: str) -> tuple[int, int, str]:
        """First line, last line and text of a citation; for a folder 0, 0 and the names in it.

        Raises
        ------
        SourceError
            If the file or the symbol does not exist.
        """
        key = (commit, path)
        if key not in self._files:
            data = self.blob(commit, path)
            if data is None:
                names = self.names(commit, path)
                if names is not None and not symbol:
                    return 0, 0, "\n".join(sorted(names))
                raise SourceError(f"there is no file `{path}`", self.similar_path(commit, path))
            self._files[key] = CppFile(data, path)
        file = self._files[key]
        if not symbol:
            return 1, file.line_count, file.text
        span = file.find(symbol).span
        return span.first, span.last, cut_lines(file.text, span.first, span.last)


def describe(checkout: Checkout, commits: dict[str, str], tag: str, path: str, symbol: str) -> Entry:
    """Resolve one citation at the tag, and compare it with the other refs.

    Parameters
    ----------
    commits
        Commit of the tag and of each compared ref.
    tag
        Which of them the entry describes.

    Raises
    ------
    SourceError
        If the tag does not have it.
    """
    first, last, text = checkout.resolve(commits[tag], path, symbol)
    same: dict[str, bool | str] = {}
    for name, commit in commits.items():
        if name == tag:
            continue
        try:
            same[name] = checkout.resolve(commit, path, symbol)[2] == text
        except SourceError:
            same[name] = "absent"
    return Entry(path, symbol, first, last, digest(text), tag, same)


# -- commands --------------------------------------------------------------------------------------


def _refs(checkout: Checkout, tag: str, compare: Iterable[str]) -> dict[str, str]:
    return {name: checkout.commit(name) for name in dict.fromkeys([tag, *compare])}


def _shipped() -> Callable[[str], bool]:
    """Whether the build checks a path against the wheel itself."""
    try:
        wheels = Wheels.installed()
    except SourceError as error:
        raise UsageError(f"{error.message}; install the book's requirements first") from None
    return lambda path: path.startswith("tvm_ffi/") or wheels.cpp_file(path) is not None


def build_index(
    checkout: Checkout, uses: Iterable[Use], tag: str, compare: Iterable[str],
    report: Callable[[str], None] = print,
) -> tuple[SymbolIndex, list[str]]:  # fmt: skip
    """Resolve all uses.

    Returns
    -------
    index : SymbolIndex
        What was found.
    problems : list of str
        One line for each use that was not.
    """
    commits = _refs(checkout, tag, compare)
    index = SymbolIndex(
        tag,
        {name: {"commit": commit, "date": checkout.date(commit)}
         for name, commit in commits.items()},
    )  # fmt: skip
    problems: list[str] = []
    failed: dict[str, SourceError] = {}
    for use in uses:
        if use.key not in index.entries and use.key not in failed:
            try:
                entry = describe(checkout, commits, tag, use.path, use.symbol)
            except SourceError as error:
                failed[use.key] = error
            else:
                index.entries[entry.key] = entry
                report(summary(entry))
        if use.key in failed:
            problems.append(f"{use}: {failed[use.key]} ({tag})")
    index.entries = dict(sorted(index.entries.items()))
    return index, problems


def summary(entry: Entry) -> str:
    """One line: where the citation is, and in which releases its text is the same."""
    words = {True: "same", False: "changed", "absent": "absent"}
    compared = ", ".join(f"{name} {words[same]}" for name, same in entry.same_in.items())
    where = f"lines {entry.first}-{entry.last}" if entry.first else "folder"
    return f"{entry.key}  {where}" + (f"  ({compared})" if compared else "")


def differences(old: SymbolIndex, new: SymbolIndex) -> list[str]:
    """What changed between two indexes, one line each."""
    lines = []
    if old.tag != new.tag:
        lines.append(f"tag: {old.tag or 'none'} -> {new.tag}")
    for key in sorted({*old.entries, *new.entries}):
        before, after = old.entries.get(key), new.entries.get(key)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{key}: " + ("new" if before is None else "no longer cited"))
            continue
        changes = []
        if before.sha256 != after.sha256:
            changes.append("the text changed")
        if (before.first, before.last) != (after.first, after.last):
            changes.append(f"lines {before.first}-{before.last} -> {after.first}-{after.last}")
        if before.same_in != after.same_in:
            changes.append(f"same in {before.same_in} -> {after.same_in}")
        lines.append(f"{key}: {'; '.join(changes) or 'tag'}")
    return lines


def moved_refs(old: SymbolIndex, new: SymbolIndex) -> list[str]:
    """Refs that stand for another commit than before: a branch moves, and that alone is no difference."""
    lines = []
    for name in dict.fromkeys([*old.refs, *new.refs]):
        commits = [one.refs.get(name, {}).get("commit", "none")[:10] for one in (old, new)]
        if commits[0] != commits[1]:
            lines.append(f"ref {name}: {commits[0]} -> {commits[1]}")
    return lines


@contextlib.contextmanager
def _locked(index: Path) -> Iterator[None]:
    """Let one process at a time read and rewrite the index."""
    index.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    folder = os.open(index.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _say_problems(problems: list[str]) -> None:
    for line in problems:
        print(line, file=sys.stderr)


def _update(arguments: argparse.Namespace, write: bool) -> int:
    checkout = Checkout(arguments.checkout)
    shipped = _shipped()
    uses = [one for one in collect(arguments.book, arguments.gallery) if not shipped(one.path)]
    with _locked(arguments.index):
        old = load(arguments.index)
        tag = arguments.tag or old.tag or DEFAULT_TAG
        compare = arguments.compare
        if compare is None:
            compare = [name for name in old.refs if name != old.tag] or DEFAULT_COMPARE
        new, problems = build_index(checkout, uses, tag, compare, print if write else lambda line: None)
        if write:
            new.write(arguments.index)
    changed = differences(old, new)
    if write:
        print(f"{arguments.index}: {len(new)} symbols, {len(changed)} changes")
    elif not changed and not problems:
        print(f"{arguments.index}: {len(new)} symbols, all as in {tag}")
    for line in moved_refs(old, new) + ([] if write else changed):
        print(line)
    _say_problems(problems)
    return 1 if problems or (changed and not write) else 0


def _one(arguments: argparse.Namespace, write: bool) -> int:
    checkout = Checkout(arguments.checkout)
    path, symbol = split_target(arguments.target)
    with _locked(arguments.index) if write else contextlib.nullcontext():
        index = load(arguments.index)
        tag = arguments.tag or index.tag or DEFAULT_TAG
        compare = arguments.compare
        if compare is None:
            compare = [name for name in index.refs if name != index.tag] or DEFAULT_COMPARE
        commits = _refs(checkout, tag, compare)
        try:
            entry = describe(checkout, commits, tag, path, symbol)
        except SourceError as error:
            raise UsageError(f"{error} ({tag})") from None
        print(summary(entry))
        if not write:
            print(checkout.resolve(commits[tag], path, symbol)[2])
        elif _shipped()(path):
            print("the wheel ships this file: no entry is needed")
        else:
            index.tag = index.tag or tag
            for name, commit in commits.items():
                known = {"commit": commit, "date": checkout.date(commit)}
                index.refs.setdefault(name, known)
            index.entries[entry.key] = entry
            index.write(arguments.index)
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--checkout", type=Path, required=True, help="a clone of TVM with its tags, bare or not")
    common.add_argument("--tag", help=f"tag to cite (default: that of the index, or {DEFAULT_TAG})")
    common.add_argument(
        "--compare", nargs="*", metavar="REF",
        help="tags, branches or commits to compare with "
        f"(default: those of the index, or {' '.join(DEFAULT_COMPARE)})",
    )  # fmt: skip
    common.add_argument("--index", type=Path, default=DEFAULT_INDEX, help="(default: %(default)s)")
    common.add_argument("--book", type=Path, default=DEFAULT_BOOK, help="(default: %(default)s)")
    common.add_argument("--gallery", type=Path, default=DEFAULT_GALLERY, help="(default: %(default)s)")
    parser = argparse.ArgumentParser(
        prog="python -m tvm_deepdive_helpers.maintain.symbols",
        description="Write and check the index of cited C++ places against a checkout of TVM.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("update", "rewrite the index from the book's citations"),
        ("check", "say what update would change, and change nothing"),
    ):
        commands.add_parser(name, parents=[common], help=text)
    for name, text in (
        ("show", "print the lines of one symbol"),
        ("add", "add one symbol to the index"),
    ):
        commands.add_parser(name, parents=[common], help=text).add_argument("target", metavar="path:Symbol")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] not in _COMMANDS and not argv[0].startswith("-"):
        argv = ["update", "--checkout", *argv]  # what `make symbols` writes
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command in ("update", "check"):
            return _update(arguments, write=arguments.command == "update")
        return _one(arguments, write=arguments.command == "add")
    except (UsageError, SourceError) as error:
        print(f"symbols: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
