"""Programs that need PyTorch, and what they printed when they were recorded.

The book is built without PyTorch. These programs run in an environment that has it, by the command
``maintain.torch_runs``; the pages show program and output from ``gallery/data/torch_runs.txt``. Where PyTorch is
installed, `run` runs them again.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from .isolate import run_isolated

__all__ = ["PROGRAMS", "Recorded", "output", "read_runs", "run", "where"]

IMPORT = '''\
import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend import detach_params
from tvm.relax.frontend.torch import from_exported_program


class Block(torch.nn.Module):
    """A convolution, a normalisation and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x)))
        return self.fc(y.mean((2, 3)))


def operators(mod):
    """Names of the operators that a module calls, in order."""
    bindings = mod["main"].body.blocks[0].bindings
    calls = [b.value for b in bindings if isinstance(b.value, tvm.ir.Call)]
    return " ".join(c.op.name.removeprefix("relax.") for c in calls)


torch.manual_seed(0)
model, x = Block().eval(), torch.randn(2, 3, 8, 8)
sizes = {0: torch.export.Dim("batch", max=64)}
program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
nodes = [n.target for n in program.graph.nodes if n.op == "call_function"]
print("exported:", *nodes)

mod = from_exported_program(program)
print("operators:", operators(mod))
print("parameters:", *(p.name for p in mod["main"].params))
print("result:", mod["main"].ret_ty)
print("at most:", dict(mod["main"].attrs["tir_var_upper_bound"]))

options = {"keep_params_as_input": True, "unwrap_unit_return_tuple": True}
mod = from_exported_program(program, **options)
print("parameters:", *(p.name for p in mod["main"].params))
print("result:", mod["main"].ret_ty)

mod, params = detach_params(mod)
machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
for size in (1, 5):
    x = torch.randn(size, 3, 8, 8)
    got = machine["main"](tvm.runtime.tensor(x.numpy()), *params["main"])
    want = model(x).detach().numpy()
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-4, atol=1e-5)
    print("as torch for a batch of", size)
'''

UNSUPPORTED = '''\
import torch
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program


class Scaled(torch.nn.Module):
    """An operator that the importer does not know."""

    def forward(self, x):
        return torch.special.erfcx(x)


program = torch.export.export(Scaled(), (torch.randn(4),))
try:
    from_exported_program(program)
except AssertionError as error:
    print("AssertionError:", error)


def erfcx(node, importer):
    """exp(x * x) * (1 - erf(x))"""
    x = importer.env[node.args[0]]
    one = relax.const(1, "float32")
    rest = relax.op.subtract(one, relax.op.erf(x))
    square = relax.op.exp(relax.op.multiply(x, x))
    return importer.block_builder.emit(relax.op.multiply(square, rest))


table = {"special_erfcx.default": erfcx}
mod = from_exported_program(program, custom_convert_map=table)
print(mod.script().split("R.dataflow():\\n")[1].split("gv:")[0].rstrip())
'''

BRANCHES = '''\
import warnings

import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program


class Branch(torch.nn.Module):
    """Doubles what is positive in sum, and takes one from the rest."""

    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


class Cond(torch.nn.Module):
    """The same branch, said with an operator."""

    def forward(self, x):
        arms = (lambda x: x * 2), (lambda x: x - 1)
        return torch.cond(x.sum() > 0, *arms, (x,))


up, down = torch.ones(2), -3 * torch.ones(2)
print("Python:", Branch()(up).tolist(), Branch()(down).tolist())

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    traced = torch.jit.trace(Branch(), up)
print("jit.trace:", traced(up).tolist(), traced(down).tolist())
print("  warned:", {w.category.__name__ for w in caught} & {"TracerWarning"})
print("  kinds:", sorted({n.kind() for n in traced.graph.nodes()}))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(Branch())
print("jit.script:", scripted(up).tolist(), scripted(down).tolist())
print("  kinds:", sorted({n.kind() for n in scripted.graph.nodes()}))

try:
    torch.fx.symbolic_trace(Branch())
except Exception as error:
    print("fx:", type(error).__name__, "-", error)
try:
    torch.export.export(Branch(), (up,))
except Exception as error:
    print("export:", type(error).__name__, "-", str(error).split(" (")[0])

program = torch.export.export(Cond(), (up,))
nodes = [n.target for n in program.graph.nodes if n.op == "call_function"]
print("export of Cond:", *nodes)
mod = from_exported_program(program, unwrap_unit_return_tuple=True)
machine = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
for x in (up, down):
    print("  by TVM:", machine["main"](tvm.runtime.tensor(x.numpy())).numpy())
