"""A WebAssembly object file gets its exports, and other files are refused."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tvm
from tvm import te

from tvm_deepdive_helpers.wasm import defined_functions, with_exports


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    a = te.placeholder((8,), "float32", name="a")
    b = te.compute((8,), lambda i: a[i] * a[i], name="b")
    func = te.create_prim_func([a, b]).with_attr("global_symbol", "square")
    path = tmp_path_factory.mktemp("wasm") / "square.o"
    target = tvm.target.Target({"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"})
    tvm.compile(func, target=target).mod.write_to_file(str(path), "o")
    return path


def test_functions_that_the_object_defines(square):
    names = defined_functions(square.read_bytes())
    assert "__tvm_ffi_square" in names and "__tvm_ffi_main" in names
    assert "TVMFFIErrorSetRaisedFromCStrParts" not in names  # imported
    assert len(set(names.values())) == len(names)


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js: nothing to read the module with")
def test_an_engine_accepts_the_module_and_sees_the_exports(square, tmp_path):
    module = tmp_path / "square.wasm"
    module.write_bytes(with_exports(square))
    script = (
        "const m = new WebAssembly.Module(require('fs').readFileSync(process.argv[1]));"
        "console.log(JSON.stringify(WebAssembly.Module.exports(m).map(e => e.name)))"
    )
    out = subprocess.run(["node", "-e", script, str(module)], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(out)) == set(defined_functions(square.read_bytes()))


@pytest.mark.parametrize(("data", "why"), [(b"\x7fELF", "not a WebAssembly"), (b"\0asm\1\0\0\0", "no symbol table")])
def test_other_files_are_refused(data, why):
    with pytest.raises(ValueError, match=why):
        defined_functions(data)
