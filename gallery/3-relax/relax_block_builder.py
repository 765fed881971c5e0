"""
The BlockBuilder: module, scopes and blocks
===========================================

What a BlockBuilder keeps while a program is built: the module under
construction, names, scopes with their symbolic variables, and open blocks.
"""

# %%
from textwrap import fill

import numpy as np
import tvm
from tvm import ir, relax, te, tirx, topi
from tvm.relax import _ffi_api, op
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import COLORS, alt, new, tint
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.running_example import as_tensors


def show(thing, **how):
    """Print IR; lines that are too long for the page are broken."""
    for line in cut(script(thing), **how).splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


# %% cell: variables
n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
x = relax.Var("x", relax.TensorType((n, 4), "float32"))
w = relax.Var("w", relax.TensorType((4, 2), "float32"))
u = relax.Var("u", relax.TensorType(ndim=2, dtype="float32"))

# %% cell: build


def build():
    bb = relax.BlockBuilder()
    with bb.function("main", [x, w, u]):
        a = bb.emit(op.exp(x))
        with bb.dataflow():
            h = bb.emit(op.matmul(a, w))
            y = bb.emit_output(op.nn.relu(h))
        v = bb.match_cast(u, R.Tensor((m, 2), "float32"))
        z = bb.emit_te(topi.concatenate, [y, v], 0)
        bb.emit_func_output(z)
    return bb.finalize()


module = build()
show(module["main"])
print(*sorted(gv.name_hint for gv in module.get_global_vars()))

# %% check
vm = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
rng = np.random.default_rng(0)
args = [
    rng.standard_normal(s).astype("float32") for s in ((3, 4), (4, 2), (5, 2))
]
wanted = np.concatenate([np.maximum(np.exp(args[0]) @ args[1], 0), args[2]])
assert np.allclose(vm["main"](*as_tensors(args)).numpy(), wanted, atol=1e-5)

# %% cell: calls
PREFIX = "BlockBuilder"


def spy(action):
    """Calls of the builder's C++ functions, with their results."""
    log, originals = [], {}
    for name, function in list(vars(_ffi_api).items()):
        # BlockBuilderCreate is a constructor and must stay a C++ function.
        if name.startswith(PREFIX) and name != "BlockBuilderCreate":
            originals[name] = function

            def wrapper(*args, _name=name, _call=function):
                result = _call(*args)
                log.append((_name.removeprefix(PREFIX), args[1:], result))
                return result

            setattr(_ffi_api, name, wrapper)
    try:
        action()
    finally:
        for name, function in originals.items():
            setattr(_ffi_api, name, function)
    return log


log = spy(build)
for name, _, result in log:
    named = isinstance(result, ir.Var | ir.GlobalVar)
    print(name, "->", result if named else "") if named else print(name)
glue("calls", len(log))

# %% cell: stacks
fig, ax = new("text", 2.6)
LANES = {"scope_stack_": 0, "block_stack_": 2, "module": 3}
scopes, blocks, added = [], [], []


def bar(begin, end, row, label, color):
    width = end - begin - 0.12
    ax.barh(
        row,
        width,
        left=begin,
        height=0.72,
        align="center",
        color=tint(color, 0.35),
        edgecolor=COLORS[color],
    )
    ax.text(
        begin + width / 2, row, label, ha="center", va="center", fontsize=8
    )


for at, (name, _, result) in enumerate(log):
    if name == "BeginScope":
        scopes.append(at)
    elif name == "EndScope":
        depth = len(scopes) - 1
        label = "n" if depth else "n, then m"
        bar(scopes.pop(), at + 1, depth, label, "green")
    elif name.startswith("Begin"):
        blocks.append((at, name))
    elif name == "EndBlock":
        begin, kind = blocks.pop()
        names = " ".join(b.var.name for b in result.bindings)
        flow = "Dataflow" in kind
        bar(begin, at + 1, 2, names, "vermilion" if flow else "navy")
    elif name == "AddFunction":
        short = result.name_hint[:4] + "…" * (len(result.name_hint) > 4)
        bar(at, at + 1.12, 3, short, "purple")
