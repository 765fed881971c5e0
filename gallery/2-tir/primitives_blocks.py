"""
Primitives that move and inline blocks
======================================

Where a block is computed: under which loop of its consumer or producer, or
inside of it. What each place costs, and which ones are refused.
"""

# %%
import math

import numpy as np
import tvm
from tvm import s_tir
from tvm.s_tir import transform as passes
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import COLORS, alt, new
from tvm_deepdive_helpers.schedules import (
    Workload,
    catalogue_problems,
    changes,
    refused,
    root_text,
    step,
)

# %% cell: workloads


@T.prim_func(s_tir=True)
def stencil(
    X: T.Buffer((34, 34), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    Y = T.sblock_alloc_buffer((34, 34), "float32")
    for i, j in T.grid(34, 34):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * X[vi, vj]
    for i, j in T.grid(32, 32):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = Y[vi, vj] + Y[vi + 1, vj + 1] + Y[vi + 2, vj + 2]


@T.prim_func(s_tir=True)
def layer(
    A: T.Buffer((32, 32), "float32"),
    B: T.Buffer((32, 32), "float32"),
    D: T.Buffer((32, 32), "float32"),
):
    C = T.sblock_alloc_buffer((32, 32), "float32")
    for i, j, k in T.grid(32, 32, 32):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
    for i, j in T.grid(32, 32):
        with T.sblock("D"):
            vi, vj = T.axis.remap("SS", [i, j])
            D[vi, vj] = T.max(C[vi, vj], T.float32(0))


@T.prim_func(s_tir=True)
def fork(
    X: T.Buffer((32,), "float32"),
    P: T.Buffer((32,), "float32"),
    Q: T.Buffer((32,), "float32"),
):
    Y = T.sblock_alloc_buffer((32,), "float32")
    for i in range(32):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi] * T.float32(2)
    for i in range(32):
        with T.sblock("P"):
            vi = T.axis.remap("S", [i])
            P[vi] = Y[vi] + T.float32(1)
    for i in range(32):
        with T.sblock("Q"):
            vi = T.axis.remap("S", [i])
            Q[vi] = Y[vi] - T.float32(1)


def numpy_stencil(x, z):
    y = x * x
    z[:] = y[:32, :32] + y[1:33, 1:33] + y[2:, 2:]


def numpy_fork(x, p, q):
    p[:], q[:] = 2 * x + 1, 2 * x - 1


STENCIL = Workload(stencil, numpy_stencil)
LAYER = Workload(layer, lambda a, b, d: np.maximum(a @ b, 0, out=d))
FORK = Workload(fork, numpy_fork)

# %% cell: compute-at
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
with step(sch, STENCIL):
    sch.compute_at("Y", i)

# %% cell: compute-at-tile
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
i_out, i_in = sch.split(i, factors=[None, 5])
with step(sch, STENCIL):
    sch.compute_at("Y", i_out)

# %% cell: places


def at_root(sch, i, j):
    pass


def at_tile(sch, i, j):
    i_out, i_in = sch.split(i, factors=[None, 8])
    j_out, j_in = sch.split(j, factors=[None, 8])
    sch.reorder(i_out, j_out, i_in, j_in)
    sch.compute_at("Y", j_out)


def at_row(sch, i, j):
    sch.compute_at("Y", i)


def at_element(sch, i, j):
    sch.compute_at("Y", j)


def cost(place):
    """Runs of block Y, and bytes of its buffer once it is allocated."""
    sch = STENCIL.schedule()
    place(sch, *sch.get_loops("Z"))
    assert STENCIL.agrees(sch)
    runs = math.prod(int(sch.get(loop).extent) for loop in sch.get_loops("Y"))
    lowered = tvm.transform.Sequential(
        [
            passes.PlanAndUpdateBufferAllocationLocation(),
            passes.ConvertBlocksToOpaque(),
            passes.CompactBufferAllocation(),
        ]
    )(sch.mod)
    sizes = []

    def note(node):
        if isinstance(node, s_tir.SBlock):
            sizes.extend(
                4 * math.prod(map(int, buffer.shape))
                for buffer in node.alloc_buffers
            )

    walk(lowered["main"].body, note)
    return runs, sizes[0]


def walk(stmt, visit):
    """Visit the statements that this function is made of."""
    visit(stmt)
    for field in ("block", "body"):
        if getattr(stmt, field, None) is not None:
            walk(getattr(stmt, field), visit)
    for part in getattr(stmt, "seq", ()):
        walk(part, visit)


costs = {
    place.__name__: cost(place)
    for place in (at_root, at_tile, at_row, at_element)
}
for name, (runs, size) in costs.items():
    print(f"{name:10} runs of Y: {runs:5}   buffer: {size:5} bytes")

# %% cell: places-figure
fig, ax = new(5.2, 3.0)
for name, (runs, size) in costs.items():
    ax.plot(size, runs, "o", color=COLORS["navy"])
    right = name == "at_root"
    ax.annotate(
        name,
        (size, runs),
        (-8 if right else 8, 3),
        textcoords="offset points",
        ha="right" if right else "left",
    )
ax.set_xscale("log", base=2)
ax.set_yscale("log", base=2)
ax.set_xlabel("bytes of the buffer Y")
ax.set_ylabel("runs of the block Y")
alt(
    fig,
    "Runs of block Y against the size of its buffer for four places: "
    "the smaller the buffer, the more often elements are computed again.",
)

# %% check
assert costs["at_root"] == (34 * 34, 34 * 34 * 4)
assert costs["at_row"] == (32 * 3 * 34, 3 * 34 * 4)
assert costs["at_tile"] == (16 * 10 * 10, 10 * 10 * 4)
assert costs["at_element"] == (32 * 32 * 3 * 3, 3 * 3 * 4)
for name, (runs, size) in costs.items():
    glue(f"{name}_runs", runs)
    glue(f"{name}_bytes", size)

# %% cell: compute-at-refused
sch = STENCIL.schedule()
with refused("compute_at", match="is an output block"):
    sch.compute_at("Z", sch.get_loops("Y")[0])
with refused("compute_at", match="not to be the ancestor"):
    sch.compute_at("Y", sch.get_loops("Y")[0])
sch = FORK.schedule()
with refused("compute_at", match="all the consumer"):
    sch.compute_at("Y", sch.get_loops("P")[0])

# %% cell: reverse-compute-at
sch = LAYER.schedule()
i, j, k = sch.get_loops("C")
i_out, i_in = sch.split(i, factors=[None, 8])
with step(sch, LAYER):
    sch.reverse_compute_at("D", i_out)

# %% cell: reverse-compute-at-refused
sch = STENCIL.schedule()
i, j = sch.get_loops("Y")
with refused("reverse_compute_at", match="match failed", error=ValueError):
    sch.reverse_compute_at("Z", i)
sch = LAYER.schedule()
with refused("reverse_compute_at", match="not to be the ancestor"):
    sch.reverse_compute_at("D", sch.get_loops("D")[0])

# %% cell: reverse-compute-at-reduction
sch = LAYER.schedule()
i, j, k = sch.get_loops("C")
with step(sch, LAYER, context=9):
    sch.reverse_compute_at("D", k)

# %% cell: compute-inline
sch = STENCIL.schedule()
with step(sch, STENCIL):
    sch.compute_inline("Y")

# %% cell: compute-inline-refused
sch = LAYER.schedule()
with refused("compute_inline", match="has init statement"):
    sch.compute_inline("C")
with refused("compute_inline", match="is an output block"):
    sch.compute_inline("D")

# %% cell: reverse-compute-inline


@T.prim_func(s_tir=True)
def transpose_after(
    X: T.Buffer((8, 32), "float32"),
    Z: T.Buffer((32, 8), "float32"),
):
    Y = T.sblock_alloc_buffer((8, 32), "float32")
    for i, j in T.grid(8, 32):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * T.float32(2)
    for i, j in T.grid(32, 8):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = Y[vj, vi] + T.float32(1)


TRANSPOSE = Workload(transpose_after, lambda x, z: np.add(2 * x.T, 1, out=z))
sch = TRANSPOSE.schedule()
with step(sch, TRANSPOSE):
    sch.reverse_compute_inline("Z")

# %% cell: reverse-compute-inline-refused
sch = STENCIL.schedule()
with refused("reverse_compute_inline", match="should be in form of"):
    sch.reverse_compute_inline("Z")
sch = LAYER.schedule()
with refused("reverse_compute_inline", match="a complete block"):
    sch.reverse_compute_inline("D")

# %% cell: second-consumer
sch = s_tir.Schedule(fork)
sch.reverse_compute_inline("P")
print(root_text(sch))
with expect_error(tvm.error.InternalError, match="before its definition"):
    tvm.compile(sch.mod, target="llvm")

# %% check
assert catalogue_problems("blocks") == []

# %% cell: solution-chain


@T.prim_func(s_tir=True)
def three(
    X: T.Buffer((32,), "float32"),
    Z: T.Buffer((32,), "float32"),
):
    W = T.sblock_alloc_buffer((32,), "float32")
    Y = T.sblock_alloc_buffer((32,), "float32")
    for i in range(32):
        with T.sblock("W"):
            vi = T.axis.remap("S", [i])
            W[vi] = X[vi] * T.float32(2)
    for i in range(32):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = W[vi] + T.float32(3)
    for i in range(32):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[vi] * T.float32(4)


THREE = Workload(three, lambda x, z: np.multiply(2 * x + 3, 4, out=z))
sch = THREE.schedule()
(i,) = sch.get_loops("Z")
with expect_error(s_tir.ScheduleError, from_line="Error message:"):
    sch.compute_at("W", i)
sch.compute_at("Y", i)
sch.compute_at("W", i)
print(changes(three, sch))
print("correct:", THREE.agrees(sch))

# %% check
assert THREE.agrees(sch)

# %% cell: solution-columns


def at_columns(sch, i, j):
    sch.reorder(j, i)
    sch.compute_at("Y", j)


print("runs, bytes:", cost(at_columns))

# %% check
assert cost(at_columns) == (32 * 34 * 3, 34 * 3 * 4)
