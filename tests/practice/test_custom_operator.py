"""The checks of the project "A custom operator": `relax.swiglu`, from its type to a fused kernel."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import ir, relax, tirx

from tvm_deepdive_helpers.practice import Mutation, Project, doing, require

NAME = "relax.swiglu"

PROJECT = Project(
    "custom_operator",
    title="A custom operator",
    page="7-practice/custom-operator",
    wants={
        "swiglu(x, beta=1.0)": "a call of the operator `relax.swiglu` with the argument `x` and the attribute `beta`",
        "infer_swiglu(call, builder)": "the type of the result, a relax.TensorType",
        "legalize_swiglu(builder, call)": "an expression that takes the place of the call, made by builder.call_te",
    },
    mutations=[
        Mutation(
            "the type of the result is that of the argument",
            "(*outer, analyzer.simplify(last // 2))",
            "(*outer, last)",
            caught="test_half_of_a_number",
            says=r"must be R.Tensor\(\(4, 8\)",
        ),
        Mutation(
            "a tensor of which only the rank is known is not thought of",
            "    if ty.shape is None:\n        return relax.TensorType(ndim=ty.ndim, dtype=ty.dtype)\n",
            "",
            caught="test_unknown_shape",
            says=r"line \d+, in infer_swiglu",
        ),
        Mutation(
            "an odd size is rounded down",
            "if not analyzer.can_prove(last % 2 == 0):",
            "if False:",
            caught="test_odd_size",
            says="accepted",
        ),
        Mutation(
            "purity is not declared",
            'ir.register_op_attr(NAME, "FPurity", True)',
            "",
            caught="test_well_formed",
            says="FPurity",
        ),
        Mutation(
            "the operator cannot be parsed from printed text",
            "tvm.relax.script.parser.swiglu = swiglu",
            "",
            caught="test_text",
            says="no attribute 'swiglu'",
        ),
        Mutation(
            "the two halves are exchanged",
            "return gate * tirx.sigmoid(tirx.const(beta, x.dtype) * gate) * up",
            "return up * tirx.sigmoid(tirx.const(beta, x.dtype) * up) * gate",
            caught="test_numbers",
            says="halves",
        ),
        Mutation(
            "beta is ignored",
            "tirx.const(beta, x.dtype)",
            "tirx.const(1.0, x.dtype)",
            caught="test_beta",
            says="beta",
        ),
        Mutation(
            "the sigmoid overflows",
            "tirx.sigmoid(tirx.const(beta, x.dtype) * gate)",
            "tirx.exp(tirx.const(beta, x.dtype) * gate) / (1 + tirx.exp(tirx.const(beta, x.dtype) * gate))",
            caught="test_large_numbers",
            says="nan|inf",
        ),
        Mutation(
            "the constant is a float32 in every kernel",
            "tirx.const(beta, x.dtype)",
            'tirx.const(beta, "float32")',
            caught="test_other_precisions",
            says="float64|float16",
        ),
        Mutation(
            "the kernel is declared opaque",
            'primfunc_name_hint="swiglu"',
            'primfunc_name_hint="swiglu", primfunc_attrs={"op_pattern": 8}',
            caught="test_pattern",
            says="op_pattern is 8",
        ),
    ],
)

n, h = tirx.Var("n", "int64"), tirx.Var("h", "int64")


def program(body, *types):
    """A module whose `main` takes parameters of these types and returns `body(builder, *parameters)`."""
    params = [relax.Var(f"x{i}", ty) for i, ty in enumerate(types)]
    builder = relax.BlockBuilder()
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(body(builder, *params)))
        builder.emit_func_output(out)
    return builder.finalize()


def registered():
    """The operator; explains that it is not there."""
    try:
        operator = ir.Op.get(NAME)
    except AttributeError:
        operator = None
    require(
        operator is not None,
        f'There is no operator "{NAME}": when your file was loaded, nobody registered a hook under this name with '
        "ir.register_op_attr(name, hook, value).",
    )
    require(
        operator.get_attr("FInferType") is not None,
        f'The operator "{NAME}" has no hook "FInferType". Register infer_swiglu under this key.',
    )
    return operator


def type_of(solution, ty):
    """The type that `emit` gives to a call on a tensor of a type."""
    registered()
    call = solution.swiglu(relax.Var("x", ty))
    require(
        isinstance(call, relax.Call) and call.op == ir.Op.get(NAME),
        f'swiglu(x) must return relax.Call(ir.Op.get("{NAME}"), [x], attributes); it returned {call}.',
    )
    builder = relax.BlockBuilder()
    with builder.function("main", list(call.args)):
        with doing(f"inferring the type of swiglu for x: {ty}"):
            out = builder.emit(call)
        builder.emit_func_output(out)
    return out.ty


def require_type(solution, given, wanted):
    """The type of the result must be this one; sizes may be written in other ways."""
    got = type_of(solution, given)
    same = isinstance(got, relax.TensorType) and got.ndim == wanted.ndim and got.dtype == wanted.dtype
    if same and wanted.shape is not None:
        same = got.shape is not None and all(
            tvm.sym.Analyzer().can_prove(a == b) for a, b in zip(got.shape, wanted.shape, strict=True)
        )
    require(same, f"For x: {given}, the type of the result must be {wanted}, and is {got}.")


def Tensor(*args, **options):
    return relax.TensorType(*args, **{"dtype": "float32", **options})


# ------------------------------------------------------------------------------------------ stage 1: the type


@PROJECT.check(1, "The type", hint="Hint 1: a name and its first hook")
def test_half_of_a_number(solution):
    """The last dimension is halved, the others and the dtype stay."""
    require_type(solution, Tensor((4, 16)), Tensor((4, 8)))
    require_type(solution, Tensor((2, 3, 10), dtype="float16"), Tensor((2, 3, 5), dtype="float16"))
    require_type(solution, Tensor((6,)), Tensor((3,)))


@PROJECT.check(1, "The type", hint="Hint 2: sizes that are symbols")
def test_symbolic_sizes(solution):
    """A symbolic batch stays, and half of `2 * h` is `h`."""
    require_type(solution, Tensor((n, 8)), Tensor((n, 4)))
    require_type(solution, Tensor((n, 2 * h)), Tensor((n, h)))
    require_type(solution, Tensor((n, 4 * h + 2)), Tensor((n, 2 * h + 1)))


@PROJECT.check(1, "The type", hint="Hint 2: sizes that are symbols")
def test_unknown_shape(solution):
    """A tensor whose shape is unknown has a result whose shape is unknown, of the same rank."""
    require_type(solution, Tensor(ndim=2), Tensor(ndim=2))
    require_type(solution, Tensor(), Tensor())
    require_type(solution, Tensor((4, 8), dtype=None), Tensor((4, 4), dtype=None))


# ------------------------------------------------------------------------------ stage 2: bad input is refused


def require_refused(solution, ty, why):
    registered()
    try:
        got = type_of(solution, ty)
    except (TypeError, ValueError) as error:
        require(
            len(str(error)) > 10,
            f"x: {ty} is refused with {type(error).__name__}, but the message {str(error)!r} tells nobody why.",
        )
    except Exception as error:
        require(
            False,
            f"x: {ty} is refused with {type(error).__name__}: {error}. A user needs a TypeError or ValueError that "
            f"says that {why}.",
        )
    else:
        require(False, f"x: {ty} is accepted, with the result {got}, but {why}.")


@PROJECT.check(2, "Bad input is refused", hint="Hint 3: refusing")
def test_odd_size(solution):
    """A last dimension that is odd, or not known to be even, is refused."""
    require_refused(solution, Tensor((4, 7)), "an odd number of columns has no half")
    require_refused(solution, Tensor((4, h)), "nobody knows whether `h` is even")


@PROJECT.check(2, "Bad input is refused", hint="Hint 3: refusing")
def test_wrong_kinds(solution):
    """A scalar, integers and what is no tensor are refused."""
    require_refused(solution, Tensor(()), "a scalar has no last dimension")
    require_refused(solution, Tensor((4, 8), dtype="int32"), "the sigmoid of an integer is no integer")
    require_refused(solution, relax.ShapeType(ndim=2), "a shape is no tensor")


@PROJECT.check(2, "Bad input is refused", hint="Hint 3: refusing")
def test_two_arguments(solution):
    """A call with two arguments is refused."""
    operator = registered()
    x = relax.Var("x", Tensor((4, 8)))
    call = relax.Call(operator, [x, x], solution.swiglu(x).attrs)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        try:
            builder.emit(call)
        except (TypeError, ValueError):
            refused = True
        else:
            refused = False
        builder.emit_func_output(x)
    require(refused, "A call of the operator with two tensors is accepted: FInferType must look at len(call.args).")


# -------------------------------------------------------------------------------- stage 3: a citizen of the IR


def one_call(solution, **options):
    return program(lambda builder, x: solution.swiglu(x, **options), Tensor((n, 8)))


@PROJECT.check(3, "A citizen of the IR", hint="Hint 4: purity and text")
def test_well_formed(solution):
    """The checker accepts a program with the operator."""
    require(
        registered().get_attr("FPurity") is not None,
        'The operator has no hook "FPurity": no pass can know whether a call may be dropped or moved.',
    )
    with doing("asking relax.analysis.well_formed about a program with your operator"):
        relax.analysis.well_formed(one_call(solution))


@PROJECT.check(3, "A citizen of the IR", hint="Hint 4: purity and text")
def test_dropped(solution):
    """A call whose result nobody uses is dropped."""

    def body(builder, x):
        builder.emit(solution.swiglu(x))
        return relax.op.nn.relu(x)

    with doing("running DeadCodeElimination over a program with your operator"):
        mod = relax.transform.DeadCodeElimination()(program(body, Tensor((n, 8))))
    require(
        "swiglu" not in mod.script(),
        "DeadCodeElimination keeps a call of the operator whose result nobody uses. The operator does nothing but "
        'compute a value: its "FPurity" is True.',
    )


@PROJECT.check(3, "A citizen of the IR", hint="Hint 4: purity and text")
def test_text(solution):
    """The printed text can be parsed, and `beta` is not lost."""
    mod = one_call(solution, beta=2)
    text = mod.script()
    require(
        "R.swiglu(" in text and "2.0" in text,
        "The text of a program with swiglu(x, beta=2) must hold `R.swiglu(…, beta=2.0)`. It has:\n"
        + "\n".join(f"    {line.strip()}" for line in text.splitlines() if "swiglu" in line),
    )
    with doing("parsing the printed text of a program with your operator"):
        again = tvm.script.from_source(text)
    with doing("comparing the parsed program with the one that was printed"):
        tvm.ir.assert_structural_equal(again, mod)


# --------------------------------------------------------------------------------------------- stage 4: numbers


def reference(x, beta=1.0):
    """In numpy, in double precision."""
    gate, up = np.split(x.astype("float64"), 2, axis=-1)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-beta * gate)) * up


def compiled(mod):
    operator = registered()
    require(
        operator.get_attr("FLegalize") is not None,
        'The operator has no hook "FLegalize": LegalizeOps leaves the call, and nobody can compile it.',
    )
    with doing("compiling a program with your operator"):
        executable = tvm.compile(mod, target="llvm")
    return relax.VirtualMachine(executable, tvm.cpu())


def run(solution, x, **options):
    mod = program(lambda builder, v: solution.swiglu(v, **options), Tensor(x.shape, dtype=str(x.dtype)))
    got = compiled(mod)["main"](tvm.runtime.tensor(x)).numpy()
    shape = (*x.shape[:-1], x.shape[-1] // 2)
    require(got.shape == shape, f"For x of shape {x.shape} the result must have shape {shape}; it has {got.shape}.")
    return got


def near(got, want, rtol=1e-4):
    return np.allclose(got, want, rtol=rtol, atol=rtol)


def some(*shape, dtype="float32"):
    return np.random.default_rng(len(shape)).normal(0, 2, shape).astype(dtype)


@PROJECT.check(4, "Numbers", hint="Hint 5: the kernel")
def test_numbers(solution):
    """Numbers agree with numpy, for one, two and three dimensions."""
    for shape in ((6,), (5, 8), (2, 3, 10)):
        x = some(*shape)
        got, want = run(solution, x), reference(x)
        gate, up = np.split(x, 2, axis=-1)
        swapped = near(got, reference(np.concatenate([up, gate], axis=-1)))
        require(
            not swapped,
            "The two halves are exchanged: the first half of the columns is the gate (it goes through the sigmoid), "
            "the second half is what is gated.",
        )
        pairs = x.reshape(*shape[:-1], -1, 2)
        require(
            not near(got, reference(np.concatenate([pairs[..., 0], pairs[..., 1]], axis=-1))),
            "The kernel pairs neighbours, columns 2j and 2j+1. The halves lie one after the other: j and j + h.",
        )
        error = np.abs(got - want).max()
        require(near(got, want), f"For x of shape {shape} the result is wrong by up to {error:.3g} (numpy in doubles).")


@PROJECT.check(4, "Numbers", hint="Hint 5: the kernel")
def test_beta(solution):
    """`beta` counts, and is 1 if it is not given."""
    x = some(4, 8)
    for beta in (1, 1.702, 0.0):
        got = run(solution, x, beta=beta)
        require(
            near(got, reference(x, beta)),
            f"With beta={beta} the result is wrong by up to {np.abs(got - reference(x, beta)).max():.3g}. "
            "The kernel reads it from call.attrs.",
        )
    require(near(run(solution, x), reference(x)), "Without an argument, beta must be 1.")


@PROJECT.check(4, "Numbers", hint="Hint 6: numbers at the edges")
def test_large_numbers(solution):
    """Large numbers on both sides give neither nan nor inf."""
    x = np.array([[-1000, -90, 0, 90, 1000, 2, 2, 2, 2, 2]], "float32")
    got, want = run(solution, x), reference(x)
    require(
        near(got, want),
        f"The gate {x[0, :5].tolist()} with 2 in the other half must give {want[0].tolist()}, and gives "
        f"{got[0].tolist()}. Where does an exp overflow?",
    )


@PROJECT.check(4, "Numbers", hint="Hint 6: numbers at the edges")
def test_other_precisions(solution):
    """float16 and float64 work, each in its precision."""
    for dtype, rtol in (("float16", 1e-2), ("float64", 1e-12)):
        x = some(3, 8, dtype=dtype)
        with doing(f"compiling for {dtype}"):
            got = run(solution, x, beta=1.702)
        require(str(got.dtype) == dtype, f"For {dtype} the result must have this dtype; it is {got.dtype}.")
        error = np.abs(got - reference(x, 1.702)).max()
        require(
            near(got, reference(x, 1.702), rtol),
            f"For {dtype} the result is wrong by up to {error:.3g}: which constant has another dtype?",
        )


# --------------------------------------------------------------------------------------- stage 5: dynamic shapes


@PROJECT.check(5, "Dynamic shapes", hint="Hint 7: one program for all sizes")
def test_dynamic_batch(solution):
    """One compiled program serves every batch size."""
    main = compiled(one_call(solution))["main"]
    for rows in (1, 3, 17):
        x = some(rows, 8)
        with doing(f"running the program, compiled for n rows, on {rows} of them"):
            got = main(tvm.runtime.tensor(x)).numpy()
        require(
            got.shape == (rows, 4) and near(got, reference(x)),
            f"Compiled for n rows, the program gives wrong numbers for {rows} rows.",
        )


@PROJECT.check(5, "Dynamic shapes", hint="Hint 7: one program for all sizes")
def test_dynamic_width(solution):
    """The width may be a symbol too: `swiglu(x) @ w` with `2 * h` columns."""
    mod = program(
        lambda builder, x, w: relax.op.matmul(builder.emit(solution.swiglu(x)), w),
        Tensor((n, 2 * h)),
        Tensor((h, 3)),
    )
    main = compiled(mod)["main"]
    for rows, half in ((2, 4), (5, 7)):
        x, w = some(rows, 2 * half), some(half, 3)
        with doing(f"running the program, compiled for 2 * h columns, on {2 * half} of them"):
            got = main(tvm.runtime.tensor(x), tvm.runtime.tensor(w)).numpy()
        require(near(got, reference(x) @ w, 1e-3), f"Compiled for 2 * h columns, the numbers for h = {half} are wrong.")


# ----------------------------------------------------------------------------------------------- stage 6: fusion


def chain(solution):
    def body(builder, x):
        y = builder.emit(solution.swiglu(builder.emit(relax.op.nn.relu(x))))
        return relax.op.multiply(y, relax.const(3.0))

    return program(body, Tensor((n, 8)))


@PROJECT.check(6, "Fusion", hint="Hint 8: what fusion reads")
def test_pattern(solution):
    """No kernel is more than injective (op_pattern at most 2)."""
    with doing("running LegalizeOps and AnnotateTIROpPattern"):
        mod = relax.transform.AnnotateTIROpPattern()(relax.transform.LegalizeOps()(one_call(solution)))
    for var, function in mod.functions.items():
        if isinstance(function, tirx.PrimFunc):
            kind = int(function.attrs["op_pattern"])
            require(
                kind <= 2,
                f"The kernel `{var.name_hint}`: its op_pattern is {kind}. Each result of swiglu depends on two "
                "elements at computed places, which is injective, 2. "
                "Is there a reduction, a call, or an attribute of your own?",
            )


@PROJECT.check(6, "Fusion", hint="Hint 8: what fusion reads")
def test_one_kernel(solution):
    """relu before and a multiplication behind end up in the same kernel."""
    mod = chain(solution)
    with doing('running the pipeline "zero" over relu, swiglu, multiply'):
        fused = relax.get_pipeline("zero")(mod)
    kernels = [v.name_hint for v, f in fused.functions.items() if isinstance(f, tirx.PrimFunc)]
    require(
        len(kernels) == 1,
        f"relu, swiglu and multiply should become one kernel; there are {len(kernels)}: {', '.join(sorted(kernels))}.",
    )
    x = some(5, 8)
    with doing("compiling the fused program"):
        vm = relax.VirtualMachine(tvm.compile(fused, target="llvm"), tvm.cpu())
    got = vm["main"](tvm.runtime.tensor(x)).numpy()
    require(near(got, 3 * reference(np.maximum(x, 0))), "The fused kernel computes other numbers than the three did.")
