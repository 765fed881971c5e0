"""
Patterns: find a piece of a program and replace it
==================================================

The dataflow pattern language of Relax: how it matches, how rewriters repeat,
how a pattern becomes a function, and the dataflow passes beside it.
"""

# sphinx_gallery_line_numbers = True

# %% cell: setup
from textwrap import fill

import numpy as np
import tvm
from tvm import ir, relax
from tvm.relax import dpl
from tvm.relax import transform as tr
from tvm.relax.dpl import is_const, is_op, wildcard
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.running_example import as_tensors


def show(thing, **options):
    """Print IR; lines that are too long for the page are broken."""
    for line in cut(script(thing), **options).splitlines():
        print(fill(line, 76, subsequent_indent=" " * 12))


def bindings(thing):
    """Print only the bindings, without types."""
    func = thing["main"] if isinstance(thing, ir.IRModule) else thing
    for block in func.body.blocks:
        kind = "dataflow" if isinstance(block, relax.DataflowBlock) else "-"
        for binding in block.bindings:
            value = str(binding.value).removeprefix("# from tvm.script")
            print(f"{kind:9s} {binding.var.name} = {value.splitlines()[-1]}")


def run(thing, *arrays):
    mod = (
        thing
        if isinstance(thing, ir.IRModule)
        else ir.IRModule({"main": thing})
    )
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    result = vm["main"](*as_tensors(list(arrays)))
    if isinstance(result, tvm.runtime.Tensor):
        return result.numpy()
    return [r.numpy() for r in result]


rng = np.random.default_rng(0)
x_data, w_data = rng.standard_normal((2, 4, 4)).astype("float32")

# %% cell: example


@I.ir_module
class Example:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.matmul(x, w)
            b = R.nn.relu(a)
            c = R.add(R.const(1, "float32"), b)
            d = R.split(c, 2, axis=1)
            e = d[0]
            R.output(e)
        return e


# %% cell: kinds
func = Example["main"]
values = relax.analysis.get_var2val(func)
named = relax.analysis.name_to_binding(func)
a, b, c, d, e = (named[name][0].var for name in "abcde")
x, w = func.params
any_ = wildcard()
product = is_op("relax.matmul")(any_, any_)
TRIALS = [
    ("wildcard()", wildcard(), x),
    ("is_var('x')", dpl.is_var("x"), x),
    ("is_var('b')", dpl.is_var("b"), b),
    ("is_dfv()", dpl.is_dfv(), b),
    ("is_const()", is_const(), values[c].args[0]),
    (
        "is_op('relax.nn.relu')(wildcard())",
        is_op("relax.nn.relu")(wildcard()),
        b,
    ),
    ("matmul(any_, any_), one object", product, a),
    (
        "matmul(wildcard(), wildcard())",
        is_op("relax.matmul")(wildcard(), wildcard()),
        a,
    ),
    (
        "relu(matmul(wildcard(), wildcard()))",
        is_op("relax.nn.relu")(is_op("relax.matmul")(wildcard(), wildcard())),
        b,
    ),
    (
        "add(relu, const), swapped",
        is_op("relax.add")(is_op("relax.nn.relu")(wildcard()), is_const()),
        c,
    ),
    (
        "relu | tanh",
        is_op("relax.nn.relu")(wildcard()) | is_op("relax.tanh")(wildcard()),
        b,
    ),
    (
        "wildcard() & has_dtype('float16')",
        wildcard() & dpl.has_dtype("float16"),
        b,
    ),
    ("~is_const()", ~is_const(), b),
    ("wildcard().has_shape([4, 4])", wildcard().has_shape([4, 4]), b),
    (
        "wildcard().has_ty(R.Tensor(ndim=2))",
        wildcard().has_ty(relax.TensorType(ndim=2, dtype="float32")),
        b,
    ),
    (
        "split(..).has_attr({'axis': 1})",
        is_op("relax.split")(wildcard()).has_attr({"axis": 1}),
        d,
    ),
    (
        "is_tuple_get_item(wildcard(), 0)",
        dpl.is_tuple_get_item(wildcard(), 0),
        e,
    ),
    ("add(wildcard()), too few", is_op("relax.add")(wildcard()), c),
    (
        "the same, varg_default_wildcard=True",
        is_op("relax.add")(wildcard(), varg_default_wildcard=True),
        c,
    ),
]
for text, pattern, expr in TRIALS:
    print(f"{text:38s} {pattern.match(expr, var2val=values)}")

