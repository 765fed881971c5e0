"""A small world for searching a network and its schedules together: data, networks, kernels, and a laboratory.

The networks are perceptrons with `depth` hidden layers of `width` units. They learn to imitate a fixed random teacher
that sorts points of eight coordinates into four classes. Each layer is one kernel, which can be scheduled in
`len(SCHEDULES)` ways. ``maintain.automl_table`` trained each network and measured each kernel once; during a search
`Laboratory` looks the answers up, and counts what they would have cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tvm
from tvm import s_tir, te
from tvm.s_tir import meta_schedule as ms

from .recorded import read_csv

__all__ = [
    "BATCH", "CLASSES", "INPUTS", "MEASURE", "NETWORKS", "PLAIN", "SCHEDULES", "TRAIN", "Candidate", "Laboratory",
    "Network", "OverBudget", "Schedule", "Tables", "forward", "kernel", "layers", "one_after_the_other", "points_of",
    "space", "task", "train", "volume", "workload",
]  # fmt: skip

BATCH, INPUTS, CLASSES = 64, 8, 4
"""Rows of an inference call, coordinates of a point, classes."""

TRAIN, MEASURE = 8, 1
"""What it costs to train a network, and to measure one network with one schedule."""


class Network(NamedTuple):
    """A perceptron: hidden layers, and units in each."""

    depth: int
    width: int


class Schedule(NamedTuple):
    """How a layer's loops run.

    Attributes
    ----------
    rows, columns : int
        Extent of the tile of results that is computed together; the columns are vectorised.
    outer : bool
        Whether the loop over the inputs goes around the tile, which then stays in registers.
    """

    rows: int
    columns: int
    outer: bool


NETWORKS = tuple(itertools.starmap(Network, itertools.product((1, 2, 3), (12, 16, 24, 32, 48, 64, 96))))
"""The architectures to choose from."""

SCHEDULES = tuple(itertools.starmap(Schedule, itertools.product((1, 2, 4, 8), (4, 8, 16, 32), (False, True))))
"""The schedules to choose from; a network uses one of them for all of its layers."""

PLAIN = Schedule(1, 4, False)
"""The schedule of somebody who does not care."""


class Candidate(NamedTuple):
    """What a search looks for."""

    network: Network
    schedule: Schedule


# ------------------------------------------------------------------------------------------------------ the task


def task(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and their classes, as the teacher sorts them.

    Parameters
    ----------
    number : int
        How many points.
    seed : int
        Of the points; the teacher is always the same.
    """
    teacher = np.random.default_rng(2026)
    x = np.random.default_rng(seed).uniform(-1, 1, (number, INPUTS)).astype("float32")
    h = x.astype("float64")
    for size in (20, 20):
        h = np.tanh(h @ teacher.normal(0, 1.6 / math.sqrt(h.shape[1]) * 1.6, (h.shape[1], size)))
    scores = h @ teacher.normal(0, 1, (h.shape[1], CLASSES))
    return x, (scores - scores.mean(axis=0)).argmax(axis=1)


def layers(network: Network) -> list[tuple[int, int, bool]]:
    """Inputs, outputs, and whether `relu` follows, for each layer."""
    sizes = [INPUTS, *[network.width] * network.depth, CLASSES]
    return [(k, n, number < network.depth) for number, (k, n) in enumerate(itertools.pairwise(sizes))]


