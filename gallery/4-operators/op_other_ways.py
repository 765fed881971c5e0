"""
Nine ways without a new operator
================================

The same function softcap as existing operators, a tensor expression, a
hand-written kernel, a foreign function, a foreign code generator, a rewrite
of a pattern and a function of an nn.Module; a table of what each can do.
"""

# %% cell: setup
import numpy as np
import tvm
import tvm.relax.script.parser
import tvm_ffi
from tvm import ir, relax, te, tirx
from tvm.relax.dpl import is_const, is_op, rewrite_call, wildcard
from tvm.relax.frontend import nn
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import layered_graph
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.native import quiet

rng = np.random.default_rng(0)
data = rng.normal(0, 4, (5, 8)).astype("float32")


def reference(a):
    return 3 * np.tanh(np.maximum(a, 0) / 3)


def program(softcap):
    """sum(softcap(relu(x))) for any number of rows."""
    n = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n, 8), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.relu(x))
            y = softcap(builder, y)
            y = builder.emit_output(relax.op.sum(y))
        builder.emit_func_output(y)
    return builder.finalize()


WAYS = {}

# %% cell: operators


def with_operators(builder, x):
    cap = relax.const(3.0, "float32")
    scaled = builder.emit(relax.op.divide(x, cap))
    return builder.emit(
        relax.op.multiply(cap, builder.emit(relax.op.tanh(scaled)))
    )


WAYS["existing operators"] = program(with_operators)
show(WAYS["existing operators"]["main"])

# %% cell: rewrite
x_any, by, cap = wildcard(), is_const(), is_const()
pattern = is_op("relax.multiply")(
    cap, is_op("relax.tanh")(is_op("relax.divide")(x_any, by))
)


def to_sigmoid(match, matches):
    """c * tanh(x / c) = c * (2 * sigmoid(2 * x / c) - 1)"""
    x, c, two = matches[x_any], matches[by], relax.const(2.0, "float32")
    s = relax.op.sigmoid(relax.op.divide(relax.op.multiply(two, x), c))
    one = relax.const(1.0, "float32")
    return relax.op.multiply(
        c, relax.op.subtract(relax.op.multiply(two, s), one)
    )


before = WAYS["existing operators"]
after = rewrite_call(pattern, to_sigmoid, before["main"])
WAYS["rewrite"] = tvm.IRModule({"main": after})
show(after, keep="sigmoid|tanh|subtract", context=0)

# %% cell: emit-te


def softcap_te(x, cap):
    c = tirx.const(cap, x.dtype)
    return te.compute(
        x.shape, lambda *i: c * tirx.tanh(x(*i) / c), name="softcap"
    )


WAYS["emit_te"] = program(lambda b, x: b.emit_te(softcap_te, x, 3.0))
show(WAYS["emit_te"]["main"], keep="call_tir", context=0)

# %% cell: module


class Softcap(nn.Module):
    def forward(self, x: nn.Tensor):
        return nn.op.tensor_expr_op(softcap_te, "softcap", [x, 3.0])


class Model(nn.Module):
    def __init__(self):
        self.softcap = Softcap()

    def main(self, x: nn.Tensor):
        return nn.op.sum(self.softcap(nn.op.relu(x)))


exported, _ = Model().export_tvm(
    {"main": {"x": nn.spec.Tensor(["n", 8], "float32")}}
)
WAYS["nn.Module"] = exported
show(exported["main"], keep="softcap", context=0)

# %% cell: te-gradient


@relax.training.utils.register_te_gradient("softcap_gradient")
def softcap_gradient_te(dy, x, cap):
    c = tirx.const(cap, x.dtype)

    def slope(*i):
        t = tirx.tanh(x(*i) / c)
        return dy(*i) * (tirx.const(1, x.dtype) - t * t)

    return te.compute(x.shape, slope, name="softcap_gradient")


def with_gradient(builder, x):
    return builder.emit(
        builder.call_te_with_grad(
            softcap_te,
            x,
            3.0,
            te_grad_name="softcap_gradient",
            te_grad_kwargs={"cap": 3.0},
        )
    )


WAYS["call_te_with_grad"] = program(with_gradient)
show(WAYS["call_te_with_grad"]["main"], keep="softcap", context=0)

# %% cell: call-tir


