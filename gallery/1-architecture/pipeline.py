"""
One build, pass by pass
=======================

The running example is compiled once, with every pass recorded. The IR is
shown where its shape changes, passes are left out to see who needs them, and
the time is measured stage by stage.
"""

# %% cell: source
import inspect
import re
import textwrap
import time

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.tirx.build import codegen_build, split_host_device_mods

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import bar_chart, layered_graph
from tvm_deepdive_helpers.ir import count, cut, diff_text, show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.passes import PassRecorder, record
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    mlp,
    reference,
)

show(MLP)

# %% cell: build
seen = {}


@tvm.ir.instrument.pass_instrument
class Snapshots:
    """Keep the module as it is after the first run of each pass."""

    def run_after_pass(self, mod, info):
        seen.setdefault(str(info.name), mod)


log = PassRecorder(keep_scripts=True)
with tvm.transform.PassContext(instruments=[log, Snapshots()]):
    ex = tvm.compile(MLP, target="llvm")

args = arguments(seed=0)
expected = reference(*args)
vm = relax.VirtualMachine(ex, tvm.cpu())
y = vm["main"](*as_tensors(args)).numpy()
print(type(ex).__name__, "->", y.shape, y.dtype)
print("equal to numpy:", np.allclose(y, expected, atol=1e-3))

# %%
glue("passes", len(log.rows))
glue("leaves", len(log.leaves))
glue("changing", len(log.changing))
glue("outer", len(log.rows) - len(log.leaves))

# %% cell: changing
log.table(changing=True)

# %% cell: map
begun = [row.name for row in log.leaves]
cut_at = begun.index("tirx.BindTarget")
halves = log.leaves[:cut_at], log.leaves[cut_at:]
relax_size, tir_size = (
    f"{len(half)} passes, {sum(row.changed for row in half)} change"
    for half in halves
)
fig, _ = layered_graph(
    {
        "src": "IRModule\n1 Relax function",
        "relax": f"Relax pipeline\n{relax_size}",
        "low": "IRModule\n1 Relax function, 5 PrimFuncs",
        "vmgen": "relax.VMCodeGen",
        "tir": f"TIR pipeline\n{tir_size}",
        "code": "VM bytecode\nin an ExecBuilder",
        "packed": "IRModule\n5 functions of the C ABI",
        "llvm": "target.build.llvm",
        "lib": "runtime.Module\nLLVM IR",
        "link": "relax.VMLink",
        "exe": "VMExecutable",
        "vm": "VirtualMachine(ex, dev)\nLLVM IR becomes machine code",
        "call": 'vm["main"](*args)',
    },
    {
        ("src", "relax"): "",
        ("relax", "low"): "",
        ("low", "vmgen"): "the Relax function",
        ("low", "tir"): "the PrimFuncs",
        ("vmgen", "code"): "",
        ("tir", "packed"): "",
        ("packed", "llvm"): "",
        ("llvm", "lib"): "",
        ("code", "link"): "",
        ("lib", "link"): "",
        ("link", "exe"): "",
        ("exe", "vm"): "",
        ("vm", "call"): "",
    },
    colors={
        "relax": "green",
        "tir": "green",
        "vmgen": "vermilion",
        "llvm": "vermilion",
        "link": "vermilion",
        "vm": "purple",
        "call": "purple",
    },
    title="What becomes of the running example in one build",
)

# %% cell: legalize


def main_after(name):
    """The Relax function after a pass, without what repeats the shapes."""
    text = seen[name]["main"].script(show_all_ty=False)
    text = text.replace(", ty_args=(R.Tuple,)", "")
    text = text.replace('), dtype="float32")', "), …)")
    return re.sub(r"(alloc_\w+\(.*?R\.shape\(\[.*?\]\)).*", r"\1, …)", text)


show(main_after("LegalizeOps"), keep="R.call_tir", context=0)
print()
show(seen["LegalizeOps"]["matmul"], lines=(3, 20))

# %% cell: call-tir
show(main_after("CallTIRRewrite"), lines=(4, 9))

# %% cell: plan
show(main_after("StaticPlanBlockMemory"), keep="alloc_(sto|ten)", context=0)


def storages(text):
    """Sizes in bytes of the storages that a function allocates."""
    return [int(n) for n in re.findall(r"storage\(R\.shape\(\[(\d+)\]", text)]


planned = storages(main_after("LowerAllocTensor"))
print("storages in the end:", planned, "=", sum(planned), "bytes")

# %% cell: kill
show(main_after("KillAfterLastUse"), lines=(4, 12))

# %% cell: shape


