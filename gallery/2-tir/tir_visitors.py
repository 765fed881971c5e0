"""
Reading and rewriting TIR: visitors and mutators
================================================

The four functions of tvm_ffi that walk IR, a visitor that counts the work of
a kernel, a mutator that unrolls loops, and a pass made of it.
"""

# %%
import traceback
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.ir import diff, show


@T.prim_func
def kernel(
    A: T.Buffer((16, 16), "float32"), B: T.Buffer((16, 16), "float32")
):
    for i in range(16):
        for j in range(4):
            B[i, j] = A[i, j] * T.float32(2) + A[i, j]
        B[i, 5] = T.exp(A[i, 0])


# %% cell: walk
visited = []
tvm_ffi.structural_walk(
    kernel.body,
    [
        (tirx.Stmt, lambda s: visited.append(type(s).__name__)),
        (ir.TensorLoad, lambda e: visited.append(f"<{e}>")),
    ],
    order="pre",
)
print(fill(" ".join(visited), 76))

# %% cell: what-is-visited
everything, literals = [], []
tvm_ffi.structural_walk(kernel, (object, everything.append))
tvm_ffi.structural_walk(kernel, (tirx.IntImm, literals.append))
glue("visited", len(everything))
glue("literals", len(literals))
kinds = {}
for value in everything:
    kinds[type(value).__name__] = kinds.get(type(value).__name__, 0) + 1
ordered = sorted(kinds.items(), key=lambda item: -item[1])
print(fill(", ".join(f"{count} {name}" for name, count in ordered), 76))

# %% cell: matching
hits = []
tvm_ffi.structural_walk(
    kernel.body,
    [
        (tirx.Stmt, lambda s: hits.append("any statement")),
        (tirx.For, lambda s: hits.append("loop")),  # never reached
    ],
)
print(sorted(set(hits)))
with expect_error(TypeError, match="FFI-registered"):
    tvm_ffi.structural_walk(kernel, (tirx.expr.BinaryOpExpr, print))

# %% cell: stop


def skip_inner(loop):
    print("loop", loop.loop_var)
    if loop.loop_var.name == "j":
        return tvm_ffi.structural.WalkResult.SKIP
    return None


def find_call(value):
    return tvm_ffi.VisitInterrupt(value)


stores = []
tvm_ffi.structural_walk(
    kernel.body,
    [(tirx.For, skip_inner), (tirx.BufferStore, stores.append)],
    order="pre",
)
print("stores outside of j:", len(stores))
result = tvm_ffi.structural_walk(kernel.body, (ir.Call, find_call))
print("first call:", result.value)

# %% cell: visitor
FLOAT_OPS = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div)


def count_work(func):
    """Executions of stores and of float operations, by walking loops."""
    loops, work = [], {"stores": 0, "float ops": 0}

    def times():
        return int(np.prod([int(loop.extent) for loop in loops]))

    def on_for(loop, visitor):
        loops.append(loop)
        visitor.default_visit(loop)
        loops.pop()

    def on_store(store, visitor):
        work["stores"] += times()
        visitor.default_visit(store)

    def on_op(op, visitor):
        if str(op.ty).startswith("float"):
            work["float ops"] += times()
        visitor.default_visit(op)

    tvm_ffi.structural_visit(
        func,
        [
            (tirx.For, on_for),
            (tirx.BufferStore, on_store),
            (FLOAT_OPS, on_op),
        ],
    )
    return work


print(count_work(kernel))
module = tvm.IRModule({"kernel": kernel})
print("TVM's own count:", s_tir.analysis.estimate_tir_flops(module))

# %% cell: pruned
seen = []
tvm_ffi.structural_visit(
    kernel,
    [
        (tirx.For, lambda loop, visitor: seen.append(loop.loop_var.name)),
        (tirx.BufferStore, lambda store, visitor: seen.append("store")),
    ],
)
print(seen)

# %% cell: swallowed


def descend(loop, visitor):
    visitor.default_visit(loop)


def descend_and_return(loop, visitor):
    return visitor.default_visit(loop)


def first_exp(call, visitor):
    return tvm_ffi.VisitInterrupt(call)


for on_loop in (descend, descend_and_return):
    found = tvm_ffi.structural_visit(
        kernel, [(tirx.For, on_loop), (ir.Call, first_exp)]
    )
    print(f"{on_loop.__name__:19s}", found and found.value)

