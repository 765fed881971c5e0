"""
What TVM is
===========

The problem of a tensor compiler on one matrix product, the ideas of TVM on
one small function each, and what lived in TVM when.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, te
from tvm.script import tirx as T

from tvm_deepdive_helpers import bench, expect_error, figures, glue
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.running_example import MLP

# %% cell: python-loops
N = 64
rng = np.random.default_rng(0)
a = rng.standard_normal((N, N)).astype("float32")
b = rng.standard_normal((N, N)).astype("float32")


def python_loops(a, b):
    c = [[0.0] * N for _ in range(N)]
    for i in range(N):
        for j in range(N):
            for k in range(N):
                c[i][j] = c[i][j] + a[i][k] * b[k][j]
    return c


# %% cell: same-loops


@T.prim_func(s_tir=True)
def product(
    A: T.Buffer((N, N), "float32"),
    B: T.Buffer((N, N), "float32"),
    C: T.Buffer((N, N), "float32"),
):
    for i, j, k in T.grid(N, N, N):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


plain = tvm.compile(product, target="llvm")
A, B = tvm.runtime.tensor(a), tvm.runtime.tensor(b)
C = tvm.runtime.tensor(np.zeros((N, N), "float32"))
plain(A, B, C)
print("equal to numpy:", np.allclose(C.numpy(), a @ b, atol=1e-4))

# %% cell: schedule
sch = s_tir.Schedule(product)
block = sch.get_sblock("C")
i, j, k = sch.get_loops(block)
sch.reorder(i, k, j)
j_outer, j_inner = sch.split(j, factors=[None, 16])
sch.vectorize(j_inner)
sch.decompose_reduction(block, k)
scheduled = tvm.compile(sch.mod, target="llvm")
D = tvm.runtime.tensor(np.zeros((N, N), "float32"))
scheduled(A, B, D)
print("equal to numpy:", np.allclose(D.numpy(), a @ b, atol=1e-4))

# %% cell: schedule-ir
show(sch.mod["main"])

# %% cell: trace
print(sch.trace)

# %% cell: times, varies
lists = a.tolist(), b.tolist()
times = bench.compare(
    {
        "Python loops": lambda: python_loops(*lists),
        "compiled, no schedule": lambda: plain(A, B, C),
        "compiled, scheduled": lambda: scheduled(A, B, D),
        "numpy": lambda: a @ b,
    },
    rounds=5,
    number={
        "Python loops": 1,
        "compiled, no schedule": 50,
        "compiled, scheduled": 50,
        "numpy": 200,
    },
)
fig, ax = figures.bar_chart(
    {name: t * 1e6 for name, t in times.minima.items()},
    unit="microseconds for one product of two 64 x 64 matrices",
    log=True,
)

for key, slow, fast in (
    ("by-compiling", "Python loops", "compiled, no schedule"),
    ("by-schedule", "compiled, no schedule", "compiled, scheduled"),
    ("numpy-ahead", "compiled, scheduled", "numpy"),
):
    glue(key, times.ratio(slow, fast), varies=True)

# %% check
bench.assert_faster(times, "compiled, no schedule", "Python loops", 20)
bench.assert_faster(times, "compiled, scheduled", "compiled, no schedule", 2)
bench.assert_faster(times, "numpy", "compiled, scheduled", 1.5)
assert np.allclose(python_loops(*lists), a @ b, atol=1e-4)
assert np.allclose(C.numpy(), a @ b, atol=1e-4)
assert np.allclose(D.numpy(), a @ b, atol=1e-4)

# %% cell: add-one-numpy


def add_one(x):
    return x + np.float32(1)


x = np.arange(8, dtype="float32")
print(add_one(x))

# %% cell: add-one-te
X = te.placeholder((8,), "float32", name="X")
Y = te.compute((8,), lambda i: X[i] + T.float32(1), name="Y")
from_te = te.create_prim_func([X, Y])
show(from_te)

# %% cell: add-one-script


@T.prim_func(s_tir=True)
def from_script(X: T.Buffer((8,), "float32"), Y: T.Buffer((8,), "float32")):
    T.func_attr({"tirx.noalias": True})
    for i in range(8):
        with T.sblock("Y"):
            vi = T.axis.spatial(8, i)
            Y[vi] = X[vi] + T.float32(1)


# %% cell: add-one-equal
def unnamed(func):
    return func.without_attr("global_symbol")


print(from_te.attrs["global_symbol"], from_script.attrs["global_symbol"])
print(tvm_ffi.structural_equal(from_te, from_script))
print(tvm_ffi.structural_equal(unnamed(from_te), unnamed(from_script)))

# %% check
assert not tvm_ffi.structural_equal(from_te, from_script)
assert tvm_ffi.structural_equal(unnamed(from_te), unnamed(from_script))

# %% cell: add-one-run
kernel = tvm.compile(from_te, target="llvm")
y = tvm.runtime.empty((8,), "float32")
kernel(tvm.runtime.tensor(x), y)
print(y.numpy())

# %% check
assert np.array_equal(y.numpy(), add_one(x))

# %% cell: two-levels
lowered = relax.transform.LegalizeOps()(MLP)
for var, func in lowered.functions_items():
    print(f"{type(var).__name__} {var.name_hint:10} {type(func).__name__}")
show(lowered["main"])

# %% cell: one-kernel
show(lowered["relu"])

# %% check
kinds = [type(f).__name__ for _, f in lowered.functions_items()]
glue("kernels", kinds.count("PrimFunc"))
assert kinds.count("PrimFunc") == 5 and kinds.count("Function") == 1
assert len(MLP.functions) == 1

# %% cell: pass-type
legalize = relax.transform.LegalizeOps()
print(type(legalize).__name__, legalize.info.name)
after = legalize(MLP)
print(type(MLP).__name__, "->", type(after).__name__)
print(after.same_as(MLP), len(MLP.functions), len(after.functions))

# %% cell: target
cpu = tvm.target.Target("llvm")
board = tvm.target.Target(
    {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]}
)
for target in (cpu, board):
    print(target.kind.name, "for", target.attrs["mtriple"])

# %% cell: two-targets


def adds(target):
    """Instructions in the kernel's assembly that add floats."""
    text = tvm.compile(from_te, target=target).mod.inspect_source("s")
    lines = [line.strip() for line in text.splitlines()]
    return [s for s in lines if s.startswith(("adds", "addp", "fadd"))]


