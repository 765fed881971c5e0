"""
Practice: a new back end
========================

A reference solution: a simulated accelerator, reached by whole operators and
by a tensor instruction.
"""

# %% cell: imports
import hashlib
import json

import numpy as np
import tvm
from tvm import relax, s_tir, te
from tvm.relax.backend.utils import has_leaking_intermediate_variables
from tvm.relax.dpl import is_op, wildcard
from tvm.relax.transform import FusionPattern
from tvm.script import tirx as T

from tvm_deepdive_helpers.toy_accelerator import (
    BANKS,
    MACHINE,
    TILE,
    cost,
    register_instructions,
)

register_instructions()


# %% cell: program
def blocked(m, k, n, relu, rows, columns, keep):
    """x @ w, with `rows` x `columns` tiles of the result at a time.

    With `keep`, all tiles of `rows` rows of x stay in the bank `inp`.
    """
    code = []
    for i in range(0, m, rows * TILE):
        if keep:
            for r in range(rows):
                for p in range(0, k, TILE):
                    at = r * TILE * k + p
                    code.append(("load", "inp", at, k, "x", i + r * TILE, p))
        for j in range(0, n, columns * TILE):
            sums = [(r, c) for r in range(rows) for c in range(columns)]
            spot = {rc: 64 * number for number, rc in enumerate(sums)}
            for rc in sums:
                code.append(("zero", spot[rc], TILE))
            for p in range(0, k, TILE):
                for r in range(rows if not keep else 0):
                    where = ("x", i + r * TILE, p)
                    code.append(("load", "inp", 64 * r, TILE, *where))
                for c in range(columns):
                    where = ("w", p, j + c * TILE)
                    code.append(("load", "wgt", 64 * c, TILE, *where))
                for r, c in sums:
                    inp = (r * TILE * k + p, k) if keep else (64 * r, TILE)
                    tiles = (spot[r, c], TILE, *inp, 64 * c, TILE)
                    code.append(("mma", *tiles))
            for r, c in sums:
                if relu:
                    code.append(("relu", spot[r, c], TILE))
                where = ("y", i + r * TILE, j + c * TILE)
                code.append(("store", spot[r, c], TILE, *where))
    return code


def program(m, k, n, relu):
    """The cheapest of the blockings that fit into the banks."""
    found = []
    for rows in (1, 2, 4):
        for columns in (1, 2, 4):
            if (
                rows * columns > 4
                or m % (rows * TILE)
                or n % (columns * TILE)
            ):
                continue
            fits = rows * TILE * k <= BANKS["inp"]
            for keep in (False, True)[: 1 + fits]:
                found.append(blocked(m, k, n, relu, rows, columns, keep))
    return min(found, key=cost)


# %% cell: patterns
def supported(context):
    """Matrices of float32 whose extents are known multiples of 8.

    The product itself must not be needed outside of the match.
    """
    if has_leaking_intermediate_variables(context):
        return False
    for name in ("x", "w"):
        ty = context.annotated_expr[name].ty
        if ty.ndim != 2 or str(ty.dtype) != "float32" or ty.shape is None:
            return False
        for extent in ty.shape:
            if not isinstance(extent, tvm.tirx.IntImm) or extent % TILE:
                return False
    return True


def patterns():
    """The larger pattern comes first."""
    x, w = wildcard(), wildcard()
    product = is_op("relax.matmul")(x, w)
    names = {"x": x, "w": w}
    rectified = is_op("relax.nn.relu")(product)
    return [
        FusionPattern("toy.matmul_relu", rectified, names, supported),
        FusionPattern("toy.matmul", product, names, supported),
    ]


# %% cell: codegen
def plan_of(region):
    """What a region asks for: shape, relu or not, which parameter is what."""
    (inner,) = [
        binding.value
        for block in region.body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Function)
    ]
    (product,) = [
        binding.value
        for block in inner.body.blocks
        for binding in block.bindings
        if binding.value.op.name == "relax.matmul"
    ]
    number = {param: i for i, param in enumerate(inner.params)}
    (m, k), (_, n) = (map(int, arg.ty.shape) for arg in product.args)
    return {
        "shape": [m, k, n],
        "relu": inner.attrs["Composite"] == "toy.matmul_relu",
        "inputs": [number[arg] for arg in product.args],
    }


def toy_codegen(regions, options, constant_names):
    """Registered as relax.ext.toy: a Python function for each region."""
    for region in regions:
        plan = plan_of(region)
        code = program(*plan["shape"], plan["relu"])
        x, w = plan["inputs"]

        def obey(*tensors, code=code, x=x, w=w):
            y = np.empty(tuple(map(int, tensors[-1].shape)), "float32")
            memory = {"x": tensors[x].numpy(), "w": tensors[w].numpy()}
            MACHINE.run(code, {**memory, "y": y})
            tensors[-1].copyfrom(y)

        symbol = region.attrs["global_symbol"]
        tvm.register_global_func(symbol, obey, override=True)
    return []


