"""
Annealing, learning, and a comparison
=====================================

Simulated annealing, a policy gradient and a bandit as search strategies of
MetaSchedule, and all strategies on one task with the same budget.
"""

# gallery: timeout=600

# %% cell: setup
import inspect
import statistics

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import expect_error, figures, glue, search
from tvm_deepdive_helpers.figures import COLORS
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.tabled import (
    LARGE,
    Table,
    TabledBuilder,
    TabledRunner,
)
from tvm_deepdive_helpers.tuning import load_intrinsics, tune

load_intrinsics()
table = Table(data("search_table.csv"), LARGE)
optimum = table[table.best].seconds
SEEDS, TRIALS, BATCH = 8, 48, 8

# %% cell: kinds
with expect_error(ValueError, match="Unknown SearchStrategy"):
    ms.SearchStrategy.create("simulated-annealing")
with expect_error(ValueError, match="Unknown SearchStrategy"):
    ms.SearchStrategy.create("reinforcement-learning")
for cls in sorted(
    name
    for name, value in vars(ms.search_strategy).items()
    if inspect.isclass(value)
    and issubclass(value, ms.SearchStrategy)
    and value is not ms.SearchStrategy
):
    print(cls)


# %% cell: annealing
def body(strategy):
    text = inspect.getsource(strategy._cls)
    print(text[text.index("class") :])


body(search.Annealing)

# %% cell: temperature
walk = search.Annealing._cls
for batch in (1, 3, 5):
    t = walk.HOT * walk.COOLING ** (batch - 1)
    chances = ", ".join(
        f"{slower}x: {slower ** (-1 / t):.3f}" for slower in (1.1, 1.5, 2.0)
    )
    print(f"batch {batch}, temperature {t:.2f}: accepts {chances}")

# %% cell: gradient
body(search.PolicyGradient)

# %% cell: bandit
body(search.Bandit)


# %% cell: search
def run(strategy, seed, model="random"):
    return tune(
        LARGE.module(),
        trials=TRIALS,
        batch=BATCH,
        seed=seed,
        space=LARGE.generator(),
        strategy=strategy,
        cost_model=model,
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )


# %% cell: learned
learner = search.PolicyGradient(seed=1)
run(learner, 1)
policy = learner._inst
for space, site, name in ((0, 1, "j"), (1, 1, "j")):
    options = policy.space.options(space)[site]
    chances = policy.probabilities((space, site), options)
    ranked = sorted(zip(chances, options, strict=True), reverse=True)
    best = ", ".join(f"{tile} {p:.2f}" for p, tile in ranked[:3])
    print(
        f"space {space}, tile of {name}: {best}; alike {1 / len(options):.2f}"
    )

# %% cell: compare
MAKE = {
    "random": search.RandomSearch,
    "genetic": search.Genetic,
    "annealing": search.Annealing,
    "policy gradient": search.PolicyGradient,
    "bandit": search.Bandit,
}
curves = {
    name: [run(make(seed), seed).curve() for seed in range(1, SEEDS + 1)]
    for name, make in MAKE.items()
}
curves["replay-trace"] = [
    run("replay-trace", seed).curve() for seed in range(1, SEEDS + 1)
]

# %% cell: tvm, varies
evolution = {"population_size": 64}
curves["TVM's, XGBoost"] = [
    run(
        ms.search_strategy.EvolutionarySearch(**evolution),
        seed,
        ms.cost_model.XGBModel(num_warmup_samples=16, num_tuning_cores=1),
    ).curve()
    for seed in (1, 2)
]
print(len(curves["TVM's, XGBoost"]), "runs of TVM's own search")

# %% cell: scores, varies
print(f"{'':16s} runs  median  worst   (best found / optimum)")
final = {}
for name, runs in curves.items():
    ratios = [curve[-1] / optimum for curve in runs]
    final[name] = statistics.median(ratios)
    print(
        f"{name:16s} {len(runs):4d}  {final[name]:6.2f} {max(ratios):6.2f}"
        f"   {sum(r <= 1.05 for r in ratios)} within 5 %"
    )

# %% cell: spread
fig, ax = figures.new(height=4.0)
for place, runs in enumerate(curves.values()):
    ratios = [curve[-1] / optimum for curve in runs]
    ax.plot(
        ratios,
        [place] * len(ratios),
        "o",
        color=COLORS["navy"],
        alpha=0.5,
        markersize=6,
    )
    ax.plot(
        statistics.median(ratios),
        place,
        "|",
        color=COLORS["vermilion"],
        markersize=18,
        markeredgewidth=2.5,
    )
ax.set_yticks(range(len(curves)), list(curves))
ax.invert_yaxis()
ax.set(
    xlabel="time of the best schedule found / optimum",
    title=f"{TRIALS} trials, each dot a seed, bar at the median",
)
ax.grid(axis="x")
figures.alt(
    fig,
    "A row for each strategy with a dot for each seed: the time of the best "
    "schedule it found, divided by the optimum, and a bar at the median.",
)

# %% cell: curves
fig, ax = figures.new(height=3.6)
shown = ("random", "genetic", "annealing", "policy gradient")
for (name, color), style in zip(
    zip(shown, ("vermilion", "navy", "green", "purple"), strict=True),
    ("-", "--", "-.", ":"),
    strict=True,
):
    middle = np.median(curves[name], axis=0) / optimum
    ax.plot(
        range(1, TRIALS + 1), middle, style, color=COLORS[color], label=name
    )
ax.set(
    xlabel="trials",
    ylabel="best so far / optimum",
    title=f"Median of {SEEDS} seeds",
    ylim=(0.95, 4),
)
ax.legend()
figures.alt(
    fig,
    "Best time so far divided by the optimum against the number of trials, "
    "for four strategies, as the median over the seeds.",
)

# %% cell: chance
times = np.array(table.times())
for margin in (1.05, 1.25, 1.5):
    share = float((times <= margin * optimum).mean())
    lucky = 1 - (1 - share) ** TRIALS
    print(
        f"within {margin - 1:3.0%} of the optimum: {share:6.2%} of points; "
        f"{TRIALS} random trials meet one with probability {lucky:.2f}"
    )
need = float((times <= 1.05 * optimum).mean())
glue("lucky", 100 * (1 - (1 - need) ** TRIALS))
glue("seeds", SEEDS)
glue("trials", TRIALS)

# %% check
assert all(len(c) == TRIALS for runs in curves.values() for c in runs)


# %% cell: solution-greedy
@derived_object
class Greedy(search.Annealing._cls):
    """A walker never goes uphill."""

    def _accepts(self, old, new):
        return new <= old


climbs = [
    run(Greedy(seed), seed).best_s / optimum for seed in range(1, SEEDS + 1)
]
anneals = [curve[-1] / optimum for curve in curves["annealing"]]
for name, ratios in (("annealing", anneals), ("greedy", climbs)):
    print(f"{name:10s} {statistics.median(ratios):.2f} {max(ratios):.2f}")

# %% cell: solution-budget
for trials in (16, 32, 48):
    row = {
        name: statistics.median(c[trials - 1] / optimum for c in curves[name])
        for name in ("random", "genetic")
    }
    print(trials, {name: round(value, 2) for name, value in row.items()})
