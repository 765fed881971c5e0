"""Find a symbol in a C++ file, and say on which lines it stands.

The file is parsed with tree-sitter; nothing is compiled and no header is read. TVM's macros are not
C++ as a parser without a preprocessor knows it (``TVM_DLL`` before a return type,
``TVM_FFI_DECLARE_OBJECT_INFO(...)`` in a class, ``#ifdef`` around half a function), so the text is
*masked* first: such words become blanks of the same length. Line numbers stay true because of that.

A symbol is written as it stands in the source:

=============================================  ====================================================
``OperatorFusor``                              class, struct, union, enum, free function, alias,
                                               variable, macro
``OperatorFusor::Transform``                   member; any number of leading scopes may be given
``ExprMutator::VisitExpr_(CallNode)``          the overload that has this word among its parameters
``class Foo``, ``using Foo``, ``#define FOO``  only that kind
``TVM_REGISTER_OP("relax.matmul")``            macro invocation; leading arguments are enough
``"relax.transform.FuseOps"``                  the registration (or else the use) of this string
``Foo#2``                                      the second of several candidates
=============================================  ====================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import tree_sitter_cpp
from tree_sitter import Language, Node, Parser, Tree

from .common import AmbiguousSymbol, SourceError, Span, similar

_PARSER = Parser(Language(tree_sitter_cpp.language()))

_RECORDS = {
    "class_specifier": "class",
    "struct_specifier": "struct",
    "union_specifier": "union",
    "enum_specifier": "enum",
}
_TRANSPARENT = {
    "translation_unit",
    "declaration_list",
    "field_declaration_list",
    "linkage_specification",
    "preproc_if",
    "preproc_ifdef",
    "preproc_else",
    "preproc_elif",
    "ERROR",
}
_NAMES = {
    "identifier",
    "field_identifier",
    "type_identifier",
    "namespace_identifier",
    "qualified_identifier",
    "destructor_name",
    "operator_name",
    "operator_cast",
    "template_function",
    "template_method",
    "template_type",
}
_KINDS = ("class", "struct", "union", "enum", "using", "typedef", "namespace")


@dataclass(frozen=True)
class CppSymbol:
    """One declaration or definition in a C++ file.

    Attributes
    ----------
    path : tuple of str
        The name and its scopes, outermost first; unnamed namespaces are left out.
    kind : str
        ``class``, ``struct``, ``union``, ``enum``, ``enumerator``, ``function``, ``variable``,
        ``using``, ``macro``, ``invocation`` or ``string``.
    span : Span
        Lines from the first word (``template`` included, comments not) to the closing brace.
    defined : bool
        False for a mere declaration.
    members : int
        How many of the innermost scopes are classes or enums (the rest are namespaces).
    parameters : str
        Text of the parameter list of a function, white space collapsed.
    signature : str
        First line, for messages.
    """

    path: tuple[str, ...]
    kind: str
    span: Span
    defined: bool = True
    members: int = 0
    parameters: str = ""
    signature: str = ""

    @property
    def name(self) -> str:
        return "::".join(self.path)


# -- masking ---------------------------------------------------------------------------------------

# Words that a preprocessor would remove or replace by an attribute.
_ATTRIBUTE = re.compile(
    rb"\b(?:TVM|TOPI|DMLC|EXPORT|LLVM)[A-Z_0-9]*\b(?=[ \t]+[A-Za-z_:~])"
    rb"|\b__(?:device|global|host|forceinline|restrict|shared)__\b"
    rb"|\b[A-Z][A-Z_]*_DEFAULT\b(?=[ \t]*;)"
)
# Class bodies: macros that stand where a member stands, with or without a semicolon.
_MEMBER_MACRO = re.compile(
    rb"^[ \t]+(?:TVM|TVM_FFI|TOPI)_(?:DECLARE|DEFINE|DISALLOW|MODULE)[A-Z_0-9]*[ \t\n]*(?=\()", re.M
)
# `= {}` as a default argument is not in the grammar.
_EMPTY_DEFAULT = re.compile(rb"=\s*\{\s*\}(?=\s*[,)])")
_CONDITIONAL = re.compile(rb"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b(?:[^\n\\]|\\\n|\\.)*", re.M)


def _blank(data: bytes) -> bytes:
    return re.sub(rb"[^\n]", b" ", data)


def _mask(source: bytes) -> bytes:
    """Blank what the grammar does not know; every byte keeps its offset."""
    masked = bytearray(source)
    for match in _ATTRIBUTE.finditer(source):
        start, end = match.span()
        line = source[source.rfind(b"\n", 0, start) + 1 : start]
        if not line.lstrip().startswith(b"#"):
            masked[start:end] = _blank(source[start:end])
    for match in _MEMBER_MACRO.finditer(source):
        end = skip_balanced(source, match.end())
        if source[end : end + 1] == b";":
            end += 1
        masked[match.start() : end] = _blank(source[match.start() : end])
    for match in _EMPTY_DEFAULT.finditer(source):
        masked[match.start() : match.end()] = _blank(match.group())
    return bytes(masked)


def _without_conditionals(source: bytes, first_branch_only: bool) -> bytes:
    """Blank the lines of ``#if`` and its kin, and (if asked) all branches but the first."""
    masked = bytearray(source)
    stack: list[list[int]] = []  # one list a nesting level: starts of the branches
    for match in _CONDITIONAL.finditer(source):
        word = match.group(1)
        masked[match.start() : match.end()] = _blank(match.group())
        if word in (b"if", b"ifdef", b"ifndef"):
            stack.append([match.end()])
        elif stack:
            branches = stack[-1]
            if first_branch_only and len(branches) > 1:
                masked[branches[-1] : match.start()] = _blank(source[branches[-1] : match.start()])
            if word == b"endif":
                stack.pop()
            else:
                branches.append(match.end())
    return bytes(masked)


