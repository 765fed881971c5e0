"""
Primitives that transform loops
===============================

Every loop primitive of ``s_tir.Schedule``: what it changes, what it refuses,
and whether the result is still right.
"""

# %%
import re
import textwrap

import numpy as np
import tvm
from tvm import s_tir
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.schedules import (
    FAMILIES,
    Workload,
    catalogue_problems,
    changes,
    public_methods,
    refused,
    root_text,
    step,
)

# %% cell: catalogue
for family, methods in FAMILIES.items():
    text = f"{family + ':':11}" + ", ".join(methods)
    print(textwrap.fill(text, 78, subsequent_indent=" " * 11))
print("methods and properties of the class:", len(public_methods()))
print("differences between class and list:", catalogue_problems())

# %% check
# A method that TVM adds or removes makes this list non-empty.
assert catalogue_problems() == []
TOOLS = len(FAMILIES["state"]) + len(FAMILIES["lookup"])
glue("methods", len(public_methods()))
glue("primitives", len(public_methods()) - TOOLS)

# %% cell: workloads


@T.prim_func(s_tir=True)
def product(
    A: T.Buffer((32, 32), "float32"),
    B: T.Buffer((32, 32), "float32"),
    C: T.Buffer((32, 32), "float32"),
):
    for i, j, k in T.grid(32, 32, 32):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