# %% cell: map


def double_by_adding(mul):
    if isinstance(mul.b, tirx.FloatImm) and mul.b.value == 2:
        return mul.a + mul.a
    return mul


doubled = tvm_ffi.structural_map(kernel, (tirx.Mul, double_by_adding))
diff(kernel, doubled)
exp_store = kernel.body.body.seq[1]
print(
    "untouched store is shared:", doubled.body.body.seq[1].same_as(exp_store)
)
unchanged = tvm_ffi.structural_map(kernel, (tirx.Mul, lambda mul: mul))
print("nothing changed, same object:", unchanged.same_as(kernel))

# %% cell: forgotten-return
hollow = tvm_ffi.structural_map(kernel, (tirx.Mul, lambda mul: None))
total = hollow.body.body.seq[0].body.value
print("left operand of the sum:", total.a)
with expect_error(ValueError, match="null"):
    show(hollow)

# %% cell: identity
A = kernel.params[0]


def renamed_each_time(var):
    if var.same_as(A):
        return tirx.decl_buffer((16, 16), "float32", name="X")
    return var


broken = tvm_ffi.structural_map(kernel, (ir.Var, renamed_each_time))
with expect_error(tvm.error.InternalError, max_lines=3):
    tirx.analysis.verify_well_formed(broken)

X = tirx.decl_buffer((16, 16), "float32", name="X")
renamed = tvm_ffi.structural_map(
    kernel, (ir.Var, lambda var: X if var.same_as(A) else var)
)
print("one object:", tirx.analysis.verify_well_formed(renamed))

# %% cell: types
H = tirx.decl_buffer((16, 16), "float16", name="A")
halved = tvm_ffi.structural_map(
    kernel, (ir.Var, lambda var: H if var.same_as(A) else var)
)
with expect_error(tvm.error.InternalError, match="asserts result type"):
    tirx.analysis.verify_well_formed(halved)


def reload(load):
    if load.source.same_as(H):
        return tirx.BufferLoad(H, load.indices).astype("float32")
    return load


halved = tvm_ffi.structural_map(halved, (ir.TensorLoad, reload))
print("loads made again:", tirx.analysis.verify_well_formed(halved))
show(halved)

# %% cell: mutator


def substitute(body, var, value):
    """``body`` with ``value`` in the place of every ``var``."""
    return tvm_ffi.structural_map(
        body, (ir.Var, lambda v: value if v.same_as(var) else v)
    )


def unroll(func, limit):
    """Replace serial loops of at most ``limit`` rounds by their bodies."""

    def on_for(loop):
        constant = isinstance(loop.extent, tirx.IntImm) and loop.step is None
        if (
            not constant
            or int(loop.extent) > limit
            or loop.kind != tirx.ForKind.SERIAL
        ):
            return loop
        copies = [
            substitute(loop.body, loop.loop_var, loop.min + n)
            for n in range(int(loop.extent))
        ]
        return tirx.stmt_seq(*copies)

    return tvm_ffi.structural_map(func, (tirx.For, on_for))


show(unroll(kernel, limit=4))

# %% cell: two-definitions


@T.prim_func
def squares(A: T.Buffer((4,), "float32")):
    for i in range(4):
        t: T.let[T.float32] = A[i] + T.float32(1)
        A[i] = t * t


twice_defined = unroll(squares, limit=4)
with expect_error(tvm.error.InternalError, match="multiple"):
    tirx.analysis.verify_well_formed(twice_defined)
to_ssa = tirx.transform.ConvertSSA()
repaired = to_ssa(tvm.IRModule({"squares": twice_defined}))["squares"]
print("repaired:", tirx.analysis.verify_well_formed(repaired))

# %% cell: mutate


def label_depth(func):
    """Annotate every loop with the number of loops around it."""
    depth = 0

    def on_for(loop, mutator):
        nonlocal depth
        depth += 1
        inner = mutator.default_mutate(loop)
        depth -= 1
        return tirx.For(
            inner.loop_var,
            inner.min,
            inner.extent,
            inner.kind,
            inner.body,
            inner.thread_binding,
            {**inner.annotations, "depth": depth},
            inner.step,
            inner.span,
        )

    return tvm_ffi.structural_mutate(func, (tirx.For, on_for))


