"""
Data flow and control flow
==========================

What becomes of a branch and of a loop when a program is traced, parsed or
written as Relax, and what a branch costs an optimiser.
"""

# %% cell: setup
import gc
import re

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.torch_programs import read_runs, run


def tensor(value, dtype="float32"):
    """A tensor of TVM."""
    return tvm.runtime.tensor(np.array(value, dtype))


def machine(mod):
    """A virtual machine for a module, on the CPU."""
    return relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())


UP, DOWN = [1, 1], [-3, -3]

# %%
# The frames of a failed parse hold a builder, which warns as it goes. Python
# lets it go at any time; here only in sweep(), where nobody hears it.
gc.disable()


def sweep():
    """Collect garbage, in silence."""
    with quiet():
        gc.collect()


# %% cell: shape-branch
def build(size):
    """Trace a function of Python with the BlockBuilder."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((size,), "float32"))
    with bb.function("main", [x]):
        with bb.dataflow():
            if size > 2:
                y = bb.emit(relax.op.multiply(x, x))
            else:
                y = bb.emit(relax.op.exp(x))
            for _ in range(2):
                y = bb.emit(relax.op.add(y, y))
            out = bb.emit_output(y)
        bb.emit_func_output(out)
    return bb.get()


for size in (2, 3):
    bindings = build(size)["main"].body.blocks[0].bindings[:-1]
    print(size, [b.value.op.name for b in bindings])

# %% cell: value-branch
x = relax.Var("x", R.Tensor((2,), "float32"))
with expect_error(ValueError, match="and / or / not"):
    if relax.op.greater(relax.op.sum(x), relax.const(0.0)):
        print("positive")


# %% cell: nn-branch
class Branch(nn.Module):
    """Double what is positive in sum, take one from the rest."""

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        if nn.op.sum(x) > 0:
            return x * 2.0
        return x + (-1.0)


spec = {"forward": {"x": nn.spec.Tensor([2], "float32")}}
mod, _ = Branch().export_tvm(spec)
show(mod["forward"])
traced = machine(mod)["forward"]
print([traced(tensor(v)).numpy().tolist() for v in (UP, DOWN)])

# %% cell: torch-program
facts, runs = read_runs(data("torch_runs.txt"))
print("# recorded with", facts.replace(", Python", ",\n# Python"))
print(runs["branches"].program.split("\n\n\n", 1)[1], end="")

# %% cell: torch-output
print(runs["branches"].output, end="")

# %% cell: torch-loops
print(runs["loops"].program.split("\n\n\n", 1)[1], end="")

# %% cell: torch-loops-output
print(runs["loops"].output, end="")

# %% check
for name in ("branches", "loops"):
    assert run(name, runs[name]) in ("recorded", "the same")
assert "jit.trace: [2.0, 2.0] [-6.0, -6.0]" in runs["branches"].output

# %% cell: outcomes
fig, _ = boxes_and_arrows(
    {
        "python": (0, 2),
        "trace": (1, 0),
        "nn": (1, 1),
        "fx": (1, 2),
        "builder": (1, 3),
        "script": (1, 4),
        "lost": (2, 0.5),
        "refused": (2, 2.5),
        "kept": (2, 4),
    },
    [
        *(("python", n) for n in ("trace", "nn", "fx", "builder", "script")),
        ("trace", "lost"),
        ("nn", "lost"),
        ("fx", "refused"),
        ("builder", "refused"),
        ("script", "kept"),
    ],
    labels={
        "python": "if x.sum() > 0:\nin Python",
        "trace": "torch.jit.trace",
        "nn": "relax.frontend.nn",
        "fx": "torch.fx,\ntorch.export",
        "builder": "BlockBuilder",
        "script": "torch.jit.script,\nTVMScript",
        "lost": "lost: one arm,\nfor all inputs",
        "refused": "refused:\nan exception",
        "kept": "kept: an If\nin the IR",
    },
    colors={"lost": "red", "refused": "orange", "kept": "green"},
    title="One branch on data, seven tools",
)


# %% cell: relax-if
@I.ir_module
class Relaxed:
    @R.function
    def main(x: R.Tensor((2,), "float32")):
        positive = R.greater(R.sum(x), R.const(0.0, "float32"))
        if positive:
            y = R.multiply(x, R.const(2.0, "float32"))
        else:
            y = R.add(x, R.const(-1.0, "float32"))
        return y


show(Relaxed["main"])
branching = machine(Relaxed)
print([branching["main"](tensor(v)).numpy().tolist() for v in (UP, DOWN)])

# %% cell: if-runs-one
called = []


def note(function, name, before, result, *operands):
    """Note the kernels that the machine calls."""
    if before and not name.startswith("vm."):
        called.append(name)


branching.set_instrument(note)
for v in (UP, DOWN):
    called.clear()
    branching["main"](tensor(v))
    print(v, called)


# %% cell: join
@R.function
def other(p: R.Tensor((), "bool"), x: R.Tensor((2, "n"), "float32")):
    if p:
        y = R.sum(x, axis=[1])
    else:
        y = R.reshape(x, R.shape([2 * x.ty.shape[1]]))
    return y


print(other.ret_ty)


# %% cell: two-arms
def one_arm():
    @R.function
    def main(p: R.Tensor((), "bool"), x: R.Tensor((2,), "float32")):
        if p:
            y = R.add(x, x)
        return x

    return main


def two_names():
    @R.function
    def main(p: R.Tensor((), "bool"), x: R.Tensor((2,), "float32")):
        if p:
            y = R.add(x, x)
        else:
            z = R.multiply(x, x)
        return x

    return main


for write in (one_arm, two_names):
    try:
        write()
    except tvm.error.DiagnosticError as err:
        print(str(err).splitlines()[0])

# %%
sweep()


# %% cell: conditions
def conditional(kind, shape):
    """A function that chooses by a tensor of this kind."""
    p = relax.Var("p", R.Tensor(shape, kind))
    x = relax.Var("x", R.Tensor((2,), "float32"))
    bb = relax.BlockBuilder()
    with bb.function("main", [p, x]):
        arms = relax.op.add(x, x), relax.op.multiply(x, x)
        bb.emit_func_output(bb.emit(relax.If(p, *arms)))
    return machine(bb.get())["main"]


x = tensor([3, 3])
print("int32, 2:", conditional("int32", ())(tensor(2, "int32"), x).numpy())
print(
    "two bools:", conditional("bool", (2,))(tensor([0, 1], "bool"), x).numpy()
)
with expect_error(tvm.error.InternalError, match="kDLBool"):
    conditional("float32", ())(tensor(1), x)


# %% cell: shape-if
@I.ir_module
class ByLength:
    @R.function
    def main(x: R.Tensor(("n",), "float32")):
        n = T.int64()
        if R.prim_value(n > 2):
            y = R.multiply(x, x)
        else:
            y = R.exp(x)
        return y


by_length = machine(ByLength)["main"]
for n in (2, 3):
    print(n, by_length(tensor([2] * n)).numpy().round(2))

# %% cell: not-in-dataflow
with expect_error(tvm.error.DiagnosticError, match="inside a dataflow block"):

    @R.function
    def refused(p: R.Tensor((), "bool"), x: R.Tensor((2,), "float32")):
        with R.dataflow():
            if p:
                y = R.add(x, x)
            else:
                y = R.multiply(x, x)
            R.output(y)
        return y


p = relax.Var("p", R.Tensor((), "bool"))
x = relax.Var("x", R.Tensor((2,), "float32"))
bb = relax.BlockBuilder()
with bb.function("main", [p, x]):
    with bb.dataflow():
        arms = relax.SeqExpr([], x), relax.SeqExpr([], x)
        out = bb.emit_output(relax.If(p, *arms))
    bb.emit_func_output(out)
with expect_error(ValueError, match="dataflow"):
    with quiet():
        relax.analysis.well_formed(bb.get())

# %%
sweep()


# %% cell: split
@I.ir_module
class Mixed:
    @R.function
    def main(p: R.Tensor((), "bool"), x: R.Tensor((4,), "float32")):
        a = R.exp(x)
        b = R.add(a, a)
        if p:
            y = R.multiply(b, b)
        else:
            y = R.exp(b)
        z = R.negative(y)
        return z


@I.ir_module
class Selected:
    @R.function
    def main(p: R.Tensor((), "bool"), x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.exp(x)
            b = R.add(a, a)
            y = R.where(p, R.multiply(b, b), R.exp(b))
            z = R.negative(y)
            R.output(z)
        return z


blocks = relax.transform.ConvertToDataflow(min_size=1)(Mixed)
show(blocks["main"])


# %% cell: fused
FUSION = tvm.ir.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
)
counts = {}
for name, mod in (
    ("no dataflow blocks", Mixed),
    ("blocks around the If", blocks),
    ("where instead of If", Selected),
):
    text = FUSION(mod)["main"].script()
    found = re.findall(r"call_tir\((\w+)", text)
    counts[name] = len(found)
    print(f"{name}:", *found)

# %% check
assert list(counts.values()) == [5, 4, 1]


# %% cell: constant-condition
@R.function
def main(x: R.Tensor((4,), "float32")):
    if R.const(True, "bool"):
        y = R.multiply(x, x)
    else:
        y = R.exp(x)
    return y


mod = tvm.IRModule({"main": main})
for rewrite in (
    relax.transform.FoldConstant(),
    relax.transform.DeadCodeElimination(),
    relax.transform.CanonicalizeBindings(),
    relax.get_pipeline("default_build"),
):
    mod = rewrite(mod)
kept = mod["main"].script().count("if R.const(True")
print("conditions left:", kept, "kernels:", len(mod.functions) - 1)

# %% cell: no-loops
with expect_error(tvm.error.DiagnosticError, match="not implemented"):

    @R.function
    def looped(x: R.Tensor((2,), "float32")):
        while R.const(True, "bool"):
            x = R.add(x, x)
        return x


# %%
sweep()


# %% cell: recursion
@I.ir_module
class Recursive:
    @R.function
    def main(x: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
        cls = Recursive
        small = R.less(R.sum(x), R.const(100.0, "float32"))
        if small:
            y = R.add(x, x)
            result = cls.main(y)
        else:
            result = x
        return result


loop = machine(Recursive)
print(loop["main"](tensor([1, 2])).numpy())
called.clear()
loop.set_instrument(note)
loop["main"](tensor([1, 2]))
print(called.count("main"), "calls of main,", called.count("add"), "of add")
print(relax.analysis.detect_recursion(Recursive))


# %% cell: depth
COUNT = """
import sys

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

