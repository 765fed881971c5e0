"""
Type inference: how a call gets its type
========================================

The inference rule of one operator, calls of functions and foreign functions,
where inference gives up, and what wrong annotations do.
"""

# %%
import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax import TensorType as Tensor
from tvm.relax import op
from tvm.relax.analysis import derive_call_ret_type
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.running_example import as_tensors

b, k, m, n = (tirx.Var(name, "int64") for name in "bkmn")


def text(ty):
    """A type as one prints it, a little shorter."""
    out = str(ty).replace("R.", "").replace("dtype=", "")
    return out.replace("float", "f").replace('"', "").replace("T.i", "i")


def run(module, *shapes):
    """Shape of the result of main on tensors of ones."""
    vm = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    arrays = [np.ones(shape, "float32") for shape in shapes]
    return vm["main"](*as_tensors(arrays)).shape


# %% cell: rule
x = relax.Var("x", Tensor((n, 4), "float32"))
w = relax.Var("w", Tensor((4, 2), "float32"))
call = op.matmul(x, w)
print(call, "| type missing:", call.ty.is_missing())

infer = ir.Op.get("relax.matmul").get_attr("FInferType")
builder = relax.BlockBuilder()
print(type(infer).__name__, "returned", infer(call, builder))
print("type still missing:", call.ty.is_missing())
print("after normalize:   ", builder.normalize(call).ty)

# %% check
with_rule = [
    name
    for name in map(str, ir.Op.list_op_names())
    if name.startswith("relax.")
    and ir.Op.get(name).get_attr("FInferType") is not None
]
glue("with_rule", len(with_rule))

# %% cell: known


def matmul_type(left, right, **attrs):
    x, w = relax.Var("x", left), relax.Var("w", right)
    return infer(op.matmul(x, w, **attrs), builder)


for left, right in (
    ((n, 4), (4, 2)),
    ((4,), (4, 2)),
    ((4,), (4,)),
    ((b, n, 4), (4, 2)),
    ((b, n, 4), (1, 4, 2)),
    ((b, n, 4), (k, 4, 2)),
    ((n, k), (m, 2)),
):
    ty = matmul_type(Tensor(left), Tensor(right))
    names = [text(relax.ShapeExpr(shape))[6:-1] for shape in (left, right)]
    print(f"{' x '.join(names):22} {text(ty)}")

# %% cell: less
for left, attrs in (
    (Tensor(ndim=2), {}),
    (Tensor(), {}),
    (Tensor((n, 4), None), {}),
    (Tensor((n, 4), None), {"out_dtype": "float32"}),
):
    ty = matmul_type(left, Tensor((4, 2)), **attrs)
    print(f"{text(left):20} {attrs.get('out_dtype', '-'):8} {text(ty)}")

# %% cell: refused
with expect_error(ValueError, match="reduction length"):
    matmul_type(Tensor((n, 4)), Tensor((5, 2)))
with expect_error(ValueError, match="k and k"):
    matmul_type(Tensor((n, k)), Tensor((k + 1, 2)))
with expect_error(TypeError, match="same datatype"):
    matmul_type(Tensor((n, 4), "float16"), Tensor((4, 2), "float32"))

# %% cell: broadcast
add_rule = ir.Op.get("relax.add").get_attr("FInferType")
DIMS = [1, 4, 8, n, m, n + 1]
names = ["1", "4", "8", "n", "m", "n + 1"]
print(7 * " " + "".join(f"{name:>9}" for name in names))
for left, name in zip(DIMS, names, strict=True):
    row = f"{name:7}"
    for right in DIMS:
        x, y = (relax.Var("x", Tensor((d,))) for d in (left, right))
        try:
            shape = add_rule(op.add(x, y), builder).shape
            cell = text(shape.values[0]) if shape else "?"
            cell = cell.replace("int64(", "").replace(")", "")
        except ValueError:
            cell = "refused"
        row += f"{cell:>9}"
    print(row)

# %% cell: unproved


@I.ir_module
class Unproved:
    @R.function
    def main(
        x: R.Tensor(("n", "k"), "float32"), w: R.Tensor(("m", 2), "float32")
    ):
        y = R.matmul(x, w)
        return y


x_data = np.arange(12, dtype="float32").reshape(3, 4)
w_data = np.arange(10, dtype="float32").reshape(5, 2)
vm = relax.VirtualMachine(tvm.compile(Unproved, "llvm"), tvm.cpu())
result = vm["main"](*as_tensors([x_data, w_data])).numpy()
print("(3, 4) x (5, 2) ->", result.shape)
print("used the first four rows:", (result == x_data @ w_data[:4]).all())

