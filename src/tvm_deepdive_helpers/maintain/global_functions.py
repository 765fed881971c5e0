"""Write in which C++ file each global function of TVM is registered, at one release.

C++ hands a function to Python by a name:
``refl::GlobalDef().def("relax.transform.FuseOps", FuseOps)``. This script reads those
registrations from git and writes ``gallery/data/tvm_global_functions_<tag>.csv``::

    python -m tvm_deepdive_helpers.maintain.global_functions --checkout path/to/tvm --tag v0.26.0

Names that a macro puts together are not found: they do not stand in the text.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..recorded import write_csv
from .git_tree import arguments, blobs, files

_SUFFIXES = {".cc", ".cpp", ".h", ".cu", ".mm"}
_DEF = re.compile(r'\.\s*def(?:_packed|_method)?\s*\(\s*"([\w.-]*[\w-])"')
_OWNER = re.compile(r"\b(\w+Def)\b")


def registrations(text: str) -> list[str]:
    """Names that a C++ text registers as global functions.

    Methods of classes are registered with ``.def`` as well, on an ``ObjectDef``; their names hold
    no dot. A name without a dot counts if the nearest ``…Def`` before it is a ``GlobalDef``.

    >>> registrations('refl::GlobalDef().def("a.b", f).def_packed("c", g);')
    ['a.b', 'c']
    >>> registrations('refl::ObjectDef<X>().def("method", &X::f);')
    []
    """
    owners = [(match.start(), match[1]) for match in _OWNER.finditer(text)]
    found = []
    for match in _DEF.finditer(text):
        before = [owner for begin, owner in owners if begin < match.start()]
        if "." in match[1] or (before and before[-1] == "GlobalDef"):
            found.append(match[1])
    return found


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    args = arguments(__doc__, tag=True).parse_args(argv)
    wanted = {
        path: oid
        for path, oid in files(args.checkout, args.tag).items()
        if path.startswith(("src/", "include/")) and PurePosixPath(path).suffix in _SUFFIXES
    }
    rows = {
        (name, path)
        for path, text in zip(wanted, blobs(args.checkout, wanted.values()), strict=True)
        for name in registrations(text.decode("utf-8", "replace"))
    }
    into = args.into / f"tvm_global_functions_{args.tag}.csv"
    write_csv(into, f"global_functions --checkout TVM --tag {args.tag}", ("name", "file"), sorted(rows))
    print(f"{into}: {len(rows)} registrations")


if __name__ == "__main__":
    main()