ax.set_yticks(
    [0, 1, 2, 3], ["scope_stack_", "(inner)", "block_stack_", "module"]
)
ax.set_xticks(
    [i + 0.5 for i in range(len(log))],
    [name for name, _, _ in log],
    rotation=60,
    ha="right",
    fontsize=7.5,
)
ax.set_xlim(0, len(log))
ax.invert_yaxis()
ax.tick_params(length=0)
ax.spines[["left", "bottom"]].set_visible(False)
alt(fig, "Bars over the calls of the builder: scopes, blocks, functions.")

# %% cell: names
bb = relax.BlockBuilder()
hints = ["lv", "lv", "lv", "gv", "lv1", "", ""]
print([bb.get_unique_name(hint) for hint in hints])
with bb.function("f", [x]):
    first = bb.emit(op.exp(x))
    second = bb.emit(op.exp(first), name_hint="exp")
    third = bb.emit(op.exp(second), name_hint="exp")
    bb.emit_func_output(third)
with bb.function("g", [w]):
    fourth = bb.emit(op.exp(w))
    bb.emit_func_output(fourth)
print(first, second, third, "| in the next function:", fourth)

# %% cell: dedup


def unary(operator, shape=(4,), name="f", private=True):
    """A function of one parameter, made by a builder of its own."""
    a = relax.Var("a", relax.TensorType(shape, "float32"))
    bb = relax.BlockBuilder()
    with bb.function(name, [a], private=private):
        bb.emit_func_output(bb.emit(operator(a)))
    return bb.get()[name]


def add_constant(number):
    return lambda a: op.add(a, relax.const(np.full(4, number, "float32")))


bb = relax.BlockBuilder()
rows = tirx.Var("rows", "int64")
for label, function, name in (
    ("exp", unary(op.exp), "first"),
    ("exp again", unary(op.exp), "second"),
    ("exp of (5,)", unary(op.exp, (5,)), "first"),
    ("exp of (n,)", unary(op.exp, (n,)), "third"),
    ("exp of (rows,)", unary(op.exp, (rows,)), "fourth"),
    ("add ones", unary(add_constant(1)), "fifth"),
    ("add twos", unary(add_constant(2)), "sixth"),
    ("public exp", unary(op.exp, name="p", private=False), "p"),
    ("public exp", unary(op.exp, name="q", private=False), "q"),
):
    print(f"{label:15} as {name:7}-> {bb.add_func(function, name).name_hint}")

# %% cell: te-dedup
bb = relax.BlockBuilder()
with bb.function("main", [x]):
    h = x
    for _ in range(3):
        h = bb.emit_te(topi.exp, h)
    h = bb.emit_te(lambda t: te.compute(t.shape, lambda *i: t(*i) * 2), h)
    bb.emit_func_output(h)
print(sorted(gv.name_hint for gv in bb.get().get_global_vars()))

# %% cell: get
bb = relax.BlockBuilder()
bb.add_func(unary(op.exp), "f")
early = bb.get()
gv = bb.add_func(unary(op.abs), "g")
print("before:", len(early.functions), "now:", len(bb.get().functions))
bb.update_func(gv, unary(op.abs, (9,)))
print("type of the name:    ", gv.ty.params[0])
print("type of the function:", bb.get()["g"].params[0].ty)

# %% check
assert gv.ty.params[0] != bb.get()["g"].params[0].ty

# %% cell: finalize
bb = relax.BlockBuilder()
bb.add_func(unary(op.exp, name="wanted", private=False), "other")
print([gv.name_hint for gv in bb.get().get_global_vars()], end=" -> ")
print([gv.name_hint for gv in bb.finalize().get_global_vars()])

bb = relax.BlockBuilder()
bb.add_func(unary(op.exp, name="main", private=False), "main")
bb.add_func(unary(op.abs, name="main", private=False), "main")
print([gv.name_hint for gv in bb.get().get_global_vars()])
with expect_error(tvm.error.InternalError, match="duplicate global symbol"):
    bb.finalize()

# %% cell: current
bb, inner = relax.BlockBuilder(), relax.BlockBuilder()
with bb.function("f", [x]):
    with inner.function("g", [x]):
        print(relax.BlockBuilder.current().same_as(inner), end=" ")
        inner.emit_func_output(x)
    print(relax.BlockBuilder.current().same_as(bb), end=" ")
    bb.emit_func_output(x)
print(relax.BlockBuilder.current())

