"""
A tuning run
============

MetaSchedule finds a schedule for a matrix product: the parts that work
together, the run, its records, its winner, and its options.
"""

# gallery: timeout=300

# %% cell: setup
import inspect
import math
import statistics
import textwrap
import time

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.bench import cpu_timer, numpy_process, race
from tvm_deepdive_helpers.figures import alt, boxes_and_arrows, new
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.tuning import (
    host_target,
    load_intrinsics,
    one_thread,
    quick_stack,
    seconds_of,
    tune,
)

N = 512


@T.prim_func(s_tir=True)
def gemm(
    A: T.Buffer((N, N), "float32"),
    B: T.Buffer((N, N), "float32"),
    C: T.Buffer((N, N), "float32"),
):
    T.func_attr({"tirx.noalias": True})
    for i, j, k in T.grid(N, N, N):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


# %% cell: components
fig, _ = boxes_and_arrows(
    {
        "sched": (0, 1),
        "space": (1, 0),
        "strategy": (1, 1),
        "model": (1, 2),
        "builder": (2, 0),
        "runner": (2, 1),
        "callbacks": (2, 2),
        "db": (2, 3),
    },
    {
        ("sched", "space"): "which spaces?",
        ("sched", "strategy"): "which candidates?",
        ("space", "strategy"): "",
        ("model", "strategy"): "scores",
        ("strategy", "builder"): "candidates",
        ("builder", "runner"): "files",
        ("runner", "callbacks"): "times",
        ("callbacks", "model"): "update",
        ("callbacks", "db"): "commit",
    },
    labels={
        "sched": "TaskScheduler\nthe loop",
        "space": "SpaceGenerator\nScheduleRule, Postproc, Mutator",
        "strategy": "SearchStrategy",
        "model": "CostModel\nFeatureExtractor",
        "builder": "Builder",
        "runner": "Runner",
        "callbacks": "MeasureCallback",
        "db": "Database",
    },
    colors={
        "space": "green",
        "strategy": "green",
        "builder": "orange",
        "runner": "orange",
    },
    groups={"TuneContext, one per task": ["space", "strategy"]},
    title="The parts of a tuning run and what they hand on",
)

# %% cell: kinds


def ready_made(part):
    """Names of the classes of TVM that implement one of its interfaces."""
    names = []
    for cls in part.__subclasses__():
        cls_itself = getattr(cls, "_cls", cls)
        public = not cls_itself.__name__.startswith(("_", "Py"))
        if public and cls_itself.__module__.startswith("tvm."):
            names.append(cls_itself.__name__)
        names += ready_made(cls)
    return names


for part in (
    ms.SpaceGenerator,
    ms.SearchStrategy,
    ms.Builder,
    ms.Runner,
    ms.CostModel,
    ms.Database,
    ms.MeasureCallback,
    ms.TaskScheduler,
):
    line = f"{part.__name__:15s} {' '.join(ready_made(part))}"
    print(textwrap.fill(line, 78, subsequent_indent=" " * 16))

# %% cell: intrinsics
python_stack, calls, samples = inspect.stack, [], []


def counted(context=1):
    """Count the calls, and time what Python's own function would take."""
    calls.append(context)
    if len(calls) % 50 == 1:
        start = time.thread_time()
        python_stack()
        samples.append(time.thread_time() - start)
    return walk(context)[1:]


with quick_stack():
    walk, inspect.stack = inspect.stack, counted
    start = time.thread_time()
    import tvm.s_tir.tensor_intrin

    quick_s = time.thread_time() - start - sum(samples)
print(len(calls), "calls of inspect.stack")
glue("calls", len(calls))
slow_s = len(calls) * statistics.mean(samples)
glue("stack-ms", statistics.mean(samples) * 1e3, varies=True)
glue("stack-s", slow_s, varies=True)
glue("rest-s", quick_s, varies=True)

# %% check
assert len(calls) > 100 and slow_s > quick_s
assert inspect.stack is python_stack

# %% cell: run, varies
run = tune(gemm, trials=64, batch=16, cost_model="xgb", seed=1)
failed = sum(trial.error is not None for trial in run.trials)
print(f"{len(run.trials)} trials in {run.wall_s:.0f} s, {failed} failed")
glue("wall", run.wall_s, varies=True)

# %% check
assert len(run.trials) == len(run.records) == 64 and failed == 0
glue("trials", len(run.trials))

# %% cell: spread, varies
times = sorted(trial.seconds for trial in run.trials)
for name, seconds in (
    ("fastest", times[0]),
    ("median", statistics.median(times)),
    ("slowest", times[-1]),
):
    print(f"{name:8s} {seconds * 1e3:8.2f} ms {seconds / times[0]:6.1f}")
glue("spread", times[-1] / times[0], varies=True)

# %% check
assert times[-1] > 3 * times[0]

