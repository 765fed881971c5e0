"""
Whole models
============

From a model to tasks, from tasks to a database, from the database to a
faster model: extraction, budgets, files and application.
"""

# gallery: timeout=300

# %% cell: setup
import base64
import contextlib
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import tvm
from tvm import relax
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import cpu_timer, race
from tvm_deepdive_helpers.figures import alt, new
from tvm_deepdive_helpers.tuning import (
    CpuTimeRunner,
    InProcessBuilder,
    host_target,
    load_intrinsics,
    one_thread,
    seconds_of,
)

load_intrinsics()
one_thread()
logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
TARGET = host_target()


@I.ir_module
class Net:
    @R.function
    def main(
        x: R.Tensor((64, 128), "float32"),
        w1: R.Tensor((128, 128), "float32"),
        w2: R.Tensor((128, 128), "float32"),
        w3: R.Tensor((128, 128), "float32"),
        w4: R.Tensor((128, 32), "float32"),
    ):
        with R.dataflow():
            h1 = R.nn.relu(R.matmul(x, w1))
            h2 = R.nn.relu(R.matmul(h1, w2))
            h3 = R.exp(R.matmul(h2, w3))
            y = R.matmul(h3, w4)
            R.output(y)
        return y


# %% cell: tasks
prepare = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
)
fused = prepare(Net)
print("from operators:", ms.relax_integration.extract_tasks(Net, TARGET))
tasks = ms.relax_integration.extract_tasks(fused, TARGET)
for task in sorted(tasks, key=lambda task: task.task_name):
    (func,) = task.mod.functions.values()
    print(task.weight, task.task_name, "->", task.mod.get_global_vars())

# %% cell: equality


def extracted(mod, equality):
    """Names and weights of the tasks."""
    found = ms.relax_integration.extract_tasks(
        mod, TARGET, module_equality=equality
    )
    return sorted((t.task_name, int(t.weight)) for t in found)


for equality in ("structural", "ignore-tensor", "anchor-block"):
    print(f"{equality:14s}", extracted(fused, equality))

# %% check
assert extracted(fused, "structural")[0] == ("fused_matmul_relu", 2)
assert extracted(fused, "anchor-block")[0] == ("fused_matmul_relu", 3)

# %% cell: one-too-many


@I.ir_module
class LongFirst:
    @R.function
    def main(
        x: R.Tensor((64, 128), "float32"), w: R.Tensor((128, 128), "float32")
    ):
        with R.dataflow():
            h = R.nn.relu(R.matmul(x, w))  # two blocks
            y = R.matmul(h, w)  # one block
            R.output(y)
        return y


print(extracted(prepare(LongFirst), "structural"))
print(extracted(prepare(LongFirst), "anchor-block"))

# %% check
assert extracted(prepare(LongFirst), "anchor-block") == [("matmul", 3)]

# %% cell: pretend


@derived_object
class NoBuilder(ms.builder.PyBuilder):
    """Builds nothing."""

    def build(self, build_inputs):
        return [ms.builder.BuilderResult("", None) for _ in build_inputs]


@derived_object
class At(ms.runner.PyRunnerFuture):
    """A time that is known already."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    def done(self):
        return True

    def result(self):
        return ms.runner.RunnerResult([self.seconds], None)


@derived_object
class Pretended(ms.runner.PyRunner):
    """Times by a formula: from `start`, falling to `end` ms."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks, self.order, self.best = tasks, [], {}
        self.totals = []

    def run(self, runner_inputs):
        (extent,) = runner_inputs[0].args_info[0].shape
        name, start, end, weight, speed = self.tasks[int(extent)]
        batches = self.order.count(name)
        self.order.append(name)
        now = end + (start - end) * speed**batches
        self.best[name] = now * weight
        if len(self.best) == len(self.tasks):
            self.totals.append(sum(self.best.values()))
        return [At(now / 1000) for _ in runner_inputs]


def copy_task(n):
    """A task that can be told from others by its shape."""

    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((n,), "float32"), B: T.Buffer((n,), "float32")):
        for i in range(n):
            with T.sblock("B"):
                v = T.axis.spatial(n, i)
                B[v] = A[v]

    def space(sch):
        (loop,) = sch.get_loops(sch.get_sblock("B"))
        step = sch.sample_categorical(list(range(64)), [1 / 64] * 64)
        sch.annotate(loop, "book_choice", step)

    generator = ms.space_generator.ScheduleFn(
        space, sch_rules=[], postprocs=[], mutator_probs={}
    )
    return ms.TuneContext(
        main,
        target=TARGET,
        space_generator=generator,
        search_strategy="replay-trace",
        task_name=str(n),
        rand_state=1,
        num_threads=1,
        logger=logging.getLogger("silent"),
    )


