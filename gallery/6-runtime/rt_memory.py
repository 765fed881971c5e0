"""
Memory: allocators, copies, and devices that work in the background
===================================================================

Storage and tensors of the virtual machine, the naive and the pooled
allocator, which operations copy, and what streams order.
"""

# %% cell: storage
import ctypes
import tempfile
import time
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.support import cc

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import compare
from tvm_deepdive_helpers.figures import timeline
from tvm_deepdive_helpers.native import header
from tvm_deepdive_helpers.passes import Span

b = relax.ExecBuilder()
with b.function("two_in_one", num_inputs=1):
    size, shape = tvm_ffi.Shape((64,)), tvm_ffi.Shape((8,))
    at = [b.vm_state(), b.convert_constant(size), b.imm(0)]
    at += [b.convert_constant("uint8"), b.convert_constant("global")]
    b.emit_call("vm.builtin.alloc_storage", args=at, dst=b.r(1))
    like = [b.convert_constant(shape), b.convert_constant("float32")]
    for register, offset in ((2, b.imm(0)), (3, b.r(0))):
        args = [b.r(1), offset, *like]
        b.emit_call("vm.builtin.alloc_tensor", args=args, dst=b.r(register))
    parts = [b.r(i) for i in (1, 2, 3)]
    b.emit_call("vm.builtin.make_tuple", args=parts, dst=b.r(4))
    b.emit_ret(b.r(4))
vm = relax.VirtualMachine(b.get(), tvm.cpu())
storage, first, second = vm["two_in_one"](32)
print(type(storage).__name__, first.shape, second.shape)
print("distance in bytes:", second.data_ptr() - first.data_ptr())
too_far = "attempted to allocate"
refused = expect_error(tvm.error.InternalError, match=too_far, show=False)
with refused:
    vm["two_in_one"](4080)  # 64 bytes were asked for; see the message
print("InternalError: ...", str(refused.exception).partition("failure, ")[2])

# %% check
assert second.data_ptr() - first.data_ptr() == 32

# %% cell: storage-owners
del vm  # it holds the last result, an array of the three
print("owners of the storage:", header(storage).strong)
del first
print("one tensor less:      ", header(storage).strong)
del storage, second  # the last owner: back to the pool of this device

# %%
STREAM = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

using namespace tvm;
using namespace tvm::runtime;
using Clock = std::chrono::steady_clock;

static std::string notes;  // what was asked for, and when jobs ran
static std::mutex notes_mutex;
static int delay_ms = 0;
static Clock::time_point epoch = Clock::now();

static void Note(const std::string& line) {
  std::lock_guard<std::mutex> lock(notes_mutex);
  notes += line + "\\n";
}

static std::string Now() {
  std::chrono::duration<double, std::milli> t = Clock::now() - epoch;
  return std::to_string(t.count());
}

class Stream {  // a queue of jobs, and a thread that does them in order
 public:
  explicit Stream(int id) : id(id), worker_([this] { Run(); }) {}

  int64_t Add(std::function<void()> job) {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(job);
    changed_.notify_all();
    return ++added_;
  }
  void Wait(int64_t number) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= number; });
  }
  int64_t added() {
    std::lock_guard<std::mutex> lock(mutex_);
    return added_;
  }
  const int id;

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return !jobs_.empty(); });
      auto job = jobs_.front();
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }
  std::deque<std::function<void()>> jobs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t added_ = 0, done_ = 0;
  std::thread worker_;
};

