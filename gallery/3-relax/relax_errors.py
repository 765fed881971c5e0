"""
Errors of Relax, provoked and cured
===================================

Each class of error between the script and the result: the parser, the types
of operators, the rules of well-formedness, missing kernels, run time.
"""

# sphinx_gallery_line_numbers = True

# %% cell: setup
import re
from textwrap import fill, indent

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax
from tvm.relax import op
from tvm.relax import transform as tr
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.running_example import as_tensors

# %% cell: who-checks
fig, _ = boxes_and_arrows(
    {
        "script": (0, 0),
        "emit": (0, 1),
        "decorator": (0, 2),
        "passes": (0, 3),
        "build": (0, 4),
        "call": (0, 5),
        "c-script": (1, 0),
        "c-emit": (1, 1),
        "c-decorator": (1, 2),
        "c-passes": (1, 3),
        "c-build": (1, 4),
        "c-call": (1, 5),
    },
    [
        ("script", "emit"),
        ("emit", "decorator"),
        ("decorator", "passes"),
        ("passes", "build"),
        ("build", "call"),
    ]
    + [
        (stage, "c-" + stage)
        for stage in (
            "script",
            "emit",
            "decorator",
            "passes",
            "build",
            "call",
        )
    ],
    labels={
        "script": "parser",
        "emit": "BlockBuilder",
        "decorator": "end of decorator",
        "passes": "passes",
        "build": "VM code generator",
        "call": "call",
        "c-script": "names, syntax:\nDiagnosticError",
        "c-emit": "types of arguments, FInferType:\nTypeError, ValueError",
        "c-decorator": "rules of well-formedness:\ncheck_well_formed, once",
        "c-passes": "only what a pass needs",
        "c-build": "operators without a kernel",
        "c-call": "arguments, match_cast, buffers\n"
        "of kernels, names of functions",
    },
    colors={
        "c-" + stage: "green"
        for stage in (
            "script",
            "emit",
            "decorator",
            "passes",
            "build",
            "call",
        )
    },
    title="What is checked, by whom",
)

# %% cell: classes
for error in (tvm.error.InternalError, tvm.error.DiagnosticError):
    print(error.__name__, "is a", error.__base__.__name__)

# %% cell: parser
with expect_error(tvm.error.DiagnosticError, match="Undefined"):

    @R.function
    def unknown_name(x: R.Tensor((4,), "float32")):
        y = R.add(x, z)
        return y


# %% cell: parser-op
with expect_error(tvm.error.DiagnosticError, match="reduction length"):

    @R.function
    def bad_product(
        x: R.Tensor((2, 3), "float32"), w: R.Tensor((4, 5), "float32")
    ):
        y = R.matmul(x, w)
        return y


# %% cell: normalise
bb = relax.BlockBuilder()
matrix = relax.Var("matrix", relax.TensorType((2, 3), "float32"))
other = relax.Var("other", relax.TensorType((4, 5), "float32"))
small = relax.Var("small", relax.TensorType((2, 3), "int8"))
shape = relax.Var("shape", relax.ShapeType([2, 3]))
TRIALS = {
    "lengths": lambda: op.matmul(matrix, other),
    "broadcast": lambda: op.add(matrix, other),
    "dtype": lambda: op.add(matrix, small),
    "reshape": lambda: op.reshape(matrix, (7,)),
    "axis": lambda: op.sum(matrix, axis=2),
    "not a tensor": lambda: op.nn.relu(shape),
    "number of arguments": lambda: relax.Call(
        ir.Op.get("relax.add"), [matrix]
    ),
    "Python arguments": lambda: op.add(matrix),
    "Python number": lambda: op.add(matrix, 1),
}


def verdict(action):
    """Class and message of what an action raises, on one line."""
    try:
        action()
    except Exception as error:
        text = str(error).strip().splitlines()
        text = " ".join(line.strip() for line in text)
        text = re.sub(r"ir\.Op\(span.*?support_level=\d+\)", "Op", text)
        text = re.sub(r"0x[0-9a-f]+", "0x...", text)
        text = re.sub(r"Function # from.*? has true", "... has true", text)
        return type(error).__name__, text
    return "accepted", ""


def tell(name, kind, text):
    print(f"{name}: {kind}")
    if text:
        print(indent(fill(text, 72), "    "))


for name, make in TRIALS.items():
    kind, text = verdict(lambda make=make: bb.normalize(make()))
    tell(name, kind, text[:150])

