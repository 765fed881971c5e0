"""
Bindings, blocks and scopes of Relax
====================================

How a Relax function names its values, where each name can be seen, what a
dataflow block permits, and what the checker of well-formedness refuses.
"""

# %%
import re
from textwrap import fill

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax import analysis
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, nodes
from tvm_deepdive_helpers.figures import COLORS, alt, new, tint
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.running_example import as_tensors


def show(thing):
    """Print IR; lines that are too long for the page are broken."""
    text = thing if isinstance(thing, str) else script(thing)
    for line in text.splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


# %% cell: function


@R.function(pure=False)
def main(x: R.Tensor((4,), "float32"), u: R.Tensor(dtype="float32")):
    m = T.int64()
    y = R.exp(x)
    with R.dataflow():
        lv = R.negative(y)
        z = R.add(lv, y)
        R.output(z)
    v = R.match_cast(u, R.Tensor((m,), "float32"))
    _ = R.print(v, format="v = {}")
    return R.concat((z, v))


for block in main.body.blocks:
    print(type(block).__name__)
    for binding in block.bindings:
        kind, var = type(binding).__name__, type(binding.var).__name__
        print(f"    {kind:10} {var:11} {binding.var.name:3} {binding.value}")
print("body:", main.body.body)

# %% cell: fields
classes = [nodes.node_class("relax.expr.VarBinding")]
classes += [nodes.node_class("relax.expr.MatchCast")]
classes += [nodes.node_class("relax.expr.BindingBlock")]
classes += [nodes.node_class("relax.expr.DataflowBlock")]
classes += [nodes.node_class("relax.expr.SeqExpr")]
print(nodes.field_table(classes))
cast = main.body.blocks[2].bindings[0]
print("the ty of a MatchCast is its pattern:", cast.ty)

# %% check
assert {c.key for c in classes[:2]} == {
    c.key for c in nodes.node_classes("relax.expr.Binding")
}
assert isinstance(cast, relax.MatchCast)

# %% cell: cast-run
vm = relax.VirtualMachine(
    tvm.compile(tvm.IRModule({"main": main}), "llvm"), tvm.cpu()
)
four = np.arange(4, dtype="float32")
print(vm["main"](*as_tensors([four, np.float32([7, 8])])).shape)
with expect_error(ValueError, match="match_cast"):
    vm["main"](*as_tensors([four, np.ones((2, 2), "float32")]))

# %% cell: cast-compare


@R.function
def same_length(
    x: R.Tensor(("n",), "float32"), u: R.Tensor(ndim=1, dtype="float32")
):
    n = T.int64()
    v = R.match_cast(u, R.Tensor((n,), "float32"))
    return R.add(x, v)


module = tvm.IRModule({"same_length": same_length})
strict = relax.VirtualMachine(tvm.compile(module, "llvm"), tvm.cpu())
with expect_error(RuntimeError, match="previous populated value"):
    strict["same_length"](*as_tensors([four, np.float32([7, 8])]))

# %% check
expected = np.concatenate([np.exp(four) - np.exp(four), [7, 8]])
result = vm["main"](*as_tensors([four, np.float32([7, 8])]))
assert np.allclose(result.numpy(), expected)

# %% cell: shadow


@R.function
def twice(x: R.Tensor((2,), "float32")):
    with R.dataflow():
        y = R.add(x, x)
        y = R.add(y, y)
        z = y
        R.output(z)
    return z


show(twice)

# %% cell: probe
VECTOR = R.Tensor(ndim=1, dtype="float32")
n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
names = {
    k: relax.Var(k, VECTOR)
    for k in ["x", "u", "y", "z", "v", "t", "s", "w", "q"]
}
names["lv"] = relax.DataflowVar("lv", VECTOR)
names["x"] = relax.Var("x", R.Tensor((n,), "float32"))
names["v"] = relax.Var("v", R.Tensor((m,), "float32"))
flag = relax.Var("flag", ir.PrimType("bool"))


