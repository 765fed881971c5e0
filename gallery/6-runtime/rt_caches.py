"""
Caches: what a call finds ready
===============================

Everything that the runtime keeps between calls, what a call costs beside
ctypes and beside a C extension, and what belongs before a loop.
"""

# %% cell: lookups
import contextlib
import ctypes
import io
import re
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.contrib import tvmjs
from tvm.script import tirx as T
from tvm.support import cc

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.bench import compare
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
)

ex = tvm.compile(MLP, "llvm")
vm = relax.VirtualMachine(ex, tvm.cpu())
kernels = ex.jit().imports[0]
for name, ask in {
    "tvm.get_global_func": lambda: tvm.get_global_func("vm.builtin.copy"),
    "vm['main']": lambda: vm["main"],
    "kernels['relu']": lambda: kernels["relu"],
}.items():
    first, second = ask(), ask()
    same = first.same_as(second)
    print(f"{name:20} same Python object: {first is second!s:6}", end=" ")
    print("same function:", same)

# %% cell: packed
calls = []


@tvm.register_global_func("book.tick")
def tick():
    """Count the calls of the first function of this name."""
    calls.append("old")


@T.prim_func
def ticking(A: T.Buffer((1,), "float32")):
    for _ in range(3):
        T.evaluate(T.call_packed("book.tick"))
        A[0] = A[0] + T.float32(1)


named = tvm.IRModule({"ticking": ticking.with_attr("global_symbol", "t")})
ticker = tvm.compile(named, "llvm")
one = tvm.runtime.tensor(np.zeros(1, "float32"))
ticker["t"](one)
tvm.register_global_func("book.tick", lambda: calls.append("new"), True)
ticker["t"](one)
print("compiled code calls:", calls)
ticker = tvm.compile(named, "llvm")
calls.clear()
ticker["t"](one)
print("compiled again:     ", calls)

# %% cell: workspace
seen = []


@tvm.register_global_func("book.where")
def note(pointer):
    """Note where the temporary buffer is."""
    seen.append(pointer.value)


@T.prim_func
def scratch(A: T.Buffer((4096,), "float32")):
    tmp = T.alloc_buffer((4096,), "float32")
    for i in range(4096):
        tmp[i] = A[i] * T.float32(2)
    T.evaluate(T.call_packed("book.where", tmp.data))
    for i in range(4096):
        A[i] = tmp[i]


named = tvm.IRModule({"scratch": scratch.with_attr("global_symbol", "s")})
run = tvm.compile(named, "llvm")["s"]
big = tvm.runtime.tensor(np.ones(4096, "float32"))
for _ in range(3):
    run(big)
print("three runs in a thread:", len(set(seen)), "address")
worker = threading.Thread(target=run, args=(big,))
worker.start()
worker.join()
print("in another thread, the same:", seen[3] in seen[:3])

# %% check
assert seen[0] % 64 == 0 and (big.numpy() == 16).all()

# %% cell: cuda-graph
for config in ({}, {"relax.backend.use_cuda_graph": True}):
    with tvm.transform.PassContext(config=config):
        mod = relax.get_pipeline("default")(MLP)
    for variable, function in mod.functions.items():
        if isinstance(function, relax.Function):
            print(variable.name_hint, end=" ")
    print()
    for name in re.findall(r"vm.builtin.cuda_graph.\w+", mod.script()):
        print("   ", name)

# %% cell: tensor-cache
folder = tempfile.TemporaryDirectory()
values = {"w": tvm.runtime.tensor(np.full(4, np.pi, "float32"))}
cache = {
    name: tvm.get_global_func(f"vm.builtin.tensor_cache.{name}")
    for name in ("load", "get", "clear")
}
for form in ("f32-to-bf16", "raw"):
    place = f"{folder.name}/{form}"
    with contextlib.redirect_stdout(io.StringIO()):  # it tells its progress
        tvmjs.dump_tensor_cache(values, place, encode_format=form)
    cache["load"](place, 1, 0)  # a CPU, number 0
    print(f"{form:12}", cache["get"]("w").numpy()[0])
cache["clear"]()
print("after clear:", cache["get"]("w"))

# %% check
assert np.float32(np.pi) == values["w"].numpy()[0]

# %%
x, *weights = arguments(seed=0)
tensors = as_tensors([x, *weights])
main = vm["main"]
loop = compare(
    {
        "main(*tensors)": lambda: main(*tensors),
        "vm['main'](*tensors)": lambda: vm["main"](*tensors),
        "main(*as_tensors(arrays))": lambda: main(*as_tensors([x, *weights])),
        "VirtualMachine(ex)": lambda: relax.VirtualMachine(ex, tvm.cpu()),
    },
    number=30,
)

# %% cell: hoist-figure, varies
micro = {k: 1e6 * v for k, v in loop.minima.items()}
fig, _ = bar_chart(micro, unit="µs", title="The running example, one call")