# %% cell: curve
rate = [2e-9 * N**3 / seconds for seconds in run.curve()]
when = [trial.at_s for trial in run.trials]
fig, left = new(height=2.9)
fig.clear()
left, right = fig.subplots(1, 2, sharey=True)
left.step(range(1, 65), rate, where="post")
single = [2e-9 * N**3 / trial.seconds for trial in run.trials]
left.plot(range(1, 65), single, ".", color="gray", markersize=4)
left.set_xlabel("trials")
left.set_ylabel("GFLOP/s")
right.step([0, *when], [0, *rate], where="post")
right.set_xlabel("seconds since the start")
left.set_ylim(0)
alt(
    fig,
    "Two curves of the best rate so far. Against trials it rises steeply "
    "within the first batches and then flattens; grey dots show that single "
    "candidates spread between zero and the curve. Against seconds it rises "
    "in steps, one for each batch.",
)

# %% cell: record, varies
record = run.records[0]
trace, seconds, target, args = record.as_json()
instructions, decisions = trace
print(len(instructions), "instructions, decisions of", end=" ")
print([int(decision[0]) for decision in decisions])
print("run_secs ", [float(second) for second in seconds])
print("args_info", record.args_info[0].as_json(), "and two more")

# %% cell: winner, varies
best = run.best
print("\n".join(best.trace.simplified(True).as_python()))

# %% cell: decisions, varies
for inst, decision in best.trace.decisions.items():
    print(f"{inst.kind.name:22s} {decision}")

# %% cell: replay
again = s_tir.Schedule(tvm.IRModule({"main": gemm}))
record.trace.apply_to_schedule(again, remove_postproc=False)
same = tvm_ffi.structural_equal
print(same(again.mod["main"].body, best.mod["main"].body))

# %% check
assert same(again.mod["main"].body, best.mod["main"].body)

# %% cell: kernel, varies
show(best.mod["main"], lines=(1, 34))

# %% cell: compare, varies
one_thread()
a, b = np.random.default_rng(0).random((2, N, N), dtype="float32")
A, B = tvm.runtime.tensor(a), tvm.runtime.tensor(b)
C = tvm.runtime.tensor(np.zeros_like(a))
tuned = tvm.compile(best.mod, target=host_target())["main"]
plain = tvm.compile(gemm, target=host_target())["main"]
with numpy_process(
    f"r = np.random.default_rng(0).random((2, {N}, {N}), dtype='float32')\n"
    "a, b = r; c = a @ b",
    "np.matmul(a, b, out=c)",
) as blas:
    result = race(
        {
            "plain loops": cpu_timer(lambda: plain(A, B, C)),
            "tuned": cpu_timer(lambda: tuned(A, B, C)),
            "numpy": blas,
        },
        rounds={"plain loops": 2, "tuned": 25, "numpy": 25},
    )
result.table()
share = result.ratio("numpy", "tuned")
gain = result.ratio("plain loops", "tuned")
print(f"{share:.2f} of numpy's speed on one thread, {gain:.0f} times plain")
glue("share", share, varies=True)
glue("gain", gain, varies=True)

# %% check
tuned(A, B, C)
np.testing.assert_allclose(C.numpy(), a @ b, rtol=1e-4)
assert share >= 0.8, share

# %% cell: options


def table(func):
    """Parameters of a function with their defaults."""
    for name, parameter in inspect.signature(func).parameters.items():
        default = parameter.default
        text = "(required)" if default is parameter.empty else repr(default)
        print(f"  {name:22s} {text}")


print("tune_tir")
table(ms.tune_tir)
tir = inspect.signature(ms.tune_tir).parameters
tasks = inspect.signature(ms.tune_tasks).parameters
print("only tune_tasks:", sorted(set(tasks) - set(tir)))
print("EvolutionarySearch")
table(ms.search_strategy.EvolutionarySearch.__init__)

# %% check
assert tir["max_trials_per_task"].default is None
assert tir["num_trials_per_iter"].default == 64


# %% cell: default-builder
inputs = [ms.builder.BuilderInput(run.context.mod, host_target())]
hurried = ms.builder.LocalBuilder(max_workers=1, timeout_sec=0.5)
print("as it is:   ", hurried.build(inputs)[0].error_msg)

# %% cell: cured-builder
cured = ms.builder.LocalBuilder(
    max_workers=1, timeout_sec=30, initializer=load_intrinsics
)
(answer,) = cured.build(inputs)
print("initialised:", answer.artifact_path.split("/")[-1], answer.error_msg)

# %% check
assert answer.error_msg is None

# %% cell: solution-random
random = tune(gemm, trials=16, batch=16, strategy="replay-trace", seed=2)
better = [seconds_of(r) for r in random.records if r.run_secs]
share_of_good = sum(s < 2 * run.best_s for s in better) / len(better)
assert len(better) == 16 and math.isfinite(random.best_s)
assert random.best_s < statistics.median(better)
glue("good", share_of_good, varies=True)

# %% cell: solution-budget
batches = {trial.at_s for trial in run.trials}
assert len(batches) == 64 // 16
