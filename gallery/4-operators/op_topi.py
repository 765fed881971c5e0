"""
TE and TOPI
===========

Tensor expressions as a graph, what `create_prim_func` makes of them, the
inventory of TOPI in Python and C++, tags, and where results differ from
numpy's.
"""

# %% cell: setup
import inspect
import re
from collections import Counter
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, te, tirx, topi
from tvm_ffi.registry import list_global_func_names

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows, new
from tvm_deepdive_helpers.ir import script, show

# %% cell: expression
A = te.placeholder((4, 8), "float32", name="A")
row = te.placeholder((8,), "float32", name="row")
k = te.reduce_axis((0, 8), name="k")
scaled = te.compute((4, 8), lambda i, j: A[i, j] * row[j], name="scaled")
total = te.compute((4,), lambda i: te.sum(scaled[i, k], axis=k), name="total")
print(type(total).__name__, tuple(total.shape), total.dtype)
print(type(total.op).__name__, "reads", list(total.op.input_tensors))

# %% cell: load
(product,) = scaled.op.body
load = product.a
print(type(product).__name__, "of", type(load).__name__, load.op.name)
print("tensor:", load.args[0].same_as(A), " indices:", list(load.args[1:]))
(reduction,) = total.op.body
print(type(reduction).__name__, "over", reduction.axis[0].var, end=", ")
print("from", reduction.combiner.identity_element[0])
print("combiner:", reduction.combiner.result[0])

# %% cell: graph
fig, _ = boxes_and_arrows(
    {
        "total": (0, 0.5),
        "total_op": (1, 0.5),
        "scaled": (2, 0.5),
        "scaled_op": (3, 0.5),
        "A": (4, 0),
        "row": (4, 1),
    },
    {
        ("total", "total_op"): "op",
        ("total_op", "scaled"): "body",
        ("scaled", "scaled_op"): "op",
        ("scaled_op", "A"): "body",
        ("scaled_op", "row"): "body",
    },
    labels={
        "total": "Tensor\ntotal",
        "total_op": "ComputeOp\naxis: i\nreduce_axis: k",
        "scaled": "Tensor\nscaled",
        "scaled_op": "ComputeOp\naxis: i, j",
        "A": "Tensor A\nPlaceholderOp",
        "row": "Tensor row\nPlaceholderOp",
    },
    colors=dict.fromkeys(("total_op", "scaled_op"), "green"),
    title="Who points to whom: from the result to its inputs",
)

# %% cell: prim-func
func = te.create_prim_func([A, row, total])
show(func)

# %% cell: arguments
for tensors in ([A, row, scaled, total], [total, row, A], [A, row]):
    func_ = te.create_prim_func(tensors)
    blocks = re.findall(r'sblock\("(\w+)"\)', script(func_))
    allocated = script(func_).count("sblock_alloc_buffer")
    names = [p.name for p in func_.params]
    print(names, "| blocks:", blocks, "| allocated:", allocated)
try:
    te.create_prim_func([A, total])
except tvm.error.InternalError as error:
    print("InternalError: …", str(error).split("but ")[1].split(".")[0])

# %% cell: refused
with expect_error(ValueError, match="Need to provide 2 index"):
    te.compute((4,), lambda i: A[i])
with expect_error(TypeError, match="missing 1 required"):
    te.compute((4,), lambda i, j: A[i, j])
state = te.placeholder((4, 8), "float32")
scan = te.scan(
    te.compute((1, 8), lambda _, j: A[0, j]),
    te.compute((4, 8), lambda t, j: state[t - 1, j] + A[t, j]),
    state,
    inputs=[A],
)
with expect_error(tvm.error.InternalError, match="te.ScanOp"):
    te.create_prim_func([A, scan])

# %% cell: extern
by_name = te.extern(
    (8,),
    [A],
    lambda ins, outs: tirx.call_packed("deepdive.first_row", ins[0], outs[0]),
    name="first",
    dtype="float32",
)
show(te.create_prim_func([A, by_name]), keep="sblock|reads|writes", context=0)

# %% cell: inventory


def functions(module):
    """Public functions of a package of TOPI that are defined in TOPI."""
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f)
        and not name.startswith("_")
        and f.__module__.startswith(module.__name__)
        and not f.__module__.endswith("utils")
    }


packages = (topi, topi.nn, topi.image, topi.vision, topi.gpu)
inventory = {}
for package in packages:
    found = functions(package)
    via = [n for n, f in found.items() if "cpp." in inspect.getsource(f)]
    inventory[package.__name__.removeprefix("tvm.")] = len(found), len(via)
fig, ax = new(height=2.4)
names = list(inventory)[::-1]
python = [inventory[n][0] - inventory[n][1] for n in names]
cpp = [inventory[n][1] for n in names]
bars = ax.barh(names, python, color="#046a93", label="written in Python")
ax.bar_label(bars, label_type="center", color="white")
bars = ax.barh(names, cpp, left=python, color="#bc5201", label="call C++")
ax.bar_label(
    bars, labels=[n or "" for n in cpp], label_type="center", color="white"
)
ax.set_xlabel("functions")
ax.legend(loc="lower right")
ax.set_title("Functions of TOPI by package", loc="left")

