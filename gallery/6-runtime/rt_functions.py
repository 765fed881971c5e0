"""
Functions: one calling convention for three languages
=====================================================

What stands in an argument cell and in a function object, how functions are
registered from Python and from C, what a callback costs and keeps alive, and
how errors cross.
"""

# %% cell: cells
import ctypes
import gc
import re
import tempfile
import textwrap
import threading
import time
import traceback
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.script import tirx as T
from tvm.support import cc

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import compare
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import header


class Cell(ctypes.Structure):
    """TVMFFIAny: 16 bytes."""

    _fields_ = [
        ("type_index", ctypes.c_int32),
        ("length", ctypes.c_uint32),  # of short strings, otherwise 0
        ("content", ctypes.c_uint64),
    ]


SAFE_CALL = ctypes.CFUNCTYPE(  # TVMFFISafeCallType
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.POINTER(Cell),
    ctypes.c_int32,
    ctypes.POINTER(Cell),
)
seen = []


@SAFE_CALL
def note(self, args, num_args, result):
    """Note the cells, and return their number as an integer (type 1)."""
    for cell in args[:num_args]:
        seen.append((cell.type_index, cell.length, cell.content))
    result[0] = Cell(1, 0, num_args)
    return 0


address = ctypes.cast(note, ctypes.c_void_p).value
probe = tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=note)
values = [None, 3, True, 2.5, tvm.cpu(1), tvm.DataType("float16")]
values += ["text", "longer text", np.ones(2), (1, 2), len, 2**70, object()]
print("returned:", probe(*values))
for value, (index, length, content) in zip(values, seen, strict=True):
    what = f"{content:#x}" if index < 64 else "-> object"
    kind = type(value).__name__.removesuffix("_or_method")
    print(f"{kind:17}{index:4}{length:3}  {what}")

# %% check
assert [index for index, _, _ in seen] == [
    0,
    1,
    2,
    3,
    6,
    5,
    11,
    65,
    70,
    71,
    68,
    78,
    74,
]
assert seen[3][2] == int(np.array(2.5).view("uint64"))
assert seen[6][2].to_bytes(8, "little") == b"text\0\0\0\0"

# %% cell: object
identity = tvm_ffi.convert(lambda value: value)
threads = tvm.get_global_func("runtime.NumThreads")
for name, f in (("C++", threads), ("Python", identity), ("C", probe)):
    begin = f.__chandle__() + 24  # behind the header: TVMFFIFunctionCell
    safe = ctypes.c_void_p.from_address(begin).value
    cpp = ctypes.c_void_p.from_address(begin + 8).value
    print(f"{name:7} safe_call: {bool(safe)}, cpp_call: {bool(cpp)}")

# %% cell: registry
missing = tvm.get_global_func("book.area", allow_missing=True)


@tvm.register_global_func("book.area")
def area(width, height):
    return width * height


print("before:", missing, " now a", type(area).__name__)
again = tvm.get_global_func("book.area")
print(again(3, 4), again.same_as(area), "owners:", header(area).strong)
names = tvm_ffi.registry.list_global_func_names()
spaces = Counter(name.split(".")[0] for name in names)
print(len(names), "functions:", *spaces.most_common(3))

# %% check
assert again.same_as(area)
assert again(3, 4) == 12

# %% cell: duplicates
with expect_error(RuntimeError, match="already registered"):
    tvm.register_global_func("book.area", lambda width, height: 0)
tvm.register_global_func("book.area", lambda w, h: -w * h, override=True)
print("new:", tvm.get_global_func("book.area")(3, 4), " old:", again(3, 4))
tvm_ffi.registry.remove_global_func("book.area")
with expect_error(ValueError, match="Cannot find"):
    tvm.get_global_func("book.area")
print("and still:", again(3, 4))
tvm.register_global_func("book.area", again)

# %% cell: second-copy


def load_a_copy():
    """Load one of TVM's libraries a second time, under another name."""
    import ctypes
    import shutil

    from tvm.base import _LOADED_LIBS

    shutil.copy(_LOADED_LIBS["tvm_runtime_extra"]._name, "copy.so")
    ctypes.CDLL("./copy.so")


copied = run_isolated(load_a_copy)
print(copied.describe())
print(re.search("RuntimeError: (.*),", copied.stderr)[1])

# %% check
assert copied.signal == "SIGABRT", copied

