"""
From one kernel to machine code, and to its call
================================================

The first matrix product of the running example becomes a C function, LLVM
IR and x86 assembly. It is called by hand through the C interface, and then
by the virtual machine, whose bytecode is read line by line.
"""

# %% cell: kernel
import ctypes
import itertools
import platform
import re
import textwrap
import time

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import diff_text, strip_llvm
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import aligned_copy
from tvm_deepdive_helpers.passes import record
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    mlp,
    reference,
)

legal = relax.transform.LegalizeOps()(MLP)
kernel = legal["matmul"].with_attr("global_symbol", "product")
with record(keep_scripts=True) as log:
    ex = tvm.compile(kernel, target="llvm")

x, w1 = args = as_tensors(arguments(seed=0)[:2])
expected = x.numpy() @ w1.numpy()
y = tvm.runtime.tensor(np.zeros((8, 128), "float32"))
product = ex["product"]
product(x, w1, y)
print(type(product).__name__, np.allclose(y.numpy(), expected, atol=1e-4))

# %% cell: packed
packed = log.find("tirx.MakePackedAPI")[0].script
lines = packed.splitlines()
for line in lines:
    if "def " in line or "x_type_index" in line or "x_handle:" in line:
        line = line.strip().partition(", (")[0]  # without the message
        print(textwrap.fill(line, 72, subsequent_indent="    "))

# %%
glue(
    "header",
    int(re.search(r"handle_add_byte_offset\(.*?, (\d+)\)", packed)[1]),
)
glue("alignment", int(re.search(r'"storage_alignment", (\d+)', packed)[1]))

# %% cell: checks
checks = []
for line in lines:
    if found := re.search(r'\("(\w+)", \[(.*?), metadata', line):
        text = "".join(re.findall(r'"(.*?)"', found[2]))
        about, _, argument = text.partition(" on argument #")
        about = about.replace("matmul", "out")
        checks.append((f"argument {argument}" if argument else "call", about))
number = 1
for argument, group in itertools.groupby(checks, key=lambda c: c[0]):
    about = [text for _, text in group]
    text = f"{number:2}  {argument}: {'; '.join(about)}"
    print(textwrap.fill(text, 72, subsequent_indent=" " * 8))
    number += len(about)

# %% cell: refused
with expect_error(TypeError, match="Expected 3 arguments", max_lines=1):
    product(x, w1)
with expect_error(TypeError, match="Mismatched type", max_lines=1):
    product(3, w1, y)
with expect_error(TypeError, match="x.dtype", max_lines=3):
    product(tvm.runtime.tensor(x.numpy().astype("float64")), w1, y)
four = tvm.runtime.tensor(x.numpy()[:4].copy())
with expect_error(ValueError, match=r"x.shape\[0\]", max_lines=1):
    product(four, w1, y)
with expect_error(ValueError, match="x.strides", max_lines=1):
    product(w1, w1, y)  # 64 x 128 instead of 8 x 64

# %% cell: layout
fig, _ = boxes_and_arrows(
    {
        "args": (0, 0.0),
        "num": (0, 0.62),
        "tensor": (1, 0.0),
        "shape": (2, -0.4),
        "data": (2, 0.6),
    },
    {
        ("args", "tensor"): "v_ptr",
        ("tensor", "shape"): "shape",
        ("tensor", "data"): "data",
    },
    labels={
        "args": "args: TVMFFIAny[3]\n\n"
        "[0] type_index 70 | v_ptr\n"
        "[1] type_index 70 | v_ptr\n"
        "[2] type_index 70 | v_ptr",
        "num": "num_args: 3",
        "tensor": "Tensor object\n\n"
        "0-23: header,\nreference count\n"
        "24: DLTensor\ndata, device, ndim,\n"
        "dtype, shape, strides,\nbyte_offset",
        "shape": "8, 64",
        "data": "512 floats,\naligned to\n64 bytes",
    },
    colors={
        "args": "green",
        "num": "green",
        "shape": "vermilion",
        "data": "vermilion",
    },
    title="What __tvm_ffi_product gets for its first argument",
)

