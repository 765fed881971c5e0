"""
Statements of TIR: every node class, loops, scopes and blocks
=============================================================

The statement classes of the installed release with their fields, what the
loop kinds become, how definitions reach, and what a block is made of.
"""

# %%
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.script import tirx as T
from tvm.script.tirx import tile as Tx

from tvm_deepdive_helpers import expect_error, figures, glue, nodes
from tvm_deepdive_helpers.ir import show


def compiled(func):
    return tvm.compile(func, target="llvm")


def statements(obj):
    """Class names of the statements in an object, from outside to inside."""
    names = []
    tvm_ffi.structural_walk(
        obj,
        (tirx.Stmt, lambda s: names.append(type(s).__name__)),
        order="pre",
    )
    return names


# %% cell: examples


@T.prim_func
def source(A: T.Buffer((16,), "float32"), n: T.int32) -> T.int32:
    T.device_entry()
    lane = T.lane_id([32])
    Tx.copy(A[0:8], A[8:16])
    A[lane] = T.float32(0)
    return n


@T.prim_func(s_tir=True)
def blocks(A: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("one"):
            vi = T.axis.spatial(16, i)
            A[vi] = T.float32(1)


A, n = source.params
i, v = tirx.Var("i", "int32"), tirx.Var("v", "float32")
view = tirx.decl_buffer((4, 4), "float32", name="view")
local = tirx.decl_buffer((4,), "float32", name="local", scope="local")
found = []
for func in (source, blocks):
    tvm_ffi.structural_walk(func.body, (tirx.Stmt, found.append))
store = tirx.BufferStore(A, v, [i])
examples = {nodes.node_class(type(s)).key: s for s in found}
for made in (
    store,
    tirx.Bind(v, A[i]),
    tirx.AllocBuffer(local),
    tirx.DeclBuffer(view, data=A.data),
    tirx.SeqStmt([tirx.Bind(v, A[i]), store]),
    tirx.For(i, 0, 16, tirx.ForKind.PARALLEL, store),
    tirx.While(i < n, store),
    tirx.IfThenElse(i < n, store, None),
    # The condition comes first, whatever the signature of 0.27 says.
    tirx.AssertStmt(i < n, ir.StringImm("ValueError"), [ir.StringImm("i")]),
    tirx.AttrStmt(A, "storage_alignment", 64, store),
    tirx.Evaluate(tirx.call_extern("int32", "tick")),
    tirx.Break(),
    tirx.Continue(),
):
    examples[nodes.node_class(type(made)).key] = made


def first_line(stmt):
    """How a statement begins, without the declarations of free variables."""
    free = ("A = ", "n = ", "i = ", "v = ", "view = T.Buf", "lane = T.int")
    lines = [ln for ln in stmt.script().splitlines() if ln[:1] not in "#"]
    lines = [ln for ln in lines if ln and not ln.startswith(free)]
    return lines[0] if lines else stmt.script().splitlines()[-1]


for key, stmt in sorted(examples.items()):
    print(f"{key:22s} {first_line(stmt)[:54]}")

# %% cell: fields
known = nodes.node_classes("tirx.Stmt")
print(nodes.field_table(known, width=76))
glue("classes", len(known))

# %% cell: carried
CARRIED = ["ir.Range", "tirx.IterVar", "s_tir.MatchBufferRegion"]
carried = [nodes.node_class(key) for key in CARRIED]
print(nodes.field_table(carried, width=76))

# %% check
assert set(examples) == {item.key for item in known}
assert all(nodes.node_class(type(s)).key == k for k, s in examples.items())

# %% cell: immutable
with expect_error(AttributeError, match="no setter"):
    store.value = v
with expect_error(TypeError, match="dtype mismatch"):
    tirx.BufferStore(A, tirx.IntImm("int32", 1), [i])
with expect_error(tvm.error.InternalError, match="1-dimensional"):
    tirx.BufferStore(A, v, [i, i])

# %% cell: sequences
a, b = (tirx.Evaluate(tirx.call_extern("int32", f)) for f in "ab")
inner = tirx.SeqStmt([a, b])
print("flattened:  ", len(tirx.SeqStmt([a, inner]).seq), "statements")
print("from a list:", type(tirx.stmt_seq(a)).__name__)
with expect_error(tvm.error.InternalError, match="length 1"):
    tirx.SeqStmt([a])

# %% cell: loops


@T.prim_func
def loops(A: T.Buffer((8, 8), "float32")):
    for i in T.parallel(8):
        for j in T.vectorized(8):
            A[i, j] = T.float32(0)
    for i in T.unroll(2):
        A[i, 0] = T.float32(1)
    for i in T.serial(1, 8, step=3):
        A[i, 7] = T.float32(2)


def kinds(mod):
    names = []
    tvm_ffi.structural_walk(
        mod,
        (tirx.For, lambda f: names.append(tirx.ForKind(f.kind).name)),
        order="pre",
    )
    return names


@tvm.ir.instrument.pass_instrument
class LoopKinds:
    """Prints the kinds of the loops before, and whenever they change."""

    def __init__(self, mod):
        self.last = kinds(mod)
        print(f"{'as written':22s}", *self.last)

    def run_after_pass(self, mod, info):
        if (now := kinds(mod)) != self.last and now:
            print(f"{info.name:22s}", *now)
            self.last = now


module = tvm.IRModule({"loops": loops})
with tvm.transform.PassContext(instruments=[LoopKinds(module)]):
    library = tirx.build(module, target="llvm")
llvm = library.inspect_source("ll")
print("TVMBackendParallelLaunch:", "TVMBackendParallelLaunch" in llvm)
out = tvm.runtime.tensor(np.full((8, 8), 9, "float32"))
library["loops"](out)
print(out.numpy()[:, 7], out.numpy()[:, 0])

# %% cell: loop-refused


@T.prim_func
def any_length(a: T.handle):
    n = T.int32()
    A = T.match_buffer(a, (n,), "float32")
    for i in T.vectorized(n):
        A[i] = T.float32(0)


@T.prim_func
def nested(A: T.Buffer((8, 8), "float32")):
    for i in T.parallel(8):
        for j in T.parallel(8):
            A[i, j] = T.float32(0)


@T.prim_func
def any_count(a: T.handle):
    n = T.int32()
    A = T.match_buffer(a, (n,), "float32")
    for i in T.unroll(n):
        A[i] = T.float32(0)


@T.prim_func
def leave(A: T.Buffer((8,), "float32")):
    for i in T.parallel(8):
        if A[i] > 0:
            break


# The whole message names the target, and that differs between machines.
with expect_error(
    tvm.error.InternalError, match="Failed to vectorize", show=False
) as error:
    compiled(any_length)
message = str(error.exception)
print(message[message.index("Failed") : message.index(" for target")])
with expect_error(tvm.error.InternalError, match="non-constant"):
    compiled(any_count)
with expect_error(tvm.error.InternalError, match="irregular loop"):
    compiled(leave)
with expect_error(tvm.error.InternalError, match="Nested parallel"):
    compiled(nested)

# %% cell: thread


@T.prim_func
def on_threads(A: T.Buffer((8,), "float32")):
    for t in T.thread_binding(8, thread="threadIdx.x"):
        A[t] = T.float32(0)


lowered = s_tir.transform.LowerOpaqueBlock()(tvm.IRModule({"f": on_threads}))
show(lowered["f"])
attr = lowered["f"].body
print(type(attr).__name__, attr.attr_key, attr.node.thread_tag, attr.value)

# %% cell: assignment


@T.prim_func
def assign(A: T.Buffer((8,), "float32")):
    total = A[0]
    total = total + A[1]
    double: T.let[T.float32] = total * T.float32(2)
    A[2] = double


print(*statements(assign.body))
show(assign)

# %% cell: scalar-print


@T.prim_func
def first(S: T.Buffer((1,), "int32")):
    S[0] = 3


show(first)
print(tvm_ffi.structural_equal(first, tvm.script.from_source(first.script())))

# %% cell: memory


@T.prim_func
def memory(A: T.Buffer((8, 8), "float32")):
    flat = T.decl_buffer((64,), "float32", data=A.data)
    row = T.alloc_buffer((8,), "float32", scope="local")
    for i in range(8):
        row[i] = flat[i]
    for i in range(8):
        flat[i + 8] = row[i]


print(*statements(memory.body))
show(memory)

# %% cell: reach
outside = tirx.SeqStmt(
    [
        tirx.For(i, 0, 4, 0, tirx.SeqStmt([tirx.Bind(v, A[0]), store])),
        tirx.BufferStore(A, v, [1]),  # v is not known here any more
    ]
)
with expect_error(tvm.error.InternalError, match="no longer in-scope"):
    tirx.analysis.verify_well_formed(tirx.PrimFunc([A], outside))

# %% cell: asserts


@T.prim_func
def checked(n: T.int32) -> T.int32:
    assert n > 0, "n must be positive"
    assert n < 10, ("ValueError", ["n is ", "too large"])
    return n * n


kernel = compiled(checked)
print(kernel(3))
with expect_error(RuntimeError, match="positive"):
    kernel(0)
with expect_error(ValueError, match="too large"):
    kernel(11)

# %% cell: while


@T.prim_func
def collatz(start: T.int64, steps: T.Buffer((1,), "int32")):
    x: T.int64 = start
    steps[0] = 0
    while x != 1:
        if x % 2 == 0:
            x = x // 2
        else:
            x = 3 * x + 1
        steps[0] = steps[0] + 1
        if steps[0] == 100:
            break


def collatz_steps(start):
    steps = tvm.runtime.tensor(np.zeros(1, "int32"))
    compiled(collatz)(start, steps)
    return int(steps.numpy()[0])


print(fill(" ".join(statements(collatz.body)), 76))
print("from 6:", collatz_steps(6), " from 27:", collatz_steps(27))

# %% cell: no-device


@T.prim_func
def plus_one(start: T.int64) -> T.int64:
    x: T.int64 = start
    x = x + 1
    return x


with expect_error(tvm.error.InternalError, match="device id"):
    compiled(plus_one)

# %% cell: break-node
guarded = tirx.IfThenElse(A[i] > 0, tirx.Break(), None)
body = tirx.For(i, 0, 16, 0, tirx.SeqStmt([guarded, store]))
stop = tirx.PrimFunc([A, v], body).with_attr("global_symbol", "stop")
show(stop)
with expect_error(tvm.error.InternalError, match="tirx.Break"):
    compiled(stop)
reread = tvm.script.from_source(stop.script())
print("read back:", reread.body.body.seq[0].then_case)

# %% cell: block


@T.prim_func(s_tir=True)
def row_max(X: T.Buffer((6, 100), "float32"), Y: T.Buffer((6,), "float32")):
    for i, k0, k1 in T.grid(6, 7, 16):
        with T.sblock("max"):
            vi = T.axis.spatial(6, i)
            vk = T.axis.reduce(100, k0 * 16 + k1)
            T.where(k0 * 16 + k1 < 100)
            T.sblock_attr({"book.note": 1})
            with T.init():
                Y[vi] = T.min_value("float32")
            Y[vi] = T.max(Y[vi], X[vi, vk])


realize = row_max.body.block.body.body.body.body
print("iter_values", realize.iter_values)
print("predicate  ", realize.predicate)
for iv in realize.block.iter_vars:
    print("iter_var   ", iv.var, "in", iv.dom, "iter_type", iv.iter_type)
print("annotations", realize.block.annotations)
glue("walked", 7 * 16)
glue("columns", realize.block.iter_vars[1].dom.extent)
root = row_max.body.block
print("around it  ", type(root).__name__, root.name_hint)

# %% cell: block-figure


def label(obj):
    name = nodes.node_class(type(obj)).key.split(".")[1]
    if isinstance(obj, tirx.IterVar):
        letter = {0: "spatial", 2: "reduction"}[int(obj.iter_type)]
        return f"{name}\n{obj.var} in 0..{obj.dom.extent - 1}\n{letter}"
    if isinstance(obj, ir.Expr):
        return str(obj).replace(" < ", "\n< ")
    if isinstance(obj, tirx.BufferStore):
        value = nodes.node_class(type(obj.value)).key.split(".")[1]
        return f"{name}\n{obj.buffer.name}[vi] = {value}"
    return f"{name}\n{obj.name_hint}" if hasattr(obj, "name_hint") else name


bindings = [*realize.iter_values, realize.predicate]


def keep(obj):
    if isinstance(obj, tirx.Stmt | tirx.IterVar | ir.TensorRegion):
        return True
    return any(obj.same_as(part) for part in bindings)


drawn = nodes.tree(realize, keep=keep, label=label)
fig, ax = figures.layered_graph(
    drawn.labels,
    drawn.edges,
    direction="right",
    colors={
        node: "vermilion" if kind == "tirx.IterVar" else "navy"
        for node, kind in drawn.kinds.items()
    },
)

# %% cell: block-rules
with expect_error(tvm.error.DiagnosticError, match="Loop iterator var"):

    @T.prim_func(s_tir=True)
    def leaks(A: T.Buffer((16,), "float32")):
        for i in range(16):
            with T.sblock("set"):
                _vi = T.axis.spatial(16, i)
                A[i] = T.float32(1)


# %% cell: block-assignment
with expect_error(tvm.error.DiagnosticError, match="buffer twice"):

    @T.prim_func(s_tir=True)
    def mutable(A: T.Buffer((16,), "float32")):
        for i in range(16):
            with T.sblock("set"):
                vi = T.axis.spatial(16, i)
                twice = A[vi] * T.float32(2)
                A[vi] = twice


@T.prim_func(s_tir=True)
def bound(A: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("set"):
            vi = T.axis.spatial(16, i)
            twice: T.let[T.float32] = A[vi] * T.float32(2)
            A[vi] = twice


@T.prim_func(s_tir=True)
def declared(A: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("set"):
            vi = T.axis.spatial(16, i)
            T.reads(A[vi])
            T.writes(A[vi])
            twice = A[vi] * T.float32(2)
            A[vi] = twice


for func in (bound, declared):
    print(*statements(func.body.block.body))

# %% cell: solution-search


@T.prim_func
def find(X: T.Buffer((16,), "float32"), limit: T.float32) -> T.int32:
    where: T.int32 = -1
    for i in range(16):
        if X[i] > limit:
            where = i
            break
    return where


x = np.random.default_rng(1).standard_normal(16).astype("float32")
search = compiled(find)
for limit in (0.5, 9.0):
    expected = int(np.argmax(x > limit)) if (x > limit).any() else -1
    print(search(tvm.runtime.tensor(x), limit), "expected", expected)

# %% cell: solution-by-hand
X = tirx.decl_buffer((16,), "float32", name="X", layout=None)
k = tirx.Var("k", "int32")
t = tirx.Var("t", "float32")
by_hand = tirx.PrimFunc(
    [X],
    tirx.For(
        k,
        0,
        16,
        tirx.ForKind.SERIAL,
        tirx.SeqStmt(
            [tirx.Bind(t, X[k] + 1), tirx.BufferStore(X, t * t, [k])]
        ),
    ),
).with_attr("global_symbol", "square")


@T.prim_func
def square(a: T.handle):
    X = T.match_buffer(a, (16,), "float32", layout=None)
    for k in range(16):
        t: T.let[T.float32] = X[k] + T.float32(1)
        X[k] = t * t


print("equal:", tvm_ffi.structural_equal(by_hand, square))

# %% check
for func in (bound, declared):
    ones = tvm.runtime.tensor(np.ones(16, "float32"))
    compiled(func)(ones)
    assert (ones.numpy() == 2).all()
kinds_of_axes = tirx.IterVar.DataPar, tirx.IterVar.CommReduce
kinds_of_axes += tirx.IterVar.Ordered, tirx.IterVar.Opaque
assert kinds_of_axes == (0, 2, 3, 4)
assert type(reread.body.body.seq[0].then_case) is tirx.Evaluate
no_op, useful = tirx.Evaluate(0), tirx.BufferStore(A, v, [i])
assert len(tirx.SeqStmt([no_op, useful]).seq) == 2
assert len(tirx.SeqStmt([no_op, tirx.SeqStmt([useful, useful])]).seq) == 2
with expect_error(TypeError, match="argument #1", show=False):
    tirx.AssertStmt(ir.StringImm("ValueError"), i < n, [])


@T.prim_func(s_tir=True)
def allocates(A: T.Buffer((8,), "float32"), C: T.Buffer((8,), "float32")):
    B = T.alloc_buffer((8,), "float32")
    for i in range(8):
        with T.sblock("B"):
            vi = T.axis.spatial(8, i)
            B[vi] = A[vi] * T.float32(2)
    for i in range(8):
        with T.sblock("C"):
            vi = T.axis.spatial(8, i)
            C[vi] = B[vi]


sch = s_tir.Schedule(allocates)
with expect_error(s_tir.ScheduleError, match="output block", show=False):
    sch.compute_inline(sch.get_sblock("B"))
assert statements(assign.body).count("AllocBuffer") == 1
assert tvm_ffi.structural_equal(by_hand, square)
assert (out.numpy()[:, 7] == [0, 2, 0, 0, 2, 0, 0, 2]).all()
y = tvm.runtime.tensor(np.zeros(6, "float32"))
data = np.random.default_rng(0).standard_normal((6, 100)).astype("float32")
compiled(row_max)(tvm.runtime.tensor(data), y)
assert np.array_equal(y.numpy(), data.max(1))


def python_collatz(x):
    steps = 0
    while x != 1:
        x = x // 2 if x % 2 == 0 else 3 * x + 1
        steps += 1
        if steps == 100:
            break
    return steps


for start in (1, 6, 27):
    assert collatz_steps(start) == python_collatz(start)
squares = tvm.runtime.tensor(x)
compiled(by_hand)(squares)
assert np.allclose(squares.numpy(), (x + 1) ** 2, atol=1e-5)
