"""
Devices: a pair of numbers, and an interface behind it
======================================================

How a device is named and found, what the errors say where there is no GPU, a
device written in C++ that runs a model, and copies from device to device.
"""

# %% cell: names
import ctypes
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm.support import cc

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

names = ("cpu", "cuda:1", "opencl", "metal", "vulkan", "rocm", "hexagon")
for name in names:
    device = tvm.device(name)
    print(f"{name:8} -> {device!s:10} kind {device.dlpack_device_type():2}")
print(tvm.device("cuda", 1) == tvm.cuda(1), len({tvm.cpu(), tvm.cpu(0)}))
with expect_error(ValueError, match="Unknown device"):
    tvm.device("gpu")

# %% cell: registry
found = tvm_ffi.registry.list_global_func_names()
print(sorted(name for name in found if name.startswith("device_api.")))
for device in (tvm.cpu(), tvm.cpu(7), tvm.cuda(), tvm.ext_dev()):
    print(f"{device!s:10} exists: {device.exist}")

# %% check
apis = [name for name in found if name.startswith("device_api.")]
assert "device_api.cpu" in apis and tvm.cpu(7).exist
assert "device_api.ext_dev" not in apis

# %% cell: enabled
for name in ("cpu", "rpc", "vulkan", "llvm"):
    print(f"{name:7} {tvm.runtime.enabled(name)}")
with expect_error(tvm.error.InternalError, match="Unknown optional runtime"):
    tvm.runtime.enabled("c")

# %% cell: attributes
ATTRIBUTES = ["device_name", "warp_size", "max_threads_per_block"]
ATTRIBUTES += ["api_version", "l2_cache_size_bytes"]
for name in ATTRIBUTES:
    print(f"{name:22}", getattr(tvm.cpu(), name))
memory = tvm.cpu().total_global_memory
print(f"{'total_global_memory':22}", "more than 1 GB:", memory > 1e9)
with expect_error(TypeError, match="not NoneType"):
    _ = tvm.cpu().max_thread_dimensions
print(tvm.target.Target.from_device(tvm.cpu()).kind)

# %% cell: no-gpu
absent = tvm.vulkan()  # a kind for which no library is loaded
print(absent, "exists:", absent.exist)
for action in (
    lambda: absent.warp_size,
    lambda: tvm.runtime.empty((2,), "float32", absent),
    lambda: tvm.runtime.tensor(np.ones(2)).copyto(absent),
    lambda: absent.sync(),
):
    with expect_error(tvm.error.InternalError, match="not enabled"):
        action()
with expect_error(ValueError, match="Cannot detect device", max_lines=1):
    tvm.target.Target.from_device(absent)

# %% cell: no-gpu-kernel


@T.prim_func(s_tir=True)
def plus_one(A: T.Buffer((256,), "float32"), B: T.Buffer((256,), "float32")):
    for i in range(256):
        with T.sblock("B"):
            v = T.axis.spatial(256, i)
            B[v] = A[v] + T.float32(1)


sch = s_tir.Schedule(plus_one.with_attr("global_symbol", "plus_one"))
sch.bind(sch.get_loops("B")[0], "threadIdx.x")
target = tvm.target.Target({"kind": "opencl"}, host="llvm")
for_gpu = tvm.compile(sch.mod, target)
print("compiled for:", [m.kind for m in for_gpu.mod.imports])
ones = tvm.runtime.tensor(np.ones(256, "float32"))
with expect_error(ValueError, match="expected opencl"):
    for_gpu["main"](ones, ones)
folder = tempfile.TemporaryDirectory()
library = str(Path(folder.name, "gpu.so"))
for_gpu.export_library(library)
with expect_error(RuntimeError, match="loader of that name"):
    tvm.runtime.load_module(library)
vm = relax.VirtualMachine(tvm.compile(MLP, "llvm"), absent)  # no complaint
with expect_error(tvm.error.InternalError, match="not enabled"):
    vm["main"](*as_tensors(arguments()))

