"""
Practice: a pass with an invariant
==================================

A reference solution: values that only one branch needs are computed in that
branch, and a verifier says what is left.
"""

# %% cell: imports
import tvm
from tvm import relax
from tvm.relax import BindingBlock, If, SeqExpr, VarBinding
from tvm.relax.analysis import (
    check_well_formed,
    contains_impure_call,
    free_vars,
)


# %% cell: uses
def places(value):
    """Where a value looks for variables: each branch apart, then the rest."""
    if isinstance(value, If):
        parts = (value.true_branch, value.false_branch, value.cond)
        return tuple(set(free_vars(part)) for part in parts)
    return set(), set(), set(free_vars(value))


def flat(seq):
    """All bindings of a sequence, and its result."""
    return [b for block in seq.blocks for b in block.bindings], seq.body


# %% cell: rule
def may_move(binding):
    """Whether a binding is a pure computation that defines nothing else."""
    kinds = (tvm.ir.Call, tvm.ir.Tuple, tvm.ir.TupleGetItem)
    return (
        isinstance(binding, VarBinding)
        and isinstance(binding.value, kinds)
        and not contains_impure_call(binding.value)
    )


def destination(bindings, number, result):
    """Where a binding belongs: the If's number and a branch, 0 or 1.

    None: it stays where it is.
    """
    var = bindings[number].var
    if not may_move(bindings[number]) or var in free_vars(result):
        return None
    for later in range(number + 1, len(bindings)):
        value = bindings[later].value
        used = [var in part for part in places(value)]
        if any(used):
            break
        if contains_impure_call(value):
            return None
    else:
        return None  # nobody needs it
    if used not in ([True, False, False], [False, True, False]):
        return None
    for other in bindings[later + 1 :]:
        if any(var in part for part in places(other.value)):
            return None
    return later, used.index(True)


# %% cell: sink
def rebuilt(bindings, result):
    """A sequence in normal form, made of plain bindings."""
    bindings, moved = list(bindings), {}
    for number in reversed(range(len(bindings))):
        found = destination(bindings, number, result)
        if found is None:
            continue
        later, branch = found
        target = bindings[later]
        parts = [target.value.true_branch, target.value.false_branch]
        inner, inner_result = flat(parts[branch])
        inner = [bindings[number], *inner]
        parts[branch] = SeqExpr([BindingBlock(inner)], inner_result)
        moved_if = If(target.value.cond, *parts)
        bindings[later] = VarBinding(target.var, moved_if)
        del bindings[number]
    done = []
    for binding in bindings:
        value = binding.value
        if isinstance(value, If):
            parts = [value.true_branch, value.false_branch]
            value = If(value.cond, *(rebuilt(*flat(p)) for p in parts))
        elif isinstance(value, relax.Function):
            value = with_body(value, rebuilt(*flat(value.body)))
        if value is not binding.value:
            binding = VarBinding(binding.var, value)
        done.append(binding)
    return SeqExpr([BindingBlock(done)] if done else [], result)


def with_body(func, body):
    """A function with another body."""
    return relax.Function(
        func.params, body, func.ret_ty, func.is_pure, func.attrs
    )


def sink(mod):
    """Move each value that one branch alone needs into that branch."""
    todo = [
        var
        for var, func in mod.functions_items()
        if isinstance(func, relax.Function) and complaints(func)
    ]
    if not todo:
        return mod
    plain = relax.transform.ToNonDataflow()(mod)
    moved = tvm.IRModule(
        {
            var: with_body(plain[var], rebuilt(*flat(plain[var].body)))
            for var in todo
        }
    )
    moved = relax.transform.Normalize()(moved)
    moved = relax.transform.ConvertToDataflow(min_size=1)(moved)
    mod = mod.clone()
    for var in todo:
        mod.update_func(var, moved[var.name_hint])
    return mod


