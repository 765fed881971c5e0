"""A toy accelerator: three small memories, five instructions, a clock, and faults in plain words.

The machine multiplies matrices in tiles of 8 x 8 numbers of ``float32``. It computes only in its own memories, the
*banks*: ``inp`` for tiles of the left matrix, ``wgt`` for tiles of the right one, ``acc`` for sums. Every number has to
be brought there and back by an instruction, and every instruction costs cycles. A tile lies in a bank at an *offset*
(of its first number), with a *pitch* (numbers from one row of the tile to the next).

Two drivers stand beside it. `Machine.run` executes a list of instructions on named numpy arrays.
`register_instructions` makes each instruction a global function of TVM, for kernels that call them one by one.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["BANKS", "COST", "MACHINE", "TILE", "Fault", "Machine", "cost", "register_instructions"]

TILE = 8
"""Rows and columns of a tile."""

BANKS = {"inp": 1024, "wgt": 1024, "acc": 256}
"""Numbers that fit into each bank: 16, 16 and 4 tiles."""

COST = {"load": 20, "store": 20, "zero": 2, "mma": 8, "relu": 4}
"""Cycles of each instruction."""


class Fault(Exception):
    """The machine stops: an instruction asks for what it cannot do."""


class Machine:
    """The simulator.

    Attributes
    ----------
    executed : Counter
        How often each instruction was executed since the last `reset`.
    cycles : int
        What they cost together.
    """

    def __init__(self) -> None:
        self._defect = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget what the banks hold, and count from zero."""
        self.executed: Counter[str] = Counter()
        self.cycles = 0
        self._bank = {name: np.zeros(size, "float32") for name, size in BANKS.items()}
        self._written = {name: np.zeros(size, bool) for name, size in BANKS.items()}

    @contextmanager
    def defect(self) -> Iterator[None]:
        """Within the block every product is wrong by one: a way to see whether a result went through the machine."""
        self._defect = 1.0
        try:
            yield
        finally:
            self._defect = 0.0

    def load(self, bank: str, offset: int, pitch: int, tile: np.ndarray) -> None:
        """Copy a tile of the main memory into `inp` or `wgt`."""
        if bank not in ("inp", "wgt"):
            raise Fault(f"load: the bank is 'inp' or 'wgt', not {bank!r}")
        self._view("load", bank, offset, pitch, write=True)[:] = tile
        self._count("load")

    def store(self, offset: int, pitch: int, tile: np.ndarray) -> None:
        """Copy a tile of `acc` into the main memory."""
        tile[:] = self._view("store", "acc", offset, pitch)
        self._count("store")

    def zero(self, offset: int, pitch: int) -> None:
        """Fill a tile of `acc` with zeros."""
        self._view("zero", "acc", offset, pitch, write=True)[:] = 0
        self._count("zero")

    def mma(self, acc: tuple[int, int], inp: tuple[int, int], wgt: tuple[int, int]) -> None:
        """Multiply a tile of `inp` by a tile of `wgt` and add the product to a tile of `acc`; (offset, pitch) each."""
        left, right = self._view("mma", "inp", *inp), self._view("mma", "wgt", *wgt)
        self._view("mma", "acc", *acc)[:] += left @ right + self._defect
        self._count("mma")

    def relu(self, offset: int, pitch: int) -> None:
        """Replace negative numbers in a tile of `acc` by zero."""
        view = self._view("relu", "acc", offset, pitch)
        view[:] = np.maximum(view, 0)
        self._count("relu")

    def run(self, program: Iterable[tuple[Any, ...]], memory: Mapping[str, np.ndarray]) -> None:
        """Execute a program.

        Parameters
        ----------
        program : iterable of tuple
            ``("load", bank, offset, pitch, name, row, column)``, ``("store", offset, pitch, name, row, column)``,
            ``("zero", offset, pitch)``, ``("relu", offset, pitch)`` and
            ``("mma", acc, acc_pitch, inp, inp_pitch, wgt, wgt_pitch)``; rows and columns count numbers, not tiles.
        memory : mapping of str to ndarray
            The main memory: matrices of ``float32`` by name.
        """
        for number, (kind, *args) in enumerate(program):
            try:
                if kind == "load":
                    self.load(*args[:3], _tile(memory, *args[3:]))
                elif kind == "store":
                    self.store(*args[:2], _tile(memory, *args[2:]))
                elif kind == "zero":
                    self.zero(*args)
                elif kind == "relu":
                    self.relu(*args)
                elif kind == "mma":
                    self.mma((args[0], args[1]), (args[2], args[3]), (args[4], args[5]))
                else:
                    raise Fault(f"there is no instruction {kind!r}; there are {', '.join(COST)}")
            except Fault as fault:
                raise Fault(f"instruction {number}: {fault}") from None
            except (TypeError, IndexError, ValueError) as err:
                raise Fault(f"instruction {number}: wrong operands of {kind!r}: {tuple(args)} ({err})") from err

    def _view(self, what: str, bank: str, offset: int, pitch: int, write: bool = False) -> np.ndarray:
        """The tile at an offset of a bank, as a view."""
        offset, pitch = int(offset), int(pitch)
        last = offset + (TILE - 1) * pitch + TILE
        if pitch < TILE or offset < 0 or last > BANKS[bank]:
            raise Fault(
                f"{what}: a tile at offset {offset} with pitch {pitch} does not fit into the bank {bank!r} "
                f"of {BANKS[bank]} numbers"
            )
        both = [_strided(array[offset:], pitch) for array in (self._bank[bank], self._written[bank])]
        if write:
            both[1][:] = True
        elif not both[1].all():
            raise Fault(f"{what}: the bank {bank!r} was never written at offset {offset} with pitch {pitch}")
        return both[0]

    def _count(self, kind: str) -> None:
        self.executed[kind] += 1
        self.cycles += COST[kind]


