"""
Relax passes of your own
========================

The three kinds of pass, visitors and mutators, an instrument that finds the
pass which breaks a program, and what passes silently assume.
"""

# %% cell: setup
import inspect

import numpy as np
import tvm
import tvm_ffi
from matplotlib.patches import Rectangle
from tvm import ir, relax, topi
from tvm.relax import analysis
from tvm.relax import transform as tf
from tvm.relax.binding_rewrite import DataflowBlockRewrite
from tvm.relax.expr_functor import (
    PyExprMutator,
    PyExprVisitor,
    mutator,
    visitor,
)
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import COLORS, alt, layered_graph, new, tint
from tvm_deepdive_helpers.ir import diff, show
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.running_example import MLP, as_tensors

# %% cell: module


@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((4,), "float32"), y: R.Tensor((4,), "float32")):
        with R.dataflow():
            s = R.sqrt(y)
            a = R.divide(x, s)
            b = R.exp(a)
            R.output(b)
        return b

    @R.function(private=True)
    def helper(x: R.Tensor((4,), "float32")):
        return R.exp(x)

    @T.prim_func(private=True, s_tir=True)
    def kernel(A: T.Buffer((4,), "float32")):
        T.evaluate(0)


# %% cell: kinds


@tvm.transform.module_pass(opt_level=0)
def whole(mod, ctx):
    print("module pass:   ", type(mod).__name__, len(mod.functions))
    return mod


@tf.function_pass(opt_level=0)
def each(func, mod, ctx):
    first = func.params[0].name
    print("function pass: ", type(func).__name__, f"({first}, ...)")
    return func


@tf.dataflowblock_pass(opt_level=0)
def blocks(block, mod, ctx):
    print("dataflow pass: ", type(block).__name__, len(block.bindings))
    return block


for run in (whole, each, blocks):
    run(Module)
    print("    is a", type(run).__mro__[0].__name__, "named", run.info.name)

# %% cell: class-form


@tf.function_pass(opt_level=1, name="deepdive.Mark")
class Mark:
    """Put an attribute on every Relax function."""

    def __init__(self, key, value):
        self.key, self.value = key, value

    def transform_function(self, func, mod, ctx):
        return func.with_attr(self.key, self.value)


marked = Mark("seen", 1)(Module)
for var in sorted(marked.get_global_vars(), key=lambda g: g.name_hint):
    attrs = marked[var].attrs
    print(f"{var.name_hint:7} seen: {'seen' in attrs if attrs else False}")
with expect_error(ValueError, match="provide opt_level"):
    tf.function_pass(lambda func, mod, ctx: func)

# %% check
assert "seen" in marked["main"].attrs
assert "seen" not in (marked["kernel"].attrs or {})

# %% cell: block-rules


@tf.dataflowblock_pass(opt_level=0)
def forget_output(block, mod, ctx):
    return relax.DataflowBlock(block.bindings[:-1])


@tf.dataflowblock_pass(opt_level=0)
def plain_block(block, mod, ctx):
    return relax.BindingBlock(block.bindings)


with expect_error(tvm.error.InternalError, match="should not rewrite"):
    forget_output(Module)
with expect_error(TypeError, match="Cannot convert"):
    plain_block(Module)

# %% cell: returns-nothing


@tf.function_pass(opt_level=0)
def forgets_return(func, mod, ctx):
    func.with_attr("seen", 1)


kinds = {
    var.name_hint: type(func).__name__
    for var, func in forgets_return(Module).functions_items()
}
print({name: kinds[name] for name in sorted(kinds)})

# %% check
assert kinds["main"] == kinds["helper"] == "NoneType"

# %% cell: trace


class Trace(PyExprVisitor):
    """Print each visit method that is called, as deep as it is nested."""

    def __init__(self):
        super().__init__()
        self.stack = ["visit_expr"]
        self.edges = {}
        self.lines = []