"""

# %% cell: device-source
DEVICE = """
class Background final : public DeviceAPI {
 public:
  void SetDevice(Device dev) final {}
  void GetAttr(Device dev, DeviceAttrKind kind, ffi::Any* rv) final {
    if (kind == kExist) *rv = 1;
  }
  using DeviceAPI::AllocDataSpace;
  void* AllocDataSpace(Device, size_t bytes, size_t alignment,
                       DLDataType) final {
    Note("alloc " + std::to_string(bytes));
    bytes = (bytes + alignment - 1) / alignment * alignment;
    return std::aligned_alloc(alignment, bytes);
  }
  void FreeDataSpace(Device, void* data) final {
    Note("free");
    std::free(data);
  }
  TVMStreamHandle CreateStream(Device) final { return new Stream(++ids_); }
  void StreamSync(Device, TVMStreamHandle stream) final {
    Get(stream)->Wait(Get(stream)->added());
  }
  void SyncStreamFromTo(Device, TVMStreamHandle from,
                        TVMStreamHandle to) final {
    int64_t until = Get(from)->added();
    Get(to)->Add([=] { Get(from)->Wait(until); });
  }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to,
                      size_t to_offset, size_t bytes, Device, Device,
                      DLDataType, TVMStreamHandle stream) final {
    std::string id = std::to_string(Get(stream)->id);
    Get(stream)->Add([=] {
      std::string begin = Now();
      std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
      std::memcpy(static_cast<char*>(to) + to_offset,
                  static_cast<const char*>(from) + from_offset, bytes);
      Note("copy " + id + " " + begin + " " + Now());
    });
  }

 private:
  Stream* Get(TVMStreamHandle stream) {  // null is the default stream
    static Stream* standard = new Stream(0);
    return stream ? static_cast<Stream*>(stream) : standard;
  }
  int ids_ = 0;
};

static void* Make() {
  static auto* device = new Background();
  return static_cast<DeviceAPI*>(device);
}

