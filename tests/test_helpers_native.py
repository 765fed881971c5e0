"""Headers of objects, the native stack, and arrays at chosen addresses."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tvm
import tvm_ffi

from tvm_deepdive_helpers.native import aligned_copy, header, libraries_on_stack, quiet


def test_header_counts_owners() -> None:
    tensor = tvm.runtime.tensor(np.zeros(4, "float32"))
    assert header(tensor).strong == 1
    array = tvm_ffi.convert([tensor])
    assert header(tensor).strong == 2
    again = array[0]
    assert header(tensor) == header(again)
    assert header(tensor).strong == 3
    del array, again
    assert header(tensor).strong == 1


def test_header_knows_static_types() -> None:
    assert header(tvm.runtime.tensor(np.zeros(1, "int8"))).type_index == 70
    assert header(tvm_ffi.convert([1])).type_index == 71
    assert header(tvm.ir.PrimType("int32")).type_index >= 128


@pytest.mark.parametrize("value", [1, None, "text", tvm.cpu()])
def test_header_of_a_value(value: object) -> None:
    with pytest.raises(TypeError, match="no handle"):
        header(value)


@pytest.mark.parametrize("offset", [0, 4, 16])
def test_aligned_copy(offset: int) -> None:
    source = np.arange(12, dtype="float32").reshape(3, 4).T
    copy = aligned_copy(source, offset=offset)
    assert copy.ctypes.data % 64 == offset
    assert copy.flags.c_contiguous and copy.flags.writeable
    np.testing.assert_array_equal(copy, source)
    copy[0, 0] = 7
    assert source[0, 0] == 0


def test_aligned_copy_refuses() -> None:
    with pytest.raises(ValueError, match="power of two"):
        aligned_copy(np.zeros(1), alignment=48)
    for offset in (2, 64, -4):
        with pytest.raises(ValueError, match="no multiple"):
            aligned_copy(np.zeros(1, "float32"), offset=offset)


def test_libraries_on_stack() -> None:
    seen: list[str] = []
    tvm_ffi.convert_func(lambda: seen.extend(libraries_on_stack()))()
    assert any(name.startswith("core.") for name in seen)
    assert len(libraries_on_stack(limit=3)) == 3


def test_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with pytest.raises(KeyError), quiet():
        os.write(2, b"lost ")
        raise KeyError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
