"""Practice project "A better search": copy this file, and fill it in.

The brief stands on the page 7-practice/better-search. Check your file with

    make practice PROJECT=better_search SOLUTION=my_search.py
"""

import math
import os

# The threads of numpy's BLAS cost more than they do for small matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from tvm.ir.utils import derived_object

from tvm_deepdive_helpers.search import Genome, GenomeSearch


@derived_object
class Search(GenomeSearch):
    """A strategy: `propose` genomes, and `learn` what they were worth."""

    def begin(self):
        """Called once; self.space, self.rng and self._batch are there."""

    def propose(self):
        """The next genome to measure. This one is chance."""
        return self.space.random()

    def learn(self, scored):
        """Pairs of a genome and its seconds, for a batch."""


if __name__ == "__main__":
    # A place to try things out: .venv/bin/python my_search.py
    from pathlib import Path

    from tvm_deepdive_helpers.tabled import LARGE, Pair, Table, TabledBuilder, TabledRunner
    from tvm_deepdive_helpers.tuning import tune

    table = Table(Path("gallery/data/search_table.csv"), LARGE)
    task = Pair(LARGE)
    tuned = tune(
        task.module(),
        trials=192,
        batch=8,
        space=task.generator(),
        strategy=Search(1),
        builder=TabledBuilder(),
        runner=TabledRunner(table),
    )
    print(tuned.best_s / (2 * table[table.best].seconds))
