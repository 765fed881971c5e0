"""
Which TVM this book describes
=============================

The release, what of its source comes with the wheel, and which names changed
between the release whose C++ is cited and the release that runs.
"""

# %% cell: imports
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
glue("commit", tvm._version.__commit_id__)
glue("llvm", tvm.target.codegen.llvm_version_major())
glue("cpp-runtime", kept["src/runtime"])
glue("cpp-headers", kept["include/tvm"])
glue("python-files", python)
glue("compiler-over-runtime", round(ratio))

# %% cell: resolve


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
    "tvm.ir.VDevice": "tvm.relax.VDevice",
    "tvm.tirx.BufferLoad": "tvm.ir.TensorLoad",
    "tvm.tirx.stmt_functor": "tvm_ffi.structural_walk",
}
for old, new in RENAMED.items():
    assert resolve(new) is not None
    state = "gone" if resolve(old) is None else "still a name"
    print(f"{old:22} {state:13} now {new}")

# %% check
left = [old for old in RENAMED if resolve(old) is not None]
assert left == ["tvm.tirx.BufferLoad"]

# %% cell: trap
A = tirx.decl_buffer((4,), "float32", name="A")
load = A[0]
print(type(load).__module__, type(load).__name__)
with expect_error(TypeError, match="must be a type"):
    isinstance(load, tirx.BufferLoad)

# %% cell: constant
one = relax.const(1.0, "float32")
print(type(one).__name__, one.value, hasattr(one, "data"))

# %% cell: typevar


@R.function
def twice(x: R.Tensor(("n", 4), "float32")):
    return R.add(x, x)


show(twice, header=True)

# %% cell: solution-since
from tvm_deepdive_helpers.recorded import data, read_csv

rooms = read_csv(data("tvm_rooms.csv"))
for room in ("python/tvm/arith", "python/tvm/tir", "src/backend"):
    for stay in (row for row in rooms if row["room"] == room):
        print(room, stay["first"], "to", stay["last"])

# %% check
(arith,) = (row for row in rooms if row["room"] == "python/tvm/arith")
assert arith["last"] == "v0.26.0" and resolve("tvm.arith") is None

# %% cell: solution-load
from tvm import ir

loads = []
tvm_ffi.structural_walk(
    (A[0] + A[1]) * A[2],
    lambda node: (
        loads.append(node) if isinstance(node, ir.TensorLoad) else None
    ),
)
print([int(load.indices[0]) for load in loads])

# %% check
assert sorted(int(load.indices[0]) for load in loads) == [0, 1, 2]
