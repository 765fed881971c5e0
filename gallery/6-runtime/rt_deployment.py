"""
Deployment: a model without Python
==================================

A C++ program that runs an exported model with what the wheels ship, what has
to be copied to the target, and a kernel that needs no library of TVM at all.
"""

# %% cell: export
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import libinfo, relax
from tvm.script import tirx as T
from tvm.support import cc

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.book import clean_message
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.objects import read_object
from tvm_deepdive_helpers.running_example import arguments, mlp, reference

folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
inputs = arguments(seed=0)
weights = dict(zip(["w1", "b1", "w2", "b2"], inputs[1:], strict=True))
with_weights = relax.transform.BindParams("main", weights)(mlp("n"))
ex = tvm.compile(with_weights, "llvm")
ex.export_library(str(here / "model.so"))
print(f"model.so, {(here / 'model.so').stat().st_size >> 10} KiB")

# %% cell: headers
TVM = Path(tvm.__file__).parent
FFI = Path(tvm_ffi.__file__).parent
include = [f"-I{d / 'include'}" for d in (TVM, FFI)]
source = here / "try.cc"
source.write_text("#include <tvm/runtime/tensor.h>\n")
with expect_error(RuntimeError, match="fatal error", show=False) as refused:
    cc.create_shared(str(here / "try.so"), str(source), include)
missing = re.search(r"tvm/support/\w+\.h", str(refused.exception))
print("tensor.h: cannot find", missing[0])


def complete(header, seen=None):
    """Whether each header of TVM that is included, however deep, exists."""
    seen = set() if seen is None else seen
    if header in seen:
        return True
    seen.add(header)
    found = [d / "include" / header for d in (TVM, FFI)]
    file = next((f for f in found if f.is_file()), None)
    if file is None:
        return False
    folder = Path(header).parent
    names = re.findall(r'^#include ["<](.*)[">]', file.read_text(), re.M)
    names = [str(folder / n) if n[0] == "." else n for n in names]
    return all(complete(n, seen) for n in names if n.startswith("tvm/"))


root = TVM / "include"
headers = sorted(str(f.relative_to(root)) for f in root.rglob("*.h"))
broken = [name for name in headers if not complete(name)]
for word, names in {
    "compile": [name for name in headers if name not in broken],
    "do not": broken,
}.items():
    print(f"{word}:", *(name.removeprefix("tvm/runtime/") for name in names))

# %% check
assert {"tvm/runtime/tensor.h", "tvm/runtime/vm/vm.h"} < set(broken)
assert "tvm/runtime/device_api.h" not in broken
glue("headers", len(headers))
glue("broken", len(broken))

# %% cell: program
PROGRAM = r"""
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdio>
#include <cstdlib>

namespace ffi = tvm::ffi;

struct HostMemory {  // the two functions that FromNDAlloc calls
  void AllocData(DLTensor* t) {
    size_t bytes = (ffi::GetDataSize(*t) + 63) / 64 * 64;
    t->data = std::aligned_alloc(64, bytes);  // kernels count on 64
  }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

int main(int argc, char** argv) try {
  ffi::Module file = ffi::Module::LoadFromFile(argv[1]);
  ffi::Module vm =
      (*file->GetFunction("vm_load_executable"))().cast<ffi::Module>();
  // device type, device index, allocator (1 naive, 2 pooled)
  (*vm->GetFunction("vm_initialization"))(int(kDLCPU), 0, 2);
  ffi::Function model = *vm->GetFunction("main");

  int64_t rows = std::atoi(argv[2]), columns = std::atoi(argv[3]);
  ffi::Tensor x = ffi::Tensor::FromNDAlloc(
      HostMemory(), {rows, columns}, DLDataType{kDLFloat, 32, 1},
      DLDevice{kDLCPU, 0});
  FILE* in = std::fopen("x.bin", "rb");
  std::fread(x.data_ptr(), 4, x.numel(), in);
  std::fclose(in);

  ffi::Tensor y = model(x).cast<ffi::Tensor>();
  std::printf("%s: %ld x %ld\n", std::string(file->kind()).c_str(),
              long(y.size(0)), long(y.size(1)));
  FILE* out = std::fopen("y.bin", "wb");
  std::fwrite(y.data_ptr(), 4, y.numel(), out);
  std::fclose(out);
} catch (const ffi::Error& e) {
  std::printf("%s: %s\n", e.kind().c_str(), e.message().c_str());
  return 1;
}
"""
source = here / "run.cc"
source.write_text(PROGRAM)
ffi_include = ["-std=c++17", f"-I{FFI / 'include'}"]
cc.create_executable(str(here / "run.obj"), str(source), ffi_include)

libraries = [f"-L{TVM / 'lib'}", f"-L{FFI / 'lib'}"]
libraries += ["-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi"]
libraries += ["-lstdc++", "-Wl,-rpath,$ORIGIN/lib"]
cc.create_executable(str(here / "run"), str(here / "run.obj"), libraries)

