"""
Expressions of TIR: every node class, its types and its rules
=============================================================

The expression and type classes of the installed release with their fields,
and what Python operators do before a node is made: promote types, fold
constants.
"""

# %%
import platform

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, s_tir, sym, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue, nodes
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.isolate import run_isolated

i = tirx.Var("i", "int32")
j = tirx.Var("j", "int32")
wide = tirx.Var("wide", "int64")
x = tirx.Var("x", "float32")
h = tirx.Var("h", "float16")
c = tirx.Var("c", "bool")
A = tirx.decl_buffer((16,), "float32", name="A")

# %% cell: examples
BINARY = [tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Mod]
BINARY += [tirx.FloorDiv, tirx.FloorMod, tirx.Min, tirx.Max]
BINARY += [tirx.EQ, tirx.NE, tirx.LT, tirx.LE, tirx.GT, tirx.GE]
BINARY += [tirx.LShift, tirx.RShift]
BINARY += [tirx.BitwiseAnd, tirx.BitwiseOr, tirx.BitwiseXor]
ramp = tirx.Ramp(i, 2, 4)
examples = [
    i,
    tirx.IntImm("int32", 3),
    tirx.FloatImm("float32", 1.5),
    ir.StringImm("text"),
    tirx.exp(x),
    A[i],
    tirx.BufferRegion(A, [ir.Range(0, 4)]),
    ir.GlobalVar("kernel"),
    tirx.exp(x).op,
    tirx.Cast("float32", i),
    *(node(i, j) for node in BINARY),
    tirx.BitwiseNot(i),
    tirx.And(c, i < j),
    tirx.Or(c, i < j),
    tirx.Not(c),
    tirx.Select(c, i, j),
    tirx.Let(i, j * 2, i + 1),
    ramp,
    tirx.Broadcast(x, 4),
    tirx.Shuffle([ramp], [0, 2]),
]
for example in examples:
    key = nodes.node_class(type(example)).key
    text = "Op.get('tirx.exp')" if key == "ir.Op" else str(example)
    dtype = example.ty if ir.is_prim_expr(example) else "-"
    print(f"{key:16s} {text:30s} {dtype}")

# %% cell: fields
# What a loop nest cannot contain: base classes, functions, tuples and
# constants of Relax, and the analyser's opaque values.
ELSEWHERE = {
    "ir.BaseFunc": "base class of functions",
    "ir.Constant": "base class of literals",
    "ir.OpaqueExpr": "base class, never in finished IR",
    "ir.GenericConst": "tensor constants of Relax",
    "ir.Tuple": "Relax",
    "ir.TupleGetItem": "Relax",
    "tirx.PrimFunc": "a function is an expression, too",
}
known = nodes.node_classes("ir.Expr", ["ir", "prim", "tirx", "s_tir"])
shown = [item for item in known if item.key not in ELSEWHERE]
print(nodes.field_table(shown, width=76))
glue("classes", len(shown))
glue("elsewhere", len(ELSEWHERE))

# %% check
keys = {nodes.node_class(type(example)).key for example in examples}
assert keys == {item.key for item in shown}, keys ^ {k.key for k in shown}
assert nodes.undescribed(["prim", "tirx"]) == []
assert set(ELSEWHERE) <= {item.key for item in known}

# %% cell: types
type_examples = [
    ir.PrimType("float32"),
    ir.PointerType(ir.PrimType("float32"), "global"),
    ir.StringType(),
    ir.TupleType([]),
    ir.FuncType([ir.PrimType("int32")], ir.PrimType("int32")),
    A.ty,
    tirx.BufferRegionType(),
    tirx.TensorMapType(),
    ir.OpaqueType(),
]
type_classes = nodes.node_classes("ir.Type", ["ir", "tirx", "s_tir"])
print(nodes.field_table(type_classes, width=76))

# %% check
type_keys = {nodes.node_class(type(t)).key for t in type_examples}
assert type_keys == {item.key for item in type_classes}, type_keys

# %% cell: two-ways
print("operator:", i + wide)
with expect_error(TypeError, match="mismatched types"):
    tirx.Add(i, wide)

# %% cell: promotion
DTYPES = ["bool", "int8", "uint8", "int32", "uint32", "int64"]
DTYPES += ["float16", "bfloat16", "float32", "float64"]
short = {d: d.replace("float", "f").replace("int", "i") for d in DTYPES}
print(8 * " " + "".join(f"{short[d]:>6s}" for d in DTYPES))
promoted = {}
for left in DTYPES:
    for right in DTYPES:
        total = tirx.Var("a", left) + tirx.Var("b", right)
        promoted[left, right] = str(total.ty)
    row = "".join(f"{short[promoted[left, d]]:>6s}" for d in DTYPES)
    print(f"{short[left]:8s}{row}")

# %% check
assert all(promoted[a, b] == promoted[b, a] for a in DTYPES for b in DTYPES)

# %% cell: literals
u = tirx.Var("u", "uint8")
for sum_ in (wide + 1, x + 1, h + 1, h + 1.5, i + 1.5, u + 1, i + 2**40):
    print(f"{sum_!s:42s} {sum_.ty}")