# %% cell: schedulers
PRETENDED = {  # name, start and end in ms, weight, fall per batch
    16: ("a", 8.0, 7.8, 1, 0.5),
    17: ("b", 6.0, 1.0, 1, 0.7),
    18: ("c", 1.0, 0.5, 12, 0.8),
    19: ("d", 0.3, 0.1, 1, 0.7),
}
logging.getLogger("silent").setLevel(logging.CRITICAL)
runners = {}
for kind in ("round-robin", "gradient"):
    runners[kind] = Pretended(PRETENDED)
    ms.tune_tasks(
        tasks=[copy_task(n) for n in PRETENDED],
        task_weights=[float(task[3]) for task in PRETENDED.values()],
        work_dir="",
        max_trials_global=24,
        num_trials_per_iter=1,
        builder=NoBuilder(),
        runner=runners[kind],
        database=ms.database.MemoryDatabase(),
        cost_model="random",
        measure_callbacks=[],
        task_scheduler=kind,
    )
    print(f"{kind:12s}", " ".join(runners[kind].order))

# %% cell: totals
fig, ax = new(height=2.8)
for kind, one in runners.items():
    ax.plot(range(4, 25), one.totals, label=kind)
ax.set_xlabel("batches")
ax.set_xticks(range(4, 25, 4))
ax.set_ylabel("ms, weighted sum")
ax.legend()
alt(
    fig,
    "Weighted time of all tasks against batches. Both schedulers fall from "
    "26 to below 18 ms, the gradient scheduler a little ahead.",
)

# %% check
turns, steep = (runners[kind] for kind in ("round-robin", "gradient"))
assert turns.order == list("abcd") * 6
assert steep.order[:4] == list("abcd")
assert steep.totals[-1] < turns.totals[-1]
assert steep.order.count("c") > steep.order.count("d")

# %% cell: tune
folder = tempfile.TemporaryDirectory()
database = ms.relax_integration.tune_relax(
    fused,
    params={},
    target=TARGET,
    work_dir=folder.name,
    max_trials_global=24,
    num_trials_per_iter=4,
    strategy="replay-trace",
    cost_model="random",
    builder=InProcessBuilder(),
    runner=CpuTimeRunner(),
    measure_callbacks=[ms.measure_callback.AddToDatabase()],
    seed=1,
)
print(len(database), "records")
for path in sorted(Path(folder.name).rglob("*.json")):
    print(path.name, len(path.read_text().splitlines()), "lines")

# %% check
assert len(database) == 24

# %% cell: workload-line
workloads = Path(folder.name, "database_workload.json")
records = Path(folder.name, "database_tuning_record.json")
shash, coded = json.loads(workloads.read_text().splitlines()[0])
graph = json.loads(base64.b64decode(coded)[8:])
print(type(shash).__name__, "and", sorted(graph))
print(graph["metadata"], len(graph["nodes"]) > 100)

# %% cell: record-line
index, record = json.loads(records.read_text().splitlines()[0])
(instructions, decisions), run_secs, target, args = record
print("workload", index, "|", len(run_secs), "time |", args[0])
print("target", sorted(target))
print(instructions[0])
print([name for name, *_ in instructions][:6])
print(all(len(decision) == 2 for decision in decisions))

# %% cell: torn-line
with tempfile.TemporaryDirectory() as broken:
    Path(broken, workloads.name).write_text(workloads.read_text())
    Path(broken, records.name).write_text(records.read_text()[:-20])
    with expect_error(RuntimeError, match="parallel_for_dynamic"):
        ms.database.JSONDatabase(work_dir=broken)

# %% cell: query
by_name = {task.task_name: task.mod for task in tasks}
mod = by_name["fused_matmul_relu"]
for kind in ("record", "schedule", "ir_module"):
    found = database.query(mod, TARGET, kind=kind)
    print(f"{kind:10s}", type(found).__name__)
cuda = tvm.target.Target({"kind": "cuda", "arch": "sm_80"})
same = database.query(mod, cuda, workload_name="any", kind="record")
print("for another target:", same is not None)
print("not normalised:", database.query(fused, TARGET))

# %% check
assert same is not None

# %% cell: apply


def scheduled(mod):
    """Which kernels carry the mark of a schedule."""
    return {
        var.name_hint: bool(func.attrs.get("tirx.is_scheduled", False))
        for var, func in mod.functions_items()
        if isinstance(func, tvm.tirx.PrimFunc)
    }


with TARGET, database:
    tuned = relax.transform.MetaScheduleApplyDatabase()(fused)
    zero = relax.get_pipeline("zero")(Net)
    early = relax.transform.MetaScheduleApplyDatabase()(Net)
print("on fused functions: ", scheduled(tuned))
print("zero pipeline:      ", scheduled(zero))
print("on operators:       ", scheduled(early))

# %% check
assert all(scheduled(tuned).values()) and all(scheduled(zero).values())
assert not any(scheduled(early).values())

# %% cell: default-pipeline, varies
with database:
    ignored = tvm.compile(Net, target=TARGET)
with database, TARGET:
    kept = tvm.compile(relax.get_pipeline("zero")(Net), target=TARGET)
