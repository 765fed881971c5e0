"""Run every gallery script that has to run, before sphinx-gallery looks at the gallery.

Each script runs in a process of its own, forked from one helper process that imported TVM once (the Sphinx process
itself never loads TVM: it may fork readers with ``-j``, and a fork beside a threaded native library can hang). When
sphinx-gallery's own pass follows, every page is there and up to date, and it runs nothing.

A script is *current* when its stamp, written last, names the same key as now and every file it lists is unchanged.
The key covers the script, the helper modules it imports, the recorded data it reads, this runner, and the versions of
Python, TVM, tvm-ffi, NumPy, matplotlib and sphinx-gallery. So a process killed at any moment leaves no stamp, and the
next build runs the script again.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import gc
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import site
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sphinx.errors import ConfigError
from sphinx.util import logging
from sphinx_gallery import gen_gallery

from . import gallery_child, records, scripts

GARBAGE = gc.get_threshold()
logger = logging.getLogger(__name__)

HELPERS = Path(__file__).resolve().parent.parent
#: Distributions whose version is part of every script's key.
VERSIONS = ("apache-tvm", "apache-tvm-ffi", "numpy", "matplotlib", "sphinx-gallery")
#: Files of this runner whose text decides what a run leaves behind.
OWN_FILES = ("gallery_child.py", "scripts.py", "records.py")
STAMP = ".stamp.json"
#: Seconds that a script's own child processes get to end after it.
GRACE = 2.0


@dataclass(frozen=True)
class Failure:
    """Why a script has no page."""

    script: str
    line: int | None
    reason: str
    details: str = ""

    def __str__(self) -> str:
        place = f"gallery/{self.script}.py" + (f":{self.line}" if self.line else "")
        text = f"{place}: {self.reason}"
        return text + ("\n    " + self.details.strip().replace("\n", "\n    ") if self.details.strip() else "")


def versions() -> dict[str, str]:
    """Versions that stand in every record."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {"python": platform.python_version(), **found}


def inputs(script: scripts.Script, data_dir: Path) -> list[Path]:
    """The files that decide what a script prints: itself, the helpers it imports, recorded data, this runner."""
    own = [Path(__file__).with_name(name) for name in OWN_FILES]
    always = [HELPERS / "figures.py", HELPERS / "book.py"]
    data = [data_dir / name for name in script.data]
    return list(dict.fromkeys([script.path, *scripts.imported_helpers(script.path, HELPERS), *always, *own, *data]))


def script_key(script: scripts.Script, files: list[Path], facts: dict[str, str]) -> str:
    """The hash of everything that decides what a script prints.

    Parameters
    ----------
    script
        The parsed script.
    files
        See :func:`inputs`.
    facts
        Versions, see :func:`versions`.
    """
    digest = hashlib.sha256(json.dumps([facts, platform.machine(), script.name]).encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"absent")
    return digest.hexdigest()


