"""Object files that TVM's LLVM writes are read right, and other files are refused."""

import sys
from pathlib import Path

import pytest
import tvm
from tvm import te

from tvm_deepdive_helpers.objects import ObjectInfo, read_object

ERROR_FUNCTION = "TVMFFIErrorSetRaisedFromCStrParts"


@pytest.fixture(scope="module")
def kernel() -> tvm.tirx.PrimFunc:
    a = te.placeholder((8,), "float32", name="a")
    b = te.compute((8,), lambda i: a[i] * a[i], name="b")
    return te.create_prim_func([a, b]).with_attr("global_symbol", "square")


@pytest.mark.parametrize(
    ("options", "form", "machine", "bits"),
    [
        ({"mtriple": "x86_64-linux-gnu"}, "ELF", "x86-64", 64),
        ({"mtriple": "aarch64-linux-gnu"}, "ELF", "aarch64", 64),
        ({"mtriple": "armv7l-linux-gnueabihf"}, "ELF", "arm", 32),
        ({"mtriple": "powerpc64-linux-gnu"}, "ELF", "ppc64", 64),  # the other byte order
        ({"mtriple": "wasm32-unknown-unknown-wasm"}, "WebAssembly", "wasm32", 32),
    ],
    ids=lambda value: value.get("mtriple") if isinstance(value, dict) else None,
)
def test_machine_and_symbols(kernel, tmp_path, options, form, machine, bits):
    path = tmp_path / "square.o"
    target = tvm.target.Target({"kind": "llvm", **options})
    tvm.compile(kernel, target=target).mod.write_to_file(str(path), "o")
    info = read_object(path)
    assert (info.format, info.machine, info.bits) == (form, machine, bits)
    assert ERROR_FUNCTION in info.undefined
    if form == "ELF":
        assert "__tvm_ffi_square" in info.defined
        assert not set(info.defined) & set(info.undefined)


def test_imports_of_other_kinds_are_skipped(tmp_path):
    """A table, a memory with a maximum, a global, and one function named f."""
    imports = b"".join(
        [
            b"\x01m\x01t\x01\x70\x00\x01",
            b"\x01m\x01y\x02\x01\x01\x80\x01",
            b"\x01m\x01g\x03\x7f\x00",
            b"\x01m\x01f\x00\x05",
        ]
    )
    section = b"\x02" + bytes([len(imports) + 1]) + b"\x04" + imports
    custom = b"\x00\x02\x01n"
    path = tmp_path / "all.wasm"
    path.write_bytes(b"\0asm\1\0\0\0" + custom + section)
    assert read_object(path) == ObjectInfo("WebAssembly", "wasm32", 32, ("f",))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.o"
    path.write_text("no object\n")
    with pytest.raises(ValueError, match=r"text\.o: neither ELF nor WebAssembly"):
        read_object(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF library of the running system")
def test_shared_library():
    library = Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so"
    info = read_object(library)
    assert info.format == "ELF"
    assert any(name.startswith("TVMFFI") for name in info.undefined)
