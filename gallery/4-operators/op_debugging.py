"""
Debugging operators
===================

Dumped IR, the first bad value of a model, two builds kernel by kernel, a
binary search over passes, checks of bounds, and prints inside a kernel.
"""

# %% cell: setup
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.ir.instrument import (
    DumpIR,
    PassPrintingInstrument,
    PassTimingInstrument,
    pass_instrument,
)
from tvm.ir.transform import PassContext
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import cut, show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.running_example import MLP

CPU = tvm.cpu()

# %% cell: dump
folder = Path(tempfile.mkdtemp())
with PassContext(instruments=[DumpIR(folder)]):
    built = tvm.compile(MLP, "llvm")
files = sorted(p.name for p in folder.iterdir())
print(f"{len(files)} files:", *files[:3], "...", files[-1], sep="\n  ")
for name in ("LegalizeOps", "StorageRewrite"):
    print(name, "->", *(f for f in files if name in f))

# %% check
glue("dumped", len(files))

# %% cell: print-one
with PassContext(instruments=[PassPrintingInstrument([], ["FoldConstant"])]):
    relax.transform.FoldConstant()(tvm.IRModule({}))

# %% cell: timing, varies
timing = PassTimingInstrument()
with PassContext(instruments=[timing]):
    tvm.compile(MLP, "llvm")
    print(cut(timing.render(), lines=9))

# %% cell: after
print(next(s for s in built.as_text().splitlines() if "matmul " in s))
print(built.stats().splitlines()[2])
[library] = built.mod.imports
llvm = library.inspect_source("ll")
print(*re.findall(r"^define .*(@matmul\w*)\(", llvm, re.MULTILINE))
print("assembly:", "ret" in library.inspect_source("asm"))

# %% cell: overflow


@I.ir_module
class Softmax:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            e = R.exp(x)
            total = R.sum(e, axis=1, keepdims=True)
            half = R.multiply(e, R.const(0.5))
            y = R.divide(half, total)
            R.output(y)
        return y


machine = relax.VirtualMachine(tvm.compile(Softmax, "llvm"), CPU)
x = tvm.runtime.tensor(np.array([[1, 2, 3], [1, 2, 90]], "float32"))
print(machine["main"](x).numpy().round(3))

# %% cell: first-bad


class FirstBad:
    """Stop at the first kernel that makes an infinite number or a NaN."""

    def __init__(self):
        self.index, self.found = 0, None

    def __call__(self, func, name, before, result, *operands):
        tensors = [a for a in operands if hasattr(a, "numpy")]
        if before or str(name).startswith("vm.") or not tensors:
            return
        output = tensors[-1].numpy()
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            where = np.argwhere(~np.isfinite(output))[0].tolist()
            inputs = [t.numpy().copy() for t in tensors[:-1]]
            self.found = (str(name), self.index, where, inputs)
            raise FloatingPointError(
                f"call {self.index}, {name}: {output[tuple(where)]}"
                f" at {where}"
            )
        self.index += 1


watch = FirstBad()
machine.set_instrument(watch)
with expect_error(RuntimeError, match="exp: inf"):
    machine["main"](x)

# %% cell: alone
name, _, where, inputs = watch.found
[library] = tvm.compile(Softmax, "llvm").mod.imports
out = tvm.runtime.empty(inputs[0].shape, "float32")
library[name](*map(tvm.runtime.tensor, inputs), out)
print(name, "of", inputs[0][tuple(where)], "is", out.numpy()[tuple(where)])

# %% check
with np.errstate(over="ignore"):
    assert np.isinf(np.exp(np.float32(90)))

# %% cell: two-builds


def outputs(executable, *args):
    """The output of every kernel, in order of the calls."""
    seen = []

    def keep(func, name, before, result, *operands):
        if not before and not str(name).startswith("vm."):
            seen.append((str(name), operands[-1].numpy().copy()))

    machine = relax.VirtualMachine(executable, CPU)
    machine.set_instrument(keep)
    machine["main"](*args)
    return seen


def first_difference(one, other, *args, rtol=1e-4):
    pairs = zip(outputs(one, *args), outputs(other, *args), strict=True)
    for index, ((name, a), (_, b)) in enumerate(pairs):
        if not np.allclose(a, b, rtol=rtol, atol=1e-5, equal_nan=True):
            return f"call {index}, {name}: off by {abs(a - b).max():.3f}"
    return "no difference"