pipeline = relax.get_pipeline(
    "static_shape_tuning", total_trials=0, target=TARGET, work_dir="."
)
with contextlib.chdir(folder.name):
    from_files = pipeline(Net)
print("static_shape_tuning:", all(scheduled(from_files).values()))
compiled = ms.relax_integration.compile_relax(database, Net, TARGET, None)
print(type(compiled).__name__)

# %% check
assert all(scheduled(from_files).values())

# %% cell: speed, varies
rng = np.random.default_rng(0)
shapes = [(64, 128)] + [(128, 128)] * 3 + [(128, 32)]
arrays = [rng.random(shape, "float32") / 16 for shape in shapes]
args = [tvm.runtime.tensor(array) for array in arrays]


def timer(executable):
    """Processor time of one call of the model."""
    main = relax.VirtualMachine(executable, tvm.cpu())["main"]
    return cpu_timer(lambda: main(*args))


result = race(
    {
        "default": timer(tvm.compile(Net, target=TARGET)),
        "in the scope of the database": timer(ignored),
        "zero pipeline in the scope": timer(kept),
        "compile_relax": timer(compiled),
    },
    rounds=15,
)
result.table()
gain = result.ratio("default", "zero pipeline in the scope")
print(f"{gain:.1f} times as fast")
glue("gain", gain, varies=True)

# %% check
machine = relax.VirtualMachine(kept, tvm.cpu())
h = np.maximum(arrays[0] @ arrays[1], 0)
h = np.exp(np.maximum(h @ arrays[2], 0) @ arrays[3])
np.testing.assert_allclose(
    machine["main"](*args).numpy(), h @ arrays[4], rtol=1e-4
)
assert gain > 1.5, gain
assert result.ratio("default", "compile_relax") > 1.5

# %% cell: anchor
anchored = ms.database.MemoryDatabase(module_equality="anchor-block")
plain = ms.database.MemoryDatabase()
for memory in (anchored, plain):
    for record in database.get_top_k(database.commit_workload(mod), 1):
        memory.commit_tuning_record(
            ms.database.TuningRecord(
                record.trace,
                memory.commit_workload(mod),
                record.run_secs,
                TARGET,
                record.args_info,
            )
        )
    with TARGET, memory:
        out = relax.transform.MetaScheduleApplyDatabase()(fused)
    print(scheduled(out))

# %% cell: tuning-pass
seen = []


def instead(mod, params, target, work_dir, trials, per_task, ops):
    """Stands for `tune_relax` in the pass."""
    seen.append((int(trials), int(per_task), ops))
    return mod


tvm.register_global_func(
    "tvm.s_tir.meta_schedule.tune_relax", instead, override=True
)
with TARGET:
    tuning = relax.transform.MetaScheduleTuneIRMod(
        params={}, work_dir=folder.name, max_trials_global=100
    )
    unchanged = tuning(fused)
print(tuning.info.name, seen)
print("the module is unchanged:", unchanged.same_as(fused))


def late(mod, *rest):
    """Registered after the pass has run once: nobody asks for it."""
    seen.append("late")
    return mod


name = "tvm.s_tir.meta_schedule.tune_relax"
tvm.register_global_func("book.instead", tvm.get_global_func(name))
tvm.register_global_func(name, late, override=True)
tuning(fused)
print("second run:", seen)

# %% check
assert seen == [(100, 100, None)] * 2 and unchanged.same_as(fused)

# %% cell: solution-order


def gradient(history, weight, alpha=0.2, window=3):
    """Expected gain of one more batch for a task."""
    best, n = history[-1], len(history)
    fall = (history[-1 - window] - best) / window if n > window else 0.0
    return weight * (alpha * fall + (1 - alpha) * best / n)


def predicted(tasks, batches):
    """Which task gets each batch."""
    order, histories = [], {task[0]: [] for task in tasks}
    for turn in range(batches):
        if turn < len(tasks):
            task = tasks[turn]
        else:
            task = max(tasks, key=lambda t: gradient(histories[t[0]], t[3]))
        name, start, end, _, speed = task
        batch = len(histories[name])
        histories[name].append(end + (start - end) * speed**batch)
        order.append(name)
    return order


print(" ".join(predicted(list(PRETENDED.values()), 24)))
assert predicted(list(PRETENDED.values()), 24) == steep.order

# %% cell: solution-pruned
with tempfile.TemporaryDirectory() as small:
    pruned = ms.database.JSONDatabase(work_dir=small)
    database.dump_pruned(pruned)
    again = ms.database.JSONDatabase(work_dir=small)
    print(len(database), "records ->", len(again))
    for task in tasks:
        old = database.query(task.mod, TARGET, kind="record")
        kept_one = again.query(task.mod, TARGET, kind="record")
        assert seconds_of(old) == seconds_of(kept_one)
    assert len(again) == len(tasks) == 3

# %% check
folder.cleanup()