show(label_depth(kernel), keep="for")

# %% cell: pass


@tirx.transform.prim_func_pass(opt_level=0, name="book.UnrollSmallLoops")
def unroll_small_loops(func, mod, ctx):
    return unroll(func, limit=4)


unrolled = unroll_small_loops(module)
a = np.random.default_rng(0).standard_normal((16, 16)).astype("float32")


def run(mod):
    out = tvm.runtime.tensor(np.zeros((16, 16), "float32"))
    tvm.compile(mod, target="llvm")["kernel"](tvm.runtime.tensor(a), out)
    return out.numpy()


print("same result:", np.array_equal(run(module), run(unrolled)))
print("work:", count_work(kernel), count_work(unrolled["kernel"]))

# %% cell: def-regions
roles = {}


def note(var, region):
    roles.setdefault(var.name, []).append(region.name)


tvm_ffi.structural_walk(
    kernel, with_def_region_kind=(ir.Var, note), order="pre"
)
for name, regions in roles.items():
    print(f"{name}: {regions[0]:12s} then {len(regions) - 1} uses")

# %% cell: gone
for name in ("stmt_functor", "PyStmtExprVisitor", "PyStmtExprMutator"):
    print(f"tvm.tirx.{name}:", hasattr(tirx, name))

# %% cell: cpp-frames


@T.prim_func
def no_device(start: T.int64) -> T.int64:
    x: T.int64 = start
    return x


with expect_error(tvm.error.InternalError, show=False) as caught:
    tvm.compile(no_device, target="llvm")
frames = traceback.extract_tb(caught.exception.__traceback__)
for frame in [f.name for f in frames if "Mutat" in f.name][-3:]:
    print(frame)

# %% cell: solution-free


def free_variables(stmt):
    """Variables that a statement uses without defining them."""
    defined, used = [], []

    def note(var, region):
        known = used if region == tvm_ffi.DefRegionKind.NONE else defined
        known.append(var)

    tvm_ffi.structural_walk(stmt, with_def_region_kind=(ir.Var, note))
    free = []
    for var in used:
        if not any(var.same_as(other) for other in defined + free):
            free.append(var)
    return free


inner = kernel.body.body.seq[0]
print(
    "free in the inner loop:", sorted(v.name for v in free_variables(inner))
)
print("TVM:", sorted(v.name for v in tirx.analysis.undefined_vars(inner, [])))

# %% cell: solution-bytes


def bytes_read(func):
    loops, total = [], 0

    def on_for(loop, visitor):
        loops.append(int(loop.extent))
        visitor.default_visit(loop)
        loops.pop()

    def on_load(load, visitor):
        nonlocal total
        itemsize = tvm_ffi.dtype(str(load.ty)).itemsize
        total += int(np.prod(loops)) * itemsize
        visitor.default_visit(load)

    tvm_ffi.structural_visit(
        func, [(tirx.For, on_for), (ir.TensorLoad, on_load)]
    )
    return total


print(bytes_read(kernel), "bytes, expected", (16 * 4 * 2 + 16) * 4)

# %% check
ones = tvm.runtime.tensor(np.ones(4, "float32"))
tvm.compile(repaired, target="llvm")(ones)
assert (ones.numpy() == 4).all()
modes = []


def on_any_for(loop, mutator, mode):
    modes.append(tvm_ffi.structural.InplaceMode(mode).name)
    return mutator.default_mutate(loop)


tvm_ffi.structural_mutate(kernel, (tirx.For, on_any_for))
assert set(modes) == {"DISALLOW"}
spans = []
tvm_ffi.structural_walk(kernel, (ir.Span, spans.append))
assert spans == [] and kernel.body.span is not None
assert count_work(kernel) == {"stores": 16 * 4 + 16, "float ops": 16 * 4 * 2}
assert np.array_equal(run(module), run(unrolled))
expected = np.zeros((16, 16), "float32")
expected[:, :4] = a[:, :4] * 3
expected[:, 5] = np.exp(a[:, 0])
assert np.allclose(run(unrolled), expected, atol=1e-5)
assert bytes_read(kernel) == (16 * 4 * 2 + 16) * 4
assert {v.name for v in free_variables(inner)} == {"A", "B", "i"}