# %% cell: builders
vec = relax.TensorType((4,), "float32")
x, y, z, w = (relax.Var(name, vec) for name in "xyzw")
flag = relax.Var("flag", relax.TensorType((), "bool"))
lv = relax.DataflowVar("lv", vec)


def bind(var, value):
    return relax.VarBinding(var, value)


set_type = tvm_ffi.get_global_func("relax.UpdateType")


def claimed(expr, ty=vec):
    """An expression with the type that we claim, not normalised."""
    set_type(expr, ty)
    return expr


def typed(expr):
    """A call with the type that the normaliser finds."""
    return relax.BlockBuilder().normalize(expr)


def function(*bindings, result=x, params=(x,), flow=False, pure=True):
    make = relax.DataflowBlock if flow else relax.BindingBlock
    blocks = [make(bindings)] if bindings else []
    body = claimed(relax.SeqExpr(blocks, result))
    return relax.Function(list(params), body, vec, pure)


def sequence(*bindings, result):
    return claimed(relax.SeqExpr([relax.BindingBlock(bindings)], result))


def choice():
    """An If whose branches define y and w."""
    yes = sequence(bind(y, double), result=y)
    no = sequence(bind(w, double), result=w)
    return claimed(relax.If(flag, yes, no))


double = typed(op.add(x, x))
shown = typed(op.print(x, format="{}"))
pair = relax.Tuple([double])
callee = relax.BlockBuilder().add_func(function(), "g")
elsewhere = claimed(relax.Call(callee, [x]))

# %% cell: rules
CASES = {
    "1 no type": function(bind(y, op.add(x, x)), result=y),
    "2 unknown GlobalVar": ir.IRModule(
        {"main": function(bind(y, elsewhere), result=y)}
    ),
    "3 two names": ir.IRModule(
        {"main": function().with_attr("global_symbol", "other")}
    ),
    "4 shared parameter": ir.IRModule(
        {"f": function(), "g": function(bind(y, double), result=y)}
    ),
    "5 not defined": function(bind(y, typed(op.add(x, z))), result=y),
    "6 defined twice": function(bind(y, double), bind(y, double), result=y),
    "7 DataflowVar, plain block": function(bind(lv, double)),
    "7 DataflowVar outside": function(bind(lv, double), result=lv, flow=True),
    "8 variable of a branch": function(
        bind(
            z,
            choice(),
        ),
        result=y,
        params=(x, flag),
    ),
    "9 SeqExpr as a value": function(
        bind(z, sequence(bind(y, double), result=y)), result=z
    ),
    "10 nested call": function(bind(y, claimed(op.add(double, x))), result=y),
    "10 nested in a tuple": function(
        bind(y, relax.TupleGetItem(pair, 0)), result=y
    ),
    "12 If in a dataflow block": function(
        bind(
            z,
            choice(),
        ),
        result=z,
        params=(x, flag),
        flow=True,
    ),
    "13 impure in a dataflow block": function(
        bind(relax.Var("p", shown.ty), shown), flow=True, pure=False
    ),
    "14 impure in a pure function": function(
        bind(relax.Var("p", shown.ty), shown)
    ),
    "15 forced, but not pure": function(pure=False).with_attr(
        "relax.force_pure", True
    ),
    "- annotated wrongly": function(
        bind(relax.Var("v", relax.TensorType((9,), "float32")), double)
    ),
    "- call with a wrong type": function(
        bind(
            relax.Var("v", relax.TensorType((9,), "float32")),
            claimed(op.add(x, x), relax.TensorType((9,), "float32")),
        )
    ),
}
for rule, case in CASES.items():
    kind, text = verdict(lambda case=case: relax.analysis.well_formed(case))
    tell(rule, kind, text[:140])

# %% check
kinds = {
    rule: verdict(lambda case=case: relax.analysis.well_formed(case))[0]
    for rule, case in CASES.items()
}
assert set(kinds.values()) == {"ValueError", "TypeError"}
assert verdict(lambda: relax.analysis.well_formed(function()))[0] == (
    "accepted"
)

# %% cell: without-types
print("not found with check_ty=False:")
for rule, case in CASES.items():
    if relax.analysis.check_well_formed(case, check_ty=False):
        print("   ", rule)

# %% cell: boolean
bad = CASES["5 not defined"]
print("check_well_formed:", relax.analysis.check_well_formed(bad))
with expect_error(ValueError, match="Var z is not defined"):
    relax.analysis.well_formed(bad)

