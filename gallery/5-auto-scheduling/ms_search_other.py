"""
Annealing, learning, and a comparison
=====================================

Simulated annealing, a policy gradient and a bandit as search strategies of
MetaSchedule, and all strategies on one task with the same budget.
"""

# gallery: timeout=600

# %% cell: setup
import inspect
import math
import statistics

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import expect_error, figures, glue, search
from tvm_deepdive_helpers.figures import COLORS
from tvm_deepdive_helpers.recorded import data, read_csv
from tvm_deepdive_helpers.tabled import (
    LARGE,
    Pair,
    Table,
    TabledBuilder,
    TabledRunner,
    points_of,
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
def run(strategy, seed, task=LARGE, trials=TRIALS):
    return tune(
        task.module(),
        trials=trials,
        batch=BATCH,
        seed=seed,
        space=task.generator(),
        strategy=strategy,
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

# %% cell: tvm
costs = []
for model, name in (("xgb", "TVM's, XGBoost"), ("random", "TVM's, no model")):
    rows = [
        r for r in read_csv(data("search_runs.csv")) if r["model"] == model
    ]
    curves[name] = [
        np.minimum.accumulate([float(us) / 1e6 for us in row["us"].split()])
        for row in rows
    ]
    costs.append(statistics.median(float(row["cpu_s"]) for row in rows))
    print(
        f"{name}: {len(rows)} runs, {costs[-1]:.1f} s of processor time each"
    )
glue("xgb-s", costs[0])

# %% cell: scores
ORDER = ("random", "replay-trace", "genetic", "annealing")
ORDER += ("policy gradient", "bandit", "TVM's, no model", "TVM's, XGBoost")


def scores(curves, optimum):
    """A line for each strategy; medians of the best found."""
    print(f"{'best / optimum':16s}  median  worst  runs within 1 %, 5 %")
    final = {}
    for name in (name for name in ORDER if name in curves):
        ratios = [curve[-1] / optimum for curve in curves[name]]
        final[name] = statistics.median(ratios)
        print(
            f"{name:16s}  {final[name]:6.2f} {max(ratios):6.2f}"
            f"  {sum(r <= 1.01 for r in ratios):14d}"
            f" {sum(r <= 1.05 for r in ratios):4d} of {len(ratios)}"
        )
    return final


final = scores(curves, optimum)

# %% check
assert final["TVM's, XGBoost"] < 1.02 < 1.05 < final["TVM's, no model"]
assert set(ORDER) == set(curves)
assert sum(c[-1] <= 1.01 * optimum for c in curves[ORDER[-1]]) == 6

# %% cell: spread
fig, ax = figures.new(height=4.0)
for place, runs in enumerate(curves[name] for name in ORDER):
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
ax.set_yticks(range(len(ORDER)), ORDER)
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

# %% cell: chance
times = np.array(table.times())
for margin in (1.01, 1.05, 1.25):
    share = float((times <= margin * optimum).mean())
    lucky = 1 - (1 - share) ** TRIALS
    print(
        f"within {margin - 1:3.0%}: {share:.2%} of the points, "
        f"met in {TRIALS} trials with probability {lucky:.2f}"
    )


def bests(trials, runs=20000):
    """What the best of so many random points is, in many runs."""
    luck = np.random.default_rng(0).random((2, runs))
    ranks = len(times) * (1 - (1 - luck) ** (1 / trials))
    return times[ranks.astype(int)] / optimum


exact = float(np.median(bests(TRIALS)))
print(f"median of the best of {TRIALS}, in many runs: {exact:.2f}")
one = float((times <= 1.01 * optimum).mean())
hit = 1 - (1 - one) ** TRIALS
six = sum(
    math.comb(8, n) * hit**n * (1 - hit) ** (8 - n) for n in range(6, 9)
)
print(f"six or more of eight runs within 1 % by luck: {six:.3f}")
need = float((times <= 1.05 * optimum).mean())
glue("lucky", 100 * (1 - (1 - need) ** TRIALS))
glue("exact", exact)
glue("six", 100 * six)
glue("seeds", SEEDS)
glue("trials", TRIALS)

# %% check
assert all(len(c) == TRIALS for runs in curves.values() for c in runs)

# %% cell: pair
pair, PAIR_TRIALS = Pair(LARGE), 192
two = {
    name: [
        run(make(seed), seed, pair, PAIR_TRIALS).curve()
        for seed in range(1, SEEDS + 1)
    ]
    for name, make in MAKE.items()
}
final_two = scores(two, 2 * optimum)
rest = 2 * 1.05 * optimum - times
near = np.searchsorted(times, rest, "right").sum() / len(times) ** 2
lucky = 1 - (1 - near) ** PAIR_TRIALS
print(f"{len(times) ** 2} points, {near:.4%} within 5 % of the optimum:")
print(
    f"chance meets one in {PAIR_TRIALS} trials with probability {lucky:.2f}"
)
apart = float(np.median(bests(PAIR_TRIALS // 2).mean(axis=0)))
print(f"two tasks of {PAIR_TRIALS // 2} random trials each: {apart:.2f}")
glue("pair-trials", PAIR_TRIALS)
glue("pair-points", len(times) ** 2 / 1e6)

# %% check
for name in ("genetic", "policy gradient", "bandit"):
    assert final_two[name] < final_two["random"]
assert apart < min(final_two.values())
assert six < 0.05

# %% cell: pair-curves
fig, ax = figures.new(height=3.6)
shown = ("random", "genetic", "annealing", "policy gradient")
for (name, color), style in zip(
    zip(shown, ("vermilion", "navy", "green", "purple"), strict=True),
    ("-", "--", "-.", ":"),
    strict=True,
):
    middle = np.median(two[name], axis=0) / optimum / 2
    ax.plot(
        range(1, PAIR_TRIALS + 1),
        middle,
        style,
        color=COLORS[color],
        label=name,
    )
ax.set(
    xlabel="trials",
    ylabel="best so far / optimum",
    title=f"Two products at once, median of {SEEDS} seeds",
    ylim=(0.95, 3),
)
ax.legend()
figures.alt(
    fig,
    "Best time so far divided by the optimum against the number of trials, "
    "for four strategies on two products at once, as the median over the "
    "seeds.",
)

# %% cell: live, varies
LIVE = 16
print(f"{'':16s} best of {LIVE}, us   the same point in the table")
pairs = []
for name, make in MAKE.items():
    tuned = tune(
        LARGE.module(),
        trials=LIVE,
        batch=BATCH,
        space=LARGE.generator(),
        strategy=make(1),
    )
    for record in tuned.records:
        (point,) = points_of(record.as_measure_candidate().sch.mod)
        pairs.append((float(record.run_secs[0]), table[point].seconds))
    (point,) = points_of(tuned.best.mod)
    print(
        f"{name:16s} {tuned.best_s * 1e6:14.1f}"
        f" {table[point].seconds * 1e6:14.1f}"
    )


def ranks(values):
    return np.argsort(np.argsort(values))


live, known = np.array(pairs).T
alike = np.corrcoef(ranks(live), ranks(known))[0, 1]
print(f"{len(pairs)} candidates, rank correlation with the table {alike:.2f}")
glue("live", len(pairs))

# %% check
assert len(pairs) == LIVE * len(MAKE)
assert alike > 0.3


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
    } | {"chance, many runs": float(np.median(bests(trials)))}
    print(trials, {name: round(value, 2) for name, value in row.items()})
