"""
The registry of operators, and their attributes
===============================================

Operators as objects, the tables beside them, priorities, which hooks the
Relax operators have, and the constants that a call carries.
"""

# %% cell: setup
from collections import Counter

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.ir import Op, register_op_attr
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import bar_chart, boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.nodes import node_class, node_classes

# %% cell: object
OPS = sorted(Op.list_op_names())
RELAX = [name for name in OPS if name.startswith("relax.")]
matmul = Op.get("relax.matmul")
print(type(matmul).__mro__[:2])
print("one object for a name:", Op.get("relax.matmul").same_as(matmul))
for field in ("name", "num_inputs", "support_level", "attrs_type_key"):
    print(f"{field:15}", repr(getattr(matmul, field)))
print("arguments      ", [(a.name, a.type_info) for a in matmul.arguments])
with expect_error(AttributeError, match="is not registered"):
    Op.get("relax.matmull")
with expect_error(RuntimeError, match="use get instead"):
    Op()

# %% cell: saved
print(ir.save_json(matmul)[:70])
print(ir.load_json(ir.save_json(matmul)).same_as(matmul))

# %% cell: tables
fig, _ = boxes_and_arrows(
    {
        "names": (0, 0),
        "entry": (1, 0),
        "op": (2, 0),
        "keys": (0, 1),
        "legal": (1, 0.8),
        "packed": (1, 1.5),
    },
    {
        ("names", "entry"): "",
        ("entry", "op"): "op_",
        ("keys", "legal"): "",
        ("keys", "packed"): "",
        ("op", "legal"): "index_",
    },
    labels={
        "names": "entry_map_\n\nrelax.add\nrelax.matmul\nrelax.print",
        "entry": "OpRegEntry",
        "op": "OpNode\n\nname: relax.matmul\nindex_: 17",
        "keys": "attrs_\n\nFLegalize\nFCallPacked",
        "legal": "[…, (function, 10), …]",
        "packed": "[…, (null, 0), …]",
    },
    colors={
        "op": "green",
        "legal": "vermilion",
        "packed": "vermilion",
    },
    column=2.3,
    row=1.25,
    title="AttrRegistry: two maps, and a vector for each attribute",
)

# %% cell: has-attr
print("has_attr:", matmul.has_attr("FCallPacked"))
print("get_attr:", matmul.get_attr("FCallPacked"))
with expect_error(tvm.error.InternalError, match="not registered"):
    matmul.get_attr("TOpPattern")

# %% cell: levels
NAME = "relax.deepdive_level"
for level in (10, 5, 15, 20):
    register_op_attr(NAME, "DeepDiveMark", f"from level {level}", level)
    print(f"after level {level:2}:", Op.get(NAME).get_attr("DeepDiveMark"))
with expect_error(tvm.error.InternalError, match="same plevel=20"):
    register_op_attr(NAME, "DeepDiveMark", "again", 20)
with expect_error(tvm.error.InternalError, match="greater than 0"):
    register_op_attr(NAME, "DeepDiveMark", "nothing", 0)
Op.get(NAME).reset_attr("DeepDiveMark")
print("after reset:   ", Op.get(NAME).get_attr("DeepDiveMark"))

# %% cell: typo
register_op_attr("relax.nn.rellu", "FLegalize", lambda bb, call: call)
ghost = Op.get("relax.nn.rellu")
print(ghost.name, ghost.num_inputs, list(ghost.arguments))
x = relax.Var("x", R.Tensor((2, 3), "float32"))
with expect_error(tvm.error.InternalError, match="FInferType"):
    relax.BlockBuilder().normalize(relax.Call(ghost, [x]))

# %% cell: families


def with_attr(key, names=RELAX):
    """The operators that have an entry in this table."""
    return [n for n in names if Op.get(n).get_attr(key) is not None]


kinds = Counter(name.split(".")[0] for name in OPS)
print(f"{len(OPS)} operators:", dict(kinds.most_common()))
families = Counter(".".join(n.split(".")[1:-1]) or "(none)" for n in RELAX)
print("second part of relax.…:", dict(families.most_common(9)))