def traced(name):
    original = getattr(PyExprVisitor, name)

    def method(self, node):
        self.edges.setdefault((self.stack[-1], name), None)
        what = getattr(node, "name", None) or type(node).__name__
        self.lines.append("  " * (len(self.stack) - 1) + f"{name} {what}")
        self.stack.append(name)
        if not name.endswith("def_"):
            original(self, node)
        self.stack.pop()

    return method


METHODS = [
    name
    for name in dir(PyExprVisitor)
    if name.startswith("visit_") and name.endswith("_")
]
for name in METHODS:
    setattr(Trace, name, traced(name))
Traced = visitor(Trace)
trace = Traced()
trace.visit_expr(Module["main"])
print("\n".join(trace.lines[:12]))
print(f"... {len(trace.lines) - 12} more")

# %% cell: dispatch
fig, _ = layered_graph(
    list(dict.fromkeys(name for edge in trace.edges for name in edge)),
    list(trace.edges),
    colors={"visit_expr": "green"}
    | dict.fromkeys(
        ("visit_var_def_", "visit_dataflow_var_def_"), "vermilion"
    ),
    title="Which method of the visitor led to which",
)
alt(
    fig,
    "Call graph. visit_expr leads to visit_function_, that to visit_var_def_"
    " and visit_seq_expr_, that to visit_dataflow_block_ and visit_var_, the"
    " block to visit_var_binding_, and that to visit_call_ and to the"
    " definitions. visit_call_ leads to visit_op_, visit_var_ and"
    " visit_dataflow_var_.",
)

# %% cell: returns
for base in (PyExprVisitor, PyExprMutator):
    kinds = {}
    for name, method in inspect.getmembers(base, inspect.isfunction):
        if name.startswith("visit_") and name.endswith("_"):
            kind = inspect.signature(method).return_annotation
            kind = getattr(kind, "__name__", None) or "None"
            kinds.setdefault(kind, []).append(name[6:-1])
    print(base.__name__)
    for kind, names in kinds.items():
        text = " ".join(names)
        print(f"  {kind:13}{text if len(text) < 60 else text[:56] + ' ...'}")

# %% cell: rsqrt


@mutator
class UseRsqrt(PyExprMutator):
    """Rewrite `x / sqrt(y)` to `x * rsqrt(y)`."""

    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        if call.op != ir.Op.get("relax.divide"):
            return call
        divisor = self.lookup_binding(call.args[1])
        if not isinstance(divisor, ir.Call):
            return call
        if divisor.op != ir.Op.get("relax.sqrt"):
            return call
        root = self.builder_.emit(relax.op.rsqrt(divisor.args[0]), "root")
        return relax.op.multiply(call.args[0], root)


@tf.function_pass(opt_level=0, name="deepdive.UseRsqrt")
def use_rsqrt(func, mod, ctx):
    return UseRsqrt().visit_expr(func)


rewritten = use_rsqrt(Module)
diff(Module["main"], rewritten["main"], context=0)
cleaned = tf.DeadCodeElimination()(rewritten)
print("after DeadCodeElimination:")
print(*(b.var.name for b in cleaned["main"].body.blocks[0].bindings))


# %% check
def run(mod, *arrays, name="main"):
    executable = tvm.compile(mod, "llvm")
    vm = relax.VirtualMachine(executable, tvm.cpu())
    return vm[name](*as_tensors(list(arrays))).numpy()


X = np.array([1, 2, 3, 4], "float32")
Y = np.array([4, 9, 16, 25], "float32")
np.testing.assert_allclose(run(cleaned, X, Y), np.exp(X / np.sqrt(Y)), 1e-5)

# %% cell: half


@mutator
class HalfRoot(PyExprMutator):
    """Compute roots in float16."""

    def __init__(self, careful):
        super().__init__()
        self.careful = careful

    def visit_call_(self, call):
        if call.op == ir.Op.get("relax.sqrt"):
            half = self.builder_.emit(
                relax.op.astype(call.args[0], "float16")
            )
            return relax.op.sqrt(half)
        if not self.careful:
            return call  # its arguments are not visited
        return self.visit_expr_post_order(call)