intel = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu"})
for name, target in {"x86-64": intel, "aarch64": board}.items():
    print(name, *adds(target), sep="\n    ")

# %% check
assert all(s.split()[0] == "addps" for s in adds(intel))
assert all(".4s" in s for s in adds(board))

# %% cell: codegens
from tvm.tirx.build import codegen_build

prefix = "target.build."
names = tvm_ffi.registry.list_global_func_names()
print(*sorted(n[len(prefix) :] for n in names if n.startswith(prefix)))
with expect_error(ValueError, match="target.build.vulkan"):
    codegen_build(tvm.IRModule(), tvm.target.Target("vulkan"))

# %% cell: target-string
with expect_error(ValueError, match="no longer supported"):
    tvm.target.Target("llvm -mtriple=aarch64-linux-gnu")

# %% cell: gone
from importlib.util import find_spec

OLD = ["relay", "autotvm", "auto_scheduler", "micro", "nd", "tir"]
for name in OLD:
    print(f"tvm.{name:15}", "there" if find_spec(f"tvm.{name}") else "gone")
print("te.create_schedule:", hasattr(te, "create_schedule"))

# %%
from tvm_deepdive_helpers.recorded import data, read_csv

dates = {
    row["release"]: np.datetime64(row["date"])
    for row in read_csv(data("tvm_releases.csv"))
}
newest = max(dates.values())
releases = list(dates)
stays = {}  # a directory that was removed and came back has two rows
for row in read_csv(data("tvm_rooms.csv")):
    stays.setdefault(row["room"], []).append(row)


def stay(room, which=-1):
    """First and last release with a directory; the newest stay by default."""
    return stays[room][which]


