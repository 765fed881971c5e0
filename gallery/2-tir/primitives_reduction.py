"""
Primitives for reductions and padding
=====================================

Take the first value out of a reduction, cut a reduction into partial ones,
fold the step behind it in, make sizes even, and keep only the rows needed.
"""

# %%
import numpy as np
import tvm_ffi
from tvm import s_tir, te
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
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
def row_sums(X: T.Buffer((8, 64), "float32"), S: T.Buffer((8,), "float32")):
    for i, k in T.grid(8, 64):
        with T.sblock("S"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                S[vi] = T.float32(0)
            S[vi] = S[vi] + X[vi, vk]


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))
ROW_SUMS = Workload(row_sums, lambda x, s: np.sum(x, axis=1, out=s))

# %% cell: decompose-reduction
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.reorder(i, k, j)
with step(sch, PRODUCT):
    init = sch.decompose_reduction("C", k)
print("handle returned:", sch.get(init).name_hint)

# %% cell: decompose-height
heights = {}
for name in "ij":
    sch = PRODUCT.schedule()
    loops = dict(zip("ijk", sch.get_loops("C"), strict=True))
    init = sch.decompose_reduction("C", loops[name])
    above = [sch.get(loop).loop_var.name for loop in sch.get_loops(init)]
    heights[name] = above
    print(
        f"at {name}: loops of the init block",
        above,
        "| correct:",
        PRODUCT.agrees(sch),
    )

# %% check
assert heights == {"i": ["i_init", "j_init"], "j": ["i", "j_init"]}

# %% cell: decompose-refused
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.reorder(k, i)
with refused("decompose_reduction", match="higher than all the loops"):
    sch.decompose_reduction("C", j)
sch.decompose_reduction("C", k)
with refused("decompose_reduction", match="not a reduction block"):
    sch.decompose_reduction("C_update", k)

# %% cell: rfactor
sch = ROW_SUMS.schedule()
i, k = sch.get_loops("S")
k_out, k_in = sch.split(k, factors=[None, 16])
with step(sch, ROW_SUMS):
    partial = sch.rfactor(k_in, factor_axis=0)

# %% cell: rfactor-vectorize
i, k_out, k_in = sch.get_loops(partial)
with step(sch, ROW_SUMS):
    sch.reorder(k_out, k_in)
    sch.vectorize(k_in)

# %% cell: rfactor-refused
sch = ROW_SUMS.schedule()
i, k = sch.get_loops("S")
with refused("rfactor", match="data parallel block iter"):
    sch.rfactor(i, factor_axis=0)
with refused("rfactor", match="`factor_axis` is required"):
    sch.rfactor(k, factor_axis=3)
sch.unroll(k)
with refused("rfactor", match="required to be `Serial`"):
    sch.rfactor(k, factor_axis=0)

# %% cell: no-reducer


