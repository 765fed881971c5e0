"""
RPC: the same calls in another process
======================================

A tracker, a server and a client on one machine: what the sockets carry, how
remote functions, modules and tensors work, how to time, and how it fails.
"""

# %% cell: start
import gc
import logging
import re
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import tvm
from tvm import relax, rpc
from tvm.rpc import base
from tvm.rpc.server import Server
from tvm.rpc.tracker import Tracker
from tvm.script import tirx as T
from tvm.support.popen_pool import PopenWorker

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

HOST = "127.0.0.1"


def free_port():
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def start(kind, **options):
    """Start a tracker or a server on a free port, or on one behind it."""
    port = free_port()
    return kind(HOST, port=port, port_end=port + 99, silent=True, **options)


tracker = start(Tracker)
server = start(Server, tracker_addr=(HOST, tracker.port), key="book")
devices = rpc.connect_tracker(HOST, tracker.port)
while not devices.summary()["queue_info"].get("book", {}).get("free"):
    time.sleep(0.02)  # the server is still on its way to the tracker
print(devices.summary()["queue_info"])

# %% cell: processes-figure
fig, _ = boxes_and_arrows(
    {
        "client": (0, 0.5),
        "tracker": (1.1, 0),
        "server": (2.2, 0),
        "session": (2.2, 1),
    },
    {
        ("client", "tracker"): "REQUEST",
        ("server", "tracker"): "PUT",
        ("server", "session"): "fork",
        ("client", "session"): "packets",
    },
    labels={
        "client": "your script\nRPCClientSession",
        "tracker": "tracker\nqueues of keys",
        "server": "server\naccepts, one by one",
        "session": "session process\nLocalSession",
    },
    colors={"tracker": "purple", "server": "green", "session": "green"},
    title="Four processes",
)

# %% cell: handshake


def greet(magic, key):
    """Say hello to the server by hand; return its answer."""
    with socket.create_connection((HOST, server.port), timeout=5) as sock:
        sock.sendall(struct.pack("<ii", magic, len(key)) + key)
        return struct.unpack("<i", base.recvall(sock, 4))[0]


print("magic:       ", hex(base.RPC_MAGIC), hex(base.RPC_TRACKER_MAGIC))
print("wrong key:   ", hex(greet(base.RPC_MAGIC, b"client:book")))
with expect_error(ConnectionResetError, show=False):
    greet(0xBAD, b"client:book")  # the server closes the connection


def ask(*message, timeout=5):
    """Send one message to the tracker by hand; return its answer."""
    with socket.create_connection((HOST, tracker.port), timeout) as sock:
        sock.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        base.recvall(sock, 4)  # the same number comes back
        base.sendjson(sock, message)
        return base.recvjson(sock)


code, (host, port, ticket) = ask(base.TrackerCode.REQUEST, "book", "", 1)
print("tracker says:", code, [host, "port", re.sub(r"\d", "0", ticket)[:8]])
with expect_error(TimeoutError):
    ask(base.TrackerCode.REQUEST, "phone", "", 1, timeout=0.5)
print(devices.summary()["queue_info"]["phone"])

# %% check
assert port == server.port and ticket.startswith("book:")

# %% cell: relay
SOURCE = Path(tvm.__file__).parent / "src/runtime/rpc/minrpc"
text = (SOURCE / "rpc_reference.h").read_text()
body = text.partition("enum class RPCCode")[2].partition("}")[0]
CODES = re.findall(r"^ +(k\w+)(?:,| =)", body, re.M)
CODES.remove("kSyscallCodeStart")  # another name of the next


def pump(source, drain, arrow, log):
    """Copy one direction of a connection; note the code of each packet."""
    read = source.makefile("rb", buffering=0)
    data, greeting = b"", True
    while chunk := read.read(65536):
        data += chunk
        while len(data) >= 8:
            if greeting:  # magic and length, and then the key
                size = struct.unpack_from("<i", data, 4)[0]
            else:  # a length in 64 bits, and then the code
                size = struct.unpack_from("<Q", data)[0]
            if len(data) < 8 + size:
                break
            if not greeting:
                code = struct.unpack_from("<i", data, 8)[0]
                with open(log, "a") as file:
                    file.write(f"{arrow}{CODES[code]}\n")
            data, greeting = data[8 + size :], False
        drain.sendall(chunk)
    drain.close()


