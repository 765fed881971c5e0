"""
TIR at a glance: a loop nest, a block, and what becomes of it
=============================================================

One matrix product as a Python loop, as a tirx function and as an s_tir
function, and the pass at which the second form of TIR turns into the first.
"""

# %%
import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, figures, glue
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.running_example import (
    BATCH,
    HIDDEN,
    INPUTS,
    arguments,
)

M, K, N = BATCH, INPUTS, HIDDEN  # the running example's first product
x, w = arguments(seed=0)[:2]
glue("x_shape", f"{M} × {K}")
glue("w_shape", f"{K} × {N}")
rng = np.random.default_rng(0)

# %% cell: python-loop


def python_loop(x, w, y):
    for i in range(M):
        for j in range(N):
            y[i, j] = 0.0
            for k in range(K):
                y[i, j] = y[i, j] + x[i, k] * w[k, j]


y_python = np.empty((M, N), "float32")
python_loop(x, w, y_python)
print("equal to x @ w:", np.allclose(y_python, x @ w, atol=1e-4))

# %% cell: tirx-loop


@T.prim_func
def loop(
    X: T.Buffer((M, K), "float32"),
    W: T.Buffer((K, N), "float32"),
    Y: T.Buffer((M, N), "float32"),
):
    for i in range(M):
        for j in range(N):
            Y[i, j] = T.float32(0)
            for k in range(K):
                Y[i, j] = Y[i, j] + X[i, k] * W[k, j]


print(type(loop))
show(loop)

# %% cell: run-loop


def run(func):
    """Compile ``func`` for the CPU, call it on ``x`` and ``w``, return y."""
    kernel = tvm.compile(func, target="llvm")
    y = tvm.runtime.tensor(np.zeros((M, N), "float32"))
    kernel(tvm.runtime.tensor(x), tvm.runtime.tensor(w), y)
    return y.numpy()


print("equal to x @ w:", np.allclose(run(loop), x @ w, atol=1e-4))

# %% cell: no-handle
sch = s_tir.Schedule(loop)
with expect_error(
    s_tir.ScheduleError, match="Cannot find", from_line="Error message"
):
    sch.get_sblock("Y")

# %% cell: block


@T.prim_func(s_tir=True)
def block(
    X: T.Buffer((M, K), "float32"),
    W: T.Buffer((K, N), "float32"),
    Y: T.Buffer((M, N), "float32"),
):
    for i, j, k in T.grid(M, N, K):
        with T.sblock("Y"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] = Y[vi, vj] + X[vi, vk] * W[vk, vj]


show(block)

# %% cell: block-object
sch = s_tir.Schedule(block)
node = sch.get(sch.get_sblock("Y"))
iter_kind = {0: "spatial (data parallel)", 2: "reduction"}
for iv in node.iter_vars:
    kind = iter_kind[int(iv.iter_type)]
    print(f"{iv.var.name}: 0 <= {iv.var.name} < {iv.dom.extent}  {kind}")
print("reads ", [str(region) for region in node.reads])
print("writes", [str(region) for region in node.writes])
print("init  ", str(node.init).splitlines()[-1])
print("body  ", str(node.body).splitlines()[-1])

# %% cell: reorder
i, j, k = sch.get_loops(sch.get_sblock("Y"))
sch.reorder(i, k, j)
show(sch.mod["main"])
print("equal to x @ w:", np.allclose(run(sch.mod), x @ w, atol=1e-4))

# %% cell: refused
sch = s_tir.Schedule(block)
i, j, k = sch.get_loops(sch.get_sblock("Y"))
with expect_error(
    s_tir.ScheduleError, match="data parallel", from_line="Error message"
):
    sch.parallel(k)

# %% cell: wrong-kind


@T.prim_func(s_tir=True)
def lied(
    X: T.Buffer((M, K), "float32"),
    W: T.Buffer((K, N), "float32"),
    Y: T.Buffer((M, N), "float32"),
):
    for i, j, k in T.grid(M, N, K):
        with T.sblock("Y"):
            # The third letter should be R: k is summed over.
            vi, vj, vk = T.axis.remap("SSS", [i, j, k])
            with T.init():
                Y[vi, vj] = T.float32(0)
            Y[vi, vj] = Y[vi, vj] + X[vi, vk] * W[vk, vj]


y_lied = run(lied)
print("equal to x @ w:       ", np.allclose(y_lied, x @ w, atol=1e-4))
last_term = np.outer(x[:, -1], w[-1])
print("equal to the last term:", np.allclose(y_lied, last_term, atol=1e-4))

# %% cell: no-flag
with expect_error(tvm.error.DiagnosticError, match="SBlockRealize"):

    @T.prim_func  # s_tir=True is missing
    def unflagged(X: T.Buffer((M,), "float32"), Y: T.Buffer((M,), "float32")):
        for i in range(M):
            with T.sblock("copy"):
                vi = T.axis.spatial(M, i)
                Y[vi] = X[vi]


# %% cell: statements-per-pass


def count_statements(mod):
    """Number of s_tir and of tirx statements in a module."""
    counts = {"s_tir": 0, "tirx": 0}

    def on_stmt(stmt):
        dialect = type(stmt).__tvm_ffi_type_info__.type_key.split(".")[0]
        counts[dialect] += 1

    tvm_ffi.structural_walk(mod, (tirx.Stmt, on_stmt))
    return counts


@tvm.ir.instrument.pass_instrument
class StatementCounter:
    """Counts the statements of the module after every pass."""

    def __init__(self):
        self.rows = []

    def run_after_pass(self, mod, info):
        self.rows.append((info.name, count_statements(mod)))


counter = StatementCounter()
with tvm.transform.PassContext(instruments=[counter]):
    tirx.build(tvm.IRModule({"main": block}), target="llvm")
