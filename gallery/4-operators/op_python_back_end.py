"""
A back end written in Python
============================

Two ways to generate code for an accelerator without C++ in TVM: whole
operators, taken out of a Relax function, and loops, through a code
generator for a target kind.
"""

# %% cell: setup
import json
import tempfile
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.backend.cuda.cublas import partition_for_cublas
from tvm.relax.backend.pattern_registry import (
    get_patterns_with_prefix,
    register_patterns,
)
from tvm.relax.dpl import is_op, wildcard
from tvm.script import tirx as T
from tvm.support import cc
from tvm.target import Target

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import layered_graph
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

args = as_tensors(arguments())
expected = reference(*arguments())

# %% cell: routes
layered_graph(
    {
        "relax": "Relax function",
        "fuse": "FuseOpsByPattern\nMergeCompositeFunctions",
        "run": "RunCodegen",
        "ext": "relax.ext.<name>\nyour Python function",
        "legal": "LegalizeOps …\nschedule with bound loops",
        "split": "SplitHostDevice",
        "build": "target.build.<kind>\nyour Python function",
        "module": "a module,\nimported by the executable",
    },
    {
        ("relax", "fuse"): "operators",
        ("fuse", "run"): "Codegen = name",
        ("run", "ext"): "list of functions",
        ("ext", "module"): "",
        ("relax", "legal"): "the rest",
        ("legal", "split"): "loops",
        ("split", "build"): "IRModule, Target",
        ("build", "module"): "",
    },
    colors={"ext": "vermilion", "build": "vermilion", "module": "green"},
    title="Two places where a back end in Python can stand",
)


# %% cell: patterns
def dense(with_relu):
    """x @ w + b, perhaps with relu, and names for the three inputs."""
    x, w, b = wildcard(), wildcard(), wildcard()
    out = is_op("relax.add")(is_op("relax.matmul")(x, w), b)
    if with_relu:
        out = is_op("relax.nn.relu")(out)
    return out, {"x": x, "w": w, "b": b}


def supported(context):
    """Our accelerator wants matrices of float32."""
    types = [context.annotated_expr[name].ty for name in ("x", "w")]
    return all(t.ndim == 2 and str(t.dtype) == "float32" for t in types)


register_patterns(
    [
        ("toynpu.dense", *dense(False), supported),
        ("toynpu.dense_relu", *dense(True), supported),
    ]
)
patterns = get_patterns_with_prefix("toynpu")
print([p.name for p in patterns])

# %% cell: partition
composite = relax.transform.FuseOpsByPattern(patterns)(MLP)
for var, func in sorted(composite.functions_items(), key=lambda i: str(i[0])):
    attrs = {k: v for k, v in func.attrs.items() if k != "global_symbol"}
    print(var.name_hint, attrs)
show(composite["main"], keep="= cls|= .*fused", context=0)

# %% cell: merged
merged = relax.transform.MergeCompositeFunctions()(composite)
(region,) = [f for f in merged.functions.values() if "Codegen" in f.attrs]
print("Codegen:", region.attrs["Codegen"])
print("global_symbol:", region.attrs["global_symbol"])
for block in region.body.blocks:
    for binding in block.bindings:
        value = binding.value
        if isinstance(value, relax.Function):
            print(binding.var.name, "is", value.attrs["Composite"])
        else:
            names = ", ".join(a.name for a in value.args)
            print(f"{binding.var.name} = {value.op.name}({names})")

# %% cell: twice
alone = relax.transform.FuseOpsByPattern(patterns, annotate_codegen=True)
both = relax.transform.MergeCompositeFunctions()(alone(MLP))
for mod in (alone(MLP), both):
    print(sorted(v.name_hint[-40:] for v in mod.get_global_vars()))
in_wrong_order = list(reversed(patterns))
mod = relax.transform.FuseOpsByPattern(in_wrong_order)(MLP)
print([f.attrs.get("Composite") for f in mod.functions.values()])

# %% cell: no-codegen
not_found = expect_error(tvm.error.InternalError, match="relax.ext.toynpu")
with not_found:
    relax.transform.RunCodegen()(merged)

# %% cell: vendors
library = partition_for_cublas(MLP)
for variable, function in library.functions.items():
    if "Codegen" in (function.attrs or {}):
        print(variable.name_hint, "->", function.attrs["Codegen"])
