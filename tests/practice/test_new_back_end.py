"""The checks of the practice project "A new hardware back end"."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, te
from tvm.relax.frontend import nn
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers.practice import Mutation, Project, doing, require
from tvm_deepdive_helpers.toy_accelerator import COST, MACHINE, TILE, Fault, Machine

PROJECT = Project(
    "new_back_end",
    title="A new hardware back end",
    page="7-practice/new-back-end",
    wants={
        "program(m, k, n, relu)": "a list of instructions, each a tuple as `Machine.run` takes it",
        "offload(mod)": "the IRModule with its supported products handed to the machine",
        "tensorize(func)": "a `tvm.s_tir.Schedule` of the function",
    },
    mutations=[
        Mutation("no reuse", "return min(found, key=cost)", "return found[0]", "test_program_reuse", "loads"),
        Mutation(
            "rows kept that do not fit",
            "(False, True)[: 1 + fits]",
            "(False, True)",
            "test_program_long",
            "does not fit into the bank",
        ),
        Mutation(
            "the small pattern only",
            'FusionPattern("toy.matmul_relu", rectified, names, supported),',
            "",
            "test_relu",
            "order",
        ),
        Mutation(
            "a result of the middle is forgotten",
            "if has_leaking_intermediate_variables(context):",
            "if False:",
            "test_shared",
            "two users",
        ),
        Mutation("constants stay inside", "bind_constants=False, ", "", "test_constants", "constant"),
        Mutation(
            "symbols that two models share",
            'mod[var] = func.with_attr("global_symbol", name)',
            "pass",
            "test_two_models",
            "same name",
        ),
        Mutation("any type", 'or str(ty.dtype) != "float32" ', "", "test_fallback", "float64"),
        Mutation("any extent", "or extent % TILE", "", "test_fallback", "multiple of 8|Fault"),
        Mutation(
            "parameters by position", "[number[arg] for arg in product.args]", "[0, 1]", "test_same_matrix", "x @ x"
        ),
        Mutation(
            "numpy instead of the machine",
            'MACHINE.run(code, {**memory, "y": y})',
            'y[:] = np.maximum(memory["x"] @ memory["w"], 0 if plan["relu"] else -np.inf)',
            "test_product",
            "not executed",
        ),
        Mutation("the left matrix is loaded again", "i_block if fits else", "", "test_loops_reuse", "loads"),
        Mutation(
            "the left panel always kept", "inp, i_block if fits else k_tile", "inp, i_block", "test_loops_long", "bank"
        ),
    ],
)


def short(error):
    """An error in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:100]}"


RANDOM = np.random.default_rng(8)


def matrix(*shape, dtype="float32"):
    """Random numbers, half of them negative."""
    return RANDOM.standard_normal(shape).astype(dtype)


def close(got, want):
    """Whether two results are equal up to rounding."""
    return got.shape == want.shape and np.allclose(got, want, rtol=1e-4, atol=1e-3)


def tiles(m, k, n):
    """Products of tiles that a product of matrices needs."""
    return m * k * n // TILE**3


def naive_cycles(m, k, n):
    """Cycles of the program that loads two tiles for each product of tiles."""
    out = m * n // TILE**2
    return tiles(m, k, n) * (2 * COST["load"] + COST["mma"]) + out * (COST["zero"] + COST["store"])


# ------------------------------------------------------------------------------------------------- instructions


def run_program(solution, m, k, n, relu):
    """Run the program for one shape on a machine of its own."""
    with doing(f"making the program for {m} x {k} times {k} x {n}"):
        code = list(solution.program(m, k, n, relu))
    x, w, y = matrix(m, k), matrix(k, n), np.full((m, n), np.nan, "float32")
    machine = Machine()
    try:
        machine.run(code, {"x": x, "w": w, "y": y})
    except Fault as fault:
        require(False, f"The machine stopped while it ran program({m}, {k}, {n}, {relu}). It said: {fault}.")
    want = np.maximum(x @ w, 0) if relu else x @ w
    if np.isnan(y).any():
        row, column = np.argwhere(np.isnan(y))[0]
        require(False, f"program({m}, {k}, {n}, {relu}) never stores y[{row}, {column}].")
    if not close(y, want):
        row, column = np.argwhere(~np.isclose(y, want, rtol=1e-4, atol=1e-3))[0]
        require(
            False,
            f"program({m}, {k}, {n}, {relu}) leaves {y[row, column]:.3f} in y[{row}, {column}], and numpy says "
            f"{want[row, column]:.3f}. Is each tile of `acc` zeroed before its first product, and does it get all "
            f"{k // TILE} products?",
        )
    return machine


