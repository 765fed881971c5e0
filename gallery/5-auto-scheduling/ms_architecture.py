"""
MetaSchedule from inside
========================

Who calls whom during a tuning run, what becomes of a candidate, and how
Python classes stand in for C++ ones.
"""

# %% cell: setup
import logging
import math
import re
import tempfile
from pathlib import Path

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.tuning import (
    CpuTimeRunner,
    InProcessBuilder,
    load_intrinsics,
    one_thread,
    tune,
)

load_intrinsics()
one_thread()
TARGET = tvm.target.Target({"kind": "llvm", "num-cores": 1})


@T.prim_func(s_tir=True)
def gemm(
    A: T.Buffer((32, 32), "float32"),
    B: T.Buffer((32, 32), "float32"),
    C: T.Buffer((32, 32), "float32"),
):
    T.func_attr({"tirx.noalias": True})
    for i, j, k in T.grid(32, 32, 32):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


# %% cell: by-hand
context = ms.TuneContext(
    gemm,
    target=TARGET,
    space_generator="post-order-apply",
    search_strategy="replay-trace",
    rand_state=1,
    num_threads=1,
)
spaces = context.generate_design_space()
context.pre_tuning(max_trials=4, num_trials_per_iter=2, design_spaces=spaces)
candidates = context.generate_measure_candidates()
print(len(spaces), "design spaces,", len(candidates), "candidates")
candidate = candidates[0]
print(type(candidate).__name__, *candidate.args_info)

# %% cell: by-hand-2
builder, runner = InProcessBuilder(), CpuTimeRunner()
results = builder.build(
    [ms.builder.BuilderInput(c.sch.mod, TARGET) for c in candidates]
)
futures = runner.run(
    [
        ms.runner.RunnerInput(result.artifact_path, "llvm", c.args_info)
        for result, c in zip(results, candidates, strict=True)
    ]
)
times = [future.result() for future in futures]
context.notify_runner_results(candidates, times)

database = ms.database.MemoryDatabase()
workload = database.commit_workload(context.mod)
for c, result in zip(candidates, times, strict=True):
    database.commit_tuning_record(
        ms.database.TuningRecord(
            c.sch.trace, workload, result.run_secs, TARGET, c.args_info
        )
    )
context.post_tuning()
print(len(database), "records;", [type(t).__name__ for t in times])
best = database.query_schedule(context.mod, TARGET, "main")
print(type(best).__name__, len(best.trace.insts) > 10)

# %% check
assert len(database) == 2 and best is not None

# %% cell: spy


def spy(base, inner, log, **fields):
    """A plug-in that logs the calls of C++ and hands them on to another."""
    names = base._tvm_metadata["methods"]

    def method(name):
        def call(self, *args):
            log.append(f"{base.__name__[2:]}.{name.lstrip('_')}")
            return getattr(inner, name)(*args)

        return call

    space = {name: method(name) for name in names if hasattr(inner, name)}
    space["__init__"] = lambda self: self.__dict__.update(fields)
    return derived_object(type("Spy", (base,), space))()


log = []
inner = ms.space_generator.PostOrderApply()
plug_ins = {
    "space_generator": spy(
        ms.space_generator.PySpaceGenerator,
        inner,
        log,
        sch_rules=ms.ScheduleRule.create("llvm"),
        postprocs=ms.Postproc.create("llvm"),
        mutator_probs={},
    ),
    "search_strategy": spy(
        ms.search_strategy.PySearchStrategy,
        ms.search_strategy.ReplayTrace(),
        log,
    ),
}
machine = {
    "builder": spy(ms.builder.PyBuilder, InProcessBuilder(), log),
    "runner": spy(ms.runner.PyRunner, CpuTimeRunner(), log),
    "cost_model": spy(
        ms.cost_model.PyCostModel, ms.cost_model.RandomModel(), log
    ),
}

# %% cell: calls
traced = ms.TuneContext(
    gemm, target=TARGET, rand_state=1, num_threads=1, **plug_ins
)
ms.tune_tasks(
    tasks=[traced],
    task_weights=[1.0],
    work_dir="",
    max_trials_global=4,
    num_trials_per_iter=2,
    database=ms.database.MemoryDatabase(),
    measure_callbacks=[
        ms.measure_callback.AddToDatabase(),
        ms.measure_callback.UpdateCostModel(),
    ],
    task_scheduler="round-robin",
    **machine,
)
for number, call in enumerate(log, 1):
    print(f"{number:2d} {call}")