_STRING = re.compile(
    rb'R"([^()\\\s]{0,16})\(.*?\)\1"'  # raw
    rb'|"(?:[^"\\\n]|\\.)*"'
    rb"|(?<![0-9A-Za-z_])'(?:[^'\\\n]|\\.)+'"  # not the separator in 1'000
    rb"|//[^\n]*|/\*.*?\*/",
    re.S,
)


def skip_balanced(source: bytes, start: int) -> int:
    """Return the offset behind the bracket that closes the one at `start`.

    Strings and comments are skipped. The end of the text is returned if it never closes.
    """
    pairs = {ord("("): ord(")"), ord("["): ord("]"), ord("{"): ord("}")}
    expected: list[int] = []
    position = start
    while position < len(source):
        byte = source[position]
        if byte in b"\"'/R":
            match = _STRING.match(source, position)
            if match:
                position = match.end()
                continue
        if byte in pairs:
            expected.append(pairs[byte])
        elif expected and byte == expected[-1]:
            expected.pop()
            if not expected:
                return position + 1
        position += 1
    return len(source)


# -- one file --------------------------------------------------------------------------------------


class CppFile:
    """A C++ file, parsed at most once.

    Parameters
    ----------
    source : bytes or str
        The text.
    path : str
        Name for messages.
    """

    def __init__(self, source: bytes | str, path: str = "<text>") -> None:
        self.source = source.encode() if isinstance(source, str) else source
        self.path = path

    @cached_property
    def text(self) -> str:
        """The file, decoded."""
        return self.source.decode("utf-8", errors="replace")

    @cached_property
    def line_count(self) -> int:
        """Lines of the file."""
        return self.source.count(b"\n") + (not self.source.endswith(b"\n"))

    @cached_property
    def _trees(self) -> list[tuple[bytes, Tree]]:
        """Parses of the masked text, the one with the fewest unreadable bytes first."""
        masked = _mask(self.source)
        parsed = [(masked, _PARSER.parse(masked))]
        if parsed[0][1].root_node.has_error:
            for first_only in (False, True):
                variant = _without_conditionals(masked, first_only)
                if variant != masked:
                    parsed.append((variant, _PARSER.parse(variant)))
            parsed.sort(key=lambda item: _unreadable(item[1].root_node))
        return parsed

    @cached_property
    def symbols(self) -> list[CppSymbol]:
        """Every symbol of the best parse, then macros, in the order of the file."""
        return self._outline(*self._trees[0])

    def _outline(self, masked: bytes, tree: Tree) -> list[CppSymbol]:
        found = list(_Outline(self.source, masked).visit(tree.root_node, (), 0, None))
        found = [symbol for symbol in found if not _inner_twin(symbol, found)]
        found += _macros(self.source)
        return sorted(found, key=lambda symbol: (symbol.span.first, -symbol.span.last))

    def find(self, symbol: str) -> CppSymbol:
        """Return the one place that `symbol` names.

        Raises
        ------
        AmbiguousSymbol
            Several definitions fit; the hints say how to write each.
        SourceError
            None fits; the hints are similar names of this file.
        """
        wanted, pick = _split_pick(symbol.strip())
        if not wanted:
            raise SourceError(f"{self.path}: a symbol is expected behind the colon")
        candidates = self._candidates(wanted)
        if not candidates:
            raise SourceError(f"{self.path} has no `{wanted}`", self._alternatives(wanted))
        if pick is not None:
            if not 1 <= pick <= len(candidates):
                raise SourceError(f"{self.path} has {len(candidates)} of `{wanted}`, so there is no #{pick}")
            return candidates[pick - 1]
        if len(candidates) > 1:
            raise AmbiguousSymbol(
                f"{self.path} has {len(candidates)} of `{wanted}`",
                [
                    f"`{spelling}` (line {one.span.first}: {one.signature[:70]})"
                    for spelling, one in zip(_spellings(wanted, candidates), candidates, strict=True)
                ],
            )
        return candidates[0]

    def _alternatives(self, wanted: str) -> list[str]:
        """Similar names, and macro invocations that mention the name."""
        names = {"::".join(one.path[-1 - one.members :]) for one in self.symbols}
        found = [f"`{name}`" for name in similar(wanted, names)]
        word = re.escape(wanted.rpartition("::")[2])
        if re.fullmatch(r"\w+", word):
            used = re.search(rf"^[A-Z][A-Z_0-9]*\([^\n]*\b{word}\b[^\n]*", self.text, re.M)
            if used:
                found.append(f"`{used.group().rstrip(' ;{')}`")
        return found

    def _candidates(self, wanted: str) -> list[CppSymbol]:
        if wanted.startswith('"') and wanted.endswith('"') and len(wanted) > 2:
            return self._strings(wanted)
        for masked, tree in self._trees:
            symbols = self.symbols
            if tree is not self._trees[0][1]:
                symbols = self._outline(masked, tree)
            found = _match(symbols, wanted)
            if found:
                return found
        return self._invocations(wanted)

    def _span(self, start: int, end: int) -> Span:
        count = self.source.count
        return Span(count(b"\n", 0, start) + 1, count(b"\n", 0, max(start, end - 1)) + 1)

    def _signature(self, start: int) -> str:
        return _line_at(self.source, start)

    def _invocations(self, wanted: str) -> list[CppSymbol]:
        """Uses of a macro (or of a function at namespace level) with the given arguments."""
        match = re.fullmatch(r"([A-Za-z_]\w*)\s*\((.*?)\)?", wanted, re.S)
        if not match:
            if not re.fullmatch(r"[A-Z][A-Z0-9_]{3,}", wanted):
                return []
            name, arguments = wanted, ""
        else:
            name, arguments = match.group(1), _squeeze(match.group(2))
        found = []
        for hit in re.finditer(rb"\b" + name.encode() + rb"\s*(?=\()", self.source):
            line_start = self.source.rfind(b"\n", 0, hit.start()) + 1
            before = self.source[line_start : hit.start()]
            if before.lstrip().startswith((b"#", b"//", b"*")):
                continue
            close = skip_balanced(self.source, hit.end())
            given = _squeeze(self.source[hit.end() + 1 : close - 1].decode(errors="replace"))
            if arguments and given != arguments and not given.startswith(arguments + ","):
                continue
            end = _statement_end(self.source, close)
            found.append(
                CppSymbol(
                    (name,), "invocation", self._span(hit.start(), end),
                    signature=self._signature(hit.start()),
                )
            )  # fmt: skip
        return found

    def _strings(self, wanted: str) -> list[CppSymbol]:
        """Registrations of a string literal, or else the statements that use it."""
        tree = self._trees[0][1]
        registered, used = [], []
        for hit in re.finditer(re.escape(wanted.encode()), self.source):
            node = tree.root_node.descendant_for_byte_range(hit.start(), hit.end())
            if node is None or _ancestor(node, {"comment"}) is not None:
                continue
            arguments = _ancestor(node, {"argument_list"})
            call = arguments.parent if arguments is not None else None
            function = call.child_by_field_name("function") if call is not None else None
            start, end, is_registration = hit.start(), hit.end(), False
            if function is not None and arguments is not None:
                first_argument = arguments.named_children[0]
                leads = first_argument.start_byte <= hit.start() < first_argument.end_byte
                if function.type == "field_expression":
                    field = function.child_by_field_name("field")
                    name = _text(self.source, field)
                    start, end = field.start_byte, arguments.end_byte
                    is_registration = leads and name.startswith(("def", "set_attr", "add_attr"))
                else:
                    name = _text(self.source, function)
                    is_registration = leads and name.isupper()
                    if is_registration:
                        start, end = call.start_byte, _statement_end(self.source, call.end_byte)
            if not is_registration and (start, end) == hit.span():
                statement = _ancestor(
                    node, {"expression_statement", "declaration", "field_declaration",
                           "return_statement", "preproc_def", "preproc_function_def"}
                )  # fmt: skip
                if statement is not None:
                    start, end = statement.start_byte, statement.end_byte
            symbol = CppSymbol((wanted,), "string", self._span(start, end), signature=self._signature(start))
            (registered if is_registration else used).append(symbol)
        return registered or used


