"""
Scheduling a fused kernel by hand
=================================

Matrix product, bias and relu in one kernel: what each step buys, in which
order, how the schedule gets into the module, and a symbolic number of rows.
"""

# %% cell: setup
import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import assert_faster, cpu_timer, race
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.tuning import host_target, one_thread

one_thread()  # times of one thread, which do not depend on others
target = host_target()
SIZE = 256


def model(rows):
    """relu(x @ w + b) as a Relax module."""
    x, w, b = (
        relax.Var(name, relax.TensorType(shape, "float32"))
        for name, shape in (
            ("x", (rows, SIZE)),
            ("w", (SIZE, SIZE)),
            ("b", (SIZE,)),
        )
    )
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w, b]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, w))
            y = builder.emit(relax.op.add(y, b))
            y = builder.emit_output(relax.op.nn.relu(y))
        builder.emit_func_output(y)
    return builder.finalize()


fused = relax.get_pipeline("zero")(model(SIZE))
KERNEL = "fused_matmul_add_relu"
show(fused[KERNEL], keep="def |alloc_buffer|grid|sblock\\(", context=0)

# %% cell: steps


def tile(sch):
    i, j, k = sch.get_loops("matmul")
    i0, i1 = sch.split(i, [None, 8])
    j0, j1 = sch.split(j, [None, 32])
    sch.reorder(i0, j0, k, i1, j1)


def vectorize(sch):
    sch.vectorize(sch.get_loops("matmul")[-1])


def unroll(sch):
    sch.unroll(sch.get_loops("matmul")[-2])


def join(sch):
    """Bias and relu on each tile, as soon as it is complete."""
    sch.compute_inline("T_add")
    j0 = sch.get_loops("matmul")[1]
    sch.reverse_compute_at("compute", j0)
    sch.vectorize(sch.get_loops("compute")[-1])


def decompose(sch):
    k = sch.get_loops("matmul")[2]
    sch.decompose_reduction("matmul", k)


STEPS = (tile, vectorize, unroll, join, decompose)
functions = {"as generated": fused[KERNEL]}
for number in range(1, len(STEPS) + 1):
    sch = s_tir.Schedule(fused[KERNEL])
    for step in STEPS[:number]:
        step(sch)
    functions[STEPS[number - 1].__name__] = sch.mod["main"]
show(sch.mod["main"], keep="for |sblock\\(|alloc_buffer", context=0)

# %%
# Each kernel is checked once, then all are timed in turn.
rng = np.random.default_rng(0)
x, w = (rng.normal(size=(SIZE, SIZE)).astype("float32") for _ in "xw")
b = rng.normal(size=SIZE).astype("float32")
arguments = [tvm.runtime.tensor(a) for a in (x, w, b)]
want = np.maximum(x @ w + b, 0)
out = tvm.runtime.tensor(np.zeros((SIZE, SIZE), "float32"))


def timer(func, target=target):
    """A timer of a kernel that was checked once."""
    library = tvm.compile(func.with_attr("global_symbol", "k"), target)
    kernel = library["k"]
    kernel(*arguments, out)
    assert np.allclose(out.numpy(), want, atol=1e-2)
    return cpu_timer(lambda: kernel(*arguments, out))


timers = {name: timer(func) for name, func in functions.items()}
timers["as generated, SSE2"] = timer(fused[KERNEL], "llvm")
times = race(timers, rounds=7)
flops = 2 * SIZE**3
speeds = {
    name: flops / timing.min_s / 1e9 for name, timing in times.timings.items()
}

# %% check
assert_faster(times, "decompose", "as generated", 4)
assert_faster(times, "join", "unroll", 0.9)
assert_faster(times, "join", "as generated", 4)
glue("gain", speeds["decompose"] / speeds["as generated"], varies=True)

# %% cell: ladder, varies
fig, ax = bar_chart(
    {
        name: speeds[name]
        for name in ("as generated, SSE2", "as generated", *timers)
        if name in speeds
    },
    unit="GFLOP/s, one thread",
    form=".1f",
    title="The fused kernel after each step",
)

# %% cell: bytes


def buffers(func):
    """Bytes of the buffers that a kernel allocates, after compaction."""
    stages = tir_stages(func.with_attr("global_symbol", "k"))
    last = {s.name: s for s in stages}["s_tir.LowerOpaqueBlock"].after
    (sizes,) = s_tir.analysis.calculate_allocated_bytes(last).values()
    return sum(int(size) for size in sizes.values())


for name in ("as generated", "unroll", "join", "decompose"):
    print(f"{name:13} {buffers(functions[name]):7,d} bytes")

# %% cell: order


def last_first():
    sch = s_tir.Schedule(fused[KERNEL])
    tile(sch)
    decompose(sch)
    return sch


TOO_LATE = {
    "parallel": lambda sch: sch.parallel(sch.get_loops("matmul_update")[0]),
    "reverse_compute_at": lambda sch: sch.reverse_compute_at(
        "compute", sch.get_loops("matmul_update")[1]
    ),
}
for name, step in TOO_LATE.items():
    with expect_error(s_tir.ScheduleError, show=False) as error:
        step(last_first())
    reason = str(error.exception).split("Error message: ")[1]
    print(f"{name}: {reason.splitlines()[0]}\n")