# %% cell: typed
meta = tvm_ffi.get_global_func_metadata("testing.schema_id_float")
print(meta["type_schema"])
as_float = tvm.get_global_func("testing.schema_id_float")
as_int = tvm.get_global_func("testing.schema_id_int")
print(as_float(1), as_int(True))
got_float = "Expected `int` but got `float`"
refused = expect_error(TypeError, match=got_float, show=False)
with refused:
    as_int(1.0)
print(textwrap.fill(f"TypeError: {refused.exception}", 76))
with expect_error(TypeError, match="Mismatched number"):
    as_int()

# %% cell: c-source
SOURCE = """
#include <tvm/ffi/c_api.h>

double area(double width, double height) { return width * height; }

/* twice(width, height): asks "book.area" and doubles the answer. */
int __tvm_ffi_twice(void* self, const TVMFFIAny* args, int32_t num_args,
                    TVMFFIAny* result) {
  if (num_args != 2) {
    TVMFFIErrorSetRaisedFromCStr("TypeError", "twice: give two numbers");
    return -1;
  }
  TVMFFIByteArray name = {"book.area", 9};
  TVMFFIObjectHandle area;
  if (TVMFFIFunctionGetGlobal(&name, &area)) return -1;
  int status = TVMFFIFunctionCall(area, (TVMFFIAny*)args, 2, result);
  TVMFFIObjectDecRef(area);
  if (status) return -1; /* the error is already stored */
  result->v_int64 *= 2;
  return 0;
}

/* add(a, b): two floats, nothing else. */
int __tvm_ffi_add(void* self, const TVMFFIAny* args, int32_t num_args,
                  TVMFFIAny* result) {
  result->type_index = kTVMFFIFloat;
  result->v_float64 = args[0].v_float64 + args[1].v_float64;
  return 0;
}
"""
folder = tempfile.TemporaryDirectory()
source = Path(folder.name, "twice.c")
source.write_text(SOURCE)
library = str(source.with_suffix(".so"))
include = [
    f"-I{tvm_ffi.libinfo.find_include_path()}",
    f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}",
]
cc.create_shared(library, str(source), ["-O2", "-xc", *include])
module = tvm_ffi.load_module(library)
print("twice(3, 4) =", module["twice"](3, 4))
print("add(3., 4.) =", module["add"](3.0, 4.0), " add(3, 4) =", end=" ")
print(f"{module['add'](3, 4):.1e}")
with expect_error(TypeError, match="give two numbers"):
    module["twice"](3)

# %% check
assert module["twice"](3, 4) == 24
assert module["add"](3.0, 4.0) == 7.0

# %% cell: lifetime


class Resource:
    """Something that should be freed."""


def freed(owner):
    """Make a resource that only the function object holds; drop that."""
    resource = Resource()
    watcher = weakref.ref(resource)
    holder = owner(lambda _keep=resource: None)
    del resource
    alive = watcher() is not None
    del holder
    gc.collect()
    return alive, watcher() is None


class Button:
    """A cycle: the button owns a Function that owns the button."""

    def __init__(self):
        self.callback = tvm_ffi.convert(self.press)

    def press(self):
        return "pressed"


print("converted:  alive while held, freed after:", freed(tvm_ffi.convert))


def register(f):
    return tvm.register_global_func("book.holder", f, override=True)


print("registered: alive while held, freed after:", freed(register))
button = Button()
watcher = weakref.ref(button)
del button
gc.collect()
print("cycle:      freed after:", watcher() is None)

# %% check
assert freed(tvm_ffi.convert) == (True, True)
assert freed(register)[1] is False and watcher() is not None

# %% cell: cost, varies
plain = ctypes.CDLL(library)
plain.area.restype = ctypes.c_double
plain.area.argtypes = [ctypes.c_double, ctypes.c_double]
c_area, add = plain.area, module["add"]


def plus(a, b):
    return a + b


callback = tvm_ffi.convert(plus)
costs = compare(
    {
        "Python calls Python": lambda: plus(3.0, 4.0),
        "ctypes calls C": lambda: c_area(3.0, 4.0),
        "tvm-ffi calls C": lambda: add(3.0, 4.0),
        "tvm-ffi calls C++, typed": lambda: as_float(3.0),
        "tvm-ffi calls Python": lambda: callback(3.0, 4.0),
    },
    rounds=7,
    number=5000,
)
nothing = compare({"empty": lambda: None}, number=5000).minima["empty"]
nanoseconds = {k: 1e9 * (v - nothing) for k, v in costs.minima.items()}
fig, _ = bar_chart(
    nanoseconds,
    unit="ns, the cost of an empty lambda taken off",
    title="One call with one or two floats",
)

