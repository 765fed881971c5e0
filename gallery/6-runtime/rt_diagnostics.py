"""
Errors and diagnostics: who says what
=====================================

Every class of error that the runtime can raise, what a traceback across the
border shows, and how to tell a crash from an error.
"""

# %% cell: kernel
import os
import socket
import sys
import textwrap
import threading
import traceback

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, rpc
from tvm.rpc.server import Server
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm.support.popen_pool import PopenWorker

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.book import clean_message
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import aligned_copy
from tvm_deepdive_helpers.recorded import data


@T.prim_func
def axpy(X: T.Buffer((8,), "float32"), Y: T.Buffer((8,), "float32")):
    for i in range(8):
        Y[i] = X[i] + Y[i]


named = tvm.IRModule({"axpy": axpy.with_attr("global_symbol", "axpy")})
library = tvm.compile(named, "llvm")
kernel = library["axpy"]


def zeros(*shape, dtype="float32"):
    """A tensor of zeros."""
    return tvm.runtime.tensor(np.zeros(shape, dtype))


raised = {}


def provoke(**cases):
    """Run each case, and print the class and the first line of its error."""
    for name, case in cases.items():
        try:
            case()
            print(f"{name:12} no error")
        except Exception as error:
            raised[name] = type(error)
            line = clean_message(str(error)).splitlines()[0]
            told = f"{name:12} {type(error).__name__}: {line}"
            print(textwrap.fill(told, 78, subsequent_indent=" " * 13))


x = zeros(8)
provoke(
    arguments=lambda: kernel(x),
    kind=lambda: kernel(x, 3),
    dtype=lambda: kernel(x, zeros(8, dtype="float64")),
    shape=lambda: kernel(x, zeros(7)),
    dimensions=lambda: kernel(x, zeros(2, 4)),
)

# %% cell: names
provoke(
    function=lambda: tvm.get_global_func("book.none"),
    member=lambda: library["none"],
    file=lambda: tvm.runtime.load_module("none.so"),
    device=lambda: tvm.runtime.empty((4,), device=tvm.cuda()),
    api=lambda: tvm.device("gpu"),
)

# %% cell: memory
shifted = aligned_copy(np.zeros(8, "float32"), offset=4)
provoke(
    alignment=lambda: tvm.runtime.from_dlpack(shifted),
    too_much=lambda: tvm.runtime.empty((1 << 56,)),
    overflow=lambda: tvm.runtime.empty((1 << 60,)),
    negative=lambda: tvm.runtime.empty((-1,)),
    copy=lambda: zeros(2).copyfrom(np.zeros(3)),
)

# %% cell: machine


@I.ir_module
class Model:
    @R.function(pure=False)
    def main(
        x: R.Tensor(("n", 4), "float32"), y: R.Tensor(("n", 4), "float32")
    ) -> R.Tensor(("n", 4), "float32"):
        _ = R.call_packed("book.check", x, ty_args=(R.Tuple(),))
        z = R.add(x, y)
        return z


executable = tvm.compile(Model, "llvm")
provoke(missing=lambda: relax.VirtualMachine(executable, tvm.cpu()))


@tvm.register_global_func("book.check")
def check(tensor):
    """Refuse two rows."""
    if tensor.shape[0] == 2:
        raise LookupError("two rows")


main = relax.VirtualMachine(executable, tvm.cpu())["main"]
four = zeros(3, 4)
provoke(
    count=lambda: main(four),
    type=lambda: main(four, zeros(3, 4, dtype="float64")),
    rank=lambda: main(four, zeros(3)),
    symbolic=lambda: main(four, zeros(5, 4)),
    callback=lambda: main(zeros(2, 4), zeros(2, 4)),
)

# %% check
assert raised["kind"] is TypeError and raised["shape"] is ValueError
assert raised["device"] is tvm.error.InternalError
assert raised["callback"] is RuntimeError
assert issubclass(tvm.error.InternalError, RuntimeError)

# %% cell: kinds
kinds = tvm_ffi.core.ERROR_NAME_TO_TYPE
plain = [k for k, cls in kinds.items() if cls.__module__ == "builtins"]
own = [k for k, cls in kinds.items() if cls.__module__ != "builtins"]
for origin, names in {"of Python: ": plain, "of TVM:    ": own}.items():
    told = origin + " ".join(sorted(names))
    print(textwrap.fill(told, 78, subsequent_indent=" " * 11))

