"""Begin a page: ``make page PAGE=2-tir/loops`` writes the script and the text, and puts the page into its part.

::

    python -m tvm_deepdive_helpers.maintain.new_page 2-tir/loops [--title "Loops"] [--script tir_loops] [--rows 7.4 ...]

The two files build at once, so that ``make live`` shows the page from the first save. What is to be written stands in
lines that ``make lint`` names until they are gone. Nothing that exists is overwritten.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OUTLINE = "book/_data/outline.toml"
#: The mark that `make lint` refuses; in two parts, so that it is not found in this file.
LATER = "TO" + "DO"

SCRIPT = '''"""
{title}
{underline}

{later}: say in one sentence what this script shows.
"""

# %% cell: setup
from tvm_deepdive_helpers import glue, ir
from tvm_deepdive_helpers.running_example import MLP

# %% cell: example
print(*sorted(var.name_hint for var in MLP.functions), sep="\\n")
glue("functions", len(MLP.functions))

# %% cell: solution-first
ir.show(MLP["main"])

# %% check
assert len(MLP.functions) == 1  # {later}: compare with an independent reference
'''

PAGE = """---
covers: [{rows}]
gallery: {part}/{script}
needs: [/0-start/setup]
---
# {title}

```{{question}}
{later}: the question that this page answers.
```

{later}: say what the thing is for, then what it is made of. This start builds already: the module has
{{glue}}`functions`
function. Cite the place that does the work, as in {{tvm-py}}`relax.transform.LegalizeOps`.

```{{gallery-cell}} setup
:show: code
```

```{{gallery-cell}} example
:caption: {later}: what the box shows
```

```{{exercise}} {later}: a title
:label: ex-{label}

{later}: a question whose answer the reader can find by running something.
```

```{{solution-cell}} solution-first
{later}: two sentences that explain the answer.
```

```{{summary}}
{later}: You can now …
```
"""


class NewPageError(ValueError):
    """The page cannot be begun; the message says why, and what to do."""


def parts(root: Path) -> list[str]:
    """The folders of the book that hold pages, such as ``2-tir``."""
    return sorted(path.parent.name for path in (root / "book").glob("[0-9]-*/index.md"))


def prefix(root: Path, part: str) -> str:
    """What most scripts of a part begin with, such as ``tir_``; the part's own word if there is no such habit."""
    names = [path.stem.split("_")[0] for path in (root / "gallery" / part).glob("*.py")]
    word, count = Counter(names).most_common(1)[0] if names else ("", 0)
    return f"{word}_" if count > 1 else ""


def with_page(index: str, page: str) -> str:
    """The text of a part's index with the page as the last line of its first table of contents."""
    match = re.search(r"^(```\{toctree\}\n(?:.*\n)*?)(```)", index, re.M)
    if not match:
        raise NewPageError("index.md of the part has no {toctree} (add one, as in the other parts)")
    return f"{index[: match.end(1)]}{page}\n{index[match.end(1) :]}"


def without_rows(outline: str, rows: Sequence[str]) -> str:
    """The text of the outline with the rows taken out of the list ``open``."""
    known = tomllib.loads(outline)
    for row in rows:
        if row not in known["rows"]:
            raise NewPageError(
                f"there is no row {row!r} in {OUTLINE} (add it there, with its title, or leave --rows out)"
            )
        if row not in known["open"]:
            free = ", ".join(known["open"]) or "none"
            raise NewPageError(
                f"row {row!r} is carried by a page already (free rows: {free}; without --rows the page carries none)"
            )
    begin = outline.index("open = [")
    end = outline.index("]", begin)
    left = [row for row in known["open"] if row not in rows]
    lines = [", ".join(f'"{row}"' for row in left[at : at + 10]) for at in range(0, len(left), 10)]
    body = "".join(f"\n  {line}," for line in lines)
    return f"{outline[:begin]}open = [{body}{chr(10) if body else ''}{outline[end:]}"


def create(root: Path, name: str, title: str = "", script: str = "", rows: Sequence[str] = ()) -> list[Path]:
    """Write the files of a new page.

    Parameters
    ----------
    root
        The project.
    name
        ``part/page``, such as ``2-tir/loops``.
    title
        The heading; without it, made of the name.
    script
        Base name of the script; without it, made of the part's habit and the name.
    rows
        Rows of the outline that the page will carry.

    Returns
    -------
    list of Path
        The files that were written or changed, the two new ones first.

    Raises
    ------
    NewPageError
        A name that does not fit, a part that is not there, or a file that is there already. Nothing was written.
    """
    match = re.fullmatch(r"(?P<part>[^/]+)/(?P<page>[a-z0-9]+(?:-[a-z0-9]+)*)", name)
    if not match:
        raise NewPageError(
            f"{name!r} is no name of a page (write part/page in lower case, words joined by '-': 2-tir/loops)"
        )
    part, page = match["part"], match["page"]
    if part not in parts(root):
        raise NewPageError(f"there is no part {part!r} (there is {', '.join(parts(root))})")
    script = script or prefix(root, part) + page.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", script):
        raise NewPageError(f"{script!r} is no name of a script (lower-case words joined by '_', no '.py'): --script")
    text, code = root / "book" / part / f"{page}.md", root / "gallery" / part / f"{script}.py"
    taken = [path for path in (text, *(root / "gallery").glob(f"*/{script}.py")) if path.exists()]
    if taken:
        raise NewPageError(f"{taken[0].relative_to(root)} exists already (choose another name; a script's: --script)")
    title = title or page.replace("-", " ").capitalize()
    index, outline = root / "book" / part / "index.md", root / OUTLINE
    values = {
        "title": title,
        "underline": "=" * max(len(title), 3),
        "later": LATER,
        "part": part,
        "script": script,
        "label": page,
        "rows": ", ".join(f'"{row}"' for row in rows),
    }
    # All texts are made before the first is written, so that an error leaves nothing half done.
    files = {code: SCRIPT.format(**values), text: PAGE.format(**values)}
    files[index] = with_page(index.read_text(encoding="utf-8"), page)
    if rows:
        files[outline] = without_rows(outline.read_text(encoding="utf-8"), rows)
    header = code.with_name("GALLERY_HEADER.rst")
    if not header.exists():
        files[header] = f"{part}\n{'=' * len(part)}\n\nScripts of this part.\n"
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(files)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="new_page", description="Begin a page of the book.")
    parser.add_argument("name", help="part/page, such as 2-tir/loops")
    parser.add_argument("--title", default="", help="the heading (default: made of the name)")
    parser.add_argument("--script", default="", help="base name of the script (default: made of the part and the name)")
    parser.add_argument("--rows", nargs="*", default=[], help="rows of the outline that the page carries")
    arguments = parser.parse_args(argv)
    try:
        written = create(ROOT, arguments.name, arguments.title, arguments.script, arguments.rows)
    except NewPageError as error:
        print(f"make page: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path.relative_to(ROOT))
    print(f"Next: make live, and write. 'make lint' names the lines that still say {LATER}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
