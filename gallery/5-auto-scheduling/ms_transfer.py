"""
Transfer: records of another shape
==================================

Warm starts by traces, by a database and by a cost model, from one shape to
another, and what they gain.
"""

# gallery: timeout=600

# %% cell: setup
import tempfile
import warnings

import numpy as np
import tvm
from tvm import te
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import (
    EvolutionarySearch,
    MeasureCandidate,
)

from tvm_deepdive_helpers import figures, glue, search
from tvm_deepdive_helpers.figures import COLORS
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.search import Genome
from tvm_deepdive_helpers.tabled import (
    LARGE,
    SMALL,
    UNROLL,
    Point,
    Table,
    TabledBuilder,
    TabledRunner,
    point_of,
)
from tvm_deepdive_helpers.tuning import host_target, load_intrinsics, tune

load_intrinsics()
large = Table(data("search_table.csv"), LARGE)
small = Table(data("search_table.csv"), SMALL)
optimum = large[large.best].seconds

# %% cell: tables
for table in (small, large):
    gflops = table.task.flop / table[table.best].seconds / 1e9
    print(f"{table.task.name:12s} {len(table)} points, best {table.best}")
    print(f"{'':12s} {gflops:.0f} GFLOP/s")

# %% cell: overlap
shared = [point for point in small if point in large]
print(f"{len(shared)} points of the small task exist in the large one")


def ranks(values):
    return np.argsort(np.argsort(values))


spearman = np.corrcoef(
    ranks([small[p].seconds for p in shared]),
    ranks([large[p].seconds for p in shared]),
)[0, 1]
print(f"rank correlation of their times: {spearman:.2f}")
top = sorted(small, key=lambda p: small[p].seconds)[:8]
worth = [large[p].seconds / optimum for p in top]
print(f"the best 8 of {SMALL.name}, on {LARGE.name}:")
print("  time / optimum:", [round(w, 2) for w in worth])
glue("spearman", float(spearman))

# %% check
assert spearman > 0.2


# %% cell: replay
def tuned(task, table, **options):
    options = {"trials": 48, "batch": 8, "space": task.generator()} | options
    return tune(
        task.module(),
        builder=TabledBuilder(),
        runner=TabledRunner(table),
        **options,
    )


record = tuned(SMALL, small, strategy=search.Genetic(1)).records[0]
sch = tvm.s_tir.Schedule(SMALL.module())
record.trace.apply_to_schedule(sch, remove_postproc=False)
print(f"on {SMALL.name}: {point_of(sch.mod)}")
sch = tvm.s_tir.Schedule(LARGE.module())
record.trace.apply_to_schedule(sch, remove_postproc=False)
print(f"on {LARGE.name}: {point_of(sch.mod)}")

# %% cell: refit
wide = Point(0, 16, 32, 16, 16)
trace = SMALL.schedule(wide).trace
for rows in (64, 60, 56):
    odd = type(SMALL)(rows, 128, 128)
    sch = tvm.s_tir.Schedule(odd.module())
    trace.apply_to_schedule(sch, remove_postproc=False)
    tiles = [
        [int(f) for f in sch.trace.decisions[inst]]
        for inst in sch.trace.insts
        if inst.kind.name == "SamplePerfectTile"
    ]
    print(f"{rows} rows: tile of i {tiles[0]}")

# %% check
assert tiles[0] == [1, 56]


# %% cell: database
def stored(trace):
    """A database with one record of the small task."""
    database = ms.database.MemoryDatabase()
    workload = database.commit_workload(SMALL.module())
    database.commit_tuning_record(
        ms.database.TuningRecord(trace, workload, [1e-5], host_target())
    )
    return database


database = stored(trace)
for task in (SMALL, LARGE):
    found = database.query_schedule(
        task.module(), host_target(), workload_name="main"
    )
    print(task.name, "record found:", found is not None)


# %% cell: anchor
def doubled(task):
    """The product, and then twice each of its elements."""
    a = te.placeholder((task.m, task.k), "float32", "A")
    b = te.placeholder((task.n, task.k), "float32", "B")
    r = te.reduce_axis((0, task.k), "k")
    c = te.compute(
        (task.m, task.n), lambda i, j: te.sum(a[i, r] * b[j, r], axis=r), "C"
    )
    d = te.compute((task.m, task.n), lambda i, j: c[i, j] * 2.0, "D")
    return tvm.IRModule({"main": te.create_prim_func([a, b, d])})


for equality in ("structural", "anchor-block"):
    database = ms.database.MemoryDatabase(module_equality=equality)
    workload = database.commit_workload(SMALL.module())
    database.commit_tuning_record(
        ms.database.TuningRecord(trace, workload, [1e-5], host_target())
    )
    found = {
        "doubled": database.has_workload(doubled(SMALL)),
        "larger": database.has_workload(LARGE.module()),
    }
    print(f"{equality:12s} {found}")

# %% check
assert found == {"doubled": True, "larger": False}


