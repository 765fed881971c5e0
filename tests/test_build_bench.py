"""The measurement of builds: the same content for each tool, edits that change one thing, and the record."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import build_bench

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("tool", build_bench.TOOLS, ids=lambda tool: tool.folder)
def test_every_tool_gets_the_same_content(tool: build_bench.Tool, tmp_path: Path) -> None:
    folder = tmp_path / tool.folder
    tool.write(folder, 2)
    assert " " not in tool.folder
    ast.parse((folder / "conf.py").read_text())
    everything = "\n".join(path.read_text() for path in sorted(folder.rglob("*.*")) if path.is_file())
    for n in (1, 2):
        assert everything.count(f"Chapter {n} looks at paragraph") == 12
        assert f"sum(range({n}, 1000)) + 0)" in everything
    before = {path: path.read_text() for path in folder.rglob("*.*") if path.is_file()}
    build_bench.edit(folder / tool.page, "page", 7)
    build_bench.edit(folder / tool.script, "script", 7)
    changed = [path for path, text in before.items() if path.read_text() != text]
    assert len(changed) == len({tool.page, tool.script})
    assert "Edit 7." in (folder / tool.page).read_text() and "+ 7)" in (folder / tool.script).read_text()


def test_a_command_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        build_bench.measure(["sh", "-c", "echo no such thing; exit 3"], tmp_path)
    assert build_bench.measure(["true"], tmp_path)["cpu"] < 5


def test_the_record_names_the_machine_and_no_more() -> None:
    text = (ROOT / build_bench.DATA).read_text(encoding="utf-8")
    content = json.loads(text)
    for part in ("peers", "growth"):
        assert content[part]["machine"].keys() <= {"cpu", "cores", "os", "arch", "python", "tvm", "tvm-ffi", "sphinx"}
    for steps in content["peers"]["tools"].values():
        assert steps.keys() == set(build_bench.STEPS)
    assert "/" not in text.replace("python -m", "")
