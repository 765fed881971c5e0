"""
Check an installation and run the first model
=============================================

Which versions are installed, why one of them is pinned, and the running
example of the book compiled, run and compared with numpy.
"""

# %% cell: imports
import importlib.metadata
import subprocess
import sys

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue, running_example
from tvm_deepdive_helpers.isolate import run_isolated

# %% cell: versions
for name in ("apache-tvm", "apache-tvm-ffi", "numpy"):
    print(f"{name:15}", importlib.metadata.version(name))

# %% cell: requirement
wanted = importlib.metadata.requires("apache-tvm")
print(next(line for line in wanted if "ffi" in line))

# %% cell: probe


def write_ir_as_json():
    import copy
    import pickle

    import tvm
    from tvm import relax
    from tvm.script import ir as I
    from tvm.script import relax as R

    @I.ir_module
    class Double:
        @R.function
        def main(x: R.Tensor((4,), "float32")):
            return R.add(x, x)

    mod = relax.transform.LegalizeOps()(Double)
    for step in (tvm.ir.save_json, pickle.dumps, copy.deepcopy):
        print(step.__name__, flush=True)
        step(mod)


ended = run_isolated(write_ir_as_json)
print(ended.stdout + ended.describe())

# %% cell: matrix
from tvm_deepdive_helpers.recorded import data, read_csv

rows = read_csv(data("ffi_matrix.csv"))
releases = sorted({row["ffi"] for row in rows})

print(f"{'apache-tvm-ffi':14}", *releases, sep="  ")
for operation in dict.fromkeys(row["operation"] for row in rows):
    cells = [
        "died" if "SIGSEGV" in row["ended"] else "ok"
        for row in rows
        if row["operation"] == operation
    ]
    print(f"{operation:14}", *(c.ljust(12) for c in cells), sep="  ")

# %% check
dead = [row for row in rows if "SIGSEGV" in row["ended"]]
assert ended.ok, ended.stderr
assert ended.stdout.split() == ["save_json", "dumps", "deepcopy"]
assert {row["ffi"] for row in dead} == {"0.1.15.post1", "0.1.15.post2"}
assert {row["innermost"] for row in dead} == {"tvm::ffi::ToJSONGraph"}

glue("tvm", importlib.metadata.version("apache-tvm"))
glue("ffi", importlib.metadata.version("apache-tvm-ffi"))
glue("newest-tried", releases[-1])
glue("crash-frame", dead[0]["innermost"])
glue("dying", ", ".join(dict.fromkeys(row["operation"] for row in dead)))

# %% cell: model


@I.ir_module
class MLP:
    @R.function
    def main(
        x: R.Tensor((8, 64), "float32"),
        w1: R.Tensor((64, 128), "float32"),
        b1: R.Tensor((128,), "float32"),
        w2: R.Tensor((128, 10), "float32"),
        b2: R.Tensor((10,), "float32"),
    ) -> R.Tensor((8, 10), "float32"):
        with R.dataflow():
            h0 = R.matmul(x, w1)
            h1 = R.add(h0, b1)
            h2 = R.nn.relu(h1)
            h3 = R.matmul(h2, w2)
            y = R.add(h3, b2)
            R.output(y)
        return y


# %% cell: first-run
rng = np.random.default_rng(0)
shapes = [(8, 64), (64, 128), (128,), (128, 10), (10,)]
args = [rng.standard_normal(s).astype("float32") for s in shapes]

executable = tvm.compile(MLP, target="llvm")
vm = relax.VirtualMachine(executable, tvm.cpu())
y = vm["main"](*[tvm.runtime.tensor(a) for a in args])

x, w1, b1, w2, b2 = args
want = np.maximum(x @ w1 + b1, 0) @ w2 + b2
print(type(executable).__name__, type(y).__name__, y.shape)
print("equal to numpy:", np.allclose(y.numpy(), want, atol=1e-3))

# %% check
import json

assert np.allclose(y.numpy(), want, atol=1e-3)
assert not np.array_equal(y.numpy(), want)  # "up to rounding"
state = MLP.__getstate__()
assert list(state) == ["handle"]
assert "root_index" in json.loads(state["handle"])

# %% cell: helpers
same = running_example.arguments()
equal = [np.array_equal(a, b) for a, b in zip(same, args, strict=True)]
print("arguments:", all(equal))
print("reference:", np.array_equal(running_example.reference(*same), want))
print("module:   ", tvm_ffi.structural_equal(running_example.MLP, MLP))

# %% check
assert all(equal)
assert tvm_ffi.structural_equal(running_example.MLP, MLP)
assert np.array_equal(running_example.reference(*same), want)

# %% cell: solution-shape
tensors = [tvm.runtime.tensor(a) for a in args]
nine = tvm.runtime.tensor(np.zeros((9, 64), "float32"))
with expect_error(RuntimeError, match="mismatch to specified constant"):
    vm["main"](nine, *tensors[1:])
double = tvm.runtime.tensor(np.zeros((8, 64), "float64"))
with expect_error(ValueError, match="expect Tensor with dtype float32"):
    vm["main"](double, *tensors[1:])
with expect_error(tvm.error.InternalError, match="expects 5 arguments"):
    vm["main"](*tensors[:4])

# %% cell: solution-stdin
program = """
from tvm.script import tirx as T

@T.prim_func
def nothing(a: T.Buffer((4,), "float32")):
    T.evaluate(0)
"""
done = subprocess.run(
    [sys.executable, "-"], input=program, capture_output=True, text=True
)
print(done.stderr.strip().splitlines()[-1])

# %% check
assert done.returncode == 1 and "could not get source" in done.stderr
