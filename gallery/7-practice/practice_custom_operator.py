"""
Practice: a custom operator
===========================

The reference solution of the project: the gate of many language models,
``swiglu``, as a Relax operator, from its type to a fused kernel.
"""

# %% cell: setup
import numpy as np
import tvm
from matplotlib.patches import Rectangle
from tvm import ir, relax, sym, te, tirx
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, figures
from tvm_deepdive_helpers.figures import COLORS, MUTED, tint
from tvm_deepdive_helpers.ir import show

NAME = "relax.swiglu"


# %% cell: infer
def infer_swiglu(call, builder):
    """The type of the result: the last dimension is halved."""
    if len(call.args) != 1:
        raise ValueError(f"swiglu takes 1 tensor, not {len(call.args)}")
    ty = call.args[0].ty
    if not isinstance(ty, relax.TensorType):
        raise TypeError(f"swiglu takes a tensor, not {ty}")
    if ty.dtype is not None and "float" not in str(ty.dtype):
        raise TypeError(
            f"swiglu takes floating-point numbers, not {ty.dtype}"
        )
    if ty.ndim == 0:
        raise ValueError("swiglu halves the last dimension: there is none")
    if ty.shape is None:
        return relax.TensorType(ndim=ty.ndim, dtype=ty.dtype)
    *outer, last = ty.shape
    analyzer = sym.Analyzer()
    if not analyzer.can_prove(last % 2 == 0):
        raise ValueError(f"the last dimension of {ty} must be even")
    return relax.TensorType((*outer, analyzer.simplify(last // 2)), ty.dtype)


# %% cell: legalise
def legalize_swiglu(builder, call):
    """One kernel of one loop nest."""
    beta = call.attrs["beta"]

    def swiglu_te(x):
        *outer, last = x.shape
        half = tirx.floordiv(last, 2)

        def value(*i):
            *rows, column = i
            gate = x(*rows, column)
            up = x(*rows, column + half)
            return gate * tirx.sigmoid(tirx.const(beta, x.dtype) * gate) * up

        return te.compute((*outer, half), value, name="swiglu")

    return builder.call_te(
        swiglu_te, call.args[0], primfunc_name_hint="swiglu"
    )


# %% cell: register
ir.register_op_attr(NAME, "FInferType", infer_swiglu)
ir.register_op_attr(NAME, "FPurity", True)
ir.register_op_attr(NAME, "FLegalize", legalize_swiglu)


def swiglu(x, beta=1.0):
    """gate * sigmoid(beta * gate) * up, where x is gate and up."""
    attrs = ir.DictAttrs({"beta": float(beta)})
    return relax.Call(ir.Op.get(NAME), [x], attrs)


R.swiglu = swiglu  # the `R` of Python files
tvm.relax.script.parser.swiglu = swiglu  # the `R` of printed text

# %%
# The solution ends here; what follows shows what it does.

# %% cell: halves
fig, ax = figures.new(height=2.1)
ROWS = (
    (0, 1.1, "g", "gate", 1.72, "navy"),
    (4, 1.1, "u", "up", 1.72, "green"),
    (2, 0, "y", "gate * sigmoid(beta * gate) * up", -0.18, "vermilion"),
)
for left, bottom, letter, label, height, color in ROWS:
    for column in range(4):
        style = {"facecolor": tint(color), "edgecolor": COLORS[color]}
        ax.add_patch(Rectangle((left + column, bottom), 1, 0.5, **style))
        ax.text(
            left + column + 0.5,
            bottom + 0.23,
            f"{letter}{column}",
            ha="center",
            va="center",
        )
    ax.text(left + 2, height, label, ha="center", va="center")
for start in (1.5, 5.5):
    style = {"arrowstyle": "->", "color": MUTED}
    ax.annotate("", (3.5, 0.52), (start, 1.08), arrowprops=style)
ax.text(-0.2, 1.35, "a row of x", ha="right", va="center")
ax.text(-0.2, 0.25, "a row of the result", ha="right", va="center")
ax.set(xlim=(-2.6, 8.2), ylim=(-0.35, 1.9))
ax.axis("off")
figures.alt(
    fig,
    "A row of x has eight columns: the first four are the gate, the last "
    "four are up. The row of the result has four columns; each is made of "
    "one column of the gate and one of up.",
)


# %% cell: types
def program(body, *types):
    """A module whose `main` returns `body(builder, *parameters)`."""
    params = [relax.Var(f"x{i}", ty) for i, ty in enumerate(types)]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(body(builder, *params)))
        builder.emit_func_output(out)
    return builder.finalize()


def result_type(ty):
    x = relax.Var("x", ty)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        try:
            return builder.emit(swiglu(x)).ty
        finally:  # so that a refused call leaves no builder behind
            builder.emit_func_output(x)


n, h = tirx.Var("n", "int64"), tirx.Var("h", "int64")
Tensor = relax.TensorType
for ty in (
    Tensor((4, 16), "float32"),
    Tensor((n, 2 * h), "float16"),
    Tensor((n, 4 * h + 2), "float32"),
    Tensor(ndim=2, dtype="float32"),
):
    print(f"{ty!s:44} {result_type(ty)}")

# %% check
assert str(result_type(Tensor((n, 2 * h)))) == (
    'R.Tensor((n, h), dtype="float32")'
)

# %% cell: refused
with expect_error(ValueError, match="even"):
    result_type(Tensor((4, 7), "float32"))
with expect_error(ValueError, match="even"):
    result_type(Tensor((4, h), "float32"))
with expect_error(TypeError, match="int32"):
    result_type(Tensor((4, 8), "int32"))

# %% cell: not-defined
alone = program(lambda b, x: swiglu(x), Tensor((n, 2 * h)))
print(alone["main"].ret_ty)
with expect_error(ValueError, match="h is not defined"):
    relax.analysis.well_formed(alone)

# %% cell: layer
layer = program(
    lambda b, x, w: relax.op.matmul(b.emit(swiglu(x)), w),
    Tensor((n, 2 * h)),
    Tensor((h, 3)),
)
relax.analysis.well_formed(layer)
show(layer["main"])

# %% cell: kernel
legal = relax.transform.LegalizeOps()(layer)
show(legal["swiglu"])


# %% cell: numbers
def expected(x, beta=1.0):
    gate, up = np.split(x.astype("float64"), 2, axis=-1)
    return gate / (1 + np.exp(-beta * gate)) * up


vm = relax.VirtualMachine(tvm.compile(layer, target="llvm"), tvm.cpu())
rng = np.random.default_rng(0)
for rows, half in ((1, 4), (5, 7), (300, 64)):
    x = rng.normal(0, 2, (rows, 2 * half)).astype("float32")
    w = rng.normal(0, 1, (half, 3)).astype("float32")
    got = vm["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w)).numpy()
    print(got.shape, np.allclose(got, expected(x) @ w, atol=1e-3))

# %% check
assert np.allclose(got, expected(x) @ w, atol=1e-3)


# %% cell: fused
def chain(b, x):
    y = b.emit(swiglu(b.emit(relax.op.nn.relu(x))))
    return relax.op.multiply(y, relax.const(3.0))


def kernels(mod):
    return {
        var.name_hint: function
        for var, function in mod.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }


mod = program(chain, Tensor((n, 8)))
legal = relax.transform.LegalizeOps()(mod)
annotated = relax.transform.AnnotateTIROpPattern()(legal)
for name, function in kernels(annotated).items():
    print(f"{name:10} op_pattern = {function.attrs['op_pattern']}")
print(*kernels(relax.get_pipeline("zero")(mod)))

# %% check
assert kernels(annotated)["swiglu"].attrs["op_pattern"] == 2
assert len(kernels(relax.get_pipeline("zero")(mod))) == 1


# %% cell: solution-relax
def legalize_with_relax(builder, call):
    gate = builder.emit(relax.op.split(call.args[0], 2, axis=-1))
    gate, up = (builder.emit(gate[i]) for i in range(2))
    beta = relax.const(call.attrs["beta"], call.ty.dtype.dtype)
    inner = builder.emit(relax.op.multiply(beta, gate))
    inner = builder.emit(relax.op.sigmoid(inner))
    return relax.op.multiply(builder.emit(relax.op.multiply(gate, inner)), up)


def nests(mod):
    """Loop nests of the kernel that fusion makes: blocks but the root."""
    (fused,) = kernels(relax.get_pipeline("zero")(mod)).values()
    return fused.script().count("T.sblock(") - 1


counts = {"one kernel": nests(mod)}
operator = ir.Op.get(NAME)
operator.reset_attr("FLegalize")
ir.register_op_attr(NAME, "FLegalize", legalize_with_relax)
counts["Relax operators"] = nests(mod)
fused = relax.get_pipeline("zero")(mod)
vm = relax.VirtualMachine(tvm.compile(fused, target="llvm"), tvm.cpu())
operator.reset_attr("FLegalize")
ir.register_op_attr(NAME, "FLegalize", legalize_swiglu)
for name, number in counts.items():
    print(f"{name:16} {number} loop nests in the fused kernel")

# %% check
x = rng.normal(0, 2, (5, 8)).astype("float32")
got = vm["main"](tvm.runtime.tensor(x)).numpy()
assert np.allclose(got, 3 * expected(np.maximum(x, 0)), atol=1e-4)
assert counts["one kernel"] == 3 < counts["Relax operators"]


# %% cell: solution-gradient
def swiglu_gradient(var, call, dy, builder):
    """One expression: the gradient of x, both halves."""
    x = call.args[0]
    dtype = x.ty.dtype.dtype
    beta = relax.const(call.attrs["beta"], dtype)
    one = relax.const(1.0, dtype)
    halves = builder.emit(relax.op.split(x, 2, axis=-1))
    gate, up = (builder.emit(halves[i]) for i in range(2))
    s = builder.emit(relax.op.sigmoid(relax.op.multiply(beta, gate)))
    silu = builder.emit(relax.op.multiply(gate, s))
    # d silu / d gate = s + beta * silu * (1 - s)
    rest = relax.op.multiply(beta, relax.op.multiply(silu, one - s))
    slope = builder.emit(relax.op.add(s, rest))
    d_gate = relax.op.multiply(relax.op.multiply(dy, up), slope)
    return [relax.op.concat([d_gate, relax.op.multiply(dy, silu)], axis=-1)]


relax.op.base.register_gradient(NAME, swiglu_gradient)
loss = program(
    lambda b, x: relax.op.sum(b.emit(swiglu(x, beta=1.7))),
    Tensor((3, 8), "float64"),
)
adjoint = relax.transform.Gradient("main")(loss)
vm = relax.VirtualMachine(tvm.compile(adjoint, target="llvm"), tvm.cpu())
x = rng.normal(0, 2, (3, 8))
_, (dx,) = vm["main_adjoint"](tvm.runtime.tensor(x))
step = 1e-6
numeric = np.zeros_like(x)
for place in np.ndindex(*x.shape):
    plus, minus = x.copy(), x.copy()
    plus[place] += step
    minus[place] -= step
    change = expected(plus, 1.7).sum() - expected(minus, 1.7).sum()
    numeric[place] = change / (2 * step)
print("as by differences:", np.allclose(dx.numpy(), numeric, atol=1e-6))

# %% check
assert np.allclose(dx.numpy(), numeric, atol=1e-6)