# %% check
assert (result == x_data @ w_data[:4]).all()

# %% cell: signature
f_type = relax.FuncType([Tensor((n, m)), Tensor((m, 8))], Tensor((n, 8)))
f = relax.Var("f", f_type)


def called_with(*types):
    args = [relax.Var("a", ty) for ty in types]
    return derive_call_ret_type(f_type, relax.Call(f, args), builder)


print("f:", *map(text, f_type.params), "->", text(f_type.ret))
for types in (
    (Tensor((3, 5)), Tensor((5, 8))),
    (Tensor((k + 1, 5)), Tensor((5, 8))),
    (Tensor(ndim=2), Tensor((5, 8))),
    (Tensor((3, 5)), Tensor(ndim=2)),
    (Tensor((3, 5)), Tensor((6, 8))),
):
    print(f"{', '.join(map(text, types)):45} {text(called_with(*types))}")
with expect_error(ValueError, match="type mismatch"):
    called_with(Tensor((3, 5)), Tensor((5, 9)))
with expect_error(ValueError, match="type mismatch"):
    called_with(Tensor((3, 5)), Tensor(dtype=None))

# %% cell: five-six


@I.ir_module
class FiveSix:
    @R.function(private=True)
    def f(
        x: R.Tensor(("n", "m"), "float32"), w: R.Tensor(("m", 8), "float32")
    ) -> R.Tensor(("n", 8), "float32"):
        return R.matmul(x, w)

    @R.function
    def main(x: R.Tensor((3, 5), "float32"), w: R.Tensor((6, 8), "float32")):
        cls = FiveSix
        y = cls.f(x, w)
        return y


print("accepted, with type", FiveSix["main"].ret_ty)
with expect_error(RuntimeError, match="match_cast error", max_lines=3):
    run(FiveSix, (3, 5), (6, 8))

# %% cell: forward


@I.ir_module
class CalleeFirst:
    @R.function(private=True)
    def double(x: R.Tensor((4,), "float32")):
        return R.add(x, x)

    @R.function
    def main(x: R.Tensor((4,), "float32")):
        cls = CalleeFirst
        return cls.double(x)


@I.ir_module
class CallerFirst:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        cls = CallerFirst
        return cls.double(x)

    @R.function(private=True)
    def double(x: R.Tensor((4,), "float32")):
        return R.add(x, x)


for made in (CalleeFirst, CallerFirst):
    print(text(made["main"].ret_ty), "| double:", text(made["double"].ret_ty))

# %% cell: foreign
x = relax.Var("x", Tensor((n,)))
foreign = relax.ExternFunc("my.function")
for ty_args in ([], [Tensor((n,))], [Tensor((n,)), relax.ShapeType([n])]):
    call = relax.Call(foreign, [x], ty_args=ty_args)
    print(len(ty_args), "ty_args:", text(builder.normalize(call).ty))


@tvm_ffi.register_global_func("book.derive_double")
def derive_double(call, builder):
    """The result is twice as long as the first argument."""
    ty = call.args[0].ty
    return Tensor((ty.shape[0] * 2,), ty.dtype)


rule = ir.EnvFunc.get("book.derive_double")
double = relax.FuncType.opaque_func(derive_func=rule)
call = relax.Call(relax.Var("double", double), [x])
print("own rule:", text(builder.normalize(call).ty))

# %% cell: string-bug
by_name = relax.FuncType.opaque_func(derive_func="book.derive_double")
print("asked for book.derive_double, got", by_name.derive_func.name)

# %% cell: gives-up
s = relax.Var("s", relax.ShapeType(ndim=3))
for call in (
    op.unique(x),
    op.nonzero(x),
    op.reshape(x, s),
    op.exp(op.reshape(x, s)),
    op.add(x, relax.Var("y", Tensor((m,)))),
):
    bb = relax.BlockBuilder()
    with bb.testing_scope([n, m]):
        print(f"{text(call):26} {text(bb.emit(call).ty)}")

# %% cell: cost


@I.ir_module
class Lost:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")):
        z = R.add(x, y)
        return z


@I.ir_module
class Found:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")):
        n = T.int64()
        same = R.match_cast(y, R.Tensor((n,), "float32"))
        z = R.add(x, same)
        return z


with expect_error(tvm.error.InternalError, match="cannot emit", max_lines=3):
    run(Lost, (3,), (3,))
print("with a match_cast:", run(Found, (3,), (3,)))
with expect_error(ValueError, match="Mismatched same", max_lines=3):
    run(Found, (3,), (2,))

