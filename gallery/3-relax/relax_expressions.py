"""
Expressions of Relax: every node class and how to make it
=========================================================

The expression classes of the installed release with their fields, what calls
can call, and the traps of constants, tuples, scalars and equality.
"""

# %%
import gc
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue, nodes
from tvm_deepdive_helpers.figures import alt, boxes_and_arrows
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.running_example import as_tensors


def show(thing):
    """Print IR; lines that are too long for the page are broken."""
    text = thing if isinstance(thing, str) else script(thing)
    for line in text.splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


# %% cell: variables
n = tirx.Var("n", "int64")
x = relax.Var("x", R.Tensor((n, 4), "float32"))
y = relax.Var("y", R.Tensor((n, 4), "float32"))
lv = relax.DataflowVar("lv", R.Tensor((n, 4), "float32"))
pair = relax.Var("pair", R.Tuple(R.Tensor((n, 4), "float32"), R.Shape([n])))
flag = relax.Var("flag", ir.PrimType("bool"))

# %% cell: examples
function = relax.Function([x], relax.SeqExpr([], x), ret_ty=x.ty)
examples = {
    "x": x,
    "lv": lv,
    'GlobalVar("f")': relax.GlobalVar("f"),
    'Op.get("relax.add")': ir.Op.get("relax.add"),
    'ExternFunc("c_exp")': relax.ExternFunc("c_exp"),
    "const(1.5)": relax.const(1.5),
    "prim_value(3)": relax.prim_value(3),
    "prim_value(0.5)": relax.prim_value(0.5),
    'StringImm("mean")': ir.StringImm("mean"),
    "ShapeExpr([n, 4])": relax.ShapeExpr([n, 4]),
    "Tuple([x, n])": relax.Tuple([x, n]),
    "TupleGetItem(pair, 0)": relax.TupleGetItem(pair, 0),
    "op.add(x, y)": relax.op.add(x, y),
    "If(flag, x, y)": relax.If(flag, x, y),
    "SeqExpr([], x)": relax.SeqExpr([], x),
    "Function([x], …)": function,
}
for written, made in examples.items():
    key = nodes.node_class(type(made)).key
    ty = "missing" if made.ty.is_missing() else str(made.ty)
    for long, short in {
        "(span=None)": "",
        'dtype="float32"': "f32",
        '"float32"': "f32",
        "T.int64(4)": "4",
    }.items():
        ty = ty.replace(long, short)
    ty = ty if len(ty) < 34 else ty.partition("(")[0] + "(…)"
    print(f"{written:22}{key:23}{ty}")

# %% cell: fields
ELSEWHERE = {
    "ir.BaseFunc": "base class of functions",
    "ir.Constant": "base class of literals",
    "ir.OpaqueExpr": "base class, never in finished IR",
    "ir.TensorLoad": "an element of a buffer, in TIR",
    "ir.TensorRegion": "a rectangle of a buffer, in TIR",
}
known = nodes.node_classes("ir.Expr", ["ir", "relax"])
shown = [item for item in known if item.key not in ELSEWHERE]
print(nodes.field_table(shown, width=76))
glue("classes", len(shown))

# %% check
keys = {nodes.node_class(type(made)).key for made in examples.values()}
assert keys == {item.key for item in shown}, keys ^ {k.key for k in shown}
assert set(ELSEWHERE) <= {item.key for item in known}
# No expression class is hidden from Python.
assert not [k for k in nodes.undescribed(["relax"]) if "expr" in k]

# %% cell: leaves
sink = relax.ExternFunc("sink")
builder = relax.BlockBuilder()
leaves, bound = [], []
with builder.function("f", [x, y, pair, flag]):
    with builder.dataflow():
        for made in examples.values():
            var = builder.emit(relax.Call(sink, [made]))
            (argument,) = builder.lookup_binding(var).args
            stays = argument.same_as(made)
            key = nodes.node_class(type(made)).key
            (leaves if stays else bound).append(key)
    builder.emit_func_output(x)
