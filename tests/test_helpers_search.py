"""Search strategies as plug-ins, on a space whose every point has a time."""

from __future__ import annotations

import math
import random

import pytest
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import search
from tvm_deepdive_helpers.maintain import search_runs
from tvm_deepdive_helpers.recorded import write_csv
from tvm_deepdive_helpers.search import Genome, TraceSpace, dominates, pareto_front
from tvm_deepdive_helpers.tabled import (
    SMALL,
    Pair,
    Point,
    Table,
    TabledBuilder,
    TabledRunner,
    Task,
    point_of,
    points_of,
)
from tvm_deepdive_helpers.tuning import Tuned, host_target, load_intrinsics, tune


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A made-up table: a smooth bowl around one point."""
    path = tmp_path_factory.mktemp("table") / "made_up.csv"
    header = ("task", "space", "i", "j", "k", "unroll", "us", "us_again", "code_bytes")

    def us(p: Point) -> float:
        return 10 + 5 * abs(math.log2(p.i / 8)) + 8 * abs(math.log2(p.j / 16)) + 3 * p.space + (p.unroll == 0)

    rows = [(SMALL.name, *p, us(p), us(p), 100 * p.i) for p in SMALL.points()]
    write_csv(path, "made_up", header, rows)
    return Table(path, SMALL)


def run(table: Table, strategy: object, trials: int = 40, seed: int = 1) -> Tuned:
    return tune(
        SMALL.module(),
        trials=trials,
        batch=8,
        seed=seed,
        space=SMALL.generator(),
        strategy=strategy,
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )


def spaces() -> TraceSpace:
    load_intrinsics()
    context = ms.TuneContext(
        SMALL.module(), target=host_target(), space_generator=SMALL.generator(), num_threads=1, rand_state=1
    )
    postprocs = list(context.space_generator.postprocs)
    return TraceSpace(context.mod, postprocs, context.generate_design_space(), random.Random(0))


def test_a_module_carries_its_coordinates() -> None:
    point = Point(1, 8, 16, 4, 64)
    assert point in set(SMALL.points())
    assert point_of(SMALL.schedule(point).mod) == point


def test_a_pair_costs_what_its_products_cost(table: Table) -> None:
    pair = Pair(SMALL)
    strategy = search.RandomSearch(2)
    tuned = tune(
        pair.module(),
        trials=8,
        batch=8,
        space=pair.generator(),
        strategy=strategy,
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )
    assert len({point for record in tuned.records for point in points_of(record.as_measure_candidate().sch.mod)}) > 8
    for record in tuned.records:
        one, other = points_of(record.as_measure_candidate().sch.mod)
        assert float(record.run_secs[0]) == pytest.approx(table[one].seconds + table[other].seconds)
    assert points_of(SMALL.schedule(Point(1, 8, 16, 4, 64)).mod) == [Point(1, 8, 16, 4, 64)]


def test_table_knows_its_best(table: Table) -> None:
    assert len(table) == len(list(SMALL.points()))
    assert table[table.best].noise == 0
    assert table[table.best].seconds == table.times()[0] == pytest.approx(10e-6)
    with pytest.raises(LookupError, match="no rows of 3x4x5"):
        Table(table.path, Task(3, 4, 5))


def test_genomes_survive_the_way_to_a_schedule_and_back() -> None:
    space = spaces()
    for _ in range(10):
        genome = space.random()
        sch = space.schedule(genome)
        assert sch is not None
        assert space.genome(genome.space, sch) == genome


def test_a_neighbour_differs_in_one_value() -> None:
    space = spaces()
    genome = Genome(0, ((8, 8), (8, 16), (16, 8), 1))
    for _ in range(30):
        other = space.neighbour(genome)
        assert sum(a != b for a, b in zip(genome.values, other.values, strict=True)) == 1


def test_a_step_moves_one_prime_factor() -> None:
    assert search._is_step((8, 6), (4, 12))
    assert search._is_step((8, 6), (24, 2))
    assert not search._is_step((8, 6), (2, 24))
    assert not search._is_step((8, 6), (8, 6))


@pytest.mark.parametrize("name", ["RandomSearch", "Genetic", "Annealing", "PolicyGradient", "Bandit", "ParetoSearch"])
def test_every_strategy_spends_its_budget_and_repeats_nothing(table: Table, name: str) -> None:
    tuned = run(table, getattr(search, name)(seed=3))
    assert len(tuned.trials) == 40
    assert len({str(record.trace) for record in tuned.records}) == 40
    again = run(table, getattr(search, name)(seed=3))
    assert [t.seconds for t in again.trials] == [t.seconds for t in tuned.trials]


def test_strategies_get_better_on_a_bowl(table: Table) -> None:
    for make in (search.Genetic, search.Annealing, search.PolicyGradient):
        trials = [run(table, make(seed), trials=64, seed=seed).trials for seed in (1, 2, 3)]
        early, late = (sum(t.seconds for run in trials for t in run[part]) for part in (slice(0, 16), slice(48, 64)))
        assert late < early


def test_start_is_measured_first(table: Table) -> None:
    strategy = search.Genetic(1)
    strategy.start = [Genome(0, ((8, 8), (8, 16), (16, 8), 1))]
    assert run(table, strategy).trials[0].seconds == table[Point(0, 8, 16, 8, 16)].seconds


@pytest.mark.parametrize("make", [search.Annealing, search.ParetoSearch])
def test_a_clone_can_be_cloned(make: type) -> None:
    clone = make(5).clone().clone()
    assert isinstance(clone, ms.SearchStrategy)


def test_recorded_runs(table: Table) -> None:
    cpu_s, seconds = search_runs.run(table, "random", seed=1, trials=16)
    assert cpu_s > 0
    assert len(seconds) == 16
    assert seconds == search_runs.run(table, "random", seed=1, trials=16)[1]


def test_pareto_front() -> None:
    points = [(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)]
    assert pareto_front(points) == [0, 1, 3, 4]
    assert dominates((1, 1), (1, 2))
    assert not dominates((1, 1), (1, 1))