# %% check
assert log.count("SpaceGenerator.initialize_with_tune_context") == 2
assert log.count("Builder.build") == log.count("Runner.run") == 2
assert log[-1] == "SearchStrategy.post_tuning"

# %% cell: flow
fig, _ = boxes_and_arrows(
    {
        "trace": (0, 0),
        "candidate": (1, 0),
        "binput": (2, 0),
        "bresult": (2, 1),
        "rinput": (2, 2),
        "future": (1, 2),
        "rresult": (0, 2),
        "record": (0, 1),
        "db": (1, 1),
    },
    {
        ("trace", "candidate"): "apply, postprocs",
        ("candidate", "binput"): "sch.mod",
        ("binput", "bresult"): "Build",
        ("bresult", "rinput"): "path",
        ("rinput", "future"): "Run",
        ("future", "rresult"): "Result",
        ("rresult", "record"): "run_secs",
        ("record", "db"): "commit",
    },
    labels={
        "trace": "Trace\nof a design space",
        "candidate": "MeasureCandidate\nsch, args_info",
        "binput": "BuilderInput\nmod, target",
        "bresult": "BuilderResult\nartifact_path, error_msg",
        "rinput": "RunnerInput\npath, device, args_info",
        "future": "RunnerFuture\ndone, result",
        "rresult": "RunnerResult\nrun_secs, error_msg",
        "record": "TuningRecord\ntrace, workload, run_secs",
        "db": "Database",
    },
    colors={
        "binput": "orange",
        "bresult": "orange",
        "rinput": "orange",
        "future": "orange",
        "rresult": "orange",
        "record": "green",
        "db": "green",
    },
    title="What becomes of a candidate",
)

# %% cell: failures


def picky(mod, target):
    """Refuse every second candidate."""
    picky.count += 1
    if picky.count % 2:
        raise ValueError("not this one")
    return tvm.tirx.build(mod, target=target)


picky.count = 0
half = tune(
    gemm,
    TARGET,
    trials=4,
    batch=4,
    strategy="replay-trace",
    builder=InProcessBuilder(picky),
    runner=CpuTimeRunner(),
)
records = half.database.get_all_tuning_records()
print([trial.error for trial in half.trials])
print([float(r.run_secs[0]) >= 1e10 for r in records])
top = half.database.get_top_k(records[0].workload, 10)
print(len(records), "records, of which usable:", len(top))

# %% check
assert len(records) == 4 and len(top) == 2
assert half.best is not None

# %% cell: wrapper


@derived_object
class Counting(ms.builder.PyBuilder):
    """Count the modules that were built."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def build(self, build_inputs):
        self.count += len(build_inputs)
        return InProcessBuilder().build(build_inputs)


mine = Counting()
print(type(mine).__name__, isinstance(mine, ms.builder.Builder))
print(type(mine._inst).__name__, mine._inst._outer() is mine)
mine.build([ms.builder.BuilderInput(context.mod, TARGET)])
print("read through the wrapper:", mine.count)
mine.count = 100
print("written to the wrapper, read from the object:", mine._inst.count)

# %% check
assert mine._inst.count == 100

# %% cell: not-a-subclass
with expect_error(TypeError, match="Inheritance from a decorated object"):

    class Louder(Counting):
        pass

    derived_object(Louder)


class Quieter(Counting._cls):
    """The class behind the wrapper can be inherited from."""


# %% cell: missing


@derived_object
class Empty(ms.builder.PyBuilder):
    """A builder that forgot to build."""


with expect_error(tvm.error.InternalError, match="not implemented"):
    Empty().build([])

# %% cell: round-trip
found = traced.search_strategy
print(found.same_as(plug_ins["search_strategy"]), type(found).__name__)
print(hasattr(found, "_inst"))

# %% check
assert found.same_as(plug_ins["search_strategy"])

# %% cell: cloned
made = []


@derived_object
class Counted(ms.schedule_rule.PyScheduleRule):
    """A rule that does nothing and counts how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        made.append(self)

    def _initialize_with_tune_context(self, context):
        pass

    def apply(self, sch, block):
        self.asked += 1
        return [sch]

    def clone(self):
        return Counted()


def tune_quietly(folder, space):
    """Two random trials with `tune_tir`, and the files of the run."""
    package = logging.getLogger("tvm.s_tir.meta_schedule")
    package.setLevel(logging.ERROR)
    return ms.tune_tir(
        gemm,
        TARGET,
        folder,
        max_trials_global=2,
        builder=InProcessBuilder(),
        runner=CpuTimeRunner(),
        cost_model="random",
        measure_callbacks=[ms.measure_callback.AddToDatabase()],
        space=space,
        strategy="replay-trace",
        num_tuning_cores=1,
        seed=1,
    )


