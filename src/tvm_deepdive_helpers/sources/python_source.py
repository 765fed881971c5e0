"""Find a Python name of an installed package in its source, without importing the package.

Files are parsed with :mod:`ast`, and only those on the way to a name: ``relax.BlockBuilder.emit`` reads
``tvm/relax/__init__.py``, follows the import there to ``block_builder.py``, and finds the method. Followed are

* imports and re-exports, ``from .x import *`` (with ``__all__``) and submodules,
* assignments of one name to another (``relu = nn.relu``),
* methods and class attributes, also inherited ones whose base class is found in the same way.

Names that exist only at run time (attributes of an FFI namespace, fields that C++ registers) are not in the source,
and so cannot be cited. ``tvm_ffi.core`` is a compiled module; its names are looked up in the Cython files beside it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from .common import SourceError, Span, cut_lines, similar, split_target
from .wheel import Package, Wheels

_FILE_SUFFIXES = (".py", ".pyi", ".pyx", ".pxi")


@dataclass(frozen=True)
class PySymbol:
    """A place in the source of an installed package.

    Attributes
    ----------
    package
        ``tvm`` or ``tvm_ffi``.
    file
        Path below the package's folder; a folder's path ends in ``/``.
    name
        Qualified name inside the file; empty for a whole file.
    kind
        ``module``, ``folder``, ``class``, ``function`` or ``variable``.
    span
        Lines, decorators included.
    consulted
        Every file that was read on the way, as ``tvm/relax/__init__.py``: the answer changes only if one of them does.
    """

    package: str
    file: str
    name: str
    kind: str
    span: Span
    consulted: tuple[str, ...] = ()


@dataclass
class _Binding:
    """One way in which a scope gets a name."""

    kind: str  # class, function, variable, module (import a.b), name (from a import b), alias (x = y)
    file: str
    span: Span
    weak: bool = False  # in an except branch, under TYPE_CHECKING, or None: only if nothing else binds the name
    target: tuple[str, ...] = ()  # of module and name: absolute dotted name; of alias: the name as written
    scope: _Scope | None = None  # of a class
    overload: bool = False
    accessor: bool = False  # the setter or deleter of a property


@dataclass
class _Scope:
    """A module or the body of a class."""

    bindings: dict[str, list[_Binding]] = field(default_factory=dict)
    stars: list[tuple[str, ...]] = field(default_factory=list)
    bases: list[tuple[str, ...]] = field(default_factory=list)
    exported: list[str] | None = None  # __all__

    def add(self, name: str, binding: _Binding) -> None:
        self.bindings.setdefault(name, []).append(binding)

    def candidates(self, name: str) -> list[_Binding]:
        """Bindings of a name, the one that counts first: the last in the file, but no overload and no fallback."""
        found = self.bindings.get(name, [])[::-1]
        return sorted(found, key=lambda one: (one.weak, one.overload, one.accessor))


@dataclass
class _Module:
    dotted: tuple[str, ...]
    file: str  # with the package's name: tvm/relax/__init__.py
    is_package: bool
    scope: _Scope
    line_count: int


@dataclass
class _Found:
    """A resolved name: a module, or a binding with the qualified name that it has in its file."""

    module: _Module
    name: str = ""
    binding: _Binding | None = None


class PythonSources:
    """Resolve names in the installed packages; every file is parsed at most once.

    Parameters
    ----------
    wheels
        The packages.
    """

    def __init__(self, wheels: Wheels) -> None:
        self.wheels = wheels
        self._modules: dict[tuple[str, ...], _Module | None] = {}
        self._texts: dict[str, str] = {}
        self._consulted: dict[str, None] = {}

    # -- the two questions -------------------------------------------------------------------------

    def find(self, target: str) -> PySymbol:
        """Find a dotted name, a file, or ``file.py:Name``.

        Names are below ``tvm`` unless they begin with ``tvm_ffi``; so are files.

        Raises
        ------
        SourceError
            Nothing of that name; the hints are similar names that exist.
        """
        self._consulted = {}
        target = target.strip().removesuffix("()")
        path, name = split_target(target)
        if name or "/" in path or path.endswith(_FILE_SUFFIXES):
            return self._in_file(path, name)
        if not re.fullmatch(r"\w+(\.\w+)*", target):
            raise SourceError(f"`{target}` is neither a dotted name nor a file")
        parts = tuple(target.split("."))
        if parts[0] not in self.wheels.packages:
            parts = ("tvm", *parts)
        found = self._dotted(parts)
        if found is None:
            raise self._unknown(target, parts)
        return self._symbol(found)

    def text(self, symbol: PySymbol) -> str:
        """The lines of a symbol."""
        text = self._read(f"{symbol.package}/{symbol.file}")
        return cut_lines(text, symbol.span.first, symbol.span.last)

    # -- files -------------------------------------------------------------------------------------

    def _package(self, name: str) -> Package:
        try:
            return self.wheels.packages[name]
        except KeyError:
            raise SourceError(f"the package {name} is not installed") from None

    def _read(self, file: str) -> str:
        """Text of ``tvm/relax/expr.py``."""
        self._consulted[file] = None
        if file not in self._texts:
            name, _, relative = file.partition("/")
            self._texts[file] = (self._package(name).root / relative).read_text("utf-8")
        return self._texts[file]

    def _in_file(self, path: str, name: str) -> PySymbol:
        package_name, relative = "tvm", path
        for known in self.wheels.packages:
            if path.startswith(f"{known}/"):
                package_name, relative = known, path.removeprefix(f"{known}/")
        package = self._package(package_name)
        whole = package.root / relative
        if ".." in PurePosixPath(relative).parts or not whole.exists():
            raise SourceError(
                f"{package.name} {package.version} has no file `{path}`", self._similar_files(package, relative)
            )
        if whole.is_dir():
            if name:
                raise SourceError(f"`{path}` is a folder, so it cannot hold `{name}`")
            return PySymbol(package_name, relative.rstrip("/") + "/", "", "folder", Span(1, 1))
        file = f"{package_name}/{relative}"
        if not name:
            text = self._read(file)
            return PySymbol(package_name, relative, "", "module", Span(1, _count(text)), tuple(self._consulted))
        module = self._load(file, tuple(PurePosixPath(file).with_suffix("").parts))
        found = self._member_of_module(module, tuple(name.split(".")), set(), follow=False)
        if found is None:
            hints = [f"`{path}:{one}`" for one in similar(name, self._names_below(_Found(module), 2))]
            raise SourceError(f"`{path}` of {package.name} {package.version} has no `{name}`", hints)
        return self._symbol(found)

    def _similar_files(self, package: Package, relative: str) -> list[str]:
        suffix = PurePosixPath(relative).suffix or ".py"
        known = [path.relative_to(package.root).as_posix() for path in package.root.rglob(f"*{suffix}")]
        known = [one for one in known if not one.startswith("3rdparty/")]
        name = PurePosixPath(relative).name
        found = [one for one in known if one.endswith(f"/{name}") or one == name][:3]
        found += [one for one in similar(relative, known) if one not in found and one.count("/") == relative.count("/")]
        prefix = "" if package.name == "tvm" else f"{package.name}/"
        return [f"`{prefix}{one}`" for one in found[:5]]

    def _module(self, dotted: tuple[str, ...]) -> _Module | None:
        """The module of an absolute name; None if there is none in the two packages."""
        if not dotted or dotted[0] not in self.wheels.packages:
            return None
        if dotted not in self._modules:
            self._modules[dotted] = self._locate(dotted)
        module = self._modules[dotted]
        if module is not None:
            self._consulted[module.file] = None
        return module

    def _locate(self, dotted: tuple[str, ...]) -> _Module | None:
        root = self._package(dotted[0]).root
        folder = root.joinpath(*dotted[1:])
        choices = [folder / "__init__.py"]
        if len(dotted) > 1:
            choices += [folder.with_name(folder.name + ".py"), folder.parent / "cython" / f"{folder.name}.pyx"]
        stub = [] if len(dotted) < 2 else [folder.with_name(folder.name + ".pyi")]
        for path in choices:
            if path.is_file():
                return self._load(f"{dotted[0]}/{path.relative_to(root).as_posix()}", dotted)
        elsewhere = _redirected(dotted)
        module = self._module(elsewhere) if elsewhere else None
        if module is None and stub and stub[0].is_file():
            module = self._load(f"{dotted[0]}/{stub[0].relative_to(root).as_posix()}", dotted)
        return module

    def _load(self, file: str, dotted: tuple[str, ...]) -> _Module:
        if dotted[-1] == "__init__":
            dotted = dotted[:-1]
        known = self._modules.get(dotted)
        if known is not None and known.file == file:
            self._consulted[file] = None
            return known
        text = self._read(file)
        is_package = file.endswith("/__init__.py")
        scope = _Scope()
        if file.endswith((".pyx", ".pxi")):
            self._scan_cython(file, text, scope)
        else:
            try:
                tree = ast.parse(text)
            except SyntaxError as error:
                raise SourceError(f"{file}:{error.lineno} cannot be parsed: {error.msg}") from None
            package = dotted if is_package else dotted[:-1]
            _Reader(file, package).read(tree.body, scope)
        module = self._modules[dotted] = _Module(dotted, file, is_package, scope, _count(text))
        return module

    def _scan_cython(self, file: str, text: str, scope: _Scope) -> None:
        """Top-level classes and functions of Cython source, and one level of methods; includes are followed."""
        folder = file.rpartition("/")[0]
        for included in re.findall(r'^include "\./([\w.]+)"', text, re.M):
            if (self._package(file.partition("/")[0]).root / folder.partition("/")[2] / included).is_file():
                self._scan_cython(f"{folder}/{included}", self._read(f"{folder}/{included}"), scope)
        _read_cython(file, text, scope)

    # -- names -------------------------------------------------------------------------------------

    def _dotted(self, parts: tuple[str, ...]) -> _Found | None:
        module = self._module(parts[:1])
        return None if module is None else self._member_of_module(module, parts[1:], set())

    def _member_of_module(
        self, module: _Module, parts: tuple[str, ...], seen: set[tuple[str, ...]], follow: bool = True
    ) -> _Found | None:
        if not parts:
            return _Found(module)
        key = (module.file, *parts)
        if key in seen:
            return None
        seen.add(key)
        for binding in module.scope.candidates(parts[0]):
            if not follow and binding.kind in ("module", "name"):
                continue
            found = self._through(module, binding, parts, seen)
            if found is not None:
                return found
        if follow:
            for star in reversed(module.scope.stars):
                source = self._module(star)
                if source is not None and self._exports(source, parts[0]):
                    found = self._member_of_module(source, parts, seen)
                    if found is not None:
                        return found
            if module.is_package:
                inner = self._module((*module.dotted, parts[0]))
                if inner is not None:
                    return self._member_of_module(inner, parts[1:], seen)
            if module.dotted == ("tvm", "script"):  # its __getattr__ looks there
                parser = self._module(("tvm", "script", "parser"))
                return None if parser is None else self._member_of_module(parser, parts, seen)
        return None

    def _through(
        self, module: _Module, binding: _Binding, parts: tuple[str, ...], seen: set[tuple[str, ...]]
    ) -> _Found | None:
        name, rest = parts[0], parts[1:]
        if binding.kind == "class":
            return self._member_of_class(module, binding, name, rest, seen)
        if binding.kind == "module":
            source = self._module(binding.target)
            return None if source is None else self._member_of_module(source, rest, seen)
        if binding.kind == "name":
            source = self._module(binding.target[:-1])
            found = None
            if source is not None:
                found = self._member_of_module(source, (binding.target[-1], *rest), seen)
            if found is None:
                inner = self._module(binding.target)
                found = None if inner is None else self._member_of_module(inner, rest, seen)
            return found
        if binding.kind == "alias":
            found = self._member_of_module(module, (*binding.target, *rest), seen)
            if found is not None:
                return found
        return None if rest else _Found(module, name, binding)

    def _member_of_class(
        self, module: _Module, owner: _Binding, qualified: str, parts: tuple[str, ...], seen: set[tuple[str, ...]]
    ) -> _Found | None:
        if not parts:
            return _Found(module, qualified, owner)
        assert owner.scope is not None
        name, rest = parts[0], parts[1:]
        for binding in owner.scope.candidates(name):
            if binding.kind == "class":
                return self._member_of_class(module, binding, f"{qualified}.{name}", rest, seen)
            if binding.kind == "alias" and not rest:
                inner = self._member_of_class(module, owner, qualified, binding.target, seen | {(name,)})
                if inner is not None and (name,) not in seen:
                    return inner
            if not rest:
                return _Found(module, f"{qualified}.{name}", binding)
        for base in owner.scope.bases:
            found = self._member_of_module(module, base, set())
            if found is None or found.binding is None or found.binding.kind != "class":
                continue
            key = (found.module.file, found.name, *parts)
            if key in seen:
                continue
            inner = self._member_of_class(found.module, found.binding, found.name, parts, seen | {key})
            if inner is not None:
                return inner
        return None

    def _exports(self, module: _Module, name: str) -> bool:
        """Whether ``from module import *`` brings a name."""
        if module.scope.exported is not None:
            return name in module.scope.exported
        return not name.startswith("_")

    def _symbol(self, found: _Found) -> PySymbol:
        binding = found.binding
        file = binding.file if binding else found.module.file
        package, _, relative = file.partition("/")
        span = binding.span if binding else Span(1, found.module.line_count)
        kind = binding.kind if binding else "module"
        kind = kind if kind in ("class", "function", "module") else "variable"
        consulted = dict(self._consulted) | {file: None}
        return PySymbol(package, relative, found.name, kind, span, tuple(consulted))

    # -- errors ------------------------------------------------------------------------------------

    def _unknown(self, target: str, parts: tuple[str, ...]) -> SourceError:
        """Say how far the name leads, and what exists there."""
        package = self._package(parts[0])
        depth = len(parts) - 1
        while depth > 1 and self._dotted(parts[:depth]) is None:
            depth -= 1
        inside = self._dotted(parts[:depth])
        assert inside is not None
        prefix = ".".join(parts[1:depth] if parts[0] == "tvm" else parts[:depth])
        hints = similar(parts[depth], self._names_below(inside))
        message = f"{package.name} {package.version} has no `{target}`"
        if 1 < depth < len(parts) - 1:
            message += f" (there is `{prefix}`, but no `{parts[depth]}` in it)"
        if inside.binding is None and re.search(r"\binit_ffi_api\(", self._read(inside.module.file)):
            message += f"; the functions of {'/'.join(inside.module.dotted)} are made at import time and have no source"
        return SourceError(message, [f"`{prefix + '.' if prefix else ''}{hint}`" for hint in hints])

    def _names_below(self, found: _Found, depth: int = 1) -> list[str]:
        """Names that a module or class has."""
        if found.binding is not None and found.binding.scope is not None:
            return sorted(self._class_names(found, set()))
        names: set[str] = set()
        pending, seen = [found.module], set()
        while pending:
            module = pending.pop()
            if module.file in seen:
                continue
            seen.add(module.file)
            names |= set(module.scope.bindings)
            pending += [one for star in module.scope.stars if (one := self._module(star))]
        if depth > 1:
            for name, bindings in found.module.scope.bindings.items():
                names |= {f"{name}.{inner}" for one in bindings if one.scope for inner in one.scope.bindings}
        if found.module.is_package:
            folder = self._package(found.module.dotted[0]).root.joinpath(*found.module.dotted[1:])
            names |= {one.stem for one in folder.glob("*.py") if one.stem != "__init__"}
            names |= {one.parent.name for one in folder.glob("*/__init__.py")}
        return sorted(names)

    def _class_names(self, found: _Found, seen: set[tuple[str, str]]) -> set[str]:
        key = (found.module.file, found.name)
        if key in seen or found.binding is None or found.binding.scope is None:
            return set()
        seen.add(key)
        names = set(found.binding.scope.bindings)
        for base in found.binding.scope.bases:
            parent = self._member_of_module(found.module, base, set())
            if parent is not None:
                names |= self._class_names(parent, seen)
        return names


def _redirected(dotted: tuple[str, ...]) -> tuple[str, ...] | None:
    """Where ``tvm.script`` finds the script package of a dialect: ``tvm.script.relax`` is ``tvm.relax.script``.

    See the docstring of ``tvm/script/__init__.py``; each dialect registers itself under its own name.
    """
    if dotted[:2] != ("tvm", "script") or len(dotted) < 3:
        return None
    if dotted[2] == "ir":  # no dialect
        return ("tvm", "script", "parser", *dotted[2:])
    if dotted[2] in ("parser", "ir_builder"):
        if len(dotted) < 4:
            return None
        return ("tvm", dotted[3], "script", "parser" if dotted[2] == "parser" else "builder", *dotted[4:])
    return ("tvm", dotted[2], "script", *dotted[3:])


def _count(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n"))


def _chain(node: ast.expr | None) -> tuple[str, ...]:
    """``a.b.c`` as a tuple; empty for anything else. ``Base[T]`` counts as ``Base``."""
    if isinstance(node, ast.Subscript):
        node = node.value
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


# `type X = ...` is new in Python 3.12.
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, *([ast.TypeAlias] if hasattr(ast, "TypeAlias") else []))


class _Reader:
    """Collect the bindings of a module and of the classes in it."""

    def __init__(self, file: str, package: tuple[str, ...]) -> None:
        self.file = file
        self.package = package

    def read(self, body: list[ast.stmt], scope: _Scope, weak: bool = False) -> None:
        for node in body:
            self._statement(node, scope, weak)

    def _statement(self, node: ast.stmt, scope: _Scope, weak: bool) -> None:
        if isinstance(node, ast.ClassDef):
            inner = _Scope(bases=[chain for base in node.bases if (chain := _chain(base))])
            self.read(node.body, inner)
            scope.add(node.name, _Binding("class", self.file, _span(node), weak, scope=inner))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last = {_chain(one.func if isinstance(one, ast.Call) else one)[-1:] for one in node.decorator_list}
            binding = _Binding("function", self.file, _span(node), weak)
            binding.overload = ("overload",) in last
            binding.accessor = bool(last & {("setter",), ("deleter",)})
            scope.add(node.name, binding)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, scope, weak)
        elif isinstance(node, _ASSIGNMENTS):
            self._assignment(node, scope, weak)
        elif isinstance(node, ast.If):
            checking = _chain(node.test)[-1:] == ("TYPE_CHECKING",)
            self.read(node.body, scope, weak or checking)
            self.read(node.orelse, scope, weak)
        elif isinstance(node, ast.Try):
            self.read(node.body, scope, weak)
            self.read(node.orelse, scope, weak)
            for handler in node.handlers:
                self.read(handler.body, scope, True)
            self.read(node.finalbody, scope, weak)
        elif isinstance(node, ast.With | ast.For | ast.While):
            self.read(node.body, scope, weak)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: _Scope, weak: bool) -> None:
        span = _span(node)
        if isinstance(node, ast.Import):
            for one in node.names:
                parts = tuple(one.name.split("."))
                target = parts if one.asname else parts[:1]
                scope.add(one.asname or parts[0], _Binding("module", self.file, span, weak, target))
            return
        base = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            base = self.package[: len(self.package) - node.level + 1] + base
        for one in node.names:
            if one.name == "*":
                scope.stars.append(base)
            else:
                scope.add(one.asname or one.name, _Binding("name", self.file, span, weak, (*base, one.name)))

    def _assignment(self, node: ast.stmt, scope: _Scope, weak: bool) -> None:
        value = getattr(node, "value", None)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None) or node.name]
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            for name in names:
                if not isinstance(name, ast.Name):
                    continue
                if name.id == "__all__":
                    self._exported(value, scope, isinstance(node, ast.AugAssign))
                chain = _chain(value) if len(names) == 1 and not isinstance(value, ast.Subscript) else ()
                kind = "alias" if chain and chain != (name.id,) else "variable"
                empty = isinstance(value, ast.Constant) and value.value is None
                scope.add(name.id, _Binding(kind, self.file, _span(node), weak or empty, chain))

    def _exported(self, value: ast.expr | None, scope: _Scope, more: bool) -> None:
        """A literal ``__all__``; anything else leaves it open."""
        known = isinstance(value, ast.List | ast.Tuple) and all(
            isinstance(one, ast.Constant) and isinstance(one.value, str) for one in value.elts
        )
        if not known:
            scope.exported = None
        elif not more or scope.exported is not None:
            scope.exported = [*(scope.exported or [] if more else []), *(one.value for one in value.elts)]


def _span(node: ast.stmt) -> Span:
    decorators = getattr(node, "decorator_list", [])
    return Span(min([node.lineno, *(one.lineno for one in decorators)]), node.end_lineno or node.lineno)


_CYTHON_HEAD = re.compile(
    r"^( *)(?:cdef |cpdef |async )*(?:(class)|(def)|(?:inline )?[\w.* ]+?(?= \w+\())?"
    r" *(\w+)\s*(?:\(([^)]*)\))?.*:\s*(?:#.*)?$"
)


def _read_cython(file: str, text: str, scope: _Scope) -> None:
    """Find ``class``, ``def`` and ``cdef`` blocks by their indentation: two levels are enough for citations."""
    lines = text.split("\n")
    owner: _Scope | None = None
    for number, first, last, head in _cython_blocks(lines):
        indent, is_class, _, name, arguments = head.groups()
        span = Span(first, last)
        if not indent:
            owner = None
            if is_class:
                bases = [tuple(one.strip().split(".")) for one in (arguments or "").split(",")]
                owner = _Scope(bases=[one for one in bases if all(part.isidentifier() for part in one)])
            scope.add(name, _Binding("class" if is_class else "function", file, span, scope=owner))
        elif owner is not None and len(indent) == 4:
            accessor = any(re.match(r"\s*@\w+\.(setter|deleter)", line) for line in lines[first - 1 : number])
            owner.add(name, _Binding("function", file, span, accessor=accessor))


def _cython_blocks(lines: list[str]) -> Iterator[tuple[int, int, int, re.Match[str]]]:
    """Header line, first line (decorators included), last line, and the match of each block's header."""
    number = 0
    while number < len(lines):
        if not re.match(r" *(?:cdef|cpdef|def|class|async)\b", lines[number]):
            number += 1
            continue
        end = number  # the header may span lines, until the colon behind balanced brackets
        header = lines[number]
        while header.count("(") > header.count(")") and end + 1 < len(lines):
            end += 1
            header += " " + lines[end].strip()
        match = _CYTHON_HEAD.match(header)
        if match:
            indent = len(match.group(1))
            last = end
            for index in range(end + 1, len(lines)):
                line = lines[index]
                if line.strip() and len(line) - len(line.lstrip()) <= indent and not line.lstrip().startswith("#"):
                    break
                if line.strip() and len(line) - len(line.lstrip()) > indent:
                    last = index
            first = number
            while first and re.match(rf" {{{indent}}}@", lines[first - 1]):
                first -= 1
            yield number, first + 1, last + 1, match
        number = end + 1
