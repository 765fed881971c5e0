"""
Dataflow analysis of Relax
==========================

Who defines a value, who uses it, how long it lives, whether a call may have
effects, and which functions call each other.
"""

# %% cell: setup
import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax import analysis
from tvm.relax import transform as tf
from tvm.relax.dpl import is_op, wildcard
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import (
    COLORS,
    alt,
    layered_graph,
    new,
    tint,
)
from tvm_deepdive_helpers.ir import diff
from tvm_deepdive_helpers.running_example import as_tensors

# %% cell: function


@R.function
def main(
    x: R.Tensor((16, 8), "float32"),
    w: R.Tensor((8, 8), "float32"),
    b: R.Tensor((8,), "float32"),
):
    with R.dataflow():
        h = R.matmul(x, w)
        s = R.add(h, b)
        r = R.nn.relu(s)
        t = R.tanh(s)
        u = R.multiply(r, t)
        spare = R.exp(h)
        y = R.add(u, h)
        R.output(y)
    return y


block = main.body.blocks[0]
uses = {
    v.name: [u.name for u in us] for v, us in analysis.udchain(block).items()
}
order = [p.name for p in main.params]
order += [b.var.name for b in block.bindings]
for name in order:
    print(f"{name:6}", *uses[name])

# %% check
assert uses["h"] == ["s", "spare", "y"]
assert uses["spare"] == uses["y"] == []

# %% cell: graph
values = {b.var.name: b.value.op.name for b in block.bindings}
labels = {
    name: f"{name}\n{values[name].rsplit('.')[-1]}"
    if name in values
    else name
    for name in order
}
fig, _ = layered_graph(
    labels,
    [(name, user) for name in order for user in uses[name]],
    colors={"x": "blue", "w": "blue", "b": "blue"}
    | {"spare": "vermilion", "y": "green"},
    title="An arrow leads from a definition to a use",
)
alt(
    fig,
    "Graph. x and w lead to h, h and b to s, s to r and t, these to u,"
    " u and h to y. h also leads to spare, from which no arrow starts.",
)

# %% cell: variables


@R.function
def scoped(x: R.Tensor(("n",), "float32"), u: R.Tensor(dtype="float32")):
    m = T.int64()
    v = R.match_cast(u, R.Tensor((m,), "float32"))

    @R.function
    def inner(q: R.Tensor((4,), "float32")):
        p = R.add(q, x)
        return p

    z = R.exp(v)
    z = R.exp(z)
    return z


def names(variables):
    return " ".join(sorted(v.name for v in variables))


local = scoped.body.blocks[0].bindings[1].value
print("free_vars(inner):    ", names(analysis.free_vars(local)))
print("bound_vars(inner):   ", names(analysis.bound_vars(local)))
print("all_vars(inner):     ", names(analysis.all_vars(local)))
print("free_vars(body):     ", names(analysis.free_vars(scoped.body)))
print("bound_vars(scoped):  ", names(analysis.bound_vars(scoped)))
print("used_vars(scoped):   ", names(analysis.used_vars(scoped)))
print("get_var2val(scoped): ", names(analysis.get_var2val(scoped)))
by_name = analysis.name_to_binding(scoped)
print(
    "name_to_binding:     ",
    {name: len(bound) for name, bound in sorted(by_name.items())},
)

# %% check
assert names(analysis.free_vars(local)) == "x"
assert "v" not in names(analysis.get_var2val(scoped)).split()
assert "p" not in by_name and len(by_name["z"]) == 2

# %% cell: liveness
liveness = tvm.get_global_func(
    "relax.testing.transform.DataflowLivenessAnalysis"
)
ranges = {v.name: tuple(span) for v, span in liveness(block).items()}
for name in order:
    print(f"{name:6}", ranges[name])

# %% check
assert ranges["s"] == (1, 3) and ranges["spare"] == (5, 5)
assert ranges["x"] == (-1, 7) and ranges["y"] == (6, 7)

# %% cell: inplace
opportunities = tvm.get_global_func(
    "relax.testing.transform.DataflowInplaceAnalysis"
)
by_size, exact = opportunities(block, [], tvm.IRModule({"main": main}))
for found in exact:
    binding = block.bindings[found.binding_idx]
    args = [binding.value.args[i].name for i in sorted(found.arg_idxs)]
    print(f"{binding.var.name}: may overwrite {' or '.join(args)}")

# %% check
assert [found.binding_idx for found in exact] == [4, 6]

