"""
Real models: ONNX and PyTorch
=============================

Models made in memory, imported, compiled, run, and compared with numpy and
with the reference evaluator of onnx; PyTorch as recorded elsewhere.
"""

# %% cell: setup
import inspect
import re
import warnings

import numpy as np
import onnx
import onnx.inliner
import tvm
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax
from tvm.relax.frontend import detach_params, nn
from tvm.relax.frontend.onnx import from_onnx, onnx_frontend

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.torch_programs import read_runs, run, where

rng = np.random.default_rng(0)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape, kind=FLOAT):
    """A typed input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def constants(**arrays):
    """Initialisers: the weights of a graph."""
    return [numpy_helper.from_array(a, n) for n, a in arrays.items()]


def model(nodes, inputs, outputs, weights=(), opset=17):
    """An ONNX model that passes the checker of onnx."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets)
    onnx.checker.check_model(made)
    return made


def machine(mod):
    """A virtual machine for a module, on the CPU."""
    return relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())


def run_onnx(made, x, **options):
    """Import, compile, run with one input."""
    return machine(from_onnx(made, **options))["main"](
        tvm.runtime.tensor(x)
    ).numpy()


# %% cell: front-ends
table = onnx_frontend._get_convert_map()
print("front end | function | walks | an unknown operator")
print(f"onnx ({len(table)} operators) | `from_onnx` | ", end="")
print("`graph.node` | `OpNotImplemented`")
for row in (
    "torch | `from_exported_program` | `graph.nodes` | `AssertionError`",
    "torch | `from_fx` | `graph.nodes` | `AssertionError`",
    "tflite | `from_tflite` | the subgraph | `OpNotImplemented`",
    "stablehlo | `from_stablehlo` | an MLIR block | `AssertionError`",
    "nn | `Module.export_tvm` | runs `forward` | there are none",
):
    print(row)