@R.function
def root_of_root(x: R.Tensor((4,), "float32")):
    a = R.sqrt(x)
    b = R.negative(a)
    return b


good = HalfRoot(careful=True).visit_expr(root_of_root)
show(good)
bad = HalfRoot(careful=False).visit_expr(root_of_root)
with expect_error(ValueError, match="not defined"):
    analysis.well_formed(bad)

# %% check
assert good.ret_ty.dtype == "float16"
analysis.well_formed(good)

# %% cell: drop


@mutator
class WithoutNegative(PyExprMutator):
    """Replace `negative(v)` by `v`: emit nothing, and remap."""

    def visit_var_binding_(self, binding):
        value = binding.value
        if isinstance(value, ir.Call) and value.op.name == "relax.negative":
            self.set_var_remap(binding.var, self.visit_expr(value.args[0]))
        else:
            super().visit_var_binding_(binding)


show(WithoutNegative().visit_expr(root_of_root))

# %% check
analysis.well_formed(WithoutNegative().visit_expr(root_of_root))

# %% cell: new-function


@mutator
class OwnExp(PyExprMutator):
    """Put a TIR function into the module for each `exp`."""

    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        if call.op == ir.Op.get("relax.exp"):
            return self.builder_.call_te(topi.exp, call.args[0])
        return call

    def transform(self):
        for var, func in self.builder_.get().functions_items():
            if isinstance(func, relax.Function):
                self.builder_.update_func(var, self.visit_expr(func))
        return self.builder_.get()


@tvm.transform.module_pass(opt_level=0, name="deepdive.OwnExp")
class OwnExpPass:
    def transform_module(self, mod, ctx):
        return OwnExp(mod).transform()


lowered = OwnExpPass()(Module)
print(sorted(g.name_hint for g in lowered.get_global_vars()))
show(lowered["main"], keep="call_tir", context=0)

# %% cell: mistakes


class NotDecorated(PyExprMutator):
    def visit_call_(self, call):
        return call


@mutator
class ReturnsNone(PyExprMutator):
    def visit_call_(self, call):
        self.visit_expr_post_order(call)


@mutator
class Definitions(PyExprMutator):
    calls = 0

    def visit_var_def_(self, var):
        self.calls += 1
        if self.calls > 50:
            raise RuntimeError(f"{self.calls} calls for {var.name}")
        return super().visit_var_def_(var)


with expect_error(TypeError, match="Inheritance from a decorated"):

    @mutator
    class Heir(ReturnsNone):
        def visit_call_(self, call):
            return super().visit_call_(call)


with expect_error(AttributeError, match="_outer"):
    NotDecorated().visit_expr(root_of_root)
with quiet():
    with expect_error(tvm.error.InternalError, match="null pointer"):
        ReturnsNone().visit_expr(root_of_root)
    with expect_error(RuntimeError, match="51 calls for s"):
        Definitions().visit_expr(Module["main"])

# %% cell: no-class
function, calls = Module["main"], []


def note(node):
    if isinstance(node, ir.Call):
        calls.append(node.op.name)


analysis.post_order_visit(function, note)
print("calls:", *calls)

s, y = function.body.blocks[0].bindings[0].var, function.params[1]
edit = DataflowBlockRewrite(function.body.blocks[0], function)
with expect_error(tvm.error.InternalError, match="s is used by"):
    edit.remove_unused(s)
size = relax.BlockBuilder().normalize(relax.op.abs(y))
edit.add(size, "size", is_dfvar=True)
size = edit.mutated_dfb().bindings[1].var
with expect_error(tvm.error.InternalError, match="Cannot find size"):
    edit.replace_all_uses(s, size)
wider = edit.mutated_root_fn()
edit = DataflowBlockRewrite(wider.body.blocks[0], wider)
edit.replace_all_uses(s, size)
edit.remove_unused(s)
diff(function, edit.mutated_root_fn(), context=0)

twin = relax.utils.copy_with_new_vars(function)
print("the twin has the same parameters:", twin.params[1].same_as(y))