mine = Counted()
with tempfile.TemporaryDirectory() as folder:
    tune_quietly(
        folder,
        ms.space_generator.PostOrderApply(
            sch_rules=[mine], postprocs=[], mutator_probs={}
        ),
    )
print("asked:", mine.asked, "of all copies:", [r.asked for r in made])

# %% check
assert mine.asked == 0 and len(made) == 2

# %% cell: own-scheduler


@derived_object
class Forgetful(ms.task_scheduler.PyTaskScheduler):
    """Always the first task."""

    def next_task_id(self):
        return 0


@derived_object
class Careful(ms.task_scheduler.PyTaskScheduler):
    """Always the first task, whose results are fetched before."""

    def next_task_id(self):
        self._outer().touch_task(0)
        return 0


def run_with(scheduler):
    """Four trials of the task, two at a time."""
    database = ms.database.MemoryDatabase()
    task = ms.TuneContext(
        gemm,
        target=TARGET,
        space_generator="post-order-apply",
        search_strategy="replay-trace",
        rand_state=1,
        num_threads=1,
    )
    ms.tune_tasks(
        tasks=[task],
        task_weights=[1.0],
        work_dir="",
        max_trials_global=4,
        num_trials_per_iter=2,
        builder=InProcessBuilder(),
        runner=CpuTimeRunner(),
        cost_model="random",
        database=database,
        measure_callbacks=[ms.measure_callback.AddToDatabase()],
        task_scheduler=scheduler,
    )
    return len(database)


with expect_error(tvm.error.InternalError, match="runner_futures"):
    run_with(Forgetful())
print(run_with(Careful()), "records")

# %% check
assert run_with(Careful()) == 4

# %% cell: gradient
scheduler = ms.TaskScheduler.create("gradient")
print("alpha", scheduler.alpha, "window_size", scheduler.window_size)


def gradient(history, weight, alpha=0.2, window=3):
    """Picks a task; history: the best time after each batch."""
    best, batches = history[-1], len(history)
    fall = 0.0
    if batches > window:
        fall = (history[-1 - window] - best) / window
    return weight * (alpha * fall + (1 - alpha) * best / batches)


print(f"long, flat:    {gradient([9, 9, 9, 9, 9], 1):.2f}")
print(f"short, steep:  {gradient([4, 3, 2, 1, 0.7], 1):.2f}")
print(f"short, often:  {gradient([4, 3, 2, 1, 0.7], 10):.2f}")

# %% cell: logging
with tempfile.TemporaryDirectory() as folder:
    tune_quietly(folder, "post-order-apply")
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            print(path.relative_to(folder))
    text = next(Path(folder, "logs").glob("*task_0*")).read_text()
    lines = [re.sub(r"^\S+ \S+ ", "", line) for line in text.splitlines()]
    scheduler = next(Path(folder, "logs").glob("*scheduler*")).read_text()
print()
for line in lines:
    if "Trial" in line or "Initializing" in line or "design space(s)" in line:
        print(re.sub(r"\d+\.\d+", "#", line))

# %% check
assert sum("Trial #" in line for line in lines) == 2
glue("log-lines", len(lines))

# %% cell: statistics
last = scheduler[scheduler.rindex("ID |") :]
measured = r"\d+\.\d+|(?<=us\): )\S+"
for line in last.splitlines():
    if "|" in line or "Total" in line:
        print(" ".join(re.sub(measured, "#", line).split()))

# %% cell: solution-shared
space = ms.space_generator.PostOrderApply()
first = ms.TuneContext(gemm, target=TARGET, space_generator=space)
cuda = {
    "kind": "cuda",
    "arch": "sm_70",
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 49152,
    "thread_warp_size": 32,
}
with expect_error(tvm.error.InternalError, match="num-cores"):
    ms.TuneContext(gemm, target=cuda, space_generator=space)
fresh = ms.TuneContext(gemm, target=cuda, space_generator="post-order-apply")
names = [str(rule).split("(")[0] for rule in fresh.space_generator.sch_rules]
assert any("AutoBind" in name for name in names)

# %% cell: solution-batches
two = tune(gemm, TARGET, trials=6, batch=4, strategy="replay-trace")
sizes = [
    sum(t.at_s == at for t in two.trials)
    for at in {t.at_s for t in two.trials}
]
assert sorted(sizes) == [2, 4] and math.isfinite(two.best_s)
