"""The checks of the project "A better search": a strategy against chance, on the recorded space of two products."""

from __future__ import annotations

import math
import statistics

import numpy as np

from tvm_deepdive_helpers.practice import ROOT, Mutation, Project, doing, require
from tvm_deepdive_helpers.search import GenomeSearch
from tvm_deepdive_helpers.tabled import LARGE, Pair, Table, TabledBuilder, TabledRunner
from tvm_deepdive_helpers.tuning import tune

PROJECT = Project(
    "better_search",
    title="A better search",
    page="7-practice/better-search",
    limit=300,
    wants={"Search(seed)": "a search strategy: an object of a `derived_object` subclass of GenomeSearch"},
    mutations=[
        Mutation(
            "there is no model: every proposal is drawn by chance",
            "return self.queue.pop(0) if self.queue else self.space.random()",
            "return self.space.random()",
            caught="test_typical_candidate",
            says="no difference",
        ),
        Mutation(
            "the least promising genomes are measured",
            "order = np.argsort(-promise",
            "order = np.argsort(promise",
            caught="test_better_than_chance",
            says="median",
        ),
        Mutation(
            "the model chooses from a pool of chance only",
            "            pool.add(self.child(self.rng.choice(elite), elite))\n",
            "            pool.add(self.space.random())\n",
            caught="test_better_than_chance",
            says="median",
        ),
        Mutation(
            "chance comes from numpy's global generator",
            "            pool.add(self.child(self.rng.choice(elite), elite))\n",
            "            pool.add(self.child(elite[np.random.randint(len(elite))], elite))\n",
            caught="test_repeatable",
            says="self.rng",
        ),
    ],
)

SEEDS, TRIALS, BATCH = range(11, 20), 192, 8
SHARE = 0.85
table = Table(ROOT / "gallery/data/search_table.csv", LARGE)
optimum = table[table.best].seconds
times = np.array(table.times()) / optimum
luck = np.random.default_rng(0)


def search(solution, seed, task, trials):
    """Times of all candidates, over the optimum, in the order of measuring."""
    strategy = solution.Search(seed)
    require(
        isinstance(
            getattr(strategy, "_inst", None), GenomeSearch._cls if hasattr(GenomeSearch, "_cls") else GenomeSearch
        ),
        "Search(seed) must be an object of a subclass of GenomeSearch that is decorated with @derived_object; it is "
        f"{type(strategy).__name__}.",
    )
    with doing(f"searching with seed {seed}"):
        tuned = tune(
            task.module(),
            trials=trials,
            batch=BATCH,
            seed=seed,
            space=task.generator(),
            strategy=strategy,
            builder=TabledBuilder(),
            runner=TabledRunner(table),
        )
    got = np.array([trial.seconds for trial in tuned.trials]) / optimum / (2 if isinstance(task, Pair) else 1)
    require(
        len(got) == trials,
        f"With seed {seed}, {len(got)} candidates were measured; the budget is {trials}. The search ends when "
        "`propose` gives nothing new over and over.",
    )
    return got


@PROJECT.check(1, "A strategy", hint="Hint 1: the two methods")
def test_runs(solution):
    """It uses its whole budget, on one product and on two."""
    search(solution, 1, LARGE, 40)
    search(solution, 1, Pair(LARGE), 40)


@PROJECT.check(1, "A strategy", hint="Hint 1: the two methods")
def test_repeatable(solution):
    """The same seed gives the same search, another seed another."""
    first, again, other = (search(solution, seed, Pair(LARGE), 64) for seed in (5, 5, 6))
    require(
        np.array_equal(first, again),
        "Two searches with seed 5 measured different candidates. Take all chance from self.rng, and do not depend on "
        "the order of a set.",
    )
    require(not np.array_equal(first, other), "Seeds 5 and 6 give the same search: results of one run prove nothing.")


@PROJECT.check(2, "It learns", hint="Hint 2: what was measured says something about what was not")
def test_typical_candidate(solution):
    """In the second half, a typical candidate is clearly faster than one drawn by chance."""
    chance = math.exp(np.log(luck.choice(times, (2, 20000)).mean(axis=0)).mean())
    late = [np.log(search(solution, seed, Pair(LARGE), 96)[48:]).mean() for seed in (1, 2, 3)]
    mine = math.exp(statistics.mean(late))
    require(
        mine < chance / 1.4,
        f"A candidate that is drawn by chance takes {chance:.1f} times the optimum (geometric mean). Those that your "
        f"search measures in its second half take {mine:.1f} times: what it was told makes "
        "no difference to what it proposes.",
    )
    return f"{mine:.2f} times the optimum; chance {chance:.2f}"


@PROJECT.check(3, "Better than chance", hint="Hint 3: a model, and whom to ask it about")
def test_better_than_chance(solution):
    """Over nine seeds, its best is better than that of chance by the margin."""
    lucky = np.sort(luck.choice(times, (2, 4000, TRIALS)).mean(axis=0).min(axis=1))
    middle = float(np.median(lucky))
    finals = [float(search(solution, seed, Pair(LARGE), TRIALS).min()) for seed in SEEDS]
    mine, wins = statistics.median(finals), sum(final < middle for final in finals)
    said = (
        f"Best found over the optimum, for each seed: {', '.join(f'{final:.2f}' for final in sorted(finals))}. The "
        f"median is {mine:.3f}; that of chance, in thousands of runs, is {middle:.3f}."
    )
    require(mine <= SHARE * middle, f"{said} Asked for is a median of {SHARE * middle:.3f} or less.")
    require(wins >= 8, f"{said} {wins} of nine runs are better than the median of chance; eight are asked for.")
    return said
