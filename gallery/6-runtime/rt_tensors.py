"""
Tensors: DLPack with an owner
=============================

What a tensor is in memory, which calls copy and which share, who owns the
data, and what alignment, strides and data types do.
"""

# %% cell: operations
import ctypes
import platform
import re
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import tvm
import tvm_ffi
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import compare
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import aligned_copy, header
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.torch_programs import read_runs, run

t = tvm.runtime.tensor(np.arange(6, dtype="float32").reshape(2, 3))
print(t.shape, t.strides, t.dtype, t.device, t.ndim, t.numel())
print(t.numpy().sum(axis=0))
t.copyfrom([[1, 2, 3], [4, 5, 6]])  # into the same memory
t[:] = np.ones((2, 3))  # the same, in other words
u = t.copyto(tvm.cpu())  # into new memory
v = tvm.runtime.empty((2, 3), "float32", tvm.cpu())
t.copyto(v)  # into memory that exists
print(u.numpy()[0], v.numpy()[0], u.same_as(t), u == t)

# %% check
assert np.array_equal(v.numpy(), np.ones((2, 3)))

# %% cell: missing
with expect_error(TypeError, match="not subscriptable"):
    t[0]
with expect_error(TypeError, match="unsupported operand"):
    t + t
with expect_error(ValueError, match="only support set"):
    t[0:1] = np.zeros((1, 3))
t[::2] = np.zeros((2, 3))  # the step is ignored: everything is set
print(t.numpy().sum(), np.asarray(t).dtype, np.asarray(t).shape)

# %% check
assert t.numpy().sum() == 0 and np.asarray(t).shape == ()

# %% cell: silent
i = tvm.runtime.empty((3,), "int32")
print(i.copyfrom(np.array([2.7, -2.7, 1e6])).numpy())
f = tvm.runtime.tensor(np.array([1, 2, 3], "float32"))
print(f.copyto(i).numpy(), i.numpy().view("float32"))
with expect_error(ValueError, match="shape do not match"):
    i.copyfrom(np.zeros((3, 1)))
with expect_error(tvm.error.InternalError, match="size in bytes"):
    f.copyto(tvm.runtime.empty((4,), "float32"))

# %% check
assert np.array_equal(i.numpy().view("float32"), [1, 2, 3])

# %% cell: dltensor


class DLTensor(ctypes.Structure):
    """The structure of dlpack.h, 48 bytes."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),  # kind, index
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 2),  # code, bits
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def look(name, tensor):
    """Print the DLTensor behind the 24 bytes of the object's header."""
    dl = DLTensor.from_address(tensor.__chandle__() + 24)
    shape, strides = dl.shape[: dl.ndim], dl.strides[: dl.ndim]
    same = "base" if dl.data == base.data_ptr() else "another"
    print(f"{name:9}{shape!s:11}{strides!s:10}", end="")
    print(f"code {dl.dtype[0]} bits {dl.dtype[1]:2}", end="  ")
    print(f"data: {same}, offset {dl.byte_offset}")


base = tvm.runtime.tensor(np.arange(16, dtype="float32"))
rows = base._create_view((2, 4), relative_byte_offset=32)
bytes_of = base._create_view((64,), "uint8")
grid = np.from_dlpack(base).reshape(4, 4)
columns = tvm_ffi.from_dlpack(grid.T)
tensors = {"base": base, "rows": rows, "bytes_of": bytes_of}
for name, tensor in (tensors | {"columns": columns}).items():
    look(name, tensor)

# %% check
assert ctypes.sizeof(DLTensor) == 48
assert np.array_equal(rows.numpy(), np.arange(8, 16).reshape(2, 4))
assert rows.data_ptr() == base.data_ptr() + 32

# %% cell: sharing
array = aligned_copy(np.arange(4, dtype="float32"))
shared = tvm.runtime.from_dlpack(array)  # numpy -> TVM
copied = tvm.runtime.tensor(array)
back = np.from_dlpack(shared)  # TVM -> numpy
array[0] = 100
print("from_dlpack:", shared.numpy()[0], " tensor:", copied.numpy()[0])
back[1] = 200
print("np.from_dlpack writes through:", array[1], shared.numpy()[1])
print("numpy() shares:", np.shares_memory(shared.numpy(), array))

# %% cell: foreign