def _state(path: Path) -> list[int] | None:
    """Size and time of last change, or None for a file that is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def untouched(stamp: Path, root: Path, facts: dict[str, str]) -> bool:
    """Whether nothing was even written since the stamp: the quick answer, without reading or parsing any file."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        return content["facts"] == facts and all(
            state is not None and state == _state(root / name) for name, state in content["seen"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_current(stamp: Path, key: str) -> bool:
    """Whether the run that wrote ``stamp`` had this key, and left files that nobody changed since."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
        return content["key"] == key and all(
            _hash(stamp.parent / name) == value for name, value in content["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _outputs(out_dir: Path, stem: str) -> list[Path]:
    """Every file that one script leaves in the output folder, but for the stamp."""
    # The dot after the stem keeps `ir` from claiming the files of `ir_nodes`.
    pages = [p for p in out_dir.glob(f"{stem}.*") if not p.name.endswith(STAMP)]
    images = re.compile(rf"sphx_glr_{re.escape(stem)}_(\d{{3}}(_dark)?|thumb)\.\w+")
    pictures = [
        p
        for folder in ("images", "images/thumb")
        for p in (out_dir / folder).glob(f"sphx_glr_{stem}_*")
        if images.fullmatch(p.name)
    ]
    return sorted(pages + pictures)


def forget(out_dir: Path, stem: str) -> None:
    """Remove everything a script left: stamp first, so that an interrupted removal counts as not run."""
    (out_dir / f"{stem}{STAMP}").unlink(missing_ok=True)
    for path in _outputs(out_dir, stem):
        path.unlink(missing_ok=True)


def run_gallery(app: Any) -> None:
    """Handler of ``builder-inited``: bring every record up to date, or fail the build."""
    conf = app.config.sphinx_gallery_conf
    source = Path(app.srcdir, _only(conf["examples_dirs"])).resolve()
    out = Path(app.srcdir, _only(conf["gallery_dirs"])).resolve()
    if not conf["plot_gallery"]:
        return
    out.mkdir(parents=True, exist_ok=True)
    only = frozenset(app.config.gallery_only)
    with _lock(out / ".lock"):
        failures = _bring_up_to_date(app, conf, source, out, only)
    if failures:
        _drop_pages(app, out, failures)
        lines = "\n".join(str(failure) for failure in failures)
        logger.error("%d gallery script(s) failed:\n%s", len(failures), lines, nonl=False)
        # An exception of Sphinx's own would bury these lines under a traceback of Sphinx and a plea to report it.
        raise SystemExit(2)
    if only:
        raise SystemExit(0)  # the results were wanted, not a book that lacks the rest


def _only(value: Any) -> str:
    """The one folder that sphinx-gallery's settings name."""
    values = [value] if isinstance(value, (str, os.PathLike)) else list(value)
    if len(values) != 1:
        raise ConfigError(f"examples_dirs and gallery_dirs name one folder each here, not {values}")
    return str(values[0])


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Two builds at once take turns; the lock goes with the process that held it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another build that runs the gallery …")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bring_up_to_date(
    app: Any, conf: dict[str, Any], source: Path, out: Path, only: Collection[str] = ()
) -> list[Failure]:
    failures: list[Failure] = []
    facts = versions()
    paths = sorted(source.glob("*/*.py"))
    _remove_strangers(out, {path.relative_to(source).with_suffix("").as_posix() for path in paths})
    stale: list[tuple[gallery_child.Job, str, list[Path]]] = []
    root = source.parent
    for path in paths:
        name = path.relative_to(source).with_suffix("").as_posix()
        out_dir = out / path.parent.name
        stamp = out_dir / f"{path.stem}{STAMP}"
        if only and name not in only:
            continue
        if untouched(stamp, root, facts):
            continue
        try:
            script = scripts.parse(path, name)
        except scripts.ScriptError as err:
            match = re.match(r".*?\.py:(\d+): (.*)", str(err), re.S)
            failures.append(Failure(name, int(match[1]) if match else None, match[2] if match else str(err)))
            forget(out_dir, path.stem)
            continue
        files = inputs(script, source / "data")
        key = script_key(script, files, facts)
        if is_current(stamp, key):
            _write_stamp(stamp, path.stem, key, files, root, facts)  # the next build takes the quick way again
            continue
        (out_dir / "images" / "thumb").mkdir(parents=True, exist_ok=True)
        job = gallery_child.Job(script, path.parent, out_dir, conf, _today(), facts, replacements(Path(app.confdir)))
        stale.append((job, key, files))
    if stale:
        failures += _run_all(stale, root, total=len(paths))
    elif paths:
        logger.info("gallery: %d scripts, none has to run", len(paths))
    _write_status(out, [path.relative_to(source).with_suffix("").as_posix() for path in paths])
    return failures


def _today() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC) if epoch else datetime.datetime.now(datetime.UTC)
    return now.date().isoformat()


def replacements(root: Path) -> tuple[tuple[str, str], ...]:
    """Paths of this machine, longest first, and what stands for them in the book, whose folder is ``root``."""
    pairs = {f"{folder}/": "" for folder in site.getsitepackages() if len(folder) > 1}
    spec = importlib.util.find_spec("numpy")
    if spec and spec.origin:
        pairs[f"{Path(spec.origin).parent.parent}/"] = ""
    root = root.resolve()
    pairs |= {
        f"{root}/": "",
        f"{sys.prefix}/": "<venv>/",
        f"{sys.base_prefix}/": "<python>/",
        f"{tempfile.gettempdir()}/": "<tmp>/",
    }
    pairs |= {str(root): ".", str(Path.home()): "~"}
    return tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0])))


def _remove_strangers(out: Path, names: set[str]) -> None:
    """Remove what scripts left that no longer exist, and half-written files of a killed build."""
    for stamp_or_page in [*out.glob(f"*/*{STAMP}"), *out.glob("*/*.rst"), *out.glob(f"*/*{records.SUFFIX}")]:
        stem = stamp_or_page.name.removesuffix(STAMP).removesuffix(records.SUFFIX).removesuffix(".rst")
        if stem != "index" and f"{stamp_or_page.parent.name}/{stem}" not in names:
            forget(stamp_or_page.parent, stem)
    for leftover in out.rglob("*.new"):
        leftover.unlink(missing_ok=True)
    parts = {name.split("/")[0] for name in names}
    for folder in out.iterdir():
        if folder.is_dir() and folder.name not in parts:
            shutil.rmtree(folder)


