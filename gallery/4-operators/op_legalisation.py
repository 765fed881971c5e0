"""
Legalisation: from operators to kernels
=======================================

What `LegalizeOps` does with one call: whom it asks in which order, when it
refuses, what a legalisation may return, and how targets get other kernels.
"""

# %% cell: setup
import re
from pathlib import Path

import numpy as np
import tvm
from tvm import relax, tirx, topi
from tvm.ir import Op, register_op_attr
from tvm.relax.transform import LegalizeOps
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import bar_chart, boxes_and_arrows
from tvm_deepdive_helpers.ir import script, show
from tvm_deepdive_helpers.isolate import run_isolated

RELAX = [n for n in Op.list_op_names() if n.startswith("relax.")]


def program(build, *params):
    """A module whose function `main` computes `build(*params)`."""
    bb = relax.BlockBuilder()
    with bb.function("main", list(params)):
        with bb.dataflow():
            result = bb.emit_output(build(*params))
        bb.emit_func_output(result)
    return bb.get()


def bindings(mod):
    """Print the bindings of `main` without the types of the results."""
    for line in script(mod["main"]).splitlines():
        if re.match(r"\s+\w+(: .*)? = R\.", line):
            name, value = line.split(" = ", 1)
            value = re.sub(r", (out_ty|ty_args)=.*", ", …)", value)
            print(f"{name.split(':')[0].strip()} = {value}")


x = relax.Var("x", R.Tensor((4, 8), "float32"))

# %% cell: before-after


@I.ir_module
class Several:
    @R.function
    def main(
        x: R.Tensor((2, 8, 16), "float32"), w: R.Tensor((16, 4), "float32")
    ):
        with R.dataflow():
            a = R.matmul(x, w)
            b = R.nn.softmax(a)
            c = R.mean(b, axis=1)
            d = R.add(c, c)
            e = R.add(d, c)
            f = R.cumsum(e, axis=1)
            R.output(f)
        return f


legal = LegalizeOps()(Several)
bindings(legal)
kernels = sorted(
    var.name_hint
    for var, func in legal.functions_items()
    if isinstance(func, tirx.PrimFunc)
)
print("kernels:", kernels)
print("attributes:", sorted(legal["softmax"].attrs.keys()))

# %% cell: steps
fig, _ = boxes_and_arrows(
    {
        "op": (1, 0),
        "shapes": (1, 1),
        "map": (1, 2),
        "legal": (1, 3),
        "keep": (2, 0),
        "packed": (2, 2),
        "name": (2, 3),
        "run": (0, 2.5),
        "fix": (1, 4),
        "again": (1, 5),
    },
    {
        ("op", "shapes"): "yes",
        ("op", "keep"): "no",
        ("shapes", "map"): "yes",
        ("shapes", "packed"): "no",
        ("map", "legal"): "no",
        ("map", "run"): "yes",
        ("legal", "run"): "yes",
        ("legal", "packed"): "no",
        ("packed", "keep"): "no",
        ("packed", "name"): "yes",
        ("run", "fix"): "",
        ("name", "fix"): "",
        ("fix", "again"): "",
    },
    labels={
        "op": "callee is an operator,\nnot in skip_ops?",
        "shapes": "shapes known, or\nnot required?",
        "map": "in the map?",
        "legal": "FLegalize?",
        "packed": "FCallPacked?",
        "keep": "leave the call",
        "name": "call the packed\nfunction",
        "run": "run the function\nin a new block",
        "fix": "bind the target, normalise,\nwrap in call_pure_packed",
        "again": "visit the result\nif it is another object",
    },
    colors={"keep": "brown"}
    | dict.fromkeys(("run", "name", "fix", "again"), "green"),
    column=2.5,
    row=0.95,
    title="LegalizeMutator and one call",
)

# %% cell: priority
NAME = "relax.deepdive_fft"
register_op_attr(NAME, "FInferType", lambda call, bb: call.args[0].ty)
register_op_attr(NAME, "FPurity", True)
fft = Op.get(NAME)