@T.prim_func(private=True, s_tir=True)
def softcap_kernel(x: T.handle, y: T.handle):
    n = T.int64()
    X = T.match_buffer(x, (n, T.int64(8)), "float32")
    Y = T.match_buffer(y, (n, T.int64(8)), "float32")
    for i, j in T.grid(n, T.int64(8)):
        with T.sblock("softcap"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = T.float32(3) * T.tanh(X[vi, vj] / T.float32(3))


def with_kernel(builder, x):
    kernel = builder.add_func(softcap_kernel, "softcap")
    return builder.emit(relax.call_tir(kernel, (x,), out_ty=x.ty))


WAYS["call_tir"] = program(with_kernel)
show(WAYS["call_tir"]["main"], keep="call_tir", context=0)

# %% cell: dps-packed


@tvm.register_global_func("deepdive.softcap")
def softcap_numpy(x, cap, out):
    out.copyfrom(cap * np.tanh(x.numpy() / cap))


def with_dps(builder, x):
    return builder.emit(
        relax.op.call_dps_packed(
            "deepdive.softcap", (x, relax.prim_value(3.0)), out_ty=x.ty
        )
    )


WAYS["call_dps_packed"] = program(with_dps)
show(WAYS["call_dps_packed"]["main"], keep="packed", context=0)

# %% cell: pure-packed


@tvm.register_global_func("deepdive.softcap_value")
def softcap_value(x, cap):
    return tvm.runtime.tensor(cap * np.tanh(x.numpy() / cap))


def with_pure(builder, x):
    return builder.emit(
        relax.op.call_pure_packed(
            "deepdive.softcap_value", x, relax.prim_value(3.0), ty_args=x.ty
        )
    )


WAYS["call_pure_packed"] = program(with_pure)
show(WAYS["call_pure_packed"]["main"], keep="packed", context=0)

# %% cell: missing
nobody = program(
    lambda b, x: b.emit(
        relax.op.call_dps_packed("deepdive.nobody", x, out_ty=x.ty)
    )
)
library = tvm.compile(nobody, target="llvm")
with expect_error(tvm.error.InternalError, match="Cannot find"):
    relax.VirtualMachine(library, tvm.cpu())

# %% cell: byoc
partition = relax.transform.FuseOpsByPattern(
    [("deepdive.softcap", pattern)], annotate_codegen=True
)
parted = partition(WAYS["existing operators"])
show(parted["main"], keep="deepdive", context=0)


@tvm.register_global_func("relax.ext.deepdive")
def deepdive_codegen(functions, options, constant_names):
    """Called with all functions for "deepdive"; returns modules."""
    for function in functions:
        symbol = str(function.attrs["global_symbol"])
        print("code generator:", symbol)

        def device(x, out):  # stands for code of the device
            out.copyfrom(3 * np.tanh(x.numpy() / 3))

        tvm.register_global_func(symbol, device, override=True)
    return []


WAYS["code generator"] = relax.transform.RunCodegen()(parted)
show(WAYS["code generator"]["main"], keep="deepdive", context=0)

# %%
# The operator of the page before, for the table.


def softcap_gradient(var, call, dy, builder):
    t = relax.op.divide(var, relax.const(3.0, "float32"))
    slope = relax.op.subtract(relax.const(1.0), relax.op.multiply(t, t))
    return [relax.op.multiply(dy, slope)]


for hook, value in {
    "FInferType": lambda call, builder: call.args[0].ty,
    "FPurity": True,
    "FLegalize": lambda builder, call: builder.call_te(
        softcap_te, call.args[0], call.attrs["cap"]
    ),
    "FPrimalGradient": softcap_gradient,
}.items():
    ir.register_op_attr("relax.softcap", hook, value)


def softcap_operator(x, cap=30.0):
    attrs = ir.DictAttrs({"cap": cap})
    return relax.Call(ir.Op.get("relax.softcap"), [x], attrs)


tvm.relax.script.parser.softcap = softcap_operator
operator = program(lambda b, x: b.emit(softcap_operator(x, 3.0)))
WAYS = {"new operator": operator, **WAYS}

# %% cell: table


def nodes(mod, kind):
    """All expressions of a class in `main`."""
    found = []
    relax.analysis.post_order_visit(
        mod["main"],
        lambda e: found.append(e) if isinstance(e, kind) else None,
    )
    return found


def answer(test, mod):
    try:
        return "yes" if test(mod) else "no"
    except (tvm.error.InternalError, tvm.error.DiagnosticError):
        return "no"


def one_kernel(mod):
    return len(nodes(relax.get_pipeline("zero")(mod), relax.Call)) == 1


def any_rows(mod):
    """One build, right for two batch sizes."""
    vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
    sums = [vm["main"](tvm.runtime.tensor(data[:k])).numpy() for k in (5, 2)]
    wants = [reference(data[:k]).sum() for k in (5, 2)]
    return np.allclose(sums, wants, rtol=1e-4)


def parses(mod):
    again = tvm.script.from_source(mod.script())
    return tvm_ffi.structural_equal(again, mod)


def self_contained(mod):
    return not nodes(relax.get_pipeline("zero")(mod), relax.ExternFunc)


TESTS = {
    "one kernel": one_kernel,
    "any rows": any_rows,
    "gradient": relax.transform.Gradient("main"),
    "parses": parses,
    "self-contained": self_contained,
}
print(f"{'':20}", *TESTS, sep="  ")
table = {}
for way, mod in WAYS.items():
    with quiet():
        row = {name: answer(test, mod) for name, test in TESTS.items()}
    table[way] = row
    print(f"{way:20}", *(f"{w:{len(n)}}" for n, w in row.items()), sep="  ")

# %% check
fused = {way for way, row in table.items() if row["one kernel"] == "yes"}
assert fused == {
    "new operator",
    "existing operators",
    "emit_te",
    "call_tir",
    "rewrite",
    "nn.Module",
}
alone = {w for w, row in table.items() if row["self-contained"] == "no"}
assert alone == {"call_dps_packed", "call_pure_packed", "code generator"}

# %% cell: with-grad-build
with expect_error(
    tvm.error.InternalError, match="call_tir_with_grad", max_lines=3
):
    tvm.compile(WAYS["call_te_with_grad"], target="llvm")
adjoint = relax.transform.Gradient("main")(WAYS["call_te_with_grad"])
for name in ("main", "main_adjoint"):
    found = "call_tir_with_grad" in adjoint[name].script()
    print(f"{name:13} still has call_tir_with_grad: {found}")

# %% cell: which
fig, _ = layered_graph(
    {
        "loops": "loops, or code that\nexists elsewhere?",
        "known": "a combination of\nexisting operators?",
        "model": "in your model, or\nin one you import?",
        "often": "in many programs, in text,\nwith a gradient?",
        "formula": "a formula for\neach element?",
        "several": "replaces several\noperators at once?",
        "allocates": "who allocates\nthe result?",
        "ops": "write them",
        "rewrite": "rewrite_call",
        "operator": "new operator",
        "te": "emit_te,\ntensor_expr_op",
        "tir": "call_tir",
        "byoc": "FuseOpsByPattern and\na code generator",
        "dps": "call_dps_packed",
        "pure": "call_pure_packed",
    },
    {
        ("loops", "known"): "loops",
        ("loops", "several"): "exists",
        ("known", "model"): "yes",
        ("known", "often"): "no",
        ("model", "ops"): "own",
        ("model", "rewrite"): "imported",
        ("often", "operator"): "yes",
        ("often", "formula"): "no",
        ("formula", "te"): "yes",
        ("formula", "tir"): "no",
        ("several", "byoc"): "yes",
        ("several", "allocates"): "no",
        ("allocates", "dps"): "TVM",
        ("allocates", "pure"): "the code",
    },
    colors=dict.fromkeys(
        ("ops", "rewrite", "operator", "te", "tir", "byoc", "dps", "pure"),
        "green",
    ),
    title="Which way",
)

# %% cell: solution-plain


@relax.expr_functor.mutator
class ForgetGradient(relax.PyExprMutator):
    """call_tir_with_grad becomes call_tir."""

    def visit_call_(self, call):
        call = super().visit_call_(call)
        if call.op != ir.Op.get("relax.call_tir_with_grad"):
            return call
        (out,) = call.ty_args
        return relax.call_tir(call.args[0], call.args[1], out_ty=out)


mod = WAYS["call_te_with_grad"]
plain = ForgetGradient(mod).visit_expr(mod["main"])
mod = tvm.IRModule({**mod.functions, mod.get_global_var("main"): plain})
print(any_rows(mod), one_kernel(mod))

# %% cell: solution-tanh


def rational_tanh(builder, call):
    """x (27 + x²) / (27 + 9 x²), cut off at 3, where it is 1."""

    def tanh_te(x):
        def element(*i):
            c = tirx.max(tirx.min(x(*i), tirx.const(3, x.dtype)), -3.0)
            return c * (c * c + 27.0) / (c * c * 9.0 + 27.0)

        return te.compute(x.shape, element, name="tanh")

    return builder.call_te(tanh_te, *call.args, primfunc_name_hint="tanh")


source = WAYS["existing operators"]
approximate = relax.transform.LegalizeOps({"relax.tanh": rational_tanh})
for name, mod in (("default", source), ("own rule", approximate(source))):
    vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
    value = float(vm["main"](tvm.runtime.tensor(data)).numpy())
    print(f"{name:9} {value:.2f}")

# %% check
assert any_rows(source) and 0.001 < abs(value - reference(data).sum()) < 2
