"""
Practice: performance tuning
============================

The reference solution of the project: a schedule for a dense layer,
``relu(x @ w.T + b)``, that keeps up with numpy on one thread.
"""

# gallery: timeout=240

# %% cell: setup
import re
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import s_tir
from tvm.script import tirx as T
from tvm.target import codegen

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import (
    cpu_timer,
    numpy_process,
    print_machine,
    race,
)
from tvm_deepdive_helpers.figures import alt, bar_chart
from tvm_deepdive_helpers.schedules import root_text


# %% cell: workload
def dense(m, n, k):
    """Y = relu(X @ W.T + b): the program that stays right."""

    @T.prim_func(s_tir=True)
    def main(
        X: T.Buffer((m, k), "float32"),
        W: T.Buffer((n, k), "float32"),
        b: T.Buffer((n,), "float32"),
        Y: T.Buffer((m, n), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.sblock_alloc_buffer((m, n), "float32")
        for i, j, r in T.grid(m, n, k):
            with T.sblock("matmul"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                with T.init():
                    acc[vi, vj] = T.float32(0)
                acc[vi, vj] = acc[vi, vj] + X[vi, vr] * W[vj, vr]
        for i, j in T.grid(m, n):
            with T.sblock("relu"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = T.max(acc[vi, vj] + b[vj], T.float32(0))

    return main


# %% cell: shape
@dataclass(frozen=True)
class Shape:
    """The piece of the result that is kept in registers."""

    rows: int
    lanes: int  # float32 values in a vector register
    vectors: int = 2

    @property
    def columns(self):
        return self.lanes * self.vectors


def shape_for(lanes, registers):
    """As many rows as fit: sums, a row of W, and one element of X."""
    shape = Shape(1, lanes)
    while 2 * shape.rows * shape.vectors + shape.vectors + 1 <= registers:
        shape = Shape(2 * shape.rows, lanes)
    return shape


# %% cell: steps
def tile(sch, shape):
    i, j, r = sch.get_loops("matmul")
    i_out, i_in = sch.split(i, [None, shape.rows])
    j_out, j_in = sch.split(j, [None, shape.columns])
    sch.reorder(j_out, i_out, r, i_in, j_in)


def in_registers(sch, shape, block):
    """Vectors for the two inner loops of a block."""
    row, column = sch.get_loops(block)[-2:]
    vector, lane = sch.split(column, [None, shape.lanes])
    sch.vectorize(lane)
    sch.unroll(row)
    sch.unroll(vector)


def vectorize(sch, shape):
    in_registers(sch, shape, "matmul")


def fuse(sch, shape):
    sch.reverse_compute_at("relu", sch.get_loops("matmul")[1])
    in_registers(sch, shape, "relu")


def pack(sch, shape):
    width = shape.columns
    panels = sch.cache_read("matmul", "W", "global")
    sch.transform_layout(
        "matmul", "W_global", lambda j, r: (j // width, r, j % width)
    )
    j, r = sch.get_loops(panels)
    panel, j_in = sch.split(j, [None, width])
    r_out, r_in = sch.split(r, [None, 16])
    sch.reorder(panel, r_out, j_in, r_in)


def split_init(sch, shape):
    sch.decompose_reduction("matmul", sch.get_loops("matmul")[2])


STEPS = (tile, vectorize, fuse, pack, split_init)


def schedule(sch, lanes, registers, steps=STEPS):
    shape = shape_for(lanes, registers)
    for step in steps:
        step(sch, shape)
    return sch


# %%
# The solution ends here; what follows shows and measures it.

# %%
M, N, K = 256, 512, 512
HOST = tvm.target.Target(
    {"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()}
)
REGISTERS = {
    "avx512f": (16, 32),
    "avx2": (8, 16),
    "neon": (4, 32),
    "sse2": (4, 16),
}
has = [f for f in REGISTERS if codegen.target_has_features(f, HOST)]
LANES, COUNT = REGISTERS[has[0]]

# %% cell: machine-facts, varies
print_machine()
print(f"{shape_for(LANES, COUNT)}, for {COUNT} registers of {LANES} lanes")

# %% cell: shapes
for lanes, registers in sorted(set(REGISTERS.values())):
    print(
        f"{registers} registers of {lanes:2} lanes: "
        f"{shape_for(lanes, registers)}"
    )

# %% cell: listing
listed = schedule(s_tir.Schedule(dense(M, N, K)), 8, 16)
print(root_text(listed))


# %% cell: compact
compact = tvm.transform.Sequential(
    [
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
    ]
)
for name, steps in (("all steps", STEPS), ("without fuse", STEPS[:2])):
    mod = schedule(s_tir.Schedule(dense(M, N, K)), 8, 16, steps).mod
    lines = compact(mod).script().splitlines()
    (line,) = [ln.strip() for ln in lines if re.match(r" *acc = ", ln)]
    print(f"{name:13s} {line}")


# %% cell: measure
class Kernel:
    """A compiled layer with its operands."""

    def __init__(self, mod):
        self.func = tvm.compile(mod, target=HOST)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((M, K), dtype="float32")
        w = rng.standard_normal((N, K), dtype="float32")
        b = rng.standard_normal(N, dtype="float32")
        self.want = np.maximum(x @ w.T + b, 0)
        operands = (x, w, b, np.zeros_like(self.want))
        self.args = [tvm.runtime.tensor(a) for a in operands]
        self.seconds = cpu_timer(lambda: self.func(*self.args))

    def correct(self):
        got = self.args[-1].numpy()
        return np.allclose(got, self.want, rtol=1e-3, atol=1e-3)


def numpy_layer():
    setup = (
        "r = np.random.default_rng(0)\n"
        f"x, w = r.random(({M}, {K}), 'f4'), r.random(({N}, {K}), 'f4')\n"
        f"b = r.random({N}, 'f4')"
    )
    return numpy_process(setup, "np.maximum(x @ w.T + b, 0)")


def timed(mods, rounds=15):
    """Least processor times of kernels and of numpy, taken in turn."""
    kernels = {name: Kernel(mod) for name, mod in mods.items()}
    timers = {name: kernel.seconds for name, kernel in kernels.items()}
    slow = {"naive", "tile"}
    counts = {n: 3 if n in slow else rounds for n in [*timers, "numpy"]}
    with numpy_layer() as timers["numpy"]:
        minima = race(timers, rounds=counts).minima
    assert all(kernel.correct() for kernel in kernels.values())
    return minima


# %% cell: steps-race, varies
mods = {"naive": s_tir.Schedule(dense(M, N, K)).mod}
for number, step in enumerate(STEPS, 1):
    sch = s_tir.Schedule(dense(M, N, K))
    mods[step.__name__] = schedule(sch, LANES, COUNT, STEPS[:number]).mod
times = timed(mods)
print("step         us    over naive  over numpy")
for name, seconds in times.items():
    print(
        f"{name:11s} {seconds * 1e6:7.0f}  {times['naive'] / seconds:9.1f}"
        f"  {times['numpy'] / seconds:10.2f}"
    )

# %% check
final = times["split_init"]
glue("over_naive", times["naive"] / final, varies=True)
glue("over_numpy", times["numpy"] / final, varies=True)
glue("gflops", 2 * M * N * K / final / 1e9, varies=True)
assert times["naive"] > 10 * final, times
assert times["numpy"] > 0.8 * final, times

# %% cell: steps-figure, varies
fig, ax = bar_chart(
    {name: 2 * M * N * K / s / 1e9 for name, s in times.items()},
    unit="GFLOP/s on one thread",
    form=".1f",
    color=dict.fromkeys(times, "navy") | {"numpy": "vermilion"},
)
alt(fig, "Bars: the speed after each step, and that of numpy.")

# %% cell: refused
sch = s_tir.Schedule(dense(M, N, K))
with expect_error(s_tir.ScheduleError, keep="parallel|reduction|violates"):
    sch.parallel(sch.get_loops("matmul")[2])


# %% cell: solution-without, varies
def without(*left_out):
    sch = s_tir.Schedule(dense(M, N, K))
    steps = [step for step in STEPS if step not in left_out]
    return schedule(sch, LANES, COUNT, steps).mod


ablated = timed(
    {
        "nothing": mods["split_init"],
        "pack": without(pack),
        "fuse": without(fuse),
        "split_init": without(split_init),
        "fuse, split_init": without(fuse, split_init),
    }
)
for name, seconds in ablated.items():
    if name != "numpy":
        ratio = seconds / ablated["nothing"]
        print(f"without {name:16s} {ratio:5.2f} times as long")

# %% check
assert ablated["pack"] > 1.1 * ablated["nothing"], ablated
assert ablated["fuse, split_init"] > 1.3 * ablated["nothing"], ablated
glue("both", ablated["fuse, split_init"] / ablated["nothing"], varies=True)


# %% cell: solution-ahead
def packed(m, n, k, width):
    """The same layer for weights that somebody has packed."""

    @T.prim_func(s_tir=True)
    def main(
        X: T.Buffer((m, k), "float32"),
        W: T.Buffer((n // width, k, width), "float32"),
        b: T.Buffer((n,), "float32"),
        Y: T.Buffer((m, n), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.sblock_alloc_buffer((m, n), "float32")
        for i, j, r in T.grid(m, n, k):
            with T.sblock("matmul"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                with T.init():
                    acc[vi, vj] = T.float32(0)
                acc[vi, vj] = (
                    acc[vi, vj] + X[vi, vr] * W[vj // width, vr, vj % width]
                )
        for i, j in T.grid(m, n):
            with T.sblock("relu"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = T.max(acc[vi, vj] + b[vj], T.float32(0))

    return main


width = shape_for(LANES, COUNT).columns
steps = tile, vectorize, fuse, split_init
sch = s_tir.Schedule(packed(M, N, K, width))
func = tvm.compile(schedule(sch, LANES, COUNT, steps).mod, target=HOST)
whole = Kernel(mods["split_init"])
x, w, b, y = (arg.numpy() for arg in whole.args)
panels = w.reshape(N // width, width, K).transpose(0, 2, 1)
args = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in (x, panels, b)]
out = tvm.runtime.tensor(np.zeros_like(y))
timers = {
    "packed in the call": whole.seconds,
    "packed ahead": cpu_timer(lambda: func(*args, out)),
}
ahead = race(timers, rounds=15).minima
print("same result:", np.allclose(out.numpy(), whole.want, atol=1e-3))

# %% check
share = 1 - ahead["packed ahead"] / ahead["packed in the call"]
glue("packing_share", 100 * share, varies=True)
assert np.allclose(out.numpy(), whole.want, rtol=1e-3, atol=1e-3)
assert share > -0.15, ahead
