"""
Modules: functions by name, in memory and on disk
=================================================

The modules of a compiled model, how a function is found, what an exported
library contains byte by byte, and a kind of module of our own.
"""

# %% cell: tree
import ctypes
import struct
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.script import tirx as T
from tvm.support import cc

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.objects import read_object
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)


def print_tree(module, depth=0):
    """Kind and abilities of a module and of all it imports."""
    can = [
        word
        for word, yes in {
            "run": module.is_runnable(),
            "bytes": module.is_binary_serializable(),
            "compile": module.is_compilation_exportable(),
        }.items()
        if yes
    ]
    print(f"{'  ' * depth + module.kind:22}", *can)
    for imported in module.imports:
        print_tree(imported, depth + 1)


ex = tvm.compile(MLP, target="llvm")
vm = relax.VirtualMachine(ex, tvm.cpu())
print(type(ex).__name__, "holds a", type(ex.mod).__name__)
print_tree(ex.mod)
print_tree(vm.module)

# %% cell: lookup
with expect_error(AttributeError, match="no function 'main'"):
    ex.mod["main"]
with expect_error(AttributeError, match="no function 'matmul'"):
    ex.mod["matmul"]
print("through imports:", ex.mod.get_function("matmul", query_imports=True))
print("an Executable does that:", ex["matmul"])
print("own functions:", ex.mod["has_function"]("main"), end=" ")
print(ex.mod["stats"]()[:20], "...")
print("of the machine:", vm.module["main"])

# %% check
assert not ex.mod.implements_function("matmul")
assert ex.mod.implements_function("matmul", query_imports=True)

# %% cell: inspect
llvm = ex.mod.imports[0]
for form in ("ll", "s"):
    print(f"{form:3} {len(llvm.inspect_source(form).splitlines())} lines")
print("formats to write:", list(llvm.get_write_formats()) or "-")
c_source = tvm.compile(MLP, target="c").mod.imports[0]
print(c_source.kind, list(c_source.get_write_formats()))
print_tree(c_source)

# %% cell: export
folder = tempfile.TemporaryDirectory()
steps = []


def traced(name, files, **options):
    """What export_library hands to the linker."""
    steps.extend(Path(f).name for f in files)
    cc.create_shared(name, files, **options)


path = Path(folder.name, "mlp.so")
ex.export_library(str(path), fcompile=traced)
print("linked from:", steps)
info = read_object(path)
print("offers:", *info.defined)
print("needs: ", *info.undefined)
ex.export_library(str(path.with_suffix(".tar")))
with tarfile.open(path.with_suffix(".tar")) as archive:
    print("as .tar:", archive.getnames())

# %% cell: binary


class Reader:
    """Read numbers and byte strings as ProcessLibraryBin does."""

    def __init__(self, address):
        self.at = address

    def number(self):
        value = struct.unpack("<Q", ctypes.string_at(self.at, 8))[0]
        self.at += 8
        return value

    def vector(self):
        return [self.number() for _ in range(self.number())]

    def text(self):
        size = self.number()
        self.at += size
        return ctypes.string_at(self.at - size, size)


def print_binary(file):
    """Print what stands in __tvm_ffi__library_bin, and return its size."""
    library = ctypes.CDLL(str(file))
    start = ctypes.c_char.in_dll(library, "__tvm_ffi__library_bin")
    reader = Reader(ctypes.addressof(start))
    total = reader.number()
    print("bytes:", total)
    first, children = reader.vector(), reader.vector()
    for i in range(len(first) - 1):
        kind = reader.text().decode()
        size = "" if kind == "_lib" else f"{len(reader.text())} bytes"
        imports = children[first[i] : first[i + 1]]
        print(f"module {i}: {kind:20}{size:12}imports {imports}")
    return total


thin = print_binary(path)

# %% cell: load
loaded = tvm.runtime.load_module(str(path))
print_tree(loaded)
inputs = arguments(seed=0)
y = relax.VirtualMachine(loaded, tvm.cpu())["main"](*as_tensors(inputs))
print("right:", np.allclose(y.numpy(), reference(*inputs), atol=1e-3))
names = tvm_ffi.registry.list_global_func_names()
LOADER = "ffi.Module.load_from_bytes."
print(*sorted(n.removeprefix(LOADER) for n in names if LOADER in n))
with expect_error(ValueError, match="cannot find file"):
    tvm.runtime.load_module("no-such.so")
with expect_error(RuntimeError, match="load_from_file.onnx", max_lines=1):
    Path(folder.name, "mlp.onnx").touch()
    tvm.runtime.load_module(str(Path(folder.name, "mlp.onnx")))

# %% check
assert np.allclose(y.numpy(), reference(*inputs), atol=1e-3)

# %% cell: no-second-export
with expect_error(RuntimeError, match="does not support SaveToBytes"):
    loaded.export_library(str(Path(folder.name, "again.so")))

# %% cell: stale


def constant(value):
    """A library with a function that fills a vector."""

    @T.prim_func
    def fill(A: T.Buffer((4,), "float32")):
        for i in range(4):
            A[i] = T.float32(value)

    return tvm.compile(fill, "llvm")


def export_and_load(value, load, name):
    """Write a library, over one of that name; load it and call it."""
    file = Path(folder.name, name)
    constant(value).export_library(str(file))
    a = tvm.runtime.empty((4,))
    load(str(file))["fill"](a)
    return a.numpy()[0]


def unkept(file):
    return tvm_ffi.load_module(file, keep_module_alive=False)


for load, name in ((tvm.runtime.load_module, "a.so"), (unkept, "b.so")):
    values = [export_and_load(value, load, name) for value in (1, 2)]
    print(f"{load.__name__}:", *values)

