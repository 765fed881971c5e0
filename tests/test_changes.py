"""`make changes`: on a small repository, each kind of change is listed with its reason, and nothing else is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import changes

FILES = {
    "src/tvm_deepdive_helpers/__init__.py": "",
    "src/tvm_deepdive_helpers/ir.py": "A = 1\n",
    "src/tvm_deepdive_helpers/bench.py": "B = 1\n",
    "gallery/1-part/one.py": "from tvm_deepdive_helpers import ir\n",
    "gallery/1-part/two.py": 'from tvm_deepdive_helpers import bench\ndata("x.csv")\n',
    "gallery/data/x.csv": "1\n",
    "book/1-part/one.md": "---\ngallery: 1-part/one\n---\n# One\n",
    "book/1-part/two.md": "---\ngallery: 1-part/two\n---\n# Two\n",
    "book/1-part/both.md": "---\ngallery: 1-part/two\n---\n# Both {glue}`1-part/one:n`\n",
    "tests/snapshots/1-part/one.txt": "gallery/1-part/one.py\n\n== cell a\nold\nsame\n\n== cell b\nkept\n",
    "constraints.txt": "numpy==1\n",
    "book/locale/zh_CN/LC_MESSAGES/1-part/one.po": 'msgid ""\n',
    "README.md": "x\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "begin"]):
        run(tmp_path, *command)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def run(root: Path, *args: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *args], cwd=root, check=True, capture_output=True)


def test_nothing_changed(root: Path) -> None:
    assert changes.changes(root, "main") == changes.Changes()
    assert changes.report(changes.Changes()).count("None.") == 5


def test_one_script_runs_that_script_only(root: Path) -> None:
    write(root, "gallery/1-part/one.py", "from tvm_deepdive_helpers import ir\nprint(1)\n")
    found = changes.changes(root, "main")
    assert found.scripts == {"1-part/one": ["gallery/1-part/one.py"]}
    assert found.pages == {
        "book/1-part/both.md": ["gallery/1-part/one.py"],
        "book/1-part/one.md": ["gallery/1-part/one.py"],
    }
    assert not found.other and not found.outputs


@pytest.mark.parametrize(
    ("file", "scripts"),
    [
        ("src/tvm_deepdive_helpers/bench.py", ["1-part/two"]),
        ("src/tvm_deepdive_helpers/sphinxext/gallery_child.py", ["1-part/one", "1-part/two"]),
        ("gallery/data/x.csv", ["1-part/two"]),
        ("src/tvm_deepdive_helpers/__init__.py", ["1-part/one", "1-part/two"]),
        ("book/1-part/one.md", []),
        ("README.md", []),
    ],
)
def test_what_runs_again(root: Path, file: str, scripts: list[str]) -> None:
    write(root, file, FILES.get(file, "") + "# changed\n")
    found = changes.changes(root, "main")
    assert sorted(found.scripts) == scripts
    assert all(why == [file] for why in found.scripts.values())


def test_a_pin_counts_if_it_is_part_of_the_keys(root: Path) -> None:
    write(root, "constraints.txt", "numpy==1\npolib==2\n")
    assert not changes.changes(root, "main").scripts
    write(root, "constraints.txt", "numpy==2\n")
    assert changes.changes(root, "main").scripts == {name: ["constraints.txt"] for name in ("1-part/one", "1-part/two")}


def test_outputs_by_cell(root: Path) -> None:
    write(
        root,
        "tests/snapshots/1-part/one.txt",
        "gallery/1-part/one.py\n\n== cell a\nnew\nsame\n\n== cell b\nkept\n\n== cell c\nadded\n",
    )
    write(root, "tests/snapshots/1-part/three.txt", "gallery/1-part/three.py\n\n== cell z\nfirst\n")
    found = changes.changes(root, "main")
    assert found.outputs == {
        "1-part/one": {"cell a": ["- old", "+ new"], "cell c": ["+ added"]},
        "1-part/three": {"cell z": ["+ first"]},
    }
    assert "book/1-part/one.md" in found.pages and "book/1-part/two.md" not in found.pages
    text = changes.report(found)
    assert "Outputs that changed (3 cells)" in text and "```diff\n- old\n+ new\n```" in text


def test_against_the_point_of_departure(root: Path) -> None:
    """What happened on main since then is not part of the change; commits and loose files of the branch are."""
    run(root, "checkout", "-q", "-b", "work")
    write(root, "book/1-part/one.md", FILES["book/1-part/one.md"] + "More.\n")
    run(root, "commit", "-q", "-a", "-m", "page")
    run(root, "checkout", "-q", "main")
    write(root, "README.md", "main moved\n")
    run(root, "commit", "-q", "-a", "-m", "moved")
    run(root, "checkout", "-q", "work")
    write(root, "book/locale/zh_CN/LC_MESSAGES/1-part/one.po", 'msgid "x"\n')
    write(root, "new.txt", "loose\n")
    found = changes.changes(root, "main")
    assert found.pages == {"book/1-part/one.md": ["book/1-part/one.md"]}
    assert found.translations == ["book/locale/zh_CN/LC_MESSAGES/1-part/one.po"] and found.other == ["new.txt"]
    assert "`book/1-part/one.md`: its text" in changes.report(found)


def test_an_unknown_base(root: Path) -> None:
    with pytest.raises(changes.GitError, match="nowhere"):
        changes.changes(root, "nowhere")
