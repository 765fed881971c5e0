"""
Disco: one program, many workers
================================

Sessions with threads and with processes, what a DRef is, who carries data
between workers, and a matrix product whose work is shared between two.
"""

# %% cell: load
import gc
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import tvm
import tvm_ffi
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.isolate import run_isolated

print("as it was imported:", tvm.runtime.disco)
sys.modules.pop("tvm.runtime.disco._ffi_api", None)
disco = importlib.import_module("tvm.runtime.disco")
print("imported again:", disco.__name__)

# %% cell: backends
names = tvm_ffi.registry.list_global_func_names()
ours = [name for name in names if name.startswith("runtime.disco.")]
print("functions of Disco:", len(ours))
for library in ("nccl", "rccl", "gloo", "mpi"):
    prefix = f"runtime.disco.{library}."
    print(f"of {library}:", sum(n.startswith(prefix) for n in ours))

# %% check
assert not any(".nccl." in name for name in ours)

# %% cell: session
session = disco.ThreadedSession(num_workers=2)
worker_id = session.get_global_func("runtime.disco.worker_id")
ids = worker_id()
print(type(worker_id).__name__, "returns a", type(ids).__name__)
print([ids.debug_get_from_remote(worker) for worker in range(2)])

# %% cell: asynchronous


@tvm.register_global_func("book.sleep")
def sleep(seconds):
    """Take a while, and tell in which thread."""
    time.sleep(seconds)
    return threading.get_native_id()


slow = session.get_global_func("book.sleep")
begin = time.perf_counter()
done = slow(0.3)
called = time.perf_counter() - begin
session.sync_worker_0()
synced = time.perf_counter() - begin
print(
    "the call waited:", called > 0.2, " sync_worker_0 waited:", synced > 0.2
)
threads = {done.debug_get_from_remote(w) for w in range(2)}
print("threads:", len(threads), threading.get_native_id() in threads)

# %% check
assert called < 0.2 < synced and len(threads) == 2

# %% cell: register


class Box:
    """Something that lives in a worker."""


boxes = weakref.WeakSet()


@tvm.register_global_func("book.box")
def box():
    """Make a box."""
    made = Box()
    boxes.add(made)
    return made


dref = session.get_global_func("book.box")()
session._sync_all()
print("boxes:", len(boxes))
del dref
session._sync_all()
print("without the DRef:", len(boxes))

# %% cell: arguments
tensor = tvm.runtime.tensor(np.arange(4, dtype="float32"))
with expect_error(tvm.error.InternalError, match="Tensor"):
    slow(tensor)
on_worker_0 = session.copy_to_worker_0(tensor)
back = tvm.runtime.empty((4,))
session.copy_from_worker_0(back, on_worker_0)
session.sync_worker_0()
print(back, on_worker_0.debug_get_from_remote(1))

# %% check
assert np.array_equal(back.numpy(), np.arange(4))

# %% cell: no-library
for library in ("nccl", "gloo"):
    with expect_error((ValueError, AssertionError)):
        session.init_ccl(library, 0, 1)

# %% cell: ccl
barrier = threading.Barrier(2)
slots = [None, None]
this_worker = tvm.get_global_func("runtime.disco.worker_id")
REDUCE = {0: np.add, 1: np.multiply, 2: np.minimum, 3: np.maximum}


def exchange(value):
    """Give a value, and get the values of all workers."""
    slots[this_worker()[0]] = value
    barrier.wait()  # all have given
    values = list(slots)
    barrier.wait()  # all have taken
    return values


@tvm.register_global_func("runtime.disco..broadcast_from_worker0")
def broadcast_from_worker0(send, in_group, recv):
    """Worker 0 gives, all take."""
    first = this_worker()[0] == 0
    recv.copyfrom(exchange(send.numpy() if first else None)[0])


@tvm.register_global_func("runtime.disco..scatter_from_worker0")
def scatter_from_worker0(send, in_group, recv):
    """Worker 0 gives a row to each."""
    rows = exchange(None if send is None else send.numpy())[0]
    recv.copyfrom(rows[this_worker()[0]])


@tvm.register_global_func("runtime.disco..allreduce")
def allreduce(send, kind, in_group, recv):
    """All give, all take the sum, or another reduction."""
    recv.copyfrom(REDUCE[kind].reduce(exchange(send.numpy())))


