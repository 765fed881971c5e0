"""
The TIR pipeline
================

Every pass of the default pipeline in order, who needs a target, what breaks
in another order, and a pass in Python with three ways to insert it.
"""

# %% cell: setup
import re
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from matplotlib.patches import Rectangle
from tvm import ir, s_tir, tirx
from tvm.s_tir.pipeline import default_s_tir_pipeline
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import COLORS, alt, new
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.schedules import changes

CUDA = {"kind": "cuda", "arch": "sm_80"}

# %% cell: workloads


@T.prim_func(s_tir=True)
def layer(
    A: T.Buffer((100, 64), "float32"),
    B: T.Buffer((64, 32), "float32"),
    D: T.Buffer((100, 32), "float32"),
):
    C = T.sblock_alloc_buffer((100, 32), "float32")
    for i, j, k in T.grid(100, 32, 64):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
    for i, j in T.grid(100, 32):
        with T.sblock("D"):
            vi, vj = T.axis.remap("SS", [i, j])
            D[vi, vj] = T.max(C[vi, vj], T.float32(0))


def for_cpu():
    """Pieces of 16 rows in parallel, vectors of 8."""
    sch = s_tir.Schedule(layer)
    i, j = sch.get_loops("D")
    piece, _ = sch.split(i, [None, 16])
    sch.compute_at("C", piece)
    vectors, lane = sch.split(j, [None, 8])
    sch.vectorize(lane)
    sch.unroll(vectors)
    sch.parallel(piece)
    return sch.mod


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


def for_gpu():
    """A thread block a row; 64 threads copy the row and sum it up."""
    sch = s_tir.Schedule(row_sums)
    i, k = sch.get_loops("S")
    sch.bind(i, "blockIdx.x")
    sch.bind(sch.split(k, [None, 64])[1], "threadIdx.x")
    copy = sch.cache_read("S", 0, "shared")
    sch.compute_at(copy, i)
    inner = sch.split(sch.get_loops(copy)[-1], [None, 64])[1]
    sch.bind(inner, "threadIdx.x")
    return sch.mod


# %% cell: pipeline
PURPOSE = {
    "tirx.BindTarget": "the target, in each function",
    "s_tir.CanonicalizeLoop": "loops start at 0 and step by 1",
    "s_tir.LowerCrossThreadReduction": "sums over threads: allreduce",
    "s_tir.LowerInitBlock": "T.init becomes an if",
    "s_tir.PlanAndUpdateBufferAllocationLocation": "buffers move inwards",
    "s_tir.ConvertBlocksToOpaque": "block variables disappear",
    "s_tir.LiftThreadBinding": "sibling thread loops move out",
    "s_tir.ManifestSharedMemoryLocalStage": "(annotation) via registers",
    "s_tir.CompactBufferAllocation": "buffers shrink to what is used",
    "s_tir.LowerAutoCopy": "(annotation) copies for GPUs",
    "s_tir.UnifyThreadBinding": "one variable for each thread axis",
    "s_tir.LowerMatchBuffer": "views become plain accesses",
    "s_tir.StmtSimplify": "arithmetic, with block facts",
    "s_tir.InjectPermutedLayout": "(annotation) swizzled memory",
    "s_tir.AnnotateIrregularLoop": "marks loops that end early",
    "s_tir.InjectSoftwarePipeline": "(annotation) overlapping stages",
    "s_tir.TransformMmaBufferLayout": "(scope) tensor-core registers",
    "s_tir.LowerOpaqueBlock": "blocks disappear",
    "tirx.FlattenBuffer": "one index for each access",
    "tirx.BF16ComputeLegalize": "bfloat16 computes in float32",
    "tirx.NarrowDataType": "indices in 32 bits, if they fit",
    "s_tir.LoopPartition": "(hint) loops are cut in parts",
    "tirx.VectorizeLoop": "vectorised loops become ramps",
    "s_tir.InjectVirtualThread": "virtual threads become copies",
    "s_tir.InjectDoubleBuffer": "(attribute) two buffers in turn",
    "tirx.StorageRewrite": "buffers share memory",
    "s_tir.HoistIfThenElse": "conditions move out of loops",
    "tirx.UnrollLoop": "unrolled loops become copies",
    "s_tir.RenormalizeSplitPattern": "x % 16 // 4 becomes x // 4 % 4",
    "tirx.StmtSimplify": "arithmetic, once more",
    "tirx.RemoveNoOp": "statements without effect",
    "s_tir.RewriteUnsafeSelect": "selects become branches",
    "tirx.CommonSubexprElim": "repeated expressions get a name",
    "tirx.FP8ComputeLegalize": "8-bit floats compute in 32",
    "s_tir.VerifyVTCMLimit": "check (Hexagon)",
    "s_tir.LowerVtcmAlloc": "(scope) memory of Hexagon",
    "tirx.VerifyMemory": "check: who touches memory",
    "tirx.AnnotateEntryFunc": "the only function is the entry",
    "s_tir.ThreadSync": "barriers",
    "s_tir.InferFragment": "(scope) facts for tensor cores",
    "s_tir.LowerThreadAllreduce": "allreduce becomes shuffles",
    "s_tir.MergeSharedMemoryAllocations": "one allocation a kernel",
    "tirx.SplitHostDevice": "kernels become functions",
    "tirx.MakePackedAPI": "the C calling convention",
    "tirx.FP8StorageLegalize": "8-bit floats stored as uint8",
    "tirx.BF16StorageLegalize": "bfloat16 stored as uint16",
    "tirx.LowerTVMBuiltin": "calls of the runtime (host)",
    "tirx.LowerIntrin": "operations that the target lacks",
    "tirx.LowerWarpMemory": "warp memory (device)",
}


