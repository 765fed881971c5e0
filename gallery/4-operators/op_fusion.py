"""
What fusion buys
================

Kernels, bytes and times of one chain of operators: separate, fused, and
fused with inlining; what remains of a matmul; what prevents it.
"""

# sphinx_gallery_line_numbers = True

# %% cell: setup
import re

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.relax import transform as tr
from tvm.s_tir import dlight as dl
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import assert_faster, compare
from tvm_deepdive_helpers.figures import alt, bar_chart
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.running_example import as_tensors
from tvm_deepdive_helpers.schedules import root_text

CPU = tvm.target.Target(
    {"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
)

# %% cell: chain
N = 1024


@I.ir_module
class Chain:
    @R.function
    def main(x: R.Tensor((N, N), "float32"), b: R.Tensor((N,), "float32")):
        with R.dataflow():
            t0 = R.add(x, b)
            t1 = R.multiply(t0, R.const(0.5, "float32"))
            t2 = R.nn.relu(t1)
            t3 = R.subtract(t2, x)
            t4 = R.abs(t3)
            y = R.sqrt(t4)
            R.output(y)
        return y


# %% cell: who-fuses


def kernels(executable):
    """Kernels that the virtual machine calls, in order."""
    names = re.findall(r"^  call  (\S+)", executable.as_text(), re.MULTILINE)
    return [name for name in names if not name.startswith("vm.")]


def build(mod, pipeline="default"):
    return relax.build(mod, CPU, relax_pipeline=pipeline)


zero = relax.get_pipeline("zero")
BUILDS = {
    "tvm.compile(mod, target)": tvm.compile(Chain, CPU),
    'get_pipeline("zero"), then the default': build(zero(Chain)),
    "get_default_pipeline(cpu)": build(
        Chain, relax.get_default_pipeline(CPU)
    ),
}
for text, executable in BUILDS.items():
    print(f"{text:40s} {len(kernels(executable))} kernels")

# %% check
assert len(kernels(BUILDS["tvm.compile(mod, target)"])) == 6
assert len(kernels(build(zero(Chain)))) == 1


def prim_funcs(mod):
    found = mod.functions_items()
    return [(g, f) for g, f in found if isinstance(f, tirx.PrimFunc)]


# %% cell: separate
separate = tr.LegalizeOps()(Chain)
fused = zero(Chain)
((fused_name, fused_func),) = prim_funcs(fused)
print(cut(root_text(fused_func), lines=24))


# %% cell: blocks


def all_blocks(func):
    """The blocks of a function, without the root."""
    found = []
    tvm_ffi.structural_walk(
        func.body,
        (s_tir.SBlock, lambda b: found.append(b) if b.iter_vars else None),
    )
    return found


def mebibytes(func):
    """What the loop nests read and write, each buffer of a block once."""
    total = 0
    for block in all_blocks(func):
        regions = [*block.reads, *block.writes]
        for buffer in {r.source.name: r.source for r in regions}.values():
            total += int(np.prod([int(d) for d in buffer.shape])) * 4
    return total / 2**20


def facts(mod):
    funcs = [func for _, func in prim_funcs(mod)]
    return (
        len(funcs),
        sum(len(all_blocks(func)) for func in funcs),
        sum(mebibytes(func) for func in funcs),
    )


# %% cell: inline


def inlined(mod, name):
    """Inline every block of one PrimFunc but the last."""
    sch = s_tir.Schedule(mod[name])
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    for block in blocks[:-1]:
        sch.compute_inline(block)
    result = mod.clone()
    gvar = mod.get_global_var(name.name_hint)
    result.update_func(gvar, sch.mod["main"].without_attr("global_symbol"))
    return result


tight = inlined(fused, fused_name)
print(root_text(tight[fused_name]))

# %% cell: counts
VARIANTS = {
    "6 kernels": separate,
    "fused": fused,
    "fused and inlined": tight,
}
print(f"{'':20s} kernels  loop nests  MiB read and written")
for text, mod in VARIANTS.items():
    count, nests, size = facts(mod)
    print(f"{text:20s} {count:7d} {nests:11d} {size:21.1f}")

# %% cell: vm-calls
for text, mod in VARIANTS.items():
    listing = build(mod).as_text()
    calls = len(re.findall(r"^  call ", listing, re.MULTILINE))
    storage = listing.count("vm.builtin.alloc_storage in")
    print(f"{text:20s} {calls:3d} calls of the VM, {storage} storages")

# %% cell: workspace


def workspaces(func):
    """Bytes of each allocation that the LLVM code makes at run time."""
    named = func.with_attr("global_symbol", "kernel")
    code = tvm.compile(named, target="llvm").mod.inspect_source("ll")
    return [
        int(size)
        for size in re.findall(
            r"call ptr %\w+\(i32 1, i32 %dev_id, i64 (\d+)", code
        )
    ]


for text in ("fused", "fused and inlined"):
    ((_, func),) = prim_funcs(VARIANTS[text])
    print(f"{text:20s}", workspaces(func))

# %% cell: one-buffer
named = fused_func.with_attr("global_symbol", "kernel")
stage = {s.name: s for s in tir_stages(named)}["tirx.StorageRewrite"]
for when, func in (("before", stage.before), ("after", stage.after)):
    text = script(func)
    print(
        f"{when:6s} {text.count('T.alloc_buffer')} allocations,"
        f" {text.count('for ')} loop nests"
    )

# %% cell: times, varies
rng = np.random.default_rng(0)
x_data = rng.standard_normal((N, N)).astype("float32")
b_data = rng.standard_normal(N).astype("float32")
args = as_tensors([x_data, b_data])


def runner(mod):
    vm = relax.VirtualMachine(build(mod), tvm.cpu())
    return lambda: vm["main"](*args)


result = compare(
    {text: runner(mod) for text, mod in VARIANTS.items()}, rounds=15
)
best = {text: time * 1e3 for text, time in result.minima.items()}
fig, _ = bar_chart(
    best,
    unit="ms",
    form=".2f",
    title="Six operators on a matrix of 1024 x 1024",
    color={
        "6 kernels": "gray",
        "fused": "navy",
        "fused and inlined": "green",
    },
)
alt(
    fig,
    "Bars of three times. Six kernels take longest, the fused kernel less, "
    "the fused kernel with inlining by far the least.",
)
glue("byte-ratio", facts(separate)[2] / facts(tight)[2])
glue("gain", best["6 kernels"] / best["fused and inlined"], varies=True)
glue("fused-gain", best["6 kernels"] / best["fused"], varies=True)

# %% check
assert_faster(result, "fused and inlined", "6 kernels", 1.5)
assert_faster(result, "fused and inlined", "fused", 1.1)
wanted = np.sqrt(
    np.abs(np.maximum((x_data + b_data) * np.float32(0.5), 0) - x_data)
)
for mod in VARIANTS.values():
    assert np.allclose(runner(mod)().numpy(), wanted, atol=1e-5)

# %% cell: dense


@I.ir_module
class Dense:
    @R.function
    def main(
        x: R.Tensor((64, 128), "float32"),
        w: R.Tensor((128, 256), "float32"),
        bias: R.Tensor((256,), "float32"),
    ):
        with R.dataflow():
            h = R.matmul(x, w)
            a = R.add(h, bias)
            r = R.nn.relu(a)
            R.output(r)
        return r


dense = zero(Dense)
((dense_name, dense_func),) = prim_funcs(dense)
print([block.name_hint for block in all_blocks(dense_func)])
print("bytes of workspace:", workspaces(dense_func))

# %% cell: dense-inline
sch = s_tir.Schedule(dense_func)
with expect_error(s_tir.ScheduleError, keep="Error message"):
    sch.compute_inline("matmul")
sch.compute_inline("T_add")
names = [
    sch.get(b).name_hint for b in sch.get_child_blocks(sch.get_sblock("root"))
]
print("left:", names)
print("bytes of workspace:", workspaces(sch.mod["main"]))

# %% cell: dense-nearer
sch.reverse_compute_at("compute", sch.get_loops("matmul")[1])
print(root_text(sch.mod["main"]))
print("bytes of workspace:", workspaces(sch.mod["main"]))

# %% check
final = sch.mod["main"].with_attr("global_symbol", "kernel")
p, q = (
    rng.standard_normal(s).astype("float32") for s in ((64, 128), (128, 256))
)
r = rng.standard_normal(256).astype("float32")
out = tvm.runtime.tensor(np.zeros((64, 256), "float32"))
tvm.compile(final, target="llvm")["kernel"](*as_tensors([p, q, r]), out)
assert np.allclose(out.numpy(), np.maximum(p @ q + r, 0), atol=1e-4)

# %% cell: try-inline
for text, func in (("chain", fused_func), ("dense", dense_func)):
    sch = s_tir.Schedule(func)
    infos = dl.normalize_prim_func(sch)
    left = dl.try_inline(sch, infos)
    names = [block.name for block in left]
    print(f"{text}: {len(all_blocks(func))} blocks, left: {names}")

# %% cell: gpu
cuda = tvm.target.Target({"kind": "cuda", "arch": "sm_80"}, host="llvm")
with cuda:
    scheduled = dl.ApplyDefaultSchedule(dl.gpu.Fallback())(fused.clone())
((_, gpu_func),) = prim_funcs(scheduled)
print(cut(root_text(gpu_func), lines=5))

# %% cell: twice


@I.ir_module
class Shared:
    @R.function
    def main(x: R.Tensor((N, N), "float32")):
        with R.dataflow():
            e = R.exp(x)
            y = R.multiply(R.add(e, x), R.subtract(e, x))
            R.output(y)
        return y


shared = zero(Shared)
((shared_name, shared_func),) = prim_funcs(shared)
doubled = inlined(shared, shared_name)
print("groups:", shared_name.name_hint)
print(
    "exp before:",
    str(shared_func).count("T.exp"),
    " after:",
    str(doubled[shared_name]).count("T.exp"),
)

named = doubled[shared_name].with_attr("global_symbol", "kernel")
stages = {stage.name: stage for stage in tir_stages(named)}
after = stages["tirx.CommonSubexprElim"].after
print("after CommonSubexprElim:", str(after).count("T.exp"))


def exponentials(func):
    """Calls of exp in the LLVM code, after LLVM's own passes."""
    named = func.with_attr("global_symbol", "kernel")
    code = tvm.compile(named, target="llvm").mod.inspect_source("ll")
    return len(re.findall(r"call .*@llvm\.exp\.", code))


once, now = exponentials(shared_func), exponentials(doubled[shared_name])
print("more in the LLVM code than without inlining:", now > once)

# %% check
assert now <= once

# %% cell: barriers


def groups(*steps, returned=1, **config):
    """Kernels of a chain of steps on a matrix."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((64, 64), "float32"))
    with bb.function("main", [x]):
        with bb.dataflow():
            values = [x]
            for step in steps:
                values.append(bb.emit(step(values[-1])))
            outs = [bb.emit_output(v) for v in values[-returned:]]
        bb.emit_func_output(outs[0] if returned == 1 else outs)
    mod = tr.CanonicalizeBindings()(bb.get())
    with tvm.transform.PassContext(config=config):
        return [g.name_hint for g, _ in prim_funcs(zero(mod))]


def softmax(x):
    return R.nn.softmax(x)


def softmax_by_hand(x):
    e = R.exp(R.subtract(x, R.max(x, 1, keepdims=True)))
    return R.divide(e, R.sum(e, 1, keepdims=True))


print("softmax:        ", *groups(softmax))
print("by hand:        ", *groups(softmax_by_hand))
print("relu, softmax:  ", *groups(R.nn.relu, softmax))
print("exp, relu, both:", *groups(R.exp, R.nn.relu, returned=2))


def square(x):
    return R.matmul(x, x)


def row_sums(x):
    return R.sum(x, axis=1)


print("exp, sum, relu: ", *groups(R.exp, row_sums, R.nn.relu))
print("relu, matmul, relu:", *groups(R.nn.relu, square, R.nn.relu))
print("matmul, transpose:", *groups(square, R.permute_dims))
print("exp, transpose, relu:", *groups(R.exp, R.permute_dims, R.nn.relu))

# %% cell: depth
chain = [R.exp, R.nn.relu, R.abs, R.tanh, R.sqrt, R.sigmoid]
for depth in (1, 2, 3, 256):
    names = groups(*chain, **{"relax.FuseOps.max_depth": depth})
    print(f"{depth:3d}: {len(names)} PrimFuncs")

# %% cell: look
listing = tvm.compile(fused, CPU)
print("kernels:", kernels(listing))
print("blocks: ", [b.name_hint for b in all_blocks(fused_func)])

# %% cell: solution-bound


def traffic_ratio(operators):
    """Reads and writes of separate kernels over those of one."""
    return (2 * operators) / 2


for operators in (2, 6, 20):
    print(operators, "operators: at most", traffic_ratio(operators), "times")
ours = facts(separate)[2] / facts(tight)[2]
print(f"this chain: {ours:.2f} (subtract reads x a second time)")

# %% cell: solution-forward


@I.ir_module
class Scores:
    @R.function
    def main(x: R.Tensor((64, 64), "float32")):
        with R.dataflow():
            e = R.exp(x)
            s = R.sum(e, axis=1)
            R.output(s)
        return s


((_, sums),) = prim_funcs(zero(Scores))
sch = s_tir.Schedule(sums)
sch.compute_inline("compute")
print("before:", workspaces(sums), " after:", workspaces(sch.mod["main"]))
print(root_text(sch.mod["main"]))

# %% check
assert workspaces(sch.mod["main"]) == []
named = sch.mod["main"].with_attr("global_symbol", "kernel")
small = rng.standard_normal((64, 64)).astype("float32")
out = tvm.runtime.tensor(np.zeros(64, "float32"))
tvm.compile(named, target="llvm")["kernel"](*as_tensors([small]), out)
assert np.allclose(out.numpy(), np.exp(small).sum(1), rtol=1e-4)
