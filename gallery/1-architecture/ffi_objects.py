"""
tvm-ffi: objects that two languages share
=========================================

What an object of TVM is in memory, what crosses the border between Python and
C++, and how two objects are compared.
"""

# %%
import copy
import ctypes

import numpy as np
import tvm
import tvm_ffi
from matplotlib.patches import Rectangle
from tvm import relax, tirx
from tvm_ffi import dataclasses, structural_equal, structural_hash

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import (
    COLORS,
    INK,
    MUTED,
    alt,
    new,
    tint,
)

# %% cell: crossing
seen = []
probe = tvm_ffi.convert_func(seen.append)
ones = np.ones(16, "float32")
values = [True, 1, 2.5, None, tvm.cpu(), "short", "a longer text"]
values += [(1, 2), [1, 2], {"a": 1}, ones, lambda: 0, object()]
for value in values:
    probe(value)
for value, arrived in zip(values, seen, strict=True):
    print(f"{type(value).__name__:10} -> {type(arrived).__name__}")

# %% check
arrived_as = {
    type(value).__name__: type(other).__name__
    for value, other in zip(values, seen, strict=True)
}
assert arrived_as["list"] == "Array" and arrived_as["dict"] == "Map"
assert arrived_as["ndarray"] == "Tensor"
ones[0] = 7
assert seen[10].numpy()[0] == 7  # the tensor shares the array's memory
assert seen[-1] is values[-1]
assert issubclass(type(seen[6]), str)
seen.clear()
for length in range(20):
    probe("x" * length)
glue("small_str", max(len(text) for text in seen if type(text) is str))

# %% cell: containers
array = tvm_ffi.convert([1, 2])
print(type(array).__name__, array[0], len(array), array == [1, 2])
with expect_error(AttributeError, match="append"):
    array.append(3)
with expect_error(TypeError, match="item assignment"):
    tvm_ffi.convert({"a": 1})["a"] = 2

# %% cell: layout
x = tirx.Var("x", "int32")
total = x + 1
info = type(total).__tvm_ffi_type_info__
print(info.type_key, "has", info.total_size, "bytes")
fields = [*tvm.ir.Expr.__tvm_ffi_type_info__.fields, *info.fields]
for field in fields:
    print(f"  at {field.offset:2}: {field.name:5} {field.ty}")


def word(address):
    """Eight bytes of this process's memory."""
    return ctypes.c_uint64.from_address(address).value


begin = total.__chandle__()  # the address of the C++ object
index = word(begin + 8) & 0xFFFFFFFF
print("type index at 8:      ", index == info.type_index)
print("from 128 on:          ", index >= 128)
print(
    "type index of Array:  ", tvm_ffi.Array.__tvm_ffi_type_info__.type_index
)
print("field a points to x:  ", word(begin + 40) == x.__chandle__())

# %% check
assert word(begin + 8) & 0xFFFFFFFF == info.type_index
assert {f.name: f.offset for f in fields} == {
    "span": 24,
    "ty": 32,
    "a": 40,
    "b": 48,
}
assert word(begin + 48) == total.b.__chandle__()
assert type(total.b).__name__ == "IntImm"
glue("header_bytes", fields[0].offset)
# An Array keeps its elements as Any, one after the other: find the distance.
elements = tvm_ffi.Array([11, 22])
place = word(elements.__chandle__() + fields[0].offset)
assert word(place + 8) == 11
(size,) = (n for n in range(8, 64, 8) if word(place + n + 8) == 22)
glue("any_bytes", size)

# %% cell: layout-figure
fig, ax = new("text", 2.3)
slots = [("reference\ncounts", 0, 8), ("type\nindex", 8, 4), ("", 12, 4)]
slots += [("deleter", 16, 8)]
slots += [(field.name, field.offset, 8) for field in fields]
for name, at, size in slots:
    color = "navy" if at < fields[0].offset else "green"
    ax.add_patch(
        Rectangle((at, 0), size, 6, fc=tint(color), ec=COLORS[color])
    )
    ax.text(at + size / 2, 3, name, ha="center", va="center", fontsize=9)
    ax.text(at, -0.5, at, ha="center", va="top", fontsize=8, color=MUTED)
for name, at, to in (("Var x", 44, 34), ("IntImm 1", 52, 50)):
    ax.add_patch(Rectangle((to, -9), 9, 4, fc=tint("vermilion"), ec=INK))
    ax.text(to + 4.5, -7, name, ha="center", va="center", fontsize=9)
    ax.annotate(
        "",
        (to + 4.5, -5),
        (at, 1),
        arrowprops={"arrowstyle": "-|>", "color": INK},
    )
ax.text(12, 7.5, "header of every object", ha="center", color=COLORS["navy"])
ax.text(40, 7.5, "fields of prim.Add", ha="center", color=COLORS["green"])
ax.set(xlim=(-1, 61), ylim=(-9.5, 9))
ax.axis("off")
alt(fig, "An Add object in memory: header, then four pointers")

# %% cell: wrappers
with expect_error(ValueError):

    @tvm_ffi.register_object("relax.expr.Functionn")
    class Function(tvm_ffi.Object):
        """The type key has a typing error."""


func = tirx.PrimFunc([x], tirx.Evaluate(total))
with expect_error(AttributeError, match="no setter"):
    func.params = []
print(*(f.name for f in type(func).__tvm_ffi_type_info__.fields))
print(isinstance(func, tvm.ir.BaseFunc), isinstance(func, tvm.ir.Expr))

# %% check
del func  # it owns total, and the next cell counts owners of x

# %% cell: sharing


def owners(obj):
    """The strong reference count in the header of the object."""
    return word(obj.__chandle__()) & 0xFFFFFFFF