# %% cell: live-ranges
fig, ax = new("text", 3.4)
end = len(block.bindings)
reusable = {(4, "r"), (4, "t"), (6, "u"), (6, "h")}
for row, name in enumerate(order):
    first, last = ranges[name]
    color = "blue" if first < 0 else "green" if last == end else "navy"
    color = "vermilion" if name == "spare" else color
    ax.broken_barh(
        [(first - 0.4, last - first + 0.8)],
        (row - 0.36, 0.72),
        facecolors=tint(color, 0.3),
        edgecolors=COLORS[color],
        linewidth=0.8,
    )
    for place, var in reusable:
        if var == name:
            ax.plot(place, row, "o", color=COLORS["purple"], markersize=5)
ax.set_yticks(range(len(order)), order)
steps = ["before", *(b.var.name + " =" for b in block.bindings), "after"]
ax.set_xticks(range(-1, end + 1), steps)
ax.set_xlim(-1.5, end + 0.5)
ax.set_ylim(len(order) - 0.4, -0.6)
ax.set_title("A bar reaches from the definition to the last use", loc="left")
alt(
    fig,
    "Chart with a bar for each variable over the bindings. Parameters live"
    " from before the block to its end. s lives from its binding to that of"
    " t. spare lives at its own binding only. y lives on after the block."
    " Dots mark r and t at the binding of u, and u and h at that of y.",
)

# %% cell: blockers


def overwrites(function):
    """Names of the arguments that some call may overwrite."""
    block = next(
        b for b in function.body.blocks if isinstance(b, relax.DataflowBlock)
    )
    _, exact = opportunities(block, [], tvm.IRModule({"main": function}))
    return sorted(
        block.bindings[o.binding_idx].value.args[i].name
        for o in exact
        for i in o.arg_idxs
    )


@R.function
def parameter(x: R.Tensor((8,), "float32")):
    with R.dataflow():
        y = R.nn.relu(x)
        R.output(y)
    return y


@R.function
def view(x: R.Tensor((8,), "float32")):
    with R.dataflow():
        a = R.exp(x)
        same = R.reshape(a, (8,))
        y = R.nn.relu(a)
        z = R.add(y, same)
        R.output(z)
    return z


@R.function
def unlisted(x: R.Tensor((8,), "float32")):
    with R.dataflow():
        a = R.exp(x)
        y = R.tanh(a)
        R.output(y)
    return y


@R.function
def good(x: R.Tensor((8,), "float32")):
    with R.dataflow():
        a = R.exp(x)
        y = R.nn.relu(a)
        R.output(y)
    return y


for function in (parameter, view, unlisted, good):
    name = function.attrs["global_symbol"]
    print(f"{name:10} may overwrite {overwrites(function)}")

# %% check
assert overwrites(good) == ["a"]
assert overwrites(parameter) == overwrites(unlisted) == []
assert "a" not in overwrites(view)

# %% cell: constant
VECTOR = relax.TensorType((2,), "float32")


def doubled(named):
    """A function that computes (2, 3) * (2, 3) + x."""
    x = relax.Var("x", VECTOR)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            c = relax.const(np.array([2, 3], "float32"))
            c = builder.emit(c, "c") if named else c
            y = builder.emit(relax.op.multiply(c, c), "y")
            z = builder.emit_output(relax.op.add(y, x), "z")
        builder.emit_func_output(z)
    return builder.finalize()


def three_runs(mod):
    """Results of three calls with zeros."""
    mod = tf.DataflowUseInplaceCalls()(mod)
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    zeros = tvm.runtime.tensor(np.zeros(2, "float32"))
    return [vm["main"](zeros).numpy().tolist() for _ in range(3)]


inlined = tf.CanonicalizeBindings()(doubled(named=True))
print("operand:  ", *three_runs(doubled(named=False)))
print("bound:    ", *three_runs(doubled(named=True)))
print("canonical:", *three_runs(inlined))

# %% check
right = [[4.0, 9.0]] * 3
assert three_runs(doubled(named=False)) == three_runs(inlined) == right
assert three_runs(doubled(named=True)) != right

# %% cell: kill
lower = tvm.transform.Sequential(
    [
        tf.LegalizeOps(),
        tf.ToNonDataflow(),
        tf.RemovePurityChecking(),
        tf.CallTIRRewrite(),
        tf.LowerAllocTensor(),
    ]
)
before = lower(tvm.IRModule({"main": main}))
after = tf.KillAfterLastUse()(before)