def build(where=None, what=None):
    """A function of several scopes, with a use of `what` at one place."""
    v, exp, place = names, relax.op.exp, iter(range(100))

    def block(bindings, kind=relax.BindingBlock):
        out = []
        for binding in [None, *bindings]:
            out += [binding] if binding else []
            if next(place) == where:
                dataflow = kind is relax.DataflowBlock
                var = relax.DataflowVar if dataflow else relax.Var
                use = exp(what)
                if ir.is_prim_expr(what):
                    use = relax.op.zeros(relax.ShapeExpr([what]), "float32")
                out.append(relax.VarBinding(var("probe", VECTOR), use))
        return kind(out)

    def bind(var, value):
        return relax.VarBinding(v[var], value)

    blocks = [block([bind("y", exp(v["x"]))])]
    inner = [bind("lv", exp(v["y"])), bind("z", exp(v["lv"]))]
    blocks.append(block(inner, relax.DataflowBlock))
    cast = relax.MatchCast(v["v"], v["u"], v["v"].ty)
    blocks.append(block([cast]))
    then = relax.SeqExpr([block([bind("t", exp(v["z"]))])], v["t"])
    other = relax.SeqExpr([block([bind("s", exp(v["y"]))])], v["s"])
    blocks.append(block([bind("w", relax.If(flag, then, other))]))
    body = relax.SeqExpr(blocks, v["w"])
    params = [flag, v["x"], v["u"]]
    function = relax.Function(params, body, ret_ty=VECTOR)
    return tvm.IRModule({"main": function})


def well_formed(module):
    module = relax.transform.Normalize()(module)
    return bool(analysis.check_well_formed(module))


PLACES = ["before y", "after y", "dataflow: before lv", "after lv", "after z"]
PLACES += ["after the block", "after v", "then: before t", "after t"]
PLACES += ["else: before s", "after s", "before w", "after w"]
COLUMNS = ["n", "x", "y", "lv", "z", "m", "v", "t", "s", "w"]
seen = {
    (place, name): well_formed(
        build(row, {"n": n, "m": m}.get(name, names.get(name)))
    )
    for row, place in enumerate(PLACES)
    for name in COLUMNS
}

# %% check
assert well_formed(build())
assert seen["after lv", "lv"] and not seen["after the block", "lv"]
assert seen["after v", "m"] and not seen["after the block", "m"]
assert not seen["after w", "t"] and not seen["else: before s", "t"]

# %% cell: visibility
fig, ax = new(6.4, 3.9)
for row, place in enumerate(PLACES):
    for column, name in enumerate(COLUMNS):
        hue = "vermilion" if name == "lv" else "navy"
        hue = "green" if name in "nm" else hue
        yes = seen[place, name]
        ax.barh(
            row,
            0.84,
            left=column - 0.42,
            height=0.8,
            color=tint(hue, 0.55) if yes else "none",
            edgecolor=COLORS[hue] if yes else "none",
        )
ax.set_xticks(range(len(COLUMNS)), COLUMNS)
ax.set_yticks(range(len(PLACES)), PLACES)
ax.xaxis.tick_top()
ax.invert_yaxis()
ax.tick_params(length=0)
ax.spines[["left", "bottom"]].set_visible(False)
alt(
    fig,
    "Matrix of places in a function and variables, with a filled field "
    "where the variable can be used.",
)

# %% cell: rules
TENSOR = R.Tensor((2, 3), "float32")
x = relax.Var("x", TENSOR)
y, z = relax.Var("y", TENSOR), relax.Var("z", TENSOR)
lv = relax.DataflowVar("lv", TENSOR)
Bind, Block, Flow = relax.VarBinding, relax.BindingBlock, relax.DataflowBlock


def reason(blocks, result, params=(x,), pure=True):
    """What the checker says to a function, or "well-formed"."""
    body = relax.SeqExpr(blocks, result)
    function = relax.Function(params, body, TENSOR, is_pure=pure)
    module = tvm.IRModule({"main": function})
    try:
        analysis.well_formed(relax.transform.Normalize()(module))
    except (ValueError, TypeError, tvm.error.InternalError) as error:
        text = str(error).partition("Please set")[0]
        text = text.partition("is false: ")[2] or text
        return re.sub(r"0x[0-9a-f]+", "0x…", text.strip())
    return "well-formed"


