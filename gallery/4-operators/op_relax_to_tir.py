"""
From Relax to TIR
=================

What emit_te makes of its arguments, how create_prim_func turns a graph of
tensor expressions into blocks, and what a kernel promises to its users.
"""

# %% cell: setup
import re

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, te, tirx, topi
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import cut, script, show
from tvm_deepdive_helpers.native import quiet

# %% cell: way
fig, _ = boxes_and_arrows(
    {
        "emit_te": (0, 0),
        "call_te": (0, 1),
        "add": (0, 2),
        "gen": (1, 1),
        "placeholder": (1, 0),
        "yours": (1, 2),
        "create": (2.1, 0),
        "order": (2.1, 1),
        "blocks": (2.1, 2),
        "complete": (2.1, 3),
        "index": (2.1, 4),
    },
    {
        ("emit_te", "call_te"): "",
        ("call_te", "gen"): "1",
        ("call_te", "add"): "2",
        ("gen", "placeholder"): "a",
        ("gen", "yours"): "b",
        ("gen", "create"): "c",
        ("create", "order"): "",
        ("order", "blocks"): "",
        ("blocks", "complete"): "",
        ("complete", "index"): "",
    },
    labels={
        "emit_te": "emit_te",
        "call_te": "call_te",
        "gen": "gen_call_tir_inputs",
        "add": "add_func, call_tir",
        "placeholder": "te.placeholder for\neach tensor argument",
        "yours": "your function",
        "create": 'create_prim_func\n(…, "int64")',
        "order": "CollectOrderedOps",
        "blocks": "RewriteStageToBlock\nfor each operation",
        "complete": "GenerateAndCompletePrimFunc\n"
        "parameters, attributes, regions",
        "index": "IndexDataTypeNormalizer,\nLayoutFreePlaceholdersNormalizer",
    },
    colors={
        "yours": "orange",
        **dict.fromkeys(("order", "blocks", "complete", "index"), "green"),
    },
    title="Who calls whom (green: C++)",
)

# %% cell: emit
n, m = (tirx.Var(name, "int64") for name in "nm")
x = relax.Var("x", relax.TensorType((n, 8), "float32"))
y = relax.Var("y", relax.TensorType((m, 8), "float32"))
s = relax.Var("s", ir.PrimType("float32"))


def squares(a):
    """Sum of the squares of each row: two operations."""
    k = te.reduce_axis((0, a.shape[1]), name="k")
    sq = te.compute(a.shape, lambda i, j: a[i, j] * a[i, j], name="sq")
    return te.compute(
        (a.shape[0],), lambda i: te.sum(sq[i, k], axis=k), name="sq"
    )


def build(*calls):
    """A module whose `main` emits one kernel for each call."""
    builder = relax.BlockBuilder()
    with builder.function("main", [x, y, s]):
        for function, *args in calls:
            last = builder.emit_te(function, *args)
        builder.emit_func_output(last)
    return builder.get()


mod = build((squares, x))
show(mod)

# %% cell: arguments


def shift(a, by):
    return te.compute(a.shape, lambda i, j: a[i, j] + by, name="out")


def shift_length(a, by):
    return shift(a, by.astype("float32"))


