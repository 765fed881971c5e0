"""Run TVM's own search on the recorded space of ``tvm_deepdive_helpers.tabled``, with many seeds.

A run takes seconds of processor time, almost all of it for breeding and scoring schedules; that is too much for a
build of the book. It writes ``gallery/data/search_runs.csv`` in about a minute::

    python -m tvm_deepdive_helpers.maintain.search_runs

A row is a run: the cost model, the seed, the processor seconds, and the time of each candidate in microseconds.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from tvm.s_tir import meta_schedule as ms

from ..recorded import write_csv
from ..tabled import LARGE, Table, TabledBuilder, TabledRunner
from ..tuning import load_intrinsics, tune

SEEDS, TRIALS, BATCH, POPULATION, WARMUP = 8, 48, 8, 64, 16

MODELS: dict[str, Callable[[int], Any]] = {
    "xgb": lambda seed: ms.cost_model.XGBModel(num_warmup_samples=WARMUP, num_tuning_cores=1),
    "random": lambda seed: ms.cost_model.RandomModel(seed=seed),
}


def run(table: Table, model: str, seed: int, trials: int = TRIALS) -> tuple[float, list[float]]:
    """One search; processor seconds, and the seconds of each candidate."""
    np.random.seed(seed)  # `XGBModel` guesses with numpy's global state until it is warm
    start = time.process_time()
    tuned = tune(
        table.task.module(),
        trials=trials,
        batch=BATCH,
        seed=seed,
        space=table.task.generator(),
        strategy=ms.search_strategy.EvolutionarySearch(population_size=POPULATION),
        cost_model=MODELS[model](seed),
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )
    return time.process_time() - start, [trial.seconds for trial in tuned.trials]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=Path("gallery/data/search_table.csv"))
    parser.add_argument("--into", type=Path, default=Path("gallery/data/search_runs.csv"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--trials", type=int, default=TRIALS)
    args = parser.parse_args(argv)
    load_intrinsics()
    table = Table(args.table, LARGE)
    rows = []
    for model in MODELS:
        for seed in range(1, args.seeds + 1):
            cpu_s, seconds = run(table, model, seed, args.trials)
            rows.append((model, seed, f"{cpu_s:.2f}", " ".join(f"{s * 1e6:.2f}" for s in seconds)))
            print(f"{model} {seed}: {cpu_s:.1f} s", flush=True)
    python = ".".join(map(str, sys.version_info[:2]))
    facts = f"apache-tvm {importlib.metadata.version('apache-tvm')}, xgboost {xgboost.__version__}"
    command = f"search_runs; {facts}, Python {python}, {sys.platform}, {datetime.date.today()}"
    write_csv(args.into, command, ("model", "seed", "cpu_s", "us"), rows)


if __name__ == "__main__":
    main()