@I.ir_module
class Down:
    @R.function
    def main(n: R.Tensor((), "int32")) -> R.Tensor((), "int32"):
        cls = Down
        more = R.greater(n, R.const(0, "int32"))
        if more:
            result = cls.main(R.subtract(n, R.const(1, "int32")))
        else:
            result = n
        return result

machine = relax.VirtualMachine(tvm.compile(Down, "llvm"), tvm.cpu())
machine["main"](tvm.runtime.tensor(np.array(STEPS, "int32")))
"""
for steps in (500, 50_000):
    ended = run_isolated(COUNT.replace("STEPS", str(steps)))
    print(f"{steps:6} steps:", ended.describe())


# %% cell: other-loops
@T.prim_func
def doubling(X: T.Buffer((2,), "float32"), Y: T.Buffer((2,), "float32")):
    for i in range(2):
        Y[i] = X[i]
    while Y[0] + Y[1] < T.float32(100):
        for i in range(2):
            Y[i] = Y[i] + Y[i]


@I.ir_module
class Step:
    @R.function
    def main(x: R.Tensor((2,), "float32")):
        with R.dataflow():
            y = R.add(x, x)
            small = R.less(R.sum(y), R.const(100.0, "float32"))
            out = (y, small)
            R.output(out)
        return out


inside = tvm.compile(doubling.with_attr("global_symbol", "f"), "llvm")["f"]
y = tensor([0, 0])
inside(tensor([1, 2]), y)
print("a loop in one kernel: ", y.numpy())

step, x, small = machine(Step)["main"], tensor([1, 2]), True
while small:
    x, flag = step(x)
    small = bool(flag.numpy())
print("a loop outside of TVM:", x.numpy())


# %% cell: solution-where
@I.ir_module
class Wheres:
    @R.function
    def main(x: R.Tensor((3,), "float32")):
        with R.dataflow():
            root = R.sqrt(x)
            zero = R.const(0.0, "float32")
            y = R.where(R.greater(x, zero), root, zero)
            R.output(y)
        return y


y = machine(Wheres)["main"](tensor([4, 0, -4])).numpy()
print(y, "both arms ran, and the bad one was thrown away")
one_choice_each = y.tolist() == [2.0, 0.0, 0.0]


# %% cell: solution-power
@I.ir_module
class Power:
    @R.function
    def main(
        n: R.Tensor((), "int32"), x: R.Tensor((2,), "float32")
    ) -> R.Tensor((2,), "float32"):
        cls = Power
        more = R.greater(n, R.const(0, "int32"))
        if more:
            rest = cls.main(R.subtract(n, R.const(1, "int32")), x)
            result = R.multiply(rest, x)
        else:
            result = R.ones_like(x)
        return result


power = machine(Power)["main"]
for n in (0, 1, 5):
    got = power(tensor(n, "int32"), tensor([2, 3])).numpy()
    np.testing.assert_allclose(got, np.array([2, 3], "float32") ** n)
    print(n, got)

# %% check
assert one_choice_each
glue("mixed", counts["no dataflow blocks"])