# %% check
only = tvm.IRModule({"main": edit.mutated_root_fn()})
assert analysis.check_well_formed(only)
np.testing.assert_allclose(run(only, X, Y), np.exp(X / np.abs(Y)), 1e-5)
assert not twin.params[0].same_as(function.params[0])

# %% cell: instrument


@ir.instrument.pass_instrument
class Checked:
    """Run the program after each pass; report the first wrong result."""

    def __init__(self, arguments, expected):
        self.arguments, self.expected = arguments, expected
        self.depth, self.found = 0, None

    def run_before_pass(self, mod, info):
        self.depth += 1

    def run_after_pass(self, mod, info):
        self.depth -= 1
        if self.depth or self.found:
            return
        if not analysis.check_well_formed(mod):
            self.found = f"{info.name}: ill-formed"
            return
        self.depth += 1  # the passes of this build are none of ours
        result = run(mod, *self.arguments)
        self.depth -= 1
        if not np.allclose(result, self.expected, rtol=1e-4):
            self.found = f"{info.name}: wrong result"


@mutator
class Careless(PyExprMutator):
    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        if call.op == ir.Op.get("relax.multiply"):
            return relax.op.add(call.args[0], call.args[1])
        return call


@tf.function_pass(opt_level=0, name="deepdive.Careless")
def careless(func, mod, ctx):
    return Careless().visit_expr(func)


checked = Checked([X, Y], np.exp(X / np.sqrt(Y)))
only_main = tvm.IRModule({"main": Module["main"]})
with tvm.transform.PassContext(instruments=[checked]):
    mod = only_main
    for step in (
        tf.EliminateCommonSubexpr(),
        use_rsqrt,
        tf.CanonicalizeBindings(),
        careless,
        tf.DeadCodeElimination(),
    ):
        mod = step(mod)
print(checked.found or "every pass kept the result")

# %% check
assert checked.found == "deepdive.Careless: wrong result"

# %% cell: assumptions
STAGES = {
    "as written": tvm.transform.Sequential([]),
    "LegalizeOps": tf.LegalizeOps(),
    "AnnotateTIROpPattern": tf.AnnotateTIROpPattern(),
    "ToNonDataflow": tf.ToNonDataflow(),
    "RemovePurityChecking": tf.RemovePurityChecking(),
    "CallTIRRewrite": tf.CallTIRRewrite(),
    "LowerAllocTensor": tf.LowerAllocTensor(),
}


@R.function
def subject(
    x: R.Tensor((1, 4, 8, 8), "float32"), w: R.Tensor((4, 4, 3, 3), "float32")
):
    with R.dataflow():
        c = R.nn.conv2d(x, w, padding=1)
        r = R.nn.relu(c)
        again = R.nn.relu(c)
        s = R.add(r, again)
        flat = R.reshape(s, (256,))
        ones = R.add(R.const(1.0, "float32"), R.const(1.0, "float32"))
        unused = R.exp(flat)
        alias = flat
        y = R.multiply(alias, ones)
        R.output(y)
    return y


PROBES = {
    "ConvertLayout": tf.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]}),
    "ToMixedPrecision": tf.ToMixedPrecision(),
    "DataflowUseInplaceCalls": tf.DataflowUseInplaceCalls(),
    "LegalizeOps": tf.LegalizeOps(),
    "FoldConstant": tf.FoldConstant(),
    "EliminateCommonSubexpr": tf.EliminateCommonSubexpr(),
    "DeadCodeElimination": tf.DeadCodeElimination(),
    "CanonicalizeBindings": tf.CanonicalizeBindings(),
    "AnnotateTIROpPattern": tf.AnnotateTIROpPattern(),
    "FuseOps": tf.FuseOps(),
    "RewriteDataflowReshape": tf.RewriteDataflowReshape(),
    "CallTIRRewrite": tf.CallTIRRewrite(),
    "StaticPlanBlockMemory": tf.StaticPlanBlockMemory(),
    "KillAfterLastUse": tf.KillAfterLastUse(),
}
acts = {}
mod = tvm.IRModule({"main": subject})
for stage, advance in STAGES.items():
    mod = advance(mod)
    for name, probe in PROBES.items():
        acts[name, stage] = not tvm_ffi.structural_equal(probe(mod), mod)