show(f"stays an argument: {' '.join(sorted(set(leaves)))}")
show(f"gets a binding: {' '.join(sorted(set(bound)))}")

# %% cell: grammar
BOXES = {
    "function": (1, 0),
    "seq": (1, 1),
    "block": (1, 2),
    "binding": (1, 3),
    "call": (0, 4),
    "item": (1, 4),
    "if": (2.3, 4),
    "tuple": (0.5, 5),
    "leaf": (1.5, 6),
}
LABELS = {
    "function": "Function",
    "seq": "SeqExpr",
    "block": "BindingBlock\nDataflowBlock",
    "binding": "VarBinding\nMatchCast",
    "call": "Call",
    "item": "TupleGetItem",
    "if": "If",
    "tuple": "Tuple",
    "leaf": "Var  DataflowVar  GlobalVar  Op\n"
    "ExternFunc  GenericConst  IntImm\n"
    "FloatImm  StringImm  ShapeExpr",
}
ARROWS = {
    ("function", "seq"): "body",
    ("seq", "block"): "blocks",
    ("block", "binding"): "bindings",
    ("binding", "call"): "value",
    ("binding", "item"): "value",
    ("binding", "if"): "value",
    ("if", "seq"): "branches",
    ("call", "tuple"): "args",
    ("call", "leaf"): "op, args",
    ("item", "leaf"): "tuple_value",
    ("if", "leaf"): "cond",
    ("tuple", "leaf"): "fields",
}
fig, _ = boxes_and_arrows(
    BOXES,
    ARROWS,
    labels=LABELS,
    column=2.1,
    row=0.85,
    width=6.2,
    colors={"tuple": "purple", "leaf": "vermilion"}
    | dict.fromkeys(["call", "item", "if"], "green"),
)
alt(fig, "Which node may stand in which field of which other node.")

# %% cell: late
total = relax.op.add(x, y)
print("missing:", total.ty.is_missing())
normal = relax.BlockBuilder().normalize(total)
print("after normalize:", normal.ty)
print("same object:", normal.same_as(total))
with expect_error(AttributeError, match="has no attribute 'shape'"):
    relax.op.add(x, y).ty.shape

# %% check
assert normal.same_as(total) and total.ty.shape.values[0].same_as(n)

# %% cell: calls
f = relax.Var("f", relax.FuncType([x.ty], x.ty))
kernel = relax.GlobalVar("kernel")
tensor = R.Tensor((n, 4), "float32")
calls = [
    relax.op.matmul(x, y, out_dtype="float16"),
    relax.Call(relax.ExternFunc("c_exp"), [x], ty_args=[tensor]),
    relax.op.call_tir(kernel, [x], tensor),
    f(x),
    kernel(x),
]
for call in calls:
    attrs = type(call.attrs).__name__ if call.attrs else "-"
    text = str(call).replace(', dtype="float32"', "")
    name, types = type(call.op).__name__, len(call.ty_args)
    print(f"{name:11} {attrs:12} {types}  {text}")
print("out_dtype:", calls[0].attrs.out_dtype)

# %% cell: callees
builder = relax.BlockBuilder()
extern = relax.ExternFunc("c_exp")
for types in ([], [tensor], [tensor, tensor]):
    ty = builder.normalize(relax.Call(extern, [x], ty_args=types)).ty
    show(f"{len(types)} types: {ty}")
with expect_error(tvm.error.InternalError, match="IsMissing"):
    builder.normalize(kernel(x))
with expect_error(AttributeError, match="not registered"):
    ir.Op.get("relax.exponential")

# %% cell: operators
for made in (x + y, -x, x**y, x < y, x.astype("float16"), x[0], pair[0]):
    ty = "missing" if made.ty.is_missing() else made.ty
    print(f"{type(made).__name__:13} {made!s:32} {ty}")
with expect_error(TypeError, match="convert 1 with"):
    x + 1
