"""Sizes, import graphs and cycles of a package; the scripts that read TVM's history."""

from __future__ import annotations

import doctest
import random
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tvm_deepdive_helpers import recorded, source_map, tree_map
from tvm_deepdive_helpers.maintain import git_tree, global_functions, tree_history, tree_sizes


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make(
        tmp_path / "pkg",
        {
            "__init__.py": "from . import a, b\n",
            "base.py": "import other\n",
            "a/__init__.py": "from ..b.deep import x\nimport pkg.base, pkg.base\n",
            "a/more.py": "def f():\n    from pkg import c\n    from . import nothing\n",
            "b/__init__.py": ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..a import A\n"),
            "b/deep.py": "from .. import a, c\nfrom . import same\n\n",
            "c/__init__.py": (
                "class C:\n    import pkg.b\ntry:\n    from other.x import y\nexcept ImportError:\n    pass\n"
            ),
            "no_package/x.py": "import pkg.a\n",
        },
    )


def test_import_graph(package: Path) -> None:
    graph = source_map.import_graph(package, ["other"])
    assert graph.parts == ("__init__", "a", "b", "base", "c")
    assert dict(graph.eager) == {
        ("__init__", "a"): 1,
        ("__init__", "b"): 1,
        ("base", "other"): 1,
        ("a", "b"): 1,
        ("a", "base"): 2,
        ("b", "a"): 1,
        ("b", "c"): 1,
        ("c", "b"): 1,
        ("c", "other"): 1,
    }
    assert dict(graph.lazy) == {("a", "c"): 1}
    assert source_map.cycles(graph.eager) == [{"a", "b", "c"}]


def test_sizes(package: Path) -> None:
    sizes = source_map.python_sizes(package)
    assert sizes["b"] == source_map.Room(files=2, lines=6)
    assert "no_package" not in sizes
    assert source_map.tree_sizes(package, {".py"}).files == 8


def test_cycles_against_reachability() -> None:
    """Two nodes share a component exactly if each reaches the other (Warshall's closure)."""
    rng = random.Random(0)
    for _ in range(200):
        size = rng.randint(1, 9)
        edges = [(rng.randrange(size), rng.randrange(size)) for _ in range(rng.randint(0, 16))]
        reach = [[False] * size for _ in range(size)]
        for begin, end in edges:
            reach[begin][end] = True
        for k, i, j in product(range(size), repeat=3):
            reach[i][j] |= reach[i][k] and reach[k][j]
        expected = {frozenset(j for j in range(size) if j == i or (reach[i][j] and reach[j][i])) for i in range(size)}
        found = {frozenset(component) for component in source_map.cycles(edges)}
        assert found == {component for component in expected if len(component) > 1}


def test_squarify_fills_the_rectangle() -> None:
    sizes = {"a": 6, "b": 6, "c": 4, "d": 3, "e": 2, "f": 2, "g": 1}
    boxes = tree_map.squarify(sizes, 6, 4)
    assert boxes["a"] == pytest.approx((0, 0, 3, 2))
    for name, (x, y, width, height) in boxes.items():
        assert width * height == pytest.approx(sizes[name])
        assert min(x, y) >= 0 and x + width <= 6 + 1e-9 and y + height <= 4 + 1e-9
    assert tree_map.squarify({}) == {}


def test_tree_map_writes_names_where_they_fit() -> None:
    fig, ax = tree_map.tree_map({"large": {"": 50, "part": 48}, "s": {"tiny": 1, "tinier": 1}}, height=3)
    fig.canvas.draw()
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert "large\n98" in texts and "part" in texts and "tinier" not in texts
    (inside,) = (text for text in ax.texts if text.get_text() == "part")
    box = inside.get_window_extent().transformed(ax.transData.inverted())
    assert box.x0 >= 0 and box.x1 <= 7


@pytest.mark.parametrize("module", [tree_history, tree_sizes, global_functions])
def test_doctests(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three releases: src/old moves to src/new, src/dead is deleted."""
    root = tmp_path / "checkout"
    root.mkdir()

    def git(*args: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", root, *identity, *args], check=True, capture_output=True)

    git("init", "-q")
    body = "".join(f"int line_{n};\n" for n in range(20))
    make(root, {"src/old/a.cc": body, "src/dead/b.cc": "x\n", "src/ir/op.cc": "y\ny\n", "README": ""})
    git("add", "."), git("commit", "-qm", "1"), git("tag", "v0.9.0")
    git("commit", "-qm", "dev", "--allow-empty"), git("tag", "v0.10.dev0")
    (root / "src/new").mkdir()
    git("mv", "src/old/a.cc", "src/new/a.cc"), git("rm", "-q", "src/dead/b.cc")
    git("commit", "-qm", "2"), git("tag", "v0.10.0")
    return root


def test_history(checkout: Path, tmp_path: Path) -> None:
    assert git_tree.releases(checkout) == ["v0.9.0", "v0.10.0"]
    tree_history.main(["--checkout", str(checkout), "--into", str(tmp_path)])
    rooms = recorded.read_csv(tmp_path / "tvm_rooms.csv")
    assert [tuple(row.values()) for row in rooms] == [
        (".", "v0.9.0", "v0.10.0", "1"),
        ("src/dead", "v0.9.0", "v0.9.0", "1"),
        ("src/ir", "v0.9.0", "v0.10.0", "1"),
        ("src/new", "v0.10.0", "v0.10.0", "1"),
        ("src/old", "v0.9.0", "v0.9.0", "1"),
    ]
    moves = recorded.read_csv(tmp_path / "tvm_moves.csv")
    assert [tuple(row.values()) for row in moves] == [
        ("src/dead", "v0.10.0", "", "1"),
        ("src/old", "v0.10.0", "src/new", "1"),
    ]


def test_sizes_of_a_release(checkout: Path, tmp_path: Path) -> None:
    tree_sizes.main(["--checkout", str(checkout), "--tag", "v0.9.0", "--into", str(tmp_path)])
    rows = {row["directory"]: row for row in recorded.read_csv(tmp_path / "tvm_tree_v0.9.0.csv")}
    assert rows["src/old"]["cpp_lines"] == "20" and rows["src/ir"]["cpp_files"] == "1"
    with pytest.raises(RuntimeError, match=r"v9\.9"):
        git_tree.files(checkout, "v9.9")


def test_data_is_found_from_the_calling_file(tmp_path: Path) -> None:
    make(tmp_path, {"data/x.csv": "# how\na,b\n1,2\n", "part/script.py": ""})
    names = {"__file__": str(tmp_path / "part/script.py"), "data": recorded.data}
    assert eval("data('x.csv')", names) == (tmp_path / "data/x.csv").resolve()
    assert recorded.read_csv(tmp_path / "data/x.csv") == [{"a": "1", "b": "2"}]
    with pytest.raises(FileNotFoundError, match="nope"):
        eval("data('nope.csv')", names)
