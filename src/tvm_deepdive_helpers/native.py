"""Look below Python: headers of C++ objects, the native call stack, what C++ logs, and arrays at chosen addresses."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

__all__ = ["Header", "aligned_copy", "header", "libraries_on_stack", "quiet"]


@dataclass(frozen=True)
class Header:
    """The first 24 bytes of every object of tvm-ffi (struct ``TVMFFIObject`` of ``tvm/ffi/c_api.h``).

    Attributes
    ----------
    strong, weak : int
        Reference counts. At ``strong == 0`` the content is destroyed, at ``weak == 0`` the memory is freed.
    type_index : int
        Number of the object's type in this process; below 128 it is the same in every process.
    """

    strong: int
    weak: int
    type_index: int


def header(obj: Any) -> Header:
    """Read the header of the C++ object behind a Python handle.

    Parameters
    ----------
    obj : tvm_ffi.Object
        Anything with ``__chandle__()``. The handle itself owns one strong reference.

    Raises
    ------
    TypeError
        If there is no object behind it: numbers, ``None`` and devices travel by value.
    """
    handle = getattr(obj, "__chandle__", None)
    if handle is None:
        raise TypeError(f"{type(obj).__name__} is no handle of an object of tvm-ffi")
    address = handle()
    counts = ctypes.c_uint64.from_address(address).value
    index = ctypes.c_int32.from_address(address + 8).value
    return Header(counts & 0xFFFFFFFF, counts >> 32, index)


def aligned_copy(array: np.ndarray, *, alignment: int = 64, offset: int = 0) -> np.ndarray:
    """Copy an array to an address that is `offset` bytes behind a multiple of `alignment`.

    numpy guarantees only what its element type needs; kernels of TVM assume 64 bytes.

    Parameters
    ----------
    array : numpy.ndarray
        Of any shape; the copy is contiguous.
    alignment : int
        A power of two, in bytes.
    offset : int
        Bytes, a multiple of the element size and smaller than `alignment`. Other than 0 only to show what then happens.

    Returns
    -------
    numpy.ndarray
        Writable, of the same shape and type; it keeps the larger buffer alive that it lies in.
    """
    if alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"alignment={alignment} is no power of two")
    if not 0 <= offset < alignment or offset % array.itemsize:
        raise ValueError(f"offset={offset} is no multiple of {array.itemsize} below {alignment}")
    room = np.empty(array.nbytes + 2 * alignment, "uint8")
    start = -room.ctypes.data % alignment + offset
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class _Where(ctypes.Structure):
    """``Dl_info`` of ``dlfcn.h``."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def libraries_on_stack(limit: int = 128) -> list[str]:
    """File names of the code behind the native frames of this thread, innermost first.

    Returns
    -------
    list of str
        One entry a frame: the name of a shared library or of the program, or ``""`` for code that belongs to no
        file, which is what a just-in-time compiler made.

    Notes
    -----
    glibc's ``backtrace`` and ``dladdr``; the innermost frames are those of ``ctypes``, which calls them.
    """
    libc = ctypes.CDLL(None)
    frames = (ctypes.c_void_p * limit)()
    names = []
    for address in frames[: libc.backtrace(frames, limit)]:
        where = _Where()
        found = libc.dladdr(ctypes.c_void_p(address), ctypes.byref(where))
        names.append(PurePath(where.file.decode()).name if found and where.file else "")
    return names


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to file descriptor 2 in the meantime, which is where the log of C++ goes.

    ``sys.stderr`` is no help: C++ does not know it. What Python had buffered before comes out first.
    """
    sys.stderr.flush()
    keep = os.dup(2)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(keep, 2)
        os.close(keep)
