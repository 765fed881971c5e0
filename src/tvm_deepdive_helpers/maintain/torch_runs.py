"""Record what programs with PyTorch print.

The book's environment has no PyTorch. Make another one, with the versions of ``constraints.txt``, and run this there
with the helpers on the path; it writes ``gallery/data/torch_runs.txt`` in half a minute::

    python -m venv torch-env
    torch-env/bin/pip install -c constraints.txt torch apache-tvm apache-tvm-ffi numpy
    PYTHONPATH=src torch-env/bin/python -m tvm_deepdive_helpers.maintain.torch_runs
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import sys
from pathlib import Path

from ..torch_programs import PROGRAMS, output


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=Path("gallery/data/torch_runs.txt"))
    args = parser.parse_args(argv)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "apache-tvm", "apache-tvm-ffi")]
    python = ".".join(map(str, sys.version_info[:2]))
    facts = ", ".join([*versions, f"Python {python}", str(datetime.date.today())])
    parts = [f"# generated: python -m tvm_deepdive_helpers.maintain.torch_runs; {facts}\n"]
    parts += [f"== {name}\n{program}-- output\n{output(program)}" for name, program in PROGRAMS.items()]
    args.into.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
