"""
Practice: AutoML with the tuner
===============================

A reference solution: a search that looks for a network and a schedule at the
same time, and the networks as TVM sees them.
"""

# %%
import os

# Small products: more threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# %% cell: imports
import numpy as np
from tvm.relax.frontend import nn

from tvm_deepdive_helpers.automl import (
    BATCH,
    INPUTS,
    MEASURE,
    NETWORKS,
    PLAIN,
    SCHEDULES,
    TRAIN,
    kernel,
    layers,
    points_of,
)


# %% cell: front
def front(points):
    """Indices of the points that no other point dominates."""
    order = sorted(range(len(points)), key=lambda n: points[n])
    found, height = [], float("inf")
    for n in order:
        equal = found and points[found[-1]] == points[n]
        if points[n][1] < height or equal:
            found.append(n)
            height = points[n][1]
    return sorted(found)


# %% cell: build
class Perceptron(nn.Module):
    """A network whose layers are kernels with a schedule."""

    def __init__(self, network, schedule):
        super().__init__()
        self.network, self.schedule = network, schedule
        for number, (k, n, _) in enumerate(layers(network)):
            setattr(self, f"w{number}", nn.Parameter((k, n), "float32"))
            setattr(self, f"b{number}", nn.Parameter((n,), "float32"))

    def forward(self, x):
        for number, (k, n, relu) in enumerate(layers(self.network)):
            weights = getattr(self, f"w{number}"), getattr(self, f"b{number}")
            x = nn.op.tensor_ir_op(
                kernel(k, n, relu, self.schedule),
                "layer",
                [x, *weights],
                nn.Tensor.placeholder((BATCH, n), "float32"),
            )
        return x


def build(network, schedule):
    """An IRModule whose function "forward" takes points and weights."""
    points = nn.spec.Tensor((BATCH, INPUTS), "float32")
    mod, _ = Perceptron(network, schedule).export_tvm(
        {"forward": {"x": points}}
    )
    return mod


# %% cell: search
def relative(laboratory):
    """How much slower than the best each schedule was, on average."""
    logs = {}
    for (network, schedule), us in laboratory.times.items():
        logs.setdefault(network, {})[schedule] = np.log(us)
    rates = {}
    for table in logs.values():
        for schedule, value in table.items():
            gap = value - min(table.values())
            rates.setdefault(schedule, []).append((gap, len(table)))
    return {
        schedule: round(
            sum(gap * n for gap, n in seen) / sum(n for _, n in seen), 9
        )
        for schedule, seen in rates.items()
    }


def neighbours(schedule):
    """Schedules that differ in one decision, by one step."""
    steps = {1: (2,), 2: (1, 4), 4: (2, 8), 8: (4, 16), 16: (8, 32)}
    rows = [r for r in steps.get(schedule.rows, (4,)) if r <= 8]
    columns = [c for c in steps.get(schedule.columns, (16,)) if c >= 4]
    return [
        *(schedule._replace(rows=r) for r in rows),
        *(schedule._replace(columns=c) for c in columns),
        schedule._replace(outer=not schedule.outer),
    ]


def distance(one, other):
    """How different two networks are: layers, and doublings of the width."""
    wider = np.log2(one.width / other.width)
    return abs(one.depth - other.depth) + abs(wider)


def search(laboratory, seed):
    """Networks and schedules together; the front of what was found."""
    rng = np.random.default_rng(seed)

    def draw(items):
        return items[rng.integers(len(items))]

    def newcomer():
        """The network that is least like those that are trained."""
        old = laboratory.errors
        return max(
            waiting,
            key=lambda n: min((distance(n, o) for o in old), default=0),
        )

    waiting = [NETWORKS[n] for n in rng.permutation(len(NETWORKS))]
    step = 0
    while laboratory.left >= MEASURE:
        if waiting and laboratory.left >= TRAIN + MEASURE and step % 3 == 0:
            network = newcomer()
            waiting.remove(network)
            laboratory.train(network)
            rates = relative(laboratory)
            ranked = sorted(rates, key=rates.get) or [draw(SCHEDULES)]
            laboratory.measure(network, ranked[0])
        else:
            known = points_of(laboratory)
            if not known:
                break
            best = [list(known)[n] for n in front(list(known.values()))]
            network, schedule = draw(best)
            options = [*neighbours(schedule), draw(SCHEDULES)]
            new = [s for s in options if (network, s) not in laboratory.times]
            if new:
                laboratory.measure(network, draw(new))
            elif not waiting:
                break
        step += 1
    known = points_of(laboratory)
    return [list(known)[n] for n in front(list(known.values()))]


