"""
What this book was built with
=============================

Versions of everything that ran, and the licence notice of the TVM package
that the quotations are cut from.
"""

# %% cell: versions
from importlib.metadata import metadata, version

for name in (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "matplotlib",
    "sphinx",
    "sphinx-gallery",
    "myst-parser",
):
    licence = metadata(name).get("License-Expression") or "see package"
    print(f"{name:15} {version(name):14} {licence[:40]}")

# %% cell: notice
from importlib.util import find_spec
from pathlib import Path

tvm_folder = Path(find_spec("tvm").origin).parent
print((tvm_folder / "NOTICE").read_text().strip())

# %% check
first_line = (tvm_folder / "LICENSE").read_text().split("\n", 1)[0]
assert first_line.strip() == "Apache License"
assert "Apache Software Foundation" in (tvm_folder / "NOTICE").read_text()
