"""
Tensor instructions, layouts and declarations
=============================================

Blocks of blocks, replacing one by a hand-written kernel, other layouts for
buffers and blocks, and the primitives that change what a block declares.
"""

# %%
import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import cut
from tvm_deepdive_helpers.schedules import (
    Workload,
    catalogue_problems,
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


def numpy_chain(x, z):
    z[:] = 2 * x + 1


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))
CHAIN = Workload(chain, numpy_chain)

# %% cell: blockize
sch = CHAIN.schedule()
i, j = sch.get_loops("Y")
j_out, j_in = sch.split(j, factors=[None, 8])
with step(sch, CHAIN):
    outer = sch.blockize(j_in)
print("loops of the new block:", len(sch.get_loops(outer)))

# %% cell: blockize-blocks
sch = CHAIN.schedule()
i, j = sch.get_loops("Z")
sch.compute_at("Y", i)
with step(sch, CHAIN, lines=8):
    sch.blockize([sch.get_sblock("Y"), sch.get_sblock("Z")])

# %% cell: blockize-refused
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
i_out, i_in = sch.split(i, factors=[None, 5])
with refused("blockize", match="can not be blockized"):
    sch.blockize(i_in)
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.decompose_reduction("C", k)
with refused("blockize", match="only one child block"):
    sch.blockize(i)

# %% cell: intrinsic


