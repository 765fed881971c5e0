"""
Evolutionary search
===================

TVM's evolutionary search from inside, one phase at a time, and a textbook
genetic algorithm that takes its place.
"""

# gallery: timeout=600

# %% cell: setup
import inspect
import statistics

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.search_strategy import EvolutionarySearch

from tvm_deepdive_helpers import expect_error, figures, glue, search
from tvm_deepdive_helpers.figures import COLORS, boxes_and_arrows
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.tabled import (
    LARGE,
    Point,
    Table,
    TabledBuilder,
    TabledRunner,
    point_of,
)
from tvm_deepdive_helpers.tuning import host_target, load_intrinsics, tune

load_intrinsics()
table = Table(data("search_table.csv"), LARGE)

# %% cell: table
times = np.array(table.times()) * 1e6
print(f"{len(table)} points of {LARGE.name}, every one measured")
print(f"fastest {times[0]:.1f} us at {table.best}")
for share in (0.01, 0.1, 0.5):
    rank = int(len(times) * share)
    print(f"{share:4.0%} of the points need at most {times[rank]:.1f} us")
near = int((times <= 1.05 * times[0]).sum())
print(f"within 5 % of the fastest: {near} points")
noise = np.quantile([row.noise for row in table.values()], [0.5, 0.9])
print("two rounds differ by", ", ".join(f"{n:.1%}" for n in noise), end=" ")
print("(median, 90 % quantile)")
glue("points", len(table))
glue("near", near)

# %% cell: trace
sch = LARGE.design_space(tvm.s_tir.Schedule(LARGE.module(), seed=1))[1]
for inst in sch.trace.insts:
    drawn = sch.trace.decisions.get(inst)
    if inst.kind.name == "SamplePerfectTile":
        print(f"tile, last factor at most {inst.attrs[1]}: drew {drawn}")
    if inst.kind.name == "SampleCategorical":
        print(f"one of {inst.attrs[0]}: drew number {drawn}")

# %% cell: defaults
strategy = EvolutionarySearch()
parameters = inspect.signature(EvolutionarySearch.__init__).parameters
for name in list(parameters)[1:]:
    print(f"{name:24s} {getattr(strategy, name, parameters[name].default)}")
glue("population", strategy.population_size)
glue("generations", strategy.genetic_num_iters)
glue("measured", int(strategy.population_size * 0.2))

# %% cell: mutators
for mutator, weight in ms.Mutator.create("llvm").items():
    kind = mutator.__class__.__name__
    print(f"{kind:24s} {float(getattr(weight, 'value', weight))}")

# %% cell: mutate
apply = tvm.get_global_func("s_tir.meta_schedule.MutatorApply")
start = LARGE.schedule(Point(space=1, i=12, j=16, k=8, unroll=16)).trace


def tiles(trace):
    return [
        tuple(int(factor) for factor in trace.decisions[inst])
        for inst in trace.insts
        if inst.kind.name == "SamplePerfectTile"
    ]


reached = {}
for seed in range(1, 2**31 - 1, 2**21 + 7):
    mutant = apply(ms.mutator.MutateTileSize(), start, seed)
    if mutant is not None:
        for site, (old, new) in enumerate(
            zip(tiles(start), tiles(mutant), strict=True)
        ):
            if old != new:
                reached.setdefault((site, old), set()).add(new)
for (site, old), new in sorted(reached.items()):
    print(f"tile of {'ijk'[site]} {old} becomes one of {sorted(new)}")


