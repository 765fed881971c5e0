"""
Two build paths, and the pipeline that each target gets
=======================================================

``tvm.compile`` takes one of two ways. This script shows which module takes
which, which pipeline is chosen for which target, how to choose another, and
what goes wrong.
"""

# %%
import inspect
import os
import textwrap

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.tirx.build import split_host_device_mods

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import layered_graph
from tvm_deepdive_helpers.ir import cut
from tvm_deepdive_helpers.passes import record
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

# On a machine with a GPU, CUDA C would go on to NVIDIA's compiler.
os.environ["TVM_COMPILE_FORCE_FALLBACK"] = "1"

llvm = tvm.target.Target("llvm")
quick = tvm.target.Target({"kind": "llvm", "opt-level": 0})
args = arguments(seed=0)
expected = reference(*args)

# %% cell: calls
cpp = {"VMCodeGen", "VMLink", "target.build.<kind>"}
fig, _ = layered_graph(
    {
        "compile": "tvm.compile\ndriver/build_module.py",
        "relax": "relax.build\nrelax/vm_build.py",
        "pipeline": "relax_pipeline\nrelax/pipeline.py",
        "vmcodegen": "_vmcodegen",
        "vmlink": "_vmlink",
        "VMCodeGen": "relax.VMCodeGen\nC++",
        "VMLink": "relax.VMLink\nC++",
        "tirx": "tirx.build\ntirx/build.py",
        "tpipeline": "tir_pipeline\ns_tir/pipeline.py",
        "split": "split_host_device_mods",
        "codegen": "codegen_build",
        "target.build.<kind>": "target.build.<kind>\nC++",
    },
    {
        ("compile", "relax"): "has a Relax function",
        ("compile", "tirx"): "has none",
        ("relax", "pipeline"): "",
        ("relax", "vmcodegen"): "",
        ("relax", "vmlink"): "",
        ("vmcodegen", "VMCodeGen"): "",
        ("vmlink", "tirx"): "",
        ("vmlink", "VMLink"): "",
        ("tirx", "tpipeline"): "",
        ("tirx", "split"): "",
        ("tirx", "codegen"): "",
        ("codegen", "target.build.<kind>"): "",
    },
    colors={
        "relax": "green",
        "pipeline": "green",
        "vmcodegen": "green",
        "vmlink": "green",
        **dict.fromkeys(cpp, "vermilion"),
    },
    title="Who calls whom in tvm.compile",
)

# %% cell: two-paths
legal = relax.transform.LegalizeOps()(MLP)
kernel = legal["matmul"].with_attr("global_symbol", "product")

builds = {"Relax module": MLP, "PrimFunc": kernel}
built, passes = {}, {}
for name, mod in builds.items():
    with record() as log:
        built[name] = tvm.compile(mod, llvm)
    passes[name] = len(log.rows)
    print(f"{name}: {type(built[name]).__name__}, {passes[name]} passes")

y = tvm.runtime.tensor(np.zeros((8, 128), "float32"))
built["PrimFunc"]["product"](*as_tensors(args[:2]), y)
print("product:", np.allclose(y.numpy(), args[0] @ args[1], atol=1e-4))

# %% cell: path-errors
with expect_error(AttributeError, match="no function 'main'"):
    built["Relax module"]["main"]
with expect_error(ValueError, match="PrimFunc or IRModule"):
    tvm.compile(MLP["main"], llvm)
with expect_error(tvm.error.InternalError, match="after MakePackedAPI"):
    tvm.compile(legal["matmul"], llvm)  # private: no global_symbol
with expect_error(TypeError, match="not iterable"):
    tvm.compile(MLP, {"kind": "llvm"})  # a dictionary, not a Target

# %% cell: signature
more = set(inspect.signature(relax.build).parameters)
more -= set(inspect.signature(tvm.compile).parameters)
print("only relax.build takes:", sorted(more))

x, *rest = as_tensors(args)
weights = dict(zip(["w1", "b1", "w2", "b2"], rest, strict=True))
ex = relax.build(MLP, quick, params=weights)
with expect_error(tvm.error.InternalError, match="5 arguments"):
    relax.VirtualMachine(ex, tvm.cpu())["main"](x)

bound = relax.transform.BindParams("main", weights)(MLP)
vm = relax.VirtualMachine(tvm.compile(bound, quick), tvm.cpu())
y_bound = vm["main"](x).numpy()
print("after BindParams:", np.allclose(y_bound, expected, atol=1e-3))

# %% cell: chosen


def relax_pass_names(mod, target):
    """Names of the passes of Relax that one build runs, outermost only."""
    with record() as log:
        tvm.compile(mod, target)
    first = next(row.index for row in log.rows if row.name == "sequential")
    return [row.name for row in log.rows if row.parent == first]


cuda = tvm.target.Target({"kind": "cuda", "arch": "sm_80"}, host=quick)
chosen = {t.kind.name: relax_pass_names(MLP, t) for t in (llvm, cuda)}
width = max(map(len, chosen["cuda"]))
print(f"{'':{width}}  llvm  cuda")
for name in chosen["cuda"]:
    marks = ["*" if name in chosen[k] else "" for k in ("llvm", "cuda")]
    print(f"{name:{width}}  {marks[0]:4}  {marks[1]}".rstrip())