# %% check
least = micro["main(*tensors)"]
assert micro["VirtualMachine(ex)"] > least / 2
assert micro["main(*as_tensors(arrays))"] > least
glue("main_us", least, varies=True)
glue("machine_us", micro["VirtualMachine(ex)"], varies=True)
glue("convert_us", micro["main(*as_tensors(arrays))"] - least, varies=True)

# %% cell: peers
PEERS = r"""
#include <Python.h>
#include <tvm/ffi/c_api.h>

double twice(double x) { return 2 * x; }  /* for ctypes */

int __tvm_ffi_twice(void* self, const TVMFFIAny* args, int32_t n,
                    TVMFFIAny* result) {
  if (n != 1 || args[0].type_index != kTVMFFIFloat) {
    TVMFFIErrorSetRaisedFromCStr("TypeError", "one float, please");
    return -1;
  }
  result->type_index = kTVMFFIFloat;
  result->v_float64 = twice(args[0].v_float64);
  return 0;
}

static PyObject* direct(PyObject* self, PyObject* x) {
  double v = PyFloat_AsDouble(x);
  return PyErr_Occurred() ? NULL : PyFloat_FromDouble(twice(v));
}

static PyObject* general(PyObject* self, PyObject* args) {
  double v;
  if (!PyArg_ParseTuple(args, "d", &v)) return NULL;
  Py_BEGIN_ALLOW_THREADS  /* without the GIL, as tvm-ffi does */
  v = twice(v);
  Py_END_ALLOW_THREADS
  return PyFloat_FromDouble(v);
}

static PyMethodDef METHODS[] = {{"direct", direct, METH_O, ""},
                                {"general", general, METH_VARARGS, ""},
                                {0}};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "peers", "", -1,
                                    METHODS};
PyMODINIT_FUNC PyInit_peers(void) { return PyModule_Create(&MODULE); }
"""
source = Path(folder.name, "peers.c")
source.write_text(PEERS)
headers = [
    sysconfig.get_paths()["include"],
    Path(tvm_ffi.__file__).parent / "include",
]
options = ["-xc", "-O2", *(f"-I{header}" for header in headers)]
library = str(source.with_suffix(".so"))
cc.create_shared(library, str(source), options)
sys.path.insert(0, folder.name)
import peers

by_ctypes = ctypes.CDLL(library).twice
by_ctypes.argtypes, by_ctypes.restype = [ctypes.c_double], ctypes.c_double
by_ffi = tvm_ffi.load_module(library)["twice"]
holding = tvm_ffi.load_module(library)["twice"]
holding.release_gil = False
ways = {
    "C extension, one argument": peers.direct,
    "C extension, any arguments": peers.general,
    "ctypes": by_ctypes,
    "tvm-ffi": by_ffi,
    "tvm-ffi, keeping the GIL": holding,
}
print({way(2.5) for way in ways.values()})

# %% check
assert all(way(2.5) == 5 for way in ways.values())

# %% cell: border, varies
calls = {name: lambda way=way: way(2.5) for name, way in ways.items()}
small = compare(
    {
        **calls,
        "get_global_func(name)": lambda: tvm.get_global_func("book.tick"),
        "vm['main']": lambda: vm["main"],
        "an empty lambda": lambda: None,
    },
    number=2000,
)
nothing = small.minima["an empty lambda"]
nano = {k: 1e9 * (v - nothing) for k, v in small.minima.items()}
for name in list(nano)[:-1]:
    print(f"{name:27}{nano[name]:6.0f} ns{nano[name] / nano['tvm-ffi']:7.1f}")

# %% check
assert nano["vm['main']"] > nano["tvm-ffi"]
assert nano["get_global_func(name)"] > nano["tvm-ffi"]
assert nano["C extension, one argument"] < nano["tvm-ffi"] < nano["ctypes"]
glue("extension_ns", nano["C extension, one argument"], varies=True)
glue("ffi_ns", nano["tvm-ffi"], varies=True)
glue("ctypes_ns", nano["ctypes"], varies=True)
glue("lookup_ns", nano["get_global_func(name)"], varies=True)

# %% cell: solution-loop
batch = [tvm.runtime.tensor(x * scale) for scale in (1, 2, 3)]
fixed = as_tensors(weights)


def slowly():
    """Everything in the loop."""
    outputs = []
    for data in batch:
        machine = relax.VirtualMachine(ex, tvm.cpu())
        outputs.append(machine["main"](data, *as_tensors(weights)).numpy())
    return outputs


def quickly():
    """Only the call in the loop."""
    return [main(data, *fixed).numpy() for data in batch]


race = compare({"slowly": slowly, "quickly": quickly}, number=5)
print("equal:", np.array_equal(slowly(), quickly()))
print("quicker:", race.minima["quickly"] < race.minima["slowly"] / 2)

# %% check
assert race.minima["quickly"] < race.minima["slowly"] / 2

# %% cell: solution-override
tvm.register_global_func("book.scale", lambda: 2)
kept = tvm.get_global_func("book.scale")
tvm.register_global_func("book.scale", lambda: 3, override=True)
print(
    "kept:", kept(), " looked up again:", tvm.get_global_func("book.scale")()
)

# %% check
assert kept() == 2
folder.cleanup()
