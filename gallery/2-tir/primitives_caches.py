"""
Primitives that put data into other memory
==========================================

Copies of what a block reads or writes: which buffer they make, in which
layout and memory scope, and what a schedule can say about a buffer's place.
"""

# %%
import re

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.s_tir import transform as passes
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.ir import cut
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


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))
CHAIN = Workload(chain, lambda x, z: np.add(2 * x, 1, out=z))

# %% cell: cache-read
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    copy = sch.cache_read("C", read_buffer_index=1, storage_scope="local")

# %% cell: cache-read-at
i, j, k = sch.get_loops("C")
with step(sch, PRODUCT):
    sch.compute_at(copy, j)

# %% cell: cache-write
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    copy = sch.cache_write("C", write_buffer_index=0, storage_scope="local")
    i, j, k = sch.get_loops("C")
    sch.reverse_compute_at(copy, j)

# %% cell: cache-refused


@T.prim_func(s_tir=True)
def half(X: T.Buffer((8,), "float32"), Z: T.Buffer((8,), "float32")):
    Y = T.sblock_alloc_buffer((8,), "float32")
    for i in range(4):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi]
    for i in range(8):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[vi]


sch = PRODUCT.schedule()
with refused("cache_read", match="out of the expected range"):
    sch.cache_read("C", read_buffer_index=2, storage_scope="local")
with refused("cache_read", match="storage scope"):
    sch.cache_read("C", read_buffer_index=0, storage_scope="nowhere")
with refused("cache_read", match="region cover is not complete"):
    s_tir.Schedule(half).cache_read("Z", 0, "local")
sch.decompose_reduction("C", sch.get_loops("C")[2])
with refused("cache_write", match="written by single block"):
    sch.cache_write("C_update", write_buffer_index=0, storage_scope="local")

# %% cell: by-name
sch = PRODUCT.schedule()
sch.cache_read("C", "B", "global")
print(sch.trace.as_python()[-1])
with expect_error(AssertionError, match="Could not find buffer"):
    sch.cache_read("C", "D", "global")

# %% cell: consumers


@T.prim_func(s_tir=True)
def fork(
    X: T.Buffer((32,), "float32"),
    P: T.Buffer((32,), "float32"),
    Q: T.Buffer((32,), "float32"),
):
    for i in range(32):
        with T.sblock("P"):
            vi = T.axis.remap("S", [i])
            P[vi] = X[vi] + T.float32(1)
    for i in range(32):
        with T.sblock("Q"):
            vi = T.axis.remap("S", [i])
            Q[vi] = X[vi] - T.float32(1)


def numpy_fork(x, p, q):
    p[:], q[:] = x + 1, x - 1


FORK = Workload(fork, numpy_fork)
everyone = FORK.schedule()
everyone.cache_read("P", 0, "global")
only_p = FORK.schedule()
only_p.cache_read("P", 0, "global", consumer_blocks=["P"])
for sch in (everyone, only_p):
    text = root_text(sch)
    print(
        "blocks that read the copy:",
        text.count("T.reads(X_global"),
        "| correct:",
        FORK.agrees(sch),
    )

# %% check
assert root_text(everyone).count("T.reads(X_global") == 2
assert root_text(only_p).count("T.reads(X_global") == 1
assert FORK.agrees(everyone) and FORK.agrees(only_p)

# %% cell: reindex
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    sch.reindex("C", ("read", 1))

# %% cell: reindex-cache-read
sch = PRODUCT.schedule()


def packed(i, j, k):
    """Panels of 8 columns, each with its rows one after the other."""
    return j // 8, k, j % 8


with step(sch, PRODUCT):
    sch.reindex_cache_read("C", 1, "global", packed)

# %% cell: reindex-cache-write
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    sch.reindex_cache_write("C", 0, "global", lambda i, j, k: (j, i))

# %% cell: reindex-refused