# %% cell: why


@tvm.register_global_func("book.note")
def note(x):
    """A function with a side effect: it counts its calls."""
    calls.append(1)
    return x


@I.ir_module
class Noted:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        with R.dataflow():
            _ = R.call_pure_packed(
                "book.note", x, ty_args=(R.Tensor((4,), "float32"),)
            )
            y = R.add(x, x)
            R.output(y)
        return y


@I.ir_module
class Impure:
    @R.function(pure=False)
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        _ = R.call_packed(
            "book.note", x, ty_args=(R.Tensor((4,), "float32"),)
        )
        y = R.add(x, x)
        return y


back_end = relax.get_default_pipeline(llvm)
noted = {}
for what, mod, pipeline in (
    ("the default", Noted, "default"),
    ("CPU back end", Noted, back_end),
    ("CPU back end, impure", Impure, back_end),
):
    calls = []
    ex = tvm.compile(mod, quick, relax_pipeline=pipeline)
    vm = relax.VirtualMachine(ex, tvm.cpu())
    vm["main"](tvm.runtime.tensor(np.ones(4, "float32")))
    noted[what] = len(calls)
    print(f"{what}: calls of note: {len(calls)}")
for what, mod in (("the default", Noted), ("impure", Impure)):
    kept = "book.note" in tvm.compile(mod, cuda).as_text()
    noted[f"CUDA, {what}"] = kept
    print(f"CUDA, {what}: note is in the bytecode: {kept}")

with record(keep_scripts=True) as log:
    tvm.compile(Noted, quick, relax_pipeline=back_end)
lost = next(r for r in log.rows if r.leaf and "book.note" not in r.script)
print("the call disappears in", lost.name)

# %% cell: fusion


@relax.register_pipeline("book_fused")
def fused_pipeline():
    """Fuse first, then do what the default does."""
    return tvm.transform.Sequential(
        [relax.get_pipeline("zero"), relax.get_pipeline("default")]
    )


fuse = relax.get_pipeline("zero")
ways = {
    "default": lambda: tvm.compile(MLP, llvm),
    "zero first": lambda: tvm.compile(fuse(MLP), llvm),
    "CPU back end": lambda: tvm.compile(
        MLP, llvm, relax_pipeline=relax.get_default_pipeline(llvm)
    ),
    "registered": lambda: tvm.compile(MLP, llvm, relax_pipeline="book_fused"),
}


def kernels(ex):
    """Kernels that the virtual machine calls, in their order."""
    words = (line.split() for line in ex.as_text().splitlines())
    called = (w[1] for w in words if w[:1] == ["call"])
    return [name for name in called if not name.startswith("vm.")]


found, logs = {}, {}
for way, build in ways.items():
    with record() as log:
        ex = build()
    vm = relax.VirtualMachine(ex, tvm.cpu())
    result = vm["main"](*as_tensors(args)).numpy()
    found[way] = (len(log.rows), len(log.changing), kernels(ex), result)
    logs[way] = log
    print(f"{way:14}{len(log.rows):3} passes,{len(log.changing):3} change,")
    print(" " * 14 + ", ".join(kernels(ex)))

# %% cell: fused
with llvm:
    fused = fuse(MLP)
text = fused["fused_matmul_add_relu"].script()
start = text.index("    matmul_inter")
print(cut(text[start:], keep="alloc|for", context=0))

# %% cell: pipeline-errors
with expect_error(ValueError, match="candidates are"):
    relax.get_pipeline("fast")
with expect_error(ValueError, match="candidates are"):
    tirx.get_tir_pipeline("fast")
with expect_error(ValueError, match="already been registered"):
    relax.register_pipeline("default")
with expect_error(tvm.error.InternalError, match="R.call_tir"):
    tvm.compile(MLP, quick, relax_pipeline="zero")
with expect_error(AssertionError):
    tvm.compile(MLP, quick, tir_pipeline=tvm.transform.Sequential([]))

# %% cell: own-tir


def quiet_tir():
    """The default TIR pipeline, after a pass that prints what comes in."""
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0, name="book.Announce")
    def announce(mod, _ctx):
        print("kernels:", sorted(g.name_hint for g in mod.functions))
        return mod

    steps = tvm.transform.Sequential([announce, lower])
    return steps, finalize_host, finalize_device


tirx.register_tir_pipeline("book_announce", quiet_tir)
ex = tvm.compile(MLP, quick, tir_pipeline="book_announce")

# %% cell: levels


@tvm.transform.module_pass(opt_level=3, name="book.Costly")
def costly(mod, _ctx):
    """A pass that wants to run only at opt_level 3."""
    ran.append("costly")
    return mod


in_list = tvm.transform.Sequential([costly])
contexts = [
    {"opt_level": 2},
    {"opt_level": 3},
    {"opt_level": 0, "required_pass": ["book.Costly"]},
    {"opt_level": 3, "disabled_pass": ["book.Costly"]},
]
effect = []
for context in contexts:
    ran = []
    with tvm.transform.PassContext(**context):
        in_list(MLP)
        listed = len(ran)
        costly(MLP)
    effect.append((listed, len(ran) - listed))
    print(f"in a Sequential {listed}, called {len(ran) - listed}: {context}")

