"""
Structure information: the types of Relax today
===============================================

The type classes with their fields, how StructInfo became Type, what a type
may leave open, and how types are compared and joined.
"""

# %%
from itertools import permutations, product
from textwrap import fill

import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax import analysis
from tvm.relax.analysis import BaseCheckResult, type_base_check, type_lca
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue, nodes
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.recorded import data, read_csv

# %% cell: names
n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
Tensor, Shape = relax.TensorType, relax.ShapeType


def text(ty):
    """A type as TVM prints it, a little shorter."""
    out = str(ty).replace("R.", "").replace("dtype=", "")
    return out.replace("float", "f").replace('"', "")


f32 = Tensor((n, 4), "float32")


# %% cell: history
history = read_csv(data("relax_type_history.csv"))
for row in history:
    print(f"{row['release']}  {row['date']}  #{row['number']}  {row['what']}")
merge = next(row for row in history if row["number"] == "19853")
glue("merge_commit", merge["commit"])
glue("merge_files", int(merge["files"]))

# %% cell: renames
RENAMED = {
    "relax.TensorStructInfo": "relax.TensorType",
    "relax.ShapeStructInfo": "relax.ShapeType",
    "relax.FuncStructInfo": "relax.FuncType",
    "relax.TupleStructInfo": "ir.TupleType",
    "relax.PrimStructInfo": "ir.PrimType",
    "relax.ObjectStructInfo": "relax.AnyType",
    "relax.StructInfo": "ir.Type",
    "relax.Expr.struct_info": "relax.Expr.ty",
    "relax.Expr.checked_type": "relax.Expr.ty",
    "relax.Function.ret_struct_info": "relax.Function.ret_ty",
    "relax.Call.sinfo_args": "relax.Call.ty_args",
    "relax.analysis.struct_info_lca": "relax.analysis.type_lca",
    "relax.analysis.struct_info_base_check": "relax.analysis.type_base_check",
    "relax.analysis.derive_call_ret_struct_info": "relax.analysis."
    "derive_call_ret_type",
    "relax.analysis.tir_vars_in_struct_info": "relax.analysis."
    "tir_vars_in_type",
    "relax.transform.UpdateParamStructInfo": "relax.transform."
    "UpdateParamType",
    "relax.dpl.StructInfoPattern": "relax.dpl.TypePattern",
}


def exists(path):
    found = tvm
    for part in path.split("."):
        found = getattr(found, part, None)
    return found is not None


for old, new in RENAMED.items():
    told = "gone" if not exists(old) else "still there"
    if old.rpartition(".")[0] == new.rpartition(".")[0]:
        new = new.rpartition(".")[2]
    print(f"{old:44}{told:5} {new}")

add = ir.Op.get("relax.add")
print("FInferType of add:", type(add.get_attr("FInferType")).__name__)
with expect_error(tvm.error.InternalError, match="is not registered"):
    add.get_attr("FInferStructInfo")

# %% cell: old-call
with expect_error(tvm.error.InternalError, match="pre-set shape type"):
    relax.TensorType(2, "float32")
print(relax.TensorType(ndim=2, dtype="float32"))

# %% check
assert all(exists(new) for new in RENAMED.values())
assert not any(exists(old) for old in RENAMED)
assert relax.ObjectType is relax.AnyType

# %% cell: classes
in_relax = nodes.node_classes("ir.Type", ["relax"])
shared = [nodes.node_class(c) for c in (ir.PrimType, ir.TupleType)]
shared += [nodes.node_class(ir.StringType)]
print(nodes.field_table(in_relax + shared, width=76))
glue("type_classes", len(in_relax))

# %% check
assert {c.key for c in in_relax} == {
    "relax.AnyType",
    "relax.DTensorType",
    "relax.FuncType",
    "relax.PackedFuncType",
    "relax.ShapeType",
    "relax.TensorType",
}

