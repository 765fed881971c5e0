"""
AutoTVM and Ansor in terms of MetaSchedule
==========================================

A template and a sketch search of older texts, written for 0.27, and a check
of the names on the page.
"""

# %% cell: setup
import inspect
from datetime import date

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import alt, new
from tvm_deepdive_helpers.recorded import data, read_csv
from tvm_deepdive_helpers.renames import resolve
from tvm_deepdive_helpers.tuning import host_target, load_intrinsics, tune

load_intrinsics()
N = 64


@T.prim_func(s_tir=True)
def matmul(
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


# %% cell: history
released = {
    row["release"]: date.fromisoformat(row["date"])
    for row in read_csv(data("tvm_releases.csv"))
}
rooms = {row["room"]: row for row in read_csv(data("tvm_rooms.csv"))}
last = max(released.values())
print("package | first release | last release | Python files")
for name in ("autotvm", "auto_scheduler", "meta_schedule"):
    row = rooms["python/tvm/" + name]
    print(f"`{name}`", end=" | ")
    for key in ("first", "last"):
        print(row[key], f"({released[row[key]]:%b %Y})", end=" | ")
    print(row["files"])

# %% cell: history-figure
fig, ax = new(height=1.9)
for line, name in enumerate(("autotvm", "auto_scheduler", "meta_schedule")):
    row = rooms["python/tvm/" + name]
    start = released[row["first"]]
    end = last if name == "meta_schedule" else released[row["last"]]
    ax.barh(-line, (end - start).days, left=start.toordinal(), height=0.5)
    ax.text(start.toordinal() + 40, -line, name, va="center", color="white")
years = range(2018, 2028, 2)
ax.set_xticks([date(y, 1, 1).toordinal() for y in years], list(years))
ax.set_yticks([])
alt(
    fig,
    "Bars in time. autotvm from 2018 to 2025, auto_scheduler from 2020 to "
    "2025, meta_schedule from the end of 2021 on.",
)

# %% cell: gone
for name in ("tvm.autotvm", "tvm.auto_scheduler", "tvm.meta_schedule"):
    try:
        resolve(name)
    except (AttributeError, ImportError) as err:
        print(name, "->", type(err).__name__)
    else:
        raise AssertionError(name)

# %% cell: template
SIZES = [1, 2, 4, 8, 16]


def template(sch):
    """Tutorial template `matmul_v1` of AutoTVM."""
    y, x, k = sch.get_loops(sch.get_sblock("C"))
    tile_y = sch.sample_categorical(SIZES, [0.2] * 5)  # define_knob
    tile_x = sch.sample_categorical(SIZES, [0.2] * 5)
    yo, yi = sch.split(y, [None, tile_y])
    xo, xi = sch.split(x, [None, tile_x])
    sch.reorder(yo, xo, k, yi, xi)


space = ms.space_generator.ScheduleFn(
    template, sch_rules=[], postprocs=[], mutator_probs={}
)
run = tune(
    matmul,
    host_target(),
    trials=8,
    batch=8,
    space=space,
    strategy="replay-trace",
)
print(len(run.records), "records")


def config(trace):
    """What AutoTVM called a ConfigEntity."""
    return [
        SIZES[int(trace.get_decision(inst))]
        for inst in trace.insts
        if inst.kind.name == "SampleCategorical"
    ]


drawn = [config(record.trace) for record in run.records]
print(all(len(c) == 2 and set(c) <= set(SIZES) for c in drawn))

# %% check
assert len(run.records) == 8

# %% cell: entity
schedule = Schedule(tvm.IRModule({"main": matmul}))
template(schedule)
trace = schedule.trace
for inst in trace.insts:
    if inst.kind.name == "SampleCategorical":
        trace = trace.with_decision(inst, 3, remove_postproc=False)
chosen = Schedule(tvm.IRModule({"main": matmul}))
trace.apply_to_schedule(chosen, remove_postproc=False)
loops = chosen.get_loops(chosen.get_sblock("C"))
print(config(trace), [int(chosen.get(loop).extent) for loop in loops])

# %% check
assert [int(chosen.get(loop).extent) for loop in loops] == [8, 8, 64, 8, 8]

# %% cell: sketches
task = ms.TuneContext(  # SearchTask
    matmul,
    target=host_target(),
    space_generator="post-order-apply",
    search_strategy="replay-trace",
    rand_state=1,
    num_threads=1,
)
sketches = task.generate_design_space()  # sketches
print(len(sketches), "sketches; open decisions:")
for sketch in sketches:
    kinds = [inst.kind.name for inst in sketch.trace.insts]
    print(sum(kind.startswith("Sample") for kind in kinds), end=" ")
print()
task.pre_tuning(3, 3, sketches)
programs = task.generate_measure_candidates()  # annotated programs
print(len(programs), "programs")

# %% cell: rules
OF_ANSOR = {
    "RuleAlwaysInline": "schedule_rule.AutoInline",
    "RuleMultiLevelTiling": "schedule_rule.MultiLevelTiling",
    "RuleAddCacheRead, RuleAddCacheWrite": "schedule_rule.ReuseType",
    "RuleAddRfactor": "schedule_rule.AddRFactor",
    "RuleCrossThreadReduction": "schedule_rule.CrossThreadReduction",
    "InitFillTileSize": "schedule_rule.MultiLevelTiling",
    "InitChangeComputeLocation": "schedule_rule.RandomComputeLocation",
    "InitParallel, InitUnroll, InitVectorization": (
        "schedule_rule.ParallelizeVectorizeUnroll"
    ),
    "InitThreadBind": "schedule_rule.AutoBind",
    "MutateTileSize": "mutator.MutateTileSize",
    "MutateParallel": "mutator.MutateParallel",
    "MutateComputeLocation": "mutator.MutateComputeLocation",
    "MutateAutoUnroll": "mutator.MutateUnroll",
    "PreloadCustomSketchRule": "schedule_rule.PyScheduleRule",
}
print("Ansor | MetaSchedule")
for old, today in OF_ANSOR.items():
    resolve("tvm.s_tir.meta_schedule." + today)
    print(f"{old} | `{today}`")

# %% cell: defaults
evolution = ms.search_strategy.EvolutionarySearch()
gradient = ms.task_scheduler.GradientBased()
OF_ANSOR_V19 = {  # DEFAULT_PARAMS of SketchPolicy, and TaskScheduler
    "evolutionary_search_population": (2048, evolution.population_size),
    "evolutionary_search_num_iters": (4, evolution.genetic_num_iters),
    "evolutionary_search_mutation_prob": (
        0.85,
        evolution.genetic_mutate_prob,
    ),
    "sample_init_min_population": (50, evolution.init_min_unmeasured),
    "sample_init_use_measured_ratio": (0.2, evolution.init_measured_ratio),
    "eps_greedy": (0.05, evolution.eps_greedy),
    "alpha": (0.2, gradient.alpha),
    "backward_window_size": (3, gradient.window_size),
}
print("parameter of Ansor | v0.19 | MetaSchedule")
for name, (then, now) in OF_ANSOR_V19.items():
    print(f"`{name}` | {then} | {now}")

# %% cell: strings
with expect_error(ValueError, match="Unknown"):
    ms.SearchStrategy.create("xgb")

# %% cell: solution-grid
tried = {}
kernel = Schedule(tvm.IRModule({"main": matmul}))
template(kernel)
for at_y in range(5):
    for at_x in range(5):
        trace = kernel.trace
        samples = [
            i for i in trace.insts if i.kind.name == "SampleCategorical"
        ]
        trace = trace.with_decision(samples[0], at_y, remove_postproc=False)
        trace = trace.with_decision(samples[1], at_x, remove_postproc=False)
        one = Schedule(tvm.IRModule({"main": matmul}))
        trace.apply_to_schedule(one, remove_postproc=False)
        tried[tuple(config(trace))] = one.mod
texts = {mod.script() for mod in tried.values()}
print(len(tried), "configurations,", len(texts), "programs")
assert len(tried) == len(texts) == 25

# %% cell: solution-options
options = {
    "mod": matmul,  # task
    "target": host_target(),
    "work_dir": "tuning",  # log_filename, RecordToFile
    "max_trials_global": 1000,  # n_trial, num_measure_trials
    "num_trials_per_iter": 64,  # plan_size, num_measures_per_round
    "cost_model": "xgb",  # XGBTuner, XGBModel
    "strategy": "evolutionary",  # GATuner, SketchPolicy
    "builder": "local",  # measure_option(builder=...)
    "runner": "local",  # measure_option(runner=...)
    "seed": 1,
}

known = set(inspect.signature(ms.tune_tir).parameters)
assert set(options) <= known, set(options) - known
print(sorted(known - set(options)))