# %% cell: oracle
@derived_object
class Oracle(ms.cost_model.PyCostModel):
    """Knows the table, and writes down what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def predict(self, context, candidates):
        seconds = [table[point_of(c.sch.mod)].seconds for c in candidates]
        self.asked.append(seconds)
        return np.array([table[table.best].seconds / s for s in seconds])

    def update(self, context, candidates, results):
        pass

    def load(self, path):
        pass

    def save(self, path):
        pass


def context(strategy, generator=None):
    return ms.TuneContext(
        LARGE.module(),
        target=host_target(),
        space_generator=generator or LARGE.generator(),
        search_strategy=strategy,
        rand_state=3,
        num_threads=1,
    )


def first_batch(model, batch=16, **options):
    """The first candidates, as times in microseconds."""
    strategy = EvolutionarySearch(population_size=64, **options)
    task = context(strategy)
    task.pre_tuning(
        64,
        batch,
        task.generate_design_space(),
        ms.database.MemoryDatabase(),
        model,
    )
    candidates = task.generate_measure_candidates()
    return [table[point_of(c.sch.mod)].seconds * 1e6 for c in candidates]


oracle = Oracle()
batch = first_batch(oracle)
for generation, seconds in enumerate(oracle.asked):
    us = np.array(seconds) * 1e6
    print(
        f"generation {generation}: {len(us)} schedules, "
        f"best {us.min():5.1f}, median {np.median(us):6.1f} us"
    )
print(f"measured: {len(batch)}, from {min(batch):.1f} to {max(batch):.1f} us")

# %% check
assert len(oracle.asked) == 5 and len(batch) == 16
medians = [np.median(s) for s in oracle.asked]
assert medians[-1] < medians[0]

# %% cell: eps
for batch_size in (8, 16, 20, 64):
    print(f"batch {batch_size:2d}: {int(batch_size * 0.05)} random picks")
greedy = first_batch(Oracle(), eps_greedy=0.0)
default = first_batch(Oracle())
chance = first_batch(Oracle(), eps_greedy=1.0)
print("the default picks what eps_greedy=0 picks:", greedy == default)
print(f"eps_greedy=1: from {min(chance):.0f} to {max(chance):.0f} us")

# %% check
assert greedy == default and max(chance) > 2 * max(greedy)


# %% cell: blind
def median_of_batches(strategy, model):
    found = [
        trial.seconds * 1e6
        for seed in SEEDS
        for trial in tune(
            LARGE.module(),
            trials=16,
            seed=seed,
            space=LARGE.generator(),
            strategy=strategy(),
            cost_model=model(seed),
            builder=TabledBuilder(),
            runner=TabledRunner(table),
        ).trials
    ]
    return statistics.median(found)


def guess(seed):
    """Give it a seed: without one it differs from run to run."""
    return ms.cost_model.RandomModel(seed=seed)


def oracle_of(seed):
    return Oracle()


def evolution():
    return EvolutionarySearch(**small)


SEEDS = range(1, 7)
small = {"population_size": 64}
print(f"all points          {np.median(times):6.1f} us")
medians = {}
for name, made, model in (
    ("replay-trace", ms.search_strategy.ReplayTrace, guess),
    ("evolution, random", evolution, guess),
    ("evolution, oracle", evolution, oracle_of),
):
    medians[name] = median_of_batches(made, model)
    print(f"{name:19s} {medians[name]:6.1f} us")

# %% check
assert medians["evolution, oracle"] < 0.5 * medians["replay-trace"]

# %% cell: refused
strategy = EvolutionarySearch()
task = context(strategy)
spaces = task.generate_design_space()
with expect_error(ValueError, match="Database is not supplied"):
    strategy.pre_tuning(16, 8, spaces)
database = ms.database.MemoryDatabase()
with expect_error(ValueError, match="CostModel is not supplied"):
    strategy.pre_tuning(16, 8, spaces, database)
model = ms.cost_model.RandomModel()
strategy.pre_tuning(16, 8, spaces, database, model)
with expect_error(ValueError, match="already invoked"):
    strategy.pre_tuning(16, 8, spaces, database, model)
with expect_error(ValueError, match=r"within \[0, 1\]"):
    EvolutionarySearch(eps_greedy=2.0)


# %% cell: tiny
def tiny(sch):
    i, _, _ = sch.get_loops(sch.get_sblock("C"))
    sch.split(i, sch.sample_perfect_tile(i, n=2, max_innermost_factor=8))


ran = []


@derived_object
class Constant(ms.runner.PyRunner):
    def run(self, runner_inputs):
        ran.extend(runner_inputs)
        return [Done() for _ in runner_inputs]


@derived_object
class Done(ms.runner.PyRunnerFuture):
    def done(self):
        return True

    def result(self):
        return ms.runner.RunnerResult([1e-3], None)


@derived_object
class Nothing(ms.builder.PyBuilder):
    def build(self, build_inputs):
        return [
            ms.builder.BuilderResult("nothing", None) for _ in build_inputs
        ]


generator = ms.space_generator.ScheduleFn(
    tiny,
    sch_rules=[],
    postprocs=[],
    mutator_probs={ms.mutator.MutateTileSize(): 1.0},
)
for name in ("evolutionary", "replay-trace"):
    ran.clear()
    chosen = EvolutionarySearch(**small) if name[0] == "e" else name
    tune(
        LARGE.module(),
        trials=32,
        batch=8,
        space=generator,
        strategy=chosen,
        builder=Nothing(),
        runner=Constant(),
    )
    print(f"{name:13s} measured {len(ran)} of 32 on a space of 6 points")
    glue(name, len(ran))

# %% cell: again
database = ms.database.MemoryDatabase()
for attempt in (1, 2):
    tune(
        LARGE.module(),
        trials=16,
        seed=attempt,
        space=LARGE.generator(),
        strategy=EvolutionarySearch(**small),
        cost_model=Oracle(),
        builder=TabledBuilder(),
        runner=TabledRunner(table),
        database=database,
    )
    records = database.get_all_tuning_records()
    different = {str(record.trace) for record in records}
    print(f"run {attempt}: {len(records)} records, {len(different)} traces")

# %% check
assert len(different) < len(records)

# %% cell: phases
fig, _ = boxes_and_arrows(
    {
        "db": (0, 0),
        "space": (1, 0),
        "pop": (0.5, 1),
        "score": (0.5, 2),
        "mutate": (1.5, 2),
        "heap": (0.5, 3),
        "pick": (0.5, 4),
        "measure": (1.5, 4),
    },
    [
        ("db", "pop"),
        ("space", "pop"),
        ("pop", "score"),
        ("score", "mutate"),
        ("mutate", "score"),
        ("score", "heap"),
        ("heap", "pick"),
        ("pick", "measure"),
    ],
    labels={
        "db": "PickBestFromDatabase",
        "space": "SampleInitPopulation",
        "pop": "population",
        "score": "PredictNormalizedScore",
        "mutate": "mutators,\npostprocessors",
        "heap": "heap of the best\nunmeasured",
        "pick": "PickWithEpsGreedy",
        "measure": "builder, runner",
    },
    colors={"measure": "vermilion", "score": "green"},
    title="One batch of the evolutionary search",
)

# %% cell: genetic
source = inspect.getsource(search.Genetic._cls)
print(source[source.index("class") :])

# %% cell: base
for name, method in vars(search.GenomeSearch).items():
    if inspect.isfunction(method) and method.__doc__:
        print(f"{name:28s} {method.__doc__.splitlines()[0]}")


# %% cell: run
def curve(strategy, seed):
    return tune(
        LARGE.module(),
        trials=64,
        batch=8,
        seed=seed,
        space=LARGE.generator(),
        strategy=strategy,
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )


evolved = curve(search.Genetic(seed=1), 1)
drawn = curve(search.RandomSearch(seed=1), 1)
for name, run in (("random", drawn), ("genetic", evolved)):
    us = np.array([trial.seconds for trial in run.trials]) * 1e6
    halves = np.median(us[:32]), np.median(us[32:])
    print(
        f"{name:8s} best {us.min():5.1f} us, median of the first 32 trials "
        f"{halves[0]:6.1f}, of the last 32 {halves[1]:6.1f}"
    )

# %% cell: population
fig, ax = figures.new(height=3.4)
for run, name, color, mark in (
    (drawn, "random", "vermilion", "x"),
    (evolved, "genetic", "navy", "o"),
):
    us = [trial.seconds * 1e6 for trial in run.trials]
    ax.plot(
        range(1, 65),
        us,
        mark,
        color=COLORS[color],
        label=name,
        linestyle="none",
    )
ax.axhline(times[0], color=figures.MUTED, linewidth=1)
ax.set(
    yscale="log",
    xlabel="trial",
    ylabel="time of the candidate, us",
    title="Every candidate of two searches",
)
ax.legend()
figures.alt(
    fig,
    "Time of each candidate against its number. Random candidates stay "
    "scattered over two orders of magnitude; those of the genetic algorithm "
    "gather near the fastest point.",
)

# %% check
tail = [t.seconds for t in evolved.trials[32:]]
assert statistics.median(tail) < statistics.median(
    [t.seconds for t in drawn.trials[32:]]
)


# %% cell: solution-crossover
@derived_object
class MutationOnly(search.Genetic._cls):
    """Children have one parent."""

    def _cross(self, a, b):
        return a


def final(make):
    return [
        curve(make(seed), seed).best_s / table[table.best].seconds
        for seed in range(1, 9)
    ]


for name, make in (
    ("with crossover", search.Genetic),
    ("without", MutationOnly),
):
    print(f"{name:15s} best / optimum: {statistics.median(final(make)):.2f}")

# %% cell: solution-calls
population, rounds, batch = 512, 4, 64
print("predictions for one batch:", population * (rounds + 1))
print("measurements:", batch)