@PROJECT.check(1, "A program", hint="Hint 1: three loops over tiles")
def test_program_right(solution):
    """A program multiplies matrices of several tiles"""
    for shape in ((8, 8, 8), (16, 24, 8), (24, 8, 40), (16, 64, 32)):
        run_program(solution, *shape, False)


@PROJECT.check(1, "A program", hint="Hint 1: three loops over tiles")
def test_program_relu(solution):
    """With `relu`, negative results become zero, on the machine"""
    machine = run_program(solution, 16, 24, 32, True)
    require(machine.executed["relu"], "program(16, 24, 32, True) has no instruction `relu`.")


@PROJECT.check(1, "A program", hint="Hint 2: what may stay where")
def test_program_long(solution):
    """Matrices that do not fit into the banks are multiplied too"""
    for shape in ((16, 256, 16), (8, 2048, 8), (40, 136, 24), (128, 8, 8)):
        run_program(solution, *shape, False)


@PROJECT.check(2, "Fewer cycles", hint="Hint 2: what may stay where")
def test_program_reuse(solution):
    """A program takes at most half the cycles of the one without reuse"""
    for shape in ((64, 64, 64), (32, 64, 96)):
        machine = run_program(solution, *shape, False)
        explain_cycles(machine, shape, f"program{(*shape, False)}")


def explain_cycles(machine, shape, what):
    """Fail if a run took more than half the cycles of the naive program."""
    naive, loads = naive_cycles(*shape), machine.executed["load"]
    require(
        2 * machine.cycles <= naive,
        f"{what} takes {machine.cycles} cycles; without any reuse it is {naive}, and at most half of that is asked "
        f"for. It executes {loads} loads for {machine.executed['mma']} products. One kind of reuse is not enough: "
        "keep tiles of the left matrix *and* several sums.",
    )


# ---------------------------------------------------------------------------------------------------- operators


@I.ir_module
class Plain:
    @R.function
    def main(x: R.Tensor((16, 24), "float32"), w: R.Tensor((24, 32), "float32")):
        with R.dataflow():
            y = R.matmul(x, w)
            R.output(y)
        return y


@I.ir_module
class Rectified:
    @R.function
    def main(x: R.Tensor((16, 24), "float32"), w: R.Tensor((24, 32), "float32"), v: R.Tensor((32, 8), "float32")):
        with R.dataflow():
            y = R.nn.relu(R.matmul(x, w))
            z = R.matmul(y, v)
            R.output(z)
        return z


@I.ir_module
class Shared:
    @R.function
    def main(x: R.Tensor((16, 24), "float32"), w: R.Tensor((24, 32), "float32")):
        with R.dataflow():
            y = R.matmul(x, w)
            z = R.add(R.nn.relu(y), y)
            R.output(z)
        return z


def build(solution, mod, what):
    """A virtual machine for a module after `offload`."""
    with doing(f"handing {what} to the machine with `offload`"):
        lowered = solution.offload(mod)
    require(
        isinstance(lowered, tvm.IRModule), f"`offload` must return an IRModule, and returns {type(lowered).__name__}."
    )
    with doing(f"compiling {what} after `offload`"):
        return relax.VirtualMachine(tvm.compile(lowered, "llvm"), tvm.cpu())


def call(vm, what, *arrays):
    """Call a compiled model, and count what the machine does."""
    MACHINE.reset()
    with doing(f"running {what}"):
        return vm["main"](*map(tvm.runtime.tensor, arrays)).numpy()


def used(products, what):
    """Fail if the machine did not do all products of tiles."""
    got = MACHINE.executed["mma"]
    require(
        got == products,
        f"{what} needs {products} products of tiles, and the machine executed {got}. "
        + ("The instructions were not executed at all: does the call reach `MACHINE`?" if not got else ""),
    )


@PROJECT.check(3, "Operators", hint="Hint 3: from a pattern to a call")
def test_product(solution):
    """A product of a model runs on the machine, and the result is right"""
    vm, x, w = build(solution, Plain, "a model with one product"), matrix(16, 24), matrix(24, 32)
    got = call(vm, "a model with one product", x, w)
    require(close(got, x @ w), "The result of a model with one product differs from numpy's.")
    used(tiles(16, 24, 32), "A product of 16 x 24 and 24 x 32")
    with MACHINE.defect():
        broken = call(vm, "a model on a broken machine", x, w)
    require(
        not close(broken, x @ w),
        "With a broken machine the result is still right. So the numbers do not come from the machine.",
    )


@PROJECT.check(3, "Operators", hint="Hint 4: patterns")
def test_relu(solution):
    """A product and the `relu` behind it become one call"""
    arrays = matrix(16, 24), matrix(24, 32), matrix(32, 8)
    got = call(build(solution, Rectified, "a model with relu"), "a model with relu", *arrays)
    x, w, v = arrays
    require(close(got, np.maximum(x @ w, 0) @ v), "The result of relu(x @ w) @ v differs from numpy's.")
    used(tiles(16, 24, 32) + tiles(16, 32, 8), "relu(x @ w) @ v")
    require(
        MACHINE.executed["relu"] == 8,
        f"The machine should rectify the 8 tiles of x @ w, and executed `relu` {MACHINE.executed['relu']} times. The "
        "patterns are tried in the order of the list: does a smaller one take the product first?",
    )