@T.prim_func(s_tir=True)
def chain(
    X: T.Buffer((32, 32), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    Y = T.sblock_alloc_buffer((32, 32), "float32")
    for i, j in T.grid(32, 32):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * T.float32(2)
    for i, j in T.grid(32, 32):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = Y[vi, vj] + T.float32(1)


@T.prim_func(s_tir=True)
def triangle(
    X: T.Buffer((32, 32), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    for i in range(32):
        for j in range(i + 1):
            with T.sblock("Z"):
                vi, vj = T.axis.remap("SS", [i, j])
                Z[vi, vj] = X[vi, vj] * T.float32(2)


def numpy_triangle(x, z):
    lower = np.tril_indices(32)
    z[lower] = 2 * x[lower]


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))
CHAIN = Workload(chain, lambda x, z: np.add(2 * x, 1, out=z))
TRIANGLE = Workload(triangle, numpy_triangle)

# %% check
assert TRIANGLE.agrees(triangle)

# %% cell: split
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with step(sch, PRODUCT):
    i_out, i_in = sch.split(i, factors=[None, 8])

# %% cell: split-predicate
with step(sch, PRODUCT):
    sch.split(j, factors=[None, 5])

# %% cell: split-dynamic


@T.prim_func(s_tir=True)
def any_length(x: T.handle, z: T.handle):
    n = T.int64()
    X = T.match_buffer(x, (n,), "float32")
    Z = T.match_buffer(z, (n,), "float32")
    for i in range(n):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = X[vi] + T.float32(1)


for vouched in (False, True):
    dynamic = s_tir.Schedule(any_length)
    (loop,) = dynamic.get_loops("Z")
    rest, lane = dynamic.split(
        loop, factors=[None, 8], disable_predication=vouched
    )
    dynamic.vectorize(lane)
    stages = {stage.name: stage for stage in tir_stages(dynamic.mod)}
    vectors = "T.Ramp" in stages["tirx.VectorizeLoop"].after.script()
    print(
        f"disable_predication={vouched!s:6}",
        "predicate:",
        "T.where" in root_text(dynamic),
        "| vectors:",
        vectors,
    )
print("outer extent:", dynamic.get(rest).extent)

# %% cell: split-refused
with refused("split", match="product of factors"):
    sch.split(k, factors=[4, 4])
with refused("split", match="Only one factor"):
    sch.split(k, factors=[None, None])
sch.annotate(k, "note", 1)
with refused("split", match="has annotation"):
    sch.split(k, factors=[4, 8])

# %% cell: split-kind
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.parallel(i)
before = sch.mod
i_out, i_in = sch.split(i, factors=[4, 8])
print(changes(before, sch))

# %% check
assert "parallel" in before.script() and "parallel" not in sch.mod.script()

# %% cell: fuse
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with step(sch, PRODUCT):
    fused = sch.fuse(i, j)

# %% cell: fuse-refused
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with refused("fuse", match="is not the parent"):
    sch.fuse(j, i)
slope = TRIANGLE.schedule()
with refused("fuse", match="is dependent on another loop"):
    slope.fuse(*slope.get_loops("Z"))

# %% cell: reorder
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with step(sch, PRODUCT):
    sch.reorder(k, i)

# %% cell: reorder-refused
sch = CHAIN.schedule()
with refused("reorder", match="not in a chain"):
    sch.reorder(sch.get_loops("Y")[0], sch.get_loops("Z")[1])
with refused("reorder", match="affine binding"):
    slope.reorder(*reversed(slope.get_loops("Z")))
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.decompose_reduction("C", j)
with refused("reorder", match="non-single-branch"):
    sch.reorder(j, i)

# %% cell: reorder-block-iter-var
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    sch.reorder_block_iter_var(sch.get_sblock("C"), new_order=[2, 0, 1])
with refused("reorder_block_iter_var", match="not a valid permutation"):
    sch.reorder_block_iter_var(sch.get_sblock("C"), new_order=[0, 0, 1])

# %% cell: add-unit-loop
sch = CHAIN.schedule()
with step(sch, CHAIN, context=0):
    sch.add_unit_loop(sch.get_loops("Y")[0])
    sch.add_unit_loop(sch.get_sblock("Z"))
with refused("add_unit_loop", match="on top of the root", error=ValueError):
    sch.add_unit_loop(sch.get_sblock("root"))

# %% cell: merge
sch = CHAIN.schedule()
with step(sch, CHAIN):
    sch.merge(sch.get_loops("Y")[1], sch.get_loops("Z")[1])

# %% cell: merge-refused
sch = CHAIN.schedule()
outer = sch.get_loops("Y")[0]
sch.split(sch.get_loops("Z")[0], factors=[4, 8])
with refused("merge", match="`extent` must be same"):
    sch.merge(outer, sch.get_loops("Z")[0])
with refused("merge", match="nesting depth"):
    sch.merge(outer, sch.get_loops("Z")[1])

# %% cell: loop-partition
sch = CHAIN.schedule()
with step(sch, CHAIN):
    low, high = sch.loop_partition(sch.get_loops("Y")[0], factors=[4, None])

# %% cell: loop-partition-refused
sch = CHAIN.schedule()
with refused("loop_partition", match="sum of factors"):
    sch.loop_partition(sch.get_loops("Y")[0], factors=[16, 16])
with refused("loop_partition", match="dynamic shape"):
    slope.loop_partition(slope.get_loops("Z")[1], factors=[2, None])

# %% cell: loop-partition-reduction
sch = PRODUCT.schedule(debug_mask="none")
i, j, k = sch.get_loops("C")
sch.loop_partition(k, factors=[4, None])
got = PRODUCT.run(sch)[2]
a, b, c = PRODUCT.expected
print("equal to A @ B:                ", np.allclose(got, c, atol=1e-4))
print(
    "equal to A[:, 4:] @ B[4:, :]:  ",
    np.allclose(got, a[:, 4:] @ b[4:, :], atol=1e-4),
)

# %% check
assert not np.allclose(got, c, atol=1e-4)
assert np.allclose(got, a[:, 4:] @ b[4:, :], atol=1e-4)

# %% cell: loop-partition-twice
sch = CHAIN.schedule()
low, high = sch.loop_partition(sch.get_loops("Z")[0], factors=[4, None])
sch.loop_partition(high, factors=[10, None])
for line in root_text(sch).splitlines():
    if line.lstrip().startswith("for i"):
        print(line.strip())
got, want = CHAIN.run(sch)[1], CHAIN.expected[1]
right = np.isclose(got, want).all(axis=1)
print("rows that are wrong:", np.flatnonzero(~right).tolist())

# %% check
assert np.flatnonzero(~right).tolist() == [28, 29, 30, 31]
assert np.array_equal(got[28:], CHAIN.arguments[1][28:])  # never written

# %% cell: parallel-vectorize-unroll
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.reorder(k, j)
j_out, j_in = sch.split(j, factors=[None, 8])
with step(sch, PRODUCT, context=0):
    sch.parallel(i)
    sch.vectorize(j_in)
    sch.unroll(j_out)

# %% cell: what-they-become
library = tvm.compile(sch.mod, target="llvm").mod
llvm = library.inspect_source("ll")
kinds = set(re.findall(r"@llvm\.fmuladd\.(\w+)\(", llvm))
print("a call that starts threads:", "@__TVMBackendParallelLaunch" in llvm)
print("type of every multiply-add:", kinds)

# %% check
assert kinds == {"v8f32"} and "@__TVMBackendParallelLaunch" in llvm

# %% cell: kind-refused
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with refused("parallel", match="data parallel"):
    sch.parallel(k)
with refused("vectorize", match="data parallel"):
    sch.vectorize(k)
with refused("bind", match='thread axis to be bound is "threadIdx'):
    sch.bind(k, "blockIdx.x")

# %% cell: parallel-shared-row


@T.prim_func(s_tir=True)
def one_row(
    X: T.Buffer((32, 32), "float32"),
    row: T.Buffer((32,), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    for i in range(32):
        for j in range(32):
            with T.sblock("row"):
                vi, vj = T.axis.remap("SS", [i, j])
                row[vj] = X[vi, vj] * T.float32(2)
        for j in range(32):
            with T.sblock("Z"):
                vi, vj = T.axis.remap("SS", [i, j])
                Z[vi, vj] = row[vj] + T.float32(1)


def numpy_one_row(x, row, z):
    row[:] = 2 * x[-1]
    z[:] = 2 * x + 1


ROW = Workload(one_row, numpy_one_row)
sch = ROW.schedule()
i, _ = sch.get_loops("row")
sch.parallel(i)
print(root_text(sch).splitlines()[0])

# %% check
# The serial function is right; the parallel one is a race, so it never runs.
assert ROW.agrees(one_row)
assert "for i in T.parallel(32):" in root_text(sch)

# %% cell: bind
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")


def for_cpu(copy):
    """Give the two loops other kinds, which a CPU has."""
    copy.parallel(i)
    copy.vectorize(j)


with step(sch, PRODUCT, context=0, prepare=for_cpu):
    sch.bind(i, "blockIdx.x")
    sch.bind(j, "threadIdx.x")

# %% cell: bind-lowered
with expect_error(tvm.error.InternalError, match="not implemented"):
    tvm.compile(sch.mod, target="llvm")

# %% cell: bind-reduction
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.bind(k, "threadIdx.x")
sch.bind(j, "threadIdx.x")
with refused("bind", match="threadscope", error=tvm.error.InternalError):
    sch.bind(i, "threadidx.x")
sch.bind(i, "threadIdx.q")
print("\n".join(root_text(sch).splitlines()[:3]))

# %% check
assert catalogue_problems("loops", never_refused=["unroll"]) == []

# %% cell: solution-chunks
sch = CHAIN.schedule()
for name in ("Y", "Z"):
    fused = sch.fuse(*sch.get_loops(name))
    chunk, inside, lane = sch.split(fused, factors=[8, None, 16])
    sch.parallel(chunk)
    sch.vectorize(lane)
print(changes(chain, sch, context=0))
print("correct:", CHAIN.agrees(sch))

# %% check
assert CHAIN.agrees(sch)
extents = [int(sch.get(loop).extent) for loop in (chunk, inside, lane)]
assert extents == [8, 8, 16]

# %% cell: solution-partition
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.decompose_reduction("C", k)
sch.loop_partition(k, factors=[4, None])
print(changes(product, sch, context=0))
print("correct:", PRODUCT.agrees(sch))

# %% check
assert PRODUCT.agrees(sch)