class Foreign:
    """The least that a tensor of another library must offer."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


address = tvm_ffi.convert(lambda t: t.data_ptr())
other = Foreign(array)
print("from_dlpack shares:", tvm.runtime.from_dlpack(other).numpy()[1])
print("an argument shares:", address(other) == array.ctypes.data)

# %% check
assert address(other) == array.ctypes.data
del other  # it would be an owner of the array

# %% cell: torch
facts, runs = read_runs(data("torch_runs.txt"))
print("# recorded with", facts.replace(", Python", ",\n# Python"))
print(runs["dlpack"].program, end="")

# %% cell: torch-output
print(runs["dlpack"].output, end="")

# %% check
assert run("dlpack", runs["dlpack"]) in ("recorded", "the same")
assert "same address: True" in runs["dlpack"].output

# %% cell: owners
print("owners of the array:", sys.getrefcount(array) - 1, end="; ")
print("of the tensor:", header(shared).strong)
address = array.ctypes.data
del array, shared
print("both names gone, data still there:", back, end=" ")
print(back.ctypes.data == address)
whole = tvm.runtime.tensor(np.zeros(16))
view = whole._create_view((4, 4))
as_numpy = np.from_dlpack(view)
print("owners of whole:", header(whole).strong, end="; ")
print("of view:", header(view).strong)

# %% check
assert list(back) == [100, 200, 2, 3]
assert header(view).strong == 2

# %% cell: owners-figure
fig, _ = boxes_and_arrows(
    {
        "back": (0, 0),
        "out": (1, 0),
        "shared": (2, 0),
        "in": (2, 1),
        "array": (1, 1),
        "data": (0, 1),
    },
    {
        ("back", "out"): "owns",
        ("out", "shared"): "owns",
        ("shared", "in"): "owns",
        ("in", "array"): "owns",
        ("array", "data"): "owns",
    },
    labels={
        "back": "numpy array\nback",
        "out": "DLManagedTensor\nmade by tvm-ffi",
        "shared": "Tensor object\nshared",
        "in": "DLManagedTensor\nmade by numpy",
        "array": "numpy array\narray",
        "data": "16 bytes\nof data",
    },
    colors={
        "out": "purple",
        "in": "purple",
        "shared": "green",
        "data": "vermilion",
    },
    title="Who owns whom, after the round trip numpy, TVM, numpy",
)

# %% cell: refused
square = aligned_copy(np.zeros((4, 4), "float32"))
with expect_error(RuntimeError, match="not contiguous"):
    tvm.runtime.from_dlpack(square.T)
with expect_error(RuntimeError, match="not aligned to 64"):
    tvm.runtime.from_dlpack(aligned_copy(square, offset=16))
read_only = square.copy()
read_only.flags.writeable = False
with expect_error(BufferError, match="readonly"):
    tvm.runtime.from_dlpack(read_only)
with expect_error(BufferError, match="only supports"):
    tvm.runtime.from_dlpack(np.array(["text"]))

# %% cell: strided


@T.prim_func
def twice(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for k in range(8):
        B[k] = A[k] + A[k]


kernel = tvm.compile(twice.with_attr("global_symbol", "twice"), "llvm")
run = kernel["twice"]
out = tvm.runtime.empty((8,))
every_other = np.from_dlpack(base)[::2]
with expect_error(tvm.error.InternalError, match="contiguous"):
    tvm_ffi.from_dlpack(every_other).numpy()
with expect_error(ValueError, match="strides", max_lines=1):
    run(every_other, out)
with expect_error(ValueError, match="byte_offset", max_lines=1):
    run(base._create_view((8,), relative_byte_offset=32), out)
run(np.from_dlpack(base)[8:], out)  # the same eight numbers
print(out)

# %% check
assert np.array_equal(out.numpy(), 2 * np.arange(8, 16))

# %% cell: declared


@T.prim_func
def any_twice(a: T.handle, B: T.Buffer((8,), "float32")):
    stride, offset = T.int32(), T.int32()
    A = T.match_buffer(
        a, (8,), "float32", strides=[stride], elem_offset=offset
    )
    for k in range(8):
        B[k] = A[k] + A[k]


kernel = tvm.compile(any_twice.with_attr("global_symbol", "any"), "llvm")
kernel["any"](every_other, out)
print(out)
kernel["any"](base._create_view((8,), relative_byte_offset=32), out)
print(out)

# %% check
assert np.array_equal(out.numpy(), 2 * np.arange(8, 16))
kernel["any"](every_other, out)
assert np.array_equal(out.numpy(), 2 * every_other)

# %% cell: addresses, varies
for n in (100, 10_000, 1_000_000, 10_000_000):
    addresses = {np.ones(n, "float32").ctypes.data % 64 for _ in range(20)}
    print(f"{n:10} floats: address % 64 in {sorted(addresses)}")
fresh = {tvm.runtime.empty((n,)).data_ptr() % 64 for n in range(1, 200)}
print("tvm.runtime.empty:", fresh)

# %% check
assert fresh == {0}

# %% cell: alignment


@T.prim_func
def plus_one(
    A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")
):
    for k in range(1024):
        B[k] = A[k] + T.float32(1)


@T.prim_func
def double(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    for k in range(1024):
        B[k] = A[k] + A[k]


folder = tempfile.TemporaryDirectory()
CASES = [
    ("double", "x86-64"),
    ("double", "x86-64-v3"),
    ("plus_one", "x86-64-v3"),
]
assembly = {}
for name, cpu in CASES:
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    func = {"double": double, "plus_one": plus_one}[name]
    ex = tvm.compile(func.with_attr("global_symbol", "f"), target)
    assembly[name, cpu] = ex.mod.inspect_source("s")
    ex.export_library(str(Path(folder.name, f"{name}-{cpu}.so")))

PROGRAM = f"""
import os, signal
import numpy as np
import tvm_ffi
from tvm_deepdive_helpers.native import aligned_copy