with expect_error(tvm.error.InternalError, match="relax.ext.cublas"):
    relax.transform.RunCodegen()(library)

# %% cell: emit
HEADER = """#include <tvm/ffi/c_api.h>
static float* P(const TVMFFIAny& a) {  // a Tensor object or a DLTensor*
  const DLTensor* t = (const DLTensor*)a.v_ptr;
  if (a.type_index == kTVMFFITensor) t = TVMFFITensorGetDLTensorPtr(a.v_obj);
  return (float*)t->data;
}
static void dense(const float* x, const float* w, const float* b, float* y,
                  int m, int k, int n, bool relu) {
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float sum = b[j];
      for (int l = 0; l < k; ++l) sum += x[i * k + l] * w[l * n + j];
      y[i * n + j] = relu && sum < 0 ? 0 : sum;
    }
}
"""


def emit(func):
    """One region as a C++ function: a call for each composite."""
    pointer = {p: f"P(args[{i}])" for i, p in enumerate(func.params)}
    result = f"P(args[{len(func.params)}])"
    kind, lines = {}, []
    last = func.body.body  # the variable that the function returns
    for block in func.body.blocks:
        for binding in block.bindings:
            var, value = binding.var, binding.value
            if isinstance(value, relax.Function):
                kind[var] = value.attrs["Composite"]
                continue
            x, w, _ = value.args
            (m, k), (_, n) = (map(int, a.ty.shape) for a in (x, w))
            pointer[var] = result if var.same_as(last) else var.name
            if not var.same_as(last):
                lines.append(f"static float {var.name}[{m * n}];")
            relu = str(kind[value.op].endswith("relu")).lower()
            inputs = ", ".join(pointer[a] for a in value.args)
            where = f"{pointer[var]}, {m}, {k}, {n}, {relu}"
            lines.append(f"dense({inputs}, {where});")
    body = "\n  ".join(lines)
    return (
        'extern "C" TVM_FFI_DLL_EXPORT int\n'
        f"__tvm_ffi_{func.attrs['global_symbol']}(void* self, "
        "const TVMFFIAny* args,\n    int32_t num_args, TVMFFIAny* ret) {\n"
        f"  {body}\n  return 0;\n}}\n"
    )


def toynpu(functions, options, constant_names):
    """Registered as relax.ext.toynpu: all regions of one module."""
    create = tvm.get_global_func("runtime.CSourceModuleCreate")
    symbols = [f.attrs["global_symbol"] for f in functions]
    text = HEADER + "".join(map(emit, functions))
    return [create(text, "cc", symbols, [])]


tvm.register_global_func("relax.ext.toynpu", toynpu)
print(emit(region).replace(region.attrs["global_symbol"], "REGION"))

# %% cell: run
lowered = relax.transform.RunCodegen()(merged)
long_name = region.attrs["global_symbol"]
print(lowered["main"].script().replace(long_name, "REGION").partition("@")[2])
print("external_mods:", [m.kind for m in lowered.attrs["external_mods"]])
ex = tvm.compile(lowered, "llvm")


def tree(module):
    return [module.kind, *map(tree, module.imports)]


print(tree(ex.mod))
vm = relax.VirtualMachine(ex, tvm.cpu())
error = np.abs(vm["main"](*args).numpy() - expected).max()
print("right:", error < 1e-3)

# %% cell: saved
folder = tempfile.TemporaryDirectory()
path = str(Path(folder.name, "toynpu.so"))
ex.export_library(path)
loaded = relax.VirtualMachine(tvm.runtime.load_module(path), tvm.cpu())
print(
    np.array_equal(loaded["main"](*args).numpy(), vm["main"](*args).numpy())
)

# %% check
np.testing.assert_allclose(vm["main"](*args).numpy(), expected, atol=1e-3)


# %% cell: commands
def toynpu_commands(functions, options, constant_names):
    """A list of commands for each region, and a Python function to obey."""
    for func in functions:
        kinds, program = {}, []
        for binding in (b for k in func.body.blocks for b in k.bindings):
            if isinstance(binding.value, relax.Function):
                kinds[binding.var] = binding.value.attrs["Composite"]
            else:
                value = binding.value
                inputs = [a.name for a in value.args]
                name = binding.var.name
                program.append([kinds[value.op], *inputs, name])
        text = json.dumps(program)
        names = [p.name for p in func.params]
        print(text)

        def obey(*tensors, text=text, names=names):
            memory = {
                n: t.numpy() for n, t in zip(names, tensors[:-1], strict=True)
            }
            for kind, x, w, b, y in json.loads(text):
                memory[y] = memory[x] @ memory[w] + memory[b]
                if kind.endswith("relu"):
                    memory[y] = np.maximum(memory[y], 0)
            tensors[-1].copyfrom(memory[y])

        symbol = func.attrs["global_symbol"]
        tvm.register_global_func(symbol, obey, override=True)
    return []