fig, ax = new("text", 0.27 * len(PROBES) + 1.4)
for row, name in enumerate(PROBES):
    for column, stage in enumerate(STAGES):
        changes = acts[name, stage]
        corner = (column - 0.46, row - 0.42)
        face = tint("green", 0.45) if changes else "none"
        edge = COLORS["green" if changes else "navy"]
        ax.add_patch(Rectangle(corner, 0.92, 0.84, fc=face, ec=edge, lw=0.6))
ax.set_xlim(-0.6, len(STAGES) - 0.4)
ax.set_ylim(len(PROBES) - 0.4, -0.6)
ax.set_yticks(range(len(PROBES)), list(PROBES))
ax.set_xticks(range(len(STAGES)), list(STAGES), rotation=25, ha="left")
ax.xaxis.tick_top()
ax.tick_params(length=0, labelsize=8.5)
for side in ax.spines.values():
    side.set_visible(False)
alt(
    fig,
    "Matrix of passes and stages. ConvertLayout, ToMixedPrecision,"
    " DataflowUseInplaceCalls and LegalizeOps change only the module as"
    " written. AnnotateTIROpPattern acts after LegalizeOps, FuseOps only"
    " after AnnotateTIROpPattern, RewriteDataflowReshape after LegalizeOps"
    " and until ToNonDataflow, StaticPlanBlockMemory only after"
    " CallTIRRewrite. FoldConstant, DeadCodeElimination,"
    " CanonicalizeBindings and KillAfterLastUse act everywhere.",
)

# %% check
once = {n for n in PROBES if sum(acts[n, s] for s in STAGES) == 1}
assert once == {
    "ConvertLayout",
    "ToMixedPrecision",
    "DataflowUseInplaceCalls",
    "LegalizeOps",
    "AnnotateTIROpPattern",
    "FuseOps",
    "StaticPlanBlockMemory",
}, once

# %% cell: solution-zero


@mutator
class WithoutZero(PyExprMutator):
    """Replace `x + 0` by `x`, where the result has the type of `x`."""

    def visit_call_(self, call):
        call = self.visit_expr_post_order(call)
        if call.op != ir.Op.get("relax.add"):
            return call
        x, zero = call.args
        if not isinstance(zero, ir.GenericConst):
            return call
        if np.any(zero.value.numpy()):
            return call
        same = tvm_ffi.structural_equal(call.ty, x.ty)
        return x if same else call


@R.function
def zeros(x: R.Tensor((4,), "float32"), s: R.Tensor((), "float32")):
    a = R.add(x, R.const(0.0, "float32"))
    b = R.add(s, R.const([0.0, 0.0], "float32"))
    return (a, b)


show(WithoutZero().visit_expr(zeros), keep="    . = |    a|    b", context=0)

# %% check
kept = WithoutZero().visit_expr(zeros).body.blocks[0].bindings
assert [isinstance(b.value, ir.Call) for b in kept[:2]] == [False, True]

# %% cell: solution-depth


@visitor
class Depth(PyExprVisitor):
    """Length of the longest chain of calls that ends at each variable."""

    def __init__(self):
        super().__init__()
        self.depth = {}

    def visit_var_binding_(self, binding):
        inputs = analysis.free_vars(binding.value)
        longest = max((self.depth.get(v, 0) for v in inputs), default=0)
        is_call = isinstance(binding.value, ir.Call)
        self.depth[binding.var] = longest + is_call


for name, function in (("MLP", MLP["main"]), ("main", Module["main"])):
    depth = Depth()
    depth.visit_expr(function)
    print(name, {v.name: d for v, d in depth.depth.items()})

# %% check
assert max(depth.depth.values()) == 3