# %%
glue(
    "registered",
    len([n for n in list_global_func_names() if n.startswith("topi.")]),
)
glue("functions", sum(n for n, _ in inventory.values()))
glue("via-cpp", sum(n for _, n in inventory.values()))

# %% cell: cpp
registered = [n for n in list_global_func_names() if n.startswith("topi.")]
print(Counter(n.rpartition(".")[0] for n in registered))
print(type(topi.cpp.add).__name__, type(topi.cpp.nn.dense).__name__)
for package in ("generic", "x86", "cuda", "rocm"):
    module = getattr(topi.cpp, package)
    public = [n for n in dir(module) if not n.startswith("_")]
    print(f"topi.cpp.{package}:", [n for n in public if n != "tvm_ffi"])
gone = [n for n in dir(topi) + dir(topi.nn) if "schedule" in n]
print("schedules:", gone, " topi.generic:", hasattr(topi, "generic"))

# %% cell: used
text = "".join(
    p.read_text() for p in Path(relax.__file__).parent.rglob("*.py")
)
used = set(re.findall(r"\btopi\.((?:\w+\.)?\w+)", text))
unused = {}
for package in packages:
    prefix = package.__name__.removeprefix("tvm.topi").lstrip(".")
    prefix += "." if prefix else ""
    names = [prefix + n for n in functions(package)]
    unused[prefix or "topi"] = [n for n in names if n not in used]
    print(f"{prefix or 'topi':8}{len(names):4}", end=" functions, ")
    print(f"{len(unused[prefix or 'topi']):3} not named in tvm.relax")
print([n for n in unused["nn."] if "winograd" in n or "bitserial" in n][:3])

# %% cell: broadcast
column = te.placeholder((4, 1), "float32", name="column")
added = topi.add(column, row)
print(tuple(added.shape), added.op.name, added.op.tag)
show(te.create_prim_func([column, row, added]), keep="T_add.* = ", context=0)
print((A + row).op.name, (A * 2).op.name, (A - row).op.tag)
with expect_error(tvm.error.InternalError, match="Incompatible broadcast"):
    topi.add(A, te.placeholder((5,), "float32"))
n = tirx.Var("n", "int32")
symbol = topi.add(te.placeholder((n,)), te.placeholder((1,)))
print(tuple(symbol.shape))

# %% cell: maybe-broadcast
m = tirx.Var("m", "int32")
P = te.placeholder((n,), "float32", name="P")
Q = te.placeholder((m,), "float32", name="Q")
unknown = topi.add(P, Q)
print(tuple(unknown.shape))
show(te.create_prim_func([P, Q, unknown]), keep="T_add.* = ", context=0)
bb = relax.BlockBuilder()
sizes = [tirx.Var(name, "int64") for name in "nm"]
p, q = (relax.Var("p", relax.TensorType((s,), "float32")) for s in sizes)
print("Relax:", bb.normalize(relax.op.add(p, q)).ty)

# %% cell: reductions
norm = topi.sqrt(topi.sum(topi.multiply(A, A), axis=1, keepdims=True))
tensor, chain = norm, []
while tensor.op.input_tensors:
    chain.append((tensor.op.name, tensor.op.tag, tuple(tensor.shape)))
    tensor = tensor.op.input_tensors[0]
for name, tag, shape in chain:
    print(f"{name:15}{tag:12}{shape}")
soft = topi.nn.softmax(A)
blocks = re.findall(
    r'sblock\("(\w+)"\)', script(te.create_prim_func([A, soft]))
)
print("softmax:", blocks)

# %% cell: tags


def one(tag="", attrs=None):
    """A kernel with a tag or with attributes."""
    out = te.compute((4,), lambda i: row[i] + 1, "x", tag=tag, attrs=attrs)
    return te.create_prim_func([row, out])


equal = tvm_ffi.structural_equal
print("tag:  ", "equal" if equal(one(), one("elemwise")) else "differ")
rule = {"schedule_rule": "None"}
print("attrs:", "equal" if equal(one(), one(attrs=rule)) else "differ")
show(one(attrs=rule), keep="sblock_attr", context=0)

# %% cell: run


def run(result, **arrays):
    """Compile an expression alone, call it, and return the result."""
    inputs = {t.op.name: t for t in placeholders(result)}
    kernel = te.create_prim_func([*inputs.values(), result])
    shape = [int(s) for s in result.shape]
    out = tvm.runtime.tensor(np.zeros(shape, str(result.dtype)))
    tensors = [tvm.runtime.tensor(arrays[name]) for name in inputs]
    tvm.compile(kernel, target="llvm")(*tensors, out)
    return out.numpy()


