"""
One operator, every station
===========================

A matrix product with bias and relu, from the entry in the registry to the
instruction of the processor and to the call, one small cell a station.
"""

# %% cell: setup
import re

import numpy as np
import tvm
from tvm import ir, relax, s_tir, te, tirx, topi
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import cut, script, show, strip_llvm
from tvm_deepdive_helpers.passes import tir_stages


@I.ir_module
class Dense:
    @R.function
    def main(
        x: R.Tensor((8, 64), "float32"),
        w: R.Tensor((64, 128), "float32"),
        b: R.Tensor((128,), "float32"),
    ):
        with R.dataflow():
            product = R.matmul(x, w)
            biased = R.add(product, b)
            out = R.nn.relu(biased)
            R.output(out)
        return out


# %% cell: map
STATIONS = {
    "entry": ("1 registry entry\nOp", "navy"),
    "call": ("2 expression\nCall, Attrs", "navy"),
    "typed": ("3 type\nTensorType", "navy"),
    "legal": ("4 call_tir\n+ GlobalVar", "navy"),
    "te": ("5 tensor\nexpression", "green"),
    "prim": ("6 PrimFunc\nwith blocks", "vermilion"),
    "fused": ("7 fused\nPrimFunc", "vermilion"),
    "sched": ("8 scheduled\nPrimFunc", "vermilion"),
    "low": ("9 lowered\nPrimFunc", "vermilion"),
    "llvm": ("10 LLVM IR", "purple"),
    "asm": ("11 machine\ncode", "purple"),
    "run": ("12 packed call", "purple"),
}
PLACES = {
    "entry": (0, 0),
    "call": (1, 0),
    "typed": (2, 0),
    "legal": (3, 0),
    "sched": (0, 1),
    "fused": (1, 1),
    "prim": (2, 1),
    "te": (3, 1),
    "low": (0, 2),
    "llvm": (1, 2),
    "asm": (2, 2),
    "run": (3, 2),
}
fig, _ = boxes_and_arrows(
    PLACES,
    {
        ("entry", "call"): "Op.get",
        ("call", "typed"): "FInferType",
        ("typed", "legal"): "FLegalize",
        ("legal", "te"): "call_te",
        ("te", "prim"): "create_\nprim_func",
        ("prim", "fused"): "FuseOps\nFuseTIR",
        ("fused", "sched"): "Schedule",
        ("sched", "low"): "s_tir pipeline",
        ("low", "llvm"): "codegen",
        ("llvm", "asm"): "LLVM",
        ("asm", "run"): "VM",
    },
    labels={name: text for name, (text, _) in STATIONS.items()},
    colors={name: color for name, (_, color) in STATIONS.items()},
    column=1.85,
    row=1.0,
    title="From operator to machine code",
)

# %% cell: entry
matmul = ir.Op.get("relax.matmul")
print("same object:", matmul.same_as(ir.Op.get("relax.matmul")))
arguments = ", ".join(f"{a.name}: {a.type_info}" for a in matmul.arguments)
print(f"{matmul.name}({arguments})")
for hook in ("FInferType", "FLegalize", "FPurity", "FCallPacked"):
    print(f"  {hook:12}", type(matmul.get_attr(hook)).__name__)

# %% cell: expression
x = relax.Var("x", R.Tensor((8, 64), "float32"))
w = relax.Var("w", R.Tensor((64, 128), "float32"))
call = relax.op.matmul(x, w)
print(call, "|", type(call).__name__, "|", type(call.attrs).__name__)
print("operator:", call.op.name, " same object:", call.op.same_as(matmul))
print("type known:", not call.ty.is_missing())

# %% cell: typed
bb = relax.BlockBuilder()
call = bb.normalize(call)
print("type:", call.ty)
with expect_error(ValueError, match="reduction length", max_lines=2):
    bb.normalize(relax.op.matmul(w, x))

# %% cell: legal
with bb.function("main", [x, w]):
    lowered = matmul.get_attr("FLegalize")(bb, call)
    bb.emit_func_output(bb.emit(lowered))
print(lowered.op.name, "|", lowered.args[0], "|", lowered.args[1])
print("result:", lowered.ty_args[0])

# %% cell: tensor-expression
A = te.placeholder((8, 64), name="x")
B = te.placeholder((64, 128), name="w")
k = te.reduce_axis((0, 64), name="k")
C = te.compute(
    (8, 128),
    lambda i, j: te.sum(A[i, k] * B[k, j], axis=k),
    name="matmul",
)
print(type(C.op).__name__, "reads", [t.name for t in C.op.input_tensors])
print("axes:", [v.var.name for v in C.op.axis], end=" ")
print("reduced:", [v.var.name for v in C.op.reduce_axis])
print("formula:", type(C.op.body[0]).__name__, end=" of ")
print(type(C.op.body[0].source[0]).__name__)
relu = topi.nn.relu(C)
print("TOPI:", relu.op.name, "tag", repr(relu.op.tag))

# %% cell: prim
kernel = te.create_prim_func([A, B, C])
print(type(kernel).__name__)
show(kernel, keep="T.grid", context=9)

# %% cell: fused
steps = [
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
    relax.transform.FuseOps(),
    relax.transform.FuseTIR(),
]
mod = Dense
for step in steps:
    mod = step(mod)
    kernels = {
        var.name_hint: func.attrs.get("op_pattern", "-")
        for var, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }
    print(f"{step.info.name:21}", dict(sorted(kernels.items())))