def values(dref):
    """What the workers hold, as lists."""
    held = [dref.debug_get_from_remote(w) for w in range(2)]
    return [None if h is None else h.numpy().tolist() for h in held]


same = session.broadcast(np.array([1, 2], "float32"))
print("broadcast:", values(same))
parts = session.scatter(np.array([[1, 2], [3, 4]], "float32"))
print("scatter:  ", values(parts))
total = session.empty((2,), "float32")
session.allreduce(parts, total, op="sum")
print("allreduce:", values(total))

# %% check
assert values(total) == [[4, 6], [4, 6]]

# %% cell: parallel-matmul
N, K, M, WORKERS = 4, 64, 8, 2


@I.ir_module
class Half:
    @R.function
    def main(
        x: R.Tensor((4, 32), "float32"), w: R.Tensor((32, 8), "float32")
    ) -> R.Tensor((4, 8), "float32"):
        with R.dataflow():
            partial = R.matmul(x, w)
            y = R.ccl.allreduce(partial, "sum")
            R.output(y)
        return y


folder = tempfile.TemporaryDirectory()
path = str(Path(folder.name, "half.so"))
ex = tvm.compile(Half, "llvm")
ex.export_library(path)
print(*(w for w in ex.as_text().split() if "disco" in w))
model = session.load_vm_module(path, device=tvm.cpu())

rng = np.random.default_rng(0)
x = rng.random((N, K), "float32")
w = rng.random((K, M), "float32")
halves_of_x = np.stack(np.split(x, WORKERS, axis=1))
halves_of_w = np.stack(np.split(w, WORKERS, axis=0))
y = model["main"](session.scatter(halves_of_x), session.scatter(halves_of_w))
for worker in range(WORKERS):
    result = y.debug_get_from_remote(worker).numpy()
    print("worker", worker, np.allclose(result, x @ w, rtol=1e-5))

# %% check
assert np.allclose(result, x @ w, rtol=1e-5)
assert not np.allclose(halves_of_x[0] @ halves_of_w[0], x @ w, rtol=0.1)

# %% cell: matmul-figure
fig, _ = boxes_and_arrows(
    {
        "x0": (0, 0),
        "w0": (0, 1),
        "x1": (0, 2),
        "w1": (0, 3),
        "m0": (1, 0.5),
        "m1": (1, 2.5),
        "sum": (2, 1.5),
        "y0": (3, 0.5),
        "y1": (3, 2.5),
    },
    {
        ("x0", "m0"): "",
        ("w0", "m0"): "",
        ("x1", "m1"): "",
        ("w1", "m1"): "",
        ("m0", "sum"): "",
        ("m1", "sum"): "",
        ("sum", "y0"): "",
        ("sum", "y1"): "",
    },
    labels={
        "x0": "x, left half",
        "w0": "w, upper half",
        "x1": "x, right half",
        "w1": "w, lower half",
        "m0": "worker 0\nmatmul",
        "m1": "worker 1\nmatmul",
        "sum": "allreduce\nsum",
        "y0": "worker 0: x @ w",
        "y1": "worker 1: x @ w",
    },
    colors={"sum": "vermilion", "m0": "green", "m1": "purple"},
    title="A matrix product, split along the axis of its sum",
)

# %% cell: processes
ENTRY = """
import os
import tvm

@tvm.register_global_func("book.pid")
def pid():
    return os.getpid()

if __name__ == "__main__":
    from tvm.exec.disco_worker import main
    main()
"""
Path(folder.name, "book_worker.py").write_text(ENTRY)
os.environ["PYTHONPATH"] = os.pathsep.join([folder.name, *sys.path])
tvm.register_global_func("book.pid", os.getpid)
many = disco.ProcessSession(num_workers=3, entrypoint="book_worker")
pids = many.get_global_func("book.pid")()
where = [
    pids.debug_get_from_remote(worker) == os.getpid() for worker in range(3)
]
children = psutil.Process().children()
print("in this process:", where, " children:", len(children))

# %% cell: process-data
cells = many.empty((2,), "float32", device=tvm.cpu())
for worker in range(3):
    cells.debug_copy_from(worker, np.full(2, worker, "float32"))
print(
    [
        cells.debug_get_from_remote(worker).numpy().tolist()
        for worker in range(3)
    ]
)
shape = many.get_global_func("runtime.disco.worker_id")()
print([tuple(shape.debug_get_from_remote(worker)) for worker in range(3)])
del pids, cells, shape, many
gc.collect()  # the session and its functions hold each other
print("children:", len(psutil.Process().children()))