# %% cell: by-hand


class AnyCell(ctypes.Structure):
    """TVMFFIAny of tvm/ffi/c_api.h: 16 bytes."""

    _fields_ = [
        ("type_index", ctypes.c_int32),
        ("zero_padding", ctypes.c_uint32),
        ("v_ptr", ctypes.c_void_p),
    ]


TENSOR, NONE = 70, 0  # kTVMFFITensor, kTVMFFINone
y2 = tvm.runtime.tensor(np.zeros((8, 128), "float32"))
cells = (AnyCell * 3)(
    *(AnyCell(TENSOR, 0, t.__chandle__()) for t in (x, w1, y2))
)
result = AnyCell(NONE)
lib = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
status = lib.TVMFFIFunctionCall(
    ctypes.c_void_p(product.__chandle__()), cells, 3, ctypes.byref(result)
)
print("bytes of a cell:", ctypes.sizeof(AnyCell), " status:", status)
print("same result:", np.array_equal(y2.numpy(), y.numpy()))

# %% cell: unchecked, varies


def misaligned():
    """Hand a kernel an array that begins 4 bytes off."""
    import numpy as np
    import tvm
    from tvm import relax

    from tvm_deepdive_helpers.native import aligned_copy
    from tvm_deepdive_helpers.running_example import MLP

    relu = relax.transform.LegalizeOps()(MLP)["relu"]
    ex = tvm.compile(relu.with_attr("global_symbol", "relu"), "llvm")
    zeros = np.zeros((8, 128), "float32")
    ex["relu"](aligned_copy(zeros, offset=4), tvm.runtime.tensor(zeros))


crash = run_isolated(misaligned)
print("a numpy array, 4 bytes off:", crash.describe())
with expect_error(RuntimeError, match="not aligned"):
    tvm.runtime.from_dlpack(aligned_copy(x.numpy(), offset=4))

# %% cell: llvm


def x86(mcpu, **attributes):
    """A fixed x86 target, so that this page is the same everywhere."""
    triple = "x86_64-unknown-linux-gnu"
    return tvm.target.Target(
        {"kind": "llvm", "mtriple": triple, "mcpu": mcpu, **attributes}
    )


def llvm_ir(ex):
    return strip_llvm(ex.mod.inspect_source("ll")).text


plain = llvm_ir(tvm.compile(kernel, x86("x86-64-v3", **{"opt-level": 0})))
for line in plain.splitlines():
    if line.startswith(("define", "declare")):
        line = re.sub(r"\) .*", ")", line)
        line = re.sub(r"(ptr %\d+, ){3,}", "…, ", line)
        print(textwrap.fill(line, 72, subsequent_indent="    "))

# %% cell: llvm-loop
start = plain.index("for_begin_k:")
loop = plain[start : plain.index("\n}", start)]
print(re.sub(r" +; preds.*", "", loop))

# %% cell: llvm-check
start = plain.index("icmp eq i32 %num_args")
print("  %… =", plain[start : plain.index("\n\n", start)])
start = plain.index("assert_fail:", start)
block = re.sub(" +; preds.*", "", plain[start : plain.index("\n\n", start)])
print(re.sub(r"(ptr @[.\w]+, ){3,}", "…, ", block))

# %% cell: assembly


def assembly(ex, name):
    """Instructions and labels of one function, without directives."""
    text = ex.mod.inspect_source("s")
    text = text[text.index(f"\n{name}:") :]
    text = text[: text.index(".cfi_endproc")].expandtabs(8)
    keep = re.compile(r"\.LBB|\s+[a-z]\w*\b|\w+:$")
    return [line for line in text.splitlines() if keep.match(line)]


