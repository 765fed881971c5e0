"""Tuning inside a build: the quick import, the builder and runner in this process, and a whole small run."""

import inspect
import math
import threading

import pytest
import tvm
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import tuning
from tvm_deepdive_helpers.tuning import CpuTimeRunner, InProcessBuilder, seconds_of, tune


@T.prim_func(s_tir=True)
def matmul(A: T.Buffer((32, 32), "float32"), B: T.Buffer((32, 32), "float32"), C: T.Buffer((32, 32), "float32")):
    for i, j, k in T.grid(32, 32, 32):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


@pytest.fixture(autouse=True)
def own_thread_settings(monkeypatch):
    """`one_thread` changes the environment; give it back after each test."""
    for name in ("TVM_NUM_THREADS", "TVM_BIND_THREADS"):
        monkeypatch.setenv(name, "1")


def test_quick_stack_has_what_the_parser_reads():
    original = inspect.stack
    slow = inspect.stack()
    with tuning.quick_stack():
        quick = inspect.stack()
    assert inspect.stack is original
    assert len(quick) == len(slow)
    for a, b in zip(quick[1:], slow[1:], strict=True):
        assert (a.frame, a.filename, a.lineno, a.function) == (b.frame, b.filename, b.lineno, b.function)
    ours = [info for info in quick[1:] if info.filename == __file__]
    theirs = [info for info in slow[1:] if info.filename == __file__]
    assert [info.code_context for info in ours] == [info.code_context for info in theirs]


def test_quick_stack_is_undone_after_an_error():
    original = inspect.stack
    with pytest.raises(ZeroDivisionError), tuning.quick_stack():
        _ = 1 / 0
    assert inspect.stack is original


def test_a_script_in_a_class_parses_under_the_quick_stack():
    from tvm.script import ir as I

    with tuning.quick_stack():

        @I.ir_module
        class Module:
            @T.prim_func(s_tir=True)
            def main(A: T.Buffer((4,), "float32")):
                for i in range(4):
                    A[i] = T.float32(1)

    assert [var.name_hint for var in Module.get_global_vars()] == ["main"]


def inputs(mod):
    return [ms.builder.BuilderInput(tvm.IRModule({"main": mod}), tuning.host_target())]


def test_builder_and_runner():
    args = [ms.arg_info.TensorInfo("float32", (32, 32)) for _ in range(3)]
    tuning.one_thread()
    assert tvm.runtime.num_threads() == 1
    built = InProcessBuilder().build(inputs(matmul))
    assert built[0].error_msg is None
    item = ms.runner.RunnerInput(built[0].artifact_path, "llvm", args)
    (future,) = CpuTimeRunner(repeat=2, sample_s=1e-5).run([item])
    assert future.done() and 0 < seconds_of(future.result()) < 1
    assert str(built[0].artifact_path) not in tuning._BUILT


def test_failures_are_results():
    def refuse(mod, target):
        raise ValueError("no")

    (result,) = InProcessBuilder(refuse).build(inputs(matmul))
    assert str(result.error_msg) == "ValueError: no" and result.artifact_path is None
    built = InProcessBuilder().build(inputs(matmul))
    wrong = [ms.arg_info.TensorInfo("float32", (8,))]
    (future,) = CpuTimeRunner().run([ms.runner.RunnerInput(built[0].artifact_path, "llvm", wrong)])
    assert future.result().run_secs is None and "Expected 3 arguments" in str(future.result().error_msg)
    assert seconds_of(future.result()) == math.inf


@pytest.mark.parametrize(("strategy", "model"), [("replay-trace", "random"), ("evolutionary", "xgb")])
def test_tune(strategy, model):
    before = threading.active_count()
    result = tune(matmul, trials=6, batch=3, strategy=strategy, cost_model=model, population=8)
    assert len(result.trials) == len(result.records) == 6
    assert all(trial.error is None and trial.at_s <= result.wall_s for trial in result.trials)
    curve = result.curve()
    assert curve == sorted(curve, reverse=True) and curve[-1] == result.best_s == seconds_of(result.records[0])
    assert "enter_postproc" in str(result.best.trace)
    assert threading.active_count() == before


def test_the_same_seed_draws_the_same_candidates():
    first, second, other = (
        tune(matmul, trials=3, batch=3, seed=seed, strategy="replay-trace").database.get_all_tuning_records()
        for seed in (1, 1, 2)
    )
    traces = [[str(record.trace) for record in records] for records in (first, second, other)]
    assert traces[0] == traces[1] != traces[2]


def test_the_given_database_gets_the_records_even_if_it_is_empty():
    database = ms.database.MemoryDatabase()
    result = tune(matmul, trials=2, batch=2, strategy="replay-trace", database=database)
    assert result.database.same_as(database) and len(database) == 2


def test_when_everything_fails_there_is_no_best():
    def refuse(mod, target):
        raise ValueError("no")

    result = tune(matmul, trials=2, batch=2, strategy="replay-trace", builder=InProcessBuilder(refuse))
    assert [trial.error for trial in result.trials] == ["ValueError: no"] * 2
    assert result.best_s == math.inf
    with pytest.raises(LookupError, match="every candidate fail"):
        _ = result.best
