"""
How the book notices a mistake
==============================

What the machine says of a name that does not exist, of Python that would not
run, and which script printed a line; and the rooms of the repository.
"""

# %% cell: setup
from textwrap import fill

from tvm_deepdive_helpers.maintain import lint
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.sources.common import SourceError
from tvm_deepdive_helpers.sources.python_source import PythonSources
from tvm_deepdive_helpers.sources.wheel import Wheels

ROOT = data("references.bib").parents[2]

# %% cell: rooms
ROOMS = {
    "book": "what people read: one folder a part, Markdown",
    "gallery": "what is executed: one script a page",
    "gallery/data": "facts that a build cannot measure",
    "src/tvm_deepdive_helpers": "what the scripts import",
    "src/tvm_deepdive_helpers/sphinxext": "cells, citations, numbers",
    "src/tvm_deepdive_helpers/maintain": "lint, snapshots, index",
    "tests": "tests of all that",
    "tests/snapshots": "the accepted output of every script",
}
print("Folder | What is in it")
for room, purpose in ROOMS.items():
    print(f"`{room}/` | {purpose}")

# %% check
for room in ROOMS:
    assert (ROOT / room).is_dir(), room

# %% cell: wrong-name
source = PythonSources(Wheels.installed())
for name in ("relax.transform.FuseOps", "relax.transform.FuseOp"):
    try:
        symbol = source.find(name)
        print(symbol.file)
    except SourceError as error:
        print(fill(str(error), 60))

# %% cell: wrong-fence
import tempfile
from pathlib import Path

FENCE = "`" * 3
page = f"# A page\n\n{FENCE}python\nimport tvm.relay\n{FENCE}\n"
with tempfile.TemporaryDirectory() as folder:
    Path(folder, "page.md").write_text(page)
    read = lint.Source(Path(folder), "page.md")
    for line, problem in lint.python_fence(read, None):
        print(fill(f"page.md:{line}: python-fence: {problem}", 60))


# %% cell: solution-who
def printed_by(words):
    """Scripts whose accepted output contains the words."""
    for path in sorted((ROOT / "tests/snapshots").rglob("*.txt")):
        if words in path.read_text(encoding="utf-8"):
            yield path.relative_to(ROOT / "tests/snapshots").as_posix()


print(*printed_by("MLIR is not enabled"))

# %% check
assert "8-appendix/landscape.txt" in printed_by("MLIR is not enabled")
