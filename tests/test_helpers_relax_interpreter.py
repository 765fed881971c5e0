"""The interpreter agrees with the virtual machine; random programs are well formed, and equal for equal seeds."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers.relax_interpreter import Interpreter, StepLimit, random_program, run

X, Y = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")
YES, NO = np.array(True), np.array(False)


@I.ir_module
class Mixed:
    @R.function(private=True)
    def twice(z: R.Tensor(("n", 4), "float32")):
        w = R.add(z, z)
        return w

    @R.function(pure=False)
    def main(x: R.Tensor(("n", 4), "float32"), c: R.Tensor((), "bool")):
        cls = Mixed
        y = cls.twice(x)
        t = (y, x)
        p = t[0]
        half = R.multiply(p, R.const(0.5, "float32"))
        _ = R.call_packed("seen", half, ty_args=(R.Tuple,))
        if c:
            r = R.exp(half)
        else:
            r = R.nn.relu(half)
        return r


def test_it_follows_one_branch_and_keeps_records():
    result, machine = run(Mixed, X, YES)
    np.testing.assert_allclose(result, np.exp(X), rtol=1e-6)
    assert machine.operators == {"relax.add": 1, "relax.multiply": 1, "relax.exp": 1}
    ((name, value),) = machine.effects
    assert name == "seen"
    np.testing.assert_allclose(value, X, rtol=1e-6)
    result, machine = run(Mixed, X, NO)
    np.testing.assert_allclose(result, np.maximum(X, 0), rtol=1e-6)
    assert "relax.exp" not in machine.operators


def test_it_agrees_with_the_virtual_machine():
    tvm.register_global_func("seen", lambda tensor: None, override=True)
    with tvm.transform.PassContext(opt_level=3, disabled_pass=["StaticPlanBlockMemory"]):
        vm = relax.VirtualMachine(tvm.compile(Mixed, "llvm"), tvm.cpu())
    for flag in (YES, NO):
        got = vm["main"](tvm.runtime.tensor(X), tvm.runtime.tensor(flag)).numpy()
        np.testing.assert_allclose(run(Mixed, X, flag)[0], got, rtol=1e-5)


def test_symbolic_extents_must_agree():
    @I.ir_module
    class Same:
        @R.function
        def main(x: R.Tensor(("n", 4), "float32"), y: R.Tensor(("n", 4), "float32")):
            z = R.add(x, y)
            return z

    assert run(Same, X, Y)[0].shape == (3, 4)
    with pytest.raises(ValueError, match="n is 3 and 2"):
        run(Same, X, Y[:2])


def test_what_it_does_not_know_is_named():
    @I.ir_module
    class Unknown:
        @R.function
        def main(x: R.Tensor((3, 4), "float32")):
            z = R.erf(x)
            return z

    with pytest.raises(NotImplementedError, match=r"relax\.erf"):
        run(Unknown, X)


def test_a_program_that_does_not_end_is_stopped():
    @I.ir_module
    class Endless:
        @R.function(pure=False)
        def main(x: R.Tensor((3, 4), "float32")) -> R.Tensor((3, 4), "float32"):
            cls = Endless
            y = R.abs(x)
            z = cls.main(y)
            return z

    with pytest.raises(StepLimit):
        Interpreter(Endless, steps=50).call("main", X)


@pytest.mark.parametrize("seed", range(12))
def test_random_programs(seed):
    mod = random_program(seed)
    relax.analysis.well_formed(mod)
    assert tvm_ffi.structural_equal(mod, random_program(seed))
    for c in (YES, NO):
        for d in (YES, NO):
            result, machine = run(mod, X, Y, c, d)
            assert result.shape == (3, 4)
            assert all(effect[0] == "observe" for effect in machine.effects)


def test_random_programs_have_what_they_are_for():
    texts = [random_program(seed)["main"].script() for seed in range(40)]
    for word in ("R.dataflow()", "if c", "if d", "call_packed", "def f(", "pure=False", "(n, 4)"):
        assert any(word in text for text in texts), word
