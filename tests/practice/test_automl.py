"""The checks of the practice project "AutoML with the tuner"."""

from __future__ import annotations

import statistics

import numpy as np
import tvm
from tvm import relax
from tvm_ffi import structural_equal

from tvm_deepdive_helpers import automl, search
from tvm_deepdive_helpers.automl import BATCH, NETWORKS, SCHEDULES, Candidate, Laboratory, Network, Schedule
from tvm_deepdive_helpers.practice import ROOT, Mutation, Project, doing, require

PROJECT = Project(
    "automl",
    title="AutoML with the tuner",
    page="7-practice/automl",
    wants={
        "front(points)": "the indices of the points that no other dominates, in ascending order",
        "build(network, schedule)": "an IRModule with a function `forward`",
        "search(laboratory, seed)": "a list of candidates, the front of what it found",
    },
    mutations=[
        Mutation("ties forgotten", "points[n][1] < height or equal", "points[n][1] <= height", "test_front_ties"),
        Mutation(
            "sorted by latency only",
            "key=lambda n: points[n])",
            "key=lambda n: points[n][0])",
            "test_front_ties",
        ),
        Mutation("no bias", "[x, *weights]", "[x, weights[0], weights[1] * 0.0]", "test_numbers", "numpy"),
        Mutation("one schedule for all", "relu, self.schedule)", "relu, None)", "test_schedule", "schedule"),
        Mutation(
            "the budget is not watched",
            "laboratory.left >= TRAIN + MEASURE and",
            "",
            "test_budget",
            "budget",
        ),
        Mutation(
            "all it knows instead of the front",
            "return [list(known)[n] for n in front(list(known.values()))]",
            "return list(known)",
            "test_result",
            "dominated",
        ),
        Mutation(
            "nothing is learned from other networks",
            "laboratory.measure(network, ranked[0])",
            "laboratory.measure(network, draw(SCHEDULES))",
            "test_beats",
            "share",
        ),
        Mutation(
            "chance without the seed", "np.random.default_rng(seed)", "np.random.default_rng()", "test_seed", "seed"
        ),
    ],
)

TABLES = automl.Tables(ROOT / "gallery/data/automl_errors.csv", ROOT / "gallery/data/automl_kernels.csv")
EVERYTHING = TABLES.everything()


# -------------------------------------------------------------------------------------------------------- front


def wrong(solution, points):
    """Explain what is wrong with the front of some points, or return None."""
    with doing("asking `front` for the front of a few points"):
        got = list(solution.front(list(points)))
    want = search.pareto_front(points)
    return None if got == want else f"The points are {list(points)}. `front` returned {got}, and it should be {want}."


@PROJECT.check(1, "The front", hint="Hint 1: sort, then sweep")
def test_front(solution):
    """The front of points with different coordinates is found"""
    for points in ([(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)], [(3.0, 3.0), (1.0, 1.0), (2.0, 2.0)], [(5.0, 0.1)], []):
        text = wrong(solution, points)
        require(text is None, f"{text} A point is dominated if another is nowhere larger, and smaller somewhere.")
    rng = np.random.default_rng(1)
    for _ in range(30):
        points = [tuple(map(float, p)) for p in rng.random((12, 2)).round(3)]
        text = wrong(solution, points)
        require(text is None, text)


@PROJECT.check(1, "The front", hint="Hint 1: sort, then sweep")
def test_front_ties(solution):
    """Points that are equal in one coordinate, or in both, are treated right"""
    cases = {
        "Of two points with the same latency, the one with the larger error is dominated.": [(1.0, 2.0), (1.0, 1.0)],
        "Of two points with the same error, the slower one is dominated.": [(2.0, 1.0), (1.0, 1.0)],
        "Equal points do not dominate each other.": [
            (1.0, 1.0),
            (2.0, 2.0),
            (1.0, 1.0),
        ],
    }
    for why, points in cases.items():
        text = wrong(solution, points)
        require(text is None, f"{text} {why}")
    rng = np.random.default_rng(2)
    for _ in range(60):
        points = [tuple(map(float, p)) for p in rng.integers(0, 5, (9, 2))]
        text = wrong(solution, points)
        require(text is None, text)


