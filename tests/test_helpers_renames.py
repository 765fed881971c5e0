"""Names of older texts: the table is read strictly, and a row that is wrong is found."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tvm_deepdive_helpers.renames import Rename, find, old_outcome, read_renames, resolve, run, try_row

TABLE = Path(__file__).resolve().parent.parent / "gallery/data/renames.toml"
ROW = Rename(area="Tensors", old="os.gone_name", new="os.getcwd", call="os.getcwd()")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "renames.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_real_table_is_readable() -> None:
    rows = read_renames(TABLE)
    assert len(rows) > 300
    assert all(row.area and row.old and row.new and row.call for row in rows)
    assert find(rows, "ASNUMPY")[0].new == "Tensor.numpy()"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[name]]\nold = 'a'\n", r"row 1 \(a\): .*missing"),
        ("[[name]]\narea = 'A'\nold = 'a'\nnew = 'b'\ncall = 'c'\ncolour = 'x'\n", r"row 1 \(a\): .*colour"),
        ("[[name]]\narea = 'A'\nold = 'a'\nnew = 'b'\ncall = 'c'\n" * 2, "row 2: 'a' stands there twice"),
        ("[[name]]\narea = 'A'\nold = 'a'\nnew = 'b'\ncall = 'c'\nprobe = 'a'\n", "a probe needs an outcome"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_renames(write(tmp_path, text))


def test_resolve() -> None:
    assert resolve("os.path.join") is __import__("os").path.join
    assert resolve("concurrent.futures.thread").__name__ == "concurrent.futures.thread"
    with pytest.raises(AttributeError, match=r"no os\.nothing"):
        resolve("os.nothing.at_all")
    with pytest.raises(ImportError):
        resolve("no_such_package.part")


def test_run_gives_the_last_expression_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("x = 'ü'; y = x * n; y + '!'", {"n": 2}) == "üü!"
    assert run("open('file', 'w').close()\nfor i in range(3): pass", {}) is None
    assert list(tmp_path.iterdir()) == [] and Path.cwd() == tmp_path


def test_a_right_row_and_wrong_ones() -> None:
    names = {"os": __import__("os")}
    assert try_row(ROW, names) == []
    exists = dataclasses.replace(ROW, old="os.path")
    assert try_row(exists, names) == ["os.path: the old name ends as 'works', the table says 'gone'"]
    broken = dataclasses.replace(ROW, call="os.nothing()")
    assert "the new call fails: AttributeError" in try_row(broken, names)[0]
    refused = dataclasses.replace(ROW, probe="int('x')", outcome="TypeError|ValueError")
    assert try_row(refused, names) == []
    warns = dataclasses.replace(ROW, probe="import warnings\nwarnings.warn('old', DeprecationWarning)", outcome="warns")
    assert old_outcome(warns, {}) == "warns"


def test_a_row_whose_package_is_missing_is_not_run() -> None:
    row = dataclasses.replace(ROW, call="import no_such_package", needs="no_such_package")
    assert row.missing and try_row(row, {}) == []
