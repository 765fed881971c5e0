"""
All passes of Relax, and the pipelines
======================================

The whole list from the installed package, the pipelines as numbered lists,
and what twenty passes do to small functions.
"""

# %% cell: setup
import importlib
import inspect
import re
import warnings

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax import transform as tf
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.target import Target

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, new, tint
from tvm_deepdive_helpers.ir import diff_text, script
from tvm_deepdive_helpers.passes import record
from tvm_deepdive_helpers.recorded import data, read_csv

TENSOR = relax.TensorType((2,), "float32")


def short(mod):
    """Text of a module, without types of bindings and without comments."""
    lines = []
    for line in script(mod).splitlines():
        if line.strip().startswith("#"):
            continue
        line = re.sub(r"^(\s*\w+): R\..*?(?= = )", r"\1", line)
        line = re.sub(
            r'(R\.Tensor\(\([^()]*\)), dtype="float32"\)', r"\1)", line
        )
        line = re.sub(r'metadata\["ir\.GenericConst"\]', "const", line)
        lines.append(line)
    return "\n".join(lines).strip()


def apply(mod, *passes):
    """Run passes and print what each changed."""
    if not isinstance(mod, tvm.IRModule):
        mod = tvm.IRModule({"main": mod})
    for step in passes:
        after = step(mod)
        text = diff_text(short(mod), short(after), context=0)
        kept = [x for x in text.splitlines() if not x.startswith("@@")]
        kept = [x for x in kept if x.strip("+- ")]
        print(f"{step.info.name}:")
        print("\n".join(f"  {line}" for line in kept))
        mod = after
    return mod


# %% cell: list
ARGUMENTS = {
    "AlterOpImpl": ({}, {}),
    "AttachExternModules": ([],),
    "BindParams": ("main", {}),
    "BindSymbolicVars": ({},),
    "ConvertLayout": ({},),
    "FuseOpsByPattern": ([],),
    "Gradient": ("main",),
    "IPCAllReduceRewrite": (0,),
    "MetaScheduleTuneIRMod": ({}, "work", 0),
    "MetaScheduleTuneTIR": ("work", 0),
    "SplitCallTIRByPattern": ([], lambda *args: None),
    "UpdateParamType": (lambda var: None,),
    "UpdateVDevice": (relax.VDevice("llvm", 0), 0),
}
NO_PASSES = {
    "DataflowBlockPass",
    "FunctionPass",
    "FusionPattern",
    "PatternCheckContext",
}
BASES = {
    "relax.FunctionPass": "function",
    "relax.DataflowBlockPass": "block",
    "tirx.PrimFuncPass": "PrimFunc",
    "transform.ModulePass": "module",
    "transform.Sequential": "several",
}
registered = {
    row["name"]: row["file"]
    for row in read_csv(data("tvm_global_functions_v0.26.0.csv"))
}


def kind_of(made):
    for cls in type(made).__mro__:
        key = getattr(cls, "__tvm_ffi_type_info__", None)
        if key and key.type_key in BASES:
            return BASES[key.type_key]
    return "?"


def place(name):
    file = registered.get(f"relax.transform.{name}", "")
    if file:
        return file.removeprefix("src/relax/")
    file = inspect.getsourcefile(getattr(tf, name))
    return file[file.index("relax/") :].removeprefix("relax/")


def first_sentence(thing):
    text = (inspect.getdoc(thing) or "").split("\n\n")[0]
    text = " ".join(text.split())
    text = text.split(". ")[0].rstrip(".")
    return text if len(text) < 76 else text[:72] + " ..."


table = {}
for name in sorted(n for n in dir(tf) if n[0].isupper()):
    if name in NO_PASSES:
        continue
    constructor = getattr(tf, name)
    with warnings.catch_warnings(), Target("llvm"):
        warnings.simplefilter("ignore")
        made = constructor(*ARGUMENTS.get(name, ()))
    table[name] = (
        kind_of(made),
        made.info.opt_level,
        list(made.info.required),
        made.info.name,
        place(name),
        first_sentence(constructor),
    )
for name, (kind, level, _, _, _, text) in table.items():
    print(f"{name:34}{kind:9}{level}  {text}")
glue("passes", len(table))

# %% cell: places
for name, (*_, file, _) in table.items():
    print(f"{name:34}{file}")

# %% cell: facts
print("with required passes:", [n for n, row in table.items() if row[2]])
print("level 1:", ", ".join(n for n, row in table.items() if row[1] == 1))
print("other names:")
for name, row in table.items():
    if row[3] != name:
        print(f"  {name} calls itself {row[3]}")

# %% check
assert {row[1] for row in table.values()} == {0, 1}
assert all(row[0] != "?" for row in table.values())
assert not any(row[2] for row in table.values())

# %% cell: pipelines


@R.function
def main(x: R.Tensor((2,), "float32")):
    with R.dataflow():
        y = R.exp(x)
        R.output(y)
    return y