@T.prim_func(s_tir=True)
def tile_description(a: T.handle, b: T.handle, c: T.handle):
    A = T.match_buffer(a, (4, 4), "float32", offset_factor=1)
    B = T.match_buffer(b, (4, 4), "float32", offset_factor=1)
    C = T.match_buffer(c, (4, 4), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(C[0:4, 0:4], A[0:4, 0:4], B[0:4, 0:4])
        T.writes(C[0:4, 0:4])
        for i, j, k in T.grid(4, 4, 4):
            with T.sblock("tile"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


@T.prim_func(s_tir=True)
def tile_kernel(a: T.handle, b: T.handle, c: T.handle):
    sa, sb, sc = T.int32(), T.int32(), T.int32()
    A = T.match_buffer(a, (4, 4), "float32", offset_factor=1, strides=[sa, 1])
    B = T.match_buffer(b, (4, 4), "float32", offset_factor=1, strides=[sb, 1])
    C = T.match_buffer(c, (4, 4), "float32", offset_factor=1, strides=[sc, 1])
    with T.sblock("root"):
        T.reads(C[0:4, 0:4], A[0:4, 0:4], B[0:4, 0:4])
        T.writes(C[0:4, 0:4])
        for i, k in T.grid(4, 4):
            C[i, T.ramp(0, 1, 4)] = (
                C[i, T.ramp(0, 1, 4)]
                + T.broadcast(A[i, k], 4) * B[k, T.ramp(0, 1, 4)]
            )


s_tir.TensorIntrin.register("deepdive.tile", tile_description, tile_kernel)

# %% cell: tensorize


def tiled(sch, decompose=True):
    """Cut the product into tiles of 4 x 4 x 4; return the tile's loop."""
    i, j, k = sch.get_loops("C")
    i_out, i_in = sch.split(i, factors=[None, 4])
    j_out, j_in = sch.split(j, factors=[None, 4])
    k_out, k_in = sch.split(k, factors=[None, 4])
    sch.reorder(i_out, j_out, k_out, i_in, j_in, k_in)
    if decompose:
        sch.decompose_reduction("C", k_out)
    return i_in


sch = PRODUCT.schedule()
tile = tiled(sch)
with step(sch, PRODUCT):
    sch.tensorize(tile, "deepdive.tile")

# %% cell: tensorize-figure
fig, _ = boxes_and_arrows(
    {
        "loops": (0, 0),
        "block": (1, 0),
        "result": (2, 0),
        "what": (1, 1),
        "how": (2, 1),
    },
    {
        ("loops", "block"): "blockize",
        ("block", "result"): "replace",
        ("what", "block"): "compared",
        ("how", "result"): "body",
    },
    labels={
        "loops": "loop of the schedule",
        "block": "C_update_o\nover regions of A, B, C",
        "result": "C_update_o\nmatch_buffer, new body",
        "what": "description\nA, B, C of 4 x 4",
        "how": "implementation\nA, B, C of 4 x 4",
    },
    groups={"TensorIntrin": ["what", "how"]},
    colors={"what": "green", "how": "green", "result": "vermilion"},
    title="tensorize: one function is compared, the other is taken",
)

# %% cell: copy-after
with expect_error(tvm.error.InternalError, match="unordered_map::at"):
    sch.copy()
sch = PRODUCT.schedule()
block = sch.blockize(tiled(sch))
sch.tensorize(block, "deepdive.tile")
print("after tensorize of a block:", type(sch.copy()).__name__)

# %% check
assert PRODUCT.agrees(sch)

# %% cell: believed


def tile_of_zeros():
    """The same signature and regions, another result."""

    @T.prim_func(s_tir=True)
    def zeros(a: T.handle, b: T.handle, c: T.handle):
        A = T.match_buffer(a, (4, 4), "float32", offset_factor=1)
        B = T.match_buffer(b, (4, 4), "float32", offset_factor=1)
        C = T.match_buffer(c, (4, 4), "float32", offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:4, 0:4], A[0:4, 0:4], B[0:4, 0:4])
            T.writes(C[0:4, 0:4])
            for i, j in T.grid(4, 4):
                C[i, j] = T.float32(0)

    return zeros


with expect_error(ValueError, match="already been registered"):
    s_tir.TensorIntrin.register(
        "deepdive.tile", tile_description, tile_of_zeros()
    )
s_tir.TensorIntrin.register(
    "deepdive.zeros", tile_description, tile_of_zeros()
)
sch = PRODUCT.schedule()
sch.tensorize(tiled(sch), "deepdive.zeros")
print("accepted; result right:", PRODUCT.agrees(sch))

# %% check
assert not PRODUCT.agrees(sch)

# %% cell: tensorize-refused
sch = PRODUCT.schedule()
tile = tiled(sch)
with refused("tensorize", match="not registered", error=ValueError):
    sch.tensorize(tile, "deepdive.other")
sch = PRODUCT.schedule()
tile = tiled(sch, decompose=False)
with expect_error(s_tir.ScheduleError, keep="do not match|size mismatch"):
    sch.tensorize(tile, "deepdive.tile")

# %% cell: annotate
sch = CHAIN.schedule()
block, loop = sch.get_sblock("Y"), sch.get_loops("Z")[0]
with step(sch, CHAIN, context=0):
    sch.annotate(block, "author", "book")
    sch.annotate(loop, "pragma_auto_unroll_max_step", 16)
sch.annotate(block, "author", "somebody else")
print("after a second call:", dict(sch.get(block).annotations))
with step(sch, CHAIN, context=0):
    sch.unannotate(block, "author")

# %% check
assert not sch.get(block).annotations

# %% cell: annotate-refused
with refused("unannotate", match="Cannot find annotation", error=IndexError):
    sch.unannotate(block, "author")
with refused("annotate", match="ann_val", error=TypeError):
    sch.annotate(block, "author", b"bytes")

# %% check
assert catalogue_problems("tensorize") == []

# %% cell: transform-layout
sch = CHAIN.schedule()
with step(sch, CHAIN):
    sch.transform_layout(
        "Y", "Y", lambda i, j: (i // 8, j // 8, i % 8, j % 8)
    )

# %% cell: layout-padding


@T.prim_func(s_tir=True)
def uneven(X: T.Buffer((14,), "float32"), Z: T.Buffer((14,), "float32")):
    Y = T.sblock_alloc_buffer((14,), "float32")
    for i in range(14):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi] * T.float32(2)
    for i in range(14):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[vi] + T.float32(1)


UNEVEN = Workload(uneven, numpy_chain)
sch = UNEVEN.schedule()
with refused("transform_layout", match="would introduce padding"):
    sch.transform_layout("Y", "Y", lambda i: (i // 4, i % 4))
with step(sch, UNEVEN):
    sch.transform_layout("Y", "Y", lambda i: (i // 4, i % 4), pad_value=0.0)

# %% cell: index-map
tiles = tirx.IndexMap.from_func(lambda i: (i // 4, i % 4))
print("shape of 14:   ", tiles.map_shape([14]))
print("place of 13:   ", tiles.map_indices([tirx.IntImm("int64", 13)]))
print("back, from 16: ", tiles.inverse([16]))
with expect_error(tvm.error.InternalError, match="full iter space"):
    tiles.inverse([14])
back, padding = tiles.non_surjective_inverse([14])
print("padding for 14:", padding)

# %% cell: layout-parameter
sch = s_tir.Schedule(chain)
sch.transform_layout("Y", "X", lambda i, j: (j, i))
x, z = (array.copy() for array in CHAIN.arguments)
kernel = tvm.compile(sch.mod, target="llvm")
results = {}
for name, given in (("as before", x), ("transposed", x.T.copy())):
    out = tvm.runtime.tensor(z)
    kernel(tvm.runtime.tensor(given), out)
    results[name] = np.allclose(out.numpy(), 2 * x + 1)
    print(f"caller passes X {name}:", results[name])

# %% check
assert results == {"as before": False, "transposed": True}

# %% cell: transform-block-layout
sch = CHAIN.schedule()
with step(sch, CHAIN):
    sch.transform_block_layout("Y", lambda i, j: (i * 32 + j,))

# %% cell: block-layout-refused
sch = PRODUCT.schedule()
with refused("transform_block_layout", match="not bijective affine"):
    sch.transform_block_layout("C", lambda i, j, k: (i, j))
with refused("transform_block_layout", match="more than one type"):
    sch.transform_block_layout("C", lambda i, j, k: (i * 32 + k, j))

# %% cell: set-dtype
HALF = Workload(chain, numpy_chain, tolerance=1e-2)
sch = HALF.schedule()
with step(sch, HALF, context=0):
    sch.unsafe_set_dtype("Y", 0, "float16")
print(f"largest error: {HALF.error(sch):.1e}")
with refused("unsafe_set_dtype", match="not allocated by a block"):
    sch.unsafe_set_dtype("Z", 0, "float16")

# %% check
assert 1e-4 < HALF.error(sch) < 1e-2

# %% cell: annotate-access
sch = CHAIN.schedule()
z = sch.get_sblock("Z")
with step(sch, CHAIN, context=0):
    sch.annotate_buffer_access(
        z, 0, "read", lambda i, j: ((i - 1, i + 2), (j, j + 1))
    )
with step(sch, CHAIN, context=0):
    sch.compute_at("Y", sch.get_loops(z)[0])
with refused("annotate_buffer_access", match="buf_type", error=ValueError):
    sch.annotate_buffer_access(z, 0, "load", lambda i, j: ((i, i), (j, j)))

# %% cell: hide
sch = s_tir.Schedule(chain)
z = sch.get_sblock("Z")
with step(sch, CHAIN, context=0):
    sch.unsafe_hide_buffer_access(z, "read", [0])
with refused("unsafe_hide_buffer_access", match="'read' or 'write'"):
    sch.unsafe_hide_buffer_access(z, "load", [0])

# %% cell: hide-wrong
later = s_tir.Schedule(sch.mod)
print("producers of Z:", later.get_producers("Z"))
later.compute_at("Y", later.get_loops("Z")[0])
print(cut(root_text(later), keep="for |sblock", context=0))

# %% check
text = root_text(later)
assert text.index('sblock("Z")') < text.index('sblock("Y")')
assert catalogue_problems("layout") == []

# %% cell: solution-copy


@T.prim_func(s_tir=True)
def row_description(x: T.handle, y: T.handle):
    X = T.match_buffer(x, (8,), "float32", offset_factor=1)
    Y = T.match_buffer(y, (8,), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(X[0:8])
        T.writes(Y[0:8])
        for i in range(8):
            with T.sblock("row"):
                vi = T.axis.remap("S", [i])
                Y[vi] = X[vi] + T.float32(1)


@T.prim_func(s_tir=True)
def row_kernel(x: T.handle, y: T.handle):
    X = T.match_buffer(x, (8,), "float32", offset_factor=1)
    Y = T.match_buffer(y, (8,), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(X[0:8])
        T.writes(Y[0:8])
        Y[T.ramp(0, 1, 8)] = X[T.ramp(0, 1, 8)] + T.broadcast(T.float32(1), 8)


s_tir.TensorIntrin.register("deepdive.row", row_description, row_kernel)
sch = CHAIN.schedule()
i, j = sch.get_loops("Z")
j_out, j_in = sch.split(j, factors=[None, 8])
sch.tensorize(j_in, "deepdive.row")
print(root_text(sch).splitlines()[-1].strip())
print("correct:", CHAIN.agrees(sch))

# %% check
assert CHAIN.agrees(sch)

# %% cell: solution-inverse
sch = CHAIN.schedule()
sch.transform_layout("Y", "Y", lambda i, j: (j, i))
before = root_text(sch)
sch.transform_layout("Y", "Y", lambda i, j: (j, i))
print("back to the start:", root_text(sch) == root_text(chain))
with expect_error(tvm.error.InternalError):
    sch.transform_layout("Y", "Y", lambda i, j: (i + j,))

# %% check
assert before != root_text(chain) and root_text(sch) == root_text(chain)