# -- helpers ---------------------------------------------------------------------------------------


def _text(source: bytes, node: Node | None) -> str:
    return source[node.start_byte : node.end_byte].decode(errors="replace") if node else ""


def _squeeze(text: str) -> str:
    """Collapse white space, and drop it beside punctuation."""
    return re.sub(r"\s*([(),<>*&:\"])\s*", r"\1", " ".join(text.split()))


def _line_at(source: bytes, start: int) -> str:
    begin = source.rfind(b"\n", 0, start) + 1
    end = source.find(b"\n", start)
    return source[begin : end if end >= 0 else None].decode(errors="replace").strip()


def _ancestor(node: Node | None, types: set[str]) -> Node | None:
    while node is not None and node.type not in types:
        node = node.parent
    return node


def _unreadable(node: Node) -> int:
    """Bytes that the parser could not read."""
    if node.type == "ERROR":
        return max(1, node.end_byte - node.start_byte)
    if node.is_missing:
        return 1
    if not node.has_error:
        return 0
    return sum(_unreadable(child) for child in node.children)


def _statement_end(source: bytes, position: int) -> int:
    """Follow ``.set_attr(...)`` chains, a body and the semicolon behind a macro invocation."""
    link = re.compile(rb"(?:\s|//[^\n]*\n|/\*.*?\*/)*(?:\.|->)\s*\w+(?:<[^;{}()]*>)?\s*(?=\()", re.S)
    while match := link.match(source, position):
        position = skip_balanced(source, match.end())
    body = re.compile(rb"\s*(?=\{)").match(source, position)
    if body:
        position = skip_balanced(source, body.end())
    semicolon = re.compile(rb"\s*;").match(source, position)
    return semicolon.end() if semicolon else position