@tirx.transform.prim_func_pass(opt_level=0, name="deepdive.FastExp")
def fast_exp(func, mod, ctx):
    """Replace exp by a polynomial that is good near zero only."""

    def on_call(call):
        if not call.op.same_as(ir.Op.get("tirx.exp")):
            return call
        x = call.args[0]
        return 1.0 + x + x * x / 2.0 + x * x * x / 6.0

    return tvm_ffi.structural_map(func, (ir.Call, on_call))


legal = relax.transform.LegalizeOps()(Softmax)
reference = tvm.compile(legal, "llvm")
suspect = tvm.compile(fast_exp(legal), "llvm")
for top in (0.1, 3):
    x = tvm.runtime.tensor(
        np.linspace(0, top, 6, dtype="float32").reshape(2, 3)
    )
    print(f"inputs up to {top}:", first_difference(reference, suspect, x))

# %% check
taylor = sum(np.float32(3) ** n / math.factorial(n) for n in range(4))
assert abs(np.exp(3) - taylor) > 7

# %% cell: bisect
PASSES = [
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
    relax.transform.FoldConstant(),
    relax.transform.FuseOps(),
    relax.transform.FuseTIR(),
    fast_exp,
    relax.transform.DeadCodeElimination(),
    relax.transform.CanonicalizeBindings(),
]
want = np.exp(x.numpy())
want = want / want.sum(1, keepdims=True) / 2


def right_after(count):
    """Is the model still right when so many passes have run?"""
    mod = tvm.ir.transform.Sequential(PASSES[:count])(Softmax)
    machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), CPU)
    return np.allclose(machine["main"](x).numpy(), want, rtol=1e-4)


low, high = 0, len(PASSES)
assert right_after(low) and not right_after(high)
while high - low > 1:
    middle = (low + high) // 2
    fine = right_after(middle)
    print(f"{middle} passes: {'right' if fine else 'wrong'}")
    low, high = (middle, high) if fine else (low, middle)
print("culprit:", PASSES[low].info.name)

# %% check
assert PASSES[low] is fast_exp

# %% cell: option


