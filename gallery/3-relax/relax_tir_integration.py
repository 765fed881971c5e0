"""
How Relax calls TIR, and everything else
========================================

The family of `call_tir`, argument order, symbolic arguments, calls in place,
packed functions, gradients, and what a wrong call does.
"""

# %% cell: setup
import contextlib

import numpy as np
import tvm
from tvm import ir, relax, te, tirx, topi
from tvm.relax import analysis
from tvm.relax import transform as tf
from tvm.relax.training.utils import register_te_gradient
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.passes import record
from tvm_deepdive_helpers.running_example import as_tensors

FOUR = relax.TensorType((4,), "float32")
X = np.arange(4, dtype="float32")
ONES = np.ones(4, "float32")


def machine(mod):
    return relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())


def run(mod, *arrays, name="main"):
    """Build for the CPU and call one function; numpy in, numpy out."""
    result = machine(mod)[name](*as_tensors(list(arrays)))
    if isinstance(result, tvm.runtime.Tensor):
        return result.numpy()
    return [item.numpy() for item in result]


# %% cell: family
FAMILY = [
    "relax.call_tir",
    "relax.call_tir_inplace",
    "relax.call_tir_with_grad",
    "relax.call_dps_packed",
    "relax.call_pure_packed",
    "relax.call_inplace_packed",
    "relax.call_builtin_with_ctx",
    "relax.call_py_func",
]
ATTRIBUTES = ["FPurity", "FNormalize", "FValidate"]


def attribute(name, key):
    """Attribute of an operator; None if it has none."""
    with contextlib.suppress(tvm.error.InternalError):
        return ir.Op.get(name).get_attr(key)


print(f"{'':28}", *(f"{a:11}" for a in ATTRIBUTES))
for name in FAMILY:
    values = [attribute(name, key) for key in ATTRIBUTES]
    row = [str(values[0])] + ["yes" if v else "-" for v in values[1:]]
    print(f"{name:28}", *(f"{v:11}" for v in row))

# %% check
assert attribute("relax.call_dps_packed", "FValidate") is None
assert attribute("relax.call_builtin_with_ctx", "FPurity") in (False, 0)

# %% cell: kernel