def shorten(text):
    """Cut the error contexts, which repeat the signature."""
    return re.sub(r'R\.str\("ErrorContext.*?\) "\)', 'R.str("…")', text)


before, after = map(main_after, ("LowerRuntimeBuiltin", "VMShapeLower"))
change = shorten(diff_text(before, after, context=0))
print(cut(change, keep="shape_heap = |, x,", context=0))
print(re.search(r"ErrorContext\(.*?\) ", after)[0])

# %% cell: shape-missing
with expect_error(tvm.error.InternalError, match="after shape lowering"):
    with tvm.transform.PassContext(disabled_pass=["VMShapeLower"]):
        tvm.compile(mlp("n"), target="llvm")

# %% cell: split
lowered = seen["AttachGlobalSymbol"]
vm_codegen = tvm.get_global_func("relax.VMCodeGen")
builder = relax.ExecBuilder()
rest = vm_codegen(builder, lowered)
print("before:", count(lowered).kinds)
print("after: ", count(rest).kinds)
show(builder.get().as_text(), lines=13)

# %% cell: blocks


def matmul_after(name):
    """The loops of the first matrix product after a pass."""
    text = seen[name]["matmul"].script()
    return textwrap.dedent(text[text.index("    for i0") :])


for name in (
    "s_tir.LowerInitBlock",
    "s_tir.ConvertBlocksToOpaque",
    "s_tir.LowerOpaqueBlock",
):
    print("#", name)
    show(matmul_after(name))

# %% cell: flat
print("# tirx.FlattenBuffer")
show(matmul_after("tirx.FlattenBuffer"))
print("# tirx.NarrowDataType and tirx.CommonSubexprElim")
show(matmul_after("tirx.CommonSubexprElim"))

# %% cell: packed
packed = seen["tirx.MakePackedAPI"]["matmul"]
show(packed, keep="def |compute_scope|for i0|return 0", context=0)
checks = packed.script().count("assert ")
print("checks of the arguments:", checks)

# %%
api = log.find("tirx.MakePackedAPI")[0]
glue("lines_before_api", log.rows[api.index - 1].lines)
glue("lines_after_api", api.lines)
glue("checks", checks)

# %% cell: intrin
change = diff_text(
    matmul_after("tirx.LowerTVMBuiltin"),
    matmul_after("tirx.LowerIntrin"),
    context=0,
)
print(re.sub(r"(?m)^([+-]) +", r"\1 ", change))

# %% cell: leave-out
quick = tvm.target.Target({"kind": "llvm", "opt-level": 0})


def without(name, trace=False):
    """Disable one pass, build, run; say in a line how it went."""
    import numpy as np
    import tvm
    from tvm import relax

    from tvm_deepdive_helpers.running_example import (
        MLP,
        arguments,
        as_tensors,
        reference,
    )

    running, done = [], set()

    @tvm.ir.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, mod, info):
            running.append(str(info.name))
            if trace:
                print("in", running[-1], flush=True)

        def run_after_pass(self, mod, info):
            done.add(running.pop())

    # LLVM's own optimiser is off: it takes most of the time.
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    try:
        with tvm.transform.PassContext(
            disabled_pass=[name], instruments=[Watch()]
        ):
            ex = tvm.compile(MLP, target)
    except tvm.error.InternalError as err:
        stage = running[-1] if running else "code generation"
        return f"fails: in {stage}: {str(err).splitlines()[0]}"
    if name in done:
        return "runs all the same"
    args = arguments(seed=0)
    y = relax.VirtualMachine(ex, tvm.cpu())["main"](*as_tensors(args))
    right = np.allclose(y.numpy(), reference(*args), atol=1e-3)
    return "not needed" if right else "WRONG RESULT"


# One build logs a line with the time of day, another one dies.
alone = ("LowerAllocTensor", "s_tir.LowerOpaqueBlock")
crash = run_isolated(
    inspect.getsource(without)
    + f"for name in {alone}:\n    print(without(name, trace=True))\n"
)
trace = crash.stdout.splitlines()
outcome = {row.name: "" for row in log.changing}
outcome[alone[0]] = next(s for s in trace if not s.startswith("in "))
outcome[alone[1]] = f"{crash.describe()} {trace[-1]}"
for name, how in outcome.items():
    outcome[name] = how = how or without(name)
    how, _, why = how.partition(": ")
    print(f"{name:30}{how}")
    for line in textwrap.wrap(why, 68, max_lines=2, placeholder=" …"):
        print("   ", line)

# %%
needed = [n for n, s in outcome.items() if s.startswith(("fail", "killed"))]
glue("needed", len(needed))
glue("unneeded", sum(s == "not needed" for s in outcome.values()))
glue("undisabled", sum(s == "runs all the same" for s in outcome.values()))