# %% cell: own-device
SOURCE = """
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <cstdlib>
#include <cstring>
#include <string>

using namespace tvm;
using namespace tvm::runtime;

static std::string notes;

static std::string Name(Device d) {
  return std::string(DLDeviceType2Str(d.device_type)) + ":" +
         std::to_string(d.device_id);
}

class BookDevice final : public DeviceAPI {
 public:
  void SetDevice(Device dev) final {}

  void GetAttr(Device dev, DeviceAttrKind kind, ffi::Any* rv) final {
    if (kind == kExist) *rv = dev.device_id < 2 ? 1 : 0;
    if (kind == kDeviceName) *rv = ffi::String("book");
  }

  using DeviceAPI::AllocDataSpace;
  void* AllocDataSpace(Device dev, size_t bytes, size_t alignment,
                       DLDataType) final {
    notes += "alloc " + std::to_string(bytes) + " " + Name(dev) + "\\n";
    bytes = (bytes + alignment - 1) / alignment * alignment;
    return std::aligned_alloc(alignment, bytes);
  }

  void FreeDataSpace(Device dev, void* data) final {
    notes += "free " + Name(dev) + "\\n";
    std::free(data);
  }

  void StreamSync(Device dev, TVMStreamHandle) final {
    notes += "sync " + Name(dev) + "\\n";
  }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to,
                      size_t to_offset, size_t bytes, Device dev_from,
                      Device dev_to, DLDataType, TVMStreamHandle) final {
    notes += "copy " + std::to_string(bytes) + " " + Name(dev_from) +
             " -> " + Name(dev_to) + "\\n";
    std::memcpy(static_cast<char*>(to) + to_offset,
                static_cast<const char*>(from) + from_offset, bytes);
  }
};

static void* Make() {
  static BookDevice* device = new BookDevice();
  return static_cast<DeviceAPI*>(device);
}

TVM_FFI_STATIC_INIT_BLOCK() {
  ffi::reflection::GlobalDef()
      .def("device_api.ext_dev", Make)
      .def("device_api.vpi", Make)
      .def("book.notes", []() {
        std::string result = notes;
        notes.clear();
        return result;
      });
}
"""
source = Path(folder.name, "device.cc")
source.write_text(SOURCE)
packages = Path(tvm.__file__).parent, Path(tvm_ffi.__file__).parent
include = [f"-I{package / 'include'}" for package in packages]
options = ["-std=c++17", *include]
cc.create_shared(str(source.with_suffix(".so")), str(source), options)
ctypes.CDLL(str(source.with_suffix(".so")))
notes = tvm.get_global_func("book.notes")
book = tvm.ext_dev(0)
print(book, book.device_name, book.exist, tvm.ext_dev(2).exist)

# %% cell: operations


def noted(what, action):
    """Do something, and print which methods of the device were called."""
    notes()
    result = action()
    print(f"{what:16}", "; ".join(notes().splitlines()) or "-")
    return result


array = np.arange(4, dtype="float32")
t = noted("tensor(a, book)", lambda: tvm.runtime.tensor(array, book))
back = noted("t.numpy()", t.numpy)
u = noted("t.copyto(cpu)", lambda: t.copyto(tvm.cpu()))
v = noted("t.copyto(book 1)", lambda: t.copyto(tvm.ext_dev(1)))
noted("cpu to cpu", lambda: u.copyto(tvm.cpu(1)))
noted("view", lambda: t._create_view((2, 2)))
del t
print(f"{'del t':16}", notes().strip())

# %% check
assert np.array_equal(back, array) and np.array_equal(v.numpy(), array)

# %% cell: two-kinds
different = "Can not copy across different device types"
refused = expect_error(tvm.error.InternalError, match=different, show=False)
with refused:
    v.copyto(tvm.device("vpi"))
print(str(refused.exception).partition("is false: ")[2])
w = v.copyto(tvm.cpu()).copyto(tvm.device("vpi"))  # the detour
print(w.device, w)

# %% check
assert np.array_equal(w.numpy(), array)

# %% cell: copy-figure
fig, _ = boxes_and_arrows(
    {
        "python": (0, 0.5),
        "from_to": (1, 0.5),
        "cpu": (2, 0),
        "other": (2, 1),
        "refused": (1, 1.6),
    },
    {
        ("python", "from_to"): "",
        ("from_to", "cpu"): "both are CPUs",
        ("from_to", "other"): "one is not",
        ("from_to", "refused"): "two other kinds",
    },
    labels={
        "python": "a.copyto(b)",
        "from_to": "Tensor::CopyFromTo\nequal bytes?\nwho is not a CPU?",
        "cpu": "CPUDeviceAPI\nCopyDataFromTo: memcpy",
        "other": "that device's API\nCopyDataFromTo",
        "refused": "InternalError",
    },
    colors={
        "python": "green",
        "cpu": "vermilion",
        "other": "vermilion",
        "refused": "purple",
    },
    title="Which device carries out a copy",
)