def _split_pick(symbol: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*\S)\s*#(\d+)", symbol, re.S)
    return (match.group(1), int(match.group(2))) if match else (symbol, None)


def _spellings(wanted: str, candidates: list[CppSymbol]) -> list[str]:
    """How to write each candidate: with more scopes if that is enough, else with a number."""
    written = []
    for number, one in enumerate(candidates, 1):
        spelling = f"{wanted}#{number}"
        for length in range(2, len(one.path) + 1):
            tail = one.path[-length:]
            if sum(other.path[-length:] == tail for other in candidates) == 1:
                if "(" not in wanted and one.kind != "invocation":
                    spelling = "::".join(tail)
                break
        written.append(spelling)
    return written


def _macros(source: bytes) -> list[CppSymbol]:
    """``#define`` lines with their continuations. Preprocessor lines need no parser."""
    pattern = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:[^\n\\]|\\.)*", re.M | re.S)
    found = []
    for match in pattern.finditer(source):
        first = source.count(b"\n", 0, match.start(1)) + 1
        last = first + source.count(b"\n", match.start(1), match.end())
        found.append(
            CppSymbol(
                (match.group(1).decode(),), "macro", Span(first, last),
                signature=_line_at(source, match.start(1)),
            )
        )  # fmt: skip
    return found


def _inner_twin(symbol: CppSymbol, others: list[CppSymbol]) -> bool:
    """True for the inner half of ``typedef struct X {...} X;``."""
    return any(
        other is not symbol
        and other.path == symbol.path
        and other.kind != symbol.kind
        and other.kind == "using"
        and other.span.first <= symbol.span.first
        and symbol.span.last <= other.span.last
        for other in others
    )


def _split_scopes(name: str) -> list[str]:
    """Split at ``::``, but not inside template arguments or parentheses."""
    parts, depth, current, i = [], 0, "", 0
    operator = name.find("operator")
    while i < len(name):
        if 0 <= operator <= i:
            current += name[i:]
            break
        if name[i] in "<(":
            depth += 1
        elif name[i] in ">)":
            depth -= 1
        if depth == 0 and name.startswith("::", i):
            parts.append(current)
            current, i = "", i + 2
            continue
        current += name[i]
        i += 1
    return [part.strip() for part in [*parts, current] if part.strip()]