def calls(function):
    """One short line for each binding."""
    for binding in function.body.blocks[0].bindings:
        args = [getattr(a, "name", None) for a in binding.value.args]
        callee = binding.value.op
        callee = getattr(callee, "name", None) or callee.name_hint
        callee = callee.removeprefix("relax.")
        target = binding.var.name
        text = f"{callee}({', '.join(a for a in args if a)})"
        yield text if target.startswith("_") else f"{target} = {text}"


lines = list(calls(after["main"]))
print("\n".join(lines[:18]))
print(f"... {len(lines) - 18} more")

# %% check
kills = [line for line in lines if "kill" in line]
assert not any(p in " ".join(kills) for p in ("(x)", "(w)", "(b)"))

# %% cell: purity
TENSOR = relax.TensorType((4,), "float32")


def built(call, pure, dataflow, **attrs):
    """A function that makes one call and returns its argument."""
    x = relax.Var("x", TENSOR)
    builder = relax.BlockBuilder()
    with builder.function("main", [x], pure=pure, attrs=attrs):
        if dataflow:
            with builder.dataflow():
                builder.emit(call(x))
                out = builder.emit_output(x)
        else:
            builder.emit(call(x))
            out = x
        builder.emit_func_output(out)
    return builder.finalize()


CALLS = {
    "call_packed": lambda x: relax.Call(
        relax.ExternFunc("f"), [x], ty_args=[TENSOR]
    ),
    "call_pure_packed": lambda x: relax.op.call_pure_packed(
        "f", x, ty_args=TENSOR
    ),
    "call_dps_packed": lambda x: relax.op.call_dps_packed(
        "f", x, out_ty=TENSOR
    ),
    "print": lambda x: relax.op.print(x, format="{}"),
}
PLACES = {
    "pure": (True, False, {}),
    "impure": (False, False, {}),
    "dataflow": (False, True, {}),
    "force_pure": (True, False, {"relax.force_pure": True}),
    "force+dataflow": (True, True, {"relax.force_pure": True}),
}
print(f"{'':17}", *(f"{place:15}" for place in PLACES))
accepted = {}
for name, call in CALLS.items():
    cells = []
    for place, (pure, dataflow, attrs) in PLACES.items():
        mod = built(call, pure, dataflow, **attrs)
        ok = accepted[name, place] = analysis.check_well_formed(mod)
        cells.append(f"{'ok' if ok else 'refused':15}")
    print(f"{name:17}", *cells)

# %% check
assert all(accepted["call_pure_packed", place] for place in PLACES)
assert not accepted["call_packed", "force+dataflow"]

# %% cell: types-of-purity


