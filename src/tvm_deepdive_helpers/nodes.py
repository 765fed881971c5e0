"""Ask the installed package which node classes its IR has, and what is in them.

The classes are defined in C++ and described there by reflection; ``tvm_ffi`` hands that description to Python
(``cls.__tvm_ffi_type_info__``). What this module lists is therefore what the release really has, not what a text
remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi
from tvm_ffi import core

__all__ = ["Field", "NodeClass", "Tree", "children", "field_table", "node_class", "node_classes", "tree", "undescribed"]

# How the structural comparison treats the variables in a field (AttachFieldFlag in tvm-ffi).
_DEFINES = {"def-simple", "def-pattern", "def-recursive"}


@dataclass(frozen=True)
class Field:
    """One field of a node class.

    Attributes
    ----------
    name : str
    type : str
        As reflection writes it: ``Array[ir.Expr]``, ``tirx.Stmt | None``.
    owner : str
        Type key of the class that declares it; a base class for an inherited field.
    defines : bool
        Whether a variable that stands in this field is defined there rather than used, so that structural
        equality may match it with another one.
    """

    name: str
    type: str
    owner: str
    defines: bool


@dataclass(frozen=True)
class NodeClass:
    """One class of the object system.

    Attributes
    ----------
    key : str
        Type key, such as ``tirx.For``: the name that C++ and Python share.
    bases : tuple of str
        Type keys of the base classes, nearest first.
    python : str
        Module and name of the Python class.
    fields : tuple of Field
        Inherited fields first.
    """

    key: str
    bases: tuple[str, ...]
    python: str
    fields: tuple[Field, ...]

    @property
    def own_fields(self) -> tuple[Field, ...]:
        """Fields that are more than a place in the source and a result type."""
        return tuple(field for field in self.fields if field.name not in ("span", "ty"))


def _info(key: str) -> Any:
    """Reflection's description of a type, or None if Python knows none."""
    index = core._object_type_key_to_index(key)
    return None if index is None else core._type_index_to_type_info(index)


def node_class(cls_or_key: type | str) -> NodeClass:
    """Describe one class.

    Parameters
    ----------
    cls_or_key : type or str
        A Python class of an FFI object, or a type key.

    Raises
    ------
    KeyError
        If there is no such type, or Python has no description of it.
    """
    info = _info(cls_or_key) if isinstance(cls_or_key, str) else getattr(cls_or_key, "__tvm_ffi_type_info__", None)
    if info is None:
        raise KeyError(f"{cls_or_key!r} is no described type of the FFI")
    chain, at = [], info
    while at is not None:
        chain.append(at)
        at = at.parent_type_info
    fields = tuple(
        Field(str(f.name), str(f.ty), str(level.type_key), f.c_structural_eq in _DEFINES)
        for level in reversed(chain)
        for f in level.fields
    )
    cls = info.type_cls
    return NodeClass(
        key=str(info.type_key),
        bases=tuple(str(level.type_key) for level in chain[1:]),
        python=f"{cls.__module__}.{cls.__qualname__}" if cls is not None else "",
        fields=fields,
    )


def node_classes(base: str, dialects: Iterable[str] = ()) -> list[NodeClass]:
    """Every registered class below a base class.

    Parameters
    ----------
    base : str
        Type key such as ``tirx.Stmt``.
    dialects : iterable of str, optional
        Keep only keys that begin with one of these names and a dot.

    Returns
    -------
    list of NodeClass
        Sorted by key; the base itself is not in it.
    """
    prefixes = tuple(f"{name}." for name in dialects)
    found = []
    for key in map(str, tvm_ffi.registry.get_registered_type_keys()):
        if (prefixes and not key.startswith(prefixes)) or _info(key) is None:
            continue
        described = node_class(key)
        if base in described.bases:
            found.append(described)
    return sorted(found, key=lambda item: item.key)


