"""The faults that are put into a small book, one at a time, and what must be said about each.

A fault is a change of one file. `by` names the command that must catch it, `says` is a pattern for its words, and the
message must name the file, and the line of the change unless `line` says otherwise (0: the message names no line,
because the fault is in a file as a whole).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STORY = '''"""
story
=====

A script.
"""

# gallery: timeout=20

# %% cell: shown
from pathlib import Path

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.recorded import data

for number in range(5):
    print("line", number)
glue("count", 5)

# %% cell: silent
x = 1

# %% cell: refused
with expect_error(ValueError, match="invalid literal"):
    int("no number")

# %% cell: figure
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
ax.plot([1, 2, 3])

# %% cell: table
print("Old | Today")
print("`a` | `b`")

# %% cell: recorded
print(data("numbers.csv").read_text())

# %% check
assert number == 4
'''

PAGE = """---
covers: ["1.1"]
gallery: 1-part/story
needs: [/1-part/first]
---
# Page

```{question}
Why?
```

There are {glue}`count` lines. {tvm-py}`relax.BlockBuilder.emit` and {tvm-cpp}`src/runtime/vm/vm.cc` do it.
The first page is [here](first.md), and [there](first.md#a-heading).

```{gallery-cell} shown
:caption: Five lines
```

```{gallery-cell} figure
:show: output
:alt: A line that rises
```

```{gallery-cell} table
:show: output
:table:
```

```{quote} relax.transform.FuseTIR
```

```{exercise} Count
:label: ex-count
How many?
```

```{solution-cell} refused
None.
```

```{design-note} Because
It is so.
```

```{summary}
You can count.
```
"""

FILES = {
    "gallery/GALLERY_HEADER.rst": "Scripts\n=======\n",
    "gallery/1-part/GALLERY_HEADER.rst": "Part\n====\n",
    "gallery/1-part/story.py": STORY,
    "gallery/1-part/other.py": STORY.replace("story\n=====", "other\n====="),
    "gallery/data/numbers.csv": "# written by nobody\nn\n1\n",
    "book/index.md": "# Book\n\n```{toctree}\n1-part/first\n1-part/page\n1-part/second\ngallery/index\n```\n",
    "book/1-part/first.md": "# First\n\n## A heading\n\nText about [the page](page.md).\n",
    "book/1-part/second.md": "---\ncovers: []\ngallery: 1-part/other\n---\n# Second\n\n{glue}`count`\n",
    "book/_data/outline.toml": 'open = ["2.10"]\n[rows]\n"1.1" = "x"\n"2.10" = "y"\n',
}

PY, MD = "gallery/1-part/story.py", "book/1-part/page.md"
BUILD, LINT, SNAPSHOTS = "make html", "make lint", "make test"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    what
        For the table: what an author did.
    by
        The command that catches it.
    file
        The file that is changed, and that the message must name.
    old, new
        The text that is replaced (it stands once in the file), and by what; or `change`, a function of the file's path.
    says
        Pattern of the message.
    line
        The line that the message must name: None for the first line that differs, an offset from there otherwise;
        0 for a message without a line.
    named
        The file that the message names, when it is not `file`.
    gone
        Page that must not keep its old text.
    """

    what: str
    by: str
    file: str
    says: str
    old: str = ""
    new: str = ""
    change: Callable[[Path], None] | None = None
    line: int | None = None
    named: str | None = None
    gone: str | None = None

    @property
    def reported(self) -> str:
        """The file that the message names."""
        return self.named or self.file


def page(what: str, old: str, new: str, says: str, **more: object) -> Fault:
    """A fault of the page that the build catches."""
    return Fault(what, BUILD, MD, says, old, new, gone="1-part/page", **more)


def script(what: str, new: str, says: str, old: str = 'print("line", number)', **more: object) -> Fault:
    """A fault of the script that the build catches; pages that show the script go."""
    return Fault(what, BUILD, PY, says, old, new, gone="1-part/page", **more)


def rule(what: str, old: str, new: str, says: str, file: str = MD, **more: object) -> Fault:
    """A fault that `make lint` catches."""
    return Fault(what, LINT, file, says, old, new, **more)


def write(content: bytes) -> Callable[[Path], None]:
    """Change a file to these bytes."""
    return lambda path: path.write_bytes(content)


# Parts of words keep this file from being found by the rules that it tests.
MERGE = "<" * 7 + " HEAD\n"
UNDONE, HOME, HOST = "TO" + "DO", "/ho" + "me/ann/", "py" + "pi.org"
CELL = "```{gallery-cell} shown\n"
GLUE = "{glue}`count`"
PRINT = '    print("line", number)'

FAULTS = (
    # ----- pages name what is not there
    page("a cell that the script does not have", CELL, "```{gallery-cell} shwon\n", r"no cell 'shwon'; it has \[shown"),
    page(
        "a script that is not there", CELL, "```{gallery-cell} 1-part/stroy:shown\n", "no gallery script '1-part/stroy'"
    ),
    page("a value that no cell glues", GLUE, "{glue}`cuont`", r"glues no 'cuont'; it glues \[count\]"),
    page("a value of a script that is not there", GLUE, "{glue}`1-part/none:count`", "no gallery script '1-part/none'"),
    page("a format that does not fit the value", GLUE, "{glue}`count|.2q`", "cannot format 5 with '.2q'"),
    page("a page of the book that is not there", "(first.md)", "(frist.md)", "frist", line=-1),
    page("a heading that is not there", "#a-heading", "#no-heading", "no-heading", line=-1),
    page(
        "a Python symbol that TVM does not have",
        "Builder.emit`",
        "Builder.emitt`",
        "has no `relax.BlockBuilder.emitt`; did you mean",
    ),
    page("a C++ file of the wheel that is not there", "vm/vm.cc`", "vm/vmm.cc`", "vmm.cc"),
    page("a C++ symbol that is not in its file", "vm/vm.cc`", "vm/vm.cc:Vmm`", "has no `Vmm`"),
    page(
        "C++ of the compiler that is not in the index",
        "src/runtime/vm/vm.cc",
        "src/relax/none.cc:Fuser",
        "run `make symbols",
    ),
    page(
        "a quotation of a symbol that is gone",
        "transform.FuseTIR",
        "transform.FuseTIRR",
        "has no `relax.transform.FuseTIRR`",
    ),
    page("lines of a quotation that it does not have", "FuseTIR\n", "FuseTIR\n:lines: 50-60\n", "out of range", line=0),
    page("a page to read first that is not there", "needs: [/1-part/first]", "needs: [/1-part/none]", "none", line=0),
    # ----- directives, wrongly used
    page(
        "an unknown directive",
        "```{design-note} Because",
        "```{design-notes} Because",
        "Unknown directive type: 'design-notes'",
    ),
    page("an unknown role", GLUE, "{gleu}`count`", 'Unknown interpreted text role "gleu"'),
    page("an unknown option", ":caption: Five lines", ":captoin: Five lines", "captoin", line=0),
    page("a value that an option does not take", ":caption: Five lines", ":show: all", '"all"', line=0),
    page(
        "lines of an output that it does not have",
        ":caption: Five lines",
        ":lines: 4-9",
        "printed 5 lines, not 9",
        line=-1,
    ),
    page("lines that are no range", ":caption: Five lines", ":lines: x", "'x' is not a range of lines"),
    page(
        "output of a cell that prints nothing",
        CELL,
        "```{gallery-cell} silent\n:show: output\n",
        "printed and drew nothing",
    ),
    page(
        "a figure without a text for those who cannot see it",
        ":alt: A line that rises\n",
        "",
        "say in ':alt:'",
        line=-2,
    ),
    page(
        "a table of a cell that prints none", "```{gallery-cell} table", "```{gallery-cell} shown", "printed no table"
    ),
    page("a language that no highlighter knows", ":caption: Five lines", ":language: klingon", "klingon", line=0),
    page("a box without content", "```{question}\nWhy?\n", "```{question}\n", "Content block expected", line=-1),
    page("an exercise without its label", ":label: ex-count\n", ":labell: ex-count\n", "labell", line=0),
    page(
        "a directive that is not closed",
        ":caption: Five lines\n```\n",
        ":caption: Five lines\n",
        "none permitted",
        line=-2,
    ),
    page(
        "bytes that are not UTF-8 in a page",
        "",
        "",
        "utf-8|UTF-8",
        change=lambda path: path.write_bytes(path.read_bytes().replace(b"Why?", b"Wh\xff?")),
        line=0,
    ),
    page("a heading one level too deep", "```{summary}", "### Deep\n\n```{summary}", "Non-consecutive header level"),
    Fault(
        "a page in no table of contents",
        BUILD,
        "book/1-part/lost.md",
        "isn't included in any toctree",
        change=write(b"# Lost\n"),
        line=0,
    ),
    Fault(
        "a table of contents that names no page",
        BUILD,
        "book/index.md",
        "nonexisting document",
        "1-part/second\n",
        "1-part/secnod\n",
        line=0,
    ),
    Fault(
        "an image that is not there",
        BUILD,
        "book/1-part/first.md",
        "image file not readable",
        "Text about",
        "![x](none.png) Text about",
    ),
    Fault(
        "an index of C++ symbols with marks of a merge",
        BUILD,
        "book/_data/cpp_symbols.json",
        "not an index of C",
        change=write(MERGE.encode()),
        line=0,
    ),
    # ----- scripts
    script(
        "a cell raises",
        PRINT.replace('print("line", number)', "raise ValueError('no good')"),
        "ValueError: no good",
        old=PRINT,
    ),
    script("a cell ends the script with success", "raise SystemExit(0)", r"SystemExit\(0\)"),
    script("a cell ends its process", "import os; os._exit(0)", "ended itself with exit code 0", line=-6),
    script("a cell aborts", "import os; os.abort()", "killed by SIGABRT"),
    script("a cell reads address 0", "import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
    script("a cell is killed", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL", line=-6),
    script(
        "a cell does not end",
        "timeout=2\n\n# %% cell: shown\nwhile True: pass",
        "no end after 2 s",
        old="timeout=20\n\n# %% cell: shown",
        line=3,
    ),
    script(
        "a cell leaves a process behind",
        "import subprocess; subprocess.Popen(['sleep', '60'])",
        "it left processes running: sleep 60",
        line=0,
    ),
    script(
        "a cell writes a file beside its script",
        "open('litter.txt', 'w').write('x')",
        "litter.txt beside itself",
        line=0,
    ),
    script(
        "a cell deletes a file beside its script",
        "Path('GALLERY_HEADER.rst').unlink(missing_ok=True)",
        "it removed 1-part/GALLERY_HEADER.rst beside itself",
        line=0,
    ),
    script("a cell needs a package that is not there", "import no_such_package", "No module named 'no_such_package'"),
    script(
        "a cell reads recorded data that is not there",
        'data("numbres.csv").read_text()',
        "numbres.csv",
        old='data("numbers.csv").read_text()',
        line=0,
    ),
    script(
        "the name of recorded data is computed",
        "data(str(x)).read_text()",
        "literal|as text|text of",
        old='data("numbers.csv").read_text()',
        line=0,
    ),
    script("a check at the end fails", "assert number == 5", "AssertionError", old="assert number == 4"),
    script("a script that is not Python", "def broken(:", "SyntaxError"),
    script("an expected error does not come", 'int("4")', "ValueError", old='int("no number")', line=0),
    script(
        "an expected error is of another class",
        'expect_error(TypeError, match="invalid literal")',
        "ValueError: invalid literal|TypeError",
        old='expect_error(ValueError, match="invalid literal")',
        line=0,
    ),
    script(
        "an expected error says something else",
        'match="valid number"',
        "valid number",
        old='match="invalid literal"',
        line=0,
    ),
    script(
        "a cell that the page shows as output prints nothing any more",
        "table = 1",
        "printed no table|printed and drew nothing",
        old='print("Old | Today")\nprint("`a` | `b`")',
        named=MD,
        line=0,
    ),
    script(
        "a value that a page uses is not glued any more",
        "x = 5",
        "glues no 'count'",
        old='glue("count", 5)',
        named=MD,
        line=0,
    ),
    script("a value is glued twice", 'glue("count", 5); glue("count", 6)', "count", old='glue("count", 5)', line=0),
    script("a cell name with a capital", "# %% cell: Silent", "bad cell name 'Silent'", old="# %% cell: silent"),
    script(
        "two cells of one name",
        "# %% cell: shown\nx = 1",
        "cell 'shown' stands already at line",
        old="# %% cell: silent\nx = 1",
    ),
    script(
        "an unknown mark of a cell", "# %% cell: silent, sometimes", "unknown flag 'sometimes'", old="# %% cell: silent"
    ),
    script(
        "a cell without code",
        "# %% cell: silent\n",
        "cell 'silent' has no code",
        old="# %% cell: silent\nx = 1\n",
        line=-1,
    ),
    script("an unknown setting", "# gallery: limit=3", "unknown setting 'limit'", old="# gallery: timeout=20"),
    script("a time limit that is no number", "# gallery: timeout=soon", "soon", old="# gallery: timeout=20"),
    Fault(
        "bytes that are not UTF-8 in a script",
        BUILD,
        PY,
        "not valid UTF-8",
        change=lambda path: path.write_bytes(path.read_bytes().replace(b"# %% check", b"# %% check \xff")),
        line=0,
        gone="1-part/page",
    ),
    Fault(
        "a script is gone that a page shows",
        BUILD,
        PY,
        "no gallery script '1-part/story'",
        change=Path.unlink,
        named=MD,
        line=0,
    ),
    Fault(
        "recorded data is gone",
        BUILD,
        "gallery/data/numbers.csv",
        "numbers.csv",
        change=Path.unlink,
        named=PY,
        line=0,
        gone="1-part/page",
    ),
    # ----- the rules of lint
    rule("marks of a merge in a page", "There are", f"{MERGE}There are", "mark of an unfinished merge"),
    rule("marks of a merge in a script", "x = 1", f"{MERGE}x = 1", "mark of an unfinished merge", file=PY),
    rule("front matter that is not YAML", 'covers: ["1.1"]', 'covers: ["1.1"', "not YAML", line=0),
    rule("an unknown key in the front matter", "gallery: 1-part/story", "galery: 1-part/story", "unknown key 'galery'"),
    rule("a row of the outline without quotes", 'covers: ["1.1"]', "covers: [2.10]", "not quoted"),
    rule("a row that the outline does not have", 'covers: ["1.1"]', 'covers: ["9.9"]', "no row '9.9'"),
    rule("a row that two pages carry", "covers: []", 'covers: ["1.1"]', "carried by", file="book/1-part/second.md"),
    rule(
        "front matter that names no script",
        "gallery: 1-part/story",
        "gallery: 1-part/stroy",
        "no gallery/1-part/stroy.py",
    ),
    rule("a chapter without a summary", "```{summary}\nYou can count.\n```\n", "", r"no \{summary\}", line=0),
    rule(
        "a chapter that does not open with its question",
        "```{question}\nWhy?\n```\n",
        "```{design-note} First\nx\n```\n\n```{question}\nWhy?\n```\n",
        "is not the first on the page",
        line=4,
    ),
    rule(
        "an exercise without a solution",
        "```{solution-cell} refused\nNone.\n```\n",
        "",
        r"no \{solution-cell\}",
        line=0,
    ),
    rule(
        "Python that is not executed",
        "There are {glue}",
        "```python\nx = 1\n```\n\nThere are {glue}",
        "'python' that is not executed",
    ),
    rule(
        "a code block without a language",
        "There are {glue}",
        "```\nx = 1\n```\n\nThere are {glue}",
        "without a language",
    ),
    rule(
        "a measured number that is typed", "There are {glue}", "It takes 3.5 ms. There are {glue}", "'3.5 ms' is typed"
    ),
    rule("a word of advertising", "There are {glue}", "A powerful pass. There are {glue}", "'powerful'"),
    rule("an American spelling", "There are {glue}", "The color. There are {glue}", "British"),
    rule("a word that stands twice", "There are {glue}", "It is is so. There are {glue}", "take one out"),
    rule("a page that is too long", "There are {glue}", "word " * 2600 + "There are {glue}", "make two pages", line=0),
    rule("work that is left for later", "x = 1", f"x = 1  # {UNDONE}", "finish it", file=PY),
    rule("a path of somebody's machine", "x = 1", f'x = "{HOME}x"', "relative to the project", file=PY),
    rule(
        "the host name of a package registry",
        "Text about",
        f"From https://{HOST}/ text about",
        "registry host",
        file="book/1-part/first.md",
    ),
    rule("a script without a title", '"""\nstory\n=====\n\nA script.\n"""\n', "# no title\n", "no docstring", file=PY),
    Fault(
        "a script that checks nothing",
        LINT,
        "gallery/1-part/bare.py",
        "checks nothing",
        change=write(b'"""\nT\n=\n\nA thing.\n"""\n# %% cell: a\nprint(1)\n'),
        line=0,
    ),
    rule("a line that does not fit on a page", "x = 1", "x = " + "1 + " * 30 + "1", "break the line", file=PY),
    rule("a star import", "x = 1", "from math import *", "star import", file=PY),
    Fault(
        "two scripts of one base name",
        LINT,
        "gallery/2-part/story.py",
        "has this base name too",
        change=write(STORY.encode()),
        line=0,
    ),
    # ----- accepted outputs
    Fault(
        "an output changed",
        SNAPSHOTS,
        PY,
        "-line 0\n.*\\+LINE 0",
        'print("line", number)',
        'print("LINE", number)',
        named="1-part/story",
        line=0,
    ),
    Fault(
        "a glued value changed",
        SNAPSHOTS,
        PY,
        "-count = 5\n\\+count = 6",
        'glue("count", 5)',
        'glue("count", 6)',
        named="1-part/story",
        line=0,
    ),
    Fault(
        "a script without accepted outputs",
        SNAPSHOTS,
        "gallery/1-part/third.py",
        "has no snapshot",
        change=write(STORY.replace("story\n=====", "third\n=====").encode()),
        line=0,
    ),
    Fault(
        "an accepted output was edited by hand",
        SNAPSHOTS,
        "tests/snapshots/1-part/other.txt",
        "-line 9\n\\+line 4",
        "line 4",
        "line 9",
        named="1-part/other",
        line=0,
    ),
)