def to_exp(bb, call):
    return relax.op.exp(call.args[0])


def to_tanh(bb, call):
    return relax.op.tanh(call.args[0])


mod = program(lambda x: relax.Call(fft, [x]), x)
print("nothing registered: ", end=" ")
bindings(LegalizeOps()(mod))
register_op_attr(NAME, "FCallPacked", "deepdive.fft")
print("FCallPacked:        ", end=" ")
bindings(LegalizeOps()(mod))
register_op_attr(NAME, "FLegalize", to_tanh)
print("and FLegalize:      ", end=" ")
bindings(LegalizeOps()(mod))
print("and a customised map:", end="")
bindings(LegalizeOps({NAME: to_exp})(mod))

# %% cell: shapes
ndim = Op.get("relax.inspect.tensor_ndim")
sizes = [relax.Var(n, R.Tensor((1,), "int64")) for n in ("b", "e", "s")]
vector = relax.Var("x", R.Tensor((8,), "float32"))
n = tirx.Var("n", "int64")
CASES = {
    "(4, 8)": (relax.op.nn.relu, [x]),
    "(n, 8)": (
        relax.op.nn.relu,
        [relax.Var("x", R.Tensor((n, 8), "float32"))],
    ),
    "two dimensions": (
        relax.op.nn.relu,
        [relax.Var("x", R.Tensor(dtype="float32", ndim=2))],
    ),
    "with FCallPacked": (
        lambda x: relax.Call(fft, [x]),
        [relax.Var("x", R.Tensor(dtype="float32", ndim=2))],
    ),
    "ndim of a tensor": (
        lambda x: relax.Call(ndim, [x]),
        [relax.Var("x", R.Tensor(dtype="float32"))],
    ),
    "sliced by data": (
        relax.op.dynamic_strided_slice,
        [vector, *sizes],
    ),
}
for what, (build, params) in CASES.items():
    main = script(LegalizeOps()(program(build, *params))["main"])
    value = main.splitlines()[-3].split(" = ")[1].split("(")
    print(f"{what:18}{value[0]}({value[1].split(',')[0].strip(')')}, …)")

# %% cell: data-dependent
sliced = program(relax.op.dynamic_strided_slice, vector, *sizes)
bindings(LegalizeOps()(sliced))

# %% cell: unknown-fails
unknown = program(*[CASES["two dimensions"][0]], *CASES["two dimensions"][1])
with expect_error(tvm.error.InternalError, match="Offending", max_lines=3):
    tvm.compile(unknown, target="llvm")

# %% cell: warnings


def warn():
    """Two calls that cannot be legalised."""
    from tvm import relax
    from tvm.script import relax as R

    for ty, function in (
        (R.Tensor((8,), "float32"), relax.op.cumsum),
        (R.Tensor(dtype="float32", ndim=2), relax.op.nn.relu),
    ):
        bb = relax.BlockBuilder()
        x = relax.Var("x", ty)
        with bb.function("main", [x]):
            bb.emit_func_output(bb.emit(function(x)))
        relax.transform.LegalizeOps(enable_warning=True)(bb.get())


for line in run_isolated(warn).stderr.splitlines():
    if "Warning: " in line:
        print(line.partition("Warning: ")[2])

# %% cell: options


def double(bb, call):
    return bb.call_te(topi.add, call.args[0], call.args[0])


relu = program(relax.op.nn.relu, x)
print("replaced:  ", end=" ")
bindings(LegalizeOps({"relax.nn.relu": double})(relu))
print("skipped:   ", end=" ")
skip = ["relax.nn.relu"]
bindings(LegalizeOps({"relax.nn.relu": double}, skip_ops=skip)(relu))
print("a slip:    ", end=" ")
bindings(LegalizeOps({"relax.nn.rellu": double})(relu))
with expect_error(AttributeError, match="rellu is not registered"):
    LegalizeOps(skip_ops=["relax.nn.rellu"])(relu)