STEPS = ("library_dispatch", "legalize", "dataflow_lower", "finalize")
TARGETS = {
    "cpu_generic": "llvm",
    "cuda": {"kind": "cuda", "arch": "sm_80"},
    "gpu_generic": {"kind": "metal"},
    "adreno": {"kind": "opencl", "keys": ["adreno", "opencl", "gpu"]},
}


def recorded(pipeline):
    with Target("llvm"), record() as recorder:
        pipeline(tvm.IRModule({"main": main}))
    names = [row.name for row in recorder.rows if row.depth == 2]
    return names


pipelines = {
    "zero": recorded(relax.get_pipeline("zero")),
    "default": recorded(relax.get_pipeline("default")),
}
for backend, target in TARGETS.items():
    module = importlib.import_module(f"tvm.relax.backend.{backend}.pipeline")
    with Target(target) as chosen:
        pipelines[backend] = [
            step.info.name
            for name in STEPS
            for step in getattr(module, f"{name}_passes")(chosen)
        ]
for name, steps in pipelines.items():
    print(f"{name}: {len(steps)} passes")

# %% check
assert pipelines["zero"] == [
    *("LegalizeOps", "AnnotateTIROpPattern", "FoldConstant"),
    *("FuseOps", "FuseTIR"),
]
assert "FuseOps" not in pipelines["default"]

# %% cell: pipeline-figure
rows = []
for steps in (pipelines["adreno"], *pipelines.values()):
    at = 0
    for step in steps:
        if step in rows:
            at = max(at, rows.index(step) + 1)
        else:
            rows.insert(at, step)
            at += 1
fig, ax = new("text", 0.235 * len(rows) + 0.7)
for column, (name, steps) in enumerate(pipelines.items()):
    for step in dict.fromkeys(steps):
        numbers = [str(i + 1) for i, s in enumerate(steps) if s == step]
        color = {"zero": "green", "default": "green"}.get(name, "navy")
        row = rows.index(step)
        ax.barh(row, 0.9, left=column - 0.45, height=0.86, color=tint(color))
        label = ", ".join(numbers)
        ax.text(column, row, label, ha="center", va="center", fontsize=8)
ax.set_yticks(range(len(rows)), rows)
ax.set_xticks(range(len(pipelines)), list(pipelines))
ax.set_xlim(-0.6, len(pipelines) - 0.4)
ax.set_ylim(len(rows) - 0.4, -0.6)
ax.xaxis.tick_top()
ax.tick_params(length=0, labelsize=8)
for side in ax.spines.values():
    side.set_visible(False)
alt(
    fig,
    "Table of passes and pipelines with positions. zero has five passes,"
    " LegalizeOps to FuseTIR. default has no fusion. cpu_generic has the"
    " five and the lowering of default. The GPU pipelines add"
    " ApplyDefaultSchedule, cuda also RewriteCUDAGraph, as default. adreno"
    " has more before LegalizeOps and dead code elimination after fusion.",
)

# %% cell: pipeline-errors
with expect_error(ValueError, match="Unknown pre-built pipeline"):
    relax.get_pipeline("fast")
with expect_error(ValueError, match="not yet supported"):
    relax.get_default_pipeline(Target("c"))
with expect_error(AttributeError, match="dataflow_lower_passes"):
    relax.pipeline.dataflow_lower_passes(Target("llvm"))

# %% cell: clean


@R.function
def untidy(x: R.Tensor((2,), "float32")):
    with R.dataflow():
        y = x
        pair = (R.exp(y), R.exp(x))
        a = pair[0]
        b = pair[1]
        c = R.add(R.const([1.0, 2.0]), R.const([3.0, 4.0]))
        spare = R.negative(b)
        z = R.add(R.add(a, b), c)
        R.output(z, spare)
    return z


tidy = apply(
    untidy,
    tf.FoldConstant(),
    tf.CanonicalizeBindings(),
    tf.EliminateCommonSubexpr(),
    tf.CanonicalizeBindings(),
    tf.DeadCodeElimination(),
)

# %% check
assert len(tidy["main"].body.blocks[0].bindings) == 3


# %% cell: fold-limit
@R.function
def zeros():
    with R.dataflow():
        small = R.zeros((1024,), "float32")
        large = R.zeros((1025,), "float32")
        R.output(small, large)
    return (small, large)


folded = tf.FoldConstant()(tvm.IRModule({"main": zeros}))["main"]
print("computed when the program runs:", *folded.body.blocks[0].bindings)

# %% cell: form
x = relax.Var("x", TENSOR)
nested = relax.Function(
    [x],
    relax.SeqExpr([], relax.op.exp(relax.op.negative(x))),
    TENSOR,
)
shaped = apply(
    nested, tf.Normalize(), tf.ConvertToDataflow(), tf.ToNonDataflow()
)

# %% cell: functions