levels = {}
for target in (quick, cuda):
    with record() as log:
        tvm.compile(MLP, target)
    levels[target.kind.name] = {row.opt_level for row in log.rows}
print("levels of all passes of a build:", levels)

# %% cell: context-errors
with expect_error(AttributeError, match="Invalid", show=False) as refused:
    tvm.transform.PassContext(config={"tir.disable_vectorize": True})
message, _, options = refused.text().partition(" candidates are: ")
print(message, "… and the names of", options.count(",") + 1, "options")

with tvm.transform.PassContext(disabled_pass=["LegalizeOp"]):  # a slip
    tvm.compile(MLP, quick)
print("a name that no pass has: nothing happens")

# %% cell: host-device
seen = {}


@tvm.ir.instrument.pass_instrument
class Last:
    def run_after_pass(self, mod, info):
        seen[str(info.name)] = mod


with tvm.transform.PassContext(instruments=[Last()]):
    gpu = tvm.compile(MLP, cuda)
host, device = split_host_device_mods(seen["tirx.BF16StorageLegalize"])
print("host:  ", sorted(g.name_hint for g in host.functions))
for target, mod in device.items():
    names = sorted(g.name_hint for g in mod.functions)
    print(f"{target.kind.name}:  ", names)
lines = host["fused_matmul_add_relu"].script().splitlines()
launch = next(line.strip() for line in lines if "_kernel" in line)
print(textwrap.fill(launch, 72, subsequent_indent="    "))

# %% cell: cuda-source
lib = gpu.mod.imports[0]
print(lib.kind, "imports", [m.kind for m in lib.imports])
source = lib.imports[0].inspect_source()
at = source.rindex('extern "C" __global__')
print(cut(source[at:], keep="__global__|__shared__", context=0))

# %% cell: unscheduled
lonely = tvm.compile(kernel, cuda)  # no loop is bound to threads
print(lonely.mod.kind, "imports", [m.kind for m in lonely.mod.imports])
generic = tvm.compile(MLP, cuda, relax_pipeline="default_build")
lib = generic.mod.imports[0]
print(lib.kind, "imports", [m.kind for m in lib.imports])

# %%
glue("passes_relax", passes["Relax module"])
glue("passes_zero", found["zero first"][0])
glue("changing_zero", found["zero first"][1])
glue("changing_default", found["default"][1])
glue("default_level", tvm.transform.PassContext().opt_level)

# %% cell: solution-which
with expect_error(ValueError, match="not yet supported"):
    relax.get_default_pipeline(tvm.target.Target("c"))
print([op for op in relax_pass_names(MLP, "c") if "Fuse" in op])

# %% cell: solution-twice
with llvm:
    lowered = relax.get_pipeline("default")(MLP)
ex = tvm.compile(lowered, llvm, relax_pipeline=None)
vm = relax.VirtualMachine(ex, tvm.cpu())
out = vm["main"](*as_tensors(args)).numpy()
print("equal to numpy:", np.allclose(out, expected, atol=1e-3))

# %% cell: solution-counter
only_fuse = {"relax.FuseOps.max_depth": 2}
with tvm.transform.PassContext(config=only_fuse):
    shallow = tvm.compile(MLP, llvm, relax_pipeline="book_fused")
print(kernels(shallow))

# %% check
assert lost.name == "FoldConstant"
assert list(noted.values()) == [1, 0, 1, False, True]
assert np.allclose(y_bound, expected, atol=1e-3)
assert all(np.allclose(f[3], expected, atol=1e-3) for f in found.values())
assert [len(f[2]) for f in found.values()] == [5, 2, 2, 2]
assert effect == [(0, 1), (1, 1), (1, 1), (0, 1)]
assert not lonely.mod.imports and not lib.imports
assert levels == {"llvm": {0}, "cuda": {0, 1}}
assert {"FuseOps", "ApplyDefaultSchedule"} <= set(chosen["cuda"])
assert set(chosen["cuda"]) - set(chosen["llvm"]) == {
    "AnnotateTIROpPattern",
    "FoldConstant",
    "FuseOps",
    "FuseTIR",
    "ApplyDefaultSchedule",
}
assert set(chosen["llvm"]) <= set(chosen["cuda"])
assert np.allclose(out, expected, atol=1e-3)
# After `zero`, LegalizeOps finds nothing to do.
legalized = [row.changed for row in logs["zero first"].find("LegalizeOps")]
assert legalized == [True, False]


def unused():
    """A factory that nobody may call."""
    raise AssertionError


tirx.register_tir_pipeline("default", unused)  # replaces without a word …
tvm.compile(MLP, quick)  # … and "default" still means "s_tir"
assert relax.get_pipeline().info.name == "f_zero_pipeline"
with tvm.transform.PassContext(required_pass=["FuseOps"]):
    with record() as log:
        tvm.compile(MLP, quick)
assert not log.find("FuseOps")