# ----------------------------------------------------------------------------------------------------- networks


def built(solution, network, schedule):
    """The module of a candidate."""
    with doing(f"building {network} with {schedule}"):
        mod = solution.build(network, schedule)
    require(isinstance(mod, tvm.IRModule), f"`build` must return an IRModule, and returns {type(mod).__name__}.")
    names = [var.name_hint for var, func in mod.functions_items() if isinstance(func, relax.Function)]
    require("forward" in names, f"The module needs a Relax function `forward`; its Relax functions are {names}.")
    return mod


def random_weights(network, seed):
    """Weights of the right shapes."""
    rng = np.random.default_rng(seed)
    shapes = [shape for k, n, _ in automl.layers(network) for shape in ((k, n), (n,))]
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def outputs(mod, weights, points):
    """What the compiled network says of a batch of points."""
    with doing("compiling the network"):
        vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    with doing("calling `forward` with the points, and then a matrix and a bias for each layer"):
        return vm["forward"](*map(tvm.runtime.tensor, [points, *weights])).numpy()


@PROJECT.check(2, "The network", hint="Hint 2: a kernel in a module")
def test_numbers(solution):
    """A compiled network computes what numpy computes"""
    points = automl.task(BATCH, seed=3)[0]
    for network, schedule in (
        (Network(1, 16), Schedule(1, 4, False)),
        (Network(2, 12), Schedule(4, 8, True)),
        (Network(3, 24), Schedule(2, 16, True)),
        (Network(3, 96), Schedule(8, 32, False)),
    ):
        weights = random_weights(network, seed=network.width)
        got = outputs(built(solution, network, schedule), weights, points)
        want = automl.forward(weights, points)
        require(got.shape == want.shape, f"{network}: the result has shape {got.shape}, and should have {want.shape}.")
        require(
            np.allclose(got, want, rtol=1e-3, atol=1e-2),
            f"{network} with {schedule}: the largest difference from numpy is {np.abs(got - want).max():.3g}. Each "
            "layer is x @ w + b, and all but the last are followed by relu.",
        )