# %% cell: half


@T.prim_func
def half(H: T.Buffer((4,), "float16")):
    for i in range(4):
        H[i] = H[i] + 1.5
    for i in range(4):
        H[i] = H[i] + T.float16(1.5)


show(half)

# %% cell: division
with expect_error(RuntimeError, match="multiple types"):
    i / j
for a, b in ((7, 2), (-7, 2), (7, -2)):
    n = tirx.IntImm("int32", a)
    floor = tirx.floordiv(n, b), tirx.floormod(n, b)
    trunc = tirx.truncdiv(n, b), tirx.truncmod(n, b)
    print(f"{a} and {b}: floor {floor}, trunc {trunc}")

# %% cell: equality
same = i == j
print(type(same).__name__, "- as a truth value:", bool(same), bool(i == i))
print("as a node:", tirx.EQ(i, j), "or", i.equal(j))
with expect_error(ValueError, match="and / or / not"):
    bool(i < j)
print(tirx.all(i < j, j < 4), "|", tirx.any(i < j, j < 4))

# %% cell: folding
three, four = tirx.IntImm("int32", 3), tirx.IntImm("int32", 4)
folds = {
    "3 + 4": three + four,
    "i + 0": i + 0,
    "i * 1": i * 1,
    "i * 0": i * 0,
    "x * 0.0": x * 0.0,
    "i % 1": i % 1,
    "min(i, i)": tirx.min(i, i),
    "float32(3)": three.astype("float32"),
    "all(true, c)": tirx.all(tirx.const(True, "bool"), c),
    "2**31-1 + 1": tirx.IntImm("int32", 2**31 - 1) + 1,
    "i - i": i - i,
    "i + 1 + 1": i + 1 + 1,
    "1 + 1 + i": 1 + 1 + i,
    "i * 2 // 2": i * 2 // 2,
    "exp(1.0)": tirx.exp(tirx.const(1.0, "float32")),
    "float16: 1 + 2": tirx.const(1.0, "float16") + tirx.const(2.0, "float16"),
    "Add(3, 4)": tirx.Add(three, four),
}
for written, made in folds.items():
    print(f"{written:14s} {made!s:24s} {type(made).__name__}")
with expect_error(tvm.error.InternalError, match="Divide by zero"):
    i // 0
with expect_error(tvm.error.InternalError, match="less than 32"):
    i << 32
with expect_error(ValueError, match="exceeds range of int8"):
    tirx.IntImm("int8", 200)

# %% cell: choice


@T.prim_func
def both(n: T.int32, B: T.Buffer((1,), "int32")):
    B[0] = T.Select(n != 0, T.truncdiv(100, n), 0)


@T.prim_func
def one(n: T.int32, B: T.Buffer((1,), "int32")):
    B[0] = T.if_then_else(n != 0, T.truncdiv(100, n), 0)


print(type(both.body.value).__name__, "and", type(one.body.value).__name__)


def call_with_zero():
    import sys

    import numpy as np
    import tvm
    from tvm.script import tirx as T

    @T.prim_func
    def both(n: T.int32, B: T.Buffer((1,), "int32")):
        B[0] = T.Select(n != 0, T.truncdiv(100, n), 0)

    out = tvm.runtime.tensor(np.ones(1, "int32"))
    kernel = tvm.compile(both, target="llvm")
    print("compiled", flush=True)
    kernel(0, out)
    sys.exit(0)


crashed = run_isolated(call_with_zero)
print("Select:      ", crashed.describe())
out = tvm.runtime.tensor(np.ones(1, "int32"))
tvm.compile(one, target="llvm")(0, out)
print("if_then_else:", out.numpy())

# %% check
assert crashed.stdout.strip() == "compiled"
if platform.machine() in ("x86_64", "AMD64"):  # others return 0 for 100 / 0
    assert crashed.signal == "SIGFPE"

# %% cell: unsafe-select


@T.prim_func
def left_neighbour(
    X: T.Buffer((8,), "float32"), Y: T.Buffer((8,), "float32")
):
    for i in range(8):
        Y[i] = T.Select(i >= 1, X[i - 1], T.float32(0))


module = tvm.IRModule({"left_neighbour": left_neighbour})
show(s_tir.transform.RewriteUnsafeSelect()(module)["left_neighbour"])

# %% cell: vectors


@T.prim_func
def by_hand(X: T.Buffer((64,), "float32"), Y: T.Buffer((64,), "float32")):
    for i in range(16):
        Y[T.ramp(i * 4, 1, 4)] = X[T.ramp(i * 4, 1, 4)] * T.broadcast(
            T.float32(2), 4
        )


@T.prim_func
def by_loop(X: T.Buffer((64,), "float32"), Y: T.Buffer((64,), "float32")):
    for i in range(16):
        for j in T.vectorized(4):
            Y[i * 4 + j] = X[i * 4 + j] * T.float32(2)