@I.ir_module
class Speaking:
    @R.function(pure=False)
    def say(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        _ = R.print(x, format="{}")
        return x

    @R.function(pure=False)
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return Speaking.say(x)

    @R.function
    def holder(x: R.Tensor((4,), "float32")):
        @R.function(pure=False)
        def unused(y: R.Tensor((4,), "float32")):
            _ = R.print(y, format="{}")
            return y

        return x


print("type of say:", Speaking["say"].ty)
for name in ("say", "main", "holder"):
    impure = analysis.contains_impure_call(Speaking[name])
    print(f"{name:6} pure={Speaking[name].is_pure!s:5} {impure=}")
for op in ("relax.add", "relax.call_tir", "relax.print", "relax.assert_op"):
    print(op, tvm.ir.Op.get(op).get_attr("FPurity"))

# %% check
impure = [analysis.contains_impure_call(Speaking[n]) for n in ("say", "main")]
assert impure == [True, True]
assert not analysis.contains_impure_call(Speaking["holder"])

# %% cell: broken-promise
counted = 0


@tvm.register_global_func("deepdive.count")
def count(x):
    global counted
    counted += 1
    return x


@I.ir_module
class Counting:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.call_pure_packed(
                "deepdive.count", x, ty_args=R.Tensor((4,), "float32")
            )
            b = R.call_pure_packed(
                "deepdive.count", x, ty_args=R.Tensor((4,), "float32")
            )
            c = R.add(a, b)
            d = R.call_pure_packed(
                "deepdive.count", c, ty_args=R.Tensor((4,), "float32")
            )
            R.output(c)
        return c


both = [tf.EliminateCommonSubexpr(), tf.DeadCodeElimination()]
ARG = as_tensors([np.ones(4, "float32")])
runs = {}
for name, passes in {
    "nothing": [],
    "EliminateCommonSubexpr": both[:1],
    "DeadCodeElimination": both[1:],
    "both": both,
}.items():
    mod = tvm.transform.Sequential(passes)(Counting)
    counted = 0
    executable = tvm.compile(mod, "llvm")
    relax.VirtualMachine(executable, tvm.cpu())["main"](*ARG)
    runs[name] = counted
    print(f"{name:23} {counted} calls")

# %% check
assert list(runs.values()) == [3, 2, 2, 1]

# %% cell: purity-removed
lowered = tf.RemovePurityChecking()(tf.ToNonDataflow()(Counting))
print("attrs:", lowered["main"].attrs)
print("impure call:", analysis.contains_impure_call(lowered["main"]))
print("well formed:", analysis.check_well_formed(lowered))
too_early = tf.RemovePurityChecking()(Counting)
with expect_error(ValueError, match="within a dataflow block"):
    analysis.well_formed(too_early)
cse = tf.EliminateCommonSubexpr()
print("still merged:", not tvm_ffi.structural_equal(cse(lowered), lowered))

# %% cell: who-needs-a-block
SQUARE = relax.TensorType((4, 4), "float32")


def network(dataflow):
    """A function with something to do for every pass of the table."""
    x, w = relax.Var("x", SQUARE), relax.Var("w", SQUARE)
    builder = relax.BlockBuilder()

    def body(emit_result):
        one = relax.const(np.ones((4, 4), "float32"))
        two = builder.emit(relax.op.add(one, one))
        product = builder.emit(relax.op.matmul(x, w))
        first = builder.emit(relax.op.nn.relu(product))
        again = builder.emit(relax.op.nn.relu(product))
        total = builder.emit(relax.op.add(first, again))
        flat = builder.emit(relax.op.reshape(total, (16,)))
        back = builder.emit(relax.op.reshape(flat, (4, 4)))
        builder.emit(relax.op.exp(back))
        alias = builder.emit(back)
        shifted = builder.emit(relax.op.add(alias, two))
        return emit_result(relax.op.exp(shifted))

    with builder.function("main", [x, w]):
        if dataflow:
            with builder.dataflow():
                y = body(builder.emit_output)
        else:
            y = body(builder.emit)
        builder.emit_func_output(y)
    return builder.finalize()


def convolution(dataflow):
    x = relax.Var("x", relax.TensorType((1, 3, 8, 8), "float32"))
    w = relax.Var("w", relax.TensorType((4, 3, 3, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w]):
        if dataflow:
            with builder.dataflow():
                y = builder.emit_output(relax.op.nn.conv2d(x, w))
        else:
            y = builder.emit(relax.op.nn.conv2d(x, w))
        builder.emit_func_output(y)
    return builder.finalize()


legal = tvm.transform.Sequential(
    [tf.LegalizeOps(), tf.AnnotateTIROpPattern()]
)
relu = is_op("relax.nn.relu")(wildcard())
PASSES = {
    "FuseOps": (legal, tf.FuseOps()),
    "FuseOpsByPattern": (None, tf.FuseOpsByPattern([("relu", relu)])),
    "DataflowUseInplaceCalls": (None, tf.DataflowUseInplaceCalls()),
    "RewriteDataflowReshape": (legal, tf.RewriteDataflowReshape()),
    "ToMixedPrecision": (None, tf.ToMixedPrecision()),
    "ConvertLayout": (
        None,
        tf.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]}),
    ),
    "TopologicalSort": (None, tf.TopologicalSort("depth-first")),
    "FoldConstant": (legal, tf.FoldConstant()),
    "EliminateCommonSubexpr": (None, tf.EliminateCommonSubexpr()),
    "DeadCodeElimination": (None, tf.DeadCodeElimination()),
    "CanonicalizeBindings": (None, tf.CanonicalizeBindings()),
    "LegalizeOps": (None, tf.LegalizeOps()),
}
works = {}
print(f"{'':24}in a block   outside")
for name, (prepare, run) in PASSES.items():
    make = convolution if name == "ConvertLayout" else network
    answers = []
    for dataflow in (True, False):
        mod = prepare(make(dataflow)) if prepare else make(dataflow)
        changed = not tvm_ffi.structural_equal(run(mod), mod)
        answers.append("changes" if changed else "-")
    works[name] = tuple(answers)
    print(f"{name:24}{answers[0]:11}  {answers[1]}")

# %% check
assert all(inside == "changes" for inside, _ in works.values())
only = [name for name, (_, outside) in works.items() if outside == "-"]
assert only == list(PASSES)[:7], only