# %% cell: hooks
HOOKS = (
    "FPurity",
    "FInferType",
    "FLegalize",
    "TMixedPrecisionPolicy",
    "FRelaxInferLayout",
    "dist.FInferType",
    "FPrimalGradient",
    "FNormalize",
    "RequiresArgumentShapes",
    "FInferMixedPrecision",
    "FCallPacked",
    "FValidate",
    "FDataDependent",
    "FLowerBuiltin",
)
counts = {hook: len(with_attr(hook)) for hook in HOOKS}
fig, _ = bar_chart(
    counts,
    form="d",
    unit="Relax operators with this hook",
    title=f"Hooks of the {len(RELAX)} Relax operators",
)

# %%
glue("relax", len(RELAX))
glue("tirx", kinds["tirx"])
for hook, number in counts.items():
    glue(hook.lower().replace(".", "-"), number)

# %% cell: without
print("no FInferType:", set(RELAX) - set(with_attr("FInferType")))
impure = [n for n in RELAX if not Op.get(n).get_attr("FPurity")]
print("FPurity False:", *(n.removeprefix("relax.") for n in impure))
lowered = {*with_attr("FLegalize"), *with_attr("FCallPacked")}
rest = sorted(set(RELAX) - lowered)
print(len(rest), "that LegalizeOps cannot replace, by their families:")
for family, number in sorted(
    Counter(".".join(n.split(".")[1:-1]) or "(none)" for n in rest).items()
):
    print(f"    {family:8} {number}")

# %% cell: small-hooks
for hook in ("FCallPacked", "FValidate", "FDataDependent", "FLowerBuiltin"):
    print(hook, [n.removeprefix("relax.") for n in with_attr(hook)])
policies = Counter(
    Op.get(n).get_attr("TMixedPrecisionPolicy")
    for n in with_attr("TMixedPrecisionPolicy")
)
print("TMixedPrecisionPolicy", dict(sorted(policies.items())))

# %% cell: no-purity
register_op_attr(
    "relax.deepdive_same", "FInferType", lambda call, bb: call.args[0].ty
)
same = Op.get("relax.deepdive_same")
bb = relax.BlockBuilder()
print("type:", bb.normalize(relax.Call(same, [x])).ty)
with bb.function("main", [x]):
    bb.emit_func_output(bb.emit(relax.Call(same, [x])))
with expect_error(tvm.error.InternalError, match="purity or call effect"):
    relax.analysis.well_formed(bb.get())

# %% cell: arguments
shape = relax.ShapeExpr([2])
for arguments in ([x], [x, shape]):
    try:
        bb.normalize(relax.Call(matmul, arguments))
    except (ValueError, TypeError) as error:
        text = str(error)
        start = max(text.find("expects"), text.find("requires"))
        print(f"{type(error).__name__}: … {text[start:]}")

# %% cell: attrs
image = relax.Var("image", R.Tensor((1, 3, 8, 8), "float32"))
kernel = relax.Var("kernel", R.Tensor((4, 3, 3, 3), "float32"))
call = relax.op.nn.conv2d(image, kernel, strides=2, padding=1)
attrs = call.attrs
print(attrs)
print(type(attrs).__module__, type(attrs).__mro__[1].__name__)
print(attrs.padding, attrs["groups"], attrs.get_int_tuple("strides"))
with expect_error(AttributeError, match="no setter"):
    attrs.groups = 3

# %% cell: reflection
for field in node_class("relax.attrs.Conv2DAttrs").own_fields:
    print(f"{field.name:14}{field.type}")

# %% cell: printed


@I.ir_module
class Softmax:
    @R.function
    def main(x: R.Tensor((2, 3), "float32")):
        y = R.nn.softmax(x, axis=1)
        return y


show(Softmax["main"], keep="softmax", context=0)
first = relax.op.nn.softmax(x, axis=-1)
second = relax.op.nn.softmax(x, axis=1)
print("equal:", tvm_ffi.structural_equal(first, second))

# %% cell: make
print(ir.make_node("relax.attrs.SoftmaxAttrs", axis=1))
with expect_error(TypeError, match="Required field `axis`"):
    ir.make_node("relax.attrs.SoftmaxAttrs", axes=1)
with expect_error(TypeError, match="Cannot convert"):
    ir.make_node("relax.attrs.SoftmaxAttrs", axis="last")
free = ir.make_node("ir.DictAttrs", scale=0.5, mode="fast")
print(free.scale, free["mode"], sorted(free.keys()))

# %% cell: wrong-class, varies