vectorized = tirx.transform.VectorizeLoop()(tvm.IRModule({"f": by_loop}))["f"]
show(vectorized)
product = vectorized.body.body.value
print("product:", product.ty, "- index:", product.a.indices[0].ty)
same = tvm_ffi.structural_equal(
    by_hand.body, vectorized.body, map_free_vars=True
)
print("the same as by hand:", same)
print("ramp + scalar:", tirx.Ramp(i, 1, 4) + j)

# %% cell: lanes
with expect_error(tvm.error.InternalError, match="Cannot match"):
    tirx.Ramp(i, 1, 4) + tirx.Ramp(i, 1, 8)

# %% cell: calls
call = tirx.exp(x)
print("op  ", call.op.name)
print("args", call.args, " type", call.ty)
foreign = tirx.call_extern("int32", "rand")
print("op  ", foreign.op.name)
print("args", foreign.args)

# %% cell: effects
KINDS = ["ExprAnnotation", "Pure", "ReadState", "UpdateState"]
KINDS += ["SpecialCallArg", "EmbedInfo", "ControlJump"]
by_kind = {}
for name in map(str, ir.Op.list_op_names()):
    if name.startswith(("tirx.", "prim.")):
        kind = ir.Op.get(name).get_attr("TCallEffectKind")
        title = "not set" if kind is None else KINDS[int(kind)]
        by_kind.setdefault(title, []).append(name)
wanted = "prim.likely prim.if_then_else tirx.exp tirx.call_pure_extern"
wanted += " tirx.tvm_struct_get"
wanted += " tirx.call_extern tirx.tvm_call_packed tirx.tvm_storage_sync"
wanted += " tirx.tvm_access_ptr tirx.assume tirx.break_loop"
wanted += " tirx.tile.copy tirx.ctpop"
for title in [*KINDS, "not set"]:
    names = by_kind[title]
    some = [name for name in wanted.split() if name in names]
    print(f"{title:15s}{len(names):4d}  {' '.join(some)}")

# %% cell: no-kind
bits = tirx.call_intrin("int32", "tirx.ctpop", i)
with expect_error(tvm.error.InternalError, match="TCallEffectKind"):
    tirx.PrimFunc([i], tirx.Evaluate(bits))

# %% cell: no-op


@T.prim_func
def unused(X: T.Buffer((8,), "float32")):
    T.evaluate(T.exp(X[0]))
    T.evaluate(T.call_pure_extern("float32", "expf", X[0]))
    T.evaluate(T.call_extern("float32", "expf", X[0]))
    X[0] = T.float32(0)


removed = tirx.transform.RemoveNoOp()(tvm.IRModule({"f": unused}))["f"]
show(removed)

# %% cell: analyzer
analyzer = sym.Analyzer()
print(analyzer.simplify(i - i), "|", analyzer.simplify(i * 2 // 2), end=" | ")
print(analyzer.simplify(i + 1 + 1), "|", analyzer.simplify((i * 8 + j) // 8))
analyzer.bind(j, ir.Range(0, 8))
print(analyzer.simplify((i * 8 + j) // 8), "|", end=" ")
print(analyzer.simplify((i * 8 + j) % 8))
print(analyzer.const_int_bound(j * 4 + 1), analyzer.modular_set(i * 8 + 4))
print("i < 8 always:", analyzer.can_prove(i < 8))
with analyzer.constraint_scope(i < 8):
    print("where i < 8: ", analyzer.simplify(tirx.min(i, 10)))

# %% cell: printing
twin = tirx.Var("i", "int32")
print(str(i + twin), "|", repr(wide + 1), "|", (i + 1) * 2, "|", i + 1 * 2)
print((wide + 1).script(int_dtype="int64"), end=" | ")
print((i + 1).script(int_dtype="int64"))

# %% cell: solution-types
n = tirx.Var("n", "int64")
length = n * 2 - 1
print(length, "has type", length.ty)
mask = tirx.Var("mask", "uint8")
shifted = mask + 1
print(shifted, "has type", shifted.ty)
kept = mask + tirx.const(1, "uint8")
print(kept, "has type", kept.ty)

# %% cell: solution-prove
row, col = tirx.Var("row", "int32"), tirx.Var("col", "int32")
flat = row * 6 + col
prover = sym.Analyzer()
prover.bind(col, ir.Range(0, 6))
print("with the bound:   ", prover.can_prove_equal(flat // 6, row))
print("without the bound:", sym.Analyzer().can_prove_equal(flat // 6, row))
counterexample = (1 * 6 + 7) // 6
print("row 1, column 7:  ", counterexample)

# %% check
assert isinstance(i + 0, tirx.Var) and isinstance(i - i, tirx.Sub)
assert str((h + 1.5).ty) == "float32" and str((h + 1).ty) == "float16"
assert np.result_type("int64", "float16") == np.float64
assert same and prover.can_prove_equal(flat // 6, row)
for a in range(-9, 10):
    for b in (-3, -2, 2, 3):
        n = tirx.IntImm("int32", a)
        assert int(tirx.floordiv(n, b)) == a // b
        assert int(tirx.floormod(n, b)) == a % b
        assert int(tirx.truncdiv(n, b)) == int(a / b)
        assert int(tirx.truncmod(n, b)) == int(np.fmod(a, b))
