"""Train every network and measure every kernel of ``tvm_deepdive_helpers.automl``.

It takes about three minutes of one core and writes ``gallery/data/automl_errors.csv`` and
``gallery/data/automl_kernels.csv``::

    python -m tvm_deepdive_helpers.maintain.automl_table

Times are processor times of one thread, the least of the samples of two rounds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import statistics
import sys
from pathlib import Path

import numpy as np
import tvm

from ..automl import BATCH, NETWORKS, SCHEDULES, kernel, layers, train, workload
from ..recorded import write_csv
from .search_table import host, sample


def measured(k: int, n: int, relu: bool) -> list[tuple[object, ...]]:
    """Rows of one layer: every schedule, measured twice and checked against numpy."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=shape).astype("float32") for shape in ((BATCH, k), (k, n), (n,)))
    want = np.maximum(x @ w + b, 0) if relu else x @ w + b
    out = tvm.runtime.tensor(np.zeros_like(want))
    args = [*map(tvm.runtime.tensor, (x, w, b)), out]
    libs = [tvm.tirx.build(workload(kernel(k, n, relu, s)), target=host()) for s in SCHEDULES]
    times = [float("inf")] * len(libs)
    for _ in range(2):
        for number, lib in enumerate(libs):
            times[number] = min(times[number], sample(lib["main"], args, 1.0))
            np.testing.assert_allclose(out.numpy(), want, rtol=1e-3, atol=1e-4)
    return [
        (k, n, int(relu), s.rows, s.columns, int(s.outer), f"{seconds * 1e6:.3f}")
        for s, seconds in zip(SCHEDULES, times, strict=True)
    ]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("gallery/data"))
    args = parser.parse_args(argv)
    tvm.get_global_func("runtime.config_threadpool")(1, 1)
    python = ".".join(map(str, sys.version_info[:2]))
    facts = f"apache-tvm {importlib.metadata.version('apache-tvm')}, Python {python}, {sys.platform}"
    command = f"automl_table; {facts}, mcpu={host().attrs['mcpu']}, one thread, {datetime.date.today()}"
    kernels: list[tuple[object, ...]] = []
    for layer in sorted({layer for network in NETWORKS for layer in layers(network)}):
        kernels += measured(*layer)
        print(layer, flush=True)
    head = ("k", "n", "relu", "rows", "columns", "outer", "us")
    write_csv(args.into / "automl_kernels.csv", command, head, kernels)
    errors = []
    for network in NETWORKS:
        error = statistics.mean(train(network, seed)[1] for seed in range(3))
        errors.append((*network, f"{error:.4f}"))
        print(network, error, flush=True)
    write_csv(args.into / "automl_errors.csv", command, ("depth", "width", "error"), errors)


if __name__ == "__main__":
    main()