print(mod["main"].script().split("-> ")[1])
'''

LOOPS = '''\
import torch
from torch._higher_order_ops.while_loop import while_loop
from tvm.relax.frontend.torch import from_exported_program


class Thrice(torch.nn.Module):
    """A loop of Python with a fixed count."""

    def forward(self, x):
        for _ in range(3):
            x = x * 2
        return x


class While(torch.nn.Module):
    """A loop whose count depends on data, said with an operator."""

    def forward(self, x):
        def go_on(x):
            return x.sum() < 100

        return while_loop(go_on, lambda x: (x * 2,), (x,))


def calls(model):
    """Names of what an exported model calls."""
    nodes = torch.export.export(model, (torch.ones(2),)).graph.nodes
    return [str(n.target) for n in nodes if n.op == "call_function"]


print("Thrice:", *calls(Thrice()))
print("While:", calls(While())[0])
try:
    from_exported_program(torch.export.export(While(), (torch.ones(2),)))
except AssertionError as error:
    print("AssertionError:", error)
'''

DLPACK = """\
import torch
import tvm
import tvm_ffi
from tvm.script import tirx as T

x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
shared = tvm.runtime.from_dlpack(x)
x[0, 0] = 42
print("to TVM, no copy:", shared.numpy()[0, 0])

ours = tvm.runtime.empty((4,), "float32")
view = torch.from_dlpack(ours)
view.fill_(7)
print("to torch, no copy:", ours.numpy())
back = torch.from_dlpack(tvm.runtime.from_dlpack(view))
print("there and back, same address:", back.data_ptr() == view.data_ptr())
print("type there and back:", shared.dtype, back.dtype)

for name, bad in {"x.T": x.T, "x.view(-1)[1:]": x.view(-1)[1:]}.items():
    try:
        tvm.runtime.from_dlpack(bad)
    except RuntimeError as error:
        print(f"{name}: {error}")


@T.prim_func
def add_one(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
    for i in range(4):
        B[i] = A[i] + T.float32(1)


kernel = tvm.compile(add_one.with_attr("global_symbol", "k"), "llvm")["k"]
a, b = torch.arange(4, dtype=torch.float32), torch.zeros(4)
kernel(a, b)
print("a kernel with tensors of torch:", b)

same = tvm_ffi.convert(lambda t: (print("inside:", type(t)), t)[1])
result = same(a)
print("outside:", type(result), result.data_ptr() == a.data_ptr())
print("exchange API:", hasattr(torch.Tensor, "__dlpack_c_exchange_api__"))
"""

PROGRAMS = {
    "import_model": IMPORT,
    "unsupported": UNSUPPORTED,
    "branches": BRANCHES,
    "loops": LOOPS,
    "dlpack": DLPACK,
}


@dataclass(frozen=True)
class Recorded:
    """A recorded run.

    Attributes
    ----------
    program : str
        Text of the program.
    output : str
        What it printed.
    """

    program: str
    output: str


def output(program: str) -> str:
    """What a program prints in a process of its own.

    Raises
    ------
    RuntimeError
        If the program does not end normally; the message has the end of its error output.
    """
    ended = run_isolated(program, timeout=120)
    if ended.returncode:
        raise RuntimeError(f"the program {ended.describe()}:\n{ended.stderr[-2000:]}")
    return ended.stdout


def read_runs(path: Path) -> tuple[str, dict[str, Recorded]]:
    """Read the file of recorded runs.

    Parameters
    ----------
    path : Path
        File that ``maintain.torch_runs`` wrote.

    Returns
    -------
    (str, dict)
        The versions and the date of the first line, and the runs by name.
    """
    head, *parts = re.split(r"^== (\w+)\n", path.read_text(encoding="utf-8"), flags=re.M)
    runs = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        program, printed = text.split("-- output\n")
        runs[name] = Recorded(program, printed)
    return head.split("; ", 1)[1].strip(), runs


def where() -> str:
    """Whether PyTorch is installed here, in words that are the same in each environment without it."""
    return "installed" if importlib.util.find_spec("torch") else "not installed"


def run(name: str, recorded: Recorded) -> str:
    """Run a program again where PyTorch is installed; say what came of it.

    Returns
    -------
    str
        ``recorded`` without PyTorch; with it ``the same`` or ``another output``.

    Raises
    ------
    RuntimeError
        If the program fails.
    ValueError
        If the recorded program is not the one of `PROGRAMS`.
    """
    if recorded.program != PROGRAMS[name]:
        raise ValueError(f"{name}: the recorded program is an older one; run maintain.torch_runs")
    if where() == "not installed":
        return "recorded"
    return "the same" if output(PROGRAMS[name]) == recorded.output else "another output"