# %% cell: others


@T.prim_func
def asserting(n: T.int32, A: T.Buffer((4,), "float32")):
    assert n < 4, "n is too large"
    A[n] = T.float32(1)


named = tvm.IRModule({"asserting": asserting.with_attr("global_symbol", "a")})
checked = tvm.compile(named, "llvm")["a"]
provoke(
    index=lambda: tvm_ffi.Array([1])[3],
    key=lambda: tvm_ffi.Map({"a": 1})["b"],
    statement=lambda: checked(7, zeros(4)),
)

# %% cell: workers
os.environ["TVM_BIND_THREADS"] = "0"  # leave the calling threads alone


def load(_=0):
    """The same mistake, wherever it is made."""
    tvm.runtime.load_module("none.so")
    return 0


tvm.register_global_func("book.load", load)


@T.prim_func
def failing(A: T.Buffer((2,), "int64")):
    for i in T.parallel(2):
        A[i] = T.call_packed("book.load", i)


named = tvm.IRModule({"failing": failing.with_attr("global_symbol", "f")})
parallel = tvm.compile(named, "llvm")["f"]
two = zeros(2, dtype="int64")


def parallel_loop(threads):
    """Run the loop in a new thread, which makes a pool of its own."""
    os.environ["TVM_NUM_THREADS"] = threads
    case = {f"parallel, {threads}": lambda: parallel(two)}
    thread = threading.Thread(target=provoke, kwargs=case)
    thread.start()
    thread.join()


def process():
    """Make it in a process, which answers with a pickled exception."""
    worker = PopenWorker()
    worker.send(load)
    try:
        worker.recv()
    except Exception as error:  # its text is a whole traceback
        text = str(error).splitlines()[-1].partition(": ")[2]
        raise type(error)(text) from None
    finally:
        worker.kill()


def remote():
    """Make it in a session of an RPC server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Server("127.0.0.1", port, port + 99, key="book", silent=True)
    session = rpc.connect("127.0.0.1", server.port, "book")
    try:
        session.load_module("none.so")
    except Exception as error:
        answer = type(error)(str(error).splitlines()[-1])
    session = None  # ends the session, and then the server may go
    server.terminate()
    raise answer


def disco_thread():
    """Make it in a worker of Disco, and wait for it."""
    import importlib
    import sys

    import tvm  # noqa: F401  (before its part)

    sys.modules.pop("tvm.runtime.disco._ffi_api", None)
    disco = importlib.import_module("tvm.runtime.disco")
    session = disco.ThreadedSession(num_workers=1)
    session.load_vm_module("none.so")
    session.sync_worker_0()


provoke(**{"this thread": load})
parallel_loop("2")
parallel_loop("1")
provoke(process=process, remote=remote)
print(f"{'Disco':12} {run_isolated(disco_thread).describe()}")

# %% check
assert raised["process"] is ValueError
assert raised["remote"] is tvm.error.RPCError
assert "parallel, 1" not in raised

# %% cell: traceback


def fails(_):
    """Raise a registered error."""
    raise KeyError("inner")


try:
    tvm_ffi.convert(lambda v: tvm_ffi.convert(fails)(v))(1)
except KeyError as error:
    frames = traceback.extract_tb(error.__traceback__)
here = fails.__code__.co_filename  # this script, or a cell of a notebook
ours = [f.name for f in frames if f.filename == here]
print("Python's frames:", *ours)
print("frames of C++ between:", len(frames) > len(ours))

# %% check
assert ours[-1] == "fails"

# %% cell: hook
diagnostic = tvm.error.DiagnosticError("line 7 is wrong")
for value in ("0", "1"):
    os.environ["TVM_BACKTRACE"] = value
    print(f"TVM_BACKTRACE={value}:", end=" ", flush=True)
    sys.excepthook(type(diagnostic), diagnostic, None)  # as Python does

# %% cell: log


def verbose():
    """Compile and run, which would be told at length."""
    import tvm
    from tvm import relax

    from tvm_deepdive_helpers.running_example import MLP

    relax.VirtualMachine(tvm.compile(MLP, "llvm"), tvm.cpu())


ended = run_isolated(verbose, env={"TVM_LOG_DEBUG": "DEFAULT=9"})
print("lines:", len((ended.stdout + ended.stderr).splitlines()))

# %% check
assert ended.ok and not ended.stdout + ended.stderr

# %% cell: limit
counts = {}
for limit in ("0", "512"):
    os.environ["TVM_TRACEBACK_LIMIT"] = limit
    try:
        tvm_ffi.convert(lambda v: tvm_ffi.convert(fails)(v))(1)
    except KeyError as error:
        counts[limit] = len(traceback.extract_tb(error.__traceback__))
print("frames with a limit of 0:", counts["0"])
print("more with 512:", counts["512"] > counts["0"])

# %% check
assert counts["0"] < counts["512"]

# %% cell: gdb
text = data("gdb_session.txt").read_text()
command, first, second = text.split("$ cat ")
print("$ cat " + first, end="")

# %% cell: gdb-recursion
print("$ cat " + second, end="")

# %% check
assert "-m tvm_deepdive_helpers.maintain.gdb_session;" in command
frames = [line.split()[1] for line in second.splitlines() if line[:1] == "#"]
assert frames[1:6] == frames[6:11] and len(set(frames[1:6])) == 5

# %% cell: crashes


def overflow():
    """Write to a tensor whose size did not fit into 64 bits."""
    import numpy as np
    import tvm

    tensor = tvm.runtime.empty((1 << 60,))
    np.from_dlpack(tensor)[1 << 30] = 1


def no_handle():
    """Read at an address where nothing is."""
    import ctypes

    import tvm  # noqa: F401  (installs its handler)

    ctypes.string_at(8)


def recursion():
    """A machine that calls itself without end."""
    import tvm
    from tvm import relax

    b = relax.ExecBuilder()
    with b.function("f", num_inputs=0):
        b.emit_call("f", [], dst=b.r(0))
        b.emit_ret(b.r(0))
    relax.VirtualMachine(b.get(), tvm.cpu())["f"]()


for program in (overflow, no_handle, recursion):
    ended = run_isolated(program)
    print(f"{program.__name__:10} {ended.describe()},", end=" ")
    print("says so:", "Segfault encountered" in ended.stderr)

# %% cell: faulthandler


def with_python():
    """Ask for Python's own report, after tvm was imported."""
    import ctypes
    import faulthandler

    import tvm  # noqa: F401

    faulthandler.enable()
    ctypes.string_at(8)


