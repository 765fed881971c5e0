"""Practice project "A custom operator": copy this file, and fill it in.

The brief stands on the page 7-practice/custom-operator. Check your file with

    make practice PROJECT=custom_operator SOLUTION=my_op.py
"""

import tvm
from tvm import ir, relax, sym, te, tirx
from tvm.script import relax as R

NAME = "relax.swiglu"


def infer_swiglu(call, builder):
    """Return the type of the result, or raise TypeError or ValueError."""
    raise NotImplementedError


def legalize_swiglu(builder, call):
    """Return what takes the place of the call."""
    raise NotImplementedError


def swiglu(x, beta=1.0):
    """Return a call of the operator; `beta` is its attribute."""
    raise NotImplementedError


# Here the compiler must be told which hooks belong to NAME, and the two `R`
# that there is a function `swiglu`.


if __name__ == "__main__":
    # A place to try things out: python my_op.py
    x = relax.Var("x", relax.TensorType((tirx.Var("n", "int64"), 8)))
    print(swiglu(x))