# %% cell: model
target = tvm.target.Target({"kind": "ext_dev"}, host="llvm")
on_book = tvm.compile(MLP, target)
inputs = arguments(seed=0)
vm = relax.VirtualMachine(on_book, book)
args = as_tensors(inputs, book)
notes()
y = vm["main"](*args)
calls = Counter(line.split()[0] for line in notes().splitlines())
print(y.device, dict(calls))
print("as numpy:", np.allclose(y.numpy(), reference(*inputs), atol=1e-3))
with expect_error(ValueError, match="expected ext_dev"):
    vm["main"](*as_tensors(inputs))

# %% check
assert np.allclose(y.numpy(), reference(*inputs), atol=1e-3)
assert calls["copy"] == 0 and calls["alloc"] > 0
glue("model_allocs", calls["alloc"])

# %% cell: vdevice


@I.ir_module
class Mixed:
    I.module_global_infos(
        {
            "vdevice": [
                I.vdevice("llvm", 0),
                I.vdevice({"kind": "ext_dev", "host": "llvm"}, 0),
            ]
        }
    )

    @R.function
    def main(
        x: R.Tensor((2, 3), "float32"), y: R.Tensor((2, 3), "float32")
    ) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            moved = R.to_vdevice(x, "ext_dev:0")
            doubled = R.add(moved, moved)
            home = R.to_vdevice(doubled, "llvm:0")
            z = R.multiply(home, y)
            R.output(z)
        return z


mixed = tvm.compile(Mixed, "llvm")
NOTABLE = "to_device|alloc_storage|_llvm|_ext_dev"
for line in mixed.as_text().splitlines():
    if line.startswith("  call") and re.search(NOTABLE, line):
        print(line.strip())
devices = [tvm.cpu(), book]
vm = relax.VirtualMachine(mixed, devices)
print("devices:", *devices)
x = np.arange(6, dtype="float32").reshape(2, 3)
two = [tvm.runtime.tensor(a) for a in (x, x + 1)]
z = noted("run:", lambda: vm["main"](*two))
print("result on", z.device, np.array_equal(z.numpy(), 2 * x * (x + 1)))

# %% check
assert np.array_equal(z.numpy(), 2 * x * (x + 1))
assert [str(d) for d in devices] == ["cpu:0", "ext_dev:0", "cpu:0"]

# %% cell: solution-usable


def usable(kinds=("cpu", "cuda", "vulkan", "ext_dev"), most=8):
    """Names of all devices on which something can be allocated."""
    every = (tvm.device(kind, i) for kind in kinds for i in range(most))
    return [str(d) for d in every if d.exist]


print(usable(most=3))

# %% check
assert set(usable(("ext_dev", "vulkan"))) == {"ext_dev:0", "ext_dev:1"}

# %% cell: solution-order


def copies(vm_main, *args):
    """Copies that one call makes, as the device noted them."""
    notes()
    vm_main(*args)
    return [n for n in notes().splitlines() if n.startswith("copy")]


print("y stays:", *copies(vm["main"], *two), sep="\n  ")


@I.ir_module
class AllThere:
    I.module_global_infos(
        {
            "vdevice": [
                I.vdevice("llvm", 0),
                I.vdevice({"kind": "ext_dev", "host": "llvm"}, 0),
            ]
        }
    )

    @R.function
    def main(
        x: R.Tensor((2, 3), "float32"), y: R.Tensor((2, 3), "float32")
    ) -> R.Tensor((2, 3), "float32"):
        with R.dataflow():
            x1 = R.to_vdevice(x, "ext_dev:0")
            y1 = R.to_vdevice(y, "ext_dev:0")
            z = R.multiply(R.add(x1, x1), y1)
            home = R.to_vdevice(z, "llvm:0")
            R.output(home)
        return home


all_there = tvm.compile(AllThere, "llvm")
there = relax.VirtualMachine(all_there, [tvm.cpu(), book])
print("all there:", *copies(there["main"], *two), sep="\n  ")

# %% check
assert np.array_equal(there["main"](*two).numpy(), z.numpy())
folder.cleanup()
