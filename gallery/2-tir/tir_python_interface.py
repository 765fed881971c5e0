"""
From a decorated function to a C++ object and back to text
==========================================================

The parser, the builder, the FFI and the printer of TVMScript, followed on one
function, with what each of them refuses and what it costs.
"""

# %%
import builtins
import cProfile
import importlib
import linecache
import pstats
import sys
import tempfile
import time
from pathlib import Path
from textwrap import fill

import tvm
import tvm.script
import tvm_ffi
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as builder
from tvm.script.parser.core import dispatch
from tvm.script.parser.core.diagnostics import Source
from tvm_ffi.access_path import AccessPath

from tvm_deepdive_helpers import expect_error, figures, glue
from tvm_deepdive_helpers.ir import show

# %% cell: function


@T.prim_func
def increment(A: T.Buffer((8,), "float32")):
    for i in range(8):
        A[i] = A[i] + T.float32(1)


# %% cell: chain
WATCHED = """
tirx.script.parser.entry.BufferProxy.__call__
tirx.script.parser.entry.prim_func
script.parser.core.utils.is_defined_in_class
script.parser.core.utils.inspect_function_capture
script.parser.core.entry.parse
script.parser.core.diagnostics.getsourcelines
script.ir_builder.base.IRBuilder.__enter__
script.parser.core.parser.Parser.parse
script.parser.core.diagnostics.Source.as_ast
script.parser.core.parser.Parser.visit_FunctionDef
tirx.script.parser.parser.visit_function_def
tirx.script.builder.ir.prim_func
script.ir_builder.base.IRBuilderFrame.__enter__
tirx.script.builder.ir.arg
script.parser.core.parser.Parser.visit_body
tirx.script.parser.parser.visit_for
tirx.script.builder.ir.serial
tirx.script.builder.frame.ForFrame.__enter__
tirx.script.parser.parser.bind_for_value
tirx.script.parser.parser.visit_assign
script.parser.core.evaluator.eval_expr
tirx.script.builder.ir.buffer_store
script.ir_builder.base.IRBuilderFrame.__exit__
script.ir_builder.base.IRBuilder.get
s_tir.analysis.verify_well_formed
tirx.analysis.analysis.verify_tirx_well_formed
""".split()  # noqa: SIM905
trace, callers, seen = [], [""], set()


def watch(frame, event, arg):
    """Note every pair of watched caller and callee once, with its depth."""
    module = frame.f_globals.get("__name__", "")
    name = f"{module}.{frame.f_code.co_qualname}".removeprefix("tvm.")
    if name in WATCHED:
        if event == "call":
            if (callers[-1], name) not in seen:
                trace.append((len(callers) - 1, name))
            seen.add((callers[-1], name))
            callers.append(name)
        elif event == "return":
            callers.pop()


sys.setprofile(watch)


@T.prim_func
def again(A: T.Buffer((8,), "float32")):
    for i in range(8):
        A[i] = A[i] + T.float32(1)


sys.setprofile(None)
for level, name in trace:
    print("  " * level + name)

# %% check
assert {name for _, name in trace} == set(WATCHED)

# %% cell: figure
fig, ax = figures.layered_graph(
    {
        "text": "source text",
        "ast": "doc AST\n(Python objects)",
        "frames": "stack of frames\n(C++ objects)",
        "func": "PrimFunc\n(C++ object)",
        "handle": "Python handles\nf.body, f.params",
        "doc": "Doc tree\n(C++ objects)",
        "out": "printed text",
    },
    {
        ("text", "ast"): "Source.as_ast",
        ("ast", "frames"): "handlers of tirx",
        ("frames", "func"): "frames exit, IRBuilder.get",
        ("func", "handle"): "reflection",
        ("func", "doc"): "IRDocsifier",
        ("doc", "out"): "PythonDocPrinter",
    },
    colors={
        "text": "green",
        "out": "green",
        "ast": "vermilion",
        "handle": "vermilion",
    },
)

# %% cell: source


def plain(A: T.Buffer((8,), "float32")):
    for i in range(8):
        A[i] = A[i] + T.float32(1)


source = Source(plain)
print(Path(source.source_name).name, "from line", source.start_line)
definition = source.as_ast().body[0]
loop = definition.body[0]
print(type(definition).__module__, type(definition).__name__)
print("its body:", type(loop).__name__, "over", type(loop.iter).__name__)
handlers = sorted(
    kind for token, kind in dispatch.ParseVTable if token == "tirx"
)
print(len(handlers), "handlers of tirx:")
print(fill(" ".join(handlers), 76))
glue("handlers", len(handlers))

# %% cell: annotations


def noisy():
    print("the annotation is evaluated")
    return T.Buffer((4,), "float32")


@T.prim_func
def annotated(A: noisy()):
    A[0] = T.float32(1)


# %% cell: evaluation
fast, width = True, 4