# %% cell: verify
def complaints(func):
    """Each binding of a function that is not where it belongs."""
    found = []

    def visit(seq):
        bindings, result = flat(seq)
        for number, binding in enumerate(bindings):
            place = destination(bindings, number, result)
            if place is not None:
                later, branch = place
                found.append(
                    f"{binding.var.name} is needed only in the "
                    f"{('true', 'false')[branch]} branch of "
                    f"{bindings[later].var.name}"
                )
            if isinstance(binding.value, If):
                visit(binding.value.true_branch)
                visit(binding.value.false_branch)
            elif isinstance(binding.value, relax.Function):
                visit(binding.value.body)

    visit(func.body)
    return found


def verify(mod):
    """What is wrong with a module; an empty list if it is in normal form."""
    if not check_well_formed(mod):
        return ["the module is not well formed"]
    return [
        f"{var.name_hint}: {text}"
        for var, func in mod.functions_items()
        if isinstance(func, relax.Function)
        for text in complaints(func)
    ]


# The solution ends here: below, it is shown and measured.

# %% cell: program
import itertools
import warnings

import numpy as np
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_deepdive_helpers import figures, glue
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.relax_interpreter import random_program, run


@I.ir_module
class Program:
    @R.function
    def main(x: R.Tensor((3, 4), "float32"), c: R.Tensor((), "bool")):
        with R.dataflow():
            a = R.exp(x)
            b = R.tanh(a)
            d = R.add(a, b)
            e = R.abs(x)
            R.output(d, e)
        if c:
            r = R.add(e, x)
        else:
            r = R.multiply(d, x)
        return r


x = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
yes, no = np.array(True), np.array(False)


def computed(mod, flag):
    """Operators that a call computes."""
    counts = run(mod, x, flag)[1].operators
    return sorted(name.removeprefix("relax.") for name in counts.elements())


for flag in (yes, no):
    print(f"c = {flag!s:5}", *computed(Program, flag))

# %% cell: rule-figure
figures.boxes_and_arrows(
    {
        "a": (0, 0),
        "if1": (2, 0),
        "t1": (3, -0.5),
        "f1": (3, 0.5),
        "b": (0, 1.8),
        "p": (1, 1.8),
        "if2": (2, 1.8),
        "t2": (3, 1.3),
        "f2": (3, 2.3),
    },
    {
        ("a", "if1"): "",
        ("if1", "t1"): "c",
        ("if1", "f1"): "not c",
        ("b", "p"): "",
        ("p", "if2"): "",
        ("if2", "t2"): "c",
        ("if2", "f2"): "not c",
    },
    labels={
        "a": "a = exp(x)",
        "if1": "If c",
        "t1": "tanh(a)\na moves here",
        "f1": "negative(x)",
        "b": "b = exp(x)",
        "p": "call_packed(x)",
        "if2": "If c",
        "t2": "tanh(b)",
        "f2": "negative(x)",
    },
    colors={"a": "vermilion", "t1": "vermilion", "p": "green"},
    title="Above, the binding is out of place; below, it has to stay",
)

# %% cell: after
after = sink(Program)
show(after["main"])
for flag in (yes, no):
    print(f"c = {flag!s:5}", *computed(after, flag))

# %% check
for flag in (yes, no):
    got, want = run(after, x, flag)[0], run(Program, x, flag)[0]
    np.testing.assert_array_equal(got, want)
assert computed(after, yes) == ["abs", "add"]

# %% cell: said
print(*verify(Program), sep="\n")
print(verify(after))

# %% cell: others
tried, done = [], []
warnings.simplefilter("ignore")  # some names are old ones
for name in dir(relax.transform):
    if not name[0].isupper():
        continue
    try:
        with tvm.target.Target("llvm"):
            result = getattr(relax.transform, name)()(Program)
        found = verify(result)
    except Exception:
        continue  # needs arguments, or another kind of module
    tried.append(name)
    if not found:
        done.append(name)
print(len(tried), "passes ran; normal form after:", done)
glue("tried", len(tried))

# %% check
assert not done and {"DeadCodeElimination", "LambdaLift"} <= set(tried)