twice_x = relax.op.add(x, x)
noise = Bind(relax.Var("_", R.Tuple()), relax.op.print(x, format="{}"))
quiet = Bind(relax.DataflowVar("_", R.Tuple()), noise.value)
branch = relax.If(flag, x, x)
wide = relax.Var("wide", R.Tensor((9, 9), "float32"))
vague = relax.Var("vague", R.Tensor(ndim=2))
k = tirx.Var("k", "int64")
square = relax.Var("square", R.Tensor(ndim=2))
zeros = relax.op.zeros(relax.ShapeExpr([k, k]), "float32")
tries = {
    "use before definition": ([Block([Bind(y, relax.op.exp(z))])], y),
    "two definitions": ([Block([Bind(y, twice_x), Bind(y, x)])], y),
    "DataflowVar in a BindingBlock": ([Block([Bind(lv, twice_x)])], x),
    "DataflowVar as the result": ([Flow([Bind(lv, twice_x)])], lv),
    "If in a DataflowBlock": ([Flow([Bind(z, branch)])], z, (flag, x)),
    "print in a DataflowBlock": ([Flow([quiet])], x, (x,), False),
    "print in a pure function": ([Block([noise])], x),
    "print in an impure function": ([Block([noise])], x, (x,), False),
    "annotation contradicts": ([Block([Bind(wide, twice_x)])], x),
    "annotation knows less": ([Block([Bind(vague, x)])], x),
    "unknown symbol": ([Block([Bind(square, zeros)])], x),
}
for name, arguments in tries.items():
    print(f"{name}:")
    print(
        fill(
            reason(*arguments),
            72,
            initial_indent="    ",
            subsequent_indent="    ",
        )
    )

# %% check
outcome = {name: reason(*arguments) for name, arguments in tries.items()}
fine = [name for name, text in outcome.items() if text == "well-formed"]
assert fine == ["print in an impure function", "annotation knows less"]
first, second = Flow([Bind(lv, twice_x)]), Flow([Bind(z, relax.op.exp(lv))])
between = Block([Bind(y, x)])
assert reason([first, second], z) == "well-formed"  # they are merged
assert "not defined" in reason([first, between, second], z)

# %% cell: hidden-reason
with expect_error(
    tvm.error.DiagnosticError, match="not well-formed", max_lines=1
):

    @I.ir_module
    class Refused:
        @R.function
        def main(x: R.Tensor((2,), "float32")):
            R.print(x, format="{}")
            return x


@I.ir_module(check_well_formed=False)
class Suspect:
    @R.function
    def main(x: R.Tensor((2,), "float32")):
        R.print(x, format="{}")
        return x


try:
    analysis.well_formed(Suspect)
except ValueError as error:
    print(re.sub(r"0x[0-9a-f]+", "0x…", str(error)).partition("  Please")[0])

# %% cell: fusion


@I.ir_module
class Inside:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.exp(x)
            b = R.negative(a)
            R.output(b)
        return b


@I.ir_module
class Outside:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        a = R.exp(x)
        b = R.negative(a)
        return b


@I.ir_module
class TwoOutputs:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.exp(x)
            b = R.negative(a)
            R.output(a, b)
        return b


repaired = relax.transform.CanonicalizeBindings()(TwoOutputs)
for module in (Inside, Outside, TwoOutputs, repaired):
    fused = relax.get_pipeline("zero")(module)
    print(sorted(gv.name_hint for gv in fused.get_global_vars()))

# %% check
assert tvm_ffi.structural_equal(repaired, Inside, map_free_vars=True)

# %% cell: dead-code


@I.ir_module
class Unused:
    @R.function(pure=False)
    def main(
        x: R.Tensor((4,), "float32"), u: R.Tensor(ndim=1, dtype="float32")
    ):
        unused_1 = R.exp(x)
        unused_2 = R.match_cast(u, R.Tensor((4,), "float32"))
        R.print(x, format="{}")
        with R.dataflow():
            unused_3 = R.exp(x)
            y = R.add(x, x)
            unused_4 = R.add(x, y)
            R.output(y, unused_4)
        return y


show(relax.transform.DeadCodeElimination()(Unused)["main"])

# %% cell: solution-convert


@I.ir_module
class Loose:
    @R.function(pure=False)
    def main(x: R.Tensor((4,), "float32")):
        a = R.exp(x)
        b = R.negative(a)
        R.print(b, format="{}")
        c = R.add(a, b)
        d = R.multiply(c, c)
        return d


show(relax.transform.ConvertToDataflow(min_size=2)(Loose)["main"])

# %% cell: solution-uses


def uses(function):
    """How often each bound variable is used."""
    count = {}
    for block in function.body.blocks:
        for binding in block.bindings:
            for used in analysis.free_vars(binding.value):
                if used in count:
                    count[used] += 1
            count[binding.var] = 0
    for used in analysis.free_vars(function.body.body):
        count[used] = count.get(used, 0) + 1
    return {var.name: number for var, number in count.items()}


print(uses(Unused["main"]))

# %% check
zero = [name for name, number in uses(Unused["main"]).items() if not number]
kept = uses(relax.transform.DeadCodeElimination()(Unused)["main"])
assert set(zero) - set(kept) == {"unused_1", "unused_3", "unused_4"}
