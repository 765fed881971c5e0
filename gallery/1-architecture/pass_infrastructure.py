"""
Passes, their context, and who decides whether one runs
=======================================================

A pass maps a module to a module. What runs is decided by Sequential, by the
PassContext and by instruments, each in its own way.
"""

# %%
import inspect
import threading
from contextlib import suppress

import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx
from tvm.ir.instrument import pass_instrument
from tvm.ir.transform import Pass, PassContext, Sequential, module_pass

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.running_example import MLP

# %% cell: a-pass
fuse = relax.transform.FuseOps()
print(type(fuse).__name__, fuse.info.name, fuse.info.opt_level)
print("required:", list(fuse.info.required))
legal = relax.transform.LegalizeOps()(MLP)
print(len(MLP.functions), "->", len(legal.functions), "functions")
with expect_error(TypeError):
    fuse(MLP["main"])

# %% check
every = []
for name in tvm_ffi.registry.list_global_func_names():
    head, _, last = name.rpartition(".")
    if head in ("relax.transform", "tirx.transform", "s_tir.transform"):
        make = tvm_ffi.get_global_func(name)
        with suppress(TypeError):  # it wants arguments, or makes no pass
            every += [made] if isinstance(made := make(), Pass) else []
assert len(every) > 60
glue("made", len(every))
glue("level_zero", sum(made.info.opt_level == 0 for made in every))
glue("with_required", sum(len(made.info.required) > 0 for made in every))
assert not any(len(made.info.required) for made in every)

# %% cell: own-pass
log = []


def note(name, opt_level=0, required=()):
    """A module pass that changes nothing and says that it ran."""

    @module_pass(opt_level=opt_level, name=name, required=list(required))
    def run(mod, ctx):
        log.append(name)
        return mod

    return run


def runs(transform, **context):
    """Names of the passes that ran, in order."""
    log.clear()
    with PassContext(**context):
        transform(MLP)
    return " ".join(log) or "nothing"


A, B, C = note("A", 0), note("B", 2), note("C", 3)
print(A.info, A(MLP).same_as(MLP))


@module_pass(opt_level=0)
def forgets(mod, ctx):
    mod.clone()  # and no return


with expect_error(tvm.error.InternalError, match="must be set"):
    forgets(MLP)

# %% check
with expect_error(ValueError, match="Please provide opt_level", show=False):
    module_pass(name="x")(lambda mod, ctx: mod)


@tirx.transform.prim_func_pass(opt_level=0)
def drop(func, mod, ctx):
    """A PrimFunc pass that returns None removes the function."""


assert not drop(tvm.IRModule({"f": legal["relu"]})).functions

# %% cell: levels
abc = Sequential([A, B, C])
print("default:            ", runs(abc))
print("opt_level=0:        ", runs(abc, opt_level=0))
print("opt_level=3:        ", runs(abc, opt_level=3))
print("0, but C required:  ", runs(abc, opt_level=0, required_pass=["C"]))
print("A disabled:         ", runs(abc, disabled_pass=["A"]))
both = {"disabled_pass": ["A"], "required_pass": ["A"]}
print("A required and disabled:", runs(abc, **both))

# %% check
assert runs(abc) == "A B" and runs(abc, opt_level=3) == "A B C"
assert runs(abc, **both) == "B"
glue("default_level", PassContext().opt_level)
assert PassContext.current().opt_level == PassContext().opt_level

# %% cell: direct-call
print("C, called directly:    ", runs(C, opt_level=0))
print("C, disabled as well:   ", runs(C, disabled_pass=["C"]))

steps = [
    relax.transform.LegalizeOps(),
    relax.transform.AnnotateTIROpPattern(),
    relax.transform.FuseOps(),
    relax.transform.FuseTIR(),
]


@module_pass(opt_level=0)
def by_hand(mod, ctx):
    for step in steps:
        mod = step(mod)
    return mod


for pipeline in (Sequential(steps), by_hand):
    with PassContext(disabled_pass=["FuseOps"]):
        names = [var.name_hint for var, _ in pipeline(MLP).functions_items()]
    print(f"{pipeline.info.name:11}", *names)

# %% check
assert runs(C, opt_level=0, disabled_pass=["C"]) == "C"

# %% cell: names
print(tirx.transform.UnrollLoop().info.name)
print(s_tir.transform.LowerOpaqueBlock().info.name)
inner = Sequential([A])
nested = Sequential([inner, B])
print(inner.info.name, "|", runs(nested))
print("disabled by it:", runs(nested, disabled_pass=["sequential"]))
print("unknown name:  ", runs(abc, disabled_pass=["a"]))

# %% cell: required
D = note("D", required=["A"])
with expect_error(tvm.error.InternalError):
    runs(Sequential([D]))
tvm.register_global_func("transform.A", lambda: A)
print("D in a Sequential:", runs(Sequential([D])))
print("D after A:        ", runs(Sequential([A, D])))
print("A disabled:       ", runs(Sequential([D]), disabled_pass=["A"]))
print("D by itself:      ", runs(D))
full = note("E", required=["relax.transform.FoldConstant"])
print("full name:        ", runs(Sequential([full])))
with expect_error(TypeError):
    runs(Sequential([note("F", required=["relax.transform.FuseOps"])]))

# %% check
assert runs(Sequential([A, D])) == "A A D" and runs(D) == "D"
tvm_ffi.remove_global_func("transform.A")

# %% cell: nesting
with PassContext(opt_level=3, config={"relax.FuseOps.max_depth": 2}):
    with PassContext(config={"tirx.disable_vectorize": True}) as inner:
        print("inner:", inner.opt_level, inner.config)
    outer = PassContext.current()
    print("outer:", outer.opt_level, outer.config)
    seen = []
    other = threading.Thread(
        target=lambda: seen.append(PassContext.current().opt_level)
    )
    other.start()
    other.join()
    print("another thread:", seen[0])

