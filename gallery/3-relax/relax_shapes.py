"""
Shapes: symbolic variables from declaration to run time
=======================================================

How symbolic variables are defined, what is proved about shape expressions,
what is erased, and how a compiled function computes shapes while it runs.
"""

# %%
import gc
import re

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, sym, tirx
from tvm.relax import ShapeType as Shape
from tvm.relax import TensorType as Tensor
from tvm.relax import analysis, op
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import show

n, m, k = (tirx.Var(name, "int64") for name in "nmk")


def text(ty):
    """A type or expression as one prints it, a little shorter."""
    out = str(ty).replace("R.", "").replace("dtype=", "")
    out = re.sub(r"T.int64\((-?\d+)\)", r"\1", out)
    return out.replace("float", "f").replace('"', "")


def ones(*shape, dtype="float32"):
    return tvm.runtime.tensor(np.ones(shape, dtype))


def machine(module):
    executable = tvm.compile(module, target="llvm")
    return relax.VirtualMachine(executable, tvm.cpu())


# %% cell: three-ways


@I.ir_module
class ThreeWays:
    @R.function
    def by_tensor(x: R.Tensor(("n * 2",), "float32"), y: R.Tensor(("n",))):
        n = T.int64()
        return R.reshape(x, R.shape([n, 2]))

    @R.function
    def by_shape(s: R.Shape(["n"]), x: R.Tensor(("n * 2",), "float32")):
        n = T.int64()
        return R.reshape(x, R.shape([n, 2]))

    @R.function
    def by_scalar(n: T.int64, x: R.Tensor(("n * 2",), "float32")):
        return R.reshape(x, R.shape([n, 2]))


vm = machine(ThreeWays)
print(vm["by_tensor"](ones(6), ones(3)).shape)
print(vm["by_shape"](tvm_ffi.Shape([3]), ones(6)).shape)
print(vm["by_scalar"](3, ones(6)).shape)

# %% cell: undefined
with expect_error(
    tvm.error.DiagnosticError, match="'half' is not defined", max_lines=1
):

    @R.function
    def by_nobody(x: R.Tensor(("half * 2",), "float32")):
        return x


# %% check
gc.collect()  # The parser's builder warns when it goes, not in a cell below.

# %% cell: python-name
size = 6


@R.function(private=True)
def from_python(x: R.Tensor(("n", "size * 2"), "float32")):
    return x


print(from_python.params[0].ty, "| this n is Python's:", end=" ")
print(from_python.params[0].ty.shape[0].same_as(n))

# %% cell: arithmetic
x = relax.Var("x", Tensor((n, 4)))
image = relax.Var("image", Tensor((1, 3, n, m)))
filters = relax.Var("filters", Tensor((8, 3, 3, 3)))
builder = relax.BlockBuilder()
with builder.testing_scope([n, m]):
    for call in (
        op.concat([x, x], 0),
        op.reshape(x, (-1, 2)),
        op.strided_slice(x, axes=[0], begin=[1], end=[n]),
        op.tile(x, (2, 3)),
        op.nn.max_pool2d(image, (2, 2), (2, 2)),
        op.nn.conv2d(image, filters, strides=(2, 2)),
    ):
        print(f"{call.op.name:22} {text(builder.normalize(call).ty)}")

