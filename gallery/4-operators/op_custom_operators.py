"""
A new Relax operator from Python
================================

The operator softcap, hook by hook: type inference, purity, legalisation,
printing and parsing, fusion and gradient, and what fails without each hook.
"""

# %% cell: setup
import gc

import numpy as np
import tvm
import tvm.relax.script.parser
import tvm_ffi
from tvm import ir, relax, te, tirx
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.native import quiet

NAME = "relax.softcap"


# %% cell: who-asks
fig, _ = boxes_and_arrows(
    {
        "emit": (0, 0),
        "infer": (1, 0),
        "check": (0, 1),
        "purity": (1, 1),
        "print": (0, 2),
        "name": (1, 2),
        "gradient": (0, 3),
        "primal": (1, 3),
        "legalise": (0, 4),
        "flegalize": (1, 4),
        "fuse": (0, 5),
        "pattern": (1, 5),
    },
    [
        ("emit", "infer"),
        ("check", "purity"),
        ("print", "name"),
        ("gradient", "primal"),
        ("legalise", "flegalize"),
        ("fuse", "pattern"),
    ],
    labels={
        "emit": "BlockBuilder.emit",
        "infer": "FInferType",
        "check": "well_formed, dead code,\ncommon subexpressions …",
        "purity": "FPurity",
        "print": "printer and parser",
        "name": "the name relax.softcap\nthe function R.softcap",
        "gradient": "relax.transform.Gradient",
        "primal": "FPrimalGradient",
        "legalise": "LegalizeOps",
        "flegalize": "FLegalize",
        "fuse": "FuseOps",
        "pattern": "op_pattern of the kernel\n(computed, not declared)",
    },
    colors={
        "infer": "green",
        "purity": "green",
        "name": "orange",
        "primal": "green",
        "flegalize": "green",
        "pattern": "grey",
    },
    title="Who asks an operator for what",
)

# %% cell: unknown
with expect_error(AttributeError, match="not registered"):
    ir.Op.get(NAME)

# %% cell: infer
seen = []


def infer_softcap(call, builder):
    """Type of the result; `call.args` have types already."""
    (x,) = call.args
    if not isinstance(x.ty, relax.TensorType):
        raise TypeError(f"softcap wants a tensor, got {x.ty}")
    seen.append(str(x.ty))
    return x.ty


ir.register_op_attr(NAME, "FInferType", infer_softcap)
op = ir.Op.get(NAME)
op.set_num_inputs(1)
op.add_argument("x", "Tensor", "The input tensor.")
print(op.name, op.num_inputs, repr(op.attrs_type_key))

# %% cell: constructor


def softcap(x, cap=30.0):
    """cap * tanh(x / cap): the identity near 0, never beyond cap."""
    return relax.Call(op, [x], ir.DictAttrs({"cap": float(cap)}))


n = tirx.Var("n", "int64")
x = relax.Var("x", relax.TensorType((n, 8), "float32"))
call = softcap(x, cap=3)
print("before emit:", call.ty)


def program(operator):
    """relu, then the operator, then a sum: some neighbours for it."""
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(x))
            y = builder.emit(operator(y, cap=3))
            y = builder.emit_output(relax.op.sum(y))
        builder.emit_func_output(y)
    return builder.finalize()


mod = program(softcap)
print("after emit: ", seen[0])
show(mod["main"])

# %% cell: infer-refuses
builder = relax.BlockBuilder()
s = relax.Var("s", relax.ShapeType(ndim=2))
with builder.function("f", [x, s]):
    with expect_error(TypeError, match="wants a tensor"):
        builder.emit(softcap(s))
    with expect_error(ValueError, match="too many values"):
        builder.emit(relax.Call(op, [x, x], call.attrs))
    builder.emit_func_output(x)

# %% cell: purity
with expect_error(tvm.error.InternalError, match="purity"):
    relax.analysis.well_formed(mod)
ir.register_op_attr(NAME, "FPurity", True)
before = len(seen)
relax.analysis.well_formed(mod)
print("FInferType was called", len(seen) - before, "time more")

# %% cell: not-lowered
with expect_error(tvm.error.InternalError, match="cannot emit"):
    tvm.compile(mod, target="llvm")

# %% cell: legalise


def legalize_softcap(builder, call):
    cap = call.attrs["cap"]

    def softcap_te(x):
        c = tirx.const(cap, x.dtype)
        return te.compute(
            x.shape, lambda *i: c * tirx.tanh(x(*i) / c), name="softcap"
        )

    return builder.call_te(
        softcap_te, call.args[0], primfunc_name_hint="softcap"
    )