@I.ir_module
class Nested:
    @R.function
    def main(x: R.Tensor((2,), "float32"), c: R.Tensor((2,), "float32")):
        @R.function
        def inner(y: R.Tensor((2,), "float32")) -> R.Tensor((2,), "float32"):
            return R.add(y, c)

        return inner(x)


@I.ir_module
class Pair:
    @R.function
    def main(x: R.Tensor((2,), "float32")):
        t = (x, x)
        return Pair.first(t)

    @R.function(private=True)
    def first(
        t: R.Tuple(R.Tensor((2,), "float32"), R.Tensor((2,), "float32")),
    ) -> R.Tensor((2,), "float32"):
        return t[0]


apply(Nested, tf.LambdaLift())
inlined = apply(
    Pair,
    tf.ExpandTupleArguments(),
    tf.RemoveUnusedParameters(),
    tf.InlinePrivateFunctions(),
)

# %% check
assert len(inlined.functions) == 1

# %% cell: parameters


@I.ir_module
class Model:
    @R.function
    def main(
        x: R.Tensor(("n", 4), "float32"), w: R.Tensor((3, 4), "float32")
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            wt = R.permute_dims(w)
            y = R.matmul(x, wt)
            R.output(y)
        return y


apply(Model, tf.BindSymbolicVars({"n": tirx.IntImm("int64", 2)}))
weights = np.zeros((3, 4), "float32")
apply(Model, tf.BindParams("main", {"w": weights}))
apply(Model, tf.LiftTransformParams())
apply(Model, tf.BundleModelParams())

# %% cell: parameter-traps
same = tf.BindParams("forward", {"w": weights})(Model)
print("unknown function changes nothing:", short(same) == short(Model))
with expect_error(tvm.error.InternalError, match="does not have parameter"):
    tf.BindParams("main", {"W": weights})(Model)
with expect_error(tvm.error.InternalError, match="did not correspond"):
    tf.BindSymbolicVars({"k": tirx.IntImm("int64", 2)})(Model)
lifted = tf.LiftTransformParams()(
    tvm.IRModule({"main": Model["main"].without_attr("num_input")})
)
print("without num_input:", [g.name_hint for g in lifted.get_global_vars()])

# %% check
assert short(same) == short(Model)

# %% cell: numbers


@R.function
def convolve(
    x: R.Tensor((1, 4, 8, 8), "float32"), w: R.Tensor((4, 4, 1, 1), "float32")
):
    with R.dataflow():
        c = R.nn.conv2d(x, w)
        r = R.nn.relu(c)
        R.output(r)
    return r


@R.function
def two(
    x: R.Tensor((2, 4), "float32"),
    a: R.Tensor((4, 4), "float32"),
    b: R.Tensor((4, 4), "float32"),
):
    with R.dataflow():
        p = R.matmul(x, a)
        q = R.matmul(x, b)
        R.output(p, q)
    return (p, q)


def no_defaults(text):
    return re.sub(r", strides=.*groups=1", ", ...", text)


plain_short = short
short = lambda mod: no_defaults(plain_short(mod))  # noqa: E731
apply(convolve, tf.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]}))
apply(convolve, tf.ToMixedPrecision())
apply(two, tf.CombineParallelMatmul())

# %% cell: lowering


@R.function
def views(x: R.Tensor((4, 4), "float32")):
    with R.dataflow():
        a = R.exp(x)
        b = R.reshape(a, (16,))
        c = R.exp(b)
        R.output(c)
    return c


legal = tf.LegalizeOps()(tvm.IRModule({"main": views}))
late = apply(legal, tf.RewriteDataflowReshape())
late = apply(tf.ToNonDataflow()(late), tf.CallTIRRewrite())

# %% cell: solution-order
ORDER = [tf.EliminateCommonSubexpr(), tf.DeadCodeElimination()]


def sizes(*passes):
    mod = tvm.IRModule({"main": untidy})
    for step in passes:
        mod = step(mod)
    return sum(len(b.bindings) for b in mod["main"].body.blocks)


print("as written:          ", sizes())
print("merge, remove:       ", sizes(*ORDER))
print("canonical, and these:", sizes(tf.CanonicalizeBindings(), *ORDER))

# %% cell: solution-register


@relax.register_pipeline("deepdive")
def fused_pipeline():
    """`zero` and then `default`."""
    steps = [relax.get_pipeline("zero"), relax.get_pipeline("default")]
    return tvm.transform.Sequential(steps)


@R.function
def chain(x: R.Tensor((8,), "float32")):
    with R.dataflow():
        y = R.nn.relu(R.exp(x))
        R.output(y)
    return y


for name in ("default", "deepdive"):
    lowered = relax.get_pipeline(name)(tvm.IRModule({"main": chain}))
    kernels = [
        v.name_hint
        for v, f in lowered.functions_items()
        if isinstance(f, tirx.PrimFunc)
    ]
    print(name, sorted(kernels))

# %% check
assert len(kernels) == 1
