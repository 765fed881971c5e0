"""The set-up: `.venv` is made, kept, updated, made again, and every failure is one message."""

from __future__ import annotations

import ast
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tvm_deepdive_helpers.maintain import bootstrap

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/tvm_deepdive_helpers/maintain/bootstrap.py")


def write_wheel(folder: Path, name: str, version: str) -> None:
    """A package with one module, as pip takes it."""
    info = f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


class Project:
    """A small project that is set up by the real bootstrap.py, without a network."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self.wheels = wheels
        (root / SOURCE).parent.mkdir(parents=True)
        shutil.copy(ROOT / SOURCE, root / SOURCE)
        (root / "src/tvm_deepdive_helpers/__init__.py").write_text("")
        self.pin("1.0")
        (root / "pyproject.toml").write_text(
            '[project]\nname = "small"\ndependencies = ["deep_a>=1"]\n'
            "[project.optional-dependencies]\nbook = []\ntest = []\ntune = []\nmodels = []\n"
        )

    def pin(self, version: str) -> None:
        (self.root / "constraints.txt").write_text(f"# pins\ndeep_a=={version}\n")

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), **more}

    def start(self, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", str(SOURCE)],
            cwd=self.root,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **more: str) -> tuple[int, str]:
        process = self.start(**more)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def python(self, code: str) -> str:
        command = [self.root / ".venv/bin/python", "-I", "-c", code]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for version in ("1.0", "1.1"):
        write_wheel(tmp_path / "wheels", "deep_a", version)
    root = tmp_path / "the book, ä copy"
    root.mkdir()
    return Project(root, tmp_path / "wheels")


def test_life_of_an_environment(project: Project) -> None:
    """Made once, not made again, updated, made again when it is not to be trusted; one test, because pip is slow."""
    status, output = project.run()
    assert status == 0, output
    assert ".venv is missing; making the environment" in output
    assert "deep_a 1.0" in output and "done in" in output
    assert project.python("import deep_a, tvm_deepdive_helpers as t; print(deep_a.version, t.__file__)") == (
        f"1.0 {project.root}/src/tvm_deepdive_helpers/__init__.py"
    )
    assert not (project.root / ".venv/unfinished").exists()

    assert project.run() == (0, "")

    project.pin("1.1")
    (project.root / ".venv/keep-me").touch()
    status, output = project.run()
    assert status == 0, output
    assert "changed since .venv was made: constraints.txt; updating" in output
    assert project.python("import deep_a; print(deep_a.version)") == "1.1"
    assert (project.root / ".venv/keep-me").exists(), "an update is made in place"

    # An update that fails leaves an environment that is not used, but made anew.
    project.pin("9.9")
    status, output = project.run()
    assert status == 1
    assert "Traceback" not in output
    assert "does not have the pinned version for this machine" in output and "deep-a==9.9" in output
    project.pin("1.1")
    status, output = project.run()
    assert status == 0, output
    assert "left half made" in output
    assert not (project.root / ".venv/keep-me").exists()

    moved = project.root.with_name("moved")
    project.root.rename(moved)
    project.root = moved
    status, output = project.run()
    assert status == 0, output
    assert "the book was moved" in output
    assert project.python("import deep_a; print(deep_a.__file__)").startswith(str(moved))


def test_killed_while_it_works(project: Project) -> None:
    """SIGKILL at any moment: the next run notices, and waits for the pip that the killed one left behind."""
    for wait in (0.05, 0.4, 1.5):
        process = project.start()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status, output = project.run()
    assert status == 0, output
    assert project.python("import deep_a; print(deep_a.version)") == "1.0"


def test_two_at_once(project: Project) -> None:
    first, second = project.start(), project.start()
    outputs = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    assert sorted("done in" in output for output in outputs) == [False, True], "only one does the work"
    assert sum("waiting for it" in output for output in outputs) == 1


def test_an_environment_made_by_hand_is_kept_or_refused(project: Project) -> None:
    bare = project.root / ".venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(bare)], check=True)
    status, output = project.run()
    assert status == 1
    assert "has no pip" in output and "Remove the folder .venv" in output
    assert bare.exists()


def test_no_network(project: Project) -> None:
    status, output = project.run(
        PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1"
    )
    assert status == 1
    assert "no connection to the package index" in output and "HTTPS_PROXY" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        (
            "ERROR: Could not find a version that satisfies the requirement apache-tvm<0.28,>=0.26"
            " (from versions: none)\nERROR: No matching distribution found for apache-tvm<0.28,>=0.26",
            "there is no apache-tvm<0.28,>=0.26 for this machine",
        ),
        ("ERROR: HTTP error 503 while getting https://x/y", "HTTP status 503"),
        ("Could not fetch URL: SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'", "PIP_CERT"),
        (
            "The conflict is caused by:\n    The user requested sphinx>=9\n    a 1 depends on sphinx<9\n"
            "ERROR: ResolutionImpossible: for help visit",
            "a 1 depends on sphinx<9",
        ),
        ("ERROR: [Errno 13] Permission denied: 'x'", "permission denied"),
        ("ERROR: something new", "something new"),
    ],
)
def test_explain(output: str, words: str) -> None:
    text = bootstrap.explain(output, ".venv/install.log")
    assert words in text
    assert "\n" in text, "a cause and a cure"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "  Downloading apache_tvm-0.27.0.post1-py3-none-manylinux_2_28_x86_64.whl (100.5 MB)",
            "apache_tvm 0.27.0.post1",
        ),
        ("  Using cached Sphinx-9.0.4-py3-none-any.whl (3.5 MB)", "Sphinx 9.0.4 (3.5 MB)"),
        ("Processing /some where/numpy-2.4.6-cp311-cp311-linux_x86_64.whl", "numpy 2.4.6"),
        ("Installing collected packages: a, b, c", "installing 3 packages"),
        ("  Downloading sphinx-9.0.4-py3-none-any.whl.metadata (5 kB)", None),
        ("Requirement already satisfied: numpy in x", None),
    ],
)
def test_progress(line: str, told: str | None) -> None:
    answer = bootstrap.Progress(70).line(line + "\n")
    assert (answer is None) if told is None else (told in (answer or ""))


def test_full_disk_is_seen_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(bootstrap.SetupError, match=r"MiB free; the environment needs about"):
        bootstrap.check_space(tmp_path, needed=2**60)


def test_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.check_platform()
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(bootstrap.SetupError, match=r"without ensurepip.*\n.*apt install python3"):
        bootstrap.check_platform()
    monkeypatch.setattr(bootstrap, "fcntl", None)
    with pytest.raises(bootstrap.SetupError, match="use WSL"):
        bootstrap.check_platform()


def test_old_pythons_can_read_the_file() -> None:
    """They must get as far as the message."""
    ast.parse((ROOT / SOURCE).read_text(encoding="utf-8"), feature_version=(3, 6))


def test_old_python_gets_a_message(tmp_path: Path) -> None:
    code = f"import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(open({str(ROOT / SOURCE)!r}).read())"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr and "is 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_lock_is_held(tmp_path: Path) -> None:
    with bootstrap.locked(tmp_path):
        handle = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)


def test_reasons(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    assert bootstrap.reason_to_act(tmp_path, venv) == ".venv is missing"
    (venv / "bin").mkdir(parents=True)
    assert bootstrap.reason_to_act(tmp_path, venv) == "the Python of .venv is gone"
    (venv / "bin/python").symlink_to(sys.executable)
    assert bootstrap.reason_to_act(tmp_path, venv) == bootstrap.BY_HAND
    (venv / "stamp.json").write_text(json.dumps({"root": str(tmp_path), "python": "/gone"}))
    assert bootstrap.reason_to_act(tmp_path, venv) == "the Python of .venv was replaced by another"
    (venv / "stamp.json").write_text("{")
    assert bootstrap.reason_to_act(tmp_path, venv) == bootstrap.BY_HAND
    (venv / "unfinished").touch()
    assert bootstrap.reason_to_act(tmp_path, venv) == ".venv was left half made"


# ------------------------------------------------------------------------------------- the lists of this project


def pins() -> dict[str, str]:
    """Name and version of every line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def needed(texts: list[str], seen: set[str]) -> Iterator[str]:
    """Everything that the requirements need on this machine, as the installed packages say it."""
    for text in texts:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in seen or not any(not requirement.marker or requirement.marker.evaluate({"extra": e}) for e in extras):
            continue
        seen.add(name)
        yield name
        try:
            more = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        yield from needed([r for r in more if "extra ==" not in r], seen)


def test_constraints_pin_all_that_is_needed_and_nothing_else() -> None:
    wanted = set(needed(bootstrap.requirements(ROOT, (*bootstrap.EXTRAS, "compiler")), set()))
    pinned = pins()
    assert sorted(wanted - set(pinned)) == [], "needed, but not pinned in constraints.txt"
    # Other platforms, and an extra that is not installed here, need some more.
    elsewhere = {"colorama", "xgboost", "scipy", "typing-extensions"}
    assert sorted(set(pinned) - wanted - elsewhere) == [], "pinned in constraints.txt, but nothing needs it"


def test_installed_versions_are_the_pinned_ones() -> None:
    different = {}
    for name in needed(bootstrap.requirements(ROOT), set()):
        installed = importlib.metadata.version(name)
        if installed != pins().get(name):
            different[name] = (installed, pins().get(name))
    assert different == {}, "installed and pinned versions differ: run make"


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_the_pinned_ffi_is_not_one_that_crashes() -> None:
    from tvm_deepdive_helpers import ffi_problem

    assert ffi_problem(pins()["apache-tvm"], pins()["apache-tvm-ffi"]) is None
    assert ffi_problem(pins()["apache-tvm"], "0.1.15") is not None