# %% cell: wrong-order
build = [  # the passes of relax.get_pipeline("default"), in their order
    relax.backend.DispatchSampling(),
    relax.backend.DispatchSortScan(),
    relax.transform.LegalizeOps(),
    relax.transform.RewriteDataflowReshape(),
    relax.transform.ToNonDataflow(),
    relax.transform.RemovePurityChecking(),
    relax.transform.CallTIRRewrite(),
    relax.transform.StaticPlanBlockMemory(),
    relax.transform.RewriteCUDAGraph(),
    relax.transform.LowerAllocTensor(),
    relax.transform.KillAfterLastUse(),
    relax.transform.LowerRuntimeBuiltin(),
    relax.transform.ComputePrimValue(),
    relax.transform.VMShapeLower(),
    relax.transform.AttachGlobalSymbol(),
]


def moved(name, behind):
    """The pipeline with one pass taken out and put behind another."""
    names = [p.info.name for p in build]
    rest = [p for p in build if p.info.name != name]
    place = [p.info.name for p in rest].index(behind) + 1
    order = [*rest[:place], build[names.index(name)], *rest[place:]]
    return tvm.transform.Sequential(order)


for behind in ("CallTIRRewrite", "LowerAllocTensor"):
    text = moved("StaticPlanBlockMemory", behind)(MLP)["main"].script()
    sizes = storages(text)
    print(f"planned after {behind}: {sizes} = {sum(sizes)} bytes")

# %% cell: wrong-order-error
late = moved("KillAfterLastUse", "LowerRuntimeBuiltin")
with expect_error(tvm.error.InternalError, match="kill_tensor"):
    tvm.compile(MLP, quick, relax_pipeline=late)
early = moved("VMShapeLower", "ToNonDataflow")
tvm.compile(MLP, quick, relax_pipeline=early)  # all shapes are known
with expect_error(tvm.error.InternalError, match="after shape lowering"):
    tvm.compile(mlp("n"), quick, relax_pipeline=early)

# %%
late = moved("StaticPlanBlockMemory", "LowerAllocTensor")
text = late(MLP)["main"].script()
glue("bytes", sum(planned))
glue("unplanned", sum(storages(text)))

# %% cell: by-hand


def build_by_hand(mod, target):
    """What tvm.compile does, stage by stage; yields names and results."""
    with target:
        mod = relax.get_pipeline("default")(mod)
    yield "Relax passes", mod
    builder = relax.ExecBuilder()
    mod = tvm.get_global_func("relax.VMCodeGen")(builder, mod)
    yield "VM code generation", mod
    mod = tirx.transform.BindTarget(target.with_host(target))(mod)
    pipeline, finalize_host, _ = tirx.get_tir_pipeline("default")
    mod, _ = split_host_device_mods(pipeline(mod))
    mod = finalize_host()(mod)
    yield "TIR passes", mod
    lib = codegen_build(mod, target)
    yield "LLVM: target.build.llvm", lib
    exe = tvm.get_global_func("relax.VMLink")(builder, target, lib, [], {})
    exe = relax.VMExecutable(exe)
    yield "link", exe
    yield "LLVM: VirtualMachine()", relax.VirtualMachine(exe, tvm.cpu())


def timed_build(mod, target):
    """One build: milliseconds of each stage, and what it made."""
    times, made, last = {}, {}, time.perf_counter()
    for stage, result in build_by_hand(mod, target):
        now = time.perf_counter()
        times[stage], made[stage] = 1e3 * (now - last), result
        last = now
    return times, made


# %% cell: time, varies
llvm = tvm.target.Target("llvm")
rounds = [timed_build(MLP, llvm) for _ in range(3)]
ms = {stage: min(r[stage] for r, _ in rounds) for stage in rounds[0][0]}
orange = {stage: "vermilion" for stage in ms if stage.startswith("LLVM")}
fig, _ = bar_chart(
    ms,
    unit="milliseconds, least of 3 builds",
    form=".1f",
    color=orange,
    title="Where one build of the running example spends its time",
)

# %%
by_llvm = sum(t for stage, t in ms.items() if stage.startswith("LLVM"))
by_passes = ms["Relax passes"] + ms["TIR passes"]
glue("ms_passes", by_passes, varies=True)
glue("ms_total", sum(ms.values()), varies=True)
glue("percent_llvm", 100 * by_llvm / sum(ms.values()), varies=True)

# %% cell: every-pass, varies
log.table(times=True)

# %% cell: solution-symbolic
with record() as dynamic:
    tvm.compile(mlp("n"), quick)