tvm.register_global_func("relax.ext.toynpu", toynpu_commands, override=True)
ex2 = tvm.compile(relax.transform.RunCodegen()(merged), "llvm")
print(tree(ex2.mod))
vm2 = relax.VirtualMachine(ex2, tvm.cpu())
print("right:", np.allclose(vm2["main"](*args).numpy(), expected, atol=1e-3))

# %% cell: commands-lost
tvm_ffi.registry.remove_global_func(long_name)
lost = expect_error(tvm.error.InternalError, match="Cannot find", show=False)
with lost:
    relax.VirtualMachine(ex2, tvm.cpu())
message = str(lost.exception).replace(long_name, "REGION")
print(message.partition("Error: ")[2].strip())


# %% cell: kernel
@T.prim_func(s_tir=True)
def shift(A: T.Buffer((4, 8), "float32"), B: T.Buffer((4, 8), "float32")):
    for core in T.thread_binding(4, "blockIdx.x"):
        for j in range(8):
            with T.sblock("B"):
                vi, vj = T.axis.remap("SS", [core, j])
                B[vi, vj] = T.max(A[vi, vj] * T.float32(2), T.float32(1))


# %% cell: printer
NAMES = {"float32": "float", "int32": "int"}
SIGNS = {"Add": "+", "Sub": "-", "Mul": "*"}


def expression(e):
    kind = type(e).__name__
    if kind in SIGNS:
        return f"({expression(e.a)} {SIGNS[kind]} {expression(e.b)})"
    if kind == "Max":
        a, b = expression(e.a), expression(e.b)
        return f"({a} > {b} ? {a} : {b})"
    if kind in ("IntImm", "FloatImm"):
        return repr(e.value) + ("f" if kind == "FloatImm" else "")
    if kind == "TensorLoad":
        return f"{e.source.name}[{expression(e.indices[0])}]"
    if kind == "Var":
        return e.name.replace(".", "_")
    raise NotImplementedError(f"expression {kind}: {e}")


def statement(s, depth=1):
    pad, kind = "  " * depth, type(s).__name__
    if kind == "SeqStmt":
        return "".join(statement(x, depth) for x in s.seq)
    if kind == "BufferStore":
        index = expression(s.indices[0])
        return f"{pad}{s.buffer.name}[{index}] = {expression(s.value)};\n"
    if kind == "Bind":
        value = expression(s.value)
        return f"{pad}int {s.var.name} = {value};\n"
    if kind == "DeclBuffer":
        return f"{pad}float* {s.buffer.name} = {s.data.name};\n"
    if kind == "Evaluate":
        return ""
    if kind == "For":
        v, end = s.loop_var.name, s.extent
    elif kind == "AttrStmt" and s.attr_key == "thread_extent":
        v, end = s.node.var.name.replace(".", "_"), s.value
    elif kind == "AttrStmt":
        return statement(s.body, depth)
    else:
        raise NotImplementedError(f"statement {kind}: {s}")
    head = f"for (int {v} = 0; {v} < {expression(end)}; ++{v}) {{"
    return f"{pad}{head}\n{statement(s.body, depth + 1)}{pad}}}\n"


# %% cell: build-test
sources = []


def build_test(mod, target):
    """Registered as target.build.test: an IRModule of kernels, a module."""
    text = "#include <tvm/ffi/c_api.h>\n"
    for _, func in mod.functions_items():
        symbol = func.attrs["global_symbol"]
        text += 'extern "C" TVM_FFI_DLL_EXPORT int\n'
        text += f"__tvm_ffi_{symbol}(void* self, const TVMFFIAny* args,\n"
        text += "    int32_t num_args, TVMFFIAny* ret) {\n"
        for i, p in enumerate(func.params):
            text += f"  float* {p.name} = (float*)args[{i}].v_ptr;\n"
        text += statement(func.body) + "  return 0;\n}\n"
    sources.append(text)
    place = Path(folder.name, "kernels.cc")
    place.write_text(text)
    library = str(place.with_suffix(".so"))
    include = [
        f"-I{tvm_ffi.libinfo.find_include_path()}",
        f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}",
    ]
    cc.create_shared(library, [str(place)], options=["-O2", *include])
    return tvm.runtime.load_module(library)