def _strided(array: np.ndarray, pitch: int) -> np.ndarray:
    size = array.itemsize
    return np.lib.stride_tricks.as_strided(array, (TILE, TILE), (pitch * size, size))


def _tile(memory: Mapping[str, np.ndarray], name: str, row: int, column: int) -> np.ndarray:
    if name not in memory:
        raise Fault(f"no matrix {name!r} in the main memory; there are {', '.join(memory) or 'none'}")
    matrix = memory[name]
    if matrix.ndim != 2 or matrix.dtype != np.float32:
        raise Fault(f"{name!r} is no matrix of float32: {matrix.ndim} dimensions of {matrix.dtype}")
    rows, columns = matrix.shape
    if not (0 <= row <= rows - TILE and 0 <= column <= columns - TILE):
        raise Fault(f"the tile at row {row}, column {column} reaches beyond {name!r}, which is {rows} x {columns}")
    return matrix[row : row + TILE, column : column + TILE]


def cost(program: Iterable[tuple[Any, ...]]) -> int:
    """Cycles that a program takes, without running it."""
    return sum(COST[kind] for kind, *_ in program)


MACHINE = Machine()
"""The one machine of this process, which compiled models use."""


def _memory_at(pointer: Any, pitch: int) -> np.ndarray:
    """The tile of the main memory that begins at an address; nothing checks it, as nothing checks a real address."""
    address = pointer.value if isinstance(pointer, ctypes.c_void_p) else int(pointer)
    numbers = (ctypes.c_float * ((TILE - 1) * int(pitch) + TILE)).from_address(address)
    return _strided(np.ctypeslib.as_array(numbers), int(pitch))


def register_instructions() -> None:
    """Make the instructions global functions: ``toy.load``, ``toy.store``, ``toy.zero``, ``toy.relu``, ``toy.mma``.

    ``toy.load(bank, offset, pitch, pointer, row_pitch)``, ``toy.store(offset, pitch, pointer, row_pitch)``,
    ``toy.zero(offset, pitch)``, ``toy.relu(offset, pitch)``, ``toy.mma(acc, pitch, inp, pitch, wgt, pitch)``.
    A pointer is the address of the tile's first number in the main memory, and the row pitch the numbers between rows.
    """
    import tvm

    functions = {
        "load": lambda bank, at, pitch, p, rows: MACHINE.load(str(bank), at, pitch, _memory_at(p, rows)),
        "store": lambda at, pitch, p, rows: MACHINE.store(at, pitch, _memory_at(p, rows)),
        "zero": lambda at, pitch: MACHINE.zero(at, pitch),
        "relu": lambda at, pitch: MACHINE.relu(at, pitch),
        "mma": lambda c, pc, a, pa, b, pb: MACHINE.mma((c, pc), (a, pa), (b, pb)),
    }
    for name, function in functions.items():
        tvm.register_global_func(f"toy.{name}", function, override=True)
