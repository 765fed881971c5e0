"""Make a WebAssembly object file callable without a linker: add the section that exports its functions.

An object file that LLVM writes for ``wasm32`` is a valid module whose relocations hold for a memory base of 0; what it
lacks is an export section. Names and indices of its functions stand in the custom section ``linking`` (WebAssembly
tool conventions, "Linking"; sections and their order: WebAssembly core specification).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tvm_deepdive_helpers.objects import _leb128

__all__ = ["defined_functions", "with_exports"]

_CUSTOM, _EXPORT, _SYMBOL_TABLE = 0, 7, 8
_FUNCTION, _DATA, _SECTION = 0, 1, 3  # kinds of symbols
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40  # flags of symbols


def _encode(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        out.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(out)


def _name(data: bytes, at: int) -> tuple[str, int]:
    length, at = _leb128(data, at)
    return data[at : at + length].decode(), at + length


def _sections(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, position, begin and end of the content."""
    at = 8
    while at < len(data):
        size, begin = _leb128(data, at + 1)
        yield data[at], at, begin, begin + size
        at = begin + size


def _symbols(data: bytes, at: int) -> Iterator[tuple[str, int]]:
    """Name and index of the functions that a symbol table, which begins at `at`, defines."""
    number, at = _leb128(data, at)
    for _ in range(number):
        kind = data[at]
        flags, at = _leb128(data, at + 1)
        if kind == _DATA:
            _, at = _name(data, at)
            for _ in range(0 if flags & _UNDEFINED else 3):
                _, at = _leb128(data, at)
            continue
        index, at = _leb128(data, at)
        if kind == _SECTION or (flags & _UNDEFINED and not flags & _EXPLICIT_NAME):
            continue
        name, at = _name(data, at)
        if kind == _FUNCTION and not flags & _UNDEFINED:
            yield name, index


def defined_functions(data: bytes) -> dict[str, int]:
    """Functions that an object file defines, with their indices.

    Parameters
    ----------
    data : bytes
        A relocatable WebAssembly module.

    Raises
    ------
    ValueError
        If the data is no WebAssembly module, or has no section ``linking``.
    """
    if data[:4] != b"\0asm":
        raise ValueError(f"not a WebAssembly module, it begins with {data[:4]!r}")
    for kind, _, at, end in _sections(data):
        if kind != _CUSTOM:
            continue
        name, at = _name(data, at)
        if name != "linking":
            continue
        _, at = _leb128(data, at)  # version
        while at < end:
            sub = data[at]
            size, at = _leb128(data, at + 1)
            if sub == _SYMBOL_TABLE:
                return dict(_symbols(data, at))
            at += size
    raise ValueError("the module has no symbol table: it is linked already")


def with_exports(path: str | Path) -> bytes:
    """The module of an object file with an export for each function that it defines.

    Parameters
    ----------
    path : str or Path
        A relocatable WebAssembly module.

    Returns
    -------
    bytes
        A module to instantiate. It imports its memory, a memory base (give 0), a stack pointer, and what is undefined.

    Raises
    ------
    ValueError
        See `defined_functions`.
    """
    data = Path(path).read_bytes()
    names = defined_functions(data)
    content = _encode(len(names))
    for name, index in names.items():
        content += _encode(len(name.encode())) + name.encode() + b"\0" + _encode(index)
    section = bytes([_EXPORT]) + _encode(len(content)) + content
    # Sections stand in the order of their numbers, except custom ones, and 12 (data count), which precedes 10 (code).
    place = next(at for kind, at, _, _ in _sections(data) if kind > _EXPORT)
    return data[:place] + section + data[place:]
