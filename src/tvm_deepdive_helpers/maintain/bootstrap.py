"""Make the virtual environment of the book, `.venv`, and keep it current.

`make` runs this file before every target that needs the environment::

    python3 -I src/tvm_deepdive_helpers/maintain/bootstrap.py

It needs nothing but Python's standard library. When `.venv` is current it says nothing and ends within a tenth of a
second. When `.venv` is missing, was left half made, has been moved, or was made from another `constraints.txt` or
`pyproject.toml`, it is made (again). Whatever goes wrong is said in one message, with its cure, and the exit status
is 1.

How it stays right when it is killed: the file `.venv/unfinished` is written before anything else and removed after
`.venv/stamp.json`, the last thing written. An environment with the former, or without the latter, is not used.
Two runs at once: the second waits for a lock on the project's folder, which pip inherits, so that the lock lives as
long as pip does, even if this process is killed.

The project itself is not built: a `.pth` file puts `src/` on the environment's path. So no build back end is
needed, and nothing is written outside of `.venv`.
"""

# Python 3.6 must be able to read this file (not to run it), so that a reader with an old Python gets a message and
# not a SyntaxError: no `match`, no `:=`, no parenthesised `with`, and no `from __future__ import annotations`.
# ruff: noqa: E402, UP031
import sys

OLDEST = (3, 11)

if sys.version_info < OLDEST:
    import shutil
    import subprocess

    # A name on the PATH is not enough: pyenv puts names there that do not run.
    names = ("python3.%d" % minor for minor in range(20, OLDEST[1] - 1, -1))
    newer = [n for n in names if shutil.which(n) and not subprocess.call([n, "-c", ""], stderr=subprocess.DEVNULL)]
    if newer:
        cure = "There is a newer one: run  make PYTHON=%s  with the target that you want." % newer[0]
    else:
        cure = "Install Python 3.11 or newer; if it is not called python3, run  make PYTHON=path/to/it  and the target."
    sys.exit(
        "set-up: the book needs Python %d.%d or newer, and %s is %s.\n        %s"
        % (OLDEST[0], OLDEST[1], sys.executable or "this Python", ".".join(map(str, sys.version_info[:3])), cure)
    )

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

try:
    import fcntl
except ImportError:  # Windows; check_platform() says so
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parents[3]
#: The extras of pyproject.toml that the targets of the Makefile need.
EXTRAS = ("book", "test")
INPUTS = ("constraints.txt", "pyproject.toml", "src/tvm_deepdive_helpers/maintain/bootstrap.py")
#: Bytes that a new environment takes on disk, with room for what pip unpacks on the way.
NEEDED = 900 * 2**20
HEARTBEAT = 10.0


class SetupError(Exception):
    """Something that the person in front of the screen can cure; the message says what is wrong and what to do."""


def say(text: str) -> None:
    """Print a line at once, also when the output is a file or a pipe."""
    print(f"set-up: {text}", flush=True)


# ------------------------------------------------------------------------------------------- is .venv current?


def fingerprints(root: Path) -> dict[str, str]:
    """Hash of every file that decides what is in the environment."""
    hashes = {}
    for name in INPUTS:
        try:
            content = (root / name).read_bytes()
        except OSError as error:
            raise SetupError(f"cannot read {name} ({error.strerror}); is this a whole copy of the book?") from None
        # Line ends do not count: git may change them.
        hashes[name] = hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()
    return hashes


def python_of(venv: Path) -> Path:
    """The environment's interpreter."""
    return venv / "bin" / "python"


