"""
Rules, templates and search
===========================

Three ways to schedule a kernel without writing its schedule: a template with
knobs, the rules of dlight, and MetaSchedule; the same kernel by each of them.
"""

# gallery: timeout=180

# %% cell: setup
import inspect
import itertools
import re

import numpy as np
import tvm
from tvm import relax, s_tir, te, tirx
from tvm.s_tir import dlight as dl
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import (
    assert_faster,
    cpu_timer,
    print_machine,
    race,
)
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.passes import record
from tvm_deepdive_helpers.tuning import (
    host_target,
    load_intrinsics,
    one_thread,
    tune,
)

one_thread()
load_intrinsics()
target = host_target()
SIZE = 256


def product():
    """relu(x @ w + b) as one kernel with two blocks, C and D."""
    x, w = (te.placeholder((SIZE, SIZE), name=n) for n in "xw")
    b = te.placeholder((SIZE,), name="b")
    k = te.reduce_axis((0, SIZE), name="k")
    c = te.compute(
        (SIZE, SIZE),
        lambda i, j: te.sum(x[i, k] * w[k, j], axis=k),
        name="C",
    )
    zero = tirx.const(0, "float32")
    d = te.compute(
        (SIZE, SIZE), lambda i, j: tirx.max(c[i, j] + b[j], zero), name="D"
    )
    return te.create_prim_func([x, w, b, d])


kernel = product()
rng = np.random.default_rng(0)
x, w = (rng.normal(size=(SIZE, SIZE)).astype("float32") for _ in "xw")
b = rng.normal(size=SIZE).astype("float32")
arguments = [tvm.runtime.tensor(a) for a in (x, w, b)]
want = np.maximum(x @ w + b, 0)
out = tvm.runtime.tensor(np.zeros((SIZE, SIZE), "float32"))


def timer(func, target=target):
    """A timer of a kernel that was checked once."""
    function = tvm.compile(func, target)["main"]
    function(*arguments, out)
    assert np.allclose(out.numpy(), want, atol=1e-2)
    return cpu_timer(lambda: function(*arguments, out))


# %% cell: template


def template(config):
    """A schedule with holes; `config` fills them."""
    sch = s_tir.Schedule(product())
    i, j, k = sch.get_loops("C")
    i0, i1 = sch.split(i, [None, config["tile_y"]])
    j0, j1 = sch.split(j, [None, config["tile_x"]])
    sch.reorder(i0, j0, k, i1, j1)
    sch.vectorize(j1)
    if config["unroll"]:
        sch.unroll(i1)
    sch.reverse_compute_at("D", j0)
    sch.decompose_reduction("C", k)
    return sch.mod["main"]


KNOBS = {"tile_y": [1, 4, 8], "tile_x": [16, 32], "unroll": [False, True]}
space = [
    dict(zip(KNOBS, values, strict=True))
    for values in itertools.product(*KNOBS.values())
]
print(len(space), "configurations, the last one:", space[-1])
glue("configurations", len(space))

# %% cell: searched, varies
measured = [
    (min(candidate() for _ in range(3)), config)
    for config in space
    for candidate in [timer(template(config))]
]
measured.sort(key=lambda pair: pair[0])
for seconds, config in (measured[0], measured[-1]):
    print(f"{seconds * 1e3:6.2f} ms  {config}")
from_template = template(measured[0][1])

# %% cell: rule
X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
V3 = tvm.target.Target(X86)
sch = dl.cpu.Reduction().apply(kernel, V3, False)
show(sch.mod["main"], keep="for |sblock\\(", context=0)
print("GEMV:", dl.cpu.GEMV().apply(kernel, V3, False))
from_rule = dl.cpu.Reduction().apply(kernel, target, False).mod["main"]

# %% cell: rules


def network():
    builder = relax.BlockBuilder()
    shapes = {"x": (64, 256), "v": (1, 256), "w": (256, 512), "b": (512,)}
    x, v, w, b = params = [
        relax.Var(name, relax.TensorType(shape, "float32"))
        for name, shape in shapes.items()
    ]
    with builder.function("main", params):
        with builder.dataflow():
            h = builder.emit(relax.op.matmul(x, w))
            h = builder.emit(relax.op.nn.relu(relax.op.add(h, b)))
            results = [
                relax.op.nn.softmax(h),
                relax.op.sum(h, axis=1),
                relax.op.matmul(v, w),
                relax.op.permute_dims(h),
                relax.op.exp(h),
            ]
            out = builder.emit_output(
                relax.Tuple([builder.emit(r) for r in results])
            )
        builder.emit_func_output(out)
    return relax.get_pipeline("zero")(builder.finalize())