# %% cell: gain
def genome(point, task):
    sizes = (task.m, task.n, task.k)
    tiles = [
        (size // inner, inner)
        for size, inner in zip(
            sizes, (point.i, point.j, point.k), strict=True
        )
    ]
    return Genome(point.space, (*tiles, UNROLL.index(point.unroll)))


def curves(start):
    found = []
    for seed in range(1, 9):
        strategy = search.Genetic(seed)
        strategy._inst.start = [genome(point, LARGE) for point in start]
        found.append(
            tuned(LARGE, large, seed=seed, strategy=strategy).curve()
        )
    return np.array(found) / optimum


cold, warm = curves([]), curves([p for p in top if p in large])
for trials in (8, 16, 32, 48):
    print(
        f"{trials:2d} trials: cold {np.median(cold[:, trials - 1]):.2f}, "
        f"warm {np.median(warm[:, trials - 1]):.2f} of the optimum's time"
    )

# %% check
assert np.median(warm[:, 7]) <= 1.2 * np.median(cold[:, 7])

# %% cell: figure
fig, ax = figures.new(height=3.4)
for runs, name, color, style in (
    (cold, "cold", "vermilion", "--"),
    (warm, f"started with the best 8 of {SMALL.name}", "navy", "-"),
):
    trials = range(1, runs.shape[1] + 1)
    ax.plot(
        trials, np.median(runs, 0), style, color=COLORS[color], label=name
    )
    ax.fill_between(
        trials,
        runs.min(0),
        runs.max(0),
        color=figures.tint(color),
        linewidth=0,
        alpha=0.6,
    )
ax.set(
    xlabel="trials",
    ylabel="best so far / optimum",
    title=f"Genetic search on {LARGE.name}, eight seeds",
    ylim=(0.9, 5),
)
ax.legend()
figures.alt(
    fig,
    "Best time so far divided by the optimum by trials, median and range "
    "of eight seeds, for a cold start and for a start with the best of "
    "the small task.",
)


# %% cell: seeded
def first_batch(traces, seed):
    """Times of the first 16 that TVM's own search measures."""
    database = ms.database.MemoryDatabase()
    workload = database.commit_workload(LARGE.module())
    for trace in traces:
        database.commit_tuning_record(
            ms.database.TuningRecord(trace, workload, [1e-5], host_target())
        )
    run = tuned(
        LARGE,
        large,
        trials=16,
        batch=16,
        seed=seed,
        strategy=EvolutionarySearch(population_size=64),
        cost_model=ms.cost_model.RandomModel(seed=seed),
        database=database,
    )
    return [trial.seconds / optimum for trial in run.trials]


old = [SMALL.schedule(p).trace for p in top]
for name, traces in (("empty database", []), ("8 old traces", old)):
    times = [t for seed in range(1, 5) for t in first_batch(traces, seed)]
    print(
        f"{name:15s} median {np.median(times):5.2f}, "
        f"{np.mean(np.array(times) < 1.05):4.0%} within 5 % of the optimum"
    )


# %% cell: model, varies
def sample(table, seed, number):
    task = table.task
    context = ms.TuneContext(
        task.module(),
        target=host_target(),
        space_generator=task.generator(),
        num_threads=1,
    )
    chosen = np.random.default_rng(seed).permutation(len(table))[:number]
    points = [list(table)[n] for n in chosen]
    candidates = [
        MeasureCandidate(sch, ArgInfo.from_entry_func(sch.mod, True))
        for sch in map(task.schedule, points)
    ]
    return context, candidates, np.array([table[p].seconds for p in points])


def update(model, context, candidates, seconds):
    results = [RunnerResult([float(s)], None) for s in seconds]
    model.update(context, candidates, results)


model = ms.cost_model.XGBModel(num_warmup_samples=16, num_tuning_cores=1)
update(model, *sample(small, 1, 128))
context, candidates, seconds = sample(large, 2, 64)
warnings.filterwarnings("ignore", message=".*WARNING")  # XGBoost: format
with tempfile.TemporaryDirectory() as folder:
    model.save(f"{folder}/model.tar")
    model = ms.cost_model.XGBModel(num_warmup_samples=16, num_tuning_cores=1)
    model.load(f"{folder}/model.tar")
guess = model.predict(context, candidates)
kept = np.corrcoef(ranks(guess), ranks(-seconds))[0, 1]
print(f"trained on {SMALL.name}, Spearman on {LARGE.name}: {kept:.2f}")
first = seconds[np.argsort(-guess)[:8]].min() / optimum
print(f"best of top 8: {first:.2f}, of all 64: {seconds.min() / optimum:.2f}")

# %% cell: solution-one
single = curves(top[:1])
print(f"after 8 trials: {np.median(single[:, 7]):.2f}")
print(f"after 48 trials: {np.median(single[:, 47]):.2f}")

# %% cell: solution-worst
bad = sorted(shared, key=lambda p: small[p].seconds)[-8:]
misled = curves(bad)
for trials in (8, 16, 48):
    print(
        f"{trials:2d} trials: cold {np.median(cold[:, trials - 1]):.2f}, "
        f"misled {np.median(misled[:, trials - 1]):.2f}"
    )
