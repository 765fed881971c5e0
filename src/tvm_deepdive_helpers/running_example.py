"""The small network that the whole book follows.

Two dense layers with a ReLU between them, ``relu(x @ w1 + b1) @ w2 + b2``: five Relax operators, small enough to
print at every stage of the compilation, and with something to fuse.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R

__all__ = [
    "BATCH",
    "HIDDEN",
    "INPUTS",
    "MLP",
    "OUTPUTS",
    "SHAPES",
    "arguments",
    "as_tensors",
    "mlp",
    "reference",
]

BATCH, INPUTS, HIDDEN, OUTPUTS = 8, 64, 128, 10

SHAPES: dict[str, tuple[int, ...]] = {
    "x": (BATCH, INPUTS),
    "w1": (INPUTS, HIDDEN),
    "b1": (HIDDEN,),
    "w2": (HIDDEN, OUTPUTS),
    "b2": (OUTPUTS,),
}


@I.ir_module
class MLP:
    """The network with a batch of 8, written in TVMScript."""

    @R.function
    def main(
        x: R.Tensor((8, 64), "float32"),
        w1: R.Tensor((64, 128), "float32"),
        b1: R.Tensor((128,), "float32"),
        w2: R.Tensor((128, 10), "float32"),
        b2: R.Tensor((10,), "float32"),
    ) -> R.Tensor((8, 10), "float32"):
        with R.dataflow():
            h0 = R.matmul(x, w1)
            h1 = R.add(h0, b1)
            h2 = R.nn.relu(h1)
            h3 = R.matmul(h2, w2)
            y = R.add(h3, b2)
            R.output(y)
        return y


def mlp(batch: int | str = BATCH) -> tvm.IRModule:
    """The same network, made with a BlockBuilder.

    Parameters
    ----------
    batch : int or str
        The first dimension of ``x``; a name makes it symbolic, to be known only at run time.

    Returns
    -------
    tvm.IRModule
        For ``batch=8`` structurally equal to `MLP`.
    """
    rows = tirx.Var(batch, "int64") if isinstance(batch, str) else batch
    shapes = SHAPES | {"x": (rows, INPUTS)}
    params = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()]
    x, w1, b1, w2, b2 = params
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            h0 = builder.emit(relax.op.matmul(x, w1), "h0")
            h1 = builder.emit(relax.op.add(h0, b1), "h1")
            h2 = builder.emit(relax.op.nn.relu(h1), "h2")
            h3 = builder.emit(relax.op.matmul(h2, w2), "h3")
            y = builder.emit_output(relax.op.add(h3, b2), "y")
        builder.emit_func_output(y)
    return builder.finalize()


def arguments(seed: int = 0, batch: int = BATCH) -> list[np.ndarray]:
    """Random arguments ``x, w1, b1, w2, b2``.

    Returns
    -------
    list of numpy.ndarray
        float32, standard normal, of the shapes in `SHAPES`; the same for the same seed.
    """
    rng = np.random.default_rng(seed)
    shapes = SHAPES | {"x": (batch, INPUTS)}
    return [rng.standard_normal(shape).astype("float32") for shape in shapes.values()]


def reference(x: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray) -> np.ndarray:
    """What the network computes, by numpy alone.

    Returns
    -------
    numpy.ndarray
        Shape ``(batch, 10)``, float32.
    """
    return np.maximum(x @ w1 + b1, 0) @ w2 + b2


def as_tensors(args: list[np.ndarray], device: tvm.runtime.Device | None = None) -> list[tvm.runtime.Tensor]:
    """Copies of numpy arrays as tensors of TVM, in memory that is aligned as kernels want it."""
    return [tvm.runtime.tensor(arg, device or tvm.cpu()) for arg in args]