TVM_FFI_STATIC_INIT_BLOCK() {
  ffi::reflection::GlobalDef()
      .def("device_api.ext_dev", Make)
      .def("book.delay", [](int ms) { delay_ms = ms; })
      .def("book.copy_on",
           [](DLTensor* from, DLTensor* to, int64_t stream) {
             DeviceAPI::Get(Device{kDLExtDev, 0})
                 ->CopyDataFromTo(from, to,
                                  reinterpret_cast<void*>(stream));
           })
      .def("book.notes", []() {
        std::lock_guard<std::mutex> lock(notes_mutex);
        std::string result = notes;
        notes.clear();
        return result;
      });
}
"""
folder = tempfile.TemporaryDirectory()
source = Path(folder.name, "background.cc")
source.write_text(STREAM + DEVICE)
packages = Path(tvm.__file__).parent, Path(tvm_ffi.__file__).parent
include = [f"-I{package / 'include'}" for package in packages]
options = ["-std=c++17", "-pthread", *include]
cc.create_shared(str(source.with_suffix(".so")), str(source), options)
ctypes.CDLL(str(source.with_suffix(".so")))
notes = tvm.get_global_func("book.notes")
delay = tvm.get_global_func("book.delay")
device = tvm.ext_dev()
print(tvm.runtime.tensor(np.arange(3), device))

# %% cell: pool-notes


@I.ir_module
class Chain:
    @R.function
    def main(x: R.Tensor(("n",), "float32")) -> R.Tensor(("n",), "float32"):
        with R.dataflow():
            a = R.exp(x)
            b = R.nn.relu(a)
            c = R.sigmoid(b)
            R.output(c)
        return c


on_device = tvm.target.Target({"kind": "ext_dev"}, host="llvm")
chain = tvm.compile(Chain, on_device)


def asked(what, action):
    """Do something, and print what the device was asked for."""
    notes()
    action()
    lines = [n for n in notes().splitlines() if "copy" not in n]
    print(f"{what:28}", ", ".join(lines) or "-")


for config in ("naive", "pooled"):
    print(config)
    vm = relax.VirtualMachine(chain, device, memory_cfg=config)
    for n in (1000, 1000, 2000, 500):
        x = tvm.runtime.tensor(np.zeros(n, "float32"), device)
        run = vm["main"]
        asked(f"  run with {4 * n} bytes", lambda f=run, x=x: f(x))
    del vm, run
clear = tvm.get_global_func("vm.builtin.memory_manager.clear")
asked("clear", clear)
asked("tvm.runtime.empty", lambda: tvm.runtime.empty((1000,), device=device))

# %% cell: rule
naive = relax.VirtualMachine.NAIVE_ALLOCATOR
vm = relax.VirtualMachine(chain, device, memory_cfg={device: naive})
x = tvm.runtime.tensor(np.zeros(1000, "float32"), device)
asked("run with 4000 bytes", lambda: vm["main"](x))
del vm
with expect_error(AssertionError):
    relax.VirtualMachine(chain, tvm.cpu(), memory_cfg="arena")

# %% cell: speed, varies
FLOATS = 10 << 20  # 40 MiB, more than malloc keeps
cpu_chain = tvm.compile(Chain, "llvm")
big = tvm.runtime.tensor(np.zeros(FLOATS, "float32"))


def resident():
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 >> 20


machines = {
    name: relax.VirtualMachine(cpu_chain, tvm.cpu(), memory_cfg=name)
    for name in ("naive", "pooled")
}
kept = {}
before = resident()
for name, machine in machines.items():
    start = resident()
    for _ in range(3):
        machine["main"](big)
    kept[name] = resident() - start
times = compare(
    {name: lambda m=m: m["main"](big) for name, m in machines.items()},
    rounds=3,
)
times.table()
print("kept, in MiB:", kept, end="; ")
clear()
print("after clear, both:", resident() - before)

# %% check
glue("pool_ratio", times.ratio("naive", "pooled"), varies=True)
glue("kept_naive", kept["naive"], varies=True)
glue("kept_pooled", kept["pooled"], varies=True)
assert times.ratio("naive", "pooled") > 1, times.minima
assert 30 < kept["naive"] < 60 and 100 < kept["pooled"] < 140, kept

# %% cell: aliases


@I.ir_module
class NoCopies:
    @R.function
    def same(x: R.Tensor((4, 4), "float32")) -> R.Tensor((4, 4), "float32"):
        return x

    @R.function
    def flat(x: R.Tensor((4, 4), "float32")) -> R.Tensor((16,), "float32"):
        with R.dataflow():
            y = R.reshape(x, (16,))
            R.output(y)
        return y

    @R.function
    def inside(x: R.Tensor((4, 4), "float32")) -> R.Tensor((16,), "float32"):
        with R.dataflow():
            y = R.reshape(x, (16,))
            z = R.nn.relu(y)
            R.output(z)
        return z


vm = relax.VirtualMachine(tvm.compile(NoCopies, "llvm"), tvm.cpu())
x = tvm.runtime.tensor(np.arange(16, dtype="float32").reshape(4, 4))
shares = tvm.get_global_func("runtime.TVMTensorIsStorageShared")
called = []
CHECKS = ("check_tensor_info", "match_shape", "alloc", "null_value")


def watch(func, name, before, result, *operands):
    """Note calls that do something with data."""
    if before and not any(word in name for word in CHECKS):
        called.append(str(name))


vm.set_instrument(watch)
for name in ("same", "flat", "inside"):
    y = vm[name](x)
    print(f"{name:7} same object: {y.same_as(x)!s:6}", end="")
    print(f"same memory: {shares(x, y)!s:6}calls: {called}")
    called.clear()
vm.set_input("same", x)
vm.invoke_stateful("same")
print("set_input copied:", not shares(x, vm.get_outputs("same")))

# %% check
assert vm["same"](x).same_as(x) and not shares(x, vm["flat"](x))

# %% cell: stale
delay(150)
host = np.full(4, 1.0, "float32")
there = tvm.runtime.tensor(host, device)  # waits for its copy
back = tvm.runtime.tensor(np.zeros(4, "float32"))
there.copyto(back)  # returns at once
soon = back.numpy()
device.sync()
print("right after copyto:", soon)
print("after sync:        ", back)
print("numpy() waits:     ", there.numpy())

# %% check
assert np.array_equal(back.numpy(), host) and not soon.any()

# %% cell: too-early
outgoing = tvm.runtime.tensor(np.full(4, 2.0, "float32"))
outgoing.copyto(there)  # begins in the background
np.from_dlpack(outgoing)[:] = 3  # the buffer is used again, too early
device.sync()
print("arrived:", there)

# %% check
assert set(there.numpy()) == {3}

# %% cell: cost, varies
DELAY = 60
delay(DELAY)  # milliseconds for each copy
start = time.perf_counter()
there.copyto(back)
queued = time.perf_counter() - start
device.sync()
synced = time.perf_counter() - start
print(f"copyto returned after {1e6 * queued:6.0f} us")
print(f"sync   returned after {1e6 * synced:6.0f} us")

# %% check
glue("delay_ms", DELAY)
glue("queue_us", 1e6 * queued, varies=True)
glue("sync_ms", 1e3 * synced, varies=True)
assert queued < 0.5 * synced and synced > 0.9e-3 * DELAY

# %% cell: streams, varies
copy_on = tvm.get_global_func("book.copy_on")
a, c = device.create_raw_stream(), device.create_raw_stream()
sources = [tvm.runtime.tensor(np.full(4, k, "float32")) for k in range(2)]
targets = [tvm.runtime.empty((4,), device=device) for _ in range(2)]


def run(*jobs):
    """Put jobs into streams, wait, and return when each began and ended."""
    for job in jobs:
        job()
    device.sync(a)
    device.sync(c)
    lines = [n.split() for n in notes().splitlines() if n.startswith("copy")]
    spans = [(int(n), float(begin), float(end)) for _, n, begin, end in lines]
    zero = min(begin for _, begin, _ in spans)
    return [(n, begin - zero, end - begin) for n, begin, end in spans]


def put(k, stream):
    return lambda: copy_on(sources[k], targets[k], stream)


def c_waits_for_a():
    """What runtime.Device_StreamSyncFromTo is for."""
    tvm.get_global_func("runtime.Device_StreamSyncFromTo")(device, a, c)


notes()
runs = {
    "one": run(put(0, a), put(1, a)),
    "two": run(put(0, a), put(1, c)),
    "ordered": run(put(0, a), c_waits_for_a, put(1, c)),
}
for name, jobs in runs.items():
    total = max(begin + ms for _, begin, ms in jobs)
    print(f"{name:8} {len(jobs)} copies in {total:5.1f} ms")

# %% cell: streams-figure, varies
spans, shift = [], 0.0
for name, jobs in runs.items():
    for number, (n, begin, ms) in enumerate(jobs):
        row = 1 if n == max(j[0] for j in jobs) != jobs[0][0] else 0
        spans.append(Span(f"{name} {number + 1}", begin + shift, ms, row))
    shift += max(begin + ms for _, begin, ms in jobs) + 8
fig, ax = timeline(spans, title="Two copies: one stream, two, two in order")
ax.set_ylabel("stream")
ax.set_yticks([0, 1], ["a", "c"])

# %% check
begins = {k: (j[1][1], j[0][1] + j[0][2]) for k, j in runs.items()}
overlap = {name: second < end for name, (second, end) in begins.items()}
assert overlap == {"one": False, "two": True, "ordered": False}, runs

# %% cell: ignored-stream
device.set_raw_stream(c)
notes()
there.copyto(back)
device.sync()  # the default stream
print("copyto used stream", notes().split()[1])
device.set_raw_stream(0)
print("CPU: stream", tvm.cpu().create_raw_stream(), end=", ")
print("sync:", tvm.cpu().sync())

# %% cell: solution-kernel
delay(150)
machine = relax.VirtualMachine(chain, device)
x = tvm.runtime.tensor(np.zeros(4, "float32"), device)
machine["main"](x)  # fills the pool
five = tvm.runtime.tensor(np.full(4, 5, "float32"))
five.copyto(x)
early = machine["main"](x)  # our kernels are functions of the host
device.sync()
late = machine["main"](x)
delay(0)
print("early:", early.numpy()[0].round(3), " late:", late.numpy()[0].round(3))

# %% check
assert np.isclose(early.numpy()[0], 1 / (1 + np.exp(-1.0)), atol=1e-3)
assert np.isclose(late.numpy()[0], 1.0, atol=1e-3)

# %% cell: solution-last
vm = relax.VirtualMachine(cpu_chain, tvm.cpu())
y = vm["main"](tvm.runtime.tensor(np.zeros(8, "float32")))
print("owners of the result:", header(y).strong)
vm["main"](tvm.runtime.tensor(np.zeros(1, "float32")))
print("after a tiny run:    ", header(y).strong)

# %% check
assert header(y).strong == 1
folder.cleanup()