ROWS = [  # each bar: stay, name, colour
    [(stay("nnvm"), "NNVM", "navy"), (stay("src/relax"), "Relax", "navy")],
    [(stay("src/relay"), "Relay", "navy")],
    [
        (stay("src/lang"), "first loop IR", "vermilion"),
        (stay("src/tir"), "TIR", "vermilion"),
        (stay("src/tirx"), "", "vermilion"),
    ],
    [
        (stay("src/schedule"), "schedules", "green"),
        (stay("src/te/schedule"), "schedules of TE", "green"),
    ],
    [(stay("src/autotvm"), "AutoTVM", "green")],
    [(stay("src/auto_scheduler"), "auto_scheduler", "green")],
    [
        (stay("src/meta_schedule"), "MetaSchedule", "green"),
        (stay("src/s_tir"), "", "green"),
    ],
    [
        (stay("src/runtime/graph"), "graph runtime", "purple"),
        (stay("src/runtime/graph_executor"), "graph executor", "purple"),
    ],
    [(stay("src/runtime/vm", 0), "Relay VM", "purple")],
    [
        (stay("src/runtime/relax_vm"), "Relax VM", "purple"),
        (stay("src/runtime/vm"), "", "purple"),
    ],
    [(stay("vta"), "VTA", "brown")],
    [(stay("python/tvm/micro"), "microTVM", "brown")],
]


def until(last):
    """Date of the first release without it, or of the newest one."""
    place = releases.index(last) + 1
    return dates[releases[min(place, len(releases) - 1)]]


# %% cell: timeline
fig, ax = figures.new(height=4.5)
for number, row in enumerate(ROWS):
    for room, name, color in row:
        begin, end = dates[room["first"]], until(room["last"])
        ax.barh(
            number,
            end - begin,
            left=begin,
            height=0.74,
            color=figures.tint(color, 0.3),
            edgecolor=figures.COLORS[color],
            linewidth=0.8,
        )
        ax.text(begin, number, f" {name}", va="center", fontsize=8.5)
for number, name in ((2, "tirx"), (6, "s_tir")):
    ax.text(newest, number, f" {name}", va="center", fontsize=8.5)
kinds = {
    "whole models": "navy",
    "loops": "vermilion",
    "schedules and tuning": "green",
    "execution": "purple",
    "devices": "brown",
}
handles = [
    plt.Rectangle((0, 0), 1, 1, fc=figures.tint(c, 0.3), ec=figures.COLORS[c])
    for c in kinds.values()
]
fig.legend(handles, kinds, ncols=3, loc="outside lower center")
ax.set_yticks([])
ax.invert_yaxis()
ax.spines["left"].set_visible(False)
fig

# %% check
glue("nnvm-until", stay("nnvm")["last"])
glue("relay-until", stay("src/relay")["last"])
glue("relax-since", stay("src/relax")["first"])
glue("micro-until", stay("python/tvm/micro")["last"])
glue("tirx-since", stay("src/tirx")["first"])
glue("vm-again", stay("src/runtime/vm")["first"])
assert stay("src/relax")["last"] == releases[-1]
relay_end = {
    stay(room)["last"]
    for room in (
        "src/relay",
        "src/runtime/graph_executor",
        "src/autotvm",
        "src/auto_scheduler",
        "src/te/schedule",
    )
}
assert len(relay_end) == 1
assert stay("src/runtime/vm", 0)["last"] in relay_end
assert stay("vta")["last"] == stay("python/tvm/micro")["last"]
assert stay("src/tirx")["first"] == stay("src/s_tir")["first"]
assert not any(find_spec(f"tvm.{name}") for name in OLD)

# %% cell: solution-vectorize
wrong = s_tir.Schedule(product)
_, _, k = wrong.get_loops(wrong.get_sblock("C"))
with expect_error(s_tir.ScheduleError, from_line="Error message:"):
    wrong.vectorize(k)

# %% check
assert tvm_ffi.structural_equal(wrong.mod["main"], product)
assert len(wrong.trace.insts) == 2  # get_sblock and get_loops

# %% cell: solution-bits
print("bit for bit:", np.array_equal(C.numpy(), D.numpy()))
print("numpy too:  ", np.array_equal(C.numpy(), a @ b))

# %% check
assert np.array_equal(C.numpy(), D.numpy())
assert not np.array_equal(C.numpy(), a @ b)

# %% cell: solution-alias
shared = tvm.IRModule(dict(MLP.functions_items()))
print("same object before:", shared["main"].same_as(MLP["main"]))
legal = relax.transform.LegalizeOps()(shared)
print("same object after: ", legal["main"].same_as(MLP["main"]))
print("original intact:   ", "R.matmul" in MLP["main"].script())

# %% check
assert shared["main"].same_as(MLP["main"])
assert not legal["main"].same_as(MLP["main"])
assert "R.matmul" in MLP["main"].script()
assert "R.matmul" not in legal["main"].script()