# %% cell: extract
inner = is_op("relax.matmul")(wildcard(), wildcard())
outer = is_op("relax.nn.relu")(inner)
found = outer.extract_matched_expr(b, var2val=values)
print("inner:", found[inner])
print("outer:", found[outer])
print("without var2val:", outer.match(named["b"][0].value))

# %% cell: commutative


one = relax.const(1, "float32")
for make in (R.add, R.multiply, R.maximum):
    call = make(one, x)
    pattern = dpl.is_expr(call.op)(dpl.is_var("x"), is_const())
    print(f"{call.op.name}(x, const) finds {call}: {pattern.match(call)}")
v = dpl.is_var("x")
product_first = is_op("relax.divide")(
    is_op("relax.multiply")(v, is_const()), wildcard()
)
quotient_first = R.multiply(R.divide(x, w), one)
print("x * const / any finds x / w * 1:", product_first.match(quotient_first))

# %% check
assert product_first.match(quotient_first)

# %% cell: rewrite-call


@I.ir_module
class Scale:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.multiply(x, R.const(2, "float32"))
            b = R.multiply(R.const(3, "float32"), a)
            c = R.multiply(b, R.const(4, "float32"))
            d = R.exp(c)
            R.output(d)
        return d


value, one, two = wildcard(), is_const(), is_const()
inside = is_op("relax.multiply")(value, one)
scaled_twice = is_op("relax.multiply")(inside, two)


def merge(expr, found):
    print("called with", expr)
    factor = found[one].value.numpy() * found[two].value.numpy()
    return R.multiply(found[value], R.const(factor.item(), "float32"))


merged = dpl.rewrite_call(scaled_twice, merge, Scale["main"])
bindings(merged)

# %% check
assert np.allclose(run(merged, x_data), run(Scale, x_data), rtol=1e-4)
assert str(merged).count("R.multiply") == 1

# %% cell: side-effects


@I.ir_module
class Twice:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            p = R.exp(x)
            q = R.exp(x)
            unused = R.sin(x)
            r = R.nn.relu(R.add(p, q))
            R.output(r)
        return r


hit = wildcard()
relu = is_op("relax.nn.relu")(hit)
new = dpl.rewrite_call(
    relu,
    lambda expr, found: R.maximum(found[hit], R.const(0, "float32")),
    Twice["main"],
)
bindings(new)

# %% cell: casts


@I.ir_module
class Behind:
    @R.function
    def main(u: R.Tensor(dtype="float32")):
        m = T.int64()
        with R.dataflow():
            p = R.exp(u)
            v = R.match_cast(p, R.Tensor((m,), "float32"))
            r = R.nn.relu(v)
            R.output(r)
        return r


relu_exp = is_op("relax.nn.relu")(is_op("relax.exp")(hit))
cast_of, relu_of = Behind["main"].body.blocks[0].bindings[1:]
values = relax.analysis.get_var2val(Behind["main"])
reached = []
dpl.rewrite_call(
    relu_exp,
    lambda expr, found: reached.append(str(expr)) or expr,
    Behind["main"],
)
by_library = tr.FuseOpsByPattern([("toy.relu_exp", relu_exp)])(Behind)
print("is_var() finds v:", dpl.is_var("v").match(cast_of.var, var2val=values))
print("get_var2val:     ", relu_exp.match(relu_of.value, var2val=values))
print("FuseOpsByPattern:", len(by_library.functions) > 1)
print("rewrite_call:    ", reached)

# %% check
assert reached == ["R.nn.relu(v)"] and len(by_library.functions) == 1

# %% cell: endless
rounds = 0


def grow(expr, found):
    """relu(v) becomes relu(abs(v)), which matches again."""
    global rounds
    rounds += 1
    return expr if rounds > 4 else R.nn.relu(R.abs(found[hit]))


grown = dpl.rewrite_call(relu, grow, Example["main"])
print("calls:", rounds, " abs:", str(grown).count("R.abs"))