def mark(**stages):
    """The functions that a pass changes; ~ if no text changes."""
    names = [name for name, stage in stages.items() if stage.changed]
    text = "both" if len(names) == 2 else "".join(names) or "-"
    silent = not any(s.text_changed for s in stages.values())
    return text + "~" * (bool(names) and silent)


cpu, gpu = tir_stages(for_cpu()), tir_stages(for_gpu(), CUDA)
print("number and pass | for | what it does")
for number, (one, two) in enumerate(zip(cpu, gpu, strict=False)):
    assert one.name == two.name
    name = one.name.replace("UpdateBufferAllocationLocation", "Update…")
    marks = mark(CPU=one, GPU=two)
    print(f"{number} `{name}` | {marks} | {PURPOSE[one.name]}")

# %% check
assert len(gpu) > len(cpu) and {s.name for s in cpu + gpu} == set(PURPOSE)
glue("passes", len(cpu))
glue("cpu_changing", sum(s.changed for s in cpu))
glue("gpu_changing", sum(s.changed for s in gpu))
both = {s.name for s in cpu + gpu if s.changed}
glue("never", len(set(PURPOSE) - both))
device_only = [s.name for s in gpu[len(cpu) :]]

# %% cell: device-part
print("host:  ", *[s.name for s in cpu[-2:]])
print("device:", *[s.name for s in gpu[-3:]])

# %% cell: lifetimes


def constructs(mod):
    """How often each construct occurs that some pass removes or makes."""
    found = dict.fromkeys(CONSTRUCTS, 0)

    def see(name, condition=True):
        found[name] += bool(condition)

    def on_block(block):
        see("blocks")
        see("block variables", block.iter_vars)
        see("T.init", block.init is not None)

    def on_loop(loop):
        kind = tirx.ForKind(loop.kind).name
        see("thread-bound loops", kind == "THREAD_BINDING")
        see("vectorised loops", kind == "VECTORIZED")
        see("unrolled loops", kind == "UNROLLED")

    def on_call(call):
        see("allreduce", "allreduce" in str(call.op))
        see("shuffles", "shuffle_down" in str(call.op))
        see("workspace calls", "AllocWorkspace" in str(call.op))

    for func in mod.functions.values():
        tvm_ffi.structural_walk(
            func.body,
            [
                (s_tir.SBlock, on_block),
                (tirx.For, on_loop),
                (
                    ir.TensorLoad,
                    lambda e: see("matrices", len(e.indices) > 1),
                ),
                (tirx.Ramp, lambda e: see("ramps")),
                (tirx.AssertStmt, lambda e: see("argument checks")),
                (ir.Call, on_call),
            ],
        )
        see("kernel functions", "tirx.kernel_launch_params" in func.attrs)
    return found


CONSTRUCTS = (
    "T.init", "block variables", "thread-bound loops", "blocks", "matrices",
    "vectorised loops", "unrolled loops", "ramps", "allreduce", "shuffles",
    "kernel functions", "argument checks", "workspace calls",
)  # fmt: skip
# Host and device are finished apart; the kernel stays as it is here.
joined = gpu[: len(cpu) - 2] + [gpu[len(cpu) - 3]] * 2
alive = [
    {n: bool(a[n] or b[n]) for n in CONSTRUCTS}
    for a, b in zip(
        [constructs(s.after) for s in cpu],
        [constructs(s.after) for s in joined],
        strict=True,
    )
]
fig, ax = new("text", 3.6)
events = {}
for row, name in enumerate(CONSTRUCTS):
    at = [i for i, present in enumerate(alive) if present[name]]
    ax.add_patch(
        Rectangle(
            (at[0], row - 0.34),
            at[-1] + 1 - at[0],
            0.68,
            color=COLORS["navy" if row < 4 else "green"],
        )
    )
    last = at[-1] + 1
    born = cpu[at[0]].name if at[0] else None
    dead = cpu[last].name if last < len(cpu) else None
    events[name] = born, dead
    ends = [e.split(".")[1] for e in (born, dead) if e]
    ax.text(last + 0.5, row, ", ".join(ends), va="center", fontsize=7.5)