out = aligned_copy(np.zeros(1024, "float32"))
for name, cpu in {CASES!r}:
    path = {folder.name!r} + "/" + name + "-" + cpu + ".so"
    kernel = tvm_ffi.load_module(path)["f"]
    print(f"{{name:9}} {{cpu:10}}", end="")
    for offset in (0, 4, 16, 32):
        array = aligned_copy(np.ones(1024, "float32"), offset=offset)
        if not (child := os.fork()):
            kernel(array, out)  # a numpy array, handed over as it is
            os._exit(0 if (out == 2).all() else 1)
        end = os.waitpid(child, 0)[1]
        ended = signal.Signals(os.WTERMSIG(end)).name if end else "right"
        print(f"  +{{offset}} {{ended:7}}", end="", flush=True)
    print(flush=True)
"""
aligned = run_isolated(PROGRAM)
print(re.sub(" +$", "", aligned.stdout.rstrip(), flags=re.M))

# %% cell: alignment-code
for (name, cpu), text in assembly.items():
    loads = re.findall(r"\w+ps\t.*\(%.*", text)
    print(f"{name:9} {cpu:10}", loads[0].expandtabs(10))

# %% check
if platform.machine() in ("x86_64", "AMD64"):
    died = [
        [word == "SIGSEGV" for word in line.split()[3::2]]
        for line in aligned.stdout.splitlines()
    ]
    assert died == [
        [False, True, False, False],
        [False, True, True, False],
        [False, False, False, False],
    ], aligned

# %% cell: copies


def copies():
    """Copy a tensor in three ways, and look at the copy."""
    import copy
    import os
    import pickle
    import signal

    import numpy as np
    import tvm

    t = tvm.runtime.tensor(np.ones(2))
    ways = {
        "copy.copy": lambda: copy.copy(t).shape,
        "copy.deepcopy": lambda: copy.deepcopy(t).shape,
        "pickle": lambda: pickle.loads(pickle.dumps(t)).shape,
        "copyto": lambda: t.copyto(t.device).shape,
        "through JSON": lambda: tvm.ir.load_json(tvm.ir.save_json(t)).shape,
    }
    for name, way in ways.items():
        if not (child := os.fork()):
            os._exit(way() != (2,))
        end = os.waitpid(child, 0)[1]
        died = signal.Signals(os.WTERMSIG(end)).name if end else "right"
        print(f"{name:14}{died}")


print(run_isolated(copies).stdout.rstrip())

# %% cell: saved
blob = tvm.runtime.save_param_dict({"w": np.arange(3.0)})
print(len(blob), "bytes, magic", hex(int.from_bytes(blob[:8], "little")))
for key, value in tvm.runtime.load_param_dict(blob).items():
    print(key, value.dtype, value.device, value.numpy())
with expect_error(tvm.error.InternalError, match="Invalid parameters"):
    tvm.runtime.load_param_dict(b"no such parameters")

# %% cell: dtypes
for name in ("float32", "bool", "int4", "bfloat16", "float32x4"):
    e = tvm.runtime.empty((8,), name)
    n = e.numpy()
    print(f"{name:10} bits {e.dtype.bits:2}  numpy: {n.dtype} {n.shape}")
b = tvm.runtime.tensor(np.array([1, 2.5], ml_dtypes.bfloat16))
print(b.dtype, b.numpy())
half = np.array([1, 2.5], "float16")
b.copyfrom(half)  # wrong: the bits are copied
print(b.numpy())
with expect_error(tvm.error.InternalError, match="size mismatch"):
    b.copyfrom(half.astype("float32"))

# %% check
assert not np.array_equal(b.numpy().astype("float32"), [1, 2.5])
assert list(half.view("uint16")) == list(b.numpy().view("uint16"))

# %% cell: solution-rows
batch = tvm.runtime.empty((4, 8))
into = np.from_dlpack(batch)  # once
for k in range(4):
    into[k] = k  # each example as it arrives
print(batch.numpy()[:, 0], np.shares_memory(into, np.from_dlpack(batch)))

# %% check
assert (batch.numpy() == np.arange(4)[:, None]).all()

# %% cell: solution-cost, varies
big = tvm.runtime.empty((1 << 20,))
costs = compare(
    {
        "np.from_dlpack(t)": lambda: np.from_dlpack(big),
        "t.numpy()": lambda: big.numpy(),
    },
    number=20,
)
costs.table()

# %% check
ratio = costs.ratio("t.numpy()", "np.from_dlpack(t)")
glue("copy_ratio", ratio, varies=True)
assert ratio > 5, ratio  # 4 MiB against a pointer
folder.cleanup()