fast = tvm.compile(kernel, x86("x86-64-v3"))
asm = assembly(fast, "product_compute_")
first = next(i for i, line in enumerate(asm) if line.startswith(".LBB"))
last = next(i for i, line in enumerate(asm) if "(%rdx" in line)
print("\n".join(asm[: last + 5]))
print(f"# ... {len(asm) - last - 5} lines: the same for rows 1 to 7")

# %% cell: generic
old = tvm.compile(kernel, x86("x86-64"))
relu = legal["relu"].with_attr("global_symbol", "relu")
vector = tvm.compile(relu, x86("x86-64-v3"))

sch = s_tir.Schedule(kernel)  # the same product with j innermost
i, j, k = sch.get_loops(sch.get_sblock("matmul"))
sch.reorder(i, k, j)
inner_j = tvm.compile(sch.mod, x86("x86-64-v3"))


def arithmetic(lines):
    """Arithmetic instructions on floats by name, with their number."""
    counts = {}
    for line in lines:
        op = line.split()[0]
        if re.match(r"v?(mul|add|max|fmadd)\w*[sp]s$", op):
            op = re.sub(r"fmadd\d+", "fmadd", op)
            counts[op] = counts.get(op, 0) + 1
    return counts


counts = {
    "product, x86-64-v3": arithmetic(asm),
    "product, x86-64": arithmetic(assembly(old, "product_compute_")),
    "relu, x86-64-v3": arithmetic(assembly(vector, "relu_compute_")),
    "j innermost, x86-64-v3": arithmetic(
        assembly(inner_j, "product_compute_")
    ),
}
for what, found in counts.items():
    print(f"{what:24}{found}")