ax.set(xlim=(0, len(cpu) + 34), ylim=(len(CONSTRUCTS) - 0.4, -0.6))
ax.set_yticks(range(len(CONSTRUCTS)), CONSTRUCTS)
ax.set_xticks(range(0, len(cpu) + 1, 10))
ax.set_xlabel("number of the pass")
alt(fig, "Bars over the passes: where each construct is in the IR.")

# %% check
assert events["blocks"] == (None, "s_tir.LowerOpaqueBlock")
assert events["T.init"] == (None, "s_tir.LowerInitBlock")
assert events["matrices"] == (None, "tirx.FlattenBuffer")
assert events["argument checks"][0] == "tirx.MakePackedAPI"

# %%


def without_target(mod):
    funcs = {
        var: func.without_attr("target")
        for var, func in mod.functions.items()
    }
    return tvm.IRModule(funcs, attrs=mod.attrs)


makers = {"tirx": tirx.transform, "s_tir": s_tir.transform}
ARGUMENTS = {"tirx.NarrowDataType": [32]}
SCOPES = ["shared", "shared.dyn", "warp"]


def default_passes():
    """The passes of the default pipeline, as objects one can rearrange."""
    scopes, passes = iter(SCOPES), []
    for stage in cpu[1:-2]:
        package, name = stage.name.split(".")
        arguments = ARGUMENTS.get(stage.name, [])
        if name == "ThreadSync":
            arguments = [next(scopes)]
        passes.append(getattr(makers[package], name)(*arguments))
    return passes


PASSES = default_passes()

# %% cell: needs-target
needy = []
host = [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]
for stage, step in zip(cpu[1:], PASSES + host, strict=True):
    try:
        step(without_target(stage.before))
    except tvm.error.InternalError as error:
        needy.append(stage.name)
        reason = str(error).splitlines()[-1].split("is false: ")[1]
        print(f"{stage.name:26s} {reason[:62]}")

# %% check
assert [str(p.info.name) for p in PASSES] == [s.name for s in cpu[1:-2]]
assert needy == [
    "s_tir.LowerThreadAllreduce",
    "tirx.SplitHostDevice",
    "tirx.MakePackedAPI",
    "tirx.LowerIntrin",
]

# %% cell: options


def names(config):
    return [s.name for s in tir_stages(for_cpu(), config=config)]


OPTIONS = (
    "tirx.disable_storage_rewrite",
    "tirx.disable_cse_tir",
    "tirx.use_async_copy",
    "tirx.instrument_bound_checkers",
    "tirx.s_tir.ldg32",
    "tirx.instrument_lwp",
    "tirx.disable_vectorize",
)
usual = [s.name for s in cpu]
for option in OPTIONS:
    chosen = names({option: True})
    less = [f"- {n}" for n in usual if n not in chosen]
    more = [f"+ {n}" for n in chosen if n not in usual]
    effect = ", ".join(less + more) or "same passes"
    print(f"{option:31s} {effect}")

# %% check
levels = {int(p.info.opt_level) for p in PASSES + host}
assert levels == {0}
for old in ("tir.disable_vectorize", "tir.disable_cse_tir"):
    with expect_error(AttributeError, match="Invalid config", show=False):
        tvm.transform.PassContext(config={old: True})

# %%
rng = np.random.default_rng(0)
a = rng.standard_normal((100, 64), dtype="float32")
b = rng.standard_normal((64, 32), dtype="float32")
expected = np.maximum(a @ b, 0)
LLVM = tvm.target.Target("llvm").with_host("llvm")


