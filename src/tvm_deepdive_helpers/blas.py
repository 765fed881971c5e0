"""Keep numpy's BLAS to one thread.

The matrices of a small statistical model are so small that OpenBLAS's threads cost ten times the work that they share
out: they spin while they wait. An environment variable would be read when numpy is imported; here it is imported.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

__all__ = ["one_blas_thread"]

_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def one_blas_thread() -> bool:
    """Let the OpenBLAS in numpy's wheel use one thread from now on.

    Returns
    -------
    bool
        Whether one was found. Another BLAS (Accelerate on macOS, a system library) is left as it is.
    """
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))
            for name in _SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(1)
                    return True
    return False
