"""
Normalisation: what happens to one emitted expression
=====================================================

One call of emit followed through the normaliser, a BlockBuilder of sixty
lines that does the same, and a list of what is not done.
"""

# %%
import inspect
import random
from itertools import count
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, te, tirx
from tvm.relax import op

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.running_example import as_tensors


def show(thing):
    """Print IR; lines that are too long for the page are broken."""
    for line in script(thing).splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


# %% cell: variables
n = tirx.Var("n", "int64")
x = relax.Var("x", relax.TensorType((n, 4), "float32"))
w = relax.Var("w", relax.TensorType((4, 2), "float32"))
b = relax.Var("b", relax.TensorType((2,), "float32"))

# %% cell: example
nested = op.nn.relu(op.add(op.matmul(x, w), b))
bb = relax.BlockBuilder()
with bb.function("f", [x, w, b]):
    out = bb.emit(nested)
    bb.emit_func_output(out)
show(bb.get()["f"])
print("emit returned", out, "of type", out.ty)

# %% check
vm = relax.VirtualMachine(tvm.compile(bb.finalize(), "llvm"), tvm.cpu())
rng = np.random.default_rng(0)
args = [
    rng.standard_normal(s).astype("float32") for s in ((3, 4), (4, 2), (2,))
]
wanted = np.maximum(args[0] @ args[1] + args[2], 0)
assert np.allclose(vm["f"](*as_tensors(args)).numpy(), wanted, atol=1e-5)

# %% cell: steps
STEPS = {
    "emit": "BlockBuilder.emit(expr)\nblock_builder.py",
    "impl": "BlockBuilderImpl::Emit",
    "norm": "Normalizer::Normalize\nafter it, ty must not be missing",
    "visit": "Normalizer::VisitExpr_(CallNode)",
    "arg": "NormalizeArgument, for op and each arg\n"
    "leaf or tuple: stays; else: Emit",
    "new": "arguments changed?  make a new Call",
    "infer": "InferType, if ty is missing\n"
    "Op: FInferType; else: DeriveCallRetType",
    "update": "UpdateType(call, type), in place",
    "fnorm": "FNormalize of the op, if it has one",
    "var": "CreateVar: a fresh name",
    "bind": "VarBinding into block_stack_,\nvalue into binding_table_",
}
fig, _ = layered_graph(
    STEPS,
    {
        ("emit", "impl"): "BlockBuilderEmit",
        ("impl", "norm"): "1",
        ("norm", "visit"): "dispatch on the class",
        ("visit", "arg"): "",
        ("arg", "new"): "",
        ("new", "infer"): "",
        ("infer", "update"): "",
        ("update", "fnorm"): "",
        ("arg", "impl"): "nested expression",
        ("impl", "var"): "2",
        ("var", "bind"): "3",
    },
    colors={
        "emit": "vermilion",
        "infer": "green",
        "update": "green",
        "var": "purple",
        "bind": "purple",
    },
    width=6.6,
)
alt(fig, "Steps of one emit.")

# %% cell: tiny
LEAVES = (ir.Var, ir.Constant, ir.GlobalVar, ir.Op)
LEAVES += (relax.ShapeExpr, relax.ExternFunc)
KEPT = (*LEAVES, relax.Tuple)  # what may be an argument


class TinyBuilder:
    """A BlockBuilder for calls, tuples and leaves; one block, no scopes."""

    def __init__(self, log=None):
        self.bindings, self.cache = [], {}
        self.names, self.log = set(), log
        self.context = relax.BlockBuilder()  # what FInferType asks for

    def fresh(self, hint):
        tries = (hint + str(i or "") for i in count())
        name = next(name for name in tries if name not in self.names)
        self.names.add(name)
        return name

    def emit(self, expr, hint="gv"):
        value = self.visit(expr)
        var = relax.Var(self.fresh(hint), value.ty)
        self.bindings.append(relax.VarBinding(var, value))
        self.say("bind", var, "=", value)
        return var

    def argument(self, expr):
        if expr in self.cache:
            return self.cache[expr]
        value = self.visit(expr)
        if isinstance(expr, KEPT):
            return value
        self.cache[expr] = self.emit(value)
        return self.cache[expr]

    def visit(self, expr):
        if expr in self.cache:
            return self.cache[expr]
        if isinstance(expr, LEAVES):
            return expr
        self.say("visit", expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.argument(f) for f in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            value = self.argument(expr.tuple_value)
            return relax.TupleGetItem(value, expr.index)
        args = [self.argument(arg) for arg in expr.args]
        call = relax.Call(expr.op, args, expr.attrs, expr.ty_args)
        if expr.ty.is_missing():
            infer = expr.op.get_attr("FInferType")
            ty = infer(call, self.context)
            self.say("infer", call, ":", ty)
        else:
            ty = expr.ty
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args, ret_ty=ty)

    def function(self, params, result):
        block = relax.BindingBlock(self.bindings)
        body = relax.SeqExpr([block] if self.bindings else [], result)
        return relax.Function(params, body, ret_ty=result.ty)

    def say(self, *words):
        if self.log is not None:
            self.log.append(" ".join(map(str, words)))