# %% cell: target
target = here / "target"
(target / "lib").mkdir(parents=True)
for file in (
    here / "run",
    here / "model.so",
    TVM / "lib" / "libtvm_runtime.so",
    FFI / "lib" / "libtvm_ffi.so",
):
    place = target / ("lib" if file.name.startswith("lib") else "")
    shutil.copy(file, place)


def run(*args, program="run", **environment):
    """Run in the target folder, with nothing in the environment."""
    ended = subprocess.run(
        [f"./{program}", *map(str, args)],
        cwd=target,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = clean_message(ended.stdout + ended.stderr) or "(no output)"
    for line in told.splitlines():
        print(textwrap.fill(line, 78, subsequent_indent="    "))
    return ended.returncode


x = np.vstack([inputs[0]] * 3)
x.tofile(target / "x.bin")
print("status:", run("./model.so", *x.shape))
y = np.fromfile(target / "y.bin", "float32").reshape(len(x), -1)
expected = reference(x, *inputs[1:])
print("as numpy:", np.allclose(y, expected, atol=1e-3))

# %% check
assert np.allclose(y, expected, atol=1e-3)
sizes = {f.name: f.stat().st_size for f in target.rglob("*") if f.is_file()}
total = sum(v for k, v in sizes.items() if not k.endswith(".bin"))
glue("target_mib", total / 2**20, varies=True)
compiler = (TVM / "lib" / "libtvm_compiler.so").stat().st_size
glue("compiler_mib", compiler / 2**20, varies=True)

# %% cell: target-figure
fig, _ = boxes_and_arrows(
    {
        "model": (0, 0),
        "run": (0, 1),
        "runtime": (1, 0.5),
        "ffi": (2, 0.5),
        "system": (3, 0.5),
    },
    {
        ("run", "model"): "dlopen",
        ("run", "runtime"): "RUNPATH",
        ("runtime", "ffi"): "$ORIGIN",
        ("ffi", "system"): "needs",
    },
    labels={
        "model": "model.so\nneeds no TVM library",
        "run": "run\nthe program",
        "runtime": "lib/\nlibtvm_runtime.so",
        "ffi": "lib/\nlibtvm_ffi.so",
        "system": "libstdc++, libm,\nlibc of the target",
    },
    colors={"model": "green", "run": "vermilion"},
    title="All that stands on the target",
)

# %% cell: loaded


def loaded(program):
    """What the loader finds for a program, but for the system's libraries."""
    listing = subprocess.run(
        [target / program],
        env={"LD_TRACE_LOADED_OBJECTS": "1"},  # what the script ldd does
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in listing.splitlines():
        name, _, path = line.partition(" => ")
        if "tvm" in name:
            path = Path(path.partition(" (")[0])
            print(name.strip(), "->", path.relative_to(target.resolve()))
    return "tvm" in listing


loaded("run")

# %% cell: failures
print("shape:", run("./model.so", len(x), 65))
print("no slash:", run("model.so", *x.shape))
(target / "lib" / "libtvm_ffi.so").rename(target / "libtvm_ffi.so")
print("library gone:", run("./model.so", *x.shape))
print("with a path:", run("./model.so", *x.shape, LD_LIBRARY_PATH="."))
(target / "libtvm_ffi.so").rename(target / "lib" / "libtvm_ffi.so")

# %% cell: not-linked
short = [option for option in libraries if option != "-ltvm_runtime"]
cc.create_executable(str(target / "short"), str(here / "run.obj"), short)
loaded("short")
print("status:", run("./model.so", *x.shape, program="short"))

# %% cell: versions
model = (target / "model.so").read_bytes()
magic = (0xD225DE2F4214151E).to_bytes(8, "little")
start = model.index(magic) + 8
size = int.from_bytes(model[start : start + 8], "little")
version = model[start + 8 : start + 8 + size]
print("format of the bytecode:", version.decode())
at = start + 8 + size - 1
other = model[:at] + b"9" + model[at + 1 :]
(target / "other.so").write_bytes(other)
print("status:", run("./other.so", *x.shape))

# %% check
assert model.count(magic) == 1
glue("format", version.decode())

# %% cell: static
prefixed = with_weights.with_attr("system_lib_prefix", "book_")
archive = str(here / "model.a")
tvm.compile(prefixed, "llvm").export_library(
    archive, fcompile=cc.create_staticlib
)

opening = "ffi::Module::LoadFromFile(argv[1])"
asking = """ffi::Function::GetGlobalRequired("ffi.SystemLib")(
      ffi::String(argv[1])).cast<ffi::Module>()"""
source.write_text(PROGRAM.replace(opening, asking))
cc.create_executable(str(here / "static.obj"), str(source), ffi_include)
whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
cc.create_executable(
    str(target / "static"), str(here / "static.obj"), [*whole, *libraries]
)
(target / "y.bin").unlink()
print("status:", run("book_", *x.shape, program="static"))
nobody = tvm_ffi.system_lib("other_")
print("other_:", nobody.kind, nobody.implements_function("relu"))

# %% check
assert opening in PROGRAM
y = np.fromfile(target / "y.bin", "float32").reshape(len(x), -1)
assert np.allclose(y, expected, atol=1e-3)

# %% cell: bare-object


@T.prim_func
def saxpy(
    a: T.float32, X: T.Buffer((8,), "float32"), Y: T.Buffer((8,), "float32")
):
    for i in range(8):
        Y[i] = a * X[i] + Y[i]


named = tvm.IRModule({"saxpy": saxpy.with_attr("global_symbol", "saxpy")})
tvm.compile(named, "llvm").mod.write_to_file(str(here / "saxpy.o"), "o")
bare = read_object(here / "saxpy.o")
print("offers:", *bare.defined)
print("needs: ", *bare.undefined)

# %% cell: bare-program
MAIN = r"""
#include <stdio.h>
#include <tvm/ffi/c_api.h>

int __tvm_ffi_saxpy(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);

/* The one function that the object imports. */
void TVMFFIErrorSetRaisedFromCStrParts(
    const char* kind, const char** parts, int32_t n) {
  printf("%s: ", kind);
  for (int i = 0; i < n; ++i) if (parts[i]) printf("%s", parts[i]);
  printf("\n");
}

int main(void) {
  _Alignas(64) float x[8] = {1, 2, 3, 4}, y[8] = {10, 10, 10, 10};
  int64_t shape[1] = {8}, strides[1] = {1};
  DLTensor X = {x, {kDLCPU, 0}, 1, {kDLFloat, 32, 1}, shape, strides, 0};
  DLTensor Y = X;
  Y.data = y;
  TVMFFIAny args[3] = {{0}}, result = {0};
  args[0].type_index = kTVMFFIFloat, args[0].v_float64 = 2;
  args[1].type_index = kTVMFFIDLTensorPtr, args[1].v_ptr = &X;
  args[2].type_index = kTVMFFIDLTensorPtr, args[2].v_ptr = &Y;
  int code = __tvm_ffi_saxpy(NULL, args, 3, &result);
  printf("%d: %g %g %g %g %g\n", code, y[0], y[1], y[2], y[3], y[4]);
  shape[0] = 7;
  printf("%d\n", __tvm_ffi_saxpy(NULL, args, 3, &result));
  return 0;
}
"""
source = here / "bare.c"
source.write_text(MAIN)
only_c = ["-xc", f"-I{FFI / 'include'}", str(source), "-xnone"]
program = target / "bare"
cc.create_executable(str(program), str(here / "saxpy.o"), [*only_c, "-lm"])
print("status:", run(program="bare"))
print("libraries of TVM:", loaded("bare"))

# %% check
needed = read_object(program).undefined
assert not any("TVM" in name for name in needed)
assert bare.undefined == ("TVMFFIErrorSetRaisedFromCStrParts",)
glue("bare_kib", program.stat().st_size / 1024, varies=True)

# %% cell: solution-parallel


@T.prim_func
def twice(Y: T.Buffer((8,), "float32")):
    for i in T.parallel(8):
        Y[i] = Y[i] * T.float32(2)


named = tvm.IRModule({"twice": twice.with_attr("global_symbol", "twice")})
library = tvm.compile(named, "llvm")
library.mod.write_to_file(str(here / "twice.o"), "o")
parallel = read_object(here / "twice.o")
print("needs: ", *parallel.undefined)
print("offers:", *parallel.defined)
library.export_library(str(here / "twice.so"))
CALL = """
import numpy as np, tvm_ffi
y = np.zeros(64, "float32")
y = y[-y.ctypes.data % 64 // 4:][:8]
tvm_ffi.load_module("./twice.so")["twice"](tvm_ffi.from_dlpack(y))
"""
library = libinfo.find_libtvm_runtime()
RUNTIME = f"import ctypes, tvm_ffi\nctypes.CDLL({library!r})\n"


def python(program):
    """Status of a Python program that can import tvm_ffi."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=here,
        env={"PYTHONPATH": str(FFI.parent)},
        check=False,
        capture_output=True,
    ).returncode


status = {"alone": python(CALL), "with": python(RUNTIME + CALL)}
print("status without and with libtvm_runtime:", *status.values())

# %% check
assert status["alone"] < 0, status  # SIGSEGV
assert status["with"] == 0, status

# %% cell: solution-kernel-only
ex.mod.imports[0].export_library(str(here / "kernels.so"))
ASK = "import tvm_ffi\ntvm_ffi.load_module('./{}.so')['relu']\n"
for name in ("model", "kernels"):
    print(f"{name}.so with tvm_ffi alone: {python(ASK.format(name))}")

# %% check
assert python(ASK.format("model")) == 1 and not python(ASK.format("kernels"))
folder.cleanup()
