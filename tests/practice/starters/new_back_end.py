"""Practice: a new hardware back end. Copy this file, fill it in, and let the checks tell what is still wrong."""

import tvm
from tvm import relax, s_tir
from tvm.relax.dpl import is_op, wildcard
from tvm.relax.transform import FusionPattern
from tvm.script import tirx as T

from tvm_deepdive_helpers import toy_accelerator as toy

# toy.MACHINE, toy.BANKS, toy.COST, toy.TILE and toy.cost(program) are what you need. This makes the global functions
# toy.load, toy.store, toy.zero, toy.relu and toy.mma for `T.call_packed`.
toy.register_instructions()


# Stages 1 and 2: instructions


def program(m, k, n, relu):
    """y = x @ w, or y = relu(x @ w), as a list of instructions; x is m x k, w is k x n, all multiples of 8.

    The matrices are called "x", "w" and "y". See `Machine.run` for the form of each instruction.
    """
    raise NotImplementedError


# Stages 3 to 5: operators


def supported(context):
    """Whether the machine can do what a pattern matched; `context.annotated_expr` has the parts by name."""
    raise NotImplementedError


def patterns():
    """What the machine can do, as a list of `FusionPattern`."""
    x, w = wildcard(), wildcard()
    return [FusionPattern("toy.matmul", is_op("relax.matmul")(x, w), {"x": x, "w": w}, supported)]


def toy_codegen(regions, options, constant_names):
    """Register a Python function under the symbol of each region, which runs its program on `toy.MACHINE`."""
    raise NotImplementedError


tvm.register_global_func("relax.ext.toy", toy_codegen, override=True)


def offload(mod):
    """Hand to the machine what it can do, and leave the rest to TVM."""
    mod = relax.transform.FuseOpsByPattern(patterns(), annotate_codegen=True)(mod)
    raise NotImplementedError


# Stages 6 and 7: loops


@T.prim_func(s_tir=True)
def zero_description(acc: T.handle):
    C = T.match_buffer(acc, (8, 8), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads()
        T.writes(C[0:8, 0:8])
        for i, j in T.grid(8, 8):
            with T.sblock("zero"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = T.float32(0)


@T.prim_func(s_tir=True)
def zero_kernel(acc: T.handle):
    pitch = T.int32()
    C = T.match_buffer(acc, (8, 8), "float32", offset_factor=1, strides=[pitch, 1])
    with T.sblock("root"):
        T.reads()
        T.writes(C[0:8, 0:8])
        T.evaluate(T.call_packed("toy.zero", C.elem_offset, pitch))


s_tir.TensorIntrin.register("toy.zero", zero_description, zero_kernel, override=True)


def tensorize(func):
    """A schedule of `func`, a product whose block is called "C", that uses the machine where it can."""
    raise NotImplementedError
