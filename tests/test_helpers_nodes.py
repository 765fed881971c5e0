"""The node reference: what reflection says about the IR's classes."""

from __future__ import annotations

import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import nodes


def test_a_loop_has_its_fields_with_types_and_owners() -> None:
    loop = nodes.node_class(tirx.For)
    assert loop.key == "tirx.For"
    assert loop.bases[0] == "tirx.Stmt"
    assert loop.python == "tvm.tirx.stmt.For"
    by_name = {field.name: field for field in loop.fields}
    assert by_name["extent"].type == "ir.Expr"
    assert by_name["span"].owner == "tirx.Stmt"
    assert by_name["loop_var"].defines and not by_name["extent"].defines
    assert [field.name for field in loop.own_fields][:3] == ["loop_var", "min", "extent"]


def test_key_and_class_lead_to_the_same_description() -> None:
    assert nodes.node_class("prim.Add") == nodes.node_class(tirx.Add)


def test_unknown_type_is_an_error() -> None:
    with pytest.raises(KeyError, match="no described type"):
        nodes.node_class("tirx.NoSuchNode")
    with pytest.raises(KeyError):
        nodes.node_class(int)


def test_statements_are_found_below_their_base() -> None:
    keys = [item.key for item in nodes.node_classes("tirx.Stmt")]
    assert keys == sorted(keys)
    assert {"tirx.For", "s_tir.SBlock", "tirx.BufferStore"} <= set(keys)
    assert "tirx.Stmt" not in keys and "prim.Add" not in keys
    only = [item.key for item in nodes.node_classes("tirx.Stmt", ["s_tir"])]
    assert only == ["s_tir.SBlock", "s_tir.SBlockRealize"]


def test_every_class_of_the_tensor_ir_is_described() -> None:
    assert nodes.undescribed(["tirx", "prim"]) == []
    assert nodes.undescribed(["testing"])


def test_field_table_groups_classes_with_the_same_fields() -> None:
    text = nodes.field_table([nodes.node_class(c) for c in (tirx.Add, tirx.Sub, tirx.Ramp)], width=60)
    assert text.splitlines()[0] == "prim.Add, prim.Sub"
    assert "    a: ir.Expr, b: ir.Expr" in text
    assert max(map(len, text.splitlines())) <= 60
    assert "(no fields of its own)" in nodes.field_table([nodes.node_class(tirx.Break)])
    assert "loop_var*: ir.Var" in nodes.field_table([nodes.node_class(tirx.For)])


def test_tree_follows_fields() -> None:
    @T.prim_func
    def fill(A: T.Buffer((4,), "float32")):
        for i in range(4):
            A[i] = T.float32(1)

    drawn = nodes.tree(fill, lambda o: isinstance(o, tirx.Stmt), lambda o: type(o).__name__)
    assert list(drawn.labels.values()) == ["PrimFunc", "For", "BufferStore"]
    assert list(drawn.edges.values()) == ["body", "body"]
    assert drawn.kinds["n1"] == "tirx.For"
    names = [name for name, _ in nodes.children(fill)]
    assert names == ["attrs", "params[0]", "ret_type", "body"]
    assert [type(child) for _, child in nodes.children(tirx.Evaluate(tirx.exp(tvm.tirx.FloatImm("float32", 1))))] == [
        tvm.ir.Call
    ]


def test_shared_objects_become_one_box() -> None:
    x = tirx.Var("x", "int32")
    y = tirx.Var("y", "int32")
    total = tirx.Add(tirx.Mul(x, x), y)

    def keep(obj: object) -> bool:
        return isinstance(obj, tvm.ir.Expr)

    def label(obj: object) -> str:
        return str(obj)

    apart = nodes.tree(total, keep, label)
    assert list(apart.labels.values()) == ["x * x + y", "x * x", "x", "x", "y"]
    joined = nodes.tree(total, keep, label, shared=lambda obj: isinstance(obj, tvm.ir.Var))
    assert list(joined.labels.values()) == ["x * x + y", "x * x", "x", "y"]
    assert joined.edges["n1", "n2"] == "a, b"