# %% cell: knowledge
for known in (
    Tensor((n, 4), "float32"),
    Tensor(ndim=2, dtype="float32"),
    Tensor(dtype="float32"),
    Tensor(ndim=2, dtype=None),
    Tensor(dtype=None),
    Tensor(),
    Shape([n, 4]),
    Shape(ndim=2),
    Shape(),
):
    dtype = getattr(known, "dtype", "-")
    values = known.values if isinstance(known, Shape) else known.shape
    print(f"{known!s:36} ndim {known.ndim:2}  dtype {dtype}  {values}")

# %% check
assert Tensor().dtype == "float32" and Tensor(dtype=None).dtype is None
assert Tensor().ndim == -1
assert relax.Var("any", R.Tensor()).ty == Tensor(dtype=None)
assert R.Tensor((2,), "float32") == Tensor((2,), "float32")
with expect_error(AttributeError, match="as_ty", show=False):
    relax.Var("f", R.Callable((Tensor((2,)),), Tensor((2,))))

# %% cell: where
x = relax.Var("x", R.Tensor((n, 4), "float32"))
print("R.Tensor(...) is a", type(R.Tensor((n, 4), "float32")).__name__)
print(
    "x.ty is a        ",
    type(x.ty).__name__,
    "with shape a",
    type(x.ty.shape).__name__,
    "and dtype a",
    type(x.ty.dtype).__name__,
)
relu = relax.op.nn.relu(x)
print(
    "missing:",
    relu.ty.is_missing(),
    "- one object for all:",
    relu.ty.same_as(relax.op.abs(x).ty),
)
function = relax.Function([x], relax.SeqExpr([], x), ret_ty=x.ty)
print("function:", text(function.ty))

# %% cell: equality
ours, twin = Tensor((n, 4), "float32"), Tensor((n, 4), "float32")
other = Tensor((m, 4), "float32")
print(
    "two objects, equal:", ours == twin, "- another variable:", ours == other
)
renamed = tvm_ffi.structural_equal(ours, other, map_free_vars=True)
print("up to names of variables:", renamed)
with expect_error(TypeError, match="unhashable"):
    {ours: 1}

# %% cell: lattice
POINTS = [
    relax.AnyType(),
    Tensor(dtype=None),
    Shape(),
    ir.PrimType("int64"),
    Tensor(dtype=None, ndim=2),
    Tensor(dtype="float32"),
    Shape(ndim=2),
    Tensor((n, 4), None),
    Tensor(ndim=2, dtype="float32"),
    Shape([n, 4]),
    Tensor((n, 4), "float16"),
    Tensor((n, 4), "float32"),
    Tensor((8, 4), "float32"),
]
names = {i: text(ty).replace(" ", "") for i, ty in enumerate(POINTS)}
above = {
    (i, k)
    for i, k in permutations(range(len(POINTS)), 2)
    if type_base_check(POINTS[i], POINTS[k]) == BaseCheckResult.PASS
}
# Draw only what does not follow from two other arrows.
drawn = {
    (i, k)
    for i, k in above
    if not any((i, j) in above and (j, k) in above for j in names)
}
hue = {"Shape": "green", "int64": "brown", "Any": "purple"}
fig, _ = layered_graph(
    {str(i): name for i, name in names.items()},
    sorted((str(i), str(k)) for i, k in drawn),
    colors={
        str(i): hue.get(name.partition("(")[0], "navy")
        for i, name in names.items()
    },
)
alt(fig, "Lattice of types, the most general on top.")

# %% check
for i, j, k in permutations(names, 3):
    assert not ((i, j) in above and (j, k) in above) or (i, k) in above
# The join of two types is the lowest point above both.
for i, k in product(names, names):
    joined = type_lca(POINTS[i], POINTS[k])
    both = [
        p for p in names if all(p == q or (p, q) in above for q in (i, k))
    ]
    lowest = [p for p in both if all(p == q or (q, p) in above for q in both)]
    assert len(lowest) == 1 and joined == POINTS[lowest[0]], (i, k, joined)

