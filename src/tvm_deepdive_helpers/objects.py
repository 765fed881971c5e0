"""Read the header and the symbols of an object file: which machine it is for, and what it needs from outside.

Only the two formats that the book produces are known: ELF (Linux, bare metal) and WebAssembly. The layouts are
those of the System V ABI (``Elf32_Ehdr``, ``Elf64_Sym``, …) and of the WebAssembly core specification (import section).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ObjectInfo", "read_object"]

# e_machine of the ELF header (values of the System V ABI's registry).
MACHINES = {3: "x86", 20: "ppc", 21: "ppc64", 40: "arm", 62: "x86-64", 164: "hexagon", 183: "aarch64", 243: "riscv"}

_SYMTAB, _DYNSYM, _UNDEFINED, _LOCAL, _WEAK = 2, 11, 0, 0, 2


@dataclass(frozen=True)
class ObjectInfo:
    """What stands in an object file or shared library.

    Attributes
    ----------
    format : str
        ``ELF`` or ``WebAssembly``.
    machine : str
        Instruction set, such as ``aarch64``; the number of ELF's ``e_machine`` if it is not in `MACHINES`.
    bits : int
        Width of an address.
    undefined : tuple of str
        Functions and data that the linker or loader must find elsewhere, sorted; weak ones are left out.
    defined : tuple of str
        Global and weak symbols that the file offers, sorted (ELF only).
    """

    format: str
    machine: str
    bits: int
    undefined: tuple[str, ...]
    defined: tuple[str, ...] = ()


def read_object(path: str | Path) -> ObjectInfo:
    """Read an object file.

    Parameters
    ----------
    path : str or Path
        An ELF file (relocatable or shared) or a WebAssembly module.

    Returns
    -------
    ObjectInfo

    Raises
    ------
    ValueError
        If the file begins like neither of the two formats.
    """
    data = Path(path).read_bytes()
    if data[:4] == b"\x7fELF":
        return _read_elf(data)
    if data[:4] == b"\0asm":
        return ObjectInfo("WebAssembly", "wasm32", 32, tuple(sorted(_wasm_imports(data))))
    raise ValueError(f"{Path(path).name}: neither ELF nor WebAssembly, it begins with {data[:4]!r}")


def _text(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def _read_elf(data: bytes) -> ObjectInfo:
    """Header and symbol tables of an ELF file."""
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", data, 18)[0]
    header = order + ("QQQ" if wide else "III")  # e_entry, e_phoff, e_shoff
    section_offset = struct.unpack_from(header, data, 24)[2]
    entry_size, entries = struct.unpack_from(order + "HH", data, 58 if wide else 46)
    # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize
    layout = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
    sections = [struct.unpack_from(layout, data, section_offset + i * entry_size) for i in range(entries)]
    undefined: set[str] = set()
    defined: set[str] = set()
    for _, kind, _, _, offset, size, link, _, _, each in sections:
        if kind not in (_SYMTAB, _DYNSYM):
            continue
        names = data[sections[link][4] : sections[link][4] + sections[link][5]]
        for at in range(offset + each, offset + size, each):  # the first symbol is always empty
            if wide:
                name, info, _, home, _, _ = struct.unpack_from(order + "IBBHQQ", data, at)
            else:
                name, _, _, info, _, home = struct.unpack_from(order + "IIIBBH", data, at)
            binding = info >> 4
            if binding == _LOCAL or not name:
                continue
            if home != _UNDEFINED:
                defined.add(_text(names, name))
            elif binding != _WEAK:
                undefined.add(_text(names, name))
    return ObjectInfo(
        "ELF",
        MACHINES.get(machine, str(machine)),
        64 if wide else 32,
        tuple(sorted(undefined)),
        tuple(sorted(defined)),
    )


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Unsigned number in LEB128 and the position behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _wasm_imports(data: bytes) -> list[str]:
    """Names of the functions that a WebAssembly module imports (memory, tables and globals left out)."""
    at, found = 8, []
    while at < len(data):
        section = data[at]
        size, at = _leb128(data, at + 1)
        if section != 2:
            at += size
            continue
        number, at = _leb128(data, at)
        for _ in range(number):
            names = []
            for _ in range(2):
                length, at = _leb128(data, at)
                names.append(data[at : at + length].decode())
                at += length
            kind = data[at]
            at += 1
            if kind == 0:  # a function: index of its type
                found.append(names[1])
                _, at = _leb128(data, at)
            elif kind == 3:  # a global: type and mutability
                at += 2
            else:  # a table (1) or a memory (2): limits, with a type in front for a table
                at += kind == 1
                flags, at = _leb128(data, at)
                for _ in range(1 + (flags & 1)):
                    _, at = _leb128(data, at)
    return found