@T.prim_func(s_tir=True)
def shifted(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = A[v + 4]


a = tvm.runtime.tensor(np.arange(8, dtype="float32"))
b = tvm.runtime.tensor(np.zeros(8, "float32"))
with PassContext(config={"tirx.instrument_bound_checkers": True}):
    unchecked = tvm.compile(shifted, "llvm")
unchecked(a, b)
print("no error; the first four:", b.numpy()[:4])


# %% cell: check-bounds
GUARD = ir.Op.get("prim.if_then_else")


@tirx.transform.prim_func_pass(opt_level=0, name="deepdive.CheckBounds")
def check_bounds(func, mod, ctx):
    """Put an assertion before each store, for all its accesses."""

    def on_store(store):
        accesses, guarded = [(store.buffer, store.indices)], []
        tvm_ffi.structural_walk(
            store.value,
            (ir.Call, lambda c: guarded.append(c.op.same_as(GUARD))),
        )
        if not any(guarded):
            tvm_ffi.structural_walk(
                store.value,
                (
                    ir.TensorLoad,
                    lambda e: accesses.append((e.source, e.indices)),
                ),
            )
        checks = []
        for buffer, indices in accesses:
            for i, n in zip(indices, buffer.shape, strict=True):
                text = f"{buffer.name}[{i}] is outside of {n}"
                checks.append(
                    tirx.AssertStmt(
                        tirx.all(i >= 0, i < n),
                        ir.StringImm("IndexError"),
                        [ir.StringImm(text)],
                    )
                )
        return tirx.SeqStmt([*checks, store])

    return tvm_ffi.structural_map(func, (tirx.BufferStore, on_store))


mod = check_bounds(tvm.IRModule({"shifted": shifted}))
show(mod["shifted"], keep="assert", context=1)
with expect_error(IndexError, match="outside of 8"):
    tvm.compile(mod, "llvm")(a, b)

# %% cell: print
tvm.register_global_func("deepdive.say", print)


@T.prim_func(s_tir=True)
def roots(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            if A[v] < T.float32(0):
                T.evaluate(T.call_packed("deepdive.say", "at", v, A[v]))
            B[v] = T.sqrt(A[v])


a = tvm.runtime.tensor(np.array([4, 1, -1, 9, -4, 0, 0, 1], "float32"))
tvm.compile(roots, "llvm")(a, b)

# %% cell: assert


@T.prim_func
def strict_roots(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        assert A[i] >= T.float32(0), "negative input"
        B[i] = T.sqrt(A[i])


show(strict_roots, keep="assert", context=0)
with expect_error(RuntimeError, match="negative input"):
    tvm.compile(strict_roots, "llvm")(a, b)

# %% cell: whole-buffer


def whole_buffer():
    """In a process of its own, because it ends badly."""
    import numpy as np
    import tvm
    from tvm.script import tirx as T

    def look(tensor):
        print(tensor.shape, tensor.numpy(), flush=True)
        np.from_dlpack(tensor)

    tvm.register_global_func("look", look)

    @T.prim_func
    def fill(A: T.Buffer((4,), "float32")):
        for i in range(4):
            A[i] = T.Cast("float32", i)
        T.evaluate(T.call_packed("look", A))

    tvm.compile(fill, "llvm")(tvm.runtime.empty((4,), "float32"))


ended = run_isolated(whole_buffer)
print(ended.stdout + ended.describe())

# %% check
assert ended.signal == "SIGSEGV"

# %% cell: relax-print


@I.ir_module
class Talking:
    @R.function(pure=False)
    def main(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
        y = R.log(x)
        R.print(y, format="y = {}")
        R.assert_op(R.const(False), y, format="stopped with {}")
        return y


talking = relax.VirtualMachine(tvm.compile(Talking, "llvm"), CPU)
with expect_error(AssertionError, match="stopped with"):
    talking["main"](tvm.runtime.tensor(np.ones(2, "float32")))

# %% cell: way
fig, _ = boxes_and_arrows(
    {
        "wrong": (0, 0),
        "kernel": (1, 0),
        "alone": (2, 0),
        "pass": (0, 1.1),
        "diff": (1, 1.1),
        "inside": (2, 1.1),
    },
    {
        ("wrong", "kernel"): "instrument",
        ("kernel", "alone"): "its inputs",
        ("alone", "pass"): "right before",
        ("pass", "diff"): "two files",
        ("alone", "inside"): "never right",
    },
    labels={
        "wrong": "a model is wrong",
        "kernel": "first wrong kernel",
        "alone": "that kernel alone,\nbeside numpy",
        "pass": "first wrong pass:\nbinary search",
        "diff": "IR before\nand after it",
        "inside": "inside the kernel:\nbounds, prints",
    },
    title="From a wrong model to the cause",
)

# %% cell: solution-softmax


@I.ir_module
class Stable:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            top = R.max(x, axis=1, keepdims=True)
            e = R.exp(R.subtract(x, top))
            total = R.sum(e, axis=1, keepdims=True)
            y = R.divide(e, total)
            R.output(y)
        return y


machine = relax.VirtualMachine(tvm.compile(Stable, "llvm"), CPU)
watch = FirstBad()
machine.set_instrument(watch)
x = tvm.runtime.tensor(np.array([[1, 2, 3], [1, 2, 90]], "float32"))
print(machine["main"](x).numpy().round(3))
print("kernels watched:", watch.index, "bad:", watch.found)

# %% check
assert watch.found is None and watch.index == 5

# %% cell: solution-without
OPTIONAL = [
    "tirx.StorageRewrite",
    "s_tir.HoistIfThenElse",
    "tirx.UnrollLoop",
    "tirx.StmtSimplify",
    "tirx.CommonSubexprElim",
]


@pass_instrument
class Without:
    """Leave passes out, wherever they would run, and count how often."""

    def __init__(self, names):
        self.names, self.skipped = set(names), 0

    def should_run(self, mod, info):
        skip = info.name in self.names
        self.skipped += skip
        return not skip


x = np.linspace(0, 3, 6, dtype="float32").reshape(2, 3)
for n in range(len(OPTIONAL) + 1):
    without = Without(OPTIONAL[:n])
    with PassContext(instruments=[without]):
        executable = tvm.compile(legal, "llvm")
    out = relax.VirtualMachine(executable, CPU)["main"](tvm.runtime.tensor(x))
    same = np.allclose(out.numpy(), want, rtol=1e-4)
    print(f"without {n}: skipped {without.skipped}, right: {same}")
    assert same