# The solution ends here: below, it is shown and measured.

# %% cell: world
import statistics

import tvm
from tvm import relax
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import automl, figures, glue
from tvm_deepdive_helpers.automl import (
    PLAIN,
    Candidate,
    Laboratory,
    Network,
    OverBudget,
    Schedule,
    Tables,
    volume,
)
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.tuning import tune

print(layers(Network(2, 24)))
loops = kernel(24, 24, True, Schedule(4, 8, True))
show(loops, keep="for |sblock|where", context=0)
print(f"{len(NETWORKS)} networks, {len(SCHEDULES)} schedules")

# %% check
glue("networks", len(NETWORKS))
glue("schedules", len(SCHEDULES))
glue("candidates", len(NETWORKS) * len(SCHEDULES))
glue("batch", BATCH)
glue("train_cost", TRAIN)
glue("measure_cost", MEASURE)
LIMIT = 2  # microseconds
glue("limit", LIMIT)

# %% cell: laboratory
errors = data("automl_errors.csv")
kernels = data("automl_kernels.csv")
tables = Tables(errors, kernels)
laboratory = Laboratory(tables, budget=10)
print("error:", laboratory.train(Network(2, 24)))
print("us, plain:", round(laboratory.measure(Network(2, 24), PLAIN), 1))
better = Schedule(4, 8, True)
print("us, tiled:", round(laboratory.measure(Network(2, 24), better), 1))
print("left:", laboratory.left)
try:
    laboratory.measure(Network(1, 12), PLAIN)
except OverBudget as error:
    print("OverBudget:", error)

# %% cell: ranks
candidates = [Candidate(n, s) for n in NETWORKS for s in SCHEDULES]
everything = [
    (tables.latency(c), tables.error[c.network]) for c in candidates
]
plain = [c for c in candidates if c.schedule == PLAIN]
plain_points = [(tables.latency(c), tables.error[c.network]) for c in plain]
first = [plain[n].network for n in front(plain_points)]
true = [candidates[n] for n in front(everything)]
print("plain front:", *(f"{n.depth}x{n.width}" for n in first))
second = list(dict.fromkeys(c.network for c in true))
print("true front: ", *(f"{n.depth}x{n.width}" for n in second))
lost = [n for n in first if n not in second]
print("on the first only:", *(f"{n.depth}x{n.width}" for n in lost))
glue("lost", len(lost))
used = {c.schedule for c in true}
print(len(used), "different schedules on the true front")
gains = {
    n: tables.latency(Candidate(n, PLAIN))
    / min(tables.latency(Candidate(n, s)) for s in SCHEDULES)
    for n in NETWORKS
}
for name, n in (("smallest", NETWORKS[0]), ("largest", NETWORKS[-1])):
    print(f"gain of the {name} network: {gains[n]:.1f}")
glue("least_gain", min(gains.values()))
glue("most_gain", max(gains.values()))

# %% check
assert set(first) != set(second)
assert min(gains, key=gains.get) == NETWORKS[0]
assert max(gains, key=gains.get) == NETWORKS[-1]

# %% cell: world-figure
fig, ax = figures.new(height=3.8)
ax.plot(*zip(*everything, strict=True), ".", ms=3, color=figures.MUTED)
for points, name, hue in (
    (plain_points, "plain schedules", "vermilion"),
    (everything, "all schedules", "navy"),
):
    best = sorted(points[n] for n in front(points))
    ax.step(
        *zip(*best, strict=True),
        "o-",
        where="post",
        ms=4,
        color=figures.COLORS[hue],
        label=f"front, {name}",
    )
ax.set(
    xscale="log",
    xlabel="latency, us",
    ylabel="error",
    title="Every network with every schedule",
)
ax.legend()
figures.alt(
    fig,
    "Error against latency of all candidates, the front of plain schedules "
    "and, far to its left, the true front.",
)