fused = mod["fused_matmul_add_relu"].with_attr("global_symbol", "dense")
print(*re.findall(r'sblock\("(\w+)"\)', script(fused)))

# %% cell: schedule
sch = s_tir.Schedule(fused)
product, add, last = (
    sch.get_sblock(n) for n in ("matmul", "T_add", "compute")
)
sch.compute_inline(add)
i, j = sch.get_loops(last)
j_outer, j_inner = sch.split(j, [None, 8])
sch.vectorize(j_inner)
sch.compute_at(product, j_outer)
i, j, jj, k = sch.get_loops(product)
sch.reorder(k, jj)
sch.vectorize(jj)
sch.decompose_reduction(product, k)
show(sch.mod["main"], keep=r"for |sblock\(", context=0)

# %%
scheduled = sch.mod["main"]

# %% cell: lowered
TARGET = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "x86_64-unknown-linux-gnu",
        "mcpu": "x86-64-v3",
    }
)
stages = tir_stages(scheduled, TARGET)
changed = [s for s in stages if s.changed]
print("passes:", len(stages), " changed the function:", len(changed))
flat = {s.name: s for s in stages}["tirx.CommonSubexprElim"].after
show(flat["dense"], keep=r"for |T.Ramp|T.Broadcast|T.max", context=0)

# %% cell: llvm
library = tvm.compile(scheduled, target=TARGET).mod
ll = strip_llvm(library.inspect_source("ll")).text
body = ll[ll.index("@dense_compute_") :]
inner = next(line for line in body.splitlines() if "fmuladd" in line)
print(inner.strip())
print(re.search(r"declare .*fmuladd.*\)", ll)[0])

# %% cell: assembly
asm = library.inspect_source("s")
asm = asm[asm.index("\ndense_compute_:") :]
asm = asm[: asm.index(".cfi_endproc")].expandtabs(8).splitlines()
code = [row for row in asm if re.match(r"\s+[a-z]", row)]
wide = [" ".join(row.split()) for row in code if "ymm" in row]
print(*wide[:4], sep="\n")
multiply = [row.split()[0] for row in code if "fmadd" in row]
print("vector multiply-adds:", sum(n.endswith("ps") for n in multiply))
print("scalar multiply-adds:", sum(n.endswith("ss") for n in multiply))

# %% cell: run
main_kernel = next(
    var for var in mod.get_global_vars() if "fused" in var.name_hint
)
final = mod.clone()
final.update_func(main_kernel, scheduled.without_attr("global_symbol"))
ex = tvm.compile(final, target="llvm")
vm = relax.VirtualMachine(ex, tvm.cpu())
rng = np.random.default_rng(0)
arrays = [
    rng.standard_normal(s, "float32") for s in ((8, 64), (64, 128), (128,))
]
out = vm["main"](*(tvm.runtime.tensor(a) for a in arrays)).numpy()
expected = np.maximum(arrays[0] @ arrays[1] + arrays[2], 0)
print("equal to numpy:", np.allclose(out, expected, atol=1e-4))
program = cut(ex.as_text(), keep="fused_matmul", context=0)
print(program[program.index("call") :].splitlines()[0])


# %%
glue("passes", len(stages))
glue("changed", len(changed))
glue("dense_lines", len(script(Dense).splitlines()))
glue("ll_lines", len(ll.splitlines()))

# %% cell: solution-without
for left_out in ("LegalizeOps", "AnnotateTIROpPattern", "FuseTIR"):
    rest = [step for step in steps if step.info.name != left_out]
    partial = tvm.transform.Sequential(rest)(Dense)
    found = {
        var.name_hint: type(func).__name__
        for var, func in partial.functions_items()
    }
    print(f"without {left_out}:")
    for name in sorted(found):
        print(f"    {name:22}{found[name]}")
    tvm.compile(partial, target="llvm")

# %% cell: solution-symbolic


@I.ir_module
class AnyBatch:
    @R.function
    def main(
        x: R.Tensor(("n", 64), "float32"),
        w: R.Tensor((64, 128), "float32"),
        b: R.Tensor((128,), "float32"),
    ):
        with R.dataflow():
            product = R.matmul(x, w)
            biased = R.add(product, b)
            out = R.nn.relu(biased)
            R.output(out)
        return out


symbolic = tvm.transform.Sequential(steps)(AnyBatch)
show(symbolic["fused_matmul_add_relu"], keep=r"def |T\.grid", context=0)
vm = relax.VirtualMachine(tvm.compile(symbolic, "llvm"), tvm.cpu())
for batch in (1, 5):
    few = [np.resize(arrays[0], (batch, 64)), *arrays[1:]]
    got = vm["main"](*(tvm.runtime.tensor(a) for a in few)).numpy()
    right = np.maximum(few[0] @ few[1] + few[2], 0)
    print("batch", batch, np.allclose(got, right, atol=1e-4))
    assert np.allclose(got, right, atol=1e-4)

# %% check
assert np.allclose(out, expected, atol=1e-4)
assert call.op.same_as(matmul)
assert relu.op.input_tensors[0].op.same_as(C.op)
assert len(relu.op.input_tensors) == 1 and len(C.op.input_tensors) == 2
assert stages[-1].name == "tirx.LowerIntrin"