def _bare(part: str) -> str:
    """A name without its template arguments."""
    if part.startswith("operator"):
        return re.sub(r"\s+", "", part) if not part[8:9].isspace() else part
    return part.partition("<")[0].strip()


def _match(symbols: list[CppSymbol], wanted: str) -> list[CppSymbol]:
    """The best candidates: definitions before declarations, names at namespace level first."""
    kinds: tuple[str, ...] = ()
    if macro := re.fullmatch(r"#\s*define\s+(\w+)", wanted):
        return [one for one in symbols if one.kind == "macro" and one.path[0] == macro.group(1)]
    if prefixed := re.fullmatch(rf"({'|'.join(_KINDS)})\s+(.+)", wanted, re.S):
        kinds, wanted = (prefixed.group(1).replace("typedef", "using"),), prefixed.group(2)
    parameters = None
    call = re.fullmatch(r"([^()]*[^()\s])\s*\((.*?)\)?", wanted, re.S)
    if call and "operator" not in wanted:
        wanted, parameters = call.group(1), _squeeze(call.group(2))
    query = _split_scopes(wanted)
    if not query:
        return []
    exact = "<" in wanted and "operator" not in wanted

    def fits(one: CppSymbol) -> bool:
        if kinds and one.kind not in kinds:
            return False
        if len(one.path) < len(query):
            return False
        tail = one.path[-len(query) :]
        if exact:
            same = [_squeeze(part) for part in tail] == [_squeeze(part) for part in query]
        else:
            same = [_bare(part) for part in tail] == [_bare(part) for part in query]
        if not same:
            return False
        # `Foo` is the class, not its constructor; that one is `Foo::Foo`.
        constructor = len(one.path) > 1 and _bare(one.path[-1]) == _bare(one.path[-2])
        if constructor and one.kind == "function" and len(query) == 1:
            return False
        if parameters is None:
            return True
        word = rf"(?<!\w){re.escape(parameters)}(?!\w)" if parameters else r"^$"
        return one.kind == "function" and bool(re.search(word, one.parameters))

    found = [one for one in symbols if fits(one)]
    defined = [one for one in found if one.defined]
    found = defined or found
    # `Foo` alone prefers what is not a member; `A::Foo` prefers the shortest way to it.
    nearest = min((max(0, one.members - (len(query) - 1)) for one in found), default=0)
    return [one for one in found if max(0, one.members - (len(query) - 1)) == nearest]