rows = counter.rows
last_s_tir = max(n for n, (_, c) in enumerate(rows) if c["s_tir"])
gone_at = rows[last_s_tir + 1][0]
before_packing = [name for name, _ in rows].index("tirx.MakePackedAPI")
glue("gone_at", gone_at)
glue("gone_number", last_s_tir + 2)

seen = None
for name, counts in rows[: before_packing + 1]:
    if counts != seen:
        print(f"{name:24s} s_tir {counts['s_tir']}, tirx {counts['tirx']}")
    seen = counts

# %% cell: figure
shown = rows[:before_packing]
s_counts = [c["s_tir"] for _, c in shown]
t_counts = [c["tirx"] for _, c in shown]
highest = max(sum(c.values()) for _, c in shown)
at = range(1, len(shown) + 1)
fig, ax = figures.new(height=3.2)
ax.bar(at, t_counts, color=figures.COLORS["navy"], label="tirx statements")
ax.bar(
    at,
    s_counts,
    bottom=t_counts,
    color=figures.COLORS["vermilion"],
    hatch="///",
    label="s_tir statements",
)
ax.annotate(
    gone_at,
    xy=(last_s_tir + 2, t_counts[last_s_tir + 1]),
    xytext=(last_s_tir + 3, highest + 1),
    arrowprops={"arrowstyle": "->", "color": figures.INK},
)
ax.set_ylim(0, highest + 2.5)
ax.set_xlabel("number of the pass in the default pipeline")
ax.set_ylabel("statements in the function")
ax.legend(loc="upper left")

# %% cell: without-blocks
lowering = tvm.transform.Sequential(
    [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)
lowered = lowering(tvm.IRModule({"main": block}))["main"]
show(lowered)

# %% cell: pass-order
whole = tvm.IRModule({"main": block})
without_init = s_tir.transform.LowerInitBlock()(whole)
with expect_error(tvm.error.InternalError, match="init"):
    s_tir.transform.ConvertBlocksToOpaque()(whole)
with expect_error(tvm.error.InternalError, match="Non-opaque"):
    s_tir.transform.LowerOpaqueBlock()(without_init)

# %% cell: tour


@T.prim_func
def softmax_rows(x: T.handle, y: T.handle):
    n = T.int64()  # a symbolic size, read from the arguments at run time
    X = T.match_buffer(x, (n, 16), "float32")
    Y = T.match_buffer(y, (n, 16), "float32")
    for i in T.parallel(n):
        row = T.alloc_buffer((16,), "float32", scope="local")
        total: T.float32 = T.float32(0)
        for j in T.unroll(16):
            row[j] = T.exp(X[i, j])
            total = total + row[j]
        for j in T.vectorized(16):
            Y[i, j] = row[j] / total


kernel = tvm.compile(softmax_rows, target="llvm")
for rows_now in (3, 5):
    a = rng.standard_normal((rows_now, 16)).astype("float32")
    out = tvm.runtime.tensor(np.zeros_like(a))
    kernel(tvm.runtime.tensor(a), out)
    expected = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    print(f"n = {rows_now}:", np.allclose(out.numpy(), expected, atol=1e-6))

# %% cell: rooms


def is_stmt(value):
    return isinstance(value, type) and issubclass(value, tirx.Stmt)


# CreatePrimFuncPass makes a pass of a Python function; it is none itself.
functions = set(map(str, tvm_ffi.registry.list_global_func_names()))
functions.remove("tirx.transform.CreatePrimFuncPass")


def registered(prefix):
    return sum(name.startswith(prefix) for name in functions)


# Distinct classes: LetStmt is a second name of Bind.
tirx_stmts = {v for v in vars(tirx).values() if is_stmt(v)} - {tirx.Stmt}
s_tir_stmts = {v for v in vars(s_tir).values() if is_stmt(v)}
table = [
    ("", "tirx", "s_tir"),
    ("statement classes", len(tirx_stmts), len(s_tir_stmts)),
    (
        "passes",
        registered("tirx.transform."),
        registered("s_tir.transform."),
    ),
    (
        "schedule functions",
        registered("tirx.schedule."),
        registered("s_tir.schedule."),
    ),
]
for row in table:
    print("{:20s}{:>8}{:>8}".format(*row))

# %% cell: solution-row-sum


@T.prim_func(s_tir=True)
def row_sum(X: T.Buffer((M, K), "float32"), total: T.Buffer((M,), "float32")):
    for k, i in T.grid(K, M):  # k outside: the block does not mind
        with T.sblock("total"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                total[vi] = T.float32(0)
            total[vi] = total[vi] + X[vi, vk]


out = tvm.runtime.tensor(np.zeros(M, "float32"))
tvm.compile(row_sum, target="llvm")(tvm.runtime.tensor(x), out)
print("equal to x.sum(1):", np.allclose(out.numpy(), x.sum(1), atol=1e-4))
show(lowering(tvm.IRModule({"main": row_sum}))["main"])

# %% cell: solution-lowered
flat = tvm.IRModule({"main": lowered})
with expect_error(
    s_tir.ScheduleError, match="Cannot find", from_line="Error message"
):
    s_tir.Schedule(flat).get_sblock("Y")

# %% check
assert np.allclose(y_python, x @ w, atol=1e-4)
assert np.allclose(run(loop), x @ w, atol=1e-4)
assert np.allclose(run(block), x @ w, atol=1e-4)
assert np.allclose(run(lowered), x @ w, atol=1e-4)
assert gone_at == "s_tir.LowerOpaqueBlock"
assert np.allclose(out.numpy(), x.sum(1), atol=1e-4)
assert len(s_tir_stmts) == 2
