"""What a release says about itself is the same everywhere."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import tvm_deepdive_helpers

ROOT = Path(__file__).resolve().parents[1]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == tvm_deepdive_helpers.__version__
    assert project["license"] == citation["license"] == "Apache-2.0"


def test_the_readme_names_the_pinned_versions() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for package in ("apache-tvm", "apache-tvm-ffi"):
        version = re.search(rf"^{package}==(.+)$", pins, re.M)
        assert version and f"**{package} {version[1]}**" in readme


def targets() -> list[str]:
    return re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "MAINTAINING.md"])
def test_commands_and_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|\$ )make ((?:[a-z]+ ?)+)", text):
        assert set(target.split()) <= set(targets()), f"make {target}"
    for module in re.findall(r"-m (tvm_deepdive_helpers[\w.]+)", text):
        assert (ROOT / "src" / (module.replace(".", "/") + ".py")).is_file(), module
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:src/tvm_deepdive_helpers|tests|book|gallery|\.ci|\.github)/[\w./-]+)`", text):
        made = path.startswith(("book/gallery", "_build", "tests/snapshots", "book/locale"))
        assert made or (ROOT / path).exists(), path


def test_the_readme_lists_every_target() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in targets():
        assert target == "help" or f"`make {target}" in readme, target


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.findall(r"^step make (\w+)$", script, re.M) == ["lint", "html", "test"]
    assert "bash .ci/run" in (ROOT / ".github/workflows/book.yml").read_text(encoding="utf-8")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target() -> None:
    done = make()
    assert done.returncode == 0
    listed = re.findall(r"^  make (\w+) +\S", done.stdout, re.M)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert phony and set(listed) == set(targets()) == set(phony[1].split()) - {"env"}


def test_a_missing_python_is_said() -> None:
    done = make("env", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "There is no 'no-such-python' on this machine" in done.stderr
    assert "PYTHON=path/to/python3" in done.stderr


def test_symbols_says_what_it_wants() -> None:
    done = make("symbols", "TVM=")
    assert done.returncode != 0
    assert "make symbols TVM=path/to/tvm" in done.stderr