tvm.register_global_func("relax.ext.toy", toy_codegen, override=True)


# %% cell: offload
def offload(mod):
    """Hand to the machine what it can do, and leave the rest to TVM."""
    mod = relax.transform.FuseOpsByPattern(
        patterns(), bind_constants=False, annotate_codegen=True
    )(mod)
    for var, func in mod.functions_items():
        if func.attrs and func.attrs.get("Codegen") == "toy":
            text = json.dumps(plan_of(func)).encode()
            name = "toy_" + hashlib.sha1(text).hexdigest()[:12]
            mod[var] = func.with_attr("global_symbol", name)
    return relax.transform.RunCodegen()(mod)


# %% cell: descriptions
@T.prim_func(s_tir=True)
def copy_description(src: T.handle, dst: T.handle):
    S = T.match_buffer(src, (8, 8), "float32", offset_factor=1)
    D = T.match_buffer(dst, (8, 8), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(S[0:8, 0:8])
        T.writes(D[0:8, 0:8])
        for i, j in T.grid(8, 8):
            with T.sblock("copy"):
                vi, vj = T.axis.remap("SS", [i, j])
                D[vi, vj] = S[vi, vj]


@T.prim_func(s_tir=True)
def zero_description(acc: T.handle):
    C = T.match_buffer(acc, (8, 8), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads()
        T.writes(C[0:8, 0:8])
        for i, j in T.grid(8, 8):
            with T.sblock("zero"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = T.float32(0)


@T.prim_func(s_tir=True)
def mma_description(inp: T.handle, wgt: T.handle, acc: T.handle):
    A = T.match_buffer(inp, (8, 8), "float32", offset_factor=1)
    B = T.match_buffer(wgt, (8, 8), "float32", offset_factor=1)
    C = T.match_buffer(acc, (8, 8), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(C[0:8, 0:8], A[0:8, 0:8], B[0:8, 0:8])
        T.writes(C[0:8, 0:8])
        for i, j, k in T.grid(8, 8, 8):
            with T.sblock("mma"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


# %% cell: implementations
def load(bank):
    """A tile of the main memory goes to a bank."""

    @T.prim_func(s_tir=True)
    def kernel(src: T.handle, dst: T.handle):
        ps, pd = T.int32(), T.int32()
        S = T.match_buffer(
            src, (8, 8), "float32", offset_factor=1, strides=[ps, 1]
        )
        D = T.match_buffer(
            dst, (8, 8), "float32", offset_factor=1, strides=[pd, 1]
        )
        with T.sblock("root"):
            T.reads(S[0:8, 0:8])
            T.writes(D[0:8, 0:8])
            T.evaluate(
                T.call_packed(
                    "toy.load", bank, D.elem_offset, pd, S.access_ptr("r"), ps
                )
            )

    return kernel


@T.prim_func(s_tir=True)
def store_kernel(src: T.handle, dst: T.handle):
    ps, pd = T.int32(), T.int32()
    S = T.match_buffer(
        src, (8, 8), "float32", offset_factor=1, strides=[ps, 1]
    )
    D = T.match_buffer(
        dst, (8, 8), "float32", offset_factor=1, strides=[pd, 1]
    )
    with T.sblock("root"):
        T.reads(S[0:8, 0:8])
        T.writes(D[0:8, 0:8])
        T.evaluate(
            T.call_packed(
                "toy.store", S.elem_offset, ps, D.access_ptr("w"), pd
            )
        )


@T.prim_func(s_tir=True)
def zero_kernel(acc: T.handle):
    pc = T.int32()
    C = T.match_buffer(
        acc, (8, 8), "float32", offset_factor=1, strides=[pc, 1]
    )
    with T.sblock("root"):
        T.reads()
        T.writes(C[0:8, 0:8])
        T.evaluate(T.call_packed("toy.zero", C.elem_offset, pc))


@T.prim_func(s_tir=True)
def mma_kernel(inp: T.handle, wgt: T.handle, acc: T.handle):
    pa, pb, pc = T.int32(), T.int32(), T.int32()
    A = T.match_buffer(
        inp, (8, 8), "float32", offset_factor=1, strides=[pa, 1]
    )
    B = T.match_buffer(
        wgt, (8, 8), "float32", offset_factor=1, strides=[pb, 1]
    )
    C = T.match_buffer(
        acc, (8, 8), "float32", offset_factor=1, strides=[pc, 1]
    )
    with T.sblock("root"):
        T.reads(C[0:8, 0:8], A[0:8, 0:8], B[0:8, 0:8])
        T.writes(C[0:8, 0:8])
        T.evaluate(
            T.call_packed(
                "toy.mma",
                C.elem_offset,
                pc,
                A.elem_offset,
                pa,
                B.elem_offset,
                pb,
            )
        )


for name, description, kernel in (
    ("toy.load_inp", copy_description, load("inp")),
    ("toy.load_wgt", copy_description, load("wgt")),
    ("toy.store", copy_description, store_kernel),
    ("toy.zero", zero_description, zero_kernel),
    ("toy.mma", mma_description, mma_kernel),
):
    s_tir.TensorIntrin.register(name, description, kernel, override=True)


# %% cell: tensorize
def tensorize(func):
    """A schedule of the product in block "C" that uses the machine.

    A product that the machine cannot do comes back as it is.
    """
    sch = s_tir.Schedule(func)
    block = sch.get_sblock("C")
    loops = sch.get_loops(block)
    extents = [sch.get(loop).extent for loop in loops]
    buffers = [sch.get(block).writes[0].source]
    buffers += [region.source for region in sch.get(block).reads]
    if any(str(buffer.dtype) != "float32" for buffer in buffers):
        return sch
    if any(not isinstance(e, tvm.tirx.IntImm) or e % TILE for e in extents):
        return sch
    m, n, k = map(int, extents)
    rows, columns = (2 if extent % 16 == 0 else 1 for extent in (m, n))
    i_block, i_tile, i = sch.split(loops[0], [None, rows, TILE])
    j_block, j_tile, j = sch.split(loops[1], [None, columns, TILE])
    k_tile, k_in = sch.split(loops[2], [None, TILE])
    sch.reorder(i_block, j_block, k_tile, i_tile, j_tile, i, j, k_in)
    acc = sch.cache_write(block, 0, "global")
    sch.reverse_compute_at(acc, j_block)
    inp = sch.cache_read(block, 0, "global")
    fits = rows * TILE * k <= BANKS["inp"]
    sch.compute_at(inp, i_block if fits else k_tile)
    wgt = sch.cache_read(block, 1, "global")
    sch.compute_at(wgt, k_tile)
    init = sch.decompose_reduction(block, k_tile)
    moves = {inp: "toy.load_inp", wgt: "toy.load_wgt", acc: "toy.store"}
    for move, name in moves.items():
        a, b = sch.get_loops(move)[-2:]
        a_tile, a = sch.split(a, [None, TILE])
        b_tile, b = sch.split(b, [None, TILE])
        sch.reorder(a_tile, b_tile, a, b)
        sch.tensorize(sch.blockize(a), name)
    sch.tensorize(sch.blockize(sch.get_loops(init)[-2]), "toy.zero")
    sch.tensorize(sch.blockize(i), "toy.mma")
    return sch


# The solution ends here: below, it is shown and measured.

# %% cell: machine-use
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, figures, glue
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.toy_accelerator import COST, Fault

x = np.arange(64, dtype="float32").reshape(8, 8)
memory = {"x": x, "w": np.eye(8, dtype="float32"), "y": np.zeros_like(x)}
by_hand = [
    ("load", "inp", 0, 8, "x", 0, 0),
    ("load", "wgt", 0, 8, "w", 0, 0),
    ("zero", 0, 8),
    ("mma", 0, 8, 0, 8, 0, 8),
    ("store", 0, 8, "y", 0, 0),
]
MACHINE.run(by_hand, memory)
print("right:", np.array_equal(memory["y"], x))
print(dict(MACHINE.executed), MACHINE.cycles, "cycles")
print("cycles each:", COST)
print("numbers in each bank:", BANKS)

# %% cell: faults
MACHINE.reset()
for wrong in (
    [("load", "acc", 0, 8, "x", 0, 0)],
    [("load", "inp", 1000, 8, "x", 0, 0)],
    [("load", "inp", 0, 8, "x", 0, 4)],
    [("mma", 0, 8, 0, 8, 0, 8)],
):
    with expect_error(Fault):
        MACHINE.run(wrong, memory)

# %% cell: reuse
SIZE = 64
tries = {
    "one tile at a time": (1, 1, False),
    "keep a row of x": (1, 1, True),
    "2 x 2 tiles of sums": (2, 2, False),
    "both": (2, 2, True),
}
naive = blocked(SIZE, SIZE, SIZE, False, 1, 1, False)
for name, choice in tries.items():
    code = blocked(SIZE, SIZE, SIZE, False, *choice)
    loads = sum(kind == "load" for kind, *_ in code)
    share = cost(code) / cost(naive)
    print(f"{name:20} {loads:5} loads {cost(code):6} cycles {share:5.2f}")
best = program(SIZE, SIZE, SIZE, False)
print(f"chosen: {cost(best)}")
glue("naive", cost(naive))
glue("best", cost(best))

# %% check
assert cost(best) == cost(code) < 0.5 * cost(naive)

# %% cell: reuse-figure
fig, ax = figures.new(height=2.6)
left = np.zeros(len(tries))
hues = figures.COLORS
shades = {"load": "vermilion", "mma": "navy", "store": "green"}
for kind, hue in shades.items():
    part = [
        sum(
            COST[k]
            for k, *_ in blocked(SIZE, SIZE, SIZE, False, *choice)
            if k == kind
        )
        for choice in tries.values()
    ]
    ax.barh(list(tries), part, left=left, color=hues[hue], label=kind)
    left += part
ax.axvline(cost(naive) / 2, color=figures.MUTED, linestyle="--")
ax.invert_yaxis()
ax.set(xlabel="cycles", title="A product of 64 x 64 matrices")
ax.legend(ncols=3, loc="lower right")
figures.alt(
    fig,
    "Stacked bars of cycles for loads, products and stores. The products are "
    "the same in all four programs; only the program with both kinds of "
    "reuse ends left of the dashed line at half of the first.",
)


# %% cell: model
@I.ir_module
class Model:
    @R.function
    def main(
        x: R.Tensor((16, 64), "float32"),
        w: R.Tensor((64, 32), "float32"),
        v: R.Tensor((32, 10), "float32"),
    ):
        with R.dataflow():
            a = R.nn.relu(R.matmul(x, w))
            b = R.matmul(a, v)
            R.output(b)
        return b


split = offload(Model)
show(split["main"])

# %% cell: run
vm = relax.VirtualMachine(tvm.compile(split, "llvm"), tvm.cpu())
rng = np.random.default_rng(0)
shapes = [(16, 64), (64, 32), (32, 10)]
arrays = [rng.standard_normal(s).astype("float32") for s in shapes]
tensors = [tvm.runtime.tensor(array) for array in arrays]
want = np.maximum(arrays[0] @ arrays[1], 0) @ arrays[2]
MACHINE.reset()
got = vm["main"](*tensors).numpy()
print("right:", np.allclose(got, want, atol=1e-3))
print(dict(MACHINE.executed))
with MACHINE.defect():
    wrong = vm["main"](*tensors).numpy()
print("right with a broken machine:", np.allclose(wrong, want, atol=1e-3))

# %% check
np.testing.assert_allclose(got, want, atol=1e-3)
assert MACHINE.executed["relu"] and not np.allclose(wrong, want, atol=1e-3)


# %% cell: scheduled
def product(m, k, n, dtype="float32"):
    """A product as a tensor expression, with the block "C"."""
    a = te.placeholder((m, k), dtype, name="A")
    b = te.placeholder((k, n), dtype, name="B")
    r = te.reduce_axis((0, k), name="k")
    c = te.compute(
        (m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C"
    )
    return te.create_prim_func([a, b, c])


sch = tensorize(product(SIZE, SIZE, SIZE))
show(sch.mod["main"], keep="for |sblock|call_packed", context=0)

# %% cell: scheduled-run
library = tvm.compile(sch.mod, "llvm")
a, b = (rng.standard_normal((SIZE, SIZE)).astype("float32") for _ in "ab")
out = tvm.runtime.tensor(np.zeros((SIZE, SIZE), "float32"))
MACHINE.reset()
library(tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
print("right:", np.allclose(out.numpy(), a @ b, atol=1e-3))
print(dict(MACHINE.executed), MACHINE.cycles, "cycles")

# %% check
np.testing.assert_allclose(out.numpy(), a @ b, atol=1e-3)
assert MACHINE.cycles == cost(best)

# %% cell: solution-inner
for k in (64, 72, 128, 136):
    shares = [
        f"{rows} x {columns}{' kept' if keep else ''}: "
        f"{cost(blocked(64, k, 64, False, rows, columns, keep)):6}"
        for rows, columns, keep in ((2, 2, False), (1, 4, True), (2, 2, True))
        if not keep or rows * TILE * k <= BANKS["inp"]
    ]
    naive_k = blocked(64, k, 64, False, 1, 1, False)
    share = cost(program(64, k, 64, False)) / cost(naive_k)
    print(f"k = {k:3}, share {share:.2f};", ", ".join(shares))
