"""
Relax: whole models in the same module as their loops
=====================================================

One Relax function read as text and as objects, what it shares with the TIR
function beside it, and how far down the compiler Relax goes.
"""

# %%
from collections import Counter
from pathlib import Path
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.frontend import nn
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.passes import PassRecorder
from tvm_deepdive_helpers.running_example import as_tensors
from tvm_deepdive_helpers.source_map import python_sizes


def show(thing):
    """Print IR; lines that are too long for the page are broken."""
    text = thing if isinstance(thing, str) else script(thing)
    for line in text.splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


# %% cell: module


@I.ir_module
class Layer:
    @T.prim_func(s_tir=True)
    def scale(x: T.handle, k: T.float32, y: T.handle):
        n = T.int64()
        X = T.match_buffer(x, (n, 4), "float32")
        Y = T.match_buffer(y, (n, 4), "float32")
        for i, j in T.grid(n, 4):
            with T.sblock("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj] * k

    @R.function
    def main(
        x: R.Tensor(("n", 8), "float32"),
        w: R.Tensor((8, 4), "float32"),
    ) -> R.Tensor(("n", 4), "float32"):
        n = T.int64()
        cls = Layer
        with R.dataflow():
            h = R.matmul(x, w)
            r = R.nn.relu(h)
            y = R.call_tir(
                cls.scale,
                (r, T.float32(0.5)),
                R.Tensor((n, 4), "float32"),
            )
            R.output(y)
        return y


# %% cell: run
executable = tvm.compile(Layer, target="llvm")
machine = relax.VirtualMachine(executable, tvm.cpu())
rng = np.random.default_rng(0)
w = rng.standard_normal((8, 4)).astype("float32")
for rows in (1, 3, 100):
    x = rng.standard_normal((rows, 8)).astype("float32")
    y = machine["main"](*as_tensors([x, w])).numpy()
    print(y.shape, np.allclose(y, 0.5 * np.maximum(x @ w, 0), atol=1e-5))

# %% cell: printed
show(Layer["main"])

# %% cell: objects
main = Layer["main"]
print(type(main).__name__, [p.name for p in main.params], main.ret_ty)
(block,) = main.body.blocks
print(type(main.body).__name__, type(block).__name__, main.body.body)
for binding in block.bindings:
    var, call = binding.var, binding.value
    kind = type(binding).__name__, type(var).__name__, type(call).__name__
    print(*kind, var.name, "=", call.op.name.removeprefix("relax."))
print("arguments of the last call:", call.args)

# %% check
assert [type(b.var).__name__ for b in block.bindings] == [
    "DataflowVar",
    "DataflowVar",
    "Var",
]
assert main.is_pure and main.body.body.same_as(block.bindings[-1].var)

# %% cell: tree


def draw(module):
    """Module, functions, blocks, bindings and calls, without the types."""
    labels, edges = {"mod": "IRModule"}, {}

    def box(parent, name, label, edge=""):
        labels[name] = label
        edges[parent, name] = edge
        return name

    for gv, function in module.functions.items():
        name = gv.name_hint
        box("mod", name, f"GlobalVar\n{name}")
        kind = f"{type(function).__module__.split('.')[1]}."
        box(name, f"{name}()", kind + type(function).__name__)
    function = module["main"]
    box("main()", "seq", "SeqExpr", "body")
    for block in function.body.blocks:
        box("seq", "block", type(block).__name__, "blocks")
        for binding in block.bindings:
            var, call = binding.var, binding.value
            lhs = f"VarBinding\n{type(var).__name__} {var.name}"
            box("block", var.name, lhs)
            op = call.op.name.removeprefix("relax.")
            box(var.name, f"call {var.name}", f"Call\n{op}", "value")
            for arg in call.args:
                if isinstance(arg, relax.GlobalVar):
                    edges[f"call {var.name}", arg.name_hint] = "args[0]"
    return labels, edges


labels, edges = draw(Layer)
colors = {"scale": "vermilion", "scale()": "vermilion"}
fig, _ = layered_graph(labels, edges, colors=colors, width=6.4)
alt(
    fig,
    "Tree of objects: an IRModule with two GlobalVars. main leads to a "
    "relax.Function, its SeqExpr, a DataflowBlock, three VarBindings and "
    "their Calls. The Call of call_tir points back to the GlobalVar scale, "
    "whose function is a tirx.PrimFunc.",
)

# %% cell: symbol
n = main.params[0].ty.shape.values[0]
print("n is a", type(n).__module__, type(n).__name__, "of type", n.ty)
result = main.ret_ty.shape.values[0]
print("the same object in the result:", n.same_as(result))
kernel_n = Layer["scale"].params[0].ty.shape[0]
print("the same object in scale:     ", n.same_as(kernel_n))

# %% check
assert n.same_as(result) and not n.same_as(kernel_n)

# %% cell: purity
for gv in Layer.get_global_vars():
    show(f"{gv.name_hint:6} pure: {gv.ty.purity!s:6}{gv.ty}")

# %% cell: impure
with expect_error(
    tvm.error.DiagnosticError, match="well-formed", max_lines=4
):

    @R.function
    def noisy(x: R.Tensor((2,), "float32")):
        with R.dataflow():
            R.print(x, format="{}")
            y = R.add(x, x)
            R.output(y)
        return y


# %% cell: immutable
with expect_error(AttributeError, match="no setter"):
    main.body = main.params[0]
renamed = main.without_attr("global_symbol")
print("new function:", not renamed.same_as(main))
print("same body:   ", renamed.body.same_as(main.body))

# %% check
assert renamed.body.same_as(main.body) and not renamed.same_as(main)

# %% cell: ways-in
builder = relax.BlockBuilder()
rows = tvm.tirx.Var("n", "int64")
px = relax.Var("x", R.Tensor((rows, 8), "float32"))
pw = relax.Var("w", R.Tensor((8, 4), "float32"))
with builder.function("main", [px, pw]):
    with builder.dataflow():
        h = builder.emit(relax.op.matmul(px, pw))
        y = builder.emit_output(relax.op.nn.relu(h))
    builder.emit_func_output(y)
by_builder = builder.finalize()


@I.ir_module
class ByScript:
    @R.function
    def main(
        x: R.Tensor(("n", 8), "float32"), w: R.Tensor((8, 4), "float32")
    ):
        with R.dataflow():
            h = R.matmul(x, w)
            y = R.nn.relu(h)
            R.output(y)
        return y


same = tvm_ffi.structural_equal(by_builder, ByScript, map_free_vars=True)
print("builder = script:", same)


class Dense(nn.Module):
    def __init__(self):
        self.w = nn.Parameter((8, 4), "float32")

    def forward(self, x):
        return nn.op.relu(nn.op.matmul(x, self.w))


spec = {"forward": {"x": nn.spec.Tensor(["n", 8], "float32")}}
exported, parameters = Dense().export_tvm(spec)
show(exported["forward"])

# %% check
assert same and [name for name, _ in parameters] == ["w"]

# %% cell: operators
prefixes = Counter()
for name in map(str, tvm.ir.Op.list_op_names()):
    if name.startswith("relax."):
        head, _, rest = name.removeprefix("relax.").rpartition(".")
        prefixes["relax." + head if head else "relax"] += 1
for prefix, number in prefixes.most_common():
    print(f"{prefix:16} {number}")
glue("operators", sum(prefixes.values()))

# %% cell: lowering
recorder = PassRecorder(keep_scripts=True)
with tvm.transform.PassContext(instruments=[recorder]):
    tvm.compile(Layer, target="llvm")
for wanted in ("LegalizeOps", "CallTIRRewrite", "VMShapeLower"):
    text = next(r.script for r in recorder.rows if r.name == wanted)
    body = text[text.index("def main(") :]
    words = {w.partition("(")[0] for w in body.split() if w[:2] == "R."}
    hidden = ("R.Tensor", "R.Tuple", "R.Callable", "R.Any", "R.Prim")
    hidden += ("R.Shape", "R.dtype", "R.str", "R.func_attr")
    words -= {w for w in words if w.startswith(hidden)}
    show(f"{wanted:15} {' '.join(sorted(words))}")

# %% cell: where
sizes = python_sizes(Path(relax.__file__).parent)
total = sum(room.lines for room in sizes.values())
largest = sorted(sizes.items(), key=lambda item: -item[1].lines)
for name, room in largest[:8]:
    print(f"relax/{name:15} {room.files:4} files {room.lines:7,} lines")
glue("python_lines", total)

# %% cell: solution-listing


def listing(function):
    """One row a binding: name, what computes it, its type."""
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            callee = call.op.name
            if callee == "relax.call_tir":
                callee = f"kernel {call.args[0].name_hint}"
            print(f"{binding.var.name:3} {callee:15} {binding.var.ty}")


listing(Layer["main"])

# %% cell: solution-replace
sch = tvm.s_tir.Schedule(Layer)
sch.work_on("scale")
i, j = sch.get_loops("Y")
sch.vectorize(j)
print("main is untouched:", sch.mod["main"].same_as(Layer["main"]))
faster = relax.VirtualMachine(tvm.compile(sch.mod, "llvm"), tvm.cpu())
x = rng.standard_normal((5, 8)).astype("float32")
print(
    np.array_equal(
        faster["main"](*as_tensors([x, w])).numpy(),
        machine["main"](*as_tensors([x, w])).numpy(),
    )
)

# %% check
assert sch.mod["main"].same_as(Layer["main"])
assert np.allclose(
    faster["main"](*as_tensors([x, w])).numpy(),
    0.5 * np.maximum(x @ w, 0),
    atol=1e-5,
)
