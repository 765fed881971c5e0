"""Build and measure every point of the spaces of ``tvm_deepdive_helpers.tabled``.

It takes about ten minutes of one core and writes ``gallery/data/search_table.csv``::

    python -m tvm_deepdive_helpers.maintain.search_table --jobs 3

Times are processor times of one thread: one call first, then samples of at least half a millisecond, of which the
least counts. A batch of points is measured twice, in two rounds, so that the table tells its own noise.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import multiprocessing
import random
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from ..recorded import write_csv
from ..tabled import LARGE, SMALL, Point, Task

BATCH = 60


def text_bytes(built: Any) -> int:
    """Size of the section ``.text`` of a module's object file (64-bit ELF)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        built.write_to_file(str(path), "o")
        data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 0x28)
    count, names_at = struct.unpack_from("<HH", data, 0x3C)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * n) for n in range(count)]
    names = headers[names_at][4]
    total = 0
    for header in headers:
        name = data[names + header[0] : data.index(b"\0", names + header[0])]
        if name == b".text" or name.startswith(b".text."):
            total += header[5]
    return total


def sample(func: Any, args: list[Any], fast: float) -> float:
    """Least processor time of a call in seconds; a call that takes more than twice `fast` is sampled twice only."""
    times = []
    for _ in range(2):
        start = time.thread_time()
        func(*args)
        times.append(time.thread_time() - start)
    if min(times) < 2 * fast:
        number = max(1, round(0.0005 / min(times)))
        for _ in range(5):
            start = time.thread_time()
            for _ in range(number):
                func(*args)
            times.append((time.thread_time() - start) / number)
    return min(times)


def rows(task: Task, points: list[Point]) -> list[tuple[object, ...]]:
    """Measure points of one task, and check each result against numpy."""
    tvm.get_global_func("runtime.config_threadpool")(1, 1)
    target = host()
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, dtype="float32") for shape in ((task.m, task.k), (task.n, task.k)))
    out = tvm.runtime.tensor(np.zeros((task.m, task.n), "float32"))
    args = [tvm.runtime.tensor(a), tvm.runtime.tensor(b), out]
    want, fast = a @ b.T, 1.0
    libs = [tvm.tirx.build(task.schedule(point).mod, target=target) for point in points]
    sizes = [text_bytes(lib) for lib in libs]
    rounds = []
    for _ in range(2):
        times = []
        for lib in libs:
            times.append(sample(lib["main"], args, fast))
            fast = min(fast, times[-1])
            np.testing.assert_allclose(out.numpy(), want, rtol=1e-4)
        rounds.append(times)
    return [
        (task.name, *point, f"{once * 1e6:.2f}", f"{again * 1e6:.2f}", size)
        for point, once, again, size in zip(points, *rounds, sizes, strict=True)
    ]


def host() -> tvm.target.Target:
    """This machine, one core of it."""
    return tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu(), "num-cores": 1})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("gallery/data/search_table.csv"))
    parser.add_argument("--first", type=int, help="only so many points of each task")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args(argv)
    work = []
    for task in (SMALL, LARGE):
        points = list(task.points())[: args.first]
        points = random.Random(0).sample(points, len(points))
        work += [(task, points[first : first + BATCH]) for first in range(0, len(points), BATCH)]
    found = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for number, result in enumerate(pool.imap_unordered(_rows, work), 1):
            found += result
            print(f"batch {number} of {len(work)}", flush=True)
    python = ".".join(map(str, sys.version_info[:2]))
    tvm_version = importlib.metadata.version("apache-tvm")
    facts = f"apache-tvm {tvm_version}, Python {python}, {sys.platform}, mcpu={host().attrs['mcpu']}"
    command = f"search_table --jobs {args.jobs}; {facts}, one thread a kernel, {datetime.date.today()}"
    header = ("task", "space", "i", "j", "k", "unroll", "us", "us_again", "code_bytes")
    write_csv(args.into, command, header, sorted(found, key=lambda row: row[:6]))


def _rows(item: tuple[Task, list[Point]]) -> list[tuple[object, ...]]:
    return rows(*item)


if __name__ == "__main__":
    main()