# %% cell: conv
W = rng.standard_normal((4, 3, 3, 3)).astype("float32")
B = rng.standard_normal(4).astype("float32")
conv = model(
    [
        helper.make_node("Conv", ["x", "W", "B"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node(
            "MaxPool", ["r"], ["y"], kernel_shape=[2, 2], strides=[2, 2]
        ),
    ],
    [value("x", [2, 3, 8, 8])],
    [value("y", [2, 4, 4, 4])],
    constants(W=W, B=B),
)
mod = from_onnx(conv)
for binding in mod["main"].body.blocks[0].bindings:
    print(binding.var.name, binding.value.op.name, binding.var.ty)

# %% cell: conv-run
x = rng.standard_normal((2, 3, 8, 8)).astype("float32")
got = run_onnx(conv, x)
want = ReferenceEvaluator(conv).run(None, {"x": x})[0]
np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)

padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
by_hand = np.einsum("nchwij,ocij->nohw", windows, W) + B[:, None, None]
by_hand = np.maximum(by_hand, 0).reshape(2, 4, 4, 2, 4, 2).max((3, 5))
np.testing.assert_allclose(got, by_hand, rtol=1e-4, atol=1e-5)
print("equal to onnx.reference and to numpy", got.shape)

# %% cell: params
print("constants: ", [p.name for p in mod["main"].params])
kept = from_onnx(conv, keep_params_in_input=True)
print("kept:      ", [p.name for p in kept["main"].params])
print("num_input: ", kept["main"].attrs["num_input"])
stripped, params = detach_params(kept)
print("detached:  ", [tuple(p.shape) for p in params["main"]])
print("attributes:", sorted(stripped["main"].attrs.keys()))
bound = relax.transform.BindParams("main", {"W": W, "B": B})(stripped)
print("bound:     ", [p.name for p in bound["main"].params])

# %% check
args = [tvm.runtime.tensor(x), *params["main"]]
np.testing.assert_allclose(
    machine(stripped)["main"](*args).numpy(), want, rtol=1e-4, atol=1e-5
)

# %% cell: walk
fig, _ = boxes_and_arrows(
    {
        "from": (0, 0),
        "init": (0, 1),
        "input": (0, 2),
        "check": (0, 3),
        "nodes": (0, 4),
        "out": (0, 5),
        "convert": (1, 4),
        "pick": (2, 4),
        "impl": (2, 3),
        "norm": (1, 3),
    },
    [
        ("from", "init"),
        ("init", "input"),
        ("input", "check"),
        ("check", "nodes"),
        ("nodes", "out"),
        ("nodes", "convert"),
        ("convert", "pick"),
        ("pick", "impl"),
        ("impl", "norm"),
        ("norm", "nodes"),
    ],
    labels={
        "from": "from_onnx:\ncheck_model, opset",
        "init": "_parse_graph_initializers:\nconstants or variables",
        "input": "_parse_graph_input:\nrelax.Var, symbolic sizes",
        "check": "_check_for_unsupported_ops:\nOpNotImplemented",
        "nodes": "_construct_nodes:\neach node, in file order",
        "out": "emit_output,\nattributes",
        "convert": "_convert_operator:\nname to class",
        "pick": "get_converter(opset):\nlargest _impl_vN <= opset",
        "impl": "_impl_vN:\nrelax.op calls",
        "norm": "bb.normalize:\ntype of the result",
    },
    colors={"convert": "green", "pick": "green", "impl": "green"},
    title="ONNXGraphImporter",
)

# %% cell: attention
D = 8
weights = {f"W{c}": rng.standard_normal((D, D), "float32") for c in "qkv"}
weights["scale"] = np.array(D**-0.5, "float32")
attention = model(
    [
        *(helper.make_node("MatMul", ["x", f"W{c}"], [c]) for c in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ],
    [value("x", ["batch", "seq", D])],
    [value("y", ["batch", "seq", D])],
    constants(**weights),
)
mod = from_onnx(attention)
print(mod["main"].params[0].ty)
for binding in mod["main"].body.blocks[0].bindings[-4:]:
    print(binding.value.op.name, binding.var.ty.shape)

compiled = machine(mod)
for batch, length in ((1, 3), (2, 5)):
    x = rng.standard_normal((batch, length, D), "float32")
    got = compiled["main"](tvm.runtime.tensor(x)).numpy()
    want = ReferenceEvaluator(attention).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    print("equal for", x.shape)

# %% cell: sizes


def first_type(sizes, **options):
    """Type of the parameter of a `Relu` with these sizes."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    made = model(nodes, [value("x", sizes)], [value("y", sizes)])
    return from_onnx(made, **options)["main"].params[0].ty


print("named:     ", first_type(["n", 4]))
print("nameless:  ", first_type([None, None, 4]))
print("arithmetic:", first_type(["n", "2 * n"]))
print("precedence:", first_type(["n", "m", "n + 2 * m"]))
print("fixed:     ", first_type(["n", 4], shape_dict={"x": [3, 4]}))

first, second, _ = first_type([None, None, 4]).shape
print("nameless sizes are one variable:", first.same_as(second))
nodes = [helper.make_node("Relu", ["x"], ["y"])]
sizes = [None, None, 4]
nameless = model(nodes, [value("x", sizes)], [value("y", sizes)])
with expect_error(RuntimeError, match="match_shape|shape"):
    run_onnx(nameless, np.zeros((2, 3, 4), "float32"))

# %% cell: names


def first_parameter(name, **options):
    """Parameter of a `Relu` whose input has this name."""
    nodes = [helper.make_node("Relu", [name], ["y"])]
    made = model(nodes, [value(name, [2])], [value("y", [2])])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = from_onnx(made, **options)["main"].params[0]
    return made, [str(warning.message) for warning in caught]


for name in ("input.1", "1x", "a/b:0"):
    parameter, messages = first_parameter(name)
    print(f"{name:8} {parameter.name:9}", *messages)
for kind in ("float16", {"x": "float16"}):
    print(kind, first_parameter("x", dtype_dict=kind)[0].ty)

# %% cell: shapes
reshape = model(
    [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ],
    [value("x", ["n", 2, 3])],
    [value("y", ["n", 6])],
    constants(
        zero=np.int64(0),
        axes=np.array([0], "int64"),
        rest=np.array([-1], "int64"),
    ),
)
show(from_onnx(reshape))

# %% cell: shape-refused
doubled = model(
    [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "two"], ["y"]),
    ],
    [value("x", ["n", 2])],
    [value("y", [2], INT64)],
    constants(two=np.array([2, 2], "int64")),
)
with expect_error(ValueError, match="ShapeExpr"):
    with quiet():
        from_onnx(doubled)

# %% cell: opsets
versions = (1, 11, 12, 13, 99)
for name in ("Softmax", "ReduceSum", "Relu"):
    picked = [table[name].get_converter(v).__name__ for v in versions]
    print(f"{name:9}", dict(zip(versions, picked, strict=True)))

# %% cell: softmax
x = rng.standard_normal((2, 3, 4), "float32")


def softmax(a, axis):
    """Softmax along one axis, in numpy."""
    e = np.exp(a - a.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


flat = softmax(x.reshape(2, 12), 1).reshape(x.shape)
for opset in (11, 13):
    made = model(
        [helper.make_node("Softmax", ["x"], ["y"])],
        [value("x", [2, 3, 4])],
        [value("y", [2, 3, 4])],
        opset=opset,
    )
    results = {
        "TVM": run_onnx(made, x),
        "onnx.reference": ReferenceEvaluator(made).run(None, {"x": x})[0],
    }
    for name, y in results.items():
        last, flattened = (np.allclose(y, z) for z in (softmax(x, -1), flat))
        print(opset, f"{name:14} last axis: {last}, flattened: {flattened}")

# %% cell: opset-trap
old = model(
    [helper.make_node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0)],
    [value("x", [2, 3, 4])],
    [value("y", [2, 4])],
    opset=11,
)
for opset in (None, 13):
    print(f"opset={opset}: shape", run_onnx(old, x, opset=opset).shape)

# %% cell: unsupported
celu = model(
    [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Celu", ["r"], ["y"], alpha=2.0),
    ],
    [value("x", [4])],
    [value("y", [4])],
)
with expect_error(tvm.error.OpNotImplemented, match="Celu"):
    from_onnx(celu)
names = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
print("operators of ONNX:", len(names), "known:", len(names & set(table)))
for name in ("LSTM", "GRU", "Loop", "Scan", "Attention"):
    print(f"{name:9}", "known" if name in table else "unknown")

# %% cell: branch
arms = {}
for arm, op in (("then_branch", "Celu"), ("else_branch", "Relu")):
    arms[arm] = helper.make_graph(
        [helper.make_node(op, ["x"], [arm])], arm, [], [value(arm, [4])]
    )
chosen = model(
    [helper.make_node("If", ["p"], ["y"], **arms)],
    [value("p", [], TensorProto.BOOL), value("x", [4])],
    [value("y", [4])],
)
with expect_error(NotImplementedError, match="Celu"):
    with quiet():
        from_onnx(chosen)

# %% cell: domain
foreign = helper.make_model(
    helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], domain="mine")],
        "graph",
        [value("x", [4])],
        [value("y", [4])],
    ),
    opset_imports=[
        helper.make_opsetid("", 17),
        helper.make_opsetid("mine", 1),
    ],
)
mod = from_onnx(foreign)
print(mod["main"].body.blocks[0].bindings[0].value.op.name)

# %% cell: inline
known = onnx.inliner.inline_selected_functions(
    celu, [("", "Celu")], inline_schema_functions=True
)
print([node.op_type for node in known.graph.node])
x = np.array([-1, 0, 1, 2], "float32")
want = ReferenceEvaluator(celu).run(None, {"x": x})[0]
np.testing.assert_allclose(run_onnx(known, x), want, rtol=1e-5, atol=1e-6)

# %% cell: torch
facts, runs = read_runs(data("torch_runs.txt"))
print("PyTorch here:", where())
print("recorded with", facts)
for name in ("import_model", "unsupported"):
    print(f"{name}: shown as", run(name, runs[name]))

# %% cell: torch-program
print(runs["import_model"].program, end="")

# %% cell: torch-output
for line in runs["import_model"].output.splitlines():
    print(line)

# %% cell: torch-unsupported
print(*runs["unsupported"].program.split("\n\n\n")[-2:], sep="\n\n", end="")

# %% cell: torch-unsupported-output
print(runs["unsupported"].output, end="")


# %% cell: nn
class Block(nn.Module):
    """The block of the first cell, as a module of `frontend.nn`."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3, padding=1)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        return nn.op.relu(self.conv(x))


spec = {"forward": {"x": nn.spec.Tensor([2, 3, 8, 8], "float32")}}
mod, named = Block().export_tvm(spec)
print([name for name, _ in named])
print([p.name for p in mod["forward"].params])
x = rng.standard_normal((2, 3, 8, 8), "float32")
args = [tvm.runtime.tensor(a) for a in (x, W, B)]
y = machine(mod)["forward"](*args).numpy()
pooled = y.reshape(2, 4, 4, 2, 4, 2).max((3, 5))
print("equal:", np.allclose(pooled, run_onnx(conv, x), rtol=1e-4, atol=1e-5))


# %% cell: solution-converter
class Celu(onnx_frontend.OnnxOpConverter):
    """Celu: max(0, x) + min(0, a * (exp(x / a) - 1))."""

    @classmethod
    def _impl_v12(cls, bb, inputs, attr, params):
        x, alpha = inputs[0], relax.const(attr.get("alpha", 1.0), "float32")
        grown = relax.op.exp(relax.op.divide(x, alpha))
        low = relax.op.multiply(
            alpha, relax.op.subtract(grown, relax.const(1.0, "float32"))
        )
        zero = relax.const(0.0, "float32")
        return relax.op.add(
            relax.op.maximum(x, zero), relax.op.minimum(low, zero)
        )


original = onnx_frontend._get_convert_map
onnx_frontend._get_convert_map = lambda: {**original(), "Celu": Celu}
try:
    x = np.array([-3, -1, 0, 2], "float32")
    want = ReferenceEvaluator(celu).run(None, {"x": x})[0]
    np.testing.assert_allclose(run_onnx(celu, x), want, rtol=1e-5, atol=1e-6)
    print("equal to onnx.reference")
finally:
    onnx_frontend._get_convert_map = original

# %% cell: solution-frozen
summed = model(
    [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
    [value("x", [2, 3])],
    [value("y", ["m"])],
    constants(axes=np.array([1], "int64")),
)
kept, params = detach_params(from_onnx(summed, keep_params_in_input=True))
print([p.name for p in kept["main"].params], kept["main"].ret_ty)
x = tvm.runtime.tensor(np.ones((2, 3), "float32"))
for axis in (1, 0):
    axes = tvm.runtime.tensor(np.array([axis], "int64"))
    print("axes =", axis, machine(kept)["main"](x, axes).numpy())

# %% check
glue("known", len(table))
glue(
    "folding",
    len(
        re.findall(
            r'"\w+"',
            inspect.getsource(
                onnx_frontend.ONNXGraphImporter._construct_nodes
            )
            .split("shape_compatible_ops = [")[1]
            .split("]")[0],
        )
    ),
)
assert {"LSTM", "GRU", "Loop", "Scan"}.isdisjoint(table)
assert issubclass(tvm.error.OpNotImplemented, NotImplementedError)