off = {"relax.transform.apply_legalize_ops": False}
with tvm.transform.PassContext(config=off):
    print("turned off:", end=" ")
    bindings(LegalizeOps()(relu))

# %% cell: recursion


def to_relax(bb, call):
    half = bb.emit(relax.op.multiply(call.args[0], relax.const(0.5)))
    return relax.op.add(half, relax.op.abs(half))


composed = LegalizeOps({"relax.nn.relu": to_relax})(relu)
bindings(composed)
show(composed["multiply"], keep="multiply_?.*=|T_multiply.* = ", context=0)

# %% cell: may-return


def wrong_shape(bb, call):
    return bb.call_te(topi.sum, call.args[0])


RETURNS = {
    "the argument": lambda bb, call: call.args[0],
    "the call": lambda bb, call: call,
    "a number": lambda bb, call: 3,
    "another shape": wrong_shape,
}
for what, function in RETURNS.items():
    after = LegalizeOps({"relax.nn.relu": function})(relu)
    lines = script(after["main"]).splitlines()
    value = lines[3].split(" = ")[1].split(", ")[0]
    ok = relax.analysis.check_well_formed(after)
    print(f"{what:14} {value:22}", after["main"].ret_ty, ok)

# %% cell: te-tensor


def errors():
    """A tensor of TE as a result, and an exception."""
    from tvm import relax, te, topi
    from tvm.script import relax as R

    for function in (
        lambda bb, call: topi.nn.relu(te.placeholder((4, 8))),
        lambda bb, call: 1 / 0,
    ):
        bb = relax.BlockBuilder()
        x = relax.Var("x", R.Tensor((4, 8), "float32"))
        with bb.function("main", [x]):
            bb.emit_func_output(bb.emit(relax.op.nn.relu(x)))
        try:
            relax.transform.LegalizeOps({"relax.nn.relu": function})(bb.get())
        except Exception as error:
            print(f"{type(error).__name__}: {error}")


print(run_isolated(errors).stdout)

# %% cell: crashes, varies


def forgotten():
    """A legalisation without `return`."""
    from tvm import relax
    from tvm.script import relax as R

    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((4, 8), "float32"))
    with bb.function("main", [x]):
        bb.emit_func_output(bb.emit(relax.op.nn.relu(x)))
    legalise = {"relax.nn.relu": lambda bb, call: None}
    relax.transform.LegalizeOps(legalise)(bb.get())


def endless():
    """A legalisation whose result contains the operator again."""
    from tvm import relax
    from tvm.script import relax as R

    bb = relax.BlockBuilder()
    x = relax.Var("x", R.Tensor((4, 8), "float32"))
    with bb.function("main", [x]):
        bb.emit_func_output(bb.emit(relax.op.nn.relu(x)))
    again = relax.op.nn.relu
    legalise = {
        "relax.nn.relu": lambda bb, call: again(
            relax.op.negative(call.args[0])
        )
    }
    relax.transform.LegalizeOps(legalise)(bb.get())


crashes = [run_isolated(f) for f in (forgotten, endless)]
for what, crash in zip(("None", "itself again"), crashes, strict=True):
    print(f"{what:13}", crash.describe())

# %% cell: pure


def to_packed(bb, call):
    return relax.Call(
        relax.ExternFunc("deepdive.relu"),
        call.args,
        None,
        [call.ty],
    )


bindings(LegalizeOps({"relax.nn.relu": to_packed})(relu))

# %% cell: vdevice


@I.ir_module
class TwoDevices:
    I.module_global_infos(
        {
            "vdevice": [
                I.vdevice("llvm"),
                I.vdevice({"kind": "cuda", "arch": "sm_80"}, 0),
            ]
        }
    )

    @R.function
    def main(
        x: R.Tensor((4, 8), "float32"),
        y: R.Tensor((4, 8), "float32", vdevice="cuda"),
    ):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.nn.relu(y)
            R.output(a, b)
        return (a, b)


