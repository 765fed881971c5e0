"""Turn what an author writes into a place: repository, tag, file, lines, and the link to them.

Python names and files of the wheel are looked up in the installed packages. C++ files that the wheel ships are parsed
there; all other C++ is looked up in the committed index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from .common import SourceError, cut_lines, digest, split_target
from .cpp_source import CppFile
from .python_source import PythonSources
from .symbol_index import Entry, SymbolIndex, load
from .wheel import Package, Wheels

CPP_SUFFIXES = frozenset({".cc", ".h", ".hpp", ".cu", ".cuh", ".c", ".cpp", ".mm", ".inc"})


@dataclass(frozen=True)
class Place:
    """A resolved citation.

    Attributes
    ----------
    target
        What the author wrote.
    name
        What a reader sees as code: the name, or the path of a whole file.
    project
        ``TVM`` or ``tvm-ffi``.
    repository
        Its web address.
    ref
        Tag (or commit) that the link points to.
    path
        Path in the repository.
    first, last
        Lines; 0 if the place is a whole file or folder.
    sha256
        Hash of the lines; empty for a whole file of the wheel.
    files
        Files of the wheel that the answer depends on, as ``tvm/relax/expr.py``; empty for an entry of the index.
    entry
        The entry of the index, if it is one.
    text
        The lines, if they stand in the wheel and `text` was asked for.
    foreign
        The file belongs to another project, so no link to lines is possible.
    """

    target: str
    name: str
    project: str
    repository: str
    ref: str
    path: str
    first: int = 0
    last: int = 0
    sha256: str = ""
    files: tuple[str, ...] = ()
    entry: Entry | None = None
    text: str | None = None
    foreign: bool = False

    @property
    def file_name(self) -> str:
        """Short name of the file; ``__init__.py`` says nothing without its folder."""
        parts = PurePosixPath(self.path).parts
        return "/".join(parts[-2:]) if parts[-1] in ("__init__.py", "__init__.pyi") else parts[-1]

    def url(self, first: int = 0, last: int = 0) -> str:
        """Web address, of the given lines or of all."""
        if self.foreign:
            return self.repository
        kind = "tree" if self.path.endswith("/") else "blob"
        address = f"{self.repository}/{kind}/{quote(self.ref)}/{quote(self.path.rstrip('/'))}"
        first, last = first or self.first, last or self.last
        if not first:
            return address
        return f"{address}#L{first}" + (f"-L{last}" if last > first else "")


class Places:
    """Resolve citations.

    Parameters
    ----------
    wheels
        The installed packages.
    index
        Path of the index of C++ symbols.
    source_ref, ffi_ref
        Tags for the files of the two wheels; empty for the tags of the installed releases.
    """

    def __init__(self, wheels: Wheels, index: Path, source_ref: str = "", ffi_ref: str = "") -> None:
        self.wheels = wheels
        self.index_path = index
        self.refs = {"tvm": source_ref, "tvm_ffi": ffi_ref}
        self.python_sources = PythonSources(wheels)
        self._cpp_files: dict[str, CppFile] = {}
        self._index: SymbolIndex | None = None

    @property
    def index(self) -> SymbolIndex:
        """The index, read at first use.

        Raises
        ------
        SourceError
            If the file is damaged.
        """
        if self._index is None:
            self._index = load(self.index_path)
        return self._index

    def entry_fingerprint(self, key: str) -> str | None:
        """Changes when what a page shows of an entry changes; None if there is no such entry."""
        entry = self.index.entries.get(key)
        if entry is None:
            return None
        refs = [self.index.refs.get(name) for name in (entry.tag, *entry.same_in)]
        return digest(entry.fingerprint + repr(refs))

    def _ref(self, package: Package) -> str:
        return self.refs.get(package.name) or package.ref

    def python(self, target: str, with_text: bool = False) -> Place:
        """Resolve a ``tvm-py`` target: a dotted name, a file, or ``file.py:Name``.

        Raises
        ------
        SourceError
            If there is no such thing.
        """
        symbol = self.python_sources.find(target)
        package = self.wheels.packages[symbol.package]
        whole = not symbol.name
        name = split_target(target)[1] or target.removeprefix("tvm.")
        text = None if whole and not with_text else self.python_sources.text(symbol)
        return Place(
            target,
            name,
            package.project,
            package.repository,
            self._ref(package),
            package.repository_path(symbol.file),
            0 if whole else symbol.span.first,
            0 if whole else symbol.span.last,
            "" if text is None else digest(text),
            symbol.consulted,
            text=text if with_text else None,
            foreign=package.is_foreign(symbol.file),
        )

    def cpp(self, target: str, with_text: bool = False) -> Place:
        """Resolve a ``tvm-cpp`` target: ``path`` or ``path:Symbol``.

        Raises
        ------
        SourceError
            If there is no such thing, or it is ambiguous.
        """
        path, symbol = split_target(target)
        shipped = self.wheels.cpp_file(path)
        if shipped is None:
            if path.startswith("tvm_ffi/"):
                raise SourceError(f"the wheel of tvm-ffi has no file `{path}`", self._similar_shipped(path))
            return self._indexed(target, path, symbol)
        package, relative = shipped
        file = self._file(package, relative, path)
        first = last = 0
        text = None
        if symbol:
            span = file.find(symbol).span
            first, last = span.first, span.last
            text = cut_lines(file.text, first, last)
        elif with_text:
            text = file.text.rstrip("\n")
        return Place(
            target,
            display(path, symbol),
            package.project,
            package.repository,
            self._ref(package),
            package.repository_path(relative),
            first,
            last,
            "" if text is None else digest(text),
            (f"{package.name}/{relative}",),
            text=text if with_text else None,
            foreign=package.is_foreign(relative),
        )

    def _file(self, package: Package, relative: str, path: str) -> CppFile:
        if path not in self._cpp_files:
            self._cpp_files[path] = CppFile((package.root / relative).read_bytes(), path)
        return self._cpp_files[path]

    def _similar_shipped(self, path: str) -> list[str]:
        package = self.wheels.packages["tvm_ffi"]
        name = PurePosixPath(path).name
        return [f"`tvm_ffi/{one.relative_to(package.root).as_posix()}`" for one in package.root.rglob(name)][:5]

    def _indexed(self, target: str, path: str, symbol: str) -> Place:
        entry = self.index.get(path, symbol)
        package = self.wheels.packages["tvm"]
        folder = entry.first == 0
        return Place(
            target,
            display(path, symbol),
            package.project,
            package.repository,
            entry.tag,
            path.rstrip("/") + "/" if folder else path,
            entry.first if symbol else 0,
            entry.last if symbol else 0,
            entry.sha256,
            entry=entry,
        )


def display(path: str, symbol: str) -> str:
    """What a page shows for a C++ citation: the symbol without its number, or else the path."""
    name, number, tail = symbol.rpartition("#")
    return (name.strip() if number and tail.isdigit() else symbol) or path


def is_cpp(target: str) -> bool:
    """Whether a target names a C++ file (rather than a Python name or file)."""
    return PurePosixPath(split_target(target)[0]).suffix in CPP_SUFFIXES
