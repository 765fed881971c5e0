"""
Debugging a tuning run
======================

What a run says about itself: logs, traces, records, times, refusals, seeds;
and the failures that everybody meets once.
"""

# gallery: timeout=300

# %% cell: setup
import logging
import re
from collections import Counter

import numpy as np
import tvm
import tvm_ffi
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import ScheduleError
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import alt, new
from tvm_deepdive_helpers.tuning import (
    host_target,
    load_intrinsics,
    one_thread,
    seconds_of,
    tune,
)

load_intrinsics()
one_thread()
TARGET = tvm.target.Target({"kind": "llvm", "num-cores": 1})
N = 128


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


# %% cell: run


class Lines(logging.Handler):
    """Keep what is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines += record.getMessage().splitlines()


kept = Lines()
logger = logging.Logger("book")
logger.addHandler(kept)
with ms.Profiler() as profiler:
    run = tune(
        gemm,
        host_target(),
        trials=32,
        batch=16,
        population=32,
        cost_model="random",
        logger=logger,
        seed=1,
    )
print(len(run.records), "records,", len(kept.lines) > 100)

# %% cell: log
wanted = re.compile(r"summary|Picked top|Sampled|Sending|Trial #")
heads = [re.sub(r"\d+\.\d+", "#", x) for x in kept.lines if wanted.search(x)]
for line in [*heads[:7], "...", *heads[-1:]]:
    print(line)

# %% check
assert sum("Trial #" in line for line in kept.lines) == 32

# %% cell: profile, varies
seconds = {name: float(value) for name, value in profiler.get().items()}
for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
    print(f"{name:42s}{value / seconds['Total']:6.1%}")

# %% check
assert {"Total", "SendToBuilder", "SendToRunner"} <= set(seconds)
assert seconds["SendToBuilder"] > seconds["InitializeTask"]

# %% cell: printing, varies
best = run.records[0].trace
for trace in (best, best.simplified(remove_postproc=True)):
    print(
        len(trace.insts), "instructions,", len(trace.decisions), "decisions"
    )
print(*best.as_python()[:4], sep="\n")
print(*run.best.trace.as_python()[-1:], sep="\n")

# %% cell: decisions, varies


def choices(record):
    """The decisions of a record, by instruction and place."""
    result = {}
    for inst in record.trace.insts:
        if inst.kind.name.startswith("Sample"):
            place = f"{inst.kind.name}#{len(result)}"
            result[place] = record.trace.get_decision(inst)
    return result


ok = [r for r in run.records if seconds_of(r) < 1e9]
for name, value in choices(ok[0]).items():
    print(f"{name:22s} best {value!s:22s} worst {choices(ok[-1]).get(name)}")

# %% cell: distribution, varies
fig, left = new(height=2.8)
left.remove()
left, right = fig.subplots(1, 2)
times = np.array([seconds_of(r) for r in ok]) * 1e6
left.plot(np.arange(1, len(times) + 1), times, ".")
left.set_xlabel("rank")
left.set_ylabel("us")
inner = [
    int(d[-1])
    for r in ok
    for name, d in choices(r).items()
    if name == "SamplePerfectTile#1"
]
tiled = [
    seconds_of(r) * 1e6 for r in ok if "SamplePerfectTile#1" in choices(r)
]
right.plot(inner, tiled, ".")
right.set_xscale("log", base=2)
right.set_xlabel("innermost factor of the second loop")
left.set_ylim(0)
right.set_ylim(0)
alt(
    fig,
    "Left: times of all records, sorted, rising slowly at first and steeply "
    "at the end. Right: time against the innermost factor of the second "
    "loop, in columns, one for each power of two.",
)

# %% cell: replay
record = run.records[0]
schedule = Schedule(run.context.mod)
record.trace.apply_to_schedule(schedule, remove_postproc=False)
candidate = record.as_measure_candidate()
print(type(candidate).__name__, candidate.args_info[0])
print(tvm_ffi.structural_equal(schedule.mod, candidate.sch.mod))


def wrong_by(mod, n=N):
    """Largest error relative to numpy's product."""
    a, b = np.random.default_rng(0).random((2, n, n), "float32")
    kernel = tvm.compile(mod, target=TARGET)["main"]
    out = tvm.runtime.tensor(np.zeros((n, n), "float32"))
    kernel(tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
    return np.max(np.abs(out.numpy() - a @ b) / (a @ b))


print(all(wrong_by(r.as_measure_candidate().sch.mod) < 1e-4 for r in ok[:3]))

# %% check
assert wrong_by(schedule.mod) < 1e-4

# %% cell: first-failing


def first_failing(trace, mod):
    """The first instruction of a trace that does not fit a module."""
    for end in range(1, len(trace.insts) + 1):
        part = type(trace)(trace.insts[:end], trace.decisions)
        try:
            part.apply_to_schedule(Schedule(mod), remove_postproc=False)
        except (ScheduleError, tvm.error.InternalError) as err:
            return trace.insts[end - 1].kind.name, type(err).__name__
    return None


renamed = gemm.script().replace('sblock("C")', 'sblock("product")')
renamed = tvm.script.from_source(renamed)
other = tvm.IRModule({"main": renamed})
print("its own workload:", first_failing(record.trace, run.context.mod))
print("a block renamed: ", first_failing(record.trace, other))

# %% check
assert first_failing(record.trace, run.context.mod) is None

# %% cell: refused


@derived_object
class NoLongLoops(ms.postproc.PyPostproc):
    """Refuse candidates whose first loop has more than 8 rounds."""

    def _initialize_with_tune_context(self, context):
        pass

    def apply(self, sch):
        (block, *_) = sch.get_child_blocks(sch.get_sblock("root"))
        return int(sch.get(sch.get_loops(block)[0]).extent) <= 8

    def clone(self):
        return NoLongLoops()


def space_with(*extra):
    """The default space with further postprocessors."""
    return ms.space_generator.PostOrderApply(
        postprocs=[*ms.Postproc.create("llvm"), *extra],
        sch_rules="from-target",
        mutator_probs="from-target",
    )


kept.lines.clear()
strict = tune(
    gemm,
    TARGET,
    trials=4,
    batch=4,
    population=16,
    space=space_with(NoLongLoops()),
    logger=logger,
)
sums = Counter()
for line in kept.lines:
    if found := re.search(r"Postproc #\d+ \[([\w.]+).*: (\d+) fail", line):
        sums[found[1].split(".")[-1]] += int(found[2])
for name, failures in sums.items():
    print(f"{name:32s}", "some" if failures else 0)
print(len(strict.records), "records")

# %% check
assert sums.most_common(1)[0][1] > 0 and len(strict.records) == 4

# %% cell: by-hand


def verdicts(context, samples):
    """Which postprocessor refuses random candidates."""
    result = Counter()
    spaces = context.generate_design_space()
    for seed in range(1, samples + 1):
        trace = spaces[seed % len(spaces)].trace
        sch = Schedule(context.mod, seed=seed)
        try:
            type(trace)(trace.insts, {}).apply_to_schedule(sch, False)
        except ScheduleError as err:
            result[type(err).__name__] += 1
            continue
        sch.enter_postproc()
        for postproc in context.space_generator.postprocs:
            if not postproc.apply(sch):
                result[str(postproc).split("(")[0].split(".")[-1]] += 1
                break
        else:
            result["accepted"] += 1
    return dict(result)


gpu = ms.TuneContext(
    gemm,
    target={
        "kind": "cuda",
        "arch": "sm_70",
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "thread_warp_size": 32,
    },
    space_generator="post-order-apply",
    search_strategy="evolutionary",
    num_threads=1,
)
cpu = ms.TuneContext(
    gemm,
    target=TARGET,
    space_generator="post-order-apply",
    search_strategy="evolutionary",
    num_threads=1,
)
print("cpu ", verdicts(cpu, 12))
print("cuda", verdicts(gpu, 24))

# %% cell: nothing-left


@derived_object
class Never(ms.postproc.PyPostproc):
    """Refuse everything."""

    def _initialize_with_tune_context(self, context):
        pass

    def apply(self, sch):
        return False

    def clone(self):
        return Never()


kept.lines.clear()
empty = tune(
    gemm,
    TARGET,
    trials=4,
    batch=4,
    population=16,
    space=space_with(Never()),
    logger=logger,
)
print(len(empty.records), "records, no error")
print(kept.lines[-1])

# %% cell: seeds


def first_batch(seed, threads):
    """The traces of the first batch."""
    context = ms.TuneContext(
        gemm,
        target=TARGET,
        space_generator="post-order-apply",
        search_strategy="replay-trace",
        rand_state=seed,
        num_threads=threads,
    )
    context.pre_tuning(6, 6, context.generate_design_space())
    return [str(c.sch.trace) for c in context.generate_measure_candidates()]


print("again:            ", first_batch(1, 1) == first_batch(1, 1))
print("another seed:     ", first_batch(1, 1) == first_batch(2, 1))

# %% cell: seeds-threads, varies
again = [first_batch(1, 2) == first_batch(1, 2) for _ in range(6)]
print("two threads, the same seed:", sum(again), "of", len(again), "equal")

# %% check
assert first_batch(1, 1) == first_batch(1, 1) != first_batch(2, 1)
assert len(empty.records) == 0

# %% cell: num-cores
with expect_error(tvm.error.InternalError, match="num-cores"):
    ms.TuneContext(gemm, target="llvm", space_generator="post-order-apply")

# %% cell: same-workload


def known(func):
    """Whether the database has this workload."""
    mod = tvm.IRModule({"main": func})
    return run.database.query(mod, TARGET, kind="record") is not None


text = gemm.script()
variants = {
    "as it was": gemm,
    "variables renamed": tvm.script.from_source(
        re.sub(r"\bvk\b", "reduction", text)
    ),
    "block renamed": renamed,
    "buffer renamed": tvm.script.from_source(re.sub(r"\bA\b", "left", text)),
    "an attribute more": gemm.with_attr("note", 1),
    "another order of loops": tvm.script.from_source(
        text.replace("i, j, k in", "j, i, k in")
    ),
}
for name, func in variants.items():
    print(f"{name:24s}", "found" if known(func) else "not found")

# %% check
assert known(gemm) and not known(variants["an attribute more"])

# %% cell: solution-callback


@derived_object
class Verify(ms.measure_callback.PyMeasureCallback):
    """Compare every new best candidate with numpy."""

    def __init__(self):
        super().__init__()
        self.best, self.errors = float("inf"), []

    def apply(self, scheduler, task_id, candidates, builds, results):
        now = min(range(len(results)), key=lambda i: seconds_of(results[i]))
        if seconds_of(results[now]) < self.best:
            self.best = seconds_of(results[now])
            self.errors.append(wrong_by(candidates[now].sch.mod))


verify = Verify()
checked = tune(
    gemm,
    TARGET,
    trials=4,
    batch=2,
    strategy="replay-trace",
    callbacks=[verify],
)
assert 1 <= len(verify.errors) <= 2 and max(verify.errors) < 1e-4

# %% cell: solution-bisect
smaller = tvm.script.from_source(gemm.script().replace("128", "96"))
on_smaller = tvm.IRModule({"main": smaller})
print("on 96 rows:", first_failing(record.trace, on_smaller))
moved = Schedule(on_smaller)
record.trace.apply_to_schedule(moved, remove_postproc=False)
tiles = [
    [int(x) for x in moved.trace.get_decision(inst)]
    for inst in moved.trace.insts
    if inst.kind.name == "SamplePerfectTile"
]
print("products of the factors:", [int(np.prod(tile)) for tile in tiles])
print("right:", wrong_by(moved.mod, 96) < 1e-4)
assert [int(np.prod(tile)) for tile in tiles] == [96, 96, 96]
assert wrong_by(moved.mod, 96) < 1e-4