@I.ir_module
class Module:
    @T.prim_func(s_tir=True)
    def saxpy(
        A: T.Buffer((4,), "float32"),
        B: T.Buffer((4,), "float32"),
        factor: T.float32,
        C: T.Buffer((4,), "float32"),
    ):
        for i in range(4):
            with T.sblock("C"):
                v = T.axis.spatial(4, i)
                C[v] = A[v] - factor * B[v]

    @R.function
    def main(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float32")):
        z = R.call_tir(
            Module.saxpy,
            (x, y, T.float32(2)),
            out_ty=R.Tensor((4,), "float32"),
        )
        return z


print(run(Module, X, ONES))
call = Module["main"].body.blocks[0].bindings[0].value
print("op:     ", call.op.name)
print("args:   ", [type(a).__name__ for a in call.args])
print("ty_args:", list(call.ty_args))
print("type of the callee:", call.args[0].ty)

# %% check
np.testing.assert_array_equal(run(Module, X, ONES), X - 2 * ONES)

# %% cell: rewritten
rewritten = tf.CallTIRRewrite()(Module)
show(rewritten["main"], keep="alloc|cls.saxpy|return", context=0)

# %% cell: order
fig, _ = boxes_and_arrows(
    {
        "x": (0, 0),
        "y": (1, 0),
        "two": (2, 0),
        "out": (3, 0),
        "A": (0, 1),
        "B": (1, 1),
        "f": (2, 1),
        "C": (3, 1),
        "z": (3, 2),
    },
    {
        ("x", "A"): "",
        ("y", "B"): "",
        ("two", "f"): "",
        ("out", "C"): "allocate",
        ("C", "z"): "return",
    },
    labels={
        "x": "x",
        "y": "y",
        "two": "T.float32(2)",
        "out": "out_ty",
        "A": "A: T.Buffer",
        "B": "B: T.Buffer",
        "f": "factor: T.float32",
        "C": "C: T.Buffer",
        "z": "z",
    },
    colors={
        "out": "vermilion",
        "C": "vermilion",
        "z": "vermilion",
        "two": "green",
        "f": "green",
    },
    title="call_tir above, parameters of the PrimFunc below",
)
alt(
    fig,
    "x, y and the scalar of the argument tuple lead one by one to the"
    " parameters A, B and factor. out_ty leads by allocation to the last"
    " parameter C, which is returned as z.",
)

# %% cell: wrong-calls


def module_with(arguments, out_ty):
    """A function that calls the kernel above with these arguments."""
    x, y = relax.Var("x", FOUR), relax.Var("y", FOUR)
    builder = relax.BlockBuilder()
    kernel = builder.add_func(Module["saxpy"], "saxpy")
    with builder.function("main", [x, y]):
        args = arguments(x, y, tirx.FloatImm("float32", 2))
        z = builder.emit(relax.op.call_tir(kernel, args, out_ty))
        builder.emit_func_output(z)
    return builder.finalize()


def verdict(step, *args):
    try:
        step(*args)
        return "ok"
    except (ValueError, TypeError, tvm.error.InternalError) as problem:
        return type(problem).__name__


WRONG = {
    "right": (lambda x, y, f: (x, y, f), FOUR),
    "x and y exchanged": (lambda x, y, f: (y, x, f), FOUR),
    "result too long": (
        lambda x, y, f: (x, y, f),
        relax.TensorType((8,), "float32"),
    ),
    "result of int32": (
        lambda x, y, f: (x, y, f),
        relax.TensorType((4,), "int32"),
    ),
    "scalar forgotten": (lambda x, y, f: (x, y), FOUR),
    "scalar second": (lambda x, y, f: (x, f, y), FOUR),
    "output passed too": (lambda x, y, f: (x, y, f, x), FOUR),
    "two results": (lambda x, y, f: (x, y, f), [FOUR, FOUR]),
    "no shape": (
        lambda x, y, f: (x, y, f),
        relax.TensorType(dtype="float32", ndim=1),
    ),
}
print(f"{'':18}builder        well_formed  compile     result")
results = {}
for name, (arguments, out_ty) in WRONG.items():
    with quiet():
        row = [verdict(module_with, arguments, out_ty)]
        if row[0] == "ok":
            mod = module_with(arguments, out_ty)
            row.append(verdict(analysis.well_formed, mod))
            row.append(verdict(tvm.compile, mod, "llvm"))
            if row[-1] == "ok":
                row.append(run(mod, X, ONES).astype(int))
    results[name] = row
    row = [str(item) for item in row] + ["", "", ""]
    print(f"{name:18}{row[0]:15}{row[1]:13}{row[2]:12}{row[3]}")

# %% check
assert [n for n, row in results.items() if len(row) == 4] == [
    "right",
    "x and y exchanged",
]

# %% cell: wrong-messages
long = module_with(*WRONG["result too long"])
with expect_error(ValueError, keep="must be compatible"):
    analysis.well_formed(long)
with quiet(), expect_error(ValueError, keep="Argument 3 type mismatch"):
    tf.CallTIRRewrite()(long)

# %% cell: symbolic


@I.ir_module
class Symbolic:
    @T.prim_func(s_tir=True)
    def steps(step: T.int64, a: T.handle):
        m = T.int64()
        A = T.match_buffer(a, (m,), "float32")
        for i in range(m):
            with T.sblock("A"):
                v = T.axis.spatial(m, i)
                A[v] = T.Cast("float32", v * step)

    @R.function
    def main(x: R.Tensor(("n",), "float32")):
        n = T.int64()
        z = R.call_tir(
            Symbolic.steps, (n,), out_ty=R.Tensor((n + 2,), "float32")
        )
        return z


for length in (2, 3):
    print(length, run(Symbolic, np.zeros(length, "float32")))
with expect_error(TypeError, match="tir_vars"):
    relax.op.call_tir(call.args[0], (), out_ty=FOUR, tir_vars=None)

# %% check
assert list(run(Symbolic, np.zeros(3, "float32"))) == [0, 3, 6, 9, 12]

# %% cell: same-length


@I.ir_module
class SameLength:
    @T.prim_func(s_tir=True)
    def add(a: T.handle, b: T.handle, c: T.handle):
        n = T.int64()
        A = T.match_buffer(a, (n,), "float32")
        B = T.match_buffer(b, (n,), "float32")
        C = T.match_buffer(c, (n,), "float32")
        for i in range(n):
            with T.sblock("C"):
                v = T.axis.spatial(n, i)
                C[v] = A[v] + B[v]

    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")):
        n = T.int64()
        z = R.call_tir(
            SameLength.add, (x, y), out_ty=R.Tensor((n,), "float32")
        )
        return z


analysis.well_formed(SameLength)
vm = machine(SameLength)
print(vm["main"](*as_tensors([X, ONES])).numpy())
with expect_error(ValueError, match="Mismatched B.shape"):
    vm["main"](*as_tensors([X, np.ones(6, "float32")]))

# %% cell: emit-te


def scaled(a, factor):
    return te.compute(a.shape, lambda i: a[i] * factor, name="scaled")


builder = relax.BlockBuilder()
x = relax.Var("x", FOUR)
with builder.function("main", [x]):
    a = builder.emit_te(scaled, x, tirx.const(2.0, "float32"))
    b = builder.emit_te(scaled, a, tirx.const(2.0, "float32"))
    c = builder.emit_te(scaled, b, tirx.const(3.0, "float32"))
    d = builder.emit_te(topi.split, c, 2, primfunc_name_hint="halves")
    call = builder.call_te(topi.exp, c)
    print("call_te returns a", type(call).__name__, "and binds nothing")
    builder.emit_func_output(d)
made = builder.finalize()
for binding in made["main"].body.blocks[0].bindings:
    print(binding.var.name, "=", binding.value)
print(sorted(g.name_hint for g in made.get_global_vars()))

# %% check
halves = run(made, X)
np.testing.assert_allclose(np.concatenate(halves), X * 12)

# %% cell: lost-symbol


def times_length(explicit):
    """y * n, where n is the length of x."""
    n = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n,), "float32"))
    y = relax.Var("y", FOUR)

    def kernel(a, length):
        real = tirx.Cast("float32", length)
        return te.compute((4,), lambda i: a[i] * real, name="times")

    builder = relax.BlockBuilder()
    with builder.function("main", [x, y]):
        if explicit:
            z = builder.emit_te(kernel, y, n)
        else:
            z = builder.emit_te(lambda a: kernel(a, n), y)
        builder.emit_func_output(z)
    return builder.finalize()


