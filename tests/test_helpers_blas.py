"""One thread for numpy's BLAS."""

import time

import numpy as np
import pytest

from tvm_deepdive_helpers.blas import one_blas_thread


def test_products_then_take_one_thread():
    if not one_blas_thread():
        pytest.skip("numpy brings no OpenBLAS here")
    a = np.ones((600, 600))
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(20):
        a @ a
    assert time.process_time() - cpu < 1.3 * (time.perf_counter() - wall) + 0.02
