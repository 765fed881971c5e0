"""The running example."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from tvm_deepdive_helpers.running_example import BATCH, MLP, SHAPES, arguments, as_tensors, mlp, reference


def test_shapes_are_those_of_the_module():
    params = MLP["main"].params
    assert {p.name: tuple(int(d) for d in p.ty.shape) for p in params} == SHAPES
    assert [a.shape for a in arguments()] == list(SHAPES.values())
    assert {a.dtype for a in arguments()} == {np.dtype("float32")}


def test_arguments_depend_on_the_seed_only():
    assert all(np.array_equal(a, b) for a, b in zip(arguments(1), arguments(1), strict=True))
    assert not np.array_equal(arguments(1)[0], arguments(2)[0])


def test_reference_by_loops():
    x, w1, b1, w2, b2 = (a.astype("float64") for a in arguments())
    expected = np.zeros((BATCH, 10))
    for i in range(BATCH):
        hidden = [max(sum(x[i, k] * w1[k, j] for k in range(64)) + b1[j], 0.0) for j in range(128)]
        for j in range(10):
            expected[i, j] = sum(hidden[k] * w2[k, j] for k in range(128)) + b2[j]
    np.testing.assert_allclose(reference(*arguments()), expected, rtol=1e-4, atol=1e-3)


def test_builder_makes_the_same_module():
    assert tvm_ffi.structural_equal(mlp(), MLP)
    assert not tvm_ffi.structural_equal(mlp(4), MLP)


@pytest.mark.parametrize("batch", [BATCH, "n"])
def test_compiled(batch):
    vm = relax.VirtualMachine(tvm.compile(mlp(batch), "llvm"), tvm.cpu())
    for size in [BATCH] if batch == BATCH else [1, 5]:
        args = arguments(seed=3, batch=size)
        result = vm["main"](*as_tensors(args)).numpy()
        assert result.shape == (size, 10)
        np.testing.assert_allclose(result, reference(*args), rtol=1e-4, atol=1e-3)