# %%
unroll = int(re.search(r"addq +\$(\d+), %r9\b", "\n".join(asm))[1])
left = int(re.search(r"cmpq +\$(\d+), %r9\b", "\n".join(asm))[1])
glue("unroll", unroll)
glue("left", left)
glue("turns", left // unroll)
glue("copies", counts["product, x86-64-v3"]["vfmaddss"] // (1 + unroll))
glue("row_bytes", 4 * w1.shape[1])
glue("row_floats", w1.shape[1])
glue("asm_lines", len(asm))
glue("checks", len(checks))

# %% cell: workspace


def lowered_builtins(batch):
    """The fused kernel before and after LowerTVMBuiltin."""
    fused = relax.get_pipeline("zero")(mlp(batch))["fused_matmul_add_relu"]
    with record(keep_scripts=True) as log:
        tvm.compile(fused.with_attr("global_symbol", "fused"), "llvm")
    names = "tirx.BF16StorageLegalize", "tirx.LowerTVMBuiltin"
    return [log.find(name)[0].script for name in names]


change = diff_text(*lowered_builtins(8), context=0)
for line in re.sub(r"(?m)^([+-]) +", r"\1 ", change).splitlines():
    print(textwrap.fill(line, 72, subsequent_indent="      "))
where = {}
for batch in (1, 2):
    pooled = "AllocWorkspace" in lowered_builtins(batch)[1]
    where[batch * 128 * 4] = "workspace" if pooled else "stack"
print("# other batches, by bytes of the buffer:", where)

# %% cell: bytecode
mlp_ex = tvm.compile(MLP, target="llvm")
text = mlp_ex.as_text()
print(text[: text.index("ret")] + text[text.index("ret") :].split("\n")[0])

# %% cell: constants
constants = re.search(r"Constant pool.*?: \[(.*)\]", mlp_ex.stats())[1]
constants = re.sub(r'"ErrorContext.*?\) "', '"ErrorContext…"', constants)
parts = re.split(r", (?![\d\]])", constants)
for number, value in enumerate(parts):
    print(f"c[{number}] = {value}")

# %% cell: call
steps = []


def watch(func, name, before, ret, *operands):
    """Called by the virtual machine before and after each instruction."""
    if before:
        shapes = [
            "x".join(map(str, v.shape))
            for v in operands
            if isinstance(v, tvm.runtime.Tensor)
        ]
        steps.append((str(name), shapes))


vm = relax.VirtualMachine(mlp_ex, tvm.cpu())
vm.set_instrument(watch)
inputs = arguments(seed=0)
out = vm["main"](*as_tensors(inputs)).numpy()
for name, shapes in steps:
    if not name.startswith("vm."):
        print(f"{name:8}", ", ".join(shapes))
print("calls:", len(steps))
print("equal to numpy:", np.allclose(out, reference(*inputs), atol=1e-3))

# %% cell: not-linked
llvm = tvm.target.Target("llvm")
builder = relax.ExecBuilder()
with llvm:
    lowered = relax.get_pipeline("default")(MLP)
tvm.get_global_func("relax.VMCodeGen")(builder, lowered)
wrong_lib = tvm.compile(relu, llvm).mod
link = tvm.get_global_func("relax.VMLink")
exe = relax.VMExecutable(link(builder, llvm, wrong_lib, [], {}))
with expect_error(tvm.error.InternalError, match="matmul"):
    relax.VirtualMachine(exe, tvm.cpu())

# %%
glue("instructions", len(steps) + 1)
glue("vm_calls", len(steps))
kernel_calls = [name for name, _ in steps if not name.startswith("vm.")]
glue("kernel_calls", len(kernel_calls))

# %% cell: solution-opt, varies


def build_ms(level):
    """Least time of three builds of the example, in milliseconds."""
    target = tvm.target.Target({"kind": "llvm", "opt-level": level})
    times = []
    for _ in range(3):
        start = time.perf_counter()
        tvm.compile(MLP, target)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


slow, quick = build_ms(3), build_ms(0)
print(f"opt-level 3: {slow:.0f} ms, opt-level 0: {quick:.0f} ms")

# %% cell: solution-assert
with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
    bare = tvm.compile(kernel, target="llvm")
for name, one in (("with checks", ex), ("without", bare)):
    blocks = re.findall(r"^assert_fail\d*:", llvm_ir(one), re.M)
    print(f"{name}: {len(blocks)} error exits")

# %% cell: solution-noalias
aliasing = kernel.without_attr("tirx.noalias")
for name, one in (("noalias", fast), ("may alias", None)):
    one = one or tvm.compile(aliasing, x86("x86-64-v3"))
    text = one.mod.inspect_source("s")
    stores = len(re.findall(r"vmovss\s+%xmm\d+, ", text))
    muls = len(re.findall(r"vfmadd", text))
    print(f"{name:10}{muls:3} multiply-adds,{stores:3} stores")

# %% check
assert status == 0
if platform.machine() in ("x86_64", "AMD64"):
    assert crash.describe() == "killed by SIGSEGV"
    assert '"target-cpu"="generic"' in ex.mod.inspect_source("ll")
    assert "mulss" in ex.mod.inspect_source("s")
assert np.allclose(y.numpy(), expected, atol=1e-4)
assert np.allclose(out, reference(*inputs), atol=1e-3)
assert [sorted(found) for found in counts.values()] == [
    ["vfmaddss"],
    ["addss", "mulss"],
    ["vmaxps"],
    ["vfmaddps"],
]
assert kernel_calls == ["matmul", "add", "relu", "matmul1", "add1"]
assert len(checks) == packed.count("assert ")
assert ctypes.sizeof(AnyCell) == 16
assert where == {512: "stack", 1024: "workspace"}
# Fusion leaves two buffers, and StorageRewrite one of them.
fused = relax.get_pipeline("zero")(MLP)["fused_matmul_add_relu"]
assert fused.script().count("sblock_alloc_buffer") == 2
assert lowered_builtins(8)[0].count("alloc_buffer") == 1
assert unroll * (left // unroll) == left == x.shape[1] - 1
assert slow > quick