RULES = {
    "cuda": [
        dl.gpu.Matmul(),
        dl.gpu.GEMV(),
        dl.gpu.Reduction(),
        dl.gpu.GeneralReduction(),
        dl.gpu.Fallback(),
    ],
    "llvm": [dl.cpu.GEMV(), dl.cpu.Reduction()],
}
TARGETS = {
    "cuda": tvm.target.Target({"kind": "cuda", "arch": "sm_80"}),
    "llvm": V3,
}
kernels = {
    name.name_hint: func
    for name, func in network().functions_items()
    if isinstance(func, tirx.PrimFunc)
}
chosen = {}
for name, func in sorted(kernels.items()):
    for kind, rules in RULES.items():
        chosen[name, kind] = next(
            (
                type(rule).__name__
                for rule in rules
                if rule.apply(func, TARGETS[kind], False) is not None
            ),
            "-",
        )
    print(f"{name:24}", *(f"{k}: {chosen[name, k]:18}" for k in RULES))

# %% check
assert chosen["fused_matmul_add_relu", "cuda"] == "Matmul"
assert all(chosen[name, "cuda"] != "-" for name in kernels)

# %% cell: rule-list
PIPELINE_FILES = {
    "cpu": relax.backend.cpu_generic.pipeline,
    "gpu": relax.backend.gpu_generic.pipeline,
    "adreno": relax.backend.adreno.pipeline,
}
for room, pipeline in PIPELINE_FILES.items():
    module = getattr(dl, room)
    rules = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, dl.ScheduleRule)
    }
    text = inspect.getsource(pipeline)
    used = re.findall(rf"dl\.{room}\.(\w+)\(", text)
    print(f"{room}: {', '.join(used) or 'no rule'}")
    print(f"    on request: {', '.join(sorted(rules - set(used)))}")

# %% cell: apply
apply = dl.ApplyDefaultSchedule(*RULES["cuda"])
mod = tvm.IRModule({"main": kernel})
with expect_error(tvm.error.InternalError, match="Target context"):
    apply(mod)
with TARGETS["cuda"]:
    scheduled = apply(mod)
print(sorted(scheduled["main"].attrs.keys()))
print("its argument has it too:", "tirx.is_scheduled" in mod["main"].attrs)
threads = re.findall(r'thread="([\w.]+)"', scheduled["main"].script())
print("bound loops:", ", ".join(sorted(set(threads))))

# %% cell: own-rule


@dl.ScheduleRule.from_callable("Product")
def product_rule(func, target, tunable):
    """The best configuration of the template, for products only."""
    if target.kind.name != "llvm":
        return None
    sch = s_tir.Schedule(func)
    try:
        i, j, k = sch.get_loops("C")
    except (s_tir.ScheduleError, ValueError):
        return None
    i0, i1 = sch.split(i, [None, 8])
    j0, j1 = sch.split(j, [None, 32])
    sch.reorder(i0, j0, k, i1, j1)
    sch.vectorize(j1)
    sch.reverse_compute_at("D", j0)
    sch.decompose_reduction("C", k)
    return sch


with target:
    ruled = dl.ApplyDefaultSchedule(product_rule, dl.cpu.Reduction())(
        tvm.IRModule({"main": kernel})
    )
show(ruled["main"], keep="for |sblock\\(", context=0)

# %% cell: pipelines
PIPELINES = {
    "llvm": target,
    "cuda": TARGETS["cuda"],
    "opencl": tvm.target.Target("opencl"),
    "metal": tvm.target.Target("metal"),
}
print(f"{'':8}FuseTIR  ApplyDefaultSchedule")
for kind, where in PIPELINES.items():
    with record() as seen:
        relax.get_default_pipeline(where)(network())
    names = {row.name for row in seen.rows}
    print(
        f"{kind:8}{'FuseTIR' in names!s:9}{'ApplyDefaultSchedule' in names}"
    )

# %% cell: tune, varies
tuned = tune(kernel, target, trials=32, batch=16, seed=1)
print(f"{len(tuned.trials)} trials in {tuned.wall_s:.0f} s")
print(f"best {tuned.best_s * 1e3:.2f} ms")
from_search = tuned.best.mod["main"]
glue("trials", len(tuned.trials))