# %% cell: compare
def quality(run, budget):
    """Shares of the area over 25 seeds: median, and the middle half."""
    shares = []
    for seed in range(1, 26):
        laboratory = Laboratory(tables, budget)
        run(laboratory, seed)
        shares.append(volume(points_of(laboratory).values(), everything))
    return statistics.quantiles(shares, n=4)


def one_first(share):
    return lambda laboratory, seed: automl.one_after_the_other(
        laboratory, seed, front, share
    )


ways = {
    "half first": one_first(0.5),
    "70 % first": one_first(0.7),
    "90 % first": one_first(0.9),
    "together": search,
}
results = {}
for budget in (90, 130, 180):
    for name, way in ways.items():
        low, middle, high = quality(way, budget)
        results[budget, name] = low, middle, high
        print(f"{budget:4} {name:11} {middle:.3f} ({low:.3f} to {high:.3f})")

# %% check
for budget in (90, 130, 180):
    for name in list(ways)[:3]:
        assert results[budget, "together"][1] > results[budget, name][1]

# %% cell: compare-figure
fig, ax = figures.new(height=3.2)
for shift, name in enumerate(ways):
    lows, middles, highs = zip(
        *(results[budget, name] for budget in (90, 130, 180)), strict=True
    )
    together = name == "together"
    ax.errorbar(
        [group + 0.12 * shift - 0.18 for group in range(3)],
        middles,
        yerr=[
            [m - low for m, low in zip(middles, lows, strict=True)],
            [high - m for m, high in zip(middles, highs, strict=True)],
        ],
        fmt="D" if together else "osv"[shift],
        color=figures.COLORS["vermilion" if together else "navy"],
        label=name,
        capsize=3,
    )
ax.set_xticks(range(3), ["budget 90", "budget 130", "budget 180"])
ax.set(ylabel="share of the area", title="Median and middle half")
ax.legend(loc="lower right")
figures.alt(
    fig,
    "Median share of the area with the middle half of 25 seeds, for four "
    "searches and three budgets. The joint search is highest in each group.",
)

# %% cell: live, varies
laboratory = Laboratory(tables, 180)
found = search(laboratory, seed=1)
chosen = min(found, key=lambda c: abs(laboratory.times[c] - LIMIT))
network, schedule = chosen
weights, error = automl.train(network)
print(network, schedule)
print(f"error: trained here {error:.3f}, table {tables.error[network]:.3f}")
mod = build(network, schedule)
vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
there = [tvm.runtime.tensor(w) for w in weights]
x, y = automl.task(2048, seed=2)
scores = [
    vm["forward"](tvm.runtime.tensor(x[n : n + BATCH]), *there).numpy()
    for n in range(0, len(x), BATCH)
]
answers = np.concatenate(scores).argmax(axis=1)
print(f"error: compiled {(answers != y).mean():.3f}")

# %% check
expected = automl.forward(weights, x)
np.testing.assert_allclose(
    np.concatenate(scores), expected, rtol=1e-3, atol=1e-2
)
assert (answers == expected.argmax(axis=1)).mean() > 0.99
assert error < 0.3

# %% cell: tuned, varies
layer = layers(network)[-2]
untuned = automl.workload(kernel(*layer))
tuned = tune(
    untuned,
    trials=12,
    batch=12,
    space=automl.space(),
    strategy="replay-trace",
)
print(f"best of {len(tuned.trials)}: {tuned.best_s * 1e6:.2f} us")
as_it_is = ms.space_generator.ScheduleFn(
    lambda sch: sch, sch_rules=[], postprocs=[], mutator_probs={}
)
untiled = tune(
    automl.workload(kernel(*layer, PLAIN)),
    trials=1,
    batch=1,
    space=as_it_is,
    strategy="replay-trace",
)
print(f"plain: {untiled.best_s * 1e6:.2f} us")

# %% check
assert all(np.isfinite(trial.seconds) for trial in tuned.trials)
assert tuned.best_s < untiled.best_s

# %% cell: solution-limit
for name, some in (("true", candidates), ("plain", plain)):
    fast = [c for c in some if tables.latency(c) <= LIMIT]
    best = min(
        fast, key=lambda c: (tables.error[c.network], tables.latency(c))
    )
    print(
        f"{name:5} {best.network.depth} x {best.network.width}, "
        f"{tables.latency(best):.2f} us, error {tables.error[best.network]}"
    )