with expect_error(tvm.error.InternalError, match="not passed in"):
    tvm.compile(times_length(explicit=False), "llvm")
passed = times_length(explicit=True)
show(passed["main"], keep="call_tir", context=0)
print(run(passed, np.zeros(7, "float32"), ONES))

# %% check
assert list(run(passed, np.zeros(7, "float32"), ONES)) == [7] * 4

# %% cell: inplace


@I.ir_module
class InPlace:
    @T.prim_func(s_tir=True)
    def inc(A: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("A"):
                v = T.axis.spatial(4, i)
                A[v] = A[v] + T.float32(1)

    @R.function
    def dead(x: R.Tensor((4,), "float32")):
        y = R.multiply(x, x)
        z = R.call_tir_inplace(
            InPlace.inc, (y,), [0], out_ty=R.Tensor((4,), "float32")
        )
        return z

    @R.function
    def alive(x: R.Tensor((4,), "float32")):
        y = R.multiply(x, x)
        z = R.call_tir_inplace(
            InPlace.inc, (y,), [0], out_ty=R.Tensor((4,), "float32")
        )
        return R.subtract(z, y)

    @R.function
    def parameter(x: R.Tensor((4,), "float32")):
        z = R.call_tir_inplace(
            InPlace.inc, (x,), [0], out_ty=R.Tensor((4,), "float32")
        )
        return z


analysis.well_formed(InPlace)
print("dead: ", run(InPlace, X, name="dead"))
print("alive:", run(InPlace, X, name="alive"), "should be ones")
vm, mine = machine(InPlace), as_tensors([X])[0]
for _ in range(2):
    vm["parameter"](mine)
print("my argument after two calls:", mine.numpy())

# %% check
assert list(run(InPlace, X, name="alive")) == [0] * 4
assert list(mine.numpy()) == list(X + 2)

# %% cell: inplace-rules


def in_place(indices, out_ty):
    x = relax.Var("x", FOUR)
    builder = relax.BlockBuilder()
    kernel = builder.add_func(InPlace["inc"], "inc")
    with builder.function("main", [x]):
        call = relax.op.call_tir_inplace(kernel, (x,), indices, out_ty)
        builder.emit_func_output(builder.emit(call))


for indices, out_ty, words in (
    ([1], FOUR, "out of range"),
    ([-1], FOUR, "At least one index"),
    ([0, 0], [FOUR, FOUR], "must be unique"),
    ([0, -1], FOUR, "for each output"),
    ([0], relax.TensorType((2,), "float32"), "identical shape and dtype"),
):
    with quiet(), expect_error(ValueError, match=words, max_lines=1):
        in_place(indices, out_ty)

# %% cell: packed
seen = []


def note(name, *args):
    seen.append(f"{name}({', '.join(type(a).__name__ for a in args)})")


@tvm.register_global_func("deepdive.half")
def half(x, out):
    note("half", x, out)
    out.copyfrom(x.numpy() / 2)


@tvm.register_global_func("deepdive.negate")
def negate(x):
    note("negate", x)
    return tvm.runtime.tensor(-x.numpy())


@tvm.register_global_func("deepdive.with_context")
def with_context(context, x):
    note("with_context", context, x)
    return x


@tvm.register_global_func("deepdive.clear")
def clear(x):
    note("clear", x)
    x.copyfrom(np.zeros(4, "float32"))
    return x


@I.ir_module
class Packed:
    @R.function
    def dps(x: R.Tensor((4,), "float32")):
        return R.call_dps_packed(
            "deepdive.half", (x,), out_ty=R.Tensor((4,), "float32")
        )

    @R.function
    def pure(x: R.Tensor((4,), "float32")):
        return R.call_pure_packed(
            "deepdive.negate", x, ty_args=R.Tensor((4,), "float32")
        )

    @R.function(pure=False)
    def context(x: R.Tensor((4,), "float32")):
        return R.call_builtin_with_ctx(
            "deepdive.with_context", (x,), ty_args=R.Tensor((4,), "float32")
        )

    @R.function
    def inplace(x: R.Tensor((4,), "float32")):
        y = R.multiply(x, x)
        return R.call_inplace_packed(
            "deepdive.clear",
            y,
            inplace_indices=0,
            ty_args=R.Tensor((4,), "float32"),
        )


vm = machine(Packed)
for name in ("dps", "pure", "context", "inplace"):
    seen.clear()
    result = vm[name](*as_tensors([X])).numpy()
    print(f"{name:8} {seen[0]:31} -> {result}")

# %% cell: promise


@tvm.register_global_func("deepdive.liar")
def liar(x):
    return tvm.runtime.tensor(np.zeros((2, 2), "int32"))


@I.ir_module
class Promise:
    @R.function
    def returned(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return R.call_pure_packed(
            "deepdive.liar", x, ty_args=R.Tensor((4,), "float32")
        )

    @R.function
    def used(x: R.Tensor((4,), "float32")):
        a = R.call_pure_packed(
            "deepdive.liar", x, ty_args=R.Tensor((4,), "float32")
        )
        return R.add(a, x)

    @R.function
    def checked(x: R.Tensor((4,), "float32")):
        a = R.call_pure_packed("deepdive.liar", x, ty_args=R.Any)
        b = R.match_cast(a, R.Tensor((4,), "float32"))
        return b


vm = machine(Promise)
lie = vm["returned"](*as_tensors([X]))
print("returned:", lie.shape, lie.dtype)
with expect_error(ValueError, match="Mismatched a.ndim"):
    vm["used"](*as_tensors([X]))
with expect_error(ValueError, match="ErrorContext"):
    vm["checked"](*as_tensors([X]))

# %% cell: who-removes


@I.ir_module
class All:
    @T.prim_func(private=True, s_tir=True)
    def inc(A: T.Buffer((4,), "float32")):
        T.evaluate(0)

    @T.prim_func(private=True, s_tir=True)
    def copy(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        T.evaluate(0)

    @R.function(pure=False)
    def main(x: R.Tensor((4,), "float32")):
        a = R.call_tir(All.copy, (x,), out_ty=R.Tensor((4,), "float32"))
        b = R.call_tir_inplace(
            All.inc, (a,), [0], out_ty=R.Tensor((4,), "float32")
        )
        c = R.call_dps_packed(
            "deepdive.half", (b,), out_ty=R.Tensor((4,), "float32")
        )
        d = R.call_pure_packed(
            "deepdive.negate", c, ty_args=R.Tensor((4,), "float32")
        )
        e = R.call_inplace_packed(
            "deepdive.clear",
            d,
            inplace_indices=0,
            ty_args=R.Tensor((4,), "float32"),
        )
        f = R.call_builtin_with_ctx(
            "deepdive.with_context", (e,), ty_args=R.Tensor((4,), "float32")
        )
        g = R.call_packed(
            "deepdive.negate", f, ty_args=R.Tensor((4,), "float32")
        )
        return g


with record(keep_scripts=True) as recorder, tvm.target.Target("llvm"):
    final = relax.get_pipeline("default")(All)
steps = [row for row in recorder.rows if row.depth == 2]
gone = {}
for op in [*FAMILY, "relax.call_packed"]:
    text = f"R.{op.removeprefix('relax.')}("
    with_it = [row.name for row in steps if text in row.script]
    if text not in All.script():
        continue
    last = with_it[-1] if with_it else None
    names = [row.name for row in steps]
    at = names.index(last) + 1 if last else 0
    gone[op] = names[at] if at < len(names) else "the code generator"
    print(f"{op:28} removed by {gone[op]}")

# %% check
assert gone["relax.call_tir"] == gone["relax.call_dps_packed"]
assert gone["relax.call_pure_packed"] == "RemovePurityChecking"

# %% cell: patterns
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((4, 4), "float32"))
v = relax.Var("v", FOUR)
with builder.function("main", [x, v]):
    for call in (
        relax.op.exp(x),
        relax.op.add(x, v),
        relax.op.permute_dims(x),
        relax.op.sum(x, axis=1),
        relax.op.matmul(x, x),
        relax.op.nn.softmax(x),
    ):
        last = builder.emit(call)
    builder.emit_func_output(last)
annotated = tf.AnnotateTIROpPattern()(tf.LegalizeOps()(builder.finalize()))
for var, func in sorted(
    annotated.functions_items(), key=lambda item: item[0].name_hint
):
    if isinstance(func, tirx.PrimFunc):
        print(f"{var.name_hint:10} op_pattern {func.attrs['op_pattern']}")

# %% cell: gradient


@I.ir_module
class Loss:
    @R.function
    def main(x: R.Tensor((3, 4), "float32"), w: R.Tensor((4, 2), "float32")):
        with R.dataflow():
            h = R.matmul(x, w)
            r = R.nn.relu(h)
            loss = R.sum(r)
            R.output(loss)
        return loss


differentiated = tf.Gradient("main")(Loss)
show(differentiated["main_adjoint"], keep=" = R|return", context=0)
with_gradient = [
    name
    for name in ir.Op.list_op_names()
    if name.startswith("relax.") and attribute(name, "FPrimalGradient")
]
glue("gradients", len(with_gradient))

# %% check
rng = np.random.default_rng(0)
x_, w_ = (rng.standard_normal(s).astype("float32") for s in ((3, 4), (4, 2)))
loss, grads = machine(differentiated)["main_adjoint"](*as_tensors([x_, w_]))
mask = (x_ @ w_ > 0).astype("float32")
np.testing.assert_allclose(loss.numpy(), np.maximum(x_ @ w_, 0).sum(), 1e-5)
np.testing.assert_allclose(grads[0].numpy(), mask @ w_.T, 1e-5, 1e-5)
np.testing.assert_allclose(grads[1].numpy(), x_.T @ mask, 1e-5, 1e-5)

# %% cell: gradient-errors


@R.function
def no_block(x: R.Tensor((4,), "float32")):
    return R.sum(x)


@R.function
def no_scalar(x: R.Tensor((4,), "float32")):
    with R.dataflow():
        y = R.exp(x)
        R.output(y)
    return y


@R.function
def no_rule(x: R.Tensor((4,), "float32")):
    with R.dataflow():
        y = R.sum(R.erf(x))
        R.output(y)
    return y


for function, words in (
    (no_block, "only support one dataflow block"),
    (no_scalar, "must be a float scalar"),
    (no_rule, "FPrimalGradient has not been registered"),
):
    name = function.attrs["global_symbol"]
    with quiet(), expect_error(tvm.error.InternalError, match=words):
        tf.Gradient(name)(tvm.IRModule({name: function}))

with quiet(), expect_error(tvm.error.InternalError, match="call_tir op"):
    tf.Gradient("main")(tf.LegalizeOps()(Loss))

# %% cell: own-gradient


@register_te_gradient("deepdive.cube")
def cube_gradient(output_grad, x, scale=1.0):
    return te.compute(
        x.shape, lambda i: output_grad[i] * 3 * x[i] * x[i] * scale
    )


def cube(x):
    return te.compute(x.shape, lambda i: x[i] * x[i] * x[i], name="cube")


def with_own_gradient(kernel, name, **options):
    x = relax.Var("x", FOUR)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(
                builder.call_te_with_grad(
                    kernel, x, te_grad_name=name, te_grad_kwargs=options
                )
            )
            loss = builder.emit_output(relax.op.sum(y))
        builder.emit_func_output(loss)
    return builder.finalize()


cubed = with_own_gradient(cube, "deepdive.cube")
both = tf.Gradient("main")(cubed)
show(both["main"], keep="call_tir", context=0)
show(both["main_adjoint"], keep="call_tir", context=0)
with expect_error(tvm.error.InternalError, max_lines=1):
    tvm.compile(both, "llvm")
del both["main"]
loss, grads = machine(both)["main_adjoint"](*as_tensors([X]))
print("loss", loss.numpy(), "gradient", grads[0].numpy())

# %% check
np.testing.assert_allclose(grads[0].numpy(), 3 * X**2)

# %% cell: solution-two


@I.ir_module
class TwoResults:
    @T.prim_func(s_tir=True)
    def sum_and_difference(
        A: T.Buffer((4,), "float32"),
        B: T.Buffer((4,), "float32"),
        S: T.Buffer((4,), "float32"),
        D: T.Buffer((4,), "float32"),
    ):
        for i in range(4):
            with T.sblock("S"):
                v = T.axis.spatial(4, i)
                S[v] = A[v] + B[v]
            with T.sblock("D"):
                v = T.axis.spatial(4, i)
                D[v] = A[v] - B[v]

    @R.function
    def main(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float32")):
        pair = R.call_tir(
            TwoResults.sum_and_difference,
            (x, y),
            out_ty=[R.Tensor((4,), "float32"), R.Tensor((4,), "float32")],
        )
        return R.multiply(pair[0], pair[1])


print(run(TwoResults, X, ONES), "=", X**2 - ONES)

# %% check
np.testing.assert_array_equal(run(TwoResults, X, ONES), X**2 - ONES)

# %% cell: solution-straight


@register_te_gradient("deepdive.straight")
def straight(output_grad, x):
    return te.compute(x.shape, lambda i: output_grad[i])


def rounded(x):
    return te.compute(x.shape, lambda i: tirx.round(x[i]), name="rounded")


quantised = tf.Gradient("main")(
    with_own_gradient(rounded, "deepdive.straight")
)
del quantised["main"]
loss, grads = machine(quantised)["main_adjoint"](*as_tensors([X + 0.4]))
print("loss", loss.numpy(), "gradient", grads[0].numpy())

# %% check
assert list(grads[0].numpy()) == [1] * 4 and loss.numpy() == X.sum()
