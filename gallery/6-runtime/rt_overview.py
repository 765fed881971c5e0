"""
The runtime: its libraries, and one call from inside
====================================================

Which library brings what, what runs without the compiler, and which objects
and reference counts one can see while the virtual machine works.
"""

# %% cell: libraries
import itertools
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import header, libraries_on_stack
from tvm_deepdive_helpers.objects import read_object
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)


def load_one_by_one():
    """Load TVM's libraries without importing TVM's Python."""
    import ctypes
    import importlib.util
    from pathlib import Path

    from tvm_ffi import libinfo, registry  # has loaded libtvm_ffi

    folder = Path(importlib.util.find_spec("tvm").origin).parent / "lib"
    files = [Path(libinfo.find_libtvm_ffi())]
    for name in ("runtime", "runtime_extra", "compiler"):
        files.append(folder / f"libtvm_{name}.so")

    def count(names):
        return sum(not name.startswith("testing.") for name in names)

    functions = types = 0
    for file in files:
        ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
        more = count(registry.list_global_func_names()) - functions
        kinds = count(registry.get_registered_type_keys()) - types
        functions, types = functions + more, types + kinds
        size = f"{file.stat().st_size / 1e6:5.1f} MB"
        print(f"{file.stem:20}{size}{more:6} functions{kinds:5} types")


loaded = run_isolated(load_one_by_one)
print(loaded.stdout.rstrip())

# %% check
rows = {line.split()[0]: line.split() for line in loaded.stdout.splitlines()}
assert list(rows)[1:] == [
    "libtvm_runtime",
    "libtvm_runtime_extra",
    "libtvm_compiler",
]
needed = ("libtvm_ffi", "libtvm_runtime")
glue("needed_mb", sum(float(rows[name][1]) for name in needed))
glue("compiler_mb", float(rows["libtvm_compiler"][1]))

# %% cell: libraries-figure
fig, _ = boxes_and_arrows(
    {
        "ffi": (0.5, 2),
        "runtime": (0.5, 1),
        "extra": (1, 0),
        "compiler": (0, 0),
        "cuda": (2, 0),
        "model": (2, 2),
    },
    [
        ("compiler", "runtime"),
        ("extra", "runtime"),
        ("cuda", "runtime"),
        ("runtime", "ffi"),
    ],
    labels={
        "ffi": "libtvm_ffi\nobjects, functions,\nregistry, modules",
        "runtime": "libtvm_runtime\ndevices, memory,\nvirtual machine, RPC",
        "extra": "libtvm_runtime_extra\nDisco, sort, random",
        "compiler": "libtvm_compiler\nIR, passes, LLVM",
        "cuda": "libtvm_runtime_cuda\nneeds NVIDIA's driver",
        "model": "model.so\nlooks for what it\nneeds in the process",
    },
    colors={
        "ffi": "green",
        "compiler": "vermilion",
        "model": "purple",
    },
    title="TVM's libraries; an arrow means: is linked against",
)

# %% cell: runtime-only
folder = tempfile.TemporaryDirectory()
library = Path(folder.name, "mlp.so")
ex = tvm.compile(MLP, target="llvm")
ex.export_library(str(library))
print("mlp.so needs:", *read_object(library).undefined)

inputs = arguments(seed=0)
np.savez(Path(folder.name, "inputs.npz"), *inputs)

PROGRAM = f"""
import pathlib
import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine

vm = VirtualMachine(tvm.runtime.load_module({str(library)!r}), tvm.cpu())
arrays = np.load({str(library.with_name("inputs.npz"))!r})
y = vm["main"](*[tvm.runtime.tensor(a) for a in arrays.values()])
np.save({str(library.with_name("y.npy"))!r}, y.numpy())
maps = pathlib.Path("/proc/self/maps").read_text()
names = {{line.rpartition("/")[2] for line in maps.split("\\n")}}
ours = sorted(n for n in names if n.startswith("libtvm_"))
print("result:", y.shape, *(n for n in ours if "ffi" not in n))
print("has tvm.relax:", hasattr(tvm, "relax"))
tvm.target.Target("llvm")
"""
alone = run_isolated(PROGRAM, env={"TVM_USE_RUNTIME_LIB": "1"})
print(alone.stdout + alone.stderr.splitlines()[-1])

# %% check
y = np.load(library.with_name("y.npy"))
assert np.allclose(y, reference(*inputs), atol=1e-3)
assert all(n.startswith("TVMFFI") for n in read_object(library).undefined)
assert "(8, 10) libtvm_runtime.so\n" in alone.stdout
assert "has no attribute 'Target'" in alone.stderr

# %% cell: lookup
vm = relax.VirtualMachine(ex, tvm.cpu())
x, *weights = as_tensors(inputs)
before = header(vm.module).strong
main = vm["main"]
print(type(main).__name__, header(main))
print("owners of the VM:", before, "->", header(vm.module).strong)
print("the same function again:", main.same_as(vm["main"]))

# %% cell: counts
seen = []


def watch(func, name, before_run, result, *operands):
    """Note the owners of x before each instruction."""
    if before_run:
        seen.append((str(name), header(x).strong))