# %% check
assert export_and_load(3, tvm.runtime.load_module, "a.so") == 1
assert export_and_load(3, unkept, "b.so") == 3

# %% cell: plain
plain = tvm_ffi.load_module(str(path))  # tvm is not needed for kernels
print(plain.kind, "->", plain.imports[0].kind)
x, w1, *_ = as_tensors(inputs)
h = tvm.runtime.empty((8, 128))
plain.imports[0]["matmul"](x, w1, h)
print(np.allclose(h.numpy(), inputs[0] @ inputs[1], atol=1e-4))

# %% check
assert np.allclose(h.numpy(), inputs[0] @ inputs[1], atol=1e-4)

# %% cell: own-kind
SOURCE = r"""
#include <tvm/ffi/cast.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/reflection/registry.h>

#include <sstream>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

class Labels final : public ffi::ModuleObj {
 public:
  explicit Labels(const ffi::Bytes& lines) : lines_(lines) {
    std::istringstream in(std::string(lines.data(), lines.size()));
    for (std::string line; std::getline(in, line);) labels_.push_back(line);
  }

  const char* kind() const final { return "book.labels"; }

  int GetPropertyMask() const final {
    return ffi::Module::kBinarySerializable | ffi::Module::kRunnable;
  }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    if (name != "label") return std::nullopt;
    // The function owns the module: it may outlive all other owners.
    return ffi::Function::FromTyped(
        [this, self = ffi::GetRef<ffi::Module>(this)](int64_t i) {
          if (i < 0 || i >= static_cast<int64_t>(labels_.size()))
            TVM_FFI_THROW(IndexError) << "no label " << i;
          return ffi::String(labels_[i]);
        });
  }

  ffi::Bytes SaveToBytes() const final { return lines_; }

 private:
  ffi::Bytes lines_;
  std::vector<std::string> labels_;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  ffi::reflection::GlobalDef().def(
      "ffi.Module.load_from_bytes.book.labels",
      [](const ffi::Bytes& bytes) {
        return ffi::Module(ffi::make_object<Labels>(bytes));
      });
}
"""
source = Path(folder.name, "labels.cc")
source.write_text(SOURCE)
options = ["-std=c++17", f"-I{tvm_ffi.libinfo.find_include_path()}"]
kind_library = source.with_suffix(".so")
cc.create_shared(str(kind_library), str(source), options)
ctypes.CDLL(str(kind_library))  # registers the loader
load_labels = tvm.get_global_func(LOADER + "book.labels")
labels = load_labels(b"cat\ndog\nowl\n")
print(labels.kind, labels["label"](2))
with expect_error(IndexError, match="no label 3"):
    labels["label"](3)

# %% cell: own-export
ex.mod.import_module(labels)
print_tree(ex.mod)
both = Path(folder.name, "both.so")
ex.export_library(str(both))
print_binary(both)
again = tvm.runtime.load_module(str(both))
print(again.get_function("label", query_imports=True)(1))

# %% check
assert again.get_function("label", query_imports=True)(1) == "dog"

# %% cell: own-missing
USE = f"""
import tvm
module = tvm.runtime.load_module({str(both)!r})
print(module.get_function("label", query_imports=True)(0))
"""
PREPARE = f"""
import ctypes
import tvm_ffi
ctypes.CDLL({str(kind_library)!r})
"""
for program in (USE, PREPARE + USE):
    ended = run_isolated(program, env={"TVM_USE_RUNTIME_LIB": "1"})
    print(ended.stdout.strip() or ended.stderr.strip().splitlines()[-1])

# %% check
assert ended.stdout.strip() == "cat"

# %% cell: files-figure
fig, _ = boxes_and_arrows(
    {
        "exec": (0, 0),
        "llvm": (0, 1),
        "devc": (1, 0),
        "lib0": (1, 1),
        "so": (2, 0.5),
        "exec2": (3, 0),
        "lib": (3, 1),
    },
    {
        ("exec", "llvm"): "imports",
        ("exec", "devc"): "SaveToBytes",
        ("llvm", "lib0"): "WriteToFile",
        ("devc", "so"): "",
        ("lib0", "so"): "",
        ("so", "exec2"): "load_from_bytes",
        ("so", "lib"): "dlsym",
        ("exec2", "lib"): "imports",
    },
    labels={
        "exec": "relax.\nVMExecutable",
        "llvm": "llvm",
        "devc": "devc.o\nlibrary_bin",
        "lib0": "lib0.o\n__tvm_ffi_*",
        "so": "mlp.so",
        "exec2": "relax.\nVMExecutable",
        "lib": "library",
    },
    colors={
        "devc": "green",
        "lib0": "green",
        "so": "green",
        "exec2": "purple",
        "lib": "purple",
    },
    title="Export and load",
)

# %% cell: solution-host
target = tvm.target.Target("c")
as_c = tvm.compile(MLP, target)
print_tree(as_c.mod)
print("jit() made a new module:", as_c.jit() is not as_c.mod)
print_tree(as_c.jit())
z = relax.VirtualMachine(as_c, tvm.cpu())["main"](*as_tensors(inputs))
print(np.allclose(z.numpy(), y.numpy(), atol=1e-4))

# %% check
assert np.allclose(z.numpy(), y.numpy(), atol=1e-4)

# %% cell: solution-weights
bound = relax.transform.BindParams(
    "main", dict(zip(["w1", "b1", "w2", "b2"], inputs[1:], strict=True))
)(MLP)
fat = Path(folder.name, "fat.so")
tvm.compile(bound, "llvm").export_library(str(fat))
weights = sum(a.nbytes for a in inputs[1:])
growth = print_binary(fat) - thin
print("bytes of weights:", weights, " growth:", growth)

# %% check
assert 0.9 < growth / weights < 1
glue("weights", weights)
glue("growth", growth)
folder.cleanup()
