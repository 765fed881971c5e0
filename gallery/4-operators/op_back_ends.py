"""
Many back ends
==============

One function as C, CUDA, OpenCL, Metal, WebGPU, PTX, AMD and Hexagon code
without any such device, object files for other processors, and the target
objects that choose all that.
"""

# %%
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from pathlib import Path

# Write device code as text, also where a device could be used.
os.environ["TVM_COMPILE_FORCE_FALLBACK"] = "1"

# %% cell: setup
import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.objects import read_object
from tvm_deepdive_helpers.wasm import with_exports

ROWS, COLUMNS = 4, 64


@T.prim_func(s_tir=True)
def flip(A: T.Buffer((4, 64), "float32"), B: T.Buffer((4, 64), "float32")):
    S = T.sblock_alloc_buffer((4, 64), "float32", scope="shared")
    for i in T.thread_binding(4, "blockIdx.x"):
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("load"):
                vi, vj = T.axis.remap("SS", [i, j])
                S[vi, vj] = A[vi, vj]
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("store"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = T.max(S[vi, 63 - vj], T.float32(0))


# %% cell: texts
texts = {}
gpus = {
    "cuda": {"kind": "cuda", "arch": "sm_80"},
    "opencl": "opencl",
    "metal": "metal",
    "webgpu": "webgpu",
}
for kind, target in gpus.items():
    ex = tvm.compile(flip, Target(target, host="llvm"))
    texts[kind] = ex.mod.imports[0].inspect_source()


def fold(line):
    return textwrap.wrap(line, 76, subsequent_indent="        ") or [""]


def kernel_text(text, begin):
    """The kernel without prototypes, long lines folded."""
    text = text[text.rindex(begin) :].strip()
    return "\n".join("\n".join(fold(line)) for line in text.splitlines())


print(kernel_text(texts["cuda"], 'extern "C"'))

# %% cell: text-opencl
print(kernel_text(texts["opencl"], "__kernel"))

# %% cell: text-metal
print(kernel_text(texts["metal"], "kernel void"))

# %% cell: text-webgpu
print(kernel_text(texts["webgpu"], "@group(0) @binding(0)"))

# %% cell: postproc
HOOK = "tvm_callback_cuda_postproc"


def stamp(code, target):
    """Put a first line before the text."""
    return f"// for {target.attrs['arch']}\n{code}"


tvm.register_global_func(HOOK, stamp)
ex = tvm.compile(flip, Target({"kind": "cuda", "arch": "sm_80"}))
print(ex.mod.imports[0].inspect_source().partition("\n")[0])
tvm_ffi.registry.remove_global_func(HOOK)

# %% cell: amd
give = {
    "tvm_callback_rocm_bitcode_path": lambda *args: [],
    "tvm_callback_rocm_link": lambda obj: obj,
    "tvm_callback_libdevice_path": lambda *args: "",
}
for name, function in give.items():
    tvm.register_global_func(name, function, override=True)
triple = "amdgcn-amd-amdhsa-hcc"
amd = {"kind": "rocm", "mcpu": "gfx1100", "mtriple": triple}
ex = tvm.compile(flip, Target(amd, host="llvm"))
texts["rocm"] = ex.mod.imports[0].inspect_source("asm")
print(ex.mod.imports[0].kind)
kernel = texts["rocm"].partition("flip_kernel:\n")[2]
kernel = kernel.partition("s_endpgm")[0].replace("\t", "    ")
print("\n".join(t for t in kernel.splitlines() if "s_delay" not in t))


# %% cell: nvptx
@T.prim_func(s_tir=True)
def relu(A: T.Buffer((4, 64), "float32"), B: T.Buffer((4, 64), "float32")):
    for i in T.thread_binding(4, "blockIdx.x"):
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("store"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = T.max(A[vi, vj], T.float32(0))


nvidia = Target({"kind": "nvptx", "mcpu": "sm_80"}, host="llvm")
ptx = tvm.compile(relu, nvidia).mod.imports[0].inspect_source("ptx")
body = ptx[ptx.index(".visible") :].partition("ret;")[0]
print(body.replace("\t", "    ").rstrip())
refused = expect_error(tvm.error.InternalError, match="barrier", show=False)
with refused:
    tvm.compile(flip, nvidia)
print("with a barrier:", *str(refused.exception).strip().splitlines()[:2])

# %% cell: nvptx-read
text = tvm.compile(relu, nvidia).mod.imports[0].inspect_source("ll")
print("written by TVM: ", re.search(r"^define.*?@relu_kernel", text, re.M)[0])
print("                ", re.search(r"!\{ptr @relu_kernel.*", text)[0])
with tempfile.TemporaryDirectory() as place, quiet():
    path = Path(place, "relu.ll")
    path.write_text(text)
    read = tvm.runtime.load_module(str(path))
    again, ptx_again = read.inspect_source("ll"), read.inspect_source("s")
print(
    "read from a file:", re.search(r"^define.*?@relu_kernel", again, re.M)[0]
)
print("                ", re.search(r"\.visible .*", ptx_again)[0])

# %% check
assert ".visible .func relu_kernel" in ptx
assert ".visible .entry relu_kernel" in ptx_again

# %% cell: differences
looks = {
    "function": r"__global__|__kernel|kernel void|@compute|amdgpu_kernel",
    "thread": r"threadIdx\.x|get_local_id\(0\)|threadIdx|%tid\.x",
    "block": r"blockIdx\.x|get_group_id\(0\)|blockIdx",
    "shared": r"__shared__|__local|threadgroup float|var<workgroup>|ds_store",
    "barrier": r"__syncthreads|\bbarrier|threadgroup_barrier"
    r"|workgroupBarrier|s_barrier",
    "block size": r"launch_bounds__\(64\)|workgroup_size\(64",
}
print((" " * 11 + "".join(f" {kind:19}" for kind in gpus)).rstrip())
for what, pattern in looks.items():
    found = (re.search(pattern, texts[kind]) for kind in gpus)
    row = "".join(f" {m[0] if m else '-':19}" for m in found)
    print(f"{what:11}{row}".rstrip())


# %% cell: scalar
@T.prim_func(s_tir=True)
def scaled(a: T.handle, b: T.handle):
    n = T.int32()
    A = T.match_buffer(a, (n, 64), "float32")
    B = T.match_buffer(b, (n, 64), "float32")
    for i in T.thread_binding(n, "blockIdx.x"):
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("store"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = A[vi, vj] * T.Cast("float32", n)


for kind, target in gpus.items():
    ex = tvm.compile(scaled, Target(target, host="llvm"))
    lines = ex.mod.imports[0].inspect_source().splitlines()
    want = r"[, (]int n\b|n\[\d\]|arg_t|args_t|podArgs|PODArgs|  n:"
    shown = [t.strip() for t in lines if re.search(want, t)]
    short = (re.sub(r"[AB]_ptr\[.*?\] =?", "", t)[-62:] for t in shown)
    print(f"{kind}:", *dict.fromkeys(short), sep="\n    ")


# %% cell: unbound
@T.prim_func(s_tir=True)
def flat(A: T.Buffer((4, 64), "float32"), B: T.Buffer((4, 64), "float32")):
    for i, j in T.grid(4, 64):
        with T.sblock("store"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = T.max(A[vi, 63 - vj], T.float32(0))


for kind in ("opencl", "vulkan"):
    mod = tvm.compile(flat, Target(kind, host="llvm")).mod
    print(kind, "->", mod.kind, "imports", list(mod.imports))
with expect_error(ValueError, match="target.build.vulkan", max_lines=1):
    tvm.compile(flip, Target("vulkan", host="llvm"))
with expect_error(tvm.error.InternalError, match="device_id_", max_lines=1):
    tvm.compile(flip, "llvm")


# %% cell: hexagon
def copy_instead_of_linking(library, objects, options):
    shutil.copyfile(objects[0].value, str(library))
    return 0


tvm.register_global_func(
    "tvm.contrib.hexagon.link_shared", copy_instead_of_linking, override=True
)
hexagon = Target("qcom/hexagon-v68", host="qcom/hexagon-v68")
with expect_error(tvm.error.InternalError, show=False):
    tvm.compile(flat, hexagon)
lower, finish_host, _ = tirx.get_tir_pipeline("default")
mod = tirx.transform.BindTarget(hexagon)(tvm.IRModule({"flat": flat}))
mod = finish_host()(lower(mod))
dsp = tvm.get_global_func("target.build.hexagon")(mod, hexagon)
text = dsp.inspect_source("s")
print(dsp.kind)
print(*re.findall(r"\t(.*sfmax.*)", text)[:2], sep="\n")

# %% cell: kinds
print(f"{'kind':9} {'device':7} {'keys':12} attributes that it gets unasked")
for name in ("llvm", "c", "cuda", "opencl", "metal", "webgpu", "vulkan"):
    target = Target(gpus.get(name, name))
    device = str(tvm.device(name if name not in ("llvm", "c") else "cpu"))
    attrs = {k: v for k, v in target.attrs.items() if k != "arch"}
    attrs = {k: v for k, v in attrs.items() if k != "mtriple"}
    text = ", ".join(f"{k}={v}" for k, v in sorted(attrs.items()))
    begin = (
        f"{name:9} {device.partition(':')[0]:7} {','.join(target.keys):12} "
    )
    print(
        textwrap.fill(
            begin + text, 78, subsequent_indent=" " * 31, max_lines=3
        )
    )

# %% cell: features
arm = Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu"})
print(sorted(k for k, v in arm.attrs.items() if v is True))
arm = Target({**arm.export(), "mattr": ["+sve"]})
print(sorted(k for k, v in arm.attrs.items() if v is True))
claims = {"feature.has_sve": True, "feature.of_ours": 1}
arm = Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", **claims})
print({k: arm.attrs[k] for k in claims})

# %% cell: tags
tags = tvm.target.list_tags()
print(len(tags), "tags;", Target("nvidia/nvidia-a100").attrs["arch"])
tvm.target.register_tag(
    "book/board",
    {"kind": "llvm", "mtriple": "riscv64-linux-gnu", "num-cores": 4},
)
print(Target("book/board"))
print(Target({"tag": "book/board", "num-cores": 8}))

# %% cell: target-errors
with expect_error(ValueError, match="no longer supported", max_lines=1):
    Target("llvm -mcpu=znver4")
with expect_error(ValueError, match="Unknown|nrecognized|mcp", max_lines=1):
    Target({"kind": "llvm", "mcp": "znver4"})
with expect_error(ValueError, match="expected type 'int'", max_lines=1):
    Target({"kind": "llvm", "num-cores": "4"})
with expect_error(ValueError, match="not defined", max_lines=1):
    Target("toy")

# %% cell: cross
folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
rv = {"mattr": ["+m", "+a", "+f", "+d", "+c"], "mabi": "lp64d"}
places = {
    "x86-64": ({"mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}, "vmax"),
    "aarch64": ({"mtriple": "aarch64-linux-gnu"}, r"fmax\w*"),
    "riscv64": (
        {"mtriple": "riscv64-linux-gnu", "mcpu": "generic-rv64", **rv},
        "fmax",
    ),
    "wasm32": (
        {"mtriple": "wasm32-unknown-unknown-wasm", "vector-width": 128},
        r"f32\.\w+",
    ),
}
sizes = {}


def write(options, path):
    """Write an object file of `flat`, and return its assembly."""
    mod = tvm.compile(flat, Target({"kind": "llvm", **options})).mod
    mod.write_to_file(str(path), "o")
    return mod.inspect_source("s")


for name, (options, instruction) in places.items():
    assembly = write(options, here / f"{name}.o")
    info = read_object(here / f"{name}.o")
    sizes[name] = (here / f"{name}.o").stat().st_size
    pattern = rf"\b(\w*{instruction}\w*)"
    words = sorted(set(re.findall(pattern, assembly)))
    print(f"{name:8} {info.format:11} {info.machine:7} {info.bits} bits")
    print("        needs", *info.undefined, " uses", *words[:4])

# %% check
for name in places:
    info = read_object(here / f"{name}.o")
    assert info.undefined == ("TVMFFIErrorSetRaisedFromCStrParts",)
    assert info.machine == ("riscv" if name == "riscv64" else name)

# %% cell: not-here, varies
arm_64 = Target({"kind": "llvm", **places["aarch64"][0]})
with expect_error(tvm.error.InternalError, match="mismatch", max_lines=1):
    tvm.compile(flat, arm_64)["flat"]

# %%
SCRIPT = r"""
const fs = require('fs');
const memory = new WebAssembly.Memory({initial: 2});
const view = new DataView(memory.buffer);
const bytes = new Uint8Array(memory.buffer);
const text = p => {
  let s = '';
  while (bytes[p]) s += String.fromCharCode(bytes[p++]);
  return s;
};
const set = (at, value) => view.setInt32(at, value, true);
let message = '';
const env = {
  __linear_memory: memory,
  __memory_base: new WebAssembly.Global({value: 'i32'}, 0),
  __stack_pointer:
    new WebAssembly.Global({value: 'i32', mutable: true}, 65536),
  TVMFFIErrorSetRaisedFromCStrParts: (kind, parts, number) => {
    message = text(kind) + ': ';
    for (let i = 0; i < number; i++)
      message += text(view.getInt32(parts + 4 * i, true));
  },
};
const file = new WebAssembly.Module(fs.readFileSync(process.argv[1]));
const kernel = new WebAssembly.Instance(file, {env}).exports.__tvm_ffi_flat;
let top = 65536;
const take = n => { const p = top; top += (n + 63) & ~63; return p; };
function tensor(rows, columns, f) {  // a DLTensor with pointers of 4 bytes
  const data = take(4 * rows * columns), shape = take(16), t = take(40);
  for (let i = 0; i < rows * columns; i++)
    view.setFloat32(data + 4 * i, f(i), true);
  view.setBigInt64(shape, BigInt(rows), true);
  view.setBigInt64(shape + 8, BigInt(columns), true);
  [data, 1, 0, 2].forEach((value, i) => set(t + 4 * i, value));
  view.setUint8(t + 16, 2);
  view.setUint8(t + 17, 32);
  view.setUint16(t + 18, 1, true);
  set(t + 20, shape);
  return {t, data};
}
function call(...tensors) {  // cells of 16 bytes: type index 7, DLTensor*
  const args = take(16 * tensors.length);
  tensors.forEach((x, i) => {
    set(args + 16 * i, 7);
    set(args + 16 * i + 8, x.t);
  });
  return kernel(0, args, tensors.length, take(16));
}
const a = tensor(4, 64, i => (i % 64) - 31.5), b = tensor(4, 64, i => -1);
console.log('status', call(a, b));
let wrong = 0;
for (let i = 0; i < 256; i++)
  wrong += view.getFloat32(b.data + 4 * i, true)
           !== Math.max(31.5 - (i % 64), 0);
console.log('wrong elements', wrong);
console.log('status', call(a, tensor(4, 32, i => 0)), message.split('\n')[0]);
"""

# %% cell: node, varies
(here / "flat.wasm").write_bytes(with_exports(here / "wasm32.o"))
node = shutil.which("node")
if node:
    command = [node, "-e", SCRIPT, str(here / "flat.wasm")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    print(run.stdout.strip())
else:
    print("no Node.js on this machine: not run")

# %% check
if node:
    assert "status 0\nwrong elements 0\nstatus -1 ValueError" in run.stdout
glue("js_lines", len(SCRIPT.strip().splitlines()))
glue("wasm_bytes", sizes["wasm32"])


# %% cell: sizes
flags = {"tirx.disable_assert": True}
bare = {}
with tvm.transform.PassContext(config=flags):
    for name, (options, _) in places.items():
        write(options, here / "bare.o")
        bare[name] = (here / "bare.o").stat().st_size
bars = {}
for name in places:
    bars[name] = sizes[name] / 1024
    bars[f"{name}, no checks"] = bare[name] / 1024
bar_chart(
    bars,
    unit="KiB",
    color={n: "vermilion" for n in bars if "no" in n},
    title="Object file of one kernel, with and without argument checks",
)

# %% check
a = np.random.default_rng(0).standard_normal((4, 64)).astype("float32")
b = tvm.runtime.tensor(np.zeros((4, 64), "float32"))
for kind in ("llvm", "c"):
    tvm.compile(flat, kind).jit()["flat"](tvm.runtime.tensor(a), b)
    np.testing.assert_array_equal(b.numpy(), np.maximum(a[:, ::-1], 0))

# %% cell: solution-vector
scalar = places["wasm32"][0]
for options in (scalar, {**scalar, "mattr": ["+simd128"]}):
    assembly = write(options, here / "flat.o")
    words = re.findall(r"\bf32\w*\.\w+", assembly)
    print(options.get("mattr"), *sorted(set(words)))

# %% cell: solution-which
board = Target("book/board", host="book/board")
ex = tvm.compile(flat, board)
ex.mod.write_to_file(str(here / "board.o"), "o")
print(read_object(here / "board.o").machine, "for", board.attrs["mtriple"])