def repeat(a, shape):
    columns = shape[1] // a.shape[1]
    return te.compute(shape, lambda i, j: a[i, j // columns], name="out")


ones = relax.const(np.ones((1, 8), "float32"))
CALLS = {
    "number 2.0": (shift, x, 2.0),
    "float32 variable s": (shift, x, s),
    "dimension n of x": (shift_length, x, n),
    "another dimension m": (shift_length, x, m),
    "shape (n, 16)": (repeat, x, relax.ShapeExpr([n, 16])),
    "constant tensor": (topi.add, x, ones),
}


def kernel_and_call(mod):
    """The header of the only kernel, and the call of it."""
    (kernel,) = (f for f in mod.functions.values() if isinstance(f, KERNEL))
    text = script(kernel)
    header = next(t for t in text.splitlines() if t.startswith("def "))
    for long, short in (('"float32"', "f32"), ("T.int64(8)", "8")):
        header = header.replace(long, short)
    calls = []
    relax.analysis.post_order_visit(
        mod["main"],
        lambda e: calls.append(e) if isinstance(e, relax.Call) else None,
    )
    return header, calls[0].args[1], calls[0].ty


KERNEL = tirx.PrimFunc
for name, call in CALLS.items():
    header, args, _ = kernel_and_call(build(call))
    print(f"{name}\n    {header}")

# %% cell: result-type


def twice(a):
    return te.compute((a.shape[0] * 2, 8), lambda i, j: a[i // 2, j], "out")


header, args, ty = kernel_and_call(build((twice, x)))
print(ty)

# %% cell: dedup
mod = build((topi.nn.relu, x), (topi.nn.relu, y), (topi.nn.relu, x))
print([v.name_hint for v in mod.get_global_vars()])
builder = relax.BlockBuilder()
with builder.function("main", [x]):
    builder.emit_te(topi.nn.relu, x)
    last = builder.emit_te(topi.nn.relu, x, primfunc_name_hint="mine")
    builder.emit_func_output(last)
print([v.name_hint for v in builder.get().get_global_vars()])

# %% cell: refused
builder = relax.BlockBuilder()
u = relax.Var("u", relax.TensorType(ndim=2, dtype="float32"))
with builder.function("main", [x, u]):
    with expect_error(AssertionError, match="has ShapeExpr shape"):
        builder.emit_te(topi.nn.relu, u)
    with expect_error(AssertionError, match="only support te.tensor"):
        builder.emit_te(lambda a: 3, x)
    with expect_error(TypeError, match="not supported type"):
        builder.emit_te(shift, x, np.float32(2))
    builder.emit_func_output(x)

# %% cell: order
A, B = (te.placeholder((8, 8), name=name) for name in "AB")
total = te.compute((8, 8), lambda i, j: A[i, j] + B[i, j], name="D")
k = te.reduce_axis((0, 8), name="k")
rows = te.compute((8,), lambda i: te.sum(total[i, k], axis=k), name="D")
for arguments in ([A, B, rows], [rows, B, A], [A, B, total, rows]):
    for line in script(te.create_prim_func(arguments)).splitlines():
        if re.search(r"def |alloc_buffer|with T.sblock\(\"D", line):
            print(line.replace(', "float32"', ""))

# %% cell: not-an-argument
with (
    quiet(),
    expect_error(tvm.error.InternalError, show=False) as error,
):
    te.create_prim_func([A, rows])
message = str(error.exception)
print("InternalError:", re.search(r"but this tensor .*?\.", message)[0])
print("the operation:", re.search(r'PlaceholderOp\(name="\w"', message)[0])

# %% cell: reduction
print(cut(script(te.create_prim_func([A, B, rows])), start=r"    for i, k"))

# %% cell: two-results


def larger(left, right):
    """The pair (index, value) whose value is larger."""
    keep = left[1] >= right[1]
    return (
        tirx.Select(keep, left[0], right[0]),
        tirx.Select(keep, left[1], right[1]),
    )


argmax = te.comm_reducer(
    larger, lambda i, v: (tirx.const(-1, i), tirx.min_value(v)), "argmax"
)
best = te.compute(
    (8,), lambda i: argmax((k.var, A[i, k]), axis=k), name="best"
)
print(cut(script(te.create_prim_func([A, *best])), start=r"    for i, k"))

# %% cell: reduction-refused
with expect_error(tvm.error.InternalError, match="only allowed at the top"):
    te.compute((8,), lambda i: te.sum(A[i, k], axis=k) + 1)

# %% cell: pair
pair = te.compute((8, 8), lambda i, j: (A[i, j] + 1, A[i, j] * 2), name="p")
print(cut(script(te.create_prim_func([A, *pair])), start=r"    for i, j"))

# %% cell: triangle


def below(i):
    k = te.reduce_axis((0, i + 1), name="k")
    return te.sum(A[i, k], axis=k)


triangle = te.compute((8,), below, name="sum")
print(cut(script(te.create_prim_func([A, triangle])), start=r"    for i"))

# %% cell: extern


@tvm.register_global_func("deepdive.double")
def double(a, out):
    out.copyfrom(a.numpy() * 2)


doubled = te.extern(
    (8, 8),
    [A],
    lambda ins, outs: tirx.call_packed("deepdive.double", ins[0], outs[0]),
    name="doubled",
    dtype="float32",
)
plus_one = te.compute((8, 8), lambda i, j: doubled[i, j] + 1, name="plus")
with_extern = te.create_prim_func([A, plus_one])
show(with_extern, keep="sblock|reads|writes", context=0)
a = tvm.runtime.tensor(np.ones((8, 8), "float32"))
out = tvm.runtime.tensor(np.zeros((8, 8), "float32"))
tvm.compile(with_extern, target="llvm")(a, out)
print("result:", out.numpy()[0, 0])
sch = s_tir.Schedule(with_extern)
print("producers of plus:", sch.get_producers(sch.get_sblock("plus")))

# %% check
assert out.numpy().min() == out.numpy().max() == 3

# %% cell: attributes
W = te.placeholder((8, 8), name="W")
product = te.compute(
    (8, 8),
    lambda i, j: te.sum(A[i, k] * W[k, j], axis=k),
    name="C",
    attrs={"layout_free_placeholders": [W]},
)
for name, value in te.create_prim_func([A, W, product]).attrs.items():
    print(f"{name} = {value}")
(kernel,) = (
    f
    for f in build((topi.nn.relu, x)).functions.values()
    if isinstance(f, tirx.PrimFunc)
)
print("from emit_te:", sorted(kernel.attrs.keys()))

# %% cell: index-type
for override in (None, "int64"):
    func = te.create_prim_func([A, B, total], override)
    show(func, keep="def |grid", context=0)

# %% cell: by-hand
n8 = te.placeholder((n, 8), name="x")
generated = te.create_prim_func(
    [n8, te.compute((n, 8), lambda i, j: n8[i, j] * 2, name="y")], "int64"
)


@T.prim_func(s_tir=True)
def main(a: T.handle, b: T.handle):
    T.func_attr({"tirx.noalias": True})
    rows = T.int64()
    left = T.match_buffer(a, (rows, T.int64(8)), "float32")
    right = T.match_buffer(b, (rows, T.int64(8)), "float32")
    for i, j in T.grid(rows, T.int64(8)):
        with T.sblock("any_name"):
            vi, vj = T.axis.remap("SS", [i, j])
            right[vi, vj] = left[vi, vj] * T.float32(2)


print("equal:", tvm_ffi.structural_equal(main, generated))

# %% cell: promises


@T.prim_func(private=True, s_tir=True)
def promised(
    a: T.Buffer((T.int64(8), T.int64(8)), "float32"),
    b: T.Buffer((T.int64(8), T.int64(8)), "float32"),
):
    for i, j in T.grid(T.int64(8), T.int64(8)):
        with T.sblock("b"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(private=True, s_tir=True)
def int32_shape(
    a: T.Buffer((8, 8), "float32"), b: T.Buffer((8, 8), "float32")
):
    for i, j in T.grid(8, 8):
        with T.sblock("b"):
            vi, vj = T.axis.remap("SS", [i, j])
            b[vi, vj] = a[vi, vj] * T.float32(2)


@T.prim_func(private=True)
def without_blocks(
    a: T.Buffer((T.int64(8), T.int64(8)), "float32"),
    b: T.Buffer((T.int64(8), T.int64(8)), "float32"),
):
    for i, j in T.grid(T.int64(8), T.int64(8)):
        b[i, j] = a[i, j] * T.float32(2)


eight = relax.Var("x", relax.TensorType((8, 8), "float32"))


def between(kernel):
    """relu, the kernel, relu."""
    builder = relax.BlockBuilder()
    with builder.function("main", [eight]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(eight))
            name = builder.add_func(kernel, "double")
            y = builder.emit(relax.call_tir(name, (y,), out_ty=eight.ty))
            y = builder.emit_output(relax.op.nn.relu(y))
        builder.emit_func_output(y)
    return builder.finalize()


zero = relax.get_pipeline("zero")
for kernel in (promised, promised.with_attr("op_pattern", 8)):
    fused = zero(between(kernel))
    print(sorted(v.name_hint for v in fused.get_global_vars()))
with expect_error(tvm.error.InternalError, match="Inconsistent buffers"):
    zero(between(int32_shape))
vm = relax.VirtualMachine(
    tvm.compile(between(int32_shape), target="llvm"), tvm.cpu()
)
print("not fused:", vm["main"](a).numpy()[0, 0])
with expect_error(tvm.error.InternalError, match="SBlockRealizeNode"):
    tvm.compile(between(without_blocks), target="llvm")

# %% cell: in-place


@T.prim_func(private=True, s_tir=True)
def increment(a: T.Buffer((T.int64(8), T.int64(8)), "float32")):
    for i, j in T.grid(T.int64(8), T.int64(8)):
        with T.sblock("a"):
            vi, vj = T.axis.remap("SS", [i, j])
            a[vi, vj] = a[vi, vj] + T.float32(1)


builder = relax.BlockBuilder()
with builder.function("main", [eight]):
    with builder.dataflow():
        name = builder.add_func(increment, "increment")
        changed = builder.emit_output(
            relax.op.call_tir_inplace(
                name, (eight,), inplace_indices=0, out_ty=eight.ty
            )
        )
    builder.emit_func_output(changed)
in_place = builder.finalize()
show(in_place["main"], keep="call_tir", context=0)
vm = relax.VirtualMachine(tvm.compile(in_place, target="llvm"), tvm.cpu())
result = vm["main"](a)
print("argument:", a.numpy()[0, 0], " same tensor:", result.same_as(a))

# %% check
assert a.numpy().min() == 2

# %% cell: solution-softmax


def softmax(a):
    k = te.reduce_axis((0, a.shape[1]), name="k")
    top = te.compute(
        (a.shape[0],), lambda i: te.max(a[i, k], axis=k), name="top"
    )
    exp = te.compute(
        a.shape, lambda i, j: tirx.exp(a[i, j] - top[i]), name="exp"
    )
    k = te.reduce_axis((0, a.shape[1]), name="k")
    total = te.compute(
        (a.shape[0],), lambda i: te.sum(exp[i, k], axis=k), name="total"
    )
    return te.compute(
        a.shape, lambda i, j: exp[i, j] / total[i], name="softmax"
    )


mod = build((softmax, x))
show(mod["softmax"], keep="def |alloc_buffer|sblock\\(", context=0)

# %% check
text = mod["softmax"].script()
assert text.count("T.sblock_alloc_buffer") == 3
vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
value = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
empty = np.zeros((1, 8), "float32")
got = vm["main"](
    tvm.runtime.tensor(value), tvm.runtime.tensor(empty), 0.0
).numpy()
want = np.exp(value) / np.exp(value).sum(1, keepdims=True)
assert np.allclose(got, want, atol=1e-5)

# %% cell: solution-parameter
half = relax.Var("h", relax.TensorType((n // 2, 8), "float32"))
builder = relax.BlockBuilder()
shape = relax.Var("shape", relax.ShapeType([n]))
with builder.function("main", [half, shape]):
    builder.emit_func_output(builder.emit_te(topi.nn.relu, half))
header, args, _ = kernel_and_call(builder.get())
print(header)
print("arguments:", args)
