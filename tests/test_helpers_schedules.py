"""The helper that shows schedule primitives: differences, numerical checks, the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import tirx as T

from tvm_deepdive_helpers import schedules
from tvm_deepdive_helpers.schedules import Workload, catalogue_problems, changes, refused, step


@T.prim_func(s_tir=True)
def double(A: T.Buffer((4, 6), "float32"), B: T.Buffer((4, 6), "float32")):
    for i, j in T.grid(4, 6):
        with T.sblock("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj] * T.float32(2)


def numpy_double(a: np.ndarray, b: np.ndarray) -> None:
    b[:] = a * 2


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setattr(schedules, "SHOWN", [])
    monkeypatch.setattr(schedules, "REFUSED", [])
    return Workload(double, numpy_double)


def test_families_name_every_public_method_once() -> None:
    assert catalogue_problems() == []


def test_a_new_method_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules.s_tir.Schedule, "skew", lambda self: None, raising=False)
    assert catalogue_problems() == ["Schedule.skew is in no family of the catalogue"]


def test_step_shows_the_change_and_checks_it(work: Workload, capsys: pytest.CaptureFixture) -> None:
    sch = work.schedule()
    i, _ = sch.get_loops(sch.get_sblock("B"))
    with step(sch, work):
        sch.split(i, factors=[2, 2])
    out = capsys.readouterr().out
    assert "-for i, j in T.grid(4, 6):" in out
    assert "+for i_0, i_1, j in T.grid(2, 2, 6):" in out
    assert out.endswith("result: equal to numpy and to the unscheduled function\n")
    assert schedules.SHOWN == ["split"]


def test_step_notices_a_wrong_result(work: Workload) -> None:
    wrong = Workload(double, lambda a, b: np.multiply(a, 3, out=b))
    sch = wrong.schedule()
    i, _ = sch.get_loops(sch.get_sblock("B"))
    with pytest.raises(AssertionError, match="after unroll the function is wrong"), step(sch, wrong):
        sch.unroll(i)


def test_lines_that_only_moved_are_not_changes() -> None:
    before, after = "for i:\n    x = 1\n    y = 2", "for i:\n    for j:\n        x = 1\n        y = 2"
    assert changes(before, after) == " for i:\n+    for j:\n         x = 1\n ..."
    assert changes(before, before) == "no change"


def test_refused_prints_the_reason(work: Workload, capsys: pytest.CaptureFixture) -> None:
    sch = work.schedule()
    i, _ = sch.get_loops(sch.get_sblock("B"))
    with refused("split", match="product of factors"):
        sch.split(i, factors=[1, 2])
    out = capsys.readouterr().out
    assert "Error message: The product of factors" in out
    assert "def main" not in out
    assert schedules.REFUSED == ["split"]
    with pytest.raises(ValueError, match="no method 'skew'"):
        refused("skew", match="")


def test_catalogue_says_what_a_page_forgot(work: Workload) -> None:
    problems = catalogue_problems("blocks", never_refused=["compute_inline"])
    assert "compute_at is shown nowhere" in problems
    assert "nothing shows what compute_inline refuses" not in problems