old = {row.name for row in log.changing}
print("also change:", [r.name for r in dynamic.changing if r.name not in old])
with llvm:
    dynamic_mod = relax.get_pipeline("default")(mlp("n"))
# The statements come in no fixed order.
shape_func = dynamic_mod["shape_func"].script().splitlines()
print("\n".join(sorted(line.strip() for line in shape_func if "H[" in line)))

# %% cell: solution-chain
bb = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((256, 256), "float32"))
with bb.function("main", [x]):
    with bb.dataflow():
        value = x
        for op in (relax.op.exp, relax.op.tanh, relax.op.sigmoid) * 2:
            value = bb.emit(op(value))
        value = bb.emit_output(relax.op.nn.relu(value))
    bb.emit_func_output(value)
with llvm:
    chain = relax.get_pipeline("default")(bb.finalize())
sizes = storages(chain["main"].script())
print("tensors: 7, storages:", sizes)

# %% cell: solution-fence
legal = relax.transform.LegalizeOps()
with expect_error(tvm.error.InternalError, match="R.call_tir"):
    tvm.compile(MLP, quick, relax_pipeline=legal)
with expect_error(tvm.error.InternalError, match="R.matmul"):
    tvm.compile(MLP, quick, relax_pipeline=lambda mod: mod)

bb = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType(dtype="float32", ndim=2))  # what shape?
w = relax.Var("w", relax.TensorType((64, 128), "float32"))
with bb.function("main", [x, w]):
    bb.emit_func_output(bb.emit(relax.op.matmul(x, w)))
with expect_error(tvm.error.InternalError, match="R.matmul"):
    tvm.compile(bb.finalize(), quick)

# %% check
assert np.allclose(y, expected, atol=1e-3)
assert needed == [
    "LegalizeOps",
    "CallTIRRewrite",
    "LowerAllocTensor",
    "LowerRuntimeBuiltin",
    "AttachGlobalSymbol",
    "s_tir.LowerInitBlock",
    "s_tir.ConvertBlocksToOpaque",
    "s_tir.LowerOpaqueBlock",
    "tirx.FlattenBuffer",
    "tirx.MakePackedAPI",
]
assert outcome["s_tir.LowerOpaqueBlock"].startswith("killed by SIGSEGV")
assert "WRONG RESULT" not in outcome.values()
assert outcome["tirx.BindTarget"] == "runs all the same"
assert planned == [4096, 4096, 320]
assert tvm_ffi.structural_equal(
    seen["AttachGlobalSymbol"],
    tvm.transform.Sequential(build)(MLP),
    map_free_vars=True,
)
# Most of the time is LLVM's, and the passes take less than a half of it.
assert by_llvm > 2 * by_passes
vm_by_hand = rounds[0][1]["LLVM: VirtualMachine()"]
assert np.array_equal(vm_by_hand["main"](*as_tensors(args)).numpy(), y)
assert len(sizes) == 3
assert "s_tir.StmtSimplify" in {r.name for r in dynamic.changing} - old
assert "relax.force_pure" not in main_after("ToNonDataflow")
assert "relax.force_pure" in main_after("RemovePurityChecking")

# %% check
# Without RemovePurityChecking, call_pure_packed reaches the code generator.
bb = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((4,), "float32"))
with bb.function("main", [x]):
    packed_call = relax.op.call_pure_packed("f", x, ty_args=[x.ty])
    bb.emit_func_output(bb.emit(packed_call))
for disabled in ([], ["RemovePurityChecking"]):
    with tvm.transform.PassContext(disabled_pass=disabled):
        try:
            tvm.compile(bb.get(), quick)
        except tvm.error.InternalError as err:
            assert disabled and "R.call_pure_packed" in str(err), err
        else:
            assert not disabled

# %% check
# The range in which the planner reuses a storage: a sixteenth to sixteen
# times the size. `wide` takes 16 KiB and is dead when `first` is made.
for shrink, reused in ((16, True), (17, False)):
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4096,), "float32"))
    end = 4096 // shrink
    with bb.function("main", [x]):
        with bb.dataflow():
            wide = bb.emit(relax.op.exp(x))
            few = bb.emit(relax.op.strided_slice(wide, [0], [0], [end]))
            first = bb.emit(relax.op.exp(few))
            last = bb.emit_output(relax.op.exp(first))
        bb.emit_func_output(last)
    with llvm:
        ranged = relax.get_pipeline("default")(bb.finalize())
    found = storages(ranged["main"].script())
    size = 4 * end
    assert found == [16384, size, size] + [size] * (not reused), found
