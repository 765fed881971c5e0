"""
Which TVM this book describes
=============================

The release, what of its source comes with the wheel, and which names changed
between the release whose C++ is cited and the release that runs.
"""

# %%
import importlib
import importlib.metadata
from collections import Counter
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.ir import show

# %% cell: release
print("apache-tvm     ", tvm.__version__)
print("apache-tvm-ffi ", tvm_ffi.__version__)
print("built from     ", tvm._version.__commit_id__)
print("LLVM           ", tvm.target.codegen.llvm_version_major())

# %% cell: source-in-wheel
wheel = importlib.metadata.distribution("apache-tvm")
paths = [p for p in wheel.files if p.parts[0] == "tvm"]
cpp = [p for p in paths if p.suffix in (".cc", ".h", ".hpp")]
kept = Counter(
    "/".join(p.parts[1:3]) for p in cpp if p.parts[1] != "3rdparty"
)
for folder, number in sorted(kept.items()):
    print(f"{folder:18} {number:4} C++ files")
python = sum(p.suffix == ".py" for p in paths)
print(f"{'Python':18} {python:4} files")

# %% cell: libraries
for p in sorted(paths):
    if p.suffix == ".so":
        size = Path(p.locate()).stat().st_size
        print(f"{p.name:24} {size / 1e6:7.1f} MB")

# %% check
compiler = next(p for p in paths if p.name == "libtvm_compiler.so")
runtime = next(p for p in paths if p.name == "libtvm_runtime.so")
ratio = (
    Path(compiler.locate()).stat().st_size
    / Path(runtime.locate()).stat().st_size
)
assert ratio > 50
assert not any("src/relax" in str(p) for p in paths)
assert set(kept) == {"include/tvm", "src/runtime", "web/emcc"}, kept
glue("tvm", tvm.__version__)
glue("commit", tvm._version.__commit_id__.removeprefix("g"))
glue("cpp-runtime", kept["src/runtime"])
glue("cpp-headers", kept["include/tvm"])
glue("python-files", python)
glue("compiler-over-runtime", round(ratio))

# %%


def resolve(name):
    """The object with this dotted name, or None."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found
    return None


# %% cell: renamed
RENAMED = {
    # in 0.26                     in 0.27
    "tvm.arith": "tvm.sym",
    "tvm.relax.Constant": "tvm.ir.GenericConst",
    "tvm.relax.StringImm": "tvm.ir.StringImm",
    "tvm.tirx.StringImm": "tvm.ir.StringImm",
    "tvm.ir.VDevice": "tvm.relax.VDevice",
    "tvm.ir.register_intrin_lowering": "tvm.tirx.register_intrin_lowering",
    "tvm.tirx.SBlock": "tvm.s_tir.SBlock",
    "tvm.tirx.SBlockRealize": "tvm.s_tir.SBlockRealize",
    "tvm.tirx.MatchBufferRegion": "tvm.s_tir.MatchBufferRegion",
    "tvm.tirx.TensorIntrin": "tvm.s_tir.TensorIntrin",
    "tvm.tirx.BufferLoad": "tvm.ir.TensorLoad",
    "tvm.tirx.BufferRegion": "tvm.ir.TensorRegion",
    "tvm.tirx.stmt_functor": "tvm_ffi.structural_walk",
}
for old, new in RENAMED.items():
    state = "gone" if resolve(old) is None else "function"
    print(f"{old:31} {state:8} {new}")

# %% check
assert all(resolve(new) is not None for new in RENAMED.values())
left = [old for old in RENAMED if resolve(old) is not None]
assert left == ["tvm.tirx.BufferLoad", "tvm.tirx.BufferRegion"]
assert not any(isinstance(resolve(old), type) for old in left)

# %% cell: trap
A = tirx.decl_buffer((4,), "float32", name="A")
load = A[0]
print(type(load).__module__, type(load).__name__)
print(load.source.name, load.indices, hasattr(load, "buffer"))
with expect_error(TypeError, match="must be a type"):
    isinstance(load, tirx.BufferLoad)

# %% check
made = tirx.BufferLoad(A, [0])
assert tvm_ffi.structural_equal(made, load, map_free_vars=True)

# %% cell: constant
one = relax.const(1.0, "float32")
print(type(one).__name__, one.value, hasattr(one, "data"))

# %% cell: typevar


@R.function
def twice(x: R.Tensor(("n", 4), "float32")):
    return R.add(x, x)


show(twice, header=True)

# %% check
again = tvm.script.from_source(twice.script())
assert tvm_ffi.structural_equal(again, twice, map_free_vars=True)
plain = twice.script().replace("# from", "from")
try:
    tvm.script.from_source(plain)
except tvm.error.DiagnosticError as error:
    assert "Only 'from __future__ import annotations'" in str(error)
else:
    raise AssertionError("the parser takes imports now: change the text")
x = relax.Var("x", relax.TensorType((4,), "float32"))
assert isinstance(x.ty, relax.TensorType) and not hasattr(x, "struct_info")

# %% cell: solution-since
from tvm_deepdive_helpers.recorded import data, read_csv

rooms = read_csv(data("tvm_rooms.csv"))
for room in ("python/tvm/arith", "python/tvm/tir", "src/backend"):
    for stay in (row for row in rooms if row["room"] == room):
        print(room, stay["first"], "to", stay["last"])

# %% check
(arith,) = (row for row in rooms if row["room"] == "python/tvm/arith")
assert arith["last"] == "v0.26.0" and resolve("tvm.arith") is None
since = {row["room"]: row["first"] for row in rooms}
assert since["python/tvm/tirx"] == since["python/tvm/s_tir"]
assert since["python/tvm/tirx"] > "v0.23.0"
glue("tirx-since", since["python/tvm/tirx"])

# %% cell: solution-load
from tvm import ir

loads = []
first = A[0]
product = (first + A[1]) * first
tvm_ffi.structural_walk(product, (ir.TensorLoad, loads.append))
print([int(load.indices[0]) for load in loads])

# %% check
assert [int(load.indices[0]) for load in loads] == [0, 1, 0]