# %% cell: regain
bb = relax.BlockBuilder()
with bb.function("f", [x]):
    found = bb.emit(op.unique(x))
    named = bb.match_cast(found, Tensor((m,)))
    out = bb.emit(op.add(named, named))
    bb.emit_func_output(out)
print(text(found.ty), "->", text(named.ty), "->", text(out.ty))

# %% cell: wrong-return


@I.ir_module
class WrongReturn:
    @R.function
    def main(x: R.Tensor((2,), "float32")) -> R.Tensor((3,), "float32"):
        return R.add(x, x)


before = WrongReturn["main"]
print("well-formed:", relax.analysis.check_well_formed(WrongReturn))
print("declared:", text(before.ret_ty), "| body:", text(before.body.ty))
after = relax.transform.LegalizeOps()(WrongReturn)["main"]
print("declared after LegalizeOps:", text(after.ret_ty))
print("result of the compiled function:", run(WrongReturn, (2,)))

# %% cell: wrong-caller


@I.ir_module
class Misled:
    @R.function(private=True)
    def f(x: R.Tensor((2,), "float32")) -> R.Tensor((3,), "float32"):
        return R.add(x, x)

    @R.function
    def main(x: R.Tensor((2,), "float32"), y: R.Tensor((3,), "float32")):
        cls = Misled
        z = cls.f(x)
        return R.add(z, y)


for binding in Misled["main"].body.blocks[0].bindings:
    print(binding.var, "=", binding.value, ":", text(binding.var.ty))
with expect_error(ValueError, match="expected 3", max_lines=4):
    run(Misled, (2,), (3,))

# %% cell: wrong-binding


@I.ir_module
class NoCast:
    @R.function
    def main(x: R.Tensor(("n", "m"), "float32")):
        y: R.Tensor((2, 3), "float32") = R.add(x, x)
        return y


print("believed:", text(NoCast["main"].ret_ty))
print("well-formed:", relax.analysis.check_well_formed(NoCast))
print("result for (4, 5):", run(NoCast, (4, 5)))


@I.ir_module
class Cast:
    @R.function
    def main(x: R.Tensor(("n", "m"), "float32")):
        y = R.match_cast(R.add(x, x), R.Tensor((2, 3), "float32"))
        return y


with expect_error(RuntimeError, match="match_cast", max_lines=2):
    run(Cast, (4, 5))

# %% check
assert run(Cast, (2, 3)) == (2, 3) and run(NoCast, (4, 5)) == (4, 5)
assert after.ret_ty == Tensor((2,), "float32")

# %% cell: solution-rule
ir._ffi_api.RegisterOp("book.outer", "outer product of two vectors")
outer = ir.Op.get("book.outer")
outer.set_num_inputs(2)
outer.add_argument("a", "Tensor", "vector")
outer.add_argument("b", "Tensor", "vector")


def infer_outer(call, builder):
    a, b = (arg.ty for arg in call.args)
    for arg in call.args:
        if not isinstance(arg.ty, Tensor) or arg.ty.ndim not in (1, -1):
            raise ValueError(f"outer wants vectors, {arg} is {arg.ty}")
    dtype = a.dtype if a.dtype == b.dtype else None
    if a.shape is None or b.shape is None:
        return Tensor(ndim=2, dtype=dtype)
    return Tensor((a.shape[0], b.shape[0]), dtype)


ir.register_op_attr("book.outer", "FInferType", infer_outer)
ir.register_op_attr("book.outer", "FPurity", True)
for left, right in (
    (Tensor((n,)), Tensor((8,))),
    (Tensor(ndim=1), Tensor((8,))),
    (Tensor(), Tensor((8,))),
):
    args = [relax.Var("a", left), relax.Var("b", right)]
    print(text(builder.normalize(relax.Call(outer, args)).ty))
with expect_error(ValueError, match="wants vectors", max_lines=1):
    args = [relax.Var("a", Tensor((2, 2))), relax.Var("b", Tensor((8,)))]
    builder.normalize(relax.Call(outer, args))

# %% cell: solution-symbol


@I.ir_module
class SameSymbol:
    @R.function
    def main(
        x: R.Tensor(("n", "k"), "float32"), w: R.Tensor(("k", 2), "float32")
    ):
        y = R.matmul(x, w)
        return y


print(run(SameSymbol, (3, 4), (4, 2)))
with expect_error(RuntimeError, match="previous populated", max_lines=2):
    run(SameSymbol, (3, 4), (5, 2))