class _Outline:
    """Walk a syntax tree and yield its symbols."""

    def __init__(self, source: bytes, masked: bytes) -> None:
        self.source = source
        self.masked = masked

    def _make(
        self, node: Node, path: tuple[str, ...], kind: str, members: int, outer: Node | None,
        **more: object,
    ) -> CppSymbol:  # fmt: skip
        whole = outer or node
        span = Span(whole.start_point[0] + 1, _last_line(whole))
        signature = _line_at(self.source, node.start_byte)
        return CppSymbol(path, kind, span, members=members, signature=signature, **more)

    def visit(self, node: Node, scopes: tuple[str, ...], members: int, outer: Node | None) -> Iterator[CppSymbol]:
        """Yield the symbols at and below `node`; function bodies are not entered."""
        kind = node.type
        if kind in _TRANSPARENT:
            for child in node.children:
                yield from self.visit(child, scopes, members, None)
        elif kind == "namespace_definition":
            name = node.child_by_field_name("name")
            inner = scopes + tuple(_split_scopes(_text(self.masked, name)))
            body = node.child_by_field_name("body")
            if body is not None:
                yield from self.visit(body, inner, 0, None)
        elif kind == "template_declaration":
            for child in node.named_children:
                if child.type not in ("template_parameter_list", "requires_clause", "comment"):
                    yield from self.visit(child, scopes, members, outer or node)
        elif kind in _RECORDS:
            yield from self._record(node, scopes, members, outer)
        elif kind == "function_definition":
            yield from self._function(node, scopes, members, outer, True)
        elif kind in ("declaration", "field_declaration"):
            yield from self._declaration(node, scopes, members, outer)
        elif kind in ("alias_declaration", "type_definition", "concept_definition"):
            yield from self._alias(node, scopes, members, outer)
        elif kind == "enumerator":
            name = _text(self.masked, node.child_by_field_name("name"))
            yield self._make(node, (*scopes, name), "enumerator", members, outer)

    def _record(self, node: Node, scopes: tuple[str, ...], members: int, outer: Node | None) -> Iterator[CppSymbol]:
        name_node = node.child_by_field_name("name")
        body = node.child_by_field_name("body")
        parts = tuple(_split_scopes(_text(self.masked, name_node)))
        # In `class A final : B` with an unknown word before A, A lands behind; take what is there.
        path = scopes + parts
        if parts:
            yield self._make(node, path, _RECORDS[node.type], members, outer, defined=body is not None)
        if body is not None:
            inside = members + len(parts)
            for child in body.children:
                yield from self.visit(child, path, inside, None)

    def _function(
        self, node: Node, scopes: tuple[str, ...], members: int, outer: Node | None, defined: bool
    ) -> Iterator[CppSymbol]:
        # `class Foo {...}` with a macro in between may be read as a function that returns Foo.
        returned = node.child_by_field_name("type")
        if _has_body(returned):
            yield from self._record(returned, scopes, members, None)
        declarator = node.child_by_field_name("declarator")
        name, parameters = _declared(declarator)
        if name is None:
            return
        parts = tuple(_split_scopes(" ".join(_text(self.masked, name).split())))
        if not parts:
            return
        yield self._make(
            node, scopes + parts, "function", members + len(parts) - 1, outer,
            defined=defined, parameters=_squeeze(_text(self.source, parameters)[1:-1]),
        )  # fmt: skip

    def _declaration(
        self, node: Node, scopes: tuple[str, ...], members: int, outer: Node | None
    ) -> Iterator[CppSymbol]:
        declared_type = node.child_by_field_name("type")
        if _has_body(declared_type):
            yield from self._record(declared_type, scopes, members, outer)
        for declarator in node.children_by_field_name("declarator"):
            name, parameters = _declared(declarator)
            if name is None:
                continue
            parts = tuple(_split_scopes(" ".join(_text(self.masked, name).split())))
            if not parts:
                continue
            if parameters is not None:
                yield self._make(
                    node, scopes + parts, "function", members + len(parts) - 1, outer, defined=False,
                    parameters=_squeeze(_text(self.source, parameters)[1:-1]),
                )  # fmt: skip
            else:
                yield self._make(node, scopes + parts, "variable", members, outer)

    def _alias(self, node: Node, scopes: tuple[str, ...], members: int, outer: Node | None) -> Iterator[CppSymbol]:
        names = [node.child_by_field_name("name")]
        if node.type == "type_definition":
            names = [_declared(child)[0] for child in node.children_by_field_name("declarator")]
            inner = node.child_by_field_name("type")
            if inner is not None and inner.type in _RECORDS:
                yield from self._record(inner, scopes, members, None)
        for name in names:
            if name is not None:
                yield self._make(node, (*scopes, _text(self.masked, name)), "using", members, outer)


def _has_body(node: Node | None) -> bool:
    """Whether a type in a declaration is itself defined there."""
    return node is not None and node.type in _RECORDS and node.child_by_field_name("body") is not None


def _last_line(node: Node) -> int:
    row, column = node.end_point
    return row if column == 0 and row > node.start_point[0] else row + 1


def _declared(declarator: Node | None) -> tuple[Node | None, Node | None]:
    """Name node and parameter list of a declarator; no list for a variable."""
    parameters = None
    while declarator is not None and declarator.type not in _NAMES:
        if declarator.type == "function_declarator":
            inner = declarator.child_by_field_name("declarator")
            # `(*f)(int)` is a variable
            if inner is not None and inner.type != "parenthesized_declarator":
                parameters = declarator.child_by_field_name("parameters")
        following = declarator.child_by_field_name("declarator")
        if following is None:
            following = next(
                (c for c in declarator.named_children
                 if c.type in _NAMES or c.type.endswith("declarator")), None
            )  # fmt: skip
        declarator = following
    if declarator is not None and declarator.type == "operator_cast":
        inner = declarator.child_by_field_name("declarator")
        if inner is not None:
            parameters = inner.child_by_field_name("parameters")
    return declarator, parameters


def find(source: bytes | str, symbol: str, path: str = "<text>") -> CppSymbol:
    """Find `symbol` in a C++ text; see the module's table for its forms."""
    return CppFile(source, path).find(symbol)


def whole_file(source: bytes | str, path: str) -> CppSymbol:
    """The symbol that stands for a whole file."""
    file = CppFile(source, path)
    return replace(CppSymbol((path,), "file", Span(1, file.line_count)), signature=path)