def forward(weights: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Scores of each class in numpy; weights are matrix, bias, matrix, bias and so on."""
    for number, (w, b) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        x = x @ w + b
        if 2 * number + 2 < len(weights):
            x = np.maximum(x, 0)
    return x


def train(network: Network, seed: int = 0, steps: int = 1200) -> tuple[list[np.ndarray], float]:
    """Train with Adam in numpy.

    Returns
    -------
    list of ndarray
        Weights as `forward` takes them, ``float32``.
    float
        Share of 2000 other points that are sorted wrongly.
    """
    rng = np.random.default_rng(seed)
    x, y = task(4000, seed=1)
    weights = []
    for k, n, _ in layers(network):
        weights += [rng.normal(0, math.sqrt(2 / k), (k, n)).astype("float32"), np.zeros(n, "float32")]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for step in range(1, steps + 1):
        chosen = rng.integers(0, len(x), 128)
        values = [x[chosen]]
        for number in range(network.depth + 1):
            z = values[-1] @ weights[2 * number] + weights[2 * number + 1]
            values.append(np.maximum(z, 0) if number < network.depth else z)
        p = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(128), y[chosen]] -= 1
        delta, slopes = p / 128, []
        for number in reversed(range(network.depth + 1)):
            slopes[:0] = [values[number].T @ delta, delta.sum(axis=0)]
            if number:
                delta = (delta @ weights[2 * number].T) * (values[number] > 0)
        rate = 0.01 * (1 - step / (steps + 1))
        for w, slope, m, v in zip(weights, slopes, first, second, strict=True):
            m += 0.1 * (slope - m)
            v += 0.01 * (slope * slope - v)
            w -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
    x, y = task(2000, seed=2)
    return weights, float((forward(weights, x).argmax(axis=1) != y).mean())


# --------------------------------------------------------------------------------------------------- the kernels


def kernel(k: int, n: int, relu: bool, schedule: Schedule | None = None) -> tvm.tirx.PrimFunc:
    """A layer as a function of the points, the matrix, the bias and the result; without a schedule as it is written."""
    x, w = te.placeholder((BATCH, k), "float32", "X"), te.placeholder((k, n), "float32", "W")
    b = te.placeholder((n,), "float32", "B")
    r = te.reduce_axis((0, k), "k")
    p = te.compute((BATCH, n), lambda i, j: te.sum(x[i, r] * w[r, j], axis=r), "product")
    y = te.compute(
        (BATCH, n), lambda i, j: te.max(p[i, j] + b[j], tvm.tirx.const(0, "float32")) if relu else p[i, j] + b[j], "out"
    )
    func = te.create_prim_func([x, w, b, y]).with_attr("tirx.noalias", True)
    if schedule is not None:
        sch = s_tir.Schedule(func)
        _apply(sch, *schedule)
        func = sch.mod["main"]
    return func.without_attr("global_symbol")


def workload(func: tvm.tirx.PrimFunc) -> tvm.IRModule:
    """A module with a kernel as its function ``main``, to build or tune."""
    return tvm.IRModule({"main": func.with_attr("global_symbol", "main")})


def _apply(sch: s_tir.Schedule, rows: Any, columns: Any, outer: bool) -> None:
    out, product = sch.get_sblock("out"), sch.get_sblock("product")
    i, j = sch.get_loops(out)
    i, i_tile = sch.split(i, [None, rows])
    j, j_tile = sch.split(j, [None, columns])
    sch.reorder(i, j, i_tile, j_tile)
    sch.vectorize(j_tile)
    sch.compute_at(product, j, preserve_unit_loops=True)
    *_, i_tile, j_tile, k_loop = sch.get_loops(product)
    if outer:
        sch.reorder(k_loop, i_tile, j_tile)
        sch.unroll(i_tile)
    else:
        sch.reorder(i_tile, k_loop, j_tile)
    sch.vectorize(j_tile)
    init = sch.decompose_reduction(product, k_loop)
    if outer:
        sch.unroll(sch.get_loops(init)[-2])
    sch.vectorize(sch.get_loops(init)[-1])


def space() -> ms.space_generator.ScheduleFn:
    """The schedules of a layer as a design space for MetaSchedule: two spaces, with two decisions each."""

    def design_spaces(sch: s_tir.Schedule) -> list[s_tir.Schedule]:
        found = []
        for outer in (False, True):
            one = sch.copy()
            rows = one.sample_categorical([1, 2, 4, 8], [0.25] * 4)
            columns = one.sample_categorical([4, 8, 16, 32], [0.25] * 4)
            _apply(one, rows, columns, outer)
            found.append(one)
        return found

    return ms.space_generator.ScheduleFn(design_spaces, sch_rules=[], postprocs=[], mutator_probs={})


# ----------------------------------------------------------------------------------------------- the laboratory


class OverBudget(RuntimeError):
    """A search asked for more than it may spend."""


class Tables:
    """What ``maintain.automl_table`` found.

    Attributes
    ----------
    error : dict of Network to float
        Share of wrong answers, the mean of three trainings.
    us : dict of (int, int, bool, Schedule) to float
        Time of a kernel in microseconds; the first three as in `layers`.
    """

    def __init__(self, errors: Path, kernels: Path) -> None:
        self.error = {Network(int(row["depth"]), int(row["width"])): float(row["error"]) for row in read_csv(errors)}
        self.us = {
            (
                int(row["k"]),
                int(row["n"]),
                row["relu"] == "1",
                Schedule(int(row["rows"]), int(row["columns"]), row["outer"] == "1"),
            ): float(row["us"])
            for row in read_csv(kernels)
        }

    def latency(self, candidate: Candidate) -> float:
        """Time of a network with a schedule, in microseconds: the sum of its layers' kernels."""
        return sum(self.us[(*layer, candidate.schedule)] for layer in layers(candidate.network))

    def everything(self) -> list[tuple[float, float]]:
        """Latency and error of every candidate."""
        return [
            (self.latency(Candidate(network, schedule)), self.error[network])
            for network in self.error
            for schedule in SCHEDULES
        ]


class Laboratory:
    """Answers questions as long as the budget lasts.

    Parameters
    ----------
    tables : Tables
        Where the answers stand.
    budget : int
        What all questions may cost together. A network is trained once; to ask again is free, as it is to measure the
        same candidate again.

    Attributes
    ----------
    left : int
        What is left of the budget.
    errors : dict of Network to float
        All answers of `train`.
    times : dict of Candidate to float
        All answers of `measure`.
    """

    def __init__(self, tables: Tables, budget: int) -> None:
        self._tables, self.left = tables, budget
        self.errors: dict[Network, float] = {}
        self.times: dict[Candidate, float] = {}

    def _pay(self, cost: int) -> None:
        if cost > self.left:
            raise OverBudget(f"this costs {cost}, and {self.left} is left")
        self.left -= cost

    def train(self, network: Network) -> float:
        """Error of a network; costs `TRAIN`."""
        if network not in self.errors:
            self._pay(TRAIN)
            self.errors[network] = self._tables.error[network]
        return self.errors[network]

    def measure(self, network: Network, schedule: Schedule) -> float:
        """Latency of a network with a schedule in microseconds; costs `MEASURE`."""
        candidate = Candidate(network, schedule)
        if candidate not in self.times:
            self._pay(MEASURE)
            self.times[candidate] = self._tables.latency(candidate)
        return self.times[candidate]


def points_of(laboratory: Laboratory) -> dict[Candidate, tuple[float, float]]:
    """Latency and error of each candidate of which a search knows both."""
    return {
        candidate: (us, laboratory.errors[candidate.network])
        for candidate, us in laboratory.times.items()
        if candidate.network in laboratory.errors
    }


def volume(points: Iterable[tuple[float, float]], everything: Iterable[tuple[float, float]]) -> float:
    """Which share of what all candidates dominate is dominated by `points`: 1 if they hold the whole front.

    The area lies between the points and the worst latency and error there are; latency counts by its logarithm.
    """
    everything = list(everything)
    corner = (math.log(max(us for us, _ in everything)), max(error for _, error in everything))

    def area(some: Iterable[tuple[float, float]]) -> float:
        total, height = 0.0, corner[1]
        for us, error in sorted(set(some)):
            total += max(0.0, corner[0] - math.log(us)) * max(0.0, height - error)
            height = min(height, error)
        return total

    return area(points) / area(everything)


def one_after_the_other(
    laboratory: Laboratory, seed: int, front: Callable[[Sequence[Any]], list[int]], share: float = 0.5
) -> None:
    """The usual way: first the architecture, then the schedule.

    Networks in random order are trained and measured with `PLAIN`, as far as a share of the budget goes. Then the
    rest tunes those on the front of what was found, in turns, with schedules drawn at random.
    """
    rng = np.random.default_rng(seed)
    rest = laboratory.left - round(share * laboratory.left)
    for number in rng.permutation(len(NETWORKS)):
        if laboratory.left - rest >= TRAIN + MEASURE:
            laboratory.train(NETWORKS[number])
            laboratory.measure(NETWORKS[number], PLAIN)
    known = points_of(laboratory)
    best = [list(known)[number].network for number in front(list(known.values()))]
    draws = {network: iter(rng.permutation(len(SCHEDULES))) for network in best}
    for network in itertools.cycle(best):
        number: Any = next(draws[network], None)
        if laboratory.left < MEASURE or number is None:
            return
        laboratory.measure(network, SCHEDULES[number])