def undescribed(dialects: Iterable[str]) -> list[str]:
    """Registered type keys of these dialects of which Python has no description (`node_classes` cannot see them)."""
    prefixes = tuple(f"{name}." for name in dialects)
    keys = map(str, tvm_ffi.registry.get_registered_type_keys())
    return sorted(key for key in keys if key.startswith(prefixes) and _info(key) is None)


def field_table(classes: Sequence[NodeClass], width: int = 96) -> str:
    """Text table: one class a paragraph, its fields with their types, and where its Python class stands.

    A field that defines variables is marked with ``*``. Classes with the same fields share a paragraph.
    """
    groups: dict[tuple[tuple[str, str, bool], ...], list[NodeClass]] = {}
    for item in classes:
        signature = tuple((f.name, f.type, f.defines) for f in item.own_fields)
        groups.setdefault(signature, []).append(item)
    out = []
    for signature, members in groups.items():
        out += _wrap([member.key for member in members], ", ", width, "")
        files = sorted({member.python.rpartition(".")[0] for member in members})
        fields = [f"{name}{'*' * defines}: {kind}" for name, kind, defines in signature]
        out += _wrap(fields or ["(no fields of its own)"], ", ", width, "    ")
        out.append(f"    in {', '.join(files)}")
    return "\n".join(out)


def _wrap(words: Sequence[str], joint: str, width: int, indent: str) -> list[str]:
    """Lines of at most `width` characters, broken only between words."""
    lines, line = [], indent
    for n, word in enumerate(words):
        word += joint.rstrip() if n < len(words) - 1 else ""
        if len(line) + len(word) > width and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += word + " "
    return [*lines, line.rstrip()]


@dataclass(frozen=True)
class Tree:
    """Nodes and edges of an object, ready for ``figures.layered_graph``.

    Attributes
    ----------
    labels : dict of str to str
        Label by node.
    edges : dict of (str, str) to str
        Name of the field by edge.
    kinds : dict of str to str
        Type key by node.
    """

    labels: dict[str, str]
    edges: dict[tuple[str, str], str]
    kinds: dict[str, str]


def children(obj: Any) -> list[tuple[str, Any]]:
    """Fields of an object that hold objects, as ``(name, object)``; elements of arrays as ``name[0]``."""
    out: list[tuple[str, Any]] = []
    for field in node_class(type(obj)).own_fields:
        value = getattr(obj, field.name)
        if isinstance(value, tvm_ffi.Array):
            out += [(f"{field.name}[{n}]", item) for n, item in enumerate(value) if isinstance(item, tvm_ffi.Object)]
        elif isinstance(value, tvm_ffi.Object) and not isinstance(value, tvm_ffi.Map | tvm.ir.Op):
            out.append((field.name, value))
    return out


def tree(
    root: Any,
    keep: Callable[[Any], bool],
    label: Callable[[Any], str],
    shared: Callable[[Any], bool] = lambda obj: False,
) -> Tree:
    """The object below `root` as a tree, by reflected fields.

    Parameters
    ----------
    root : FFI object
    keep : callable
        Whether an object is drawn. What lies below an object that is not drawn is not looked at.
    label : callable
        The text of its box.
    shared : callable
        Whether an object that is met again is drawn as the same box. With it the tree becomes a graph.
    """
    labels: dict[str, str] = {}
    edges: dict[tuple[str, str], str] = {}
    kinds: dict[str, str] = {}
    met: list[tuple[Any, str]] = []

    def add(obj: Any) -> str:
        again = next((name for other, name in met if other.same_as(obj)), None) if shared(obj) else None
        if again:
            return again
        name = f"n{len(labels)}"
        labels[name] = label(obj)
        kinds[name] = node_class(type(obj)).key
        if shared(obj):
            met.append((obj, name))
        for field, child in children(obj):
            if keep(child):
                edge = name, add(child)
                edges[edge] = f"{edges[edge]}, {field}" if edge in edges else field
        return name

    add(root)
    return Tree(labels, edges, kinds)