def read_stamp(venv: Path) -> dict[str, Any]:
    """What the last complete run wrote, or {} if there was none."""
    try:
        stamp = json.loads((venv / "stamp.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


CHANGED = "changed since .venv was made: "
BY_HAND = ".venv was not made by this command"


def reason_to_act(root: Path, venv: Path) -> str | None:
    """Why the environment cannot be used as it is; None if it is current."""
    if not venv.exists():
        return ".venv is missing"
    if (venv / "unfinished").exists():
        return ".venv was left half made"
    python = python_of(venv)
    # Follows links: false as well when the Python that the environment was made with has been removed.
    if not python.exists():
        return "the Python of .venv is gone"
    stamp = read_stamp(venv)
    if not stamp:
        return BY_HAND
    if stamp.get("root") != str(root):
        return "the book was moved, and an environment cannot be"
    if stamp.get("python") != os.path.realpath(python):
        return "the Python of .venv was replaced by another"
    old = stamp.get("inputs", {})
    changed = [name for name, value in fingerprints(root).items() if old.get(name) != value]
    return f"{CHANGED}{' and '.join(changed)}" if changed else None


# --------------------------------------------------------------------------------------------------- before pip


def check_platform() -> None:
    """Refuse what cannot work, before anything is downloaded."""
    if os.name != "posix" or fcntl is None:
        raise SetupError(
            "the book is built on Linux and macOS; this is "
            f"{platform.system()}.\nOn Windows, use WSL: https://learn.microsoft.com/windows/wsl/"
        )
    if sys.maxsize < 2**32:
        raise SetupError("this Python is a 32-bit one, and there is no TVM for it. Use a 64-bit Python.")
    if os.pathsep in str(ROOT):
        raise SetupError(
            f"the folder {ROOT} has a '{os.pathsep}' in its name, and Python cannot make an environment there."
            " Rename it."
        )
    missing = [name for name in ("venv", "ensurepip", "ssl", "zlib") if importlib.util.find_spec(name) is None]
    if missing:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{sys.executable} comes without {', '.join(missing)}, which make the environment.\n"
            f"On Debian and Ubuntu:  apt install python{version}-venv  (else install a complete Python {version})."
        )


def check_space(root: Path, needed: int = NEEDED) -> None:
    """Refuse to begin on a disk that is too full."""
    free = shutil.disk_usage(root).free
    if free < needed:
        raise SetupError(
            f"the disk that holds {root} has {free / 2**20:.0f} MiB free; the environment needs about"
            f" {needed / 2**20:.0f}.\nMake room and run the same command again."
        )


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the lock on the project's folder; yields its file descriptor, for children to inherit."""
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is preparing .venv; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            say("this file system knows no locks: do not run two set-ups at the same time")
        yield handle
    finally:
        os.close(handle)


def requirements(root: Path, extras: Sequence[str] = EXTRAS) -> list[str]:
    """What pyproject.toml asks for, as pip takes it."""
    import tomllib

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"pyproject.toml is not valid TOML: {error}") from None
    except KeyError as error:
        raise SetupError(f"pyproject.toml has no {error}, which lists what to install") from None


# ----------------------------------------------------------------------------------------------------- run pip


def clean_environment() -> dict[str, str]:
    """The environment for pip, without settings that would make it install elsewhere than into .venv."""
    drop = {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_DRY_RUN"}
    drop |= {"__PYVENV_LAUNCHER__", "MAKEFLAGS", "MFLAGS", "PIP_QUIET", "PIP_VERBOSE", "PIP_LOG"}
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    # Messages of pip are read below: in English, whatever the reader's language is.
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "LC_ALL": "C.UTF-8"}


class Progress:
    """Turns pip's output into few lines that show how far it is.

    Parameters
    ----------
    total : int
        Number of packages that may come.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen: set[str] = set()
        self.unreachable = False

    def line(self, text: str) -> str | None:
        """What to tell of a line of pip's output, if anything."""
        found = re.match(
            r"\s*(?:Downloading|Using cached|Processing) (?:.*/)?([\w.]+)-(\d[^-]*)-\S+\.whl(?: \((.*)\))?$", text
        )
        if found:
            name, version, size = found[1], found[2], found[3]
            self.seen.add(name)
            return f"  [{len(self.seen)} of at most {self.total}] {name} {version}" + (f" ({size})" if size else "")
        if text.startswith("Installing collected packages"):
            return f"  installing {text.count(',') + 1} packages ..."
        if "Retrying (Retry(" in text and not self.unreachable:
            self.unreachable = True
            return "  the package index does not answer; pip tries again a few times ..."
        return None