@T.prim_func
def evaluated(A: T.Buffer((2 * width,), "float32")):
    print("this runs while parsing; width is", width)
    if fast:
        A[0] = T.float32(2**3)
    else:
        A[0] = T.float32(0)
    parts = T.meta_var([A[k] for k in range(1, 4)])
    A[4] = parts[0] + parts[1] + parts[2]
    if A[5] > 0:
        A[6] = T.float32(width)


show(evaluated)

# %% cell: inline


@T.inline
def square(buffer, index):
    buffer[index] = buffer[index] * buffer[index]


@T.prim_func
def squares(A: T.Buffer((8,), "float32")):
    for i in range(8):
        square(A, i)


show(squares)

# %% cell: builder
with IRBuilder() as ib:
    with builder.prim_func():
        builder.func_name("increment")
        A = builder.arg("A", builder.buffer((8,), "float32"))
        with builder.serial(0, 8) as i:
            value = A[i] + builder.float32(1)
            builder.buffer_store(A, value, [i])
built = ib.get()
print("equal:", tvm_ffi.structural_equal(built, increment))
show(built)
with expect_error(ValueError, match="No builder"):
    builder.serial(0, 8).__enter__()

# %% cell: handles
body = increment.body
print("the same Python object:", increment.body is increment.body)
print("the same C++ object:   ", increment.body.same_as(body))
make = tvm.get_global_func("tirx.Evaluate")
print(type(make).__name__, "makes", make(tirx.IntImm("int32", 3), None))
with expect_error(TypeError, match="Mismatched type"):
    make(tirx.IntImm("int32", 3), "no span")

# %% cell: registry
names = list(map(str, tvm_ffi.registry.list_global_func_names()))
for prefix in (
    "tirx.",
    "tirx.transform.",
    "s_tir.schedule.",
    "script.ir_builder.",
    "script.printer.",
):
    print(f"{prefix:20s}{sum(n.startswith(prefix) for n in names):5d}")

# %% cell: spans
store = increment.body.body
top = increment.body.span.line
for part in (increment.body, store, store.value):
    span = part.span
    print(
        f"{type(part).__name__:12s} {Path(span.source_name.name).name}:"
        f" lines +{span.line - top} to +{span.end_line - top},"
        f" columns {span.column} to {span.end_column}"
    )

# %% cell: undefined
with expect_error(tvm.error.DiagnosticError, match="Undefined variable"):

    @T.prim_func
    def undefined(A: T.Buffer((8,), "float32")):
        for i in range(8):
            A[i] = A[j] + T.float32(1)


# %% cell: bad-loop
with expect_error(tvm.error.DiagnosticError, match="Expect the for loop"):

    @T.prim_func
    def over_list(A: T.Buffer((8,), "float32")):
        for i in [1, 2, 4]:
            A[i] = T.float32(1)


# %% cell: ill-formed
A8 = tirx.decl_buffer((8,), "float32", name="A")
k = tirx.Var("k", "int32")
loose = tirx.PrimFunc([A8], tirx.BufferStore(A8, A8[k], [0]))
with expect_error(tvm.error.InternalError, match="undefined variable"):
    tirx.analysis.verify_well_formed(loose)
path = AccessPath.root().attr("body").attr("value")
print(loose.script(path_to_underline=[path]).rstrip())

# %% cell: printer
show(increment.script(print_line_numbers=True), lines=(4, 7))


@T.prim_func
def clear(a: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n,), "float32")
    for i in range(n):
        A[i] = T.float32(0)


for pep695 in (False, True):
    text = clear.script(extra_config={"script.use_pep695": pep695})
    lines = [ln for ln in text.splitlines() if "def" in ln or "Var" in ln]
    print("\n".join(lines[-2:] if not pep695 else lines[-1:]))

# %% cell: no-sugar


@T.prim_func(s_tir=True)
def copy(A: T.Buffer((4, 4), "float32"), B: T.Buffer((4, 4), "float32")):
    for i, j in T.grid(4, 4):
        with T.sblock("B"):
            vi, vj = T.axis.remap("SS", [i, j])
            B[vi, vj] = A[vi, vj]


show(copy.script(syntax_sugar=False))

# %% cell: round-trip
text = increment.script()
reread = tvm.script.from_source(text)
print("equal:", tvm_ffi.structural_equal(increment, reread))
print("same object:", increment.same_as(reread))
print("place of the loop:", reread.body.span.source_name.name)
sized = tvm.script.from_source(
    "@T.prim_func\ndef f(A: T.Buffer((n,), 'float32')):\n    A[0] = 1.0\n",
    extra_vars={"T": T, "n": 16},
)
show(sized)

# %% cell: metadata


@T.prim_func
def wordy(n: T.int32):
    assert n > 0, ("ValueError", ["n is\nnot positive"])
    T.evaluate(T.call_extern("int32", "tick"))


show(wordy)
with expect_error(tvm.error.DiagnosticError, match="metadata"):
    tvm.script.from_source(wordy.script())
complete = wordy.script(show_meta=True)
print(complete.splitlines()[0], "... and", complete.count("\n"), "more lines")
reread = tvm.script.from_source(complete)
print("equal:", tvm_ffi.structural_equal(wordy, reread))

