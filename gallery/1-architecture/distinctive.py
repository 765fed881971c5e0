"""
What is technically distinctive about TVM
=========================================

Claims, each shown by a run: loops and graph in one module, symbolic shapes,
passes in Python, minimal deployment, cross-compilation, and calls between
Python and compiled code. Then what they cost.
"""

# %%
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.relax.dpl import is_op, rewrite_call, wildcard
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import bench, expect_error, figures, glue
from tvm_deepdive_helpers import running_example as example
from tvm_deepdive_helpers.ir import diff, show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.objects import read_object

# %% cell: two-kernels


@I.ir_module
class Views:
    @T.prim_func(s_tir=True, private=True)
    def flatten(
        X: T.Buffer((8, 4, 16), "float32"), Y: T.Buffer((8, 64), "float32")
    ):
        for i, j in T.grid(8, 64):
            with T.sblock("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj // 16, vj % 16]

    @T.prim_func(s_tir=True, private=True)
    def shuffle(
        X: T.Buffer((8, 4, 16), "float32"), Y: T.Buffer((8, 64), "float32")
    ):
        for i, j in T.grid(8, 64):
            with T.sblock("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj % 4, vj // 4]

    @R.function
    def main(x: R.Tensor((8, 4, 16), "float32")):
        cls = Views
        with R.dataflow():
            a = R.call_tir(
                cls.flatten, (x,), out_ty=R.Tensor((8, 64), "float32")
            )
            b = R.call_tir(
                cls.shuffle, (x,), out_ty=R.Tensor((8, 64), "float32")
            )
            y = R.add(a, b)
            R.output(y)
        return y


# %% cell: look-inside
for name in ("flatten", "shuffle"):
    print(name, relax.analysis.has_reshape_pattern(Views[name]))

# %% cell: rewritten
diff(Views["main"], relax.transform.RewriteDataflowReshape()(Views)["main"])

# %% cell: run-views
executable = tvm.compile(Views, target="llvm")
code = executable.as_text().splitlines()
print(*(s for s in code if "reshape in" in s or " shuffle " in s), sep="\n")
print("flatten is called:", any("call  flatten" in s for s in code))

# %% cell: figure
figures.boxes_and_arrows(
    {
        "pass": (0, 0),
        "main": (1.7, 0),
        "flatten": (1.25, 1),
        "shuffle": (2.15, 1),
    },
    {
        ("pass", "main"): "2 rewrites",
        ("pass", "flatten"): "1 reads",
        ("main", "flatten"): "call_tir",
        ("main", "shuffle"): "call_tir",
    },
    labels={
        "pass": "RewriteDataflowReshape",
        "main": "main\nrelax.Function",
        "flatten": "flatten\nPrimFunc",
        "shuffle": "shuffle\nPrimFunc",
    },
    colors={
        "pass": "vermilion",
        "main": "navy",
        "flatten": "green",
        "shuffle": "green",
    },
    groups={"one IRModule": ["main", "flatten", "shuffle"]},
    dashed=[("pass", "main"), ("pass", "flatten")],
)

# %% check
x = np.random.default_rng(0).standard_normal((8, 4, 16)).astype("float32")
vm = relax.VirtualMachine(executable, tvm.cpu())
y = vm["main"](tvm.runtime.tensor(x)).numpy()
want = x.reshape(8, 64) + x.transpose(0, 2, 1).reshape(8, 64)
assert np.allclose(y, want)
assert not any("call  flatten" in s for s in code)
assert sum("vm.builtin.reshape in" in s for s in code) == 1

# %% cell: own-kernel


@I.ir_module
class Squash:
    @T.prim_func(s_tir=True, private=True)
    def squash(
        X: T.Buffer((T.int64(8), T.int64(128)), "float32"),
        Y: T.Buffer((T.int64(8), T.int64(128)), "float32"),
    ):
        for i, j in T.grid(T.int64(8), T.int64(128)):
            with T.sblock("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj] / (T.float32(1) + T.abs(X[vi, vj]))

    @R.function
    def main(
        x: R.Tensor((8, 64), "float32"),
        w: R.Tensor((64, 128), "float32"),
        b: R.Tensor((128,), "float32"),
    ) -> R.Tensor((8, 128), "float32"):
        cls = Squash
        with R.dataflow():
            h = R.add(R.matmul(x, w), b)
            y = R.call_tir(
                cls.squash, (h,), out_ty=R.Tensor((8, 128), "float32")
            )
            R.output(y)
        return y


# %% cell: fused
annotated = tvm.transform.Sequential(
    [relax.transform.LegalizeOps(), relax.transform.AnnotateTIROpPattern()]
)(Squash)
for var, func in annotated.functions_items():
    if isinstance(func, tirx.PrimFunc):
        print(f"{var.name_hint:7} op_pattern {func.attrs['op_pattern']}")

grouped = relax.transform.FuseOps()(annotated)
fused = relax.transform.FuseTIR()(grouped)
for step, mod in {"FuseOps": grouped, "FuseTIR": fused}.items():
    print(f"\nfunctions after {step}:")
    for var, func in mod.functions_items():
        print(f"  {type(func).__name__:9} {var.name_hint}")

# %% cell: fused-kernel
show(
    fused["fused_matmul_add_squash"],
    keep=r"alloc_buffer|for |with T.sblock\(|\] = .*\[",
    context=0,
)

# %% check
vm = relax.VirtualMachine(tvm.compile(fused, target="llvm"), tvm.cpu())
args = example.arguments()
y = vm["main"](*example.as_tensors(args[:3])).numpy()
h = args[0] @ args[1] + args[2]
assert np.allclose(y, h / (1 + abs(h)), atol=1e-4)
assert len(fused.functions) == 2
kernels_before = sum(
    isinstance(f, tirx.PrimFunc) for f in annotated.functions.values()
)
glue("kernels-before", kernels_before)
assert grouped["fused_matmul_add_squash"].attrs["Primitive"]
assert isinstance(fused["fused_matmul_add_squash"], tirx.PrimFunc)
assert fused["fused_matmul_add_squash"].script().count("alloc_buffer") == 2

# %% cell: symbolic
network = example.mlp("n")
show(network, keep="TypeVar|def main|R.output", context=1)

executable = tvm.compile(network, target="llvm")
vm = relax.VirtualMachine(executable, tvm.cpu())
for rows in (1, 8, 33):
    args = example.arguments(batch=rows)
    y = vm["main"](*example.as_tensors(args)).numpy()
    print(y.shape, np.allclose(y, example.reference(*args), atol=1e-3))

# %% check
assert np.allclose(y, example.reference(*args), atol=1e-3)

# %% cell: relation
builder = relax.BlockBuilder()
n = tirx.Var("n", "int64")
v = relax.Var("v", relax.TensorType((n, 4), "float32"))
with builder.function("main", [v]):
    flat = builder.emit(relax.op.reshape(v, (n * 4,)))
    both = builder.emit(relax.op.concat([flat, flat]))
    builder.emit_func_output(both)
print(flat.ty)
print(both.ty)

# %% cell: storage
for batch in ("n", 8):
    code = tvm.compile(example.mlp(batch), target="llvm").as_text()
    tensors = code.count("call  vm.builtin.alloc_tensor")
    storages = code.count("call  vm.builtin.alloc_storage")
    print(f"batch {batch}: {tensors} tensors in {storages} storages")

# %% check
assert storages < tensors

# %% cell: mismatch


@I.ir_module
class Sum:
    @R.function
    def main(
        a: R.Tensor(("n", 4), "float32"), b: R.Tensor(("n", 4), "float32")
    ):
        return R.add(a, b)


executable = tvm.compile(Sum, target="llvm")
vm = relax.VirtualMachine(executable, tvm.cpu())
three, two = np.ones((3, 4), "float32"), np.ones((2, 4), "float32")
print(vm["main"](*example.as_tensors([three, three])).shape)
with expect_error(RuntimeError, match="previous populated value"):
    vm["main"](*example.as_tensors([three, two]))

# %% cell: match-code
code = executable.as_text().splitlines()
print(*(s.strip() for s in code if "match_shape in" in s), sep="\n")

# %% check
assert str(both.ty) == 'R.Tensor((n * 4 * 2,), dtype="float32")'
checks = [s.split("in:")[1].split(",") for s in code if "match_shape in" in s]
assert [check[3].strip() for check in checks] == ["i1", "i3", "i3"]

# %% cell: own-pass


@mutator
class ReluToClip(PyExprMutator):
    def visit_call_(self, call):
        call = super().visit_call_(call)
        if call.op == tvm.ir.Op.get("relax.nn.relu"):
            return relax.op.clip(call.args[0], 0, 6)
        return call


@relax.transform.function_pass(opt_level=0, name="ClampRelu")
class ClampRelu:
    def transform_function(self, func, mod, ctx):
        return ReluToClip().visit_expr(func)


diff(example.MLP, ClampRelu()(example.MLP))

# %% cell: own-pipeline
pipeline = tvm.transform.Sequential(
    [ClampRelu(), relax.get_pipeline("default_build")]
)
executable = tvm.compile(example.MLP, target="llvm", relax_pipeline=pipeline)
vm = relax.VirtualMachine(executable, tvm.cpu())
x, w1, b1, w2, b2 = args = example.arguments()
y = vm["main"](*example.as_tensors(args)).numpy()
want = np.clip(x @ w1 + b1, 0, 6) @ w2 + b2
print("clipped, as numpy:", np.allclose(y, want, atol=1e-3))

# %% check
assert np.allclose(y, want, atol=1e-3)
assert not np.allclose(y, example.reference(*args), atol=1e-3)


class Undecorated(PyExprMutator):
    """A mutator without the decorator."""


with expect_error(AttributeError, match="_outer"):
    Undecorated().visit_expr(example.MLP["main"])

# %% cell: pattern


@R.function
def twice(x: R.Tensor((8,), "float32")) -> R.Tensor((8,), "float32"):
    with R.dataflow():
        a = R.nn.relu(x)
        b = R.nn.relu(a)
        c = R.negative(b)
        R.output(c)
    return c


inner = is_op("relax.nn.relu")(wildcard())
outer = is_op("relax.nn.relu")(inner)
once = rewrite_call(outer, lambda call, found: found[inner], twice)
diff(twice, once)

# %% check
assert once.script().count("R.nn.relu") == 1

# %% cell: object-file


@T.prim_func(s_tir=True)
def add_one(X: T.Buffer((1024,), "float32"), Y: T.Buffer((1024,), "float32")):
    for i in range(1024):
        with T.sblock("Y"):
            vi = T.axis.spatial(1024, i)
            Y[vi] = X[vi] + T.float32(1)


sch = s_tir.Schedule(add_one.with_attr("global_symbol", "add_one"))
(loop,) = sch.get_loops(sch.get_sblock("Y"))
_, lanes = sch.split(loop, factors=[None, 4])
sch.vectorize(lanes)
kernel = tvm.compile(sch.mod["main"], target="llvm")

folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "add_one.o")
kernel.mod.write_to_file(path, "o")
info = read_object(path)
print(info.format, info.machine, "needs", info.undefined)
print([name for name in info.defined if "add_one" in name])

# %% check
glue("needs", len(info.undefined))
glue("needed", info.undefined[0])
assert info.undefined == ("TVMFFIErrorSetRaisedFromCStrParts",)

# %% cell: without-tvm
kernel.export_library(os.path.join(folder.name, "add_one.so"))


def deployed():
    import os
    import sys

    import numpy as np
    import tvm_ffi

    def aligned(values):
        memory = np.zeros(values.nbytes + 64, "uint8")
        begin = -memory.ctypes.data % 64
        array = memory[begin : begin + values.nbytes].view(values.dtype)
        array[:] = values
        return array

    library = tvm_ffi.load_module(os.environ["LIBRARY"])
    x = aligned(np.arange(1024, dtype="float32"))
    y = aligned(np.zeros(1024, "float32"))
    library.add_one(x, y)
    print("right:", np.array_equal(y, x + 1))
    print("tvm imported:", "tvm" in sys.modules)


library = os.path.join(folder.name, "add_one.so")
ended = run_isolated(deployed, env={"LIBRARY": library})
print(ended.stdout, end="")

# %% check
assert ended.ok, ended.stderr
assert ended.stdout.split("\n")[:2] == ["right: True", "tvm imported: False"]

# %% cell: slots
sch_parallel = s_tir.Schedule(sch.mod)
sch_parallel.parallel(sch_parallel.get_loops("Y")[0])
kernel = tvm.compile(sch_parallel.mod["main"], target="llvm")
path = os.path.join(folder.name, "parallel.o")
kernel.mod.write_to_file(path, "o")
info = read_object(path)
print("needs", info.undefined)
print("slots", [name for name in info.defined if name.startswith("__TVM")])

library = os.path.join(folder.name, "parallel.so")
kernel.export_library(library)
ended = run_isolated(deployed, env={"LIBRARY": library})
print("without the runtime:", ended.describe())

# %% check
assert "__TVMBackendParallelLaunch" in info.defined
assert ended.signal == "SIGSEGV"

# %% cell: runtime-only
model = os.path.join(folder.name, "mlp.so")
tvm.compile(network, target="llvm").export_library(model)


def run_model():
    import os

    import numpy as np
    import tvm
    from tvm.runtime.vm import VirtualMachine

    vm = VirtualMachine(
        tvm.runtime.load_module(os.environ["MODEL"]), tvm.cpu()
    )
    shapes = [(5, 64), (64, 128), (128,), (128, 10), (10,)]
    args = [tvm.runtime.tensor(np.ones(s, "float32")) for s in shapes]
    y = vm["main"](*args).numpy()
    print(y.shape, np.unique(y))
    print("compiler loaded:", "tvm_compiler" in tvm.base._LOADED_LIBS)


ended = run_isolated(
    run_model, env={"MODEL": model, "TVM_USE_RUNTIME_LIB": "1"}
)
print(ended.stdout, end="")

# %% check
assert ended.ok, ended.stderr
ones = [np.ones((5, 64)), np.ones((64, 128)), np.ones(128)]
result = np.maximum(ones[0] @ ones[1] + ones[2], 0) @ np.ones((128, 10)) + 1
assert f"{result[0, 0]:.0f}." in ended.stdout
assert "compiler loaded: False" in ended.stdout

# %% cell: cross
TARGETS = {
    "x86-64": {"mtriple": "x86_64-linux-gnu"},
    "64-bit Arm": {"mtriple": "aarch64-linux-gnu"},
    "RISC-V": {
        "mtriple": "riscv64-linux-gnu",
        "mcpu": "generic-rv64",
        "mattr": ["+m", "+a", "+f", "+d", "+c", "+v"],
        "mabi": "lp64d",
    },
    "WebAssembly": {
        "mtriple": "wasm32-unknown-unknown-wasm",
        "mattr": ["+simd128"],
        "vector-width": 128,
    },
}
ADDS = ("addps", "fadd", "vfadd", "f32x4.add")
for name, options in TARGETS.items():
    target = tvm.target.Target({"kind": "llvm", **options})
    module = tvm.compile(sch.mod["main"], target=target).mod
    path = os.path.join(folder.name, f"{name}.o")
    module.write_to_file(path, "o")
    info = read_object(path)
    lines = map(str.strip, module.inspect_source("s").splitlines())
    add = next(s for s in lines if s.startswith(ADDS)).expandtabs(1)
    print(
        f"{name:12} {info.format:12} {info.machine:8} {info.bits} bit",
        f" needs {len(info.undefined)}  {add}",
    )

# %% check
for name in TARGETS:
    info = read_object(os.path.join(folder.name, f"{name}.o"))
    assert info.undefined == ("TVMFFIErrorSetRaisedFromCStrParts",)
glue("llvm-targets", len(tvm.target.codegen.llvm_get_targets()))

# %% check
start = Path(folder.name, "RISC-V.o").read_bytes()[:20]
assert start[:4] == b"\x7fELF" and start[18] == 243

# %% cell: python-callee


@tvm.register_global_func("book.log1p")
def log1p(x, out):
    if (x.numpy() < -1).any():
        raise ValueError("log1p of a number below -1")
    out.copyfrom(np.log1p(x.numpy()))


@I.ir_module
class Mixed:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        y = R.call_dps_packed(
            "book.log1p", (x,), out_ty=R.Tensor((4,), "float32")
        )
        return R.add(y, y)


vm = relax.VirtualMachine(tvm.compile(Mixed, target="llvm"), tvm.cpu())
x = np.arange(4, dtype="float32")
print(vm["main"](tvm.runtime.tensor(x)).numpy())

# %% cell: python-error
with expect_error(ValueError, match="below -1") as caught:
    vm["main"](tvm.runtime.tensor(x - 9))
last = caught.exception.__traceback__
while last.tb_next:
    last = last.tb_next
print("raised in", last.tb_frame.f_code.co_name)

# %% check
assert last.tb_frame.f_code.co_name == "log1p"
assert np.allclose(vm["main"](tvm.runtime.tensor(x)).numpy(), 2 * np.log1p(x))

# %% cell: cost, varies
N = 256


@I.ir_module
class Product:
    @R.function
    def main(a: R.Tensor((N, N), "float32"), b: R.Tensor((N, N), "float32")):
        return R.matmul(a, b)


begin = time.perf_counter()
vm = relax.VirtualMachine(tvm.compile(Product, target="llvm"), tvm.cpu())
compile_s = time.perf_counter() - begin

rng = np.random.default_rng(0)
a, b = (rng.standard_normal((N, N)).astype("float32") for _ in "ab")
A, B = example.as_tensors([a, b])
times = bench.compare(
    {"default build": lambda: vm["main"](A, B), "numpy": lambda: a @ b},
    number={"default build": 1, "numpy": 10},
)
times.table()
print(f"compiling: {compile_s * 1e3:.0f} ms")
glue("behind", round(times.ratio("default build", "numpy")), varies=True)
glue("compile-runs", round(compile_s / times["numpy"].min_s), varies=True)

# %% check
bench.assert_faster(times, "numpy", "default build")
assert np.allclose(vm["main"](A, B).numpy(), a @ b, atol=1e-3)

# %% cell: solution-int32


@I.ir_module
class Narrow:
    @T.prim_func(s_tir=True, private=True)
    def squash(
        X: T.Buffer((8, 128), "float32"), Y: T.Buffer((8, 128), "float32")
    ):
        for i, j in T.grid(8, 128):
            with T.sblock("Y"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = X[vi, vj] / (T.float32(1) + T.abs(X[vi, vj]))

    @R.function
    def main(x: R.Tensor((8, 128), "float32")):
        cls = Narrow
        with R.dataflow():
            h = R.add(x, x)
            y = R.call_tir(
                cls.squash, (h,), out_ty=R.Tensor((8, 128), "float32")
            )
            R.output(y)
        return y


with expect_error(tvm.error.InternalError, match="Inconsistent buffers"):
    relax.get_pipeline("zero")(Narrow)

# %% check
vm = relax.VirtualMachine(tvm.compile(Narrow, target="llvm"), tvm.cpu())
wide = np.random.default_rng(0).standard_normal((8, 128)).astype("float32")
y = vm["main"](tvm.runtime.tensor(wide)).numpy()
assert np.allclose(y, 2 * wide / (1 + abs(2 * wide)), atol=1e-5)

# %% cell: solution-error


class BadInput(ArithmeticError):
    pass


@tvm.register_global_func("book.refuse")
def refuse(x, out):
    raise BadInput("not this one")


@I.ir_module
class Refusing:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        return R.call_dps_packed(
            "book.refuse", (x,), out_ty=R.Tensor((4,), "float32")
        )


vm = relax.VirtualMachine(tvm.compile(Refusing, target="llvm"), tvm.cpu())
with expect_error(RuntimeError, match="not this one"):
    vm["main"](tvm.runtime.tensor(x))

tvm_ffi.register_error(BadInput)  # by its name, "BadInput"
with expect_error(BadInput, match="not this one"):
    vm["main"](tvm.runtime.tensor(x))

# %% check
assert tvm_ffi.core.ERROR_TYPE_TO_NAME.get(ZeroDivisionError) is None

# %% cell: solution-cortex
board = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "thumbv7em-none-eabi",
        "mcpu": "cortex-m4",
        "vector-width": 128,
    }
)
module = tvm.compile(sch.mod["main"], target=board).mod
path = os.path.join(folder.name, "m4.o")
module.write_to_file(path, "o")
info = read_object(path)
print(info.machine, info.bits, info.undefined)

# %% check
assert (info.machine, info.bits) == ("arm", 32)
folder.cleanup()