# %% cell: borders


@I.ir_module
class TwoBlocks:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.matmul(x, x)
            R.output(a)
        b = R.nn.relu(a)
        return b


calls = []
after_matmul = is_op("relax.nn.relu")(is_op("relax.matmul")(hit, hit))
count = lambda expr, found: calls.append(expr) or expr  # noqa: E731
dpl.rewrite_call(after_matmul, count, TwoBlocks["main"])
print("two blocks:", len(calls), "calls")
one_block = tr.ConvertToDataflow()(TwoBlocks)
dpl.rewrite_call(after_matmul, count, one_block["main"])
print("one block: ", len(calls), "call")

# %% cell: rewriter


@R.rewriter
class Expand:
    @R.function
    def pattern(v: R.Tensor((4, 4), "float32")):
        return R.nn.relu(v)

    @R.function
    def replacement(v: R.Tensor((4, 4), "float32")):
        return R.maximum(v, R.const(0, "float32"))


print(type(Expand).__name__)
bindings(Expand(Example))

# %% check
assert np.allclose(
    run(Expand(Example), x_data, w_data), run(Example, x_data, w_data)
)

# %% cell: siblings


@I.ir_module
class Siblings:
    @R.function
    def main(
        x: R.Tensor((4, 4), "float32"),
        w: R.Tensor((4, 4), "float32"),
        u: R.Tensor((4, 4), "float32"),
    ):
        with R.dataflow():
            q = R.matmul(x, w)
            k = R.matmul(x, u)
            s = R.add(q, k)
            R.output(s)
        return s


with dpl.PatternContext() as context:
    shared, left, right = wildcard(), wildcard(), wildcard()
    first = is_op("relax.matmul")(shared, left)
    second = is_op("relax.matmul")(shared, right)


def together(found, values):
    both = R.concat([found[left], found[right]], axis=1)
    halves = R.split(R.matmul(found[shared], both), 2, axis=1)
    return {
        found[first]: relax.TupleGetItem(halves, 0),
        found[second]: relax.TupleGetItem(halves, 1),
    }


wide = dpl.rewrite_bindings(context, together, Siblings["main"])
bindings(wide)

# %% check
three = rng.standard_normal((3, 4, 4)).astype("float32")
assert np.allclose(run(wide, *three), run(Siblings, *three), atol=1e-5)
assert np.allclose(
    run(Siblings, *three),
    three[0] @ three[1] + three[0] @ three[2],
    atol=1e-5,
)

# %% cell: only-used-by


@I.ir_module
class Uses:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.exp(a)
            c = R.sin(a)
            d = R.nn.relu(c)
            e = R.exp(d)
            f = R.add(b, e)
            R.output(d, f)
        return (d, f)


block = Uses["main"].body.blocks[0]


def match(build):
    """Names of the variables that the patterns of `build` find."""
    with dpl.PatternContext() as context:
        patterns = build()
    found = context.match_dfb(block)
    return [found[p].name for p in patterns] if found else None


def tree():
    source = is_op("relax.nn.relu")(wildcard())
    return source, is_op("relax.exp")(source)


def sole_use():
    source, user = tree()
    source.only_used_by(user)  # or: source >> user
    return source, user


def apart():
    source = is_op("relax.nn.relu")(wildcard())
    user = is_op("relax.exp")(wildcard())
    source.used_by(user)  # or: source ^ user
    return source, user


print("a tree:             ", match(tree))
print("only_used_by:       ", match(sole_use))
print("wildcard() for relu:", match(apart))

# %% cell: constant-in-context


@I.ir_module
class Minus:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.subtract(R.const(1, "float32"), a)
            c = R.exp(b)
            R.output(c)
        return c


block = Minus["main"].body.blocks[0]


def plain():
    source = is_op("relax.nn.relu")(wildcard())
    return source, is_op("relax.subtract")(is_const(), source)


def by_hand(index):
    source = is_op("relax.nn.relu")(wildcard())
    user = is_op("relax.subtract")(is_const(), source, add_constraint=False)
    source.used_by(user, index)
    return source, user