def _write_status(out: Path, names: list[str]) -> None:
    """One small file that changes when any record does: the status page depends on it alone."""
    rows = []
    for name in names:
        with contextlib.suppress(records.RecordError):
            record = records.load(records.record_path(out, name))
            rows.append(
                {
                    "script": name,
                    "title": record.title,
                    "seconds": record.seconds,
                    "date": record.date,
                    "cells": len(record.cells),
                    "versions": record.versions,
                }
            )
    text = json.dumps(rows, indent=1, sort_keys=True) + "\n"
    path = out / "status.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        records.write_atomically(path, text)


def _drop_pages(app: Any, out: Path, failures: list[Failure]) -> None:
    """Remove built pages that show a failed script, so that no old output stays behind."""
    broken = {str(records.record_path(out, failure.script)) for failure in failures}
    pages = {f"{out.name}/{failure.script}" for failure in failures}
    for docname, files in app.env.dependencies.items():
        if any(str(Path(app.srcdir, file).resolve()) in broken for file in files):
            pages.add(docname)
    for page in pages:
        with contextlib.suppress(NotImplementedError):
            if hasattr(app.builder, "get_outfilename"):
                Path(app.builder.get_outfilename(page)).unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------------------------------
# The helper process: forked once, imports TVM once, forks one child a script.


def _run_all(stale: list[tuple[gallery_child.Job, str, list[Path]]], root: Path, total: int) -> list[Failure]:
    logger.info("gallery: %d of %d scripts have to run", len(stale), total)
    for job, _, _ in stale:
        forget(job.out_dir, job.script.path.stem)
    receiver, sender = Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        receiver.close()
        _serve([job for job, _, _ in stale], sender)
    sender.close()
    failures: list[Failure] = []
    running: gallery_child.Job | None = None
    try:
        for number, (job, key, files) in enumerate(stale, 1):
            running = job
            try:
                failure, seconds = receiver.recv()
            except EOFError:
                failure, seconds = Failure(job.script.name, None, "the process that runs the gallery ended"), 0.0
            logger.info(
                "[%*d/%d] %-55s %6.1f s%s",
                len(str(len(stale))),
                number,
                len(stale),
                f"gallery/{job.script.name}.py",
                seconds,
                "" if failure is None else "  FAILED",
            )
            if failure is not None:
                forget(job.out_dir, job.script.path.stem)
                failures.append(failure)
                if failure.reason.startswith("the process that runs"):
                    break
                continue
            stem = job.script.path.stem
            settle_archive(job.out_dir / f"{stem}.zip")
            _write_stamp(job.out_dir / f"{stem}{STAMP}", stem, key, files, root, job.versions)
    except KeyboardInterrupt:
        name = running.script.name if running else ""
        logger.warning("interrupted while gallery/%s.py ran", name)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        receiver.close()
    return failures


def settle_archive(path: Path) -> None:
    """Write the archive of a script anew without the times of its files: the same files give the same bytes."""
    if not path.is_file():
        return
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    temporary = path.with_name(f"{path.name}.new")
    with zipfile.ZipFile(temporary, "w") as archive:
        for name, data in sorted(content.items()):
            info = zipfile.ZipInfo(name)  # of 1980, the first year of the format
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    temporary.replace(path)


def _listing(folder: Path) -> set[str]:
    """Files below ``folder``, without what Python and editors put there."""
    found = (path.relative_to(folder.parent).as_posix() for path in folder.rglob("[!.]*[!~]") if path.is_file())
    return {name for name in found if "__pycache__" not in name}


def _write_stamp(stamp: Path, stem: str, key: str, files: list[Path], root: Path, facts: dict[str, str]) -> None:
    """Say, last of all, that the run of a script is complete."""
    outputs = _outputs(stamp.parent, stem)
    content = {
        "key": key,
        "files": {path.relative_to(stamp.parent).as_posix(): _hash(path) for path in outputs},
        "facts": facts,
        "seen": {os.path.relpath(path, root): _state(path) for path in [*files, *outputs]},
    }
    records.write_atomically(stamp, json.dumps(content, indent=1))