def placeholders(tensor):
    """Inputs of an expression, each once."""
    if not tensor.op.input_tensors:
        return [tensor]
    found = []
    for t in tensor.op.input_tensors:
        found += [p for p in placeholders(t) if p not in found]
    return found


rng = np.random.default_rng(0)
a, r = rng.standard_normal((4, 8), "float32"), np.ones(8, "float32")
reference = np.sqrt((a * a).sum(axis=1, keepdims=True))
print(np.allclose(run(norm, A=a), reference, atol=1e-5))

# %% cell: division
x, y = (te.placeholder((4,), "int32", name=n) for n in "xy")
values = {
    "x": np.array([-7, 7, -1, 8], "int32"),
    "y": np.array([2, -2, 3, 3], "int32"),
}
for name in ("divide", "floor_divide", "mod", "floor_mod"):
    print(f"{name:14}", run(getattr(topi, name)(x, y), **values))
print("numpy // and %", values["x"] // values["y"], values["x"] % values["y"])
with expect_error(RuntimeError, match="multiple types of integer division"):
    x / y

# %% cell: narrow
small = te.placeholder((4,), "int8", name="small")
hundred = np.full(4, 100, "int8")
print(topi.sum(small).dtype, run(topi.sum(small), small=hundred), end=" ")
print("numpy:", hundred.sum())
by_int32 = topi.sum(topi.cast(small, "int32"))
print(by_int32.dtype, run(by_int32, small=hundred))
print("argmax gives", topi.argmax(A, axis=1).dtype)
half = te.placeholder((4096,), "float16", name="half")
ones = np.ones(4096, "float16")
print(topi.sum(half).dtype, run(topi.sum(half), half=ones).item(), end=" ")
print("numpy:", ones.sum().item())

# %% cell: nan
v = te.placeholder((3,), "float32", name="v")
first, last = (
    np.array(x, "float32") for x in ([np.nan, 1, 2], [1, 2, np.nan])
)
print("relu:", run(topi.nn.relu(v), v=first), " numpy:", np.maximum(first, 0))
for values in (first, last):
    print("max: ", run(topi.max(v), v=values), " numpy:", values.max())

# %% cell: index-type
big = te.placeholder((70000, 70000), "int8", name="big")
copy = te.compute((70000, 70000), lambda i, j: big[i, j], name="copy")
with expect_error(ValueError, match="exceeds range of int32"):
    tvm.compile(te.create_prim_func([big, copy]), target="llvm")
wide = te.create_prim_func([big, copy], index_dtype_override="int64")
tvm.compile(wide, target="llvm")
show(wide, keep="T.grid", context=0)
bb = relax.BlockBuilder()
X = relax.Var("X", relax.TensorType((4, 8), "float32"))
call = bb.call_te(topi.nn.relu, X)
show(bb.get()["relu"], keep="T.grid", context=0)

# %% cell: take
table = te.placeholder((3,), "float32", name="table")
index = te.placeholder((3,), "int32", name="index")
places = np.array([0, -1, 7], "int32")
data = np.array([10, 20, 30], "float32")
for mode in ("clip", "wrap"):
    got = run(topi.take(table, index, mode=mode), table=data, index=places)
    print(f"{mode}:", got)
print("default:", inspect.signature(topi.take).parameters["mode"].default)

# %% cell: solution-logsumexp


def logsumexp(x, axis):
    top = topi.max(x, axis=axis, keepdims=True)
    summed = topi.sum(topi.exp(x - top), axis=axis)
    return topi.log(summed) + topi.squeeze(top, axis=[axis])


wide_values = (a * 100).astype("float32")
expected = np.log(np.exp(wide_values.astype("float64")).sum(axis=1))
plain = topi.log(topi.sum(topi.exp(A), axis=1))
print("by TOPI: ", np.allclose(run(logsumexp(A, 1), A=wide_values), expected))
print("directly:", np.allclose(run(plain, A=wide_values), expected))

# %% cell: solution-mean


def true_mean(x, axis):
    summed = topi.sum(topi.cast(x, "float32"), axis=axis)
    return topi.divide(summed, float(int(x.shape[axis])))


numbers = te.placeholder((2, 3), "int32", name="numbers")
data = np.array([[1, 2, 4], [-1, -2, -5]], "int32")
by_int = topi.divide(topi.sum(numbers, axis=1), tirx.const(3, "int32"))
print("integers:", run(by_int, numbers=data))
print("floats:  ", run(true_mean(numbers, 1), numbers=data))
print("numpy:   ", data.mean(axis=1))

# %% check
assert np.allclose(run(norm, A=a), reference, atol=1e-5)
assert np.allclose(run(logsumexp(A, 1), A=wide_values), expected)
assert np.allclose(run(total, A=a, row=r), a.sum(axis=1), atol=1e-5)
assert np.allclose(
    run(true_mean(numbers, 1), numbers=data), data.mean(axis=1)
)