@T.prim_func(s_tir=True)
def horner(X: T.Buffer((8, 64), "float32"), S: T.Buffer((8,), "float32")):
    for i, k in T.grid(8, 64):
        with T.sblock("S"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                S[vi] = T.float32(0)
            S[vi] = S[vi] * T.float32(0.5) + X[vi, vk]


sch = s_tir.Schedule(horner)
with refused("rfactor", match="No matched reducer"):
    sch.rfactor(sch.get_loops("S")[1], factor_axis=0)

# %% cell: epilogue


@T.prim_func(s_tir=True)
def biased(
    A: T.Buffer((32, 32), "float32"),
    B: T.Buffer((32, 32), "float32"),
    bias: T.Buffer((32,), "float32"),
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
            D[vi, vj] = C[vi, vj] + bias[vj]


def numpy_biased(a, b, bias, d):
    d[:] = a @ b + bias


BIASED = Workload(biased, numpy_biased)
sch = BIASED.schedule()
with step(sch, BIASED):
    sch.fuse_reduction_epilogue("C", "D")

# %% cell: epilogue-relu


@T.prim_func(s_tir=True)
def clipped(
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


CLIPPED = Workload(clipped, lambda a, b, d: np.maximum(a @ b, 0, out=d))
sch = CLIPPED.schedule()
sch.fuse_reduction_epilogue("C", "D")
got = CLIPPED.run(sch)[2]
a, b, d = CLIPPED.expected
running = np.zeros_like(d)
for round_ in range(32):
    update = np.outer(a[:, round_], b[round_])
    running = np.maximum(running + update, 0)
print(root_text(sch).splitlines()[-1].strip())
print("max(A @ B, 0):             ", np.allclose(got, d, atol=1e-4))
print("clipped after every round: ", np.allclose(got, running, atol=1e-4))

# %% check
assert not np.allclose(got, d, atol=1e-4)
assert np.allclose(got, running, atol=1e-4)

# %% cell: epilogue-any


def layer(activation):
    """A product and one step after it, as a workload."""

    @T.prim_func(s_tir=True)
    def func(
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
                D[vi, vj] = activation(C[vi, vj])

    return func


sch = s_tir.Schedule(layer(lambda value: 1 - value))
sch.fuse_reduction_epilogue("C", "D")
print(root_text(sch).splitlines()[-1].strip())
minus = Workload(sch.mod["main"], lambda a, b, d: np.copyto(d, 1 - a @ b))
print("1 - A @ B:", np.allclose(minus.run(sch)[2], minus.expected[2]))

# %% cell: epilogue-max


@T.prim_func(s_tir=True)
def peak(
    A: T.Buffer((32, 32), "float32"),
    bias: T.Buffer((32,), "float32"),
    D: T.Buffer((32,), "float32"),
):
    C = T.sblock_alloc_buffer((32,), "float32")
    for i, k in T.grid(32, 32):
        with T.sblock("C"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                C[vi] = T.min_value("float32")
            C[vi] = T.max(C[vi], A[vi, vk])
    for i in range(32):
        with T.sblock("D"):
            vi = T.axis.remap("S", [i])
            D[vi] = C[vi] + bias[vi]


def numpy_peak(a, bias, d):
    d[:] = a.max(axis=1) + bias


PEAK = Workload(peak, numpy_peak)
sch = s_tir.Schedule(peak)
sch.fuse_reduction_epilogue("C", "D")
print("\n".join(root_text(sch).splitlines()[-3:]))
a, bias, _ = PEAK.arguments
got = PEAK.run(sch)[2]
print("max(A) + bias: ", np.allclose(got, a.max(axis=1) + bias))
print("max(A, bias):  ", np.allclose(got, np.maximum(a.max(axis=1), bias)))

# %% check
assert PEAK.agrees(peak) and not PEAK.agrees(sch)
assert np.allclose(got, np.maximum(a.max(axis=1), bias))
assert not np.allclose(minus.run(minus.func)[2], minus.expected[2], atol=1e-2)

# %% cell: epilogue-refused
sch = BIASED.schedule()
with refused("fuse_reduction_epilogue", match="not a reduction block"):
    sch.fuse_reduction_epilogue("D", "C")
sch = s_tir.Schedule(layer(lambda value: 2 * value))
with refused("fuse_reduction_epilogue", match="in form of", max_lines=3):
    sch.fuse_reduction_epilogue("C", "D")

# %% cell: pad-einsum


@T.prim_func(s_tir=True)
def uneven(
    A: T.Buffer((13, 10), "float32"),
    B: T.Buffer((10, 30), "float32"),
    C: T.Buffer((13, 30), "float32"),
):
    for i, j, k in T.grid(13, 30, 10):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


UNEVEN = Workload(uneven, lambda a, b, c: np.matmul(a, b, out=c))
sch = UNEVEN.schedule()
with step(sch, UNEVEN):
    sch.pad_einsum("C", padding=[16, 16, 1])

# %% cell: pad-einsum-refused
sch = UNEVEN.schedule()
with refused("pad_einsum", match="list of 3 positive integers"):
    sch.pad_einsum("C", padding=[16, 16])

# %% cell: padded


@T.prim_func(s_tir=True)
def padded(X: T.Buffer((32,), "float32"), Y: T.Buffer((38,), "float32")):
    for i in range(38):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = T.if_then_else(
                vi >= 3 and vi < 35, X[vi - 3], T.float32(0)
            )


def numpy_padded(x, y):
    y[:] = np.pad(x, 3)


PADDED = Workload(padded, numpy_padded)
sch = PADDED.schedule()
(i,) = sch.get_loops("Y")
block = sch.get_sblock("Y")
with step(sch, PADDED, also=["can_decompose_padding"]):
    print("possible:", sch.can_decompose_padding(block, i))
    sch.decompose_padding(block, i)

# %% cell: padded-refused
x = te.placeholder((32,), name="x")
double = te.compute((32,), lambda i: x[i] * 2, name="double")
other = s_tir.Schedule(te.create_prim_func([x, double]))
block, (loop,) = other.get_sblock("double"), other.get_loops("double")
print("possible:", other.can_decompose_padding(block, loop))
with refused("decompose_padding", match="padding pattern"):
    other.decompose_padding(block, loop)
with refused("can_decompose_padding", match="SBlockRV", error=TypeError):
    other.can_decompose_padding("double", loop)

# %% cell: padded-trace
with expect_error(TypeError, match="Expected `s_tir.LoopRV`"):
    sch.trace.as_python()
again = s_tir.Schedule(padded)
sch.trace.apply_to_schedule(again, remove_postproc=False)
print("replayed:", tvm_ffi.structural_equal(again.mod, sch.mod))

# %% check
assert tvm_ffi.structural_equal(again.mod, sch.mod)

# %% cell: rolling


@T.prim_func(s_tir=True)
def windows(
    X: T.Buffer((34, 32), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    Y = T.sblock_alloc_buffer((34, 32), "float32")
    for i, j in T.grid(34, 32):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * X[vi, vj]
    for i, j, k in T.grid(32, 32, 3):
        with T.sblock("Z"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                Z[vi, vj] = T.float32(0)
            Z[vi, vj] = Z[vi, vj] + Y[vi + vk, vj]


def numpy_windows(x, z):
    y = x * x
    z[:] = y[:32] + y[1:33] + y[2:]


WINDOWS = Workload(windows, numpy_windows)
sch = WINDOWS.schedule()
sch.compute_at("Y", sch.get_loops("Z")[0])
with step(sch, WINDOWS):
    sch.rolling_buffer("Y", 0)

# %% cell: rolling-runs


def runs(sch):
    """How often the body of Y runs: rounds in which its predicate holds."""
    loops = [sch.get(loop) for loop in sch.get_loops("Y")]
    # Printed, the predicate is Python, but for its constant.
    predicate = str(loops[-1].body.predicate).replace("T.bool(True)", "True")
    names = [loop.loop_var.name for loop in loops]
    shape = [int(loop.extent) for loop in loops]
    return sum(
        bool(eval(predicate, dict(zip(names, at, strict=True))))
        for at in np.ndindex(*shape)
    )


computed = WINDOWS.schedule()
computed.compute_at("Y", computed.get_loops("Z")[0])
print("runs of Y in its row:   ", runs(computed))
print("with a rolling buffer:  ", runs(sch))

# %% check
assert runs(computed) == 32 * 3 * 32 and runs(sch) == 34 * 32
glue("runs_in_row", runs(computed))
glue("runs_rolling", runs(sch))

# %% cell: rolling-refused
sch = WINDOWS.schedule()
with refused("rolling_buffer", match="should be tiled"):
    sch.rolling_buffer("Y", 0)
with refused("rolling_buffer", match="is an output block"):
    sch.rolling_buffer("Z", 0)

# %% check
assert catalogue_problems("reduction") == []

# %% cell: solution-two-chains
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
k_out, k_in = sch.split(k, factors=[None, 2])
partial = sch.rfactor(k_in, factor_axis=2)
sch.reverse_compute_at("C", sch.get_loops(partial)[1])
print(changes(product, sch, context=0))
print("correct:", PRODUCT.agrees(sch))

# %% check
assert PRODUCT.agrees(sch)

# %% cell: solution-order
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
sch.decompose_reduction("C", k)
with expect_error(
    s_tir.ScheduleError, from_line="Error message:", max_lines=3
):
    sch.rfactor(k, factor_axis=0)
