"""
Two objectives
==============

A search for all good compromises between the time of a kernel and the size
of its code, as a strategy of MetaSchedule.
"""

# gallery: timeout=600

# %% cell: setup
import inspect
import statistics

import numpy as np
import tvm
from tvm import s_tir
from tvm.s_tir.analysis import calculate_allocated_bytes

from tvm_deepdive_helpers import figures, glue, search
from tvm_deepdive_helpers.figures import COLORS
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.search import dominates, pareto_front
from tvm_deepdive_helpers.tabled import (
    LARGE,
    UNROLL,
    Point,
    Table,
    TabledBuilder,
    TabledRunner,
)
from tvm_deepdive_helpers.tuning import load_intrinsics, tune

load_intrinsics()
table = Table(data("search_table.csv"), LARGE)

# %% cell: dominance
a, b, c = (70.0, 900), (60.0, 1200), (75.0, 1000)
print("a dominates c:", dominates(a, c))
print("a dominates b:", dominates(a, b), "- b dominates a:", dominates(b, a))
print("front of a, b, c:", [(a, b, c)[n] for n in pareto_front([a, b, c])])

# %% cell: truth
points = list(table)
costs = [(table[p].seconds * 1e6, table[p].code_bytes) for p in points]
sizes = [size for _, size in costs]
print(f"code: from {min(sizes)} to {max(sizes)} bytes")
print(f"the fastest point needs {table[table.best].code_bytes} bytes")


def front(costs):
    """Of many points, those that none dominates: sort, then sweep."""
    best, found = float("inf"), []
    for us, size in sorted(set(costs)):
        if size < best:
            best = size
            found.append((us, size))
    return found


true_front = front(costs)
print(f"{len(true_front)} of {len(points)} points are on the front:")
for us, size in true_front:
    print(f"  {us:8.1f} us {size:6d} bytes")
glue("front", len(true_front))

# %% check
few = costs[::40]
assert {few[n] for n in pareto_front(few)} == set(front(few))

# %% cell: workspace
lower = tvm.transform.Sequential(
    [
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)
for chosen in (Point(0, 16, 32, 8, 16), Point(1, 16, 32, 8, 16)):
    func = lower(LARGE.schedule(chosen).mod)["main"]
    print(f"space {chosen.space}:", calculate_allocated_bytes(func))

# %% check
assert calculate_allocated_bytes(func)["main"]["global"] == 16 * 32 * 4
raw = LARGE.schedule(chosen).mod["main"]
assert not calculate_allocated_bytes(raw)["main"]

# %% cell: strategy
text = inspect.getsource(search.ParetoSearch._cls)
print(text[text.index("    EXPLORE") :])


# %% cell: run
def point(genome):
    """The point of the table that a genome stands for."""
    i, j, k, unroll = genome.values
    return Point(genome.space, i[1], j[1], k[1], UNROLL[unroll])


def code_bytes(genome):
    return table[point(genome)].code_bytes


def run(strategy):
    asked = []
    inner = strategy._inst
    learn = inner.learn
    inner.learn = lambda scored: (
        asked.extend(
            (seconds * 1e6, code_bytes(genome)) for genome, seconds in scored
        ),
        learn(scored),
    )[1]
    tune(
        LARGE.module(),
        trials=96,
        batch=8,
        space=LARGE.generator(),
        strategy=strategy,
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )
    return asked


pareto = run(search.ParetoSearch(1, code_bytes))
print(len(pareto), "measured, front of", len(front(pareto)), "points")

# %% cell: volume
corner = np.log([max(us for us, _ in costs), max(sizes)])


def volume(costs):
    """Area that is dominated, on logarithmic axes, up to the worst corner."""
    area, height = 0.0, corner[1]
    for us, size in front(costs):
        area += (corner[0] - np.log(us)) * max(0.0, height - np.log(size))
        height = min(height, np.log(size))
    return area


whole = volume(costs)
for name, make in (
    ("random", search.RandomSearch),
    ("genetic, time only", search.Genetic),
    ("pareto", lambda seed: search.ParetoSearch(seed, code_bytes)),
):
    shares = [volume(run(make(seed))) / whole for seed in range(1, 7)]
    print(
        f"{name:19s} median {statistics.median(shares):.3f}, "
        f"from {min(shares):.3f} to {max(shares):.3f}"
    )

# %% check
assert volume(true_front) == whole
assert 0 < volume(pareto) <= whole

# %% cell: figure
fig, ax = figures.new(height=4.0)
ax.plot(*zip(*costs, strict=True), ",", color=figures.MUTED, alpha=0.5)
ax.step(
    *zip(*true_front, strict=True),
    where="post",
    color=COLORS["vermilion"],
    label="true front",
)
ax.plot(
    *zip(*front(pareto), strict=True),
    "o",
    color=COLORS["navy"],
    label="found in 96 trials",
)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="time, us",
    ylabel="code, bytes",
    title="Time against size of the code, every point of the space",
)
ax.legend()
figures.alt(
    fig,
    "Code size against time of all points, with the true Pareto front as a "
    "step line at the lower left and the points found by the search near it.",
)

# %% cell: solution-budget
for limit in (3100, 3300, 3500):
    allowed = [cost for cost in costs if cost[1] <= limit]
    if allowed:
        us, size = min(allowed)
        print(f"at most {limit} bytes: {us:.1f} us with {size} bytes")
    else:
        print(f"at most {limit} bytes: impossible")

# %% cell: solution-weighted
chosen = set()
for weight in np.linspace(0, 1, 101):
    score = [
        (1 - weight) * np.log(us) + weight * np.log(size)
        for us, size in costs
    ]
    chosen.add(costs[int(np.argmin(score))])
print(
    f"weighted sums reach {len(chosen & set(true_front))} of the front's "
    f"{len(true_front)} points"
)
