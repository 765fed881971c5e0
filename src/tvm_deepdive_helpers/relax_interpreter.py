"""An interpreter for Relax in numpy, and a source of random programs: judges for passes that move or remove bindings.

The interpreter follows the text of a function: binding after binding, one branch of each ``If``. It keeps two records.
`Interpreter.operators` counts what was computed, `Interpreter.effects` lists the impure calls in their order, with the
values that they got. Two programs are equal for an observer if results and effects are equal.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relax

__all__ = ["Interpreter", "StepLimit", "random_program", "run"]

_OPERATORS: dict[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.maximum": np.maximum,
    "relax.matmul": np.matmul,
    "relax.negative": np.negative,
    "relax.exp": np.exp,
    "relax.tanh": np.tanh,
    "relax.abs": np.abs,
    "relax.nn.relu": lambda x: np.maximum(x, 0),
    "relax.logical_not": np.logical_not,
    "relax.less": np.less,
    "relax.greater": np.greater,
}


class StepLimit(RuntimeError):
    """The program did not end within the number of bindings allowed."""


class Interpreter:
    """Run functions of a module on numpy arrays.

    Parameters
    ----------
    mod : IRModule
        Its Relax functions may call each other.
    steps : int
        Bindings to execute before `StepLimit` is raised.

    Attributes
    ----------
    operators : Counter of str
        How often each operator was computed.
    effects : list of tuple
        Name of a packed function and copies of what it got, for each impure call.
    """

    def __init__(self, mod: tvm.IRModule, steps: int = 10_000) -> None:
        self._mod, self._left = mod, steps
        self.operators: Counter[str] = Counter()
        self.effects: list[tuple[Any, ...]] = []

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the module by name; tuples are Python tuples."""
        return self._function(self._mod[name], args, {})

    def _function(self, func: relax.Function, args: tuple[Any, ...], outer: Mapping[Any, Any]) -> Any:
        env = dict(outer)
        for param, value in zip(func.params, args, strict=True):
            _bind_shape(param.ty, value, env)
            env[param] = value
        return self._sequence(func.body, env)

    def _sequence(self, seq: relax.Expr, env: dict[Any, Any]) -> Any:
        if not isinstance(seq, relax.SeqExpr):
            return self._value(seq, env)
        env = dict(env)
        for block in seq.blocks:
            for binding in block.bindings:
                self._left -= 1
                if self._left < 0:
                    raise StepLimit("the program does not end")
                value = self._value(binding.value, env, binding.var)
                if isinstance(binding, relax.MatchCast):
                    _bind_shape(binding.ty, value, env)
                env[binding.var] = value
        return self._value(seq.body, env)

    def _value(self, expr: Any, env: dict[Any, Any], var: Any = None) -> Any:
        if isinstance(expr, tvm.ir.GlobalVar):
            return lambda *args: self._function(self._mod[expr], args, {})
        if isinstance(expr, tvm.ir.GenericConst):
            return expr.value.numpy() if hasattr(expr.value, "numpy") else expr.value
        if isinstance(expr, relax.If):
            branch = expr.true_branch if bool(self._value(expr.cond, env)) else expr.false_branch
            return self._sequence(branch, env)
        if isinstance(expr, relax.Function):
            scope = dict(env)
            closure = lambda *args: self._function(expr, args, scope)  # noqa: E731
            if var is not None:
                scope[var] = closure  # it may call itself
            return closure
        if isinstance(expr, relax.Tuple):
            return tuple(self._value(field, env) for field in expr.fields)
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value, env)[expr.index]
        if isinstance(expr, relax.ShapeExpr):
            return tuple(_integer(extent, env) for extent in expr.values)
        if isinstance(expr, tvm.ir.Call):
            return self._call(expr, env)
        if expr in env:
            return env[expr]
        raise NotImplementedError(f"the interpreter does not know {type(expr).__name__}: {expr}")

    def _call(self, call: Any, env: dict[Any, Any]) -> Any:
        args = [self._value(arg, env) for arg in call.args]
        if isinstance(call.op, relax.ExternFunc):
            name = str(call.op.global_symbol)
            self.effects.append((name, *(np.copy(arg) for arg in args)))
            return None
        if isinstance(call.op, tvm.ir.Op):
            name = str(call.op.name)
            if name not in _OPERATORS:
                raise NotImplementedError(f"the interpreter does not know the operator {name}")
            self.operators[name] += 1
            return _OPERATORS[name](*args)
        return self._value(call.op, env)(*args)


def _integer(extent: Any, env: Mapping[Any, Any]) -> int:
    return int(extent) if isinstance(extent, (int, tvm.tirx.IntImm)) else int(env[extent])


def _bind_shape(ty: Any, value: Any, env: dict[Any, Any]) -> None:
    """Give symbolic extents of a type the values that an array has."""
    if isinstance(ty, relax.TensorType) and isinstance(ty.shape, relax.ShapeExpr):
        for extent, size in zip(ty.shape.values, np.shape(value), strict=True):
            if isinstance(extent, tvm.tirx.Var):
                if env.setdefault(extent, size) != size:
                    raise ValueError(f"{extent} is {env[extent]} and {size}")
            elif isinstance(extent, tvm.tirx.IntImm) and int(extent) != size:
                raise ValueError(f"an extent is {size}, and the type says {int(extent)}")