def pump(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    """Copy the lines of a stream into a queue, then None."""
    for text in stream:
        lines.put(text)
    lines.put(None)


def run_logged(command: Sequence[str], log: IO[str], progress: Progress, lock: int) -> tuple[int, str]:
    """Run a command, log what it says, and show that it moves.

    Returns
    -------
    tuple of int and str
        Exit status (negative: the signal that ended it), and all output.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
        pass_fds=(lock,),
        encoding="utf-8",
        errors="replace",
    )
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=pump, args=(process.stdout, lines), daemon=True).start()
    output: list[str] = []
    started = told = time.monotonic()
    try:
        while True:
            try:
                text = lines.get(timeout=1.0)
            except queue.Empty:
                now = time.monotonic()
                if now - told >= HEARTBEAT:
                    say(f"  still working ({now - started:.0f} s)")
                    told = now
                continue
            if text is None:
                return process.wait(), "".join(output)
            output.append(text)
            log.write(text)
            log.flush()
            told_now = progress.line(text)
            if told_now:
                say(told_now)
                told = time.monotonic()
    except BaseException:
        process.terminate()
        process.wait()
        raise


UNREACHABLE = re.compile(
    r"NewConnectionError|Failed to establish a new connection|NameResolutionError|ConnectTimeout|ReadTimeout"
    r"|Max retries exceeded|ProxyError|Connection(Reset|Refused|Aborted)?Error|Network is unreachable"
    r"|Temporary failure in name resolution|RemoteDisconnected|ProtocolError|IncompleteRead"
    r"|Retrying \(Retry\("
)


def explain(output: str, log: str) -> str:
    """Say what made pip fail and what to do, from its output.

    Parameters
    ----------
    output : str
        Everything that pip printed.
    log : str
        Where that stands, for the message.
    """
    here = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if "No space left on device" in output or "Disk quota exceeded" in output or "[Errno 28]" in output:
        return (
            f"the disk is full: the environment needs about {NEEDED / 2**20:.0f} MiB here, and pip a temporary"
            " folder ($TMPDIR).\nMake room and run the same command again."
        )
    if re.search(r"SSLError|CERTIFICATE_VERIFY_FAILED|certificate verify failed", output):
        return (
            "the certificate of the package index was not accepted.\nIf a proxy of your network replaces"
            " certificates, name its certificate file in PIP_CERT; see " + log
        )
    if UNREACHABLE.search(output):
        return (
            "no connection to the package index.\nCheck the network (behind a proxy: set HTTPS_PROXY; with an index"
            f" of your own: PIP_INDEX_URL) and run the same command again. pip's own words: {log}"
        )
    http = re.search(r"(?:HTTP error|HTTPError:?) (\d{3})|(\d{3}) (?:Client|Server) Error", output)
    if http:
        return (
            f"the package index answered with HTTP status {http[1] or http[2]}.\nTry again later, or set PIP_INDEX_URL"
            f" to another index. pip's own words: {log}"
        )
    if "ResolutionImpossible" in output or "conflicting dependencies" in output:
        wants = [line.strip() for line in output.splitlines() if re.search(r" (depends on|requested) ", line)]
        return (
            f"these do not go together, or the package index does not have the pinned version for this machine"
            f" ({here}):\n  " + "\n  ".join(wants[:8]) + "\nIf you changed constraints.txt or pyproject.toml, see"
            ' MAINTAINING.md, "New versions"; else try another index (PIP_INDEX_URL) or Python (make PYTHON=...).'
        )
    missing = re.search(r"No matching distribution found for ([^\s(]+)", output)
    if missing:
        offered = re.search(r"\(from versions: ([^)]*)\)", output)
        if offered and offered[1] != "none":
            detail = "it offers " + ", ".join(offered[1].split(", ")[-4:])
        else:
            detail = "it offers none"
        if missing[1].startswith("apache-tvm"):
            return (
                f"there is no {missing[1]} for this machine ({here}): {detail}.\nTVM comes as wheels for Linux (x86-64"
                " and ARM64, glibc) and macOS (Apple silicon); on other machines use a Linux container.\nIf this is"
                " one of them, the package index in use does not have the release."
            )
        return (
            f"the package index has no {missing[1]} for this machine ({here}): {detail}.\nUse another version of"
            " Python (make PYTHON=python3.12, after rm -rf .venv), or another index (PIP_INDEX_URL)."
        )
    if "Permission denied" in output or "[Errno 13]" in output:
        return f"pip may not write here (permission denied).\nMake the folder of the book writable; see {log}"
    errors = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines()
    return "pip failed:\n  " + "\n  ".join(errors[-6:]) + f"\nAll that it said: {log}"


# ---------------------------------------------------------------------------------------------------- the work


def empty(venv: Path) -> None:
    """Remove everything in a folder but the mark `unfinished`, which comes first: a removal may be killed too."""
    mark = venv / "unfinished"
    mark.touch()
    for path in venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()


def check_by_hand(venv: Path) -> None:
    """Refuse an environment that somebody else made and that cannot be used; it is not ours to remove."""
    code = "import sys, importlib.util as u; print(*sys.version_info[:2], u.find_spec('pip') is not None)"
    done = subprocess.run([str(python_of(venv)), "-I", "-c", code], capture_output=True, encoding="utf-8", check=False)
    words = done.stdout.split()
    if done.returncode != 0 or len(words) != 3:
        raise SetupError("the Python of .venv does not run. Remove the folder .venv and run the same command again.")
    if (int(words[0]), int(words[1])) < OLDEST or words[2] != "True":
        what = "has no pip" if words[2] != "True" else f"is of Python {words[0]}.{words[1]}"
        raise SetupError(
            f".venv was made by something else, and {what}.\nRemove the folder .venv and run the same command again."
        )


def make_venv(venv: Path, lock: int) -> None:
    """Make an empty environment with pip in it."""
    # An isolated interpreter: nothing of the caller's PYTHONPATH or PYTHONHOME gets in.
    command = [sys.executable, "-I", "-m", "venv", str(venv)]
    done = subprocess.run(
        command,
        env=clean_environment(),
        pass_fds=(lock,),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if "No space left" in output or "Disk quota" in output or "[Errno 28]" in output:
        raise SetupError(explain(output, ""))
    if "ensurepip" in output:
        raise SetupError(
            f"{sys.executable} cannot put pip into a new environment.\nOn Debian and Ubuntu:  apt install"
            f" python{sys.version_info[0]}.{sys.version_info[1]}-venv  (else install a complete Python)."
        )
    last = [line for line in output.splitlines() if line.strip()][-3:]
    raise SetupError("python -m venv failed:\n  " + "\n  ".join(last))


def link_sources(root: Path, venv: Path) -> None:
    """Put src/ on the path of the environment, by a relative path: no encoding or space can spoil it."""
    for site in venv.glob("lib/python3*/site-packages"):
        target = os.path.relpath(root / "src", site)
        (site / "tvm_deepdive_src.pth").write_text(target + "\n", encoding="ascii")


def install(root: Path, venv: Path, lock: int) -> None:
    """Install what pyproject.toml asks for, in the versions of constraints.txt."""
    constraints = root / "constraints.txt"
    lines = constraints.read_text(encoding="utf-8").splitlines()
    total = sum(1 for text in lines if re.match(r"[A-Za-z0-9]", text))
    log = venv / "install.log"
    command = [
        str(python_of(venv)), "-I", "-m", "pip", "install", "--no-user", "--progress-bar", "off",
        # Wheels only: a source package would be compiled here for an hour, or fail in a way nobody can read.
        "--only-binary", ":all:",
        "--constraint", str(constraints), *requirements(root),
    ]  # fmt: skip
    with log.open("w", encoding="utf-8") as stream:
        status, output = run_logged(command, stream, Progress(total), lock)
        if status != 0:
            raise SetupError(explain(output, os.path.relpath(log, root)))
        status, output = run_logged([*command[:4], "check"], stream, Progress(0), lock)
    if status != 0:
        raise SetupError("the packages do not fit together:\n  " + "\n  ".join(output.strip().splitlines()[:8]))


def prepare(root: Path) -> bool:
    """Bring the environment of the project at `root` up to date.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    SetupError
        With a message for the reader. The environment is then left marked as unfinished.
    """
    venv = root / ".venv"
    if reason_to_act(root, venv) is None:
        return False
    check_platform()
    with locked(root) as lock:
        reason = reason_to_act(root, venv)  # another make may have done the work meanwhile
        if reason is None:
            return False
        started = time.monotonic()
        # An environment that was complete, and only its lists changed, is updated in place: that takes seconds.
        # So is one that a person made by hand. All others are not worth trusting.
        keep = reason.startswith(CHANGED) or reason == BY_HAND
        if keep:
            check_by_hand(venv)
            say(f"{reason}; updating the environment")
        else:
            check_space(root)
            say(f"{reason}; making the environment (about 700 MB, some minutes; Python {platform.python_version()})")
            if venv.is_symlink():
                raise SetupError(".venv is a link to somewhere else; remove the link and run the same command again")
            if venv.exists():
                empty(venv)
            venv.mkdir(exist_ok=True)
        (venv / "unfinished").touch()
        inputs = fingerprints(root)  # now: a file that is edited while pip runs makes the next make act again
        if not keep:
            make_venv(venv, lock)
        install(root, venv, lock)
        link_sources(root, venv)
        stamp = {
            "inputs": inputs,
            "root": str(root),
            "python": os.path.realpath(python_of(venv)),
        }
        fresh = venv / "stamp.json.new"
        fresh.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        fresh.replace(venv / "stamp.json")
        (venv / "unfinished").unlink()
        say(f"done in {time.monotonic() - started:.0f} s")
    return True


def fail(text: str) -> NoReturn:
    """Print the message, indented under its first line, and end with status 1."""
    print("set-up: " + text.replace("\n", "\n        "), file=sys.stderr, flush=True)
    sys.exit(1)


def main() -> None:
    """Entry point: prepare, and turn every failure into one message."""
    try:
        prepare(ROOT)
    except SetupError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the next make begins the environment anew")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(explain("No space left on device", ""))
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fail(f"cannot write{where}: {error.strerror}. Make the folder of the book writable.")
        fail(f"{error.strerror or error}{where}")


if __name__ == "__main__":
    main()