# %% cell: json
saved = tvm.ir.save_json(increment)
print(saved[:60], "...")
loaded = tvm.ir.load_json(saved)
print("equal:", tvm_ffi.structural_equal(increment, loaded))

# %% cell: exec
TEXT = """
from tvm.script import tirx as T

@T.prim_func
def f(A: T.Buffer((8,), "float32")):
    A[0] = T.float32(1)
"""
with expect_error(OSError, match="source code"):
    builtins.exec(TEXT, {"__name__": "generated"})

# The cure: tell Python's line cache what the made-up file contains.
linecache.cache["<generated>"] = (
    len(TEXT),
    None,
    TEXT.splitlines(keepends=True),
    "<generated>",
)
space = {"__name__": "generated"}
builtins.exec(compile(TEXT, "<generated>", "exec"), space)
print("parsed:", space["f"].attrs["global_symbol"])
with expect_error(tvm.error.DiagnosticError, match="__future__"):
    tvm.script.from_source(TEXT)

# %% cell: two-classes


@I.ir_module
class Kernels:
    @T.prim_func
    def main(A: T.Buffer((8,), "float32")):
        A[0] = T.float32(1)


first = Kernels


@I.ir_module
class Kernels:
    @T.prim_func
    def main(A: T.Buffer((8,), "float32")):
        A[0] = T.float32(2)


for module in (first, Kernels):
    print(str(module["main"].body).splitlines()[-1])

# %% cell: cost, varies
KERNEL = """
@T.prim_func
def f{k}(A: T.Buffer((8,), "float32")):
    for i in range(8):
        A[i] = A[i] + T.float32(1)
"""
COUNT = 5


def imported(folder, name):
    """Seconds to import a module with decorated functions."""
    parts = [KERNEL.format(k=k) for k in range(COUNT)]
    header = "from tvm.script import tirx as T\n"
    Path(folder, f"{name}.py").write_text(header + "".join(parts))
    importlib.invalidate_caches()
    start = time.perf_counter()
    importlib.import_module(name)
    return time.perf_counter() - start


def parsed():
    """Seconds to parse the same functions from strings."""
    start = time.perf_counter()
    for k in range(COUNT):
        tvm.script.from_source(KERNEL.format(k=k))
    return time.perf_counter() - start


with tempfile.TemporaryDirectory() as folder:
    sys.path.insert(0, folder)
    by_import = min(imported(folder, f"deep_dive_k{n}") for n in range(5))
    by_string = min(parsed() for _ in range(5))
    profile = cProfile.Profile()
    profile.runcall(imported, folder, "deep_dive_profiled")
    sys.path.remove(folder)
stats = pstats.Stats(profile)
in_stack = sum(
    times[3] for key, times in stats.stats.items() if key[2] == "stack"
)
share = in_stack / stats.total_tt
print(f"{COUNT} functions, imported:       {by_import * 1e3:6.1f} ms")
print(f"{COUNT} functions, from strings:   {by_string * 1e3:6.1f} ms")
print(f"share of inspect.stack in the import: {share:.0%}")
glue("cost_ratio", by_import / by_string, varies=True)
glue("stack_share", 100 * share, varies=True)

# %% cell: solution-factory


def make_scale(size, dtype, factor):
    @T.prim_func
    def scale(X: T.Buffer((size,), dtype)):
        for i in range(size):
            X[i] = X[i] * T.Cast(dtype, factor)

    return scale


kernels = {
    (s, d): make_scale(s, d, 3) for s in (4, 8) for d in ("int32", "float16")
}
show(kernels[4, "int32"])
print(
    len({tvm_ffi.structural_hash(f) for f in kernels.values()}), "functions"
)

# %% cell: solution-alias
ALIASED = """
from tvm.script import ir as I, tirx as T
module = I.ir_module

@module
class Renamed:
    @T.prim_func
    def f(A: T.Buffer((8,), "float32")):
        A[0] = T.float32(1)
"""
with tempfile.TemporaryDirectory() as folder:
    sys.path.insert(0, folder)
    Path(folder, "deep_dive_aliased.py").write_text(ALIASED)
    importlib.invalidate_caches()
    with expect_error(tvm.error.DiagnosticError, match="Undefined"):
        importlib.import_module("deep_dive_aliased")
    sys.path.remove(folder)

# %% check
with expect_error(
    tvm.error.DiagnosticError, match="not impl.*Try", show=False
):

    @T.prim_func
    def tries(A: T.Buffer((8,), "float32")):
        try:
            A[0] = T.float32(1)
        except ValueError:
            A[1] = T.float32(1)


@T.prim_func
def cells(A: T.Buffer((8,), "float32")):
    parts = [A[k] for k in range(1, 4)]
    A[4] = parts[0]


assert "parts_2: T.float32 = A[3]" in cells.script()
assert tvm_ffi.structural_equal(built, increment)
assert tvm_ffi.structural_equal(loaded, increment)
assert by_import > by_string
assert share > 0.2