# %% cell: hidden-reason
with expect_error(tvm.error.DiagnosticError, match="not well-formed"):

    @I.ir_module
    class Impure:
        @R.function
        def main(x: R.Tensor((4,), "float32")):
            R.print(x, format="{}")
            return x


# %% cell: reason


@I.ir_module(check_well_formed=False)
class Suspect:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        R.print(x, format="{}")
        return x


kind, text = verdict(lambda: relax.analysis.well_formed(Suspect))
tell("well_formed", kind, text)

# %% cell: cures


@I.ir_module
class Honest:
    @R.function(pure=False)
    def main(x: R.Tensor((4,), "float32")):
        R.print(x, format="{}")
        return x


@I.ir_module
class Forced:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        R.func_attr({"relax.force_pure": True})
        R.print(x, format="{}")
        return x


print(
    "well formed:",
    relax.analysis.check_well_formed(Honest),
    relax.analysis.check_well_formed(Forced),
)

# %% cell: leak
with expect_error(tvm.error.DiagnosticError, match="Undefined|dataflow"):

    @R.function
    def leak(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.add(x, x)
            b = R.nn.relu(a)
            R.output(b)
        return R.add(a, b)


# %% cell: accepted


@I.ir_module
class Return:
    @R.function
    def main(x: R.Tensor((2,), "float32")) -> R.Tensor((3,), "float32"):
        return R.add(x, x)


def machine(mod):
    executable = tvm.compile(mod, "llvm")
    return relax.VirtualMachine(executable, tvm.cpu())


two = np.ones(2, "float32")
print("well formed:", relax.analysis.check_well_formed(Return))
print("declared:   ", Return["main"].ret_ty)
print("returned:   ", machine(Return)["main"](*as_tensors([two])).shape)

# %% cell: wrong-kernel


@I.ir_module(check_well_formed=False)
class Kernel:
    @T.prim_func(s_tir=True)
    def twice(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("B"):
                v = T.axis.spatial(4, i)
                B[v] = A[v] * T.float32(2)

    @R.function
    def main(x: R.Tensor((4,), "float32")):
        cls = Kernel
        y = R.call_tir(cls.twice, (x,), out_ty=R.Tensor((9,), "float32"))
        return y


kind, text = verdict(lambda: relax.analysis.well_formed(Kernel))
tell("well_formed", kind, text)

# %% cell: impossible-cast
with expect_error(tvm.error.DiagnosticError, match="impossible"):

    @R.function
    def never(x: R.Tensor((3,), "float32")):
        y = R.match_cast(x, R.Tensor((4,), "float32"))
        return y


# %% cell: no-kernel


@I.ir_module
class Unproved:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")):
        z = R.add(x, y)
        return z


@I.ir_module
class NoRule:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        y = R.ewise_fma(x, x, x)
        return y


for mod in (Unproved, NoRule):
    with expect_error(tvm.error.InternalError, match="cannot emit"):
        tvm.compile(mod, "llvm")

# %% cell: no-kernel-cure


@I.ir_module
class Checked:
    @R.function
    def main(
        x: R.Tensor(("n",), "float32"), y: R.Tensor(ndim=1, dtype="float32")
    ):
        n = T.int64()
        same = R.match_cast(y, R.Tensor((n,), "float32"))
        z = R.add(x, same)
        return z


checked = machine(Checked)
three = np.ones(3, "float32")
print(checked["main"](*as_tensors([three, three])))
with expect_error(RuntimeError, match="match_cast"):
    checked["main"](*as_tensors([three, two]))

# %% cell: vanished-cast


@I.ir_module
class Vanished:
    @R.function
    def main(x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")):
        n = T.int64()
        same = R.match_cast(y, R.Tensor((n,), "float32"))
        return same

    @R.function
    def by_any(
        x: R.Tensor(("n",), "float32"), y: R.Tensor(("m",), "float32")
    ):
        n = T.int64()
        something = R.match_cast(y, R.Any)
        same = R.match_cast(something, R.Tensor((n,), "float32"))
        return same


canonical = tr.CanonicalizeBindings()(Vanished)["main"]
print(
    "blocks left:",
    len(canonical.body.blocks),
    " returns:",
    canonical.body.body,
)
print("main:", machine(Vanished)["main"](*as_tensors([three, two])))
with expect_error(RuntimeError, match="2 vs. 3"):
    machine(Vanished)["by_any"](*as_tensors([three, two]))

# %% check
assert canonical.body.body.same_as(canonical.params[1])

# %% cell: missing-function


@I.ir_module
class Foreign:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        y = R.call_dps_packed(
            "deepdive.nobody", (x,), out_ty=R.Tensor((4,), "float32")
        )
        return y


print("well formed:", relax.analysis.check_well_formed(Foreign))
executable = tvm.compile(Foreign, "llvm")
print("compiled")
with expect_error(tvm.error.InternalError, match="nobody"):
    relax.VirtualMachine(executable, tvm.cpu())

# %% cell: run-time


@I.ir_module
class Product:
    @R.function
    def main(
        x: R.Tensor(("n", "k"), "float32"), w: R.Tensor(("k", 8), "float32")
    ):
        y = R.matmul(x, w)
        return y


vm = machine(Product)


def ones(*shape, dtype="float32"):
    return tvm.runtime.tensor(np.ones(shape, dtype))


CALLS = {
    "right": lambda: vm["main"](ones(2, 3), ones(3, 8)),
    "number of arguments": lambda: vm["main"](ones(2, 3)),
    "rank": lambda: vm["main"](ones(2, 3, 1), ones(3, 8)),
    "dtype": lambda: vm["main"](ones(2, 3, dtype="int32"), ones(3, 8)),
    "number 8": lambda: vm["main"](ones(2, 3), ones(3, 9)),
    "k twice": lambda: vm["main"](ones(2, 3), ones(4, 8)),
    "not a tensor": lambda: vm["main"](ones(2, 3), 8),
    "name of the function": lambda: vm["Main"],
}
for text, action in CALLS.items():
    kind, message = verdict(action)
    tell(text, kind, "..." * bool(message) + message[-110:])

# %% cell: assert-op


@I.ir_module
class Positive:
    @R.function(pure=False)
    def main(x: R.Tensor((), "bool"), y: R.Tensor((4,), "float32")):
        R.assert_op(x, y, format="not positive: {}")
        return y


with expect_error(AssertionError, match="not positive"):
    machine(Positive)["main"](tvm.runtime.tensor(np.array(False)), ones(4))

# %% cell: instrument


@tvm.ir.instrument.pass_instrument
class WellFormed:
    """Name the first pass that returns an ill-formed module."""

    def run_after_pass(self, mod, info):
        kind, text = verdict(lambda: relax.analysis.well_formed(mod))
        if kind != "accepted":
            print(f"{info.name}: {kind}: {text[:70]}")


@relax.transform.function_pass(opt_level=0, name="deepdive.DropFirst")
class DropFirst:
    """A wrong pass: it forgets the first binding."""

    def transform_function(self, func, mod, ctx):
        first, *others = func.body.blocks
        block = relax.DataflowBlock(list(first.bindings)[1:])
        body = relax.SeqExpr([block, *others], func.body.body)
        return relax.Function(func.params, body, func.ret_ty, func.is_pure)


@I.ir_module
class Two:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            a = R.add(x, x)
            b = R.nn.relu(a)
            R.output(b)
        return b


with tvm.transform.PassContext(instruments=[WellFormed()]):
    tvm.transform.Sequential([tr.LegalizeOps(), DropFirst()])(Two)

# %% cell: solution-first-error


def why(source):
    """The reason behind 'not well-formed', for a script in a string."""
    mod = tvm.script.from_source(source, check_well_formed=False)
    kind, text = verdict(lambda: relax.analysis.well_formed(mod))
    return f"{kind}: {text[:90]}"


PROGRAM = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((4,), "float32")):
        with R.dataflow():
            _ = R.print(x, format="{}")
            y = R.add(x, x)
            R.output(y)
        return y
"""
print(why(PROGRAM))

# %% check
assert why(PROGRAM).startswith("ValueError: Function")

# %% cell: solution-honest


def check_returns(mod):
    """Functions whose declared result contradicts their body."""
    wrong = []
    for gvar, func in mod.functions_items():
        if isinstance(func, relax.Function):
            result = func.body.body.ty
            if not relax.analysis.type_base_check(func.ret_ty, result):
                wrong.append((gvar.name_hint, func.ret_ty, result))
    return wrong


print(*check_returns(Return)[0])
print(check_returns(Product), check_returns(Two))

# %% check
assert [name for name, *_ in check_returns(Return)] == ["main"]