# %% cell: effect
@I.ir_module
class Between:
    @R.function(pure=False)
    def main(x: R.Tensor((3, 4), "float32"), c: R.Tensor((), "bool")):
        a = R.exp(x)
        _ = R.call_packed("double", x, ty_args=(R.Tuple,))
        if c:
            r = R.tanh(a)
        else:
            r = R.negative(x)
        return r


@I.ir_module
class Moved:
    @R.function(pure=False)
    def main(x: R.Tensor((3, 4), "float32"), c: R.Tensor((), "bool")):
        _ = R.call_packed("double", x, ty_args=(R.Tuple,))
        if c:
            a = R.exp(x)
            r = R.tanh(a)
        else:
            r = R.negative(x)
        return r


@tvm.register_global_func("double", override=True)
def double(tensor):
    tensor.copyfrom(2 * tensor.numpy())


results = []
for mod in (Between, Moved):
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    args = tvm.runtime.tensor(x), tvm.runtime.tensor(yes)
    results.append(vm["main"](*args).numpy())
    print(f"r[0, 0] = {results[-1][0, 0]:.3f}")
print(verify(Between))

# %% check
np.testing.assert_allclose(results[0], np.tanh(np.exp(x)), rtol=1e-5)
np.testing.assert_allclose(results[1], np.tanh(np.exp(2 * x)), rtol=1e-5)

# %% cell: fusion
fuse = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
)


def kernels(mod):
    names = (v.name_hint for v, f in mod.functions_items())
    return sorted(name for name in names if name != "main")


with tvm.target.Target("llvm"):
    print("sink, then fuse:", *kernels(fuse(sink(Program))))
    fused_first = sink(fuse(Program))
print("fuse, then sink:", *kernels(fused_first))
show(fused_first["main"], keep="if|else|call_tir", context=0)

# %% check
assert not verify(fused_first) and len(kernels(fused_first)) == 4

# %% cell: planner
lower = tvm.transform.Sequential(
    [
        relax.transform.LegalizeOps(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
    ]
)
with tvm.target.Target("llvm"):
    lowered = lower(after)
planned = relax.transform.StaticPlanBlockMemory()(lowered)
print("before the planner:", check_well_formed(lowered))
print("after the planner: ", check_well_formed(planned))
show(planned["main"], keep="if |else|alloc_|storage: ", context=0)

# %% cell: planner-off
skip = {"disabled_pass": ["StaticPlanBlockMemory"]}
with tvm.transform.PassContext(opt_level=3, **skip):
    vm = relax.VirtualMachine(tvm.compile(after, "llvm"), tvm.cpu())
for flag in (yes, no):
    args = tvm.runtime.tensor(x), tvm.runtime.tensor(flag)
    want = run(Program, x, flag)[0]
    print(np.allclose(vm["main"](*args).numpy(), want, atol=1e-5))

# %% cell: random
inputs = np.random.default_rng(1).standard_normal((2, 3, 4))
inputs = inputs.astype("float32")
flags = list(itertools.product((no, yes), repeat=2))
before = after_all = changed = 0
for seed in range(100):
    mod = random_program(seed)
    moved = sink(mod)
    if not verify(mod):
        continue
    changed += 1
    assert not verify(moved)
    for pair in flags:
        want, old = run(mod, *inputs, *pair)
        got, new = run(moved, *inputs, *pair)
        assert np.array_equal(got, want)
        assert [e[0] for e in old.effects] == [e[0] for e in new.effects]
        before += old.operators.total()
        after_all += new.operators.total()
print(changed, "of 100 programs had something to move")
print(f"operators that these compute: {before}, then {after_all}")
glue("changed", changed)

# %% check
assert after_all < before


# %% cell: solution-order
def movable_now(bindings, result):
    """Bindings whose destination is known before anything has moved."""
    return [
        bindings[n].var.name
        for n in range(len(bindings))
        if destination(bindings, n, result) is not None
    ]


plain = relax.transform.ToNonDataflow()(Program)
print("at first:", *movable_now(*flat(plain["main"].body)))
