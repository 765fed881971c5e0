"""
The script behind the page template
===================================

Counts the kernels of the running example before and after fusion, so that the
template has something small and real to show.
"""

# gallery: timeout=60

# %% cell: imports
import numpy as np
import tvm
from tvm import relax, tirx

from tvm_deepdive_helpers import bench, expect_error, figures, glue, ir
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

# %% cell: kernels


def kernels(mod):
    """Names of the TIR functions of a module, in alphabetic order."""
    return sorted(
        var.name_hint
        for var, func in mod.functions.items()
        if isinstance(func, tirx.PrimFunc)
    )


legal = relax.transform.LegalizeOps()(MLP)
print(*kernels(legal), sep="\n")
glue("kernels", len(kernels(legal)))

# %% cell: main
ir.show(legal["main"])

# %% cell: table
print("Kernel | Lines of TVMScript")
for name in kernels(legal):
    print(f"`{name}` | {len(ir.script(legal[name]).splitlines())}")

# %% cell: time, varies
args = as_tensors(arguments())
vm = relax.VirtualMachine(tvm.compile(MLP, target="llvm"), tvm.cpu())
timing = bench.measure(lambda: vm["main"](*args))
print(f"{timing.min_s * 1e6:.0f} us for one call")
glue("us", timing.min_s * 1e6, varies=True)

# %% cell: refused
with expect_error(ValueError, match="no-such-target"):
    tvm.compile(MLP, target="no-such-target")

# %% cell: figure
lines = [len(ir.script(legal[name]).splitlines()) for name in kernels(legal)]
fig, ax = figures.new(height=2.2)
ax.barh(kernels(legal), lines, color=figures.COLORS["navy"])
ax.set_xlabel("lines of TVMScript")

# %% cell: solution-fused
fuse = tvm.transform.Sequential(
    [
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
)
fused = fuse(legal)
print(*kernels(fused), sep="\n")

# %% check
calls = ir.script(legal["main"]).count("R.call_tir(")
assert calls == 5  # two products, two additions, one relu
assert len(kernels(legal)) == len(set(kernels(legal))) == calls
assert ir.script(fused["main"]).count("R.call_tir(") == len(kernels(fused))
assert np.allclose(
    vm["main"](*args).numpy(), reference(*arguments()), atol=1e-3
)