# %% cell: proofs
analyzer = sym.Analyzer()
for left, right in (
    ((n + m) * 4, n * 4 + m * 4),
    (n * (m + 1), n * m + n),
    (n * 4 // 4, n),
    (n // 2 * 2, n),
    ((n + 7) // 8 * 8, n),
    (tirx.max(n, 0), n),
    (n + 1, n),
):
    equal = analyzer.can_prove_equal(left, right)
    differ = analyzer.can_prove(left != right)
    word = "equal" if equal else "different" if differ else "unknown"
    print(f"{text(left):18} {text(right):14} {word}")
with analyzer.constraint_scope(n >= 0):
    equal = analyzer.can_prove_equal(tirx.max(n, 0), n)
print("with n >= 0, max(n, 0) and n are equal:", equal)

# %% check
for left in range(8):
    for right in range(8):
        assert (left + right) * 4 == left * 4 + right * 4
        assert left * (right + 1) == left * right + left

# %% cell: silent


@I.ir_module
class TooLong:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32")):
        n = T.int64()
        y = R.reshape(x, R.shape([n * 3, 2]))
        return y


eight = tvm.runtime.tensor(np.arange(8, dtype="float32").reshape(2, 4))
result = machine(TooLong)["main"](eight)
print(result.shape, result.numpy().astype(int).reshape(-1).tolist())
with expect_error(ValueError, match="convertible"):
    builder.normalize(op.reshape(relax.Var("y", Tensor((2, 4))), (6, 2)))

# %% cell: match


@I.ir_module
class Matches:
    @R.function
    def main(x: R.Tensor(("n", 4), "float32"), u: R.Tensor(dtype="float32")):
        n, m = T.int64(), T.int64()
        v = R.match_cast(u, R.Tensor((m, 4), "float32"))
        w = R.match_cast(v, R.Tensor((n + 1, 4), "float32"))
        y = R.concat((x, w), axis=0)
        return R.reshape(y, R.shape([(n + m) * 4]))


show(Matches["main"])

# %% cell: lost-comparison


@I.ir_module
class Lost:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor((8,), "float32")):
        n = T.int64()
        same = R.match_cast(y, R.Tensor((n,), "float32"))
        return R.zeros(R.shape([n, 2]), "float32")


after = relax.transform.KillAfterLastUse()(Lost)["main"]
print("match_cast left:", "match_cast" in after.script())
lost = machine(Lost)["main"](ones(3), ones(8))
print("n is 3, zeros of (n, 2):", lost.shape)

# %% check
assert lost.shape == (8, 2) and "match_cast" not in after.script()

# %% cell: run
vm = machine(Matches)
for rows in (0, 1, 30):
    result = vm["main"](ones(rows, 4), ones(rows + 1, 4))
    print(rows, "->", result.shape)

# %% check
a = np.arange(8, dtype="float32").reshape(2, 4)
b = np.arange(12, dtype="float32").reshape(3, 4)
result = vm["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b)).numpy()
assert np.array_equal(result, np.concatenate([a, b]).reshape(-1))

# %% cell: run-errors
calls = {
    "constant": (ones(2, 5), ones(3, 4)),
    "expression": (ones(2, 4), ones(4, 4)),
    "rank": (ones(2, 4, 1), ones(3, 4)),
    "rank of u": (ones(2, 4), ones(3)),
    "dtype": (ones(2, 4, dtype="int32"), ones(3, 4)),
    "kind": (3, ones(3, 4)),
    "number": (ones(2, 4),),
}
for name, arguments in calls.items():
    try:
        vm["main"](*arguments)
    except Exception as error:  # each has a class of its own
        kind = type(error).__name__
        where, _, what = str(error).partition(") ")
        what = what.partition("  ")[2] or what.partition(": ")[2]
        print(f"{name:11}{kind:14}{what}")

# %% check
for arguments in calls.values():
    with expect_error(
        (RuntimeError, ValueError, TypeError, tvm.error.InternalError),
        show=False,
    ):
        vm["main"](*arguments)

# %% cell: error-context
with expect_error(RuntimeError, match="previous populated"):
    vm["main"](ones(2, 4), ones(4, 4))
with expect_error(RuntimeError, match=r"loc=param\[0\]"):
    vm["main"](ones(2, 5), ones(3, 4))

# %% cell: bytecode


@I.ir_module
class Join:
    @R.function
    def main(
        x: R.Tensor(("n", 4), "float32"), y: R.Tensor(("m", 4), "float32")
    ):
        z = R.concat((x, y), axis=0)
        return z


print(tvm.compile(Join, target="llvm").as_text().partition("\n\n")[0])

# %% cell: shape-func
with tvm.target.Target("llvm"):
    lowered = relax.get_pipeline("default")(Join)
# The order of the two lines differs from run to run.
lines = map(str.strip, lowered["shape_func"].script().splitlines())
print(*sorted(line for line in lines if line.startswith("H[")), sep="\n")

# %% cell: heap
fig, _ = layered_graph(
    {
        "x": "x.shape = (n, 4)",
        "y": "y.shape = (m, 4)",
        "n": "heap[0]  n",
        "m": "heap[1]  m",
        "f": "shape_func",
        "bytes": "heap[2]  bytes",
        "nm": "heap[3]  n + m",
        "storage": "alloc_storage",
        "tensor": "alloc_tensor\n(n + m, 4)",
    },
    {
        ("x", "n"): "match_shape: store",
        ("y", "m"): "match_shape: store",
        ("n", "f"): "",
        ("m", "f"): "",
        ("f", "bytes"): "",
        ("f", "nm"): "",
        ("bytes", "storage"): "make_shape",
        ("nm", "tensor"): "make_shape",
        ("storage", "tensor"): "",
    },
    groups={"shape heap": ["n", "m", "f", "bytes", "nm"]},
    colors={"f": "vermilion", "storage": "green", "tensor": "green"},
    width=5.6,
)
alt(fig, "From shapes of arguments through the shape heap to allocations.")

# %% cell: queries
function = Matches["main"]
print("defined:", sorted(map(str, analysis.defined_symbolic_vars(function))))
print("free:   ", analysis.free_symbolic_vars(function))
body = function.body
print("free in the body:", analysis.free_symbolic_vars(body))
ty = Tensor((n, m * 2, n + 1))
print("used in the type:  ", analysis.tir_vars_in_type(ty))
print("defined by the type:", analysis.definable_tir_vars_in_type(ty))

# %% cell: erase
ty = ir.TupleType([Tensor((n,)), Tensor((m, 4)), Shape([n, m])])
erase = analysis.erase_to_well_defined
print("nothing known:", text(erase(ty)))
print("n known:      ", text(erase(ty, {n: n})))
print("n is 3, m is k + 1:")
print("   ", text(erase(ty, {n: tirx.const(3, "int64"), m: k + 1})))

# %% cell: bind
fixed = Join["main"].bind_symbolic_vars({"n": 2, "m": 3})
print(text(fixed.ret_ty))

# %% cell: from-data


@I.ir_module
class FromData:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), t: R.Tensor((2,), "int64")):
        height = T.int64()
        width = T.int64()
        found = R.tensor_to_shape(t)
        _ = R.match_cast(found, R.Shape([height, width]))
        y = R.reshape(x, R.shape([height, width]))
        return R.add(y, y)

    @R.function
    def sizes(x: R.Tensor(("n", "m"), "float32")):
        return R.shape_to_tensor(R.shape_of(x))


vm = machine(FromData)
wanted = tvm.runtime.tensor(np.array([2, 3]))
print("shape:", vm["main"](ones(6), wanted).shape)
print("sizes:", vm["sizes"](ones(2, 5)).numpy())

# %% cell: solution-static
sizes = {}
for name, made in (("dynamic", Join["main"]), ("static", fixed)):
    module = tvm.IRModule({"main": made})
    code = tvm.compile(module, target="llvm").as_text().partition("\n\n")[0]
    calls = re.findall(r"call +(\S+)", code)
    sizes[name] = len(calls)
    print(
        f"{name}: {len(calls)} calls,",
        calls.count("shape_func"),
        "shape functions,",
        calls.count("vm.builtin.make_shape"),
        "shapes",
    )
glue("dynamic_calls", sizes["dynamic"])
glue("static_calls", sizes["static"])

# %% check
both = machine(tvm.IRModule({"main": fixed}))
assert both["main"](ones(2, 4), ones(3, 4)).shape == (5, 4)
with expect_error(RuntimeError, match="constant", show=False):
    both["main"](ones(3, 4), ones(3, 4))

# %% cell: solution-pairs


@I.ir_module
class Pairs:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), half: R.Tensor(("h",), "int8")):
        n, h = T.int64(), T.int64()
        even = R.match_cast(x, R.Tensor((h * 2,), "float32"))
        rows = R.reshape(even, R.shape([h, 2]))
        return R.sum(rows, axis=[1])


vm = machine(Pairs)
print(vm["main"](ones(6), ones(3, dtype="int8")).numpy())
with expect_error(RuntimeError, match="5 vs. 4", max_lines=1):
    vm["main"](ones(5), ones(2, dtype="int8"))