# %% check
glue("ffi_ns", nanoseconds["tvm-ffi calls C"], varies=True)
glue("ctypes_ns", nanoseconds["ctypes calls C"], varies=True)
glue("callback_ns", nanoseconds["tvm-ffi calls Python"], varies=True)
through_ffi = nanoseconds["tvm-ffi calls C"]
assert nanoseconds["Python calls Python"] < through_ffi
assert through_ffi < nanoseconds["ctypes calls C"]
assert through_ffi < nanoseconds["tvm-ffi calls Python"]

# %% cell: gil


@T.prim_func
def burn(A: T.Buffer((1024,), "float32")):
    for _ in range(200000):
        for i in T.vectorized(1024):
            A[i] = A[i] * T.float32(0.999) + T.float32(0.5)


burn_ex = tvm.compile(burn.with_attr("global_symbol", "burn"), "llvm")
kernel = burn_ex["burn"]
data = tvm.runtime.tensor(np.zeros(1024, "float32"))


def run_kernel():
    """Begin and duration of one run."""
    start = time.perf_counter()
    kernel(data)
    return start, time.perf_counter() - start


shortest = min(run_kernel()[1] for _ in range(3))


def ticks_inside():
    """How often another Python thread gets to run meanwhile."""
    ticks, done = [], False

    def tick():
        while not done:
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    time.sleep(0.01)
    start, _ = run_kernel()
    done = True
    other.join()
    # No run is shorter than `shortest`, so this lies inside of the run.
    inside = 0.1 * shortest, 0.9 * shortest
    return sum(inside[0] < t - start < inside[1] for t in ticks)


free = max(ticks_inside() for _ in range(3))
kernel.release_gil = False
held = min(ticks_inside() for _ in range(5))
print("another thread runs, GIL released:", free > 0, " held:", held > 0)

# %% check
glue("burn_ms", 1e3 * shortest, varies=True)
glue("ticks", free, varies=True)
assert free > 0 == held, (free, held)

# %% cell: errors


class OutOfPaper(ValueError):
    """An exception of our own."""


def through_cpp(error):
    """Raise it below C++ and say what comes back."""

    def fail():
        raise error

    try:
        tvm_ffi.convert(fail)()
    except Exception as arrived:
        same = arrived is error
        print(f"{error!r:24} -> {arrived!r:26} same object: {same}")


through_cpp(ValueError("x"))
through_cpp(KeyError("x"))
through_cpp(OutOfPaper("x"))
tvm_ffi.register_error(OutOfPaper)
through_cpp(OutOfPaper("x"))
through_cpp(FileNotFoundError(2, "x"))

# %% cell: traceback


def fail():
    raise ValueError("below")


tvm.register_global_func("book.area", lambda w, h: fail(), override=True)
try:
    module["twice"](1, 2)
except ValueError as error:
    for frame in traceback.extract_tb(error.__traceback__):
        print(f"{Path(frame.filename).name:16} {frame.name.split('(')[0]}")

# %% cell: solution-frozen
tvm.register_global_func("book.step", lambda x: x + 1)
builder = relax.ExecBuilder()
with builder.function("main", num_inputs=1):
    builder.emit_call("book.step", args=[builder.r(0)], dst=builder.r(1))
    builder.emit_ret(builder.r(1))
executable = builder.get()
vm = relax.VirtualMachine(executable, tvm.cpu())
tvm.register_global_func("book.step", lambda x: x + 100, override=True)
new_vm = relax.VirtualMachine(executable, tvm.cpu())
print("old machine:", vm["main"](1), " new machine:", new_vm["main"](1))

# %% check
assert (vm["main"](1), new_vm["main"](1)) == (2, 101)

# %% cell: solution-cycle


class WeakButton:
    """The Function holds only a weak reference to the button."""

    def __init__(self):
        weak = weakref.WeakMethod(self.press)
        self.callback = tvm_ffi.convert(lambda: weak()())

    def press(self):
        return "pressed"


button = WeakButton()
watcher = weakref.ref(button)
print(button.callback())
del button
print("freed:", watcher() is None)

# %% check
assert watcher() is None
folder.cleanup()