def _serve(jobs: list[gallery_child.Job], sender: Connection) -> None:
    """Body of the helper process; never returns."""
    state: dict[str, int] = {}

    def stop(*_: object) -> None:
        if "pid" in state:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(state["pid"], signal.SIGKILL)
        os._exit(1)

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, stop)
        gallery_child.die_with_parent(signal.SIGTERM)
        with contextlib.suppress(ImportError):
            from sphinx_gallery.scrapers import _import_matplotlib

            _import_matplotlib()  # choose the backend that needs no screen
            import tvm  # noqa: F401 - imported once, inherited by every child
        # What a script prints may depend on when Python collects garbage: it finds the settings that it has by itself
        # (`speed` changes those of Sphinx), and nothing of Sphinx's to collect.
        gc.set_threshold(*GARBAGE)
        gc.collect()
        gc.freeze()
        for job in jobs:
            started = time.perf_counter()
            failure = run_one(job, state)
            sender.send((failure, time.perf_counter() - started))
    except BaseException:  # noqa: BLE001 - the parent sees the closed pipe
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_one(job: gallery_child.Job, state: dict[str, int] | None = None) -> Failure | None:
    """Fork, run one script, and wait for it; kill it and all it started when its time is over.

    Returns
    -------
    Failure or None
        None when the script ran to its end, and left its page and its record.
    """
    state = {} if state is None else state
    before = _listing(job.src_dir)
    with tempfile.TemporaryDirectory(prefix="tvm-deepdive-") as folder:
        trace, result = Path(folder, "trace"), Path(folder, "result")
        pid = os.fork()
        if pid == 0:
            gallery_child.main(job, trace, result)
        state["pid"] = pid
        status = _wait(pid, job.script.timeout + 1.0)
        left = _end_group(pid, grace=GRACE if status is not None else 0.0)
        if status is None:
            _, status = os.waitpid(pid, 0)
            reason = (
                f"no end after {job.script.timeout:g} s, killed; "
                "a script may ask for more with '# gallery: timeout=SECONDS'"
            )
            return Failure(job.script.name, _dumped_line(trace, job) or _block_line(trace), reason)
        state.pop("pid", None)
        if result.is_file():
            answer = json.loads(result.read_text(encoding="utf-8"))
            if answer["ok"] and left:
                return Failure(
                    job.script.name, None, f"it left processes running: {', '.join(left)}; stop what you start"
                )
            after = _listing(job.src_dir)
            if answer["ok"] and before - after:
                reason = f"it removed {', '.join(sorted(before - after))} beside itself; git can bring it back"
                return Failure(job.script.name, None, reason)
            written = after - before
            if answer["ok"] and written:
                reason = f"it wrote {', '.join(sorted(written))} beside itself; scripts write to temporary folders only"
                return Failure(job.script.name, None, reason)
            if answer["ok"]:
                return None
            match = (
                re.match(r".*?\.py:(\d+): (.*)", answer["error"], re.S) if "ScriptError" in answer["error"] else None
            )
            line = int(match[1]) if match else answer["line"]
            return Failure(job.script.name, line, match[2] if match else answer["error"], answer["traceback"])
        if os.WIFSIGNALED(status):
            reason = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        else:
            reason = f"the process ended itself with exit code {os.waitstatus_to_exitcode(status)}"
        line = _dumped_line(trace, job)
        if line is None:  # SIGKILL and os._exit leave no stack
            return Failure(job.script.name, _block_line(trace), f"{reason}, in the block that begins here")
        return Failure(job.script.name, line, reason)


def _wait(pid: int, limit: float) -> int | None:
    """The wait status of a child, or None when it still runs at the limit."""
    deadline = time.monotonic() + limit
    pause = 0.005
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return None


def _end_group(group: int, grace: float) -> list[str]:
    """Kill what is left of a script's process group after ``grace`` seconds; say what it was."""
    deadline = time.monotonic() + grace
    while True:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return []
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    names = _group_commands(group)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return names or ["unknown"]


def _group_commands(group: int) -> list[str]:
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                command = (stat.parent / "cmdline").read_bytes().split(b"\0")
                names.append(" ".join(Path(part.decode()).name for part in command[:3] if part))
    return names


def _dumped_line(trace: Path, job: gallery_child.Job) -> int | None:
    """The line of the script that ran when faulthandler dumped the stack."""
    with contextlib.suppress(OSError):
        if found := re.search(
            rf'File "{re.escape(str(job.script.path))}", line (\d+)', trace.read_text(errors="replace")
        ):
            return int(found[1])
    return None


def _block_line(trace: Path) -> int | None:
    """The first line of the block that ran last."""
    with contextlib.suppress(OSError, ValueError):
        return int(trace.with_suffix(".at").read_text())
    return None


def setup(app: Any) -> dict[str, Any]:
    # sphinx-gallery loads matplotlib at every start, which is a third of a build that has nothing to do. Only the
    # process that runs scripts needs it. (tests/test_gallery_run.py watches the name.)
    gen_gallery._import_matplotlib = lambda: None
    # Names of scripts: run these, and end (tvm_deepdive_helpers.maintain.shards).
    app.add_config_value("gallery_only", [], "", frozenset({list, tuple}))
    # After sphinx-gallery completed its configuration (priority 10), before it generates pages (500).
    app.connect("builder-inited", run_gallery, priority=50)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