@PROJECT.check(2, "The network", hint="Hint 2: a kernel in a module")
def test_schedule(solution):
    """Each layer is one kernel, with the schedule that was asked for"""
    for network, schedule in ((Network(1, 32), Schedule(4, 16, True)), (Network(2, 24), Schedule(1, 8, False))):
        mod = built(solution, network, schedule)
        kernels = [func for func in mod.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
        for layer in automl.layers(network):
            want = automl.kernel(*layer, schedule)
            plain = [func.without_attr("global_symbol") for func in kernels]
            require(
                any(structural_equal(func, want) for func in plain),
                f"{network}: no PrimFunc of the module equals `kernel{(*layer, schedule)}`, the layer with the "
                f"schedule that was asked for. There are {len(kernels)} PrimFuncs.",
            )


@PROJECT.check(2, "The network", hint="Hint 2: a kernel in a module")
def test_trained(solution):
    """A trained network sorts points as well after compilation"""
    network = Network(2, 16)
    weights, _ = automl.train(network, steps=300)
    x, y = automl.task(4 * BATCH, seed=4)
    mod = built(solution, network, Schedule(4, 8, True))
    with doing("compiling the network"):
        vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    weights_there = [tvm.runtime.tensor(w) for w in weights]
    got = [vm["forward"](tvm.runtime.tensor(x[n : n + BATCH]), *weights_there).numpy() for n in range(0, len(x), BATCH)]
    same = (np.concatenate(got).argmax(axis=1) == automl.forward(weights, x).argmax(axis=1)).mean()
    require(same > 0.98, f"Of {len(x)} points, the compiled network sorts {same:.0%} as numpy does.")
    errors = (np.concatenate(got).argmax(axis=1) != y).mean()
    require(errors < 0.5, f"The compiled network sorts {errors:.0%} of the points wrongly; a trained one should not.")


# ------------------------------------------------------------------------------------------------------- search


def searched(solution, budget, seed):
    """Run a search in a laboratory; the laboratory and the candidates."""
    laboratory = Laboratory(TABLES, budget)
    with doing(f"searching with a budget of {budget}"):
        try:
            found = solution.search(laboratory, seed)
        except automl.OverBudget as error:
            require(False, f"With a budget of {budget}, the search asks for more than is left: {error}. Ask "
                    "`laboratory.left` first.")  # fmt: skip
    require(found is not None, "`search` returns None; it must return its front, a list of candidates.")
    return laboratory, [Candidate(*candidate) for candidate in found]


@PROJECT.check(3, "An honest search", hint="Hint 3: what a search may ask")
def test_budget(solution):
    """The search stays within its budget, and uses it"""
    for budget in (9, 30, 77, 150):
        laboratory, found = searched(solution, budget, seed=1)
        require(found, f"With a budget of {budget}, the search finds nothing. One network costs {automl.TRAIN} to "
                f"train and {automl.MEASURE} to measure.")  # fmt: skip
        require(
            laboratory.left <= max(9, budget // 10),
            f"Of a budget of {budget}, the search leaves {laboratory.left} unused.",
        )


@PROJECT.check(3, "An honest search", hint="Hint 3: what a search may ask")
def test_result(solution):
    """The result is the front of what the search knows"""
    laboratory, found = searched(solution, 120, seed=2)
    known = automl.points_of(laboratory)
    for candidate in found:
        require(
            candidate in known,
            f"{candidate} is in the result, but the search has not trained and measured it, so it cannot know.",
        )
        better = [c for c, p in known.items() if search.dominates(p, known[candidate])]
        require(
            not better,
            f"{candidate} is in the result, and it is dominated: {better[:1]} is known to be as good in both respects "
            "and better in one.",
        )
    names = list(known)
    best = {known[names[n]] for n in search.pareto_front(list(known.values()))}
    missing = best - {known[candidate] for candidate in found}
    require(not missing, f"The result lacks {len(missing)} points of the front of what the search knows.")


@PROJECT.check(3, "An honest search", hint="Hint 3: what a search may ask")
def test_seed(solution):
    """Equal seeds give equal searches, and different seeds different ones"""
    runs = [searched(solution, 100, seed) for seed in (1, 1, 2, 3)]
    times = [laboratory.times for laboratory, _ in runs]
    require(times[0] == times[1], "Two searches with seed 1 measured different candidates. Draw all chance from one "
            "generator made of the seed.")  # fmt: skip
    require(times[0] != times[2] or times[0] != times[3], "Searches with the seeds 1, 2 and 3 are all the same: a "
            "comparison over seeds would mean nothing.")  # fmt: skip


SEEDS = range(1, 26)


def shares(run, budget):
    """Share of the true front's area that a search reaches, for each seed."""
    found = []
    for seed in SEEDS:
        laboratory = Laboratory(TABLES, budget)
        run(laboratory, seed)
        found.append(automl.volume(automl.points_of(laboratory).values(), EVERYTHING))
    return found


@PROJECT.check(4, "A better search", hint="Hint 4: what one network tells about another")
def test_beats(solution):
    """Together is better than one after the other, for three budgets"""
    for budget in (90, 130, 180):
        with doing(f"searching with a budget of {budget}"):
            mine = statistics.median(shares(solution.search, budget))
        for share in (0.5, 0.7, 0.9):
            theirs = statistics.median(
                shares(lambda lab, seed, s=share: automl.one_after_the_other(lab, seed, search.pareto_front, s), budget)
            )
            require(
                mine > theirs,
                f"With a budget of {budget}, the median share of the front's area is {mine:.3f} over "
                f"{len(SEEDS)} seeds. First the architecture, with {share:.0%} of the budget, then the schedule "
                f"reaches {theirs:.3f}. What did the measurements of one network tell you about the next?",
            )


@PROJECT.check(4, "A better search", hint="Hint 4: what one network tells about another")
def test_good(solution):
    """With a budget of 180, the search comes close to the true front"""
    mine = statistics.median(shares(solution.search, 180))
    full = automl.TRAIN * len(NETWORKS) + len(NETWORKS) * len(SCHEDULES)
    require(mine > GOOD, f"The median share of the front's area is {mine:.3f}, and should be above {GOOD}. To try "
            f"everything would cost {full}.")  # fmt: skip


GOOD = 0.93