# %% cell: sockets
NODE = """
import importlib
import sys
import tvm
from book_worker import pid  # registers book.pid

sys.modules.pop("tvm.runtime.disco._ffi_api", None)
importlib.import_module("tvm.runtime.disco")
join = tvm.get_global_func("runtime.disco.RemoteSocketSession")
join("127.0.0.1", int(sys.argv[1]), 1)  # until the controller ends
"""
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)  # both ends write a log
node = subprocess.Popen([sys.executable, "-c", NODE, str(port)])
wide = disco.SocketSession(2, 1, 1, "127.0.0.1", port)
os.dup2(stderr, 2)
pids = wide.get_global_func("book.pid")()
numbers = wide.get_global_func("runtime.disco.worker_id")()
for worker, known in enumerate((os.getpid(), node.pid)):
    number = numbers.debug_get_from_remote(worker)[0]
    print(
        number, "where expected:", pids.debug_get_from_remote(worker) == known
    )
del pids, numbers, wide
gc.collect()
print("the node ends with status", node.wait(timeout=30))

# %% check
assert node.returncode == 0
os.close(stderr)
os.close(nowhere)

# %% cell: dying


def in_a_thread():
    """Ask for a function that no worker has."""
    import importlib
    import sys

    import tvm

    assert tvm.runtime.disco is None
    sys.modules.pop("tvm.runtime.disco._ffi_api", None)
    disco = importlib.import_module("tvm.runtime.disco")
    session = disco.ThreadedSession(num_workers=2)
    session.get_global_func("book.missing")
    session.sync_worker_0()


def in_a_process():
    """Ask for a function that only worker 0 has."""
    import importlib
    import os
    import sys

    import tvm

    sys.modules.pop("tvm.runtime.disco._ffi_api", None)
    disco = importlib.import_module("tvm.runtime.disco")
    tvm.register_global_func("book.here", lambda: 1)
    session = disco.ProcessSession(num_workers=2)
    result = session.get_global_func("book.here")()
    print("worker 0:", result.debug_get_from_remote(0))
    try:
        result.debug_get_from_remote(1)
    except RuntimeError as error:
        print(type(error).__name__, flush=True)
    os._exit(3)  # a normal exit would wait for the dead worker


for program in (in_a_thread, in_a_process):
    ended = run_isolated(program)
    print(f"{program.__name__}: {ended.describe()}")
    print(ended.stdout, end="")
    if "ValueError" in ended.stderr:
        lines = ended.stderr.splitlines()
        print("worker:", next(t for t in lines if "ValueError" in t))

# %% cell: solution-columns
columns = np.stack(np.split(w, WORKERS, axis=1))


@I.ir_module
class Columns:
    @R.function
    def main(
        x: R.Tensor((4, 64), "float32"), w: R.Tensor((64, 4), "float32")
    ) -> R.Tensor((4, 4), "float32"):
        with R.dataflow():
            y = R.matmul(x, w)
            R.output(y)
        return y


path = str(Path(folder.name, "columns.so"))
tvm.compile(Columns, "llvm").export_library(path)
model = session.load_vm_module(path, device=tvm.cpu())
y = model["main"](session.broadcast(x), session.scatter(columns))
pieces = [y.debug_get_from_remote(worker).numpy() for worker in range(2)]
print(np.allclose(np.concatenate(pieces, axis=1), x @ w, rtol=1e-5))

# %% check
assert np.allclose(np.concatenate(pieces, axis=1), x @ w, rtol=1e-5)

# %% cell: solution-maximum
numbers = rng.random(8).astype("float32")
local = session.scatter(numbers.reshape(2, 4))


@tvm.register_global_func("book.local_maximum")
def local_maximum(part):
    """The largest number of a worker."""
    return tvm.runtime.tensor(part.numpy().max(keepdims=True))


largest = session.get_global_func("book.local_maximum")(local)
out = session.empty((1,), "float32")
session.allreduce(largest, out, op="max")
print([v == [numbers.max()] for v in values(out)])

# %% check
assert values(out) == [[numbers.max()]] * 2
del out, largest, local, y, model, slow, done, worker_id, ids, same, parts
del total, on_worker_0
session.shutdown()
folder.cleanup()