ir.register_op_attr(NAME, "FLegalize", legalize_softcap)
legal = relax.transform.LegalizeOps()(mod)
show(legal["main"], keep="softcap", context=0)
show(legal["softcap"])

# %% cell: run
data = np.random.default_rng(0).normal(0, 4, (5, 8)).astype("float32")
vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
for rows in (5, 2):
    got = vm["main"](tvm.runtime.tensor(data[:rows])).numpy()
    want = (3 * np.tanh(np.maximum(data[:rows], 0) / 3)).sum()
    print(rows, "rows:", np.isclose(got, want, rtol=1e-4))

# %% check
assert np.isclose(got, want, rtol=1e-4)

# %% cell: unknown-shape
two = relax.Var("two", relax.TensorType(ndim=2, dtype="float32"))
builder = relax.BlockBuilder()
with builder.function("main", [two]):
    builder.emit_func_output(builder.emit(softcap(two)))
vague = builder.finalize()
show(relax.transform.LegalizeOps()(vague)["main"], keep="softcap", context=0)

# %% cell: parse-fails
text = mod.script()
with expect_error(tvm.error.DiagnosticError, match="no attribute 'softcap'"):
    tvm.script.from_source(text)

# %%
with quiet():
    gc.collect()  # builders that errors left behind

# %% cell: parse
R.softcap = softcap  # the `R` of this file
tvm.relax.script.parser.softcap = softcap  # the `R` of from_source
tvm.ir.assert_structural_equal(tvm.script.from_source(text), mod)


@I.ir_module
class FromFile:
    @R.function
    def main(x: R.Tensor(("n", 8), "float32")):
        with R.dataflow():
            y = R.nn.relu(x)
            z = R.softcap(y, 3)
            out = R.sum(z)
            R.output(out)
        return out


print("same as built:", tvm_ffi.structural_equal(FromFile, mod))
print(R is tvm.relax.script.parser)

# %% cell: fuse
annotated = relax.transform.AnnotateTIROpPattern()(legal)
for name in ("relu", "softcap", "sum"):
    print(f"{name:8} op_pattern = {annotated[name].attrs['op_pattern']}")
fused = relax.get_pipeline("zero")(mod)
print(*sorted(v.name_hint for v in fused.get_global_vars()))

# %% cell: gradient-missing
with expect_error(tvm.error.InternalError, match="FPrimalGradient"):
    relax.transform.Gradient("main")(mod)

# %% cell: gradient


def softcap_gradient(var, call, dy, builder):
    """d/dx cap * tanh(x / cap) = 1 - (y / cap)**2; `var` is y."""
    t = relax.op.divide(var, relax.const(call.attrs["cap"], "float32"))
    slope = relax.op.subtract(relax.const(1.0), relax.op.multiply(t, t))
    return [relax.op.multiply(dy, slope)]


relax.op.base.register_gradient(NAME, softcap_gradient)
adjoint = relax.transform.Gradient("main")(mod)
show(adjoint["main_adjoint"], keep="softcap|divide|subtract", context=0)
vm = relax.VirtualMachine(tvm.compile(adjoint, target="llvm"), tvm.cpu())
_, (dx,) = vm["main_adjoint"](tvm.runtime.tensor(data))
step = 1e-3


def total(a):
    return 3 * np.tanh(np.maximum(a, 0) / 3)


numeric = (total(data + step) - total(data - step)) / (2 * step)
error = np.abs(dx.numpy() - numeric)
print("equals the numeric gradient:", error.max() < 0.01)

# %% check
slope = np.where(data > 0, 1 - np.tanh(data / 3) ** 2, 0)
assert np.allclose(dx.numpy(), slope, atol=1e-4)

# %% cell: partials
op.reset_attr("FPrimalGradient")
relax.op.base.register_gradient(NAME, lambda var, call, dy, bb: [])
with expect_error(tvm.error.InternalError, match="partials number"):
    relax.transform.Gradient("main")(mod)

# %% cell: without
HOOKS = {
    "FInferType": infer_softcap,
    "FPurity": True,
    "FLegalize": legalize_softcap,
    "FPrimalGradient": softcap_gradient,
}


def variant(missing):
    """An operator like softcap with one thing left out."""
    short = f"softcap_{missing.lower()}"
    name = short if missing == "prefix" else f"relax.{short}"
    for hook, value in HOOKS.items():
        if hook != missing:
            ir.register_op_attr(name, hook, value)

    def construct(x, cap=30.0):
        attrs = ir.DictAttrs({"cap": float(cap)})
        return relax.Call(ir.Op.get(name), [x], attrs)

    if missing != "parser":
        setattr(tvm.relax.script.parser, short, construct)
    return construct


