"""What happens inside the process that runs one gallery script.

sphinx-gallery 0.22 runs scripts inside the Sphinx process, one after the other in one set of registries, captures
only what Python writes, and hands nobody the output of a single block. Here its own ``generate_file_rst`` runs in a
forked child, with three of its functions replaced *in that child only*:

``_LoggingTee``
    writes to a file that also is file descriptors 1 and 2, so that the output of C++ and of subprocesses lands in the
    right place between Python's;
``execute_code_block``
    is wrapped, to keep code, output and figures of each block for the record (:mod:`.records`).

``tests/test_gallery_run.py`` fails when one of them is renamed or changes its arguments upstream.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import json
import logging
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import records, scripts

ANSI = re.compile(r"\x1B(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")
#: Addresses of a position-independent executable's heap, stack and libraries on 64-bit Linux.
ADDRESS = re.compile(r"\b0x(?:7[0-9a-f]|5[5-6])[0-9a-f]{8,10}\b")

#: The time of day with which TVM's C++ begins a line of its log.
CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\]", re.M)


@dataclass(frozen=True)
class Job:
    """One script to run.

    Attributes
    ----------
    script
        What the script says of itself.
    src_dir, out_dir
        The folder of the script, and the folder of its generated page.
    gallery_conf
        sphinx-gallery's configuration.
    date, versions
        Facts for the record.
    replace
        Machine paths and what to show instead of them, in order.
    """

    script: scripts.Script
    src_dir: Path
    out_dir: Path
    gallery_conf: dict[str, Any]
    date: str
    versions: dict[str, str]
    replace: tuple[tuple[str, str], ...]


def clean(text: str, replace: tuple[tuple[str, str], ...]) -> str:
    """Output as the book shows it: no colours, no path of this machine, no addresses, no time of day."""
    text = ANSI.sub("", text).replace("\r\n", "\n")
    for old, new in replace:
        text = text.replace(old, new)
    return CLOCK.sub("[time]", ADDRESS.sub("0x…", text)).expandtabs()


class _Capture:
    """One file behind sys.stdout, sys.stderr and file descriptors 1 and 2."""

    def __init__(self, replace: tuple[tuple[str, str], ...]) -> None:
        self._replace = replace
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives as long as the process
        self.fd = self._file.fileno()
        for target in (1, 2):
            os.dup2(self.fd, target)
        self._libc = ctypes.CDLL(None)
        self._start = 0

    def begin(self) -> None:
        self._libc.fflush(None)
        self._start = os.lseek(1, 0, os.SEEK_END)

    def getvalue(self) -> str:
        """What was written since :meth:`begin`."""
        self._libc.fflush(None)
        end = os.lseek(1, 0, os.SEEK_END)
        raw = os.pread(self.fd, end - self._start, self._start)
        return clean(raw.decode("utf-8", "replace"), self._replace)

    def flush(self) -> None:
        """Part of the file interface that sphinx-gallery expects."""


def _make_tee(base: type, capture: _Capture) -> type:
    class Tee(base):  # type: ignore[misc, valid-type]
        """sphinx-gallery's tee, writing to the captured descriptor."""

        def set_std_and_reset_position(self) -> Any:
            result = super().set_std_and_reset_position()
            self.output = capture
            capture.begin()
            return result

        def write(self, data: str) -> int:
            raw = data.encode("utf-8", "replace")
            while raw:
                raw = raw[os.write(1, raw) :]
            return len(data)

        def flush(self) -> None:
            """Nothing is buffered."""

        def fileno(self) -> int:
            return 1

        def isatty(self) -> bool:
            return False

    return Tee


def die_with_parent(signum: int) -> None:
    """Ask the kernel for ``signum`` when the parent process dies (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


def main(job: Job, trace_path: Path, result_path: Path) -> None:
    """Run one script and write its page and record; never returns.

    The result file holds JSON: ``{"ok": true}``, or ``{"ok": false, "line": …, "error": …, "traceback": …}``. A
    process that ends without a result file was killed, or ended itself.
    """
    os.setsid()
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    trace = trace_path.open("w")
    faulthandler.enable(file=trace)
    faulthandler.dump_traceback_later(job.script.timeout, file=trace)
    capture = _Capture(job.replace)
    # Sphinx's handlers hold the terminal's stream of the parent process.
    for name in ("sphinx", ""):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
    atexit._clear()
    try:
        _run(job, capture, trace_path)
        result = {"ok": True}
    except BaseException as err:  # noqa: BLE001 - SystemExit and KeyboardInterrupt must be reported too
        frames = [f for f in traceback.extract_tb(err.__traceback__) if f.filename == str(job.script.path)]
        shown = "".join(traceback.format_exception_only(err)).strip()
        result = {
            "ok": False,
            "line": frames[-1].lineno if frames else None,
            "error": clean(shown or type(err).__name__, job.replace)
            if not isinstance(err, SystemExit)
            else f"SystemExit({err.code!r})",
            "traceback": clean("".join(traceback.format_list(frames)), job.replace),
        }
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    faulthandler.cancel_dump_traceback_later()
    result_path.write_text(json.dumps(result), encoding="utf-8")
    os._exit(0)


def _run(job: Job, capture: _Capture, trace_path: Path) -> None:
    from sphinx_gallery import gen_rst, py_source_parser

    from .. import book

    cells: list[records.Cell] = []
    original = gen_rst.execute_code_block

    def execute_code_block(
        compiler: Any, block: Any, example_globals: Any, script_vars: Any, gallery_conf: Any, file_conf: Any
    ) -> str:
        if block.type != "code":
            return original(compiler, block, example_globals, script_vars, gallery_conf, file_conf)
        trace_path.with_suffix(".at").write_text(str(block.lineno))
        paths = script_vars["image_path_iterator"].paths
        drawn, errors = len(paths), book.EXPECTED_ERRORS
        rst = original(compiler, block, example_globals, script_vars, gallery_conf, file_conf)
        head = job.script.cell_at(block.lineno)
        code = py_source_parser.remove_config_comments(py_source_parser.remove_ignore_blocks(block.content))
        cells.append(
            records.Cell(
                name=head.name if head else None,
                line=block.lineno,
                code=code.strip("\n"),
                output=capture.getvalue().strip("\n"),
                images=tuple(Path(path).name for path in paths[drawn:]),
                varies=bool(head and head.varies),
                fails=errors < book.EXPECTED_ERRORS,
            )
        )
        return rst

    gen_rst.execute_code_block = execute_code_block
    gen_rst._LoggingTee = _make_tee(gen_rst._LoggingTee, capture)
    book.GLUED.clear()
    conf = {**job.gallery_conf, "abort_on_example_error": True}
    wall = time.perf_counter()
    before = _cpu_seconds()
    _, title, _, _ = gen_rst.generate_file_rst(f"{job.script.path.name}", job.out_dir, job.src_dir, conf)
    seconds = time.perf_counter() - wall
    missing = [cell for cell in job.script.cells if cell.name not in {c.name for c in cells}]
    if missing:
        raise scripts.ScriptError(
            f"gallery/{job.script.name}.py:{missing[0].line}: cell {missing[0].name!r} has no code, so nothing ran"
        )
    record = records.Record(
        script=job.script.name,
        title=title,
        cells=tuple(cells),
        glued={item.name: {"value": item.value, "varies": item.varies} for item in book.GLUED},
        seconds=round(seconds, 3),
        cpu_seconds=round(_cpu_seconds() - before, 3),
        date=job.date,
        versions=job.versions,
    )
    records.write(record, job.out_dir / f"{job.script.path.stem}{records.SUFFIX}")


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