split = LegalizeOps()(TwoDevices)
bindings(split)
for var, func in split.functions_items():
    if isinstance(func, tirx.PrimFunc):
        target = func.attrs.get("target")
        print(f"{var.name_hint:10}", target and target.kind.name)

# %% cell: dispatch
scan = program(lambda x: relax.op.cumsum(x, axis=0), vector)
dispatch = relax.backend.DispatchSortScan()
for kind in ("llvm", {"kind": "cuda", "arch": "sm_80"}):
    with tvm.target.Target(kind) as target:
        print(f"# {target.kind.name}")
        bindings(dispatch(scan))
with expect_error(ValueError, match="Target not found"):
    dispatch(scan)

# %% cell: cpu-scan
with tvm.target.Target("llvm"):
    show(dispatch(scan)["cumsum"], lines=(4, 17))

# %% cell: reshape
flat = program(lambda x: relax.op.exp(relax.op.reshape(x, (32,))), x)
flat = LegalizeOps()(flat)
main = relax.transform.RewriteDataflowReshape()(flat)
for stage in (flat, main):
    show(stage["main"], keep="reshape", context=0)

# %% cell: files
folder = Path(relax.transform.legalize_ops.__file__).parent
rows = {}
for path in sorted(folder.glob("*.py")):
    found = re.findall(
        r'register_legalize\(\s*"(relax[\w.]+)"', path.read_text()
    )
    if found:
        rows[path.name] = len(set(found))
rows = dict(sorted(rows.items(), key=lambda kv: -kv[1]))
fig, _ = bar_chart(
    rows,
    form="d",
    unit="operators",
    title="Legalisations by file of relax/transform/legalize_ops",
)

# %%
have = [n for n in RELAX if Op.get(n).get_attr("FLegalize") is not None]
have = [n for n in have if "deepdive" not in n]
glue("in-python", sum(rows.values()))
glue("all", len(have))
glue("in-cpp", len(have) - sum(rows.values()))

# %% cell: solution-gelu


def gelu_by_tanh(bb, call):
    (x,) = call.args
    c = relax.const(float(np.sqrt(2 / np.pi)))
    cube = relax.op.multiply(x, relax.op.multiply(x, x))
    inner = relax.op.add(x, relax.op.multiply(relax.const(0.044715), cube))
    tanh = relax.op.tanh(relax.op.multiply(c, inner))
    factor = relax.op.add(relax.const(1.0), tanh)
    return relax.op.multiply(relax.op.multiply(relax.const(0.5), x), factor)


gelu = program(relax.op.nn.gelu, x)
data = np.linspace(-3, 3, 32, dtype="float32").reshape(4, 8)
results = []
for custom in ({}, {"relax.nn.gelu": gelu_by_tanh}):
    ex = tvm.compile(LegalizeOps(custom)(gelu), target="llvm")
    vm = relax.VirtualMachine(ex, tvm.cpu())
    results.append(vm["main"](tvm.runtime.tensor(data)).numpy())
print("difference below 0.001:", np.abs(results[0] - results[1]).max() < 1e-3)

# %% cell: solution-left


def left_over(mod):
    """Operators that no legalisation replaced."""
    names = set()
    lowered = {"relax.call_tir", "relax.call_pure_packed"}

    def visit(expr):
        if isinstance(expr, tvm.ir.Call) and isinstance(expr.op, Op):
            names.add(expr.op.name)

    for func in LegalizeOps()(mod).functions.values():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return sorted(names - lowered)


print(left_over(Several), left_over(unknown), left_over(relu))

# %% check
assert np.abs(results[0] - results[1]).max() < 1e-3
assert left_over(Several) == ["relax.cumsum"]
assert all(not crash.ok for crash in crashes)
assert kernels == ["add", "matmul", "mean", "softmax"]
