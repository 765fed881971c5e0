"""What the scripts of *TVM Deep Dive* import.

The package itself is light: it imports neither TVM nor matplotlib, because Sphinx and the set-up commands import it
too. One module has one purpose:

========================  ==================================================================
``book``                  hand values to the prose (`glue`), show errors that are meant to happen (`expect_error`)
``ir``                    print, cut, compare and count IR
``passes``                record every pass of a build
``bench``                 measure times so that two of them can be compared; facts about the machine
``figures``               palette, diagrams, charts, and the sphinx-gallery scraper for light and dark
``running_example``       the small network that the whole book follows
``isolate``               run a program that may crash in a process of its own
``native``                headers of C++ objects, the native call stack, arrays at chosen addresses
========================  ==================================================================
"""

from __future__ import annotations

import importlib.metadata
import re
import sys

from .book import expect_error, glue

__all__ = ["__version__", "expect_error", "ffi_problem", "glue"]

__version__ = "0.1.0"


def ffi_problem(tvm_version: str | None, ffi_version: str | None) -> str | None:
    """Say what is wrong with a pair of versions of TVM and its FFI, if something is.

    ``apache-tvm`` 0.26 and 0.27 ask for ``apache-tvm-ffi>=0.1.14.post0``, so that pip installs 0.1.15, and with
    0.1.15 the process dies in everything that writes IR as JSON.

    Parameters
    ----------
    tvm_version : str or None
        Version of the distribution ``apache-tvm``; None if it is not installed.
    ffi_version : str or None
        Version of the distribution ``apache-tvm-ffi``; None if it is not installed.

    Returns
    -------
    str or None
        One line that says what crashes and how to cure it, or None if nothing is known against the pair.

    Examples
    --------
    >>> ffi_problem("0.27.0.post1", "0.1.14.post1") is None
    True
    """
    if not tvm_version or not ffi_version:
        return None
    if not re.match(r"0\.2[67]([.\D]|$)", tvm_version) or not re.match(r"0\.1\.15([.\D]|$)", ffi_version):
        return None
    return (
        f"tvm_deepdive_helpers: apache-tvm {tvm_version} with apache-tvm-ffi {ffi_version} dies with segmentation"
        " faults in save_json, pickle, deepcopy, Schedule.tensorize and MetaSchedule's database;"
        " cure: pip install apache-tvm-ffi==0.1.14.post1"
    )


def _installed(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


_problem = ffi_problem(_installed("apache-tvm"), _installed("apache-tvm-ffi"))
if _problem:
    print(_problem, file=sys.stderr)