@PROJECT.check(3, "Operators", hint="Hint 4: patterns")
def test_shared(solution):
    """A product that is used twice is right for both users"""
    what = "relu(y) + y with y = x @ w"
    x, w = matrix(16, 24), matrix(24, 32)
    try:
        got = call(build(solution, Shared, what), what, x, w)
        right = close(got, np.maximum(x @ w, 0) + x @ w)
    except Exception as error:
        require(False, f"{what} fails ({short(error)}). {TWO_USERS}")
    require(right, f"{what} differs from numpy's result. {TWO_USERS}")
    used(tiles(16, 24, 32), what)


TWO_USERS = (
    "The product has two users, relu and the sum. A match of relu(x @ w) takes it into the region, which must then "
    "return both: handle that, or refuse the match."
)


def one_product(left, right, dtype):
    """A model with one product of given shapes."""
    x = relax.Var("x", relax.TensorType(left, dtype))
    w = relax.Var("w", relax.TensorType(right, dtype))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.matmul(x, w)))
        builder.emit_func_output(y)
    return builder.finalize()


@PROJECT.check(4, "What it cannot do", hint="Hint 5: refuse in the pattern's check")
def test_fallback(solution):
    """Products that the machine cannot do stay with TVM"""
    rows = tvm.tirx.Var("rows", "int64")
    cases = {
        "10 columns, which is no multiple of 8": ((8, 16), (16, 10), "float32"),
        "a common extent of 12, which is no multiple of 8": ((8, 12), (12, 8), "float32"),
        "numbers of float64": ((8, 16), (16, 8), "float64"),
        "a batch of matrices": ((3, 8, 16), (3, 16, 8), "float32"),
        "a vector on the left": ((16,), (16, 8), "float32"),
        "a number of rows that is known only when it runs": ((rows, 16), (16, 8), "float32"),
    }
    for what, (left, right, dtype) in cases.items():
        vm = build(solution, one_product(left, right, dtype), f"a product with {what}")
        given = [tuple(16 if extent is rows else extent for extent in shape) for shape in (left, right)]
        x, w = (matrix(*shape, dtype=dtype) for shape in given)
        got = call(vm, f"a product with {what}", x, w)
        require(close(got, x @ w), f"A product with {what} is wrong. The pattern's check should leave it to TVM.")
        require(
            not MACHINE.executed,
            f"A product with {what} ran on the machine, which multiplies float32 in tiles of 8 x 8 known at "
            "compile time. The pattern's check should leave it to TVM.",
        )


@PROJECT.check(4, "What it cannot do", hint="Hint 5: refuse in the pattern's check")
def test_mixed(solution):
    """In one model, supported and unsupported products stand side by side"""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter((24, 16), "float32"), nn.Parameter((16, 10), "float32")

        def forward(self, x):
            return nn.matmul(nn.relu(nn.matmul(x, self.w)), self.v)

    mod, _ = Two().export_tvm(spec={"forward": {"x": nn.spec.Tensor((16, 24), "float32")}})
    mod["main"] = mod["forward"].with_attr("global_symbol", "main")
    del mod["forward"]
    x, w, v = matrix(16, 24), matrix(24, 16), matrix(16, 10)
    got = call(build(solution, mod, "a model of two products"), "a model of two products", x, w, v)
    require(close(got, np.maximum(x @ w, 0) @ v), "The result of relu(x @ w) @ v differs from numpy's.")
    used(tiles(16, 24, 16), "relu(x @ w), the half of the model that fits,")


@PROJECT.check(5, "Real models", hint="Hint 6: what arrives at the code generator")
def test_constants(solution):
    """Weights that are constants of the model are found"""
    w = matrix(24, 32)
    mod = relax.transform.BindParams("main", {"w": tvm.runtime.tensor(w)})(Plain)
    try:
        vm = build(solution, mod, "a model whose weights are constants")
    except Exception as error:
        require(
            False,
            f"`offload` fails when the weights are constants ({short(error)}). With `bind_constants`, "
            "which is the default, a constant moves into the region and is no parameter of it.",
        )
    x = matrix(16, 24)
    got = call(vm, "a model whose weights are constants", x)
    require(close(got, x @ w), "A model whose weights are constants is wrong.")
    used(tiles(16, 24, 32), "A product with constant weights")