# %% cell: threads


def parallel(sch):
    sch.parallel(sch.get_loops("matmul")[0])


sch = s_tir.Schedule(fused[KERNEL])
for step in (tile, vectorize, unroll, join, parallel, decompose):
    step(sch)
threaded = sch.mod["main"]
stages = tir_stages(threaded.with_attr("global_symbol", "k"))
last = {s.name: s for s in stages}["s_tir.CompactBufferAllocation"].after
show(last["k"], keep="parallel|alloc_buffer", context=0)

# %% check
timer(threaded)  # compares with numpy

# %% cell: in-the-module
scheduled = tvm.IRModule(dict(fused.functions.items()))
name = scheduled.get_global_var(KERNEL)
new = functions["decompose"].with_attr("tirx.is_scheduled", True)
scheduled.update_func(name, new)
show(scheduled["main"], keep="call_tir", context=0)
vms = {
    label: relax.VirtualMachine(tvm.compile(mod, target), tvm.cpu())
    for label, mod in (("generated", fused), ("scheduled", scheduled))
}
for label, vm in vms.items():
    got = vm["main"](*arguments).numpy()
    print(f"{label:10}", np.allclose(got, want, atol=1e-2))

# %% cell: work-on
sch = s_tir.Schedule(fused)
with expect_error(ValueError, match="which function"):
    sch.get_sblock("matmul")
sch.work_on(KERNEL)
for step in STEPS:
    step(sch)
print(sorted(v.name_hint for v in sch.mod.get_global_vars()))
same = tvm_ffi.structural_equal(
    sch.mod[KERNEL].body, functions["decompose"].body, map_free_vars=True
)
print("the same loops:", same)

# %% cell: models, varies
pair = race(
    {
        label: cpu_timer(lambda vm=vm: vm["main"](*arguments))
        for label, vm in vms.items()
    },
    rounds=5,
)
print(f"the whole model: {pair.ratio('generated', 'scheduled'):.0f} times")

# %% check
assert_faster(pair, "scheduled", "generated", 4)

# %% cell: by-name
with expect_error(s_tir.ScheduleError, show=False) as error:
    s_tir.Schedule(fused[KERNEL]).get_sblock("matrix_product")
print(str(error.exception).split("Error message: ")[1].splitlines()[0])


def by_structure(func):
    """The reduction block of a kernel, whatever it is called."""
    sch = s_tir.Schedule(func)
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        kinds = {it.iter_type for it in sch.get(block).iter_vars}
        if tirx.IterVar.CommReduce in kinds:
            return sch, block
    raise LookupError("no reduction")


sch, block = by_structure(fused[KERNEL])
print(sch.get(block).name_hint)

# %% cell: symbolic
rows = tirx.Var("n", "int64")
dynamic = relax.get_pipeline("zero")(model(rows))
sch = s_tir.Schedule(dynamic[KERNEL])
for step in STEPS:
    step(sch)
show(sch.mod["main"], keep="for |T.where", context=0)
dynamic.update_func(dynamic.get_global_var(KERNEL), sch.mod["main"])
vm = relax.VirtualMachine(tvm.compile(dynamic, target), tvm.cpu())
for count in (256, 13):
    got = vm["main"](tvm.runtime.tensor(x[:count]), *arguments[1:]).numpy()
    print(count, "rows:", np.allclose(got, want[:count], atol=1e-2))

# %% check
assert np.allclose(got, want[:13], atol=1e-2)

# %% cell: solution-pass


@tvm.transform.module_pass(opt_level=0, name="deepdive.ScheduleProducts")
class ScheduleProducts:
    """Schedule every kernel that has the three blocks of this page."""

    def transform_module(self, mod, ctx):
        result = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
        for name, func in mod.functions.items():
            if not isinstance(func, tirx.PrimFunc):
                continue
            sch = s_tir.Schedule(func)
            try:
                for step in STEPS:
                    step(sch)
            except s_tir.ScheduleError:
                continue  # some other kernel
            result.update_func(
                name, sch.mod["main"].with_attr("tirx.is_scheduled", True)
            )
        return result


after = ScheduleProducts()(fused)
print(after[KERNEL].attrs["tirx.is_scheduled"])
print(
    "the argument is unchanged:",
    "tirx.is_scheduled" not in fused[KERNEL].attrs,
)

# %% check
assert np.allclose(
    relax.VirtualMachine(tvm.compile(after, target), tvm.cpu())["main"](
        *arguments
    ).numpy(),
    want,
    atol=1e-2,
)

# %% cell: solution-steps
for left_out in STEPS[1:]:
    sch = s_tir.Schedule(fused[KERNEL])
    for step in STEPS:
        if step is not left_out:
            step(sch)
    size = buffers(sch.mod["main"])
    print(f"without {left_out.__name__:10} {size:7,d} bytes")
