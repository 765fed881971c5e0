"""
From a Python name to its C++
=============================

Functions, objects, operators and options cross the border between Python and
C++ by name. This script follows names in both directions.
"""

# %% cell: setup
import ast
import inspect
import traceback
from collections import Counter, defaultdict
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.transform import _ffi_api
from tvm_ffi.registry import list_global_func_names

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.recorded import data, read_csv

ROOT = Path(tvm.__file__).parent
NAMES = sorted(list_global_func_names())
FILES = {
    row["name"]: row["file"]
    for row in read_csv(data("tvm_global_functions_v0.26.0.csv"))
}

# %% cell: three-doors
by_attribute = _ffi_api.FuseOps
by_name = tvm_ffi.get_global_func("relax.transform.FuseOps")
print("in Python:  ", inspect.getmodule(relax.transform.FuseOps).__name__)
print("its FFI:    ", _ffi_api.__name__, type(by_attribute))
print("same object:", by_attribute.same_as(by_name))
print("makes a:    ", type(by_name(-1)).__name__, by_name(-1).info.name)
print("C++ file:   ", FILES["relax.transform.FuseOps"])

# %% check
assert relax.transform.FuseOps().info.name == "FuseOps"
assert FILES["relax.transform.FuseOps"] == "src/relax/transform/fuse_ops.cc"
glue("functions", len(NAMES))
glue("located", sum(name in FILES for name in NAMES))
glue("located_share", 100 * sum(name in FILES for name in NAMES) / len(NAMES))

# %% cell: schema
with expect_error(TypeError):
    by_name("2")
with expect_error(TypeError):
    by_name()
typed = [n for n in NAMES if tvm_ffi.get_global_func_metadata(n)]
print(len(typed), "of", len(NAMES), "functions carry their signature")

# %% check
glue("typed", len(typed))
assert len(typed) > 0.9 * len(NAMES)

# %% cell: prefixes


def prefix(name):
    return name.rpartition(".")[0]


def python_modules(root):
    """Prefix -> the module whose attributes init_ffi_api fills."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "init_ffi_api(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and "init_ffi_api" in ast.unparse(
                node.func
            ):
                place = ".".join(path.relative_to(root).with_suffix("").parts)
                found[ast.literal_eval(node.args[0])] = place
    return found


modules = python_modules(ROOT)
places = defaultdict(Counter)
for name, file in FILES.items():
    places[prefix(name)][file.rpartition("/")[0]] += 1
table = Counter(prefix(name) for name in NAMES)
print(f"{'prefix':24}{'n':>4}  {'tvm.…':33}most of them in")
for name, count in table.most_common(18):
    folder = places[name].most_common(1)
    where = folder[0][0] if folder else "-"
    print(f"{name:24}{count:4}  {modules.get(name, '-'):33}{where}")

# %% check
assert modules["relax.transform"] == "relax.transform._ffi_api"
glue("prefixes", len(table))
glue("api_modules", len(modules))
renamed = {"sym": "arith"}
sym = [name for name in NAMES if prefix(name) == "sym"]
assert sum(f"arith.{name[4:]}" in FILES for name in sym) > 0.9 * len(sym)

# %% cell: copied-once
tvm_ffi.register_global_func("relax.transform.BookProbe", lambda: "here")
print(tvm_ffi.get_global_func("relax.transform.BookProbe")())
print("in _ffi_api:", hasattr(_ffi_api, "BookProbe"))
with expect_error(AttributeError):
    _ffi_api.FuseOpz  # a typing error
with expect_error(ValueError):
    tvm_ffi.get_global_func("relax.transform.FuseOpz")
with expect_error(RuntimeError):
    tvm_ffi.register_global_func("relax.transform.BookProbe", print)

# %% check
tvm_ffi.remove_global_func("relax.transform.BookProbe")

# %% cell: from-python


def registered_in_python(root):
    """Names that Python files of TVM register, with the file."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "register_global_func(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Call(
                    func=ast.Name("register_global_func")
                    | ast.Attribute(attr="register_global_func"),
                    args=[ast.Constant(str(name)), *_],
                ):
                    found[name] = path.relative_to(root).as_posix()
    return found


python_functions = registered_in_python(ROOT)
alive = sorted(set(python_functions) & set(NAMES))
print(len(alive), "of the registered functions are written in Python:")
for name in ("tirx.build", "s_tir.meta_schedule.builder.default_build"):
    print(f"  {name:46}{python_functions[name]}")

# %% check
glue("from_python", len(alive))
assert not set(alive) & set(FILES) - {"vm.builtin.debug_print"}

# %% cell: frames


def cpp_frames(error):
    """C++ functions on the way of an error, innermost last."""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith((".cc", ".h")):
            where = frame.filename.partition("/src/")[2]
            print(f"  src/{where}:{frame.lineno}  {frame.name}")


x = relax.Var("x", relax.TensorType((4, 8), "float32"))
for wrong in (
    lambda: tvm.ir.Op.get("relax.matmull"),
    lambda: relax.BlockBuilder().normalize(relax.op.matmul(x, x)),
):
    try:
        wrong()
    except (AttributeError, ValueError) as error:
        print(type(error).__name__ + ":", str(error)[:66])
        cpp_frames(error)

# %% cell: kinds-of-names
op = tvm.ir.Op.get("relax.matmul")
type_key = relax.Function.__tvm_ffi_type_info__.type_key
kind = tvm.target.Target("llvm").kind
option = "relax.FuseOps.max_depth"
options = tvm.transform.PassContext.list_configs()
print("operator:     ", op.name)
print("type key:     ", type_key, "for", relax.Function.__name__)
print("pass option:  ", option, "of type", options[option]["type"])
print("target kind:  ", kind.name)
print("pass:         ", relax.transform.FuseOps().info.name)
print("code generator:", "target.build.llvm" in NAMES)

# %% check
glue("ops", len(tvm.ir.Op.list_op_names()))
glue("options", len(options))
assert type_key == "relax.expr.Function"
generators = [name for name in NAMES if name.startswith("target.build.")]
glue("generators", len(generators))

# %% cell: solution-create-prim-func
print(inspect.getmodule(tvm.te.create_prim_func).__name__)
print([n for n in NAMES if n.lower().endswith("createprimfunc")])
print(FILES["te.CreatePrimFunc"])

# %% check
assert FILES["te.CreatePrimFunc"] == "src/te/operation/create_primfunc.cc"

# %% cell: solution-who-answers
for name in ("te.CreatePrimFunc", "tirx.build", "sym.Analyzer"):
    if name in python_functions:
        answer = f"Python, tvm/{python_functions[name]}"
    else:
        old = name.replace("sym.", "arith.")
        answer = f"C++, {FILES.get(name) or FILES[old]}"
    print(f"{name:20}{answer}")

# %% check
assert FILES["arith.Analyzer"] == "src/arith/analyzer.cc"
assert python_functions["tirx.build"] == "tirx/build.py"