@PROJECT.check(5, "Real models", hint="Hint 6: what arrives at the code generator")
def test_same_matrix(solution):
    """A matrix may be both sides of a product"""
    x = relax.Var("x", relax.TensorType((16, 16), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.matmul(x, x)))
        builder.emit_func_output(y)
    what, value = "x @ x", matrix(16, 16)
    try:
        got = call(build(solution, builder.finalize(), what), what, value)
    except Exception as error:
        require(False, f"x @ x fails ({short(error)}). {ONE_PARAMETER}")
    require(close(got, value @ value), f"x @ x gives a wrong result. {ONE_PARAMETER}")


ONE_PARAMETER = "Its region has a single parameter, which is both sides of the product."


@PROJECT.check(5, "Real models", hint="Hint 6: what arrives at the code generator")
def test_two_models(solution):
    """Two compiled models do not disturb each other"""
    small, large = (one_product((m, 8), (8, 16), "float32") for m in (8, 24))
    x, w = matrix(8, 8), matrix(8, 16)
    with doing("compiling two models, one after the other"):
        first, _ = (tvm.compile(solution.offload(mod), "llvm") for mod in (small, large))
    try:
        right = close(call(relax.VirtualMachine(first, tvm.cpu()), "the first of two models", x, w), x @ w)
    except Exception as error:
        require(False, f"{SHARED_NAME} It failed with {short(error)}")
    require(right, SHARED_NAME)


SHARED_NAME = (
    "A model went wrong after a second one with other shapes was compiled. Regions of both get the same name from "
    "FuseOpsByPattern, so the second function replaced the first in the global registry."
)


# -------------------------------------------------------------------------------------------------------- loops


def product(m, k, n, dtype="float32"):
    """A product as a tensor expression, with the block `C`."""
    a, b = te.placeholder((m, k), dtype, name="A"), te.placeholder((k, n), dtype, name="B")
    r = te.reduce_axis((0, k), name="k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    return te.create_prim_func([a, b, c])


def run_loops(solution, m, k, n, dtype="float32"):
    """Run a product after `tensorize`; whether it is right on this machine and right on a broken one."""
    what = f"a product of {m} x {k} and {k} x {n} ({dtype})"
    with doing(f"scheduling {what} with `tensorize`"):
        sch = solution.tensorize(product(m, k, n, dtype))
    require(hasattr(sch, "mod"), f"`tensorize` must return a Schedule, and returns {type(sch).__name__}.")
    with doing(f"compiling {what} after `tensorize`"):
        library = tvm.compile(sch.mod, "llvm")
    a, b = matrix(m, k, dtype=dtype), matrix(k, n, dtype=dtype)
    found = []
    for broken in (True, False):
        out = tvm.runtime.tensor(np.zeros((m, n), dtype))
        MACHINE.reset()
        try:
            if broken:
                with MACHINE.defect():
                    library(tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
            else:
                library(tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
        except Exception as error:
            text = str(error).strip().splitlines()[-1]
            require(False, f"The kernel for {what} stopped: {text}")
        found.append(close(out.numpy(), a @ b))
    require(found[1], f"The kernel for {what} computes something else than numpy.")
    return found[0]


@PROJECT.check(6, "Loops", hint="Hint 7: a tensor intrinsic for each instruction")
def test_loops(solution):
    """A product written as loops runs on the machine"""
    for shape in ((16, 16, 16), (16, 24, 48), (8, 40, 24)):
        right_when_broken = run_loops(solution, *shape)
        used(tiles(*shape), f"A product with m, k, n = {shape}")
        require(not right_when_broken, "The kernel is right on a broken machine: its numbers come from elsewhere.")


@PROJECT.check(6, "Loops", hint="Hint 7: a tensor intrinsic for each instruction")
def test_loops_fallback(solution):
    """Loops that the machine cannot do come back without it"""
    for *shape, dtype in ((12, 16, 16, "float32"), (16, 16, 10, "float32"), (16, 16, 16, "float64")):
        run_loops(solution, *shape, dtype)
        require(not MACHINE.executed, f"m, k, n = {tuple(shape)} in {dtype} must not use the machine.")


@PROJECT.check(7, "Loops with reuse", hint="Hint 8: where the copies stand")
def test_loops_long(solution):
    """Rows that do not fit into a bank are not kept there"""
    for shape in ((16, 256, 16), (48, 136, 8)):
        run_loops(solution, *shape)
        used(tiles(*shape), f"A product with m, k, n = {shape}")


@PROJECT.check(7, "Loops with reuse", hint="Hint 8: where the copies stand")
def test_loops_reuse(solution):
    """The schedule takes at most half the cycles of the one without reuse"""
    for shape in ((64, 64, 64), (32, 64, 96)):
        run_loops(solution, *shape)
        explain_cycles(MACHINE, shape, f"The schedule for m, k, n = {shape}")