def wrong_class():
    """Attributes of the wrong class for an operator of C++."""
    from tvm import ir, relax

    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    softmax = ir.Op.get("relax.nn.softmax")
    attrs = ir.make_node("ir.DictAttrs", axis=1)
    call = relax.Call(softmax, [x], attrs)
    print(call)
    relax.BlockBuilder().normalize(call)


result = run_isolated(wrong_class)
print(result.stdout.strip(), "->", result.describe())

# %% cell: pattern


@I.ir_module
class Kinds:
    @T.prim_func(private=True, s_tir=True)
    def mine(a: T.Buffer((4, 6), "float32"), b: T.Buffer((6,), "float32")):
        for j in range(6):
            with T.sblock("first_row"):
                v = T.axis.spatial(6, j)
                b[v] = a[0, v]

    @R.function
    def main(
        x: R.Tensor((4, 6), "float32"),
        b: R.Tensor((6,), "float32"),
        w: R.Tensor((6, 5), "float32"),
    ):
        cls = Kinds
        with R.dataflow():
            e = R.add(x, x)
            b1 = R.broadcast_to(b, (4, 6))
            t = R.permute_dims(x)
            s = R.sum(x, axis=1)
            m = R.matmul(x, w)
            f = R.nn.softmax(x)
            c = R.call_tir(cls.mine, (x,), out_ty=R.Tensor((6,), "float32"))
            o = (e, b1, t, s, m, f, c)
            R.output(o)
        return o


annotated = tvm.transform.Sequential(
    [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
)(Kinds)
patterns = {
    var.name_hint: int(func.attrs["op_pattern"])
    for var, func in annotated.functions_items()
    if isinstance(func, tirx.PrimFunc)
}
for name, number in sorted(patterns.items(), key=lambda kv: kv[1]):
    print(f"{number}  {name}")

# %% cell: tir-operators
exp = Op.get("tirx.exp")
for key in ("TScriptPrinterName", "TCallEffectKind", "TVectorizable"):
    print(f"{key:19}", repr(exp.get_attr(key)))
for key in ("default.FLowerIntrinsic", "llvm.FLowerIntrinsic"):
    print(f"{key:24}", type(exp.get_attr(key)).__name__)

# %% cell: solution-gradient
gelu = [n for n in RELAX if n.startswith("relax.nn.gelu")]
print({n: n in with_attr("FPrimalGradient") for n in gelu})
floats = with_attr("FPrimalGradient")
unary = [n for n in RELAX if len(Op.get(n).arguments) == 1]
shares = [n for n in unary if n in floats and n in with_attr("FLegalize")]
print(f"{len(shares)} of {len(unary)} unary operators have a gradient")
bb = relax.BlockBuilder()
with bb.function("main", [x]):
    with bb.dataflow():
        y = bb.emit(relax.op.nn.gelu_tanh(x))
        out = bb.emit_output(relax.op.sum(y))
    bb.emit_func_output(out)
with expect_error(tvm.error.InternalError, match="FPrimalGradient"):
    relax.transform.Gradient("main")(bb.get())

# %% cell: solution-override
relu = Op.get("relax.nn.relu")
original = relu.get_attr("FLegalize")


def always_one(bb, call):
    return relax.op.ones_like(call.args[0])


def run(mod, value):
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    return vm["main"](tvm.runtime.tensor(value)).numpy()


bb = relax.BlockBuilder()
with bb.function("main", [x]):
    bb.emit_func_output(bb.emit(relax.op.nn.relu(x)))
mod = bb.get()
value = np.full((2, 3), -2.0, "float32")
try:
    relu.set_attr("FLegalize", always_one, 11)
    print("changed:", run(mod, value)[0])
    relu.reset_attr("FLegalize")
    print("after reset_attr:", relu.get_attr("FLegalize"))
finally:
    relu.reset_attr("FLegalize")
    relu.set_attr("FLegalize", original)
print("restored:", run(mod, value)[0])

# %% check
assert (run(mod, value) == 0).all()
glue("classes", len(node_classes("ir.Attrs")))
glue("typed", sum(bool(Op.get(n).attrs_type_key) for n in RELAX))
assert result.signal == "SIGSEGV" or not result.ok
assert patterns["add"] == 0 and patterns["matmul"] == 4
assert all(Op.get(n).support_level == 10 for n in OPS)