def outcome(passes, mod=None, target=LLVM):
    """Lower with these passes; say which one stops, or what comes out."""
    mod = tirx.transform.BindTarget(target)(mod or for_cpu())
    for step in passes:
        try:
            mod = step(mod)
        except (tvm.error.InternalError, TypeError) as error:
            reason = str(error).strip().splitlines()[-1]
            reason = re.sub(r".*(is false|\(\d+ vs\. \d+\)) ?: ", "", reason)
            reason = re.split(r" \(Alloc|, but| is false", reason)[0][:50]
            return f"{str(step.info.name).split('.')[1]} stops: {reason}"
    if target is not LLVM:
        kernels = [v.name_hint for v in mod.functions if "_k" in v.name_hint]
        exchange = "shuffle" in mod.script()
        return f"runs; kernels {kernels}, threads exchange: {exchange}"
    for step in host:
        mod = step(mod)
    sizes = re.findall(r"AllocWorkspace\(.*?uint64\((\d+)", mod.script())
    function = tvm.get_global_func("target.build.llvm")(mod, target)["layer"]
    d = tvm.runtime.empty((100, 32), "float32")
    function(tvm.runtime.tensor(a), tvm.runtime.tensor(b), d)
    right = np.allclose(d.numpy(), expected, atol=1e-4)
    return f"{'right' if right else 'WRONG'}, {sizes[0]} bytes of workspace"


def find(name, passes):
    return [str(p.info.name).split(".")[1] for p in passes].index(name)


def without(name):
    at = find(name, PASSES)
    return PASSES[:at] + PASSES[at + 1 :]


def moved(name, before):
    rest = without(name)
    at = find(before, rest)
    return [*rest[:at], PASSES[find(name, PASSES)], *rest[at:]]


# %% cell: order
print("as it is:", outcome(PASSES))
LEFT_OUT = (
    "LowerInitBlock",
    "ConvertBlocksToOpaque",
    "LowerOpaqueBlock",
    "FlattenBuffer",
    "VectorizeLoop",
    "MakePackedAPI",
    "PlanAndUpdateBufferAllocationLocation",
    "CompactBufferAllocation",
)
for name in LEFT_OUT:
    print(f"without {name}:\n    {outcome(without(name))}")

# %% check
assert outcome(PASSES).startswith("right, 2048")
assert outcome(without("CompactBufferAllocation")).startswith("right, 12800")
stopped = [name for name in LEFT_OUT if "stops" in outcome(without(name))]
assert stopped == list(LEFT_OUT[:6])

# %% cell: moved
for name, before in (
    ("VectorizeLoop", "LowerOpaqueBlock"),
    ("StorageRewrite", "VectorizeLoop"),
    ("MakePackedAPI", "FlattenBuffer"),
    ("BF16StorageLegalize", "MakePackedAPI"),
    ("CompactBufferAllocation", "PlanAndUpdateBufferAllocationLocation"),
):
    print(f"{name} before {before}:\n    {outcome(moved(name, before))}")

# %% cell: silent
GPU = tvm.target.Target(CUDA, host="llvm")
print("as it is:\n   ", outcome(PASSES, for_gpu(), GPU))
for name, before in (
    ("LowerCrossThreadReduction", "PlanAndUpdateBufferAllocationLocation"),
    ("MakePackedAPI", "SplitHostDevice"),
):
    text = outcome(moved(name, before), for_gpu(), GPU)
    print(f"{name} before {before}:\n    {text}")

# %% check
swapped = moved("LowerCrossThreadReduction", "ConvertBlocksToOpaque")
assert "exchange: False" in outcome(swapped, for_gpu(), GPU)
assert "exchange: True" in outcome(PASSES, for_gpu(), GPU)
swapped = moved("MakePackedAPI", "SplitHostDevice")
assert "kernels []" in outcome(swapped, for_gpu(), GPU)

# %% cell: option-fields
STRUCTURED = (
    "tirx.UnrollLoop",
    "tirx.StmtSimplify",
    "tirx.RemoveNoOp",
    "s_tir.LoopPartition",
    "s_tir.HoistIfThenElse",
)
for option in STRUCTURED:
    package, name = option.split(".")
    default = tvm.ir.make_node(f"{package}.transform.{name}Config")
    fields = str(default).partition("(")[2][:-1]
    print(fill(f"{option}: {fields}", 76, subsequent_indent="    "))

# %% cell: own-pass


@tirx.transform.prim_func_pass(opt_level=0, name="deepdive.FastDivision")
def fast_division(func, mod, ctx):
    """x / c becomes x * (1 / c), where the function allows it."""
    if "deepdive.fast_division" not in func.attrs:
        return func

    def on_division(node):
        if not isinstance(node.b, tirx.FloatImm):
            return node
        return node.a * tirx.FloatImm(str(node.b.ty), 1 / node.b.value)

    return tvm_ffi.structural_map(func, (tirx.Div, on_division))