# %% cell: scope
flag = relax.Var("flag", ir.PrimType("bool"))
branch = relax.If(flag, op.exp(x), op.abs(x))
rows = op.strided_slice(x, axes=[0], begin=[0], end=[n])
bb = relax.BlockBuilder()
print("no scope:      ", bb.normalize(branch).ty)
print("               ", bb.normalize(rows).ty)

branch = relax.If(flag, op.exp(x), op.abs(x))
rows = op.strided_slice(x, axes=[0], begin=[0], end=[n])
bb = relax.BlockBuilder()
with bb.testing_scope(def_vars=[n]):
    print("n in the scope:", bb.normalize(branch).ty)
    print("               ", bb.normalize(rows).ty)
after = op.strided_slice(x, axes=[0], begin=[0], end=[n])
print("scope is over: ", bb.normalize(after).ty)

# %% cell: late-parameters


def built(expression, declare):
    """The same function, with its parameters given early or late."""
    bb = relax.BlockBuilder()
    with bb.function("f", [flag, x] if declare else None):
        out = bb.emit(expression)
        bb.emit_func_output(out, params=None if declare else [flag, x])
    return bb.get()["f"]


for declare in (True, False):
    branch = relax.If(flag, op.exp(x), op.abs(x))
    rows = op.strided_slice(x, axes=[0], begin=[0], end=[n])
    print("parameters first:" if declare else "parameters last:")
    print("   ", built(branch, declare).ret_ty)
    print("   ", built(rows, declare).ret_ty)

# %% cell: escape
bb = relax.BlockBuilder()
with bb.function("f", [u]):
    v = bb.match_cast(u, R.Tensor((m, 2), "float32"))
    out = bb.emit(op.exp(v))
    bb.emit_func_output(out)
print("in the body:", out.ty)
print("returned:   ", bb.get()["f"].ret_ty)
print("lookup of v:", bb.lookup_binding(v))
print("and of out: ", bb.lookup_binding(out))

# %% cell: errors
bb = relax.BlockBuilder()
with expect_error(tvm.error.InternalError, match="no block is being built"):
    bb.emit(op.exp(x))
with expect_error(tvm.error.InternalError, match="inside dataflow block"):
    with bb.function("f", [x]):
        bb.emit_output(op.exp(x))
with expect_error(RuntimeError, match="must be called in"):
    with bb.function("g", [x]):
        bb.emit(op.exp(x))
with expect_error(RuntimeError, match="must have parameter"):
    with bb.function("h"):
        bb.emit_func_output(relax.const(1))
del bb

# %% cell: python-values
bb = relax.BlockBuilder()
with bb.function("f", [x]):
    pair = bb.emit([x, (op.exp(x), n + 1)])
    bb.emit_func_output([pair, x])
show(bb.get()["f"])

# %% cell: solution-layers


def tower(layers):
    """A network of equal layers; returns the module."""
    weight = relax.Var("w", relax.TensorType((4, 4), "float32"))
    bb = relax.BlockBuilder()
    with bb.function("main", [x, weight]):
        with bb.dataflow():
            h = x
            for _ in range(layers):
                h = bb.emit_te(topi.nn.matmul, h, weight)
                h = bb.emit_te(topi.nn.relu, h)
            h = bb.emit_output(h)
        bb.emit_func_output(h)
    return bb.finalize()


for layers in (1, 10):
    made = tower(layers)
    (block,) = made["main"].body.blocks
    print(
        layers,
        "layers:",
        len(block.bindings),
        "bindings,",
        len(made.functions) - 1,
        "kernels",
    )

# %% check
vm = relax.VirtualMachine(tvm.compile(tower(3), "llvm"), tvm.cpu())
a = rng.standard_normal((2, 4)).astype("float32")
b = rng.standard_normal((4, 4)).astype("float32")
expected = a
for _ in range(3):
    expected = np.maximum(expected @ b, 0)
assert np.allclose(
    vm["main"](*as_tensors([a, b])).numpy(), expected, atol=1e-4
)

# %% cell: solution-rename
bb = relax.BlockBuilder()
gv = bb.add_func(unary(op.exp, name="model", private=False), "model")
bb.update_func(gv, bb.get()[gv].with_attr("global_symbol", "model_v2"))
final = bb.finalize()
print([gv.name_hint for gv in final.get_global_vars()])
with expect_error(tvm.error.InternalError, match="no definition"):
    final[gv]

# %% check
assert final["model_v2"].attrs["global_symbol"] == "model_v2"