for program, env in (
    (no_handle, {"PYTHONFAULTHANDLER": "1"}),
    (with_python, {}),
):
    text = run_isolated(program, env=env).stderr
    print(
        f"{program.__name__:12} C++ report: {'encountered' in text!s:6}",
        "Python report:",
        "Fatal Python error" in text,
    )

# %% cell: figure
fig, _ = boxes_and_arrows(
    {"what": (0, 0.5), "error": (1, 0), "gone": (1, 1)}
    | {"python": (2, 0), "signal": (2, 1)},
    {
        ("what", "error"): "",
        ("what", "gone"): "",
        ("error", "python"): "",
        ("gone", "signal"): "",
    },
    labels={
        "what": "something\nis wrong",
        "error": "a check notices:\nkind and text",
        "gone": "nobody notices,\nor nobody catches",
        "python": "an exception,\nstatus 1 if uncaught",
        "signal": "a signal,\nstatus -11 or -6",
    },
    colors={"gone": "vermilion", "signal": "vermilion", "error": "green"}
    | {"python": "green"},
    title="An error or a crash",
)

# %% cell: solution-table
for kind in (ValueError, LookupError, OSError, MemoryError):

    def fail(_, kind=kind):
        """Raise an error of one class."""
        raise kind("text")

    try:
        tvm_ffi.convert(fail)(1)
    except Exception as error:
        print(f"{kind.__name__:12} arrives as {type(error).__name__}")

# %% cell: solution-guard


def guarded(function):
    """Run in a process of its own, and say in words how it ended."""
    ended = run_isolated(function)
    if ended.signal:
        return f"crashed ({ended.signal})"
    return "fine" if ended.ok else ended.stderr.strip().splitlines()[-1]


def wrong():
    """An ordinary error."""
    import tvm

    tvm.get_global_func("book.none")


ends = {
    function.__name__: guarded(function) for function in (no_handle, wrong)
}
for name, end in ends.items():
    print(f"{name:10} {end}")

# %% check
assert ends["no_handle"] == "crashed (SIGSEGV)"
glue("kinds", len(kinds))