@T.prim_func(s_tir=True)
def thirds(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
    T.func_attr({"deepdive.fast_division": True})
    for i in T.vectorized(64):
        with T.sblock("B"):
            v = T.axis.spatial(64, i)
            B[v] = A[v] / T.float32(3)


mod = tvm.IRModule({"thirds": thirds})
print(changes(mod["thirds"], fast_division(mod)["thirds"], context=0))
print(fast_division.info)

# %% cell: insert


def with_fast_division():
    """A pipeline factory: the pipeline, and two that finish its result."""
    pipeline, finish_host, finish_device = default_s_tir_pipeline()
    chain = tvm.transform.Sequential([fast_division, pipeline])
    return chain, finish_host, finish_device


tirx.compilation_pipeline.register_tir_pipeline("fast", with_fast_division)


def divisions(**how):
    lib = tvm.compile(mod, target="llvm", **how).mod
    return lib.inspect_source("ll").count(" fdiv ")


print("default:", divisions(), "divisions in the LLVM IR")
print("fast:   ", divisions(tir_pipeline="fast"))

# %% cell: position


def fast_division_before(name):
    at = find(name, PASSES)
    return [*PASSES[:at], fast_division, *PASSES[at:]]


def divides(passes):
    lowered = tirx.transform.BindTarget(LLVM)(mod)
    lowered = tvm.transform.Sequential(passes)(lowered)
    count = []
    tvm_ffi.structural_walk(lowered, (tirx.Div, count.append))
    return len(count)


for place in ("LowerInitBlock", "VectorizeLoop", "StorageRewrite"):
    print(f"before {place:15s} {divides(fast_division_before(place))} left")

# %% cell: refused-ways
with expect_error(AssertionError):
    tirx.build(mod, "llvm", pipeline=with_fast_division()[0])
with expect_error(ValueError, match="Unknown pre-built pipeline"):
    tirx.build(mod, "llvm", pipeline="faster")
zero = tirx.IntImm("int32", 0)
old_option = {"tirx.add_lower_pass": [[zero, fast_division]]}
with tvm.transform.PassContext(config=old_option):
    print("with tirx.add_lower_pass:", divisions(), "division")

# %% check
assert divisions() == 1 and divisions(tir_pipeline="fast") == 0
x = rng.standard_normal(64, dtype="float32")
y = tvm.runtime.empty((64,), "float32")
tvm.compile(mod, "llvm", tir_pipeline="fast")(tvm.runtime.tensor(x), y)
assert np.allclose(y.numpy(), x / 3, rtol=1e-6)

# %% cell: broken-default
print(sorted(tirx.compilation_pipeline.PIPELINE_MAP))
pipeline, *_ = tirx.compilation_pipeline.default_tir_pipeline()
with expect_error(AttributeError, match="LowerInitBlock"):
    pipeline(mod)

# %% cell: solution-disable


def workspace(**context):
    """Bytes that a build of the CPU workload allocates while it runs."""
    with tvm.transform.PassContext(**context):
        lib = tvm.compile(for_cpu(), target="llvm").mod
    pattern = r"i64 (?:noundef )?(\d+), i32 2, i32 32\)"
    calls = re.findall(pattern, lib.inspect_source("ll"))
    return sorted({int(size) for size in calls})


print("default:", workspace())
name = "s_tir.CompactBufferAllocation"
print("disabled:", workspace(disabled_pass=[name]))

# %% cell: solution-count-pass
counted = {}


@tirx.transform.prim_func_pass(opt_level=0, name="deepdive.CountLoads")
def count_loads(func, mod, ctx):
    loads = []
    tvm_ffi.structural_walk(func.body, (ir.TensorLoad, loads.append))
    counted.setdefault(str(func.attrs["global_symbol"]), []).append(
        len(loads)
    )
    return func


@T.prim_func(s_tir=True)
def squares(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
    for i, j in T.grid(8, 8):
        with T.sblock("B"):
            v = T.axis.spatial(64, i * 8 + j)
            B[v] = A[v] * A[v]


at = find("CommonSubexprElim", PASSES)
chain = [*PASSES[:at], count_loads, PASSES[at]]
lowered = tirx.transform.BindTarget(LLVM)(tvm.IRModule({"main": squares}))
lowered = count_loads(tvm.transform.Sequential(chain)(lowered))
print(counted)
show(lowered["main"], keep="cse", context=0)

# %% check
assert counted == {"squares": [2, 2]}
assert workspace(disabled_pass=[name]) > workspace()
plan = "PlanAndUpdateBufferAllocationLocation"
flat = tvm.transform.Sequential(without(plan)[:20])(for_cpu()).script()
assert flat.index("C = T.alloc_buffer") < flat.index("T.parallel")
