"""
TIR passes one by one
=====================

What the passes of the default pipeline do: for each that has something to
do on a CPU or for a common GPU kernel, a small input and the difference.
"""

# %% cell: setup
import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.schedules import changes

CUDA = {"kind": "cuda", "arch": "sm_80"}
seen = set()


def show_pass(name, func, target="llvm", lines=None, context=0, **options):
    """What a pass does to a function when its turn comes in the pipeline."""
    stages = tir_stages(func, target, config=options)
    stage = next(
        s for s in stages if s.name.endswith(f".{name}") and s.text_changed
    )
    seen.add(stage.name)
    text = changes(stage.before, stage.after, context=context)
    print(f"# {name}")
    print(text if lines is None else cut(text, lines=lines))


# %% cell: chain


@T.prim_func(s_tir=True)
def chain(
    A: T.Buffer((100, 128), "float32"), C: T.Buffer((100, 128), "float32")
):
    B = T.sblock_alloc_buffer((100, 128), "float32")
    for i, j in T.grid(100, 128):
        with T.sblock("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj] * T.float32(2)
    for i, j in T.grid(100, 128):
        with T.sblock("C"):
            vi, vj = T.axis.remap("SS", [i, j])
            C[vi, vj] = B[vi, vj] + T.float32(1)


sch = s_tir.Schedule(chain)
i, j = sch.get_loops("C")
piece, _ = sch.split(i, [None, 16])
sch.compute_at("B", piece)
sch.vectorize(sch.split(j, [None, 16])[1])
scheduled = sch.mod
show_pass("PlanAndUpdateBufferAllocationLocation", scheduled, context=1)

# %% cell: opaque
show_pass("ConvertBlocksToOpaque", scheduled)

# %% cell: compact
show_pass("CompactBufferAllocation", scheduled)

# %% cell: lower-opaque
show_pass("LowerOpaqueBlock", scheduled)

# %% cell: flatten
show_pass("FlattenBuffer", scheduled)

# %% cell: vectorize
show_pass("VectorizeLoop", scheduled)

# %% cell: simplify
show_pass("StmtSimplify", scheduled)

# %% cell: init


@T.prim_func(s_tir=True)
def row_sums(
    A: T.Buffer((64, 256), "float32"), S: T.Buffer((64,), "float32")
):
    for i, k in T.grid(64, 256):
        with T.sblock("S"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                S[vi] = T.float32(0)
            S[vi] = S[vi] + A[vi, vk]


show_pass("LowerInitBlock", row_sums)

# %% cell: canonical


@T.prim_func(s_tir=True)
def steps(A: T.Buffer((16,), "float32")):
    for i in T.serial(2, 10, step=2):
        if A[i] < T.float32(0):
            T.evaluate(T.break_loop())
        A[i] = A[i] * T.float32(2)


show_pass("CanonicalizeLoop", steps)
show_pass("AnnotateIrregularLoop", steps)

# %% cell: match-buffer


@T.prim_func(s_tir=True)
def view(A: T.Buffer((16, 16), "float32")):
    for i, j in T.grid(4, 4):
        with T.sblock("tile"):
            vi, vj = T.axis.remap("SS", [i, j])
            T.writes(A[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4])
            W = T.match_buffer(
                A[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4],
                (4, 4),
                offset_factor=1,
                strides=[T.int32(), 1],
            )
            W[0, 1] = T.float32(1)


show_pass("LowerMatchBuffer", view)

# %% cell: pipeline-loop


NOTES = {
    "software_pipeline_stage": [0, 1],
    "software_pipeline_order": [0, 1],
}


@T.prim_func(s_tir=True)
def staged(A: T.Buffer((8, 16), "float32"), B: T.Buffer((8, 16), "float32")):
    for i in T.serial(8, annotations=NOTES):
        with T.sblock("row"):
            vi = T.axis.spatial(8, i)
            W = T.sblock_alloc_buffer((16,), "float32")
            for j in range(16):
                with T.sblock("load"):
                    vj = T.axis.spatial(16, j)
                    W[vj] = A[vi, vj]
            for j in range(16):
                with T.sblock("use"):
                    vj = T.axis.spatial(16, j)
                    B[vi, vj] = W[vj] + T.float32(1)


stages = {s.name: s for s in tir_stages(staged)}
assert stages["s_tir.InjectSoftwarePipeline"].changed
seen.add("s_tir.InjectSoftwarePipeline")
print(cut(script(stages["tirx.StmtSimplify"].after["staged"]), start="  W ="))

# %% cell: narrow


@T.prim_func(s_tir=True)
def small(A: T.Buffer((T.int64(16), T.int64(16)), "float32")):
    for i, j in T.grid(T.int64(16), T.int64(16)):
        A[i, j] = T.float32(0)


@T.prim_func(s_tir=True)
def huge(A: T.Buffer((T.int64(65536), T.int64(65536)), "int8")):
    for i, j in T.grid(T.int64(65536), T.int64(65536)):
        A[i, j] = T.int8(0)


show_pass("NarrowDataType", small)
narrow = {s.name: s for s in tir_stages(huge)}["tirx.NarrowDataType"]
print("# NarrowDataType, the huge matrix")
print(cut(script(narrow.after["huge"]), start=" for"))

# %% cell: partition


@T.prim_func(s_tir=True)
def hint(A: T.Buffer((100,), "float32")):
    for i, j in T.grid(7, 16):
        if T.likely(i * 16 + j < 100):
            A[i * 16 + j] = T.float32(1)


option = {"s_tir.LoopPartition": {"partition_const_loop": True}}
show_pass("LoopPartition", hint, **option)
clean = {s.name: s for s in tir_stages(hint, config=option)}
print("# after HoistIfThenElse, which also cleans up")
print(cut(script(clean["s_tir.HoistIfThenElse"].after["hint"]), start=" for"))

# %% cell: vectorize-if


@T.prim_func(s_tir=True)
def masked(A: T.Buffer((16,), "float32"), n: T.int32):
    for i in T.vectorized(16):
        if i < n:
            A[i] = T.float32(1)


show_pass("VectorizeLoop", masked)
masks = {"tirx.enable_buffer_level_predication": True}
show_pass("VectorizeLoop", masked, **masks)

# %% check
with tvm.transform.PassContext(config=masks):
    ones = tvm.compile(masked, target="llvm")
row = tvm.runtime.tensor(np.zeros(16, "float32"))
ones(row, 5)
assert row.numpy().tolist() == [1] * 5 + [0] * 11

# %% cell: storage


@T.prim_func(s_tir=True)
def three(A: T.Buffer((16,), "float32"), D: T.Buffer((16,), "float32")):
    B = T.alloc_buffer((16,), "float32")
    for i in range(16):
        B[i] = A[i] + T.float32(1)
    C = T.alloc_buffer((16,), "float32")
    for i in range(16):
        C[i] = B[i] * T.float32(2)
    for i in range(16):
        D[i] = C[i] - T.float32(1)


show_pass("StorageRewrite", three)

# %% cell: hoist


@T.prim_func(s_tir=True)
def condition(A: T.Buffer((16, 16), "float32"), n: T.int32):
    for i, j in T.grid(16, 16):
        if i < n:
            A[i, j] = T.float32(1)


show_pass("HoistIfThenElse", condition)

# %% cell: unroll


@T.prim_func(s_tir=True)
def unrolled(A: T.Buffer((3,), "float32")):
    for i in T.unroll(3):
        A[i] = T.float32(0)


@T.prim_func(s_tir=True)
def automatic(A: T.Buffer((8, 2), "float32")):
    for i, j in T.grid(8, 2):
        A[i, j] = T.float32(0)


show_pass("UnrollLoop", unrolled)
show_pass(
    "UnrollLoop",
    automatic,
    **{"tirx.UnrollLoop": {"auto_max_step": 4, "explicit_unroll": True}},
)

# %% cell: arithmetic


@T.prim_func(s_tir=True)
def index(
    A: T.Buffer((64,), "float32"),
    B: T.Buffer((16, 4), "float32"),
):
    for i, j in T.grid(16, 4):
        B[i, j] = A[(i + j) % 16 // 4] * A[(i + j) % 16 // 4]


show_pass("RenormalizeSplitPattern", index)
show_pass("CommonSubexprElim", index)

# %% cell: no-op


@T.prim_func(s_tir=True)
def idle(A: T.Buffer((4,), "float32")):
    for i in range(4):
        A[i] = A[i]
    A[0] = T.float32(1)


show_pass("StmtSimplify", idle)
simple = {s.name: s for s in tir_stages(idle)}["s_tir.StmtSimplify"].after
print("# RemoveNoOp")
print(changes(simple, tirx.transform.RemoveNoOp()(simple), context=0))
seen.add("tirx.RemoveNoOp")

# %% cell: select


@T.prim_func(s_tir=True)
def shifted(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in range(16):
        B[i] = T.Select(i > 0, A[i - 1], T.float32(0))


show_pass("RewriteUnsafeSelect", shifted)

# %% cell: small-floats


@T.prim_func(s_tir=True)
def half(A: T.Buffer((16,), "bfloat16"), B: T.Buffer((16,), "bfloat16")):
    for i in range(16):
        B[i] = A[i] + A[i]


stages = {s.name: s for s in tir_stages(half)}
for name in ("tirx.BF16ComputeLegalize", "tirx.BF16StorageLegalize"):
    stage = stages[name]
    seen.add(name)
    new = [
        line
        for line in changes(stage.before, stage.after, 0).splitlines()
        if line.startswith("+") and "[i]" in line
    ]
    print(f"# {name}")
    print("\n".join(line.strip()[:76] for line in new))

# %% cell: cross-thread
sch = s_tir.Schedule(row_sums)
i, k = sch.get_loops("S")
sch.bind(i, "blockIdx.x")
sch.bind(sch.split(k, [None, 64])[1], "threadIdx.x")
copy = sch.cache_read("S", 0, "shared")
sch.compute_at(copy, i)
sch.bind(sch.split(sch.get_loops(copy)[-1], [None, 64])[1], "threadIdx.x")
on_gpu = sch.mod
show_pass("LowerCrossThreadReduction", on_gpu, CUDA)

# %% cell: lift
show_pass("LiftThreadBinding", on_gpu, CUDA, lines=12)

# %% cell: thread-sync
show_pass("ThreadSync", on_gpu, CUDA)
show_pass("LowerThreadAllreduce", on_gpu, CUDA, lines=26)

# %% cell: barrier-refused


@T.prim_func(s_tir=True)
def maybe(
    A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32"), n: T.int32
):
    for _ in T.thread_binding(1, thread="blockIdx.x"):
        for i in T.thread_binding(64, thread="threadIdx.x"):
            V = T.alloc_buffer((64,), "float32", scope="shared")
            if i < n:
                V[i] = A[i]
                B[i] = V[63 - i]


with expect_error(tvm.error.InternalError, match="Cannot insert syncs"):
    tir_stages(maybe, CUDA)

# %% cell: unequal


@T.prim_func(s_tir=True)
def unequal(A: T.Buffer((64,), "float32"), B: T.Buffer((32,), "float32")):
    for _ in T.thread_binding(1, thread="blockIdx.x"):
        for t in T.thread_binding(64, thread="threadIdx.x"):
            with T.sblock("A"):
                v = T.axis.spatial(64, t)
                A[v] = T.float32(0)
        for t in T.thread_binding(32, thread="threadIdx.x"):
            with T.sblock("B"):
                v = T.axis.spatial(32, t)
                B[v] = T.float32(0)


stages = {s.name: s for s in tir_stages(unequal, CUDA)}
print(
    cut(
        script(stages["s_tir.LowerOpaqueBlock"].after["unequal"]),
        start="x = T",
    )
)
with expect_error(ValueError, match="should have the same extent"):
    opaque = s_tir.transform.ConvertBlocksToOpaque()
    unify = s_tir.transform.UnifyThreadBinding()
    unify(opaque(tvm.IRModule({"main": unequal})))

# %% check
assert not stages["s_tir.UnifyThreadBinding"].changed

# %% cell: virtual


@T.prim_func(s_tir=True)
def plus_one(A: T.Buffer((256,), "float32"), B: T.Buffer((256,), "float32")):
    for i in range(256):
        with T.sblock("B"):
            v = T.axis.spatial(256, i)
            B[v] = A[v] + T.float32(1)


sch = s_tir.Schedule(plus_one)
AXES = ("blockIdx.x", "vthread.x", "threadIdx.x")
parts = sch.split(sch.get_loops("B")[0], [2, 2, 64])
for loop, axis in zip(parts, AXES, strict=True):
    sch.bind(loop, axis)
show_pass("InjectVirtualThread", sch.mod, CUDA)

# %% cell: split-host
show_pass("SplitHostDevice", sch.mod, CUDA)
stages = {s.name: s for s in tir_stages(sch.mod, CUDA)}
after = stages["tirx.SplitHostDevice"].after
(kernel,) = [f for v, f in after.functions.items() if "kernel" in v.name_hint]
print("# the kernel")
print(cut(script(kernel), start="    B = "))
assert {v.name_hint for v in after.functions} == {"main", "plus_one_kernel"}

# %% cell: shared


@T.prim_func(s_tir=True)
def two_rows(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
    for _ in T.thread_binding(1, thread="blockIdx.x"):
        for i in T.thread_binding(64, thread="threadIdx.x"):
            V = T.alloc_buffer((64,), "float32", scope="shared.dyn")
            W = T.alloc_buffer((64,), "float32", scope="shared.dyn")
            V[i] = A[i]
            W[i] = A[63 - i]
            B[i] = V[63 - i] + W[63 - i]


show_pass("MergeSharedMemoryAllocations", two_rows, CUDA)

# %% cell: warp


@T.prim_func(s_tir=True)
def rotate(A: T.Buffer((32,), "float32"), B: T.Buffer((32,), "float32")):
    for _ in T.thread_binding(1, thread="blockIdx.x"):
        for i in T.thread_binding(32, thread="threadIdx.x"):
            W = T.alloc_buffer((32,), "float32", scope="warp")
            W[i] = A[i]
            B[i] = W[(i + 1) % 32]


show_pass("LowerWarpMemory", rotate, CUDA)

# %% cell: entry
stages = {s.name: s for s in tir_stages(three)}
for name in (
    "tirx.BindTarget",
    "tirx.AnnotateEntryFunc",
    "tirx.MakePackedAPI",
):
    stage = stages[name]
    seen.add(name)
    sides = [
        set(m["three"].attrs.keys()) for m in (stage.before, stage.after)
    ]
    print(f"{name:24s} adds {sorted(sides[1] - sides[0])}")
packed = stages["tirx.MakePackedAPI"]
print(
    "parameters:",
    *[p.name for p in packed.before["three"].params],
    "->",
    *[p.name for p in packed.after["three"].params],
)

# %% cell: builtin


@T.prim_func(s_tir=True)
def big(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    W = T.alloc_buffer((1024,), "float32")
    for i in range(1024):
        W[i] = A[i]
    for i in range(1024):
        B[i] = W[1023 - i]


@T.prim_func(s_tir=True)
def calls(n: T.int32):
    T.call_packed("deepdive.report", n)


show_pass("LowerTVMBuiltin", big)
show_pass("LowerTVMBuiltin", calls)


# %% check
def asks_runtime(n):
    """Does a buffer of so many floats come from the runtime?"""

    @T.prim_func(s_tir=True)
    def back(A: T.Buffer((n,), "float32"), B: T.Buffer((n,), "float32")):
        W = T.alloc_buffer((n,), "float32")
        for i in range(n):
            W[i] = A[i]
        for i in range(n):
            B[i] = W[n - 1 - i]

    library = tvm.compile(back, target="llvm").mod
    return "AllocWorkspace" in library.inspect_source("ll")


stack = 1024
assert asks_runtime(stack // 4) and not asks_runtime(stack // 4 - 1)
glue("stack", stack)

# %% cell: intrin


@T.prim_func(s_tir=True)
def needs_help(A: T.Buffer((16,), "float32"), N: T.Buffer((16,), "int32")):
    for i in range(16):
        A[i] = A[i] * A[i] + T.float32(1)
        N[i] = T.floordiv(N[i], 3)


show_pass("LowerIntrin", needs_help)

# %% cell: not-in-pipeline
with tvm.target.Target(CUDA):
    schedule = s_tir.transform.DefaultGPUSchedule()
    bound = schedule(tvm.IRModule({"main": plus_one}))
print("# DefaultGPUSchedule")
print(changes(plus_one, bound["main"], context=0))
checked = next(
    s for s in tir_stages(big) if s.name.endswith("PackedAPI")
).after
skipped = tirx.transform.SkipAssert()(checked)
number = [m.script().count("assert ") for m in (checked, skipped)]
print("# SkipAssert\nassertions:", *number)

# %% check
# Each function still computes what it says.
x = np.random.default_rng(0).standard_normal(16, dtype="float32")
y = tvm.runtime.empty((16,), "float32")
tvm.compile(three, target="llvm")(tvm.runtime.tensor(x), y)
assert np.allclose(y.numpy(), (x + 1) * 2 - 1)
tvm.compile(shifted, target="llvm")(tvm.runtime.tensor(x), y)
assert np.allclose(y.numpy(), np.append(0, x[:-1]))
m = np.random.default_rng(0).standard_normal((100, 128), dtype="float32")
out = tvm.runtime.empty((100, 128), "float32")
tvm.compile(scheduled, target="llvm")(tvm.runtime.tensor(m), out)
assert np.allclose(out.numpy(), m * 2 + 1)
glue("shown", len(seen))
assert len(seen) == 36

# %% cell: solution-mask


@T.prim_func(s_tir=True)
def selected(A: T.Buffer((16,), "float32"), n: T.int32):
    for i in T.vectorized(16):
        A[i] = T.Select(i < n, T.float32(1), A[i])


show_pass("VectorizeLoop", selected)
library = tvm.compile(selected, target="llvm")
print(
    "vector select:", "select <16 x i1>" in library.mod.inspect_source("ll")
)

# %% check
x = np.zeros(16, "float32")
row = tvm.runtime.tensor(x)
library(row, 5)
assert row.numpy().tolist() == [1] * 5 + [0] * 11

# %% cell: solution-reversed


@T.prim_func(s_tir=True)
def reverse(A: T.Buffer((16,), "float32"), D: T.Buffer((16,), "float32")):
    B = T.alloc_buffer((16,), "float32")
    for i in range(16):
        B[i] = A[i] + T.float32(1)
    C = T.alloc_buffer((16,), "float32")
    for i in range(16):
        C[i] = B[15 - i] * T.float32(2)
    for i in range(16):
        D[i] = C[i] - T.float32(1)


allocated = {}
for func in (three, reverse):
    lowered = {s.name: s for s in tir_stages(func)}["tirx.StorageRewrite"]
    name = func.attrs["global_symbol"]
    allocated[name] = lowered.after.script().count("T.alloc_buffer")
print("buffers after StorageRewrite:", allocated)

# %% check
assert allocated == {"three": 1, "reverse": 2}
