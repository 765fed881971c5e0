"""The toy accelerator: what it computes, what it counts, and what it refuses."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest
import tvm

from tvm_deepdive_helpers import toy_accelerator
from tvm_deepdive_helpers.toy_accelerator import BANKS, COST, MACHINE, Fault, Machine, cost

X = np.arange(64, dtype="float32").reshape(8, 8) - 20
W = np.linspace(-1, 1, 64, dtype="float32").reshape(8, 8)

PROGRAM = [
    ("load", "inp", 0, 8, "x", 0, 0),
    ("load", "wgt", 5, 10, "w", 0, 0),
    ("zero", 2, 9),
    ("mma", 2, 9, 0, 8, 5, 10),
    ("relu", 2, 9),
    ("store", 2, 9, "y", 0, 0),
]


def memory():
    return {"x": X, "w": W, "y": np.zeros((8, 8), "float32")}


def test_a_product_with_offsets_and_pitches():
    machine, at = Machine(), memory()
    machine.run(PROGRAM, at)
    np.testing.assert_allclose(at["y"], np.maximum(X @ W, 0), rtol=1e-6)
    assert machine.cycles == cost(PROGRAM) == sum(COST[kind] for kind, *_ in PROGRAM)
    assert machine.executed == {"load": 2, "zero": 1, "mma": 1, "relu": 1, "store": 1}


def test_a_defect_changes_the_result_and_ends():
    machine, at = Machine(), memory()
    with machine.defect():
        machine.run(PROGRAM, at)
    assert not np.allclose(at["y"], np.maximum(X @ W, 0))
    machine.run(PROGRAM, at)
    np.testing.assert_allclose(at["y"], np.maximum(X @ W, 0), rtol=1e-6)


def test_reset_forgets():
    machine = Machine()
    machine.run(PROGRAM, memory())
    machine.reset()
    assert machine.cycles == 0 and not machine.executed
    with pytest.raises(Fault, match="never written"):
        machine.run([PROGRAM[3]], memory())


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        (("load", "acc", 0, 8, "x", 0, 0), "'inp' or 'wgt'"),
        (("load", "inp", BANKS["inp"] - 63, 8, "x", 0, 0), "does not fit"),
        (("load", "inp", -1, 8, "x", 0, 0), "does not fit"),
        (("load", "inp", 0, 7, "x", 0, 0), "pitch 7"),
        (("load", "inp", 0, 8, "x", 0, 1), "beyond 'x', which is 8 x 8"),
        (("load", "inp", 0, 8, "z", 0, 0), "no matrix 'z'"),
        (("load", "inp", 0, 8, "half", 0, 0), "float16"),
        (("zero", 193, 8), "bank 'acc' of 256"),
        (("mma", 0, 8, 0, 8, 0, 8), "never written"),
        (("store", 0, 8, "y", 0, 0), "never written"),
        (("dance",), "no instruction 'dance'"),
        (("zero", 0), "wrong operands of 'zero'"),
        (("mma", 0, 8), "wrong operands of 'mma'"),
    ],
)
def test_what_it_refuses(instruction, says):
    machine = Machine()
    with pytest.raises(Fault, match=re.escape(says)) as caught:
        machine.run([instruction], {**memory(), "half": X.astype("float16")})
    assert str(caught.value).startswith("instruction 0: ")
    assert not machine.executed


def test_global_functions_reach_the_one_machine():
    toy_accelerator.register_instructions()
    MACHINE.reset()
    load, mma, zero, store = (tvm.get_global_func(f"toy.{name}") for name in ("load", "mma", "zero", "store"))
    y = np.zeros((8, 12), "float32")
    load("inp", 0, 8, ctypes.c_void_p(X.ctypes.data), 8)
    load("wgt", 0, 8, ctypes.c_void_p(W.ctypes.data), 8)
    zero(0, 8)
    mma(0, 8, 0, 8, 0, 8)
    store(0, 8, ctypes.c_void_p(y.ctypes.data + 4 * 4), 12)
    np.testing.assert_allclose(y[:, 4:], X @ W, rtol=1e-6)
    assert not y[:, :4].any()
    assert MACHINE.cycles == 2 * 20 + 2 + 8 + 20
    MACHINE.reset()