print("before the call:", header(x).strong)
vm.set_instrument(watch)
y = main(x, *weights)
inside = {count for name, count in seen if name in ("relu", "add")}
print("inside, in instructions without x:", inside)
print("after the call: ", header(x).strong)

# %% check
assert inside == {3} and header(x).strong == 1
assert np.allclose(y.numpy(), reference(*inputs), atol=1e-3)

# %% cell: result
print("owners of y:", header(y).strong)
z = main(x, *weights)
print("owners of y after the next run:", header(y).strong)
print("the new result is", "y" if z.same_as(y) else "another tensor")

# %% check
assert header(y).strong == 1 and header(z).strong == 2

# %% cell: operands
lines = []


def operands_of(func, name, before_run, result, *operands):
    """Note what each operand of an instruction is."""
    if before_run:
        kinds = []
        for value in operands:
            kind = type(value).__name__
            if hasattr(value, "__chandle__"):
                index = header(value).type_index
                kind += f" {index}" if index < 128 else " >=128"
            kinds.append(kind)
        number = header(func).type_index
        lines.append(f"{name}, {type(func).__name__} {number}:")
        lines.append("    " + ", ".join(kinds))


vm.set_instrument(operands_of)
main(x, *weights)
first = next(i for i, line in enumerate(lines) if "alloc_storage" in line)
print("\n".join([*lines[:2], "...", *lines[first : first + 6]]))

# %% check
assert "Tensor 70, int" in lines[1]

# %% cell: stack
stacks = []


@tvm.register_global_func("book.stack")
def stack():
    """Called by the kernel: whose code is running underneath us?"""
    stacks.append(libraries_on_stack())


@I.ir_module
class Spied:
    @T.prim_func(s_tir=True)
    def kernel(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        T.evaluate(T.call_packed("book.stack"))
        for i in range(4):
            B[i] = A[i] + T.float32(1)

    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        cls = Spied
        with R.dataflow():
            ty = R.Tensor((4,), "float32")
            y = R.call_tir(cls.kernel, (x,), out_ty=ty)
            R.output(y)
        return y


def print_stack(frames):
    """The frames from the spy's to Python's, those of one file together."""
    frames = [name or "code made at run time" for name in frames]
    first = next(i for i, n in enumerate(frames) if n.startswith("core."))
    last = len(frames) - frames[::-1].index(frames[first])
    for name, group in itertools.groupby(frames[first:last]):
        name = name.replace(frames[first], "tvm_ffi/core (Cython)")
        print(f"{len(list(group)):2} x {name}")


spied = tvm.compile(Spied, target="llvm")
four = tvm.runtime.tensor(np.zeros(4, "float32"))
relax.VirtualMachine(spied, tvm.cpu())["main"](four)
print_stack(stacks[0])

# %% check
assert not any(name.startswith("libtvm_ffi") for name in stacks[0])
assert "" in stacks[0] and "libtvm_runtime.so" in stacks[0]

# %% cell: path-figure
fig, _ = boxes_and_arrows(
    {
        "call": (0, 0),
        "safe": (0, 1),
        "closure": (0, 2),
        "bytecode": (1, 2),
        "loop": (1, 1),
        "instr": (1, 0),
        "kernel": (2, 0),
        "compute": (2, 1),
    },
    {
        ("call", "safe"): "cells, no GIL",
        ("safe", "closure"): "cells",
        ("closure", "bytecode"): "owned values",
        ("bytecode", "loop"): "frame",
        ("loop", "instr"): "instruction",
        ("instr", "kernel"): "cells",
        ("kernel", "compute"): "pointers",
    },
    labels={
        "call": "Function.__call__\nPython objects to cells",
        "safe": "FunctionObjImpl::SafeCall\ncatches exceptions",
        "closure": "InvokeClosurePacked\nputs the VM in front",
        "bytecode": "InvokeBytecode\nregisters, start_instr",
        "loop": "RunLoop\none case per opcode",
        "instr": "RunInstrCall\noperands to cells",
        "kernel": "__tvm_ffi_matmul\nchecks, unpacks",
        "compute": "matmul_compute_\nthe loops",
    },
    colors={
        "call": "green",
        "safe": "green",
        "kernel": "vermilion",
        "compute": "vermilion",
    },
    title='The way of vm["main"](x, ...) to the first loop',
)

# %% cell: solution-exported
exported = Path(folder.name, "spied.so")
spied.export_library(str(exported))
lib = tvm.runtime.load_module(str(exported))
relax.VirtualMachine(lib, tvm.cpu())["main"](four)
print_stack(stacks[1])

# %% check
assert "spied.so" in stacks[1] and "" not in stacks[1]
assert "libtvm_compiler.so" not in stacks[1]

# %% cell: solution-outlives
module = vm.module
del vm
print("owners of the VM:", header(module).strong)
del module
print(np.array_equal(main(x, *weights).numpy(), z.numpy()))

# %% check
assert np.array_equal(main(x, *weights).numpy(), z.numpy())
folder.cleanup()
