"""
The core components, each in one cell
=====================================

Module, functions, types, operators, target, tensor expressions, executable,
virtual machine: what each object is, which fields it has, and where it bites.
"""

# %%
import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, te, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import layered_graph
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

# %% cell: map
layered_graph(
    {
        "script": "TVMScript, front ends,\nBlockBuilder",
        "te": "te, topi",
        "ops": "operator registry\nir.Op",
        "module": "IRModule\nfunctions, types",
        "pass": "passes\nPass, PassContext",
        "target": "Target",
        "gen": "code generators\ntarget.build.*, VM codegen",
        "exe": "Executable\nruntime.Module",
        "vm": "VirtualMachine",
        "tensor": "Tensor, Device",
    },
    {
        ("script", "module"): "make",
        ("ops", "module"): "called in",
        ("ops", "te"): "legalised by",
        ("te", "module"): "PrimFunc",
        ("module", "pass"): "",
        ("pass", "module"): "",
        ("target", "pass"): "",
        ("module", "gen"): "",
        ("target", "gen"): "selects",
        ("gen", "exe"): "make",
        ("exe", "vm"): "loaded by",
        ("tensor", "vm"): "arguments",
    },
    colors={
        "module": "vermilion",
        "exe": "green",
        "vm": "green",
        "tensor": "green",
    },
    groups={"at run time": ["exe", "vm", "tensor"]},
    title="How the components hang together",
)

# %% cell: module