# %% check
assert inner.opt_level == 2 and "relax.FuseOps.max_depth" not in inner.config

# %% cell: options
options = PassContext.list_configs()
print(len(options), options["relax.FuseOps.max_depth"])
unknown = expect_error(AttributeError, match="candidates are", show=False)
with unknown:
    PassContext(config={"relax.FuseOps.maxdepth": 2})
print(str(unknown.exception).partition(" candidates")[0], "...")
with expect_error(AttributeError, match="to have type"):
    PassContext(config={"relax.FuseOps.max_depth": "two"})
converted = PassContext(config={"tirx.disable_vectorize": 2}).config
print(converted["tirx.disable_vectorize"])
print("tir.disable_vectorize" in options)

# %% check
glue("options", len(options))
assert converted["tirx.disable_vectorize"] is True
source = inspect.getsource(tirx.compilation_pipeline.tirx_pipeline)
assert 'config.get("tir.disable_vectorize", False)' in source

# %% cell: instrument
events = []


@pass_instrument
class Journal:
    """Writes down what it is told, and skips one pass."""

    def enter_pass_ctx(self):
        events.append("enter")

    def exit_pass_ctx(self):
        events.append("exit")

    def should_run(self, mod, info):
        return info.name != "B"

    def run_before_pass(self, mod, info):
        events.append(f"before {info.name}")

    def run_after_pass(self, mod, info):
        events.append(f"after {info.name}")


with PassContext(instruments=[Journal()]):
    Sequential([A, B], name="ab")(MLP)
print(*events, sep="\n")

# %% cell: instrument-limits
events.clear()
with PassContext(instruments=[Journal()], required_pass=["B"]):
    Sequential([A, B], name="ab")(MLP)
print("required, so not asked:", "before B" in events)


@module_pass(opt_level=0, name="Fails")
def fails(mod, ctx):
    raise ValueError("on purpose")


events.clear()
with (
    expect_error(ValueError, match="on purpose"),
    PassContext(instruments=[Journal()]),
):
    Sequential([fails], name="one")(MLP)
print(events)

# %% check
assert events == ["enter", "before one", "before Fails", "exit"]


def broken_instruments():
    """In a process of its own, because TVM also writes log lines."""
    import tvm
    from tvm.ir.instrument import PassTimingInstrument, pass_instrument
    from tvm.ir.transform import PassContext
    from tvm.relax.transform import LegalizeOps

    @pass_instrument
    class Broken:
        def enter_pass_ctx(self):
            raise ValueError("enter")

    timing = PassTimingInstrument()
    context = PassContext(instruments=[timing, Broken()])
    try:
        context.__enter__()
    except ValueError:
        assert len(context.instruments) == 0
    with PassContext(instruments=[timing]):
        LegalizeOps()(tvm.IRModule({}))
        assert timing.render().startswith("LegalizeOps: ")
    assert timing.render() == ""


ended = run_isolated(broken_instruments)
assert ended.ok and "Disabling pass instrumentation" in ended.stderr

# %% cell: place
x = relax.Var("x", relax.TensorType((4,), "int32"))
y = relax.Var("y")  # no type yet
binding = relax.VarBinding(y, relax.op.nn.softmax(x))
body = relax.SeqExpr([relax.BindingBlock([binding])], y)
raw = relax.Function([x], body, ret_ty=relax.AnyType())
with expect_error(TypeError, match="Error in pass: Normalize"), quiet():
    relax.transform.Normalize()(tvm.IRModule({"main": raw}))

# %% check
try:
    relax.BlockBuilder().normalize(relax.op.nn.softmax(x))
except TypeError as err:
    assert "float dtype" in str(err) and "Error in pass" not in str(err)
else:
    raise AssertionError

# %% cell: immutable


@module_pass(opt_level=0, name="Rude")
def rude(mod, ctx):
    mod["extra"] = mod["main"]
    return mod


@module_pass(opt_level=0, name="Polite")
def polite(mod, ctx):
    mod = mod.clone()
    mod["extra"] = mod["main"]
    return mod


for transform in (polite, rude):
    mine = tvm.IRModule({"main": MLP["main"]})
    transform(mine)
    print(transform.info.name, "left extra in my module:", "extra" in mine)
with PassContext(config={"testing.immutable_module": True}):
    polite(tvm.IRModule({"main": MLP["main"]}))
    with expect_error(tvm.error.InternalError, match="has been modified"):
        rude(tvm.IRModule({"main": MLP["main"]}))

# %% check
assert "extra" not in MLP

# %% cell: solution-predict
passes = [note("low", 0), note("mid", 1), note("high", 3)]
inner_seq = Sequential(passes, opt_level=2, name="inner")
outer_seq = Sequential([note("first", 0), inner_seq])
for level in (1, 2):
    print(level, runs(outer_seq, opt_level=level))

# %% check
assert runs(outer_seq, opt_level=1) == "first"
assert runs(outer_seq, opt_level=2) == "first low mid"

# %% cell: solution-changes


@pass_instrument
class Changes:
    """Which passes return a module that differs from their argument."""

    def __init__(self):
        self.stack, self.names = [], []

    def run_before_pass(self, mod, info):
        self.stack.append(tvm_ffi.structural_hash(mod))

    def run_after_pass(self, mod, info):
        if self.stack.pop() != tvm_ffi.structural_hash(mod):
            self.names.append(info.name)


changes = Changes()
with PassContext(instruments=[changes]):
    relax.get_pipeline("zero")(MLP)
print(*changes.names)

# %% check
assert {"LegalizeOps", "FuseOps", "FuseTIR"} <= set(changes.names)