tvm.register_global_func("target.build.test", build_test)
target = Target("test", host="llvm")
ex3 = tvm.compile(shift, target)
print(tree(ex3.mod))
print(sources[0].partition("\n")[2])

# %% cell: run-test
a = np.arange(32, dtype="float32").reshape(4, 8) - 8
b = tvm.runtime.tensor(np.zeros((4, 8), "float32"))
ex3["shift"](tvm.runtime.tensor(a), b)
print("right:", np.array_equal(b.numpy(), np.maximum(a * 2, 1)))
print(
    "the host names the kernel:",
    "shift_kernel" in ex3.mod.inspect_source("ll"),
)

# %% check
np.testing.assert_array_equal(b.numpy(), np.maximum(a * 2, 1))

# %% cell: not-saved
cannot = expect_error(RuntimeError, match="SaveToBytes", show=False)
with cannot:
    ex3.export_library(str(Path(folder.name, "shift.so")))
print(str(cannot.exception).strip().splitlines()[-1])


# %% cell: same-library
def build_source(mod, target):
    """As build_test, but the text is compiled at export."""
    build_test(mod, target)
    create = tvm.get_global_func("runtime.CSourceModuleCreate")
    names = [f.attrs["global_symbol"] for f in mod.functions.values()]
    return create(sources[-1], "cc", names, [])


tvm.register_global_func("target.build.test", build_source, override=True)
ex4 = tvm.compile(shift, target)
path = str(Path(folder.name, "both.so"))
ex4.export_library(path)
both = tvm.runtime.load_module(path)
print(tree(ex4.mod), "->", tree(both))
with expect_error(RuntimeError, match="Cannot find", max_lines=1):
    both["shift"](tvm.runtime.tensor(a), b)
tvm.register_global_func("shift_kernel", both["shift_kernel"])
both["shift"](tvm.runtime.tensor(a * 3), b)
print("right:", np.array_equal(b.numpy(), np.maximum(a * 6, 1)))
tvm_ffi.registry.remove_global_func("shift_kernel")
tvm.register_global_func("target.build.test", build_test, override=True)


# %% cell: limits
@T.prim_func(s_tir=True)
def serial(A: T.Buffer((4, 8), "float32"), B: T.Buffer((4, 8), "float32")):
    for i, j in T.grid(4, 8):
        with T.sblock("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = T.exp(A[vi, vj])


print("no bound loop:", tree(tvm.compile(serial, target).mod))
threads = tvm.s_tir.Schedule(serial)
threads.bind(threads.get_loops("B")[0], "blockIdx.x")
with expect_error(RuntimeError, match="Call", max_lines=1):
    tvm.compile(threads.mod, target)
with expect_error(ValueError, match="not defined", max_lines=1):
    Target("toynpu")

# %% cell: solution-constant
bound = relax.transform.BindParams(
    "main", {"w1": args[1], "b1": args[2], "w2": args[3], "b2": args[4]}
)(MLP)
seen = []


def look(functions, options, constant_names):
    for func in functions:
        seen.append([p.name for p in func.params])
    print("options", dict(options), "constants", len(constant_names))
    print(sorted(str(n)[-15:] for n in constant_names.values()))
    return []


tvm.register_global_func("relax.ext.toynpu", look, override=True)
for keep in (True, False):
    partition = relax.transform.FuseOpsByPattern(
        patterns, bind_constants=keep
    )
    mod = relax.transform.MergeCompositeFunctions()(partition(bound))
    relax.transform.RunCodegen({"toynpu": {"level": 3}})(mod)
print("parameters:", *(len(names) for names in seen))

# %% check
assert [len(names) for names in seen] == [1, 5], seen

# %% cell: solution-legal
legal = relax.transform.LegalizeOps()(MLP)
after = relax.transform.FuseOpsByPattern(patterns)(legal)
count = sum(
    "Composite" in f.attrs for f in after.functions.values() if f.attrs
)
print("matches after LegalizeOps:", count)

# %% check
assert count == 0