def run(mod: tvm.IRModule, *args: Any, name: str = "main") -> tuple[Any, Interpreter]:
    """Result of a function, and the interpreter that computed it, with its records."""
    machine = Interpreter(mod)
    return machine.call(name, *args), machine


_UNARY = (relax.op.negative, relax.op.tanh, relax.op.nn.relu, relax.op.abs)
_BINARY = (relax.op.add, relax.op.subtract, relax.op.multiply, relax.op.maximum)


class _Writer:
    """Writes one random function; all tensors have the same shape."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        rows: Any = tvm.tirx.Var("n", "int64") if self.rng.random() < 0.5 else 3
        self.ty = relax.TensorType((rows, 4), "float32")
        flag = relax.TensorType((), "bool")
        self.flags = [relax.Var(name, flag) for name in ("c", "d")]
        self.inputs = [relax.Var(name, self.ty) for name in ("x", "y")]
        self.impure = self.rng.random() < 0.6
        self.closures: list[Any] = []

    def pick(self, pool: list[Any]) -> Any:
        """Prefer what was made lately, so that chains grow and values stay unused for a while."""
        return self.rng.choice(pool[-4:] if self.rng.random() < 0.7 else pool)

    def pure(self, pool: list[Any]) -> Any:
        if self.rng.random() < 0.5:
            return self.rng.choice(_UNARY)(self.pick(pool))
        return self.rng.choice(_BINARY)(self.pick(pool), self.pick(pool))

    def name(self) -> str:
        """Few names, so that they shadow each other."""
        return self.rng.choice("abx")

    def sequence(self, pool: list[Any], length: int, depth: int) -> relax.SeqExpr:
        pool, blocks = list(pool), []
        for _ in range(length):
            kind = self.rng.random()
            if kind < 0.3:
                blocks.append(self.dataflow(pool))
            elif kind < 0.65 and depth:
                blocks.append(relax.BindingBlock([self.branches(pool, depth)]))
            elif kind < 0.75 and self.impure:
                call = relax.Call(relax.ExternFunc("observe"), [self.pick(pool)], ty_args=[relax.TupleType([])])
                blocks.append(relax.BindingBlock([relax.VarBinding(relax.Var("_", relax.TupleType([])), call)]))
            elif kind < 0.82:
                blocks.append(self.closure(pool))
            else:
                var = relax.Var(self.name(), self.ty)
                blocks.append(relax.BindingBlock([relax.VarBinding(var, self.pure(pool))]))
                pool.append(var)
        return relax.SeqExpr(blocks, self.pick(pool))

    def dataflow(self, pool: list[Any]) -> relax.DataflowBlock:
        inner, bindings, outputs = list(pool), [], []
        count = self.rng.randint(2, 4)
        for number in range(count):
            is_output = number == count - 1 or self.rng.random() < 0.3
            var = (relax.Var if is_output else relax.DataflowVar)(self.name(), self.ty)
            bindings.append(relax.VarBinding(var, self.pure(inner)))
            inner.append(var)
            if is_output:
                outputs.append(var)
        pool.extend(outputs)
        return relax.DataflowBlock(bindings)

    def branches(self, pool: list[Any], depth: int) -> relax.VarBinding:
        parts = [self.sequence(pool, self.rng.randint(1, 3), depth - 1) for _ in range(2)]
        var = relax.Var(self.name(), self.ty)
        pool.append(var)
        return relax.VarBinding(var, relax.If(self.rng.choice(self.flags), *parts))

    def closure(self, pool: list[Any]) -> relax.BindingBlock:
        """A local function that may capture a value, and a call of it."""
        param = relax.Var("z", self.ty)
        inner = relax.Var(self.name(), self.ty)
        body = relax.SeqExpr(
            [relax.BindingBlock([relax.VarBinding(inner, relax.op.add(param, self.pick(pool)))])], inner
        )
        func = relax.Function([param], body, self.ty, is_pure=True)
        f = relax.Var("f", relax.FuncType([self.ty], self.ty))
        result = relax.Var(self.name(), self.ty)
        call = relax.VarBinding(result, relax.Call(f, [self.pick(pool)]))
        pool.append(result)
        return relax.BindingBlock([relax.VarBinding(f, func), call])


def random_program(seed: int) -> tvm.IRModule:
    """A module with one function ``main(x, y, c, d)``: two matrices of four columns, and two flags.

    It has dataflow blocks, branches in branches, local functions, names that occur more than once, for some seeds a
    symbolic number of rows and impure calls. Equal seeds give equal programs.

    Parameters
    ----------
    seed : int

    Returns
    -------
    IRModule
    """
    writer = _Writer(seed)
    body = writer.sequence(list(writer.inputs), writer.rng.randint(3, 6), depth=2)
    func = relax.Function([*writer.inputs, *writer.flags], body, writer.ty, is_pure=not writer.impure)
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return relax.transform.Normalize()(mod)
