"""The world of the AutoML project: its kernels, its training, its laboratory, its measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm

from tvm_deepdive_helpers import automl
from tvm_deepdive_helpers.automl import BATCH, MEASURE, NETWORKS, SCHEDULES, TRAIN, Candidate, Network, Schedule
from tvm_deepdive_helpers.search import pareto_front

DATA = Path(__file__).parents[1] / "gallery/data"
TABLES = automl.Tables(DATA / "automl_errors.csv", DATA / "automl_kernels.csv")


def laboratory(budget):
    return automl.Laboratory(TABLES, budget)


def test_the_tables_are_complete():
    assert set(TABLES.error) == set(NETWORKS)
    needed = {(*layer, s) for network in NETWORKS for layer in automl.layers(network) for s in SCHEDULES}
    assert set(TABLES.us) == needed
    assert all(0.01 < error < 0.5 for error in TABLES.error.values())
    assert all(0.05 < us < 1000 for us in TABLES.us.values())


@pytest.mark.parametrize("schedule", [None, Schedule(1, 4, False), Schedule(8, 16, True), Schedule(2, 32, False)])
def test_a_kernel_is_right_with_any_schedule(schedule):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype("float32") for s in ((BATCH, 12), (12, 20), (20,)))
    for relu in (True, False):
        built = tvm.compile(automl.workload(automl.kernel(12, 20, relu, schedule)), "llvm")
        out = tvm.runtime.tensor(np.zeros((BATCH, 20), "float32"))
        built["main"](*map(tvm.runtime.tensor, (x, w, b)), out)
        want = np.maximum(x @ w + b, 0) if relu else x @ w + b
        np.testing.assert_allclose(out.numpy(), want, rtol=1e-4, atol=1e-4)


def test_training_learns_and_repeats():
    weights, error = automl.train(Network(1, 16), steps=300)
    assert error < 0.4
    again, same = automl.train(Network(1, 16), steps=300)
    assert error == same and all(map(np.array_equal, weights, again))
    x, y = automl.task(2000, seed=2)
    assert (automl.forward(weights, x).argmax(axis=1) != y).mean() == pytest.approx(error)


def test_a_laboratory_counts():
    lab = laboratory(TRAIN + 2 * MEASURE)
    network = Network(2, 24)
    assert lab.train(network) == lab.train(network) == TABLES.error[network]
    us = lab.measure(network, SCHEDULES[3])
    assert us == lab.measure(network, SCHEDULES[3]) == TABLES.latency(Candidate(network, SCHEDULES[3]))
    assert lab.left == MEASURE
    with pytest.raises(automl.OverBudget, match=f"costs {TRAIN}, and {MEASURE} is left"):
        lab.train(Network(1, 12))
    assert automl.points_of(lab) == {Candidate(network, SCHEDULES[3]): (us, TABLES.error[network])}


def test_the_area():
    everything = [(1.0, 0.4), (10.0, 0.2), (100.0, 0.1), (100.0, 0.4)]
    assert automl.volume(everything, everything) == pytest.approx(1)
    assert automl.volume([everything[-1]], everything) == 0
    some = [automl.volume(everything[:n], everything) for n in range(4)]
    assert some == sorted(some) and some[0] == 0 and some[1] == 0


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_after_the_other_stays_within_its_budget(share):
    for budget in (0, 9, 100):
        lab = laboratory(budget)
        automl.one_after_the_other(lab, 1, pareto_front, share)
        assert 0 <= lab.left <= budget


def test_every_schedule_is_in_the_design_space():
    from tvm.s_tir import meta_schedule as ms

    mod = automl.workload(automl.kernel(12, 20, True))
    context = ms.TuneContext(mod, target=tvm.target.Target("llvm"), space_generator=automl.space())
    assert len(context.generate_design_space()) == 2
