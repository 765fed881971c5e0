"""Write the sizes of TVM's directories at one release.

The compiler's C++ is not in the wheel, so a page cannot count it while the book is built. This
script counts it once, from git, and writes ``gallery/data/tvm_tree_<tag>.csv``::

    python -m tvm_deepdive_helpers.maintain.tree_sizes --checkout path/to/tvm --tag v0.26.0

Lines are newline characters: blank lines, comments and licence headers count. Only C++ and
Python files count; submodules under ``3rdparty`` are not part of the tree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ..recorded import write_csv
from .git_tree import arguments, blobs, files

LANGUAGES = {
    **dict.fromkeys((".cc", ".cpp", ".c", ".h", ".hpp", ".cu", ".cuh", ".mm"), "cpp"),
    **dict.fromkeys((".py", ".pyi"), "python"),
}
DEPTH = {"src": 3, "include": 3, "python": 4}
FIELDS = ("directory", "cpp_files", "cpp_lines", "python_files", "python_lines")


def directory_of(path: str) -> str:
    """Directory that a file is counted under.

    Below ``src``, ``include/tvm`` and ``python/tvm`` two levels are kept, elsewhere one or two.

    >>> directory_of("src/relax/transform/fuse_ops.cc")
    'src/relax/transform'
    >>> directory_of("src/ir/op.cc")
    'src/ir'
    >>> directory_of("tests/python/relax/test_op.py")
    'tests/python'
    """
    parts = PurePosixPath(path).parts[:-1]
    return "/".join(parts[: DEPTH.get(parts[0], 2)]) if parts else "."


def count(sizes: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Add up lines by directory and language.

    Parameters
    ----------
    sizes
        Path -> number of lines.

    Returns
    -------
    dict
        Directory -> the numeric columns of ``FIELDS``.
    """
    table: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(FIELDS[1:], 0))
    for path, lines in sizes.items():
        language = LANGUAGES.get(PurePosixPath(path).suffix)
        if language:
            row = table[directory_of(path)]
            row[f"{language}_files"] += 1
            row[f"{language}_lines"] += lines
    return dict(table)


def measure(checkout: Path, tag: str) -> dict[str, dict[str, int]]:
    """Directory -> sizes, at one tag of a clone of TVM."""
    counted = {path: oid for path, oid in files(checkout, tag).items() if PurePosixPath(path).suffix in LANGUAGES}
    contents = blobs(checkout, counted.values())
    return count({path: text.count(b"\n") for path, text in zip(counted, contents, strict=True)})


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    args = arguments(__doc__, tag=True).parse_args(argv)
    table = measure(args.checkout, args.tag)
    rows = [[directory, *(sizes[field] for field in FIELDS[1:])] for directory, sizes in sorted(table.items())]
    into = args.into / f"tvm_tree_{args.tag}.csv"
    write_csv(into, f"tree_sizes --checkout TVM --tag {args.tag}", FIELDS, rows)
    print(f"{into}: {len(rows)} directories")


if __name__ == "__main__":
    main()