with expect_error(TypeError, match="unsupported operand"):
    x @ y

# %% cell: missing-index
row = x[0]
print(type(row).__name__, row)
with expect_error(tvm.error.InternalError, match="TupleType"):
    relax.BlockBuilder().normalize(row)

# %% cell: constants
big = np.array([2**40, 3], "int64")
half = np.array([1, 2], "float16")
for value in (1, 1.5, True, [1, 2], big, half, np.array([0.1])):
    made = relax.const(value)
    print(f"{made.ty!s:32} {made.value.numpy()}")
print(relax.const(big, "int64").value.numpy())

# %% cell: scalars
tensor_scalar, prim_scalar = relax.const(2.0), relax.prim_value(2.0)
print("tensor:", tensor_scalar, tensor_scalar.ty)
print("scalar:", prim_scalar, prim_scalar.ty)
builder = relax.BlockBuilder()
print(builder.normalize(relax.op.add(x, tensor_scalar)).ty)
with expect_error(TypeError, match="same datatype", max_lines=3):
    builder.normalize(relax.op.add(x, prim_scalar))
right = relax.prim_value(tirx.const(2.0, "float32"))
print(builder.normalize(relax.op.add(x, right)).ty)

# %% cell: shapes
shape = relax.ShapeExpr([n, tirx.IntImm("int32", 4), n * 2])
print(shape, "|", shape[1].ty, "|", shape.ty)
with expect_error(tvm.error.InternalError, match="int64", max_lines=2):
    relax.ShapeExpr([tirx.Var("k", "int32")])

# %% cell: tuples
made = relax.Tuple([x, relax.Tuple([y])])
print(made.ty.script().replace("dtype=", ""))
print(
    "in Python:",
    type(made[0]).__name__,
    "- and as a node:",
    type(relax.TupleGetItem(made, 0)).__name__,
)
print("a tuple variable:", [str(field) for field in pair])
print("unknown field:", relax.Tuple([x, x + y]).ty.is_missing())
with expect_error(IndexError, match="Out of bounds|out of bounds"):
    relax.TupleGetItem(made, 2)

# %% cell: identity
twin = relax.Var("x", x.ty)
print("==:", x == twin, "| in a list:", x in [y, x], "| n == n:", n == n)
one, two = relax.op.add(x, y), relax.op.add(x, y)
same = tvm_ffi.structural_equal(one, two)
print("two equal calls ==:", one == two, "| structural_equal:", same)
print("x and its twin:", tvm_ffi.structural_equal(x, twin))
with expect_error(ValueError, match="and / or / not"):
    bool(x)

# %% cell: branches


@R.function
def choose(
    flag: R.Prim("bool"),
    x: R.Tensor(("n", 4), "float32"),
    y: R.Tensor((8, 4), "float32"),
):
    if flag:
        z = R.nn.relu(x)
    else:
        z = R.nn.relu(y)
    return z


show(choose)
(block,) = choose.body.blocks
branch = block.bindings[0].value
print(type(branch).__name__, "has type", branch.ty)
print(type(branch.true_branch).__name__, branch.true_branch.ty)

# %% cell: branch-rules
with quiet():
    with expect_error(
        tvm.error.DiagnosticError, match="same variable", max_lines=1
    ):

        @R.function
        def two_names(flag: R.Prim("bool"), x: R.Tensor((4,), "float32")):
            if flag:
                y = R.exp(x)
            else:
                z = R.abs(x)
            return y

    with expect_error(
        tvm.error.DiagnosticError, match="Empty body", max_lines=1
    ):

        @R.function
        def no_else(flag: R.Prim("bool"), x: R.Tensor((4,), "float32")):
            if flag:
                x = R.exp(x)
            return x

    gc.collect()