def relay(server_port, log):
    """Stand between a client and the server; return the port."""
    ear = socket.create_server((HOST, 0))

    def serve():
        client = ear.accept()[0]
        onward = socket.create_connection((HOST, server_port))
        for route in ((client, onward, ">"), (onward, client, "<")):
            thread = threading.Thread(target=pump, args=(*route, log))
            thread.start()

    threading.Thread(target=serve, daemon=True).start()
    return ear.getsockname()[1]


folder = tempfile.TemporaryDirectory()
log = Path(folder.name, "packets")
worker = PopenWorker()  # a Python process that runs functions
worker.send(relay, (server.port, str(log)))
middle = worker.recv()

# %% cell: session


@T.prim_func
def add_one(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
    for i in range(4):
        B[i] = A[i] + T.float32(1)


path = f"{folder.name}/kernel.so"
named = {"add_one": add_one.with_attr("global_symbol", "add_one")}
tvm.compile(tvm.IRModule(named), "llvm").export_library(path)


def packets():
    """Codes that the client has sent since this was last asked."""
    lines = log.read_text().split() if log.exists() else []
    log.write_text("")
    return Counter(line[1:] for line in lines if line[0] == ">")


def report(operation):
    """Print the packets since the last report."""
    sent = packets().items()
    print(f"{operation:16}", *(f"{k} x{n}" if n > 1 else k for k, n in sent))


remote = rpc.connect(HOST, middle, ticket)
report("connect")
remote.upload(path)
report("upload")
lib = remote.load_module("kernel.so")
report("load_module")
kernel = lib["add_one"]
report("lib['add_one']")
device = remote.cpu(0)
report("cpu(0)")
a = tvm.runtime.tensor(np.arange(4, dtype="float32"), device)
report("tensor(array)")
b = tvm.runtime.empty((4,), "float32", device)
report("empty")
kernel(a, b)
report("kernel(a, b)")
result = b.numpy()
report("numpy")
kernel = None
report("del kernel")
a = None
report("del a")
print(result, "on", type(lib).__name__, "of kind", lib.kind)

# %% check
assert np.array_equal(result, [1, 2, 3, 4])

# %% cell: devices
print("a CPU is number", tvm.cpu().dlpack_device_type())
print("the remote one ", device.dlpack_device_type())
print(device)

# %% cell: refusals
local = tvm.runtime.empty((4,))
with expect_error(tvm.error.InternalError, match="local device"):
    lib["add_one"](local, b)
here = tvm.runtime.load_module(path)
with expect_error(ValueError, match="expected cpu"):
    here["add_one"](b, local)
with expect_error(tvm.error.RPCError, match="Expected 2 arguments"):
    lib["add_one"](b)
with expect_error(tvm.error.RPCError, match="cannot find file"):
    remote.load_module("other.so")
with expect_error(AttributeError, match="no function 'area'"):
    remote.get_function("area")
with expect_error(AttributeError, match="listdir"):
    remote.listdir(".")

# %% cell: timing, varies
a = tvm.runtime.tensor(np.arange(4, dtype="float32"), device)
remote_kernel = lib["add_one"]
begin = time.perf_counter()
for _ in range(200):
    remote_kernel(a, b)
trip = (time.perf_counter() - begin) / 200
timer = lib.time_evaluator("add_one", device, number=1000, repeat=5)
timed = min(timer(a, b).results)
print(f"call by call      {1e6 * trip:8.2f} µs")
print(f"time_evaluator    {1e6 * timed:8.2f} µs")

# %% check
assert trip > 3 * timed
glue("trip_us", 1e6 * trip, varies=True)
glue("timed_us", 1e6 * timed, varies=True)
packets()
timer(a, b)
assert packets() == {"kCallFunc": 1}

# %% cell: model
model = f"{folder.name}/mlp.so"
tvm.compile(MLP, "llvm").export_library(model)
remote.upload(model)
vm = relax.VirtualMachine(remote.load_module("mlp.so"), device)
inputs = arguments(seed=0)
far = as_tensors(inputs, device)
report("prepare")
y = vm["main"](*far)
report("vm['main']")
near = y.numpy()
packets()
vm.set_input("main", *far)
vm.invoke_stateful("main")
y = vm.get_outputs("main")
report("stateful")
print("equal:", np.array_equal(y.numpy(), near))

# %% check
assert np.allclose(near, reference(*inputs), atol=1e-3)
assert np.array_equal(y.numpy(), near)

# %% cell: late
kernel = remote_kernel = timer = lib = a = b = device = None
vm = far = y = remote = None  # the session ends with its last handle
gc.collect()
remote = devices.request("book", session_timeout=1)
threads = remote.get_function("runtime.NumThreads")
print("in time:", threads() > 0)
time.sleep(1.3)
with expect_error(tvm.error.RPCSessionTimeoutError):
    threads()
with expect_error(tvm.error.InternalError, match="Broken pipe"):
    threads()
remote = threads = None

# %% cell: unreachable, varies
with expect_error(tvm.error.InternalError, match="Connect to .* failed"):
    rpc.connect(HOST, free_port(), "book")
with expect_error(tvm.error.InternalError, match="matches key=client"):
    rpc.connect(HOST, server.port, "phone")

# %% cell: crash, varies
remote = devices.request("book")
threads = remote.get_function("runtime.NumThreads")
server_process = psutil.Process(server.proc._proc.pid)
[session_process] = server_process.children()
session_process.kill()  # as a kernel does that writes where it must not
with expect_error(tvm.error.InternalError, match="Socket"):
    threads()
remote = threads = None
print("server process:", server_process.status() != "zombie")
time.sleep(0.3)
with expect_error(TimeoutError):
    greet(base.RPC_MAGIC, b"client:book")

# %% cell: local
logging.getLogger("RPCServer").setLevel(logging.ERROR)  # no news
session = rpc.LocalSession()
session.upload(path)
lib = session.load_module("kernel.so")
device = session.cpu()
a = tvm.runtime.tensor(np.arange(4, dtype="float32"), device)
b = tvm.runtime.empty((4,), device=device)
lib["add_one"](a, b)
print(b.numpy(), "on device type", device.dlpack_device_type())

# %% check
assert np.array_equal(b.numpy(), [1, 2, 3, 4])

# %% cell: popen


def crash():
    """End at once, as after a segmentation fault, without a word."""
    import os

    os._exit(139)


def forever():
    """Never return."""
    while True:
        pass


worker.send(divmod, (7, 0))
with expect_error(ZeroDivisionError, keep="^ZeroDiv"):
    worker.recv()
worker.send(crash)
with expect_error(ChildProcessError):
    worker.recv()
worker.send(forever, timeout=0.3)
with expect_error(TimeoutError):
    worker.recv()
worker.send(divmod, (7, 2))
print("the fourth process:", worker.recv())

# %% cell: stop
worker.kill()
server.terminate()
tracker.terminate()
left = psutil.Process().children(recursive=True)
print("processes left:", len(left))

# %% check
assert not left, left

# %% cell: solution-copies
session = rpc.LocalSession()
far = session.cpu()
source = tvm.runtime.tensor(np.ones(4, "float32"), far)
target = tvm.runtime.empty((4,), device=far)
source.copyto(target)  # both ends in one session
print(target.numpy())
other = rpc.LocalSession()
stranger = tvm.runtime.empty((4,), device=other.cpu())
with expect_error(tvm.error.InternalError):
    source.copyto(stranger)
stranger.copyfrom(source.numpy())  # through this process
print(stranger.numpy())

# %% cell: solution-supervise


def alive(host, port, key="nobody", patience=0.5):
    """Whether a server answers, asked with a key that it will refuse."""
    try:
        with socket.create_connection((host, port), patience) as sock:
            greeting = f"client:{key}".encode()
            head = struct.pack("<ii", base.RPC_MAGIC, len(greeting))
            sock.sendall(head + greeting)
            answer = struct.unpack("<i", base.recvall(sock, 4))[0]
            return answer == base.RPC_CODE_MISMATCH
    except OSError:
        return False


server = start(Server, key="book")
print("idle:   ", alive(HOST, server.port))
remote = rpc.connect(HOST, server.port, "book")
print("in use: ", alive(HOST, server.port))
remote = None
gc.collect()
server.terminate()
print("stopped:", alive(HOST, server.port))
folder.cleanup()

# %% check
assert not psutil.Process().children(recursive=True)