# %% cell: space
generated = ms.space_generator.PostOrderApply()
context = ms.TuneContext(
    kernel,
    target=tvm.target.Target({**X86, "num-cores": 4}),
    space_generator=generated,
    search_strategy="replay-trace",
    task_name="main",
)
designs = context.generate_design_space()
print(len(designs), "designs")
names = [inst.kind.name for inst in designs[0].trace.insts]
print(
    "drawn at random:",
    {n: names.count(n) for n in sorted(set(names)) if n.startswith("Sample")},
)

# %% cell: apply-database
with target, tuned.database:
    applied = relax.transform.MetaScheduleApplyDatabase()(
        tvm.IRModule({"main": kernel})
    )
print("scheduled:", bool(applied["main"].attrs["tirx.is_scheduled"]))
with target, tuned.database:
    other = relax.transform.MetaScheduleApplyDatabase()(
        tvm.IRModule({"main": kernels["softmax"]})
    )
print("unknown:  ", "tirx.is_scheduled" in other["main"].attrs)

zero = relax.get_pipeline("zero")
with target, tuned.database:
    for label in ("no record", "record"):
        seen = zero(tvm.IRModule({"main": kernel}))
        print(f"zero, {label}:", "tirx.is_scheduled" in seen["main"].attrs)
        annotated = kernel.with_attr(
            "op_pattern", seen["main"].attrs["op_pattern"]
        )
        best = tuned.records[0]
        workload = tuned.database.commit_workload(
            tvm.IRModule({"main": annotated})
        )
        tuned.database.commit_tuning_record(
            ms.database.TuningRecord(
                best.trace,
                workload,
                best.run_secs,
                best.target,
                best.args_info,
            )
        )
with target:
    again = dl.ApplyDefaultSchedule(dl.cpu.Reduction())(applied)
print("a rule leaves it alone:", again["main"].same_as(applied["main"]))

# %% cell: compared, varies
timers = {
    "no schedule, SSE2": timer(kernel, "llvm"),
    "no schedule": timer(kernel),
    "rule: cpu.Reduction": timer(from_rule),
    "template, best": timer(from_template),
    "own rule": timer(ruled["main"]),
    "MetaSchedule": timer(from_search),
}
times = race(timers, rounds=7)
slowest = times.timings["no schedule"].min_s
ratios = {n: slowest / t.min_s for n, t in times.timings.items()}
fig, ax = bar_chart(
    ratios,
    unit="times as fast as no schedule",
    form=".1f",
    title="relu(x @ w + b), 256 x 256 x 256, one thread",
)
glue("rule-gain", ratios["rule: cpu.Reduction"], varies=True)
glue("template-gain", ratios["template, best"], varies=True)
glue("search-gain", ratios["MetaSchedule"], varies=True)

# %% check
assert_faster(times, "template, best", "no schedule", 4)
assert_faster(times, "own rule", "no schedule", 4)
assert_faster(times, "MetaSchedule", "no schedule", 4)

# %% cell: machine, varies
print_machine()

# %% cell: solution-elementwise


@dl.ScheduleRule.from_callable("Elementwise")
def elementwise(func, target, tunable):
    """Parallel rows, vectors of 8, for kernels of one spatial block."""
    sch = s_tir.Schedule(func)
    blocks = sch.get_child_blocks(sch.get_sblock("root"))
    if len(blocks) != 1:
        return None
    (block,) = blocks
    kinds = {it.iter_type for it in sch.get(block).iter_vars}
    if kinds != {tirx.IterVar.DataPar}:
        return None
    outer, lanes = sch.split(sch.fuse(*sch.get_loops(block)), [None, 8])
    sch.parallel(outer)
    sch.vectorize(lanes)
    return sch


mod = network()
with V3:
    done = dl.ApplyDefaultSchedule(elementwise, dl.cpu.Reduction())(mod)
for name, func in sorted(done.functions.items(), key=lambda p: str(p[0])):
    if isinstance(func, tirx.PrimFunc):
        print(f"{name.name_hint:24}", "tirx.is_scheduled" in func.attrs)

# %% cell: solution-factors


def factorings(extent, parts):
    """All ways to write a number as a product of so many factors."""
    if parts == 1:
        return [(extent,)]
    return [
        (factor, *rest)
        for factor in range(1, extent + 1)
        if extent % factor == 0
        for rest in factorings(extent // factor, parts - 1)
    ]


four, two = len(factorings(SIZE, 4)), len(factorings(SIZE, 2))
print(f"{four} x {four} x {two} = {four * four * two:,d}")