print("is_const() in a context:        ", match(plain))
print("edge by hand, argument index 1: ", match(lambda: by_hand(1)))
print("edge by hand, argument index 0: ", match(lambda: by_hand(0)))

# %% cell: by-pattern
matmul = is_op("relax.matmul")(wildcard(), wildcard())
PATTERNS = [
    ("toy.matmul_relu", is_op("relax.nn.relu")(matmul)),
    ("toy.matmul", is_op("relax.matmul")(wildcard(), wildcard())),
]


@I.ir_module
class Net:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.matmul(x, w)
            b = R.nn.relu(a)
            c = R.matmul(b, w)
            d = R.add(c, x)
            R.output(d)
        return d


grouped = tr.FuseOpsByPattern(PATTERNS)(Net)
show(grouped)

# %% cell: priority


def composites(mod):
    """The names of the patterns behind the calls of `main`."""
    names = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            callee = getattr(binding.value, "op", None)
            if isinstance(callee, ir.GlobalVar):
                names.append(str(mod[callee].attrs["Composite"]))
    return names


print("longest first: ", composites(tr.FuseOpsByPattern(PATTERNS)(Net)))
shortest_first = tr.FuseOpsByPattern(PATTERNS[::-1])(Net)
print("shortest first:", composites(shortest_first))

# %% cell: check


def look(context):
    """Called for each match; True accepts it."""
    left = context.annotated_expr["lhs"]
    print("matched:", context.matched_expr, " lhs:", left)
    print("bound:  ", *context.matched_bindings)
    return isinstance(left, relax.Var) and left.name == "x"


lhs = wildcard()
pattern = is_op("relax.matmul")(lhs, wildcard())
rule = tr.FusionPattern("toy.matmul", pattern, {"lhs": lhs}, look)
print(composites(tr.FuseOpsByPattern([rule])(Net)))

# %% cell: annotate
annotated = tr.FuseOpsByPattern(PATTERNS, annotate_codegen=True)(Net)
show(annotated, keep="def |func_attr|local_func", context=0)

# %% cell: merge
merged_regions = tr.MergeCompositeFunctions()(grouped)
show(merged_regions, keep="def |func_attr", context=0)

# %% cell: no-codegen
with expect_error(tvm.error.InternalError, match="relax.ext.toy"):
    tr.RunCodegen()(merged_regions)

# %% cell: names
with expect_error(tvm.error.InternalError, match="followed by period"):
    tr.FuseOpsByPattern([("matmul", matmul)], annotate_codegen=True)(Net)
other = ir.IRModule({"forward": Net["main"].without_attr("global_symbol")})
with expect_error(ValueError, match="main"):
    tr.MergeCompositeFunctions()(tr.FuseOpsByPattern(PATTERNS)(other))

# %% cell: way
fig, _ = layered_graph(
    {
        "ops": "calls of operators\nin a dataflow block",
        "composite": "composite function\nComposite, Primitive",
        "region": "outer function\nCodegen, global_symbol\n"
        "inside: composite functions",
        "extern": "call_dps_packed of\na compiled symbol",
    },
    {
        ("ops", "composite"): "FuseOpsByPattern",
        ("composite", "region"): "MergeCompositeFunctions\n"
        "or annotate_codegen",
        ("region", "extern"): "RunCodegen",
    },
    colors={"composite": "orange", "region": "green", "extern": "gray"},
)
alt(
    fig,
    "FuseOpsByPattern turns calls of operators into composite functions "
    "with the attributes Composite and Primitive. MergeCompositeFunctions, "
    "or the option annotate_codegen, puts them into outer functions with "
    "the attributes Codegen and global_symbol. RunCodegen replaces these "
    "by calls of compiled symbols.",
)

# %% cell: bind


@I.ir_module
class Bias:
    @R.function
    def main(x: R.Tensor((2,), "float32")):
        with R.dataflow():
            y = R.add(x, R.const([1.0, 2.0], "float32"))
            R.output(y)
        return y


plus = [("toy.add", is_op("relax.add")(wildcard(), wildcard()))]
for bind in (True, False):
    mod = tr.FuseOpsByPattern(plus, bind_constants=bind)(Bias)
    ((_, composite),) = [
        (g, f) for g, f in mod.functions_items() if g.name_hint != "main"
    ]
    print(f"bind_constants={bind}:", [str(p) for p in composite.params])