@I.ir_module
class Net:
    I.module_attrs({"author": "book"})
    my_sort = R.ExternFunc("my_sort")

    @T.prim_func(s_tir=True)
    def relu(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("B"):
                vi = T.axis.spatial(8, i)
                B[vi] = T.max(A[vi], T.float32(0))

    @R.function
    def main(x: R.Tensor((8,), "float32")) -> R.Tensor((8,), "float32"):
        cls = Net
        with R.dataflow():
            y = R.call_tir(cls.relu, (x,), R.Tensor((8,), "float32"))
            R.output(y)
        return y


for var, func in Net.functions_items():
    print(f"{var.name_hint:8}{type(func).__name__:12}{dict(func.attrs)}")
print("attrs:", Net.attrs, " global_infos:", Net.global_infos)
call = Net["main"].body.blocks[0].bindings[0].value
print("callee in main:", call.args[0].same_as(Net.get_global_var("relu")))

# %% check
kinds = {type(func).__name__ for func in Net.functions.values()}
assert kinds == {"Function", "PrimFunc", "ExternFunc"}
assert {c.__name__ for c in tvm.ir.BaseFunc.__subclasses__()} == kinds

# %% cell: lookup
print(Net["relu"].same_as(Net[Net.get_global_var("relu")]))
with expect_error(ValueError, match="Cannot find global var"):
    Net["nope"]
stranger = tvm.ir.GlobalVar("relu")  # the name is right, the object is not
with expect_error(tvm.error.InternalError):
    Net[stranger]

# %% cell: change
nothing = tirx.PrimFunc([], tirx.Evaluate(0))
mod = tvm.IRModule({"f": nothing})
alias, functions = mod, mod.functions
labelled = mod.with_attr("note", "new")  # a new module
mod["g"] = nothing  # the same module, changed
print("alias has g:          ", "g" in alias)
print("labelled has g:       ", "g" in labelled)
print("functions, taken before:", len(functions), " now:", len(mod.functions))

# %% check
assert "g" in alias and "g" not in labelled
before = mod.get_global_var("f")
mod["f"] = tirx.PrimFunc([], tirx.Evaluate(1))
assert mod.get_global_var("f").same_as(before)  # a name keeps its object

# %% cell: broken-module
with expect_error(tvm.error.InternalError, match="same_as"):
    mod[tvm.ir.GlobalVar("f")] = nothing
print([var.name_hint for var in mod.functions])
with expect_error(tvm.error.InternalError, match="same_as"):
    mod.update(tvm.IRModule({"g": nothing}))
print([var.name_hint for var in mod.functions])
mod["h"] = "no function"
print("h" in mod)

# %% check
names = sorted(var.name_hint for var in mod.functions)
assert names == ["f", "f", "g", "g"] and len(mod.get_global_vars()) == 2


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


classes = {
    sub.__tvm_ffi_type_info__.type_key
    for sub in subclasses(tvm_ffi.Object)
    if "__tvm_ffi_type_info__" in vars(sub)
}
assert {"ir.IRModule", "tirx.PrimFunc", "relax.expr.Function"} <= classes
glue("classes", len(classes), varies=True)
for plain in (tvm.runtime.Executable, relax.VirtualMachine):
    assert not issubclass(plain, tvm_ffi.Object)

# %% cell: functions
main = MLP["main"]
renamed = main.with_attr("global_symbol", "entry")
print("a copy:        ", not renamed.same_as(main))
print("body is shared:", renamed.body.same_as(main.body))
print("kernels of LegalizeOps:")
legal = relax.transform.LegalizeOps()(MLP)
for var, func in legal.functions_items():
    print(f"  {var.name_hint:10}{dict(func.attrs)}")

# %% check
assert main.attrs["global_symbol"] == "main"
assert "global_symbol" not in legal["matmul"].attrs

# %% cell: types
x, w1 = main.params[:2]
n = tirx.Var("n", "int64")
for what, expr in {
    "Relax variable": x,
    "loop variable": n,
    "buffer": legal["matmul"].params[0],
    "shape": relax.ShapeExpr([n, 4]),
    "function": main,
    "call in main": call,
}.items():
    print(f"{what:15}{type(expr.ty).__name__}")
product = relax.op.matmul(x, w1)  # made by hand
print("made by hand, no type:", product.ty.is_missing())
typed = relax.BlockBuilder().normalize(product)
print("normalised:", typed.ty)
print("the same object, written to:", typed.same_as(product))

# %% check
subclasses = tvm.ir.Type.__subclasses__()
glue("type_classes", len(subclasses))
assert not product.ty.is_missing()

# %% cell: op
op = tvm.ir.Op.get("relax.matmul")
print(op.name, op.num_inputs, [arg.name for arg in op.arguments])
print("the op of the call:", product.op.same_as(op))
for name in ("FInferType", "FLegalize", "FPurity"):
    print(f"  {name:12}{op.get_attr(name)}")

# %% cell: op-traps
exp = tvm.ir.Op.get("tirx.exp")
print(exp.has_attr("FLegalize"), exp.get_attr("FLegalize"))
print(exp.has_attr("NoSuchAttr"))
with expect_error(tvm.error.InternalError, match="is not registered"):
    exp.get_attr("NoSuchAttr")
with expect_error(AttributeError, match="is not registered"):
    tvm.ir.Op.get("relax.matmull")
with expect_error(tvm.error.InternalError, match="same plevel"):
    tvm.ir.register_op_attr("relax.matmul", "FPurity", True)

# %% check
assert op.get_attr("FInferType") is not None
assert exp.has_attr("FLegalize") and exp.get_attr("FLegalize") is None
names = [name.partition(".")[0] for name in tvm.ir.Op.list_op_names()]
glue("op_count", len(names))
assert names.count("tirx") > 3 * names.count("relax") > 0

# %% cell: target
triple = "x86_64-linux-gnu"
cpu = tvm.target.Target(
    {"kind": "llvm", "mtriple": triple, "mcpu": "x86-64-v3"}
)
gpu = tvm.target.Target("nvidia/nvidia-a100", host="llvm")
for target in (cpu, gpu):
    print(target.kind.name, list(target.keys), target.host is not None)
print(cpu.attrs["mcpu"], gpu.attrs["arch"], gpu.attrs["thread_warp_size"])
with cpu:
    print("current:", tvm.target.Target.current().same_as(cpu))
print("outside:", tvm.target.Target.current())
with expect_error(ValueError, match="no longer supported"):
    tvm.target.Target("llvm -mcpu=x86-64-v3")
with expect_error(ValueError, match="Unknown config option"):
    tvm.target.Target({"kind": "llvm", "speed": "high"})

# %% check
assert {"cpu"} == set(cpu.keys) and "gpu" in gpu.keys
UNKNOWN = """
import tvm
from tvm import te

A = te.placeholder((8,))
target = tvm.target.Target({"kind": "llvm", "mcpu": "nonsense"})
kernel = te.create_prim_func([A, te.compute((8,), lambda i: A[i] + 1)])
tvm.compile(kernel, target=target)
"""
unknown = run_isolated(UNKNOWN)
assert unknown.ok and "using default `-mcpu=generic`" in unknown.stderr

# %% cell: te
A = te.placeholder((8,), "float32", "A")
B = te.compute((8,), lambda i: tirx.max(A[i], tirx.const(0, "float32")), "B")
print(type(B).__name__, type(B.op).__name__, B.op.axis[0].var)
kernel = te.create_prim_func([A, B])
show(kernel)

# %% check
assert kernel.attrs["s_tir"]
same = kernel.with_attr("global_symbol", "relu").without_attr("tirx.noalias")
assert tvm_ffi.structural_equal(same, Net["relu"])

# %% cell: build


def tree(module, depth=0):
    print("  " * depth + module.kind)
    for imported in module.imports:
        tree(imported, depth + 1)


network = tvm.compile(MLP, target="llvm")
function = tvm.compile(kernel, target="llvm")
for executable in (network, function):
    print(type(executable).__name__, "holds")
    tree(executable.mod, 1)

# %% cell: run
vm = relax.VirtualMachine(network, tvm.cpu())
result = vm["main"](*as_tensors(arguments()))
print(type(result).__name__, result.shape, result.dtype, result.device)
expected = reference(*arguments())
print("as numpy:", np.allclose(result.numpy(), expected, atol=1e-3))
a = tvm.runtime.tensor(np.arange(-4, 4, dtype="float32"))
b = tvm.runtime.empty((8,), "float32", tvm.cpu())
print("a kernel returns", function(a, b), "and fills", b.numpy())
with expect_error(TypeError, match="Expected 2 arguments"):
    function(a)
with expect_error(ValueError, match="shape"):
    function(a, tvm.runtime.empty((4,), "float32", tvm.cpu()))

# %% check
np.testing.assert_allclose(result.numpy(), expected, atol=1e-3)
np.testing.assert_array_equal(b.numpy(), np.maximum(a.numpy(), 0))

# %% cell: mutates
schedule = s_tir.dlight.ApplyDefaultSchedule(s_tir.dlight.gpu.Fallback())
before = tvm.IRModule({"relu": Net["relu"]})
with tvm.target.Target("nvidia/nvidia-a100"):
    after = schedule(before)
print("returns its argument:", after.same_as(before))
print("relu was replaced:   ", not before["relu"].same_as(Net["relu"]))

# %% check
assert after.same_as(before)
assert before["relu"].attrs["tirx.is_scheduled"]
safe = tvm.IRModule({"relu": Net["relu"]})
with tvm.target.Target("nvidia/nvidia-a100"):
    schedule(safe.clone())
assert safe["relu"].same_as(Net["relu"])

# %% cell: silent-error
PROGRAM = """
from tvm.script import tirx as T

@T.prim_func
def f(A: T.Buffer((8,), "float32")):
    A[0] = undefined_name
"""
ended = run_isolated(PROGRAM)
print(ended.describe())
print(ended.stdout + ended.stderr, end="")

# %% check
assert ended.returncode == 1 and "undefined_name" not in ended.stdout
assert "undefined_name" not in ended.stderr
loud = run_isolated(PROGRAM, env={"TVM_BACKTRACE": "1"})
assert "Undefined variable: undefined_name" in loud.stderr

# %% cell: solution-kinds


@I.ir_module
class Twice:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            y = R.add(x, x)
            z = R.add(y, y)
            R.output(z)
        return z


for module in (MLP, legal, relax.transform.LegalizeOps()(Twice)):
    kinds = [type(func).__name__ for func in module.functions.values()]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
    print("  ", *sorted(var.name_hint for var in module.functions))

# %% check
assert len(legal.functions) == 6 and len(module.functions) == 2

# %% cell: solution-op-attr


def has_really(op, name):
    """Whether the operator itself has a value for the attribute."""
    return op.has_attr(name) and op.get_attr(name) is not None


for name in ("FLegalize", "FInferType", "NoSuchAttr"):
    print(f"{name:11}{has_really(op, name)!s:6}{has_really(exp, name)}")

# %% check
assert has_really(op, "FLegalize") and not has_really(exp, "FLegalize")