# %% cell: check
PAIRS = [
    (Tensor(ndim=2), f32),
    (Tensor((n + n,)), Tensor((n * 2,))),
    (f32, Tensor(ndim=2)),
    (f32, Tensor((m, 4))),
    (f32, Tensor((8, 4))),
    (Tensor((n,)), Tensor((n // 2 * 2,))),
    (f32, Tensor(dtype=None, ndim=2)),
    (f32, Tensor()),
    (f32, relax.AnyType()),
    (Tensor((3, 4)), Tensor((8, 4))),
    (f32, Tensor((n, 4), "float16")),
    (f32, Shape([n, 4])),
]
for base, given in PAIRS:
    answer = BaseCheckResult(type_base_check(base, given)).name
    joined = text(type_lca(base, given))
    print(f"{text(base):22}{text(given):27}{answer:8}{joined}")

# %% cell: refused
f = relax.Var("f", relax.FuncType([Tensor((n,))], Tensor((n * 2,))))
a = relax.Var("a", Tensor((m,)))
unknown = relax.Var("unknown", Tensor(ndim=1))
no_dtype = relax.Var("no_dtype", Tensor(ndim=1, dtype=None))
bb = relax.BlockBuilder()
print(text(bb.normalize(f(a)).ty), "|", text(bb.normalize(f(unknown)).ty))
with expect_error(ValueError, match="Argument 0 type mismatch"):
    bb.normalize(f(no_dtype))
with expect_error(ValueError, match="Number of arguments"):
    bb.normalize(f(a, a))
with bb.function("main", [a]):
    with expect_error(tvm.error.InternalError, match="impossible"):
        bb.match_cast(a, Tensor((3, 4)))
    bb.emit_func_output(a)

# %% cell: functions


def level(base, given):
    """The answer of `type_base_check` by name."""
    return BaseCheckResult(type_base_check(base, given)).name


wide = relax.FuncType([Tensor(ndim=2)], f32)
narrow = relax.FuncType([f32], f32)
impure = relax.FuncType([f32], f32, purity=False)
print("any matrix wanted, (n, 4) given:", level(wide, narrow))
print("impure wanted, pure given:      ", level(impure, narrow))
print("pure wanted, impure given:      ", level(narrow, impure))
print("join(pure, impure) is pure:", type_lca(narrow, impure).purity)
print("join(impure, pure) is pure:", type_lca(impure, narrow).purity)


def doubling():
    k = tirx.Var("k", "int64")
    return relax.FuncType([Tensor((k,))], Tensor((k * 2,)))


print("own symbols:", level(doubling(), doubling()))

# %% cell: static
opaque = relax.ExternFunc("c_exp").ty
for ty in (f32, Shape([n, 4]), narrow, opaque):
    forgotten = text(analysis.get_static_type(ty))
    line = f"{text(ty)} -> {forgotten}"
    print(fill(line, 76, subsequent_indent=" " * 12))

# %% cell: solution-branches
x = relax.Var("x", Tensor((n, 4), "float32"))
flag = relax.Var("flag", ir.PrimType("bool"))
branches = {
    "x + x, x": (relax.op.add(x, x), x),
    "x, transposed": (x, relax.op.permute_dims(x)),
    "x, x as float16": (x, relax.op.astype(x, "float16")),
    "x, its shape": (x, relax.op.shape_of(x)),
}
for name, (left, right) in branches.items():
    builder = relax.BlockBuilder()
    with builder.function("f", [flag, x], private=True):
        out = builder.emit(relax.If(flag, left, right))
        builder.emit_func_output(out)
    print(f"{name:16} {text(out.ty)}")

# %% check
assert type_lca(x.ty, Tensor((4, n), "float32")) == Tensor(
    ndim=2, dtype="float32"
)

# %% cell: solution-old
old = """
x = relax.Var("x", relax.TensorStructInfo((n, 4), "float32"))
out = builder.emit(relax.op.nn.relu(x))
assert isinstance(out.struct_info, relax.TensorStructInfo)
assert out.struct_info.dtype == "float32"
"""
new = old
for name, today in RENAMED.items():
    new = new.replace(name.rpartition(".")[2], today.rpartition(".")[2])
print(new.strip())

# %% check
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((n, 4), "float32"))
out = builder.normalize(relax.op.nn.relu(x))
assert isinstance(out.ty, relax.TensorType) and out.ty.dtype == "float32"