# %% cell: in-place


@I.ir_module
class Chain:
    @R.function
    def main(x: R.Tensor((4, 4), "float32"), w: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.nn.relu(x)
            b = R.multiply(a, w)
            c = R.exp(b)
            d = R.nn.relu(c)
            e = R.add(d, w)
            R.output(e)
        return e


inplace = tr.DataflowUseInplaceCalls()(Chain)
bindings(inplace)

# %% check
relu_x = np.maximum(x_data, 0)
wanted = np.exp(relu_x * w_data) + w_data
before = x_data.copy()
assert np.allclose(run(inplace, x_data, w_data), wanted, rtol=1e-4)
assert np.array_equal(before, x_data)

# %% cell: cse
cleaned = tr.EliminateCommonSubexpr()(Twice)
bindings(cleaned)
print("and then CanonicalizeBindings, DeadCodeElimination:")
bindings(tr.DeadCodeElimination()(tr.CanonicalizeBindings()(cleaned)))

# %% cell: layout


@I.ir_module
class Conv:
    @R.function
    def main(
        x: R.Tensor((1, 3, 8, 8), "float32"),
        w: R.Tensor((4, 3, 3, 3), "float32"),
    ):
        with R.dataflow():
            a = R.nn.conv2d(x, w)
            b = R.nn.relu(a)
            c = R.nn.max_pool2d(b, (2, 2))
            R.output(c)
        return c


nhwc = tr.ConvertLayout({"relax.nn.conv2d": ["NHWC", "OHWI"]})(Conv)
for binding in nhwc["main"].body.blocks[0].bindings:
    value = binding.value
    layout = getattr(
        value.attrs, "data_layout", getattr(value.attrs, "layout", "")
    )
    axes = getattr(value.attrs, "axes", "")
    print(f"{value.op.name:20s} {binding.var.ty.shape} {layout}{axes}")

# %% check
images = rng.standard_normal((1, 3, 8, 8)).astype("float32")
filters = rng.standard_normal((4, 3, 3, 3)).astype("float32")
assert np.allclose(
    run(nhwc, images, filters), run(Conv, images, filters), atol=1e-4
)

# %% cell: solution-rsqrt


@I.ir_module
class Norm:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            m = R.mean(R.multiply(x, x), axis=1, keepdims=True)
            s = R.sqrt(R.add(m, R.const(1e-5, "float32")))
            y = R.divide(x, s)
            R.output(y)
        return y


above, below = wildcard(), wildcard()
root = is_op("relax.sqrt")(below)
quotient = is_op("relax.divide")(above, root)


def by_rsqrt(expr, found):
    return R.multiply(found[above], R.rsqrt(found[below]))


faster = dpl.rewrite_call(quotient, by_rsqrt, Norm["main"])
bindings(faster)

# %% check
wanted = x_data / np.sqrt((x_data**2).mean(1, keepdims=True) + 1e-5)
assert np.allclose(run(faster, x_data), wanted, rtol=1e-4)

# %% cell: solution-sole


def sole(context):
    """No inner result may be used outside of the match."""
    last = context.value_to_bound_var[context.matched_expr]
    inner = [v for v in context.matched_bindings if not v.same_as(last)]
    return all(len(context.var_usages[v]) == 1 for v in inner)


@I.ir_module
class Shared:
    @R.function
    def main(x: R.Tensor((4, 4), "float32")):
        with R.dataflow():
            a = R.matmul(x, x)
            b = R.nn.relu(a)
            c = R.add(a, b)
            R.output(c)
        return c


for check in (None, sole):
    rule = ("toy.matmul_relu", PATTERNS[0][1], None, check)
    mod = tr.FuseOpsByPattern([rule])(Shared)
    outputs = [
        str(f.ret_ty)
        for _, f in mod.functions_items()
        if "Composite" in f.attrs
    ]
    print(composites(mod), "returns", *outputs)

# %% check
assert np.allclose(
    run(Shared, x_data),
    x_data @ x_data + np.maximum(x_data @ x_data, 0),
    atol=1e-5,
)
assert composites(mod) == []