STATIONS = {
    "check": relax.analysis.well_formed,
    "parse": lambda m: tvm.script.from_source(m.script()),
    "dead code": relax.transform.DeadCodeElimination(),
    "gradient": relax.transform.Gradient("main"),
    "fuse": relax.get_pipeline("zero"),
    "compile": lambda m: tvm.compile(m, target="llvm"),
}
ERRORS = (tvm.error.InternalError, tvm.error.DiagnosticError, RuntimeError)
print(f"{'without':16}{'emit':7}", *(f"{s:10}" for s in STATIONS))
table = {}
for missing in (*HOOKS, "parser", "prefix"):
    with quiet():
        try:
            variant_mod = program(variant(missing))
        except ERRORS:
            table[missing] = ["fails"]
        else:
            table[missing] = ["ok"]
            for station in STATIONS.values():
                try:
                    station(variant_mod)
                    table[missing].append("ok")
                except ERRORS:
                    table[missing].append("fails")
    first, *rest = table[missing]
    print(f"{missing:16}{first:7}", *(f"{word:10}" for word in rest))

# %% check
assert table["FInferType"] == ["fails"]
assert table["FLegalize"] == ["ok"] * 6 + ["fails"]
assert table["FPrimalGradient"].index("fails") == 4
assert table["parser"].count("fails") == 1 and table["parser"][2] == "fails"

# %% cell: prefix
show(variant_mod["main"], keep="softcap", context=0)

# %% cell: twice
with expect_error(tvm.error.InternalError, match="same plevel=10"):
    ir.register_op_attr(NAME, "FPurity", True)
ir.register_op_attr(NAME, "FPurity", False, level=5)  # weaker: no effect
print(op.get_attr("FPurity"))
ir.register_op_attr(NAME, "FPurity", False, level=11)  # stronger: wins
print(op.get_attr("FPurity"))
op.reset_attr("FPurity")
ir.register_op_attr(NAME, "FPurity", True)

# %% cell: has-attr
for hook in ("FNormalize", "FValidate", "FCallPacked"):
    print(f"{hook:12}", op.has_attr(hook), op.get_attr(hook))

# %%
with quiet():
    gc.collect()  # builders that errors left behind

# %% cell: solution-outer


def infer_outer(call, builder):
    a, b = (arg.ty for arg in call.args)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError("outer wants two vectors")
    if a.shape is None or b.shape is None:
        return relax.TensorType(ndim=2, dtype=a.dtype)
    return relax.TensorType((*a.shape, *b.shape), a.dtype)


def legalize_outer(builder, call):
    def outer_te(a, b):
        return te.compute(
            (a.shape[0], b.shape[0]), lambda i, j: a[i] * b[j], "outer"
        )

    return builder.call_te(outer_te, *call.args)


for hook, value in {
    "FInferType": infer_outer,
    "FPurity": True,
    "FLegalize": legalize_outer,
}.items():
    ir.register_op_attr("relax.outer_product", hook, value)
a = relax.Var("a", relax.TensorType((n,), "float32"))
m = tirx.Var("m", "int64")
b = relax.Var("b", relax.TensorType((m,), "float32"))
builder = relax.BlockBuilder()
with builder.function("main", [a, b]):
    out = builder.emit(relax.Call(ir.Op.get("relax.outer_product"), [a, b]))
    print(out.ty)
    builder.emit_func_output(out)

# %% check
assert str(out.ty) == 'R.Tensor((n, m), dtype="float32")'
va, vb = (np.arange(k, dtype="float32") for k in (3, 4))
vm = relax.VirtualMachine(
    tvm.compile(builder.finalize(), target="llvm"), tvm.cpu()
)
got = vm["main"](*map(tvm.runtime.tensor, (va, vb))).numpy()
assert np.array_equal(got, np.outer(va, vb))

# %% cell: solution-validate


def validate_softcap(call):
    if call.attrs["cap"] <= 0:
        raise ValueError(f"cap must be positive, got {call.attrs['cap']}")


ir.register_op_attr(NAME, "FValidate", validate_softcap)
wrong = program(lambda x, cap: softcap(x, -cap))
print("built:", *(v.name_hint for v in wrong.get_global_vars()))
with expect_error(ValueError, match="cap must be positive"):
    relax.analysis.well_formed(wrong)
tvm.compile(wrong, target="llvm")
print("compiled")