# %% cell: conditions
by_tensor = relax.Var("by_tensor", R.Tensor((), "bool"))
numbers = relax.Var("numbers", R.Tensor((3,), "float32"))
for condition in (by_tensor, numbers):
    builder = relax.BlockBuilder()
    with builder.function("pick", [condition, x, y]):
        out = builder.emit(relax.If(condition, x, y))
        builder.emit_func_output(out)
    module = builder.finalize()
    vm = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
    data = [np.ones((1, 4), "float32"), np.zeros((1, 4), "float32")]
    if condition.same_as(by_tensor):
        data = as_tensors([np.array(False), *data])
        print(vm["pick"](*data).numpy())
    else:
        data = as_tensors([np.ones(3, "float32"), *data])
        with expect_error(tvm.error.InternalError, match="kDLBool"):
            vm["pick"](*data)

# %% check
vm = relax.VirtualMachine(
    tvm.compile(tvm.IRModule({"choose": choose}), "llvm"), tvm.cpu()
)
ones, minus = np.ones((2, 4), "float32"), -np.ones((8, 4), "float32")
assert vm["choose"](True, *as_tensors([ones, minus])).numpy().shape == (2, 4)
assert not vm["choose"](False, *as_tensors([ones, minus])).numpy().any()

# %% cell: functions


@I.ir_module
class Outer:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        @R.function
        def double(a: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
            return R.add(a, x)

        once = double(x)
        return double(once)


binding = Outer["main"].body.blocks[0].bindings[0]
print(type(binding.value).__name__, "bound to", binding.var.name)
print("free in it:", relax.analysis.free_vars(binding.value))
with expect_error(tvm.error.InternalError, match="LambdaLift"):
    tvm.compile(Outer, target="llvm")
lifted = relax.transform.LambdaLift()(Outer)
params = [p.name for p in lifted["main_double"].params]
print("after LambdaLift: main_double", params)

# %% check
numbers = np.arange(4, dtype="float32")
vm = relax.VirtualMachine(tvm.compile(lifted, "llvm"), tvm.cpu())
assert np.allclose(vm["main"](*as_tensors([numbers])).numpy(), 3 * numbers)
assert relax.analysis.free_vars(binding.value)[0].name == "x"

# %% cell: renames
OLD = ["relax.Constant", "relax.Tuple", "relax.TupleGetItem", "relax.Var"]
OLD += ["relax.Call", "relax.PrimValue", "relax.StringImm"]
OLD += ["relax.DataTypeImm", "relax.Id", "relax.VDevice", "ir.VDevice"]
for old in OLD:
    module, name = old.split(".")
    found = getattr({"relax": relax, "ir": ir}[module], name, None)
    home = f"{found.__module__}.{found.__qualname__}" if found else "gone"
    print(f"{old:20} {home}")

# %% check
assert not hasattr(relax.const(1), "data")
assert relax.Var is ir.Var is tirx.Var

# %% cell: solution-leaky


def leaky(x, slope):
    """max(x, slope * x) with operators of Relax."""
    return relax.op.maximum(x, x * relax.const(slope, x.ty.dtype))


made = leaky(x, 0.1)
print(made)
builder = relax.BlockBuilder()
with builder.function("main", [x]):
    builder.emit_func_output(builder.emit(made))
module = builder.finalize()
show(module["main"])

# %% check
vm = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
numbers = np.array([[-1, 2, -3, 4]], "float32")
assert np.allclose(
    vm["main"](*as_tensors([numbers])).numpy(),
    np.maximum(numbers, 0.1 * numbers),
)

# %% cell: solution-count


def count_nodes(root):
    """How often each class stands below an expression (tree, not graph)."""
    keep = lambda obj: isinstance(obj, ir.Expr)  # noqa: E731
    tree = nodes.tree(root, keep, label=str)
    counted = {}
    for kind in tree.kinds.values():
        counted[kind] = counted.get(kind, 0) + 1
    return counted


print(count_nodes(x * y + x))

# %% check
assert count_nodes(x * y + x) == {"ir.Call": 2, "ir.Var": 3}