print("x is owned by the name x and by total:", owners(x))
double = x * 2
print("and by double:                        ", owners(x))
del double
print("after del double:                     ", owners(x))

# %% check
assert owners(x) == 2
wrapper = total.a
assert wrapper is not x and wrapper.same_as(x) and owners(x) == 3
del wrapper

# %% cell: comparing
y = tirx.Var("y", "int32")
s, t = relax.TensorType((4,), "int8"), relax.TensorType((4,), "int8")
v = relax.Var("v", s)
PAIRS = {
    "x, x": (x, total.a),
    "x + 1, x + 1": (x + 1, x + 1),
    "x + 1, y + 1": (x + 1, y + 1),
    "-v, -v (Relax)": (relax.op.negative(v), relax.op.negative(v)),
    "two types": (s, t),
    "[x+1], [x+1]": (tvm_ffi.Array([x + 1]), tvm_ffi.Array([x + 1])),
}
print(f"{'':15}{'is':>6}{'same_as':>9}{'bool(==)':>10}{'structural':>12}")
for name, (a, b) in PAIRS.items():
    row = (a is b, a.same_as(b), bool(a == b), structural_equal(a, b))
    print("{:15}{!s:>6}{!s:>9}{!s:>10}{!s:>12}".format(name, *row))
print(type(x + 1 == x + 1), x + 1 == x + 1)
with expect_error(AssertionError):
    assert x + 1 == x + 1
with expect_error(TypeError):
    hash(s)

# %% cell: fields
for cls in (relax.Function, tirx.For, tvm.ir.Var, tvm.ir.Expr):
    for field in cls.__tvm_ffi_type_info__.fields:
        if field.c_structural_eq:
            print(f"{cls.__name__}.{field.name}: {field.c_structural_eq}")

# %% cell: renaming
f = tirx.PrimFunc([x], tirx.Evaluate(x + 1))
g = tirx.PrimFunc([y], tirx.Evaluate(y + 1))
print("functions:", structural_equal(f, g))
print("hashes:   ", structural_hash(f) == structural_hash(g))
print("bodies:   ", structural_equal(f.body, g.body))
free = structural_equal(f.body, g.body, map_free_vars=True)
print("bodies, free variables mapped:", free)
print("x + y, x + x:", structural_equal(x + y, x + x, map_free_vars=True))
n, m = tirx.Var("n", "int64"), tirx.Var("m", "int64")
by_n, by_m = [relax.Var("v", relax.TensorType((k,), "int8")) for k in (n, m)]
same = structural_equal(
    relax.Function([by_n], by_n, by_n.ty),
    relax.Function([by_m], by_m, by_m.ty),
)
print("symbolic shapes of parameters:", same)
with expect_error(ValueError, match="StructuralEqual check failed"):
    tvm.ir.assert_structural_equal(x + 1, x + 2)

# %% check
assert structural_equal(f, g) and not structural_equal(f.body, g.body)
assert structural_hash(f) == structural_hash(g)
assert not structural_equal(x, tirx.Var("x", "int64"), map_free_vars=True)
one, other = [relax.Function([v], v, v.ty) for _ in range(2)]
assert structural_equal(one, other)  # a DAG node: sharing counts
twice = tvm_ffi.Array([one, one])
assert not structural_equal(twice, tvm_ffi.Array([one, other]))
assert structural_equal(
    tvm_ffi.Array([total, total]), tvm_ffi.Array([total, x + 1])
)

# %% cell: own-class


@dataclasses.py_class("book.Loop")
class Loop(tvm_ffi.Object):
    """A loop over a variable, with a remark that does not count."""

    var: tirx.Var = dataclasses.field(structural_eq="def-pattern")
    body: tvm.ir.Expr
    remark: str = dataclasses.field(default="", structural_eq="ignore")


first, second = Loop(x, x + 1, "mine"), Loop(y, y + 1, "yours")
print(first)
print("equal:", structural_equal(first, second))
print("through JSON:", tvm.ir.load_json(tvm.ir.save_json(first)))
with expect_error(TypeError):
    Loop(x, "no expression")

# %% check
assert structural_equal(first, second)
assert structural_equal(tvm.ir.load_json(tvm.ir.save_json(first)), first)
assert structural_equal(copy.deepcopy(first), second)

# %% cell: errors


class Mine(Exception):
    """An exception that the FFI does not know."""


def through(error):
    """Raise in Python, which C++ called, which Python called."""

    @tvm_ffi.convert_func
    def fails():
        raise error

    try:
        fails()
    except Exception as arrived:
        return arrived


for error in (ValueError("a"), KeyError("b"), Mine("c")):
    arrived = through(error)
    print(repr(error), "->", repr(arrived), arrived is error)
tvm_ffi.register_error(Mine)
print("registered:", repr(through(Mine("c"))))

# %% check
assert type(through(KeyError("b"))) is KeyError
assert type(through(KeyboardInterrupt())) is RuntimeError

# %% cell: solution-dedupe
candidates = [x + 1, y + 1, x + 1, x * 2, x * 2]
unique = {tvm_ffi.StructuralKey(e): e for e in candidates}
print(len(set(candidates)), "by hash,", len(unique), "by structure")
print(list(unique.values()))

# %% check
assert len(unique) == 3

# %% cell: solution-names


def module(function_name, variable):
    a = tirx.Var(variable, "int32")
    return tvm.IRModule({function_name: tirx.PrimFunc([a], tirx.Evaluate(a))})


print(
    "variable renamed:", structural_equal(module("f", "a"), module("f", "b"))
)
print(
    "function renamed:", structural_equal(module("f", "a"), module("g", "a"))
)

# %% check
assert structural_equal(module("f", "a"), module("f", "b"))
assert not structural_equal(module("f", "a"), module("g", "a"))