# %% cell: sort


@R.function
def two_chains(a: R.Tensor((64,), "float32"), b: R.Tensor((64,), "float32")):
    with R.dataflow():
        a1 = R.exp(a)
        b1 = R.exp(b)
        a2 = R.sum(a1)
        b2 = R.sum(b1)
        y = R.add(a2, b2)
        R.output(y)
    return y


def sequence(function):
    return [b.var.name for b in function.body.blocks[0].bindings]


print("as written:   ", *sequence(two_chains))
sorted_ways = {}
for search in ("depth-first", "breadth-first"):
    for start in ("from-inputs", "from-outputs"):
        mod = tf.TopologicalSort(search, start)(
            tvm.IRModule({"main": two_chains})
        )
        sorted_ways[search, start] = mod["main"]
        print(f"{search}, {start}:", *sequence(mod["main"]))
with expect_error(ValueError, match="traversal order"):
    tf.TopologicalSort("random")

# %% check
assert sequence(sorted_ways["depth-first", "from-inputs"]) == [
    *("a1", "a2", "b1", "b2", "y")
]

# %% cell: calls


@I.ir_module
class Functions:
    @R.function
    def even(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return Functions.odd(x)

    @R.function
    def odd(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return Functions.even(x)

    @R.function
    def loop(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return Functions.loop(x)

    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        y = Functions.even(x)
        z = Functions.loop(y)
        return z


for function in ("even", "odd", "loop", "main"):
    found = analysis.all_global_vars(Functions[function])
    print(f"{function:4} refers to", *(g.name_hint for g in found))
groups = analysis.detect_recursion(Functions)
print("recursive:", sorted(sorted(g.name_hint for g in s) for s in groups))

# %% check
assert len(groups) == 2

# %% cell: dependency-order


def callees_first(mod):
    """Names of the Relax functions, each after those that it refers to."""
    recursive = {
        g.name_hint for s in analysis.detect_recursion(mod) for g in s
    }
    order, seen = [], set()

    def visit(var):
        name = var.name_hint
        if name in seen or not isinstance(mod[var], relax.Function):
            return
        seen.add(name)
        for callee in analysis.all_global_vars(mod[var]):
            visit(callee)
        order.append(name + "*" * (name in recursive))

    for var in sorted(mod.get_global_vars(), key=lambda g: g.name_hint):
        visit(var)
    return order


print(*callees_first(Functions))

# %% check
assert callees_first(Functions)[-1] == "main"

# %% cell: compile-time


@R.function
def model(
    x: R.Tensor((4,), "float32"),
    w: R.Tensor((4,), "float32"),
    b: R.Tensor((4,), "float32"),
):
    R.func_attr({"num_input": 1})
    w2 = R.multiply(w, w)
    c = R.add(w2, b)
    y = R.add(x, c)
    return y


found = analysis.computable_at_compile_time(model)
print("with num_input=1:", names(found))
found = analysis.computable_at_compile_time(model.without_attr("num_input"))
print("without:         ", names(found) or "nothing")

# %% cell: solution-peak


def peak(function):
    """Most bytes that variables of the block hold at one binding."""
    block = function.body.blocks[0]
    spans = liveness(block)
    local = {v: tuple(span) for v, span in spans.items() if span[0] >= 0}

    def size(var):
        return 4 * int(np.prod([int(d) for d in var.ty.shape.values]))

    return max(
        sum(size(v) for v, (i, j) in local.items() if i <= k <= j)
        for k in range(len(block.bindings))
    )


print("as written: ", peak(two_chains), "bytes")
for ways, function in sorted_ways.items():
    print(*ways, peak(function), "bytes")

# %% check
assert peak(two_chains) == 2 * 64 * 4 + 4
assert peak(sorted_ways["depth-first", "from-inputs"]) == 64 * 4 + 2 * 4

# %% cell: solution-unused


def unused(function):
    """Variables of a dataflow block on which no output depends."""
    block = function.body.blocks[0]
    bound = [binding.var for binding in block.bindings]
    users = analysis.udchain(block)
    needed = {v for v in bound if not isinstance(v, relax.DataflowVar)}
    for var in reversed(bound):
        if needed.intersection(users[var]):
            needed.add(var)
    return [var.name for var in bound if var not in needed]


print(unused(main))
diff(main, analysis.remove_all_unused(main), context=0)

# %% check
assert unused(main) == ["spare"]
assert unused(analysis.remove_all_unused(main)) == []