lines = len(inspect.getsource(TinyBuilder).splitlines())
glue("tiny_lines", lines)

# %% check
assert lines <= 60, lines

# %% cell: trace
trace = []
tiny = TinyBuilder(trace)
out = tiny.emit(op.nn.relu(op.add(op.matmul(x, w), b)))
for line in trace:
    line = line.replace("R.Tensor", "").replace(", out_dtype=None", "")
    print(line.replace("dtype=", "").replace("R.", ""))

# %% cell: compare


def real(expr):
    bb = relax.BlockBuilder()
    with bb.function("f", [x, w, b], private=True):
        bb.emit_func_output(bb.emit(expr))
    return bb.get()["f"]


def mine(expr):
    tiny = TinyBuilder()
    function = tiny.function([x, w, b], tiny.emit(expr))
    # Only the type of the SeqExpr is missing; the pass fills it in.
    typed = relax.transform.Normalize()(tvm.IRModule({"f": function}))["f"]
    (block,) = typed.body.blocks
    assert all(map(ir.Node.same_as, block.bindings, tiny.bindings))
    return typed


def random_expression(rng, depth, pool):
    """A random tree of operators, tuples and shared parts."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice([x, relax.const(2.0), rng.choice(pool or [x])])
    kind = rng.choice(["unary", "binary", "tuple", "split"])
    part = random_expression(rng, depth - 1, pool)
    if kind == "unary":
        made = rng.choice([op.exp, op.abs, op.nn.relu])(part)
    elif kind == "binary":
        other = random_expression(rng, depth - 1, pool)
        made = rng.choice([op.add, op.multiply])(part, other)
    elif kind == "tuple":
        made = relax.TupleGetItem(relax.Tuple([x, part]), 1)
    else:
        made = relax.TupleGetItem(op.split(op.add(x, part), 2, 1), 0)
        made = op.concat([made, made], 1)
    pool.append(made)
    return made


checked, bindings = 0, 0
for seed in range(300):
    left = random_expression(random.Random(seed), 4, [])
    right = random_expression(random.Random(seed), 4, [])
    a, c = real(left), mine(right)
    assert tvm_ffi.structural_equal(a, c), (seed, a, c)
    bindings += sum(len(block.bindings) for block in a.body.blocks)
    names = [[v.var.name for v in f.body.blocks[0].bindings] for f in (a, c)]
    assert names[0] == names[1]
    checked += 1
print(checked, "random expressions,", bindings, "bindings: all equal")
glue("checked", checked)

# %% cell: no-scope
bb = relax.BlockBuilder()
with expect_error(tvm.error.InternalError, match="without a scope"):
    bb.normalize(op.exp(op.matmul(x, w)))

# %% cell: in-place
inner = op.matmul(x, w)
outer = op.exp(inner)
real(outer)
print("inner:", inner.ty)
print("outer missing:", outer.ty.is_missing())

# %% cell: sharing


def lines_of(build):
    """Names and values of the bindings that `build` makes."""
    bb = relax.BlockBuilder()
    with bb.function("f", [x], private=True):
        bb.emit_func_output(build(bb))
    for block in bb.get()["f"].body.blocks:
        for binding in block.bindings:
            print("   ", binding.var.name, "=", binding.value)


print("one object, twice in one expression:")
e = op.exp(x)
lines_of(lambda bb: bb.emit(op.add(e, e)))
print("two equal objects:")
lines_of(lambda bb: bb.emit(op.add(op.exp(x), op.exp(x))))
print("emitted, and then used as an expression:")
e = op.exp(x)
lines_of(lambda bb: [bb.emit(e), bb.emit(op.abs(e))][1])
print("emitted, and then its variable used:")
lines_of(lambda bb: bb.emit(op.abs(bb.emit(op.exp(x)))))
print("used in two blocks:")
e = op.exp(x)


def two_blocks(bb):
    first = bb.emit(op.abs(e))
    with bb.dataflow():
        second = bb.emit_output(op.negative(e))
    return bb.emit(op.add(first, second))


lines_of(two_blocks)

# %% cell: not-done
wrong = relax.Call(ir.Op.get("relax.exp"), [x], ret_ty=relax.ShapeType([7]))
lines_of(
    lambda bb: [
        bb.emit(op.add(relax.const(1.0), relax.const(2.0))),
        bb.emit(op.multiply(x, relax.const(1.0))),
        bb.emit(op.exp(x)),
        bb.emit(wrong),
    ][2]
)
print("type of exp(x), as given:", wrong.ty)

# %% cell: believed
bb = relax.BlockBuilder()
with bb.function("f", [x]):
    bb.emit_func_output(bb.emit(wrong))
with expect_error(TypeError, match="must be correct", max_lines=2):
    relax.analysis.well_formed(bb.get())

# %% cell: blocks
y, z = (relax.Var(name, x.ty) for name in "yz")
inner = relax.SeqExpr(
    [relax.BindingBlock([relax.VarBinding(y, op.exp(x))])], op.abs(y)
)
empty = relax.DataflowBlock([])
last = relax.BindingBlock([relax.VarBinding(z, inner)])
untidy = relax.Function(
    [x], relax.SeqExpr([empty, last], op.negative(z)), ret_ty=x.ty
)
tidy = relax.transform.Normalize()(tvm.IRModule({"f": untidy}))
show(tidy["f"])
again = relax.transform.Normalize()(tidy)
print("a second time changes:", not tvm_ffi.structural_equal(again, tidy))

# %% check
assert tvm_ffi.structural_equal(again, tidy)
assert relax.analysis.check_well_formed(tidy)

# %% cell: branches
flag = relax.Var("flag", ir.PrimType("bool"))
bb = relax.BlockBuilder()
with bb.function("f", [flag, x]):
    bb.emit_func_output(bb.emit(relax.If(flag, op.exp(op.abs(x)), x)))
show(bb.get()["f"])

# %% cell: fnormalize
with_rule = [
    name
    for name in map(str, ir.Op.list_op_names())
    if name.startswith("relax.")
    and ir.Op.get(name).get_attr("FNormalize") is not None
]
print(*sorted(name for name in with_rule if "inspect" not in name))
glue("fnormalize", len(with_rule))


def add_kernel():
    a, b = te.placeholder((4,), name="a"), te.placeholder((4,), name="b")
    c = te.compute((4,), lambda i: a[i] + b[i], name="c")
    return te.create_prim_func([a, b, c]).without_attr("global_symbol")


four = relax.TensorType((4,), "float32")
pair = relax.Var("pair", relax.TupleType([four, four]))
bb = relax.BlockBuilder()
kernel = bb.add_func(add_kernel(), "add")
with bb.function("main", [pair]):
    call_tir = ir.Op.get("relax.call_tir")
    out = bb.emit(relax.Call(call_tir, [kernel, pair], ty_args=[four]))
    bb.emit_func_output(out)
show(bb.get()["main"])

# %% check
vm = relax.VirtualMachine(tvm.compile(bb.finalize(), "llvm"), tvm.cpu())
numbers = as_tensors([np.arange(4, dtype="float32")] * 2)
assert vm["main"](tuple(numbers)).numpy().tolist() == [0, 2, 4, 6]

# %% cell: no-value
bb = relax.BlockBuilder()
with bb.function("f", [x], pure=False):
    nothing = bb.emit(op.print(x, format="x"))
    bb.emit_func_output(bb.emit(relax.Tuple([nothing, x])))
show(bb.get()["f"])

# %% cell: solution-predict
e = op.exp(x)
first = relax.TupleGetItem(relax.Tuple([e, op.abs(e)]), 0)
expr = op.add(first, op.multiply(e, e))
lines_of(lambda bb: bb.emit(expr))

# %% cell: solution-fold


class FoldingBuilder(TinyBuilder):
    """A TinyBuilder that leaves out multiplications by one."""

    def visit(self, expr):
        if isinstance(expr, relax.Call) and expr.op.name == "relax.multiply":
            left, right = expr.args
            one = isinstance(right, ir.GenericConst)
            if one and np.all(right.value.numpy() == 1):
                return self.visit(left)
        return super().visit(expr)


folding = FoldingBuilder()
out = folding.emit(op.abs(op.multiply(op.exp(x), relax.const(1.0))))
for binding in folding.bindings:
    print(binding.var.name, "=", binding.value)

# %% check
function = folding.function([x], out).with_attr("global_symbol", "main")
module = relax.transform.Normalize()(tvm.IRModule({"main": function}))
assert relax.analysis.check_well_formed(module)
vm = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
numbers = np.array([[-1, 0, 1, 2]], "float32")
result = vm["main"](*as_tensors([numbers])).numpy()
assert np.allclose(result, np.exp(numbers), atol=1e-5)