@T.prim_func(s_tir=True)
def pairs(X: T.Buffer((18,), "float32"), Z: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = X[vi] + X[vi + 1]


sch = s_tir.Schedule(pairs)
with refused("reindex", match="non-unique indices"):
    sch.reindex("Z", ("read", 0))
with refused("reindex_cache_read", match="not a single point"):
    sch.reindex_cache_read("Z", 0, "global", lambda i: (i,))
sch = PRODUCT.schedule()
with refused("reindex_cache_read", match="but not in"):
    sch.reindex_cache_read("C", 1, "global", lambda i, j, k: (j,))
with refused("reindex_cache_write", match="but not in"):
    sch.reindex_cache_write("C", 0, "global", lambda i, j, k: (i, j, k))

# %% cell: cache-inplace


@T.prim_func(s_tir=True)
def whole(D: T.Buffer((32,), "float32")):
    for u in range(1):
        with T.sblock("D"):
            T.axis.spatial(1, u)
            T.reads(D[0:32])
            T.writes(D[0:32])
            for i in range(32):
                D[i] = D[i] + T.float32(1)


def add_one(d):
    d[:] = d + 1


WHOLE = Workload(whole, add_one)
try:
    WHOLE.schedule(debug_mask="all").cache_inplace("D", 0, "local")
except tvm.error.InternalError as error:
    fact = r"\((\w+), expected=(\d), actual=(\d)\)"
    wrong = sorted(re.findall(fact, str(error)))
    kinds = re.findall(r"- Wrong (\w+):", str(error))
for name, fresh, cached in wrong:
    print(*kinds, "of", name, "is", cached, "and should be", fresh)
sch = WHOLE.schedule(debug_mask="none")
with step(sch, WHOLE):
    sch.cache_inplace("D", 0, "local")

# %% check
# In no fixed order in the message: the blocks stand in a hash map.
assert kinds == ["stage_pipeline"]
assert wrong == [("D_local", "1", "0")] * 2 + [("root", "0", "1")]

# %% cell: cache-inplace-element


@T.prim_func(s_tir=True)
def element(D: T.Buffer((32,), "float32")):
    for i in range(32):
        with T.sblock("D"):
            vi = T.axis.remap("S", [i])
            D[vi] = D[vi] + T.float32(1)


sch = s_tir.Schedule(element)
sch.cache_inplace("D", 0, "local")
print(cut(root_text(sch), lines=8))
with expect_error(tvm.error.InternalError, match="are used, but are not"):
    tvm.compile(sch.mod, target="llvm")
with refused("cache_inplace", match="both read & write"):
    CHAIN.schedule().cache_inplace("Z", 0, "local")

# %% cell: cache-index


@T.prim_func(s_tir=True)
def enlarge(
    X: T.Buffer((8, 8), "float32"),
    Z: T.Buffer((16, 16), "float32"),
):
    for i, j in T.grid(16, 16):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = X[vi // 4 + vj // 4, vj // 2]


def numpy_enlarge(x, z):
    i, j = np.mgrid[:16, :16]
    z[:] = x[i // 4 + j // 4, j // 2]


ENLARGE = Workload(enlarge, numpy_enlarge)
sch = ENLARGE.schedule()
with step(sch, ENLARGE):
    sch.cache_index("Z", storage_scope="global")

# %% cell: cache-index-refused
sch = CHAIN.schedule()
with refused(
    "cache_index", match="empty SeqStmt", error=tvm.error.InternalError
):
    sch.cache_index("Z", storage_scope="global")

# %% cell: read-at
sch = CHAIN.schedule()
i, j = sch.get_loops("Z")
with step(sch, CHAIN):
    sch.read_at(i, sch.get_sblock("Z"), 0, "shared")

# %% cell: write-at
sch = CHAIN.schedule()
i, j = sch.get_loops("Z")


def without_auto_copy(copy):
    """Drop the mark that asks a GPU pass to choose how to copy."""
    copy.unannotate(copy.get_sblock("Z_shared"), "auto_copy")


with step(sch, CHAIN, prepare=without_auto_copy):
    sch.write_at(i, sch.get_sblock("Z"), 0, "shared")

# %% cell: at-refused
sch = CHAIN.schedule()
z, elsewhere = sch.get_sblock("Z"), sch.get_loops("Y")[0]
with refused("read_at", match="out of the expected range"):
    sch.read_at(sch.get_loops("Z")[0], z, 1, "shared")
with refused("write_at", match="w_pos", error=tvm.error.InternalError):
    sch.write_at(elsewhere, z, 0, "shared")

# %% cell: set-scope
sch = CHAIN.schedule()
with step(sch, CHAIN):
    sch.set_scope("Y", 0, "local")

# %% cell: storage-align
sch = CHAIN.schedule()
with step(sch, CHAIN):
    sch.storage_align("Y", 0, axis=0, factor=16, offset=1)


def lowered(sch):
    """The function with flat buffers."""
    return tvm.transform.Sequential(
        [
            passes.LowerInitBlock(),
            passes.PlanAndUpdateBufferAllocationLocation(),
            passes.ConvertBlocksToOpaque(),
            passes.CompactBufferAllocation(),
            passes.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
        ]
    )(sch.mod)


plain = CHAIN.schedule()
print(changes(lowered(plain), lowered(sch), context=0))

# %% check
assert "Y[i * 32 + j]" in lowered(plain).script()
assert "Y[i * 33 + j]" in lowered(sch).script()

# %% cell: place-refused
sch = CHAIN.schedule()
with refused("set_scope", match="is not allocated by a block"):
    sch.set_scope("Z", 0, "local")
with refused("storage_align", match="`axis` is required"):
    sch.storage_align("Y", 0, axis=2, factor=16, offset=1)
with refused("storage_align", match="`factor`"):
    sch.storage_align("Y", 0, axis=0, factor=0, offset=1)

# %% check
assert catalogue_problems("caches") == []

# %% cell: solution-register-tile
sch = PRODUCT.schedule()
copy = sch.cache_write("C", 0, "local")
i, j, k = sch.get_loops("C")
i_out, i_in = sch.split(i, factors=[None, 4])
j_out, j_in = sch.split(j, factors=[None, 8])
sch.reorder(i_out, j_out, k, i_in, j_in)
sch.reverse_compute_at(copy, j_out)
sch.vectorize(j_in)
print(cut(root_text(sch), keep="for |alloc|sblock", context=0))
flat = lowered(sch)["main"].script()
print(*re.findall(r"C_local = T.alloc_local\(\(\d+,\)", flat))
print("correct:", PRODUCT.agrees(sch))

# %% check
assert PRODUCT.agrees(sch)
assert "C_local = T.alloc_local((32,)" in flat

# %% cell: solution-pack
sch = PRODUCT.schedule()
pack = sch.reindex_cache_read("C", 1, "global", packed)
shape = sch.get(pack).writes[0].source.shape
print("shape of the packed copy:", [int(extent) for extent in shape])


def offset(j, k):
    """Place of B[k, j] in the packed copy."""
    panel, row, column = packed(0, j, k)
    return (panel * 32 + row) * 8 + column


print("in B:     rows 0, 1, 2 of a panel begin at", [0, 32, 64])
print("in panel: they begin at", [offset(0, k) for k in range(3)])

# %% check
assert [offset(j, 0) for j in range(8)] == list(range(8))
assert len({offset(j, k) for j in range(32) for k in range(32)}) == 1024
